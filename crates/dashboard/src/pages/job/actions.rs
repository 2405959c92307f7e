//! What can be done to one job. What does not fit is shown beside the field, with what was typed.

use axum::{extract::Path, http::Method, response::Response};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{Rejected, detail};
use crate::{
    client::{Refused, path},
    form::{Flash, Posted, done},
    pages::{
        jobs::page_of as job_page,
        operations::order::{Order, by_ids, page_of as operation_page},
    },
};

/// Ends a job; its call to a provider is dropped.
pub(super) async fn cancel(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let sent = match posted.required("reason") {
        Ok(reason) => {
            let api = path(&["v1", "jobs", &id, "cancel"]);
            posted.visit.client.send::<Value>(Method::POST, &api, Some(&json!({"reason": reason}))).await
        }
        Err(refused) => Err(refused),
    };
    told(sent, posted, &id, ("cancel", &["reason"]), "cancelled").await
}

/// Gives another priority, time or payload to a job that has not begun, if it is still as it was when the page was made.
pub(super) async fn change(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let sent = match change_of(&posted) {
        Ok(change) => {
            let tag = posted.text("if_match");
            posted.visit.client.send_text::<Value>(Method::PATCH, &path(&["v1", "jobs", &id]), change, tag).await
        }
        Err(refused) => Err(refused),
    };
    told(sent, posted, &id, ("change", &["priority", "run_at", "payload"]), "changed").await
}

fn change_of(posted: &Posted) -> Result<String, Refused> {
    let mut members = Vec::new();
    if let Some(priority) = posted.text("priority") {
        // What is no number goes as text: the API says what is wrong with it.
        let value = priority.parse::<u64>().map_or_else(|_| json!(priority), |number| json!(number));
        members.push(format!("\"priority\":{value}"));
    }
    if let Some(run_at) = posted.text("run_at") {
        members.push(format!("\"run_at\":{}", json!(run_at)));
    }
    if let Some(payload) = payload_of(posted)? {
        members.push(format!("\"payload\":{payload}"));
    }
    Ok(format!("{{{}}}", members.join(",")))
}

/// The payload that was typed, as it was typed; nothing where it was left alone.
fn payload_of(posted: &Posted) -> Result<Option<String>, Refused> {
    let Some(text) = posted.text("payload") else { return Ok(None) };
    check_json("payload", text)?;
    Ok(Some(text.to_owned()))
}

/// Refuses what is no JSON, with the place: within a larger text nobody would find it again.
pub(super) fn check_json(field: &str, text: &str) -> Result<(), Refused> {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(Refused::field(field, format!("is not JSON: {error}"))),
    }
}

/// Gives a dead letter another life, with another payload if one was typed.
pub(super) async fn redrive(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let sent = match payload_of(&posted) {
        Ok(payload) => {
            let api = path(&["v1", "dead-letters", &id, "redrive"]);
            match payload {
                Some(payload) => {
                    let body = format!("{{\"payload\":{payload}}}");
                    posted.visit.client.send_text::<Value>(Method::POST, &api, body, None).await
                }
                None => posted.visit.client.send::<Value>(Method::POST, &api, None).await,
            }
        }
        Err(refused) => Err(refused),
    };
    told(sent, posted, &id, ("redrive", &["payload"]), "redriven: it is live again").await
}

/// Counts what an operation on this one job would do; its page asks whether to do it.
pub(super) async fn operate(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let order = Order { filter: by_ids(&[&id])?, force: posted.is_on("force"), ..Order::of(&posted) };
    match order.count(&posted.visit.client).await {
        Ok(counted) => Ok(done(&operation_page(&counted.id), Flash::good("counted; nothing was changed yet"))),
        Err(refused) => told(Err(refused), posted, &id, ("operate", &["reason"]), "").await,
    }
}

/// The page again: changed, or with what was wrong.
async fn told(
    sent: Result<Value, Refused>,
    posted: Posted,
    id: &str,
    (form, fields): (&'static str, &[&'static str]),
    good: &str,
) -> Result<Response, Refused> {
    match sent {
        Ok(_) => Ok(done(&job_page(id), Flash::good(good))),
        Err(refused) if refused.is_correctable() => {
            let text = |field: &&'static str| (*field, posted.raw(field).unwrap_or_default().to_owned());
            let typed: Vec<_> = fields.iter().map(text).collect();
            // A payload that was typed is shown again where it was: the page with the payload.
            let show = if posted.text("payload").is_some() { "payload" } else { "" };
            detail(posted.visit, id, show, Some(Rejected { form, refused, typed })).await
        }
        Err(refused) => Err(refused),
    }
}
