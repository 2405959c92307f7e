//! Schedules: when each is due, in words, what its last runs came to, and everything that can be done with one.

mod edit;

use askama::Template;
use axum::{
    Router,
    extract::{Path, Query},
    http::{Method, StatusCode},
    response::Response,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::filled::{Asked, Filled, code_of, or_empty, page_with};
use crate::{
    Dashboard, chart,
    client::{Client, Refused, path, query},
    form::{Flash, Posted, done},
    page::Shell,
    viewer::Visit,
    words::{self, Safe},
};

/// Runs that the sparkline of a list shows.
const RUNS_LISTED: &str = "20";
/// Runs that a schedule's own page shows.
const RUNS_SHOWN: &str = "20";

pub(crate) fn routes() -> Router<Dashboard> {
    Router::new()
        .route("/dashboard/schedules", get(list))
        .route("/dashboard/schedules/new", get(edit::blank).post(edit::create))
        .route("/dashboard/schedules/{id}", get(show))
        .route("/dashboard/schedules/{id}/edit", get(edit::form).post(edit::change))
        .route("/dashboard/schedules/{id}/pause", post(pause))
        .route("/dashboard/schedules/{id}/resume", post(resume))
        .route("/dashboard/schedules/{id}/backfill", post(backfill))
        .route("/dashboard/schedules/{id}/backfill/end", post(end_backfill))
        .route("/dashboard/schedules/{id}/delete", post(delete))
}

/// A schedule, as the API shows it.
#[derive(Debug, Deserialize)]
struct Schedule {
    id: String,
    tenant: String,
    name: String,
    #[serde(default)]
    words: String,
    cron: Option<String>,
    time_zone: Option<String>,
    every: Option<String>,
    starting_at: Option<String>,
    at: Option<String>,
    overlap: String,
    missed: String,
    missed_window: String,
    state: String,
    reason: Option<String>,
    description: Option<String>,
    submits_as: String,
    next_runs: Vec<String>,
    ticks: Ticks,
    last_error: Option<TickError>,
    backfill: Option<Backfill>,
    template: Option<Box<RawValue>>,
    version: i64,
    created_at: String,
    #[serde(default)]
    last_runs: Vec<Run>,
}

/// What became of its ticks.
#[derive(Debug, Deserialize)]
struct Ticks {
    submitted: u64,
    overlapped: u64,
    missed: u64,
    refused: u64,
}

/// Why a tick is no job.
#[derive(Debug, Deserialize)]
struct TickError {
    at: String,
    tick: String,
    code: String,
    detail: String,
    retries: bool,
}

/// Ticks of the past that somebody ordered.
#[derive(Debug, Deserialize)]
struct Backfill {
    from: String,
    to: String,
    ticks: u64,
    submitted: u64,
    refused: u64,
    state: String,
    asked_by: String,
    began_at: String,
    finished_at: Option<String>,
}

/// One of its runs.
#[derive(Debug, Deserialize)]
struct Run {
    job_id: String,
    tick: Option<String>,
    at: String,
    state: String,
    duration_ms: Option<i64>,
    cost_usd: Option<String>,
}

/// A tick to come.
#[derive(Debug, Deserialize)]
struct Tick {
    at: String,
    local: String,
}

/// Ticks to come.
#[derive(Debug, Default, Deserialize)]
struct Preview {
    #[serde(default)]
    words: String,
    runs: Vec<Tick>,
}

impl Ticks {
    /// Ticks that became nothing.
    fn let_go(&self) -> u64 {
        self.overlapped + self.missed + self.refused
    }
}

impl Run {
    fn href(&self) -> String {
        path(&["dashboard", "jobs", &self.job_id])
    }

    /// The tick that it is of, or when it was accepted.
    fn due(&self) -> &str {
        self.tick.as_deref().unwrap_or(&self.at)
    }
}

impl Schedule {
    fn href(&self) -> String {
        here(&self.id)
    }

    /// When it is due, in words.
    fn when(&self) -> String {
        match (&self.words, &self.cron, &self.every, &self.at) {
            (words, ..) if !words.is_empty() => words.clone(),
            (_, Some(cron), ..) => cron.clone(),
            (_, _, Some(every), _) => format!("every {every}"),
            (.., Some(at)) => format!("once, at {at}"),
            _ => String::new(),
        }
    }

    fn overlap_in_words(&self) -> &'static str {
        match self.overlap.as_str() {
            "queue" => "the next one waits",
            "cancel" => "it is cancelled for the next one",
            "allow" => "the next one runs beside it",
            _ => "the tick is let go",
        }
    }

    fn missed_in_words(&self) -> String {
        match self.missed.as_str() {
            "all" => format!("each of the last {} is submitted", self.missed_window),
            "latest" => "the newest is submitted".to_owned(),
            _ => "are let go".to_owned(),
        }
    }

    fn is_paused(&self) -> bool {
        self.state == "paused"
    }

    fn tag(&self) -> String {
        format!("\"{}\"", self.version)
    }

    /// How long its last runs took, and what they came to.
    fn sparkline(&self) -> Safe {
        let run = |run: &Run| (run.duration_ms.unwrap_or(0) as f64, run.state == "dead");
        let runs: Vec<_> = self.last_runs.iter().map(run).collect();
        chart::ticks(&runs, &self.runs_in_words())
    }

    /// The same in words: `20 runs: 18 succeeded, 2 dead`.
    fn runs_in_words(&self) -> String {
        in_words(self.last_runs.iter().map(|run| run.state.as_str()))
    }
}

/// `3 runs: 2 succeeded, 1 dead`, the worst first where there is any.
fn in_words<'a>(states: impl Iterator<Item = &'a str> + Clone) -> String {
    let total = states.clone().count();
    let of = |state: &str| match states.clone().filter(|known| *known == state).count() {
        0 => None,
        count => Some(format!("{count} {state}")),
    };
    let parts: Vec<_> = ["dead", "cancelled", "live", "succeeded"].into_iter().filter_map(of).collect();
    match total {
        0 => "no run yet".to_owned(),
        1 => format!("1 run: {}", parts.join(", ")),
        total => format!("{total} runs: {}", parts.join(", ")),
    }
}

/// What a list is narrowed by.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    tenant: String,
    name: String,
    cursor: String,
}

/// A page of schedules.
#[derive(Debug, Default, Deserialize)]
struct Page {
    schedules: Vec<Schedule>,
    next_cursor: Option<String>,
}

#[derive(Template)]
#[template(path = "schedules.html")]
struct SchedulesPage {
    shell: Shell,
    wanted: Wanted,
    schedules: Vec<Schedule>,
    next: String,
    first: String,
    refused: Option<Refused>,
}

async fn list(visit: Visit, Query(wanted): Query<Wanted>) -> Result<Response, Refused> {
    let Visit { client, shell, .. } = visit;
    let Wanted { tenant, name, cursor } = &wanted;
    let asked = query(&[("tenant", tenant), ("name", name), ("cursor", cursor), ("runs", RUNS_LISTED)]);
    let (page, refused) = or_empty::<Page>(client.get(&format!("/v1/schedules{asked}")).await)?;
    let at = |cursor: &str| {
        format!("/dashboard/schedules{}", query(&[("tenant", tenant), ("name", name), ("cursor", cursor)]))
    };
    let next = page.next_cursor.map(|cursor| at(&cursor)).unwrap_or_default();
    let first = if cursor.is_empty() { String::new() } else { at("") };
    let code = refused.as_ref().map(Refused::code).unwrap_or_default();
    let schedules = page.schedules;
    Ok(page_with(code, shell, |shell| SchedulesPage { shell, schedules, next, first, refused, wanted }))
}

/// How many ticks a backfill would submit.
#[derive(Debug, Deserialize)]
struct Counted {
    from: String,
    to: String,
    ticks: u64,
    first: Option<String>,
    last: Option<String>,
}

/// The forms of a schedule's page.
struct Forms {
    pause: Filled,
    backfill: Filled,
    counted: Option<Counted>,
    delete: Filled,
}

impl Default for Forms {
    fn default() -> Self {
        Self {
            pause: Filled::new("pause"),
            backfill: Filled::new("backfill").with("from", "").with("to", ""),
            counted: None,
            delete: Filled::new("delete"),
        }
    }
}

#[derive(Template)]
#[template(path = "schedule.html")]
struct SchedulePage {
    shell: Shell,
    schedule: Schedule,
    next: Vec<Tick>,
    /// The job that it submits, where the viewer asked for it.
    template: Option<String>,
    forms: Forms,
}

impl SchedulePage {
    fn here(&self) -> String {
        self.schedule.href()
    }

    fn pause_at(&self) -> String {
        format!("{}/pause", self.here())
    }

    fn delete_at(&self) -> String {
        format!("{}/delete", self.here())
    }

    /// What goes, and what does not.
    fn delete_what(&self) -> String {
        let jobs = words::plural(self.schedule.ticks.submitted, "job");
        format!(
            "The schedule goes, with what is known of its ticks. The {jobs} that it submitted stay. This cannot be undone."
        )
    }

    fn jobs_href(&self) -> String {
        format!("/dashboard/jobs{}", query(&[("schedule", &self.schedule.id)]))
    }

    /// A new schedule that is due as this one is.
    fn copy_href(&self) -> String {
        let Schedule { cron, time_zone, every, tenant, .. } = &self.schedule;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let (cron, zone, every) = (text(cron), text(time_zone), text(every));
        let tenant = if self.shell.viewer.is_bound() { "" } else { tenant };
        let asked = [("cron", &*cron), ("time_zone", &*zone), ("every", &*every), ("tenant", tenant)];
        format!("/dashboard/schedules/new{}", query(&asked))
    }
}

fn here(id: &str) -> String {
    path(&["dashboard", "schedules", id])
}

/// A schedule without its template: who looks at that is written down.
async fn find(client: &Client, id: &str) -> Result<Schedule, Refused> {
    let asked = query(&[("runs", RUNS_SHOWN), ("template", "false")]);
    client.get(&format!("{}{asked}", path(&["v1", "schedules", id]))).await
}

/// The same with it.
async fn whole(client: &Client, id: &str) -> Result<Schedule, Refused> {
    client.get(&format!("{}{}", path(&["v1", "schedules", id]), query(&[("runs", RUNS_SHOWN)]))).await
}

/// What is shown only when it is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Shown {
    show: String,
}

async fn show(visit: Visit, Path(id): Path<String>, Query(shown): Query<Shown>) -> Result<Response, Refused> {
    if shown.show != "template" {
        return page(visit, &id, Forms::default()).await;
    }
    let schedule = whole(&visit.client, &id).await?;
    let visit = Visit { shell: visit.shell.not_live(), ..visit };
    page_of(visit, schedule, Forms::default()).await
}

async fn page(visit: Visit, id: &str, forms: Forms) -> Result<Response, Refused> {
    let schedule = find(&visit.client, id).await?;
    page_of(visit, schedule, forms).await
}

async fn page_of(visit: Visit, schedule: Schedule, forms: Forms) -> Result<Response, Refused> {
    let Visit { client, shell, .. } = visit;
    let next = ticks_of(&client, &schedule).await?;
    let template = schedule.template.as_deref().map(|template| words::pretty_json(template.get()));
    // A count is of the form that asked for it.
    let shell = if forms.counted.is_some() { shell.not_live() } else { shell };
    let code = code_of(&[&forms.pause, &forms.backfill, &forms.delete]);
    Ok(page_with(code, shell, |shell| SchedulePage { shell, schedule, next, template, forms }))
}

/// The next ticks as the clocks of its zone show them. What is paused or over has none.
async fn ticks_of(client: &Client, schedule: &Schedule) -> Result<Vec<Tick>, Refused> {
    let (Some(cron), Some(zone), Some(first)) = (&schedule.cron, &schedule.time_zone, schedule.next_runs.first())
    else {
        let next = schedule.next_runs.iter().map(|at| Tick { at: at.clone(), local: String::new() });
        return Ok(next.collect());
    };
    let asked = query(&[("cron", cron), ("time_zone", zone)]);
    let preview: Preview = client.get(&format!("/v1/schedules/preview{asked}")).await?;
    // A backfill may be ahead of the clock: what the schedule says of itself holds.
    let from = preview.runs.iter().position(|tick| tick.at == *first).unwrap_or(0);
    Ok(preview.runs.into_iter().skip(from).collect())
}

async fn pause(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let body = Asked::default().with("paused", true).texts(&posted, &["reason"]).body();
    let reason = posted.required("reason").map(|_| ());
    let answer: Result<(), Refused> = match reason {
        Ok(()) => posted.visit.client.send(Method::PATCH, &path(&["v1", "schedules", &id]), Some(&body)).await,
        Err(refused) => Err(refused),
    };
    match answer {
        Ok(()) => Ok(done(&here(&id), Flash::good("The schedule is paused: its ticks are let go."))),
        Err(refused) => {
            let forms = Forms { pause: Filled::back("pause", &posted, &["reason"], refused)?, ..Forms::default() };
            page(posted.visit, &id, forms).await
        }
    }
}

async fn resume(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let body = json!({ "paused": false });
    let () = posted.visit.client.send(Method::PATCH, &path(&["v1", "schedules", &id]), Some(&body)).await?;
    Ok(done(&here(&id), Flash::good("The schedule goes on with its next tick.")))
}

async fn backfill(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    const FIELDS: [&str; 2] = ["from", "to"];
    let is_order = posted.text("do") == Some("start");
    let mut asked = Asked::default().texts(&posted, &FIELDS);
    if !is_order {
        asked = asked.with("dry_run", true);
    }
    let place = path(&["v1", "schedules", &id, "backfill"]);
    let answer: Result<Value, Refused> = posted.visit.client.send(Method::POST, &place, Some(&asked.body())).await;
    let forms = match answer {
        Ok(_) if is_order => {
            return Ok(done(&here(&id), Flash::good("The backfill is ordered; a scheduler submits its ticks.")));
        }
        Ok(counted) => {
            let counted: Counted = serde_json::from_value(counted).map_err(|error| {
                Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the count cannot be read: {error}"))
            })?;
            // Counted and started must be the same ticks, also where the text says `7d` or nothing.
            let backfill = Filled::new("backfill").with("from", &*counted.from).with("to", &*counted.to);
            Forms { backfill, counted: Some(counted), ..Forms::default() }
        }
        Err(refused) => Forms { backfill: Filled::back("backfill", &posted, &FIELDS, refused)?, ..Forms::default() },
    };
    page(posted.visit, &id, forms).await
}

async fn end_backfill(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let place = path(&["v1", "schedules", &id, "backfill"]);
    let () = posted.visit.client.send(Method::DELETE, &place, None).await?;
    Ok(done(&here(&id), Flash::good("The backfill is ended; what was submitted stays.")))
}

async fn delete(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let schedule = find(&posted.visit.client, &id).await?;
    let answer: Result<(), Refused> = match posted.confirmed("confirm", &schedule.name) {
        Ok(()) => posted.visit.client.send(Method::DELETE, &path(&["v1", "schedules", &id]), None).await,
        Err(refused) => Err(refused),
    };
    match answer {
        Ok(()) => {
            Ok(done("/dashboard/schedules", Flash::good(format!("{} is deleted; its jobs stay.", schedule.name))))
        }
        Err(refused) => {
            let forms = Forms { delete: Filled::back("delete", &posted, &["confirm"], refused)?, ..Forms::default() };
            page(posted.visit, &id, forms).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_told_the_worst_first() {
        assert_eq!(in_words(["succeeded", "dead", "succeeded"].into_iter()), "3 runs: 1 dead, 2 succeeded");
        assert_eq!(in_words(["live"].into_iter()), "1 run: 1 live");
        assert_eq!(in_words([].into_iter()), "no run yet");
    }
}
