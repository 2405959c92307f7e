//! Four workers and 2,000 jobs before a provider that lets in 600 requests and 100,000 tokens a minute: whether they use
//! what is allowed, are never told off, starve nobody and hold up no other target; and whether they leave it alone when it
//! asks for that.
//!
//! The provider's buckets hold six seconds of its limits, not a minute: a limiter that is too fast by more than that is told
//! so. It charges what a request may use when it lets it in.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use testkit::{Allowance, MockProvider, Tally};

use super::{
    load::{Client, LOOK_EVERY, job, mixed, quantile_ms},
    witness::Witness,
};
use crate::{
    bar::{Bar, Judged},
    cluster::{Cluster, Role},
};

const ALLOWANCE: Allowance =
    Allowance { requests_per_minute: 600.0, tokens_per_minute: 100_000.0, burst: Duration::from_secs(6) };
/// Processes.
const MEMBERS: [Role; 6] = [Role::Scheduler, Role::Api, Role::Worker, Role::Worker, Role::Worker, Role::Worker];
/// Jobs of the whole run, and about how many go through in a second.
const JOBS_MAX: usize = 2_000;
const JOBS_PER_S: f64 = 6.9;
/// Jobs of the second target, one after the other, in each of the two runs.
const SECOND_JOBS: usize = 300;
const SECOND_EVERY: Duration = Duration::from_millis(50);
/// The pause that the provider asks for, and how long is looked whether it gets it.
const PAUSE: Duration = Duration::from_secs(30);
const AFTER_PAUSE: Duration = Duration::from_secs(5);
/// How long is looked whether a credential without money is left alone.
const UNPAID: Duration = Duration::from_secs(20);
/// Calls that were under way when the first refusal went out cannot be called back: what arrives later than this was sent
/// by somebody who could know.
const UNDER_WAY: Duration = Duration::from_millis(250);
/// Jobs that flow while the provider asks for a pause, and while nobody pays.
const FLOWING_JOBS: usize = 400;

struct Stage {
    cluster: Cluster,
    api: Client,
    limited: MockProvider,
    second: MockProvider,
    ways: std::sync::Arc<Witness>,
    answers: std::sync::Arc<Witness>,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn set(longshore: &Path) -> Result<Self> {
        let (answers, ways) = (Witness::new(true), Witness::new(false));
        let limited = MockProvider::start_directed(answers.clone()).await;
        let second = MockProvider::start_directed(ways.clone()).await;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("longshore.toml");
        std::fs::write(
            &file,
            format!(
                "[[providers]]\nname = \"limited\"\nurl = \"{}\"\nmodels = [\"limited\"]\n\
                 requests_per_minute = {}\ntokens_per_minute = {}\n\n\
                 [[providers]]\nname = \"second\"\nurl = \"{}\"\nmodels = [\"second\"]\n",
                limited.url(),
                ALLOWANCE.requests_per_minute,
                ALLOWANCE.tokens_per_minute,
                second.url()
            ),
        )?;
        let file = file.to_str().context("a temporary folder has a name in UTF-8")?;
        let mut cluster = Cluster::start(longshore, &[("LONGSHORE_CONFIG", file), ("RUST_LOG", "info")]).await?;
        for role in MEMBERS {
            let number = cluster.spawn(role).await?;
            cluster.ready(number).await?;
        }
        let api = Client::new(cluster.apis().first().context("there is an API")?);
        Ok(Self { cluster, api, limited, second, ways, answers, _folder: folder })
    }

    /// Sends the second target its jobs, and returns how long each was on its way.
    async fn second_target(&self) -> Result<Vec<Duration>> {
        let mut every = tokio::time::interval(SECOND_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.ways.take_ways();
        for _ in 0..SECOND_JOBS {
            every.tick().await;
            self.api.submit(&job("second", "second", &self.ways.mark(), 16)).await?;
        }
        let arrived = async {
            while self.ways.count_ways() < SECOND_JOBS {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), arrived).await.context("the second target's jobs are lost")?;
        Ok(self.ways.take_ways())
    }

    /// The most times that any job was claimed and put back, and how many were at all.
    fn put_back(&self) -> Result<(f64, f64)> {
        let sql = "SELECT coalesce(max(n), 0), count(*) FROM (SELECT count(*) n FROM attempts WHERE outcome = 'release' \
                   GROUP BY job_id) of_job";
        let told = self.cluster.sql(sql);
        let (most, jobs) = told.split_once('|').context("two numbers")?;
        Ok((most.parse()?, jobs.parse()?))
    }
}

/// Runs all of it.
pub(super) async fn measure(longshore: &Path, seconds: u64) -> Result<Vec<Judged>> {
    let mut stage = Stage::set(longshore).await?;
    eprintln!("the second target alone …");
    let alone = stage.second_target().await?;
    let mut judged = mixed_load(&stage, seconds, &alone).await?;
    judged.extend(pause(&stage).await?);
    judged.extend(unpaid(&stage).await?);
    ensure!(stage.second.tally().refused == 0, "nobody refuses the second target");
    stage.cluster.stop().await?;
    Ok(judged)
}

async fn mixed_load(stage: &Stage, seconds: u64, alone: &[Duration]) -> Result<Vec<Judged>> {
    let jobs = JOBS_MAX.min((seconds as f64 * JOBS_PER_S) as usize).max(50);
    eprintln!("{jobs} jobs of mixed size …");
    stage.limited.enforce(Some(ALLOWANCE));
    stage.api.submit_all(&mixed("mixed", "limited", jobs)).await?;
    let beside = stage.second_target().await?;
    let patience = Duration::from_secs_f64(60.0 + jobs as f64 / JOBS_PER_S * 1.5);
    let all = stage.api.until_ended("mixed", jobs as u64, patience).await?;
    let numbers = stage.api.queue("mixed").await?;
    let starved = jobs as f64 - numbers["completed"].as_f64().unwrap_or(0.0);
    if !all {
        eprintln!("not all jobs have ended: {numbers}");
    }
    let (put_back, put_back_jobs) = stage.put_back()?;
    let tally = stage.limited.tally();
    let (first, last) = tally.first_and_last.context("nothing was let in")?;
    let span = (last - first).as_secs_f64();
    let allowed = ALLOWANCE.tokens_per_minute / 60.0 * (span + ALLOWANCE.burst.as_secs_f64());
    let delay = |part| quantile_ms(&beside, part) - quantile_ms(alone, part);
    Ok(vec![
        judged(
            "share of the allowed tokens used",
            tally.admitted_tokens as f64 / allowed * 100.0,
            "%",
            Bar::AtLeast(95.0),
        ),
        judged("calls answered 429", tally.refused as f64 / tally.calls as f64 * 100.0, "%", Bar::AtMost(1.0)),
        informs("calls answered 429", tally.refused as f64, "calls"),
        judged("requests starved", starved, "jobs", Bar::AtMost(0.0)),
        judged("most times that a job was claimed and put back", put_back, "times", Bar::AtMost(2.0)),
        informs("jobs that were claimed and put back at all", put_back_jobs, "jobs"),
        judged("a second target's jobs: p50, later than alone", delay(0.5), "ms", Bar::AtMost(50.0)),
        judged("a second target's jobs: p99, later than alone", delay(0.99), "ms", Bar::AtMost(50.0)),
        informs("a second target's jobs: p99 alone", quantile_ms(alone, 0.99), "ms"),
        informs("a second target's jobs: longest, later than alone", delay(1.0), "ms"),
        informs("time from the first call to the last", span, "s"),
        informs("requests let in, of the allowed", tally.admitted as f64 / (span / 60.0 * 600.0 + 60.0) * 100.0, "%"),
    ])
}

/// Small jobs, and a provider that is being asked.
async fn flow(stage: &Stage, queue: &str) -> Result<()> {
    let jobs = mixed(queue, "limited", FLOWING_JOBS);
    let before = stage.answers.answered();
    stage.api.submit_all(&jobs).await?;
    let flows = async {
        while stage.answers.answered() < before + 5 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), flows).await.context("jobs do not flow")
}

/// Splits arrivals into those that were under way and those that should not have come.
fn late(arrivals: &[Duration]) -> (f64, f64) {
    let late = arrivals.iter().filter(|after| **after > UNDER_WAY).count();
    ((arrivals.len() - late) as f64, late as f64)
}

async fn pause(stage: &Stage) -> Result<Vec<Judged>> {
    eprintln!("Retry-After: {} …", PAUSE.as_secs());
    flow(stage, "pause").await?;
    stage.limited.pause_next(PAUSE);
    tokio::time::sleep(PAUSE + AFTER_PAUSE).await;
    let Tally { during_pause, .. } = stage.limited.tally();
    let answered = stage.answers.answered();
    let again = async {
        while stage.answers.answered() <= answered {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let goes_on = tokio::time::timeout(Duration::from_secs(20), again).await.is_ok();
    let (under_way, late) = late(&during_pause);
    Ok(vec![
        judged("Retry-After of 30 s: calls before it ended", late, "calls", Bar::AtMost(0.0)),
        informs("Retry-After: calls that were under way (250 ms)", under_way, "calls"),
        judged("Retry-After: calls go on afterwards", f64::from(u8::from(goes_on)), "yes", Bar::AtLeast(1.0)),
    ])
}

async fn unpaid(stage: &Stage) -> Result<Vec<Judged>> {
    eprintln!("insufficient_quota …");
    flow(stage, "unpaid").await?;
    stage.limited.set_unpaid(true);
    tokio::time::sleep(UNPAID).await;
    let tally = stage.limited.tally();
    let (under_way, late) = late(&tally.while_unpaid);
    Ok(vec![
        judged(
            "insufficient_quota: calls that were told so, but those under way",
            tally.unpaid as f64 - under_way,
            "calls",
            Bar::AtMost(1.0),
        ),
        informs("insufficient_quota: calls that were under way (250 ms)", under_way, "calls"),
        informs("insufficient_quota: later calls", late, "calls"),
    ])
}

pub(super) fn judged(what: &str, figure: f64, unit: &str, bar: Bar) -> Judged {
    Judged { what: what.to_owned(), figure, unit: unit.to_owned(), bar: Some(bar) }
}

pub(super) fn informs(what: &str, figure: f64, unit: &str) -> Judged {
    Judged { what: what.to_owned(), figure, unit: unit.to_owned(), bar: None }
}
