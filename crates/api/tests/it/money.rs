//! What was spent, wasted, charged and saved, by job, attempt, tenant and column.

use crate::server::{Hand, Held, Server};
use queue_core::{
    dispatcher::Entry,
    error::{ErrorClass, JobError},
    ids::CallId,
    journal::{Due, Outcome, TenantSettings},
    ledger::{Billed, CallRecord, Nanousd, SavedBy, Saving, Tier, Usage, UsageSource},
};
use serde_json::{Value, json};

/// A call that this attempt made.
fn call(server: &Server, held: &Held, step: &str, cost: Option<i64>) -> CallRecord {
    let job = &held.loaded.job;
    CallRecord {
        call_id: CallId::of(job.id, step, 0),
        job_id: job.id,
        tenant: job.tenant.clone(),
        queue: job.queue.clone(),
        kind: job.kind,
        operation: job.operation.clone(),
        key_id: None,
        epoch: job.epoch,
        step: step.into(),
        sequence: 0,
        provider: "simulated".into(),
        model: "gpt-4o-mini".into(),
        status: "ok".into(),
        billed: Billed::Yes,
        usage: Usage { tokens_in: 100, tokens_out: 20, ..Usage::default() },
        tier: Tier::Flex,
        usage_source: UsageSource::Provider,
        cost: cost.map(Nanousd),
        price_version: "t".into(),
        duration_ms: 5,
        provider_request_id: None,
        credential: "default".into(),
        at: server.stores.clock.now(),
        memo: None,
    }
}

fn saving(call: &CallRecord, saved: i64) -> Saving {
    Saving {
        call_id: call.call_id,
        job_id: call.job_id,
        tenant: call.tenant.clone(),
        queue: call.queue.clone(),
        kind: call.kind,
        operation: call.operation.clone(),
        epoch: call.epoch,
        provider: call.provider.clone(),
        model: call.model.clone(),
        reason: SavedBy::Memo,
        usage: call.usage,
        saved: Some(Nanousd(saved)),
        at: call.at,
    }
}

#[tokio::test]
async fn a_job_costs_what_its_attempts_cost() {
    let server = Server::start().await;
    let id = server.submit(json!({"operation": "tag"})).await;
    let mut hand = Hand::join(&server.stores).await;
    let held = hand.claim().await;
    let mut failed = call(&server, &held, "failed", Some(20_000_000));
    failed.status = "server".into();
    let kept = call(&server, &held, "chat", Some(1_500_000));
    let due = Due::At(server.stores.clock.now());
    let retry = Outcome::Retry { due, error: JobError::new(ErrorClass::Server, "503", "away") };
    hand.settle_with(held, retry, vec![kept, failed], vec![]).await;
    // What is due again is pushed by whoever settled it.
    let row = server.stores.reads.jobs(&[id]).await.unwrap().remove(0).unwrap();
    server.stores.dispatcher.push(vec![Entry::from(&row)]).await.unwrap();
    let held = hand.claim().await;
    let unpriced = call(&server, &held, "repair", None);
    let saved = saving(&call(&server, &held, "chat", None), 1_500_000);
    hand.settle_with(held, Outcome::Succeed { result: "{}".into() }, vec![unpriced], vec![saved]).await;

    let job = server.get(&format!("/v1/jobs/{id}")).await.expect(200);
    assert_eq!((&job["cost_usd"], &job["usage"]["tokens_in"]), (&Value::Null, &json!(300)), "a price is unknown");
    let attempts = server.get(&format!("/v1/jobs/{id}/attempts")).await.expect(200);
    let told: Vec<_> = attempts["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (one["outcome"].clone(), one["cost_usd"].clone(), one["calls"].clone(), one["usage"]["tokens_out"].clone())
        })
        .collect();
    let expected =
        [(json!("retry"), json!("0.0215"), json!(2), json!(40)), (json!("succeed"), Value::Null, json!(1), json!(20))];
    assert_eq!(told, expected);
    let calls = server.get(&format!("/v1/jobs/{id}/calls")).await.expect(200);
    assert_eq!(calls["calls"][0]["tier"], "flex");
    let saved = &calls["savings"][0];
    assert_eq!((&saved["reason"], &saved["saved_usd"]), (&json!("memo"), &json!("0.0015")), "{calls}");
    let target = server.get("/v1/targets/simulated:gpt-4o-mini:default").await.expect(200);
    let lately = &target["lately"];
    assert_eq!((&lately["calls"], &lately["failed"], &lately["p95_ms"]), (&json!(3), &json!(1), &json!(5)), "{lately}");
    assert_eq!(lately["statuses"], json!({"ok": 2, "server": 1}));

    let costs = server.get("/v1/costs?group_by=operation&since=1h").await.expect(200);
    let row = &costs["rows"][0];
    for (member, expected) in [
        ("operation", json!("tag")),
        ("calls", json!(3)),
        ("jobs", json!(1)),
        ("calls_unpriced", json!(1)),
        ("spend_usd", json!("0.0215")),
        ("wasted_usd", json!("0.02")),
        ("charge_usd", json!("0.0215")),
        ("saved_usd", json!("0.0015")),
        ("saved_memo_usd", json!("0.0015")),
        ("saved_cache_usd", json!("0.00")),
        ("saved_answers", json!(1)),
    ] {
        assert_eq!(row[member], expected, "{member} of {row}");
    }
    let whole_days = server.get("/v1/costs?group_by=operation&since=2020-01-01T00:00:00Z").await.expect(200);
    assert_eq!(whole_days["rows"], costs["rows"]);
    for (asked, whole) in [("", true), ("&since=7d", true), ("&since=2weeks", true), ("&since=168h", false)] {
        let since = server.get(&format!("/v1/costs?group_by=operation{asked}")).await.expect(200)["since"].to_string();
        assert_eq!(since.ends_with("T00:00:00.000Z\""), whole, "days are counted whole: {asked} {since}");
    }
    let nobody = server.get("/v1/costs?group_by=operation&tenant=nobody").await.expect(200);
    assert_eq!(nobody["rows"], json!([]));
    let by_model = server.get("/v1/costs?group_by=model").await.expect(200);
    assert!(by_model["rows"][0].get("charge_usd").is_none(), "{by_model}");
    assert_eq!(by_model["rows"][0]["saved_usd"], "0.0015");
}

#[tokio::test]
async fn a_tenant_sees_what_it_used_and_what_is_left() {
    let server = Server::start().await;
    let none = server.get("/v1/tenants/acme/usage").await.expect(200);
    assert_eq!((&none["requests"], &none["spend_usd"], &none["live_jobs"]), (&json!(0), &json!("0.00"), &json!(0)));
    assert_eq!(none["quota_left"], json!({"live_jobs": null, "requests": null, "tokens": null, "usd": null}));
    let settings = TenantSettings { backlog_max: Some(10), ..TenantSettings::default() };
    server.stores.catalog.set_tenant(&"acme".into(), settings).await.unwrap();
    server.submit(json!({"tenant": "acme"})).await;
    server.submit(json!({"tenant": "acme"})).await;
    let mut hand = Hand::join(&server.stores).await;
    let held = hand.claim().await;
    let calls = vec![call(&server, &held, "chat", Some(7_000_000)), call(&server, &held, "more", None)];
    hand.settle_with(held, Outcome::Succeed { result: "{}".into() }, calls, vec![]).await;
    let usage = server.get("/v1/tenants/acme/usage").await.expect(200);
    for (member, expected) in [
        ("tenant", json!("acme")),
        ("requests", json!(2)),
        ("requests_unpriced", json!(1)),
        ("jobs", json!(1)),
        ("live_jobs", json!(1)),
        ("tokens_in", json!(200)),
        ("tokens_out", json!(40)),
        ("spend_usd", json!("0.007")),
        ("charge_usd", json!("0.007")),
        ("saved_usd", json!("0.00")),
    ] {
        assert_eq!(usage[member], expected, "{member} of {usage}");
    }
    assert!(usage["since"].as_str().unwrap().ends_with("-01T00:00:00.000Z"), "{usage}");
    assert_eq!(usage["quota_left"]["live_jobs"], 9);
    let long_ago = server.get("/v1/tenants/acme/usage?since=2020-01-01T00:00:00Z&until=2020-02-01T00:00:00Z").await;
    assert_eq!(long_ago.expect(200)["requests"], 0);
    let other = server.get("/v1/tenants/globex/usage").await.expect(200);
    assert_eq!(other["requests"], 0);
    server.get("/v1/tenants/acme/usage?since=1d&until=2d").await.problem(422);
    server.get("/v1/tenants/acme/usage?by=model").await.problem(422);
    server.get("/v1/tenants/%00/usage").await.problem(404);
}
