//! The metrics of attempts, by handles that are looked up once where it can be: finding them by their labels for every job
//! costs more than recording.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use metrics::{Counter, Histogram};
use queue_core::{
    ids::Name,
    job::{Job, Kind},
    journal::{Outcome, Settlement},
    ledger::Nanousd,
    state::Standing,
    telemetry,
    time::Timestamp,
};

/// The handles that one worker asked for: as many as there are series, which their labels bound.
#[derive(Default)]
pub(crate) struct Meters {
    waits: Mutex<HashMap<Name, Histogram>>,
    ends: Mutex<HashMap<(Name, Kind, &'static str), End>>,
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
        let mut waits = lock(&self.waits);
        match waits.get(&job.queue) {
            Some(wait) => wait.record(waited),
            None => {
                let wait = metrics::histogram!(telemetry::JOB_WAIT, "queue" => job.queue.shared());
                wait.record(waited);
                waits.insert(job.queue.clone(), wait);
            }
        }
    }

    /// The attempt is about to be settled so.
    pub(crate) fn end(&self, job: &Job, settlement: &Settlement) {
        let outcome = settlement.outcome.as_str();
        let class = match &settlement.outcome {
            Outcome::Retry { error, .. } | Outcome::Dead { error } => Some(error.class.as_str()),
            Outcome::Release { error, .. } => error.as_ref().map(|error| error.class.as_str()),
            Outcome::Succeed { .. } => None,
        };
        let took = settlement.finished_at.since_ms(settlement.started_at) as f64 / 1_000.0;
        let end = lock(&self.ends)
            .entry((job.queue.clone(), job.kind, outcome))
            .or_insert_with(|| End::find(job, outcome))
            .clone();
        end.settled.increment(1);
        end.took.record(took);
        count_attempt(job.kind, outcome, class.unwrap_or(NO_ERROR));
        tracing::debug!(
            job_id = %job.id, tenant = %job.tenant, queue = %job.queue, kind = job.kind.as_str(), outcome,
            class = class.unwrap_or(NO_ERROR), "attempt ended"
        );
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
    fn find(job: &Job, outcome: &'static str) -> Self {
        let (queue, kind) = (|| job.queue.shared(), job.kind.as_str());
        Self {
            settled: metrics::counter!(telemetry::JOBS_SETTLED, "queue" => queue(), "kind" => kind, "outcome" => outcome),
            took: metrics::histogram!(telemetry::JOB_DURATION, "queue" => queue(), "kind" => kind, "outcome" => outcome),
        }
    }
}

fn count_attempt(kind: Kind, outcome: &'static str, class: &'static str) {
    metrics::counter!(telemetry::ATTEMPTS, "kind" => kind.as_str(), "outcome" => outcome, "error_class" => class)
        .increment(1);
}
