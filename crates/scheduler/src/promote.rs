//! Promote: jobs due later than the horizon wait in the journal only; this brings them to the dispatcher in time.

use std::time::Duration;

use queue_core::{
    dispatcher::{HORIZON_MS, PUSH_MAX_ENTRIES},
    ids::JobId,
    journal::LiveScan,
    stores::Stores,
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;

use crate::RebuildError;

/// Six rounds fit into the horizon, so that five may fail before a job is late.
const EVERY: Duration = Duration::from_millis(HORIZON_MS as u64 / 6);

/// Promotes what is due behind `filled`, the moment up to which the rebuild has filled the dispatcher. Rows that come
/// to lie before it later (a submit, a retry) are pushed by whoever wrote them.
pub(crate) async fn run(stores: Stores, mut filled: Timestamp, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let due_by = stores.clock.now().plus_ms(HORIZON_MS);
        match window(&stores, filled, due_by).await {
            Ok(()) => filled = due_by,
            Err(error) => tracing::warn!(%error, "a round of promotion failed"),
        }
    }
}

pub(crate) async fn window(stores: &Stores, filled: Timestamp, due_by: Timestamp) -> Result<(), RebuildError> {
    // Begins at the first row of that moment: pushing a row twice is a no-op.
    let mut after = Some((filled, JobId(uuid::Uuid::nil())));
    loop {
        let scan = LiveScan { after, due_by, accepted_by: stores.clock.now(), limit: PUSH_MAX_ENTRIES };
        let entries = stores.journal.live(scan).await?;
        let Some(last) = entries.last() else { return Ok(()) };
        after = Some((last.run_at, last.id));
        stores.dispatcher.push(entries).await?;
    }
}
