//! The audit log through the binary: what was done is listed, exported and checked, and a row that was changed is named.

use std::process::Command;

use crate::installation::{Installation, KEY};
use serde_json::{Value, json};

fn cli(up: &Installation, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_longshore"))
        .arg("--json")
        .args(arguments)
        .env_clear()
        .envs([("LONGSHORE_URL", up.url.as_str()), ("LONGSHORE_KEY", KEY)])
        .current_dir(&up.data)
        .output()
        .unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_names_the_row_that_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    let up = Installation::start(folder.path(), &[]).await;
    for n in 1..=5 {
        up.patch("/v1/queues/default", &json!({"concurrency": n})).await;
    }
    let (code, listed) = cli(&up, &["audit", "list", "--action", "PATCH", "--limit", "3"]);
    assert_eq!(code, Some(0), "{listed}");
    let seqs: Vec<_> = listed["rows"].as_array().unwrap().iter().map(|row| row["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, [5, 4, 3]);
    assert_eq!(listed["rows"][0]["detail"]["before"]["concurrency"], 4, "{listed}");
    let (code, verified) = cli(&up, &["audit", "verify"]);
    assert_eq!((code, &verified["ok"], &verified["rows"]), (Some(0), &json!(true), &json!(5)), "{verified}");
    let copy = folder.path().join("audit.jsonl");
    let copy = copy.to_str().unwrap();
    assert_eq!(cli(&up, &["audit", "export", copy]).0, Some(0));
    assert_eq!(cli(&up, &["audit", "verify", "--file", copy]).0, Some(0));

    let file = rusqlite::Connection::open(folder.path().join("journal.db")).unwrap();
    file.execute_batch("DROP TRIGGER audit_log_changed; UPDATE audit_log SET actor = 'somebody' WHERE seq = 2")
        .unwrap();
    let (code, verified) = cli(&up, &["audit", "verify"]);
    assert_eq!(
        (code, &verified["ok"], &verified["tampered"]["seq"]),
        (Some(1), &json!(false), &json!(2)),
        "{verified}"
    );
    // The copy is as it was.
    assert_eq!(cli(&up, &["audit", "verify", "--file", copy]).0, Some(0));
    assert_eq!(cli(&up, &["audit", "verify", "--file", copy, "--since", copy]).0, Some(0));
    let shorter = folder.path().join("shorter.jsonl");
    let text = std::fs::read_to_string(copy).unwrap();
    let mut rows: Vec<&str> = text.lines().collect();
    let end: Value = serde_json::from_str(rows[3]).unwrap();
    let end = json!({"head": {"day": end["day"], "seq": end["seq"], "hash": end["hash"]}}).to_string();
    rows.splice(4.., [end.as_str()]);
    std::fs::write(&shorter, rows.join("\n")).unwrap();
    let shorter = shorter.to_str().unwrap();
    assert_eq!(cli(&up, &["audit", "verify", "--file", shorter]).0, Some(0), "it fits in itself");
    let (code, verified) = cli(&up, &["audit", "verify", "--file", shorter, "--since", copy]);
    assert_eq!((code, &verified["tampered"]["seq"]), (Some(1), &json!(5)), "and not with what was known: {verified}");
    let text = std::fs::read_to_string(copy).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 6, "five rows and the end");
    std::fs::write(copy, lines[..4].join("\n") + "\n" + lines[5]).unwrap();
    let (code, verified) = cli(&up, &["audit", "verify", "--file", copy]);
    assert_eq!((code, &verified["tampered"]["seq"]), (Some(1), &json!(5)), "its end is missing: {verified}");
}
