//! Requests that are generated, straight into the router: each is answered as the document says, and never with a 500. `cargo xtask
//! badinput` runs the same over many more.

mod readers;

use testkit::badinput::{BadInput, Grammar, Parser};

use self::readers::Fed;

const FIELDS: &[&str] = &[
    "kind",
    "payload",
    "queue",
    "tenant",
    "priority",
    "run_at",
    "start_by",
    "deadline",
    "timeout",
    "tags",
    "webhook",
    "url",
    "cache",
    "ttl",
    "fallback",
    "model",
    "messages",
    "role",
    "content",
    "input",
    "max_cost_usd",
    "unique_key",
    "concurrency_key",
    "operation",
    "batch_id",
    "result_ttl",
    "probe",
    "llm",
    "analysis",
    "embedding",
    "http",
    "custom",
    "1h",
    "0.01",
    "2027-01-01T00:00:00Z",
    "metadata",
    "map",
    "text",
];

const JOBS: Parser = Parser {
    name: "POST /v1/jobs",
    grammar: Grammar::Json,
    corpus: include_str!("corpus/jobs.txt"),
    words: FIELDS,
    share: 12,
};

const BULKS: Parser = Parser {
    name: "POST /v1/jobs/bulk",
    grammar: Grammar::Json,
    corpus: include_str!("corpus/bulks.txt"),
    words: FIELDS,
    share: 6,
};

const CHANGES: Parser = Parser {
    name: "every other body",
    grammar: Grammar::Json,
    corpus: include_str!("corpus/changes.txt"),
    words: &[
        "paused",
        "until",
        "reason",
        "concurrency",
        "name",
        "cron",
        "every",
        "at",
        "time_zone",
        "template",
        "kind",
        "payload",
        "probe",
        "weight",
        "day_usd",
        "month_usd",
        "action",
        "filter",
        "dry_run",
        "rate",
        "role",
        "admin",
        "user",
        "tenant",
        "acme",
        "scopes",
        "*:*",
        "expires_in",
        "requests_per_minute",
        "events",
        "url",
        "ttl",
        "1h",
        "0",
        "overlap",
        "missed",
        "breaker",
        "open",
        "enabled",
        "retention",
        "jti",
    ],
    share: 12,
};

const QUERIES: Parser = Parser {
    name: "paths and queries",
    grammar: Grammar::Text,
    corpus: include_str!("corpus/queries.txt"),
    words: &[
        "/v1/jobs",
        "/",
        "?",
        "&",
        "=",
        "%",
        "%00",
        "%ff",
        "+",
        "..",
        "limit",
        "cursor",
        "filter",
        "since",
        "until",
        "state",
        "dead",
        "1d",
        "wait=",
        "group_by=",
        "/v1/batches/",
        "/v1/workers",
        "/v1/operations",
        "/v1/backups",
        "/v1/tenants/acme/usage",
        ";",
        "[]",
        "q=",
    ],
    share: 20,
};

const CLAIMS: Parser = Parser {
    name: "JWTs with a good signature",
    grammar: Grammar::Json,
    corpus: include_str!("corpus/claims.txt"),
    words: &[
        "alg",
        "none",
        "HS256",
        "RS256",
        "EdDSA",
        "kid",
        "ed-1",
        "jku",
        "jwk",
        "x5u",
        "crit",
        "b64",
        "iss",
        "aud",
        "exp",
        "nbf",
        "iat",
        "jti",
        "tenant",
        "role",
        "admin",
        "operator",
        "acme",
        "globex",
        "scopes",
        "longshore",
        "https://id.example/",
    ],
    share: 20,
};

const HEADS: Parser = Parser {
    name: "request headers",
    grammar: Grammar::Lines,
    corpus: include_str!("corpus/heads.txt"),
    words: &[
        "content-type: ",
        "content-encoding: ",
        "gzip",
        "zstd",
        "br",
        "idempotency-key: ",
        "authorization: ",
        "Bearer ",
        "Basic ",
        "application/json",
        ";",
        "charset=",
        "traceparent: 00-",
        "tracestate: ",
        "x-request-id: ",
        "accept: ",
        "*/*;q=-1",
        "accept-encoding: ",
        "last-event-id: ",
        "if-none-match: ",
        "origin: ",
        "access-control-request-method: ",
        "transfer-encoding: chunked",
        "content-length: ",
        "expect: 100-continue",
    ],
    share: 16,
};

const PACKED: Parser = Parser {
    name: "gzip and zstd bodies",
    grammar: Grammar::Text,
    corpus: include_str!("corpus/flips.txt"),
    words: &["\0\0", "\u{ff}", "abcabc", "0000"],
    share: 16,
};

const KEY_SETS: Parser = Parser {
    name: "JSON Web Key Sets",
    grammar: Grammar::Json,
    corpus: include_str!("corpus/key_sets.txt"),
    words: &[
        "keys", "kty", "OKP", "RSA", "EC", "oct", "crv", "Ed25519", "kid", "x", "n", "e", "AQAB", "use", "alg", "d",
        "k", "key_ops", "x5c",
    ],
    share: 60,
};

/// A parser whose corpus is made here: keys and tokens that no file should hold. Certificates are new in each run, so a finding
/// there is repeated by its text.
fn made(name: &'static str, grammar: Grammar, corpus: String, words: &'static [&'static str], share: u64) -> Parser {
    Parser { name, grammar, corpus: Box::leak(corpus.into_boxed_str()), words, share }
}

#[test]
fn every_request_is_answered_as_the_document_says() {
    let fed = Fed::start();
    let mut run = BadInput::begin();
    run.feed(&JOBS, |input| fed.job(input));
    run.feed(&BULKS, |input| fed.bulk(input));
    run.feed(&CHANGES, |input| fed.change(input));
    run.feed(&QUERIES, |input| fed.query(input));
    let words = &[".", "=", "Bearer ", "eyJhbGciOiJub25lIn0", "lsk_", "ltk_", "_", " ", "e30"];
    let bearers = made("keys and tokens", Grammar::Text, fed.bearers().join("\n%%\n"), words, 20);
    run.feed(&bearers, |input| fed.bearer(input));
    run.feed(&CLAIMS, |input| fed.claims(input));
    run.feed(&HEADS, |input| fed.head(input));
    run.feed(&PACKED, |input| fed.packed(input));
    run.feed(&KEY_SETS, readers::key_set);
    let words = &[
        "-----BEGIN CERTIFICATE-----",
        "-----END CERTIFICATE-----",
        "-----BEGIN PRIVATE KEY-----",
        "MIIB",
        "=",
        "%%%",
        "\r\n",
        "%KEY%",
    ];
    let certificates = made("certificates and keys", Grammar::Lines, readers::certificates(), words, 12);
    run.feed(&certificates, readers::certificate);
    run.end();
}
