//! `/metrics`: what Prometheus scrapes.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use queue_core::{credentials, telemetry};

use crate::{
    app::Shared,
    routes::{queues, targets},
};

/// Every metric in the text format of Prometheus. Depths of queues and states of breakers are read at the
/// scrape.
#[utoipa::path(get, path = "/metrics", tag = "system", responses(
    (status = 200, description = "text format 0.0.4", body = String, content_type = "text/plain"),
))]
pub(crate) async fn metrics(State(app): State<Shared>) -> Response {
    match queues::numbers(&app).await {
        Ok(queues) => {
            for (queue, numbers) in queues {
                let states = [
                    ("waiting", numbers.waiting),
                    ("active", numbers.active),
                    ("scheduled", numbers.scheduled),
                    ("parked", numbers.parked),
                ];
                for (state, jobs) in states {
                    metrics::gauge!(telemetry::QUEUE_JOBS, "queue" => queue.shared(), "state" => state)
                        .set(jobs as f64);
                }
                metrics::gauge!(telemetry::QUEUE_OLDEST_READY, "queue" => queue.shared())
                    .set(numbers.oldest_ready_seconds);
                metrics::gauge!(telemetry::DEAD_LETTERS, "queue" => queue.shared()).set(numbers.failed as f64);
            }
        }
        // A scrape must not fail with a store: the other metrics say what is wrong with it.
        Err(problem) => tracing::warn!(detail = problem.detail(), "queue gauges keep their last values"),
    }
    let circuits = targets::circuits(&app).await.into_iter().flatten();
    for (circuit, view) in circuits.filter(|(circuit, _)| !credentials::is_of_tenant(circuit)) {
        metrics::gauge!(telemetry::BREAKER_STATE, "target" => telemetry::label(circuit.as_str()))
            .set(f64::from(view.state.level()));
    }
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, telemetry::in_dollars(&app.api.metrics.render())).into_response()
}
