//! What this worker holds: one entry for each claimed job, and the way to stop it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use queue_core::{
    dispatcher::{self, Ack, Entry, Lease, SESSION_MS},
    ids::JobId,
    time::Timestamp,
};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;

/// Time between two looks whether a worker that stood still was heard of again.
const FUSE_LOOK_EVERY: Duration = Duration::from_millis(20);

/// Why an attempt is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Someone cancelled the job: its settle has been written by that.
    Cancelled,
    /// The claim is another worker's now: nothing but money may be written.
    LeaseLost,
    /// This worker is going: the job is given back unspent.
    Shutdown,
    /// The attempt took too long.
    Timeout,
}

/// One claim and the switch that stops its attempt.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) lease: Lease,
    pub(crate) token: CancellationToken,
    reason: OnceLock<Stop>,
    /// What the dispatcher would have to be told again, once the job is loaded.
    loaded: OnceLock<(Entry, Timestamp)>,
}

impl Held {
    pub(crate) fn new(lease: Lease) -> Arc<Self> {
        Arc::new(Self { lease, token: CancellationToken::new(), reason: OnceLock::new(), loaded: OnceLock::new() })
    }

    /// The job is loaded, and its handler is about to begin.
    pub(crate) fn begin(&self, entry: Entry, at: Timestamp) {
        let _ = self.loaded.set((entry, at));
    }

    /// Stops the attempt; the first reason stands.
    pub(crate) fn stop(&self, reason: Stop) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Why the attempt was stopped, if it was.
    pub(crate) fn stopped(&self) -> Option<Stop> {
        self.reason.get().copied()
    }
}

/// All claims of this worker: written by the claimer and the pipeline, read by the renewer.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: Mutex<HashMap<JobId, Arc<Held>>>,
    /// Acks that the next step carries. Bounded by the claims that this worker holds.
    acks: Mutex<Vec<Ack>>,
    /// When the last renewal that succeeded was sent.
    renewed: Mutex<Option<Instant>>,
    /// An ack is waiting, or a slot is free: the claimer has something to do.
    pub(crate) changed: Notify,
}

impl Leases {
    pub(crate) fn hold(&self, lease: Lease) -> Arc<Held> {
        let held = Held::new(lease);
        lock(&self.held).insert(lease.id, held.clone());
        held
    }

    /// Gives a claim up with the next step, and its slot with it; `next` is the job's next life if it has one.
    pub(crate) fn give_up(&self, lease: Lease, next: Option<Entry>, slot: OwnedSemaphorePermit) {
        // The ack first: whoever finds the slot free, or nothing held, finds the ack too. Else a claim would go out for the
        // slot before the dispatcher knows that its last job is gone.
        lock(&self.acks).push(Ack { lease, next });
        self.forget(lease);
        drop(slot);
        // Last: the claimer, woken by it, must find both.
        self.changed.notify_one();
    }

    /// Renews a claim no more. A later claim of the same job by this worker stays.
    pub(crate) fn forget(&self, lease: Lease) {
        let mut held = lock(&self.held);
        if held.get(&lease.id).is_some_and(|current| current.lease == lease) {
            held.remove(&lease.id);
        }
    }

    /// Up to `most` acks, oldest first, and how many are left.
    pub(crate) fn take_acks(&self, most: usize) -> (Vec<Ack>, usize) {
        let mut acks = lock(&self.acks);
        let taken = acks.len().min(most);
        let taken = acks.drain(..taken).collect();
        (taken, acks.len())
    }

    /// Puts acks back that a failed step did not carry.
    pub(crate) fn put_back(&self, unsent: Vec<Ack>) {
        lock(&self.acks).splice(0..0, unsent);
    }

    /// A renewal that was sent at `sent` succeeded.
    pub(crate) fn note_renewal(&self, sent: Instant) {
        *lock(&self.renewed) = Some(sent);
    }

    /// Whether others may take this worker for dead: it has been silent for as long as a session lives. Counted from
    /// the sending, since nobody knows when it arrived.
    pub(crate) fn fuse_is_out(&self) -> bool {
        lock(&self.renewed).is_none_or(|sent| sent.elapsed() >= Duration::from_millis(SESSION_MS as u64))
    }

    /// Waits while others may take this worker for dead, since it stood still: whoever has a job of it now may have made the call
    /// that comes next. Ends with the next renewal, or with the attempt.
    pub(crate) async fn until_trusted(&self, stop: &CancellationToken) {
        while self.fuse_is_out() && !stop.is_cancelled() {
            tokio::time::sleep(FUSE_LOOK_EVERY).await;
        }
    }

    pub(crate) fn all(&self) -> Vec<Lease> {
        lock(&self.held).values().map(|held| held.lease).collect()
    }

    /// Stops the claims that are still being loaded. A dispatcher that has forgotten everything is not told of them: nothing
    /// has run, and the jobs are pushed again. Run here as well, each would be held by two.
    pub(crate) fn stop_unloaded(&self) {
        for held in lock(&self.held).values().filter(|held| held.loaded.get().is_none()) {
            held.stop(Stop::LeaseLost);
        }
    }

    /// What a dispatcher that has forgotten everything has to be told.
    pub(crate) fn to_assert(&self) -> Vec<dispatcher::Held> {
        let held = lock(&self.held);
        let ours = held.values().filter(|held| held.stopped() != Some(Stop::LeaseLost));
        let told = ours.filter_map(|held| {
            let (entry, at) = held.loaded.get()?;
            Some(dispatcher::Held { lease: held.lease, entry: entry.clone(), started_at: Some(*at) })
        });
        told.collect()
    }

    pub(crate) fn count(&self) -> usize {
        lock(&self.held).len()
    }

    pub(crate) fn stop(&self, id: JobId, reason: Stop) {
        if let Some(held) = lock(&self.held).get(&id) {
            held.stop(reason);
        }
    }

    /// Whether the claim was still held: one that was given up meanwhile needs no stopping.
    pub(crate) fn stop_lease(&self, lease: Lease, reason: Stop) -> bool {
        let held = lock(&self.held);
        let current = held.get(&lease.id).filter(|held| held.lease == lease);
        current.inspect(|held| held.stop(reason)).is_some()
    }

    pub(crate) fn stop_all(&self, reason: Stop) {
        for held in lock(&self.held).values() {
            held.stop(reason);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use queue_core::{
        ids::{Epoch, Nonce},
        job::Kind,
    };

    use super::*;

    fn lease() -> Lease {
        Lease { id: JobId::generate(), epoch: Epoch(0), nonce: Nonce(1) }
    }

    fn entry(lease: Lease) -> Entry {
        Entry {
            id: lease.id,
            epoch: lease.epoch,
            queue: "q".into(),
            tenant: "t".into(),
            target: "x".into(),
            kind: Kind::Probe,
            priority: 5,
            run_at: Timestamp(0),
            key: None,
            suspicion: dispatcher::Suspicion::None,
        }
    }

    #[test]
    fn a_dispatcher_that_forgot_is_told_of_what_runs_and_the_rest_stops() {
        let leases = Leases::default();
        let (runs, cancelled, loads) = (leases.hold(lease()), leases.hold(lease()), leases.hold(lease()));
        for held in [&runs, &cancelled] {
            held.begin(entry(held.lease), Timestamp(1));
        }
        cancelled.stop(Stop::Cancelled);
        leases.stop_unloaded();
        // Its load was on the way past the look at the switch.
        loads.begin(entry(loads.lease), Timestamp(1));
        let mut told: Vec<_> = leases.to_assert().iter().map(|held| held.lease.id).collect();
        told.sort();
        let mut wanted = vec![runs.lease.id, cancelled.lease.id];
        wanted.sort();
        assert_eq!(told, wanted, "who was cancelled still has to settle");
        assert_eq!((runs.stopped(), loads.stopped()), (None, Some(Stop::LeaseLost)));
        assert!(loads.token.is_cancelled());
    }
}
