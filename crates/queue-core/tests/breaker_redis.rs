//! The circuits in Redis against a real server: the conformance suite, and what only a server can do to it.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod redis_fixture;

use std::sync::Arc;

use async_trait::async_trait;
use queue_core::{
    breaker::{
        Ask, Breakers, CALLS_MIN, Change, End, Ended, Leave, OPEN_MS, ProbeId, conformance::Fixture,
        redis::RedisBreakers,
    },
    dispatcher::DispatchError,
    journal::{TargetSettings, Versioned},
    time::{Clock, ManualClock, Timestamp},
};
use redis_fixture::config;
use testkit::RedisServer;

struct Redis {
    server: Arc<RedisServer>,
    breakers: Vec<Arc<RedisBreakers>>,
    clock: ManualClock,
}

impl Redis {
    /// Several processes on the same keys.
    fn of(server: Arc<RedisServer>, processes: usize) -> Self {
        let clock = ManualClock::at(Timestamp(1_790_000_000_000));
        let config = config(&server, &clock);
        let breakers = (0..processes).map(|_| Arc::new(RedisBreakers::open(&config).unwrap())).collect();
        Self { server, breakers, clock }
    }
}

#[async_trait]
impl Fixture for Redis {
    fn breakers(&self) -> Arc<dyn Breakers> {
        self.breakers[0].clone()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn advance_ms(&self, ms: i64) {
        self.clock.advance_ms(ms);
    }
}

queue_core::breaker_conformance!(Redis::of(RedisServer::shared(), 1));

fn ask() -> Ask {
    Ask { target: "p:m:c".into(), account: "p:*:c".into(), probe: ProbeId::generate(), successes: 0 }
}

fn failed() -> Ended {
    let (probe, reason) = (ProbeId::generate(), "503".to_owned());
    Ended { circuit: "p:m:c".into(), probe, end: End::Failure, successes: 0, reason }
}

/// Failures are counted over all processes, and one caller of all of them is let through.
#[tokio::test]
async fn a_fleet_has_one_breaker() {
    let fleet = Redis::of(RedisServer::shared(), 4);
    let mut opened = 0;
    for n in 0..CALLS_MIN as usize {
        opened += usize::from(matches!(fleet.breakers[n % 4].end(failed()).await.unwrap(), Change::Opened(_)));
    }
    assert_eq!(opened, 1);
    fleet.clock.advance_ms(OPEN_MS);
    let asked = (0..64).map(|n| fleet.breakers[n % 4].enter(ask()));
    let answers: Vec<_> = futures::future::join_all(asked).await.into_iter().map(Result::unwrap).collect();
    let probes = answers.iter().filter(|answer| matches!(answer, Leave::Probe { .. })).count();
    assert_eq!(probes, 1, "{answers:?}");
}

/// A flush closes every circuit; a script that is gone is loaded again; an absent server is told at once.
#[tokio::test]
async fn a_flush_forgets_and_an_absent_server_is_told() {
    let mut redis = Redis::of(Arc::new(RedisServer::start_with(&[])), 1);
    let breakers = redis.breakers[0].clone();
    for _ in 0..CALLS_MIN {
        breakers.end(failed()).await.unwrap();
    }
    let paused = TargetSettings { paused: true, ..TargetSettings::default() };
    breakers.set(&"p:paused:c".into(), Versioned { version: 1, value: paused }).await.unwrap();
    assert!(matches!(breakers.enter(ask()).await.unwrap(), Leave::Refused(_)));
    redis.server.flush();
    assert_eq!(breakers.enter(ask()).await.unwrap(), Leave::Given);
    assert_eq!(breakers.enter(Ask { target: "p:paused:c".into(), ..ask() }).await.unwrap(), Leave::Given);
    Arc::get_mut(&mut redis.server).unwrap().stop();
    assert!(matches!(breakers.enter(ask()).await, Err(DispatchError::Unavailable(_))));
}
