//! `GET /v1/jobs`: jobs, newest first, narrowed by filters.

use axum::{Json, extract::State, http::Uri};
use queue_core::{
    dispatcher::Place,
    filter::Filter,
    ids::{JobId, Name, ScheduleId},
    job::{Job, Kind},
    journal::{JobFilter, LiveScan, PAGE_MAX_ROWS},
    schedule::jobs_of,
    state::State as JobState,
    time::Timestamp,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    auth::Caller,
    params::{Params, cursor, end_of_its_ms},
    problem::{Cause, Problem},
    view::{self, JobView},
};

/// A page of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobPage {
    /// Newest first.
    pub(crate) jobs: Vec<JobView>,
    /// Give it as `cursor` to go on; absent on the last page. A page may be short, or empty, and have one: where few
    /// jobs match, an answer ends after 50,000 rows were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
    /// `true` where `state=running` was asked for and more jobs run than were found among the first 50,000 that are
    /// due; a filter by queue does not change that bound.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) incomplete: bool,
}

/// Longest text filter, in bytes: signatures are the longest.
const TEXT_MAX_BYTES: usize = 512;
/// Live rows that are looked through for running ones: a fraction of a second. Most of those that run are among the
/// first to be due; priorities and turns of tenants can put others behind a long backlog.
const RUNNING_SCAN_MAX_ROWS: usize = 50_000;
/// Rows of one step of that.
const RUNNING_SCAN_ROWS: usize = 5_000;
/// Rows of the first step.
const RUNNING_SCAN_FIRST_ROWS: usize = 1_000;

const KNOWN: [&str; 14] = [
    "filter",
    "queue",
    "kind",
    "state",
    "tenant",
    "error",
    "since",
    "until",
    "q",
    "batch_id",
    "schedule",
    "operation",
    "cursor",
    "limit",
];

/// Lists jobs, newest first.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", security(("key" = [])), params(
    ("filter" = Option<String>, Query, description = "that meet this, such as `queue = llm and state = dead and age > 1h`"),
    ("queue" = Option<String>, Query, description = "of this queue"),
    ("kind" = Option<view::KindWord>, Query, description = "of this kind"),
    ("state" = Option<view::StateWord>, Query, description = "in this state"),
    ("tenant" = Option<String>, Query, description = "of this tenant"),
    ("error" = Option<String>, Query, description = "whose last error has this class, or this signature"),
    ("since" = Option<String>, Query, description = "accepted at or after: RFC 3339, or a duration back such as `7d`"),
    ("until" = Option<String>, Query, description = "accepted before: RFC 3339, or a duration back"),
    ("q" = Option<String>, Query, description = "text that operation, unique key, a tag, the error or the id contains"),
    ("batch_id" = Option<String>, Query, description = "of this batch"),
    ("schedule" = Option<String>, Query, description = "of the schedule with this id"),
    ("operation" = Option<String>, Query, description = "of this operation"),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ("limit" = Option<u32>, Query, description = "1 to 500, default 50"),
), responses((status = 200, body = JobPage), (status = 422, body = crate::problem::Document)))]
pub(crate) async fn list(State(app): State<Shared>, caller: Caller, uri: Uri) -> Result<Json<JobPage>, Problem> {
    let mut params = Params::of(&uri, &KNOWN)?;
    let state = params.parsed("state", |text| {
        let words = JobState::ALL.map(JobState::as_str).join(", ");
        JobState::parse(text).ok_or_else(|| format!("`{text}` is not a state; {words} are"))
    });
    let now = app.now();
    let which = which(&mut params, now);
    let mut filter = filter(&mut params, now);
    if let Some(schedule) = params.parsed("schedule", schedule_id) {
        if filter.batch_id.is_some() {
            params.wrong("schedule", "stands for a batch: give only one of them");
        }
        filter.batch_id = Some(jobs_of(schedule));
    }
    params.finish()?;
    let state = state
        .or_else(|| which.as_ref().and_then(|which| <[JobState; 1]>::try_from(which.states()).ok()).map(|[only]| only));
    if let Some(state) = state {
        filter.standing = Some(state.standing());
    }
    if let Some(which) = &which {
        filter = narrow(filter, which);
    }
    match state {
        Some(JobState::Running) => return running(&app, &caller, filter, which.as_ref()).await.map(Json),
        Some(JobState::Scheduled) => filter.due = Some((false, now)),
        Some(JobState::Ready) => filter.due = Some((true, now)),
        _ => {}
    }
    let (mut jobs, next_cursor) = page(&app, &caller, filter, which.as_ref()).await?;
    // The journal cannot tell waiting from running: such a page may be shorter than asked, and its cursor goes on.
    jobs.retain(|job| state.is_none_or(|state| job.state == state));
    Ok(Json(JobPage { jobs, next_cursor, incomplete: false }))
}

fn schedule_id(text: &str) -> Result<ScheduleId, String> {
    text.parse().map_err(|_| "is not the id of a schedule, which is a UUID".to_owned())
}

/// `filter`: which jobs, in the one grammar for that.
pub(crate) fn which(params: &mut Params, now: Timestamp) -> Option<Filter> {
    params.parsed("filter", |text| Filter::parse(text, now).map_err(|error| error.to_string()))
}

/// What both let through, as far as the journal can tell.
pub(crate) fn narrow(given: JobFilter, which: &Filter) -> JobFilter {
    let narrowed = which.narrowed();
    JobFilter {
        queue: given.queue.or(narrowed.queue),
        kind: given.kind.or(narrowed.kind),
        standing: given.standing.or(narrowed.standing),
        tenant: given.tenant.or(narrowed.tenant),
        error_class: given.error_class.or(narrowed.error_class),
        signature: given.signature.or(narrowed.signature),
        batch_id: given.batch_id.or(narrowed.batch_id),
        operation: given.operation.or(narrowed.operation),
        since: given.since.max(narrowed.since),
        until: [given.until, narrowed.until].into_iter().flatten().min(),
        ..given
    }
}

/// A page of those jobs that there are for the caller, and the cursor of the next one.
pub(crate) async fn page(
    app: &App,
    caller: &Caller,
    filter: JobFilter,
    which: Option<&Filter>,
) -> Result<(Vec<JobView>, Option<String>), Problem> {
    let Some(filter) = caller.narrowed(filter) else { return Ok((vec![], None)) };
    let from = filter.before;
    let Some(which) = which else {
        let (rows, next) = rows(app, caller, filter).await?;
        let next = next.map(|next| told(caller, (from, rows.last().map(|job| job.id)), next));
        return Ok((view::many(app, rows).await, next.map(cursor)));
    };
    let found = caller.stores(app).find_soon(which, &filter, filter.limit).await?;
    let last = found.jobs.last().map(|(job, _)| job.id);
    let next = found.next.map(|next| told(caller, (from, last), next));
    let now = app.now();
    let jobs = found.jobs.into_iter().map(|(job, place)| JobView::new(job, &place, now)).collect();
    Ok((jobs, next.map(cursor)))
}

/// Where the next page begins, as the caller is told it. A walk may have ended at a job that is not there for the caller: it is
/// told no id, but a moment right before, from which the same rows are walked once more. `from` is where this page began, `last`
/// the last job that it shows: what was shown is not shown again.
fn told(caller: &Caller, (from, last): (Option<JobId>, Option<JobId>), next: JobId) -> JobId {
    if caller.bound().is_none() || last == Some(next) {
        return next;
    }
    let moment = [Some(end_of_its_ms(next)), last, from].into_iter().flatten().min().unwrap_or(next);
    // A page that went through jobs of one millisecond only (50,000 rows) would be told its own beginning for ever.
    if Some(moment) == from { next } else { moment }
}

async fn rows(app: &App, caller: &Caller, mut filter: JobFilter) -> Result<(Vec<Job>, Option<JobId>), Problem> {
    let limit = filter.limit;
    // One more than asked tells whether there is another page.
    filter.limit = limit + 1;
    let listed = caller.reads(app).list(&filter).await?;
    let mut rows = listed.jobs;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = if more { rows.last().map(|last| last.id) } else { listed.go_on_behind };
    Ok((rows, next))
}

/// Running jobs: only the dispatcher knows them, and it is asked by id. They are sought among the live jobs, those
/// that were due first before the others, until as many are found as workers hold.
async fn running(app: &App, caller: &Caller, filter: JobFilter, which: Option<&Filter>) -> Result<JobPage, Problem> {
    let Some(filter) = caller.narrowed(filter) else {
        return Ok(JobPage { jobs: vec![], next_cursor: None, incomplete: false });
    };
    let (found, incomplete) = leased(app, &filter).await?;
    let mut jobs = Vec::new();
    for ids in found.chunks(PAGE_MAX_ROWS) {
        let rows = caller.reads(app).jobs(ids).await?;
        let rows: Vec<Job> = rows.into_iter().flatten().collect();
        let places = app.api.stores.places(&rows).await;
        let meant = |(job, place): &(Job, Place)| {
            filter.meets(job) && which.is_none_or(|which| which.matches(job, JobState::Running, place))
        };
        let rows = rows.into_iter().zip(places).filter(meant).map(|(job, _)| job).collect();
        jobs.extend(view::many(app, rows).await.into_iter().filter(|job| job.state == JobState::Running));
        if jobs.len() > filter.limit {
            break;
        }
    }
    let more = jobs.len() > filter.limit;
    jobs.truncate(filter.limit);
    let next_cursor = jobs.last().filter(|_| more).map(|last| cursor(last.id));
    Ok(JobPage { jobs, next_cursor, incomplete })
}

/// The jobs that workers hold in the filter's queue, newest first, from behind its cursor; and whether the search
/// ended at its bound before it had found as many as there are.
async fn leased(app: &App, filter: &JobFilter) -> Result<(Vec<JobId>, bool), Problem> {
    let stores = &app.api.stores;
    let of_queue = |queue: &Name| filter.queue.as_ref().is_none_or(|wanted| wanted == queue);
    let depths = stores.dispatcher.depths().await.map_err(unavailable)?;
    let active = depths.iter().filter(|depth| depth.queue.as_ref().is_none_or(of_queue)).map(|depth| depth.active);
    let active = active.sum::<u64>() as usize;

    let now = app.now();
    let mut found: Vec<JobId> = Vec::new();
    // Mostly those that run are the first to be due: a small step first.
    let mut scan = LiveScan { after: None, due_by: now, accepted_by: now, limit: RUNNING_SCAN_FIRST_ROWS };
    let (mut looked_at, mut over) = (0, false);
    while !over && found.len() < active && looked_at < RUNNING_SCAN_MAX_ROWS {
        let entries = stores.journal.live(scan).await?;
        let last = entries.last().filter(|_| entries.len() == scan.limit).map(|last| (last.run_at, last.id));
        let ids: Vec<JobId> = entries.iter().filter(|entry| of_queue(&entry.queue)).map(|entry| entry.id).collect();
        let places = stores.dispatcher.locate(&ids).await.map_err(unavailable)?;
        let held = ids.into_iter().zip(&places).filter(|(_, place)| matches!(place, Place::Leased { .. }));
        found.extend(held.map(|(id, _)| id));
        looked_at += scan.limit;
        over = last.is_none();
        scan = LiveScan { after: last, limit: RUNNING_SCAN_ROWS.min(RUNNING_SCAN_MAX_ROWS - looked_at), ..scan };
    }
    let incomplete = !over && found.len() < active;
    // Ids sort by time of acceptance.
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.retain(|id| filter.before.is_none_or(|before| *id < before));
    Ok((found, incomplete))
}

fn unavailable(error: queue_core::dispatcher::DispatchError) -> Problem {
    Problem::new(Cause::Unavailable, error.to_string()).retry_after(1)
}

/// Reads the filters that every list of jobs has.
pub(crate) fn filter(params: &mut Params, now: Timestamp) -> JobFilter {
    let mut filter = JobFilter {
        queue: params.parsed("queue", Name::checked),
        kind: params.parsed("kind", |text| {
            Kind::parse(text)
                .ok_or_else(|| format!("`{text}` is not a kind; llm, embedding, analysis, http, custom and probe are"))
        }),
        tenant: params.parsed("tenant", Name::checked),
        batch_id: params.label("batch_id", TEXT_MAX_BYTES),
        operation: params.label("operation", TEXT_MAX_BYTES),
        text: params.label("q", TEXT_MAX_BYTES),
        since: params.past("since", now),
        until: params.past("until", now),
        before: params.cursor(),
        limit: params.limit(),
        ..JobFilter::default()
    };
    // A signature begins with its class and a colon; a class has none.
    match params.label("error", TEXT_MAX_BYTES) {
        Some(error) if error.contains(':') => filter.signature = Some(error),
        error => filter.error_class = error,
    }
    filter
}
