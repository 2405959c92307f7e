//! Providers that speak the OpenAI wire: OpenAI, Azure's `/openai/v1`, vLLM, llama.cpp, Ollama, LiteLLM and others.
//!
//! Chat is always streamed, so that a stalled call is seen, a cancelled one stops costing, and tokens can be watched.
//! A stream that ends without a finish reason is an error. Nothing is retried here: the job's retry policy decides,
//! and it needs to know what each try may have cost.

mod assembly;
mod conceal;
mod errors;
mod limits;
mod pause;
mod read;
mod sse;
mod transport;
mod usage;
mod vectors;

use std::time::Duration;

use async_openai::config::Config;
use async_trait::async_trait;
use queue_core::{
    error::{ErrorClass, JobError},
    ledger::{Billed, Usage},
};
use reqwest::{
    Response, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout};

use self::{
    assembly::Assembly,
    read::Patience,
    transport::{Endpoint, Path},
};
use super::{Call, CallError, ChatAnswer, ChatRequest, EmbedAnswer, EmbedRequest, Provider, estimate};

/// Longest error body that is read: what explains an error stands at its beginning.
const ERROR_BODY_MAX_BYTES: usize = 64 * 1024;
/// Shortest patience until the first piece with a model that thinks.
const THINKING_MAX: Duration = Duration::from_secs(300);
/// Longest wait of [`Provider::check`]: a health page must not hang on it.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest vector in an answer, in bytes: 4,096 numbers written out.
const VECTOR_MAX_BYTES: usize = 128 * 1024;
/// Longest embedding answer: 2,048 vectors of 3,072 numbers written out are some 80 MiB.
const EMBED_BODY_MAX_BYTES: usize = 128 * 1024 * 1024;
/// Answers from this size on are decoded off the async threads: it takes milliseconds.
const DECODE_INLINE_MAX_BYTES: usize = 256 * 1024;
/// How long an idle connection is kept: shorter than the five seconds after which common servers close theirs, so that
/// no request is written into a closing connection.
const IDLE_CONNECTION_MAX: Duration = Duration::from_secs(4);
/// Idle connections kept for one provider: what returns within a pause is worth keeping, a past peak is not.
const IDLE_CONNECTIONS_MAX: usize = 256;

/// Where an OpenAI-compatible provider is and how patient to be with it.
#[derive(Clone, Debug)]
pub struct OpenAiConfig {
    /// Its name in targets, ledger rows and results.
    pub name: String,
    /// Its base, ending in the version, e.g. `https://api.openai.com/v1`.
    pub base_url: String,
    /// Sent as `Authorization: Bearer …`; local servers need none.
    pub key: Option<SecretString>,
    /// More headers for every request, e.g. Azure's `api-key` or `OpenAI-Organization`.
    pub headers: Vec<(String, SecretString)>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the head of the answer, and from there to its first piece. Reasoning models think long.
    pub first_byte_timeout: Duration,
    /// Longest wait between two pieces of an answer. Comments and keepalives are no pieces.
    pub chunk_timeout: Duration,
    /// Whether to ask for token counts (`stream_options.include_usage`); some servers refuse to be asked.
    pub include_usage: bool,
    /// Most inputs of one embedding request; more are refused with class `batch_split` before anything is sent.
    pub embed_inputs_max: usize,
}

impl OpenAiConfig {
    /// The usual patience and limits: 5 s to connect, 60 s to the first byte, 30 s between pieces, 2,048 inputs.
    pub fn new(name: impl Into<String>, base_url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            base_url: base_url.into(),
            key: None,
            headers: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(60),
            chunk_timeout: Duration::from_secs(30),
            include_usage: true,
            embed_inputs_max: 2_048,
        }
    }
}

/// A provider that speaks the OpenAI wire.
pub struct OpenAi {
    config: OpenAiConfig,
    server: Option<(String, u16)>,
    endpoint: Endpoint,
    http: reqwest::Client,
}

impl OpenAi {
    /// A provider at `config.base_url`. Fails with the reason if URL, key or a header cannot be used; no connection
    /// is made yet.
    pub fn new(mut config: OpenAiConfig) -> Result<Self, String> {
        config.base_url = checked_base(&config.base_url)?;
        let headers = headers_of(&config)?;
        let http = reqwest::Client::builder()
            .user_agent(concat!("longshore/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.connect_timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_CONNECTION_MAX)
            // A connection of HTTP/2 carries about a hundred streams; the next call would wait for one of them to end.
            .http1_only()
            // A redirected POST would become a GET, and the key would go where nobody sent it.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| format!("the HTTP client does not start: {}", errors::causes(&error)))?;
        let endpoint = Endpoint::new(config.base_url.clone(), headers);
        Ok(Self { server: server_of(&config.base_url), config, endpoint, http })
    }

    /// Sends `body` and returns the response if its status promises an answer.
    async fn post(
        &self,
        path: Path,
        call: &Call<'_>,
        body: &(impl Serialize + Sync),
        first_byte: Duration,
        arrived: &mut Assembly,
    ) -> Result<Response, CallError> {
        let id = call.id.to_string();
        let own = call.key.map(|key| self.endpoint_with(key)).transpose()?;
        let sending = transport::post(&self.http, own.as_ref().unwrap_or(&self.endpoint), path, &id, body);
        let response = match timeout(first_byte, sending).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(errors::unanswered(&error)),
            Err(_) => {
                let message = format!("no answer began within {first_byte:?}");
                let (class, code) = (ErrorClass::TransportMid, "first_byte_timeout");
                return Err(CallError::costly(class, code, message, Billed::Maybe, None));
            }
        };
        arrived.request_id = errors::request_id(response.headers());
        arrived.told = limits::told(response.headers());
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response).await) }
    }

    /// The same server for a call with a tenant's own key. The operator's headers stay out of it: they name the operator's
    /// account, and some hold its key.
    fn endpoint_with(&self, key: &SecretString) -> Result<Endpoint, CallError> {
        let headers = key_headers(key).map_err(|reason| CallError::unbilled(ErrorClass::Auth, "key", reason))?;
        Ok(self.endpoint.with_headers(headers))
    }

    fn patience(&self) -> Patience {
        Patience { first_byte: self.config.first_byte_timeout, chunk: self.config.chunk_timeout }
    }

    /// A model that thinks before it speaks is given time to.
    fn patience_with(&self, request: &ChatRequest) -> Patience {
        let usual = self.patience();
        if thinks(request) { Patience { first_byte: usual.first_byte.max(THINKING_MAX), ..usual } } else { usual }
    }

    /// The error behind a status that promises no answer.
    async fn refused(&self, response: Response) -> CallError {
        let (status, headers) = (response.status(), response.headers().clone());
        // What cannot be read in time is not needed: the status says the most.
        let body = read::up_to(response, ERROR_BODY_MAX_BYTES, self.config.chunk_timeout).await;
        errors::classify(status.as_u16(), &headers, &body)
    }

    /// Completes an error: tokens that it may have cost, the request's id, and no key or prompt in its words.
    fn complete(
        &self,
        mut failure: CallError,
        arrived: &Assembly,
        prompts: &[&str],
        key: Option<&SecretString>,
        estimate: impl FnOnce() -> Usage,
    ) -> CallError {
        if failure.billed != Billed::No {
            failure = match arrived.usage {
                Some(usage) => failure.told(usage),
                None => CallError { usage: failure.usage.or_else(|| Some(estimate())), ..failure },
            };
        }
        failure.request_id = failure.request_id.or_else(|| arrived.request_id.clone());
        failure.told = (!arrived.told.is_empty()).then(|| Box::new(arrived.told));
        let secrets = self.config.key.iter().chain(key).chain(self.config.headers.iter().map(|(_, value)| value));
        let secrets: Vec<&str> = secrets.map(ExposeSecret::expose_secret).collect();
        let words = conceal::conceal(&failure.error.message, &secrets, prompts.iter().copied());
        let JobError { class, code, retryable, retry_after_ms, tries_max, .. } = failure.error;
        let told = JobError::new(class, code, words).with_retry_after(retry_after_ms);
        failure.error = JobError { retryable, tries_max, ..told };
        failure
    }
}

#[async_trait]
impl Provider for OpenAi {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn server(&self) -> Option<(&str, u16)> {
        self.server.as_ref().map(|(host, port)| (host.as_str(), *port))
    }

    async fn chat(&self, request: &ChatRequest, call: Call<'_>) -> Result<ChatAnswer, CallError> {
        call.begin()?;
        let began = Instant::now();
        let body = chat_body(request, self.config.include_usage);
        let patience = self.patience_with(request);
        let mut arrived = Assembly::default();
        let work = async {
            let response = self.post(Path::Chat, &call, &body, patience.first_byte, &mut arrived).await?;
            read::answer(response, patience, call.on_text, &mut arrived).await
        };
        let failure = match within(&call, work).await {
            Ok(()) if arrived.is_complete() => return Ok(arrived.finish(began, &request.model)),
            Ok(()) => read::broken("cut", "the stream ended without a finish reason"),
            Err(failure) => failure,
        };
        let prompts: Vec<&str> = request.body.values().flat_map(conceal::texts_of).collect();
        Err(self.complete(failure, &arrived, &prompts, call.key, || so_far(request, &arrived)))
    }

    async fn embed(&self, request: &EmbedRequest, call: Call<'_>) -> Result<EmbedAnswer, CallError> {
        call.begin()?;
        check_inputs(request, self.config.embed_inputs_max)?;
        let body = EmbedBody {
            model: &request.model,
            input: &request.input,
            encoding_format: "base64",
            dimensions: request.dimensions,
        };
        let mut arrived = Assembly::default();
        let work = async {
            let first_byte = self.config.first_byte_timeout;
            let response = self.post(Path::Embeddings, &call, &body, first_byte, &mut arrived).await?;
            let headers = response.headers().clone();
            let limit = (request.input.len() * VECTOR_MAX_BYTES + ERROR_BODY_MAX_BYTES).min(EMBED_BODY_MAX_BYTES);
            let bytes = read::whole(response, limit, self.patience()).await?;
            let decoded = decode(bytes, headers, request.input.len()).await?;
            arrived.usage = decoded.usage;
            Ok(decoded)
        };
        match within(&call, work).await {
            Ok(Decoded { vectors: Ok(vectors), model, usage }) => Ok(EmbedAnswer {
                vectors,
                model: model.unwrap_or_else(|| request.model.clone()),
                usage,
                request_id: arrived.request_id,
                told: arrived.told,
            }),
            Ok(Decoded { vectors: Err(reason), .. }) => {
                let failure = read::unusable("invalid_vectors", reason, Billed::Yes);
                Err(self.complete(failure, &arrived, &[], call.key, || estimate::of_embed(request)))
            }
            Err(failure) => {
                let prompts: Vec<&str> = request.input.iter().map(String::as_str).collect();
                Err(self.complete(failure, &arrived, &prompts, call.key, || estimate::of_embed(request)))
            }
        }
    }

    /// Asks for the list of models. A server without one (404, 405) has answered too.
    async fn check(&self) -> Result<(), CallError> {
        let asked = self.http.get(self.endpoint.url("/models")).headers(self.endpoint.headers());
        let outcome = asked.timeout(CHECK_TIMEOUT).send().await;
        let failure = match outcome {
            Ok(response) => match response.status() {
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => return Ok(()),
                status if status.is_success() => return Ok(()),
                _ => self.refused(response).await,
            },
            Err(error) => errors::unanswered(&error.into()),
        };
        Err(self.complete(failure, &Assembly::default(), &[], None, Usage::default))
    }
}

/// Whether the model thinks before its first word: it is asked to, or it is known for it.
fn thinks(request: &ChatRequest) -> bool {
    if let Some(effort) = request.body.get("reasoning_effort").and_then(Value::as_str) {
        return !matches!(effort, "none" | "minimal");
    }
    let name = request.model.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let is_o_series = name.strip_prefix('o').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let is_gpt = ["gpt-5", "gpt-6"].iter().any(|family| name.starts_with(family)) && !name.contains("chat");
    is_o_series || is_gpt || ["reasoner", "thinking", "-r1", "qwq"].iter().any(|sign| name.contains(sign))
}

/// Runs `work` until it ends, the caller wants it stopped, or the call's time is over; then its connection is gone.
async fn within<T>(call: &Call<'_>, work: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    tokio::select! {
        biased;
        () = call.cancel.cancelled() => Err(CallError::cancelled(None)),
        () = tokio::time::sleep(call.total) => Err(CallError::out_of_time(call.total, None)),
        outcome = work => outcome,
    }
}

/// The usage of what has arrived, counted by us.
fn so_far(request: &ChatRequest, arrived: &Assembly) -> Usage {
    let mut usage = estimate::of_chat(request, &arrived.text);
    usage.tokens_out += arrived.unseen_bytes.div_ceil(3) as u64;
    usage
}

fn chat_body(request: &ChatRequest, include_usage: bool) -> Map<String, Value> {
    let mut body = request.body.clone();
    body.insert("model".to_owned(), request.model.as_str().into());
    body.insert("stream".to_owned(), true.into());
    if include_usage {
        body.insert("stream_options".to_owned(), json!({"include_usage": true}));
    } else {
        body.remove("stream_options");
    }
    body
}

#[derive(Serialize)]
struct EmbedBody<'a> {
    model: &'a str,
    input: &'a [String],
    encoding_format: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}

fn check_inputs(request: &EmbedRequest, inputs_max: usize) -> Result<(), CallError> {
    if request.input.is_empty() || request.input.iter().any(String::is_empty) {
        return Err(CallError::unbilled(ErrorClass::BadRequest, "empty_input", "an input is empty"));
    }
    if request.input.len() > inputs_max {
        let message = format!("{} inputs in one request; the limit is {inputs_max}", request.input.len());
        return Err(CallError::unbilled(ErrorClass::BatchSplit, "too_many_inputs", message));
    }
    Ok(())
}

struct Decoded {
    vectors: Result<Vec<Vec<f32>>, String>,
    model: Option<String>,
    usage: Option<Usage>,
}

async fn decode(bytes: Vec<u8>, headers: HeaderMap, inputs: usize) -> Result<Decoded, CallError> {
    let is_large = bytes.len() > DECODE_INLINE_MAX_BYTES;
    let read = move || {
        let mut body: vectors::Body = match serde_json::from_slice(&bytes) {
            Ok(body) => body,
            Err(error) => {
                let billed = if read::is_html(&headers) { Billed::Maybe } else { Billed::Yes };
                return Err(read::unusable("not_vectors", format!("the answer does not read: {error}"), billed));
            }
        };
        if !body.error.is_null() {
            return Err(errors::classify_reported(&headers, &json!({"error": body.error})));
        }
        let (model, usage) = (body.model.take(), usage::parse(&body.usage));
        Ok(Decoded { vectors: body.vectors(inputs), model, usage })
    };
    if !is_large {
        return read();
    }
    let lost = |error: tokio::task::JoinError| {
        CallError::costly(ErrorClass::Internal, "decode", error.to_string(), Billed::Yes, None)
    };
    tokio::task::spawn_blocking(read).await.map_err(lost)?
}

fn checked_base(text: &str) -> Result<String, String> {
    let url: reqwest::Url = text.parse().map_err(|error| format!("`{text}` is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("`{text}` is not an http or https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL contains a user or password; give the key apart".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("`{text}` has a query or fragment; a base URL has none"));
    }
    Ok(text.trim().trim_end_matches('/').to_owned())
}

/// Host and port of a base URL.
fn server_of(base: &str) -> Option<(String, u16)> {
    let url = reqwest::Url::parse(base).ok()?;
    Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
}

/// A header's value that nobody prints.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn key_headers(key: &SecretString) -> Result<HeaderMap, String> {
    let key = key.expose_secret();
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the key is empty or contains a space, a line break or something that is no ASCII".to_owned());
    }
    let value = secret(&format!("Bearer {key}")).ok_or("the key cannot be sent in a header")?;
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

fn headers_of(config: &OpenAiConfig) -> Result<HeaderMap, String> {
    let mut headers = config.key.as_ref().map_or_else(|| Ok(HeaderMap::new()), key_headers)?;
    for (name, value) in &config.headers {
        let header = HeaderName::try_from(name).map_err(|_| format!("`{name}` is not the name of a header"))?;
        let value = value.expose_secret();
        let value = secret(value).filter(|_| !value.is_empty());
        headers.insert(header, value.ok_or_else(|| format!("the value of `{name}` cannot be sent in a header"))?);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_think_are_given_time() {
        let request = |model: &str, body: Value| ChatRequest {
            model: model.into(),
            body: body.as_object().cloned().unwrap_or_default(),
        };
        for model in
            ["o3-mini", "o1", "openai/o4-mini", "gpt-5-mini", "gpt-6", "deepseek-reasoner", "qwq-32b", "DeepSeek-R1"]
        {
            assert!(thinks(&request(model, json!({}))), "{model}");
        }
        for model in ["gpt-4o", "gpt-4.1", "gpt-5-chat-latest", "olmo-7b", "llama-3", "claude"] {
            assert!(!thinks(&request(model, json!({}))), "{model}");
        }
        assert!(thinks(&request("llama-3", json!({"reasoning_effort": "high"}))));
        assert!(!thinks(&request("gpt-5", json!({"reasoning_effort": "none"}))));
        let openai = OpenAi::new(OpenAiConfig::new("x", "http://127.0.0.1:1/v1")).unwrap();
        let first_byte = |model| openai.patience_with(&request(model, json!({}))).first_byte;
        assert_eq!((first_byte("gpt-4o"), first_byte("o3")), (Duration::from_secs(60), Duration::from_secs(300)));
    }
}
