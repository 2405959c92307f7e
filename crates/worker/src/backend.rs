//! The claimed jobs as an apalis backend: a channel that the claimer fills.
//!
//! apalis runs the loop, the layers and the handlers' tasks; claiming, leases and settling stay ours. Its own ack is
//! not used, and there is no concurrency layer: each claimed job carries the slot that it was claimed for.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll, ready},
};

use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    task::Task,
    worker::context::WorkerContext,
};
use queue_core::{dispatcher::Entry, job::Loaded, time::Timestamp};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tower::layer::util::Identity;

use crate::leases::{Held, Leases};

/// A job that this worker holds, loaded, with its slot.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// Shared: an attempt's future would else carry several copies of the row.
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) held: Arc<Held>,
    pub(crate) ready_at: Timestamp,
    pub(crate) slot: OwnedSemaphorePermit,
}

/// The receiving end of the claimer's channel.
pub(crate) struct ClaimedJobs {
    claimed: mpsc::Receiver<Claimed>,
    leases: Arc<Leases>,
}

impl ClaimedJobs {
    pub(crate) fn new(claimed: mpsc::Receiver<Claimed>, leases: Arc<Leases>) -> Self {
        Self { claimed, leases }
    }
}

impl Backend for ClaimedJobs {
    type Task = Task<Claimed>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Option<Result<Self::Task, Infallible>>> {
        match ready!(self.claimed.poll_recv(cx)) {
            Some(claimed) => Poll::Ready(Some(Ok(Task::new(claimed)))),
            None => {
                // The claimer has ended. Without this the worker would wait for a next job for ever.
                let _ = worker.stop();
                Poll::Ready(None)
            }
        }
    }

    /// Claims that nobody has begun are given back, unspent.
    fn poll_close(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        self.claimed.close();
        while let Ok(claimed) = self.claimed.try_recv() {
            let Claimed { loaded, held, slot, .. } = claimed;
            self.leases.give_up(held.lease, Some(Entry::from(&loaded.job)), slot);
        }
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for ClaimedJobs {
    type Args = Claimed;
    type Id = ();
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}
