//! What the watchers look at that only this crate knows of: files, and servers beside the journal's.

use std::sync::Arc;

use async_trait::async_trait;
use queue_core::{
    dispatcher::redis::{self, RedisConfig},
    time::Timestamp,
};
use scheduler::{ServerClock, Watched};

use crate::{
    certificate,
    config::{Config, TlsFiles},
    stores,
};

/// What is watched.
pub(super) fn watched(config: &Config) -> Watched {
    let mut clocks: Vec<Arc<dyn ServerClock>> = Vec::new();
    // An address that cannot be read has ended the start before.
    if let Ok(Some(redis)) = stores::redis(&config.dispatcher) {
        clocks.push(Arc::new(RedisClock(redis)));
    }
    let certificate = config.tls.clone().map(|files: TlsFiles| {
        let read: Arc<dyn Fn() -> Option<Timestamp> + Send + Sync> = Arc::new(move || certificate::end_of(&files));
        read
    });
    Watched { window: config.upkeep.is_named.then(|| config.upkeep.window.clone()), certificate, clocks }
}

/// The clock of the dispatcher's Redis.
struct RedisClock(RedisConfig);

#[async_trait]
impl ServerClock for RedisClock {
    fn name(&self) -> &str {
        "redis"
    }

    async fn now(&self) -> Result<Timestamp, String> {
        redis::server_now(&self.0).await.map_err(|error| error.to_string())
    }
}
