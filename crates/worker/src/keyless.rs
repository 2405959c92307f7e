//! Lanes that sleep because their tenant has no key that can be used: who puts them to sleep, and who wakes them.
//!
//! A lane that waits for a key wakes by itself after a while with one job, which looks again: so nothing is lost if the
//! process that remembers it dies. Where it lives, it wakes the lane as soon as it hears of the key.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use queue_core::{
    credentials::{self, Credentials},
    dispatcher::Setting,
    error::JobError,
    ids::Name,
    route::{self, Target},
    stores::Stores,
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;

/// Lanes that are remembered; others wake by themselves.
const LANES_MAX: usize = 10_000;

/// The sleeping lanes of this process.
pub(crate) struct Keyless {
    stores: Stores,
    credentials: Arc<Credentials>,
    /// Whose they are.
    lanes: Mutex<HashMap<Name, Name>>,
}

impl Keyless {
    pub(crate) fn new(stores: Stores, credentials: Arc<Credentials>) -> Self {
        Self { stores, credentials, lanes: Mutex::default() }
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Name, Name>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the lane of a tenant's own target to sleep, since `error` says that it has no key. The operator's targets are
    /// everybody's, and never slept for this.
    pub(crate) async fn rest(&self, target: &Target, error: &JobError) {
        let Some(tenant) = credentials::owner(&target.credential) else { return };
        if error.code == credentials::UNKNOWN {
            return;
        }
        let (name, wait_ms) = (target.name(), error.retry_after_ms.unwrap_or_default());
        let from = self.stores.clock.now().plus_ms(i64::try_from(wait_ms).unwrap_or(i64::MAX));
        // Before it sleeps: whoever sets the key now finds it.
        self.remember(&name, &tenant);
        let reason = format!("{}: {}", error.class, error.message);
        let setting = Setting::TryTarget { target: name.clone(), from, reason };
        if let Err(error) = self.stores.dispatcher.apply(setting).await {
            tracing::warn!(%error, target = %name, "a lane that waits for a key could not be put to sleep");
        }
    }

    /// Wakes a lane once its tenant has a key.
    pub(crate) fn remember(&self, lane: &Name, tenant: &Name) {
        let mut lanes = self.lanes();
        if lanes.len() < LANES_MAX || lanes.contains_key(lane) {
            lanes.insert(lane.clone(), tenant.clone());
        }
    }

    /// Wakes the lanes that may be asked for now, whenever keys or policies change, until `end` fires.
    pub(crate) async fn run(&self, end: &CancellationToken) {
        let mut changes = self.credentials.changes();
        loop {
            let changed = tokio::select! {
                () = end.cancelled() => return,
                changed = changes.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            let open: Vec<Name> = {
                let lanes = self.lanes();
                lanes.iter().filter(|(lane, tenant)| self.is_open(lane, tenant)).map(|(lane, _)| lane.clone()).collect()
            };
            for lane in open {
                self.wake(lane).await;
            }
        }
    }

    /// Whether a job of the lane would get further than before: somebody of its chain has a key, or it belongs elsewhere.
    fn is_open(&self, lane: &Name, tenant: &Name) -> bool {
        self.credentials.lane_of(tenant, lane) != *lane
            || route::targets_of(lane).iter().any(|target| self.credentials.unlock(target).is_ok())
    }

    async fn wake(&self, lane: Name) {
        let setting = Setting::ParkTarget { target: lane.clone(), until: Timestamp(0), reason: String::new() };
        match self.stores.dispatcher.apply(setting).await {
            Ok(()) => {
                tracing::info!(%lane, "jobs that waited for a key go on");
                self.lanes().remove(&lane);
            }
            Err(error) => tracing::warn!(%error, %lane, "its lane wakes by itself"),
        }
    }
}
