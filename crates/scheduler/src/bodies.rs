//! Bodies: deletes objects of large payloads and results that nothing names: of jobs that are gone, of writes that were cut off, of
//! payloads that were edited.
//!
//! An object is written before the row that names it, under a name that is never used again, and seconds lie between the two. What is
//! older and named by nobody will never be named. Any number of schedulers may look at once; a delete that is done twice finds nothing.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::Duration,
};

use futures::StreamExt;
use queue_core::{
    archive::{Objects, ObjectsError},
    bodies::Slip,
    ids::JobId,
    journal::{JournalError, PAGE_MAX_ROWS},
    stores::Stores,
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;

/// Time between two looks: each lists all bodies.
const EVERY: Duration = Duration::from_secs(3_600);
/// A body may be written so long before its row, if everything is slow: longer than any request or settle waits for the journal.
const GRACE_MS: i64 = 3_600_000;
/// So long after it was written a body of a job that is there is compared in each look with what the job's row names.
const COMPARED_MS: i64 = 4 * GRACE_MS;
/// Later, in one look of so many: a payload or result may go before its job.
const LATER_LOOKS: i64 = 24;

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
                Ok(objects) => tracing::info!(objects, "bodies that nothing names are deleted"),
                Err(error) => tracing::warn!(%error, "bodies that nothing names were not all looked for"),
            },
        }
    }
}

/// One look at all bodies; returns how many were deleted.
pub(crate) async fn collect(stores: &Stores, objects: &Objects) -> Result<u64, Cut> {
    let now = stores.clock.now();
    let mut pages = objects.bodies(now.plus_ms(-GRACE_MS)).chunks(PAGE_MAX_ROWS);
    let mut deleted = 0;
    while let Some(page) = pages.next().await {
        let page = page.into_iter().collect::<Result<Vec<_>, _>>()?;
        for path in unnamed(stores, page, now).await? {
            objects.delete(&path).await?;
            deleted += 1;
        }
    }
    Ok(deleted)
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
