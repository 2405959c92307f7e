//! Webhooks through the binary: an endpoint is made, a job ends, the receiver is told, the log says so.

use std::{process::Command, time::Duration};

use crate::installation::{Installation, KEY};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

/// Longer than anything here takes on a machine that stalls.
const PATIENCE: Duration = Duration::from_secs(120);

/// Answers 200 and hands on what came.
async fn receiver() -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (messages, got) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = String::new();
            let mut piece = [0; 4_096];
            while !is_whole(&text) {
                let read = stream.read(&mut piece).await.unwrap_or_default();
                text.push_str(&String::from_utf8_lossy(&piece[..read]));
                if read == 0 {
                    break;
                }
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
            let _ = messages.send(text);
        }
    });
    (url, got)
}

/// Whether a request has all of its body.
fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or_default();
    length.parse().is_ok_and(|length: usize| body.len() >= length)
}

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

fn done(up: &Installation, arguments: &[&str]) -> Value {
    let (code, said) = cli(up, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_is_told_and_the_log_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (url, mut got) = receiver().await;
    let allow = [("LONGSHORE_WEBHOOKS_ALLOW_HTTP", "true"), ("LONGSHORE_WEBHOOKS_ALLOW_NETWORKS", "127.0.0.0/8")];
    let up = Installation::start_in(folder.path(), &[], &allow).await;
    let made = done(&up, &["webhook", "create", &url, "--event", "job.dead", "--tenant", "default"]);
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    assert!(secret.starts_with("whsec_"));
    let own = json!({"kind": "probe", "payload": {"fail": "permanent"}, "webhook": {"url": url}});
    let job = up.post("/v1/jobs", &own).await;
    let mut messages = Vec::new();
    for _ in 0..2 {
        messages.push(tokio::time::timeout(PATIENCE, got.recv()).await.expect("a message").unwrap());
    }
    for message in &messages {
        assert!(
            message.contains("\r\nwebhook-signature: v1,") && message.contains("\"type\":\"job.dead\""),
            "{message}"
        );
        assert!(message.contains(job["id"].as_str().unwrap()), "{message}");
    }
    // The note follows the answer: wait for the very row.
    up.until("both are delivered", async |up| {
        let page = up.get("/v1/webhook-deliveries?state=delivered").await;
        page["deliveries"].as_array().is_some_and(|deliveries| deliveries.len() == 2)
    })
    .await;
    let log = done(&up, &["webhook", "deliveries", "--webhook", id]);
    let [delivery] = &log["deliveries"].as_array().unwrap()[..] else { panic!("{log}") };
    assert_eq!((&delivery["state"], &delivery["last"]), (&json!("delivered"), &json!("200")));
    let delivery = delivery["id"].as_str().unwrap();
    let detail = done(&up, &["webhook", "deliveries", "--show", delivery]);
    assert_eq!(detail["history"][0]["status"], 200);
    done(&up, &["webhook", "replay", delivery]);
    let again = tokio::time::timeout(PATIENCE, got.recv()).await.expect("the message again").unwrap();
    let line = |message: &str| message.lines().find(|line| line.starts_with("webhook-id: ")).map(str::to_owned);
    assert!(messages.iter().any(|message| line(message) == line(&again)), "with the same id");
    let rotated = done(&up, &["webhook", "rotate-secret", id, "--overlap", "1h"]);
    assert_ne!(rotated["secret"], secret);
    done(&up, &["webhook", "rotate-secret", "--tenant", "default"]);
    assert_eq!(done(&up, &["webhook", "disable", id, "--reason", "moving"])["reason"], "moving");
    assert_eq!(done(&up, &["webhook", "list"])["webhooks"][0]["enabled"], false);
    done(&up, &["webhook", "enable", id]);
    done(&up, &["webhook", "delete", id]);
    assert_eq!(cli(&up, &["webhook", "delete", id]).0, Some(3));
    assert_eq!(cli(&up, &["webhook", "create", "http://10.0.0.1/"]).0, Some(2));
    let metrics = up.page("/metrics").await;
    assert!(metrics.contains("longshore_webhook_deliveries_total{outcome=\"delivered\"}"), "{metrics}");
    let said = up.log();
    assert!(!said.contains("whsec_") && !said.contains("/hook"), "{said}");
}
