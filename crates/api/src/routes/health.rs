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
    health::{self, Detail, Found, OK},
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
    /// The same parts: how long each check took, and when that was.
    details: BTreeMap<String, Detail>,
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

impl Report {
    /// The report of what was found: `healthy` if nothing is wrong, `unhealthy` if what jobs need is.
    pub(crate) fn new(found: &BTreeMap<String, Found>, needs: &[&str], now: Timestamp, version: &str) -> Self {
        let wrong = |name: &str| found.get(name).is_some_and(|found| found.verdict.is_err());
        let status = match (needs.iter().any(|name| wrong(name)), found.keys().any(|name| wrong(name))) {
            (true, _) => "unhealthy",
            (false, true) => "degraded",
            (false, false) => "healthy",
        };
        let checks = found.iter().map(|(name, found)| (name.clone(), found.word())).collect();
        let details = found.iter().map(|(name, found)| (name.clone(), found.detail())).collect();
        Self { status, timestamp: now, version: version.to_owned(), checks, details, maintenance_window: None }
    }
}

impl IntoResponse for Report {
    fn into_response(self) -> Response {
        let unhealthy = self.status == "unhealthy";
        let code = if unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        (code, [(header::CACHE_CONTROL, "no-store")], Json(self)).into_response()
    }
}

/// The answer of a probe.
pub(crate) fn fine() -> Response {
    Json(Probe { status: OK }).into_response()
}

/// Whether the process still works: its loops go round. It asks no store, so that a store that is away kills nobody.
#[utoipa::path(get, path = "/livez", tag = "system", responses(
    (status = 200, body = Probe),
    (status = 503, description = "a loop stands still, which a new start would end", body = crate::problem::Document),
))]
pub(crate) async fn livez(State(app): State<Shared>) -> Result<Response, Problem> {
    health::loops(&app.api.loops).map_err(not_ready)?;
    Ok(fine())
}

/// Whether to send requests here: the journal takes writes, and the server is not stopping.
#[utoipa::path(get, path = "/readyz", tag = "system", responses(
    (status = 200, body = Probe),
    (status = 503, description = "not now; `detail` says why", body = crate::problem::Document),
))]
pub(crate) async fn readyz(State(app): State<Shared>) -> Result<Response, Problem> {
    if app.api.leaving.is_cancelled() || app.shutdown.is_cancelled() {
        return Err(not_ready("the server is stopping"));
    }
    app.health.journal(&app.api).await.verdict.map_err(not_ready)?;
    Ok(fine())
}

/// Whether the start is over: the journal is open and the dispatcher was rebuilt from it.
#[utoipa::path(get, path = "/startupz", tag = "system", responses(
    (status = 200, body = Probe),
    (status = 503, description = "not yet; `detail` says why", body = crate::problem::Document),
))]
pub(crate) async fn startupz(State(app): State<Shared>) -> Result<Response, Problem> {
    app.health.journal(&app.api).await.verdict.map_err(not_ready)?;
    app.health.dispatcher(&app.api).await.verdict.map_err(not_ready)?;
    Ok(fine())
}

/// The window that an operator has named, once it is near.
fn announced(settings: &Settings, now: Timestamp) -> Option<Announced> {
    let (begins_at, ends_at) = settings.window.announced(now).into_iter().next()?;
    settings.announces_window.then_some(Announced { begins_at, ends_at })
}

/// A probe that found something wrong.
pub(crate) fn not_ready(reason: impl Into<String>) -> Problem {
    Problem::new(Cause::Unavailable, reason).retry_after(1)
}

/// A report of every part. Providers and other outside things only ever degrade it.
#[utoipa::path(get, path = "/health", tag = "system", responses(
    (status = 200, description = "healthy or degraded", body = Report),
    (status = 503, description = "unhealthy", body = Report),
))]
pub(crate) async fn health(State(app): State<Shared>) -> Response {
    let (lately, api) = (&app.health, &app.api);
    let (journal, dispatcher, workers, outside) =
        tokio::join!(lately.journal(api), lately.dispatcher(api), lately.workers(api), lately.outside(api));
    // Whoever cannot read it is unhealthy already.
    let maintenance = app.standing.now(&*api.stores.orders).await.ok().flatten();
    let mut found = outside;
    let mut add = |name: &str, one: Found| found.insert(name.to_owned(), one);
    add("journal", journal);
    add("dispatcher", dispatcher);
    add("workers", workers);
    add("credentials", Found::known(api.credentials.report().check()));
    add("loops", Found::known(health::loops(&api.loops)));
    if let Some(tls) = &api.tls {
        add("certificate", Found::known(tls.check(app.now())));
    }
    if let Some(maintenance) = maintenance {
        add("maintenance", Found::known(Err(format!("on {maintenance}"))));
    }
    let report = Report::new(&found, &["journal"], app.now(), &api.settings.version);
    Report { maintenance_window: announced(&api.settings, app.now()), ..report }.into_response()
}
