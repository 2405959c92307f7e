//! The first page of who is bound to a tenant: how its own jobs do.

use askama::Template;
use axum::response::Response;
use serde::Deserialize;

use super::{Costs, Group, Groups, Part, known, money, part};
use crate::{
    client::{Refused, path},
    page::{Shell, html},
    viewer::Visit,
    words,
};

/// Jobs of each list.
const NEWEST: &str = "/v1/jobs?limit=10";
const RUNNING: &str = "/v1/jobs?state=running&limit=10";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Jobs {
    jobs: Vec<Job>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Job {
    id: String,
    queue: String,
    kind: String,
    state: String,
    accepted_at: String,
    operation: Option<String>,
    cost_usd: Option<String>,
}

impl Job {
    fn href(&self) -> String {
        path(&["dashboard", "jobs", &self.id])
    }
}

/// What its tenant used this month, and what it may still use.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    live_jobs: u64,
    spend_usd: String,
    quota_left: Left,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Left {
    live_jobs: Option<u64>,
    tokens: Option<u64>,
    usd: Option<String>,
}

#[derive(Template)]
#[template(path = "overview_own.html")]
struct OwnPage {
    shell: Shell,
    newest: Part<Jobs>,
    running: Part<Jobs>,
    groups: Part<Groups>,
    costs: Part<Costs>,
    usage: Part<Usage>,
}

/// The page.
pub(super) async fn overview(visit: Visit) -> Result<Response, Refused> {
    let (today, usage) = (money::today(&visit.shell), path(&["v1", "tenants", &visit.viewer.tenant, "usage"]));
    let (newest, running, groups, costs, usage) = tokio::join!(
        part(&visit, "GET /v1/jobs", NEWEST),
        part(&visit, "GET /v1/jobs", RUNNING),
        part(&visit, "GET /v1/dead-letters/groups", "/v1/dead-letters/groups"),
        part(&visit, "GET /v1/costs", &today),
        part(&visit, "GET /v1/tenants/{tenant}/usage", &usage),
    );
    Ok(html(OwnPage { shell: visit.shell, newest, running, groups, costs, usage }))
}

impl OwnPage {
    fn running_now(&self) -> usize {
        known(&self.running).map_or(0, |running| running.jobs.len())
    }

    fn dead(&self) -> u64 {
        known(&self.groups).map_or(0, Groups::dead)
    }

    fn worst_groups<'a>(&self, groups: &'a Groups) -> &'a [Group] {
        &groups.groups[..groups.groups.len().min(super::ROWS_MAX)]
    }

    /// What is left of the quotas, in words; nothing where there are none.
    fn left(usage: &Usage) -> String {
        let Left { live_jobs, tokens, usd } = &usage.quota_left;
        let mut left = Vec::new();
        if let Some(usd) = usd {
            left.push(words::usd(usd));
        }
        if let Some(tokens) = tokens {
            left.push(words::plural(tokens, "token"));
        }
        if let Some(jobs) = live_jobs {
            left.push(words::plural(jobs, "more job"));
        }
        left.join(", ")
    }
}
