//! Budgets and what tenants may ask for, over HTTP.

use crate::server::Server;
use queue_core::{
    budget::{Amount, Measure, Period, Scope},
    dispatcher::Setting,
    journal::Alert,
    ledger::Nanousd,
};
use reqwest::Method;
use serde_json::{Value, json};

fn chat(model: &str, max_tokens: Option<u64>) -> Value {
    let mut payload = json!({"model": model, "messages": [{"role": "user", "content": "Hello"}]});
    if let Some(tokens) = max_tokens {
        payload["max_tokens"] = json!(tokens);
    }
    json!({"kind": "llm", "payload": payload})
}

fn reasons(problem: &Value) -> Vec<(String, String)> {
    let text = |error: &Value, name: &str| error[name].as_str().unwrap().to_owned();
    let errors = problem["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| (text(error, "pointer"), text(error, "reason"))).collect()
}

#[tokio::test]
async fn a_budget_is_set_shown_listed_and_cleared() {
    let server = Server::start().await;
    let nothing = server.get("/v1/tenants/acme/budget").await.expect(200);
    assert_eq!((&nothing["version"], &nothing["limits"]), (&json!(0), &json!([])));
    let body = json!({"day_usd": "0.50", "month_usd": "10", "day_tokens": 5000, "at_limit": "degrade",
                      "degrade_to": "gpt-4o-mini"});
    let set = server.put("/v1/tenants/acme/budget", &body).await.expect(200);
    assert_eq!(
        (&set["month_usd"], &set["at_limit"], &set["scope"]),
        (&json!("10.00"), &json!("degrade"), &json!("tenant:acme"))
    );
    let lines = set["limits"].as_array().unwrap();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        (&lines[0]["left"], &lines[0]["spent"], &lines[2]["limit"]),
        (&json!("0.50"), &json!("0.00"), &json!("5000"))
    );
    server.put("/v1/budget", &json!({"month_usd": "99"})).await.expect(200);
    let id = &server.key[4..12];
    server.put(&format!("/v1/keys/{id}/budget"), &json!({"day_tokens": 7, "at_limit": "fail"})).await.expect(200);
    server.put("/v1/keys/nobody00/budget", &json!({"day_tokens": 7})).await.expect(404);
    let list = server.get("/v1/budgets").await.expect(200);
    let scopes: Vec<_> = list["budgets"].as_array().unwrap().iter().map(|one| one["scope"].clone()).collect();
    assert_eq!(scopes, [json!("all"), json!("tenant:acme"), json!(format!("key:{id}"))]);
    let usage = server.get("/v1/tenants/acme/usage").await.expect(200);
    assert_eq!((&usage["quota_left"]["usd"], &usage["quota_left"]["tokens"]), (&json!("0.50"), &json!(5000)));
    let stale = server.request(Method::PUT, "/v1/budget").header("If-Match", "\"1\"").json(&json!({}));
    server.send(stale).await.expect(412);
    server.put("/v1/budget", &json!({})).await.expect(200);
    let list = server.get("/v1/budgets").await.expect(200);
    assert_eq!(list["budgets"].as_array().unwrap().len(), 2);
    assert_eq!(list["alerts"], json!([]));
    let at = server.stores.clock.now();
    let alert = Alert {
        scope: Scope::Tenant("acme".into()),
        measure: Measure::Usd,
        period: Period::Day,
        since: at.start_of_day().0,
        level: 80,
        spent: 410_000_000,
        budget: 500_000_000,
        at,
    };
    assert!(server.stores.budgets.note_alert(&alert).await.unwrap());
    let shown = json!([{"scope": "tenant:acme", "measure": "usd", "period": "day", "level": 80, "spent": "0.41",
                        "limit": "0.50", "since": at.start_of_day(), "at": at}]);
    assert_eq!(server.get("/v1/budgets").await.expect(200)["alerts"], shown);
}

#[tokio::test]
async fn a_budget_that_is_none_is_refused() {
    let server = Server::start().await;
    for (body, pointer, reason) in [
        (json!({"month_usd": 5}), "/month_usd", "must be a string"),
        (json!({"month_usd": "-5"}), "/month_usd", "negative"),
        (json!({"month_usd": "1e9"}), "/month_usd", "not an amount"),
        (json!({"day_usd": "5", "month_usd": "1"}), "/day_usd", "more than `month_usd`"),
        (json!({"day_tokens": -1}), "/day_tokens", "whole number"),
        (json!({"at_limit": "stop"}), "/at_limit", "park, fail or degrade"),
        (json!({"at_limit": "degrade"}), "/degrade_to", "is required"),
        (json!({"degrade_to": "gpt-4o"}), "/degrade_to", "belongs to"),
        (json!({"at_limit": "degrade", "degrade_to": "claude"}), "/degrade_to", "served by no provider"),
        (json!({"week_usd": "5"}), "/week_usd", "not a known field"),
    ] {
        let problem = server.put("/v1/budget", &body).await.expect(422);
        let found = reasons(&problem);
        assert!(found.iter().any(|(at, why)| at == pointer && why.contains(reason)), "{body}: {found:?}");
    }
}

#[tokio::test]
async fn a_job_that_cannot_fit_is_refused_with_an_estimate() {
    let server = Server::start().await;
    let mut dear = chat("gpt-4o", Some(10_000));
    dear["max_cost_usd"] = json!("0.01");
    let problem = server.post("/v1/jobs", &dear).await.expect(422);
    assert!(problem["type"].as_str().unwrap().ends_with("too-dear"), "{problem}");
    assert!(problem["estimate_usd"].as_str().unwrap().starts_with("0.1"), "{problem}");
    assert_eq!(reasons(&problem)[0].0, "/max_cost_usd");
    // A cheaper model of the chain may do it.
    dear["fallback"] = json!([{"model": "gpt-4o-mini", "on": ["budget"]}]);
    let accepted = server.post("/v1/jobs", &dear).await.expect(202);
    let job = server.get(&format!("/v1/jobs/{}", accepted["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(job["max_cost_usd"], "0.01");
    dear["max_cost_usd"] = json!("free");
    let problem = server.post("/v1/jobs", &dear).await.expect(422);
    assert!(reasons(&problem)[0].1.contains("not an amount"), "{problem}");
    let mut unknown = chat("gpt-mystery", None);
    server.post("/v1/jobs", &unknown).await.expect(202);
    unknown["max_cost_usd"] = json!("5");
    let problem = server.post("/v1/jobs", &unknown).await.expect(422);
    assert_eq!(reasons(&problem)[0].0, "/payload/model");
    server.put("/v1/tenants/default/budget", &json!({"day_tokens": 500})).await.expect(200);
    let bulk = json!([chat("gpt-4o", Some(100)), chat("gpt-4o", Some(501))]);
    let answer = server.post("/v1/jobs/bulk", &bulk).await.expect(200);
    assert!(answer["jobs"][0]["id"].is_string(), "{answer}");
    let refused = &answer["jobs"][1]["error"];
    assert!(refused["detail"].as_str().unwrap().contains("the daily budget of the tenant default"), "{refused}");
    let analysis = json!({"kind": "analysis", "payload": {
        "input": {"text": "word ".repeat(3_000)}, "defaults": {"model": "gpt-4o"},
        "map": {"prompt": "{{chunk}}"}, "reduce": {"strategy": "none"}, "limits": {"max_cost_usd": "0.001"}}});
    let problem = server.post("/v1/jobs", &analysis).await.expect(422);
    assert!(problem["type"].as_str().unwrap().ends_with("too-dear"), "{problem}");
}

#[tokio::test]
async fn a_tenant_asks_only_for_what_it_may() {
    let server = Server::start().await;
    let settings = json!({"weight": 2, "backlog_max": 50, "max_tokens": 100, "kinds": ["llm"],
                          "models": ["gpt-4o-mini", "gpt-4.1*"], "aliases": {"fast": "gpt-4o-mini"}, "default_model": "fast"});
    let set = server.put("/v1/tenants/default", &settings).await.expect(200);
    for (name, value) in settings.as_object().unwrap() {
        assert_eq!(&set[name], value, "{name}");
    }
    let shown = server.get("/v1/tenants/default").await.expect(200);
    assert_eq!((&shown["aliases"], &shown["version"]), (&settings["aliases"], &json!(1)));
    for (job, pointer) in [
        (chat("gpt-4o", Some(10)), "/payload/model"),
        (chat("fast", Some(101)), "/payload/max_tokens"),
        (chat("fast", None), "/payload/max_tokens"),
        (json!({"kind": "probe", "payload": {}}), "/kind"),
    ] {
        let problem = server.post("/v1/jobs", &job).await.expect(422);
        assert!(reasons(&problem).iter().any(|(at, _)| at == pointer), "{job}: {problem}");
        let bulk = server.post("/v1/jobs/bulk", &json!([job])).await.expect(200);
        assert_eq!(bulk["jobs"][0]["error"]["status"], 422);
    }
    for job in [
        chat("fast", Some(10)),
        json!({"kind": "llm", "payload": {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}}),
    ] {
        let accepted = server.post("/v1/jobs", &job).await.expect(202);
        let id = accepted["id"].as_str().unwrap();
        let job = server.get(&format!("/v1/jobs/{id}")).await.expect(200);
        assert_eq!(job["target"], "simulated:gpt-4o-mini:default");
        let payload = server.stores.reads.payload(id.parse().unwrap()).await.unwrap().unwrap();
        let payload: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(payload["model"], "gpt-4o-mini");
    }
    // Another tenant is another matter, and a pause leaves the rest as it is.
    let mut other = chat("gpt-4o", None);
    other["tenant"] = json!("other");
    server.post("/v1/jobs", &other).await.expect(202);
    let paused = server.patch("/v1/tenants/default", &json!({"paused": true})).await.expect(200);
    assert_eq!((&paused["paused"], &paused["max_tokens"]), (&json!(true), &json!(100)));
    for (body, pointer) in [
        (json!({"kinds": ["poem"]}), "/kinds"),
        (json!({"aliases": {"fast": "claude"}}), "/aliases"),
        (json!({"aliases": {"a": "b", "b": "gpt-4o"}}), "/aliases"),
        (json!({"default_model": "gpt-4o", "models": ["gpt-4o-mini"]}), "/default_model"),
        (json!({"weight": 0}), "/weight"),
        (json!({"color": "red"}), "/color"),
    ] {
        let problem = server.put("/v1/tenants/default", &body).await.expect(422);
        assert!(reasons(&problem).iter().any(|(at, _)| at == pointer), "{body}: {problem}");
    }
}

#[tokio::test]
async fn why_names_the_budget_and_how_it_stands() {
    let server = Server::start().await;
    server.put("/v1/tenants/default/budget", &json!({"month_usd": "1", "day_tokens": 100000})).await.expect(200);
    let accepted = server.post("/v1/jobs", &chat("gpt-4o", Some(10))).await.expect(202);
    let id = accepted["id"].as_str().unwrap();
    let (tenant, until) = ("default".into(), server.stores.clock.now().plus_ms(20_000));
    let amount = Amount { usd: Nanousd(5), tokens: 0 };
    server.stores.counters.park(&tenant, &Scope::Tenant("default".into()), amount, until, "no room").await.unwrap();
    let park = Setting::ParkTenant { tenant, until, reason: "no room".into() };
    server.stores.dispatcher.apply(park).await.unwrap();
    let why = server.get(&format!("/v1/jobs/{id}/why")).await.expect(200);
    let first = &why["waits"][0];
    assert_eq!(
        (&first["waits_for"], &first["budget"], &first["spent"]),
        (&json!("budget"), &json!("tenant:default"), &json!("$0.00"))
    );
    let words = why["summary"].as_str().unwrap();
    assert!(words.contains("the budget of the tenant default of $1.00 for the month"), "{words}");
    // A raise wakes it.
    server.put("/v1/tenants/default/budget", &json!({"month_usd": "2"})).await.expect(200);
    let why = server.get(&format!("/v1/jobs/{id}/why")).await.expect(200);
    assert_ne!(why["waits"][0]["waits_for"], "budget", "{why}");
}
