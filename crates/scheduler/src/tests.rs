//! The roles on real stores, with a clock that is moved by hand: SQLite in a temporary folder, the dispatcher in memory.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod absent;
mod archives;
mod backups;
mod budgets;
mod erase;
mod lives;
mod lost;
mod missing;
mod operations;
mod orphans;
mod retain;
mod rollup;
mod schedules;
mod start;
mod watch;
mod webhooks;

use std::{path::Path, sync::Arc};

use queue_core::{
    archive::Objects,
    breaker::memory::MemoryBreakers,
    budget::memory::MemoryCounters,
    dispatcher::{CLAIM_MAX_JOBS, Claim, Entry, Place, Step, memory::MemoryDispatcher},
    events::memory::MemoryEvents,
    ids::{Epoch, JobId, SessionId},
    job::{Job, Kind, NewJob},
    journal::{Accepted, Outcome, Settled, Settlement, Token, sqlite::SqliteJournal},
    stores::{Beside, Stores},
    time::{Clock, ManualClock, Timestamp},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{Config, prepare, rebuild};

/// Some day in 2026.
const NOW: Timestamp = Timestamp(1_790_000_000_000);

struct Scene {
    stores: Stores,
    clock: ManualClock,
    folder: TempDir,
}

impl Scene {
    /// Stores whose dispatcher has begun its life, and is filled.
    async fn new() -> Self {
        let scene = Self::closed();
        scene.rebuild().await;
        scene
    }

    /// Stores whose dispatcher has not begun.
    fn closed() -> Self {
        let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(NOW));
        let journal =
            Arc::new(SqliteJournal::open(&folder.path().join("journal.db"), Arc::new(clock.clone())).unwrap());
        let stores = Stores::over(
            journal,
            Beside {
                dispatcher: dispatcher(&clock, folder.path()),
                breakers: Arc::new(MemoryBreakers::new(Arc::new(clock.clone()))),
                counters: Arc::new(MemoryCounters::new(Arc::new(clock.clone()))),
                events: Arc::new(MemoryEvents::new()),
                objects: Some(Objects::folder(&folder.path().join("objects")).unwrap()),
                clock: Arc::new(clock.clone()),
            },
        );
        Self { stores, clock, folder }
    }

    /// The process died and is there again: memory is gone, the journal and the lease file are not.
    async fn restart(&mut self) {
        self.stores.dispatcher = dispatcher(&self.clock, self.folder.path());
        self.rebuild().await;
    }

    /// Joins or begins the dispatcher's life and fills it.
    async fn rebuild(&self) {
        let prepared = prepare(&self.stores, &Config::default()).await.unwrap();
        rebuild::run(self.stores.clone(), prepared, CancellationToken::new()).await;
    }

    /// Commits jobs that nobody pushes.
    async fn accept(&self, count: usize, change: impl Fn(&mut NewJob)) -> Vec<JobId> {
        let jobs: Vec<_> = (0..count).map(|_| self.job(&change)).collect();
        let ids = jobs.iter().map(|job| job.id).collect();
        for accepted in self.stores.journal.accept(jobs).await.unwrap() {
            assert_eq!(accepted, Accepted::New);
        }
        ids
    }

    /// Commits and pushes a job.
    async fn submit(&self) -> JobId {
        let id = self.accept(1, |_| {}).await[0];
        self.push(&[id]).await;
        id
    }

    /// Pushes jobs as they stand in the journal.
    async fn push(&self, ids: &[JobId]) {
        let rows = self.stores.reads.jobs(ids).await.unwrap();
        self.stores.dispatcher.push(rows.into_iter().flatten().map(|row| Entry::from(&row)).collect()).await.unwrap();
    }

    fn job(&self, change: impl Fn(&mut NewJob)) -> NewJob {
        let mut job = job_at(self.clock.now());
        change(&mut job);
        job
    }

    async fn row(&self, id: JobId) -> Job {
        self.stores.reads.jobs(&[id]).await.unwrap().remove(0).unwrap()
    }

    async fn place(&self, id: JobId) -> Place {
        self.stores.dispatcher.locate(&[id]).await.unwrap().remove(0)
    }

    /// Where all of them are.
    async fn places(&self, ids: &[JobId]) -> Vec<Place> {
        self.stores.dispatcher.locate(ids).await.unwrap()
    }

    /// How many of them the dispatcher does not know.
    async fn unknown(&self, ids: &[JobId]) -> usize {
        self.places(ids).await.iter().filter(|place| **place == Place::Unknown).count()
    }

    /// A worker's session.
    async fn worker(&self) -> SessionId {
        let session = SessionId::generate();
        self.stores.dispatcher.join(session, vec![]).await.unwrap();
        session
    }

    /// Claims what can be claimed, in as many steps as it takes.
    async fn claim(&self, session: SessionId) -> Vec<Claim> {
        let mut claims = vec![];
        loop {
            let step = Step { session, acks: vec![], queues: vec![], kinds: vec![], slots: CLAIM_MAX_JOBS };
            let more = self.stores.dispatcher.step(step).await.unwrap().claims;
            if more.is_empty() {
                return claims;
            }
            claims.extend(more);
        }
    }

    /// Claims everything and begins it.
    async fn begin(&self, session: SessionId) -> Vec<Claim> {
        let claims = self.claim(session).await;
        let leases: Vec<_> = claims.iter().map(|claim| claim.lease).collect();
        self.stores.dispatcher.start(session, &leases).await.unwrap();
        claims
    }

    /// Ends a job in the journal, and tells nobody.
    async fn settle(&self, id: JobId, epoch: Epoch) {
        let settlement = Settlement {
            token: Token { id, epoch },
            incarnation: self.stores.journal.incarnation(),
            outcome: Outcome::Succeed { result: "{}".into() },
            session: SessionId::generate(),
            started_at: self.clock.now(),
            finished_at: self.clock.now(),
            calls: vec![],
            savings: vec![],
            served_by: None,
        };
        assert!(matches!(self.stores.journal.settle(settlement).await.unwrap(), Settled::Done { .. }));
    }
}

/// A job with nothing special about it.
fn job_at(now: Timestamp) -> NewJob {
    NewJob::new("default".into(), Kind::Llm, "script:small:none".into(), "{}".into(), now)
}

fn dispatcher(clock: &ManualClock, folder: &Path) -> Arc<MemoryDispatcher> {
    Arc::new(MemoryDispatcher::open(Arc::new(clock.clone()), Some(folder.join("leases"))).unwrap())
}

fn waiting(epoch: i64) -> Place {
    Place::Waiting { epoch: Epoch(epoch) }
}

/// Everything that a row says, to be compared.
fn told(job: &Job) -> String {
    format!("{job:?}")
}
