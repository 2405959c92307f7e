//! The journal and the dispatcher, asked directly: they may be wrong where no server runs yet.

use queue_core::{
    dispatcher::redis::{self, Persistence},
    journal::{
        postgres,
        sqlite::{MIGRATIONS, schema_version},
    },
    time::{Clock, SystemClock},
};

use super::{Finding, backups, clock, fail, ok, warn};
use crate::{
    config::{Dispatcher, Journal, Postgres},
    stores,
};

/// Whether the journal can be opened, and keeps what it is told.
pub(super) async fn journal(journal: &Journal) -> Vec<Finding> {
    let what = "journal";
    let path = match journal {
        Journal::Sqlite(path) => path,
        Journal::Postgres(server) => return postgres(server).await,
    };
    let (shown, knows) = (path.display(), MIGRATIONS.len());
    vec![match schema_version(path) {
        Ok(None) => ok(what, format!("{shown} is not there yet; `longshore up` creates it")),
        Ok(Some(version)) if version < knows => {
            ok(what, format!("{shown} has schema version {version}; the next start brings it to {knows}"))
        }
        Ok(Some(version)) if version == knows => ok(what, format!("{shown} has schema version {version}")),
        Ok(Some(version)) => {
            fail(what, format!("{shown} has schema version {version}, newer than {knows}"), "use a newer program")
        }
        Err(error) => fail(what, format!("{shown}: {error}"), "restore it from a backup, or name another file"),
    }]
}

async fn postgres(server: &Postgres) -> Vec<Finding> {
    let what = "journal";
    let mut connection = match postgres::connect(&stores::postgres(server)).await {
        Ok(connection) => connection,
        Err(why) => return vec![fail(what, why.to_string(), "do what it says, and ask again")],
    };
    let asked = SystemClock.now();
    let found = match postgres::inspect(&mut connection).await {
        Ok(found) => found,
        Err(why) => return vec![fail(what, why.to_string(), "do what it says, and ask again")],
    };
    let shown = format!("Postgres {} with schema version {}", found.version, found.schema);
    let first = if found.durable {
        ok(what, shown)
    } else {
        fail(
            what,
            format!("{shown} runs with fsync or full_page_writes off: accepted jobs can be lost with its machine"),
            "set both on in postgresql.conf",
        )
    };
    let archiving = match postgres::archiving(&mut connection).await {
        Ok(found) => backups::archiving(&found),
        Err(why) => warn("WAL archive", why.to_string(), "let the role read pg_stat_archiver"),
    };
    vec![first, clock("clock of Postgres", asked, found.now), archiving]
}

/// Whether the dispatcher can be opened, what it keeps, and what older versions left in it.
pub(super) async fn dispatcher(dispatcher: &Dispatcher) -> Vec<Finding> {
    let what = "dispatcher";
    let config = match stores::redis(dispatcher) {
        Ok(Some(config)) => config,
        Ok(None) => return vec![ok(what, "in the memory of the one process; filled from the journal at its start")],
        Err(failure) => return vec![fail(what, failure.message, "correct its address")],
    };
    let asked = SystemClock.now();
    let found = match redis::inspect(&config).await {
        Ok(found) => found,
        Err(why) => return vec![fail(what, why.to_string(), "do what it says, and ask again")],
    };
    let eviction = found.eviction.as_deref().unwrap_or("unknown");
    let shown = format!("Redis {}, maxmemory-policy {eviction}", found.version);
    let mut findings = vec![match eviction {
        "noeviction" => ok(what, shown),
        _ => {
            warn(what, shown, "make sure that it is noeviction: a Redis that evicts forgets jobs, which then run late")
        }
    }];
    findings.push(match found.persistence {
        Persistence::Appends => ok("dispatcher's memory", "appended to a file"),
        Persistence::Snapshots => ok("dispatcher's memory", "snapshots; a restart is filled from the journal"),
        Persistence::Nothing => warn(
            "dispatcher's memory",
            "not kept over a restart; it is then filled from the journal (about 10 s a million jobs)",
            "set appendonly yes, so that a restart of Redis is short",
        ),
    });
    findings.push(clock("clock of Redis", asked, found.now));
    findings.push(match found.orphans.iter().next() {
        None => ok("orphaned keys", "none"),
        Some((layout, _)) => {
            let each = found.orphans.iter().map(|(layout, keys)| format!("{keys} of {layout}")).collect::<Vec<_>>();
            warn(
                "orphaned keys",
                format!("left by other versions: {}", each.join(", ")),
                format!("once no such process runs: redis-cli --scan --pattern '{layout}:*' | xargs redis-cli UNLINK"),
            )
        }
    });
    findings
}
