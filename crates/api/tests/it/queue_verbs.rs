//! What operators do with queues and single dead letters: run one empty, look at one closely, mend a payload.

use crate::server::{Hand, Server};
use reqwest::Method;
use serde_json::{Value, json};

async fn patch(server: &Server, queue: &str, body: Value) -> crate::server::Answer {
    server.send(server.request(Method::PATCH, &format!("/v1/queues/{queue}")).json(&body)).await
}

async fn submit(server: &Server, queue: &str) -> crate::server::Answer {
    let job = json!({"queue": queue, "kind": "probe", "payload": {}});
    server.send(server.request(Method::POST, "/v1/jobs").json(&job)).await
}

#[tokio::test]
async fn a_queue_that_runs_empty_takes_no_jobs_until_it_is_resumed() {
    let server = Server::start().await;
    submit(&server, "q").await.expect(202);
    let drained = patch(&server, "q", json!({"draining": true})).await.expect(200);
    assert_eq!((&drained["draining"], &drained["metrics"]["waiting"]), (&json!(true), &json!(1)));
    let refused = submit(&server, "q").await.problem(409);
    assert_eq!(refused["type"], "urn:longshore:problem:queue-draining");
    assert_eq!(refused["errors"][0]["pointer"], "/queue");
    submit(&server, "other").await.expect(202);
    let job = |queue: &str| json!({"queue": queue, "kind": "probe", "payload": {}});
    let bulk = server.request(Method::POST, "/v1/jobs/bulk").json(&json!([job("q"), job("other")]));
    let answer = server.send(bulk).await.expect(200);
    assert_eq!(answer["jobs"][0]["error"]["status"], 409);
    assert!(answer["jobs"][1]["id"].is_string(), "each item by itself: {answer}");
    patch(&server, "q", json!({"draining": false})).await.expect(200);
    submit(&server, "q").await.expect(202);
}

#[tokio::test]
async fn a_queue_is_looked_at_closely() {
    let server = Server::start().await;
    for _ in 0..3 {
        submit(&server, "q").await.expect(202);
    }
    let seen = server.get("/v1/queues/q/inspect?over=50ms").await.expect(200);
    assert_eq!((&seen["queue"], &seen["metrics"]["waiting"]), (&json!("q"), &json!(3)));
    assert_eq!((&seen["difference"]["journal"], &seen["difference"]["dispatcher"]), (&json!(3), &json!(3)));
    assert_eq!((&seen["difference"]["unknown"], &seen["difference"]["complete"]), (&json!(0), &json!(true)));
    assert_eq!(seen["lanes"], json!([{"tenant": "default", "target": "probe", "jobs": 3}]));
    assert_eq!(seen["tenants"], json!([{"tenant": "default", "jobs": 3}]));
    assert_eq!(seen["rates"]["ended"], json!(0.0));
    assert!(seen.get("eta_seconds").is_none(), "nothing ends: {seen}");
    assert!(seen["rates"]["over_seconds"].as_f64().unwrap() >= 0.05);
    server.get("/v1/queues/none/inspect?over=50ms").await.problem(404);
    server.get("/v1/queues/q/inspect?over=2h").await.problem(422);
}

#[tokio::test]
async fn a_dead_letter_gets_another_payload_with_its_other_life() {
    let server = Server::start().await;
    let id = submit(&server, "q").await.expect(202)["id"].as_str().unwrap().to_owned();
    let redrive = async |body: &Value| {
        server.send(server.request(Method::POST, &format!("/v1/dead-letters/{id}/redrive")).json(body)).await
    };
    let mut hand = Hand::join(&server.stores).await;
    let mended = json!({"payload": {"sleep_ms": 7}});
    redrive(&mended).await.problem(409);
    let held = hand.claim().await;
    hand.bury(held, "no").await;
    let wrong = redrive(&json!({"payload": {"sleep_ms": "long"}})).await.problem(422);
    assert_eq!(wrong["errors"][0]["pointer"], "/payload/sleep_ms");
    redrive(&json!({"priority": 3})).await.problem(422);
    assert_eq!(server.get(&format!("/v1/jobs/{id}")).await.expect(200)["state"], "dead", "nothing has happened yet");
    let live = redrive(&mended).await.expect(200);
    assert_eq!((&live["state"], &live["redrives"], &live["attempts"]), (&json!("ready"), &json!(1), &json!(0)));
    let held = hand.claim().await;
    hand.bury(held, "no").await;
    let letter = server.get(&format!("/v1/dead-letters/{id}")).await.expect(200);
    assert_eq!(letter["payload"], json!({"sleep_ms": 7}));
    assert_eq!(letter["history"].as_array().unwrap().len(), 2, "its lineage: {letter}");
}
