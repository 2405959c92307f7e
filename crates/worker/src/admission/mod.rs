//! The one place around a provider call: whether it may be made now, and what the fleet learns from how it ended.
//!
//! `admit` asks the fleet's limiter. A wait of a few seconds is waited for in place; a longer one gives the job back without
//! spending an attempt and *parks* its target, so that claims skip it and others flow on. `end` settles what was reserved,
//! and tells the fleet of a refusal: the target is then left alone by every worker, those included that wait in place.
//!
//! Parking is the dispatcher's, and a dispatcher that forgets everything forgets it too. So blocks are kept by the limiter,
//! and by the workers that saw them, which make them known again (`Gate::keep`).
//!
//! What else decides about a call (a breaker, a budget) stands beside `Gate::admit` and ends in the same [`JobError`].

mod estimate;
mod memory;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use queue_core::{
    dispatcher::{DispatchError, Dispatcher, Setting},
    error::{ErrorClass, JobError},
    ids::{CallId, Name},
    journal::Catalog,
    ledger::{Billed, Usage},
    limiter::{self, Ask, Cause, Charges, InForce, LIMITED, Limiter, Limits, PARKED, Penalty, Told, Used, Verdict},
    route::Target,
    stores::Stores,
    telemetry,
    time::Clock,
};
use tokio_util::sync::CancellationToken;

pub use estimate::Estimate;
pub(crate) use estimate::{Alike, Answers, of_chat, of_inputs};

use self::memory::{Blocks, Most, Paces};
use crate::provider::CallError;

/// How long a target is left alone that refused and did not say for how long.
const RATE_WAIT_MS: u64 = 1_000;
/// The longest wish for a pause that is obeyed: beyond it, a provider's clock is wrong.
const RATE_WAIT_MAX_MS: u64 = 3_600_000;
/// A target is parked for so long at least: a moment that has passed when the dispatcher hears of it would wake the target,
/// also from what others have parked it for.
const PARK_LEAST_MS: u64 = 250;
/// Of the time that an attempt has left, a call waits in place for one part in so many: the others are for the call.
const WAIT_PART: u64 = 4;
/// How long a credential is left alone that is out of money: nobody pays a bill faster.
const QUOTA_WAIT_MS: u64 = 15 * 60 * 1_000;
/// Time between two looks at what may have been forgotten.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Looks after which the workers are counted anew.
const COUNT_WORKERS_EVERY: u32 = 5;
/// Looks after which it is read what operators have set: of a few rows, by each worker.
const READ_LIMITS_EVERY: u32 = 2;

/// The gate of this process, before every provider.
pub struct Gate {
    limiter: Arc<dyn Limiter>,
    limits: Arc<InForce>,
    /// The limits that targets wait for here: of before a change, until it is followed.
    followed: Mutex<Arc<Limits>>,
    dispatcher: Arc<dyn Dispatcher>,
    clock: Arc<dyn Clock>,
    answers: Answers,
    paces: Paces,
    blocks: Blocks,
}

/// A call that wants to be made.
pub(crate) struct Wish<'a> {
    pub(crate) target: &'a Target,
    /// What its job is claimed by.
    pub(crate) lane_target: &'a Name,
    pub(crate) call: CallId,
    pub(crate) estimate: Estimate,
    /// Calls that a job makes at once: those of its job that want to be made or are under way, this one included. Below 1
    /// where it is made for several jobs.
    pub(crate) beside: f64,
    /// How long the attempt may go on.
    pub(crate) left: Duration,
    /// Whether it comes back if it is told to come later, and does not go to another model.
    pub(crate) keeps_place: bool,
    pub(crate) stop: &'a CancellationToken,
}

/// How an admitted call ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// Tokens as its provider counted them.
    usage: Option<Usage>,
    failure: Option<Failure>,
    told: Told,
    took: Duration,
}

#[derive(Clone, Debug)]
struct Failure {
    class: ErrorClass,
    code: String,
    retry_after_ms: Option<u64>,
    billed: Billed,
}

impl Ended {
    /// `usage` and `told` of a call that brought an answer.
    pub(crate) fn well(usage: Option<Usage>, told: Told, took: Duration) -> Self {
        Self { usage, failure: None, told, took }
    }

    /// One that did not.
    pub(crate) fn badly(failed: &CallError, took: Duration) -> Self {
        let error = &failed.error;
        let failure = Failure {
            class: error.class,
            code: error.code.clone(),
            retry_after_ms: error.retry_after_ms,
            billed: failed.billed,
        };
        Self {
            usage: failed.usage,
            failure: Some(failure),
            told: failed.told.as_deref().copied().unwrap_or_default(),
            took,
        }
    }
}

/// A call that may be made. If it is dropped before [`Pass::sends`], what was reserved goes back; after it, the reservation
/// stands, since the call may have been made.
pub(crate) struct Pass {
    reserved: Option<Reserved>,
    estimate: Estimate,
}

struct Reserved {
    limiter: Arc<dyn Limiter>,
    ask: Ask,
    sent: bool,
}

impl Reserved {
    fn unsent(&self) -> Used {
        Used { reserved: self.ask.tokens, tokens: 0, sent: false, took_ms: None, answered: false }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.sent {
            return;
        }
        let (limiter, ask, used) = (self.limiter.clone(), self.ask.clone(), self.unsent());
        // Without a runtime the process ends, and the reservation stays charged like that of any dead worker.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { limiter.settle(&ask, used).await });
        }
    }
}

impl Pass {
    /// From here on the call may reach its provider.
    pub(crate) fn sends(&mut self) {
        if let Some(reserved) = &mut self.reserved {
            reserved.sent = true;
        }
    }
}

impl Gate {
    /// A gate with these limits.
    pub fn new(stores: &Stores, limiter: Arc<dyn Limiter>, limits: Arc<InForce>) -> Self {
        Self::of(limiter, limits, stores.dispatcher.clone(), stores.clock.clone())
    }

    fn of(
        limiter: Arc<dyn Limiter>,
        limits: Arc<InForce>,
        dispatcher: Arc<dyn Dispatcher>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            limiter,
            followed: Mutex::new(limits.now()),
            limits,
            dispatcher,
            clock,
            answers: Answers::default(),
            paces: Paces::default(),
            blocks: Blocks::default(),
        }
    }

    /// Whether calls of this target are asked about at all, and whether their tokens are.
    pub(crate) fn wants_tokens(&self, target: &Target) -> bool {
        self.limits.now().of(target).is_some_and(|limit| limit.tokens_per_minute.is_some())
    }

    /// How long answers of this kind are.
    pub(crate) fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Lets a call pass, at once or after a short wait in place, or says why not: then the job goes back to its queue.
    pub(crate) async fn admit(&self, wish: Wish<'_>) -> Result<Pass, JobError> {
        let limits = self.limits.now();
        let Some(limit) = limits.of(wish.target) else {
            return Ok(Pass { reserved: None, estimate: wish.estimate });
        };
        let ask = Ask {
            // An attempt that has little time is put back, with its place in the line, and waits outside of its time.
            wait_max_ms: u64::try_from(wish.left.as_millis()).unwrap_or(u64::MAX) / WAIT_PART,
            keeps_place: wish.keeps_place,
            ..Ask::new(wish.target.clone(), limit, wish.call.0, wish.estimate.tokens())
        };
        let answer = match self.limiter.reserve(&ask).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%error, target = %wish.target.name(), "no answer from the limiter: the job waits");
                return Err(self.refuse(&wish, 0, 0, &Cause::Away).await);
            }
        };
        self.keep_pace(&wish, &limits, answer.pace);
        match answer.verdict {
            Verdict::Go { wait_ms } => {
                let reserved = Reserved { limiter: self.limiter.clone(), ask, sent: false };
                if wait_ms > 0 {
                    self.wait(&wish, &reserved.ask, wait_ms).await?;
                }
                Ok(Pass { reserved: Some(reserved), estimate: wish.estimate })
            }
            Verdict::Later { wait_ms, open_ms, cause, .. } => Err(self.refuse(&wish, wait_ms, open_ms, &cause).await),
        }
    }

    /// Waits in place, and asks whether the target was blocked meanwhile.
    async fn wait(&self, wish: &Wish<'_>, ask: &Ask, wait_ms: u64) -> Result<(), JobError> {
        count_wait(wish.target);
        let wait = Duration::from_millis(wait_ms);
        if wait > wish.left {
            let message = format!("the limit lets it in after {wait:?}, and the attempt ends before");
            return Err(JobError::new(ErrorClass::Rate, LIMITED, message).with_retry_after(Some(wait_ms)));
        }
        tokio::select! {
            () = wish.stop.cancelled() => {
                let message = "the call was stopped before it was made";
                return Err(JobError::new(ErrorClass::Internal, "cancelled", message));
            }
            () = tokio::time::sleep(wait) => {}
        }
        match self.limiter.confirm(ask).await {
            Ok(Some((wait_ms, cause))) => Err(self.refuse(wish, wait_ms, wait_ms, &cause).await),
            Ok(None) => Ok(()),
            Err(error) => {
                // Granted is granted: what this process knows of blocks, it was told itself.
                tracing::debug!(%error, "a granted call goes without a last question");
                Ok(())
            }
        }
    }

    /// Parks the target, and says why the job goes back.
    async fn refuse(&self, wish: &Wish<'_>, wait_ms: u64, open_ms: u64, cause: &Cause) -> JobError {
        count_wait(wish.target);
        let name = wish.target.name();
        let parked = *cause != Cause::Away && self.park(&name, open_ms, &cause.words()).await;
        let code = if parked && name == *wish.lane_target { PARKED } else { LIMITED };
        let message = format!("{name} waits for {}", cause.words());
        JobError::new(ErrorClass::Rate, code, message).with_retry_after(Some(wait_ms.max(RATE_WAIT_MS)))
    }

    async fn park(&self, target: &Name, for_ms: u64, reason: &str) -> bool {
        let until = self.clock.now().plus(Duration::from_millis(for_ms.max(PARK_LEAST_MS)));
        let park = Setting::ParkTarget { target: target.clone(), until, reason: reason.to_owned() };
        match self.dispatcher.apply(park).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, %target, "the target is not parked: its jobs are turned away one by one");
                false
            }
        }
    }

    /// Lets no more jobs of the target be claimed than there is room for their calls.
    fn keep_pace(&self, wish: &Wish<'_>, limits: &Limits, pace: Option<u32>) {
        let (name, most) = (wish.target.name(), most_of(limits, wish.target));
        let Some(jobs) = self.paces.changed(&name, pace, wish.beside, most, Instant::now()) else {
            return;
        };
        let (dispatcher, setting) = (self.dispatcher.clone(), Setting::TargetConcurrency(name, jobs));
        // Nobody waits for it: at worst more is claimed than fits, and turned away.
        tokio::spawn(async move { note_pace(dispatcher.apply(setting).await) });
    }

    /// Reads what operators have set, for a worker that begins and then now and then.
    pub(crate) async fn refresh(&self, catalog: &dyn Catalog) {
        match catalog.targets().await {
            Ok(settings) => self.limits.learn(&settings),
            Err(error) => {
                tracing::warn!(%error, "it was not read what operators have set of limits; the old ones hold")
            }
        }
    }

    /// Lets what waits for limits that have changed wait for those of now.
    async fn follow(&self) {
        let (before, now) = (self.followed().clone(), self.limits.now());
        if Arc::ptr_eq(&before, &now) {
            return;
        }
        let changed = match limiter::follow(&*self.limiter, &*self.dispatcher, &before, &now).await {
            Ok(changed) => changed,
            Err(error) => return tracing::warn!(%error, "limits have changed, and their lines wait as before"),
        };
        for (target, standing) in changed {
            tracing::info!(target = %target.name(), limit = ?now.of(&target), "an operator has changed a limit");
            let (name, most) = (target.name(), most_of(&now, &target));
            if let Some(jobs) = self.paces.anew(&name, standing.pace, most, Instant::now()) {
                note_pace(self.dispatcher.apply(Setting::TargetConcurrency(name, jobs)).await);
            }
        }
        *self.followed() = now;
    }

    fn followed(&self) -> MutexGuard<'_, Arc<Limits>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settles what was reserved, and tells the fleet what the provider said.
    pub(crate) async fn end(&self, pass: Pass, alike: &Alike, ended: Ended) {
        let Pass { reserved, estimate } = pass;
        let Some(mut reserved) = reserved else { return };
        if let (Some(usage), None) = (ended.usage, &ended.failure) {
            self.answers.learn(alike, usage.tokens_out);
        }
        reserved.sent = true;
        let ask = &reserved.ask;
        let used = used(ask, estimate, &ended);
        if let (Some(usage), true) = (ended.usage, ask.tokens > 0 && ended.failure.is_none()) {
            let ratio = usage.tokens_in.saturating_add(usage.tokens_out) as f64 / ask.tokens as f64;
            metrics::histogram!(telemetry::LIMITER_ESTIMATE_RATIO).record(ratio);
        }
        let observe = async {
            if !ended.told.is_empty() {
                note(self.limiter.observe(ask, ended.told).await);
            }
        };
        let settle = async { note(self.limiter.settle(ask, used).await) };
        let penalise = async {
            if let Some(failure) = &ended.failure {
                self.penalise(ask, failure).await;
            }
        };
        tokio::join!(settle, observe, penalise);
    }

    /// What a refusal means for the fleet.
    async fn penalise(&self, ask: &Ask, failure: &Failure) {
        let (penalty, wait_ms) = match failure.class {
            ErrorClass::Rate => {
                (Penalty::Rate, failure.retry_after_ms.unwrap_or(RATE_WAIT_MS).clamp(1, RATE_WAIT_MAX_MS))
            }
            ErrorClass::Quota => (Penalty::Quota, QUOTA_WAIT_MS),
            _ => return,
        };
        let name = ask.target.name();
        let reason = match penalty {
            Penalty::Rate => format!("its provider refused it ({}) and asked for {wait_ms} ms of pause", failure.code),
            Penalty::Quota => format!("its credential is out of money or over its quota ({})", failure.code),
        };
        tracing::warn!(target = %name, wait_ms, code = failure.code, "a provider refuses: the fleet leaves it alone");
        let until = Instant::now() + Duration::from_millis(wait_ms);
        self.blocks.note(ask.clone(), penalty, until, reason.clone());
        let blocked_ms = match self.limiter.penalise(ask, penalty, wait_ms, &reason).await {
            Ok(blocked_ms) => blocked_ms,
            Err(error) => {
                tracing::warn!(%error, "the fleet does not hear of it yet");
                wait_ms
            }
        };
        self.park(&name, blocked_ms, &reason).await;
    }

    /// Hears of changed limits, makes blocks known again that this process knows of, and counts the workers, until `end`
    /// fires.
    pub(crate) async fn keep(&self, catalog: &dyn Catalog, end: &CancellationToken) {
        let mut looks = 0_u32;
        loop {
            if looks.is_multiple_of(COUNT_WORKERS_EVERY)
                && let Ok(present) = self.dispatcher.sessions(&[]).await
            {
                self.limiter.note_workers(present.alive.len());
            }
            if looks.is_multiple_of(READ_LIMITS_EVERY) {
                self.refresh(catalog).await;
            }
            self.follow().await;
            self.tell_blocks().await;
            looks = looks.wrapping_add(1);
            tokio::select! {
                () = end.cancelled() => return,
                // What the API of this process has set.
                () = self.limits.changed() => {}
                () = tokio::time::sleep(KEEP_EVERY) => {}
            }
        }
    }

    async fn tell_blocks(&self) {
        for block in self.blocks.active(Instant::now()) {
            let target = block.ask.target.name();
            let told = self.limiter.block(&block.ask, block.penalty, block.left_ms, block.age_ms, &block.reason).await;
            match told {
                Ok(0) => {
                    tracing::info!(%target, "an operator has lifted a block");
                    self.blocks.forget(&block);
                }
                Ok(left_ms) => drop(self.park(&target, left_ms, &block.reason).await),
                Err(error) => {
                    tracing::debug!(%error, "the limiter was not told");
                    self.park(&target, block.left_ms, &block.reason).await;
                }
            }
        }
    }
}

/// Jobs of a target that may run at once, whatever its pace.
fn most_of(limits: &Limits, target: &Target) -> Most {
    let jobs = limits.of(target).and_then(|limit| limit.concurrency);
    Most { jobs, is_its_own: limits.has_own_concurrency(target) }
}

fn note_pace(told: Result<(), DispatchError>) {
    if let Err(error) = told {
        tracing::debug!(%error, "the pace of a target was not told");
    }
}

/// What the provider counts of a call.
fn used(ask: &Ask, estimate: Estimate, ended: &Ended) -> Used {
    let kept = Used {
        reserved: ask.tokens,
        tokens: ask.tokens,
        sent: true,
        took_ms: Some(u64::try_from(ended.took.as_millis()).unwrap_or(u64::MAX)),
        answered: true,
    };
    let counted = |usage: Usage| {
        let out = match ask.limit.tokens_charged {
            Charges::Admission => usage.tokens_out.max(estimate.tokens_out_max.unwrap_or(0)),
            Charges::Usage => usage.tokens_out,
        };
        usage.tokens_in.saturating_add(out)
    };
    match (&ended.failure, ended.usage) {
        (None, usage) => Used { tokens: usage.map_or(ask.tokens, counted), ..kept },
        (Some(failure), usage) => {
            // A failure says nothing about how long calls take.
            let kept = Used { took_ms: None, answered: false, ..kept };
            match failure.class {
                ErrorClass::TransportPre => Used { tokens: 0, sent: false, ..kept },
                // Refused at the door: the request counts, its tokens do not.
                ErrorClass::Rate | ErrorClass::Quota => Used { tokens: 0, ..kept },
                _ if failure.billed == Billed::Yes => Used { tokens: usage.map_or(ask.tokens, counted), ..kept },
                // Nobody can know what was counted, so all of it was.
                _ => kept,
            }
        }
    }
}

fn note(done: Result<(), limiter::Unavailable>) {
    if let Err(error) = done {
        tracing::debug!(%error, "the limiter was not told");
    }
}

fn count_wait(target: &Target) {
    metrics::counter!(telemetry::LIMITER_WAITS, "target" => telemetry::target(target.label().as_str())).increment(1);
}

#[cfg(test)]
mod tests;
