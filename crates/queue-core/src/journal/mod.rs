//! The truth: every accepted job, its attempts, its answers and every cent spent.
//!
//! Six seams over one store, so that each reader holds no more than it needs: [`Journal`] is the protocol of a job,
//! [`Ledger`] the money, [`Budgets`] what may be spent of it, [`Catalog`] what operators set, [`Orders`] what they order, [`Identity`] who may call,
//! [`Reads`] what people ask. A method that returns `Ok` has
//! committed durably; one that returns [`JournalError::Unavailable`] may or may not have, and must be asked again.

mod budgets;
mod catalog;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod costs;
mod identity;
mod lost;
mod orders;
pub mod postgres;
pub mod sqlite;
mod totals;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
pub use budgets::{Alert, Budgets};
use bytes::Bytes;
pub use catalog::{
    Backlog, BreakerMode, Catalog, Filling, KEY_CONCURRENCY_DEFAULT, QueueSettings, TargetSettings, TenantRules,
    TenantSettings, Versioned, WorkerSession,
};
pub use costs::{COST_LINES_MAX, CostColumn, CostQuery, CostRow, Ledger, RECENT_CALLS_MAX, RecentCall, Saved};
pub use identity::{
    ApiKey, GRANTS_MAX, Grant, Identity, KeyPage, Revocation, Revoked, Role, Rotation, TokenRevocation,
};
pub use lost::POISON_RECOVERIES;
pub use orders::{LOG_FILTER_MAX_BYTES, LogLevel, Maintenance, ORDERS_EVERY, ORDERS_HEARD, Orders, WorkerOrders};
pub use totals::{DeadGroup, Member, QueueTotals};

use crate::{
    dispatcher::{Entry, Place},
    error::JobError,
    fallback::Link,
    ids::{Epoch, Generation, Incarnation, JobId, Name, Nonce, SessionId},
    job::{AttemptRecord, Job, Kind, Loaded, NewJob},
    ledger::{CallRecord, Memo, Saving},
    private::Prompt,
    state::Standing,
    time::Timestamp,
};

/// Most jobs in one [`Journal::accept`]: a bulk request's bound.
pub const ACCEPT_MAX_JOBS: usize = 10_000;
/// Most rows of one page of any listing.
pub const PAGE_MAX_ROWS: usize = 1_000;

/// Why the journal did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// Disk full, read-only, locked, connection lost: try again later. Nothing was acknowledged.
    #[error("the journal is unavailable: {0}")]
    Unavailable(String),
    /// The store holds something that this version does not understand.
    #[error("the journal cannot be read: {0}")]
    Corrupt(String),
}

/// What became of one submitted job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Committed now.
    New,
    /// The same request was accepted before, as this job.
    Replayed(JobId),
    /// The idempotency key was used with another body, for this item of the request or for any other.
    KeyReused,
    /// A live job holds the unique key.
    Duplicate(JobId),
}

/// What was accepted under an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Hash of the body that came with the key.
    pub fingerprint: [u8; 32],
    /// The accepted items of the request, each with its job and when it was accepted. Items that were refused are not
    /// in it. At most [`ACCEPT_MAX_JOBS`].
    pub items: BTreeMap<u32, (JobId, Timestamp)>,
}

/// A claim as the journal needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The job.
    pub id: JobId,
    /// The epoch at which it was claimed.
    pub epoch: Epoch,
}

/// When a job is due again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At this moment: one that the journal gave, or a person.
    At(Timestamp),
    /// So long after the settle, by the journal's own clock: a worker whose clock is wrong retries neither early nor late.
    After(Duration),
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// With a result.
    Succeed {
        /// JSON text.
        result: Prompt,
    },
    /// With a passing error: another attempt follows; this one is spent.
    Retry {
        /// When it is due.
        due: Due,
        /// Why this one failed.
        error: JobError,
    },
    /// With a final error.
    Dead {
        /// Why.
        error: JobError,
    },
    /// It was given back, unspent.
    Release {
        /// When it is due again.
        due: Due,
        /// What it waits for, where there is an error to show.
        error: Option<JobError>,
        /// The target in whose lane it waits from now on, where that is another than before.
        target: Option<Name>,
    },
}

impl Outcome {
    /// The word of attempts and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Succeed { .. } => "succeed",
            Self::Retry { .. } => "retry",
            Self::Dead { .. } => "dead",
            Self::Release { .. } => "release",
        }
    }
}

/// The end of one attempt: state, attempt row, result, charge and the spend not yet recorded, in one transaction.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The claim.
    pub token: Token,
    /// The journal's life in which the attempt began.
    pub incarnation: Incarnation,
    /// How it ended.
    pub outcome: Outcome,
    /// The worker.
    pub session: SessionId,
    /// When the handler began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Calls that [`Journal::record`] has not stored yet; stored even when the settle is fenced.
    pub calls: Vec<CallRecord>,
    /// Answers that needed no call; stored even when the settle is fenced.
    pub savings: Vec<Saving>,
    /// `provider/model` of the answer.
    pub served_by: Option<String>,
}

/// What became of a settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Committed; the job now stands so, at this epoch, due at this moment if it is live.
    Done {
        /// Live or how it ended.
        standing: Standing,
        /// The epoch after the settle.
        epoch: Epoch,
        /// When it is due, if live.
        run_at: Timestamp,
    },
    /// The job moved on without us: nothing but the money was stored.
    Fenced,
}

/// A lease that ended without a settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The claim that was lost.
    pub token: Token,
    /// Which claim of the epoch, so that the dispatcher can be told to forget it.
    pub nonce: Nonce,
    /// Whether it counts towards poison.
    pub blame: Blame,
    /// The worker that was lost.
    pub session: SessionId,
    /// When its handler began, if it did.
    pub started_at: Option<Timestamp>,
}

/// Who is to blame for the loss of a worker: of the jobs whose handlers had started, those of the highest
/// [`Suspicion`](crate::dispatcher::Suspicion).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Not this job: it had not started, or somebody likelier died with it. It costs a new epoch and nothing else.
    Nobody,
    /// This job and others, any of which may have done it: the recovery counts and convicts nobody.
    Shared,
    /// Only this job: the recovery counts, and convicts it if there were [`POISON_RECOVERIES`].
    Alone,
}

impl Blame {
    /// What the recovery adds to the job's recoveries.
    pub fn count(self) -> u32 {
        u32::from(self != Self::Nobody)
    }
}

/// What became of a recovery.
#[derive(Clone, Debug)]
pub enum Recovered {
    /// Live again at a new epoch: push this.
    Again(Entry),
    /// Convicted: a dead letter now.
    Poisoned,
    /// It had moved on already.
    Moved,
}

/// What became of a cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It is cancelled now; it was live at this epoch.
    Done(Epoch),
    /// It had ended before.
    Final(Standing),
    /// No such job.
    Missing,
}

/// The attempt that a cancel interrupts, as the dispatcher knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// The epoch it runs at.
    pub epoch: Epoch,
    /// The worker.
    pub session: SessionId,
    /// When its handler began.
    pub started_at: Timestamp,
}

impl Interrupted {
    /// What a cancel of the job at this place interrupts.
    pub fn of(place: &Place) -> Option<Self> {
        match *place {
            Place::Leased { epoch, session, started_at: Some(started_at) } => Some(Self { epoch, session, started_at }),
            _ => None,
        }
    }
}

/// A change to a job that is not running; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// 0..=9.
    pub priority: Option<u8>,
    /// When it is due.
    pub run_at: Option<Timestamp>,
    /// The new payload with the target that it loads.
    pub payload: Option<(Bytes, Name)>,
}

/// What became of an edit or a redrive.
#[derive(Clone, Debug)]
pub enum Changed {
    /// Done: push this.
    Done(Entry),
    /// It stands where this cannot be done.
    Refused(Standing),
    /// It is at another epoch than the caller saw.
    Stale(Epoch),
    /// No such job.
    Missing,
}

/// A page of live jobs, in the order of their due time.
#[derive(Clone, Copy, Debug)]
pub struct LiveScan {
    /// Start behind this row; `None` starts at the first.
    pub after: Option<(Timestamp, JobId)>,
    /// Rows due at or before this moment.
    pub due_by: Timestamp,
    /// Rows accepted at or before this moment: younger ones may still be on their way to the dispatcher.
    pub accepted_by: Timestamp,
    /// At most this many, bounded by [`PAGE_MAX_ROWS`] × 10.
    pub limit: usize,
}

/// The protocol of a job. At most 15 verbs; adding one is an argument.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Commits new jobs, each with its own answer, in order. A crash before the commit leaves none of them, a crash
    /// after it all; asking again with the same ids and keys gives the same answers.
    async fn accept(&self, jobs: Vec<NewJob>) -> Result<Vec<Accepted>, JournalError>;

    /// The claimed rows that are live at exactly the claimed epoch, due, and of this incarnation; `None` for others.
    /// Writes nothing.
    async fn load(&self, claims: &[Token], now: Timestamp) -> Result<Vec<Option<Loaded>>, JournalError>;

    /// Ends an attempt, once: the row must be live at the token's epoch. Spend and memos are stored either way.
    async fn settle(&self, settlement: Settlement) -> Result<Settled, JournalError>;

    /// Stores a call's memo and spend, unconditionally and idempotently. After it, no re-run pays for it again.
    async fn record(&self, call: CallRecord) -> Result<(), JournalError>;

    /// The kept answers of a job, all of them: an attempt asks once, at its start.
    async fn memos(&self, id: JobId) -> Result<Vec<Memo>, JournalError>;

    /// Bumps the epoch of jobs whose worker was lost; convicts those that are blamed alone after [`POISON_RECOVERIES`].
    async fn recover(&self, recoveries: Vec<Recovery>) -> Result<Vec<Recovered>, JournalError>;

    /// Bumps the epoch of live rows that the dispatcher does not know, and returns what to push; rows that moved on
    /// are left out.
    async fn reconcile(&self, unknown: Vec<Token>) -> Result<Vec<Entry>, JournalError>;

    /// A page of live rows by (run_at, id). Cost depends on the page, not on the journal.
    async fn live(&self, scan: LiveScan) -> Result<Vec<Entry>, JournalError>;

    /// Cancels a live job at whatever epoch it has, bumping it: a running attempt is fenced from then on. `attempt` is
    /// written down with the outcome `cancel` if it is of the job's present epoch; it spends nothing.
    async fn cancel(
        &self,
        id: JobId,
        reason: Option<String>,
        attempt: Option<Interrupted>,
        now: Timestamp,
    ) -> Result<Cancelled, JournalError>;

    /// Changes a live job, bumping its epoch. The caller has withdrawn it from the dispatcher before.
    async fn edit(&self, id: JobId, seen: Option<Epoch>, edit: Edit, now: Timestamp) -> Result<Changed, JournalError>;

    /// Gives a dead letter another life: new attempt budget, recoveries forgotten, memos kept.
    async fn redrive(&self, id: JobId, now: Timestamp) -> Result<Changed, JournalError>;

    /// Likewise, with a new payload and the target that it loads, in one transaction: nobody can claim the old one. Kept
    /// answers stay, and are found by calls that are still the same.
    async fn redrive_with(&self, id: JobId, payload: (Bytes, Name), now: Timestamp) -> Result<Changed, JournalError>;

    /// The journal's life.
    fn incarnation(&self) -> Incarnation;

    /// Begins a new life of the dispatcher, which is to be filled, and returns its number. See [`Catalog::filling`].
    async fn new_generation(&self) -> Result<Generation, JournalError>;

    /// Whether a write would be accepted now: what readiness reports.
    async fn check(&self) -> Result<(), JournalError>;
}

/// What a job list is narrowed by; empty fields do not narrow.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Exact queue.
    pub queue: Option<Name>,
    /// Exact kind.
    pub kind: Option<Kind>,
    /// How it stands; `scheduled` and `ready` are told apart by `due` below.
    pub standing: Option<Standing>,
    /// Live jobs due by then (`true`) or later (`false`).
    pub due: Option<(bool, Timestamp)>,
    /// Exact tenant.
    pub tenant: Option<Name>,
    /// Submitted with this key.
    pub key_id: Option<Name>,
    /// Error class of the last error.
    pub error_class: Option<String>,
    /// Error signature of the last error.
    pub signature: Option<String>,
    /// Exact batch.
    pub batch_id: Option<String>,
    /// Exact operation.
    pub operation: Option<String>,
    /// Text that the operation, the unique key, a tag, the last error or the id contains.
    pub text: Option<String>,
    /// Accepted at or after.
    pub since: Option<Timestamp>,
    /// Accepted before.
    pub until: Option<Timestamp>,
    /// Start behind this job (newest first).
    pub before: Option<JobId>,
    /// At most this many, bounded by [`PAGE_MAX_ROWS`].
    pub limit: usize,
}

impl JobFilter {
    /// Whether a job that was found another way is one that [`Reads::list`] would find.
    pub fn meets(&self, job: &Job) -> bool {
        fn is<T: PartialEq>(wanted: &Option<T>, found: &T) -> bool {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        }
        fn is_some<T: PartialEq>(wanted: &Option<T>, found: &Option<T>) -> bool {
            wanted.is_none() || wanted == found
        }
        let contains = |text: &String| {
            let text = text.to_ascii_lowercase();
            let found = |field: &str| field.to_ascii_lowercase().contains(&text);
            [&job.operation, &job.unique_key].into_iter().flatten().any(|field| found(field))
                || job.tags.iter().any(|tag| found(tag))
                || job.error.as_ref().is_some_and(|error| found(&error.message))
                || found(&job.id.to_string())
        };
        let is_due = |(wanted, at): (bool, Timestamp)| job.standing == Standing::Live && (job.run_at <= at) == wanted;
        is(&self.queue, &job.queue)
            && is(&self.kind, &job.kind)
            && is(&self.standing, &job.standing)
            && self.due.is_none_or(is_due)
            && is(&self.tenant, &job.tenant)
            && is_some(&self.key_id, &job.key_id)
            && is_some(&self.batch_id, &job.batch_id)
            && is_some(&self.operation, &job.operation)
            && is_some(&self.error_class, &job.error.as_ref().map(|error| error.class.to_string()))
            && is_some(&self.signature, &job.error.as_ref().map(|error| error.signature.clone()))
            && self.text.as_ref().is_none_or(contains)
            && self.since.is_none_or(|since| job.accepted_at >= since)
            && self.until.is_none_or(|until| job.accepted_at < until)
            && self.before.is_none_or(|before| job.id < before)
    }
}

/// Whose jobs a question is about; nothing: everybody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Within {
    /// Of this tenant.
    pub tenant: Option<Name>,
    /// Submitted with this key.
    pub key_id: Option<Name>,
}

/// A page of jobs.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Newest first.
    pub jobs: Vec<Job>,
    /// The store has looked through as many rows as one question may cost and the page is not full: go on behind this
    /// job. `None`: nothing older matches, or the page is full.
    pub go_on_behind: Option<JobId>,
}

/// What people ask. Never writes; every answer is bounded.
#[async_trait]
pub trait Reads: Send + Sync {
    /// The same for a caller of a tenant: where the store has a second wall (row-level security in Postgres), nothing of
    /// another tenant is read behind it, whatever is asked for. It is no substitute for asking within a tenant.
    fn bound_to(&self, tenant: &Name) -> Arc<dyn Reads>;

    /// The rows of these jobs, in order; `None` where there is none.
    async fn jobs(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, JournalError>;

    /// The payload of a job.
    async fn payload(&self, id: JobId) -> Result<Option<Bytes>, JournalError>;

    /// The fallback chain of a job; empty where it has none.
    async fn fallback(&self, id: JobId) -> Result<Vec<Link>, JournalError>;

    /// The result of a succeeded job.
    async fn result(&self, id: JobId) -> Result<Option<Bytes>, JournalError>;

    /// The attempts of a job, oldest first.
    async fn attempts(&self, id: JobId) -> Result<Vec<AttemptRecord>, JournalError>;

    /// The provider calls of a job, oldest first, without their memos.
    async fn calls(&self, id: JobId) -> Result<Vec<CallRecord>, JournalError>;

    /// The answers of a job that needed no provider call, oldest first.
    async fn savings(&self, id: JobId) -> Result<Vec<Saving>, JournalError>;

    /// A page of jobs, newest first. Its cost is bounded, whatever the filter: a page may end before it is full.
    async fn list(&self, filter: &JobFilter) -> Result<Listed, JournalError>;

    /// Dead letters by cause, most first, at most [`PAGE_MAX_ROWS`].
    async fn dead_groups(&self, queue: Option<&Name>, within: &Within) -> Result<Vec<DeadGroup>, JournalError>;

    /// Totals of every queue. Cost depends on the number of queues, not of jobs.
    async fn totals(&self) -> Result<BTreeMap<Name, QueueTotals>, JournalError>;

    /// Jobs of a batch by standing; empty when nobody named the batch. Several tenants may use one name.
    async fn batch(&self, batch_id: &str, within: &Within) -> Result<BTreeMap<Standing, u64>, JournalError>;

    /// The newest jobs of each of these batches, newest first, at most `each` of one. Cost depends on the answer, not on the batches.
    async fn newest_of(&self, batches: &[String], each: usize) -> Result<Vec<Vec<Member>>, JournalError>;

    /// What was accepted under an idempotency key; `None` for a key that accepted nothing. An accept that is not
    /// answered yet may be missing.
    async fn answered(&self, owner: &Name, key: &str) -> Result<Option<Answered>, JournalError>;

    /// Number of live jobs in each queue.
    async fn live_counts(&self) -> Result<BTreeMap<Name, u64>, JournalError>;
}
