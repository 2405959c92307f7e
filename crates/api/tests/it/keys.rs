//! API keys: shown once, narrowed, rotated with an overlap, taken back.

use std::sync::Arc;

use crate::server::{Answer, PATIENCE, Server};
use api::SigningKeys;
use queue_core::{
    journal::{KeyPage, Role},
    keys::Secret,
    time::{Clock, ManualClock, Timestamp},
};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp(1_790_000_000_000);

async fn with_clock() -> (Server, ManualClock) {
    let clock = ManualClock::at(NOW);
    (Server::start_at(Arc::new(clock.clone()), |_| {}).await, clock)
}

async fn create(server: &Server, body: &Value) -> Value {
    server.post("/v1/keys", body).await.expect(201)
}

async fn delete(server: &Server, path: &str) -> Answer {
    server.send(server.request(Method::DELETE, path)).await
}

/// What a secret gets when it asks for jobs.
async fn status_with(server: &Server, key: &Value) -> u16 {
    let request = server.http.get(format!("{}/v1/jobs", server.url)).bearer_auth(key.as_str().unwrap());
    server.send(request).await.status.as_u16()
}

#[tokio::test]
async fn a_secret_is_shown_once() {
    let server = Server::start().await;
    let answer = server.post("/v1/keys", &json!({"name": "ci", "tenant": "acme"})).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    let made = answer.expect(201);
    let secret = Secret::parse(made["key"].as_str().unwrap()).unwrap();
    assert_eq!((&made["id"], &made["role"], &made["state"]), (&json!(secret.id()), &json!("user"), &json!("active")));
    assert_eq!((&made["tenant"], &made["name"]), (&json!("acme"), &json!("ci")));
    assert_eq!(status_with(&server, &made["key"]).await, 200);
    let tail = &made["key"].as_str().unwrap()[13..];
    let path = format!("/v1/keys/{}", secret.id());
    for path in [path.as_str(), "/v1/keys", "/v1/keys?tenant=acme", "/v1/keys?revoked=true"] {
        let shown = server.get(path).await;
        shown.expect(200);
        assert!(shown.text.contains(secret.id()) && !shown.text.contains(tail), "{path}: {}", shown.text);
        assert!(!shown.text.contains("hash"), "{path}: {}", shown.text);
    }
    assert!(!server.get("/v1/keys?tenant=globex").await.text.contains(secret.id()));
    server.get("/v1/keys/nobody00").await.problem(404);
}

#[tokio::test]
async fn wrong_keys_are_refused_with_a_reason() {
    let server = Server::start().await;
    for (body, pointer) in [
        (json!({}), "/name"),
        (json!({"name": ""}), "/name"),
        (json!({"name": "x", "role": "root"}), "/role"),
        (json!({"name": "x", "tenant": "a b"}), "/tenant"),
        (json!({"name": "x", "scopes": []}), "/scopes"),
        (json!({"name": "x", "scopes": ["cars:drive"]}), "/scopes"),
        (json!({"name": "x", "scopes": [7]}), "/scopes/0"),
        (json!({"name": "x", "expires_at": "2001-01-01T00:00:00Z"}), "/expires_at"),
        (json!({"name": "x", "expires_at": "9999-12-31T00:00:00Z"}), "/expires_at"),
        (json!({"name": "x", "secret": "mine"}), "/secret"),
    ] {
        let problem = server.post("/v1/keys", &body).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    let own = &server.key[4..12];
    let path = format!("/v1/keys/{own}/rotate");
    server.post(&path, &json!({"overlap": "31d"})).await.problem(422);
    server.post(&path, &json!({"overlap": "soon"})).await.problem(422);
    delete(&server, "/v1/keys").await.problem(422);
}

#[tokio::test]
async fn a_key_ends_by_itself() {
    let (server, clock) = with_clock().await;
    let made = create(&server, &json!({"name": "week", "expires_at": NOW.plus_ms(1_000).to_string()})).await;
    assert_eq!(status_with(&server, &made["key"]).await, 200);
    clock.advance_ms(1_000);
    // At once, whatever is remembered of it.
    assert_eq!(status_with(&server, &made["key"]).await, 401);
    let id = made["id"].as_str().unwrap();
    assert_eq!(server.get(&format!("/v1/keys/{id}")).await.expect(200)["state"], "expired");
    server.post(&format!("/v1/keys/{id}/rotate"), &json!({})).await.problem(409);
}

#[tokio::test]
async fn both_secrets_open_while_a_rotation_overlaps() {
    let (server, clock) = with_clock().await;
    let made = create(&server, &json!({"name": "app", "role": "analyst"})).await;
    let id = made["id"].as_str().unwrap();
    let rotate = format!("/v1/keys/{id}/rotate");
    let next = server.post(&rotate, &json!({"overlap": "1m"})).await.expect(200);
    assert_eq!((&next["id"], &next["role"]), (&made["id"], &json!("analyst")));
    assert_ne!(next["key"], made["key"]);
    assert_eq!(next["previous_until"], NOW.plus_ms(60_000).to_string());
    for key in [&made["key"], &next["key"]] {
        assert_eq!(status_with(&server, key).await, 200);
    }
    clock.advance_ms(60_000);
    assert_eq!([status_with(&server, &made["key"]).await, status_with(&server, &next["key"]).await], [401, 200]);
    // Without overlap at once, and by default for a day.
    let last = server.post(&rotate, &json!({"overlap": "0s"})).await.expect(200);
    assert_eq!([status_with(&server, &next["key"]).await, status_with(&server, &last["key"]).await], [401, 200]);
    let bare = server.send(server.request(Method::POST, &rotate)).await.expect(200);
    assert_eq!(bare["previous_until"], clock.now().plus_ms(86_400_000).to_string());
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_at_once() {
    let server = Server::start().await;
    let made = create(&server, &json!({"name": "leaked"})).await;
    assert_eq!(status_with(&server, &made["key"]).await, 200);
    let path = format!("/v1/keys/{}", made["id"].as_str().unwrap());
    assert_eq!(delete(&server, &path).await.status.as_u16(), 204);
    assert_eq!(status_with(&server, &made["key"]).await, 401);
    assert_eq!(delete(&server, &path).await.status.as_u16(), 204, "again");
    assert_eq!(server.get(&path).await.expect(200)["state"], "revoked");
    let request = server.http.get(format!("{}/v1/jobs", server.url)).bearer_auth(made["key"].as_str().unwrap());
    let problem = server.send(request).await.problem(401);
    assert!(problem["errors"][0]["reason"].as_str().unwrap().contains("revoked"), "{problem}");
    delete(&server, "/v1/keys/nobody00").await.problem(404);
}

#[tokio::test]
async fn all_keys_of_a_tenant_are_taken_back() {
    let server = Server::start().await;
    let mut keys = Vec::new();
    for tenant in ["acme", "acme", "globex"] {
        keys.push(create(&server, &json!({"name": "x", "tenant": tenant})).await);
    }
    let revoked = delete(&server, "/v1/keys?tenant=acme").await.expect(200);
    assert_eq!(revoked["revoked"].as_array().unwrap().len(), 2);
    let mut statuses = Vec::new();
    for key in &keys {
        statuses.push(status_with(&server, &key["key"]).await);
    }
    assert_eq!(statuses, [401, 401, 200]);
    assert_eq!(delete(&server, "/v1/keys?tenant=acme").await.expect(200)["revoked"], json!([]));
}

#[tokio::test]
async fn the_last_admin_key_stays() {
    let server = Server::start().await;
    let own = server.key[4..12].to_owned();
    let refused = delete(&server, &format!("/v1/keys/{own}")).await.problem(409);
    assert_eq!(refused["type"], "urn:longshore:problem:last-admin-key");
    delete(&server, "/v1/keys?tenant=default").await.problem(409);
    // One that makes no keys, or ends by itself, is none that could stand in for it.
    create(&server, &json!({"name": "reader", "role": "admin", "scopes": ["*:read"]})).await;
    let soon = queue_core::time::SystemClock.now().plus_ms(3_600_000).to_string();
    create(&server, &json!({"name": "soon", "role": "admin", "expires_at": soon})).await;
    delete(&server, &format!("/v1/keys/{own}")).await.problem(409);
    let other = create(&server, &json!({"name": "second", "role": "admin", "tenant": "ops"})).await;
    assert_eq!(delete(&server, &format!("/v1/keys/{own}")).await.status.as_u16(), 204);
    assert_eq!(status_with(&server, &json!(server.key)).await, 401);
    assert_eq!(status_with(&server, &other["key"]).await, 200);
}

#[tokio::test]
async fn a_narrowed_admin_hands_out_no_more_than_it_has() {
    let server = Server::start().await;
    let scopes = json!(["keys:*", "jobs:read"]);
    let made = create(&server, &json!({"name": "issuer", "role": "admin", "scopes": scopes})).await;
    let issuer = made["key"].as_str().unwrap();
    let ask = async |path: &str, body: Value| {
        let request = server.http.post(format!("{}{path}", server.url)).bearer_auth(issuer).json(&body);
        server.send(request).await
    };
    ask("/v1/keys", json!({"name": "reader", "scopes": ["jobs:read"]})).await.expect(201);
    for more in
        [json!({"name": "x"}), json!({"name": "x", "scopes": ["jobs:*"]}), json!({"name": "x", "role": "admin"})]
    {
        ask("/v1/keys", more).await.problem(403);
    }
    // Nor does it get the secret of one that may do more.
    ask(&format!("/v1/keys/{}/rotate", &server.key[4..12]), json!({})).await.problem(403);
    assert_eq!(status_with(&server, &json!(server.key)).await, 200);
}

/// A key that ends makes none that ends later, and gets the secret of none; nor does a token that was made from it.
#[tokio::test]
async fn no_key_outlives_its_maker() {
    let clock = ManualClock::at(NOW);
    let signing = SigningKeys::parse(SigningKeys::generate().unwrap().expose_secret()).unwrap();
    let server = Server::start_at(Arc::new(clock), |api| api.tokens.set_signing_keys(signing)).await;
    let end = NOW.plus_ms(3_600_000).to_string();
    let made = create(&server, &json!({"name": "temp", "role": "admin", "expires_at": end})).await;
    let temp = made["key"].as_str().unwrap();
    let ask = async |key: &str, path: &str, body: &Value| {
        server.send(server.http.post(format!("{}{path}", server.url)).bearer_auth(key).json(body)).await
    };
    let token = ask(temp, "/v1/auth/token", &json!({})).await.expect(200)["token"].as_str().unwrap().to_owned();
    for caller in [temp, &token] {
        for late in [Value::Null, json!(NOW.plus_ms(3_600_001).to_string())] {
            let refused = ask(caller, "/v1/keys", &json!({"name": "x", "expires_at": late})).await.problem(422);
            assert_eq!(refused["errors"][0]["pointer"], "/expires_at");
            assert!(refused["errors"][0]["reason"].as_str().unwrap().contains(&end), "{refused}");
        }
        ask(caller, "/v1/keys", &json!({"name": "x", "expires_at": end})).await.expect(201);
        let endless = format!("/v1/keys/{}/rotate", &server.key[4..12]);
        ask(caller, &endless, &json!({})).await.problem(403);
    }
    // Its own secret it may change: that ends as before.
    let own = format!("/v1/keys/{}/rotate", made["id"].as_str().unwrap());
    assert_eq!(ask(temp, &own, &json!({})).await.expect(200)["expires_at"], end);
    // Whoever does not end makes keys without an end.
    create(&server, &json!({"name": "y"})).await;
}

#[tokio::test]
async fn the_last_use_is_written_down_to_the_minute() {
    let (server, clock) = with_clock().await;
    let made = create(&server, &json!({"name": "app"})).await;
    let id = made["id"].as_str().unwrap();
    let used = async |at: Timestamp| {
        let seen = async {
            while server.stores.identity.key(id).await.unwrap().unwrap().last_used_at != Some(at) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.expect("the use is noted");
    };
    assert_eq!(server.get(&format!("/v1/keys/{id}")).await.expect(200).get("last_used_at"), None);
    status_with(&server, &made["key"]).await;
    used(NOW).await;
    clock.advance_ms(59_999);
    status_with(&server, &made["key"]).await;
    clock.advance_ms(1);
    status_with(&server, &made["key"]).await;
    used(NOW.plus_ms(60_000)).await;
    assert_eq!(server.get(&format!("/v1/keys/{id}")).await.expect(200)["last_used_at"], clock.now().to_string());
}

#[tokio::test]
async fn keys_are_listed_page_by_page() {
    let server = Server::start().await;
    for n in 0..5 {
        create(&server, &json!({"name": format!("k{n}"), "tenant": "acme"})).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/v1/keys?tenant=acme&limit=2{cursor}")).await.expect(200);
        seen.extend(page["keys"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let page = KeyPage { tenant: Some("acme".into()), limit: 10, ..KeyPage::default() };
    let all = server.stores.identity.keys(&page).await.unwrap();
    assert_eq!(seen, all.iter().map(|key| key.id.clone()).collect::<Vec<_>>());
    assert_eq!(seen.len(), 5);
    assert!(all.iter().all(|key| key.role == Role::User));
    server.get("/v1/keys?cursor=nonsense").await.problem(422);
}
