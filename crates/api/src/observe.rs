//! The outermost layer: gives each request its id, counts and times it, and writes the problem document of a refusal.

use std::{
    any::Any,
    net::IpAddr,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use queue_core::{telemetry, traces};
use uuid::Uuid;

use crate::{
    audit::{self, Peer},
    connections::OverTls,
    head, headers,
    problem::{self, Cause, Problem},
    traced,
};

/// Longest request id that a caller may give, in bytes: it is stored with the job.
const REQUEST_ID_MAX_BYTES: usize = 128;
/// What probes and scrapers ask for every few seconds, each of them, for ever: no line of a log.
const UNLOGGED: [&str; 5] = ["/livez", "/readyz", "/startupz", "/health", "/metrics"];
/// The header that carries it.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request is called, and the trace that it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Trail {
    /// The caller's request id, or one of ours.
    pub(crate) request_id: String,
    /// The caller's W3C trace context, if it is valid.
    pub(crate) traceparent: Option<String>,
}

/// Wraps every request.
pub(crate) async fn observe(mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = method_label(request.method());
    let path = request.extensions().get::<MatchedPath>().cloned();
    // Only patterns of known routes: a path as it was sent would make a label of whatever a scanner tries.
    let route = path.as_ref().map_or("unmatched", MatchedPath::as_str).to_owned();
    let is_logged = !UNLOGGED.contains(&route.as_str());
    let trail = Trail::of(request.headers());
    let request_id = trail.request_id.clone();
    let trace_id = trail.traceparent.as_deref().and_then(traces::trace_id).map(str::to_owned);
    let client = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let keyed = request.uri().path().starts_with("/v1");
    let over_tls = request.extensions().get::<OverTls>().is_some();
    request.extensions_mut().insert(trail);

    let response = match head::oversized(&request) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    };
    let mut response = problem::finish(response, &request_id, is_logged).await;
    // A submit without a caller's trace has begun one.
    let trace_id = trace_id.or_else(|| traced::trace_of(response.headers()));

    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        headers.insert(REQUEST_ID, value);
    }
    headers::dress(headers, over_tls);
    if keyed {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let (status, took) = (response.status(), began.elapsed());
    if is_logged {
        Line { request_id, trace_id, method, route: &route, status, client, took }.log();
    }
    let status = status.as_str().to_owned();
    metrics::counter!(telemetry::HTTP_REQUESTS, "method" => method, "route" => route.clone(), "status" => status)
        .increment(1);
    metrics::histogram!(telemetry::HTTP_DURATION, "method" => method, "route" => route).record(took.as_secs_f64());
    response
}

/// What a request leaves in the log: its route, never its path, query or headers, which may say whose something is.
struct Line<'a> {
    request_id: String,
    trace_id: Option<String>,
    method: &'static str,
    route: &'a str,
    status: StatusCode,
    client: Option<IpAddr>,
    took: Duration,
}

impl Line<'_> {
    /// Reads that end well are for those who look closer: dashboards and polls ask for them all day.
    fn log(self) {
        let Self { request_id, trace_id, method, route, status, client, took } = self;
        let (status, duration_ms) = (status.as_u16(), took.as_micros() as f64 / 1_000.0);
        if ["GET", "HEAD", "OPTIONS"].contains(&method) && status < 400 {
            tracing::debug!(
                request_id,
                trace_id,
                method,
                route,
                status,
                duration_ms,
                client = client.map(audit::truncated),
                "request"
            );
        } else {
            tracing::info!(
                request_id,
                trace_id,
                method,
                route,
                status,
                duration_ms,
                client = client.map(audit::truncated),
                "request"
            );
        }
    }
}

impl Trail {
    fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        let visible = |id: &&str| {
            (1..=REQUEST_ID_MAX_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
        Self {
            request_id: given.filter(visible).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned),
            traceparent: traceparent.filter(|text| traces::trace_id(text).is_some()).map(str::to_owned),
        }
    }
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// A path that no route has.
pub(crate) async fn no_route(request: Request) -> Problem {
    Problem::new(Cause::NotFound, format!("there is no {}", request.uri().path())).at("/path", "is not a known route")
}

/// A method that a route does not have.
pub(crate) async fn no_method(request: Request) -> Problem {
    let detail = format!("{} cannot be done with {}", request.method(), request.uri().path());
    Problem::new(Cause::MethodNotAllowed, detail)
        .at("/method", "is not allowed here; the header `Allow` names those that are")
}

/// A panic costs its request an answer of 500 and nothing else.
pub(crate) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(panic = text, "a request handler panicked");
    Problem::new(Cause::Internal, "the request handler failed; its log line has the cause").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_kept_only_if_it_is_short_and_visible() {
        let with = |id: &str| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(id).unwrap())]);
            Trail::of(&headers).request_id
        };
        assert_eq!(with("abc-1"), "abc-1");
        assert_eq!(with("two words").len(), 36);
        assert_eq!(with(&"x".repeat(129)).len(), 36);
    }
}
