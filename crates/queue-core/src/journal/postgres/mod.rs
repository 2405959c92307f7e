//! The journal in Postgres, for many processes: accepts, settles and payments are committed in groups.
//!
//! A method's answer is sent after the COMMIT that holds its write has returned, so whatever was answered survives a
//! crash of the process and of the server. Nothing relies on this process being alone: every write names what it
//! expects in its WHERE clause, keys are told apart by constraints, and rows are locked in one order.

mod accept;
mod archives;
mod audit;
mod backups;
mod budgets;
mod catalog;
mod config;
mod connections;
mod door;
mod erasure;
mod failure;
mod group;
mod identity;
mod keys;
mod migrations;
mod money;
mod open;
mod operations;
mod orders;
mod partitions;
mod protocol;
mod reads;
mod retention;
mod rows;
mod schedules;
mod scratch;
mod settle;
mod sql;
mod tenant;
mod text;
mod transaction;
mod upkeep;
mod vault;
mod webhooks;

#[cfg(test)]
mod plans;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Accepted, Cancelled, Changed, Edit, Journal, JournalError, LiveScan, Loaded, NewJob, PAGE_MAX_ROWS, Recovered,
    Recovery, Settled, Settlement, Token,
};
use crate::{
    dispatcher::Entry,
    ids::{Epoch, Generation, Incarnation, JobId, Name},
    ledger::{CallRecord, Memo},
    time::{Clock, Timestamp},
};
use accept::Accept;
pub use config::PostgresConfig;
use failure::Failure;
use group::Committers;
pub use migrations::{MIGRATIONS, Migration, SCHEMA_OLDEST, migrate, pending, pending_sql, roll_back, schema_version};
use money::Record;
pub use open::{Archiving, Inspection, OpenError, archiving, check, check_wall, connect, inspect};
pub(crate) use partitions::create as create_partitions;
pub use scratch::ScratchDatabase;
use settle::Settle;
use transaction::{Database, Verb};

/// The shared journal. Cheap to clone; its tasks end with the last clone.
#[derive(Clone)]
pub struct PostgresJournal {
    database: Database,
    accepts: Committers<Accept>,
    settles: Committers<Settle>,
    records: Committers<Record>,
    audits: Committers<audit::Append>,
    incarnation: Incarnation,
    /// Connections for callers of a tenant.
    bound: sqlx::PgPool,
    _partitions: Arc<partitions::Ahead>,
    _connections: Arc<connections::Looked>,
}

/// Most rows of one [`Journal::live`]: a rebuild pages through millions, and ten pages' worth keeps its overhead low.
const LIVE_MAX_ROWS: usize = PAGE_MAX_ROWS * 10;

impl PostgresJournal {
    /// Opens the journal, whose schema [`migrate`] has made. Must be called inside a tokio runtime, which its tasks
    /// run on.
    pub async fn open(config: &PostgresConfig, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let (pools, incarnation) = open::open_pools(config, &clock).await?;
        let looked = connections::Looked::start([("own", pools.own.clone()), ("tenant", pools.bound.clone())]);
        let database = Database { door: door::Door::new(pools.options), pool: pools.own, clock };
        Ok(Self {
            accepts: Committers::start(&database, config.writers),
            settles: Committers::start(&database, config.writers),
            records: Committers::start(&database, 1),
            // One transaction at a time holds the end of the chain anyway.
            audits: Committers::start(&database, 1),
            incarnation: Incarnation(incarnation),
            bound: pools.bound,
            _partitions: Arc::new(partitions::Ahead::start(&database)),
            _connections: Arc::new(looked),
            database,
        })
    }

    /// Commits one rare write.
    async fn write<V: Verb>(&self, input: V::Input) -> Result<V::Output, JournalError> {
        self.database.commit_one::<V>(input).await.map_err(Failure::into_error)
    }
}

#[async_trait]
impl Journal for PostgresJournal {
    async fn accept(&self, jobs: Vec<NewJob>) -> Result<Vec<Accepted>, JournalError> {
        self.accepts.submit(jobs).await
    }

    async fn load(&self, claims: &[Token], now: Timestamp) -> Result<Vec<Option<Loaded>>, JournalError> {
        self.ask(|pool| reads::load(pool, claims, now)).await
    }

    /// A repeat by the caller finds its own first try and is [`Settled::Fenced`]; a commit whose answer was lost is
    /// read again here, and answered as it would have been.
    async fn settle(&self, settlement: Settlement) -> Result<Settled, JournalError> {
        self.settles.submit(settlement).await
    }

    async fn record(&self, call: CallRecord) -> Result<(), JournalError> {
        self.records.submit(call).await
    }

    async fn memos(&self, id: JobId) -> Result<Vec<Memo>, JournalError> {
        self.ask(|pool| reads::memos(pool, id)).await
    }

    async fn recover(&self, recoveries: Vec<Recovery>) -> Result<Vec<Recovered>, JournalError> {
        self.write::<protocol::Recover>(recoveries).await
    }

    async fn reconcile(&self, unknown: Vec<Token>) -> Result<Vec<Entry>, JournalError> {
        self.write::<protocol::Reconcile>(unknown).await
    }

    async fn live(&self, scan: LiveScan) -> Result<Vec<Entry>, JournalError> {
        let limit = scan.limit.min(LIVE_MAX_ROWS);
        self.ask(|pool| reads::live(pool, scan, limit)).await
    }

    async fn cancel(
        &self,
        id: JobId,
        reason: Option<String>,
        attempt: Option<crate::journal::Interrupted>,
        now: Timestamp,
    ) -> Result<Cancelled, JournalError> {
        self.write::<protocol::Cancel>((id, reason, attempt, now)).await
    }

    async fn edit(&self, id: JobId, seen: Option<Epoch>, edit: Edit, _now: Timestamp) -> Result<Changed, JournalError> {
        self.write::<protocol::Change>((id, seen, edit)).await
    }

    async fn redrive(&self, id: JobId, now: Timestamp) -> Result<Changed, JournalError> {
        self.write::<protocol::Redrive>((id, None, now)).await
    }

    async fn redrive_with(&self, id: JobId, payload: (Bytes, Name), now: Timestamp) -> Result<Changed, JournalError> {
        self.write::<protocol::Redrive>((id, Some(payload), now)).await
    }

    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    async fn new_generation(&self) -> Result<Generation, JournalError> {
        self.write::<protocol::NewGeneration>(()).await
    }

    async fn check(&self) -> Result<(), JournalError> {
        self.write::<protocol::Check>(()).await
    }
}
