//! Operations on many jobs, and their steps.

use std::collections::HashSet;

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use super::{
    SqliteJournal, archives, protocol,
    rows::{self, Cells},
    sql::{Write, read},
    writer::Batch,
};
use crate::{
    dispatcher::Entry,
    ids::{JobId, Name, Nonce, OperationId},
    journal::{
        Blame, Cancelled, Changed, Interrupted, JournalError, PAGE_MAX_ROWS, Recovered, Recovery, Token,
        totals::TotalsChange,
    },
    ledger::Nanousd,
    operations::{
        Aborted, Action, Begun, Counts, KEPT_MS, Operation, OperationState, Operations, Order, Pick, Step, Stepped,
        counted,
    },
    state::Standing,
    time::Timestamp,
};

#[async_trait]
impl Operations for SqliteJournal {
    async fn begin(&self, id: OperationId, order: Order, now: Timestamp) -> Result<Begun, JournalError> {
        self.writer.submit(1, (id, order, now), begin).await
    }

    async fn operation(&self, id: OperationId) -> Result<Option<Operation>, JournalError> {
        self.readers
            .read(move |connection| {
                connection.prepare_cached(read::OPERATION)?.query_row([id.0.as_bytes()], operation).optional()
            })
            .await
    }

    async fn operations(
        &self,
        behind: Option<OperationId>,
        running: bool,
        limit: usize,
    ) -> Result<Vec<Operation>, JournalError> {
        let limit = limit.min(PAGE_MAX_ROWS) as i64;
        self.readers
            .read(move |connection| {
                let behind = behind.map(|id| id.0.as_bytes().to_vec());
                let mut statement = connection.prepare_cached(read::OPERATIONS)?;
                statement.query_map(params![behind, running, limit], operation)?.collect()
            })
            .await
    }

    async fn take(&self, id: OperationId, beat: i64, owner: Option<Uuid>) -> Result<Option<Operation>, JournalError> {
        self.writer.submit(1, (id, beat, owner), take).await
    }

    async fn step(&self, step: Step, now: Timestamp) -> Result<Stepped, JournalError> {
        let rows = 1 + step.picks.len();
        self.writer.submit(rows, (step, now), walk).await
    }

    async fn abort(&self, id: OperationId, now: Timestamp) -> Result<Aborted, JournalError> {
        self.writer.submit(1, (id, now), abort).await
    }
}

/// The columns of an operation.
fn operation(row: &Row<'_>) -> rusqlite::Result<Operation> {
    let mut cells = Cells::of(row, 0);
    let id = OperationId(cells.id()?);
    let (action, goal) = (cells.word(Action::parse)?, cells.word_if_any(Action::parse)?);
    let queue = cells.name()?.if_any();
    let (dry_run, filter) = (cells.next()?, cells.next()?);
    let order = Order {
        action,
        goal,
        queue,
        dry_run,
        filter,
        rate_per_s: cells.count()?,
        max_jobs: cells.count_if_any()?,
        max_cost: cells.next::<Option<i64>>()?.map(Nanousd),
        force: cells.next()?,
        reason: cells.next()?,
        asked_by: cells.name()?,
    };
    Ok(Operation {
        id,
        order,
        state: cells.word(OperationState::parse)?,
        owner: cells.next::<Option<[u8; 16]>>()?.map(Uuid::from_bytes),
        beat: cells.next()?,
        behind: cells.next::<Option<[u8; 16]>>()?.map(|id| JobId(Uuid::from_bytes(id))),
        counts: Counts {
            matched: cells.count()?,
            done: cells.count()?,
            skipped: cells.count()?,
            failed: cells.count()?,
            cost: Nanousd(cells.next()?),
            unestimated: cells.count()?,
        },
        error: cells.next()?,
        accepted_at: cells.time()?,
        finished_at: cells.time_if_any()?,
    })
}

fn begin(batch: &mut Batch<'_>, (id, order, now): &(OperationId, Order, Timestamp)) -> rusqlite::Result<Begun> {
    batch.sql.execute(Write::OperationPrune, [now.0 - KEPT_MS])?;
    let values = params![
        id.0.as_bytes(),
        order.action.as_str(),
        order.goal.map(Action::as_str),
        order.queue_word(),
        order.dry_run,
        order.filter,
        order.rate_per_s,
        order.max_jobs.map(rows::to_integer),
        order.max_cost.map(|cost| cost.0),
        order.force,
        order.reason,
        order.asked_by.as_str(),
        now.0,
    ];
    let is_new = batch.sql.execute(Write::OperationBegin, values)? > 0;
    let values = params![id.0.as_bytes(), order.action.as_str(), order.queue_word(), order.dry_run];
    let there = batch.sql.one(Write::OperationInTheWay, values, operation)?;
    Ok(if is_new || there.id == *id { Begun::New(there) } else { Begun::InTheWay(there) })
}

fn take(
    batch: &mut Batch<'_>,
    (id, beat, owner): &(OperationId, i64, Option<Uuid>),
) -> rusqlite::Result<Option<Operation>> {
    let owner = owner.map(|owner| owner.as_bytes().to_vec());
    batch.sql.find(Write::OperationTake, params![id.0.as_bytes(), beat, owner], operation)
}

fn abort(batch: &mut Batch<'_>, (id, now): &(OperationId, Timestamp)) -> rusqlite::Result<Aborted> {
    if let Some(aborted) = batch.sql.find(Write::OperationAbort, params![id.0.as_bytes(), now.0], operation)? {
        return Ok(Aborted::Done(aborted));
    }
    let ended = batch.sql.find(Write::Operation, [id.0.as_bytes()], operation)?;
    Ok(ended.map_or(Aborted::Missing, Aborted::Ended))
}

fn walk(batch: &mut Batch<'_>, (step, now): &(Step, Timestamp)) -> rusqlite::Result<Stepped> {
    let values = params![step.id.0.as_bytes(), step.owner.as_bytes(), step.beat];
    let Some(held) = batch.sql.find(Write::OperationHold, values, operation)? else { return Ok(Stepped::Lost) };
    let order = held.order;
    if order.takes_objects() && !step.picks.is_empty() {
        if !archives::is_ready(batch, step)? {
            return Ok(Stepped::Moved);
        }
        archives::note(batch, step)?;
    }
    let (mut entries, mut changed) = (Vec::new(), Vec::new());
    for pick in step.picks.iter().filter(|_| !order.dry_run) {
        match affect(batch, &order, pick, *now)? {
            Effect::Live(entry) => {
                changed.push(pick.id);
                entries.push(*entry);
            }
            Effect::Ended => changed.push(pick.id),
            Effect::None => {}
        }
    }
    let was_done: HashSet<JobId> = changed.iter().copied().collect();
    let counts = counted(&order, step, |id| was_done.contains(&id));
    let (state, error) = step.end.clone().unwrap_or((OperationState::Running, None));
    let values = params![
        step.id.0.as_bytes(),
        step.behind.map(|id| id.as_bytes().to_vec()),
        rows::to_integer(counts.matched),
        rows::to_integer(counts.done),
        rows::to_integer(counts.skipped),
        rows::to_integer(counts.failed),
        counts.cost.0,
        rows::to_integer(counts.unestimated),
        state.as_str(),
        error,
        step.end.as_ref().map(|_| now.0),
    ];
    let operation = Box::new(batch.sql.one(Write::OperationStep, values, operation)?);
    Ok(Stepped::Done { operation, entries, changed })
}

/// What was done to one job.
enum Effect {
    /// It lives at a new epoch.
    Live(Box<Entry>),
    /// It has ended, or is gone.
    Ended,
    /// It had moved on.
    None,
}

fn affect(batch: &mut Batch<'_>, order: &Order, pick: &Pick, now: Timestamp) -> rusqlite::Result<Effect> {
    match order.effect() {
        Action::Redrive => Ok(match protocol::redrive(batch, &(pick.id, Some(pick.epoch), None, now))? {
            Changed::Done(entry) => Effect::Live(Box::new(entry)),
            _ => Effect::None,
        }),
        Action::Delete | Action::Archive => delete(batch, pick),
        Action::Cancel => {
            let attempt = pick.holder.and_then(|holder| {
                let started_at = holder.started_at?;
                Some(Interrupted { epoch: holder.epoch, session: holder.session, started_at })
            });
            Ok(match protocol::cancel(batch, &(pick.id, order.reason.clone(), attempt, now))? {
                Cancelled::Done(_) => Effect::Ended,
                Cancelled::Final(_) | Cancelled::Missing => Effect::None,
            })
        }
        Action::Reclaim => reclaim(batch, pick),
        // The schema has a goal for each drain.
        Action::Drain => Ok(Effect::None),
    }
}

fn delete(batch: &mut Batch<'_>, pick: &Pick) -> rusqlite::Result<Effect> {
    let gone = batch.sql.find(Write::DeleteJob, params![pick.id.as_bytes(), pick.epoch.0], |row| {
        let mut cells = Cells::of(row, 0);
        let (seq, queue, tenant): (i64, Name, Name) = (cells.next()?, cells.name()?, cells.name()?);
        Ok((seq, queue, tenant, rows::standing(cells.next()?)?))
    })?;
    let Some((seq, queue, tenant, standing)) = gone else { return Ok(Effect::None) };
    for rest in [Write::DeletePayload, Write::DeleteResult, Write::DeleteAttempts] {
        batch.sql.execute(rest, [seq])?;
    }
    batch.sql.execute(Write::DeleteMemos, [pick.id.as_bytes()])?;
    if standing == Standing::Dead {
        batch.count(&queue, &tenant, TotalsChange::DELETED_DEAD);
    }
    Ok(Effect::Ended)
}

/// Takes away a job that has ended, at this epoch; whether there was one.
pub(super) fn forget(batch: &mut Batch<'_>, pick: &Pick) -> rusqlite::Result<bool> {
    Ok(matches!(delete(batch, pick)?, Effect::Ended))
}

/// As the reaper does it, and nobody is to blame.
fn reclaim(batch: &mut Batch<'_>, pick: &Pick) -> rusqlite::Result<Effect> {
    let Some(holder) = pick.holder else { return Ok(Effect::None) };
    let token = Token { id: pick.id, epoch: holder.epoch };
    let (session, started_at) = (holder.session, holder.started_at);
    let recovery = Recovery { token, nonce: Nonce::default(), blame: Blame::Nobody, session, started_at };
    Ok(match protocol::recover(batch, &[recovery])?.pop() {
        Some(Recovered::Again(entry)) => Effect::Live(Box::new(entry)),
        _ => Effect::None,
    })
}
