//! The gate by itself: time stands still unless somebody waits.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::collections::BTreeMap;

use queue_core::{
    dispatcher::{Entry, Step, Suspicion, Wait, memory::MemoryDispatcher},
    ids::{Generation, JobId, SessionId},
    job::Kind,
    journal::{TargetSettings, Versioned},
    limiter::{Limit, Rule, SetLimit, memory::MemoryLimiter},
    time::{ManualClock, Timestamp},
};

use super::*;

struct Scene {
    gate: Gate,
    limiter: Arc<MemoryLimiter>,
    dispatcher: Arc<MemoryDispatcher>,
    clock: ManualClock,
    target: Target,
    lane: Name,
    stop: CancellationToken,
}

impl Scene {
    async fn new(limit: Limit) -> Self {
        let clock = ManualClock::at(Timestamp(1_790_000_000_000));
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let limiter = Arc::new(MemoryLimiter::new(shared.clone()));
        let dispatcher = Arc::new(MemoryDispatcher::open(shared.clone(), None).unwrap());
        dispatcher.begin(Generation(1)).await.unwrap();
        let rule = Rule { provider: "p".into(), model: "*".into(), limit };
        let limits = Arc::new(InForce::new(Limits::new(vec![rule]), BTreeMap::new()));
        let gate = Gate::of(limiter.clone(), limits, dispatcher.clone(), shared);
        let target = Target { provider: "p".into(), model: "m".into(), credential: "default".into() };
        let lane = target.name();
        Self { gate, limiter, dispatcher, clock, target, lane, stop: CancellationToken::new() }
    }

    async fn admit(&self, tokens_in: u64) -> Result<Pass, JobError> {
        self.gate.admit(self.wish(tokens_in, &self.lane)).await
    }

    fn wish<'a>(&'a self, tokens_in: u64, lane_target: &'a Name) -> Wish<'a> {
        Wish {
            target: &self.target,
            lane_target,
            call: CallId(uuid::Uuid::now_v7()),
            estimate: Estimate { tokens_in, ..Estimate::default() },
            beside: 1.0,
            left: Duration::from_secs(60),
            keeps_place: true,
            stop: &self.stop,
        }
    }

    async fn requests_left(&self) -> f64 {
        let limit = self.gate.limits.now().of(&self.target).unwrap();
        self.limiter.standing(&self.target, &limit).await.unwrap().requests.unwrap()
    }

    /// Why a job of the target is not claimed now.
    async fn parked(&self) -> Option<(i64, String)> {
        self.waits().await.into_iter().find_map(|wait| match wait {
            Wait::TargetParked { until, reason, .. } => Some((until.since_ms(self.clock.now()), reason)),
            _ => None,
        })
    }

    async fn waits(&self) -> Vec<Wait> {
        let id = JobId::generate();
        let entry = Entry {
            id,
            epoch: Default::default(),
            queue: "q".into(),
            tenant: "t".into(),
            target: self.target.name(),
            kind: Kind::Llm,
            priority: 5,
            run_at: self.clock.now(),
            suspicion: Suspicion::None,
            key: None,
        };
        self.dispatcher.push(vec![entry]).await.unwrap();
        self.dispatcher.explain(id).await.unwrap()
    }
}

fn requests(per_minute: u64) -> Limit {
    Limit { requests_per_minute: Some(per_minute), ..Limit::default() }
}

fn refused(outcome: Result<Pass, JobError>) -> JobError {
    match outcome {
        Err(error) => error,
        Ok(_) => panic!("it was let in"),
    }
}

fn failed(class: ErrorClass, retry_after_ms: Option<u64>) -> Ended {
    let failure = CallError::unbilled(class, "code", "words");
    let failure = CallError { error: failure.error.with_retry_after(retry_after_ms), ..failure };
    Ended::badly(&failure, Duration::from_millis(5))
}

fn alike() -> Alike {
    Alike::named("m", "o")
}

#[tokio::test(start_paused = true)]
async fn a_short_wait_is_waited_for_in_place() {
    let scene = Scene::new(requests(600)).await;
    for _ in 0..50 {
        let mut pass = scene.admit(0).await.unwrap();
        pass.sends();
    }
    let began = tokio::time::Instant::now();
    scene.admit(0).await.unwrap().sends();
    assert_eq!(began.elapsed(), Duration::from_millis(100));
    assert_eq!(scene.parked().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_parks_the_target_and_gives_the_job_back() {
    let scene = Scene::new(requests(6)).await;
    scene.admit(0).await.unwrap().sends();
    let error = refused(scene.admit(0).await);
    assert_eq!((error.class, error.code.as_str(), error.retry_after_ms), (ErrorClass::Rate, PARKED, Some(10_000)));
    let (left, reason) = scene.parked().await.unwrap();
    assert_eq!((left, reason.as_str()), (9_000, "its limit of requests per minute"), "it opens just before its turn");
    let elsewhere = Name::from("another:target:default");
    let error = refused(scene.gate.admit(scene.wish(0, &elsewhere)).await);
    assert_eq!(error.code, LIMITED, "a job that is claimed by another target has no place to keep");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_send_gives_back_what_it_took() {
    let scene = Scene::new(requests(600)).await;
    drop(scene.admit(0).await.unwrap());
    tokio::task::yield_now().await;
    assert_eq!(scene.requests_left().await, 50.0);
    let mut pass = scene.admit(0).await.unwrap();
    pass.sends();
    drop(pass);
    tokio::task::yield_now().await;
    assert_eq!(scene.requests_left().await, 49.0, "a call that may have been made stays charged");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_job_does_not_wait() {
    let scene = Scene::new(requests(60)).await;
    for _ in 0..5 {
        scene.admit(0).await.unwrap().sends();
    }
    let began = tokio::time::Instant::now();
    let (outcome, ()) = tokio::join!(scene.admit(0), async { scene.stop.cancel() });
    assert_eq!(refused(outcome).code, "cancelled");
    assert_eq!(began.elapsed(), Duration::ZERO);
    tokio::task::yield_now().await;
    assert_eq!(scene.requests_left().await, 0.0, "its place is free again");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_reaches_those_who_wait() {
    let scene = Scene::new(requests(60)).await;
    for _ in 0..4 {
        scene.admit(0).await.unwrap().sends();
    }
    let mut last = scene.admit(0).await.unwrap();
    last.sends();
    let alike = alike();
    let refuse = scene.gate.end(last, &alike, failed(ErrorClass::Rate, Some(30_000)));
    let (waits, ()) = tokio::join!(scene.admit(0), refuse);
    let error = refused(waits);
    assert_eq!((error.code.as_str(), error.retry_after_ms), (PARKED, Some(30_000)));
    let (left, reason) = scene.parked().await.unwrap();
    assert_eq!(left, 30_000);
    assert!(reason.contains("asked for 30000 ms"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_block_is_told_again_after_everything_was_forgotten() {
    let scene = Scene::new(requests(600)).await;
    let pass = scene.admit(0).await.unwrap();
    scene.gate.end(pass, &alike(), failed(ErrorClass::Quota, None)).await;
    assert_eq!(scene.parked().await.map(|(left, _)| left), Some(900_000));
    // What a flush does to both.
    scene.dispatcher.begin(Generation(2)).await.unwrap();
    assert_eq!(scene.parked().await, None);
    let forgetful = Gate { limiter: Arc::new(MemoryLimiter::new(scene.gate.clock.clone())), ..scene.gate };
    forgetful.tell_blocks().await;
    let scene = Scene { gate: forgetful, ..scene };
    assert!(scene.parked().await.is_some_and(|(_, reason)| reason.contains("out of money")));
    assert_eq!(refused(scene.admit(0).await).code, PARKED);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_was_lifted_is_not_told_again() {
    let scene = Scene::new(requests(600)).await;
    let pass = scene.admit(0).await.unwrap();
    scene.gate.end(pass, &alike(), failed(ErrorClass::Quota, None)).await;
    scene.clock.advance_ms(5);
    assert!(scene.limiter.lift(&scene.target, &requests(600), limiter::Lift::Blocks).await.unwrap());
    limiter::wake(&*scene.dispatcher, &scene.target.name()).await;
    for _ in 0..2 {
        scene.gate.tell_blocks().await;
        assert_eq!(scene.parked().await, None);
    }
    assert!(scene.admit(0).await.is_ok());
}

/// The limit that an operator sets while everything runs, as a worker hears of it.
#[tokio::test(start_paused = true)]
async fn a_larger_limit_wakes_who_waits_and_a_smaller_one_holds_at_once() {
    let scene = Scene::new(requests(12)).await;
    let set = |requests_per_minute, concurrency| {
        let limit = SetLimit { requests_per_minute, concurrency, ..SetLimit::default() };
        let value = TargetSettings { limit, ..TargetSettings::default() };
        let name = scene.target.name();
        scene.gate.limits.learn(&BTreeMap::from([(name, Versioned { version: 1, value })]));
    };
    scene.admit(0).await.unwrap().sends();
    // One in five seconds: the next waits in place, the one behind it is put back.
    scene.admit(0).await.unwrap().sends();
    let waits = CallId(uuid::Uuid::now_v7());
    let of_call = || Wish { call: waits, ..scene.wish(0, &scene.lane) };
    assert_eq!(refused(scene.gate.admit(of_call()).await).code, PARKED);
    assert!(scene.parked().await.is_some());
    set(Some(600), None);
    scene.gate.follow().await;
    assert_eq!(scene.parked().await, None, "woken");
    scene.gate.admit(of_call()).await.unwrap().sends();
    scene.gate.follow().await;

    set(Some(12), Some(1));
    scene.gate.follow().await;
    let session = SessionId::generate();
    let _signals = scene.dispatcher.join(session, vec![]).await.unwrap();
    let step = Step { session, acks: vec![], queues: vec![], kinds: vec![], slots: 9 };
    scene.waits().await;
    assert_eq!(scene.dispatcher.step(step).await.unwrap().claims.len(), 1, "the dispatcher hears of the jobs at once");
    set(None, None);
    scene.gate.follow().await;
    assert_eq!(scene.gate.limits.now().of(&scene.target), Some(requests(12)), "as configured");
}

#[test]
fn what_a_provider_counts_depends_on_how_it_ended() {
    let target = Target { provider: "p".into(), model: "m".into(), credential: "c".into() };
    let limit = |tokens_charged| Limit { tokens_charged, ..Limit::default() };
    let ask = |limit| Ask::new(target.clone(), limit, uuid::Uuid::nil(), 150);
    let estimate = Estimate { tokens_in: 50, tokens_out: 30, tokens_out_max: Some(100) };
    let usage = Some(Usage { tokens_in: 40, tokens_out: 20, ..Usage::default() });
    let well = Ended::well(usage, Told::default(), Duration::from_millis(5));
    let at_the_door = used(&ask(limit(Charges::Admission)), estimate, &well);
    assert_eq!((at_the_door.tokens, at_the_door.sent, at_the_door.answered), (140, true, true));
    let by_use = used(&ask(limit(Charges::Usage)), estimate, &well);
    assert_eq!((by_use.tokens, by_use.took_ms), (60, Some(5)));
    let unlimited = Estimate { tokens_out_max: None, ..estimate };
    assert_eq!(used(&ask(limit(Charges::Admission)), unlimited, &well).tokens, 60);
    let unsaid = Ended::well(None, Told::default(), Duration::ZERO);
    assert_eq!(used(&ask(limit(Charges::Usage)), estimate, &unsaid).tokens, 150);
    for (class, tokens, sent) in [
        (ErrorClass::TransportPre, 0, false),
        (ErrorClass::Rate, 0, true),
        (ErrorClass::Quota, 0, true),
        (ErrorClass::TransportMid, 150, true),
        (ErrorClass::Server, 150, true),
    ] {
        let used = used(&ask(limit(Charges::Admission)), estimate, &failed(class, None));
        assert_eq!((used.tokens, used.sent, used.took_ms, used.answered), (tokens, sent, None, false), "{class}");
    }
}
