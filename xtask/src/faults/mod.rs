//! `cargo xtask faults`: load, faults, histories, verdict.
//!
//! One scenario after the other: throw-away servers, the processes of the release binary, an open-loop load, faults by
//! a seeded plan, rest, and a checker that reads what the witnesses wrote and the final tables.

mod check;
mod fleet;
mod history;
mod inject;
mod load;
mod plan;
mod tables;
mod verdict;
mod witness;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use testkit::{MockProvider, PostgresServer, RedisServer};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::Instant,
};

pub(crate) use self::fleet::binary;
use self::{
    check::{Evidence, Report},
    fleet::{Fleet, Surroundings},
    history::{Clock, InjectorEvent, Writer},
    inject::Victims,
    load::Load,
    plan::{SCENARIOS, Scenario},
    tables::Tables,
    witness::Witness,
};
use crate::{cluster::Role, root, run};

/// Longest wait until every process is ready for the first time.
const READY_MAX: Duration = Duration::from_secs(60);
/// Time between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this scenario: everything, flush-only or short; without it, the first two
    #[arg(long)]
    only: Option<String>,
    /// Decides load and faults; a run prints its own
    #[arg(long)]
    seed: Option<u64>,
    /// Length of `everything` in minutes; the others grow with it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_440))]
    minutes: u32,
    /// The debug build instead of the release build
    #[arg(long)]
    debug: bool,
    /// Keeps the histories of runs without a violation, too
    #[arg(long)]
    keep: bool,
    /// Judges the histories in this folder again, by the demands of `--only`; starts nothing
    #[arg(long, value_name = "FOLDER", requires = "only")]
    judge: Option<PathBuf>,
}

/// The short form, with the debug build that `cargo test` has just made.
pub(crate) fn run_short() -> Result<()> {
    let folder = new_folder(&plan::SHORT, plan::SHORT_SEED)?;
    let binary = binary(&root(), true)?;
    finish(vec![run_one(&plan::SHORT, 1, plan::SHORT_SEED, &binary, folder)?], false)
}

/// Runs the suite and fails if a promise is broken.
pub(crate) fn run_suite(arguments: &Arguments) -> Result<()> {
    let chosen = choose(arguments.only.as_deref())?;
    if let Some(folder) = &arguments.judge {
        let judged = chosen.into_iter().map(|one| Ok((one.name, judge(folder, one)?, folder.clone())));
        return conclude(&judged.collect::<Result<Vec<_>>>()?);
    }
    match arguments.debug {
        true => run("cargo", &["build", "--locked", "--package", "cli"])?,
        false => run("cargo", &["build", "--release", "--locked", "--package", "cli"])?,
    }
    let binary = binary(&root(), arguments.debug)?;
    let seed = arguments.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let outcomes: Result<Vec<Outcome>> = chosen
        .into_iter()
        .map(|scenario| run_one(scenario, arguments.minutes, seed, &binary, new_folder(scenario, seed)?))
        .collect();
    finish(outcomes?, arguments.keep)
}

/// A scenario's name, what it came to, and its histories.
type Outcome = (&'static str, Report, PathBuf);

fn new_folder(scenario: &Scenario, seed: u64) -> Result<PathBuf> {
    let folder = root().join(format!("target/faults/{}-{seed}-{}", scenario.name, std::process::id()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn run_one(scenario: &'static Scenario, minutes: u32, seed: u64, binary: &Path, folder: PathBuf) -> Result<Outcome> {
    let report = in_time(one(scenario, minutes, seed, binary, &folder))
        .with_context(|| format!("{}; the histories are in {}", scenario.name, folder.display()))?;
    Ok((scenario.name, report, folder))
}

/// Prints the tables, and keeps the histories of broken promises.
fn finish(outcomes: Vec<Outcome>, keep: bool) -> Result<()> {
    let outcome = conclude(&outcomes);
    for (_, report, folder) in &outcomes {
        if report.violations.is_empty() && !keep {
            fs::remove_dir_all(folder)?;
        } else {
            println!("kept: {}", folder.display());
        }
    }
    outcome
}

fn choose(only: Option<&str>) -> Result<Vec<&'static Scenario>> {
    let Some(only) = only else { return Ok(SCENARIOS.iter().filter(|one| one.name != plan::SHORT.name).collect()) };
    let known: Vec<&str> = SCENARIOS.iter().map(|one| one.name).collect();
    let found = SCENARIOS.iter().find(|one| one.name == only);
    found.map(|one| vec![one]).with_context(|| format!("there is no scenario `{only}`; known: {}", known.join(", ")))
}

/// Prints the tables; an error if a promise is broken.
fn conclude(outcomes: &[Outcome]) -> Result<()> {
    for (name, report, _) in outcomes {
        verdict::print(name, report);
    }
    let violations: usize = outcomes.iter().map(|(_, report, _)| report.violations.len()).sum();
    ensure!(violations == 0, "{violations} violations");
    Ok(())
}

/// Runs a scenario until it ends or a signal comes. Servers and processes end with it either way: each is killed when
/// its owner is dropped.
fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            done = work => done,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

/// One scenario from empty servers to its report.
async fn one(scenario: &Scenario, lengths: u32, seed: u64, binary: &Path, folder: &Path) -> Result<Report> {
    let steps = plan::schedule(scenario, lengths, seed);
    println!("\n{}: {}", scenario.name, scenario.purpose);
    println!("  {} jobs/s for {} s, seed {seed}", scenario.rate, (scenario.load * lengths).as_secs());
    let clock = Clock::start();
    let witness = Witness::new(Writer::open(folder, history::PROVIDER, clock)?);
    let provider = MockProvider::start_directed(witness.clone()).await;
    let (redis, postgres, database) = tokio::task::spawn_blocking(|| {
        let postgres = PostgresServer::start();
        let url = postgres.database();
        (RedisServer::start(), postgres, url)
    })
    .await?;
    let around = Surroundings {
        binary: binary.to_owned(),
        folder: folder.to_owned(),
        journal: database.clone(),
        dispatcher: redis.url(),
        provider: provider.url(),
    };
    let fleet = Fleet::start(around, scenario.processes)?;
    let (apis, names) = (fleet.urls(Role::Api), fleet.names());
    let all: Vec<String> =
        [Role::Scheduler, Role::Worker, Role::Api].into_iter().flat_map(|role| fleet.urls(role)).collect();
    names.iter().enumerate().for_each(|(number, name)| println!("  process {number}: {name}"));
    steps.iter().for_each(|step| println!("  {step}"));
    let victims = Victims {
        fleet: Arc::new(Mutex::new(fleet)),
        redis: Arc::new(Mutex::new(redis)),
        postgres: Arc::new(postgres),
        history: Arc::new(Writer::open(folder, history::INJECTOR, clock)?),
    };
    let clients = Arc::new(Writer::open(folder, history::CLIENTS, clock)?);
    let time = scenario.load * lengths;
    let (rate, long_percent) = (scenario.rate, scenario.long_percent);
    let load = Load { urls: apis, rate, long_percent, time, seed, history: clients };
    let name = database.rsplit('/').next().unwrap_or_default().to_owned();
    let work = async {
        until_ready(&all).await?;
        disturb(load, steps, &victims, scenario.drain, &name).await
    };
    tokio::select! {
        supervised = inject::supervise(victims.clone()) => supervised?,
        done = work => done?,
    }
    ensure!(!witness.is_broken(), "the provider's history could not be written");
    let (postgres, kept) = (victims.postgres.clone(), folder.to_owned());
    tokio::task::spawn_blocking(move || Tables::read(&postgres, &name, &kept)).await??;
    judge(folder, scenario)
}

/// Load and faults at once, then rest.
async fn disturb(load: Load, steps: Vec<plan::Step>, victims: &Victims, drain: Duration, database: &str) -> Result<()> {
    let (began, time) = (Instant::now(), load.time);
    // Ends with this function, whatever happens.
    let mut clients = JoinSet::new();
    clients.spawn(load.run());
    inject::inject(victims.clone(), steps, began).await?;
    tokio::time::sleep_until(began + time).await;
    let history = victims.history.clone();
    let rest = async {
        while let Some(answered) = clients.join_next().await {
            answered??;
        }
        loop {
            let (postgres, database) = (victims.postgres.clone(), database.to_owned());
            let live = tokio::task::spawn_blocking(move || tables::live(&postgres, &database)).await??;
            if live == 0 {
                return Ok::<_, anyhow::Error>(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    history.note(InjectorEvent::FaultsEnded)?;
    let live = match tokio::time::timeout(drain, rest).await {
        Ok(done) => {
            done?;
            0
        }
        Err(_) => {
            let (postgres, database) = (victims.postgres.clone(), database.to_owned());
            tokio::task::spawn_blocking(move || tables::live(&postgres, &database)).await??
        }
    };
    history.note(InjectorEvent::Drained { live })
}

/// Waits until every process says that it is ready.
async fn until_ready(urls: &[String]) -> Result<()> {
    let http = reqwest::Client::new();
    let ready = async {
        for url in urls {
            let probe =
                || async { http.get(format!("{url}/readyz")).send().await.is_ok_and(|a| a.status().is_success()) };
            while !probe().await {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    };
    tokio::time::timeout(READY_MAX, ready).await.context("the processes do not become ready; see their logs")
}

/// Judges what a folder holds.
fn judge(folder: &Path, scenario: &Scenario) -> Result<Report> {
    let evidence = Evidence::read(folder, Tables::kept(folder)?)?;
    Ok(check::check(&evidence, scenario.demands))
}
