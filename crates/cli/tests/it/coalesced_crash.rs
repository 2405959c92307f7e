//! `kill -9` while one call is under way for many embedding jobs: each of them ends once, and nothing but that call is paid
//! for twice.

use std::collections::BTreeMap;

use crate::installation::Installation;
use serde_json::{Value, json};
use testkit::{MockProvider, SeenCall};

const JOBS: usize = 40;
const MODEL: &str = "text-embedding-3-small";

fn inputs(call: &SeenCall) -> Vec<String> {
    let texts = call.body["input"].as_array().map(Vec::as_slice).unwrap_or_default();
    texts.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_with_a_call_for_many_jobs_loses_that_call_and_nothing_else() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), MockProvider::start().await);
    let url = provider.url();
    let arguments = ["--provider-url", url.as_str(), "--embedding-model", MODEL];
    let mut up = Installation::start(folder.path(), &arguments).await;
    let text = |number: usize| format!("the ship with the number {number}");
    let first = up.submit(&json!({"kind": "embedding", "payload": {"input": text(JOBS)}})).await;
    up.ended(&first).await;
    let settled = provider.calls().len();

    provider.set_latency_ms(600);
    let jobs: Vec<Value> =
        (0..JOBS).map(|number| json!({"kind": "embedding", "payload": {"input": text(number)}})).collect();
    let accepted = up.post("/v1/jobs/bulk", &json!(jobs)).await;
    let ids: Vec<String> =
        accepted["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
    up.until("a call for many jobs is under way", async |_| {
        provider.calls()[settled..].iter().any(|call| inputs(call).len() > 1)
    })
    .await;
    up.kill();
    let lost: Vec<String> = provider.calls()[settled..].iter().flat_map(inputs).collect();
    provider.set_latency_ms(0);
    up.start_again().await;

    let mut unsure = 0;
    for (number, id) in ids.iter().enumerate() {
        let job = up.ended(id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        let calls = up.get(&format!("/v1/jobs/{id}/calls")).await;
        let billed = |word: &str| {
            calls["calls"].as_array().unwrap().iter().filter(|call| call["billed"] == word).cloned().collect::<Vec<_>>()
        };
        assert_eq!(billed("yes").len(), 1, "one share of one call that was heard: {calls}");
        let maybe = billed("maybe");
        assert!(maybe.len() <= 1 && maybe.iter().all(|call| call["status"] == "lost"), "{calls}");
        assert!(!lost.contains(&text(number)) || maybe.len() == 1, "it was asked for by the dead worker: {calls}");
        unsure += maybe.len();
        let attempts = up.get(&format!("/v1/jobs/{id}/attempts")).await;
        let ended = attempts["attempts"].as_array().unwrap().iter().filter(|one| one["outcome"] == "succeed").count();
        assert_eq!(ended, 1, "{attempts}");
    }
    assert!(unsure >= lost.len() && lost.len() > 1, "{unsure} of {}", lost.len());

    let mut paid: BTreeMap<String, usize> = BTreeMap::new();
    for call in provider.calls().iter().filter(|call| call.answered) {
        inputs(call).into_iter().for_each(|text| *paid.entry(text).or_default() += 1);
    }
    assert_eq!(paid.len(), JOBS + 1);
    for (text, times) in paid {
        assert!(times == 1 || times == 2 && lost.contains(&text), "{text} was paid for {times} times");
    }
    let job = up.get(&format!("/v1/jobs/{first}")).await;
    assert_eq!(job["attempts"], 1, "what had ended was not touched");
}
