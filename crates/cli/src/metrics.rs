//! The recorder behind `/metrics`.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use queue_core::telemetry::{self, Kind, Metric};

use crate::failure::Failure;

/// Installs the recorder of this process and describes every metric to it.
pub(crate) fn install() -> Result<PrometheusHandle, Failure> {
    let failed = |error: BuildError| Failure::error(format!("no metrics: {error}"));
    let mut builder = PrometheusBuilder::new();
    for Metric { name, kind, .. } in telemetry::CONTRACT {
        if let Kind::Histogram(buckets) = kind {
            builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets).map_err(failed)?;
        }
    }
    let handle = builder.install_recorder().map_err(failed)?;
    telemetry::describe_all();
    Ok(handle)
}
