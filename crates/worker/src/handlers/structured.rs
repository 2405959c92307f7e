//! A chat call whose answer must be JSON that keeps a schema: asked, checked, and repaired a bounded number of times.

use queue_core::error::{ErrorClass, JobError};
use serde_json::{Map, Value, json};

use crate::{
    context::{Durability, JobContext},
    provider::ChatAnswer,
};

/// Errors of a bad answer that the model is told of.
const TOLD_ERRORS_MAX: usize = 5;

/// What is wanted of an answer.
pub(super) struct Wanted<'a> {
    /// The schema that it must keep.
    pub(super) schema: Option<&'a Value>,
    /// Repairs before giving up.
    pub(super) repair: u32,
    /// When the answer becomes durable.
    pub(super) durability: Durability,
}

/// An answer that keeps its schema.
pub(super) struct Structured {
    pub(super) answer: ChatAnswer,
    pub(super) json: Value,
    /// Calls that it took.
    pub(super) calls: u32,
}

/// Asks until the answer is JSON that keeps the schema. Each repair is a call of its own sequence, and the bad answers
/// before it stay in the journal: they were paid for.
pub(super) async fn ask(
    cx: &JobContext,
    step: &str,
    model: &str,
    mut body: Map<String, Value>,
    wanted: &Wanted<'_>,
) -> Result<Structured, JobError> {
    let validator = wanted.schema.map(jsonschema::validator_for).transpose().map_err(|error| {
        JobError::new(ErrorClass::BadRequest, "schema", format!("the JSON Schema is not usable: {error}"))
    })?;
    let mut sequence = 0;
    loop {
        let answer = cx.chat(step, sequence, model, body.clone(), wanted.durability).await?;
        withheld(&answer)?;
        if answer.finish == "length" {
            let message = "the answer was cut at max_tokens before its JSON was complete; ask for more tokens";
            return Err(JobError { retryable: false, ..JobError::new(ErrorClass::Truncated, "length", message) });
        }
        let problem = match serde_json::from_str::<Value>(unfenced(&answer.text)) {
            Err(error) => format!("it is not JSON: {error}"),
            Ok(json) => match validator.as_ref().map(|validator| faults(validator, &json)).unwrap_or_default() {
                faults if faults.is_empty() => return Ok(Structured { answer, json, calls: sequence + 1 }),
                faults => faults.join("; "),
            },
        };
        if sequence >= wanted.repair {
            let message = format!("after {sequence} repairs the answer is still wrong: {problem}");
            return Err(JobError::new(ErrorClass::InvalidOutput, "schema", message));
        }
        sequence += 1;
        append_repair(&mut body, &answer.text, &problem);
    }
}

/// An answer that the provider withheld is an error, and a paid one.
pub(super) fn withheld(answer: &ChatAnswer) -> Result<(), JobError> {
    if answer.finish == "content_filter" {
        return Err(JobError::new(ErrorClass::Filtered, "content_filter", "the provider's filter withheld the answer"));
    }
    match &answer.refusal {
        Some(_) => Err(JobError::new(ErrorClass::Filtered, "refusal", "the model declined to answer")),
        None => Ok(()),
    }
}

/// Where the schema is not kept; says where and which rule, and repeats no value.
fn faults(validator: &jsonschema::Validator, json: &Value) -> Vec<String> {
    let errors = validator.iter_errors(json).take(TOLD_ERRORS_MAX);
    errors.map(|error| format!("at `{}`: {}", error.instance_path(), error.masked())).collect()
}

/// Models like to wrap JSON in a fence of backticks.
fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let Some(inner) = text.strip_prefix("```") else { return text };
    let inner = inner.strip_prefix("json").unwrap_or(inner);
    inner.strip_suffix("```").unwrap_or(inner).trim()
}

fn append_repair(body: &mut Map<String, Value>, bad: &str, problem: &str) {
    if let Some(Value::Array(messages)) = body.get_mut("messages") {
        messages.push(json!({"role": "assistant", "content": bad}));
        let ask = format!("That answer cannot be used: {problem}. Answer again with only the corrected JSON.");
        messages.push(json!({"role": "user", "content": ask}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_taken_off() {
        for text in ["{\"a\":1}", " ```json\n{\"a\":1}\n``` ", "```\n{\"a\":1}```"] {
            assert_eq!(unfenced(text), "{\"a\":1}");
        }
    }

    #[test]
    fn faults_name_the_place_and_not_the_value() {
        let validator = jsonschema::validator_for(&json!({"properties": {"n": {"type": "integer"}}})).unwrap();
        let faults = faults(&validator, &json!({"n": "secret"}));
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("/n") && !faults[0].contains("secret"), "{faults:?}");
    }
}
