//! Models that answer whatever they like where a form was asked for. `cargo xtask badinput` runs the same over many more.

use queue_core::payload::compile;
use serde_json::json;
use testkit::badinput::{BadInput, Grammar, Parser};

use super::*;
use crate::{
    handlers::structured::{Form, read_again, unfenced},
    provider::ChatAnswer,
};

const ANSWERS: Parser = Parser {
    name: "models' answers by a schema",
    grammar: Grammar::Json,
    corpus: include_str!("corpus/answers.txt"),
    words: &[
        "1",
        "2",
        "3",
        "001",
        "0",
        "n",
        "s",
        "next",
        "```json\n",
        "```",
        "{\"1\":",
        "aaaaaaaaaaaaaaaaaaaa!",
        "-0",
        "1.0",
        "1e400",
    ],
    share: 60,
};

/// A schema with what costs time: a recursion, and a pattern that backtracks.
fn schema() -> Value {
    json!({
        "type": "object", "required": ["n"],
        "properties": {"n": {"type": "integer"}, "s": {"pattern": "^(a+)+$"}, "next": {"$ref": "#"}}
    })
}

/// What is found good keeps the schema; no fault that a log gets repeats the answer.
fn answer(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input).into_owned();
    let (schema, items) = (schema(), 3);
    let validator = compile(&schema).unwrap();
    let (good, seen) = check(&text, Some(&schema), items).unwrap();
    for (answer, seen) in good.iter().zip(&seen) {
        assert!(answer.as_ref().is_none_or(|answer| *seen && validator.is_valid(answer)));
    }
    assert!(unfenced(&text).len() <= text.len());
    let alone = |form| read_again(form, ChatAnswer { text: text.clone(), ..ChatAnswer::default() });
    let whole = alone(Form::Schema(&schema)).ok().and_then(|answered| answered.json);
    assert!(whole.as_ref().is_none_or(|json| validator.is_valid(json)));
    assert!(alone(Form::Object).ok().and_then(|answered| answered.json).is_none_or(|json| json.is_object()));
    whole.is_some() || good.iter().any(Option::is_some)
}

#[test]
fn whatever_a_model_answers_keeps_its_form_or_is_not_used() {
    let mut run = BadInput::begin();
    run.feed(&ANSWERS, answer);
    run.end();
}
