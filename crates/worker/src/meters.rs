//! The metrics of attempts, by handles that are looked up once where it can be: finding them by their labels for every job
//! costs more than recording.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use metrics::{Counter, Histogram, SharedString};
use queue_core::{
    error::JobError,
    job::{Job, Kind},
    journal::{Outcome, Settlement},
    ledger::Nanousd,
    state::Standing,
    telemetry,
    time::Timestamp,
};

/// Ends of attempts that are told apart, by queue, kind and outcome: whoever uses every kind in every queue shares the rest. An end is a
/// counter and a histogram, of 16 series together.
const ENDS_MAX: usize = 48;

/// The handles that one worker asked for: as many as there are series, which their labels bound.
#[derive(Default)]
pub(crate) struct Meters {
    waits: Mutex<HashMap<SharedString, Histogram>>,
    ends: Mutex<HashMap<(SharedString, Kind, &'static str), End>>,
    costs: Mutex<HashMap<(Kind, &'static str), Histogram>>,
}

/// A histogram of dollars is for people: sums are the ledger's.
const NANOUSD_PER_USD: f64 = 1e9;

/// What is counted of an attempt that was settled.
#[derive(Clone)]
struct End {
    settled: Counter,
    took: Histogram,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Meters {
    /// The job's handler begins.
    pub(crate) fn start(&self, job: &Job, started_at: Timestamp, ready_at: Timestamp) {
        let waited = started_at.since_ms(ready_at) as f64 / 1_000.0;
        let queue = telemetry::queue(job.queue.as_str());
        lock(&self.waits)
            .entry(queue.clone())
            .or_insert_with(|| metrics::histogram!(telemetry::JOB_WAIT, "queue" => queue))
            .record(waited);
    }

    /// The attempt is about to be settled so.
    pub(crate) fn end(&self, job: &Job, settlement: &Settlement) {
        let outcome = settlement.outcome.as_str();
        let class = error_of(&settlement.outcome).map(|error| error.class.as_str());
        let took = settlement.finished_at.since_ms(settlement.started_at) as f64 / 1_000.0;
        let end = self.end_of(job.queue.as_str(), job.kind, outcome);
        end.settled.increment(1);
        end.took.record(took);
        count_attempt(job.kind, outcome, class.unwrap_or(NO_ERROR));
    }

    fn end_of(&self, queue: &str, kind: Kind, outcome: &'static str) -> End {
        let mut ends = lock(&self.ends);
        let mut key = (telemetry::queue(queue), kind, outcome);
        if ends.len() >= ENDS_MAX && !ends.contains_key(&key) {
            key.0 = SharedString::const_str(telemetry::OTHER);
        }
        ends.entry(key.clone()).or_insert_with(|| End::find(&key)).clone()
    }

    /// The job has ended, after so much over all its attempts. Kinds that call nobody cost nothing.
    pub(crate) fn cost(&self, job: &Job, standing: Standing, cost: Nanousd) {
        if !job.kind.asks_providers() {
            return;
        }
        let outcome = match standing {
            Standing::Succeeded => "succeed",
            Standing::Live | Standing::Dead | Standing::Cancelled => "dead",
        };
        lock(&self.costs)
            .entry((job.kind, outcome))
            .or_insert_with(
                || metrics::histogram!(telemetry::JOB_COST, "kind" => job.kind.as_str(), "outcome" => outcome),
            )
            .record(cost.0 as f64 / NANOUSD_PER_USD);
    }

    /// The attempt ended without a settle of its own.
    pub(crate) fn end_unsettled(&self, job: &Job, outcome: &'static str) {
        count_attempt(job.kind, outcome, NO_ERROR);
    }
}

const NO_ERROR: &str = "none";

impl End {
    fn find((queue, kind, outcome): &(SharedString, Kind, &'static str)) -> Self {
        let labels = [("queue", queue.clone()), ("kind", kind.as_str().into()), ("outcome", (*outcome).into())];
        Self {
            settled: metrics::counter!(telemetry::JOBS_SETTLED, &labels),
            took: metrics::histogram!(telemetry::JOB_DURATION, &labels),
        }
    }
}

/// Why an attempt has not succeeded.
pub(crate) fn error_of(outcome: &Outcome) -> Option<&JobError> {
    match outcome {
        Outcome::Retry { error, .. } | Outcome::Dead { error } => Some(error),
        Outcome::Release { error, .. } => error.as_ref(),
        Outcome::Succeed { .. } => None,
    }
}

fn count_attempt(kind: Kind, outcome: &'static str, class: &'static str) {
    metrics::counter!(telemetry::ATTEMPTS, "kind" => kind.as_str(), "outcome" => outcome, "error_class" => class)
        .increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_queues_with_every_kind_share_what_is_left() {
        let meters = Meters::default();
        let outcomes = ["succeed", "retry", "dead", "release"];
        for number in 0..1_000 {
            for kind in Kind::ALL {
                for outcome in outcomes {
                    let _ = meters.end_of(&format!("made-up-{number}"), kind, outcome);
                }
            }
        }
        let ends = lock(&meters.ends);
        assert!(ends.len() <= ENDS_MAX + Kind::ALL.len() * outcomes.len(), "{}", ends.len());
        assert!(ends.keys().any(|(queue, ..)| &**queue == telemetry::OTHER));
    }
}
