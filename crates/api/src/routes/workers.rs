//! `/v1/workers`: who works, as registry and dispatcher know it, and who is to stop claiming.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, Uri},
};
use queue_core::{dispatcher::Present, ids::SessionId, journal::ORDERS_HEARD, time::Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    app::{App, Shared},
    body,
    fields::Fields,
    json,
    params::{Params, Segment},
    problem::{Cause, Document, Problem},
};

/// All worker processes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Workers {
    /// Oldest first.
    workers: Vec<WorkerView>,
}

/// A worker process.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Worker)]
pub(crate) struct WorkerView {
    /// Its session.
    id: String,
    /// Host and process.
    host: String,
    /// The binary's version.
    version: String,
    /// Jobs that it can run at once.
    slots: u32,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// Whether the dispatcher hears of it; one that is not alive has lost its jobs to others.
    alive: bool,
    /// Whether it was ordered to drain: it claims no more and finishes what it holds.
    draining: bool,
    /// Jobs that it holds.
    leases: u64,
    /// When it was last heard of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    seen_at: Option<Timestamp>,
}

/// Lists every worker process.
#[utoipa::path(get, path = "/v1/workers", tag = "system", security(("key" = [])),
    responses((status = 200, body = Workers)))]
pub(crate) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Json<Workers>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    Ok(Json(Workers { workers: views(&app).await? }))
}

async fn views(app: &App) -> Result<Vec<WorkerView>, Problem> {
    let registered = app.api.stores.catalog.sessions().await?;
    let heard = app.api.stores.dispatcher.sessions(&[]).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "workers are shown without what they hold");
        Present::default()
    });
    let heard: BTreeMap<_, _> = heard.alive.into_iter().map(|session| (session.id, session)).collect();
    let mut workers: Vec<WorkerView> = registered
        .into_iter()
        .map(|worker| {
            let session = heard.get(&worker.id);
            WorkerView {
                id: worker.id.to_string(),
                host: worker.host,
                version: worker.version,
                slots: worker.slots,
                started_at: worker.started_at,
                alive: session.is_some(),
                draining: worker.draining,
                leases: session.map_or(0, |session| session.leases),
                seen_at: session.map(|session| session.seen_at),
            }
        })
        .collect();
    workers.sort_by_key(|worker| worker.started_at);
    Ok(workers)
}

/// Orders a worker to drain.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `drain` takes apart by hand
pub(crate) struct DrainOrder {
    /// `false` takes the order back: it claims again.
    #[schema(default = true)]
    on: Option<bool>,
}

/// Orders a worker to drain: it claims no more and finishes what it holds. The process stays, so that whoever runs it decides when
/// it ends; started anew, it claims. The answer comes when the worker has had the time to hear of it.
#[utoipa::path(post, path = "/v1/workers/{id}/drain", tag = "system", security(("key" = [])),
    request_body(content = Option<DrainOrder>), params(("id" = String, Path, description = "the worker's session")),
    responses(
    (status = 200, body = WorkerView),
    (status = 400, body = Document),
    (status = 404, body = Document),
    (status = 415, body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn drain(
    State(app): State<Shared>,
    Segment(id): Segment,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<WorkerView>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let missing =
        || Problem::new(Cause::NotFound, "no worker is registered with this id").at("/path/id", "is no worker's");
    let worker = Uuid::parse_str(&id).map(SessionId).map_err(|_| missing())?;
    let on = match body::take_if_any(&app, &headers, body).await? {
        None => true,
        Some(body) => {
            let mut fields = Fields::default();
            let [on] = json::take_apart(json::utf8(&body)?, &["on"], &mut fields.errors)?;
            let on = fields.boolean("on", on);
            fields.finish()?;
            on.unwrap_or(true)
        }
    };
    if !app.api.stores.orders.order_drain(worker, on).await? {
        return Err(missing());
    }
    tokio::time::sleep(ORDERS_HEARD).await;
    let workers = views(&app).await?;
    workers.into_iter().find(|view| view.id == worker.to_string()).map(Json).ok_or_else(missing)
}
