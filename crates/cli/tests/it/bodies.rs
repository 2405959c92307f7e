//! Large payloads and results lie in objects, and nobody who reads them can tell; one that is not what was written is a dead letter.

use std::path::{Path, PathBuf};

use crate::installation::Installation;
use serde_json::{Value, json};

/// More than what lies in the journal.
const LARGE: usize = 300_000;

/// The bodies that lie outside.
fn bodies(data: &Path) -> Vec<PathBuf> {
    fn below(folder: &Path) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
    }
    below(&data.join("objects/bodies"))
}

/// The largest payload and result of the file.
fn largest(data: &Path) -> (i64, i64) {
    let file = rusqlite::Connection::open(data.join("journal.db")).unwrap();
    let of = |table: &str| {
        let query = format!("SELECT coalesce(max(length(body)), 0) FROM {table}");
        file.query_row(&query, [], |row| row.get(0)).unwrap()
    };
    (of("payloads"), of("results"))
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_lie_outside_and_are_read_as_if_they_did_not() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let up = Installation::start(&data, &[]).await;
    let large = json!({"pad": "x".repeat(LARGE), "result_bytes": LARGE});
    let id = up.probe(large.clone()).await;
    let ended = up.ended(&id).await;
    assert_eq!((&ended["state"], &ended["result"]), (&json!("succeeded"), &Value::Null), "{ended}");
    let result = up.get(ended["result_url"].as_str().unwrap()).await;
    assert!(result.to_string().len() >= LARGE, "{} bytes", result.to_string().len());
    assert_eq!(bodies(&data).len(), 2);
    let (payload, result) = largest(&data);
    assert!(payload < 1_000 && result < 1_000, "{payload} and {result}");

    // A repeated request is answered, and leaves nothing beside the first one's.
    let line = json!([{"kind": "probe", "tenant": "acme", "payload": large}, {"kind": "probe", "tenant": "acme", "payload": {}}]);
    let bulk = async || up.post("/v1/jobs/bulk", &line).await["jobs"].as_array().unwrap().clone();
    for job in bulk().await {
        let ended = up.ended(job["id"].as_str().unwrap()).await;
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
    assert_eq!(bodies(&data).len(), 4);
    let long = json!({"pad": "x".repeat(LARGE), "sleep_ms": 3_600_000});
    let unique = json!({"kind": "probe", "unique_key": "one", "payload": long});
    assert_eq!(up.try_submit(&unique).await.0, 202);
    assert_eq!(up.try_submit(&unique).await.0, 409);
    assert_eq!(bodies(&data).len(), 5, "what was refused is not kept");

    // A dead letter shows its payload, and lives again with another one.
    let fails = json!({"pad": "y".repeat(LARGE), "fail": "permanent"});
    let dead = up.probe(fails).await;
    assert_eq!(up.ended(&dead).await["state"], "dead");
    let path = format!("/v1/dead-letters/{dead}");
    up.post(&format!("{path}/redrive"), &json!({"payload": {"pad": "z".repeat(LARGE)}})).await;
    assert_eq!(up.ended(&dead).await["state"], "succeeded");

    // One that is not what was written ends its job.
    let before = bodies(&data);
    up.patch("/v1/queues/default", &json!({"paused": true})).await;
    let damaged = up.probe(json!({"pad": "w".repeat(LARGE)})).await;
    let file = bodies(&data).into_iter().find(|file| !before.contains(file)).unwrap();
    std::fs::write(file, "other").unwrap();
    up.patch("/v1/queues/default", &json!({"paused": false})).await;
    let ended = up.ended(&damaged).await;
    assert_eq!((&ended["state"], &ended["error"]["code"]), (&json!("dead"), &json!("payload_damaged")), "{ended}");

    up.command(&["tenant", "erase", "acme", "--yes", "--wait", "60s"]);
    assert!(bodies(&data).iter().all(|file| !file.to_string_lossy().contains("acme")));
}
