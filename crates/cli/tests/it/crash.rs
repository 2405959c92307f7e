//! `kill -9`, and again: what was accepted is there, what was paid for is not paid for again, what kills is convicted.

use std::collections::BTreeMap;

use crate::installation::Installation;
use serde_json::{Value, json};
use testkit::MockProvider;

/// Calls that the analysis below has in flight at most.
const CONCURRENCY: usize = 2;

fn analysis() -> Value {
    let sentences: Vec<String> =
        (0..160).map(|n| format!("Sentence number {n} says that valve {n} is open.")).collect();
    json!({
        "kind": "analysis",
        "payload": {
            "version": 1,
            "input": {"text": sentences.join(" ")},
            "defaults": {"model": "mock-chat", "max_tokens": 50},
            "chunk": {"by": "tokens", "size": 100, "overlap": 0},
            "map": {"prompt": "Summarise: {{chunk}}", "concurrency": CONCURRENCY},
            "reduce": {"strategy": "tree", "fan_in": 4, "prompt": "Join: {{items}}"}
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_analysis_survives_kill_9_and_pays_no_finished_call_twice() {
    let folder = tempfile::tempdir().unwrap();
    let provider = MockProvider::start().await;
    provider.set_latency_ms(60);
    let url = provider.url();
    let mut up = Installation::start(folder.path(), &["--provider-url", &url]).await;
    let others: Vec<String> = {
        let mut ids = vec![];
        for _ in 0..20 {
            ids.push(up.submit(&json!({"kind": "probe", "payload": {"sleep_ms": 1}, "queue": "others"})).await);
        }
        ids
    };
    let id = up.submit(&analysis()).await;

    // Two kills, each after more calls have been answered; a third one would convict it.
    for answered in [3, 7] {
        up.until("enough calls are answered", async |_| provider.answered() >= answered).await;
        up.kill();
        up.start_again().await;
    }
    let job = up.ended(&id).await;
    assert_eq!(job["state"], "succeeded", "{job}");

    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    for call in provider.calls().into_iter().filter(|call| call.answered && call.path.ends_with("/chat/completions")) {
        *calls.entry(call.call_id.expect("every call names itself")).or_default() += 1;
    }
    let repeated: usize = calls.values().map(|count| count - 1).sum();
    // Only what was in flight at a kill can have been answered without being kept.
    assert!(repeated <= 2 * CONCURRENCY, "{repeated} of {} calls were made twice", calls.len());
    let kept = up.get(&format!("/v1/jobs/{id}/calls")).await;
    let finished: Vec<&Value> =
        kept["calls"].as_array().unwrap().iter().filter(|call| call["status"] == "ok").collect();
    assert_eq!(finished.len(), calls.len(), "one ledger row for each call that brought an answer");
    for other in others {
        assert_eq!(up.ended(&other).await["state"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_keeps_killing_its_process_is_poison_and_its_neighbours_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Installation::start_in(folder.path(), &[], &[("LONGSHORE_PROBE_FAULTS", "true")]).await;
    let neighbours = [up.probe(json!({"sleep_ms": 3_000})).await, up.probe(json!({"sleep_ms": 3_000})).await];
    up.until("neighbours run", async |up| up.get("/v1/queues/metrics").await["queues"]["default"]["active"] == 2).await;
    // Its answer may die with the process that it kills; it is accepted all the same.
    let killer = json!({"kind": "probe", "operation": "killer", "payload": {"fail": "abort"}, "max_attempts": 9});
    up.send(&killer).await;
    for _ in 0..2 {
        up.wait_for_death();
        // It may die before it is ready: the killer is the first job that its worker finds.
        up.spawn();
    }
    up.wait_for_death();
    up.spawn();
    // Who died is judged before anybody is answered. If its neighbours had started each time, they are as suspect as it is:
    // then it is kept apart from them, and ends one process more.
    let judged = up.try_get("/v1/jobs?operation=killer").await;
    if judged.is_none_or(|listed| listed["jobs"][0]["state"] != "dead") {
        up.wait_for_death();
        up.start_again().await;
    }
    let listed = up.get("/v1/jobs?operation=killer").await;
    let killer = listed["jobs"][0]["id"].as_str().unwrap().to_owned();
    let job = up.ended(&killer).await;
    assert_eq!((&job["state"], &job["error"]["class"]), (&json!("dead"), &json!("poison")), "{job}");
    for id in neighbours {
        let job = up.ended(&id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
    }
    let letters = up.get("/v1/dead-letters").await;
    assert!(letters.to_string().contains(&killer), "{letters}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_202_before_a_kill_is_found_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Installation::start(folder.path(), &[]).await;
    let mut accepted = vec![];
    for round in 0..3 {
        for n in 0..50 {
            accepted.push(
                up.submit(&json!({"kind": "probe", "payload": {"sleep_ms": n}, "operation": format!("r{round}")}))
                    .await,
            );
        }
        up.kill();
        up.start_again().await;
    }
    for id in accepted {
        assert_eq!(up.ended(&id).await["state"], "succeeded");
    }
}
