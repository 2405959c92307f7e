//! Postgres: `pg_dump` at a snapshot that a transaction of ours has exported and holds, and `pg_restore` into a transaction
//! that we end.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    process::{Child, ChildStdin, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::{
    META_CHANGES,
    programs::{self, Complaints},
};
use crate::{
    backup::{
        BackupError,
        manifest::{AuditEnd, DatabaseFacts, ErasuresFacts, StoreKind, TableFacts},
        pace::Pace,
    },
    erasure::Erasure,
    hex,
    ids::Name,
    journal::postgres::{PostgresConfig, check_wall, connect, create_partitions, schema_version},
    time::Timestamp,
};

macro_rules! text {
    ($file:literal) => {
        include_str!(concat!("../../../sql/postgres/", $file, ".sql"))
    };
}

/// How the sums of tables are made: Postgres relies on this function to be the same in all of its versions, for partitions by hash.
const SUMS: &str = "postgres: sum of hashtextextended(row::text, 0)";
/// Pages of a table that one statement counts: 256 KiB, two or three milliseconds.
const PIECE_PAGES: i64 = 32;
/// The first schema with a wall between tenants.
const WALL_SINCE: usize = 15;
/// How long `pg_dump` waits for a table that somebody changes, in milliseconds.
const LOCK_WAIT_MS: &str = "10000";

fn failed(error: sqlx::Error) -> BackupError {
    BackupError::Failed(format!("Postgres: {error}"))
}

async fn open(config: &PostgresConfig) -> Result<PgConnection, BackupError> {
    connect(config).await.map_err(|error| BackupError::Failed(error.to_string()))
}

/// A transaction that holds a snapshot.
pub(crate) struct Snapshot {
    connection: PgConnection,
    id: String,
    url: String,
    facts: DatabaseFacts,
    erasures: Vec<Erasure>,
    dumping: EndsDump,
}

/// The program that dumps, while it runs.
#[derive(Clone, Default)]
struct Dumping(Arc<Mutex<Option<Ended>>>);

impl Dumping {
    fn program(&self) -> MutexGuard<'_, Option<Ended>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the program once nobody waits for the dump any more: the thread that reads from it may wait for ever.
#[derive(Default)]
struct EndsDump(Dumping);

impl Drop for EndsDump {
    fn drop(&mut self) {
        drop(self.0.program().take());
    }
}

impl Snapshot {
    pub(super) async fn take(config: &PostgresConfig, now: Timestamp) -> Result<Self, BackupError> {
        let mut connection = open(config).await?;
        let schema = version(&mut connection).await?;
        if schema >= WALL_SINCE {
            // Row-level security must not hide a row from a backup: whoever may open the journal sees all of them.
            check_wall(&mut connection).await.map_err(|error| BackupError::Refused(error.to_string()))?;
        }
        // None can be made while every table is held.
        if let Err(error) = create_partitions(&mut connection, now).await {
            tracing::warn!(%error, "the coming days' partitions were not made before a backup");
        }
        sqlx::raw_sql(text!("backup_begin")).execute(&mut connection).await.map_err(failed)?;
        let id: String =
            sqlx::query_scalar("SELECT pg_export_snapshot()").fetch_one(&mut connection).await.map_err(failed)?;
        let erasures = erasures(&mut connection).await?;
        let facts = facts(&mut connection, schema, &erasures).await?;
        Ok(Self { connection, id, url: config.url.clone(), facts, erasures, dumping: EndsDump::default() })
    }

    pub(super) fn facts(&self) -> &DatabaseFacts {
        &self.facts
    }

    pub(super) fn erasures(&self) -> &[Erasure] {
        &self.erasures
    }

    pub(super) fn tools(&self) -> Vec<(String, String)> {
        vec![("pg_dump".to_owned(), programs::version("pg_dump"))]
    }

    /// What writes the dump; the snapshot must be kept until it has.
    pub(crate) fn dump(&self) -> impl FnOnce(&mut dyn Write) -> Result<(), BackupError> + Send + use<> {
        let (id, url, dumping) = (self.id.clone(), self.url.clone(), self.dumping.0.clone());
        move |out| dump(&id, &url, &dumping, out)
    }

    /// Lets go of it.
    pub(crate) async fn end(self) {
        // A connection that does not say goodbye ends its transaction all the same.
        let _ = self.connection.close().await;
    }
}

fn dump(snapshot: &str, url: &str, dumping: &Dumping, out: &mut dyn Write) -> Result<(), BackupError> {
    let mut command = programs::on_database("pg_dump", url)?;
    // Compression is ours. The policies of the second wall show everything to whoever may open the journal, which was asked.
    command.args(["--format=custom", "--compress=0", "--enable-row-security", "--lock-wait-timeout", LOCK_WAIT_MS]);
    command.arg(format!("--snapshot={snapshot}")).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = programs::start(&mut command)?;
    let (complaints, stdout) = (Complaints::of(child.stderr.take()), child.stdout.take());
    *dumping.program() = Some(Ended(child));
    let copied = stdout.map_or(Ok(0), |mut stdout| io::copy(&mut stdout, out));
    let Some(mut child) = dumping.program().take() else {
        return Err(BackupError::Failed("pg_dump was ended, since nobody waits for it any more".to_owned()));
    };
    if let Err(error) = copied {
        return Err(BackupError::Failed(error.to_string()));
    }
    let status = child.0.wait().map_err(|error| BackupError::Failed(format!("pg_dump: {error}")))?;
    match status.success() {
        true => Ok(()),
        false => Err(BackupError::Failed(format!("pg_dump failed: {}", complaints.read()))),
    }
}

/// A program that does not outlive us.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn version(connection: &mut PgConnection) -> Result<usize, BackupError> {
    schema_version(connection).await.map_err(|error| BackupError::Failed(error.to_string()))
}

async fn facts(
    connection: &mut PgConnection,
    schema: usize,
    erasures: &[Erasure],
) -> Result<DatabaseFacts, BackupError> {
    let row = sqlx::query(text!("backup_facts")).fetch_one(&mut *connection).await.map_err(failed)?;
    let read = || -> Result<_, sqlx::Error> { Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<i64, _>(2)?)) };
    let (incarnation, generation, live) = read().map_err(failed)?;
    Ok(DatabaseFacts {
        store: StoreKind::Postgres,
        schema: schema as u64,
        sums: SUMS.to_owned(),
        tables: tables(connection, Some(Pace::new())).await?,
        audit_head: audit_end(connection).await?,
        erasures: ErasuresFacts {
            tenants: erasures.len() as u64,
            last_at: erasures.iter().map(|erasure| erasure.accepted_at).max(),
        },
        incarnation,
        generation,
        live_jobs: u64::try_from(live).unwrap_or_default(),
    })
}

async fn has(connection: &mut PgConnection, table: &str) -> Result<bool, BackupError> {
    sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(table).fetch_one(connection).await.map_err(failed)
}

async fn audit_end(connection: &mut PgConnection) -> Result<Option<AuditEnd>, BackupError> {
    // A backup may be of a schema that has none yet: one is made before each migration.
    if !has(connection, "audit_heads").await? {
        return Ok(None);
    }
    let row = sqlx::query(text!("backup_audit_end")).fetch_optional(connection).await.map_err(failed)?;
    let read = |row: sqlx::postgres::PgRow| -> Result<_, sqlx::Error> {
        Ok(AuditEnd { day: row.try_get(0)?, seq: row.try_get(1)?, hash: hex::of(row.try_get::<&[u8], _>(2)?) })
    };
    row.map(read).transpose().map_err(failed)
}

async fn erasures(connection: &mut PgConnection) -> Result<Vec<Erasure>, BackupError> {
    if !has(connection, "erasures").await? {
        return Ok(vec![]);
    }
    let rows = sqlx::query(text!("backup_erasures")).fetch_all(connection).await.map_err(failed)?;
    let read = |row: &sqlx::postgres::PgRow| -> Result<_, sqlx::Error> {
        Ok(Erasure::order(Name::from(row.try_get::<&str, _>(0)?), row.try_get(1)?, Timestamp(row.try_get(2)?)))
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
}

/// Every table with its rows and its sum, in pieces: one statement over a large table would take a processor for minutes. The
/// statements are made by the server, which quotes its own names.
async fn tables(
    connection: &mut PgConnection,
    mut pace: Option<Pace>,
) -> Result<BTreeMap<String, TableFacts>, BackupError> {
    let rows = sqlx::query(text!("backup_tables"))
        .bind(META_CHANGES.map(str::to_owned).to_vec())
        .fetch_all(&mut *connection)
        .await
        .map_err(failed)?;
    let mut tables: BTreeMap<String, (u64, i128)> = BTreeMap::new();
    for row in rows {
        let read = || -> Result<(String, Option<String>, i64), sqlx::Error> {
            Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
        };
        let (name, statement, pages) = read().map_err(failed)?;
        let (count, sum) = tables.entry(name).or_default();
        let Some(statement) = statement else { continue };
        let mut from = 0;
        while from < pages {
            let to = pages.min(from + PIECE_PAGES);
            let piece =
                sqlx::query(AssertSqlSafe(statement.as_str())).bind(format!("({from},0)")).bind(format!("({to},0)"));
            let piece = piece.fetch_one(&mut *connection).await.map_err(failed)?;
            let (rows, sums): (i64, String) = (piece.try_get(0).map_err(failed)?, piece.try_get(1).map_err(failed)?);
            *count += rows.unsigned_abs();
            *sum += sums.parse::<i128>().map_err(|error| BackupError::Failed(format!("Postgres: a sum: {error}")))?;
            from = to;
            if let Some(pace) = &mut pace {
                pace.rest_async().await;
            }
        }
    }
    let facts = |(name, (rows, sum)): (String, (u64, i128))| (name, TableFacts { rows, sum: sum.to_string() });
    Ok(tables.into_iter().map(facts).collect())
}

pub(super) async fn tables_of(config: &PostgresConfig) -> Result<BTreeMap<String, TableFacts>, BackupError> {
    let mut connection = open(config).await?;
    sqlx::raw_sql(text!("backup_begin")).execute(&mut connection).await.map_err(failed)?;
    let tables = tables(&mut connection, None).await;
    let _ = connection.close().await;
    tables
}

pub(super) async fn check_empty(config: &PostgresConfig) -> Result<(), BackupError> {
    let mut connection = open(config).await?;
    let found: i64 = sqlx::query_scalar(text!("backup_is_empty")).fetch_one(&mut connection).await.map_err(failed)?;
    let _ = connection.close().await;
    match found {
        0 => Ok(()),
        found => Err(BackupError::Refused(format!(
            "the database is not empty ({found} tables, views or functions): make an empty one (`createdb`) and restore into that"
        ))),
    }
}

pub(super) async fn say(config: &PostgresConfig, reason: &str) -> Result<(), BackupError> {
    let mut connection = open(config).await?;
    // Statistics are in no dump, and statements of the journal rely on them.
    sqlx::query("ANALYZE").execute(&mut connection).await.map_err(failed)?;
    sqlx::query(text!("backup_say")).bind(reason).execute(&mut connection).await.map_err(failed)?;
    let _ = connection.close().await;
    Ok(())
}

pub(super) async fn erase(config: &PostgresConfig, log: &[Erasure], now: Timestamp) -> Result<bool, BackupError> {
    let mut connection = open(config).await?;
    if !has(&mut connection, "erasures").await? {
        return Ok(false);
    }
    let mut transaction = connection.begin().await.map_err(failed)?;
    for order in log {
        let begun = sqlx::query(text!("erase_begin"))
            .bind(order.tenant.as_str())
            .bind(&order.pseudonym)
            .bind(order.accepted_at.0)
            .bind(now.0);
        begun.execute(&mut *transaction).await.map_err(failed)?;
        let shredded = sqlx::query(text!("erase_shred")).bind(order.tenant.as_str()).bind(now.0);
        shredded.execute(&mut *transaction).await.map_err(failed)?;
    }
    sqlx::query(text!("erase_replay")).bind(now.0 + 1).bind(now.0).execute(&mut *transaction).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    let _ = connection.close().await;
    Ok(true)
}

/// Makes the roles that a dump names and a server may not have.
pub(crate) async fn make_roles(config: &PostgresConfig) -> Result<(), BackupError> {
    let mut connection = open(config).await?;
    sqlx::raw_sql(text!("backup_roles")).execute(&mut connection).await.map_err(failed)?;
    let _ = connection.close().await;
    Ok(())
}

/// A dump on its way into an empty database: one transaction, which only [`Loading::commit`] ends well.
pub(crate) struct Loading {
    psql: Ended,
    input: ChildStdin,
    complaints: Complaints,
}

impl Loading {
    /// Loads what `dump` reads.
    pub(crate) fn begin(
        config: &PostgresConfig,
        dump: &mut dyn Read,
        reason: &str,
        now: Timestamp,
    ) -> Result<Self, BackupError> {
        let lost = |error: io::Error| BackupError::Failed(format!("psql: {error}"));
        let mut command = programs::on_database("psql", &config.url)?;
        command.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"]);
        command.arg("--set").arg(format!("since={}", now.0)).arg("--set").arg(format!("reason={reason}"));
        let mut psql = Ended(programs::start(command.stdin(Stdio::piped()).stdout(Stdio::null()))?);
        let complaints = Complaints::of(psql.0.stderr.take());
        let Some(mut input) = psql.0.stdin.take() else { return Err(BackupError::Failed("psql has no input".into())) };
        input.write_all(b"BEGIN;\n").map_err(lost)?;
        let mut loading = Self { psql, input, complaints };
        match loading.load(dump) {
            Ok(()) => Ok(loading),
            Err(BackupError::Failed(reason)) => {
                let Self { mut psql, complaints, input } = loading;
                drop(input);
                let _ = psql.0.kill();
                let said = complaints.read();
                Err(BackupError::Failed(if said.is_empty() { reason } else { format!("psql: {said}") }))
            }
            Err(error) => Err(error),
        }
    }

    fn load(&mut self, dump: &mut dyn Read) -> Result<(), BackupError> {
        let mut command = std::process::Command::new(programs::program("pg_restore"));
        // Owned by whoever restores: its server need not have the roles of the other.
        command.args(["--no-owner", "--file=-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut pg_restore = Ended(programs::start(&mut command)?);
        let complaints = Complaints::of(pg_restore.0.stderr.take());
        let (Some(mut into), Some(mut script)) = (pg_restore.0.stdin.take(), pg_restore.0.stdout.take()) else {
            return Err(BackupError::Failed("pg_restore has no input or output".into()));
        };
        let (read, written) = thread::scope(|scope| {
            let input = &mut self.input;
            let writing = scope.spawn(move || io::copy(&mut script, input));
            let read = io::copy(dump, &mut into);
            drop(into);
            (read, writing.join())
        });
        let status = pg_restore.0.wait().map_err(|error| BackupError::Failed(format!("pg_restore: {error}")))?;
        if let Ok(Err(error)) = written {
            return Err(BackupError::Failed(format!("psql: {error}")));
        }
        if !status.success() {
            return Err(BackupError::Failed(format!("pg_restore failed: {}", complaints.read())));
        }
        read.map(drop).map_err(|error| BackupError::Failed(error.to_string()))
    }

    /// Marks what was loaded as restored and paused, in the same transaction, and commits.
    pub(crate) fn commit(self) -> Result<(), BackupError> {
        let Self { mut psql, mut input, complaints } = self;
        let told = input.write_all(concat!("\n", text!("backup_mark"), "\nCOMMIT;\n").as_bytes());
        drop(input);
        let status = psql.0.wait().map_err(|error| BackupError::Failed(format!("psql: {error}")))?;
        match (status.success(), told) {
            (true, Ok(())) => Ok(()),
            (_, told) => {
                let said = complaints.read();
                let why = told.err().map(|error| error.to_string()).unwrap_or_default();
                Err(BackupError::Failed(format!("nothing was restored: psql: {said} {why}")))
            }
        }
    }
}
