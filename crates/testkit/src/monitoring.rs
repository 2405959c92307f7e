//! Debian's Prometheus, its tools and exporters: a second reader of what we show.

use crate::packages::{install, runs};

/// Sees to it that Prometheus, promtool, amtool and the exporters of a machine, Postgres and Redis are in the path; installs them where
/// the machine has none and we are root.
pub fn install_monitoring() {
    for (package, program) in [
        ("prometheus", "promtool"),
        ("prometheus-alertmanager", "amtool"),
        ("prometheus-node-exporter", "prometheus-node-exporter"),
        ("prometheus-postgres-exporter", "prometheus-postgres-exporter"),
        ("prometheus-redis-exporter", "prometheus-redis-exporter"),
    ] {
        // The one of Redis has one dash.
        install(package, || runs(program, &["--version"]) || runs(program, &["-version"]));
    }
}
