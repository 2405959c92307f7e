//! Archives: what operations have taken out of the journal, and the way back.

use std::{str::FromStr, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{FromRequestParts, State},
    http::{HeaderMap, Uri, request::Parts},
};
use queue_core::{
    archive::{self, Archive, ArchiveObject, Letter, Objects, ObjectsError, Restore},
    bodies::Part,
    ids::{JobId, Name, OperationId},
    journal::PAGE_MAX_ROWS,
    operations::OperationState,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    audit, body,
    fields::Fields,
    json,
    params::{self, Params},
    problem::{Cause, Document, Problem},
};

/// How long one call puts objects back before it answers with where to go on: longer ones are cut off by proxies.
const RESTORE_MAX: Duration = Duration::from_secs(5);
/// Objects that a call asks the journal for at a time.
const OBJECTS_AT_ONCE: usize = 100;
/// Longest `cursor` of a restore: a path of ours.
const PATH_MAX_BYTES: usize = 512;

/// An archive.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Archive)]
pub(crate) struct ArchiveView {
    /// The operation that made it.
    #[schema(value_type = String, format = "uuid")]
    id: OperationId,
    /// Which letters it meant: with moments where it said ages.
    filter: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The public part of the key that asked.
    #[schema(value_type = String)]
    asked_by: Name,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    began_at: Timestamp,
    /// How many letters are in it.
    letters: u64,
    /// How many objects they are in.
    objects: u64,
    /// The size of these as they are kept.
    bytes: u64,
    /// US dollars that were spent on the letters, as far as prices are known. They are still in the ledger.
    cost_usd: String,
}

impl From<Archive> for ArchiveView {
    fn from(archive: Archive) -> Self {
        let Archive { id, filter, reason, asked_by, began_at, objects, letters, bytes, cost } = archive;
        Self { id, filter, reason, asked_by, began_at, letters, objects, bytes, cost_usd: cost.to_string() }
    }
}

/// A page of archives.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ArchivePage {
    /// Newest first.
    archives: Vec<ArchiveView>,
    /// Give it as `cursor` to go on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Lists archives, newest first.
#[utoipa::path(get, path = "/v1/archives", tag = "dead letters", security(("key" = [])), params(
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ("limit" = Option<u32>, Query, description = "1 to 500, default 50"),
), responses((status = 200, body = ArchivePage), (status = 422, body = Document)))]
pub(crate) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Json<ArchivePage>, Problem> {
    let mut params = Params::of(&uri, &["cursor", "limit"])?;
    let behind = params.parsed("cursor", |text| {
        OperationId::from_str(text).map_err(|_| "is not a cursor; give the `next_cursor` of the page before".to_owned())
    });
    let limit = params.limit();
    params.finish()?;
    // One more than asked tells whether there is another page.
    let mut found = app.api.stores.archives.archives(behind, limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(Json(ArchivePage { archives: found.into_iter().map(ArchiveView::from).collect(), next_cursor }))
}

/// How an archive is put back.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `read` takes apart by hand
pub(crate) struct RestoreRequest {
    /// Only read and check the objects, and count.
    #[schema(default = false)]
    dry_run: Option<bool>,
    /// `next_cursor` of the call before.
    cursor: Option<String>,
}

/// What a call has put back.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Restored {
    /// Letters of the objects that this call has read.
    letters: u64,
    /// Those that were put back; in a dry run, that would be.
    restored: u64,
    /// Those that were left alone: a job of their id is there, or they were put back before.
    there: u64,
    /// Objects that cannot be used; the others are.
    damaged: Vec<Damage>,
    /// There is more: give it as `cursor` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// An object that cannot be used.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Damage {
    /// The object.
    object: String,
    /// What is wrong with it.
    reason: String,
}

/// Puts letters of an archive back, dead and as they were, once: a job that is there, or that was put back before and has gone its
/// way since, is left alone.
/// A call works for some seconds and says where to go on.
#[utoipa::path(post, path = "/v1/archives/{id}/restore", tag = "dead letters", security(("key" = [])),
    request_body(content = Option<RestoreRequest>), params(
    ("id" = String, Path, description = "the archive"),
), responses(
    (status = 200, description = "so many are back", body = Restored),
    (status = 404, body = Document),
    (status = 409, description = "the archive is still being written", body = Document),
    (status = 422, description = "this process has no place for objects, or the request is wrong", body = Document),
    (status = 503, description = "the objects cannot be read now", body = Document),
))]
pub(crate) async fn restore(
    State(app): State<Shared>,
    ArchivePath(id): ArchivePath,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Restored>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let (dry_run, cursor) = match body::take_if_any(&app, &headers, body).await? {
        Some(body) => read(json::utf8(&body)?)?,
        None => (false, None),
    };
    if app.api.stores.archives.archive(id).await?.is_none() {
        return Err(Problem::new(Cause::NotFound, format!("there is no archive {id}")));
    }
    let objects = app.api.stores.objects.clone().ok_or_else(|| Problem::new(Cause::NoObjects, NO_OBJECTS))?;
    let operation = app.api.stores.operations.operation(id).await?;
    if operation.is_some_and(|operation| operation.state == OperationState::Running) {
        // It would take out again what comes back, and add what is not asked for again.
        let detail =
            format!("archive {id} is still being written: wait until the operation of this id has ended, or abort it");
        return Err(Problem::new(Cause::OperationRunning, detail));
    }
    let task = {
        let app = app.clone();
        audit::spawn(async move { put_back(&app, &objects, id, dry_run, cursor).await })
    };
    task.await.map_err(|error| Problem::new(Cause::Internal, error.to_string()))?.map(Json)
}

/// What to do where there is no place for objects.
pub(crate) const NO_OBJECTS: &str = "this installation has no place for archives: set `[objects] url = \"file:PATH\"` (LONGSHORE_OBJECTS_URL) \
     for the API and the schedulers, to a folder that they share";

fn read(text: &str) -> Result<(bool, Option<String>), Problem> {
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let [dry_run, cursor] = json::take_apart(text, &["dry_run", "cursor"], &mut fields.errors)?;
    let dry_run = fields.boolean("dry_run", dry_run).unwrap_or(false);
    let cursor = fields.label("cursor", cursor, PATH_MAX_BYTES);
    fields.finish()?;
    Ok((dry_run, cursor))
}

async fn put_back(
    app: &App,
    objects: &Objects,
    id: OperationId,
    dry_run: bool,
    mut behind: Option<String>,
) -> Result<Restored, Problem> {
    let (mut restored, ends) = (Restored::default(), Instant::now() + RESTORE_MAX);
    loop {
        let archives = &app.api.stores.archives;
        let page = archives.objects_of(id, behind.as_deref(), OBJECTS_AT_ONCE).await?;
        let is_last = page.len() < OBJECTS_AT_ONCE;
        let last = page.last().map(|object| object.path.clone());
        for object in page {
            one(app, objects, (id, &object), dry_run, &mut restored).await?;
            let is_over = is_last && last.as_ref() == Some(&object.path);
            if !is_over && (Instant::now() >= ends || app.shutdown.is_cancelled()) {
                restored.next_cursor = Some(object.path);
                return Ok(restored);
            }
        }
        if is_last {
            return Ok(restored);
        }
        behind = last;
    }
}

/// Large payloads go where those of new jobs go.
async fn out_of_the_journal(app: &App, mut letters: Vec<Letter>) -> Vec<Letter> {
    let bodies = &app.api.stores.bodies;
    for letter in &mut letters {
        if let Ok(payload) = letter.payload.bytes()
            && bodies.is_large(&payload)
        {
            letter.payload =
                archive::Body::from(&*bodies.keep(&letter.tenant, letter.id, Part::Payload, payload).await);
        }
    }
    letters
}

async fn one(
    app: &App,
    objects: &Objects,
    (id, object): (OperationId, &ArchiveObject),
    dry_run: bool,
    restored: &mut Restored,
) -> Result<(), Problem> {
    if object.restored {
        restored.letters += object.letters;
        restored.there += object.letters;
        return Ok(());
    }
    let letters = match objects.letters(object).await {
        Ok(letters) => letters,
        Err(ObjectsError::Damaged { path, reason }) => {
            tracing::error!(object = path, reason, "an object of an archive cannot be used");
            restored.damaged.push(Damage { object: path, reason });
            return Ok(());
        }
        Err(error @ ObjectsError::Unavailable(_)) => {
            return Err(Problem::new(Cause::Unavailable, error.to_string()).retry_after(1));
        }
    };
    let all = letters.len() as u64;
    let new = match dry_run {
        true => missing(app, &letters).await?,
        false => {
            let letters = out_of_the_journal(app, letters).await;
            let wanted = Restore { archive: id, path: object.path.clone(), letters };
            app.api.stores.archives.restore(wanted).await?.len() as u64
        }
    };
    restored.letters += all;
    restored.restored += new;
    restored.there += all - new;
    Ok(())
}

/// How many of these no job has the id of.
async fn missing(app: &App, letters: &[Letter]) -> Result<u64, Problem> {
    let ids: Vec<JobId> = letters.iter().map(|letter| letter.id).collect();
    let mut missing = 0;
    for ids in ids.chunks(PAGE_MAX_ROWS) {
        missing += app.api.stores.reads.jobs(ids).await?.iter().filter(|job| job.is_none()).count() as u64;
    }
    Ok(missing)
}

/// The archive that a path names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArchivePath(OperationId);

impl<S: Send + Sync> FromRequestParts<S> for ArchivePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let reason = "is not the id of an archive, which is a UUID";
        let id = params::id_of(parts, state, "no archive has this id", reason).await?;
        Ok(Self(OperationId(id)))
    }
}
