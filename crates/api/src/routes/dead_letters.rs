//! Dead letters: jobs that ended without a result, and another life for them.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};
use bytes::Bytes;
use queue_core::{
    bodies::{self, Part},
    ids::{JobId, Name},
    journal::{Changed, DeadGroup},
    ledger::Nanousd,
    state::Standing,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    audit,
    auth::Caller,
    body,
    params::{JobPath, Params},
    problem::{Cause, Document, Problem},
    routes::{
        jobs::{AttemptView, show},
        list, steer,
    },
    submit,
    view::{self, JobView},
};

/// Largest payload that is shown inside a dead letter.
const INLINE_PAYLOAD_MAX_BYTES: usize = 256 * 1024;
/// Longest signature, in bytes: 160 characters of at most 4, with class and code.
const SIGNATURE_MAX_BYTES: usize = 1_024;

const KNOWN: [&str; 13] = [
    "filter",
    "queue",
    "kind",
    "tenant",
    "error",
    "signature",
    "since",
    "until",
    "q",
    "batch_id",
    "operation",
    "cursor",
    "limit",
];

/// A page of dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetterPage {
    /// Newest first.
    dead_letters: Vec<JobView>,
    /// Give it as `cursor` to go on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Lists dead letters, newest first.
#[utoipa::path(get, path = "/v1/dead-letters", tag = "dead letters", security(("key" = [])), params(
    ("filter" = Option<String>, Query, description = "that meet this, such as `error.class = server and ended_age > 1h`"),
    ("queue" = Option<String>, Query, description = "of this queue"),
    ("kind" = Option<view::KindWord>, Query, description = "of this kind"),
    ("tenant" = Option<String>, Query, description = "of this tenant"),
    ("error" = Option<String>, Query, description = "whose error has this class, or this signature"),
    ("signature" = Option<String>, Query, description = "whose error has this signature"),
    ("since" = Option<String>, Query, description = "accepted at or after: RFC 3339, or a duration back such as `7d`"),
    ("until" = Option<String>, Query, description = "accepted before: RFC 3339, or a duration back"),
    ("q" = Option<String>, Query, description = "text that operation, unique key, a tag, the error or the id contains"),
    ("batch_id" = Option<String>, Query, description = "of this batch"),
    ("operation" = Option<String>, Query, description = "of this operation"),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ("limit" = Option<u32>, Query, description = "1 to 500, default 50"),
), responses((status = 200, body = DeadLetterPage), (status = 422, body = Document)))]
pub(crate) async fn list(State(app): State<Shared>, caller: Caller, uri: Uri) -> Result<Json<DeadLetterPage>, Problem> {
    let mut params = Params::of(&uri, &KNOWN)?;
    let which = list::which(&mut params, app.now());
    let mut filter = list::filter(&mut params, app.now());
    if let Some(signature) = params.label("signature", SIGNATURE_MAX_BYTES) {
        filter.signature = Some(signature);
    }
    params.finish()?;
    filter.standing = Some(Standing::Dead);
    if let Some(which) = &which {
        filter = list::narrow(filter, which);
    }
    let (dead_letters, next_cursor) = list::page(&app, &caller, filter, which.as_ref()).await?;
    Ok(Json(DeadLetterPage { dead_letters, next_cursor }))
}

/// A dead letter with what is needed to judge it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetter {
    /// The job.
    #[serde(flatten)]
    job: JobView,
    /// Its payload, up to 256 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<Box<RawValue>>,
    /// Its attempts with what they cost, oldest first.
    history: Vec<AttemptView>,
}

/// Shows a dead letter: the job, its payload and its attempts.
#[utoipa::path(get, path = "/v1/dead-letters/{id}", tag = "dead letters", security(("key" = [])), params(
    ("id" = String, Path, description = "the job"),
), responses((status = 200, body = DeadLetter), (status = 404, description = "no such dead letter", body = Document)))]
pub(crate) async fn get(
    State(app): State<Shared>,
    caller: Caller,
    JobPath(id): JobPath,
    uri: Uri,
) -> Result<Json<DeadLetter>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let job = view::row(&app, &caller, id).await?;
    if job.standing != Standing::Dead {
        return Err(Problem::new(Cause::NotFound, format!("job {id} is not a dead letter")).about(id));
    }
    audit::reads_of(id, &job.tenant);
    let reads = caller.reads(&app);
    let kept = reads.payload(id).await?.filter(|kept| bodies::len(kept) <= INLINE_PAYLOAD_MAX_BYTES);
    let payload = match kept {
        Some(kept) => Some(view::raw_json(&view::whole(&app, kept).await?)?),
        None => None,
    };
    let history = AttemptView::of_job(&*reads, &job).await?;
    Ok(Json(DeadLetter { job: view::one(&app, &caller, job).await?, payload, history }))
}

/// What a dead letter may be given for its next life.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `steer::edited_payload` takes apart by hand
pub(crate) struct RedriveRequest {
    /// A new payload; absent: as it was.
    #[schema(value_type = Option<Object>)]
    payload: Option<serde_json::Value>,
}

/// Gives a dead letter another life, with another payload if there is one: a new attempt budget; answers that were paid for
/// are kept, and found by calls that are still the same.
#[utoipa::path(post, path = "/v1/dead-letters/{id}/redrive", tag = "dead letters", security(("key" = [])),
    request_body(content = Option<RedriveRequest>), params(
    ("id" = String, Path, description = "the job"),
), responses(
    (status = 200, description = "it is live again", body = JobView),
    (status = 404, body = Document),
    (status = 409, description = "it is not a dead letter", body = Document),
    (status = 422, description = "the payload is wrong", body = Document),
))]
pub(crate) async fn redrive(
    State(app): State<Shared>,
    caller: Caller,
    JobPath(id): JobPath,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let job = view::row(&app, &caller, id).await?;
    let max = app.api.settings.max_job_bytes + body::SMALL_BODY_MAX_BYTES;
    let payload = match body::take_if_any_of(&app, &headers, body, max).await? {
        Some(body) => steer::edited_payload(&app, &caller, &job, body).await?,
        None => None,
    };
    let task = {
        let app = app.clone();
        // In a task of its own: a caller that hangs up must not stop the job from being pushed.
        audit::spawn(async move { redrive_and_push(&app, (&job.tenant, id), payload).await })
    };
    task.await.map_err(|error| Problem::new(Cause::Internal, error.to_string()))??;
    show(&app, &caller, view::row(&app, &caller, id).await?, StatusCode::OK, None).await
}

async fn redrive_and_push(
    app: &App,
    (tenant, id): (&Name, JobId),
    payload: Option<(Bytes, Name)>,
) -> Result<(), Problem> {
    let journal = &app.api.stores.journal;
    let redriven = match payload {
        Some((payload, target)) => {
            let payload = app.api.stores.bodies.keep(tenant, id, Part::Payload, payload).await;
            journal.redrive_with(id, (payload, target), app.now()).await?
        }
        None => journal.redrive(id, app.now()).await?,
    };
    match redriven {
        Changed::Done(entry) => {
            submit::push_if_near(app, entry).await;
            Ok(())
        }
        Changed::Missing => Err(Problem::no_job(id)),
        Changed::Refused(standing) => {
            let state = format!("{standing:?}").to_lowercase();
            Err(Problem::new(Cause::NotDead, format!("only a dead job can be redriven; this one is {state}")).about(id))
        }
        Changed::Stale(_) => {
            Err(Problem::new(Cause::Stale, "the job was changed meanwhile; look at it again").about(id))
        }
    }
}

/// Dead letters by cause.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Groups {
    /// Most first.
    groups: Vec<GroupView>,
}

/// Dead letters of one cause.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetterGroup)]
pub(crate) struct GroupView {
    /// The error's signature.
    signature: String,
    /// The error's class.
    class: String,
    /// How many.
    count: u64,
    /// When the first of them died.
    #[schema(value_type = String, format = DateTime)]
    first_seen: Timestamp,
    /// When the last of them died.
    #[schema(value_type = String, format = DateTime)]
    last_seen: Timestamp,
    /// US dollars already spent on them, as far as prices are known.
    cost_usd: String,
}

impl From<DeadGroup> for GroupView {
    fn from(group: DeadGroup) -> Self {
        Self {
            signature: group.signature,
            class: group.class,
            count: group.count,
            first_seen: group.first_seen,
            last_seen: group.last_seen,
            cost_usd: Nanousd(group.cost_nanousd).to_string(),
        }
    }
}

/// Groups dead letters by the signature of their error.
#[utoipa::path(get, path = "/v1/dead-letters/groups", tag = "dead letters", security(("key" = [])), params(
    ("queue" = Option<String>, Query, description = "of this queue"),
), responses((status = 200, body = Groups)))]
pub(crate) async fn groups(State(app): State<Shared>, caller: Caller, uri: Uri) -> Result<Json<Groups>, Problem> {
    let mut params = Params::of(&uri, &["queue"])?;
    let queue = params.parsed("queue", Name::checked);
    params.finish()?;
    let groups = caller.reads(&app).dead_groups(queue.as_ref(), &caller.within()).await?;
    Ok(Json(Groups { groups: groups.into_iter().map(GroupView::from).collect() }))
}
