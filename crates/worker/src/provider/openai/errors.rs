//! From what a provider answered instead of an answer to a class of the retry table, which is
//! [`queue_core::retry::rule`].
//!
//! The bodies come in the forms of OpenAI, Azure, vLLM, llama.cpp, LiteLLM, FastAPI and Google, with codes as text or
//! as numbers, or as a page of HTML from something in between.

use async_openai::error::OpenAIError;
use queue_core::{
    error::ErrorClass,
    ledger::Billed,
    retry::{BLOCKED_TRIES_MAX, rule},
};
use reqwest::header::{CONTENT_TYPE, HeaderMap, SERVER};
use serde_json::Value;

use super::pause;
use crate::provider::CallError;

/// Codes that mean money or quota, not speed: waiting a second does not help.
const QUOTA_CODES: [&str; 7] = [
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
    "billing_not_active",
    "insufficient_balance",
    "exceeded_current_quota_error",
];

/// Codes and words by which servers say that the prompt is too long for the model.
const OVERFLOW_SIGNS: [&str; 8] = [
    "context_length_exceeded",
    "exceed_context_size_error",
    "maximum context length",
    "exceeds the available context size",
    "context window",
    "longer than the maximum model length",
    "prompt is too long",
    "input is too long for requested model",
];

/// The same for a request with too many inputs, or too many tokens over all of them.
const BATCH_SIGNS: [&str; 6] = [
    "max_tokens_per_request",
    "array_above_max_length",
    "array too long",
    "maximum allowed batch size",
    "batch size exceeds",
    "too many inputs",
];

/// The same for an answer that the provider's filter withholds.
const FILTER_SIGNS: [&str; 4] =
    ["content_filter", "content_policy_violation", "responsibleaipolicyviolation", "content management policy"];

/// What can be known of an error body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The provider's code, else its type; empty where it has neither.
    pub(super) code: String,
    /// Its type.
    kind: String,
    /// Its words.
    pub(super) message: String,
    is_html: bool,
    is_json: bool,
}

/// The class of a response that is no answer. The message is the provider's own: see [`super::conceal`].
pub(super) fn classify(status: u16, headers: &HeaderMap, body: &[u8]) -> CallError {
    let said = read(headers, body);
    let class = class_of(status, headers, &said);
    let billed = match (class, status) {
        // A gateway that lost its origin cannot say whether the origin went on and finished.
        (ErrorClass::Server, 408 | 502 | 504 | 520 | 524) => Billed::Maybe,
        _ => rule(class).billed,
    };
    let code = if said.code.is_empty() { status.to_string() } else { said.code };
    let message = match said.message.trim() {
        "" => format!("the provider answered with status {status} and no explanation"),
        words => format!("status {status}: {words}"),
    };
    let wait = matches!(class, ErrorClass::Rate | ErrorClass::Server | ErrorClass::Quota);
    let tries_max = (class, status) == (ErrorClass::Server, 403);
    let mut refused = CallError::costly(class, code, message, billed, None);
    refused.error = refused.error.with_retry_after(wait.then(|| pause::asked_for(headers)).flatten());
    refused.error.tries_max = tries_max.then_some(BLOCKED_TRIES_MAX);
    refused.request_id = request_id(headers);
    refused
}

/// The class of an error that a stream or a 200 reports: its own code stands in for the status.
pub(super) fn classify_reported(headers: &HeaderMap, reported: &Value) -> CallError {
    let inner = reported.get("error").unwrap_or(reported);
    let number = ["code", "status", "status_code"].iter().find_map(|name| match inner.get(*name)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    });
    let said = read_json(reported);
    let status = match (number, said.kind.as_str(), said.code.as_str()) {
        (Some(number @ 400..=599), _, _) => number as u16,
        (_, "rate_limit_error" | "rate_limit_exceeded" | "requests" | "tokens", _) => 429,
        (_, _, "rate_limit_exceeded" | "rate_limit_error" | "slow_down") => 429,
        (_, kind, code) if QUOTA_CODES.contains(&code) || QUOTA_CODES.contains(&kind) => 429,
        (_, "invalid_request_error" | "BadRequestError", _) => 400,
        (_, "authentication_error" | "permission_error", _) => 401,
        _ => 500,
    };
    let body = serde_json::to_vec(reported).unwrap_or_default();
    let mut refused = classify(status, headers, &body);
    refused.billed = Billed::Maybe;
    refused
}

/// A request that brought no response, or one that broke off before its head was complete.
pub(super) fn unanswered(error: &OpenAIError) -> CallError {
    let (class, code, billed) = match error {
        OpenAIError::Reqwest(error) => transport_class(error),
        _ => (ErrorClass::Internal, "request", Billed::No),
    };
    CallError::costly(class, code, causes(error), billed, None)
}

/// Timeouts are asked for before anything else: reqwest also calls them request errors.
fn transport_class(error: &reqwest::Error) -> (ErrorClass, &'static str, Billed) {
    if error.is_connect() {
        let code = if error.is_timeout() { "connect_timeout" } else { "connect" };
        (ErrorClass::TransportPre, code, Billed::No)
    } else if error.is_timeout() {
        (ErrorClass::TransportMid, "timeout", Billed::Maybe)
    } else if error.is_builder() {
        (ErrorClass::Internal, "request", Billed::No)
    } else {
        (ErrorClass::TransportMid, "connection_lost", Billed::Maybe)
    }
}

/// An error and what lies behind it, without the URL: it may hold a key.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut told = Vec::<String>::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let words = cause.to_string();
        let words = words.split(" for url (").next().unwrap_or_default().to_owned();
        if !told.contains(&words) {
            told.push(words);
        }
        next = cause.source();
    }
    told.join(": ")
}

/// The provider's id of the request.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    let names = ["x-request-id", "request-id", "apim-request-id", "cf-ray"];
    let id = names.iter().find_map(|name| headers.get(*name))?.to_str().ok()?;
    Some(id.chars().take(REQUEST_ID_MAX_CHARS).collect())
}

/// Longer than any real request id.
const REQUEST_ID_MAX_CHARS: usize = 128;

fn class_of(status: u16, headers: &HeaderMap, said: &Said) -> ErrorClass {
    use ErrorClass as C;
    let words = said.message.to_ascii_lowercase();
    let code = said.code.to_ascii_lowercase();
    let signs = |signs: &[&str]| signs.iter().any(|sign| code.contains(sign) || words.contains(sign));
    let quota = QUOTA_CODES.iter().any(|known| code == *known || said.kind == *known)
        || code.ends_with("_spend_limit_exceeded")
        || words.contains("exceeded your current quota");
    match status {
        402 => C::Quota,
        403 | 429 if quota => C::Quota,
        429 if words.contains("request too large") => C::TooBigForLimit,
        429 => C::Rate,
        401 => C::Auth,
        403 if signs(&FILTER_SIGNS) => C::Filtered,
        403 if is_from_between(headers, said) => C::Server,
        403 => C::Auth,
        400..=599 if signs(&OVERFLOW_SIGNS) => C::Overflow,
        400 | 413 | 422 if signs(&BATCH_SIGNS) => C::BatchSplit,
        400 | 422 if signs(&FILTER_SIGNS) => C::Filtered,
        408 | 409 => C::Server,
        503 if code == "slow_down" => C::Rate,
        501 | 505 => C::Config,
        500..=599 => C::Server,
        // A path or a model that is not there, or a server that lives elsewhere now.
        300..=399 | 404 | 405 | 410 => C::Config,
        _ => C::BadRequest,
    }
}

/// A 403 that a content network sends for the provider: it passes, unlike a refused key.
fn is_from_between(headers: &HeaderMap, said: &Said) -> bool {
    let network = headers.get(SERVER).and_then(|server| server.to_str().ok()).is_some_and(|server| {
        ["cloudflare", "cloudfront", "akamai"].iter().any(|name| server.to_ascii_lowercase().contains(name))
    });
    said.is_html || network && !said.is_json
}

fn read(headers: &HeaderMap, body: &[u8]) -> Said {
    if let Ok(json) = serde_json::from_slice::<Value>(body) {
        return read_json(&json);
    }
    let text = String::from_utf8_lossy(body);
    let typed = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if typed.contains("html") || text.trim_start().starts_with('<') {
        return Said { message: format!("a page of HTML: {}", title_of(&text)), is_html: true, ..Said::default() };
    }
    Said { message: text.split_whitespace().collect::<Vec<_>>().join(" "), ..Said::default() }
}

/// What stands in the title, else in the first heading.
fn title_of(html: &str) -> String {
    // Lower case for ASCII only, so that offsets stay those of the original.
    let lower = html.to_ascii_lowercase();
    let between = |open: &str, close: &str| {
        let from = lower.find(open)? + open.len();
        let from = from + lower[from..].find('>')? + 1;
        let to = from + lower[from..].find(close)?;
        Some(html[from..to].split_whitespace().collect::<Vec<_>>().join(" "))
    };
    between("<title", "</title").or_else(|| between("<h1", "</h1")).unwrap_or_else(|| "no title".to_owned())
}

fn read_json(json: &Value) -> Said {
    // Google puts the object into an array.
    let json = json.as_array().and_then(|list| list.first()).unwrap_or(json);
    let error = json.get("error").or_else(|| json.pointer("/errors/0")).unwrap_or(json);
    let word = |name: &str| match error.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let kind = [word("type"), word("status")].into_iter().find(|kind| !kind.is_empty()).unwrap_or_default();
    // Azure: the reason of a refusal is one level further in.
    let inner = error.pointer("/innererror/code").and_then(Value::as_str).unwrap_or_default();
    let named = |code: &String| !code.is_empty() && code.parse::<f64>().is_err();
    let code = [word("code"), inner.to_owned(), kind.clone(), word("code")];
    let code = code.iter().find(|code| named(code)).or(code.iter().rev().find(|code| !code.is_empty()));
    let message = match (error, error.get("message").or_else(|| error.get("detail"))) {
        (Value::String(words), _) | (_, Some(Value::String(words))) => words.clone(),
        (_, Some(Value::Array(problems))) => problems.iter().map(problem).collect::<Vec<_>>().join("; "),
        _ => String::new(),
    };
    let code = code.map(|code| tidy(code)).unwrap_or_default();
    Said { code, kind, message, is_html: false, is_json: true }
}

/// FastAPI's list of problems repeats the whole input: only place and reason are taken.
fn problem(problem: &Value) -> String {
    let place = problem.get("loc").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let place: Vec<String> =
        place.iter().map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned)).collect();
    let reason = problem.get("msg").and_then(Value::as_str).unwrap_or("invalid");
    format!("{}: {reason}", place.join("."))
}

/// A code is a metric label and a word of the interface, so it is short and plain.
fn tidy(code: &str) -> String {
    code.chars().filter(|c| c.is_ascii_alphanumeric() || "_-.".contains(*c)).take(CODE_MAX_CHARS).collect()
}

/// Longer than any code that a provider has.
const CODE_MAX_CHARS: usize = 64;

#[cfg(test)]
mod tests;
