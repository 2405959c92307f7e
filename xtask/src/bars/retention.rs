//! Old days beside a running load: months of settled jobs are dropped, and whoever claims meanwhile notices little. The rows are written by
//! SQL, what happened is read from Postgres and from the audit log.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use super::{informs, judged, redrive::load::Load};
use crate::{
    bar::{Bar, Judged},
    cluster::{Cluster, KEY, Role},
};

/// Months that are dropped, one after the other, and the days of each.
const MONTHS: i64 = 3;
const MONTH_DAYS: i64 = 30;
/// Age of the youngest of these days, and the day on which all of it may be gone.
const YOUNGEST_DAYS: i64 = 200;
const DAY_MS: i64 = 86_400_000;
/// Jobs a second beside it.
const BESIDE_RATE: u64 = 300;
/// How long the load is measured without and with a month that goes, in turn.
const WINDOW: Duration = Duration::from_secs(20);
/// Until the load runs evenly.
const WARM_UP: Duration = Duration::from_secs(10);
/// Time between two looks, and longest wait for anything.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest wait for the disk: two seconds a table.
const RECLAIMED_MAX: Duration = Duration::from_secs(1_200);
/// Seconds in which a month goes.
const MONTH_MAX_S: f64 = 1.0;
/// What it may do to the slowest hundredth of claims.
const P99_MAX: f64 = 1.2;

struct Scene {
    cluster: Cluster,
    http: reqwest::Client,
    api: String,
    files: TempDir,
    /// The present scheduler.
    scheduler: usize,
    /// The first of all days.
    first: i64,
}

/// The three months, over so many jobs.
pub(super) async fn measure(longshore: &Path, jobs: usize) -> Result<Vec<Judged>> {
    let mut scene = Scene::start(longshore).await?;
    let wrote = scene.write(jobs)?;
    let load = Load::start(scene.api.clone(), BESIDE_RATE);
    tokio::time::sleep(WARM_UP).await;
    let measured = scene.measure(jobs).await;
    let beside = load.stop().await?;
    let mut figures = measured?;
    scene.cluster.stop().await?;
    figures.push(judged(
        format!("jobs beside it, at {BESIDE_RATE}/s: accepted ones that did not succeed"),
        beside.lost as f64,
        "jobs",
        Bar::AtMost(0.0),
    ));
    figures.push(informs("jobs beside it: rate".to_owned(), beside.rate, "jobs/s"));
    figures.push(informs(format!("writing {jobs} settled jobs by SQL"), wrote.as_secs_f64(), "s"));
    Ok(figures)
}

impl Scene {
    async fn start(longshore: &Path) -> Result<Self> {
        let mut cluster = Cluster::start(longshore, &[("LONGSHORE_WORKER_SLOTS", "200")]).await?;
        let files = tempfile::tempdir()?;
        let held = file(&files, "held", "[retention]\nhold = \"the bar begins\"\n")?;
        let scheduler = cluster.spawn_with(Role::Scheduler, &[("LONGSHORE_CONFIG", &held)]).await?;
        let (api, worker) = (cluster.spawn(Role::Api).await?, cluster.spawn(Role::Worker).await?);
        for number in [scheduler, api, worker] {
            cluster.ready(number).await?;
        }
        let api = cluster.members[api].url.clone();
        let first = (wall_ms() / DAY_MS - YOUNGEST_DAYS - MONTHS * MONTH_DAYS) * DAY_MS;
        Ok(Self { cluster, http: reqwest::Client::new(), api, files, scheduler, first })
    }

    /// Settled jobs over all days, as many a day: rows, results, payloads, some attempts and kept answers.
    fn write(&self, jobs: usize) -> Result<Duration> {
        eprintln!("{jobs} settled jobs over {} days …", MONTHS * MONTH_DAYS);
        let (began, a_day) = (Instant::now(), jobs as i64 / (MONTHS * MONTH_DAYS));
        let first = self.first;
        self.cluster.sql(&format!("SELECT create_partitions({first}, {})", MONTHS * MONTH_DAYS));
        for day in 0..MONTHS * MONTH_DAYS {
            let begin = first + day * DAY_MS;
            self.cluster.sql(&format!(
                r#"CREATE TEMP TABLE made AS
                   SELECT (lpad(to_hex({begin} + n * {DAY_MS} / {a_day}), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid AS id,
                          {begin} + n * {DAY_MS} / {a_day} AS at, n FROM generate_series(0::bigint, {a_day} - 1) AS n;
                   INSERT INTO settled_jobs (id, tenant, queue, kind, target, priority, standing, attempts, max_attempts, run_at,
                                             accepted_at, finished_at, calls, tokens_in, tokens_out, cost_nanousd, served_by, operation,
                                             result, session, began_at)
                   SELECT id, 'acme', 'old' || n % 5, 'llm', 'openai:gpt:default', 5, 1, 1, 3, at, at, at + 4000, 1, 900, 150, 270000,
                          'openai/gpt', 'summary', convert_to('{{"text":"' || repeat('an answer ', 40) || n || '"}}', 'UTF8'),
                          '01936a00-0000-7000-8000-000000000001', at + 20 FROM made;
                   INSERT INTO payloads (id, tenant, body)
                   SELECT id, 'acme', convert_to('{{"messages":[{{"role":"user","content":"' || repeat('a question ', 50) || n || '"}}]}}', 'UTF8')
                   FROM made;
                   INSERT INTO attempts (job_id, tenant, epoch, number, outcome, session, finished_at, error)
                   SELECT id, 'acme', 0, 1, 'retry', '01936a00-0000-7000-8000-000000000001', at, '{{"class":"server"}}' FROM made WHERE n % 20 = 0;
                   INSERT INTO memos (job_id, tenant, call_id, request_hash, body)
                   SELECT id, 'acme', id, decode(repeat('00', 32), 'hex'), convert_to(repeat('kept ', 60), 'UTF8') FROM made WHERE n % 10 = 0;
                   DROP TABLE made"#
            ));
        }
        // As autovacuum does it in the course of months.
        self.cluster.sql("VACUUM (ANALYZE)");
        self.cluster.sql("CHECKPOINT");
        Ok(began.elapsed())
    }

    async fn measure(&mut self, jobs: usize) -> Result<Vec<Judged>> {
        let (mut without, mut with, mut took_s, mut bytes) = (vec![], vec![], vec![], 0.0);
        for number in 1..=MONTHS {
            eprintln!("without, window {number} …");
            without.push(self.window(None).await?);
        }
        for month in 1..=MONTHS {
            eprintln!("month {month} …");
            // A day goes when one has passed since its end.
            let days = YOUNGEST_DAYS + (MONTHS - month) * MONTH_DAYS - 1;
            self.schedule_with(days).await?;
            let left = self.days_left();
            with.push(self.window(Some(WINDOW / 2)).await?);
            let went = self.last_run().await?;
            let sum = |name: &str| {
                ["jobs", "payloads", "errors"]
                    .map(|class| went[class][name].as_f64().unwrap_or(0.0))
                    .iter()
                    .sum::<f64>()
            };
            ensure!(
                sum("partitions") == (4 * MONTH_DAYS) as f64,
                "a month has {MONTH_DAYS} days of four tables: {went}"
            );
            ensure!(left - self.days_left() == MONTH_DAYS, "{left} days were there, and {} are", self.days_left());
            took_s.push(sum("drop_ms") / 1_000.0);
            bytes += sum("bytes");
        }
        let (without, with) = (self.p99(&without)?, self.p99(&with)?);
        eprintln!(
            "out of sight in {took_s:.2?} s; p99 {without:.1} ms without, {with:.1} ms with; until the disk has them …"
        );
        let reclaimed_s = self.reclaimed().await?;
        let of = format!("a month of {} settled jobs", jobs as i64 / MONTHS);
        Ok(vec![
            judged(
                format!("{of}: out of sight in, the slowest of {MONTHS}"),
                took_s.iter().copied().fold(0.0, f64::max),
                "s",
                Bar::AtMost(MONTH_MAX_S),
            ),
            judged(
                format!("the same: p99 from due to begun at {BESIDE_RATE}/s, with against without"),
                with / without,
                "×",
                Bar::AtMost(P99_MAX),
            ),
            informs("the same: p99 without".to_owned(), without, "ms"),
            informs("the same: p99 with".to_owned(), with, "ms"),
            informs("all months: bytes that are free".to_owned(), bytes / 1e9, "GB"),
            informs("until the disk has them, behind the last month".to_owned(), reclaimed_s, "s"),
        ])
    }

    /// The load for a while, in which a run may be ordered; begin and end of it.
    async fn window(&self, order_after: Option<Duration>) -> Result<(i64, i64)> {
        let begin = wall_ms();
        match order_after {
            None => tokio::time::sleep(WINDOW).await,
            Some(after) => {
                tokio::time::sleep(after).await;
                let order = self.ask(Method::POST, "/v1/retention/run").await?["order"].as_i64();
                let ordered = Instant::now();
                tokio::time::sleep(WINDOW - after).await;
                while self.ask(Method::GET, "/v1/retention").await?["served"].as_i64() < order {
                    ensure!(ordered.elapsed() < PATIENCE, "the run has no end");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
        Ok((begin, begin + WINDOW.as_millis() as i64))
    }

    /// Another scheduler in the place of the one that is there, which keeps jobs for so many days.
    async fn schedule_with(&mut self, days: i64) -> Result<()> {
        let text = format!("[retention]\njobs = \"{days}d\"\npayloads = \"{days}d\"\nerrors = \"{days}d\"\n");
        let path = file(&self.files, &days.to_string(), &text)?;
        self.cluster.kill(self.scheduler).await?;
        self.scheduler = self.cluster.spawn_with(Role::Scheduler, &[("LONGSHORE_CONFIG", &path)]).await?;
        self.cluster.ready(self.scheduler).await?;
        tokio::time::sleep(WARM_UP).await;
        Ok(())
    }

    /// What the last run says of itself.
    async fn last_run(&self) -> Result<Value> {
        let page = self.ask(Method::GET, "/v1/audit?action=RETAIN&limit=1").await?;
        Ok(page["rows"][0]["detail"].clone())
    }

    /// Waits until no table of a dropped day is there, and returns for how long.
    async fn reclaimed(&self) -> Result<f64> {
        let began = Instant::now();
        let left =
            "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND NOT relispartition AND relname ~ '_[0-9]{8}$'";
        while self.cluster.sql(left).trim() != "0" {
            ensure!(began.elapsed() < RECLAIMED_MAX, "the disk has not got them back");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(began.elapsed().as_secs_f64())
    }

    fn days_left(&self) -> i64 {
        let (table, first) = ("settled_jobs", self.first);
        let count = self.cluster.sql(&format!(
            "SELECT count(*) FROM pg_class WHERE relispartition AND relname ~ '^{table}_[0-9]{{8}}$'
                    AND relname < '{table}_' || to_char(to_timestamp({first} / 1000) + interval '{} days', 'YYYYMMDD')",
            MONTHS * MONTH_DAYS + 1
        ));
        count.parse().unwrap_or(-1)
    }

    /// Milliseconds from due to begun that 99 of 100 jobs of these windows did not exceed.
    fn p99(&self, windows: &[(i64, i64)]) -> Result<f64> {
        let within: Vec<_> = windows.iter().map(|(from, to)| format!("run_at BETWEEN {from} AND {to}")).collect();
        let text = self.cluster.sql(&format!(
            "SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY began_at - run_at) FROM settled_jobs
             WHERE queue = 'beside' AND ({})",
            within.join(" OR ")
        ));
        text.parse().with_context(|| format!("no number: {text}"))
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Value> {
        let answer = self.http.request(method, format!("{}{path}", self.api)).bearer_auth(KEY).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }
}

fn file(folder: &TempDir, name: &str, text: &str) -> Result<String> {
    let path = folder.path().join(format!("{name}.toml"));
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

#[allow(clippy::disallowed_methods, reason = "rows are of days of the wall clock")]
fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}
