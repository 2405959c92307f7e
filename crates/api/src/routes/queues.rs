//! Queues: their settings and their numbers.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use queue_core::{
    dispatcher::{QueueDepth, Setting},
    ids::Name,
    journal::{QueueSettings, QueueTotals, Versioned},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    audit, body,
    fields::Fields,
    json,
    params::{Params, Segment},
    problem::{Cause, Document, Problem},
    settings::{Pause, check_tag, is_value, tag_of},
    shape, view,
};

/// Jobs that one worker pod is expected to hold at once: what `desired_workers` divides by. The work is waiting for
/// providers, so a process of the default 50 slots is never short of CPU.
const JOBS_PER_WORKER: u64 = 50;
/// Largest body of a change.
const BODY_MAX_BYTES: usize = 16 * 1024;
/// Shortest time for which a queue may keep its settled jobs: it is looked through once a day.
const RETENTION_LEAST: Duration = Duration::from_secs(60 * 60);
/// Most jobs of a queue that may be allowed to run at once: beyond it, the limit is none.
const CONCURRENCY_MAX: u32 = 1_000_000;

/// Numbers of a queue.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct QueueMetrics {
    /// Claimable now.
    pub(crate) waiting: u64,
    /// Held by workers.
    pub(crate) active: u64,
    /// Due later, near or far.
    pub(crate) scheduled: u64,
    /// Due, but of a paused queue or a parked target, or behind others of its concurrency key.
    pub(crate) parked: u64,
    /// Accepted since the queue exists.
    pub(crate) accepted: u64,
    /// Succeeded since the queue exists.
    pub(crate) completed: u64,
    /// Cancelled since the queue exists.
    pub(crate) cancelled: u64,
    /// Became dead letters since the queue exists.
    pub(crate) died: u64,
    /// Dead letters now.
    pub(crate) failed: u64,
    /// How long the oldest claimable job has waited; 0 when none does.
    pub(crate) oldest_ready_seconds: f64,
    /// Worker processes for what waits and runs, at 50 jobs each; 0 when nothing does.
    pub(crate) desired_workers: u64,
}

/// Numbers of all queues.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AllMetrics {
    /// By queue.
    queues: BTreeMap<String, QueueMetrics>,
}

/// A queue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Queue)]
pub(crate) struct QueueView {
    /// Its name.
    queue: String,
    /// Whether claims skip it now.
    paused: bool,
    /// When the pause ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Why it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Whether new jobs are refused (409), so that it runs empty.
    draining: bool,
    /// Jobs of it that may run at once, over all workers; any number when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    /// Jobs of one tenant with the same `concurrency_key` that may run at once.
    #[schema(example = 1)]
    key_concurrency: u32,
    /// Longest time of one attempt of a job that names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "5m")]
    timeout: Option<String>,
    /// How long its settled jobs are kept with their results; as all are when absent. A longer time keeps whole days for its sake.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "7d")]
    retention: Option<String>,
    /// Grows with every change of the settings; 0 before the first.
    version: i64,
    /// How many jobs are in which state, and how old the oldest claimable one is.
    pub(super) metrics: QueueMetrics,
}

impl QueueView {
    fn new(queue: &Name, settings: Versioned<QueueSettings>, metrics: QueueMetrics, now: Timestamp) -> Self {
        let Versioned { version, value } = settings;
        // A pause that has ended by itself leaves its settings behind.
        let key_concurrency = value.key_limit();
        let paused = value.paused && value.paused_until.is_none_or(|until| until > now);
        Self {
            queue: queue.to_string(),
            paused,
            until: value.paused_until.filter(|_| paused),
            reason: value.reason.filter(|_| paused),
            draining: value.draining,
            concurrency: value.concurrency,
            key_concurrency,
            timeout: value.timeout_ms.map(view::duration_text),
            retention: value.retention_ms.map(view::kept_text),
            version,
            metrics,
        }
    }
}

/// All queues.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueueList {
    /// By name.
    queues: Vec<QueueView>,
}

/// Lists every queue that was ever named.
#[utoipa::path(get, path = "/v1/queues", tag = "queues", security(("key" = [])),
    responses((status = 200, body = QueueList)))]
pub(crate) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Json<QueueList>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let mut settings = app.api.stores.catalog.queues().await?;
    let now = app.now();
    let queues = numbers(&app).await?.into_iter().map(|(queue, metrics)| {
        let settings = settings.remove(&queue).unwrap_or_else(untouched);
        QueueView::new(&queue, settings, metrics, now)
    });
    Ok(Json(QueueList { queues: queues.collect() }))
}

/// Numbers of every queue, for autoscalers and people.
#[utoipa::path(get, path = "/v1/queues/metrics", tag = "queues", security(("key" = [])),
    responses((status = 200, body = AllMetrics)))]
pub(crate) async fn metrics(State(app): State<Shared>, uri: Uri) -> Result<Json<AllMetrics>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let queues = numbers(&app).await?.into_iter().map(|(queue, metrics)| (queue.to_string(), metrics)).collect();
    Ok(Json(AllMetrics { queues }))
}

/// Shows a queue: settings and numbers.
#[utoipa::path(get, path = "/v1/queues/{queue}", tag = "queues", security(("key" = [])), params(
    ("queue" = String, Path, description = "the queue"),
), responses((status = 200, body = QueueView), (status = 404, body = Document)))]
pub(crate) async fn get(State(app): State<Shared>, Segment(queue): Segment, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let queue = named(&queue)?;
    show(&app, &queue).await
}

async fn show(app: &App, queue: &Name) -> Result<Response, Problem> {
    let view = find(app, queue).await?;
    let tag = tag_of(view.version);
    Ok((StatusCode::OK, [(header::ETAG, tag)], Json(view)).into_response())
}

/// A queue that somebody has named.
pub(super) async fn find(app: &App, queue: &Name) -> Result<QueueView, Problem> {
    let settings = app.api.stores.catalog.queues().await?.remove(queue);
    let metrics = numbers(app).await?.remove(queue);
    if settings.is_none() && metrics.is_none() {
        let detail = format!("nobody has named the queue {queue} yet");
        return Err(Problem::new(Cause::NotFound, detail).at("/path/queue", "is not the name of a queue"));
    }
    Ok(QueueView::new(queue, settings.unwrap_or_else(untouched), metrics.unwrap_or_default(), app.now()))
}

fn named(text: &str) -> Result<Name, Problem> {
    shape::check_queue(text).map_err(|reason| Problem::field("/path/queue", reason))
}

fn untouched() -> Versioned<QueueSettings> {
    Versioned { version: 0, value: QueueSettings::default() }
}

/// A change to a queue's settings. What is absent stays, what is `null` is taken away.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `change` takes apart by hand
pub(crate) struct QueuePatch {
    /// Whether claims skip it. What runs goes on.
    paused: Option<bool>,
    /// When the pause ends by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
    /// Why it is paused, for those who ask `why`.
    #[schema(max_length = 500)]
    reason: Option<String>,
    /// Whether new jobs are refused, so that it runs empty. What waits and runs goes on.
    draining: Option<bool>,
    /// Jobs of it that may run at once, over all workers.
    #[schema(minimum = 1, maximum = 1_000_000)]
    concurrency: Option<u32>,
    /// Jobs of one tenant with the same `concurrency_key` that may run at once: 1 unless set.
    #[schema(minimum = 1, maximum = 1_000_000)]
    key_concurrency: Option<u32>,
    /// Longest time of one attempt of a job that names none, from `1s` to `24h`.
    #[schema(example = "5m")]
    timeout: Option<String>,
    /// How long its settled jobs are kept with their results, from `1h` to `3650d`.
    #[schema(example = "7d")]
    retention: Option<String>,
}

/// Pauses or resumes a queue, or sets its limits. A queue exists once it is named, also here.
#[utoipa::path(patch, path = "/v1/queues/{queue}", tag = "queues", security(("key" = [])), request_body = QueuePatch,
    params(
    ("queue" = String, Path, description = "the queue"),
    ("If-Match" = Option<String>, Header, description = "`ETag` of the queue: refused if it was changed since"),
), responses(
    (status = 200, body = QueueView),
    (status = 412, description = "it was changed since it was read", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn patch(
    State(app): State<Shared>,
    Segment(queue): Segment,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let queue = named(&queue)?;
    let body = body::json(&app, &headers, body, BODY_MAX_BYTES).await?;
    let task = {
        let app = app.clone();
        let queue = queue.clone();
        // In a task of its own: a caller that hangs up must not leave journal and dispatcher apart.
        audit::spawn(async move {
            let _one_at_a_time = app.settings_edits.lock().await;
            let held = app.api.stores.catalog.queues().await?.remove(&queue).unwrap_or_else(untouched);
            check_tag(&headers, held.version, "queue")?;
            audit::before(&held.value);
            let value = change(held.value, json::utf8(&body)?, app.now())?;
            let version = app.api.stores.catalog.set_queue(&queue, value.clone()).await?;
            app.policies.forget();
            let setting = Setting::Queue(queue.clone(), Versioned { version, value });
            if let Err(error) = app.api.stores.dispatcher.apply(setting).await {
                tracing::warn!(%error, %queue, "the dispatcher gets the queue's settings from the reconciler");
            }
            Ok::<_, Problem>(())
        })
    };
    task.await.map_err(|error| Problem::new(Cause::Internal, error.to_string()))??;
    show(&app, &queue).await
}

fn change(mut settings: QueueSettings, text: &str, now: Timestamp) -> Result<QueueSettings, Problem> {
    const KNOWN: [&str; 9] =
        ["paused", "until", "reason", "draining", "concurrency", "key_concurrency", "timeout", "rate", "retention"];
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let given = json::take_apart_with_null(text, &KNOWN, &mut fields.errors)?;
    if fields.errors.is_empty() && given.iter().all(Option::is_none) {
        return Err(Problem::field(
            "",
            format!("names nothing to change: give {}", [&KNOWN[..7], &KNOWN[8..]].concat().join(", ")),
        ));
    }
    let [paused, until, reason, draining, concurrency, key_concurrency, timeout, rate, retention] = given;
    let pause = Pause { on: settings.paused, until: settings.paused_until, reason: settings.reason };
    let pause = pause.change(&mut fields, [paused, until, reason], now);
    (settings.paused, settings.paused_until, settings.reason) = (pause.on, pause.until, pause.reason);
    settings.draining = fields.boolean("draining", draining).unwrap_or(settings.draining);
    if concurrency.is_some() {
        let given = concurrency.filter(|_| is_value(concurrency));
        settings.concurrency = fields.integer("concurrency", given, 1..=CONCURRENCY_MAX);
    }
    if key_concurrency.is_some() {
        let given = key_concurrency.filter(|_| is_value(key_concurrency));
        settings.key_concurrency = fields.integer("key_concurrency", given, 1..=CONCURRENCY_MAX);
    }
    if timeout.is_some() {
        settings.timeout_ms = fields.timeout_ms("timeout", timeout.filter(|_| is_value(timeout)));
    }
    fields.unsupported("rate", rate);
    if retention.is_some() {
        settings.retention_ms = fields.kept_ms("retention", retention.filter(|_| is_value(retention)), RETENTION_LEAST);
    }
    fields.finish()?;
    Ok(settings)
}

/// Numbers of every queue that anyone knows of.
pub(crate) async fn numbers(app: &App) -> Result<BTreeMap<Name, QueueMetrics>, Problem> {
    let stores = &app.api.stores;
    let (queues, totals, live, depths) = tokio::join!(
        stores.catalog.queues(),
        stores.reads.totals(),
        stores.reads.live_counts(),
        stores.dispatcher.depths()
    );
    let depths = depths.map_err(|error| Problem::new(Cause::Unavailable, error.to_string()).retry_after(1))?;
    let (queues, mut totals, mut live) = (queues?, totals?, live?);
    let mut depths: BTreeMap<Name, QueueDepth> =
        depths.into_iter().filter_map(|depth| Some((depth.queue.clone()?, depth))).collect();
    let mut names: Vec<Name> =
        queues.into_keys().chain(totals.keys().chain(live.keys()).chain(depths.keys()).cloned()).collect();
    names.sort_unstable();
    names.dedup();
    let now = app.now();
    let of = |name: Name| {
        let totals = totals.remove(&name).unwrap_or_default();
        let depth = depths.remove(&name).unwrap_or_default();
        let metrics = metrics_of(totals, live.remove(&name).unwrap_or(0), &depth, now);
        (name, metrics)
    };
    Ok(names.into_iter().map(of).collect())
}

fn metrics_of(totals: QueueTotals, live: u64, depth: &QueueDepth, now: Timestamp) -> QueueMetrics {
    let QueueDepth { waiting, active, scheduled, parked, .. } = *depth;
    // Jobs due beyond the dispatcher's horizon are in the journal only. The two are read a moment apart, so the
    // difference can be a few jobs off while many are moving; it is exact when they rest.
    let beyond = live.saturating_sub(waiting + active + scheduled + parked);
    QueueMetrics {
        waiting,
        active,
        scheduled: scheduled + beyond,
        parked,
        accepted: totals.accepted,
        completed: totals.succeeded,
        cancelled: totals.cancelled,
        died: totals.died,
        failed: totals.dead,
        oldest_ready_seconds: depth.oldest_ready_at.map_or(0.0, |at| now.since_ms(at) as f64 / 1_000.0),
        desired_workers: (waiting + active).div_ceil(JOBS_PER_WORKER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_jobs_count_as_scheduled_and_call_for_no_worker() {
        let depth = QueueDepth { waiting: 49, active: 2, scheduled: 1, parked: 3, ..QueueDepth::default() };
        let totals = QueueTotals { succeeded: 7, dead: 2, ..QueueTotals::default() };
        let metrics = metrics_of(totals, 60, &depth, Timestamp(0));
        assert_eq!((metrics.scheduled, metrics.desired_workers), (1 + 5, 2));
        assert_eq!((metrics.completed, metrics.failed), (7, 2));
    }

    #[test]
    fn a_pause_brings_its_own_end_and_reason() {
        let now = Timestamp(0);
        let paused =
            change(QueueSettings::default(), r#"{"paused":true,"reason":"deploy","concurrency":3}"#, now).unwrap();
        assert_eq!(paused.reason.as_deref(), Some("deploy"));
        let again = change(paused.clone(), r#"{"paused":true,"until":"1970-01-01T01:00:00Z"}"#, now).unwrap();
        assert_eq!((again.reason, again.paused_until), (None, Some(Timestamp(3_600_000))));
        let resumed = change(paused, r#"{"paused":false,"concurrency":null}"#, now).unwrap();
        assert_eq!(resumed, QueueSettings::default());
        assert!(change(QueueSettings::default(), r#"{"reason":"x"}"#, now).is_err());
        assert!(change(QueueSettings::default(), r#"{}"#, now).is_err());
    }
}
