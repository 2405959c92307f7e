//! Queues: the list, and one of them closely.

mod change;
mod close;
pub(crate) mod served;

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::{
    Router,
    response::Response,
    routing::{get, post},
};
use serde::Deserialize;

use super::{
    history::History,
    workers::{self, Workers},
};
use crate::{
    Dashboard, chart,
    client::{Refused, path},
    page::{Shell, html},
    viewer::Visit,
    words,
};

/// Where they are asked for.
pub(crate) const QUEUES: &str = "/v1/queues";
/// The history of each for a sparkline: twelve points are enough for one, and there may be 256 queues.
const EACH: &str = "/v1/queues/metrics/history?step=5m&each=true";
/// Age of the oldest waiting job, in seconds, from which it is worth a look.
pub(crate) const OLD_S: f64 = 60.0;
/// And from which somebody ought to have been called.
pub(crate) const VERY_OLD_S: f64 = 300.0;

/// All of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Queues {
    /// By name.
    pub(crate) queues: Vec<Queue>,
}

/// A queue: its settings and numbers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Queue {
    /// Its name.
    pub(crate) queue: String,
    /// Whether claims skip it.
    pub(crate) paused: bool,
    /// When that ends by itself.
    pub(crate) until: Option<String>,
    /// Why it is paused.
    pub(crate) reason: Option<String>,
    /// Whether new jobs are refused.
    pub(crate) draining: bool,
    /// Jobs that may run at once.
    pub(crate) concurrency: Option<u64>,
    /// Jobs of one concurrency key that may.
    pub(crate) key_concurrency: u64,
    /// Longest attempt of a job that names none.
    pub(crate) timeout: Option<String>,
    /// How long settled jobs are kept.
    pub(crate) retention: Option<String>,
    /// Its numbers.
    pub(crate) metrics: Metrics,
}

/// Numbers of a queue.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Metrics {
    /// Claimable now.
    pub(crate) waiting: u64,
    /// Held by workers.
    pub(crate) active: u64,
    /// Due later.
    pub(crate) scheduled: u64,
    /// Due, but held back.
    pub(crate) parked: u64,
    /// Succeeded since the queue exists.
    pub(crate) completed: u64,
    /// Dead letters now.
    pub(crate) failed: u64,
    /// How long the oldest claimable one has waited.
    pub(crate) oldest_ready_seconds: f64,
}

impl Queue {
    /// Its page.
    pub(crate) fn href(&self) -> String {
        href(&self.queue)
    }

    /// How it is, in a word.
    pub(crate) fn word(&self) -> &'static str {
        match (self.paused, self.draining) {
            (true, _) => "paused",
            (false, true) => "draining",
            (false, false) => "open",
        }
    }

    /// The same as a badge: an open queue is fine, unlike an open breaker.
    pub(crate) fn badge(&self) -> words::Safe {
        words::state(if self.word() == "open" { "active" } else { self.word() })
    }

    /// How alarming its oldest job is.
    pub(crate) fn tone(&self) -> &'static str {
        match self.metrics.oldest_ready_seconds {
            _ if self.paused => "",
            old if old >= VERY_OLD_S => "bad",
            old if old >= OLD_S => "warn",
            _ => "",
        }
    }

    /// How long its oldest job has waited, or that none does.
    pub(crate) fn oldest(&self) -> String {
        match self.metrics.waiting {
            0 => "–".to_owned(),
            _ => words::seconds(self.metrics.oldest_ready_seconds),
        }
    }

    /// Its jobs in this state.
    pub(crate) fn jobs(&self, state: &str) -> String {
        format!("/dashboard/jobs{}", crate::client::query(&[("queue", &self.queue), ("state", state)]))
    }
}

/// The page of a queue.
pub(crate) fn href(queue: &str) -> String {
    path(&["dashboard", "queues", queue])
}

/// Histories of each queue.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Each {
    queues: BTreeMap<String, Vec<Done>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Done {
    completed: u64,
}

impl Each {
    /// What was done in each five minutes, as a line; nothing where that is not known.
    fn line(&self, queue: &str) -> Option<chart::Svg> {
        let points = self.queues.get(queue).filter(|points| points.len() > 2)?;
        let pairs = points.iter().zip(points.iter().skip(1));
        let done: Vec<f64> = pairs.map(|(from, to)| to.completed.saturating_sub(from.completed) as f64).collect();
        let label =
            format!("{queue}: {} succeeded in the last hour", words::plural(done.iter().sum::<f64>() as u64, "job"));
        Some(chart::sparkline(&done, &label))
    }
}

#[derive(Template)]
#[template(path = "queues.html")]
struct QueuesPage {
    shell: Shell,
    queues: Queues,
    each: Each,
    workers: Option<Workers>,
    unserved: BTreeSet<String>,
}

/// Their addresses.
pub(crate) fn routes() -> Router<Dashboard> {
    Router::new()
        .route("/dashboard/queues", get(list))
        .route("/dashboard/queues/{queue}", get(close::show))
        .route("/dashboard/queues/{queue}/pause", post(change::pause))
        .route("/dashboard/queues/{queue}/resume", post(change::resume))
        .route("/dashboard/queues/{queue}/drain", post(change::drain))
        .route("/dashboard/queues/{queue}/limits", post(change::limits))
}

async fn list(visit: Visit) -> Result<Response, Refused> {
    let Visit { viewer, client, .. } = &visit;
    let each = async {
        match viewer.may(History::ROUTE) {
            true => client.get(EACH).await.unwrap_or_default(),
            false => Each::default(),
        }
    };
    let workers = async {
        match viewer.may("GET /v1/workers") {
            true => client.get(workers::WORKERS).await.ok(),
            false => None,
        }
    };
    let (queues, each, workers) = tokio::join!(client.get::<Queues>(QUEUES), each, workers);
    let queues = queues?;
    let unserved = served::unserved(&visit, &queues.queues).await;
    Ok(html(QueuesPage { shell: visit.shell, queues, each, workers, unserved }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_job_alarms_unless_somebody_has_paused_its_queue() {
        let queue = |oldest_ready_seconds, paused| Queue {
            paused,
            metrics: Metrics { oldest_ready_seconds, waiting: 1, ..Metrics::default() },
            ..Queue::default()
        };
        assert_eq!((queue(10.0, false).tone(), queue(61.0, false).tone()), ("", "warn"));
        assert_eq!((queue(301.0, false).tone(), queue(301.0, true).tone()), ("bad", ""));
        assert_eq!(queue(200.0, false).oldest(), "3 min 20 s");
    }
}
