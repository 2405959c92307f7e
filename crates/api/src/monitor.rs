//! The small listener of a process that runs a role without the API: metrics for Prometheus, probes for whoever
//! started it. No key is asked for, and nothing can be changed here.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::header,
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use queue_core::{stores::Check, telemetry};
use serde_json::json;
use tokio::{net::TcpListener, sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    Bounds, connections, health, observe,
    problem::{Cause, Problem},
    serve,
};

/// Most connections at once: scrapers and probes are few.
const CONNECTIONS_MAX: usize = 64;
/// How long an answer about readiness stands: several probes a second are one look.
const READY_TTL: Duration = Duration::from_secs(1);

/// What the listener shows.
#[derive(Clone)]
pub struct Monitor {
    /// What `/metrics` renders: the handle of the recorder that the process installed.
    pub metrics: PrometheusHandle,
    /// `/readyz` is 200 while none of these has anything to say.
    pub needs: Vec<Arc<dyn Check>>,
}

struct Watch {
    monitor: Monitor,
    last: Mutex<Option<(Instant, Result<(), String>)>>,
    shutdown: CancellationToken,
}

/// Serves `/metrics`, `/livez` and `/readyz` on `listener` until `shutdown` fires. HTTP/1.1 only.
pub async fn serve_monitor(listener: TcpListener, monitor: Monitor, shutdown: CancellationToken) {
    serve::announce_build(env!("CARGO_PKG_VERSION"));
    let upkeep = tokio::spawn(serve::upkeep(monitor.metrics.clone(), shutdown.clone()));
    let watch = Watch { monitor, last: Mutex::default(), shutdown: shutdown.clone() };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .fallback(observe::no_route)
        .method_not_allowed_fallback(observe::no_method)
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(middleware::from_fn(observe::observe))
        .with_state(Arc::new(watch));
    let bounds = Bounds { connections_max: CONNECTIONS_MAX, ..Bounds::default() };
    connections::serve(listener, router, bounds, None, shutdown).await;
    upkeep.abort();
}

async fn metrics(State(watch): State<Arc<Watch>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, telemetry::in_dollars(&watch.monitor.metrics.render())).into_response()
}

async fn livez() -> Response {
    Json(json!({"status": health::OK})).into_response()
}

async fn readyz(State(watch): State<Arc<Watch>>) -> Result<Response, Problem> {
    let not_ready = |reason: String| Problem::new(Cause::Unavailable, reason).retry_after(1);
    if watch.shutdown.is_cancelled() {
        return Err(not_ready("the process is stopping".to_owned()));
    }
    watch.ready().await.map_err(not_ready)?;
    Ok(livez().await)
}

impl Watch {
    /// One look at a time; whoever asks meanwhile waits for its answer.
    async fn ready(&self) -> Result<(), String> {
        let mut last = self.last.lock().await;
        if let Some((at, found)) = &*last
            && at.elapsed() < READY_TTL
        {
            return found.clone();
        }
        let answers = futures::future::join_all(self.monitor.needs.iter().map(health::ask)).await;
        let wrong: Vec<_> = answers
            .into_iter()
            .filter(|(_, found)| found != health::OK)
            .map(|(name, found)| format!("{name}: {found}"))
            .collect();
        let found = if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) };
        *last = Some((Instant::now(), found.clone()));
        found
    }
}
