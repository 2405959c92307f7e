//! How fast a flushed Redis is full again on this machine: `cargo run --release -p scheduler --example rebuild_speed --
//! [jobs]`. Starts a Redis and a Postgres of its own, commits the jobs, runs one scheduler beside one worker, flushes
//! Redis, and prints when the worker got the first of the old jobs and when all were back. With `--bars` behind the
//! number it prints what has a bar and no more, a JSON object a line, for `cargo xtask bars`.

#![allow(clippy::print_stdout)] // its output is what it is for

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use queue_core::{
    breaker::memory::MemoryBreakers,
    budget::memory::MemoryCounters,
    dispatcher::{
        Ack, DispatchError, Step,
        redis::{RedisAddress, RedisConfig, RedisDispatcher},
    },
    events::memory::MemoryEvents,
    ids::SessionId,
    job::{Kind, NewJob},
    journal::{
        WorkerSession,
        postgres::{self, PostgresConfig, PostgresJournal},
    },
    stores::{Beside, Stores},
    time::{SystemClock, Timestamp},
};
use testkit::{PostgresServer, RedisServer};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn Error + Send + Sync>;

/// Jobs of one bulk submit.
const BULK_JOBS: usize = 10_000;
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

fn main() -> Result<(), Failure> {
    let jobs: usize = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse())?;
    let bars = std::env::args().nth(2).is_some_and(|flag| flag == "--bars");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(jobs, bars))
}

async fn measure(jobs: usize, bars: bool) -> Result<(), Failure> {
    let redis = RedisServer::start();
    let stores = open(&redis).await?;
    for first in (0..jobs).step_by(BULK_JOBS) {
        let bulk = (first..jobs.min(first + BULK_JOBS)).map(|n| job(n, stores.clock.now())).collect();
        stores.journal.accept(bulk).await?;
    }
    if !bars {
        println!("{jobs} jobs are committed");
    }

    let config = scheduler::Config { alone: true, ..scheduler::Config::default() };
    let began = Instant::now();
    let prepared = scheduler::prepare(&stores, &config).await?;
    let end = CancellationToken::new();
    let clockwork = tokio::spawn(scheduler::run(stores.clone(), config, prepared, end.clone()));
    let ended = full(&stores, jobs).await?;
    if !bars {
        report("a start", began, ended, jobs);
    }

    let worker = register(&stores).await?;
    // Long enough for the scheduler to have seen the worker.
    tokio::time::sleep(Duration::from_secs(1)).await;
    redis.flush();
    let began = Instant::now();
    let first = first_claim(&stores, worker).await?;
    let (first, all) = (first - began, full(&stores, jobs).await?);
    if bars {
        println!("{{\"figure\":\"first_dispatch_seconds\",\"value\":{}}}", first.as_secs_f64());
        println!("{{\"figure\":\"rebuild_seconds\",\"value\":{}}}", (all - began).as_secs_f64());
    } else {
        println!("{:<12} {:>8.2} s until the first old job was dispatched", "a flush", first.as_secs_f64());
        report("a flush", began, all, jobs);
    }
    end.cancel();
    clockwork.await?;
    Ok(())
}

async fn open(redis: &RedisServer) -> Result<Stores, Failure> {
    let config = PostgresConfig::new(PostgresServer::shared().database());
    postgres::migrate(&mut postgres::connect(&config).await?).await?;
    let clock = Arc::new(SystemClock);
    let journal = Arc::new(PostgresJournal::open(&config, clock.clone()).await?);
    let dispatcher = RedisDispatcher::open(RedisConfig::new(RedisAddress::parse(&redis.url())?)).await?;
    Ok(Stores::over(
        journal,
        Beside {
            dispatcher: Arc::new(dispatcher),
            breakers: Arc::new(MemoryBreakers::new(clock.clone())),
            counters: Arc::new(MemoryCounters::new(clock.clone())),
            events: Arc::new(MemoryEvents::new()),
            objects: None,
            clock,
        },
    ))
}

fn job(n: usize, now: Timestamp) -> NewJob {
    let tenant = format!("tenant-{}", n % 10).as_str().into();
    NewJob::new(tenant, Kind::Llm, "script:small:none".into(), "{}".into(), now)
}

async fn register(stores: &Stores) -> Result<SessionId, Failure> {
    let id = SessionId::generate();
    let (host, version) = ("speed".to_owned(), "0".to_owned());
    let session = WorkerSession { id, host, version, slots: 1, started_at: stores.clock.now(), draining: false };
    stores.catalog.open_session(session).await?;
    stores.dispatcher.join(id, vec![]).await?;
    Ok(id)
}

/// Claims one job as soon as there is one, and gives it back.
async fn first_claim(stores: &Stores, session: SessionId) -> Result<Instant, Failure> {
    let step = |acks, slots| Step { session, acks, queues: vec![], kinds: vec![], slots };
    loop {
        match stores.dispatcher.step(step(vec![], 1)).await {
            Ok(reply) if !reply.claims.is_empty() => {
                let first = Instant::now();
                let rows = stores.reads.jobs(&[reply.claims[0].lease.id]).await?;
                let next = rows.into_iter().flatten().next().map(|row| queue_core::dispatcher::Entry {
                    id: row.id,
                    epoch: queue_core::ids::Epoch(row.epoch.0 + 1),
                    queue: row.queue.clone(),
                    tenant: row.tenant.clone(),
                    target: row.target.clone(),
                    kind: row.kind,
                    priority: row.priority,
                    run_at: row.run_at,
                    suspicion: queue_core::dispatcher::Suspicion::None,
                    key: row.concurrency_key.clone(),
                });
                let ack = Ack { lease: reply.claims[0].lease, next };
                stores.dispatcher.step(step(vec![ack], 0)).await?;
                return Ok(first);
            }
            Ok(_) | Err(DispatchError::Unavailable(_)) => {}
            Err(DispatchError::WrongGeneration) => match stores.dispatcher.join(session, vec![]).await {
                Ok(_) | Err(DispatchError::WrongGeneration) => {}
                Err(error) => return Err(error.into()),
            },
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until the dispatcher holds them all.
async fn full(stores: &Stores, jobs: usize) -> Result<Instant, Failure> {
    loop {
        let held: u64 = match stores.dispatcher.depths().await {
            Ok(depths) => depths.iter().map(|depth| depth.waiting).sum(),
            Err(DispatchError::WrongGeneration) => 0,
            Err(error) => return Err(error.into()),
        };
        if held >= jobs as u64 {
            return Ok(Instant::now());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn report(what: &str, began: Instant, ended: Instant, jobs: usize) {
    let seconds = (ended - began).as_secs_f64();
    println!("{what:<12} {seconds:>8.2} s until all were there, {:.0} jobs/s", jobs as f64 / seconds);
}
