//! Who waits for the end of which job: one listener for the process, so that a finished job wakes only its watchers.
//!
//! Ends are events, and events may be lost. So the listener also looks at the rows of all who wait, once in about a
//! second; a wait ends whatever happens to the events.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use queue_core::{events::Events, ids::JobId, journal::Reads};
use tokio::{
    sync::{Notify, broadcast, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Time between two looks at the journal, give or take a half so that several servers do not look at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most rows in one read.
const LOOK_MAX: usize = 256;
/// Looks without anybody waiting after which the listener ends: while it listens, others send every end.
const IDLE_LOOKS_MAX: u32 = 10;

/// The waiting of one process.
pub(crate) struct Waiters {
    events: Arc<dyn Events>,
    reads: Arc<dyn Reads>,
    shutdown: CancellationToken,
    shared: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    by_job: Mutex<HashMap<JobId, Vec<Arc<Notify>>>>,
    listening: Mutex<bool>,
    ends: watch::Sender<u64>,
}

impl Waiting {
    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, Vec<Arc<Notify>>>> {
        self.by_job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listening(&self) -> MutexGuard<'_, bool> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn anybody(&self) -> bool {
        self.ends.receiver_count() > 0 || !self.jobs().is_empty()
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
    pub(crate) fn new(events: Arc<dyn Events>, reads: Arc<dyn Reads>, shutdown: CancellationToken) -> Self {
        Self { events, reads, shutdown, shared: Arc::default() }
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
        let mut listening = self.shared.listening();
        if !*listening {
            *listening = true;
            let (finished, reads) = (self.events.finished(), self.reads.clone());
            let listener = Listener { finished, reads, shared: self.shared.clone() };
            tokio::spawn(listener.run(self.shutdown.clone()));
        }
    }
}

struct Listener {
    finished: broadcast::Receiver<JobId>,
    reads: Arc<dyn Reads>,
    shared: Arc<Waiting>,
}

impl Listener {
    async fn run(mut self, shutdown: CancellationToken) {
        let mut look_at = next_look();
        let mut idle = 0;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                ended = self.finished.recv() => match ended {
                    Ok(job) => self.shared.wake(job),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.shared.wake_all(),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                () = sleep_until(look_at) => {
                    self.look().await;
                    look_at = next_look();
                    idle = if self.shared.anybody() { 0 } else { idle + 1 };
                    if idle > IDLE_LOOKS_MAX && self.ends() {
                        return;
                    }
                }
            }
        }
    }

    /// Whether nobody waits. Who comes now finds that nobody listens, and begins anew.
    fn ends(&self) -> bool {
        let mut listening = self.shared.listening();
        *listening = self.shared.anybody();
        !*listening
    }

    /// Wakes those whose jobs have ended without a word.
    async fn look(&self) {
        let jobs: Vec<JobId> = self.shared.jobs().keys().copied().collect();
        for some in jobs.chunks(LOOK_MAX) {
            match self.reads.jobs(some).await {
                Ok(rows) => {
                    rows.iter()
                        .flatten()
                        .filter(|job| job.standing.is_final())
                        .for_each(|job| self.shared.wake(job.id));
                }
                Err(error) => tracing::debug!(%error, "those who wait cannot look at their jobs"),
            }
        }
        // Whoever waits for several jobs counts for itself.
        self.shared.ends.send_modify(|ends| *ends = ends.wrapping_add(1));
    }
}

fn next_look() -> Instant {
    Instant::now() + LOOK_EVERY.mul_f64(0.5 + rand::random::<f64>())
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

#[cfg(test)]
mod tests {
    use queue_core::{events::memory::MemoryEvents, journal::sqlite::SqliteJournal, time::SystemClock};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_listens_while_nobody_waits() {
        let folder = tempfile::tempdir().unwrap();
        let reads = SqliteJournal::open(&folder.path().join("journal.db"), Arc::new(SystemClock)).unwrap();
        let waiters = Waiters::new(Arc::new(MemoryEvents::new()), Arc::new(reads), CancellationToken::new());
        for _ in 0..2 {
            let any = waiters.any();
            tokio::time::sleep(LOOK_EVERY * 60).await;
            assert!(*waiters.shared.listening());
            drop(any);
            tokio::time::sleep(LOOK_EVERY * 60).await;
            assert!(!*waiters.shared.listening());
        }
    }
}
