//! What can be done to a queue.

use axum::{extract::Path, http::Method, response::Response};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{close, href};
use crate::{
    client::{Refused, path},
    form::{Flash, Posted, done},
    viewer::Visit,
};

/// Spans for which a pause is offered.
const SPANS: [(&str, i64); 5] = [("15m", 15), ("1h", 60), ("4h", 4 * 60), ("12h", 12 * 60), ("3d", 3 * 24 * 60)];

/// Claims skip it from now on.
pub(super) async fn pause(Path(queue): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let wish = pausing(&posted);
    let name = queue.clone();
    settle(queue, posted.visit, wish, None, format!("{name} is paused: what runs goes on, nothing new begins.")).await
}

fn pausing(posted: &Posted) -> Result<Value, Refused> {
    let reason = posted.required("reason")?;
    let mut wish = json!({ "paused": true, "reason": reason });
    if let Some(span) = posted.text("for") {
        wish["until"] = json!(end_of(span, posted.visit.shell.now)?);
    }
    Ok(wish)
}

/// When a pause of this span ends.
fn end_of(span: &str, now: Timestamp) -> Result<String, Refused> {
    let minutes = SPANS.iter().find(|(known, _)| *known == span).map(|(_, minutes)| *minutes);
    let end = minutes.and_then(|minutes| now.checked_add(SignedDuration::from_mins(minutes)).ok());
    end.map(|end| end.to_string()).ok_or_else(|| Refused::field("for", "is none of the spans that are offered"))
}

/// Claims take it again.
pub(super) async fn resume(Path(queue): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let told = format!("{queue} is open again.");
    settle(queue, posted.visit, Ok(json!({ "paused": false })), None, told).await
}

/// New jobs are refused, or taken again.
pub(super) async fn drain(Path(queue): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let on = posted.required("on")? == "true";
    let told = match on {
        true => format!("{queue} takes no new jobs; those that it has go on."),
        false => format!("{queue} takes jobs again."),
    };
    settle(queue, posted.visit, Ok(json!({ "draining": on })), None, told).await
}

/// What it may.
pub(super) async fn limits(Path(queue): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let wish = limiting(&posted);
    let tag = posted.text("tag").map(str::to_owned);
    let told = format!("The limits of {queue} are set.");
    settle(queue, posted.visit, wish, tag, told).await
}

fn limiting(posted: &Posted) -> Result<Value, Refused> {
    let mut wish = Map::new();
    for name in ["concurrency", "key_concurrency"] {
        let number = posted
            .text(name)
            .map(|text| text.parse::<u64>().map_err(|_| Refused::field(name, format!("`{text}` is no whole number"))));
        wish.insert(name.to_owned(), number.transpose()?.map_or(Value::Null, Value::from));
    }
    for name in ["timeout", "retention"] {
        wish.insert(name.to_owned(), posted.text(name).map_or(Value::Null, Value::from));
    }
    Ok(Value::Object(wish))
}

/// Asks for a change, and shows the queue with what came of it.
async fn settle(
    queue: String,
    visit: Visit,
    wish: Result<Value, Refused>,
    tag: Option<String>,
    told: String,
) -> Result<Response, Refused> {
    let changed = match wish {
        Err(refused) => Err(refused),
        Ok(wish) => {
            let (client, path) = (&visit.client, path(&["v1", "queues", &queue]));
            let sent: Result<Value, Refused> = match tag {
                Some(tag) => client.send_if(Method::PATCH, &path, Some(&wish), &tag).await,
                None => client.send(Method::PATCH, &path, Some(&wish)).await,
            };
            sent
        }
    };
    match changed {
        Ok(_) => Ok(done(&href(&queue), Flash::good(told))),
        Err(refused) if refused.is_correctable() => close::with(queue, visit, Some(refused)).await,
        Err(refused) => Err(refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_after_a_span_that_is_offered() {
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        assert_eq!(end_of("1h", now).unwrap(), "2026-11-30T13:00:00Z");
        assert_eq!(end_of("2y", now).unwrap_err().at("/for").len(), 1);
    }
}
