//! Tenants that are erased. The walk itself is a function of the schema (`0019_erasures.sql`), which reads the catalogue.

use async_trait::async_trait;
use sqlx::postgres::PgRow;

use super::{
    PostgresJournal,
    failure::Failure,
    rows::Cells,
    sql,
    transaction::{Transaction, Verb},
};
use crate::{
    erasure::{Erasure, Erasures, HEARD_MS, LOOK_AGAIN_MS, Sweep},
    ids::Name,
    journal::JournalError,
    time::Timestamp,
};

/// Most blocks of one step, 8 KiB each: some ten milliseconds where they are in memory.
const STEP_MAX_BLOCKS: i64 = 512;

#[async_trait]
impl Erasures for PostgresJournal {
    async fn erase(&self, order: Erasure, now: Timestamp) -> Result<Erasure, JournalError> {
        self.write::<Order>((order, now)).await
    }

    async fn erasures(&self) -> Result<Vec<Erasure>, JournalError> {
        self.ask(|pool| async move {
            let rows = sqlx::query(sql::ERASURES).fetch_all(&pool).await?;
            Ok(rows.iter().map(erasure).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn replay(&self, checked_before: Timestamp, now: Timestamp) -> Result<u64, JournalError> {
        self.write::<Replay>((checked_before, now)).await
    }

    async fn sweep(&self) -> Result<Sweep, JournalError> {
        self.ask(|pool| async move {
            let row = sqlx::query(sql::ERASE_WALK).fetch_one(&pool).await?;
            Ok(sweep(&row)?)
        })
        .await
    }

    async fn sweep_on(&self, beat: i64, now: Timestamp) -> Result<Option<Sweep>, JournalError> {
        self.write::<Step>((beat, now)).await
    }

    async fn holdings(&self, tenant: &Name) -> Result<Vec<(String, Option<u64>)>, JournalError> {
        let tables: Vec<String> =
            self.ask(|pool| async move { Ok(sqlx::query_scalar(sql::ERASE_TABLES).fetch_all(&pool).await?) }).await?;
        let mut holdings = Vec::with_capacity(tables.len());
        for table in tables {
            let table = &table;
            let counted = self
                .ask(|pool| async move {
                    let asked = sqlx::query_scalar::<_, i64>(sql::ERASE_COUNT).bind(table).bind(tenant.as_str());
                    Ok(asked.fetch_one(&pool).await?)
                })
                .await;
            let rows = counted.inspect_err(
                |error| tracing::warn!(%error, table = table.as_str(), "rows of a tenant are not counted"),
            );
            holdings.push((table.clone(), rows.ok().and_then(|rows| u64::try_from(rows).ok())));
        }
        Ok(holdings)
    }
}

fn erasure(row: &PgRow) -> Result<Erasure, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(Erasure {
        tenant: cells.name()?,
        pseudonym: cells.text()?,
        accepted_at: cells.time()?,
        erased: cells.count()?,
        finished_at: cells.time_if_any()?,
        checked_at: cells.time_if_any()?,
        due_at: cells.time_if_any()?,
    })
}

fn sweep(row: &PgRow) -> Result<Sweep, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(Sweep { beat: cells.next()?, began_at: cells.time_if_any()? })
}

struct Order;

#[async_trait]
impl Verb for Order {
    type Input = (Erasure, Timestamp);
    type Output = Erasure;
    /// A repeat finds the row, and has it looked for again.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, orders: &[Self::Input], _again: bool) -> Result<Vec<Erasure>, Failure> {
        let mut kept = Vec::new();
        for (order, now) in orders {
            let row = sqlx::query(sql::ERASE_BEGIN)
                .bind(order.tenant.as_str())
                .bind(&order.pseudonym)
                .bind(order.accepted_at.0)
                .bind(now.plus_ms(HEARD_MS).0)
                .fetch_one(transaction.connection())
                .await?;
            kept.push(erasure(&row)?);
            let shredded = sqlx::query(sql::ERASE_SHRED).bind(order.tenant.as_str()).bind(now.0);
            shredded.execute(transaction.connection()).await?;
        }
        Ok(kept)
    }
}

struct Replay;

#[async_trait]
impl Verb for Replay {
    type Input = (Timestamp, Timestamp);
    type Output = u64;
    /// A repeat finds those that are due, and leaves them so.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<u64>, Failure> {
        let mut due = Vec::new();
        for (before, now) in inputs {
            let asked = sqlx::query(sql::ERASE_REPLAY).bind(before.0).bind(now.0);
            due.push(asked.execute(transaction.connection()).await?.rows_affected());
        }
        Ok(due)
    }
}

struct Step;

#[async_trait]
impl Verb for Step {
    type Input = (i64, Timestamp);
    type Output = Option<Sweep>;
    /// A repeat finds another beat and says that somebody else came first: its caller looks again.
    const REPEATABLE: bool = true;

    async fn run(
        transaction: &mut Transaction,
        inputs: &[Self::Input],
        _again: bool,
    ) -> Result<Vec<Option<Sweep>>, Failure> {
        let mut steps = Vec::new();
        for (beat, now) in inputs {
            let asked =
                sqlx::query(sql::ERASE_STEP).bind(beat).bind(now.0).bind(STEP_MAX_BLOCKS).bind(LOOK_AGAIN_MS.to_vec());
            let row = asked.fetch_optional(transaction.connection()).await?;
            steps.push(row.as_ref().map(sweep).transpose()?);
        }
        Ok(steps)
    }
}
