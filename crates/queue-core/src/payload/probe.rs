//! The payload of a `probe`: work without a provider, for load and fault tests.

use serde_json::Value;

use super::{
    FieldError, Surroundings,
    fields::{At, Errors, Object},
    tree,
};
use crate::{ids::Name, job::MAX_ATTEMPTS_MAX};

/// Longest sleep: a day, the longest timeout that an attempt may have.
pub const SLEEP_MAX_MS: u64 = 86_400_000;
/// Largest result that a probe makes: the size of the largest usual payload.
pub const RESULT_MAX_BYTES: u64 = 1024 * 1024;

/// Most memory that a probe takes, in MiB: more than a worker is usually allowed, and less than a machine has.
pub const ALLOCATE_MAX_MIB: u64 = 4_096;

const KNOWN: [&str; 6] = ["sleep_ms", "allocate_mb", "pad", "result_bytes", "fail", "fail_times"];

/// How a probe fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An error that passes: another attempt follows.
    Transient,
    /// An error that is final.
    Permanent,
    /// The handler panics; the process survives it.
    Panic,
    /// What the handler holds panics when it is dropped, wherever that is; the process survives it.
    PanicInDrop,
    /// The process ends at once, as under `kill -9`: what makes a poison job.
    Abort,
    /// The stack overflows, which ends the process.
    Overflow,
    /// The process exits with 0.
    Exit,
    /// The handler computes for ever and never yields: its thread is lost, and its worker has to be started again.
    Spin,
    /// It sleeps without yielding: nothing else runs on its thread meanwhile.
    Block,
}

impl Failure {
    const ALL: [(&str, Self); 9] = [
        ("transient", Self::Transient),
        ("permanent", Self::Permanent),
        ("panic", Self::Panic),
        ("panic_in_drop", Self::PanicInDrop),
        ("abort", Self::Abort),
        ("overflow", Self::Overflow),
        ("exit", Self::Exit),
        ("spin", Self::Spin),
        ("block", Self::Block),
    ];

    /// Whether it harms more than its own job: the jobs of others that run in the same process.
    pub fn is_fault(self) -> bool {
        match self {
            Self::Transient | Self::Permanent | Self::Panic | Self::PanicInDrop => false,
            Self::Abort | Self::Overflow | Self::Exit | Self::Spin | Self::Block => true,
        }
    }
}

/// A probe's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// How long it sleeps, in milliseconds.
    pub sleep_ms: u64,
    /// Memory that it takes and touches before it sleeps, in MiB, and holds until its end.
    pub allocate_mib: u64,
    /// Bytes of the padding that made the payload large.
    pub pad_bytes: usize,
    /// Bytes of padding in the result.
    pub result_bytes: usize,
    /// How it fails after its sleep, and in how many attempts from the first (`None`: in every one).
    pub fail: Option<(Failure, Option<u32>)>,
}

impl Probe {
    /// Reads a payload's JSON text.
    pub fn read(text: &str) -> Result<Self, Vec<FieldError>> {
        let tree = tree::read(text).map_err(|error| vec![error])?;
        let mut errors = Errors::default();
        let probe = Self::scan(&tree, &mut errors);
        errors.settle(Some(probe))
    }

    fn scan(tree: &Value, errors: &mut Errors) -> Self {
        let nothing = Self { sleep_ms: 0, allocate_mib: 0, pad_bytes: 0, result_bytes: 0, fail: None };
        let Some(object) = Object::open(tree, &At::Payload, &KNOWN, "", errors) else { return nothing };
        let word = object.word("fail", &Failure::ALL.map(|(word, _)| word), errors);
        let times = object.whole("fail_times", 0..=u64::from(MAX_ATTEMPTS_MAX), errors).map(|times| times as u32);
        if object.get("fail").is_none() {
            object.refuse("fail_times", "has no use without `fail`", errors);
        }
        let failure = word.and_then(|word| Failure::ALL.into_iter().find(|(known, _)| *known == word));
        Self {
            sleep_ms: object.whole("sleep_ms", 0..=SLEEP_MAX_MS, errors).unwrap_or(0),
            allocate_mib: object.whole("allocate_mb", 0..=ALLOCATE_MAX_MIB, errors).unwrap_or(0),
            pad_bytes: object.text("pad", errors).map_or(0, str::len),
            result_bytes: object.whole("result_bytes", 0..=RESULT_MAX_BYTES, errors).unwrap_or(0) as usize,
            fail: failure.map(|(_, failure)| (failure, times)),
        }
    }
}

/// Checks a probe where probes are allowed; its target is the kind itself.
pub(super) fn validate(text: &str, around: Surroundings<'_>) -> Result<Name, Vec<FieldError>> {
    if !around.probe_jobs {
        return Err(vec![FieldError::at("/kind", "probe jobs are switched off here; `probe_jobs = true` allows them")]);
    }
    let probe = Probe::read(text)?;
    // Whoever may submit must not be able to end the processes in which the jobs of others run.
    let is_fault = probe.fail.is_some_and(|(failure, _)| failure.is_fault());
    let asked = [("/payload/fail", is_fault), ("/payload/allocate_mb", probe.allocate_mib > 0)];
    let refused: Vec<_> = asked.into_iter().filter(|(_, is_asked)| *is_asked && !around.probe_faults).collect();
    if !refused.is_empty() {
        let reason =
            "harms the worker that runs it, and such probes are switched off here; `probe_faults = true` allows them";
        return Err(refused.into_iter().map(|(pointer, _)| FieldError::at(pointer, reason)).collect());
    }
    Ok(Name::from("probe"))
}
