//! Whether a target may be called now, for one worker process: in front of the fleet's circuits, with what it learned of
//! them in the last second.
//!
//! A call of a target that works costs no question: its successes are told with the next one, at most a second later, and
//! each failure at once. When a circuit opens, the lanes of the target are put to sleep in the dispatcher until its time is
//! over, and then wake with one job at a time: nothing is claimed only to be given back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use queue_core::{
    breaker::{Ask, By, CIRCUITS_MAX, Change, End, Ended, KNOWN_MS, Leave, ProbeId, Refusal, State},
    credentials::{self, Credentials},
    dispatcher::Setting,
    error::{ErrorClass, JobError},
    ids::Name,
    retry::{Health, QUOTA_WAIT, rule},
    route::Target,
    stores::Stores,
    telemetry,
    time::Timestamp,
};
use tokio::task::JoinHandle;

use crate::keyless::Keyless;

/// How old successes may be that are told with the next call: what succeeded long ago says nothing of now.
const TOLD_MAX_MS: i64 = 10_000;
/// Time between two renewals of a probe: a third of its life.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How long a job waits for a target that an operator holds without an end, before it looks again.
const HELD_WAIT: Duration = Duration::from_secs(60);
/// Retries that a target may have saved up: what a short hiccup needs.
const RETRIES_MAX: u32 = 20;
/// Calls that earn one retry: so that of a target's calls at most a fifth are retries, whatever fails.
const CALLS_PER_RETRY: u32 = 5;

/// The circuits as this process knows them.
pub(crate) struct Breakers {
    stores: Stores,
    /// Lanes that sleep because a tenant has no key.
    pub(crate) keyless: Keyless,
    known: Mutex<HashMap<Name, Known>>,
}

/// What is known of a target.
struct Known {
    learned: Option<Timestamp>,
    /// Changes that ends of calls have told of: an answer that was on the way meanwhile is older than what they said.
    changes: u64,
    /// Why it may not be called, and until when that holds here.
    refused: Option<(Refusal, Option<Timestamp>)>,
    /// Calls that succeeded since the store was told.
    successes: u32,
    /// Parts of retries that its calls have earned.
    earned: u32,
}

impl Default for Known {
    fn default() -> Self {
        Self { learned: None, changes: 0, refused: None, successes: 0, earned: RETRIES_MAX * CALLS_PER_RETRY }
    }
}

impl Known {
    fn is_younger(&self, age_ms: i64, now: Timestamp) -> bool {
        self.learned.is_some_and(|at| now.since_ms(at) < age_ms)
    }

    /// The refusal that still holds, with the time that is left of it.
    fn standing_refusal(&self, now: Timestamp) -> Option<Refusal> {
        let (refusal, until) = self.refused.as_ref()?;
        let wait_ms = until.map(|until| until.since_ms(now) as u64);
        (wait_ms != Some(0)).then(|| Refusal { wait_ms, ..refusal.clone() })
    }
}

impl Breakers {
    pub(crate) fn new(stores: Stores, credentials: Arc<Credentials>) -> Self {
        Self { keyless: Keyless::new(stores.clone(), credentials), stores, known: Mutex::default() }
    }

    /// Leave to call `target`; else why not, as an error that spends no attempt. Whoever is let through says by
    /// [`Entered::end`] what became of the call.
    pub(crate) async fn enter(self: &Arc<Self>, target: &Target) -> Result<Entered, JobError> {
        let (name, account) = (target.name(), target.account());
        if let Some(known) = self.recall(&name) {
            return known.map(|()| self.entered(name, account, None)).map_err(|refusal| refused(target, &refusal));
        }
        let probe = ProbeId::generate();
        let successes = self.take_successes(&name);
        let changes = self.changes(&name);
        let ask = Ask { target: name.clone(), account: account.clone(), probe, successes };
        match self.stores.breakers.enter(ask).await {
            Ok(Leave::Given) => {
                self.learn_unless_changed(&name, None, changes);
                Ok(self.entered(name, account, None))
            }
            Ok(Leave::Probe { target, account: of_account }) => {
                tracing::info!(target = %name, "this call tries whether the target works again");
                let circuits = [target.then(|| name.clone()), of_account.then(|| account.clone())];
                let circuits: Vec<Name> = circuits.into_iter().flatten().collect();
                Ok(self.entered(name, account, Some(Probe::begin(self.stores.clone(), probe, circuits))))
            }
            Ok(Leave::Refused(refusal)) => {
                let is_news = self.learn_unless_changed(&name, Some(&refusal), changes);
                if is_news && refusal.by != By::Operator {
                    self.put_to_sleep(&name, &refusal).await;
                }
                Err(refused(target, &refusal))
            }
            Err(error) => {
                // What is known here still holds; where nothing is, a call more is better than none.
                tracing::warn!(%error, target = %name, "the breaker cannot be asked");
                let now = self.stores.clock.now();
                let known = self.known().get(&name).and_then(|known| known.standing_refusal(now));
                known.map_or_else(|| Ok(self.entered(name, account, None)), |refusal| Err(refused(target, &refusal)))
            }
        }
    }

    /// Whether a call of the target that failed may be made again at once: of its calls at most a fifth are retries.
    pub(crate) fn may_retry(&self, target: &Name) -> bool {
        let mut known = self.known();
        let known = known.entry(target.clone()).or_default();
        let may = known.earned >= CALLS_PER_RETRY;
        known.earned -= if may { CALLS_PER_RETRY } else { 0 };
        may
    }

    /// Puts a lane to sleep that is not the target's own: that of a chain of which nobody could be asked.
    pub(crate) async fn rest_lane(&self, lane: &Name, until: Timestamp, reason: &str) {
        let setting = Setting::TryTarget { target: lane.clone(), from: until, reason: reason.to_owned() };
        if let Err(error) = self.stores.dispatcher.apply(setting).await {
            tracing::warn!(%error, %lane, "a lane that has nobody to ask could not be put to sleep");
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Name, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known and fresh enough.
    fn recall(&self, target: &Name) -> Option<Result<(), Refusal>> {
        let now = self.stores.clock.now();
        let mut all = self.known();
        // Tenants choose the names of models where a provider serves all: what they made up goes again.
        if all.len() >= CIRCUITS_MAX && !all.contains_key(target) {
            all.retain(|_, known| known.is_younger(KNOWN_MS, now));
        }
        let known = all.entry(target.clone()).or_default();
        known.earned = (known.earned + 1).min(RETRIES_MAX * CALLS_PER_RETRY);
        if !known.is_younger(KNOWN_MS, now) {
            return None;
        }
        match (&known.refused, known.standing_refusal(now)) {
            (None, _) => Some(Ok(())),
            (Some(_), Some(refusal)) => Some(Err(refusal)),
            // Its time is over: someone may try it.
            (Some(_), None) => None,
        }
    }

    /// Learns what the store has answered, unless the end of a call has told something newer meanwhile.
    fn learn_unless_changed(&self, target: &Name, refusal: Option<&Refusal>, changes: u64) -> bool {
        let mut all = self.known();
        let known = all.entry(target.clone()).or_default();
        let is_news = known.changes == changes;
        if is_news {
            self.note(target, known, refusal);
        }
        is_news
    }

    /// Learns what the end of a call has told.
    fn hear(&self, target: &Name, refusal: Option<&Refusal>) {
        let mut all = self.known();
        let known = all.entry(target.clone()).or_default();
        known.changes += 1;
        self.note(target, known, refusal);
    }

    fn note(&self, target: &Name, known: &mut Known, refusal: Option<&Refusal>) {
        let now = self.stores.clock.now();
        known.learned = Some(now);
        known.refused =
            refusal.map(|refusal| (refusal.clone(), refusal.wait_ms.map(|ms| now.plus(Duration::from_millis(ms)))));
        let state = if refusal.is_some() { State::Open } else { State::Closed };
        // The breakers of tenants' own keys are shown by the API: no tenant has a name in metrics.
        if !credentials::is_of_tenant(target) {
            metrics::gauge!(telemetry::BREAKER_STATE, "target" => telemetry::target(target.as_str()))
                .set(f64::from(state.level()));
        }
    }

    fn changes(&self, target: &Name) -> u64 {
        self.known().get(target).map_or(0, |known| known.changes)
    }

    fn take_successes(&self, target: &Name) -> u32 {
        let mut all = self.known();
        let Some(known) = all.get_mut(target) else { return 0 };
        let told = std::mem::take(&mut known.successes);
        if known.is_younger(TOLD_MAX_MS, self.stores.clock.now()) { told } else { 0 }
    }

    fn entered(self: &Arc<Self>, target: Name, account: Name, probe: Option<Probe>) -> Entered {
        Entered { breakers: self.clone(), target, account, probe }
    }

    async fn put_to_sleep(&self, target: &Name, refusal: &Refusal) {
        let Some(from) = refusal.until else { return };
        let what = if refusal.by == By::Account { "quota" } else { "breaker" };
        self.rest_lane(target, from, &format!("{what}: {}", refusal.reason)).await;
    }

    async fn wake(&self, target: &Name) {
        let now = Timestamp(0);
        let setting = Setting::ParkTarget { target: target.clone(), until: now, reason: String::new() };
        if let Err(error) = self.stores.dispatcher.apply(setting).await {
            tracing::warn!(%error, %target, "its lanes wake one job at a time");
        }
    }

    /// Tells the store how a call ended, and everybody what follows.
    async fn tell(&self, target: &Name, circuit: &Name, probe: ProbeId, end: End, reason: String) {
        let successes = if target == circuit { self.take_successes(target) } else { 0 };
        let ended = Ended { circuit: circuit.clone(), probe, end, successes, reason };
        match self.stores.breakers.end(ended).await {
            Ok(Change::None) => {}
            Ok(Change::Opened(refusal)) => {
                tracing::warn!(%circuit, reason = %refusal.reason, wait_ms = refusal.wait_ms, "the breaker is open");
                self.hear(target, Some(&refusal));
                self.put_to_sleep(target, &refusal).await;
            }
            // The process that opened it has put its lanes to sleep.
            Ok(Change::StoodOpen(refusal)) => self.hear(target, Some(&refusal)),
            Ok(Change::Closed) => {
                tracing::info!(%circuit, "the breaker is closed again");
                self.hear(target, None);
                self.wake(target).await;
            }
            Err(error) => tracing::warn!(%error, %circuit, "the end of a call could not be told to the breaker"),
        }
    }
}

/// The error of a job whose target may not be called.
fn refused(target: &Target, refusal: &Refusal) -> JobError {
    let (class, code) = match refusal.by {
        By::Operator => (ErrorClass::Breaker, "target_held"),
        By::Failures => (ErrorClass::Breaker, "breaker_open"),
        By::Account => (ErrorClass::Quota, "account_exhausted"),
    };
    let wait_ms = refusal.wait_ms.unwrap_or(HELD_WAIT.as_millis() as u64);
    JobError::new(class, code, format!("{} is not asked: {}", target.name(), refusal.reason))
        .with_retry_after(Some(wait_ms))
}

/// Leave to make one call.
pub(crate) struct Entered {
    breakers: Arc<Breakers>,
    target: Name,
    account: Name,
    probe: Option<Probe>,
}

impl Entered {
    /// Says what became of the call. One that is dropped without a word says nothing: if it was a probe's, its place is
    /// free when its time is over.
    pub(crate) async fn end(self, outcome: Result<(), &JobError>) {
        let Self { breakers, target, account, probe } = self;
        let health = outcome.err().map(|error| rule(error.class).health);
        // All tenants and the log hear of it: never a word of the provider's own, which may be the caller's.
        let reason = || outcome.err().map(|error| format!("{} ({})", error.class, error.code)).unwrap_or_default();
        let end = match health {
            None => End::Success,
            Some(Health::Failure) => End::Failure,
            Some(Health::Answered) => End::Answered,
            Some(Health::Unknown) => End::Unknown,
        };
        let exhausted = outcome.err().filter(|error| error.class == ErrorClass::Quota);
        let (id, of_target, of_account) = match &probe {
            Some(probe) => (probe.id, probe.is_of(&target), probe.is_of(&account)),
            None => (ProbeId::generate(), false, false),
        };
        if of_target || end == End::Failure {
            breakers.tell(&target, &target, id, end, reason()).await;
        } else if end == End::Success {
            let mut known = breakers.known();
            let known = known.entry(target.clone()).or_default();
            known.successes = known.successes.saturating_add(1);
        }
        if let Some(error) = exhausted {
            let for_ms =
                error.retry_after_ms.unwrap_or(QUOTA_WAIT.as_millis() as u64).max(QUOTA_WAIT.as_millis() as u64);
            breakers.tell(&target, &account, id, End::Exhausted(for_ms), reason()).await;
        } else if of_account {
            // A server that fails says nothing of the account.
            let end = if end == End::Failure { End::Unknown } else { end };
            breakers.tell(&target, &account, id, end, reason()).await;
        }
    }

    /// Says that no call is made, so that another may try what this one would have tried.
    pub(crate) async fn give_back(self) {
        let Some(probe) = &self.probe else { return };
        for circuit in &probe.circuits {
            self.breakers.tell(&self.target, circuit, probe.id, End::Unknown, String::new()).await;
        }
    }
}

/// The one call that tries circuits, kept known for as long as it runs.
struct Probe {
    id: ProbeId,
    circuits: Vec<Name>,
    renewing: JoinHandle<()>,
}

impl Probe {
    fn begin(stores: Stores, id: ProbeId, circuits: Vec<Name>) -> Self {
        let renewed = circuits.clone();
        let renewing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEW_EVERY).await;
                if let Err(error) = stores.breakers.renew(&renewed, id).await {
                    tracing::warn!(%error, "the call that tries a target could not be renewed");
                }
            }
        });
        Self { id, circuits, renewing }
    }

    fn is_of(&self, circuit: &Name) -> bool {
        self.circuits.contains(circuit)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}
