//! What stands around the jobs: keys, health, metrics, documents.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::server::{Hand, Server};
use async_trait::async_trait;
use queue_core::{ledger::Nanousd, stores::Check, telemetry};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn only_a_valid_key_opens_v1() {
    let server = Server::start().await;
    let url = format!("{}/v1/jobs", server.url);
    let missing = server.send(server.http.get(&url)).await;
    missing.problem(401);
    assert_eq!(missing.header("www-authenticate"), "Bearer realm=\"longshore\"");
    let stranger = queue_core::keys::Secret::generate().reveal();
    let mut forged = server.key.clone();
    let last = if forged.ends_with('a') { 'b' } else { 'a' };
    forged.pop();
    forged.push(last);
    for key in ["", "lsk_", "sk-123", &stranger, &forged] {
        let answer = server.send(server.http.get(&url).bearer_auth(key)).await;
        let problem = answer.problem(401);
        assert_eq!(problem["errors"][0]["pointer"], "/header/Authorization");
        assert!(answer.header("www-authenticate").contains("invalid_token"));
        assert!(key.is_empty() || !answer.text.contains(key.get(13..).filter(|rest| !rest.is_empty()).unwrap_or("\0")));
    }
    // A wrong secret with a known id must not profit from what is remembered of the right one.
    server.get("/v1/jobs").await.expect(200);
    server.send(server.http.get(&url).bearer_auth(&forged)).await.problem(401);
    for path in ["/livez", "/readyz", "/startupz", "/health", "/metrics", "/openapi.json", "/docs/"] {
        let answer = server.send(server.http.get(format!("{}{path}", server.url))).await;
        assert_eq!(answer.status.as_u16(), 200, "{path}");
    }
}

struct Provider {
    asked: AtomicU32,
}

#[async_trait]
impl Check for Provider {
    fn name(&self) -> &str {
        "provider:test"
    }

    async fn check(&self) -> Result<(), String> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Err("it is down".into())
    }
}

struct Panics;

#[async_trait]
impl Check for Panics {
    fn name(&self) -> &str {
        "provider:broken"
    }

    async fn check(&self) -> Result<(), String> {
        panic!("a defect in a check")
    }
}

#[tokio::test]
async fn health_tells_parts_apart_and_readiness_ends_with_the_server() {
    let provider = Arc::new(Provider { asked: AtomicU32::new(0) });
    let checks: Vec<Arc<dyn Check>> = vec![provider.clone(), Arc::new(Panics)];
    let server = Server::start_with(|api| api.checks = checks).await;
    let report = server.get("/health").await.expect(200);
    assert_eq!(report["status"], "degraded");
    assert_eq!(report["checks"]["journal"], "ok");
    assert_eq!(report["checks"]["dispatcher"], "ok");
    assert_eq!(report["checks"]["workers"], "no worker is running");
    assert_eq!(report["checks"]["provider:test"], "it is down");
    assert_eq!(report["checks"]["provider:broken"], "the check failed to run");
    let details = report["details"].as_object().unwrap();
    assert!(details.keys().eq(report["checks"].as_object().unwrap().keys()), "{report}");
    assert!(details.values().all(|detail| detail["latency_ms"].is_f64() && detail["age_ms"].is_u64()), "{report}");
    assert!(details["journal"]["latency_ms"].as_f64().unwrap() > 0.0 && details["journal"].get("detail").is_none());
    assert_eq!(details["provider:test"]["detail"], "it is down");
    assert!(report["timestamp"].is_string() && report["version"].is_string());
    server.get("/health").await.expect(200);
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1, "a check is remembered");

    let healthy = Server::start().await;
    let _hand = Hand::join(&healthy.stores).await;
    assert_eq!(healthy.get("/health").await.expect(200)["status"], "healthy");
    assert_eq!(server.get("/readyz").await.expect(200), json!({"status": "ok"}));
}

#[tokio::test]
async fn metrics_name_routes_and_never_jobs() {
    let server = Server::start().await;
    let id = server.submit(json!({"queue": "counted"})).await;
    server.get(&format!("/v1/jobs/{id}")).await.expect(200);
    server.get("/no/such/path").await.problem(404);
    let text = server.get("/metrics").await.text;
    for line in ["route=\"/v1/jobs/{id}\"", "route=\"unmatched\""] {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
    assert!(!text.contains(&id.to_string()));
}

#[tokio::test]
async fn spent_dollars_are_a_counter_to_the_last_digit() {
    let server = Server::start().await;
    // Sums of floats would show 0.30000000000000004 and lose the nano-dollar beside the thousand.
    for nanousd in [100_000_000, 200_000_000, 1_000_000_000_001] {
        telemetry::count_cost("p".into(), "a model".into(), "llm", Nanousd(nanousd));
    }
    let text = server.get("/metrics").await.text;
    assert!(text.contains("# TYPE longshore_cost_usd_total counter\n"), "{text}");
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("longshore_cost_usd_total")).collect();
    let labels = "provider=\"p\",model=\"a model\",kind=\"llm\"";
    assert_eq!(lines, [format!("longshore_cost_usd_total{{{labels}}} 1000.300000001")]);
}

/// Every route, in the order of the words: a route goes only with a reason in the changelog.
#[rustfmt::skip] // a line each
const ROUTES: &[&str] = &[
    "DELETE /v1/auth/token",
    "DELETE /v1/keys",
    "DELETE /v1/keys/{key}",
    "DELETE /v1/operations/{id}",
    "DELETE /v1/schedules/{id}",
    "DELETE /v1/schedules/{id}/backfill",
    "DELETE /v1/tenants/{tenant}/credentials/{provider}",
    "DELETE /v1/webhooks/{id}",
    "GET /health",
    "GET /livez",
    "GET /metrics",
    "GET /readyz",
    "GET /startupz",
    "GET /v1/archives",
    "GET /v1/audit",
    "GET /v1/audit/heads",
    "GET /v1/auth/whoami",
    "GET /v1/backups",
    "GET /v1/backups/{id}",
    "GET /v1/batches/{id}",
    "GET /v1/budget",
    "GET /v1/budgets",
    "GET /v1/costs",
    "GET /v1/credentials",
    "GET /v1/dead-letters",
    "GET /v1/dead-letters/groups",
    "GET /v1/dead-letters/{id}",
    "GET /v1/erasures",
    "GET /v1/jobs",
    "GET /v1/jobs/{id}",
    "GET /v1/jobs/{id}/attempts",
    "GET /v1/jobs/{id}/calls",
    "GET /v1/jobs/{id}/events",
    "GET /v1/jobs/{id}/payload",
    "GET /v1/jobs/{id}/result",
    "GET /v1/jobs/{id}/why",
    "GET /v1/keys",
    "GET /v1/keys/{key}",
    "GET /v1/keys/{key}/budget",
    "GET /v1/limits",
    "GET /v1/limits/{target}",
    "GET /v1/log-level",
    "GET /v1/maintenance",
    "GET /v1/maintenance/report",
    "GET /v1/operations",
    "GET /v1/operations/{id}",
    "GET /v1/queues",
    "GET /v1/queues/metrics",
    "GET /v1/queues/metrics/history",
    "GET /v1/queues/{queue}",
    "GET /v1/queues/{queue}/inspect",
    "GET /v1/retention",
    "GET /v1/schedules",
    "GET /v1/schedules/preview",
    "GET /v1/schedules/{id}",
    "GET /v1/targets",
    "GET /v1/targets/{target}",
    "GET /v1/tenants",
    "GET /v1/tenants/{tenant}",
    "GET /v1/tenants/{tenant}/budget",
    "GET /v1/tenants/{tenant}/credentials",
    "GET /v1/tenants/{tenant}/credentials/{provider}",
    "GET /v1/tenants/{tenant}/usage",
    "GET /v1/webhook-deliveries",
    "GET /v1/webhook-deliveries/{id}",
    "GET /v1/webhooks",
    "GET /v1/webhooks/{id}",
    "GET /v1/workers",
    "PATCH /v1/jobs/{id}",
    "PATCH /v1/keys/{key}",
    "PATCH /v1/queues/{queue}",
    "PATCH /v1/schedules/{id}",
    "PATCH /v1/targets/{target}",
    "PATCH /v1/tenants/{tenant}",
    "PATCH /v1/tenants/{tenant}/credentials/{provider}",
    "PATCH /v1/webhooks/{id}",
    "POST /v1/archives/{id}/restore",
    "POST /v1/auth/revocations",
    "POST /v1/auth/token",
    "POST /v1/backups",
    "POST /v1/backups/{id}/verify",
    "POST /v1/credentials/rewrap",
    "POST /v1/dead-letters/{id}/redrive",
    "POST /v1/erasures",
    "POST /v1/jobs",
    "POST /v1/jobs/bulk",
    "POST /v1/jobs/{id}/cancel",
    "POST /v1/keys",
    "POST /v1/keys/{key}/rotate",
    "POST /v1/maintenance/run",
    "POST /v1/operations",
    "POST /v1/retention/run",
    "POST /v1/schedules",
    "POST /v1/schedules/{id}/backfill",
    "POST /v1/tenants/{tenant}/erase",
    "POST /v1/tenants/{tenant}/signing-secret",
    "POST /v1/webhook-deliveries/{id}/replay",
    "POST /v1/webhooks",
    "POST /v1/webhooks/{id}/rotate-secret",
    "POST /v1/workers/{id}/drain",
    "PUT /v1/budget",
    "PUT /v1/keys/{key}/budget",
    "PUT /v1/limits/{target}",
    "PUT /v1/log-level",
    "PUT /v1/maintenance",
    "PUT /v1/tenants/{tenant}",
    "PUT /v1/tenants/{tenant}/budget",
    "PUT /v1/tenants/{tenant}/credentials",
    "PUT /v1/tenants/{tenant}/credentials/{provider}",
];

#[tokio::test]
async fn the_document_has_every_route_and_every_route_answers() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.expect(200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut generated = serde_json::to_value(api::openapi()).unwrap();
    generated["info"]["version"] = document["info"]["version"].clone();
    assert_eq!(document, generated);

    let mut routes = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            routes.insert(format!("{} {path}", method.to_uppercase()));
            let keyed = path.starts_with("/v1");
            assert_eq!(operation.get("security").is_some(), keyed, "{method} {path}");
            let real = path.replace("{id}", "01890000-0000-7000-8000-000000000000").replace("{queue}", "q");
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let answer = server.send(server.request(method.clone(), &real)).await;
            assert_ne!(answer.status.as_u16(), 405, "{method} {path}");
            assert!(!answer.text.contains("is not a known route"), "{method} {path}");
            // Whatever is documented as keyed is refused without one.
            let bare = server.send(server.http.request(method, format!("{}{real}", server.url))).await;
            assert_eq!(bare.status.as_u16() == 401, keyed, "{path}");
        }
    }
    assert_eq!(routes.into_iter().collect::<Vec<_>>(), ROUTES);
    every_reference_resolves(&document, &document);
}

/// Follows every `$ref`.
fn every_reference_resolves(document: &Value, value: &Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            members.values().for_each(|member| every_reference_resolves(document, member));
        }
        Value::Array(items) => items.iter().for_each(|item| every_reference_resolves(document, item)),
        _ => {}
    }
}

#[tokio::test]
async fn the_pages_of_the_document_need_no_outside_address() {
    let server = Server::start().await;
    let index = server.get("/docs/").await;
    assert!(index.header("content-security-policy").starts_with("default-src 'self'"));
    let mut files = vec!["/docs/swagger-initializer.js".to_owned()];
    for part in index.text.split("src=\"").chain(index.text.split("href=\"")).skip(1) {
        let address = part.split('"').next().unwrap();
        if address.contains('.') && !address.contains('<') {
            assert!(!address.contains("//"), "{address}");
            files.push(format!("/docs/{}", address.trim_start_matches("./")));
        }
    }
    for file in files {
        let answer = server.get(&file).await;
        assert_eq!(answer.status.as_u16(), 200, "{file}");
    }
    let initializer = server.get("/docs/swagger-initializer.js").await.text;
    assert!(
        initializer.contains("/openapi.json") && initializer.contains("\"validatorUrl\": \"none\""),
        "{initializer}"
    );
    server.get("/docs/nothing.js").await.problem(404);
}
