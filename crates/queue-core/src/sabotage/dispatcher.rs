//! The dispatcher, with points to crash at.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{Bug, Crash, between};
use crate::{
    dispatcher::{
        Ack, DispatchError, Dispatcher, Entry, Held, Lease, Place, Present, QueueDepth, Setting, Signal, Step,
        StepReply, Wait,
    },
    ids::{Generation, JobId, SessionId},
    journal::Recovery,
};

/// See the module.
pub(super) struct SpoiltDispatcher {
    inner: Arc<dyn Dispatcher>,
    crash: Arc<Option<Crash>>,
    bug: Option<Bug>,
}

impl SpoiltDispatcher {
    pub(super) fn new(inner: Arc<dyn Dispatcher>, crash: Arc<Option<Crash>>, bug: Option<Bug>) -> Self {
        Self { inner, crash, bug }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Gives claims up that are not settled.
    async fn forget(&self, session: SessionId, leases: &[Lease]) -> Result<(), DispatchError> {
        let acks = leases.iter().map(|&lease| Ack { lease, next: None }).collect();
        self.inner.step(Step { session, acks, queues: vec![], kinds: vec![], slots: 0 }).await.map(drop)
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
        between(&self.crash, "join", self.inner.join(session, held)).await
    }

    async fn leave(&self, session: SessionId) -> Result<(), DispatchError> {
        self.inner.leave(session).await
    }

    async fn step(&self, step: Step) -> Result<StepReply, DispatchError> {
        let what = if step.acks.is_empty() { "claim" } else { "ack" };
        between(&self.crash, what, self.inner.step(step)).await
    }

    async fn start(&self, session: SessionId, leases: &[Lease]) -> Result<(), DispatchError> {
        between(&self.crash, "start", self.inner.start(session, leases)).await?;
        if self.has(Bug::AckBeforeSettle) {
            self.forget(session, leases).await?;
        }
        Ok(())
    }

    async fn renew(&self, session: SessionId, leases: &[Lease]) -> Result<Vec<Lease>, DispatchError> {
        if self.has(Bug::AckBeforeSettle) {
            // What was given up is not asked for again: the attempts go on.
            return self.inner.renew(session, &[]).await;
        }
        between(&self.crash, "renew", self.inner.renew(session, leases)).await
    }

    async fn withdraw(&self, id: JobId) -> Result<Place, DispatchError> {
        between(&self.crash, "withdraw", self.inner.withdraw(id)).await
    }

    async fn nudge(&self, id: JobId) -> Result<(), DispatchError> {
        between(&self.crash, "nudge", self.inner.nudge(id)).await
    }

    async fn locate(&self, ids: &[JobId]) -> Result<Vec<Place>, DispatchError> {
        self.inner.locate(ids).await
    }

    async fn reap(&self, limit: usize) -> Result<Vec<Recovery>, DispatchError> {
        between(&self.crash, "reap", self.inner.reap(limit)).await
    }

    async fn apply(&self, setting: Setting) -> Result<(), DispatchError> {
        between(&self.crash, "apply", self.inner.apply(setting)).await
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
