//! Events in memory: a bounded ring a job, for as long as there is room.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::{EventBody, Events, Progress, Subscription, ring::Ring};
use crate::{
    ids::JobId,
    time::{Clock, SystemClock, Timestamp},
};

/// Jobs whose events are held; the oldest give way.
const RINGS_MAX: usize = 4_096;
/// Rings with listeners that are passed over before one of them has to give way: the search is short.
const SPARED_MAX: usize = 16;
/// Ended jobs whose events are held, so that a late reader still sees how it went.
const ENDED_MAX: usize = 256;
/// Ends that a long poll may be behind before it has to ask the journal.
const FINISHED_MAX: usize = 16_384;

#[derive(Default)]
struct Rings {
    by_job: HashMap<JobId, Ring>,
    /// Every ring, oldest first; may name rings that are gone.
    order: VecDeque<JobId>,
    /// Rings of ended jobs, oldest first; may name rings that are gone.
    ended: VecDeque<JobId>,
}

impl Rings {
    fn ring(&mut self, job: JobId, now: Timestamp) -> &mut Ring {
        if !self.by_job.contains_key(&job) {
            let mut spared = 0;
            while self.by_job.len() >= RINGS_MAX {
                let Some(oldest) = self.ended.pop_front().or_else(|| self.order.pop_front()) else { break };
                let is_watched = self.by_job.get(&oldest).is_some_and(|ring| ring.listeners() > 0);
                if is_watched && spared < SPARED_MAX {
                    spared += 1;
                    self.order.push_back(oldest);
                } else {
                    self.by_job.remove(&oldest);
                }
            }
            if self.order.len() >= RINGS_MAX * 2 {
                let Self { by_job, order, .. } = self;
                order.retain(|id| by_job.contains_key(id));
            }
            self.order.push_back(job);
        }
        self.by_job.entry(job).or_insert_with(|| Ring::new(now))
    }

    fn end(&mut self, job: JobId) {
        self.ended.push_back(job);
        if self.ended.len() > ENDED_MAX
            && let Some(oldest) = self.ended.pop_front()
        {
            self.by_job.remove(&oldest);
        }
    }
}

/// The event hub of one process.
pub struct MemoryEvents {
    rings: Mutex<Rings>,
    finished: broadcast::Sender<JobId>,
    clock: Arc<dyn Clock>,
}

impl Default for MemoryEvents {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryEvents {
    /// A hub that holds nothing.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// A hub that holds nothing, whose events are numbered by this clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { rings: Mutex::default(), finished: broadcast::channel(FINISHED_MAX).0, clock }
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds an event. A change of state alone needs no ring, unless the job is `watched`: the journal tells it. So
    /// jobs that nobody watches cost nothing.
    pub(super) fn hold(&self, job: JobId, body: EventBody, watched: bool) {
        let ends = body.is_end();
        {
            let mut rings = self.rings();
            if watched || !matches!(body, EventBody::State { .. }) || rings.by_job.contains_key(&job) {
                let now = self.clock.now();
                rings.ring(job, now).push(body, now);
                if ends {
                    rings.end(job);
                }
            }
        }
        if ends {
            self.tell_end(job);
        }
    }

    /// Tells those who wait that a job has ended.
    pub(super) fn tell_end(&self, job: JobId) {
        // Nobody waiting is no failure.
        let _ = self.finished.send(job);
    }

    /// Whether anybody listens to ends.
    pub(super) fn ends_are_wanted(&self) -> bool {
        self.finished.receiver_count() > 0
    }

    /// What `look` finds in a ring; `None` without a ring.
    pub(super) fn look<T>(&self, job: JobId, look: impl FnOnce(&Ring) -> T) -> Option<T> {
        self.rings().by_job.get(&job).map(look)
    }
}

#[async_trait]
impl Events for MemoryEvents {
    fn publish(&self, job: JobId, body: EventBody) {
        self.hold(job, body, false);
    }

    async fn subscribe(&self, job: JobId, after: Option<u64>) -> Subscription {
        self.rings().ring(job, self.clock.now()).subscribe(after)
    }

    async fn progress(&self, job: JobId) -> Option<Progress> {
        self.look(job, |ring| ring.progress().cloned())?
    }

    fn finished(&self) -> broadcast::Receiver<JobId> {
        self.finished.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{events::conformance::Fixture, state::State, time::ManualClock};

    fn token(text: &str) -> EventBody {
        EventBody::Token { attempt: 1, step: "chat".into(), text: text.into() }
    }

    crate::events_conformance!(Memory::fresh());

    struct Memory {
        hub: Arc<MemoryEvents>,
        clock: ManualClock,
    }

    impl Memory {
        fn fresh() -> Self {
            let clock = ManualClock::at(Timestamp(1_790_000_000_000));
            Self { hub: Arc::new(MemoryEvents::with_clock(Arc::new(clock.clone()))), clock }
        }
    }

    #[async_trait]
    impl Fixture for Memory {
        fn publisher(&self) -> Arc<dyn Events> {
            self.hub.clone()
        }

        fn reader(&self) -> Arc<dyn Events> {
            self.hub.clone()
        }

        fn pass_a_moment(&self) {
            self.clock.advance_ms(1);
        }
    }

    #[tokio::test]
    async fn asking_for_progress_holds_nothing() {
        let (hub, job) = (MemoryEvents::new(), JobId::generate());
        assert_eq!(hub.progress(job).await, None);
        assert!(hub.rings().by_job.is_empty());
    }

    #[tokio::test]
    async fn jobs_that_nobody_watches_hold_nothing_and_their_end_is_told() {
        let hub = MemoryEvents::new();
        let mut finished = hub.finished();
        let job = JobId::generate();
        hub.publish(job, EventBody::State { state: State::Succeeded });
        assert_eq!(finished.recv().await.unwrap(), job);
        assert!(hub.rings().by_job.is_empty());
    }

    #[tokio::test]
    async fn memory_is_bounded_by_the_number_of_jobs() {
        let hub = MemoryEvents::new();
        for _ in 0..RINGS_MAX * 3 {
            let job = JobId::generate();
            hub.publish(job, token("x"));
            hub.publish(job, EventBody::State { state: State::Dead });
        }
        let rings = hub.rings();
        assert!(rings.by_job.len() <= ENDED_MAX + 1 && rings.order.len() <= RINGS_MAX * 2, "{}", rings.by_job.len());
    }
}
