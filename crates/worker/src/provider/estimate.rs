//! Tokens of requests and answers whose provider did not count.

use queue_core::ledger::{Usage, estimate_tokens};
use serde_json::{Map, Value};

use super::{ChatAnswer, ChatRequest, EmbedRequest};

/// Tokens that a chat message costs besides its text.
pub(crate) const TOKENS_PER_MESSAGE: u64 = 8;

/// Tokens of the messages of a chat request.
pub(crate) fn of_prompt(model: &str, body: &Map<String, Value>) -> u64 {
    let messages = body.get("messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let of_message = |message: &Value| {
        let content = match message.get("content") {
            None | Some(Value::Null) => 0,
            Some(Value::String(text)) => estimate_tokens(model, text),
            Some(parts) => of_parts(model, parts),
        };
        content + TOKENS_PER_MESSAGE
    };
    messages.iter().map(of_message).sum()
}

/// Usage of a chat call that has brought `answer` so far.
pub(crate) fn of_chat(request: &ChatRequest, answer: &str) -> Usage {
    Usage {
        tokens_in: of_prompt(&request.model, &request.body),
        tokens_out: estimate_tokens(&request.model, answer),
        ..Usage::default()
    }
}

/// Usage of a chat call with its whole answer: calls of tools are written by the model, too.
pub(crate) fn of_answer(request: &ChatRequest, answer: &ChatAnswer) -> Usage {
    let mut usage = of_chat(request, &answer.text);
    let unseen = answer.tool_calls.iter().map(Value::to_string).chain(answer.refusal.clone());
    usage.tokens_out += unseen.map(|text| estimate_tokens(&request.model, &text)).sum::<u64>();
    usage
}

/// Only the text: an image's bytes say nothing about its tokens.
fn of_parts(model: &str, parts: &Value) -> u64 {
    let texts = parts.as_array().map(Vec::as_slice).unwrap_or_default().iter();
    texts.filter_map(|part| part.get("text")?.as_str()).map(|text| estimate_tokens(model, text)).sum()
}

/// Usage of an embedding call.
pub(crate) fn of_embed(request: &EmbedRequest) -> Usage {
    let tokens_in = request.input.iter().map(|text| estimate_tokens(&request.model, text)).sum();
    Usage { tokens_in, ..Usage::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(content: Value) -> ChatRequest {
        let body = json!({"messages": [{"role": "user", "content": content}]});
        ChatRequest { model: "unknown".into(), body: body.as_object().cloned().unwrap_or_default() }
    }

    #[test]
    fn images_and_missing_texts_count_no_bytes() {
        let plain = of_prompt("unknown", &request(json!("twelve bytes")).body);
        assert_eq!(plain, 4 + TOKENS_PER_MESSAGE);
        let image = json!({"type": "image_url", "image_url": {"url": "x".repeat(90_000)}});
        let parts = json!([{"type": "text", "text": "twelve bytes"}, image]);
        assert_eq!(of_prompt("unknown", &request(parts).body), plain);
        assert_eq!(of_prompt("unknown", &request(Value::Null).body), TOKENS_PER_MESSAGE);
        assert_eq!(of_prompt("unknown", &Map::new()), 0);
    }

    #[test]
    fn an_answer_counts_what_the_model_wrote_besides_its_text() {
        let answer = ChatAnswer { text: "Seven.".into(), ..ChatAnswer::default() };
        let request = request(json!("How many?"));
        assert_eq!(of_answer(&request, &answer), of_chat(&request, "Seven."));
        let calls = vec![json!({"function": {"name": "f", "arguments": "{}"}})];
        let with_tools = of_answer(&request, &ChatAnswer { tool_calls: calls, ..answer });
        assert!(with_tools.tokens_out > of_chat(&request, "Seven.").tokens_out + 5, "{with_tools:?}");
    }
}
