//! The steps of an analysis: what is asked of each chunk, and how the answers are joined.

use serde_json::Value;

use super::{
    analysis::{ChunkTask, Reduce, Strategy},
    fields::{At, Errors, Object, described_name},
    llm, model, template,
};

/// Calls at once of a job that names no number.
const CONCURRENCY_DEFAULT: usize = 8;
/// Most calls at once: one job must not take a whole provider from the others.
const CONCURRENCY_MAX: u64 = 64;
/// Answers in one call of a tree, and levels, of a job that names no number.
const TREE_DEFAULT: (usize, u32) = (10, 5);
/// Most pointers of `dedupe_by`.
const POINTERS_MAX: usize = 16;

/// The member `map`.
pub(super) fn map(object: &Object<'_>, errors: &mut Errors) -> ChunkTask {
    let mut task = ChunkTask {
        system: None,
        prompt: String::new(),
        schema: None,
        strict: true,
        repair: llm::REPAIR_DEFAULT,
        concurrency: CONCURRENCY_DEFAULT,
        skip_failed: false,
        max_failed_ratio: 1.0,
    };
    let Some(value) = object.require("map", "{prompt}", errors) else { return task };
    let at = object.at("map");
    let known = ["system", "prompt", "schema", "strict", "repair", "concurrency", "on_error", "max_failed_ratio"];
    let Some(map) = Object::open(value, &at, &known, "", errors) else { return task };
    task.system = map.label("system", template::PROMPT_MAX_BYTES, errors).map(str::to_owned);
    if map.require("prompt", "what is asked of each chunk, with {{chunk}} in it", errors).is_some() {
        let prompt = template::read(&map, "prompt", &["chunk"], &["index", "total"], errors);
        task.prompt = prompt.unwrap_or_default().to_owned();
    }
    task.schema = schema(&map, errors);
    task.strict = map.flag("strict", errors).unwrap_or(true);
    let repair = map.whole("repair", 0..=llm::REPAIR_MAX, errors);
    task.repair = repair.map_or(task.repair, |repair| repair as u32);
    let concurrency = map.whole("concurrency", 1..=CONCURRENCY_MAX, errors);
    task.concurrency = concurrency.map_or(task.concurrency, |calls| calls as usize);
    task.skip_failed = map.word("on_error", &["fail", "skip"], errors) == Some("skip");
    if !task.skip_failed {
        map.refuse("max_failed_ratio", "has no use without `on_error` = `skip`", errors);
    }
    task.max_failed_ratio = map.number("max_failed_ratio", 0.0..=1.0, errors).unwrap_or(1.0);
    task
}

fn schema(object: &Object<'_>, errors: &mut Errors) -> Option<Value> {
    let schema = object.get("schema")?;
    model::check_schema(schema, object.at("schema"), errors);
    Some(schema.clone())
}

/// The member `reduce`.
pub(super) fn reduce(object: &Object<'_>, errors: &mut Errors) -> Reduce {
    let (fan_in, max_depth) = TREE_DEFAULT;
    let strategy = Strategy::None;
    let mut plan = Reduce { strategy, prompt: None, schema: None, fan_in, max_depth, dedupe_by: vec![] };
    let Some(value) = object.get("reduce") else { return plan };
    let at = object.at("reduce");
    let known = ["strategy", "prompt", "schema", "fan_in", "max_depth", "dedupe_by"];
    let Some(reduce) = Object::open(value, &at, &known, "", errors) else { return plan };
    reduce.require("strategy", "none, concat, merge_arrays, tree, refine or llm", errors);
    let words = ["none", "concat", "merge_arrays", "tree", "refine", "llm"];
    let Some(word) = reduce.word("strategy", &words, errors) else { return plan };
    plan.strategy = match word {
        "concat" => Strategy::Concat,
        "merge_arrays" => Strategy::MergeArrays,
        "tree" => Strategy::Tree,
        "refine" => Strategy::Refine,
        "llm" => Strategy::Llm,
        _ => Strategy::None,
    };
    refuse_useless(&reduce, plan.strategy, word, errors);
    let must: &[&str] = match plan.strategy {
        Strategy::Tree | Strategy::Llm => &["items"],
        Strategy::Refine => &["previous", "chunk"],
        Strategy::None | Strategy::Concat | Strategy::MergeArrays => return with_pointers(plan, &reduce, errors),
    };
    if reduce.require("prompt", "how the answers are joined", errors).is_some() {
        let may: &[&str] = if plan.strategy == Strategy::Refine { &["index", "total"] } else { &[] };
        plan.prompt = template::read(&reduce, "prompt", must, may, errors).map(str::to_owned);
    }
    plan.schema = schema(&reduce, errors);
    plan.fan_in = reduce.whole("fan_in", 2..=100, errors).map_or(fan_in, |fan_in| fan_in as usize);
    plan.max_depth = reduce.whole("max_depth", 1..=20, errors).map_or(max_depth, |depth| depth as u32);
    plan
}

/// Refuses members that the strategy never looks at: who gives one expects something of it.
fn refuse_useless(reduce: &Object<'_>, strategy: Strategy, word: &str, errors: &mut Errors) {
    let asks = matches!(strategy, Strategy::Tree | Strategy::Refine | Strategy::Llm);
    let is_tree = strategy == Strategy::Tree;
    let used = [
        ("prompt", asks),
        ("schema", asks),
        ("fan_in", is_tree),
        ("max_depth", is_tree),
        ("dedupe_by", strategy == Strategy::MergeArrays),
    ];
    for (name, _) in used.into_iter().filter(|(_, is_used)| !is_used) {
        reduce.refuse(name, &format!("has no use with the strategy `{word}`"), errors);
    }
}

fn with_pointers(mut plan: Reduce, reduce: &Object<'_>, errors: &mut Errors) -> Reduce {
    if plan.strategy != Strategy::MergeArrays {
        return plan;
    }
    let at = reduce.at("dedupe_by");
    for (index, item) in reduce.list("dedupe_by", POINTERS_MAX, errors).into_iter().flatten().enumerate() {
        match item.as_str() {
            Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => {
                plan.dedupe_by.push(pointer.to_owned());
            }
            Some(text) => pointer_wrong(at.item(index), text, errors),
            None => errors.mismatch(at.item(index), "a string", item),
        }
    }
    plan
}

fn pointer_wrong(at: At<'_>, text: &str, errors: &mut Errors) {
    let reason =
        format!("must be a JSON pointer such as `/name`, or empty for the whole item, not {}", described_name(text));
    errors.wrong(at, reason);
}
