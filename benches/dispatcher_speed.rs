//! How fast and how fair a dispatcher is on this machine: `cargo bench -p queue-core --bench
//! dispatcher_speed -- [backlog] [Redis address]`. Without an address it is the memory dispatcher. One thread; the
//! rates are of single jobs, pushed and claimed in batches, by the wall clock and by the processor time of this process
//! (and of Redis), which says something also on a machine that others use.
//!
//! The Redis should be one that nobody else uses: its memory is compared before and after.
//!
//! `… -- [backlog] [Redis address] --bars` measures what has a bar and no more, a JSON object a line, for `cargo xtask
//! bars`.

#![allow(clippy::print_stdout)] // its output is what it is for

use std::{
    error::Error,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use queue_core::{
    dispatcher::{
        Ack, Dispatcher, Entry, Setting, Step, Suspicion,
        memory::MemoryDispatcher,
        redis::{RedisAddress, RedisConfig, RedisDispatcher},
    },
    ids::{Epoch, Generation, JobId, Name, SessionId},
    job::{AGEING_MS_PER_POINT, Kind, PRIORITY_MAX},
    journal::{TenantSettings, Versioned},
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
/// Asks for the figures that have a bar.
const BARS: &str = "--bars";
/// The small backlog, with which the large one is compared.
const SMALL_BACKLOG: usize = 10_000;
/// Jobs of one tenant before another submits one.
const FLOOD: usize = 200_000;
/// Claims among whom the weights are counted.
const WEIGHED: usize = 4_000;

fn main() -> Result<(), Failure> {
    let (flags, args): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).filter(|argument| argument != CARGO_SAYS).partition(|argument| argument == BARS);
    let mut args = args.into_iter();
    let backlog: usize = args.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let store = match args.next() {
        Some(address) => Store::Redis(RedisAddress::parse(&address)?, Box::new(redis::Client::open(address)?)),
        None => Store::Memory,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match flags.is_empty() {
        true => runtime.block_on(measure(&store, backlog)),
        false => runtime.block_on(measure_bars(&store, backlog)),
    }
}

async fn measure(store: &Store, backlog: usize) -> Result<(), Failure> {
    // First: later, entries would take memory that this process has already freed once.
    let entries = backlog.min(100_000);
    let bytes = memory(&Bench::open(store, None).await?, entries).await?;
    println!("{:<52} {bytes:>12.0} bytes", format!("memory an entry, of {entries}"));
    for backlog in [SMALL_BACKLOG, backlog] {
        through(store, backlog, None, "").await?;
    }
    if matches!(store, Store::Memory) {
        let folder = tempfile::tempdir()?;
        through(store, 10_000, Some(folder.path().join("leases")), ", lease file").await?;
    }
    parked(store, 1_000).await?;
    reap(store, 10_000).await?;
    println!("{:<52} {:>12}", format!("place of a tenant's single job behind {FLOOD}"), fairness(store, FLOOD).await?);
    let share = weights(store).await?;
    let shares = format!("{share} : {}", WEIGHED - share);
    println!("{:<52} {shares:>12}", format!("claims of weights 3 and 1, of {WEIGHED}"));
    Ok(())
}

/// The figures that have a bar.
async fn measure_bars(store: &Store, backlog: usize) -> Result<(), Failure> {
    let say = |figure: &str, value: f64| println!("{}", serde_json::json!({"figure": figure, "value": value}));
    let large = Bench::open(store, None).await?;
    say("bytes_a_job", memory(&large, backlog).await?);
    let small = Bench::open_beside(store).await?;
    small.fill(SMALL_BACKLOG, &tenants()).await?;
    let [small, large] = claim_costs([&small, &large]).await?;
    for (name, cost) in [("small", small), ("large", large)] {
        say(&format!("claim_server_us_{name}"), cost.server_us);
        say(&format!("claim_wall_us_{name}"), cost.wall_us);
    }
    say("place_behind_flood", fairness(store, FLOOD).await? as f64);
    let share = weights(store).await? as f64;
    say("weights_ratio", share / (WEIGHED as f64 - share).max(1.0));
    say("longest_wait_rounds", longest_wait(store).await?);
    say("longest_wait_rounds_bound", WAIT_BOUND_ROUNDS as f64);
    Ok(())
}

fn tenants() -> Vec<Name> {
    (0..TENANTS).map(|n| Name::new(format!("tenant-{n}"))).collect()
}

/// What is measured.
enum Store {
    Memory,
    Redis(RedisAddress, Box<redis::Client>),
}

impl Store {
    async fn open(&self, file: Option<PathBuf>, prefix: &str) -> Result<Arc<dyn Dispatcher>, Failure> {
        let clock = Arc::new(SystemClock);
        let generation = Generation(clock.now().0);
        let dispatcher: Arc<dyn Dispatcher> = match self {
            Self::Memory => Arc::new(MemoryDispatcher::open(clock, file)?),
            Self::Redis(address, _) => {
                let config = RedisConfig {
                    prefix: prefix.into(),
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
        Self::join(store, store.open(file, "bench").await?).await
    }

    /// Another in the same store, under another prefix.
    async fn open_beside(store: &'s Store) -> Result<Self, Failure> {
        Self::join(store, store.open(None, "beside").await?).await
    }

    async fn join(store: &'s Store, dispatcher: Arc<dyn Dispatcher>) -> Result<Self, Failure> {
        let now = SystemClock.now().plus_ms(-1_000);
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
        Entry {
            id,
            epoch,
            queue,
            tenant,
            target,
            kind: Kind::Llm,
            priority: 5,
            run_at,
            suspicion: Suspicion::None,
            key: None,
        }
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

/// Bytes of an entry, of so many.
async fn memory(bench: &Bench<'_>, entries: usize) -> Result<f64, Failure> {
    let before = bench.store.bytes()?;
    bench.fill(entries, &tenants()).await?;
    Ok(bench.store.bytes()?.saturating_sub(before) as f64 / entries.max(1) as f64)
}

/// What it costs to claim, start and ack a job.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// Until the answers are there.
    wall_us: f64,
    /// Processor time of Redis.
    server_us: f64,
}

/// Turns of each backlog, and claims in one: few of a small backlog, which is filled up after each.
const COST_TURNS: usize = 100;
const COST_CLAIMS: usize = 1_000;

/// The costs at several backlogs, in turns, so that what else the machine does falls on all of them.
async fn claim_costs<const N: usize>(benches: [&Bench<'_>; N]) -> Result<[Cost; N], Failure> {
    let (mut costs, tenants) = ([Cost::default(); N], tenants());
    for _ in 0..COST_TURNS {
        for (bench, cost) in benches.iter().zip(&mut costs) {
            let (wall, server) = (Instant::now(), bench.store.server_seconds()?);
            let (mut acks, mut claimed) = (vec![], 0);
            for _ in 0..COST_CLAIMS / SLOTS {
                acks = bench.step(acks, SLOTS).await?;
                claimed += acks.len();
                let leases: Vec<_> = acks.iter().map(|ack| ack.lease).collect();
                bench.dispatcher.start(bench.session, &leases).await?;
            }
            bench.step(acks, 0).await?;
            if claimed != COST_CLAIMS {
                return Err(format!("{claimed} of {COST_CLAIMS} were claimed").into());
            }
            let all = (COST_CLAIMS * COST_TURNS) as f64;
            cost.wall_us += wall.elapsed().as_secs_f64() * 1e6 / all;
            cost.server_us += (bench.store.server_seconds()? - server) * 1e6 / all;
            bench.fill(COST_CLAIMS, &tenants).await?;
        }
    }
    Ok(costs)
}

async fn through(store: &Store, backlog: usize, file: Option<PathBuf>, what: &str) -> Result<(), Failure> {
    let tenants = tenants();
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

/// The place of a tenant's single job behind so many of another.
async fn fairness(store: &Store, flood: usize) -> Result<usize, Failure> {
    let bench = Bench::open(store, None).await?;
    bench.fill(flood, &[Name::from("a")]).await?;
    let single = bench.entry(&Name::from("b"), &Name::from("t"));
    let id = single.id;
    bench.dispatcher.push(vec![single]).await?;
    let mut place = 0;
    loop {
        place += 1;
        let acks = bench.step(vec![], 1).await?;
        if acks.is_empty() {
            return Err("the single job was never claimed".into());
        }
        if acks.iter().any(|ack| ack.lease.id == id) {
            return Ok(place);
        }
    }
}

/// Claims of a tenant of weight 3 beside one of weight 1, both with enough, of [`WEIGHED`].
async fn weights(store: &Store) -> Result<usize, Failure> {
    let bench = Bench::open(store, None).await?;
    let heavy = Name::from("heavy");
    let settings = TenantSettings { weight: 3, ..TenantSettings::default() };
    bench.dispatcher.apply(Setting::Tenant(heavy.clone(), Versioned { version: 1, value: settings })).await?;
    let (mut of_heavy, target) = (std::collections::HashSet::new(), Name::from("t"));
    for _ in 0..10_000 {
        let entry = bench.entry(&heavy, &target);
        of_heavy.insert(entry.id);
        bench.dispatcher.push(vec![entry, bench.entry(&Name::from("light"), &target)]).await?;
    }
    let mut share = 0;
    for _ in 0..WEIGHED / 50 {
        let claimed = bench.step(vec![], 50).await?;
        share += claimed.iter().filter(|ack| of_heavy.contains(&ack.lease.id)).count();
    }
    Ok(share)
}

/// Rounds in which a point of priority is waited for, and jobs that come and are claimed in one.
const ROUNDS_A_POINT: usize = 10;
const ROUND_JOBS: usize = 100;
/// Old jobs without priority: as many as one round claims.
const OLD_JOBS: usize = ROUND_JOBS;
/// Rounds after which even the highest priority does not go before them, and one for themselves.
const WAIT_BOUND_ROUNDS: usize = ROUNDS_A_POINT * PRIORITY_MAX as usize + 2;

/// Rounds until the last of the old jobs without priority was claimed, while as many jobs come as are claimed: one of ten
/// with the highest priority, the others in the middle. Not a number if one of them is still there after four times the
/// bound. A round's time passes by the due times of what comes in it: they decide who waits, not the clock.
async fn longest_wait(store: &Store) -> Result<f64, Failure> {
    let bench = Bench::open(store, None).await?;
    let (tenant, target) = (Name::from("a"), Name::from("t"));
    let rounds = WAIT_BOUND_ROUNDS * 4;
    let round_ms = AGEING_MS_PER_POINT / ROUNDS_A_POINT as i64;
    let begin = bench.now.plus_ms(-(rounds as i64) * round_ms);
    let entry = |priority, run_at| Entry { priority, run_at, ..bench.entry(&tenant, &target) };
    let old: Vec<_> = (0..OLD_JOBS).map(|_| entry(0, begin)).collect();
    let mut waiting: std::collections::HashSet<_> = old.iter().map(|entry| entry.id).collect();
    bench.dispatcher.push(old).await?;
    let mut acks = vec![];
    for round in 1..=rounds {
        let now = begin.plus_ms(round as i64 * round_ms);
        let load = (0..ROUND_JOBS).map(|n| entry(if n % 10 == 0 { PRIORITY_MAX } else { 5 }, now)).collect();
        bench.dispatcher.push(load).await?;
        acks = bench.step(acks, ROUND_JOBS).await?;
        for ack in &acks {
            waiting.remove(&ack.lease.id);
        }
        if waiting.is_empty() {
            return Ok(round as f64);
        }
    }
    Ok(f64::NAN)
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
