//! Bad requests: each gets a problem document that names the field and the reason; the server neither dies nor grows.
//! An executable of its own, because its memory is measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // clippy spares only functions with #[test]

#[allow(dead_code)] // the other tests' part of it
#[path = "it/server/mod.rs"]
mod server;

use crate::server::Server;
use reqwest::Method;
use serde_json::{Value, json};

/// What is sent, and what must come back.
struct Case {
    name: &'static str,
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    status: u16,
    /// The pointer of one of the errors begins with this…
    pointer: &'static str,
    /// … and its reason contains this.
    reason: &'static str,
}

/// A bad `POST /v1/jobs` with this text as its body.
fn raw(name: &'static str, body: impl Into<Vec<u8>>, status: u16, pointer: &'static str, reason: &'static str) -> Case {
    let headers = vec![("content-type", "application/json".to_owned())];
    Case { name, method: Method::POST, path: "/v1/jobs".into(), headers, body: body.into(), status, pointer, reason }
}

/// A bad job.
fn job(name: &'static str, body: Value, pointer: &'static str, reason: &'static str) -> Case {
    raw(name, body.to_string(), 422, pointer, reason)
}

/// A probe job with one bad field.
fn field(name: &'static str, fields: Value, pointer: &'static str, reason: &'static str) -> Case {
    let mut body = json!({"kind": "probe", "payload": {}});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    job(name, body, pointer, reason)
}

/// A job with a bad payload.
fn payload(name: &'static str, kind: &str, payload: Value, pointer: &'static str, reason: &'static str) -> Case {
    job(name, json!({"kind": kind, "payload": payload}), pointer, reason)
}

/// A bad request without a body.
fn get(name: &'static str, path: &str, status: u16, pointer: &'static str, reason: &'static str) -> Case {
    let (method, path) = (Method::GET, path.to_owned());
    Case { name, method, path, headers: vec![], body: vec![], status, pointer, reason }
}

impl Case {
    fn to(mut self, method: Method, path: &str) -> Self {
        (self.method, self.path) = (method, path.to_owned());
        self
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self
    }
}

const GOOD: &str = r#"{"kind":"probe","payload":{}}"#;

fn syntax() -> Vec<Case> {
    let deep = |open: &str, close: &str, levels: usize| {
        format!(r#"{{"kind":"probe","payload":{}1{}}}"#, open.repeat(levels), close.repeat(levels))
    };
    vec![
        raw("empty body", "", 400, "", "JSON value is needed"),
        raw("only spaces", "   ", 400, "", "line 1, column"),
        raw("cut off", r#"{"kind":"probe","payload":{"#, 400, "", "line 1, column"),
        raw("two values", r#"{"kind":"probe","payload":{}} {}"#, 400, "", "trailing characters"),
        raw("single quotes", "{'kind':'probe'}", 400, "", "line 1, column 2"),
        raw("trailing comma", "{\"kind\":\"probe\",\n\"payload\":{},}", 400, "", "line 2, column"),
        raw("bare word", r#"{"kind":probe}"#, 400, "", "line 1, column"),
        raw("NaN", r#"{"kind":"probe","payload":{"sleep_ms":NaN}}"#, 400, "", "line 1, column"),
        raw("raw control character", "{\"kind\":\"pro\u{1}be\"}", 400, "", "line 1, column"),
        raw("invalid UTF-8", b"{\"kind\":\"\xff\xfe\"}".to_vec(), 400, "", "byte 9 is not UTF-8"),
        raw("UTF-16", b"\xff\xfe{\0}\0".to_vec(), 400, "", "not UTF-8"),
        raw("an array", "[]", 422, "", "must be a JSON object"),
        raw("a string", "\"probe\"", 422, "", "must be a JSON object"),
        raw("null", "null", 422, "", "must be a JSON object"),
        raw("nested arrays", deep("[", "]", 65), 422, "", "nested more than 64"),
        raw("nested objects", deep("{\"a\":", "}", 65), 422, "", "nested more than 64"),
        raw("nested a million deep", deep("[", "]", 250_000), 422, "", "nested more than 64"),
        raw("a field twice", r#"{"kind":"probe","kind":"llm","payload":{}}"#, 422, "/kind", "twice"),
    ]
}

fn fields() -> Vec<Case> {
    vec![
        job("nothing", json!({}), "/kind", "required"),
        job("no payload", json!({"kind": "probe"}), "/payload", "required"),
        job("null payload", json!({"kind": "probe", "payload": null}), "/payload", "required"),
        job("unknown kind", json!({"kind": "magic", "payload": {}}), "/kind", "`magic` is not a kind"),
        job("kind of another type", json!({"kind": 7, "payload": {}}), "/kind", "must be a string"),
        field("unknown field", json!({"priorty": 5}), "/priorty", "not a known field"),
        field("unknown field with a slash", json!({"a/b": 5}), "/a~1b", "not a known field"),
        field("empty queue", json!({"queue": ""}), "/queue", "empty"),
        field("long queue", json!({"queue": "q".repeat(65)}), "/queue", "65 bytes"),
        field("queue with a space", json!({"queue": "a b"}), "/queue", "contains ' '"),
        field("queue with a NUL", json!({"queue": "a\0b"}), "/queue", "contains '\\0'"),
        field("queue with a broken surrogate", json!({"queue": 1}), "/queue", "must be a string, not 1"),
        field("reserved queue", json!({"queue": "metrics"}), "/queue", "path"),
        field("tenant with a slash", json!({"tenant": "a/b"}), "/tenant", "contains '/'"),
        field("priority too high", json!({"priority": 10}), "/priority", "0 to 9"),
        field("negative priority", json!({"priority": -1}), "/priority", "0 to 9"),
        field("half a priority", json!({"priority": 5.5}), "/priority", "whole number"),
        field("priority as text", json!({"priority": "5"}), "/priority", "not a string"),
        field("priority beyond numbers", json!({"priority": 1e300}), "/priority", "0 to 9"),
        field("no attempts", json!({"max_attempts": 0}), "/max_attempts", "1 to 100"),
        field("many attempts", json!({"max_attempts": 101}), "/max_attempts", "1 to 100"),
        field("run_at yesterday's yesterday", json!({"run_at": "2020-01-01T00:00:00Z"}), "/run_at", "past"),
        field("run_at in year 9999", json!({"run_at": "9999-12-31T23:59:59Z"}), "/run_at", "366 days"),
        field("run_at in year 10000", json!({"run_at": "10000-01-01T00:00:00Z"}), "/run_at", "RFC 3339"),
        field("run_at as a number", json!({"run_at": 1_900_000_000}), "/run_at", "must be a string"),
        field("run_at without a zone", json!({"run_at": "2026-01-01T00:00:00"}), "/run_at", "RFC 3339"),
        field("run_at on no day", json!({"run_at": "2026-02-30T00:00:00Z"}), "/run_at", "RFC 3339"),
        field("deadline in the past", json!({"deadline": "2020-01-01T00:00:00Z"}), "/deadline", "past"),
        field("deadline in year 9999", json!({"deadline": "9999-01-01T00:00:00Z"}), "/deadline", "366 days"),
        field("start_by in the past", json!({"start_by": "1969-12-31T23:59:59Z"}), "/start_by", "past"),
        field("timeout of nothing", json!({"timeout": "0s"}), "/timeout", "1s to 24h"),
        field("timeout of a week", json!({"timeout": "7d"}), "/timeout", "1s to 24h"),
        field("timeout as a number", json!({"timeout": 300}), "/timeout", "must be a string"),
        field("timeout of another planet", json!({"timeout": "5 fortnights"}), "/timeout", "not a duration"),
        field("timeout beyond numbers", json!({"timeout": "99999999999999999999s"}), "/timeout", "not a duration"),
        field("long unique key", json!({"unique_key": "u".repeat(257)}), "/unique_key", "257 bytes"),
        field("unique key with a NUL", json!({"unique_key": "a\0"}), "/unique_key", "control character"),
        field("long concurrency key", json!({"concurrency_key": "k".repeat(129)}), "/concurrency_key", "129 bytes"),
        field("empty concurrency key", json!({"concurrency_key": ""}), "/concurrency_key", "empty"),
        field("concurrency key with a NUL", json!({"concurrency_key": "a\0"}), "/concurrency_key", "control character"),
        field("concurrency key as a number", json!({"concurrency_key": 7}), "/concurrency_key", "must be a string"),
        field("operation with a space", json!({"operation": "a b"}), "/operation", "contains ' '"),
        field("long operation", json!({"operation": "o".repeat(65)}), "/operation", "65 bytes"),
        field("long batch_id", json!({"batch_id": "b".repeat(129)}), "/batch_id", "129 bytes"),
        field("empty batch_id", json!({"batch_id": ""}), "/batch_id", "empty"),
        field("many tags", json!({"tags": vec!["t"; 33]}), "/tags", "33 items"),
        field("a tag that is a number", json!({"tags": ["a", 1]}), "/tags/1", "must be a string"),
        field("a long tag", json!({"tags": ["t".repeat(65)]}), "/tags/0", "65 bytes"),
        field("tags as text", json!({"tags": "a,b"}), "/tags", "array of strings"),
        field("negative money", json!({"max_cost_usd": "-1"}), "/max_cost_usd", "negative"),
        field("money as a number", json!({"max_cost_usd": 0.05}), "/max_cost_usd", "must be a string"),
        field("money of words", json!({"max_cost_usd": "much"}), "/max_cost_usd", "US dollars"),
        field("result_ttl of no time", json!({"result_ttl": "0s"}), "/result_ttl", "out of range"),
        field("result_ttl as a number", json!({"result_ttl": 7}), "/result_ttl", "must be a string"),
        field("fallback", json!({"fallback": []}), "/fallback", "is for chat"),
        field("webhook text", json!({"webhook": "https://example.com"}), "/webhook", "must be an object"),
        field("webhook http", json!({"webhook": {"url": "http://example.com"}}), "/webhook/url", "allow_http"),
        field("webhook home", json!({"webhook": {"url": "https://127.0.0.1/"}}), "/webhook/url", "loopback"),
        field("webhook more", json!({"webhook": {"url": "https://a.b/", "x": 1}}), "/webhook/x", "not a known field"),
        field("webhook less", json!({"webhook": {}}), "/webhook/url", "is required"),
        field("a cache for a probe", json!({"cache": {"ttl": "1h"}}), "/cache", "for llm and analysis jobs"),
    ]
}

fn payloads() -> Vec<Case> {
    let message = |content: Value| json!([{"role": "user", "content": content}]);
    let long = "words and more words ".repeat(40_000);
    vec![
        payload("a payload that is a string", "probe", json!("x"), "/payload", ""),
        payload("unknown probe field", "probe", json!({"slep_ms": 1}), "/payload/slep_ms", ""),
        payload("negative sleep", "probe", json!({"sleep_ms": -1}), "/payload/sleep_ms", ""),
        payload("llm without messages", "llm", json!({"model": "gpt-4o-mini"}), "/payload/messages", ""),
        payload(
            "llm with no messages",
            "llm",
            json!({"model": "gpt-4o-mini", "messages": []}),
            "/payload/messages",
            "",
        ),
        payload(
            "llm of nobody",
            "llm",
            json!({"model": "nobody-1", "messages": message(json!("Hi"))}),
            "/payload/model",
            "",
        ),
        payload(
            "llm without room for its prompt",
            "llm",
            json!({"model": "gpt-4o-mini", "messages": message(json!(long))}),
            "/payload",
            "",
        ),
        payload(
            "embedding of nothing",
            "embedding",
            json!({"model": "text-embedding-3-small", "input": []}),
            "/payload/input",
            "",
        ),
        payload(
            "embedding of too much",
            "embedding",
            json!({"model": "text-embedding-3-small", "input": vec!["a"; 2_049]}),
            "/payload/input",
            "",
        ),
        payload(
            "analysis of both text and ref",
            "analysis",
            json!({"version": 1, "input": {"text": "a", "ref": "b"}, "map": {"prompt": "{{chunk}}"}}),
            "/payload/input",
            "",
        ),
        payload(
            "analysis of neither",
            "analysis",
            json!({"version": 1, "input": {}, "map": {"prompt": "{{chunk}}"}}),
            "/payload/input",
            "",
        ),
        payload(
            "analysis of another version",
            "analysis",
            json!({"version": 99, "input": {"text": "a"}}),
            "/payload/version",
            "",
        ),
        raw(
            "payload over its bound",
            format!(r#"{{"kind":"probe","payload":{{"pad":"{}"}}}}"#, "x".repeat(1024 * 1024)),
            413,
            "/payload",
            "limit is 1048576",
        ),
    ]
}

fn envelopes() -> Vec<Case> {
    let bulk = |case: Case| case.to(Method::POST, "/v1/jobs/bulk");
    let many = format!("[{}]", vec!["{}"; 10_001].join(","));
    vec![
        raw("no content type", GOOD, 415, "/header/Content-Type", "missing").without("content-type"),
        raw("text", GOOD, 415, "/header/Content-Type", "text/plain").header("content-type", "text/plain"),
        raw("a form", GOOD, 415, "/header/Content-Type", "form")
            .header("content-type", "application/x-www-form-urlencoded"),
        raw("another charset", GOOD, 415, "/header/Content-Type", "UTF-8")
            .header("content-type", "application/json; charset=latin1"),
        raw("no gzip", GOOD, 400, "", "cannot be unpacked").header("content-encoding", "gzip"),
        raw("compressed", GOOD, 415, "/header/Content-Encoding", "not one that is taken")
            .header("content-encoding", "br"),
        raw("lines to a single submit", GOOD, 415, "/header/Content-Type", "not supported here")
            .header("content-type", "application/x-ndjson"),
        raw("long idempotency key", GOOD, 422, "/header/Idempotency-Key", "256 bytes")
            .header("idempotency-key", &"k".repeat(256)),
        raw("idempotency key with a space", GOOD, 422, "/header/Idempotency-Key", "visible")
            .header("idempotency-key", "a b"),
        raw("a query on a submit", GOOD, 422, "/query/dry_run", "query").to(Method::POST, "/v1/jobs?dry_run=1"),
        bulk(raw("bulk of an object", "{}", 422, "", "array")),
        bulk(raw("bulk of nothing", "[]", 422, "", "no jobs")),
        bulk(raw("bulk cut off", "[{},", 400, "", "line 1, column")),
        bulk(raw("bulk of too many", many, 413, "", "more than 10000")),
        bulk(raw("empty lines", "\n\n", 422, "", "no jobs").header("content-type", "application/x-ndjson")),
        raw("no such path", GOOD, 404, "/path", "not a known route").to(Method::POST, "/v1/job"),
        raw("no such method", GOOD, 405, "/method", "not allowed").to(Method::PUT, "/v1/jobs"),
        get("an id that is none", "/v1/jobs/7", 404, "/path/id", "UUID"),
        get("a very long id", &format!("/v1/jobs/{}", "7".repeat(8_000)), 404, "/path/id", "UUID"),
        get("an id that is not UTF-8", "/v1/jobs/%ff%fe", 400, "/path", "UTF-8"),
        get("a limit of nothing", "/v1/jobs?limit=0", 422, "/query/limit", "1 to 500"),
        get("a limit of all", "/v1/jobs?limit=100000", 422, "/query/limit", "1 to 500"),
        get("a cursor of our own", "/v1/jobs?cursor=abc", 422, "/query/cursor", "not a cursor"),
        get("an unknown filter", "/v1/jobs?sate=dead", 422, "/query/sate", "known are"),
        get("a filter twice", "/v1/jobs?state=dead&state=ready", 422, "/query/state", "twice"),
        get("an unknown state", "/v1/jobs?state=retrying", 422, "/query/state", "not a state"),
        get("a time that is none", "/v1/jobs?since=yesterday", 422, "/query/since", "neither a time"),
        get("a NUL in a filter", "/v1/jobs?q=%00", 422, "/query/q", "control character"),
        get(
            "a wait that is none",
            "/v1/jobs/01890000-0000-7000-8000-000000000000?wait=long",
            422,
            "/query/wait",
            "duration",
        ),
        get("costs by shoe size", "/v1/costs?group_by=shoe", 422, "/query/group_by", "not a column"),
        get("costs of a reversed week", "/v1/costs?since=1d&until=2d", 422, "/query/since", "before"),
        get("a queue that is none", "/v1/queues/a%20b", 422, "/path/queue", "contains ' '"),
        raw("a change of nothing", "{}", 422, "", "nothing to change").to(Method::PATCH, "/v1/queues/q"),
        raw("a pause of null", r#"{"paused":null}"#, 422, "/paused", "not null").to(Method::PATCH, "/v1/queues/q"),
        raw("a pause until the past", r#"{"paused":true,"until":"2020-01-01T00:00:00Z"}"#, 422, "/until", "past")
            .to(Method::PATCH, "/v1/queues/q"),
        raw("a reason without a pause", r#"{"reason":"x"}"#, 422, "/reason", "pause").to(Method::PATCH, "/v1/queues/q"),
        raw("no key concurrency", r#"{"key_concurrency":0}"#, 422, "/key_concurrency", "1 to")
            .to(Method::PATCH, "/v1/queues/q"),
        raw("no concurrency", r#"{"concurrency":0}"#, 422, "/concurrency", "1 to").to(Method::PATCH, "/v1/queues/q"),
        raw("a rate", r#"{"rate":5}"#, 422, "/rate", "not supported yet").to(Method::PATCH, "/v1/queues/q"),
        raw("a retention of seconds", r#"{"retention":"5s"}"#, 422, "/retention", "out of range")
            .to(Method::PATCH, "/v1/queues/q"),
    ]
}

async fn check(server: &Server, case: &Case) {
    let mut request = server.request(case.method.clone(), &case.path);
    for (name, value) in &case.headers {
        request = request.header(*name, value);
    }
    if case.method != Method::GET {
        request = request.body(case.body.clone());
    }
    let answer = server.send(request).await;
    assert_eq!(answer.status.as_u16(), case.status, "{}: {}", case.name, answer.text);
    let problem = answer.problem(case.status);
    assert_eq!(!answer.header("allow").is_empty(), case.status == 405, "{}", case.name);
    let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("{}: no errors in {problem}", case.name));
    let named = errors.iter().any(|error| {
        let (pointer, reason) = (error["pointer"].as_str().unwrap(), error["reason"].as_str().unwrap());
        let at = if case.pointer.is_empty() { pointer.is_empty() } else { pointer.starts_with(case.pointer) };
        at && !reason.is_empty() && reason.contains(case.reason)
    });
    assert!(named, "{}: {:?} with {:?} is not in {problem}", case.name, case.pointer, case.reason);
    assert!(answer.text.len() < 40_000, "{}: the answer is as large as the question", case.name);
}

/// How often the table is sent while memory is watched: a leak of one body in a round would be beyond the bound.
const ROUNDS: usize = 12;
/// What memory may grow by: allocators keep some of what they got.
const GROWTH_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Resident memory of this process, which is the server's, in bytes.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn every_bad_request_is_told_what_is_wrong_and_costs_no_memory() {
    let server = Server::start().await;
    let cases: Vec<Case> = [syntax(), fields(), payloads(), envelopes()].into_iter().flatten().collect();
    assert!(cases.len() >= 60);
    for case in &cases {
        check(&server, case).await;
    }
    // What the first round loads (token tables, buffers of connections) is loaded now.
    let before = resident_bytes();
    for _ in 0..ROUNDS {
        for case in &cases {
            check(&server, case).await;
        }
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX_BYTES, "memory grew by {grown} bytes over {} bad requests", ROUNDS * cases.len());
    let good = server.post("/v1/jobs", &json!({"kind": "probe", "payload": {}})).await.expect(202);
    assert_eq!(server.get("/v1/jobs").await.expect(200)["jobs"].as_array().unwrap().len(), 1, "{good}");
}

#[tokio::test]
async fn all_wrong_fields_are_told_at_once() {
    let server = Server::start().await;
    let body = json!({"kind": "magic", "priority": 99, "timeout": "soon", "colour": "red", "payload": {}});
    let problem = server.post("/v1/jobs", &body).await.problem(422);
    let mut pointers: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/colour", "/kind", "/priority", "/timeout"]);
    let flood: serde_json::Map<String, Value> = (0..5_000).map(|n| (format!("field-{n}"), json!(n))).collect();
    let problem = server.post("/v1/jobs", &Value::Object(flood)).await.problem(422);
    assert_eq!(problem["errors"].as_array().unwrap().len(), 32);
}
