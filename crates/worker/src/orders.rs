//! What operators have ordered that keeps this worker from claiming: maintenance, or to drain.

use std::sync::atomic::{AtomicBool, Ordering};

use queue_core::{
    journal::{JournalError, ORDERS_EVERY, WorkerOrders, WorkerSession},
    stores::Stores,
};
use tokio_util::sync::CancellationToken;

use crate::leases::Leases;

/// What this worker has heard.
#[derive(Debug)]
pub(crate) struct Orders {
    /// This worker, as it registered.
    entry: WorkerSession,
    maintenance: AtomicBool,
    drain: AtomicBool,
}

impl Orders {
    pub(crate) fn of(entry: WorkerSession) -> Self {
        Self { entry, maintenance: AtomicBool::default(), drain: AtomicBool::default() }
    }

    /// Whether nothing may be claimed. What runs is finished.
    pub(crate) fn hold(&self) -> bool {
        self.maintenance.load(Ordering::Relaxed) || self.drain.load(Ordering::Relaxed)
    }

    /// Asks what holds now. A worker that was silent for long is struck off the register, and its order with it: it registers again
    /// with what it was told.
    pub(crate) async fn hear(&self, stores: &Stores, leases: &Leases) -> Result<(), JournalError> {
        let WorkerOrders { maintenance, drain } = stores.orders.orders(self.entry.id).await?;
        let held = self.hold();
        self.maintenance.store(maintenance.is_some(), Ordering::Relaxed);
        match drain {
            Some(drain) => self.drain.store(drain, Ordering::Relaxed),
            None => {
                let draining = self.drain.load(Ordering::Relaxed);
                stores.catalog.open_session(self.entry.clone()).await?;
                stores.orders.order_drain(self.entry.id, draining).await?;
            }
        }
        if self.hold() != held {
            tracing::info!(maintenance = maintenance.is_some(), ?drain, "operators' orders have changed");
            leases.changed.notify_one();
        }
        Ok(())
    }

    /// Asks until `end` fires.
    pub(crate) async fn keep(&self, stores: &Stores, leases: &Leases, end: &CancellationToken) {
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(ORDERS_EVERY) => {}
            }
            if let Err(error) = self.hear(stores, leases).await {
                tracing::warn!(%error, "orders were not read; the last ones hold");
            }
        }
    }
}
