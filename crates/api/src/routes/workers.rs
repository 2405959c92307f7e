//! `GET /v1/workers`: who works, as registry and dispatcher know it.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::Uri};
use queue_core::{dispatcher::Present, time::Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{app::Shared, params::Params, problem::Problem};

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
                leases: session.map_or(0, |session| session.leases),
                seen_at: session.map(|session| session.seen_at),
            }
        })
        .collect();
    workers.sort_by_key(|worker| worker.started_at);
    Ok(Json(Workers { workers }))
}
