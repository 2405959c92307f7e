//! From the parts' answers to one.

use std::collections::HashSet;

use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use queue_core::{
    error::{ErrorClass, JobError},
    payload::analysis::Strategy,
};
use serde_json::{Value, json};

use super::{Asked, Part, Run, fenced, filled};

/// Joins the answers by the strategy that the job names.
pub(super) async fn join(run: &Run<'_>, parts: &[Part<'_>]) -> Result<Value, JobError> {
    let answers: Vec<&Value> = parts.iter().filter_map(|part| part.answer.as_ref().ok()).collect();
    match run.payload.reduce.strategy {
        Strategy::None => Ok(json!(answers)),
        Strategy::Concat => {
            Ok(Value::String(answers.iter().map(|answer| text_of(answer)).collect::<Vec<_>>().join("\n\n")))
        }
        Strategy::MergeArrays => Ok(merge(parts, &run.payload.reduce.dedupe_by)),
        Strategy::Llm => call(run, "reduce/1/0000", &answers).await,
        Strategy::Tree => tree(run, answers.into_iter().cloned().collect()).await,
        Strategy::Refine => refine(run, parts).await,
    }
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

fn text_of(answer: &Value) -> String {
    answer.as_str().map_or_else(|| answer.to_string(), str::to_owned)
}

async fn call(run: &Run<'_>, step: &str, answers: &[&Value]) -> Result<Value, JobError> {
    let items: Vec<_> =
        answers.iter().enumerate().map(|(index, answer)| format!("[{}]\n{}", index + 1, text_of(answer))).collect();
    let items = fenced(&items.join("\n\n"));
    let template = run.payload.reduce.prompt.as_deref().unwrap_or("{{items}}");
    let prompt = filled(template, &[("items", &items)]);
    let system = run.payload.map.system.as_deref();
    run.ask(Asked { step, system, prompt, schema: run.payload.reduce.schema.as_ref() }).await
}

/// Groups of answers, level by level. A level must bring fewer answers, and once they are large also fewer tokens:
/// a model that writes more than it reads would go on for ever and be paid for it.
async fn tree(run: &Run<'_>, mut answers: Vec<Value>) -> Result<Value, JobError> {
    let reduce = &run.payload.reduce;
    let mut level = 1;
    while answers.len() > 1 {
        if level > reduce.max_depth {
            let message = format!("{} answers are left after {} levels (`reduce.max_depth`)", answers.len(), level - 1);
            return Err(JobError::new(ErrorClass::Overflow, "max_depth", message));
        }
        let before: u64 = answers.iter().map(|answer| run.tokens(answer)).sum();
        let groups = grouped(run, &answers);
        if groups.len() >= answers.len() {
            let message = "two answers together do not fit into the model's window: the reduce cannot go on";
            return Err(JobError::new(ErrorClass::Overflow, "window", message));
        }
        let numbered = groups.into_iter().enumerate();
        let calls: Vec<BoxFuture<'_, _>> = numbered
            .map(|(index, group)| one_group(run, format!("reduce/{level}/{index:04}"), group).boxed())
            .collect();
        let next: Vec<Value> = stream::iter(calls).buffered(run.payload.map.concurrency).try_collect().await?;
        let after: u64 = next.iter().map(|answer| run.tokens(answer)).sum();
        if next.len() > 1 && after >= before {
            let message = format!("level {level} made {after} tokens of {before}: it does not shrink");
            return Err(JobError::new(ErrorClass::Overflow, "does_not_shrink", message));
        }
        answers = next;
        level += 1;
    }
    answers.pop().ok_or_else(|| JobError::new(ErrorClass::InvalidOutput, "empty", "there is no answer to join"))
}

async fn one_group(run: &Run<'_>, step: String, group: &[Value]) -> Result<Value, JobError> {
    match group {
        [alone] => Ok(alone.clone()),
        group => call(run, &step, &group.iter().collect::<Vec<_>>()).await,
    }
}

/// Neighbours in groups of `fan_in`, fewer where they would not fit into the model's window.
fn grouped<'v>(run: &Run<'_>, answers: &'v [Value]) -> Vec<&'v [Value]> {
    let reserved = run.payload.defaults.get("max_tokens").and_then(Value::as_u64).unwrap_or(0);
    // A quarter stays free for the prompt around the answers.
    let room = run.cx.window(&run.model).map_or(u64::MAX, |window| window.saturating_sub(reserved) / 4 * 3);
    let mut groups = Vec::new();
    let (mut from, mut used) = (0, 0);
    for (index, answer) in answers.iter().enumerate() {
        let size = run.tokens(answer);
        if index > from && (index - from >= run.payload.reduce.fan_in || used + size > room) {
            groups.push(&answers[from..index]);
            (from, used) = (index, 0);
        }
        used += size;
    }
    groups.push(&answers[from..]);
    groups
}

/// The first answer, refined by each further chunk in turn.
async fn refine(run: &Run<'_>, parts: &[Part<'_>]) -> Result<Value, JobError> {
    let mut answers = parts.iter().filter_map(|part| part.answer.as_ref().ok().map(|answer| (part.chunk, answer)));
    let Some((_, first)) = answers.next() else {
        return Err(JobError::new(ErrorClass::InvalidOutput, "empty", "there is no answer to refine"));
    };
    let mut current = first.clone();
    let template = run.payload.reduce.prompt.as_deref().unwrap_or("{{previous}}\n{{chunk}}");
    for (chunk, _) in answers {
        let step = format!("refine/{:04}", chunk.index);
        let (previous, chunk) = (fenced(&text_of(&current)), fenced(&chunk.text));
        let prompt = filled(template, &[("previous", &previous), ("chunk", &chunk)]);
        let system = run.payload.map.system.as_deref();
        current = run.ask(Asked { step: &step, system, prompt, schema: run.payload.reduce.schema.as_ref() }).await?;
    }
    Ok(current)
}

/// The arrays of the answers in one, each object with its source. An answer that is an object gives its first array.
fn merge(parts: &[Part<'_>], dedupe_by: &[String]) -> Value {
    let mut seen = HashSet::new();
    let mut merged = Vec::new();
    for part in parts {
        let Ok(answer) = &part.answer else { continue };
        let items = match answer {
            Value::Array(items) => items.as_slice(),
            Value::Object(members) => members.values().find_map(Value::as_array).map_or(&[][..], Vec::as_slice),
            _ => &[],
        };
        for item in items {
            let key: Vec<_> = dedupe_by.iter().map(|pointer| item.pointer(pointer).map(Value::to_string)).collect();
            // Items without any of the members are not alike, they are unknown.
            if key.iter().any(Option::is_some) && !seen.insert(key) {
                continue;
            }
            let mut item = item.clone();
            if let Value::Object(members) = &mut item {
                let source = json!({"chunk": part.chunk.index, "start": part.chunk.start, "end": part.chunk.end});
                members.insert("_source".into(), source);
            }
            merged.push(item);
        }
    }
    Value::Array(merged)
}

#[cfg(test)]
mod tests {
    use super::{super::chunks::Chunk, *};

    #[test]
    fn a_tree_of_so_many_leaves_makes_so_many_calls() {
        for (leaves, fan_in, calls) in [(0, 4, 0), (1, 4, 0), (4, 4, 1), (5, 4, 2), (16, 4, 5), (17, 4, 6)] {
            assert_eq!(tree_calls(leaves, fan_in), calls, "{leaves} leaves");
        }
    }

    #[test]
    fn merged_items_name_their_source_and_doubles_go() {
        let chunk = |index| Chunk { index, start: index * 10, end: index * 10 + 9, text: String::new() };
        let (a, b) = (chunk(0), chunk(1));
        let parts = [
            Part { chunk: &a, answer: Ok(json!({"facts": [{"name": "x"}, {"other": 1}]})) },
            Part { chunk: &b, answer: Ok(json!([{"name": "x"}, {"name": "y"}, {"other": 2}, 7])) },
        ];
        let merged = merge(&parts, &["/name".into()]);
        let names: Vec<_> = merged.as_array().unwrap().iter().map(|item| item["name"].as_str()).collect();
        assert_eq!(names, vec![Some("x"), None, Some("y"), None, None]);
        assert_eq!(merged[2]["_source"], json!({"chunk": 1, "start": 10, "end": 19}));
    }
}
