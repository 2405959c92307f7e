//! How fast and how fair the memory dispatcher is on this machine: `cargo run --release -p queue-core --example
//! dispatcher_speed -- [backlog]`. One thread; the rates are of single jobs, pushed and claimed in batches, by the wall
//! clock and by this process' processor time, which says something also on a machine that others use.

#![allow(clippy::print_stdout)] // its output is what it is for

use std::{error::Error, path::PathBuf, sync::Arc, time::Instant};

use queue_core::{
    dispatcher::{Ack, Dispatcher, Entry, Setting, Step, memory::MemoryDispatcher},
    ids::{Epoch, Generation, JobId, Name, SessionId},
    time::{Clock, SystemClock, Timestamp},
};

type Failure = Box<dyn Error + Send + Sync>;

/// Entries of one push.
const PUSH: usize = 128;
/// Slots of one step.
const SLOTS: usize = 64;
/// Jobs that go through on top of a backlog.
const THROUGH: usize = 500_000;
/// Tenants among whom the backlog is spread.
const TENANTS: usize = 100;

fn main() -> Result<(), Failure> {
    let backlog: usize = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(measure(backlog))
}

async fn measure(backlog: usize) -> Result<(), Failure> {
    // First: later, entries would take memory that this process has already freed once.
    memory(backlog).await?;
    for backlog in [10_000, backlog] {
        through(backlog, None, "").await?;
    }
    let folder = tempfile::tempdir()?;
    through(10_000, Some(folder.path().join("leases")), ", lease file").await?;
    parked(1_000).await?;
    reap(10_000).await?;
    fairness(200_000).await?;
    weights().await
}

struct Bench {
    dispatcher: MemoryDispatcher,
    session: SessionId,
    now: Timestamp,
}

impl Bench {
    async fn open(file: Option<PathBuf>) -> Result<Self, Failure> {
        let clock = Arc::new(SystemClock);
        let now = clock.now().plus_ms(-1_000);
        let dispatcher = MemoryDispatcher::open(clock, file)?;
        dispatcher.begin(Generation(1)).await?;
        let session = SessionId::generate();
        // Its receiver is dropped: nobody is to be woken here.
        dispatcher.join(session, vec![]).await?;
        Ok(Self { dispatcher, session, now })
    }

    fn entry(&self, tenant: &Name, target: &Name) -> Entry {
        let (queue, tenant, target) = (Name::from("default"), tenant.clone(), target.clone());
        let (id, epoch, run_at) = (JobId::generate(), Epoch(0), self.now);
        Entry { id, epoch, queue, tenant, target, priority: 5, run_at, suspect: false }
    }

    async fn fill(&self, count: usize, tenants: &[Name]) -> Result<(), Failure> {
        let target = Name::from("t");
        let mut entries = (0..count).map(|n| self.entry(&tenants[n % tenants.len()], &target)).peekable();
        while entries.peek().is_some() {
            self.dispatcher.push(entries.by_ref().take(PUSH).collect()).await?;
        }
        Ok(())
    }

    async fn step(&self, acks: Vec<Ack>, slots: usize) -> Result<Vec<Ack>, Failure> {
        let step = Step { session: self.session, acks, queues: vec![], slots };
        let claims = self.dispatcher.step(step).await?.claims;
        Ok(claims.into_iter().map(|claim| Ack { lease: claim.lease, next: None }).collect())
    }
}

async fn memory(backlog: usize) -> Result<(), Failure> {
    let tenants: Vec<_> = (0..TENANTS).map(|n| Name::new(format!("tenant-{n}"))).collect();
    let bench = Bench::open(None).await?;
    let before = resident_bytes();
    bench.fill(backlog, &tenants).await?;
    let bytes = resident_bytes().saturating_sub(before) / backlog.max(1) as u64;
    println!("{:<52} {bytes:>12} bytes", format!("resident memory an entry, of {backlog}"));
    Ok(())
}

async fn through(backlog: usize, file: Option<PathBuf>, what: &str) -> Result<(), Failure> {
    let tenants: Vec<_> = (0..TENANTS).map(|n| Name::new(format!("tenant-{n}"))).collect();
    let bench = Bench::open(file).await?;
    let watch = Watch::start();
    bench.fill(backlog, &tenants).await?;
    watch.report(&format!("push, to a backlog of {backlog}{what}"), backlog);
    let target = Name::from("t");
    let entries: Vec<_> = (0..THROUGH).map(|n| bench.entry(&tenants[n % TENANTS], &target)).collect();
    let batches: Vec<_> = entries.chunks(SLOTS).map(<[_]>::to_vec).collect();
    let watch = Watch::start();
    let mut acks = vec![];
    for batch in batches {
        let slots = batch.len();
        bench.dispatcher.push(batch).await?;
        acks = bench.step(acks, slots).await?;
        let leases: Vec<_> = acks.iter().map(|ack| ack.lease).collect();
        bench.dispatcher.start(bench.session, &leases).await?;
    }
    watch.report(&format!("push + claim + start + ack, at {backlog}{what}"), THROUGH);
    let watch = Watch::start();
    let mut claimed = 0;
    while !acks.is_empty() {
        acks = bench.step(acks, SLOTS).await?;
        claimed += acks.len();
    }
    watch.report(&format!("claim + ack, draining {backlog}{what}"), claimed);
    Ok(())
}

/// A thousand parked lanes, each with entries, must cost a claim nothing.
async fn parked(lanes: usize) -> Result<(), Failure> {
    let bench = Bench::open(None).await?;
    let (target, until) = (Name::from("asleep"), bench.now.plus_ms(3_600_000));
    let park = Setting::ParkTarget { target: target.clone(), until, reason: "429".into() };
    bench.dispatcher.apply(park).await?;
    for n in 0..lanes {
        bench.dispatcher.push(vec![bench.entry(&Name::new(format!("asleep-{n}")), &target)]).await?;
    }
    bench.fill(100_000, &[Name::from("awake")]).await?;
    let watch = Watch::start();
    let (mut acks, mut claimed) = (bench.step(vec![], 1).await?, 0);
    while !acks.is_empty() {
        claimed += acks.len();
        acks = bench.step(acks, 1).await?;
    }
    watch.report(&format!("claim + ack one by one, beside {lanes} parked lanes"), claimed);
    Ok(())
}

async fn reap(leases: usize) -> Result<(), Failure> {
    let bench = Bench::open(None).await?;
    bench.fill(leases, &[Name::from("a")]).await?;
    for _ in 0..leases.div_ceil(SLOTS) {
        bench.step(vec![], SLOTS).await?;
    }
    let watch = Watch::start();
    for _ in 0..1_000 {
        bench.dispatcher.reap(1_000).await?;
    }
    watch.report(&format!("reap that finds nothing, {leases} leases"), 1_000);
    Ok(())
}

async fn fairness(flood: usize) -> Result<(), Failure> {
    let bench = Bench::open(None).await?;
    bench.fill(flood, &[Name::from("a")]).await?;
    let single = bench.entry(&Name::from("b"), &Name::from("t"));
    let id = single.id;
    bench.dispatcher.push(vec![single]).await?;
    let mut place = 0;
    loop {
        place += 1;
        let acks = bench.step(vec![], 1).await?;
        if acks.is_empty() || acks.iter().any(|ack| ack.lease.id == id) {
            break;
        }
    }
    println!("{:<52} {place:>12}", format!("place of a tenant's single job behind {flood}"));
    Ok(())
}

async fn weights() -> Result<(), Failure> {
    let bench = Bench::open(None).await?;
    let heavy = Name::from("heavy");
    bench.dispatcher.apply(Setting::TenantWeight(heavy.clone(), 3)).await?;
    let (mut of_heavy, target) = (std::collections::HashSet::new(), Name::from("t"));
    for _ in 0..10_000 {
        let entry = bench.entry(&heavy, &target);
        of_heavy.insert(entry.id);
        bench.dispatcher.push(vec![entry, bench.entry(&Name::from("light"), &target)]).await?;
    }
    let mut share = 0;
    for _ in 0..4_000 / 50 {
        let claimed = bench.step(vec![], 50).await?;
        share += claimed.iter().filter(|ack| of_heavy.contains(&ack.lease.id)).count();
    }
    println!("{:<52} {:>12}", "claims of weights 3 and 1, of 4,000", format!("{share} : {}", 4_000 - share));
    Ok(())
}

struct Watch {
    wall: Instant,
    processor_seconds: f64,
}

impl Watch {
    fn start() -> Self {
        Self { wall: Instant::now(), processor_seconds: processor_seconds() }
    }

    fn report(&self, what: &str, count: usize) {
        let count = count.max(1) as f64;
        let (wall, busy) = (self.wall.elapsed().as_secs_f64(), processor_seconds() - self.processor_seconds);
        println!("{what:<52} {:>12.0} a second, {:.2} µs of processor each", count / wall, busy * 1e6 / count);
    }
}

/// Processor time of this process, in ticks of 10 ms; 0 where `/proc` is not there.
fn processor_seconds() -> f64 {
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the command's name, which may hold spaces, user and system time are the 12th and 13th field.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_A_SECOND
}

/// Resident memory of this process; 0 where `/proc` is not there.
fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4_096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
}
