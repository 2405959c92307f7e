//! `GET /v1/jobs/{id}/why`: what a job waits for, from every part that could hold it.

use axum::{Json, extract::State, http::Uri};
use queue_core::{
    budget::Scope,
    dispatcher::{HORIZON_MS, Place, Wait},
    error::ErrorClass,
    ids::JobId,
    job::Job,
    journal::Maintenance,
    state::{self, Standing, State as JobState},
    time::Timestamp,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    auth::Caller,
    params::{JobPath, Params},
    problem::{Cause, Document, Problem},
    routes::budgets,
    view,
};

/// What a job waits for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Why {
    /// The job.
    #[schema(value_type = String, format = "uuid")]
    id: JobId,
    /// Where it is in its life.
    #[schema(value_type = view::StateWord)]
    state: JobState,
    /// In one sentence.
    summary: String,
    /// Everything that holds it; empty when it runs or has ended.
    waits: Vec<Reason>,
}

/// One thing that a job waits for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reason {
    /// `maintenance`, `delayed`, `budget`, `queue_paused`, `tenant_paused`, `target_paused`, `target_parked`, `target_tried`, `queue_concurrency`,
    /// `target_concurrency`, `concurrency_key`, `credential`, `other_isolated`, `no_worker`, `turn` or `hand_over`.
    waits_for: &'static str,
    /// For people.
    message: String,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Why someone set it so.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The target.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// What is spent of the budget, in US dollars or tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    spent: Option<String>,
    /// What calls under way have reserved of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved: Option<String>,
    /// The budget: `all`, `tenant:<name>` or `key:<id>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<String>,
    /// What is left of the budget, in millionths: the tightest one is told.
    #[serde(skip)]
    left_ppm: i64,
    /// The concurrency key.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency_key: Option<String>,
    /// Jobs of the key that come before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    ahead_in_key: Option<u64>,
    /// The limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    /// Jobs before it in its own lane.
    #[serde(skip_serializing_if = "Option::is_none")]
    ahead_in_lane: Option<u64>,
    /// Lanes that take turns with its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    lanes: Option<u64>,
}

impl Reason {
    fn new(waits_for: &'static str, message: impl Into<String>) -> Self {
        Self {
            waits_for,
            message: message.into(),
            until: None,
            reason: None,
            target: None,
            spent: None,
            reserved: None,
            budget: None,
            left_ppm: 0,
            concurrency_key: None,
            ahead_in_key: None,
            limit: None,
            ahead_in_lane: None,
            lanes: None,
        }
    }

    /// A limit of a budget that has no room: `limit`, `spent` and `reserved` in words, `left_ppm` of it.
    pub(crate) fn budget(
        (scope, what): (&Scope, String),
        (spent, reserved): (String, String),
        left_ppm: i64,
        until: Timestamp,
    ) -> Self {
        let message = format!("{what} has no room: {spent} spent and {reserved} reserved, until {until} or a raise");
        Self {
            until: Some(until),
            spent: Some(spent),
            reserved: Some(reserved),
            budget: Some(scope.to_string()),
            left_ppm,
            ..Self::new("budget", message)
        }
    }

    fn maintenance(Maintenance { since, reason }: Maintenance) -> Self {
        Self {
            reason,
            ..Self::new("maintenance", format!("nothing begins: the installation is in maintenance since {since}"))
        }
    }

    /// For those who may not know what all tenants together spend.
    fn without_amounts(self) -> Self {
        let until = self.until;
        let message = format!(
            "the budget of the whole installation has no room, {}",
            ending(until).replace("someone resumes it", "a raise")
        );
        Self { until, budget: self.budget, left_ppm: self.left_ppm, ..Self::new("budget", message) }
    }

    fn delayed(until: Timestamp) -> Self {
        Self { until: Some(until), ..Self::new("delayed", format!("it is due at {until}")) }
    }
}

/// What the reason of a lane begins with that waits for a key.
const KEYLESS: &str = "credential: ";

fn ending(until: Option<Timestamp>) -> String {
    until.map_or_else(|| "until someone resumes it".to_owned(), |until| format!("until {until}"))
}

impl From<Wait> for Reason {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Delayed { until } => Self::delayed(until),
            Wait::QueuePaused { until, reason } => {
                let end = ending(until);
                Self { until, reason, ..Self::new("queue_paused", format!("its queue is paused {end}")) }
            }
            Wait::TenantPaused { until, reason } => {
                let end = ending(until);
                Self { until, reason, ..Self::new("tenant_paused", format!("its tenant is paused {end}")) }
            }
            Wait::TenantParked { until, reason } => {
                Self { until: Some(until), reason: Some(reason.clone()), ..Self::new("budget", reason) }
            }
            Wait::TargetPaused { target, until, reason } => Self {
                until,
                reason: Some(reason),
                ..Self::new("target_paused", format!("{target} is held by an operator {}", ending(until)))
            }
            .of(target),
            Wait::TargetTried { target, reason } => Self {
                reason: Some(reason),
                ..Self::new("target_tried", format!("one job is finding out whether {target} works again"))
            }
            .of(target),
            // Its tenant has no key that can be used: the reason says what to do.
            Wait::TargetParked { target, until, reason } if reason.starts_with(KEYLESS) => {
                let message = reason.trim_start_matches(KEYLESS).to_owned();
                Self { until: Some(until), reason: Some(reason), ..Self::new("credential", message) }.of(target)
            }
            Wait::TargetParked { target, until, reason } => Self {
                until: Some(until),
                reason: Some(reason.clone()),
                ..Self::new("target_parked", format!("{target} is parked until {until}: {reason}"))
            }
            .of(target),
            Wait::QueueConcurrency { limit } => Self {
                limit: Some(limit),
                ..Self::new("queue_concurrency", format!("{limit} jobs of its queue run, as many as may"))
            },
            Wait::TargetConcurrency { target, limit } => Self {
                limit: Some(limit),
                ..Self::new("target_concurrency", format!("{limit} jobs of {target} run, as many as may"))
            }
            .of(target),
            Wait::ConcurrencyKey { key, limit, ahead } => Self {
                limit: Some(limit),
                ahead_in_key: Some(ahead),
                ..Self::new(
                    "concurrency_key",
                    format!(
                        "at most {limit} of the key {key:?} run at once; {ahead} waiting jobs of it are before this one"
                    ),
                )
            }
            .keyed(key),
            Wait::OtherIsolated => Self::new(
                "other_isolated",
                "workers died with it and with others, and such jobs run one at a time in a process: another one is running",
            ),
            Wait::NoWorker => Self::new("no_worker", "no worker is running"),
            Wait::Turn { ahead_in_lane, lanes } => Self {
                ahead_in_lane: Some(ahead_in_lane),
                lanes: Some(lanes),
                ..Self::new("turn", format!("{ahead_in_lane} jobs of its lane are before it; {lanes} lanes take turns"))
            },
        }
    }
}

impl Reason {
    fn of(mut self, target: String) -> Self {
        self.target = Some(target);
        self
    }

    fn keyed(mut self, key: String) -> Self {
        self.concurrency_key = Some(key);
        self
    }
}

/// Says what a job waits for.
#[utoipa::path(get, path = "/v1/jobs/{id}/why", tag = "jobs", security(("key" = [])), params(
    ("id" = String, Path, description = "the job"),
), responses((status = 200, body = Why), (status = 404, body = Document)))]
pub(crate) async fn why(
    State(app): State<Shared>,
    caller: Caller,
    JobPath(id): JobPath,
    uri: Uri,
) -> Result<Json<Why>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let job = view::row(&app, &caller, id).await?;
    let now = app.now();
    let places = app.api.stores.dispatcher.locate(&[id]).await;
    let place = places.map_err(unavailable)?.pop().unwrap_or(Place::Unknown);
    let (state, since) = state::of(&job, &place, now);
    let maintenance = app.standing.now(&*app.api.stores.orders).await?;
    let waits: Vec<Reason> = match (job.standing, state, &place) {
        (Standing::Live, JobState::Running, _) => Vec::new(),
        (Standing::Live, _, _) if maintenance.is_some() => maintenance.into_iter().map(Reason::maintenance).collect(),
        (Standing::Live, _, Place::Unknown) => {
            let mut waits = vec![not_known(job.run_at, now)];
            name_budget(&app, &caller, &job, &mut waits).await?;
            waits
        }
        (Standing::Live, _, _) => explain(&app, &caller, &job).await?,
        _ => Vec::new(),
    };
    let mut summary = match (state, since) {
        (JobState::Running, Some(since)) => format!("it runs since {since}"),
        (JobState::Running, None) => "a worker has claimed it and is about to run it".to_owned(),
        (JobState::Succeeded | JobState::Dead | JobState::Cancelled, _) => format!("it has ended: {}", state.as_str()),
        _ => waits.first().map_or_else(|| "it is on its way".to_owned(), |reason| reason.message.clone()),
    };
    if !job.standing.is_final()
        && let Some(error) = &job.error
    {
        summary.push_str(&format!("; attempt {} failed: {error}", job.attempts));
    }
    Ok(Json(Why { id, state, summary, waits }))
}

async fn explain(app: &App, caller: &Caller, job: &Job) -> Result<Vec<Reason>, Problem> {
    let waits = app.api.stores.dispatcher.explain(job.id).await.map_err(unavailable)?;
    let mut waits: Vec<Reason> = waits.into_iter().map(Reason::from).collect();
    name_budget(app, caller, job, &mut waits).await?;
    Ok(waits)
}

/// Says which budget a job waits for, how that stands now, and until when: its lanes sleep for a while at a time, and a job
/// that sleeps alone is due when the budget's period ends.
async fn name_budget(app: &App, caller: &Caller, job: &Job, waits: &mut Vec<Reason>) -> Result<(), Problem> {
    let sleeps = waits.iter().any(|wait| wait.waits_for == "budget");
    let refused = job.error.as_ref().filter(|error| error.class == ErrorClass::Budget);
    let is_delayed = waits.iter().any(|wait| wait.waits_for == "delayed");
    if !(sleeps || is_delayed && refused.is_some()) {
        return Ok(());
    }
    app.api.budgets.freshen().await?;
    let mut tight: Option<Reason> = None;
    for (scope, budget) in app.api.budgets.applies(&job.tenant, job.key_id.as_ref()).0 {
        for line in budgets::lines(app, &scope, &budget.value).await? {
            let mut next = line.reason(&scope);
            if scope == Scope::All && caller.bound().is_some() {
                next = next.without_amounts();
            }
            if tight.as_ref().is_none_or(|best| next.left_ppm < best.left_ppm) {
                tight = Some(next);
            }
        }
    }
    let Some(tight) = tight else { return Ok(()) };
    waits.retain(|wait| wait.waits_for != "budget" && !(is_delayed && wait.waits_for == "delayed"));
    waits.insert(0, tight);
    Ok(())
}

/// A live job that the dispatcher does not hold: due later than it looks ahead, or on its way.
fn not_known(run_at: Timestamp, now: Timestamp) -> Reason {
    if run_at > now.plus_ms(HORIZON_MS) {
        return Reason::delayed(run_at);
    }
    Reason::new("hand_over", "it is committed and the dispatcher does not hold it yet; the reconciler hands it over")
}

fn unavailable(error: queue_core::dispatcher::DispatchError) -> Problem {
    Problem::new(Cause::Unavailable, error.to_string()).retry_after(1)
}
