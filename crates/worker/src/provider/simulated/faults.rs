//! Faults on request, so that everything around a provider can be seen to cope.
//!
//! Two ways to ask: a suffix of the model (`simulated-chat!rate`: every call), or a mark in the last user message or
//! in an embedding input (`[[fault:server:2]]`: the first two tries of this call, then it succeeds; without a number,
//! every try).

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use queue_core::{
    error::ErrorClass,
    ids::CallId,
    ledger::{Billed, Usage},
};
use serde_json::{Map, Value};

use crate::provider::CallError;

/// How a mark in a text begins.
pub(super) const MARKER: &str = "[[fault:";

/// Calls whose tries are counted at once; the oldest is forgotten first. A mark is for tests, not for load.
const COUNTED_CALLS_MAX: usize = 10_000;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `rate`: too many requests; come back in a second.
    Rate,
    /// `server`: a 503.
    Server,
    /// `auth`: the key is refused.
    Auth,
    /// `quota`: out of money.
    Quota,
    /// `overflow`: the prompt does not fit.
    Overflow,
    /// `timeout`: no answer until the caller gives up.
    Timeout,
    /// `cut`: the stream ends in the middle.
    Cut,
    /// `invalid`: the answer is not what was asked for.
    Invalid,
    /// `length`: the answer is cut at the token limit.
    Length,
    /// `filter`: the answer is withheld.
    Filter,
    /// `refuse`: the model declines.
    Refuse,
}

impl Fault {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "rate" => Self::Rate,
            "server" => Self::Server,
            "auth" => Self::Auth,
            "quota" => Self::Quota,
            "overflow" => Self::Overflow,
            "timeout" => Self::Timeout,
            "cut" => Self::Cut,
            "invalid" => Self::Invalid,
            "length" => Self::Length,
            "filter" => Self::Filter,
            "refuse" => Self::Refuse,
            _ => return None,
        })
    }

    /// The error of a fault that brings no answer at all.
    pub(super) fn refusal(self) -> Option<CallError> {
        let refuse = |class, code: &str, message: &str| Some(CallError::unbilled(class, code, message));
        match self {
            Self::Rate => {
                let mut refused = CallError::unbilled(ErrorClass::Rate, "rate_limit_exceeded", "simulated rate limit");
                refused.error = refused.error.with_retry_after(Some(RATE_RETRY_AFTER_MS));
                Some(refused)
            }
            Self::Server => refuse(ErrorClass::Server, "503", "simulated server failure"),
            Self::Auth => refuse(ErrorClass::Auth, "invalid_api_key", "simulated refusal of the key"),
            Self::Quota => refuse(ErrorClass::Quota, "insufficient_quota", "simulated exhausted account"),
            Self::Overflow => {
                refuse(ErrorClass::Overflow, "context_length_exceeded", "simulated maximum context length")
            }
            Self::Timeout | Self::Cut | Self::Invalid | Self::Length | Self::Filter | Self::Refuse => None,
        }
    }

    /// What a fault of the answer means where the answer is a set of vectors.
    pub(super) fn spoiled_vectors(self, usage: Usage) -> CallError {
        let (class, code, billed) = match self {
            Self::Cut => (ErrorClass::TransportMid, "cut", Billed::Maybe),
            Self::Filter | Self::Refuse => (ErrorClass::Filtered, "content_filter", Billed::Yes),
            _ => (ErrorClass::InvalidOutput, "invalid_vectors", Billed::Yes),
        };
        CallError::costly(class, code, "simulated broken vectors", billed, None).told(usage)
    }
}

/// What a simulated rate limit asks for.
const RATE_RETRY_AFTER_MS: u64 = 1_000;

/// Counts the tries of calls whose text asks for a number of failures.
#[derive(Default)]
pub(super) struct Faults {
    tries: Mutex<Tries>,
}

#[derive(Default)]
struct Tries {
    of_call: HashMap<CallId, u32>,
    order: VecDeque<CallId>,
}

impl Faults {
    /// What goes wrong with this try of the call.
    pub(super) fn next(&self, id: CallId, model: &str, text: &str) -> Option<Fault> {
        if let Some(fault) = model.rsplit_once('!').and_then(|(_, word)| Fault::parse(word)) {
            return Some(fault);
        }
        let (fault, times) = marked(text)?;
        match times {
            None => Some(fault),
            Some(times) => (self.count(id) <= times).then_some(fault),
        }
    }

    /// The number of this try, counted from 1.
    fn count(&self, id: CallId) -> u32 {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        if !tries.of_call.contains_key(&id) {
            if tries.order.len() >= COUNTED_CALLS_MAX
                && let Some(oldest) = tries.order.pop_front()
            {
                tries.of_call.remove(&oldest);
            }
            tries.order.push_back(id);
        }
        let count = tries.of_call.entry(id).or_default();
        *count = count.saturating_add(1);
        *count
    }
}

/// The first mark in `text` that can be understood.
fn marked(text: &str) -> Option<(Fault, Option<u32>)> {
    text.split(MARKER).skip(1).find_map(|rest| {
        let (mark, _) = rest.split_once("]]")?;
        match mark.split_once(':') {
            Some((word, times)) => Some((Fault::parse(word)?, Some(times.parse().ok()?))),
            None => Some((Fault::parse(mark)?, None)),
        }
    })
}

/// The text of the last user message.
pub(super) fn last_user_text(body: &Map<String, Value>) -> &str {
    let messages = body.get("messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let last = messages.iter().rev().find(|message| message.get("role").is_some_and(|role| role == "user"));
    match last.and_then(|message| message.get("content")) {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| part.get("text")?.as_str()).find(|text| text.contains(MARKER)).unwrap_or("")
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn marks_are_read_and_nonsense_is_text() {
        assert_eq!(marked("a [[fault:server:2]] b"), Some((Fault::Server, Some(2))));
        assert_eq!(marked("[[fault:cut]]"), Some((Fault::Cut, None)));
        for text in ["", "[[fault:]]", "[[fault:nope]]", "[[fault:rate:x]]", "[[fault:rate", "[[fault:rate:-1]]"] {
            assert_eq!(marked(text), None, "{text}");
        }
        assert_eq!(marked("[[fault:nope]] [[fault:rate:1]]"), Some((Fault::Rate, Some(1))));
    }

    #[test]
    fn tries_are_counted_for_each_call() {
        let faults = Faults::default();
        let [a, b] = [1, 2].map(|n| CallId(Uuid::from_u128(n)));
        let text = "[[fault:server:2]]";
        let fails = |id| faults.next(id, "m", text).is_some();
        assert_eq!(
            [fails(a), fails(b), fails(a), fails(a), fails(b), fails(b)],
            [true, true, true, false, true, false]
        );
    }

    #[test]
    fn a_bounded_number_of_calls_is_counted() {
        let faults = Faults::default();
        for n in 0..COUNTED_CALLS_MAX as u128 + 100 {
            faults.next(CallId(Uuid::from_u128(n)), "m", "[[fault:server:1]]");
        }
        let tries = faults.tries.lock().unwrap();
        assert_eq!((tries.of_call.len(), tries.order.len()), (COUNTED_CALLS_MAX, COUNTED_CALLS_MAX));
    }
}
