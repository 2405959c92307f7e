//! Jobs: a list that its address narrows, with the grammar of the API and the CLI, and what can be done to many of them.

pub(crate) mod asked;
mod bulk;
pub(crate) mod row;

use std::collections::BTreeMap;

use askama::Template;
use axum::{
    Router,
    extract::Query,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use serde::Deserialize;

use self::{
    asked::Asked,
    row::{Column, Job, JobPage},
};
use crate::{
    Dashboard,
    client::{Refused, path, query},
    page::{Shell, with_problem},
    viewer::{Viewer, Visit},
};

/// Kinds of work.
const KINDS: [&str; 6] = ["llm", "embedding", "analysis", "http", "custom", "probe"];
/// Parameters that a field of the page is for; what is wrong with others is said above them.
const FIELDS: [&str; 12] =
    ["filter", "queue", "kind", "state", "tenant", "operation", "error", "since", "until", "q", "batch_id", "schedule"];

/// The pages of jobs.
pub(crate) fn routes() -> Router<Dashboard> {
    Router::new().route("/dashboard/jobs", get(list)).merge(bulk::routes())
}

/// What many jobs can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deed {
    /// The word of the API.
    pub(crate) word: &'static str,
    /// The word on the page.
    pub(crate) label: &'static str,
    /// The route that does it to one job, where there is one.
    one: Option<&'static str>,
}

impl Deed {
    /// Whether it can be done to jobs in this state; in any of them, where the state is not known.
    pub(crate) fn is_for(&self, state: &str) -> bool {
        match self.word {
            _ if state.is_empty() => true,
            "cancel" => matches!(state, "scheduled" | "ready" | "running"),
            "delete" => matches!(state, "succeeded" | "dead" | "cancelled"),
            "reclaim" => state == "running",
            _ => state == "dead",
        }
    }
}

const DEEDS: [Deed; 5] = [
    Deed { word: "cancel", label: "Cancel", one: Some("POST /v1/jobs/{id}/cancel") },
    Deed { word: "redrive", label: "Redrive", one: Some("POST /v1/dead-letters/{id}/redrive") },
    Deed { word: "archive", label: "Archive", one: None },
    Deed { word: "delete", label: "Delete", one: None },
    Deed { word: "reclaim", label: "Reclaim", one: None },
];

/// What this viewer may do to many jobs: by an operation, or else one by one.
pub(crate) fn deeds(viewer: &Viewer) -> Vec<Deed> {
    let may = |deed: &Deed| viewer.may("POST /v1/operations") || deed.one.is_some_and(|route| viewer.may(route));
    DEEDS.into_iter().filter(may).collect()
}

/// A state that the list can be narrowed to.
struct Tab {
    state: &'static str,
    label: &'static str,
    href: String,
    is_current: bool,
    /// How many there are, where that is known.
    count: Option<u64>,
}

/// How far a batch is.
#[derive(Deserialize)]
struct Batch {
    batch_id: String,
    total: u64,
    live: u64,
    succeeded: u64,
    dead: u64,
    cancelled: u64,
}

#[derive(Template)]
#[template(path = "jobs.html")]
struct JobsPage {
    shell: Shell,
    asked: Asked,
    tabs: Vec<Tab>,
    jobs: Vec<Job>,
    /// Those that are chosen, and those of them that have something to show.
    columns: Vec<Column>,
    shown: Vec<Column>,
    deeds: Vec<Deed>,
    /// Whether all that match can be meant, and not only those that are ticked.
    may_all: bool,
    /// Why all that match cannot be meant.
    no_filter: Option<String>,
    /// Addresses of the pages behind and before this one; empty where there is none.
    next: String,
    back: String,
    incomplete: bool,
    batch: Option<Batch>,
    problem: Option<Refused>,
    is_bound: bool,
}

impl JobsPage {
    /// What is wrong with a field of the page.
    fn wrong(&self, name: &str) -> Vec<&str> {
        self.problem.as_ref().map(|problem| problem.at(&format!("/query/{name}"))).unwrap_or_default()
    }

    /// What is wrong with nothing that has a field.
    fn wrong_elsewhere(&self) -> Vec<String> {
        let Some(problem) = &self.problem else { return Vec::new() };
        let has_field = |pointer: &str| FIELDS.iter().any(|name| pointer == format!("/query/{name}"));
        let rest: Vec<String> = problem
            .errors
            .iter()
            .filter(|error| !has_field(&error.pointer))
            .map(|error| {
                format!("{} {}", error.pointer.trim_start_matches("/query").trim_start_matches('/'), error.detail)
            })
            .collect();
        if rest.is_empty() && problem.errors.is_empty() { vec![problem.detail.clone()] } else { rest }
    }

    fn has_column(&self, column: &Column) -> bool {
        self.columns.contains(column)
    }

    /// Whether fields are in use that are folded away otherwise.
    fn is_told_more(&self) -> bool {
        let folded = ["kind", "operation", "error", "since", "until", "batch_id", "schedule", "limit"];
        folded.iter().any(|name| !self.asked.get(name).is_empty())
    }

    /// Likewise, on a narrow screen.
    fn is_told(&self) -> bool {
        ["queue", "tenant", "q"].iter().any(|name| !self.asked.get(name).is_empty())
    }

    /// Whether there is something to clear.
    fn is_narrowed(&self) -> bool {
        self.asked.narrows_but(&["state"])
    }

    fn kinds(&self) -> [&'static str; 6] {
        KINDS
    }

    /// What the filter in use is, as the API and the CLI take it.
    fn as_cli(&self) -> String {
        match self.asked.as_filter() {
            Ok(filter) if filter.is_empty() => "longshore job list".to_owned(),
            Ok(filter) => format!("longshore job list --filter {}", super::job::copies::shell(&filter)),
            Err(_) => format!("longshore job list --query {}", super::job::copies::shell(self.asked.get("q"))),
        }
    }
}

async fn list(visit: Visit, Query(pairs): Query<Vec<(String, String)>>) -> Result<Response, Refused> {
    let given = pairs.len();
    let asked = Asked::of(pairs).without_usual_columns();
    if asked.len() < given {
        // What a form sends beside what it means: the address that is kept and sent around says only that.
        return Ok(Redirect::to(&format!("/dashboard/jobs{}", asked.here())).into_response());
    }
    show(visit, asked, None).await
}

/// The list, with what was wrong with what was done from it.
async fn show(visit: Visit, asked: Asked, problem: Option<Refused>) -> Result<Response, Refused> {
    let wanted = format!("/v1/jobs{}", asked.for_api());
    let (page, counts, batch) =
        tokio::join!(visit.client.get::<JobPage>(&wanted), counts(&visit, &asked), batch(&visit, &asked));
    let (page, problem) = match page {
        Ok(page) => (page, problem),
        Err(refused) if refused.is_correctable() => {
            (JobPage { jobs: Vec::new(), next_cursor: None, incomplete: false }, Some(refused))
        }
        Err(refused) => return Err(refused),
    };
    let filter = asked.as_filter();
    let chosen = asked.all("column");
    let columns = Column::chosen(&chosen);
    Ok(with_problem(
        problem.clone(),
        JobsPage {
            tabs: tabs(&asked, counts.as_ref()),
            shown: Column::shown(&columns, !chosen.is_empty(), &page.jobs),
            columns,
            deeds: deeds(&visit.viewer).into_iter().filter(|deed| deed.is_for(asked.get("state"))).collect(),
            may_all: visit.viewer.may("POST /v1/operations") && filter.is_ok(),
            no_filter: filter.err().filter(|_| visit.viewer.may("POST /v1/operations")),
            next: address(page.next_cursor.map(|cursor| asked.next(&cursor))),
            back: address(asked.back()),
            incomplete: page.incomplete,
            jobs: page.jobs,
            batch,
            is_bound: visit.viewer.is_bound(),
            shell: visit.shell.standing_at(format!("/dashboard/jobs{}", asked.here()), problem.as_ref()),
            problem,
            asked,
        },
    ))
}

fn address(query: Option<String>) -> String {
    query.map(|query| format!("/dashboard/jobs{query}")).unwrap_or_default()
}

#[derive(Deserialize)]
struct AllMetrics {
    queues: BTreeMap<String, Metrics>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Metrics {
    waiting: u64,
    active: u64,
    scheduled: u64,
    parked: u64,
    failed: u64,
}

/// How many jobs of the queue, or of all, are in which state. Nobody counts what another filter means without looking at all of it.
async fn counts(visit: &Visit, asked: &Asked) -> Option<Metrics> {
    if asked.narrows_but(&["queue", "state"]) || !visit.viewer.may("GET /v1/queues/metrics") {
        return None;
    }
    let all: AllMetrics = match visit.client.get("/v1/queues/metrics").await {
        Ok(all) => all,
        Err(refused) => {
            tracing::debug!(?refused, "jobs are listed without counts");
            return None;
        }
    };
    let queue = asked.get("queue");
    let of_queue = all.queues.into_iter().filter(|(name, _)| queue.is_empty() || name == queue);
    Some(of_queue.fold(Metrics::default(), |sum, (_, one)| Metrics {
        waiting: sum.waiting + one.waiting,
        active: sum.active + one.active,
        scheduled: sum.scheduled + one.scheduled,
        parked: sum.parked + one.parked,
        failed: sum.failed + one.failed,
    }))
}

/// The batch that is listed, if one is.
async fn batch(visit: &Visit, asked: &Asked) -> Option<Batch> {
    let id = Some(asked.get("batch_id")).filter(|id| !id.is_empty())?;
    visit.client.get(&path(&["v1", "batches", id])).await.ok()
}

fn tabs(asked: &Asked, counts: Option<&Metrics>) -> Vec<Tab> {
    let current = asked.get("state");
    let tab = |state: &'static str, label, count| Tab {
        state,
        label,
        href: format!("/dashboard/jobs{}", asked.with("state", state)),
        is_current: current == state,
        count,
    };
    let count = |of: fn(&Metrics) -> u64| counts.map(of);
    vec![
        tab("", "All", None),
        tab("scheduled", "Scheduled", count(|all| all.scheduled)),
        tab("ready", "Ready", count(|all| all.waiting + all.parked)),
        tab("running", "Running", count(|all| all.active)),
        tab("succeeded", "Succeeded", None),
        tab("dead", "Dead", count(|all| all.failed)),
        tab("cancelled", "Cancelled", None),
    ]
}

/// The page of a job.
pub(crate) fn page_of(id: impl AsRef<str>) -> String {
    path(&["dashboard", "jobs", id.as_ref()])
}

/// The list of jobs that this filter means.
pub(crate) fn list_of(filter: &str) -> String {
    format!("/dashboard/jobs{}", query(&[("filter", filter)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tabs_keep_the_filter_and_leave_the_page() {
        let asked = Asked::of(vec![
            ("queue".into(), "llm".into()),
            ("state".into(), "dead".into()),
            ("cursor".into(), "c1".into()),
        ]);
        let counts = Metrics { waiting: 3, parked: 4, failed: 7, ..Metrics::default() };
        let tabs = tabs(&asked, Some(&counts));
        let told: Vec<_> = tabs.iter().map(|tab| (tab.state, tab.count, tab.is_current)).collect();
        assert_eq!(told[0], ("", None, false));
        assert_eq!(told[2], ("ready", Some(7), false));
        assert_eq!(told[5], ("dead", Some(7), true));
        assert_eq!(tabs[0].href, "/dashboard/jobs?queue=llm");
        assert_eq!(tabs[3].href, "/dashboard/jobs?queue=llm&state=running");
    }
}
