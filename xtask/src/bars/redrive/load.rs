//! Jobs that come at a steady rate meanwhile, and what becomes of them.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use crate::cluster::KEY;

/// Their queue.
const QUEUE: &str = "beside";
/// Between two bursts.
const TICK: Duration = Duration::from_millis(100);
/// Longest wait for the last of them to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A load that runs.
pub(in crate::bars) struct Load {
    stop: watch::Sender<bool>,
    running: JoinHandle<Result<Beside>>,
}

/// What it came to.
pub(in crate::bars) struct Beside {
    /// Jobs that were accepted.
    pub(in crate::bars) accepted: u64,
    /// Jobs of these that had not succeeded in the end.
    pub(in crate::bars) lost: u64,
    /// Accepted jobs a second.
    pub(in crate::bars) rate: f64,
}

impl Load {
    /// Submits `rate` jobs a second, one by one, to this API.
    pub(in crate::bars) fn start(api: String, rate: u64) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { stop, running: tokio::spawn(run(api, rate, stopped)) }
    }

    /// Ends it, and waits until its last job has.
    pub(in crate::bars) async fn stop(self) -> Result<Beside> {
        let _ = self.stop.send(true);
        self.running.await?
    }
}

async fn run(api: String, rate: u64, stopped: watch::Receiver<bool>) -> Result<Beside> {
    let http = reqwest::Client::builder().timeout(ANSWER_MAX).build()?;
    let job = json!({"queue": QUEUE, "kind": "probe", "payload": {"sleep_ms": 20}});
    let (began, mut sent, mut accepted, mut requests) = (Instant::now(), 0, 0_u64, JoinSet::new());
    while !*stopped.borrow() {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        for _ in sent..due {
            let request = http.post(format!("{api}/v1/jobs")).bearer_auth(KEY).json(&job);
            requests.spawn(async move { request.send().await.is_ok_and(|answer| answer.status().as_u16() == 202) });
        }
        sent = due;
        while let Some(answered) = requests.try_join_next() {
            accepted += u64::from(answered?);
        }
        tokio::time::sleep(TICK).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    while let Some(answered) = requests.join_next().await {
        accepted += u64::from(answered?);
    }
    let completed = completed(&http, &api, accepted).await?;
    Ok(Beside { accepted, lost: accepted.saturating_sub(completed), rate: accepted as f64 / seconds })
}

/// How many have succeeded, once all have or the time is over.
async fn completed(http: &reqwest::Client, api: &str, accepted: u64) -> Result<u64> {
    let began = Instant::now();
    loop {
        let answer = http.get(format!("{api}/v1/queues/metrics")).bearer_auth(KEY).send().await?;
        let metrics: Value = answer.error_for_status()?.json().await?;
        let completed = metrics["queues"][QUEUE]["completed"].as_u64().context("the queue has numbers")?;
        if completed >= accepted || began.elapsed() > PATIENCE {
            return Ok(completed);
        }
        tokio::time::sleep(TICK).await;
    }
}
