//! Operations: one thing done to many jobs. Each begins as a dry run; its page says what it would touch, and is where it is confirmed.

pub(crate) mod order;

use askama::Template;
use axum::{
    Router,
    extract::{Path, Query},
    http::{Method, StatusCode},
    response::Response,
    routing::{get, post},
};
use serde::Deserialize;

use self::order::{Operation, Order, is_count, page_of};
use super::jobs::{
    asked::Asked,
    list_of,
    row::{Job, JobPage},
};
use crate::{
    Dashboard,
    client::{Refused, path, query},
    form::{Flash, Posted, done},
    page::{Shell, with_problem},
    viewer::Visit,
    words,
};

/// Jobs that a dry run shows as examples of what it would touch.
const EXAMPLES: usize = 10;
/// Longest address that is linked to, in bytes.
const LINK_MAX_BYTES: usize = 6_000;
/// How long ago jobs may have been counted before the page says so, in milliseconds.
const COUNT_STALE_MS: i64 = 5 * 60 * 1_000;

/// The pages of operations.
pub(crate) fn routes() -> Router<Dashboard> {
    Router::new()
        .route("/dashboard/operations", get(list).post(count))
        .route("/dashboard/operations/{id}", get(show))
        .route("/dashboard/operations/{id}/start", post(start))
        .route("/dashboard/operations/{id}/abort", post(abort))
}

#[derive(Deserialize)]
struct OperationPage {
    operations: Vec<Operation>,
    next_cursor: Option<String>,
}

#[derive(Template)]
#[template(path = "operations.html")]
struct OperationsPage {
    shell: Shell,
    operations: Vec<Operation>,
    running_only: bool,
    /// Addresses of the pages behind and before this one; empty where there is none.
    next: String,
    back: String,
    /// The form for a new one, as it was typed; none for who may begin none.
    order: Option<Order>,
    problem: Option<Refused>,
}

async fn list(visit: Visit, Query(pairs): Query<Vec<(String, String)>>) -> Result<Response, Refused> {
    let asked = Asked::of(pairs);
    let order =
        Order { filter: asked.get("filter").to_owned(), action: asked.get("action").to_owned(), ..Order::default() };
    listed(visit, &asked, order, None).await
}

async fn listed(visit: Visit, asked: &Asked, order: Order, problem: Option<Refused>) -> Result<Response, Refused> {
    let wanted =
        query(&[("running", asked.get("running")), ("cursor", asked.get("cursor")), ("limit", asked.get("limit"))]);
    let page: OperationPage = visit.client.get(&format!("/v1/operations{wanted}")).await?;
    let may_begin = visit.viewer.may("POST /v1/operations");
    let here = |query: String| format!("/dashboard/operations{query}");
    Ok(with_problem(
        problem.clone(),
        OperationsPage {
            operations: page.operations,
            running_only: asked.get("running") == "true",
            next: page.next_cursor.map(|cursor| here(asked.next(&cursor))).unwrap_or_default(),
            back: asked.back().map(here).unwrap_or_default(),
            order: may_begin.then_some(order),
            shell: visit.shell.standing_at(here(asked.here()), problem.as_ref()),
            problem,
        },
    ))
}

/// Counts what a new operation would touch; its page asks whether to do it.
async fn count(posted: Posted) -> Result<Response, Refused> {
    let order = Order::of(&posted);
    let visit = posted.visit;
    match order.count(&visit.client).await {
        Ok(counted) => Ok(done(&page_of(&counted.id), Flash::good("counted; nothing was changed"))),
        Err(problem) if problem.is_correctable() => listed(visit, &Asked::default(), order, Some(problem)).await,
        Err(problem) => Err(problem),
    }
}

#[derive(Template)]
#[template(path = "operation.html")]
struct OperationDetail {
    shell: Shell,
    operation: Operation,
    /// Jobs that its dry run has counted, where it came from one.
    of: u64,
    /// Jobs that were ticked, where it came from ticked rows.
    chosen: u64,
    /// Some of the jobs, where it is a dry run.
    examples: Vec<Job>,
    /// How to do it, as it was typed; none where there is nothing to confirm.
    order: Option<Order>,
    is_stale: bool,
    may_abort: bool,
    problem: Option<Refused>,
    now_ms: i64,
}

impl OperationDetail {
    /// How long it took so far, in words.
    fn took(&self) -> String {
        self.operation.took_ms(self.now_ms).map(words::duration).unwrap_or_default()
    }

    /// Jobs a second so far.
    fn pace(&self) -> Option<String> {
        let ms = self.operation.took_ms(self.now_ms).filter(|ms| *ms >= 1_000)?;
        let per_minute = self.operation.done.saturating_mul(60_000) / u64::try_from(ms).ok()?;
        Some(match per_minute {
            slow if slow < 600 => format!("{slow} a minute"),
            quick => format!("{} a second", words::count(quick / 60)),
        })
    }

    /// The list of the jobs that it means; nothing where its address would be too long for servers and browsers.
    fn jobs_link(&self) -> Option<String> {
        Some(list_of(&self.operation.filter)).filter(|link| link.len() <= LINK_MAX_BYTES)
    }
}

async fn show(
    visit: Visit,
    Path(id): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, Refused> {
    let operation: Operation = visit.client.get(&path(&["v1", "operations", &id])).await?;
    let order = Order::like(&operation);
    detail(visit, operation, &Asked::of(pairs), order, None).await
}

async fn detail(
    visit: Visit,
    operation: Operation,
    asked: &Asked,
    order: Order,
    problem: Option<Refused>,
) -> Result<Response, Refused> {
    let number = |name: &str| asked.get(name).parse().unwrap_or(0);
    let now_ms = visit.shell.now_ms();
    let is_counted = operation.dry_run && operation.state == "done";
    let may_begin = visit.viewer.may("POST /v1/operations");
    let examples = match operation.dry_run && visit.viewer.may("GET /v1/jobs") {
        true => examples(&visit, &operation).await,
        false => Vec::new(),
    };
    Ok(with_problem(
        problem.clone(),
        OperationDetail {
            of: number("of"),
            chosen: number("chosen"),
            examples,
            order: (is_counted && may_begin && operation.would_touch() > 0).then_some(order),
            is_stale: operation.took_ms(now_ms).is_some()
                && words::ms_of(&operation.accepted_at).is_some_and(|at| now_ms - at > COUNT_STALE_MS),
            may_abort: operation.is_running() && visit.viewer.may("DELETE /v1/operations/{id}"),
            now_ms,
            shell: match visit.shell.standing_at(format!("{}{}", operation.href(), asked.here()), problem.as_ref()) {
                shell if operation.is_running() => shell,
                shell => shell.not_live(),
            },
            problem,
            operation,
        },
    ))
}

/// Some of the jobs that a dry run means. They are for the eye: what cannot be read is left out, and the counts stand.
async fn examples(visit: &Visit, operation: &Operation) -> Vec<Job> {
    let filter = format!("{} and {}", operation.filter, operation.of_states());
    let wanted = query(&[("filter", &filter), ("limit", &EXAMPLES.to_string())]);
    match visit.client.get::<JobPage>(&format!("/v1/jobs{wanted}")).await {
        Ok(page) => page.jobs,
        Err(refused) => {
            tracing::debug!(?refused, "a dry run is shown without examples");
            Vec::new()
        }
    }
}

/// Does what a dry run has counted, once somebody has typed how many jobs that are, and why.
async fn start(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let counted: Operation = posted.visit.client.get(&path(&["v1", "operations", &id])).await?;
    let order = Order::confirming(&counted, &posted);
    match begun(&counted, &order, &posted).await {
        Ok(operation) => {
            let to = format!("{}{}", page_of(&operation.id), query(&[("of", &counted.would_touch().to_string())]));
            Ok(done(&to, Flash::good(format!("{} has begun", operation.deed()))))
        }
        Err(problem) if problem.is_correctable() => {
            detail(posted.visit, counted, &Asked::default(), order, Some(problem)).await
        }
        Err(problem) => Err(problem),
    }
}

async fn begun(counted: &Operation, order: &Order, posted: &Posted) -> Result<Operation, Refused> {
    if !counted.dry_run || counted.state != "done" {
        return Err(Refused::new(StatusCode::CONFLICT, "only what a dry run has counted to its end can be confirmed"));
    }
    let count = counted.would_touch();
    if !posted.text("confirm").is_some_and(|typed| is_count(typed, count)) {
        return Err(Refused::field("confirm", format!("type {count}, the number of jobs, to confirm")));
    }
    posted.required("reason")?;
    order.begin(&posted.visit.client).await
}

async fn abort(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let api = path(&["v1", "operations", &id]);
    let operation: Operation = posted.visit.client.send(Method::DELETE, &api, None).await?;
    let text = format!("aborted: {} jobs were done, and stay so", words::count(operation.done));
    Ok(done(&page_of(&id), Flash::good(text)))
}
