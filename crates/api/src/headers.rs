//! What browsers are told about every answer, and which pages may call at all.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::{
    compression::{
        CompressionLayer,
        predicate::{DefaultPredicate, NotForContentType, Predicate, SizeAbove},
    },
    cors::{AllowOrigin, CorsLayer},
};

use crate::{request_limits, traced};

/// How long a browser may remember what it was allowed.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(60 * 60);
/// Smallest answer that is compressed, in bytes: below, it costs more than it saves.
const COMPRESS_ABOVE_BYTES: u64 = 1_024;

/// How long a browser that was here over TLS asks for this host in no other way: a year, as most do.
const TLS_ONLY: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Sets what every answer says. What a page of ours has said of itself stands.
pub(crate) fn dress(headers: &mut HeaderMap, over_tls: bool) {
    // In plain text it would mean nothing (RFC 6797).
    if over_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, TLS_ONLY);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(policy);
}

/// Compresses what a client takes compressed; event streams go as they come.
pub(crate) fn compression() -> CompressionLayer<impl Predicate + Send + Sync> {
    let worth_it = DefaultPredicate::new().and(SizeAbove::new(COMPRESS_ABOVE_BYTES));
    CompressionLayer::new().compress_when(worth_it.and(NotForContentType::new("text/event-stream")))
}

/// Lets pages of these origins call, with a key that they send themselves; `None` where no page may. Cookies are never
/// looked at, so none are allowed.
pub(crate) fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let sent = [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::IF_MATCH,
        HeaderName::from_static("idempotency-key"),
        HeaderName::from_static("last-event-id"),
        HeaderName::from_static("traceparent"),
        HeaderName::from_static("x-request-id"),
    ];
    let shown = [
        header::ETAG,
        header::LOCATION,
        header::RETRY_AFTER,
        request_limits::POLICY,
        request_limits::STANDING,
        HeaderName::from_static("idempotency-replayed"),
        traced::TRACE_RESPONSE,
        HeaderName::from_static("x-request-id"),
    ];
    // One that is no header value is no origin: the configuration has checked them.
    let origins: Vec<_> = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(sent)
        .expose_headers(shown)
        .max_age(PREFLIGHT_MAX_AGE);
    Some(layer)
}
