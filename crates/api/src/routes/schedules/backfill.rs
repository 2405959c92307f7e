//! Backfills: ticks of the past that are submitted because somebody orders it.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use queue_core::{
    ids::{Name, ScheduleId},
    schedule::{BACKFILL_MAX_TICKS, Backfill, Ticks},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{super::webhooks::IdPath, answer, changed, find, unreadable, view::ScheduleView};
use crate::{
    app::Shared,
    audit,
    auth::Caller,
    body,
    fields::{Fields, parse_past},
    json,
    params::Params,
    problem::{Cause, Document, Problem},
};

/// Ticks of the past that are to be submitted, whatever became of them then.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `backfill` takes apart by hand
pub(crate) struct NewBackfill {
    /// From this moment on: RFC 3339, or a duration back such as `7d`.
    #[schema(example = "7d")]
    from: String,
    /// Up to and with this one; now when absent.
    to: Option<String>,
    /// Only count the ticks.
    #[schema(default = false)]
    dry_run: Option<bool>,
}

/// What a backfill would submit.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BackfillPlan {
    /// Always: nothing was ordered.
    dry_run: bool,
    /// From this moment on.
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    /// Up to and with this one.
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    /// How many ticks there are: as many jobs.
    ticks: u64,
    /// The first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    first: Option<Timestamp>,
    /// The last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    last: Option<Timestamp>,
}

/// Submits the ticks of a time that has passed, whatever became of them then, oldest first. Its runs neither skip nor cancel others;
/// unless the schedule allows it, no two run at once.
#[utoipa::path(post, path = "/v1/schedules/{id}/backfill", tag = "schedules", security(("key" = [])), request_body = NewBackfill,
    params(("id" = String, Path, description = "the schedule")),
    responses(
    (status = 200, description = "with `dry_run`: what would be submitted", body = BackfillPlan),
    (status = 202, description = "a scheduler submits them; `backfill` shows how far it is", body = ScheduleView),
    (status = 404, body = Document),
    (status = 409, description = "another one has not ended", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn begin(
    State(app): State<Shared>,
    caller: Caller,
    IdPath(id): IdPath,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let body = body::json(&app, &headers, body, body::SMALL_BODY_MAX_BYTES).await?;
    let text = json::utf8(&body)?;
    json::check_depth(text)?;
    let before = find(&app, &caller, ScheduleId(id)).await?;
    let now = app.api.stores.schedules.store_time().await?;
    let ticks = before.settings.when.ticks().map_err(|error| unreadable(&error))?;
    let (order, dry_run) = read_backfill(text, &ticks, &caller.key_id, now)?;
    if dry_run {
        let Backfill { from, to, cursor, ticks: count, .. } = order;
        let mut due = ticks.between(cursor, to).take(BACKFILL_MAX_TICKS);
        let first = due.next();
        return Ok(
            Json(BackfillPlan { dry_run, from, to, ticks: count, first, last: due.last().or(first) }).into_response()
        );
    }
    audit::before(&ScheduleView::whole(before.clone(), now));
    let schedule = changed(&app, &caller, before, |schedule, _| {
        if schedule.progress.running().is_some() {
            let detail = "another backfill of the schedule has not ended; `DELETE` ends it";
            return Err(Problem::new(Cause::BackfillRunning, detail));
        }
        let number = schedule.progress.backfill.as_ref().map_or(0, |last| last.number) + 1;
        schedule.progress.backfill = Some(Backfill { number, ..order.clone() });
        Ok(())
    })
    .await?;
    tracing::info!(schedule = %id, ticks = order.ticks, "a backfill was ordered");
    Ok(answer(StatusCode::ACCEPTED, schedule, now))
}

/// The order, and whether it is only asked what it would do.
fn read_backfill(text: &str, ticks: &Ticks, asked_by: &Name, now: Timestamp) -> Result<(Backfill, bool), Problem> {
    let mut fields = Fields::default();
    let [from, to, dry_run] = json::take_apart(text, &["from", "to", "dry_run"], &mut fields.errors)?;
    if from.is_none() {
        fields.wrong("from", "is required");
    }
    let past = |text: &str| match parse_past(text, now)? {
        at if at > now => Err(format!("`{text}` has not come yet")),
        at => Ok(at),
    };
    let from = fields.parsed("from", from, past);
    let to = fields.parsed("to", to, past).unwrap_or(now);
    let dry_run = fields.boolean("dry_run", dry_run).unwrap_or(false);
    let count = from.map(|from| ticks.between(from.plus_ms(-1), to).take(BACKFILL_MAX_TICKS + 1).count());
    match count {
        Some(0) => fields.wrong("from", "begins a time without any tick"),
        Some(count) if count > BACKFILL_MAX_TICKS => {
            fields.wrong("from", format!("begins a time of more than {BACKFILL_MAX_TICKS} ticks: order parts of it"));
        }
        _ => {}
    }
    fields.finish()?;
    let from = from.unwrap_or(to);
    let order = Backfill {
        number: 1,
        from,
        to,
        cursor: from.plus_ms(-1),
        ticks: count.unwrap_or_default() as u64,
        submitted: 0,
        refused: 0,
        asked_by: asked_by.clone(),
        began_at: now,
        finished_at: None,
    };
    Ok((order, dry_run))
}

/// Ends a backfill. What was submitted stays, and a tick that is being submitted at this moment becomes a job still.
#[utoipa::path(delete, path = "/v1/schedules/{id}/backfill", tag = "schedules", security(("key" = [])), params(
    ("id" = String, Path, description = "the schedule"),
), responses(
    (status = 200, body = ScheduleView),
    (status = 404, description = "there is no such schedule, or none of its backfills runs", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn end(
    State(app): State<Shared>,
    caller: Caller,
    IdPath(id): IdPath,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let before = find(&app, &caller, ScheduleId(id)).await?;
    let now = app.api.stores.schedules.store_time().await?;
    audit::before(&ScheduleView::whole(before.clone(), now));
    let schedule = changed(&app, &caller, before, |schedule, now| {
        match schedule.progress.backfill.as_mut().filter(|backfill| backfill.finished_at.is_none()) {
            Some(backfill) => backfill.finished_at = Some(now),
            None => return Err(Problem::new(Cause::NotFound, "no backfill of the schedule runs")),
        }
        Ok(())
    })
    .await?;
    tracing::info!(schedule = %id, "a backfill was ended");
    Ok(answer(StatusCode::OK, schedule, now))
}
