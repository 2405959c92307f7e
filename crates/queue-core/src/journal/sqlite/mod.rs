//! The journal in one SQLite file: WAL, `synchronous=FULL`, one writer thread that commits in groups, a few readers.
//!
//! A method's answer is sent after the COMMIT that holds its write has returned, so whatever was answered survives a
//! crash of the process and of the machine. Every write goes through the one writer, so the file is never contended
//! from inside the process; readers work on WAL snapshots and see everything that was answered before they began.

mod accept;
mod archives;
mod audit;
mod backups;
mod budgets;
mod catalog;
mod connection;
mod erasure;
mod identity;
mod list;
mod money;
mod operations;
mod orders;
mod protocol;
mod readers;
mod reads;
mod retention;
mod rows;
mod schedules;
mod settle;
mod sql;
mod upkeep;
mod vault;
mod webhooks;
mod writer;

#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Accepted, Cancelled, Changed, Edit, Interrupted, Journal, JournalError, LiveScan, Loaded, NewJob, PAGE_MAX_ROWS,
    Recovered, Recovery, Settled, Settlement, Token,
};
use crate::{
    dispatcher::Entry,
    ids::{Epoch, Generation, Incarnation, JobId, Name},
    ledger::{CallRecord, Memo},
    time::{Clock, Timestamp},
};
pub use connection::{MIGRATIONS, schema_version};
use readers::Readers;
use writer::Writer;

/// The embedded journal. Cheap to clone; the end of the last clone waits for what is queued, then closes the file.
#[derive(Clone)]
pub struct SqliteJournal {
    // Before the writer: the last connection to close moves the WAL into the file, and a reader may not.
    readers: Arc<Readers>,
    writer: Arc<Writer>,
    incarnation: Incarnation,
    clock: Arc<dyn Clock>,
}

impl SqliteJournal {
    /// Opens the journal at `path`, creating or migrating it. A journal that a newer version wrote is
    /// [`JournalError::Corrupt`]; a folder that cannot be written to is [`JournalError::Unavailable`].
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, JournalError> {
        let connection = connection::open_writer(path)?;
        let incarnation = connection::incarnation(&connection).map_err(connection::translate)?;
        let writer = Writer::start(path, connection, clock.clone())?;
        Ok(Self { readers: Arc::new(Readers::new(path)), writer: Arc::new(writer), incarnation, clock })
    }
}

/// Most rows of one [`Journal::live`]: a rebuild pages through millions, and ten pages' worth keeps its overhead low.
const LIVE_MAX_ROWS: usize = PAGE_MAX_ROWS * 10;

#[async_trait]
impl Journal for SqliteJournal {
    async fn accept(&self, jobs: Vec<NewJob>) -> Result<Vec<Accepted>, JournalError> {
        let rows = jobs.len();
        self.writer.submit(rows, jobs, |batch, jobs| accept::accept(batch, jobs)).await
    }

    async fn load(&self, claims: &[Token], now: Timestamp) -> Result<Vec<Option<Loaded>>, JournalError> {
        let claims = claims.to_vec();
        self.readers.read(move |connection| reads::load(connection, &claims, now)).await
    }

    /// A repeat after an ambiguous answer finds its own first try and is [`Settled::Fenced`]: the caller cannot tell
    /// the two apart, and need not.
    async fn settle(&self, settlement: Settlement) -> Result<Settled, JournalError> {
        let rows = 1 + settlement.calls.len() + settlement.savings.len();
        self.writer.submit(rows, settlement, settle::settle).await
    }

    async fn record(&self, call: CallRecord) -> Result<(), JournalError> {
        self.writer.submit(1, call, money::record).await
    }

    async fn memos(&self, id: JobId) -> Result<Vec<Memo>, JournalError> {
        self.readers.read(move |connection| reads::memos(connection, id)).await
    }

    async fn recover(&self, recoveries: Vec<Recovery>) -> Result<Vec<Recovered>, JournalError> {
        self.writer.submit(recoveries.len(), recoveries, |batch, lost| protocol::recover(batch, lost)).await
    }

    async fn reconcile(&self, unknown: Vec<Token>) -> Result<Vec<Entry>, JournalError> {
        self.writer.submit(unknown.len(), unknown, |batch, unknown| protocol::reconcile(batch, unknown)).await
    }

    async fn live(&self, scan: LiveScan) -> Result<Vec<Entry>, JournalError> {
        let limit = scan.limit.min(LIVE_MAX_ROWS);
        self.readers.read(move |connection| reads::live(connection, &scan, limit)).await
    }

    async fn cancel(
        &self,
        id: JobId,
        reason: Option<String>,
        attempt: Option<Interrupted>,
        now: Timestamp,
    ) -> Result<Cancelled, JournalError> {
        self.writer.submit(1, (id, reason, attempt, now), protocol::cancel).await
    }

    async fn edit(&self, id: JobId, seen: Option<Epoch>, edit: Edit, _now: Timestamp) -> Result<Changed, JournalError> {
        self.writer.submit(1, (id, seen, edit), protocol::edit).await
    }

    async fn redrive(&self, id: JobId, now: Timestamp) -> Result<Changed, JournalError> {
        self.writer.submit(1, (id, None, None, now), protocol::redrive).await
    }

    async fn redrive_with(&self, id: JobId, payload: (Bytes, Name), now: Timestamp) -> Result<Changed, JournalError> {
        self.writer.submit(1, (id, None, Some(payload), now), protocol::redrive).await
    }

    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    async fn new_generation(&self) -> Result<Generation, JournalError> {
        self.writer.submit(1, (), protocol::new_generation).await
    }

    async fn check(&self) -> Result<(), JournalError> {
        self.writer.submit(1, (), protocol::check).await
    }
}
