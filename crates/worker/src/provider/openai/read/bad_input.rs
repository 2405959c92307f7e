//! Providers that send whatever they like: it becomes an answer or an error, the same in whatever pieces it comes, and no error tells
//! the key or the prompt. `cargo xtask badinput` runs the same over many more.

use queue_core::error::MESSAGE_MAX_BYTES;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::json;
use testkit::badinput::{BadInput, Grammar, Parser as Fed};

use super::{
    super::{conceal, decode, limits, pause, usage},
    *,
};

/// What the corpus quotes.
const KEY: &str = "sk-canary-0123456789abcdef";
const QUOTED: &str = "a prompt that is long enough to be recognised wherever it is quoted";

const CHATS: Fed = Fed {
    name: "providers' answers (SSE and JSON)",
    grammar: Grammar::Lines,
    corpus: include_str!("corpus/chats.txt"),
    words: &[
        "data: ",
        "data:",
        "event: error\n",
        "[DONE]",
        "\n\n",
        "\r\r",
        ":",
        "id: 1\n",
        "{\"choices\":[",
        "\"delta\":{",
        "\"content\":",
        "\"finish_reason\":\"stop\"",
        "\"usage\":{\"prompt_tokens\":",
        "-1",
        "18446744073709551615",
        "1e400",
        "\"index\":",
        "null",
        "[]",
        "{}",
        "\"tool_calls\":[",
        "\"error\":",
        "}",
        "]",
    ],
    share: 100,
};

const REFUSALS: Fed = Fed {
    name: "providers' errors",
    grammar: Grammar::Json,
    corpus: include_str!("corpus/refusals.txt"),
    words: &[
        "error",
        "message",
        "type",
        "code",
        "status",
        "detail",
        "msg",
        "context_length_exceeded",
        "insufficient_quota",
        "429",
        "<html>",
        "<title>",
        KEY,
        QUOTED,
        "details",
        "content_filter",
    ],
    share: 100,
};

const VECTORS: Fed = Fed {
    name: "providers' vectors",
    grammar: Grammar::Json,
    corpus: include_str!("corpus/vectors.txt"),
    words: &[
        "data",
        "index",
        "embedding",
        "usage",
        "error",
        "AACAPw==",
        "AADAfw==",
        "AACAfw==",
        "model",
        "total_tokens",
    ],
    share: 60,
};

const HEADERS: Fed = Fed {
    name: "providers' headers",
    grammar: Grammar::Lines,
    corpus: include_str!("corpus/headers.txt"),
    words: &[
        "retry-after: ",
        "x-ratelimit-reset-tokens: ",
        "x-ratelimit-limit-requests: ",
        "ms",
        "1h",
        "-7",
        "1e300",
        "inf",
        "nan",
        "Mon, 30 Nov 9999 12:00:00 GMT",
        "x-request-id: ",
        "content-type: application/json",
        "99999999999999999999s",
    ],
    share: 60,
};

/// How an answer was read: its text, whether it is complete, and what is told of it.
fn read_in(pieces: impl Iterator<Item = Vec<u8>>) -> (String, bool, Result<(), String>) {
    let (mut parser, mut events, mut arrived) = (Parser::default(), Vec::new(), Assembly::default());
    let headers = HeaderMap::new();
    let read = || {
        for piece in pieces {
            push(&mut parser, &piece, &mut events)?;
            for event in events.drain(..) {
                if arrived.accept(&event, &|_| {}).map_err(|reason| why_broken(reason, &headers))? == Step::Done {
                    return Ok(());
                }
            }
        }
        last_event(&mut parser, &headers, &|_| {}, &mut arrived)
    };
    let outcome = read().map_err(|failure: CallError| failure.error.code);
    (arrived.text.clone(), arrived.is_complete(), outcome)
}

/// What a job's owner would be told holds neither key nor prompt, and is no longer than an error may be.
fn check_told(failure: &CallError) {
    let told = conceal::conceal(&failure.error.message, &[KEY], [QUOTED]);
    assert!(!told.contains(KEY), "{told}");
    assert!(!told.contains(QUOTED), "{told}");
    assert!(failure.error.message.len() <= MESSAGE_MAX_BYTES + '…'.len_utf8());
}

fn chat(input: &[u8]) -> bool {
    let size = 1 + input.len() % 61;
    let whole = read_in(std::iter::once(input.to_vec()));
    assert_eq!(whole, read_in(input.chunks(size).map(<[u8]>::to_vec)), "in pieces of {size}");
    let (mut arrived, told) = (Assembly::default(), std::sync::Mutex::new(String::new()));
    let hear = |text: &str| told.lock().unwrap().push_str(text);
    let start = input.trim_ascii_start();
    let outcome = if start.starts_with(b"{") || start.starts_with(b"[") {
        arrived.accept_whole(input, &hear).map_err(|reason| why_broken(reason, &HeaderMap::new()))
    } else {
        events_of(input, &HeaderMap::new(), &hear, &mut arrived)
    };
    if let Err(failure) = &outcome {
        check_told(failure);
    }
    assert_eq!(arrived.text, *told.lock().unwrap(), "what is told is what is kept");
    if outcome.is_err() || !arrived.is_complete() {
        return false;
    }
    let answer = arrived.finish(Instant::now(), "asked");
    assert!(!answer.finish.is_empty(), "an answer says why it ended");
    if let Some(counted) = answer.usage {
        assert!(counted.tokens_in <= 1_000_000_000 && counted.tokens_cached <= counted.tokens_in, "{counted:?}");
        assert!(counted.tokens_reasoning <= counted.tokens_out, "{counted:?}");
    }
    true
}

fn refusal(input: &[u8]) -> bool {
    let status = [400, 401, 403, 404, 408, 413, 429, 500, 502, 529][input.len() % 10];
    let failure = errors::classify(status, &HeaderMap::new(), input);
    check_told(&failure);
    let Ok(body) = serde_json::from_slice(input) else { return false };
    check_told(&errors::classify_reported(&HeaderMap::new(), &body));
    let _ = usage::parse(&body);
    true
}

fn vectors(input: &[u8]) -> bool {
    let inputs = 2;
    let decoded = futures::executor::block_on(decode(input.to_vec(), HeaderMap::new(), inputs));
    let Ok(vectors) = decoded.map(|decoded| decoded.vectors) else { return false };
    let Ok(vectors) = vectors else { return false };
    assert_eq!(vectors.len(), inputs);
    assert!(vectors.iter().all(|vector| vector.len() == vectors[0].len() && vector.iter().all(|n| n.is_finite())));
    true
}

fn headers(input: &[u8]) -> bool {
    let mut map = HeaderMap::new();
    for line in input.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let name = HeaderName::from_bytes(line[..colon].trim_ascii());
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    let (told, wait) = (limits::told(&map), pause::asked_for(&map));
    let failure = errors::classify(429, &map, json!({"error": {"message": "slow"}}).to_string().as_bytes());
    assert!(failure.request_id.is_none_or(|id| id.chars().count() <= 128));
    !told.is_empty() || wait.is_some()
}

#[test]
fn whatever_a_provider_sends_becomes_an_answer_or_an_error() {
    let mut run = BadInput::begin();
    run.feed(&CHATS, chat);
    run.feed(&REFUSALS, refusal);
    run.feed(&VECTORS, vectors);
    run.feed(&HEADERS, headers);
    run.end();
}
