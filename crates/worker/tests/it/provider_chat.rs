//! Chat over the OpenAI wire against a provider that keeps to it, in every form that occurs.

use crate::asking::{KEY, PROMPT, assert_discreet, call_id, chat, chat_request, openai, openai_with};
use queue_core::{error::ErrorClass, ledger::Billed};
use serde_json::json;
use testkit::{Behaviour, MockProvider, Stream, UsageForm};
use worker::provider::{
    Provider,
    openai::{OpenAi, OpenAiConfig},
};

#[tokio::test]
async fn a_request_says_what_it_should_and_the_answer_comes_whole() {
    let mock = MockProvider::start().await;
    let provider = openai(&mock);
    let request = chat_request(json!({"max_tokens": 50, "stream": false, "vendor_option": {"top_k": 3}}));
    let (answer, told) = chat(&provider, &request).await;
    let answer = answer.unwrap();
    assert!(answer.text.starts_with("Mock answer ") && answer.text.ends_with("with a größere 🚢."), "{}", answer.text);
    assert_eq!(told.concat(), answer.text);
    assert!(told.len() > 3, "told in pieces: {told:?}");
    assert_eq!((answer.finish.as_str(), answer.model.as_str()), ("stop", "mock-chat"));
    assert_eq!(answer.request_id.as_deref(), Some("req_mock"));
    assert!(answer.first_token_ms.is_some());
    let usage = answer.usage.expect("the provider counted");
    assert!(usage.tokens_in > 10 && usage.tokens_out > 3, "{usage:?}");

    let seen = mock.calls().remove(0);
    assert!(seen.answered);
    assert_eq!(seen.authorization, Some(format!("Bearer {KEY}")));
    let id = call_id(1).to_string();
    assert_eq!((seen.call_id.as_deref(), seen.idempotency_key.as_deref()), (Some(id.as_str()), Some(id.as_str())));
    let expected = json!({
        "model": "mock-chat", "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 50,
        "vendor_option": {"top_k": 3}, "messages": [{"role": "user", "content": PROMPT}],
    });
    assert_eq!(seen.body, expected);
}

#[tokio::test]
async fn every_legal_form_of_a_stream_gives_the_same_answer() {
    let mock = MockProvider::start().await;
    let provider = openai(&mock);
    let request = chat_request(json!({}));
    let plain = chat(&provider, &request).await.0.unwrap();
    let form = Stream::default;
    let forms = [
        Stream { crlf: true, ..form() },
        Stream { comments: true, ..form() },
        Stream { no_space: true, ..form() },
        Stream { byte_by_byte: true, ..form() },
        Stream { byte_by_byte: true, crlf: true, comments: true, ..form() },
        Stream { many_lines: true, crlf: true, ..form() },
        Stream { done: false, ..form() },
        Stream { novelties: true, ..form() },
        Stream { usage: UsageForm::LastDelta, ..form() },
        Stream { content_type: "text/plain".into(), ..form() },
        Stream { content_type: "application/octet-stream".into(), comments: true, ..form() },
        Stream { finish: Some(String::new()), ..form() },
    ];
    for form in forms {
        mock.script([Behaviour::Stream(form.clone())]);
        let answer = chat(&provider, &request).await.0.unwrap_or_else(|failure| panic!("{form:?}: {}", failure.error));
        assert_eq!((&answer.text, &answer.finish), (&plain.text, &plain.finish), "{form:?}");
        assert_eq!(answer.usage, plain.usage, "{form:?}");
    }
    mock.script([Behaviour::Whole]);
    let (whole, told) = chat(&provider, &request).await;
    assert_eq!(whole.unwrap().text, plain.text);
    assert_eq!(told, vec![plain.text], "an answer in one piece is told in one piece");
}

#[tokio::test]
async fn token_counts_may_be_missing() {
    let mock = MockProvider::start().await;
    for usage in [UsageForm::Null, UsageForm::Absent] {
        mock.script([Behaviour::Stream(Stream { usage, ..Stream::default() })]);
        let answer = chat(&openai(&mock), &chat_request(json!({}))).await.0.unwrap();
        assert_eq!(answer.usage, None, "{usage:?}");
    }
    let shy = openai_with(&mock, |config| config.include_usage = false);
    let request = chat_request(json!({"stream_options": {"include_usage": true}}));
    assert_eq!(chat(&shy, &request).await.0.unwrap().usage, None);
    assert_eq!(mock.calls()[2].body.get("stream_options"), None, "a server that refuses the option is not sent it");
}

#[tokio::test]
async fn the_end_mark_may_never_come_once_the_answer_is_whole() {
    let mock = MockProvider::start().await;
    // The server holds the connection open after the finish reason: token counts and `[DONE]` are waited for briefly.
    mock.script([Behaviour::Stream(Stream { done: false, open_end: true, ..Stream::default() })]);
    let answer = chat(&openai(&mock), &chat_request(json!({}))).await.0.unwrap();
    assert!(answer.text.starts_with("Mock answer"), "{}", answer.text);
    mock.until("the connection is dropped", |calls| calls[0].dropped).await;
}

#[tokio::test]
async fn finish_reasons_are_passed_on() {
    let mock = MockProvider::start().await;
    for finish in ["length", "content_filter", "a_word_of_tomorrow"] {
        mock.script([Behaviour::Finish("Cut in the".into(), finish.into())]);
        let answer = chat(&openai(&mock), &chat_request(json!({}))).await.0.unwrap();
        assert_eq!((answer.finish.as_str(), answer.text.as_str()), (finish, "Cut in the"));
        assert!(answer.usage.is_some());
    }
    mock.script([Behaviour::Refuse("I cannot help with that.".into())]);
    let answer = chat(&openai(&mock), &chat_request(json!({}))).await.0.unwrap();
    assert_eq!(answer.refusal.as_deref(), Some("I cannot help with that."));
    assert_eq!(answer.text, "");
}

#[tokio::test]
async fn tool_calls_told_in_turns_are_put_together() {
    let mock = MockProvider::start().await;
    mock.script([Behaviour::CallTool]);
    let tools = json!({"tools": [{"type": "function", "function": {"name": "dive", "parameters": {}}}]});
    let answer = chat(&openai(&mock), &chat_request(tools)).await.0.unwrap();
    assert_eq!(answer.finish, "tool_calls");
    let expected = vec![
        json!({"id": "call_0", "type": "function", "function": {"name": "dive", "arguments": "{\"depth\":7}"}}),
        json!({"id": "call_1", "type": "function", "function": {"name": "dive", "arguments": "{}"}}),
    ];
    assert_eq!(answer.tool_calls, expected);
}

#[tokio::test]
async fn a_stream_without_tls_has_a_connection_of_its_own() {
    let mock = MockProvider::start().await;
    let provider = openai(&mock);
    for _ in 0..3 {
        chat(&provider, &chat_request(json!({}))).await.0.unwrap();
    }
    assert_eq!(mock.connections(), 3, "the server may close it after the stream, whatever it says before");
    assert_eq!(mock.calls()[0].headers.get("connection").map(String::as_str), Some("close"));
}

#[tokio::test]
async fn a_schema_gets_an_answer_that_fits() {
    let mock = MockProvider::start().await;
    let schema = json!({"type": "object", "required": ["title", "tags"],
                        "properties": {"title": {"type": "string"}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}}}});
    let format = json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}});
    let answer = chat(&openai(&mock), &chat_request(format)).await.0.unwrap();
    let value: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(value, json!({"title": "mock", "tags": ["a"]}));
}

#[tokio::test]
async fn a_check_shows_whether_the_provider_answers_at_all() {
    let mock = MockProvider::start().await;
    openai(&mock).check().await.unwrap();
    let elsewhere = OpenAi::new(OpenAiConfig::new("x", mock.url().replace("/v1", "/v2"))).unwrap();
    elsewhere.check().await.unwrap();
    assert!(mock.calls().is_empty(), "a check asks for no answer");
    let config = OpenAiConfig::new("nobody", closed_port().await);
    let failure = OpenAi::new(config).unwrap().check().await.unwrap_err();
    assert_eq!((failure.error.class, failure.billed), (ErrorClass::TransportPre, Billed::No));
}

#[tokio::test]
async fn nobody_listening_costs_nothing() {
    let provider = OpenAi::new(OpenAiConfig::new("nobody", closed_port().await)).unwrap();
    let failure = chat(&provider, &chat_request(json!({}))).await.0.unwrap_err();
    assert_eq!((failure.error.class, failure.billed), (ErrorClass::TransportPre, Billed::No));
    assert_eq!((failure.error.code.as_str(), failure.usage), ("connect", None));
    assert_discreet(&failure);
}

/// The URL of a port that was just given back.
async fn closed_port() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}/v1", listener.local_addr().unwrap())
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    type Change = fn(&mut OpenAiConfig);
    let refused = |change: Change| {
        let mut config = OpenAiConfig::new("x", "http://127.0.0.1:1/v1");
        change(&mut config);
        OpenAi::new(config).err().expect("this cannot work")
    };
    let cases: [(Change, &str); 11] = [
        (|config| config.base_url = "localhost:8000".into(), "not an http"),
        (|config| config.base_url = String::new(), "not a URL"),
        (|config| config.base_url = "ftp://x/v1".into(), "not an http"),
        (|config| config.base_url = "http://user:word@x/v1".into(), "user or password"),
        (|config| config.base_url = "http://x/v1?key=1".into(), "query"),
        (|config| config.key = Some("a\nb".into()), "line break"),
        (|config| config.key = Some("".into()), "empty"),
        (|config| config.key = Some("schlüssel".into()), "ASCII"),
        (|config| config.headers = vec![("bad name".into(), "x".into())], "name of a header"),
        (|config| config.headers = vec![("api-key".into(), "a\r\nb: c".into())], "api-key"),
        (|config| config.headers = vec![("api-key".into(), "".into())], "api-key"),
    ];
    for (change, reason) in cases {
        let error = refused(change);
        assert!(error.contains(reason), "{error}");
        assert!(!error.contains("word") || error.contains("password"), "{error}");
    }
    let debug = format!("{:?}", OpenAiConfig { key: Some(KEY.into()), ..OpenAiConfig::new("x", "http://x") });
    assert!(!debug.contains(KEY), "{debug}");
}

#[tokio::test]
async fn further_headers_are_sent() {
    let mock = MockProvider::start().await;
    let provider = openai_with(&mock, |config| {
        config.key = None;
        config.headers = vec![("api-key".into(), "azure-style".into())];
    });
    chat(&provider, &chat_request(json!({}))).await.0.unwrap();
    let seen = mock.calls().remove(0);
    assert_eq!(seen.headers.get("api-key").map(String::as_str), Some("azure-style"));
    assert_eq!(seen.authorization, None);
}
