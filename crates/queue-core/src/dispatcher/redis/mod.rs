//! The dispatcher in Redis: one order of work for many processes. The memory dispatcher is its specification.
//!
//! Everything that decides is done by the scripts in `crates/queue-core/lua`, one call a verb, by Redis' own clock.
//! Their first file lists the keys.
//!
//! **One hash tag.** A script touches the keys of one *partition*: one prefix with one hash tag, so one slot of a
//! Cluster. All queues are in one partition, so that turns, limits, isolated jobs and sessions span the queues exactly as in
//! memory, and a worker's step over all its queues is one round trip. On a Cluster that means: it works and fails over
//! like any slot, and all of it is on one primary; a Cluster gives availability here, not more throughput. The scripts
//! know nothing of it: they take the partition as their key, and a partition a queue would need only callers that fan
//! out, and limits of targets that hold for each queue by itself.
//!
//! **Memory.** A waiting job is a member of one sorted set of its lane and priority and one field of one hash, with
//! the id as 16 raw bytes: about 240 bytes, whatever its payload (`--bench dispatcher_speed`).
//!
//! **Generations.** Every key of a job carries the generation, and every script compares it first. A Redis that was
//! flushed or restarted empty has none: all verbs but `begin` answer [`WrongGeneration`](super::DispatchError::WrongGeneration) until the rebuild has begun a new one. A process that did not begin it learns of it by one such answer.
//!
//! **Trouble.** No verb waits for a Redis that is away longer than its timeouts; it returns
//! [`Unavailable`](super::DispatchError::Unavailable), and the next verb tries again after a pause with full jitter. Verbs may be repeated
//! when nobody knows whether they were done: pushes by epoch, acks by nonce. Claims whose answer was lost are found by
//! the reaper, like those of a worker that died.

mod address;
pub(crate) mod codec;
mod inbox;
mod inspection;
pub(crate) mod library;
pub(crate) mod link;
mod opening;
mod partition;
mod pushes;
mod sessions;
mod verbs;

use std::{sync::Arc, time::Duration};

use self::{
    inbox::Inbox,
    link::{Link, Patience},
    partition::Partition,
    pushes::Pushes,
    sessions::LocalSessions,
};
use crate::time::Clock;

pub use self::{
    address::RedisAddress,
    inspection::{Inspection, Persistence, inspect, server_now},
    opening::OpenError,
};

/// How a process uses Redis.
#[derive(Clone)]
pub struct RedisConfig {
    /// Where it is.
    pub address: RedisAddress,
    /// What its keys begin with, so that two installations can share a server.
    pub prefix: String,
    /// Go on with a Redis that may evict keys. It then forgets jobs without a word, and the reconciler runs them late.
    pub allow_eviction: bool,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for an answer. A verb that waits longer may or may not have been done.
    pub response_timeout: Duration,
    /// Time between two looks of a worker that was told nothing, give or take a half: what it costs to lose a wake-up.
    pub poll_every: Duration,
    /// `None`: Redis' own clock decides, as it must where several machines share it. Tests move the time by hand.
    pub clock: Option<Arc<dyn Clock>>,
}

impl RedisConfig {
    /// The usual configuration for a Redis at `address`.
    pub fn new(address: RedisAddress) -> Self {
        Self {
            address,
            prefix: "longshore".into(),
            allow_eviction: false,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(2),
            poll_every: Duration::from_secs(1),
            clock: None,
        }
    }
}

/// The dispatcher in Redis.
pub struct RedisDispatcher {
    link: Arc<Link>,
    partition: Arc<Partition>,
    pushes: Pushes,
    sessions: Arc<LocalSessions>,
    inbox: Inbox,
}

impl RedisDispatcher {
    /// Connects, and refuses a Redis that would not keep what it is told.
    ///
    /// # Errors
    /// One line that says what to do.
    pub async fn open(config: RedisConfig) -> Result<Self, OpenError> {
        let RedisConfig { address, prefix, allow_eviction, connect_timeout, response_timeout, poll_every, clock } =
            config;
        let patience = Patience { connect: connect_timeout, respond: response_timeout };
        let link = Arc::new(Link::new(&address.place, patience).map_err(|error| OpenError::of(&address, &error))?);
        opening::check(&link, &address, allow_eviction).await?;
        link.load().await.map_err(|error| OpenError::of(&address, &error))?;
        let prefix = format!("{prefix}{}", library::VERSION);
        let key = format!("{prefix}:{{all}}");
        let sessions = Arc::new(LocalSessions::default());
        let channel = format!("{prefix}:inbox:{:032x}", rand::random::<u128>());
        let inbox = Inbox::open(link.clone(), sessions.clone(), channel, &key, poll_every);
        inbox.wait_until_open(connect_timeout).await;
        let partition = Arc::new(Partition::new(link.clone(), key, clock));
        let pushes = Pushes::start(partition.clone(), response_timeout);
        Ok(Self { link, partition, pushes, sessions, inbox })
    }

    /// Waits until every signal that was sent so far has arrived: signals come over a connection of their own.
    ///
    /// # Errors
    /// [`Unavailable`](super::DispatchError::Unavailable).
    #[cfg(any(test, feature = "conformance"))]
    pub async fn signals_arrived(&self) -> Result<(), super::DispatchError> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed) + 1;
        let echo = redis::cmd("PUBLISH").arg(&self.inbox.channel).arg(format!("E{number}")).to_owned();
        self.link.send(&echo).await.map_err(|error| link::failure(&error))?;
        self.inbox.echoed(number).await;
        Ok(())
    }
}
