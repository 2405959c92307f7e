//! The payload of an `analysis` job, version 1: a document, how to cut it, what to ask of each part, and how to join
//! the answers.

use serde_json::{Map, Value};

use super::{
    FieldError, Surroundings,
    fields::{At, Errors, Object},
    model, tree,
};
use crate::ids::Name;

/// Largest document.
pub const TEXT_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Longest prompt or system text.
pub const PROMPT_MAX_BYTES: usize = 64 * 1024;
/// Most chunks that a job may ask for.
pub const CHUNKS_MAX: u64 = 10_000;

/// How the document is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Splitter {
    /// At sentences and paragraphs.
    Text,
    /// At headings first.
    Markdown,
    /// Not at all: one chunk.
    None,
}

/// How the parts' answers become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// They do not: the result is their list.
    None,
    /// Their texts, one after the other.
    Concat,
    /// Their arrays, one after the other, with the source of each item.
    MergeArrays,
    /// Groups of them, level by level, until one is left.
    Tree,
    /// One after the other, each call refining the answer so far.
    Refine,
    /// All in one call.
    Llm,
}

/// What is asked of each chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct ChunkTask {
    /// System text.
    pub system: Option<String>,
    /// Template with `{{chunk}}`, `{{index}}`, `{{total}}`.
    pub prompt: String,
    /// Schema of the answer.
    pub schema: Option<Value>,
    /// Whether the provider is told to keep the schema strictly.
    pub strict: bool,
    /// Repairs of an answer.
    pub repair: u32,
    /// Calls at once.
    pub concurrency: usize,
    /// Whether a failed chunk is left out.
    pub skip_failed: bool,
    /// Share of chunks that may be left out.
    pub max_failed_ratio: f64,
}

/// How the answers are joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduce {
    /// By which strategy.
    pub strategy: Strategy,
    /// Template with `{{items}}`; for `refine` with `{{previous}}` and `{{chunk}}`.
    pub prompt: Option<String>,
    /// Schema of the joined answer.
    pub schema: Option<Value>,
    /// Answers in one call of a tree.
    pub fan_in: usize,
    /// Levels of a tree at most.
    pub max_depth: u32,
    /// Pointers that make two merged items the same.
    pub dedupe_by: Vec<String>,
}

/// An analysis to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    /// The document.
    pub text: String,
    /// The model, if one is named.
    pub model: Option<String>,
    /// Members that every call gets: `max_tokens`, `temperature` …
    pub defaults: Map<String, Value>,
    /// Tokens in a chunk.
    pub chunk_size: usize,
    /// Tokens that neighbours share.
    pub overlap: usize,
    /// Where to cut.
    pub splitter: Splitter,
    /// More chunks than this are refused.
    pub max_chunks: usize,
    /// What is asked of each chunk.
    pub map: ChunkTask,
    /// How the answers are joined.
    pub reduce: Reduce,
    /// Model and dimensions of the chunks' vectors, where they are asked for.
    pub embed: Option<(Option<String>, Option<u32>)>,
    /// Provider calls that the job may make.
    pub max_calls: u32,
}

impl Analysis {
    /// Reads a payload's JSON text.
    pub fn read(text: &str) -> Result<Self, Vec<FieldError>> {
        let tree = tree::read(text).map_err(|error| vec![error])?;
        let mut errors = Errors::default();
        let analysis = scan(&tree, &mut errors);
        errors.or(analysis)
    }
}

const NOT_BUILT: &str = "is not built in this version";

fn scan(tree: &Value, errors: &mut Errors) -> Analysis {
    let empty = Value::Object(Map::new());
    let known =
        ["version", "input", "defaults", "chunk", "map", "reduce", "embed", "limits", "memo", "cache", "on_complete"];
    let at = At::Payload;
    let object = match Object::open(tree, &at, &known, "", errors) {
        Some(object) => object,
        None => Object { map: empty_map(&empty), at: &at },
    };
    if object.get("version").is_some_and(|version| version.as_u64() != Some(1)) {
        object.wrong("version", "must be 1", errors);
    }
    for name in ["memo", "cache", "on_complete"] {
        object.refuse(name, NOT_BUILT, errors);
    }
    let (text, markdown) = input(&object, errors);
    let (model, defaults) = defaults(&object, errors);
    let (chunk_size, overlap, splitter, max_chunks) = chunk(&object, markdown, errors);
    Analysis {
        text,
        model,
        defaults,
        chunk_size,
        overlap,
        splitter,
        max_chunks,
        map: map(&object, errors),
        reduce: reduce(&object, errors),
        embed: embed(&object, errors),
        max_calls: limits(&object, errors),
    }
}

fn empty_map(value: &Value) -> &Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&EMPTY)
}

fn input(object: &Object<'_>, errors: &mut Errors) -> (String, bool) {
    let at = object.at("input");
    let Some(value) = object.require("input", "{text}", errors) else { return (String::new(), false) };
    let Some(input) = Object::open(value, &at, &["text", "ref", "format"], "", errors) else {
        return (String::new(), false);
    };
    let markdown = input.word("format", &["text", "markdown"], errors) == Some("markdown");
    match (input.get("text"), input.get("ref")) {
        (Some(_), Some(_)) => input.wrong("ref", "stands beside `text`: give exactly one of them", errors),
        (None, Some(_)) => input.wrong("ref", "is not built in this version: send the document as `text`", errors),
        _ => {}
    }
    let text = match (input.get("text"), input.get("ref")) {
        (None, Some(_)) => None,
        _ => input.require("text", "the document", errors).and_then(|_| input.label("text", TEXT_MAX_BYTES, errors)),
    };
    (text.unwrap_or_default().to_owned(), markdown)
}

fn defaults(object: &Object<'_>, errors: &mut Errors) -> (Option<String>, Map<String, Value>) {
    let at = object.at("defaults");
    let Some(value) = object.get("defaults") else { return (None, Map::new()) };
    let known = [
        "model",
        "max_tokens",
        "temperature",
        "top_p",
        "seed",
        "reasoning_effort",
        "provider",
        "timeout_ms",
        "fallback",
    ];
    let Some(defaults) = Object::open(value, &at, &known, "", errors) else { return (None, Map::new()) };
    for name in ["provider", "timeout_ms", "fallback"] {
        defaults.refuse(name, NOT_BUILT, errors);
    }
    defaults.whole("max_tokens", 1..=super::llm::TOKENS_MAX, errors);
    defaults.number("temperature", 0.0..=2.0, errors);
    defaults.number("top_p", 0.0..=1.0, errors);
    let model = defaults.label("model", model::NAME_MAX_BYTES, errors).map(str::to_owned);
    let mut body = defaults.map.clone();
    body.retain(|name, value| name != "model" && !value.is_null());
    (model, body)
}

fn chunk(object: &Object<'_>, markdown: bool, errors: &mut Errors) -> (usize, usize, Splitter, usize) {
    let usual = if markdown { Splitter::Markdown } else { Splitter::Text };
    let at = object.at("chunk");
    let Some(value) = object.get("chunk") else { return (1_500, 100, usual, 500) };
    let known = ["by", "size", "overlap", "splitter", "tokenizer", "max_chunks"];
    let Some(chunk) = Object::open(value, &at, &known, "", errors) else { return (1_500, 100, usual, 500) };
    chunk.word("by", &["tokens"], errors);
    chunk.word("tokenizer", &["auto"], errors);
    let size = chunk.whole("size", 16..=100_000, errors).unwrap_or(1_500);
    let overlap = chunk.whole("overlap", 0..=99_999, errors).unwrap_or(100.min(size / 4));
    if overlap >= size {
        chunk.wrong("overlap", format!("must be less than the size of a chunk, {size}"), errors);
    }
    let splitter = match chunk.word("splitter", &["text", "markdown", "none"], errors) {
        Some("text") => Splitter::Text,
        Some("markdown") => Splitter::Markdown,
        Some(_) => Splitter::None,
        None => usual,
    };
    let max_chunks = chunk.whole("max_chunks", 1..=CHUNKS_MAX, errors).unwrap_or(500);
    (size as usize, overlap as usize, splitter, max_chunks as usize)
}

/// A template: a text with only these variables, and all of the required ones.
fn template(
    object: &Object<'_>,
    name: &'static str,
    may: &[&str],
    must: &[&str],
    errors: &mut Errors,
) -> Option<String> {
    let text = object.label(name, PROMPT_MAX_BYTES, errors)?;
    for part in text.split("{{").skip(1) {
        match part.split_once("}}").map(|(variable, _)| variable.trim()) {
            Some(variable) if may.contains(&variable) => {}
            Some(_) | None => {
                let may: Vec<_> = may.iter().map(|name| format!("{{{{{name}}}}}")).collect();
                object.wrong(
                    name,
                    format!("has a variable that is not known here; there are {}", may.join(", ")),
                    errors,
                );
            }
        }
    }
    for missing in must.iter().filter(|variable| !text.contains(&format!("{{{{{variable}}}}}"))) {
        object.wrong(name, format!("must contain {{{{{missing}}}}}"), errors);
    }
    Some(text.to_owned())
}

fn schema(object: &Object<'_>, errors: &mut Errors) -> Option<Value> {
    let schema = object.get("schema")?;
    model::check_schema(schema, object.at("schema"), errors);
    Some(schema.clone())
}

fn map(object: &Object<'_>, errors: &mut Errors) -> ChunkTask {
    let mut map = ChunkTask {
        system: None,
        prompt: String::new(),
        schema: None,
        strict: true,
        repair: super::llm::REPAIR_DEFAULT,
        concurrency: 8,
        skip_failed: false,
        max_failed_ratio: 1.0,
    };
    let at = object.at("map");
    let Some(value) = object.require("map", "{prompt}", errors) else { return map };
    let known = ["system", "prompt", "schema", "strict", "repair", "concurrency", "on_error", "max_failed_ratio"];
    let Some(given) = Object::open(value, &at, &known, "", errors) else { return map };
    map.system = given.label("system", PROMPT_MAX_BYTES, errors).map(str::to_owned);
    if given.require("prompt", "what is asked of each chunk", errors).is_some() {
        let may = ["chunk", "index", "total"];
        map.prompt = template(&given, "prompt", &may, &["chunk"], errors).unwrap_or_default();
    }
    map.schema = schema(&given, errors);
    map.strict = given.flag("strict", errors).unwrap_or(true);
    map.repair = given.whole("repair", 0..=super::llm::REPAIR_MAX, errors).map_or(map.repair, |repair| repair as u32);
    map.concurrency = given.whole("concurrency", 1..=64, errors).unwrap_or(8) as usize;
    map.skip_failed = given.word("on_error", &["fail", "skip"], errors) == Some("skip");
    map.max_failed_ratio = given.number("max_failed_ratio", 0.0..=1.0, errors).unwrap_or(1.0);
    map
}

fn reduce(object: &Object<'_>, errors: &mut Errors) -> Reduce {
    let mut reduce =
        Reduce { strategy: Strategy::None, prompt: None, schema: None, fan_in: 10, max_depth: 5, dedupe_by: vec![] };
    let at = object.at("reduce");
    let Some(value) = object.get("reduce") else { return reduce };
    let known = ["strategy", "prompt", "schema", "fan_in", "max_depth", "dedupe_by"];
    let Some(given) = Object::open(value, &at, &known, "", errors) else { return reduce };
    let words = ["none", "concat", "merge_arrays", "tree", "refine", "llm"];
    if given.require("strategy", "how the answers are joined", errors).is_none() {
        return reduce;
    }
    reduce.strategy = match given.word("strategy", &words, errors) {
        Some("concat") => Strategy::Concat,
        Some("merge_arrays") => Strategy::MergeArrays,
        Some("tree") => Strategy::Tree,
        Some("refine") => Strategy::Refine,
        Some("llm") => Strategy::Llm,
        _ => Strategy::None,
    };
    let calls = match reduce.strategy {
        Strategy::Tree | Strategy::Llm => Some((&["items"][..], &["items"][..])),
        Strategy::Refine => Some((&["previous", "chunk"][..], &["previous", "chunk"][..])),
        Strategy::None | Strategy::Concat | Strategy::MergeArrays => None,
    };
    match calls {
        Some((may, must)) => {
            if given.require("prompt", "how the answers are joined", errors).is_some() {
                reduce.prompt = template(&given, "prompt", may, must, errors);
            }
        }
        None => given.refuse("prompt", "has no use: this strategy asks nobody", errors),
    }
    reduce.schema = schema(&given, errors);
    reduce.fan_in = given.whole("fan_in", 2..=100, errors).unwrap_or(10) as usize;
    reduce.max_depth = given.whole("max_depth", 1..=20, errors).unwrap_or(5) as u32;
    if given.get("dedupe_by").is_some() {
        let pointers = given.list("dedupe_by", 8, errors).unwrap_or_default();
        for (index, pointer) in pointers.iter().enumerate() {
            match pointer.as_str().filter(|text| text.starts_with('/')) {
                Some(text) => reduce.dedupe_by.push(text.to_owned()),
                None => errors.wrong(given.at("dedupe_by").item(index), "must be a JSON pointer such as `/name`"),
            }
        }
    }
    reduce
}

fn embed(object: &Object<'_>, errors: &mut Errors) -> Option<(Option<String>, Option<u32>)> {
    let at = object.at("embed");
    let given = Object::open(object.get("embed")?, &at, &["model", "dimensions", "dims", "sink"], "", errors)?;
    given.word("sink", &["result"], errors);
    let model = given.label("model", model::NAME_MAX_BYTES, errors).map(str::to_owned);
    let dimensions = given.whole("dimensions", 1..=8_192, errors).or_else(|| given.whole("dims", 1..=8_192, errors));
    Some((model, dimensions.map(|dimensions| dimensions as u32)))
}

fn limits(object: &Object<'_>, errors: &mut Errors) -> u32 {
    const MAX_CALLS: u64 = 100_000;
    let at = object.at("limits");
    let Some(value) = object.get("limits") else { return MAX_CALLS as u32 };
    let known = ["max_cost_usd", "max_calls", "deadline_ms"];
    let Some(limits) = Object::open(value, &at, &known, "", errors) else { return MAX_CALLS as u32 };
    limits.refuse("max_cost_usd", NOT_BUILT, errors);
    limits.refuse("deadline_ms", "is the job's: give the job a `deadline`", errors);
    limits.whole("max_calls", 1..=MAX_CALLS, errors).unwrap_or(MAX_CALLS) as u32
}

/// Checks an `analysis` payload and says what it loads.
pub(super) fn validate(text: &str, around: Surroundings<'_>) -> Result<Name, Vec<FieldError>> {
    let analysis = Analysis::read(text)?;
    let mut errors = Errors::default();
    let default = around.routes.default_model.as_deref();
    let (payload, name) = (At::Payload, analysis.model.as_deref().or(default));
    let at = payload.member("defaults");
    let target = model::target(name, at.member("model"), around, &mut errors);
    if let Some((model, _)) = &analysis.embed {
        let routes = around.routes;
        let default = routes.default_embedding_model.as_deref().or(routes.default_model.as_deref());
        model::target(model.as_deref().or(default), payload.member("embed"), around, &mut errors);
    }
    if let Some(name) = name {
        let asked = analysis.defaults.get("max_tokens").and_then(Value::as_u64);
        model::check_window(name, asked, "", &at, around, &mut errors);
    }
    errors.or(target.unwrap_or_else(|| Name::from("none")))
}
