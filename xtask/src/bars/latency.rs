//! How long a submit takes while everything runs on this machine, by the API's own histogram.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{informs, judged, steady::Steady};
use crate::{
    bar::{Bar, Judged},
    cluster::{Cluster, Role},
};

/// Jobs a second, and for how long.
const RATE: u64 = 300;
const LONG: Duration = Duration::from_secs(60);
/// Before it counts: connections are made, plans are cached.
const WARM_UP: Duration = Duration::from_secs(5);
/// The runbooks' bars, in milliseconds.
const P95_MAX_MS: f64 = 200.0;
const P99_MAX_MS: f64 = 500.0;
/// The series that is read.
const SERIES: &str = "longshore_http_request_duration_seconds_bucket{method=\"POST\",route=\"/v1/jobs\",le=\"";

/// Two APIs, two workers, two schedulers, Postgres and Redis, and the load itself.
pub(super) async fn measure(longshore: &Path) -> Result<Vec<Judged>> {
    let mut cluster = Cluster::start(longshore, &[("LONGSHORE_WORKER_SLOTS", "500")]).await?;
    for role in [Role::Scheduler, Role::Api, Role::Worker] {
        for _ in 0..2 {
            cluster.spawn(role).await?;
        }
    }
    for number in 0..cluster.members.len() {
        cluster.ready(number).await?;
    }
    eprintln!("{RATE} jobs/s for {} s …", LONG.as_secs());
    let load = Steady::start(cluster.apis(), RATE, |_| json!({"kind": "probe", "payload": {"sleep_ms": 20}}));
    tokio::time::sleep(WARM_UP).await;
    let before = histogram(&cluster).await?;
    tokio::time::sleep(LONG).await;
    let after = histogram(&cluster).await?;
    let sent = load.stop().await?;
    cluster.stop().await?;
    let counts: Vec<(f64, f64)> =
        after.iter().map(|(bound, count)| (bound.0, count - before.get(bound).copied().unwrap_or(0.0))).collect();
    let counted = counts.last().map_or(0.0, |(_, count)| *count);
    ensure!(counted > 0.0, "the histogram has not counted");
    let ms = |share: f64| quantile(&counts, share).map(|seconds| seconds * 1_000.0).context("a quantile");
    let what = |what: &str| format!("POST /v1/jobs at {RATE}/s, all processes on this machine: {what}");
    Ok(vec![
        judged(what("p95"), ms(0.95)?, "ms", Bar::AtMost(P95_MAX_MS)),
        judged(what("p99"), ms(0.99)?, "ms", Bar::AtMost(P99_MAX_MS)),
        informs(what("p50"), ms(0.5)?, "ms"),
        informs(what("counted"), counted, "requests"),
        informs(what("failed"), sent.failed as f64, "requests"),
        informs(what("rate"), sent.rate, "jobs/s"),
    ])
}

/// An upper bound, in its order.
#[derive(Clone, Copy, Debug, PartialEq)]
struct UpTo(f64);

impl Eq for UpTo {}

impl Ord for UpTo {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for UpTo {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// How many requests took at most so long, over all APIs.
async fn histogram(cluster: &Cluster) -> Result<BTreeMap<UpTo, f64>> {
    let http = reqwest::Client::new();
    let mut counts = BTreeMap::new();
    for api in cluster.apis() {
        let page = http.get(format!("{api}/metrics")).send().await?.text().await?;
        for (bound, count) in buckets(&page) {
            *counts.entry(UpTo(bound)).or_default() += count;
        }
    }
    Ok(counts)
}

fn buckets(page: &str) -> impl Iterator<Item = (f64, f64)> {
    page.lines().filter_map(|line| {
        let (bound, count) = line.strip_prefix(SERIES)?.split_once("\"} ")?;
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
        Some((bound, count.parse().ok()?))
    })
}

/// As Prometheus' `histogram_quantile` reads it: evenly spread within a bucket.
fn quantile(counts: &[(f64, f64)], share: f64) -> Option<f64> {
    let rank = counts.last()?.1 * share;
    let at = counts.iter().position(|(_, count)| *count >= rank)?;
    let (bound, count) = counts[at];
    let (low, below) = if at == 0 { (0.0, 0.0) } else { counts[at - 1] };
    if bound.is_infinite() {
        return Some(low);
    }
    Some(low + (bound - low) * (rank - below) / (count - below).max(f64::MIN_POSITIVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_read_as_prometheus_reads_them() {
        let page = format!(
            "# TYPE x histogram\n{SERIES}0.1\"}} 80\n{SERIES}0.2\"}} 96\n{SERIES}0.5\"}} 98\n{SERIES}+Inf\"}} 100\n\
             longshore_http_request_duration_seconds_bucket{{method=\"GET\",route=\"/v1/jobs\",le=\"0.1\"}} 7\n"
        );
        let counts: Vec<_> = buckets(&page).collect();
        assert_eq!(counts.len(), 4);
        let rounded = |share| (quantile(&counts, share).unwrap() * 1e6).round() / 1e6;
        assert_eq!((rounded(0.5), rounded(0.95), rounded(0.99)), (0.0625, 0.19375, 0.5));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
