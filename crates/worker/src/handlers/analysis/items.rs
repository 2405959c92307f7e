//! Many items instead of one document: which of them share a call, and what each of them gets back.

use std::{
    collections::{BTreeMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
};

use queue_core::{
    error::JobError,
    ledger::{Billed, CallRecord, Nanousd, estimate_tokens},
    payload::analysis::{Analysis, Item},
};
use serde::Serialize;
use serde_json::Value;

use super::{
    Answer, Part,
    chunks::{self, Chunk},
    pack::read_step,
    reduce,
    run::Run,
};

/// What is asked about, and what of it together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) chunks: Vec<Chunk>,
    /// The chunks of each call. Several in one call are whole items.
    pub(super) packs: Vec<Vec<Chunk>>,
}

impl Plan {
    /// Each chunk in a call of its own.
    pub(super) fn of_chunks(chunks: Vec<Chunk>) -> Self {
        let packs = chunks.iter().map(|chunk| vec![*chunk]).collect();
        Self { chunks, packs }
    }

    fn add(&mut self, start: usize, end: usize) -> Chunk {
        let chunk = Chunk { index: self.chunks.len(), start, end };
        self.chunks.push(chunk);
        chunk
    }
}

/// Whole items in the order in which they came, as many in a call as its bounds hold, and `most_items` at most; items
/// that are larger than a call alone, in the chunks in which a document of theirs would be read. Depends on the payload
/// and the model only. Ends early with one call more than the job allows.
pub(super) fn plan(payload: &Analysis, model: &str, most_items: usize, stop: &AtomicBool) -> Result<Plan, String> {
    let mut plan = Plan::default();
    // The pack that takes more, and the tokens in it.
    let mut open: Option<(usize, u64)> = None;
    for item in &payload.items {
        if stop.load(Ordering::Relaxed) {
            return Err("packing the items was stopped".to_owned());
        }
        let text = payload.text.get(item.start..item.end).unwrap_or_default();
        let share = payload.cut.pack.and_then(|pack| {
            let tokens = estimate_tokens(model, text);
            (tokens <= pack.tokens).then_some((pack, tokens))
        });
        match share {
            Some((pack, tokens)) => {
                let chunk = plan.add(item.start, item.end);
                let most = pack.items.min(most_items).max(1);
                match open.filter(|(at, held)| held + tokens <= pack.tokens && plan.packs[*at].len() < most) {
                    Some((at, held)) => {
                        plan.packs[at].push(chunk);
                        open = Some((at, held + tokens));
                    }
                    None => {
                        plan.packs.push(vec![chunk]);
                        open = Some((plan.packs.len() - 1, tokens));
                    }
                }
            }
            None => {
                for piece in chunks::pieces(text, payload.cut, model, stop)? {
                    let chunk = plan.add(item.start + piece.start, item.start + piece.end);
                    plan.packs.push(vec![chunk]);
                }
            }
        }
        if plan.packs.len() > payload.cut.max_chunks {
            break;
        }
    }
    Ok(plan)
}

/// What one item got.
#[derive(Serialize)]
pub(super) struct Outcome<'a> {
    /// Its place among the items, counted from 0.
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<JobError>,
    /// Of an item that was cut: its chunks, with their places in its text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Piece<'a>>,
    /// Its share of what was spent on mapping, over all attempts, in US dollars; all shares together are the sum. `null`
    /// where a price is unknown.
    cost_usd: Option<String>,
}

/// What one chunk of an item got.
#[derive(Serialize)]
struct Piece<'a> {
    start: usize,
    end: usize,
    #[serde(flatten)]
    answer: &'a Answer,
}

/// The outcome of each item. `parts` lie in the order of the text, with places in it; `calls` are the job's calls.
pub(super) fn outcomes<'a>(
    run: &Run<'_>,
    payload: &'a Analysis,
    parts: &'a [Part],
    calls: &[CallRecord],
) -> Vec<Outcome<'a>> {
    let mut shares = vec![Some(Nanousd(0)); payload.items.len()];
    for (chunk, cost) in costs(run, calls) {
        let place = run.chunks.get(chunk).and_then(|chunk| payload.item_at(chunk.start));
        if let Some((index, _)) = place {
            shares[index] = shares[index].zip(cost).map(|(sum, cost)| sum.plus(cost));
        }
    }
    let mut rest = parts;
    let mut outcomes = Vec::with_capacity(payload.items.len());
    for ((index, item), share) in payload.items.iter().enumerate().zip(shares) {
        let (own, others) = rest.split_at(rest.partition_point(|part| part.start < item.end));
        rest = others;
        outcomes.push(outcome(payload, index, item, own, share));
    }
    outcomes
}

fn outcome<'a>(
    payload: &Analysis,
    index: usize,
    item: &'a Item,
    parts: &'a [Part],
    share: Option<Nanousd>,
) -> Outcome<'a> {
    let is_whole = matches!(parts, [part] if (part.start, part.end) == (item.start, item.end));
    let error = |part: &Part| match &part.answer {
        Answer::Error(error) => Some(error.clone()),
        Answer::Output(_) => None,
    };
    let output = match parts {
        [alone] if is_whole => alone.output().cloned(),
        several if several.iter().any(|part| part.output().is_some()) => reduce::join_without_calls(payload, several),
        _ => None,
    };
    let piece =
        |part: &'a Part| Piece { start: part.start - item.start, end: part.end - item.start, answer: &part.answer };
    Outcome {
        index,
        id: item.id.as_deref(),
        error: parts.iter().find_map(error).filter(|_| parts.iter().all(|part| part.output().is_none())),
        output,
        parts: if is_whole { vec![] } else { parts.iter().map(piece).collect() },
        cost_usd: share.map(|share| share.to_string()),
    }
}

/// What was spent on each chunk; `None` where a price is unknown.
fn costs(run: &Run<'_>, calls: &[CallRecord]) -> BTreeMap<usize, Option<Nanousd>> {
    let mut by_step: BTreeMap<&str, Option<Nanousd>> = BTreeMap::new();
    let mut counted = HashSet::new();
    for call in calls.iter().filter(|call| counted.insert((call.call_id, call.epoch))) {
        let cost = call.cost.or((call.billed == Billed::No).then_some(Nanousd(0)));
        let sum = by_step.entry(&call.step).or_insert(Some(Nanousd(0)));
        *sum = sum.zip(cost).map(|(sum, cost)| sum.plus(cost));
    }
    let mut by_chunk: BTreeMap<usize, Option<Nanousd>> = BTreeMap::new();
    for (step, cost) in by_step {
        let (chunks, weights): (Vec<usize>, Vec<u64>) = shared_by(run, step).into_iter().unzip();
        let shares = match cost {
            Some(cost) => cost.shared(&weights).into_iter().map(Some).collect(),
            None => vec![None; chunks.len()],
        };
        for (chunk, share) in chunks.into_iter().zip(shares) {
            let sum = by_chunk.entry(chunk).or_insert(Some(Nanousd(0)));
            *sum = sum.zip(share).map(|(sum, share)| sum.plus(share));
        }
    }
    by_chunk
}

/// The chunks that a step was about, and how much of its tokens each took.
fn shared_by(run: &Run<'_>, step: &str) -> Vec<(usize, u64)> {
    if let Some(index) = step.strip_prefix("map/").and_then(|rest| rest.split('/').next()?.parse().ok()) {
        return vec![(index, 1)];
    }
    if let Some(weights) = run.weights_of(step) {
        return weights;
    }
    // A call of an earlier attempt that this one did not need.
    let Some((first, count)) = read_step(step) else { return vec![] };
    let pack = run.packs.iter().find_map(|pack| {
        let at = pack.iter().position(|chunk| chunk.index == first)?;
        Some(&pack[at..])
    });
    let chunks = pack.into_iter().flatten().take(count);
    chunks.map(|chunk| (chunk.index, run.tokens_of(chunk.text(&run.payload.text)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(items: &[&str], chunk: &Value, most_items: usize) -> Plan {
        let payload = serde_json::json!({"input": {"items": items}, "map": {"prompt": "{{chunk}}"}, "chunk": chunk});
        let payload = Analysis::read(&payload.to_string()).unwrap();
        plan(&payload, "small", most_items, &AtomicBool::new(false)).unwrap()
    }

    fn calls(plan: &Plan) -> Vec<Vec<usize>> {
        plan.packs.iter().map(|pack| pack.iter().map(|chunk| chunk.index).collect()).collect()
    }

    #[test]
    fn a_call_holds_as_many_items_as_its_bounds() {
        // Ten tokens each, for a model whose tokens are estimated.
        let item = "x".repeat(30);
        let items = [item.as_str(); 7];
        let chunk = |pack: Value| serde_json::json!({"size": 16, "pack": pack});
        let by_tokens = planned(&items, &chunk(serde_json::json!({"max_tokens": 30})), 100);
        assert_eq!(calls(&by_tokens), [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
        let by_items = planned(&items, &chunk(serde_json::json!({"max_tokens": 90, "max_items": 4})), 100);
        assert_eq!(calls(&by_items), [vec![0, 1, 2, 3], vec![4, 5, 6]]);
        let by_answer = planned(&items, &chunk(serde_json::json!({"max_tokens": 90})), 2);
        assert_eq!(calls(&by_answer), [vec![0, 1], vec![2, 3], vec![4, 5], vec![6]]);
        let alone = planned(&items, &serde_json::json!({"size": 16}), 100);
        assert_eq!(calls(&alone), (0..7).map(|index| vec![index]).collect::<Vec<_>>());
    }

    #[test]
    fn an_item_that_is_larger_than_a_call_is_cut_and_leaves_its_neighbours_together() {
        let large = "word ".repeat(40);
        let plan = planned(&["a", &large, "b"], &serde_json::json!({"size": 16, "overlap": 0, "pack": {}}), 100);
        let pieces = plan.chunks.len() - 2;
        assert!(pieces >= 4, "{plan:?}");
        assert_eq!(plan.packs[0].iter().map(|chunk| chunk.index).collect::<Vec<_>>(), [0, pieces + 1]);
        assert!(plan.packs[1..].iter().all(|pack| pack.len() == 1));
        let (first, last) = (plan.chunks[1], plan.chunks[pieces]);
        assert_eq!((first.start, last.end), (1, 1 + large.trim_end().len()), "places lie in the text of all");
    }
}
