//! Schedules: jobs that are submitted by the clock.
//!
//! A schedule is a row with a template, a rule of when it is due, and a *cursor*: ticks up to it are dealt with. Any number of
//! schedulers look for rows that are due. For each tick one accepts a job, under an idempotency key that follows from schedule,
//! generation and tick, and then moves the cursor, if it is where it was seen. A crash between the two repeats the accept and gets
//! the same job, and of two schedulers that meet at a tick both get it, and one moves the cursor. Nobody has to be elected, and no
//! tick waits for the end of the run before.
//!
//! What time it is says the store ([`Schedules::store_time`]), never the process: a scheduler whose clock is wrong submits neither
//! early nor late.

mod plan;
mod when;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use self::{
    plan::{COUNTED_MAX, Missed, MissedPolicy, ON_TIME_MS, Plan, WINDOW_DEFAULT_MS, WINDOW_MAX_MS, plan},
    when::{CRON_MAX_BYTES, EVERY_MAX_MS, EVERY_MIN_MS, Ticks, When, WhenError, YEAR_MAX, ZONE_DEFAULT},
};
use crate::{
    ids::{JobId, Name, ScheduleId},
    job::Idempotency,
    journal::JournalError,
    time::Timestamp,
};

/// Most schedules of a tenant: all that are due at midnight are worked off within a minute.
pub const SCHEDULES_MAX: usize = 1_000;
/// Largest template, in bytes: each scheduler reads it with every tick.
pub const TEMPLATE_MAX_BYTES: usize = 256 * 1024;
/// Most ticks of a backfill: as many as the jobs of a bulk submit.
pub const BACKFILL_MAX_TICKS: usize = 10_000;
/// What the batch and the concurrency key of a schedule's jobs begin with. Nobody else may name such a batch.
pub const JOBS_PREFIX: &str = "schedule:";

/// What the tag of a schedule's job begins with that says which tick it is.
pub const TICK_TAG: &str = "tick:";

/// The batch of a schedule's jobs, by which they are listed and counted; also the key that keeps two of its runs apart.
pub fn jobs_of(id: ScheduleId) -> String {
    format!("{JOBS_PREFIX}{id}")
}

/// What happens to a tick while the run before has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// It is let go.
    Skip,
    /// It is submitted, and its job waits until the run before has ended.
    Queue,
    /// It is submitted, and the run before is cancelled.
    Cancel,
    /// It is submitted and runs beside it.
    Allow,
}

impl Overlap {
    /// Every policy.
    pub const ALL: [Self; 4] = [Self::Skip, Self::Queue, Self::Cancel, Self::Allow];

    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::Cancel => "cancel",
            Self::Allow => "allow",
        }
    }

    /// The policy with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == word)
    }
}

/// What people set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// When it is due.
    pub when: When,
    /// What happens to a tick while the run before has not ended.
    pub overlap: Overlap,
    /// What becomes of ticks that were missed.
    pub missed: Missed,
    /// Whether its ticks are let go until it is resumed.
    pub paused: bool,
    /// Why it is.
    pub reason: Option<String>,
    /// For people.
    pub description: Option<String>,
}

/// Why a tick came to nothing, or has not come to anything yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// When it was found.
    pub at: Timestamp,
    /// The tick.
    pub tick: Timestamp,
    /// The name of the problem, as the API says it to whoever submits.
    pub code: String,
    /// What is wrong, in a sentence.
    pub detail: String,
    /// Whether the tick is tried again, for as long as it is not missed.
    pub retries: bool,
}

/// What became of the ticks of a schedule since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Became jobs.
    pub submitted: u64,
    /// Were let go because the run before had not ended.
    pub overlapped: u64,
    /// Were let go because nobody submitted them in time.
    pub missed: u64,
    /// Were refused as a submit would have been.
    pub refused: u64,
}

/// Ticks of the past that are submitted because somebody ordered it, whatever became of them then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfill {
    /// Counts from 1 in each schedule.
    pub number: u32,
    /// Ticks from this moment on …
    pub from: Timestamp,
    /// … up to and with this one.
    pub to: Timestamp,
    /// Ticks up to here are dealt with.
    pub cursor: Timestamp,
    /// How many ticks there are.
    pub ticks: u64,
    /// Ticks that became jobs.
    pub submitted: u64,
    /// Ticks that were refused.
    pub refused: u64,
    /// The public part of the key that ordered it: its jobs are submitted for it.
    pub asked_by: Name,
    /// When it was ordered.
    pub began_at: Timestamp,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
}

/// How far a schedule is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Ticks up to here are dealt with.
    pub cursor: Timestamp,
    /// The last tick that became a job.
    pub last_tick: Option<Timestamp>,
    /// That job: the run before, for [`Overlap`].
    pub last_job: Option<JobId>,
    /// What became of its ticks.
    pub counts: Counts,
    /// What is or was wrong; nothing once a tick became a job again.
    pub error: Option<Trouble>,
    /// The newest backfill.
    pub backfill: Option<Backfill>,
}

impl Progress {
    /// Of a schedule that begins now.
    pub fn from(now: Timestamp) -> Self {
        let (last_tick, last_job, error, backfill) = (None, None, None, None);
        Self { cursor: now, last_tick, last_job, counts: Counts::default(), error, backfill }
    }

    /// The backfill that is not over.
    pub fn running(&self) -> Option<&Backfill> {
        self.backfill.as_ref().filter(|backfill| backfill.finished_at.is_none())
    }
}

/// A schedule as the journal holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Its id.
    pub id: ScheduleId,
    /// Whose it is.
    pub tenant: Name,
    /// What people call it; one of a tenant.
    pub name: Name,
    /// Who made it, or changed its template last: whose jobs these are, and under whose budget they fall.
    pub key_id: Name,
    /// The job, as a submit would send it, without its times.
    pub template: String,
    /// What people set.
    pub settings: Settings,
    /// How far it is.
    pub progress: Progress,
    /// Grows with every change that people make.
    pub version: i64,
    /// Grows when it is due at other times: ticks of different generations are different ticks.
    pub generation: i64,
    /// Grows with every change: whoever moves the cursor says which it has seen.
    pub beat: i64,
    /// When a scheduler looks at it; `None`: not before somebody changes it.
    pub due_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Schedule {
    /// When there is something to do for it.
    pub fn due(&self, ticks: &Ticks) -> Option<Timestamp> {
        match self.progress.running() {
            Some(backfill) => Some(backfill.began_at),
            None if self.settings.paused => None,
            None => ticks.after(self.progress.cursor),
        }
    }
}

/// One tick that is to become a job.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Whose.
    pub schedule: &'a Schedule,
    /// The moment that it stands for.
    pub tick: Timestamp,
    /// The backfill that it belongs to.
    pub backfill: Option<&'a Backfill>,
    /// Now, by the store's clock.
    pub now: Timestamp,
}

impl Run<'_> {
    /// Whose job it will be.
    pub fn key_id(&self) -> &Name {
        self.backfill.map_or(&self.schedule.key_id, |backfill| &backfill.asked_by)
    }

    /// What makes it one job, however often it is submitted. No caller can use such a key: its owner has a letter that no
    /// name has.
    pub fn idempotency(&self) -> Idempotency {
        let Schedule { id, tenant, generation, .. } = self.schedule;
        let key = match self.backfill {
            Some(Backfill { number, .. }) => format!("backfill {number}:{}", self.tick),
            None => format!("{generation}:{}", self.tick),
        };
        let owner = Name::new(format!("{tenant}\u{1f}{}", jobs_of(*id)));
        // Of the key alone: a template that was changed since the first try is still the same tick.
        let fingerprint = *blake3::hash(format!("{owner}\u{1f}{key}").as_bytes()).as_bytes();
        Idempotency { owner, key, fingerprint, item: 0 }
    }
}

/// Why a tick is no job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The name of the problem.
    pub code: String,
    /// What is wrong, in a sentence.
    pub detail: String,
}

/// What became of a tick that was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is this job: accepted now, or before.
    Job(JobId),
    /// It was refused, and would be again.
    Refused(Refusal),
    /// It was refused, and may pass in so many milliseconds.
    Later(Refusal, i64),
}

/// The way in: every check that a submit passes at the API, and what it is answered. Repeating a run gives the same job.
#[async_trait]
pub trait Submits: Send + Sync {
    /// Submits the job of a tick.
    async fn submit(&self, run: Run<'_>) -> Submitted;
}

/// What became of a new schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is there.
    New,
    /// The tenant has one of this name.
    NameTaken,
    /// The tenant has [`SCHEDULES_MAX`].
    TooMany,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangedSchedule {
    /// It is made.
    Done,
    /// The schedule is not as it was seen, or gone.
    Stale,
    /// The tenant has another one of this name.
    NameTaken,
}

/// Schedules in the journal. At most 15 verbs.
#[async_trait]
pub trait Schedules: Send + Sync {
    /// Now, by the clock that all processes share: the database's; of a journal of one process, that process's.
    async fn store_time(&self) -> Result<Timestamp, JournalError>;

    /// Keeps a new schedule. After the commit it outlives everything. A caller who gets no answer asks for the name.
    async fn add_schedule(&self, schedule: Schedule) -> Result<Added, JournalError>;

    /// A schedule.
    async fn schedule(&self, id: ScheduleId) -> Result<Option<Schedule>, JournalError>;

    /// A page of schedules, newest first: of a tenant, with a name, behind one.
    async fn schedules(
        &self,
        tenant: Option<&Name>,
        name: Option<&Name>,
        behind: Option<ScheduleId>,
        limit: usize,
    ) -> Result<Vec<Schedule>, JournalError>;

    /// Changes what people set, with progress and due time, if nobody has changed anything since its beat; the beat and the version are
    /// counted up. A scheduler that works on it finds another beat and leaves its cursor alone.
    async fn change_schedule(&self, schedule: Schedule) -> Result<ChangedSchedule, JournalError>;

    /// Forgets a schedule; `false` where there is none. Its jobs stay.
    async fn drop_schedule(&self, id: ScheduleId) -> Result<bool, JournalError>;

    /// Schedules that are due, those first that have been so for longest. They are due again at `until`, so that others leave them
    /// alone and a scheduler that dies holds up nobody for long; correctness does not hang on it.
    async fn claim_schedules(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Schedule>, JournalError>;

    /// Notes how far a schedule is and when it is due next, if nobody has changed anything since this beat; whether that was so.
    /// Follows the accept of the tick: a crash in between leaves the cursor, and the tick is submitted again as the same job.
    async fn advance_schedule(
        &self,
        id: ScheduleId,
        beat: i64,
        progress: Progress,
        due_at: Option<Timestamp>,
    ) -> Result<bool, JournalError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_has_one_key_and_its_own() {
        let now = Timestamp(1_790_000_000_000);
        let mut schedule = Schedule {
            id: ScheduleId::generate(),
            tenant: "acme".into(),
            name: "nightly".into(),
            key_id: "abcd1234".into(),
            template: "{}".into(),
            settings: Settings {
                when: When::Every { every_ms: 1_000, from: now },
                overlap: Overlap::Skip,
                missed: Missed::default(),
                paused: false,
                reason: None,
                description: None,
            },
            progress: Progress::from(now),
            version: 1,
            generation: 1,
            beat: 0,
            due_at: None,
            created_at: now,
        };
        let backfill = Backfill {
            number: 1,
            from: now,
            to: now,
            cursor: now,
            ticks: 1,
            submitted: 0,
            refused: 0,
            asked_by: "efgh5678".into(),
            began_at: now,
            finished_at: None,
        };
        let key = |schedule: &Schedule, tick: i64, backfill: Option<&Backfill>| {
            Run { schedule, tick: now.plus_ms(tick), backfill, now }.idempotency()
        };
        let first = key(&schedule, 0, None);
        assert_eq!(first, key(&schedule, 0, None));
        schedule.template = "{\"changed\": true}".into();
        schedule.version = 7;
        assert_eq!(first, key(&schedule, 0, None), "a changed template is the same tick");
        assert_ne!(first.key, key(&schedule, 1, None).key);
        assert_ne!(first.key, key(&schedule, 0, Some(&backfill)).key);
        schedule.generation = 2;
        assert_ne!(first.key, key(&schedule, 0, None).key);
        assert!(Name::checked(first.owner.as_str()).is_err(), "no caller has such a name");
        let run = Run { schedule: &schedule, tick: now, backfill: Some(&backfill), now };
        assert_eq!(run.key_id().as_str(), "efgh5678");
    }
}
