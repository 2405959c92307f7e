//! `llm`: one chat completion, with a checked and repaired answer where a form is asked for.

use async_trait::async_trait;
use bytes::Bytes;
use queue_core::{
    error::JobError,
    payload::llm::{Llm as Payload, OnTruncated},
};
use serde::Serialize;
use serde_json::Value;

use super::structured::{self, Answered, Calls, Form, Question, truncated};
use crate::context::{Durability, Handler, JobContext};

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
        // Where a repair may follow, the answer before it must be kept first; else the settle keeps the only one.
        let is_last = matches!(form, Form::Text) || payload.repair == 0;
        let question = Question {
            step: "chat",
            model: &model,
            body: payload.body,
            form,
            repair: payload.repair,
            rounds: cx.attempt(),
            // The queue tries again: a job of one call has nothing to lose by giving its slot back.
            tries: 1,
            durability: if is_last { Durability::WithSettle } else { Durability::Now },
        };
        let calls = Calls::up_to(u32::MAX);
        let asks = structured::ask(cx, &question, &calls);
        let Answered { answer, json } = match payload.cache {
            None => asks.await?,
            Some(wish) => {
                let asks = async { asks.await.map(|answered| answered.answer) };
                let answer = cx.shared_chat(wish, &model, &question.body, asks).await?;
                structured::read_again(form, answer)?
            }
        };
        if answer.finish == "length" && payload.on_truncated == OnTruncated::Fail {
            return Err(truncated());
        }
        super::encoded(&Completion {
            provider: cx.provider_of(&model),
            text: answer.text,
            json,
            finish: answer.finish,
            model: answer.model,
            cached: answer.cached,
            tool_calls: answer.tool_calls,
        })
    }
}
