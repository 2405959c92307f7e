//! The shape of a submitted job: every field's type, range and default.

use std::time::Duration;

use bytes::Bytes;
use queue_core::{
    egress::Allowed,
    ids::{JobId, Name},
    job::{self, Idempotency, Kind, NewJob},
    payload::{
        self, FieldError, Loads, Surroundings,
        quote::Quote,
        rules::{self, Ruled},
    },
    schedule::JOBS_PREFIX,
    time::Timestamp,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    Api,
    fields::{Fields, Raw, check_label},
    json,
    policy::{Policy, Spending},
    problem::{Cause, Problem},
};

/// A job as it is submitted. Fields that are not listed are refused.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewJob)]
#[allow(dead_code)] // the schema of what `read` takes apart by hand; a test compares the two
pub(crate) struct JobRequest {
    /// Where it waits: 1 to 64 of `a-z A-Z 0-9 _ - . :`.
    #[schema(default = "default", max_length = 64)]
    queue: Option<String>,
    /// `llm`, `embedding`, `analysis`, `http`, `custom` or `probe`.
    #[schema(example = "llm")]
    kind: String,
    /// What the handler of the kind reads. Of an `analysis`: `input` is `{text}` or `{items: [text or {id?, text}]}`;
    /// with `chunk: {pack: {max_tokens?, max_items?}}` items share calls, and the result's `items` has for each its
    /// `index`, `id`, `output` or `error`, and `cost_usd`.
    #[schema(value_type = Object)]
    payload: serde_json::Value,
    /// 9 is the most urgent.
    #[schema(default = 5, minimum = 0, maximum = 9)]
    priority: Option<u8>,
    /// When it is due, at most 366 days ahead. A moment of the last 24 hours means at once.
    #[schema(value_type = Option<String>, format = DateTime)]
    run_at: Option<String>,
    /// Latest start of its first attempt.
    #[schema(value_type = Option<String>, format = DateTime)]
    start_by: Option<String>,
    /// Its end over all attempts.
    #[schema(value_type = Option<String>, format = DateTime)]
    deadline: Option<String>,
    /// Attempts that it may spend.
    #[schema(default = 3, minimum = 1, maximum = 100)]
    max_attempts: Option<u32>,
    /// Longest time of one attempt, from `1s` to `24h`.
    #[schema(example = "5m")]
    timeout: Option<String>,
    /// At most one live job of the tenant may hold it.
    #[schema(max_length = 256)]
    unique_key: Option<String>,
    /// Of the jobs of its queue and tenant with this key, only as many run at once as the queue's `key_concurrency` says
    /// (one, unless set); the others wait, and hold nobody else up.
    #[schema(max_length = 128)]
    concurrency_key: Option<String>,
    /// Models that its chat calls may go to when the one of the payload does not answer, in order: at most 4.
    fallback: Option<Vec<FallbackLink>>,
    /// Label for cost reports: 1 to 64 of `a-z A-Z 0-9 _ - . :`.
    #[schema(max_length = 64)]
    operation: Option<String>,
    /// Group of jobs that is counted together.
    #[schema(max_length = 128)]
    batch_id: Option<String>,
    /// That the answer of an `llm` job, or what an `analysis` asks about each of its chunks, may be one that was paid for before,
    /// to the very same request, and how long a new one is kept for others: `{"ttl": "1h", "scope": "tenant"}`. The payload
    /// shows it.
    #[schema(value_type = Option<Object>)]
    cache: Option<serde_json::Value>,
    /// Labels for people: at most 32 of at most 64 bytes.
    #[schema(max_items = 32)]
    tags: Option<Vec<String>>,
    /// Whose job it is; the key's tenant when absent.
    #[schema(max_length = 64)]
    tenant: Option<String>,
    /// Who is told of its end, in a signed message: `{"url": "https://…"}`.
    webhook: Option<JobWebhook>,
    /// What all its calls together may cost at most, in US dollars. Before each call, what it may cost at most must still
    /// fit; a job that cannot go on is a dead letter, unless its fallback chain names a model for `budget`.
    #[schema(example = "0.05")]
    max_cost_usd: Option<String>,
    /// How long its result is kept after its end, from `1s` to `3650d`; as long as the job when absent, and never longer.
    #[schema(example = "7d")]
    result_ttl: Option<String>,
}

/// Who is told of a job's end.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // as above
pub(crate) struct JobWebhook {
    /// Where the message goes: https, and to the public internet, unless the configuration allows more.
    #[schema(example = "https://hooks.example.com/longshore", max_length = 2048)]
    url: String,
}

/// A further model, and the failures before it after which it is asked.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // as above
pub(crate) struct FallbackLink {
    /// The model.
    #[schema(max_length = 128)]
    model: String,
    /// Classes of failures, such as `rate`, `server`, `quota` or `overflow`; those that pass by themselves when absent.
    #[schema(example = json!(["rate", "server"]))]
    on: Option<Vec<String>>,
}

/// The fields that are read, in the order in which [`read`] takes them.
const KNOWN: [&str; 20] = [
    "queue",
    "kind",
    "payload",
    "priority",
    "run_at",
    "start_by",
    "deadline",
    "max_attempts",
    "timeout",
    "unique_key",
    "operation",
    "batch_id",
    "tags",
    "tenant",
    "concurrency_key",
    "fallback",
    "cache",
    "max_cost_usd",
    "webhook",
    "result_ttl",
];

/// Longest unique key, in bytes: it stands in an index.
const UNIQUE_KEY_MAX_BYTES: usize = 256;
/// Longest batch id, in bytes: it stands in an index and in a path.
const BATCH_ID_MAX_BYTES: usize = 128;
/// Longest concurrency key, in bytes: the dispatcher holds it in memory.
const CONCURRENCY_KEY_MAX_BYTES: usize = 128;
/// Most tags of a job: they are read with every listing.
const TAGS_MAX: usize = 32;
/// Longest tag, in bytes.
const TAG_MAX_BYTES: usize = 64;
/// Shortest time for which a result is kept: long enough for whoever waits for it.
const RESULT_TTL_LEAST: Duration = Duration::from_secs(1);
/// How long ago a job may have been due: retried submits and clocks that differ, not plans for the past.
const RUN_AT_PAST_MAX_MS: i64 = 24 * 60 * 60 * 1_000;

/// What reading a job needs to know of its request.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The key's tenant.
    pub(crate) tenant: Name,
    /// Whether jobs of other tenants are refused.
    pub(crate) bound: bool,
    /// The key's public part.
    pub(crate) key_id: Name,
    /// What tenants may ask for.
    pub(crate) policy: Policy,
    /// When the request arrived.
    pub(crate) now: Timestamp,
    /// Its id.
    pub(crate) request_id: String,
    /// Its trace context.
    pub(crate) traceparent: Option<String>,
    /// Its idempotency key and fingerprint; the item is each job's own.
    pub(crate) idempotency: Option<Idempotency>,
}

/// A job that passed its checks.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    /// The job.
    pub(crate) job: NewJob,
    /// The due time as it was sent: a repeated request is answered as the first one was.
    pub(crate) named_run_at: Option<Timestamp>,
}

/// Reads and checks one job. `text` is part of `body`, so that the payload is kept without a copy.
pub(crate) fn read(
    origin: &Origin,
    api: &Api,
    around: Surroundings<'_>,
    text: &str,
    body: &Bytes,
    item: u32,
) -> Result<Intake, Problem> {
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let values = json::take_apart(text, &KNOWN, &mut fields.errors)?;
    let [queue, kind, payload, priority, run_at, start_by, deadline, max_attempts, timeout, rest @ ..] = values;
    let [unique_key, operation, batch_id, tags, tenant, concurrency_key, rest @ ..] = rest;
    let [fallback, cache, max_cost, webhook, result_ttl] = rest;

    let queue = fields.parsed("queue", queue, check_queue);
    let kind = read_kind(&mut fields, kind);
    let tenant = fields.name("tenant", tenant).unwrap_or_else(|| origin.tenant.clone());
    if origin.bound && tenant != origin.tenant {
        let detail = format!("the caller belongs to the tenant {} and submits for no other", origin.tenant);
        return Err(Problem::new(Cause::Forbidden, detail).at("/tenant", "is not the caller's tenant; leave it out"));
    }
    origin.policy.check_tenant(&tenant)?;
    let ruled = ruled(&mut fields, &origin.policy, (&tenant, kind), payload, fallback, around)?;
    let chain = ruled.fallback.as_deref().or(fallback.map(RawValue::get));
    let text = ruled.payload.as_deref().or(payload.map(RawValue::get));
    let loads = read_payload(&mut fields, kind, text, chain, around, api.settings.max_job_bytes)?;
    let priority = fields.integer("priority", priority, 0..=u32::from(job::PRIORITY_MAX));
    let times = Times::read(&mut fields, origin.now, run_at, start_by, deadline);
    let max_attempts = fields.integer("max_attempts", max_attempts, 1..=job::MAX_ATTEMPTS_MAX);
    let timeout_ms = fields.timeout_ms("timeout", timeout);
    let unique_key = fields.label("unique_key", unique_key, UNIQUE_KEY_MAX_BYTES);
    let operation = fields.name("operation", operation).map(|name| name.to_string());
    let batch_id = fields.parsed("batch_id", batch_id, |text| check_own(text, BATCH_ID_MAX_BYTES));
    let tags = fields.labels("tags", tags, TAGS_MAX, TAG_MAX_BYTES);
    let concurrency_key =
        fields.parsed("concurrency_key", concurrency_key, |text| check_own(text, CONCURRENCY_KEY_MAX_BYTES));
    let with_cache = read_cache(&mut fields, kind, text, cache);
    let max_cost = fields.parsed("max_cost_usd", max_cost, str::parse);
    let webhook = read_webhook(&mut fields, webhook, &api.settings.outbound)?;
    let result_ttl_ms = fields.kept_ms("result_ttl", result_ttl, RESULT_TTL_LEAST);
    fields.finish()?;

    let (Some(kind), Some(payload), Some(loads)) = (kind, payload, loads) else {
        return Err(Problem::new(Cause::Internal, "a job passed its checks without kind, payload and target"));
    };
    let queue = queue.unwrap_or_else(|| Name::from("default"));
    origin.policy.check_queue(&queue)?;
    let Loads { target, fallback, max_cost: of_payload } = loads;
    let max_cost = [max_cost, of_payload].into_iter().flatten().min();
    let spending = Spending {
        max_cost,
        budgets: api.budgets.applies(&tenant, Some(&origin.key_id)),
        links: &fallback,
        refuse_unpriced: api.refuse_unpriced,
    };
    let text = text.unwrap_or_default();
    spending.check(|| Quote::of(kind, text, around.routes), around)?;
    let rewritten = with_cache.or(ruled.payload);
    let job = NewJob {
        id: JobId::generate(),
        tenant,
        queue,
        kind,
        target,
        priority: priority.map_or(job::PRIORITY_DEFAULT, |value| value as u8),
        // A moment that has passed must not buy a better place than now: waiting time raises priority.
        run_at: times.run_at.map_or(origin.now, |at| at.max(origin.now)),
        start_by: times.start_by,
        deadline: times.deadline,
        timeout_ms,
        max_attempts: max_attempts.unwrap_or(job::MAX_ATTEMPTS_DEFAULT),
        unique_key,
        concurrency_key: concurrency_key.map(Name::new),
        operation,
        batch_id,
        tags,
        request_id: Some(origin.request_id.clone()),
        traceparent: origin.traceparent.clone(),
        idempotency: origin.idempotency.clone().map(|request| Idempotency { item, ..request }),
        payload: rewritten.map_or_else(|| body.slice_ref(payload.get().as_bytes()), Bytes::from).into(),
        fallback,
        key_id: Some(origin.key_id.clone()),
        max_cost,
        webhook,
        result_ttl_ms,
        accepted_at: origin.now,
    };
    Ok(Intake { job, named_run_at: times.run_at })
}

/// The payload and the chain as the rules of their tenant make them.
pub(crate) fn ruled(
    fields: &mut Fields,
    policy: &Policy,
    (tenant, kind): (&Name, Option<Kind>),
    payload: Raw<'_>,
    fallback: Raw<'_>,
    around: Surroundings<'_>,
) -> Result<Ruled, Problem> {
    let unchanged = Ruled { payload: None, fallback: None };
    let (Some(rules), Some(kind), Some(payload)) = (policy.rules(tenant), kind, payload) else {
        return Ok(unchanged);
    };
    match rules::apply(kind, payload.get(), fallback.map(RawValue::get), rules, around.routes) {
        Ok(ruled) => Ok(ruled),
        Err(errors) => {
            for error in errors {
                json::push(&mut fields.errors, || error);
            }
            Ok(unchanged)
        }
    }
}

/// A queue's name: any name that no route below `/v1/queues` has taken.
pub(crate) fn check_queue(text: &str) -> Result<Name, String> {
    if text == "metrics" {
        return Err("`metrics` is the path of the queues' numbers and cannot name a queue".into());
    }
    Name::checked(text)
}

/// The name of a batch or a concurrency key. Those of schedules' jobs are given by the clock alone: who may submit must not keep a
/// schedule from running.
fn check_own(text: &str, max_bytes: usize) -> Result<String, String> {
    if text.starts_with(JOBS_PREFIX) {
        return Err(format!("begins with `{JOBS_PREFIX}`, as those of schedules' jobs do"));
    }
    check_label(text, max_bytes)
}

fn read_kind(fields: &mut Fields, raw: Raw<'_>) -> Option<Kind> {
    if raw.is_none() {
        fields.wrong("kind", "is required: llm, embedding, analysis, http, custom or probe");
    }
    fields.parsed("kind", raw, |text| {
        Kind::parse(text)
            .ok_or_else(|| format!("`{text}` is not a kind; llm, embedding, analysis, http, custom and probe are"))
    })
}

/// Checks the payload and the chain beside it, and says what they load.
pub(crate) fn read_payload(
    fields: &mut Fields,
    kind: Option<Kind>,
    text: Option<&str>,
    fallback: Option<&str>,
    around: Surroundings<'_>,
    max: usize,
) -> Result<Option<Loads>, Problem> {
    let Some(text) = text else {
        fields.wrong("payload", "is required");
        return Ok(None);
    };
    let bytes = text.len();
    if bytes > max {
        let reason = format!("is {bytes} bytes long; the limit is {max}");
        return Err(Problem::new(Cause::TooLarge, "the payload is too large").at("/payload", reason));
    }
    let Some(kind) = kind else { return Ok(None) };
    match payload::validate(kind, text, fallback, around) {
        Ok(loads) => Ok(Some(loads)),
        Err(errors) => {
            for error in errors {
                json::push(&mut fields.errors, || error);
            }
            Ok(None)
        }
    }
}

/// The payload with the wish for a kept answer in it, if there is one. A payload that is wrong has been refused already.
fn read_cache(fields: &mut Fields, kind: Option<Kind>, payload: Option<&str>, cache: Raw<'_>) -> Option<String> {
    let cache = cache?;
    match kind {
        Some(Kind::Llm | Kind::Analysis) => {}
        Some(Kind::Embedding) => {
            fields.wrong("cache", "is for llm and analysis jobs: vectors are always kept, as the configuration says");
            return None;
        }
        _ => {
            fields.wrong("cache", "is for llm and analysis jobs");
            return None;
        }
    }
    match payload::cache::put_into(payload?, cache.get()) {
        Ok(text) => Some(text),
        Err(errors) => {
            for error in errors {
                json::push(&mut fields.errors, || error);
            }
            None
        }
    }
}

/// The URL that is told of the job's end.
fn read_webhook(fields: &mut Fields, raw: Raw<'_>, allowed: &Allowed) -> Result<Option<String>, Problem> {
    let Some(raw) = raw else { return Ok(None) };
    if !raw.get().starts_with('{') {
        fields.wrong("webhook", "must be an object such as {\"url\": \"https://…\"}");
        return Ok(None);
    }
    let mut inner = Fields::default();
    let [url] = json::take_apart(raw.get(), &["url"], &mut inner.errors)?;
    if url.is_none() {
        inner.wrong("url", "is required");
    }
    let url = inner.parsed("url", url, |text| allowed.check(text));
    for error in inner.errors {
        json::push(&mut fields.errors, || FieldError::at(format!("/webhook{}", error.pointer), error.reason));
    }
    Ok(url)
}

struct Times {
    run_at: Option<Timestamp>,
    start_by: Option<Timestamp>,
    deadline: Option<Timestamp>,
}

impl Times {
    fn read(fields: &mut Fields, now: Timestamp, run_at: Raw<'_>, start_by: Raw<'_>, deadline: Raw<'_>) -> Self {
        let run_at = fields.moment("run_at", run_at, now, now.plus_ms(-RUN_AT_PAST_MAX_MS));
        let start_by = fields.moment("start_by", start_by, now, now);
        let deadline = fields.moment("deadline", deadline, now, now);
        let due = run_at.unwrap_or(now);
        for (name, at) in [("start_by", start_by), ("deadline", deadline)] {
            if at.is_some_and(|at| at < due) {
                fields.wrong(name, format!("is before `run_at` ({due}): the job could never start"));
            }
        }
        Self { run_at, start_by, deadline }
    }
}

#[cfg(test)]
mod tests {
    use utoipa::PartialSchema;

    use super::*;

    #[test]
    fn the_schema_names_what_is_read() {
        let schema = serde_json::to_value(JobRequest::schema()).unwrap();
        let mut documented: Vec<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        let mut read: Vec<_> = KNOWN.iter().map(|name| (*name).to_owned()).collect();
        documented.sort();
        read.sort();
        assert_eq!(documented, read);
    }
}
