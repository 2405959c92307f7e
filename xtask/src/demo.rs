//! `cargo xtask cluster`: every role several times on one machine, with something to do. The example for readers: start
//! what a production set-up has, submit over either API, look at any of them.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    cluster::{Cluster, KEY, Role},
    root, run as run_command,
};

/// The processes of the example.
const MEMBERS: [Role; 7] =
    [Role::Api, Role::Api, Role::Worker, Role::Worker, Role::Worker, Role::Scheduler, Role::Scheduler];
/// Jobs of one bulk submit.
const BULK_JOBS: usize = 100;
/// Time between two bulk submits, and between two lines of progress.
const SUBMIT_EVERY: Duration = Duration::from_millis(500);
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Starts the cluster and its load, and ends both after `seconds` or at Ctrl-C.
pub(crate) fn run(seconds: Option<u64>, jobs: usize) -> Result<()> {
    run_command("cargo", &["build", "--locked", "--package", "cli"])?;
    tokio::runtime::Runtime::new()?.block_on(run_cluster(seconds, jobs))
}

async fn run_cluster(seconds: Option<u64>, jobs: usize) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let end = async {
        match seconds {
            Some(seconds) => sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let mut cluster = Cluster::start(&debug_binary()?, &[]).await?;
    println!("postgres   {}\nredis      {}", cluster.database, cluster.redis.url());
    let shown = show(&mut cluster, jobs);
    let outcome = tokio::select! {
        Err(error) = shown => Err(error),
        () = end => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    println!("stopping");
    cluster.stop().await?;
    outcome
}

/// Ends only by an error.
async fn show(cluster: &mut Cluster, jobs: usize) -> Result<std::convert::Infallible> {
    let mut a_worker = 0;
    for role in MEMBERS {
        let number = cluster.spawn(role).await?;
        if role == Role::Worker {
            a_worker = number;
        }
        println!("{role:<10} {}", cluster.members[number].url);
    }
    for number in 0..MEMBERS.len() {
        cluster.ready(number).await?;
    }
    let apis = cluster.apis();
    println!(
        "\nAll are ready. In another terminal:\n  LONGSHORE_URL={} LONGSHORE_KEY={KEY} longshore queue list\n",
        apis[0]
    );
    let http = reqwest::Client::new();
    let (mut left, mut turn, mut last) = (jobs, 0, String::new());
    let mut submits = interval(SUBMIT_EVERY);
    submits.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = interval(PROGRESS_EVERY);
    loop {
        turn += 1;
        // Either API will do: they share nothing but the stores.
        let api = &apis[turn % apis.len()];
        tokio::select! {
            _ = submits.tick(), if left > 0 => {
                let count = left.min(BULK_JOBS);
                submit(&http, api, count).await?;
                left -= count;
                if left == 0 {
                    replace(cluster, a_worker).await?;
                }
            }
            _ = looks.tick() => {
                let line = progress(&http, api).await?;
                if line != last {
                    println!("{line}");
                    last = line;
                }
            }
        }
    }
}

/// What a pod that is evicted looks like: its jobs go on elsewhere, and nobody has to do anything.
async fn replace(cluster: &mut Cluster, number: usize) -> Result<()> {
    println!("kill -9 of the worker {}, and another in its place", cluster.members[number].url);
    cluster.kill(number).await?;
    cluster.restart(number).await
}

/// Half of them call the simulated provider, half only wait.
async fn submit(http: &reqwest::Client, api: &str, count: usize) -> Result<()> {
    let job = |number: usize| match number % 2 {
        0 => {
            json!({"queue": "llm", "kind": "llm", "payload": {"messages": [{"role": "user", "content": "Say hello"}]}})
        }
        _ => json!({"queue": "probes", "kind": "probe", "payload": {"sleep_ms": 100 * (number % 20)}}),
    };
    let jobs: Vec<_> = (0..count).map(job).collect();
    let answer = http.post(format!("{api}/v1/jobs/bulk")).bearer_auth(KEY).json(&jobs).send().await?;
    ensure!(answer.status().is_success(), "{}", answer.text().await?);
    Ok(())
}

async fn progress(http: &reqwest::Client, api: &str) -> Result<String> {
    let answer = http.get(format!("{api}/v1/queues/metrics")).bearer_auth(KEY).send().await?;
    let metrics: Value = answer.error_for_status()?.json().await?;
    let queues = metrics["queues"].as_object().context("no queues in the metrics")?;
    let of = |name: &str, numbers: &Value| format!("{name} {}", numbers[name]);
    let line = |(queue, numbers): (&String, &Value)| {
        let states = ["waiting", "active", "completed", "failed"].map(|name| of(name, numbers));
        format!("{queue}: {}", states.join(", "))
    };
    Ok(queues.iter().map(line).collect::<Vec<_>>().join("   "))
}

fn debug_binary() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let binary = target.join("debug/longshore");
    ensure!(binary.exists(), "{} is missing", binary.display());
    Ok(binary)
}
