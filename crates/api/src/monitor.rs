//! The small listener of a process that runs a role without the API: metrics for Prometheus, probes for whoever
//! started it. No key is asked for, and nothing can be changed here.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::header,
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use queue_core::{
    progress::Pulse,
    stores::Check,
    telemetry,
    time::{Clock, SystemClock},
};
use tokio::{net::TcpListener, sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    Bounds, connections,
    health::{self, Found},
    observe,
    problem::Problem,
    routes::health::{Report, fine, not_ready},
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
    /// `/livez` is 200 while none of these stands still.
    pub loops: Vec<Arc<Pulse>>,
}

struct Watch {
    monitor: Monitor,
    last: Mutex<Option<(Instant, BTreeMap<String, Found>)>>,
    /// Whether it was ready once.
    started: AtomicBool,
    shutdown: CancellationToken,
}

/// Serves `/metrics`, `/livez`, `/readyz`, `/startupz` and `/health` on `listener` until `shutdown` fires. HTTP/1.1 only.
pub async fn serve_monitor(listener: TcpListener, monitor: Monitor, shutdown: CancellationToken) {
    serve::announce_build(env!("CARGO_PKG_VERSION"));
    let upkeep = tokio::spawn(serve::upkeep(monitor.metrics.clone(), shutdown.clone()));
    let watch = Watch { monitor, last: Mutex::default(), started: AtomicBool::default(), shutdown: shutdown.clone() };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/health", get(report))
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

async fn livez(State(watch): State<Arc<Watch>>) -> Result<Response, Problem> {
    health::loops(&watch.monitor.loops).map_err(not_ready)?;
    Ok(fine())
}

async fn readyz(State(watch): State<Arc<Watch>>) -> Result<Response, Problem> {
    if watch.shutdown.is_cancelled() {
        return Err(not_ready("the process is stopping"));
    }
    watch.ready().await.map_err(not_ready)?;
    Ok(fine())
}

/// Whether it was ready once: what comes later is none of the start's business.
async fn startupz(State(watch): State<Arc<Watch>>) -> Result<Response, Problem> {
    if !watch.started.load(Ordering::Relaxed) {
        watch.ready().await.map_err(not_ready)?;
    }
    Ok(fine())
}

async fn report(State(watch): State<Arc<Watch>>) -> Response {
    let mut found = watch.found().await;
    let needs: Vec<_> = found.keys().cloned().collect();
    found.insert("loops".to_owned(), Found::known(health::loops(&watch.monitor.loops)));
    let needs: Vec<_> = needs.iter().map(String::as_str).collect();
    Report::new(&found, &needs, SystemClock.now(), env!("CARGO_PKG_VERSION")).into_response()
}

impl Watch {
    async fn ready(&self) -> Result<(), String> {
        let found = self.found().await;
        let wrong: Vec<_> = found
            .iter()
            .filter_map(|(name, found)| Some(format!("{name}: {}", found.verdict.as_ref().err()?)))
            .collect();
        if !wrong.is_empty() {
            return Err(wrong.join("; "));
        }
        self.started.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// One look at a time; whoever asks meanwhile waits for its answer.
    async fn found(&self) -> BTreeMap<String, Found> {
        let mut last = self.last.lock().await;
        if let Some((at, found)) = &*last
            && at.elapsed() < READY_TTL
        {
            return found.clone();
        }
        let found: BTreeMap<_, _> =
            futures::future::join_all(self.monitor.needs.iter().map(health::ask)).await.into_iter().collect();
        *last = Some((Instant::now(), found.clone()));
        found
    }
}
