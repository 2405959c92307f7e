//! Operations, with points to crash at.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Crash, between};
use crate::{
    ids::OperationId,
    journal::JournalError,
    operations::{Aborted, Begun, Operation, Operations, Order, Step, Stepped},
    time::Timestamp,
};

/// See the module.
pub(super) struct SpoiltOperations {
    inner: Arc<dyn Operations>,
    crash: Arc<Option<Crash>>,
}

impl SpoiltOperations {
    pub(super) fn new(inner: Arc<dyn Operations>, crash: Arc<Option<Crash>>) -> Self {
        Self { inner, crash }
    }
}

#[async_trait]
impl Operations for SpoiltOperations {
    async fn begin(&self, id: OperationId, order: Order, now: Timestamp) -> Result<Begun, JournalError> {
        between(&self.crash, "operation-begin", self.inner.begin(id, order, now)).await
    }

    async fn operation(&self, id: OperationId) -> Result<Option<Operation>, JournalError> {
        self.inner.operation(id).await
    }

    async fn operations(
        &self,
        behind: Option<OperationId>,
        running: bool,
        limit: usize,
    ) -> Result<Vec<Operation>, JournalError> {
        self.inner.operations(behind, running, limit).await
    }

    async fn take(&self, id: OperationId, beat: i64, owner: Option<Uuid>) -> Result<Option<Operation>, JournalError> {
        between(&self.crash, "operation-take", self.inner.take(id, beat, owner)).await
    }

    async fn step(&self, step: Step, now: Timestamp) -> Result<Stepped, JournalError> {
        // A step that only shows that its walker lives changes no job.
        if step.picks.is_empty() {
            return self.inner.step(step, now).await;
        }
        between(&self.crash, "operation-step", self.inner.step(step, now)).await
    }

    async fn abort(&self, id: OperationId, now: Timestamp) -> Result<Aborted, JournalError> {
        between(&self.crash, "operation-abort", self.inner.abort(id, now)).await
    }
}
