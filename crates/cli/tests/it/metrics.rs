//! What `/metrics` shows while jobs run, against the contract: no name and no label that is not in it, and what a small load records is
//! there.

use std::collections::{BTreeMap, BTreeSet};

use crate::installation::{Installation, KEY};
use queue_core::telemetry::{self, Kind, Metric};
use serde_json::json;

/// A sample's metric, as the contract names it, and the names of its labels.
type Sample = (String, BTreeSet<String>);

/// The names of the labels in `{a="x",b="y"}`; values may hold anything but a quote that is not escaped.
fn labels_of(text: &str) -> BTreeSet<String> {
    let (mut names, mut rest) = (BTreeSet::new(), text);
    while let Some((name, value)) = rest.split_once("=\"") {
        names.insert(name.trim_start_matches([',', '{']).to_owned());
        let mut escaped = false;
        let end = value.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        rest = &value[end.unwrap() + 1..];
    }
    names
}

fn samples(text: &str) -> BTreeSet<Sample> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let read = |line: &str| {
        let (series, _value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_at(series.find('{').unwrap_or(series.len()));
        (name.to_owned(), labels_of(labels))
    };
    lines.map(read).collect()
}

/// What is wrong with a page: samples, kinds and words that the contract does not know.
fn strangers(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let contract: BTreeMap<&str, &Metric> = telemetry::CONTRACT.iter().map(|metric| (metric.name, metric)).collect();
    for (name, mut labels) in samples(text) {
        let parts = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        let metric = contract.get(name.as_str()).or_else(|| {
            let metric = contract.get(parts?)?;
            matches!(metric.kind, Kind::Histogram(_)).then_some(metric)
        });
        let Some(metric) = metric else {
            wrong.push(format!("{name} is not in the contract"));
            continue;
        };
        if name.ends_with("_bucket") {
            labels.remove("le");
        }
        if !labels.iter().map(String::as_str).eq(metric.labels.iter().copied().collect::<BTreeSet<_>>()) {
            wrong.push(format!("{name} has {labels:?}, and the contract {:?}", metric.labels));
        }
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        for line in [format!("# TYPE {} {kind}", metric.name), format!("# HELP {} {}", metric.name, metric.help)] {
            if !text.lines().any(|one| one == line) {
                wrong.push(format!("there is no line `{line}`"));
            }
        }
    }
    wrong
}

/// What a small load on the simulated provider does not do: no store fails, nothing is old, nothing is configured.
const NOT_HERE: &[&str] = &[
    telemetry::SETTLE_REJECTED,
    telemetry::RECOVERIES,
    telemetry::RECONCILED,
    telemetry::RENEW_FAILURES,
    telemetry::BUDGET_ALERTS,
    telemetry::COST_UNKNOWN,
    telemetry::CREDENTIAL_REFUSALS,
    telemetry::CREDENTIALS_DISABLED,
    telemetry::BREAKER_STATE,
    telemetry::FALLBACKS,
    telemetry::BILLED_MAYBE,
    telemetry::LIMITER_WAITS,
    telemetry::LIMITER_ESTIMATE_RATIO,
    telemetry::AUDIT_LOST,
    telemetry::WEBHOOK_DELIVERIES,
    telemetry::WEBHOOK_DURATION,
    telemetry::WEBHOOK_LAG,
    telemetry::CERTIFICATE_ENDS,
    telemetry::BACKUP_LAST_SUCCESS,
    telemetry::BACKUP_LAST_VERIFIED,
    telemetry::BACKUP_BYTES,
    telemetry::BACKUPS,
    telemetry::DRILL_LAST_SUCCESS,
    telemetry::DRILL_RECOVERY,
    telemetry::DRILL_LOST,
    telemetry::HTTP_RATE_LIMITED,
    telemetry::RETENTION_REMOVED,
    telemetry::RETENTION_FAILURES,
    telemetry::RETENTION_LAST_RUN,
    telemetry::UPKEEP_CHORES,
    telemetry::UPKEEP_FREED,
    telemetry::JOURNAL_BYTES,
    telemetry::JOURNAL_CONNECTIONS,
    telemetry::JOURNAL_CONNECTIONS_MAX,
    telemetry::ALERTS,
    telemetry::CLOCK_SKEW,
    telemetry::ORPHANS_REMOVED,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_running_process_shows_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let up = Installation::start(&folder.path().join("data"), &[]).await;
    for queue in 0..40 {
        let mut job = json!({"kind": "probe", "queue": format!("q{queue}"), "payload": {}});
        match queue {
            0 => job["payload"] = json!({"fail": "permanent"}),
            1 => job["payload"] = json!({"fail": "transient", "fail_times": 1}),
            _ => {}
        }
        let id = up.submit(&job).await;
        if queue != 1 {
            up.ended(&id).await;
        }
    }
    let chat = |cache: bool| {
        let mut job = json!({"kind": "llm", "payload": {"messages": [{"role": "user", "content": "Hello"}]}});
        if cache {
            job["cache"] = json!({"ttl": "1h"});
        }
        job
    };
    for cache in [false, true, true] {
        let id = up.submit(&chat(cache)).await;
        assert_eq!(up.ended(&id).await["state"], "succeeded", "{}", up.log());
    }
    let http = reqwest::Client::new();
    let stream = http.get(format!("{}/v1/jobs/{}/events", up.url, up.submit(&chat(false)).await)).bearer_auth(KEY);
    stream.send().await.unwrap().text().await.unwrap();
    up.post("/v1/schedules", &json!({"name": "often", "every": "1s", "template": {"kind": "probe", "payload": {}}}))
        .await;
    let order = json!({"action": "delete", "filter": "queue = q0"});
    let operation = up.post("/v1/operations", &order).await["id"].as_str().unwrap().to_owned();
    up.until("it is done", async |up| up.get(&format!("/v1/operations/{operation}")).await["state"] == "done").await;

    let expected = || telemetry::CONTRACT.iter().map(|metric| metric.name).filter(|name| !NOT_HERE.contains(name));
    let missing = |text: &str| -> Vec<&str> {
        let shown = samples(text);
        let is_shown = |name: &str| {
            shown.iter().any(|(one, _)| one == name || one.strip_prefix(name).is_some_and(|part| part == "_count"))
        };
        expected().filter(|name| !is_shown(name)).collect()
    };
    up.until("all of it was recorded", async |up| missing(&up.page("/metrics").await).is_empty()).await;
    let text = up.page("/metrics").await;
    let wrong = strangers(&text);
    assert!(wrong.is_empty(), "{wrong:#?}");
    for line in [
        "longshore_jobs_accepted_total{queue=\"q2\",kind=\"probe\"} 1",
        "longshore_jobs_settled_total{queue=\"q2\",kind=\"probe\",outcome=\"succeed\"} 1",
        "longshore_queue_jobs{queue=\"q2\",state=\"waiting\"} 0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is missing in:\n{text}");
    }
    // Queues beyond those that are told apart are one.
    let queues: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("longshore_queue_jobs{queue=\"")?.split('"').next()).collect();
    assert!(queues.len() == 25 && queues.contains(telemetry::OTHER), "{queues:?}");
    for (line, found) in [("longshore_unknown 1", 1), ("longshore_jobs_accepted_total{queue=\"a\",tenant=\"t\"} 1", 3)]
    {
        assert_eq!(strangers(line).len(), found, "{line}: {:?}", strangers(line));
    }
}
