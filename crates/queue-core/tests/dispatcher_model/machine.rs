//! The operations, and what is compared after each of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use proptest::prelude::*;
use queue_core::{
    dispatcher::{
        Ack, Dispatcher, Entry, HORIZON_MS, LEASE_MS, Lease, Place, SESSION_MS, Setting, Signal, Step, Suspicion, Wait,
        conformance::Fixture,
    },
    ids::{Epoch, Generation, JobId, Name, SessionId},
    job::Kind,
    journal::{QueueSettings, TargetSettings, TenantSettings, Versioned},
    time::Timestamp,
};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::model::{Job, Model, Pause, Worker};

/// Few of each, so that they meet.
const JOBS: u8 = 24;
const SESSIONS: u8 = 3;

#[derive(Clone, Debug)]
pub(crate) struct Made {
    job: u8,
    epoch: i64,
    queue: u8,
    tenant: u8,
    target: u8,
    kind: Kind,
    priority: u8,
    in_ms: i64,
    suspicion: Suspicion,
    key: Option<u8>,
}

/// Leases are named by their number among those that are held (and some that were), whatever their count.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Push(Vec<Made>),
    Step { session: u8, acks: Vec<(u8, Option<Made>)>, queues: Vec<u8>, kinds: Vec<Kind>, slots: usize },
    Start { session: u8, leases: Vec<u8> },
    Renew { session: u8, leases: Vec<u8> },
    Withdraw(u8),
    Nudge(u8),
    Reap(usize),
    Pass(i64),
    Join(u8),
    Leave(u8),
    Park { target: u8, for_ms: i64 },
    ParkTenant { tenant: u8, for_ms: i64 },
    Limit { target: u8, limit: Option<u32> },
    Queue { queue: u8, older: bool, paused: bool, for_ms: Option<i64>, limit: Option<u32>, key_limit: Option<u32> },
    Tenant { tenant: u8, older: bool, weight: u32, paused: bool, for_ms: Option<i64> },
    Hold { target: u8, older: bool, paused: bool, for_ms: Option<i64> },
    Begin { newer: bool },
}

/// Mostly one, so that lanes of one kind and of several both come up.
fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![3 => Just(Kind::Llm), 1 => Just(Kind::Embedding), 1 => Just(Kind::Probe)]
}

fn made() -> impl Strategy<Value = Made> {
    let when = prop_oneof![
        4 => -10_000..=0_i64,
        2 => 1..2_000_i64,
        1 => 2_000..HORIZON_MS,
        1 => HORIZON_MS..HORIZON_MS * 2,
        1 => -2_000_000..0_i64,
    ];
    let lane = (0..2_u8, 0..3_u8, 0..3_u8);
    let key = prop::option::weighted(0.4, 0..2_u8);
    let suspicion =
        prop_oneof![6 => Just(Suspicion::None), 2 => Just(Suspicion::Suspect), 2 => Just(Suspicion::Isolated)];
    (0..JOBS, 0..4_i64, lane, kind(), 0..=9_u8, when, suspicion, key).prop_map(
        |(job, epoch, (queue, tenant, target), kind, priority, in_ms, suspicion, key)| Made {
            job,
            epoch,
            queue,
            tenant,
            target,
            kind,
            priority,
            in_ms,
            suspicion,
            key,
        },
    )
}

fn step() -> impl Strategy<Value = Operation> {
    let ack = (any::<u8>(), prop::option::weighted(0.4, made()));
    let queues = prop::collection::vec(0..2_u8, 0..2);
    let kinds = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(kind(), 1..3)];
    (0..SESSIONS, prop::collection::vec(ack, 0..4), queues, kinds, 0..5_usize)
        .prop_map(|(session, acks, queues, kinds, slots)| Operation::Step { session, acks, queues, kinds, slots })
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation as O;
    let leases = || (0..SESSIONS, prop::collection::vec(any::<u8>(), 0..5));
    let limit = || prop::option::of(0..3_u32);
    let pass = prop_oneof![0..500_i64, 500..5_000_i64, SESSION_MS - 1..SESSION_MS + 2, Just(LEASE_MS)];
    prop_oneof![
        12 => prop::collection::vec(made(), 1..6).prop_map(O::Push),
        16 => step(),
        4 => leases().prop_map(|(session, leases)| O::Start { session, leases }),
        4 => leases().prop_map(|(session, leases)| O::Renew { session, leases }),
        2 => (0..JOBS).prop_map(O::Withdraw),
        1 => (0..JOBS).prop_map(O::Nudge),
        4 => (0..6_usize).prop_map(O::Reap),
        7 => pass.prop_map(O::Pass),
        1 => (0..SESSIONS).prop_map(O::Join),
        1 => (0..SESSIONS).prop_map(O::Leave),
        2 => (0..3_u8, -100..3_000_i64).prop_map(|(target, for_ms)| O::Park { target, for_ms }),
        2 => (0..3_u8, -1_000..3_000_i64).prop_map(|(tenant, for_ms)| O::ParkTenant { tenant, for_ms }),
        2 => (0..3_u8, limit()).prop_map(|(target, limit)| O::Limit { target, limit }),
        2 => (0..2_u8, prop::bool::weighted(0.2), any::<bool>(), prop::option::of(-100..3_000_i64), limit(), limit())
            .prop_map(|(queue, older, paused, for_ms, limit, key_limit)| {
                O::Queue { queue, older, paused, for_ms, limit, key_limit }
            }),
        2 => (0..3_u8, prop::bool::weighted(0.2), 0..4_u32, any::<bool>(), prop::option::of(-100..3_000_i64))
            .prop_map(|(tenant, older, weight, paused, for_ms)| O::Tenant { tenant, older, weight, paused, for_ms }),
        1 => (0..3_u8, prop::bool::weighted(0.2), any::<bool>(), prop::option::of(-100..3_000_i64))
            .prop_map(|(target, older, paused, for_ms)| O::Hold { target, older, paused, for_ms }),
        1 => prop::bool::weighted(0.3).prop_map(|newer| O::Begin { newer }),
    ]
}

pub(crate) fn operations() -> BoxedStrategy<Operation> {
    operation().boxed()
}

pub(crate) struct Pair {
    runtime: tokio::runtime::Runtime,
    fixture: Box<dyn Fixture>,
    dispatcher: Arc<dyn Dispatcher>,
    generation: i64,
    version: i64,
    model: Model,
    signals: BTreeMap<SessionId, mpsc::Receiver<Signal>>,
    /// Claims that ended: to be named again by those who do not know.
    former: Vec<Lease>,
}

fn session(n: u8) -> SessionId {
    SessionId(Uuid::from_bytes([n + 1; 16]))
}

fn job(n: u8) -> JobId {
    JobId(Uuid::from_bytes([n; 16]))
}

fn name(what: &str, n: u8) -> Name {
    Name::new(format!("{what}-{n}"))
}

impl Pair {
    /// A begun store beside an empty model, with two workers.
    pub(crate) fn begin_with<F: Fixture + 'static>(fixture: impl Future<Output = F>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let fixture = Box::new(runtime.block_on(fixture));
        let (dispatcher, now) = (fixture.dispatcher(), fixture.clock().now());
        let model = Model { now, ..Model::default() };
        let (generation, version, signals) = (1, 1, BTreeMap::new());
        let mut pair = Self { runtime, fixture, dispatcher, generation, version, model, signals, former: vec![] };
        pair.runtime.block_on(pair.dispatcher.begin(Generation(1))).unwrap();
        for session in 0..SESSIONS - 1 {
            pair.join(session);
        }
        pair
    }

    /// Does it to both and compares them.
    pub(crate) fn apply(&mut self, operation: Operation) {
        self.run(operation);
        self.compare();
    }

    fn entry(&self, made: &Made) -> Entry {
        Entry {
            id: job(made.job),
            epoch: Epoch(made.epoch),
            queue: name("queue", made.queue),
            tenant: name("tenant", made.tenant),
            target: name("target", made.target),
            kind: made.kind,
            priority: made.priority,
            run_at: self.model.now.plus_ms(made.in_ms),
            suspicion: made.suspicion,
            key: made.key.map(|n| name("key", n)),
        }
    }

    fn lease(&self, n: u8) -> Option<Lease> {
        let held = self.model.jobs.iter().filter_map(|job| job.lease());
        let mut all: Vec<_> = held.chain(self.former.iter().copied()).collect();
        all.sort_by_key(|lease| (lease.id, lease.epoch));
        all.get(usize::from(n) % all.len().max(1)).copied()
    }

    fn leases(&self, numbers: &[u8]) -> Vec<Lease> {
        let mut leases: Vec<_> = numbers.iter().filter_map(|n| self.lease(*n)).collect();
        leases.sort_by_key(|lease| lease.nonce.0);
        leases.dedup();
        leases
    }

    fn join(&mut self, n: u8) {
        let id = session(n);
        let signals = self.runtime.block_on(self.dispatcher.join(id, vec![])).unwrap();
        self.signals.insert(id, signals);
        let known = self.model.workers.remove(&id).map(|worker| (worker.queues, worker.kinds));
        let (queues, kinds) = known.unwrap_or_default();
        let until = self.model.now.plus_ms(SESSION_MS);
        let worker = Worker { until, dead: false, queues, kinds, full: false, heard: false, told: None };
        self.model.workers.insert(id, worker);
    }

    fn run(&mut self, operation: Operation) {
        let former: Vec<_> = self.model.jobs.iter().filter_map(|job| job.lease()).collect();
        match operation {
            Operation::Push(made) => {
                let entries: Vec<_> = made.iter().map(|made| self.entry(made)).collect();
                self.runtime.block_on(self.dispatcher.push(entries.clone())).unwrap();
                for entry in entries {
                    self.model.push(entry);
                    // What its key took out of a lane may come back with the next entry.
                    self.model.forget_overtaken();
                }
            }
            Operation::Step { session: n, acks, queues, kinds, slots } => {
                let queues = queues.iter().map(|n| name("queue", *n)).collect();
                self.step(session(n), &acks, queues, kinds, slots);
            }
            Operation::Start { session: n, leases } => self.start(session(n), &leases),
            Operation::Renew { session: n, leases } => self.renew(session(n), &leases),
            Operation::Withdraw(n) => {
                let place = self.runtime.block_on(self.dispatcher.withdraw(job(n))).unwrap();
                assert_eq!(place, self.model.place(job(n)));
                self.model.jobs.retain(|held| held.entry.id != job(n) || held.held.is_some());
            }
            Operation::Nudge(n) => self.nudge(job(n)),
            Operation::Reap(limit) => self.reap(limit),
            Operation::Pass(ms) => {
                self.runtime.block_on(self.fixture.advance_ms(ms));
                self.model.now = self.fixture.clock().now();
            }
            Operation::Join(n) => self.join(n),
            Operation::Leave(n) => {
                self.runtime.block_on(self.dispatcher.leave(session(n))).unwrap();
                self.model.workers.remove(&session(n));
                self.signals.remove(&session(n));
                self.model.lose(|held| held.session == session(n));
            }
            Operation::Begin { newer } => self.begin(newer),
            setting => self.set(setting),
        }
        self.former.extend(former);
        let held: Vec<_> = self.model.jobs.iter().filter_map(|job| job.lease()).collect();
        self.former.retain(|lease| !held.contains(lease));
        self.former.sort_by_key(|lease| lease.nonce.0);
        self.former.dedup();
        let old = self.former.len().saturating_sub(4);
        self.former.drain(..old);
    }

    fn step(&mut self, id: SessionId, acks: &[(u8, Option<Made>)], queues: Vec<Name>, kinds: Vec<Kind>, slots: usize) {
        let mut given_up = vec![];
        for (n, next) in acks {
            let Some(lease) = self.lease(*n) else { continue };
            // The next life of a job is a life of the same job, at its epoch (unspent) or a later one.
            let next = next.as_ref().map(|made| {
                let epoch = Epoch(lease.epoch.0 + made.epoch.min(1));
                Entry { id: lease.id, epoch, ..self.entry(made) }
            });
            given_up.push(Ack { lease, next });
        }
        let (acks, named) = (given_up.clone(), (queues.clone(), kinds.clone()));
        let step = Step { session: id, acks, queues, kinds, slots };
        let reply = self.runtime.block_on(self.dispatcher.step(step)).unwrap();

        self.model.hear(id, slots > 0);
        for Ack { lease, next } in given_up {
            if self.model.job(lease.id).and_then(|job| job.lease()) == Some(lease) {
                self.model.forget(lease.id);
                next.into_iter().for_each(|next| self.model.push(next));
                self.model.forget_overtaken();
            }
        }
        assert!(reply.claims.len() <= slots, "more claims than slots");
        assert_eq!(reply.next_at, self.model.next_at());
        let Some(worker) = self.model.workers.get_mut(&id) else {
            return assert!(reply.claims.is_empty(), "nobody claims without a session");
        };
        if slots > 0 {
            (worker.queues, worker.kinds) = named;
        }
        (worker.heard, worker.told) = (false, reply.next_at);
        worker.full = slots > 0 && reply.claims.len() == slots;
        for claim in &reply.claims {
            self.model.claim(id, claim);
        }
        if slots > 0 && reply.claims.len() < slots {
            let left = self.model.claimable(id).next().map(|job| &job.entry);
            assert_eq!(left, None, "it was left although there was a slot");
        }
    }

    fn start(&mut self, id: SessionId, leases: &[u8]) {
        let leases = self.leases(leases);
        self.runtime.block_on(self.dispatcher.start(id, &leases)).unwrap();
        let now = self.model.now;
        for lease in leases {
            let job = self.model.job_mut(lease.id).filter(|job| job.lease() == Some(lease));
            let held = job.and_then(|job| job.held.as_mut());
            if let Some(held) = held.filter(|held| held.session == id && held.lost.is_none()) {
                let seen = self.runtime.block_on(self.dispatcher.locate(&[lease.id])).unwrap().remove(0);
                let Place::Leased { started_at, .. } = seen else { panic!("{seen:?} has no start") };
                // Told again, the first or the last word stands.
                assert!([held.started_at.or(Some(now)), Some(now)].contains(&started_at), "{seen:?}");
                held.started_at = started_at;
            }
        }
    }

    fn renew(&mut self, id: SessionId, leases: &[u8]) {
        let leases = self.leases(leases);
        let gone = self.runtime.block_on(self.dispatcher.renew(id, &leases)).unwrap();
        self.model.hear(id, true);
        let until = self.model.now.plus_ms(LEASE_MS);
        let mut expected = vec![];
        for lease in leases {
            let job = self.model.job_mut(lease.id).filter(|job| job.lease() == Some(lease));
            let held = job.and_then(|job| job.held.as_mut());
            match held.filter(|held| held.session == id && held.lost.is_none()) {
                Some(held) => held.until = until,
                None => expected.push(lease),
            }
        }
        assert_eq!(gone, expected);
    }

    fn nudge(&mut self, id: JobId) {
        self.runtime.block_on(self.dispatcher.nudge(id)).unwrap();
        self.runtime.block_on(self.fixture.signals_arrive());
        let holder = self.model.job(id).and_then(|job| job.held.as_ref()).map(|held| held.session);
        for (session, signals) in &mut self.signals {
            let mut told = false;
            while let Ok(signal) = signals.try_recv() {
                told |= signal == Signal::Cancel(id);
                if let (Signal::Work, Some(worker)) = (signal, self.model.workers.get_mut(session)) {
                    worker.heard = true;
                }
            }
            assert_eq!(told, holder == Some(*session), "the holder hears of the cancel and nobody else");
        }
    }

    fn reap(&mut self, limit: usize) {
        let reaped = self.runtime.block_on(self.dispatcher.reap(limit)).unwrap();
        self.model.reap();
        let lost = self.model.jobs.iter().filter(|job| job.held.as_ref().is_some_and(|held| held.lost.is_some()));
        assert_eq!(reaped.len(), lost.count().min(limit));
        for one in reaped {
            let job = self.model.job(one.token.id).unwrap();
            let held = job.held.as_ref().unwrap();
            assert_eq!((one.token.epoch, one.nonce, one.session), (job.entry.epoch, held.nonce, held.session));
            assert_eq!((Some(one.blame), one.started_at), (held.lost, held.started_at));
        }
    }

    fn begin(&mut self, newer: bool) {
        self.generation += i64::from(newer);
        self.runtime.block_on(self.dispatcher.begin(Generation(self.generation))).unwrap();
        if newer {
            let Model { now, workers, nonces, .. } = std::mem::take(&mut self.model);
            self.model = Model { now, workers, nonces, ..Model::default() };
            // Every worker comes back, as the contract asks; here with nothing.
            for n in (0..SESSIONS).filter(|n| self.model.workers.contains_key(&session(*n))).collect::<Vec<_>>() {
                self.join(n);
            }
        }
    }

    fn set(&mut self, setting: Operation) {
        let now = self.model.now;
        let setting = match setting {
            Operation::Park { target, for_ms } => {
                let (target, until) = (name("target", target), now.plus_ms(for_ms));
                self.model.park(&target, until);
                Setting::ParkTarget { target, until, reason: "because".into() }
            }
            Operation::ParkTenant { tenant, for_ms } => {
                let (tenant, until) = (name("tenant", tenant), now.plus_ms(for_ms));
                self.model.moneyless.insert(tenant.clone(), until);
                Setting::ParkTenant { tenant, until, reason: "because".into() }
            }
            Operation::Limit { target, limit } => {
                let target = name("target", target);
                self.model.limits.remove(&target);
                self.model.limits.extend(limit.map(|limit| (target.clone(), limit)));
                Setting::TargetConcurrency(target, limit)
            }
            Operation::Queue { queue, older, paused, for_ms, limit, key_limit } => {
                let version = self.next_version(older);
                let (queue, paused_until) = (name("queue", queue), for_ms.map(|ms| now.plus_ms(ms)));
                if self.model.queues.get(&queue).is_none_or(|held| held.version <= version) {
                    let pause = Pause { paused, until: paused_until, limit, key_limit, version };
                    self.model.queues.insert(queue.clone(), pause);
                }
                let limits =
                    QueueSettings { concurrency: limit, key_concurrency: key_limit, ..QueueSettings::default() };
                let value = QueueSettings { paused, paused_until, ..limits };
                Setting::Queue(queue, Versioned { version, value })
            }
            Operation::Tenant { tenant, older, weight, paused, for_ms } => {
                let (version, paused_until) = (self.next_version(older), for_ms.map(|ms| now.plus_ms(ms)));
                let tenant = name("tenant", tenant);
                if keep(&mut self.model.tenants, &tenant, paused, paused_until, version) {
                    self.model.weights.insert(tenant.clone(), weight.max(1));
                    // What was due to a lane under its old weight is not due under the new one.
                    self.model.forget_all_overtaken();
                }
                let value = TenantSettings { weight, paused, paused_until, ..TenantSettings::default() };
                Setting::Tenant(tenant, Versioned { version, value })
            }
            Operation::Hold { target, older, paused, for_ms } => {
                let (version, paused_until) = (self.next_version(older), for_ms.map(|ms| now.plus_ms(ms)));
                let target = name("target", target);
                keep(&mut self.model.held, &target, paused, paused_until, version);
                let value = TargetSettings { paused, paused_until, ..TargetSettings::default() };
                Setting::Target(target, Versioned { version, value })
            }
            other => unreachable!("{other:?} is no setting"),
        };
        self.runtime.block_on(self.dispatcher.apply(setting)).unwrap();
    }

    fn next_version(&mut self, older: bool) -> i64 {
        self.version += i64::from(!older);
        if older { self.version - 1 } else { self.version }
    }

    fn compare(&mut self) {
        self.model.forget_overtaken();
        let ids: Vec<_> = (0..JOBS).map(job).collect();
        let places = self.runtime.block_on(self.dispatcher.locate(&ids)).unwrap();
        let expected: Vec<_> = ids.iter().map(|id| self.model.place(*id)).collect();
        assert_eq!(places, expected, "an entry is lost, or at two places");
        self.compare_wake_ups();
        self.compare_depths();
        self.compare_explanations();
        let mut sessions = self.runtime.block_on(self.dispatcher.sessions(&[])).unwrap().alive;
        sessions.retain(|view| self.model.workers.get(&view.id).is_some_and(|worker| !worker.dead));
        let alive = self.model.workers.values().filter(|worker| !worker.dead && worker.until > self.model.now);
        assert_eq!(sessions.len(), alive.count());
        for view in sessions {
            let held = self.model.jobs.iter().filter_map(|job| job.held.as_ref());
            assert_eq!(view.leases, held.filter(|held| held.session == view.id).count() as u64);
        }
    }

    /// A worker that does nothing of its own accord must have heard of what it could claim.
    fn compare_wake_ups(&mut self) {
        self.runtime.block_on(self.fixture.signals_arrive());
        for (session, signals) in &mut self.signals {
            while let Ok(signal) = signals.try_recv() {
                if let (Signal::Work, Some(worker)) = (signal, self.model.workers.get_mut(session)) {
                    worker.heard = true;
                }
            }
            let worker = &self.model.workers[session];
            let knows = worker.heard || worker.full || worker.told.is_some_and(|told| told <= self.model.now);
            let waits = self.model.claimable(*session).next().map(|job| &job.entry);
            assert!(knows || waits.is_none(), "a wake-up is lost: {waits:?} for {session}");
            let next_at = self.model.next_at();
            let sleeps_long = next_at.is_some_and(|next| worker.told.is_none_or(|told| told > next));
            assert!(knows || !sleeps_long, "it sleeps until {:?}, but {next_at:?} comes before", worker.told);
        }
    }

    fn compare_depths(&mut self) {
        let depths = self.runtime.block_on(self.dispatcher.depths()).unwrap();
        let now = self.model.now;
        for depth in &depths {
            let queue = depth.queue.clone().unwrap();
            let of_queue = || self.model.jobs.iter().filter(|job| job.entry.queue == queue);
            let active = of_queue().filter(|job| job.held.is_some()).count() as u64;
            let scheduled = of_queue().filter(|job| job.held.is_none() && job.entry.run_at > now).count() as u64;
            let due = || of_queue().filter(|job| job.held.is_none() && job.entry.run_at <= now);
            let stopped = |job: &Job| {
                let Entry { tenant, target, .. } = &job.entry;
                self.model.is_paused(&queue)
                    || self.model.is_parked(target)
                    || self.model.is_held(target)
                    || self.model.is_asleep(tenant)
            };
            let open = || due().filter(|job| !stopped(job) && self.model.has_place(job));
            let waiting = open().count() as u64;
            let parked = due().count() as u64 - waiting;
            let seen = (depth.active, depth.scheduled, depth.waiting, depth.parked);
            assert_eq!(seen, (active, scheduled, waiting, parked), "{queue}");
            assert_eq!(depth.oldest_ready_at, open().map(|job| job.entry.run_at).min());
        }
        let named = |job: &Job| depths.iter().any(|depth| depth.queue.as_ref() == Some(&job.entry.queue));
        assert!(self.model.jobs.iter().all(named), "a queue with jobs is not told of");
    }

    fn compare_explanations(&mut self) {
        for n in 0..JOBS {
            let waits = self.runtime.block_on(self.dispatcher.explain(job(n))).unwrap();
            let Some(waiting) = self.model.job(job(n)).filter(|job| job.held.is_none()) else {
                assert!(waits.is_empty(), "{waits:?}");
                continue;
            };
            let delayed = waits.iter().any(|wait| matches!(wait, Wait::Delayed { .. }));
            assert_eq!(delayed, waiting.entry.run_at > self.model.now);
            let paused = waits.iter().any(|wait| matches!(wait, Wait::QueuePaused { .. }));
            assert_eq!(paused, self.model.is_paused(&waiting.entry.queue));
            let parked = waits.iter().any(|wait| matches!(wait, Wait::TargetParked { .. }));
            assert_eq!(parked, self.model.is_parked(&waiting.entry.target));
            let held = waits.iter().any(|wait| matches!(wait, Wait::TargetPaused { .. }));
            assert_eq!(held, self.model.is_held(&waiting.entry.target));
            let asleep = waits.iter().any(|wait| matches!(wait, Wait::TenantPaused { .. }));
            assert_eq!(asleep, self.model.is_tenant_paused(&waiting.entry.tenant));
            let moneyless = waits.iter().any(|wait| matches!(wait, Wait::TenantParked { .. }));
            assert_eq!(moneyless, self.model.is_moneyless(&waiting.entry.tenant));
            let blocked = waits.iter().find_map(|wait| match wait {
                Wait::ConcurrencyKey { ahead, .. } => Some(*ahead),
                _ => None,
            });
            let expected = (!delayed && !self.model.has_place(waiting)).then(|| self.model.ahead_in_key(waiting));
            assert_eq!(blocked, expected, "{:?}", waiting.entry);
        }
    }
}

/// Keeps a pause in the model, unless a newer one is there.
fn keep(pauses: &mut HashMap<Name, Pause>, name: &Name, paused: bool, until: Option<Timestamp>, version: i64) -> bool {
    let is_news = pauses.get(name).is_none_or(|held| held.version <= version);
    if is_news {
        pauses.insert(name.clone(), Pause { paused, until, version, ..Pause::default() });
    }
    is_news
}
