//! The limiter in Redis: one for all workers, by Redis' own clock. The memory limiter is its specification.
//!
//! One library of its own (`crates/queue-core/lua/limiter.lua`), called as a Function or by EVALSHA. Operations of one process
//! on one target travel together, see `lanes.rs`. All targets of one provider and credential have one hash tag, so that a
//! credential that is out of money is known where its targets are, in the same call.

mod codec;
mod lanes;

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;

use self::{
    codec::Operation,
    lanes::{Lane, Place},
};
use super::{
    Answer, Ask, BURST_MS, CUT, CUT_EVERY_MS, CUT_FLOOR, Cause, Lift, Limit, Limiter, PACE_WAIT_MS, PACE_WEIGHT,
    Penalty, Standing, TICKET_AHEAD_MAX_MS, TICKET_GRACE_MS, TICKET_LATE_MS, TICKET_LEAD_MS, TICKETS_MAX, TOLD_LEAST,
    TOLD_MS, TRIAL_MS, TRIAL_WAIT_MS, Told, Unavailable, Used, WAIT_MAX_MS, book::PACE_MAX,
};
use crate::{
    dispatcher::redis::{RedisConfig, library::Library, link::Link},
    ids::Name,
    route::Target,
    time::Clock,
};

/// Changes with the form of what is kept: another version's data is not read.
pub(crate) const VERSION: u32 = 2;
/// How long a book is kept after it says nothing any more.
const LIFETIME_MS: u64 = 3_600_000;
/// No debt and no block is kept for longer than this besides.
const LIFETIME_MAX_MS: u64 = 7 * 24 * 3_600_000;
/// Targets of this process for which there is a lane; beyond it, those that nobody uses are dropped.
const LANES_MAX: usize = 10_000;
/// How often a target is made known again in the list of targets.
const LIST_EVERY: Duration = Duration::from_secs(30);
/// A target that was not asked for so long is not told of.
const LISTED_MS: f64 = 3_600_000.0;

static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let constants = format!(
        "local BURST_MS, WAIT_MAX_MS, CUT, CUT_FLOOR = {BURST_MS:?}, {WAIT_MAX_MS:?}, {CUT:?}, {CUT_FLOOR:?}\n\
         local CUT_EVERY_MS, TRIAL_MS, TRIAL_WAIT_MS = {CUT_EVERY_MS:?}, {TRIAL_MS:?}, {TRIAL_WAIT_MS:?}\n\
         local TICKET_AHEAD_MAX_MS, TICKET_GRACE_MS = {TICKET_AHEAD_MAX_MS:?}, {TICKET_GRACE_MS:?}\n\
         local TICKET_LEAD_MS, TICKET_LATE_MS, TICKETS_MAX = {TICKET_LEAD_MS:?}, {TICKET_LATE_MS:?}, {TICKETS_MAX}\n\
         local TOLD_MS, TOLD_LEAST, PACE_MAX = {TOLD_MS:?}, {TOLD_LEAST:?}, {PACE_MAX}\n\
         local PACE_WAIT_MS, PACE_WEIGHT = {PACE_WAIT_MS:?}, {PACE_WEIGHT:?}\n\
         local LIFETIME_MS, LIFETIME_MAX_MS = {LIFETIME_MS}, {LIFETIME_MAX_MS}\n",
    );
    let body = format!("{constants}{}", include_str!("../../../lua/limiter.lua"));
    Library::of(&format!("longshore_limiter_{VERSION}"), &body)
});

/// The buckets that all workers share.
pub struct RedisLimiter {
    link: Arc<Link>,
    /// What every key begins with.
    prefix: String,
    clock: Option<Arc<dyn Clock>>,
    lanes: Mutex<HashMap<Target, Listed>>,
}

struct Listed {
    lane: Arc<Lane>,
    /// When the target was last made known.
    told: Option<Instant>,
}

impl RedisLimiter {
    /// Connects with the first call.
    ///
    /// # Errors
    /// Says what is wrong with the address.
    pub fn open(config: &RedisConfig) -> Result<Self, String> {
        let link = Link::of(config).map_err(|error| format!("{}: {error}", config.address))?.calling(&LIBRARY);
        let prefix = format!("{}l{VERSION}", config.prefix);
        Ok(Self { link: Arc::new(link), prefix, clock: config.clock.clone(), lanes: Mutex::default() })
    }

    /// The lane of a target, and whether the target should be made known.
    fn lane(&self, target: &Target) -> (Arc<Lane>, bool) {
        // What was being done when a holder panicked is whole: the map only grows and shrinks.
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.len() >= LANES_MAX && !lanes.contains_key(target) {
            lanes.retain(|_, listed| Arc::strong_count(&listed.lane) > 1);
        }
        let listed = lanes.entry(target.clone()).or_insert_with(|| {
            let place = Place::of(&self.prefix, target, self.clock.clone());
            Listed { lane: Arc::new(Lane::new(self.link.clone(), place)), told: None }
        });
        let due = listed.told.is_none_or(|told| told.elapsed() >= LIST_EVERY);
        if due {
            listed.told = Some(Instant::now());
        }
        (listed.lane.clone(), due)
    }

    async fn call(&self, target: &Target, limit: &Limit, operation: Operation) -> Result<redis::Value, Unavailable> {
        let (lane, unlisted) = self.lane(target);
        if unlisted {
            let listed = redis::cmd("ZADD").arg(self.list()).arg(self.now_ms()).arg(target.name().as_str()).to_owned();
            let link = self.link.clone();
            // Nobody waits for it: it is for people who look.
            tokio::spawn(async move { link.send(&listed).await });
        }
        lane.call(limit, operation).await
    }

    fn list(&self) -> String {
        format!("{}:targets", self.prefix)
    }

    /// Only for the list of targets, which people read: it may be as wrong as this machine's clock.
    fn now_ms(&self) -> i64 {
        self.clock.as_ref().map_or_else(|| crate::time::SystemClock.now().0, |clock| clock.now().0)
    }
}

#[async_trait]
impl Limiter for RedisLimiter {
    async fn reserve(&self, ask: &Ask) -> Result<Answer, Unavailable> {
        let reserve = Operation::reserve(ask);
        codec::answer(self.call(&ask.target, &ask.limit, reserve).await?)
    }

    async fn confirm(&self, ask: &Ask) -> Result<Option<(u64, Cause)>, Unavailable> {
        codec::confirmed(self.call(&ask.target, &ask.limit, Operation::confirm()).await?)
    }

    async fn settle(&self, ask: &Ask, used: Used) -> Result<(), Unavailable> {
        self.call(&ask.target, &ask.limit, Operation::settle(used)).await.map(|_| ())
    }

    async fn penalise(&self, ask: &Ask, penalty: Penalty, wait_ms: u64, reason: &str) -> Result<u64, Unavailable> {
        let penalise = Operation::penalise(penalty, wait_ms, reason);
        codec::count(&self.call(&ask.target, &ask.limit, penalise).await?)
    }

    async fn block(
        &self,
        ask: &Ask,
        penalty: Penalty,
        wait_ms: u64,
        age_ms: u64,
        reason: &str,
    ) -> Result<u64, Unavailable> {
        let block = Operation::block(penalty, wait_ms, age_ms, reason);
        codec::count(&self.call(&ask.target, &ask.limit, block).await?)
    }

    async fn lift(&self, target: &Target, limit: &Limit, lift: Lift) -> Result<bool, Unavailable> {
        let lifted = self.lane(target).0.call(limit, Operation::lift(lift)).await?;
        Ok(codec::count(&lifted)? == 1)
    }

    async fn observe(&self, ask: &Ask, told: Told) -> Result<(), Unavailable> {
        self.call(&ask.target, &ask.limit, Operation::observe(told)).await.map(|_| ())
    }

    async fn standing(&self, target: &Target, limit: &Limit) -> Result<Standing, Unavailable> {
        let (lane, _) = self.lane(target);
        codec::standing(lane.call(limit, Operation::standing()).await?)
    }

    async fn targets(&self) -> Result<Vec<Name>, Unavailable> {
        let from = self.now_ms() as f64 - LISTED_MS;
        let drop = redis::cmd("ZREMRANGEBYSCORE").arg(self.list()).arg("-inf").arg(from).to_owned();
        self.link.send(&drop).await.map_err(unavailable)?;
        let all = redis::cmd("ZRANGE").arg(self.list()).arg(0).arg(LANES_MAX).to_owned();
        let found = self.link.send(&all).await.map_err(unavailable)?;
        let mut names: Vec<String> = redis::from_redis_value(found).map_err(|_| codec::strange())?;
        names.sort_unstable();
        Ok(names.into_iter().map(Name::new).collect())
    }
}

fn unavailable(error: redis::RedisError) -> Unavailable {
    Unavailable(error.to_string())
}
