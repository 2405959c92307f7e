//! Request limits of one of several processes: what the shared store said last stands in front of it, and while the store is away
//! each limit does as it says.
//!
//! **In front.** The store tells with each answer when a meter is whole. Until a meter could give what a request needs, whatever
//! others do, nobody asks the store: a meter is only ever whole later than it was last told. So a key that is far over its limit
//! costs one call for each request that passes, and never a request that the store would let pass.
//!
//! **Away.** `open`: requests pass. `closed`: none does. `local`: each process lets its share pass, the limit over the number of
//! processes that were last counted. A process that has never counted takes itself for the only one. What a share let pass is not
//! told to the store afterwards.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    Answer, Away, Draw, Measure, RequestLimits, Unavailable, book::Book, memory::now_us, redis::RedisRequestLimits,
};
use crate::time::Clock;

/// Longest wait for the store: a request waits for it.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// For so long nobody asks a store again that did not answer: else each request would wait for it.
const REST: Duration = Duration::from_secs(1);
/// How often a process says that it is there.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// A process that has not said so for this long is not counted.
const COUNTED_FOR: Duration = Duration::from_secs(20);
/// The clock here ticks in milliseconds: a tick later everything may stand better than it looks now.
const TICK_US: u64 = 1_000;

/// The limits that a process shares with others.
pub struct FleetRequestLimits {
    store: RedisRequestLimits,
    clock: Arc<dyn Clock>,
    wait: Duration,
    /// What the store said last.
    heard: Mutex<Book>,
    /// This process' own share, for when the store is away.
    share: Mutex<Book>,
    process: String,
    processes: AtomicU32,
    /// Until when the store is left alone, because it did not answer.
    rests_until: Mutex<Option<Instant>>,
}

impl FleetRequestLimits {
    /// In front of a store, with this process' clock.
    pub fn new(store: RedisRequestLimits, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            clock,
            wait: WAIT_MAX,
            heard: Mutex::default(),
            share: Mutex::default(),
            process: Uuid::now_v7().simple().to_string(),
            processes: AtomicU32::new(1),
            rests_until: Mutex::default(),
        }
    }

    /// The same with another longest wait for the store: for tests on a busy machine.
    #[must_use]
    pub fn patient(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// How many processes share the limits, as far as this one knows.
    pub fn processes(&self) -> u32 {
        self.processes.load(Ordering::Relaxed)
    }

    /// What `asked` comes to, if the store answers in time.
    async fn of_store<T>(&self, asked: impl Future<Output = Result<T, Unavailable>>) -> Result<T, Unavailable> {
        let rests_until = *locked(&self.rests_until);
        if rests_until.is_some_and(|until| Instant::now() < until) {
            return Err(Unavailable("it did not answer a moment ago".into()));
        }
        let answered = tokio::time::timeout(self.wait, asked).await;
        let answered = answered.unwrap_or_else(|_| Err(Unavailable(format!("no answer within {:?}", self.wait))));
        let mut rests_until = locked(&self.rests_until);
        match &answered {
            Ok(_) => *rests_until = None,
            Err(error) => {
                if rests_until.is_none() {
                    tracing::warn!(%error, "the store of the request limits is away: each does as its `when_away` says");
                }
                *rests_until = Some(Instant::now() + REST);
            }
        }
        answered
    }

    /// What the limits come to without the store.
    fn alone(&self, draws: &[Draw], why: Unavailable) -> Result<Answer, Unavailable> {
        if draws.iter().any(|draw| draw.when_away == Away::Closed) {
            return Err(why);
        }
        let own = |draw: &&Draw| draw.when_away == Away::Local;
        let shares: Vec<Draw> = draws.iter().filter(own).cloned().collect();
        let shares: Vec<Draw> =
            shares.into_iter().map(|draw| Draw { quota: draw.quota.share(self.processes()), ..draw }).collect();
        let now = now_us(&*self.clock);
        let answer = {
            let (mut heard, mut share) = (locked(&self.heard), locked(&self.share));
            // Whoever has just used up the whole limit has used up its shares, too: one late answer is no new burst.
            for (draw, of_share) in draws.iter().filter(own).zip(&shares) {
                for level in heard.look(std::slice::from_ref(draw), now).levels.into_iter().flatten() {
                    share.hear(of_share, now, level.whole_us);
                }
            }
            share.take(&shares, now)
        };
        let mut levels = answer.levels.into_iter();
        let levels = draws.iter().map(|draw| if own(&draw) { levels.next().flatten() } else { None }).collect();
        // Where all that is counted is open, all may come.
        let wanted = draws.iter().filter(|draw| draw.meter.measure == Measure::LlmSubmits).map(|draw| draw.most).min();
        Ok(Answer { jobs: answer.jobs.or(wanted), levels, ..answer })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What was being done when a holder of the lock panicked is whole: moments are inserted one by one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl RequestLimits for FleetRequestLimits {
    async fn take(&self, draws: &[Draw]) -> Result<Answer, Unavailable> {
        if let Some(refusal) = self.refuses(draws) {
            return Ok(refusal);
        }
        // Before the question: what the answer says of later moments is then told too early rather than too late.
        let asked_at = now_us(&*self.clock);
        match self.of_store(self.store.take(draws)).await {
            Ok(answer) => {
                let mut heard = locked(&self.heard);
                for (draw, level) in draws.iter().zip(&answer.levels) {
                    if let Some(level) = level {
                        heard.hear(draw, asked_at, level.whole_us);
                    }
                }
                Ok(answer)
            }
            Err(why) => self.alone(draws, why),
        }
    }

    fn refuses(&self, draws: &[Draw]) -> Option<Answer> {
        let now = now_us(&*self.clock).saturating_add(TICK_US);
        let mut heard = locked(&self.heard);
        if draws.iter().any(|draw| heard.is_outdated(draw, now)) {
            return None;
        }
        let mut answer = heard.look(draws, now);
        if answer.admitted {
            return None;
        }
        // As it is told: from this tick on.
        for level in answer.levels.iter_mut().flatten() {
            for us in [&mut level.next_us, &mut level.wait_us] {
                *us += if *us > 0 { TICK_US } else { 0 };
            }
        }
        Some(answer)
    }

    async fn attend(&self) {
        let mut ticks = tokio::time::interval(COUNT_EVERY);
        loop {
            ticks.tick().await;
            match self.of_store(self.store.count(&self.process, COUNTED_FOR)).await {
                Ok(count) => self.processes.store(count.max(1), Ordering::Relaxed),
                Err(error) => tracing::debug!(%error, "the processes that share the request limits are not counted"),
            }
        }
    }
}
