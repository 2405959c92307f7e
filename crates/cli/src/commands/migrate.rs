//! `longshore migrate`: brings the journal's schema up to date, or shows what that would run. `up` does it by itself
//! at every start.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::Path,
    sync::Arc,
};

use queue_core::{
    journal::{
        postgres,
        sqlite::{MIGRATIONS, SqliteJournal, schema_version},
    },
    time::SystemClock,
};
use serde_json::json;

use crate::{
    backups,
    config::{Config, Journal},
    data::DataFolder,
    failure::{Exit, Failure, Outcome},
    output::{self, Output},
    stores,
};

/// What is done with the steps that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They are printed.
    DryRun,
    /// They are run.
    Apply {
        /// Whoever sits at the terminal is asked first, if the schema exists: it may hold jobs. A journal that is empty is
        /// made without a question, and without a terminal there is nobody to ask: a deployment goes on.
        ask: bool,
        /// A backup is made first, if the schema exists and backups are configured.
        backup: bool,
    },
}

/// Applies what is missing, or prints it.
pub(crate) async fn run(config: &Config, mode: Mode, out: Output) -> Outcome {
    match &config.journal {
        Journal::Sqlite(path) => sqlite(config, path, mode, out).await,
        Journal::Postgres(server) => {
            let refused = |why: postgres::OpenError| Failure::usage(why.to_string());
            let mut connection = postgres::connect(&stores::postgres(server)).await.map_err(refused)?;
            if mode == Mode::DryRun {
                let sql = postgres::pending_sql(&mut connection).await.map_err(refused)?;
                out.show(&json!({"dry_run": true, "sql": sql}), || {
                    output::line(sql.trim_end());
                    output::note("nothing was done");
                });
                return Ok(Exit::Ok);
            }
            let has = postgres::schema_version(&mut connection).await.map_err(refused)?;
            consent(mode, has, postgres::MIGRATIONS.len())?;
            back_up(config, mode).await?;
            let done = postgres::migrate(&mut connection).await.map_err(refused)?;
            out.show(&json!({"dry_run": false, "applied": done}), || {
                output::line(&format!("{} migrations were applied", done.len()));
            });
            Ok(Exit::Ok)
        }
    }
}

async fn sqlite(config: &Config, path: &Path, mode: Mode, out: Output) -> Outcome {
    let unreadable = |error| Failure::error(format!("{}: {error}", path.display()));
    let has = schema_version(path).map_err(unreadable)?.unwrap_or(0);
    let knows = MIGRATIONS.len();
    if has > knows {
        return Err(Failure::error(format!(
            "the journal has schema version {has}, and this program knows versions up to {knows}: use a newer program"
        )));
    }
    if mode == Mode::DryRun {
        let missing = &MIGRATIONS[has..];
        out.show(&json!({"dry_run": true, "from": has, "to": knows, "sql": missing}), || {
            missing.iter().for_each(|sql| output::line(sql.trim_end()));
            output::note(&format!("from version {has} to {knows}; nothing was done"));
        });
        return Ok(Exit::Ok);
    }
    // Whoever serves the folder holds it: two processes must not write one journal.
    let _folder = DataFolder::take(&config.data)?;
    consent(mode, has, knows)?;
    back_up(config, mode).await?;
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

async fn back_up(config: &Config, mode: Mode) -> Result<(), Failure> {
    match mode {
        Mode::Apply { backup: true, .. } => backups::before_migration(config).await,
        _ => Ok(()),
    }
}

/// Asks before a schema that exists is changed, where somebody can answer.
fn consent(mode: Mode, has: usize, knows: usize) -> Result<(), Failure> {
    let (input, errors) = (io::stdin(), io::stderr());
    let asks = matches!(mode, Mode::Apply { ask: true, .. }) && input.is_terminal() && errors.is_terminal();
    if !asks || !(1..knows).contains(&has) {
        return Ok(());
    }
    let question = format!("The journal has schema version {has} and goes to version {knows}. Go on?");
    if answered_yes(&question, &mut input.lock(), &mut errors.lock())? {
        return Ok(());
    }
    let message = format!("the journal stays at schema version {has}: nothing was done");
    Err(Failure { exit: Exit::Refused, message, problem: None })
}

/// Asks until the answer is yes or no. An empty answer is no, and so is the end of the input.
fn answered_yes(question: &str, answers: &mut impl BufRead, questions: &mut impl Write) -> io::Result<bool> {
    loop {
        write!(questions, "{question} [y/N] ")?;
        questions.flush()?;
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        match answer.trim().to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "" | "n" | "no" => return Ok(false),
            _ => writeln!(questions, "yes or no")?,
        }
    }
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
        assert_eq!(run(&config, Mode::DryRun, out).await.unwrap(), Exit::Ok);
        assert_eq!(schema_version(path).unwrap(), None);
        for _ in 0..2 {
            assert_eq!(run(&config, Mode::Apply { ask: true, backup: true }, out).await.unwrap(), Exit::Ok);
            assert_eq!(schema_version(path).unwrap(), Some(MIGRATIONS.len()));
        }
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        let ask = |answers: &str| {
            let mut asked = vec![];
            let yes = answered_yes("Go on?", &mut answers.as_bytes(), &mut asked).unwrap();
            (yes, String::from_utf8(asked).unwrap())
        };
        assert_eq!(ask("YES\n"), (true, "Go on? [y/N] ".to_owned()));
        assert_eq!(ask("perhaps\ny\n"), (true, "Go on? [y/N] yes or no\nGo on? [y/N] ".to_owned()));
        for no in ["no\n", "\n", ""] {
            assert!(!ask(no).0, "{no:?}");
        }
    }
}
