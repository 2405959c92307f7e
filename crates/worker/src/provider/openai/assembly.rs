//! An answer put together from the pieces of a stream, or read from one JSON body.
//!
//! Read by member names, never by strict types: a field or word that nobody knew when this was written must not turn
//! a paid answer into an error.

use std::collections::BTreeMap;

use queue_core::{ledger::Usage, limiter::Told};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{sse::Event, usage};
use crate::provider::ChatAnswer;

/// Longest answer, over text, refusal and tool arguments: above any model's limit, below what hurts a worker.
pub(super) const ANSWER_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Most tool calls of one answer, as many as a request may name tools.
const TOOL_CALLS_MAX: usize = 128;

/// What an event did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The answer moved on.
    Moved,
    /// Nothing of the answer: a keepalive.
    Idle,
    /// The provider says that this was all.
    Done,
}

/// An event or body that ends the answer badly.
#[derive(Debug)]
pub(super) enum Broken {
    /// The provider reports an error in place of an answer.
    Error(Value),
    /// Not JSON.
    Malformed,
    /// JSON without an answer in it.
    Empty,
    /// More than [`ANSWER_MAX_BYTES`] or [`TOOL_CALLS_MAX`].
    TooLarge,
}

/// What has arrived of an answer.
#[derive(Default)]
pub(super) struct Assembly {
    pub(super) text: String,
    pub(super) first_text: Option<Instant>,
    pub(super) usage: Option<Usage>,
    /// The response's id header, or else the id that stands in its body.
    pub(super) request_id: Option<String>,
    /// What the head of the response said of the provider's limits.
    pub(super) told: Told,
    /// Bytes of thinking and of tool arguments: they are paid for although they are not text.
    pub(super) unseen_bytes: usize,
    refusal: String,
    tools: BTreeMap<u64, ToolCall>,
    finish: Option<String>,
    /// The provider sent `finish_reason: ""`: the way in which some servers never say why.
    finish_left_empty: bool,
    done: bool,
    model: String,
    service_tier: Option<String>,
}

#[derive(Default)]
struct ToolCall {
    id: String,
    name: String,
    arguments: String,
}

impl Assembly {
    /// Takes one event of a stream; each piece of text goes to `on_text` at once.
    pub(super) fn accept(&mut self, event: &Event, on_text: &(dyn Fn(&str) + Send + Sync)) -> Result<Step, Broken> {
        let data = event.data.trim();
        if data == "[DONE]" {
            self.done = true;
            return Ok(Step::Done);
        }
        if data.is_empty() || matches!(event.name.as_str(), "ping" | "keepalive") {
            return Ok(Step::Idle);
        }
        let chunk: Value = serde_json::from_str(data).map_err(|_| Broken::Malformed)?;
        if let Some(error) = error_in(&chunk, event.name == "error") {
            return Err(Broken::Error(error));
        }
        self.note_frame(&chunk);
        let counted = chunk.get("usage").and_then(usage::parse);
        let mut moved = counted.is_some();
        self.usage = counted.or(self.usage);
        for choice in chunk.get("choices").and_then(Value::as_array).into_iter().flatten() {
            // Only the first choice is asked for.
            if choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0 {
                moved = true;
                self.take_choice(choice, "delta", on_text)?;
            }
        }
        Ok(if moved { Step::Moved } else { Step::Idle })
    }

    /// Takes a whole answer that came as one JSON body.
    pub(super) fn accept_whole(&mut self, body: &[u8], on_text: &(dyn Fn(&str) + Send + Sync)) -> Result<(), Broken> {
        let whole: Value = serde_json::from_slice(body).map_err(|_| Broken::Malformed)?;
        if let Some(error) = error_in(&whole, false) {
            return Err(Broken::Error(error));
        }
        self.note_frame(&whole);
        self.usage = whole.get("usage").and_then(usage::parse);
        let choice = whole.pointer("/choices/0").filter(|choice| choice.is_object()).ok_or(Broken::Empty)?;
        self.take_choice(choice, "message", on_text)?;
        self.done = true;
        self.finish_left_empty |= self.finish.is_none();
        Ok(())
    }

    /// Whether the provider has said why the answer ended.
    pub(super) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Whether the answer's end was marked: by a reason, or by `[DONE]` from a server that leaves the reason empty.
    pub(super) fn is_complete(&self) -> bool {
        self.is_finished() || self.done && self.finish_left_empty
    }

    /// The answer, once it is complete.
    pub(super) fn finish(self, began: Instant, asked_model: &str) -> ChatAnswer {
        let first_token = self.first_text.map(|at| at.duration_since(began).as_millis());
        ChatAnswer {
            text: self.text,
            finish: self.finish.unwrap_or_else(|| "stop".to_owned()),
            refusal: Some(self.refusal).filter(|refusal| !refusal.is_empty()),
            tool_calls: self.tools.into_values().map(ToolCall::into_value).collect(),
            model: if self.model.is_empty() { asked_model.to_owned() } else { self.model },
            usage: self.usage,
            service_tier: self.service_tier,
            request_id: self.request_id,
            first_token_ms: first_token.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
            told: self.told,
            cached: false,
        }
    }

    fn note_frame(&mut self, frame: &Value) {
        if let Some(model) = frame.get("model").and_then(Value::as_str)
            && self.model.is_empty()
        {
            self.model = model.to_owned();
        }
        // Beside the usage at Anthropic, and the last one counts: what was asked for may come first.
        let tier = frame.get("service_tier").or_else(|| frame.pointer("/usage/service_tier")).and_then(Value::as_str);
        self.service_tier = tier.filter(|tier| !tier.is_empty()).map(str::to_owned).or(self.service_tier.take());
        if self.request_id.is_none() {
            self.request_id = frame.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
        }
    }

    fn take_choice(
        &mut self,
        choice: &Value,
        part: &str,
        on_text: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), Broken> {
        let said = choice.get(part).unwrap_or(&Value::Null);
        for text in texts_of(said.get("content")) {
            self.first_text.get_or_insert_with(Instant::now);
            self.text.push_str(text);
            on_text(text);
        }
        self.refusal.extend(texts_of(said.get("refusal")));
        for thinking in ["reasoning_content", "reasoning"] {
            self.unseen_bytes += texts_of(said.get(thinking)).map(str::len).sum::<usize>();
        }
        for (at, piece) in said.get("tool_calls").and_then(Value::as_array).into_iter().flatten().enumerate() {
            self.take_tool_piece(at, piece)?;
        }
        match choice.get("finish_reason").and_then(Value::as_str) {
            Some("") => self.finish_left_empty = true,
            Some(reason) => self.finish = Some(reason.to_owned()),
            None => {}
        }
        let size = self.text.len() + self.refusal.len() + self.unseen_bytes;
        if size > ANSWER_MAX_BYTES { Err(Broken::TooLarge) } else { Ok(()) }
    }

    fn take_tool_piece(&mut self, at: usize, piece: &Value) -> Result<(), Broken> {
        let member = |path: &str| piece.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let id = member("/id");
        // Some servers leave out `index`: then an id begins a call, and pieces without one go on with the last.
        let last = self.tools.last_key_value().map(|(&index, _)| index);
        let index = match (piece.get("index").and_then(Value::as_u64), last) {
            (Some(index), _) => index,
            (None, Some(last)) if id.is_empty() => last,
            (None, Some(last)) => last + 1,
            (None, None) => at as u64,
        };
        if !self.tools.contains_key(&index) && self.tools.len() >= TOOL_CALLS_MAX || index == u64::MAX {
            return Err(Broken::TooLarge);
        }
        let arguments = match piece.pointer("/function/arguments") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            // Ollama's older form: the arguments as an object.
            Some(other) => other.to_string(),
        };
        self.unseen_bytes += arguments.len() + id.len();
        let call = self.tools.entry(index).or_default();
        if call.id.is_empty() {
            id.clone_into(&mut call.id);
        }
        if call.name.is_empty() {
            member("/function/name").clone_into(&mut call.name);
        }
        call.arguments.push_str(&arguments);
        Ok(())
    }
}

impl ToolCall {
    fn into_value(self) -> Value {
        json!({"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}})
    }
}

/// The texts of a content: one string, or parts that have text.
fn texts_of(content: Option<&Value>) -> impl Iterator<Item = &str> {
    let (one, parts) = match content {
        Some(Value::String(text)) => (Some(text.as_str()), [].as_slice()),
        Some(Value::Array(parts)) => (None, parts.as_slice()),
        _ => (None, [].as_slice()),
    };
    let of_parts = parts.iter().filter_map(|part| part.get("text")?.as_str());
    one.into_iter().chain(of_parts).filter(|text| !text.is_empty())
}

/// The error that `frame` reports in place of an answer.
fn error_in(frame: &Value, named_error: bool) -> Option<Value> {
    let reported =
        frame.get("error").is_some_and(|error| !error.is_null() && error != &json!({}) && error != &json!(""));
    let bare = frame.get("object").is_some_and(|object| object == "error");
    (reported || bare || named_error).then(|| frame.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: &str) -> Event {
        Event { name: String::new(), data: data.to_owned() }
    }

    fn assemble(chunks: &[Value]) -> Assembly {
        let mut assembly = Assembly::default();
        for chunk in chunks {
            assembly.accept(&event(&chunk.to_string()), &|_| {}).unwrap();
        }
        assembly
    }

    #[test]
    fn tool_calls_are_put_together_with_and_without_index() {
        let piece = |piece: Value| json!({"choices": [{"delta": {"tool_calls": [piece]}}]});
        let with_index = assemble(&[
            piece(json!({"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}})),
            piece(json!({"index": 1, "id": "b", "function": {"name": "g", "arguments": "{"}})),
            piece(json!({"index": 0, "function": {"arguments": "{\"x\":"}})),
            piece(json!({"index": 1, "function": {"arguments": "}"}})),
            piece(json!({"index": 0, "function": {"arguments": "1}"}})),
            json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}),
        ]);
        let without = assemble(&[
            piece(json!({"id": "a", "function": {"name": "f", "arguments": "{\"x\":"}})),
            piece(json!({"function": {"arguments": "1}"}})),
            piece(json!({"id": "b", "function": {"name": "g", "arguments": {}}})),
            json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}),
        ]);
        let expected = vec![
            json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}}),
            json!({"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}),
        ];
        for assembly in [with_index, without] {
            let answer = assembly.finish(Instant::now(), "m");
            assert_eq!((answer.tool_calls, answer.finish.as_str()), (expected.clone(), "tool_calls"));
        }
    }

    #[test]
    fn odd_frames_are_no_errors() {
        let assembly = assemble(&[
            json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": null}, "finish_reason": null}]}),
            json!({"choices": [], "usage": null, "service_tier": "brand-new", "error": null}),
            json!({"choices": [{"index": 1, "delta": {"content": "another choice"}}]}),
            json!({"choices": [{"delta": {"content": [{"type": "text", "text": "ab"}, {"type": "x"}], "novel": [1]}}]}),
            json!({"choices": [{"delta": {"content": "c", "reasoning_content": "hm"}, "finish_reason": "brand_new"}],
                   "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
            json!({"surprise": true}),
            json!([]),
        ]);
        let answer = assembly.finish(Instant::now(), "asked");
        assert_eq!(
            (answer.text.as_str(), answer.finish.as_str(), answer.model.as_str()),
            ("abc", "brand_new", "asked")
        );
        assert_eq!(answer.usage.unwrap().tokens_in, 3);
    }

    #[test]
    fn an_end_must_be_marked() {
        let text = json!({"choices": [{"delta": {"content": "a"}, "finish_reason": null}]});
        assert!(!assemble(std::slice::from_ref(&text)).is_complete());
        let mut done = assemble(std::slice::from_ref(&text));
        assert_eq!(done.accept(&event("[DONE]"), &|_| {}).unwrap(), Step::Done);
        assert!(!done.is_complete(), "[DONE] alone does not say that the answer is whole");
        let mut empty_word = assemble(&[text, json!({"choices": [{"delta": {}, "finish_reason": ""}]})]);
        empty_word.accept(&event("[DONE]"), &|_| {}).unwrap();
        assert!(empty_word.is_complete());
        assert_eq!(empty_word.finish(Instant::now(), "m").finish, "stop");
    }

    #[test]
    fn keepalives_are_not_progress() {
        let mut assembly = Assembly::default();
        let mut step =
            |name: &str, data: &str| assembly.accept(&Event { name: name.into(), data: data.into() }, &|_| {}).unwrap();
        assert_eq!(step("ping", "{\"type\":\"ping\"}"), Step::Idle);
        assert_eq!(step("", ""), Step::Idle);
        assert_eq!(step("", "{\"type\":\"ping\"}"), Step::Idle);
        assert_eq!(step("", "{\"choices\":[{\"delta\":{}}]}"), Step::Moved);
    }

    #[test]
    fn answers_and_tool_calls_have_a_bound() {
        let mut assembly = Assembly::default();
        let large = event(&json!({"choices": [{"delta": {"content": "x".repeat(900_000)}}]}).to_string());
        let outcome = (0..30).find_map(|_| assembly.accept(&large, &|_| {}).err());
        assert!(matches!(outcome, Some(Broken::TooLarge)));
        assert!(assembly.text.len() <= ANSWER_MAX_BYTES + 900_000);

        let mut assembly = Assembly::default();
        let piece =
            |index: u64| event(&json!({"choices": [{"delta": {"tool_calls": [{"index": index}]}}]}).to_string());
        let outcome = (0..1_000).find_map(|index| assembly.accept(&piece(index), &|_| {}).err());
        assert!(matches!(outcome, Some(Broken::TooLarge)));
        assert!(Assembly::default().accept(&piece(u64::MAX), &|_| {}).is_err());
    }
}
