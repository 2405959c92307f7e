//! `GET /v1/jobs/{id}/events`: watch a job as it runs.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Uri, header},
    response::{IntoResponse, Response},
};

use crate::{
    app::Shared,
    auth::Caller,
    params::{JobPath, Params},
    problem::{Document, Problem},
    routes::jobs::room,
    stream,
};

/// Streams what happens to a job until it has ended.
///
/// Events: `snapshot` (the job), `attempt_started`, `token` (text of the answer, with attempt and step),
/// `model_switched` (a call goes on with a fallback: text of its step that came before is void), `progress`,
/// `state`, `gap` (some events are gone), `result`, and last a `state` with the final state (and the `reason` of a cancel). A comment is sent every
/// 15 s of silence. The stream ends within 10 s after its key or token has ended or was revoked. `Last-Event-ID` resumes behind an event, at any server.
///
/// The tokens of one attempt and step make one answer. A new attempt begins anew; so does a step that is asked again
/// within one (a repair, another try), under the next name: `chat`, `chat#1`, `chat#2`. What was told before is void.
/// `chat/raised` replaces `chat`, `chat/continued/1` and so on go on where it was cut.
#[utoipa::path(get, path = "/v1/jobs/{id}/events", tag = "jobs", security(("key" = [])), params(
    ("id" = String, Path, description = "the job"),
    ("Last-Event-ID" = Option<String>, Header, description = "the last event that was seen"),
), responses(
    (status = 200, description = "server-sent events", body = String, content_type = "text/event-stream"),
    (status = 404, body = Document),
    (status = 503, description = "too many streams", body = Document),
))]
pub(crate) async fn events(
    State(app): State<Shared>,
    caller: Caller,
    JobPath(id): JobPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let position = last.and_then(stream::position_of);
    let room = room(&app)?;
    let pieces = stream::open(app, caller, id, position, room).await?;
    let mut response = Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Proxies that collect an answer before they pass it on would hold every token back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}
