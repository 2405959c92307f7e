//! The cache that processes share: a Redis that may evict, named by `[cache] url`, and not the dispatcher's.

use std::{
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future;
use redis::{Cmd, RedisResult, Value};

use super::{CHUNK_MAX_KEYS, Cache, Fence, Key, Lock, REST, VALUE_MAX_BYTES, WAIT_MAX};
use crate::dispatcher::redis::{RedisConfig, library::Library, link::Link};

/// Changes with the form of what is kept: another version's data is not read.
pub(crate) const VERSION: u32 = 1;

static LIBRARY: LazyLock<Library> =
    LazyLock::new(|| Library::of(&format!("longshore_cache_{VERSION}"), include_str!("../../lua/cache.lua")));

/// A cache in Redis.
pub struct RedisCache {
    link: Arc<Link>,
    prefix: String,
    wait: Duration,
    /// Until when it is left alone, because it did not answer.
    rests_until: Mutex<Option<Instant>>,
}

impl RedisCache {
    /// Connects with the first question.
    ///
    /// # Errors
    /// Says what is wrong with the address.
    pub fn open(config: &RedisConfig) -> Result<Self, String> {
        let link = Link::of(config).map_err(|error| format!("{}: {error}", config.address))?.calling(&LIBRARY);
        let prefix = format!("{}c{VERSION}", config.prefix);
        Ok(Self { link: Arc::new(link), prefix, wait: WAIT_MAX, rests_until: Mutex::default() })
    }

    /// The same with another longest wait than [`WAIT_MAX`]: for tests on a busy machine.
    pub fn patient(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    fn value_key(&self, key: &Key) -> String {
        format!("{}:{{{key}}}", self.prefix)
    }

    fn lock_key(&self, key: &Key) -> String {
        format!("{}:{{{key}}}:lock", self.prefix)
    }

    /// What `asked` comes to, if it comes in time.
    async fn within<T>(&self, asked: impl Future<Output = RedisResult<T>>) -> Option<T> {
        let resting = |until: &Option<Instant>| until.is_some_and(|until| Instant::now() < until);
        if resting(&self.rests_until.lock().unwrap_or_else(PoisonError::into_inner)) {
            return None;
        }
        let why = match tokio::time::timeout(self.wait, asked).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.wait),
        };
        tracing::debug!(why, "the cache is away: nothing is found in it");
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
        None
    }

    async fn find(&self, keys: &[Key]) -> Option<Vec<Option<Bytes>>> {
        let names: Vec<String> = keys.iter().map(|key| self.value_key(key)).collect();
        let command = redis::cmd("MGET").arg(&names).to_owned();
        match self.within(self.link.send(&command)).await? {
            Value::Array(values) if values.len() == keys.len() => Some(
                values
                    .into_iter()
                    .map(|value| if let Value::BulkString(bytes) = value { Some(bytes.into()) } else { None })
                    .collect(),
            ),
            other => {
                tracing::warn!(?other, "the cache's Redis gave an answer of another form");
                None
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn set(key: &str, value: &[u8], ttl: Duration) -> Cmd {
    redis::cmd("SET").arg(key).arg(value).arg("PX").arg(millis(ttl)).to_owned()
}

#[async_trait]
impl Cache for RedisCache {
    async fn get_many(&self, keys: &[Key]) -> Vec<Option<Bytes>> {
        let mut found = Vec::with_capacity(keys.len());
        // One after the other: the first piece that is not answered lets the rest go without a question.
        for piece in keys.chunks(CHUNK_MAX_KEYS) {
            match self.find(piece).await {
                Some(values) => found.extend(values),
                None => found.extend(std::iter::repeat_n(None, piece.len())),
            }
        }
        found
    }

    async fn put_many(&self, entries: Vec<(Key, Bytes)>, ttl: Duration) {
        for piece in entries.chunks(CHUNK_MAX_KEYS) {
            let fits = piece.iter().filter(|(_, value)| value.len() <= VALUE_MAX_BYTES);
            let commands: Vec<Cmd> = fits.map(|(key, value)| set(&self.value_key(key), value, ttl)).collect();
            // Sent at once over one connection: a round trip for all of them.
            let kept = future::try_join_all(commands.iter().map(|command| self.link.send(command)));
            if self.within(kept).await.is_none() {
                return;
            }
        }
    }

    async fn lock(&self, key: &Key, hold: Duration) -> Lock {
        let fence = Fence(rand::random());
        let lock = redis::cmd("SET")
            .arg(self.lock_key(key))
            .arg(fence.0.to_string())
            .arg("NX")
            .arg("PX")
            .arg(millis(hold))
            .to_owned();
        match self.within(self.link.send(&lock)).await {
            Some(Value::Okay) => Lock::Held(fence),
            Some(Value::Nil) => Lock::Taken,
            _ => Lock::Away,
        }
    }

    async fn unlock(&self, key: &Key, fence: Fence, value: Option<(Bytes, Duration)>) -> bool {
        let value = value.filter(|(value, _)| value.len() <= VALUE_MAX_BYTES);
        let (flag, value, ttl) = match &value {
            Some((value, ttl)) => ("1", value.as_ref(), *ttl),
            None => ("0", [].as_slice(), Duration::ZERO),
        };
        let keys = [self.lock_key(key), self.value_key(key)];
        let ttl = millis(ttl).to_string();
        let args = [fence.0.to_string().into_bytes(), flag.into(), value.to_vec(), ttl.into_bytes()];
        let keys = keys.each_ref().map(String::as_str);
        matches!(self.within(self.link.call(&keys, &args)).await, Some(Value::Int(1)))
    }
}
