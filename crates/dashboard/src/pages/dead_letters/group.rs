//! The dead letters of one cause: look at them, try a few, then redrive, archive or delete them.

use askama::Template;
use axum::{
    extract::{Path, Query},
    http::{Method, StatusCode},
    response::Response,
};
use serde_json::Value;

use super::{Group, Groups, Which};
use crate::{
    client::{Refused, path, query},
    form::{Flash, Posted, done},
    page::{Shell, with_problem},
    pages::{
        jobs::{
            Deed,
            asked::Asked,
            deeds, list_of,
            row::{Column, Job, JobPage},
        },
        operations::order::{Order, by_ids},
    },
    viewer::Visit,
    words,
};

/// Most letters that are tried before the others: each is one request.
const CANARY_MAX: u64 = 20;
/// Columns of the letters: the cause is the same, so what else they have in common is what matters.
const COLUMNS: [Column; 8] = [
    Column::Queue,
    Column::Tenant,
    Column::Operation,
    Column::Target,
    Column::Attempts,
    Column::Redrives,
    Column::Finished,
    Column::Cost,
];

#[derive(Template)]
#[template(path = "dead_letter_group.html")]
struct GroupPage {
    shell: Shell,
    group: Option<Group>,
    signature: String,
    queue: String,
    /// What the newest of them says.
    message: String,
    jobs: Vec<Job>,
    columns: [Column; 8],
    deeds: Vec<Deed>,
    may_all: bool,
    /// The list of these jobs, as the form of ticked rows carries it.
    asked: String,
    next: String,
    back: String,
    /// How to do something to all of them, as it was typed; none for who may begin no operation.
    order: Option<Order>,
    may_redrive: bool,
    problem: Option<Refused>,
}

impl GroupPage {
    fn address(&self, rest: &str) -> String {
        format!("{}{rest}", path(&["dashboard", "dead-letters", &self.signature]))
    }

    fn canary_max(&self) -> u64 {
        CANARY_MAX
    }
}

/// The page of a cause.
pub(super) async fn show(
    visit: Visit,
    Path(signature): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, Refused> {
    detail(visit, &signature, &Asked::of(pairs), Order::default(), None).await
}

pub(super) async fn detail(
    visit: Visit,
    signature: &str,
    asked: &Asked,
    order: Order,
    problem: Option<Refused>,
) -> Result<Response, Refused> {
    let queue = asked.get("queue");
    let groups = format!("/v1/dead-letters/groups{}", query(&[("queue", queue)]));
    let (cursor, limit) = (asked.get("cursor"), asked.get("limit"));
    let wanted = query(&[("signature", signature), ("queue", queue), ("cursor", cursor), ("limit", limit)]);
    let letters = format!("/v1/dead-letters{wanted}");
    let (groups, letters) = tokio::join!(visit.client.get::<Groups>(&groups), visit.client.get::<JobPage>(&letters));
    let (groups, letters) = (groups?, letters?);
    let group = groups.groups.into_iter().find(|group| group.signature == signature);
    if group.is_none() && letters.jobs.is_empty() && letters.next_cursor.is_none() && cursor.is_empty() {
        let detail = "no dead letter has this signature now: those that had it were redriven, archived or deleted";
        return Err(Refused::new(StatusCode::NOT_FOUND, detail));
    }
    let here = |query: String| format!("{}{query}", path(&["dashboard", "dead-letters", signature]));
    let which = Which { signature: signature.to_owned(), queue: queue.to_owned(), ..Which::default() };
    let message = letters.jobs.iter().find_map(|job| job.error.as_ref()).map(|error| error.message.clone());
    Ok(with_problem(
        problem.clone(),
        GroupPage {
            group,
            signature: signature.to_owned(),
            queue: queue.to_owned(),
            message: message.unwrap_or_default(),
            columns: COLUMNS,
            deeds: deeds(&visit.viewer).into_iter().filter(|deed| deed.is_for("dead")).collect(),
            may_all: visit.viewer.may("POST /v1/operations"),
            asked: query(&[("filter", &which.as_filter())]),
            next: letters.next_cursor.map(|cursor| here(asked.next(&cursor))).unwrap_or_default(),
            back: asked.back().map(here).unwrap_or_default(),
            jobs: letters.jobs,
            order: visit.viewer.may("POST /v1/operations").then_some(order),
            may_redrive: visit.viewer.may("POST /v1/dead-letters/{id}/redrive"),
            shell: visit.shell.standing_at(here(asked.here()), problem.as_ref()),
            problem,
        },
    ))
}

/// Redrives a few letters one by one: whether they pass now is better known before the others cost something. The answer is the
/// list of just these jobs, which shows live what becomes of them.
pub(super) async fn canary(Path(signature): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let asked = Asked::of(vec![("queue".to_owned(), posted.text("queue").unwrap_or_default().to_owned())]);
    match redriven(&signature, &asked, &posted).await {
        Ok((ids, failed)) => {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let list = list_of(&by_ids(&ids)?);
            let flash = match failed {
                0 => Flash::good(format!("{} redriven: this list shows what becomes of them", ids.len())),
                failed => Flash::bad(format!("{} redriven, {failed} refused", ids.len())),
            };
            Ok(done(&list, flash))
        }
        Err(problem) if problem.is_correctable() => {
            detail(posted.visit, &signature, &asked, Order::default(), Some(problem)).await
        }
        Err(problem) => Err(problem),
    }
}

async fn redriven(signature: &str, asked: &Asked, posted: &Posted) -> Result<(Vec<String>, usize), Refused> {
    let most = count_of(posted.required("canary")?)?;
    let wanted = [("signature", signature), ("queue", asked.get("queue")), ("limit", &most.to_string())];
    let client = &posted.visit.client;
    let page: JobPage = client.get(&format!("/v1/dead-letters{}", query(&wanted))).await?;
    let (mut ids, mut first) = (Vec::new(), None);
    let all = page.jobs.len();
    for job in page.jobs {
        let api = path(&["v1", "dead-letters", &job.id, "redrive"]);
        match client.send::<Value>(Method::POST, &api, None).await {
            Ok(_) => ids.push(job.id),
            Err(refused) => first = first.or(Some(refused)),
        }
    }
    match first {
        Some(refused) if ids.is_empty() => Err(refused),
        _ if ids.is_empty() => Err(Refused::field("canary", "there is no letter to try any more")),
        _ => Ok((ids.clone(), all - ids.len())),
    }
}

fn count_of(text: &str) -> Result<u64, Refused> {
    let count = text.parse().ok().filter(|count| (1..=CANARY_MAX).contains(count));
    count.ok_or_else(|| Refused::field("canary", format!("is a number from 1 to {}", words::count(CANARY_MAX))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_a_few() {
        assert_eq!(count_of("5").unwrap(), 5);
        for wrong in ["0", "21", "-1", "all", ""] {
            assert!(count_of(wrong).unwrap_err().at("/canary")[0].contains("1 to 20"), "{wrong}");
        }
    }
}
