//! Rollup: moves what transactions wrote beside their money into the sums of its day, so that a report reads sums.
//!
//! The journal's verb does it in one statement: a crash before its commit leaves the lines where they were, one after it
//! leaves nothing to do. Reports are exact at any moment, so being away for an hour makes them slower, not wrong.

use std::time::Duration;

use queue_core::{
    journal::{COST_LINES_MAX, JournalError},
    stores::Stores,
};
use tokio_util::sync::CancellationToken;

/// Short enough that a report has few unfolded lines to read, long enough that the rows of today are not rewritten for
/// each of them.
const EVERY: Duration = Duration::from_secs(2);

/// Most steps of one round: a backlog of an hour is worked off in a few rounds, and a shutdown waits for one step.
const STEPS_MAX: usize = 100;

pub(crate) async fn run(stores: Stores, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = once(&stores, &shutdown).await {
            tracing::warn!(%error, "sums of money were not folded");
        }
    }
}

/// One round; returns how many lines were moved.
pub(crate) async fn once(stores: &Stores, shutdown: &CancellationToken) -> Result<u64, JournalError> {
    let mut all = 0;
    for _ in 0..STEPS_MAX {
        let moved = stores.ledger.fold_costs().await?;
        all += moved;
        // Fewer than a full step: what comes now can wait for the next round.
        if moved < COST_LINES_MAX as u64 || shutdown.is_cancelled() {
            break;
        }
    }
    Ok(all)
}
