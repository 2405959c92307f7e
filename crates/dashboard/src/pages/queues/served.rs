//! Which queues stand because no worker serves them: others are busy, so no number says so, but a job that waits there does.

use std::{cmp::Reverse, collections::BTreeSet};

use futures::future::join_all;
use serde::Deserialize;

use super::Queue;
use crate::{
    client::{path, query},
    viewer::Visit,
};

/// Queues that are asked about on one page: each is two requests.
const ASKED_MAX: usize = 3;
/// Seconds that a job waits before its queue is suspected: any worker would have taken it.
const PATIENCE_S: f64 = 5.0;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Jobs {
    jobs: Vec<Job>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Job {
    id: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Why {
    waits: Vec<Wait>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wait {
    waits_for: String,
}

/// The names of those that nobody serves, of the few that look like it.
pub(crate) async fn unserved(visit: &Visit, queues: &[Queue]) -> BTreeSet<String> {
    if !visit.viewer.may("GET /v1/jobs") || !visit.viewer.may("GET /v1/jobs/{id}/why") {
        return BTreeSet::new();
    }
    let names = suspects(queues);
    let found = join_all(names.iter().map(|name| is_unserved(visit, name))).await;
    names.iter().zip(found).filter(|(_, unserved)| *unserved).map(|(name, _)| (*name).to_owned()).collect()
}

/// Those in which a job waits, none runs, and nobody has paused them; the oldest job first.
fn suspects(queues: &[Queue]) -> Vec<&str> {
    let stands = |queue: &&Queue| {
        let metrics = &queue.metrics;
        !queue.paused && metrics.waiting > 0 && metrics.active == 0 && metrics.oldest_ready_seconds >= PATIENCE_S
    };
    let mut suspects: Vec<_> = queues.iter().filter(stands).collect();
    suspects.sort_by_key(|queue| Reverse(queue.metrics.oldest_ready_seconds as u64));
    suspects.iter().take(ASKED_MAX).map(|queue| queue.queue.as_str()).collect()
}

/// Whether the newest job that waits there waits for a worker. What cannot be read is no alarm.
async fn is_unserved(visit: &Visit, queue: &str) -> bool {
    let newest = format!("/v1/jobs{}", query(&[("queue", queue), ("state", "ready"), ("limit", "1")]));
    let Ok(Jobs { jobs }) = visit.client.get(&newest).await else { return false };
    let Some(job) = jobs.first() else { return false };
    let why: Why = visit.client.get(&path(&["v1", "jobs", &job.id, "why"])).await.unwrap_or_default();
    why.waits.iter().any(|wait| wait.waits_for == "no_worker")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::queues::Metrics;

    #[test]
    fn a_queue_that_stands_is_suspected() {
        let queue = |name: &str, active, oldest_ready_seconds, paused| Queue {
            queue: name.to_owned(),
            paused,
            metrics: Metrics { waiting: 1, active, oldest_ready_seconds, ..Metrics::default() },
            ..Queue::default()
        };
        let queues = [
            queue("busy", 1, 60.0, false),
            queue("young", 0, 4.0, false),
            queue("paused", 0, 60.0, true),
            queue("old", 0, 6.0, false),
            queue("oldest", 0, 60.0, false),
        ];
        assert_eq!(suspects(&queues), ["oldest", "old"]);
    }
}
