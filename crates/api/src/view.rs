//! How a job looks from outside: one serialiser for every route that shows one.

use bytes::Bytes;
use queue_core::{
    archive::ObjectsError,
    bodies,
    dispatcher::Place,
    error::JobError,
    events::Progress,
    fallback::Link,
    ids::{JobId, Name},
    job::{Job, Kind},
    ledger::Usage,
    route::is_chain,
    state::{self, State},
    time::{DAY_MS, Timestamp},
    traces,
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    app::App,
    audit,
    auth::Caller,
    problem::{Cause, Problem},
};

/// Largest result that is shown inside the job; larger ones have an address of their own.
const INLINE_RESULT_MAX_BYTES: usize = 256 * 1024;

/// A job. Fields without a value are left out, except `cost_usd`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub(crate) struct JobView {
    /// UUIDv7: sorts by time of acceptance.
    #[schema(value_type = String, format = "uuid")]
    pub(crate) id: JobId,
    /// Where it waits or waited.
    #[schema(value_type = String)]
    pub(crate) queue: Name,
    /// What it is.
    #[schema(value_type = KindWord)]
    pub(crate) kind: Kind,
    /// Whose it is.
    #[schema(value_type = String)]
    pub(crate) tenant: Name,
    /// What it loads: `provider:model:credential`, several of them with `>` between where it has a fallback chain, or the
    /// kind where no provider is called.
    #[schema(value_type = String)]
    pub(crate) target: Name,
    /// Where it is in its life.
    #[schema(value_type = StateWord)]
    pub(crate) state: State,
    /// 9 is the most urgent.
    pub(crate) priority: u8,
    /// Attempts spent so far.
    pub(crate) attempts: u32,
    /// Attempts that it may spend.
    pub(crate) max_attempts: u32,
    /// Workers lost with it since it last settled anything.
    pub(crate) recoveries: u32,
    /// Lives that it was redriven from.
    pub(crate) redrives: u32,
    /// When it is or was due.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) run_at: Timestamp,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) accepted_at: Timestamp,
    /// When its running attempt began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) started_at: Option<Timestamp>,
    /// How far its running attempt is, where the handler tells; best effort, and only where one job is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProgressView>)]
    pub(crate) progress: Option<Progress>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) finished_at: Option<Timestamp>,
    /// Latest start of its first attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) start_by: Option<Timestamp>,
    /// Its end over all attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) deadline: Option<Timestamp>,
    /// Longest time of one attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "5m")]
    pub(crate) timeout: Option<String>,
    /// At most one live job of the tenant holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unique_key: Option<String>,
    /// Of the jobs of its queue and tenant with this key, only so many run at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) concurrency_key: Option<Name>,
    /// What all its calls together may cost at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_cost_usd: Option<String>,
    /// Label for cost reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operation: Option<String>,
    /// Group of jobs that is counted together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) batch_id: Option<String>,
    /// Labels for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<String>,
    /// The submit's request id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
    /// The trace that its submit is in: the caller's, or one of ours where traces are made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    pub(crate) trace_id: Option<String>,
    /// The last error, also of a job that succeeded later.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ErrorView>)]
    pub(crate) error: Option<JobError>,
    /// Why it was cancelled, if someone said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cancel_reason: Option<String>,
    /// Tokens over all calls.
    #[schema(value_type = UsageView)]
    pub(crate) usage: Usage,
    /// Money over all calls, in US dollars; `null` while any call's price is unknown.
    #[schema(example = "0.000123")]
    pub(crate) cost_usd: Option<String>,
    /// `provider/model` of the last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) served_by: Option<String>,
    /// Models that its chat calls may go to when the first does not answer; only where one job is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<crate::shape::FallbackLink>)]
    pub(crate) fallback: Vec<Link>,
    /// The result of a succeeded job, up to 256 KiB; only where one job is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub(crate) result: Option<Box<RawValue>>,
    /// Where a larger result is, or any with `result=false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result_url: Option<String>,
}

/// A kind of work.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Kind)]
#[allow(dead_code)] // schema of `queue_core::job::Kind`
pub(crate) enum KindWord {
    Llm,
    Embedding,
    Analysis,
    Probe,
    Http,
    Custom,
}

/// A state: waiting for its time, waiting for its turn, being worked on, or ended in one of three ways.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = State)]
#[allow(dead_code)] // schema of `queue_core::state::State`
pub(crate) enum StateWord {
    Scheduled,
    Ready,
    Running,
    Succeeded,
    Dead,
    Cancelled,
}

/// Why an attempt failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobError)]
#[allow(dead_code)] // schema of `queue_core::error::JobError`
pub(crate) struct ErrorView {
    /// The cause, e.g. `rate`.
    class: String,
    /// The provider's or handler's own code.
    code: String,
    /// For people.
    message: String,
    /// Equal for one failure that is seen many times.
    signature: String,
    /// Whether another attempt could help.
    retryable: bool,
    /// How long the provider asked to wait.
    retry_after_ms: Option<u64>,
    /// Attempts after which this failure is final, where that is fewer than the job has.
    tries_max: Option<u8>,
}

/// How far a running attempt is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Progress)]
#[allow(dead_code)] // schema of `queue_core::events::Progress`
pub(crate) struct ProgressView {
    /// Steps done.
    done: u32,
    /// Steps in all, as far as known.
    total: u32,
    /// The step that was running last, e.g. `map/0003`.
    step: String,
}

/// Tokens. Cached, written and audio tokens are part of `tokens_in`, reasoning and audio tokens part of `tokens_out`. The
/// last three are left out where they are 0, and where a job is shown: its calls and the costs have them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
#[allow(dead_code)] // schema of `queue_core::ledger::Usage`
pub(crate) struct UsageView {
    tokens_in: u64,
    tokens_out: u64,
    tokens_cached: u64,
    tokens_cache_write: u64,
    tokens_reasoning: u64,
    /// Those of `tokens_cache_write` that are kept for longer than usual.
    tokens_cache_write_long: Option<u64>,
    tokens_audio_in: Option<u64>,
    tokens_audio_out: Option<u64>,
}

impl JobView {
    /// A job as it stands at `now`, with what the dispatcher knows of it.
    pub(crate) fn new(job: Job, place: &Place, now: Timestamp) -> Self {
        let (state, started_at) = state::of(&job, place, now);
        Self {
            id: job.id,
            queue: job.queue,
            kind: job.kind,
            tenant: job.tenant,
            target: job.target,
            state,
            priority: job.priority,
            attempts: job.attempts,
            max_attempts: job.max_attempts,
            recoveries: job.recoveries,
            redrives: job.redrives,
            run_at: job.run_at,
            accepted_at: job.accepted_at,
            started_at,
            progress: None,
            finished_at: job.finished_at,
            start_by: job.start_by,
            deadline: job.deadline,
            timeout: job.timeout_ms.map(duration_text),
            unique_key: job.unique_key,
            concurrency_key: job.concurrency_key,
            max_cost_usd: job.max_cost.map(|cost| cost.to_string()),
            operation: job.operation,
            batch_id: job.batch_id,
            tags: job.tags,
            request_id: job.request_id,
            trace_id: job.traceparent.as_deref().and_then(traces::trace_id).map(str::to_owned),
            error: job.error,
            cancel_reason: job.cancel_reason,
            usage: job.usage,
            cost_usd: job.cost.map(|cost| cost.to_string()),
            served_by: job.served_by,
            fallback: Vec::new(),
            result: None,
            result_url: None,
        }
    }
}

/// Milliseconds as `5m`, `1h 30m` and so on: as they are read.
pub(crate) fn duration_text(ms: u64) -> String {
    humantime::format_duration(std::time::Duration::from_millis(ms)).to_string()
}

/// How long something is kept: in days where it is days, of which `duration_text` would make months.
pub(crate) fn kept_text(ms: u64) -> String {
    let day_ms = DAY_MS.unsigned_abs();
    if ms > 0 && ms.is_multiple_of(day_ms) { format!("{}d", ms / day_ms) } else { duration_text(ms) }
}

/// Jobs as they stand now.
pub(crate) async fn many(app: &App, jobs: Vec<Job>) -> Vec<JobView> {
    let places = app.api.stores.places(&jobs).await;
    let now = app.now();
    jobs.into_iter().zip(places).map(|(job, place)| JobView::new(job, &place, now)).collect()
}

/// One job as it stands now, with its result if that is small.
pub(crate) async fn one(app: &App, caller: &Caller, job: Job) -> Result<JobView, Problem> {
    let mut view = outline(app, caller, job).await?;
    if view.state == State::Succeeded {
        let kept = caller.reads(app).result(view.id).await?;
        let is_small = kept.as_ref().is_none_or(|result| bodies::len(result) <= INLINE_RESULT_MAX_BYTES);
        view.result_url = view.result_url.filter(|_| !is_small);
        if let Some(result) = kept.filter(|_| is_small) {
            view.result = Some(raw_json(&whole(app, result).await?)?);
            audit::reads_of(view.id, &view.tenant);
        }
    }
    Ok(view)
}

/// The same without its result: where it is, if it has one.
pub(crate) async fn outline(app: &App, caller: &Caller, job: Job) -> Result<JobView, Problem> {
    let reads = caller.reads(app);
    let place = app.api.stores.places(std::slice::from_ref(&job)).await.pop().unwrap_or(Place::Unknown);
    let mut view = JobView::new(job, &place, app.now());
    if is_chain(&view.target) {
        view.fallback = reads.fallback(view.id).await?;
    }
    if view.state == State::Running {
        view.progress = app.api.stores.events.progress(view.id).await;
    }
    view.result_url = (view.state == State::Succeeded).then(|| format!("/v1/jobs/{}/result", view.id));
    Ok(view)
}

/// The body of what the journal has of a payload or result.
pub(crate) async fn whole(app: &App, kept: Bytes) -> Result<Bytes, Problem> {
    app.api.stores.bodies.whole(kept).await.map_err(|error| match error {
        ObjectsError::Unavailable(reason) => Problem::new(Cause::Unavailable, reason).retry_after(1),
        ObjectsError::Damaged { path, reason } => {
            tracing::error!(object = path, reason, "a large body cannot be used");
            Problem::new(Cause::Internal, format!("the object of this body cannot be used: {reason}"))
        }
    })
}

/// Stored JSON text as part of an answer.
pub(crate) fn raw_json(bytes: &[u8]) -> Result<Box<RawValue>, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        tracing::error!(%error, "the journal holds a body that is not JSON");
        Problem::new(Cause::Internal, "a stored body is not JSON")
    })
}

/// The row of a job; a problem if there is none for the caller. Every handler that takes a job's id begins with it.
pub(crate) async fn row(app: &App, caller: &Caller, id: JobId) -> Result<Job, Problem> {
    let mut rows = caller.reads(app).jobs(&[id]).await?;
    rows.pop().flatten().filter(|job| caller.sees(job)).ok_or_else(|| Problem::no_job(id))
}
