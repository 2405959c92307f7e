//! Analyses of eight calls whose workers are killed at random: what the provider charged, beside what the ledger says.
//!
//! The provider writes down each call that it answered in full, with the tokens that it told of. Prices are a file of this
//! measurement, so that the sum is made here by other code than the one that is measured. A call that was under way when its
//! worker died may have been charged without anybody hearing the answer: those are counted, and each must belong to a job whose
//! ledger says `billed = maybe` of a lost attempt.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Deserialize;
use serde_json::{Value, json};
use testkit::{Behaviour, Director, MockProvider, SeenCall};

use super::{
    limiter::{informs, judged},
    load::Client,
};
use crate::{
    bar::{Bar, Judged},
    cluster::{Cluster, Role},
};

const WORKERS: usize = 4;
/// Jobs of a worker at once: few, so that the load lasts as long as the kills.
const SLOTS: &str = "2";
/// Parts of a document; one call each, and one that joins them.
const PARTS: usize = 7;
const CALLS_OF_A_JOB: usize = PARTS + 1;
/// How long an answer takes.
const LATENCY_MS: std::ops::Range<u64> = 100..500;
/// Time between two kills.
const PAUSE_MS: std::ops::Range<u64> = 300..2_500;
/// An answer that is as young as this when its worker dies may not have been kept yet.
const UNKEPT: Duration = Duration::from_millis(250);
/// Longest wait for the jobs once nobody is killed any more.
const PATIENCE: Duration = Duration::from_secs(300);
/// Pico-USD a token. Such that most calls do not cost whole nano-USD.
const PRICE_IN: u64 = 1_234_567;
const PRICE_OUT: u64 = 7_654_321;
const QUEUE: &str = "pay-once";

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) jobs: usize,
    pub(super) kills: usize,
    pub(super) seed: u64,
}

/// A call as the provider saw it.
struct Call {
    /// Which worker made it.
    worker: String,
    id: String,
    began: Instant,
    ended: Option<Instant>,
    /// What it cost, if it was answered in full.
    charged: Option<u64>,
}

/// The provider's own log.
#[derive(Default)]
struct Log(Mutex<BTreeMap<u64, Call>>);

impl Log {
    fn calls(&self) -> MutexGuard<'_, BTreeMap<u64, Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Director for Log {
    fn began(&self, number: u64, call: &SeenCall) -> (Duration, Behaviour) {
        let worker = call.authorization.clone().unwrap_or_default().trim_start_matches("Bearer ").to_owned();
        let id = call.call_id.clone().unwrap_or_default();
        self.calls().insert(number, Call { worker, id, began: Instant::now(), ended: None, charged: None });
        // Spread evenly, and the same for the same number.
        let latency = LATENCY_MS.start + number.wrapping_mul(7_919) % (LATENCY_MS.end - LATENCY_MS.start);
        (Duration::from_millis(latency), Behaviour::Answer)
    }

    fn ended(&self, number: u64, call: &SeenCall) {
        if let Some(known) = self.calls().get_mut(&number) {
            known.ended = Some(Instant::now());
            known.charged = call.answered.then(|| price(call.honest_usage()));
        }
    }
}

/// Nano-USD, rounded up once a call.
fn price((tokens_in, tokens_out): (u64, u64)) -> u64 {
    (tokens_in * PRICE_IN + tokens_out * PRICE_OUT).div_ceil(1_000)
}

/// One `kill -9`.
struct Kill {
    worker: String,
    before: Instant,
    after: Instant,
}

impl Kill {
    /// Whether the call was under way at the dead worker, or its answer was so young that it may not have been kept.
    fn hit(&self, call: &Call, unkept: Duration) -> bool {
        let open = call.ended.is_none_or(|ended| ended + unkept >= self.before);
        call.worker == self.worker && call.began <= self.after && open
    }
}

/// What the journal says.
#[derive(Deserialize)]
struct Books {
    jobs: Vec<Job>,
    spend: Vec<Spend>,
    charges: Vec<Charge>,
}

#[derive(Deserialize)]
struct Job {
    id: String,
    standing: i64,
}

#[derive(Deserialize)]
struct Spend {
    job_id: String,
    call_id: String,
    billed: String,
    cost_nanousd: Option<u64>,
}

#[derive(Deserialize)]
struct Charge {
    job_id: String,
    charge_nanousd: u64,
}

/// Everything in one snapshot; no join, so that what is there twice shows as two.
const BOOKS: &str = include_str!("pay_once.sql");
/// `standing` of a job that succeeded.
const SUCCEEDED: i64 = 1;

fn configuration(url: &str, prices: &Path) -> String {
    format!(
        "prices_file = {prices:?}\n\n[[providers]]\nname = \"mock\"\nurl = \"{url}\"\nkey_env = \"PAY_ONCE_KEY\"\n\
         models = [\"priced\"]\nconcurrency = 4_096\n"
    )
}

fn prices() -> String {
    format!(
        "version = \"pay-once\"\n[models.\"priced\"]\ninput = {PRICE_IN}\noutput = {PRICE_OUT}\ncontext_window = 128_000\n"
    )
}

/// A document of as many parts as fit one chunk each.
fn job(number: usize) -> Value {
    let part = |part: usize| {
        format!(
            "Ship {number}, part {part}: the harbour master counts what was loaded, what was lost, and who has paid for it."
        )
    };
    let text = (0..PARTS).map(part).collect::<Vec<_>>().join("\n\n");
    let payload = json!({
        "version": 1,
        "input": {"text": text},
        "defaults": {"model": "priced", "max_tokens": 64},
        "chunk": {"size": 48, "overlap": 0},
        "map": {"prompt": "Sum up: {{chunk}}", "concurrency": PARTS},
        "reduce": {"strategy": "llm", "prompt": "Join: {{items}}"},
    });
    json!({"queue": QUEUE, "kind": "analysis", "payload": payload})
}

/// Runs all of it.
pub(super) async fn measure(longshore: &Path, plan: Plan) -> Result<Vec<Judged>> {
    let log = Arc::new(Log::default());
    let provider = MockProvider::start_directed(log.clone()).await;
    let folder = tempfile::tempdir()?;
    let (file, price_file) = (folder.path().join("longshore.toml"), folder.path().join("prices.toml"));
    std::fs::write(&price_file, prices())?;
    std::fs::write(&file, configuration(&provider.url(), &price_file))?;
    let file = file.to_str().context("a temporary folder has a name in UTF-8")?;
    let environment = [
        ("LONGSHORE_CONFIG", file),
        ("LONGSHORE_WORKER_SLOTS", SLOTS),
        ("PAY_ONCE_KEY", "nobody"),
        ("RUST_LOG", "info"),
    ];
    let mut cluster = Cluster::start(longshore, &environment).await?;
    for role in [Role::Scheduler, Role::Api] {
        let number = cluster.spawn(role).await?;
        cluster.ready(number).await?;
    }
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        let key = format!("worker-{number}");
        let number = cluster.spawn_with(Role::Worker, &[("PAY_ONCE_KEY", &key)]).await?;
        cluster.ready(number).await?;
        workers.push((number, key));
    }
    let api = Client::new(cluster.apis().first().context("there is an API")?);
    api.submit_all(&(0..plan.jobs).map(job).collect::<Vec<_>>()).await?;
    let began = Instant::now();
    let (kills, early) = kill_at_random(&mut cluster, &workers, &api, plan).await?;
    let convicted = redrive_until_ended(&api, plan.jobs).await?;
    let took = began.elapsed();
    let books: Books = serde_json::from_str(&cluster.sql(BOOKS))?;
    cluster.stop().await?;
    let mut figures = compare(plan, &log.calls(), &kills, &books);
    figures.push(judged("kills after the last job had ended", early as f64, "kills", Bar::AtMost(0.0)));
    figures.push(informs("jobs that three kills convicted as poison, redriven", convicted as f64, "jobs"));
    figures.push(informs("time", took.as_secs_f64(), "s"));
    Ok(figures)
}

/// Kills and starts again; also says how many kills came too late to matter.
async fn kill_at_random(
    cluster: &mut Cluster,
    workers: &[(usize, String)],
    api: &Client,
    plan: Plan,
) -> Result<(Vec<Kill>, usize)> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let (mut kills, mut late) = (Vec::new(), 0);
    for number in 0..plan.kills {
        tokio::time::sleep(Duration::from_millis(random.random_range(PAUSE_MS))).await;
        let (member, key) = &workers[random.random_range(0..workers.len())];
        let numbers = api.queue(QUEUE).await?;
        let ended = numbers["completed"].as_u64().unwrap_or(0) + numbers["failed"].as_u64().unwrap_or(0);
        late += usize::from(ended >= plan.jobs as u64);
        let before = Instant::now();
        cluster.kill(*member).await?;
        kills.push(Kill { worker: key.clone(), before, after: Instant::now() });
        cluster.restart(*member).await?;
        eprintln!("kill {} of {}: {key}; {ended} jobs have ended", number + 1, plan.kills);
    }
    Ok((kills, late))
}

/// Waits for the end of all jobs. What outside kills have convicted is given another chance, as an operator would.
async fn redrive_until_ended(api: &Client, jobs: usize) -> Result<usize> {
    let until = Instant::now() + PATIENCE;
    let mut redriven = 0;
    loop {
        ensure!(
            api.until_ended(QUEUE, jobs as u64, until.duration_since(Instant::now())).await?,
            "the jobs do not end"
        );
        let dead = api.dead_letters(QUEUE).await?;
        if dead.is_empty() {
            return Ok(redriven);
        }
        ensure!(dead.iter().all(|(_, class)| class == "poison"), "a job has died of something else: {dead:?}");
        redriven += dead.len();
        for (id, _) in dead {
            api.redrive(&id).await?;
        }
    }
}

fn compare(plan: Plan, calls: &BTreeMap<u64, Call>, kills: &[Kill], books: &Books) -> Vec<Judged> {
    let mut charged: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for (call, cost) in calls.values().filter_map(|call| Some((call, call.charged?))) {
        let (times, of_one) = charged.entry(&call.id).or_default();
        (*times, *of_one) = (*times + 1, cost);
    }
    let mut kept: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    let mut of_job: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut jobs_of_calls, mut unsure) = (BTreeMap::new(), std::collections::BTreeSet::new());
    for row in &books.spend {
        match (row.billed.as_str(), row.cost_nanousd) {
            ("yes", Some(cost)) => {
                let (times, sum) = kept.entry(&row.call_id).or_default();
                (*times, *sum) = (*times + 1, *sum + cost);
                *of_job.entry(&row.job_id).or_default() += cost;
                jobs_of_calls.insert(row.call_id.as_str(), row.job_id.as_str());
            }
            ("maybe", _) => drop(unsure.insert(row.job_id.as_str())),
            _ => {}
        }
    }
    let charged_calls: usize = charged.values().map(|(times, _)| times).sum();
    let hit = |unkept| {
        let hit = |call: &&Call| kills.iter().any(|kill| kill.hit(call, unkept));
        calls.values().filter(hit).count()
    };
    let (in_flight, in_reach) = (hit(Duration::ZERO), hit(UNKEPT));
    // Answers that nobody kept, and rows that nobody charged.
    let (mut lost, mut lost_cost, mut unexplained) = (0, 0, 0);
    for (id, (times, cost)) in &charged {
        let heard = kept.get(id).map_or(0, |(times, _)| *times);
        let missing = times.saturating_sub(heard);
        (lost, lost_cost) = (lost + missing, lost_cost + missing as u64 * cost);
        let explained = jobs_of_calls.get(id).is_some_and(|job| unsure.contains(job));
        unexplained += if explained { 0 } else { missing };
    }
    let heard = |id: &str| charged.get(id).map_or(0, |(times, _)| *times);
    let invented: usize = kept.iter().map(|(id, (times, _))| times.saturating_sub(heard(id))).sum();
    let ledger: u64 = kept.values().map(|(_, sum)| sum).sum();
    let provider: u64 = charged.values().map(|(times, cost)| *times as u64 * cost).sum();
    let succeeded = books.jobs.iter().filter(|job| job.standing == SUCCEEDED).count();
    let mut charges: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for charge in &books.charges {
        charges.entry(&charge.job_id).or_default().push(charge.charge_nanousd);
    }
    let wrong = books.jobs.iter().filter(|job| {
        let own = of_job.get(job.id.as_str()).copied().unwrap_or(0);
        charges.get(job.id.as_str()).is_none_or(|charges| charges[..] != [own])
    });
    let expected = plan.jobs * CALLS_OF_A_JOB;
    vec![
        judged("jobs that succeeded", succeeded as f64, "jobs", Bar::Between(plan.jobs as f64, plan.jobs as f64)),
        judged(
            "calls that the provider charged, at most",
            charged_calls as f64,
            "calls",
            Bar::AtMost((expected + in_flight) as f64),
        ),
        judged("different calls", charged.len() as f64, "calls", Bar::Between(expected as f64, expected as f64)),
        informs("calls under way at the kills", in_flight as f64, "calls"),
        informs("the same, and answers of the last 250 ms before them", in_reach as f64, "calls"),
        informs("charged calls whose answer nobody kept", lost as f64, "calls"),
        judged("of these, in jobs without a row `billed = maybe`", unexplained as f64, "calls", Bar::AtMost(0.0)),
        judged("rows of the ledger that nobody charged", invented as f64, "rows", Bar::AtMost(0.0)),
        judged(
            "provider's log less the ledger less the answers that nobody kept",
            provider as f64 - ledger as f64 - lost_cost as f64,
            "nano-USD",
            Bar::Between(0.0, 0.0),
        ),
        informs("ledger", ledger as f64, "nano-USD"),
        informs("rows `billed = maybe`", books.spend.iter().filter(|row| row.billed == "maybe").count() as f64, "rows"),
        judged(
            "jobs that were not charged once, or not what their rows say",
            wrong.count() as f64,
            "jobs",
            Bar::AtMost(0.0),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(figures: &[Judged], beginning: &str) -> f64 {
        figures.iter().find(|one| one.what.starts_with(beginning)).unwrap().figure
    }

    #[test]
    fn a_price_is_rounded_up_once_a_call() {
        assert_eq!(price((1, 0)), 1_235);
        assert_eq!(price((1_000, 1_000)), 1_234_567 + 7_654_321);
        assert_eq!(price((3, 7)), (3 * 1_234_567 + 7 * 7_654_321) / 1_000 + 1);
    }

    /// What is planted must be found: a call that was paid twice, one that nobody wrote down, one that nobody made.
    #[test]
    fn what_is_wrong_shows() {
        let now = Instant::now();
        let call = |id: &str, worker: &str, began_ms, ended_ms| Call {
            worker: worker.into(),
            id: id.into(),
            began: now + Duration::from_millis(began_ms),
            ended: Some(now + Duration::from_millis(ended_ms)),
            charged: Some(100),
        };
        let row = |job: &str, call: &str, billed: &str| Spend {
            job_id: job.into(),
            call_id: call.into(),
            billed: billed.into(),
            cost_nanousd: (billed == "yes").then_some(100),
        };
        let at = |ms| now + Duration::from_millis(ms);
        let kill = Kill { worker: "w".into(), before: at(1_000), after: at(1_010) };
        let calls = [
            call("a", "w", 900, 1_005),
            call("a", "w", 2_000, 2_100),
            call("b", "v", 900, 1_005),
            call("c", "w", 100, 200),
        ];
        let calls: BTreeMap<u64, Call> = (0..).zip(calls).collect();
        let jobs = vec![Job { id: "j".into(), standing: 1 }, Job { id: "k".into(), standing: 2 }];
        let spend = vec![row("j", "a", "yes"), row("j", "lost", "maybe"), row("k", "b", "yes"), row("k", "d", "yes")];
        let charges = vec![Charge { job_id: "j".into(), charge_nanousd: 100 }];
        let plan = Plan { jobs: 2, kills: 1, seed: 0 };
        let figures = compare(plan, &calls, &[kill], &Books { jobs, spend, charges });
        assert_eq!(figure(&figures, "jobs that succeeded"), 1.0);
        assert_eq!(figure(&figures, "calls that the provider charged"), 4.0);
        assert_eq!(figure(&figures, "calls under way"), 1.0, "of the dead worker only");
        assert_eq!(figure(&figures, "charged calls whose answer"), 2.0, "the first `a`, and `c`");
        assert_eq!(figure(&figures, "of these"), 1.0, "`c` is in nobody's books");
        assert_eq!(figure(&figures, "rows of the ledger"), 1.0, "`d` was never made");
        assert_eq!(figure(&figures, "provider's log"), -100.0);
        assert_eq!(figure(&figures, "jobs that were not charged"), 1.0);
    }
}
