//! `longshore migrate`: brings the journal's schema up to date, or shows what that would run. `up` does it by itself
//! at every start.

use std::{path::Path, sync::Arc};

use queue_core::{
    journal::{
        postgres,
        sqlite::{MIGRATIONS, SqliteJournal, schema_version},
    },
    time::SystemClock,
};
use serde_json::json;

use crate::{
    config::{Config, Journal},
    data::DataFolder,
    failure::{Exit, Failure, Outcome},
    output::{self, Output},
    stores,
};

/// Applies what is missing, or prints it with `dry_run`.
pub(crate) async fn run(config: &Config, dry_run: bool, out: Output) -> Outcome {
    match &config.journal {
        Journal::Sqlite(path) => sqlite(config, path, dry_run, out),
        Journal::Postgres(server) => {
            let refused = |why: postgres::OpenError| Failure::usage(why.to_string());
            let mut connection = postgres::connect(&stores::postgres(server)).await.map_err(refused)?;
            if dry_run {
                let sql = postgres::pending_sql(&mut connection).await.map_err(refused)?;
                out.show(&json!({"dry_run": true, "sql": sql}), || {
                    output::line(sql.trim_end());
                    output::note("nothing was done");
                });
                return Ok(Exit::Ok);
            }
            let done = postgres::migrate(&mut connection).await.map_err(refused)?;
            out.show(&json!({"dry_run": false, "applied": done}), || {
                output::line(&format!("{} migrations were applied", done.len()));
            });
            Ok(Exit::Ok)
        }
    }
}

fn sqlite(config: &Config, path: &Path, dry_run: bool, out: Output) -> Outcome {
    let unreadable = |error| Failure::error(format!("{}: {error}", path.display()));
    let has = schema_version(path).map_err(unreadable)?.unwrap_or(0);
    let knows = MIGRATIONS.len();
    if has > knows {
        return Err(Failure::error(format!(
            "the journal has schema version {has}, and this program knows versions up to {knows}: use a newer program"
        )));
    }
    if dry_run {
        let missing = &MIGRATIONS[has..];
        out.show(&json!({"dry_run": true, "from": has, "to": knows, "sql": missing}), || {
            missing.iter().for_each(|sql| output::line(sql.trim_end()));
            output::note(&format!("from version {has} to {knows}; nothing was done"));
        });
        return Ok(Exit::Ok);
    }
    // Whoever serves the folder holds it: two processes must not write one journal.
    let _folder = DataFolder::take(&config.data)?;
    SqliteJournal::open(path, Arc::new(SystemClock)).map_err(unreadable)?;
    out.show(&json!({"dry_run": false, "from": has, "to": knows}), || {
        output::line(&if has == knows {
            format!("the journal has schema version {has} already")
        } else {
            format!("the journal went from schema version {has} to {knows}")
        });
    });
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Flags, environment::Environment};

    #[tokio::test]
    async fn a_dry_run_changes_nothing_and_a_second_run_has_nothing_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let config = Config::load(&Flags::default(), data.to_str(), &Environment::default()).unwrap();
        let Journal::Sqlite(path) = &config.journal else { panic!("{:?}", config.journal) };
        let out = Output { json: true };
        assert_eq!(run(&config, true, out).await.unwrap(), Exit::Ok);
        assert_eq!(schema_version(path).unwrap(), None);
        for _ in 0..2 {
            assert_eq!(run(&config, false, out).await.unwrap(), Exit::Ok);
            assert_eq!(schema_version(path).unwrap(), Some(MIGRATIONS.len()));
        }
    }
}
