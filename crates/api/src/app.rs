//! What every request shares.

use std::sync::Arc;

use queue_core::{journal::JournalError, keys::KeyCache, payload::Surroundings, time::Timestamp};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Api,
    audit::Refusals,
    backlog::Backlogs,
    health::Health,
    history::History,
    idempotency::InFlight,
    maintenance::Standing,
    policy::{Policies, Policy},
    signing::Signing,
    tokens::believed::Believed,
    waiters::Waiters,
};

/// Most event streams and long polls at once: each is a connection, a task and a subscription.
const WATCHERS_MAX: usize = 4_096;
/// Most compressed bodies that are read at once: each may want 8 MiB of what came before.
const UNPACKED_MAX: usize = 32;
/// Most bulk submits that are read at once: each may hold 32 MiB.
const BULK_MAX: usize = 8;

/// The API with its short-lived memory. Nothing in it outlives the process or matters to a job.
pub(crate) struct App {
    /// Stores, routes, prices, bounds.
    pub(crate) api: Api,
    /// Keys that were found lately.
    pub(crate) keys: KeyCache,
    /// Tokens that were believed lately.
    pub(crate) believed: Believed,
    /// Idempotency keys that are being accepted now.
    pub(crate) in_flight: Arc<InFlight>,
    /// What tenants may ask for.
    pub(crate) policies: Policies,
    /// Whether jobs are taken.
    pub(crate) standing: Standing,
    /// How full the tenants' backlogs are.
    pub(crate) backlogs: Backlogs,
    /// Which tenants have a secret to sign with.
    pub(crate) signing: Signing,
    /// Refused calls of late, for the audit log.
    pub(crate) refusals: Refusals,
    /// Who waits for the end of which job.
    pub(crate) waiters: Waiters,
    /// What probes found lately.
    pub(crate) health: Health,
    /// How the queues stood lately.
    pub(crate) history: History,
    /// Room for watchers.
    pub(crate) watchers: Arc<Semaphore>,
    /// Room for bulk submits.
    pub(crate) bulk: Semaphore,
    /// Room for compressed bodies.
    pub(crate) unpacking: Semaphore,
    /// Room for a run of chores.
    pub(crate) chores: Arc<Semaphore>,
    /// Settings are read, changed and written back: one change at a time.
    pub(crate) settings_edits: Mutex<()>,
    /// Changes that are being made and written into the audit log.
    pub(crate) changes: TaskTracker,
    /// Fires when the server stops.
    pub(crate) shutdown: CancellationToken,
}

/// The state of every handler.
pub(crate) type Shared = Arc<App>;

impl App {
    /// The shared state of one server.
    pub(crate) fn new(api: Api, shutdown: CancellationToken) -> Shared {
        Arc::new(Self {
            waiters: Waiters::new(api.stores.events.clone(), api.stores.reads.clone(), shutdown.clone()),
            api,
            keys: KeyCache::default(),
            believed: Believed::default(),
            in_flight: Arc::default(),
            policies: Policies::default(),
            standing: Standing::default(),
            backlogs: Backlogs::default(),
            signing: Signing::default(),
            refusals: Refusals::default(),
            health: Health::default(),
            history: History::default(),
            watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
            bulk: Semaphore::new(BULK_MAX),
            unpacking: Semaphore::new(UNPACKED_MAX),
            chores: Arc::new(Semaphore::new(1)),
            settings_edits: Mutex::new(()),
            changes: TaskTracker::new(),
            shutdown,
        })
    }

    /// Now, by the store's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.api.stores.clock.now()
    }

    /// What tenants may ask for.
    pub(crate) async fn policy(&self) -> Result<Policy, JournalError> {
        self.policies.now(&self.api.stores).await
    }

    /// What payload checks need to know.
    pub(crate) fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            routes: &self.api.routes,
            prices: &self.api.prices,
            probe_jobs: self.api.settings.probe_jobs,
            probe_faults: self.api.settings.probe_faults,
            outbound: &self.api.settings.outbound,
        }
    }
}
