//! The built-in provider: invents answers without a model, and says so.
//!
//! Everything it answers is a function of the request and the seed, so that a test can expect it. Free text begins
//! with `[simulated]`; where JSON was asked for, it fits the schema and its strings begin with `simulated`.
//! Faults come on request, see [`faults`].

pub mod faults;
mod schema;

use std::time::Duration;

use async_trait::async_trait;
use queue_core::{error::ErrorClass, ledger::Billed};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::faults::{Fault, Faults};
use super::{Call, CallError, ChatAnswer, ChatRequest, EmbedAnswer, EmbedRequest, Provider, estimate};

/// Length of a vector when the request does not say.
const DIMENSIONS_DEFAULT: u32 = 384;
/// Longest vector: more than any model gives, and little enough for 2,048 of them.
const DIMENSIONS_MAX: u32 = 4_096;
/// Most inputs of one embedding request, as at OpenAI.
const INPUTS_MAX: usize = 2_048;
/// Words of a free answer: enough to watch tokens come, few enough that a reduce step shrinks its input.
const ANSWER_WORDS: std::ops::Range<u64> = 16..48;

/// How the simulated provider behaves.
#[derive(Clone, Debug)]
pub struct SimulatedConfig {
    /// Its name in targets, ledger rows and results.
    pub name: String,
    /// Time to the first token, and to a set of vectors.
    pub first_token: Duration,
    /// Speed after that; 0 means at once.
    pub tokens_per_second: u32,
    /// Another seed gives other answers.
    pub seed: u64,
}

impl Default for SimulatedConfig {
    fn default() -> Self {
        Self { name: "simulated".to_owned(), first_token: Duration::from_millis(20), tokens_per_second: 2_000, seed: 0 }
    }
}

impl SimulatedConfig {
    /// Answers at once: what a bench of everything else wants.
    pub fn instant() -> Self {
        Self { first_token: Duration::ZERO, tokens_per_second: 0, ..Self::default() }
    }
}

/// The built-in provider.
pub struct Simulated {
    config: SimulatedConfig,
    faults: Faults,
}

impl Simulated {
    /// A provider that behaves as `config` says.
    pub fn new(config: SimulatedConfig) -> Self {
        Self { config, faults: Faults::default() }
    }

    fn dice(&self, request: &impl serde::Serialize) -> Dice {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.config.seed.to_le_bytes());
        // A request is text and numbers, so it always encodes; an empty hash would still be deterministic.
        hasher.update(&serde_json::to_vec(request).unwrap_or_default());
        Dice(hasher.finalize())
    }

    /// When the `tokens`-th token is due.
    fn due(&self, began: Instant, tokens: u32) -> Instant {
        let speed = self.config.tokens_per_second;
        let streaming = if speed == 0 { Duration::ZERO } else { Duration::from_secs(1) * tokens / speed };
        began + self.config.first_token + streaming
    }

    /// Hands on `text` piece by piece; returns how long the first piece took.
    async fn stream(&self, request: &ChatRequest, text: &str, began: Instant, call: &Call<'_>) -> Streamed {
        let pieces = text.split_inclusive(' ');
        let mut sent = 0;
        for (number, piece) in (0u32..).zip(pieces) {
            let due = self.due(began, number);
            if due > Instant::now() {
                wait(due, began, call, || estimate::of_chat(request, &text[..sent])).await?;
            } else if call.cancel.is_cancelled() {
                return Err(CallError::cancelled(Some(estimate::of_chat(request, &text[..sent]))));
            }
            sent += piece.len();
            (call.on_text)(piece);
        }
        Ok(())
    }
}

type Streamed = Result<(), CallError>;

/// Waits until `due` unless the call ends before.
async fn wait(
    due: Instant,
    began: Instant,
    call: &Call<'_>,
    so_far: impl Fn() -> queue_core::ledger::Usage,
) -> Streamed {
    tokio::select! {
        biased;
        () = call.cancel.cancelled() => Err(CallError::cancelled(Some(so_far()))),
        () = tokio::time::sleep_until(began + call.total) => Err(CallError::out_of_time(call.total, Some(so_far()))),
        () = tokio::time::sleep_until(due) => Ok(()),
    }
}

/// Waits for the end of a call that never answers.
async fn hang(began: Instant, call: &Call<'_>, so_far: impl Fn() -> queue_core::ledger::Usage) -> CallError {
    tokio::select! {
        biased;
        () = call.cancel.cancelled() => CallError::cancelled(Some(so_far())),
        () = tokio::time::sleep_until(began + call.total) => CallError::out_of_time(call.total, Some(so_far())),
    }
}

#[async_trait]
impl Provider for Simulated {
    fn name(&self) -> &str {
        &self.config.name
    }

    async fn chat(&self, request: &ChatRequest, call: Call<'_>) -> Result<ChatAnswer, CallError> {
        call.begin()?;
        let began = Instant::now();
        let fault = self.faults.next(call.id, &request.model, faults::last_user_text(&request.body));
        if let Some(refused) = fault.and_then(Fault::refusal) {
            wait(self.due(began, 0), began, &call, || estimate::of_chat(request, "")).await?;
            return Err(refused);
        }
        if fault == Some(Fault::Timeout) {
            return Err(hang(began, &call, || estimate::of_chat(request, "")).await);
        }
        let mut answer = answer(request, &self.dice(request), fault)?;
        if matches!(fault, Some(Fault::Cut | Fault::Length)) {
            let half = answer.text.floor_char_boundary(answer.text.len() / 2);
            answer.text.truncate(half);
        }
        wait(self.due(began, 0), began, &call, || estimate::of_chat(request, "")).await?;
        answer.first_token_ms = Some(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        self.stream(request, &answer.text, began, &call).await?;
        let usage = estimate::of_chat(request, &answer.text);
        if fault == Some(Fault::Cut) {
            let message = "the simulated stream was cut, as the request asked for";
            return Err(CallError::costly(ErrorClass::StreamBroken, "cut", message, Billed::Maybe, Some(usage)));
        }
        answer.usage = Some(usage);
        answer.request_id = Some(format!("simulated-{}", call.id));
        Ok(answer)
    }

    async fn embed(&self, request: &EmbedRequest, call: Call<'_>) -> Result<EmbedAnswer, CallError> {
        call.begin()?;
        let began = Instant::now();
        let dimensions = check_embed(request)?;
        let marked = request.input.iter().map(String::as_str).find(|text| text.contains(faults::MARKER));
        let fault = self.faults.next(call.id, &request.model, marked.unwrap_or_default());
        let usage = estimate::of_embed(request);
        if fault == Some(Fault::Timeout) {
            return Err(hang(began, &call, || usage).await);
        }
        wait(self.due(began, 0), began, &call, || usage).await?;
        match fault {
            None | Some(Fault::Timeout) => {}
            Some(fault) => return Err(fault.refusal().unwrap_or_else(|| fault.spoiled_vectors(usage))),
        }
        let vector = |text: &String| self.dice(&(&request.model, text)).unit_vector(dimensions as usize);
        Ok(EmbedAnswer {
            vectors: request.input.iter().map(vector).collect(),
            model: request.model.clone(),
            usage: Some(usage),
            request_id: Some(format!("simulated-{}", call.id)),
            ..EmbedAnswer::default()
        })
    }

    async fn check(&self) -> Result<(), CallError> {
        Ok(())
    }
}

/// The length of the vectors, or why there are none.
fn check_embed(request: &EmbedRequest) -> Result<u32, CallError> {
    let bad = |code: &str, message: String| Err(CallError::unbilled(ErrorClass::BadRequest, code, message));
    let dimensions = request.dimensions.unwrap_or(DIMENSIONS_DEFAULT);
    if request.input.is_empty() || request.input.iter().any(String::is_empty) {
        return bad("empty_input", "an input is empty".to_owned());
    }
    if request.input.len() > INPUTS_MAX {
        let message = format!("{} inputs in one request; the limit is {INPUTS_MAX}", request.input.len());
        return Err(CallError::unbilled(ErrorClass::BatchSplit, "array_above_max_length", message));
    }
    if !(1..=DIMENSIONS_MAX).contains(&dimensions) {
        return bad("dimensions", format!("dimensions is {dimensions}; 1 to {DIMENSIONS_MAX} are possible"));
    }
    Ok(dimensions)
}

/// The whole answer to `request`, before anything happens to it.
fn answer(request: &ChatRequest, dice: &Dice, fault: Option<Fault>) -> Result<ChatAnswer, CallError> {
    let mut answer = ChatAnswer { model: request.model.clone(), finish: "stop".to_owned(), ..ChatAnswer::default() };
    match fault {
        Some(Fault::Invalid) => {
            answer.text = "[simulated] This is not the answer that was asked for {".to_owned();
            return Ok(answer);
        }
        Some(Fault::Refuse) => {
            answer.refusal = Some("[simulated] I cannot help with that.".to_owned());
            return Ok(answer);
        }
        Some(Fault::Filter) => answer.finish = "content_filter".to_owned(),
        Some(Fault::Length) => answer.finish = "length".to_owned(),
        _ => {}
    }
    if let Some(call) = forced_tool_call(request, dice)? {
        answer.tool_calls = vec![call];
        answer.finish = "tool_calls".to_owned();
        return Ok(answer);
    }
    answer.text = match format_of(request) {
        Some(schema) => schema::value(schema, dice)?.to_string(),
        None => free_text(request, dice),
    };
    Ok(answer)
}

/// The schema that the answer must fit; `json_object` is any object.
fn format_of(request: &ChatRequest) -> Option<&Value> {
    static ANY_OBJECT: std::sync::LazyLock<Value> = std::sync::LazyLock::new(
        || json!({"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}),
    );
    let format = request.body.get("response_format")?;
    match format.get("type")?.as_str()? {
        "json_schema" => Some(format.pointer("/json_schema/schema").unwrap_or(&ANY_OBJECT)),
        "json_object" => Some(&ANY_OBJECT),
        _ => None,
    }
}

/// A call of the tool that the request insists on: `tool_choice` is `required` or names one.
fn forced_tool_call(request: &ChatRequest, dice: &Dice) -> Result<Option<Value>, CallError> {
    let Some(choice) = request.body.get("tool_choice") else { return Ok(None) };
    let tools = request.body.get("tools").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let named = choice.pointer("/function/name");
    let wanted = tools.iter().find(|tool| match named {
        Some(name) => tool.pointer("/function/name") == Some(name),
        None => choice == "required",
    });
    let Some(tool) = wanted else { return Ok(None) };
    let arguments = match tool.pointer("/function/parameters") {
        Some(schema) => schema::value(schema, dice)?,
        None => json!({}),
    };
    Ok(Some(json!({
        "id": format!("call_{:016x}", dice.number("tool")),
        "type": "function",
        "function": {"name": tool.pointer("/function/name"), "arguments": arguments.to_string()},
    })))
}

/// Words until the answer is long enough or `max_tokens` is reached; the mark itself is always there.
fn free_text(request: &ChatRequest, dice: &Dice) -> String {
    let limit = ["max_completion_tokens", "max_tokens"].iter().find_map(|key| request.body.get(*key)?.as_u64());
    let wanted = ANSWER_WORDS.start + dice.number("length") % (ANSWER_WORDS.end - ANSWER_WORDS.start);
    let mut text = "[simulated]".to_owned();
    for number in 0..wanted {
        let word = dice.word(&format!("word {number}"));
        let longer = format!("{text} {word}");
        if limit.is_some_and(|limit| queue_core::ledger::estimate_tokens(&request.model, &longer) > limit) {
            break;
        }
        text = longer;
    }
    text
}

/// Numbers that depend on the request and on what they are for, and on nothing else.
pub(crate) struct Dice(blake3::Hash);

impl Dice {
    /// A number for `purpose`.
    fn number(&self, purpose: &str) -> u64 {
        let hash = blake3::keyed_hash(self.0.as_bytes(), purpose.as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash.as_bytes()[..8]);
        u64::from_le_bytes(bytes)
    }

    /// A word for `purpose`.
    fn word(&self, purpose: &str) -> &'static str {
        WORDS[(self.number(purpose) % WORDS.len() as u64) as usize]
    }

    /// A vector of length one.
    fn unit_vector(&self, dimensions: usize) -> Vec<f32> {
        let mut bytes = vec![0; dimensions * 4];
        blake3::Hasher::new_keyed(self.0.as_bytes()).finalize_xof().fill(&mut bytes);
        let coordinate = |quad: &[u8; 4]| f64::from(i32::from_le_bytes(*quad)) / f64::from(i32::MAX);
        let raw: Vec<f64> = bytes.as_chunks::<4>().0.iter().map(coordinate).collect();
        let length = raw.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        raw.iter().map(|x| (x / length) as f32).collect()
    }
}

/// Things of a harbour: nobody takes them for an answer.
const WORDS: [&str; 48] = [
    "anchor",
    "ballast",
    "barge",
    "beacon",
    "berth",
    "bollard",
    "bow",
    "breakwater",
    "buoy",
    "cabin",
    "cable",
    "canvas",
    "captain",
    "cargo",
    "channel",
    "chart",
    "compass",
    "crane",
    "crew",
    "current",
    "deck",
    "dock",
    "ferry",
    "fog",
    "gangway",
    "harbour",
    "hatch",
    "helm",
    "hull",
    "jetty",
    "keel",
    "knot",
    "ladder",
    "lantern",
    "ledger",
    "lighthouse",
    "mast",
    "mooring",
    "pier",
    "pilot",
    "quay",
    "rope",
    "rudder",
    "sail",
    "shore",
    "signal",
    "tide",
    "wharf",
];
