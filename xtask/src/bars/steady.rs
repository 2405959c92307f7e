//! Jobs at a steady rate over several APIs, sent as a balancer sends: in turn, and only to those whose `/readyz` is 200. Nothing is sent
//! twice: each answer that is no 202 is a client that was failed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use serde_json::Value;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use crate::cluster::KEY;

/// Between two bursts.
const TICK: Duration = Duration::from_millis(10);
/// How often an API is asked whether it is ready, and how long it may think.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Failures that are told in full.
const TOLD_MAX: usize = 5;

/// A load that runs.
pub(super) struct Steady {
    stop: watch::Sender<bool>,
    running: JoinHandle<Result<Sent>>,
}

/// What it came to.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Jobs that were accepted.
    pub(super) accepted: u64,
    /// Requests that were answered otherwise, or not at all.
    pub(super) failed: u64,
    /// Some of those, in words.
    pub(super) told: Vec<String>,
    /// Accepted jobs a second.
    pub(super) rate: f64,
}

impl Steady {
    /// Submits `rate` jobs a second, one by one; `job` makes the one with this number.
    pub(super) fn start(apis: Vec<String>, rate: u64, job: impl Fn(u64) -> Value + Send + 'static) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { stop, running: tokio::spawn(run(apis, rate, job, stopped)) }
    }

    /// Ends it, and waits for its last answer.
    pub(super) async fn stop(self) -> Result<Sent> {
        let _ = self.stop.send(true);
        self.running.await?
    }
}

async fn run(
    apis: Vec<String>,
    rate: u64,
    job: impl Fn(u64) -> Value + Send,
    stopped: watch::Receiver<bool>,
) -> Result<Sent> {
    let http = reqwest::Client::builder().timeout(ANSWER_MAX).build()?;
    let ready: Arc<Vec<AtomicBool>> = Arc::new(apis.iter().map(|_| AtomicBool::new(true)).collect());
    let mut looking = JoinSet::new();
    for (at, api) in apis.iter().enumerate() {
        looking.spawn(look(http.clone(), format!("{api}/readyz"), ready.clone(), at));
    }
    let (began, mut sent, mut requests) = (Instant::now(), 0, JoinSet::new());
    let mut came = Sent::default();
    while !*stopped.borrow() {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        for number in sent..due {
            let turn = number as usize;
            let to = (0..apis.len()).map(|n| (turn + n) % apis.len()).find(|at| ready[*at].load(Ordering::Relaxed));
            let Some(to) = to else {
                came.fail("no API is ready".to_owned());
                continue;
            };
            let request = http.post(format!("{}/v1/jobs", apis[to])).bearer_auth(KEY).json(&job(number));
            requests.spawn(async move {
                match request.send().await {
                    Ok(answer) if answer.status().as_u16() == 202 => Ok(()),
                    Ok(answer) => Err(format!("{}: {}", answer.status(), answer.text().await.unwrap_or_default())),
                    Err(error) => Err(format!("{error:?}")),
                }
            });
        }
        sent = due;
        while let Some(answered) = requests.try_join_next() {
            came.note(answered?);
        }
        tokio::time::sleep(TICK).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    while let Some(answered) = requests.join_next().await {
        came.note(answered?);
    }
    came.rate = came.accepted as f64 / seconds;
    Ok(came)
}

/// Keeps what an API says of itself.
async fn look(http: reqwest::Client, url: String, ready: Arc<Vec<AtomicBool>>, at: usize) {
    loop {
        let answer = http.get(&url).timeout(LOOK_EVERY).send().await;
        ready[at].store(answer.is_ok_and(|answer| answer.status().is_success()), Ordering::Relaxed);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Sent {
    fn note(&mut self, answered: Result<(), String>) {
        match answered {
            Ok(()) => self.accepted += 1,
            Err(why) => self.fail(why),
        }
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(why);
        }
    }
}
