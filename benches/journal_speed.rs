//! How fast a journal is on this machine: `cargo bench -p queue-core --bench journal_speed -- [jobs]
//! [folder or postgres:// URL]`. A folder gets an SQLite file; the database of a URL must hold nothing else. Every
//! number is of durable work: each accept and each settle was fsynced before it was answered.

#![allow(clippy::print_stdout)] // its output is what it is for

use std::{
    error::Error,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use queue_core::{
    ids::{Epoch, JobId, SessionId},
    job::{Kind, NewJob},
    journal::{
        Journal, LiveScan, Outcome, Settlement, Token,
        postgres::{self, PostgresConfig, PostgresJournal},
        sqlite::SqliteJournal,
    },
    time::{Clock, SystemClock, Timestamp},
};

type Failure = Box<dyn Error + Send + Sync>;

/// What cargo adds to the arguments of every bench.
const CARGO_SAYS: &str = "--bench";
/// Jobs of one bulk submit.
const BULK_JOBS: usize = 1_000;
/// Jobs of one load.
const LOAD_JOBS: usize = 512;
/// Callers that settle at the same time.
const SETTLERS: [usize; 4] = [1, 64, 256, 1_000];
/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 1_024;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != CARGO_SAYS);
    let jobs: usize = arguments.next().map_or(Ok(200_000), |text| text.parse())?;
    let place = arguments.next();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match place {
        Some(url) if url.starts_with("postgres") => runtime.block_on(measure_postgres(jobs, url)),
        place => {
            let folder = tempfile::tempdir_in(place.map_or_else(std::env::temp_dir, PathBuf::from))?;
            runtime.block_on(measure_sqlite(jobs, folder.path().join("journal.db")))
        }
    }
}

async fn measure_sqlite(jobs: usize, path: PathBuf) -> Result<(), Failure> {
    measure(jobs, Arc::new(SqliteJournal::open(&path, Arc::new(SystemClock))?)).await?;
    println!("{:<40} {:>12} bytes", "file", std::fs::metadata(&path)?.len());
    println!("{:<40} {:>12} bytes", "write-ahead log", std::fs::metadata(path.with_extension("db-wal"))?.len());
    Ok(())
}

async fn measure_postgres(jobs: usize, url: String) -> Result<(), Failure> {
    let config = PostgresConfig::new(url);
    postgres::migrate(&mut postgres::connect(&config).await?).await?;
    measure(jobs, Arc::new(PostgresJournal::open(&config, Arc::new(SystemClock)).await?)).await
}

async fn measure(jobs: usize, journal: Arc<dyn Journal>) -> Result<(), Failure> {
    let clock = SystemClock;
    for bulks_at_once in [1, 4] {
        let (bulks, ids) = make_bulks(jobs, bulks_at_once, clock.now());
        let watch = Watch::start();
        accept(&journal, bulks).await?;
        watch.report(&format!("accept, bulks of {BULK_JOBS}, {bulks_at_once} at once"), ids.len());

        let watch = Watch::start();
        let mut loaded = 0;
        for claims in ids.chunks(LOAD_JOBS) {
            let claims: Vec<_> = claims.iter().map(|id| Token { id: *id, epoch: Epoch(0) }).collect();
            loaded += journal.load(&claims, clock.now()).await?.iter().flatten().count();
        }
        watch.report(&format!("load, {LOAD_JOBS} at once"), loaded);

        let watch = Watch::start();
        let live = rebuild(&*journal, clock.now()).await?;
        watch.report("live rows paged for a rebuild", live);

        let mut rest = ids.as_slice();
        for (n, callers) in SETTLERS.into_iter().enumerate() {
            let share = if callers == 1 { 2_000.min(rest.len()) } else { rest.len() / (SETTLERS.len() - n) };
            let (now, later) = rest.split_at(share);
            rest = later;
            let watch = Watch::start();
            settle(&journal, now, callers, clock.now()).await?;
            watch.report(&format!("settle, {callers} callers"), now.len());
        }
    }
    Ok(())
}

/// The wall clock and this process' processor time, which says something also on a machine that others use.
struct Watch {
    began: Instant,
    cpu_seconds: f64,
}

impl Watch {
    fn start() -> Self {
        Self { began: Instant::now(), cpu_seconds: cpu_seconds() }
    }

    fn report(&self, what: &str, count: usize) {
        let (seconds, cpu) = (self.began.elapsed().as_secs_f64(), cpu_seconds() - self.cpu_seconds);
        let (rate, cost) = (count as f64 / seconds, cpu * 1e6 / count as f64);
        println!("{what:<40} {rate:>9.0} a second, {cost:>6.1} µs of processor each ({count} in {seconds:.2} s)");
    }
}

/// Processor time of this process so far; 0 where the system does not say it the way Linux does.
fn cpu_seconds() -> f64 {
    /// Ticks a second of `/proc`, a constant of Linux on every platform that Rust runs on.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / TICKS
}

fn new_job(now: Timestamp, payload: &Bytes) -> NewJob {
    NewJob::new("acme".into(), Kind::Probe, "probe".into(), payload.clone(), now)
}

/// The bulks of each caller, and the ids of all their jobs.
fn make_bulks(jobs: usize, callers: usize, now: Timestamp) -> (Vec<Vec<Vec<NewJob>>>, Vec<JobId>) {
    let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let mut bulks = vec![Vec::new(); callers];
    let mut ids = Vec::with_capacity(jobs);
    for n in 0..jobs / BULK_JOBS {
        let bulk: Vec<_> = (0..BULK_JOBS).map(|_| new_job(now, &payload)).collect();
        ids.extend(bulk.iter().map(|job| job.id));
        bulks[n % callers].push(bulk);
    }
    (bulks, ids)
}

async fn accept(journal: &Arc<dyn Journal>, bulks: Vec<Vec<Vec<NewJob>>>) -> Result<(), Failure> {
    let submit = |bulks: Vec<Vec<NewJob>>| {
        let journal = journal.clone();
        tokio::spawn(async move {
            for bulk in bulks {
                journal.accept(bulk).await?;
            }
            Ok::<_, Failure>(())
        })
    };
    let callers: Vec<_> = bulks.into_iter().map(submit).collect();
    for caller in callers {
        caller.await??;
    }
    Ok(())
}

async fn rebuild(journal: &dyn Journal, now: Timestamp) -> Result<usize, Failure> {
    let mut scan = LiveScan { after: None, due_by: now, accepted_by: now, limit: 10_000 };
    let mut found = 0;
    loop {
        let page = journal.live(scan).await?;
        let Some(last) = page.last() else { return Ok(found) };
        scan.after = Some((last.run_at, last.id));
        found += page.len();
    }
}

async fn settle(journal: &Arc<dyn Journal>, ids: &[JobId], callers: usize, now: Timestamp) -> Result<(), Failure> {
    let (ids, next) = (Arc::new(ids.to_vec()), Arc::new(AtomicUsize::new(0)));
    let session = SessionId::generate();
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let (journal, ids, next) = (journal.clone(), ids.clone(), next.clone());
            tokio::spawn(async move {
                while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let settlement = Settlement {
                        token: Token { id: *id, epoch: Epoch(0) },
                        incarnation: journal.incarnation(),
                        outcome: Outcome::Succeed { result: "{\"ok\":true}".into() },
                        session,
                        started_at: now,
                        finished_at: now,
                        calls: Vec::new(),
                        savings: Vec::new(),
                        served_by: None,
                    };
                    journal.settle(settlement).await?;
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    Ok(())
}
