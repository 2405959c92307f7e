//! The dispatcher, with points to crash at.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{Crash, between};
use crate::{
    dispatcher::{
        DispatchError, Dispatcher, Entry, Held, Lease, Place, Present, QueueDepth, Setting, Signal, Step, StepReply,
        Wait,
    },
    ids::{Generation, JobId, SessionId},
    journal::Recovery,
};

/// See the module.
pub(super) struct SpoiltDispatcher {
    inner: Arc<dyn Dispatcher>,
    crash: Arc<Option<Crash>>,
}

impl SpoiltDispatcher {
    pub(super) fn new(inner: Arc<dyn Dispatcher>, crash: Arc<Option<Crash>>) -> Self {
        Self { inner, crash }
    }
}

#[async_trait]
impl Dispatcher for SpoiltDispatcher {
    async fn begin(&self, generation: Generation) -> Result<(), DispatchError> {
        between(&self.crash, "begin", self.inner.begin(generation)).await
    }

    async fn push(&self, entries: Vec<Entry>) -> Result<(), DispatchError> {
        between(&self.crash, "push", self.inner.push(entries)).await
    }

    async fn join(&self, session: SessionId, held: Vec<Held>) -> Result<mpsc::Receiver<Signal>, DispatchError> {
        self.inner.join(session, held).await
    }

    async fn leave(&self, session: SessionId) -> Result<(), DispatchError> {
        self.inner.leave(session).await
    }

    async fn step(&self, step: Step) -> Result<StepReply, DispatchError> {
        if step.acks.is_empty() {
            return self.inner.step(step).await;
        }
        between(&self.crash, "ack", self.inner.step(step)).await
    }

    async fn start(&self, session: SessionId, leases: &[Lease]) -> Result<(), DispatchError> {
        self.inner.start(session, leases).await
    }

    async fn renew(&self, session: SessionId, leases: &[Lease]) -> Result<Vec<Lease>, DispatchError> {
        self.inner.renew(session, leases).await
    }

    async fn withdraw(&self, id: JobId) -> Result<Place, DispatchError> {
        self.inner.withdraw(id).await
    }

    async fn nudge(&self, id: JobId) -> Result<(), DispatchError> {
        self.inner.nudge(id).await
    }

    async fn locate(&self, ids: &[JobId]) -> Result<Vec<Place>, DispatchError> {
        self.inner.locate(ids).await
    }

    async fn reap(&self, limit: usize) -> Result<Vec<Recovery>, DispatchError> {
        self.inner.reap(limit).await
    }

    async fn apply(&self, setting: Setting) -> Result<(), DispatchError> {
        self.inner.apply(setting).await
    }

    async fn depths(&self) -> Result<Vec<QueueDepth>, DispatchError> {
        self.inner.depths().await
    }

    async fn explain(&self, id: JobId) -> Result<Vec<Wait>, DispatchError> {
        self.inner.explain(id).await
    }

    async fn sessions(&self, asked: &[SessionId]) -> Result<Present, DispatchError> {
        self.inner.sessions(asked).await
    }
}
