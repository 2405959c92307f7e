//! Ends an attempt: state, attempt row, result, charge and spend in one transaction.

use rusqlite::{Row, params};

use super::{
    money,
    rows::{self, Cells},
    sql::Write,
    webhooks,
    writer::Batch,
};
use crate::{
    error::JobError,
    ids::{JobId, Name},
    journal::{Due, Outcome, Settled, Settlement, totals::TotalsChange},
    ledger::Sums,
    state::Standing,
    time::Timestamp,
    webhooks::EventKind,
};

/// Settles once: money first, because it is stored whether or not the claim still holds.
pub(super) fn settle(batch: &mut Batch<'_>, settlement: &Settlement) -> rusqlite::Result<Settled> {
    let id = settlement.token.id;
    let sums = money::store_spend(batch, &settlement.calls)?;
    money::store_savings(batch, &settlement.savings)?;
    let Some(claimed) = find(batch, settlement)? else {
        money::add_sums(batch, id, &sums)?;
        money::keep_memos(batch, &settlement.calls)?;
        return Ok(Settled::Fenced);
    };
    let to = Move::of(settlement, batch.now)?;
    move_job(batch, settlement, &to, &sums, claimed.seq)?;
    write_attempt(batch, settlement, &to, &claimed)?;
    if let Outcome::Succeed { result } = &settlement.outcome {
        batch.sql.execute(Write::Result, params![claimed.seq, &**result])?;
        write_charge(batch, settlement, &claimed, &sums)?;
    } else {
        money::keep_memos(batch, &settlement.calls)?;
    }
    if to.standing == Standing::Dead {
        money::mark_wasted(batch, id)?;
    }
    if let Some(event) = EventKind::of_end(to.standing) {
        webhooks::tell_end(batch, event, (id, &claimed.tenant), claimed.webhook.as_deref(), settlement.finished_at)?;
    }
    if to.standing.is_final() {
        free_unique_key(batch, id, &claimed.tenant, claimed.unique_key.as_deref())?;
    }
    if let Some(change) = TotalsChange::of_end(to.standing) {
        batch.count(&claimed.queue, &claimed.tenant, change);
    }
    let epoch = if to.standing.is_final() { settlement.token.epoch } else { settlement.token.epoch.next() };
    Ok(Settled::Done { standing: to.standing, epoch, run_at: to.run_at.unwrap_or(claimed.run_at) })
}

/// Frees the key of a job that ended, if it has one.
pub(super) fn free_unique_key(
    batch: &mut Batch<'_>,
    id: JobId,
    tenant: &Name,
    key: Option<&str>,
) -> rusqlite::Result<()> {
    if let Some(key) = key {
        batch.sql.execute(Write::UniqueFree, params![tenant.as_str(), key, id.as_bytes()])?;
    }
    Ok(())
}

/// What an outcome does to the row.
struct Move<'a> {
    standing: Standing,
    spends_attempt: bool,
    released: bool,
    run_at: Option<Timestamp>,
    error: Option<&'a JobError>,
    error_text: Option<String>,
    /// The target of its lane from now on.
    target: Option<&'a Name>,
}

impl<'a> Move<'a> {
    fn of(settlement: &'a Settlement, now: Timestamp) -> rusqlite::Result<Self> {
        let moment = |due: &Due| match *due {
            Due::At(at) => at,
            Due::After(wait) => now.plus(wait),
        };
        let (standing, run_at, error) = match &settlement.outcome {
            Outcome::Succeed { .. } => (Standing::Succeeded, None, None),
            Outcome::Dead { error } => (Standing::Dead, None, Some(error)),
            Outcome::Retry { due, error } => (Standing::Live, Some(moment(due)), Some(error)),
            Outcome::Release { due, error, .. } => (Standing::Live, Some(moment(due)), error.as_ref()),
        };
        let released = matches!(settlement.outcome, Outcome::Release { .. });
        let error_text = error.map(rows::json_text).transpose()?;
        let target = match &settlement.outcome {
            Outcome::Release { target, .. } => target.as_ref(),
            _ => None,
        };
        Ok(Self { standing, spends_attempt: !released, released, run_at, error, error_text, target })
    }
}

/// The row before the move, as far as the settle needs it.
struct Claimed {
    seq: i64,
    tenant: Name,
    queue: Name,
    kind: String,
    operation: Option<String>,
    unique_key: Option<String>,
    attempts: u32,
    run_at: Timestamp,
    calls: i64,
    cost_nanousd: i64,
    webhook: Option<String>,
}

impl Claimed {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let mut cells = Cells::of(row, 0);
        Ok(Self {
            seq: cells.next()?,
            tenant: cells.name()?,
            queue: cells.name()?,
            kind: cells.next()?,
            operation: cells.next()?,
            unique_key: cells.next()?,
            attempts: cells.count()?,
            run_at: cells.time()?,
            calls: cells.next()?,
            cost_nanousd: cells.next()?,
            webhook: cells.next()?,
        })
    }
}

fn find(batch: &mut Batch<'_>, settlement: &Settlement) -> rusqlite::Result<Option<Claimed>> {
    if settlement.incarnation != batch.incarnation {
        return Ok(None);
    }
    let token = settlement.token;
    batch.sql.find(Write::SettleFind, params![token.id.as_bytes(), token.epoch.0], Claimed::read)
}

fn move_job(
    batch: &mut Batch<'_>,
    settlement: &Settlement,
    to: &Move<'_>,
    sums: &Sums,
    seq: i64,
) -> rusqlite::Result<()> {
    let live = to.standing == Standing::Live;
    let changed = batch.sql.execute(
        Write::Settle,
        params![
            seq,
            settlement.token.epoch.0,
            to.standing.code(),
            live,
            to.spends_attempt,
            to.released,
            to.run_at.map(|at| at.0),
            (!live).then_some(settlement.finished_at.0),
            to.error_text,
            to.error.map(|error| error.class.as_str()),
            to.error.map(|error| error.signature.as_str()),
            settlement.served_by,
            sums.calls,
            rows::to_integer(sums.usage.tokens_in),
            rows::to_integer(sums.usage.tokens_out),
            rows::to_integer(sums.usage.tokens_cached),
            rows::to_integer(sums.usage.tokens_cache_write),
            rows::to_integer(sums.usage.tokens_reasoning),
            sums.cost.0,
            sums.unknown,
            to.target.map(Name::as_str),
        ],
    )?;
    if changed == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(changed)) }
}

fn write_attempt(
    batch: &mut Batch<'_>,
    settlement: &Settlement,
    to: &Move<'_>,
    claimed: &Claimed,
) -> rusqlite::Result<()> {
    batch.sql.execute(
        Write::Attempt,
        params![
            claimed.seq,
            settlement.token.epoch.0,
            claimed.attempts + 1,
            settlement.outcome.as_str(),
            settlement.session.0.as_bytes(),
            settlement.started_at.0,
            settlement.finished_at.0,
            to.error_text,
        ],
    )?;
    Ok(())
}

/// A job that called nobody has nothing to be charged for and leaves no row.
fn write_charge(
    batch: &mut Batch<'_>,
    settlement: &Settlement,
    claimed: &Claimed,
    sums: &Sums,
) -> rusqlite::Result<()> {
    if claimed.calls + sums.calls == 0 {
        return Ok(());
    }
    batch.sql.execute(
        Write::Charge,
        params![
            settlement.token.id.as_bytes(),
            claimed.tenant.as_str(),
            claimed.queue.as_str(),
            claimed.kind,
            claimed.operation,
            claimed.cost_nanousd.saturating_add(sums.cost.0),
            settlement.finished_at.0,
        ],
    )?;
    Ok(())
}
