//! The first page: is anything wrong, and where? Whoever is bound to a tenant sees how its own jobs do.
//!
//! Each part is asked for apart, and says so if it cannot be read: a store that is away must not hide the rest.

mod alarms;
mod money;
mod own;

use std::collections::BTreeSet;

use askama::Template;
use axum::{Router, response::Response, routing::get};
use serde::{Deserialize, de::DeserializeOwned};

use self::{
    alarms::{Alarm, Maintenance},
    money::{Budgets, Costs, Line},
};
use super::{
    history::History,
    queues::{self, Queue, Queues, served},
    workers::{self, Workers},
};
use crate::{
    Dashboard,
    client::{Refused, path},
    page::{Shell, html},
    viewer::Visit,
    words,
};

/// Rows of each table: the page of each has all.
const ROWS_MAX: usize = 8;

/// A part of the page: nothing where the viewer may not read it.
type Part<T> = Option<Result<T, Refused>>;

/// What limits and breakers say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Targets {
    targets: Vec<Target>,
    accounts: Vec<Account>,
}

/// A provider's model.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Target {
    target: String,
    paused: bool,
    until: Option<String>,
    reason: Option<String>,
    breaker: Breaker,
    factor: Option<f64>,
    blocked_until: Option<String>,
    blocked_reason: Option<String>,
    tickets: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Breaker {
    state: Option<String>,
    until: Option<String>,
    reason: Option<String>,
    calls: u64,
    failures: u64,
}

/// An account that its provider calls exhausted.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Account {
    account: String,
    until: Option<String>,
    reason: Option<String>,
}

impl Target {
    fn href(&self) -> String {
        path(&["dashboard", "targets", &self.target])
    }

    /// How its breaker stands; as closed while nobody can be asked.
    fn breaker_word(&self) -> &str {
        self.breaker.state.as_deref().unwrap_or("closed")
    }

    /// What stands in its way, the worst first; 0 for nothing.
    fn trouble(&self) -> u8 {
        match () {
            () if self.breaker_word() == "open" => 4,
            () if self.paused => 3,
            () if self.blocked_until.is_some() || self.breaker_word() != "closed" => 2,
            () if self.tickets.unwrap_or(0) > 0 || self.factor.is_some_and(|factor| factor < 1.0) => 1,
            () => 0,
        }
    }

    /// What is to be known of it in a line.
    fn words(&self) -> String {
        let mut words = Vec::new();
        if self.breaker.calls > 0 {
            words.push(format!(
                "{} of {} failed in 30 s",
                self.breaker.failures,
                words::plural(self.breaker.calls, "call")
            ));
        }
        if let Some(factor) = self.factor.filter(|factor| *factor < 1.0) {
            words.push(format!("slowed to {} of its rate", words::percent(factor)));
        }
        if let Some(tickets) = self.tickets.filter(|tickets| *tickets > 0) {
            words.push(format!("{} in its line", words::plural(tickets, "call")));
        }
        words.join("; ")
    }
}

/// Dead letters by cause.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Group {
    signature: String,
    class: String,
    count: u64,
    last_seen: String,
    cost_usd: String,
}

impl Group {
    fn href(&self) -> String {
        path(&["dashboard", "dead-letters", &self.signature])
    }
}

impl Groups {
    fn dead(&self) -> u64 {
        self.groups.iter().map(|group| group.count).sum()
    }
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    shell: Shell,
    alarms: Vec<Alarm>,
    more_alarms: usize,
    queues: Result<Queues, Refused>,
    history: Part<History>,
    workers: Part<Workers>,
    targets: Part<Targets>,
    costs: Part<Costs>,
    budgets: Part<Budgets>,
    groups: Part<Groups>,
}

/// Its address.
pub(crate) fn routes() -> Router<Dashboard> {
    Router::new().route("/dashboard", get(overview))
}

/// Reads a part that the viewer may read.
async fn part<T: DeserializeOwned>(visit: &Visit, route: &str, path: &str) -> Part<T> {
    match visit.viewer.may(route) {
        true => Some(visit.client.get(path).await),
        false => None,
    }
}

async fn overview(visit: Visit) -> Result<Response, Refused> {
    if !visit.viewer.may("GET /v1/queues") {
        return own::overview(visit).await;
    }
    let (history, today) = (History::path(""), money::today(&visit.shell));
    let (queues, history, workers, targets, costs, budgets, groups, maintenance) = tokio::join!(
        visit.client.get::<Queues>(queues::QUEUES),
        part(&visit, History::ROUTE, &history),
        part::<Workers>(&visit, "GET /v1/workers", workers::WORKERS),
        part::<Targets>(&visit, "GET /v1/targets", "/v1/targets"),
        part(&visit, "GET /v1/costs", &today),
        part::<Budgets>(&visit, "GET /v1/budgets", "/v1/budgets"),
        part(&visit, "GET /v1/dead-letters/groups", "/v1/dead-letters/groups"),
        part::<Maintenance>(&visit, "GET /v1/maintenance", "/v1/maintenance"),
    );
    let mut found = alarms::Found::default();
    found.maintenance(known(&maintenance));
    found.workers(queues.as_ref().ok(), known(&workers));
    // Where nobody works at all, that has been said.
    let unserved = match (&queues, known(&workers).is_some_and(|workers| workers.claiming().next().is_none())) {
        (Ok(queues), false) => served::unserved(&visit, &queues.queues).await,
        _ => BTreeSet::new(),
    };
    found.queues(queues.as_ref().ok(), &unserved);
    found.targets(known(&targets));
    found.budgets(known(&budgets));
    found.errors(known(&history));
    let (alarms, more_alarms) = found.worst_first();
    let page = OverviewPage {
        shell: visit.shell,
        alarms,
        more_alarms,
        queues,
        history,
        workers,
        targets,
        costs,
        budgets,
        groups,
    };
    Ok(html(page))
}

/// What was read of a part.
fn known<T>(part: &Part<T>) -> Option<&T> {
    part.as_ref().and_then(|part| part.as_ref().ok())
}

impl OverviewPage {
    fn all_queues(&self) -> &[Queue] {
        self.queues.as_ref().map(|queues| queues.queues.as_slice()).unwrap_or_default()
    }

    fn sum(&self, of: fn(&Queue) -> u64) -> u64 {
        self.all_queues().iter().map(of).sum()
    }

    fn waiting(&self) -> u64 {
        self.sum(|queue| queue.metrics.waiting)
    }

    fn running(&self) -> u64 {
        self.sum(|queue| queue.metrics.active)
    }

    fn parked(&self) -> u64 {
        self.sum(|queue| queue.metrics.parked)
    }

    /// The queue whose oldest job has waited longest.
    fn oldest(&self) -> Option<&Queue> {
        let waiting = self.all_queues().iter().filter(|queue| queue.metrics.waiting > 0);
        waiting.max_by(|one, other| one.metrics.oldest_ready_seconds.total_cmp(&other.metrics.oldest_ready_seconds))
    }

    /// Those with the most work, of them the first few.
    fn busiest(&self) -> Vec<&Queue> {
        let mut queues: Vec<_> = self.all_queues().iter().collect();
        queues.sort_by_key(|queue| {
            let metrics = &queue.metrics;
            std::cmp::Reverse(metrics.waiting + metrics.active + metrics.parked)
        });
        queues.truncate(ROWS_MAX);
        queues
    }

    fn throughput(&self) -> String {
        let done = known(&self.history).and_then(History::throughput);
        done.map_or_else(|| "–".to_owned(), words::compact)
    }

    fn error_rate(&self) -> Option<f64> {
        known(&self.history).and_then(History::error_rate)
    }

    fn dead(&self) -> u64 {
        known(&self.groups).map_or_else(|| self.sum(|queue| queue.metrics.failed), Groups::dead)
    }

    fn workers_now(&self) -> Option<&Workers> {
        known(&self.workers)
    }

    fn first_groups<'a>(&self, groups: &'a Groups) -> &'a [Group] {
        &groups.groups[..groups.groups.len().min(ROWS_MAX)]
    }

    /// Those with something in their way first.
    fn troubled(&self, targets: &Targets) -> Vec<usize> {
        let mut order: Vec<_> = (0..targets.targets.len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(targets.targets[at].trouble()));
        order.truncate(ROWS_MAX);
        order
    }

    /// The limits of which most is spent.
    fn tightest<'a>(&self, budgets: &'a Budgets) -> Vec<Line<'a>> {
        budgets.tightest(ROWS_MAX)
    }
}
