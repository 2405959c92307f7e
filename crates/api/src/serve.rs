//! Puts routes and layers together, listens, and stops.

use std::{io, time::Duration};

use axum::{Router, middleware, serve::ListenerExt};
use queue_core::telemetry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    Api,
    app::{App, Shared},
    observe, routes,
};

/// How long open requests may go on after the server was asked to stop. Streams and long polls end at once.
const STOP_MAX: Duration = Duration::from_secs(10);
/// How often the metrics' histograms are drained when nobody scrapes them: they would grow for ever.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The API as a service, for those who bring their own server. It never learns that it should stop.
pub fn router(api: Api) -> Router {
    routed(App::new(api, CancellationToken::new()))
}

/// Serves the API on `listener` until `shutdown` fires and the open requests have ended, at most ten seconds later.
///
/// From then on `/readyz` answers 503, event streams and long polls end, and no connection is taken.
pub async fn serve(listener: TcpListener, api: Api, shutdown: CancellationToken) -> io::Result<()> {
    metrics::gauge!(telemetry::BUILD_INFO, "version" => api.settings.version.clone()).set(1.0);
    let upkeep = tokio::spawn(upkeep(api.metrics.clone(), shutdown.clone()));
    let router = routed(App::new(api, shutdown.clone()));
    let listener = listener.tap_io(|stream| {
        // Answers are small and waited for: without this, each could wait for the client's delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
    });
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let stopped = tokio::select! {
        stopped = server.into_future() => stopped,
        () = after(shutdown, STOP_MAX) => {
            tracing::warn!("requests that did not end within {} seconds are dropped", STOP_MAX.as_secs());
            Ok(())
        }
    };
    upkeep.abort();
    stopped
}

async fn after(shutdown: CancellationToken, grace: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(grace).await;
}

async fn upkeep(handle: metrics_exporter_prometheus::PrometheusHandle, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => handle.run_upkeep(),
        }
    }
}

fn routed(app: Shared) -> Router {
    let (router, document) = routes::all(&app).split_for_parts();
    router
        .merge(routes::docs::routes(document, &app.api.settings.version))
        .fallback(observe::no_route)
        .method_not_allowed_fallback(observe::no_method)
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(middleware::from_fn(observe::observe))
        .with_state(app)
}
