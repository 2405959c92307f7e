//! The span of a submit. Behind authentication: whoever is nobody makes no spans.

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method},
    middleware::Next,
    response::Response,
};
use queue_core::{
    ids::{JobId, Name},
    traces::{self, Sending},
};

use crate::observe::Trail;

/// Says in which trace a submit is (<https://www.w3.org/TR/trace-context-2/>, `traceresponse`).
pub(crate) const TRACE_RESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// The trace that the answer to a submit names.
pub(crate) fn trace_of(headers: &HeaderMap) -> Option<String> {
    traces::trace_id(headers.get(TRACE_RESPONSE)?.to_str().ok()?).map(str::to_owned)
}

/// What a submit came to: an extension of its answer.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// The queue of its jobs, where all are of one.
    pub(crate) queue: Option<Name>,
    /// The job, where it is one.
    pub(crate) job: Option<JobId>,
    /// So many were accepted.
    pub(crate) jobs: usize,
}

/// Wraps every keyed request where this process makes spans. Of a submit, what is stored with the jobs is its span's context.
pub(crate) async fn submits(mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if request.method() != Method::POST || !matches!(path, Some("/v1/jobs" | "/v1/jobs/bulk")) {
        return next.run(request).await;
    }
    let caller = request.extensions().get::<Trail>().and_then(|trail| trail.traceparent.clone());
    let Some(mut sending) = Sending::begin(caller.as_deref()) else { return next.run(request).await };
    let traceparent = sending.traceparent();
    if let (Some(trail), Some(own)) = (request.extensions_mut().get_mut::<Trail>(), &traceparent) {
        trail.traceparent = Some(own.clone());
    }

    let mut response = next.run(request).await;
    if let Some(value) = traceparent.and_then(|text| HeaderValue::try_from(text).ok()) {
        response.headers_mut().insert(TRACE_RESPONSE, value);
    }
    if let Some(sent) = response.extensions().get::<Sent>() {
        sending.about(sent.queue.as_ref(), sent.job, sent.jobs);
    }
    let status = response.status();
    let failed = status.is_client_error() || status.is_server_error();
    sending.end(failed.then(|| status.as_str().to_owned()));
    response
}
