//! `longshore migrate`: brings the journal's schema up to date, or shows what that would run. `up` does it by itself
//! at every start.

use std::sync::Arc;

use queue_core::{
    journal::sqlite::{MIGRATIONS, SqliteJournal, schema_version},
    time::SystemClock,
};
use serde_json::json;

use crate::{
    config::{Config, Journal},
    data::DataFolder,
    failure::{Exit, Failure, Outcome},
    output::{self, Output},
    serve,
};

/// Applies what is missing, or prints it with `dry_run`.
pub(crate) fn run(config: &Config, dry_run: bool, out: Output) -> Outcome {
    let Journal::Sqlite(path) = &config.journal else { return Err(Failure::usage(serve::NOT_BUILT)) };
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

    #[test]
    fn a_dry_run_changes_nothing_and_a_second_run_has_nothing_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let config = Config::load(&Flags::default(), data.to_str(), &Environment::default()).unwrap();
        let Journal::Sqlite(path) = &config.journal else { panic!("{:?}", config.journal) };
        let out = Output { json: true };
        assert_eq!(run(&config, true, out).unwrap(), Exit::Ok);
        assert_eq!(schema_version(path).unwrap(), None);
        for _ in 0..2 {
            assert_eq!(run(&config, false, out).unwrap(), Exit::Ok);
            assert_eq!(schema_version(path).unwrap(), Some(MIGRATIONS.len()));
        }
    }
}
