//! What can go wrong with an attempt, in the words of the retry table.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limiter;

/// The cause of a failed attempt. One class decides whether to retry, how long to wait and whether the attempt
/// is spent; see [`crate::retry::rule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The provider could not be reached at all; nothing was billed.
    TransportPre,
    /// The connection broke after the request was sent and before the answer began.
    TransportMid,
    /// The provider failed: 408, 409, 5xx, 403 from a CDN.
    Server,
    /// The provider asked to slow down.
    Rate,
    /// A request larger than the provider's limit per minute: it never fits.
    TooBigForLimit,
    /// The account is out of money or over its quota.
    Quota,
    /// Nobody was asked: the target's breaker is open, or an operator has paused the target.
    Breaker,
    /// Nobody was asked: the tenant has no key of its own that can be used, and may not use the operator's.
    Credential,
    /// A budget has no room for it: nobody was asked.
    Budget,
    /// The provider refused the credential.
    Auth,
    /// The provider does not know the model or path, or no provider serves it.
    Config,
    /// The prompt does not fit into the model's window.
    Overflow,
    /// Too many inputs in one request.
    BatchSplit,
    /// The provider refused the request as malformed.
    BadRequest,
    /// The provider withheld the answer.
    Filtered,
    /// The answer was cut at the token limit.
    Truncated,
    /// The answer is not what was asked for (not JSON, against the schema), also after repair.
    InvalidOutput,
    /// A stream ended without saying that it was finished, or stalled.
    StreamBroken,
    /// The attempt ran longer than its timeout.
    Timeout,
    /// The job's deadline or latest start has passed.
    Deadline,
    /// The handler panicked.
    Panic,
    /// A failure that the handler calls passing (the `probe` kind uses it).
    Transient,
    /// A failure that the handler calls final.
    Permanent,
    /// Workers died with this job three times or more.
    Poison,
    /// The worker was lost with this attempt.
    Lost,
    /// A defect or an unavailable part of Longshore itself.
    Internal,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: [Self; 26] = [
        Self::TransportPre,
        Self::TransportMid,
        Self::Server,
        Self::Rate,
        Self::TooBigForLimit,
        Self::Quota,
        Self::Breaker,
        Self::Credential,
        Self::Budget,
        Self::Auth,
        Self::Config,
        Self::Overflow,
        Self::BatchSplit,
        Self::BadRequest,
        Self::Filtered,
        Self::Truncated,
        Self::InvalidOutput,
        Self::StreamBroken,
        Self::Timeout,
        Self::Deadline,
        Self::Panic,
        Self::Transient,
        Self::Permanent,
        Self::Poison,
        Self::Lost,
        Self::Internal,
    ];

    /// The class with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == word)
    }

    /// The word of the API and of metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TransportPre => "transport_pre",
            Self::TransportMid => "transport_mid",
            Self::Server => "server",
            Self::Rate => "rate",
            Self::TooBigForLimit => "too_big_for_limit",
            Self::Quota => "quota",
            Self::Breaker => "breaker",
            Self::Credential => "credential",
            Self::Budget => "budget",
            Self::Auth => "auth",
            Self::Config => "config",
            Self::Overflow => "overflow",
            Self::BatchSplit => "batch_split",
            Self::BadRequest => "bad_request",
            Self::Filtered => "filtered",
            Self::Truncated => "truncated",
            Self::InvalidOutput => "invalid_output",
            Self::StreamBroken => "stream_broken",
            Self::Timeout => "timeout",
            Self::Deadline => "deadline",
            Self::Panic => "panic",
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Poison => "poison",
            Self::Lost => "lost",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Longest error message that is kept, in bytes: providers answer with whole HTML pages.
pub const MESSAGE_MAX_BYTES: usize = 2_000;

/// Why an attempt failed, as it is stored and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// The cause.
    pub class: ErrorClass,
    /// The provider's or handler's own code, e.g. `rate_limit_exceeded` or `503`.
    pub code: String,
    /// For people; never contains prompts or keys.
    pub message: String,
    /// The message without its volatile parts: equal signatures are one failure seen many times.
    pub signature: String,
    /// Whether another attempt could help.
    pub retryable: bool,
    /// How long the provider asked to wait, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Attempts after which this failure is final, where that is fewer than the job has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tries_max: Option<u8>,
    /// The job's lane sleeps until its target may be asked again: the job need not know how long, it is not claimed before.
    #[serde(skip)]
    pub lane_sleeps: bool,
}

impl JobError {
    /// An error of `class`; the signature is derived and `retryable` comes from the class.
    pub fn new(class: ErrorClass, code: impl Into<String>, message: impl Into<String>) -> Self {
        let (code, mut message) = (code.into(), message.into());
        if message.len() > MESSAGE_MAX_BYTES {
            let cut = (0..=MESSAGE_MAX_BYTES).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
            message.truncate(cut);
            message.push('…');
        }
        let signature = format!("{class}:{code}: {}", signature_of(&message));
        let retryable = crate::retry::is_retryable(class);
        Self { class, code, message, signature, retryable, retry_after_ms: None, tries_max: None, lane_sleeps: false }
    }

    /// Whether it is a limit of ours that kept the call back: then no provider was asked.
    pub fn is_of_our_limit(&self) -> bool {
        self.class == ErrorClass::Rate && [limiter::PARKED, limiter::LIMITED].contains(&self.code.as_str())
    }

    /// The same error with the provider's wish for a pause.
    pub fn with_retry_after(mut self, wait_ms: Option<u64>) -> Self {
        self.retry_after_ms = wait_ms;
        self
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.class, self.code, self.message)
    }
}

impl std::error::Error for JobError {}

/// Characters of a signature: enough to tell causes apart, short enough to group by.
const SIGNATURE_MAX_CHARS: usize = 160;

/// `message` with numbers, ids and quoted values replaced by `#`, `<id>` and `<…>`.
pub fn signature_of(message: &str) -> String {
    let mut words = Vec::new();
    for word in message.split_whitespace() {
        let core = word.trim_matches(|c: char| !c.is_alphanumeric());
        let digits = core.chars().filter(char::is_ascii_digit).count();
        if core.len() >= 12 && digits >= 3 && core.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
            words.push(word.replace(core, "<id>"));
        } else {
            words.push(collapse_digits(word));
        }
    }
    words.join(" ").chars().take(SIGNATURE_MAX_CHARS).collect()
}

fn collapse_digits(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    for c in word.chars() {
        match (c.is_ascii_digit(), out.ends_with('#')) {
            (true, true) => {}
            (true, false) => out.push('#'),
            (false, _) => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_forgets_what_changes_from_call_to_call() {
        let a = signature_of("Rate limit reached for org-a81cd0f2e9b1 on requests: limit 500, used 500. Try in 1.2s");
        let b = signature_of("Rate limit reached for org-77ab01cd9e4f on requests: limit 100, used 99. Try in 17.9s");
        assert_eq!(a, b);
        assert_eq!(a, "Rate limit reached for <id> on requests: limit #, used #. Try in #.#s");
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let error = JobError::new(ErrorClass::Server, "502", "ü".repeat(5_000));
        assert!(error.message.len() <= MESSAGE_MAX_BYTES + '…'.len_utf8());
    }
}
