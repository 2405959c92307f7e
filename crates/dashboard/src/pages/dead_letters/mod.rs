//! Dead letters by cause: how many, since when, what they have cost; and a way out for those of one cause, or for all.

mod archives;
mod group;

use askama::Template;
use axum::{
    Router,
    extract::Query,
    response::Response,
    routing::{get, post},
};
use serde::Deserialize;

use super::{
    jobs::asked::{Asked, quoted},
    operations::order::{Order, page_of},
};
use crate::{
    Dashboard,
    client::{Refused, path, query},
    form::{Flash, Posted, done},
    page::{Shell, with_problem},
    viewer::Visit,
    words,
};

/// The pages of dead letters.
pub(crate) fn routes() -> Router<Dashboard> {
    Router::new()
        .route("/dashboard/dead-letters", get(list))
        .route("/dashboard/dead-letters/operate", post(operate))
        .route("/dashboard/dead-letters/archives", get(archives::list))
        .route("/dashboard/dead-letters/archives/{id}/restore", post(archives::restore))
        .route("/dashboard/dead-letters/{signature}", get(group::show))
        .route("/dashboard/dead-letters/{signature}/canary", post(group::canary))
}

/// Dead letters of one cause.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Group {
    pub(super) signature: String,
    pub(super) class: String,
    pub(super) count: u64,
    pub(super) first_seen: String,
    pub(super) last_seen: String,
    pub(super) cost_usd: String,
}

impl Group {
    /// Its page.
    fn href(&self, queue: &str) -> String {
        format!("{}{}", path(&["dashboard", "dead-letters", &self.signature]), query(&[("queue", queue)]))
    }
}

#[derive(Deserialize)]
pub(super) struct Groups {
    pub(super) groups: Vec<Group>,
}

/// Which letters an order is about, as its form says it.
#[derive(Clone, Debug, Default)]
pub(super) struct Which {
    pub(super) signature: String,
    pub(super) queue: String,
    /// That died longer ago than this.
    pub(super) older_than: String,
}

impl Which {
    fn of(posted: &Posted) -> Self {
        let text = |name: &str| posted.text(name).unwrap_or_default().to_owned();
        Self { signature: text("signature"), queue: text("queue"), older_than: text("older_than") }
    }

    /// The filter that means them. Never empty.
    pub(super) fn as_filter(&self) -> String {
        let mut conditions = vec!["state = dead".to_owned()];
        let named =
            [("error.signature =", &self.signature), ("queue =", &self.queue), ("ended_age >", &self.older_than)];
        conditions.extend(
            named
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(what, value)| format!("{what} {}", quoted(value))),
        );
        conditions.join(" and ")
    }
}

#[derive(Template)]
#[template(path = "dead_letters.html")]
struct DeadLettersPage {
    shell: Shell,
    groups: Vec<Group>,
    /// The only queue that is looked at; empty for all.
    queue: String,
    letters: u64,
    spent_usd: String,
    /// The form that does something to all of them, as it was typed; none for who may begin no operation.
    form: Option<(Which, Order)>,
    may_archives: bool,
    problem: Option<Refused>,
}

async fn list(visit: Visit, Query(pairs): Query<Vec<(String, String)>>) -> Result<Response, Refused> {
    let queue = Asked::of(pairs).get("queue").to_owned();
    let which = Which { queue: queue.clone(), ..Which::default() };
    listed(visit, queue, (which, Order::default()), None).await
}

async fn listed(
    visit: Visit,
    queue: String,
    form: (Which, Order),
    problem: Option<Refused>,
) -> Result<Response, Refused> {
    let wanted = format!("/v1/dead-letters/groups{}", query(&[("queue", &queue)]));
    let (groups, problem) = match visit.client.get::<Groups>(&wanted).await {
        Ok(Groups { groups }) => (groups, problem),
        // A queue that cannot be one: said beside its field.
        Err(refused) if refused.is_correctable() => (Vec::new(), Some(refused)),
        Err(refused) => return Err(refused),
    };
    Ok(with_problem(
        problem.clone(),
        DeadLettersPage {
            letters: groups.iter().map(|group| group.count).sum(),
            spent_usd: sum_usd(groups.iter().map(|group| group.cost_usd.as_str())),
            groups,
            form: visit.viewer.may("POST /v1/operations").then_some(form),
            may_archives: visit.viewer.may("GET /v1/archives"),
            shell: visit
                .shell
                .standing_at(format!("/dashboard/dead-letters{}", query(&[("queue", &queue)])), problem.as_ref()),
            queue,
            problem,
        },
    ))
}

/// The sum of amounts as the API writes them.
fn sum_usd<'a>(amounts: impl Iterator<Item = &'a str>) -> String {
    words::decimal(amounts.filter_map(words::nanousd).sum())
}

/// Counts what an order about letters would touch; its page asks whether to do it.
async fn operate(posted: Posted) -> Result<Response, Refused> {
    let which = Which::of(&posted);
    let order = Order { filter: which.as_filter(), ..Order::of(&posted) };
    match order.count(&posted.visit.client).await {
        Ok(counted) => Ok(done(&page_of(&counted.id), Flash::good("counted; nothing was changed yet"))),
        Err(problem) if problem.is_correctable() && !which.signature.is_empty() => {
            let signature = which.signature.clone();
            group::detail(posted.visit, &signature, &Asked::default(), order, Some(problem)).await
        }
        Err(problem) if problem.is_correctable() => {
            let queue = which.queue.clone();
            listed(posted.visit, queue, (which, order), Some(problem)).await
        }
        Err(problem) => Err(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_named_by_what_is_given_and_never_by_nothing() {
        assert_eq!(Which::default().as_filter(), "state = dead");
        let which = Which { signature: "server:503:\"no\\\"".into(), queue: "llm".into(), older_than: "30d".into() };
        assert_eq!(
            which.as_filter(),
            r#"state = dead and error.signature = "server:503:\"no\\\"" and queue = "llm" and ended_age > "30d""#
        );
    }

    #[test]
    fn money_is_summed_to_the_last_digit() {
        assert_eq!(sum_usd(["0.000000001", "1.50", "0.30"].into_iter()), "1.800000001");
        assert_eq!(sum_usd([].into_iter()), "0.000000000");
    }
}
