//! `llm`: one chat completion, with a checked and repaired answer where a form is asked for.

use async_trait::async_trait;
use bytes::Bytes;
use queue_core::{
    error::{ErrorClass, JobError},
    payload::llm::{Llm as Payload, OnTruncated, TOKENS_MAX},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::structured::{self, Answered, Calls, Form, Question, truncated};
use crate::context::{Durability, Handler, JobContext, Shared};

pub(super) struct Llm;

#[derive(Serialize)]
struct Completion {
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<Value>,
    finish: String,
    model: String,
    provider: Option<String>,
    /// Another job has paid for the answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
}

#[async_trait]
impl Handler for Llm {
    async fn run(&self, cx: &JobContext) -> Result<Bytes, JobError> {
        let payload = Payload::read(super::text_of(cx.payload())?).map_err(super::unreadable)?;
        let model = payload.model.as_deref().or_else(|| cx.default_model()).unwrap_or_default().to_owned();
        let form = match &payload.schema {
            Some(schema) => Form::Schema(schema),
            None if payload.wants_json => Form::Object,
            None => Form::Text,
        };
        // Where another call may follow, the answer before it must be kept first; else the settle keeps the only one.
        let chain = cx.chain(&model);
        let follows = matches!(payload.on_truncated, OnTruncated::Raise | OnTruncated::Continue)
            || chain.goes_on_after_an_answer();
        let is_last = !follows && (matches!(form, Form::Text) || payload.repair == 0);
        let question = Question {
            step: "chat",
            chain: &chain,
            body: payload.body,
            form,
            repair: payload.repair,
            rounds: cx.attempt(),
            // The queue tries again: a job of one call has nothing to lose by giving its slot back.
            tries: 1,
            durability: if is_last { Durability::WithSettle } else { Durability::Now },
        };
        let truncation = payload.on_truncated;
        let Answered { answer, json } = match payload.cache {
            None => answered(cx, truncation, question).await?,
            Some(wish) => {
                let body = question.body.clone();
                let asks = async { answered(cx, truncation, question).await.map(|answered| answered.answer) };
                let shared = Shared { wish, step: "chat", model: &model, body: &body, may_be_anothers: false };
                structured::read_again(form, Box::pin(cx.shared_chat(shared, asks)).await?)?
            }
        };
        super::encoded(&Completion {
            provider: cx.last_provider(),
            text: answer.text,
            json,
            finish: answer.finish,
            model: answer.model,
            cached: answer.cached,
            tool_calls: answer.tool_calls,
        })
    }
}

/// The whole way to an answer.
async fn answered(cx: &JobContext, on_truncated: OnTruncated, question: Question<'_>) -> Result<Answered, JobError> {
    let answered = structured::ask(cx, &question, &Calls::up_to(u32::MAX)).await;
    match (on_truncated, answered) {
        (OnTruncated::Raise, Ok(cut)) if cut.is_cut() => raised(cx, question).await,
        (OnTruncated::Raise, Err(cut)) if cut.class == ErrorClass::Truncated => raised(cx, question).await,
        (OnTruncated::Continue, Ok(cut)) if cut.is_cut() => continued(cx, question, cut).await,
        (OnTruncated::Fail, Ok(cut)) if cut.is_cut() => Err(truncated()),
        (_, answered) => answered,
    }
}

/// Answers that follow a cut one at most, where it is continued: each pays for the whole prompt again.
const CONTINUATIONS_MAX: usize = 4;

/// Asks once more with twice the room for the answer, as far as the model has it.
async fn raised(cx: &JobContext, mut question: Question<'_>) -> Result<Answered, JobError> {
    if !raise(&mut question.body, cx.answer_max(&question.chain.first)) {
        return Err(truncated());
    }
    question.step = "chat/raised";
    let answered = structured::ask(cx, &question, &Calls::up_to(u32::MAX)).await?;
    if answered.is_cut() { Err(truncated()) } else { Ok(answered) }
}

/// Doubles the limit on the answer, up to `most`; false where there is no limit of the caller's or no more room.
fn raise(body: &mut Map<String, Value>, most: Option<u64>) -> bool {
    let named = ["max_tokens", "max_completion_tokens"].into_iter().find(|name| body.get(*name).is_some());
    let Some((name, was)) = named.and_then(|name| Some((name, body.get(name)?.as_u64()?))) else { return false };
    let now = was.saturating_mul(2).min(most.unwrap_or(TOKENS_MAX)).min(TOKENS_MAX);
    body.insert(name.to_owned(), now.into());
    now > was
}

/// Lets the model go on where it was cut, up to a bound; what is cut then says so by its `finish`.
async fn continued(cx: &JobContext, mut question: Question<'_>, mut cut: Answered) -> Result<Answered, JobError> {
    let mut text = std::mem::take(&mut cut.answer.text);
    for number in 1..=CONTINUATIONS_MAX {
        let Some(Value::Array(messages)) = question.body.get_mut("messages") else { break };
        let last = if number == 1 { text.clone() } else { cut.answer.text.clone() };
        messages.push(json!({"role": "assistant", "content": last}));
        messages.push(json!({"role": "user", "content": "Go on exactly where you stopped. Repeat nothing."}));
        let step = format!("chat/continued/{number}");
        let next = Question { step: &step, body: question.body.clone(), ..question };
        cut = structured::ask(cx, &next, &Calls::up_to(u32::MAX)).await?;
        question.body = next.body;
        text.push_str(&cut.answer.text);
        if !cut.is_cut() {
            break;
        }
    }
    cut.answer.text = text;
    Ok(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_doubled_as_far_as_the_model_goes() {
        let raise_to = |body: Value, most| {
            let mut body = body.as_object().cloned().unwrap_or_default();
            (raise(&mut body, most), Value::from(body))
        };
        assert_eq!(raise_to(json!({"max_tokens": 100}), None), (true, json!({"max_tokens": 200})));
        assert_eq!(raise_to(json!({"max_tokens": 100}), Some(150)), (true, json!({"max_tokens": 150})));
        assert!(!raise_to(json!({"max_completion_tokens": 100}), Some(100)).0);
        assert!(!raise_to(json!({}), None).0, "what the provider decides cannot be raised");
    }
}
