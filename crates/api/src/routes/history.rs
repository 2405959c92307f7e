//! `GET /v1/queues/metrics/history`: how the queues stood within the last hour.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::Uri};
use queue_core::time::{Timestamp, parse_duration};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::Shared,
    history::{EVERY, KEPT, Point, Wish},
    params::Params,
    problem::{Document, Problem},
    shape,
};

/// Longest step: an hour has six of them.
const STEP_MAX_S: u64 = 600;

/// How the queues stood.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QueueHistory)]
pub(crate) struct HistoryView {
    /// Since when this API process watches; what was before it has not seen. Absent before its first look.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    watched_since: Option<Timestamp>,
    /// From when on points are told.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// Seconds between two points. One may be missing, where a store could not be asked.
    step_seconds: u64,
    /// Of the queue that was asked for, or of all together; oldest first.
    points: Vec<Point>,
    /// Of each queue, with `each=true`; of the 256 with the most jobs where there are more.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    queues: BTreeMap<String, Vec<Point>>,
}

/// Shows how the queues stood within the last hour, as this API process has seen them every ten seconds. What was done between two
/// points is the difference of their counts: throughput is that of `completed` by the time between them, the error rate that of
/// `died` by those of `died` and `completed`.
#[utoipa::path(get, path = "/v1/queues/metrics/history", tag = "queues", security(("key" = [])), params(
    ("since" = Option<String>, Query, description = "RFC 3339, or a duration back; `1h` when absent, and at most"),
    ("step" = Option<String>, Query, description = "time between two points, `10s` (when absent) to `10m`"),
    ("queue" = Option<String>, Query, description = "of this queue alone"),
    ("each" = Option<bool>, Query, description = "`true`: also of each queue"),
), responses((status = 200, body = HistoryView), (status = 422, body = Document)))]
pub(crate) async fn history(State(app): State<Shared>, uri: Uri) -> Result<Json<HistoryView>, Problem> {
    let mut params = Params::of(&uri, &["since", "step", "queue", "each"])?;
    let now = app.now();
    let oldest = now.plus_ms(-i64::try_from(KEPT.as_millis()).unwrap_or_default());
    let since = params.past("since", now).unwrap_or(oldest).max(oldest);
    let step_seconds = params.parsed("step", read_step).unwrap_or(EVERY.as_secs());
    let queue = params.parsed("queue", shape::check_queue);
    let each = params.boolean("each");
    params.finish()?;
    let step_ms = i64::try_from(step_seconds * 1_000).unwrap_or(i64::MAX);
    let told = app.history.tell(&Wish { since, step_ms, queue, each: each.unwrap_or(false) });
    Ok(Json(HistoryView {
        watched_since: told.watched_since,
        since,
        step_seconds,
        points: told.points,
        queues: told.queues.into_iter().map(|(queue, points)| (queue.to_string(), points)).collect(),
    }))
}

fn read_step(text: &str) -> Result<u64, String> {
    let step = parse_duration(text)?;
    let seconds = Some(step.as_secs()).filter(|seconds| (EVERY.as_secs()..=STEP_MAX_S).contains(seconds));
    seconds.ok_or_else(|| "takes 10s to 10m".to_owned())
}
