//! What targets may take, and how they stand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // clippy spares only functions with #[test]

mod server;

use std::sync::Arc;

use queue_core::{
    ids::CallId,
    limiter::{Ask, Limit, Limiter, Limits, Penalty, Rule, memory::MemoryLimiter},
    route::Target,
    time::{Clock, ManualClock, Timestamp},
};
use serde_json::json;
use server::Server;

#[tokio::test]
async fn targets_are_shown_with_what_is_left_and_why_they_rest() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp(1_790_000_000_000)));
    let limiter = Arc::new(MemoryLimiter::new(clock.clone()));
    let limit = Limit { requests_per_minute: Some(600), concurrency: Some(64), ..Limit::default() };
    let rule = Rule { provider: "simulated".into(), model: "gpt-*".into(), limit: limit.clone() };
    let server = Server::start_at(clock, |api| {
        api.limiter = limiter.clone();
        api.limits = Arc::new(Limits::new(vec![rule]));
    })
    .await;
    assert_eq!(
        server.get("/v1/targets").await.expect(200),
        json!({"targets": [], "accounts": []}),
        "nobody was asked yet"
    );
    let limits = server.get("/v1/limits").await.expect(200);
    let shown = json!({"provider": "simulated", "model": "gpt-*", "requests_per_minute": 600, "concurrency": 64,
                       "tokens_charged": "admission", "when_away": "local"});
    assert_eq!(limits, json!({"limits": [shown]}));

    let target = Target { provider: "simulated".into(), model: "gpt-4o".into(), credential: "default".into() };
    let call = CallId(uuid::Uuid::now_v7()).0;
    let ask = Ask { target, limit, call, tokens: 10 };
    limiter.reserve(&ask).await.unwrap();
    limiter.penalise(&ask, Penalty::Rate, 30_000, "it said 429").await.unwrap();
    let targets = server.get("/v1/targets").await.expect(200);
    let one = server.get("/v1/limits/simulated:gpt-4o:default").await.expect(200);
    for (field, value) in one.as_object().unwrap() {
        assert_eq!(&targets["targets"][0][field], value, "{field}");
    }
    assert_eq!(one["target"], "simulated:gpt-4o:default");
    assert_eq!(one["limit"]["requests_per_minute"], 600);
    assert_eq!(one["requests"], json!({"level": 0.0, "per_minute": 420.0}));
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
