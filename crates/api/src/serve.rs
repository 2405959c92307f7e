//! Puts routes and layers together, listens, and stops.

use std::time::Duration;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, header},
    middleware::{self, Next},
    response::Response,
};
use queue_core::telemetry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    Api,
    app::{App, Shared},
    connections, headers, history, observe,
    pages::{Beside, carry},
    routes,
};

/// How often the metrics' histograms are drained when nobody scrapes them: they would grow for ever.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// How long changes may go on whose connections have ended: a write into the audit log is tried for 3 s.
const CHANGES_MAX: Duration = Duration::from_secs(5);

/// The API as a service, for those who bring their own server. It never learns that it should stop.
pub fn router(api: Api) -> Router {
    routed(App::new(api, CancellationToken::new()))
}

/// Serves the API on `listener` until `shutdown` fires and the open requests have ended, at most ten seconds later.
///
/// From then on event streams and long polls end, and no connection is taken; `/readyz` answers 503 since
/// [`Api::leaving`] fired. HTTP/1.1,
/// over TLS where a certificate is given. [`Bounds`](crate::Bounds) says how long a client may take and how many may be connected.
pub async fn serve(listener: TcpListener, api: Api, shutdown: CancellationToken) {
    announce_build(&api.settings.version);
    telemetry::begin_rare(telemetry::Part::Api);
    metrics::gauge!(telemetry::SSE_CONNECTIONS).set(0.0);
    let upkeep = tokio::spawn(upkeep(api.metrics.clone(), shutdown.clone()));
    let (bounds, tls) = (api.settings.bounds.clone(), api.tls.clone());
    if let Some(tls) = &tls {
        tls.announce();
    }
    let limits = api.request_limits.clone();
    let attending = tokio::spawn(async move { limits.attend().await });
    let app = App::new(api, shutdown.clone());
    let changes = app.changes.clone();
    let watching = tokio::spawn(history::watch(app.clone(), shutdown.clone()));
    connections::serve(listener, routed(app), bounds, tls, shutdown).await;
    // Those whose callers have hung up, too: they have their rows in the audit log before the process ends.
    changes.close();
    if tokio::time::timeout(CHANGES_MAX, changes.wait()).await.is_err() {
        tracing::error!("changes that did not end within {} seconds are dropped", CHANGES_MAX.as_secs());
    }
    upkeep.abort();
    attending.abort();
    watching.abort();
}

/// The gauge that says which version runs.
pub(crate) fn announce_build(version: &str) {
    metrics::gauge!(telemetry::BUILD_INFO, "version" => version.to_owned()).set(1.0);
}

/// Drains histograms until `shutdown` fires.
pub(crate) async fn upkeep(handle: metrics_exporter_prometheus::PrometheusHandle, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => handle.run_upkeep(),
        }
    }
}

/// While the server leaves, each answer ends its connection: whoever keeps connections opens the next one elsewhere, and none
/// of them is closed under a request that is on its way.
async fn part(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if app.api.leaving.is_cancelled() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn routed(app: Shared) -> Router {
    let (router, document) = routes::all(&app).split_for_parts();
    let router = router
        .merge(routes::docs::routes(document, &app.api.settings.version))
        .fallback(observe::no_route)
        .method_not_allowed_fallback(observe::no_method);
    let router = layered(router, &app);
    let router = match headers::cors(&app.api.settings.cors_origins) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    let router = router.with_state(app.clone());
    match &app.api.pages {
        // No other origin may ask for them: the session is a cookie.
        Some(pages) => {
            let beside = Beside { router: router.clone(), carry, stopping: app.shutdown.clone() };
            router.merge(layered(pages(beside), &app))
        }
        None => router,
    }
}

/// What is around every answer.
fn layered<S: Clone + Send + Sync + 'static>(router: Router<S>, app: &Shared) -> Router<S> {
    router
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(middleware::from_fn(observe::observe))
        .layer(headers::compression())
        .layer(middleware::from_fn_with_state(app.clone(), part))
}
