//! The one thread that writes. It takes what is queued, runs it in one transaction, commits, and only then answers.
//!
//! What arrives while a commit is on its way to the disk is the next group, so an idle journal answers after one fsync
//! and a busy one shares it among hundreds.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use metrics::histogram;
use rusqlite::{Connection, ErrorCode, params};
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    oneshot,
};

use super::{
    connection::{self, translate},
    sql::{Prepared, Write},
};
use crate::{
    ids::{Incarnation, Name},
    journal::{JournalError, totals::TotalsChange},
    telemetry,
    time::{Clock, Timestamp},
};

/// Requests that wait for the writer; further callers wait for room. Bounds memory, not the group.
const WAITING_MAX: usize = 4_096;
/// Most requests of one transaction: bounds how long the first of them waits for the last.
const GROUP_MAX_REQUESTS: usize = 1_024;
/// Rows from which a transaction takes no further request: a bulk accept fills one by itself.
const GROUP_MAX_ROWS: usize = 4_096;

/// How long a group waits to become as large as the one before it. An idle journal never waits.
const LINGER: Duration = Duration::from_micros(200);

/// The open transaction as the verbs see it.
pub(super) struct Batch<'c> {
    /// The statements of its connection.
    pub(super) sql: Prepared<'c>,
    /// The journal's clock at the start of the transaction.
    pub(super) now: Timestamp,
    /// The journal's life.
    pub(super) incarnation: Incarnation,
    connection: &'c Connection,
    totals: HashMap<Name, TotalsChange>,
    /// What it does to the live jobs of tenants.
    backlogs: HashMap<Name, i64>,
    /// Whether anybody wants to hear of anything, once it was asked in this transaction.
    pub(super) is_listened_to: Option<bool>,
}

impl<'c> Batch<'c> {
    fn on(connection: &'c Connection, incarnation: Incarnation) -> Self {
        let (now, totals, backlogs) = (Timestamp::default(), HashMap::new(), HashMap::new());
        Self { sql: Prepared::on(connection), now, incarnation, connection, totals, backlogs, is_listened_to: None }
    }

    /// The number of the row that the last insert made.
    pub(super) fn inserted_seq(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    /// Runs statements that have no arguments, one after the other.
    pub(super) fn script(&self, text: &'static str) -> rusqlite::Result<()> {
        self.connection.execute_batch(text)
    }

    /// Gives at most so many pages that nothing is in back to the disk; how many went.
    pub(super) fn shrink(&self, pages: i64) -> rusqlite::Result<i64> {
        let free = || self.connection.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0));
        let before = free()?;
        // One page goes with each row that is asked for.
        let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(before - free()?)
    }

    /// What tests set limits on.
    #[cfg(test)]
    pub(super) fn connection(&self) -> &'c Connection {
        self.connection
    }

    /// Counts; written once for each queue and tenant before the commit.
    pub(super) fn count(&mut self, queue: &Name, tenant: &Name, change: TotalsChange) {
        match self.totals.get_mut(queue) {
            Some(totals) => *totals += change,
            None => _ = self.totals.insert(queue.clone(), change),
        }
        match self.backlogs.get_mut(tenant) {
            Some(live) => *live += change.live,
            None => _ = self.backlogs.insert(tenant.clone(), change.live),
        }
    }

    fn write_totals(&mut self) -> rusqlite::Result<()> {
        for (queue, change) in self.totals.drain() {
            let queue = queue.as_str();
            if change.accepted > 0 {
                self.sql.execute(Write::QueueOpen, [queue])?;
                self.sql.execute(Write::TotalsOpen, [queue])?;
            }
            let TotalsChange { accepted, succeeded, cancelled, dead, died, live } = change;
            self.sql.execute(Write::TotalsAdd, params![queue, accepted, succeeded, cancelled, dead, died, live])?;
        }
        for (tenant, live) in self.backlogs.drain().filter(|(_, live)| *live != 0) {
            let values = params![tenant.as_str(), live];
            if self.sql.execute(Write::TenantAdd, values)? == 0 {
                self.sql.execute(Write::TenantOpen, values)?;
            }
        }
        Ok(())
    }

    fn transact(&mut self, now: Timestamp, group: &mut [Box<dyn Request>]) -> rusqlite::Result<()> {
        self.now = now;
        self.totals.clear();
        self.backlogs.clear();
        self.is_listened_to = None;
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        for request in group {
            request.run(self)?;
        }
        self.write_totals()?;
        self.connection.execute_batch("COMMIT")
    }

    /// Undoes a transaction that failed; whether the connection can go on. A full disk leaves it whole, and so does a
    /// refused row. After anything else that the file did, a new connection is the only one known to see it right.
    fn roll_back(&mut self, error: &rusqlite::Error) -> bool {
        let harmless = [None, Some(ErrorCode::DiskFull), Some(ErrorCode::ConstraintViolation)];
        let undone = self.connection.is_autocommit() || self.connection.execute_batch("ROLLBACK").is_ok();
        undone && harmless.contains(&error.sqlite_error_code())
    }
}

/// A verb: runs inside the transaction, may run again after a rollback.
type Verb<I, O> = fn(&mut Batch<'_>, &I) -> rusqlite::Result<O>;

/// A request with its caller's address, whatever it asks.
trait Request: Send {
    fn rows(&self) -> usize;
    fn run(&mut self, batch: &mut Batch<'_>) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, committed: Result<(), JournalError>);
}

struct Asked<I, O> {
    rows: usize,
    input: I,
    verb: Verb<I, O>,
    output: Option<O>,
    caller: oneshot::Sender<Result<O, JournalError>>,
}

impl<I: Send, O: Send> Request for Asked<I, O> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn run(&mut self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        self.output = Some((self.verb)(batch, &self.input)?);
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), JournalError>) {
        let ran = self.output.ok_or_else(|| JournalError::Unavailable("the request was not run".into()));
        // A caller that went away has no use for its answer; the write stands.
        let _ = self.caller.send(committed.and(ran));
    }
}

/// The way to the writer thread.
pub(super) struct Writer {
    requests: Option<mpsc::Sender<Box<dyn Request>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread over an open connection.
    pub(super) fn start(path: &Path, connection: Connection, clock: Arc<dyn Clock>) -> Result<Self, JournalError> {
        let (requests, queue) = mpsc::channel(WAITING_MAX);
        let group = Vec::with_capacity(GROUP_MAX_REQUESTS);
        let writing = Writing { path: path.to_owned(), clock, queue, group, last_group: 0 };
        let thread = thread::Builder::new()
            .name("journal-writer".into())
            .spawn(move || writing.run(connection))
            .map_err(|error| JournalError::Unavailable(format!("the writer thread did not start: {error}")))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Runs `verb` in the next transaction and returns its answer once that has committed.
    pub(super) async fn submit<I, O>(&self, rows: usize, input: I, verb: Verb<I, O>) -> Result<O, JournalError>
    where
        I: Send + 'static,
        O: Send + 'static,
    {
        let ended = || JournalError::Unavailable("the journal's writer has ended".into());
        let (caller, answer) = oneshot::channel();
        let asked = Box::new(Asked { rows, input, verb, output: None, caller });
        let requests = self.requests.as_ref().ok_or_else(ended)?;
        requests.send(asked).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The closed channel ends the thread after the last queued request.
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's writer thread panicked");
        }
    }
}

/// The thread's own state.
struct Writing {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    queue: mpsc::Receiver<Box<dyn Request>>,
    /// What the next transaction does.
    group: Vec<Box<dyn Request>>,
    /// Requests of the last one.
    last_group: usize,
}

impl Writing {
    /// Commits until nobody can ask any more. A connection whose file failed is dropped, and opened again for the next
    /// group: the service resumes with the disk.
    fn run(mut self, first: Connection) {
        let mut open = Some(first);
        while self.gather() {
            match open.take().map_or_else(|| connection::open_writer(&self.path), Ok) {
                Ok(connection) => self.serve(&connection),
                Err(error) => self.refuse(&error),
            }
        }
    }

    /// Commits groups on one connection until that fails or there are no more.
    fn serve(&mut self, connection: &Connection) {
        let incarnation = match connection::incarnation(connection) {
            Ok(incarnation) => incarnation,
            Err(error) => return self.refuse(&translate(error)),
        };
        let mut batch = Batch::on(connection, incarnation);
        while self.commit(&mut batch) && self.gather() {}
    }

    /// Waits for the next group; `false` when there will be none.
    fn gather(&mut self) -> bool {
        let Some(first) = self.queue.blocking_recv() else { return false };
        let mut rows = first.rows();
        self.group.push(first);
        let expected = self.last_group;
        let waits_until = Instant::now() + LINGER;
        while self.group.len() < GROUP_MAX_REQUESTS && rows < GROUP_MAX_ROWS {
            match self.queue.try_recv() {
                Ok(next) => {
                    rows += next.rows();
                    self.group.push(next);
                }
                // Those who were answered just now are about to ask again: without them, every second group is small.
                Err(TryRecvError::Empty) if self.group.len() < expected && Instant::now() < waits_until => {
                    thread::yield_now();
                }
                Err(_) => break,
            }
        }
        true
    }

    /// Commits the group and answers it; whether the connection can go on. One bad request must hurt only itself, so
    /// a group that fails for another reason than the disk is run again one by one.
    fn commit(&mut self, batch: &mut Batch<'_>) -> bool {
        self.last_group = self.group.len();
        let Err((error, whole)) = self.commit_group(batch) else { return true };
        if !whole || self.group.len() == 1 || matches!(error, JournalError::Unavailable(_)) {
            self.refuse(&error);
            return whole;
        }
        for request in std::mem::take(&mut self.group) {
            self.group.push(request);
            if let Err((error, whole)) = self.commit_group(batch) {
                self.refuse(&error);
                if !whole {
                    return false;
                }
            }
        }
        true
    }

    /// One transaction; its group is answered and gone after a success, and as it was after an error.
    fn commit_group(&mut self, batch: &mut Batch<'_>) -> Result<(), (JournalError, bool)> {
        let began = Instant::now();
        let committed = batch.transact(self.clock.now(), &mut self.group);
        batch.sql.forget_values();
        if let Err(error) = committed {
            let whole = batch.roll_back(&error);
            return Err((translate(error), whole));
        }
        histogram!(telemetry::JOURNAL_COMMIT).record(began.elapsed().as_secs_f64());
        histogram!(telemetry::JOURNAL_BATCH).record(self.group.len() as f64);
        self.group.drain(..).for_each(|request| request.answer(Ok(())));
        Ok(())
    }

    fn refuse(&mut self, error: &JournalError) {
        tracing::warn!(%error, requests = self.group.len(), "the journal did not commit");
        self.group.drain(..).for_each(|request| request.answer(Err(error.clone())));
    }
}
