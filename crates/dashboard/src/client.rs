//! Asks the API, in process, as the viewer: the same router, the same checks, the same audit log as for anybody else.

use std::fmt::Write;

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tower::ServiceExt;

use crate::Dashboard;

/// Largest answer that a page is made of, in bytes: far more than the largest list of the API.
const ANSWER_MAX_BYTES: usize = 16 * 1024 * 1024;
/// What stands in a segment of a path as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// The API as one viewer sees it.
#[derive(Clone)]
pub(crate) struct Client {
    api: Router,
    bearer: String,
    carried: Parts,
}

/// What the API refused, as it said it (RFC 9457). A page that returns it becomes a page that shows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Refused {
    /// The HTTP status.
    pub(crate) status: u16,
    /// What kind of problem it is.
    pub(crate) title: String,
    /// What happened this time.
    pub(crate) detail: String,
    /// Each wrong field.
    pub(crate) errors: Vec<FieldError>,
    /// When to ask again, in seconds.
    #[serde(rename = "retry_after_seconds")]
    pub(crate) retry_after: Option<u32>,
    /// What the log lines of this request are found by.
    pub(crate) request_id: Option<String>,
}

/// One wrong field.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct FieldError {
    /// JSON pointer into the body; `/query/…`, `/path/…` or `/header/…` for what is outside it.
    pub(crate) pointer: String,
    /// What is wrong and what is allowed.
    #[serde(rename = "reason")]
    pub(crate) detail: String,
}

impl Refused {
    /// A refusal of our own.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            detail: detail.into(),
            ..Self::default()
        }
    }

    /// A form with one wrong field.
    pub(crate) fn field(name: &str, reason: impl Into<String>) -> Self {
        let error = FieldError { pointer: format!("/{name}"), detail: reason.into() };
        Self { errors: vec![error], ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "1 field is wrong") }
    }

    /// What is wrong with the field that this pointer names, or with something in it.
    pub(crate) fn at(&self, pointer: &str) -> Vec<&str> {
        let is_there = |error: &&FieldError| {
            let rest = error.pointer.strip_prefix(pointer);
            rest.is_some_and(|rest| rest.is_empty() || (rest.starts_with('/') && !pointer.is_empty()))
        };
        self.errors.iter().filter(is_there).map(|error| error.detail.as_str()).collect()
    }

    /// The status.
    pub(crate) fn code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether it would help to send the form again, corrected: then the page shows it with the problem beside the field.
    pub(crate) fn is_correctable(&self) -> bool {
        matches!(self.status, 400 | 409 | 412 | 422)
    }
}

impl IntoResponse for Refused {
    /// The layer around all pages writes the page: it knows the viewer.
    fn into_response(self) -> Response {
        let mut response = self.code().into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl Client {
    /// The API as the bearer sees it; `parts` are those of the browser's request.
    pub(crate) fn as_bearer(dashboard: &Dashboard, bearer: &str, parts: &Parts) -> Self {
        let (mut carried, ()) = Request::new(()).into_parts();
        (dashboard.carry)(parts, &mut carried);
        Self { api: dashboard.api.clone(), bearer: bearer.to_owned(), carried }
    }

    /// Reads something.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path_and_query: &str) -> Result<T, Refused> {
        self.get_tagged(path_and_query).await.map(|(value, _)| value)
    }

    /// Reads something with its `ETag`.
    pub(crate) async fn get_tagged<T: DeserializeOwned>(
        &self,
        path_and_query: &str,
    ) -> Result<(T, Option<String>), Refused> {
        let response = self.ask(Method::GET, path_and_query, None, &[]).await?;
        let tag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        Ok((read(response).await?, tag))
    }

    /// Changes something. `T` is `()` or [`Value`] where the answer does not matter.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Refused> {
        let body = body.map(Value::to_string);
        read(self.ask(method, path, body, &[]).await?).await
    }

    /// Changes something that is still as it was when it was read.
    pub(crate) async fn send_if<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: &str,
    ) -> Result<T, Refused> {
        let body = body.map(Value::to_string);
        read(self.ask(method, path, body, &[("if-match", if_match)]).await?).await
    }

    /// Sends JSON as somebody wrote it: reading it would reorder its keys and round its numbers.
    pub(crate) async fn send_text<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        json: String,
        if_match: Option<&str>,
    ) -> Result<T, Refused> {
        let tag = if_match.map(|tag| ("if-match", tag));
        read(self.ask(method, path, Some(json), tag.as_slice()).await?).await
    }

    /// Sends JSON as somebody wrote it, so that sending it twice under one `key` is sending it once.
    pub(crate) async fn send_once<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        json: String,
        key: &str,
    ) -> Result<T, Refused> {
        read(self.ask(method, path, Some(json), &[("idempotency-key", key)]).await?).await
    }

    /// Reads something as it is, at most so many bytes of it; says whether that was all.
    pub(crate) async fn text(&self, path_and_query: &str, max_bytes: usize) -> Result<(String, bool), Refused> {
        let response = self.ask(Method::GET, path_and_query, None, &[]).await?;
        let bytes = whole(response).await?;
        let cut = &bytes[..bytes.len().min(max_bytes)];
        Ok((String::from_utf8_lossy(cut).into_owned(), bytes.len() <= max_bytes))
    }

    /// Passes an answer on as it comes: streams, and bodies that no page shows. Only `last_event_id` is passed on with the request.
    pub(crate) async fn forward(&self, path_and_query: &str, headers: &HeaderMap) -> Result<Response, Refused> {
        let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
        let last = last.map(|last| ("last-event-id", last));
        self.ask(Method::GET, path_and_query, None, last.as_slice()).await
    }

    async fn ask(
        &self,
        method: Method,
        path_and_query: &str,
        json: Option<String>,
        headers: &[(&str, &str)],
    ) -> Result<Response, Refused> {
        let mut request = Request::builder()
            .method(method)
            .uri(path_and_query)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.bearer));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if json.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(json.map_or_else(Body::empty, Body::from)).map_err(|error| {
            tracing::debug!(%error, "a page asks for what is no address");
            Refused::new(StatusCode::BAD_REQUEST, "the address cannot be read")
        })?;
        let (mut parts, body) = request.into_parts();
        parts.extensions = self.carried.extensions.clone();
        parts.headers.extend(self.carried.headers.clone());
        let response = match self.api.clone().oneshot(Request::from_parts(parts, body)).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = whole(response).await?;
        let refused = serde_json::from_slice::<Refused>(&bytes).unwrap_or_default();
        // What is no problem document has at least its status.
        Err(if refused.status == 0 { Refused::new(status, "the API gave no reason") } else { refused })
    }
}

async fn whole(response: Response) -> Result<Bytes, Refused> {
    axum::body::to_bytes(response.into_body(), ANSWER_MAX_BYTES).await.map_err(|error| {
        tracing::warn!(%error, "an answer of the API broke off, or is larger than a page can show");
        Refused::new(StatusCode::BAD_GATEWAY, "the answer of the API could not be read to its end")
    })
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, Refused> {
    let bytes = whole(response).await?;
    // What has no body (204) reads as null.
    let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
    match serde_json::from_slice(bytes) {
        Ok(value) => Ok(value),
        // Whoever asks for nothing takes anything.
        Err(_) if size_of::<T>() == 0 && serde_json::from_slice::<T>(b"null").is_ok() => {
            serde_json::from_slice(b"null").map_err(|error| unreadable(&error))
        }
        Err(error) => Err(unreadable(&error)),
    }
}

fn unreadable(error: &serde_json::Error) -> Refused {
    tracing::error!(%error, "an answer of the API is not what this page knows");
    Refused::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("the answer of the API is not what this page knows: {error}"),
    )
}

/// A path of these segments, each as it must be written: `path(&["v1", "queues", name])`.
pub(crate) fn path(segments: &[&str]) -> String {
    let mut path = String::new();
    for segment in segments {
        // A dot segment would be resolved away by whoever reads the address.
        let text = match *segment {
            "." => "%2E".to_owned(),
            ".." => "%2E%2E".to_owned(),
            segment => utf8_percent_encode(segment, SEGMENT).to_string(),
        };
        // Writing into a string does not fail.
        let _ = write!(path, "/{text}");
    }
    path
}

/// A query of these pairs without the empty ones, with its question mark: `?a=b&c=d`, or nothing.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let mut encoded = form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        encoded.append_pair(name, value);
    }
    match encoded.finish() {
        text if text.is_empty() => text,
        text => format!("?{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_addresses_must_be() {
        assert_eq!(path(&["v1", "queues", "a b/c?d#e%<\"é"]), "/v1/queues/a%20b%2Fc%3Fd%23e%25%3C%22%C3%A9");
        assert_eq!(path(&["v1", "targets", "openai:gpt-4o:shared"]), "/v1/targets/openai:gpt-4o:shared");
        assert_eq!(path(&["v1", "queues", ".."]), "/v1/queues/%2E%2E");
        assert_eq!(query(&[("q", "a&b=c d"), ("state", ""), ("n", "é")]), "?q=a%26b%3Dc+d&n=%C3%A9");
        assert_eq!(query(&[("q", "")]), "");
    }

    #[test]
    fn reasons_are_found_by_their_field() {
        let text = r#"{"status":422,"title":"t","detail":"d","errors":[
            {"pointer":"/cron","reason":"no"},{"pointer":"/limits/rpm","reason":"low"}],"retry_after_seconds":3}"#;
        let refused: Refused = serde_json::from_str(text).unwrap();
        assert_eq!((refused.at("/cron"), refused.at("/limits"), refused.at("/cro")), (vec!["no"], vec!["low"], vec![]));
        assert_eq!((refused.retry_after, refused.is_correctable()), (Some(3), true));
    }
}
