//! Events over real Redis servers: the conformance suite, and what only messages and a server can do to them.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use queue_core::{
    dispatcher::redis::{RedisAddress, RedisConfig},
    events::{
        EventBody, Events, Progress,
        conformance::{Fixture, Follower},
        redis::RedisEvents,
    },
    ids::JobId,
    state::State,
    time::{Clock, ManualClock, Timestamp},
};
use testkit::{RedisCluster, RedisSentinel, RedisServer};
use tokio::time::timeout;

/// Longest wait for anything: a test that needs longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

queue_core::events_conformance!(Two::fresh().await);

/// Two processes with messages of their own.
struct Two {
    _server: Option<Arc<RedisServer>>,
    publisher: Arc<RedisEvents>,
    reader: Arc<RedisEvents>,
    clock: ManualClock,
}

impl Two {
    async fn fresh() -> Self {
        let server = RedisServer::shared();
        let two = Self::at(&server.url()).await;
        Self { _server: Some(server), ..two }
    }

    async fn at(url: &str) -> Self {
        let (config, clock) = (config(url), ManualClock::at(Timestamp(1_790_000_000_000)));
        let publisher = open_at(&config, Arc::new(clock.clone())).await;
        let reader = open_at(&config, Arc::new(clock.clone())).await;
        Self { _server: None, publisher, reader, clock }
    }
}

fn config(url: &str) -> RedisConfig {
    static PREFIXES: AtomicU64 = AtomicU64::new(0);
    RedisConfig {
        prefix: format!("test-{}-", PREFIXES.fetch_add(1, Ordering::Relaxed)),
        ..RedisConfig::new(RedisAddress::parse(url).unwrap())
    }
}

async fn open_at(config: &RedisConfig, clock: Arc<dyn Clock>) -> Arc<RedisEvents> {
    let events = RedisEvents::open(config, clock).unwrap();
    events.wait_until_open(PATIENCE).await;
    Arc::new(events)
}

#[async_trait]
impl Fixture for Two {
    fn publisher(&self) -> Arc<dyn Events> {
        self.publisher.clone()
    }

    fn reader(&self) -> Arc<dyn Events> {
        self.reader.clone()
    }

    fn pass_a_moment(&self) {
        self.clock.advance_ms(1);
    }

    async fn ends_are_wanted(&self) {
        timeout(PATIENCE, self.publisher.ends_are_wanted()).await.unwrap();
    }
}

fn token(text: &str) -> EventBody {
    EventBody::Token { attempt: 1, step: "chat".into(), text: text.into() }
}

/// Waits for what no message tells.
async fn until(what: impl Fn() -> bool) {
    let reached = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap();
}

#[tokio::test]
async fn nothing_is_sent_while_nobody_asks() {
    let two = Two::fresh().await;
    for _ in 0..1_000 {
        let job = JobId::generate();
        two.publisher.publish(job, token("x"));
        two.publisher.publish(job, EventBody::State { state: State::Succeeded });
    }
    // Its answer tells that every message before it was sent.
    let job = JobId::generate();
    two.publisher.publish(job, EventBody::Progress { done: 1, total: 2, step: "map".into() });
    let known = Some(Progress { done: 1, total: 2, step: "map".into() });
    assert_eq!(two.reader.progress(job).await, known);
    assert_eq!(two.publisher.traffic().messages, 1);
}

#[tokio::test]
async fn an_interest_that_nobody_renews_expires() {
    let two = Two::fresh().await;
    let job = JobId::generate();
    two.publisher.publish(job, token("a"));
    let mut reader = Follower::of(two.reader.clone(), job, None).await;
    assert_eq!(reader.texts(1).await, ["a"]);
    assert_eq!(two.publisher.traffic().interests, 1);
    drop(reader);
    until(|| two.publisher.traffic().interests == 0).await;
    let before = two.publisher.traffic().answers;
    for _ in 0..100 {
        two.publisher.publish(job, token("unheard"));
    }
    // It answers this, so it would have sent those.
    assert_eq!(two.reader.progress(job).await, None);
    assert!(two.publisher.traffic().answers <= before + 1);
}

#[tokio::test]
async fn a_worker_whose_clock_is_behind_is_followed() {
    let server = RedisServer::shared();
    let config = config(&server.url());
    let clocks = [2_000, 1_000, 0].map(|now| ManualClock::at(Timestamp(1_790_000_000_000 + now)));
    let first = open_at(&config, Arc::new(clocks[0].clone())).await;
    let second = open_at(&config, Arc::new(clocks[1].clone())).await;
    let api = open_at(&config, Arc::new(clocks[2].clone())).await;
    let job = JobId::generate();
    let mut reader = Follower::of(api.clone(), job, None).await;
    first.publish(job, EventBody::AttemptStarted { attempt: 1 });
    first.publish(job, token("a"));
    first.publish(job, EventBody::State { state: State::Ready });
    reader.take(3).await;
    until(|| second.traffic().interests == 1).await;
    second.publish(job, EventBody::AttemptStarted { attempt: 2 });
    second.publish(job, token("b"));
    assert_eq!(reader.next().await.body, EventBody::AttemptStarted { attempt: 2 });
    assert_eq!((reader.texts(1).await, reader.gaps), (vec!["b".to_owned()], 1));
}

#[tokio::test]
async fn the_attempt_of_a_worker_that_died_ends_with_a_gap() {
    let server = RedisServer::shared();
    let config = config(&server.url());
    let clock = ManualClock::at(Timestamp(1_790_000_000_000));
    let open = || open_at(&config, Arc::new(clock.clone()));
    let (first, second, api) = (open().await, open().await, open().await);
    let job = JobId::generate();
    first.publish(job, EventBody::AttemptStarted { attempt: 1 });
    let mut reader = Follower::of(api.clone(), job, None).await;
    reader.next().await;
    drop(first);
    clock.advance_ms(15_000);
    second.publish(job, EventBody::AttemptStarted { attempt: 2 });
    second.publish(job, token("b"));
    second.publish(job, EventBody::State { state: State::Succeeded });
    assert_eq!(reader.next().await.body, EventBody::AttemptStarted { attempt: 2 });
    assert_eq!((reader.texts(1).await, reader.gaps), (vec!["b".to_owned()], 1));
    assert_eq!(reader.next().await.body, EventBody::State { state: State::Succeeded });
}

/// A server that is restarted while a stream and a wait are open.
#[tokio::test]
async fn a_stream_goes_on_after_redis_was_away() {
    let mut server = RedisServer::start();
    let two = Two::at(&server.url()).await;
    let job = JobId::generate();
    two.publisher.publish(job, token("before"));
    let mut reader = Follower::of(two.reader.clone(), job, None).await;
    let mut finished = two.reader.finished();
    two.ends_are_wanted().await;
    assert_eq!(reader.texts(1).await, ["before"]);
    server.stop();
    for number in 0..100 {
        two.publisher.publish(job, token(&number.to_string()));
    }
    two.publisher.publish(JobId::generate(), EventBody::State { state: State::Succeeded });
    server.restart_empty();
    let numbers: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!((reader.texts(100).await, reader.gaps), (numbers, 0), "what the worker still holds comes late");

    // Ends that were told meanwhile may be lost; those from now on are heard again.
    let heard = async {
        loop {
            let job = JobId::generate();
            two.publisher.publish(job, EventBody::State { state: State::Succeeded });
            if let Ok(Ok(heard)) = timeout(Duration::from_millis(100), finished.recv()).await
                && heard == job
            {
                return;
            }
        }
    };
    timeout(PATIENCE, heard).await.unwrap();
}

#[tokio::test]
async fn more_than_a_worker_holds_while_redis_is_away_is_a_gap() {
    let mut server = RedisServer::start();
    let two = Two::at(&server.url()).await;
    let job = JobId::generate();
    two.publisher.publish(job, token("before"));
    let mut reader = Follower::of(two.reader.clone(), job, None).await;
    assert_eq!(reader.texts(1).await, ["before"]);
    server.stop();
    for number in 0..10_000 {
        two.publisher.publish(job, token(&number.to_string()));
    }
    server.restart_empty();
    let first: usize = reader.texts(1).await[0].parse().unwrap();
    assert!(reader.gaps == 1 && first > 0, "{first} {}", reader.gaps);
    let rest: Vec<usize> = reader.texts(9_999 - first).await.iter().map(|text| text.parse().unwrap()).collect();
    assert!(rest.iter().copied().eq(first + 1..10_000) && reader.gaps == 1);
}

#[tokio::test]
async fn everything_is_answered_while_redis_is_away() {
    let mut server = RedisServer::start();
    let two = Two::at(&server.url()).await;
    server.stop();
    let (here, there) = (JobId::generate(), JobId::generate());
    two.reader.publish(here, token("own"));
    two.reader.publish(here, EventBody::Progress { done: 1, total: 2, step: "map".into() });
    two.publisher.publish(there, token("far"));
    assert_eq!(timeout(PATIENCE, two.reader.progress(there)).await.unwrap(), None);
    assert_eq!(two.reader.progress(here).await.map(|progress| progress.done), Some(1));
    let mut own = Follower::of(two.reader.clone(), here, None).await;
    assert_eq!(own.texts(1).await, ["own"]);
    own.next().await;
    two.reader.publish(here, token("own and live"));
    assert_eq!(own.texts(1).await, ["own and live"]);
    let mut far = Follower::of(two.reader.clone(), there, None).await;
    server.restart_empty();
    assert_eq!((far.texts(1).await, far.gaps), (vec!["far".to_owned()], 0));
}

#[tokio::test]
async fn ends_are_sent_in_batches_and_only_while_somebody_waits() {
    let two = Two::fresh().await;
    let end = |job| two.publisher.publish(job, EventBody::State { state: State::Succeeded });
    let waited_for = JobId::generate();
    let mut finished = two.reader.finished();
    two.ends_are_wanted().await;
    (0..10_000).for_each(|_| end(JobId::generate()));
    end(waited_for);
    while timeout(PATIENCE, finished.recv()).await.unwrap().unwrap() != waited_for {}
    let sent = two.publisher.traffic().ends;
    assert!(sent <= 10, "{sent} messages");

    drop(finished);
    timeout(PATIENCE, two.publisher.ends_are_unwanted()).await.unwrap();
    (0..1_000).for_each(|_| end(JobId::generate()));
    let job = JobId::generate();
    two.publisher.publish(job, token("x"));
    assert_eq!(Follower::of(two.reader.clone(), job, None).await.texts(1).await, ["x"]);
    assert_eq!(two.publisher.traffic().ends, sent);
}

/// Replay, live, progress and ends, over whatever is behind `url`.
async fn works_at(url: &str) {
    let two = Two::at(url).await;
    let cases: [&str; 3] = ["a", "b", "c"];
    let jobs: Vec<_> = (0..20).map(|_| JobId::generate()).collect();
    let mut finished = two.reader.finished();
    two.ends_are_wanted().await;
    for job in jobs {
        two.publisher.publish(job, token(cases[0]));
        let mut reader = Follower::of(two.reader.clone(), job, None).await;
        assert_eq!(reader.texts(1).await, cases[..1]);
        two.publisher.publish(job, token(cases[1]));
        two.publisher.publish(job, token(cases[2]));
        assert_eq!(reader.texts(2).await, cases[1..]);
        two.publisher.publish(job, EventBody::State { state: State::Succeeded });
        assert_eq!(timeout(PATIENCE, finished.recv()).await.unwrap().unwrap(), job);
    }
}

#[tokio::test]
async fn a_cluster_and_a_sentinel_carry_events() {
    let cluster = RedisCluster::start();
    works_at(&cluster.url()).await;
    drop(cluster);
    let sentinel = RedisSentinel::start();
    works_at(&sentinel.url()).await;
}
