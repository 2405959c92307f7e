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

const KNOWN: [&str; 5] = ["sleep_ms", "pad", "result_bytes", "fail", "fail_times"];

/// How a probe fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An error that passes: another attempt follows.
    Transient,
    /// An error that is final.
    Permanent,
    /// The handler panics; the process survives it.
    Panic,
    /// The process ends at once, as under `kill -9`: what makes a poison job.
    Abort,
}

/// A probe's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// How long it sleeps, in milliseconds.
    pub sleep_ms: u64,
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
        let nothing = Self { sleep_ms: 0, pad_bytes: 0, result_bytes: 0, fail: None };
        let Some(object) = Object::open(tree, &At::Payload, &KNOWN, "", errors) else { return nothing };
        let failure = object.word("fail", &["transient", "permanent", "panic", "abort"], errors);
        let times = object.whole("fail_times", 0..=u64::from(MAX_ATTEMPTS_MAX), errors).map(|times| times as u32);
        if object.get("fail").is_none() {
            object.refuse("fail_times", "has no use without `fail`", errors);
        }
        let failure = match failure {
            Some("transient") => Some(Failure::Transient),
            Some("permanent") => Some(Failure::Permanent),
            Some("panic") => Some(Failure::Panic),
            Some(_) => Some(Failure::Abort),
            None => None,
        };
        Self {
            sleep_ms: object.whole("sleep_ms", 0..=SLEEP_MAX_MS, errors).unwrap_or(0),
            pad_bytes: object.text("pad", errors).map_or(0, str::len),
            result_bytes: object.whole("result_bytes", 0..=RESULT_MAX_BYTES, errors).unwrap_or(0) as usize,
            fail: failure.map(|failure| (failure, times)),
        }
    }
}

/// Checks a probe where probes are allowed; its target is the kind itself.
pub(super) fn validate(text: &str, around: Surroundings<'_>) -> Result<Name, Vec<FieldError>> {
    if !around.probe_jobs {
        return Err(vec![FieldError::at("/kind", "probe jobs are switched off here; `probe_jobs = true` allows them")]);
    }
    Probe::read(text).map(|_| Name::from("probe"))
}
