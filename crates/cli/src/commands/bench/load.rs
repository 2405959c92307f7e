//! Many jobs: pause the queue, submit them, let them run, and read from the jobs themselves when they ran.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use hdrhistogram::Histogram;
use queue_core::time::{Clock, SystemClock, Timestamp};
use reqwest::{Method, header};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

use super::{Args, say, steps::Steps};
use crate::{
    commands::Operator,
    failure::{Exit, Failure},
    output::{cell, items},
};

/// How often the queue's numbers are asked while it drains: seldom enough to cost the server nothing. The figures do
/// not depend on it, they come from the jobs.
const POLL: Duration = Duration::from_millis(100);

/// A drain without any progress for this long has failed.
const STUCK: Duration = Duration::from_secs(60);

/// The pause ends by itself after this, should this process die.
const PAUSE_MS: i64 = 30 * 60 * 1_000;

/// Jobs whose attempts are read to find the first start: those that ended first.
const FIRST_ENDED: usize = 20;

/// Most rows of a page of jobs.
const PAGE: usize = 500;

/// A queue to load.
pub(super) struct Load<'a> {
    pub(super) operator: &'a Operator,
    args: &'a Args,
    run_id: String,
    /// Who is told of each step.
    pub(super) steps: Steps,
}

/// What one load came to.
pub(super) struct Run {
    /// Jobs that were accepted.
    pub(super) jobs: usize,
    /// From the first request to the last answer.
    pub(super) submit: Duration,
    /// Times of the bulk requests, in microseconds.
    pub(super) requests: Histogram<u64>,
    /// When the first handler began, by the worker's clock.
    pub(super) first_start: Timestamp,
    /// When the last handler ended, by the worker's clock.
    pub(super) last_end: Timestamp,
    /// Jobs that did not succeed.
    pub(super) failed: usize,
}

/// What the requests of one load took.
struct Submitted {
    /// From the first request to the last answer.
    took: Duration,
    /// Of each request, in microseconds.
    requests: Histogram<u64>,
}

/// The answer to a bulk submit, as far as it is looked at.
#[derive(Deserialize)]
struct BulkAnswer {
    jobs: Vec<BulkItem>,
}

#[derive(Deserialize)]
struct BulkItem {
    id: Option<IgnoredAny>,
    error: Option<Value>,
}

impl<'a> Load<'a> {
    pub(super) fn new(operator: &'a Operator, args: &'a Args, run_id: String) -> Self {
        Self { operator, args, run_id, steps: Steps::new(args.steps) }
    }

    /// A probe job of tenant `number`, with a payload of the wanted size.
    pub(super) fn job(&self, number: usize, sleep_ms: u64, batch_id: &str) -> Value {
        let bare = json!({"sleep_ms": sleep_ms, "pad": ""}).to_string().len();
        let pad = "x".repeat(self.args.payload_bytes.saturating_sub(bare));
        json!({
            "queue": self.args.queue,
            "kind": "probe",
            "tenant": format!("bench-{}", number % self.args.tenants),
            "batch_id": batch_id,
            "payload": {"sleep_ms": sleep_ms, "pad": pad},
        })
    }

    /// The name of a batch of this run.
    pub(super) fn batch(&self, name: &str) -> String {
        format!("{}-{name}", self.run_id)
    }

    /// Refuses a queue in which anything waits or runs: its jobs would be measured, too.
    pub(super) async fn check_idle(&self) -> Result<(), Failure> {
        let numbers = self.numbers().await?;
        if numbers.live == 0 {
            return Ok(());
        }
        let message = format!("the queue `{}` holds {} jobs; use another with --queue", self.args.queue, numbers.live);
        Err(Failure { exit: Exit::Refused, message, problem: None })
    }

    /// Pauses the queue, submits `jobs`, resumes it, waits for the end and reads what the jobs say.
    pub(super) async fn pause_submit_drain(&self, name: &str, jobs: usize, sleep_ms: u64) -> Result<Run, Failure> {
        let batch = self.batch(name);
        self.pause().await?;
        say(self.operator, &format!("submitting {jobs} jobs into the paused queue `{}` …", self.args.queue));
        let (submit, drain) = if sleep_ms == 0 { ("submit", "drain") } else { ("submit of sleep", "sleep") };
        self.steps.begin(submit, jobs).await?;
        let submitted = self.submit(jobs, sleep_ms, &batch).await?;
        self.steps.end(submit, jobs).await?;
        self.drain(drain, &batch, jobs, submitted).await
    }

    /// The same with one job a request, as many in flight as `--single-concurrency` says.
    pub(super) async fn pause_submit_singles(&self, name: &str) -> Result<Run, Failure> {
        let (batch, jobs) = (self.batch(name), self.args.single_jobs);
        self.pause().await?;
        say(self.operator, &format!("submitting {jobs} jobs one a request …"));
        let body = Bytes::from(self.job(0, 0, &batch).to_string());
        self.steps.begin("single", jobs).await?;
        let submitted = self.send(jobs, self.args.single_concurrency, |_| self.submit_single(body.clone())).await?;
        self.steps.end("single", jobs).await?;
        self.drain("drain of single", &batch, jobs, submitted).await
    }

    /// Resumes the queue, waits for the end of a batch and reads what its jobs say.
    async fn drain(&self, step: &str, batch: &str, jobs: usize, submitted: Submitted) -> Result<Run, Failure> {
        say(self.operator, "running them …");
        self.steps.begin(step, jobs).await?;
        self.resume().await?;
        self.wait_until_idle().await?;
        self.steps.end(step, jobs).await?;
        say(self.operator, "reading their times …");
        let times = self.times(batch, jobs).await?;
        Ok(Run {
            jobs,
            submit: submitted.took,
            requests: submitted.requests,
            first_start: times.first_start,
            last_end: times.last_end,
            failed: times.failed,
        })
    }

    async fn pause(&self) -> Result<(), Failure> {
        let until = SystemClock.now().plus_ms(PAUSE_MS);
        self.set_queue(&json!({"paused": true, "until": until, "reason": "longshore bench"})).await
    }

    /// Lets the queue run.
    pub(super) async fn resume(&self) -> Result<(), Failure> {
        self.set_queue(&json!({"paused": false})).await
    }

    async fn set_queue(&self, settings: &Value) -> Result<(), Failure> {
        let path = ["v1", "queues", &self.args.queue];
        self.operator.client.send_json(Method::PATCH, &path, Some(settings)).await.map(|_| ())
    }

    async fn submit(&self, jobs: usize, sleep_ms: u64, batch: &str) -> Result<Submitted, Failure> {
        // All requests but the last are equal: their bytes are made once, before the clock runs.
        let bulk = self.args.bulk_jobs;
        let full = self.body(bulk.min(jobs), sleep_ms, batch)?;
        let rest = self.body(jobs % bulk, sleep_ms, batch)?;
        self.send(jobs.div_ceil(bulk), self.args.concurrency, |number| {
            let size = bulk.min(jobs - number * bulk);
            self.submit_one(if size == bulk.min(jobs) { full.clone() } else { rest.clone() }, size)
        })
        .await
    }

    /// Sends so many requests, so many at a time.
    async fn send<F>(&self, requests: usize, in_flight: usize, one: impl Fn(usize) -> F) -> Result<Submitted, Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let next = AtomicUsize::new(0);
        let mut times = histogram()?;
        let began = Instant::now();
        let sender = || async {
            let mut mine = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return Ok::<_, Failure>(mine);
                }
                let sent = Instant::now();
                one(number).await?;
                mine.push(sent.elapsed());
            }
        };
        let mut senders: FuturesUnordered<_> = (0..in_flight).map(|_| sender()).collect();
        while let Some(mine) = senders.next().await {
            mine?.into_iter().for_each(|time| record(&mut times, time));
        }
        Ok(Submitted { took: began.elapsed(), requests: times })
    }

    /// One job; it must have been accepted.
    async fn submit_single(&self, body: Bytes) -> Result<(), Failure> {
        let client = &self.operator.client;
        let request = client.request(Method::POST, &["v1", "jobs"], &[]);
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        let response = request.send().await.map_err(|error| client.unreachable(&error))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| client.unreachable(&error))?;
        if status.is_success() {
            return Ok(());
        }
        Err(Failure::from_problem(status.as_u16(), serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    fn body(&self, jobs: usize, sleep_ms: u64, batch: &str) -> Result<Bytes, Failure> {
        let jobs: Vec<Value> = (0..jobs).map(|number| self.job(number, sleep_ms, batch)).collect();
        let body = serde_json::to_vec(&jobs).map_err(|error| Failure::error(error.to_string()))?;
        Ok(body.into())
    }

    /// One bulk request; every job in it must have been accepted.
    async fn submit_one(&self, body: Bytes, size: usize) -> Result<(), Failure> {
        let client = &self.operator.client;
        let request = client.request(Method::POST, &["v1", "jobs", "bulk"], &[]);
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        let response = request.send().await.map_err(|error| client.unreachable(&error))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| client.unreachable(&error))?;
        if !status.is_success() {
            let problem = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            return Err(Failure::from_problem(status.as_u16(), problem));
        }
        let answer: BulkAnswer = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::error(format!("the answer to a bulk submit cannot be read: {error}")))?;
        if let Some(error) = answer.jobs.iter().find_map(|item| item.error.as_ref()) {
            return Err(Failure::error(format!("a job was not accepted: {error}")));
        }
        match answer.jobs.iter().filter(|item| item.id.is_some()).count() {
            accepted if accepted == size => Ok(()),
            accepted => Err(Failure::error(format!("{accepted} of {size} jobs were accepted"))),
        }
    }

    /// Waits until nothing of the queue waits or runs.
    pub(super) async fn wait_until_idle(&self) -> Result<(), Failure> {
        let mut last = (u64::MAX, Instant::now());
        loop {
            let live = self.numbers().await?.live;
            if live == 0 {
                return Ok(());
            }
            if live != last.0 {
                last = (live, Instant::now());
            } else if last.1.elapsed() > STUCK {
                return Err(Failure::error(format!(
                    "{live} jobs of `{}` do not move; is a worker there?",
                    self.args.queue
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn numbers(&self) -> Result<Numbers, Failure> {
        let body = self.operator.client.get(&["v1", "queues", "metrics"], &[]).await?;
        let queue = body.get("queues").and_then(|queues| queues.get(&self.args.queue));
        let number = |name: &str| queue.and_then(|queue| queue.get(name)).and_then(Value::as_u64).unwrap_or(0);
        Ok(Numbers { live: ["waiting", "active", "scheduled", "parked"].into_iter().map(number).sum() })
    }

    /// Reads all jobs of the batch: who ended when, and when the first of them began.
    async fn times(&self, batch: &str, jobs: usize) -> Result<Times, Failure> {
        let (mut ends, mut failed, mut cursor) = (Vec::with_capacity(jobs), 0, None);
        loop {
            let query = [("batch_id", Some(batch.to_owned())), ("limit", Some(PAGE.to_string())), ("cursor", cursor)];
            let page = self.operator.client.get(&["v1", "jobs"], &query).await?;
            for job in items(&page, "jobs") {
                failed += usize::from(cell(job, "state") != "succeeded");
                ends.push((moment(job, "finished_at")?, cell(job, "id")));
            }
            let next = cell(&page, "next_cursor");
            if next.is_empty() {
                break;
            }
            cursor = Some(next);
        }
        if ends.len() != jobs {
            return Err(Failure::error(format!("{jobs} jobs were accepted and {} are listed", ends.len())));
        }
        ends.sort_unstable();
        let Some((last_end, _)) = ends.last() else { return Err(Failure::error("no job was run")) };
        let mut first_start = None;
        for (_, id) in ends.iter().take(FIRST_ENDED) {
            let started = self.started_at(id).await?;
            first_start = Some(first_start.map_or(started, |first: Timestamp| first.min(started)));
        }
        Ok(Times { first_start: first_start.unwrap_or_default(), last_end: *last_end, failed })
    }

    /// When the handler of a job began its first attempt.
    pub(super) async fn started_at(&self, id: &str) -> Result<Timestamp, Failure> {
        let attempts = self.operator.client.get(&["v1", "jobs", id, "attempts"], &[]).await?;
        let first =
            items(&attempts, "attempts").first().ok_or_else(|| Failure::error(format!("{id} has no attempt")))?;
        moment(first, "started_at")
    }
}

/// What a queue holds.
struct Numbers {
    /// Jobs that wait or run.
    live: u64,
}

/// What the jobs of a batch say.
struct Times {
    first_start: Timestamp,
    last_end: Timestamp,
    failed: usize,
}

/// A member that is a moment.
fn moment(value: &Value, name: &str) -> Result<Timestamp, Failure> {
    cell(value, name).parse().map_err(|error| Failure::error(format!("{name} of {}: {error}", cell(value, "id"))))
}

/// For times from 1 µs to 10 minutes, to three digits.
pub(super) fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, 600_000_000, 3).map_err(|error| Failure::error(error.to_string()))
}

/// Adds a time; one beyond the bounds counts as the bound.
pub(super) fn record(times: &mut Histogram<u64>, time: Duration) {
    times.saturating_record(time.as_micros().clamp(1, u128::from(u32::MAX)) as u64);
}
