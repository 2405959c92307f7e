//! How long one attempt may take: the job says, else its queue, else its kind, else [`TIMEOUT_DEFAULT`].

use std::{
    collections::{BTreeMap, HashMap},
    sync::{PoisonError, RwLock},
    time::Duration,
};

use queue_core::{
    ids::Name,
    job::{Job, Kind},
    stores::Stores,
};
use tokio_util::sync::CancellationToken;

/// Longest time of one attempt where nobody says anything.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);
/// How old the queues' settings may be here. A read for each job would be dearer than most jobs.
const REFRESH_EVERY: Duration = Duration::from_secs(2);

/// What is said of timeouts, by whoever says it.
#[derive(Debug, Default)]
pub(crate) struct Timeouts {
    kinds: BTreeMap<Kind, Duration>,
    queues: RwLock<HashMap<Name, Duration>>,
}

impl Timeouts {
    pub(crate) fn new(kinds: BTreeMap<Kind, Duration>) -> Self {
        Self { kinds, queues: RwLock::default() }
    }

    /// The longest time of an attempt of this job.
    pub(crate) fn of(&self, job: &Job) -> Duration {
        let of_queue = || self.queues.read().unwrap_or_else(PoisonError::into_inner).get(&job.queue).copied();
        let own = job.timeout_ms.map(Duration::from_millis);
        own.or_else(of_queue).or_else(|| self.kinds.get(&job.kind).copied()).unwrap_or(TIMEOUT_DEFAULT)
    }

    /// Reads what operators have set for queues.
    pub(crate) async fn refresh(&self, stores: &Stores) {
        let settings = match stores.catalog.queues().await {
            Ok(settings) => settings,
            Err(error) => return tracing::warn!(%error, "the timeouts of queues were not read; the old ones hold"),
        };
        let timeout = |(name, settings): (Name, queue_core::journal::Versioned<queue_core::journal::QueueSettings>)| {
            Some((name, Duration::from_millis(settings.value.timeout_ms?)))
        };
        *self.queues.write().unwrap_or_else(PoisonError::into_inner) =
            settings.into_iter().filter_map(timeout).collect();
    }

    /// Refreshes until `end` fires.
    pub(crate) async fn keep_fresh(&self, stores: &Stores, end: &CancellationToken) {
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(REFRESH_EVERY) => {}
            }
            self.refresh(stores).await;
        }
    }
}
