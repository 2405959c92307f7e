//! `up` on the stores that processes can share: Postgres holds the truth, Redis the order.

mod installation;

use installation::Installation;
use serde_json::json;
use testkit::{PostgresServer, RedisServer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_run_on_postgres_and_redis_and_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let redis = RedisServer::start();
    let database = tokio::task::spawn_blocking(|| PostgresServer::shared().database()).await.unwrap();
    let stores = ["--journal", &database, "--dispatcher", &redis.url()];
    let mut up = Installation::start(folder.path(), &stores).await;
    let llm = up.submit(&json!({"kind": "llm", "payload": {"messages": [{"role": "user", "content": "Hello"}]}})).await;
    let job = up.ended(&llm).await;
    assert_eq!((&job["state"], &job["cost_usd"]), (&json!("succeeded"), &json!("0.00")), "{job}");
    let mut waiting = vec![];
    for _ in 0..50 {
        waiting.push(up.probe(json!({"sleep_ms": 20})).await);
    }
    up.kill();
    up.start_again().await;
    for id in waiting {
        let job = up.ended(&id).await;
        assert_eq!(job["state"], "succeeded", "{job}\n{}", up.log());
    }
}
