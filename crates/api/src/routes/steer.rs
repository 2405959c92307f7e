//! Changes the course of a job: `PATCH` before it runs, `cancel` at any time.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::Response,
};
use queue_core::{
    bodies::Part,
    dispatcher::{Entry, Place},
    events::EventBody,
    fallback::Link,
    ids::{Epoch, JobId, Name},
    job::{self, Job},
    journal::{Cancelled, Changed, Edit, Interrupted},
    payload::{Loads, quote::Quote},
    route::is_chain,
    state::{Standing, State as JobState},
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    audit,
    auth::Caller,
    body::{self, SMALL_BODY_MAX_BYTES},
    fields::{AHEAD_MAX_MS, Fields},
    json,
    params::{JobPath, Params},
    policy::{Policy, Spending},
    problem::{Cause, Document, Problem},
    routes::jobs::{epoch_of_tag, show},
    shape, submit,
    view::{self, JobView},
};

/// Longest reason of a cancel, in bytes: it is kept with the job.
const REASON_MAX_BYTES: usize = 500;

/// A change to a job that is not running. At least one field.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `read_edit` takes apart by hand
pub(crate) struct JobPatch {
    /// 9 is the most urgent.
    #[schema(minimum = 0, maximum = 9)]
    priority: Option<u8>,
    /// When it is due, at most 366 days ahead.
    #[schema(value_type = Option<String>, format = DateTime)]
    run_at: Option<String>,
    /// The new payload.
    #[schema(value_type = Option<Object>)]
    payload: Option<serde_json::Value>,
}

/// Changes priority, due time or payload of a job that is not running.
#[utoipa::path(patch, path = "/v1/jobs/{id}", tag = "jobs", security(("key" = [])), request_body = JobPatch, params(
    ("id" = String, Path, description = "the job"),
    ("If-Match" = Option<String>, Header, description = "`ETag` of the job: refused if it was handed on since"),
), responses(
    (status = 200, body = JobView),
    (status = 404, body = Document),
    (status = 409, description = "it is running, or it has ended", body = Document),
    (status = 412, description = "it was changed since it was read", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn patch(
    State(app): State<Shared>,
    caller: Caller,
    JobPath(id): JobPath,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let seen = if_match(&headers)?;
    let max = app.api.settings.max_job_bytes + SMALL_BODY_MAX_BYTES;
    let body = body::json(&app, &headers, body, max).await?;
    let job = view::row(&app, &caller, id).await?;
    let chain = if is_chain(&job.target) { caller.reads(&app).fallback(id).await? } else { Vec::new() };
    audit::before(&JobView::new(job.clone(), &Place::Unknown, app.now()));
    app.api.budgets.freshen().await?;
    let policy = app.policy().await?;
    let edit = {
        let (app, job) = (app.clone(), job.clone());
        submit::aside(move || read_edit(&app, &job, &chain, &policy, &body)).await??
    };
    if seen.is_some_and(|seen| seen != job.epoch) {
        return Err(stale(job.epoch));
    }
    let task = {
        let app = app.clone();
        // In a task of its own: a caller that hangs up must not leave the job outside of the dispatcher.
        audit::spawn(async move { withdraw_and_edit(&app, &job, seen, edit).await })
    };
    task.await.map_err(|error| Problem::new(Cause::Internal, error.to_string()))??;
    show(&app, &caller, view::row(&app, &caller, id).await?, StatusCode::OK, None).await
}

async fn withdraw_and_edit(app: &App, job: &Job, seen: Option<Epoch>, mut edit: Edit) -> Result<(), Problem> {
    let id = job.id;
    if let Some((payload, target)) = edit.payload.take() {
        let kept = app.api.stores.bodies.keep(&job.tenant, id, Part::Payload, payload).await;
        edit.payload = Some((kept, target));
    }
    // Out of the dispatcher first: what it does not hold, no worker can claim while the row changes.
    let place = app.api.stores.dispatcher.withdraw(id).await;
    let place = place.map_err(|error| Problem::new(Cause::Unavailable, error.to_string()).retry_after(1))?;
    if let Place::Leased { .. } = place {
        return Err(Problem::new(Cause::Running, "a running job cannot be changed; cancel it instead").about(id));
    }
    let problem = match app.api.stores.journal.edit(id, seen, edit, app.now()).await {
        Ok(Changed::Done(entry)) => {
            submit::push_if_near(app, entry).await;
            return Ok(());
        }
        Ok(Changed::Refused(standing)) => already_final(id, standing),
        Ok(Changed::Stale(epoch)) => stale(epoch),
        Ok(Changed::Missing) => Problem::no_job(id),
        Err(error) => error.into(),
    };
    put_back(app, id, &place).await;
    Err(problem)
}

/// Puts a withdrawn job back that was not changed after all.
async fn put_back(app: &App, id: JobId, place: &Place) {
    if !matches!(place, Place::Waiting { .. }) {
        return;
    }
    // If the journal does not answer now, the reconciler finds the job later.
    if let Ok([Some(job)]) = app.api.stores.reads.jobs(&[id]).await.as_deref()
        && !job.standing.is_final()
    {
        submit::push_if_near(app, Entry::from(job)).await;
    }
}

/// The new payload of a job, and the target that it loads: of a body with a payload or nothing.
pub(crate) async fn edited_payload(
    app: &Shared,
    caller: &Caller,
    job: &Job,
    body: bytes::Bytes,
) -> Result<Option<(bytes::Bytes, Name)>, Problem> {
    let mut fields = Fields::default();
    let [payload] = json::take_apart(json::utf8(&body)?, &["payload"], &mut fields.errors)?;
    fields.finish()?;
    if payload.is_none() {
        return Ok(None);
    }
    let chain = if is_chain(&job.target) { caller.reads(app).fallback(job.id).await? } else { Vec::new() };
    app.api.budgets.freshen().await?;
    let policy = app.policy().await?;
    let edit = {
        let (app, job) = (app.clone(), job.clone());
        submit::aside(move || read_edit(&app, &job, &chain, &policy, &body)).await??
    };
    Ok(edit.payload)
}

fn read_edit(app: &App, job: &Job, chain: &[Link], policy: &Policy, body: &bytes::Bytes) -> Result<Edit, Problem> {
    let text = json::utf8(body)?;
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let [priority, run_at, payload] = json::take_apart(text, &["priority", "run_at", "payload"], &mut fields.errors)?;
    if fields.errors.is_empty() && [priority, run_at, payload].iter().all(Option::is_none) {
        return Err(Problem::field("", "names nothing to change: give priority, run_at or payload"));
    }
    let now = app.now();
    let priority = fields.integer("priority", priority, 0..=u32::from(job::PRIORITY_MAX)).map(|value| value as u8);
    // A moment in the past means at once; how far in the past says nothing more.
    let run_at = fields.moment("run_at", run_at, now, now.plus_ms(-AHEAD_MAX_MS)).map(|at| at.max(now));
    let payload = match payload {
        None => None,
        Some(raw) => {
            let chained = (!chain.is_empty()).then(|| serde_json::to_string(chain)).transpose();
            let chained = chained.map_err(|error| Problem::new(Cause::Internal, error.to_string()))?;
            let (around, max) = (app.surroundings(), app.api.settings.max_job_bytes);
            let ruled = shape::ruled(&mut fields, policy, (&job.tenant, Some(job.kind)), Some(raw), None, around)?;
            let text = ruled.payload.as_deref().unwrap_or(raw.get());
            let loads = shape::read_payload(&mut fields, Some(job.kind), Some(text), chained.as_deref(), around, max)?;
            match loads {
                None => None,
                Some(Loads { target, max_cost, .. }) => {
                    if max_cost.is_some_and(|max| job.max_cost.is_none_or(|kept| max < kept)) {
                        fields.wrong("payload/limits/max_cost_usd", "cannot be lowered once a job is accepted");
                    }
                    let budgets = app.api.budgets.applies(&job.tenant, job.key_id.as_ref());
                    let refuse_unpriced = app.api.refuse_unpriced;
                    let spending = Spending { max_cost: job.max_cost, budgets, links: chain, refuse_unpriced };
                    if fields.errors.is_empty() {
                        spending.check(|| Quote::of(job.kind, text, around.routes), around)?;
                    }
                    let own = || body.slice_ref(raw.get().as_bytes());
                    let target = app.api.credentials.lane_of(&job.tenant, &target);
                    Some((ruled.payload.map_or_else(own, bytes::Bytes::from), target))
                }
            }
        }
    };
    if let (Some(at), Some(deadline)) = (run_at, job.deadline)
        && at > deadline
    {
        fields.wrong("run_at", format!("is after the job's deadline ({deadline})"));
    }
    fields.finish()?;
    Ok(Edit { priority, run_at, payload })
}

/// The epoch that `If-Match` asks for; `None` without the header or with `*`.
fn if_match(headers: &HeaderMap) -> Result<Option<Epoch>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let epoch = epoch_of_tag(text);
    epoch.map(Some).ok_or_else(|| Problem::field("/header/If-Match", "is not the `ETag` of a job"))
}

fn stale(epoch: Epoch) -> Problem {
    let reason = format!("the job was handed on since; its tag begins with \"{}- now", epoch.0);
    Problem::new(Cause::Stale, "the job was changed since it was read").at("/header/If-Match", reason)
}

fn already_final(id: JobId, standing: Standing) -> Problem {
    let state = format!("{standing:?}").to_lowercase();
    Problem::new(Cause::AlreadyFinal, format!("the job has ended: {state}")).about(id)
}

/// Why a job is cancelled.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `read_reason` takes apart by hand
pub(crate) struct CancelRequest {
    /// For the record.
    #[schema(max_length = 500)]
    reason: Option<String>,
}

/// Cancels a job. The call of a running one to its provider is dropped within a second.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", tag = "jobs", security(("key" = [])),
    request_body(content = Option<CancelRequest>), params(("id" = String, Path, description = "the job")),
    responses(
    (status = 200, description = "cancelled before it ran", body = JobView),
    (status = 202, description = "cancelled while it ran; its worker is told", body = JobView),
    (status = 404, body = Document),
    (status = 409, description = "it has ended", body = Document),
))]
pub(crate) async fn cancel(
    State(app): State<Shared>,
    caller: Caller,
    JobPath(id): JobPath,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let reason = read_reason(&app, &headers, body).await?;
    view::row(&app, &caller, id).await?;
    let task = {
        let app = app.clone();
        // In a task of its own: a caller that hangs up must not stop the worker from being told.
        audit::spawn(async move { withdraw_and_cancel(&app, id, reason).await })
    };
    let was_running = task.await.map_err(|error| Problem::new(Cause::Internal, error.to_string()))??;
    let status = if was_running { StatusCode::ACCEPTED } else { StatusCode::OK };
    show(&app, &caller, view::row(&app, &caller, id).await?, status, None).await
}

/// Cancels and says whether the job was running.
async fn withdraw_and_cancel(app: &App, id: JobId, reason: Option<String>) -> Result<bool, Problem> {
    let stores = &app.api.stores;
    // Without the dispatcher the cancel still holds: the epoch fences whoever runs the job.
    let place = stores.dispatcher.withdraw(id).await.unwrap_or_else(|error| {
        tracing::warn!(%error, job_id = %id, "a job is cancelled in the journal alone");
        Place::Unknown
    });
    let attempt = Interrupted::of(&place);
    match stores.journal.cancel(id, reason, attempt, app.now()).await {
        Ok(Cancelled::Done(_)) => {}
        Ok(Cancelled::Final(standing)) => return Err(already_final(id, standing)),
        Ok(Cancelled::Missing) => return Err(Problem::no_job(id)),
        Err(error) => {
            put_back(app, id, &place).await;
            return Err(error.into());
        }
    }
    // Always: a job that was unknown may have been claimed since.
    if let Err(error) = stores.dispatcher.nudge(id).await {
        tracing::warn!(%error, job_id = %id, "the worker learns of the cancel with its next renewal");
    }
    stores.events.publish(id, EventBody::State { state: JobState::Cancelled });
    Ok(matches!(place, Place::Leased { .. }))
}

async fn read_reason(app: &App, headers: &HeaderMap, body: Body) -> Result<Option<String>, Problem> {
    let Some(body) = body::take_if_any(app, headers, body).await? else { return Ok(None) };
    let mut fields = Fields::default();
    let [reason] = json::take_apart(json::utf8(&body)?, &["reason"], &mut fields.errors)?;
    let reason = fields.label("reason", reason, REASON_MAX_BYTES);
    fields.finish()?;
    Ok(reason)
}
