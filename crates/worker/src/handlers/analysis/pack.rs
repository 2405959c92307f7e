//! Several items in one call: asked for together, checked one by one, and asked for alone where that did not do.
//!
//! The model answers with one object that has a member for each item, named by its number in the call. What is usable
//! in it is used, whatever became of the rest: it was paid for.

use std::fmt;

use futures::{FutureExt, future::BoxFuture};
use queue_core::{
    error::{ErrorClass, JobError},
    payload::{self, analysis::fill, packed},
};
use serde::{
    Deserializer,
    de::{self, DeserializeSeed, MapAccess, Visitor},
};
use serde_json::Value;

use super::{super::structured, Answer, Mapping, Part, chunks::Chunk, is_lost, part, run::Asked, step_of};

/// The answers about the chunks of a pack, which are whole items, or about its only chunk.
///
/// Which chunks share a call depends on the payload and on answers that are kept, never on the run, and so does the
/// name of each call: the first chunk and how many there are. No other pack of the job begins with the same chunk and
/// has as many.
pub(super) fn answers<'a>(mapping: &'a Mapping<'a>, pack: Vec<Chunk>) -> BoxFuture<'a, Result<Vec<Part>, JobError>> {
    async move {
        if let [alone] = pack[..] {
            return part(mapping, alone, step_of(&alone), 0).await;
        }
        let (run, step) = (mapping.run, step_of_pack(&pack));
        // The calls of one pack follow each other: after a failure elsewhere the next is not begun.
        run.check_failing()?;
        let asked = ask(mapping, &pack, &step).await;
        if asked.is_ok() || asked.as_ref().is_err_and(|error| is_of_an_item(error.class)) {
            run.step_done(&step);
        }
        match asked {
            Ok(found) => rest(mapping, &pack, found).await,
            Err(error) if is_of_an_item(error.class) => halves(mapping, &pack).await,
            Err(error) if run.payload.map.skip_failed && is_lost(run, &error) => {
                run.step_done(&step);
                let lose = |chunk: &Chunk| {
                    mapping.losses.count(&error, mapping.of, run.payload.map.max_failed_ratio)?;
                    Ok(Part::of(chunk, Answer::Error(error.clone())))
                };
                pack.iter().map(lose).collect()
            }
            Err(error) => Err(error),
        }
    }
    .boxed()
}

/// The step of a call about a whole pack.
pub(super) fn step_of_pack(pack: &[Chunk]) -> String {
    let first = pack.first().map_or(0, |chunk| chunk.index);
    format!("pack/{first:04}+{}", pack.len())
}

/// The first chunk and the number of chunks in the name of such a step.
pub(super) fn read_step(step: &str) -> Option<(usize, usize)> {
    let (first, count) = step.strip_prefix("pack/")?.split_once('+')?;
    Some((first.parse().ok()?, count.parse().ok()?))
}

/// Whether a failure may be the fault of one item, or of their number: then fewer of them are asked for at once, down to
/// one that fails alone.
fn is_of_an_item(class: ErrorClass) -> bool {
    use ErrorClass as C;
    matches!(class, C::Overflow | C::Filtered | C::BadRequest | C::TooBigForLimit | C::InvalidOutput)
}

async fn halves(mapping: &Mapping<'_>, pack: &[Chunk]) -> Result<Vec<Part>, JobError> {
    let (left, right) = pack.split_at(pack.len() / 2);
    mapping.run.more_steps(2);
    let mut parts = answers(mapping, left.to_vec()).await?;
    parts.extend(answers(mapping, right.to_vec()).await?);
    Ok(parts)
}

/// What a packed call brought.
struct Found {
    /// For each chunk its answer, if there is one that is good.
    good: Vec<Option<Value>>,
    /// For each chunk whether there is an answer at all.
    seen: Vec<bool>,
    /// Whether the answer ended at its token limit.
    is_cut: bool,
}

/// The answers of a call, and what it takes to have the others.
async fn rest(mapping: &Mapping<'_>, pack: &[Chunk], found: Found) -> Result<Vec<Part>, JobError> {
    let Found { good, seen, is_cut } = found;
    if is_cut && good.iter().all(Option::is_none) {
        return halves(mapping, pack).await;
    }
    let (mut parts, mut alone, mut behind_the_cut) = (vec![], vec![], vec![]);
    for ((chunk, answer), seen) in pack.iter().zip(good).zip(seen) {
        match answer {
            Some(answer) => parts.push(Part::of(chunk, Answer::Output(answer))),
            None if is_cut && !seen => behind_the_cut.push(*chunk),
            None => alone.push(vec![*chunk]),
        }
    }
    alone.extend(Some(behind_the_cut).filter(|pack| !pack.is_empty()));
    mapping.run.more_steps(alone.len());
    for pack in alone {
        parts.extend(answers(mapping, pack).await?);
    }
    Ok(parts)
}

/// Asks for all of them at once.
async fn ask(mapping: &Mapping<'_>, pack: &[Chunk], step: &str) -> Result<Found, JobError> {
    let Mapping { run, fence, .. } = *mapping;
    let task = &run.payload.map;
    let text_of = |chunk: &Chunk| chunk.text(&run.payload.text);
    let numbered = |(at, chunk): (usize, &Chunk)| {
        format!("Item {}:\n{}", packed::name_of(at + 1, pack.len()), fence.wrap(text_of(chunk)))
    };
    let items = pack.iter().enumerate().map(numbered).collect::<Vec<_>>().join("\n\n");
    let (index, total) = (pack.first().map_or(0, |chunk| chunk.index + 1).to_string(), run.chunks.len().to_string());
    let schema = packed::schema_for(task.schema.as_ref(), pack.len());
    let asked = Asked {
        step,
        prompt: fill(&task.prompt, &[("chunk", &items), ("index", &index), ("total", &total)]),
        note: format!("{}\n{}", fence.note(), note(pack.len())),
        schema: Some(&schema),
        // What is not good is asked for in other calls.
        may_be_lost: true,
        is_about_a_chunk: false,
    };
    let answer = run.ask_once(asked, pack.len() as u64).await;
    let text = answer.as_ref().map_or("", |answer| answer.text.as_str());
    let (good, seen) = check(text, task.schema.as_ref(), pack.len())?;
    let tokens = |answer: &Option<Value>| answer.as_ref().map_or(0, |answer| run.tokens(answer));
    let weights = pack.iter().zip(&good).map(|(chunk, answer)| run.tokens_of(text_of(chunk)) + tokens(answer));
    run.note_weights(step, pack.iter().map(|chunk| chunk.index).zip(weights).collect());
    let is_cut = answer?.finish == structured::CUT;
    let outcome = match is_cut {
        true => "truncated",
        false if good.iter().all(Option::is_some) => "good",
        false => "invalid",
    };
    structured::count(run.cx, outcome);
    if !is_cut && !good.iter().any(Option::is_some) {
        tracing::debug!(job_id = %run.cx.job().id, step, "a packed answer is of no use; its items are asked about alone");
    }
    Ok(Found { good, seen, is_cut })
}

fn note(items: usize) -> String {
    let [first, last] = [1, items].map(|number| packed::name_of(number, items));
    format!(
        "There are {items} items, each under its number. Do the task for each item by itself, as if the others were not \
         there. Answer with one JSON object and nothing else: its members are named by the numbers, \"{first}\" to \"{last}\", \
         and the value of each is the answer for that item alone."
    )
}

/// Which of the `items` the text answers well, and which at all. An item that is answered twice is not answered well:
/// nobody knows which answer is its own.
fn check(text: &str, schema: Option<&Value>, items: usize) -> Result<(Vec<Option<Value>>, Vec<bool>), JobError> {
    let validator = schema.map(payload::compile).transpose().map_err(|reason| {
        JobError::new(ErrorClass::BadRequest, "schema", format!("the JSON Schema is not usable: {reason}"))
    })?;
    let (mut good, mut seen) = (vec![None; items], vec![false; items]);
    for (name, answer) in members(structured::unfenced(text)) {
        let number = name.trim().parse::<usize>().ok();
        let Some(at) = number.and_then(|number| number.checked_sub(1)).filter(|at| *at < items) else { continue };
        let is_good = validator.as_ref().map_or(answer.is_string(), |validator| validator.is_valid(&answer));
        good[at] = Some(answer).filter(|_| is_good && !seen[at]);
        seen[at] = true;
    }
    Ok((good, seen))
}

/// The members of the object with which `text` begins, as far as they are whole, doubles included.
fn members(text: &str) -> Vec<(String, Value)> {
    let mut members = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Members(&mut members).deserialize(&mut reader);
    // Of a number nobody sees whether it is whole.
    if read.is_err() && members.last().is_some_and(|(_, value)| value.is_number()) {
        members.pop();
    }
    members
}

struct Members<'a>(&'a mut Vec<(String, Value)>);

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(member) = members.next_entry()? {
            if self.0.len() >= MEMBERS_MAX {
                return Err(de::Error::custom("too many members"));
            }
            self.0.push(member);
        }
        Ok(())
    }
}

/// Members of one answer that are looked at: ten times what the largest pack asks for.
const MEMBERS_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_checked_one_by_one() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
        let text = r#"{"1": {"n": 1}, "3": {"n": "x"}, "2": {"n": 2}, "2": {"n": 2}, "9": {"n": 9}, "0": 1, "x": 1, "5": {"n": 5}}"#;
        let (good, seen) = check(text, Some(&schema), 5).unwrap();
        assert_eq!(good, [Some(json!({"n": 1})), None, None, None, Some(json!({"n": 5}))]);
        assert_eq!(seen, [true, true, true, false, true]);
        let (good, _) = check("```json\n{\"1\": \"a\", \"2\": 7}\n```", None, 2).unwrap();
        assert_eq!(good, [Some(json!("a")), None], "without a schema an answer is a text");
        for text in ["", "no", "[1, 2]", "{", "7", "{\"1\""] {
            let (good, seen) = check(text, Some(&json!({})), 2).unwrap();
            assert!(good.iter().all(Option::is_none) && !seen.contains(&true), "{text}");
        }
    }

    #[test]
    fn what_is_whole_in_a_cut_answer_is_used() {
        for (text, wanted) in [
            (r#"{"1": {"n": 1}, "2": {"n": 2"#, vec![json!({"n": 1})]),
            (r#"{"1": "a", "2": "b", "3": "c"#, vec![json!("a"), json!("b")]),
            (r#"{"1": 12, "2": 34"#, vec![json!(12)]),
            (r#"{"1": 12, "2": 34}"#, vec![json!(12), json!(34)]),
            (r#"{"1": true, "2": nul"#, vec![json!(true)]),
            (r#"{"1": "a"} and more"#, vec![json!("a")]),
        ] {
            let (good, _) = check(text, Some(&json!({})), 3).unwrap();
            assert_eq!(good.into_iter().flatten().collect::<Vec<_>>(), wanted, "{text}");
        }
    }

    #[test]
    fn a_packs_step_names_its_first_chunk_and_their_number() {
        let pack: Vec<Chunk> = [7, 9, 12].map(|index| Chunk { index, start: 0, end: 1 }).into();
        let step = step_of_pack(&pack);
        assert_eq!((step.as_str(), read_step(&step)), ("pack/0007+3", Some((7, 3))));
        for other in ["map/0007", "pack/7", "pack/x+1", "chat"] {
            assert_eq!(read_step(other), None, "{other}");
        }
    }
}
