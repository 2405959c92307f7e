//! `http`: delivers the job to a service's URL, signed, and keeps its answer as the result. Costs nothing.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use queue_core::{
    egress::{Answer, HeaderMap, HeaderName, HeaderValue, Outgoing, SendError},
    error::{ErrorClass, JobError},
    ids::CallId,
    payload::http::{Http as Payload, TIMEOUT_MAX, target_of},
    traces,
    webhooks::{Owner, for_jobs, open_all, request_headers},
};
use serde_json::{Value, json};

use crate::context::{Handler, JobContext};

/// Largest answer that becomes a result: as large as the largest usual payload.
const ANSWER_MAX_BYTES: usize = 1024 * 1024;
/// How much of a refusal's words stands in the error.
const WORDS_MAX_CHARS: usize = 200;
/// How long a job waits for a secret that cannot be read here.
const SECRET_WAIT_MS: u64 = 30_000;

pub(super) struct Http;

#[async_trait]
impl Handler for Http {
    async fn run(&self, cx: &JobContext) -> Result<Bytes, JobError> {
        let payload = Payload::read(super::text_of(cx.payload())?).map_err(super::unreadable)?;
        let outbound = cx.around().egress.allowed();
        let url = outbound.check(&payload.url).map_err(|reason| refused(format!("its URL {reason}")))?;
        let target = target_of(&url);
        let (body, media) = payload.body();
        let headers = headers(cx, &payload, media, &body).await?;
        let request = Outgoing {
            url,
            method: payload.method.clone(),
            headers,
            body: body.into(),
            timeout: payload.timeout.unwrap_or(TIMEOUT_MAX),
            answer_max_bytes: ANSWER_MAX_BYTES,
        };
        let answer = cx.call_service(&target, request, judge).await?;
        super::encoded(&result(&answer))
    }
}

/// The job's own headers, and those that say who sends it and what. The message's id is the same in every attempt of one life of
/// the job that sends the same, so that a service can tell that it has seen it.
async fn headers(
    cx: &JobContext,
    payload: &Payload,
    media: Option<&'static str>,
    body: &[u8],
) -> Result<HeaderMap, JobError> {
    let job = cx.job();
    let sends = blake3::hash(cx.payload()).to_hex();
    let id = format!("msg_{}", CallId::of(job.id, &format!("http {sends}"), job.redrives).0.simple());
    let (webhooks, now) = (&cx.around().stores.webhooks, cx.now());
    let owner = Owner::Tenant(job.tenant.clone());
    let unsigned = |reason: String| {
        let message = format!("it cannot be signed: {reason}");
        JobError::new(ErrorClass::Credential, "signing_secret", message).with_retry_after(Some(SECRET_WAIT_MS))
    };
    let sealed = webhooks.secrets(&owner, now).await.map_err(|error| unsigned(error.to_string()))?;
    let keys = cx.around().credentials.master_keys();
    let secrets = open_all(&keys, &owner, &sealed).map_err(|reason| unsigned(reason.to_string()))?;
    if secrets.is_empty() {
        return Err(unsigned(format!("the tenant {} has no signing secret", job.tenant)));
    }
    let secrets: Vec<_> = secrets.iter().filter_map(for_jobs).collect();
    let mut headers = request_headers(&secrets, &id, now, body).ok_or_else(|| unsigned("no header".to_owned()))?;
    headers.remove("content-type");
    if let Some(media) = media {
        headers.insert("content-type", HeaderValue::from_static(media));
    }
    for (name, value) in &payload.headers {
        headers.insert(name.clone(), value.clone());
    }
    let ours = [("longshore-job-id", job.id.to_string()), ("longshore-attempt", cx.attempt().to_string())];
    for (name, value) in ours {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    let trace = traces::traceparent_here().or_else(|| job.traceparent.clone());
    if let Some(trace) = trace.and_then(|trace| HeaderValue::from_str(&trace).ok()) {
        headers.entry("traceparent").or_insert(trace);
    }
    Ok(headers)
}

/// What follows from how it went: 2xx is a result; 408, 429, 5xx and broken lines pass by themselves; the rest is final.
fn judge(sent: Result<Answer, SendError>, now: queue_core::time::Timestamp) -> Result<Answer, JobError> {
    let answer = match sent {
        Ok(answer) => answer,
        Err(SendError::Refused(reason)) => return Err(refused(reason)),
        Err(SendError::Timeout(after)) => {
            return Err(JobError::new(
                ErrorClass::Timeout,
                "timeout",
                format!("no answer within {} s", seconds(after)),
            ));
        }
        Err(SendError::Transport { before_sent, reason }) => {
            let class = if before_sent { ErrorClass::TransportPre } else { ErrorClass::TransportMid };
            return Err(JobError::new(class, "transport", reason));
        }
    };
    let class = match answer.status {
        200..=299 if answer.is_whole => return Ok(answer),
        200..=299 => {
            let message = format!("its answer is larger than {ANSWER_MAX_BYTES} bytes");
            return Err(JobError::new(ErrorClass::Permanent, "answer_too_large", message));
        }
        429 => ErrorClass::Rate,
        408 | 500..=599 => ErrorClass::Server,
        _ => ErrorClass::Permanent,
    };
    let message = format!("the service answered {}{}", answer.status, words(&answer));
    let wait_ms = answer.retry_after_ms(now).and_then(|ms| u64::try_from(ms).ok());
    Err(JobError::new(class, answer.status.to_string(), message).with_retry_after(wait_ms))
}

fn refused(reason: String) -> JobError {
    JobError::new(ErrorClass::Permanent, "url_refused", reason)
}

fn seconds(after: Duration) -> f64 {
    after.as_secs_f64()
}

/// The service's own words, if they are words.
fn words(answer: &Answer) -> String {
    match std::str::from_utf8(&answer.body) {
        Ok(text) if !text.trim().is_empty() => {
            let cut: String = text.trim().chars().filter(|c| !c.is_control()).take(WORDS_MAX_CHARS).collect();
            format!(": {cut}")
        }
        _ => String::new(),
    }
}

fn result(answer: &Answer) -> Value {
    let media = answer.headers.get("content-type").and_then(|value| value.to_str().ok());
    let is_json = media.is_some_and(|media| media.contains("json"));
    let parsed = || serde_json::from_slice::<Value>(&answer.body).ok().filter(|_| is_json);
    let body = parsed().unwrap_or_else(|| Value::String(String::from_utf8_lossy(&answer.body).into_owned()));
    json!({"status": answer.status, "content_type": media, "body": body})
}
