//! What a waiting job takes of Redis, with small and with large payloads: real jobs, over HTTP.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::RedisServer;

use crate::{
    bar::{Bar, Judged},
    bench::installation::{Installation, Shared, Stores},
};

/// Bytes of the padding of the two.
const PADS: [usize; 2] = [1_000, 100_000];
/// Jobs of each, and of one bulk: below the 32 MiB of a request.
const JOBS: usize = 2_000;
const BULK_JOBS: usize = 100;
/// The queue, paused: its jobs wait.
const QUEUE: &str = "bars";
/// Time between two looks at what waits.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest wait for the jobs to be in Redis.
const PATIENCE: Duration = Duration::from_secs(60);

/// Redis bytes a job for each payload, and that a hundredfold payload changes them by no more than what a Redis that
/// serves differs from itself.
pub(super) async fn measure(longshore: &Path) -> Result<Vec<Judged>> {
    let (mut judged, mut bytes) = (vec![], vec![]);
    for pad in PADS {
        eprintln!("{JOBS} jobs of {pad} bytes …");
        // New stores for each, so that nothing is there already.
        let installation = Installation::start(longshore, Stores::Shared, "1").await?;
        let figure = bytes_a_job(&installation, pad).await?;
        let what = format!("Redis memory a job, {JOBS} waiting, payload of {} KB, connections included", pad / 1_000);
        judged.push(Judged { what, figure, unit: "bytes".to_owned(), bar: None });
        bytes.push(figure);
    }
    judged.push(Judged {
        what: "Redis memory a job: payload of 100 KB against 1 KB".to_owned(),
        figure: bytes[1] / bytes[0],
        unit: "×".to_owned(),
        bar: Some(Bar::AtMost(1.1)),
    });
    Ok(judged)
}

async fn bytes_a_job(installation: &Installation, pad: usize) -> Result<f64> {
    let Installation { url, shared, .. } = installation;
    let Shared { redis, .. } = shared.as_ref().context("it was started on shared stores")?;
    let (http, key) = (reqwest::Client::new(), installation.key()?);
    let pause = json!({"paused": true, "reason": "cargo xtask bars"});
    let answer = http.patch(format!("{url}/v1/queues/{QUEUE}")).bearer_auth(&key).json(&pause).send().await?;
    ensure!(answer.status().is_success(), "{}", answer.text().await?);
    let job = json!({"queue": QUEUE, "kind": "probe", "payload": {"sleep_ms": 0, "pad": "x".repeat(pad)}});
    let bulk = vec![job; BULK_JOBS];
    let before = used_memory(redis)?;
    for _ in 0..JOBS / BULK_JOBS {
        let answer = http.post(format!("{url}/v1/jobs/bulk")).bearer_auth(&key).json(&bulk).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.text().await?);
    }
    let all_wait = async {
        loop {
            let answer = http.get(format!("{url}/v1/queues/metrics")).bearer_auth(&key).send().await?;
            let metrics: Value = answer.error_for_status()?.json().await?;
            // What a paused queue holds is parked.
            let queue = &metrics["queues"][QUEUE];
            let held: u64 = ["waiting", "parked"].iter().filter_map(|name| queue[name].as_u64()).sum();
            if held == JOBS as u64 {
                return anyhow::Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_wait).await.context("not all jobs came to wait")??;
    Ok((used_memory(redis)? - before) / JOBS as f64)
}

fn used_memory(redis: &RedisServer) -> Result<f64> {
    let info = redis.command(&["INFO", "memory"]);
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).context("INFO tells no used_memory")?;
    Ok(line.trim().parse()?)
}
