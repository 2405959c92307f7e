//! How often keys and tenants may ask: what passes, what is told, who is counted, and one limit over several servers.

use std::{sync::Arc, time::Duration};

use crate::server::{Answer, PATIENCE, Server, stream::Watch};
use api::SigningKeys;
use queue_core::{
    dispatcher::redis::{RedisAddress, RedisConfig},
    journal::{ApiKey, Role},
    keys::Secret,
    request_limits::{Away, Rates, RequestLimits, Rules, fleet::FleetRequestLimits, redis::RedisRequestLimits},
    time::{Clock, ManualClock, SystemClock, Timestamp},
};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testkit::RedisServer;

const NOW: Timestamp = Timestamp(1_790_000_000_000);

fn rates(requests: u32, submits: u32) -> Rates {
    let rate = |rate| (rate > 0).then_some(rate);
    Rates { requests_per_minute: rate(requests), llm_submits_per_minute: rate(submits) }
}

/// Users may do so much in a minute, and each tenant so much; 0: any number.
fn rules(user: (u32, u32), tenant: (u32, u32)) -> Rules {
    Rules {
        by_role: [(Role::User, rates(user.0, user.1))].into(),
        each_tenant: rates(tenant.0, tenant.1),
        ..Rules::default()
    }
}

async fn server(rules: Rules) -> (Server, ManualClock) {
    let clock = ManualClock::at(NOW);
    let server = Server::start_at(Arc::new(clock.clone()), |api| api.settings.request_limits = rules).await;
    (server, clock)
}

/// A key, and its id.
async fn key(server: &Server, tenant: &str, role: Role) -> (String, String) {
    let secret = Secret::generate();
    let row = secret.to_row(tenant.into(), role, "test", server.stores.clock.now());
    server.stores.identity.add_key(row).await.unwrap();
    (secret.reveal(), secret.id().to_owned())
}

async fn ask(server: &Server, key: &str, method: Method, path: &str, body: Option<&Value>) -> Answer {
    let mut request = server.http.request(method, format!("{}{path}", server.url)).bearer_auth(key);
    if let Some(body) = body {
        request = request.json(body);
    }
    server.send(request).await
}

async fn get(server: &Server, key: &str) -> Answer {
    ask(server, key, Method::GET, "/v1/jobs?limit=1", None).await
}

async fn submit(server: &Server, key: &str, job: &Value) -> Answer {
    ask(server, key, Method::POST, "/v1/jobs", Some(job)).await
}

fn chat() -> Value {
    json!({"kind": "llm", "payload": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}})
}

fn probe() -> Value {
    json!({"kind": "probe", "payload": {}})
}

/// How many of so many requests pass; the others are told to come again.
async fn passing(server: &Server, key: &str, tries: usize) -> usize {
    let mut passed = 0;
    for _ in 0..tries {
        let answer = get(server, key).await;
        passed += usize::from(answer.status.is_success());
        assert!(answer.status.is_success() || answer.status == 429, "{}", answer.text);
    }
    passed
}

#[tokio::test]
async fn each_answer_tells_how_the_limit_stands_and_a_refusal_when_to_come_again() {
    let (server, clock) = server(rules((3, 0), (0, 0))).await;
    let (user, _) = key(&server, "acme", Role::User).await;
    for left in [2, 1, 0] {
        let answer = get(&server, &user).await;
        answer.expect(200);
        assert_eq!(answer.header("ratelimit-policy"), "\"key_requests\";q=3;w=60;longshore-burst=3");
        assert_eq!(answer.header("ratelimit"), format!("\"key_requests\";r={left};t=20"));
        assert_eq!(answer.header("retry-after"), "");
    }
    clock.advance_ms(2_500);
    let refused = get(&server, &user).await;
    let problem = refused.problem(429);
    assert_eq!(problem["type"], "urn:longshore:problem:rate-limited");
    assert_eq!(
        (&problem["retry_after_seconds"], &problem["violated_policies"]),
        (&json!(18), &json!(["key_requests"]))
    );
    assert!(problem["detail"].as_str().unwrap().contains("3 requests a minute"), "{problem}");
    assert_eq!(refused.header("retry-after"), "18");
    assert_eq!(refused.header("ratelimit"), "\"key_requests\";r=0;t=18");
    assert_eq!(refused.header("ratelimit-policy"), "\"key_requests\";q=3;w=60;longshore-burst=3");
    // What it says is true: not a second earlier.
    clock.advance_ms(17_000);
    get(&server, &user).await.problem(429);
    clock.advance_ms(1_000);
    get(&server, &user).await.expect(200);
    get(&server, &user).await.problem(429);
    clock.advance_ms(3_600_000);
    assert_eq!(passing(&server, &user, 5).await, 3, "a burst is a minute's worth, however long nobody asked");
    let counted = server.get("/metrics").await.text;
    assert!(counted.contains("longshore_http_rate_limited_total{limit=\"key_requests\"}"), "{counted}");
}

#[tokio::test]
async fn jobs_that_ask_providers_are_counted_besides() {
    let (server, clock) = server(rules((100, 2), (0, 0))).await;
    let (user, _) = key(&server, "acme", Role::User).await;
    let first = submit(&server, &user, &chat()).await;
    first.expect(202);
    assert_eq!(first.header("ratelimit"), "\"key_requests\";r=99;t=1, \"key_llm_submits\";r=1;t=30");
    // Neither what is no such job nor what is wrong counts as one.
    submit(&server, &user, &probe()).await.expect(202);
    submit(&server, &user, &json!({"kind": "llm", "payload": {}})).await.problem(422);
    submit(&server, &user, &chat()).await.expect(202);
    let refused = submit(&server, &user, &chat()).await;
    let problem = refused.problem(429);
    assert_eq!(problem["violated_policies"], json!(["key_llm_submits"]));
    assert_eq!(refused.header("retry-after"), "30");
    let after = submit(&server, &user, &probe()).await;
    after.expect(202);
    // Five requests passed before it; the refused one took nothing of either limit.
    assert_eq!(after.header("ratelimit"), "\"key_requests\";r=95;t=1");
    clock.advance_ms(29_000);
    submit(&server, &user, &chat()).await.problem(429);
    clock.advance_ms(1_000);
    submit(&server, &user, &chat()).await.expect(202);
}

#[tokio::test]
async fn a_bulk_counts_each_job_and_lets_the_first_ones_in() {
    let (server, clock) = server(rules((100, 3), (0, 0))).await;
    let (user, _) = key(&server, "acme", Role::User).await;
    let bulk = json!([chat(), probe(), chat(), {"kind": "llm", "payload": 7}, chat(), chat(), probe()]);
    let path = "/v1/jobs/bulk";
    let keyed = async || {
        let request = server.http.post(format!("{}{path}", server.url)).bearer_auth(&user).json(&bulk);
        server.send(request.header("idempotency-key", "once")).await
    };
    let statuses = |answer: &Value| -> Vec<u64> {
        let status = |job: &Value| job["error"]["status"].as_u64().unwrap_or(202);
        answer["jobs"].as_array().unwrap().iter().map(status).collect()
    };
    let answer = keyed().await;
    let body = answer.expect(200);
    assert_eq!(statuses(&body), [202, 202, 202, 422, 202, 429, 202]);
    assert_eq!(body["jobs"][5]["error"]["violated_policies"], json!(["key_llm_submits"]));
    assert_eq!(answer.header("retry-after"), "20");
    assert_eq!(answer.header("ratelimit"), "\"key_requests\";r=99;t=1, \"key_llm_submits\";r=0;t=20");
    // What was accepted is answered as it was and counts no more; what was refused comes in later.
    let again = keyed().await.expect(200);
    assert_eq!(statuses(&again), [202, 202, 202, 422, 202, 429, 202]);
    assert_eq!(again["jobs"][0]["id"], body["jobs"][0]["id"]);
    clock.advance_ms(20_000);
    assert_eq!(statuses(&keyed().await.expect(200)), [202, 202, 202, 422, 202, 202, 202]);
    let (other, _) = key(&server, "acme", Role::User).await;
    let all = ask(&server, &other, Method::POST, path, Some(&json!(vec![chat(); 5]))).await.expect(200);
    assert_eq!(statuses(&all), [202, 202, 202, 429, 429]);
}

#[tokio::test]
async fn an_answer_that_is_repeated_submits_nothing() {
    let (server, _) = server(rules((6, 1), (0, 0))).await;
    let (user, _) = key(&server, "acme", Role::User).await;
    let once = async || {
        let request = server.http.post(format!("{}/v1/jobs", server.url)).bearer_auth(&user).json(&chat());
        server.send(request.header("idempotency-key", "once")).await
    };
    let first = once().await.expect(202);
    for _ in 0..3 {
        let again = once().await;
        assert_eq!((again.header("idempotency-replayed"), &again.expect(202)["id"]), ("true", &first["id"]));
    }
    submit(&server, &user, &chat()).await.problem(429);
    // It is a request all the same.
    once().await.expect(202);
    once().await.expect(202);
    let refused = once().await.problem(429);
    assert_eq!(refused["violated_policies"], json!(["key_requests"]));
}

#[tokio::test]
async fn wrong_submits_are_requests_too() {
    let (server, _) = server(rules((3, 0), (0, 0))).await;
    let (user, _) = key(&server, "acme", Role::User).await;
    let text = |body: &'static str| {
        let request = server.http.post(format!("{}/v1/jobs", server.url)).bearer_auth(&user);
        server.send(request.header("content-type", "application/json").body(body))
    };
    text("{").await.problem(400);
    text("{}").await.problem(422);
    ask(&server, &user, Method::POST, "/v1/jobs/bulk", Some(&json!([]))).await.problem(422);
    text("{}").await.problem(429);
    text("{").await.problem(429);
}

#[tokio::test]
async fn roles_over_tenants_are_not_limited_unless_somebody_says_so() {
    let (server, clock) = server(rules((2, 0), (3, 0))).await;
    let (operator, id) = key(&server, "acme", Role::Operator).await;
    let answer = get(&server, &operator).await;
    answer.expect(200);
    assert_eq!((answer.header("ratelimit"), answer.header("ratelimit-policy")), ("", ""));
    assert_eq!(passing(&server, &operator, 20).await, 20);
    let path = format!("/v1/keys/{id}");
    let set = server.patch(&path, &json!({"requests_per_minute": 4})).await.expect(200);
    assert_eq!((&set["requests_per_minute"], &set["llm_submits_per_minute"]), (&json!(4), &Value::Null));
    assert_eq!(passing(&server, &operator, 9).await, 4);
    // A larger number counts at once, and with none the role's holds again.
    server.patch(&path, &json!({"requests_per_minute": 6, "llm_submits_per_minute": 9})).await.expect(200);
    clock.advance_ms(60_000);
    assert_eq!(passing(&server, &operator, 9).await, 6);
    let set = server.patch(&path, &json!({"requests_per_minute": null})).await.expect(200);
    assert_eq!((&set["requests_per_minute"], &set["llm_submits_per_minute"]), (&Value::Null, &json!(9)));
    assert_eq!(passing(&server, &operator, 9).await, 9);
    for (body, pointer) in [
        (json!({"requests_per_minute": 0}), "/requests_per_minute"),
        (json!({"llm_submits_per_minute": 1_000_001}), "/llm_submits_per_minute"),
        (json!({"requests_per_minute": "many"}), "/requests_per_minute"),
        (json!({"name": "x"}), "/name"),
        (json!({}), ""),
    ] {
        let problem = server.patch(&path, &body).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    server.patch("/v1/keys/nobody00", &json!({"requests_per_minute": 4})).await.problem(404);
    let new = json!({"name": "ci", "tenant": "acme", "requests_per_minute": 1, "llm_submits_per_minute": 5});
    let made = server.post("/v1/keys", &new).await.expect(201);
    assert_eq!((&made["requests_per_minute"], &made["llm_submits_per_minute"]), (&json!(1), &json!(5)));
    assert_eq!(passing(&server, made["key"].as_str().unwrap(), 4).await, 1, "of the two that users have");
}

#[tokio::test]
async fn a_tenant_s_keys_share_its_limit() {
    let (server, clock) = server(rules((0, 0), (3, 0))).await;
    let (ann, _) = key(&server, "acme", Role::User).await;
    let (bob, _) = key(&server, "acme", Role::Analyst).await;
    let (stranger, _) = key(&server, "globex", Role::User).await;
    assert_eq!([passing(&server, &ann, 2).await, passing(&server, &bob, 3).await], [2, 1]);
    let refused = get(&server, &ann).await;
    assert_eq!(refused.problem(429)["violated_policies"], json!(["tenant_requests"]));
    assert_eq!(passing(&server, &stranger, 5).await, 3);
    let set = json!({"requests_per_minute": 5, "llm_submits_per_minute": 1});
    let tenant = server.patch("/v1/tenants/acme", &set).await.expect(200);
    assert_eq!((&tenant["requests_per_minute"], &tenant["llm_submits_per_minute"]), (&json!(5), &json!(1)));
    clock.advance_ms(60_000);
    assert_eq!(passing(&server, &bob, 9).await, 5);
    clock.advance_ms(60_000);
    submit(&server, &ann, &chat()).await.expect(202);
    let refused = submit(&server, &ann, &chat()).await.problem(429);
    assert_eq!(refused["violated_policies"], json!(["tenant_llm_submits"]));
    // A pause leaves the limit alone, and a whole request replaces it.
    server.patch("/v1/tenants/acme", &json!({"paused": false})).await.expect(200);
    assert_eq!(server.get("/v1/tenants/acme").await.expect(200)["requests_per_minute"], 5);
    let whole = server.put("/v1/tenants/acme", &json!({"llm_submits_per_minute": 7})).await.expect(200);
    assert_eq!((&whole["requests_per_minute"], &whole["llm_submits_per_minute"]), (&Value::Null, &json!(7)));
    server.patch("/v1/tenants/acme", &json!({"requests_per_minute": -1})).await.problem(422);
    server.put("/v1/tenants/acme", &json!({"llm_submits_per_minute": 1.5})).await.problem(422);
}

#[tokio::test]
async fn a_token_counts_as_the_key_that_it_was_made_from() {
    let clock = ManualClock::at(NOW);
    let server = Server::start_at(Arc::new(clock.clone()), |api| {
        api.settings.request_limits = rules((100, 0), (0, 0));
        api.tokens.set_signing_keys(SigningKeys::parse(SigningKeys::generate().unwrap().expose_secret()).unwrap());
    })
    .await;
    let (user, id) = key(&server, "acme", Role::User).await;
    server.patch(&format!("/v1/keys/{id}"), &json!({"requests_per_minute": 4})).await.expect(200);
    let token = ask(&server, &user, Method::POST, "/v1/auth/token", None).await.expect(200);
    let token = token["token"].as_str().unwrap();
    assert_eq!(passing(&server, token, 2).await, 2);
    assert_eq!([passing(&server, &user, 3).await, passing(&server, token, 3).await], [1, 0]);
    // One that may do less than its key is limited as its key is.
    let (operator, _) = key(&server, "acme", Role::Operator).await;
    let less =
        ask(&server, &operator, Method::POST, "/v1/auth/token", Some(&json!({"role": "user"}))).await.expect(200);
    assert_eq!(get(&server, less["token"].as_str().unwrap()).await.header("ratelimit"), "");
}

#[tokio::test]
async fn nobody_uses_up_what_another_one_may_do() {
    let (server, _) = server(rules((3, 0), (0, 0))).await;
    let (user, id) = key(&server, "acme", Role::User).await;
    let guessed = format!("lsk_{id}_{}", "x".repeat(43));
    for wrong in [guessed.as_str(), "lsk_", "a.b.c"] {
        for _ in 0..5 {
            let refused = get(&server, wrong).await;
            refused.problem(401);
            assert_eq!(refused.header("ratelimit"), "");
        }
    }
    // What it may not do is its own request.
    ask(&server, &user, Method::GET, "/v1/queues", None).await.problem(403);
    assert_eq!(passing(&server, &user, 5).await, 2);
    for open in ["/livez", "/readyz", "/startupz", "/health", "/metrics", "/openapi.json"] {
        for _ in 0..4 {
            assert_ne!(
                server.send(server.http.get(format!("{}{open}", server.url)).bearer_auth(&user)).await.status,
                429
            );
        }
    }
}

#[tokio::test]
async fn a_stream_is_one_request() {
    let (mut server, _) = server(rules((0, 0), (0, 0))).await;
    let made = server.post("/v1/keys", &json!({"name": "reader", "role": "user", "requests_per_minute": 4})).await;
    server.key = made.expect(201)["key"].as_str().unwrap().to_owned();
    let id = server.submit(json!({})).await;
    let mut watch = Watch::open(&server, id, None).await;
    assert_eq!(watch.next().await.unwrap().name, "snapshot");
    assert_eq!(get(&server, &server.key).await.header("ratelimit"), "\"key_requests\";r=1;t=15");
}

/// Whoever asks too often does not fill the audit log with it.
#[tokio::test]
async fn a_change_that_comes_too_often_has_no_row() {
    let (server, _) = server(rules((0, 0), (0, 0))).await;
    let made = server.post("/v1/keys", &json!({"name": "x", "role": "operator", "requests_per_minute": 1})).await;
    let operator = made.expect(201)["key"].as_str().unwrap().to_owned();
    let pause = json!({"concurrency": 5});
    ask(&server, &operator, Method::PATCH, "/v1/queues/q", Some(&pause)).await.expect(200);
    for _ in 0..3 {
        ask(&server, &operator, Method::PATCH, "/v1/queues/q", Some(&pause)).await.problem(429);
    }
    let rows = server.get("/v1/audit?limit=500").await.expect(200);
    let of_queue = rows["rows"].as_array().unwrap().iter().filter(|row| row["action"] == "PATCH /v1/queues/{queue}");
    assert_eq!(of_queue.count(), 1, "{rows}");
}

#[tokio::test]
async fn every_keyed_route_documents_its_limits() {
    let document = serde_json::to_value(api::openapi()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with("/v1")) {
        for (method, operation) in item.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            let refused = &responses["429"];
            for header in ["Retry-After", "RateLimit", "RateLimit-Policy"] {
                assert!(
                    refused["headers"][header]["schema"]["type"].is_string(),
                    "{method} {path}: {header}: {refused}"
                );
            }
            assert!(refused["content"]["application/problem+json"].is_object(), "{method} {path}: {refused}");
            for (_, passed) in responses.iter().filter(|(status, _)| status.starts_with('2')) {
                assert!(passed["headers"]["RateLimit"].is_object(), "{method} {path}: {passed}");
            }
        }
    }
}

/// The limits of a server of its own on the Redis that all share; by the test's clock, if it has one.
fn of_fleet(redis: &RedisServer, clock: Option<&ManualClock>) -> Arc<FleetRequestLimits> {
    let address = RedisAddress::parse(&redis.url()).unwrap();
    let own = clock.map(|clock| Arc::new(clock.clone()) as Arc<dyn Clock>);
    // Bounds that a busy machine does not meet: here nobody is to go on without the store unless it is gone.
    let config = RedisConfig {
        connect_timeout: PATIENCE,
        response_timeout: PATIENCE,
        clock: own.clone(),
        ..RedisConfig::new(address)
    };
    let store = RedisRequestLimits::open(&config).unwrap();
    let clock = own.unwrap_or_else(|| Arc::new(SystemClock));
    Arc::new(FleetRequestLimits::new(store, clock).patient(PATIENCE))
}

async fn fleet_of(redis: &RedisServer, clock: Option<&ManualClock>, rules: &Rules) -> [Server; 3] {
    let place = |api: &mut api::Api| {
        api.request_limits = of_fleet(redis, clock);
        api.settings.request_limits = rules.clone();
    };
    let first = Server::start_with(place).await;
    let (second, third) = (first.beside_with(place).await, first.beside_with(place).await);
    [first, second, third]
}

/// The bar: a thousand requests at once against 100 a minute, over three servers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_over_three_servers_meet_one_limit() {
    let redis = RedisServer::start();
    let fleet = fleet_of(&redis, None, &rules((100, 0), (0, 0))).await;
    let (user, _) = key(&fleet[0], "acme", Role::User).await;
    let began = std::time::Instant::now();
    let asked = (0..1_000).map(|n| get(&fleet[n % 3], &user));
    let answers = futures::future::join_all(asked).await;
    // One each 0.6 s is earned meanwhile.
    let earned = began.elapsed().as_millis() as usize / 600 + 1;
    let passed = answers.iter().filter(|answer| answer.status.is_success()).count();
    assert!((100..=100 + earned).contains(&passed), "{passed} passed and {earned} were earned");
    for refused in answers.iter().filter(|answer| !answer.status.is_success()) {
        assert_eq!(refused.problem(429)["violated_policies"], json!(["key_requests"]));
        assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    }
}

/// Redis away: requests go on with the server's share, jobs that ask providers wait; or as it is configured.
#[tokio::test]
async fn without_redis_each_limit_does_as_it_says() {
    let mut redis = RedisServer::start();
    let local = rules((9, 9), (0, 0));
    let open = Rules { when_away: Away::Open, llm_when_away: Away::Open, ..local.clone() };
    let shut = Rules { when_away: Away::Closed, ..local.clone() };
    let clock = ManualClock::at(NOW);
    let limits = of_fleet(&redis, Some(&clock));
    let counted = limits.clone();
    let place = |rules: Rules| {
        let limits = limits.clone();
        move |api: &mut api::Api| {
            api.request_limits = limits;
            api.settings.request_limits = rules;
        }
    };
    let server = Server::start_with(place(local)).await;
    let others = [server.beside_with(place(open)).await, server.beside_with(place(shut)).await];
    // Two more processes, so that the share is a third.
    let attending: Vec<_> = [of_fleet(&redis, Some(&clock)), of_fleet(&redis, Some(&clock))]
        .into_iter()
        .map(|one| tokio::spawn(async move { one.attend().await }))
        .collect();
    let all_are_counted = async {
        while counted.processes() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_are_counted).await.expect("the processes are counted");
    let mut users = Vec::new();
    for _ in 0..3 {
        users.push(key(&server, "acme", Role::User).await.0);
    }
    submit(&server, &users[0], &chat()).await.expect(202);
    redis.stop();

    let answer = get(&server, &users[0]).await;
    answer.expect(200);
    assert_eq!(answer.header("ratelimit-policy"), "\"key_requests\";q=9;w=60;longshore-burst=9");
    // A third of nine, less its part of what has passed before; one comes back in 20 s.
    assert!((1..=2).contains(&passing(&server, &users[0], 5).await));
    let waits = submit(&server, &users[1], &chat()).await;
    assert_eq!(waits.problem(503)["type"], "urn:longshore:problem:unavailable");
    assert!(waits.header("retry-after").parse::<u32>().unwrap() >= 1);
    submit(&server, &users[1], &probe()).await.expect(202);
    assert_eq!(passing(&others[0], &users[0], 20).await, 20);
    submit(&others[0], &users[2], &chat()).await.expect(202);
    get(&others[1], &users[2]).await.problem(503);
    // Whoever is not limited does not ask.
    assert_eq!(server.get("/v1/jobs").await.status, 200);
    attending.iter().for_each(tokio::task::JoinHandle::abort);
}

/// An override that another server set counts everywhere soon, and one that was there when the key was made at once.
#[tokio::test]
async fn an_override_reaches_every_server() {
    let redis = RedisServer::start();
    let clock = ManualClock::at(NOW);
    let fleet = fleet_of(&redis, Some(&clock), &rules((100, 0), (0, 0))).await;
    let secret = Secret::generate();
    let row = secret.to_row("acme".into(), Role::User, "test", fleet[0].stores.clock.now());
    let row = ApiKey { rates: rates(2, 0), ..row };
    fleet[0].stores.identity.add_key(row).await.unwrap();
    let mut passed = 0;
    for server in &fleet {
        passed += passing(server, &secret.reveal(), 2).await;
    }
    assert_eq!(passed, 2);
    let path = format!("/v1/keys/{}", secret.id());
    fleet[0].patch(&path, &json!({"requests_per_minute": 1_000})).await.expect(200);
    clock.advance_ms(1_000);
    let obeyed = async {
        while !get(&fleet[2], &secret.reveal()).await.status.is_success() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, obeyed).await.expect("every server hears of it");
}
