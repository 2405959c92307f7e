//! What a process tells of itself: its lines, whose level an operator changes, and a smoke test of the whole.

use std::process::Command;

use crate::installation::{Installation, KEY};
use serde_json::{Value, json};

/// The lines of a log, each of which is an object.
fn lines(up: &Installation) -> Vec<Value> {
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    up.log().lines().map(read).collect()
}

fn said(up: &Installation, message: &str) -> Vec<Value> {
    lines(up).into_iter().filter(|line| line["message"] == message).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_followed_from_the_callers_request_to_the_workers_line() {
    let folder = tempfile::tempdir().unwrap();
    let up = Installation::start(&folder.path().join("data"), &[]).await;
    let http = reqwest::Client::new();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let submit = |job: Value| {
        http.post(format!("{}/v1/jobs", up.url))
            .bearer_auth(KEY)
            .header("x-request-id", "callers-own-7")
            .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
            .json(&job)
            .send()
    };
    let chat = json!({"kind": "llm", "tenant": "default", "operation": "greet", "queue": "front",
                      "payload": {"messages": [{"role": "user", "content": "canary-in-a-prompt"}]}});
    let answer = submit(chat).await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "callers-own-7");
    let id = answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    up.ended(&id).await;
    let dead = submit(json!({"kind": "probe", "payload": {"fail": "permanent"}})).await.unwrap();
    let dead = dead.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    up.ended(&dead).await;
    let refused = submit(json!({"kind": "nothing"})).await.unwrap();
    assert_eq!(refused.status().as_u16(), 422);
    for page in ["/livez", "/readyz", "/startupz", "/health", "/metrics"] {
        up.page(page).await;
    }

    let attempts = said(&up, "attempt ended");
    let line = attempts.iter().find(|line| line["job_id"] == json!(id)).unwrap();
    for (name, value) in [
        ("level", json!("INFO")),
        ("request_id", json!("callers-own-7")),
        ("trace_id", json!(trace)),
        ("tenant", json!("default")),
        ("queue", json!("front")),
        ("kind", json!("llm")),
        ("operation", json!("greet")),
        ("attempt", json!(1)),
        ("outcome", json!("succeed")),
    ] {
        assert_eq!(line[name], value, "{name} of {line}");
    }
    let job = up.get(&format!("/v1/jobs/{id}")).await;
    let usage = &job["usage"];
    assert_eq!((&line["tokens_in"], &line["tokens_out"]), (&usage["tokens_in"], &usage["tokens_out"]), "{job}");
    assert_eq!(
        line["tokens"].as_u64(),
        Some(usage["tokens_in"].as_u64().unwrap() + usage["tokens_out"].as_u64().unwrap())
    );
    assert_eq!(line["cost_usd"], job["cost_usd"], "{line}");
    assert!(line["duration_ms"].is_i64() && line["timestamp"].is_string(), "{line}");
    let line = attempts.iter().find(|line| line["job_id"] == json!(dead)).unwrap();
    assert_eq!((&line["outcome"], &line["error_class"]), (&json!("dead"), &json!("permanent")), "{line}");

    let requests = said(&up, "request");
    let of = |status: u16| requests.iter().filter(|line| line["status"] == json!(status)).collect::<Vec<_>>();
    assert_eq!((of(202).len(), of(422).len()), (2, 1), "{requests:?}");
    let line = of(202)[0];
    assert_eq!(
        (&line["route"], &line["request_id"], &line["trace_id"], &line["client"]),
        (&json!("/v1/jobs"), &json!("callers-own-7"), &json!(trace), &json!("127.0.0.0/24"))
    );
    assert_eq!(of(200).len(), 0, "probes, scrapes and reads that end well: {requests:?}");
    assert!(!up.log().contains("canary"), "{}", up.log());

    // An operator looks closer for a while.
    assert!(up.command(&["log-level", "get"]).contains("told at its start"));
    assert!(up.command(&["log-level", "set", "debug,hyper=off", "--for", "8s"]).contains("debug,hyper=off until"));
    up.until("it looks closer", async |up| {
        up.get("/v1/queues").await;
        said(up, "request").iter().any(|line| line["level"] == "DEBUG" && line["route"] == "/v1/queues")
    })
    .await;
    let changes = || said(&up, "the level of the log changes");
    up.until("it goes back by itself", async |_| changes().len() == 2).await;
    assert_eq!((&changes()[0]["filter"], &changes()[1]["filter"]), (&json!("debug,hyper=off"), &json!("info")));
    assert!(up.command(&["log-level", "reset"]).contains("told at its start"));

    smoke(&up);
}

/// `longshore smoke` against something that works, and against nothing.
fn smoke(up: &Installation) {
    let run = |url: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
        command.args(["smoke", url]).args(more).env_clear().env("LONGSHORE_KEY", KEY);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = run(&up.url, &["--json"]);
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &report["ok"]), (Some(0), &json!(true)), "{report}");
    let steps: Vec<_> = report["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["ready", "metrics", "submit", "result", "counted"]);
    assert!(report["steps"][4]["detail"].as_str().unwrap().contains("more than before"), "{report}");
    let (code, said) = run(&up.url, &["--prompt", "Say hello"]);
    assert!(code == Some(0) && said.contains("works") && said.contains("a chat with the default model"), "{said}");
    // A queue that nobody serves: the time is over before there is a result.
    let pause = up.command(&["queue", "pause", "nobodys"]);
    assert!(!pause.is_empty());
    let (code, said) = run(&up.url, &["--queue", "nobodys", "--timeout", "1s"]);
    assert!(code == Some(1) && said.contains("FAILED  result"), "{code:?} {said}");
    let (code, said) = run("http://127.0.0.1:1", &["--json"]);
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &report["steps"][0]["ok"]), (Some(1), &json!(false)), "{report}");
}
