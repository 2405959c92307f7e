//! Analyses of one document over a scripted provider, for tests that watch whole jobs.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the binary exports nothing; a test may fail"
)]

use std::{sync::Arc, time::Duration};

use queue_core::{
    error::ErrorClass,
    ids::JobId,
    job::{Job, Kind},
    state::Standing,
};
use serde_json::{Value, json};
use worker::provider::{ChatRequest, Providers};

use crate::{
    rig::Rig,
    script::{Said, Script, inside, says},
};

pub const HARBOUR: &str = include_str!("../data/harbour.md");

pub async fn rig(providers: Providers) -> Rig {
    let mut rig = Rig::new(providers).await;
    rig.work(4, Duration::from_secs(10));
    rig
}

/// An analysis of the harbour's runbook; `more` is laid over it, member by member.
pub fn analysis(more: &Value) -> Value {
    let mut payload = json!({
        "input": {"text": HARBOUR, "format": "markdown"},
        "chunk": {"size": 100, "overlap": 0},
        "map": {"prompt": "MAP {{index}}/{{total}}\n{{chunk}}"},
    });
    lay_over(&mut payload, more);
    payload
}

pub fn lay_over(below: &mut Value, above: &Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            above.iter().for_each(|(name, value)| lay_over(below.entry(name.clone()).or_insert(Value::Null), value));
        }
        (below, above) => *below = above.clone(),
    }
}

pub async fn submit(rig: &Rig, payload: &Value, max_attempts: u32) -> JobId {
    rig.submit(Kind::Analysis, &payload.to_string(), |job| job.max_attempts = max_attempts).await
}

pub async fn run(rig: &Rig, payload: &Value, max_attempts: u32) -> (Job, Value) {
    let id = submit(rig, payload, max_attempts).await;
    let row = rig.ended(id).await;
    let text = rig.stores.reads.result(id).await.unwrap();
    (row, text.map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap()))
}

/// A job that must succeed in its first attempt, on a worker of its own; its result.
pub async fn succeeds(script: &Arc<Script>, more: &Value) -> Value {
    let mut rig = rig(script.alone()).await;
    let (row, result) = run(&rig, &analysis(more), 1).await;
    assert_eq!((row.standing, row.attempts), (Standing::Succeeded, 1), "{:?}", row.error);
    assert_eq!(rig.stores.reads.calls(row.id).await.unwrap().len(), script.asked().len() + script.embedded().len());
    rig.stop().await;
    result
}

/// A job of one attempt that must die; its class and code.
pub async fn dies(script: &Arc<Script>, more: &Value) -> (ErrorClass, String) {
    let mut rig = rig(script.alone()).await;
    let (row, _) = run(&rig, &analysis(more), 1).await;
    rig.stop().await;
    let error = row.error.expect("a dead job has an error");
    assert_eq!((row.standing, row.attempts), (Standing::Dead, 1), "{error}");
    (error.class, error.code)
}

/// What was asked first in a call, before any repair.
pub fn prompt(request: &ChatRequest) -> &str {
    request.body["messages"][1]["content"].as_str().unwrap()
}

/// The number of the chunk that a call maps, counted from 1; `None` for other calls.
pub fn mapped(request: &ChatRequest) -> Option<usize> {
    prompt(request).strip_prefix("MAP ")?.split('/').next()?.parse().ok()
}

/// Counts: a chunk is 1, a reduce is the sum of its items. Whoever loses or doubles an answer comes to another sum.
pub fn sums(request: &ChatRequest, _: u32) -> Said {
    let text = prompt(request);
    if let Some(rest) = text.strip_prefix("REFINE ") {
        let previous: usize = inside(rest, "answer")[0].parse().unwrap();
        return says((previous + inside(rest, "document").len()).to_string());
    }
    let items: usize = inside(text, "item").iter().map(|item| item.parse::<usize>().unwrap()).sum();
    says(if mapped(request).is_some() { 1 } else { items }.to_string())
}

pub fn with(mut below: Value, above: &Value) -> Value {
    lay_over(&mut below, above);
    below
}
