//! Pick-up: how long after the call of a single submit its handler begins, on an idle queue.

use std::time::Duration;

use futures::future::try_join_all;
use hdrhistogram::Histogram;
use reqwest::Method;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior};

use super::{
    load::{Load, histogram, record},
    say,
};
use crate::{failure::Failure, output::cell};

/// Submits before the measured ones: connections are open and code is warm, as in a service that runs.
const WARM_UP: usize = 50;

/// What was measured.
pub(super) struct Latency {
    /// Jobs.
    pub(super) jobs: usize,
    /// From the call to the handler's start, in microseconds.
    pub(super) pick_up: Histogram<u64>,
    /// From the call to the answer, in microseconds.
    pub(super) answer: Histogram<u64>,
    /// Whether the handler's start is known to the microsecond; else to the millisecond.
    pub(super) exact: bool,
}

/// One submit.
struct Sent {
    id: String,
    /// Wall clock at the call, in microseconds since 1970: to be compared with the worker's.
    called_us: u64,
    answer: Duration,
}

/// Submits `singles` jobs one by one, `pause_ms` apart, whether or not the one before was answered.
pub(super) async fn run(load: &Load<'_>, singles: usize, pause_ms: u64) -> Result<Latency, Failure> {
    say(load.operator, &format!("submitting {singles} jobs one by one, {pause_ms} ms apart …"));
    let batch = load.batch("latency");
    paced(load, WARM_UP, pause_ms, &load.batch("warm-up")).await?;
    load.wait_until_idle().await?;
    load.steps.begin("latency", singles).await?;
    let sent = paced(load, singles, pause_ms, &batch).await?;
    load.wait_until_idle().await?;
    load.steps.end("latency", singles).await?;
    let mut latency = Latency { jobs: singles, pick_up: histogram()?, answer: histogram()?, exact: true };
    for one in sent {
        let (started_us, exact) = started(load, &one.id).await?;
        latency.exact &= exact;
        record(&mut latency.pick_up, Duration::from_micros(started_us.saturating_sub(one.called_us)));
        record(&mut latency.answer, one.answer);
    }
    Ok(latency)
}

async fn paced(load: &Load<'_>, count: usize, pause_ms: u64, batch: &str) -> Result<Vec<Sent>, Failure> {
    let mut ticks = tokio::time::interval(Duration::from_millis(pause_ms.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tasks = Vec::with_capacity(count);
    for number in 0..count {
        ticks.tick().await;
        let (client, job) = (load.operator.client.clone(), load.job(number, 0, batch));
        tasks.push(tokio::spawn(async move {
            let (called_us, called) = (wall_clock_us(), Instant::now());
            let accepted = client.send_json(Method::POST, &["v1", "jobs"], Some(&job)).await?.body;
            Ok::<_, Failure>(Sent { id: cell(&accepted, "id"), called_us, answer: called.elapsed() })
        }));
    }
    let joined = try_join_all(tasks).await.map_err(|error| Failure::error(error.to_string()))?;
    joined.into_iter().collect()
}

/// When the handler of a job began, in microseconds since 1970, and whether that is exact: the probe's own note, else
/// the attempt's time in whole milliseconds.
async fn started(load: &Load<'_>, id: &str) -> Result<(u64, bool), Failure> {
    let result = load.operator.client.get(&["v1", "jobs", id, "result"], &[]).await?;
    if let Some(started_us) = result.get("started_unix_us").and_then(Value::as_u64) {
        return Ok((started_us, true));
    }
    let started = load.started_at(id).await?;
    Ok((u64::try_from(started.0).unwrap_or(0) * 1_000, false))
}

/// The wall clock to the microsecond. `Clock` counts milliseconds, which is too coarse for what is measured here.
#[allow(clippy::disallowed_methods)]
fn wall_clock_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
