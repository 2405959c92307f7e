//! The payload of an `llm` job: a chat completion request, checked before anyone pays for it.

use serde_json::{Map, Value};

use super::{
    FieldError, Surroundings,
    fields::{At, Errors, Object, list_at},
    model, tree,
};
use crate::ids::Name;

/// Most messages of one request.
pub const MESSAGES_MAX: usize = 1_000;
/// Largest number of tokens that may be asked for.
pub const TOKENS_MAX: u64 = 1_000_000;
/// Most repairs of one answer.
pub const REPAIR_MAX: u64 = 5;
/// Repairs of a request that names no number.
pub const REPAIR_DEFAULT: u32 = 2;

const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
const KNOWN: [&str; 28] = [
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning_effort",
    "user",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "metadata",
    "service_tier",
    "n",
    "stream",
    "stream_options",
    "repair",
    "on_truncated",
    "extra",
    "prompt_cache_key",
];
/// Members that are Longshore's own or handled by it, and are not sent on.
const OURS: [&str; 7] = ["model", "n", "stream", "stream_options", "repair", "on_truncated", "extra"];

/// What to do with an answer that was cut at the token limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTruncated {
    /// Keep it; `finish` says `length`.
    Accept,
    /// Fail the attempt.
    Fail,
}

/// A chat completion to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Llm {
    /// The model, if one is named.
    pub model: Option<String>,
    /// The request without `model` and without Longshore's own members.
    pub body: Map<String, Value>,
    /// The schema that the answer must keep, if there is one.
    pub schema: Option<Value>,
    /// Whether the answer must be JSON.
    pub wants_json: bool,
    /// Repairs of an answer that does not keep the schema.
    pub repair: u32,
    /// What to do with a cut answer.
    pub on_truncated: OnTruncated,
}

impl Llm {
    /// Reads a payload's JSON text.
    pub fn read(text: &str) -> Result<Self, Vec<FieldError>> {
        let tree = tree::read(text).map_err(|error| vec![error])?;
        let mut errors = Errors::default();
        let llm = scan(&tree, &mut errors);
        errors.or(llm)
    }
}

fn scan(tree: &Value, errors: &mut Errors) -> Llm {
    let mut llm = Llm {
        model: None,
        body: Map::new(),
        schema: None,
        wants_json: false,
        repair: REPAIR_DEFAULT,
        on_truncated: OnTruncated::Accept,
    };
    let hint = "put what only your provider knows into `extra`";
    let Some(object) = Object::open(tree, &At::Payload, &KNOWN, hint, errors) else { return llm };
    llm.model = object.label("model", model::NAME_MAX_BYTES, errors).map(str::to_owned);
    messages(&object, errors);
    numbers(&object, errors);
    for name in ["stream", "stream_options"] {
        object.refuse(name, "is Longshore's: it always streams inside; watch /v1/jobs/{id}/events", errors);
    }
    if object.get("n").is_some_and(|n| n.as_u64() != Some(1)) {
        object.wrong("n", "must be 1: one job has one answer", errors);
    }
    object.list("tools", 128, errors);
    (llm.schema, llm.wants_json) = response_format(&object, errors);
    if let Some(repair) = object.whole("repair", 0..=REPAIR_MAX, errors) {
        llm.repair = repair as u32;
    }
    if object.word("on_truncated", &["accept", "fail"], errors) == Some("fail") {
        llm.on_truncated = OnTruncated::Fail;
    }
    for (name, value) in object.map.iter().filter(|(name, value)| !OURS.contains(&name.as_str()) && !value.is_null()) {
        llm.body.insert(name.clone(), value.clone());
    }
    if let Some(extra) = object.get("extra") {
        let at = object.at("extra");
        if let Some(extra) = Object::open_any(extra, &at, errors) {
            for (name, value) in extra.map {
                if KNOWN.contains(&name.as_str()) {
                    errors.wrong(at.member(name), "is a field of its own: name it outside `extra`");
                }
                llm.body.insert(name.clone(), value.clone());
            }
        }
    }
    llm
}

fn messages(object: &Object<'_>, errors: &mut Errors) {
    let Some(value) = object.require("messages", "an array of {role, content}", errors) else { return };
    let at = object.at("messages");
    let Some(list) = list_at(value, at, MESSAGES_MAX, errors) else { return };
    for (index, message) in list.iter().enumerate() {
        if errors.is_full() {
            return;
        }
        let known = ["role", "content", "name", "tool_calls", "tool_call_id", "refusal"];
        let place = at.item(index);
        let Some(message) = Object::open(message, &place, &known, "", errors) else { continue };
        if message.require("role", "who speaks", errors).is_some() {
            message.word("role", &ROLES, errors);
        }
        match message.get("content") {
            Some(Value::String(_)) => {}
            Some(Value::Array(_)) => parts(&message, errors),
            Some(other) => errors.mismatch(message.at("content"), "a string or an array of parts", other),
            None if message.get("tool_calls").is_some() => {}
            None => message.wrong("content", "is required: the text of the message", errors),
        }
    }
}

fn parts(message: &Object<'_>, errors: &mut Errors) {
    let Some(parts) = message.list("content", 256, errors) else { return };
    let at = message.at("content");
    for (index, part) in parts.iter().enumerate() {
        let place = at.item(index);
        let Some(part) = Object::open_any(part, &place, errors) else { continue };
        match part.word("type", &["text", "image_url", "input_audio", "file", "refusal"], errors) {
            Some("text") if part.require("text", "the text of the part", errors).is_some() => {
                part.text("text", errors);
            }
            Some(_) => {}
            None if part.get("type").is_none() => part.wrong("type", "is required: `text`, `image_url` …", errors),
            None => {}
        }
    }
}

fn numbers(object: &Object<'_>, errors: &mut Errors) {
    object.whole("max_tokens", 1..=TOKENS_MAX, errors);
    object.whole("max_completion_tokens", 1..=TOKENS_MAX, errors);
    object.number("temperature", 0.0..=2.0, errors);
    object.number("top_p", 0.0..=1.0, errors);
    object.number("presence_penalty", -2.0..=2.0, errors);
    object.number("frequency_penalty", -2.0..=2.0, errors);
    match object.get("seed") {
        Some(seed) if seed.as_i64().is_none() => errors.mismatch(object.at("seed"), "a whole number", seed),
        _ => {}
    }
    match object.get("stop") {
        None | Some(Value::String(_)) => {}
        Some(Value::Array(list)) if (1..=4).contains(&list.len()) && list.iter().all(Value::is_string) => {}
        Some(other) => errors.mismatch(object.at("stop"), "a string or 1 to 4 strings", other),
    }
}

/// The schema that the answer must keep, and whether it must be JSON at all.
fn response_format(object: &Object<'_>, errors: &mut Errors) -> (Option<Value>, bool) {
    let Some(value) = object.get("response_format") else { return (None, false) };
    let at = object.at("response_format");
    let Some(format) = Object::open(value, &at, &["type", "json_schema"], "", errors) else { return (None, false) };
    match format.word("type", &["text", "json_object", "json_schema"], errors) {
        Some("json_object") => (None, true),
        Some("json_schema") => {
            let Some(value) = format.require("json_schema", "{name, schema}", errors) else { return (None, true) };
            let inner_at = format.at("json_schema");
            let known = ["name", "schema", "strict", "description"];
            let Some(inner) = Object::open(value, &inner_at, &known, "", errors) else { return (None, true) };
            if inner.require("name", "a name for the schema", errors).is_some() {
                inner.label("name", 64, errors);
            }
            inner.flag("strict", errors);
            let schema = inner.require("schema", "a JSON Schema", errors);
            if let Some(schema) = schema {
                model::check_schema(schema, inner.at("schema"), errors);
            }
            (schema.cloned(), true)
        }
        _ => (None, false),
    }
}

/// Checks an `llm` payload and says what it loads.
pub(super) fn validate(text: &str, around: Surroundings<'_>) -> Result<Name, Vec<FieldError>> {
    let llm = Llm::read(text)?;
    let mut errors = Errors::default();
    let at = At::Payload;
    let default = around.routes.default_model.as_deref();
    let target = model::target(llm.model.as_deref().or(default), at.member("model"), around, &mut errors);
    let asked = ["max_tokens", "max_completion_tokens"].iter().find_map(|name| llm.body.get(*name)?.as_u64());
    if let Some(model) = llm.model.as_deref().or(default) {
        let prompt = llm.body.get("messages").map(Value::to_string).unwrap_or_default();
        model::check_window(model, asked, &prompt, &at, around, &mut errors);
    }
    errors.or(target.unwrap_or_else(|| Name::from("none")))
}
