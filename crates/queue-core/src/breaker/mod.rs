//! Breakers: who stops calling a target that does not work, for the whole fleet, and when one tries it again.
//!
//! A *circuit* is a target (`provider:model:credential`), or an account with all its models (`provider:*:credential`).
//! Failures of servers and lines open a target's circuit; an exhausted account opens the account's. While a circuit is
//! open nobody calls through it; then one caller of the whole fleet is its *probe*, and what becomes of its call decides.
//! A probe that dies loses its place when it is not renewed.
//!
//! What is in here may be lost at any moment: a circuit then is closed until it fails again. What operators set is kept
//! by the journal, told to the store with its version, and told again by the reconciler.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod memory;
pub mod redis;

use async_trait::async_trait;
use serde::Serialize;

use crate::{
    dispatcher::DispatchError,
    ids::Name,
    journal::{TargetSettings, Versioned},
    time::Timestamp,
};

/// How old what a worker knows of a circuit may be: who opens a target for all waits for so long before its jobs wake, since a
/// job that meets a worker which has not heard is put back for as long as the old refusal.
pub const KNOWN_MS: i64 = 1_000;
/// Calls are counted in pieces of this length.
pub const BUCKET_MS: i64 = 10_000;
/// Pieces that are looked at together: 30 s.
pub const BUCKETS: i64 = 3;
/// Calls in the window from which their failures mean something.
pub const CALLS_MIN: u32 = 20;
/// How long a circuit is open the first time; each failed probe doubles it.
pub const OPEN_MS: i64 = 10_000;
/// How long it is open at most.
pub const OPEN_MAX_MS: i64 = 300_000;
/// How long a probe lives without being renewed: after it another one is let through.
pub const PROBE_MS: i64 = 15_000;
/// A circuit that nobody has used for so long is forgotten.
pub const FORGET_MS: i64 = 3_600_000;
/// Most circuits that a list tells of, and that are held in memory: more targets than anybody has.
pub const CIRCUITS_MAX: usize = 10_000;
/// Longest reason that is kept, in bytes: it stands in every `why`.
pub const REASON_MAX_BYTES: usize = 300;

/// One caller, from its question to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProbeId(pub u128);

impl ProbeId {
    /// A fresh one.
    pub fn generate() -> Self {
        Self(rand::random())
    }
}

/// A caller's question whether it may call.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The target's circuit.
    pub target: Name,
    /// Its account's.
    pub account: Name,
    /// The caller.
    pub probe: ProbeId,
    /// Calls of the target that succeeded since this process last told.
    pub successes: u32,
}

/// Who refuses a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// An operator: paused, or held open.
    Operator,
    /// The target's circuit: it failed.
    Failures,
    /// The account's circuit: it is exhausted.
    Account,
}

/// A call that may not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Who says so.
    pub by: By,
    /// Until when, by the store's clock; `None`: until someone changes it.
    pub until: Option<Timestamp>,
    /// Time until then, in milliseconds.
    pub wait_ms: Option<u64>,
    /// Why, for people.
    pub reason: String,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The call may be made.
    Given,
    /// The call may be made, and decides about the circuits of which it is the probe.
    Probe {
        /// The target's.
        target: bool,
        /// The account's.
        account: bool,
    },
    /// It may not.
    Refused(Refusal),
}

/// What a call says of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It works.
    Success,
    /// It does not.
    Failure,
    /// It answered, with something that counts neither for nor against it. For a probe that is enough.
    Answered,
    /// Nothing: the call was stopped. A probe's place is free at once.
    Unknown,
    /// It is exhausted for so long, in milliseconds: open at once.
    Exhausted(u64),
}

/// The end of a call, told to one circuit.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The circuit.
    pub circuit: Name,
    /// The caller.
    pub probe: ProbeId,
    /// What it says.
    pub end: End,
    /// Other calls that succeeded since this process last told.
    pub successes: u32,
    /// Why it failed, for people.
    pub reason: String,
}

/// What an end changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// The circuit is open now.
    Opened(Refusal),
    /// Nothing: others had opened it while this call was on the way, and it may not be called.
    StoodOpen(Refusal),
    /// A probe has closed it.
    Closed,
}

/// How a circuit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Calls go through.
    Closed,
    /// Its time is over: the next caller is, or its probe already is, on its way.
    HalfOpen,
    /// No call goes through.
    Open,
}

impl State {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }

    /// The value of the metric.
    pub fn level(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// A circuit as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitView {
    /// Target or account.
    pub circuit: Name,
    /// How it stands.
    pub state: State,
    /// Until when it is open.
    pub until: Option<Timestamp>,
    /// Probes that failed since it opened.
    pub failed_probes: u32,
    /// Whether its probe is on its way.
    pub probing: bool,
    /// Why it is open.
    pub reason: Option<String>,
    /// Calls of the last 30 s that say something.
    pub calls: u32,
    /// Those of them that failed.
    pub failures: u32,
}

/// The circuits of a fleet. Losing them costs the calls that find out anew.
#[async_trait]
pub trait Breakers: Send + Sync {
    /// Whether a call may be made. Of the callers of an open circuit whose time is over, one gets [`Leave::Probe`].
    async fn enter(&self, ask: Ask) -> Result<Leave, DispatchError>;

    /// Tells the end of a call. That of a caller who lost its place as probe is counted like any other.
    async fn end(&self, ended: Ended) -> Result<Change, DispatchError>;

    /// Keeps the place of a probe, in these circuits.
    async fn renew(&self, circuits: &[Name], probe: ProbeId) -> Result<(), DispatchError>;

    /// Applies what operators have set for a target; an older version than the held one changes nothing.
    async fn set(&self, target: &Name, settings: Versioned<TargetSettings>) -> Result<(), DispatchError>;

    /// Closes a circuit because an operator wants that; what becomes of its calls may open it again. If it is lost, the
    /// circuit stays as it is.
    async fn close(&self, circuit: &Name) -> Result<(), DispatchError>;

    /// The circuits that were used lately, by name, at most [`CIRCUITS_MAX`].
    async fn list(&self) -> Result<Vec<CircuitView>, DispatchError>;
}

/// How long a circuit is open after so many failed probes.
pub fn open_ms(failed_probes: u32) -> i64 {
    OPEN_MS.saturating_mul(1 << failed_probes.min(16)).min(OPEN_MAX_MS)
}

/// A reason, cut to its bound.
fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_MAX_BYTES)]
}
