//! One operation, from where it stands to its end.

mod archive;

use std::{collections::HashSet, time::Duration};

use queue_core::{
    dispatcher::{Entry, Place},
    events::EventBody,
    filter::{Filter, Found},
    ids::{JobId, SessionId},
    job::Job,
    journal::{JobFilter, JournalError, PAGE_MAX_ROWS},
    ledger::Nanousd,
    operations::{Action, Estimates, Holder, Operation, OperationState, Pick, STEP_MAX_JOBS, Step, Stepped},
    state::{self, State},
    stores::Stores,
    telemetry,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longest time without a step: an operation whose walker says nothing is soon taken by another.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Steps a second, so that a rate is kept within each second and an abort meets a step that is nearly over.
const STEPS_PER_S: u32 = 10;
/// How far a walk may be behind its rate and still catch up: a commit that took long must not lower the rate, and one that
/// took minutes must not be followed by a flood.
const DEBT_MAX: Duration = Duration::from_secs(1);
/// Pause after the journal failed.
const PAUSE: Duration = Duration::from_millis(500);

/// Why an archive cannot be made here.
const NO_OBJECTS: &str = "this scheduler has no place for objects: set `[objects] url` for it as for the API";

/// Why a walk ends here.
enum Stop {
    /// It has ended, or somebody else walks it.
    Lost,
    /// This process stops.
    Shutdown,
}

/// Who walks an operation, and how far.
pub(crate) struct Walk {
    stores: Stores,
    operation: Operation,
    owner: Uuid,
    shutdown: CancellationToken,
    /// When the next job may be dealt with.
    next_at: Instant,
    beaten_at: Instant,
}

/// What a walk needs to know of the jobs that it meets.
struct Meaning {
    filter: Filter,
    narrowed: JobFilter,
    estimates: Estimates,
}

impl Walk {
    pub(crate) fn new(stores: Stores, operation: Operation, owner: Uuid, shutdown: CancellationToken) -> Self {
        let now = Instant::now();
        Self { stores, operation, owner, shutdown, next_at: now, beaten_at: now }
    }

    pub(crate) async fn run(mut self) {
        match self.walk().await {
            Ok(()) | Err(Stop::Lost) => {}
            Err(Stop::Shutdown) => {
                let id = self.operation.id;
                if let Err(error) = self.stores.operations.take(id, self.operation.beat, None).await {
                    tracing::debug!(%error, operation = %id, "an operation is taken after its silence");
                }
            }
        }
    }

    async fn walk(&mut self) -> Result<(), Stop> {
        let meaning = match self.meaning().await? {
            Ok(meaning) => meaning,
            Err(reason) => return self.end(OperationState::Failed, Some(reason)).await,
        };
        if self.operation.order.takes_objects() && self.stores.objects.is_none() {
            return self.end(OperationState::Failed, Some(NO_OBJECTS.to_owned())).await;
        }
        loop {
            let Found { mut jobs, next } = self.find(&meaning).await?;
            if jobs.is_empty() && next.is_some() {
                self.step(Step { behind: next, ..self.beat() }).await?;
            }
            while !jobs.is_empty() {
                if self.left() == 0 {
                    return self.end(OperationState::Done, None).await;
                }
                let rest = jobs.split_off(jobs.len().min(self.room()));
                let last = jobs.last().map(|(job, _)| job.id);
                // Behind the last job of a page lies what the search has looked at in vain, too.
                let behind = if rest.is_empty() { next.or(last) } else { last };
                if self.deal_with(&meaning, &jobs, behind).await? {
                    return self.end(OperationState::Capped, None).await;
                }
                jobs = rest;
            }
            if next.is_none() || self.left() == 0 {
                return self.end(OperationState::Done, None).await;
            }
        }
    }

    /// What the order says, and what jobs like its own have cost; or why it cannot be read.
    async fn meaning(&mut self) -> Result<Result<Meaning, String>, Stop> {
        let (order, accepted_at) = (self.operation.order.clone(), self.operation.accepted_at);
        let filter = match Filter::parse(&order.filter, accepted_at) {
            Ok(filter) => filter,
            Err(error) => return Ok(Err(format!("its filter cannot be read any more: {error}"))),
        };
        let mut narrowed = filter.narrowed();
        narrowed.standing = order.action.of_standing().or(narrowed.standing);
        let estimates = loop {
            if !order.effect().runs_again() {
                break Estimates::default();
            }
            match Estimates::load(&*self.stores.ledger, self.stores.clock.now()).await {
                Ok(estimates) => break estimates,
                Err(error) => tracing::warn!(%error, "an operation waits for the journal"),
            }
            self.pause(PAUSE).await?;
        };
        Ok(Ok(Meaning { filter, narrowed, estimates }))
    }

    /// The next jobs, about as many as a second needs: they are judged as they are when they are found.
    async fn find(&mut self, meaning: &Meaning) -> Result<Found, Stop> {
        let most = match self.operation.order.dry_run {
            true => PAGE_MAX_ROWS,
            false => (self.operation.order.rate_per_s as usize).clamp(2, PAGE_MAX_ROWS),
        };
        let narrowed = JobFilter { before: self.operation.behind, ..meaning.narrowed.clone() };
        loop {
            let stores = self.stores.clone();
            let finding = stores.find(&meaning.filter, &narrowed, most);
            tokio::pin!(finding);
            let found = loop {
                tokio::select! {
                    found = &mut finding => break found,
                    // A filter that few jobs meet takes its time.
                    () = tokio::time::sleep(BEAT_EVERY) => self.stay().await?,
                }
            };
            match found {
                Ok(found) => return Ok(found),
                Err(error) => {
                    tracing::warn!(%error, operation = %self.operation.id, "an operation waits for the journal")
                }
            }
            self.pause(PAUSE).await?;
        }
    }

    /// Jobs that may still be done, or in a dry run counted.
    fn left(&self) -> u64 {
        let (order, counts) = (&self.operation.order, self.operation.counts);
        let dealt_with = if order.dry_run { counts.matched - counts.skipped } else { counts.done };
        order.max_jobs.map_or(u64::MAX, |most| most.saturating_sub(dealt_with))
    }

    /// How many jobs the next step may have.
    fn room(&self) -> usize {
        let order = &self.operation.order;
        let at_rate = match order.effect() {
            _ if order.dry_run => STEP_MAX_JOBS,
            // A few large objects: a step a second.
            Action::Archive => order.rate_per_s as usize,
            _ => (order.rate_per_s / STEPS_PER_S) as usize,
        };
        at_rate.clamp(1, STEP_MAX_JOBS).min(usize::try_from(self.left()).unwrap_or(usize::MAX)).max(1)
    }

    /// One step of these jobs, at its time; whether the cost cap was in the way of one of them.
    async fn deal_with(
        &mut self,
        meaning: &Meaning,
        jobs: &[(Job, Place)],
        behind: Option<JobId>,
    ) -> Result<bool, Stop> {
        let judged = self.judge(meaning, jobs).await;
        if !self.operation.order.dry_run {
            self.wait_for_turn(judged.picks.len()).await?;
        }
        let behind = if judged.is_capped { judged.last } else { behind };
        self.affect(judged.picks, jobs, judged.skipped, behind).await?;
        Ok(judged.is_capped)
    }

    /// Which of these jobs it is done to.
    async fn judge(&self, meaning: &Meaning, jobs: &[(Job, Place)]) -> Judged {
        let (order, effect) = (&self.operation.order, self.operation.order.effect());
        let spares_living = effect == Action::Reclaim && !order.force;
        let alive = if spares_living { self.alive().await } else { None };
        let mut judged = Judged::default();
        let mut expected = self.operation.counts.cost;
        for (job, place) in jobs {
            let before = judged.last.replace(job.id);
            let state = state::of(job, place, self.stores.clock.now()).0;
            // A drain means the letters that were there when it was asked for.
            let too_young = order.action == Action::Drain && job.finished_at > Some(self.operation.accepted_at);
            if !order.action.of_states().contains(&state) || too_young {
                continue;
            }
            let holder = holder(place);
            let lives = |holder: Holder| alive.as_ref().is_none_or(|alive| alive.contains(&holder.session));
            let cost = if effect.runs_again() { meaning.estimates.of(job) } else { Some(Nanousd(0)) };
            if (spares_living && holder.is_none_or(lives)) || (order.max_cost.is_some() && cost.is_none()) {
                judged.skipped += 1;
                continue;
            }
            expected = Nanousd(expected.0.saturating_add(cost.map_or(0, |cost| cost.0)));
            if order.max_cost.is_some_and(|most| expected.0 > most.0) {
                (judged.is_capped, judged.last) = (true, before);
                return judged;
            }
            judged.picks.push(Pick { id: job.id, epoch: job.epoch, cost, holder });
        }
        judged
    }

    /// Workers that live; `None` where nobody can tell, and all that they hold is left alone.
    async fn alive(&self) -> Option<HashSet<SessionId>> {
        match self.stores.dispatcher.sessions(&[]).await {
            Ok(present) => Some(present.alive.into_iter().map(|session| session.id).collect()),
            Err(error) => {
                tracing::warn!(%error, "nobody knows which workers live");
                None
            }
        }
    }

    /// Does it, in halves where the journal refuses a part: one job that it cannot write must not hold up the others.
    async fn affect(
        &mut self,
        picks: Vec<Pick>,
        jobs: &[(Job, Place)],
        skipped: u64,
        behind: Option<JobId>,
    ) -> Result<(), Stop> {
        if self.operation.order.takes_objects()
            && let Some(objects) = self.stores.objects.clone()
        {
            return self.archive(&objects, picks, skipped, behind).await;
        }
        let mut parts = vec![picks];
        while let Some(part) = parts.pop() {
            let is_last = parts.is_empty();
            let (skipped, behind) = if is_last { (skipped, behind) } else { (0, part.last().map(|pick| pick.id)) };
            let withdrawn = self.withdraw(&part).await;
            let picks = with_holders(part.clone(), &withdrawn);
            match self.try_step(Step { picks, skipped, behind, ..self.beat() }).await {
                Ok(Answer::Done { entries, changed }) => self.tell(entries, &changed).await,
                Ok(Answer::Read | Answer::Moved) => {}
                Ok(Answer::Refused(error)) => {
                    self.put_back(&withdrawn, jobs).await;
                    if part.len() > 1 {
                        let mut first = part;
                        let second = first.split_off(first.len() / 2);
                        parts.extend([second, first]);
                        continue;
                    }
                    tracing::warn!(%error, operation = %self.operation.id, "a job is left out");
                    let failed = part.len() as u64;
                    self.step(Step { skipped, failed, behind, ..self.beat() }).await?;
                }
                Err(stop) => {
                    self.put_back(&withdrawn, jobs).await;
                    return Err(stop);
                }
            }
        }
        Ok(())
    }

    /// Out of the dispatcher first, where jobs end: what it does not hold, no worker can claim while the row changes.
    async fn withdraw(&self, picks: &[Pick]) -> Vec<(JobId, Place)> {
        let order = &self.operation.order;
        if order.effect() != Action::Cancel || order.dry_run {
            return Vec::new();
        }
        let mut places = Vec::with_capacity(picks.len());
        for pick in picks {
            // Without the dispatcher the cancel still holds: the epoch fences whoever runs the job.
            let place = self.stores.dispatcher.withdraw(pick.id).await.unwrap_or(Place::Unknown);
            places.push((pick.id, place));
        }
        places
    }

    /// Puts withdrawn jobs back that were not ended after all. If this dies before, the reconciler finds them.
    async fn put_back(&self, withdrawn: &[(JobId, Place)], jobs: &[(Job, Place)]) {
        let waited: HashSet<JobId> =
            withdrawn.iter().filter(|(_, place)| matches!(place, Place::Waiting { .. })).map(|(id, _)| *id).collect();
        let rows = jobs.iter().map(|(job, _)| job).filter(|job| waited.contains(&job.id));
        let entries: Vec<Entry> = rows.map(Entry::from).collect();
        if !entries.is_empty() && self.stores.dispatcher.push(entries).await.is_err() {
            tracing::warn!("jobs that were not cancelled wait for the reconciler");
        }
    }

    /// Tells those who have to know what a step has committed.
    async fn tell(&self, entries: Vec<Entry>, changed: &[JobId]) {
        let order = &self.operation.order;
        metrics::counter!(telemetry::OPERATION_JOBS, "action" => order.action.as_str()).increment(changed.len() as u64);
        if !entries.is_empty()
            && let Err(error) = self.stores.dispatcher.push(entries).await
        {
            tracing::warn!(%error, "jobs of an operation wait for the reconciler");
        }
        if order.effect() != Action::Cancel {
            return;
        }
        for id in changed {
            if let Err(error) = self.stores.dispatcher.nudge(*id).await {
                tracing::debug!(%error, job_id = %id, "the worker learns of the cancel with its next renewal");
            }
            self.stores.events.publish(*id, EventBody::State { state: State::Cancelled });
        }
    }

    /// Waits until more jobs may be dealt with, and notes that so many are.
    async fn wait_for_turn(&mut self, jobs: usize) -> Result<(), Stop> {
        let now = Instant::now();
        let turn = self.next_at.max(now.checked_sub(DEBT_MAX).unwrap_or(now));
        self.wait_until(turn).await?;
        let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
        self.next_at = turn + Duration::from_secs(1) * jobs / self.operation.order.rate_per_s.max(1);
        Ok(())
    }

    async fn wait_until(&mut self, moment: Instant) -> Result<(), Stop> {
        while Instant::now() < moment {
            let beat_at = self.beaten_at + BEAT_EVERY;
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(Stop::Shutdown),
                () = tokio::time::sleep_until(moment.min(beat_at)) => {}
            }
            if Instant::now() >= beat_at {
                self.stay().await?;
            }
        }
        if self.shutdown.is_cancelled() { Err(Stop::Shutdown) } else { Ok(()) }
    }

    async fn pause(&self, time: Duration) -> Result<(), Stop> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(Stop::Shutdown),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    fn beat(&self) -> Step {
        Step::beat(&self.operation, self.owner)
    }

    /// Shows that somebody still walks it, and hears of an abort.
    async fn stay(&mut self) -> Result<(), Stop> {
        if self.shutdown.is_cancelled() {
            return Err(Stop::Shutdown);
        }
        self.step(self.beat()).await
    }

    async fn end(&mut self, state: OperationState, error: Option<String>) -> Result<(), Stop> {
        self.step(Step { end: Some((state, error)), ..self.beat() }).await?;
        let counts = self.operation.counts;
        tracing::info!(
            operation = %self.operation.id, state = state.as_str(), done = counts.done, skipped = counts.skipped,
            failed = counts.failed, "an operation has ended"
        );
        Ok(())
    }

    /// A step without jobs. What the journal refuses about one of these is nothing that another try would change.
    async fn step(&mut self, step: Step) -> Result<(), Stop> {
        match self.try_step(step).await? {
            Answer::Done { .. } | Answer::Read | Answer::Moved => Ok(()),
            Answer::Refused(error) => {
                tracing::error!(%error, operation = %self.operation.id, "an operation cannot go on");
                Err(Stop::Lost)
            }
        }
    }

    /// Does a step. Where its answer is lost, the row says how far it is; the reconciler pushes what the step has moved.
    async fn try_step(&mut self, mut step: Step) -> Result<Answer, Stop> {
        loop {
            let error = match self.stores.operations.step(step.clone(), self.stores.clock.now()).await {
                Ok(Stepped::Done { operation, entries, changed }) => {
                    (self.operation, self.beaten_at) = (*operation, Instant::now());
                    return Ok(Answer::Done { entries, changed });
                }
                Ok(Stepped::Moved) => return Ok(Answer::Moved),
                Ok(Stepped::Lost) => return Err(Stop::Lost),
                Err(JournalError::Corrupt(reason)) => return Ok(Answer::Refused(reason)),
                Err(error) => error,
            };
            tracing::warn!(%error, operation = %self.operation.id, "a step of an operation was not answered");
            let operation = loop {
                self.pause(PAUSE).await?;
                match self.stores.operations.operation(self.operation.id).await {
                    Ok(operation) => break operation.ok_or(Stop::Lost)?,
                    Err(error) => tracing::debug!(%error, "the journal is still away"),
                }
            };
            if operation.owner != Some(self.owner) {
                return Err(Stop::Lost);
            }
            let is_done = operation.beat != step.beat;
            (self.operation, self.beaten_at) = (operation, Instant::now());
            if is_done {
                return Ok(Answer::Read);
            }
            if self.operation.state != OperationState::Running {
                return Err(Stop::Lost);
            }
            step.beat = self.operation.beat;
        }
    }
}

/// What the journal says to a step.
enum Answer {
    /// What it did.
    Done {
        /// Jobs that are live at a new epoch.
        entries: Vec<Entry>,
        /// Jobs to which it was done.
        changed: Vec<JobId>,
    },
    /// It was committed, and nobody said what it did.
    Read,
    /// Of an archive: its objects are not what its jobs are now. It was not done.
    Moved,
    /// It cannot be done as it is.
    Refused(String),
}

/// Jobs of a step.
#[derive(Default)]
struct Judged {
    picks: Vec<Pick>,
    skipped: u64,
    /// The last job that was judged.
    last: Option<JobId>,
    /// The next job would pass the cost cap.
    is_capped: bool,
}

fn holder(place: &Place) -> Option<Holder> {
    match place {
        Place::Leased { epoch, session, started_at } => {
            Some(Holder { epoch: *epoch, session: *session, started_at: *started_at })
        }
        Place::Unknown | Place::Waiting { .. } => None,
    }
}

/// The picks as their jobs were found when they were withdrawn.
fn with_holders(mut picks: Vec<Pick>, withdrawn: &[(JobId, Place)]) -> Vec<Pick> {
    for (pick, (_, place)) in picks.iter_mut().zip(withdrawn) {
        pick.holder = holder(place);
    }
    picks
}
