//! The span of a provider call, in the words of `gen_ai.*`.

use opentelemetry::{
    Array, Context, KeyValue, StringValue, Value,
    global::BoxedSpan,
    trace::{Span, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer},
};

use super::{Spot, Traces, installed, link, names};
use crate::{error::ErrorClass, ids::JobId, ledger::Usage};

/// Longest word of a provider that is told, in characters: the name of a model, or why an answer ended.
const WORD_MAX_CHARS: usize = 100;
/// What a call failed with that was given up.
const GIVEN_UP: &str = "cancelled";

/// What is asked, and of whom.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// [`names::CHAT`] or [`names::EMBEDDINGS`].
    pub operation: &'static str,
    /// The provider's name in the configuration.
    pub provider: &'a str,
    /// Its host and port, where it has one.
    pub server: Option<(&'a str, u16)>,
    /// The model.
    pub model: &'a str,
}

/// A call, below the attempt that makes it. One that is dropped before its end was given up.
pub struct Call {
    span: BoxedSpan,
    traces: &'static Traces,
    is_over: bool,
}

impl Call {
    /// Begins a call that several attempts may share: it is a child of the first, and links to the others. `None`: none of
    /// them is recorded.
    pub fn begin(asked: Asked<'_>, attempts: &[Spot]) -> Option<Self> {
        let traces = installed()?;
        let (Spot(first), others) = attempts.split_first()?;
        let mut attributes = vec![
            KeyValue::new(names::GEN_AI_OPERATION, asked.operation),
            KeyValue::new(names::GEN_AI_SYSTEM, asked.provider.to_owned()),
            KeyValue::new(names::GEN_AI_REQUEST_MODEL, asked.model.to_owned()),
        ];
        if traces.gen_ai_latest {
            attributes.push(KeyValue::new(names::GEN_AI_PROVIDER, asked.provider.to_owned()));
        }
        if let Some((host, port)) = asked.server {
            attributes.push(KeyValue::new(names::SERVER_ADDRESS, host.to_owned()));
            attributes.push(KeyValue::new(names::SERVER_PORT, i64::from(port)));
        }
        let builder = SpanBuilder::from_name(format!("{} {}", asked.operation, asked.model))
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
            .with_links(others.iter().map(|Spot(other)| link(other.clone(), "job")).collect());
        let parent = Context::new().with_remote_span_context(first.clone());
        let span = traces.tracer.build_with_context(builder, &parent);
        span.is_recording().then(|| Self { span, traces, is_over: false })
    }

    /// It is a step of this job.
    pub fn of(&mut self, job: JobId, tenant: &str, step: &str) {
        self.set(names::MESSAGING_MESSAGE_ID, job.to_string());
        self.set(names::TENANT, tenant.to_owned());
        self.set(names::STEP, step.to_owned());
    }

    /// It is shared by so many jobs.
    pub fn of_jobs(&mut self, jobs: usize) {
        self.set(names::CALL_JOBS, count(jobs as u64));
    }

    /// What else of the request may be told: numbers, and whether the answer is to be JSON.
    pub fn asks(&mut self, max_tokens: Option<u64>, temperature: Option<f64>, top_p: Option<f64>, json: bool) {
        if let Some(tokens) = max_tokens {
            self.set(names::GEN_AI_REQUEST_MAX_TOKENS, count(tokens));
        }
        for (name, value) in [(names::GEN_AI_REQUEST_TEMPERATURE, temperature), (names::GEN_AI_REQUEST_TOP_P, top_p)] {
            if let Some(value) = value {
                self.set(name, value);
            }
        }
        self.set(names::GEN_AI_OUTPUT_TYPE, if json { "json" } else { "text" });
        if self.traces.gen_ai_latest {
            self.set(names::GEN_AI_REQUEST_STREAM, true);
        }
    }

    /// An answer came, of this model, as the provider calls it.
    pub fn answered(&mut self, model: &str, usage: Option<Usage>) {
        if !model.is_empty() {
            self.set(names::GEN_AI_RESPONSE_MODEL, word(model));
        }
        if let Some(usage) = usage {
            self.used(usage);
        }
    }

    /// Its text began after so long, and ended for this reason.
    pub fn finished(&mut self, reason: &str, first_token_ms: Option<u64>) {
        let reasons = Array::String(vec![StringValue::from(word(reason))]);
        self.set(names::GEN_AI_RESPONSE_FINISH, Value::Array(reasons));
        if let Some(ms) = first_token_ms.filter(|_| self.traces.gen_ai_latest) {
            self.set(names::GEN_AI_RESPONSE_FIRST_CHUNK, ms as f64 / 1_000.0);
        }
    }

    /// Tokens that it took, as far as they are known.
    pub fn used(&mut self, usage: Usage) {
        self.set(names::GEN_AI_INPUT_TOKENS, count(usage.tokens_in));
        self.set(names::GEN_AI_OUTPUT_TOKENS, count(usage.tokens_out));
        let later = [
            (names::GEN_AI_CACHED_TOKENS, usage.tokens_cached),
            (names::GEN_AI_CACHE_WRITE_TOKENS, usage.tokens_cache_write),
            (names::GEN_AI_REASONING_TOKENS, usage.tokens_reasoning),
        ];
        if self.traces.gen_ai_latest {
            for (name, tokens) in later.into_iter().filter(|(_, tokens)| *tokens > 0) {
                self.set(name, count(tokens));
            }
        }
    }

    /// It is over; `error`: why it brought no answer.
    pub fn end(mut self, error: Option<ErrorClass>) {
        self.close(error.map(ErrorClass::as_str));
    }

    fn close(&mut self, error: Option<&'static str>) {
        self.is_over = true;
        if let Some(error) = error {
            self.set(names::ERROR_TYPE, error);
            // No description: a provider's words may repeat the prompt.
            self.span.set_status(Status::error(""));
        }
        self.span.end();
    }

    fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.span.set_attribute(KeyValue::new(name, value));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_over {
            self.close(Some(GIVEN_UP));
        }
    }
}

fn count(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}

fn word(text: &str) -> String {
    text.chars().take(WORD_MAX_CHARS).collect()
}
