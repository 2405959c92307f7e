//! One queue, closely: why does it not get shorter?

use askama::Template;
use axum::{extract::Path, response::Response};
use serde::Deserialize;

use super::{Queue, served};
use crate::{
    chart::{self, Bar, Svg},
    client::{Refused, path, query},
    page::{Shell, html, html_refused},
    pages::history::History,
    viewer::Visit,
    words,
};

/// Live rows that are looked at for whose they are and who holds them: enough for shares, and a few milliseconds.
const ROWS: &str = "2000";

/// A queue, looked at closely.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Inspection {
    leases: Vec<Holder>,
    tenants: Vec<Share>,
    lanes: Vec<Lane>,
    errors: Vec<Group>,
    difference: Difference,
}

/// A worker that holds jobs of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Holder {
    worker: String,
    host: Option<String>,
    alive: bool,
    jobs: u64,
    oldest_started_at: Option<String>,
}

/// Live jobs of a tenant.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Share {
    tenant: String,
    jobs: u64,
}

/// Live jobs of a tenant for one target: what takes turns.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lane {
    tenant: String,
    target: String,
    jobs: u64,
}

impl Lane {
    /// Its target, where that is a provider's model.
    fn href(&self) -> Option<String> {
        let is_target = self.target.split(':').count() == 3;
        is_target.then(|| path(&["dashboard", "targets", &self.target]))
    }
}

/// Dead letters of one cause.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Group {
    signature: String,
    class: String,
    count: u64,
    last_seen: String,
}

/// Journal and dispatcher beside each other.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Difference {
    journal: u64,
    dispatcher: u64,
    looked_at: u64,
    unknown: u64,
    complete: bool,
}

impl Group {
    fn href(&self) -> String {
        path(&["dashboard", "dead-letters", &self.signature])
    }
}

#[derive(Template)]
#[template(path = "queue.html")]
struct QueuePage {
    shell: Shell,
    queue: Queue,
    tag: String,
    inspection: Option<Inspection>,
    history: Option<History>,
    is_unserved: bool,
    problem: Option<Refused>,
}

impl QueuePage {
    fn action(&self, what: &str) -> String {
        path(&["dashboard", "queues", &self.queue.queue, what])
    }

    /// What a drain leaves as it is.
    fn left(&self) -> u64 {
        let metrics = &self.queue.metrics;
        metrics.waiting + metrics.active + metrics.scheduled + metrics.parked
    }

    /// Whose jobs these are.
    fn shares(&self, inspection: &Inspection) -> Svg {
        let bars = inspection.tenants.iter().map(|share| Bar {
            label: share.tenant.clone(),
            href: format!("/dashboard/jobs{}", query(&[("queue", &self.queue.queue), ("tenant", &share.tenant)])),
            value: share.jobs as f64,
            text: words::count(share.jobs),
        });
        let title = match inspection.difference.complete {
            true => "Live jobs by tenant".to_owned(),
            false => format!("Of the first {}, by tenant", words::plural(inspection.difference.looked_at, "live job")),
        };
        chart::bars(&title, &bars.collect::<Vec<_>>())
    }
}

/// The page of a queue.
pub(super) async fn show(Path(queue): Path<String>, visit: Visit) -> Result<Response, Refused> {
    with(queue, visit, None).await
}

/// The same, with what was refused.
pub(super) async fn with(name: String, visit: Visit, problem: Option<Refused>) -> Result<Response, Refused> {
    let Visit { viewer, client, .. } = &visit;
    let here = path(&["v1", "queues", &name]);
    let inspect = format!("{here}/inspect{}", query(&[("over", "0s"), ("rows", ROWS)]));
    let inspection = async {
        match viewer.may("GET /v1/queues/{queue}/inspect") {
            true => client.get(&inspect).await.ok(),
            false => None,
        }
    };
    let history = async {
        match viewer.may(History::ROUTE) {
            true => client.get(&History::path(&name)).await.ok(),
            false => None,
        }
    };
    let (queue, inspection, history) = tokio::join!(client.get_tagged::<Queue>(&here), inspection, history);
    let (queue, tag) = queue?;
    let is_unserved = !served::unserved(&visit, std::slice::from_ref(&queue)).await.is_empty();
    let shell = visit.shell.standing_at(super::href(&name), problem.as_ref());
    let tag = tag.unwrap_or_default();
    let page = QueuePage { shell, queue, tag, inspection, history, is_unserved, problem: problem.clone() };
    Ok(match problem {
        Some(problem) => html_refused(&problem, page),
        None => html(page),
    })
}
