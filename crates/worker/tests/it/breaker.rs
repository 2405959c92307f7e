//! Breakers, in one worker and in a fleet over Redis: what opens them, who tries a target again, what a dead prober costs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::rig::Rig;
use crate::script::{Script, fails, says};
use async_trait::async_trait;
use queue_core::{
    breaker::{CALLS_MIN, OPEN_MS, PROBE_MS, State, redis::RedisBreakers},
    dispatcher::{
        Entry, Wait,
        redis::{RedisAddress, RedisConfig, RedisDispatcher},
    },
    error::ErrorClass as C,
    ids::JobId,
    job::Kind,
    journal::Recovered,
    ledger::Usage,
    state::Standing,
    stores::Stores,
    time::{ManualClock, Timestamp},
};
use testkit::RedisServer;
use tokio::sync::Semaphore;
use worker::{
    Config, Worker,
    context::Surroundings,
    provider::{Call, CallError, ChatAnswer, ChatRequest, EmbedAnswer, EmbedRequest, Provider, Providers},
};

const TARGET: &str = "gate:m:default";
const PAYLOAD: &str = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;

/// A provider that is down, or holds each call until the test lets it go.
struct Gate {
    down: AtomicBool,
    calls: AtomicUsize,
    inside: AtomicUsize,
    let_go: Semaphore,
}

impl Gate {
    fn down() -> Arc<Self> {
        let (calls, inside) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { down: AtomicBool::new(true), calls, inside, let_go: Semaphore::new(0) })
    }

    fn alone(self: &Arc<Self>) -> Providers {
        Providers::from([("gate".to_owned(), self.clone() as Arc<dyn Provider>)])
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn inside(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Provider for Gate {
    fn name(&self) -> &str {
        "gate"
    }

    async fn chat(&self, _: &ChatRequest, call: Call<'_>) -> Result<ChatAnswer, CallError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Err(CallError::unbilled(C::Server, "503", "it is down"));
        }
        self.inside.fetch_add(1, Ordering::SeqCst);
        tokio::select! {
            permit = self.let_go.acquire() => permit.unwrap().forget(),
            () = call.cancel.cancelled() => return Err(CallError::cancelled(None)),
        }
        let usage = Some(Usage { tokens_in: 1, tokens_out: 1, ..Usage::default() });
        Ok(ChatAnswer { text: "up".into(), finish: "stop".into(), model: "m".into(), usage, ..ChatAnswer::default() })
    }

    async fn embed(&self, _: &EmbedRequest, _: Call<'_>) -> Result<EmbedAnswer, CallError> {
        Err(CallError::unbilled(C::Config, "none", "it makes no vectors"))
    }

    async fn check(&self) -> Result<(), CallError> {
        Ok(())
    }
}

async fn submit(rig: &Rig, jobs: usize) -> Vec<JobId> {
    let mut ids = vec![];
    for _ in 0..jobs {
        ids.push(rig.submit(Kind::Llm, PAYLOAD, |job| (job.target, job.max_attempts) = (TARGET.into(), 50)).await);
    }
    ids
}

async fn state(stores: &Stores, circuit: &str) -> State {
    let circuits = stores.breakers.list().await.unwrap();
    circuits.iter().find(|view| view.circuit.as_str() == circuit).map_or(State::Closed, |view| view.state)
}

async fn active(stores: &Stores) -> u64 {
    stores.dispatcher.depths().await.unwrap().iter().map(|depth| depth.active).sum()
}

/// Lets time pass until the breaker is half open and nothing waits for a backoff.
async fn pass(clock: &ManualClock, stores: &Stores, ms: i64) {
    clock.advance_ms(ms);
    // Time is the test's: whoever sleeps until a moment has to be woken.
    stores.dispatcher.depths().await.unwrap();
}

#[tokio::test]
async fn failures_open_it_one_job_tries_it_and_all_go_on() {
    let (gate, clock) = (Gate::down(), ManualClock::at(Timestamp(1_790_000_000_000)));
    let mut rig = Rig::at(Arc::new(clock.clone()), gate.alone()).await;
    rig.work(4, Duration::from_secs(5));
    let ids = submit(&rig, 60).await;
    rig.until("it opens", async || state(&rig.stores, TARGET).await == State::Open).await;
    rig.until("nobody runs", async || active(&rig.stores).await == 0).await;
    let made = gate.calls();
    assert!(
        (CALLS_MIN as usize..CALLS_MIN as usize + 4).contains(&made),
        "{made} calls: those that ran at that moment"
    );
    let mut attempts = 0;
    for id in &ids {
        attempts += rig.row(*id).await.attempts;
    }
    assert_eq!(attempts as usize, made, "only calls that were made spent an attempt");
    let waits = rig.stores.dispatcher.explain(ids[59]).await.unwrap();
    let parked = waits.iter().find_map(|wait| match wait {
        Wait::TargetParked { target, reason, .. } => Some((target.clone(), reason.clone())),
        _ => None,
    });
    let (target, reason) = parked.unwrap();
    assert!(
        target == TARGET && reason.starts_with("breaker: ") && reason.ends_with("server (503)"),
        "{reason}: no word of the provider's"
    );

    // Its first probe fails: twice the time.
    pass(&clock, &rig.stores, OPEN_MS).await;
    rig.until("a probe", async || gate.calls() == made + 1).await;
    rig.until("nobody runs", async || active(&rig.stores).await == 0).await;
    pass(&clock, &rig.stores, 2 * OPEN_MS - 1).await;
    assert_eq!((gate.calls(), state(&rig.stores, TARGET).await), (made + 1, State::Open));

    gate.down.store(false, Ordering::SeqCst);
    pass(&clock, &rig.stores, 1).await;
    rig.until("a probe", async || gate.inside() == 1).await;
    assert_eq!(active(&rig.stores).await, 1, "one job, although four slots are free");
    let waits = rig.stores.dispatcher.explain(ids[59]).await.unwrap();
    assert!(waits.iter().any(|wait| matches!(wait, Wait::TargetTried { .. })), "{waits:?}");
    gate.let_go.add_permits(1);
    rig.until("all slots", async || gate.inside() == 5).await;
    assert_eq!(state(&rig.stores, TARGET).await, State::Closed);
    gate.let_go.add_permits(1_000);
    for id in ids {
        // Those that failed before wait for their backoff.
        pass(&clock, &rig.stores, 60_000).await;
        assert_eq!(rig.ended(id).await.standing, Standing::Succeeded);
    }
    rig.stop().await;
}

/// A slow provider, a key that is refused, a request that is wrong: none of them closes a target for others.
#[tokio::test]
async fn refusals_never_open_it() {
    for class in [C::Rate, C::Auth, C::BadRequest, C::Overflow, C::Config, C::Filtered, C::TooBigForLimit, C::Timeout] {
        let script = Script::new(move |_: &ChatRequest, _| fails(class));
        let mut rig = Rig::new(script.alone()).await;
        rig.work(8, Duration::from_secs(5));
        let mut ids = vec![];
        for _ in 0..3 * CALLS_MIN {
            ids.push(rig.submit(Kind::Llm, PAYLOAD, |job| job.max_attempts = 1).await);
        }
        for id in ids {
            rig.until("it was asked", async || rig.row(id).await.error.is_some()).await;
        }
        assert!(script.asked().len() as u32 >= 3 * CALLS_MIN, "{class}");
        assert_eq!(state(&rig.stores, "script:m:default").await, State::Closed, "{class}");
        rig.stop().await;
    }
}

/// An exhausted account is asked once in a quarter of an hour, whichever model is wanted.
#[tokio::test]
async fn an_exhausted_account_is_left_alone_with_all_its_models() {
    let clock = ManualClock::at(Timestamp(1_790_000_000_000));
    let script = Script::new(|request: &ChatRequest, _| match request.model.as_str() {
        "paid" => says("yes"),
        _ => fails(C::Quota),
    });
    let mut rig = Rig::at(Arc::new(clock.clone()), script.alone()).await;
    rig.work(1, Duration::from_secs(5));
    let submit = async |rig: &Rig, model: &str| {
        let target = format!("script:{model}:default");
        let payload = PAYLOAD.replace("\"m\"", &format!("\"{model}\""));
        rig.submit(Kind::Llm, &payload, |job| job.target = target.as_str().into()).await
    };
    let first = submit(&rig, "m").await;
    rig.until("a release", async || rig.row(first).await.releases == 1).await;
    let others = [submit(&rig, "m").await, submit(&rig, "n").await, submit(&rig, "o").await];
    for id in others.into_iter().skip(1) {
        rig.until("a release", async || rig.row(id).await.releases == 1).await;
        let row = rig.row(id).await;
        assert_eq!((row.attempts, row.error.unwrap().code.as_str()), (0, "account_exhausted"));
    }
    assert_eq!(script.asked().len(), 1, "one call for the account");
    let waits = format!("{:?}", rig.stores.dispatcher.explain(others[0]).await.unwrap());
    assert!(waits.contains("TargetParked") && waits.contains("quota: "), "{waits}");
    pass(&clock, &rig.stores, 899_000).await;
    assert_eq!(script.asked().len(), 1);
    // Jobs that were given back come a little later than the account may be asked.
    pass(&clock, &rig.stores, 200_000).await;
    rig.until("one more call", async || script.asked().len() == 2).await;
    rig.until("nobody runs", async || active(&rig.stores).await == 0).await;
    assert_eq!(script.asked().len(), 2);
    rig.stop().await;
}

/// A process of a fleet: its own connections, one journal.
struct Process {
    stores: Stores,
    around: Surroundings,
}

struct Fleet {
    rig: Rig,
    clock: ManualClock,
    config: RedisConfig,
    gate: Arc<Gate>,
    _server: Arc<RedisServer>,
}

impl Fleet {
    async fn new(prefix: &str) -> Self {
        let (gate, clock) = (Gate::down(), ManualClock::at(Timestamp(1_790_000_000_000)));
        let rig = Rig::at(Arc::new(clock.clone()), gate.alone()).await;
        let server = RedisServer::shared();
        let config = RedisConfig {
            prefix: format!("{prefix}-{}", JobId::generate()),
            clock: Some(Arc::new(clock.clone())),
            ..RedisConfig::new(RedisAddress::parse(&server.url()).unwrap())
        };
        Self { rig, clock, config, gate, _server: server }
    }

    async fn process(&self) -> Process {
        let dispatcher = Arc::new(RedisDispatcher::open(self.config.clone()).await.unwrap());
        let breakers = Arc::new(RedisBreakers::open(&self.config).unwrap());
        let stores = Stores { dispatcher, breakers, ..self.rig.stores.clone() };
        Process { around: Surroundings { stores: stores.clone(), ..self.rig.around.clone() }, stores }
    }
}

fn worker(around: Surroundings) -> Worker {
    let config = Config {
        slots: 8,
        queues: vec![],
        kinds: vec![],
        timeouts: BTreeMap::new(),
        drain: Duration::ZERO,
        host: "test".into(),
    };
    Worker::new(config, around)
}

/// A worker in a runtime of its own: ending that is what a killed process does, nothing says goodbye.
fn kill_later(around: Surroundings) -> (tokio::runtime::Runtime, queue_core::ids::SessionId) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let worker = worker(around);
    let session = worker.session();
    runtime.spawn(worker.run(tokio_util::sync::CancellationToken::new()));
    (runtime, session)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_tries_a_target_with_one_job_also_when_its_prober_dies() {
    let fleet = Fleet::new("fleet").await;
    let (a, b) = (fleet.process().await, fleet.process().await);
    let generation = fleet.rig.stores.journal.new_generation().await.unwrap();
    a.stores.dispatcher.begin(generation).await.unwrap();
    let (gate, clock) = (&fleet.gate, &fleet.clock);
    let mut ids = vec![];
    for _ in 0..40 {
        ids.push(
            fleet.rig.submit(Kind::Llm, PAYLOAD, |job| (job.target, job.max_attempts) = (TARGET.into(), 50)).await,
        );
    }
    let rows = fleet.rig.stores.reads.jobs(&ids).await.unwrap();
    a.stores.dispatcher.push(rows.iter().flatten().map(Entry::from).collect()).await.unwrap();
    let (first, first_session) = kill_later(a.around.clone());
    let (second, second_session) = kill_later(b.around.clone());
    fleet.rig.until("it opens", async || state(&b.stores, TARGET).await == State::Open).await;
    fleet.rig.until("nobody runs", async || active(&b.stores).await == 0).await;

    gate.down.store(false, Ordering::SeqCst);
    let made = gate.calls();
    // The call that opens it is the last that is counted; beside it as many as there are slots, and as many again that the other
    // process let pass before it heard.
    assert!(made <= CALLS_MIN as usize + 15, "{made} calls: those that ran in sixteen slots");
    // Every job that was given back or failed is due: many could be claimed, one is.
    pass(clock, &b.stores, 60_000).await;
    fleet.rig.until("a probe", async || gate.inside() == 1).await;
    assert_eq!((active(&b.stores).await, gate.calls()), (1, made + 1));

    // Whoever has it dies with it.
    let sessions = b.stores.dispatcher.sessions(&[]).await.unwrap().alive;
    let prober = sessions.iter().find(|session| session.leases == 1).unwrap().id;
    let (dead, survivor, survives) = if prober == first_session { (first, second, b) } else { (second, first, a) };
    assert!(prober == first_session || prober == second_session);
    dead.shutdown_background();
    let stores = &survives.stores;
    // The survivor says that it lives; the dead one does not.
    let alive = if prober == first_session { second_session } else { first_session };
    for _ in 0..2 {
        clock.advance_ms(PROBE_MS - 1_000);
        stores.dispatcher.renew(alive, &[]).await.unwrap();
    }
    let lost = stores.dispatcher.reap(10).await.unwrap();
    assert_eq!(lost.len(), 1, "{lost:?}");
    for recovered in stores.journal.recover(lost).await.unwrap() {
        let Recovered::Again(entry) = recovered else { panic!("{recovered:?}") };
        stores.dispatcher.push(vec![entry]).await.unwrap();
    }
    fleet.rig.until("another probe", async || gate.inside() == 2).await;
    assert_eq!((active(stores).await, gate.calls()), (1, made + 2), "again one only");
    gate.let_go.add_permits(1_000);
    for id in ids {
        pass(clock, stores, 1_000).await;
        assert_eq!(fleet.rig.ended(id).await.standing, Standing::Succeeded);
    }
    survivor.shutdown_background();
}
