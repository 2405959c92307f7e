//! Tenants' keys over HTTP: they go in and never come out.

use std::sync::Arc;

use crate::server::Server;
use queue_core::credentials::{CredentialNote, Credentials, MasterKeys};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::json;

/// A key that must not turn up anywhere.
const CANARY: &str = "sk-canary-0123456789abcdefWXYZ";
const PLACE: &str = "/v1/tenants/acme/credentials/simulated";

fn master() -> MasterKeys {
    MasterKeys::parse(MasterKeys::generate().unwrap().expose_secret()).unwrap()
}

async fn with_master_key() -> (Server, Arc<Credentials>) {
    let mut kept = None;
    let server = Server::start_with(|api| {
        api.credentials.set_master_keys(Ok(master()));
        kept = Some(api.credentials.clone());
    })
    .await;
    let credentials = kept.unwrap();
    credentials.refresh().await.unwrap();
    (server, credentials)
}

async fn delete(server: &Server, path: &str) -> crate::server::Answer {
    server.send(server.request(Method::DELETE, path)).await
}

#[tokio::test]
async fn a_key_is_set_replaced_and_deleted_and_never_shown() {
    let (server, _) = with_master_key().await;
    server.get(PLACE).await.problem(404);
    delete(&server, PLACE).await.problem(404);
    let set = server.put(PLACE, &json!({"key": CANARY})).await;
    assert_eq!(set.header("cache-control"), "no-store");
    let view = set.expect(200);
    assert_eq!(
        (&view["tenant"], &view["provider"], &view["credential"], &view["last4"], &view["state"], &view["readable"]),
        (&json!("acme"), &json!("simulated"), &json!("@acme"), &json!("WXYZ"), &json!("active"), &json!(true))
    );
    assert_eq!((&view["version"], &view["failures"], &view["kek_id"] == ""), (&json!(1), &json!(0), false));
    let again = server.put(PLACE, &json!({"key": format!("{CANARY}2")})).await.expect(200);
    assert_eq!((&again["version"], &again["created_at"]), (&json!(2), &view["created_at"]));
    let list = server.get("/v1/tenants/acme/credentials").await;
    let shown = server.get(PLACE).await;
    for answer in [&set, &list, &shown] {
        assert!(!answer.text.contains("canary"), "{}", answer.text);
    }
    assert_eq!(list.expect(200)["credentials"].as_array().unwrap().len(), 1);
    assert_eq!(list.json()["credential_policy"], "own_then_default");
    let other = server.get("/v1/tenants/globex/credentials").await.expect(200);
    assert_eq!(other["credentials"], json!([]));

    assert_eq!(delete(&server, PLACE).await.status, 204);
    server.get(PLACE).await.problem(404);
    delete(&server, PLACE).await.problem(404);
    let all = "/v1/tenants/acme/credentials";
    let named = server.put(all, &json!({"provider": "simulated", "key": "sk-other"})).await.expect(200);
    assert_eq!((&named["provider"], &named["version"]), (&json!("simulated"), &json!(4)));
    for body in [json!({"key": CANARY}), json!({"key": CANARY, "provider": "nobody"})] {
        let problem = server.put(all, &body).await.problem(422);
        assert!(problem["errors"][0]["pointer"] == "/provider" && !problem.to_string().contains("canary"), "{problem}");
    }
    let after = server.put(PLACE, &json!({"key": "sk-short"})).await.expect(200);
    assert_eq!((&after["version"], &after["last4"]), (&json!(5), &json!("")), "a short key is not hinted at");
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_not_repeated() {
    let (server, _) = with_master_key().await;
    for key in [json!("sk-canary a"), json!("sk-canary\n"), json!(""), json!("ü-canary"), json!("x".repeat(3_000))] {
        let problem = server.put(PLACE, &json!({"key": key})).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "/key");
        assert!(!problem.to_string().contains("canary"), "{problem}");
    }
    for body in [json!({"key": 1234567890}), json!({"key": {"canary": 1}}), json!({}), json!({"key": null})] {
        let problem = server.put(PLACE, &body).await.problem(422);
        assert!(!problem.to_string().contains("canary") && !problem.to_string().contains("12345"), "{problem}");
    }
    server.put("/v1/tenants/acme/credentials/nobody", &json!({"key": CANARY})).await.problem(404);
    server.put("/v1/tenants/a%20b/credentials/simulated", &json!({"key": CANARY})).await.problem(422);
    let text = server.request(Method::PUT, PLACE).body(CANARY);
    assert!(!server.send(text).await.text.contains("canary"));
    let broken = format!("{{\"key\": \"{CANARY}\"");
    let broken = server.request(Method::PUT, PLACE).header("content-type", "application/json").body(broken);
    let broken = server.send(broken).await;
    assert!(broken.status == 400 && !broken.text.contains("canary"), "{}", broken.text);
    server.get(PLACE).await.problem(404);
}

#[tokio::test]
async fn without_a_master_key_nothing_is_kept_and_the_report_says_so() {
    let server = Server::start().await;
    let problem = server.put(PLACE, &json!({"key": CANARY})).await.problem(503);
    assert!(problem["detail"].as_str().unwrap().contains("master-key"), "{problem}");
    let report = server.get("/v1/credentials").await.expect(200);
    assert_eq!((&report["credentials"], &report["master_keys"]), (&json!(0), &json!([])));
    server.send(server.request(Method::POST, "/v1/credentials/rewrap")).await.problem(503);
}

#[tokio::test]
async fn a_key_is_switched_off_and_on() {
    let (server, credentials) = with_master_key().await;
    server.patch(PLACE, &json!({"enabled": false})).await.problem(404);
    server.put(PLACE, &json!({"key": CANARY})).await.expect(200);
    let off = server.patch(PLACE, &json!({"enabled": false, "reason": "their audit"})).await.expect(200);
    assert_eq!((&off["state"], &off["reason"]), (&json!("disabled"), &json!("their audit")));
    for body in [json!({}), json!({"enabled": 1}), json!({"enabled": true, "reason": "x"}), json!({"key": CANARY})] {
        let problem = server.patch(PLACE, &body).await.problem(422);
        assert!(!problem.to_string().contains("canary"));
    }
    let on = server.patch(PLACE, &json!({"enabled": true})).await.expect(200);
    assert_eq!((&on["state"], on.get("reason")), (&json!("active"), None));
    let id = queue_core::credentials::CredentialId { tenant: "acme".into(), provider: "simulated".into(), version: 1 };
    for _ in 0..3 {
        let note = CredentialNote::Refused { reason: "401: no".into(), max: 3 };
        server.stores.vault.note_credential(id.clone(), note, server.stores.clock.now()).await.unwrap();
    }
    let refused = server.get(PLACE).await.expect(200);
    assert_eq!((&refused["state"], &refused["failures"]), (&json!("disabled"), &json!(3)));
    assert_eq!(credentials.report().disabled, 1);
}

#[tokio::test]
async fn a_policy_decides_in_which_lane_a_job_waits() {
    let (server, _) = with_master_key().await;
    let tenant = "/v1/tenants/acme";
    assert_eq!(server.get(tenant).await.expect(200)["credential_policy"], "own_then_default");
    let problem = server.patch(tenant, &json!({"credential_policy": "mine"})).await.problem(422);
    assert!(problem.to_string().contains("own_only, own_then_default, default"), "{problem}");
    let job = json!({"kind": "llm", "tenant": "acme",
                     "payload": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}});
    let target = async || {
        let id = server.post("/v1/jobs", &job).await.expect(202)["id"].as_str().unwrap().parse().unwrap();
        let row = server.stores.reads.jobs(&[id]).await.unwrap().remove(0).unwrap();
        row.target.to_string()
    };
    assert_eq!(target().await, "simulated:gpt-4o-mini:default");
    let paused = server.patch(tenant, &json!({"paused": true, "credential_policy": "own_only"})).await.expect(200);
    assert_eq!((&paused["paused"], &paused["credential_policy"]), (&json!(true), &json!("own_only")));
    let resumed = server.patch(tenant, &json!({"paused": false})).await.expect(200);
    assert_eq!(resumed["credential_policy"], "own_only", "what is not named stays");
    assert_eq!(target().await, "simulated:gpt-4o-mini:@acme");
    server.patch(tenant, &json!({"credential_policy": "own_then_default"})).await.expect(200);
    assert_eq!(target().await, "simulated:gpt-4o-mini:default");
    server.put(PLACE, &json!({"key": CANARY})).await.expect(200);
    assert_eq!(target().await, "simulated:gpt-4o-mini:@acme");
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_a_rewrap_is_told_step_by_step() {
    let (server, credentials) = with_master_key().await;
    server.put(PLACE, &json!({"key": CANARY})).await.expect(200);
    let health = async || server.get("/health").await.json()["checks"]["credentials"].as_str().unwrap().to_owned();
    assert_eq!(health().await, "ok");
    let needed = server.get(PLACE).await.expect(200)["kek_id"].as_str().unwrap().to_owned();
    credentials.set_master_keys(Ok(master()));
    let said = health().await;
    assert!(said.contains("acme/simulated") && said.contains(&needed) && !said.contains("canary"), "{said}");
    let report = server.get("/v1/credentials").await.expect(200);
    assert_eq!((&report["unreadable"], &report["unreadable_credentials"][0]["kek_id"]), (&json!(1), &json!(needed)));
    assert_eq!(server.get(PLACE).await.expect(200)["readable"], false);
    let step = server.send(server.request(Method::POST, "/v1/credentials/rewrap")).await.expect(200);
    let current = report["master_keys"][0].clone();
    assert_eq!(step, json!({"done": 0, "left": 1, "unreadable": 1, "master_key": current}));
    // Set anew, it is kept with the key that is there.
    server.put(PLACE, &json!({"key": CANARY})).await.expect(200);
    assert_eq!(health().await, "ok");
    let step = server.send(server.request(Method::POST, "/v1/credentials/rewrap")).await.expect(200);
    assert_eq!(step, json!({"done": 0, "left": 0, "unreadable": 0, "master_key": current}));
}
