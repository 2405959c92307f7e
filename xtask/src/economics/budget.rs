//! Sixteen workers, a tenant with a budget of one dollar, and jobs of about three tenths of a cent, for three times as much money:
//! whether what is spent ends close below the dollar, by the ledger and by the provider's own log; whether the rest waits, and runs
//! when the budget is raised. And the same while workers are killed and Redis is flushed.
//!
//! An answer may have 200 tokens, which is half a cent, and has 80 to 160. Prompts are free, so that the provider's log is exact.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use testkit::{Behaviour, Director, MockProvider, SeenCall};

use super::{
    limiter::{informs, judged},
    load::{Client, LOOK_EVERY, job},
};
use crate::{
    bar::{Bar, Judged},
    cluster::{Cluster, Role},
};

/// Jobs, which would cost about three dollars.
const JOBS: usize = 1_000;
const QUEUE: &str = "paid";
const MODEL: &str = "paid-model";
/// Nano-USD of a token of an answer: a job of 120 costs $0.003.
const TOKEN_NANOUSD: i64 = 25_000;
const DOLLAR: f64 = 1_000_000_000.0;
/// Times that a worker is killed, and that Redis is flushed, while the money is spent.
const KILLS: usize = 8;
const FLUSHES: usize = 3;
/// Nothing changes any more for so long: then the budget is used up.
const QUIET: Duration = Duration::from_secs(8);
/// The same where workers were killed: what they had reserved expires after a minute.
const QUIET_ROUGH: Duration = Duration::from_secs(75);
const PATIENCE: Duration = Duration::from_secs(400);
/// A raise is felt within a second; the API and the machine have some time besides.
const RAISE_FELT_MS: f64 = 1_000.0;

/// The provider's log.
#[derive(Default)]
struct Log {
    calls: AtomicU64,
    answered: AtomicU64,
    cost_nanousd: AtomicI64,
    dropped: AtomicU64,
}

/// Tokens of the answer to a call: the same for every try of it.
fn tokens_of(call: &SeenCall) -> i64 {
    80 + (call.body_hash % 81) as i64
}

impl Log {
    fn cost(&self) -> f64 {
        self.cost_nanousd.load(Ordering::SeqCst) as f64 / DOLLAR
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Director for Log {
    fn began(&self, number: u64, call: &SeenCall) -> (Duration, Behaviour) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let text = "word ".repeat(tokens_of(call) as usize);
        (Duration::from_millis(50 + number % 7 * 30), Behaviour::Text(text.trim_end().to_owned()))
    }

    fn ended(&self, _: u64, call: &SeenCall) {
        if call.answered {
            self.answered.fetch_add(1, Ordering::SeqCst);
            self.cost_nanousd.fetch_add(tokens_of(call) * TOKEN_NANOUSD, Ordering::SeqCst);
        }
        if call.dropped {
            self.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// How the money is spent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weather {
    Calm,
    Rough,
}

struct Stage {
    cluster: Cluster,
    api: Client,
    log: Arc<Log>,
    workers: Vec<usize>,
    _provider: MockProvider,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn set(longshore: &Path, workers: usize) -> Result<Self> {
        let log = Arc::new(Log::default());
        let provider = MockProvider::start_directed(log.clone()).await;
        let folder = tempfile::tempdir()?;
        let (prices, file) = (folder.path().join("prices.toml"), folder.path().join("longshore.toml"));
        let price = TOKEN_NANOUSD * 1_000;
        std::fs::write(&prices, format!("version = \"bar\"\n[models.\"{MODEL}\"]\ninput = 0\noutput = {price}\n"))?;
        let prices = prices.to_str().context("a temporary folder has a name in UTF-8")?;
        let text = format!(
            "prices_file = \"{prices}\"\n[[providers]]\nname = \"mock\"\nurl = \"{}\"\nmodels = [\"{MODEL}\"]\n",
            provider.url()
        );
        std::fs::write(&file, text)?;
        let file = file.to_str().context("a temporary folder has a name in UTF-8")?;
        let environment = [("LONGSHORE_CONFIG", file), ("LONGSHORE_WORKER_SLOTS", "8"), ("RUST_LOG", "info")];
        let mut cluster = Cluster::start(longshore, &environment).await?;
        for role in [Role::Scheduler, Role::Api] {
            let number = cluster.spawn(role).await?;
            cluster.ready(number).await?;
        }
        let api = Client::new(cluster.apis().first().context("there is an API")?);
        let mut numbers = vec![];
        for _ in 0..workers {
            numbers.push(cluster.spawn(Role::Worker).await?);
        }
        for number in &numbers {
            cluster.ready(*number).await?;
        }
        Ok(Self { cluster, api, log, workers: numbers, _provider: provider, _folder: folder })
    }

    fn ask(&self, sql: &str) -> Result<f64> {
        Ok(self.cluster.sql(sql).trim().parse()?)
    }

    /// Dollars, by the ledger.
    fn ledger(&self) -> Result<f64> {
        Ok(self.ask("SELECT coalesce(sum(cost_nanousd), 0) FROM spend")? / DOLLAR)
    }

    async fn budget(&self, usd: &str) -> Result<()> {
        self.api.put("/v1/tenants/default/budget", &json!({"month_usd": usd})).await
    }

    /// Waits until nobody has asked the provider for so long.
    async fn until_quiet(&self, quiet: Duration) -> Result<()> {
        let (began, mut calls, mut since) = (Instant::now(), 0, Instant::now());
        while since.elapsed() < quiet {
            ensure!(began.elapsed() < PATIENCE, "jobs are run without an end");
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.log.calls();
            if now != calls {
                (calls, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// The queue's numbers. An API that has asked nothing since a flush answers 503 once.
    async fn queue(&self) -> Result<serde_json::Value> {
        match self.api.queue(QUEUE).await {
            Ok(numbers) => Ok(numbers),
            Err(_) => {
                tokio::time::sleep(LOOK_EVERY).await;
                self.api.queue(QUEUE).await
            }
        }
    }

    /// What the scheduler and the API logged last.
    fn last_words(&self) -> String {
        let last = |number| {
            let log = self.cluster.log(number);
            log.lines().skip(log.lines().count().saturating_sub(40)).collect::<Vec<_>>().join("\n")
        };
        format!("scheduler:\n{}\nAPI:\n{}", last(0), last(1))
    }

    /// Kills workers and flushes Redis while the money is being spent.
    async fn storm(&mut self) -> Result<()> {
        let mut random = StdRng::seed_from_u64(17);
        let mut acts: Vec<bool> = [vec![true; KILLS], vec![false; FLUSHES]].concat();
        for at in (1..acts.len()).rev() {
            acts.swap(at, random.random_range(0..=at));
        }
        for kills in acts {
            tokio::time::sleep(Duration::from_millis(random.random_range(400..900))).await;
            if kills {
                let number = self.workers[random.random_range(0..self.workers.len())];
                self.cluster.restart(number).await?;
            } else {
                self.cluster.redis.command(&["FLUSHALL"]);
            }
        }
        Ok(())
    }
}

/// Runs both.
pub(super) async fn measure(longshore: &Path, workers: usize) -> Result<Vec<Judged>> {
    let mut judged = vec![];
    for weather in [Weather::Calm, Weather::Rough] {
        let mut stage = Stage::set(longshore, workers).await?;
        judged.extend(run(&mut stage, workers, weather).await.with_context(|| stage.last_words())?);
    }
    Ok(judged)
}

async fn run(stage: &mut Stage, workers: usize, weather: Weather) -> Result<Vec<Judged>> {
    let is_calm = weather == Weather::Calm;
    let name = |what: &str| if is_calm { what.to_owned() } else { format!("kills and flushes: {what}") };
    eprintln!("{} workers …", name(&workers.to_string()));
    stage.budget("1.00").await?;
    let jobs: Vec<_> = (0..JOBS).map(|number| job(QUEUE, MODEL, &format!("number {number}"), 200)).collect();
    let began = Instant::now();
    stage.api.submit_all(&jobs).await?;
    if !is_calm {
        stage.storm().await?;
    }
    stage.until_quiet(if is_calm { QUIET } else { QUIET_ROUGH }).await?;
    let took = began.elapsed();
    let (ledger, provider) = (stage.ledger()?, stage.log.cost());
    let parked = stage.queue().await?["parked"].as_f64().unwrap_or(0.0);
    let ended = stage.ask("SELECT count(*) FROM settled_jobs WHERE standing = 1")?;
    let waiting = JOBS as f64 - ended;
    let put_back = stage.ask(
        "SELECT coalesce(max(n), 0) FROM (SELECT count(*) n FROM attempts WHERE outcome = 'release' GROUP BY job_id) a",
    )?;
    let spent_attempts = stage.ask("SELECT coalesce(max(attempts), 0) FROM jobs WHERE standing = 0")?;
    let unrecorded = stage.log.answered.load(Ordering::SeqCst) as f64
        - stage.ask("SELECT count(*) FROM spend WHERE status = 'ok'")?;
    let (calls, raised) = (stage.log.calls(), Instant::now());
    stage.budget("9.00").await?;
    while stage.log.calls() == calls && raised.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let felt = raised.elapsed();
    let all = stage.api.until_ended(QUEUE, JOBS as u64, PATIENCE).await?;
    let failed = stage.queue().await?["failed"].as_f64().unwrap_or(0.0);
    stage.cluster.stop().await?;
    // In thousandths of a dollar: the last one counts.
    let within = Bar::Between(970.0, 1_000.0);
    let by_provider = if is_calm { Some(within) } else { None };
    let mut figures = vec![
        judged(
            &name("spent of $1.00, by the ledger"),
            ledger * 1_000.0,
            "$/1000",
            if is_calm { within } else { Bar::AtMost(1_000.0) },
        ),
        Judged {
            what: name("spent, by the provider's log"),
            figure: provider * 1_000.0,
            unit: "$/1000".into(),
            bar: by_provider,
        },
        informs(&name("answers that no ledger row knows (workers killed meanwhile)"), unrecorded, "calls"),
        informs(&name("jobs that wait"), waiting, "jobs"),
        judged(&name("of them parked"), parked / waiting.max(1.0) * 100.0, "%", Bar::AtLeast(100.0)),
        informs(&name("most times that a job was put back"), put_back, "times"),
        informs(&name("time until it was quiet"), took.as_secs_f64(), "s"),
        judged(&name("a raise was felt after"), felt.as_secs_f64() * 1_000.0, "ms", Bar::AtMost(RAISE_FELT_MS)),
        judged(&name("all jobs ran after the raise"), f64::from(u8::from(all)), "yes", Bar::AtLeast(1.0)),
        judged(&name("jobs that failed"), failed, "jobs", Bar::AtMost(0.0)),
    ];
    if is_calm {
        figures.push(judged("attempts that waiting jobs have spent", spent_attempts, "attempts", Bar::AtMost(0.0)));
    }
    Ok(figures)
}
