//! Schedules: submits the job of each tick, once, and moves the cursor behind it.
//!
//! Everybody who finds a schedule due submits the tick under the same idempotency key and then moves the cursor, which only one of
//! them can. So any number of schedulers may do it, and die anywhere: before the accept nothing has happened, after it the next one gets
//! the same job. A claim keeps others off for [`HELD_MS`] and saves double work, no more. What time it is says the store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use queue_core::{
    ids::JobId,
    journal::JournalError,
    schedule::{Backfill, Overlap, Refusal, Run, Schedule, Submits, Submitted, Ticks, Trouble, plan},
    state::Standing,
    stores::Stores,
    telemetry,
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;

use crate::cancel::cancel;

/// Time between two looks: so late is a tick at the most, where nothing is wrong.
const EVERY: Duration = Duration::from_millis(250);
/// How long others leave a claimed schedule alone: longer than [`RUNS_MAX`] accepts take, and as long as a tick waits for a scheduler
/// that died.
const HELD_MS: i64 = 3_000;
/// Schedules of one claim: with their templates up to 8 MiB.
const CLAIM_MAX: usize = 32;
/// Schedules that are walked side by side: each waits for commits most of the time.
const SIDE_BY_SIDE: usize = 8;
/// Ticks of one schedule that are submitted under one claim; the others come with the next.
const RUNS_MAX: usize = 20;
/// How soon, and how late, a refused tick is tried again.
const RETRY_MS: std::ops::RangeInclusive<i64> = 1_000..=30_000;
/// What those who ask for a cancelled run are told.
const REASON: &str = "the next run of its schedule has begun";

pub(crate) async fn run(stores: Stores, submits: Option<Arc<dyn Submits>>, shutdown: CancellationToken) {
    let Some(submits) = submits else { return };
    let clockwork = Cron { stores, submits, shutdown };
    loop {
        tokio::select! {
            () = clockwork.shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        while !clockwork.shutdown.is_cancelled() {
            match clockwork.once().await {
                // A full claim may have left some that are due.
                Ok(CLAIM_MAX..) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "schedules were not looked at");
                    break;
                }
            }
        }
    }
}

/// The schedules of one process.
pub(crate) struct Cron {
    pub(crate) stores: Stores,
    pub(crate) submits: Arc<dyn Submits>,
    pub(crate) shutdown: CancellationToken,
}

/// What a tick came to.
enum Outcome {
    /// It is this job.
    Job(JobId),
    /// The run before has not ended.
    Overlapped,
    /// It was refused for good.
    Refused(Refusal),
    /// It is tried again in so many milliseconds.
    Later(Refusal, i64),
}

impl Cron {
    /// Claims what is due and deals with it; how many schedules that were.
    pub(crate) async fn once(&self) -> Result<usize, JournalError> {
        let now = self.stores.schedules.store_time().await?;
        let due = self.stores.schedules.claim_schedules(now, now.plus_ms(HELD_MS), CLAIM_MAX).await?;
        let found = due.len();
        let walks = due.into_iter().map(|schedule| async move {
            let id = schedule.id;
            if let Err(Stop::Journal(error)) = self.deal_with(schedule, now).await {
                tracing::warn!(%error, schedule = %id, "a schedule waits until its claim is over");
            }
        });
        stream::iter(walks).for_each_concurrent(SIDE_BY_SIDE, |walk| walk).await;
        Ok(found)
    }

    pub(crate) async fn deal_with(&self, mut schedule: Schedule, now: Timestamp) -> Result<(), Stop> {
        match schedule.settings.when.ticks() {
            Ok(ticks) => Walk { cron: self, schedule, ticks, now, claimed: Instant::now() }.walk().await,
            // It was read when it was made: the zones of this machine are others.
            Err(error) => {
                let refusal = Refusal { code: "unreadable".into(), detail: error.to_string() };
                schedule.progress.error = Some(trouble(now, schedule.progress.cursor, refusal, true));
                let Schedule { id, beat, progress, .. } = schedule;
                let due_at = Some(now.plus_ms(*RETRY_MS.end()));
                self.stores.schedules.advance_schedule(id, beat, progress, due_at).await?;
                Ok(())
            }
        }
    }
}

/// One claimed schedule.
struct Walk<'a> {
    cron: &'a Cron,
    schedule: Schedule,
    ticks: Ticks,
    /// When it was claimed.
    now: Timestamp,
    claimed: Instant,
}

/// Why nothing more is done under a claim.
pub(crate) enum Stop {
    /// Somebody else has gone on with it, or it waits.
    Over,
    /// The journal is away: the claim ends by itself.
    Journal(JournalError),
}

impl From<JournalError> for Stop {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

impl Walk<'_> {
    async fn walk(mut self) -> Result<(), Stop> {
        let left = self.clock().await?;
        self.backfill(left).await?;
        self.advance(self.due()).await
    }

    /// When there is something to do for it. What is late already stands behind everybody who is due by now: a schedule that catches
    /// up, or fills in, takes turns with the others.
    fn due(&self) -> Option<Timestamp> {
        self.schedule.due(&self.ticks).map(|due| due.max(self.now))
    }

    /// Now, by the store's clock.
    fn now(&self) -> Timestamp {
        self.now.plus_ms(i64::try_from(self.claimed.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    /// The ticks that have come; how many more may be submitted under this claim.
    async fn clock(&mut self) -> Result<usize, Stop> {
        if self.schedule.settings.paused {
            return Ok(RUNS_MAX);
        }
        let missed = self.schedule.settings.missed;
        let plan = plan(&self.ticks, self.schedule.progress.cursor, self.now, missed, RUNS_MAX);
        if plan.missed > 0 {
            self.schedule.progress.counts.missed += plan.missed;
            self.schedule.progress.cursor = plan.behind;
            self.hold().await?;
            count("missed", plan.missed);
            tracing::info!(schedule = %self.schedule.id, ticks = plan.missed, "ticks were missed");
        }
        let left = RUNS_MAX - plan.runs.len();
        let last = plan.runs.last().copied().filter(|_| self.schedule.progress.running().is_none());
        for tick in plan.runs {
            if self.cron.shutdown.is_cancelled() {
                return Ok(0);
            }
            self.tick(tick, last == Some(tick)).await?;
        }
        Ok(left)
    }

    /// Deals with one tick: what comes of it, and then the cursor. With the last one the claim is over: one write less.
    async fn tick(&mut self, tick: Timestamp, is_last: bool) -> Result<(), Stop> {
        let outcome = self.submit(tick).await?;
        let progress = &mut self.schedule.progress;
        let name = match outcome {
            Outcome::Later(refusal, after_ms) => return self.wait(tick, refusal, after_ms).await,
            Outcome::Job(job) => {
                (progress.last_tick, progress.last_job, progress.error) = (Some(tick), Some(job), None);
                progress.counts.submitted += 1;
                "submitted"
            }
            Outcome::Overlapped => {
                progress.counts.overlapped += 1;
                "overlapped"
            }
            Outcome::Refused(refusal) => {
                progress.counts.refused += 1;
                progress.error = Some(trouble(self.now, tick, refusal, false));
                "refused"
            }
        };
        progress.cursor = tick;
        if is_last {
            self.advance(self.due()).await?
        } else {
            self.hold().await?
        }
        count(name, 1);
        if name == "submitted" {
            metrics::histogram!(telemetry::SCHEDULE_LAG).record(self.now().since_ms(tick) as f64 / 1_000.0);
        }
        if is_last { Err(Stop::Over) } else { Ok(()) }
    }

    async fn submit(&self, tick: Timestamp) -> Result<Outcome, JournalError> {
        let schedule = &self.schedule;
        let run = Run { schedule, tick, backfill: None, now: self.now };
        let before = schedule.progress.last_job;
        if schedule.settings.overlap == Overlap::Skip
            && let Some(before) = before
            && self.lives(before).await?
            && !self.was_accepted(&run).await?
        {
            return Ok(Outcome::Overlapped);
        }
        Ok(match self.cron.submits.submit(run).await {
            Submitted::Job(job) => {
                // Behind the accept, so that a refused run cancels nothing; before the cursor, so that a crash repeats it.
                if schedule.settings.overlap == Overlap::Cancel
                    && let Some(before) = before.filter(|before| *before != job)
                    && self.lives(before).await?
                {
                    cancel(&self.cron.stores, before, REASON, self.now()).await?;
                }
                Outcome::Job(job)
            }
            Submitted::Refused(refusal) => Outcome::Refused(refusal),
            Submitted::Later(refusal, after_ms) => Outcome::Later(refusal, after_ms),
        })
    }

    async fn lives(&self, job: JobId) -> Result<bool, JournalError> {
        let row = self.cron.stores.reads.jobs(&[job]).await?.pop().flatten();
        Ok(row.is_some_and(|job| job.standing == Standing::Live))
    }

    /// Whether the tick is a job already: whoever accepted it died before it moved the cursor.
    async fn was_accepted(&self, run: &Run<'_>) -> Result<bool, JournalError> {
        let key = run.idempotency();
        Ok(self.cron.stores.reads.answered(&key.owner, &key.key).await?.is_some())
    }

    /// Submits ticks of the past that were ordered, at most `most`.
    async fn backfill(&mut self, most: usize) -> Result<(), Stop> {
        let Some(order) = self.schedule.progress.running().cloned() else { return Ok(()) };
        // As many as were counted when it was ordered: the schedule may be due at other times since.
        let left = order.ticks.saturating_sub(order.submitted + order.refused);
        let most = most.min(usize::try_from(left).unwrap_or(usize::MAX));
        let runs: Vec<Timestamp> = self.ticks.between(order.cursor, order.to).take(most).collect();
        let is_last = runs.len() < most || left == runs.len() as u64;
        for tick in runs {
            if self.cron.shutdown.is_cancelled() {
                return Ok(());
            }
            let run = Run { schedule: &self.schedule, tick, backfill: Some(&order), now: self.now };
            match self.cron.submits.submit(run).await {
                Submitted::Later(refusal, after_ms) => return self.wait(tick, refusal, after_ms).await,
                Submitted::Job(_) => self.filled(|backfill| backfill.submitted += 1),
                Submitted::Refused(refusal) => {
                    self.schedule.progress.error = Some(trouble(self.now, tick, refusal, false));
                    self.filled(|backfill| backfill.refused += 1);
                }
            }
            self.filled(|backfill| backfill.cursor = tick);
            self.hold().await?;
            count("backfilled", 1);
        }
        if is_last {
            let now = self.now;
            self.filled(|backfill| backfill.finished_at = Some(now));
            tracing::info!(schedule = %self.schedule.id, "a backfill is over");
        }
        Ok(())
    }

    fn filled(&mut self, change: impl FnOnce(&mut Backfill)) {
        if let Some(backfill) = &mut self.schedule.progress.backfill {
            change(backfill);
        }
    }

    /// Notes why a tick is not submitted yet, and leaves the schedule alone until it is tried again.
    async fn wait(&mut self, tick: Timestamp, refusal: Refusal, after_ms: i64) -> Result<(), Stop> {
        let after_ms = after_ms.clamp(*RETRY_MS.start(), *RETRY_MS.end());
        tracing::debug!(schedule = %self.schedule.id, code = refusal.code, after_ms, "a tick waits");
        self.schedule.progress.error = Some(trouble(self.now, tick, refusal, true));
        self.advance(Some(self.now.plus_ms(after_ms))).await?;
        count("delayed", 1);
        Err(Stop::Over)
    }

    /// Writes down how far it is, and keeps the claim.
    async fn hold(&mut self) -> Result<(), Stop> {
        self.advance(Some(self.now().plus_ms(HELD_MS))).await
    }

    async fn advance(&mut self, due_at: Option<Timestamp>) -> Result<(), Stop> {
        let Schedule { id, beat, progress, .. } = &self.schedule;
        if !self.cron.stores.schedules.advance_schedule(*id, *beat, progress.clone(), due_at).await? {
            return Err(Stop::Over);
        }
        self.schedule.beat += 1;
        Ok(())
    }
}

fn trouble(at: Timestamp, tick: Timestamp, refusal: Refusal, retries: bool) -> Trouble {
    let Refusal { code, detail } = refusal;
    Trouble { at, tick, code, detail, retries }
}

fn count(outcome: &'static str, ticks: u64) {
    metrics::counter!(telemetry::SCHEDULE_TICKS, "outcome" => outcome).increment(ticks);
}
