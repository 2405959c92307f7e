//! Whether the installation takes jobs: read at most every [`ORDERS_EVERY`].

use queue_core::journal::{JournalError, Maintenance, ORDERS_EVERY, Orders};

use crate::{
    lately::Lately,
    problem::{Cause, Problem},
};

/// When a client that was refused should come again, in seconds: nobody knows when maintenance ends.
const RETRY_AFTER_S: u32 = 30;

/// What the journal has answered; also that it is away, which the others need not find out one by one.
type Heard = Result<Option<Maintenance>, JournalError>;

/// What this process has heard last.
#[derive(Default)]
pub(crate) struct Standing(Lately<Heard>);

impl Standing {
    /// The maintenance that is on.
    pub(crate) async fn now(&self, orders: &dyn Orders) -> Heard {
        self.0.get(ORDERS_EVERY, || orders.maintenance()).await
    }

    /// Something was ordered here: it holds with the next request.
    pub(crate) async fn forget(&self) {
        self.0.forget().await;
    }

    /// Refuses new jobs while maintenance is on.
    pub(crate) async fn check(&self, orders: &dyn Orders) -> Result<(), Problem> {
        let Some(maintenance) = self.now(orders).await? else { return Ok(()) };
        let detail = format!("no jobs are taken {maintenance}; send it again later");
        Err(Problem::new(Cause::Maintenance, detail).retry_after(RETRY_AFTER_S))
    }
}
