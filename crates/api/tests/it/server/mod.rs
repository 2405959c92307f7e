//! A real server on a port of its own, over real stores in a temporary folder, and a hand that works like a worker.
#![allow(unreachable_pub)] // the binary exports nothing

pub mod contract;
pub mod gate;
pub mod people;
pub mod stream;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use api::{Api, Settings};
use bytes::Bytes;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use queue_core::{
    archive::Objects,
    backup::{BackupId, BackupRow, Cause, Progress, Record, Scope, Work},
    breaker::memory::MemoryBreakers,
    budget::{Budget, Known, memory::MemoryCounters},
    credentials::Credentials,
    dispatcher::{Ack, Lease, Signal, Step, memory::MemoryDispatcher},
    error::{ErrorClass, JobError},
    events::{EventBody, Events, memory::MemoryEvents},
    ids::{JobId, OperationId, SessionId},
    job::Loaded,
    journal::{Outcome, Role, Settled, Settlement, Token, WorkerSession, sqlite::SqliteJournal},
    keys::Secret,
    ledger::{CallRecord, PriceBook, Saving},
    limiter::memory::MemoryLimiter,
    operations::{self, Action, Order, Pick, Stepped},
    request_limits::memory::MemoryRequestLimits,
    route::{Route, Routes},
    state::State,
    stores::{Beside, Stores},
    time::{Clock, SystemClock},
};
use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longest wait for anything: a test that needs longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Server {
    pub url: String,
    pub key: String,
    pub stores: Stores,
    pub http: reqwest::Client,
    pub shutdown: CancellationToken,
    running: Option<JoinHandle<()>>,
    _folder: Option<TempDir>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The answer's body, after checking its status.
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// The problem document, after checking that it is one.
    pub fn problem(&self, status: u16) -> Value {
        let problem = self.expect(status);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(problem["status"], status);
        assert!(problem["type"].as_str().unwrap().starts_with("urn:longshore:problem:"), "{problem}");
        assert!(!problem["title"].as_str().unwrap().is_empty());
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        problem
    }
}

/// One recorder for all tests of a process, as in the product.
pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| PrometheusBuilder::new().install_recorder().unwrap()).clone()
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A server whose parts `change` may replace before it starts.
    pub async fn start_with(change: impl FnOnce(&mut Api)) -> Self {
        Self::start_at(Arc::new(SystemClock), change).await
    }

    /// A server with a clock of the test's.
    pub async fn start_at(clock: Arc<dyn Clock>, change: impl FnOnce(&mut Api)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = Arc::new(SqliteJournal::open(&folder.path().join("journal.db"), clock.clone()).unwrap());
        let stores = Stores::over(
            journal,
            Beside {
                dispatcher: Arc::new(
                    MemoryDispatcher::open(clock.clone(), Some(folder.path().join("leases"))).unwrap(),
                ),
                breakers: Arc::new(MemoryBreakers::new(clock.clone())),
                counters: Arc::new(MemoryCounters::new(clock.clone())),
                events: Arc::new(MemoryEvents::new()),
                objects: Some(Objects::folder(&folder.path().join("objects")).unwrap()),
                clock,
            },
        );
        stores.dispatcher.begin(stores.journal.new_generation().await.unwrap()).await.unwrap();
        let secret = Secret::generate();
        let row = secret.to_row("default".into(), Role::Admin, "test", stores.clock.now());
        stores.identity.add_key(row).await.unwrap();
        Self::over(stores, secret.reveal(), Some(folder), change).await
    }

    /// A server with these events.
    pub async fn start_with_events(events: Arc<dyn Events>) -> Self {
        let mut first = Self::start().await;
        let mut server = first.beside(events).await;
        server._folder = first._folder.take();
        server
    }

    /// Another server over the same journal and dispatcher, with events of its own, as another process has them.
    pub async fn beside(&self, events: Arc<dyn Events>) -> Self {
        Self::over(Stores { events, ..self.stores.clone() }, self.key.clone(), None, |_| {}).await
    }

    /// Another server over the same stores, whose parts `change` may replace.
    pub async fn beside_with(&self, change: impl FnOnce(&mut Api)) -> Self {
        Self::over(self.stores.clone(), self.key.clone(), None, change).await
    }

    async fn over(stores: Stores, key: String, folder: Option<TempDir>, change: impl FnOnce(&mut Api)) -> Self {
        let mut api = Api {
            stores: stores.clone(),
            routes: Arc::new(Routes {
                routes: vec![Route { provider: "simulated".into(), models: vec!["gpt-*".into(), "text-*".into()] }],
                default_model: None,
                default_embedding_model: None,
            }),
            prices: Arc::new(PriceBook::shipped()),
            limiter: Arc::new(MemoryLimiter::new(stores.clock.clone())),
            limits: Arc::default(),
            request_limits: Arc::new(MemoryRequestLimits::new(stores.clock.clone())),
            credentials: Arc::new(Credentials::of(stores.vault.clone())),
            tokens: Arc::default(),
            tls: None,
            budgets: Arc::new(Known::new(stores.budgets.clone(), Budget::default())),
            refuse_unpriced: true,
            checks: vec![],
            metrics: metrics(),
            loops: vec![],
            leaving: CancellationToken::new(),
            pages: None,
            settings: Settings { probe_jobs: true, ..Settings::default() },
        };
        change(&mut api);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(api::serve(listener, api, shutdown.clone()));
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let running = Some(running);
        Self { url, key, stores, http, shutdown, running, _folder: folder }
    }

    /// Where its stores are.
    pub fn folder(&self) -> &std::path::Path {
        self._folder.as_ref().expect("its stores are its own").path()
    }

    /// A request with the key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let (client, request) = request.build_split();
        let request = request.unwrap();
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = tokio::time::timeout(PATIENCE, client.execute(request)).await.expect("an answer").unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let answer = Answer { status, headers, text: response.text().await.unwrap() };
        contract::check(&method, &path, status, answer.header("content-type"), &answer.text);
        answer
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PATCH, path).json(body)).await
    }

    /// Submits a probe job with these fields beside kind and payload, and returns its id.
    pub async fn submit(&self, fields: Value) -> JobId {
        let mut job = json!({"kind": "probe", "payload": {"sleep_ms": 0}});
        job.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = self.post("/v1/jobs", &job).await.expect(202);
        answer["id"].as_str().unwrap().parse().unwrap()
    }

    /// Asks the server to stop and waits until it has.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        let running = self.running.take().unwrap();
        tokio::time::timeout(PATIENCE, running).await.expect("the server ends").unwrap();
    }
}

/// A worker that does what a test says.
pub struct Hand {
    stores: Stores,
    session: SessionId,
    pub signals: mpsc::Receiver<Signal>,
}

/// A claimed job.
pub struct Held {
    pub lease: Lease,
    pub loaded: Loaded,
}

impl Hand {
    pub async fn join(stores: &Stores) -> Self {
        let session = SessionId::generate();
        let signals = stores.dispatcher.join(session, vec![]).await.unwrap();
        Self { stores: stores.clone(), session, signals }
    }

    /// Claims what can be claimed now, and holds it.
    pub async fn claims(&mut self) -> Vec<JobId> {
        let step = Step { session: self.session, acks: vec![], queues: vec![], kinds: vec![], slots: 64 };
        let claims = self.stores.dispatcher.step(step).await.unwrap().claims;
        claims.into_iter().map(|claim| claim.lease.id).collect()
    }

    /// Claims the next job and begins it.
    pub async fn claim(&mut self) -> Held {
        let claim = async {
            loop {
                let step = Step { session: self.session, acks: vec![], queues: vec![], kinds: vec![], slots: 1 };
                if let Some(claim) = self.stores.dispatcher.step(step).await.unwrap().claims.pop() {
                    return claim;
                }
                self.signals.recv().await.unwrap();
            }
        };
        let lease = tokio::time::timeout(PATIENCE, claim).await.expect("a job to claim").lease;
        let token = Token { id: lease.id, epoch: lease.epoch };
        let mut loaded = self.stores.journal.load(&[token], self.stores.clock.now()).await.unwrap();
        self.stores.dispatcher.start(self.session, &[lease]).await.unwrap();
        let loaded = loaded.pop().unwrap().expect("a live row at the claimed epoch");
        self.stores.events.publish(lease.id, EventBody::AttemptStarted { attempt: loaded.job.attempts + 1 });
        Held { lease, loaded }
    }

    /// Ends an attempt of these calls and savings.
    pub async fn settle_with(&self, held: Held, outcome: Outcome, calls: Vec<CallRecord>, savings: Vec<Saving>) {
        self.settle_paid(held, outcome, State::Ready, (calls, savings)).await;
    }

    pub async fn succeed(&self, held: Held, result: &Value) {
        let result = Bytes::from(result.to_string());
        self.settle(held, Outcome::Succeed { result: result.into() }, State::Succeeded).await;
    }

    pub async fn bury(&self, held: Held, message: &str) {
        let error = JobError::new(ErrorClass::Permanent, "test", message);
        self.settle(held, Outcome::Dead { error }, State::Dead).await;
    }

    async fn settle(&self, held: Held, outcome: Outcome, state: State) {
        self.settle_paid(held, outcome, state, (vec![], vec![])).await;
    }

    async fn settle_paid(
        &self,
        held: Held,
        outcome: Outcome,
        state: State,
        (calls, savings): (Vec<CallRecord>, Vec<Saving>),
    ) {
        let now = self.stores.clock.now();
        let settlement = Settlement {
            token: Token { id: held.lease.id, epoch: held.lease.epoch },
            incarnation: self.stores.journal.incarnation(),
            outcome,
            session: self.session,
            started_at: now,
            finished_at: now,
            calls,
            savings,
            served_by: Some("simulated/gpt-4o-mini".into()),
        };
        let settled = self.stores.journal.settle(settlement).await.unwrap();
        assert!(matches!(settled, Settled::Done { .. }), "{settled:?}");
        self.stores.events.publish(held.lease.id, EventBody::State { state });
        self.forget(held.lease).await;
    }

    /// Gives a claim up without a word to the journal.
    pub async fn forget(&self, lease: Lease) {
        let step = Step {
            session: self.session,
            acks: vec![Ack { lease, next: None }],
            queues: vec![],
            kinds: vec![],
            slots: 0,
        };
        self.stores.dispatcher.step(step).await.unwrap();
    }
}

/// A worker process that is registered, and nothing else.
pub async fn worker(stores: &Stores) -> SessionId {
    let worker = WorkerSession {
        id: SessionId::generate(),
        host: "host/1".into(),
        version: "1".into(),
        slots: 4,
        started_at: stores.clock.now(),
        draining: false,
    };
    stores.catalog.open_session(worker.clone()).await.unwrap();
    worker.id
}

/// A good backup, as a scheduler notes it.
pub async fn backup(stores: &Stores) -> BackupId {
    let record = Record { state: Progress::Good, ..Record::order(Scope::Full, Cause::Asked, None, None) };
    let row = BackupRow::order(BackupId::generate(), record, stores.clock.now());
    stores.backups.order_backup(BackupRow { work: Work::Nothing, ..row.clone() }).await.unwrap();
    row.id
}

/// An archive of these dead letters, as a scheduler makes it.
pub async fn archive(stores: &Stores, letters: &[JobId]) -> OperationId {
    let id = archiving(stores, letters).await;
    stores.operations.abort(id, stores.clock.now()).await.unwrap();
    id
}

/// Archives these letters and does not end: its walker may find more.
pub async fn archiving(stores: &Stores, letters: &[JobId]) -> OperationId {
    let filter = format!("queue = \"q-{}\"", JobId::generate());
    let order = Order {
        action: Action::Archive,
        goal: None,
        queue: None,
        dry_run: false,
        filter,
        rate_per_s: 500,
        max_jobs: None,
        max_cost: None,
        force: false,
        reason: None,
        asked_by: "abcd1234".into(),
    };
    let (id, owner, now) = (OperationId::generate(), Uuid::now_v7(), stores.clock.now());
    stores.operations.begin(id, order, now).await.unwrap();
    let operation = stores.operations.take(id, 0, Some(owner)).await.unwrap().unwrap();
    let rows = stores.reads.jobs(letters).await.unwrap().into_iter().flatten();
    let picks: Vec<_> = rows.map(|job| Pick { id: job.id, epoch: job.epoch, cost: None, holder: None }).collect();
    let whole = stores.archives.letters(&picks).await.unwrap();
    let object = stores.objects.as_ref().unwrap().keep(id, whole.into()).await.unwrap();
    let step = operations::Step { picks, objects: vec![object], ..operations::Step::beat(&operation, owner) };
    let stepped = stores.operations.step(step, now).await.unwrap();
    assert!(matches!(stepped, Stepped::Done { .. }), "{stepped:?}");
    id
}
