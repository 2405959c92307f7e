//! Lists over more jobs than one answer may look at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // clippy spares only functions with #[test]

mod server;

use bytes::Bytes;
use queue_core::{
    ids::JobId,
    job::{Kind, NewJob},
    journal::ACCEPT_MAX_JOBS,
};
use serde_json::json;
use server::{Hand, Server};

/// Commits due jobs behind the dispatcher's back, so that no worker gets them.
async fn fill(server: &Server, jobs: usize) {
    let now = server.stores.clock.now();
    let job = || NewJob {
        id: JobId::generate(),
        tenant: "default".into(),
        queue: "backlog".into(),
        kind: Kind::Probe,
        target: "probe".into(),
        priority: 5,
        run_at: now,
        start_by: None,
        deadline: None,
        timeout_ms: None,
        max_attempts: 3,
        unique_key: None,
        concurrency_key: None,
        operation: None,
        batch_id: None,
        tags: Vec::new(),
        request_id: None,
        traceparent: None,
        idempotency: None,
        payload: Bytes::from_static(b"{}"),
        fallback: vec![],
        key_id: None,
        max_cost: None,
        accepted_at: now,
    };
    for _ in 0..jobs.div_ceil(ACCEPT_MAX_JOBS) {
        let part = (0..jobs.min(ACCEPT_MAX_JOBS)).map(|_| job()).collect();
        server.stores.journal.accept(part).await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_looks_at_so_many_rows_and_says_how_to_go_on() {
    let server = Server::start().await;
    let oldest = server.submit(json!({"queue": "rare"})).await;
    let mut hand = Hand::join(&server.stores).await;
    let first = hand.claim().await;
    hand.bury(first, "done").await;
    fill(&server, 30_000).await;
    // Behind 30,000 jobs that were due before it.
    let running = server.submit(json!({"queue": "late"})).await;
    let _held = hand.claim().await;
    for query in ["state=running", "state=running&queue=late"] {
        let page = server.get(&format!("/v1/jobs?{query}")).await.expect(200);
        assert_eq!((&page["jobs"][0]["id"], page.get("incomplete")), (&json!(running), None), "{query}");
    }
    let none = server.get("/v1/jobs?state=running&queue=backlog").await.expect(200);
    assert_eq!(none, json!({"jobs": []}));

    fill(&server, 30_000).await;
    let page = server.get("/v1/jobs?queue=rare").await.expect(200);
    assert_eq!(page["jobs"], json!([]));
    let next = format!("/v1/jobs?queue=rare&cursor={}", page["next_cursor"].as_str().unwrap());
    let page = server.get(&next).await.expect(200);
    assert_eq!((&page["jobs"][0]["id"], page.get("next_cursor")), (&json!(oldest), None));
}

#[tokio::test]
async fn a_search_for_running_jobs_says_when_it_has_not_found_all() {
    let server = Server::start().await;
    fill(&server, 50_000).await;
    server.submit(json!({})).await;
    let mut hand = Hand::join(&server.stores).await;
    let _held = hand.claim().await;
    let page = server.get("/v1/jobs?state=running").await.expect(200);
    assert_eq!(page, json!({"jobs": [], "incomplete": true}));
}
