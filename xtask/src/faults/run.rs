//! One scenario, from empty servers to its report.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use testkit::{MockProvider, PostgresServer, RedisServer};
use tokio::{task::JoinSet, time::Instant};

use super::{
    backups,
    check::{self, Evidence, Report},
    disk::Disk,
    fleet::{Fleet, Surroundings},
    history::{self, Clock, InjectorEvent, Writer},
    inject::{self, Victims},
    links::Links,
    load::Load,
    memory::MemoryGroups,
    plan,
    scenario::{Persistence, Rival, Scenario, Trouble},
    tables::{self, Tables},
    witness::Witness,
};
use crate::{bars, bench::until_told, cluster::Role};

/// Longest wait until every process is ready for the first time.
const READY_MAX: Duration = Duration::from_secs(60);
/// Time between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What workers count when they are told that a job has moved on without them.
const FENCED: &str = "longshore_settle_rejected_total";

/// What decides a run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Lengths of the load.
    pub(crate) lengths: u32,
    /// Decides load and faults.
    pub(crate) seed: u64,
    /// What is run.
    pub(crate) binary: PathBuf,
    /// For the histories.
    pub(crate) folder: PathBuf,
}

/// Runs a scenario.
pub(crate) fn scenario(scenario: &Scenario, settings: &Settings) -> Result<Report> {
    until_told(one(scenario, settings))
}

/// Judges what a folder holds.
pub(crate) fn judge(folder: &Path, scenario: &Scenario) -> Result<Report> {
    let evidence = Evidence::read(folder, Tables::kept(folder)?)?;
    Ok(check::check(&evidence, scenario.demands))
}

async fn one(scenario: &Scenario, settings: &Settings) -> Result<Report> {
    let Settings { lengths, seed, binary, folder } = settings;
    let steps = plan::schedule(scenario, *lengths, *seed);
    let time = scenario.load.time * *lengths;
    println!("\n{}: {}", scenario.name, scenario.purpose);
    println!("  {} jobs/s for {} s, seed {seed}", scenario.load.rate, time.as_secs());
    let clock = Clock::start();
    let witness = Witness::new(Writer::open(folder, history::PROVIDER, clock)?);
    let provider = MockProvider::start_directed(witness.clone()).await;
    let options = redis_options(scenario);
    let (bytes, beside) = (scenario.disk_bytes, folder.clone());
    // In this order they are dropped in the other: a server before its disk.
    let (disk, redis, postgres, journal) = tokio::task::spawn_blocking(move || {
        let disk = bytes.map(|bytes| Disk::make(&beside, bytes)).transpose()?.map(Arc::new);
        let postgres = disk.as_ref().map_or_else(PostgresServer::start, |disk| PostgresServer::start_in(disk.at()));
        let url = postgres.database();
        anyhow::Ok((disk, RedisServer::start_with(&options), postgres, url))
    })
    .await??;
    let database = journal.rsplit('/').next().unwrap_or_default().to_owned();
    let links = Arc::new(Links::start(scenario, redis.port(), postgres.port()).await?);
    let keys = if scenario.backs_up() { Some(bars::Keys::make().await?) } else { None };
    let around = Surroundings {
        binary: binary.clone(),
        folder: folder.clone(),
        journal,
        dispatcher: redis.url(),
        provider: provider.url(),
        links: links.clone(),
        sabotage: scenario.sabotage,
        places: places(scenario, folder, keys.as_ref()),
        clock: scenario.clock.map(|(role, seconds)| anyhow::Ok((role, bars::shifted(seconds)?))).transpose()?,
        memory: scenario.worker_memory_mib.map(MemoryGroups::make).transpose()?.map(Arc::new),
    };
    let fleet = Fleet::start(around, scenario.processes)?;
    let urls = |role| fleet.urls(role);
    let (apis, workers) = (urls(Role::Api), urls(Role::Worker));
    let all = [urls(Role::Scheduler), workers.clone(), apis.clone()].concat();
    fleet.names().iter().enumerate().for_each(|(number, name)| println!("  process {number}: {name}"));
    steps.iter().for_each(|step| println!("  {step}"));
    let victims = Victims {
        fleet: Arc::new(Mutex::new(fleet)),
        redis: Arc::new(Mutex::new(redis)),
        postgres: Arc::new(postgres),
        database: database.clone(),
        links,
        disk: disk.clone(),
        backs_up: scenario.backs_up(),
        history: Arc::new(Writer::open(folder, history::INJECTOR, clock)?),
        open: Arc::default(),
    };
    let clients = Arc::new(Writer::open(folder, history::CLIENTS, clock)?);
    let api = apis[0].clone();
    let load = Load { urls: apis, shape: scenario.load, time, seed: *seed, history: clients };
    let work = async {
        until_ready(&all).await?;
        let count = victims.redis_keys()?;
        victims.history.note(InjectorEvent::Counted { metric: history::REDIS_KEYS_BEFORE.to_owned(), count })?;
        let load = load.fill().await?;
        let until = Instant::now() + load.time;
        let mut orders = JoinSet::new();
        if scenario.backs_up() {
            orders.spawn(backups::order(api.clone(), until));
        }
        disturb(load, steps, &victims, scenario.drain).await?;
        while let Some(ended) = orders.join_next().await {
            ended??;
        }
        if scenario.backs_up() {
            backups::examine(&victims, &api).await?;
        }
        let fenced = counted(&workers, FENCED).await;
        victims.history.note(InjectorEvent::Counted { metric: FENCED.to_owned(), count: fenced })?;
        let count = victims.redis_keys()?;
        victims.history.note(InjectorEvent::Counted { metric: history::REDIS_KEYS.to_owned(), count })
    };
    tokio::select! {
        supervised = inject::supervise(victims.clone()) => supervised?,
        done = work => done?,
    }
    ensure!(!witness.is_broken(), "the provider's history could not be written");
    let (postgres, kept) = (victims.postgres.clone(), folder.clone());
    tokio::task::spawn_blocking(move || Tables::read(&postgres, &database, &kept)).await??;
    judge(folder, scenario)
}

/// Where objects and backups go, if anything of the scenario wants them: what is a secret lies in the folder of the run.
fn places(scenario: &Scenario, folder: &Path, keys: Option<&bars::Keys>) -> Vec<(&'static str, String)> {
    let place = |name: &str| format!("file:{}", folder.join(name).display());
    let mut places = Vec::new();
    if scenario.load.races.contains(&Rival::Archive) {
        places.push(("LONGSHORE_OBJECTS_URL", place("objects")));
    }
    if let Some(keys) = keys {
        places.push(("LONGSHORE_BACKUP_URL", place("backups")));
        places.extend(keys.variables());
    }
    places
}

fn redis_options(scenario: &Scenario) -> Vec<&'static str> {
    let mut options = match scenario.redis {
        Persistence::Nothing => vec![],
        Persistence::EverySecond => vec!["--appendonly", "yes", "--appendfsync", "everysec"],
        Persistence::Always => vec!["--appendonly", "yes", "--appendfsync", "always"],
    };
    if scenario.troubles.iter().any(|(_, trouble)| *trouble == Trouble::Reload) {
        options.extend(["--enable-debug-command", "local"]);
    }
    options
}

/// Load and faults at once, then rest.
async fn disturb(load: Load, steps: Vec<plan::Step>, victims: &Victims, drain: Duration) -> Result<()> {
    let (began, time) = (Instant::now(), load.time);
    // Ends with this function, whatever happens.
    let mut clients = JoinSet::new();
    clients.spawn(load.run());
    inject::inject(victims.clone(), steps, began).await?;
    tokio::time::sleep_until(began + time).await;
    let history = victims.history.clone();
    let live = || {
        let (postgres, database) = (victims.postgres.clone(), victims.database.clone());
        async move { tokio::task::spawn_blocking(move || tables::live(&postgres, &database)).await? }
    };
    let rest = async {
        while let Some(answered) = clients.join_next().await {
            answered??;
        }
        while live().await? > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok::<_, anyhow::Error>(())
    };
    history.note(InjectorEvent::FaultsEnded)?;
    let live = match tokio::time::timeout(drain, rest).await {
        Ok(done) => {
            done?;
            0
        }
        Err(_) => live().await?,
    };
    history.note(InjectorEvent::Drained { live })
}

/// Waits until every process says that it is ready.
pub(crate) async fn until_ready(urls: &[String]) -> Result<()> {
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

/// What a metric of all these processes comes to; one that does not answer counts nothing.
async fn counted(urls: &[String], metric: &str) -> u64 {
    let mut sum = 0.0;
    for url in urls {
        let Ok(page) = reqwest::get(format!("{url}/metrics")).await else { continue };
        let text = page.text().await.unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with(metric));
        sum += lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
    }
    sum as u64
}
