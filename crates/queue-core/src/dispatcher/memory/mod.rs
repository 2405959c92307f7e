//! The dispatcher in memory: the embedded mode's, and the specification of every other one.

mod lease_file;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use lease_file::LeaseFile;
use state::State;
use tokio::sync::mpsc;

use super::*;
use crate::time::Clock;

/// The dispatcher in memory. One lock over plain data; no verb waits while it holds it.
pub struct MemoryDispatcher {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

impl MemoryDispatcher {
    /// A dispatcher that has not begun. With a lease file, jobs that were running when the process died are reaped.
    pub fn open(clock: Arc<dyn Clock>, lease_file: Option<std::path::PathBuf>) -> Result<Self, DispatchError> {
        let (file, orphans) = match lease_file.as_deref().map(LeaseFile::open).transpose()? {
            Some((file, orphans)) => (Some(file), orphans),
            None => (None, vec![]),
        };
        Ok(Self { state: Mutex::new(State::new(file, orphans)), clock })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Dispatcher for MemoryDispatcher {
    async fn begin(&self, generation: Generation) -> Result<(), DispatchError> {
        self.state().begin(generation);
        Ok(())
    }

    async fn push(&self, entries: Vec<Entry>) -> Result<(), DispatchError> {
        let now = self.clock.now();
        let mut state = self.state();
        for entry in entries {
            state.push(entry, now);
        }
        state.wake();
        state.flush_file();
        Ok(())
    }

    async fn join(&self, session: SessionId) -> Result<mpsc::Receiver<Signal>, DispatchError> {
        Ok(self.state().join(session, self.clock.now()))
    }

    async fn leave(&self, session: SessionId) -> Result<(), DispatchError> {
        self.state().leave(session);
        Ok(())
    }

    async fn step(&self, step: Step) -> Result<StepReply, DispatchError> {
        let now = self.clock.now();
        let mut state = self.state();
        let reply = state.step(&step, now);
        if step.acks.iter().any(|ack| ack.next.is_some()) {
            state.wake();
        }
        state.flush_file();
        Ok(reply)
    }

    async fn start(&self, session: SessionId, leases: &[Lease]) -> Result<(), DispatchError> {
        let now = self.clock.now();
        let mut state = self.state();
        state.start(session, leases, now);
        state.flush_file();
        Ok(())
    }

    async fn renew(&self, session: SessionId, leases: &[Lease]) -> Result<Vec<Lease>, DispatchError> {
        Ok(self.state().renew(session, leases, self.clock.now()))
    }

    async fn withdraw(&self, id: JobId) -> Result<Place, DispatchError> {
        Ok(self.state().withdraw(id))
    }

    async fn nudge(&self, id: JobId) -> Result<(), DispatchError> {
        self.state().nudge(id);
        Ok(())
    }

    async fn locate(&self, ids: &[JobId]) -> Result<Vec<Place>, DispatchError> {
        let state = self.state();
        Ok(ids.iter().map(|id| state.locate(*id)).collect())
    }

    async fn reap(&self, limit: usize) -> Result<Vec<Recovery>, DispatchError> {
        Ok(self.state().reap(limit, self.clock.now()))
    }

    async fn apply(&self, setting: Setting) -> Result<(), DispatchError> {
        let mut state = self.state();
        state.apply(setting);
        state.wake();
        Ok(())
    }

    async fn depths(&self) -> Result<Vec<QueueDepth>, DispatchError> {
        Ok(self.state().depths(self.clock.now()))
    }

    async fn explain(&self, id: JobId) -> Result<Vec<Wait>, DispatchError> {
        Ok(self.state().explain(id, self.clock.now()))
    }

    async fn sessions(&self) -> Result<Vec<SessionView>, DispatchError> {
        Ok(self.state().sessions(self.clock.now()))
    }
}
