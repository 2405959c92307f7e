//! Problem documents (RFC 9457): the one shape of every rejection.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use queue_core::{ids::JobId, journal::JournalError, ledger::Nanousd, payload::FieldError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::backlog::BacklogView;

/// Media type of a problem document.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";
/// The place of an encoding that is not taken.
pub(crate) const CONTENT_ENCODING: &str = "/header/Content-Encoding";
/// The encodings of bodies that are taken.
const ENCODINGS: HeaderValue = HeaderValue::from_static("gzip, zstd");
/// Most field errors in one document: enough to mend a request, and a bound on what a hostile one makes us say.
pub(crate) const ERRORS_MAX: usize = 32;
/// Longest reason, in bytes: reasons repeat what was sent.
const REASON_MAX_BYTES: usize = 500;

/// What kind of problem it is: a stable name, a title and a status. Clients tell problems apart by the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    BadRequest,
    InvalidJson,
    InvalidFields,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Timeout,
    AlreadyFinal,
    Running,
    NotFinished,
    ResultGone,
    PayloadGone,
    NotDead,
    OperationRunning,
    OperationEnded,
    RetentionHeld,
    ChoreRunning,
    NotOwner,
    QueueDraining,
    TenantErased,
    TenantOperates,
    IdempotencyInFlight,
    UniqueKeyHeld,
    NameTaken,
    BackfillRunning,
    KeyEnded,
    LastAdminKey,
    Stale,
    TooLarge,
    AddressTooLong,
    HeadersTooLarge,
    UnsupportedMediaType,
    IdempotencyKeyReused,
    BacklogFull,
    RateLimited,
    TooDear,
    TooMany,
    NoObjects,
    NoBackups,
    Internal,
    Unavailable,
    Maintenance,
    Busy,
}

impl Cause {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", "The request cannot be read"),
            Self::InvalidJson => (StatusCode::BAD_REQUEST, "invalid-json", "The body is not JSON"),
            Self::InvalidFields => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid-fields", "The request has invalid fields")
            }
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "A valid API key is needed"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "The caller may not do this"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "There is no such thing"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed here")
            }
            Self::Timeout => (StatusCode::REQUEST_TIMEOUT, "timeout", "The request took too long to arrive"),
            Self::AlreadyFinal => (StatusCode::CONFLICT, "already-final", "The job has ended"),
            Self::Running => (StatusCode::CONFLICT, "running", "The job is running"),
            Self::NotFinished => (StatusCode::CONFLICT, "not-finished", "The job has no result"),
            Self::ResultGone => {
                (StatusCode::GONE, "result-gone", "The result was kept for as long as it was asked for")
            }
            Self::PayloadGone => (StatusCode::GONE, "payload-gone", "The payload was kept for as long as payloads are"),
            Self::NotDead => (StatusCode::CONFLICT, "not-dead", "The job is not a dead letter"),
            Self::OperationRunning => {
                (StatusCode::CONFLICT, "operation-running", "An operation in the way has not ended")
            }
            Self::QueueDraining => (StatusCode::CONFLICT, "queue-draining", "The queue takes no jobs"),
            Self::TenantErased => (StatusCode::FORBIDDEN, "tenant-erased", "The tenant was erased"),
            Self::TenantOperates => (StatusCode::CONFLICT, "tenant-operates", "Keys of operators belong to the tenant"),
            Self::OperationEnded => (StatusCode::CONFLICT, "operation-ended", "The operation has ended"),
            Self::ChoreRunning => (StatusCode::CONFLICT, "chore-running", "Somebody looks after the journal already"),
            Self::NotOwner => (StatusCode::CONFLICT, "not-owner", "This role may not look after the journal"),
            Self::RetentionHeld => (StatusCode::CONFLICT, "retention-held", "Nothing is taken away for its age"),
            Self::IdempotencyInFlight => {
                (StatusCode::CONFLICT, "idempotency-in-flight", "A request with this key is still being accepted")
            }
            Self::UniqueKeyHeld => (StatusCode::CONFLICT, "unique-key-held", "A live job holds this unique key"),
            Self::NameTaken => (StatusCode::CONFLICT, "name-taken", "The name is taken"),
            Self::BackfillRunning => (StatusCode::CONFLICT, "backfill-running", "A backfill has not ended"),
            Self::KeyEnded => (StatusCode::CONFLICT, "key-ended", "The key has ended"),
            Self::LastAdminKey => (StatusCode::CONFLICT, "last-admin-key", "It is the last admin key that can be used"),
            Self::Stale => (StatusCode::PRECONDITION_FAILED, "stale", "It was changed since it was read"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large"),
            Self::AddressTooLong => (StatusCode::URI_TOO_LONG, "address-too-long", "The address is too long"),
            Self::HeadersTooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large", "The headers are too large")
            }
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The content type is not supported")
            }
            Self::IdempotencyKeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The idempotency key was used with another body",
            ),
            Self::BacklogFull => {
                (StatusCode::TOO_MANY_REQUESTS, "backlog-full", "The tenant has as many live jobs as it may")
            }
            Self::RateLimited => {
                (StatusCode::TOO_MANY_REQUESTS, "rate-limited", "The caller asks more often than it may")
            }
            Self::TooDear => {
                (StatusCode::UNPROCESSABLE_ENTITY, "too-dear", "The job cannot fit into what may be spent on it")
            }
            Self::TooMany => (StatusCode::UNPROCESSABLE_ENTITY, "too-many", "There are as many as there may be"),
            Self::NoBackups => (StatusCode::UNPROCESSABLE_ENTITY, "no-backups", "There is no place for backups"),
            Self::NoObjects => (StatusCode::UNPROCESSABLE_ENTITY, "no-objects", "There is no place for archives"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something is broken on our side"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The service is unavailable"),
            Self::Maintenance => (StatusCode::SERVICE_UNAVAILABLE, "maintenance", "The installation is in maintenance"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", "The service has too much to do"),
        }
    }

    /// Whether the request could not be read, or came too often to be read, so that it has asked for nothing.
    fn is_of_reading(self) -> bool {
        use Cause::{
            BadRequest, InvalidFields, InvalidJson, MethodNotAllowed, RateLimited, Timeout, TooLarge,
            UnsupportedMediaType,
        };
        matches!(
            self,
            BadRequest
                | InvalidJson
                | InvalidFields
                | MethodNotAllowed
                | RateLimited
                | Timeout
                | TooLarge
                | UnsupportedMediaType
        )
    }

    /// The cause that stands for a status which some layer answered without one.
    fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => Self::Timeout,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::UNPROCESSABLE_ENTITY => Self::InvalidFields,
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            status if status.is_server_error() => Self::Internal,
            _ => Self::BadRequest,
        }
    }
}

/// A rejection on its way out. The outermost layer writes its body, because only that knows the request id.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    cause: Cause,
    detail: String,
    errors: Vec<FieldError>,
    job_id: Option<JobId>,
    retry_after_s: Option<u32>,
    backlog: Option<BacklogView>,
    estimate_usd: Option<String>,
    violated: Vec<&'static str>,
}

impl Problem {
    /// See [`Cause::is_of_reading`].
    pub(crate) fn is_of_reading(&self) -> bool {
        self.cause.is_of_reading()
    }

    /// A problem in one sentence.
    pub(crate) fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self {
            cause,
            detail: detail.into(),
            errors: Vec::new(),
            job_id: None,
            retry_after_s: None,
            backlog: None,
            estimate_usd: None,
            violated: Vec::new(),
        }
    }

    /// A request whose fields are wrong.
    pub(crate) fn fields(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "1 field is wrong".to_owned(),
            more => format!("{more} fields are wrong"),
        };
        Self { errors, ..Self::new(Cause::InvalidFields, detail) }
    }

    /// A request with one wrong field.
    pub(crate) fn field(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::fields(vec![FieldError::at(pointer, reason)])
    }

    /// There is no job with this id.
    pub(crate) fn no_job(id: JobId) -> Self {
        Self::new(Cause::NotFound, format!("there is no job {id}"))
    }

    /// There is no tenant with this name, as far as the caller is told.
    pub(crate) fn no_tenant(tenant: &str) -> Self {
        Self::new(Cause::NotFound, format!("there is no tenant {tenant}")).at("/path/tenant", "is not a known tenant")
    }

    /// The same problem with the place and reason.
    pub(crate) fn at(mut self, pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        self.errors.push(FieldError::at(pointer, reason));
        self
    }

    /// The same problem with the job that it is about.
    pub(crate) fn about(mut self, job: JobId) -> Self {
        self.job_id = Some(job);
        self
    }

    /// The same problem with the backlog that is full.
    pub(crate) fn of_backlog(mut self, backlog: BacklogView) -> Self {
        self.backlog = Some(backlog);
        self
    }

    /// The same problem with what the job costs at the least.
    pub(crate) fn estimated(mut self, cost: Nanousd) -> Self {
        self.estimate_usd = Some(cost.to_string());
        self
    }

    /// The same problem with the limits of requests that stand in the way.
    pub(crate) fn violating(mut self, limits: Vec<&'static str>) -> Self {
        self.violated = limits;
        self
    }

    /// The same problem with the advice to ask again after this many seconds.
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The same problem with what is wrong, if it is in a document within the request.
    pub(crate) fn within(mut self, place: &str) -> Self {
        for error in &mut self.errors {
            error.pointer = format!("{place}{}", error.pointer);
        }
        self
    }

    /// The name of what kind of problem it is.
    pub(crate) fn name(&self) -> &'static str {
        self.cause.parts().1
    }

    /// What kind of problem it is.
    pub(crate) fn cause(&self) -> Cause {
        self.cause
    }

    /// What is wrong, with the fields that are.
    pub(crate) fn whole_detail(&self) -> String {
        let fields = self.errors.iter().map(|error| format!("; {} {}", error.pointer, error.reason));
        std::iter::once(self.detail.clone()).chain(fields).collect()
    }

    /// When to ask again, if that helps.
    pub(crate) fn seconds_to_wait(&self) -> Option<u32> {
        self.retry_after_s
    }

    /// What is wrong, for a log line.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The document. Items of a bulk answer carry no request id: the answer around them does.
    pub(crate) fn document(&self, request_id: Option<&str>) -> Document {
        let (status, name, title) = self.cause.parts();
        Document {
            r#type: format!("urn:longshore:problem:{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail.clone(),
            errors: self.errors.iter().take(ERRORS_MAX).map(FieldProblem::from).collect(),
            job_id: self.job_id.map(|id| id.to_string()),
            retry_after_seconds: self.retry_after_s,
            backlog: self.backlog.clone(),
            estimate_usd: self.estimate_usd.clone(),
            violated_policies: self.violated.clone(),
            request_id: request_id.map(str::to_owned),
        }
    }
}

impl From<JournalError> for Problem {
    fn from(error: JournalError) -> Self {
        match error {
            // One second: the journal retries its disk or connection at about that pace.
            JournalError::Unavailable(_) => Self::new(Cause::Unavailable, error.to_string()).retry_after(1),
            JournalError::Corrupt(_) => {
                tracing::error!(%error, "the journal holds something that cannot be read");
                Self::new(Cause::Internal, error.to_string())
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.cause.parts().0.into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.errors.iter().any(|error| error.pointer == CONTENT_ENCODING) {
            // What a client may send instead (RFC 9110, 12.5.3).
            response.headers_mut().insert(header::ACCEPT_ENCODING, ENCODINGS);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// A problem document.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Document {
    /// Stable name of the problem, `urn:longshore:problem:…`.
    pub(crate) r#type: String,
    /// What it is, for people.
    pub(crate) title: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// What happened this time.
    pub(crate) detail: String,
    /// Each wrong field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<FieldProblem>,
    /// The job that stands in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) job_id: Option<String>,
    /// When to ask again, as in the header `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_seconds: Option<u32>,
    /// The backlog that is full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backlog: Option<BacklogView>,
    /// What the job costs at the least, in US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) estimate_usd: Option<String>,
    /// The limits of requests that stand in the way, as the header `RateLimit-Policy` names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub(crate) violated_policies: Vec<&'static str>,
    /// The request, as in the header `X-Request-Id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
}

/// One wrong field.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FieldProblem {
    /// JSON pointer into the body; `/query/…`, `/header/…` and `/path/…` for what is outside it.
    pub(crate) pointer: String,
    /// What is wrong and what is allowed.
    pub(crate) reason: String,
}

impl From<&FieldError> for FieldProblem {
    fn from(error: &FieldError) -> Self {
        Self { pointer: shortened(&error.pointer), reason: shortened(&error.reason) }
    }
}

fn shortened(text: &str) -> String {
    if text.len() <= REASON_MAX_BYTES {
        return text.to_owned();
    }
    let cut = (0..=REASON_MAX_BYTES).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}…", &text[..cut])
}

/// Most bytes of another layer's plain answer that are kept as detail.
const PLAIN_MAX_BYTES: usize = 1_000;

/// Writes the problem document into a rejection, also into those that axum itself made. Failures of ours are logged, unless they are
/// answers to probes, which ask again every second.
pub(crate) async fn finish(mut response: Response, request_id: &str, is_logged: bool) -> Response {
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if is_plain_rejection(&response) => {
            let status = response.status();
            let body = std::mem::take(response.body_mut());
            let bytes = axum::body::to_bytes(body, PLAIN_MAX_BYTES).await.unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let detail = if text.is_empty() { status.canonical_reason().unwrap_or_default() } else { &text };
            Problem::new(Cause::of_status(status), detail)
        }
        None => return response,
    };
    let document = problem.document(Some(request_id));
    if document.status >= 500 && is_logged {
        tracing::warn!(request_id, status = document.status, detail = problem.detail(), "request refused");
    }
    // Strings and integers only: this cannot fail.
    let json = serde_json::to_vec(&document).unwrap_or_default();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    *response.body_mut() = Body::from(json);
    response
}

fn is_plain_rejection(response: &Response) -> bool {
    let status = response.status();
    let structured = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
        kind.to_str().is_ok_and(|kind| kind.contains("json") || kind.contains("html") || kind.contains("event-stream"))
    });
    (status.is_client_error() || status.is_server_error()) && !structured
}
