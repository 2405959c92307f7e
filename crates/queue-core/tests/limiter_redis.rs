//! The limiter over a real Redis: the conformance suite, random operations beside the memory limiter, and what only a server
//! can do to it.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use queue_core::{
    dispatcher::redis::{RedisAddress, RedisConfig},
    limiter::{
        Ask, Away, Cause, Lift, Limit, Limiter, Penalty, Told, Used, Verdict,
        away::{LOCAL_MAX_MS, Steadfast},
        conformance::Fixture,
        memory::MemoryLimiter,
        redis::RedisLimiter,
    },
    route::Target,
    time::{ManualClock, Timestamp},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use testkit::RedisServer;
use uuid::Uuid;

queue_core::limiter_conformance!(Redis::fresh());

struct Redis {
    _server: Option<Arc<RedisServer>>,
    limiter: Arc<RedisLimiter>,
    clock: ManualClock,
}

impl Redis {
    fn fresh() -> Self {
        let server = RedisServer::shared();
        let redis = Self::at(&server.url());
        Self { _server: Some(server), ..redis }
    }

    fn at(url: &str) -> Self {
        static PREFIXES: AtomicU64 = AtomicU64::new(0);
        let clock = ManualClock::at(Timestamp(1_790_000_000_000));
        let config = RedisConfig {
            prefix: format!("test-{}-", PREFIXES.fetch_add(1, Ordering::Relaxed)),
            clock: Some(Arc::new(clock.clone())),
            response_timeout: Duration::from_secs(10),
            ..RedisConfig::new(RedisAddress::parse(url).unwrap())
        };
        Self { _server: None, limiter: Arc::new(RedisLimiter::open(&config).unwrap()), clock }
    }
}

impl Fixture for Redis {
    fn limiter(&self) -> Arc<dyn Limiter> {
        self.limiter.clone()
    }

    fn advance_ms(&self, ms: i64) {
        self.clock.advance_ms(ms);
    }
}

/// What both limiters are asked; whatever comes back must be the same.
async fn compare(seed: u64, steps: usize) {
    let redis = Redis::fresh();
    let memory = MemoryLimiter::new(Arc::new(redis.clock.clone()));
    let mut random = StdRng::seed_from_u64(seed);
    let mut asks: Vec<Ask> = vec![];
    let limits = [
        Limit { requests_per_minute: Some(600), tokens_per_minute: Some(100_000), ..Limit::default() },
        Limit { tokens_per_minute: Some(7_000), ..Limit::default() },
        Limit { requests_per_minute: Some(3), ..Limit::default() },
        Limit { tokens_per_minute: Some(2_000_000), requests_per_minute: Some(5_000), ..Limit::default() },
        Limit::default(),
    ];
    for step in 0..steps {
        redis.clock.advance_ms(random.random_range(0..400));
        let number = random.random_range(0..limits.len());
        let target = Target { provider: "p".into(), model: number.to_string().as_str().into(), credential: "c".into() };
        let fresh = Ask {
            wait_max_ms: if random.random_bool(0.7) { 5_000 } else { random.random_range(0..9_000) },
            keeps_place: random.random_bool(0.8),
            ..Ask::new(target, limits[number].clone(), Uuid::from_u128(random.random()), random.random_range(0..12_000))
        };
        let known = asks.get(random.random_range(0..asks.len().max(1))).cloned().unwrap_or_else(|| fresh.clone());
        let context = || format!("seed {seed}, step {step}");
        match random.random_range(0..100) {
            0..50 => {
                let again = match random.random_bool(0.3) {
                    true => Ask { tokens: random.random_range(0..12_000), ..known.clone() },
                    false => known,
                };
                let ask = if random.random_bool(0.3) { again } else { fresh };
                let (ours, theirs) = (memory.reserve(&ask).await.unwrap(), redis.limiter.reserve(&ask).await.unwrap());
                assert_eq!(ours, theirs, "{}: reserve", context());
                asks.push(ask);
            }
            50..75 => {
                let used = Used {
                    reserved: known.tokens,
                    tokens: random.random_range(0..12_000),
                    sent: random.random_bool(0.9),
                    took_ms: random.random_bool(0.7).then(|| random.random_range(0..20_000)),
                    answered: random.random_bool(0.8),
                };
                memory.settle(&known, used).await.unwrap();
                redis.limiter.settle(&known, used).await.unwrap();
            }
            75..80 => {
                let penalty = if random.random_bool(0.3) { Penalty::Quota } else { Penalty::Rate };
                let wait = random.random_range(0..9_000);
                let ours = memory.penalise(&known, penalty, wait, "it said so").await.unwrap();
                assert_eq!(
                    ours,
                    redis.limiter.penalise(&known, penalty, wait, "it said so").await.unwrap(),
                    "{}",
                    context()
                );
            }
            80..83 => {
                let wait = random.random_range(0..9_000);
                let penalty = if random.random_bool(0.3) { Penalty::Quota } else { Penalty::Rate };
                let age = random.random_range(0..3_000);
                let ours = memory.block(&known, penalty, wait, age, "again").await.unwrap();
                let theirs = redis.limiter.block(&known, penalty, wait, age, "again").await.unwrap();
                assert_eq!(ours, theirs, "{}: block", context());
            }
            83..85 => {
                let lift = if random.random_bool(0.5) { Lift::Line } else { Lift::Blocks };
                let ours = memory.lift(&known.target, &known.limit, lift).await.unwrap();
                let theirs = redis.limiter.lift(&known.target, &known.limit, lift).await.unwrap();
                assert_eq!(ours, theirs, "{}: lift", context());
            }
            85..88 => {
                let mut some = |most: u64| random.random_bool(0.5).then(|| random.random_range(0..most));
                let told = Told {
                    requests_limit: some(900),
                    requests_left: some(60),
                    tokens_limit: some(120_000),
                    tokens_left: some(9_000),
                };
                memory.observe(&known, told).await.unwrap();
                redis.limiter.observe(&known, told).await.unwrap();
            }
            88..94 => {
                let (ours, theirs) =
                    (memory.confirm(&known).await.unwrap(), redis.limiter.confirm(&known).await.unwrap());
                assert_eq!(ours, theirs, "{}: confirm", context());
            }
            _ => {
                let ours = memory.standing(&known.target, &known.limit).await.unwrap();
                let theirs = redis.limiter.standing(&known.target, &known.limit).await.unwrap();
                assert_eq!(format!("{ours:.4?}"), format!("{theirs:.4?}"), "{}: standing", context());
            }
        }
        if random.random_bool(0.01) {
            redis.clock.advance_ms(random.random_range(0..60_000));
        }
        if asks.len() > 60 {
            asks.drain(..30);
        }
    }
}

#[tokio::test]
async fn random_operations_are_answered_as_in_memory() {
    for seed in 0..12 {
        compare(seed, 400).await;
    }
}

fn ask(when_away: Away) -> Ask {
    let limit = Limit { requests_per_minute: Some(600), when_away, ..Limit::default() };
    let target = Target { provider: "p".into(), model: "m".into(), credential: "default".into() };
    Ask::new(target, limit, Uuid::now_v7(), 10)
}

async fn verdict(limiter: &dyn Limiter, ask: &Ask) -> Verdict {
    limiter.reserve(ask).await.unwrap().verdict
}

#[tokio::test]
async fn many_callers_share_one_bucket_and_each_gets_its_own_answer() {
    let redis = Redis::fresh();
    let calls = (0..200).map(|_| {
        let limiter = redis.limiter.clone();
        tokio::spawn(async move { verdict(limiter.as_ref(), &ask(Away::Local)).await })
    });
    let mut waits = vec![];
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            Verdict::Go { wait_ms } | Verdict::Later { wait_ms, .. } => waits.push(wait_ms),
        }
    }
    waits.sort_unstable();
    let wanted: Vec<u64> = (0..200_u64).map(|place| place.saturating_sub(49) * 100).collect();
    assert_eq!(waits, wanted, "a burst, and then each behind the one before it");
    assert_eq!(redis.limiter.targets().await.unwrap(), vec!["p:m:default".into()]);
}

#[tokio::test]
async fn a_server_that_forgot_everything_begins_anew() {
    let own = RedisServer::start();
    let redis = Redis::at(&own.url());
    redis.limiter.penalise(&ask(Away::Local), Penalty::Rate, 30_000, "429").await.unwrap();
    own.command(&["FLUSHALL"]);
    own.command(&["FUNCTION", "FLUSH"]);
    assert_eq!(verdict(redis.limiter.as_ref(), &ask(Away::Local)).await, Verdict::Go { wait_ms: 0 });
    redis.limiter.block(&ask(Away::Local), Penalty::Rate, 30_000, 0, "429").await.unwrap();
    assert!(matches!(
        verdict(redis.limiter.as_ref(), &ask(Away::Local)).await,
        Verdict::Later { wait_ms: 30_000, cause: Cause::Blocked { .. }, .. }
    ));
}

#[tokio::test]
async fn without_its_server_each_limit_does_as_it_says() {
    let mut own = RedisServer::start();
    let redis = Redis::at(&own.url());
    let steadfast = Steadfast::new(redis.limiter.clone(), Arc::new(redis.clock.clone()));
    steadfast.note_workers(5);
    assert_eq!(verdict(&steadfast, &ask(Away::Local)).await, Verdict::Go { wait_ms: 0 });
    own.stop();
    assert!(matches!(verdict(&steadfast, &ask(Away::Closed)).await, Verdict::Later { cause: Cause::Away, .. }));
    assert_eq!(verdict(&steadfast, &ask(Away::Open)).await, Verdict::Go { wait_ms: 0 });
    // A fifth of ten requests a second.
    for _ in 0..10 {
        assert_eq!(verdict(&steadfast, &ask(Away::Local)).await, Verdict::Go { wait_ms: 0 });
    }
    assert_eq!(verdict(&steadfast, &ask(Away::Local)).await, Verdict::Go { wait_ms: 500 });
    redis.clock.advance_ms(LOCAL_MAX_MS);
    assert!(matches!(verdict(&steadfast, &ask(Away::Local)).await, Verdict::Later { cause: Cause::Away, .. }));
}
