//! `/v1/retention`: how long what is kept, what would go now, and what does not and why.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use queue_core::{
    retention::{Action, Class, Count, Held, Line, Note, Plan, Turn, plan},
    time::Timestamp,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::Shared,
    audit,
    params::Params,
    problem::{Cause, Document, Problem},
    view,
};

/// What would go now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Retention)]
pub(crate) struct RetentionView {
    /// When this was true.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Nothing goes, for this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<String>,
    /// The last day that has its tables already, where the journal has tables by day.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    ahead_to: Option<Timestamp>,
    /// When the last run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    began_at: Option<Timestamp>,
    /// When the last run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Timestamp>,
    /// When the next run is due.
    #[schema(value_type = String, format = DateTime)]
    due_at: Timestamp,
    /// Runs that were ordered so far.
    orders: i64,
    /// Of them, those that have ended.
    served: i64,
    /// Class by class.
    classes: Vec<ClassView>,
}

/// A class of things that are kept for a while.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RetentionClass)]
pub(crate) struct ClassView {
    /// Which.
    #[schema(value_type = String, example = "jobs")]
    class: Class,
    /// How long it is kept; absent: for ever, or for as long as it says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "90d")]
    age: Option<String>,
    /// `drop_partition`, `delete`, `archive`, `export` (to objects, and then deleted), `expire` (by itself) or `keep`.
    #[schema(value_type = String, example = "drop_partition")]
    action: Action,
    /// Tables of days that would be dropped now.
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<u64>,
    /// Rows that would go now, those of such tables as the last ANALYZE counted them.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    /// There are more rows than were counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    at_least: bool,
    /// Bytes on disk that would be free.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// When the next of it would go.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_at: Option<Timestamp>,
    /// What is old enough, and does not go as the others do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    held: Vec<HeldView>,
    /// What went so far: rows, tables of days, and operations that were begun.
    removed: u64,
    /// What went the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    removed_last: Option<u64>,
    /// When that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    removed_at: Option<Timestamp>,
}

/// Something that is held.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RetentionHeld)]
pub(crate) struct HeldView {
    /// A day, a queue, or what it is.
    what: String,
    /// About how many rows.
    rows: u64,
    /// Why.
    reason: String,
}

/// A run that was ordered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RetentionOrder)]
pub(crate) struct OrderView {
    /// The order's number: it was served once `served` of `GET /v1/retention` has come to it.
    order: i64,
}

impl RetentionView {
    fn of(plan: Plan, turn: Turn) -> Self {
        let Plan { at, hold, ahead_to, lines } = plan;
        let Turn { orders, served, began_at, ended_at, due_at, .. } = turn;
        let classes = lines.into_iter().map(ClassView::from).collect();
        Self { at, hold, ahead_to, began_at, ended_at, due_at: due_at.max(at), orders, served, classes }
    }
}

impl From<Line> for ClassView {
    fn from(line: Line) -> Self {
        let Line { class, age_ms, action, partitions, rows, bytes, next_at, held, note } = line;
        let (rows, at_least) = rows.map(|Count { rows, at_least }| (rows, at_least)).unzip();
        Self {
            class,
            age: age_ms.map(|ms| view::kept_text(ms.unsigned_abs())),
            action,
            partitions,
            rows,
            at_least: at_least.unwrap_or(false),
            bytes,
            next_at,
            held: held.into_iter().map(|Held { what, rows, reason }| HeldView { what, rows, reason }).collect(),
            removed: note.map_or(0, |Note { removed, .. }| removed),
            removed_last: note.map(|note| note.last),
            removed_at: note.map(|note| note.last_at),
        }
    }
}

/// Shows how long each class is kept, what would go now, and what is held and why. Writes nothing.
#[utoipa::path(get, path = "/v1/retention", tag = "system", security(("key" = [])),
    responses((status = 200, body = RetentionView)))]
pub(crate) async fn get(State(app): State<Shared>, uri: Uri) -> Result<Json<RetentionView>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let turn = app.api.stores.retention.turn().await?;
    let plan = plan(&app.api.stores, &app.api.settings.retention).await?;
    Ok(Json(RetentionView::of(plan, turn)))
}

/// Has what is old taken away now and not when it is due. 202 means that the order is kept: a scheduler follows it within seconds,
/// whoever dies.
#[utoipa::path(post, path = "/v1/retention/run", tag = "system", security(("key" = [])), responses(
    (status = 202, description = "it is ordered", body = OrderView),
    (status = 409, description = "the configuration holds everything", body = Document),
))]
pub(crate) async fn run(State(app): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    if let Some(reason) = &app.api.settings.retention.hold {
        return Err(Problem::new(Cause::RetentionHeld, format!("`retention.hold` is set: {reason}")));
    }
    let task = {
        let app = app.clone();
        audit::spawn(async move { app.api.stores.retention.order_turn().await })
    };
    let order = task.await.map_err(|error| Problem::new(Cause::Internal, error.to_string()))??;
    tracing::info!(order, "retention is to run now");
    Ok((StatusCode::ACCEPTED, Json(OrderView { order })).into_response())
}
