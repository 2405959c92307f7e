//! Webhooks over HTTP: endpoints, secrets, deliveries.

use std::sync::Arc;

use crate::server::{Hand, Server};
use queue_core::{
    credentials::{Credentials, MasterKeys, Rewrapped},
    egress::Allowed,
    webhooks::{Listing, Owner, SealedSecret, open_all, rewrap, unreadable},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

/// A server that has a master key.
async fn server() -> Server {
    Server::start_with(|api| {
        let credentials = Credentials::of(api.stores.vault.clone());
        let key = MasterKeys::generate().unwrap();
        credentials.set_master_keys(MasterKeys::parse(key.expose_secret()));
        api.credentials = Arc::new(credentials);
        api.settings.outbound = Allowed { http: true, networks: vec!["127.0.0.0/8".parse().unwrap()] };
    })
    .await
}

#[tokio::test]
async fn an_endpoint_is_made_changed_and_deleted() {
    let server = server().await;
    let made = server
        .post("/v1/webhooks", &json!({"url": "http://127.0.0.1:9/x", "events": ["job.dead"], "tenant": "acme"}))
        .await;
    let place = made.header("location").to_owned();
    let made = made.expect(201);
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"), "{made}");
    assert_eq!(place, format!("/v1/webhooks/{}", made["id"].as_str().unwrap()));
    let shown = server.get(&place).await.expect(200);
    assert!(shown.get("secret").is_none(), "shown once");
    assert_eq!(
        (&shown["events"], &shown["tenant"], &shown["enabled"]),
        (&json!(["job.dead"]), &json!("acme"), &json!(true))
    );
    let off = server
        .patch(&place, &json!({"enabled": false, "reason": "moving", "events": ["job.succeeded", "job.dead"]}))
        .await;
    let off = off.expect(200);
    assert_eq!((&off["enabled"], &off["reason"], &off["version"]), (&json!(false), &json!("moving"), &json!(2)));
    let stale =
        server.request(reqwest::Method::PATCH, &place).header("if-match", "\"1\"").json(&json!({"enabled": true}));
    server.send(stale).await.problem(412);
    let on = server.patch(&place, &json!({"enabled": true})).await.expect(200);
    assert!(on.get("reason").is_none());
    assert_eq!(server.get("/v1/webhooks?tenant=acme").await.expect(200)["webhooks"].as_array().unwrap().len(), 1);
    assert_eq!(server.get("/v1/webhooks?tenant=globex").await.expect(200)["webhooks"], json!([]));
    server.send(server.request(reqwest::Method::DELETE, &place)).await.expect(204);
    server.get(&place).await.problem(404);
    server.send(server.request(reqwest::Method::DELETE, &place)).await.problem(404);
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_its_place() {
    let server = server().await;
    for (body, pointer, why) in [
        (json!({}), "/url", "is required"),
        (json!({"url": "ftp://x.example/"}), "/url", "scheme"),
        (json!({"url": "https://10.0.0.1/"}), "/url", "private"),
        (json!({"url": "https://a:b@x.example/"}), "/url", "credentials"),
        (json!({"url": "https://x.example/", "events": ["job.started"]}), "/events", "no event"),
        (json!({"url": "https://x.example/", "events": []}), "/events", "names no event"),
        (json!({"url": "https://x.example/", "tenant": "a b"}), "/tenant", "contains"),
        (json!({"url": "https://x.example/", "secret": "whsec_x"}), "/secret", "not a known field"),
    ] {
        let problem = server.post("/v1/webhooks", &body).await.problem(422);
        let error = &problem["errors"][0];
        assert_eq!(error["pointer"], pointer, "{body}: {problem}");
        assert!(error["reason"].as_str().unwrap().contains(why), "{body}: {problem}");
    }
    let made = server.post("/v1/webhooks", &json!({"url": "https://x.example/"})).await.expect(201);
    assert_eq!(made["events"].as_array().unwrap().len(), 9);
    let place = format!("/v1/webhooks/{}", made["id"].as_str().unwrap());
    for (body, pointer) in [
        (json!({"url": null}), "/url"),
        (json!({"reason": "x"}), "/reason"),
        (json!({"tenant": "acme"}), "/tenant"),
        (json!({"enabled": "yes"}), "/enabled"),
    ] {
        let problem = server.patch(&place, &body).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    for path in ["/v1/webhooks/x", "/v1/webhook-deliveries/00000000-0000-0000-0000-000000000000"] {
        server.get(path).await.problem(404);
    }
    for query in ["cursor=x", "state=lost", "webhook=1", "limit=0"] {
        server.get(&format!("/v1/webhook-deliveries?{query}")).await.problem(422);
    }
    server.post(&format!("{place}/rotate-secret"), &json!({"overlap": "31d"})).await.problem(422);
}

#[tokio::test]
async fn a_secret_is_rotated_and_shown_once() {
    let server = server().await;
    let made = server.post("/v1/webhooks", &json!({"url": "https://x.example/"})).await.expect(201);
    let path = format!("/v1/webhooks/{}/rotate-secret", made["id"].as_str().unwrap());
    let second = server.post(&path, &json!({"overlap": "1h"})).await;
    assert_eq!(second.header("cache-control"), "no-store");
    let second = second.expect(200);
    assert!(second["secret"] != made["secret"] && second["former_until"].is_string(), "{second}");
    assert_eq!(second["version"], 2);
    let first = server.post("/v1/tenants/acme/signing-secret", &json!({})).await.expect(200);
    assert!(first.get("former_until").is_none(), "{first}");
    assert_eq!(first["version"], 1);
    assert!(first["jobs_secret"].is_string() && first["jobs_secret"] != first["secret"], "{first}");
    assert!(second.get("jobs_secret").is_none(), "an endpoint is sent no jobs");
}

#[tokio::test]
async fn a_job_tells_its_own_url_and_the_endpoints() {
    let server = server().await;
    let mut hand = Hand::join(&server.stores).await;
    let made = server.post("/v1/webhooks", &json!({"url": "https://x.example/"})).await.expect(201);
    let id = server.submit(json!({"webhook": {"url": "http://127.0.0.1:9/done"}, "tenant": "acme"})).await;
    let now = server.stores.clock.now();
    let secrets = server.stores.webhooks.secrets(&Owner::Tenant("acme".into()), now).await.unwrap();
    assert_eq!(secrets.len(), 1, "made with its first job");
    let held = hand.claim().await;
    hand.succeed(held, &json!({"text": "done"})).await;
    let page = server.get(&format!("/v1/webhook-deliveries?job={id}")).await.expect(200);
    let deliveries = page["deliveries"].as_array().unwrap();
    assert_eq!(deliveries.len(), 2, "{page}");
    let own = deliveries.iter().find(|one| one.get("webhook").is_none()).unwrap();
    assert_eq!(
        (&own["url"], &own["event"], &own["state"]),
        (&json!("http://127.0.0.1:9/done"), &json!("job.succeeded"), &json!("pending"))
    );
    assert_eq!(own["tenant"], "acme");
    let of_endpoint = format!("/v1/webhook-deliveries?webhook={}", made["id"].as_str().unwrap());
    assert_eq!(server.get(&of_endpoint).await.expect(200)["deliveries"].as_array().unwrap().len(), 1);
    let place = format!("/v1/webhook-deliveries/{}", own["id"].as_str().unwrap());
    let detail = server.get(&place).await.expect(200);
    assert_eq!((&detail["history"], &detail["job"]), (&json!([]), &json!(id)));
    let again = server.send(server.request(reqwest::Method::POST, &format!("{place}/replay"))).await.expect(202);
    assert_eq!(again["state"], "pending");
    let none = server.get("/v1/webhook-deliveries?state=failed").await.expect(200);
    assert_eq!(none, json!({"deliveries": []}));
}

#[tokio::test]
async fn lists_are_paged_and_narrowed() {
    let server = server().await;
    let mut hand = Hand::join(&server.stores).await;
    for tenant in ["a", "b", "a", "b", "a"] {
        server.submit(json!({"webhook": {"url": "https://x.example/"}, "tenant": tenant})).await;
        let held = hand.claim().await;
        hand.succeed(held, &Value::Null).await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/webhook-deliveries?tenant=a&limit=2".to_owned();
    loop {
        let page = server.get(&path).await.expect(200);
        seen.extend(page["deliveries"].as_array().unwrap().iter().map(|one| one["id"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/webhook-deliveries?tenant=a&limit=2&cursor={cursor}");
    }
    assert_eq!(seen.len(), 3);
    let all = server.stores.webhooks.deliveries(Listing::All, i64::MAX, 100).await.unwrap();
    assert_eq!(all.len(), 5);
}

#[tokio::test]
async fn without_a_master_key_nothing_is_promised_that_could_not_be_signed() {
    let server = Server::start().await;
    let refused = server.post("/v1/webhooks", &json!({"url": "https://x.example/"})).await.problem(503);
    assert!(refused["detail"].as_str().unwrap().contains("master key"), "{refused}");
    let job = json!({"kind": "probe", "payload": {}, "webhook": {"url": "https://x.example/"}});
    server.post("/v1/jobs", &job).await.problem(503);
    server.post("/v1/jobs", &json!({"kind": "probe", "payload": {}})).await.expect(202);
}

/// A master key that is taken out after a rewrap is missed by no signing secret.
#[tokio::test]
async fn signing_secrets_follow_the_master_key() {
    let server = server().await;
    let made = server.post("/v1/webhooks", &json!({"url": "https://x.example/"})).await.expect(201);
    let owner = Owner::Endpoint(made["id"].as_str().unwrap().parse().unwrap());
    let now = server.stores.clock.now();
    let kek = |found: &[SealedSecret]| found[0].sealed.kek_id.clone();
    let before = server.stores.webhooks.secrets(&owner, now).await.unwrap();
    let report = server.get("/v1/credentials").await.expect(200);
    assert_eq!((&report["to_rewrap"], &report["unreadable"]), (&json!(0), &json!(0)));
    assert_eq!(report["master_keys"], json!([kek(&before)]));

    // Another process has a new key and no longer the old one: it says what it cannot read, and leaves it.
    let new = MasterKeys::generate().unwrap();
    let only_new = MasterKeys::parse(new.expose_secret()).unwrap();
    let store = &*server.stores.webhooks;
    assert_eq!(rewrap(store, &only_new).await.unwrap(), Rewrapped { done: 0, left: 1, unreadable: 1 });
    let (behind, lost) = unreadable(store, &only_new).await.unwrap();
    assert_eq!((behind, &lost[0].0, &lost[0].1), (1, &owner.to_string(), &kek(&before)));
    assert!(open_all(&only_new, &owner, &before).is_err());
}

#[tokio::test]
async fn a_rewrap_covers_signing_secrets() {
    let (old, new) = (MasterKeys::generate().unwrap(), MasterKeys::generate().unwrap());
    let both = format!("{}\n{}", new.expose_secret(), old.expose_secret());
    let held = Arc::new(std::sync::OnceLock::<Arc<Credentials>>::new());
    let keep = held.clone();
    let server = Server::start_with(move |api| {
        let credentials = Arc::new(Credentials::of(api.stores.vault.clone()));
        credentials.set_master_keys(MasterKeys::parse(old.expose_secret()));
        api.credentials = credentials.clone();
        keep.set(credentials).ok();
    })
    .await;
    let made = server.post("/v1/webhooks", &json!({"url": "https://x.example/"})).await.expect(201);
    let owner = Owner::Endpoint(made["id"].as_str().unwrap().parse().unwrap());
    held.get().unwrap().set_master_keys(MasterKeys::parse(&both));
    assert_eq!(server.get("/v1/credentials").await.expect(200)["to_rewrap"], 1);
    let step = server.send(server.request(reqwest::Method::POST, "/v1/credentials/rewrap")).await.expect(200);
    assert_eq!((&step["done"], &step["left"]), (&json!(1), &json!(0)));
    assert_eq!(server.get("/v1/credentials").await.expect(200)["to_rewrap"], 0);
    let sealed = server.stores.webhooks.secrets(&owner, server.stores.clock.now()).await.unwrap();
    let opened = open_all(&MasterKeys::parse(new.expose_secret()).unwrap(), &owner, &sealed).unwrap();
    assert_eq!(opened[0].expose_secret(), made["secret"].as_str().unwrap());
}
