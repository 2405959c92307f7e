//! `/v1/maintenance/report` and `/run`: how the journal's tables and indexes are, what is due, and what was done.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use queue_core::{
    audit::{AUDIT_PAGE_MAX, AuditPlace, AuditRow},
    time::Timestamp,
    upkeep::{ACTION, Due, IndexState, StoreState, TOLD_MAX, TableState, Tried, due, perform},
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    auth::Caller,
    body::{self, SMALL_BODY_MAX_BYTES},
    fields::Fields,
    json,
    params::Params,
    problem::{Cause, Document, Problem},
};

/// Pages of the audit log that are looked through for what was done.
const PAGES_MAX: usize = 8;
/// Chores that are shown of what was done.
const DONE_MAX: usize = 50;
/// Longest time of a run that somebody has ordered.
const RUN_MAX_MS: i64 = 4 * 60 * 60 * 1_000;

/// How the journal is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MaintenanceReport)]
pub(crate) struct ReportView {
    /// When chores are done by themselves.
    #[schema(example = "Sun 02:00-06:00 UTC")]
    window: String,
    /// When the window begins that is open or comes next.
    #[schema(value_type = String, format = DateTime)]
    window_begins_at: Timestamp,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    window_ends_at: Timestamp,
    /// Somebody does a chore.
    busy: bool,
    /// Why this role cannot do chores.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_right: Option<String>,
    /// Bytes of the journal.
    bytes: u64,
    /// Of these, bytes that nothing is in, where the journal knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    free_bytes: Option<u64>,
    /// The largest tables.
    tables: Vec<TableView>,
    /// The indexes of which most is for nothing.
    indexes: Vec<IndexView>,
    /// What is due, in the order in which it is done.
    due: Vec<ChoreView>,
    /// What was done lately, newest first.
    done: Vec<DoneView>,
}

/// A table.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MaintenanceTable)]
pub(crate) struct TableView {
    /// Its name.
    name: String,
    /// Bytes with its indexes.
    bytes: u64,
    /// Rows, about.
    rows: u64,
    /// Dead rows, about.
    dead: u64,
    /// When they were last cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    vacuumed_at: Option<Timestamp>,
    /// When its statistics were last made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    analyzed_at: Option<Timestamp>,
}

/// An index.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MaintenanceIndex)]
pub(crate) struct IndexView {
    /// Its name.
    name: String,
    /// Its table.
    table: String,
    /// Bytes.
    bytes: u64,
    /// Of these, about how many are for nothing.
    bloat_bytes: u64,
}

/// A chore.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MaintenanceChore)]
pub(crate) struct ChoreView {
    /// `drop_leftover`, `vacuum`, `analyze`, `reindex`, `optimize`, `check` or `shrink`.
    chore: &'static str,
    /// The table or index.
    #[serde(skip_serializing_if = "Option::is_none")]
    on: Option<String>,
    /// Why it is due.
    reason: String,
    /// Bytes that it is about.
    bytes: u64,
}

/// A chore that was done, or was not.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MaintenanceDone)]
pub(crate) struct DoneView {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Which.
    chore: String,
    /// The table or index.
    #[serde(skip_serializing_if = "Option::is_none")]
    on: Option<String>,
    /// Bytes before it.
    before_bytes: u64,
    /// Bytes after it.
    after_bytes: u64,
    /// How long it took.
    took_ms: u64,
    /// Why it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What is ordered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MaintenanceRun)]
pub(crate) struct RunView {
    /// When it was ordered.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Nothing is done.
    dry_run: bool,
    /// What is done, or would be.
    chores: Vec<ChoreView>,
}

/// How a run is asked for.
#[derive(Debug, serde::Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `run` takes apart by hand
#[schema(as = MaintenanceRunOrder)]
pub(crate) struct RunOrder {
    /// Only say what is due.
    #[schema(default = false)]
    dry_run: Option<bool>,
}

impl From<TableState> for TableView {
    fn from(table: TableState) -> Self {
        let TableState { name, rows, dead, bytes, vacuumed_at, analyzed_at, .. } = table;
        Self { name, bytes, rows, dead, vacuumed_at, analyzed_at }
    }
}

impl From<IndexState> for IndexView {
    fn from(index: IndexState) -> Self {
        let IndexState { name, table, bytes, bloat_bytes, .. } = index;
        Self { name, table, bytes, bloat_bytes }
    }
}

impl From<Due> for ChoreView {
    fn from(due: Due) -> Self {
        let Due { chore, reason, bytes } = due;
        Self { chore: chore.as_str(), on: chore.on().map(str::to_owned), reason, bytes }
    }
}

impl DoneView {
    /// What a row of the audit log tells of a chore.
    fn of(row: &AuditRow) -> Option<Self> {
        let told: Value = serde_json::from_str(&row.entry.detail).ok()?;
        let text = |name: &str| told[name].as_str().map(str::to_owned);
        let number = |name: &str| told[name].as_u64().unwrap_or(0);
        Some(Self {
            at: row.entry.at,
            chore: text("chore")?,
            on: text("on"),
            before_bytes: number("before_bytes"),
            after_bytes: number("after_bytes"),
            took_ms: number("took_ms"),
            error: text("error"),
        })
    }
}

/// Shows how large and how tidy the journal's tables and indexes are, what is due, and what was done lately. Writes nothing.
#[utoipa::path(get, path = "/v1/maintenance/report", tag = "system", security(("key" = [])),
    responses((status = 200, body = ReportView)))]
pub(crate) async fn report(State(app): State<Shared>, uri: Uri) -> Result<Json<ReportView>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let state = app.api.stores.upkeep.store_state().await?;
    let (window, now) = (&app.api.settings.window, app.now());
    let (window_begins_at, window_ends_at) = window.next(now);
    let chores = due(&state, &app.api.settings.upkeep, now);
    let StoreState { mut tables, mut indexes, bytes, free_bytes, missing_right, is_busy, .. } = state;
    tables.truncate(TOLD_MAX);
    indexes.truncate(TOLD_MAX);
    Ok(Json(ReportView {
        window: window.to_string(),
        window_begins_at,
        window_ends_at,
        busy: is_busy || app.chores.available_permits() == 0,
        missing_right,
        bytes,
        free_bytes,
        tables: tables.into_iter().map(TableView::from).collect(),
        indexes: indexes.into_iter().map(IndexView::from).collect(),
        due: chores.into_iter().map(ChoreView::from).collect(),
        done: done(&app).await?,
    }))
}

/// What the audit log tells of chores, newest first.
async fn done(app: &App) -> Result<Vec<DoneView>, Problem> {
    let (mut found, mut place) = (Vec::new(), AuditPlace { behind: (i32::MAX, i64::MAX), ascending: false });
    for _ in 0..PAGES_MAX {
        let rows = app.api.stores.audit.audit_rows(place, AUDIT_PAGE_MAX).await?;
        found.extend(rows.iter().filter(|row| row.entry.action == ACTION).filter_map(DoneView::of));
        let Some(last) = rows.last().filter(|_| rows.len() == AUDIT_PAGE_MAX && found.len() < DONE_MAX) else { break };
        place.behind = (last.day, last.seq);
    }
    found.truncate(DONE_MAX);
    Ok(found)
}

/// Does what is due now and not in the next window, one chore after the other, in the background: it ends with this process. `report` shows
/// what was done.
#[utoipa::path(post, path = "/v1/maintenance/run", tag = "system", security(("key" = [])), request_body = RunOrder, responses(
    (status = 200, description = "a dry run: what is due", body = RunView),
    (status = 202, description = "it is being done", body = RunView),
    (status = 409, description = "somebody does a chore, or this role may not", body = Document),
    (status = 415, body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn run(
    State(app): State<Shared>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let body = body::json(&app, &headers, body, SMALL_BODY_MAX_BYTES).await?;
    let mut fields = Fields::default();
    let [dry_run] = json::take_apart(json::utf8(&body)?, &["dry_run"], &mut fields.errors)?;
    let dry_run = fields.boolean("dry_run", dry_run) == Some(true);
    fields.finish()?;
    let state = app.api.stores.upkeep.store_state().await?;
    let now = app.now();
    let chores = due(&state, &app.api.settings.upkeep, now);
    let view = RunView { at: now, dry_run, chores: chores.iter().cloned().map(ChoreView::from).collect() };
    if dry_run {
        return Ok((StatusCode::OK, Json(view)).into_response());
    }
    if let Some(reason) = state.missing_right {
        return Err(Problem::new(Cause::NotOwner, reason));
    }
    let running = || Problem::new(Cause::ChoreRunning, "somebody looks after the journal; ask again later");
    if state.is_busy {
        return Err(running());
    }
    let permit = app.chores.clone().try_acquire_owned().map_err(|_| running())?;
    let (stores, shutdown, thresholds) = (app.api.stores.clone(), app.shutdown.clone(), app.api.settings.upkeep);
    let actor = caller.key_id.to_string();
    // Not waited for: it may take hours. What it comes to is in the audit log, chore by chore.
    tokio::spawn(async move {
        let (until, mut tried) = (now.plus_ms(RUN_MAX_MS), Tried::default());
        if let Err(error) = perform(&stores, &thresholds, until, &actor, &mut tried, &shutdown).await {
            tracing::warn!(%error, "a run of chores has ended early");
        }
        drop(permit);
    });
    Ok((StatusCode::ACCEPTED, Json(view)).into_response())
}
