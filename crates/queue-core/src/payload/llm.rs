//! The payload of an `llm` job: a chat completion request, checked before anyone pays for it.

use serde_json::{Map, Value};

use super::{
    FieldError, Loads, Surroundings, cache, chain,
    fields::{At, Errors, Object},
    messages, model, sampling, tools, tree,
};

crate::unshown!(Llm);
pub use super::{
    messages::{MESSAGES_MAX, PROMPT_MAX_BYTES},
    sampling::TOKENS_MAX,
    tools::TOOLS_MAX,
};

/// Most repairs of one answer: a model that fails six times at a schema does not know how.
pub const REPAIR_MAX: u64 = 5;
/// Repairs of a request that names no number.
pub const REPAIR_DEFAULT: u32 = 2;
/// Most entries of `logit_bias`, as at OpenAI.
const BIASES_MAX: usize = 1_024;
/// Most pairs of `metadata`, and the longest key and value, as at OpenAI.
const METADATA_MAX: (usize, usize, usize) = (16, 64, 512);

/// Members beside those of [`sampling::KNOWN`].
const OTHERS: [&str; 19] = [
    "model",
    "messages",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "metadata",
    "prompt_cache_key",
    "n",
    "stream",
    "stream_options",
    "repair",
    "on_truncated",
    "extra",
    "store",
    cache::NAME,
];
/// Members that are Longshore's own or handled by it, and are not sent on.
const OURS: [&str; 8] = ["model", "n", "stream", "stream_options", "repair", "on_truncated", "extra", cache::NAME];

/// What to do with an answer that was cut at the token limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTruncated {
    /// Keep it; `finish` says `length`.
    Accept,
    /// Fail the attempt.
    Fail,
    /// Ask once more with twice the limit.
    Raise,
    /// Let the model go on, a few times.
    Continue,
}

/// A chat completion to run.
#[derive(Clone, PartialEq)]
pub struct Llm {
    /// The model, if one is named.
    pub model: Option<String>,
    /// The request without `model` and without Longshore's own members, and with those of `extra`.
    pub body: Map<String, Value>,
    /// The schema that the answer must keep, if there is one.
    pub schema: Option<Value>,
    /// Whether the answer must be JSON.
    pub wants_json: bool,
    /// Repairs of an answer that is not what was asked for.
    pub repair: u32,
    /// What to do with a cut answer.
    pub on_truncated: OnTruncated,
    /// Whether an answer that was paid for before will do.
    pub cache: Option<cache::Wish>,
}

impl Llm {
    /// Reads a payload's JSON text.
    pub fn read(text: &str) -> Result<Self, Vec<FieldError>> {
        let tree = tree::read(text).map_err(|error| vec![error])?;
        let mut errors = Errors::default();
        let (at, known) = (At::Payload, known());
        let llm = open(&tree, &at, &known, &mut errors).map(|object| scan(&object, &known, &mut errors).0);
        errors.settle(llm)
    }
}

/// Every member that is known.
pub(super) fn known() -> Vec<&'static str> {
    OTHERS.into_iter().chain(sampling::KNOWN).collect()
}

fn open<'a>(tree: &'a Value, at: &'a At<'a>, known: &[&str], errors: &mut Errors) -> Option<Object<'a>> {
    Object::open(tree, at, known, "what only your provider knows goes into `extra`", errors)
}

/// The request as far as it can be read, and the texts of its prompt.
fn scan<'a>(object: &Object<'a>, known: &[&str], errors: &mut Errors) -> (Llm, Vec<&'a str>) {
    let texts = messages::check(object, errors);
    sampling::check(object, errors);
    tools::check(object, errors);
    others(object, errors);
    let (schema, wants_json) = response_format(object, errors);
    let repair = object.whole("repair", 0..=REPAIR_MAX, errors).map_or(REPAIR_DEFAULT, |repair| repair as u32);
    let on_truncated = match object.word("on_truncated", &["accept", "fail", "raise", "continue"], errors) {
        Some("fail") => OnTruncated::Fail,
        Some("raise") => {
            if sampling::answer_limit(object).is_none() {
                object.wrong("on_truncated", "`raise` needs a limit to raise: give `max_tokens`", errors);
            }
            OnTruncated::Raise
        }
        Some("continue") => {
            if wants_json {
                object.wrong("on_truncated", "`continue` is for text: JSON in two parts does not fit together", errors);
            }
            OnTruncated::Continue
        }
        _ => OnTruncated::Accept,
    };
    let cache = cache::read(object, errors);
    let mut body = object.map.clone();
    body.retain(|name, value| !OURS.contains(&name.as_str()) && !value.is_null());
    extra(object, known, &mut body, errors);
    let model = object.get("model").and_then(Value::as_str).map(str::to_owned);
    (Llm { model, body, schema, wants_json, repair, on_truncated, cache }, texts)
}

/// Members that need a line each.
fn others(object: &Object<'_>, errors: &mut Errors) {
    for name in ["stream", "stream_options"] {
        object.refuse(name, "is Longshore's: it streams inside; watch /v1/jobs/{id}/events", errors);
    }
    if object.get("n").is_some_and(|n| n.as_u64() != Some(1)) {
        object.wrong("n", "must be 1: a job has one answer; submit several jobs", errors);
    }
    object.flag("logprobs", errors);
    object.flag("store", errors);
    object.whole("top_logprobs", 0..=20, errors);
    object.label("prompt_cache_key", 256, errors);
    logit_bias(object, errors);
    metadata(object, errors);
}

fn logit_bias(object: &Object<'_>, errors: &mut Errors) {
    let Some(value) = object.get("logit_bias") else { return };
    let at = object.at("logit_bias");
    let Some(biases) = Object::open_any(value, &at, errors) else { return };
    if biases.map.len() > BIASES_MAX {
        errors.wrong(at, format!("has {} entries; the limit is {BIASES_MAX}", biases.map.len()));
        return;
    }
    for (token, bias) in biases.map {
        if token.parse::<u32>().is_err() {
            errors.wrong(at.member(token), "must be named after a token: a whole number as text");
        } else if bias.as_f64().is_none_or(|bias| !(-100.0..=100.0).contains(&bias)) {
            errors.mismatch(at.member(token), "a number from -100 to 100", bias);
        }
    }
}

fn metadata(object: &Object<'_>, errors: &mut Errors) {
    let (pairs_max, key_max, value_max) = METADATA_MAX;
    let Some(value) = object.get("metadata") else { return };
    let at = object.at("metadata");
    let Some(pairs) = Object::open_any(value, &at, errors) else { return };
    if pairs.map.len() > pairs_max {
        errors.wrong(at, format!("has {} pairs; the limit is {pairs_max}", pairs.map.len()));
    }
    for (key, value) in pairs.map {
        if key.len() > key_max {
            errors.wrong(at, format!("has a key of {} bytes; the limit is {key_max}", key.len()));
        } else if value.as_str().is_none_or(|text| text.len() > value_max) {
            errors.mismatch(at.member(key), format_args!("a string of at most {value_max} bytes"), value);
        }
    }
}

/// What goes to the provider as it is, beside what is known here.
pub(super) fn extra(object: &Object<'_>, known: &[&str], body: &mut Map<String, Value>, errors: &mut Errors) {
    let Some(value) = object.get("extra") else { return };
    let at = object.at("extra");
    let Some(extra) = Object::open_any(value, &at, errors) else { return };
    for (name, value) in extra.map {
        if known.contains(&name.as_str()) {
            errors.wrong(at.member(name), "is a field of its own: give it beside `extra`");
        }
        body.insert(name.clone(), value.clone());
    }
}

/// The schema that the answer must keep, and whether it must be JSON at all.
fn response_format(object: &Object<'_>, errors: &mut Errors) -> (Option<Value>, bool) {
    let Some(value) = object.get("response_format") else { return (None, false) };
    let at = object.at("response_format");
    let Some(format) = Object::open(value, &at, &["type", "json_schema"], "", errors) else { return (None, false) };
    format.require("type", "`text`, `json_object` or `json_schema`", errors);
    let kind = format.word("type", &["text", "json_object", "json_schema"], errors);
    if kind.is_some_and(|kind| kind != "json_schema") {
        format.refuse("json_schema", "belongs to the type `json_schema`", errors);
    }
    match kind {
        Some("json_object") => (None, true),
        Some("json_schema") => (json_schema(&format, errors), true),
        _ => (None, false),
    }
}

fn json_schema(format: &Object<'_>, errors: &mut Errors) -> Option<Value> {
    let value = format.require("json_schema", "{name, schema}", errors)?;
    let at = format.at("json_schema");
    let named = Object::open(value, &at, &["name", "schema", "strict", "description"], "", errors)?;
    tools::check_name(&named, errors);
    named.flag("strict", errors);
    named.text("description", errors);
    let schema = named.require("schema", "a JSON Schema", errors)?;
    model::check_schema(schema, named.at("schema"), errors);
    Some(schema.clone())
}

/// Checks an `llm` payload and says what it loads.
pub(super) fn validate(text: &str, chain: Option<&Value>, around: Surroundings<'_>) -> Result<Loads, Vec<FieldError>> {
    let tree = tree::read(text).map_err(|error| vec![error])?;
    let mut errors = Errors::default();
    let (at, known) = (At::Payload, known());
    let Some(object) = open(&tree, &at, &known, &mut errors) else { return errors.settle(None) };
    let (_, prompt) = scan(&object, &known, &mut errors);
    let served = model::served(&object, "model", around.routes.default_model.as_deref(), around, &mut errors);
    let chain_at = At::Job.member("fallback");
    let links = chain.map(|chain| chain::links(chain, &chain_at, &mut errors)).unwrap_or_default();
    let mut targets = Vec::new();
    if let Some((name, target)) = served {
        let wish = model::Wish { answer: sampling::answer_limit(&object), prompt_at: at.member("messages"), prompt };
        model::check_room(name, &links, &wish, around, &mut errors);
        targets.push(target);
        targets.extend(chain::targets(&links, &chain_at, name, around, &mut errors));
    }
    errors.settle(Some(Loads::chained(&targets, links)))
}
