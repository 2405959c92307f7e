//! The clients: an open loop over HTTP. A request without a good answer is sent again with the same key, to any API
//! process, until it has one.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use super::{
    history::{ClientEvent, Wish, Work, Writer, wall_ms},
    witness,
};
use crate::cluster::KEY;

/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Shortest and longest pause before a request is sent again.
const PAUSE_MS: std::ops::Range<u64> = 100..600;
/// Requests on the wire at once. More may be due; they wait here, as they would in the clients of a busy site.
const ON_THE_WIRE_MAX: usize = 512;
/// Every so many requests is a bulk request, with this many jobs.
const BULK: (u64, u64) = (100, 20);
/// Tenants.
const TENANTS: u64 = 5;

/// One run of the load.
pub(crate) struct Load {
    /// Where the API processes listen.
    pub(crate) urls: Vec<String>,
    /// Jobs a second.
    pub(crate) rate: u64,
    /// Jobs in a hundred that take seconds.
    pub(crate) long_percent: u32,
    /// For how long.
    pub(crate) time: Duration,
    /// What decides every job.
    pub(crate) seed: u64,
    /// Where everything is noted.
    pub(crate) history: Arc<Writer>,
}

impl Load {
    /// Submits everything; returns when the last request has its answer. Ends early only by being dropped.
    pub(crate) async fn run(self) -> Result<()> {
        let http = reqwest::Client::builder().timeout(ANSWER_MAX).build()?;
        let shared = Arc::new(Shared { http, load: self, wire: Semaphore::new(ON_THE_WIRE_MAX) });
        let load = &shared.load;
        let mut rng = StdRng::seed_from_u64(load.seed);
        let mut clients = JoinSet::new();
        let (began, total) = (Instant::now(), load.rate * load.time.as_secs());
        let (mut submitted, mut request) = (0, 0);
        load.history.note(ClientEvent::LoadBegan)?;
        while submitted < total {
            let count = if request % BULK.0 == BULK.0 - 1 { BULK.1.min(total - submitted) } else { 1 };
            let due = began + Duration::from_secs_f64(submitted as f64 / load.rate as f64);
            tokio::time::sleep_until(due).await;
            let jobs: Vec<Wish> = (0..count).map(|more| wish(submitted + more, load.long_percent, &mut rng)).collect();
            load.history.note(ClientEvent::Due { request, jobs: jobs.clone() })?;
            clients.spawn(shared.clone().see_through(request, jobs, rng.random()));
            (submitted, request) = (submitted + count, request + 1);
            while let Some(ended) = clients.try_join_next() {
                ended??;
            }
        }
        load.history.note(ClientEvent::LoadEnded)?;
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// One job of the load.
fn wish(number: u64, long_percent: u32, rng: &mut StdRng) -> Wish {
    let work = match rng.random_range(0..100) {
        0..80 => Work::Llm,
        80..85 => Work::LlmFailsOnce,
        85..95 => Work::Probe,
        95..99 => Work::ProbeFailsOnce,
        _ => Work::ProbeDies,
    };
    let ms = if rng.random_ratio(long_percent, 100) { rng.random_range(500..8_000) } else { rng.random_range(5..50) };
    let later = work.calls_provider() && rng.random_ratio(3, 100);
    Wish {
        mark: format!("j{number}"),
        tenant: format!("tenant-{}", rng.random_range(0..TENANTS)),
        work,
        ms,
        run_at_ms: later.then(|| wall_ms() + rng.random_range(500..5_000)),
    }
}

/// What the API is sent for a job.
fn body(wish: &Wish) -> Result<Value> {
    let payload = match wish.work {
        Work::Llm | Work::LlmFailsOnce => json!({"messages": [{"role": "user", "content": witness::prompt(wish)}]}),
        Work::Probe => json!({"sleep_ms": wish.ms}),
        Work::ProbeFailsOnce => json!({"sleep_ms": wish.ms, "fail": "transient", "fail_times": 1}),
        Work::ProbeDies => json!({"sleep_ms": wish.ms, "fail": "permanent"}),
    };
    let kind = if wish.work.calls_provider() { "llm" } else { "probe" };
    let mut body = json!({"kind": kind, "payload": payload, "tenant": wish.tenant, "tags": [wish.mark]});
    if let Some(run_at) = wish.run_at_ms {
        body["run_at"] = json!(jiff::Timestamp::from_millisecond(run_at)?.to_string());
    }
    Ok(body)
}

struct Shared {
    http: reqwest::Client,
    load: Load,
    wire: Semaphore,
}

/// What came back.
enum Answer {
    Accepted(Vec<String>),
    Again(String),
    Refused(String),
}

impl Shared {
    /// Sends one request until it is answered.
    async fn see_through(self: Arc<Self>, request: u64, jobs: Vec<Wish>, seed: u64) -> Result<()> {
        let mut rng = StdRng::seed_from_u64(seed);
        let bodies: Vec<Value> = jobs.iter().map(body).collect::<Result<_>>()?;
        // The very same bytes each time: the key belongs to them.
        let (path, text) = match &bodies[..] {
            [one] => ("/v1/jobs", one.to_string()),
            many => ("/v1/jobs/bulk", Value::from(many).to_string()),
        };
        let history = &self.load.history;
        loop {
            let permit = self.wire.acquire().await?;
            let api = rng.random_range(0..self.load.urls.len());
            history.note(ClientEvent::Sent { request, api })?;
            let answer = self.ask(api, path, request, text.clone(), jobs.len()).await;
            drop(permit);
            match answer {
                Answer::Accepted(ids) => return history.note(ClientEvent::Accepted { request, ids }),
                Answer::Refused(why) => return history.note(ClientEvent::Refused { request, why }),
                Answer::Again(why) => history.note(ClientEvent::ComeAgain { request, why })?,
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(PAUSE_MS))).await;
        }
    }

    async fn ask(&self, api: usize, path: &str, request: u64, text: String, jobs: usize) -> Answer {
        let url = format!("{}{path}", self.load.urls[api]);
        let post = self.http.post(url).bearer_auth(KEY).header("idempotency-key", format!("request-{request}"));
        let sent = async {
            let answer = post.header("content-type", "application/json").body(text).send().await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.text().await?))
        };
        let (status, text) = match sent.await {
            Ok(answered) => answered,
            Err(error) => return Answer::Again(short(&error)),
        };
        match status.as_u16() {
            200 | 202 => {
                ids(&text, jobs).unwrap_or_else(|error| Answer::Refused(format!("{status} {error:#}: {text}")))
            }
            // Busy, unavailable, or the first request with this key is still under way.
            409 | 429 | 500..=599 => Answer::Again(format!("{status} {}", text.chars().take(300).collect::<String>())),
            _ => Answer::Refused(format!("{status} {text}")),
        }
    }
}

/// The innermost cause: what the connection said.
fn short(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// The ids of an answer of 202, or of a bulk answer in which every job was accepted.
fn ids(text: &str, jobs: usize) -> Result<Answer> {
    let answer: Value = serde_json::from_str(text)?;
    let items = match answer.get("jobs").and_then(Value::as_array) {
        Some(items) => items.clone(),
        None => vec![answer],
    };
    let id = |item: &Value| item.get("id").and_then(Value::as_str).map(str::to_owned);
    let ids: Option<Vec<String>> = items.iter().map(id).collect();
    let ids = ids.filter(|ids| ids.len() == jobs).context("not every job has an id")?;
    Ok(Answer::Accepted(ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_gives_an_id_for_each_job_or_is_refused() {
        let accepted = |text, jobs| matches!(ids(text, jobs), Ok(Answer::Accepted(_)));
        assert!(accepted(r#"{"id":"a"}"#, 1));
        assert!(accepted(r#"{"jobs":[{"id":"a"},{"id":"b"}]}"#, 2));
        assert!(!accepted(r#"{"jobs":[{"id":"a"},{"error":{}}]}"#, 2));
        assert!(!accepted(r#"{"jobs":[{"id":"a"}]}"#, 2));
        assert!(!accepted("nonsense", 1));
    }
}
