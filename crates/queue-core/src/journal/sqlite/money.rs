//! Spend, memos and charges. Spend and memos ask for no epoch: what was paid for is kept whoever paid.

use rusqlite::params;

use super::{rows, sql::Write, writer::Batch};
use crate::{
    ids::{JobId, Name},
    ledger::{CallRecord, Saving, Sums},
};

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
            rows::to_integer(call.usage.tokens_cache_write_long),
            rows::to_integer(call.usage.tokens_audio_in),
            rows::to_integer(call.usage.tokens_audio_out),
            call.tier.as_str(),
            call.usage_source.as_str(),
            call.cost.map(|cost| cost.0),
            call.price_version,
            rows::to_integer(call.duration_ms),
            call.provider_request_id,
            call.at.0,
            call.key_id.as_ref().map(Name::as_str),
            call.credential,
        ],
    )?;
    Ok(changed == 1)
}

/// Stores what attempts did not have to pay for.
pub(super) fn store_savings(batch: &mut Batch<'_>, savings: &[Saving]) -> rusqlite::Result<()> {
    for saving in savings {
        batch.sql.execute(
            Write::Saving,
            params![
                saving.job_id.as_bytes(),
                saving.call_id.0.as_bytes(),
                saving.epoch.0,
                saving.reason.as_str(),
                saving.tenant.as_str(),
                saving.queue.as_str(),
                saving.kind.as_str(),
                saving.operation,
                saving.provider,
                saving.model,
                rows::to_integer(saving.usage.tokens_in),
                rows::to_integer(saving.usage.tokens_out),
                saving.saved.map(|saved| saved.0),
                saving.at.0,
            ],
        )?;
    }
    Ok(())
}

/// Marks what was paid for a job that is a dead letter now.
pub(super) fn mark_wasted(batch: &mut Batch<'_>, dead: JobId) -> rusqlite::Result<()> {
    batch.sql.execute(Write::Waste, [dead.as_bytes()])?;
    Ok(())
}
