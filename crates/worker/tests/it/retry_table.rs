//! The retry table of `llm.md`, row by row, over the wire: what a provider does, what class that is, what it may have cost,
//! and what follows.

use std::time::Duration;

use crate::asking::{assert_discreet, chat, chat_request, openai_with};
use queue_core::{
    error::ErrorClass as C,
    ledger::Billed::{self, Maybe, No, Yes},
    retry::{self, Budget, Decision, Health, rule},
    time::Timestamp,
};
use serde_json::{Value, json};
use testkit::{Behaviour as B, MockProvider};
use worker::provider::{
    CallError,
    openai::{OpenAi, OpenAiConfig},
};

const NOW: Timestamp = Timestamp(1_000_000);
/// Shorter than any test, longer than any answer of the mock.
const SHORT: Duration = Duration::from_millis(300);

/// What follows a first attempt: how it goes on, and the longest wait.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Next {
    /// Spent, after at most so many milliseconds.
    Retry(i64),
    /// Not spent, after at least so many milliseconds.
    Release(i64),
    Dead,
}

struct Row {
    signal: &'static str,
    behaviour: B,
    class: C,
    billed: Billed,
    next: Next,
    /// Whether a breaker counts it.
    counts: bool,
    may_fall_back: bool,
}

fn row(signal: &'static str, behaviour: B, class: C, billed: Billed, next: Next) -> Row {
    Row { signal, behaviour, class, billed, next, counts: false, may_fall_back: true }
}

impl Row {
    fn counts(mut self) -> Self {
        self.counts = true;
        self
    }

    fn stays(mut self) -> Self {
        self.may_fall_back = false;
        self
    }
}

fn says(status: u16, code: Value, kind: &str, message: &str) -> B {
    let body = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
    B::Respond(status, vec![], body.to_string())
}

fn with(header: (&str, &str), behaviour: B) -> B {
    let B::Respond(status, mut headers, body) = behaviour else { panic!("only a response has headers") };
    headers.push((header.0.to_owned(), header.1.to_owned()));
    B::Respond(status, headers, body)
}

const BACKOFF: Next = Next::Retry(500);

fn transport() -> Vec<Row> {
    vec![
        row("closed before a word", B::Close, C::TransportMid, Maybe, Next::Retry(100)).counts(),
        row("no head in time", B::Hang, C::TransportMid, Maybe, Next::Retry(100)).counts(),
        row("a head byte by byte", B::SlowHead(SHORT / 10), C::TransportMid, Maybe, Next::Retry(100)).counts(),
    ]
}

fn servers() -> Vec<Row> {
    let mut rows: Vec<Row> = [408, 409, 500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 527, 529]
        .into_iter()
        .map(|status| {
            let billed = if matches!(status, 408 | 502 | 504 | 520 | 524) { Maybe } else { No };
            row("a server's status", B::Status(status), C::Server, billed, BACKOFF).counts()
        })
        .collect();
    let busy = |status| with(("retry-after", "7"), says(status, json!(null), "server_error", "busy"));
    rows.extend([
        row("503 that asks for a pause", busy(503), C::Server, No, Next::Retry(7_700)).counts(),
        row("529 that asks for a pause", busy(529), C::Server, No, Next::Retry(7_700)).counts(),
        row(
            "503 while a model is loaded",
            says(503, json!(503), "unavailable_error", "Loading model"),
            C::Server,
            No,
            BACKOFF,
        )
        .counts(),
        row("a page of HTML", B::html(502), C::Server, Maybe, BACKOFF).counts(),
        row("403 as a page of a network", B::html(403), C::Server, No, BACKOFF).counts(),
    ]);
    rows
}

fn limits() -> Vec<Row> {
    let limit = || says(429, json!("rate_limit_exceeded"), "requests", "Rate limit reached");
    let quota = |code: &str| says(429, json!(code), "billing", "no money");
    let quarter = Next::Release(900_000);
    vec![
        row("rate", limit(), C::Rate, No, Next::Release(0)),
        row("rate, seconds", with(("retry-after", "30"), limit()), C::Rate, No, Next::Release(30_000)),
        row("rate, milliseconds", with(("retry-after-ms", "1500"), limit()), C::Rate, No, Next::Release(1_500)),
        row("rate, window", with(("x-ratelimit-reset-tokens", "6m0s"), limit()), C::Rate, No, Next::Release(360_000)),
        row("slow_down", says(429, json!("slow_down"), "x", "slow"), C::Rate, No, Next::Release(0)),
        row("rate with an integer code", says(429, json!(429), "", "busy"), C::Rate, No, Next::Release(0)),
        row("rate as HTML", B::html(429), C::Rate, No, Next::Release(0)),
        row(
            "too big for the limit",
            says(429, json!("rate_limit_exceeded"), "tokens", "Request too large for gpt-4o on tokens per min (TPM)"),
            C::TooBigForLimit,
            No,
            Next::Dead,
        ),
        row("quota", quota("insufficient_quota"), C::Quota, No, quarter),
        row("no credit", quota("credit_balance_exhausted"), C::Quota, No, quarter),
        row("spend limit", quota("project_spend_limit_exceeded"), C::Quota, No, quarter),
        row("usage limit", quota("organization_usage_limit_exceeded"), C::Quota, No, quarter),
        row("payment required", B::Status(402), C::Quota, No, quarter),
    ]
}

fn refusals() -> Vec<Row> {
    let bad = |code: Value, kind: &str, message: &str| says(400, code, kind, message);
    vec![
        row("a refused key", B::Status(401), C::Auth, No, Next::Dead),
        row("no right", says(403, json!(null), "permission_error", "no access"), C::Auth, No, Next::Dead),
        row("no such model", says(404, json!("model_not_found"), "x", "no such model"), C::Config, No, Next::Dead),
        row(
            "overflow, OpenAI",
            bad(json!("context_length_exceeded"), "x", "maximum context length is 8192"),
            C::Overflow,
            No,
            Next::Dead,
        ),
        row(
            "overflow, llama.cpp",
            bad(json!(400), "exceed_context_size_error", "the request exceeds the available context size"),
            C::Overflow,
            No,
            Next::Dead,
        ),
        row(
            "overflow, vLLM",
            bad(json!(400), "BadRequestError", "This model's maximum context length is 2048 tokens"),
            C::Overflow,
            No,
            Next::Dead,
        ),
        row("overflow as 413", says(413, json!(null), "x", "maximum context length"), C::Overflow, No, Next::Dead),
        row(
            "tokens of a batch",
            bad(json!("max_tokens_per_request"), "x", "max 300000 tokens per request"),
            C::BatchSplit,
            No,
            Next::Dead,
        )
        .stays(),
        row(
            "inputs of a batch",
            bad(json!("array_above_max_length"), "x", "array too long"),
            C::BatchSplit,
            No,
            Next::Dead,
        )
        .stays(),
        row("a bad request", bad(json!("invalid_type"), "x", "bad"), C::BadRequest, No, Next::Dead).stays(),
        row("not processable", says(422, json!(null), "x", "bad"), C::BadRequest, No, Next::Dead).stays(),
        row("filtered", bad(json!("content_filter"), "x", "withheld"), C::Filtered, Yes, Next::Dead),
    ]
}

fn answers() -> Vec<Row> {
    let overloaded = json!({"error": {"message": "overloaded", "type": "server_error", "code": null}});
    let spent = json!({"error": {"message": "no", "type": "insufficient_quota", "code": "insufficient_quota"}});
    vec![
        row("cut", B::CutAfter(3), C::StreamBroken, Maybe, BACKOFF).counts(),
        row("reset", B::ResetAfter(3), C::StreamBroken, Maybe, BACKOFF).counts(),
        row("no finish reason", B::EndAfter(3), C::StreamBroken, Maybe, BACKOFF).counts(),
        row("a malformed chunk", B::GarbageAfter(3), C::StreamBroken, Maybe, BACKOFF).counts(),
        row("stalled", B::StallAfter(3), C::StreamBroken, Maybe, BACKOFF).counts(),
        row("only comments", B::KeepaliveAfter(3, SHORT / 10), C::StreamBroken, Maybe, BACKOFF).counts(),
        row("an error in the stream", B::ErrorAfter(3, overloaded), C::Server, Maybe, BACKOFF).counts(),
        row("a quota in the stream", B::ErrorAfter(3, spent), C::Quota, Maybe, Next::Release(900_000)),
        row("200 that is not JSON", B::Respond(200, vec![], "nonsense".into()), C::InvalidOutput, Yes, BACKOFF),
        row("200 as HTML", B::html(200), C::InvalidOutput, Maybe, BACKOFF),
    ]
}

/// What follows the first of many attempts, with the longest jitter.
fn next(failure: &CallError) -> Next {
    let budget = Budget { attempt: 1, max_attempts: 50, releases: 0, deadline: None };
    match retry::decide(&failure.error, budget, NOW, 1.0) {
        Decision::Retry(at) => Next::Retry(at.since_ms(NOW)),
        Decision::Release(_) => {
            let Decision::Release(at) = retry::decide(&failure.error, budget, NOW, 0.0) else { panic!("no release") };
            Next::Release(at.since_ms(NOW))
        }
        Decision::Dead => Next::Dead,
    }
}

fn check(row: &Row, failure: &CallError) {
    let name = format!("{}: {}", row.signal, failure.error);
    assert_eq!((failure.error.class, failure.billed), (row.class, row.billed), "{name}");
    assert_eq!(next(failure), row.next, "{name}");
    let rule = rule(failure.error.class);
    assert_eq!(rule.health == Health::Failure, row.counts, "{name}");
    assert_eq!(rule.may_fall_back, row.may_fall_back, "{name}");
    assert_discreet(failure);
}

#[tokio::test]
async fn each_row_is_what_it_says() {
    let mock = MockProvider::start().await;
    let provider = openai_with(&mock, |config| {
        (config.first_byte_timeout, config.chunk_timeout) = (SHORT, SHORT);
    });
    let rows = [transport(), servers(), limits(), refusals(), answers()].into_iter().flatten();
    for row in rows {
        mock.script([row.behaviour.clone()]);
        let failure = chat(&provider, &chat_request(json!({}))).await.0.expect_err(row.signal);
        check(&row, &failure);
    }
}

#[tokio::test]
async fn who_cannot_be_reached_has_cost_nothing() {
    // A port that nobody listens on, and a name that nobody has.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [format!("http://{free}/v1"), "http://nobody.invalid/v1".to_owned()] {
        let provider = OpenAi::new(OpenAiConfig::new("away", url)).unwrap();
        let failure = chat(&provider, &chat_request(json!({}))).await.0.unwrap_err();
        let expected = row("refused", B::Close, C::TransportPre, No, BACKOFF).counts();
        check(&expected, &failure);
    }
}

/// reqwest calls a timeout a request error, too: what timed out after it was sent may have been paid.
#[tokio::test]
async fn a_timeout_is_no_failed_request() {
    let mock = MockProvider::start().await;
    let hasty = openai_with(&mock, |config| config.first_byte_timeout = SHORT);
    mock.script([B::Hang]);
    let failure = chat(&hasty, &chat_request(json!({}))).await.0.unwrap_err();
    assert_eq!((failure.error.class, failure.error.code.as_str()), (C::TransportMid, "first_byte_timeout"));
    assert_eq!(failure.billed, Maybe);
}

/// What a network blocks is tried three times, however many attempts the job has.
#[tokio::test]
async fn a_blocked_request_is_tried_three_times() {
    let mock = MockProvider::start().await;
    mock.script([B::html(403)]);
    let failure = chat(&openai_with(&mock, |_| {}), &chat_request(json!({}))).await.0.unwrap_err();
    let decide = |attempt| {
        let budget = Budget { attempt, max_attempts: 50, releases: 0, deadline: None };
        retry::decide(&failure.error, budget, NOW, 0.0)
    };
    assert!(matches!((decide(1), decide(2), decide(3)), (Decision::Retry(_), Decision::Retry(_), Decision::Dead)));
}
