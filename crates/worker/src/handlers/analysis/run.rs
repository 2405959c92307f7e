//! One attempt at an analysis: its calls, side by side and one by one, counted and told.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use queue_core::{
    error::{ErrorClass, JobError},
    fallback::Chain,
    ledger::estimate_tokens,
    payload::analysis::{Analysis, Strategy},
};
use serde_json::{Map, Value, json};

use super::{
    super::{
        embedding::{self, Wish},
        structured::{self, Answered, Calls, Form, Question},
    },
    chunks::{Chunk, TOKENS_PER_MEMBER},
    items::Plan,
    reduce,
};
use crate::{
    context::{Durability, JobContext, Shared},
    provider::{
        ChatAnswer,
        estimate::{self, TOKENS_PER_MESSAGE},
    },
};

/// Tries of one call within an attempt: an analysis of hundreds of calls would spend all its attempts on failures that
/// pass in a second.
const TRIES: u32 = 3;
/// Inputs and tokens of one embedding call: what most compatible servers take, and what OpenAI takes with a margin.
const EMBED_BATCH: (usize, u64) = (256, 250_000);
/// Room for an answer whose length the job does not limit.
const ANSWER_TOKENS: u64 = 256;

/// One attempt.
pub(super) struct Run<'a> {
    pub(super) cx: &'a JobContext,
    pub(super) payload: &'a Analysis,
    pub(super) chunks: &'a [Chunk],
    /// The chunks of each call of the map step.
    pub(super) packs: &'a [Vec<Chunk>],
    pub(super) calls: Calls,
    model: &'a str,
    chain: &'a Chain,
    done: AtomicU32,
    total: AtomicU32,
    /// How much of a packed call's tokens each of its chunks took.
    weights: Mutex<HashMap<String, Vec<(usize, u64)>>>,
    embed_batches: Vec<&'a [Chunk]>,
    /// The first failure that ends the attempt.
    failure: Mutex<Option<JobError>>,
}

/// One call to make.
pub(super) struct Asked<'a> {
    pub(super) step: &'a str,
    pub(super) prompt: String,
    /// What the model is told about the marks in the prompt.
    pub(super) note: String,
    pub(super) schema: Option<&'a Value>,
    /// Whether the job goes on without its answer.
    pub(super) may_be_lost: bool,
    /// Whether it asks about one chunk and nothing that was answered before: then others may ask the same.
    pub(super) is_about_a_chunk: bool,
}

impl<'a> Run<'a> {
    /// Refuses what cannot end well before anything is paid for.
    pub(super) fn new(
        cx: &'a JobContext,
        payload: &'a Analysis,
        plan: &'a Plan,
        chain: &'a Chain,
    ) -> Result<Self, JobError> {
        let Plan { chunks, packs } = plan;
        let (leaves, maps, model) = (chunks.len(), packs.len(), chain.first.as_str());
        let calls = match payload.reduce.strategy {
            Strategy::None | Strategy::Concat | Strategy::MergeArrays => maps,
            Strategy::Llm => maps + 1,
            // The first chunk is mapped, the others are refined.
            Strategy::Refine => leaves,
            Strategy::Tree => maps + reduce::tree_calls(leaves, payload.reduce.fan_in),
        };
        if payload.reduce.strategy == Strategy::Tree {
            reduce::check_depth(leaves, &payload.reduce)?;
        }
        let embed_batches = if payload.embed.is_some() { batches(chunks, payload, model) } else { vec![] };
        let total = u32::try_from(calls + embed_batches.len()).unwrap_or(u32::MAX);
        if total > payload.max_calls {
            let message = format!("{leaves} chunks need {total} calls; `limits.max_calls` is {}", payload.max_calls);
            return Err(JobError::new(ErrorClass::Permanent, structured::MAX_CALLS, message));
        }
        Ok(Self {
            cx,
            payload,
            chunks,
            packs,
            calls: Calls::up_to(payload.max_calls),
            model,
            chain,
            done: AtomicU32::new(0),
            total: AtomicU32::new(total),
            weights: Mutex::default(),
            embed_batches,
            failure: Mutex::default(),
        })
    }

    /// One kept call; its answer is JSON where a schema is given, else text.
    pub(super) async fn ask(&self, asked: Asked<'_>) -> Result<Value, JobError> {
        let body = self.body(&asked);
        self.check_room(&body, 1)?;
        let question = Question {
            step: asked.step,
            chain: self.chain,
            body,
            form: asked.schema.map_or(Form::Text, Form::Schema),
            repair: self.payload.map.repair,
            // What may be left out was decided by its first round; what may not is asked anew by each attempt.
            rounds: if asked.may_be_lost { 1 } else { self.cx.attempt() },
            tries: TRIES,
            durability: Durability::Now,
        };
        let Some(wish) = self.payload.cache.filter(|_| asked.is_about_a_chunk) else {
            let answered = structured::ask(self.cx, &question, &self.calls).await?;
            return Ok(self.ended(asked.step, answered));
        };
        let shared = Shared {
            wish,
            step: asked.step,
            model: self.model,
            body: &question.body,
            may_be_anothers: !self.chain.links.is_empty(),
        };
        let asks = async { structured::ask(self.cx, &question, &self.calls).await.map(|answered| answered.answer) };
        let answer = Box::pin(self.cx.shared_chat(shared, asks)).await?;
        Ok(self.ended(asked.step, structured::read_again(question.form, answer)?))
    }

    fn ended(&self, step: &str, answered: Answered) -> Value {
        self.step_done(step);
        answered.json.unwrap_or(Value::String(answered.answer.text))
    }

    /// One kept call for several `answers`, each of which may be as long as the job allows an answer to be. What it says
    /// is for the caller to read: nothing is repaired.
    pub(super) async fn ask_once(&self, asked: Asked<'_>, answers: u64) -> Result<ChatAnswer, JobError> {
        let mut body = self.body(&asked);
        for name in ["max_tokens", "max_completion_tokens"] {
            if let Some(each) = body.get(name).and_then(Value::as_u64) {
                let all = each.saturating_add(TOKENS_PER_MEMBER).saturating_mul(answers);
                // A packed call is planned with room for all; a model whose limit is not known may refuse.
                let most = self.cx.answer_max(self.model).unwrap_or(u64::MAX).max(each);
                body.insert(name.to_owned(), all.min(most).into());
            }
        }
        self.check_room(&body, answers)?;
        let question = Question {
            step: asked.step,
            chain: self.chain,
            body,
            form: Form::Text,
            repair: 0,
            rounds: 1,
            tries: TRIES,
            durability: Durability::Now,
        };
        structured::ask_once(self.cx, &question, &self.calls).await
    }

    /// Tells that a step has ended.
    pub(super) fn step_done(&self, step: &str) {
        let done = self.done.fetch_add(1, Ordering::SeqCst) + 1;
        self.cx.progress(done, self.total.load(Ordering::SeqCst).max(done), step);
    }

    /// Counts steps that nobody planned.
    pub(super) fn more_steps(&self, steps: usize) {
        self.total.fetch_add(u32::try_from(steps).unwrap_or(u32::MAX), Ordering::SeqCst);
    }

    /// Remembers how much of the tokens of a packed call each chunk took.
    pub(super) fn note_weights(&self, step: &str, weights: Vec<(usize, u64)>) {
        self.weights.lock().unwrap_or_else(PoisonError::into_inner).insert(step.to_owned(), weights);
    }

    /// What [`Run::note_weights`] was told of this step.
    pub(super) fn weights_of(&self, step: &str) -> Option<Vec<(usize, u64)>> {
        self.weights.lock().unwrap_or_else(PoisonError::into_inner).get(step).cloned()
    }

    /// Runs calls side by side and returns what they brought, in their order. After a failure none is begun any more.
    /// Those that are running go on where the job may be tried again, since the next attempt finds their answers, and
    /// are stopped where it may not. Either way each is waited for: what it cost is written down.
    pub(super) async fn side_by_side<T: Send>(
        &self,
        calls: Vec<BoxFuture<'_, Result<T, JobError>>>,
    ) -> Result<Vec<T>, JobError> {
        let guarded: Vec<BoxFuture<'_, Option<(usize, T)>>> = calls
            .into_iter()
            .enumerate()
            .map(|(index, call)| {
                async move {
                    if self.is_failing() || self.cx.cancelled().is_cancelled() {
                        return None;
                    }
                    match call.await {
                        Ok(brought) => Some((index, brought)),
                        Err(error) => {
                            self.fail(error);
                            None
                        }
                    }
                }
                .boxed()
            })
            .collect();
        let wanted = guarded.len();
        let outcomes = stream::iter(guarded).buffer_unordered(self.payload.map.concurrency);
        let mut brought: Vec<(usize, T)> = outcomes.filter_map(|outcome| async move { outcome }).collect().await;
        if let Some(error) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(error);
        }
        if brought.len() < wanted {
            return Err(JobError::new(ErrorClass::Internal, "cancelled", "the attempt was stopped"));
        }
        brought.sort_by_key(|(index, _)| *index);
        Ok(brought.into_iter().map(|(_, brought)| brought).collect())
    }

    /// The failure that has ended the attempt, if one has.
    pub(super) fn check_failing(&self) -> Result<(), JobError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    fn is_failing(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn fail(&self, error: JobError) {
        let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            if !error.retryable {
                self.cx.cancelled().cancel();
            }
            *first = Some(error);
        }
    }

    fn body(&self, asked: &Asked<'_>) -> Map<String, Value> {
        let mut body = self.payload.defaults.clone();
        let system = match &self.payload.map.system {
            Some(system) => format!("{system}\n\n{}", asked.note),
            None => asked.note.clone(),
        };
        let messages = json!([{"role": "system", "content": system}, {"role": "user", "content": asked.prompt}]);
        body.insert("messages".to_owned(), messages);
        if let Some(schema) = asked.schema {
            let named = json!({"name": "answer", "strict": self.payload.map.strict, "schema": schema});
            body.insert("response_format".to_owned(), json!({"type": "json_schema", "json_schema": named}));
        }
        body
    }

    /// Nothing is sent that cannot fit into the window of any model that would be asked.
    fn check_room(&self, body: &Map<String, Value>, answers: u64) -> Result<(), JobError> {
        let tried = self.chain.links.iter().filter(|link| link.follows(ErrorClass::Overflow));
        let models = [self.model].into_iter().chain(tried.map(|link| link.model.as_str()));
        let windows: Option<Vec<u64>> = models.map(|model| self.cx.window(model)).collect();
        let Some(window) = windows.and_then(|windows| windows.into_iter().max()) else { return Ok(()) };
        let prompt = estimate::of_prompt(self.model, body);
        let answer = self.answer_tokens(window).saturating_mul(answers);
        if prompt + answer <= window {
            return Ok(());
        }
        let message = format!("a prompt of {prompt} tokens and an answer of {answer} do not fit into {window}");
        Err(JobError::new(ErrorClass::Overflow, "window", message))
    }

    /// Tokens that are kept free for an answer.
    fn answer_tokens(&self, window: u64) -> u64 {
        self.payload.answer_tokens().unwrap_or(ANSWER_TOKENS.min(window / 8))
    }

    /// Whether one call has room for `tokens` of answers, or would have in the smallest window in use.
    pub(super) fn one_call_holds(&self, tokens: u64) -> bool {
        let window = self.cx.window(self.model).unwrap_or(SMALLEST_WINDOW);
        let prompt = self.payload.reduce.prompt.as_deref().map_or(0, |text| estimate_tokens(self.model, text));
        let system = self.payload.map.system.as_deref().map_or(0, |text| estimate_tokens(self.model, text));
        tokens + prompt + system + self.answer_tokens(window) + 4 * TOKENS_PER_MESSAGE <= window
    }

    /// Tokens of a value as it stands in a prompt.
    pub(super) fn tokens(&self, value: &Value) -> u64 {
        match value {
            Value::String(text) => self.tokens_of(text),
            other => self.tokens_of(&other.to_string()),
        }
    }

    /// Tokens of a text.
    pub(super) fn tokens_of(&self, text: &str) -> u64 {
        estimate_tokens(self.model, text)
    }

    /// Vectors of the chunks and the model that made them, where they are asked for.
    pub(super) async fn embed(&self) -> Result<Option<(String, Vec<Vec<f32>>)>, JobError> {
        let Some(wish) = &self.payload.embed else { return Ok(None) };
        let model = wish.model.as_deref().or_else(|| self.cx.default_embedding_model()).unwrap_or_default();
        let calls: Vec<BoxFuture<'_, _>> = self
            .embed_batches
            .iter()
            .enumerate()
            .map(|(index, batch)| self.embed_batch(model, wish.dimensions, index, batch).boxed())
            .collect();
        let vectors: Vec<Vec<f32>> = self.side_by_side(calls).await?.into_iter().flatten().collect();
        embedding::check(&vectors, self.chunks.len())?;
        Ok(Some((model.to_owned(), vectors)))
    }

    async fn embed_batch(
        &self,
        model: &str,
        dimensions: Option<u32>,
        index: usize,
        batch: &[Chunk],
    ) -> Result<Vec<Vec<f32>>, JobError> {
        let step = format!("embed/{index:04}");
        let input = batch.iter().map(|chunk| chunk.text(&self.payload.text).to_owned()).collect();
        let wish = Wish { model, dimensions, tries: TRIES, durability: Durability::Now };
        let vectors = embedding::embed(self.cx, &wish, step.clone(), input, &self.calls).await?.vectors;
        embedding::check(&vectors, batch.len())?;
        self.step_done(&step);
        Ok(vectors)
    }
}

/// Window of a model about which nothing is known: the smallest that chat models in use have.
const SMALLEST_WINDOW: u64 = 4_096;

/// Neighbours in batches that one embedding call takes.
fn batches<'a>(chunks: &'a [Chunk], payload: &Analysis, model: &str) -> Vec<&'a [Chunk]> {
    let (inputs_max, tokens_max) = EMBED_BATCH;
    let mut batches = Vec::new();
    let (mut from, mut tokens) = (0, 0);
    for (at, chunk) in chunks.iter().enumerate() {
        let more = estimate_tokens(model, chunk.text(&payload.text));
        if at > from && (at - from >= inputs_max || tokens + more > tokens_max) {
            batches.push(&chunks[from..at]);
            (from, tokens) = (at, 0);
        }
        tokens += more;
    }
    if from < chunks.len() {
        batches.push(&chunks[from..]);
    }
    batches
}
