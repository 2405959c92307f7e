//! Whole jobs against a provider that enforces its limits: nobody asks it too fast, nobody asks it while it wants to be left
//! alone, and who has to wait for that loses neither an attempt nor its place.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::rig::Rig;
use crate::script::{Script, Stalling, says};
use queue_core::{
    dispatcher::{Place, Wait},
    ids::{JobId, Name},
    job::Kind,
    limiter::{Ask, Charges, Limit, Limits, Rule},
    route::Target,
    state::Standing,
    time::Timestamp,
};
use serde_json::json;
use testkit::{Allowance, Behaviour, MockProvider};
use uuid::Uuid;
use worker::provider::{
    Provider, Providers,
    openai::{OpenAi, OpenAiConfig},
};

fn limits(provider: &str, limit: Limit) -> Limits {
    Limits::new(vec![Rule { provider: provider.into(), model: "*".into(), limit }])
}

fn target(model: &str) -> Target {
    Target { provider: "mock".into(), model: model.into(), credential: "default".into() }
}

async fn rig(mock: &MockProvider, limit: Limit) -> Rig {
    let provider: Arc<dyn Provider> = Arc::new(OpenAi::new(OpenAiConfig::new("mock", mock.url())).unwrap());
    let mut rig = Rig::limited(Providers::from([("mock".to_owned(), provider)]), limits("mock", limit)).await;
    rig.work(200, Duration::from_secs(5));
    rig
}

async fn submit(rig: &Rig, model: &str, max_tokens: Option<u64>) -> JobId {
    let mut payload = json!({"model": model, "messages": [{"role": "user", "content": "How many?"}]});
    if let Some(tokens) = max_tokens {
        payload["max_tokens"] = tokens.into();
    }
    rig.submit(Kind::Llm, &payload.to_string(), |job| job.target = target(model).name()).await
}

/// Until when and why the target of a waiting job is parked.
async fn parked(rig: &Rig, id: JobId) -> Option<(Timestamp, String)> {
    let waits = rig.stores.dispatcher.explain(id).await.unwrap();
    waits.into_iter().find_map(|wait| match wait {
        Wait::TargetParked { until, reason, .. } => Some((until, reason)),
        _ => None,
    })
}

async fn is_put_back(rig: &Rig, id: JobId) -> bool {
    let row = rig.row(id).await;
    row.releases > 0 && matches!(rig.stores.dispatcher.locate(&[id]).await.unwrap()[0], Place::Waiting { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_is_never_asked_faster_than_it_allows() {
    let mock = MockProvider::start().await;
    // 50 requests and 25,000 tokens a second; a burst of six seconds, where ours is five.
    mock.enforce(Some(Allowance {
        requests_per_minute: 3_000.0,
        tokens_per_minute: 1_500_000.0,
        burst: Duration::from_secs(6),
    }));
    let limit = Limit { requests_per_minute: Some(3_000), tokens_per_minute: Some(1_500_000), ..Limit::default() };
    let mut rig = rig(&mock, limit).await;
    let mut jobs = vec![];
    for number in 0..320 {
        jobs.push(submit(&rig, "mock-chat", Some(if number % 7 == 0 { 2_000 } else { 40 })).await);
    }
    for id in jobs {
        let row = rig.ended(id).await;
        assert_eq!((row.standing, row.attempts), (Standing::Succeeded, 1), "{:?}", row.error);
        assert!(row.releases <= 2, "put back {} times", row.releases);
    }
    let tally = mock.tally();
    assert_eq!((tally.admitted, tally.refused), (320, 0));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wish_for_a_pause_is_everybodys_and_costs_nothing() {
    let mock = MockProvider::start().await;
    let mut rig = rig(&mock, Limit::default()).await;
    mock.pause_next(Duration::from_secs(30));
    let first = submit(&rig, "mock-chat", None).await;
    rig.until("the first is put back", async || is_put_back(&rig, first).await).await;
    let behind = submit(&rig, "mock-chat", None).await;
    let (until, reason) = parked(&rig, behind).await.unwrap();
    let left = until.since_ms(rig.stores.clock.now());
    assert!((25_000..=30_000).contains(&left), "{left}");
    assert!(reason.contains("rate_limit_exceeded"), "{reason}");
    let row = rig.row(first).await;
    assert_eq!((row.standing, row.attempts, row.releases), (Standing::Live, 0, 1), "no attempt is spent");
    assert_eq!(mock.calls().len(), 1, "nobody asked again");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_in_place_hears_of_a_refusal() {
    let mock = MockProvider::start().await;
    let limit = Limit { requests_per_minute: Some(60), ..Limit::default() };
    let mut rig = rig(&mock, limit.clone()).await;
    // Other workers have taken what was there: from here on, one a second.
    for _ in 0..5 {
        let other = Ask::new(target("mock-chat"), limit.clone(), Uuid::now_v7(), 0);
        rig.limiter.reserve(&other).await.unwrap();
    }
    mock.pause_next(Duration::from_secs(30));
    let mut waiting = vec![];
    for _ in 0..3 {
        waiting.push(submit(&rig, "mock-chat", None).await);
    }
    for id in &waiting {
        rig.until("it is put back", async || is_put_back(&rig, *id).await).await;
    }
    assert_eq!(mock.calls().len(), 1, "those behind the refused one were already waiting");
    for id in waiting {
        let row = rig.row(id).await;
        assert_eq!((row.attempts, row.releases), (0, 1));
        assert!(parked(&rig, id).await.is_some());
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_without_money_rests_with_all_its_targets() {
    let mock = MockProvider::start().await;
    let mut rig = rig(&mock, Limit::default()).await;
    mock.set_unpaid(true);
    let first = submit(&rig, "mock-chat", None).await;
    rig.until("the first is put back", async || rig.row(first).await.releases > 0).await;
    let other_model = submit(&rig, "mock-other", None).await;
    rig.until("the other model is put back", async || is_put_back(&rig, other_model).await).await;
    let (until, reason) = parked(&rig, other_model).await.unwrap();
    let left = until.since_ms(rig.stores.clock.now());
    assert!((880_000..=900_000).contains(&left) && reason.contains("insufficient_quota"), "{left} {reason}");
    assert_eq!(mock.calls().len(), 1, "the other model was not asked for");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_to_wait_long_keeps_its_place_and_holds_up_nobody_else() {
    let mock = MockProvider::start().await;
    // One request, and then one in twenty seconds.
    let rule = |model: &str, requests| Rule {
        provider: "mock".into(),
        model: model.into(),
        limit: Limit { requests_per_minute: requests, ..Limit::default() },
    };
    let provider: Arc<dyn Provider> = Arc::new(OpenAi::new(OpenAiConfig::new("mock", mock.url())).unwrap());
    let limits = Limits::new(vec![rule("*", None), rule("slow", Some(3))]);
    let mut rig = Rig::limited(Providers::from([("mock".to_owned(), provider)]), limits).await;
    rig.work(20, Duration::from_secs(5));
    rig.ended(submit(&rig, "slow", None).await).await;
    let waits = submit(&rig, "slow", None).await;
    let accepted = rig.row(waits).await.run_at;
    rig.until("it is put back", async || is_put_back(&rig, waits).await).await;
    let row = rig.row(waits).await;
    assert_eq!((row.attempts, row.releases, row.run_at), (0, 1, accepted), "its place in the lane is its due time");
    let (until, reason) = parked(&rig, waits).await.unwrap();
    let left = until.since_ms(rig.stores.clock.now());
    assert!((15_000..=20_000).contains(&left) && reason.contains("requests per minute"), "{left} {reason}");
    assert_eq!(rig.ended(submit(&rig, "fast", None).await).await.standing, Standing::Succeeded);
    assert_eq!(rig.row(waits).await.releases, 1, "it is not claimed and put back again and again");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_reserved_is_settled_by_what_was_used() {
    for (charged, left) in [(Charges::Admission, 5_000.0 - 1_000.0), (Charges::Usage, 5_000.0)] {
        let mock = MockProvider::start().await;
        let limit = Limit { tokens_per_minute: Some(60_000), tokens_charged: charged, ..Limit::default() };
        let mut rig = rig(&mock, limit.clone()).await;
        rig.ended(submit(&rig, "mock-chat", Some(1_000)).await).await;
        rig.stop().await;
        let standing = rig.limiter.standing(&target("mock-chat"), &limit).await.unwrap();
        let tokens = standing.tokens.unwrap();
        // Besides its answer a call of this size is about thirty tokens, and a second refills a thousand.
        assert!(tokens >= left - 100.0 && tokens <= 5_000.0, "{charged:?}: {tokens}");
        assert_eq!(charged == Charges::Usage, tokens > 4_900.0 || left > 4_900.0, "{charged:?}: {tokens}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_a_worker_that_died_stays_charged_and_nothing_else_does() {
    let script = Script::new(|_, _| says("Seven."));
    let stalling = Stalling::new(&script, |_| true);
    let limit = Limit { requests_per_minute: Some(60), ..Limit::default() };
    let mut rig = Rig::limited(stalling.alone(), limits("script", limit.clone())).await;
    rig.work(4, Duration::ZERO);
    let target = Target { provider: "script".into(), model: "small".into(), credential: "default".into() };
    let name: Name = target.name();
    let payload = json!({"messages": [{"role": "user", "content": "How many?"}]}).to_string();
    rig.submit(Kind::Llm, &payload, |job| job.target = name.clone()).await;
    rig.until("the provider is asked", async || stalling.waiting.load(Ordering::SeqCst) == 1).await;
    rig.kill().await;
    let standing = rig.limiter.standing(&target, &limit).await.unwrap();
    assert!(standing.requests.unwrap() < 5.0, "the call may have been made");
    assert_eq!((standing.tickets, standing.blocked), (0, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_that_grows_too_fast_is_cut() {
    let mock = MockProvider::start().await;
    let limit = Limit { requests_per_minute: Some(6_000), ..Limit::default() };
    let mut rig = rig(&mock, limit.clone()).await;
    mock.script([Behaviour::slow_down()]);
    let id = submit(&rig, "mock-chat", None).await;
    rig.until("it is put back", async || rig.row(id).await.releases > 0).await;
    let standing = rig.limiter.standing(&target("mock-chat"), &limit).await.unwrap();
    assert!(standing.factor < 0.75, "{}", standing.factor);
    assert!(standing.requests_per_minute.unwrap() < 4_500.0);
    assert_eq!(rig.ended(id).await.standing, Standing::Succeeded, "and goes on after a second");
    rig.stop().await;
}
