//! What happens to jobs besides attempts: recoveries, reconciles, cancels, edits and redrives.

use bytes::Bytes;
use rusqlite::{Row, params};

use super::{
    money,
    rows::{self, Cells, ENTRY_COLUMNS, RECOVERIES_COLUMN},
    settle::free_unique_key,
    sql::Write,
    webhooks,
    writer::Batch,
};
use crate::{
    dispatcher::Entry,
    ids::{Epoch, Generation, JobId, Name},
    journal::{Cancelled, Changed, Edit, Interrupted, Recovered, Recovery, Token, lost, totals::TotalsChange},
    state::Standing,
    time::Timestamp,
    webhooks::EventKind,
};

/// Hands on jobs whose worker was lost.
pub(super) fn recover(batch: &mut Batch<'_>, recoveries: &[Recovery]) -> rusqlite::Result<Vec<Recovered>> {
    recoveries.iter().map(|recovery| recover_one(batch, recovery)).collect()
}

/// The row after a recovery.
struct Lost {
    entry: Entry,
    recoveries: u32,
    seq: i64,
    attempts: u32,
    operation: Option<String>,
    unique_key: Option<String>,
    webhook: Option<String>,
}

impl Lost {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let mut cells = Cells::of(row, ENTRY_COLUMNS);
        Ok(Self {
            entry: rows::entry(row)?,
            recoveries: Cells::of(row, RECOVERIES_COLUMN).count()?,
            seq: cells.next()?,
            attempts: cells.count()?,
            operation: cells.next()?,
            unique_key: cells.next()?,
            webhook: cells.next()?,
        })
    }
}

fn recover_one(batch: &mut Batch<'_>, recovery: &Recovery) -> rusqlite::Result<Recovered> {
    let token = recovery.token;
    let values = params![token.id.as_bytes(), token.epoch.0, recovery.blame.count()];
    let lost = batch.sql.find(Write::Recover, values, Lost::read)?;
    let Some(lost) = lost else { return Ok(Recovered::Moved) };
    if let Some(started_at) = recovery.started_at {
        write_lost_attempt(batch, recovery, started_at, &lost)?;
    }
    if lost::convicts(recovery, lost.recoveries) {
        convict(batch, &lost)?;
        return Ok(Recovered::Poisoned);
    }
    Ok(Recovered::Again(lost.entry))
}

fn write_lost_attempt(
    batch: &mut Batch<'_>,
    recovery: &Recovery,
    started_at: Timestamp,
    lost: &Lost,
) -> rusqlite::Result<()> {
    batch.sql.execute(
        Write::Attempt,
        params![
            lost.seq,
            recovery.token.epoch.0,
            lost.attempts + 1,
            "lost",
            recovery.session.0.as_bytes(),
            started_at.0,
            batch.now.0,
            rows::json_text(&lost::attempt_error())?,
        ],
    )?;
    match lost::call_of(&lost.entry, recovery.token.epoch, lost.operation.clone(), batch.now) {
        Some(call) => money::record(batch, &call),
        None => Ok(()),
    }
}

fn convict(batch: &mut Batch<'_>, lost: &Lost) -> rusqlite::Result<()> {
    let error = lost::poison_error();
    batch.sql.execute(
        Write::Convict,
        params![lost.seq, batch.now.0, rows::json_text(&error)?, error.class.as_str(), error.signature],
    )?;
    money::mark_wasted(batch, lost.entry.id)?;
    free_unique_key(batch, lost.entry.id, &lost.entry.tenant, lost.unique_key.as_deref())?;
    let of = (lost.entry.id, &lost.entry.tenant);
    webhooks::tell_end(batch, EventKind::JobDead, of, lost.webhook.as_deref(), batch.now)?;
    count_end(batch, &lost.entry.queue, &lost.entry.tenant, Standing::Dead);
    Ok(())
}

fn count_end(batch: &mut Batch<'_>, queue: &Name, tenant: &Name, standing: Standing) {
    if let Some(change) = TotalsChange::of_end(standing) {
        batch.count(queue, tenant, change);
    }
}

/// Hands on live jobs that the dispatcher does not know.
pub(super) fn reconcile(batch: &mut Batch<'_>, unknown: &[Token]) -> rusqlite::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for token in unknown {
        let values = params![token.id.as_bytes(), token.epoch.0];
        entries.extend(batch.sql.find(Write::Reconcile, values, rows::entry)?);
    }
    Ok(entries)
}

/// Ends a live job because someone asked for it.
pub(super) fn cancel(
    batch: &mut Batch<'_>,
    (id, reason, attempt, now): &(JobId, Option<String>, Option<Interrupted>, Timestamp),
) -> rusqlite::Result<Cancelled> {
    let cancelled = batch.sql.find(Write::Cancel, params![id.as_bytes(), now.0, reason], CancelledRow::read)?;
    let Some(row) = cancelled else {
        return Ok(standing(batch, *id)?.map_or(Cancelled::Missing, |(standing, _)| Cancelled::Final(standing)));
    };
    let before = Epoch(row.epoch - 1);
    if let Some(attempt) = attempt.filter(|attempt| attempt.epoch == before) {
        let (session, none) = (attempt.session.0, None::<String>);
        batch.sql.execute(
            Write::Attempt,
            params![
                row.seq,
                before.0,
                row.attempts + 1,
                "cancel",
                session.as_bytes(),
                attempt.started_at.0,
                now.0,
                none
            ],
        )?;
    }
    free_unique_key(batch, *id, &row.tenant, row.unique_key.as_deref())?;
    let of = (*id, &row.tenant);
    webhooks::tell_end(batch, EventKind::JobCancelled, of, row.webhook.as_deref(), *now)?;
    count_end(batch, &row.queue, &row.tenant, Standing::Cancelled);
    Ok(Cancelled::Done(before))
}

/// The row after a cancel.
struct CancelledRow {
    epoch: i64,
    tenant: Name,
    queue: Name,
    unique_key: Option<String>,
    seq: i64,
    attempts: i64,
    webhook: Option<String>,
}

impl CancelledRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let mut cells = Cells::of(row, 0);
        Ok(Self {
            epoch: cells.next()?,
            tenant: cells.name()?,
            queue: cells.name()?,
            unique_key: cells.next()?,
            seq: cells.next()?,
            attempts: cells.next()?,
            webhook: cells.next()?,
        })
    }
}

/// Changes a live job.
pub(super) fn edit(
    batch: &mut Batch<'_>,
    (id, seen, edit): &(JobId, Option<Epoch>, Edit),
) -> rusqlite::Result<Changed> {
    let payload = edit.payload.as_ref();
    let edited = batch.sql.find(
        Write::Edit,
        params![
            id.as_bytes(),
            seen.map(|epoch| epoch.0),
            edit.priority,
            edit.run_at.map(|at| at.0),
            payload.map(|(_, target)| target.as_str()),
        ],
        |row| Ok((rows::entry(row)?, row.get::<_, i64>(ENTRY_COLUMNS)?)),
    )?;
    let Some((entry, seq)) = edited else {
        return Ok(match standing(batch, *id)? {
            None => Changed::Missing,
            Some((Standing::Live, epoch)) => Changed::Stale(epoch),
            Some((standing, _)) => Changed::Refused(standing),
        });
    };
    if let Some((body, _)) = payload {
        batch.sql.execute(Write::EditPayload, params![seq, &**body])?;
    }
    Ok(Changed::Done(entry))
}

/// Gives a dead letter another life, if it is dead at the epoch that the caller saw. Its unique key comes back where no other
/// job took it meanwhile.
pub(super) fn redrive(
    batch: &mut Batch<'_>,
    (id, seen, payload, now): &(JobId, Option<Epoch>, Option<(Bytes, Name)>, Timestamp),
) -> rusqlite::Result<Changed> {
    let target = payload.as_ref().map(|(_, target)| target.as_str());
    let values = params![id.as_bytes(), now.0, target, seen.map(|epoch| epoch.0)];
    let redriven = batch.sql.find(Write::Redrive, values, |row| {
        let mut cells = Cells::of(row, ENTRY_COLUMNS);
        Ok((rows::entry(row)?, cells.next::<Option<String>>()?, cells.next::<i64>()?))
    })?;
    let Some((entry, unique_key, seq)) = redriven else {
        return Ok(standing(batch, *id)?.map_or(Changed::Missing, |(standing, _)| Changed::Refused(standing)));
    };
    if let Some(key) = unique_key {
        batch.sql.execute(Write::UniqueTake, params![entry.tenant.as_str(), key, id.as_bytes()])?;
    }
    if let Some((body, _)) = payload {
        batch.sql.execute(Write::EditPayload, params![seq, &**body])?;
    }
    batch.sql.execute(Write::WasteNot, [id.as_bytes()])?;
    batch.count(&entry.queue, &entry.tenant, TotalsChange::REDRIVEN);
    Ok(Changed::Done(entry))
}

fn standing(batch: &mut Batch<'_>, id: JobId) -> rusqlite::Result<Option<(Standing, Epoch)>> {
    batch.sql.find(Write::Standing, [id.as_bytes()], |row| Ok((rows::standing(row.get(0)?)?, Epoch(row.get(1)?))))
}

/// Begins a new life of the dispatcher.
pub(super) fn new_generation(batch: &mut Batch<'_>, (): &()) -> rusqlite::Result<Generation> {
    batch.sql.one(Write::Generation, [batch.now.0], |row| row.get(0)).map(Generation)
}

/// Writes and commits a page, or fails as any write would.
pub(super) fn check(batch: &mut Batch<'_>, (): &()) -> rusqlite::Result<()> {
    batch.sql.execute(Write::Check, [batch.now.0])?;
    Ok(())
}
