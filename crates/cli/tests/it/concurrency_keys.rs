//! Jobs of one concurrency key under real workers: at most as many at once as the queue says, and nobody else waits.

use std::collections::BTreeMap;

use crate::installation::Installation;
use queue_core::time::Timestamp;
use serde_json::{Value, json};
use testkit::{PostgresServer, RedisServer};

/// How long each job runs: long beside what a claim takes, so that two that may run at once do.
const SLEEP_MS: u64 = 60;
/// Jobs of each key; more than slots, so that slots are never what keeps them apart.
const JOBS: usize = 12;

struct Run {
    starts: Timestamp,
    ends: Timestamp,
}

/// Most jobs that ran at one moment.
fn most_at_once(runs: &[Run]) -> usize {
    let at_once = |at: Timestamp| runs.iter().filter(|run| run.starts <= at && at < run.ends).count();
    runs.iter().map(|run| at_once(run.starts)).max().unwrap_or(0)
}

async fn runs_of(up: &Installation, ids: &[String]) -> Vec<Run> {
    let mut runs = vec![];
    for id in ids {
        let job = up.ended(id).await;
        assert_eq!((&job["state"], &job["attempts"]), (&json!("succeeded"), &json!(1)), "{job}\n{}", up.log());
        let attempts = up.get(&format!("/v1/jobs/{id}/attempts")).await;
        let moment = |name: &str| attempts["attempts"][0][name].as_str().unwrap().parse().unwrap();
        runs.push(Run { starts: moment("started_at"), ends: moment("finished_at") });
    }
    runs
}

/// Jobs of three keys and of none: submitted at once, so that they all wait together.
async fn submit_all(up: &Installation) -> BTreeMap<Option<&'static str>, Vec<String>> {
    let keys = [Some("a"), Some("b"), Some("two words"), None];
    let job = |key: &Option<&str>| {
        let mut job = json!({"kind": "probe", "queue": "keyed", "payload": {"sleep_ms": SLEEP_MS}});
        if let Some(key) = key {
            job["concurrency_key"] = json!(key);
        }
        job
    };
    let jobs: Vec<Value> = (0..JOBS).flat_map(|_| keys.iter().map(job)).collect();
    let accepted = up.post("/v1/jobs/bulk", &json!(jobs)).await;
    let mut ids = BTreeMap::<_, Vec<String>>::new();
    for (n, one) in accepted["jobs"].as_array().unwrap().iter().enumerate() {
        ids.entry(keys[n % keys.len()]).or_default().push(one["id"].as_str().unwrap().to_owned());
    }
    ids
}

async fn runs_at_most(up: &Installation, limit: usize) {
    let ids = submit_all(up).await;
    let mut all = vec![];
    for (key, ids) in ids {
        let runs = runs_of(up, &ids).await;
        let most = most_at_once(&runs);
        match key {
            Some(key) => assert_eq!(most, limit, "{key:?} has {JOBS} jobs and may run {limit}"),
            None => assert!(most > limit, "{most} jobs without a key at once: they wait for nobody"),
        }
        all.extend(runs);
    }
    assert!(most_at_once(&all) > limit, "keys do not wait for each other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_of_a_key_run_than_may() {
    let folder = tempfile::tempdir().unwrap();
    let up = Installation::start(folder.path(), &["--slots", "64"]).await;
    runs_at_most(&up, 1).await;
    let queue = up.patch("/v1/queues/keyed", &json!({"key_concurrency": 3})).await;
    assert_eq!(queue["key_concurrency"], 3);
    runs_at_most(&up, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_of_a_key_run_than_may_in_several_processes() {
    let (folder, worker_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let redis = RedisServer::start();
    let database = tokio::task::spawn_blocking(|| PostgresServer::shared().database()).await.unwrap();
    let url = redis.url();
    let stores = ["--journal", database.as_str(), "--dispatcher", url.as_str(), "--slots", "16"];
    let up = Installation::start(folder.path(), &stores).await;
    let worker = Installation::role("worker", worker_folder.path(), &stores);
    let mut worker = worker.with("LONGSHORE_PROBE_JOBS", "true");
    worker.start_again().await;
    runs_at_most(&up, 1).await;
    up.patch("/v1/queues/keyed", &json!({"key_concurrency": 2})).await;
    runs_at_most(&up, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_behind_its_key_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let up = Installation::start(folder.path(), &[]).await;
    let keyed = |sleep_ms| json!({"kind": "probe", "payload": {"sleep_ms": sleep_ms}, "concurrency_key": "user 7"});
    let running = up.submit(&keyed(60_000)).await;
    up.until("it runs", async |up| up.get(&format!("/v1/jobs/{running}")).await["state"] == "running").await;
    let waiting = up.submit(&keyed(0)).await;
    let why = up.get(&format!("/v1/jobs/{waiting}/why")).await;
    let said = json!({
        "waits_for": "concurrency_key", "limit": 1, "ahead_in_key": 0, "concurrency_key": "user 7",
        "message": "at most 1 of the key \"user 7\" run at once; 0 waiting jobs of it are before this one",
    });
    assert_eq!(why["waits"], json!([said]));
    assert!(why["summary"].as_str().unwrap().contains("user 7"), "{why}");
    let metrics = up.get("/v1/queues/metrics").await;
    let numbers = &metrics["queues"]["default"];
    assert_eq!((&numbers["waiting"], &numbers["active"], &numbers["parked"]), (&json!(0), &json!(1), &json!(1)));
    assert!(up.cancel(&running).await.is_success());
    assert_eq!(up.ended(&waiting).await["state"], "succeeded", "the place of a cancelled job is the next one's");
}
