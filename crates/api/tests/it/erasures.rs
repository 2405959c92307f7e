//! Erasing tenants over HTTP: who may, what is refused from then on, and what the audit log says of it.

use crate::server::{Answer, Server};
use queue_core::{journal::Role, keys::Secret};
use reqwest::Method;
use serde_json::{Value, json};

/// A key of this tenant.
async fn key(server: &Server, tenant: &str, role: Role) -> String {
    let secret = Secret::generate();
    let row = secret.to_row(tenant.into(), role, "test", server.stores.clock.now());
    server.stores.identity.add_key(row).await.unwrap();
    secret.reveal()
}

async fn ask(server: &Server, key: &str, method: Method, path: &str, body: Option<&Value>) -> Answer {
    let request = server.http.request(method, format!("{}{path}", server.url)).bearer_auth(key);
    server
        .send(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
}

const JOB: &str = "/v1/jobs";

fn probe(tenant: &str) -> Value {
    json!({"kind": "probe", "payload": {}, "tenant": tenant})
}

#[tokio::test]
async fn an_erased_tenant_is_refused_by_name_and_by_key_and_its_neighbour_is_not() {
    let server = Server::start().await;
    let (own, theirs) = (key(&server, "acme", Role::User).await, key(&server, "globex", Role::User).await);
    for key in [&own, &theirs] {
        let job = json!({"kind": "probe", "payload": {}});
        ask(&server, key, Method::POST, JOB, Some(&job)).await.expect(202);
    }
    let path = "/v1/tenants/acme/erase";
    let dry = server.post(path, &json!({"dry_run": true})).await.expect(200);
    let jobs = dry["tables"].as_array().unwrap().iter().find(|table| table["table"] == "jobs").unwrap();
    assert_eq!((&dry["dry_run"], &jobs["rows"]), (&json!(true), &json!(1)));
    for wrong in [json!({}), json!({"confirm": "globex"}), json!({"confirm": "acme", "why": "x"})] {
        server.post(path, &wrong).await.problem(422);
    }
    ask(&server, &own, Method::GET, JOB, None).await.expect(200);
    assert_eq!(server.get("/v1/erasures").await.expect(200)["erasures"], json!([]), "nothing was done so far");

    let erasure = server.post(path, &json!({"confirm": "acme"})).await.expect(202);
    let pseudonym = erasure["pseudonym"].as_str().unwrap().to_owned();
    assert_eq!((&erasure["tenant"], &erasure["state"]), (&json!("acme"), &json!("running")));
    assert_eq!(server.post(path, &json!({"confirm": "acme"})).await.expect(202)["pseudonym"], pseudonym, "asked again");
    // Its keys have ended; one that would still be believed is refused all the same.
    ask(&server, &own, Method::GET, JOB, None).await.problem(401);
    let late = key(&server, "acme", Role::Analyst).await;
    for (method, path) in [(Method::GET, JOB), (Method::GET, "/v1/tenants/acme/usage")] {
        let problem = ask(&server, &late, method, path, None).await.problem(403);
        assert_eq!(problem["type"], "urn:longshore:problem:tenant-erased");
    }
    // Nobody else brings the name back either.
    for (method, path, body) in [
        (Method::POST, JOB, probe("acme")),
        (Method::POST, "/v1/keys", json!({"name": "new", "tenant": "acme"})),
        (Method::POST, "/v1/webhooks", json!({"url": "https://receiver.example/", "tenant": "acme"})),
        (Method::PUT, "/v1/tenants/acme", json!({"weight": 2})),
        (Method::PATCH, "/v1/tenants/acme", json!({"paused": true})),
        (Method::PUT, "/v1/tenants/acme/budget", json!({"month_usd": "1"})),
        (Method::PUT, "/v1/tenants/acme/credentials/simulated", json!({"key": "sk-of-acme"})),
    ] {
        let problem = ask(&server, &server.key, method, path, Some(&body)).await.problem(403);
        assert_eq!(problem["type"], "urn:longshore:problem:tenant-erased", "{path}");
    }
    let bulk = server.post("/v1/jobs/bulk", &json!([probe("acme"), probe("globex")])).await.expect(200);
    assert_eq!(bulk["jobs"][0]["error"]["type"], "urn:longshore:problem:tenant-erased", "{bulk}");
    assert!(bulk["jobs"][1]["id"].is_string(), "{bulk}");
    let job = json!({"kind": "probe", "payload": {}});
    ask(&server, &theirs, Method::POST, JOB, Some(&job)).await.expect(202);

    // The log of what was done names it no more: the order, and everybody who was refused because of it.
    let log = server.get("/v1/audit?limit=500").await.expect(200);
    let rows: Vec<_> = log["rows"].as_array().unwrap().iter().collect();
    let order = format!("/v1/tenants/{pseudonym}/erase");
    assert_eq!(rows.iter().filter(|row| row["subject"] == json!(order)).count(), 2, "{log}");
    let refused = rows.iter().filter(|row| row["tenant"] == json!(pseudonym)).count();
    assert_eq!(refused, 2, "its late key: {log}");
    for row in rows {
        let is_of_it = row["subject"] == json!(order) || row["tenant"] == json!(pseudonym);
        let subject = row["subject"].as_str().unwrap();
        assert!(!is_of_it || !row.to_string().replace(subject, "").contains("acme"), "{row}");
        assert!(row["tenant"] != json!("acme") || row["status"] != 403, "{row}");
    }
}

#[tokio::test]
async fn whoever_runs_the_installation_is_not_erased() {
    let server = Server::start().await;
    // The admin's own.
    let problem = server.post("/v1/tenants/default/erase", &json!({"confirm": "default"})).await.problem(409);
    assert_eq!(problem["type"], "urn:longshore:problem:tenant-operates");
    key(&server, "ops", Role::Operator).await;
    server.post("/v1/tenants/ops/erase", &json!({"confirm": "ops"})).await.problem(409);
    let log = json!({"erasures": [{"tenant": "ops", "pseudonym": "erased-00000000000000000000000000000001", "accepted_at": "2026-11-30T00:00:00Z"}]});
    server.post("/v1/erasures", &log).await.problem(409);
    assert_eq!(server.get("/v1/erasures").await.expect(200)["erasures"], json!([]));
}

#[tokio::test]
async fn a_log_that_was_kept_elsewhere_is_replayed() {
    let server = Server::start().await;
    let line = |tenant: &str| json!({"tenant": tenant, "pseudonym": format!("erased-{:032x}", tenant.len()), "accepted_at": "2026-11-30T00:00:00Z"});
    let log = json!({"erasures": [line("acme"), line("globexco")]});
    assert_eq!(server.post("/v1/erasures", &log).await.expect(202), json!({"imported": 2, "replayed": 0}));
    assert_eq!(server.post("/v1/erasures", &log).await.expect(202)["imported"], 2, "a second time changes nothing");
    let kept = server.get("/v1/erasures").await.expect(200);
    let kept: Vec<_> = kept["erasures"].as_array().unwrap().iter().map(|one| one["pseudonym"].clone()).collect();
    assert_eq!(kept, [format!("erased-{:032x}", 4), format!("erased-{:032x}", 8)]);
    server.post(JOB, &probe("globexco")).await.problem(403);
    assert_eq!(server.post("/v1/erasures", &json!({"replay": true})).await.expect(202)["replayed"], 2);
    for wrong in [
        json!({"erasures": [{"tenant": "a b", "pseudonym": "x", "accepted_at": "2026-11-30T00:00:00Z"}]}),
        json!({"erasures": [{"tenant": "a"}]}),
        json!({"tenants": []}),
        json!({"erasures": vec![line("acme"); 101]}),
    ] {
        server.post("/v1/erasures", &wrong).await.problem(422);
    }
}
