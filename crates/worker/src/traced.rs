//! What an attempt and its calls tell of themselves in traces. Where an attempt is not recorded, so are its calls not.

use std::time::Duration;

use queue_core::{
    ids::Epoch,
    job::Job,
    journal::{Outcome, Reads},
    traces::{self, Asked, Attempt, Call, names},
};
use serde_json::Value;

use crate::{
    backend::Claimed,
    coalesce::Member,
    pipeline::Pipeline,
    provider::{CallError, ChatAnswer, ChatRequest, EmbedAnswer, Provider},
};

/// Longest look for the attempt before: a link must not hold a job up.
const LOOK_MAX: Duration = Duration::from_millis(250);

/// Runs an attempt, within its span where it is recorded.
pub(crate) async fn attempt(pipeline: &Pipeline, claimed: Claimed) {
    let job = &claimed.loaded.job;
    let Some(span) = Attempt::begin(job) else { return pipeline.attempt(claimed).await };
    // A job that was never handed on has no attempt behind it.
    if job.epoch.0 > 0
        && let Some(before) = before(&*pipeline.around.stores.reads, job).await
    {
        span.follows(job.id, before);
    }
    span.around(Box::pin(pipeline.attempt(claimed))).await;
}

/// The epoch of the last attempt of a job whose handler began.
async fn before(reads: &dyn Reads, job: &Job) -> Option<Epoch> {
    let attempts = tokio::time::timeout(LOOK_MAX, reads.attempts(job.id)).await.ok()?.ok()?;
    let began = attempts.iter().rev().filter(|attempt| attempt.started_at.is_some());
    began.map(|attempt| attempt.epoch).find(|epoch| *epoch < job.epoch)
}

/// The attempt that is being worked in has ended so, and is written down.
pub(crate) fn ended(outcome: &Outcome) {
    let error = match outcome {
        Outcome::Retry { error, .. } | Outcome::Dead { error } => Some(error.class),
        // One that was put back did not fail.
        Outcome::Succeed { .. } | Outcome::Release { .. } => None,
    };
    traces::ended(outcome.as_str(), error);
}

fn asked<'a>(operation: &'static str, provider: &'a dyn Provider, model: &'a str) -> Asked<'a> {
    Asked { operation, provider: provider.name(), server: provider.server(), model }
}

/// A chat call begins.
pub(crate) fn chat(job: &Job, step: &str, provider: &dyn Provider, request: &ChatRequest) -> Option<Call> {
    let mut call = Call::begin(asked(names::CHAT, provider, &request.model), &[traces::here()?])?;
    call.of(job.id, job.tenant.as_str(), step);
    let number = |name| request.body.get(name).and_then(Value::as_f64);
    let tokens = ["max_completion_tokens", "max_tokens"].iter().find_map(|name| request.body.get(*name)?.as_u64());
    let form = request.body.get("response_format").and_then(|form| form.get("type")).and_then(Value::as_str);
    call.asks(tokens, number("temperature"), number("top_p"), form.is_some_and(|form| form.starts_with("json")));
    Some(call)
}

/// A chat call is over.
pub(crate) fn chat_ended(call: Option<Call>, outcome: &Result<ChatAnswer, CallError>) {
    let Some(mut call) = call else { return };
    if let Ok(answer) = outcome {
        call.answered(&answer.model, answer.usage);
        call.finished(&answer.finish, answer.first_token_ms);
    }
    close(call, outcome.as_ref().err());
}

/// A call for the vectors of these jobs begins.
pub(crate) fn embed(members: &[Member], provider: &dyn Provider, model: &str) -> Option<Call> {
    let attempts: Vec<_> = members.iter().filter_map(|member| member.trace.clone()).collect();
    let mut call = Call::begin(asked(names::EMBEDDINGS, provider, model), &attempts)?;
    match members {
        [only] => call.of(only.row.job_id, only.row.tenant.as_str(), &only.row.step),
        members => call.of_jobs(members.len()),
    }
    Some(call)
}

/// It is over.
pub(crate) fn embed_ended(call: Option<Call>, outcome: &Result<EmbedAnswer, CallError>) {
    let Some(mut call) = call else { return };
    if let Ok(answer) = outcome {
        call.answered(&answer.model, answer.usage);
    }
    close(call, outcome.as_ref().err());
}

fn close(mut call: Call, failure: Option<&CallError>) {
    if let Some(usage) = failure.and_then(|failure| failure.usage) {
        call.used(usage);
    }
    call.end(failure.map(|failure| failure.error.class));
}
