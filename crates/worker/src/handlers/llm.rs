//! `llm`: one chat completion, with a checked and repaired answer where a schema is given.

use async_trait::async_trait;
use bytes::Bytes;
use queue_core::{
    error::{ErrorClass, JobError},
    payload::llm::{Llm as Payload, OnTruncated},
};
use serde_json::{Value, json};

use super::structured::{self, Wanted, withheld};
use crate::{
    context::{Durability, Handler, JobContext},
    provider::ChatAnswer,
};

const STEP: &str = "chat";

pub(super) struct Llm;

#[async_trait]
impl Handler for Llm {
    async fn run(&self, cx: &JobContext) -> Result<Bytes, JobError> {
        let payload = Payload::read(super::text_of(cx.payload())?).map_err(super::unreadable)?;
        let model = payload.model.as_deref().or_else(|| cx.default_model()).unwrap_or_default().to_owned();
        let provider = cx.provider_of(&model);
        let (answer, json) = if payload.wants_json {
            // A repair needs the answer before it: it is kept as soon as it is there.
            let durability = if payload.repair > 0 { Durability::Now } else { Durability::WithSettle };
            let wanted = Wanted { schema: payload.schema.as_ref(), repair: payload.repair, durability };
            let done = structured::ask(cx, STEP, &model, payload.body, &wanted).await?;
            (done.answer, Some(done.json))
        } else {
            let answer = cx.chat(STEP, 0, &model, payload.body, Durability::WithSettle).await?;
            withheld(&answer)?;
            if answer.finish == "length" && payload.on_truncated == OnTruncated::Fail {
                let error = JobError::new(ErrorClass::Truncated, "length", "the answer was cut at max_tokens");
                return Err(JobError { retryable: false, ..error });
            }
            (answer, None)
        };
        super::encoded(&result(answer, json, provider))
    }
}

fn result(answer: ChatAnswer, json: Option<Value>, provider: Option<String>) -> Value {
    let mut result = json!({
        "text": answer.text, "finish": answer.finish, "model": answer.model, "provider": provider,
    });
    if let Some(json) = json {
        result["json"] = json;
    }
    if !answer.tool_calls.is_empty() {
        result["tool_calls"] = Value::Array(answer.tool_calls);
    }
    result
}
