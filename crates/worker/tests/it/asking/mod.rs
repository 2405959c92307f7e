//! An `OpenAi` against the mock provider, with the patience of a test.
#![allow(clippy::unwrap_used)] // clippy spares only functions with #[test]
#![allow(unreachable_pub, reason = "the binary exports nothing")]

use std::{sync::Mutex, time::Duration};

use queue_core::ids::CallId;
use serde_json::{Map, Value, json};
use testkit::MockProvider;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use worker::provider::{
    Call, CallError, ChatAnswer, ChatRequest, EmbedAnswer, EmbedRequest, Provider,
    openai::{OpenAi, OpenAiConfig},
};

/// A key that must not turn up anywhere.
pub const KEY: &str = "lsk-test-0123456789abcdef";
/// A prompt that must not turn up in an error.
pub const PROMPT: &str = "Jane Doe of 12 Harbour Street was seen on the third of May with a high fever.";
/// Longer than any test: only a broken one waits for it.
pub const LONG: Duration = Duration::from_secs(60);

/// A provider with the usual settings.
pub fn openai(mock: &MockProvider) -> OpenAi {
    openai_with(mock, |_| {})
}

pub fn openai_with(mock: &MockProvider, change: impl FnOnce(&mut OpenAiConfig)) -> OpenAi {
    let mut config = OpenAiConfig::new("mock", mock.url());
    config.key = Some(KEY.into());
    change(&mut config);
    OpenAi::new(config).unwrap()
}

pub fn chat_request(more: Value) -> ChatRequest {
    let mut body = Map::new();
    body.insert("messages".into(), json!([{"role": "user", "content": PROMPT}]));
    if let Value::Object(more) = more {
        body.extend(more);
    }
    ChatRequest { model: "mock-chat".into(), body }
}

pub fn embed_request(input: &[&str]) -> EmbedRequest {
    EmbedRequest {
        model: "mock-embed".into(),
        input: input.iter().map(|&text| text.into()).collect(),
        dimensions: None,
    }
}

pub fn call_id(number: u128) -> CallId {
    CallId(Uuid::from_u128(number))
}

/// One call that nobody stops; also returns the pieces of text as they were told.
pub async fn chat(provider: &dyn Provider, request: &ChatRequest) -> (Result<ChatAnswer, CallError>, Vec<String>) {
    chat_until(provider, request, CancellationToken::new(), LONG).await
}

pub async fn chat_until(
    provider: &dyn Provider,
    request: &ChatRequest,
    cancel: CancellationToken,
    total: Duration,
) -> (Result<ChatAnswer, CallError>, Vec<String>) {
    let told = Mutex::new(vec![]);
    let on_text = |text: &str| told.lock().unwrap().push(text.to_owned());
    let answer = provider.chat(request, Call { id: call_id(1), cancel, total, key: None, on_text: &on_text }).await;
    (answer, told.into_inner().unwrap())
}

pub async fn embed(provider: &dyn Provider, request: &EmbedRequest) -> Result<EmbedAnswer, CallError> {
    let call = Call { id: call_id(1), cancel: CancellationToken::new(), total: LONG, key: None, on_text: &|_| {} };
    provider.embed(request, call).await
}

/// What must hold of every error: no key, no prompt, a message and a code.
pub fn assert_discreet(failure: &CallError) {
    let told = format!("{:?}", failure.error);
    for secret in [KEY, "Jane Doe", "Harbour Street", "third of May", "high fever"] {
        assert!(!told.contains(secret), "{told}");
    }
    assert!(!failure.error.message.is_empty() && !failure.error.code.is_empty(), "{told}");
}
