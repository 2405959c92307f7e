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
/// Two processes of each role.
const ROLES: [Role; 6] = [Role::Scheduler, Role::Scheduler, Role::Api, Role::Api, Role::Worker, Role::Worker];
/// The series that is read.
const SERIES: &str = "longshore_http_request_duration_seconds_bucket{method=\"POST\",route=\"/v1/jobs\",le=\"";

/// Two processes of each role, Postgres and Redis, and the load itself.
pub(super) async fn measure(longshore: &Path) -> Result<Vec<Judged>> {
    let mut cluster = Cluster::start(longshore, &[("LONGSHORE_WORKER_SLOTS", "500")]).await?;
    cluster.spawn_all(&ROLES).await?;
    eprintln!("{RATE} jobs/s for {} s …", LONG.as_secs());
    let load = Steady::start(cluster.apis(), RATE, |_| json!({"kind": "probe", "payload": {"sleep_ms": 20}}));
    tokio::time::sleep(WARM_UP).await;
    let before = histogram(&cluster).await?;
    tokio::time::sleep(LONG).await;
    let after = histogram(&cluster).await?;
    let sent = load.stop().await?;
    cluster.stop().await?;
    let counted_since =
        |(bound, count): (&u64, &f64)| (f64::from_bits(*bound), count - before.get(bound).copied().unwrap_or(0.0));
    let counts: Vec<(f64, f64)> = after.iter().map(counted_since).collect();
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

/// How many requests took at most so long, over all APIs, by the bits of the bound: those of positive numbers have their order.
async fn histogram(cluster: &Cluster) -> Result<BTreeMap<u64, f64>> {
    let mut counts = BTreeMap::new();
    for (number, _) in cluster.members.iter().enumerate().filter(|(_, member)| member.role == Role::Api) {
        for (bound, count) in buckets(&cluster.metrics(number).await?) {
            *counts.entry(bound.to_bits()).or_default() += count;
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
