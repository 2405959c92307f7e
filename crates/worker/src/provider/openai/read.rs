//! Reading what a provider sends, never more than is bearable and never longer than is useful.

use std::time::Duration;

use queue_core::{error::ErrorClass, ledger::Billed};
use reqwest::{
    Response,
    header::{CONTENT_TYPE, HeaderMap},
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    assembly::{ANSWER_MAX_BYTES, Assembly, Broken, Step},
    errors,
    sse::{EVENT_MAX_BYTES, Event, Parser},
};
use crate::provider::CallError;

/// How long to wait for token counts and the end mark once the answer itself is complete.
const AFTER_FINISH: Duration = Duration::from_secs(2);
/// How long to wait for the end of the body after the end mark: read to its end, the connection can be used again.
const AFTER_DONE: Duration = Duration::from_millis(50);

/// How long to wait for pieces of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From the head to the first.
    pub(super) first_byte: Duration,
    /// Between two.
    pub(super) chunk: Duration,
}

type OnText<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// A stream that broke off or stands still. Nobody knows what it cost.
pub(super) fn broken(code: &str, message: impl Into<String>) -> CallError {
    CallError::costly(ErrorClass::StreamBroken, code, message, Billed::Maybe, None)
}

/// An answer that was given and is of no use.
pub(super) fn unusable(code: &str, message: impl Into<String>, billed: Billed) -> CallError {
    CallError::costly(ErrorClass::InvalidOutput, code, message, billed, None)
}

/// Whether a body is a page for people.
pub(super) fn is_html(headers: &HeaderMap) -> bool {
    content_type(headers).contains("html")
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default()
}

/// Reads a chat answer into `arrived`, as events or, from servers that do not stream, as one JSON body.
pub(super) async fn answer(
    response: Response,
    patience: Patience,
    on_text: OnText<'_>,
    arrived: &mut Assembly,
) -> Result<(), CallError> {
    let headers = response.headers().clone();
    if content_type(&headers).contains("event-stream") {
        return stream(response, &headers, patience, on_text, arrived).await;
    }
    let body = whole(response, ANSWER_MAX_BYTES + EVENT_MAX_BYTES, patience).await?;
    let start = body.trim_ascii_start();
    if [b"data:".as_slice(), b"event:", b":"].iter().any(|mark| start.starts_with(mark)) {
        return events_of(&body, &headers, on_text, arrived);
    }
    let taken = arrived.accept_whole(&body, on_text);
    taken.map_err(|reason| match reason {
        Broken::Malformed if is_html(&headers) => unusable("not_json", "the answer is a page of HTML", Billed::Maybe),
        Broken::Malformed => unusable("not_json", "the answer is not JSON", Billed::Yes),
        Broken::Empty => unusable("no_choice", "the answer contains no choice", Billed::Yes),
        other => why_broken(other, &headers),
    })
}

async fn stream(
    mut response: Response,
    headers: &HeaderMap,
    patience: Patience,
    on_text: OnText<'_>,
    arrived: &mut Assembly,
) -> Result<(), CallError> {
    let mut parser = Parser::default();
    let mut events = Vec::new();
    let Patience { first_byte, chunk } = patience;
    let mut patience = first_byte;
    let mut due = Instant::now() + patience;
    loop {
        let piece = match timeout_at(due, response.chunk()).await {
            Ok(Ok(Some(piece))) => piece,
            Ok(Ok(None)) => return last_event(&mut parser, headers, on_text, arrived),
            // The answer is whole: what is missing now are token counts and the end mark.
            Err(_) | Ok(Err(_)) if arrived.is_finished() => return Ok(()),
            Err(_) => return Err(broken("stalled", format!("nothing of the answer for {patience:?}"))),
            Ok(Err(error)) => return Err(broken("connection_lost", errors::causes(&error))),
        };
        push(&mut parser, &piece, &mut events)?;
        for event in events.drain(..) {
            match arrived.accept(&event, on_text).map_err(|reason| why_broken(reason, headers))? {
                Step::Done => {
                    let _ = timeout(AFTER_DONE, response.chunk()).await;
                    return Ok(());
                }
                Step::Moved => {
                    patience = if arrived.is_finished() { AFTER_FINISH } else { chunk };
                    due = Instant::now() + patience;
                }
                Step::Idle => {}
            }
        }
    }
}

/// A stream that arrived under another name, all at once.
fn events_of(body: &[u8], headers: &HeaderMap, on_text: OnText<'_>, arrived: &mut Assembly) -> Result<(), CallError> {
    let (mut parser, mut events) = (Parser::default(), Vec::new());
    push(&mut parser, body, &mut events)?;
    for event in events {
        if arrived.accept(&event, on_text).map_err(|reason| why_broken(reason, headers))? == Step::Done {
            return Ok(());
        }
    }
    last_event(&mut parser, headers, on_text, arrived)
}

fn push(parser: &mut Parser, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), CallError> {
    let too_large = |_| broken("event_too_large", format!("one event is longer than {EVENT_MAX_BYTES} bytes"));
    parser.push(bytes, events).map_err(too_large)
}

/// What the end of the body cut off: often only an empty line, sometimes half an event, which is then no event.
fn last_event(
    parser: &mut Parser,
    headers: &HeaderMap,
    on_text: OnText<'_>,
    arrived: &mut Assembly,
) -> Result<(), CallError> {
    match parser.end().map(|event| arrived.accept(&event, on_text)) {
        None | Some(Ok(_) | Err(Broken::Malformed)) => Ok(()),
        Some(Err(reason)) => Err(why_broken(reason, headers)),
    }
}

fn why_broken(reason: Broken, headers: &HeaderMap) -> CallError {
    match reason {
        Broken::Error(reported) => errors::classify_reported(headers, &reported),
        Broken::Malformed => broken("malformed", "a piece of the stream is not JSON"),
        Broken::Empty => broken("empty", "there is no answer in it"),
        Broken::TooLarge => {
            let message = format!("the answer is longer than {ANSWER_MAX_BYTES} bytes or calls too many tools");
            let mut failure = unusable("answer_too_large", message, Billed::Maybe);
            // The next one would be as long, and cost as much.
            failure.error.retryable = false;
            failure
        }
    }
}

/// A whole body of at most `limit` bytes.
pub(super) async fn whole(mut response: Response, limit: usize, patience: Patience) -> Result<Vec<u8>, CallError> {
    let mut body = Vec::new();
    let Patience { first_byte, chunk } = patience;
    let mut patience = first_byte;
    loop {
        match timeout(patience, response.chunk()).await {
            Ok(Ok(Some(piece))) => body.extend_from_slice(&piece),
            Ok(Ok(None)) => return Ok(body),
            Ok(Err(error)) => return Err(broken("connection_lost", errors::causes(&error))),
            Err(_) => return Err(broken("stalled", format!("nothing of the answer for {patience:?}"))),
        }
        if body.len() > limit {
            let mut failure =
                unusable("answer_too_large", format!("the answer is longer than {limit} bytes"), Billed::Yes);
            failure.error.retryable = false;
            return Err(failure);
        }
        patience = chunk;
    }
}

/// The first `limit` bytes of a body, or as many as arrive within `patience`.
pub(super) async fn up_to(mut response: Response, limit: usize, patience: Duration) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(piece)) = response.chunk().await {
            body.extend_from_slice(&piece);
            if body.len() >= limit {
                break;
            }
        }
    };
    // Too slow is as good as cut: what has arrived is used.
    let _ = timeout(patience, read).await;
    body.truncate(limit);
    body
}

#[cfg(test)]
mod bad_input;
