//! The line that an attempt leaves in the log. It says whose job it was, what came of it and what it took, and no word of what was
//! asked or answered.

use queue_core::{
    error::JobError,
    job::Job,
    ledger::{CallRecord, Nanousd, Usage},
    time::Timestamp,
    traces,
};

/// What the calls of an attempt have used and cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bill {
    /// Tokens.
    pub(crate) usage: Usage,
    /// `None` once one of them has no price.
    pub(crate) cost: Option<Nanousd>,
}

impl Default for Bill {
    fn default() -> Self {
        Self { usage: Usage::default(), cost: Some(Nanousd(0)) }
    }
}

impl Bill {
    /// With one call more.
    pub(crate) fn add(&mut self, call: &CallRecord) {
        self.usage = self.usage.plus(call.usage);
        self.cost = self.cost.zip(call.cost).map(|(sum, more)| Nanousd(sum.0.saturating_add(more.0)));
    }
}

/// An attempt that has ended.
pub(crate) struct Attempt<'a> {
    pub(crate) job: &'a Job,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
    /// `succeed`, `retry`, `dead`, `release`, `cancel` or `lost`.
    pub(crate) outcome: &'static str,
    pub(crate) error: Option<&'a JobError>,
    pub(crate) bill: Bill,
}

impl Attempt<'_> {
    /// Writes the line.
    pub(crate) fn log(&self) {
        let Self { job, bill, .. } = self;
        tracing::info!(
            request_id = job.request_id,
            trace_id = job.traceparent.as_deref().and_then(traces::trace_id),
            job_id = %job.id,
            tenant = %job.tenant,
            queue = %job.queue,
            kind = job.kind.as_str(),
            operation = job.operation,
            attempt = job.attempts + 1,
            outcome = self.outcome,
            error_class = self.error.map(|error| error.class.as_str()),
            error_code = self.error.map(|error| error.code.as_str()),
            duration_ms = self.finished_at.since_ms(self.started_at),
            tokens = bill.usage.tokens_in.saturating_add(bill.usage.tokens_out),
            tokens_in = bill.usage.tokens_in,
            tokens_out = bill.usage.tokens_out,
            cost_usd = bill.cost.map(|cost| cost.to_string()),
            "attempt ended"
        );
    }
}
