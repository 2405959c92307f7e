//! Schedules: jobs that are submitted by the clock.

pub(super) mod backfill;
mod bodies;
mod read;
mod view;

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use queue_core::{
    ids::{JobId, Name, ScheduleId},
    journal::Member,
    schedule::{
        Added, ChangedSchedule, Missed, Overlap, Progress, SCHEDULES_MAX, Schedule, Settings, TEMPLATE_MAX_BYTES, When,
        jobs_of,
    },
    time::Timestamp,
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use self::{
    bodies::{NewSchedule, SchedulePatch},
    read::{Rest, Spec, Wish},
    view::ScheduleView,
};
use super::webhooks::IdPath;
use crate::{
    app::{App, Shared},
    audit,
    auth::Caller,
    body,
    fields::{Fields, Raw, parse_past},
    json,
    observe::Trail,
    params::{Params, cursor},
    problem::{Cause, Document, Problem},
    settings::{check_tag, tag_of},
};

/// Largest body: a template and what stands beside it.
const BODY_MAX_BYTES: usize = TEMPLATE_MAX_BYTES + 16 * 1024;
/// Most ticks that a preview shows.
const PREVIEW_MAX: u32 = 100;
/// Ticks of a preview that does not say.
const PREVIEW_DEFAULT: u32 = 5;
/// Times that a change is made again because the schedule was at work meanwhile: one of a few gets between two ticks of a backfill.
const CHANGES_MAX: usize = 100;
/// Most jobs that a schedule is shown with: a row of bars.
const RUNS_MAX: usize = 20;

/// A page of schedules.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SchedulePage {
    /// Newest first, without their templates.
    schedules: Vec<ScheduleView>,
    /// Give it as `cursor` to go on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Ticks to come.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Preview {
    /// When it would be due, in words.
    #[schema(example = "at 02:30 on weekdays, Europe/Berlin")]
    words: String,
    /// Oldest first; empty where there is none.
    runs: Vec<PreviewRun>,
}

/// A tick to come.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PreviewRun {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// As a clock on the wall of the zone shows it.
    #[schema(example = "2026-03-29T03:00:00+02:00")]
    local: String,
}

fn missing(id: ScheduleId) -> Problem {
    Problem::new(Cause::NotFound, format!("there is no schedule {id}"))
}

/// The schedule, if it is there for the caller.
async fn find(app: &App, caller: &Caller, id: ScheduleId) -> Result<Schedule, Problem> {
    let found = app.api.stores.schedules.schedule(id).await?;
    let is_shown = |schedule: &Schedule| caller.bound().is_none_or(|tenant| *tenant == schedule.tenant);
    found.filter(is_shown).ok_or_else(|| missing(id))
}

fn answer(status: StatusCode, schedule: Schedule, now: Timestamp) -> Response {
    let tag = tag_of(schedule.version);
    (status, [(header::ETAG, tag)], Json(ScheduleView::whole(schedule, now))).into_response()
}

fn unreadable(error: &queue_core::schedule::WhenError) -> Problem {
    Problem::new(Cause::Internal, format!("when the schedule is due cannot be read here: {error}"))
}

/// Lists schedules, newest first.
#[utoipa::path(get, path = "/v1/schedules", tag = "schedules", security(("key" = [])), params(
    ("tenant" = Option<String>, Query, description = "of this tenant"),
    ("name" = Option<String>, Query, description = "with this name"),
    ("runs" = Option<u32>, Query, description = "show so many of the newest jobs of each, 0 to 20, default 0"),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ("limit" = Option<u32>, Query, description = "1 to 500, default 50"),
), responses((status = 200, body = SchedulePage), (status = 422, body = Document)))]
pub(crate) async fn list(State(app): State<Shared>, caller: Caller, uri: Uri) -> Result<Json<SchedulePage>, Problem> {
    let mut params = Params::of(&uri, &["tenant", "name", "runs", "cursor", "limit"])?;
    let asked = params.parsed("tenant", Name::checked);
    let name = params.parsed("name", Name::checked);
    let behind = params.cursor().map(|id| ScheduleId(id.0));
    let (runs, limit) = (read_runs(&mut params), params.limit());
    params.finish()?;
    let own = caller.bound();
    if own.is_some() && asked.is_some() && asked.as_ref() != own {
        return Ok(Json(SchedulePage { schedules: vec![], next_cursor: None }));
    }
    let (schedules, tenant) = (&app.api.stores.schedules, own.or(asked.as_ref()));
    // One more than asked tells whether there is another page.
    let mut found = schedules.schedules(tenant, name.as_ref(), behind, limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found.last().filter(|_| more).map(|last| cursor(JobId(last.id.0)));
    let now = schedules.store_time().await?;
    let last_runs = last_runs(&app, &caller, &found, runs).await?;
    let view = |(one, last)| ScheduleView::brief(one, now).with_runs(last);
    Ok(Json(SchedulePage { schedules: found.into_iter().zip(last_runs).map(view).collect(), next_cursor }))
}

/// `runs`: how many of its newest jobs a schedule is shown with.
fn read_runs(params: &mut Params) -> usize {
    params.whole("runs", 0..=RUNS_MAX).unwrap_or(0)
}

/// The newest jobs of each of these schedules, as far as they are there for the caller.
async fn last_runs(
    app: &App,
    caller: &Caller,
    schedules: &[Schedule],
    each: usize,
) -> Result<Vec<Vec<Member>>, Problem> {
    if each == 0 {
        return Ok(schedules.iter().map(|_| vec![]).collect());
    }
    let batches: Vec<_> = schedules.iter().map(|schedule| jobs_of(schedule.id)).collect();
    Ok(caller.reads(app).newest_of(&batches, each).await?)
}

/// Shows when a schedule would be due, without making it.
#[utoipa::path(get, path = "/v1/schedules/preview", tag = "schedules", security(("key" = [])), params(
    ("cron" = Option<String>, Query, description = "five fields, or six with seconds before them"),
    ("time_zone" = Option<String>, Query, description = "the zone of `cron`, UTC when absent"),
    ("every" = Option<String>, Query, description = "a duration such as `15m`"),
    ("starting_at" = Option<String>, Query, description = "the first tick of `every`, now when absent"),
    ("at" = Option<String>, Query, description = "once"),
    ("after" = Option<String>, Query, description = "ticks behind this moment, now when absent: RFC 3339, or a duration back"),
    ("count" = Option<u32>, Query, description = "1 to 100, default 5"),
), responses((status = 200, body = Preview), (status = 422, body = Document)))]
pub(crate) async fn preview(State(app): State<Shared>, uri: Uri) -> Result<Json<Preview>, Problem> {
    let [cron, time_zone, every, starting_at, at] = read::SPEC;
    let mut params = Params::of(&uri, &[cron, time_zone, every, starting_at, at, "after", "count"])?;
    let now = app.api.stores.schedules.store_time().await?;
    let spec = Spec {
        cron: params.text(cron).map(Into::into),
        time_zone: params.text(time_zone).map(Into::into),
        every: params.text(every).map(Into::into),
        starting_at: params.text(starting_at).map(Into::into),
        at: params.text(at).map(Into::into),
        is_broken: false,
    };
    let when = spec.read(None, now, &mut |name, reason| params.wrong(name, reason));
    let after = params.parsed("after", |text| parse_past(text, now)).unwrap_or(now);
    let count = params.whole("count", 1..=PREVIEW_MAX).unwrap_or(PREVIEW_DEFAULT);
    params.finish()?;
    let when = when.ok_or_else(|| Problem::new(Cause::Internal, "a moment passed its checks and is not there"))?;
    let ticks = when.ticks().map_err(|error| unreadable(&error))?;
    let next = ticks.between(after, Timestamp(i64::MAX)).take(count as usize);
    let runs = next.map(|at| PreviewRun { at, local: when.local(at) }).collect();
    Ok(Json(Preview { words: when.words(), runs }))
}

/// Shows a schedule with its template, what became of its ticks and the next five of them.
#[utoipa::path(get, path = "/v1/schedules/{id}", tag = "schedules", security(("key" = [])), params(
    ("id" = String, Path, description = "the schedule"),
    ("runs" = Option<u32>, Query, description = "show so many of its newest jobs, 0 to 20, default 0"),
    ("template" = Option<bool>, Query, description = "`false`: without its template"),
), responses((status = 200, body = ScheduleView), (status = 404, body = Document), (status = 422, body = Document)))]
pub(crate) async fn get(
    State(app): State<Shared>,
    caller: Caller,
    IdPath(id): IdPath,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut params = Params::of(&uri, &["runs", "template"])?;
    let (runs, with_template) = (read_runs(&mut params), params.boolean("template").unwrap_or(true));
    params.finish()?;
    let schedule = find(&app, &caller, ScheduleId(id)).await?;
    let last = last_runs(&app, &caller, std::slice::from_ref(&schedule), runs).await?.pop().unwrap_or_default();
    let (tag, now) = (tag_of(schedule.version), app.api.stores.schedules.store_time().await?);
    let view = if with_template {
        // It has a payload, which a look at one of its jobs would show.
        audit::reads_of(JobId(id), &schedule.tenant);
        ScheduleView::whole(schedule, now)
    } else {
        ScheduleView::brief(schedule, now)
    };
    Ok(([(header::ETAG, tag)], Json(view.with_runs(last))).into_response())
}

/// Makes a schedule. Its template is checked as a submit would be.
#[utoipa::path(post, path = "/v1/schedules", tag = "schedules", security(("key" = [])), request_body = NewSchedule, responses(
    (status = 201, body = ScheduleView),
    (status = 409, description = "the tenant has one of this name", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn create(
    State(app): State<Shared>,
    caller: Caller,
    Extension(trail): Extension<Trail>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let body = body::json(&app, &headers, body, BODY_MAX_BYTES).await?;
    let text = json::utf8(&body)?;
    json::check_depth(text)?;
    let now = app.api.stores.schedules.store_time().await?;
    let New { name, tenant, settings, template } = New::read(text, &caller, now)?;
    check_tenant(&app, &caller, &tenant).await?;
    let wish = Wish { tenant: tenant.clone(), key_id: caller.key_id.clone(), trail, now };
    let template = read::template(&app, template, wish).await?;
    let ticks = settings.when.ticks().map_err(|error| unreadable(&error))?;
    let mut schedule = Schedule {
        id: ScheduleId::generate(),
        tenant,
        name,
        key_id: caller.key_id,
        template,
        settings,
        progress: Progress::from(now),
        version: 1,
        generation: 1,
        beat: 0,
        due_at: None,
        created_at: now,
    };
    schedule.due_at = schedule.due(&ticks);
    match app.api.stores.schedules.add_schedule(schedule.clone()).await? {
        Added::New => {}
        Added::NameTaken => return Err(name_taken(&schedule)),
        Added::TooMany => {
            let detail = format!("the tenant has {SCHEDULES_MAX} schedules already; delete one first");
            return Err(Problem::new(Cause::TooMany, detail));
        }
    }
    tracing::info!(schedule = %schedule.id, "a schedule was made");
    let place = format!("/v1/schedules/{}", schedule.id);
    let mut response = answer(StatusCode::CREATED, schedule, now);
    if let Ok(place) = place.parse() {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// What a body says of a new schedule.
struct New<'a> {
    name: Name,
    tenant: Name,
    settings: Settings,
    template: &'a RawValue,
}

impl<'a> New<'a> {
    fn read(text: &'a str, caller: &Caller, now: Timestamp) -> Result<Self, Problem> {
        let mut fields = Fields::default();
        let names = named(["name", "tenant", "template"]);
        let [name, tenant, template, rest @ ..] = json::take_apart(text, &names, &mut fields.errors)?;
        for (field, raw) in [("name", name), ("template", template)] {
            if raw.is_none() {
                fields.wrong(field, "is required");
            }
        }
        let name = fields.name("name", name);
        let tenant = fields.name("tenant", tenant).unwrap_or_else(|| caller.tenant.clone());
        let (when, rest) = split(&mut fields, rest);
        let when = when.read(None, now, &mut |name, reason| fields.wrong(name, reason));
        let blank = Settings {
            // It stands in for one that is wrong, which is told below.
            when: when.unwrap_or(When::Once { at: now }),
            overlap: Overlap::Skip,
            missed: Missed::default(),
            paused: false,
            reason: None,
            description: None,
        };
        let settings = rest.over(&mut fields, blank);
        fields.finish()?;
        match (name, template) {
            (Some(name), Some(template)) => Ok(Self { name, tenant, settings, template }),
            _ => Err(Problem::new(Cause::Internal, "a schedule passed its checks without name and template")),
        }
    }
}

/// The fields of a body: these three, then what says when, then the rest.
fn named(first: [&'static str; 3]) -> [&'static str; 14] {
    let [a, b, c] = first;
    let [d, e, f, g, h] = read::SPEC;
    let [i, j, k, l, m, n] = read::REST;
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n]
}

fn split<'a>(fields: &mut Fields, raws: [Raw<'a>; 11]) -> (Spec<'a>, Rest<'a>) {
    let [cron, time_zone, every, starting_at, at, rest @ ..] = raws;
    (Spec::of(fields, [cron, time_zone, every, starting_at, at]), Rest::of(rest))
}

async fn check_tenant(app: &App, caller: &Caller, tenant: &Name) -> Result<(), Problem> {
    if caller.bound().is_some_and(|own| own != tenant) {
        let detail = format!("the caller belongs to the tenant {} and makes schedules for no other", caller.tenant);
        return Err(Problem::new(Cause::Forbidden, detail).at("/tenant", "is not the caller's tenant; leave it out"));
    }
    app.policy().await?.check_tenant(tenant)
}

fn name_taken(schedule: &Schedule) -> Problem {
    let detail = format!("the tenant {} has another schedule called {}", schedule.tenant, schedule.name);
    Problem::new(Cause::NameTaken, detail).at("/name", "is another schedule's")
}

/// Changes a schedule, pauses or resumes it. Ticks that come while it is paused are let go.
#[utoipa::path(patch, path = "/v1/schedules/{id}", tag = "schedules", security(("key" = [])), request_body = SchedulePatch, params(
    ("id" = String, Path, description = "the schedule"),
    ("If-Match" = Option<String>, Header, description = "the tag that was read: refused if it was changed since"),
), responses(
    (status = 200, body = ScheduleView),
    (status = 404, body = Document),
    (status = 409, description = "the tenant has another one of this name", body = Document),
    (status = 412, description = "it was changed since it was read", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn patch(
    State(app): State<Shared>,
    caller: Caller,
    IdPath(id): IdPath,
    Extension(trail): Extension<Trail>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let body = body::json(&app, &headers, body, BODY_MAX_BYTES).await?;
    let text = json::utf8(&body)?;
    json::check_depth(text)?;
    let before = find(&app, &caller, ScheduleId(id)).await?;
    check_tag(&headers, before.version, "schedule")?;
    let now = app.api.stores.schedules.store_time().await?;
    audit::before(&ScheduleView::whole(before.clone(), now));
    let change = Change::read(text, &before, now)?;
    let template = match change.template {
        Some(raw) => {
            let wish = Wish { tenant: before.tenant.clone(), key_id: caller.key_id.clone(), trail, now };
            Some(read::template(&app, raw, wish).await?)
        }
        None => None,
    };
    let schedule = changed(&app, &caller, before, |schedule, ticks_now| {
        // What a scheduler has done meanwhile stays; what people set is as it was read.
        schedule.name.clone_from(&change.name);
        if let Some(template) = &template {
            schedule.template.clone_from(template);
            schedule.key_id = caller.key_id.clone();
        }
        let (was_paused, is_other) = (schedule.settings.paused, schedule.settings.when != change.settings.when);
        schedule.settings = change.settings.clone();
        if is_other {
            schedule.generation += 1;
        }
        if is_other || (was_paused && !schedule.settings.paused) {
            schedule.progress.cursor = ticks_now;
        }
        Ok(())
    })
    .await?;
    tracing::info!(schedule = %schedule.id, paused = schedule.settings.paused, "a schedule was changed");
    Ok(answer(StatusCode::OK, schedule, now))
}

/// What a body says of a schedule.
struct Change<'a> {
    name: Name,
    settings: Settings,
    template: Raw<'a>,
}

impl<'a> Change<'a> {
    fn read(text: &'a str, before: &Schedule, now: Timestamp) -> Result<Self, Problem> {
        let mut fields = Fields::default();
        let names = named(["name", "tenant", "template"]);
        let [name, tenant, template, rest @ ..] = json::take_apart_with_null(text, &names, &mut fields.errors)?;
        if tenant.is_some() {
            fields.wrong("tenant", "cannot be changed: make another schedule");
        }
        let mut rest = rest;
        let [cron, time_zone, every, starting_at, at, ..] = &mut rest;
        let not_null = [cron, time_zone, every, starting_at, at];
        for (field, raw) in read::SPEC.into_iter().zip(not_null) {
            if raw.take_if(|raw| raw.get() == "null").is_some() {
                fields.wrong(field, "must not be null");
            }
        }
        for (field, raw) in [("name", name), ("template", template)] {
            if raw.is_some_and(|raw| raw.get() == "null") {
                fields.wrong(field, "must not be null");
            }
        }
        let name = fields.name("name", name.filter(|raw| raw.get() != "null")).unwrap_or_else(|| before.name.clone());
        let (when, rest) = split(&mut fields, rest);
        let when = when.read(Some(&before.settings.when), now, &mut |name, reason| fields.wrong(name, reason));
        let mut settings = rest.over(&mut fields, before.settings.clone());
        fields.finish()?;
        settings.when = when.unwrap_or(settings.when);
        Ok(Self { name, settings, template })
    }
}

/// Makes a change, again where the schedule was at work meanwhile, and returns what it is then. `change` is told what time it is.
async fn changed(
    app: &App,
    caller: &Caller,
    mut before: Schedule,
    change: impl Fn(&mut Schedule, Timestamp) -> Result<(), Problem>,
) -> Result<Schedule, Problem> {
    let (schedules, version) = (&app.api.stores.schedules, before.version);
    for _ in 0..CHANGES_MAX {
        let now = schedules.store_time().await?;
        change(&mut before, now)?;
        let ticks = before.settings.when.ticks().map_err(|error| unreadable(&error))?;
        before.due_at = before.due(&ticks);
        match schedules.change_schedule(before.clone()).await? {
            ChangedSchedule::Done => {
                return Ok(Schedule { version: before.version + 1, beat: before.beat + 1, ..before });
            }
            ChangedSchedule::NameTaken => return Err(name_taken(&before)),
            ChangedSchedule::Stale => before = find(app, caller, before.id).await?,
        }
        if before.version != version {
            return Err(Problem::new(Cause::Stale, "the schedule was changed at the same time; read it and try again"));
        }
    }
    Err(Problem::new(Cause::Busy, "the schedule is at work; try again").retry_after(1))
}

/// Deletes a schedule. Its jobs stay.
#[utoipa::path(delete, path = "/v1/schedules/{id}", tag = "schedules", security(("key" = [])), params(
    ("id" = String, Path, description = "the schedule"),
), responses((status = 204, description = "deleted"), (status = 404, body = Document), (status = 422, body = Document)))]
pub(crate) async fn delete(
    State(app): State<Shared>,
    caller: Caller,
    IdPath(id): IdPath,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let before = find(&app, &caller, ScheduleId(id)).await?;
    let schedules = &app.api.stores.schedules;
    audit::before(&ScheduleView::whole(before, schedules.store_time().await?));
    if !schedules.drop_schedule(ScheduleId(id)).await? {
        return Err(missing(ScheduleId(id)));
    }
    tracing::info!(schedule = %id, "a schedule was deleted");
    Ok(StatusCode::NO_CONTENT)
}
