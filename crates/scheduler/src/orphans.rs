//! Orphans: deletes objects that nothing names: large payloads and results of jobs that are gone, of writes that were cut off, of payloads that
//! were edited; and letters that were written for an archive and are no part of it, since their scheduler died before the commit.
//!
//! An object is written before the row that names it, under a name that is never used again, and seconds lie between the two. What is
//! older and named by nobody will never be named. Any number of schedulers may look at once; a delete that is done twice finds nothing.
//! An archive that this journal has never heard of is left alone: a journal that was restored does not know what was archived after its backup.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::Duration,
};

use futures::StreamExt;
use queue_core::{
    archive::{Objects, ObjectsError, manifest_of},
    audit::{self, AuditEntry},
    bodies::Slip,
    ids::{JobId, OperationId},
    journal::{JournalError, PAGE_MAX_ROWS},
    operations::OperationState,
    stores::Stores,
    telemetry,
    time::{DAY_MS, Timestamp},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// What the audit log calls it.
const ACTION: &str = "SWEEP";
/// Time between two looks: each lists all bodies.
const EVERY: Duration = Duration::from_secs(3_600);
/// A body may be written so long before its row, if everything is slow: longer than any request or settle waits for the journal.
const GRACE_MS: i64 = 3_600_000;
/// So long after it was written a body of a job that is there is compared in each look with what the job's row names.
const COMPARED_MS: i64 = 4 * GRACE_MS;
/// Later, in one look of so many: a payload or result may go before its job.
const LATER_LOOKS: i64 = 24;

/// Letters may lie so long before the commit: a step of an archive takes minutes.
const ARCHIVE_GRACE_MS: i64 = DAY_MS;

/// Archives of which is remembered what is in them.
const ARCHIVES_KNOWN_MAX: usize = 100;

/// Why a look did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Objects(#[from] ObjectsError),
}

pub(crate) async fn run(stores: Stores, shutdown: CancellationToken) {
    let Some(objects) = stores.objects.clone() else { return };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            looked = collect(&stores, &objects) => match looked {
                Ok(0) => {}
                Ok(objects) => tracing::info!(objects, "objects that nothing names are deleted"),
                Err(error) => tracing::warn!(%error, "objects that nothing names were not all looked for"),
            },
        }
    }
}

/// One look at all objects; returns how many were deleted.
pub(crate) async fn collect(stores: &Stores, objects: &Objects) -> Result<u64, Cut> {
    let mut deleted = 0;
    let bodies = bodies(stores, objects, &mut deleted).await;
    let archived = archived(stores, objects, &mut deleted).await;
    // What is gone is told, also of a look that was cut short.
    metrics::counter!(telemetry::ORPHANS_REMOVED).increment(deleted);
    if deleted > 0 {
        let detail = json!({"deleted": deleted});
        let entry = AuditEntry::by_itself("orphans", ACTION, "objects", &detail, stores.clock.now());
        audit::note(&*stores.audit, entry).await;
    }
    bodies.and(archived)?;
    Ok(deleted)
}

async fn bodies(stores: &Stores, objects: &Objects, deleted: &mut u64) -> Result<(), Cut> {
    let now = stores.clock.now();
    let mut pages = objects.bodies(now.plus_ms(-GRACE_MS)).chunks(PAGE_MAX_ROWS);
    while let Some(page) = pages.next().await {
        let page = page.into_iter().collect::<Result<Vec<_>, _>>()?;
        for path in unnamed(stores, page, now).await? {
            objects.delete(&path).await?;
            *deleted += 1;
        }
    }
    Ok(())
}

async fn archived(stores: &Stores, objects: &Objects, deleted: &mut u64) -> Result<(), Cut> {
    let mut files = objects.archived(stores.clock.now().plus_ms(-ARCHIVE_GRACE_MS));
    // Files come archive by archive from a bucket, and in any order from a folder.
    let mut ended = BTreeMap::new();
    while let Some(file) = files.next().await {
        let (path, id, _) = file?;
        if ended.len() >= ARCHIVES_KNOWN_MAX && !ended.contains_key(&id) {
            ended.clear();
        }
        let parts = match ended.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(parts(stores, id).await?),
        };
        if parts.as_ref().is_some_and(|parts| !parts.contains(&path)) {
            objects.delete(&manifest_of(&path)).await?;
            objects.delete(&path).await?;
            *deleted += 1;
        }
    }
    Ok(())
}

/// The objects of an archive that nobody adds to any more; `None`: somebody does, or this journal does not know it.
async fn parts(stores: &Stores, id: OperationId) -> Result<Option<BTreeSet<String>>, JournalError> {
    let (operation, archive) = (stores.operations.operation(id).await?, stores.archives.archive(id).await?);
    let is_running = operation.as_ref().is_some_and(|operation| operation.state == OperationState::Running);
    if is_running || (operation.is_none() && archive.is_none()) {
        return Ok(None);
    }
    let (mut parts, mut behind) = (BTreeSet::new(), None::<String>);
    loop {
        let page = stores.archives.objects_of(id, behind.as_deref(), PAGE_MAX_ROWS).await?;
        behind = page.last().map(|object| object.path.clone());
        let is_last = page.len() < PAGE_MAX_ROWS;
        parts.extend(page.into_iter().map(|object| object.path));
        if is_last {
            return Ok(Some(parts));
        }
    }
}

/// Those of a page that nothing names.
async fn unnamed(
    stores: &Stores,
    page: Vec<(String, JobId, Timestamp)>,
    now: Timestamp,
) -> Result<Vec<String>, JournalError> {
    let ids: Vec<_> = page.iter().map(|(_, job, _)| *job).collect::<BTreeSet<_>>().into_iter().collect();
    let rows = stores.reads.jobs(&ids).await?;
    let there: BTreeSet<_> = rows.into_iter().flatten().map(|job| job.id).collect();
    let mut named = BTreeMap::new();
    let mut unnamed = Vec::new();
    for (path, job, written) in page {
        if there.contains(&job) {
            if !is_compared(written, now) {
                continue;
            }
            let named = match named.entry(job) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(names(stores, job).await?),
            };
            if named.contains(&path) {
                continue;
            }
        }
        unnamed.push(path);
    }
    Ok(unnamed)
}

/// Whether a body of a job that is there is compared with its row in this look.
fn is_compared(written: Timestamp, now: Timestamp) -> bool {
    let look = |at: Timestamp| at.0.div_euclid(EVERY.as_millis() as i64).rem_euclid(LATER_LOOKS);
    now.since_ms(written) <= COMPARED_MS || look(written) == look(now)
}

/// The objects that a job's row names.
async fn names(stores: &Stores, id: JobId) -> Result<Vec<String>, JournalError> {
    let kept = [stores.reads.payload(id).await?, stores.reads.result(id).await?];
    Ok(kept.into_iter().flatten().filter_map(|kept| Slip::of(&kept)).map(|slip| slip.path).collect())
}
