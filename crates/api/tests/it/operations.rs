//! Operations over HTTP: kept, shown, listed, ended; what they do is the scheduler's.

use crate::server::Server;
use reqwest::Method;
use serde_json::{Value, json};

async fn begin(server: &Server, order: Value) -> crate::server::Answer {
    server.send(server.request(Method::POST, "/v1/operations").json(&order)).await
}

#[tokio::test]
async fn an_operation_is_kept_shown_and_aborted() {
    let server = Server::start().await;
    let order = json!({"action": "redrive", "filter": "queue = bulk and ended_age > 1h", "rate_per_s": 20,
                       "max_cost_usd": "1.50", "max_jobs": 9, "reason": "their outage is over"});
    let answer = begin(&server, order.clone()).await;
    let operation = answer.expect(202);
    let id = operation["id"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("/v1/operations/{id}"));
    for (name, value) in [
        ("action", json!("redrive")),
        ("queue", json!("bulk")),
        ("state", json!("running")),
        ("rate_per_s", json!(20)),
        ("max_jobs", json!(9)),
        ("max_cost_usd", json!("1.50")),
        ("reason", json!("their outage is over")),
        ("matched", json!(0)),
        ("done", json!(0)),
        ("estimated_cost_usd", json!("0.00")),
        ("dry_run", json!(false)),
    ] {
        assert_eq!(operation[name], value, "{name}");
    }
    let filter = operation["filter"].as_str().unwrap();
    assert!(filter.starts_with("queue = bulk and finished_at < 2") && filter.ends_with('Z'), "frozen: {filter}");
    assert_eq!(operation["asked_by"], server.key[4..12]);

    let refused = begin(&server, order.clone()).await.problem(409);
    assert_eq!(refused["type"], "urn:longshore:problem:operation-running");
    assert!(refused["detail"].as_str().unwrap().contains(id), "{refused}");
    let other = begin(&server, json!({"action": "redrive", "filter": "queue = other"})).await.expect(202);
    let page = server.get("/v1/operations?limit=1").await.expect(200);
    assert_eq!(page["operations"][0]["id"], other["id"]);
    let next = format!("/v1/operations?running=true&cursor={}", page["next_cursor"].as_str().unwrap());
    let page = server.get(&next).await.expect(200);
    assert_eq!((&page["operations"][0]["id"], page.get("next_cursor")), (&json!(id), None));

    let path = format!("/v1/operations/{id}");
    assert_eq!(server.get(&path).await.expect(200), operation);
    let aborted = server.send(server.request(Method::DELETE, &path)).await.expect(200);
    assert_eq!(aborted["state"], "aborted");
    assert_eq!(server.get(&format!("{path}?wait=30s")).await.expect(200), aborted, "it has ended: nobody waits");
    let again = server.send(server.request(Method::DELETE, &path)).await.problem(409);
    assert_eq!(again["type"], "urn:longshore:problem:operation-ended");
    begin(&server, order).await.expect(202);
}

#[tokio::test]
async fn what_is_wrong_with_an_order_is_said() {
    let server = Server::start().await;
    for (order, pointer) in [
        (json!({"action": "redrive", "filter": ""}), "/filter"),
        (json!({"action": "redrive"}), "/filter"),
        (json!({"action": "forget", "filter": "state = dead"}), "/action"),
        (json!({"action": "delete", "filter": "state = running"}), "/filter"),
        (json!({"action": "drain", "filter": "state = dead"}), "/to"),
        (json!({"action": "redrive", "filter": "state = dead", "max_cost_usd": "a lot"}), "/max_cost_usd"),
    ] {
        let problem = begin(&server, order.clone()).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{order}: {problem}");
    }
    server.get("/v1/operations/none").await.problem(404);
    server.get("/v1/operations?cursor=c1").await.problem(422);
    let nobody = "/v1/operations/01890000-0000-7000-8000-000000000000";
    server.get(nobody).await.problem(404);
    server.send(server.request(Method::DELETE, nobody)).await.problem(404);
}
