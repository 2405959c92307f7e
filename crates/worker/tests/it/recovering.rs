//! Failures that another request mends within an attempt: cut answers, chunks and batches that are too large; and how much
//! is tried again at once.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::analysing::{HARBOUR, analysis, mapped, prompt};
use crate::rig::Rig;
use crate::script::{Script, ends, fails, inside, message, says};
use async_trait::async_trait;
use queue_core::{
    error::ErrorClass as C,
    job::{Job, Kind},
    ledger::{Billed, Usage},
    limiter::Told,
    state::Standing,
};
use serde_json::{Value, json};
use worker::provider::{Call, CallError, ChatAnswer, ChatRequest, EmbedAnswer, EmbedRequest, Provider, Providers};

async fn run(script: &Arc<Script>, kind: Kind, payload: &Value) -> (Rig, Job, Value) {
    let mut rig = Rig::new(script.alone()).await;
    rig.work(2, Duration::from_secs(5));
    let id = rig.submit(kind, &payload.to_string(), |job| job.max_attempts = 1).await;
    let job = rig.ended(id).await;
    let result = rig.stores.reads.result(id).await.unwrap();
    rig.stop().await;
    (rig, job, result.map_or(Value::Null, |result| serde_json::from_slice(&result).unwrap()))
}

fn chat(more: Value) -> Value {
    let mut payload =
        json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Tell"}], "max_tokens": 100});
    payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    payload
}

#[tokio::test]
async fn a_cut_answer_is_asked_for_once_more_with_twice_the_room() {
    let needs = |tokens: u64| {
        Script::new(move |request: &ChatRequest, _| match request.body["max_tokens"].as_u64() {
            Some(limit) if limit >= tokens => says("whole"),
            _ => ends("cut", "length"),
        })
    };
    let raise = chat(json!({"on_truncated": "raise"}));
    let script = needs(200);
    let (rig, job, result) = run(&script, Kind::Llm, &raise).await;
    assert_eq!((result["text"].as_str(), script.asked().len()), (Some("whole"), 2));
    let calls = rig.stores.reads.calls(job.id).await.unwrap();
    assert_eq!(
        calls.iter().map(|call| (call.step.as_str(), call.billed)).collect::<Vec<_>>(),
        [("chat", Billed::Yes), ("chat/raised", Billed::Yes)]
    );
    let script = needs(201);
    let (_, job, _) = run(&script, Kind::Llm, &raise).await;
    assert_eq!(
        (job.standing, job.error.unwrap().class, script.asked().len()),
        (Standing::Dead, C::Truncated, 2),
        "once"
    );
    let (_, _, result) = run(&needs(200), Kind::Llm, &chat(json!({}))).await;
    assert_eq!(
        (result["text"].as_str(), result["finish"].as_str()),
        (Some("cut"), Some("length")),
        "accepted unless said"
    );
}

#[tokio::test]
async fn a_cut_answer_is_continued_until_it_is_whole_or_long_enough() {
    let parts = |of: usize| {
        Script::new(move |request: &ChatRequest, _| {
            let turns = request.body["messages"].as_array().unwrap().len();
            let number = turns / 2;
            if number > 0 {
                assert_eq!(message(request, 1), format!("part {} ", number - 1));
            }
            let text = format!("part {number} ");
            if number + 1 < of { ends(&text, "length") } else { says(text) }
        })
    };
    let go_on = chat(json!({"on_truncated": "continue"}));
    let (_, _, result) = run(&parts(3), Kind::Llm, &go_on).await;
    assert_eq!((result["text"].as_str(), result["finish"].as_str()), (Some("part 0 part 1 part 2 "), Some("stop")));
    let script = parts(50);
    let (_, _, result) = run(&script, Kind::Llm, &go_on).await;
    assert_eq!((script.asked().len(), result["finish"].as_str()), (5, Some("length")), "bounded, and it says so");
}

/// The provider counts more tokens than we do: chunks are halved until they fit, and nothing of the document is left out.
#[tokio::test]
async fn chunks_that_do_not_fit_are_halved() {
    let script = Script::new(|request: &ChatRequest, _| {
        let chunk = inside(prompt(request), "document")[0];
        if chunk.len() > 150 { fails(C::Overflow) } else { says(chunk.len().to_string()) }
    });
    let (rig, job, result) = run(&script, Kind::Analysis, &analysis(&json!({}))).await;
    assert_eq!(job.standing, Standing::Succeeded, "{:?}", job.error);
    let parts = result["map"].as_array().unwrap();
    assert!(parts.len() > result["chunks"].as_u64().unwrap() as usize);
    let mut end = 0;
    for part in parts {
        let (start, stop) = (part["start"].as_u64().unwrap() as usize, part["end"].as_u64().unwrap() as usize);
        assert!(HARBOUR[end.min(start)..start].trim().is_empty(), "left out: {:?}", &HARBOUR[end..start]);
        end = stop;
    }
    assert!(HARBOUR[end..].trim().is_empty());
    let calls = rig.stores.reads.calls(job.id).await.unwrap();
    assert!(
        calls
            .iter()
            .any(|call| call.step.ends_with("/0/1") || call.step.ends_with("/1/0") || call.step.ends_with("/0"))
    );
    // What never fits is an error in the end, not an endless halving.
    let never = Script::new(|_: &ChatRequest, _| fails(C::Overflow));
    let (_, job, _) = run(&never, Kind::Analysis, &analysis(&json!({"map": {"concurrency": 1}}))).await;
    assert_eq!((job.standing, job.error.unwrap().class), (Standing::Dead, C::Overflow));
    assert!(never.asked().len() <= 5, "{} calls", never.asked().len());
    assert!(never.asked().iter().all(|request| mapped(request) == Some(1)));
}

#[tokio::test]
async fn a_chunk_is_refined_with_in_two_steps_where_it_does_not_fit() {
    let script = Script::new(|request: &ChatRequest, _| {
        let text = prompt(request);
        let chunk = inside(text, "document")[0].len();
        if text.starts_with("REFINE") && chunk > 150 { fails(C::Overflow) } else { says(format!("{chunk}")) }
    });
    let refine = json!({"reduce": {"strategy": "refine", "prompt": "REFINE {{previous}} {{chunk}}"}});
    let (_, job, _) = run(&script, Kind::Analysis, &analysis(&refine)).await;
    assert_eq!(job.standing, Standing::Succeeded, "{:?}", job.error);
}

/// A provider that takes two inputs in one request.
#[derive(Default)]
struct Narrow {
    batches: Mutex<Vec<usize>>,
}

#[async_trait]
impl Provider for Narrow {
    fn name(&self) -> &str {
        "narrow"
    }

    async fn chat(&self, _: &ChatRequest, _: Call<'_>) -> Result<ChatAnswer, CallError> {
        says("x")
    }

    async fn embed(&self, request: &EmbedRequest, _: Call<'_>) -> Result<EmbedAnswer, CallError> {
        self.batches.lock().unwrap().push(request.input.len());
        if request.input.len() > 2 {
            return Err(CallError::unbilled(C::BatchSplit, "array_above_max_length", "array too long"));
        }
        let vectors = request.input.iter().map(|text| vec![text.len() as f32]).collect();
        let usage = Some(Usage { tokens_in: 1, ..Usage::default() });
        Ok(EmbedAnswer { vectors, model: "narrow-1".into(), usage, request_id: None, told: Told::default() })
    }

    async fn check(&self) -> Result<(), CallError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_split_and_comes_back_in_order() {
    let narrow = Arc::new(Narrow::default());
    let mut rig = Rig::new(Providers::from([("narrow".to_owned(), narrow.clone() as Arc<dyn Provider>)])).await;
    rig.work(1, Duration::from_secs(5));
    let payload = json!({"model": "m", "input": ["1", "22", "333", "4444", "55555"]});
    let id = rig.submit(Kind::Embedding, &payload.to_string(), |job| job.max_attempts = 1).await;
    let job = rig.ended(id).await;
    assert_eq!(job.standing, Standing::Succeeded, "{:?}", job.error);
    let result: Value = serde_json::from_slice(&rig.stores.reads.result(id).await.unwrap().unwrap()).unwrap();
    assert_eq!(result["vectors"], json!([[1.0], [2.0], [3.0], [4.0], [5.0]]));
    assert_eq!(*narrow.batches.lock().unwrap(), [5, 3, 2, 1, 2]);
    rig.stop().await;
}

/// However many tries each call has, a fifth of the calls of a target may be retries, and what it had saved up.
#[tokio::test]
async fn retries_are_a_fifth_of_the_calls() {
    let script = Script::new(|_: &ChatRequest, tries| {
        if tries > 2 {
            return says("x");
        }
        fails(C::Rate).map_err(|mut refused| {
            refused.error = refused.error.with_retry_after(Some(0));
            refused
        })
    });
    let mut rig = Rig::new(script.alone()).await;
    rig.work(1, Duration::from_secs(5));
    let text = "word ".repeat(4_000);
    let payload = json!({
        "input": {"text": text}, "chunk": {"size": 20, "overlap": 0},
        "map": {"prompt": "{{chunk}}", "concurrency": 1},
    });
    let id = rig.submit(Kind::Analysis, &payload.to_string(), |_| {}).await;
    rig.until("a release", async || rig.row(id).await.releases > 0).await;
    let asked = script.asked().len();
    let different = script.times().len();
    let retries = asked - different;
    assert!(retries > 10 && retries <= 20 + asked / 5, "{retries} retries in {asked} calls");
    rig.stop().await;
}
