//! The clients: an open loop over HTTP. A request without a good answer is sent again with the same key, to any API
//! process, until it has one.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use super::{
    history::{ClientEvent, Race, Wish, Work, Writer, wall_ms},
    rivals,
    scenario::{Rival, Shape},
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

/// Longest time after a job's work at which it is cancelled: about what it takes to be claimed and settled.
pub(super) const RACE_MS: u64 = 60;
/// What the marks of the herd's jobs begin with.
pub(super) const HERD: &str = "herd";
/// Jobs in each request of the backlog.
const BACKLOG_BULK: u64 = 500;
/// What each of them takes.
const BACKLOG_MS: u64 = 100;
/// Requests of the backlog at once.
const BACKLOG_ON_THE_WIRE: usize = 4;

/// One run of the load.
pub(crate) struct Load {
    /// Where the API processes listen.
    pub(crate) urls: Vec<String>,
    /// What is asked for.
    pub(crate) shape: Shape,
    /// For how long.
    pub(crate) time: Duration,
    /// What decides every job.
    pub(crate) seed: u64,
    /// Where everything is noted.
    pub(crate) history: Arc<Writer>,
}

impl Load {
    /// Fills the queue; returns when all of it is accepted. What comes later has its numbers behind it.
    pub(crate) async fn fill(self) -> Result<Self> {
        let (shared, mut clients) = (self.shared()?, JoinSet::new());
        let total = shared.load.shape.backlog;
        let due = shared.load.shape.backlog_due.map(|after| wall_ms() + after.as_millis() as i64);
        for from in (0..total).step_by(BACKLOG_BULK as usize) {
            let job = |more: u64| Wish {
                mark: format!("b{}", from + more),
                tenant: format!("tenant-{}", (from + more) % TENANTS),
                work: Work::Probe,
                ms: BACKLOG_MS,
                run_at_ms: due,
                race: None,
            };
            let jobs: Vec<Wish> = (0..BACKLOG_BULK.min(total - from)).map(job).collect();
            let request = from / BACKLOG_BULK;
            shared.load.history.note(ClientEvent::Due { request, jobs: jobs.clone() })?;
            clients.spawn(shared.clone().see_through(request, 0, Arc::new(jobs), request));
            while clients.len() >= BACKLOG_ON_THE_WIRE {
                clients.join_next().await.context("there are clients")???;
            }
        }
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        drop(clients);
        Ok(Arc::into_inner(shared).context("the clients have ended")?.load)
    }

    /// Submits everything; returns when the last request has its answer. Ends early only by being dropped.
    pub(crate) async fn run(self) -> Result<()> {
        let shared = self.shared()?;
        let load = &shared.load;
        let mut rng = StdRng::seed_from_u64(load.seed);
        let mut clients = JoinSet::new();
        let (began, total) = (Instant::now(), load.shape.rate * load.time.as_secs());
        let first = load.shape.backlog.div_ceil(BACKLOG_BULK);
        let herd = load.shape.herd;
        let (mut submitted, mut request, mut herd_at) = (0, 0, (herd > 0).then(|| began + load.time / 2));
        load.history.note(ClientEvent::LoadBegan)?;
        clients.spawn(rivals::contend(shared.clone(), began + load.time, load.seed));
        while submitted < total {
            let count = if request % BULK.0 == BULK.0 - 1 { BULK.1.min(total - submitted) } else { 1 };
            let due = began + Duration::from_secs_f64(submitted as f64 / load.shape.rate as f64);
            tokio::time::sleep_until(due).await;
            let job = |more| wish(submitted + more, &load.shape, total, &mut rng);
            let mut jobs: Vec<Wish> = (0..count).map(job).collect();
            if count == 1 && is_cancelled(&load.shape, &mut rng) {
                jobs = jobs.into_iter().map(|job| race(job, &mut rng)).collect();
            }
            load.history.note(ClientEvent::Due { request: first + request, jobs: jobs.clone() })?;
            let jobs = Arc::new(jobs);
            for copy in 0..load.shape.copies {
                clients.spawn(shared.clone().see_through(first + request, copy, jobs.clone(), rng.random()));
            }
            (submitted, request) = (submitted + count, request + 1);
            if herd_at.take_if(|at| *at <= Instant::now()).is_some() {
                // Behind all others, so that each request has a number of its own.
                for number in 0..herd {
                    let jobs = vec![Wish { mark: format!("{HERD}{number}"), ..wish(number, &load.shape, 0, &mut rng) }];
                    let request = first + total + number;
                    load.history.note(ClientEvent::Due { request, jobs: jobs.clone() })?;
                    clients.spawn(shared.clone().see_through(request, 0, Arc::new(jobs), rng.random()));
                }
            }
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

    fn shared(self) -> Result<Arc<Shared>> {
        let http = reqwest::Client::builder().timeout(ANSWER_MAX).build()?;
        // A herd does not queue at its own door.
        let on_the_wire = ON_THE_WIRE_MAX + usize::try_from(self.shape.herd)?;
        Ok(Arc::new(Shared { http, load: self, wire: Semaphore::new(on_the_wire) }))
    }
}

/// One job of the load.
fn wish(number: u64, shape: &Shape, total: u64, rng: &mut StdRng) -> Wish {
    let usual = match rng.random_range(0..100) {
        0..80 => Work::Llm,
        80..85 => Work::LlmFailsOnce,
        85..95 => Work::Probe,
        95..99 => Work::ProbeFailsOnce,
        _ => Work::ProbeDies,
    };
    let work = poison(number, shape, total).unwrap_or(usual);
    let ms =
        if rng.random_ratio(shape.long_percent, 100) { rng.random_range(500..8_000) } else { rng.random_range(5..50) };
    let later = work.calls_provider() && rng.random_ratio(3, 100);
    Wish {
        mark: format!("j{number}"),
        tenant: format!("tenant-{}", rng.random_range(0..TENANTS)),
        work,
        ms,
        run_at_ms: later.then(|| wall_ms() + rng.random_range(500..5_000)),
        race: None,
    }
}

/// Whether the next job is cancelled.
fn is_cancelled(shape: &Shape, rng: &mut StdRng) -> bool {
    let percent = shape.races.iter().find_map(|rival| match rival {
        Rival::Cancel(percent) => Some(*percent),
        _ => None,
    });
    percent.is_some_and(|percent| rng.random_ratio(percent, 100))
}

/// A job that ends when it is cancelled, or a little before or after.
fn race(wish: Wish, rng: &mut StdRng) -> Wish {
    let after_ms = rng.random_range(0..wish.ms + RACE_MS);
    Wish { work: Work::Probe, run_at_ms: None, race: Some(Race::Cancel { after_ms }), ..wish }
}

/// Killers and panics are spread evenly over the load, and never next to each other.
fn poison(number: u64, shape: &Shape, total: u64) -> Option<Work> {
    let every = total.checked_div(shape.killers).filter(|every| *every > 0)?;
    match number % every {
        place if place == every / 3 => nth(shape.poison, number / every),
        place if place == every * 2 / 3 => nth(PANICS, number / every),
        _ => None,
    }
}

const PANICS: &[Work] = &[Work::ProbePanicsOnce, Work::ProbePanicsInDropOnce];

/// One after the other, and from the beginning again.
fn nth(works: &[Work], number: u64) -> Option<Work> {
    works.get(usize::try_from(number).ok()? % works.len().max(1)).copied()
}

/// What a probe that holds its thread up may take, and what it blocks: longer than that, and shorter than it takes until its worker
/// ends itself.
const HELD_TIMEOUT: &str = "1s";
const BLOCKS_MS: u64 = 5_000;
/// Attempts of one that spins: each costs a worker.
const SPINS_MAX: u32 = 2;
/// More than a worker with a bound has.
const HOG_MB: u64 = 400;

/// What the API is sent for a job.
fn body(wish: &Wish) -> Result<Value> {
    let payload = match wish.work {
        Work::Llm | Work::LlmFailsOnce => json!({"messages": [{"role": "user", "content": witness::prompt(wish)}]}),
        Work::Probe => json!({"sleep_ms": wish.ms}),
        Work::ProbeFailsOnce => json!({"sleep_ms": wish.ms, "fail": "transient", "fail_times": 1}),
        Work::ProbeDies => json!({"sleep_ms": wish.ms, "fail": "permanent"}),
        Work::ProbePanicsOnce => json!({"sleep_ms": wish.ms, "fail": "panic", "fail_times": 1}),
        Work::ProbePanicsInDropOnce => json!({"sleep_ms": wish.ms, "fail": "panic_in_drop", "fail_times": 1}),
        Work::ProbeKills => json!({"sleep_ms": wish.ms, "fail": "abort"}),
        Work::ProbeOverflows => json!({"sleep_ms": wish.ms, "fail": "overflow"}),
        Work::ProbeExits => json!({"sleep_ms": wish.ms, "fail": "exit"}),
        Work::ProbeHogs => json!({"sleep_ms": wish.ms, "allocate_mb": HOG_MB}),
        Work::ProbeSpins => json!({"sleep_ms": wish.ms, "fail": "spin"}),
        Work::ProbeBlocks => json!({"sleep_ms": BLOCKS_MS, "fail": "block"}),
    };
    let kind = if wish.work.calls_provider() { "llm" } else { "probe" };
    let mut body = json!({"kind": kind, "payload": payload, "tenant": wish.tenant, "tags": [wish.mark]});
    if wish.work.holds_thread() {
        body["timeout"] = json!(HELD_TIMEOUT);
        body["max_attempts"] = json!(if wish.work == Work::ProbeSpins { SPINS_MAX } else { 1 });
    }
    if let Some(queue) = wish.race.as_ref().and_then(Race::queue) {
        body["queue"] = json!(queue);
    }
    if let Some(run_at) = wish.run_at_ms {
        body["run_at"] = json!(jiff::Timestamp::from_millisecond(run_at)?.to_string());
    }
    Ok(body)
}

/// What all clients have in common.
pub(super) struct Shared {
    http: reqwest::Client,
    pub(super) load: Load,
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
    async fn see_through(self: Arc<Self>, request: u64, copy: u64, jobs: Arc<Vec<Wish>>, seed: u64) -> Result<()> {
        let mut rng = StdRng::seed_from_u64(seed);
        match self.submit(request, copy, &jobs, &mut rng).await? {
            Some(ids) => self.race(request, &jobs, &ids, &mut rng).await,
            None => Ok(()),
        }
    }

    /// Likewise; the jobs' ids, if they are accepted.
    pub(super) async fn submit(
        &self,
        request: u64,
        copy: u64,
        jobs: &[Wish],
        rng: &mut StdRng,
    ) -> Result<Option<Vec<String>>> {
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
            history.note(ClientEvent::Sent { request, copy, api })?;
            let answer = self.ask(api, path, request, text.clone(), jobs.len()).await;
            drop(permit);
            match answer {
                Answer::Accepted(ids) => {
                    history.note(ClientEvent::Accepted { request, copy, ids: ids.clone() })?;
                    return Ok(Some(ids));
                }
                Answer::Refused(why) => {
                    history.note(ClientEvent::Refused { request, copy, why })?;
                    return Ok(None);
                }
                Answer::Again(why) => history.note(ClientEvent::ComeAgain { request, copy, why })?,
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(PAUSE_MS))).await;
        }
    }

    /// Cancels the job of a request, if that is its wish; where nobody answers, nobody knows who was first.
    async fn race(&self, request: u64, jobs: &[Wish], ids: &[String], rng: &mut StdRng) -> Result<()> {
        let ([Wish { race: Some(Race::Cancel { after_ms }), .. }], [id]) = (jobs, ids) else { return Ok(()) };
        tokio::time::sleep(Duration::from_millis(*after_ms)).await;
        let api = rng.random_range(0..self.load.urls.len());
        let url = format!("{}/v1/jobs/{id}/cancel", self.load.urls[api]);
        let Ok(answer) = self.http.post(url).bearer_auth(KEY).send().await else { return Ok(()) };
        let won = match answer.status().as_u16() {
            200 | 202 => true,
            409 => false,
            _ => return Ok(()),
        };
        self.load.history.note(ClientEvent::Cancelled { request, won })
    }

    /// Asks one of the API processes for anything; the status, and the answer as far as it is JSON.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let api = rand::random_range(0..self.load.urls.len());
        let mut request = self.http.request(method, format!("{}{path}", self.load.urls[api])).bearer_auth(KEY);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        Ok((status, serde_json::from_str(&answer.text().await?).unwrap_or_default()))
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
