//! Operations on many jobs, and their steps.

use std::collections::HashSet;

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{
    PostgresJournal, archives,
    failure::Failure,
    protocol,
    rows::{self, Cells, to_bigint},
    sql,
    text::{kept, kept_if_any},
    transaction::{Transaction, Verb},
};
use crate::{
    dispatcher::Entry,
    ids::{JobId, Name, Nonce, OperationId},
    journal::{
        Blame, Cancelled, Interrupted, JournalError, PAGE_MAX_ROWS, Recovered, Recovery, Token, totals::TotalsChange,
    },
    ledger::Nanousd,
    operations::{
        Aborted, Action, Begun, Counts, KEPT_MS, Operation, OperationState, Operations, Order, Pick, Step, Stepped,
        counted,
    },
    time::Timestamp,
};

#[async_trait]
impl Operations for PostgresJournal {
    async fn begin(&self, id: OperationId, order: Order, now: Timestamp) -> Result<Begun, JournalError> {
        self.write::<Begin>((id, order, now)).await
    }

    async fn operation(&self, id: OperationId) -> Result<Option<Operation>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::OPERATION).bind(id.0).fetch_optional(&pool).await?;
            Ok(found.as_ref().map(operation).transpose()?)
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
        self.ask(|pool| async move {
            let asked = sqlx::query(sql::OPERATIONS).bind(behind.map(|id| id.0)).bind(running).bind(limit);
            Ok(asked.fetch_all(&pool).await?.iter().map(operation).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn take(&self, id: OperationId, beat: i64, owner: Option<Uuid>) -> Result<Option<Operation>, JournalError> {
        self.write::<Take>((id, beat, owner)).await
    }

    async fn step(&self, step: Step, now: Timestamp) -> Result<Stepped, JournalError> {
        self.write::<Walk>((step, now)).await
    }

    async fn abort(&self, id: OperationId, now: Timestamp) -> Result<Aborted, JournalError> {
        self.write::<Abort>((id, now)).await
    }
}

/// The columns of an operation.
fn operation(row: &PgRow) -> Result<Operation, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    let id = OperationId(cells.next()?);
    let (action, goal) = (cells.word(Action::parse)?, cells.word_if_any(Action::parse)?);
    let queue = cells.name()?.if_any();
    let (dry_run, filter) = (cells.next()?, cells.text()?);
    let order = Order {
        action,
        goal,
        queue,
        dry_run,
        filter,
        rate_per_s: cells.small_count()?,
        max_jobs: cells.count_if_any()?,
        max_cost: cells.next::<Option<i64>>()?.map(Nanousd),
        force: cells.next()?,
        reason: cells.text_if_any()?,
        asked_by: cells.name()?,
    };
    Ok(Operation {
        id,
        order,
        state: cells.word(OperationState::parse)?,
        owner: cells.next()?,
        beat: cells.next()?,
        behind: cells.next::<Option<Uuid>>()?.map(JobId),
        counts: Counts {
            matched: cells.count()?,
            done: cells.count()?,
            skipped: cells.count()?,
            failed: cells.count()?,
            cost: Nanousd(cells.next()?),
            unestimated: cells.count()?,
        },
        error: cells.text_if_any()?,
        accepted_at: cells.time()?,
        finished_at: cells.time_if_any()?,
    })
}

struct Begin;

#[async_trait]
impl Verb for Begin {
    type Input = (OperationId, Order, Timestamp);
    type Output = Begun;
    /// A repeat finds the operation that the first try has kept.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<Begun>, Failure> {
        let mut begun = Vec::new();
        for (id, order, now) in inputs {
            sqlx::query(sql::OPERATION_PRUNE).bind(now.0 - KEPT_MS).execute(transaction.connection()).await?;
            let done = sqlx::query(sql::OPERATION_BEGIN)
                .bind(id.0)
                .bind(order.action.as_str())
                .bind(order.goal.map(Action::as_str))
                .bind(order.queue_word())
                .bind(order.dry_run)
                .bind(kept(&order.filter))
                .bind(rows::to_integer(order.rate_per_s))
                .bind(order.max_jobs.map(to_bigint))
                .bind(order.max_cost.map(|cost| cost.0))
                .bind(order.force)
                .bind(kept_if_any(order.reason.as_ref()))
                .bind(order.asked_by.as_str())
                .bind(now.0)
                .execute(transaction.connection())
                .await?;
            let there = sqlx::query(sql::OPERATION_IN_THE_WAY)
                .bind(id.0)
                .bind(order.action.as_str())
                .bind(order.queue_word())
                .bind(order.dry_run)
                .fetch_optional(transaction.connection())
                .await?;
            // It has ended between the two statements: the next try finds the way free.
            let gone = || Failure::Conflict("the operation that was in the way has ended".into());
            let there = operation(&there.ok_or_else(gone)?)?;
            let is_new = done.rows_affected() > 0 || there.id == *id;
            begun.push(if is_new { Begun::New(there) } else { Begun::InTheWay(there) });
        }
        Ok(begun)
    }
}

struct Take;

#[async_trait]
impl Verb for Take {
    type Input = (OperationId, i64, Option<Uuid>);
    type Output = Option<Operation>;
    /// A repeat finds another beat and says that somebody else came first: the owner's beat then stands still, until it is
    /// taken again.
    const REPEATABLE: bool = true;

    async fn run(
        transaction: &mut Transaction,
        inputs: &[Self::Input],
        _again: bool,
    ) -> Result<Vec<Option<Operation>>, Failure> {
        let mut taken = Vec::new();
        for (id, beat, owner) in inputs {
            let asked = sqlx::query(sql::OPERATION_TAKE).bind(id.0).bind(beat).bind(owner);
            let found = asked.fetch_optional(transaction.connection()).await?;
            taken.push(found.as_ref().map(operation).transpose()?);
        }
        Ok(taken)
    }
}

struct Abort;

#[async_trait]
impl Verb for Abort {
    type Input = (OperationId, Timestamp);
    type Output = Aborted;
    /// A repeat finds it ended.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<Aborted>, Failure> {
        let mut answers = Vec::new();
        for (id, now) in inputs {
            let asked = sqlx::query(sql::OPERATION_ABORT).bind(id.0).bind(now.0);
            if let Some(row) = asked.fetch_optional(transaction.connection()).await? {
                answers.push(Aborted::Done(operation(&row)?));
                continue;
            }
            let found = sqlx::query(sql::OPERATION).bind(id.0).fetch_optional(transaction.connection()).await?;
            let ended = found.as_ref().map(operation).transpose()?;
            answers.push(ended.map_or(Aborted::Missing, Aborted::Ended));
        }
        Ok(answers)
    }
}

struct Walk;

#[async_trait]
impl Verb for Walk {
    type Input = (Step, Timestamp);
    type Output = Stepped;
    /// A repeat would find another beat and say that the operation is lost; its walker reads the row instead.
    const REPEATABLE: bool = false;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<Stepped>, Failure> {
        let mut answers = Vec::new();
        for (step, now) in inputs {
            answers.push(walk(transaction, step, *now).await?);
        }
        Ok(answers)
    }
}

async fn walk(transaction: &mut Transaction, step: &Step, now: Timestamp) -> Result<Stepped, Failure> {
    let held = sqlx::query(sql::OPERATION_HOLD).bind(step.id.0).bind(step.owner).bind(step.beat);
    let Some(row) = held.fetch_optional(transaction.connection()).await? else { return Ok(Stepped::Lost) };
    let order = operation(&row)?.order;
    if order.takes_objects() && !step.picks.is_empty() {
        if !archives::is_ready(transaction, step).await? {
            return Ok(Stepped::Moved);
        }
        archives::note(transaction, step).await?;
    }
    let done = if order.dry_run { Done::default() } else { affect(transaction, &order, &step.picks, now).await? };
    let changed: HashSet<JobId> = done.changed.iter().copied().collect();
    let counts = counted(&order, step, |id| changed.contains(&id));
    let (state, error) = step.end.clone().unwrap_or((OperationState::Running, None));
    let row = sqlx::query(sql::OPERATION_STEP)
        .bind(step.id.0)
        .bind(step.behind.map(|id| id.0))
        .bind(to_bigint(counts.matched))
        .bind(to_bigint(counts.done))
        .bind(to_bigint(counts.skipped))
        .bind(to_bigint(counts.failed))
        .bind(counts.cost.0)
        .bind(to_bigint(counts.unestimated))
        .bind(state.as_str())
        .bind(kept_if_any(error.as_ref()))
        .bind(step.end.as_ref().map(|_| now.0))
        .fetch_one(transaction.connection())
        .await?;
    Ok(Stepped::Done { operation: Box::new(operation(&row)?), entries: done.entries, changed: done.changed })
}

/// What a step did.
#[derive(Default)]
struct Done {
    entries: Vec<Entry>,
    changed: Vec<JobId>,
}

impl Done {
    fn of_entries(entries: Vec<Entry>) -> Self {
        Self { changed: entries.iter().map(|entry| entry.id).collect(), entries }
    }
}

async fn affect(transaction: &mut Transaction, order: &Order, picks: &[Pick], now: Timestamp) -> Result<Done, Failure> {
    // In the order of their ids, as everything that changes several jobs.
    let mut picks = picks.to_vec();
    picks.sort_unstable_by_key(|pick| pick.id);
    if picks.is_empty() {
        return Ok(Done::default());
    }
    match order.effect() {
        Action::Redrive => redrive(transaction, &picks, now).await,
        Action::Delete | Action::Archive => delete(transaction, &picks).await,
        Action::Cancel => cancel(transaction, &picks, order.reason.as_ref(), now).await,
        Action::Reclaim => reclaim(transaction, &picks).await,
        Action::Drain => Err(Failure::Refused("a drain without a goal".into())),
    }
}

/// Ids and epochs, as arrays of one length.
fn lives_of(picks: &[Pick]) -> (Vec<Uuid>, Vec<i64>) {
    picks.iter().map(|pick| (pick.id.0, pick.epoch.0)).unzip()
}

async fn redrive(transaction: &mut Transaction, picks: &[Pick], now: Timestamp) -> Result<Done, Failure> {
    let (ids, epochs) = lives_of(picks);
    sqlx::query(sql::JOBS_LOCK).bind(&ids).execute(transaction.connection()).await?;
    let asked = sqlx::query(sql::REDRIVE_MANY).bind(&ids).bind(now.0).bind(&epochs);
    let risen = asked.fetch_all(transaction.connection()).await?;
    let entries: Vec<Entry> = risen.iter().map(rows::entry).collect::<Result<_, _>>()?;
    let risen: Vec<Uuid> = entries.iter().map(|entry| entry.id.0).collect();
    sqlx::query(sql::WASTE_NOT_MANY).bind(risen).execute(transaction.connection()).await?;
    for entry in &entries {
        transaction.count(&entry.queue, &entry.tenant, TotalsChange::REDRIVEN);
    }
    Ok(Done::of_entries(entries))
}

async fn delete(transaction: &mut Transaction, picks: &[Pick]) -> Result<Done, Failure> {
    let (ids, epochs) = lives_of(picks);
    sqlx::query(sql::JOBS_LOCK).bind(&ids).execute(transaction.connection()).await?;
    let dead = sqlx::query(sql::DELETE_DEAD).bind(&ids).bind(&epochs).fetch_all(transaction.connection()).await?;
    let mut changed = Vec::new();
    for row in &dead {
        let mut cells = Cells::of(row, 0);
        changed.push(cells.job_id()?);
        let (queue, tenant): (Name, Name) = (cells.name()?, cells.name()?);
        transaction.count(&queue, &tenant, TotalsChange::DELETED_DEAD);
    }
    if changed.len() < picks.len() {
        sqlx::query(sql::SETTLED_LOCK).bind(&ids).execute(transaction.connection()).await?;
        let asked = sqlx::query(sql::DELETE_SETTLED).bind(&ids).bind(&epochs);
        let settled = asked.fetch_all(transaction.connection()).await?;
        for row in &settled {
            changed.push(Cells::of(row, 0).job_id()?);
        }
    }
    let gone: Vec<Uuid> = changed.iter().map(|id| id.0).collect();
    sqlx::query(sql::DELETE_BODIES).bind(gone).execute(transaction.connection()).await?;
    Ok(Done { entries: vec![], changed })
}

async fn cancel(
    transaction: &mut Transaction,
    picks: &[Pick],
    reason: Option<&String>,
    now: Timestamp,
) -> Result<Done, Failure> {
    let mut changed = Vec::new();
    for pick in picks {
        let attempt = pick.holder.and_then(|holder| {
            let started_at = holder.started_at?;
            Some(Interrupted { epoch: holder.epoch, session: holder.session, started_at })
        });
        if let Cancelled::Done(_) = protocol::cancel(transaction, pick.id, reason, attempt, now).await? {
            changed.push(pick.id);
        }
    }
    Ok(Done { entries: vec![], changed })
}

/// As the reaper does it, and nobody is to blame.
async fn reclaim(transaction: &mut Transaction, picks: &[Pick]) -> Result<Done, Failure> {
    let recoveries: Vec<Recovery> = picks
        .iter()
        .filter_map(|pick| {
            let holder = pick.holder?;
            let token = Token { id: pick.id, epoch: holder.epoch };
            let (session, started_at) = (holder.session, holder.started_at);
            Some(Recovery { token, nonce: Nonce::default(), blame: Blame::Nobody, session, started_at })
        })
        .collect();
    let recovered = protocol::recover(transaction, &recoveries).await?;
    let entries = recovered.into_iter().filter_map(|one| match one {
        Recovered::Again(entry) => Some(entry),
        Recovered::Poisoned | Recovered::Moved => None,
    });
    Ok(Done::of_entries(entries.collect()))
}
