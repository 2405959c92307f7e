//! Who waits for the end of which job: one listener for the process, so that a finished job wakes only its watchers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError},
};

use queue_core::{events::Events, ids::JobId};
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

/// The waiting of one process.
pub(crate) struct Waiters {
    events: Arc<dyn Events>,
    shutdown: CancellationToken,
    listening: Once,
    shared: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    by_job: Mutex<HashMap<JobId, Vec<Arc<Notify>>>>,
    ends: watch::Sender<u64>,
}

impl Waiting {
    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, Vec<Arc<Notify>>>> {
        self.by_job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, job: JobId) {
        if let Some(waiting) = self.jobs().get(&job) {
            waiting.iter().for_each(|one| one.notify_one());
        }
        self.ends.send_modify(|ends| *ends = ends.wrapping_add(1));
    }

    fn wake_all(&self) {
        self.jobs().values().flatten().for_each(|one| one.notify_one());
        self.ends.send_modify(|ends| *ends = ends.wrapping_add(1));
    }
}

impl Waiters {
    /// Nobody waits yet; the listener starts with the first who does.
    pub(crate) fn new(events: Arc<dyn Events>, shutdown: CancellationToken) -> Self {
        Self { events, shutdown, listening: Once::new(), shared: Arc::default() }
    }

    /// Watches for the end of `job`. Ends from now on are not missed: look at the job after this call.
    pub(crate) fn watch(&self, job: JobId) -> Waiter {
        let notify = Arc::new(Notify::new());
        self.shared.jobs().entry(job).or_default().push(notify.clone());
        // After the entry, so that an end between the two wakes it.
        self.listen();
        Waiter { job, notify, shared: self.shared.clone() }
    }

    /// Changes whenever any job ends.
    pub(crate) fn any(&self) -> watch::Receiver<u64> {
        let ends = self.shared.ends.subscribe();
        self.listen();
        ends
    }

    fn listen(&self) {
        // A second caller waits here until the subscription stands, so that it, too, looks at its job only after.
        self.listening.call_once(|| {
            let finished = self.events.finished();
            tokio::spawn(pass_on(finished, self.shared.clone(), self.shutdown.clone()));
        });
    }
}

async fn pass_on(mut finished: broadcast::Receiver<JobId>, shared: Arc<Waiting>, shutdown: CancellationToken) {
    loop {
        let next = tokio::select! {
            () = shutdown.cancelled() => return,
            next = finished.recv() => next,
        };
        match next {
            Ok(job) => shared.wake(job),
            Err(broadcast::error::RecvError::Lagged(_)) => shared.wake_all(),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// One who waits for a job; forgotten when dropped.
pub(crate) struct Waiter {
    job: JobId,
    notify: Arc<Notify>,
    shared: Arc<Waiting>,
}

impl Waiter {
    /// Returns when the job may have ended.
    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut jobs = self.shared.jobs();
        if let Some(waiting) = jobs.get_mut(&self.job) {
            waiting.retain(|one| !Arc::ptr_eq(one, &self.notify));
            if waiting.is_empty() {
                jobs.remove(&self.job);
            }
        }
    }
}
