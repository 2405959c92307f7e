//! The recorder behind `/metrics`.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use queue_core::telemetry;

use crate::failure::Failure;

/// Bounds of every time: from a commit on a fast disk to a long analysis.
const SECONDS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0,
];

/// Bounds of batch sizes.
const ROWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];

/// Bounds of what a job costs: from a short question to a small model to an analysis of hundreds of calls.
const USD: &[f64] = &[0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];

/// Bounds of ratios: how far something is from what was expected.
const RATIOS: &[f64] = &[0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0];

/// Installs the recorder of this process and describes every metric to it.
pub(crate) fn install() -> Result<PrometheusHandle, Failure> {
    let failed = |error: BuildError| Failure::error(format!("no metrics: {error}"));
    let suffix = |text: &str| Matcher::Suffix(text.to_owned());
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(suffix("_seconds"), SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(suffix("_rows"), ROWS))
        .and_then(|builder| builder.set_buckets_for_metric(suffix("_usd"), USD))
        .and_then(|builder| builder.set_buckets_for_metric(suffix("_ratio"), RATIOS))
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(failed)?;
    telemetry::describe_all();
    Ok(handle)
}
