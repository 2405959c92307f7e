//! `/v1/maintenance`: no jobs are taken and none begin, while operators work on what is below.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, Uri},
};
use queue_core::{
    backup::is_unfinished,
    journal::{Maintenance, ORDERS_HEARD},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::Shared,
    audit,
    body::{self, SMALL_BODY_MAX_BYTES},
    fields::Fields,
    json,
    params::Params,
    problem::{Cause, Document, Problem},
    settings::REASON_MAX_BYTES,
};

/// Whether maintenance is on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Maintenance)]
pub(crate) struct MaintenanceView {
    /// While it is on, submits answer 503 and workers claim nothing; what runs ends, and reads work.
    on: bool,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<Option<Maintenance>> for MaintenanceView {
    fn from(maintenance: Option<Maintenance>) -> Self {
        let on = maintenance.is_some();
        let (since, reason) = maintenance.map(|maintenance| (maintenance.since, maintenance.reason)).unzip();
        Self { on, since, reason: reason.flatten() }
    }
}

/// Begins or ends maintenance.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `put` takes apart by hand
pub(crate) struct MaintenanceOrder {
    /// Whether it is on.
    on: bool,
    /// Why, for those who are refused.
    #[schema(max_length = 500)]
    reason: Option<String>,
}

/// Shows whether maintenance is on.
#[utoipa::path(get, path = "/v1/maintenance", tag = "system", security(("key" = [])),
    responses((status = 200, body = MaintenanceView)))]
pub(crate) async fn get(State(app): State<Shared>, uri: Uri) -> Result<Json<MaintenanceView>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    Ok(Json(app.api.stores.orders.maintenance().await?.into()))
}

/// Begins or ends maintenance. The answer comes when every process that reaches the journal has had the time to hear of it.
#[utoipa::path(put, path = "/v1/maintenance", tag = "system", security(("key" = [])), request_body = MaintenanceOrder,
    responses(
    (status = 200, body = MaintenanceView),
    (status = 400, body = Document),
    (status = 409, description = "the journal is of a restore that has not ended", body = Document),
    (status = 415, body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn put(
    State(app): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<MaintenanceView>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let body = body::json(&app, &headers, body, SMALL_BODY_MAX_BYTES).await?;
    let mut fields = Fields::default();
    let [on, reason] = json::take_apart(json::utf8(&body)?, &["on", "reason"], &mut fields.errors)?;
    if on.is_none() {
        fields.wrong("on", "is missing: true begins maintenance, false ends it");
    }
    let on = fields.boolean("on", on);
    let reason = fields.label("reason", reason, REASON_MAX_BYTES);
    if on == Some(false) && reason.is_some() {
        fields.wrong("reason", "is for maintenance that is on");
    }
    fields.finish()?;
    let order = (on == Some(true)).then(|| Maintenance { since: app.now(), reason });
    let before = app.api.stores.orders.maintenance().await?;
    audit::before(&before);
    if let Some(reason) = before.and_then(|before| before.reason).filter(|reason| is_unfinished(reason)) {
        return Err(Problem::new(Cause::OperationRunning, reason));
    }
    app.api.stores.orders.set_maintenance(order).await?;
    app.standing.forget().await;
    tracing::info!(on = on == Some(true), "maintenance");
    tokio::time::sleep(ORDERS_HEARD).await;
    Ok(Json(app.api.stores.orders.maintenance().await?.into()))
}
