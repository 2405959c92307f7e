//! Who answers: one trait over every model provider, in our own types.
//!
//! Two implementations: [`openai`] speaks the OpenAI wire (OpenAI, Azure, vLLM, llama.cpp, Ollama, LiteLLM …),
//! [`simulated`] invents answers and says so. An answer that was paid for never becomes an error because of an
//! unknown field; a stream that ends without a finish reason is an error.
#![allow(clippy::result_large_err)] // 200 bytes, moved a few times in a call that takes seconds

pub(crate) mod estimate;
pub mod openai;
pub mod simulated;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use queue_core::{
    error::{ErrorClass, JobError},
    ids::CallId,
    ledger::{Billed, Usage, UsageSource},
    limiter::Told,
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

queue_core::unshown!(ChatRequest, ChatAnswer, EmbedRequest);

/// A chat completion to ask for: the OpenAI request's members (`messages`, `max_tokens`, `response_format` …) without
/// `model`, `stream` and `stream_options`, which the adapter sets.
#[derive(Clone, PartialEq, Serialize)]
pub struct ChatRequest {
    /// The model as the provider knows it.
    pub model: String,
    /// Everything else of the request.
    pub body: Map<String, Value>,
}

/// A finished chat completion.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatAnswer {
    /// The text of the first choice.
    pub text: String,
    /// Why it ended: `stop`, `length`, `tool_calls`, `content_filter` or the provider's own word. Never empty.
    pub finish: String,
    /// The model's words when it declined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Calls of tools, as the provider sent them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<Value>,
    /// The model that answered, in the provider's words.
    pub model: String,
    /// Tokens; `None` when the provider did not say.
    pub usage: Option<Usage>,
    /// The service tier that the provider served it in, in its own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// The provider's request id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Time to the first piece of text, in milliseconds.
    #[serde(default)]
    pub first_token_ms: Option<u64>,
    /// What the provider said of its limits. Not kept: it is about the moment.
    #[serde(skip)]
    pub told: Told,
    /// Whether another job has paid for it.
    #[serde(skip)]
    pub cached: bool,
}

/// Vectors to ask for.
#[derive(Clone, PartialEq, Serialize)]
pub struct EmbedRequest {
    /// The model as the provider knows it.
    pub model: String,
    /// 1 to 2,048 texts, none empty.
    pub input: Vec<String>,
    /// Length of the vectors, where the model lets one choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u32>,
}

/// Finished vectors: one for each input, in the order of the inputs (matched by the answer's `index`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EmbedAnswer {
    /// One vector for each input.
    pub vectors: Vec<Vec<f32>>,
    /// The model that answered.
    pub model: String,
    /// Tokens; `None` when the provider did not say.
    pub usage: Option<Usage>,
    /// The provider's request id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What the provider said of its limits. Not kept: it is about the moment.
    #[serde(skip)]
    pub told: Told,
}

/// What a call needs besides its request.
pub struct Call<'a> {
    /// Sent as `Idempotency-Key` and `X-Client-Request-Id`: some gateways replay on it.
    pub id: CallId,
    /// Fires when the job was cancelled, lost or timed out: the connection is dropped at once.
    pub cancel: CancellationToken,
    /// The whole call must end by then.
    pub total: Duration,
    /// The key that it is made with, instead of what the provider has from the operator: a tenant's own.
    pub key: Option<&'a SecretString>,
    /// Gets each piece of text as it arrives.
    pub on_text: &'a (dyn Fn(&str) + Send + Sync),
}

impl Call<'_> {
    /// Refuses to begin a call whose end has come already: nothing was sent, so nothing was paid.
    fn begin(&self) -> Result<(), CallError> {
        let late = if self.cancel.is_cancelled() {
            CallError::cancelled(None)
        } else if self.total.is_zero() {
            CallError::out_of_time(self.total, None)
        } else {
            return Ok(());
        };
        Err(CallError { billed: Billed::No, ..late })
    }
}

/// A call that brought no usable answer.
#[derive(Clone, Debug)]
pub struct CallError {
    /// Class, code, message, wish for a pause.
    pub error: JobError,
    /// Whether it was paid for.
    pub billed: Billed,
    /// Tokens as far as known: of a refused answer, or counted from what had arrived.
    pub usage: Option<Usage>,
    /// Who counted `usage`.
    pub usage_source: UsageSource,
    /// The provider's request id.
    pub request_id: Option<String>,
    /// What the provider said of its limits. Boxed: an error is moved often, and this is needed once.
    pub told: Option<Box<Told>>,
}

impl CallError {
    /// An error of `class` that cost nothing.
    pub fn unbilled(class: ErrorClass, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::costly(class, code, message, Billed::No, None)
    }

    /// An error of `class` of a call that cost something, or may have: `usage` as far as we can count it.
    pub fn costly(
        class: ErrorClass,
        code: impl Into<String>,
        message: impl Into<String>,
        billed: Billed,
        usage: Option<Usage>,
    ) -> Self {
        let usage_source = UsageSource::Estimated;
        Self { error: JobError::new(class, code, message), billed, usage, usage_source, request_id: None, told: None }
    }

    /// The same error with the tokens that the provider itself has counted.
    pub fn told(self, usage: Usage) -> Self {
        Self { usage: Some(usage), usage_source: UsageSource::Provider, ..self }
    }

    /// The caller wanted it stopped. Only the caller knows why; `usage` is what had arrived by then.
    pub fn cancelled(usage: Option<Usage>) -> Self {
        let message = "the call was stopped before its answer was complete";
        Self::costly(ErrorClass::Internal, "cancelled", message, Billed::Maybe, usage)
    }

    /// It took longer than the caller could wait; `usage` is what had arrived by then.
    pub fn out_of_time(total: Duration, usage: Option<Usage>) -> Self {
        let message = format!("no complete answer within {total:?}");
        Self::costly(ErrorClass::Timeout, "total_timeout", message, Billed::Maybe, usage)
    }
}

/// A model provider.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Its name in the configuration, in targets, ledger rows and results.
    fn name(&self) -> &str;

    /// Its host and port, where it is reached over a network: what traces tell of it.
    fn server(&self) -> Option<(&str, u16)> {
        None
    }

    /// Asks for one chat completion; streams inside.
    async fn chat(&self, request: &ChatRequest, call: Call<'_>) -> Result<ChatAnswer, CallError>;

    /// Asks for vectors.
    async fn embed(&self, request: &EmbedRequest, call: Call<'_>) -> Result<EmbedAnswer, CallError>;

    /// A cheap call that shows whether it answers at all.
    async fn check(&self) -> Result<(), CallError>;
}

/// The configured providers by name.
pub type Providers = BTreeMap<String, Arc<dyn Provider>>;
