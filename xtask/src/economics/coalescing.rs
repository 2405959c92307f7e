//! Embedding jobs of one short input before a provider that takes 50 ms a call and works on 20 at once: alone and together;
//! then the same jobs again, and a bad one among good ones.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
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

const JOBS: usize = 10_000;
/// What the provider is like.
const LATENCY: Duration = Duration::from_millis(50);
const CALLS_AT_ONCE: usize = 20;
/// Jobs of the run with a bad one: a full call.
const MIXED_JOBS: usize = 256;
/// What the provider refuses.
const BAD: &str = "a bad input";
/// Longest wait for a run.
const PATIENCE: Duration = Duration::from_secs(180);

/// Two names for one provider: `alone` is asked job by job, as many at once as it works on; `together` is asked for many, by
/// no more calls.
fn configuration(url: &str) -> String {
    let jobs = CALLS_AT_ONCE * 256;
    format!(
        "[[providers]]\nname = \"alone\"\nurl = \"{url}\"\nmodels = [\"alone\"]\nconcurrency = {CALLS_AT_ONCE}\n\
         [providers.embedding]\ntogether = false\n\n\
         [[providers]]\nname = \"together\"\nurl = \"{url}\"\nmodels = [\"together\"]\nconcurrency = {jobs}\n\
         [providers.embedding]\ncalls_max = {CALLS_AT_ONCE}\n"
    )
}

/// Counts calls, and refuses what is bad.
#[derive(Default)]
struct Counting {
    calls: AtomicU64,
}

impl Counting {
    fn take(&self) -> u64 {
        self.calls.swap(0, Ordering::SeqCst)
    }
}

impl Director for Counting {
    fn began(&self, _: u64, call: &SeenCall) -> (Duration, Behaviour) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let input = call.body["input"].as_array().map(Vec::as_slice).unwrap_or_default();
        match input.iter().any(|text| text == BAD) {
            true => (LATENCY, Behaviour::Status(400)),
            false => (LATENCY, Behaviour::Answer),
        }
    }

    fn ended(&self, _: u64, _: &SeenCall) {}
}

fn job(queue: &str, model: &str, input: &str) -> Value {
    json!({"queue": queue, "kind": "embedding", "payload": {"model": model, "input": input}})
}

fn jobs(queue: &str, model: &str) -> Vec<Value> {
    (0..JOBS).map(|number| job(queue, model, &format!("the ship with the number {number}"))).collect()
}

/// Runs jobs that all wait already; jobs a second, and the queue's numbers.
async fn drain(api: &Client, queue: &str, jobs: &[Value]) -> Result<(f64, Value)> {
    api.set_queue(queue, &json!({"paused": true, "reason": "cargo xtask economics"})).await?;
    api.submit_all(jobs).await?;
    let began = Instant::now();
    api.set_queue(queue, &json!({"paused": false})).await?;
    ensure!(api.until_ended(queue, jobs.len() as u64, PATIENCE).await?, "the drain of {queue} does not end");
    let rate = jobs.len() as f64 / began.elapsed().as_secs_f64();
    Ok((rate, api.queue(queue).await?))
}

/// Runs all of it.
pub(super) async fn measure(longshore: &Path) -> Result<Vec<Judged>> {
    let counting = Arc::new(Counting::default());
    let provider = MockProvider::start_directed(counting.clone()).await;
    provider.set_calls_at_once(CALLS_AT_ONCE);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("longshore.toml");
    std::fs::write(&file, configuration(&provider.url()))?;
    let file = file.to_str().context("a temporary folder has a name in UTF-8")?;
    let environment = [("LONGSHORE_CONFIG", file), ("LONGSHORE_WORKER_SLOTS", "6000"), ("RUST_LOG", "warn")];
    let mut cluster = Cluster::start(longshore, &environment).await?;
    for role in [Role::Scheduler, Role::Api, Role::Worker] {
        let number = cluster.spawn(role).await?;
        cluster.ready(number).await?;
    }
    let api = Client::new(cluster.apis().first().context("there is an API")?);

    let run = async |queue: &str, jobs: Vec<Value>| {
        let (rate, numbers) = drain(&api, queue, &jobs).await?;
        let calls = counting.take();
        eprintln!("{queue}: {} jobs, {rate:.0}/s, {calls} calls, {} failed", jobs.len(), numbers["failed"]);
        anyhow::Ok((rate, calls as f64, numbers["failed"].as_f64().unwrap_or(f64::NAN)))
    };
    let (alone, alone_calls, _) = run("alone", jobs("alone", "alone")).await?;
    let (together, calls, _) = run("together", jobs("together", "together")).await?;
    let (again, calls_again, _) = run("again", jobs("again", "together")).await?;
    let mixed = (0..MIXED_JOBS).map(|number| match number {
        100 => job("mixed", "together", BAD),
        number => job("mixed", "together", &format!("the barge with the number {number}")),
    });
    let (_, mixed_calls, failed) = run("mixed", mixed.collect()).await?;
    cluster.stop().await?;
    // Those that came in one call cost two for each time that they are halved; a run may begin with a smaller one.
    let halvings = (MIXED_JOBS as f64).log2().ceil();
    Ok(vec![
        judged("throughput with coalescing, of that without", together / alone, "times", Bar::AtLeast(20.0)),
        informs("without coalescing", alone, "jobs/s"),
        informs("without coalescing: calls", alone_calls, "calls"),
        informs("with coalescing", together, "jobs/s"),
        informs("with coalescing: calls", calls, "calls"),
        judged("the same jobs again: calls (cache)", calls_again, "calls", Bar::AtMost(0.0)),
        informs("the same jobs again", again, "jobs/s"),
        judged("jobs that failed with one bad input among 256", failed, "jobs", Bar::AtMost(1.0)),
        judged("the bad input fails", failed, "jobs", Bar::AtLeast(1.0)),
        judged("calls for these 256, at most", mixed_calls, "calls", Bar::AtMost(2.0 * halvings + 8.0)),
    ])
}
