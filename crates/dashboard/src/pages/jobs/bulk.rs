//! One thing done to many jobs of a list: by an operation, which begins as a dry run; or, for who may begin none, one by one.

use askama::Template;
use axum::{Router, http::Method, response::Response, routing::post};
use serde_json::{Value, json};

use super::{Asked, Deed, deeds, show};
use crate::{
    Dashboard,
    client::{Client, Refused, path, query},
    form::{Flash, Posted, done},
    page::{Shell, html, with_problem},
    pages::operations::order::{IDS_MAX, Order, by_ids, is_count, page_of, states_of},
};

/// The page that lists what was asked, as the form carries it.
const ASKED: &str = "asked";

pub(super) fn routes() -> Router<Dashboard> {
    Router::new().route("/dashboard/jobs/bulk", post(begin)).route("/dashboard/jobs/bulk/each", post(each))
}

/// What a form of the list means.
async fn begin(posted: Posted) -> Result<Response, Refused> {
    let asked = asked_of(&posted);
    match counted(&posted, &asked).await {
        Ok(response) => Ok(response),
        Err(problem) if problem.is_correctable() => show(posted.visit, asked, Some(problem)).await,
        Err(problem) => Err(problem),
    }
}

fn asked_of(posted: &Posted) -> Asked {
    let text = posted.raw(ASKED).unwrap_or_default().trim_start_matches('?');
    Asked::of(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
}

async fn counted(posted: &Posted, asked: &Asked) -> Result<Response, Refused> {
    let deed = deed_of(posted)?;
    let (visit, ids) = (&posted.visit, posted.all("job"));
    if !visit.viewer.may("POST /v1/operations") {
        by_ids(&ids)?;
        return Ok(ask_for_each(posted, deed, &ids, None));
    }
    let is_all = posted.text("scope") == Some("all");
    let filter = if is_all { all_of(asked, deed)? } else { by_ids(&ids)? };
    let reason = posted.text("reason").unwrap_or_default().to_owned();
    let order = Order { action: deed.word.to_owned(), filter, reason, ..Order::default() };
    let counted = order.count(&visit.client).await?;
    let chosen = if is_all { String::new() } else { ids.len().to_string() };
    let to = format!("{}{}", page_of(&counted.id), query(&[("chosen", &chosen)]));
    Ok(done(&to, Flash::good("counted; nothing was changed yet")))
}

/// All jobs of a list to which this can be done.
fn all_of(asked: &Asked, deed: Deed) -> Result<String, Refused> {
    let filter = asked.as_filter().map_err(|reason| Refused::field("query/q", reason))?;
    Ok(if filter.is_empty() { states_of(deed.word).to_owned() } else { filter })
}

fn deed_of(posted: &Posted) -> Result<Deed, Refused> {
    let word = posted.required("action")?;
    let known = deeds(&posted.visit.viewer).into_iter().find(|deed| deed.word == word);
    known.ok_or_else(|| Refused::field("action", "is nothing that you may do to jobs"))
}

#[derive(Template)]
#[template(path = "jobs_each.html")]
struct EachPage {
    shell: Shell,
    deed: Deed,
    ids: Vec<String>,
    asked: String,
    reason: String,
    /// What became of each, once it was done.
    outcomes: Option<Vec<Outcome>>,
    problem: Option<Refused>,
}

impl EachPage {
    fn changed(&self) -> usize {
        self.outcomes.iter().flatten().filter(|outcome| outcome.refused.is_none()).count()
    }

    fn back(&self) -> String {
        format!("/dashboard/jobs{}", self.asked)
    }
}

/// What became of a job.
struct Outcome {
    id: String,
    /// Its state now.
    state: String,
    refused: Option<String>,
}

/// The page that names the jobs and asks whether to do it.
fn ask_for_each(posted: &Posted, deed: Deed, ids: &[&str], problem: Option<Refused>) -> Response {
    with_problem(
        problem.clone(),
        EachPage {
            shell: posted.visit.shell.clone().not_live(),
            deed,
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            asked: asked_of(posted).here(),
            reason: posted.text("reason").unwrap_or_default().to_owned(),
            outcomes: None,
            problem,
        },
    )
}

/// Does it to each, once somebody has typed how many they are.
async fn each(posted: Posted) -> Result<Response, Refused> {
    let ids: Vec<&str> = posted.all("job");
    by_ids(&ids)?;
    let deed = deed_of(&posted)?;
    let confirmed = posted.text("confirm").is_some_and(|typed| is_count(typed, ids.len() as u64));
    let problem = match (confirmed, posted.required("reason")) {
        (false, _) => Some(Refused::field("confirm", format!("type {}, the number of jobs, to confirm", ids.len()))),
        (true, Err(problem)) if deed.word == "cancel" => Some(problem),
        (true, _) => None,
    };
    if problem.is_some() {
        return Ok(ask_for_each(&posted, deed, &ids, problem));
    }
    let mut outcomes = Vec::with_capacity(ids.len().min(IDS_MAX));
    for id in &ids {
        outcomes.push(one(&posted.visit.client, deed, id, posted.text("reason")).await);
    }
    Ok(html(EachPage {
        deed,
        ids: Vec::new(),
        asked: asked_of(&posted).here(),
        reason: String::new(),
        outcomes: Some(outcomes),
        problem: None,
        shell: posted.visit.shell.not_live(),
    }))
}

async fn one(client: &Client, deed: Deed, id: &str, reason: Option<&str>) -> Outcome {
    let (address, body) = match deed.word {
        "cancel" => (path(&["v1", "jobs", id, "cancel"]), reason.map(|reason| json!({"reason": reason}))),
        _ => (path(&["v1", "dead-letters", id, "redrive"]), None),
    };
    match client.send::<Value>(Method::POST, &address, body.as_ref()).await {
        Ok(job) => {
            let state = job.get("state").and_then(Value::as_str).unwrap_or_default().to_owned();
            Outcome { id: id.to_owned(), state, refused: None }
        }
        Err(refused) => Outcome { id: id.to_owned(), state: String::new(), refused: Some(refused.detail) },
    }
}

#[cfg(test)]
mod tests {
    use super::{super::DEEDS, *};

    #[test]
    fn all_jobs_are_those_to_which_it_can_be_done() {
        let deed = |word: &str| DEEDS.into_iter().find(|deed| deed.word == word).unwrap();
        assert_eq!(all_of(&Asked::default(), deed("redrive")).unwrap(), "state = dead");
        let asked = Asked::of(vec![("queue".into(), "llm".into())]);
        assert_eq!(all_of(&asked, deed("cancel")).unwrap(), "queue = \"llm\"");
        let asked = Asked::of(vec![("q".into(), "x".into())]);
        assert_eq!(all_of(&asked, deed("cancel")).unwrap_err().at("/query/q").len(), 1);
    }
}
