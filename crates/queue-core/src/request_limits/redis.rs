//! Request limits that processes share, in Redis beside the dispatcher: a library of its own, by Redis' own clock. One call a
//! request, whatever it draws.

use std::{
    future,
    sync::{Arc, LazyLock},
    time::Duration,
};

use async_trait::async_trait;
use redis::Value;

use super::{Answer, Draw, Level, Measure, Meter, RequestLimits, Unavailable, memory::now_us};
use crate::{
    dispatcher::redis::{RedisConfig, library::Library, link::Link},
    time::Clock,
};

/// Changes with the form of what is kept: another version's data is not read.
pub(crate) const VERSION: u32 = 1;
/// How long a meter is kept beyond the moment at which it is whole: longer than clocks of a primary and its replica differ.
const KEEP_MS: u64 = 60_000;

static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let body = format!("local KEEP_MS = {KEEP_MS}\n{}", include_str!("../../lua/requests.lua"));
    Library::of(&format!("longshore_requests_{VERSION}"), &body)
});

/// Meters in Redis.
pub struct RedisRequestLimits {
    link: Link,
    prefix: String,
    clock: Option<Arc<dyn Clock>>,
}

impl RedisRequestLimits {
    /// Connects with the first request.
    ///
    /// # Errors
    /// Says what is wrong with the address.
    pub fn open(config: &RedisConfig) -> Result<Self, String> {
        let link = Link::of(config).map_err(|error| format!("{}: {error}", config.address))?.calling(&LIBRARY);
        Ok(Self { link, prefix: format!("{}q{VERSION}", config.prefix), clock: config.clock.clone() })
    }

    /// The key of a meter. All of one tenant have one hash tag: a request is one call.
    fn key(&self, meter: &Meter) -> String {
        let measure = match meter.measure {
            Measure::Requests => "requests",
            Measure::LlmSubmits => "submits",
        };
        match &meter.key {
            Some(key) => format!("{}:{{{}}}:key:{key}:{measure}", self.prefix, meter.tenant),
            None => format!("{}:{{{}}}:{measure}", self.prefix, meter.tenant),
        }
    }

    async fn call(
        &self,
        verb: &str,
        keys: &[String],
        rest: impl Iterator<Item = String>,
    ) -> Result<Value, Unavailable> {
        let now = self.clock.as_ref().map_or_else(String::new, |clock| now_us(&**clock).to_string());
        let args: Vec<Vec<u8>> = [verb.to_owned(), now].into_iter().chain(rest).map(String::into_bytes).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.link.call(&keys, &args).await.map_err(|error| Unavailable(error.to_string()))
    }

    /// Says that this process is there, and returns how many are that said so within `forget`.
    pub(super) async fn count(&self, process: &str, forget: Duration) -> Result<u32, Unavailable> {
        let rest = [process.to_owned(), forget.as_millis().to_string()];
        match self.call("count", &[format!("{}:{{processes}}", self.prefix)], rest.into_iter()).await? {
            Value::Int(count) => u32::try_from(count).map_err(|_| strange()),
            _ => Err(strange()),
        }
    }
}

fn strange() -> Unavailable {
    Unavailable("Redis gave an answer of a form that this version does not know".into())
}

#[async_trait]
impl RequestLimits for RedisRequestLimits {
    async fn take(&self, draws: &[Draw]) -> Result<Answer, Unavailable> {
        let keys: Vec<String> = draws.iter().map(|draw| self.key(&draw.meter)).collect();
        let rest = draws.iter().flat_map(|draw| {
            let measure = match draw.meter.measure {
                Measure::Requests => 1,
                Measure::LlmSubmits => 2,
            };
            [measure, draw.quota.interval_us, draw.quota.burst.into(), draw.least.into(), draw.most.into()]
                .map(|number: u64| number.to_string())
        });
        answer(self.call("take", &keys, rest).await?, draws.len())
    }

    fn refuses(&self, _: &[Draw]) -> Option<Answer> {
        None
    }

    async fn attend(&self) {
        future::pending().await
    }
}

fn answer(value: Value, meters: usize) -> Result<Answer, Unavailable> {
    let Value::Array(parts) = value else { return Err(strange()) };
    let numbers = parts.into_iter().map(|part| if let Value::Int(number) = part { Ok(number) } else { Err(strange()) });
    let numbers: Vec<i64> = numbers.collect::<Result<_, _>>()?;
    let [passes, jobs, levels @ ..] = &numbers[..] else { return Err(strange()) };
    let level = |of: &[i64]| {
        let [left, next, wait, whole] = of else { return Err(strange()) };
        let time = |us: i64| u64::try_from(us).map_err(|_| strange());
        let left = u32::try_from(*left).map_err(|_| strange())?;
        Ok(Some(Level { left, next_us: time(*next)?, wait_us: time(*wait)?, whole_us: time(*whole)? }))
    };
    let levels: Vec<_> = levels.chunks(4).map(level).collect::<Result<_, _>>()?;
    if levels.len() != meters {
        return Err(strange());
    }
    Ok(Answer { admitted: *passes == 1, jobs: u32::try_from(*jobs).ok(), levels })
}
