//! Rebuild: fills an empty dispatcher from the journal. In the embedded mode every start is one; it is the very path
//! that saves production after a flush.
//!
//! First what must be true before the first claim (the generation, settings, the jobs that died with the last
//! process), then the live rows, in the order of their due time, while claims already go on.
//!
//! After a flush the journal cannot tell which live rows run: there is no write at a claim. So the rows wait until every
//! worker that was there has come back with what it holds, or has been silent for as long as a session lives. Jobs
//! that are accepted meanwhile do not: whoever accepts them pushes them.

use std::{collections::BTreeSet, time::Instant};

use queue_core::{
    dispatcher::{DispatchError, HORIZON_MS, PUSH_MAX_ENTRIES, SESSION_MS, Setting},
    ids::{JobId, SessionId},
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

/// Time between two looks at who has come back.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(50);

/// A dispatcher that may be claimed from, and is still to be filled.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Rows due by then are pushed by the rebuild; later ones are promoted as they come near.
    due_by: Timestamp,
    /// Rows accepted by then are pushed by the rebuild; later ones were pushed when they were accepted.
    accepted_by: Timestamp,
    /// Workers that may still run something.
    pub(crate) awaited: BTreeSet<SessionId>,
    /// Another scheduler began this life, and fills it.
    attached: bool,
}

impl Prepared {
    /// The due time up to which the rebuild fills the dispatcher.
    pub fn filled_to(&self) -> Timestamp {
        self.due_by
    }
}

/// Joins the life that a shared dispatcher has, or begins one.
pub async fn prepare(stores: &Stores, config: &Config) -> Result<Prepared, RebuildError> {
    match join_or_begin(stores, config).await {
        // Schedulers that start at once may each begin a life: the latest stands, and the others join it.
        Err(RebuildError::Dispatch(DispatchError::WrongGeneration)) => join_or_begin(stores, config).await,
        done => done,
    }
}

async fn join_or_begin(stores: &Stores, config: &Config) -> Result<Prepared, RebuildError> {
    match stores.dispatcher.sessions().await {
        Ok(_) => {
            apply_settings(stores, config).await?;
            let now = stores.clock.now();
            Ok(Prepared { due_by: now, accepted_by: now, awaited: BTreeSet::new(), attached: true })
        }
        Err(DispatchError::WrongGeneration) => {
            let awaited = if config.shared { registered(stores).await? } else { BTreeSet::new() };
            begin(stores, config, awaited).await
        }
        Err(error) => Err(error.into()),
    }
}

/// Workers that registered and did not sign off: each may run something.
pub(crate) async fn registered(stores: &Stores) -> Result<BTreeSet<SessionId>, RebuildError> {
    Ok(stores.catalog.sessions().await?.into_iter().map(|session| session.id).collect())
}

/// Begins a new generation and loads what decides about claims. A crash here leaves nothing behind: the next one does
/// it again. `awaited` are workers that may still run something.
pub(crate) async fn begin(
    stores: &Stores,
    config: &Config,
    awaited: BTreeSet<SessionId>,
) -> Result<Prepared, RebuildError> {
    let generation = stores.journal.new_generation().await?;
    stores.dispatcher.begin(generation).await?;
    apply_settings(stores, config).await?;
    // The dead first: a job that died with the last process must not be pushed as if nothing had happened.
    while reap::once(stores).await? > 0 {}
    let now = stores.clock.now();
    Ok(Prepared { due_by: now.plus_ms(HORIZON_MS), accepted_by: now, awaited, attached: false })
}

async fn apply_settings(stores: &Stores, config: &Config) -> Result<(), RebuildError> {
    for (queue, settings) in stores.catalog.queues().await? {
        stores.dispatcher.apply(Setting::Queue(queue, settings)).await?;
    }
    for (target, limit) in &config.target_concurrency {
        stores.dispatcher.apply(Setting::TargetConcurrency(target.clone(), Some(*limit))).await?;
    }
    Ok(())
}

/// Waits until every awaited worker has joined this life, or is taken for dead by everybody. An error means that this
/// life is over: another scheduler has begun the next one, and fills it.
async fn wait_for_workers(stores: &Stores, awaited: &BTreeSet<SessionId>) -> Result<(), DispatchError> {
    let began = Instant::now();
    while began.elapsed().as_millis() < SESSION_MS as u128 {
        match stores.dispatcher.sessions().await {
            Ok(here) => {
                let here: BTreeSet<_> = here.into_iter().map(|session| session.id).collect();
                if awaited.is_subset(&here) {
                    return Ok(());
                }
            }
            Err(DispatchError::WrongGeneration) => return Err(DispatchError::WrongGeneration),
            // Away for a moment. Who is there is not known now, and to go on would take jobs from those who run them.
            Err(error) => tracing::warn!(%error, "the rebuild does not know yet which workers live"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Pushes every live row that is due within the horizon.
pub(crate) async fn run(stores: Stores, prepared: Prepared, shutdown: CancellationToken) {
    if prepared.attached {
        return;
    }
    let began = Instant::now();
    let mut pushed = 0;
    let mut after = None;
    if wait_for_workers(&stores, &prepared.awaited).await.is_err() {
        return;
    }
    loop {
        match page(&stores, &prepared, after).await {
            Ok(Some((last, count))) => {
                after = Some(last);
                pushed += count;
            }
            Ok(None) => break,
            // Flushed again: whoever begins the next generation fills it.
            Err(RebuildError::Dispatch(DispatchError::WrongGeneration)) => return,
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
    prepared: &Prepared,
    after: Option<Cursor>,
) -> Result<Option<(Cursor, usize)>, RebuildError> {
    let &Prepared { due_by, accepted_by, .. } = prepared;
    let scan = LiveScan { after, due_by, accepted_by, limit: PUSH_MAX_ENTRIES };
    let entries = stores.journal.live(scan).await?;
    let Some(last) = entries.last().map(|entry| (entry.run_at, entry.id)) else { return Ok(None) };
    let count = entries.len();
    stores.dispatcher.push(entries).await?;
    Ok(Some((last, count)))
}
