//! The payload of an `analysis` job, version 1: a document or many items, how to cut or pack them, what to ask of each
//! part, and how to join the answers.

use serde_json::{Map, Value};

pub use super::template::fill;
use super::{
    FieldError, Loads, Surroundings, cache, chain,
    fields::{At, Errors, Object},
    items, llm, model, sampling, steps, tree,
};
use crate::{fallback::Link, ledger::Nanousd};

crate::unshown!(ChunkTask, Reduce, Analysis);

/// Largest document: some four million tokens, more than [`CHUNKS_MAX`] usual chunks. Payloads have a bound of their
/// own, which is smaller as a rule.
pub const TEXT_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Most chunks that a job may ask for.
pub const CHUNKS_MAX: u64 = 10_000;
/// Most chunks of a job that names no number.
pub const CHUNKS_DEFAULT: u64 = 500;
/// Most provider calls that a job may ask for: ten for each of [`CHUNKS_MAX`].
pub const CALLS_MAX: u64 = 100_000;
/// Tokens of a chunk that a job may ask for: less says nothing, more fits few models.
pub const CHUNK_TOKENS: std::ops::RangeInclusive<u64> = 16..=100_000;
/// Tokens of a chunk, and tokens that neighbours share, of a job that names no number.
const CHUNK_DEFAULT: (u64, u64) = (1_500, 100);

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
    /// The first chunk's answer, refined with each further chunk; only the first chunk is mapped.
    Refine,
    /// All in one call.
    Llm,
}

/// One of many texts, in the text that all of them make together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What the caller calls it.
    pub id: Option<String>,
    /// First byte.
    pub start: usize,
    /// Byte behind the last.
    pub end: usize,
}

/// How many items share a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pack {
    /// Tokens of all their texts together, at most. An item that has more is cut as a document is.
    pub tokens: u64,
    /// How many, at most.
    pub items: usize,
}

/// How the document is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Tokens in a chunk.
    pub size: usize,
    /// Tokens that neighbours share.
    pub overlap: usize,
    /// Where to cut.
    pub splitter: Splitter,
    /// More chunks than this are refused; of items, more calls about them.
    pub max_chunks: usize,
    /// How many items share a call, where any do.
    pub pack: Option<Pack>,
}

/// What is asked of each chunk.
#[derive(Clone, PartialEq)]
pub struct ChunkTask {
    /// System text.
    pub system: Option<String>,
    /// Template with `{{chunk}}`, and `{{index}}` (counted from 1) and `{{total}}` where wanted.
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
#[derive(Clone, PartialEq)]
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

/// Vectors of the chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vectors {
    /// The model, if one is named.
    pub model: Option<String>,
    /// Length of the vectors, if one is asked for.
    pub dimensions: Option<u32>,
}

/// An analysis to run.
#[derive(Clone, PartialEq)]
pub struct Analysis {
    /// The document; or the items' texts, one right behind the other.
    pub text: String,
    /// The items, in order and none empty; of a document there are none.
    pub items: Vec<Item>,
    /// The model, if one is named.
    pub model: Option<String>,
    /// Models that chat calls may go to when the first does not answer, where the job has no chain of its own.
    pub fallback: Vec<Link>,
    /// Members that every chat call gets: `max_tokens`, `temperature` …
    pub defaults: Map<String, Value>,
    /// How the document is cut.
    pub cut: Cut,
    /// What is asked of each chunk.
    pub map: ChunkTask,
    /// How the answers are joined.
    pub reduce: Reduce,
    /// The chunks' vectors, where they are asked for.
    pub embed: Option<Vectors>,
    /// Provider calls that the job may make, over all attempts.
    pub max_calls: u32,
    /// Under which conditions an old answer about a chunk will do. What joins answers is always asked for.
    pub cache: Option<cache::Wish>,
    /// What its calls may cost together: the smaller one of this and the job's own counts.
    pub max_cost: Option<Nanousd>,
}

impl Analysis {
    /// Reads a payload's JSON text.
    pub fn read(text: &str) -> Result<Self, Vec<FieldError>> {
        let tree = tree::read(text).map_err(|error| vec![error])?;
        let mut errors = Errors::default();
        let at = At::Payload;
        let analysis = Object::open(&tree, &at, &KNOWN, "", &mut errors).map(|object| scan(&object, &mut errors));
        errors.settle(analysis)
    }

    /// The item that has this byte of the text, and its number, counted from 0; of a document there is none.
    pub fn item_at(&self, byte: usize) -> Option<(usize, &Item)> {
        let behind = self.items.partition_point(|item| item.start <= byte);
        let index = behind.checked_sub(1)?;
        self.items.get(index).map(|item| (index, item))
    }

    /// Tokens that an answer may have, where the job says so.
    pub fn answer_tokens(&self) -> Option<u64> {
        ["max_tokens", "max_completion_tokens"].iter().find_map(|name| self.defaults.get(*name)?.as_u64())
    }
}

/// What follows a field whose feature is not built: to ignore it would be to promise it.
pub(super) const NOT_BUILT: &str = "is not built in this version; leave it out";

const KNOWN: [&str; 11] =
    ["version", "input", "defaults", "chunk", "map", "reduce", "embed", "limits", "memo", "cache", "on_complete"];

fn scan(object: &Object<'_>, errors: &mut Errors) -> Analysis {
    if let Some(version) = object.get("version").filter(|version| version.as_u64() != Some(1)) {
        errors.mismatch(object.at("version"), "1, the only version there is", version);
    }
    object.refuse("memo", "is not built in this version: answers are kept as long as the job", errors);
    object.refuse("on_complete", NOT_BUILT, errors);
    let (Input { text, items }, is_markdown) = input(object, errors);
    let (model, fallback, defaults) = defaults(object, errors);
    let (map, reduce) = (steps::map(object, errors), steps::reduce(object, errors));
    if reduce.strategy == Strategy::MergeArrays && map.schema.is_none() && object.get("map").is_some() {
        let reason = "is required: the strategy `merge_arrays` joins arrays, and without a schema answers are text";
        errors.wrong(object.at("map").member("schema"), reason);
    }
    if reduce.strategy == Strategy::Refine && !items.is_empty() {
        let reason = "`refine` goes through one document; for items there are merge_arrays, tree and llm";
        errors.wrong(object.at("reduce").member("strategy"), reason);
    }
    let (cache, cut) = (cache::read(object, errors), cut(object, is_markdown, errors));
    if cache.is_some() && cut.pack.is_some() {
        let reason = "is for calls about one chunk each: leave out `chunk.pack`, or the cache";
        errors.wrong(object.at("cache"), reason);
    }
    let (max_calls, max_cost) = limits(object, errors);
    Analysis {
        text,
        items,
        model,
        fallback,
        defaults,
        cut,
        cache,
        map,
        reduce,
        embed: embed(object, errors),
        max_calls,
        max_cost,
    }
}

/// What is analysed: a document, or items and all their texts.
#[derive(Default)]
pub(super) struct Input {
    pub(super) text: String,
    pub(super) items: Vec<Item>,
}

/// What is analysed, and whether it is Markdown.
fn input(object: &Object<'_>, errors: &mut Errors) -> (Input, bool) {
    let nothing = (Input::default(), false);
    let Some(value) = object.require("input", "{text} or {items}", errors) else { return nothing };
    let at = object.at("input");
    let Some(input) = Object::open(value, &at, &["text", "items", "ref", "format"], "", errors) else { return nothing };
    let is_markdown = input.word("format", &["text", "markdown"], errors) == Some("markdown");
    let given = ["text", "items", "ref"].into_iter().filter(|name| input.get(name).is_some()).collect::<Vec<_>>();
    match given[..] {
        ["text"] => (Input { text: document(&input, errors), items: vec![] }, is_markdown),
        ["items"] => {
            let items_at = input.at("items");
            let items = input.get("items").map(|items| items::items(items, &items_at, errors));
            (items.unwrap_or_default(), is_markdown)
        }
        ["ref"] => {
            let reason = "is not built in this version: documents outside cannot be read yet; send `text`";
            input.wrong("ref", reason, errors);
            nothing
        }
        [] => {
            input.wrong("text", "is required: the document; or `items`, many small ones", errors);
            nothing
        }
        _ => {
            errors.wrong(at, "must have one of `text`, `items` and `ref`, not both or all");
            nothing
        }
    }
}

fn document(input: &Object<'_>, errors: &mut Errors) -> String {
    let text = input.get("text").and_then(Value::as_str);
    if text.is_some_and(|text| text.len() <= TEXT_MAX_BYTES && text.trim().is_empty()) {
        input.wrong("text", "must not be empty", errors);
        return String::new();
    }
    input.label("text", TEXT_MAX_BYTES, errors).unwrap_or_default().to_owned()
}

fn defaults(object: &Object<'_>, errors: &mut Errors) -> (Option<String>, Vec<Link>, Map<String, Value>) {
    let nothing = (None, Vec::new(), Map::new());
    let Some(value) = object.get("defaults") else { return nothing };
    let at = object.at("defaults");
    let others = ["model", "provider", "timeout_ms", "fallback", "extra"];
    let known: Vec<&str> = others.into_iter().chain(sampling::KNOWN).collect();
    let hint = "what only your provider knows goes into `extra`";
    let Some(defaults) = Object::open(value, &at, &known, hint, errors) else { return nothing };
    defaults.refuse("provider", "follows from the model; leave it out", errors);
    defaults.refuse("timeout_ms", "is the job's: give the job a `timeout`", errors);
    let fallback_at = defaults.at("fallback");
    let links = defaults.get("fallback").map(|chain| chain::links(chain, &fallback_at, errors)).unwrap_or_default();
    sampling::check(&defaults, errors);
    let model = defaults.get("model").and_then(Value::as_str).map(str::to_owned);
    let mut body = defaults.map.clone();
    body.retain(|name, value| sampling::KNOWN.contains(&name.as_str()) && !value.is_null());
    llm::extra(&defaults, &llm::known(), &mut body, errors);
    (model, links, body)
}

fn cut(object: &Object<'_>, is_markdown: bool, errors: &mut Errors) -> Cut {
    let by_format = if is_markdown { Splitter::Markdown } else { Splitter::Text };
    let (size, overlap) = CHUNK_DEFAULT;
    let usual = Cut {
        size: size as usize,
        overlap: overlap as usize,
        splitter: by_format,
        max_chunks: CHUNKS_DEFAULT as usize,
        pack: None,
    };
    let Some(value) = object.get("chunk") else { return usual };
    let at = object.at("chunk");
    let known = ["by", "size", "overlap", "splitter", "tokenizer", "max_chunks", "pack"];
    let Some(chunk) = Object::open(value, &at, &known, "", errors) else { return usual };
    chunk.word("by", &["tokens"], errors);
    chunk.word("tokenizer", &["auto"], errors);
    let size = chunk.whole("size", CHUNK_TOKENS, errors).unwrap_or(size);
    // A small chunk shares a part of itself, not more than itself.
    let overlap = chunk.whole("overlap", 0..=*CHUNK_TOKENS.end(), errors).unwrap_or(overlap.min(size / 4));
    if overlap >= size {
        chunk.wrong("overlap", format!("must be less than the size of a chunk ({size}), not {overlap}"), errors);
    }
    let splitter = match chunk.word("splitter", &["text", "markdown", "none"], errors) {
        Some("text") => Splitter::Text,
        Some("markdown") => Splitter::Markdown,
        Some(_) => Splitter::None,
        None => by_format,
    };
    let max_chunks = chunk.whole("max_chunks", 1..=CHUNKS_MAX, errors).unwrap_or(CHUNKS_DEFAULT);
    let pack = items::pack(&chunk, size, object.get("input"), errors);
    Cut { size: size as usize, overlap: overlap as usize, splitter, max_chunks: max_chunks as usize, pack }
}

fn embed(object: &Object<'_>, errors: &mut Errors) -> Option<Vectors> {
    let value = object.get("embed")?;
    let at = object.at("embed");
    let embed = Object::open(value, &at, &["model", "dimensions", "dims", "sink"], "", errors)?;
    embed.refuse("dims", "is called `dimensions`", errors);
    embed.word("sink", &["result"], errors);
    let dimensions = embed.whole("dimensions", 1..=super::embedding::DIMENSIONS_MAX, errors);
    Some(Vectors {
        model: embed.get("model").and_then(Value::as_str).map(str::to_owned),
        dimensions: dimensions.map(|dimensions| dimensions as u32),
    })
}

/// How many calls the job may make, and what they may cost.
fn limits(object: &Object<'_>, errors: &mut Errors) -> (u32, Option<Nanousd>) {
    let usual = (CALLS_MAX as u32, None);
    let Some(value) = object.get("limits") else { return usual };
    let at = object.at("limits");
    let known = ["max_cost_usd", "max_calls", "deadline_ms"];
    let Some(limits) = Object::open(value, &at, &known, "", errors) else { return usual };
    let max_cost = match limits.text("max_cost_usd", errors).map(str::parse::<Nanousd>) {
        Some(Err(reason)) => {
            limits.wrong("max_cost_usd", reason, errors);
            None
        }
        given => given.and_then(Result::ok),
    };
    limits.refuse("deadline_ms", "is the job's: give the job a `deadline`", errors);
    (limits.whole("max_calls", 1..=CALLS_MAX, errors).unwrap_or(CALLS_MAX) as u32, max_cost)
}

/// Checks an `analysis` payload and says what it loads.
pub(super) fn validate(text: &str, chain: Option<&Value>, around: Surroundings<'_>) -> Result<Loads, Vec<FieldError>> {
    let tree = tree::read(text).map_err(|error| vec![error])?;
    let mut errors = Errors::default();
    let at = At::Payload;
    let Some(object) = Object::open(&tree, &at, &KNOWN, "", &mut errors) else { return errors.settle(None) };
    let analysis = scan(&object, &mut errors);
    let nothing = Map::new();
    let routes = around.routes;

    let defaults_at = object.at("defaults");
    let map = object.get("defaults").and_then(Value::as_object).unwrap_or(&nothing);
    let defaults = Object { map, at: &defaults_at };
    let served = model::served(&defaults, "model", routes.default_model.as_deref(), around, &mut errors);
    let (own_at, default_at) = (At::Job.member("fallback"), defaults_at.member("fallback"));
    if chain.is_some() && !analysis.fallback.is_empty() {
        errors.wrong(default_at, "stands beside the job's `fallback`: give one of them");
    }
    let own = chain.map(|chain| chain::links(chain, &own_at, &mut errors)).unwrap_or_default();
    let (links, links_at) = if own.is_empty() { (&analysis.fallback, default_at) } else { (&own, own_at) };
    let mut targets = Vec::new();
    if let Some((name, target)) = served {
        let answer = sampling::answer_limit(&defaults);
        check_room((name, links), &object, &analysis, answer, around, &mut errors);
        targets.push(target);
        targets.extend(chain::targets(links, &links_at, name, around, &mut errors));
    }
    if let Some(map) = object.get("embed").and_then(Value::as_object) {
        let embed_at = object.at("embed");
        let default = routes.default_embedding_model.as_deref().or(routes.default_model.as_deref());
        model::served(&Object { map, at: &embed_at }, "model", default, around, &mut errors);
    }
    errors.settle(Some(Loads { max_cost: analysis.max_cost, ..Loads::chained(&targets, own) }))
}

/// Refuses a document that certainly makes too many chunks, and calls that certainly have no room.
fn check_room(
    (model, links): (&str, &[Link]),
    object: &Object<'_>,
    analysis: &Analysis,
    answer: Option<(At<'_>, u64)>,
    around: Surroundings<'_>,
    errors: &mut Errors,
) {
    let Analysis { text, cut, map, .. } = analysis;
    let (input_at, map_at) = (object.at("input"), object.at("map"));
    let is_whole = cut.splitter == Splitter::None && analysis.items.is_empty();
    let around_chunk = map.system.iter().map(String::as_str).chain([map.prompt.as_str()]);
    let prompt: Vec<&str> = around_chunk.chain(is_whole.then_some(text.as_str())).collect();
    let prompt_at = if is_whole { input_at.member("text") } else { map_at.member("prompt") };
    model::check_room(model, links, &model::Wish { answer, prompt_at, prompt }, around, errors);

    if !analysis.items.is_empty() {
        return items::check(model, object, analysis, errors);
    }
    let most = (cut.size as u64).saturating_mul(cut.max_chunks as u64);
    if !is_whole && text.len() as u64 > most {
        let least = model::at_least(model, &[text]);
        if least > most {
            let reason = format!(
                "has at least {least} tokens; {} chunks of {} hold {most} (`chunk.max_chunks`, `chunk.size`)",
                cut.max_chunks, cut.size
            );
            errors.wrong(input_at.member("text"), reason);
        }
    }
}
