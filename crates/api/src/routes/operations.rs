//! Operations: one thing done to many jobs, in the background, at a rate.

use std::{str::FromStr, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{FromRequestParts, State},
    http::{HeaderMap, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use queue_core::{
    filter::{Filter, TEXT_MAX_BYTES},
    ids::{Name, OperationId},
    operations::{self, Aborted, Action, Begun, Operation, OperationState, Order, RATE_DEFAULT_PER_S, RATE_MAX_PER_S},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    auth::Caller,
    body,
    fields::Fields,
    json,
    params::{self, Params},
    problem::{Cause, Document, Problem},
    routes::{archives::NO_OBJECTS, jobs::room},
    settings::REASON_MAX_BYTES,
};

/// Largest body of an order: the longest filter, escaped, and the rest.
const BODY_MAX_BYTES: usize = 32 * 1024;
/// How long the answer to a dry run waits for its counts: some hundred thousand jobs are counted by then.
const DRY_RUN_WAIT: Duration = Duration::from_secs(10);
/// Time between two looks at an operation that somebody waits for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Most jobs that an order may name as its end: beyond it, the end is none.
const JOBS_MAX: u64 = 1_000_000_000;

/// What can be done to many jobs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)] // for the document
pub(crate) enum ActionWord {
    Redrive,
    Archive,
    Cancel,
    Delete,
    Drain,
    Reclaim,
}

/// How an operation stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)] // for the document
pub(crate) enum OperationStateWord {
    Running,
    Done,
    Aborted,
    Capped,
    Failed,
}

/// An operation as it is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewOperation)]
#[allow(dead_code)] // the schema of what `read` takes apart by hand
pub(crate) struct OperationRequest {
    /// `redrive`, `archive` and `drain` are about dead letters, `cancel` about jobs that have not ended, `delete` about jobs that have,
    /// `reclaim` about jobs that workers hold: they get a new epoch and go to others.
    action: ActionWord,
    /// Which jobs. Relative times are read now, as moments. An empty filter is refused.
    #[schema(example = "queue = llm and error.class = server and ended_age > 1h", max_length = 8192)]
    filter: String,
    /// Where a `drain` puts the letters: `redrive`, `archive` or `delete`.
    to: Option<ActionWord>,
    /// Only count, and estimate what it would cost; the answer waits for that for up to 10 s.
    #[schema(default = false)]
    dry_run: Option<bool>,
    /// Jobs a second.
    #[schema(default = 500, minimum = 1, maximum = 10_000)]
    rate_per_s: Option<u32>,
    /// End after so many jobs, the newest ones.
    #[schema(minimum = 1)]
    max_jobs: Option<u64>,
    /// End (`capped`) before more than this is expected to be spent again, in US dollars; jobs whose cost nobody can estimate
    /// are left out.
    #[schema(example = "2.50")]
    max_cost_usd: Option<String>,
    /// Of a `reclaim`: also what living workers hold.
    #[schema(default = false)]
    force: Option<bool>,
    /// For the record; cancelled jobs show it.
    #[schema(max_length = 500)]
    reason: Option<String>,
}

/// The fields that are read, in the order in which [`read`] takes them.
const KNOWN: [&str; 9] =
    ["action", "filter", "to", "dry_run", "rate_per_s", "max_jobs", "max_cost_usd", "force", "reason"];

/// An operation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Operation)]
pub(crate) struct OperationView {
    /// UUIDv7: sorts by time of acceptance.
    #[schema(value_type = String, format = "uuid")]
    id: OperationId,
    /// What is done to each job.
    #[schema(value_type = ActionWord)]
    action: Action,
    /// Where a drain puts the letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ActionWord>)]
    to: Option<Action>,
    /// Which jobs: with moments where it said ages.
    filter: String,
    /// The only queue that the filter means. One operation of an action runs at a time in each, and one over several.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    queue: Option<Name>,
    /// Whether it only counts.
    dry_run: bool,
    /// Jobs a second.
    rate_per_s: u32,
    /// It ends after so many jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_jobs: Option<u64>,
    /// It ends before more than this is expected to be spent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_cost_usd: Option<String>,
    /// Of a reclaim: whether what living workers hold is taken, too.
    force: bool,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// `running`; `done`; `aborted` by somebody; `capped` by its cost; `failed`, see `error`.
    #[schema(value_type = OperationStateWord)]
    state: OperationState,
    /// Jobs of the filter that were met.
    matched: u64,
    /// Jobs to which it was done; in a dry run 0.
    done: u64,
    /// Jobs that were left alone: they had moved on, a living worker held them, or their cost is unknown and there is a cap.
    skipped: u64,
    /// Jobs at which the journal failed.
    failed: u64,
    /// US dollars that the jobs are expected to cost again: for each the mean spend of a job of its queue, operation and
    /// model over the last seven days, or else what it has cost itself. Answers that were kept make the real cost lower.
    estimated_cost_usd: String,
    /// Jobs that this says nothing about.
    unestimated: u64,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The public part of the key that asked.
    #[schema(value_type = String)]
    asked_by: Name,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Timestamp,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
}

impl From<Operation> for OperationView {
    fn from(operation: Operation) -> Self {
        let Operation { id, order, state, counts, error, accepted_at, finished_at, .. } = operation;
        Self {
            id,
            action: order.action,
            to: order.goal,
            filter: order.filter,
            queue: order.queue,
            dry_run: order.dry_run,
            rate_per_s: order.rate_per_s,
            max_jobs: order.max_jobs,
            max_cost_usd: order.max_cost.map(|cost| cost.to_string()),
            force: order.force,
            reason: order.reason,
            state,
            matched: counts.matched,
            done: counts.done,
            skipped: counts.skipped,
            failed: counts.failed,
            estimated_cost_usd: counts.cost.to_string(),
            unestimated: counts.unestimated,
            error,
            asked_by: order.asked_by,
            accepted_at,
            finished_at,
        }
    }
}

/// A page of operations.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OperationPage {
    /// Newest first.
    operations: Vec<OperationView>,
    /// Give it as `cursor` to go on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Does one thing to many jobs, in the background. 202 means that it is kept and will be done, whoever dies.
#[utoipa::path(post, path = "/v1/operations", tag = "operations", security(("key" = [])), request_body = OperationRequest,
    responses(
    (status = 202, description = "it is kept", body = OperationView, headers(
        ("Location" = String, description = "the operation"))),
    (status = 409, description = "another one of the same action and queue has not ended", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn begin(
    State(app): State<Shared>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let body = body::json(&app, &headers, body, BODY_MAX_BYTES).await?;
    let now = app.now();
    let order = read(json::utf8(&body)?, caller.key_id, now)?;
    if order.effect() == Action::Archive && app.api.stores.objects.is_none() {
        let field = if order.action == Action::Drain { "/to" } else { "/action" };
        return Err(Problem::new(Cause::NoObjects, NO_OBJECTS).at(field, "needs a place for objects"));
    }
    let begun = app.api.stores.operations.begin(OperationId::generate(), order, now).await?;
    let operation = match begun {
        Begun::New(operation) => operation,
        Begun::InTheWay(other) => return Err(in_the_way(&other)),
    };
    let operation = match operation.order.dry_run {
        true => until_ended(&app, operation.id, DRY_RUN_WAIT).await?,
        false => operation,
    };
    let location = format!("/v1/operations/{}", operation.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(OperationView::from(operation))).into_response())
}

fn in_the_way(other: &Operation) -> Problem {
    let (action, id) = (other.order.action.as_str(), other.id);
    let queue = other.order.queue.as_ref().map_or("several queues".to_owned(), |queue| format!("the queue {queue}"));
    let detail =
        format!("operation {id} ({action}, {queue}) has not ended; wait for it, or DELETE /v1/operations/{id}");
    Problem::new(Cause::OperationRunning, detail)
}

fn read(text: &str, asked_by: Name, now: Timestamp) -> Result<Order, Problem> {
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let given = json::take_apart(text, &KNOWN, &mut fields.errors)?;
    let [action, filter, to, dry_run, rate_per_s, max_jobs, max_cost, force, reason] = given;
    for (name, raw) in [("action", action), ("filter", filter)] {
        if raw.is_none() {
            fields.wrong(name, "is required");
        }
    }
    let action = fields.parsed("action", action, read_action);
    let filter = fields.parsed("filter", filter, |text| read_filter(text, now));
    let goal = fields.parsed("to", to, read_goal);
    let dry_run = fields.boolean("dry_run", dry_run).unwrap_or(false);
    let rate_per_s = fields.integer("rate_per_s", rate_per_s, 1..=RATE_MAX_PER_S).unwrap_or(RATE_DEFAULT_PER_S);
    let max_jobs = fields.whole("max_jobs", max_jobs, 1..=JOBS_MAX);
    let max_cost = fields.parsed("max_cost_usd", max_cost, str::parse);
    let force = fields.boolean("force", force).unwrap_or(false);
    let reason = fields.label("reason", reason, REASON_MAX_BYTES);
    match (action, goal) {
        (Some(Action::Drain), None) if to.is_none() => {
            fields.wrong("to", "a drain says where to: redrive, archive or delete")
        }
        (Some(action), Some(_)) if action != Action::Drain => fields.wrong("to", "belongs to a drain"),
        _ => {}
    }
    if force && action.is_some_and(|action| action != Action::Reclaim) {
        fields.wrong("force", "belongs to a reclaim");
    }
    if let (Some(action), Some(filter)) = (action, &filter)
        && let Err(reason) = operations::fits(action, filter)
    {
        fields.wrong("filter", reason);
    }
    fields.finish()?;
    let (Some(action), Some(filter)) = (action, filter) else {
        return Err(Problem::new(Cause::Internal, "an operation passed its checks without action and filter"));
    };
    Ok(Order {
        action,
        goal,
        queue: operations::only_queue(&filter),
        filter: filter.to_string(),
        dry_run,
        rate_per_s,
        max_jobs,
        max_cost,
        force,
        reason,
        asked_by,
    })
}

/// Where a drain puts letters.
const GOALS: [Action; 3] = [Action::Redrive, Action::Archive, Action::Delete];

fn read_action(text: &str) -> Result<Action, String> {
    one_of(&Action::ALL, text)
}

fn read_goal(text: &str) -> Result<Action, String> {
    one_of(&GOALS, text)
}

fn one_of(known: &[Action], text: &str) -> Result<Action, String> {
    let words = known.iter().map(|action| action.as_str()).collect::<Vec<_>>().join(", ");
    match Action::parse(text).filter(|action| known.contains(action)) {
        Some(action) => Ok(action),
        None => Err(format!("`{text}` is none of {words}")),
    }
}

/// The filter as it is kept: what it means must be readable from what it is printed as.
fn read_filter(text: &str, now: Timestamp) -> Result<Filter, String> {
    let filter = Filter::parse(text, now).map_err(|error| error.to_string())?;
    let frozen = filter.to_string();
    if frozen.len() > TEXT_MAX_BYTES {
        return Err(format!(
            "is too long once its ages are moments: {} bytes, {TEXT_MAX_BYTES} are allowed",
            frozen.len()
        ));
    }
    match Filter::parse(&frozen, now) {
        Ok(again) if again == filter => Ok(filter),
        _ => Err(format!("cannot be kept as it is printed: {frozen}")),
    }
}

/// Lists operations, newest first. Those that ended more than 90 days ago are forgotten.
#[utoipa::path(get, path = "/v1/operations", tag = "operations", security(("key" = [])), params(
    ("running" = Option<bool>, Query, description = "`true`: only those that have not ended"),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ("limit" = Option<u32>, Query, description = "1 to 500, default 50"),
), responses((status = 200, body = OperationPage), (status = 422, body = Document)))]
pub(crate) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Json<OperationPage>, Problem> {
    let mut params = Params::of(&uri, &["running", "cursor", "limit"])?;
    let running = params.boolean("running");
    let behind = params.parsed("cursor", |text| {
        OperationId::from_str(text).map_err(|_| "is not a cursor; give the `next_cursor` of the page before".to_owned())
    });
    let limit = params.limit();
    params.finish()?;
    let stores = &app.api.stores;
    // One more than asked tells whether there is another page.
    let mut found = stores.operations.operations(behind, running.unwrap_or(false), limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(Json(OperationPage { operations: found.into_iter().map(OperationView::from).collect(), next_cursor }))
}

/// Shows an operation and how far it is; with `wait`, once it has ended or the time is over.
#[utoipa::path(get, path = "/v1/operations/{id}", tag = "operations", security(("key" = [])), params(
    ("id" = String, Path, description = "the operation"),
    ("wait" = Option<String>, Query, description = "wait for its end, e.g. `30s`; at most 60 s"),
), responses((status = 200, body = OperationView), (status = 404, body = Document)))]
pub(crate) async fn get(
    State(app): State<Shared>,
    OperationPath(id): OperationPath,
    uri: Uri,
) -> Result<Json<OperationView>, Problem> {
    let mut params = Params::of(&uri, &["wait"])?;
    let wait = params.wait();
    params.finish()?;
    let operation = match wait {
        Some(wait) => until_ended(&app, id, wait).await?,
        None => row(&app, id).await?,
    };
    Ok(Json(operation.into()))
}

async fn row(app: &App, id: OperationId) -> Result<Operation, Problem> {
    app.api.stores.operations.operation(id).await?.ok_or_else(|| missing(id))
}

fn missing(id: OperationId) -> Problem {
    Problem::new(Cause::NotFound, format!("there is no operation {id}"))
}

async fn until_ended(app: &App, id: OperationId, wait: Duration) -> Result<Operation, Problem> {
    let ends = Instant::now() + wait;
    let _room = room(app)?;
    loop {
        let operation = row(app, id).await?;
        if operation.state != OperationState::Running || Instant::now() >= ends || app.shutdown.is_cancelled() {
            return Ok(operation);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Aborts an operation. Nothing is done for it once this is answered; what was done stays.
#[utoipa::path(delete, path = "/v1/operations/{id}", tag = "operations", security(("key" = [])), params(
    ("id" = String, Path, description = "the operation"),
), responses(
    (status = 200, description = "it has ended now", body = OperationView),
    (status = 404, body = Document),
    (status = 409, description = "it had ended before", body = Document),
))]
pub(crate) async fn abort(
    State(app): State<Shared>,
    OperationPath(id): OperationPath,
    uri: Uri,
) -> Result<Json<OperationView>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    match app.api.stores.operations.abort(id, app.now()).await? {
        Aborted::Done(operation) => Ok(Json(operation.into())),
        Aborted::Ended(operation) => {
            let detail = format!("operation {id} has ended: {}", operation.state.as_str());
            Err(Problem::new(Cause::OperationEnded, detail))
        }
        Aborted::Missing => Err(missing(id)),
    }
}

/// The operation that a path names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OperationPath(OperationId);

impl<S: Send + Sync> FromRequestParts<S> for OperationPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let reason = "is not the id of an operation, which is a UUID";
        let id = params::id_of(parts, state, "no operation has this id", reason).await?;
        Ok(Self(OperationId(id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_790_000_000_000);

    fn refused(text: &str) -> String {
        let problem = read(text, "k".into(), NOW).unwrap_err().document(None);
        problem
            .errors
            .into_iter()
            .map(|error| format!("{} {}", error.pointer, error.reason))
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn an_order_is_read_and_its_ages_become_moments() {
        let text =
            r#"{"action":"redrive","filter":"queue = llm and ended_age > 1h","rate_per_s":2000,"max_cost_usd":"1.5"}"#;
        let order = read(text, "k".into(), NOW).unwrap();
        assert_eq!(order.filter, "queue = llm and finished_at < 2026-09-21T13:13:20.000Z");
        assert_eq!((order.queue, order.rate_per_s), (Some("llm".into()), 2_000));
        assert_eq!(order.max_cost.map(|cost| cost.0), Some(1_500_000_000));
        let drain = read(r#"{"action":"drain","to":"delete","filter":"state = dead"}"#, "k".into(), NOW).unwrap();
        assert_eq!((drain.effect(), drain.queue, drain.rate_per_s), (Action::Delete, None, RATE_DEFAULT_PER_S));
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_field() {
        for (text, expected) in [
            (r#"{"action":"redrive"}"#, "/filter is required"),
            (r#"{"action":"redrive","filter":""}"#, "/filter"),
            (r#"{"action":"redrive","filter":"   "}"#, "/filter"),
            (r#"{"filter":"state = dead"}"#, "/action is required"),
            (
                r#"{"action":"explode","filter":"state = dead"}"#,
                "/action `explode` is none of redrive, archive, cancel",
            ),
            (r#"{"action":"redrive","filter":"state = running"}"#, "/filter redrive is done to jobs that are dead"),
            (r#"{"action":"redrive","filter":"colour = red"}"#, "/filter"),
            (r#"{"action":"drain","filter":"state = dead"}"#, "/to a drain says where to"),
            (r#"{"action":"drain","filter":"state = dead","to":"cancel"}"#, "/to `cancel` is none of"),
            (r#"{"action":"redrive","filter":"state = dead","to":"delete"}"#, "/to belongs to a drain"),
            (r#"{"action":"redrive","filter":"state = dead","force":true}"#, "/force belongs to a reclaim"),
            (r#"{"action":"redrive","filter":"state = dead","rate_per_s":0}"#, "/rate_per_s"),
            (r#"{"action":"redrive","filter":"state = dead","rate":5}"#, "/rate"),
        ] {
            assert!(refused(text).contains(expected), "{text}: {}", refused(text));
        }
    }
}
