//! Everything that alerts and dashboards ask, asked of a real Prometheus.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{dashboards, rules, stack::Prometheus};

/// What `$__rate_interval` and `$queue` are in a run that is some minutes long.
const INTERVAL: (&str, &str) = ("$__rate_interval", "5m");
const QUEUES: (&str, &str) = ("$queue", ".*");

/// Selectors, or metrics, of which such a run has none, and why.
const ABSENT: &[(&str, &str)] = &[
    ("alertmanager_notifications_failed_total", "no Alertmanager runs here"),
    ("certmanager_certificate_expiration_timestamp_seconds", "no cert-manager runs here"),
    ("container_cpu_usage_seconds_total", "Debian has no cAdvisor"),
    ("longshore_certificate_ends_timestamp_seconds", "the cluster speaks plain HTTP"),
    ("longshore_credentials_disabled_total", "no provider here refuses the key of a tenant"),
    (
        "longshore_provider_calls_total{status=\"quota\"}",
        "an account without money would end the load: it rests for 15 minutes",
    ),
    (
        "pg_database_wraparound_age_datfrozenxid_seconds",
        "a collector that postgres_exporter has from 0.14 on; Debian has 0.11",
    ),
    ("pg_stat_user_tables_n_dead_tup", "as above"),
    ("pg_stat_user_tables_n_live_tup", "as above"),
    ("probe_ssl_earliest_cert_expiry", "no blackbox_exporter runs here"),
    (
        "redis_instance_info{job=~\"(.+/)?redis\",maxmemory_policy!=\"noeviction\"}",
        "the dispatcher's Redis does not evict",
    ),
];

/// What Prometheus answered.
pub(super) struct Answers {
    asked: usize,
    rules: usize,
    firing: Vec<String>,
    excused: BTreeSet<String>,
    /// What should not be.
    pub(super) findings: Vec<String>,
}

impl Answers {
    /// Asks all of it.
    pub(super) async fn ask(prometheus: &Prometheus) -> Result<Self> {
        let (count, wrong) = prometheus.rules().await?;
        let mut answers = Self { asked: 0, rules: count, firing: vec![], excused: BTreeSet::new(), findings: wrong };
        let (sums, alerts) = rules::read()?;
        if count != sums.len() + alerts.len() {
            answers.findings.push(format!("Prometheus has {count} rules, the file {}", sums.len() + alerts.len()));
        }
        for sum in &sums {
            answers.want(prometheus, &format!("{} = {}", sum.name, sum.expr), &sum.name).await;
        }
        for alert in &alerts {
            match prometheus.query(&alert.expr).await {
                Ok(series) if !series.is_empty() => answers.firing.push(alert.describe()),
                Ok(_) => {}
                Err(error) => answers.findings.push(format!("{}: {error}", alert.name)),
            }
            // A condition that is not met is an empty answer: what it looks at must be there.
            for selector in rules::selectors(&alert.expr)? {
                answers.want(prometheus, &alert.name, &selector).await;
            }
        }
        for dashboard in dashboards::read()? {
            for panel in &dashboard.panel {
                let place = format!("{}, {}", dashboard.uid, panel.title);
                for (query, _) in &panel.queries {
                    answers.want(prometheus, &place, query).await;
                }
            }
        }
        for (absent, _) in ABSENT {
            if !answers.excused.contains(*absent) {
                answers.findings.push(format!("`{absent}` is there, or nobody asks for it: it needs no excuse"));
            }
        }
        Ok(answers)
    }

    /// Asks for something that must be there.
    async fn want(&mut self, prometheus: &Prometheus, place: &str, query: &str) {
        self.asked += 1;
        let asked = query.replace(INTERVAL.0, INTERVAL.1).replace(QUEUES.0, QUEUES.1);
        match prometheus.query(&asked).await {
            Ok(series) if series.iter().any(|value| !value.is_nan()) => {}
            Ok(_) => match excuse(query) {
                Some(absent) => {
                    self.excused.insert(absent.to_owned());
                }
                None => self.findings.push(format!("{place}: no data for `{query}`")),
            },
            Err(error) => self.findings.push(format!("{place}: `{query}`: {error}")),
        }
    }

    /// What was asked, what fires, and what was not there.
    pub(super) fn print(&self) {
        println!("{} rules, {} queries; conditions that are met now:", self.rules, self.asked);
        self.firing.iter().for_each(|alert| println!("  {alert}"));
        for (absent, why) in ABSENT.iter().filter(|(absent, _)| self.excused.contains(*absent)) {
            println!("  without {absent}: {why}");
        }
    }
}

/// The reason why a query may be empty, by what it looks at.
fn excuse(query: &str) -> Option<&'static str> {
    let selectors = rules::selectors(query).ok()?;
    let names: Vec<_> = selectors.iter().filter_map(|selector| selector.split('{').next()).collect();
    let is_absent = |absent: &str| names.contains(&absent) || selectors.iter().any(|selector| selector == absent);
    ABSENT.iter().map(|(absent, _)| *absent).find(|absent| is_absent(absent))
}
