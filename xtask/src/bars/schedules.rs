//! A schedule that is due each second, over three schedulers of which one is killed every five seconds and one has a clock that is an
//! hour ahead. What was submitted is read from the journal: each tick once, none early, none lost.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{process::Command, time::Instant};

use super::{informs, judged};
use crate::{
    bar::{Bar, Judged},
    cluster::{Cluster, KEY, Role},
};

/// Time between two kills.
const KILL_EVERY: Duration = Duration::from_secs(5);
/// How long all three are dead at once, in the middle.
const DARK: Duration = Duration::from_secs(10);
/// Time to catch up before the schedule is paused: the longest claim of whoever died, and a little.
const SETTLES: Duration = Duration::from_secs(6);
/// Seconds that a clock is ahead.
const AHEAD_S: i64 = 3_600;
/// Ticks that are backfilled afterwards.
const BACKFILL_TICKS: i64 = 60;
/// Seconds by which a tick may be late: all schedulers are dead for [`DARK`], and the first to come back waits for a claim.
const LATE_MAX_S: f64 = 20.0;
/// Where Debian's package `faketime` keeps its library, below `/usr/lib` or a folder of the architecture in it.
const LIBRARY: &str = "faketime/libfaketime.so.1";
/// Longest wait for anything, and time between two looks.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What the journal says of a schedule's jobs.
struct Runs {
    jobs: f64,
    ticks: f64,
    /// Seconds from the first tick that there should be to the last one.
    span: f64,
    early: f64,
    late_s: [f64; 3],
}

struct Scene {
    cluster: Cluster,
    schedulers: [usize; 3],
    api: String,
    http: reqwest::Client,
}

/// For so many seconds.
pub(super) async fn measure(longshore: &Path, library: &Path, seconds: u64) -> Result<Vec<Judged>> {
    check_library(library).await?;
    let mut scene = Scene::start(longshore, library).await?;
    let figures = scene.measure(seconds).await;
    let figures = match figures {
        Ok(figures) => figures,
        Err(error) => {
            let logs: Vec<String> = scene.schedulers.map(|number| scene.cluster.log(number)).into();
            return Err(error.context(logs.join("\n")));
        }
    };
    scene.cluster.stop().await?;
    Ok(figures)
}

/// The library that shifts a process's clock.
pub(super) fn library() -> Result<PathBuf> {
    let lib = Path::new("/usr/lib");
    let mut folders = vec![lib.to_owned()];
    folders.extend(std::fs::read_dir(lib)?.filter_map(|entry| Some(entry.ok()?.path())));
    let found = folders.into_iter().map(|folder| folder.join(LIBRARY)).find(|path| path.exists());
    found.context("libfaketime is not installed: `apt-get install faketime`")
}

/// What makes a process's clock be ahead. Its steady clock stays as it is, so that it sleeps as others do.
fn ahead(library: &Path) -> [(&'static str, String); 5] {
    [
        // So that it says at its start what time it is for it.
        ("RUST_LOG", "debug".to_owned()),
        ("LONGSHORE_LOG", "human".to_owned()),
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", format!("+{AHEAD_S}s")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

async fn check_library(library: &Path) -> Result<()> {
    let seconds = async |environment: &[(&str, String)]| {
        let environment = environment.iter().map(|(name, value)| (*name, value));
        let said = Command::new("date").arg("+%s").envs(environment).output().await?;
        Ok::<i64, anyhow::Error>(String::from_utf8(said.stdout)?.trim().parse()?)
    };
    let by = seconds(&ahead(library)).await? - seconds(&[]).await?;
    ensure!((by - AHEAD_S).abs() <= 1, "{} shifts a clock by {by} s", library.display());
    Ok(())
}

impl Scene {
    async fn start(longshore: &Path, library: &Path) -> Result<Self> {
        let mut cluster = Cluster::start(longshore, &[]).await?;
        let wrong = ahead(library);
        let wrong: Vec<(&str, &str)> = wrong.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let schedulers = [
            cluster.spawn(Role::Scheduler).await?,
            cluster.spawn(Role::Scheduler).await?,
            cluster.spawn_with(Role::Scheduler, &wrong).await?,
        ];
        let (api, worker) = (cluster.spawn(Role::Api).await?, cluster.spawn(Role::Worker).await?);
        for number in schedulers.into_iter().chain([api, worker]) {
            cluster.ready(number).await?;
        }
        let api = cluster.members[api].url.clone();
        Ok(Self { cluster, schedulers, api, http: reqwest::Client::new() })
    }

    async fn measure(&mut self, seconds: u64) -> Result<Vec<Judged>> {
        let new = json!({"name": "each-second", "cron": "* * * * * *", "overlap": "queue", "missed": "all",
                         "template": {"kind": "probe", "queue": "clock", "payload": {}}});
        let made = self.ask(Method::POST, "/v1/schedules", Some(&new)).await?;
        let id = made["id"].as_str().context("a schedule has an id")?.to_owned();
        let path = format!("/v1/schedules/{id}");
        eprintln!("a tick each second for {seconds} s, a kill each {} s …", KILL_EVERY.as_secs());
        let kills = self.kill_for(Duration::from_secs(seconds)).await?;
        tokio::time::sleep(SETTLES).await;
        let view = self.ask(Method::PATCH, &path, Some(&json!({"paused": true}))).await?;
        // A claim that began before the pause ends.
        tokio::time::sleep(SETTLES).await;
        let view_later = self.ask(Method::GET, &path, None).await?;
        ensure!(view_later["ticks"] == view["ticks"], "{view_later} has gone on after {view}");
        let runs = self.runs(&id)?;
        let ticks = |name: &str| view["ticks"][name].as_f64().unwrap_or(f64::NAN);
        let behind = self.cluster.sql(&format!(
            "SELECT extract(epoch FROM now()) - extract(epoch FROM '{}'::timestamptz)",
            view["last_tick_at"].as_str().unwrap_or_default()
        ));
        let behind = behind.parse::<f64>()? - SETTLES.as_secs_f64();
        let ahead = self.ahead_s()?;
        let mut figures = vec![
            judged(
                "the clock of one scheduler, by its own log: ahead".to_owned(),
                ahead,
                "s",
                Bar::Between(AHEAD_S as f64 - PATIENCE.as_secs_f64(), AHEAD_S as f64),
            ),
            informs("schedulers killed, all three at once among them".to_owned(), kills as f64, "kills"),
            judged(
                "seconds of the schedule without a job".to_owned(),
                runs.span - runs.ticks,
                "ticks",
                Bar::Between(0.0, 0.0),
            ),
            judged("jobs beyond one a tick".to_owned(), runs.jobs - runs.ticks, "jobs", Bar::Between(0.0, 0.0)),
            informs("ticks, each one job".to_owned(), runs.ticks, "ticks"),
            judged(
                "ticks by the schedule's count, and not by the jobs'".to_owned(),
                ticks("submitted") - runs.ticks,
                "ticks",
                Bar::Between(0.0, 0.0),
            ),
            judged(
                "ticks that it calls missed, overlapped or refused".to_owned(),
                ticks("missed") + ticks("overlapped") + ticks("refused"),
                "ticks",
                Bar::AtMost(0.0),
            ),
            judged("jobs before their tick".to_owned(), runs.early, "jobs", Bar::AtMost(0.0)),
            judged("the last tick before the pause: how long ago".to_owned(), behind, "s", Bar::AtMost(3.0)),
            informs("from a tick to its job, p50".to_owned(), runs.late_s[0], "s"),
            informs("the same, p99".to_owned(), runs.late_s[1], "s"),
            judged("the same, longest".to_owned(), runs.late_s[2], "s", Bar::AtMost(LATE_MAX_S)),
        ];
        figures.push(self.of_ends(&id, runs.jobs).await?);
        figures.push(self.of_backfill(&path, &id, runs.jobs).await?);
        Ok(figures)
    }

    /// Kills one after the other, and once all of them; each is started again at once.
    async fn kill_for(&mut self, long: Duration) -> Result<usize> {
        let (began, mut kills, mut was_dark) = (Instant::now(), 0, false);
        while began.elapsed() < long {
            tokio::time::sleep(KILL_EVERY).await;
            if !was_dark && began.elapsed() > long / 2 {
                was_dark = true;
                for number in self.schedulers {
                    self.cluster.kill(number).await?;
                    kills += 1;
                }
                tokio::time::sleep(DARK).await;
                for number in self.schedulers {
                    self.cluster.restart(number).await?;
                }
                continue;
            }
            self.cluster.restart(self.schedulers[kills % self.schedulers.len()]).await?;
            kills += 1;
        }
        Ok(kills)
    }

    /// How far the clock of the last scheduler is ahead, by the last line that it has logged. It logs when it starts.
    fn ahead_s(&self) -> Result<f64> {
        let log = self.cluster.log(self.schedulers[2]);
        let moment =
            |line: &str| line.split_whitespace().next().filter(|word| word.starts_with("20")).map(str::to_owned);
        let last =
            log.lines().rev().find_map(moment).context("the scheduler whose clock is wrong has logged nothing")?;
        Ok(self.cluster.sql(&format!("SELECT extract(epoch FROM '{last}'::timestamptz - now())")).parse()?)
    }

    fn runs(&self, id: &str) -> Result<Runs> {
        let told = self.cluster.sql(&format!(
            "WITH runs AS (
                SELECT extract(epoch FROM substring(tags FROM 'tick:([^\"]+)')::timestamptz)::float8 AS tick,
                       accepted_at::float8 / 1000 AS accepted, (SELECT floor(created_at / 1000.0) FROM schedules) AS made
                FROM job_rows WHERE batch_id = 'schedule:{id}'
            ), late AS (SELECT *, accepted - tick AS s FROM runs)
            SELECT concat_ws(' ', count(*), count(DISTINCT tick), max(tick) - min(made), count(*) FILTER (WHERE s < 0),
                             percentile_cont(0.5) WITHIN GROUP (ORDER BY s), percentile_cont(0.99) WITHIN GROUP (ORDER BY s), max(s))
            FROM late"
        ));
        let numbers = told.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        let [jobs, ticks, span, early, p50, p99, longest] =
            <[f64; 7]>::try_from(numbers).ok().with_context(|| format!("no figures of the runs in `{told}`"))?;
        Ok(Runs { jobs, ticks, span, early, late_s: [p50, p99, longest] })
    }

    /// Jobs that do not succeed.
    async fn of_ends(&self, id: &str, jobs: f64) -> Result<Judged> {
        let began = Instant::now();
        loop {
            let text = format!("SELECT count(*) FROM settled_jobs WHERE batch_id = 'schedule:{id}' AND standing = 1");
            let left = jobs - self.cluster.sql(&text).parse::<f64>()?;
            if left <= 0.0 || began.elapsed() > PATIENCE {
                return Ok(judged("its jobs that do not succeed".to_owned(), left, "jobs", Bar::Between(0.0, 0.0)));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The first minute again, while a scheduler is killed.
    async fn of_backfill(&mut self, path: &str, id: &str, before: f64) -> Result<Judged> {
        let from = self.cluster.sql(&format!(
            "SELECT min(substring(tags FROM 'tick:([^\"]+)')::timestamptz) FROM job_rows WHERE batch_id = 'schedule:{id}'"
        ));
        let plus = |seconds: i64| {
            let text = format!(
                "SELECT to_char(('{from}'::timestamptz + interval '{seconds} s') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
            );
            self.cluster.sql(&text)
        };
        let order = json!({"from": plus(0), "to": plus(BACKFILL_TICKS - 1)});
        self.ask(Method::POST, &format!("{path}/backfill"), Some(&order)).await?;
        self.cluster.restart(self.schedulers[0]).await?;
        let began = Instant::now();
        while self.ask(Method::GET, path, None).await?["backfill"]["state"] != "ended" {
            ensure!(began.elapsed() < PATIENCE, "the backfill does not end");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let runs = self.runs(id)?;
        let expected = before + BACKFILL_TICKS as f64;
        let what = format!("a backfill of {BACKFILL_TICKS} ticks, a scheduler killed: jobs too many or too few");
        Ok(judged(what, (runs.jobs - expected).abs(), "jobs", Bar::AtMost(0.0)))
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
