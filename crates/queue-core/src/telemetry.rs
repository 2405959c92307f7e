//! Every metric's name, kind, unit and labels: the contract of `/metrics`, in one place.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock, PoisonError, RwLock},
};

use metrics::{SharedString, Unit, describe_counter, describe_gauge, describe_histogram};

use crate::ledger::{Nanousd, SavedBy};

mod rare;

pub use rare::{Part, begin_rare};

macro_rules! names {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $describe:ident, $unit:expr, $help:literal;)*) => {
        $($(#[$doc])* #[doc = $help] pub const $constant: &str = concat!("longshore_", $name);)*

        /// Tells the installed recorder what each metric means. Call once, after installing it.
        pub fn describe_all() {
            $($describe!($constant, $unit, $help);)*
        }

        /// Every name, for the test that compares them with the documents.
        pub const ALL: &[&str] = &[$($constant),*];
    };
}

names! {
    JOBS_ACCEPTED = "jobs_accepted_total", describe_counter, Unit::Count, "Jobs committed at submit, by queue and kind.";
    JOBS_SETTLED = "jobs_settled_total", describe_counter, Unit::Count, "Attempts settled, by queue, kind and outcome.";
    SETTLE_REJECTED = "settle_rejected_total", describe_counter, Unit::Count, "Settles that the journal refused, by reason.";
    QUEUE_JOBS = "queue_jobs", describe_gauge, Unit::Count, "Jobs now, by queue and state.";
    QUEUE_OLDEST_READY = "queue_oldest_ready_seconds", describe_gauge, Unit::Seconds, "Age of the oldest claimable job, by queue.";
    JOB_WAIT = "job_wait_seconds", describe_histogram, Unit::Seconds, "From claimable to handler start.";
    JOB_DURATION = "job_duration_seconds", describe_histogram, Unit::Seconds, "Handler run time, by queue, kind and outcome.";
    ATTEMPTS = "attempts_total", describe_counter, Unit::Count, "Attempts ended, by kind, outcome and error class.";
    RECOVERIES = "recoveries_total", describe_counter, Unit::Count, "Leases that ended without a settle, by reason.";
    JOURNAL_COMMIT = "journal_commit_seconds", describe_histogram, Unit::Seconds, "Time of one journal transaction.";
    JOURNAL_CONNECTIONS = "journal_connections", describe_gauge, Unit::Count, "Connections to a journal on a server, by pool (own, tenant: callers of tenants) and state (busy, idle), sampled each second.";
    JOURNAL_CONNECTIONS_MAX = "journal_connections_max", describe_gauge, Unit::Count, "Connections that a pool may have, by pool.";
    JOURNAL_BATCH = "journal_batch_rows", describe_histogram, Unit::Count, "Requests in one journal transaction.";
    OPERATION_JOBS = "operation_jobs_total", describe_counter, Unit::Count, "Jobs that operations were done to, by action.";
    SCHEDULE_TICKS = "schedule_ticks_total", describe_counter, Unit::Count, "Ticks of schedules, by outcome: submitted, backfilled, overlapped, missed, refused; delayed for each try that has to be repeated.";
    SCHEDULE_LAG = "schedule_lag_seconds", describe_histogram, Unit::Seconds, "From a schedule's tick to its job, without backfills.";
    RECONCILED = "reconciled_total", describe_counter, Unit::Count, "Live jobs that the dispatcher did not know.";
    REBUILD = "rebuild_seconds", describe_histogram, Unit::Seconds, "Time to rebuild the dispatcher from the journal.";
    RENEW_FAILURES = "lease_renew_failures_total", describe_counter, Unit::Count, "Leases that could not be renewed.";
    WORKER_SLOTS = "worker_slots", describe_gauge, Unit::Count, "Slots of this worker, by state (busy, free).";
    BUDGET_ALERTS = "budget_alerts_total", describe_counter, Unit::Count, "Levels that budgets have reached, once a period each, by scope (installation, tenant, key), period (day, month) and level in percent.";
    CLAIM_PROGRESS = "claim_loop_last_progress_timestamp_seconds", describe_gauge, Unit::Seconds, "When the claim loop last completed a step.";
    DEAD_LETTERS = "dead_letters", describe_gauge, Unit::Count, "Dead letters now, by queue.";
    PROVIDER_CALLS = "provider_calls_total", describe_counter, Unit::Count, "Provider calls, by provider, model and status.";
    PROVIDER_CALL_DURATION = "provider_call_duration_seconds", describe_histogram, Unit::Seconds, "From request to last byte.";
    PROVIDER_FIRST_TOKEN = "provider_first_token_seconds", describe_histogram, Unit::Seconds, "From request to first text.";
    PROVIDER_TOKENS = "provider_tokens_total", describe_counter, Unit::Count, "Tokens, by provider, model and type.";
    COST_USD = "cost_usd_total", describe_counter, Unit::Count, "Spend in US dollars, by provider, model and kind.";
    COST_UNKNOWN = "cost_unknown_total", describe_counter, Unit::Count, "Calls whose price is unknown, by provider and model.";
    JOB_COST = "job_cost_usd", describe_histogram, Unit::Count, "Cost of a succeeded job in US dollars.";
    ANSWERS = "answers_total", describe_counter, Unit::Count, "Answers of chat models as their checks found them, by kind and outcome: good; repaired (good, after bad ones), invalid (not of the form that was asked for), truncated (cut at the token limit), withheld (filtered or declined).";
    CREDENTIAL_REFUSALS = "credential_refusals_total", describe_counter, Unit::Count, "Calls that were refused with a tenant's own key, by provider.";
    CREDENTIALS_DISABLED = "credentials_disabled_total", describe_counter, Unit::Count, "Keys of tenants that were disabled because their provider refused them, by provider.";
    CREDENTIALS_UNREADABLE = "credentials_unreadable", describe_gauge, Unit::Count, "Keys of tenants that this process cannot read: their master key is not here.";
    BREAKER_STATE = "breaker_state", describe_gauge, Unit::Count, "Breaker by target: 0 closed, 1 half-open, 2 open.";
    FALLBACKS = "fallbacks_total", describe_counter, Unit::Count, "Calls that went on with another model, by the class of the failure.";
    CACHE_HITS = "cache_hits_total", describe_counter, Unit::Count, "Answers that needed no call, by cache.";
    COST_SAVED = "cost_saved_usd_total", describe_counter, Unit::Count, "Spend avoided in US dollars, by reason.";
    BILLED_MAYBE = "provider_calls_billed_maybe_total", describe_counter, Unit::Count, "Calls that may have been billed without an answer.";
    LIMITER_WAITS = "limiter_waits_total", describe_counter, Unit::Count, "Calls that had to wait for their limit, in place or as a released job, by target.";
    LIMITER_ESTIMATE_RATIO = "limiter_estimate_ratio", describe_histogram, Unit::Count, "Tokens that a call used, over those that were estimated.";
    AUDIT_LOST = "audit_lost_total", describe_counter, Unit::Count, "Rows of the audit log that the journal did not take: each stands in the log of the process instead.";
    WEBHOOK_DELIVERIES = "webhook_deliveries_total", describe_counter, Unit::Count, "Attempts of webhook deliveries, by outcome: delivered, retry, failed (given up), dropped (the receiver is off or gone), unsigned (its secret cannot be read here).";
    WEBHOOK_DURATION = "webhook_delivery_duration_seconds", describe_histogram, Unit::Seconds, "Time of an attempt of a webhook delivery, by outcome.";
    WEBHOOK_LAG = "webhook_delivery_lag_seconds", describe_histogram, Unit::Seconds, "From an event to the attempt that delivered it.";
    CERTIFICATE_ENDS = "certificate_ends_timestamp_seconds", describe_gauge, Unit::Seconds, "When the certificate that the API shows ends.";
    BACKUP_LAST_SUCCESS = "backup_last_success_timestamp_seconds", describe_gauge, Unit::Seconds, "When the newest good backup was finished, by kind: database, objects, config, full, and offsite for the second place.";
    BACKUP_LAST_VERIFIED = "backup_last_verified_timestamp_seconds", describe_gauge, Unit::Seconds, "When a backup was last read back whole and found good.";
    BACKUP_BYTES = "backup_bytes", describe_gauge, Unit::Bytes, "Size of the newest good backup as it lies there, by kind.";
    BACKUPS = "backups_total", describe_counter, Unit::Count, "Backups that were made and checked by this process, by work (create, verify, drill, prune) and outcome (good, failed).";
    DRILL_LAST_SUCCESS = "restore_drill_last_success_timestamp_seconds", describe_gauge, Unit::Seconds, "When a restored backup was last compared and had drained jobs.";
    DRILL_RECOVERY = "restore_drill_seconds", describe_gauge, Unit::Seconds, "The last drill: from its begin until the restored system had drained its jobs (recovery time).";
    DRILL_LOST = "restore_drill_lost_seconds", describe_gauge, Unit::Seconds, "The last drill: how old what it brought back was (recovery point).";
    HTTP_REQUESTS = "http_requests_total", describe_counter, Unit::Count, "Requests, by method, route and status.";
    HTTP_RATE_LIMITED = "http_rate_limited_total", describe_counter, Unit::Count, "Requests that were refused, in whole or for some of their jobs, because key or tenant ask too often, by limit (key_requests, key_llm_submits, tenant_requests, tenant_llm_submits).";
    HTTP_DURATION = "http_request_duration_seconds", describe_histogram, Unit::Seconds, "Request time, by method and route.";
    RETENTION_REMOVED = "retention_removed_total", describe_counter, Unit::Count, "What was taken away for its age, by class and unit (rows, partitions, operations).";
    RETENTION_LAST_RUN = "retention_last_run_timestamp_seconds", describe_gauge, Unit::Seconds, "When this process last took away what was old.";
    RETENTION_FAILURES = "retention_failures_total", describe_counter, Unit::Count, "Classes of which a run could not take away what was old, by class.";
    UPKEEP_CHORES = "upkeep_chores_total", describe_counter, Unit::Count, "Chores of the journal's upkeep, by chore and outcome (done, failed, no_right).";
    UPKEEP_FREED = "upkeep_freed_bytes_total", describe_counter, Unit::Bytes, "Bytes that chores have given back, by chore.";
    JOURNAL_BYTES = "journal_bytes", describe_gauge, Unit::Bytes, "Size of the journal on disk, as the last upkeep found it.";
    ALERTS = "alerts", describe_gauge, Unit::Count, "What is wrong now, by alert: stuck-jobs, quota, maintenance, certificate, clock.";
    CLOCK_SKEW = "clock_skew_seconds", describe_gauge, Unit::Seconds, "How far a server's clock is ahead of this process', by server.";
    ORPHANS_REMOVED = "orphan_objects_removed_total", describe_counter, Unit::Count, "Objects that nothing named and that were deleted.";
    SSE_CONNECTIONS = "sse_connections", describe_gauge, Unit::Count, "Open event streams.";
    PROCESS_MEMORY = "process_memory_bytes", describe_gauge, Unit::Bytes, "Memory of this process that is resident.";
    PROCESS_MEMORY_LIMIT = "process_memory_limit_bytes", describe_gauge, Unit::Bytes, "What it may have: the tightest limit of its control groups, or else what the machine has.";
    BUILD_INFO = "build_info", describe_gauge, Unit::Count, "1, labelled with the version.";
}

/// Counters of US dollars. A counter holds whole numbers, so these are counted in nano-USD, exactly, and every text
/// that leaves the process passes through [`in_dollars`].
const COUNTED_IN_NANOUSD: [&str; 2] = [COST_USD, COST_SAVED];

/// Names of models and targets that this process tells apart in its metrics. Where a provider serves every model, whoever
/// submits makes names up, and each is a series that is kept for ever.
const NAMES_MAX: usize = 1_000;

/// What stands for the names beyond those.
const OTHER: &str = "other";

static NAMES: LazyLock<RwLock<HashSet<SharedString>>> = LazyLock::new(RwLock::default);

/// A name of a model or target as a label: itself if it is among the first that this process met, else `other`.
pub fn label(name: &str) -> SharedString {
    label_among(&NAMES, name)
}

fn label_among(names: &RwLock<HashSet<SharedString>>, name: &str) -> SharedString {
    // A set that a panic left is whole: it only grows, by one insert.
    if let Some(known) = names.read().unwrap_or_else(PoisonError::into_inner).get(name) {
        return known.clone();
    }
    let mut names = names.write().unwrap_or_else(PoisonError::into_inner);
    if names.len() >= NAMES_MAX {
        return SharedString::const_str(OTHER);
    }
    let name = SharedString::from(Arc::<str>::from(name));
    names.insert(name.clone());
    name
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
        let names = super::RwLock::default();
        let label = |name: &str| super::label_among(&names, name).to_string();
        let first = label("gpt-4o-mini");
        (1..super::NAMES_MAX).for_each(|n| assert_eq!(label(&format!("m{n}")), format!("m{n}")));
        assert_eq!(
            (first, label("gpt-4o-mini"), label("one more"), label("m7")),
            ("gpt-4o-mini".into(), "gpt-4o-mini".into(), "other".into(), "m7".into())
        );
    }

    #[test]
    fn every_metric_is_ours_and_named_once() {
        let mut names = super::ALL.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), super::ALL.len());
        assert!(names.iter().all(|name| name.starts_with("longshore_")));
    }
}
