//! Runs jobs: claims them, loads them, hands each to the handler of its kind, and settles what came of it.
//!
//! `claimer` decides how many are claimed and when, `pipeline` is the path of one attempt, [`handlers`] know what
//! each kind does, [`provider`] knows who answers.

mod abandoned;
pub mod admission;
mod awake;
mod backend;
mod breaker;
pub mod caches;
mod claimer;
pub mod coalesce;
pub mod context;
mod fallback;
mod flights;
pub mod handlers;
mod handling;
mod keyless;
mod leases;
mod line;
mod meters;
mod orders;
mod patience;
mod pipeline;
pub mod provider;
pub mod purse;
mod renewer;
mod timeouts;
mod traced;

use std::{any::Any, collections::BTreeMap, sync::Arc, time::Duration};

use apalis::layers::{catch_panic::CatchPanicLayer, tracing::TraceLayer};
use apalis_core::{
    error::BoxDynError,
    task::Task,
    worker::{builder::WorkerBuilder, ext::parallelize::ParallelizeExt},
};
use context::Surroundings;
use futures::{FutureExt, future::BoxFuture};
use queue_core::{
    ids::{Name, SessionId},
    job::Kind,
    journal::{JournalError, WorkerSession},
    progress::Pulse,
    telemetry,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use abandoned::{RECYCLE_AFTER, Stuck};
pub use timeouts::TIMEOUT_DEFAULT;

use crate::{
    abandoned::Abandoned,
    awake::Awake,
    backend::{Claimed, ClaimedJobs},
    breaker::Breakers,
    claimer::Claimer,
    handlers::Handlers,
    leases::{Leases, Stop},
    meters::Meters,
    orders::Orders,
    patience::until_available,
    pipeline::Pipeline,
    timeouts::Timeouts,
};

/// Most slots of one worker process: a slot costs a task and the payload of its job.
pub const SLOTS_MAX: usize = 100_000;

/// What a worker process may be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Jobs that run at once, 1 to [`SLOTS_MAX`]. A slot is a task, not a thread.
    pub slots: usize,
    /// Queues that it serves; empty: all.
    pub queues: Vec<Name>,
    /// Kinds that it serves; empty: all.
    pub kinds: Vec<Kind>,
    /// Longest time of one attempt of these kinds, for jobs that name none in queues that name none.
    pub timeouts: BTreeMap<Kind, Duration>,
    /// How long running jobs may go on after the worker was told to stop; then they are given back, unspent.
    pub drain: Duration,
    /// Host and process, for people.
    pub host: String,
}

/// Why a worker ended, other than by an error.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// It was told to.
    Told,
    /// A handler holds one of this process' threads up and cannot be stopped: the process has to be started again.
    Recycle(Stuck),
}

/// A worker process: any number may run against one journal and dispatcher.
pub struct Worker {
    config: Config,
    around: Surroundings,
    handlers: Handlers,
    session: SessionId,
    pulse: Arc<Pulse>,
}

impl Worker {
    /// A worker that is not running yet.
    pub fn new(config: Config, around: Surroundings) -> Self {
        let pulse = Arc::new(Pulse::new("claim loop", claimer::SILENCE_MAX));
        Self { config, around, handlers: Handlers::new(), session: SessionId::generate(), pulse }
    }

    /// With these handlers: those of this version, and one's own.
    pub fn with_handlers(mut self, handlers: Handlers) -> Self {
        self.handlers = handlers;
        self
    }

    /// The name under which it joins the dispatcher.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Whether its claim loop goes round.
    pub fn pulse(&self) -> Arc<Pulse> {
        self.pulse.clone()
    }

    /// Runs jobs until `shutdown` fires, then drains: running jobs may finish within `config.drain`, the rest are
    /// given back without spending an attempt. Store errors never end it. It ends in the same way by itself where a handler was
    /// stopped and has not yielded [`RECYCLE_AFTER`] later.
    pub async fn run(self, shutdown: CancellationToken) -> Result<End, JournalError> {
        telemetry::begin_rare(telemetry::Part::Worker);
        let slots_total = self.config.slots.clamp(1, SLOTS_MAX);
        let stores = self.around.stores.clone();
        let session = self.session;
        let entry = WorkerSession {
            id: session,
            host: self.config.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            slots: slots_total as u32,
            started_at: stores.clock.now(),
            draining: false,
        };
        let Some(signals) = self.join(&entry, &shutdown).await else { return leave(&stores, session).await };
        let timeouts = Arc::new(Timeouts::new(self.config.timeouts.clone()));
        timeouts.refresh(&stores).await;
        // Before the first claim: a limit that an operator has set outlives whoever heard of it.
        self.around.gate.refresh(&*stores.catalog).await;
        // Nobody spends before it is known what may be spent.
        let known = self.around.purse.known();
        if until_available("budgets", || known.refresh(), &shutdown).await.is_none() {
            return leave(&stores, session).await;
        }

        let (leases, abandoned) = (Arc::new(Leases::default()), Arc::new(Abandoned::default()));
        // Before the first claim: maintenance may have begun before this process.
        let orders = Arc::new(Orders::of(entry));
        if until_available("orders", || orders.hear(&stores, &leases), &shutdown).await.is_none() {
            return leave(&stores, session).await;
        }
        // Where the system has no thread left, jobs run all the same.
        let _awake = Awake::keep().inspect_err(|error| tracing::warn!(%error, "timeouts may be late: no thread"));
        let slots = Arc::new(Semaphore::new(slots_total));
        let end = CancellationToken::new();
        // As many places as slots: a send never waits, since each claimed job holds a slot.
        let (out, claimed) = mpsc::channel(slots_total);
        let renewer = tokio::spawn(renewer::run(stores.clone(), session, leases.clone(), end.clone()));
        let claimer = Claimer {
            stores: stores.clone(),
            session,
            queues: self.config.queues.clone(),
            // A job that nobody here can run is left to others.
            kinds: if self.config.kinds.is_empty() { self.handlers.kinds() } else { self.config.kinds.clone() },
            slots: slots.clone(),
            slots_total,
            leases: leases.clone(),
            orders: orders.clone(),
            abandoned: abandoned.clone(),
            out,
            loads: TaskTracker::new(),
            pulse: self.pulse.clone(),
        };
        let stop = shutdown.child_token();
        let claiming = tokio::spawn(claimer.run(signals, stop.clone(), end.clone()));
        let pipeline = Arc::new(Pipeline {
            breakers: Arc::new(Breakers::new(stores.clone(), self.around.credentials.clone())),
            around: self.around,
            handlers: self.handlers,
            session,
            leases: leases.clone(),
            abandoned: abandoned.clone(),
            timeouts: timeouts.clone(),
            meters: Meters::default(),
        });
        let coalescer = pipeline.around.coalescer.clone();
        let refreshing = tokio::spawn({
            let (stores, end) = (stores.clone(), end.clone());
            async move { timeouts.keep_fresh(&stores, &end).await }
        });
        let keeping = tokio::spawn({
            let (gate, stores, end) = (pipeline.around.gate.clone(), stores.clone(), end.clone());
            async move { gate.keep(&*stores.catalog, &end).await }
        });
        let hearing = tokio::spawn({
            let (stores, leases, end) = (stores.clone(), leases.clone(), end.clone());
            async move { orders.keep(&stores, &leases, &end).await }
        });
        let waking = tokio::spawn({
            let (breakers, end) = (pipeline.breakers.clone(), end.clone());
            async move { breakers.keyless.run(&end).await }
        });
        let paying = tokio::spawn({
            let (purse, end) = (pipeline.around.purse.clone(), end.clone());
            async move { purse.keep(&end).await }
        });
        let running = tokio::spawn(run_attempts(ClaimedJobs::new(claimed, leases.clone()), pipeline));

        let why = tokio::select! {
            biased;
            () = shutdown.cancelled() => End::Told,
            () = abandoned.recycle.cancelled() => abandoned.stuck().map_or(End::Told, End::Recycle),
        };
        stop.cancel();
        let given_back = drain(&slots, slots_total, &leases, self.config.drain).await;
        end.cancel();
        leases.changed.notify_one();
        if !given_back {
            // Their settles wait for a journal that is away. The reaper finds the leases.
            claiming.abort();
            running.abort();
        }
        for task in [renewer, claiming, running, refreshing, keeping, hearing, paying, waking] {
            // A handler that does not yield may hold up one more: what was to run next on its thread.
            match tokio::time::timeout(TASK_ENDS_MAX, task).await {
                Ok(Err(error)) if !error.is_cancelled() => tracing::error!(%error, "a task of the worker ended badly"),
                Ok(_) => {}
                Err(_) => tracing::warn!("a task of the worker does not end; it ends with the process"),
            }
        }
        coalescer.finish().await;
        match (leave(&stores, session).await, why) {
            // What it ends for is told all the same.
            (Err(error), End::Recycle(_)) => tracing::warn!(%error, "the worker's session ends by itself"),
            (left, _) => drop(left?),
        }
        Ok(why)
    }

    async fn join(
        &self,
        entry: &WorkerSession,
        shutdown: &CancellationToken,
    ) -> Option<mpsc::Receiver<queue_core::dispatcher::Signal>> {
        let (stores, session) = (&self.around.stores, self.session);
        until_available("open_session", || stores.catalog.open_session(entry.clone()), shutdown).await?;
        loop {
            match stores.dispatcher.join(session, vec![]).await {
                Ok(signals) => return Some(signals),
                Err(error) => tracing::warn!(%error, "the dispatcher does not let the worker in yet"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        }
    }
}

/// Ends the session everywhere: nobody waits for this worker.
async fn leave(stores: &queue_core::stores::Stores, session: SessionId) -> Result<End, JournalError> {
    if let Err(error) = stores.dispatcher.leave(session).await {
        tracing::warn!(%error, "the worker's session ends by itself");
    }
    stores.catalog.close_session(session).await.map(|()| End::Told)
}

/// apalis runs the loop: one task a job; a panic of our own code inside it is caught and costs that job its lease, not
/// the process. Ends when the channel closes.
fn run_attempts(jobs: ClaimedJobs, pipeline: Arc<Pipeline>) -> BoxFuture<'static, ()> {
    // Boxed: every layer and the task move what they are given, and an attempt is kilobytes.
    let attempt = move |claimed: Claimed| {
        let pipeline = pipeline.clone();
        Box::pin(async move { traced::attempt(&pipeline, claimed).await })
    };
    let worker = WorkerBuilder::new("longshore")
        .backend(jobs)
        .parallelize(tokio::spawn)
        .layer(TraceLayer::new().make_span_with(attempt_span))
        .layer(CatchPanicLayer::with_panic_handler(lost))
        .build(attempt);
    // Boxed here, outside any async block: inside one, the compiler cannot see that the layers' futures are `Send`.
    let running: BoxFuture<'static, _> = Box::pin(worker.run());
    Box::pin(running.map(|ended| {
        if let Err(error) = ended {
            tracing::error!(%error, "the worker loop ended badly");
        }
    }))
}

/// apalis' own span wants its own task id, and panics without one. Only where somebody debugs: it costs a tenth of what
/// an attempt costs this process, and what we log names the job by itself.
fn attempt_span(task: &Task<Claimed>) -> tracing::Span {
    let job = &task.args.loaded.job;
    tracing::debug_span!("attempt", job_id = %job.id, tenant = %job.tenant, attempt = job.attempts + 1)
}

fn lost(panic: &Box<dyn Any + Send>) -> BoxDynError {
    tracing::error!(panic = pipeline::said(panic.as_ref()), "an attempt panicked outside its handler: a defect");
    "an attempt panicked outside its handler".into()
}

/// Waits until every slot is free; when `patience` ends, stops what still runs and waits for that. `false` when jobs
/// could not be given back.
async fn drain(slots: &Semaphore, total: usize, leases: &Leases, patience: Duration) -> bool {
    let all_free = slots.acquire_many(total as u32);
    tokio::pin!(all_free);
    if tokio::time::timeout(patience, &mut all_free).await.is_ok() {
        return true;
    }
    tracing::info!(jobs = leases.count(), "drain time is over: giving running jobs back, unspent");
    leases.stop_all(Stop::Shutdown);
    // Each stopped attempt ends within its grace and one settle; a journal that is away must not hold us for ever.
    let given_back = tokio::time::timeout(GIVE_BACK_MAX, &mut all_free).await.is_ok();
    if !given_back {
        tracing::warn!(jobs = leases.count(), "jobs could not be given back; their leases will expire");
    }
    given_back
}

/// Longest wait for each of the worker's own tasks, when nothing runs any more.
const TASK_ENDS_MAX: Duration = Duration::from_secs(3);
/// Longest wait for stopped attempts to be given back.
const GIVE_BACK_MAX: Duration = Duration::from_secs(5);
