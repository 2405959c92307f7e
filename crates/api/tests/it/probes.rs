//! What probes are told: that a loop stands still, that a process leaves, and nothing of stores that are away where they ask for life.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::server::{PATIENCE, Server, metrics};
use api::{Monitor, serve_monitor};
use async_trait::async_trait;
use queue_core::{progress::Pulse, stores::Check};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A pulse that is silent as soon as it has beaten.
fn impatient() -> Arc<Pulse> {
    Arc::new(Pulse::new("claim loop", Duration::ZERO))
}

/// Until the loop has stood still for longer than it may.
async fn until_still(pulse: &Pulse) {
    let still = async {
        while pulse.check().is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, still).await.unwrap();
}

#[tokio::test]
async fn life_is_the_loops_progress_and_nothing_else() {
    let pulse = impatient();
    let loops = vec![pulse.clone()];
    let server = Server::start_with(|api| api.loops = loops).await;
    assert_eq!(server.get("/livez").await.expect(200), json!({"status": "ok"}), "a loop that has not begun");
    pulse.beat();
    until_still(&pulse).await;
    let problem = server.get("/livez").await.problem(503);
    assert!(problem["detail"].as_str().unwrap().contains("the claim loop has stood still"), "{problem}");
    server.get("/readyz").await.expect(200);
    let report = server.get("/health").await.expect(200);
    assert!(report["checks"]["loops"].as_str().unwrap().contains("claim loop"), "{report}");
    pulse.rest();
    server.get("/livez").await.expect(200);
}

#[tokio::test]
async fn a_server_that_leaves_says_so_and_serves_on() {
    let leaving = CancellationToken::new();
    let told = leaving.clone();
    let mut server = Server::start_with(|api| api.leaving = told).await;
    server.get("/readyz").await.expect(200);
    assert_eq!(server.get("/livez").await.header("connection"), "");
    leaving.cancel();
    server.get("/readyz").await.problem(503);
    let submitted = server.post("/v1/jobs", &json!({"kind": "probe", "payload": {}})).await;
    assert_eq!((submitted.status, submitted.header("connection")), (StatusCode::ACCEPTED, "close"));
    server.get("/livez").await.expect(200);
    server.stop().await;
}

/// A store that can be away.
struct Store(AtomicBool);

#[async_trait]
impl Check for Store {
    fn name(&self) -> &str {
        "journal"
    }

    async fn check(&self) -> Result<(), String> {
        if self.0.load(Ordering::SeqCst) { Ok(()) } else { Err("it is away".into()) }
    }
}

/// The monitor's answer, once it is this: it looks at its stores once a second.
async fn until(url: &str, path: &str, status: u16) -> Value {
    let http = reqwest::Client::new();
    let ask = async {
        loop {
            let answer = http.request(Method::GET, format!("{url}{path}")).send().await.unwrap();
            if answer.status().as_u16() == status {
                return answer.json().await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ask).await.unwrap_or_else(|_| panic!("{path} never answers {status}"))
}

#[tokio::test]
async fn a_role_without_the_api_has_the_same_probes() {
    let (store, pulse, shutdown) = (Arc::new(Store(AtomicBool::new(false))), impatient(), CancellationToken::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let monitor = Monitor { metrics: metrics(), needs: vec![store.clone()], loops: vec![pulse.clone()] };
    let serving = tokio::spawn(serve_monitor(listener, monitor, shutdown.clone()));

    until(&url, "/livez", 200).await;
    for path in ["/readyz", "/startupz"] {
        let problem = until(&url, path, 503).await;
        assert_eq!(problem["detail"], "journal: it is away");
    }
    let report = until(&url, "/health", 503).await;
    assert_eq!((&report["status"], &report["checks"]["journal"]), (&json!("unhealthy"), &json!("it is away")));
    store.0.store(true, Ordering::SeqCst);
    for path in ["/readyz", "/startupz"] {
        until(&url, path, 200).await;
    }
    let report = until(&url, "/health", 200).await;
    assert_eq!((&report["status"], &report["checks"]), (&json!("healthy"), &json!({"journal": "ok", "loops": "ok"})));
    assert!(report["details"]["journal"]["latency_ms"].is_f64(), "{report}");
    store.0.store(false, Ordering::SeqCst);
    until(&url, "/readyz", 503).await;
    until(&url, "/startupz", 200).await;
    until(&url, "/livez", 200).await;
    pulse.beat();
    until_still(&pulse).await;
    until(&url, "/livez", 503).await;
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap();
}
