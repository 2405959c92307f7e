//! A drill: the newest backup is restored into a database that is made for it, compared, and the restored system drains jobs in this
//! process, with a new life of the dispatcher, without webhooks and without a provider. What was restored never runs: the worker
//! serves a queue of its own.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use queue_core::{
    backup::{self, BackupError, BackupId, Restored, Restoring, Setup, Source, StoreKind, Verified, restore},
    breaker::memory::MemoryBreakers,
    budget::{Budget, Known, memory::MemoryCounters},
    cache::{Scope, memory::MemoryCache},
    credentials::Credentials,
    dispatcher::{Entry, memory::MemoryDispatcher},
    egress::{Allowed, Egress},
    events::memory::MemoryEvents,
    ids::{JobId, Name},
    job::{Kind, NewJob},
    journal::{
        postgres::{OpenError, PostgresConfig, PostgresJournal, ScratchDatabase, connect, migrate},
        sqlite::SqliteJournal,
    },
    ledger::PriceBook,
    limiter::{InForce, memory::MemoryLimiter},
    route::Routes,
    state::Standing,
    stores::{Beside, Stores, Truth},
    time::Clock,
};
use scheduler::{Rehearsal, Rehearsed};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use worker::{
    Worker,
    admission::Gate,
    caches::Caches,
    coalesce::Coalescer,
    context::Surroundings,
    provider::Providers,
    purse::{Purse, UnknownPrice},
};

/// Jobs that a restored system has to drain.
const PROBES: usize = 100;
/// How long it may take for them, behind the fill of the dispatcher.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// Time between two looks at them.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long it is watched that a restored system begins nothing before it is confirmed.
const WATCHED: Duration = Duration::from_millis(500);
/// The queue that the worker of a drill serves, and no other.
const QUEUE: &str = "restore-drill";
/// Names of its folders begin so.
const FOLDER: &str = ".drill-";
/// A cache that nothing is kept in.
const CACHE_BYTES: usize = 1024;

/// What drills work with.
#[derive(Clone)]
pub(crate) struct Drill {
    /// Where backups are, and what opens them.
    pub(crate) setup: Setup,
    /// On whose server a database is made for it; `None`: on the journal's own.
    pub(crate) scratch: Option<String>,
}

#[async_trait]
impl Rehearsal for Drill {
    async fn rehearse(&self, id: BackupId) -> Result<Rehearsed, BackupError> {
        // Worker and clockwork hold every seam.
        Box::pin(self.run(id)).await
    }

    async fn sweep(&self) -> Result<(), BackupError> {
        sweep(&self.setup.scratch);
        let server = match (&self.scratch, &self.setup.source) {
            (Some(url), _) => PostgresConfig::new(url.clone()),
            (None, Source::Postgres(own)) => (**own).clone(),
            (None, Source::Sqlite(_)) => return Ok(()),
        };
        match ScratchDatabase::sweep(&server).await.map_err(failed)? {
            0 => {}
            dropped => tracing::info!(dropped, "databases of drills that were killed are dropped"),
        }
        Ok(())
    }
}

fn failed(error: impl std::fmt::Display) -> BackupError {
    BackupError::Failed(format!("the drill: {error}"))
}

impl Drill {
    /// Restores, compares, drains, and notes beside the backup how it went.
    pub(crate) async fn run(&self, id: BackupId) -> Result<Rehearsed, BackupError> {
        let Some(identities) = self.setup.identities.clone() else {
            return Err(BackupError::Refused("a drill opens a backup: `[backup] identity_file` is missing".to_owned()));
        };
        let known = backup::find(&self.setup.place, id).await?;
        let Some(facts) = &known.manifest.database else {
            return Err(BackupError::Refused(format!("backup {id} has no journal to try")));
        };
        let (began, began_at) = (Instant::now(), self.setup.clock.now());
        let scratch = Scratch::make(facts.store, self).await?;
        let asked = Restoring {
            id,
            into: scratch.source(),
            objects_into: None,
            erasures: vec![],
            // Whoever comes back is gone with the database of the drill.
            without_newer_logs: true,
        };
        let tried = async {
            let restored = restore(&self.setup.place, &identities, asked, &*self.setup.clock).await?;
            drain(&scratch.source(), &restored, self.setup.clock.clone()).await
        };
        let tried = tried.await;
        let dropped = scratch.drop().await;
        // Why the drill failed says more than that its database is left: the next one drops it.
        tried?;
        dropped?;
        let rehearsed = Rehearsed {
            recovery_ms: i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX),
            lost_ms: began_at.since_ms(known.manifest.snapshot_at),
        };
        let now = self.setup.clock.now();
        let verified = Verified {
            at: now,
            opened: true,
            restored_at: Some(now),
            recovery_ms: Some(rehearsed.recovery_ms),
            lost_ms: Some(rehearsed.lost_ms),
        };
        backup::mark(&self.setup.place, id, verified).await?;
        Ok(rehearsed)
    }
}

/// A database that is made for a drill.
enum Scratch {
    /// A folder with a file.
    Folder(PathBuf),
    /// A database of a server.
    Database(ScratchDatabase),
}

impl Scratch {
    async fn make(store: StoreKind, drill: &Drill) -> Result<Self, BackupError> {
        match (store, &drill.scratch, &drill.setup.source) {
            (StoreKind::Sqlite, _, _) => {
                let folder = drill.setup.scratch.join(format!("{FOLDER}{}", Uuid::now_v7()));
                sweep(&drill.setup.scratch);
                fs::create_dir(&folder).map_err(failed)?;
                Ok(Self::Folder(folder))
            }
            (StoreKind::Postgres, Some(url), _) => Self::database(&PostgresConfig::new(url.clone())).await,
            (StoreKind::Postgres, None, Source::Postgres(own)) => Self::database(own).await,
            (StoreKind::Postgres, None, Source::Sqlite(_)) => Err(BackupError::Refused(
                "the backup is of Postgres: name a server for its drill as `[backup] scratch`".to_owned(),
            )),
        }
    }

    async fn database(server: &PostgresConfig) -> Result<Self, BackupError> {
        ScratchDatabase::make(server).await.map(Self::Database).map_err(failed)
    }

    fn source(&self) -> Source {
        match self {
            Self::Folder(folder) => Source::Sqlite(folder.join("journal.db")),
            Self::Database(database) => Source::Postgres(Box::new(database.config())),
        }
    }

    async fn drop(self) -> Result<(), BackupError> {
        match self {
            Self::Folder(folder) => fs::remove_dir_all(folder).map_err(failed),
            Self::Database(database) => database.drop().await.map_err(failed),
        }
    }
}

/// Deletes folders of drills that were killed.
fn sweep(within: &std::path::Path) {
    for folder in fs::read_dir(within).into_iter().flatten().flatten() {
        let age = folder.metadata().and_then(|facts| facts.modified()).ok().and_then(|at| at.elapsed().ok());
        let is_old = age.is_some_and(|age| age > Duration::from_secs(24 * 3_600));
        if is_old && folder.file_name().to_string_lossy().starts_with(FOLDER) {
            let _ = fs::remove_dir_all(folder.path());
        }
    }
}

/// Opens what was restored, and lets it drain.
async fn drain(source: &Source, restored: &Restored, clock: Arc<dyn Clock>) -> Result<(), BackupError> {
    match source {
        Source::Sqlite(path) => {
            let journal = SqliteJournal::open(path, clock.clone()).map_err(failed)?;
            drain_from(stores(Arc::new(journal), clock)?, restored).await
        }
        Source::Postgres(config) => {
            // A backup of before a migration is brought up to this program, as a restored system would be.
            let migrated = async { migrate(&mut connect(config).await?).await };
            migrated.await.map_err(|error: OpenError| failed(error))?;
            let journal = PostgresJournal::open(config, clock.clone()).await.map_err(failed)?;
            drain_from(stores(Arc::new(journal), clock)?, restored).await
        }
    }
}

/// Stores of this process around a journal.
fn stores(journal: Arc<impl Truth>, clock: Arc<dyn Clock>) -> Result<Stores, BackupError> {
    Ok(Stores::over(
        journal,
        Beside {
            dispatcher: Arc::new(MemoryDispatcher::open(clock.clone(), None).map_err(failed)?),
            breakers: Arc::new(MemoryBreakers::new(clock.clone())),
            counters: Arc::new(MemoryCounters::new(clock.clone())),
            events: Arc::new(MemoryEvents::with_clock(clock.clone())),
            objects: None,
            clock,
        },
    ))
}

async fn drain_from(stores: Stores, restored: &Restored) -> Result<(), BackupError> {
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    let config = scheduler::Config { alone: true, ..scheduler::Config::default() };
    let prepared = scheduler::prepare(&stores, &config).await.map_err(failed)?;
    let before = restored.manifest.database.as_ref().map_or(0, |facts| facts.generation);
    let life = stores.catalog.filling().await.map_err(failed)?.generation.0;
    if life <= before {
        return Err(failed(format!(
            "the restored system has begun life {life} of the dispatcher, and the backup knew {before}"
        )));
    }
    let clockwork = tokio::spawn(Box::pin(scheduler::run(stores.clone(), config, prepared, end.clone())));
    let worker = tokio::spawn(worker(&stores).run(end.clone()));
    let drained = probes(&stores).await;
    end.cancel();
    worker.await.map_err(failed)?.map_err(failed)?;
    clockwork.await.map_err(failed)?;
    drained
}

/// A worker that serves the queue of drills and calls nobody.
fn worker(stores: &Stores) -> Worker {
    let clock = stores.clock.clone();
    let config = worker::Config {
        slots: PROBES,
        queues: vec![QUEUE.into()],
        kinds: vec![Kind::Probe],
        timeouts: Default::default(),
        drain: Duration::from_secs(1),
        host: "restore drill".to_owned(),
    };
    let prices = Arc::new(PriceBook::shipped());
    let known = Arc::new(Known::new(stores.budgets.clone(), Budget::default()));
    let cache = Arc::new(MemoryCache::new(clock.clone(), CACHE_BYTES));
    let around = Surroundings {
        stores: stores.clone(),
        providers: Arc::new(Providers::default()),
        routes: Arc::new(Routes { routes: vec![], default_model: None, default_embedding_model: None }),
        prices: prices.clone(),
        gate: Arc::new(Gate::new(stores, Arc::new(MemoryLimiter::new(clock)), Arc::new(InForce::default()))),
        purse: Arc::new(Purse::new(stores.clone(), known, prices, UnknownPrice::default())),
        caches: Arc::new(Caches::new(cache, Scope::Tenant, None)),
        coalescer: Arc::new(Coalescer::new(Default::default(), Default::default())),
        credentials: Arc::new(Credentials::of(stores.vault.clone())),
        egress: Egress::new(Allowed::default()),
    };
    Worker::new(config, around)
}

/// Submits jobs to a restored system: it begins none of them before it is confirmed, and then drains all.
async fn probes(stores: &Stores) -> Result<(), BackupError> {
    let jobs: Vec<NewJob> = (0..PROBES).map(|_| probe(stores)).collect();
    let (ids, entries): (Vec<JobId>, Vec<Entry>) = jobs.iter().map(|job| (job.id, Entry::from(job))).unzip();
    for accepted in stores.journal.accept(jobs).await.map_err(failed)? {
        if accepted != queue_core::journal::Accepted::New {
            return Err(failed(format!("a job was not accepted: {accepted:?}")));
        }
    }
    stores.dispatcher.push(entries).await.map_err(failed)?;
    if !stores.orders.awaits_confirmation().await.map_err(failed)?
        || stores.orders.maintenance().await.map_err(failed)?.is_none()
    {
        return Err(failed("the restored system is not paused"));
    }
    tokio::time::sleep(WATCHED).await;
    if ended(stores, &ids).await? > 0 {
        return Err(failed("the restored system has begun a job before anybody confirmed it"));
    }
    stores.orders.set_maintenance(None).await.map_err(failed)?;
    let began = Instant::now();
    loop {
        let ended = ended(stores, &ids).await?;
        if ended == ids.len() {
            return Ok(());
        }
        if began.elapsed() > DRAIN_MAX {
            return Err(failed(format!(
                "of {PROBES} jobs the restored system has drained {ended} within {DRAIN_MAX:?}"
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How many of these have succeeded.
async fn ended(stores: &Stores, ids: &[JobId]) -> Result<usize, BackupError> {
    let jobs = stores.reads.jobs(ids).await.map_err(failed)?;
    Ok(jobs.iter().flatten().filter(|job| job.standing == Standing::Succeeded).count())
}

fn probe(stores: &Stores) -> NewJob {
    let now = stores.clock.now();
    NewJob {
        queue: Name::from(QUEUE),
        priority: 9,
        ..NewJob::new(Name::from("default"), Kind::Probe, Name::from("probe"), "{}".into(), now)
    }
}
