//! Spend, memos and charges. Spend and memos ask for no epoch: what was paid for is kept whoever paid.

use rusqlite::params;

use super::{rows, sql::Write, writer::Batch};
use crate::{
    ids::{CallId, Epoch, JobId, Name},
    job::Kind,
    ledger::{Billed, CallRecord, Nanousd, Usage, UsageSource},
};

/// What calls add to the sums of their job's row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub(super) calls: i64,
    pub(super) usage: Usage,
    pub(super) cost: Nanousd,
    pub(super) unknown: bool,
}

impl Sums {
    fn add(&mut self, call: &CallRecord) {
        self.calls += 1;
        self.usage = self.usage.plus(call.usage);
        self.cost = self.cost.plus(call.cost.unwrap_or_default());
        self.unknown |= call.billed == Billed::Yes && call.cost.is_none();
    }
}

/// Stores one call with its answer.
pub(super) fn record(batch: &mut Batch<'_>, call: &CallRecord) -> rusqlite::Result<()> {
    let calls = std::slice::from_ref(call);
    let sums = store_spend(batch, calls)?;
    add_sums(batch, call.job_id, &sums)?;
    keep_memos(batch, calls)
}

/// Stores the spend of calls that are not stored yet, and returns what those add to their job's sums.
pub(super) fn store_spend(batch: &mut Batch<'_>, calls: &[CallRecord]) -> rusqlite::Result<Sums> {
    let mut sums = Sums::default();
    for call in calls {
        if insert_spend(batch, call)? {
            sums.add(call);
        }
    }
    Ok(sums)
}

/// Adds to the sums of a job whatever its state.
pub(super) fn add_sums(batch: &mut Batch<'_>, id: JobId, sums: &Sums) -> rusqlite::Result<()> {
    if sums.calls == 0 {
        return Ok(());
    }
    batch.sql.execute(
        Write::SpendSums,
        params![
            id.as_bytes(),
            sums.calls,
            rows::to_integer(sums.usage.tokens_in),
            rows::to_integer(sums.usage.tokens_out),
            rows::to_integer(sums.usage.tokens_cached),
            rows::to_integer(sums.usage.tokens_cache_write),
            rows::to_integer(sums.usage.tokens_reasoning),
            sums.cost.0,
            sums.unknown,
        ],
    )?;
    Ok(())
}

/// Keeps the answers of calls for the attempts that follow.
pub(super) fn keep_memos(batch: &mut Batch<'_>, calls: &[CallRecord]) -> rusqlite::Result<()> {
    for call in calls {
        let Some(memo) = &call.memo else { continue };
        batch.sql.execute(
            Write::Memo,
            params![call.job_id.as_bytes(), call.call_id.0.as_bytes(), memo.request_hash, &*memo.body,],
        )?;
    }
    Ok(())
}

fn insert_spend(batch: &mut Batch<'_>, call: &CallRecord) -> rusqlite::Result<bool> {
    let changed = batch.sql.execute(
        Write::Spend,
        params![
            call.job_id.as_bytes(),
            call.call_id.0.as_bytes(),
            call.tenant.as_str(),
            call.queue.as_str(),
            call.kind.as_str(),
            call.operation,
            call.epoch.0,
            call.step,
            call.sequence,
            call.provider,
            call.model,
            call.status,
            call.billed.as_str(),
            rows::to_integer(call.usage.tokens_in),
            rows::to_integer(call.usage.tokens_out),
            rows::to_integer(call.usage.tokens_cached),
            rows::to_integer(call.usage.tokens_cache_write),
            rows::to_integer(call.usage.tokens_reasoning),
            call.usage_source.as_str(),
            call.cost.map(|cost| cost.0),
            call.price_version,
            rows::to_integer(call.duration_ms),
            call.provider_request_id,
            call.at.0,
        ],
    )?;
    Ok(changed == 1)
}

/// A job that was lost with its worker, as far as the ledger needs it.
pub(super) struct LostAttempt<'a> {
    pub(super) id: JobId,
    pub(super) epoch: Epoch,
    pub(super) tenant: &'a Name,
    pub(super) queue: &'a Name,
    pub(super) kind: Kind,
    pub(super) operation: Option<String>,
    pub(super) target: &'a Name,
}

/// Counts that a lost attempt may have paid for a call that nobody heard the answer of. Kinds that call no provider
/// leave nothing.
pub(super) fn store_lost(batch: &mut Batch<'_>, lost: LostAttempt<'_>) -> rusqlite::Result<()> {
    if lost.kind == Kind::Probe {
        return Ok(());
    }
    let (provider, model) = provider_and_model(lost.target.as_str());
    let sequence = u32::try_from(lost.epoch.0).unwrap_or(u32::MAX);
    let call = CallRecord {
        call_id: CallId::of(lost.id, "lost", sequence),
        job_id: lost.id,
        tenant: lost.tenant.clone(),
        queue: lost.queue.clone(),
        kind: lost.kind,
        operation: lost.operation,
        epoch: lost.epoch,
        step: "lost".into(),
        sequence,
        provider: provider.into(),
        model: model.into(),
        status: "lost".into(),
        billed: Billed::Maybe,
        usage: Usage::default(),
        usage_source: UsageSource::Estimated,
        cost: None,
        price_version: String::new(),
        duration_ms: 0,
        provider_request_id: None,
        at: batch.now,
        memo: None,
    };
    let sums = store_spend(batch, std::slice::from_ref(&call))?;
    add_sums(batch, lost.id, &sums)
}

/// The first two parts of `provider:model:credential`; a model's own name may contain colons.
fn provider_and_model(target: &str) -> (&str, &str) {
    let (provider, rest) = target.split_once(':').unwrap_or((target, ""));
    (provider, rest.rsplit_once(':').map_or(rest, |(model, _credential)| model))
}

#[cfg(test)]
mod tests {
    use super::provider_and_model;

    #[test]
    fn a_model_may_contain_colons() {
        assert_eq!(provider_and_model("openai:gpt-4o-mini:default"), ("openai", "gpt-4o-mini"));
        assert_eq!(provider_and_model("local:llama3:8b:default"), ("local", "llama3:8b"));
        assert_eq!(provider_and_model("probe"), ("probe", ""));
    }
}
