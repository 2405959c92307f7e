//! One attempt, from a loaded job to its settle: resolve → admit → run → judge → settle → give up the claim.

use std::{any::Any, sync::Arc, time::Duration};

use bytes::Bytes;
use queue_core::{
    archive::ObjectsError,
    bodies::Part,
    dispatcher::{Entry, HORIZON_MS, Suspicion},
    error::{ErrorClass, JobError},
    events::EventBody,
    ids::{Name, SessionId},
    job::{Job, Kind, Loaded},
    journal::{Due, JournalError, Outcome, Settled, Settlement},
    ledger::Nanousd,
    limiter::PARKED,
    retry::{self, Budget, Decision},
    state::{Standing, State},
    stores::Stores,
    telemetry,
    time::Timestamp,
    traces::{self, Settling},
};
use tokio_util::sync::CancellationToken;

use crate::{
    abandoned::Abandoned,
    backend::Claimed,
    breaker::Breakers,
    context::{Handler, JobContext, Surroundings},
    handlers::Handlers,
    handling::Handling,
    leases::{Held, Leases, Stop},
    line::{Attempt, Bill},
    meters::{Meters, error_of},
    patience::until_available,
    purse::{BUDGET_PARKED, Paid},
    timeouts::Timeouts,
    traced,
};

/// What every attempt of this worker shares.
pub(crate) struct Pipeline {
    pub(crate) around: Surroundings,
    pub(crate) breakers: Arc<Breakers>,
    pub(crate) handlers: Handlers,
    pub(crate) session: SessionId,
    pub(crate) leases: Arc<Leases>,
    pub(crate) abandoned: Arc<Abandoned>,
    pub(crate) timeouts: Arc<Timeouts>,
    pub(crate) meters: Meters,
}

/// How the handler's part of an attempt ended.
enum Ran {
    /// It returned.
    Returned(Result<Bytes, JobError>),
    /// It was stopped at its limit.
    OutOfTime(Limit),
    /// It was stopped because this worker goes.
    GivenBack,
    /// It was stopped because the job was cancelled: who cancelled it has written the attempt down.
    Cancelled,
    /// It was stopped because the claim is another worker's.
    Lost,
}

/// What ends an attempt if nothing else does: decided at its start, so that its error says what held.
#[derive(Clone, Copy, Debug)]
enum Limit {
    /// Its timeout.
    Timeout(Duration),
    /// The job's deadline, which is so far away.
    Deadline(Duration, Timestamp),
}

impl Limit {
    fn total(self) -> Duration {
        match self {
            Self::Timeout(total) | Self::Deadline(total, _) => total,
        }
    }

    /// The error of an attempt that reached it.
    fn passed(self) -> JobError {
        match self {
            Self::Timeout(limit) => {
                let message = format!("the attempt ran longer than its timeout of {limit:?}");
                JobError::new(ErrorClass::Timeout, "timeout", message)
            }
            Self::Deadline(_, at) => past_deadline(at),
        }
    }
}

fn past_deadline(deadline: Timestamp) -> JobError {
    JobError::new(ErrorClass::Deadline, "deadline", format!("not finished by {deadline}"))
}

impl Pipeline {
    /// Runs one claimed job. Whatever happens, the claim is given up and the slot is free at the end.
    pub(crate) async fn attempt(&self, claimed: Claimed) {
        let Claimed { loaded, held, ready_at, slot } = claimed;
        let _forget = ForgetOnDrop { leases: &self.leases, held: &held };
        let job = &loaded.job;
        let started_at = self.around.stores.clock.now();
        self.meters.start(job, started_at, ready_at);

        let ended = match self.admit(job, started_at) {
            Err(refused) => Ended::without_calls(Ran::Returned(Err(refused))),
            Ok(limit) => match self.payload(&loaded, &held).await {
                Ok(Some(payload)) => match self.resolve(loaded.clone(), payload, &held, limit.total()).await {
                    Some((handler, cx)) => self.run(handler, cx, &held, limit).await,
                    None => Ended::without_calls(Ran::Lost),
                },
                Ok(None) => Ended::without_calls(Ran::Lost),
                Err(damaged) => Ended::without_calls(Ran::Returned(Err(damaged))),
            },
        };
        let next = self.finish(job, &held, started_at, ended).await;
        self.leases.give_up(held.lease, next, slot);
    }

    /// Whether the attempt may begin now, and how long it may take.
    fn admit(&self, job: &Job, now: Timestamp) -> Result<Limit, JobError> {
        if let Some(start_by) = job.start_by.filter(|&at| job.attempts == 0 && now > at) {
            return Err(JobError::new(ErrorClass::Deadline, "start_by", format!("not started by {start_by}")));
        }
        let own = self.timeouts.of(job);
        let Some(deadline) = job.deadline else { return Ok(Limit::Timeout(own)) };
        if now >= deadline {
            return Err(past_deadline(deadline));
        }
        let left = Duration::from_millis(deadline.since_ms(now) as u64);
        Ok(if left <= own { Limit::Deadline(left, deadline) } else { Limit::Timeout(own) })
    }

    /// The payload, wherever it lies; `None`: the claim was lost while its object could not be reached.
    async fn payload(&self, loaded: &Loaded, held: &Held) -> Result<Option<Bytes>, JobError> {
        let bodies = &self.around.stores.bodies;
        let ask = || async {
            match bodies.whole(loaded.payload.bytes()).await {
                Ok(payload) => Ok(Ok(payload)),
                Err(ObjectsError::Damaged { path, reason }) => Ok(Err(format!("{path}: {reason}"))),
                Err(ObjectsError::Unavailable(reason)) => Err(JournalError::Unavailable(reason)),
            }
        };
        match until_available("a large payload", ask, &held.token).await {
            Some(Ok(payload)) => Ok(Some(payload)),
            Some(Err(damaged)) => Err(JobError::new(ErrorClass::Permanent, "payload_damaged", damaged)),
            None => Ok(None),
        }
    }

    /// The job's handler, and what it may use: also the answers that earlier attempts paid for.
    async fn resolve(
        &self,
        loaded: Arc<Loaded>,
        payload: Bytes,
        held: &Held,
        total: Duration,
    ) -> Option<(Arc<dyn Handler>, JobContext)> {
        let job = &loaded.job;
        let handler = self.handlers.of(job.kind);
        // A job that was never handed on cannot have left answers behind.
        let memos = if job.epoch.0 == 0 || !job.kind.asks_providers() {
            vec![]
        } else {
            let ask = || self.around.stores.journal.memos(job.id);
            until_available("memos", ask, &held.token).await?
        };
        let (around, breakers) = (self.around.clone(), self.breakers.clone());
        let claim = (held.token.child_token(), self.leases.clone());
        Some((handler, JobContext::new(around, breakers, (loaded, payload), memos, claim, total)))
    }

    /// The handler, stopped by its timeout, a cancel, a lost lease or this worker's end; a panic is an error. One that does not
    /// yield then is abandoned: its attempt ends without it.
    async fn run(&self, handler: Arc<dyn Handler>, cx: JobContext, held: &Held, limit: Limit) -> Ended {
        if cx.job().kind != Kind::Probe {
            let body = EventBody::AttemptStarted { attempt: cx.attempt() };
            self.around.stores.events.publish(cx.job().id, body);
        }
        let mut handling = Handling::begin(handler, cx);
        let cx = handling.cx.clone();
        let returned = tokio::select! {
            returned = handling.returned() => Some(returned),
            () = held.token.cancelled() => None,
            () = tokio::time::sleep(limit.total()) => {
                held.stop(Stop::Timeout);
                None
            }
        };
        let ran = match returned {
            Some(result) => Ran::Returned(result),
            None => {
                if !handling.stop().await {
                    self.abandon(handling);
                }
                match held.stopped() {
                    Some(Stop::Timeout) => Ran::OutOfTime(limit),
                    Some(Stop::Shutdown) => Ran::GivenBack,
                    Some(Stop::Cancelled) => Ran::Cancelled,
                    Some(Stop::LeaseLost) | None => Ran::Lost,
                }
            }
        };
        // A handler that ended by itself in the moment it was stopped has still lost its claim.
        let ran = match held.stopped() {
            Some(Stop::Cancelled) => Ran::Cancelled,
            Some(Stop::LeaseLost) => Ran::Lost,
            Some(Stop::Timeout | Stop::Shutdown) | None => ran,
        };
        let (cost, bill) = (cx.cost_so_far(), cx.bill());
        let (calls, paid) = (cx.take_unsettled(), cx.take_paid());
        Ended { ran, calls, paid, savings: cx.take_savings(), served_by: cx.served_by(), cost, bill }
    }

    /// Its slot is given up with the attempt; what its calls still cost is written when it ends.
    fn abandon(&self, handling: Handling) {
        let gone = self.abandoned.clone().watch(handling, self.leases.clone());
        let stores = self.around.stores.clone();
        tokio::spawn(async move {
            let cx = gone.await;
            record_only(&stores, cx.take_unsettled()).await;
            commit(cx.take_paid()).await;
        });
    }

    /// Writes the end of the attempt and returns the job's next life, if the dispatcher should hold it.
    async fn finish(&self, job: &Job, held: &Held, started_at: Timestamp, ended: Ended) -> Option<Entry> {
        let now = self.around.stores.clock.now();
        let outcome = match ended.ran {
            Ran::Returned(Ok(result)) => {
                let result = self.around.stores.bodies.keep(&job.tenant, job.id, Part::Result, result).await;
                Outcome::Succeed { result: result.into() }
            }
            Ran::Returned(Err(error)) => self.place(job, judge(job, error, now)),
            Ran::OutOfTime(limit) => judge(job, limit.passed(), now),
            Ran::GivenBack => Outcome::Release { due: Due::After(Duration::ZERO), error: None, target: None },
            Ran::Cancelled | Ran::Lost => {
                let outcome = if matches!(ended.ran, Ran::Cancelled) { "cancel" } else { "lost" };
                self.meters.end_unsettled(job, outcome);
                Attempt { job, started_at, finished_at: now, outcome, error: None, bill: ended.bill }.log();
                record_only(&self.around.stores, ended.calls).await;
                commit(ended.paid).await;
                traces::ended(outcome, None);
                return None;
            }
        };
        // An attempt that was put back has done nothing: the next one finds the same answers, and counts them.
        let savings = if matches!(outcome, Outcome::Release { .. }) { vec![] } else { ended.savings };
        for saving in &savings {
            telemetry::count_saved(saving.reason, saving.saved.unwrap_or_default());
        }
        let settlement = Settlement {
            token: queue_core::journal::Token { id: job.id, epoch: held.lease.epoch },
            incarnation: self.around.stores.journal.incarnation(),
            outcome,
            session: self.session,
            started_at,
            finished_at: now,
            calls: ended.calls,
            savings,
            served_by: ended.served_by,
        };
        self.meters.end(job, &settlement);
        let (outcome, error) = (settlement.outcome.as_str(), error_of(&settlement.outcome));
        Attempt { job, started_at, finished_at: now, outcome, error, bill: ended.bill }.log();
        let never = CancellationToken::new();
        let journal = &self.around.stores.journal;
        // Until it is written or the job has moved on: a finished attempt is not thrown away because a disk is full.
        let settling = Settling::begin(job);
        let settled = until_available("settle", || journal.settle(settlement.clone()), &never).await?;
        let is_fenced = matches!(settled, Settled::Fenced);
        settling.end(is_fenced);
        commit(ended.paid).await;
        if is_fenced {
            traces::ended("lost", None);
        } else {
            traced::ended(&settlement.outcome);
        }
        if let (Settled::Done { standing, .. }, Some(cost)) = (&settled, ended.cost)
            && standing.is_final()
        {
            self.meters.cost(job, *standing, cost);
        }
        let wait = match &settlement.outcome {
            Outcome::Retry { due: Due::After(wait), .. } | Outcome::Release { due: Due::After(wait), .. } => *wait,
            _ => Duration::ZERO,
        };
        let moved_to = match settlement.outcome {
            Outcome::Release { target, .. } => target,
            _ => None,
        };
        self.tell(job, settled, wait, moved_to)
    }

    /// A job that has to wait waits in the lane of the credentials that its calls would be made with now: keys and policies
    /// may have changed since it was submitted. One that waits for a key waits there as what comes first: its lane sleeps.
    fn place(&self, job: &Job, outcome: Outcome) -> Outcome {
        let Outcome::Release { due, error, .. } = outcome else { return outcome };
        let lane = self.around.credentials.lane_of(&job.tenant, &job.target);
        let target = (lane != job.target).then_some(lane);
        let is_keyless =
            |error: &JobError| error.class == ErrorClass::Credential && (error.lane_sleeps || target.is_some());
        let due = if error.as_ref().is_some_and(is_keyless) { Due::At(job.run_at) } else { due };
        Outcome::Release { due, error, target }
    }

    fn tell(&self, job: &Job, settled: Settled, wait: Duration, moved_to: Option<Name>) -> Option<Entry> {
        let Settled::Done { standing, epoch, run_at } = settled else {
            metrics::counter!(telemetry::SETTLE_REJECTED, "reason" => "fenced").increment(1);
            tracing::warn!(job_id = %job.id, epoch = job.epoch.0, "the settle was fenced: the job has moved on");
            return None;
        };
        let state = match standing {
            Standing::Live if wait > Duration::ZERO => State::Scheduled,
            Standing::Live => State::Ready,
            Standing::Succeeded => State::Succeeded,
            Standing::Dead => State::Dead,
            Standing::Cancelled => State::Cancelled,
        };
        self.around.stores.events.publish(job.id, EventBody::State { state });
        let near = wait.as_millis() <= u128::from(HORIZON_MS.unsigned_abs());
        (standing == Standing::Live && near).then(|| Entry {
            epoch,
            run_at,
            suspicion: Suspicion::None,
            target: moved_to.unwrap_or_else(|| job.target.clone()),
            ..Entry::from(job)
        })
    }
}

/// Money is never fenced: an attempt that lost its claim still writes what it spent.
async fn record_only(stores: &Stores, calls: Vec<queue_core::ledger::CallRecord>) {
    let never = CancellationToken::new();
    for call in calls {
        until_available("record", || stores.journal.record(call.clone()), &never).await;
    }
}

/// The rows of these calls are written.
async fn commit(paid: Vec<Paid>) {
    for paid in paid {
        paid.commit().await;
    }
}

/// What [`Pipeline::finish`] needs to know of the handler's part.
struct Ended {
    ran: Ran,
    calls: Vec<queue_core::ledger::CallRecord>,
    paid: Vec<Paid>,
    savings: Vec<queue_core::ledger::Saving>,
    served_by: Option<String>,
    /// Of the job, over all its attempts; `None` where it is not known.
    cost: Option<Nanousd>,
    /// Of this attempt.
    bill: Bill,
}

impl Ended {
    fn without_calls(ran: Ran) -> Self {
        Self { ran, calls: vec![], paid: vec![], savings: vec![], served_by: None, cost: None, bill: Bill::default() }
    }
}

/// A defect of ours that panics here must not keep a lease alive that nobody works on: it is not renewed any more,
/// expires, and the job goes to another attempt.
struct ForgetOnDrop<'a> {
    leases: &'a Leases,
    held: &'a Held,
}

impl Drop for ForgetOnDrop<'_> {
    fn drop(&mut self) {
        self.leases.forget(self.held.lease);
    }
}

/// What follows a failed attempt.
fn judge(job: &Job, error: JobError, now: Timestamp) -> Outcome {
    let budget = Budget {
        attempt: job.attempts + 1,
        max_attempts: job.max_attempts,
        releases: job.releases,
        deadline: job.deadline,
    };
    // How long is decided here, and from when on by the journal.
    let after = |at: Timestamp| Due::After(Duration::from_millis(at.since_ms(now).unsigned_abs()));
    match retry::decide(&error, budget, now, rand::random()) {
        Decision::Retry(at) => Outcome::Retry { due: after(at), error },
        // Its target or its tenant is parked, so it can keep its place in its lane: it is the first when claims go on.
        Decision::Release(_) if [PARKED, BUDGET_PARKED].contains(&error.code.as_str()) => {
            Outcome::Release { due: Due::At(job.run_at), error: Some(error), target: None }
        }
        Decision::Release(at) => Outcome::Release { due: after(at), error: Some(error), target: None },
        Decision::Dead => Outcome::Dead { error },
    }
}

/// The words of a panic.
pub(crate) fn said(panic: &(dyn Any + Send)) -> String {
    let borrowed = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    borrowed.or_else(|| panic.downcast_ref().cloned()).unwrap_or_else(|| "no words".to_owned())
}
