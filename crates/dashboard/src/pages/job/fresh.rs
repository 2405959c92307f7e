//! A new job, as JSON: the same that the API takes, prefilled with a job that there is, if one was named.

use askama::Template;
use axum::{
    extract::Query,
    http::{Method, StatusCode},
    response::Response,
};
use serde::Deserialize;

use super::{
    actions::check_json,
    bodies::{Body, Part},
    copies::body_with,
};
use crate::{
    client::{Refused, path},
    form::{Flash, Posted, done},
    page::{Shell, html, html_refused},
    pages::jobs::{asked::Asked, page_of, row::Job},
    viewer::Visit,
    words,
};

/// What stands in the form if no job was named.
const EXAMPLE: &str = r#"{
  "queue": "default",
  "kind": "llm",
  "payload": {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 50}
}"#;

#[derive(Template)]
#[template(path = "job_new.html")]
struct NewJob {
    shell: Shell,
    /// The job that it is like.
    from: String,
    text: String,
    /// What makes two posts of this page one submit.
    once: String,
    problem: Option<Refused>,
}

#[derive(Deserialize)]
struct Accepted {
    id: String,
}

/// The form.
pub(super) async fn form(visit: Visit, Query(pairs): Query<Vec<(String, String)>>) -> Result<Response, Refused> {
    if !visit.viewer.may("POST /v1/jobs") {
        return Err(Refused::new(StatusCode::FORBIDDEN, "this key may not submit jobs"));
    }
    let asked = Asked::of(pairs);
    let from = asked.get("from").to_owned();
    let text = match from.as_str() {
        "" => EXAMPLE.to_owned(),
        from => like(&visit, from).await?,
    };
    let once = once(&visit, &from);
    Ok(html(NewJob { shell: visit.shell.not_live(), from, text, once, problem: None }))
}

/// The submit that made a job, as far as it is known: not whom it told of its end, and not how long its result was to be kept.
async fn like(visit: &Visit, id: &str) -> Result<String, Refused> {
    let job: Job = visit.client.get(&path(&["v1", "jobs", id])).await?;
    let payload = Body::of(visit, id, Part::Payload).await;
    if let Some(reason) = payload.refused {
        return Err(Refused::new(StatusCode::CONFLICT, format!("the payload cannot be read: {reason}")));
    }
    if !payload.is_whole {
        let reason = "its payload is too large for a form: take it as a file, and submit it with the CLI";
        return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, reason));
    }
    Ok(words::pretty_json(body_with(&job, &payload.raw)))
}

/// A name of this page as it was made for this viewer, now.
fn once(visit: &Visit, from: &str) -> String {
    let text = format!("{}/{}/{from}", visit.shell.csrf, visit.shell.now_ms());
    blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
}

/// Submits it.
pub(super) async fn submit(posted: Posted) -> Result<Response, Refused> {
    let text = posted.raw("job").unwrap_or_default().to_owned();
    let once = posted.text("once").unwrap_or_default();
    let sent = match check_json("job", &text) {
        Ok(()) => posted.visit.client.send_once::<Accepted>(Method::POST, "/v1/jobs", text.clone(), once).await,
        Err(refused) => Err(refused),
    };
    match sent {
        Ok(accepted) => Ok(done(&page_of(&accepted.id), Flash::good("submitted"))),
        Err(refused) if refused.is_correctable() || refused.status == 429 => {
            let from = posted.text("from").unwrap_or_default().to_owned();
            // Another text is another submit.
            let once = self::once(&posted.visit, &from);
            let shell = posted.visit.shell.not_live();
            Ok(html_refused(&refused, NewJob { shell, from, text, once, problem: Some(refused.clone()) }))
        }
        Err(refused) => Err(refused),
    }
}
