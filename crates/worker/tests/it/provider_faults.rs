//! Chat over the OpenAI wire against a provider that breaks every rule: the class, what it may have cost, and that
//! nothing panics, hangs, grows or tells secrets.

use std::time::Duration;

use crate::asking::{KEY, LONG, PROMPT, assert_discreet, chat, chat_request, chat_until, openai, openai_with};
use queue_core::{
    error::ErrorClass as C,
    ledger::{Billed, UsageSource},
};
use serde_json::{Value, json};
use testkit::{Behaviour as B, MockProvider, Stream};
use tokio_util::sync::CancellationToken;
use worker::provider::CallError;

/// The error of one call that is treated like this.
async fn failure(mock: &MockProvider, behaviour: B) -> CallError {
    let name = format!("{behaviour:?}").chars().take(200).collect::<String>();
    mock.script([behaviour]);
    let (outcome, _) = chat(&openai(mock), &chat_request(json!({}))).await;
    let failure = outcome.expect_err(&name);
    assert_discreet(&failure);
    // What may have cost something says how much, and only that.
    assert_eq!(failure.usage.is_some(), failure.billed != Billed::No, "{name}: {failure:?}");
    failure
}

#[tokio::test]
async fn statuses_have_their_classes() {
    let mock = MockProvider::start().await;
    let cases = [
        (500, C::Server, Billed::No),
        (502, C::Server, Billed::Maybe),
        (503, C::Server, Billed::No),
        (529, C::Server, Billed::No),
        (408, C::Server, Billed::Maybe),
        (401, C::Auth, Billed::No),
        (404, C::Config, Billed::No),
        (302, C::Config, Billed::No),
        (400, C::BadRequest, Billed::No),
        (402, C::Quota, Billed::No),
        (429, C::Rate, Billed::No),
    ];
    for (status, class, billed) in cases {
        let failure = failure(&mock, B::Status(status)).await;
        assert_eq!((failure.error.class, failure.billed), (class, billed), "{status}");
        assert_eq!(failure.request_id.as_deref(), Some("req_mock"), "{status}");
    }
    let html = failure(&mock, B::html(502)).await;
    assert_eq!(
        (html.error.class, html.error.message.as_str()),
        (C::Server, "status 502: a page of HTML: 502 Bad Gateway")
    );
    let slow_down = failure(&mock, B::rate_limit(1_234)).await;
    assert_eq!((slow_down.error.class, slow_down.error.retry_after_ms), (C::Rate, Some(1_234)));
    let numbered = json!({"error": {"code": 400, "type": "exceed_context_size_error", "message": "too long"}});
    let overflow = failure(&mock, B::Respond(400, vec![], numbered.to_string())).await;
    assert_eq!((overflow.error.class, overflow.error.code.as_str()), (C::Overflow, "exceed_context_size_error"));
}

#[tokio::test]
async fn a_quoted_prompt_or_key_is_not_passed_on() {
    let mock = MockProvider::start().await;
    let quoting =
        json!({"error": {"message": format!("Invalid value: '{PROMPT}' with key {KEY}"), "code": "invalid_value"}});
    let failure = failure(&mock, B::Respond(400, vec![], quoting.to_string())).await;
    assert_eq!(failure.error.message, "status 400: Invalid value: '…' with key [key]");
}

#[tokio::test]
async fn streams_that_break_off_may_have_cost_something() {
    let mock = MockProvider::start().await;
    let cases = [
        (B::CutAfter(3), "connection_lost"),
        (B::ResetAfter(3), "connection_lost"),
        (B::EndAfter(3), "cut"),
        (B::GarbageAfter(3), "malformed"),
        (B::Stream(Stream { finish: None, ..Stream::default() }), "cut"),
        (B::Stream(Stream { finish: None, done: false, ..Stream::default() }), "cut"),
    ];
    for (behaviour, code) in cases {
        let name = format!("{behaviour:?}");
        let failure = failure(&mock, behaviour).await;
        let usage = failure.usage.unwrap();
        assert_eq!((failure.error.class, failure.error.code.as_str()), (C::StreamBroken, code), "{name}");
        assert_eq!(failure.billed, Billed::Maybe, "{name}");
        assert!(usage.tokens_in > 20 && usage.tokens_out >= 3, "{name}: {usage:?}");
        let source = if name.starts_with("Stream") { UsageSource::Provider } else { UsageSource::Estimated };
        assert_eq!(failure.usage_source, source, "{name}");
        assert_eq!(failure.request_id.as_deref(), Some("req_mock"), "{name}");
    }
}

#[tokio::test]
async fn an_error_inside_a_stream_has_the_class_of_its_code() {
    let mock = MockProvider::start().await;
    let cases = [
        (json!({"error": {"message": "slow", "type": "rate_limit_error"}}), C::Rate),
        (json!({"error": {"message": "The server had an error", "type": "server_error", "code": null}}), C::Server),
        (json!({"error": {"code": 400, "message": "exceeds the available context size"}}), C::Overflow),
        (json!({"error": format!("it broke on {PROMPT}")}), C::Server),
    ];
    for (error, class) in cases {
        let failure = failure(&mock, B::ErrorAfter(2, error.clone())).await;
        assert_eq!((failure.error.class, failure.billed), (class, Billed::Maybe), "{error}");
    }
    let whole = B::Respond(200, vec![], json!({"error": {"message": "no", "code": "insufficient_quota"}}).to_string());
    assert_eq!(failure(&mock, whole).await.error.class, C::Quota);
}

#[tokio::test]
async fn a_200_that_is_no_answer_is_invalid_output() {
    let mock = MockProvider::start().await;
    let html = |body: &str| B::Respond(200, vec![("content-type".into(), "text/html".into())], body.into());
    let cases = [
        (B::Respond(200, vec![], "{\"choices\": [{\"mess".into()), "not_json", Billed::Yes),
        (B::Respond(200, vec![], String::new()), "not_json", Billed::Yes),
        (B::Respond(200, vec![], "{\"choices\": []}".into()), "no_choice", Billed::Yes),
        (B::Respond(200, vec![], "[1]".into()), "no_choice", Billed::Yes),
        (B::Respond(200, vec![], "\u{feff}null".into()), "not_json", Billed::Yes),
        (html("<html>Please log in</html>"), "not_json", Billed::Maybe),
    ];
    for (behaviour, code, billed) in cases {
        let name = format!("{behaviour:?}");
        let failure = failure(&mock, behaviour).await;
        let seen = (failure.error.class, failure.error.code.as_str(), failure.billed);
        assert_eq!(seen, (C::InvalidOutput, code, billed), "{name}");
    }
    let short = failure(&mock, B::Short(100)).await;
    assert_eq!((short.error.class, short.billed), (C::StreamBroken, Billed::Maybe));
}

#[tokio::test]
async fn a_connection_that_ends_before_the_answer_may_have_cost_something() {
    let mock = MockProvider::start().await;
    let half_a_head = B::Raw(b"HTTP/1.1 200 OK\r\ncontent-ty".to_vec());
    for behaviour in [B::Close, half_a_head, B::Raw(b"SSH-2.0-OpenSSH\r\n".to_vec()), B::Raw(vec![0; 100])] {
        let name = format!("{behaviour:?}");
        let failure = failure(&mock, behaviour).await;
        assert_eq!((failure.error.class, failure.billed), (C::TransportMid, Billed::Maybe), "{name}");
    }
    assert_eq!(mock.calls().len(), 4, "nothing is sent twice by itself");
}

#[tokio::test]
async fn silence_ends_when_patience_does() {
    let mock = MockProvider::start().await;
    let brief = Duration::from_millis(100);
    let impatient = openai_with(&mock, |config| (config.first_byte_timeout, config.chunk_timeout) = (brief, LONG));
    let strict = openai_with(&mock, |config| (config.first_byte_timeout, config.chunk_timeout) = (LONG, brief));
    let pause = Duration::from_millis(10);
    let cases = [
        (&impatient, B::Hang, C::TransportMid, "first_byte_timeout"),
        (&impatient, B::SlowHead(pause), C::TransportMid, "first_byte_timeout"),
        // A head without an answer after it, and one with comments after it, are no beginning of an answer.
        (&impatient, B::StallAfter(0), C::StreamBroken, "stalled"),
        (&impatient, B::KeepaliveAfter(0, pause), C::StreamBroken, "stalled"),
        (&strict, B::StallAfter(2), C::StreamBroken, "stalled"),
        (&strict, B::KeepaliveAfter(2, pause), C::StreamBroken, "stalled"),
    ];
    for (number, (provider, behaviour, class, code)) in cases.into_iter().enumerate() {
        let name = format!("{behaviour:?}");
        mock.script([behaviour]);
        let failure = chat(provider, &chat_request(json!({}))).await.0.unwrap_err();
        assert_eq!((failure.error.class, failure.error.code.as_str()), (class, code), "{name}");
        assert_eq!(failure.billed, Billed::Maybe, "{name}");
        assert!(failure.usage.unwrap().tokens_in > 20, "{name}");
        mock.until("the connection is dropped", |calls| calls[number].dropped).await;
    }
}

#[tokio::test]
async fn a_cancelled_call_drops_its_connection_and_says_what_had_arrived() {
    let mock = MockProvider::start().await;
    let provider = openai(&mock);
    for (number, behaviour) in [B::StallAfter(4), B::Hang].into_iter().enumerate() {
        mock.script([behaviour]);
        let cancel = CancellationToken::new();
        let (request, token) = (chat_request(json!({})), cancel.clone());
        let call = chat_until(&provider, &request, token, LONG);
        let stop = async {
            mock.until("the call has arrived", |calls| calls.len() > number).await;
            cancel.cancel();
        };
        let ((outcome, _), ()) = tokio::join!(call, stop);
        let failure = outcome.unwrap_err();
        let seen = (failure.error.class, failure.error.code.as_str(), failure.billed);
        assert_eq!(seen, (C::Internal, "cancelled", Billed::Maybe));
        assert!(failure.usage.unwrap().tokens_in > 20);
        mock.until("the connection is dropped", |calls| calls[number].dropped).await;
    }
}

#[tokio::test]
async fn the_text_of_a_cancelled_call_is_counted() {
    let mock = MockProvider::start().await;
    mock.script([B::StallAfter(40)]);
    let cancel = CancellationToken::new();
    let heard = std::sync::atomic::AtomicUsize::new(0);
    let on_text = |_: &str| {
        // Stops itself as soon as everything that will come has come.
        if heard.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 39 {
            cancel.cancel();
        }
    };
    let provider = openai(&mock);
    let call = worker::provider::Call {
        id: crate::asking::call_id(1),
        cancel: cancel.clone(),
        total: LONG,
        key: None,
        on_text: &on_text,
    };
    let request = chat_request(json!({}));
    let failure = worker::provider::Provider::chat(&provider, &request, call).await.unwrap_err();
    assert!(failure.usage.unwrap().tokens_out >= 80, "{failure:?}");
    assert_eq!(failure.request_id.as_deref(), Some("req_mock"));
}

#[tokio::test]
async fn the_total_time_ends_a_call() {
    let mock = MockProvider::start().await;
    mock.script([B::StallAfter(2)]);
    let total = Duration::from_millis(100);
    let (outcome, _) = chat_until(&openai(&mock), &chat_request(json!({})), CancellationToken::new(), total).await;
    let failure = outcome.unwrap_err();
    assert_eq!((failure.error.class, failure.billed), (C::Timeout, Billed::Maybe));
    assert!(failure.usage.is_some());
    mock.until("the connection is dropped", |calls| calls[0].dropped).await;
}

#[tokio::test]
async fn a_call_that_is_over_before_it_begins_is_not_made() {
    let mock = MockProvider::start().await;
    let stopped = CancellationToken::new();
    stopped.cancel();
    for (cancel, total) in [(stopped, LONG), (CancellationToken::new(), Duration::ZERO)] {
        let failure = chat_until(&openai(&mock), &chat_request(json!({})), cancel, total).await.0.unwrap_err();
        assert_eq!((failure.billed, failure.usage), (Billed::No, None), "{failure:?}");
    }
    assert_eq!(mock.connections(), 0);
}

#[tokio::test]
async fn nothing_is_read_without_a_bound() {
    let mock = MockProvider::start().await;
    // Each more than the connection's own buffers hold: what is not read is not sent.
    let answer = failure(&mock, B::Endless(800, 100_000)).await;
    assert_eq!((answer.error.class, answer.error.code.as_str()), (C::InvalidOutput, "answer_too_large"));
    assert!(!answer.error.retryable, "the next one would be as long");
    let event = failure(&mock, B::Endless(1, 64_000_000)).await;
    assert_eq!((event.error.class, event.error.code.as_str()), (C::StreamBroken, "event_too_large"));
    let whole = failure(&mock, B::Flood(200, 64_000_000)).await;
    assert_eq!((whole.error.class, whole.error.code.as_str()), (C::InvalidOutput, "answer_too_large"));
    let explanation = failure(&mock, B::Flood(500, 64_000_000)).await;
    assert_eq!(explanation.error.class, C::Server);
    assert!(explanation.error.message.len() < 3_000);
    mock.until("every connection was dropped in the middle", |calls| calls.iter().all(|call| call.dropped)).await;
}

#[tokio::test]
async fn every_prefix_of_a_response_is_survived() {
    let mock = MockProvider::start().await;
    let chunk = json!({"choices": [{"index": 0, "delta": {"content": "größer 🚢"}, "finish_reason": null}]});
    let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let body = format!("data: {chunk}\r\n\r\n: c\n\ndata: {end}\n\ndata: [DONE]\n\n");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let whole = [head.as_bytes(), body.as_bytes()].concat();
    let provider = openai(&mock);
    let request = chat_request(json!({}));
    let mut complete = 0;
    for length in 0..=whole.len() {
        mock.script([B::Raw(whole[..length].to_vec())]);
        match chat(&provider, &request).await.0 {
            Ok(answer) => {
                assert_eq!(answer.text, "größer 🚢", "{length}");
                complete += 1;
            }
            Err(failure) => {
                assert!(
                    matches!(failure.error.class, C::TransportMid | C::StreamBroken),
                    "{length}: {}",
                    failure.error
                );
                assert_eq!(failure.billed, Billed::Maybe, "{length}");
            }
        }
    }
    // Whole from the last byte of the event with the finish reason on: its line ends are not needed.
    let needed = whole.len() - "\n\ndata: [DONE]\n\n".len();
    assert_eq!(complete, whole.len() - needed + 1);
}

#[tokio::test]
async fn odd_json_is_survived() {
    let mock = MockProvider::start().await;
    let provider = openai(&mock);
    let odd = [
        "null",
        "[]",
        "\"x\"",
        "1e999",
        "{\"choices\":null}",
        "{\"choices\":[null]}",
        "{\"choices\":[[]]}",
        "{\"choices\":[{\"delta\":null}]}",
        "{\"choices\":[{\"delta\":{\"content\":7}}]}",
        "{\"choices\":[{\"delta\":{\"tool_calls\":[null,{\"index\":-1},{\"function\":9}]}}]}",
        "{\"choices\":[{\"index\":\"0\",\"finish_reason\":3}]}",
        "{\"usage\":{\"prompt_tokens\":-1e300}}",
        "{\"id\":5,\"model\":[]}",
    ];
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for data in odd.into_iter().chain([deep.as_str()]) {
        let end = json!({"choices": [{"delta": {"content": "fine"}, "finish_reason": "stop"}]});
        let stream = format!("data: {data}\n\ndata: {end}\n\ndata: [DONE]\n\n");
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        mock.script([B::Raw([head, &stream].concat().into_bytes())]);
        match chat(&provider, &chat_request(json!({}))).await.0 {
            Ok(answer) => assert_eq!(answer.text, "fine", "{data}"),
            Err(failure) => {
                assert_eq!(failure.error.class, C::StreamBroken, "{}: {}", &data[..20.min(data.len())], failure.error)
            }
        }
        mock.script([B::Respond(200, vec![], data.to_owned())]);
        let whole: Result<_, CallError> = chat(&provider, &chat_request(json!({}))).await.0;
        if let Err(failure) = whole {
            assert_eq!(failure.error.class, C::InvalidOutput, "{}", failure.error);
        }
    }
    assert!(mock.calls().iter().all(|call| call.body != Value::Null));
}
