//! The way back: into an empty database, paused until somebody confirms.

use std::{collections::BTreeMap, io::Read, sync::Arc};

use super::{
    BackupError, BackupId, Identities,
    create::ErasureLine,
    known::{find, found},
    manifest::{Content, Manifest, TableFacts},
    objects,
    place::{Place, file_of},
    seal,
    source::{PostgresLoading, Source, SqliteLoading, postgres_roles},
};
use crate::{
    archive::Objects,
    erasure::Erasure,
    time::{Clock, Timestamp},
};

/// Largest erase log that is read: far more than its tenants' bound.
const LOG_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// How the reason of the pause begins, once a restore is whole.
pub(super) const RESTORED: &str = "restored from backup";

/// A restore that is asked for.
#[derive(Clone, Debug)]
pub struct Restoring {
    /// Out of this backup.
    pub id: BackupId,
    /// Into this empty database.
    pub into: Source,
    /// Into this place of objects, where they are wanted, too.
    pub objects_into: Option<Objects>,
    /// An erase log that was kept elsewhere.
    pub erasures: Vec<Erasure>,
}

/// What a restore came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What was restored.
    pub manifest: Manifest,
    /// Why it is paused.
    pub reason: String,
    /// Tenants of the erase log, whose rows are looked for again.
    pub erased: u64,
    /// The backup whose erase log was replayed, where a newer one than this had one.
    pub log_of: BackupId,
    /// Tenants that are still to be erased, since the schema has no erase log yet: migrate, then replay it.
    pub erasures_left: u64,
    /// Objects that were put back.
    pub objects: u64,
    /// How long it took.
    pub took_ms: i64,
}

/// Restores a backup. What it leaves is paused; where it broke off, the reason of the pause says so, or there is nothing.
///
/// # Errors
/// [`BackupError::Refused`]: the database is not empty, or is of another store. [`BackupError::Damaged`] names the part.
pub async fn restore(
    place: &Place,
    identities: &Arc<Identities>,
    asked: Restoring,
    clock: &dyn Clock,
) -> Result<Restored, BackupError> {
    let began_at = clock.now();
    let Restoring { id, into, objects_into, erasures } = asked;
    let manifest = find(place, id).await?.manifest;
    let Some(facts) = &manifest.database else {
        return Err(BackupError::Refused(format!(
            "backup {id} is of scope {}: it has no journal",
            manifest.scope.as_str()
        )));
    };
    if facts.store != into.kind() {
        let (has, wants) = (facts.store.as_str(), into.kind().as_str());
        return Err(BackupError::Refused(format!("the backup is of {has}, and --into names {wants}")));
    }
    into.check_empty().await?;
    let (log_of, mut log) = newest_log(place, identities, &manifest).await?;
    log.extend(erasures);

    let reason = format!("{RESTORED} {id}, of {}; `longshore maintenance off` confirms it", manifest.snapshot_at);
    let unfinished =
        format!("a restore of backup {id} has not ended: do not confirm it; restore into an empty database again");
    let loaded = load(place, identities, &manifest, &into, unfinished, began_at).await?;
    let at = loaded.at(&into);
    compare(&facts.tables, &at.tables().await?)?;
    let has_log = at.erase(&log, clock.now()).await?;
    at.say(&reason).await?;
    loaded.commit()?;
    let objects = put_objects_back(place, identities, &manifest, objects_into).await?;
    let (erased, erasures_left) = if has_log { (log.len() as u64, 0) } else { (0, log.len() as u64) };
    let took_ms = clock.now().since_ms(began_at);
    Ok(Restored { reason, erased, log_of, erasures_left, objects, took_ms, manifest })
}

/// A journal that is in its database, or beside its file.
enum Loaded {
    Sqlite(SqliteLoading),
    Postgres,
}

impl Loaded {
    /// Where it is now.
    fn at(&self, into: &Source) -> Source {
        match self {
            Self::Sqlite(loading) => Source::Sqlite(loading.path().to_owned()),
            Self::Postgres => into.clone(),
        }
    }

    fn commit(self) -> Result<(), BackupError> {
        match self {
            Self::Sqlite(loading) => loading.commit(),
            Self::Postgres => Ok(()),
        }
    }
}

async fn load(
    place: &Place,
    identities: &Arc<Identities>,
    manifest: &Manifest,
    into: &Source,
    reason: String,
    now: Timestamp,
) -> Result<Loaded, BackupError> {
    let contents = [Content::PostgresDump, Content::SqliteFile];
    let Some(part) = manifest.part(&contents) else {
        return Err(BackupError::damaged("manifest.json", "names no part with the journal"));
    };
    let path = file_of(manifest.id, &part.name);
    match into.clone() {
        Source::Sqlite(file) => {
            let load = move |plain: &mut dyn Read| SqliteLoading::begin(&file, plain, &reason, now);
            seal::open(place, identities, (&path, part), load).await.map(Loaded::Sqlite)
        }
        Source::Postgres(config) => {
            postgres_roles(&config).await?;
            let load = move |plain: &mut dyn Read| PostgresLoading::begin(&config, plain, &reason, now);
            // Only what was read to its end, and is what was written, is committed.
            let loading = seal::open(place, identities, (&path, part), load).await?;
            let committed = tokio::task::spawn_blocking(move || loading.commit()).await;
            committed.map_err(|error| BackupError::Failed(error.to_string()))??;
            Ok(Loaded::Postgres)
        }
    }
}

/// Whether every table is what it was.
fn compare(were: &BTreeMap<String, TableFacts>, are: &BTreeMap<String, TableFacts>) -> Result<(), BackupError> {
    let all: std::collections::BTreeSet<&String> = were.keys().chain(are.keys()).collect();
    let differing: Vec<&str> =
        all.into_iter().filter(|table| were.get(*table) != are.get(*table)).map(String::as_str).collect();
    match differing.as_slice() {
        [] => Ok(()),
        tables => Err(BackupError::Failed(format!(
            "what was restored is not what was backed up: rows or sums differ in {}",
            tables.join(", ")
        ))),
    }
}

/// The erase log of the newest good backup that has one and can be opened: whoever was erased after this backup must not come back
/// with it.
async fn newest_log(
    place: &Place,
    identities: &Arc<Identities>,
    manifest: &Manifest,
) -> Result<(BackupId, Vec<Erasure>), BackupError> {
    let mut found = found(place).await?.good;
    found.retain(|known| known.manifest.snapshot_at >= manifest.snapshot_at && known.manifest.database.is_some());
    for known in found {
        let newer = known.manifest;
        match log_of(place, identities, &newer).await {
            Ok(log) => return Ok((newer.id, log)),
            Err(error @ BackupError::Failed(_)) => return Err(error),
            // A newer one may be encrypted to others, or be damaged; an older log says less, and this one's is the least.
            Err(error) if newer.id != manifest.id => {
                tracing::warn!(%error, backup = %newer.id, "the erase log of a newer backup cannot be read");
            }
            Err(error) => return Err(error),
        }
    }
    Ok((manifest.id, log_of(place, identities, manifest).await?))
}

async fn log_of(place: &Place, identities: &Arc<Identities>, manifest: &Manifest) -> Result<Vec<Erasure>, BackupError> {
    let Some(part) = manifest.part(&[Content::Erasures]) else { return Ok(vec![]) };
    let path = file_of(manifest.id, &part.name);
    let text = seal::open(place, identities, (&path, part), |plain| {
        let mut text = String::new();
        let read = plain.take(LOG_MAX_BYTES).read_to_string(&mut text);
        read.map_err(|error| BackupError::Failed(error.to_string()))?;
        Ok(text)
    })
    .await?;
    erasures_of(&text).map_err(|reason| BackupError::damaged(&part.name, reason))
}

/// The erasures of a log as `tenant erase --log` prints it: a JSON object a line.
///
/// # Errors
/// Which line is wrong.
pub fn erasures_of(text: &str) -> Result<Vec<Erasure>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(at, line): (usize, &str)| {
        let wrong = |reason: String| format!("line {} is not of an erase log: {reason}", at + 1);
        let line: ErasureLine = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
        match Erasure::is_pseudonym(&line.pseudonym) {
            true => Ok(Erasure::order(line.tenant, line.pseudonym, line.accepted_at)),
            false => Err(wrong(format!("`{}` is no pseudonym", line.pseudonym))),
        }
    };
    lines.map(read).collect()
}

async fn put_objects_back(
    place: &Place,
    identities: &Arc<Identities>,
    manifest: &Manifest,
    into: Option<Objects>,
) -> Result<u64, BackupError> {
    let (Some(into), Some(part)) = (into, manifest.part(&[Content::ObjectsTar])) else { return Ok(0) };
    let (path, runtime) = (file_of(manifest.id, &part.name), tokio::runtime::Handle::current());
    let put = move |plain: &mut dyn Read| objects::read(plain, Some((&into, &runtime)));
    Ok(seal::open(place, identities, (&path, part), put).await?.objects)
}
