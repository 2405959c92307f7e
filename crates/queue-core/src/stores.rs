//! The seams that a process holds, opened once at its start.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    archive::{Archives, Objects},
    audit::Audit,
    backup::Backups,
    bodies::{Bodies, LARGE_BYTES},
    breaker::{Breakers, redis::RedisBreakers},
    budget::{Counters, redis::RedisCounters},
    credentials::Vault,
    dispatcher::{
        Dispatcher,
        redis::{RedisConfig, RedisDispatcher},
    },
    erasure::Erasures,
    events::{Events, redis::RedisEvents},
    journal::{
        Budgets, Catalog, Identity, Journal, Ledger, Orders, Reads,
        postgres::{PostgresConfig, PostgresJournal},
    },
    operations::Operations,
    retention::Retention,
    schedule::Schedules,
    time::{Clock, SystemClock},
    upkeep::Upkeep,
    webhooks::Webhooks,
};

/// Every store, behind its seam.
#[derive(Clone)]
pub struct Stores {
    /// The protocol of a job.
    pub journal: Arc<dyn Journal>,
    /// What people ask.
    pub reads: Arc<dyn Reads>,
    /// The money.
    pub ledger: Arc<dyn Ledger>,
    /// What operators set.
    pub catalog: Arc<dyn Catalog>,
    /// Who may call.
    pub identity: Arc<dyn Identity>,
    /// Tenants' own keys, sealed.
    pub vault: Arc<dyn Vault>,
    /// What operators order.
    pub orders: Arc<dyn Orders>,
    /// What may be spent.
    pub budgets: Arc<dyn Budgets>,
    /// What is done to many jobs.
    pub operations: Arc<dyn Operations>,
    /// Dead letters outside of the journal.
    pub archives: Arc<dyn Archives>,
    /// Who is told of what.
    pub webhooks: Arc<dyn Webhooks>,
    /// What was done by whom.
    pub audit: Arc<dyn Audit>,
    /// Who was erased.
    pub erasures: Arc<dyn Erasures>,
    /// What was ordered of backups.
    pub backups: Arc<dyn Backups>,
    /// What is submitted by the clock.
    pub schedules: Arc<dyn Schedules>,
    /// What is old.
    pub retention: Arc<dyn Retention>,
    /// How tidy it is.
    pub upkeep: Arc<dyn Upkeep>,
    /// The order of work.
    pub dispatcher: Arc<dyn Dispatcher>,
    /// Who may be called.
    pub breakers: Arc<dyn Breakers>,
    /// What is spent and reserved of budgets.
    pub counters: Arc<dyn Counters>,
    /// What happens while a job runs.
    pub events: Arc<dyn Events>,
    /// Where archives are; `None`: nowhere.
    pub objects: Option<Objects>,
    /// Where large payloads and results are.
    pub bodies: Bodies,
    /// Now.
    pub clock: Arc<dyn Clock>,
}

/// A store of the whole truth: one type behind every seam of the journal.
pub trait Truth:
    Journal
    + Reads
    + Ledger
    + Catalog
    + Identity
    + Vault
    + Orders
    + Budgets
    + Operations
    + Archives
    + Webhooks
    + Audit
    + Erasures
    + Backups
    + Schedules
    + Retention
    + Upkeep
    + 'static
{
}

impl<T> Truth for T where
    T: Journal
        + Reads
        + Ledger
        + Catalog
        + Identity
        + Vault
        + Orders
        + Budgets
        + Operations
        + Archives
        + Webhooks
        + Audit
        + Erasures
        + Backups
        + Schedules
        + Retention
        + Upkeep
        + 'static
{
}

/// What stands beside the journal.
pub struct Beside {
    /// See [`Stores::dispatcher`]; likewise for the others.
    pub dispatcher: Arc<dyn Dispatcher>,
    /// Who may be called.
    pub breakers: Arc<dyn Breakers>,
    /// What is spent and reserved of budgets.
    pub counters: Arc<dyn Counters>,
    /// What happens while a job runs.
    pub events: Arc<dyn Events>,
    /// Where archives are; `None`: nowhere.
    pub objects: Option<Objects>,
    /// Now.
    pub clock: Arc<dyn Clock>,
}

impl Stores {
    /// One journal behind all of its seams, and what stands beside it.
    pub fn over(journal: Arc<impl Truth>, beside: Beside) -> Self {
        let Beside { dispatcher, breakers, counters, events, objects, clock } = beside;
        Self {
            journal: journal.clone(),
            reads: journal.clone(),
            ledger: journal.clone(),
            catalog: journal.clone(),
            identity: journal.clone(),
            vault: journal.clone(),
            orders: journal.clone(),
            budgets: journal.clone(),
            operations: journal.clone(),
            archives: journal.clone(),
            webhooks: journal.clone(),
            audit: journal.clone(),
            erasures: journal.clone(),
            schedules: journal.clone(),
            retention: journal.clone(),
            backups: journal.clone(),
            upkeep: journal,
            dispatcher,
            breakers,
            counters,
            events,
            bodies: Bodies::new(objects.clone(), LARGE_BYTES),
            objects,
            clock,
        }
    }

    /// The same, with a place for archives and for bodies of so many bytes and more.
    pub fn with_objects(self, objects: Objects, large_bytes: usize) -> Self {
        Self { bodies: Bodies::new(Some(objects.clone()), large_bytes), objects: Some(objects), ..self }
    }

    /// The stores that processes share, for a program of one's own beside them: it must be of the same version. Must be called
    /// inside a tokio runtime. The error says which store is wrong, and what to do.
    pub async fn shared(postgres: &PostgresConfig, redis: RedisConfig) -> Result<Self, String> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let journal = PostgresJournal::open(postgres, clock.clone()).await.map_err(|error| error.to_string())?;
        let beside = Beside {
            breakers: Arc::new(RedisBreakers::open(&redis)?),
            counters: Arc::new(RedisCounters::open(&redis)?),
            events: Arc::new(RedisEvents::open(&redis, clock.clone())?),
            dispatcher: Arc::new(RedisDispatcher::open(redis).await.map_err(|error| error.to_string())?),
            objects: None,
            clock,
        };
        Ok(Self::over(Arc::new(journal), beside))
    }
}

/// Something outside that `/health` reports on: it degrades health and never readiness.
#[async_trait]
pub trait Check: Send + Sync {
    /// Its name in the report, e.g. `provider:simulated`.
    fn name(&self) -> &str;

    /// `Err` says in a few words what is wrong.
    async fn check(&self) -> Result<(), String>;
}
