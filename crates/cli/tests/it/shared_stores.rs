//! `up` on the stores that processes can share: Postgres holds the truth, Redis the order.

use std::process::Command;

use crate::installation::{Installation, KEY};
use serde_json::{Value, json};
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

/// What `doctor` finds of shared stores: the exit code, and verdict and detail by check.
fn doctor(up: &Installation, stores: &[&str]) -> (Option<i32>, Vec<(String, String, String)>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
    command.args(["doctor", "--json"]).args(stores).env_clear().env("LONGSHORE_URL", &up.url).env("LONGSHORE_KEY", KEY);
    let output = command.output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
    let checks = found["checks"].as_array().unwrap().iter();
    (output.status.code(), checks.map(|one| (text(one, "check"), text(one, "verdict"), text(one, "detail"))).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doctor_looks_into_shared_stores() {
    let folder = tempfile::tempdir().unwrap();
    let redis = RedisServer::start();
    let database = tokio::task::spawn_blocking(|| PostgresServer::shared().database()).await.unwrap();
    let url = redis.url();
    let stores = ["--journal", database.as_str(), "--dispatcher", &url];
    let up = Installation::start(folder.path(), &stores).await;
    let verdict = |checks: &[(String, String, String)], name: &str| {
        let found = checks.iter().find(|(check, ..)| check == name);
        found
            .map(|(_, verdict, detail)| (verdict.clone(), detail.clone()))
            .unwrap_or_else(|| panic!("{name}: {checks:?}"))
    };
    let (code, checks) = doctor(&up, &stores);
    assert_eq!(code, Some(0), "{checks:?}");
    for (check, expected, says) in [
        ("journal", "ok", "Postgres"),
        ("clock of Postgres", "ok", ""),
        ("dispatcher", "ok", "noeviction"),
        ("dispatcher's memory", "warn", "not kept"),
        ("clock of Redis", "ok", ""),
        ("orphaned keys", "ok", "none"),
        ("clock of the server", "ok", ""),
        ("versions", "ok", env!("CARGO_PKG_VERSION")),
    ] {
        let (found, detail) = verdict(&checks, check);
        assert!(found == expected && detail.contains(says), "{check}: {found} {detail}");
    }
    redis.command(&["SET", "longshore1:{all}:q", "1"]);
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let (code, checks) = doctor(&up, &stores);
    assert_eq!(code, Some(1));
    let (found, detail) = verdict(&checks, "dispatcher");
    assert!(found == "fail" && detail.contains("allkeys-lru"), "{detail}");
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let (code, checks) = doctor(&up, &stores);
    assert_eq!((code, verdict(&checks, "orphaned keys").0.as_str()), (Some(0), "warn"), "{checks:?}");
}
