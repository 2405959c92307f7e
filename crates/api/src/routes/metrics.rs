//! `/metrics`: what Prometheus scrapes.

use std::collections::BTreeMap;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use metrics::SharedString;
use queue_core::{credentials, ids::Name, telemetry};

use crate::{
    app::Shared,
    routes::{
        queues::{self, QueueMetrics},
        targets,
    },
};

/// Every metric in the text format of Prometheus. Depths of queues and states of breakers are read at the
/// scrape.
#[utoipa::path(get, path = "/metrics", tag = "system", responses(
    (status = 200, description = "text format 0.0.4", body = String, content_type = "text/plain"),
))]
pub(crate) async fn metrics(State(app): State<Shared>) -> Response {
    match queues::numbers(&app).await {
        Ok(queues) => show_queues(queues),
        // A scrape must not fail with a store: the other metrics say what is wrong with it.
        Err(problem) => tracing::warn!(detail = problem.detail(), "queue gauges keep their last values"),
    }
    let circuits = targets::circuits(&app).await.into_iter().flatten();
    let mut levels = BTreeMap::<SharedString, u8>::new();
    for (circuit, view) in circuits.filter(|(circuit, _)| !credentials::is_of_tenant(circuit)) {
        // Of those that share a label, the worst.
        let level = levels.entry(telemetry::target(circuit.as_str())).or_default();
        *level = view.state.level().max(*level);
    }
    for (target, level) in levels {
        metrics::gauge!(telemetry::BREAKER_STATE, "target" => target).set(f64::from(level));
    }
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, telemetry::in_dollars(&app.api.metrics.render())).into_response()
}

/// The gauges of queues; those that share a label are one queue.
fn show_queues(queues: impl IntoIterator<Item = (Name, QueueMetrics)>) {
    let mut shown = BTreeMap::<SharedString, Shown>::new();
    for (queue, numbers) in queues {
        let one = shown.entry(telemetry::queue(queue.as_str())).or_default();
        let states = [numbers.waiting, numbers.active, numbers.scheduled, numbers.parked];
        one.states.iter_mut().zip(states).for_each(|(sum, jobs)| *sum += jobs);
        one.dead += numbers.failed;
        one.oldest_s = one.oldest_s.max(numbers.oldest_ready_seconds);
    }
    for (queue, Shown { states, dead, oldest_s }) in shown {
        for (state, jobs) in STATES.into_iter().zip(states) {
            metrics::gauge!(telemetry::QUEUE_JOBS, "queue" => queue.clone(), "state" => state).set(jobs as f64);
        }
        metrics::gauge!(telemetry::QUEUE_OLDEST_READY, "queue" => queue.clone()).set(oldest_s);
        metrics::gauge!(telemetry::DEAD_LETTERS, "queue" => queue).set(dead as f64);
    }
}

/// What a queue's jobs are told apart by.
const STATES: [&str; 4] = ["waiting", "active", "scheduled", "parked"];

/// The numbers of one label.
#[derive(Default)]
struct Shown {
    /// In the order of [`STATES`].
    states: [u64; 4],
    dead: u64,
    oldest_s: f64,
}
