//! The journal in a page: what any store must answer and hold, kept in plain maps.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;
use queue_core::{
    dispatcher::{Entry, Suspicion},
    ids::{Epoch, JobId, Name},
    journal::{Accepted, Blame, Cancelled, Changed, QueueTotals, Recovered, Settled},
    state::{Event, Standing, transition},
    time::Timestamp,
};

/// When everything takes place.
pub(crate) const NOW: Timestamp = Timestamp(1_790_000_000_000);
/// How long a retry or a release waits: later than the loads of this test.
pub(crate) const WAIT_MS: i64 = 1_000;

/// A job to submit: with a unique key, and with an idempotency key and body.
#[derive(Clone, Debug)]
pub(crate) struct Submit {
    pub(crate) unique: Option<u8>,
    pub(crate) request: Option<(u8, u8)>,
}

/// Something that is done to the journal. Jobs are named by the order of their submit, epochs by their distance from
/// the present one, payments of a job by a number: see [`answer_of`] and [`payer_of`].
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Accept(Vec<Submit>),
    AcceptAgain(usize),
    Settle { job: usize, off: i64, event: Event, calls: Vec<(u8, Option<i64>)>, earlier_life: bool },
    Record { job: usize, call: u8, cost: Option<i64> },
    Recover { job: usize, off: i64, blame: Blame },
    Reconcile { job: usize, off: i64 },
    Cancel { job: usize },
    Edit { job: usize, seen_off: Option<i64>, priority: u8 },
    Redrive { job: usize },
    Reopen,
}

#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) standing: Standing,
    pub(crate) epoch: i64,
    pub(crate) attempts: u32,
    pub(crate) releases: u32,
    pub(crate) recoveries: u32,
    pub(crate) redrives: u32,
    pub(crate) run_at: Timestamp,
    pub(crate) priority: u8,
    pub(crate) attempt_rows: usize,
    pub(crate) costs: BTreeMap<u8, Option<i64>>,
    pub(crate) memos: BTreeSet<u8>,
    pub(crate) submit: Submit,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// By order of submit; `None` for one that was not accepted.
    pub(crate) jobs: Vec<Option<Held>>,
    pub(crate) totals: QueueTotals,
    /// What the last step was answered, as it prints.
    pub(crate) answer: String,
    unique: BTreeMap<u8, usize>,
    requests: BTreeMap<u8, (u8, usize)>,
}

/// Which call a payment was for: two attempts may pay for the same one.
pub(crate) fn answer_of(payment: u8) -> u8 {
    payment % 2
}

/// The epoch of the attempt that made a payment.
pub(crate) fn payer_of(payment: u8) -> i64 {
    i64::from(payment / 2)
}

/// The id of the job that was submitted as number `n`: ids sort by it.
pub(crate) fn id_of(n: usize) -> JobId {
    JobId(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n as u128))
}

/// Every other job has a concurrency key, whatever becomes of it.
pub(crate) fn key_of(n: usize) -> Option<Name> {
    (n % 2 == 1).then(|| Name::new(format!("key {n}")))
}

/// Of a live job that was blamed so often.
pub(crate) fn suspicion_of(recoveries: u32) -> Suspicion {
    match recoveries {
        0 | 1 => Suspicion::None,
        2 => Suspicion::Suspect,
        _ => Suspicion::Isolated,
    }
}

impl Held {
    fn entry(&self, n: usize) -> Entry {
        Entry {
            id: id_of(n),
            epoch: Epoch(self.epoch),
            queue: "default".into(),
            tenant: "acme".into(),
            target: "probe".into(),
            kind: queue_core::job::Kind::Probe,
            priority: self.priority,
            run_at: self.run_at,
            suspicion: suspicion_of(self.recoveries),
            key: key_of(n),
        }
    }

    fn spend(&mut self, call: u8, cost: Option<i64>) {
        self.costs.entry(call).or_insert(cost);
    }
}

impl Model {
    fn accept(&mut self, submit: &Submit) -> Accepted {
        let n = self.jobs.len();
        self.jobs.push(None);
        if let Some((key, body)) = submit.request
            && let Some((first_body, first)) = self.requests.get(&key)
        {
            return if *first_body == body { Accepted::Replayed(id_of(*first)) } else { Accepted::KeyReused };
        }
        if let Some(holder) = submit.unique.and_then(|key| self.unique.get(&key)) {
            return Accepted::Duplicate(id_of(*holder));
        }
        if let Some((key, body)) = submit.request {
            self.requests.insert(key, (body, n));
        }
        if let Some(key) = submit.unique {
            self.unique.insert(key, n);
        }
        self.totals.accepted += 1;
        self.jobs[n] = Some(Held {
            standing: Standing::Live,
            epoch: 0,
            attempts: 0,
            releases: 0,
            recoveries: 0,
            redrives: 0,
            run_at: NOW,
            priority: 5,
            attempt_rows: 0,
            costs: BTreeMap::new(),
            memos: BTreeSet::new(),
            submit: submit.clone(),
        });
        Accepted::New
    }

    fn held(&mut self, n: usize) -> Option<&mut Held> {
        self.jobs.get_mut(n)?.as_mut()
    }

    fn live_at(&mut self, n: usize, off: i64) -> Option<&mut Held> {
        self.held(n).filter(|held| held.standing == Standing::Live && off == 0)
    }

    fn end(&mut self, n: usize, standing: Standing) {
        match standing {
            Standing::Succeeded => self.totals.succeeded += 1,
            Standing::Dead => {
                self.totals.dead += 1;
                self.totals.died += 1;
            }
            Standing::Cancelled => self.totals.cancelled += 1,
            Standing::Live => unreachable!("not an end"),
        }
        self.unique.retain(|_, holder| *holder != n);
        if let Some(held) = self.held(n) {
            held.standing = standing;
        }
    }

    fn settle(&mut self, n: usize, off: i64, event: Event, calls: &[(u8, Option<i64>)]) -> Settled {
        if let Some(held) = self.held(n) {
            calls.iter().for_each(|(call, cost)| held.spend(*call, *cost));
        }
        let Some(held) = self.live_at(n, off) else {
            if let Some(held) = self.held(n) {
                held.memos.extend(calls.iter().map(|(payment, _)| answer_of(*payment)));
            }
            return Settled::Fenced;
        };
        let standing = transition(Standing::Live, event).unwrap();
        (held.attempts, held.releases) = match event {
            Event::Release => (held.attempts, held.releases + 1),
            _ => (held.attempts + 1, 0),
        };
        held.recoveries = 0;
        held.attempt_rows += 1;
        if event != Event::Succeed {
            held.memos.extend(calls.iter().map(|(payment, _)| answer_of(*payment)));
        }
        if standing == Standing::Live {
            held.epoch += 1;
            held.run_at = NOW.plus_ms(WAIT_MS);
        }
        let (epoch, run_at) = (Epoch(held.epoch), held.run_at);
        if standing.is_final() {
            self.end(n, standing);
        }
        Settled::Done { standing, epoch, run_at }
    }

    fn recover(&mut self, n: usize, off: i64, blame: Blame) -> Recovered {
        let Some(held) = self.live_at(n, off) else { return Recovered::Moved };
        held.epoch += 1;
        if blame != Blame::Nobody {
            (held.recoveries, held.attempt_rows) = (held.recoveries + 1, held.attempt_rows + 1);
        }
        if blame == Blame::Alone && held.recoveries >= 3 {
            self.end(n, Standing::Dead);
            return Recovered::Poisoned;
        }
        Recovered::Again(held.entry(n))
    }

    fn cancel(&mut self, n: usize) -> Cancelled {
        let Some(held) = self.held(n) else { return Cancelled::Missing };
        if held.standing.is_final() {
            return Cancelled::Final(held.standing);
        }
        held.epoch += 1;
        let before = Epoch(held.epoch - 1);
        self.end(n, Standing::Cancelled);
        Cancelled::Done(before)
    }

    fn edit(&mut self, n: usize, seen_off: Option<i64>, priority: u8) -> Changed {
        let Some(held) = self.held(n) else { return Changed::Missing };
        if held.standing.is_final() {
            return Changed::Refused(held.standing);
        }
        if seen_off.is_some_and(|off| off != 0) {
            return Changed::Stale(Epoch(held.epoch));
        }
        (held.epoch, held.priority) = (held.epoch + 1, priority);
        Changed::Done(held.entry(n))
    }

    fn redrive(&mut self, n: usize) -> Changed {
        let Some(held) = self.held(n) else { return Changed::Missing };
        if held.standing != Standing::Dead {
            return Changed::Refused(held.standing);
        }
        (held.standing, held.epoch, held.redrives) = (Standing::Live, held.epoch + 1, held.redrives + 1);
        (held.attempts, held.releases, held.recoveries, held.run_at) = (0, 0, 0, NOW);
        let (entry, unique) = (held.entry(n), held.submit.unique);
        if let Some(key) = unique {
            self.unique.entry(key).or_insert(n);
        }
        self.totals.dead -= 1;
        Changed::Done(entry)
    }

    fn reconcile(&mut self, n: usize, off: i64) -> Vec<Entry> {
        let Some(held) = self.live_at(n, off) else { return Vec::new() };
        held.epoch += 1;
        vec![held.entry(n)]
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Step> {
        let submit = (prop::option::weighted(0.3, 0..3u8), prop::option::weighted(0.3, (0..3u8, 0..2u8)))
            .prop_map(|(unique, request)| Submit { unique, request });
        let accept = prop::collection::vec(submit, 1..4).prop_map(Step::Accept);
        if state.jobs.is_empty() {
            return accept.boxed();
        }
        let job = || 0..state.jobs.len();
        // Mostly the present epoch: the interesting steps are those that happen.
        let off = || prop_oneof![6 => Just(0i64), 1 => Just(-1), 1 => Just(1)];
        let cost = || prop::option::weighted(0.8, 0..1_000i64);
        let event = prop::sample::select(vec![Event::Succeed, Event::Retry, Event::Die, Event::Release]);
        let calls = prop::collection::vec((0..4u8, cost()), 0..3);
        let blame = prop::sample::select(vec![Blame::Nobody, Blame::Shared, Blame::Shared, Blame::Alone, Blame::Alone]);
        prop_oneof![
            3 => accept,
            1 => job().prop_map(Step::AcceptAgain),
            8 => (job(), off(), event, calls, prop::bool::weighted(0.05)).prop_map(
                |(job, off, event, calls, earlier_life)| Step::Settle { job, off, event, calls, earlier_life }
            ),
            2 => (job(), 0..4u8, cost()).prop_map(|(job, call, cost)| Step::Record { job, call, cost }),
            6 => (job(), off(), blame).prop_map(|(job, off, blame)| Step::Recover { job, off, blame }),
            2 => (job(), off()).prop_map(|(job, off)| Step::Reconcile { job, off }),
            1 => job().prop_map(|job| Step::Cancel { job }),
            2 => (job(), prop::option::of(off()), 0..10u8)
                .prop_map(|(job, seen_off, priority)| Step::Edit { job, seen_off, priority }),
            3 => job().prop_map(|job| Step::Redrive { job }),
            1 => Just(Step::Reopen),
        ]
        .boxed()
    }

    fn apply(mut state: Self, step: &Step) -> Self {
        state.answer = match step {
            Step::Accept(submits) => {
                let answers: Vec<_> = submits.iter().map(|submit| state.accept(submit)).collect();
                format!("{answers:?}")
            }
            Step::AcceptAgain(_) => format!("{:?}", Accepted::New),
            Step::Settle { job, off, event, calls, earlier_life } => {
                let off = if *earlier_life { i64::MAX } else { *off };
                format!("{:?}", state.settle(*job, off, *event, calls))
            }
            Step::Record { job, call, cost } => {
                if let Some(held) = state.held(*job) {
                    held.spend(*call, *cost);
                    held.memos.insert(answer_of(*call));
                }
                String::new()
            }
            Step::Recover { job, off, blame } => format!("{:?}", state.recover(*job, *off, *blame)),
            Step::Reconcile { job, off } => format!("{:?}", state.reconcile(*job, *off)),
            Step::Cancel { job } => format!("{:?}", state.cancel(*job)),
            Step::Edit { job, seen_off, priority } => format!("{:?}", state.edit(*job, *seen_off, *priority)),
            Step::Redrive { job } => format!("{:?}", state.redrive(*job)),
            Step::Reopen => String::new(),
        };
        state
    }

    fn preconditions(state: &Self, step: &Step) -> bool {
        match step {
            Step::Accept(_) | Step::Reopen => true,
            Step::AcceptAgain(job) => state.jobs.get(*job).is_some_and(Option::is_some),
            // Money is kept for jobs that were never accepted too, and the model has no place for it.
            Step::Settle { job, .. } | Step::Record { job, .. } => state.jobs.get(*job).is_some_and(Option::is_some),
            Step::Recover { job, .. }
            | Step::Reconcile { job, .. }
            | Step::Cancel { job }
            | Step::Edit { job, .. }
            | Step::Redrive { job } => *job < state.jobs.len(),
        }
    }
}
