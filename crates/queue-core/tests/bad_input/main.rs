//! Everything in this crate that reads what others write, fed with input that is generated: nothing panics, nothing hangs, and what is
//! taken is what it says. `cargo xtask badinput` runs the same over many more. An executable of its own, since its memory is measured.
#![allow(clippy::unwrap_used, clippy::panic)] // a finding is a panic

mod readers;

use testkit::badinput::{BadInput, Grammar, Parser};

const FILTERS: Parser = Parser {
    name: "filters",
    grammar: Grammar::Text,
    corpus: include_str!("corpus/filters.txt"),
    words: &[
        "queue",
        "state",
        "kind",
        "tenant",
        "age",
        "ended_age",
        "running_age",
        "cost",
        "error.class",
        "accepted_at",
        "id",
        "tag",
        "and",
        "or",
        "not",
        "in",
        "(",
        ")",
        ",",
        "=",
        "!=",
        "~",
        "<",
        "<=",
        ">",
        ">=",
        "\"",
        "\\\"",
        "dead",
        "ready",
        "1h",
        "0.05",
        "llm",
        "2026-11-30T00:00:00Z",
    ],
    share: 100,
};

const CRON: Parser = Parser {
    name: "cron and zones",
    grammar: Grammar::Text,
    corpus: include_str!("corpus/cron.txt"),
    words: &[
        "*",
        "/",
        "-",
        ",",
        "?",
        "L",
        "W",
        "#",
        "@daily",
        "@hourly",
        "@reboot",
        "MON",
        "FRI",
        "JAN",
        "0",
        "59",
        "60",
        "30 2 ",
        "29 2",
        "31 2",
        "|UTC",
        "|Europe/Berlin",
        "|America/Sao_Paulo",
        "|Etc/GMT+12",
        "*/1",
        "1-59/2",
        "FRI#5",
        "15W",
        "LW",
    ],
    share: 20,
};

const PRICES: Parser = Parser {
    name: "price files",
    grammar: Grammar::Lines,
    corpus: include_str!("corpus/prices.txt"),
    words: &[
        "[models.\"",
        "\"]",
        "input = ",
        "output = ",
        "cached_input",
        "long",
        "above",
        "aliases",
        "per_call",
        "version",
        "batch",
        "flex",
        "priority",
        "\"\"\"",
        "[[",
        "inf",
        "nan",
        "0x7fffffffffffffff",
        "1979-05-27T07:32:00Z",
        "{",
        "}",
    ],
    share: 60,
};

const LITELLM: Parser = Parser {
    name: "LiteLLM's prices",
    grammar: Grammar::Json,
    corpus: include_str!("corpus/litellm.txt"),
    words: &[
        "input_cost_per_token",
        "output_cost_per_token",
        "mode",
        "chat",
        "max_tokens",
        "litellm_provider",
        "sample_spec",
        "cache_read_input_token_cost",
        "1.5e-07",
        "1e-400",
        "input_cost_per_token_above_128k_tokens",
        "output_cost_per_token_batches",
    ],
    share: 60,
};

const URLS: Parser = Parser {
    name: "webhooks' URLs",
    grammar: Grammar::Text,
    corpus: include_str!("corpus/urls.txt"),
    words: &[
        "https://",
        "http://",
        "127.0.0.1",
        "[::1]",
        "localhost",
        "@",
        ":",
        "/",
        "?",
        "#",
        "%",
        "0x",
        "169.254.169.254",
        "[fe80::1%25eth0]",
        "::ffff:",
        "2130706433",
        "10.",
        "。",
        "①",
        "xn--",
        "..",
        "\\",
        "file://",
        "//",
        "[",
        "]",
        "100.64.0.1",
        "64:ff9b::",
    ],
    share: 100,
};

const WORDS: Parser = Parser {
    name: "addresses, times, money, names",
    grammar: Grammar::Text,
    corpus: include_str!("corpus/words.txt"),
    words: &[
        "redis://",
        "rediss://",
        "redis+sentinel://",
        "p%40ss",
        "@",
        ":",
        "/",
        "s3://",
        "gs://",
        "file:",
        "0.",
        "999999999999",
        "T",
        "Z",
        "+24:00",
        "ms",
        "h",
        "d",
        "lsk_",
        "lmk_",
        "AGE-SECRET-KEY-1",
        "age1",
        "-",
        "*",
        ">",
        "Sun",
        "00-",
        "::",
        "\n",
    ],
    share: 100,
};

const PAYLOADS: Parser = Parser {
    name: "job payloads",
    grammar: Grammar::Json,
    corpus: include_str!("corpus/payloads.txt"),
    words: &[
        "llm",
        "embedding",
        "analysis",
        "http",
        "probe",
        "custom",
        "payload",
        "messages",
        "content",
        "role",
        "model",
        "input",
        "text",
        "items",
        "map",
        "reduce",
        "schema",
        "prompt",
        "{{chunk}}",
        "{{",
        "max_tokens",
        "tools",
        "fallback",
        "on",
        "defaults",
        "url",
        "headers",
        "response_format",
        "chunk",
        "tiny",
        "gpt-4o",
        "limits",
        "handler",
        "steps",
        "cache",
    ],
    share: 40,
};

const SCHEMAS: Parser = Parser {
    name: "answers' schemas",
    grammar: Grammar::Json,
    corpus: include_str!("corpus/schemas.txt"),
    words: &[
        "$ref",
        "#",
        "#/$defs/node",
        "#/properties/n",
        "$defs",
        "$id",
        "$anchor",
        "$dynamicRef",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "then",
        "items",
        "prefixItems",
        "pattern",
        "(a+)+$",
        "(a{1000}){1000}",
        "(?=a)\\1",
        "[",
        "properties",
        "patternProperties",
        "additionalProperties",
        "unevaluatedProperties",
        "type",
        "enum",
        "const",
        "format",
        "regex",
        "uniqueItems",
        "multipleOf",
        "minLength",
        "https://example.com/other.json",
        "file:///etc/passwd",
        "definitions",
        "contains",
        "minContains",
        "$schema",
        "http://json-schema.org/draft-04/schema#",
    ],
    share: 20,
};

#[test]
fn whatever_is_read_is_taken_or_refused() {
    let mut run = BadInput::begin();
    run.feed(&FILTERS, readers::filter);
    run.feed(&CRON, readers::cron);
    run.feed(&PRICES, readers::prices);
    run.feed(&LITELLM, readers::litellm);
    run.feed(&URLS, readers::url);
    run.feed(&WORDS, readers::word);
    run.feed(&PAYLOADS, readers::payload);
    run.feed(&SCHEMAS, readers::schema);
    run.end();
}

#[test]
fn a_secret_that_is_told_is_found() {
    let address = "rediss://user:p%40ss@redis.example";
    let told = [
        (address, "`rediss://user:p%40ss@redis.example` is wrong"),
        ("rediss://user:p%40ss@redisp%40ss", "rediss://user:p%40ss@redisp%40ss"),
        ("redis+sentinel://user:1/p%40ss@a", "redis+sentinel://user:1/p%40ss@a"),
        ("redis+sentinel://a/m?sentinel_password=p%40ss", "the option sentinel_password=p%40ss"),
    ];
    for (address, words) in told {
        assert!(readers::tells_password(address, words), "{address}: {words}");
    }
    let kept = [(address, "rediss://redis.example"), ("rediss://user:p%40ss@redisp%40ss", "rediss://redisp%40ss")];
    for (address, words) in kept {
        assert!(!readers::tells_password(address, words), "{address}: {words}");
    }
    assert!(readers::tells_key("`age1qqqAGE-SECRET-KEY-1QQQ` is not a recipient"));
    assert!(readers::tells_key("`lmk_AAAAAAAAAAAAAAAAAAAAAAAA` is not a master key"));
    assert!(!readers::tells_key("a text is not a recipient"));
}
