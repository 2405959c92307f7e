//! What targets may take, and how they stand.

use std::sync::Arc;

use crate::server::{Hand, Server};
use queue_core::{
    breaker::{End, Ended, ProbeId},
    dispatcher::Setting,
    ids::CallId,
    limiter::{Ask, InForce, Limit, Limiter, Limits, Penalty, Rule, Verdict, memory::MemoryLimiter},
    route::Target,
    time::{Clock, ManualClock, Timestamp},
};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn targets_are_shown_with_what_is_left_and_why_they_rest() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp(1_790_000_000_000)));
    let limiter = Arc::new(MemoryLimiter::new(clock.clone()));
    let limit = Limit { requests_per_minute: Some(600), concurrency: Some(64), ..Limit::default() };
    let rule = Rule { provider: "simulated".into(), model: "gpt-*".into(), limit: limit.clone() };
    let server = Server::start_at(clock, |api| {
        api.limiter = limiter.clone();
        api.limits = Arc::new(InForce::new(Limits::new(vec![rule]), Default::default()));
    })
    .await;
    assert_eq!(
        server.get("/v1/targets").await.expect(200),
        json!({"targets": [], "accounts": []}),
        "nobody was asked yet"
    );
    let limits = server.get("/v1/limits").await.expect(200);
    let shown = json!({"provider": "simulated", "model": "gpt-*", "credential": "*", "requests_per_minute": 600, "concurrency": 64,
                       "tokens_charged": "admission", "when_away": "local", "source": "configured"});
    assert_eq!(limits, json!({"limits": [shown]}));

    let target = Target { provider: "simulated".into(), model: "gpt-4o".into(), credential: "default".into() };
    let call = CallId(uuid::Uuid::now_v7()).0;
    let ask = Ask::new(target, limit, call, 10);
    limiter.reserve(&ask).await.unwrap();
    limiter.penalise(&ask, Penalty::Rate, 30_000, "it said 429").await.unwrap();
    let targets = server.get("/v1/targets").await.expect(200);
    let one = server.get("/v1/limits/simulated:gpt-4o:default").await.expect(200);
    for (field, value) in one.as_object().unwrap().iter().filter(|(field, _)| *field != "version") {
        assert_eq!(&targets["targets"][0][field], value, "{field}");
    }
    assert_eq!(one["target"], "simulated:gpt-4o:default");
    assert_eq!(one["limit"]["requests_per_minute"], 600);
    assert_eq!(one["requests"], json!({"level": 0.0, "per_minute": 420.0, "full": 35.0}));
    assert_eq!(one["factor"], 0.7);
    assert_eq!(
        (&one["blocked_until"], &one["blocked_reason"]),
        (&json!("2026-09-21T14:13:50.000Z"), &json!("it said 429"))
    );
    let unlimited = server.get("/v1/limits/simulated:text-small:default").await.expect(200);
    assert!(unlimited["limit"].is_null() && unlimited["requests"].is_null(), "{unlimited}");
    for unknown in ["nobody:gpt-4o:default", "gpt-4o", "a:b"] {
        let problem = server.get(&format!("/v1/limits/{unknown}")).await.problem(404);
        assert_eq!(problem["errors"][0]["pointer"], "/path/target");
    }
}

const TARGET: &str = "simulated:gpt-4o-mini:default";

async fn limited(limiter: &Arc<MemoryLimiter>, clock: &Arc<dyn Clock>, limit: Limit) -> Server {
    let (limiter, clock) = (limiter.clone(), clock.clone());
    let rule = Rule { provider: "simulated".into(), model: "*".into(), limit };
    Server::start_at(clock, |api| {
        api.limiter = limiter;
        let jobs = [("simulated:*".into(), 64)].into();
        api.limits = Arc::new(InForce::new(Limits::new(vec![rule]), jobs));
    })
    .await
}

async fn put(server: &Server, target: &str, body: &Value) -> crate::server::Answer {
    server.send(server.request(Method::PUT, &format!("/v1/limits/{target}")).json(body)).await
}

#[tokio::test]
async fn a_limit_is_set_shown_and_taken_away() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp(1_790_000_000_000)));
    let limiter = Arc::new(MemoryLimiter::new(clock.clone()));
    let limit = Limit { requests_per_minute: Some(600), concurrency: Some(64), ..Limit::default() };
    let server = limited(&limiter, &clock, limit).await;
    let path = format!("/v1/limits/{TARGET}");
    assert_eq!(server.get(&path).await.header("etag"), "\"0\"");

    let set = put(&server, TARGET, &json!({"requests_per_minute": 60, "tokens_charged": "usage"})).await;
    assert_eq!(set.header("etag"), "\"1\"");
    let set = set.expect(200);
    assert_eq!(set["set"], json!({"requests_per_minute": 60, "tokens_charged": "usage"}));
    let sources = json!({"requests_per_minute": "set", "tokens_charged": "set", "concurrency": "configured"});
    assert_eq!(
        set["limit"],
        json!({"requests_per_minute": 60, "tokens_charged": "usage", "when_away": "local", "concurrency": 64,
               "sources": sources})
    );
    assert_eq!(set["requests"], json!({"level": 5.0, "per_minute": 60.0, "full": 5.0}));
    let pattern = put(&server, "simulated:gpt-*:*", &json!({"concurrency": 7})).await.expect(200);
    assert_eq!((&pattern["set"], &pattern["limit"]), (&json!({"concurrency": 7}), &Value::Null));
    let other = server.get("/v1/limits/simulated:gpt-5:default").await.expect(200);
    assert_eq!((&other["limit"]["concurrency"], &other["limit"]["sources"]["concurrency"]), (&json!(7), &json!("set")));
    let listed = server.get("/v1/limits").await.expect(200)["limits"].clone();
    let sources: Vec<_> = listed.as_array().unwrap().iter().map(|limit| limit["source"].as_str().unwrap()).collect();
    assert_eq!(sources, ["configured", "set", "set"]);
    assert_eq!(
        listed[2],
        json!({"provider": "simulated", "model": "gpt-4o-mini", "credential": "default", "requests_per_minute": 60,
               "tokens_charged": "usage", "source": "set"}),
        "the closest last"
    );
    let targets = server.get("/v1/targets").await.expect(200);
    assert!(!targets.to_string().contains("gpt-*"), "a pattern is no target: {targets}");

    // A pause and a limit are two things of one row.
    server.patch(&format!("/v1/targets/{TARGET}"), &json!({"paused": true})).await.expect(200);
    assert_eq!(server.get(&path).await.expect(200)["set"]["requests_per_minute"], 60);
    let stale = server.request(Method::PUT, &path).header("if-match", "\"1\"").json(&json!({}));
    server.send(stale).await.problem(412);
    let fresh = server.request(Method::PUT, &path).header("if-match", "\"2\"").json(&json!({}));
    let cleared = server.send(fresh).await.expect(200);
    assert_eq!((&cleared["set"], &cleared["limit"]["requests_per_minute"]), (&Value::Null, &json!(600)));
    assert_eq!(server.get(&format!("/v1/targets/{TARGET}")).await.expect(200)["paused"], true);
}

/// The lane of a target is parked, and the jobs at once of the pattern and of the target are told.
#[tokio::test]
async fn who_waits_for_an_old_limit_is_woken_by_a_larger_one() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp(1_790_000_000_000)));
    let limiter = Arc::new(MemoryLimiter::new(clock.clone()));
    let limit = Limit { requests_per_minute: Some(1), ..Limit::default() };
    let server = limited(&limiter, &clock, limit.clone()).await;
    let mut worker = Hand::join(&server.stores).await;
    let target = Target::parse(TARGET).unwrap();
    let ask = || Ask::new(target.clone(), limit.clone(), uuid::Uuid::now_v7(), 0);
    limiter.reserve(&ask()).await.unwrap();
    assert!(matches!(limiter.reserve(&ask()).await.unwrap().verdict, Verdict::Later { .. }));
    let until = clock.now().plus_ms(60_000);
    let park = Setting::ParkTarget { target: TARGET.into(), until, reason: "requests".into() };
    server.stores.dispatcher.apply(park).await.unwrap();
    for _ in 0..3 {
        let job =
            json!({"kind": "llm", "payload": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "?"}]}});
        server.post("/v1/jobs", &job).await.expect(202);
    }
    assert!(worker.claims().await.is_empty(), "parked");
    put(&server, TARGET, &json!({"concurrency": 1})).await.expect(200);
    assert!(worker.claims().await.is_empty(), "nothing that it waits for is larger");
    put(&server, TARGET, &json!({"requests_per_minute": 600, "concurrency": 1})).await.expect(200);
    assert_eq!(worker.claims().await.len(), 1, "one at once");
    put(&server, TARGET, &json!({})).await.expect(200);
    put(&server, "simulated:*:*", &json!({"concurrency": 2})).await.expect(200);
    assert_eq!(worker.claims().await.len(), 1, "two by the pattern");
    put(&server, "simulated:*:*", &json!({})).await.expect(200);
    assert_eq!(worker.claims().await.len(), 1, "and as configured");
}

/// An operator who lets a target go on ends what the limiter and the account's breaker hold against it.
#[tokio::test]
async fn a_resume_and_a_closed_breaker_lift_blocks() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp(1_790_000_000_000)));
    let limiter = Arc::new(MemoryLimiter::new(clock.clone()));
    let server = limited(&limiter, &clock, Limit::default()).await;
    let mut worker = Hand::join(&server.stores).await;
    let ask = |model: &str| {
        let target = Target { provider: "simulated".into(), model: model.into(), credential: "default".into() };
        Ask::new(target, Limit::default(), uuid::Uuid::now_v7(), 0)
    };
    let goes =
        async |model: &str| matches!(limiter.reserve(&ask(model)).await.unwrap().verdict, Verdict::Go { wait_ms: 0 });
    goes("gpt-4o").await;
    for change in [json!({"paused": false}), json!({"breaker": "close"})] {
        limiter.penalise(&ask("gpt-4o-mini"), Penalty::Rate, 30_000, "429").await.unwrap();
        limiter.penalise(&ask("gpt-4o-mini"), Penalty::Quota, 900_000, "insufficient_quota").await.unwrap();
        let account = "simulated:*:default";
        let (probe, reason) = (ProbeId::generate(), "insufficient_quota".to_owned());
        let ended = Ended { circuit: account.into(), probe, end: End::Exhausted(900_000), successes: 0, reason };
        server.stores.breakers.end(ended).await.unwrap();
        for target in [TARGET, "simulated:gpt-4o:default"] {
            let from = clock.now().plus_ms(900_000);
            let sleep = Setting::TryTarget { target: target.into(), from, reason: "quota".into() };
            server.stores.dispatcher.apply(sleep).await.unwrap();
        }
        for model in ["gpt-4o-mini", "gpt-4o"] {
            let job =
                json!({"kind": "llm", "payload": {"model": model, "messages": [{"role": "user", "content": "?"}]}});
            server.post("/v1/jobs", &job).await.expect(202);
            server.post("/v1/jobs", &job).await.expect(202);
        }
        assert!(!goes("gpt-4o-mini").await && worker.claims().await.is_empty());
        let shown = server.patch(&format!("/v1/targets/{TARGET}"), &change).await.expect(200);
        assert!(shown["blocked_until"].is_null(), "{shown}");
        assert!(goes("gpt-4o-mini").await && goes("gpt-4o").await, "{change}: nobody is blocked");
        assert_eq!(server.get("/v1/targets").await.expect(200)["accounts"], json!([]));
        assert_eq!(worker.claims().await.len(), 4, "all of the credential are awake, and not one at a time");
    }
}

#[tokio::test]
async fn a_limit_that_makes_no_sense_is_refused() {
    let server = Server::start().await;
    let cases = [
        (TARGET, json!({"requests_per_minute": 0}), "/requests_per_minute", "from 1 to"),
        (TARGET, json!({"tokens_per_minute": 1.5}), "/tokens_per_minute", "a whole number"),
        (TARGET, json!({"tokens_per_minute": 2_000_000_000_000_u64}), "/tokens_per_minute", "from 1 to"),
        (TARGET, json!({"concurrency": -1}), "/concurrency", "from 1 to"),
        (TARGET, json!({"tokens_charged": "both"}), "/tokens_charged", "neither"),
        (TARGET, json!({"when_away": "open"}), "/when_away", "not a known field"),
        ("nobody:gpt-4o:default", json!({}), "/path/target", "no provider"),
        ("gpt-4o", json!({}), "/path/target", "provider:model:credential"),
        ("simulated:gpt-*:default", json!({}), "/path/target", "end it in `:*`"),
        ("simulated:g*t:default", json!({}), "/path/target", "elsewhere"),
        ("simulated:gpt:d*", json!({}), "/path/target", "elsewhere"),
        ("custom:words:default", json!({"requests_per_minute": 5}), "/requests_per_minute", "only `concurrency`"),
    ];
    for (target, body, pointer, reason) in cases {
        let problem = put(&server, target, &body).await.problem(422);
        let error = &problem["errors"][0];
        assert_eq!(error["pointer"], pointer, "{body}");
        assert!(error["reason"].as_str().unwrap().contains(reason), "{body}: {error}");
    }
    put(&server, "custom:words:default", &json!({"concurrency": 5})).await.expect(200);
    put(&server, "http:a.example:default", &json!({"requests_per_minute": 5})).await.expect(200);
    let pause = server.patch("/v1/targets/simulated:gpt-*:*", &json!({"paused": true})).await.problem(422);
    assert!(pause["errors"][0]["reason"].as_str().unwrap().contains("pattern"), "{pause}");
}
