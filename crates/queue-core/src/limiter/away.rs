//! What happens while the fleet's limiter cannot be asked: as each limit says, its calls go on, wait, or go on for a minute
//! with this worker's share.
//!
//! While Redis is away nobody claims, so it is about the jobs that run already. A share is the configured rate over the
//! number of workers that was last known. It has buckets of its own, and nothing of it is told to the fleet afterwards.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;

use super::{
    Answer, Ask, Away, Cause, Lift, Limit, Limiter, Penalty, Standing, Told, Unavailable, Used, Verdict,
    memory::MemoryLimiter,
};
use crate::{
    ids::Name,
    route::Target,
    time::{Clock, Timestamp},
};

/// How long a share is used before calls wait: a number of workers that is a minute old is a guess.
pub const LOCAL_MAX_MS: i64 = 60_000;
/// How long a call waits that may not go on, before it asks again.
const ASK_AGAIN_MS: u64 = 6_000;

/// A limiter that is always there.
pub struct Steadfast {
    fleet: Arc<dyn Limiter>,
    share: MemoryLimiter,
    clock: Arc<dyn Clock>,
    workers: AtomicUsize,
    /// Since when the fleet's limiter has not answered.
    away_since: Mutex<Option<Timestamp>>,
}

impl Steadfast {
    /// The fleet's limiter, and what to do without it.
    pub fn new(fleet: Arc<dyn Limiter>, clock: Arc<dyn Clock>) -> Self {
        let share = MemoryLimiter::new(clock.clone());
        Self { fleet, share, clock, workers: AtomicUsize::new(1), away_since: Mutex::default() }
    }

    fn is_back(&self) {
        *self.away_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How long it has been away, in milliseconds.
    fn away(&self, error: &Unavailable) -> i64 {
        let now = self.clock.now();
        let mut since = self.away_since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_none() {
            tracing::warn!(%error, "the fleet's limiter is away: each limit does as its `when_away` says");
        }
        now.since_ms(*since.get_or_insert(now))
    }

    /// The same question to this worker's share.
    fn of_share(&self, ask: &Ask) -> Ask {
        Ask { limit: ask.limit.share(self.workers.load(Ordering::Relaxed)), ..ask.clone() }
    }
}

/// A closed door.
fn closed() -> Answer {
    let verdict = Verdict::Later { wait_ms: ASK_AGAIN_MS, open_ms: ASK_AGAIN_MS, cause: Cause::Away, ticket: false };
    Answer { verdict, pace: None }
}

#[async_trait]
impl Limiter for Steadfast {
    async fn reserve(&self, ask: &Ask) -> Result<Answer, Unavailable> {
        let error = match self.fleet.reserve(ask).await {
            Ok(answer) => {
                self.is_back();
                return Ok(answer);
            }
            Err(error) => error,
        };
        let away_ms = self.away(&error);
        match ask.limit.when_away {
            Away::Open => Ok(Answer { verdict: Verdict::Go { wait_ms: 0 }, pace: None }),
            Away::Local if away_ms < LOCAL_MAX_MS => self.share.reserve(&self.of_share(ask)).await,
            Away::Local | Away::Closed => Ok(closed()),
        }
    }

    async fn confirm(&self, ask: &Ask) -> Result<Option<(u64, Cause)>, Unavailable> {
        match self.fleet.confirm(ask).await {
            // What was granted before stays granted: whoever knows of a block here has told the share.
            Err(_) => self.share.confirm(ask).await,
            answer => answer,
        }
    }

    async fn settle(&self, ask: &Ask, used: Used) -> Result<(), Unavailable> {
        match self.fleet.settle(ask, used).await {
            Err(_) => self.share.settle(&self.of_share(ask), used).await,
            done => done,
        }
    }

    async fn penalise(&self, ask: &Ask, penalty: Penalty, wait_ms: u64, reason: &str) -> Result<u64, Unavailable> {
        // The share too: if the fleet's limiter goes away now, this worker still knows.
        let own = self.share.penalise(&self.of_share(ask), penalty, wait_ms, reason).await?;
        Ok(self.fleet.penalise(ask, penalty, wait_ms, reason).await.unwrap_or(own))
    }

    async fn block(
        &self,
        ask: &Ask,
        penalty: Penalty,
        wait_ms: u64,
        age_ms: u64,
        reason: &str,
    ) -> Result<u64, Unavailable> {
        let left_ms = self.fleet.block(ask, penalty, wait_ms, age_ms, reason).await?;
        if left_ms == 0 {
            // Lifted: this worker's share must not hold on to it.
            self.share.lift(&ask.target, &ask.limit, Lift::Blocks).await?;
        }
        Ok(left_ms)
    }

    async fn lift(&self, target: &Target, limit: &Limit, lift: Lift) -> Result<bool, Unavailable> {
        self.share.lift(target, limit, lift).await?;
        self.fleet.lift(target, limit, lift).await
    }

    async fn observe(&self, ask: &Ask, told: Told) -> Result<(), Unavailable> {
        match self.fleet.observe(ask, told).await {
            Err(_) => self.share.observe(&self.of_share(ask), told).await,
            done => done,
        }
    }

    async fn standing(&self, target: &Target, limit: &Limit) -> Result<Standing, Unavailable> {
        self.fleet.standing(target, limit).await
    }

    async fn targets(&self) -> Result<Vec<Name>, Unavailable> {
        self.fleet.targets().await
    }

    fn note_workers(&self, workers: usize) {
        self.workers.store(workers.max(1), Ordering::Relaxed);
    }
}
