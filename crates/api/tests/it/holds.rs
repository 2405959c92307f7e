//! Pauses of targets and tenants, breakers that operators hold, and fallback chains at submit.

use crate::server::{Hand, Server};
use queue_core::{
    breaker::{Ask, CALLS_MIN, End, Ended, Leave, ProbeId},
    journal::BreakerMode,
};
use reqwest::Method;
use serde_json::{Value, json};

const TARGET: &str = "simulated:gpt-4o-mini:default";

fn llm(more: Value) -> Value {
    let mut job =
        json!({"kind": "llm", "payload": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}});
    job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    job
}

async fn waits(server: &Server, id: &str) -> Vec<(String, String)> {
    let why = server.get(&format!("/v1/jobs/{id}/why")).await.expect(200);
    let waits = why["waits"].as_array().unwrap().iter();
    waits.map(|wait| (wait["waits_for"].as_str().unwrap().into(), wait["message"].as_str().unwrap().into())).collect()
}

fn has(waits: &[(String, String)], kind: &str) -> bool {
    waits.iter().any(|(of, _)| of == kind)
}

fn target_of(list: &Value, name: &str) -> Value {
    let targets = list["targets"].as_array().unwrap().iter();
    targets.into_iter().find(|target| target["target"] == name).cloned().unwrap_or_default()
}

async fn enter(server: &Server, target: &str) -> Leave {
    let ask =
        Ask { target: target.into(), account: "simulated:*:default".into(), probe: ProbeId::generate(), successes: 0 };
    server.stores.breakers.enter(ask).await.unwrap()
}

#[tokio::test]
async fn a_target_is_paused_and_resumed() {
    let server = Server::start().await;
    let _worker = Hand::join(&server.stores).await;
    let id = server.post("/v1/jobs", &llm(json!({}))).await.expect(202)["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/targets/{TARGET}");
    let before = server.get(&path).await;
    assert_eq!(before.header("etag"), "\"0\"");
    assert_eq!(
        before.expect(200)["breaker"],
        json!({"mode": "auto", "state": "closed", "failed_probes": 0, "probing": false, "calls": 0, "failures": 0})
    );

    let pause = json!({"paused": true, "reason": "their maintenance", "until": "2999-01-01T00:00:00Z"});
    server.patch(&path, &pause).await.problem(422);
    let pause = json!({"paused": true, "reason": "their maintenance"});
    let paused = server.patch(&path, &pause).await;
    assert_eq!(paused.header("etag"), "\"1\"");
    let paused = paused.expect(200);
    assert_eq!(
        (&paused["paused"], &paused["reason"], &paused["version"]),
        (&json!(true), &json!("their maintenance"), &json!(1))
    );
    assert!(has(&waits(&server, &id).await, "target_paused"));
    assert!(matches!(enter(&server, TARGET).await, Leave::Refused(_)), "workers are told, too");
    let list = server.get("/v1/targets").await.expect(200);
    assert_eq!(target_of(&list, TARGET)["paused"], true);
    let price = &target_of(&list, TARGET)["price"];
    assert_eq!((&price["model"], &price["input_usd_per_million"]), (&json!("gpt-4o-mini"), &json!("0.15")), "{price}");
    assert!(target_of(&list, TARGET).get("lately").is_none(), "nobody has called it");

    let stale = server.request(Method::PATCH, &path).header("if-match", "\"0\"").json(&json!({"paused": false}));
    server.send(stale).await.problem(412);
    let fresh = server.request(Method::PATCH, &path).header("if-match", "\"1\"").json(&json!({"paused": false}));
    let resumed = server.send(fresh).await.expect(200);
    assert_eq!((&resumed["paused"], &resumed["reason"]), (&json!(false), &Value::Null));
    assert!(!has(&waits(&server, &id).await, "target_paused"));
    assert_eq!(enter(&server, TARGET).await, Leave::Given);
}

#[tokio::test]
async fn a_breaker_is_shown_and_held() {
    let server = Server::start().await;
    for _ in 0..CALLS_MIN {
        let (probe, reason) = (ProbeId::generate(), "503: down".to_owned());
        let ended = Ended { circuit: TARGET.into(), probe, end: End::Failure, successes: 0, reason };
        server.stores.breakers.end(ended).await.unwrap();
    }
    let path = format!("/v1/targets/{TARGET}");
    let open = server.get(&path).await.expect(200)["breaker"].clone();
    assert_eq!((&open["state"], &open["mode"]), (&json!("open"), &json!("auto")));
    assert!(open["reason"].as_str().unwrap().contains("20 of 20") && open["until"].is_string(), "{open}");
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains(&format!("longshore_breaker_state{{target=\"{TARGET}\"}} 2")), "{metrics}");

    let closed = server.patch(&path, &json!({"breaker": "close"})).await.expect(200)["breaker"].clone();
    assert_eq!((&closed["state"], &closed["mode"]), (&json!("closed"), &json!("close")));
    assert_eq!(enter(&server, TARGET).await, Leave::Given);
    let held = server.patch(&path, &json!({"breaker": "open"})).await.expect(200)["breaker"].clone();
    assert_eq!((&held["state"], &held["mode"]), (&json!("open"), &json!("open")));
    assert!(matches!(enter(&server, TARGET).await, Leave::Refused(_)));
    let id = server.post("/v1/jobs", &llm(json!({}))).await.expect(202)["id"].as_str().unwrap().to_owned();
    let told = waits(&server, &id).await;
    assert!(has(&told, "target_paused"), "{told:?}");
    server.patch(&path, &json!({"breaker": "auto"})).await.expect(200);
    assert_eq!(enter(&server, TARGET).await, Leave::Given);
    let kept = &server.stores.catalog.targets().await.unwrap()[TARGET];
    assert_eq!((kept.version, kept.value.breaker), (3, BreakerMode::Auto), "the journal has every change");

    let account = "simulated:*:default";
    let (probe, reason) = (ProbeId::generate(), "insufficient_quota".to_owned());
    let ended = Ended { circuit: account.into(), probe, end: End::Exhausted(900_000), successes: 0, reason };
    server.stores.breakers.end(ended).await.unwrap();
    let list = server.get("/v1/targets").await.expect(200);
    assert_eq!(list["accounts"][0]["account"], account);
    assert!(target_of(&list, account).is_null(), "an account is no target");
}

#[tokio::test]
async fn a_change_of_a_target_that_makes_no_sense_is_refused() {
    let server = Server::start().await;
    let cases = [
        (TARGET, json!({}), "", "names nothing to change"),
        (TARGET, json!({"breaker": "shut"}), "/breaker", "open, close and auto"),
        (TARGET, json!({"breaker": 1}), "/breaker", "must be a string"),
        (TARGET, json!({"until": "2026-01-01T00:00:00Z"}), "/until", "belongs to a pause"),
        (TARGET, json!({"paused": null}), "/paused", "not null"),
        (TARGET, json!({"weight": 1}), "/weight", "not a known field"),
        ("nobody:gpt-4o:default", json!({"paused": true}), "/path/target", "no provider"),
        ("simulated:*:default", json!({"paused": true}), "/path/target", "name one model"),
        ("gpt-4o", json!({"paused": true}), "/path/target", "provider:model:credential"),
    ];
    for (target, body, pointer, reason) in cases {
        let problem = server.patch(&format!("/v1/targets/{target}"), &body).await.problem(422);
        let error = &problem["errors"][0];
        assert_eq!(error["pointer"], pointer, "{body}");
        assert!(error["reason"].as_str().unwrap().contains(reason), "{body}: {error}");
    }
    let odd = server.patch("/v1/targets/simulated:org%2Fgpt:default", &json!({"paused": true})).await.expect(200);
    assert_eq!((&odd["model"], &odd["paused"]), (&json!("org/gpt"), &json!(true)));
}

#[tokio::test]
async fn a_tenant_is_paused_and_resumed() {
    let server = Server::start().await;
    let mut worker = Hand::join(&server.stores).await;
    let paused = server.patch("/v1/tenants/acme", &json!({"paused": true, "reason": "unpaid bill"})).await.expect(200);
    assert_eq!((&paused["tenant"], &paused["paused"], &paused["version"]), (&json!("acme"), &json!(true), &json!(1)));
    let id = server.submit(json!({"tenant": "acme"})).await.to_string();
    let other = server.submit(json!({"tenant": "other"})).await;
    assert_eq!(worker.claim().await.lease.id, other, "others go on");
    let told = waits(&server, &id).await;
    assert!(has(&told, "tenant_paused"), "{told:?}");
    let metrics = server.get("/v1/queues/metrics").await.expect(200)["queues"]["default"].clone();
    assert_eq!((&metrics["parked"], &metrics["waiting"]), (&json!(1), &json!(0)), "it scales no pods");
    let seen = server.get("/v1/tenants/acme").await.expect(200);
    assert_eq!((&seen["live"], &seen["weight"], &seen["reason"]), (&json!(1), &json!(1), &json!("unpaid bill")));
    server.patch("/v1/tenants/acme", &json!({"paused": false})).await.expect(200);
    assert_eq!(worker.claim().await.lease.id.to_string(), id);
    server.patch("/v1/tenants/acme", &json!({"weight": 3})).await.problem(422);
    server.patch("/v1/tenants/a%20b", &json!({"paused": true})).await.problem(422);
}

#[tokio::test]
async fn a_chain_is_accepted_shown_and_kept_over_an_edit() {
    let server = Server::start().await;
    let chain = json!([{"model": "gpt-4o", "on": ["rate", "overflow"]}]);
    let accepted = server.post("/v1/jobs", &llm(json!({"fallback": chain}))).await.expect(202);
    let id = accepted["id"].as_str().unwrap();
    let job = server.get(&format!("/v1/jobs/{id}")).await.expect(200);
    assert_eq!(job["fallback"], chain);
    assert_eq!(job["target"], "simulated:gpt-4o-mini:default>simulated:gpt-4o:default");
    let payload = json!({"model": "gpt-4.1", "messages": [{"role": "user", "content": "Hi"}]});
    let edited = server.patch(&format!("/v1/jobs/{id}"), &json!({"payload": payload})).await.expect(200);
    assert_eq!(edited["target"], "simulated:gpt-4.1:default>simulated:gpt-4o:default");
    let same = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]});
    let problem = server.patch(&format!("/v1/jobs/{id}"), &json!({"payload": same})).await.problem(422);
    assert_eq!(problem["errors"][0]["pointer"], "/fallback/0/model");

    let wrong = [
        (json!([{"model": "nobody"}]), "/fallback/0/model", "served by no provider"),
        (json!([{"model": "gpt-4o", "on": ["late"]}]), "/fallback/0/on/0", "`rate`"),
        (json!("gpt-4o"), "/fallback", "an array"),
    ];
    for (chain, pointer, reason) in wrong {
        let problem = server.post("/v1/jobs", &llm(json!({"fallback": chain}))).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer);
        assert!(problem["errors"][0]["reason"].as_str().unwrap().contains(reason), "{problem}");
    }
    let plain = server.post("/v1/jobs", &llm(json!({}))).await.expect(202)["id"].as_str().unwrap().to_owned();
    assert!(server.get(&format!("/v1/jobs/{plain}")).await.expect(200).get("fallback").is_none());
}
