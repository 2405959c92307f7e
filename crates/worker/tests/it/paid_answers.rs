//! What was paid for while the journal was away.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::rig::Rig;
use crate::vectors::Oracle;
use async_trait::async_trait;
use bytes::Bytes;
use queue_core::{
    dispatcher::Entry,
    ids::{Epoch, Generation, Incarnation, JobId, Name},
    job::{Kind, Loaded, NewJob},
    journal::{
        Accepted, Cancelled, Changed, Edit, Interrupted, Journal, JournalError, LiveScan, Recovered, Recovery, Settled,
        Settlement, Token,
    },
    ledger::{CallRecord, Memo},
    state::Standing,
    time::Timestamp,
};
use serde_json::json;

/// A journal that keeps no answers while it is away.
struct Away {
    inner: Arc<dyn Journal>,
    away: AtomicBool,
}

type Answer<T> = Result<T, JournalError>;

#[async_trait]
impl Journal for Away {
    async fn accept(&self, jobs: Vec<NewJob>) -> Answer<Vec<Accepted>> {
        self.inner.accept(jobs).await
    }

    async fn load(&self, claims: &[Token], now: Timestamp) -> Answer<Vec<Option<Loaded>>> {
        self.inner.load(claims, now).await
    }

    async fn settle(&self, settlement: Settlement) -> Answer<Settled> {
        // The attempt is over: the journal is back.
        self.away.store(false, Ordering::SeqCst);
        self.inner.settle(settlement).await
    }

    async fn record(&self, call: CallRecord) -> Answer<()> {
        if self.away.load(Ordering::SeqCst) {
            return Err(JournalError::Unavailable("it fails over".into()));
        }
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

    fn incarnation(&self) -> Incarnation {
        self.inner.incarnation()
    }

    async fn redrive_with(&self, id: JobId, payload: (Bytes, Name), now: Timestamp) -> Answer<Changed> {
        self.inner.redrive_with(id, payload, now).await
    }

    async fn new_generation(&self) -> Answer<Generation> {
        self.inner.new_generation().await
    }

    async fn check(&self) -> Answer<()> {
        self.inner.check().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_attempt_ends_while_the_journal_is_away_is_not_paid_for_again() {
    let oracle = Oracle::new(|_, _| Ok(()));
    let mut rig = Rig::new(oracle.alone()).await;
    let journal = Arc::new(Away { inner: rig.stores.journal.clone(), away: AtomicBool::new(true) });
    rig.around.stores.journal = journal;
    rig.work(10, std::time::Duration::from_secs(5));
    let schema = json!({"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"],
                        "additionalProperties": false});
    // Repairs may follow, so its answer is kept before the handler sees it.
    let payload = json!({"model": "small", "messages": [{"role": "user", "content": "A number."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}}});
    let id = rig.submit(Kind::Llm, &payload.to_string(), |job| job.timeout_ms = Some(1_000)).await;
    let row = rig.ended(id).await;
    assert_eq!((row.standing, row.attempts), (Standing::Succeeded, 2), "{:?}", row.error);
    assert_eq!(oracle.asked().len(), 1, "the first attempt's answer is found");
    let calls = rig.stores.reads.calls(id).await.unwrap();
    assert_eq!(calls.iter().map(|call| call.status.as_str()).collect::<Vec<_>>(), ["ok"]);
    rig.stop().await;
}
