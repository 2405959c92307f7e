//! A schedule as it is shown.

use queue_core::{
    ids::{JobId, Name, ScheduleId},
    journal::Member,
    schedule::{Backfill, Counts, Schedule, TICK_TAG, Trouble, When},
    state::Standing,
    time::Timestamp,
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::read::shown;

/// Ticks to come that are shown.
const NEXT_SHOWN: usize = 5;

/// A schedule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Schedule)]
pub(crate) struct ScheduleView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: ScheduleId,
    /// Whose it is.
    #[schema(value_type = String)]
    tenant: Name,
    /// What it is called; one of a tenant.
    #[schema(value_type = String)]
    name: Name,
    /// When it is due: five fields, or six with seconds before them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "30 2 * * MON-FRI")]
    cron: Option<String>,
    /// The zone of `cron`.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<String>,
    /// Or again and again, after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "15m")]
    every: Option<String>,
    /// The first tick of `every`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    starting_at: Option<Timestamp>,
    /// Or once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    at: Option<Timestamp>,
    /// When it is due, in words.
    #[schema(example = "at 02:30 on weekdays, Europe/Berlin")]
    words: String,
    /// What happens to a tick while the run before has not ended: `skip`, `queue`, `cancel` or `allow`.
    overlap: &'static str,
    /// What becomes of ticks that were missed: `skip`, `latest` or `all`.
    missed: &'static str,
    /// How old those may be that are submitted where `missed` is `all`.
    missed_window: String,
    /// `active`, `paused`, or `finished`: it will not be due again.
    state: &'static str,
    /// Why it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Whose its jobs are: the public part of the key that made it, or changed its template last.
    #[schema(value_type = String)]
    submits_as: Name,
    /// The next ticks.
    #[schema(value_type = Vec<String>)]
    next_runs: Vec<Timestamp>,
    /// The last tick that became a job.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    last_tick_at: Option<Timestamp>,
    /// That job. All of them: `GET /v1/jobs?schedule=…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    last_job: Option<JobId>,
    /// Its newest jobs, the newest last; as many as `runs` asks for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    last_runs: Vec<RunView>,
    /// What became of its ticks.
    ticks: TickCounts,
    /// Why a tick came to nothing, or has not come to anything yet; gone once a tick has become a job again.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<TickError>,
    /// The newest backfill.
    #[serde(skip_serializing_if = "Option::is_none")]
    backfill: Option<BackfillView>,
    /// The job that it submits. Lists do not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    template: Option<Box<RawValue>>,
    /// Grows with every change.
    version: i64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

/// A job of a schedule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScheduleRun)]
pub(crate) struct RunView {
    /// The job.
    #[schema(value_type = String, format = "uuid")]
    job_id: JobId,
    /// The moment that it stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    tick: Option<Timestamp>,
    /// When it was submitted.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// `live` while it has not ended, else `succeeded`, `dead` or `cancelled`.
    #[schema(example = "succeeded")]
    state: &'static str,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
    /// From its submit to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<i64>,
    /// What its calls have cost, in US dollars; `null` while any price is unknown.
    cost_usd: Option<String>,
}

impl From<Member> for RunView {
    fn from(member: Member) -> Self {
        let Member { id, standing, accepted_at, finished_at, tags, cost } = member;
        Self {
            job_id: id,
            tick: tags.iter().find_map(|tag| tag.strip_prefix(TICK_TAG)?.parse().ok()),
            at: accepted_at,
            state: match standing {
                Standing::Live => "live",
                Standing::Succeeded => "succeeded",
                Standing::Dead => "dead",
                Standing::Cancelled => "cancelled",
            },
            finished_at,
            duration_ms: finished_at.map(|finished_at| finished_at.since_ms(accepted_at)),
            cost_usd: cost.map(|cost| cost.to_string()),
        }
    }
}

/// Ticks since the schedule was made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TickCounts {
    /// Became jobs.
    submitted: u64,
    /// Were let go because the run before had not ended.
    overlapped: u64,
    /// Were let go because nobody could submit them in time.
    missed: u64,
    /// Were refused as a submit would have been.
    refused: u64,
}

/// Why a tick is no job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TickError {
    /// When that was found.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// The tick.
    #[schema(value_type = String, format = DateTime)]
    tick: Timestamp,
    /// The name of the problem, as a submit is told it.
    #[schema(example = "too-dear")]
    code: String,
    /// What is wrong.
    detail: String,
    /// Whether the tick is tried again until it is missed.
    retries: bool,
}

/// Ticks of the past that somebody ordered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Backfill)]
pub(crate) struct BackfillView {
    /// From this moment on.
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    /// Up to and with this one.
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    /// How many ticks there are.
    ticks: u64,
    /// Became jobs.
    submitted: u64,
    /// Were refused.
    refused: u64,
    /// `running`, or `ended`.
    state: &'static str,
    /// The key that ordered it, for whom its jobs are submitted.
    #[schema(value_type = String)]
    asked_by: Name,
    /// When it was ordered.
    #[schema(value_type = String, format = DateTime)]
    began_at: Timestamp,
    /// When it was over, or ended by somebody.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
}

impl From<Backfill> for BackfillView {
    fn from(backfill: Backfill) -> Self {
        let Backfill { from, to, ticks, submitted, refused, asked_by, began_at, finished_at, .. } = backfill;
        let state = if finished_at.is_some() { "ended" } else { "running" };
        Self { from, to, ticks, submitted, refused, state, asked_by, began_at, finished_at }
    }
}

impl ScheduleView {
    /// Without its template.
    pub(super) fn brief(schedule: Schedule, now: Timestamp) -> Self {
        let Schedule { id, tenant, name, key_id, settings, progress, version, created_at, .. } = schedule;
        let ticks = settings.when.ticks();
        let behind = progress.cursor.max(now);
        let next_runs: Vec<Timestamp> = match &ticks {
            Ok(ticks) if !settings.paused => ticks.between(behind, Timestamp(i64::MAX)).take(NEXT_SHOWN).collect(),
            _ => vec![],
        };
        let is_over = ticks.is_ok_and(|ticks| ticks.after(progress.cursor).is_none());
        let state = match (settings.paused, is_over) {
            (_, true) => "finished",
            (true, false) => "paused",
            (false, false) => "active",
        };
        let words = settings.when.words();
        let (mut cron, mut time_zone, mut every, mut starting_at, mut once) = (None, None, None, None, None);
        match settings.when {
            When::Cron { cron: text, time_zone: zone } => (cron, time_zone) = (Some(text), Some(zone)),
            When::Every { every_ms, from } => (every, starting_at) = (Some(shown(every_ms)), Some(from)),
            When::Once { at } => once = Some(at),
        }
        let Counts { submitted, overlapped, missed, refused } = progress.counts;
        let last_error = progress.error.map(|trouble| {
            let Trouble { at, tick, code, detail, retries } = trouble;
            TickError { at, tick, code, detail, retries }
        });
        Self {
            id,
            tenant,
            name,
            cron,
            time_zone,
            every,
            starting_at,
            at: once,
            words,
            overlap: settings.overlap.as_str(),
            missed: settings.missed.policy.as_str(),
            missed_window: shown(settings.missed.window_ms),
            state,
            reason: settings.reason,
            description: settings.description,
            submits_as: key_id,
            next_runs,
            last_tick_at: progress.last_tick,
            last_job: progress.last_job,
            last_runs: vec![],
            ticks: TickCounts { submitted, overlapped, missed, refused },
            last_error,
            backfill: progress.backfill.map(BackfillView::from),
            template: None,
            version,
            created_at,
        }
    }

    /// With its newest jobs.
    pub(super) fn with_runs(self, newest_first: Vec<Member>) -> Self {
        Self { last_runs: newest_first.into_iter().rev().map(RunView::from).collect(), ..self }
    }

    /// With its template.
    pub(super) fn whole(schedule: Schedule, now: Timestamp) -> Self {
        let template = RawValue::from_string(schedule.template.clone()).ok();
        Self { template, ..Self::brief(schedule, now) }
    }
}
