//! The counters in Redis against a real server: the conformance suite, random operations beside the memory counters, and what
//! only a server can do to them.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod redis_fixture;

use std::sync::Arc;

use queue_core::{
    budget::{
        Amount, Ask, Budget, Counters, LIFE_GRACE_MS, Scope, Span, UnderWay, Verdict,
        conformance::{Fixture, START},
        memory::MemoryCounters,
        redis::RedisCounters,
    },
    ids::Name,
    journal::Versioned,
    ledger::Nanousd,
    time::{Clock, ManualClock, Timestamp},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use redis_fixture::config;
use testkit::RedisServer;
use uuid::Uuid;

struct Redis {
    server: Arc<RedisServer>,
    counters: Vec<Arc<RedisCounters>>,
    clock: ManualClock,
}

impl Redis {
    /// Several processes on the same keys.
    fn of(server: Arc<RedisServer>, processes: usize) -> Self {
        let clock = ManualClock::at(START);
        let config = config(&server, &clock);
        let counters = (0..processes).map(|_| Arc::new(RedisCounters::open(&config).unwrap())).collect();
        Self { server, counters, clock }
    }
}

impl Fixture for Redis {
    fn counters(&self) -> Arc<dyn Counters> {
        self.counters[0].clone()
    }

    fn clock(&self) -> ManualClock {
        self.clock.clone()
    }
}

queue_core::budget_conformance!(Redis::of(RedisServer::shared(), 1));

fn scopes() -> [Scope; 4] {
    [Scope::All, Scope::Tenant("acme".into()), Scope::Tenant("globex".into()), Scope::Key("abcd1234".into())]
}

/// What both counters are asked; whatever comes back must be the same.
async fn compare(seed: u64, steps: usize) {
    let redis = Redis::of(RedisServer::shared(), 1);
    let memory = MemoryCounters::new(Arc::new(redis.clock.clone()));
    let theirs = redis.counters[0].as_ref();
    theirs.begin().await.unwrap();
    redis.clock.advance_ms(LIFE_GRACE_MS);
    let mut random = StdRng::seed_from_u64(seed);
    let (mut asks, mut fills) = (Vec::<Ask>::new(), Vec::<(Scope, [i64; 2])>::new());
    for step in 0..steps {
        // Through days and months.
        let jump = if random.random_bool(0.03) { 20 * 3_600_000 } else { 15_000 };
        redis.clock.advance_ms(random.random_range(0..jump));
        let now = redis.clock.now();
        let scope = scopes()[random.random_range(0..4)].clone();
        let mut limit = |most: i64| random.random_bool(0.6).then(|| random.random_range(0..most));
        let value = Budget {
            day_usd: limit(9_000).map(Nanousd),
            month_usd: limit(90_000).map(Nanousd),
            day_tokens: limit(9_000).map(|tokens| tokens as u64),
            month_tokens: limit(90_000).map(|tokens| tokens as u64),
            ..Budget::default()
        };
        let budget = Versioned { version: 1 + step as i64 / 20, value };
        let mut amount = || Amount { usd: Nanousd(random.random_range(0..900)), tokens: random.random_range(0..900) };
        let (asked, took) = (amount(), amount());
        let chosen = scopes().into_iter().filter(|_| random.random_bool(0.5));
        let budgets = chosen.map(|scope| (scope, budget.clone())).collect();
        let fresh = Ask { call: Uuid::from_u128(random.random()), amount: asked, budgets };
        let known = asks.get(random.random_range(0..asks.len().max(1))).cloned().unwrap_or_else(|| fresh.clone());
        let tenant = Name::from(["acme", "globex"][random.random_range(0..2)]);
        let context = || format!("seed {seed}, step {step}");
        match random.random_range(0..100) {
            0..45 => {
                let ask = if random.random_bool(0.1) { known } else { fresh };
                let ours = memory.reserve(&ask).await.unwrap();
                assert_eq!(ours, theirs.reserve(&ask).await.unwrap(), "{}: reserve", context());
                asks.push(ask);
            }
            45..65 => {
                let at = now.plus_ms(-random.random_range(0..120_000));
                let ours = memory.commit(known.call, took, at).await.unwrap();
                assert_eq!(ours, theirs.commit(known.call, took, at).await.unwrap(), "{}: commit", context());
            }
            65..70 => {
                memory.adjust(known.call, took).await.unwrap();
                theirs.adjust(known.call, took).await.unwrap();
            }
            70..75 => {
                let scopes = known.budgets.iter().map(|(scope, _)| scope.clone()).collect();
                let under_way = [UnderWay { call: known.call, amount: known.amount, scopes }];
                memory.renew(&under_way).await.unwrap();
                theirs.renew(&under_way).await.unwrap();
            }
            75..80 => {
                let both = [memory.begin_fill(&scope).await.unwrap(), theirs.begin_fill(&scope).await.unwrap()];
                assert_eq!(both[0], both[1], "{}: begin_fill", context());
                fills.push((scope, both));
            }
            80..88 => {
                let Some((scope, [ours, others])) = fills.pop() else { continue };
                let spent = [0; 4].map(|_: i64| random.random_range(0..5_000));
                let span = Span::of(now.plus_ms(-random.random_range(0..7_200_000)));
                memory.end_fill(&scope, ours, span, spent).await.unwrap();
                theirs.end_fill(&scope, others, span, spent).await.unwrap();
            }
            88..91 => {
                memory.tell(&scope, budget.clone()).await.unwrap();
                theirs.tell(&scope, budget).await.unwrap();
            }
            91..94 => {
                let until = now.plus_ms(random.random_range(0..90_000));
                memory.park(&tenant, &scope, asked, until, "no room").await.unwrap();
                theirs.park(&tenant, &scope, asked, until, "no room").await.unwrap();
            }
            94..96 => {
                memory.unpark(&tenant).await.unwrap();
                theirs.unpark(&tenant).await.unwrap();
            }
            _ => {}
        }
        assert_eq!(memory.parked().await.unwrap(), theirs.parked().await.unwrap(), "{}: parked", context());
        for scope in scopes() {
            let ours = memory.standing(&scope).await.unwrap();
            assert_eq!(ours, theirs.standing(&scope).await.unwrap(), "{}: {scope}", context());
        }
        if asks.len() > 60 {
            asks.drain(..30);
        }
    }
}

#[tokio::test]
async fn random_operations_are_answered_as_in_memory() {
    for seed in 0..8 {
        compare(seed, 400).await;
    }
}

fn ask(usd: i64) -> Ask {
    let value = Budget { month_usd: Some(Nanousd(1_000)), ..Budget::default() };
    let budgets = vec![(Scope::All, Versioned { version: 2, value })];
    Ask { call: Uuid::now_v7(), amount: Amount { usd: Nanousd(usd), tokens: 0 }, budgets }
}

async fn read(counters: &dyn Counters, spent: i64, now: Timestamp) {
    let fill = counters.begin_fill(&Scope::All).await.unwrap();
    counters.end_fill(&Scope::All, fill, Span::of(now), [spent, spent, 0, 0]).await.unwrap();
}

/// Whoever asks at once, over all processes: never more than the limit, and not less than fits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_processes_never_reserve_more_than_there_is() {
    let fleet = Redis::of(RedisServer::shared(), 16);
    let first = fleet.counters[0].clone();
    first.begin().await.unwrap();
    fleet.clock.advance_ms(LIFE_GRACE_MS);
    read(first.as_ref(), 0, fleet.clock.now()).await;
    let calls = (0..640).map(|n| {
        let counters = fleet.counters[n % 16].clone();
        let at = fleet.clock.now();
        tokio::spawn(async move {
            let ask = ask(3);
            loop {
                match counters.reserve(&ask).await.unwrap() {
                    Verdict::Granted => break,
                    Verdict::Refused(refusal) if refusal.is_passing() => tokio::task::yield_now().await,
                    _ => return 0,
                }
            }
            // A third of what was reserved is not used.
            counters.commit(ask.call, Amount { usd: Nanousd(2), tokens: 0 }, at).await.unwrap();
            2
        })
    });
    let mut spent = 0;
    for call in calls.collect::<Vec<_>>() {
        spent += call.await.unwrap();
    }
    let standing = first.standing(&Scope::All).await.unwrap().unwrap();
    assert_eq!((standing.spent[1], standing.reserved), (spent, [0, 0]));
    assert!((997..=1_000).contains(&spent), "{spent}");
}

/// After a flush nobody passes before the ledger was read and those who have calls under way have said so.
#[tokio::test]
async fn a_flush_lets_nobody_spend_twice() {
    let mut redis = Redis::of(Arc::new(RedisServer::start_with(&[])), 2);
    let [first, second] = [redis.counters[0].clone(), redis.counters[1].clone()];
    assert_eq!(first.reserve(&ask(1)).await.unwrap(), Verdict::Forgotten);
    first.begin().await.unwrap();
    redis.clock.advance_ms(LIFE_GRACE_MS);
    read(first.as_ref(), 0, redis.clock.now()).await;
    let under_way = ask(400);
    assert_eq!(second.reserve(&under_way).await.unwrap(), Verdict::Granted);
    let life = second.renew(&[]).await.unwrap();
    redis.server.flush();
    assert_eq!(second.renew(&[]).await.unwrap(), None, "it is noticed");
    assert_eq!(first.reserve(&ask(1)).await.unwrap(), Verdict::Forgotten);
    redis.clock.advance_ms(5);
    for counters in [&first, &second] {
        counters.begin().await.unwrap();
    }
    assert!(matches!(first.reserve(&ask(1)).await.unwrap(), Verdict::Closed { .. }));
    let asserted = UnderWay { call: under_way.call, amount: under_way.amount, scopes: vec![Scope::All] };
    assert_ne!(second.renew(&[asserted]).await.unwrap(), life, "a new life");
    redis.clock.advance_ms(LIFE_GRACE_MS);
    assert!(matches!(first.reserve(&ask(1)).await.unwrap(), Verdict::Unknown(_)));
    read(first.as_ref(), 500, redis.clock.now()).await;
    assert!(matches!(first.reserve(&ask(101)).await.unwrap(), Verdict::Refused(_)));
    assert_eq!(first.reserve(&ask(100)).await.unwrap(), Verdict::Granted);
    let took = Amount { usd: Nanousd(350), tokens: 0 };
    assert!(second.commit(under_way.call, took, redis.clock.now()).await.unwrap());
    assert_eq!(first.standing(&Scope::All).await.unwrap().unwrap().spent[1], 850);
    Arc::get_mut(&mut redis.server).unwrap().stop();
    assert!(first.reserve(&ask(1)).await.is_err(), "away is away");
}
