//! How a model is to answer: the members that a chat request and the defaults of an analysis have in common.

use serde_json::Value;

use super::fields::{At, Errors, Object};

/// Largest number of answer tokens that may be asked for: more than any model writes, so that a slip in the unit shows.
pub const TOKENS_MAX: u64 = 1_000_000;
/// Most sequences that end an answer, as at OpenAI.
const STOPS_MAX: usize = 4;
/// Longest label, e.g. `user`.
const LABEL_MAX_BYTES: usize = 512;

/// The members that [`check`] knows.
pub(super) const KNOWN: [&str; 11] = [
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "reasoning_effort",
    "service_tier",
    "user",
];

/// Checks each of [`KNOWN`] that is given.
pub(super) fn check(object: &Object<'_>, errors: &mut Errors) {
    object.whole("max_tokens", 1..=TOKENS_MAX, errors);
    object.whole("max_completion_tokens", 1..=TOKENS_MAX, errors);
    if object.get("max_tokens").is_some() {
        object.refuse("max_completion_tokens", "stands beside `max_tokens`: give one of them", errors);
    }
    object.number("temperature", 0.0..=2.0, errors);
    object.number("top_p", 0.0..=1.0, errors);
    object.number("presence_penalty", -2.0..=2.0, errors);
    object.number("frequency_penalty", -2.0..=2.0, errors);
    object.word("reasoning_effort", &["none", "minimal", "low", "medium", "high", "xhigh"], errors);
    object.word("service_tier", &["auto", "default", "flex", "scale", "priority"], errors);
    object.label("user", LABEL_MAX_BYTES, errors);
    if let Some(seed) = object.get("seed").filter(|seed| seed.as_i64().is_none()) {
        errors.mismatch(object.at("seed"), "a whole number of 64 bits", seed);
    }
    stop(object, errors);
}

fn stop(object: &Object<'_>, errors: &mut Errors) {
    match object.get("stop") {
        None | Some(Value::String(_)) => {}
        Some(Value::Array(_)) => {
            let at = object.at("stop");
            for (index, item) in object.list("stop", STOPS_MAX, errors).into_iter().flatten().enumerate() {
                if !item.is_string() {
                    errors.mismatch(at.item(index), "a string", item);
                }
            }
        }
        Some(other) => {
            errors.mismatch(object.at("stop"), format_args!("a string or 1 to {STOPS_MAX} strings"), other);
        }
    }
}

/// Where the limit on the answer stands, and how many tokens it is.
pub(super) fn answer_limit<'a>(object: &Object<'a>) -> Option<(At<'a>, u64)> {
    let given = |name| Some((object.at(name), object.get(name)?.as_u64()?));
    given("max_tokens").or_else(|| given("max_completion_tokens"))
}
