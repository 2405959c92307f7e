//! Webhooks: who is told of what, and what has still to be delivered.
//!
//! A *delivery* is one event for one receiver. It is a row that is written by the very transaction which makes the event
//! true: the settle that ends a job, the note of a budget's alert, the refusal that disables a key. So a crash loses none and
//! invents none. A scheduler claims what is due, sends it and notes what became of it; one that dies between the two leaves a
//! row that another sends again, with the same `webhook-id`, by which receivers tell that it is the same message.
//!
//! The receivers are *endpoints*, which an operator sets for a tenant or for the installation, and the URL that a job was
//! submitted with. Deliveries wait in *lanes*, one for each endpoint and one for each host of jobs' own URLs, so that a
//! receiver that does not answer holds up nobody else.

mod body;
mod secrets;
mod sign;

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use body::{alert_body, circuit_body, job_body, message};
pub(crate) use body::{budget_body, credential_body};
pub use secrets::{
    OVERLAP_MAX_MS, OVERLAP_MS, Owner, SecretError, ensure_secret, first_secret, open_all, rewrap, rotate, unreadable,
};
pub use sign::{for_jobs, generate as generate_secret, request_headers, signature};

use crate::{
    credentials::Sealed,
    ids::{JobId, Name, SessionId},
    journal::JournalError,
    state::Standing,
    time::Timestamp,
};

/// Endpoints of an installation at most: all of them are read for a list, and joined with each group of ends.
pub const ENDPOINTS_MAX: usize = 1_000;
/// Secrets that one rewrap looks at.
pub(crate) const SECRETS_MAX: usize = 10_000;
/// Lanes that one claim looks at; the next one goes on behind them.
pub const LANES_MAX: usize = 200;
/// Most deliveries of one page.
pub const DELIVERIES_PAGE_MAX: usize = 500;
/// Most attempts of a delivery that are shown: a replay may add to them for ever.
pub const ATTEMPTS_SHOWN_MAX: usize = 100;
/// Most deliveries that are given up with one failed attempt.
pub(crate) const GIVEN_UP_MAX: usize = 500;
/// What they came to.
pub(crate) const GIVEN_UP: &str = "given up: it waited for more than a day while its receiver failed";
/// Bytes of an answer that are kept with its attempt.
pub const ANSWER_KEPT_BYTES: usize = 1_024;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// A job has its result.
    #[serde(rename = "job.succeeded")]
    JobSucceeded,
    /// A job is a dead letter.
    #[serde(rename = "job.dead")]
    JobDead,
    /// A job was cancelled.
    #[serde(rename = "job.cancelled")]
    JobCancelled,
    /// A budget has reached 50, 80 or 100 %.
    #[serde(rename = "budget.alert")]
    BudgetAlert,
    /// A target or account is not called any more, because it fails.
    #[serde(rename = "breaker.opened")]
    BreakerOpened,
    /// It is called again.
    #[serde(rename = "breaker.closed")]
    BreakerClosed,
    /// A tenant's key was refused too often and is not used any more.
    #[serde(rename = "credential.disabled")]
    CredentialDisabled,
    /// Something is wrong that operators should know of, see `scheduler::watch`.
    #[serde(rename = "alert.raised")]
    AlertRaised,
    /// It has passed.
    #[serde(rename = "alert.cleared")]
    AlertCleared,
}

impl EventKind {
    /// Every event, in the order of their bits.
    pub const ALL: [Self; 9] = [
        Self::JobSucceeded,
        Self::JobDead,
        Self::JobCancelled,
        Self::BudgetAlert,
        Self::BreakerOpened,
        Self::BreakerClosed,
        Self::CredentialDisabled,
        Self::AlertRaised,
        Self::AlertCleared,
    ];

    /// The word of the API, of messages and of the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JobSucceeded => "job.succeeded",
            Self::JobDead => "job.dead",
            Self::JobCancelled => "job.cancelled",
            Self::BudgetAlert => "budget.alert",
            Self::BreakerOpened => "breaker.opened",
            Self::BreakerClosed => "breaker.closed",
            Self::CredentialDisabled => "credential.disabled",
            Self::AlertRaised => "alert.raised",
            Self::AlertCleared => "alert.cleared",
        }
    }

    /// The event with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == word)
    }

    /// Its bit in what an endpoint wants: part of the schema, so it never changes.
    pub fn bit(self) -> i64 {
        match self {
            Self::JobSucceeded => 1,
            Self::JobDead => 2,
            Self::JobCancelled => 4,
            Self::BudgetAlert => 8,
            Self::BreakerOpened => 16,
            Self::BreakerClosed => 32,
            Self::CredentialDisabled => 64,
            Self::AlertRaised => 128,
            Self::AlertCleared => 256,
        }
    }

    /// The bits of several.
    pub fn bits(events: &[Self]) -> i64 {
        events.iter().fold(0, |bits, event| bits | event.bit())
    }

    /// Those of these bits.
    pub fn of_bits(bits: i64) -> Vec<Self> {
        Self::ALL.into_iter().filter(|event| bits & event.bit() != 0).collect()
    }

    /// How a job stands that has ended so; `None` for events that are not about a job.
    pub fn standing(self) -> Option<Standing> {
        match self {
            Self::JobSucceeded => Some(Standing::Succeeded),
            Self::JobDead => Some(Standing::Dead),
            Self::JobCancelled => Some(Standing::Cancelled),
            Self::BudgetAlert
            | Self::BreakerOpened
            | Self::BreakerClosed
            | Self::CredentialDisabled
            | Self::AlertRaised
            | Self::AlertCleared => None,
        }
    }

    /// The event of a job that ended so; `None` for a live one.
    pub fn of_end(standing: Standing) -> Option<Self> {
        match standing {
            Standing::Live => None,
            Standing::Succeeded => Some(Self::JobSucceeded),
            Standing::Dead => Some(Self::JobDead),
            Standing::Cancelled => Some(Self::JobCancelled),
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A receiver that an operator has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id.
    pub id: Uuid,
    /// Whose events it is told; `None`: everybody's.
    pub tenant: Option<Name>,
    /// Where it is.
    pub url: String,
    /// What it wants to hear of.
    pub events: Vec<EventKind>,
    /// Whether it is told anything.
    pub enabled: bool,
    /// Why not.
    pub reason: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// Grows with every change.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A signing secret as it lies in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSecret {
    /// Grows with every rotation.
    pub version: i64,
    /// The secret.
    pub sealed: Sealed,
    /// Until when it signs beside the one that followed it; `None` for the last.
    pub valid_until: Option<Timestamp>,
}

/// A signing secret on its way into the journal.
#[derive(Clone, Debug)]
pub struct NewSecret {
    /// Whose.
    pub owner: Owner,
    /// One above the version that is there; 1 where there is none.
    pub version: i64,
    /// The secret.
    pub sealed: Sealed,
    /// Until when the one before it goes on signing.
    pub former_until: Timestamp,
    /// Now.
    pub at: Timestamp,
}

/// How a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It is to be sent, for the first time or again.
    Pending,
    /// Its receiver has answered 2xx.
    Delivered,
    /// It was tried for about a day, in vain.
    Failed,
    /// Its receiver is switched off or gone.
    Dropped,
}

impl DeliveryState {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Failed, Self::Dropped];

    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }

    /// The number that the schema checks.
    pub fn code(self) -> i16 {
        match self {
            Self::Pending => 0,
            Self::Delivered => 1,
            Self::Failed => 2,
            Self::Dropped => 3,
        }
    }

    /// The state with this number.
    pub fn of_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| i64::from(state.code()) == code)
    }

    /// The state with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// One event for one receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The message's id: the same in every attempt.
    pub id: Uuid,
    /// Its place among all deliveries.
    pub seq: i64,
    /// The endpoint; `None`: the URL is the job's own.
    pub endpoint: Option<Uuid>,
    /// With whom it waits in turn.
    pub lane: String,
    /// Whose event; `None`: the installation's.
    pub tenant: Option<Name>,
    /// What happened.
    pub event: EventKind,
    /// The job that it is about.
    pub job: Option<JobId>,
    /// When it happened.
    pub at: Timestamp,
    /// Where it goes; `None`: the endpoint is gone.
    pub url: Option<String>,
    /// Whether the receiver wants to be told.
    pub enabled: bool,
    /// The message; `None`: it was not sent yet, and is made from the job.
    pub body: Option<String>,
    /// How it stands.
    pub state: DeliveryState,
    /// Attempts so far.
    pub attempts: u32,
    /// Of them, those since it was made or replayed: what gives up counts these.
    pub tries: u32,
    /// When it is tried next, if it is.
    pub due_at: Timestamp,
    /// What the last attempt came to.
    pub last: Option<String>,
}

impl Delivery {
    /// The value of `webhook-id`.
    pub fn message_id(&self) -> String {
        format!("msg_{}", self.id.simple())
    }
}

/// What a scheduler asks for.
#[derive(Clone, Debug)]
pub struct ClaimDeliveries {
    /// Lanes behind this one; empty: from the first on.
    pub behind: String,
    /// Lanes that are left alone: they rest, or are busy.
    pub except: Vec<String>,
    /// Of one lane at most.
    pub per_lane: usize,
    /// In all at most.
    pub limit: usize,
    /// What is due by now.
    pub now: Timestamp,
    /// When others may take them, if nothing is noted until then.
    pub until: Timestamp,
    /// Who claims.
    pub owner: SessionId,
}

/// One attempt of a delivery, and what follows from it.
#[derive(Clone, Debug)]
pub struct DeliveryAttempt {
    /// Which delivery.
    pub seq: i64,
    /// Who claimed it.
    pub owner: SessionId,
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: i64,
    /// The answer's status.
    pub status: Option<u16>,
    /// The beginning of the answer.
    pub answer: Option<String>,
    /// Why there was none, or why it does not count.
    pub error: Option<String>,
    /// The message that was sent.
    pub body: Option<String>,
    /// Whether it was tried at all: what gives up counts only these.
    pub tried: bool,
    /// How the delivery stands after it.
    pub state: DeliveryState,
    /// When it is tried again.
    pub due_at: Timestamp,
    /// That its endpoint wants no more: it is switched off, for this reason.
    pub disable: Option<String>,
    /// That its receiver fails: what has been due in its lane since before this moment, without being taken, is given up with it,
    /// a bounded number of the oldest. Else messages behind a receiver that stays down would wait for ever.
    pub overdue_before: Option<Timestamp>,
}

/// An attempt as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptView {
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: i64,
    /// The answer's status.
    pub status: Option<u16>,
    /// The beginning of the answer.
    pub answer: Option<String>,
    /// What was wrong.
    pub error: Option<String>,
}

/// What stands before the name of an alert among the circuits that were told of as open.
pub const ALERT_PREFIX: &str = "alert:";

/// What opens and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// A breaker's circuit.
    Breaker,
    /// An alert, under its name behind [`ALERT_PREFIX`].
    Alert,
}

impl Told {
    /// The event of its opening or closing.
    pub fn event(self, open: bool) -> EventKind {
        match (self, open) {
            (Self::Breaker, true) => EventKind::BreakerOpened,
            (Self::Breaker, false) => EventKind::BreakerClosed,
            (Self::Alert, true) => EventKind::AlertRaised,
            (Self::Alert, false) => EventKind::AlertCleared,
        }
    }
}

/// How a circuit stands, for those who want to hear of it.
#[derive(Clone, Debug)]
pub struct CircuitTold {
    /// Which.
    pub circuit: Name,
    /// Whether it is open.
    pub open: bool,
    /// Whose credential it is of; `None`: the installation's.
    pub tenant: Option<Name>,
    /// The message.
    pub body: String,
    /// Now.
    pub at: Timestamp,
    /// Of one that closes: it stays open if somebody has noted it so after this.
    pub last_open_at: Timestamp,
    /// What it is.
    pub what: Told,
}

/// Of what a list of deliveries is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// All.
    All,
    /// Those of an endpoint.
    Endpoint(Uuid),
    /// Those about a job.
    Job(JobId),
    /// The one with this id.
    One(Uuid),
}

/// Who is told, and what is to be told. At most 15 verbs. Each write is one commit: after a crash it is there or it is not.
#[async_trait]
pub trait Webhooks: Send + Sync {
    /// Every endpoint, oldest first.
    async fn endpoints(&self) -> Result<Vec<Endpoint>, JournalError>;

    /// Makes an endpoint with its secret; `false` where there are [`ENDPOINTS_MAX`] already.
    async fn add_endpoint(&self, endpoint: Endpoint, secret: Sealed) -> Result<bool, JournalError>;

    /// Replaces what can be changed of an endpoint (URL, events, whether it is enabled and why not, description) where its
    /// version is one below this one's; `false` where it is not.
    async fn change_endpoint(&self, endpoint: Endpoint) -> Result<bool, JournalError>;

    /// Deletes an endpoint and its secrets; what is still to be delivered to it is dropped when its turn comes. `false` where
    /// there is none.
    async fn drop_endpoint(&self, id: Uuid) -> Result<bool, JournalError>;

    /// The secrets of an owner that sign now, newest first: two at most.
    async fn secrets(&self, owner: &Owner, now: Timestamp) -> Result<Vec<SealedSecret>, JournalError>;

    /// Adds a secret and limits the one before it; those before that are gone. `false` where the version is there already:
    /// somebody was faster.
    async fn put_secret(&self, secret: NewSecret) -> Result<bool, JournalError>;

    /// The secrets that another master key than this one wraps, with the text of their owner: 10,000 at most.
    async fn secrets_behind(&self, kek_id: &str) -> Result<Vec<(String, SealedSecret)>, JournalError>;

    /// Replaces a secret's wrapped data key. `false` where that version is not wrapped so any more.
    async fn rewrap_secret(&self, owner: String, version: i64, from: String, to: Sealed) -> Result<bool, JournalError>;

    /// Notes that a circuit is open or closed, and if that is news, writes the deliveries of its message in the same commit.
    /// `true` for whoever came first.
    async fn tell_circuit(&self, told: CircuitTold) -> Result<bool, JournalError>;

    /// The circuits that were told of as open, and when each was last noted so.
    async fn open_circuits(&self) -> Result<BTreeMap<Name, Timestamp>, JournalError>;

    /// Takes deliveries that are due, each for one owner. Cost depends on what is taken and on the lanes that are looked at,
    /// not on what waits.
    async fn claim_deliveries(&self, claim: ClaimDeliveries) -> Result<Vec<Delivery>, JournalError>;

    /// Notes an attempt and what follows, and returns how many others are given up with it. `None` where somebody else has
    /// claimed it since: then nothing changes but the log of attempts.
    async fn note_delivery(&self, attempt: DeliveryAttempt) -> Result<Option<u64>, JournalError>;

    /// Deliveries before this place, newest first.
    async fn deliveries(&self, of: Listing, before: i64, limit: usize) -> Result<Vec<Delivery>, JournalError>;

    /// The last attempts of a delivery, oldest first, at most [`ATTEMPTS_SHOWN_MAX`].
    async fn delivery_attempts(&self, seq: i64) -> Result<Vec<AttemptView>, JournalError>;

    /// Makes a delivery due at once, as if it had never been tried; its message stays what it was. `false` where there is none.
    async fn replay_delivery(&self, id: Uuid, now: Timestamp) -> Result<bool, JournalError>;
}

/// The lane of a job's own URL: its tenant, host and port.
pub fn own_lane(tenant: &str, url: &str) -> String {
    let authority = url.split('/').nth(2).unwrap_or_default();
    format!("own {tenant} {authority}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_words_and_bits() {
        let bits: Vec<_> = EventKind::ALL.iter().map(|event| event.bit()).collect();
        assert_eq!(bits, [1, 2, 4, 8, 16, 32, 64, 128, 256]);
        for event in EventKind::ALL {
            assert_eq!(EventKind::parse(event.as_str()), Some(event));
            assert_eq!(serde_json::to_value(event).unwrap(), event.as_str());
        }
        let some = [EventKind::JobDead, EventKind::BreakerClosed];
        assert_eq!(EventKind::of_bits(EventKind::bits(&some)), some);
        assert_eq!(EventKind::parse("job.started"), None);
    }

    #[test]
    fn jobs_of_one_host_share_a_lane() {
        assert_eq!(own_lane("acme", "https://a.example/x?y=/z"), "own acme a.example");
        assert_eq!(own_lane("acme", "https://a.example:8443/"), "own acme a.example:8443");
    }
}
