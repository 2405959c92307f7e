//! Worker processes: their slots, what they hold, and who is to stop claiming.

use askama::Template;
use axum::{
    Router,
    extract::Path,
    http::Method,
    response::Response,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Dashboard, chart,
    client::{Refused, path},
    form::{Flash, Posted, done},
    page::{Shell, html},
    viewer::Visit,
    words,
};

/// Where they are asked for.
pub(crate) const WORKERS: &str = "/v1/workers";
const HERE: &str = "/dashboard/workers";

/// All of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Workers {
    /// Oldest first.
    pub(crate) workers: Vec<Worker>,
}

/// A worker process.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Worker {
    /// Its session.
    pub(crate) id: String,
    /// Host and process.
    pub(crate) host: String,
    /// Its binary's version.
    pub(crate) version: String,
    /// Jobs that it can run at once.
    pub(crate) slots: u64,
    /// Jobs that it holds.
    pub(crate) leases: u64,
    /// Whether the dispatcher hears of it.
    pub(crate) alive: bool,
    /// Whether it was told to claim no more.
    pub(crate) draining: bool,
    /// When it began.
    pub(crate) started_at: String,
    /// When it was last heard of.
    pub(crate) seen_at: Option<String>,
}

impl Worker {
    /// How it is, in a word.
    pub(crate) fn word(&self) -> &'static str {
        match (self.alive, self.draining, self.leases) {
            (false, ..) => "lost",
            (true, true, 0) => "drained",
            (true, true, _) => "draining",
            (true, false, _) => "alive",
        }
    }

    fn gauge(&self) -> chart::Svg {
        let share = self.leases as f64 / self.slots.max(1) as f64;
        chart::gauge(share.min(0.99), &format!("{} of {}", words::count(self.leases), words::count(self.slots)))
    }
}

impl Workers {
    /// Those that claim.
    pub(crate) fn claiming(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().filter(|worker| worker.alive && !worker.draining)
    }

    /// Their slots.
    pub(crate) fn slots(&self) -> u64 {
        self.claiming().map(|worker| worker.slots).sum()
    }

    /// What those that are heard of hold.
    fn leases(&self) -> u64 {
        self.workers.iter().filter(|worker| worker.alive).map(|worker| worker.leases).sum()
    }

    /// Their versions, each once.
    fn versions(&self) -> Vec<&str> {
        let mut versions: Vec<_> = self.workers.iter().map(|worker| worker.version.as_str()).collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }
}

#[derive(Template)]
#[template(path = "workers.html")]
struct WorkersPage {
    shell: Shell,
    workers: Workers,
}

/// Their addresses.
pub(crate) fn routes() -> Router<Dashboard> {
    Router::new().route(HERE, get(list)).route("/dashboard/workers/{id}/drain", post(drain))
}

async fn list(visit: Visit) -> Result<Response, Refused> {
    let workers = visit.client.get(WORKERS).await?;
    Ok(html(WorkersPage { shell: visit.shell, workers }))
}

async fn drain(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let on = posted.required("on")? == "true";
    let body = json!({ "on": on });
    let path = path(&["v1", "workers", &id, "drain"]);
    let worker: Value = posted.visit.client.send(Method::POST, &path, Some(&body)).await?;
    let host = worker["host"].as_str().unwrap_or_default();
    let told = match on {
        true => format!("{host} claims no more jobs and finishes what it holds."),
        false => format!("{host} claims jobs again."),
    };
    Ok(done(HERE, Flash::good(told)))
}
