//! Operations: one thing done to many jobs, at a rate, from a row of the journal.
//!
//! Whoever accepts an operation only keeps it. A scheduler takes it and walks the jobs of its filter, newest first, in steps: what
//! a step does to jobs, how far it came and what it counts are one transaction, and it happens only while the operation runs
//! and still is that walker's. So the walker may die at any statement, another one goes on behind the last step, no job
//! is met twice and no count is wrong; an abort that has committed is not followed by anything.

mod estimate;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::estimate::{Estimates, SINCE_MS};
use crate::{
    archive::ArchiveObject,
    dispatcher::Entry,
    filter::{Field, Filter},
    ids::{Epoch, JobId, Name, OperationId, SessionId},
    journal::JournalError,
    ledger::Nanousd,
    state::{Standing, State},
    time::Timestamp,
};

/// Most jobs of one step: a transaction of some 50 ms, which claims and settles wait behind, and an abort too.
pub const STEP_MAX_JOBS: usize = 500;
/// Jobs a second of an operation that names no rate.
pub const RATE_DEFAULT_PER_S: u32 = 500;
/// Most jobs a second that an operation may ask for: about what one walker can do.
pub const RATE_MAX_PER_S: u32 = 10_000;
/// How long an operation that has ended is remembered.
pub const KEPT_MS: i64 = 90 * 24 * 60 * 60 * 1_000;

/// What is done to each job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Dead letters get another life.
    Redrive,
    /// Dead letters go out of the journal, into an archive.
    Archive,
    /// Live jobs end.
    Cancel,
    /// Jobs that have ended are forgotten. What they cost is not.
    Delete,
    /// The dead letters that are there now leave, to where [`Order::goal`] says.
    Drain,
    /// Jobs that workers hold are given to others.
    Reclaim,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 6] = [Self::Redrive, Self::Archive, Self::Cancel, Self::Delete, Self::Drain, Self::Reclaim];

    /// The word of the API and of the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Archive => "archive",
            Self::Cancel => "cancel",
            Self::Delete => "delete",
            Self::Drain => "drain",
            Self::Reclaim => "reclaim",
        }
    }

    /// The action with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }

    /// The states of jobs to which this can be done.
    pub fn of_states(self) -> &'static [State] {
        match self {
            Self::Redrive | Self::Archive | Self::Drain => &[State::Dead],
            Self::Cancel => &[State::Scheduled, State::Ready, State::Running],
            Self::Delete => &[State::Succeeded, State::Dead, State::Cancelled],
            Self::Reclaim => &[State::Running],
        }
    }

    /// The only standing of such jobs, where there is only one: what the journal can narrow its lists by.
    pub fn of_standing(self) -> Option<Standing> {
        match self {
            Self::Redrive | Self::Archive | Self::Drain => Some(Standing::Dead),
            Self::Cancel | Self::Reclaim => Some(Standing::Live),
            Self::Delete => None,
        }
    }

    /// Whether the jobs run again, and so cost again.
    pub fn runs_again(self) -> bool {
        matches!(self, Self::Redrive | Self::Reclaim)
    }
}

/// How an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationState {
    /// Somebody walks it, or will.
    Running,
    /// All jobs of the filter were met, or as many as were asked for.
    Done,
    /// Someone has ended it.
    Aborted,
    /// The next job would have passed its cost cap.
    Capped,
    /// It cannot go on; [`Operation::error`] says why.
    Failed,
}

impl OperationState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Running, Self::Done, Self::Aborted, Self::Capped, Self::Failed];

    /// The word of the API and of the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Aborted => "aborted",
            Self::Capped => "capped",
            Self::Failed => "failed",
        }
    }

    /// The state with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What is done to each job.
    pub action: Action,
    /// Where a drain puts the letters; `None` for everything else.
    pub goal: Option<Action>,
    /// Which jobs, as [`Filter`] prints it: with moments where it said ages.
    pub filter: String,
    /// The only queue that the filter means; `None` for several.
    pub queue: Option<Name>,
    /// Only count.
    pub dry_run: bool,
    /// Jobs a second.
    pub rate_per_s: u32,
    /// End after so many jobs.
    pub max_jobs: Option<u64>,
    /// End before more than this is expected to be spent.
    pub max_cost: Option<Nanousd>,
    /// Reclaim also what living workers hold.
    pub force: bool,
    /// For the record, and for those who ask about a cancelled job.
    pub reason: Option<String>,
    /// The public part of the key that asked.
    pub asked_by: Name,
}

impl Order {
    /// What is really done to each job.
    pub fn effect(&self) -> Action {
        self.goal.unwrap_or(self.action)
    }

    /// Whether its steps take letters out of the journal that objects hold.
    pub fn takes_objects(&self) -> bool {
        self.effect() == Action::Archive && !self.dry_run
    }

    /// The queue as the journal's constraint has it.
    pub(crate) fn queue_word(&self) -> &str {
        self.queue.as_ref().map_or("", Name::as_str)
    }
}

/// What an operation came to so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Jobs of the filter that were met: the sum of the next three, and in a dry run also those that would have been done.
    pub matched: u64,
    /// Jobs to which it was done.
    pub done: u64,
    /// Jobs that were left alone: they had moved on, a living worker held them, or nobody knows what they would cost.
    pub skipped: u64,
    /// Jobs at which the journal failed.
    pub failed: u64,
    /// What the jobs that were done are expected to cost again; in a dry run, those that would be.
    pub cost: Nanousd,
    /// Jobs of these whose cost nobody can estimate.
    pub unestimated: u64,
}

/// An operation as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What was asked for.
    pub order: Order,
    /// How it stands.
    pub state: OperationState,
    /// Who walks it.
    pub owner: Option<Uuid>,
    /// Grows with every step.
    pub beat: i64,
    /// Jobs from the newest down to this one are dealt with.
    pub behind: Option<JobId>,
    /// What it came to so far.
    pub counts: Counts,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was asked for.
    pub accepted_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// What became of a new operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is kept.
    New(Operation),
    /// This one of the same action and queue has to end first.
    InTheWay(Operation),
}

/// What became of an abort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aborted {
    /// It has ended now.
    Done(Operation),
    /// It had ended before.
    Ended(Operation),
    /// There is no such operation.
    Missing,
}

/// A job of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The job.
    pub id: JobId,
    /// The epoch at which the filter met it. A page may be a second old: what has moved on meanwhile is not redriven, deleted
    /// or archived, although it may be dead again. A cancel holds at any epoch, and a reclaim at its holder's.
    pub epoch: Epoch,
    /// What it is expected to cost again; `None`: nobody knows.
    pub cost: Option<Nanousd>,
    /// The claim that a worker has on it.
    pub holder: Option<Holder>,
}

/// A claim, as the dispatcher told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The epoch of the claim.
    pub epoch: Epoch,
    /// The worker.
    pub session: SessionId,
    /// When the handler began.
    pub started_at: Option<Timestamp>,
}

/// What a walker has come to at once.
#[derive(Clone, Debug)]
pub struct Step {
    /// The operation.
    pub id: OperationId,
    /// The walker.
    pub owner: Uuid,
    /// The beat that it has seen last.
    pub beat: i64,
    /// Jobs to which it is to be done, at most [`STEP_MAX_JOBS`], each once.
    pub picks: Vec<Pick>,
    /// Of an archive: the objects that hold all that is kept of the picks, and nothing else.
    pub objects: Vec<ArchiveObject>,
    /// Jobs that were left alone.
    pub skipped: u64,
    /// Jobs at which the journal failed.
    pub failed: u64,
    /// Jobs down to this one are dealt with; `None`: as far as before.
    pub behind: Option<JobId>,
    /// The step is the last one, and this is how it stands then, with the reason of a failure.
    pub end: Option<(OperationState, Option<String>)>,
}

impl Step {
    /// A step of this operation that does nothing but show that its walker lives.
    pub fn beat(operation: &Operation, owner: Uuid) -> Self {
        Self {
            id: operation.id,
            owner,
            beat: operation.beat,
            picks: vec![],
            objects: vec![],
            skipped: 0,
            failed: 0,
            behind: None,
            end: None,
        }
    }
}

/// What became of a step.
#[derive(Clone, Debug)]
pub enum Stepped {
    /// It is committed.
    Done {
        /// The operation after it.
        operation: Box<Operation>,
        /// Jobs that are live at a new epoch: push these.
        entries: Vec<Entry>,
        /// Jobs to which it was done.
        changed: Vec<JobId>,
    },
    /// A job is not any more what its object was made of, or there is no object: nothing was done. The objects are no part of
    /// anything; others are to be written.
    Moved,
    /// The operation has ended, or somebody else walks it: nothing was done.
    Lost,
}

/// What a step counts, once it is known to which jobs it was done.
pub(crate) fn counted(order: &Order, step: &Step, was_done: impl Fn(JobId) -> bool) -> Counts {
    let (mut done, mut cost, mut unestimated) = (0, Nanousd(0), 0);
    for pick in step.picks.iter().filter(|pick| order.dry_run || was_done(pick.id)) {
        done += 1;
        match pick.cost {
            Some(expected) => cost = Nanousd(cost.0.saturating_add(expected.0)),
            None => unestimated += 1,
        }
    }
    let picks = step.picks.len() as u64;
    Counts {
        matched: picks + step.skipped + step.failed,
        done: if order.dry_run { 0 } else { done },
        skipped: step.skipped + if order.dry_run { 0 } else { picks - done },
        failed: step.failed,
        cost,
        unestimated,
    }
}

/// Operations as the journal keeps them, and their steps.
#[async_trait]
pub trait Operations: Send + Sync {
    /// Keeps a new operation, unless one of the same action and queue runs: the journal's own constraint tells that. Of two
    /// that come at once one is kept. Asking again with the same id tells the same.
    async fn begin(&self, id: OperationId, order: Order, now: Timestamp) -> Result<Begun, JournalError>;

    /// The operation with this id.
    async fn operation(&self, id: OperationId) -> Result<Option<Operation>, JournalError>;

    /// At most `limit` operations, newest first, from behind this one on; `running` leaves those out that have ended.
    async fn operations(
        &self,
        behind: Option<OperationId>,
        running: bool,
        limit: usize,
    ) -> Result<Vec<Operation>, JournalError>;

    /// Makes `owner` the one who walks an operation, or nobody, if it runs and still stands at this beat: not if its
    /// walker has shown a sign of life since, or another came first. A crash after the commit leaves an operation whose beat
    /// stands still.
    async fn take(&self, id: OperationId, beat: i64, owner: Option<Uuid>) -> Result<Option<Operation>, JournalError>;

    /// Does a step: the effects on its jobs, its place and its counts, all of it or nothing. Jobs that have moved on are left
    /// alone and counted as skipped. A crash before the commit leaves the step before; one after it leaves entries that nobody
    /// has pushed, which the reconciler finds. A caller who gets no answer reads the operation and goes on with what it says.
    async fn step(&self, step: Step, now: Timestamp) -> Result<Stepped, JournalError>;

    /// Ends an operation. After this has committed, no step of it will.
    async fn abort(&self, id: OperationId, now: Timestamp) -> Result<Aborted, JournalError>;
}

/// Which jobs an action can be done to of those that a filter means, or why there can be none.
///
/// # Errors
/// Says which states the filter would have to mean.
pub fn fits(action: Action, filter: &Filter) -> Result<(), String> {
    let may = action.of_states();
    if filter.states().iter().any(|state| may.contains(state)) {
        return Ok(());
    }
    let words: Vec<_> = may.iter().map(|state| state.as_str()).collect();
    Err(format!("{} is done to jobs that are {}; this means none of them", action.as_str(), words.join(", ")))
}

/// The only queue that a filter means.
pub fn only_queue(filter: &Filter) -> Option<Name> {
    filter.only(Field::Queue).map(Name::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_790_000_000_000);

    #[test]
    fn an_action_needs_jobs_that_it_can_be_done_to() {
        let filter = |text: &str| Filter::parse(text, NOW).unwrap();
        assert!(fits(Action::Redrive, &filter("queue = llm")).is_ok());
        assert!(fits(Action::Redrive, &filter("state in (dead, running)")).is_ok());
        assert!(fits(Action::Redrive, &filter("state = running")).unwrap_err().contains("dead"));
        assert!(fits(Action::Delete, &filter("state = ready")).is_err());
        assert!(fits(Action::Reclaim, &filter("state != running")).is_err());
        assert_eq!(only_queue(&filter("queue = llm and age > 1h")), Some("llm".into()));
        assert_eq!(only_queue(&filter("queue in (a, b)")), None);
    }

    #[test]
    fn a_step_counts_what_was_done_and_what_was_left() {
        let order = Order {
            action: Action::Redrive,
            goal: None,
            filter: "state = dead".into(),
            queue: None,
            dry_run: false,
            rate_per_s: 1,
            max_jobs: None,
            max_cost: None,
            force: false,
            reason: None,
            asked_by: "k".into(),
        };
        let ids: Vec<_> = (0..4).map(|_| JobId::generate()).collect();
        let costs = [Some(Nanousd(5)), None, Some(Nanousd(7)), Some(Nanousd(9))];
        let picks = ids.iter().zip(costs).map(|(&id, cost)| Pick { id, epoch: Epoch(0), cost, holder: None }).collect();
        let step = Step {
            id: OperationId::generate(),
            owner: Uuid::nil(),
            beat: 0,
            picks,
            objects: vec![],
            skipped: 2,
            failed: 1,
            behind: None,
            end: None,
        };
        let counts = counted(&order, &step, |id| id != ids[3]);
        let expected = Counts { matched: 7, done: 3, skipped: 3, failed: 1, cost: Nanousd(12), unestimated: 1 };
        assert_eq!(counts, expected);
        let dry = counted(&Order { dry_run: true, ..order }, &step, |_| false);
        let expected = Counts { matched: 7, done: 0, skipped: 2, failed: 1, cost: Nanousd(21), unestimated: 1 };
        assert_eq!(dry, expected);
    }
}
