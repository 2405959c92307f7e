//! From the chunks' answers to one.

use std::collections::{HashSet, VecDeque};

use futures::{FutureExt, future::BoxFuture};
use queue_core::{
    error::{ErrorClass, JobError},
    payload::analysis::{Analysis, Reduce, Strategy, fill},
};
use serde_json::{Map, Value, json};

use super::{
    Part,
    chunks::Chunk,
    fence::Fence,
    run::{Asked, Run},
};

/// Joins the answers by the strategy that the job names.
pub(super) async fn join(run: &Run<'_>, parts: &[Part]) -> Result<Value, JobError> {
    let answers = || parts.iter().filter_map(Part::output);
    match run.payload.reduce.strategy {
        Strategy::None => Ok(answers().cloned().collect()),
        Strategy::Concat => Ok(concat(parts)),
        Strategy::MergeArrays => merge(parts, &run.payload.reduce.dedupe_by, &|part| source(run.payload, part)),
        Strategy::Llm => call(run, "reduce/1/0000", &answers().cloned().collect::<Vec<_>>()).await,
        Strategy::Tree => tree(run, answers().cloned().collect()).await,
        Strategy::Refine => refine(run, parts).await,
    }
}

/// The parts of one item in one, where the job's strategy can do that without a call.
pub(super) fn join_without_calls(payload: &Analysis, parts: &[Part]) -> Option<Value> {
    match payload.reduce.strategy {
        Strategy::Concat => Some(concat(parts)),
        Strategy::MergeArrays => merge(parts, &payload.reduce.dedupe_by, &|part| source(payload, part)).ok(),
        Strategy::None | Strategy::Llm | Strategy::Tree | Strategy::Refine => None,
    }
}

fn concat(parts: &[Part]) -> Value {
    let texts: Vec<String> = parts.iter().filter_map(Part::output).map(text_of).collect();
    Value::String(texts.join("\n\n"))
}

/// Where a part stands: in its item, or in the document.
fn source(payload: &Analysis, part: &Part) -> Value {
    let Some((index, item)) = payload.item_at(part.start) else { return place(part) };
    let mut source = json!({"item": index, "start": part.start - item.start, "end": part.end - item.start});
    if let Some(id) = &item.id {
        source["id"] = id.as_str().into();
    }
    source
}

fn place(part: &Part) -> Value {
    json!({"chunk": part.index, "start": part.start, "end": part.end})
}

/// Calls of a tree over `leaves` answers.
pub(super) fn tree_calls(leaves: usize, fan_in: usize) -> usize {
    let (mut calls, mut width) = (0, leaves);
    while width > 1 {
        // A group of one goes up as it is.
        calls += width / fan_in + usize::from(width % fan_in > 1);
        width = width.div_ceil(fan_in);
    }
    calls
}

/// Refuses a tree that cannot come to one answer within its levels: before the chunks are paid for, not after.
pub(super) fn check_depth(leaves: usize, reduce: &Reduce) -> Result<(), JobError> {
    let (mut levels, mut width) = (0, leaves);
    while width > 1 {
        width = width.div_ceil(reduce.fan_in);
        levels += 1;
    }
    if levels <= reduce.max_depth {
        return Ok(());
    }
    let message = format!(
        "{leaves} chunks need {levels} levels of {} answers each; `reduce.max_depth` is {}",
        reduce.fan_in, reduce.max_depth
    );
    Err(JobError::new(ErrorClass::Permanent, "max_depth", message))
}

fn text_of(answer: &Value) -> String {
    answer.as_str().map_or_else(|| answer.to_string(), str::to_owned)
}

async fn call(run: &Run<'_>, step: &str, answers: &[Value]) -> Result<Value, JobError> {
    let texts: Vec<String> = answers.iter().map(text_of).collect();
    let fence = Fence::around("item", texts.iter().map(String::as_str));
    let items = texts.iter().map(|text| fence.wrap(text)).collect::<Vec<_>>().join("\n");
    let template = run.payload.reduce.prompt.as_deref().unwrap_or("{{items}}");
    let prompt = fill(template, &[("items", &items)]);
    let schema = run.payload.reduce.schema.as_ref();
    run.ask(Asked { step, prompt, note: fence.note(), schema, may_be_lost: false, is_about_a_chunk: false }).await
}

/// Groups of answers, level by level, until one is left. Each level has fewer answers than the one before. It must
/// also have fewer tokens, once they are more than one call holds: a model that writes more than it reads would make
/// each level dearer than the last and end in a prompt that fits nowhere.
async fn tree(run: &Run<'_>, mut answers: Vec<Value>) -> Result<Value, JobError> {
    let plan = &run.payload.reduce;
    let overflow = |code: &str, message: String| Err(JobError::new(ErrorClass::Overflow, code, message));
    let mut level = 1;
    while answers.len() > 1 {
        if level > plan.max_depth {
            let message =
                format!("{} answers are left after the {} levels of `reduce.max_depth`", answers.len(), level - 1);
            return overflow("max_depth", message);
        }
        let groups = answers.chunks(plan.fan_in).enumerate();
        let calls: Vec<BoxFuture<'_, _>> =
            groups.map(|(index, group)| reduce_group(run, format!("reduce/{level}/{index:04}"), group)).collect();
        let next: Vec<Value> = run.side_by_side(calls).await?.into_iter().flatten().collect();
        if next.len() > 1 {
            let [before, after] =
                [&answers, &next].map(|list| list.iter().map(|answer| run.tokens(answer)).sum::<u64>());
            if after >= before && !run.one_call_holds(after) {
                let message = format!("level {level} made {after} tokens of {before}: the reduce does not shrink");
                return overflow("does_not_shrink", message);
            }
        }
        answers = next;
        level += 1;
    }
    answers.pop().ok_or_else(|| JobError::new(ErrorClass::InvalidOutput, "empty", "there is no answer to join"))
}

/// One answer for a group; several where the group does not fit into the model's window and is halved.
fn reduce_group<'r>(run: &'r Run<'_>, step: String, group: &'r [Value]) -> BoxFuture<'r, Result<Vec<Value>, JobError>> {
    async move {
        if let [alone] = group {
            return Ok(vec![alone.clone()]);
        }
        match call(run, &step, group).await {
            Ok(answer) => Ok(vec![answer]),
            // Two answers that do not fit together never will; of three at least two become one.
            Err(error) if error.class == ErrorClass::Overflow && group.len() > 2 => {
                let (left, right) = group.split_at(group.len().div_ceil(2));
                let mut answers = reduce_group(run, format!("{step}/0"), left).await?;
                answers.extend(reduce_group(run, format!("{step}/1"), right).await?);
                Ok(answers)
            }
            Err(error) => Err(error),
        }
    }
    .boxed()
}

/// Longest name of a step whose chunk is halved: `refine/0000` and four halvings.
const SPLIT_STEP_MAX: usize = "refine/0000".len() + 8;

/// The first chunk's answer, refined with each further chunk in turn.
async fn refine(run: &Run<'_>, parts: &[Part]) -> Result<Value, JobError> {
    let Some(mut current) = parts.first().and_then(Part::output).cloned() else {
        return Err(JobError::new(ErrorClass::InvalidOutput, "empty", "there is no answer to refine"));
    };
    let template = run.payload.reduce.prompt.as_deref().unwrap_or("{{previous}}\n{{chunk}}");
    let document = Fence::around("document", [run.payload.text.as_str()].into_iter());
    let total = run.chunks.len().to_string();
    // A chunk that does not fit beside the answer so far is refined with in two steps.
    let mut rest: VecDeque<(Chunk, String)> =
        run.chunks.iter().skip(1).map(|chunk| (*chunk, format!("refine/{:04}", chunk.index))).collect();
    while let Some((chunk, step)) = rest.pop_front() {
        let text = text_of(&current);
        let answer = Fence::around("answer", [text.as_str()].into_iter());
        let (previous, piece) = (answer.wrap(&text), document.wrap(chunk.text(&run.payload.text)));
        let index = (chunk.index + 1).to_string();
        let values = [("previous", previous.as_str()), ("chunk", &piece), ("index", &index), ("total", &total)];
        let asked = Asked {
            step: &step,
            prompt: fill(template, &values),
            note: format!("{}\n{}", answer.note(), document.note()),
            schema: run.payload.reduce.schema.as_ref(),
            may_be_lost: false,
            is_about_a_chunk: false,
        };
        match (run.ask(asked).await, chunk.halves(&run.payload.text)) {
            (Err(error), Some([left, right])) if error.class == ErrorClass::Overflow && step.len() < SPLIT_STEP_MAX => {
                rest.push_front((right, format!("{step}/1")));
                rest.push_front((left, format!("{step}/0")));
            }
            (answered, _) => current = answered?,
        }
    }
    Ok(current)
}

/// The arrays of the answers in one, each object in them with its source. Answers that are objects are merged member
/// by member; their members that are no arrays stay with the chunk, in `map`.
fn merge(parts: &[Part], dedupe_by: &[String], source: &dyn Fn(&Part) -> Value) -> Result<Value, JobError> {
    let mut alone = Merged::default();
    let mut named = Map::new();
    let mut by_name: Vec<(String, Merged)> = Vec::new();
    for part in parts {
        match part.output() {
            None => {}
            Some(Value::Array(items)) => alone.extend(items, dedupe_by, || source(part)),
            Some(Value::Object(members)) => {
                for (name, items) in members.iter().filter_map(|(name, value)| Some((name, value.as_array()?))) {
                    let at = by_name.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                        by_name.push((name.clone(), Merged::default()));
                        by_name.len() - 1
                    });
                    by_name[at].1.extend(items, dedupe_by, || source(part));
                }
            }
            Some(_) => return not_arrays("an answer is neither an array nor an object that holds arrays"),
        }
    }
    let has_objects = parts.iter().filter_map(Part::output).any(Value::is_object);
    match (alone.is_used, has_objects) {
        (true, true) => not_arrays("some answers are arrays and some are objects"),
        (true, false) => Ok(Value::Array(alone.items)),
        (false, _) => {
            named.extend(by_name.into_iter().map(|(name, merged)| (name, Value::Array(merged.items))));
            Ok(Value::Object(named))
        }
    }
}

fn not_arrays(reason: &str) -> Result<Value, JobError> {
    let message = format!("`merge_arrays` cannot join the answers: {reason}");
    Err(JobError::new(ErrorClass::Permanent, "merge_arrays", message))
}

#[derive(Default)]
struct Merged {
    items: Vec<Value>,
    seen: HashSet<Vec<Option<String>>>,
    is_used: bool,
}

impl Merged {
    fn extend(&mut self, items: &[Value], dedupe_by: &[String], source: impl Fn() -> Value) {
        self.is_used = true;
        for item in items {
            let key: Vec<_> = dedupe_by.iter().map(|pointer| item.pointer(pointer).map(Value::to_string)).collect();
            // Items that have none of the members are not alike, they are unknown.
            if key.iter().any(Option::is_some) && !self.seen.insert(key) {
                continue;
            }
            let mut item = item.clone();
            if let Value::Object(members) = &mut item {
                members.insert("_source".to_owned(), source());
            }
            self.items.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Answer, *};

    fn part(index: usize, output: Value) -> Part {
        Part { index, start: index * 10, end: index * 10 + 9, answer: Answer::Output(output) }
    }

    #[test]
    fn a_tree_of_so_many_leaves_makes_so_many_calls() {
        for (leaves, fan_in, calls) in [(0, 4, 0), (1, 4, 0), (4, 4, 1), (5, 4, 2), (16, 4, 5), (17, 4, 6)] {
            assert_eq!(tree_calls(leaves, fan_in), calls, "{leaves} leaves");
        }
    }

    #[test]
    fn a_tree_that_is_too_flat_is_refused() {
        let plan = |fan_in, max_depth| Reduce {
            strategy: Strategy::Tree,
            prompt: None,
            schema: None,
            fan_in,
            max_depth,
            dedupe_by: vec![],
        };
        for (leaves, fan_in, max_depth, is_ok) in
            [(1, 2, 1, true), (4, 2, 2, true), (5, 2, 2, false), (1_000, 10, 3, true), (1_001, 10, 3, false)]
        {
            assert_eq!(check_depth(leaves, &plan(fan_in, max_depth)).is_ok(), is_ok, "{leaves} leaves");
        }
    }

    #[test]
    fn merged_items_name_their_source_and_doubles_go() {
        let parts = [
            part(0, json!([{"name": "x"}, {"other": 1}])),
            part(1, json!([{"name": "x"}, {"name": "y"}, {"other": 2}, 7])),
        ];
        let merged = merge(&parts, &["/name".into()], &place).unwrap();
        let names: Vec<_> = merged.as_array().unwrap().iter().map(|item| item["name"].as_str()).collect();
        assert_eq!(names, vec![Some("x"), None, Some("y"), None, None]);
        assert_eq!(merged[2]["_source"], json!({"chunk": 1, "start": 10, "end": 19}));
        assert_eq!(merged[4], json!(7));
        let all = merge(&parts, &[], &place).unwrap();
        assert_eq!(all.as_array().unwrap().len(), 6);
        assert_eq!(
            merge(&[part(0, json!([1, 2])), part(1, json!([2, 3]))], &[String::new()], &place).unwrap(),
            json!([1, 2, 3])
        );
    }

    #[test]
    fn objects_are_merged_member_by_member() {
        let parts = [
            part(0, json!({"facts": [{"name": "x"}], "risks": [], "title": "A"})),
            part(1, json!({"facts": [{"name": "x"}, {"name": "y"}], "risks": [{"name": "x"}]})),
        ];
        let merged = merge(&parts, &["/name".into()], &place).unwrap();
        assert_eq!(merged.as_object().unwrap().len(), 2);
        assert_eq!(merged["facts"].as_array().unwrap().len(), 2);
        assert_eq!(merged["risks"][0]["_source"]["chunk"], 1);
    }

    #[test]
    fn what_holds_no_arrays_is_not_merged() {
        for parts in [vec![part(0, json!("text"))], vec![part(0, json!([1])), part(1, json!({"a": [1]}))]] {
            assert_eq!(merge(&parts, &[], &place).unwrap_err().code, "merge_arrays");
        }
        assert_eq!(merge(&[], &[], &place).unwrap(), json!({}));
    }
}
