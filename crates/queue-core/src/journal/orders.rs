//! What operators order of the whole installation and of single workers.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use serde::Serialize;

use super::JournalError;
use crate::{ids::SessionId, time::Timestamp};

/// How often each process looks for new orders.
pub const ORDERS_EVERY: Duration = Duration::from_secs(1);
/// After so long every process that reaches the journal has heard of an order: whoever gives one waits for it before he says
/// that it holds.
pub const ORDERS_HEARD: Duration = Duration::from_secs(2);

/// The installation takes no jobs and starts none; what runs ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Maintenance {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: Option<String>,
}

impl fmt::Display for Maintenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "since {}", self.since)?;
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

/// What holds for one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerOrders {
    /// Nobody claims.
    pub maintenance: Option<Maintenance>,
    /// It claims no more and finishes what it runs; `None` where it is not registered: the last order stands.
    pub drain: Option<bool>,
}

/// What operators order. It outlives every process; whoever is concerned looks every [`ORDERS_EVERY`].
#[async_trait]
pub trait Orders: Send + Sync {
    /// The maintenance that is on.
    async fn maintenance(&self) -> Result<Option<Maintenance>, JournalError>;

    /// Whether the journal was restored from a backup and nobody has confirmed it yet, which the end of maintenance does.
    async fn awaits_confirmation(&self) -> Result<bool, JournalError>;

    /// Begins or ends it. One that has begun keeps its first moment; its end also confirms a restored journal.
    async fn set_maintenance(&self, maintenance: Option<Maintenance>) -> Result<(), JournalError>;

    /// Orders a worker to drain, or to claim again; `false`: no such worker is registered.
    async fn order_drain(&self, worker: SessionId, drain: bool) -> Result<bool, JournalError>;

    /// What holds for a worker.
    async fn orders(&self, worker: SessionId) -> Result<WorkerOrders, JournalError>;
}
