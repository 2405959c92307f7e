//! Retention: how long each class of things is kept, what happens to it then, and what stands in the way.
//!
//! What is old goes in small steps, each a commit of its own that looks again at what it takes: whoever dies between two steps
//! leaves the rest for the next, two who are at it at once find less to do, and doing it again does nothing. In Postgres the
//! rows of jobs are in tables by day of acceptance, which are dropped whole where all of a day has ended for long enough; what is left of
//! days that cannot be dropped goes row by row. A result is in the row of its job or goes before it, so it never outlives its job.
//! Money is never touched but for single calls, charges and savings, whose sums by day stay.

mod plan;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use self::plan::{
    AUDIT_DAYS_MAX, Count, Held, Line, Plan, droppable, is_old, is_old_day, letters_filter, plan, settled_bound,
};
use crate::{
    ids::{Epoch, JobId, Name},
    journal::{JournalError, QueueSettings, Versioned},
    schedule::WINDOW_MAX_MS,
    time::{DAY_MS, Timestamp},
};

/// Most rows of one step: a transaction of some ten milliseconds.
pub const STEP_MAX_ROWS: usize = 5_000;
/// How far is counted for people.
pub const COUNT_MAX: usize = 1_000_000;
/// How long the result of a job that has not succeeded is not looked at again, at the least: a short time of its own would have it looked at
/// all the time.
pub(crate) const LOOK_AGAIN_MS: i64 = 60_000;
// The texts of `idempotency_old`, `idempotency_forget` and `pile_keys` have it as a number: so much longer than others the keys of
// schedules' ticks are kept. A tick that was missed is submitted for as long as the window, by a scheduler that may not know that
// another did so before it died.
const _: () = assert!(WINDOW_MAX_MS + DAY_MS == 691_200_000);
/// How old the rows of a day must be at the least before its table may go: those that were accepted in its last moment may have ended
/// a day later, and later ends are noted one by one.
pub(crate) const DAY_SLACK_MS: i64 = 2 * DAY_MS;

/// The end of the last day that may be dropped whole at this cutoff: what is older and is still there goes row by row.
pub(crate) fn days_end(cutoff: Timestamp) -> Timestamp {
    cutoff.plus_ms(-DAY_MS).start_of_day()
}

/// Something that is kept for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Jobs that succeeded or were cancelled, with their results.
    Jobs,
    /// What such jobs were submitted with, and answers that were kept for another attempt.
    Payloads,
    /// How attempts of such jobs ended, with their errors.
    Errors,
    /// Results of jobs that say how long theirs are kept.
    Results,
    /// Dead letters.
    DeadLetters,
    /// Idempotency keys.
    IdempotencyKeys,
    /// Single calls, charges and savings. Their sums by day stay for ever.
    CostDetails,
    /// The audit log.
    Audit,
    /// What was delivered by webhooks.
    WebhookDeliveries,
    /// Operations that have ended.
    Operations,
    /// What archives hold of dead letters.
    Archives,
    /// What happens while a job runs.
    Events,
    /// Answers and vectors that others may use.
    Caches,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 13] = [
        Self::Jobs,
        Self::Payloads,
        Self::Errors,
        Self::Results,
        Self::DeadLetters,
        Self::IdempotencyKeys,
        Self::CostDetails,
        Self::Audit,
        Self::WebhookDeliveries,
        Self::Operations,
        Self::Archives,
        Self::Events,
        Self::Caches,
    ];

    /// The word of the API, of the configuration and of the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Payloads => "payloads",
            Self::Errors => "errors",
            Self::Results => "results",
            Self::DeadLetters => "dead_letters",
            Self::IdempotencyKeys => "idempotency_keys",
            Self::CostDetails => "cost_details",
            Self::Audit => "audit",
            Self::WebhookDeliveries => "webhook_deliveries",
            Self::Operations => "operations",
            Self::Archives => "archives",
            Self::Events => "events",
            Self::Caches => "caches",
        }
    }

    /// The class with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == word)
    }
}

/// What happens to what is old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Whole days are dropped; what is left of days that cannot be goes row by row.
    DropPartition,
    /// It goes row by row.
    Delete,
    /// It goes into objects, by an operation.
    Archive,
    /// It is written to objects, and then goes row by row.
    Export,
    /// It ends by itself.
    Expire,
    /// It stays.
    Keep,
}

impl Action {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DropPartition => "drop_partition",
            Self::Delete => "delete",
            Self::Archive => "archive",
            Self::Export => "export",
            Self::Expire => "expire",
            Self::Keep => "keep",
        }
    }
}

/// How long each class is kept, in milliseconds; `None`: for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// [`Class::Jobs`], from their end on.
    pub jobs_ms: Option<i64>,
    /// [`Class::Payloads`], likewise; never longer than the jobs.
    pub payloads_ms: Option<i64>,
    /// [`Class::Errors`], likewise.
    pub errors_ms: Option<i64>,
    /// [`Class::DeadLetters`], from their death on.
    pub dead_letters_ms: Option<i64>,
    /// [`Class::IdempotencyKeys`], from their job's acceptance on.
    pub idempotency_keys_ms: Option<i64>,
    /// [`Class::CostDetails`].
    pub cost_details_ms: Option<i64>,
    /// [`Class::Audit`]; never less than a year, see the schema.
    pub audit_ms: Option<i64>,
    /// [`Class::WebhookDeliveries`], from their end on.
    pub webhook_deliveries_ms: Option<i64>,
    /// Nothing goes, for this reason.
    pub hold: Option<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            jobs_ms: Some(90 * DAY_MS),
            payloads_ms: Some(30 * DAY_MS),
            errors_ms: Some(90 * DAY_MS),
            dead_letters_ms: Some(30 * DAY_MS),
            idempotency_keys_ms: Some(DAY_MS),
            cost_details_ms: Some(730 * DAY_MS),
            audit_ms: Some(2_557 * DAY_MS),
            webhook_deliveries_ms: Some(7 * DAY_MS),
            hold: None,
        }
    }
}

impl Policy {
    /// How long a class is kept, where the policy decides that.
    pub fn age_ms(&self, class: Class) -> Option<i64> {
        match class {
            Class::Jobs => self.jobs_ms,
            Class::Payloads => shorter(self.payloads_ms, self.jobs_ms),
            Class::Errors => shorter(self.errors_ms, self.jobs_ms),
            Class::DeadLetters => self.dead_letters_ms,
            Class::IdempotencyKeys => self.idempotency_keys_ms,
            Class::CostDetails => self.cost_details_ms,
            Class::Audit => self.audit_ms,
            Class::WebhookDeliveries => self.webhook_deliveries_ms,
            Class::Operations => Some(crate::operations::KEPT_MS),
            Class::Results | Class::Archives | Class::Events | Class::Caches => None,
        }
    }

    /// The moment before which a class is old; `None`: it never is.
    pub fn cutoff(&self, class: Class, now: Timestamp) -> Option<Timestamp> {
        self.age_ms(class).map(|age| now.plus_ms(age.saturating_neg()))
    }
}

fn shorter(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    [a, b].into_iter().flatten().min()
}

/// Before when settled jobs are old, by queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cutoffs {
    /// For queues that are not named; `None`: never.
    pub others: Option<Timestamp>,
    /// For queues with a time of their own.
    pub queues: BTreeMap<Name, Timestamp>,
}

impl Cutoffs {
    /// What the policy and the queues' own times come to at `now`.
    pub fn of(policy: &Policy, queues: &BTreeMap<Name, Versioned<QueueSettings>>, now: Timestamp) -> Self {
        let own = |settings: &QueueSettings| {
            settings.retention_ms.map(|age| now.plus_ms(i64::try_from(age).unwrap_or(i64::MAX).saturating_neg()))
        };
        let queues = queues.iter().filter_map(|(queue, settings)| Some((queue.clone(), own(&settings.value)?)));
        Self { others: policy.cutoff(Class::Jobs, now), queues: queues.collect() }
    }

    /// For this queue.
    pub fn for_queue(&self, queue: &Name) -> Option<Timestamp> {
        self.queues.get(queue).copied().or(self.others)
    }

    /// Before this, the jobs of all queues are old.
    pub fn of_all(&self) -> Option<Timestamp> {
        self.queues.values().copied().fold(self.others, |least, own| least.map(|least| least.min(own)))
    }

    /// Before this, those of some queue are.
    pub fn of_any(&self) -> Option<Timestamp> {
        self.queues.values().copied().chain(self.others).max()
    }
}

/// A table that has the rows of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Settled jobs with their results.
    Jobs,
    /// Payloads.
    Payloads,
    /// Kept answers.
    Memos,
    /// Attempts.
    Errors,
}

impl Part {
    /// The class that it belongs to.
    pub fn class(self) -> Class {
        match self {
            Self::Jobs => Class::Jobs,
            Self::Payloads | Self::Memos => Class::Payloads,
            Self::Errors => Class::Errors,
        }
    }
}

/// A day with a table of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// What is in it.
    pub part: Part,
    /// Its begin.
    pub day: Timestamp,
    /// About how many rows.
    pub rows: u64,
    /// Bytes on disk, with indexes.
    pub bytes: u64,
    /// The last end of a job of the day that ended more than a day after its acceptance.
    pub last_end: Option<Timestamp>,
    /// Jobs of the day that may run; 1,001 stand for more.
    pub live: u64,
    /// Dead letters of the day, likewise.
    pub dead: u64,
}

/// Rows that go by age, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Payloads and kept answers of settled jobs; where days have tables of their own, those of days that are old enough to be dropped and
    /// are held, and of no day.
    Payloads,
    /// Attempts of settled jobs, likewise.
    Errors,
    /// Results whose own time is over at that moment.
    Results,
    /// Idempotency keys.
    IdempotencyKeys,
    /// Calls, charges and savings.
    CostDetails,
    /// Deliveries that have ended.
    WebhookDeliveries,
    /// What was noted of days whose tables are gone.
    DayNotes,
}

/// What there is of such rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pile {
    /// Those that are older than was asked for, counted up to [`COUNT_MAX`].
    pub old: u64,
    /// What the age of the oldest of all counts from.
    pub oldest: Option<Timestamp>,
}

/// What a step has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Rows that were looked at; 0: there are none.
    pub looked: u64,
    /// Of them, results that went.
    pub gone: u64,
}

/// A settled job, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledRow {
    /// The job.
    pub id: JobId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its queue.
    pub queue: Name,
    /// When it ended; `None`: it has not, or is a dead letter.
    pub finished_at: Option<Timestamp>,
}

/// What a store knows of the time without the process that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// Its own clock.
    Clock(Timestamp),
    /// It has none: when the newest job was accepted, or ended; `None`: there is no job.
    Newest(Option<Timestamp>),
}

/// Who is at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Grows whenever somebody takes the turn.
    pub beat: i64,
    /// Runs that were ordered so far.
    pub orders: i64,
    /// Of them, those that the last run has begun after.
    pub taking: i64,
    /// Of them, those that a run which has ended had begun after.
    pub served: i64,
    /// When the last run began.
    pub began_at: Option<Timestamp>,
    /// When the last one ended.
    pub ended_at: Option<Timestamp>,
    /// When the next one is due.
    pub due_at: Timestamp,
    /// What the last run that ended has left, and why; `None`: nothing.
    pub remains: Option<String>,
}

impl Turn {
    /// Whether a run is due.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.due_at <= now || self.orders > self.taking
    }
}

/// What went of a class so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// In all: rows, tables of days, or operations that were begun.
    pub removed: u64,
    /// The last time.
    pub last: u64,
    /// When that was.
    pub last_at: Timestamp,
    /// All before it may be gone.
    pub edge: Option<Timestamp>,
}

/// What is old in the journal. At most 15 verbs; each write is one commit, and may be done again by anybody.
#[async_trait]
pub trait Retention: Send + Sync {
    /// What speaks for the time: whoever takes away what is old by a clock that is wrong takes away what is not.
    async fn witness(&self) -> Result<Witness, JournalError>;

    /// Who is at it.
    async fn turn(&self) -> Result<Turn, JournalError>;

    /// Orders a run now, and returns the order's number: it was served once [`Turn::served`] has come to it.
    async fn order_turn(&self) -> Result<i64, JournalError>;

    /// Takes the turn at the beat that was seen, until `until` if it is not given back before; `None` where somebody else came first. A turn
    /// only saves work: whoever works without it does no harm.
    async fn take_turn(&self, beat: i64, now: Timestamp, until: Timestamp) -> Result<Option<Turn>, JournalError>;

    /// Gives the turn back that was taken with this beat, and says what the run has left.
    async fn end_turn(
        &self,
        beat: i64,
        now: Timestamp,
        next: Timestamp,
        remains: Option<String>,
    ) -> Result<(), JournalError>;

    /// What went so far.
    async fn notes(&self) -> Result<BTreeMap<Class, Note>, JournalError>;

    /// Notes that something went.
    async fn note(
        &self,
        class: Class,
        removed: u64,
        now: Timestamp,
        edge: Option<Timestamp>,
    ) -> Result<(), JournalError>;

    /// Days that began before this moment and have tables of their own, oldest first; `None`: this store has no such tables.
    async fn days(&self, before: Timestamp) -> Result<Option<Vec<Day>>, JournalError>;

    /// Takes a day away, if all that is in it ended before `cutoff` and no job of that day may run again: both are looked at while
    /// nobody can add to the day. Bytes that [`Retention::reclaim_day`] frees; `None` where it is kept, or went before. A crash of
    /// the store may bring it back.
    async fn drop_day(&self, part: Part, day: Timestamp, cutoff: Timestamp) -> Result<Option<u64>, JournalError>;

    /// Gives back what one table of a dropped day took, whoever dropped it; `false`: there is none. Nobody waits for it. A crash before
    /// leaves it to the next call.
    async fn reclaim_day(&self) -> Result<bool, JournalError>;

    /// What there is of rows.
    async fn pile(&self, rows: Rows, before: Timestamp) -> Result<Pile, JournalError>;

    /// Takes away at most about `limit` of the rows that are older than `before`, and returns how many; 0: there are none. Of results, that is
    /// [`Retention::expire_results`].
    async fn sweep(&self, rows: Rows, before: Timestamp, limit: usize) -> Result<u64, JournalError>;

    /// Looks at no more than about `limit` results whose own time may be over at `now`: those whose time is over go, the others are put off.
    async fn expire_results(&self, now: Timestamp, limit: usize) -> Result<Looked, JournalError>;

    /// Settled jobs behind `after` and below `below`, by id, which is by acceptance; at most `limit`. A job that has not settled may be
    /// among them.
    async fn settled(&self, after: Option<JobId>, below: JobId, limit: usize) -> Result<Vec<SettledRow>, JournalError>;

    /// Takes away those of these jobs that are settled at that epoch, with all that is kept of them but their money; how many.
    async fn forget_jobs(&self, jobs: Vec<(JobId, Epoch)>) -> Result<u64, JournalError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_words() {
        for class in Class::ALL {
            assert_eq!(Class::parse(class.as_str()), Some(class));
            assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
        }
    }

    #[test]
    fn a_queue_may_keep_shorter_and_longer() {
        let now = Timestamp(1_000 * DAY_MS);
        let kept = |days: u64| Versioned {
            version: 1,
            value: QueueSettings { retention_ms: Some(days * DAY_MS as u64), ..QueueSettings::default() },
        };
        let queues = BTreeMap::from([
            (Name::from("short"), kept(7)),
            (Name::from("long"), kept(365)),
            (Name::from("as all"), Versioned { version: 1, value: QueueSettings::default() }),
        ]);
        let cutoffs = Cutoffs::of(&Policy::default(), &queues, now);
        let ago = |days: i64| Some(now.plus_ms(-days * DAY_MS));
        assert_eq!(cutoffs.for_queue(&"short".into()), ago(7));
        assert_eq!(cutoffs.for_queue(&"as all".into()), ago(90));
        assert_eq!((cutoffs.of_all(), cutoffs.of_any()), (ago(365), ago(7)));
        let forever = Cutoffs::of(&Policy { jobs_ms: None, ..Policy::default() }, &queues, now);
        assert_eq!((forever.of_all(), forever.of_any()), (None, ago(7)));
        let short = Policy { jobs_ms: Some(DAY_MS), ..Policy::default() };
        assert_eq!(short.age_ms(Class::Payloads), Some(DAY_MS), "nothing outlives its job");
    }
}
