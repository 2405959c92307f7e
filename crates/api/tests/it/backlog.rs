//! The cap on a tenant's live jobs: 429 beyond it, one by one, in bulk, and many at once.

use crate::server::Server;
use queue_core::journal::TenantSettings;
use reqwest::Method;
use serde_json::{Value, json};

/// A server whose tenant may have that many live jobs.
async fn capped(backlog_max: u64) -> Server {
    let server = Server::start().await;
    let settings = TenantSettings { backlog_max: Some(backlog_max), ..TenantSettings::default() };
    server.stores.catalog.set_tenant(&"default".into(), settings).await.unwrap();
    server
}

fn probe(n: usize) -> Value {
    json!({"kind": "probe", "payload": {"sleep_ms": 0}, "operation": n.to_string()})
}

async fn live(server: &Server) -> u64 {
    server.stores.catalog.backlog(&"default".into()).await.unwrap().live
}

fn check(problem: &Value) {
    assert_eq!((&problem["type"], &problem["status"]), (&json!("urn:longshore:problem:backlog-full"), &json!(429)));
    assert_eq!(problem["backlog"], json!({"tenant": "default", "max": 3, "live": 3}));
    assert_eq!(problem["retry_after_seconds"], 2);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("`default`") && detail.contains("3 live jobs"), "{detail}");
}

#[tokio::test]
async fn a_submit_beyond_the_cap_is_refused_until_a_job_has_ended() {
    let server = capped(3).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(server.submit(json!({})).await);
    }
    let refused = server.post("/v1/jobs", &probe(4)).await;
    check(&refused.problem(429));
    assert_eq!(refused.header("retry-after"), "2");
    assert_eq!(live(&server).await, 3);

    server.post(&format!("/v1/jobs/{}/cancel", ids[0]), &json!({})).await;
    assert_eq!(live(&server).await, 2);
    // The number is read anew within a second.
    let let_in = async {
        loop {
            let answer = server.post("/v1/jobs", &probe(4)).await;
            if answer.status != 429 {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), let_in).await.unwrap().expect(202);
    server.post("/v1/jobs", &probe(5)).await.problem(429);
}

#[tokio::test]
async fn a_bulk_lets_the_first_jobs_in_and_answers_each() {
    let server = capped(3).await;
    server.submit(json!({})).await;
    let mut jobs: Vec<Value> = (0..5).map(probe).collect();
    jobs[1] = json!({"kind": "nothing"});
    let answer = server.post("/v1/jobs/bulk", &Value::Array(jobs.clone())).await;
    assert_eq!(answer.header("retry-after"), "2");
    let answer = answer.expect(200);
    let items = answer["jobs"].as_array().unwrap();
    for accepted in [0, 2] {
        assert_eq!(items[accepted]["state"], "ready", "{answer}");
    }
    assert_eq!(items[1]["error"]["status"], 422, "a wrong job takes no room");
    check(&items[3]["error"]);
    check(&items[4]["error"]);
    assert_eq!(live(&server).await, 3);

    let all = server.post("/v1/jobs/bulk", &Value::Array(jobs)).await.expect(200);
    let refused = all["jobs"].as_array().unwrap().iter().filter(|item| item["error"]["status"] == 429).count();
    assert_eq!(refused, 4, "{all}");
}

#[tokio::test]
async fn many_at_once_do_not_pass_the_cap() {
    let server = capped(50).await;
    let bulk = Value::Array((0..20).map(probe).collect());
    let (single, bulks) = (probe(0), (0..5).map(|_| server.post("/v1/jobs/bulk", &bulk)));
    let singles = (0..40).map(|_| server.post("/v1/jobs", &single));
    let (singles, bulks) = tokio::join!(futures::future::join_all(singles), futures::future::join_all(bulks));
    let mut accepted = singles.iter().filter(|answer| answer.status == 202).count();
    assert!(singles.iter().all(|answer| answer.status == 202 || answer.status == 429));
    for answer in &bulks {
        accepted += answer.json()["jobs"].as_array().unwrap().iter().filter(|item| item["id"].is_string()).count();
    }
    assert_eq!((accepted, live(&server).await), (50, 50));
}

#[tokio::test]
async fn a_repeated_request_gets_its_answer_from_a_full_backlog() {
    let server = capped(3).await;
    let keyed = |path: &str, body: &Value| {
        server.request(Method::POST, path).header("idempotency-key", path.replace('/', "-")).json(body)
    };
    let bulk = Value::Array((0..2).map(probe).collect());
    let one = server.send(keyed("/v1/jobs", &probe(0))).await.expect(202);
    let many = server.send(keyed("/v1/jobs/bulk", &bulk)).await.expect(200);
    assert_eq!(live(&server).await, 3);
    assert_eq!(server.send(keyed("/v1/jobs", &probe(0))).await.expect(202), one);
    assert_eq!(server.send(keyed("/v1/jobs/bulk", &bulk)).await.expect(200), many);
    server.post("/v1/jobs", &probe(9)).await.problem(429);
}

#[tokio::test]
async fn a_refused_duplicate_gives_its_room_back() {
    let server = capped(3).await;
    let unique = json!({"kind": "probe", "payload": {"sleep_ms": 0}, "unique_key": "u"});
    server.post("/v1/jobs", &unique).await.expect(202);
    server.post("/v1/jobs", &unique).await.problem(409);
    server.post("/v1/jobs", &unique).await.problem(409);
    server.submit(json!({})).await;
    server.submit(json!({})).await;
    check(&server.post("/v1/jobs", &probe(0)).await.problem(429));
}
