//! Redis forgets everything while jobs run: what runs goes on and is neither run nor paid for again, what waits is
//! filled in again from the journal.

use crate::installation::Installation;
use serde_json::json;
use testkit::RedisServer;

/// Jobs that wait behind the running ones.
const WAITING: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_fences_nobody_who_lives_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut redis = RedisServer::start();
    let url = redis.url();
    let up = Installation::start(folder.path(), &["--dispatcher", &url, "--slots", "4"]).await;
    let mut running = vec![];
    for _ in 0..4 {
        running.push(up.probe(json!({"sleep_ms": 4_000})).await);
    }
    up.until("all slots are busy", async |up| active(up).await == 4).await;
    let mut waiting = vec![];
    for _ in 0..WAITING {
        waiting.push(up.probe(json!({})).await);
    }

    redis.flush();
    up.until("the running ones are known again", async |up| active(up).await == 4).await;
    redis.restart_empty();
    for id in running.iter().chain(&waiting) {
        let job = up.ended(id).await;
        assert_eq!((&job["state"], &job["attempts"]), (&json!("succeeded"), &json!(1)), "{job}\n{}", up.log());
        let attempts = up.get(&format!("/v1/jobs/{id}/attempts")).await;
        assert_eq!(attempts["attempts"].as_array().map(Vec::len), Some(1), "{attempts}");
    }
}

/// Running jobs, as far as the dispatcher can tell now.
async fn active(up: &Installation) -> u64 {
    let metrics = up.try_get("/v1/queues/metrics").await;
    metrics.and_then(|metrics| metrics["queues"]["default"]["active"].as_u64()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_may_evict_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let redis = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let mut up = Installation::stopped(folder.path(), &["--dispatcher", &redis.url()]);
    assert!(!up.spawn());
    up.wait_for_death();
    assert!(up.log().contains("noeviction"), "{}", up.log());
}
