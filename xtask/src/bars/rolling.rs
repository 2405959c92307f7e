//! A new version comes: each process of every role is asked to end and started again, one after the other, under a load whose client
//! follows `/readyz` as a balancer does.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::time::Instant;

use super::{informs, judged, steady::Steady};
use crate::{
    bar::{Bar, Judged},
    cluster::{Cluster, Role},
};

/// Shortest time that a job sleeps, in milliseconds.
const SLEEP_MIN_MS: f64 = 100.0;
/// What whoever runs the processes waits before it kills, and what each is told of it.
const GRACE_S: f64 = 30.0;
const STOP_WAIT: &str = "5s";
/// Slots of each worker: one alone has to run all of the load.
const SLOTS: &str = "6000";
/// Longest wait for the last job to end: twice the longest, for one that was given back at its end.
const PATIENCE: Duration = Duration::from_secs(150);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How much load, and how long what takes.
struct Pace {
    /// Jobs a second.
    rate: u64,
    /// Longest time that a job sleeps, in milliseconds: most are short, and some take longer than a worker drains.
    sleep_max_ms: f64,
    /// What a worker is told to wait for its jobs.
    drain: &'static str,
    /// Until the load runs evenly, and between two restarts.
    settles: Duration,
}

/// One job in ten takes longer than a worker drains.
const FULL: Pace = Pace { rate: 300, sleep_max_ms: 40_000.0, drain: "20s", settles: Duration::from_secs(5) };
/// For CI.
const SHORT: Pace = Pace { rate: 30, sleep_max_ms: 8_000.0, drain: "2s", settles: Duration::from_secs(1) };

/// What clients and jobs noticed.
pub(super) async fn measure(longshore: &Path) -> Result<Vec<Judged>> {
    at(&FULL, longshore).await
}

/// Likewise with a small load and short jobs; nothing that it demands is a matter of speed but that a process ends in the
/// time that it has.
pub(super) async fn measure_short(longshore: &Path) -> Result<Vec<Judged>> {
    at(&SHORT, longshore).await
}

async fn at(pace: &'static Pace, longshore: &Path) -> Result<Vec<Judged>> {
    let environment =
        [("LONGSHORE_STOP_WAIT", STOP_WAIT), ("LONGSHORE_WORKER_DRAIN", pace.drain), ("LONGSHORE_WORKER_SLOTS", SLOTS)];
    let mut cluster = Cluster::start(longshore, &environment).await?;
    let mut members = Vec::new();
    for role in [Role::Scheduler, Role::Api, Role::Worker] {
        for _ in 0..2 {
            members.push(cluster.spawn(role).await?);
        }
    }
    for number in &members {
        cluster.ready(*number).await?;
    }
    eprintln!(
        "{} jobs/s of {SLEEP_MIN_MS} to {} ms, each of {} processes is restarted …",
        pace.rate,
        pace.sleep_max_ms,
        members.len()
    );
    let load = Steady::start(
        cluster.apis(),
        pace.rate,
        |number| json!({"queue": "rolling", "kind": "probe", "payload": {"sleep_ms": sleep_ms(pace, number)}}),
    );
    let rolled = roll(pace, &mut cluster, &members).await;
    let sent = load.stop().await?;
    let longest_s = rolled?;
    let ends = Ends::of(&cluster, sent.accepted).await?;
    cluster.stop().await?;
    for why in &sent.told {
        eprintln!("failed: {why}");
    }
    let what = |what: &str| format!("rolling restart of 6 processes at {} jobs/s: {what}", pace.rate);
    Ok(vec![
        judged(what("failed client requests"), sent.failed as f64, "requests", Bar::AtMost(0.0)),
        judged(what("jobs that spent more than one attempt"), ends.charged, "jobs", Bar::AtMost(0.0)),
        judged(what("accepted jobs that have not succeeded"), ends.lost, "jobs", Bar::AtMost(0.0)),
        judged(what("slowest end of a process"), longest_s, "s", Bar::AtMost(GRACE_S)),
        judged(what("leases lost"), ends.recovered, "jobs", Bar::AtMost(0.0)),
        // Without any, nothing was shown.
        judged(what("jobs that were given back"), ends.released, "jobs", Bar::AtLeast(1.0)),
        informs(what("accepted"), sent.accepted as f64, "jobs"),
        informs(what("rate"), sent.rate, "jobs/s"),
    ])
}

/// Evenly spread over the orders of magnitude, the same in every run.
fn sleep_ms(pace: &Pace, number: u64) -> u64 {
    let share = (number * 7_919 % 1_000) as f64 / 999.0;
    (SLEEP_MIN_MS * (pace.sleep_max_ms / SLEEP_MIN_MS).powf(share)).round() as u64
}

/// Ends and starts each process; the seconds of the slowest end.
async fn roll(pace: &Pace, cluster: &mut Cluster, members: &[usize]) -> Result<f64> {
    let mut longest_s = 0.0_f64;
    for number in members {
        tokio::time::sleep(pace.settles).await;
        let began = Instant::now();
        let code = cluster.end(*number).await?;
        let seconds = began.elapsed().as_secs_f64();
        eprintln!("{} {number} ended after {seconds:.1} s", cluster.members[*number].role);
        ensure!(code == Some(0), "its exit code is {code:?}:\n{}", cluster.log(*number));
        longest_s = longest_s.max(seconds);
        cluster.restart(*number).await?;
        cluster.ready(*number).await?;
    }
    tokio::time::sleep(pace.settles).await;
    Ok(longest_s)
}

/// What became of the jobs.
struct Ends {
    lost: f64,
    charged: f64,
    recovered: f64,
    released: f64,
}

impl Ends {
    /// Once all have ended, or the time is over.
    async fn of(cluster: &Cluster, accepted: u64) -> Result<Self> {
        let began = Instant::now();
        let count = |what: &str| -> Result<f64> {
            Ok(cluster.sql(&format!("SELECT count(*) FROM job_rows WHERE queue = 'rolling' AND {what}")).parse()?)
        };
        loop {
            let lost = accepted as f64 - count("standing = 1")?;
            if lost <= 0.0 || began.elapsed() > PATIENCE {
                return Ok(Self {
                    lost,
                    charged: count("attempts > 1")?,
                    recovered: count("recoveries > 0")?,
                    // The job's own count of them is forgotten when it succeeds.
                    released: count("id IN (SELECT job_id FROM attempts WHERE outcome = 'release')")?,
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_of_every_length() {
        let all: Vec<u64> = (0..1_000).map(|number| sleep_ms(&FULL, number)).collect();
        assert_eq!((all.iter().min(), all.iter().max()), (Some(&100), Some(&40_000)));
        let long = all.iter().filter(|ms| **ms > 20_000).count();
        assert!((80..160).contains(&long), "{long} are longer than a worker drains");
    }
}
