//! The dispatcher in memory: the embedded mode's, and the executable specification of every other one.
//!
//! One lock over plain data; no verb waits while it holds it, and none costs more than its own batch and the logarithm
//! of what is held. What depends on something else says so: [`Dispatcher::depths`] on lanes, [`Dispatcher::reap`] and
//! [`Dispatcher::leave`] on leases (and then only when something expired), wake-ups on the sessions that listen.

mod blame;
mod core;
mod keys;
mod lane;
mod lease_file;
mod reports;
mod rotation;
mod sessions;
mod settings;
mod slab;
mod standing;
#[cfg(test)]
mod tests;
mod waiting;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::mpsc;

use self::{core::Core, lease_file::LeaseFile};
use super::{
    DispatchError, Dispatcher, Entry, Held, Lease, PUSH_MAX_ENTRIES, Place, Present, QueueDepth, Setting, Signal, Step,
    StepReply, Wait,
};
use crate::{
    ids::{Generation, JobId, SessionId},
    journal::Recovery,
    time::Clock,
};

/// The dispatcher in memory.
///
/// With a lease file it remembers which handlers ran when the process died. Their leases are lost from the start:
/// [`Dispatcher::reap`] reports them, a push at their epoch (the rebuild's) changes nothing, and a push at a later
/// epoch replaces them. For a job that the journal says has moved on, the reaper drops the lease with an ack in any
/// session's name; [`Dispatcher::withdraw`] leaves it, like every leased job.
pub struct MemoryDispatcher {
    core: Mutex<Core>,
    /// Locked before `core`, so that records reach the file in the order in which they were made. Claims never wait
    /// for it.
    file: Option<Mutex<LeaseFile>>,
    clock: Arc<dyn Clock>,
}

impl MemoryDispatcher {
    /// A dispatcher that has not begun.
    ///
    /// # Errors
    /// [`DispatchError::Unavailable`] when the lease file cannot be read or written.
    pub fn open(clock: Arc<dyn Clock>, lease_file: Option<PathBuf>) -> Result<Self, DispatchError> {
        let (file, orphans) = match lease_file.as_deref().map(LeaseFile::open).transpose()? {
            Some((file, orphans)) => (Some(Mutex::new(file)), orphans),
            None => (None, vec![]),
        };
        Ok(Self { core: Mutex::new(Core::new(file.is_some(), orphans)), file, clock })
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    /// Writes what the last verb made for the lease file, or waits until who came before has written it.
    fn record(&self) {
        let Some(file) = &self.file else { return };
        let mut file = lock(file);
        let records = self.core().take_records();
        if !records.is_empty() {
            file.write(&records);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Dispatcher for MemoryDispatcher {
    async fn begin(&self, generation: Generation) -> Result<(), DispatchError> {
        self.core().begin(generation)?;
        self.record();
        Ok(())
    }

    async fn push(&self, entries: Vec<Entry>) -> Result<(), DispatchError> {
        let mut records = false;
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let mut core = self.core();
            let now = self.clock.now();
            for entry in entries.by_ref().take(PUSH_MAX_ENTRIES) {
                core.push(entry, now);
            }
            core.wake(None);
            records |= core.has_records();
        }
        if records {
            self.record();
        }
        Ok(())
    }

    async fn join(&self, session: SessionId, held: Vec<Held>) -> Result<mpsc::Receiver<Signal>, DispatchError> {
        let (signals, records) = {
            let mut core = self.core();
            let now = self.clock.now();
            core.take_over(session, held, now);
            (core.join(session, now), core.has_records())
        };
        if records {
            self.record();
        }
        Ok(signals)
    }

    async fn leave(&self, session: SessionId) -> Result<(), DispatchError> {
        self.core().leave(session);
        Ok(())
    }

    async fn step(&self, step: Step) -> Result<StepReply, DispatchError> {
        let (reply, records) = {
            let mut core = self.core();
            let now = self.clock.now();
            (core.step(&step, now), core.has_records())
        };
        if records {
            self.record();
        }
        Ok(reply)
    }

    async fn start(&self, session: SessionId, leases: &[Lease]) -> Result<(), DispatchError> {
        {
            let mut core = self.core();
            let now = self.clock.now();
            core.start(session, leases, now);
        }
        self.record();
        Ok(())
    }

    async fn renew(&self, session: SessionId, leases: &[Lease]) -> Result<Vec<Lease>, DispatchError> {
        let mut core = self.core();
        let now = self.clock.now();
        Ok(core.renew(session, leases, now))
    }

    async fn withdraw(&self, id: JobId) -> Result<Place, DispatchError> {
        let mut core = self.core();
        let place = core.withdraw(id);
        // Its place may be another's of its key now.
        core.wake(None);
        Ok(place)
    }

    async fn nudge(&self, id: JobId) -> Result<(), DispatchError> {
        self.core().nudge(id);
        Ok(())
    }

    async fn locate(&self, ids: &[JobId]) -> Result<Vec<Place>, DispatchError> {
        let core = self.core();
        Ok(ids.iter().map(|id| core.locate(*id)).collect())
    }

    async fn reap(&self, limit: usize) -> Result<Vec<Recovery>, DispatchError> {
        let mut core = self.core();
        let now = self.clock.now();
        Ok(core.reap(limit, now))
    }

    async fn apply(&self, setting: Setting) -> Result<(), DispatchError> {
        let mut core = self.core();
        let now = self.clock.now();
        core.apply(setting, now);
        core.wake(None);
        Ok(())
    }

    async fn depths(&self) -> Result<Vec<QueueDepth>, DispatchError> {
        let mut core = self.core();
        let now = self.clock.now();
        let depths = core.depths(now);
        core.wake(None);
        Ok(depths)
    }

    async fn explain(&self, id: JobId) -> Result<Vec<Wait>, DispatchError> {
        let mut core = self.core();
        let now = self.clock.now();
        let waits = core.explain(id, now);
        core.wake(None);
        Ok(waits)
    }

    async fn sessions(&self, asked: &[SessionId]) -> Result<Present, DispatchError> {
        let now = self.clock.now();
        let core = self.core();
        let generation = core.generation.ok_or(DispatchError::WrongGeneration)?;
        Ok(Present { generation, alive: core.sessions.views(now), gone: core.sessions.gone(asked, now) })
    }
}
