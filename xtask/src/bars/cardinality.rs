//! How many series a process shows after many jobs of many tenants, each with a queue and a model that it has made up.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use super::judged;
use crate::{
    bar::{Bar, Judged},
    cluster::{Cluster, KEY, Role},
};

/// Their jobs go out in so many requests, of [`BATCH`] each.
const BATCHES: usize = 20;
const BATCH: usize = 5_000;
/// Tenants, as many queues and as many models.
const TENANTS: usize = 1_000;
/// Every such job asks a model.
const CHAT_EVERY: usize = 10;
/// Every such probe fails for good, and every such one needs a second attempt.
const DEAD_EVERY: usize = 997;
const RETRY_EVERY: usize = 499;
/// Series of one process.
const SERIES_MAX: f64 = 3_000.0;
/// Longest wait for the last job, and time between two looks.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A provider that answers at once, whatever the model is called.
const CONFIGURATION: &str = "[[providers]]\nname = \"simulated\"\nkind = \"simulated\"\nfirst_token = \"0s\"\n\
                             tokens_per_second = 0\nconcurrency = 1000\n";

/// The series of each role.
pub(super) async fn measure(longshore: &Path) -> Result<Vec<Judged>> {
    let files = TempDir::new()?;
    let file = files.path().join("longshore.toml");
    std::fs::write(&file, CONFIGURATION)?;
    let file = file.to_str().context("a path in UTF-8")?;
    let mut cluster = Cluster::start(longshore, &[("LONGSHORE_CONFIG", file)]).await?;
    let roles = [Role::Api, Role::Worker, Role::Scheduler];
    cluster.spawn_all(&roles).await?;
    let (api, http) = (cluster.members[0].url.clone(), reqwest::Client::new());
    let total = BATCHES * BATCH;
    eprintln!("{total} jobs of {TENANTS} tenants …");
    for batch in 0..BATCHES {
        let mut body = String::new();
        for number in batch * BATCH..(batch + 1) * BATCH {
            writeln!(body, "{}", job(number))?;
        }
        let request = http.post(format!("{api}/v1/jobs/bulk")).bearer_auth(KEY).body(body);
        let answer = request.header("content-type", "application/x-ndjson").send().await?;
        let (status, answer) = (answer.status(), answer.json::<Value>().await?);
        let jobs = answer["jobs"].as_array().map_or(&[][..], Vec::as_slice);
        let refused = jobs.iter().find(|job| job["id"].is_null());
        ensure!(status.is_success() && jobs.len() == BATCH && refused.is_none(), "{status}: {refused:?}");
    }
    until_ended(&http, &api, total as u64).await?;
    let mut figures = Vec::new();
    for (number, role) in roles.iter().enumerate() {
        let page = cluster.metrics(number).await?;
        let series = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        ensure!(series > 10, "{role} shows {series} series: {page}");
        let what = format!("series of the {role} after {total} jobs of {TENANTS} tenants, queues and models");
        figures.push(judged(what, series as f64, "series", Bar::AtMost(SERIES_MAX)));
    }
    cluster.stop().await?;
    Ok(figures)
}

fn job(number: usize) -> Value {
    let of = number % TENANTS;
    let (tenant, queue) = (format!("tenant-{of}"), format!("queue-{of}"));
    if number.is_multiple_of(CHAT_EVERY) {
        let model = format!("model-{}", number / CHAT_EVERY % TENANTS);
        let messages = json!([{"role": "user", "content": "Hello"}]);
        let payload = json!({"model": model, "messages": messages, "max_tokens": 4});
        return json!({"kind": "llm", "tenant": tenant, "queue": queue, "payload": payload});
    }
    let payload = match number {
        _ if number.is_multiple_of(DEAD_EVERY) => json!({"fail": "permanent"}),
        _ if number.is_multiple_of(RETRY_EVERY) => json!({"fail": "transient", "fail_times": 1}),
        _ => json!({}),
    };
    json!({"kind": "probe", "tenant": tenant, "queue": queue, "payload": payload})
}

async fn until_ended(http: &reqwest::Client, api: &str, total: u64) -> Result<()> {
    let began = Instant::now();
    loop {
        let answer = http.get(format!("{api}/v1/queues/metrics")).bearer_auth(KEY).send().await?;
        let metrics: Value = answer.error_for_status()?.json().await?;
        let queues = metrics["queues"].as_object().context("queues have numbers")?;
        let ended = |queue: &Value| ["completed", "failed"].iter().filter_map(|name| queue[name].as_u64()).sum::<u64>();
        let ended: u64 = queues.values().map(ended).sum();
        if ended >= total {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "{ended} of {total} jobs have ended");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
