//! What the provider does with a call, for better or worse.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::answer::Plan;
use crate::http::{self, Client, Gone};

/// How one call is treated. Everything but [`Behaviour::Answer`] and its variants leaves the call unanswered. What
/// only concerns texts is an answer where vectors were asked for, and the other way round.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Answers as asked: streamed or whole, JSON where a schema was given, vectors for inputs.
    Answer,
    /// Answers with this text.
    Text(String),
    /// Answers with this text and that finish reason.
    Finish(String, String),
    /// Declines in these words.
    Refuse(String),
    /// Calls the first tool of the request, with its arguments in several pieces.
    CallTool,
    /// Streams in an odd but legal form.
    Stream(Stream),
    /// Sends one JSON body although a stream was asked for.
    Whole,
    /// Sends vectors in this form.
    Vectors(Vectors),
    /// An error with this status, in OpenAI's form.
    Status(u16),
    /// Exactly this status, headers and body.
    Respond(u16, Vec<(String, String)>, String),
    /// A body of this many bytes with this status: more than anyone wants to read.
    Flood(u16, usize),
    /// Says nothing until the client leaves.
    Hang,
    /// Sends the head one byte at a time with this pause, for ever.
    SlowHead(Duration),
    /// Closes the connection without a word.
    Close,
    /// Streams this many tokens, then closes in the middle of the body.
    CutAfter(usize),
    /// Streams this many tokens, then resets the connection.
    ResetAfter(usize),
    /// Streams this many tokens, then ends the body in order, without finish reason and `[DONE]`.
    EndAfter(usize),
    /// Streams this many tokens, then nothing until the client leaves.
    StallAfter(usize),
    /// Streams this many tokens, then comments and empty events with this pause until the client leaves.
    KeepaliveAfter(usize, Duration),
    /// Streams this many tokens, then an error event.
    ErrorAfter(usize, Value),
    /// Streams this many tokens, then something that is not JSON.
    GarbageAfter(usize),
    /// A stream of this many pieces of this many bytes, without an end.
    Endless(usize, usize),
    /// Exactly these bytes, then the connection closes.
    Raw(Vec<u8>),
    /// A whole answer whose `content-length` promises this many bytes more than come.
    Short(usize),
}

/// A stream's form: all of these occur.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Line ends of `\r\n` instead of `\n`.
    pub crlf: bool,
    /// Comments between the events.
    pub comments: bool,
    /// No space after `data:`.
    pub no_space: bool,
    /// Every byte in a write of its own, so that characters arrive in parts.
    pub byte_by_byte: bool,
    /// Each event's JSON over several `data:` lines.
    pub many_lines: bool,
    /// Ends with `data: [DONE]`.
    pub done: bool,
    /// The finish reason; `None`: it is never sent.
    pub finish: Option<String>,
    /// Where the token counts stand.
    pub usage: UsageForm,
    /// Members and words that nobody knows.
    pub novelties: bool,
    /// The content type.
    pub content_type: String,
    /// Leaves the connection open after the last event, without ending the body.
    pub open_end: bool,
    /// After so many tokens, waits until it is let go on.
    pub hold: Option<(usize, Hold)>,
}

/// Keeps streams waiting until it is released, once and for all.
#[derive(Clone, Debug)]
pub struct Hold(Arc<watch::Sender<bool>>);

impl Default for Hold {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Hold {
    /// Lets all of them go on.
    pub fn release(&self) {
        self.0.send_replace(true);
    }

    pub(super) async fn released(&self) {
        let mut released = self.0.subscribe();
        // The sender lives as long as this does.
        let _ = released.wait_for(|released| *released).await;
    }
}

impl Default for Stream {
    /// As OpenAI streams.
    fn default() -> Self {
        Self {
            crlf: false,
            comments: false,
            no_space: false,
            byte_by_byte: false,
            many_lines: false,
            done: true,
            finish: Some("stop".into()),
            usage: UsageForm::OwnChunk,
            novelties: false,
            content_type: "text/event-stream; charset=utf-8".into(),
            open_end: false,
            hold: None,
        }
    }
}

/// Where a stream's token counts stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageForm {
    /// In a chunk of their own without choices, if they were asked for.
    OwnChunk,
    /// In the chunk that has the finish reason.
    LastDelta,
    /// `"usage": null` in each chunk and never more.
    Null,
    /// Nowhere.
    Absent,
}

/// A set of vectors' form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vectors {
    /// Numbers, whatever was asked for.
    Floats,
    /// In reversed order, with the right `index`.
    Shuffled,
    /// Without `index`.
    WithoutIndex,
    /// Twice the same `index`.
    SameIndex,
    /// An `index` beyond the inputs.
    IndexTooLarge,
    /// One vector fewer than inputs.
    OneMissing,
    /// One vector shorter than the others.
    OneShorter,
    /// Something that is not a number, in base64.
    NotANumber,
    /// Without token counts.
    WithoutUsage,
}

/// How a call ended on our side.
pub(super) enum Ended {
    /// A whole answer went out.
    Answered,
    /// Something else did; the connection can be used again.
    Unanswered,
    /// The connection is at its end.
    Closed,
}

impl Behaviour {
    /// What a model's name asks for: `mock-chat!503`, `!cut`, `!hang`, `!stall`, `!length`, `!filter`, `!refuse`.
    pub fn of_model(model: &str) -> Option<Self> {
        let (_, word) = model.rsplit_once('!')?;
        Some(match word {
            "cut" => Self::CutAfter(2),
            "hang" => Self::Hang,
            "stall" => Self::StallAfter(2),
            "length" => Self::Finish("Cut in the".into(), "length".into()),
            "filter" => Self::Finish(String::new(), "content_filter".into()),
            "refuse" => Self::Refuse("I cannot help with that.".into()),
            status => Self::Status(status.parse().ok()?),
        })
    }

    /// A rate limit that asks to come back after this time.
    pub fn rate_limit(retry_after_ms: u64) -> Self {
        let headers = vec![("retry-after-ms".to_owned(), retry_after_ms.to_string())];
        Self::Respond(429, headers, error_body("Rate limit reached", "requests", "rate_limit_exceeded"))
    }

    /// A page of HTML with this status, as gateways send them.
    pub fn html(status: u16) -> Self {
        let body = format!("<html><head><title>{status} Bad Gateway</title></head><body>nginx</body></html>");
        Self::Respond(status, vec![("content-type".into(), "text/html".into())], body)
    }

    pub(super) async fn act(
        &self,
        client: &mut Client,
        path: &str,
        body: &Value,
        pace: Duration,
        limits: &[(String, String)],
        began: &(dyn Fn(u16) + Send + Sync),
    ) -> Result<Ended, Gone> {
        let plan = Plan { body, pace, embeds: path.ends_with("/embeddings"), limits };
        match self {
            Self::Hang => return Err(client.until_gone().await),
            Self::Close => {
                client.close().await;
                return Ok(Ended::Closed);
            }
            Self::SlowHead(pause) => return drip(client, *pause).await,
            Self::Status(status) => began(*status),
            Self::Respond(status, ..) | Self::Flood(status, _) => began(*status),
            _ => began(200),
        }
        match self {
            Self::Status(status) => {
                let text = error_body("The mock was told to fail", "server_error", &status.to_string());
                client.json(*status, &plan.headers(), &text).await?;
                Ok(Ended::Unanswered)
            }
            Self::Respond(status, headers, text) => {
                let kind = headers.iter().find(|(name, _)| name == "content-type");
                let kind = kind.map_or("application/json", |(_, kind)| kind.as_str());
                let others: Vec<_> = headers.iter().filter(|(name, _)| name != "content-type").cloned().collect();
                client.respond(*status, &others, kind, text.as_bytes()).await?;
                Ok(Ended::Unanswered)
            }
            Self::Flood(status, bytes) => {
                client.respond(*status, &[], "text/plain", "x".repeat(*bytes).as_bytes()).await?;
                Ok(Ended::Unanswered)
            }
            Self::Raw(bytes) => {
                client.send(bytes).await?;
                client.close().await;
                Ok(Ended::Closed)
            }
            Self::Short(missing) => {
                let whole = plan.whole(&plan.text()).to_string();
                let length = (whole.len() + missing).to_string();
                let head = http::head(200, &[], &[("content-type", "application/json"), ("content-length", &length)]);
                client.send(&[head.as_bytes(), whole.as_bytes()].concat()).await?;
                client.close().await;
                Ok(Ended::Closed)
            }
            _ if plan.embeds => self.embed(client, &plan).await,
            _ => self.chat(client, &plan).await,
        }
    }

    async fn embed(&self, client: &mut Client, plan: &Plan<'_>) -> Result<Ended, Gone> {
        let form = match self {
            Self::Vectors(form) => Some(*form),
            Self::CutAfter(_) | Self::ResetAfter(_) | Self::StallAfter(_) => {
                let head = http::head(200, &[], &[("content-type", "application/json"), ("content-length", "1000")]);
                client.send(format!("{head}{{\"data\":[").as_bytes()).await?;
                if matches!(self, Self::StallAfter(_)) {
                    return Err(client.until_gone().await);
                }
                if matches!(self, Self::ResetAfter(_)) {
                    client.reset();
                }
                client.close().await;
                return Ok(Ended::Closed);
            }
            _ => None,
        };
        client.json(200, &plan.headers(), &plan.vectors(form).to_string()).await?;
        Ok(Ended::Answered)
    }

    async fn chat(&self, client: &mut Client, plan: &Plan<'_>) -> Result<Ended, Gone> {
        let default = Stream::default();
        match self {
            Self::Answer | Self::Vectors(_) => plan.answer(client, &plan.text(), &default).await,
            Self::Text(text) => plan.answer(client, text, &default).await,
            Self::Finish(text, finish) => {
                plan.answer(client, text, &Stream { finish: Some(finish.clone()), ..default }).await
            }
            Self::Stream(form) => plan.answer(client, &plan.text(), form).await,
            Self::Whole => {
                client.json(200, &plan.headers(), &plan.whole(&plan.text()).to_string()).await?;
                Ok(Ended::Answered)
            }
            Self::Refuse(words) => plan.stream_deltas(client, vec![json!({"refusal": words})], "stop").await,
            Self::CallTool => plan.stream_deltas(client, plan.tool_deltas(), "tool_calls").await,
            Self::Endless(pieces, bytes) => plan.endless(client, *pieces, *bytes).await,
            Self::CutAfter(tokens)
            | Self::ResetAfter(tokens)
            | Self::EndAfter(tokens)
            | Self::StallAfter(tokens)
            | Self::KeepaliveAfter(tokens, _)
            | Self::ErrorAfter(tokens, _)
            | Self::GarbageAfter(tokens) => {
                plan.begin(client, *tokens).await?;
                self.break_off(client).await
            }
            other => unreachable!("{other:?} is handled before"),
        }
    }

    /// What follows the tokens of a stream that goes wrong.
    async fn break_off(&self, client: &mut Client) -> Result<Ended, Gone> {
        match self {
            Self::StallAfter(_) => Err(client.until_gone().await),
            Self::KeepaliveAfter(_, pause) => loop {
                client.chunk(b": keepalive\n\ndata:\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n").await?;
                client.wait(*pause).await?;
            },
            Self::ErrorAfter(_, error) => {
                client.chunk(format!("data: {error}\n\n").as_bytes()).await?;
                client.end_stream().await?;
                Ok(Ended::Unanswered)
            }
            Self::GarbageAfter(_) => {
                client.chunk(b"data: {\"choices\":[{\"del\n\ndata: more\n\n").await?;
                client.end_stream().await?;
                Ok(Ended::Unanswered)
            }
            Self::EndAfter(_) => {
                client.end_stream().await?;
                Ok(Ended::Unanswered)
            }
            _ => {
                if matches!(self, Self::ResetAfter(_)) {
                    client.reset();
                } else {
                    client.close().await;
                }
                Ok(Ended::Closed)
            }
        }
    }
}

/// A head that never ends.
async fn drip(client: &mut Client, pause: Duration) -> Result<Ended, Gone> {
    client.send(b"HTTP/1.1 200 OK\r\nx-slow: ").await?;
    loop {
        client.send(b"z").await?;
        client.wait(pause).await?;
    }
}

/// An error in OpenAI's form.
pub(super) fn error_body(message: &str, kind: &str, code: &str) -> String {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}}).to_string()
}
