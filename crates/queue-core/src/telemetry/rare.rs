//! Counters of what seldom happens begin at zero. A series that appears with its first event has not grown in Prometheus' eyes,
//! and the alert about that event would stay silent.

use metrics::Label;

use super::{
    ANSWERS, AUDIT_LOST, BACKUPS, BUDGET_ALERTS, HTTP_RATE_LIMITED, ORPHANS_REMOVED, RECONCILED, RECOVERIES,
    RENEW_FAILURES, RETENTION_FAILURES, SCHEDULE_TICKS, SETTLE_REJECTED, UPKEEP_CHORES, WEBHOOK_DELIVERIES,
};

/// What a process does, as far as it decides what may happen in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It answers requests.
    Api,
    /// It runs jobs.
    Worker,
    /// It keeps the clockwork.
    Scheduler,
}

/// A counter with the values of its labels: as many series as there are combinations.
type Rare = (&'static str, &'static [(&'static str, &'static [&'static str])]);

const OF_API: &[Rare] = &[
    (AUDIT_LOST, &[]),
    (HTTP_RATE_LIMITED, &[("limit", &["key_requests", "key_llm_submits", "tenant_requests", "tenant_llm_submits"])]),
];

const OF_WORKER: &[Rare] = &[
    (
        ANSWERS,
        &[("kind", &["llm", "analysis"]), ("outcome", &["good", "repaired", "invalid", "truncated", "withheld"])],
    ),
    (RENEW_FAILURES, &[]),
    (SETTLE_REJECTED, &[("reason", &["fenced"])]),
];

const OF_SCHEDULER: &[Rare] = &[
    (BACKUPS, &[("work", &["create", "verify", "drill", "prune"]), ("outcome", &["good", "failed"])]),
    (
        BUDGET_ALERTS,
        &[
            ("scope", &["installation", "tenant", "key"]),
            ("period", &["day", "month"]),
            ("level", &["50", "80", "100"]),
        ],
    ),
    (ORPHANS_REMOVED, &[]),
    (RECONCILED, &[]),
    (RECOVERIES, &[("reason", &["lost_worker", "poison", "moved"])]),
    (RETENTION_FAILURES, &[("class", RETAINED)]),
    (SCHEDULE_TICKS, &[("outcome", &["submitted", "backfilled", "overlapped", "missed", "refused", "delayed"])]),
    (UPKEEP_CHORES, &[("chore", CHORES), ("outcome", &["done", "failed"])]),
    (UPKEEP_CHORES, &[("chore", &["any"]), ("outcome", &["no_right"])]),
    (WEBHOOK_DELIVERIES, &[("outcome", &["delivered", "retry", "failed", "dropped", "unsigned"])]),
];

const RETAINED: &[&str] = &[
    "jobs",
    "payloads",
    "errors",
    "results",
    "idempotency_keys",
    "cost_details",
    "webhook_deliveries",
    "audit",
    "dead_letters",
    "operations",
    "archives",
];

const CHORES: &[&str] = &["drop_leftover", "vacuum", "analyze", "reindex", "optimize", "check", "shrink"];

/// Shows the counters of what seldom happens in this part at zero. Call when it begins; a second call changes nothing.
pub fn begin_rare(part: Part) {
    let rare = match part {
        Part::Api => OF_API,
        Part::Worker => OF_WORKER,
        Part::Scheduler => OF_SCHEDULER,
    };
    for (name, labels) in rare {
        for series in combinations(labels) {
            metrics::counter!(*name, series).increment(0);
        }
    }
}

fn combinations(labels: &[(&'static str, &'static [&'static str])]) -> Vec<Vec<Label>> {
    labels.iter().fold(vec![vec![]], |chosen: Vec<Vec<Label>>, (name, values)| {
        let with = |before: &Vec<Label>, value| {
            let mut with = before.clone();
            with.push(Label::from_static_parts(name, value));
            with
        };
        chosen.iter().flat_map(|before| values.iter().map(|value| with(before, value)).collect::<Vec<_>>()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{budget::LEVELS, retention::Class, upkeep::Chore};

    #[test]
    fn all_combinations_are_there_once() {
        let of = |rare: &[Rare]| rare.iter().map(|(_, labels)| combinations(labels).len()).sum::<usize>();
        assert_eq!((of(OF_API), of(OF_WORKER)), (5, 12));
        let first = &combinations(OF_WORKER[0].1)[1];
        assert_eq!((first[0].value(), first[1].key(), first[1].value()), ("llm", "outcome", "repaired"));
    }

    #[test]
    fn the_words_are_those_that_are_counted() {
        for class in RETAINED {
            assert!(Class::parse(class).is_some(), "{class}");
        }
        let name = || "jobs".to_owned();
        let chores = [
            Chore::DropLeftover(name()),
            Chore::Vacuum(name()),
            Chore::Analyze(name()),
            Chore::Reindex(name()),
            Chore::Optimize,
            Chore::Check,
            Chore::Shrink,
        ];
        assert_eq!(chores.map(|chore| chore.as_str()), CHORES);
        assert_eq!(LEVELS.map(|level| level.to_string()), ["50", "80", "100"]);
    }
}
