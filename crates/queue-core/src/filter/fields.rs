//! What jobs can be told apart by.

use super::Value;
use crate::{
    dispatcher::Place,
    error::ErrorClass,
    job::{Job, Kind},
    ledger::Nanousd,
    state::State,
    time::Timestamp,
};

/// A field of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// `id`.
    Id,
    /// `queue`.
    Queue,
    /// `kind`.
    Kind,
    /// `state`.
    State,
    /// `tenant`.
    Tenant,
    /// `target`: `provider:model:credential`.
    Target,
    /// `operation`.
    Operation,
    /// `batch_id`.
    BatchId,
    /// `unique_key`.
    UniqueKey,
    /// `concurrency_key`.
    ConcurrencyKey,
    /// `tag`: any of a job's tags.
    Tag,
    /// `served_by`: `provider/model`.
    ServedBy,
    /// `error.class`.
    ErrorClass,
    /// `error.code`.
    ErrorCode,
    /// `error.message`.
    ErrorMessage,
    /// `error.signature`.
    ErrorSignature,
    /// `priority`.
    Priority,
    /// `attempts`, spent so far.
    Attempts,
    /// `redrives`.
    Redrives,
    /// `cost`, in US dollars; a job whose cost is unknown has none.
    Cost,
    /// `accepted_at`, and `age` counted back.
    AcceptedAt,
    /// `finished_at`, and `ended_age` counted back.
    FinishedAt,
    /// `run_at`.
    RunAt,
    /// `started_at` of the attempt that runs, and `running_age` counted back.
    StartedAt,
}

/// How a field's values read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Any text.
    Text,
    /// One of some words.
    Word,
    /// A whole number.
    Count,
    /// A decimal amount of US dollars.
    Usd,
    /// RFC 3339.
    Time,
}

impl Field {
    /// Every field.
    pub const ALL: [Self; 24] = [
        Self::Id,
        Self::Queue,
        Self::Kind,
        Self::State,
        Self::Tenant,
        Self::Target,
        Self::Operation,
        Self::BatchId,
        Self::UniqueKey,
        Self::ConcurrencyKey,
        Self::Tag,
        Self::ServedBy,
        Self::ErrorClass,
        Self::ErrorCode,
        Self::ErrorMessage,
        Self::ErrorSignature,
        Self::Priority,
        Self::Attempts,
        Self::Redrives,
        Self::Cost,
        Self::AcceptedAt,
        Self::FinishedAt,
        Self::RunAt,
        Self::StartedAt,
    ];

    /// How it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Queue => "queue",
            Self::Kind => "kind",
            Self::State => "state",
            Self::Tenant => "tenant",
            Self::Target => "target",
            Self::Operation => "operation",
            Self::BatchId => "batch_id",
            Self::UniqueKey => "unique_key",
            Self::ConcurrencyKey => "concurrency_key",
            Self::Tag => "tag",
            Self::ServedBy => "served_by",
            Self::ErrorClass => "error.class",
            Self::ErrorCode => "error.code",
            Self::ErrorMessage => "error.message",
            Self::ErrorSignature => "error.signature",
            Self::Priority => "priority",
            Self::Attempts => "attempts",
            Self::Redrives => "redrives",
            Self::Cost => "cost",
            Self::AcceptedAt => "accepted_at",
            Self::FinishedAt => "finished_at",
            Self::RunAt => "run_at",
            Self::StartedAt => "started_at",
        }
    }

    /// The field that is written so.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.word() == word)
    }

    pub(super) fn form(self) -> Form {
        match self {
            Self::Kind | Self::State | Self::ErrorClass => Form::Word,
            Self::Priority | Self::Attempts | Self::Redrives => Form::Count,
            Self::Cost => Form::Usd,
            Self::AcceptedAt | Self::FinishedAt | Self::RunAt | Self::StartedAt => Form::Time,
            _ => Form::Text,
        }
    }

    /// The words that it may have, where it is not free.
    pub(super) fn words(self) -> Vec<&'static str> {
        match self {
            Self::Kind => Kind::ALL.map(Kind::as_str).to_vec(),
            Self::State => State::ALL.map(State::as_str).to_vec(),
            Self::ErrorClass => ErrorClass::ALL.map(ErrorClass::as_str).to_vec(),
            _ => vec![],
        }
    }

    /// The texts of a job: none, one, or any number of tags.
    pub(super) fn texts(self, job: &Job, state: State) -> Vec<String> {
        let one = |text: &str| vec![text.to_owned()];
        let maybe = |text: Option<&str>| text.map(str::to_owned).into_iter().collect();
        let error = job.error.as_ref();
        match self {
            Self::Id => vec![job.id.to_string()],
            Self::Queue => one(job.queue.as_str()),
            Self::Kind => one(job.kind.as_str()),
            Self::State => one(state.as_str()),
            Self::Tenant => one(job.tenant.as_str()),
            Self::Target => one(job.target.as_str()),
            Self::Operation => maybe(job.operation.as_deref()),
            Self::BatchId => maybe(job.batch_id.as_deref()),
            Self::UniqueKey => maybe(job.unique_key.as_deref()),
            Self::ConcurrencyKey => maybe(job.concurrency_key.as_ref().map(|key| key.as_str())),
            Self::Tag => job.tags.clone(),
            Self::ServedBy => maybe(job.served_by.as_deref()),
            Self::ErrorClass => maybe(error.map(|error| error.class.as_str())),
            Self::ErrorCode => maybe(error.map(|error| error.code.as_str())),
            Self::ErrorMessage => maybe(error.map(|error| error.message.as_str())),
            Self::ErrorSignature => maybe(error.map(|error| error.signature.as_str())),
            Self::Priority
            | Self::Attempts
            | Self::Redrives
            | Self::Cost
            | Self::AcceptedAt
            | Self::FinishedAt
            | Self::RunAt
            | Self::StartedAt => vec![],
        }
    }

    /// The number of a job: a count, nano-USD, or milliseconds since 1970.
    pub(super) fn number(self, job: &Job, place: &Place) -> Option<i64> {
        match self {
            Self::Priority => Some(job.priority.into()),
            Self::Attempts => Some(job.attempts.into()),
            Self::Redrives => Some(job.redrives.into()),
            Self::Cost => job.cost.map(|cost| cost.0),
            Self::AcceptedAt => Some(job.accepted_at.0),
            Self::FinishedAt => job.finished_at.map(|at| at.0),
            Self::RunAt => Some(job.run_at.0),
            Self::StartedAt => match place {
                Place::Leased { started_at, .. } => started_at.map(|at| at.0),
                Place::Unknown | Place::Waiting { .. } => None,
            },
            _ => None,
        }
    }

    /// A value of this field as it is written.
    pub(super) fn shown(self, value: &Value) -> String {
        match (value, self.form()) {
            (Value::Text(text), _) => text.clone(),
            (Value::Number(number), Form::Usd) => Nanousd(*number).to_string(),
            (Value::Number(number), Form::Time) => Timestamp(*number).to_string(),
            (Value::Number(number), _) => number.to_string(),
        }
    }
}
