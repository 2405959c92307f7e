//! Random operations on every journal and on a model of it: same answers, same rows, also over restarts.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

#[path = "../postgres_fixture/mod.rs"]
mod postgres_fixture;
mod reference;

use std::{collections::BTreeSet, marker::PhantomData, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use postgres_fixture::Base;
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use queue_core::{
    error::{ErrorClass, JobError},
    ids::{CallId, Epoch, Incarnation, Nonce, SessionId},
    job::{Idempotency, Kind, NewJob},
    journal::{
        Blame, Due, Edit, Journal, LiveScan, Outcome, Reads, Recovery, Settlement, Token, Within,
        conformance::{Fixture, Opened},
        sqlite::SqliteJournal,
    },
    ledger::{Billed, CallRecord, MemoBody, Nanousd, Tier, Usage, UsageSource},
    state::{Event, Standing},
    time::ManualClock,
};
use reference::{Held, Model, NOW, Step, Submit, WAIT_MS, answer_of, id_of, key_of, payer_of, suspicion_of};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Random histories of the store in a file; each has up to [`STEPS_MAX`] steps with a commit each.
const CASES: u32 = 64;
/// Those of a server: each step is compared by dozens of round trips.
const CASES_OF_A_SERVER: u32 = 4;
const STEPS_MAX: usize = 40;

/// A store that each history has for itself.
trait Fresh: Fixture + 'static {
    fn fresh() -> Self;
}

/// SQLite in a folder of its own.
struct InFolder(TempDir);

#[async_trait]
impl Fixture for InFolder {
    async fn open(&self) -> Opened {
        Opened::over(SqliteJournal::open(&self.0.path().join("journal.db"), Arc::new(self.clock())).unwrap())
    }

    fn clock(&self) -> ManualClock {
        ManualClock::at(NOW)
    }
}

impl Fresh for InFolder {
    fn fresh() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Fresh for Base {
    fn fresh() -> Self {
        Base::fresh()
    }
}

struct Subject {
    runtime: Runtime,
    store: Box<dyn Fixture>,
    opened: Option<Opened>,
}

fn new_job(n: usize, submit: &Submit) -> NewJob {
    NewJob {
        id: id_of(n),
        unique_key: submit.unique.map(|key| key.to_string()),
        concurrency_key: key_of(n),
        batch_id: Some("all".into()),
        idempotency: submit.request.map(|(key, body)| Idempotency {
            owner: "acme".into(),
            key: key.to_string(),
            fingerprint: [body; 32],
            item: 0,
        }),
        ..NewJob::new("acme".into(), Kind::Probe, "probe".into(), Bytes::from(n.to_string()), NOW)
    }
}

fn call_id(n: usize, answer: u8) -> CallId {
    CallId::of(id_of(n), "call", answer.into())
}

fn call(n: usize, payment: u8, cost: Option<i64>) -> CallRecord {
    CallRecord {
        call_id: call_id(n, answer_of(payment)),
        job_id: id_of(n),
        tenant: "acme".into(),
        queue: "default".into(),
        kind: Kind::Probe,
        operation: None,
        key_id: None,
        epoch: Epoch(payer_of(payment)),
        step: "call".into(),
        sequence: answer_of(payment).into(),
        provider: "p".into(),
        model: "m".into(),
        status: "ok".into(),
        billed: Billed::Yes,
        usage: Usage { tokens_in: 1, ..Usage::default() },
        tier: Tier::Standard,
        usage_source: UsageSource::Provider,
        cost: cost.map(Nanousd),
        price_version: String::new(),
        duration_ms: 1,
        provider_request_id: None,
        at: NOW,
        credential: "default".into(),
        memo: Some(MemoBody { request_hash: [0; 32], body: "answer".into() }),
    }
}

fn outcome(event: Event) -> Outcome {
    let error = JobError::new(ErrorClass::Transient, "x", "it failed");
    let due = Due::At(NOW.plus_ms(WAIT_MS));
    match event {
        Event::Succeed => Outcome::Succeed { result: "{}".into() },
        Event::Retry => Outcome::Retry { due, error },
        Event::Release => Outcome::Release { due, error: None, target: None },
        Event::Die => Outcome::Dead { error },
        other => panic!("{other:?} is no outcome"),
    }
}

impl Subject {
    fn opened(&self) -> &Opened {
        self.opened.as_ref().unwrap()
    }

    fn journal(&self) -> &dyn Journal {
        &*self.opened().journal
    }

    fn reads(&self) -> &dyn Reads {
        &*self.opened().reads
    }

    /// The claim of the job at `off` from the epoch that it has now.
    async fn token(&self, n: usize, off: i64) -> Token {
        let row = self.reads().jobs(&[id_of(n)]).await.unwrap().pop().flatten();
        let present = row.map_or(0, |job| job.epoch.0);
        Token { id: id_of(n), epoch: Epoch(present + off) }
    }

    async fn perform(&self, model: &Model, step: &Step) -> String {
        let journal = self.journal();
        match step {
            Step::Accept(submits) => {
                let first = model.jobs.len() - submits.len();
                let jobs = submits.iter().enumerate().map(|(at, submit)| new_job(first + at, submit)).collect();
                format!("{:?}", journal.accept(jobs).await.unwrap())
            }
            Step::AcceptAgain(n) => {
                let held = model.jobs[*n].as_ref().unwrap();
                format!("{:?}", journal.accept(vec![new_job(*n, &held.submit)]).await.unwrap()[0])
            }
            Step::Settle { job, off, event, calls, earlier_life } => {
                let life = journal.incarnation();
                let settlement = Settlement {
                    token: self.token(*job, *off).await,
                    incarnation: if *earlier_life { Incarnation(life.0 - 1) } else { life },
                    outcome: outcome(*event),
                    session: SessionId::generate(),
                    started_at: NOW,
                    finished_at: NOW,
                    calls: calls.iter().map(|(number, cost)| call(*job, *number, *cost)).collect(),
                    savings: vec![],
                    served_by: None,
                };
                format!("{:?}", journal.settle(settlement).await.unwrap())
            }
            Step::Record { job, call: number, cost } => {
                journal.record(call(*job, *number, *cost)).await.unwrap();
                String::new()
            }
            Step::Recover { job, off, blame } => {
                let recovery = Recovery {
                    token: self.token(*job, *off).await,
                    nonce: Nonce(1),
                    blame: *blame,
                    session: SessionId::generate(),
                    started_at: (*blame != Blame::Nobody).then_some(NOW),
                };
                format!("{:?}", journal.recover(vec![recovery]).await.unwrap()[0])
            }
            Step::Reconcile { job, off } => {
                format!("{:?}", journal.reconcile(vec![self.token(*job, *off).await]).await.unwrap())
            }
            Step::Cancel { job } => format!("{:?}", journal.cancel(id_of(*job), None, None, NOW).await.unwrap()),
            Step::Edit { job, seen_off, priority } => {
                let seen = match seen_off {
                    Some(off) => Some(self.token(*job, *off).await.epoch),
                    None => None,
                };
                let edit = Edit { priority: Some(*priority), ..Edit::default() };
                format!("{:?}", journal.edit(id_of(*job), seen, edit, NOW).await.unwrap())
            }
            Step::Redrive { job } => format!("{:?}", journal.redrive(id_of(*job), NOW).await.unwrap()),
            Step::Reopen => String::new(),
        }
    }

    async fn compare(&self, model: &Model) {
        let ids: Vec<_> = (0..model.jobs.len()).map(id_of).collect();
        let rows = self.reads().jobs(&ids).await.unwrap();
        for (n, (held, row)) in model.jobs.iter().zip(&rows).enumerate() {
            assert_eq!(held.is_some(), row.is_some(), "job {n}");
            if let Some(held) = held {
                self.compare_job(n, held).await;
            }
        }
        self.compare_numbers(model).await;
    }

    async fn compare_job(&self, n: usize, held: &Held) {
        let row = self.reads().jobs(&[id_of(n)]).await.unwrap().pop().flatten().unwrap();
        let counters = (row.attempts, row.releases, row.recoveries, row.redrives);
        assert_eq!(counters, (held.attempts, held.releases, held.recoveries, held.redrives), "job {n}");
        assert_eq!((row.standing, row.epoch, row.run_at), (held.standing, Epoch(held.epoch), held.run_at), "job {n}");
        assert_eq!((row.priority, row.finished_at.is_some()), (held.priority, held.standing.is_final()), "job {n}");
        let cost = held.costs.values().try_fold(0, |sum, cost| cost.map(|cost| sum + cost));
        assert_eq!((row.cost, row.usage.tokens_in), (cost.map(Nanousd), held.costs.len() as u64), "job {n}");
        let memos: BTreeSet<_> =
            self.journal().memos(id_of(n)).await.unwrap().iter().map(|memo| memo.call_id).collect();
        assert_eq!(memos, held.memos.iter().map(|answer| call_id(n, *answer)).collect(), "memos of job {n}");
        assert_eq!(self.reads().attempts(id_of(n)).await.unwrap().len(), held.attempt_rows, "attempts of job {n}");
        let has_result = self.reads().result(id_of(n)).await.unwrap().is_some();
        assert_eq!(has_result, held.standing == Standing::Succeeded, "result of job {n}");
        let claims = [-1, 0, 1].map(|off| Token { id: id_of(n), epoch: Epoch(held.epoch + off) });
        let loaded = self.journal().load(&claims, NOW).await.unwrap();
        let may_run = held.standing == Standing::Live && held.run_at <= NOW;
        assert_eq!(loaded.iter().map(Option::is_some).collect::<Vec<_>>(), [false, may_run, false], "load of job {n}");
    }

    async fn compare_numbers(&self, model: &Model) {
        let held: Vec<_> = model.jobs.iter().enumerate().filter_map(|(n, held)| Some((n, held.as_ref()?))).collect();
        let mut live: Vec<_> = held
            .iter()
            .filter(|(_, held)| held.standing == Standing::Live)
            .map(|(n, held)| (held.run_at, id_of(*n), held.epoch, suspicion_of(held.recoveries), key_of(*n)))
            .collect();
        live.sort_unstable();
        let scan = LiveScan { after: None, due_by: NOW.plus_ms(WAIT_MS), accepted_by: NOW, limit: 1_000 };
        let page = self.journal().live(scan).await.unwrap();
        let page: Vec<_> = page
            .iter()
            .map(|entry| (entry.run_at, entry.id, entry.epoch.0, entry.suspicion, entry.key.clone()))
            .collect();
        assert_eq!(page, live);
        let totals = self.reads().totals().await.unwrap();
        assert_eq!(totals.get("default").copied().unwrap_or_default(), model.totals);
        let counted = self.reads().live_counts().await.unwrap();
        assert_eq!(counted.get("default").copied().unwrap_or_default(), live.len() as u64);
        let backlog = self.opened().catalog.backlog(&"acme".into()).await.unwrap();
        assert_eq!((backlog.max, backlog.live), (None, live.len() as u64));
        let batch = self.reads().batch("all", &Within::default()).await.unwrap();
        for standing in Standing::ALL {
            let expected = held.iter().filter(|(_, held)| held.standing == standing).count() as u64;
            assert_eq!(batch.get(&standing).copied().unwrap_or_default(), expected, "{standing:?}");
        }
    }
}

struct Over<F>(PhantomData<F>);

impl<F: Fresh> StateMachineTest for Over<F> {
    type SystemUnderTest = Subject;
    type Reference = Model;

    fn init_test(_: &Model) -> Subject {
        let store = Box::new(F::fresh());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let opened = Some(runtime.block_on(store.open()));
        Subject { runtime, store, opened }
    }

    fn apply(mut subject: Subject, model: &Model, step: <Model as ReferenceStateMachine>::Transition) -> Subject {
        if matches!(step, Step::Reopen) {
            subject.opened = None;
            subject.opened = Some(subject.runtime.block_on(subject.store.open()));
        }
        let answer = subject.runtime.block_on(subject.perform(model, &step));
        assert_eq!(answer, model.answer, "{step:?}");
        subject.runtime.block_on(subject.compare(model));
        subject
    }
}

prop_state_machine! {
    #![proptest_config(Config { cases: CASES, failure_persistence: None, ..Config::default() })]

    #[test]
    fn sqlite_does_what_the_model_does(sequential 1..STEPS_MAX => Over<InFolder>);
}

prop_state_machine! {
    #![proptest_config(Config {
        cases: CASES_OF_A_SERVER, max_shrink_iters: 200, failure_persistence: None, ..Config::default()
    })]

    #[test]
    fn postgres_does_what_the_model_does(sequential 1..STEPS_MAX => Over<Base>);
}
