//! What the limiter costs: the same jobs drained with and without a limit that never binds, and reservations a second.
//!
//! The drained jobs are `llm` jobs before the built-in provider, which answers at once: a `probe` job calls no provider, so no
//! limiter would be asked for it. Without a limit the built-in provider's calls are not asked about at all.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::RedisServer;

use super::{
    figures_of,
    limiter::{informs, judged},
    load::{Client, job},
};
use crate::{
    bar::{Bar, Judged},
    cluster::{Cluster, Role},
};

/// Jobs of one drain.
const JOBS: usize = 60_000;
/// Drains of each kind, in turn: the machine is not the same from one minute to the next.
const ROUNDS: usize = 5;
/// Longest wait for a drain.
const PATIENCE: Duration = Duration::from_secs(120);

const CONFIGURATION: &str = "[[providers]]\nname = \"free\"\nkind = \"simulated\"\nmodels = [\"free\"]\n\
    first_token = \"0s\"\ntokens_per_second = 0\n\n\
    [[providers]]\nname = \"bound\"\nkind = \"simulated\"\nmodels = [\"bound\"]\nfirst_token = \"0s\"\n\
    tokens_per_second = 0\nrequests_per_minute = 1000000000\ntokens_per_minute = 1000000000000\n";

/// Runs all of it.
pub(super) async fn measure(longshore: &Path, speed: &std::path::PathBuf) -> Result<Vec<Judged>> {
    let redis = tokio::task::spawn_blocking(RedisServer::start).await?;
    let figures = figures_of(speed, &[&redis.url(), "5"]).await?;
    let mut judged_figures = vec![
        judged("reserve + settle, one target", figures.get("calls_per_s_1")?, "/s", Bar::AtLeast(30_000.0)),
        informs("reserve + settle, eight targets", figures.get("calls_per_s_8")?, "/s"),
    ];
    let mut rates = [vec![], vec![]];
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("longshore.toml");
    std::fs::write(&file, CONFIGURATION)?;
    let file = file.to_str().context("a temporary folder has a name in UTF-8")?;
    let environment = [("LONGSHORE_CONFIG", file), ("LONGSHORE_WORKER_SLOTS", "2000"), ("RUST_LOG", "warn")];
    let mut cluster = Cluster::start(longshore, &environment).await?;
    for role in [Role::Scheduler, Role::Api, Role::Worker] {
        let number = cluster.spawn(role).await?;
        cluster.ready(number).await?;
    }
    let api = Client::new(cluster.apis().first().context("there is an API")?);
    for round in 0..ROUNDS {
        for (kind, model) in ["free", "bound"].into_iter().enumerate() {
            let rate = drain(&api, &format!("{model}-{round}"), model).await?;
            eprintln!("drain of {JOBS} llm jobs, {model}: {rate:.0}/s");
            rates[kind].push(rate);
        }
    }
    cluster.stop().await?;
    let [free, bound] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    judged_figures.extend([
        judged(
            "drain through a limit that never binds, of the rate without",
            bound / free * 100.0,
            "%",
            Bar::AtLeast(80.0),
        ),
        informs("drain without a limit (middle of five)", free, "jobs/s"),
        informs("drain through a limit (middle of five)", bound, "jobs/s"),
    ]);
    Ok(judged_figures)
}

async fn drain(api: &Client, queue: &str, model: &str) -> Result<f64> {
    api.set_queue(queue, &json!({"paused": true, "reason": "cargo xtask economics"})).await?;
    let jobs = vec![job(queue, model, "How many?", 16); JOBS];
    api.submit_all(&jobs).await?;
    let began = Instant::now();
    api.set_queue(queue, &json!({"paused": false})).await?;
    ensure!(api.until_ended(queue, JOBS as u64, PATIENCE).await?, "the drain of {queue} does not end");
    Ok(JOBS as f64 / began.elapsed().as_secs_f64())
}
