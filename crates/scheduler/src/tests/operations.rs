//! Operations are walked to their end by whoever is there, whatever dies meanwhile.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use async_trait::async_trait;
use queue_core::{
    dispatcher::{Place, Signal},
    error::{ErrorClass, JobError},
    filter::Filter,
    ids::{CallId, Epoch, JobId, OperationId, SessionId},
    job::Kind,
    journal::{JournalError, Outcome, Settlement, Token},
    ledger::{Billed, CallRecord, Nanousd, Tier, Usage, UsageSource},
    operations::{
        Aborted, Action, Begun, Counts, Operation, OperationState, Operations, Order, RATE_MAX_PER_S, Step, Stepped,
    },
    state::Standing,
    time::{Clock, Timestamp},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{NOW, Scene, waiting};
use crate::operations::{Watch, walk::Walk};

pub(super) fn order(action: Action, filter: &str) -> Order {
    let filter = Filter::parse(filter, NOW).unwrap();
    Order {
        action,
        goal: None,
        queue: queue_core::operations::only_queue(&filter),
        filter: filter.to_string(),
        dry_run: false,
        rate_per_s: RATE_MAX_PER_S,
        max_jobs: None,
        max_cost: None,
        force: false,
        reason: Some("a test".into()),
        asked_by: "abcd1234".into(),
    }
}

impl Scene {
    pub(super) async fn begin_operation(&self, order: Order) -> OperationId {
        let id = OperationId::generate();
        let begun = self.stores.operations.begin(id, order, self.clock.now()).await.unwrap();
        assert!(matches!(begun, Begun::New(_)), "{begun:?}");
        id
    }

    pub(super) async fn operation(&self, id: OperationId) -> Operation {
        self.stores.operations.operation(id).await.unwrap().unwrap()
    }

    /// Takes it, whoever walked it before, and makes the walk.
    pub(super) async fn taken(&self, id: OperationId) -> Walk {
        let (beat, owner) = (self.operation(id).await.beat, Uuid::now_v7());
        let operation = self.stores.operations.take(id, beat, Some(owner)).await.unwrap().unwrap();
        Walk::new(self.stores.clone(), operation, owner, CancellationToken::new())
    }

    /// Walks a new operation to its end.
    pub(super) async fn walked(&self, order: Order) -> Operation {
        let id = self.begin_operation(order).await;
        self.taken(id).await.run().await;
        self.operation(id).await
    }

    pub(super) async fn dead(&self, count: usize, queue: &str) -> Vec<JobId> {
        let ids = self.accept(count, |job| job.queue = queue.into()).await;
        for id in &ids {
            self.die(*id, None).await;
        }
        ids
    }

    pub(super) async fn die(&self, id: JobId, call: Option<CallRecord>) {
        let row = self.row(id).await;
        let settlement = Settlement {
            token: Token { id, epoch: row.epoch },
            incarnation: self.stores.journal.incarnation(),
            outcome: Outcome::Dead { error: JobError::new(ErrorClass::Server, "503", "no") },
            session: SessionId::generate(),
            started_at: self.clock.now(),
            finished_at: self.clock.now(),
            calls: call.into_iter().collect(),
            savings: vec![],
            served_by: None,
        };
        self.stores.journal.settle(settlement).await.unwrap();
    }

    pub(super) async fn redrives(&self, ids: &[JobId]) -> Vec<u32> {
        let rows = self.stores.reads.jobs(ids).await.unwrap();
        rows.into_iter().map(|row| row.unwrap().redrives).collect()
    }
}

pub(super) fn done(done: u64) -> Counts {
    Counts { matched: done, done, unestimated: done, ..Counts::default() }
}

#[tokio::test]
async fn a_redrive_meets_each_letter_of_its_filter_once() {
    let scene = Scene::new().await;
    let (mine, other) = (scene.dead(120, "bulk").await, scene.dead(3, "other").await);
    let operation = scene.walked(order(Action::Redrive, "queue = bulk and error.class = server")).await;
    assert_eq!((operation.state, operation.counts), (OperationState::Done, done(120)));
    assert!(scene.redrives(&mine).await.iter().all(|redrives| *redrives == 1));
    assert!(scene.redrives(&other).await.iter().all(|redrives| *redrives == 0));
    assert!(scene.places(&mine).await.iter().all(|place| *place == waiting(1)), "all of them wait for a worker");
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() {
    let scene = Scene::new().await;
    let ids = scene.dead(7, "bulk").await;
    let operation = scene.walked(Order { dry_run: true, ..order(Action::Redrive, "queue = bulk") }).await;
    assert_eq!(operation.state, OperationState::Done);
    assert_eq!(operation.counts, Counts { matched: 7, unestimated: 7, ..Counts::default() });
    assert!(scene.redrives(&ids).await.iter().all(|redrives| *redrives == 0));
    let few = Order { dry_run: true, max_jobs: Some(3), ..order(Action::Redrive, "queue = bulk") };
    assert_eq!(scene.walked(few).await.counts.matched, 3);
}

/// Operations whose answers can be lost after the commit, and whose steps can be held up.
pub(super) struct Faulty {
    inner: Arc<dyn Operations>,
    /// Every so many steps with jobs the answer is lost; 0: never.
    loses_each: u64,
    steps: AtomicU64,
    /// This step with jobs never comes back.
    hangs_from: u64,
    /// Whether it is done.
    commits: bool,
    pub(super) hangs: Notify,
    is_hanging: AtomicBool,
}

impl Faulty {
    pub(super) fn over(inner: Arc<dyn Operations>, loses_each: u64, hangs_from: u64) -> Arc<Self> {
        Self::dying(inner, loses_each, hangs_from, true)
    }

    /// Its walker dies with this step, before or after it is committed.
    pub(super) fn dying(inner: Arc<dyn Operations>, loses_each: u64, hangs_from: u64, commits: bool) -> Arc<Self> {
        let (steps, hangs, is_hanging) = (AtomicU64::new(0), Notify::new(), AtomicBool::new(false));
        Arc::new(Self { inner, loses_each, steps, hangs_from, commits, hangs, is_hanging })
    }
}

#[async_trait]
impl Operations for Faulty {
    async fn begin(&self, id: OperationId, order: Order, now: Timestamp) -> Result<Begun, JournalError> {
        self.inner.begin(id, order, now).await
    }

    async fn operation(&self, id: OperationId) -> Result<Option<Operation>, JournalError> {
        self.inner.operation(id).await
    }

    async fn operations(
        &self,
        behind: Option<OperationId>,
        running: bool,
        limit: usize,
    ) -> Result<Vec<Operation>, JournalError> {
        self.inner.operations(behind, running, limit).await
    }

    async fn take(&self, id: OperationId, beat: i64, owner: Option<Uuid>) -> Result<Option<Operation>, JournalError> {
        self.inner.take(id, beat, owner).await
    }

    async fn step(&self, step: Step, now: Timestamp) -> Result<Stepped, JournalError> {
        // A sign of life comes when it comes.
        if step.picks.is_empty() {
            return self.inner.step(step, now).await;
        }
        let number = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
        if number == self.hangs_from && !self.is_hanging.swap(true, Ordering::SeqCst) {
            if self.commits {
                // And its walker dies before it hears of it.
                self.inner.step(step, now).await?;
            }
            self.hangs.notify_one();
            return std::future::pending().await;
        }
        let stepped = self.inner.step(step, now).await?;
        if self.loses_each > 0 && number.is_multiple_of(self.loses_each) {
            return Err(JournalError::Unavailable("the answer is lost".into()));
        }
        Ok(stepped)
    }

    async fn abort(&self, id: OperationId, now: Timestamp) -> Result<Aborted, JournalError> {
        self.inner.abort(id, now).await
    }
}

#[tokio::test]
async fn a_step_whose_answer_is_lost_is_counted_once() {
    let mut scene = Scene::new().await;
    let ids = scene.dead(60, "bulk").await;
    // Steps of four jobs: many of them.
    scene.stores.operations = Faulty::over(scene.stores.operations.clone(), 7, 0);
    let operation = scene.walked(Order { rate_per_s: 40, ..order(Action::Redrive, "queue = bulk") }).await;
    assert_eq!((operation.state, operation.counts), (OperationState::Done, done(60)));
    assert!(scene.redrives(&ids).await.iter().all(|redrives| *redrives == 1));
    let unknown = scene.unknown(&ids).await;
    assert!(unknown > 0 && unknown < 60, "what was committed without an answer waits for the reconciler: {unknown}");
}

#[tokio::test]
async fn a_walker_that_dies_between_commit_and_answer_is_followed_by_another() {
    let mut scene = Scene::new().await;
    let ids = scene.dead(60, "bulk").await;
    let faulty = Faulty::over(scene.stores.operations.clone(), 0, 4);
    scene.stores.operations = faulty.clone();
    let id = scene.begin_operation(Order { rate_per_s: 50, ..order(Action::Redrive, "queue = bulk") }).await;
    let walk = scene.taken(id).await;
    let walker = tokio::spawn(walk.run());
    faulty.hangs.notified().await;
    walker.abort();
    assert!(walker.await.unwrap_err().is_cancelled());
    let left = scene.operation(id).await;
    assert_eq!(left.state, OperationState::Running);
    assert!(left.counts.done > 0 && left.counts.done < 60, "{:?}", left.counts);
    scene.taken(id).await.run().await;
    let operation = scene.operation(id).await;
    assert_eq!((operation.state, operation.counts), (OperationState::Done, done(60)));
    assert!(scene.redrives(&ids).await.iter().all(|redrives| *redrives == 1));
}

#[tokio::test]
async fn what_nobody_walks_is_taken_and_what_somebody_walks_is_not() {
    let scene = Scene::new().await;
    let id = scene.begin_operation(order(Action::Redrive, "queue = bulk")).await;
    let (mut one, mut other) = (Watch::default(), Watch::default());
    assert!(one.take(&scene.stores, 0).await.unwrap().is_empty(), "no room");
    let taken = one.take(&scene.stores, 4).await.unwrap();
    assert_eq!(taken.iter().map(|(operation, _)| operation.id).collect::<Vec<_>>(), [id]);
    assert!(other.take(&scene.stores, 4).await.unwrap().is_empty(), "its walker has just shown a sign of life");
    assert!(one.take(&scene.stores, 4).await.unwrap().is_empty(), "it is walked here");
    let (operation, owner) = taken.into_iter().next().unwrap();
    let stopped = CancellationToken::new();
    stopped.cancel();
    scene.dead(1, "bulk").await;
    Walk::new(scene.stores.clone(), operation, owner, stopped).run().await;
    assert_eq!(scene.operation(id).await.owner, None, "a process that stops gives it back");
    assert_eq!(other.take(&scene.stores, 4).await.unwrap().len(), 1, "and somebody else need not wait");
}

#[tokio::test]
async fn nothing_is_done_after_an_abort() {
    let scene = Scene::new().await;
    let ids = scene.dead(50, "bulk").await;
    let id = scene.begin_operation(Order { rate_per_s: 20, ..order(Action::Redrive, "queue = bulk") }).await;
    let walker = tokio::spawn(scene.taken(id).await.run());
    while scene.operation(id).await.counts.done == 0 {
        tokio::task::yield_now().await;
    }
    let aborted = scene.stores.operations.abort(id, scene.clock.now()).await.unwrap();
    let Aborted::Done(aborted) = aborted else { panic!("{aborted:?}") };
    walker.await.unwrap();
    assert_eq!(scene.operation(id).await, aborted);
    let redriven: u32 = scene.redrives(&ids).await.iter().sum();
    assert_eq!(u64::from(redriven), aborted.counts.done);
    assert!(redriven < 50);
}

pub(super) fn paid(job: JobId, nanousd: i64) -> CallRecord {
    CallRecord {
        call_id: CallId::of(job, "chat", 0),
        job_id: job,
        tenant: "default".into(),
        queue: "bulk".into(),
        kind: Kind::Llm,
        operation: None,
        key_id: None,
        epoch: Epoch(0),
        step: "chat".into(),
        sequence: 0,
        provider: "script".into(),
        model: "small".into(),
        status: "ok".into(),
        billed: Billed::Yes,
        usage: Usage::default(),
        tier: Tier::Standard,
        usage_source: UsageSource::Provider,
        cost: Some(Nanousd(nanousd)),
        price_version: "t".into(),
        duration_ms: 1,
        provider_request_id: None,
        credential: "default".into(),
        at: NOW,
        memo: None,
    }
}

#[tokio::test]
async fn a_cost_cap_stops_before_it_is_passed() {
    let scene = Scene::new().await;
    scene.clock.advance_ms(60_000);
    let priced = scene.accept(2, |job| job.queue = "bulk".into()).await;
    for (id, nanousd) in priced.iter().zip([10, 30]) {
        scene.die(*id, Some(paid(*id, nanousd))).await;
    }
    scene.dead(8, "bulk").await;
    // Jobs of another model of which nobody knows anything.
    let strange = scene.accept(1, |job| (job.queue, job.target) = ("bulk".into(), "script:other:none".into())).await;
    scene.die(strange[0], None).await;
    let dry = scene.walked(Order { dry_run: true, ..order(Action::Redrive, "queue = bulk") }).await;
    assert_eq!((dry.counts.matched, dry.counts.cost, dry.counts.unestimated), (11, Nanousd(200), 1), "20 a job");
    let capped = Order { max_cost: Some(Nanousd(65)), ..order(Action::Redrive, "queue = bulk") };
    let operation = scene.walked(capped).await;
    assert_eq!(operation.state, OperationState::Capped);
    let expected = Counts { matched: 4, done: 3, skipped: 1, cost: Nanousd(60), ..Counts::default() };
    assert_eq!(operation.counts, expected, "what nobody can estimate is left alone");
    assert_eq!(scene.row(strange[0]).await.standing, Standing::Dead);
    let few = Order { max_jobs: Some(2), ..order(Action::Redrive, "queue = bulk") };
    let operation = scene.walked(few).await;
    assert_eq!((operation.state, operation.counts.done), (OperationState::Done, 2));
}

#[tokio::test]
async fn a_drain_means_the_letters_that_were_there() {
    let scene = Scene::new().await;
    let (old, done) = (scene.dead(3, "bulk").await, scene.accept(1, |job| job.queue = "bulk".into()).await);
    scene.settle(done[0], Epoch(0)).await;
    let young = scene.accept(1, |job| job.queue = "bulk".into()).await;
    let drain = Order { goal: Some(Action::Delete), ..order(Action::Drain, "queue = bulk") };
    let id = scene.begin_operation(drain).await;
    scene.clock.advance_ms(5);
    scene.die(young[0], None).await;
    scene.taken(id).await.run().await;
    let operation = scene.operation(id).await;
    assert_eq!((operation.state, operation.counts.done, operation.counts.matched), (OperationState::Done, 3, 3));
    assert!(scene.stores.reads.jobs(&old).await.unwrap().iter().all(Option::is_none));
    assert_eq!(scene.row(young[0]).await.standing, Standing::Dead);
    assert_eq!(scene.row(done[0]).await.standing, Standing::Succeeded, "a drain is about dead letters");
}

#[tokio::test]
async fn cancelled_jobs_leave_the_dispatcher_and_their_workers_are_told() {
    let scene = Scene::new().await;
    let session = SessionId::generate();
    let mut signals = scene.stores.dispatcher.join(session, vec![]).await.unwrap();
    let running = scene.submit().await;
    assert_eq!(scene.begin(session).await.len(), 1);
    let waits = scene.submit().await;
    let done = scene.submit().await;
    scene.settle(done, Epoch(0)).await;
    let operation = scene.walked(order(Action::Cancel, "queue = default and state in (ready, running)")).await;
    assert_eq!(operation.counts, Counts { matched: 2, done: 2, ..Counts::default() });
    assert_eq!(scene.place(waits).await, Place::Unknown);
    let told = async {
        loop {
            if let Some(Signal::Cancel(id)) = signals.recv().await {
                return id;
            }
        }
    };
    assert_eq!(told.await, running);
    for id in [waits, running] {
        let row = scene.row(id).await;
        assert_eq!((row.standing, row.cancel_reason.as_deref()), (Standing::Cancelled, Some("a test")));
    }
    assert_eq!(scene.row(done).await.standing, Standing::Succeeded);
    assert_eq!(scene.stores.reads.attempts(running).await.unwrap()[0].outcome, "cancel");
}

#[tokio::test]
async fn what_living_workers_hold_is_reclaimed_only_by_force() {
    let scene = Scene::new().await;
    let session = scene.worker().await;
    let held = scene.submit().await;
    scene.begin(session).await;
    let spared = scene.walked(order(Action::Reclaim, "state = running")).await;
    assert_eq!(spared.counts, Counts { matched: 1, skipped: 1, ..Counts::default() });
    assert_eq!(scene.row(held).await.epoch, Epoch(0));
    let forced = scene.walked(Order { force: true, ..order(Action::Reclaim, "state = running") }).await;
    assert_eq!((forced.counts.done, forced.counts.skipped), (1, 0));
    assert_eq!(scene.place(held).await, waiting(1), "anybody may have it now");
    assert_eq!(scene.stores.reads.attempts(held).await.unwrap()[0].outcome, "lost");
}

#[tokio::test]
async fn a_filter_that_this_version_cannot_read_fails_its_operation() {
    let scene = Scene::new().await;
    let wrong = Order { filter: "colour = red".into(), ..order(Action::Redrive, "queue = bulk") };
    let operation = scene.walked(wrong).await;
    assert_eq!(operation.state, OperationState::Failed);
    assert!(operation.error.unwrap().contains("cannot be read"));
}
