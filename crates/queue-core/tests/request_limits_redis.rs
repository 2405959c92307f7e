//! Request limits in Redis against a real server: the conformance suite, with and without what stands in front of the store, and
//! what only several processes and a server that goes away can do to them.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod redis_fixture;

use std::{slice, sync::Arc, time::Duration};

use queue_core::{
    dispatcher::redis::RedisConfig,
    request_limits::{
        Away, Draw, Measure, Quota, RequestLimits,
        conformance::{Fixture, draw},
        fleet::FleetRequestLimits,
        redis::RedisRequestLimits,
    },
    time::{Clock, ManualClock, SystemClock, Timestamp},
};
use redis_fixture::config;
use testkit::RedisServer;

/// Longest wait for anything: a test that needs longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

struct Store {
    _server: Arc<RedisServer>,
    limits: Arc<dyn RequestLimits>,
    clock: ManualClock,
}

impl Store {
    fn of(limits: impl FnOnce(&RedisConfig, &ManualClock) -> Arc<dyn RequestLimits>) -> Self {
        let (server, clock) = (RedisServer::shared(), ManualClock::at(Timestamp(1_790_000_000_000)));
        let limits = limits(&config(&server, &clock), &clock);
        Self { _server: server, limits, clock }
    }
}

impl Fixture for Store {
    fn limits(&self) -> Arc<dyn RequestLimits> {
        self.limits.clone()
    }

    fn advance_ms(&self, ms: i64) {
        self.clock.advance_ms(ms);
    }
}

fn fleet(config: &RedisConfig, clock: Arc<dyn Clock>) -> FleetRequestLimits {
    FleetRequestLimits::new(RedisRequestLimits::open(config).unwrap(), clock).patient(PATIENCE)
}

mod store {
    use super::*;

    queue_core::request_limits_conformance!(Store::of(|config, _| Arc::new(RedisRequestLimits::open(config).unwrap())));
}

mod with_what_stands_in_front {
    use super::*;

    queue_core::request_limits_conformance!(Store::of(|config, clock| Arc::new(fleet(
        config,
        Arc::new(clock.clone())
    ))));
}

fn request() -> Draw {
    draw(Some("k"), Measure::Requests, 100)
}

/// A thousand at once over three processes, by Redis' own clock: never more than the burst and what the time earns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_has_one_meter() {
    let server = RedisServer::shared();
    let config = RedisConfig { clock: None, ..config(&server, &ManualClock::default()) };
    let fleet: Vec<_> = (0..3).map(|_| fleet(&config, Arc::new(SystemClock))).collect();
    let began = std::time::Instant::now();
    let draws = [request(), draw(None, Measure::Requests, 1_000)];
    let answers = futures::future::join_all((0..1_000).map(|n| fleet[n % 3].take(&draws))).await;
    let earned = began.elapsed().as_millis() as usize / 600 + 1;
    let passed = answers.into_iter().filter(|answer| answer.as_ref().unwrap().admitted).count();
    assert!((100..=100 + earned).contains(&passed), "{passed} passed, {earned} were earned");
}

/// A key that is far over its limit does not cost a call of the store: what it was told last is enough.
#[tokio::test]
async fn who_is_far_over_a_limit_costs_no_call() {
    let server = Arc::new(RedisServer::start_with(&[]));
    let clock = ManualClock::at(Timestamp(1_790_000_000_000));
    let one = fleet(&config(&server, &clock), Arc::new(clock.clone()));
    let mut passed = 0;
    for _ in 0..102 {
        passed += usize::from(one.take(&[request()]).await.unwrap().admitted);
    }
    assert_eq!(passed, 100);
    let calls = || {
        let info = server.command(&["INFO", "commandstats"]);
        let line = info.lines().find(|line| line.starts_with("cmdstat_fcall:")).unwrap().to_owned();
        line.split(['=', ',']).nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = calls();
    for _ in 0..500 {
        let refused = one.take(&[request()]).await.unwrap();
        assert!(!refused.admitted && refused.levels[0].unwrap().wait_us > 0);
    }
    assert_eq!(calls(), before);
    clock.advance_ms(600);
    assert!(one.take(&[request()]).await.unwrap().admitted);
    assert_eq!(calls(), before + 1);
}

/// A store that answers late once must not be worth another burst.
#[tokio::test]
async fn what_was_used_up_is_used_up_without_the_store() {
    let mut server = RedisServer::start_with(&[]);
    let clock = ManualClock::at(Timestamp(1_790_000_000_000));
    let one = fleet(&config(&server, &clock), Arc::new(clock.clone()));
    let local = Draw { when_away: Away::Local, ..request() };
    for _ in 0..100 {
        assert!(one.take(slice::from_ref(&local)).await.unwrap().admitted);
    }
    server.stop();
    clock.advance_ms(600);
    let mut passed = 0;
    for _ in 0..50 {
        passed += usize::from(one.take(slice::from_ref(&local)).await.unwrap().admitted);
    }
    assert_eq!(passed, 1, "what came back meanwhile");
}

/// Each policy while the server is away; and afterwards the store decides again.
#[tokio::test]
async fn while_the_store_is_away_each_limit_does_as_it_says() {
    let mut server = RedisServer::start_with(&[]);
    let clock = ManualClock::at(Timestamp(1_790_000_000_000));
    let config = config(&server, &clock);
    let fleet: Vec<_> = (0..2).map(|_| Arc::new(fleet(&config, Arc::new(clock.clone())))).collect();
    let attending: Vec<_> = fleet.iter().cloned().map(|one| tokio::spawn(async move { one.attend().await })).collect();
    until(|| fleet.iter().any(|one| one.processes() == 2)).await;
    let one = fleet.iter().find(|one| one.processes() == 2).unwrap();
    let with = |when_away| Draw { when_away, ..request() };
    assert!(one.take(&[with(Away::Local)]).await.unwrap().admitted);
    server.stop();

    let mut passed = 0;
    for _ in 0..200 {
        passed += usize::from(one.take(&[with(Away::Local)]).await.unwrap().admitted);
    }
    assert_eq!(passed, 49, "its share of two, less its part of what has passed before");
    clock.advance_ms(1_200);
    assert!(one.take(&[with(Away::Local)]).await.unwrap().admitted, "at half the rate");
    assert!(!one.take(&[with(Away::Local)]).await.unwrap().admitted);
    assert!(one.take(&[with(Away::Closed)]).await.is_err());
    assert!(one.take(&[with(Away::Open)]).await.unwrap().admitted);
    let jobs = Draw { least: 0, most: 7, ..draw(Some("k"), Measure::LlmSubmits, 5) };
    let open = Draw { when_away: Away::Open, ..jobs.clone() };
    assert_eq!(one.take(&[with(Away::Open), open]).await.unwrap().jobs, Some(7));
    assert!(one.take(&[with(Away::Open), jobs]).await.is_err(), "one that is closed closes all");

    server.restart_empty();
    let restarted = async {
        while one.take(&[with(Away::Closed)]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, restarted).await.unwrap();
    attending.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A flush gives one burst more, and nothing is left behind: each key has an end.
#[tokio::test]
async fn keys_end_by_themselves() {
    let server = RedisServer::start_with(&[]);
    let clock = ManualClock::at(Timestamp(1_790_000_000_000));
    let config = config(&server, &clock);
    let store = RedisRequestLimits::open(&config).unwrap();
    let all = [request(), draw(None, Measure::Requests, 10), draw(Some("k"), Measure::LlmSubmits, 7)];
    store.take(&all).await.unwrap();
    let number = |words: &[&str]| server.command(words).trim_start_matches(':').trim().parse::<i64>().unwrap();
    assert_eq!(number(&["DBSIZE"]), 3);
    // One hash tag for all of a tenant, so that a request is one call in a Cluster, too.
    for name in ["key:k:requests", "requests", "key:k:submits"] {
        let key = format!("{}q1:{{acme}}:{name}", config.prefix);
        let ends_ms = number(&["PTTL", &key]);
        assert!((1..=130_000).contains(&ends_ms), "{key} ends in {ends_ms} ms");
    }
    let one = Draw { quota: Quota::new(1, 60_000), ..request() };
    assert!(!store.take(slice::from_ref(&one)).await.unwrap().admitted);
    server.flush();
    assert!(store.take(&[one]).await.unwrap().admitted);
}

async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}
