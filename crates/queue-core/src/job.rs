//! The job: as it is submitted, as the journal holds it, and as a worker gets it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    error::JobError,
    fallback::Link,
    ids::{Epoch, JobId, Name},
    ledger::{Nanousd, Usage},
    private::Prompt,
    state::Standing,
    time::Timestamp,
};

/// What kind of work a job is; decides which handler runs it and how its payload reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One chat completion.
    Llm,
    /// Vectors for up to 2,048 inputs.
    Embedding,
    /// A document in many calls: chunk, map, reduce, embed.
    Analysis,
    /// Load and fault tests; runs without a provider.
    Probe,
    /// A request to a service's URL.
    Http,
    /// A handler of somebody's own program.
    Custom,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Llm, Self::Embedding, Self::Analysis, Self::Probe, Self::Http, Self::Custom];

    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Embedding => "embedding",
            Self::Analysis => "analysis",
            Self::Probe => "probe",
            Self::Http => "http",
            Self::Custom => "custom",
        }
    }

    /// Whether its attempts ask model providers, which cost money and whose answers are kept.
    pub fn asks_providers(self) -> bool {
        match self {
            Self::Llm | Self::Embedding | Self::Analysis => true,
            Self::Probe | Self::Http | Self::Custom => false,
        }
    }

    /// The kind with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Most urgent priority; 0 is the least. A point of priority is worth [`AGEING_MS_PER_POINT`] of waiting.
pub const PRIORITY_MAX: u8 = 9;
/// Priority of a job that names none.
pub const PRIORITY_DEFAULT: u8 = 5;
/// Attempts of a job that names no number.
pub const MAX_ATTEMPTS_DEFAULT: u32 = 3;
/// Largest number of attempts that a job may ask for.
pub const MAX_ATTEMPTS_MAX: u32 = 100;
/// What one point of priority is worth: a job of priority 9 overtakes jobs of priority 5 that were ready up to
/// 20 minutes earlier, and nothing older. So nothing starves.
pub const AGEING_MS_PER_POINT: i64 = 5 * 60 * 1_000;

/// A job that passed validation and is about to be accepted.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Made by the submitter's side, so that a repeated accept of the same batch is recognised.
    pub id: JobId,
    /// Whose job it is.
    pub tenant: Name,
    /// Where it waits.
    pub queue: Name,
    /// What it is.
    pub kind: Kind,
    /// What it will load: `provider:model:credential`, or the kind where no provider is called.
    pub target: Name,
    /// 0..=[`PRIORITY_MAX`].
    pub priority: u8,
    /// When it is due.
    pub run_at: Timestamp,
    /// Latest moment at which its first attempt may start.
    pub start_by: Option<Timestamp>,
    /// Its end over all attempts.
    pub deadline: Option<Timestamp>,
    /// Longest time of one attempt, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Attempts that it may spend.
    pub max_attempts: u32,
    /// At most one live job of the tenant may hold it.
    pub unique_key: Option<String>,
    /// Of the tenant's jobs of the queue that have it, only so many run at once
    /// ([`QueueSettings::key_concurrency`](crate::journal::QueueSettings::key_concurrency)); the others wait.
    pub concurrency_key: Option<Name>,
    /// Label for cost reports.
    pub operation: Option<String>,
    /// Group of jobs that is counted together.
    pub batch_id: Option<String>,
    /// Labels for people.
    pub tags: Vec<String>,
    /// The caller's request id.
    pub request_id: Option<String>,
    /// The caller's W3C trace context.
    pub traceparent: Option<String>,
    /// The request's key and fingerprint; a repeated request gets the first answer.
    pub idempotency: Option<Idempotency>,
    /// JSON text as it was sent.
    pub payload: Prompt,
    /// Models that its chat calls may go to when the first does not answer.
    pub fallback: Vec<Link>,
    /// Who submitted it: the public part of an API key, or `sub:…` for the bearer of an issuer's token. Whose budget it falls under,
    /// besides its tenant's, and who sees it, if that is all that it may see.
    pub key_id: Option<Name>,
    /// What all its calls together may cost at most.
    pub max_cost: Option<Nanousd>,
    /// The URL that is told of its end, checked and normalised (see [`Allowed::check`](crate::egress::Allowed::check)).
    pub webhook: Option<String>,
    /// How long its result is kept after its end, in milliseconds; as long as the job unless set.
    pub result_ttl_ms: Option<u64>,
    /// When the submitter's side received it.
    pub accepted_at: Timestamp,
}

impl NewJob {
    /// A job of the queue `default`, due at once, with nothing that nobody asked for.
    pub fn new(tenant: Name, kind: Kind, target: Name, payload: Bytes, now: Timestamp) -> Self {
        Self {
            id: JobId::generate(),
            tenant,
            queue: Name::from("default"),
            kind,
            target,
            priority: PRIORITY_DEFAULT,
            run_at: now,
            start_by: None,
            deadline: None,
            timeout_ms: None,
            max_attempts: MAX_ATTEMPTS_DEFAULT,
            unique_key: None,
            concurrency_key: None,
            operation: None,
            batch_id: None,
            tags: Vec::new(),
            request_id: None,
            traceparent: None,
            idempotency: None,
            payload: payload.into(),
            fallback: Vec::new(),
            key_id: None,
            max_cost: None,
            webhook: None,
            result_ttl_ms: None,
            accepted_at: now,
        }
    }
}

/// A request that may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Whose key it is: the caller's tenant, whichever tenants the jobs of the request belong to.
    pub owner: Name,
    /// The caller's key.
    pub key: String,
    /// Hash of the whole request's body: the same key with another body is refused, for every item of it.
    pub fingerprint: [u8; 32],
    /// Which item of the request this job is (0 for a single submit).
    pub item: u32,
}

/// A job as the journal holds it, without payload and result.
#[derive(Clone, Debug)]
pub struct Job {
    /// See [`NewJob::id`]; likewise for the fields of the same name below.
    pub id: JobId,
    /// Whose job it is.
    pub tenant: Name,
    /// Where it waits.
    pub queue: Name,
    /// What it is.
    pub kind: Kind,
    /// What it loads.
    pub target: Name,
    /// 0..=[`PRIORITY_MAX`].
    pub priority: u8,
    /// Live or how it ended.
    pub standing: Standing,
    /// Times it was handed on.
    pub epoch: Epoch,
    /// Attempts spent so far.
    pub attempts: u32,
    /// Attempts that it may spend.
    pub max_attempts: u32,
    /// Workers lost with it since it last settled anything.
    pub recoveries: u32,
    /// Times it was given back without spending an attempt.
    pub releases: u32,
    /// When it is or was due.
    pub run_at: Timestamp,
    /// Latest first start.
    pub start_by: Option<Timestamp>,
    /// Its end over all attempts.
    pub deadline: Option<Timestamp>,
    /// Longest time of one attempt, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// When the journal committed it.
    pub accepted_at: Timestamp,
    /// When it ended; exactly the final jobs have one.
    pub finished_at: Option<Timestamp>,
    /// See [`NewJob::unique_key`].
    pub unique_key: Option<String>,
    /// See [`NewJob::concurrency_key`].
    pub concurrency_key: Option<Name>,
    /// Label for cost reports.
    pub operation: Option<String>,
    /// Group of jobs that is counted together.
    pub batch_id: Option<String>,
    /// Labels for people.
    pub tags: Vec<String>,
    /// The caller's request id.
    pub request_id: Option<String>,
    /// The caller's W3C trace context.
    pub traceparent: Option<String>,
    /// The last error, kept also when a later attempt succeeded.
    pub error: Option<JobError>,
    /// Tokens over all recorded calls.
    pub usage: Usage,
    /// Money over all recorded calls; `None` while any call's price is unknown.
    pub cost: Option<Nanousd>,
    /// `provider/model` of the last answer.
    pub served_by: Option<String>,
    /// Why it was cancelled, if someone said so.
    pub cancel_reason: Option<String>,
    /// See [`NewJob::key_id`].
    pub key_id: Option<Name>,
    /// See [`NewJob::max_cost`].
    pub max_cost: Option<Nanousd>,
    /// The dead letter that this life was redriven from has this many earlier lives.
    pub redrives: u32,
}

/// A claimed job as its worker loads it: live at the claimed epoch, with its payload.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The row.
    pub job: Job,
    /// JSON text as it was submitted.
    pub payload: Prompt,
    /// See [`NewJob::fallback`].
    pub fallback: Vec<Link>,
}

/// One attempt as it is stored: written by the settle (or recovery) that ended it.
#[derive(Clone, Debug, Serialize)]
pub struct AttemptRecord {
    /// The epoch it ran at.
    pub epoch: Epoch,
    /// Its number, counted from 1; an attempt that was given back keeps the number it would have had.
    pub number: u32,
    /// How it ended: `succeed`, `retry`, `dead`, `release`, `cancel` or `lost`.
    pub outcome: String,
    /// The worker's session.
    pub worker: String,
    /// When its handler began; `None` for an attempt that was lost before we heard of it.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Why it failed.
    pub error: Option<JobError>,
}
