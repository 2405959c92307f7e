//! One job: what it waits for, its life, what each attempt and each call came to, what it carries, and what can be done to it.

mod actions;
mod bodies;
pub(crate) mod copies;
mod fresh;
mod timeline;

use askama::Template;
use axum::{
    Router,
    extract::{Path, Query},
    http::HeaderMap,
    response::Response,
    routing::{get, post},
};
use serde::Deserialize;

use self::{
    bodies::{Body, Part},
    timeline::Timeline,
};
use super::jobs::{
    asked::Asked,
    row::{Failure, Job, Usage},
};
use crate::{
    Dashboard,
    client::{Refused, path},
    page::{Shell, with_problem},
    viewer::{Viewer, Visit},
    words,
};

/// Attempts and calls that a page lists, the newest ones: what an analysis of a thousand pieces did is behind the API's own list.
const LISTED_MAX: usize = 200;

/// The pages of a job.
pub(crate) fn routes() -> Router<Dashboard> {
    Router::new()
        .route("/dashboard/jobs/new", get(fresh::form).post(fresh::submit))
        .route("/dashboard/jobs/{id}", get(show))
        .route("/dashboard/jobs/{id}/events", get(events))
        .route("/dashboard/jobs/{id}/raw/{part}", get(bodies::raw))
        .route("/dashboard/jobs/{id}/cancel", post(actions::cancel))
        .route("/dashboard/jobs/{id}/change", post(actions::change))
        .route("/dashboard/jobs/{id}/redrive", post(actions::redrive))
        .route("/dashboard/jobs/{id}/operate", post(actions::operate))
}

/// An attempt as the API shows it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) epoch: i64,
    pub(crate) number: u32,
    pub(crate) outcome: String,
    #[serde(default)]
    pub(crate) worker: String,
    pub(crate) started_at: Option<String>,
    pub(crate) finished_at: String,
    pub(crate) error: Option<Failure>,
    #[serde(default)]
    pub(crate) calls: u64,
    #[serde(default)]
    pub(crate) usage: Usage,
    pub(crate) cost_usd: Option<String>,
    pub(crate) trace_id: Option<String>,
}

impl Attempt {
    /// How long its handler ran, in words.
    fn took(&self) -> String {
        let began = self.started_at.as_deref().and_then(words::ms_of);
        let took = began.zip(words::ms_of(&self.finished_at)).map(|(began, ended)| (ended - began).max(0));
        took.map(words::duration).unwrap_or_default()
    }

    /// How it ended, in the words of states.
    fn shown(&self) -> &str {
        match self.outcome.as_str() {
            "succeed" => "succeeded",
            "retry" => "failed",
            "release" => "released",
            "cancel" => "cancelled",
            outcome => outcome,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Attempts {
    attempts: Vec<Attempt>,
}

/// A provider call.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Call {
    epoch: i64,
    step: String,
    sequence: u32,
    provider: String,
    model: String,
    status: String,
    billed: String,
    usage: Usage,
    tier: String,
    usage_source: String,
    cost_usd: Option<String>,
    price_version: String,
    duration_ms: i64,
    provider_request_id: Option<String>,
    credential: String,
    at: String,
}

impl Call {
    /// What tells it apart from others of its job.
    fn key(&self) -> String {
        format!("{} {} {} {}", self.epoch, self.step, self.sequence, self.at)
    }
}

/// An answer for which nobody had to be asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Saving {
    reason: String,
    provider: String,
    model: String,
    tokens_in: u64,
    tokens_out: u64,
    saved_usd: Option<String>,
    at: String,
}

impl Saving {
    /// Why nobody was asked.
    fn meaning(&self) -> &'static str {
        match self.reason.as_str() {
            "memo" => "an earlier attempt had paid for it",
            "cache" => "another job had asked the same",
            "coalesced" => "several jobs asked in one call",
            "singleflight" => "another job was asking the same",
            _ => "",
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Calls {
    calls: Vec<Call>,
    savings: Vec<Saving>,
}

/// What it waits for.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Why {
    summary: String,
    waits: Vec<Wait>,
}

/// One thing that it waits for.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wait {
    waits_for: String,
    message: String,
    until: Option<String>,
    reason: Option<String>,
    target: Option<String>,
    budget: Option<String>,
}

/// What the viewer may do to this job, as it stands.
struct Acts {
    cancel: bool,
    change: bool,
    redrive: bool,
    submit: bool,
    /// What an operation may do to it.
    operations: Vec<&'static str>,
}

impl Acts {
    fn of(viewer: &Viewer, job: &Job) -> Self {
        let operations: &[&str] = match job.state.as_str() {
            _ if !viewer.may("POST /v1/operations") => &[],
            "dead" => &["archive", "delete"],
            "succeeded" | "cancelled" => &["delete"],
            "running" => &["reclaim"],
            _ => &[],
        };
        Self {
            cancel: !job.has_ended() && viewer.may("POST /v1/jobs/{id}/cancel"),
            change: !job.has_ended() && !job.is_running() && viewer.may("PATCH /v1/jobs/{id}"),
            redrive: job.state == "dead" && viewer.may("POST /v1/dead-letters/{id}/redrive"),
            submit: viewer.may("POST /v1/jobs"),
            operations: operations.to_vec(),
        }
    }

    fn any(&self) -> bool {
        self.cancel || self.change || self.redrive || self.submit || !self.operations.is_empty()
    }
}

/// A form of the page that was refused, with what was typed.
pub(super) struct Rejected {
    form: &'static str,
    refused: Refused,
    typed: Vec<(&'static str, String)>,
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobDetail {
    shell: Shell,
    job: Job,
    /// The `ETag` that it was read with.
    tag: String,
    attempts: Vec<Attempt>,
    attempts_before: usize,
    calls: Calls,
    calls_before: usize,
    why: Option<Why>,
    timeline: Timeline,
    body: Option<Body>,
    acts: Acts,
    rejected: Option<Rejected>,
    may_stream: bool,
    may_groups: bool,
}

impl JobDetail {
    fn address(&self, rest: &str) -> String {
        format!("{}{rest}", super::jobs::page_of(&self.job.id))
    }

    fn wrong(&self, form: &str, field: &str) -> Vec<&str> {
        let rejected = self.rejected.as_ref().filter(|rejected| rejected.form == form);
        rejected.map(|rejected| rejected.refused.at(&format!("/{field}"))).unwrap_or_default()
    }

    /// What was refused, whatever form asked for it: that form may be gone by now.
    fn problem(&self) -> Option<&Refused> {
        self.rejected.as_ref().map(|rejected| &rejected.refused)
    }

    fn is_rejected(&self, form: &str) -> bool {
        self.rejected.as_ref().is_some_and(|rejected| rejected.form == form)
    }

    fn typed<'a>(&'a self, form: &str, field: &str, otherwise: &'a str) -> &'a str {
        let typed = self.rejected.as_ref().filter(|rejected| rejected.form == form);
        let typed = typed.and_then(|rejected| rejected.typed.iter().find(|(name, _)| *name == field));
        typed.map_or(otherwise, |(_, value)| value)
    }

    /// The payload, where it is shown and all of it is.
    fn payload(&self) -> Option<&Body> {
        self.body.as_ref().filter(|body| body.part == Part::Payload && body.is_whole)
    }

    /// The dead letters of the same cause.
    fn group_of(&self, signature: &str) -> String {
        path(&["dashboard", "dead-letters", signature])
    }

    fn target_page(&self, target: &str) -> String {
        path(&["dashboard", "targets", target])
    }

    /// Models of the chain, in order.
    fn chain(&self) -> Vec<&str> {
        self.job.target.split('>').map(str::trim).collect()
    }
}

async fn show(
    visit: Visit,
    Path(id): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, Refused> {
    detail(visit, &id, Asked::of(pairs).get("show"), None).await
}

/// The page of a job, with the form of it that was refused.
async fn detail(visit: Visit, id: &str, show: &str, rejected: Option<Rejected>) -> Result<Response, Refused> {
    let api = path(&["v1", "jobs", id]);
    let alone = format!("{api}?result=false");
    let (attempts, calls, why) = (format!("{api}/attempts"), format!("{api}/calls"), format!("{api}/why"));
    let (found, attempts, calls, why) = tokio::join!(
        visit.client.get_tagged::<Job>(&alone),
        visit.client.get::<Attempts>(&attempts),
        visit.client.get::<Calls>(&calls),
        visit.client.get::<Why>(&why),
    );
    // There is no job, or none for this viewer: that is the answer, whatever the others say.
    let (job, tag) = found?;
    let (Attempts { attempts }, mut calls) = (attempts?, calls?);
    let body = match Part::asked(show) {
        Some(part) => Some(Body::of(&visit, id, part).await),
        None => None,
    };
    let now_ms = visit.shell.now_ms();
    let timeline = Timeline::of(&job, &attempts, now_ms);
    let (attempts_before, attempts) = newest(attempts);
    let (calls_before, listed) = newest(std::mem::take(&mut calls.calls));
    calls.calls = listed;
    calls.savings = newest(calls.savings).1;
    let refused = rejected.as_ref().map(|rejected| rejected.refused.clone());
    Ok(with_problem(
        refused.clone(),
        JobDetail {
            tag: tag.unwrap_or_default(),
            attempts,
            attempts_before,
            calls,
            calls_before,
            // Without the dispatcher nobody knows what it waits for; everything else is still true.
            why: why.ok(),
            timeline,
            body,
            acts: Acts::of(&visit.viewer, &job),
            rejected,
            may_stream: !job.has_ended() && job.may_tell() && visit.viewer.may("GET /v1/jobs/{id}/events"),
            may_groups: visit.viewer.may("GET /v1/dead-letters/groups"),
            // What has ended does not change by itself; a body is not asked for again.
            shell: match visit.shell.standing_at(job.href(), refused.as_ref()) {
                shell if job.has_ended() => shell.not_live(),
                shell => shell,
            },
            job,
        },
    ))
}

/// What an act is called on its button.
pub(crate) fn named(action: impl AsRef<str>) -> &'static str {
    match action.as_ref() {
        "redrive" => "Redrive",
        "archive" => "Archive",
        "delete" => "Delete",
        "reclaim" => "Reclaim",
        _ => "Do it",
    }
}

/// The newest of a list that is oldest first, and how many come before them.
fn newest<T>(mut all: Vec<T>) -> (usize, Vec<T>) {
    let before = all.len().saturating_sub(LISTED_MAX);
    (before, all.split_off(before))
}

/// What happens to a job while it runs, as the API tells it.
async fn events(visit: Visit, Path(id): Path<String>, headers: HeaderMap) -> Result<Response, Refused> {
    visit.client.forward(&path(&["v1", "jobs", &id, "events"]), &headers).await
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use serde_json::json;

    use super::{copies::tests::hostile, *};

    /// Whatever somebody wrote into a job: markup, a quote that ends an attribute, a scheme.
    const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror='alert(1)'>";

    fn viewer(may: &[&str]) -> Viewer {
        serde_json::from_value(json!({"key_id": "k1", "tenant": "acme", "role": "operator", "may": may})).unwrap()
    }

    fn page(may: &[&str], state: &str) -> String {
        let viewer = viewer(may);
        let (parts, ()) = Request::get("/dashboard/jobs/x").body(()).unwrap().into_parts();
        let text = || Some(HOSTILE.to_owned());
        let error = Failure {
            class: HOSTILE.into(),
            code: HOSTILE.into(),
            message: HOSTILE.into(),
            signature: HOSTILE.into(),
            ..Failure::default()
        };
        let job = Job {
            state: state.into(),
            queue: HOSTILE.into(),
            operation: text(),
            unique_key: text(),
            concurrency_key: text(),
            cancel_reason: text(),
            trace_id: text(),
            served_by: text(),
            target: HOSTILE.into(),
            error: Some(error.clone()),
            ..hostile()
        };
        let attempt: Attempt = serde_json::from_value(json!({
            "epoch": 1, "number": 1, "outcome": HOSTILE, "worker": HOSTILE, "finished_at": "2026-11-30T10:00:05Z",
            "error": {"class": HOSTILE, "message": HOSTILE}, "trace_id": HOSTILE
        }))
        .unwrap();
        let calls = json!({
            "calls": [{"step": HOSTILE, "model": HOSTILE, "status": HOSTILE, "credential": HOSTILE, "at": HOSTILE}],
            "savings": [{"reason": HOSTILE, "model": HOSTILE, "at": HOSTILE}]
        });
        let why = json!({"summary": HOSTILE, "waits": [{"waits_for": HOSTILE, "message": HOSTILE, "reason": HOSTILE, "target": HOSTILE}]});
        let now = "2026-11-30T10:01:00Z".parse().unwrap();
        let raw = json!({"text": HOSTILE}).to_string();
        let body = Body { part: Part::Payload, pretty: words::pretty_json(&raw), raw, is_whole: true, refused: None };
        let detail = JobDetail {
            shell: Shell::new(&viewer, "bearer", now, &parts),
            tag: HOSTILE.into(),
            timeline: Timeline::of(&job, std::slice::from_ref(&attempt), now.as_millisecond()),
            attempts: vec![attempt],
            attempts_before: 3,
            calls: serde_json::from_value(calls).unwrap(),
            calls_before: 0,
            why: serde_json::from_value(why).unwrap(),
            body: Some(body),
            acts: Acts::of(&viewer, &job),
            rejected: Some(Rejected {
                form: "cancel",
                refused: Refused::field("reason", HOSTILE),
                typed: vec![("reason", HOSTILE.to_owned())],
            }),
            may_stream: true,
            may_groups: true,
            job,
        };
        detail.render().unwrap()
    }

    const ALL: [&str; 6] = [
        "POST /v1/operations",
        "POST /v1/jobs/{id}/cancel",
        "PATCH /v1/jobs/{id}",
        "POST /v1/dead-letters/{id}/redrive",
        "POST /v1/jobs",
        "GET /v1/targets/{target}",
    ];

    #[test]
    fn what_somebody_wrote_into_a_job_is_inert() {
        for state in ["scheduled", "running", "dead", "succeeded", "cancelled", HOSTILE] {
            let html = page(&ALL, state);
            assert!(!html.contains("<script>") && !html.contains("<img src=x"), "{state}: {html}");
            assert!(!html.contains(" style=") && !html.contains(" onclick="), "{state}");
            assert_eq!(html.matches("<main").count(), 1, "{state}");
        }
    }

    #[test]
    fn what_may_not_be_done_is_not_offered() {
        let forms = |may: &[&str], state: &str| {
            let html = page(may, state);
            ["cancel-job", "change-job", "redrive-job", "archive-job", "delete-job", "reclaim-job", "submit-again"]
                .into_iter()
                .filter(|id| html.contains(&format!("id=\"{id}\"")))
                .collect::<Vec<_>>()
        };
        for state in ["scheduled", "running", "dead", "succeeded"] {
            assert!(forms(&[], state).is_empty(), "{state}");
        }
        assert_eq!(forms(&ALL, "scheduled"), ["cancel-job", "change-job", "submit-again"]);
        assert_eq!(forms(&ALL, "running"), ["cancel-job", "reclaim-job", "submit-again"]);
        assert_eq!(forms(&ALL, "dead"), ["redrive-job", "archive-job", "delete-job", "submit-again"]);
        assert_eq!(forms(&ALL, "succeeded"), ["delete-job", "submit-again"]);
        assert_eq!(forms(&["POST /v1/jobs/{id}/cancel"], "running"), ["cancel-job"]);
    }

    #[test]
    fn long_lists_keep_their_end() {
        assert_eq!(newest(vec![1, 2, 3]), (0, vec![1, 2, 3]));
        let (before, kept) = newest((0..LISTED_MAX + 7).collect());
        assert_eq!((before, kept.len(), kept[0]), (7, LISTED_MAX, 7));
    }
}
