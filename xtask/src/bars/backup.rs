//! Backups beside a load: what a backup of a large journal costs whoever submits, and how long the way back takes.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    process::Command,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use super::{informs, judged};
use crate::{
    bar::{Bar, Judged},
    cluster::{Cluster, KEY, Role},
};

/// Jobs a second while it is measured.
const RATE: u64 = 300;
/// How long the load is measured without a backup, and at least with one.
const MEASURED: Duration = Duration::from_secs(30);
/// Jobs of one bulk request.
const BULK_JOBS: usize = 5_000;
/// Seconds that restore and verification may take.
const RECOVERY_MAX_S: f64 = 300.0;
/// How much slower submits may be while a backup is made.
const SLOWER_MAX: f64 = 2.0;
/// Between two bursts of the load.
const TICK: Duration = Duration::from_millis(10);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(900);
/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Keys for two recipients.
pub(crate) struct Keys {
    folder: TempDir,
    recipients: String,
}

impl Keys {
    /// Makes them with Debian's program, which is installed where it is missing.
    pub(crate) async fn make() -> Result<Self> {
        tokio::task::spawn_blocking(testkit::install_age).await?;
        let folder = tempfile::tempdir()?;
        let mut recipients = vec![];
        for name in ["operator.key", "escrow.key"] {
            let file = folder.path().join(name);
            let made = Command::new("age-keygen").arg("-o").arg(&file).stderr(Stdio::null()).status().await?;
            ensure!(made.success(), "age-keygen failed");
            let text = std::fs::read_to_string(&file)?;
            let public = text.lines().find_map(|line| line.strip_prefix("# public key: "));
            recipients.push(public.context("age-keygen names the public key")?.to_owned());
        }
        Ok(Self { folder, recipients: recipients.join(",") })
    }

    /// What a process of ours is told, beside the place.
    pub(crate) fn variables(&self) -> [(&'static str, String); 2] {
        let identity = self.folder.path().join("operator.key").display().to_string();
        [("LONGSHORE_BACKUP_RECIPIENTS", self.recipients.clone()), ("LONGSHORE_BACKUP_IDENTITY_FILE", identity)]
    }
}

/// Backs up a journal of so many jobs beside a load, and tries the way back.
pub(super) async fn measure(longshore: &Path, jobs: usize) -> Result<Vec<Judged>> {
    let keys = Keys::make().await?;
    let folder = tempfile::tempdir()?;
    let mut environment = keys.variables().to_vec();
    environment.push(("LONGSHORE_BACKUP_URL", format!("file:{}", folder.path().join("place").display())));
    let borrowed: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut cluster =
        Cluster::start(longshore, &[&[("LONGSHORE_WORKER_SLOTS", "2000")], &borrowed[..]].concat()).await?;
    for role in [Role::Scheduler, Role::Api, Role::Worker] {
        let member = cluster.spawn(role).await?;
        cluster.ready(member).await?;
    }
    let api = cluster.apis().remove(0);
    fill(&api, jobs).await?;

    let without = Load::start(api.clone());
    tokio::time::sleep(MEASURED).await;
    let without = without.stop().await?;
    let with = Load::start(api.clone());
    let began = Instant::now();
    let made = command(longshore, &cluster, &environment, &["backup", "create", "--scope", "database"]).await?;
    let backup_s = began.elapsed().as_secs_f64();
    // A short backup is followed by what it leaves behind: caches that are cold, rows that are old.
    tokio::time::sleep(MEASURED.saturating_sub(began.elapsed())).await;
    let with = with.stop().await?;

    let began = Instant::now();
    let drill = command(longshore, &cluster, &environment, &["drill", "run"]).await?;
    let drill_s = began.elapsed().as_secs_f64();
    ensure!(drill["good"] == json!(true), "{drill}");
    cluster.stop().await?;
    let tables = made["database"]["tables"].as_object().context("a backup has tables")?;
    let rows: u64 = tables.values().filter_map(|table| table["rows"].as_u64()).sum();
    let bytes: u64 = made["parts"].as_array().into_iter().flatten().filter_map(|part| part["bytes"].as_u64()).sum();
    let slower = with.p99_ms / without.p99_ms;
    let what = |what: &str| format!("{jobs} jobs: {what}");
    Ok(vec![
        judged(what("p99 of submits while a backup is made, against without"), slower, "×", Bar::AtMost(SLOWER_MAX)),
        informs(what("p99 of submits without"), without.p99_ms, "ms"),
        informs(what("p99 of submits while a backup is made"), with.p99_ms, "ms"),
        informs(what("p50 of submits without"), without.p50_ms, "ms"),
        informs(what("p50 of submits while a backup is made"), with.p50_ms, "ms"),
        judged(
            what("submits that were not accepted"),
            (without.refused + with.refused) as f64,
            "jobs",
            Bar::AtMost(0.0),
        ),
        informs(what("time of the backup, read back"), backup_s, "s"),
        informs(what("its size"), bytes as f64 / 1e6, "MB"),
        informs(what("its rows"), rows as f64, "rows"),
        judged(
            what("read again, restored, every table compared, 100 jobs drained"),
            drill_s,
            "s",
            Bar::AtMost(RECOVERY_MAX_S),
        ),
        informs(what("of that the recovery itself"), drill["recovery_seconds"].as_f64().unwrap_or(f64::NAN), "s"),
    ])
}

/// Runs `longshore --json LINE` on the stores of a cluster, and returns what it printed.
pub(super) async fn command(
    longshore: &Path,
    cluster: &Cluster,
    environment: &[(&str, String)],
    line: &[&str],
) -> Result<Value> {
    let output = offline(longshore, cluster, environment, line).output();
    let output = tokio::time::timeout(PATIENCE, output).await.context("it takes too long")??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line:?}: {said}{}", String::from_utf8_lossy(&output.stdout));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// `longshore --json LINE` on the stores of a cluster.
pub(super) fn offline(longshore: &Path, cluster: &Cluster, environment: &[(&str, String)], line: &[&str]) -> Command {
    let mut command = Command::new(longshore);
    command.arg("--json").args(line).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("LONGSHORE_JOURNAL", &cluster.database).envs(environment.iter().map(|(name, value)| (name, value)));
    command.current_dir(PathBuf::from("/")).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Submits so many jobs, and waits until the worker has done them.
async fn fill(api: &str, jobs: usize) -> Result<()> {
    let http = reqwest::Client::builder().timeout(ANSWER_MAX).build()?;
    let began = Instant::now();
    let mut sent = 0;
    while sent < jobs {
        let count = BULK_JOBS.min(jobs - sent);
        let pad = "analysis of a document, ".repeat(8);
        let bulk: Vec<Value> = (0..count)
            .map(|n| json!({"queue": "fill", "kind": "probe", "payload": {"pad": format!("{pad}{}", sent + n), "result_bytes": 200}}))
            .collect();
        let answer = http.post(format!("{api}/v1/jobs/bulk")).bearer_auth(KEY).json(&bulk).send().await?;
        ensure!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await?);
        sent += count;
    }
    loop {
        let answer = http.get(format!("{api}/v1/queues/metrics")).bearer_auth(KEY).send().await?;
        let metrics: Value = answer.error_for_status()?.json().await?;
        let completed = metrics["queues"]["fill"]["completed"].as_u64().unwrap_or_default();
        if completed as usize >= jobs {
            eprintln!("{jobs} jobs are done after {:.0} s", began.elapsed().as_secs_f64());
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "only {completed} of {jobs} jobs are done");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A load whose submits are timed.
struct Load {
    stop: watch::Sender<bool>,
    running: JoinHandle<Result<Measured>>,
}

/// What it came to.
struct Measured {
    p50_ms: f64,
    p99_ms: f64,
    refused: usize,
}

impl Load {
    fn start(api: String) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { stop, running: tokio::spawn(run(api, stopped)) }
    }

    async fn stop(self) -> Result<Measured> {
        let _ = self.stop.send(true);
        self.running.await?
    }
}

async fn run(api: String, stopped: watch::Receiver<bool>) -> Result<Measured> {
    let http = reqwest::Client::builder().timeout(ANSWER_MAX).build()?;
    let job = json!({"queue": "beside", "kind": "probe", "payload": {"sleep_ms": 20}});
    let (began, mut sent, mut requests) = (Instant::now(), 0, JoinSet::new());
    let (mut times_ms, mut refused) = (vec![], 0);
    let mut count = |answered: Option<f64>| match answered {
        Some(ms) => times_ms.push(ms),
        None => refused += 1,
    };
    while !*stopped.borrow() {
        let due = (began.elapsed().as_secs_f64() * RATE as f64) as u64;
        for _ in sent..due {
            let request = http.post(format!("{api}/v1/jobs")).bearer_auth(KEY).json(&job);
            requests.spawn(async move {
                let began = Instant::now();
                let answer = request.send().await.ok()?;
                (answer.status().as_u16() == 202).then(|| began.elapsed().as_secs_f64() * 1e3)
            });
        }
        sent = due;
        while let Some(answered) = requests.try_join_next() {
            count(answered?);
        }
        tokio::time::sleep(TICK).await;
    }
    while let Some(answered) = requests.join_next().await {
        count(answered?);
    }
    times_ms.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| times_ms.get((times_ms.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN);
    Ok(Measured { p50_ms: at(0.5), p99_ms: at(0.99), refused })
}
