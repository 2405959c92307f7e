//! Archives: dead letters that were taken out of the journal, and the way back.

use askama::Template;
use axum::{
    extract::{Path, Query},
    http::Method,
    response::Response,
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    client::{Refused, path, query},
    form::Posted,
    page::{Shell, with_problem},
    pages::{
        jobs::asked::Asked,
        operations::order::{is_count, page_of as operation_page},
    },
    viewer::Visit,
};

/// An archive.
#[derive(Deserialize)]
struct Archive {
    id: String,
    filter: String,
    reason: Option<String>,
    asked_by: String,
    began_at: String,
    letters: u64,
    objects: u64,
    bytes: u64,
    cost_usd: String,
}

impl Archive {
    /// The operation that made it.
    fn operation(&self) -> String {
        operation_page(&self.id)
    }

    /// Where it is restored.
    fn address(&self) -> String {
        restore_of(&self.id)
    }
}

fn restore_of(id: &str) -> String {
    path(&["dashboard", "dead-letters", "archives", id, "restore"])
}

#[derive(Deserialize)]
struct ArchiveList {
    archives: Vec<Archive>,
    next_cursor: Option<String>,
}

/// What a call has put back, or would.
#[derive(Deserialize)]
struct Restored {
    letters: u64,
    restored: u64,
    there: u64,
    damaged: Vec<Damage>,
    next_cursor: Option<String>,
}

/// An object that cannot be used.
#[derive(Deserialize)]
struct Damage {
    object: String,
    reason: String,
}

/// What was done with one archive just now.
struct Outcome {
    id: String,
    is_check: bool,
    restored: Restored,
}

impl Outcome {
    /// Where it goes on.
    fn address(&self) -> String {
        restore_of(&self.id)
    }
}

#[derive(Template)]
#[template(path = "archives.html")]
struct ArchivesPage {
    shell: Shell,
    archives: Vec<Archive>,
    next: String,
    back: String,
    may_restore: bool,
    outcome: Option<Outcome>,
    /// What was refused, and of which archive.
    problem: Option<Refused>,
    problem_of: String,
}

/// The list of archives.
pub(super) async fn list(visit: Visit, Query(pairs): Query<Vec<(String, String)>>) -> Result<Response, Refused> {
    listed(visit, &Asked::of(pairs), Ok(None), String::new()).await
}

async fn listed(
    visit: Visit,
    asked: &Asked,
    outcome: Result<Option<Outcome>, Refused>,
    problem_of: String,
) -> Result<Response, Refused> {
    let wanted = query(&[("cursor", asked.get("cursor")), ("limit", asked.get("limit"))]);
    let page: ArchiveList = visit.client.get(&format!("/v1/archives{wanted}")).await?;
    let here = |query: String| format!("/dashboard/dead-letters/archives{query}");
    let (outcome, problem) = match outcome {
        Ok(outcome) => (outcome, None),
        Err(problem) => (None, Some(problem)),
    };
    Ok(with_problem(
        problem.clone(),
        ArchivesPage {
            archives: page.archives,
            next: page.next_cursor.map(|cursor| here(asked.next(&cursor))).unwrap_or_default(),
            back: asked.back().map(here).unwrap_or_default(),
            may_restore: visit.viewer.may("POST /v1/archives/{id}/restore"),
            outcome,
            problem,
            problem_of,
            shell: visit.shell.not_live(),
        },
    ))
}

/// Puts letters back, or reads and checks their objects. A call works for some seconds; the page says where to go on.
pub(super) async fn restore(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    match restored(&id, &posted).await {
        Ok(outcome) => listed(posted.visit, &Asked::default(), Ok(Some(outcome)), String::new()).await,
        Err(problem) if problem.is_correctable() => listed(posted.visit, &Asked::default(), Err(problem), id).await,
        Err(problem) => Err(problem),
    }
}

async fn restored(id: &str, posted: &Posted) -> Result<Outcome, Refused> {
    let is_check = posted.text("mode") == Some("check");
    let mut body = json!({"dry_run": is_check});
    match posted.text("cursor") {
        Some(cursor) => body["cursor"] = json!(cursor),
        // What goes on was confirmed when it began.
        None if is_check => {}
        None => {
            let letters = posted.text("letters").and_then(|letters| letters.parse().ok()).unwrap_or(u64::MAX);
            if !posted.text("confirm").is_some_and(|typed| is_count(typed, letters)) {
                return Err(Refused::field("confirm", format!("type {letters}, the number of letters, to confirm")));
            }
        }
    }
    let api = path(&["v1", "archives", id, "restore"]);
    let restored = posted.visit.client.send(Method::POST, &api, Some(&body)).await?;
    Ok(Outcome { id: id.to_owned(), is_check, restored })
}
