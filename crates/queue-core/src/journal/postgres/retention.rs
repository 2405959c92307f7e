//! What is old. Days are dropped by functions of the schema (`0021_retention.sql`), which act with the rights of the tables' owner and look
//! again, under their lock, at what they drop.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{
    PostgresJournal,
    failure::Failure,
    rows::Cells,
    sql,
    transaction::{Transaction, Verb},
};
use crate::{
    ids::{Epoch, JobId},
    journal::JournalError,
    retention::{
        COUNT_MAX, Class, Day, LOOK_AGAIN_MS, Looked, Note, Part, Pile, Retention, Rows, SettledRow, Turn, Witness,
        days_end,
    },
    schedule::Schedules,
    state::Standing,
    time::Timestamp,
};

#[async_trait]
impl Retention for PostgresJournal {
    async fn witness(&self) -> Result<Witness, JournalError> {
        self.store_time().await.map(Witness::Clock)
    }

    async fn turn(&self) -> Result<Turn, JournalError> {
        self.ask(|pool| async move { Ok(turn(&sqlx::query(sql::RETENTION_TURN).fetch_one(&pool).await?)?) }).await
    }

    async fn order_turn(&self) -> Result<i64, JournalError> {
        self.write::<Order>(()).await
    }

    async fn take_turn(&self, beat: i64, now: Timestamp, until: Timestamp) -> Result<Option<Turn>, JournalError> {
        self.write::<Take>((beat, now, until)).await
    }

    async fn end_turn(
        &self,
        beat: i64,
        now: Timestamp,
        next: Timestamp,
        remains: Option<String>,
    ) -> Result<(), JournalError> {
        self.write::<End>((beat, now, next, remains)).await
    }

    async fn notes(&self) -> Result<BTreeMap<Class, Note>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::RETENTION_NOTES).fetch_all(&pool).await?;
            Ok(found.iter().map(note).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn note(
        &self,
        class: Class,
        removed: u64,
        now: Timestamp,
        edge: Option<Timestamp>,
    ) -> Result<(), JournalError> {
        self.write::<TakeNote>((class, removed, now, edge)).await
    }

    async fn days(&self, before: Timestamp) -> Result<Option<Vec<Day>>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::RETENTION_DAYS).bind(before.0).fetch_all(&pool).await?;
            Ok(Some(found.iter().map(day).collect::<Result<_, _>>()?))
        })
        .await
    }

    async fn drop_day(&self, part: Part, day: Timestamp, cutoff: Timestamp) -> Result<Option<u64>, JournalError> {
        self.write::<DropDay>((part, day, cutoff)).await
    }

    async fn reclaim_day(&self) -> Result<bool, JournalError> {
        self.ask(|pool| async move { Ok(sqlx::query_scalar(sql::RETENTION_RECLAIM).fetch_one(&pool).await?) }).await
    }

    async fn pile(&self, rows: Rows, before: Timestamp) -> Result<Pile, JournalError> {
        let text = match rows {
            // They are in tables by day, and what is left of those is not counted.
            Rows::Payloads | Rows::Errors | Rows::DayNotes => return Ok(Pile::default()),
            Rows::Results => sql::PILE_RESULTS,
            Rows::IdempotencyKeys => sql::PILE_KEYS,
            Rows::CostDetails => sql::PILE_COSTS,
            Rows::WebhookDeliveries => sql::PILE_DELIVERIES,
        };
        self.ask(|pool| async move {
            let row = sqlx::query(text).bind(before.0).bind(COUNT_MAX as i64).fetch_one(&pool).await?;
            let mut cells = Cells::of(&row, 0);
            Ok(Pile { old: cells.count()?, oldest: cells.time_if_any()? })
        })
        .await
    }

    async fn sweep(&self, rows: Rows, before: Timestamp, limit: usize) -> Result<u64, JournalError> {
        let limit = limit as i64;
        match rows {
            Rows::Payloads | Rows::Errors => self.write::<Old>((rows, before, limit)).await,
            Rows::Results => self.write::<Results>((before, limit)).await.map(|step| step.gone),
            Rows::IdempotencyKeys => self.write::<Keys>((before, limit)).await,
            Rows::CostDetails => self.write::<Costs>((before, limit)).await,
            Rows::DayNotes => self.write::<DayNotes>((before, limit)).await,
            Rows::WebhookDeliveries => {
                self.ask(|pool| async move {
                    let asked = sqlx::query_scalar::<_, i64>(sql::DELIVERIES_PRUNE).bind(before.0).bind(limit);
                    Ok(asked.fetch_one(&pool).await?.unsigned_abs())
                })
                .await
            }
        }
    }

    async fn expire_results(&self, now: Timestamp, limit: usize) -> Result<Looked, JournalError> {
        self.write::<Results>((now, limit as i64)).await
    }

    async fn settled(&self, after: Option<JobId>, below: JobId, limit: usize) -> Result<Vec<SettledRow>, JournalError> {
        let after = after.map_or(Uuid::nil(), |id| id.0);
        self.ask(|pool| async move {
            let asked = sqlx::query(sql::SETTLED_PAGE).bind(after).bind(below.0).bind(limit as i64);
            Ok(asked.fetch_all(&pool).await?.iter().map(settled).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn forget_jobs(&self, jobs: Vec<(JobId, Epoch)>) -> Result<u64, JournalError> {
        self.write::<Forget>(jobs).await
    }
}

fn turn(row: &PgRow) -> Result<Turn, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(Turn {
        beat: cells.next()?,
        orders: cells.next()?,
        taking: cells.next()?,
        served: cells.next()?,
        began_at: cells.time_if_any()?,
        ended_at: cells.time_if_any()?,
        due_at: cells.time()?,
        remains: cells.next()?,
    })
}

fn note(row: &PgRow) -> Result<(Class, Note), sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    let class = cells.word(Class::parse)?;
    let note =
        Note { removed: cells.count()?, last: cells.count()?, last_at: cells.time()?, edge: cells.time_if_any()? };
    Ok((class, note))
}

/// The table of which a day is a part.
fn table_of(part: Part) -> &'static str {
    match part {
        Part::Jobs => "settled_jobs",
        Part::Payloads => "payloads",
        Part::Memos => "memos",
        Part::Errors => "attempts",
    }
}

fn part_of(table: &str) -> Option<Part> {
    [Part::Jobs, Part::Payloads, Part::Memos, Part::Errors].into_iter().find(|part| table_of(*part) == table)
}

fn day(row: &PgRow) -> Result<Day, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(Day {
        part: cells.word(part_of)?,
        day: cells.time()?,
        rows: cells.count()?,
        bytes: cells.count()?,
        last_end: cells.time_if_any()?,
        live: cells.count()?,
        dead: cells.count()?,
    })
}

fn settled(row: &PgRow) -> Result<SettledRow, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(SettledRow {
        id: cells.job_id()?,
        epoch: Epoch(cells.next()?),
        queue: cells.name()?,
        finished_at: cells.time_if_any()?,
    })
}

struct Order;

#[async_trait]
impl Verb for Order {
    type Input = ();
    type Output = i64;
    /// Ordered twice is run once or twice.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[()], _again: bool) -> Result<Vec<i64>, Failure> {
        let mut numbers = Vec::new();
        for () in inputs {
            numbers.push(sqlx::query_scalar(sql::RETENTION_ORDER).fetch_one(transaction.connection()).await?);
        }
        Ok(numbers)
    }
}

struct Take;

#[async_trait]
impl Verb for Take {
    type Input = (i64, Timestamp, Timestamp);
    type Output = Option<Turn>;
    /// A repeat finds another beat: then nobody has the turn until its time is over.
    const REPEATABLE: bool = true;

    async fn run(
        transaction: &mut Transaction,
        inputs: &[Self::Input],
        _again: bool,
    ) -> Result<Vec<Option<Turn>>, Failure> {
        let mut turns = Vec::new();
        for (beat, now, until) in inputs {
            let asked = sqlx::query(sql::RETENTION_TAKE).bind(beat).bind(now.0).bind(until.0);
            let row = asked.fetch_optional(transaction.connection()).await?;
            turns.push(row.as_ref().map(turn).transpose()?);
        }
        Ok(turns)
    }
}

struct End;

#[async_trait]
impl Verb for End {
    type Input = (i64, Timestamp, Timestamp, Option<String>);
    type Output = ();
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<()>, Failure> {
        for (beat, now, next, remains) in inputs {
            let asked = sqlx::query(sql::RETENTION_END).bind(beat).bind(now.0).bind(next.0).bind(remains.clone());
            asked.execute(transaction.connection()).await?;
        }
        Ok(vec![(); inputs.len()])
    }
}

struct TakeNote;

#[async_trait]
impl Verb for TakeNote {
    type Input = (Class, u64, Timestamp, Option<Timestamp>);
    type Output = ();
    /// It is for people: what is counted twice is better than what is not.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<()>, Failure> {
        for (class, removed, now, edge) in inputs {
            sqlx::query(sql::RETENTION_NOTE)
                .bind(class.as_str())
                .bind(i64::try_from(*removed).unwrap_or(i64::MAX))
                .bind(now.0)
                .bind(edge.map(|at| at.0))
                .execute(transaction.connection())
                .await?;
        }
        Ok(vec![(); inputs.len()])
    }
}

struct DropDay;

#[async_trait]
impl Verb for DropDay {
    type Input = (Part, Timestamp, Timestamp);
    type Output = Option<u64>;
    /// A repeat finds that it is gone.
    const REPEATABLE: bool = true;

    async fn run(
        transaction: &mut Transaction,
        inputs: &[Self::Input],
        _again: bool,
    ) -> Result<Vec<Option<u64>>, Failure> {
        let mut dropped = Vec::new();
        for (part, day, cutoff) in inputs {
            let asked = sqlx::query_scalar(sql::RETENTION_DROP).bind(table_of(*part)).bind(day.0).bind(cutoff.0);
            let bytes: Option<i64> = asked.fetch_one(transaction.connection()).await?;
            dropped.push(bytes.map(i64::unsigned_abs));
        }
        Ok(dropped)
    }
}

/// What of settled jobs lies in days that are held, and in no day.
struct Old;

#[async_trait]
impl Verb for Old {
    type Input = (Rows, Timestamp, i64);
    type Output = u64;
    /// A repeat finds them gone.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<u64>, Failure> {
        let mut gone = Vec::new();
        for (rows, before, limit) in inputs {
            let both: &[(&'static str, &'static str)] = match rows {
                Rows::Payloads => &[(sql::MEMOS_OLD, sql::MEMOS_FORGET), (sql::PAYLOADS_OLD, sql::PAYLOADS_FORGET)],
                _ => &[(sql::ATTEMPTS_OLD, sql::ATTEMPTS_FORGET)],
            };
            let mut count = 0;
            for asked in both {
                count += forget_found(transaction, *asked, *before, *limit).await?;
            }
            gone.push(count);
        }
        Ok(gone)
    }
}

/// Takes away what the first statement finds, by the second.
async fn forget_found(
    transaction: &mut Transaction,
    (find, forget): (&'static str, &'static str),
    before: Timestamp,
    limit: i64,
) -> Result<u64, Failure> {
    let connection = transaction.connection();
    let first = JobId::first_of(days_end(before)).0;
    let asked = sqlx::query_scalar(find).bind(before.0).bind(first).bind(limit);
    let ids: Vec<Uuid> = asked.fetch_all(&mut *connection).await?;
    if ids.is_empty() {
        return Ok(0);
    }
    Ok(sqlx::query(forget).bind(ids).execute(connection).await?.rows_affected())
}

struct Results;

#[async_trait]
impl Verb for Results {
    type Input = (Timestamp, i64);
    type Output = Looked;
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<Looked>, Failure> {
        let mut looked = Vec::new();
        for (now, limit) in inputs {
            looked.push(look_at_results(transaction, *now, *limit).await?);
        }
        Ok(looked)
    }
}

/// Looks at results whose time may be over.
async fn look_at_results(transaction: &mut Transaction, now: Timestamp, limit: i64) -> Result<Looked, Failure> {
    let due = sqlx::query(sql::RESULTS_DUE).bind(now.0).bind(limit).fetch_all(transaction.connection()).await?;
    let mut due_of = HashMap::with_capacity(due.len());
    for row in &due {
        let mut cells = Cells::of(row, 0);
        due_of.insert(cells.job_id()?, cells.next::<i64>()?);
    }
    if due_of.is_empty() {
        return Ok(Looked::default());
    }
    let ids: Vec<Uuid> = due_of.keys().map(|id| id.0).collect();
    let mut ends = HashMap::with_capacity(ids.len());
    for row in &sqlx::query(sql::RESULTS_ENDS).bind(&ids).fetch_all(transaction.connection()).await? {
        let mut cells = Cells::of(row, 0);
        let (id, standing, end) = (cells.job_id()?, cells.standing()?, cells.time_if_any()?);
        ends.insert(id, (standing, end));
    }
    let (mut over, mut forgotten, mut later, mut at) = (vec![], vec![], vec![], vec![]);
    for (id, ttl_ms) in due_of {
        match ends.get(&id) {
            Some((Standing::Succeeded, Some(end))) if end.plus_ms(ttl_ms) <= now => {
                over.push(id.0);
                forgotten.push(id.0);
            }
            Some((Standing::Succeeded, Some(end))) => {
                later.push(id.0);
                at.push(end.plus_ms(ttl_ms).0);
            }
            // A job that may run cannot end before now.
            Some((Standing::Live | Standing::Dead, _)) => {
                later.push(id.0);
                at.push(now.plus_ms(ttl_ms.max(LOOK_AGAIN_MS)).0);
            }
            _ => forgotten.push(id.0),
        }
    }
    let looked = (forgotten.len() + later.len()) as u64;
    let gone = sqlx::query(sql::RESULTS_EXPIRE).bind(over).execute(transaction.connection()).await?.rows_affected();
    sqlx::query(sql::RESULTS_FORGET).bind(forgotten).execute(transaction.connection()).await?;
    sqlx::query(sql::RESULTS_LATER).bind(later).bind(at).execute(transaction.connection()).await?;
    Ok(Looked { looked, gone })
}

struct Keys;

#[async_trait]
impl Verb for Keys {
    type Input = (Timestamp, i64);
    type Output = u64;
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<u64>, Failure> {
        let mut gone = Vec::new();
        for (before, limit) in inputs {
            gone.push(forget_keys(transaction, *before, *limit).await?);
        }
        Ok(gone)
    }
}

async fn forget_keys(transaction: &mut Transaction, before: Timestamp, limit: i64) -> Result<u64, Failure> {
    let connection = transaction.connection();
    let (owners, keys) =
        pairs(&sqlx::query(sql::IDEMPOTENCY_OLD).bind(before.0).bind(limit).fetch_all(&mut *connection).await?)?;
    if keys.is_empty() {
        return Ok(0);
    }
    let held = sqlx::query(sql::IDEMPOTENCY_BODIES_HOLD).bind(owners).bind(keys).fetch_all(&mut *connection).await?;
    let (owners, keys) = pairs(&held)?;
    let gone = sqlx::query(sql::IDEMPOTENCY_FORGET)
        .bind(&owners)
        .bind(&keys)
        .bind(before.0)
        .execute(&mut *connection)
        .await?
        .rows_affected();
    sqlx::query(sql::IDEMPOTENCY_BODIES_FORGET).bind(owners).bind(keys).execute(connection).await?;
    Ok(gone)
}

/// Owners and keys as they are kept.
fn pairs(rows: &[PgRow]) -> Result<(Vec<String>, Vec<String>), sqlx::Error> {
    let mut pairs = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in rows {
        let mut cells = Cells::of(row, 0);
        pairs.0.push(cells.next()?);
        pairs.1.push(cells.next()?);
    }
    Ok(pairs)
}

struct Costs;

#[async_trait]
impl Verb for Costs {
    type Input = (Timestamp, i64);
    type Output = u64;
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<u64>, Failure> {
        let mut gone = Vec::new();
        for (before, limit) in inputs {
            let mut rows = 0;
            for text in [sql::FORGET_SPEND, sql::FORGET_CHARGES, sql::FORGET_SAVINGS] {
                let asked = sqlx::query(text).bind(before.0).bind(limit);
                rows += asked.execute(transaction.connection()).await?.rows_affected();
            }
            gone.push(rows);
        }
        Ok(gone)
    }
}

struct DayNotes;

#[async_trait]
impl Verb for DayNotes {
    type Input = (Timestamp, i64);
    type Output = u64;
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<u64>, Failure> {
        let mut gone = Vec::new();
        for (before, limit) in inputs {
            let asked = sqlx::query(sql::LATE_ENDS_FORGET).bind(before.0).bind(limit);
            gone.push(asked.execute(transaction.connection()).await?.rows_affected());
        }
        Ok(gone)
    }
}

struct Forget;

#[async_trait]
impl Verb for Forget {
    type Input = Vec<(JobId, Epoch)>;
    type Output = u64;
    /// A repeat finds them gone.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<u64>, Failure> {
        let mut gone = Vec::new();
        for jobs in inputs {
            // In the order of their ids, as everything that changes several jobs.
            let mut jobs = jobs.clone();
            jobs.sort_unstable();
            let (ids, epochs): (Vec<Uuid>, Vec<i64>) = jobs.iter().map(|(id, epoch)| (id.0, epoch.0)).unzip();
            let connection = transaction.connection();
            sqlx::query(sql::SETTLED_LOCK).bind(&ids).execute(&mut *connection).await?;
            let asked = sqlx::query_scalar(sql::DELETE_SETTLED).bind(&ids).bind(&epochs);
            let deleted: Vec<Uuid> = asked.fetch_all(&mut *connection).await?;
            gone.push(deleted.len() as u64);
            sqlx::query(sql::DELETE_BODIES).bind(deleted).execute(connection).await?;
        }
        Ok(gone)
    }
}
