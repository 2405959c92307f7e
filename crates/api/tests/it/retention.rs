//! How long what is kept, over HTTP: the plan, an order, queues and results with a time of their own, and what reports then refuse.

use crate::server::{Hand, Server};
use queue_core::{
    audit::AuditEntry,
    retention::{Class, Policy, Rows},
    time::DAY_MS,
};
use serde_json::{Value, json};

fn class<'p>(plan: &'p Value, name: &str) -> &'p Value {
    plan["classes"].as_array().unwrap().iter().find(|class| class["class"] == name).unwrap()
}

#[tokio::test]
async fn the_plan_names_every_class_and_a_run_is_ordered() {
    let server = Server::start().await;
    let plan = server.get("/v1/retention").await.expect(200);
    assert_eq!(plan["classes"].as_array().unwrap().len(), Class::ALL.len());
    assert_eq!((&class(&plan, "jobs")["age"], &class(&plan, "audit")["age"]), (&json!("90d"), &json!("2557d")));
    assert_eq!(
        (&class(&plan, "jobs")["action"], &class(&plan, "caches")["action"]),
        (&json!("delete"), &json!("expire"))
    );
    assert_eq!((&plan["orders"], &plan["served"]), (&json!(0), &json!(0)));
    let ordered = server.post("/v1/retention/run", &json!({})).await.expect(202);
    assert_eq!(ordered, json!({"order": 1}));
    assert_eq!(server.get("/v1/retention").await.expect(200)["orders"], 1);
    let held = Policy { hold: Some("case 4711".into()), ..Policy::default() };
    let held = Server::start_with(|api| api.settings.retention = held).await;
    assert_eq!(held.get("/v1/retention").await.expect(200)["hold"], "case 4711");
    let problem = held.post("/v1/retention/run", &json!({})).await.problem(409);
    assert!(problem["detail"].as_str().unwrap().contains("case 4711"), "{problem}");
}

#[tokio::test]
async fn queues_and_results_have_times_of_their_own() {
    let server = Server::start().await;
    let kept = server.patch("/v1/queues/short", &json!({"retention": "7d"})).await.expect(200);
    assert_eq!(kept["retention"], "7d");
    let plan = server.get("/v1/retention").await.expect(200);
    assert!(class(&plan, "jobs")["held"][0]["what"] == "queue short", "{plan}");
    let kept = server.patch("/v1/queues/short", &json!({"retention": null})).await.expect(200);
    assert!(kept.get("retention").is_none(), "{kept}");

    let mut hand = Hand::join(&server.stores).await;
    let (short, usual) = (server.submit(json!({"result_ttl": "1h"})).await, server.submit(json!({})).await);
    for _ in 0..2 {
        let held = hand.claim().await;
        hand.succeed(held, &json!({"text": "done"})).await;
    }
    let now = server.stores.clock.now();
    server.get(&format!("/v1/jobs/{short}/result")).await.expect(200);
    while server.stores.retention.sweep(Rows::Results, now.plus_ms(2 * 3_600_000), 10).await.unwrap() > 0 {}
    let problem = server.get(&format!("/v1/jobs/{short}/result")).await.problem(410);
    assert_eq!(problem["title"], "The result was kept for as long as it was asked for");
    let job = server.get(&format!("/v1/jobs/{short}")).await.expect(200);
    assert_eq!((&job["state"], job.get("result")), (&json!("succeeded"), None));
    server.get(&format!("/v1/jobs/{usual}/result")).await.expect(200);
}

#[tokio::test]
async fn a_report_begins_at_a_midnight_where_single_calls_are_gone() {
    let server = Server::start().await;
    let now = server.stores.clock.now();
    let midnight = now.plus_ms(-800 * DAY_MS).start_of_day();
    let noon = midnight.plus_ms(DAY_MS / 2);
    server.get(&format!("/v1/costs?since={noon}")).await.expect(200);
    server.stores.retention.note(Class::CostDetails, 5, now, Some(now.plus_ms(-730 * DAY_MS))).await.unwrap();
    let problem = server.get(&format!("/v1/costs?since={noon}")).await.problem(422);
    assert_eq!(problem["errors"][0]["pointer"], "/query/since");
    server.get(&format!("/v1/costs?since={midnight}")).await.expect(200);
    server.get(&format!("/v1/costs?since={}", now.plus_ms(-100 * DAY_MS))).await.expect(200);

    // What stands at the beginning of the log is told with its ends.
    server.stores.audit.append_audit(AuditEntry::default()).await.unwrap();
    let heads = server.get("/v1/audit/heads").await.expect(200);
    assert!(heads.get("floor").is_none(), "{heads}");
}
