//! A journal whose accepts wait at a gate or fail, as a test wants.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use queue_core::{
    dispatcher::Entry,
    ids::{Epoch, Generation, Incarnation, JobId, Name},
    job::{Loaded, NewJob},
    journal::{
        Accepted, Cancelled, Changed, Edit, Interrupted, Journal, JournalError, LiveScan, Recovered, Recovery, Settled,
        Settlement, Token,
    },
    ledger::{CallRecord, Memo},
    time::Timestamp,
};
use tokio::sync::{Notify, Semaphore};

/// Passes everything on, accepts only through the gate.
pub struct Gate {
    inner: Arc<dyn Journal>,
    /// One permit lets one accept through.
    pub open: Semaphore,
    /// An accept has come to the gate.
    pub came: Notify,
    /// Whether writes fail.
    pub broken: AtomicBool,
}

impl Gate {
    pub fn before(inner: Arc<dyn Journal>) -> Arc<Self> {
        Arc::new(Self { inner, open: Semaphore::new(0), came: Notify::new(), broken: AtomicBool::new(false) })
    }
}

type Answer<T> = Result<T, JournalError>;

#[async_trait]
impl Journal for Gate {
    async fn accept(&self, jobs: Vec<NewJob>) -> Answer<Vec<Accepted>> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(JournalError::Unavailable("the disk is full".into()));
        }
        self.came.notify_one();
        self.open.acquire().await.unwrap().forget();
        self.inner.accept(jobs).await
    }

    async fn load(&self, claims: &[Token], now: Timestamp) -> Answer<Vec<Option<Loaded>>> {
        self.inner.load(claims, now).await
    }

    async fn settle(&self, settlement: Settlement) -> Answer<Settled> {
        self.inner.settle(settlement).await
    }

    async fn record(&self, call: CallRecord) -> Answer<()> {
        self.inner.record(call).await
    }

    async fn memos(&self, id: JobId) -> Answer<Vec<Memo>> {
        self.inner.memos(id).await
    }

    async fn recover(&self, recoveries: Vec<Recovery>) -> Answer<Vec<Recovered>> {
        self.inner.recover(recoveries).await
    }

    async fn reconcile(&self, unknown: Vec<Token>) -> Answer<Vec<Entry>> {
        self.inner.reconcile(unknown).await
    }

    async fn live(&self, scan: LiveScan) -> Answer<Vec<Entry>> {
        self.inner.live(scan).await
    }

    async fn cancel(
        &self,
        id: JobId,
        reason: Option<String>,
        attempt: Option<Interrupted>,
        now: Timestamp,
    ) -> Answer<Cancelled> {
        self.inner.cancel(id, reason, attempt, now).await
    }

    async fn edit(&self, id: JobId, seen: Option<Epoch>, edit: Edit, now: Timestamp) -> Answer<Changed> {
        self.inner.edit(id, seen, edit, now).await
    }

    async fn redrive(&self, id: JobId, now: Timestamp) -> Answer<Changed> {
        self.inner.redrive(id, now).await
    }

    async fn redrive_with(&self, id: JobId, payload: (Bytes, Name), now: Timestamp) -> Answer<Changed> {
        self.inner.redrive_with(id, payload, now).await
    }

    fn incarnation(&self) -> Incarnation {
        self.inner.incarnation()
    }

    async fn new_generation(&self) -> Answer<Generation> {
        self.inner.new_generation().await
    }

    async fn check(&self) -> Answer<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(JournalError::Unavailable("the disk is full".into()));
        }
        self.inner.check().await
    }
}
