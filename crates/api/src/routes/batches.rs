//! `GET /v1/batches/{id}`: how far the jobs are that were submitted with one `batch_id`.

use std::time::Duration;

use axum::{Json, extract::State, http::Uri};
use queue_core::state::Standing;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    auth::Caller,
    params::{Params, Segment},
    problem::{Cause, Document, Problem},
    routes::jobs::room,
};

/// Shortest time between two looks at a batch: its jobs may end by the thousand.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Jobs of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Batch {
    /// The batch.
    batch_id: String,
    /// All jobs.
    total: u64,
    /// Jobs that have not ended: scheduled, ready or running.
    live: u64,
    /// Jobs that succeeded.
    succeeded: u64,
    /// Dead letters.
    dead: u64,
    /// Jobs that were cancelled.
    cancelled: u64,
    /// Whether every job has ended.
    finished: bool,
}

/// Counts the jobs of a batch; with `wait`, once all have ended or the time is over.
#[utoipa::path(get, path = "/v1/batches/{id}", tag = "jobs", security(("key" = [])), params(
    ("id" = String, Path, description = "the batch"),
    ("wait" = Option<String>, Query, description = "wait for the end of all jobs, e.g. `30s`; at most 60 s"),
), responses((status = 200, body = Batch), (status = 404, body = Document)))]
pub(crate) async fn get(
    State(app): State<Shared>,
    caller: Caller,
    Segment(id): Segment,
    uri: Uri,
) -> Result<Json<Batch>, Problem> {
    let mut params = Params::of(&uri, &["wait"])?;
    let wait = params.wait();
    params.finish()?;
    match wait {
        Some(wait) => until_finished(&app, &caller, &id, wait).await.map(Json),
        None => count(&app, &caller, &id).await.map(Json),
    }
}

async fn until_finished(app: &App, caller: &Caller, id: &str, wait: Duration) -> Result<Batch, Problem> {
    let ends = Instant::now() + wait;
    // Before the first look, so that an end between look and wait is not missed.
    let mut any = app.waiters.any();
    let _room = room(app)?;
    loop {
        let batch = count(app, caller, id).await?;
        if batch.finished || Instant::now() >= ends || app.shutdown.is_cancelled() {
            return Ok(batch);
        }
        let some_end = async {
            tokio::time::sleep(LOOK_EVERY).await;
            // The sender lives as long as the server.
            let _ = any.changed().await;
        };
        tokio::select! {
            () = some_end => {}
            () = tokio::time::sleep_until(ends) => {}
            () = app.shutdown.cancelled() => {}
        }
    }
}

async fn count(app: &App, caller: &Caller, id: &str) -> Result<Batch, Problem> {
    let counts = caller.reads(app).batch(id, &caller.within()).await?;
    if counts.is_empty() {
        return Err(Problem::new(Cause::NotFound, "no job was submitted with this batch_id")
            .at("/path/id", "is not the id of a batch"));
    }
    let of = |standing| counts.get(&standing).copied().unwrap_or(0);
    let live = of(Standing::Live);
    Ok(Batch {
        batch_id: id.to_owned(),
        total: counts.values().sum(),
        live,
        succeeded: of(Standing::Succeeded),
        dead: of(Standing::Dead),
        cancelled: of(Standing::Cancelled),
        finished: live == 0,
    })
}
