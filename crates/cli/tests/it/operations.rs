//! Operations as an operator begins, watches and ends them, on one process that may die at any moment.

use std::process::Command;

use crate::installation::{Installation, KEY};
use serde_json::{Value, json};

/// Submits probes that fail for good, in each of their lives, and waits until all are dead letters.
async fn dead_letters(up: &Installation, queue: &str, count: usize) {
    let job = json!({"kind": "probe", "queue": queue, "payload": {"fail": "permanent"}});
    let jobs: Vec<Value> = vec![job; count];
    up.post("/v1/jobs/bulk", &json!(jobs)).await;
    up.until("all are dead", async |up| dead(up, queue).await == count as u64).await;
}

async fn dead(up: &Installation, queue: &str) -> u64 {
    let metrics = up.get("/v1/queues/metrics").await;
    metrics["queues"][queue]["failed"].as_u64().unwrap_or(0)
}

/// How many jobs of a queue have had another life.
async fn redriven(up: &Installation, queue: &str) -> usize {
    let filter = format!("queue%20%3D%20{queue}%20and%20redrives%20%3D%201");
    up.get(&format!("/v1/jobs?limit=500&filter={filter}")).await["jobs"].as_array().unwrap().len()
}

/// Runs `longshore LINE --json`, and returns its exit code and what it printed.
fn run(up: &Installation, line: &[&str]) -> (i32, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
    command.args(line).arg("--json").env_clear().env("LONGSHORE_URL", &up.url).env("LONGSHORE_KEY", KEY);
    let output = command.output().unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_counted_redriven_and_forgotten_by_filter() {
    let folder = tempfile::tempdir().unwrap();
    let up = Installation::start(&folder.path().join("data"), &[]).await;
    dead_letters(&up, "bulk", 30).await;
    dead_letters(&up, "rest", 5).await;

    let (code, dry) = run(&up, &["dlq", "retry", "--filter", "queue = bulk"]);
    assert_eq!((code, &dry["dry_run"], &dry["count"], &dry["done"]), (0, &json!(true), &json!(30), &json!(0)));
    assert_eq!(dry["estimated_cost_usd"], "0.00", "probes cost nothing");
    assert_eq!(dead(&up, "bulk").await, 30);

    let (code, some) = run(&up, &["dlq", "retry", "--queue", "bulk", "--max", "10", "--rate", "200/s", "--yes"]);
    assert_eq!((code, &some["state"], &some["done"]), (0, &json!("done"), &json!(10)));
    assert_eq!(redriven(&up, "bulk").await, 10);
    up.until("they have died again", async |up| dead(up, "bulk").await == 30).await;

    let (code, gone) = run(&up, &["dlq", "delete", "--queue", "bulk", "--yes", "--reason", "not needed"]);
    assert_eq!((code, &gone["done"], &gone["reason"]), (0, &json!(30), &json!("not needed")));
    assert_eq!((dead(&up, "bulk").await, dead(&up, "rest").await), (0, 5));

    let (code, drained) = run(&up, &["dlq", "drain", "--to", "redrive", "--all", "--yes"]);
    assert_eq!((code, &drained["to"], &drained["done"]), (0, &json!("redrive"), &json!(5)));
    assert_eq!(redriven(&up, "rest").await, 5);

    let (code, list) = run(&up, &["op", "list"]);
    let actions: Vec<_> =
        list["operations"].as_array().unwrap().iter().map(|one| one["action"].as_str().unwrap()).collect();
    assert_eq!((code, actions), (0, vec!["drain", "delete", "redrive", "redrive"]));
    let id = drained["id"].as_str().unwrap();
    assert_eq!(run(&up, &["op", "get", id]).1["finished_at"], drained["finished_at"]);
    assert_eq!(run(&up, &["op", "abort", id]).0, 5, "it has ended");
    for (code, line) in [
        (3, vec!["dlq", "delete", "--queue", "bulk"]),
        (2, vec!["dlq", "delete", "--filter", ""]),
        (2, vec!["op", "start", "archive-all", "--filter", "state = dead"]),
        (3, vec!["op", "get", "01890000-0000-7000-8000-000000000000"]),
    ] {
        assert_eq!(run(&up, &line).0, code, "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_goes_on_after_a_crash_and_ends_with_an_abort() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Installation::start(&folder.path().join("data"), &[]).await;
    dead_letters(&up, "bulk", 120).await;
    // So slow that it is not over before the crash, and that there is something to abort after it.
    let line = ["dlq", "retry", "--queue", "bulk", "--rate", "2", "--yes", "--detach"];
    let (code, begun) = run(&up, &line);
    assert_eq!((code, &begun["state"]), (0, &json!("running")));
    assert_eq!(run(&up, &line).0, 5, "one of an action and queue runs at a time");
    let path = format!("/v1/operations/{}", begun["id"].as_str().unwrap());
    let done = async |up: &Installation| up.get(&path).await["done"].as_u64().unwrap();
    up.until("it has begun", async |up| done(up).await >= 5).await;
    up.kill();
    up.start_again().await;
    let before = done(&up).await;
    assert!((5..120).contains(&before), "{before}");
    up.until("somebody goes on", async |up| done(up).await > before).await;
    let id = begun["id"].as_str().unwrap();
    let (code, aborted) = run(&up, &["op", "abort", id]);
    assert_eq!((code, &aborted["state"]), (0, &json!("aborted")));
    let done = aborted["done"].as_u64().unwrap();
    assert_eq!(redriven(&up, "bulk").await as u64, done, "each letter was met once, and none after the abort");
    up.until("they have died again", async |up| dead(up, "bulk").await == 120).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_jobs_are_cancelled_and_running_ones_are_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let up = Installation::start(&folder.path().join("data"), &["--slots", "2"]).await;
    let job = json!({"kind": "probe", "queue": "slow", "payload": {"sleep_ms": 600_000}});
    let jobs: Vec<Value> = vec![job; 8];
    up.post("/v1/jobs/bulk", &json!(jobs)).await;
    up.until("two run", async |up| up.get("/v1/queues/metrics").await["queues"]["slow"]["active"].as_u64() == Some(2))
        .await;
    let (code, dry) = run(&up, &["op", "start", "cancel", "--filter", "queue = slow"]);
    assert_eq!((code, &dry["count"]), (0, &json!(8)));
    let (code, cancelled) = run(&up, &["op", "start", "cancel", "--filter", "queue = slow", "--yes"]);
    assert_eq!((code, &cancelled["done"]), (0, &json!(8)));
    up.until("the slots are free", async |up| {
        let queue = &up.get("/v1/queues/metrics").await["queues"]["slow"];
        queue["active"] == json!(0) && queue["waiting"] == json!(0)
    })
    .await;
    let id = up.probe(json!({})).await;
    assert_eq!(up.ended(&id).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_goes_on_after_a_crash_and_all_of_it_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Installation::start(&folder.path().join("data"), &[]).await;
    dead_letters(&up, "bulk", 60).await;
    let (code, dry) = run(&up, &["dlq", "archive", "--older-than", "1ms", "--queue", "bulk"]);
    assert_eq!((code, &dry["dry_run"], &dry["count"]), (0, &json!(true), &json!(60)));
    let line = ["dlq", "drain", "--to", "archive", "--queue", "bulk", "--rate", "10", "--yes", "--detach"];
    let (code, begun) = run(&up, &line);
    assert_eq!((code, &begun["state"]), (0, &json!("running")));
    let id = begun["id"].as_str().unwrap();
    let path = format!("/v1/operations/{id}");
    up.until("it has begun", async |up| up.get(&path).await["done"].as_u64().unwrap() >= 10).await;
    up.kill();
    up.start_again().await;
    let (code, done) = run(&up, &["op", "get", id, "--wait"]);
    assert_eq!((code, &done["state"], &done["done"]), (0, &json!("done"), &json!(60)));
    assert_eq!(dead(&up, "bulk").await, 0);

    let (code, archives) = run(&up, &["dlq", "archives"]);
    assert_eq!(
        (code, &archives["archives"][0]["id"], &archives["archives"][0]["letters"]),
        (0, &json!(id), &json!(60))
    );
    let (code, dry) = run(&up, &["dlq", "restore", id, "--dry-run"]);
    assert_eq!((code, &dry["restored"], &dry["there"]), (0, &json!(60), &json!(0)));
    assert_eq!(dead(&up, "bulk").await, 0);
    let (code, back) = run(&up, &["dlq", "restore", id]);
    assert_eq!((code, &back["restored"], &back["there"]), (0, &json!(60), &json!(0)));
    let (code, again) = run(&up, &["dlq", "restore", id]);
    assert_eq!((code, &again["restored"], &again["there"]), (0, &json!(0), &json!(60)));
    assert_eq!(dead(&up, "bulk").await, 60);
    assert_eq!(run(&up, &["dlq", "restore", "01890000-0000-7000-8000-000000000000"]).0, 3);
}
