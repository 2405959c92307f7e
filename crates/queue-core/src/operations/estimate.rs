//! What jobs are expected to cost when they run again: what jobs like them have cost lately.
//!
//! A job's own past says little: most dead letters failed before anybody was paid. So the estimate is the mean spend of a
//! job of its queue, operation and model over the last [`SINCE_MS`]; where no such job has run, what it has cost itself.
//! Answers that were kept make the real cost lower, and what was never priced is told apart as unknown.

use std::collections::BTreeMap;

use crate::{
    job::{Job, Kind},
    journal::{CostColumn, CostQuery, CostRow, JournalError, Ledger},
    ledger::Nanousd,
    route,
    time::Timestamp,
};

/// How far back jobs are looked at.
pub const SINCE_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// In the order in which the report is asked for them.
const COLUMNS: [CostColumn; 3] = [CostColumn::Queue, CostColumn::Operation, CostColumn::Model];

/// What jobs have cost lately.
#[derive(Clone, Debug, Default)]
pub struct Estimates {
    /// The mean spend of a job by queue, operation (empty: none) and model.
    means: BTreeMap<[String; 3], Nanousd>,
}

impl Estimates {
    /// Asks the ledger once: sums of days, so its cost does not grow with the calls.
    ///
    /// # Errors
    /// The journal's.
    pub async fn load(ledger: &dyn Ledger, now: Timestamp) -> Result<Self, JournalError> {
        let rows = ledger.costs(&CostQuery::new(&COLUMNS, now.plus_ms(-SINCE_MS), now)).await?;
        Ok(Self { means: rows.into_iter().filter_map(mean).collect() })
    }

    /// What this job is expected to cost when it runs again.
    pub fn of(&self, job: &Job) -> Option<Nanousd> {
        if job.kind == Kind::Probe {
            return Some(Nanousd(0));
        }
        let model = route::targets_of(&job.target).into_iter().next().map(|target| target.model.to_string());
        let operation = job.operation.clone().unwrap_or_default();
        let like = [job.queue.to_string(), operation, model.unwrap_or_default()];
        // A job that was never paid for says nothing about its price.
        self.means.get(&like).copied().or_else(|| job.cost.filter(|cost| cost.0 > 0))
    }
}

/// The mean of a line, where its calls have prices and some job began with it.
fn mean(row: CostRow) -> Option<([String; 3], Nanousd)> {
    let jobs = i64::try_from(row.jobs).ok().filter(|jobs| *jobs > 0)?;
    if row.calls_unpriced > 0 {
        return None;
    }
    let [queue, operation, model] = <[String; 3]>::try_from(row.group).ok()?;
    Some(([queue, operation, model], Nanousd(row.spend.0 / jobs)))
}
