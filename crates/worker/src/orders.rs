//! What operators have ordered that keeps this worker from claiming: maintenance, or to drain.

use std::sync::atomic::{AtomicBool, Ordering};

use queue_core::{
    ids::SessionId,
    journal::{JournalError, ORDERS_EVERY},
    stores::Stores,
};
use tokio_util::sync::CancellationToken;

use crate::leases::Leases;

/// What this worker has heard.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    holds: AtomicBool,
}

impl Orders {
    /// Whether nothing may be claimed. What runs is finished.
    pub(crate) fn hold(&self) -> bool {
        self.holds.load(Ordering::Relaxed)
    }

    /// Asks what holds now.
    pub(crate) async fn hear(&self, stores: &Stores, session: SessionId, leases: &Leases) -> Result<(), JournalError> {
        let orders = stores.orders.orders(session).await?;
        let holds = orders.drain || orders.maintenance.is_some();
        if self.holds.swap(holds, Ordering::Relaxed) != holds {
            tracing::info!(
                maintenance = orders.maintenance.is_some(),
                drain = orders.drain,
                "operators' orders have changed"
            );
            leases.changed.notify_one();
        }
        Ok(())
    }

    /// Asks until `end` fires.
    pub(crate) async fn keep(&self, stores: &Stores, session: SessionId, leases: &Leases, end: &CancellationToken) {
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(ORDERS_EVERY) => {}
            }
            if let Err(error) = self.hear(stores, session, leases).await {
                tracing::warn!(%error, "orders were not read; the last ones hold");
            }
        }
    }
}
