//! What a Redis says of itself, for whoever asks whether an installation is well. Nothing is written.

use std::collections::BTreeMap;

use super::{
    RedisConfig, library,
    link::Link,
    opening::{self, OpenError},
};
use crate::{breaker, budget, cache, limiter, request_limits, time::Timestamp};

/// Keys that Redis looks at in one call: a few hundred microseconds of its time.
const SCAN_KEYS: usize = 1_000;
/// Calls at most, so that a Redis full of other people's keys is not read to its end.
const SCANS_MAX: usize = 500;

/// What is known of a Redis that work can be entrusted to.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Its version; of a Cluster, that of one node.
    pub version: String,
    /// What it does when its memory is full, where it tells.
    pub eviction: Option<String>,
    /// What it remembers over a restart.
    pub persistence: Persistence,
    /// Its clock, in the middle of the time that the question took.
    pub now: Timestamp,
    /// Keys that versions of Longshore left whose layouts this one does not read, by what they begin with; none are
    /// looked for on a Cluster.
    pub orphans: BTreeMap<String, usize>,
}

/// What a Redis remembers over a restart. Whatever it forgets is filled again from the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Each write is appended to a file.
    Appends,
    /// All of it, now and then.
    Snapshots,
    /// Nothing.
    Nothing,
}

/// Asks a Redis what it is.
///
/// # Errors
/// Those of [`RedisDispatcher::open`](super::RedisDispatcher::open).
pub async fn inspect(config: &RedisConfig) -> Result<Inspection, OpenError> {
    let RedisConfig { address, allow_eviction, prefix, .. } = config;
    let failed = |error| OpenError::of(address, &error);
    let link = Link::of(config).map_err(failed)?;
    let info = opening::check(&link, address, *allow_eviction).await?;
    let time = link.send(&redis::cmd("TIME")).await.map_err(failed)?;
    let (seconds, micros): (i64, i64) =
        redis::from_redis_value(time).map_err(|error| failed(redis::RedisError::from(error)))?;
    let orphans = if address.is_cluster() { BTreeMap::new() } else { orphans(&link, prefix).await.map_err(failed)? };
    let eviction = match opening::field(&info, "maxmemory_policy") {
        Some(policy) => Some(policy.to_owned()),
        None => opening::configured(&link).await,
    };
    Ok(Inspection {
        version: opening::field(&info, "redis_version").unwrap_or("unknown").to_owned(),
        eviction,
        persistence: persistence(&info, &link).await,
        now: Timestamp(seconds * 1_000 + micros / 1_000),
        orphans,
    })
}

/// The clock of a Redis.
///
/// # Errors
/// Those of a connection.
pub async fn server_now(config: &RedisConfig) -> Result<Timestamp, OpenError> {
    let failed = |error| OpenError::of(&config.address, &error);
    let link = Link::of(config).map_err(failed)?;
    let time = link.send(&redis::cmd("TIME")).await.map_err(failed)?;
    let (seconds, micros): (i64, i64) =
        redis::from_redis_value(time).map_err(|error| failed(redis::RedisError::from(error)))?;
    Ok(Timestamp(seconds * 1_000 + micros / 1_000))
}

async fn persistence(info: &str, link: &Link) -> Persistence {
    if opening::field(info, "aof_enabled") == Some("1") {
        return Persistence::Appends;
    }
    // Where the configuration is hidden, a host keeps snapshots by means of its own.
    match opening::setting(link, "save").await.as_deref() {
        Some("") => Persistence::Nothing,
        _ => Persistence::Snapshots,
    }
}

/// The beginnings of keys, each with the version of its layout that this program reads.
fn layouts(prefix: &str) -> [(String, u32); 6] {
    [
        (prefix.to_owned(), library::VERSION),
        (format!("{prefix}-breaker"), breaker::redis::VERSION),
        (format!("{prefix}-budget"), budget::redis::VERSION),
        (format!("{prefix}c"), cache::redis::VERSION),
        (format!("{prefix}l"), limiter::redis::VERSION),
        (format!("{prefix}q"), request_limits::redis::VERSION),
    ]
}

async fn orphans(link: &Link, prefix: &str) -> redis::RedisResult<BTreeMap<String, usize>> {
    let layouts = layouts(prefix);
    let (mut cursor, mut found) = (0_u64, BTreeMap::new());
    for _ in 0..SCANS_MAX {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(SCAN_KEYS);
        let (next, keys): (u64, Vec<Vec<u8>>) = redis::from_redis_value(link.send(&scan).await?)?;
        for key in keys {
            if let Some(layout) = other_layout(&String::from_utf8_lossy(&key), &layouts) {
                *found.entry(layout).or_default() += 1;
            }
        }
        if next == 0 {
            break;
        }
        cursor = next;
    }
    Ok(found)
}

/// What a key begins with, if it is of a layout that this program does not read.
fn other_layout(key: &str, layouts: &[(String, u32)]) -> Option<String> {
    let (head, _) = key.split_once(':')?;
    let stem = head.trim_end_matches(|character: char| character.is_ascii_digit());
    let version: u32 = head[stem.len()..].parse().ok()?;
    layouts.iter().any(|(known, current)| known == stem && *current != version).then(|| head.to_owned())
}

#[cfg(test)]
mod tests {
    use testkit::RedisServer;

    use super::*;
    use crate::dispatcher::{
        Dispatcher,
        redis::{RedisAddress, RedisDispatcher},
    };

    #[tokio::test]
    async fn a_redis_tells_what_it_keeps_and_what_older_versions_left() {
        let server = RedisServer::start();
        let config = RedisConfig::new(RedisAddress::parse(&server.url()).unwrap());
        let dispatcher = RedisDispatcher::open(config.clone()).await.unwrap();
        dispatcher.begin(crate::ids::Generation(1)).await.unwrap();
        let before = inspect(&config).await.unwrap();
        assert_eq!((before.eviction.as_deref(), before.persistence), (Some("noeviction"), Persistence::Nothing));
        assert_eq!(before.orphans, BTreeMap::new(), "what is in use is nobody's left-over");
        for key in ["longshore1:{all}:x", "longshore1:{all}:y", "longshorel1:z", "longshore-staging1:x", "other1:x"] {
            server.command(&["SET", key, "1"]);
        }
        let after = inspect(&config).await.unwrap();
        assert_eq!(after.orphans, BTreeMap::from([("longshore1".into(), 2), ("longshorel1".into(), 1)]));
    }
}
