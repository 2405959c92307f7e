//! A Redis dispatcher over a real server, with keys and a time of its own.

#![allow(clippy::unwrap_used, dead_code)] // a test fails by panicking; no test uses all of it

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use queue_core::{
    dispatcher::{
        Dispatcher,
        conformance::Fixture,
        redis::{RedisAddress, RedisConfig, RedisDispatcher},
    },
    time::{Clock, ManualClock, Timestamp},
};
use testkit::RedisServer;

/// Each case has keys of its own.
pub(crate) fn config(server: &RedisServer, clock: &ManualClock) -> RedisConfig {
    static PREFIXES: AtomicU64 = AtomicU64::new(0);
    RedisConfig {
        prefix: format!("test-{}-", PREFIXES.fetch_add(1, Ordering::Relaxed)),
        // A lost wake-up must fail a case, not be made good by the poll.
        poll_every: Duration::from_secs(3_600),
        clock: Some(Arc::new(clock.clone())),
        ..RedisConfig::new(RedisAddress::parse(&server.url()).unwrap())
    }
}

pub(crate) struct Redis {
    pub(crate) server: Arc<RedisServer>,
    pub(crate) dispatcher: Arc<RedisDispatcher>,
    /// What its keys begin with.
    pub(crate) prefix: String,
    pub(crate) clock: ManualClock,
}

impl Redis {
    pub(crate) async fn fresh() -> Self {
        Self::on(RedisServer::shared()).await
    }

    /// On a server of its own, to be flushed, frozen or stopped.
    pub(crate) async fn on(server: Arc<RedisServer>) -> Self {
        let clock = ManualClock::at(Timestamp(1_790_000_000_000));
        let config = config(&server, &clock);
        let prefix = config.prefix.clone();
        let dispatcher = RedisDispatcher::open(config).await.unwrap();
        Self { server, dispatcher: Arc::new(dispatcher), prefix, clock }
    }
}

#[async_trait]
impl Fixture for Redis {
    fn dispatcher(&self) -> Arc<dyn Dispatcher> {
        self.dispatcher.clone()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    async fn advance_ms(&self, ms: i64) {
        self.clock.advance_ms(ms);
    }

    async fn signals_arrive(&self) {
        self.dispatcher.signals_arrived().await.unwrap();
    }
}
