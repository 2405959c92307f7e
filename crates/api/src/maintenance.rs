//! Whether the installation takes jobs: read at most every [`ORDERS_EVERY`].

use std::time::Instant;

use queue_core::journal::{JournalError, Maintenance, ORDERS_EVERY, Orders};
use tokio::sync::Mutex;

use crate::problem::{Cause, Problem};

/// When a client that was refused should come again, in seconds: nobody knows when maintenance ends.
const RETRY_AFTER_S: u32 = 30;

/// What the journal has answered.
type Heard = Result<Option<Maintenance>, JournalError>;

/// What this process has heard last.
#[derive(Default)]
pub(crate) struct Standing {
    heard: Mutex<Option<(Heard, Instant)>>,
}

impl Standing {
    /// The maintenance that is on. One request asks the journal; the others wait for its answer, also for one that it is away.
    pub(crate) async fn now(&self, orders: &dyn Orders) -> Heard {
        let mut heard = self.heard.lock().await;
        if let Some((maintenance, at)) = &*heard
            && at.elapsed() < ORDERS_EVERY
        {
            return maintenance.clone();
        }
        let maintenance = orders.maintenance().await;
        *heard = Some((maintenance.clone(), Instant::now()));
        maintenance
    }

    /// Something was ordered here: it holds with the next request.
    pub(crate) async fn forget(&self) {
        *self.heard.lock().await = None;
    }

    /// Refuses new jobs while maintenance is on.
    pub(crate) async fn check(&self, orders: &dyn Orders) -> Result<(), Problem> {
        let Some(Maintenance { since, reason }) = self.now(orders).await? else { return Ok(()) };
        let why = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        let detail = format!("no jobs are taken since {since}{why}; send it again later");
        Err(Problem::new(Cause::Maintenance, detail).retry_after(RETRY_AFTER_S))
    }
}
