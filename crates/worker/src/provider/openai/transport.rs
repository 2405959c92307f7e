//! The wire, on async-openai: its client builds the requests, its middleware seam gives us the answers unread.
//!
//! The crate retries by itself, loses the status of errors that it cannot decode, logs answers, and reads streams
//! through a channel without bound. None of that runs here: [`Catch`] takes each response out of the crate's hands
//! as soon as its head has arrived.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use async_openai::{
    Client, config::Config, error::OpenAIError, middleware::HttpRequestFactory, traits::RequestOptionsBuilder,
};
use reqwest::{
    Response,
    header::{CONNECTION, HeaderMap, HeaderName, HeaderValue},
};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;

/// Where a provider is and what every request to it carries. Unlike the crate's own, it never asks the environment.
#[derive(Clone)]
pub(super) struct Endpoint {
    base: String,
    headers: HeaderMap,
    no_key: SecretString,
}

impl Endpoint {
    pub(super) fn new(base: String, headers: HeaderMap) -> Self {
        Self { base, headers, no_key: SecretString::default() }
    }

    /// The same place for one call with these headers.
    pub(super) fn with_headers(&self, headers: HeaderMap) -> Self {
        Self { headers, ..self.clone() }
    }

    fn is_plain(&self) -> bool {
        self.base.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http:"))
    }
}

impl Config for Endpoint {
    fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn query(&self) -> Vec<(&str, &str)> {
        Vec::new()
    }

    fn api_base(&self) -> &str {
        &self.base
    }

    /// Only the crate's realtime and webhook parts ask for it; our key is in the headers.
    fn api_key(&self) -> &SecretString {
        &self.no_key
    }
}

/// The service below the crate's client: sends, and keeps the response for us.
#[derive(Clone)]
struct Catch {
    http: reqwest::Client,
    caught: Arc<Mutex<Option<Response>>>,
}

/// What the crate is told instead of the response.
#[derive(Debug)]
struct Caught;

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response is read elsewhere")
    }
}

impl Error for Caught {}

impl tower::Service<HttpRequestFactory> for Catch {
    type Response = Response;
    type Error = OpenAIError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, OpenAIError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequestFactory) -> Self::Future {
        let Self { http, caught } = self.clone();
        Box::pin(async move {
            let response = http.execute(request.build().await?).await?;
            *caught.lock().unwrap_or_else(PoisonError::into_inner) = Some(response);
            Err(OpenAIError::Boxed(Box::new(Caught)))
        })
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path {
    Chat,
    Embeddings,
}

/// Sends `body` and returns the response, whatever its status, with its body unread.
pub(super) async fn post(
    http: &reqwest::Client,
    endpoint: &Endpoint,
    path: Path,
    call_id: &str,
    body: &(impl Serialize + Sync),
) -> Result<Response, OpenAIError> {
    // A slot of its own for each call: a shared one would hand one call's answer to another.
    let caught = Arc::new(Mutex::new(None));
    let service = Catch { http: http.clone(), caught: caught.clone() };
    let client = Client::build(http.clone(), endpoint.clone()).with_http_service(service);
    let id = HeaderValue::try_from(call_id).map_err(|error| OpenAIError::InvalidArgument(error.to_string()))?;
    let named = [HeaderName::from_static("idempotency-key"), HeaderName::from_static("x-client-request-id")];
    let mut headers = HeaderMap::from_iter(named.map(|name| (name, id.clone())));
    if matches!(path, Path::Chat) && endpoint.is_plain() {
        // llama.cpp closes the connection after each stream although it offers to keep it, so the next call would be
        // written into a closing connection and might have cost something. Without TLS a new one is cheap.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let told: Result<Value, OpenAIError> = match path {
        Path::Chat => client.chat().headers(headers).create_byot(body).await,
        Path::Embeddings => client.embeddings().headers(headers).create_byot(body).await,
    };
    let response = caught.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (response, told) {
        (Some(response), _) => Ok(response),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => Err(OpenAIError::Boxed(Box::new(Caught))),
    }
}
