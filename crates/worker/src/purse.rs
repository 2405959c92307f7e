//! Whether the money for a provider call is there: for the job (its own cap), its key, its tenant and the installation. What a
//! call may cost at most is reserved in all of them or in none, and becomes what it did cost once its ledger row is written.
//!
//! Where calls under way stand in the way, one call of each budget and process waits for room and the others behind it, for
//! `WAIT_MAX` at most, while the tenant's lanes sleep. Where there will be no room before the period ends, the budget says what
//! follows. A fleet's counters that cannot be asked let nobody pass.

mod cap;
mod hold;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use queue_core::{
    budget::{
        Amount, Applies, Ask, AtLimit, FRESH, Known, LIFE_LOOK_MS, PARK_MS, RENEW_MAX, RENEW_MS, Refusal, Scope,
        UnderWay, Verdict, fill,
    },
    dispatcher::Setting,
    error::{ErrorClass, JobError},
    ids::{CallId, Name},
    job::Job,
    ledger::{PriceBook, Tier, Usage},
    stores::Stores,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use self::{
    cap::Cap,
    hold::{Hold, Paid},
};

/// The code of an error that says: the lanes of the job's tenant sleep, so the job may keep its place in its own.
pub(crate) const BUDGET_PARKED: &str = "budget_parked";
/// The job alone sleeps until there may be room.
const BUDGET_WAIT: &str = "budget_wait";
/// The budget's jobs are to fail.
const BUDGET_EXHAUSTED: &str = "budget_exhausted";
/// Nobody knows what the call costs.
const PRICE_UNKNOWN: &str = "price_unknown";
/// The counters cannot be asked.
const BUDGET_AWAY: &str = "budget_away";

/// Longest wait for room in place: a job that waits holds a slot and a lease.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Time between two looks of whoever is first in line.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// How long a job waits for counters that cannot be asked.
const AWAY_WAIT_MS: u64 = 6_000;
/// A tenant is put to sleep at most so often by one process.
const PARK_EVERY: Duration = Duration::from_millis(500);
/// Most budgets and tenants that are remembered; beyond it, those that nobody uses are forgotten.
const REMEMBERED_MAX: usize = 10_000;
/// Times that one call makes counters known before it gives up: each may find that they were forgotten once more.
const FILLS_MAX: u32 = 20;

/// What happens to a call whose price nobody knows where money is limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownPrice {
    /// It is not made: its job is a dead letter.
    #[default]
    Refuse,
    /// It counts as free.
    Allow,
}

/// The money of this process' calls.
pub struct Purse {
    stores: Stores,
    known: Arc<Known>,
    prices: Arc<PriceBook>,
    unknown_price: UnknownPrice,
    under_way: Mutex<HashMap<Uuid, UnderWay>>,
    /// Who waits for what calls under way give back: one of this process asks, the others wait behind.
    lines: Locks,
    /// Who reads a budget's sums from the ledger. Apart from the lines: the first of a line may have to read.
    readers: Locks,
    parked_at: Mutex<HashMap<Name, Instant>>,
}

/// A call that wants to be paid for.
pub(crate) struct Wish<'a> {
    pub(crate) job: &'a Job,
    /// Which call, and the try of it.
    pub(crate) call: (CallId, u32),
    pub(crate) model: &'a str,
    pub(crate) tier: Tier,
    /// What it uses at most.
    pub(crate) usage: Usage,
    /// Whether nobody else may be asked if there is no room: then it is waited for, and the tenant's lanes sleep.
    pub(crate) is_last: bool,
    pub(crate) cap: Option<&'a Arc<Cap>>,
    pub(crate) stop: &'a CancellationToken,
    /// How long the attempt may go on.
    pub(crate) left: Duration,
}

impl Wish<'_> {
    /// One id for one call that is really made: a worker that was taken for dead and its successor are two.
    fn reservation(&self) -> Uuid {
        let (call, tried) = self.call;
        Uuid::new_v5(&call.0, format!("reserved\u{1f}{}\u{1f}{tried}", self.job.epoch.0).as_bytes())
    }

    fn stopped() -> JobError {
        JobError::new(ErrorClass::Internal, "cancelled", "the call was stopped before it was made")
    }
}

impl Purse {
    /// The purse of a process. `known` has to be kept fresh by `Purse::keep`.
    pub fn new(stores: Stores, known: Arc<Known>, prices: Arc<PriceBook>, unknown_price: UnknownPrice) -> Self {
        Self {
            stores,
            known,
            prices,
            unknown_price,
            under_way: Mutex::default(),
            lines: Locks::default(),
            readers: Locks::default(),
            parked_at: Mutex::default(),
        }
    }

    /// The budgets that a job falls under.
    pub(crate) fn applies(&self, job: &Job) -> Applies {
        self.known.applies(&job.tenant, job.key_id.as_ref())
    }

    /// Whether calls of the job are counted at all.
    pub(crate) fn counts(&self, job: &Job) -> bool {
        job.max_cost.is_some() || !self.applies(job).0.is_empty()
    }

    /// Takes what a call may cost at most, at once or after a short wait in place, or says why not.
    pub(crate) async fn take(self: &Arc<Self>, wish: Wish<'_>) -> Result<Hold, JobError> {
        let applies = self.applies(wish.job);
        let mut hold = Hold::of(self.clone());
        if applies.0.is_empty() && wish.cap.is_none() {
            return Ok(hold);
        }
        let cost = self.prices.cost_in(wish.tier, wish.model, &wish.usage);
        let money_counts = wish.cap.is_some() || applies.limits_money();
        if cost.is_none() && money_counts && self.unknown_price == UnknownPrice::Refuse {
            let message = format!(
                "nobody knows what {} costs, and money is limited; give it a price, or a default price to all",
                wish.model
            );
            return Err(JobError { retryable: false, ..JobError::new(ErrorClass::Budget, PRICE_UNKNOWN, message) });
        }
        let amount = Amount::of(cost, &wish.usage);
        if let Some(cap) = wish.cap {
            cap.take(amount.usd, wish.stop, wish.left.min(WAIT_MAX)).await?;
            hold.holds_cap(cap.clone(), amount.usd);
        }
        if !applies.0.is_empty() {
            let scopes = applies.0.iter().map(|(scope, _)| scope.clone()).collect();
            let ask = Ask { call: wish.reservation(), amount, budgets: applies.0 };
            self.reserve(&wish, &ask).await?;
            hold.holds(UnderWay { call: ask.call, amount, scopes });
        }
        Ok(hold)
    }

    async fn reserve(&self, wish: &Wish<'_>, ask: &Ask) -> Result<(), JobError> {
        let patience = Instant::now() + wish.left.min(WAIT_MAX);
        let refusal = match self.ask(wish, ask, patience).await? {
            None => return Ok(()),
            Some(refusal) => refusal,
        };
        if !refusal.is_passing() || !wish.is_last {
            return Err(self.refused(wish, ask, &refusal).await);
        }
        // What calls under way have reserved comes back as they end: nobody else is claimed for it meanwhile.
        self.rest_lanes(&wish.job.tenant, &refusal, ask.amount).await;
        let line = lock_of(&self.lines, &refusal.scope);
        let left = patience.saturating_duration_since(Instant::now());
        let Ok(_first) = tokio::time::timeout(left, line.lock()).await else {
            return Err(self.refused(wish, ask, &refusal).await);
        };
        loop {
            let refusal = match self.ask(wish, ask, patience).await? {
                None => return Ok(()),
                Some(refusal) => refusal,
            };
            if !refusal.is_passing() || Instant::now() >= patience {
                return Err(self.refused(wish, ask, &refusal).await);
            }
            tokio::select! {
                () = wish.stop.cancelled() => return Err(Wish::stopped()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Asks the counters, and makes them known where they are not; `None`: reserved.
    async fn ask(&self, wish: &Wish<'_>, ask: &Ask, patience: Instant) -> Result<Option<Refusal>, JobError> {
        for _ in 0..FILLS_MAX {
            let verdict = self.stores.counters.reserve(ask).await.map_err(|error| away(&error.to_string()))?;
            match verdict {
                Verdict::Granted => return Ok(None),
                Verdict::Refused(refusal) => return Ok(Some(refusal)),
                Verdict::Forgotten => {
                    tracing::warn!("the budgets' counters are empty: they are read from the ledger");
                    self.stores.counters.begin().await.map_err(|error| away(&error.to_string()))?;
                }
                Verdict::Closed { wait_ms } => {
                    let wait = Duration::from_millis(wait_ms);
                    if Instant::now() + wait > patience {
                        return Err(away(
                            "they were forgotten, and are closed until every worker has said what it pays",
                        ));
                    }
                    tokio::select! {
                        () = wish.stop.cancelled() => return Err(Wish::stopped()),
                        () = tokio::time::sleep(wait) => {}
                    }
                }
                Verdict::Unknown(scopes) => {
                    for scope in scopes {
                        // One of this process reads; the others find it read.
                        let reader = lock_of(&self.readers, &scope);
                        let _one = reader.lock().await;
                        let standing = self.stores.counters.standing(&scope).await;
                        if standing.map_err(|error| away(&error.to_string()))?.is_some_and(|standing| standing.known) {
                            continue;
                        }
                        fill(&self.stores, &scope).await.map_err(|error| away(&error.to_string()))?;
                    }
                }
            }
        }
        Err(away("they are forgotten again and again"))
    }

    /// The error of a call for which there is no room; its tenant's lanes sleep where that is what follows.
    async fn refused(&self, wish: &Wish<'_>, ask: &Ask, refusal: &Refusal) -> JobError {
        let now = self.stores.clock.now();
        let error = |code: &str| JobError::new(ErrorClass::Budget, code, refusal.words());
        let at_limit = ask.budgets.iter().find(|(scope, _)| *scope == refusal.scope).map(|(_, budget)| &budget.value);
        if !refusal.is_passing() && at_limit.is_some_and(|budget| budget.at_limit == AtLimit::Fail) {
            return JobError { retryable: false, ..error(BUDGET_EXHAUSTED) };
        }
        let wait_ms = if refusal.is_passing() { RENEW_MS } else { refusal.until.since_ms(now) };
        let wait_ms = u64::try_from(wait_ms).ok();
        if !wish.is_last {
            return error(BUDGET_WAIT).with_retry_after(wait_ms);
        }
        let is_for_all_its_jobs =
            !matches!(refusal.scope, Scope::Key(_)) && (refusal.is_passing() || refusal.is_used_up());
        if is_for_all_its_jobs && self.rest_lanes(&wish.job.tenant, refusal, ask.amount).await {
            return error(BUDGET_PARKED).with_retry_after(wait_ms);
        }
        error(BUDGET_WAIT).with_retry_after(wait_ms)
    }

    /// Puts the lanes of a tenant to sleep until there is room. Returns whether they sleep.
    async fn rest_lanes(&self, tenant: &Name, refusal: &Refusal, amount: Amount) -> bool {
        if matches!(refusal.scope, Scope::Key(_)) {
            return false;
        }
        {
            let mut parked_at = locked(&self.parked_at);
            if parked_at.len() >= REMEMBERED_MAX {
                parked_at.retain(|_, at| at.elapsed() < PARK_EVERY);
            }
            if parked_at.get(tenant).is_some_and(|at| at.elapsed() < PARK_EVERY) {
                return true;
            }
            parked_at.insert(tenant.clone(), Instant::now());
        }
        let (now, reason) = (self.stores.clock.now(), refusal.words());
        // Noted first: what sleeps without a note is woken by nobody.
        let noted = self.stores.counters.park(tenant, &refusal.scope, amount, refusal.until, &reason).await;
        let until = refusal.until.min(now.plus_ms(PARK_MS));
        let park = Setting::ParkTenant { tenant: tenant.clone(), until, reason };
        let parked = match noted {
            Ok(()) => self.stores.dispatcher.apply(park).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = &parked {
            tracing::warn!(%error, %tenant, "a tenant without money is not put to sleep: its jobs are turned away one by one");
            locked(&self.parked_at).remove(tenant);
        }
        parked.is_ok()
    }

    /// Keeps budgets known and reservations alive, until `end` fires.
    pub(crate) async fn keep(&self, end: &CancellationToken) {
        let (mut life, mut renewed_at) = (None, Instant::now());
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(FRESH.min(Duration::from_millis(LIFE_LOOK_MS as u64))) => {}
            }
            if let Err(error) = self.known.refresh().await {
                tracing::warn!(%error, "the budgets are those of a moment ago");
            }
            let under_way: Vec<UnderWay> = locked(&self.under_way).values().cloned().collect();
            if under_way.is_empty() {
                // Nothing to assert: whatever life this is.
                life = None;
                continue;
            }
            let seen = self.stores.counters.renew(&[]).await;
            let is_new = matches!(&seen, Ok(seen) if *seen != life);
            if !is_new && renewed_at.elapsed() < Duration::from_millis(RENEW_MS as u64) {
                continue;
            }
            let mut told = seen;
            for part in under_way.chunks(RENEW_MAX) {
                told = self.stores.counters.renew(part).await;
                if told.is_err() {
                    break;
                }
            }
            match told {
                Ok(told) => (life, renewed_at) = (told, Instant::now()),
                Err(error) => tracing::warn!(%error, "reservations of calls under way are not renewed"),
            }
        }
    }

    /// Reads budgets for the first time.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }
}

/// The error of a job whose budgets cannot be asked.
fn away(why: &str) -> JobError {
    let message = format!("the budgets' counters cannot be asked: {why}");
    JobError::new(ErrorClass::Budget, BUDGET_AWAY, message).with_retry_after(Some(AWAY_WAIT_MS))
}

/// One lock for each budget.
type Locks = Mutex<HashMap<Scope, Arc<tokio::sync::Mutex<()>>>>;

fn lock_of(locks: &Locks, scope: &Scope) -> Arc<tokio::sync::Mutex<()>> {
    let mut locks = locked(locks);
    if locks.len() >= REMEMBERED_MAX {
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
    }
    locks.entry(scope.clone()).or_default().clone()
}

/// What was being done when a holder of the lock panicked is still whole: each critical section is one change of a map.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
