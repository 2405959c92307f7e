//! Tokens of requests and answers whose provider did not count.

use queue_core::ledger::{Usage, estimate_tokens};
use serde_json::Value;

use super::{ChatRequest, EmbedRequest};

/// Tokens that a chat message costs besides its text.
const TOKENS_PER_MESSAGE: u64 = 8;

/// Usage of a chat call that has brought `answer` so far.
pub(super) fn of_chat(request: &ChatRequest, answer: &str) -> Usage {
    let messages = request.body.get("messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let of_message = |message: &Value| {
        let content = match message.get("content") {
            None | Some(Value::Null) => 0,
            Some(Value::String(text)) => estimate_tokens(&request.model, text),
            Some(parts) => of_parts(&request.model, parts),
        };
        content + TOKENS_PER_MESSAGE
    };
    Usage {
        tokens_in: messages.iter().map(of_message).sum(),
        tokens_out: estimate_tokens(&request.model, answer),
        ..Usage::default()
    }
}

/// Only the text: an image's bytes say nothing about its tokens.
fn of_parts(model: &str, parts: &Value) -> u64 {
    let texts = parts.as_array().map(Vec::as_slice).unwrap_or_default().iter();
    texts.filter_map(|part| part.get("text")?.as_str()).map(|text| estimate_tokens(model, text)).sum()
}

/// Usage of an embedding call.
pub(super) fn of_embed(request: &EmbedRequest) -> Usage {
    let tokens_in = request.input.iter().map(|text| estimate_tokens(&request.model, text)).sum();
    Usage { tokens_in, ..Usage::default() }
}
