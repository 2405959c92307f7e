//! Answers in the forms of the OpenAI wire.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use base64::Engine;
use serde_json::{Value, json};

use super::{
    behaviour::{Ended, Stream, UsageForm, Vectors},
    door, schema,
};
use crate::http::{Client, Gone};

/// Length of a vector when the request does not say.
const DIMENSIONS: usize = 16;

/// A number that depends on nothing but `of`.
pub(super) fn hash_of(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// What every answer carries, besides what the door says.
pub(super) fn own_headers(of_door: &[(String, String)]) -> Vec<(String, String)> {
    let mut headers = vec![("x-request-id".into(), "req_mock".into())];
    if of_door.is_empty() {
        headers.push(("x-ratelimit-remaining-requests".into(), "9".into()));
    }
    headers.extend_from_slice(of_door);
    headers
}

/// Tokens of prompt and answer.
fn tokens(body: &Value, text: &str) -> (u64, u64) {
    (door::prompt_tokens(body, false), text.split(' ').count() as u64)
}

/// Those of an honest answer to this request.
pub(super) fn honest_usage(body: &Value) -> (u64, u64) {
    tokens(body, &Plan { body, pace: Duration::ZERO, embeds: false, limits: &[] }.text())
}

/// What one call asks for.
pub(super) struct Plan<'a> {
    pub(super) body: &'a Value,
    pub(super) pace: Duration,
    pub(super) embeds: bool,
    /// What the door says of its limits.
    pub(super) limits: &'a [(String, String)],
}

impl Plan<'_> {
    pub(super) fn headers(&self) -> Vec<(String, String)> {
        own_headers(self.limits)
    }

    /// The text of an honest answer: JSON where a schema was given.
    pub(super) fn text(&self) -> String {
        let format = self.body.pointer("/response_format/type").and_then(Value::as_str);
        match format {
            Some("json_schema") => {
                let schema = self.body.pointer("/response_format/json_schema/schema").unwrap_or(&Value::Bool(true));
                schema::value(schema, schema, 0).to_string()
            }
            Some("json_object") => r#"{"answer":"mock"}"#.to_owned(),
            _ => format!("Mock answer {:08x} with a größere 🚢.", hash_of(self.body.to_string()) as u32),
        }
    }

    fn usage(&self, text: &str) -> Value {
        let (input, output) = tokens(self.body, text);
        json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
               "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}})
    }

    fn model(&self) -> &Value {
        &self.body["model"]
    }

    /// One JSON body.
    pub(super) fn whole(&self, text: &str) -> Value {
        json!({"id": "chatcmpl-mock", "object": "chat.completion", "model": self.model(), "usage": self.usage(text),
               "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}]})
    }

    fn chunk(&self, delta: Value, finish: Value) -> Value {
        json!({"id": "chatcmpl-mock", "object": "chat.completion.chunk", "model": self.model(),
               "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": null}]})
    }

    /// Answers with `text`: streamed if that was asked for, else whole.
    pub(super) async fn answer(&self, client: &mut Client, text: &str, form: &Stream) -> Result<Ended, Gone> {
        if self.body["stream"] != true {
            let mut whole = self.whole(text);
            whole["choices"][0]["finish_reason"] = json!(form.finish);
            client.json(200, &self.headers(), &whole.to_string()).await?;
            return Ok(Ended::Answered);
        }
        client.begin_stream(&self.headers(), &form.content_type).await?;
        let mut chunks = vec![self.chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
        chunks.extend(text.split_inclusive(' ').map(|word| self.chunk(json!({"content": word}), Value::Null)));
        chunks.push(self.chunk(json!({}), json!(form.finish)));
        self.place_usage(&mut chunks, text, form);
        for (number, chunk) in chunks.iter_mut().enumerate() {
            // The first chunk has no token in it.
            if let Some((_, hold)) = form.hold.as_ref().filter(|(tokens, _)| *tokens + 1 == number) {
                client.wait_for(hold.released()).await?;
            }
            if form.novelties {
                chunk["service_tier"] = json!("brand-new");
                chunk["obfuscation"] = json!({"x": [1, 2]});
                if let Some(choice) = chunk.pointer_mut("/choices/0") {
                    choice["delta"]["mood"] = json!({"happy": true});
                }
            }
            self.send_event(client, &chunk.to_string(), form).await?;
            client.wait(self.pace).await?;
        }
        if form.done {
            self.send_event(client, "[DONE]", form).await?;
        }
        if form.open_end {
            return Err(client.until_gone().await);
        }
        client.end_stream().await?;
        Ok(Ended::Answered)
    }

    fn place_usage(&self, chunks: &mut Vec<Value>, text: &str, form: &Stream) {
        let asked = self.body.pointer("/stream_options/include_usage") == Some(&Value::Bool(true));
        match form.usage {
            UsageForm::OwnChunk if asked => {
                for chunk in chunks.iter_mut() {
                    chunk["usage"] = Value::Null;
                }
                chunks.push(json!({"id": "chatcmpl-mock", "choices": [], "usage": self.usage(text)}));
            }
            UsageForm::LastDelta => {
                if let Some(last) = chunks.last_mut() {
                    last["usage"] = self.usage(text);
                }
            }
            UsageForm::Null => chunks.iter_mut().for_each(|chunk| chunk["usage"] = Value::Null),
            UsageForm::OwnChunk | UsageForm::Absent => {}
        }
    }

    async fn send_event(&self, client: &mut Client, data: &str, form: &Stream) -> Result<(), Gone> {
        let end = if form.crlf { "\r\n" } else { "\n" };
        let field = if form.no_space { "data:" } else { "data: " };
        let mut event = String::new();
        if form.comments {
            event.push_str(&format!(": a comment{end}{end}"));
        }
        // A comma outside of words is a good place to break JSON; the words of the mock have none.
        let lines = if form.many_lines { data.split_inclusive(',').collect() } else { vec![data] };
        for line in lines {
            event.push_str(&format!("{field}{line}{end}"));
        }
        event.push_str(end);
        if form.byte_by_byte {
            for byte in event.bytes() {
                client.chunk(&[byte]).await?;
            }
            return Ok(());
        }
        client.chunk(event.as_bytes()).await
    }

    /// The head and the first `tokens` of a stream.
    pub(super) async fn begin(&self, client: &mut Client, tokens: usize) -> Result<(), Gone> {
        client.begin_stream(&self.headers(), "text/event-stream").await?;
        for number in 0..tokens {
            let chunk = self.chunk(json!({"content": format!("token{number} ")}), Value::Null);
            client.chunk(format!("data: {chunk}\n\n").as_bytes()).await?;
            client.wait(self.pace).await?;
        }
        Ok(())
    }

    /// A stream of these deltas.
    pub(super) async fn stream_deltas(
        &self,
        client: &mut Client,
        deltas: Vec<Value>,
        finish: &str,
    ) -> Result<Ended, Gone> {
        client.begin_stream(&self.headers(), "text/event-stream").await?;
        let mut chunks: Vec<Value> = deltas.into_iter().map(|delta| self.chunk(delta, Value::Null)).collect();
        chunks.push(self.chunk(json!({}), json!(finish)));
        self.place_usage(&mut chunks, "", &Stream::default());
        for chunk in chunks {
            client.chunk(format!("data: {chunk}\n\n").as_bytes()).await?;
        }
        client.chunk(b"data: [DONE]\n\n").await?;
        client.end_stream().await?;
        Ok(Ended::Answered)
    }

    /// The deltas of two calls of the request's first tool, told in turns.
    pub(super) fn tool_deltas(&self) -> Vec<Value> {
        let name = &self.body["tools"][0]["function"]["name"];
        let piece = |index: u64, piece: Value| json!({"tool_calls": [{"index": index, "function": piece}]});
        let begin = |index: u64| {
            json!({"tool_calls": [{"index": index, "id": format!("call_{index}"), "type": "function",
                                   "function": {"name": name, "arguments": ""}}]})
        };
        vec![
            begin(0),
            piece(0, json!({"arguments": "{\"depth\":"})),
            begin(1),
            piece(1, json!({"arguments": "{}"})),
            piece(0, json!({"arguments": "7}"})),
        ]
    }

    /// `pieces` events of `bytes` of text each, and then the end of the body.
    pub(super) async fn endless(&self, client: &mut Client, pieces: usize, bytes: usize) -> Result<Ended, Gone> {
        client.begin_stream(&self.headers(), "text/event-stream").await?;
        let chunk = self.chunk(json!({"content": "x".repeat(bytes)}), Value::Null);
        let event = format!("data: {chunk}\n\n");
        for _ in 0..pieces {
            client.chunk(event.as_bytes()).await?;
        }
        client.end_stream().await?;
        Ok(Ended::Unanswered)
    }

    /// Vectors for the request's inputs.
    pub(super) fn vectors(&self, form: Option<Vectors>) -> Value {
        let inputs = match &self.body["input"] {
            Value::Array(inputs) => inputs.clone(),
            one => vec![one.clone()],
        };
        let length = self.body["dimensions"].as_u64().map_or(DIMENSIONS, |length| length as usize);
        let encoded = self.body["encoding_format"] == "base64" && form != Some(Vectors::Floats);
        let item = |(index, input): (usize, &Value)| {
            let mut vector = unit_vector(input, length);
            match form {
                Some(Vectors::OneShorter) if index == 1 => drop(vector.pop()),
                Some(Vectors::NotANumber) if index == 1 => vector[0] = f32::NAN,
                _ => {}
            }
            let index = match form {
                Some(Vectors::SameIndex) => 0,
                Some(Vectors::IndexTooLarge) => index + 1,
                _ => index,
            };
            let mut item = json!({"object": "embedding", "index": index, "embedding": encode(&vector, encoded)});
            if form == Some(Vectors::WithoutIndex) {
                item.as_object_mut().unwrap().remove("index");
            }
            item
        };
        let mut data: Vec<Value> = inputs.iter().enumerate().map(item).collect();
        match form {
            Some(Vectors::Shuffled) => data.reverse(),
            Some(Vectors::OneMissing) => drop(data.pop()),
            _ => {}
        }
        let tokens = door::prompt_tokens(self.body, true);
        let usage = match form {
            Some(Vectors::WithoutUsage) => Value::Null,
            _ => json!({"prompt_tokens": tokens, "total_tokens": tokens}),
        };
        json!({"object": "list", "model": self.model(), "data": data, "usage": usage})
    }
}

fn encode(vector: &[f32], encoded: bool) -> Value {
    if encoded {
        let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
        base64::engine::general_purpose::STANDARD.encode(bytes).into()
    } else {
        json!(vector)
    }
}

/// A vector of length one that depends on nothing but the input.
fn unit_vector(input: &Value, length: usize) -> Vec<f32> {
    let number = |at: usize| (hash_of((input.to_string(), at)) % 2_001) as f32 - 1_000.0;
    let raw: Vec<f32> = (0..length).map(number).collect();
    let norm = raw.iter().map(|number| number * number).sum::<f32>().sqrt().max(1.0);
    raw.into_iter().map(|number| number / norm).collect()
}
