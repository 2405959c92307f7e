//! The example with a handler of its own, beside an API and a scheduler: its job succeeds, and one without a text is final.

#[path = "../../../../examples/own_handler.rs"]
#[allow(dead_code)] // its `main`
mod example;

use std::process::Command;

use crate::installation::Installation;
use serde_json::{Value, json};
use testkit::{PostgresServer, RedisServer};
use tokio_util::sync::CancellationToken;

async fn ended(api: &Installation, payload: Value) -> Value {
    let id = api.submit(&json!({"kind": "custom", "payload": payload})).await;
    let path = format!("/v1/jobs/{id}");
    let is_final = async |api: &Installation| {
        let job = api.try_get(&path).await;
        job.is_some_and(|job| ["succeeded", "dead"].iter().any(|state| job["state"] == *state))
    };
    api.until("the job ends", is_final).await;
    api.get(&path).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_runs_jobs_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let redis = RedisServer::start();
    let database = tokio::task::spawn_blocking(|| PostgresServer::shared().database()).await.unwrap();
    let url = redis.url();
    let shared = ["--journal", &database, "--dispatcher", &url];
    let migrated =
        Command::new(env!("CARGO_BIN_EXE_longshore")).args(["migrate", "--journal", &database]).env_clear().status();
    assert!(migrated.unwrap().success());
    let mut api = Installation::role("api", folder.path(), &shared);
    let mut scheduler = Installation::role("scheduler", folder.path(), &shared);
    for process in [&mut api, &mut scheduler] {
        assert!(process.spawn(), "{}", process.log());
        process.until_ready().await;
    }
    let shutdown = CancellationToken::new();
    let working = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { example::work(database, &url, shutdown).await }
    });
    let job = ended(&api, json!({"handler": "word-count", "input": {"text": "one two\nthree"}})).await;
    assert_eq!((&job["state"], &job["result"]), (&json!("succeeded"), &json!({"words": 3, "lines": 2})), "{job}");
    assert_eq!((&job["target"], &job["cost_usd"]), (&json!("custom:word-count:default"), &json!("0.00")), "{job}");
    let job = ended(&api, json!({"handler": "word-count", "input": {"text": ""}})).await;
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("dead"), &json!("empty")), "{job}");
    shutdown.cancel();
    working.await.unwrap().unwrap();
}
