//! Every metric's name, kind, unit, labels and buckets: the contract of `/metrics`, in one place. A test compares it with what a running
//! process shows, and none of it may be recorded with other labels.
//!
//! A label is a word of ours, or a name that this module has let in ([`queue`], [`provider`], [`model`], [`target`]): whoever submits
//! makes names up, and each is a series that is kept for ever. Exemplars cannot be shown: text format 0.0.4 has none.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock, PoisonError, RwLock},
};

use metrics::{SharedString, Unit, describe_counter, describe_gauge, describe_histogram};

use crate::ledger::{Nanousd, SavedBy};

mod rare;

pub use rare::{Part, begin_rare};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by these upper bounds.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// As `/metrics` shows it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Of its values.
    pub unit: Unit,
    /// Exactly these, in any order.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

/// Bounds of a handler's run: from a probe to an analysis that takes half an hour.
const JOBS: &[f64] = &[0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1_800.0];
/// Bounds of waits: from a pick-up to a backlog.
const WAITS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0];
/// Bounds of a provider's answers.
const CALLS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1_800.0];
/// Bounds of requests, with the limits of the runbooks (0.2, 0.5 and 5 s) among them.
const REQUESTS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Bounds of a journal's transactions: from a fast disk to one that stands still.
const COMMITS: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Bounds of batch sizes.
const ROWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];
/// Bounds of what a job costs: from a short question to a small model to an analysis of hundreds of calls.
const USD: &[f64] = &[0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];
/// Bounds of ratios: how far something is from what was expected.
const RATIOS: &[f64] = &[0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0];

macro_rules! contract {
    ($($constant:ident = $name:literal, $kind:ident$(($buckets:ident))?, $unit:ident, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: &str = concat!("longshore_", $name);)*

        /// The contract.
        pub const CONTRACT: &[Metric] = &[$(Metric {
            name: $constant,
            kind: Kind::$kind$(($buckets))?,
            unit: Unit::$unit,
            labels: &[$($label),*],
            help: $help,
        }),*];

        /// Every name, for the test that compares them with the documents.
        pub const ALL: &[&str] = &[$($constant),*];
    };
}

contract! {
    JOBS_ACCEPTED = "jobs_accepted_total", Counter, Count, ["queue", "kind"], "Jobs committed at submit, by queue and kind.";
    JOBS_SETTLED = "jobs_settled_total", Counter, Count, ["queue", "kind", "outcome"], "Attempts settled, by queue, kind and outcome.";
    SETTLE_REJECTED = "settle_rejected_total", Counter, Count, ["reason"], "Settles that the journal refused, by reason.";
    QUEUE_JOBS = "queue_jobs", Gauge, Count, ["queue", "state"], "Jobs now, by queue and state.";
    QUEUE_OLDEST_READY = "queue_oldest_ready_seconds", Gauge, Seconds, ["queue"], "Age of the oldest claimable job, by queue.";
    JOB_WAIT = "job_wait_seconds", Histogram(WAITS), Seconds, ["queue"], "From claimable to handler start.";
    JOB_DURATION = "job_duration_seconds", Histogram(JOBS), Seconds, ["queue", "kind", "outcome"], "Handler run time, by queue, kind and outcome.";
    ATTEMPTS = "attempts_total", Counter, Count, ["kind", "outcome", "error_class"], "Attempts ended, by kind, outcome and error class.";
    RECOVERIES = "recoveries_total", Counter, Count, ["reason"], "Leases that ended without a settle, by reason.";
    JOURNAL_COMMIT = "journal_commit_seconds", Histogram(COMMITS), Seconds, [], "Time of one journal transaction.";
    JOURNAL_CONNECTIONS = "journal_connections", Gauge, Count, ["pool", "state"], "Connections to a journal on a server, by pool (own, tenant: callers of tenants) and state (busy, idle), sampled each second.";
    JOURNAL_CONNECTIONS_MAX = "journal_connections_max", Gauge, Count, ["pool"], "Connections that a pool may have, by pool.";
    JOURNAL_BATCH = "journal_batch_rows", Histogram(ROWS), Count, [], "Requests in one journal transaction.";
    OPERATION_JOBS = "operation_jobs_total", Counter, Count, ["action"], "Jobs that operations were done to, by action.";
    SCHEDULE_TICKS = "schedule_ticks_total", Counter, Count, ["outcome"], "Ticks of schedules, by outcome: submitted, backfilled, overlapped, missed, refused; delayed for each try that has to be repeated.";
    SCHEDULE_LAG = "schedule_lag_seconds", Histogram(WAITS), Seconds, [], "From a schedule's tick to its job, without backfills.";
    RECONCILED = "reconciled_total", Counter, Count, [], "Live jobs that the dispatcher did not know.";
    REBUILD = "rebuild_seconds", Histogram(JOBS), Seconds, [], "Time to rebuild the dispatcher from the journal.";
    RENEW_FAILURES = "lease_renew_failures_total", Counter, Count, [], "Leases that could not be renewed.";
    WORKER_SLOTS = "worker_slots", Gauge, Count, ["state"], "Slots of this worker, by state (busy, free).";
    BUDGET_ALERTS = "budget_alerts_total", Counter, Count, ["scope", "period", "level"], "Levels that budgets have reached, once a period each, by scope (installation, tenant, key), period (day, month) and level in percent.";
    CLAIM_PROGRESS = "claim_loop_last_progress_timestamp_seconds", Gauge, Seconds, [], "When the claim loop last completed a step.";
    DEAD_LETTERS = "dead_letters", Gauge, Count, ["queue"], "Dead letters now, by queue.";
    PROVIDER_CALLS = "provider_calls_total", Counter, Count, ["provider", "model", "status"], "Provider calls, by provider, model and status.";
    PROVIDER_CALL_DURATION = "provider_call_duration_seconds", Histogram(CALLS), Seconds, ["provider", "model"], "From request to last byte.";
    PROVIDER_FIRST_TOKEN = "provider_first_token_seconds", Histogram(CALLS), Seconds, ["provider"], "From request to first text.";
    PROVIDER_TOKENS = "provider_tokens_total", Counter, Count, ["provider", "model", "type"], "Tokens, by provider, model and type.";
    COST_USD = "cost_usd_total", Counter, Count, ["provider", "model", "kind"], "Spend in US dollars, by provider, model and kind.";
    COST_UNKNOWN = "cost_unknown_total", Counter, Count, ["provider", "model"], "Calls whose price is unknown, by provider and model.";
    JOB_COST = "job_cost_usd", Histogram(USD), Count, ["kind", "outcome"], "Cost of a job that has ended in US dollars, by kind and outcome (succeed, dead).";
    ANSWERS = "answers_total", Counter, Count, ["kind", "outcome"], "Answers of chat models as their checks found them, by kind and outcome: good; repaired (good, after bad ones), invalid (not of the form that was asked for), truncated (cut at the token limit), withheld (filtered or declined).";
    CREDENTIAL_REFUSALS = "credential_refusals_total", Counter, Count, ["provider"], "Calls that were refused with a tenant's own key, by provider.";
    CREDENTIALS_DISABLED = "credentials_disabled_total", Counter, Count, ["provider"], "Keys of tenants that were disabled because their provider refused them, by provider.";
    CREDENTIALS_UNREADABLE = "credentials_unreadable", Gauge, Count, [], "Keys of tenants that this process cannot read: their master key is not here.";
    BREAKER_STATE = "breaker_state", Gauge, Count, ["target"], "Breaker by target: 0 closed, 1 half-open, 2 open.";
    FALLBACKS = "fallbacks_total", Counter, Count, ["class"], "Calls that went on with another model, by the class of the failure.";
    CACHE_HITS = "cache_hits_total", Counter, Count, ["cache"], "Answers that needed no call, by cache.";
    COST_SAVED = "cost_saved_usd_total", Counter, Count, ["reason"], "Spend avoided in US dollars, by reason.";
    BILLED_MAYBE = "provider_calls_billed_maybe_total", Counter, Count, ["provider", "model"], "Calls that may have been billed without an answer.";
    LIMITER_WAITS = "limiter_waits_total", Counter, Count, ["target"], "Calls that had to wait for their limit, in place or as a released job, by target.";
    LIMITER_ESTIMATE_RATIO = "limiter_estimate_ratio", Histogram(RATIOS), Count, [], "Tokens that a call used, over those that were estimated.";
    AUDIT_LOST = "audit_lost_total", Counter, Count, [], "Rows of the audit log that the journal did not take: each stands in the log of the process instead.";
    WEBHOOK_DELIVERIES = "webhook_deliveries_total", Counter, Count, ["outcome"], "Attempts of webhook deliveries, by outcome: delivered, retry, failed (given up), dropped (the receiver is off or gone), unsigned (its secret cannot be read here).";
    WEBHOOK_DURATION = "webhook_delivery_duration_seconds", Histogram(REQUESTS), Seconds, ["outcome"], "Time of an attempt of a webhook delivery, by outcome.";
    WEBHOOK_LAG = "webhook_delivery_lag_seconds", Histogram(WAITS), Seconds, [], "From an event to the attempt that delivered it.";
    CERTIFICATE_ENDS = "certificate_ends_timestamp_seconds", Gauge, Seconds, [], "When the certificate that the API shows ends.";
    BACKUP_LAST_SUCCESS = "backup_last_success_timestamp_seconds", Gauge, Seconds, ["kind"], "When the newest good backup was finished, by kind: database, objects, config, full, and offsite for the second place.";
    BACKUP_LAST_VERIFIED = "backup_last_verified_timestamp_seconds", Gauge, Seconds, [], "When a backup was last read back whole and found good.";
    BACKUP_BYTES = "backup_bytes", Gauge, Bytes, ["kind"], "Size of the newest good backup as it lies there, by kind.";
    BACKUPS = "backups_total", Counter, Count, ["work", "outcome"], "Backups that were made and checked by this process, by work (create, verify, drill, prune) and outcome (good, failed).";
    DRILL_LAST_SUCCESS = "restore_drill_last_success_timestamp_seconds", Gauge, Seconds, [], "When a restored backup was last compared and had drained jobs.";
    DRILL_RECOVERY = "restore_drill_seconds", Gauge, Seconds, [], "The last drill: from its begin until the restored system had drained its jobs (recovery time).";
    DRILL_LOST = "restore_drill_lost_seconds", Gauge, Seconds, [], "The last drill: how old what it brought back was (recovery point).";
    HTTP_REQUESTS = "http_requests_total", Counter, Count, ["method", "route", "status"], "Requests, by method, route and status.";
    HTTP_RATE_LIMITED = "http_rate_limited_total", Counter, Count, ["limit"], "Requests that were refused, in whole or for some of their jobs, because key or tenant ask too often, by limit (key_requests, key_llm_submits, tenant_requests, tenant_llm_submits).";
    HTTP_DURATION = "http_request_duration_seconds", Histogram(REQUESTS), Seconds, ["method", "route"], "Request time, by method and route.";
    RETENTION_REMOVED = "retention_removed_total", Counter, Count, ["class", "unit"], "What was taken away for its age, by class and unit (rows, partitions, operations).";
    RETENTION_LAST_RUN = "retention_last_run_timestamp_seconds", Gauge, Seconds, [], "When this process last took away what was old.";
    RETENTION_FAILURES = "retention_failures_total", Counter, Count, ["class"], "Classes of which a run could not take away what was old, by class.";
    UPKEEP_CHORES = "upkeep_chores_total", Counter, Count, ["chore", "outcome"], "Chores of the journal's upkeep, by chore and outcome (done, failed, no_right).";
    UPKEEP_FREED = "upkeep_freed_bytes_total", Counter, Bytes, ["chore"], "Bytes that chores have given back, by chore.";
    JOURNAL_BYTES = "journal_bytes", Gauge, Bytes, [], "Size of the journal on disk, as the last upkeep found it.";
    ALERTS = "alerts", Gauge, Count, ["alert"], "What is wrong now, by alert: stuck-jobs, quota, maintenance, certificate, clock.";
    CLOCK_SKEW = "clock_skew_seconds", Gauge, Seconds, ["server"], "How far a server's clock is ahead of this process', by server.";
    ORPHANS_REMOVED = "orphan_objects_removed_total", Counter, Count, [], "Objects that nothing named and that were deleted.";
    SSE_CONNECTIONS = "sse_connections", Gauge, Count, [], "Open event streams.";
    PROCESS_MEMORY = "process_memory_bytes", Gauge, Bytes, [], "Memory of this process that is resident.";
    PROCESS_MEMORY_LIMIT = "process_memory_limit_bytes", Gauge, Bytes, [], "What it may have: the tightest limit of its control groups, or else what the machine has.";
    BUILD_INFO = "build_info", Gauge, Count, ["version"], "1, labelled with the version.";
}

/// Counters of US dollars. A counter holds whole numbers, so these are counted in nano-USD, exactly, and every text
/// that leaves the process passes through [`in_dollars`].
const COUNTED_IN_NANOUSD: [&str; 2] = [COST_USD, COST_SAVED];

/// Tells the installed recorder what each metric means. Call once, after installing it.
pub fn describe_all() {
    for Metric { name, kind, unit, help, .. } in CONTRACT {
        match kind {
            Kind::Counter => describe_counter!(*name, *unit, *help),
            Kind::Gauge => describe_gauge!(*name, *unit, *help),
            Kind::Histogram(_) => describe_histogram!(*name, *unit, *help),
        }
    }
}

/// Names that this process tells apart in its metrics: the first that it meets. With them a process shows at most about 3,000
/// series, whatever its clients think of: a queue costs a worker up to 60 of them, a model 30, a target two.
struct Names {
    most: usize,
    met: RwLock<HashSet<SharedString>>,
}

/// What stands for the names beyond those.
pub const OTHER: &str = "other";

static QUEUES: LazyLock<Names> = LazyLock::new(|| Names::up_to(24));
static PROVIDERS: LazyLock<Names> = LazyLock::new(|| Names::up_to(24));
static MODELS: LazyLock<Names> = LazyLock::new(|| Names::up_to(24));
static TARGETS: LazyLock<Names> = LazyLock::new(|| Names::up_to(64));

/// A queue as a label: its name if it is among the first that this process met, else [`OTHER`].
pub fn queue(name: &str) -> SharedString {
    QUEUES.label(name)
}

/// Likewise a provider.
pub fn provider(name: &str) -> SharedString {
    PROVIDERS.label(name)
}

/// Likewise a model.
pub fn model(name: &str) -> SharedString {
    MODELS.label(name)
}

/// Likewise a target, `provider:model:credential`.
pub fn target(name: &str) -> SharedString {
    TARGETS.label(name)
}

impl Names {
    fn up_to(most: usize) -> Self {
        Self { most, met: RwLock::default() }
    }

    fn label(&self, name: &str) -> SharedString {
        // A set that a panic left is whole: it only grows, by one insert.
        if let Some(known) = self.met.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return known.clone();
        }
        let mut met = self.met.write().unwrap_or_else(PoisonError::into_inner);
        if met.len() >= self.most {
            return SharedString::const_str(OTHER);
        }
        let name = SharedString::from(Arc::<str>::from(name));
        met.insert(name.clone());
        name
    }
}

/// Counts spent money.
pub fn count_cost(provider: SharedString, model: SharedString, kind: &'static str, cost: Nanousd) {
    // The ledger has no negative call; a mistake there must not wrap a counter.
    let nanousd = u64::try_from(cost.0).unwrap_or_default();
    metrics::counter!(COST_USD, "provider" => provider, "model" => model, "kind" => kind).increment(nanousd);
}

/// Counts money that an answer without a call did not cost.
pub fn count_saved(reason: SavedBy, saved: Nanousd) {
    metrics::counter!(COST_SAVED, "reason" => reason.as_str()).increment(u64::try_from(saved.0).unwrap_or_default());
}

/// The recorder's text (Prometheus format 0.0.4) with counters of money in US dollars. All digits are kept.
pub fn in_dollars(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match sample_in_dollars(line) {
            Some((series, dollars)) => {
                out.push_str(series);
                out.push(' ');
                out.push_str(&dollars);
                out.push('\n');
            }
            None => out.push_str(line),
        }
    }
    out
}

/// The series and value of a line that is a sample of a counter of money.
fn sample_in_dollars(line: &str) -> Option<(&str, String)> {
    let name = line.split(['{', ' ']).next()?;
    if !COUNTED_IN_NANOUSD.contains(&name) {
        return None;
    }
    let (series, value) = line.trim_end().rsplit_once(' ')?;
    let nanousd: u64 = value.parse().ok()?;
    Some((series, format!("{}.{:09}", nanousd / NANOUSD_PER_USD, nanousd % NANOUSD_PER_USD)))
}

/// What a dollar has of the ledger's unit.
const NANOUSD_PER_USD: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    #[test]
    fn money_is_counted_in_nanousd_and_told_in_dollars() {
        let text = "# HELP longshore_cost_usd_total Spend.\n# TYPE longshore_cost_usd_total counter\n\
                    longshore_cost_usd_total{provider=\"a b\",model=\"m\"} 12000000034\n\
                    longshore_cost_usd_total_of_others 5\nlongshore_attempts_total{kind=\"llm\"} 5\n";
        let expected = text.replace(" 12000000034", " 12.000000034");
        assert_eq!(super::in_dollars(text), expected);
        assert_eq!(
            super::in_dollars("longshore_cost_saved_usd_total 18446744073709551615"),
            "longshore_cost_saved_usd_total 18446744073.709551615\n"
        );
    }

    #[test]
    fn names_that_are_made_up_share_one_label() {
        let names = super::Names::up_to(24);
        let label = |name: &str| names.label(name).to_string();
        (0..24).for_each(|n| assert_eq!(label(&format!("m{n}")), format!("m{n}")));
        assert_eq!((label("one more"), label("m7"), label("another")), ("other".into(), "m7".into(), "other".into()));
        for name in [super::queue, super::provider, super::model, super::target] {
            let labels: std::collections::BTreeSet<_> =
                (0..10_000).map(|n| name(&format!("made-up-{n}")).to_string()).collect();
            assert!(labels.len() <= 65 && labels.contains(super::OTHER), "{}", labels.len());
        }
    }

    #[test]
    fn every_metric_is_ours_named_once_and_as_prometheus_names_its_kind() {
        let mut names = super::ALL.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), super::ALL.len());
        for super::Metric { name, kind, labels, .. } in super::CONTRACT {
            assert!(name.starts_with("longshore_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == super::Kind::Counter, "{name}");
            let is_private = |label: &&str| ["tenant", "job", "job_id", "key", "pod", "instance"].contains(label);
            assert!(!labels.iter().any(is_private), "{name}: {labels:?}");
            if let super::Kind::Histogram(buckets) = kind {
                assert!(buckets.is_sorted() && buckets.len() <= 15, "{name}");
            }
        }
        // Jobs may take half an hour.
        for name in [super::JOB_DURATION, super::JOB_WAIT, super::PROVIDER_CALL_DURATION] {
            let metric = super::CONTRACT.iter().find(|metric| metric.name == name).unwrap();
            let super::Kind::Histogram(buckets) = metric.kind else { panic!("{name}") };
            assert_eq!(buckets.last(), Some(&1_800.0), "{name}");
        }
    }

    /// What is named and never recorded is a promise that nobody keeps.
    #[test]
    fn every_metric_is_recorded_somewhere() {
        fn read(folder: &std::path::Path, text: &mut String) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    read(&path, text);
                } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("telemetry.rs")
                {
                    text.push_str(&std::fs::read_to_string(&path).unwrap());
                }
            }
        }
        let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut sources = include_str!("telemetry.rs").split("mod tests").next().unwrap().to_owned();
        for member in ["api", "cli", "queue-core", "scheduler", "worker"] {
            read(&crates.join(member).join("src"), &mut sources);
        }
        let this = include_str!("telemetry.rs");
        for line in this.split_once("contract! {\n").unwrap().1.split("\n}\n").next().unwrap().lines() {
            let constant = line.split_whitespace().next().unwrap();
            let recorded = ["counter", "gauge", "histogram"].iter().any(|kind| {
                sources.contains(&format!("{kind}!(telemetry::{constant}"))
                    || sources.contains(&format!("{kind}!({constant}"))
            });
            assert!(recorded, "{constant}");
        }
    }
}
