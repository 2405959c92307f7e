//! Rebuild: fills an empty dispatcher from the journal. In the embedded mode every start is one; it is the very path
//! that saves production after a flush.
//!
//! First what must be true before the first claim (the generation, settings, the jobs that died with the last
//! process), then the live rows, in the order of their due time, while claims already go on.

use std::time::Instant;

use queue_core::{
    dispatcher::{DispatchError, HORIZON_MS, PUSH_MAX_ENTRIES, Setting},
    ids::JobId,
    journal::{JournalError, LiveScan},
    stores::Stores,
    telemetry,
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;

use crate::{Config, reap};

/// Why a dispatcher could not begin its life.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The journal did not answer.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The dispatcher did not answer.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
}

/// A dispatcher that may be claimed from, and is still to be filled.
#[derive(Clone, Copy, Debug)]
pub struct Prepared {
    /// Rows due by then are pushed by the rebuild; later ones are promoted as they come near.
    due_by: Timestamp,
    /// Rows accepted by then are pushed by the rebuild; later ones were pushed when they were accepted.
    accepted_by: Timestamp,
}

impl Prepared {
    /// The due time up to which the rebuild fills the dispatcher.
    pub fn filled_to(&self) -> Timestamp {
        self.due_by
    }
}

/// Begins a new generation and loads what decides about claims. A crash here leaves nothing behind: the next start
/// does it again.
pub async fn prepare(stores: &Stores, config: &Config) -> Result<Prepared, RebuildError> {
    let generation = stores.journal.new_generation().await?;
    stores.dispatcher.begin(generation).await?;
    for (queue, settings) in stores.catalog.queues().await? {
        stores.dispatcher.apply(Setting::Queue(queue, settings)).await?;
    }
    for (target, limit) in &config.target_concurrency {
        stores.dispatcher.apply(Setting::TargetConcurrency(target.clone(), Some(*limit))).await?;
    }
    // The dead first: a job that died with the last process must not be pushed as if nothing had happened.
    while reap::once(stores).await? > 0 {}
    let now = stores.clock.now();
    Ok(Prepared { due_by: now.plus_ms(HORIZON_MS), accepted_by: now })
}

/// Pushes every live row that is due within the horizon.
pub(crate) async fn run(stores: Stores, prepared: Prepared, shutdown: CancellationToken) {
    let began = Instant::now();
    let mut pushed = 0;
    let mut after = None;
    loop {
        match page(&stores, prepared, after).await {
            Ok(Some((last, count))) => {
                after = Some(last);
                pushed += count;
            }
            Ok(None) => break,
            Err(error) => {
                // The reconciler finds what a broken rebuild leaves out; going on here is only faster.
                tracing::warn!(%error, "the rebuild paused");
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(reap::EVERY) => {}
                }
            }
        }
        if shutdown.is_cancelled() {
            return;
        }
    }
    metrics::histogram!(telemetry::REBUILD).record(began.elapsed().as_secs_f64());
    if pushed > 0 {
        tracing::info!(jobs = pushed, seconds = began.elapsed().as_secs_f64(), "live jobs are back in the dispatcher");
    }
}

type Cursor = (Timestamp, JobId);

async fn page(
    stores: &Stores,
    prepared: Prepared,
    after: Option<Cursor>,
) -> Result<Option<(Cursor, usize)>, RebuildError> {
    let Prepared { due_by, accepted_by } = prepared;
    let scan = LiveScan { after, due_by, accepted_by, limit: PUSH_MAX_ENTRIES };
    let entries = stores.journal.live(scan).await?;
    let Some(last) = entries.last().map(|entry| (entry.run_at, entry.id)) else { return Ok(None) };
    let count = entries.len();
    stores.dispatcher.push(entries).await?;
    Ok(Some((last, count)))
}
