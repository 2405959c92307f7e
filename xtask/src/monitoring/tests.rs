//! What can be known of alerts, dashboards and their pages without a server: names exist, pages exist, cases exist, files are current.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use super::{contract, dashboards, derived, rules};
use crate::root;

/// The metrics that users rely on, with their labels: surface.md's, copied. Adding is free; taking away needs a reason in CHANGELOG.md.
const SURFACE: &[&str] = &[
    "jobs_accepted_total{queue,kind}",
    "jobs_settled_total{queue,kind,outcome}",
    "settle_rejected_total{reason}",
    "queue_jobs{queue,state}",
    "queue_oldest_ready_seconds{queue}",
    "job_wait_seconds",
    "job_duration_seconds{queue,kind,outcome}",
    "attempts_total{kind,outcome,error_class}",
    "recoveries_total{reason}",
    "journal_commit_seconds",
    "journal_batch_rows",
    "reconciled_total",
    "rebuild_seconds",
    "lease_renew_failures_total",
    "worker_slots{state}",
    "claim_loop_last_progress_timestamp_seconds",
    "dead_letters{queue}",
    "provider_calls_total{provider,model,status}",
    "provider_call_duration_seconds",
    "provider_first_token_seconds",
    "provider_tokens_total{provider,model,type}",
    "cost_usd_total{provider,model,kind}",
    "job_cost_usd",
    "limiter_waits_total{target}",
    "limiter_estimate_ratio",
    "breaker_state{target}",
    "cache_hits_total{cache}",
    "cost_saved_usd_total{reason}",
    "budget_alerts_total{level}",
    "http_requests_total{method,route,status}",
    "http_request_duration_seconds{method,route}",
    "http_rate_limited_total{limit}",
    "sse_connections",
    "backup_last_success_timestamp_seconds{kind}",
    "backup_last_verified_timestamp_seconds",
    "build_info",
];

/// What other programs show, as far as it is asked for: node_exporter, postgres_exporter, redis_exporter, cAdvisor, blackbox_exporter,
/// cert-manager, Prometheus and Alertmanager.
const OTHERS: &[&str] = &[
    "ALERTS",
    "alertmanager_notifications_failed_total",
    "certmanager_certificate_expiration_timestamp_seconds",
    "container_cpu_usage_seconds_total",
    "node_cpu_seconds_total",
    "node_disk_io_time_seconds_total",
    "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes",
    "node_memory_MemAvailable_bytes",
    "node_memory_MemTotal_bytes",
    "pg_database_size_bytes",
    "pg_database_wraparound_age_datfrozenxid_seconds",
    "pg_settings_max_connections",
    "pg_stat_activity_count",
    "pg_stat_archiver_archived_count",
    "pg_stat_archiver_failed_count",
    "pg_stat_database_blks_hit",
    "pg_stat_database_blks_read",
    "pg_stat_database_deadlocks",
    "pg_stat_database_xact_commit",
    "pg_stat_database_xact_rollback",
    "pg_stat_user_tables_n_dead_tup",
    "pg_stat_user_tables_n_live_tup",
    "pg_up",
    "probe_ssl_earliest_cert_expiry",
    "prometheus_notifications_dropped_total",
    "redis_commands_duration_seconds_total",
    "redis_commands_processed_total",
    "redis_commands_total",
    "redis_evicted_keys_total",
    "redis_instance_info",
    "redis_memory_max_bytes",
    "redis_memory_used_bytes",
    "redis_rejected_connections_total",
    "redis_up",
    "up",
];

fn text_of(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_metric_that_is_asked_for_exists() {
    let metrics = contract::metrics().unwrap();
    let kinds: BTreeMap<&str, &str> = metrics.iter().map(|one| (one.name.as_str(), one.kind.as_str())).collect();
    let sums: BTreeSet<String> = rules::read().unwrap().0.into_iter().map(|sum| sum.name).collect();
    let exists = |name: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        match kinds.get(name) {
            Some(kind) => *kind != "histogram",
            None if base.is_some_and(|base| kinds.get(base) == Some(&"histogram")) => true,
            None => sums.contains(name) || OTHERS.contains(&name),
        }
    };
    let mut wrong = vec![];
    for (place, expr) in rules::expressions().unwrap() {
        let unknown: Vec<_> = rules::names(&expr).unwrap().into_iter().filter(|name| !exists(name)).collect();
        wrong.extend(unknown.into_iter().map(|name| format!("{place}: `{name}`")));
    }
    assert!(wrong.is_empty(), "nobody shows these:\n{}", wrong.join("\n"));
    let asked: BTreeSet<_> =
        rules::expressions().unwrap().iter().flat_map(|(_, expr)| rules::names(expr).unwrap()).collect();
    let idle: Vec<_> = OTHERS.iter().filter(|name| !asked.contains(**name)).collect();
    assert!(idle.is_empty(), "nobody asks for these: {idle:?}");
}

#[test]
fn every_metric_is_somewhere_to_be_seen() {
    let asked: BTreeSet<_> =
        rules::expressions().unwrap().iter().flat_map(|(_, expr)| rules::names(expr).unwrap()).collect();
    let is_seen =
        |name: &str| ["", "_bucket", "_sum", "_count"].iter().any(|end| asked.contains(&format!("{name}{end}")));
    let unseen: Vec<_> =
        contract::metrics().unwrap().into_iter().map(|one| one.name).filter(|name| !is_seen(name)).collect();
    assert!(unseen.is_empty(), "no alert and no panel shows {unseen:?}");
}

#[test]
fn what_users_rely_on_is_there_with_its_labels() {
    let metrics = contract::metrics().unwrap();
    for promised in SURFACE {
        let (name, labels) = promised.trim_end_matches('}').split_once('{').unwrap_or((promised, ""));
        let metric = metrics.iter().find(|one| one.name == format!("longshore_{name}"));
        let metric = metric.unwrap_or_else(|| panic!("{name} is gone"));
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            assert!(metric.labels.contains(label), "{name} has lost `{label}`");
        }
    }
    for metric in &metrics {
        for label in ["tenant", "job", "job_id", "pod", "key", "worker", "user"] {
            assert!(!metric.labels.contains(label), "{} has `{label}` as a label", metric.name);
        }
    }
}

#[test]
fn derived_files_are_current() {
    let files = derived::files().unwrap();
    for (path, text) in &files {
        let is = text_of(path.to_str().unwrap());
        assert!(is == *text, "{} is not current: `cargo xtask generate`", path.display());
    }
    for path in dashboards::on_disk().unwrap() {
        assert!(files.contains_key(&path), "{} comes from nowhere: `cargo xtask generate`", path.display());
    }
}

#[test]
fn every_alert_has_a_page_a_row_and_two_cases() {
    let (_, alerts) = rules::read().unwrap();
    let (cases, table) = (text_of(rules::CASES), text_of("docs/alerts.md"));
    let rows: Vec<&str> = table.lines().filter(|line| line.contains("](runbooks/")).collect();
    assert_eq!(rows.len(), alerts.len(), "docs/alerts.md has not one row an alert");
    for alert in &alerts {
        let name = &alert.name;
        assert_eq!(alert.page, format!("docs/runbooks/{name}.md"));
        let page = text_of(&alert.page);
        let first = page.lines().next().unwrap_or_default();
        assert!(first.len() > 2 && first.starts_with('`') && first.ends_with('`'), "{name}: no command comes first");
        assert!(page.contains(&format!("# {name}\n")), "{name}: the page has another title");
        for part in ["## What it means", "## The cause", "## Mending it", "## It is over when"] {
            assert!(page.contains(part), "{name}: `{part}` is missing");
        }
        let wait = if alert.wait.is_empty() { "at once" } else { &alert.wait };
        let acknowledge = match alert.acknowledge.as_str() {
            "15m" => "15 min",
            "1h" => "1 h",
            "4h" => "4 h",
            "" if name == "Watchdog" => "–",
            other => panic!("{name}: who acknowledges within `{other}`?"),
        };
        let cells = format!("| {wait} | {} | {acknowledge} | [page](runbooks/{name}.md) |", alert.severity);
        let row = rows.iter().find(|row| row.starts_with(&format!("| {name} |")));
        assert!(
            row.is_some_and(|row| row.ends_with(&cells)),
            "docs/alerts.md: the row of {name} does not end `{cells}`"
        );
        assert!(["critical", "warning", "none"].contains(&alert.severity.as_str()), "{name}: {}", alert.severity);
        let is_paged = alert.severity == "critical";
        assert_eq!(is_paged, alert.acknowledge == "15m", "{name}: the pager is acknowledged within 15 minutes");
        let cases: Vec<&str> =
            cases.split("\n  - name: ").filter(|case| case.contains(&format!("alertname: {name}\n"))).collect();
        let fires = cases.iter().filter(|case| case.contains("exp_labels:") && case.contains("input_series:")).count();
        let silent = cases.iter().filter(|case| case.contains("exp_alerts: []")).count();
        assert!(fires > 0 && silent > 0, "{name}: {fires} firing and {silent} silent cases");
    }
    let pages = fs::read_dir(root().join("docs/runbooks")).unwrap();
    for page in pages.map(|page| page.unwrap().file_name().into_string().unwrap()) {
        let name = page.trim_end_matches(".md");
        assert!(alerts.iter().any(|alert| alert.name == name), "docs/runbooks/{page} is of no alert");
    }
}

#[test]
fn whatever_inhibits_or_is_inhibited_is_an_alert() {
    let (_, alerts) = rules::read().unwrap();
    let text = text_of(rules::ALERTMANAGER);
    let mut names = 0;
    for part in text.split("alertname ").skip(1) {
        let matcher = part.trim_start_matches(['=', '~', ' ']);
        let matcher = matcher.split([']', '\'', '\n']).next().unwrap_or_default().trim_matches('"');
        for word in matcher.split(['|', '(', ')', '.', '*']).filter(|word| !word.is_empty()) {
            let is_part = alerts.iter().any(|alert| alert.name.contains(word));
            assert!(is_part, "{}: no alert is called or contains `{word}`", rules::ALERTMANAGER);
            names += 1;
        }
    }
    assert!(names > 20, "{names}");
    for secret in ["password:", "routing_key:", "api_url:", "credentials:"] {
        assert!(!text.contains(secret), "{}: `{secret}` belongs into a file", rules::ALERTMANAGER);
    }
}
