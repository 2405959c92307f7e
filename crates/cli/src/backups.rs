//! Backups as this program makes them: what the configuration names, opened.

use std::{path::PathBuf, sync::Arc};

use queue_core::{
    archive::Objects,
    audit::{Audit, AuditEntry},
    backup::{
        BackupError, Backups, Cause, Known, Manifest, NewBackup, Place, Prune, Scope, Setup, Source, copy, create,
        find, found,
    },
    journal::{
        postgres::{self, PostgresJournal},
        sqlite::{self, SqliteJournal},
    },
    location::Location,
    time::{Clock, SystemClock},
};
use serde_json::Value;

use crate::{
    config::{Backup, Config, Journal},
    failure::{Exit, Failure},
    output,
    rehearsal::Drill,
    stores,
};

/// What to do where no place is named.
pub(crate) const NOT_CONFIGURED: &str = "no place for backups is configured: set `[backup] url` and `recipients` \
     (LONGSHORE_BACKUP_URL, LONGSHORE_BACKUP_RECIPIENTS)";

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        let exit = match &error {
            BackupError::Refused(_) => Exit::Refused,
            BackupError::NotFound(_) => Exit::NotFound,
            BackupError::Failed(_) | BackupError::Damaged { .. } => Exit::Error,
        };
        Self { exit, message: error.to_string(), problem: None }
    }
}

/// The journal of a configuration.
pub(crate) fn source(journal: &Journal) -> Source {
    match journal {
        Journal::Sqlite(path) => Source::Sqlite(path.clone()),
        Journal::Postgres(server) => Source::Postgres(Box::new(stores::postgres(server))),
    }
}

/// All that the configuration says of backups.
pub(crate) fn configured(config: &Config) -> Result<&Backup, Failure> {
    config.backup.as_ref().ok_or_else(|| Failure::usage(NOT_CONFIGURED))
}

/// All that backups of this installation are made with.
pub(crate) fn setup(config: &Config) -> Result<Setup, Failure> {
    let backup = configured(config)?;
    Ok(Setup {
        place: backup.place().map_err(Failure::error)?,
        offsite: backup.offsite().map_err(Failure::error)?,
        recipients: backup.recipients.clone(),
        identities: backup.identities().map_err(Failure::usage)?,
        source: source(&config.journal),
        objects: objects(config)?,
        config: config.effective.clone(),
        scratch: scratch(config),
        clock: Arc::new(SystemClock),
    })
}

/// Where archives are: what is named, or what `up` has made in its data folder.
fn objects(config: &Config) -> Result<Option<Objects>, Failure> {
    let of_up = config.data.join("objects");
    let location = match (&config.objects, &config.journal) {
        (Some(named), _) => named.clone(),
        (None, Journal::Sqlite(_)) if of_up.is_dir() => Location::Folder(of_up),
        (None, _) => return Ok(None),
    };
    Objects::open(&location, &config.buckets).map(Some).map_err(stores::cannot_start("the place of objects"))
}

/// Beside the journal's file: where there is room for one of its size.
fn scratch(config: &Config) -> PathBuf {
    match &config.journal {
        Journal::Sqlite(path) => {
            path.parent().filter(|folder| !folder.as_os_str().is_empty()).map_or_else(|| ".".into(), PathBuf::from)
        }
        Journal::Postgres(_) => std::env::temp_dir(),
    }
}

/// What the clockwork is told of backups; `None`: no place is named.
pub(crate) fn clockwork(config: &Config) -> Result<Option<scheduler::Backups>, Failure> {
    let Some(backup) = &config.backup else { return Ok(None) };
    let setup = setup(config)?;
    let drill = Drill { setup: setup.clone(), scratch: backup.scratch.clone() };
    if backup.drill && setup.identities.is_none() {
        tracing::warn!("backups are made and not tried: `[backup] identity_file` is missing");
    }
    let rehearsal = setup.identities.is_some().then(|| Arc::new(drill) as Arc<dyn scheduler::Rehearsal>);
    Ok(Some(scheduler::Backups {
        setup,
        keep: backup.keep,
        daily_at: backup.daily_at,
        rehearsal,
        weekly_drill: backup.drill,
    }))
}

/// Makes a backup, and brings it to the second place. A second place that fails is told, and the first one's backup is good.
pub(crate) async fn make(setup: &Setup, new: NewBackup) -> Result<(Manifest, Option<BackupError>), BackupError> {
    let manifest = create(setup, new).await?;
    let offsite = match &setup.offsite {
        Some(offsite) => copy(&setup.place, offsite, &manifest).await.err(),
        None => None,
    };
    Ok((manifest, offsite))
}

/// Notes in a journal's audit log what was done on the command line. Where there is none that this program knows, that is told.
pub(crate) async fn note(journal: &Source, what: &str, subject: &str, detail: Value) {
    let entry = AuditEntry {
        at: SystemClock.now(),
        role: Some("command line".to_owned()),
        action: format!("backup {what}"),
        subject: subject.to_owned(),
        status: 200,
        detail: detail.to_string(),
        ..AuditEntry::default()
    };
    let noted = match opened(journal).await {
        Ok((audit, _)) => audit.append_audit(entry).await.map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    if let Err(why) = noted {
        output::note(&format!("no audit log says that this was done: {why}"));
    }
}

/// Says in a journal what is about to be deleted. Where there is none that this program knows, that is told.
pub(crate) async fn say(journal: &Source, prune: &Prune) {
    let said = match opened(journal).await {
        Ok((_, backups)) => prune.say(&*backups, SystemClock.now()).await.map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    if let Err(why) = said {
        output::note(&format!("`GET /v1/backups` may still call what is deleted good: {why}"));
    }
}

/// What a journal keeps about backups.
async fn opened(journal: &Source) -> Result<(Arc<dyn Audit>, Arc<dyn Backups>), String> {
    match journal {
        Source::Sqlite(path) => {
            // Neither made nor migrated for this.
            let schema = sqlite::schema_version(path).map_err(|error| error.to_string())?;
            if schema != Some(sqlite::MIGRATIONS.len()) {
                return Err("the journal is not there, or its schema is another".to_owned());
            }
            let journal = SqliteJournal::open(path, Arc::new(SystemClock)).map_err(|error| error.to_string())?;
            let journal = Arc::new(journal);
            Ok((journal.clone(), journal))
        }
        Source::Postgres(server) => {
            let journal = PostgresJournal::open(server, Arc::new(SystemClock)).await;
            let journal = Arc::new(journal.map_err(|error| error.to_string())?);
            Ok((journal.clone(), journal))
        }
    }
}

/// The backup that is meant: an id, or `latest`, the newest one with a journal.
pub(crate) async fn named(place: &Place, text: &str) -> Result<Known, Failure> {
    if text == "latest" {
        let newest = found(place).await?.good.into_iter().find(|known| known.manifest.database.is_some());
        let none = || Failure {
            exit: Exit::NotFound,
            message: format!("there is no good backup with a journal at {}", place.shown()),
            problem: None,
        };
        return newest.ok_or_else(none);
    }
    let id = text.parse().map_err(|_| Failure::usage(format!("`{text}` is not a backup: it is an id, or `latest`")))?;
    Ok(find(place, id).await?)
}

/// Makes a backup before the schema of a journal that is in use changes, where backups are configured.
pub(crate) async fn before_migration(config: &Config) -> Result<(), Failure> {
    if config.backup.is_none() || !is_behind(config).await? {
        return Ok(());
    }
    let setup = setup(config)?;
    let new = NewBackup::of(Scope::Database, Cause::Migration, None);
    let refused = |why: String| {
        let message = format!(
            "no backup could be made, so nothing was migrated: {why}\n  `longshore migrate --no-backup` migrates without one"
        );
        Failure { exit: Exit::Refused, message, problem: None }
    };
    let (manifest, offsite) = make(&setup, new).await.map_err(|error| refused(error.to_string()))?;
    if let Some(error) = offsite {
        return Err(refused(format!("the second place: {error}")));
    }
    output::note(&format!("backup {} was made first", manifest.id));
    Ok(())
}

/// Whether a migration would change a journal that has something.
async fn is_behind(config: &Config) -> Result<bool, Failure> {
    let (has, knows) = match &config.journal {
        Journal::Sqlite(path) => {
            let has = sqlite::schema_version(path).map_err(|error| Failure::error(error.to_string()))?;
            (has.unwrap_or(0), sqlite::MIGRATIONS.len())
        }
        Journal::Postgres(server) => {
            let refused = |why: postgres::OpenError| Failure::usage(why.to_string());
            let mut connection = postgres::connect(&stores::postgres(server)).await.map_err(refused)?;
            (postgres::schema_version(&mut connection).await.map_err(refused)?, postgres::MIGRATIONS.len())
        }
    };
    Ok((1..knows).contains(&has))
}
