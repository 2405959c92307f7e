//! The journal, spoilt.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Bug, Crash, between};
use crate::{
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

/// How long after its answer a submit is committed: what is on its way then is what the bug loses.
const COMMITTED_AFTER: Duration = Duration::from_millis(300);
/// Epochs that a settle is tried at beyond its own.
const EPOCHS: i64 = 8;
/// Rows that are remembered, so that they can be handed on as they were.
const SEEN_MAX: usize = 100_000;

/// A journal with points to crash at, or with a bug.
pub(super) struct SpoiltJournal {
    inner: Arc<dyn Journal>,
    crash: Arc<Option<Crash>>,
    bug: Option<Bug>,
    seen: Mutex<HashMap<JobId, Entry>>,
}

impl SpoiltJournal {
    pub(super) fn new(inner: Arc<dyn Journal>, crash: Arc<Option<Crash>>, bug: Option<Bug>) -> Self {
        Self { inner, crash, bug, seen: Mutex::default() }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn remember(&self, rows: &[Entry]) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() > SEEN_MAX {
            seen.clear();
        }
        seen.extend(rows.iter().map(|row| (row.id, row.clone())));
    }
}

#[async_trait]
impl Journal for SpoiltJournal {
    async fn accept(&self, jobs: Vec<NewJob>) -> Result<Vec<Accepted>, JournalError> {
        if self.has(Bug::AnswerBeforeCommit) {
            let (inner, answers) = (self.inner.clone(), vec![Accepted::New; jobs.len()]);
            tokio::spawn(async move {
                tokio::time::sleep(COMMITTED_AFTER).await;
                let _ = inner.accept(jobs).await;
            });
            return Ok(answers);
        }
        between(&self.crash, "accept", self.inner.accept(jobs)).await
    }

    async fn load(&self, claims: &[Token], now: Timestamp) -> Result<Vec<Option<Loaded>>, JournalError> {
        self.inner.load(claims, now).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled, JournalError> {
        let settled = between(&self.crash, "settle", self.inner.settle(settlement.clone())).await?;
        if !self.has(Bug::SettleAtAnyEpoch) || settled != Settled::Fenced {
            return Ok(settled);
        }
        let Token { id, epoch } = settlement.token;
        for more in 1..=EPOCHS {
            let token = Token { id, epoch: Epoch(epoch.0 + more) };
            let settled = self.inner.settle(Settlement { token, ..settlement.clone() }).await?;
            if settled != Settled::Fenced {
                return Ok(settled);
            }
        }
        Ok(Settled::Fenced)
    }

    async fn record(&self, call: CallRecord) -> Result<(), JournalError> {
        between(&self.crash, "record", self.inner.record(call)).await
    }

    async fn memos(&self, id: JobId) -> Result<Vec<Memo>, JournalError> {
        self.inner.memos(id).await
    }

    async fn recover(&self, recoveries: Vec<Recovery>) -> Result<Vec<Recovered>, JournalError> {
        between(&self.crash, "recover", self.inner.recover(recoveries)).await
    }

    async fn reconcile(&self, unknown: Vec<Token>) -> Result<Vec<Entry>, JournalError> {
        match self.bug {
            Some(Bug::NoReconciler) => Ok(vec![]),
            Some(Bug::ReconcileWithoutBump) => {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(unknown.iter().filter_map(|token| seen.get(&token.id).cloned()).collect())
            }
            _ => between(&self.crash, "reconcile", self.inner.reconcile(unknown)).await,
        }
    }

    async fn live(&self, scan: LiveScan) -> Result<Vec<Entry>, JournalError> {
        let rows = self.inner.live(scan).await?;
        if self.has(Bug::ReconcileWithoutBump) {
            self.remember(&rows);
        }
        Ok(rows)
    }

    async fn cancel(
        &self,
        id: JobId,
        reason: Option<String>,
        attempt: Option<Interrupted>,
        now: Timestamp,
    ) -> Result<Cancelled, JournalError> {
        between(&self.crash, "cancel", self.inner.cancel(id, reason, attempt, now)).await
    }

    async fn edit(&self, id: JobId, seen: Option<Epoch>, edit: Edit, now: Timestamp) -> Result<Changed, JournalError> {
        between(&self.crash, "edit", self.inner.edit(id, seen, edit, now)).await
    }

    async fn redrive(&self, id: JobId, now: Timestamp) -> Result<Changed, JournalError> {
        between(&self.crash, "redrive", self.inner.redrive(id, now)).await
    }

    async fn redrive_with(&self, id: JobId, payload: (Bytes, Name), now: Timestamp) -> Result<Changed, JournalError> {
        between(&self.crash, "redrive-with", self.inner.redrive_with(id, payload, now)).await
    }

    fn incarnation(&self) -> Incarnation {
        self.inner.incarnation()
    }

    async fn new_generation(&self) -> Result<Generation, JournalError> {
        between(&self.crash, "new-generation", self.inner.new_generation()).await
    }

    async fn check(&self) -> Result<(), JournalError> {
        self.inner.check().await
    }
}
