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
    time::{Clock, ManualClock, SystemClock, Timestamp},
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
}

impl Two {
    async fn fresh() -> Self {
        let server = RedisServer::shared();
        let two = Self::at(&server.url()).await;
        Self { _server: Some(server), ..two }
    }

    async fn at(url: &str) -> Self {
        let config = config(url);
        let (publisher, reader) = (open(&config).await, open(&config).await);
        Self { _server: None, publisher, reader }
    }
}

fn config(url: &str) -> RedisConfig {
    static PREFIXES: AtomicU64 = AtomicU64::new(0);
    RedisConfig {
        prefix: format!("test-{}-", PREFIXES.fetch_add(1, Ordering::Relaxed)),
        ..RedisConfig::new(RedisAddress::parse(url).unwrap())
    }
}

async fn open(config: &RedisConfig) -> Arc<RedisEvents> {
    open_at(config, Arc::new(SystemClock)).await
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
