use ErrorClass as C;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::json;

use super::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair =
        |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    HeaderMap::from_iter(pairs.iter().map(pair))
}

/// One answer and what must become of it: class, code, billed, wish for a pause.
struct Row {
    name: &'static str,
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: String,
    class: ErrorClass,
    code: &'static str,
    billed: Billed,
    wait_ms: Option<u64>,
}

fn row(name: &'static str, status: u16, body: impl ToString, class: ErrorClass, code: &'static str) -> Row {
    Row { name, status, headers: &[], body: body.to_string(), class, code, billed: Billed::No, wait_ms: None }
}

impl Row {
    fn with(mut self, headers: &'static [(&'static str, &'static str)], wait_ms: Option<u64>) -> Self {
        (self.headers, self.wait_ms) = (headers, wait_ms);
        self
    }

    fn billed(mut self, billed: Billed) -> Self {
        self.billed = billed;
        self
    }
}

fn error(message: &str, kind: &str, code: Value) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

const HTML: &str =
    "<html>\r\n<head><title>502 Bad Gateway</title></head><body><center><h1>502</h1></center></body></html>";

fn rate_rows() -> Vec<Row> {
    let limit = error(
        "Rate limit reached for gpt-4o in organization org-x on requests",
        "requests",
        json!("rate_limit_exceeded"),
    );
    let quota = error("You exceeded your current quota", "insufficient_quota", json!("insufficient_quota"));
    vec![
        row("rate with pause", 429, &limit, C::Rate, "rate_limit_exceeded").with(&[("retry-after", "7")], Some(7_000)),
        row("rate, milliseconds win", 429, &limit, C::Rate, "rate_limit_exceeded")
            .with(&[("retry-after", "7"), ("retry-after-ms", "120")], Some(120)),
        row("rate, window", 429, &limit, C::Rate, "rate_limit_exceeded")
            .with(&[("x-ratelimit-reset-requests", "6m0s"), ("x-ratelimit-reset-tokens", "17ms")], Some(360_000)),
        row("rate, no wish", 429, &limit, C::Rate, "rate_limit_exceeded"),
        row("slow down", 429, error("slow", "server_error", json!("slow_down")), C::Rate, "slow_down"),
        row("slow down, older", 503, error("slow", "server_error", json!("slow_down")), C::Rate, "slow_down"),
        row("rate with a number", 429, error("busy", "", json!(429)), C::Rate, "429"),
        row("rate in HTML", 429, HTML, C::Rate, "429").with(&[("retry-after", "2")], Some(2_000)),
        row(
            "rate, Google",
            429,
            r#"[{"error":{"code":429,"message":"x","status":"RESOURCE_EXHAUSTED"}}]"#,
            C::Rate,
            "RESOURCE_EXHAUSTED",
        ),
        row(
            "too large for the limit",
            429,
            error(
                "Request too large for gpt-4o in organization x on tokens per min (TPM): Limit 30000, Requested 40000",
                "tokens",
                json!("rate_limit_exceeded"),
            ),
            C::TooBigForLimit,
            "rate_limit_exceeded",
        ),
        row("quota", 429, &quota, C::Quota, "insufficient_quota"),
        row("quota by type only", 429, error("no", "insufficient_quota", json!(null)), C::Quota, "insufficient_quota"),
        row(
            "credit",
            429,
            error("no", "billing", json!("credit_balance_exhausted")),
            C::Quota,
            "credit_balance_exhausted",
        ),
        row(
            "spend limit",
            429,
            error("no", "x", json!("project_spend_limit_exceeded")),
            C::Quota,
            "project_spend_limit_exceeded",
        ),
        row(
            "usage limit",
            429,
            error("no", "x", json!("organization_usage_limit_exceeded")),
            C::Quota,
            "organization_usage_limit_exceeded",
        ),
        row("payment", 402, "", C::Quota, "402"),
    ]
}

fn server_rows() -> Vec<Row> {
    let plain = error("The server had an error", "server_error", json!(null));
    let mut rows = vec![
        row("conflict", 409, "", C::Server, "409"),
        row("500", 500, &plain, C::Server, "server_error"),
        row("503 waits", 503, &plain, C::Server, "server_error").with(&[("retry-after", "3")], Some(3_000)),
        row(
            "overloaded",
            529,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#,
            C::Server,
            "overloaded_error",
        )
        .with(&[("retry-after", "1")], Some(1_000)),
        row(
            "loading",
            503,
            r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#,
            C::Server,
            "unavailable_error",
        ),
        row("page of a network", 403, HTML, C::Server, "403"),
        row("text of a network", 403, "error code: 1020", C::Server, "403").with(&[("server", "cloudflare")], None),
        row("request timeout", 408, "", C::Server, "408").billed(Billed::Maybe),
    ];
    for status in [502, 504, 520, 524] {
        rows.push(row("a gateway", status, HTML, C::Server, "").billed(Billed::Maybe));
    }
    for status in [521, 522, 523, 525, 526, 527] {
        rows.push(row("a gateway before its origin", status, HTML, C::Server, ""));
    }
    rows
}

fn final_rows() -> Vec<Row> {
    vec![
        row("key", 401, error("Incorrect API key provided", "invalid_request_error", json!("invalid_api_key")), C::Auth, "invalid_api_key"),
        row("key, no body", 401, "", C::Auth, "401"),
        row("no right", 403, error("no access", "permission_error", json!(null)), C::Auth, "permission_error"),
        row("no right, text", 403, "forbidden", C::Auth, "403"),
        row("model", 404, error("The model `x` does not exist", "invalid_request_error", json!("model_not_found")), C::Config, "model_not_found"),
        row("path", 404, r#"{"detail":"Not Found"}"#, C::Config, "404"),
        row("method", 405, HTML, C::Config, "405"),
        row("moved", 301, "", C::Config, "301"),
        row("not built", 501, "", C::Config, "501"),
        row("overflow, OpenAI", 400,
            error("This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.", "invalid_request_error", json!("context_length_exceeded")),
            C::Overflow, "context_length_exceeded"),
        row("overflow, llama.cpp", 400,
            r#"{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it","type":"exceed_context_size_error","n_prompt_tokens":5000,"n_ctx":2048}}"#,
            C::Overflow, "exceed_context_size_error"),
        row("overflow, vLLM", 400,
            r#"{"object":"error","message":"This model's maximum context length is 2048 tokens. However, you requested 2100 tokens","type":"BadRequestError","param":null,"code":400}"#,
            C::Overflow, "BadRequestError"),
        row("overflow as 413", 413, error("maximum context length", "x", json!(null)), C::Overflow, "x"),
        row("overflow as 500", 500, r#"{"error":{"code":500,"message":"the request exceeds the available context size","type":"server_error"}}"#, C::Overflow, "server_error"),
        row("tokens of a batch", 400, error("Requested 400000 tokens, max 300000 tokens per request", "max_tokens_per_request", json!("max_tokens_per_request")), C::BatchSplit, "max_tokens_per_request"),
        row("inputs of a batch", 400, error("Invalid 'input': array too long. Expected an array with maximum length 2048", "invalid_request_error", json!("array_above_max_length")), C::BatchSplit, "array_above_max_length"),
        row("batch, TEI", 422, r#"{"error":"batch size 64 > maximum allowed batch size 32","error_type":"Validation"}"#, C::BatchSplit, "422"),
        row("bad request", 400, error("Invalid type for 'messages'", "invalid_request_error", json!("invalid_type")), C::BadRequest, "invalid_type"),
        row("bad request with a number", 400, error("bad", "", json!(400)), C::BadRequest, "400"),
        row("unprocessable", 422, r#"{"detail":[{"loc":["body","messages"],"msg":"field required","type":"missing","input":{"secret":"prompt"}}]}"#, C::BadRequest, "422"),
        row("large body", 413, "<html><title>413 Request Entity Too Large</title></html>", C::BadRequest, "413"),
        row("teapot", 418, "", C::BadRequest, "418"),
        row("filter", 400, error("Your request was rejected", "x", json!("content_policy_violation")), C::Filtered, "content_policy_violation").billed(Billed::Yes),
        row("filter, Azure", 400,
            r#"{"error":{"message":"The response was filtered","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            C::Filtered, "content_filter").billed(Billed::Yes),
        row("text that is not JSON", 400, "{\"error\": nope", C::BadRequest, "400"),
    ]
}

#[test]
fn every_answer_has_its_class() {
    for row in rate_rows().into_iter().chain(server_rows()).chain(final_rows()) {
        let refused = classify(row.status, &headers(row.headers), row.body.as_bytes());
        let name = format!("{} {}: {}", row.status, row.name, refused.error);
        assert_eq!(refused.error.class, row.class, "{name}");
        assert_eq!(refused.billed, row.billed, "{name}");
        assert_eq!(refused.error.retry_after_ms, row.wait_ms, "{name}");
        if !row.code.is_empty() {
            assert_eq!(refused.error.code, row.code, "{name}");
        }
        assert!(!refused.error.message.is_empty(), "{name}");
    }
}

#[test]
fn messages_are_short_and_without_the_input() {
    let html = classify(502, &headers(&[]), HTML.as_bytes());
    assert_eq!(html.error.message, "status 502: a page of HTML: 502 Bad Gateway");
    let input = classify(422, &headers(&[]), br#"{"detail":[{"loc":["body",0],"msg":"bad","input":"secret"}]}"#);
    assert_eq!(input.error.message, "status 422: body.0: bad");
    let nothing = classify(500, &headers(&[]), b"");
    assert_eq!(nothing.error.message, "the provider answered with status 500 and no explanation");
    for body in
        ["<title", "<title>", "<title>x", "<", "<html><title>İ</title></html>", "\u{0}", "[]", "null", "3", "\"x\""]
    {
        assert!(classify(500, &headers(&[]), body.as_bytes()).error.message.len() < 200);
    }
}

#[test]
fn reported_errors_have_the_class_of_their_code() {
    let cases = [
        (error("slow", "rate_limit_error", json!(null)), C::Rate),
        (error("x", "server_error", json!(null)), C::Server),
        (error("no", "insufficient_quota", json!("insufficient_quota")), C::Quota),
        (json!({"error": {"code": 429, "message": "x"}}), C::Rate),
        (json!({"error": {"code": "429", "message": "x"}}), C::Rate),
        (json!({"error": {"code": 503, "message": "x"}}), C::Server),
        (json!({"error": {"code": 400, "message": "x", "type": "exceed_context_size_error"}}), C::Overflow),
        (json!({"error": {"code": 401, "message": "x"}}), C::Auth),
        (json!({"error": "it broke"}), C::Server),
        (json!({"object": "error", "message": "x", "type": "BadRequestError", "code": 400}), C::BadRequest),
        (error("cannot", "invalid_request_error", json!(null)), C::BadRequest),
    ];
    for (reported, class) in cases {
        let refused = classify_reported(&headers(&[]), &reported);
        assert_eq!((refused.error.class, refused.billed), (class, Billed::Maybe), "{reported}");
    }
}

#[test]
fn the_request_id_is_taken_from_where_there_is_one() {
    assert_eq!(request_id(&headers(&[("x-request-id", "req_1")])).as_deref(), Some("req_1"));
    assert_eq!(request_id(&headers(&[("apim-request-id", "a")])).as_deref(), Some("a"));
    assert_eq!(request_id(&headers(&[])), None);
    assert_eq!(request_id(&headers(&[("x-request-id", &"x".repeat(10_000))])).unwrap().len(), 128);
}
