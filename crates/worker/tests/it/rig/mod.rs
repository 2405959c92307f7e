//! A worker on real stores in a temporary folder, for tests that watch whole attempts.

// The binary exports nothing; a test fails by panicking.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use queue_core::{
    breaker::memory::MemoryBreakers,
    budget::{Budget, Known, memory::MemoryCounters},
    credentials::Credentials,
    dispatcher::{Dispatcher, Entry, Place, Suspicion, memory::MemoryDispatcher},
    egress::{Allowed, Egress},
    events::memory::MemoryEvents,
    ids::{JobId, Name},
    job::{Job, Kind, NewJob},
    journal::{Accepted, Cancelled, Interrupted, Journal, sqlite::SqliteJournal},
    ledger::PriceBook,
    limiter::{InForce, Limiter, Limits, memory::MemoryLimiter},
    progress::Pulse,
    route::{Route, Routes},
    stores::{Beside, Stores},
    time::{Clock, SystemClock},
};
use tempfile::TempDir;
use tokio::{sync::broadcast::error::RecvError, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use worker::{
    Config, End, Worker,
    admission::Gate,
    caches::Caches,
    coalesce::{Coalescer, Coalescing},
    context::Surroundings,
    handlers::Handlers,
    provider::Providers,
    purse::{Purse, UnknownPrice},
};

/// Longest wait for anything: a test that needs longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Rig {
    pub stores: Stores,
    pub counters: Arc<MemoryCounters>,
    pub around: Surroundings,
    pub limiter: Arc<dyn Limiter>,
    pub shutdown: CancellationToken,
    /// Of the last worker that was started.
    pub pulse: Option<Arc<Pulse>>,
    running: Option<JoinHandle<End>>,
    _folder: TempDir,
}

impl Rig {
    /// Stores without a worker.
    pub async fn new(providers: Providers) -> Self {
        Self::build(Arc::new(SystemClock), providers, Limits::default()).await
    }

    /// Stores with a clock of the test's, without a worker.
    pub async fn at(clock: Arc<dyn Clock>, providers: Providers) -> Self {
        Self::build(clock, providers, Limits::default()).await
    }

    /// Stores without a worker, and limits for those who will come.
    pub async fn limited(providers: Providers, limits: Limits) -> Self {
        Self::build(Arc::new(SystemClock), providers, limits).await
    }

    async fn build(clock: Arc<dyn Clock>, providers: Providers, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = Arc::new(SqliteJournal::open(&folder.path().join("journal.db"), clock.clone()).unwrap());
        let dispatcher = Arc::new(MemoryDispatcher::open(clock.clone(), Some(folder.path().join("leases"))).unwrap());
        dispatcher.begin(journal.new_generation().await.unwrap()).await.unwrap();
        let counters = Arc::new(MemoryCounters::new(clock.clone()));
        let stores = Stores::over(
            journal,
            Beside {
                dispatcher,
                breakers: Arc::new(MemoryBreakers::new(clock.clone())),
                counters: counters.clone(),
                events: Arc::new(MemoryEvents::new()),
                objects: None,
                clock,
            },
        );
        let limits = Arc::new(InForce::new(limits, BTreeMap::new()));
        let limiter: Arc<dyn Limiter> = Arc::new(MemoryLimiter::new(stores.clock.clone()));
        let routes = Routes {
            routes: providers
                .keys()
                .map(|name| Route { provider: Name::from(name.as_str()), models: vec![] })
                .collect(),
            default_model: Some("small".into()),
            default_embedding_model: Some("small".into()),
        };
        let prices = Arc::new(PriceBook::shipped());
        let known = Arc::new(Known::new(stores.budgets.clone(), Budget::default()));
        let purse = Purse::new(stores.clone(), known, prices.clone(), UnknownPrice::Refuse);
        let around = Surroundings {
            egress: Egress::new(Allowed { http: true, networks: vec!["127.0.0.0/8".parse().unwrap()] }),
            stores: stores.clone(),
            providers: Arc::new(providers),
            routes: Arc::new(routes),
            prices,
            purse: Arc::new(purse),
            gate: Arc::new(Gate::new(&stores, limiter.clone(), limits.clone())),
            caches: Arc::new(Caches::none()),
            coalescer: Arc::new(Coalescer::new(Coalescing::alone(), BTreeMap::new())),
            credentials: Arc::new(Credentials::none()),
        };
        Self {
            stores,
            counters,
            around,
            limiter,
            shutdown: CancellationToken::new(),
            pulse: None,
            running: None,
            _folder: folder,
        }
    }

    /// Starts the worker.
    pub fn work(&mut self, slots: usize, drain: Duration) {
        self.work_with(Config {
            slots,
            queues: vec![],
            kinds: vec![],
            timeouts: BTreeMap::new(),
            drain,
            host: "test".into(),
        });
    }

    /// Starts a worker that is told this.
    pub fn work_with(&mut self, config: Config) {
        self.work_by(config, Handlers::new());
    }

    /// Starts a worker with these handlers.
    pub fn work_by(&mut self, config: Config, handlers: Handlers) {
        let worker = Worker::new(config, self.around.clone()).with_handlers(handlers);
        self.pulse = Some(worker.pulse());
        let shutdown = self.shutdown.clone();
        self.running = Some(tokio::spawn(async move { worker.run(shutdown).await.unwrap() }));
    }

    /// Stops the worker and waits for its end.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        let running = self.running.take().unwrap();
        tokio::time::timeout(PATIENCE, running).await.expect("the worker ends").unwrap();
    }

    /// Waits until the worker ends by itself.
    pub async fn ends(&mut self) -> End {
        let running = self.running.take().unwrap();
        tokio::time::timeout(PATIENCE, running).await.expect("the worker ends").unwrap()
    }

    /// Ends the worker in the middle of whatever it does.
    pub async fn kill(&mut self) {
        let running = self.running.take().unwrap();
        running.abort();
        let _ = running.await;
    }

    /// Accepts and pushes a job.
    pub async fn submit(&self, kind: Kind, payload: &str, change: impl FnOnce(&mut NewJob)) -> JobId {
        let now = self.stores.clock.now();
        let mut job =
            NewJob::new("default".into(), kind, kind.as_str().into(), Bytes::copy_from_slice(payload.as_bytes()), now);
        change(&mut job);
        let (id, run_at) = (job.id, job.run_at);
        let entry = Entry {
            id,
            epoch: Default::default(),
            queue: job.queue.clone(),
            tenant: job.tenant.clone(),
            target: job.target.clone(),
            kind: job.kind,
            priority: job.priority,
            run_at,
            suspicion: Suspicion::None,
            key: None,
        };
        assert_eq!(self.stores.journal.accept(vec![job]).await.unwrap(), vec![Accepted::New]);
        self.stores.dispatcher.push(vec![entry]).await.unwrap();
        id
    }

    pub async fn probe(&self, payload: &str) -> JobId {
        self.submit(Kind::Probe, payload, |_| {}).await
    }

    pub async fn row(&self, id: JobId) -> Job {
        self.stores.reads.jobs(&[id]).await.unwrap().remove(0).expect("the job exists")
    }

    /// The row of a job once it has ended.
    pub async fn ended(&self, id: JobId) -> Job {
        let mut finished = self.stores.events.finished();
        let wait = async {
            loop {
                let row = self.row(id).await;
                if row.standing.is_final() {
                    return row;
                }
                match finished.recv().await {
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => panic!("the event hub is gone"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the job ends")
    }

    /// Cancels a job that runs, as the API does it, and returns the attempt that this interrupts.
    pub async fn cancel(&self, id: JobId, reason: Option<String>) -> Interrupted {
        let Place::Leased { epoch, session, started_at: Some(started_at) } =
            self.stores.dispatcher.withdraw(id).await.unwrap()
        else {
            panic!("it runs");
        };
        let attempt = Interrupted { epoch, session, started_at };
        let now = self.stores.clock.now();
        let cancelled = self.stores.journal.cancel(id, reason, Some(attempt), now).await.unwrap();
        assert!(matches!(cancelled, Cancelled::Done(_)));
        self.stores.dispatcher.nudge(id).await.unwrap();
        attempt
    }

    /// Waits until `holds` is true of the job's place in the dispatcher.
    pub async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let wait = async {
            while !holds().await {
                tokio::task::yield_now().await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never came true: {what}");
    }
}
