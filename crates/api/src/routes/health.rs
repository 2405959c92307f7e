//! Probes: alive, ready, started, and a report for people.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use queue_core::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    Settings,
    app::Shared,
    health::OK,
    problem::{Cause, Problem},
};

/// The answer of a probe that found nothing wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Probe {
    /// Always `ok`.
    status: &'static str,
}

/// A report of every part.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Report {
    /// `healthy`; `degraded` when jobs are accepted but something is wrong; `unhealthy` when none are accepted.
    status: &'static str,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// The server's version.
    version: String,
    /// Each part: `ok`, or a few words on what is wrong.
    checks: BTreeMap<String, String>,
    /// The next window in which the journal is looked after, from a day before it on, where an operator has named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    maintenance_window: Option<Announced>,
}

/// A window that is near or open.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MaintenanceWindow)]
pub(crate) struct Announced {
    /// When it begins.
    #[schema(value_type = String, format = DateTime)]
    begins_at: Timestamp,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    ends_at: Timestamp,
}

fn fine() -> Response {
    Json(Probe { status: OK }).into_response()
}

/// Whether the process answers at all.
#[utoipa::path(get, path = "/livez", tag = "system", responses((status = 200, body = Probe)))]
pub(crate) async fn livez() -> Response {
    fine()
}

/// Whether to send requests here: the journal takes writes, and the server is not stopping.
#[utoipa::path(get, path = "/readyz", tag = "system", responses(
    (status = 200, body = Probe),
    (status = 503, description = "not now; `detail` says why", body = crate::problem::Document),
))]
pub(crate) async fn readyz(State(app): State<Shared>) -> Result<Response, Problem> {
    if app.shutdown.is_cancelled() {
        return Err(not_ready("the server is stopping"));
    }
    app.health.journal(&app.api).await.map_err(not_ready)?;
    Ok(fine())
}

/// Whether the start is over: the journal is open and the dispatcher was rebuilt from it.
#[utoipa::path(get, path = "/startupz", tag = "system", responses(
    (status = 200, body = Probe),
    (status = 503, description = "not yet; `detail` says why", body = crate::problem::Document),
))]
pub(crate) async fn startupz(State(app): State<Shared>) -> Result<Response, Problem> {
    app.health.journal(&app.api).await.map_err(not_ready)?;
    app.health.dispatcher(&app.api).await.map_err(not_ready)?;
    Ok(fine())
}

/// How early a window is announced.
const ANNOUNCED_MS: i64 = 24 * 60 * 60 * 1_000;

/// The window that an operator has named, once it is near.
fn announced(settings: &Settings, now: Timestamp) -> Option<Announced> {
    let (begins_at, ends_at) = settings.window.next(now);
    (settings.announces_window && begins_at.since_ms(now) <= ANNOUNCED_MS).then_some(Announced { begins_at, ends_at })
}

fn not_ready(reason: impl Into<String>) -> Problem {
    Problem::new(Cause::Unavailable, reason).retry_after(1)
}

/// A report of every part. Providers and other outside things only ever degrade it.
#[utoipa::path(get, path = "/health", tag = "system", responses(
    (status = 200, description = "healthy or degraded", body = Report),
    (status = 503, description = "unhealthy", body = Report),
))]
pub(crate) async fn health(State(app): State<Shared>) -> Response {
    let (health, api) = (&app.health, &app.api);
    let (journal, dispatcher, workers, outside) =
        tokio::join!(health.journal(api), health.dispatcher(api), health.workers(api), health.outside(api));
    let unhealthy = journal.is_err();
    // Whoever cannot read it is unhealthy already.
    let maintenance = app.standing.now(&*api.stores.orders).await.ok().flatten();
    let mut checks = outside;
    for (name, found) in [
        ("journal", journal),
        ("dispatcher", dispatcher),
        ("workers", workers),
        ("credentials", api.credentials.report().check()),
    ] {
        checks.insert(name.to_owned(), found.err().unwrap_or_else(|| OK.to_owned()));
    }
    if let Some(tls) = &api.tls {
        checks.insert("certificate".to_owned(), tls.check(app.now()).err().unwrap_or_else(|| OK.to_owned()));
    }
    if let Some(maintenance) = maintenance {
        checks.insert("maintenance".to_owned(), format!("on {maintenance}"));
    }
    let (code, status) = match (unhealthy, checks.values().all(|found| found == OK)) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
        (false, true) => (StatusCode::OK, "healthy"),
        (false, false) => (StatusCode::OK, "degraded"),
    };
    let report = Report {
        status,
        timestamp: app.now(),
        version: api.settings.version.clone(),
        checks,
        maintenance_window: announced(&api.settings, app.now()),
    };
    (code, [(header::CACHE_CONTROL, "no-store")], Json(report)).into_response()
}
