//! How fast and how fair a dispatcher is on this machine: `cargo bench -p queue-core --bench
//! dispatcher_speed -- [backlog] [Redis address]`. Without an address it is the memory dispatcher. One thread; the
//! rates are of single jobs, pushed and claimed in batches, by the wall clock and by the processor time of this process
//! (and of Redis), which says something also on a machine that others use.
//!
//! The Redis should be one that nobody else uses: its memory is compared before and after.

#![allow(clippy::print_stdout)] // its output is what it is for

use std::{
    error::Error,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use queue_core::{
    dispatcher::{
        Ack, Dispatcher, Entry, Setting, Step,
        memory::MemoryDispatcher,
        redis::{RedisAddress, RedisConfig, RedisDispatcher},
    },
    ids::{Epoch, Generation, JobId, Name, SessionId},
    job::Kind,
    time::{Clock, SystemClock, Timestamp},
};

type Failure = Box<dyn Error + Send + Sync>;

/// What cargo adds to the arguments of every bench.
const CARGO_SAYS: &str = "--bench";
/// Entries of one push.
const PUSH: usize = 100;
/// Slots of one step.
const SLOTS: usize = 100;
/// Jobs that go through on top of a backlog, and over Redis.
const THROUGH: usize = 500_000;
const THROUGH_REDIS: usize = 100_000;
/// Tenants among whom the backlog is spread.
const TENANTS: usize = 100;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1).filter(|argument| argument != CARGO_SAYS);
    let backlog: usize = args.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let store = match args.next() {
        Some(address) => Store::Redis(RedisAddress::parse(&address)?, Box::new(redis::Client::open(address)?)),
        None => Store::Memory,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&store, backlog))
}

async fn measure(store: &Store, backlog: usize) -> Result<(), Failure> {
    // First: later, entries would take memory that this process has already freed once.
    memory(store, backlog.min(100_000)).await?;
    for backlog in [10_000, backlog] {
        through(store, backlog, None, "").await?;
    }
    if matches!(store, Store::Memory) {
        let folder = tempfile::tempdir()?;
        through(store, 10_000, Some(folder.path().join("leases")), ", lease file").await?;
    }
    parked(store, 1_000).await?;
    reap(store, 10_000).await?;
    fairness(store, 200_000).await?;
    weights(store).await
}

/// What is measured.
enum Store {
    Memory,
    Redis(RedisAddress, Box<redis::Client>),
}

impl Store {
    async fn open(&self, file: Option<PathBuf>) -> Result<Arc<dyn Dispatcher>, Failure> {
        let clock = Arc::new(SystemClock);
        let generation = Generation(clock.now().0);
        let dispatcher: Arc<dyn Dispatcher> = match self {
            Self::Memory => Arc::new(MemoryDispatcher::open(clock, file)?),
            Self::Redis(address, _) => {
                let config = RedisConfig {
                    prefix: "bench".into(),
                    response_timeout: Duration::from_secs(60),
                    ..RedisConfig::new(address.clone())
                };
                Arc::new(RedisDispatcher::open(config).await?)
            }
        };
        dispatcher.begin(generation).await?;
        Ok(dispatcher)
    }

    fn through(&self) -> usize {
        if matches!(self, Self::Memory) { THROUGH } else { THROUGH_REDIS }
    }

    fn bytes(&self) -> Result<u64, Failure> {
        match self {
            Self::Memory => Ok(resident_bytes()),
            Self::Redis(_, client) => Ok(info(client, "used_memory")? as u64),
        }
    }

    fn server_seconds(&self) -> Result<f64, Failure> {
        match self {
            Self::Memory => Ok(0.0),
            Self::Redis(_, client) => Ok(info(client, "used_cpu_user")? + info(client, "used_cpu_sys")?),
        }
    }
}

fn info(client: &redis::Client, name: &str) -> Result<f64, Failure> {
    let info: redis::InfoDict = redis::cmd("INFO").query(&mut client.get_connection()?)?;
    Ok(info.get(name).ok_or("INFO does not tell it")?)
}

struct Bench<'s> {
    store: &'s Store,
    dispatcher: Arc<dyn Dispatcher>,
    session: SessionId,
    now: Timestamp,
}

impl<'s> Bench<'s> {
    async fn open(store: &'s Store, file: Option<PathBuf>) -> Result<Self, Failure> {
        let now = SystemClock.now().plus_ms(-1_000);
        let dispatcher = store.open(file).await?;
        let session = SessionId::generate();
        // Its receiver is dropped: nobody is to be woken here.
        dispatcher.join(session, vec![]).await?;
        Ok(Self { store, dispatcher, session, now })
    }

    fn watch(&self) -> Result<Watch<'s>, Failure> {
        Ok(Watch {
            store: self.store,
            wall: Instant::now(),
            processor_seconds: processor_seconds(),
            server_seconds: self.store.server_seconds()?,
        })
    }

    fn entry(&self, tenant: &Name, target: &Name) -> Entry {
        let (queue, tenant, target) = (Name::from("default"), tenant.clone(), target.clone());
        let (id, epoch, run_at) = (JobId::generate(), Epoch(0), self.now);
        Entry { id, epoch, queue, tenant, target, kind: Kind::Llm, priority: 5, run_at, suspect: false, key: None }
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
        let step = Step { session: self.session, acks, queues: vec![], kinds: vec![], slots };
        let claims = self.dispatcher.step(step).await?.claims;
        Ok(claims.into_iter().map(|claim| Ack { lease: claim.lease, next: None }).collect())
    }
}

async fn memory(store: &Store, backlog: usize) -> Result<(), Failure> {
    let tenants: Vec<_> = (0..TENANTS).map(|n| Name::new(format!("tenant-{n}"))).collect();
    let bench = Bench::open(store, None).await?;
    let before = store.bytes()?;
    bench.fill(backlog, &tenants).await?;
    let bytes = store.bytes()?.saturating_sub(before) / backlog.max(1) as u64;
    println!("{:<52} {bytes:>12} bytes", format!("memory an entry, of {backlog}"));
    Ok(())
}

async fn through(store: &Store, backlog: usize, file: Option<PathBuf>, what: &str) -> Result<(), Failure> {
    let tenants: Vec<_> = (0..TENANTS).map(|n| Name::new(format!("tenant-{n}"))).collect();
    let bench = Bench::open(store, file).await?;
    let watch = bench.watch()?;
    bench.fill(backlog, &tenants).await?;
    watch.report(&format!("push, to a backlog of {backlog}{what}"), backlog)?;
    let target = Name::from("t");
    let entries: Vec<_> = (0..store.through()).map(|n| bench.entry(&tenants[n % TENANTS], &target)).collect();
    let batches: Vec<_> = entries.chunks(SLOTS).map(<[_]>::to_vec).collect();
    let watch = bench.watch()?;
    let mut acks = vec![];
    for batch in batches {
        let slots = batch.len();
        bench.dispatcher.push(batch).await?;
        acks = bench.step(acks, slots).await?;
        let leases: Vec<_> = acks.iter().map(|ack| ack.lease).collect();
        bench.dispatcher.start(bench.session, &leases).await?;
    }
    watch.report(&format!("push + claim + start + ack, at {backlog}{what}"), store.through())?;
    let watch = bench.watch()?;
    let mut claimed = 0;
    while !acks.is_empty() {
        acks = bench.step(acks, SLOTS).await?;
        claimed += acks.len();
    }
    watch.report(&format!("claim + ack, draining {backlog}{what}"), claimed)?;
    Ok(())
}

/// A thousand parked lanes, each with entries, must cost a claim nothing.
async fn parked(store: &Store, lanes: usize) -> Result<(), Failure> {
    let bench = Bench::open(store, None).await?;
    let (target, until) = (Name::from("asleep"), bench.now.plus_ms(3_600_000));
    let park = Setting::ParkTarget { target: target.clone(), until, reason: "429".into() };
    bench.dispatcher.apply(park).await?;
    for n in 0..lanes {
        bench.dispatcher.push(vec![bench.entry(&Name::new(format!("asleep-{n}")), &target)]).await?;
    }
    bench.fill(100_000, &[Name::from("awake")]).await?;
    let watch = bench.watch()?;
    let (mut acks, mut claimed) = (bench.step(vec![], 1).await?, 0);
    while !acks.is_empty() {
        claimed += acks.len();
        acks = bench.step(acks, 1).await?;
    }
    watch.report(&format!("claim + ack one by one, beside {lanes} parked lanes"), claimed)?;
    Ok(())
}

async fn reap(store: &Store, leases: usize) -> Result<(), Failure> {
    let bench = Bench::open(store, None).await?;
    bench.fill(leases, &[Name::from("a")]).await?;
    for _ in 0..leases.div_ceil(SLOTS) {
        bench.step(vec![], SLOTS).await?;
    }
    let watch = bench.watch()?;
    for _ in 0..1_000 {
        bench.dispatcher.reap(1_000).await?;
    }
    watch.report(&format!("reap that finds nothing, {leases} leases"), 1_000)?;
    Ok(())
}

async fn fairness(store: &Store, flood: usize) -> Result<(), Failure> {
    let bench = Bench::open(store, None).await?;
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

async fn weights(store: &Store) -> Result<(), Failure> {
    let bench = Bench::open(store, None).await?;
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

struct Watch<'s> {
    store: &'s Store,
    wall: Instant,
    processor_seconds: f64,
    server_seconds: f64,
}

impl Watch<'_> {
    fn report(&self, what: &str, count: usize) -> Result<(), Failure> {
        let count = count.max(1) as f64;
        let (wall, busy) = (self.wall.elapsed().as_secs_f64(), processor_seconds() - self.processor_seconds);
        let server = (self.store.server_seconds()? - self.server_seconds) * 1e6 / count;
        let of_server =
            if matches!(self.store, Store::Memory) { String::new() } else { format!(", {server:.2} µs of Redis") };
        println!(
            "{what:<52} {:>12.0} a second, {:.2} µs of processor each{of_server}",
            count / wall,
            busy * 1e6 / count
        );
        Ok(())
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
