//! Backups: orders that schedulers carry out, and what became of them.

use axum::{
    Json,
    body::Body,
    extract::{FromRequestParts, State},
    http::{HeaderMap, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use queue_core::{
    backup::{BackupId, BackupRow, Cause as Why, Check, Progress, Record, Scope, Work},
    ids::Name,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    auth::Caller,
    body,
    fields::Fields,
    json,
    params::{self, Params},
    problem::{Cause, Document, Problem},
    settings::REASON_MAX_BYTES,
};

/// What to do where schedulers have no place for backups.
const NOT_CONFIGURED: &str = "this installation has no place for backups: set `[backup] url` and `recipients` (LONGSHORE_BACKUP_URL, \
     LONGSHORE_BACKUP_RECIPIENTS) for the API and the schedulers";
/// Rows among which a backup is looked for by the id that it has at its place.
const LOOKED_FOR_AMONG: usize = 500;

/// Orders that wait or are under way: more than this are a mistake, and each reads the whole journal.
const PENDING_MAX: usize = 8;

/// What can be backed up.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)] // for the document
pub(crate) enum ScopeWord {
    Database,
    Objects,
    Config,
    Full,
}

/// How something that was ordered stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)] // for the document
pub(crate) enum ProgressWord {
    Ordered,
    Running,
    Good,
    Failed,
}

/// How a backup stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BackupState {
    Ordered,
    Running,
    Good,
    Deleted,
    Failed,
}

impl BackupState {
    fn of(record: &Record) -> Self {
        match (record.state, record.deleted_at) {
            (_, Some(_)) => Self::Deleted,
            (Progress::Ordered, None) => Self::Ordered,
            (Progress::Running, None) => Self::Running,
            (Progress::Good, None) => Self::Good,
            (Progress::Failed, None) => Self::Failed,
        }
    }
}

/// Why a backup was made.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)] // for the document
pub(crate) enum CauseWord {
    Asked,
    Schedule,
    Migration,
}

/// A check of a backup.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BackupCheck)]
pub(crate) struct CheckView {
    /// Whether it is restored into a scratch database and tried, too: a drill.
    restore: bool,
    /// How it stands; `good` once nothing was found wrong.
    #[schema(value_type = ProgressWord)]
    state: Progress,
    /// When it was ordered.
    #[schema(value_type = String, format = DateTime)]
    ordered_at: Timestamp,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
    /// Whether its parts were decrypted; else only their hashes were compared.
    opened: bool,
    /// What is wrong; each damaged part by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Of a drill: seconds from its begin until the restored system had drained its jobs (RTO).
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_seconds: Option<f64>,
    /// Of a drill: how many seconds old what it brought back was (RPO).
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_seconds: Option<f64>,
}

impl From<Check> for CheckView {
    fn from(check: Check) -> Self {
        let seconds = |ms: i64| ms as f64 / 1e3;
        Self {
            restore: check.restores,
            state: check.state,
            ordered_at: check.ordered_at,
            finished_at: check.finished_at,
            opened: check.opened,
            error: check.error,
            recovery_seconds: check.recovery_ms.map(seconds),
            lost_seconds: check.lost_ms.map(seconds),
        }
    }
}

/// A backup as it was ordered, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Backup)]
pub(crate) struct BackupView {
    /// The order.
    #[schema(value_type = String, format = "uuid")]
    id: BackupId,
    /// The backup's id at its place, under which `longshore backup` knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    backup: Option<BackupId>,
    /// What is backed up.
    #[schema(value_type = ScopeWord)]
    scope: Scope,
    /// Why.
    #[schema(value_type = CauseWord)]
    cause: Why,
    /// In the words of whoever asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The public part of the key that asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    asked_by: Option<Name>,
    /// How it stands; `good` once every part was read back, `deleted` when nothing keeps it any more.
    state: BackupState,
    /// How often it was begun.
    attempts: u32,
    /// When it was ordered.
    #[schema(value_type = String, format = DateTime)]
    ordered_at: Timestamp,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
    /// Its size as it lies there.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Why the second place has no copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    offsite_error: Option<String>,
    /// The last check.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<CheckView>,
}

impl From<BackupRow> for BackupView {
    fn from(row: BackupRow) -> Self {
        let BackupRow { id, ordered_at, record, .. } = row;
        Self {
            id,
            state: BackupState::of(&record),
            backup: record.place_id,
            scope: record.scope,
            cause: record.cause,
            reason: record.reason,
            asked_by: record.asked_by,
            attempts: record.attempts,
            ordered_at,
            finished_at: record.finished_at,
            bytes: record.bytes,
            error: record.error,
            offsite_error: record.offsite_error,
            check: record.check.map(CheckView::from),
        }
    }
}

/// A page of backups.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackupPage {
    /// Newest first.
    backups: Vec<BackupView>,
    /// Whether this installation has a place for backups; none can be ordered where it has none.
    configured: bool,
    /// Give it as `cursor` to go on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Lists what was ordered of backups, newest first. What lies at the place is listed by `longshore backup list`, also where there is
/// no journal any more.
#[utoipa::path(get, path = "/v1/backups", tag = "backups", security(("key" = [])), params(
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ("limit" = Option<u32>, Query, description = "1 to 500, default 50"),
), responses((status = 200, body = BackupPage), (status = 422, body = Document)))]
pub(crate) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Json<BackupPage>, Problem> {
    let mut params = Params::of(&uri, &["cursor", "limit"])?;
    let behind = params.parsed("cursor", read_cursor);
    let limit = params.limit();
    params.finish()?;
    // One more than asked tells whether there is another page.
    let mut rows = app.api.stores.backups.backups(behind, limit + 1).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|row| format!("{}.{}", row.ordered_at.0, row.id));
    let backups = rows.into_iter().map(BackupView::from).collect();
    Ok(Json(BackupPage { backups, configured: app.api.settings.backups, next_cursor }))
}

fn read_cursor(text: &str) -> Result<(Timestamp, BackupId), String> {
    let read = || {
        let (at, id) = text.split_once('.')?;
        Some((Timestamp(at.parse().ok()?), id.parse().ok()?))
    };
    read().ok_or_else(|| "is not a cursor; give the `next_cursor` of the page before".to_owned())
}

/// Shows a backup, and its last check.
#[utoipa::path(get, path = "/v1/backups/{id}", tag = "backups", security(("key" = [])), params(
    ("id" = String, Path, description = "the order, or the backup's id at its place"),
), responses((status = 200, body = BackupView), (status = 404, body = Document)))]
pub(crate) async fn get(
    State(app): State<Shared>,
    BackupPath(id): BackupPath,
    uri: Uri,
) -> Result<Json<BackupView>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    Ok(Json(row(&app, id).await?.into()))
}

/// A backup that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewBackup)]
#[allow(dead_code)] // the schema of what `create` takes apart by hand
pub(crate) struct BackupRequest {
    /// What is backed up.
    #[schema(default = "full")]
    scope: Option<ScopeWord>,
    /// Why, for the record.
    #[schema(max_length = 500)]
    reason: Option<String>,
}

/// Orders a backup. 202 means that the order is kept; a scheduler carries it out, and whoever dies meanwhile, it is begun again.
#[utoipa::path(post, path = "/v1/backups", tag = "backups", security(("key" = [])),
    request_body(content = Option<BackupRequest>), responses(
    (status = 202, description = "it is ordered", body = BackupView, headers(
        ("Location" = String, description = "the backup"))),
    (status = 409, description = "as many orders as there may be are not carried out yet", body = Document),
    (status = 422, description = "no place for backups is configured, or the request is wrong", body = Document),
))]
pub(crate) async fn create(
    State(app): State<Shared>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let (scope, reason) = match body::take_if_any(&app, &headers, body).await? {
        Some(body) => read_order(json::utf8(&body)?)?,
        None => (Scope::Full, None),
    };
    check_configured(&app)?;
    check_room(&app).await?;
    let record = Record::order(scope, Why::Asked, reason, Some(caller.key_id));
    let row = BackupRow::order(BackupId::generate(), record, app.now());
    app.api.stores.backups.order_backup(row.clone()).await?;
    Ok(accepted(row))
}

fn read_order(text: &str) -> Result<(Scope, Option<String>), Problem> {
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let [scope, reason] = json::take_apart(text, &["scope", "reason"], &mut fields.errors)?;
    let scope = fields.parsed("scope", scope, |word| {
        Scope::parse(word).ok_or_else(|| format!("`{word}` is no scope; there are database, objects, config and full"))
    });
    let reason = fields.label("reason", reason, REASON_MAX_BYTES);
    fields.finish()?;
    Ok((scope.unwrap_or(Scope::Full), reason))
}

/// How a backup is checked.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = BackupCheckRequest)]
#[allow(dead_code)] // the schema of what `verify` takes apart by hand
pub(crate) struct CheckRequest {
    /// Restore it into a scratch database, too, compare every table, and let the restored system drain jobs: a drill.
    #[schema(default = false)]
    restore: Option<bool>,
}

/// Orders a check of a backup: every part is read again, compared, and decrypted where schedulers have an identity.
#[utoipa::path(post, path = "/v1/backups/{id}/verify", tag = "backups", security(("key" = [])),
    request_body(content = Option<CheckRequest>), params(
    ("id" = String, Path, description = "the order, or the backup's id at its place"),
), responses(
    (status = 202, description = "it is ordered", body = BackupView, headers(
        ("Location" = String, description = "the backup"))),
    (status = 404, body = Document),
    (status = 409, description = "the backup is not good (yet), or something is under way", body = Document),
    (status = 422, description = "no place for backups is configured, or the request is wrong", body = Document),
))]
pub(crate) async fn verify(
    State(app): State<Shared>,
    BackupPath(id): BackupPath,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let restores = match body::take_if_any(&app, &headers, body).await? {
        Some(body) => read_check(json::utf8(&body)?)?,
        None => false,
    };
    check_configured(&app)?;
    let row = row(&app, id).await?;
    let busy = |why: &str| Problem::new(Cause::OperationRunning, format!("backup {id} cannot be checked now: {why}"));
    match (row.record.state, row.work) {
        (_, Work::Make | Work::Check) => return Err(busy("something is under way; look at it again later")),
        _ if row.record.deleted_at.is_some() => return Err(busy("nothing keeps it any more, and it is deleted")),
        (Progress::Good, Work::Nothing) if restores && !row.record.scope.has_database() => {
            return Err(busy("it has no journal to restore"));
        }
        (Progress::Good, Work::Nothing) => {}
        _ => return Err(busy("it is not good; make another one")),
    }
    check_room(&app).await?;
    let ordered = row.check_ordered(restores, app.now());
    if !app.api.stores.backups.change_backup(ordered.clone()).await? {
        return Err(busy("something is under way; look at it again later"));
    }
    Ok(accepted(ordered))
}

fn read_check(text: &str) -> Result<bool, Problem> {
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let [restore] = json::take_apart(text, &["restore"], &mut fields.errors)?;
    let restore = fields.boolean("restore", restore).unwrap_or(false);
    fields.finish()?;
    Ok(restore)
}

fn check_configured(app: &App) -> Result<(), Problem> {
    if app.api.settings.backups { Ok(()) } else { Err(Problem::new(Cause::NoBackups, NOT_CONFIGURED)) }
}

/// Refuses an order where too many wait already.
async fn check_room(app: &App) -> Result<(), Problem> {
    let pending = app.api.stores.backups.backup_work().await?.len();
    if pending < PENDING_MAX {
        return Ok(());
    }
    let detail = format!(
        "{pending} backups and checks are ordered and not carried out yet: wait for them (`GET /v1/backups`), and see that a scheduler runs"
    );
    Err(Problem::new(Cause::OperationRunning, detail))
}

fn accepted(row: BackupRow) -> Response {
    let location = format!("/v1/backups/{}", row.id);
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(BackupView::from(row))).into_response()
}

/// A row by its id, or by the id that the backup has at its place.
async fn row(app: &App, id: BackupId) -> Result<BackupRow, Problem> {
    let backups = &app.api.stores.backups;
    if let Some(row) = backups.backup(id).await? {
        return Ok(row);
    }
    let rows = backups.backups(None, LOOKED_FOR_AMONG).await?;
    rows.into_iter().find(|row| row.record.place_id == Some(id)).ok_or_else(|| {
        let detail = format!(
            "there is no backup {id}; one that was made without the server is checked by `longshore backup verify`"
        );
        Problem::new(Cause::NotFound, detail)
    })
}

/// The backup that a path names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackupPath(BackupId);

impl<S: Send + Sync> FromRequestParts<S> for BackupPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let reason = "is not the id of a backup, which is a UUID";
        let id = params::id_of(parts, state, "no backup has this id", reason).await?;
        Ok(Self(BackupId(id)))
    }
}
