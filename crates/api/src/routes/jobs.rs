//! One job: submit it, look at it, wait for it, read what it left behind.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use queue_core::{
    error::JobError,
    ids::{Epoch, JobId},
    job::{AttemptRecord, Job},
    journal::{JournalError, Reads},
    ledger::{Billed, CallRecord, Nanousd, Saving, Usage},
    state::Standing,
    time::Timestamp,
    traces,
};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    audit,
    auth::{self, Caller},
    body, idempotency,
    observe::Trail,
    params::{JobPath, Params},
    problem::{Cause, Document, Problem},
    request_limits::Charge,
    shape::JobRequest,
    submit::{self, AcceptedView, Sender},
    traced::Sent,
    view::{self, ErrorView, JobView, UsageView},
};

/// What a submit may hold beside its payload: every other field at its longest, escaped, with room to spare.
const AROUND_PAYLOAD_MAX_BYTES: usize = 64 * 1024;

/// Submits a job. 202 means that it is committed.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs", security(("key" = [])), request_body = JobRequest, params(
    ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters; the same key with \
     the same body gets the first answer"),
), responses(
    (status = 202, description = "accepted", body = AcceptedView, headers(
        ("Location" = String, description = "the job"),
        ("Idempotency-Replayed" = Option<String>, description = "`true` when an earlier request made the job"),
        ("traceresponse" = Option<String>, description = "the trace of this submit, where traces are made"),
    )),
    (status = 400, description = "not JSON", body = Document),
    (status = 409, description = "the unique key is held, or the idempotency key is in flight", body = Document),
    (status = 413, description = "too large", body = Document),
    (status = 415, description = "not `application/json`", body = Document),
    (status = 422, description = "wrong fields, or the idempotency key was used with another body", body = Document),
    (status = 429, description = "the key or tenant asks too often (`rate-limited`), or the tenant has as many live jobs as it \
     may (`backlog-full`)", body = Document),
    (status = 503, description = "the journal takes no writes", body = Document),
))]
pub(crate) async fn submit(
    State(app): State<Shared>,
    caller: Caller,
    Extension(trail): Extension<Trail>,
    Extension(charge): Extension<Arc<Charge>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let max = app.api.settings.max_job_bytes + AROUND_PAYLOAD_MAX_BYTES;
    let body = body::json(&app, &headers, body, max).await?;
    let key = idempotency::key_of(&headers)?;
    let answer = submit::one(&app, Sender { caller, trail, key, charge }, body).await?;
    let location = format!("/v1/jobs/{}", answer.accepted.id);
    let sent = traces::is_on().then(|| Sent {
        queue: Some(answer.accepted.queue.clone()),
        job: Some(answer.accepted.id),
        jobs: 1,
    });
    let mut response = (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(answer.accepted)).into_response();
    if answer.replayed {
        mark_replayed(&mut response);
    }
    if let Some(sent) = sent {
        response.extensions_mut().insert(sent);
    }
    Ok(response)
}

/// Says that an earlier request made what is answered.
pub(crate) fn mark_replayed(response: &mut Response) {
    response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
}

/// Shows a job; with `wait`, once it has ended or the time is over.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs", security(("key" = [])), params(
    ("id" = String, Path, description = "the job"),
    ("wait" = Option<String>, Query, description = "wait for the end of the job, e.g. `30s`; at most 60 s"),
    ("result" = Option<bool>, Query, description = "`false`: without its result"),
    ("If-None-Match" = Option<String>, Header, description = "`ETag` of the last answer: 304 if nothing changed"),
), responses(
    (status = 200, body = JobView, headers(("ETag" = String, description = "for `If-None-Match` and `If-Match`"))),
    (status = 304, description = "nothing changed"),
    (status = 404, body = Document),
))]
pub(crate) async fn get(
    State(app): State<Shared>,
    caller: Caller,
    JobPath(id): JobPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut params = Params::of(&uri, &["wait", "result"])?;
    let (wait, with_result) = (params.wait(), params.boolean("result").unwrap_or(true));
    params.finish()?;
    let job = match wait {
        Some(wait) => until_final(&app, &caller, id, wait).await?,
        None => view::row(&app, &caller, id).await?,
    };
    if with_result {
        return show(&app, &caller, job, StatusCode::OK, Some(&headers)).await;
    }
    let epoch = job.epoch;
    dressed(&view::outline(&app, &caller, job).await?, epoch, StatusCode::OK, Some(&headers))
}

async fn until_final(app: &App, caller: &Caller, id: JobId, wait: Duration) -> Result<Job, Problem> {
    // Nobody waits for a job that is not there.
    view::row(app, caller, id).await?;
    let ends = Instant::now() + wait;
    // Before the look, so that an end between look and wait is not missed.
    let waiter = app.waiters.watch(id);
    let _room = room(app)?;
    let mut has_waited = false;
    loop {
        let job = view::row(app, caller, id).await?;
        if has_waited && !auth::is_still_let_in(app, caller).await? {
            return Err(Problem::new(Cause::Unauthorized, "the key or token has ended while the request waited"));
        }
        if job.standing.is_final() || Instant::now() >= ends || app.shutdown.is_cancelled() {
            return Ok(job);
        }
        tokio::select! {
            () = waiter.woken() => {}
            () = app.shutdown.cancelled() => {}
            () = tokio::time::sleep_until(ends) => {}
        }
        has_waited = true;
    }
}

/// A place among those who watch.
pub(crate) fn room(app: &App) -> Result<tokio::sync::OwnedSemaphorePermit, Problem> {
    app.watchers
        .clone()
        .try_acquire_owned()
        .map_err(|_| Problem::new(Cause::Busy, "as many requests wait or stream as this server allows").retry_after(5))
}

/// A job as an answer, with its tag.
pub(crate) async fn show(
    app: &App,
    caller: &Caller,
    job: Job,
    status: StatusCode,
    conditions: Option<&HeaderMap>,
) -> Result<Response, Problem> {
    let epoch = job.epoch;
    dressed(&view::one(app, caller, job).await?, epoch, status, conditions)
}

fn dressed(
    view: &JobView,
    epoch: Epoch,
    status: StatusCode,
    conditions: Option<&HeaderMap>,
) -> Result<Response, Problem> {
    let body = serde_json::to_vec(view).map_err(|error| Problem::new(Cause::Internal, error.to_string()))?;
    let tag = tag_of(epoch, &body);
    let known = conditions.and_then(|headers| headers.get(header::IF_NONE_MATCH)).and_then(|value| value.to_str().ok());
    let etag = [(header::ETAG, tag.clone())];
    if known.is_some_and(|known| known == "*" || known.split(',').any(|one| one.trim() == tag)) {
        return Ok((StatusCode::NOT_MODIFIED, etag).into_response());
    }
    Ok((status, etag, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The tag of a job: its epoch, which every change of the job raises, and a hash of what is shown.
fn tag_of(epoch: Epoch, body: &[u8]) -> String {
    let hash = blake3::hash(body).to_hex();
    format!("\"{}-{}\"", epoch.0, &hash[..16])
}

/// The epoch that a tag stands for.
pub(crate) fn epoch_of_tag(tag: &str) -> Option<Epoch> {
    let inner = tag.trim().strip_prefix('"')?.strip_suffix('"')?;
    inner.split_once('-')?.0.parse().ok().map(Epoch)
}

/// The result of a succeeded job, as its handler gave it.
#[utoipa::path(get, path = "/v1/jobs/{id}/result", tag = "jobs", security(("key" = [])), params(
    ("id" = String, Path, description = "the job"),
), responses(
    (status = 200, description = "the result", body = serde_json::Value, content_type = "application/json"),
    (status = 404, body = Document),
    (status = 409, description = "it has not succeeded", body = Document),
    (status = 410, description = "it has succeeded, and asked that its result be kept for a shorter time", body = Document),
))]
pub(crate) async fn result(
    State(app): State<Shared>,
    caller: Caller,
    JobPath(id): JobPath,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let job = view::row(&app, &caller, id).await?;
    if job.standing == Standing::Succeeded {
        let result = caller.reads(&app).result(id).await?;
        let gone = "the job asked that its result be kept for a shorter time than itself (`result_ttl`), which is over";
        return shown(&app, &job, result.ok_or_else(|| Problem::new(Cause::ResultGone, gone).about(id))?).await;
    }
    let detail = match (job.standing, &job.error) {
        (Standing::Live, _) => "the job has not ended yet; `GET /v1/jobs/{id}?wait=30s` waits for it".to_owned(),
        (Standing::Dead, Some(error)) => format!("the job is a dead letter: {error}"),
        (standing, _) => format!("the job ended without a result ({standing:?})").to_lowercase(),
    };
    Err(Problem::new(Cause::NotFinished, detail).about(id))
}

/// The payload of a job, as it was submitted or edited since.
#[utoipa::path(get, path = "/v1/jobs/{id}/payload", tag = "jobs", security(("key" = [])), params(
    ("id" = String, Path, description = "the job"),
), responses(
    (status = 200, description = "the payload", body = serde_json::Value, content_type = "application/json"),
    (status = 404, body = Document),
    (status = 410, description = "it is kept for a shorter time than the job", body = Document),
))]
pub(crate) async fn payload(
    State(app): State<Shared>,
    caller: Caller,
    JobPath(id): JobPath,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let job = view::row(&app, &caller, id).await?;
    let payload = caller.reads(&app).payload(id).await?;
    let gone = "payloads of settled jobs are kept for a shorter time than the jobs, which is over";
    shown(&app, &job, payload.ok_or_else(|| Problem::new(Cause::PayloadGone, gone).about(id))?).await
}

/// A body of a job as it was kept; that it was read is written down.
async fn shown(app: &App, job: &Job, kept: Bytes) -> Result<Response, Problem> {
    audit::reads_of(job.id, &job.tenant);
    let body = view::whole(app, kept).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The attempts of a job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Attempts {
    /// Oldest first.
    attempts: Vec<AttemptView>,
}

/// One attempt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub(crate) struct AttemptView {
    /// The epoch it ran at.
    epoch: i64,
    /// Its number, counted from 1.
    number: u32,
    /// How it ended: `succeed`, `retry`, `dead`, `release`, `cancel` or `lost`.
    outcome: String,
    /// The worker's session.
    worker: String,
    /// When its handler began.
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    finished_at: Timestamp,
    /// Why it failed.
    #[schema(value_type = Option<ErrorView>)]
    error: Option<JobError>,
    /// Provider calls that it made.
    calls: u64,
    /// Their tokens.
    #[schema(value_type = UsageView)]
    usage: Usage,
    /// What they cost, in US dollars; `null` while the price of any of them is unknown.
    #[schema(example = "0.000123")]
    cost_usd: Option<String>,
    /// Its trace, where traces are made and the job's submit was sampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

impl AttemptView {
    /// The attempts of a job, oldest first.
    pub(super) async fn of_job(reads: &dyn Reads, job: &Job) -> Result<Vec<Self>, JournalError> {
        let (attempts, calls) = (reads.attempts(job.id).await?, reads.calls(job.id).await?);
        let shown = |attempt: AttemptRecord| {
            let trace_id = traces::trace_id_of_attempt(job, attempt.epoch);
            Self { trace_id, ..Self::new(attempt, &calls) }
        };
        Ok(attempts.into_iter().map(shown).collect())
    }

    /// An attempt with those of its job's `calls` that it made.
    fn new(attempt: AttemptRecord, calls: &[CallRecord]) -> Self {
        let own = || calls.iter().filter(|call| call.epoch == attempt.epoch);
        let is_known = own().all(|call| call.cost.is_some() || call.billed != Billed::Yes);
        let cost = own().filter_map(|call| call.cost).fold(Nanousd(0), Nanousd::plus);
        Self {
            calls: own().count() as u64,
            usage: own().fold(Usage::default(), |sum, call| sum.plus(call.usage)),
            cost_usd: is_known.then(|| cost.to_string()),
            epoch: attempt.epoch.0,
            number: attempt.number,
            outcome: attempt.outcome,
            worker: attempt.worker,
            started_at: attempt.started_at,
            finished_at: attempt.finished_at,
            error: attempt.error,
            trace_id: None,
        }
    }
}

/// The attempts of a job with their costs, oldest first.
#[utoipa::path(get, path = "/v1/jobs/{id}/attempts", tag = "jobs", security(("key" = [])), params(
    ("id" = String, Path, description = "the job"),
), responses((status = 200, body = Attempts), (status = 404, body = Document)))]
pub(crate) async fn attempts(
    State(app): State<Shared>,
    caller: Caller,
    JobPath(id): JobPath,
    uri: Uri,
) -> Result<Json<Attempts>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let job = view::row(&app, &caller, id).await?;
    Ok(Json(Attempts { attempts: AttemptView::of_job(&*caller.reads(&app), &job).await? }))
}

/// The provider calls of a job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Calls {
    /// Oldest first.
    calls: Vec<CallView>,
    /// Answers that needed no call, oldest first.
    savings: Vec<SavingView>,
}

/// An answer that needed no call: nobody had to be asked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Saving)]
pub(crate) struct SavingView {
    /// The call that was not made.
    call_id: String,
    /// The epoch of the attempt.
    epoch: i64,
    /// Why: an earlier attempt had paid (`memo`), another job had asked the same before (`cache`), several asked in one call
    /// (`coalesced`), or another one was asking at that moment (`singleflight`).
    #[schema(example = "memo")]
    reason: &'static str,
    /// Who would have been asked.
    provider: String,
    /// For what.
    model: String,
    /// Tokens of the prompt.
    tokens_in: u64,
    /// Tokens of the answer.
    tokens_out: u64,
    /// What the call would have cost, in US dollars; `null` where the price is unknown.
    saved_usd: Option<String>,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

impl From<Saving> for SavingView {
    fn from(saving: Saving) -> Self {
        Self {
            call_id: saving.call_id.to_string(),
            epoch: saving.epoch.0,
            reason: saving.reason.as_str(),
            provider: saving.provider,
            model: saving.model,
            tokens_in: saving.usage.tokens_in,
            tokens_out: saving.usage.tokens_out,
            saved_usd: saving.saved.map(|saved| saved.to_string()),
            at: saving.at,
        }
    }
}

/// One provider call, as the ledger has it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Call)]
pub(crate) struct CallView {
    /// Deterministic: a function of job, step and sequence.
    call_id: String,
    /// The epoch of the attempt.
    epoch: i64,
    /// Which step, e.g. `chat` or `map/0003`.
    step: String,
    /// Which call of the step; repairs count up.
    sequence: u32,
    /// Who was asked.
    provider: String,
    /// What was asked for.
    model: String,
    /// `ok`, or the error's class.
    status: String,
    /// Whether money changed hands: `yes`, `no` or `maybe`.
    billed: &'static str,
    /// Tokens.
    #[schema(value_type = UsageView)]
    usage: Usage,
    /// The service tier that it is priced in: `standard`, `batch`, `flex`, `priority`, or `other` for one that is unknown.
    tier: &'static str,
    /// Who counted the tokens: `provider` or `estimated`.
    usage_source: &'static str,
    /// US dollars; `null` where the price is unknown.
    cost_usd: Option<String>,
    /// The price file that was used.
    price_version: String,
    /// From request to last byte.
    duration_ms: u64,
    /// The provider's request id.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_request_id: Option<String>,
    /// Whose key it was made with: `default` is the operator's, `@tenant` the tenant's own.
    credential: String,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

impl From<CallRecord> for CallView {
    fn from(call: CallRecord) -> Self {
        Self {
            call_id: call.call_id.to_string(),
            epoch: call.epoch.0,
            step: call.step,
            sequence: call.sequence,
            provider: call.provider,
            model: call.model,
            status: call.status,
            billed: call.billed.as_str(),
            usage: call.usage,
            tier: call.tier.as_str(),
            usage_source: call.usage_source.as_str(),
            cost_usd: call.cost.map(|cost| cost.to_string()),
            price_version: call.price_version,
            duration_ms: call.duration_ms,
            provider_request_id: call.provider_request_id,
            credential: call.credential,
            at: call.at,
        }
    }
}

/// The provider calls of a job with their costs, and the answers that needed none; each oldest first.
#[utoipa::path(get, path = "/v1/jobs/{id}/calls", tag = "money", security(("key" = [])), params(
    ("id" = String, Path, description = "the job"),
), responses((status = 200, body = Calls), (status = 404, body = Document)))]
pub(crate) async fn calls(
    State(app): State<Shared>,
    caller: Caller,
    JobPath(id): JobPath,
    uri: Uri,
) -> Result<Json<Calls>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    view::row(&app, &caller, id).await?;
    let reads = caller.reads(&app);
    let (calls, savings) = tokio::try_join!(reads.calls(id), reads.savings(id))?;
    let (calls, savings) = (calls.into_iter().map(CallView::from), savings.into_iter().map(SavingView::from));
    Ok(Json(Calls { calls: calls.collect(), savings: savings.collect() }))
}
