//! The cache over a real Redis: the conformance suite, and what only a server can do to it.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use queue_core::{
    cache::{Cache, Key, Lock, Space, conformance::Fixture, redis::RedisCache},
    dispatcher::redis::{RedisAddress, RedisConfig},
};
use testkit::RedisServer;

queue_core::cache_conformance!(Redis::fresh());

struct Redis {
    _server: Option<Arc<RedisServer>>,
    cache: Arc<RedisCache>,
}

impl Redis {
    fn fresh() -> Self {
        let server = RedisServer::shared();
        let cache = Arc::new(open(&server.url()).patient(Duration::from_secs(10)));
        Self { _server: Some(server), cache }
    }
}

fn open(url: &str) -> RedisCache {
    static PREFIXES: AtomicU64 = AtomicU64::new(0);
    let prefix = format!("test-{}-{}-", std::process::id(), PREFIXES.fetch_add(1, Ordering::Relaxed));
    let config = RedisConfig { prefix, ..RedisConfig::new(RedisAddress::parse(url).unwrap()) };
    RedisCache::open(&config).unwrap()
}

#[async_trait]
impl Fixture for Redis {
    fn cache(&self) -> Arc<dyn Cache> {
        self.cache.clone()
    }

    /// Expiry is the server's own, so its time has to go by.
    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_is_away_is_a_miss_and_nobody_waits_for_it() {
    // Nobody listens there.
    let cache = open("redis://127.0.0.1:1");
    let key = Key::of(Space::Vector, &[b"a"]);
    let began = Instant::now();
    for _ in 0..200 {
        assert_eq!(cache.get_many(&[key, key]).await, [None, None]);
        cache.put_many(vec![(key, Bytes::new())], Duration::from_secs(1)).await;
        assert_eq!(cache.lock(&key, Duration::from_secs(1)).await, Lock::Away);
    }
    // 600 questions that each waited for an answer would be over a minute.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_hangs_is_a_miss_and_is_used_again_when_it_answers() {
    let server = tokio::task::spawn_blocking(RedisServer::start).await.unwrap();
    let cache = open(&server.url());
    let key = Key::of(Space::Vector, &[b"a"]);
    let kept = || async {
        cache.put_many(vec![(key, Bytes::from_static(b"1"))], Duration::from_secs(60)).await;
        cache.get_many(&[key]).await == [Some(Bytes::from_static(b"1"))]
    };
    let until_kept = || async {
        while !kept().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), until_kept()).await.unwrap();
    server.freeze();
    assert_eq!(cache.get_many(&[key]).await, [None]);
    assert_eq!(cache.lock(&key, Duration::from_secs(1)).await, Lock::Away);
    server.thaw();
    tokio::time::timeout(Duration::from_secs(20), until_kept()).await.unwrap();
}
