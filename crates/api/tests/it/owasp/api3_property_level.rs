//! API3: nobody sets a property that is not theirs to set, and nobody is shown one that is not theirs to see.
//!
//! What is shown is held by the schemas of the document (every answer of every test here is checked against its own, and they have no
//! members beyond what they name where that matters) and by the tests below; left open was what may be set.

use reqwest::Method;
use serde_json::{Value, json};

use super::Held;
use crate::server::Server;

pub(super) const HELD_BY: &[Held] = &[
    ("api/tests/it/keys.rs", "a_secret_is_shown_once"),
    ("api/tests/it/keys.rs", "a_narrowed_admin_hands_out_no_more_than_it_has"),
    ("api/tests/it/credentials.rs", "a_key_is_set_replaced_and_deleted_and_never_shown"),
    ("api/tests/it/webhooks.rs", "a_secret_is_rotated_and_shown_once"),
    ("api/tests/it/isolation.rs", "why_does_not_tell_a_tenant_what_all_spend"),
    ("cli/tests/it/canaries.rs", "what_is_secret_is_nowhere_but_where_it_belongs"),
];

/// What a row has that only the server writes.
const OURS: [&str; 16] = [
    "id",
    "state",
    "standing",
    "epoch",
    "attempts",
    "recoveries",
    "redrives",
    "key_id",
    "accepted_at",
    "finished_at",
    "result",
    "cost_usd",
    "usage",
    "traceparent",
    "target",
    "served_by",
];

#[tokio::test]
async fn a_job_is_not_given_what_only_the_server_writes() {
    let server = Server::start().await;
    let id = server.submit(json!({})).await;
    for name in OURS {
        let mut job = json!({"kind": "probe", "payload": {}});
        job[name] = json!("mine");
        let pointer = format!("/{name}");
        for refused in [
            server.post("/v1/jobs", &job).await.problem(422),
            server.patch(&format!("/v1/jobs/{id}"), &json!({name: "mine"})).await.problem(422),
        ] {
            let named = refused["errors"].as_array().unwrap().iter().any(|error| error["pointer"] == pointer);
            assert!(named, "{name}: {refused}");
        }
        let bulk = server.post("/v1/jobs/bulk", &json!([job])).await.expect(200);
        assert_eq!(bulk["jobs"][0]["error"]["status"], 422, "{name}: {bulk}");
    }
}

/// Whatever a body is for: a member that nobody knows is an error and not a hope.
#[tokio::test]
async fn no_route_takes_a_member_that_it_does_not_know() {
    let server = Server::start().await;
    let document = serde_json::to_value(api::openapi()).unwrap();
    let (mut told, mut elsewhere) = (0, Vec::new());
    for (path, item) in document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with("/v1")) {
        let methods = item.as_object().unwrap().iter().filter(|(_, operation)| operation["requestBody"].is_object());
        for (method, _) in methods {
            if path == "/v1/jobs/bulk" {
                continue;
            }
            let filled = path.replace("{id}", "01900000-0000-7000-8000-000000000000").replace("{target}", "a:b:c");
            let filled: Vec<_> = filled.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect();
            let method: Method = method.to_uppercase().parse().unwrap();
            let request = server.request(method.clone(), &filled.join("/")).json(&json!({"is_admin": true}));
            let answer = server.send(request).await;
            assert!(answer.status.is_client_error() || answer.status == 503, "{method} {path}: {}", answer.text);
            let named = |error: &Value| error["pointer"] == "/is_admin";
            if answer.status == 422 && answer.json()["errors"].as_array().unwrap().iter().any(named) {
                told += 1;
            } else {
                elsewhere.push(format!("{method} {path}: {}", answer.status));
            }
        }
    }
    // The others have looked first for what their address names, and it is not there.
    assert!(told >= 15 && told > elsewhere.len(), "{told} say so; the others: {elsewhere:#?}");
}
