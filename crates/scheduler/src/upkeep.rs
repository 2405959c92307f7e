//! Upkeep: looks after the journal in the window that operators have named.
//!
//! What is due is decided by the store's own statistics, so a run that was cut short goes on where it was, and one that is done again finds
//! little. The store lets one process do one chore at a time: the others look again a minute later.

use std::time::Duration;

use queue_core::{
    journal::JournalError,
    stores::Stores,
    telemetry,
    time::Timestamp,
    upkeep::{Thresholds, Tried, Window, perform},
};
use tokio_util::sync::CancellationToken;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(60);
/// What is left of a window below this is too short to begin anything.
const LEAST_MS: i64 = 60_000;

pub(crate) async fn run(stores: Stores, window: Window, thresholds: Thresholds, shutdown: CancellationToken) {
    let mut upkeep = Upkeep::new(stores, window, thresholds);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = upkeep.once(&shutdown).await {
            tracing::warn!(%error, "the journal was not looked after");
        }
    }
}

pub(crate) struct Upkeep {
    stores: Stores,
    window: Window,
    thresholds: Thresholds,
    /// What was tried in the window that ends then.
    tried: (Timestamp, Tried),
}

impl Upkeep {
    pub(crate) fn new(stores: Stores, window: Window, thresholds: Thresholds) -> Self {
        Self { stores, window, thresholds, tried: Default::default() }
    }

    /// One look; how many chores were done, or tried.
    pub(crate) async fn once(&mut self, shutdown: &CancellationToken) -> Result<usize, JournalError> {
        let now = self.stores.clock.now();
        let Some(until) = self.window.open_until(now).filter(|until| until.since_ms(now) > LEAST_MS) else {
            return Ok(0);
        };
        if self.tried.0 != until {
            self.tried = (until, Tried::default());
            if let Some(reason) = self.stores.upkeep.store_state().await?.missing_right {
                tracing::error!(reason, "the journal cannot be looked after by this role; autovacuum does what it can");
                metrics::counter!(telemetry::UPKEEP_CHORES, "chore" => "any", "outcome" => "no_right").increment(1);
            }
        }
        perform(&self.stores, &self.thresholds, until, "upkeep", &mut self.tried.1, shutdown).await
    }
}
