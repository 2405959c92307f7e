//! Reconcile: live rows that the dispatcher does not know get a new epoch and are pushed.
//!
//! A push can be lost between the commit and the dispatcher (a crash, a full network, a flush). The sweep walks the
//! live rows by due time, a bounded page at a time, and begins again at the end; a backlog smaller than one page is
//! seen whole in every round.

use std::time::Duration;

use queue_core::{
    dispatcher::{HORIZON_MS, PUSH_MAX_ENTRIES, Place},
    ids::JobId,
    journal::{LiveScan, Token},
    stores::Stores,
    telemetry,
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;

use crate::RebuildError;

/// Time between two rounds.
const EVERY: Duration = Duration::from_secs(5);
/// Rows of one round: at this pace a million live rows are walked in about four minutes.
const ROUND_MAX_ROWS: usize = 20_000;
/// Rows younger than this may still be on their way from the commit to the push.
const YOUNG_MS: i64 = 5_000;

type Cursor = (Timestamp, JobId);

pub(crate) async fn run(stores: Stores, shutdown: CancellationToken) {
    let mut after = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        match round(&stores, after).await {
            Ok(next) => after = next,
            Err(error) => tracing::warn!(%error, "a round of the reconciler failed"),
        }
    }
}

/// Walks up to [`ROUND_MAX_ROWS`] rows; returns where to go on, or `None` at the end.
async fn round(stores: &Stores, mut after: Option<Cursor>) -> Result<Option<Cursor>, RebuildError> {
    let now = stores.clock.now();
    let mut walked = 0;
    while walked < ROUND_MAX_ROWS {
        let scan = LiveScan {
            after,
            due_by: now.plus_ms(HORIZON_MS),
            accepted_by: now.plus_ms(-YOUNG_MS),
            limit: PUSH_MAX_ENTRIES,
        };
        let rows = stores.journal.live(scan).await?;
        let Some(last) = rows.last() else { return Ok(None) };
        after = Some((last.run_at, last.id));
        walked += rows.len();
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        let places = stores.dispatcher.locate(&ids).await?;
        let unknown: Vec<_> = rows
            .iter()
            .zip(&places)
            .filter(|(_, place)| matches!(place, Place::Unknown))
            .map(|(row, _)| Token { id: row.id, epoch: row.epoch })
            .collect();
        if !unknown.is_empty() {
            let found = stores.journal.reconcile(unknown).await?;
            tracing::warn!(jobs = found.len(), "the dispatcher did not know these live jobs");
            metrics::counter!(telemetry::RECONCILED).increment(found.len() as u64);
            stores.dispatcher.push(found).await?;
        }
    }
    Ok(after)
}
