//! Operators beside a running load: dead letters are redriven by filter at a rate, an abort stops it, processes are killed in
//! the middle, and pages of a million letters are asked for. On a cluster of its own; what happened is read from Postgres.

pub(super) mod load;
mod pages;

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use self::load::Load;
use super::{informs, judged};
use crate::{
    bar::{Bar, Judged},
    cluster::{Cluster, KEY, Role},
};

/// Jobs a second of each operation.
const RATE: u64 = 2_000;
/// Jobs a second beside it, and of its queue.
const BESIDE_RATE: u64 = 300;
/// The queue of the letters.
const QUEUE: &str = "bulk";
/// Jobs of one bulk request.
const BULK_JOBS: usize = 1_000;
/// Seconds for which an abort may go on.
const ABORT_MAX_S: f64 = 1.0;
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(300);

/// A cluster with its letters and whoever watches it.
struct Scene {
    cluster: Cluster,
    http: reqwest::Client,
    /// The API that nobody kills.
    api: String,
    /// Places of the two schedulers and of the API that is killed.
    schedulers: [usize; 2],
    victim: usize,
    letters: u64,
}

/// Everything, over so many letters.
pub(super) async fn measure(longshore: &Path, letters: usize, page_letters: usize) -> Result<Vec<Judged>> {
    let mut scene = Scene::start(longshore, letters as u64).await?;
    let load = Load::start(scene.api.clone(), BESIDE_RATE);
    let measured = scene.measure(page_letters).await;
    // Its jobs end on the cluster, so that stops last.
    let beside = load.stop().await;
    let (mut judged, beside) = (measured?, beside?);
    scene.cluster.stop().await?;
    judged.push(super::judged(
        format!("jobs beside it, at {BESIDE_RATE}/s: accepted ones that did not succeed"),
        beside.lost as f64,
        "jobs",
        Bar::AtMost(0.0),
    ));
    judged.push(informs("jobs beside it: accepted".to_owned(), beside.accepted as f64, "jobs"));
    judged.push(informs("jobs beside it: rate".to_owned(), beside.rate, "jobs/s"));
    Ok(judged)
}

impl Scene {
    async fn start(longshore: &Path, letters: u64) -> Result<Self> {
        let mut cluster = Cluster::start(longshore, &[("LONGSHORE_WORKER_SLOTS", "200")]).await?;
        let schedulers = [cluster.spawn(Role::Scheduler).await?, cluster.spawn(Role::Scheduler).await?];
        let (victim, other) = (cluster.spawn(Role::Api).await?, cluster.spawn(Role::Api).await?);
        let workers = [cluster.spawn(Role::Worker).await?, cluster.spawn(Role::Worker).await?];
        for number in schedulers.into_iter().chain([victim, other]).chain(workers) {
            cluster.ready(number).await?;
        }
        let api = cluster.members[other].url.clone();
        let http = reqwest::Client::new();
        let scene = Self { cluster, http, api, schedulers, victim, letters };
        scene.make_letters().await?;
        Ok(scene)
    }

    /// Real jobs that fail for good, in each of their lives.
    async fn make_letters(&self) -> Result<()> {
        eprintln!("{} dead letters …", self.letters);
        let job = json!({"queue": QUEUE, "kind": "probe", "payload": {"fail": "permanent"}});
        let mut left = self.letters as usize;
        while left > 0 {
            let count = left.min(BULK_JOBS);
            self.ask(Method::POST, "/v1/jobs/bulk", Some(&json!(vec![&job; count]))).await?;
            left -= count;
        }
        self.all_dead().await
    }

    async fn all_dead(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let metrics = self.ask(Method::GET, "/v1/queues/metrics", None).await?;
            if metrics["queues"][QUEUE]["failed"].as_u64() == Some(self.letters) {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "not all letters are dead: {}", metrics["queues"][QUEUE]);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn measure(&mut self, page_letters: usize) -> Result<Vec<Judged>> {
        let mut figures = self.of_rate().await?;
        self.all_dead().await?;
        figures.extend(self.of_kills().await?);
        self.all_dead().await?;
        figures.extend(self.of_abort().await?);
        figures.extend(self.of_pages(page_letters).await?);
        Ok(figures)
    }

    /// A whole redrive that nothing disturbs. A redriven row is due when it was redriven: that tells the rate.
    async fn of_rate(&self) -> Result<Vec<Judged>> {
        eprintln!("redriving them at {RATE}/s …");
        let operation = self.begin(&self.api).await?;
        let operation = self.until(&operation, |operation| operation["state"] != "running").await?;
        self.check(&operation, 1)?;
        let times = self.cluster.sql(&format!(
            "SELECT (max(run_at) - min(run_at)) || ' ' || count(*) FILTER (WHERE run_at > first.at)
             FROM jobs, (SELECT min(run_at) AS at FROM jobs WHERE queue = '{QUEUE}') AS first WHERE queue = '{QUEUE}'"
        ));
        let (ms, count) = times.split_once(' ').context("psql told two numbers")?;
        let rate = count.parse::<f64>()? / ms.parse::<f64>()? * 1_000.0;
        let slowest = self.cluster.sql(&format!(
            "SELECT coalesce(min(n), 0) || ' ' || coalesce(max(n), 0) FROM (
                SELECT count(*) AS n FROM jobs, (SELECT min(run_at) AS a, max(run_at) AS z FROM jobs WHERE queue = '{QUEUE}') AS e
                WHERE queue = '{QUEUE}' AND (run_at - a) / 1000 < (z - a) / 1000 GROUP BY (run_at - a) / 1000) AS seconds"
        ));
        let (least, most) = slowest.split_once(' ').context("psql told two numbers")?;
        let bar = Bar::Between(RATE as f64 * 0.95, RATE as f64 * 1.05);
        Ok(vec![
            judged(
                format!("redrive of {} by filter at {RATE}/s beside {BESIDE_RATE} jobs/s", self.letters),
                rate,
                "jobs/s",
                bar,
            ),
            informs("the same: its slowest whole second".to_owned(), least.parse()?, "jobs"),
            informs("the same: its fastest whole second".to_owned(), most.parse()?, "jobs"),
        ])
    }

    /// `kill -9` of the API that accepted it, and of one scheduler after the other: one of them walks.
    async fn of_kills(&mut self) -> Result<Vec<Judged>> {
        eprintln!("the same, and kill -9 of its API and of each scheduler …");
        let operation = self.begin(&self.cluster.members[self.victim].url.clone()).await?;
        let mut longest = Duration::ZERO;
        let victims = [self.victim, self.schedulers[0], self.schedulers[1]];
        for (at, number) in (1..).zip(victims) {
            let reached = self.letters * at / 5;
            self.until(&operation, |operation| operation["done"].as_u64() >= Some(reached)).await?;
            self.cluster.kill(number).await?;
            let (killed_at, before) = (Instant::now(), self.look(&operation).await?["done"].as_u64());
            // One step may have been under way.
            let step = RATE / 10;
            self.until(&operation, |operation| {
                operation["done"].as_u64() > before.map(|done| done + step) || operation["state"] != "running"
            })
            .await?;
            longest = longest.max(killed_at.elapsed());
            self.cluster.restart(number).await?;
            self.cluster.ready(number).await?;
        }
        let operation = self.until(&operation, |operation| operation["state"] != "running").await?;
        self.check(&operation, 2)?;
        Ok(vec![
            judged(
                format!(
                    "kill -9 of its API and of each scheduler: letters of {} that were not redriven once",
                    self.letters
                ),
                (self.letters - self.count(2)?) as f64,
                "letters",
                Bar::AtMost(0.0),
            ),
            informs("the same: longest standstill".to_owned(), longest.as_secs_f64(), "s"),
        ])
    }

    /// From the moment that somebody asks for it until the last letter is redriven.
    async fn of_abort(&self) -> Result<Vec<Judged>> {
        eprintln!("an abort in the middle …");
        let operation = self.begin(&self.api).await?;
        let path = format!("/v1/operations/{}", operation["id"].as_str().unwrap_or_default());
        self.until(&operation, |operation| operation["done"].as_u64() >= Some(self.letters / 4)).await?;
        let asked_at = wall_ms();
        let aborted = self.ask(Method::DELETE, &path, None).await?;
        ensure!(aborted["state"] == "aborted", "{aborted}");
        // Long enough for what must not come.
        tokio::time::sleep(Duration::from_secs_f64(2.0 * ABORT_MAX_S)).await;
        let last = self.cluster.sql(&format!("SELECT max(run_at) FROM jobs WHERE queue = '{QUEUE}' AND redrives = 3"));
        let counted = aborted["done"].as_u64().context("an operation counts")?;
        Ok(vec![
            judged(
                "an abort: until nothing is redriven any more".to_owned(),
                (last.parse::<f64>()? - asked_at).max(0.0) / 1_000.0,
                "s",
                Bar::AtMost(ABORT_MAX_S),
            ),
            judged(
                "the same: letters redriven and not counted".to_owned(),
                self.count(3)? as f64 - counted as f64,
                "letters",
                Bar::Between(0.0, 0.0),
            ),
        ])
    }

    async fn begin(&self, api: &str) -> Result<Value> {
        let order = json!({"action": "redrive", "filter": format!("queue = {QUEUE} and error.class = permanent"), "rate_per_s": RATE});
        let request = self.http.post(format!("{api}/v1/operations")).bearer_auth(KEY).json(&order);
        let answer = request.send().await?;
        let status = answer.status();
        ensure!(status.as_u16() == 202, "{status}: {}", answer.text().await?);
        Ok(answer.json().await?)
    }

    async fn look(&self, operation: &Value) -> Result<Value> {
        let id = operation["id"].as_str().context("an operation has an id")?;
        self.ask(Method::GET, &format!("/v1/operations/{id}"), None).await
    }

    async fn until(&self, operation: &Value, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let began = Instant::now();
        loop {
            let operation = self.look(operation).await?;
            if holds(&operation) {
                return Ok(operation);
            }
            ensure!(began.elapsed() < PATIENCE, "it never came true: {operation}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// That it has met every letter once, and says so.
    fn check(&self, operation: &Value, redrives: u64) -> Result<()> {
        let done = operation["done"].as_u64();
        if operation["state"] != "done" || done != Some(self.letters) || self.count(redrives)? != self.letters {
            bail!("{} letters have {redrives} redrives, and it says: {operation}", self.count(redrives)?);
        }
        Ok(())
    }

    /// Letters with so many redrives.
    fn count(&self, redrives: u64) -> Result<u64> {
        let count =
            self.cluster.sql(&format!("SELECT count(*) FROM jobs WHERE queue = '{QUEUE}' AND redrives = {redrives}"));
        Ok(count.parse()?)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut request = self.http.request(method, format!("{}{path}", self.api)).bearer_auth(KEY);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }
}

#[allow(clippy::disallowed_methods, reason = "rows are due by the wall clock")]
fn wall_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1_000.0
}
