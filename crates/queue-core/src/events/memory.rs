//! Events in memory: a bounded ring a job, for as long as there is room.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::{EventBody, Events, JobEvent, Progress, Subscription};
use crate::ids::JobId;

/// Events that are held of one job: a reader that reconnects misses nothing of an ordinary answer.
const RING_MAX_EVENTS: usize = 4_096;
/// Bytes of text that are held of one job.
const RING_MAX_BYTES: usize = 256 * 1024;
/// Jobs whose events are held; the oldest give way.
const RINGS_MAX: usize = 4_096;
/// Ended jobs whose events are held, so that a late reader still sees how it went.
const ENDED_MAX: usize = 256;
/// Events that a slow reader may be behind before it has to begin with a snapshot again.
const LIVE_MAX: usize = 1_024;
/// Ends that a long poll may be behind before it has to ask the journal.
const FINISHED_MAX: usize = 16_384;

struct Ring {
    events: VecDeque<Arc<JobEvent>>,
    bytes: usize,
    last: u64,
    /// Kept apart from the events: tokens may have pushed it out of them.
    progress: Option<Progress>,
    live: broadcast::Sender<Arc<JobEvent>>,
}

impl Ring {
    fn new() -> Self {
        Self { events: VecDeque::new(), bytes: 0, last: 0, progress: None, live: broadcast::channel(LIVE_MAX).0 }
    }

    fn push(&mut self, body: EventBody) {
        self.last += 1;
        match &body {
            EventBody::AttemptStarted { .. } => self.progress = None,
            EventBody::Progress { done, total, step } => {
                self.progress = Some(Progress { done: *done, total: *total, step: step.clone() });
            }
            EventBody::Token { .. } | EventBody::State { .. } => {}
        }
        let event = Arc::new(JobEvent { sequence: self.last, body });
        self.bytes += size_of_text(&event.body);
        self.events.push_back(event.clone());
        while self.events.len() > RING_MAX_EVENTS || self.bytes > RING_MAX_BYTES && self.events.len() > 1 {
            if let Some(oldest) = self.events.pop_front() {
                self.bytes -= size_of_text(&oldest.body);
            }
        }
        // Nobody listening is no failure.
        let _ = self.live.send(event);
    }

    fn subscribe(&self, after: Option<u64>) -> Subscription {
        let from = after.unwrap_or(0);
        let replay: Vec<_> = self.events.iter().filter(|event| event.sequence > from).cloned().collect();
        let first = replay.first().map_or(self.last + 1, |event| event.sequence);
        // A number that was never given belongs to an earlier life of this process.
        Subscription { replay, gap: first != from + 1, live: self.live.subscribe() }
    }
}

fn size_of_text(body: &EventBody) -> usize {
    match body {
        EventBody::Token { step, text, .. } => step.len() + text.len(),
        EventBody::Progress { step, .. } => step.len(),
        EventBody::AttemptStarted { .. } | EventBody::State { .. } => 0,
    }
}

#[derive(Default)]
struct Rings {
    by_job: HashMap<JobId, Ring>,
    /// Every ring, oldest first; may name rings that are gone.
    order: VecDeque<JobId>,
    /// Rings of ended jobs, oldest first; may name rings that are gone.
    ended: VecDeque<JobId>,
}

impl Rings {
    fn ring(&mut self, job: JobId) -> &mut Ring {
        if !self.by_job.contains_key(&job) {
            while self.by_job.len() >= RINGS_MAX {
                let Some(oldest) = self.ended.pop_front().or_else(|| self.order.pop_front()) else { break };
                self.by_job.remove(&oldest);
            }
            if self.order.len() >= RINGS_MAX * 2 {
                let Self { by_job, order, .. } = self;
                order.retain(|id| by_job.contains_key(id));
            }
            self.order.push_back(job);
        }
        self.by_job.entry(job).or_insert_with(Ring::new)
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
}

impl Default for MemoryEvents {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryEvents {
    /// A hub that holds nothing.
    pub fn new() -> Self {
        Self { rings: Mutex::default(), finished: broadcast::channel(FINISHED_MAX).0 }
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Events for MemoryEvents {
    fn publish(&self, job: JobId, body: EventBody) {
        let ends = matches!(&body, EventBody::State { state } if state.standing().is_final());
        {
            let mut rings = self.rings();
            // A change of state alone needs no ring: the journal tells it. So jobs that nobody watches cost nothing.
            if rings.by_job.contains_key(&job) || !matches!(body, EventBody::State { .. }) {
                rings.ring(job).push(body);
                if ends {
                    rings.end(job);
                }
            }
        }
        if ends {
            let _ = self.finished.send(job);
        }
    }

    async fn subscribe(&self, job: JobId, after: Option<u64>) -> Subscription {
        self.rings().ring(job).subscribe(after)
    }

    async fn progress(&self, job: JobId) -> Option<Progress> {
        self.rings().by_job.get(&job)?.progress.clone()
    }

    fn finished(&self) -> broadcast::Receiver<JobId> {
        self.finished.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;

    fn token(text: &str) -> EventBody {
        EventBody::Token { attempt: 1, step: "chat".into(), text: text.into() }
    }

    #[tokio::test]
    async fn a_reader_goes_on_where_it_stopped() {
        let (hub, job) = (MemoryEvents::new(), JobId::generate());
        for text in ["a", "b", "c"] {
            hub.publish(job, token(text));
        }
        let mut all = hub.subscribe(job, None).await;
        assert_eq!(all.replay.iter().map(|event| event.sequence).collect::<Vec<_>>(), vec![1, 2, 3]);
        assert!(!all.gap);
        let rest = hub.subscribe(job, Some(2)).await;
        assert_eq!((rest.replay.len(), rest.replay[0].sequence, rest.gap), (1, 3, false));
        hub.publish(job, token("d"));
        assert_eq!(all.live.recv().await.unwrap().sequence, 4);
        assert!(hub.subscribe(job, Some(90)).await.gap, "a number of another life");
    }

    #[tokio::test]
    async fn what_fell_out_of_the_ring_is_a_gap() {
        let (hub, job) = (MemoryEvents::new(), JobId::generate());
        for _ in 0..3 {
            hub.publish(job, token(&"x".repeat(RING_MAX_BYTES / 2)));
        }
        let subscription = hub.subscribe(job, None).await;
        assert!(subscription.gap);
        assert!(subscription.replay.len() < 3);
    }

    #[tokio::test]
    async fn progress_is_the_last_of_the_last_attempt() {
        let (hub, job) = (MemoryEvents::new(), JobId::generate());
        assert_eq!(hub.progress(job).await, None);
        assert!(hub.rings().by_job.is_empty(), "asking holds nothing");
        for done in [1, 2] {
            hub.publish(job, EventBody::Progress { done, total: 3, step: "map".into() });
        }
        for _ in 0..RING_MAX_EVENTS {
            hub.publish(job, token("x"));
        }
        assert_eq!(hub.progress(job).await, Some(Progress { done: 2, total: 3, step: "map".into() }));
        hub.publish(job, EventBody::AttemptStarted { attempt: 2 });
        assert_eq!(hub.progress(job).await, None);
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
