//! The fleet's limiter: how fast targets may be asked, over all workers.
//!
//! A target has a bucket of requests and one of tokens, which fill continuously. A call *reserves* from both before it is
//! made: all or nothing, and also what will only be there in a moment, which it then waits for in place. After the call it
//! *settles* with what was really used; that may leave a debt. A provider that refuses is left alone by the whole fleet
//! ([`Limiter::penalise`]), and so is a credential that is out of money, after which one call tries whether it works again.
//!
//! A call that would wait longer than [`WAIT_MAX_MS`] is told to come later, and keeps its place in the line as a *ticket*:
//! what it needs is taken from the buckets now, and is there when it comes back. So nobody overtakes it, however large it
//! is, and nobody is turned away again and again.
//!
//! **Nothing here is the only copy of anything that must last.** A limiter that forgets everything lets one burst of
//! [`BURST_MS`] through. A reservation is a debit and no record: what a dead worker reserved stays charged, because its call
//! may have been made, and the bucket has refilled within seconds; nothing can leak. Only tickets and the trial of a
//! credential are records, and both expire ([`TICKET_GRACE_MS`], [`TRIAL_MS`]).
//!
//! The memory limiter is the executable specification of the one in Redis: `book.rs` is the algorithm.

pub mod away;
mod book;
mod change;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod limits;
pub mod memory;
pub mod redis;

use async_trait::async_trait;
use serde::Serialize;
use uuid::Uuid;

pub use change::{follow, lift, wake};
pub use limits::{Away, Charges, InForce, Limit, Limits, RATE_MAX, Rule, SetLimit};

use crate::{ids::Name, route::Target};

/// What a full bucket holds, as time: a burst of a whole minute is what providers answer with `slow_down`.
pub const BURST_MS: f64 = 5_000.0;
/// Longest wait in place. A job that waits holds a slot and a lease.
pub const WAIT_MAX_MS: f64 = 5_000.0;
/// Tickets are given for at most so far ahead; who would wait longer gets no place in the line.
pub const TICKET_AHEAD_MAX_MS: f64 = 30_000.0;
/// Most tickets of one target: what is claimed too much before its pace is known.
pub const TICKETS_MAX: usize = 256;
/// A ticket that is not used for so long after its moment is given back: its job was cancelled, or its worker died.
pub const TICKET_GRACE_MS: f64 = 10_000.0;
/// How long before the first ticket's moment its target is claimed from again: the way of a job to its call.
pub const TICKET_LEAD_MS: f64 = 1_000.0;
/// How long the first ticket's moment may pass for the sake of those behind it, who would else be turned away twice.
pub const TICKET_LATE_MS: f64 = 3_000.0;
/// What a refusal leaves of the rate.
pub const CUT: f64 = 0.7;
/// The least that refusals leave of a rate.
pub const CUT_FLOOR: f64 = 0.1;
/// One cut in so long: a burst that meets a full provider is refused many times for one reason.
pub const CUT_EVERY_MS: f64 = 1_000.0;
/// How long one call has to show whether a credential works again.
pub const TRIAL_MS: f64 = 60_000.0;
/// How long those wait who come while a credential is on trial.
pub const TRIAL_WAIT_MS: f64 = 5_000.0;
/// How long a limit that a provider told of is believed.
pub const TOLD_MS: f64 = 600_000.0;
/// A told limit below this part of the configured one is of another window (a second, a day), and is not believed.
pub const TOLD_LEAST: f64 = 0.05;
/// The wait in place that [`Answer::pace`] aims at: enough that the line is never empty, and far from [`WAIT_MAX_MS`].
pub const PACE_WAIT_MS: f64 = 1_500.0;
/// Weight of the newest call in the averages of [`Answer::pace`].
pub const PACE_WEIGHT: f64 = 0.1;
/// Longest reason that is kept, in bytes.
pub const REASON_MAX_BYTES: usize = 200;

/// What one call wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Whom it asks.
    pub target: Target,
    /// What the target may take.
    pub limit: Limit,
    /// Which call this is: a later try of the same call finds its ticket by it.
    pub call: Uuid,
    /// Tokens that it will use as far as anyone can tell.
    pub tokens: u64,
    /// Longest wait in place that its attempt has time for, in milliseconds; never more than [`WAIT_MAX_MS`].
    pub wait_max_ms: u64,
    /// Whether a place in the line is kept for it if it is told to come later: not for one that may go elsewhere then, and
    /// would leave its ticket behind.
    pub keeps_place: bool,
}

impl Ask {
    /// A call that has time to wait, and comes back if it is told to.
    pub fn new(target: Target, limit: Limit, call: Uuid, tokens: u64) -> Self {
        Self { target, limit, call, tokens, wait_max_ms: WAIT_MAX_MS as u64, keeps_place: true }
    }

    /// See [`Self::wait_max_ms`].
    fn wait_max(&self) -> f64 {
        (self.wait_max_ms as f64).min(WAIT_MAX_MS)
    }
}

/// The code of an error that says: the job's target is parked by its limit, so the job may keep its place in its lane.
pub const PARKED: &str = "limiter_parked";
/// The same where the target could not be parked, or is not the one that the job is claimed by.
pub const LIMITED: &str = "limiter";

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Whether it may go.
    pub verdict: Verdict,
    /// Calls of the target that should be under way at once, over the fleet: more only stand in line here. `None` where
    /// nothing is known yet.
    pub pace: Option<u32>,
}

/// Whether a call may go.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// After this wait; at most [`WAIT_MAX_MS`]. Who waited asks [`Limiter::confirm`] before it goes.
    Go {
        /// Milliseconds.
        wait_ms: u64,
    },
    /// Not now.
    Later {
        /// When it could, in milliseconds from now.
        wait_ms: u64,
        /// When the target should be claimed from again: its first ticket is due soon after.
        open_ms: u64,
        /// What it waits for.
        cause: Cause,
        /// Whether it has a ticket, so that nobody takes its place.
        ticket: bool,
    },
}

/// What a call waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Cause {
    /// Requests per minute.
    Requests,
    /// Tokens per minute.
    Tokens,
    /// The target or its credential is left alone.
    Blocked {
        /// Why.
        reason: String,
    },
    /// Another call tries whether the credential works again.
    Trial {
        /// Why it was left alone.
        reason: String,
    },
    /// The limiter's store is away, and the limit says not to go on without it.
    Away,
}

impl Cause {
    /// For people: what stands behind "waits for".
    pub fn words(&self) -> String {
        match self {
            Self::Requests => "its limit of requests per minute".to_owned(),
            Self::Tokens => "its limit of tokens per minute".to_owned(),
            Self::Blocked { reason } => reason.clone(),
            Self::Trial { reason } => format!("{reason}; one call tries whether it works again"),
            Self::Away => "the fleet's limiter cannot be asked".to_owned(),
        }
    }
}

/// What became of a call that was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Tokens that were reserved.
    pub reserved: u64,
    /// Tokens that the provider counts.
    pub tokens: u64,
    /// Whether the request counts: not if it never left.
    pub sent: bool,
    /// From the reservation to the end; `None` where it says nothing about others.
    pub took_ms: Option<u64>,
    /// Whether the provider answered as it should: this ends the trial of its credential.
    pub answered: bool,
}

/// Why a target is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Penalty {
    /// It was asked too fast: its rate is cut, and recovers slowly.
    Rate,
    /// Its credential is out of money or over its quota: all targets of the credential are left alone, and then tried by
    /// one call.
    Quota,
}

/// What an operator takes back from a target. Tickets go in either case: their moments were reckoned by what was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lift {
    /// Its line: the limit has changed.
    Line,
    /// Its block and that of its credential, too. What refusals left of its rate stays: it was asked too fast.
    Blocks,
}

/// What a provider says of its own limits, from its headers; 0 and less mean that it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Requests per minute.
    pub requests_limit: Option<u64>,
    /// Requests that are left.
    pub requests_left: Option<u64>,
    /// Tokens per minute.
    pub tokens_limit: Option<u64>,
    /// Tokens that are left.
    pub tokens_left: Option<u64>,
}

impl Told {
    /// Whether it says anything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How a target stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Requests that may go at once; below 0 is a debt.
    pub requests: Option<f64>,
    /// Tokens, likewise.
    pub tokens: Option<f64>,
    /// Requests per minute now: after cuts and what the provider told.
    pub requests_per_minute: Option<f64>,
    /// Tokens per minute now.
    pub tokens_per_minute: Option<f64>,
    /// What refusals have left of the rate, 0.1 to 1.
    pub factor: f64,
    /// How long it is still left alone, in milliseconds, and why.
    pub blocked: Option<(u64, String)>,
    /// Tickets that are out.
    pub tickets: usize,
    /// Calls that should be under way.
    pub pace: Option<u32>,
}

/// Why the limiter did not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the limiter is unavailable: {0}")]
pub struct Unavailable(pub String);

/// The way to the buckets. Every verb may be lost without harm beyond a burst: see the module.
#[async_trait]
pub trait Limiter: Send + Sync {
    /// Takes what a call needs from both buckets, or nothing. A crash after it leaves the call charged.
    async fn reserve(&self, ask: &Ask) -> Result<Answer, Unavailable>;

    /// Asked by a call that has waited: whether its target is still not blocked. `Some` says how long it is, and then the
    /// caller settles as not sent. A crash between this and the call leaves it charged.
    async fn confirm(&self, ask: &Ask) -> Result<Option<(u64, Cause)>, Unavailable>;

    /// Corrects a reservation by what was used. If it is lost, the reservation stands as it was.
    async fn settle(&self, ask: &Ask, used: Used) -> Result<(), Unavailable>;

    /// Leaves the target, or its credential, alone for `wait_ms`. Returns how long it is left alone now: a longer block
    /// stands.
    async fn penalise(&self, ask: &Ask, penalty: Penalty, wait_ms: u64, reason: &str) -> Result<u64, Unavailable>;

    /// Makes a block known again that this process has known of for `age_ms`, and cuts nothing: what is in Redis may be
    /// forgotten. One that was lifted since stays lifted. Returns how long the target or its credential is left alone now.
    async fn block(
        &self,
        ask: &Ask,
        penalty: Penalty,
        wait_ms: u64,
        age_ms: u64,
        reason: &str,
    ) -> Result<u64, Unavailable>;

    /// Takes tickets back, and blocks if an operator wants that; what was taken for the tickets is there again. Returns whether
    /// the credential was left alone, and with it all its targets. If it is lost, all of that ends by itself.
    async fn lift(&self, target: &Target, limit: &Limit, lift: Lift) -> Result<bool, Unavailable>;

    /// Believes a provider's own numbers where they are lower than ours.
    async fn observe(&self, ask: &Ask, told: Told) -> Result<(), Unavailable>;

    /// How a target stands.
    async fn standing(&self, target: &Target, limit: &Limit) -> Result<Standing, Unavailable>;

    /// Every target that was asked lately.
    async fn targets(&self) -> Result<Vec<Name>, Unavailable>;

    /// How many workers there are: what each may do by itself while the store is away.
    fn note_workers(&self, _workers: usize) {}
}
