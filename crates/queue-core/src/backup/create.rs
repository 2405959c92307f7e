//! How a backup is made: a snapshot, its parts, each read back, and then the manifest.

use std::{collections::BTreeMap, io::Write};

use serde::{Deserialize, Serialize};

use super::{
    BackupError, BackupId, Setup,
    manifest::{Cause, Content, DatabaseFacts, FORM, MANIFEST, Manifest, ObjectsFacts, Part, Scope},
    objects,
    place::{Place, file_of},
    seal,
    source::Snapshot,
    verify::check_part,
};
use crate::{erasure::Erasure, ids::Name, time::Timestamp};

/// A backup that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBackup {
    /// Its id, under which nothing lies yet.
    pub id: BackupId,
    /// What is backed up.
    pub scope: Scope,
    /// Why.
    pub cause: Cause,
    /// In somebody's words.
    pub reason: Option<String>,
}

impl NewBackup {
    /// One of this scope, with an id of its own.
    pub fn of(scope: Scope, cause: Cause, reason: Option<String>) -> Self {
        Self { id: BackupId::generate(), scope, cause, reason }
    }
}

/// A line of the erase log within a backup; `tenant erase --log` prints such lines, too.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ErasureLine {
    pub(super) tenant: Name,
    pub(super) pseudonym: String,
    pub(super) accepted_at: Timestamp,
}

/// What is known once the parts are written.
#[derive(Default)]
struct Written {
    parts: Vec<Part>,
    database: Option<DatabaseFacts>,
    objects: Option<ObjectsFacts>,
    tools: BTreeMap<String, String>,
    snapshot_at: Option<Timestamp>,
}

/// Makes a backup. It is good once this has returned, and none at all wherever it ended before: the manifest comes last, when all
/// parts were read back.
///
/// # Errors
/// What failed. Files that it leaves belong to no backup, and [`super::Prune`] deletes them after a day.
pub async fn create(setup: &Setup, new: NewBackup) -> Result<Manifest, BackupError> {
    let began_at = setup.clock.now();
    let mut written = Written::default();
    written.tools.insert("longshore".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    if new.scope.has_database() {
        database(setup, new.id, &mut written).await?;
    }
    // Behind the journal: what its rows name is there by then.
    if new.scope.has_objects() {
        archives(setup, new.id, &mut written).await?;
    }
    if new.scope.has_config() {
        let config =
            serde_json::to_vec_pretty(&setup.config).map_err(|error| BackupError::Failed(error.to_string()))?;
        let part = write(setup, new.id, ("config.json.zst.age", Content::Config), move |out| all(out, &config)).await?;
        written.parts.push(part.1);
    }
    for part in &written.parts {
        check_part(&setup.place, setup.identities.as_ref(), new.id, part).await?;
    }
    let Written { parts, database, objects, tools, snapshot_at } = written;
    let manifest = Manifest {
        form: FORM,
        id: new.id,
        scope: new.scope,
        cause: new.cause,
        reason: new.reason,
        began_at,
        snapshot_at: snapshot_at.unwrap_or(began_at),
        finished_at: setup.clock.now(),
        recipients: setup.recipients.names().to_vec(),
        opened: setup.identities.is_some(),
        database,
        objects,
        parts,
        tools,
    };
    publish(&setup.place, &manifest).await?;
    Ok(manifest)
}

/// Writes the manifest, which makes the backup one, and reads it back.
pub(super) async fn publish(place: &Place, manifest: &Manifest) -> Result<(), BackupError> {
    let path = file_of(manifest.id, MANIFEST);
    place.put(&path, manifest.to_bytes()?).await?;
    match Manifest::read(manifest.id, &place.get(&path).await?)? == *manifest {
        true => Ok(()),
        false => Err(BackupError::damaged(MANIFEST, "what is read back is not what was written")),
    }
}

async fn database(setup: &Setup, id: BackupId, written: &mut Written) -> Result<(), BackupError> {
    // Taken before the snapshot: a backup never claims to be newer than it is.
    let now = setup.clock.now();
    written.snapshot_at = Some(now);
    let snapshot = setup.source.snapshot(&setup.scratch, now).await?;
    let part = match &snapshot {
        Snapshot::Sqlite(snapshot) => write(setup, id, setup.source.part(), snapshot.dump()).await,
        Snapshot::Postgres(snapshot) => write(setup, id, setup.source.part(), snapshot.dump()).await,
    };
    written.parts.push(part?.1);
    let log = lines(snapshot.erasures())?;
    let erasures = write(setup, id, ("erasures.ndjson.zst.age", Content::Erasures), move |out| all(out, &log)).await?;
    written.parts.push(erasures.1);
    written.tools.extend(snapshot.tools());
    written.database = Some(snapshot.facts().clone());
    if let Snapshot::Postgres(snapshot) = snapshot {
        snapshot.end().await;
    }
    Ok(())
}

async fn archives(setup: &Setup, id: BackupId, written: &mut Written) -> Result<(), BackupError> {
    let Some(place) = setup.objects.clone() else {
        written.objects = Some(ObjectsFacts::default());
        return Ok(());
    };
    let runtime = tokio::runtime::Handle::current();
    let part = ("objects.tar.zst.age", Content::ObjectsTar);
    let (facts, part) = write(setup, id, part, move |out| objects::write(&place, out, &runtime)).await?;
    written.objects = Some(facts);
    written.parts.push(part);
    Ok(())
}

async fn write<T: Send + 'static>(
    setup: &Setup,
    id: BackupId,
    (name, content): (&str, Content),
    write: impl FnOnce(&mut dyn Write) -> Result<T, BackupError> + Send + 'static,
) -> Result<(T, Part), BackupError> {
    seal::put(&setup.place, &setup.recipients, (&file_of(id, name), name, content), write).await
}

fn all(out: &mut dyn Write, bytes: &[u8]) -> Result<(), BackupError> {
    out.write_all(bytes).map_err(|error| BackupError::Failed(error.to_string()))
}

fn lines(log: &[Erasure]) -> Result<Vec<u8>, BackupError> {
    let mut lines = Vec::new();
    for Erasure { tenant, pseudonym, accepted_at, .. } in log {
        let line = ErasureLine { tenant: tenant.clone(), pseudonym: pseudonym.clone(), accepted_at: *accepted_at };
        serde_json::to_writer(&mut lines, &line).map_err(|error| BackupError::Failed(error.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}
