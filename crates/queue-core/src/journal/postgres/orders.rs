//! What operators order: maintenance, workers that drain, what is logged.

use async_trait::async_trait;

use super::{
    PostgresJournal,
    failure::Failure,
    rows::Cells,
    sql,
    text::kept_if_any,
    transaction::{Transaction, Verb},
};
use crate::{
    ids::SessionId,
    journal::{JournalError, LogLevel, Maintenance, Orders, WorkerOrders},
};

#[async_trait]
impl Orders for PostgresJournal {
    async fn maintenance(&self) -> Result<Option<Maintenance>, JournalError> {
        self.ask(|pool| async move {
            let row = sqlx::query(sql::MAINTENANCE).fetch_one(&pool).await?;
            Ok(maintenance(&mut Cells::of(&row, 0))?)
        })
        .await
    }

    async fn awaits_confirmation(&self) -> Result<bool, JournalError> {
        self.ask(|pool| async move { Ok(sqlx::query_scalar(sql::RESTORED).fetch_one(&pool).await?) }).await
    }

    async fn set_maintenance(&self, maintenance: Option<Maintenance>) -> Result<(), JournalError> {
        self.write::<SetMaintenance>(maintenance).await
    }

    async fn order_drain(&self, worker: SessionId, drain: bool) -> Result<bool, JournalError> {
        self.write::<OrderDrain>((worker, drain)).await
    }

    async fn log_level(&self) -> Result<Option<LogLevel>, JournalError> {
        self.ask(|pool| async move {
            let row = sqlx::query(sql::LOG_LEVEL).fetch_one(&pool).await?;
            let mut cells = Cells::of(&row, 0);
            let (filter, until) = (cells.text_if_any()?, cells.time_if_any()?);
            Ok(filter.map(|filter| LogLevel { filter, until }))
        })
        .await
    }

    async fn set_log_level(&self, level: Option<LogLevel>) -> Result<(), JournalError> {
        self.write::<SetLogLevel>(level).await
    }

    async fn orders(&self, worker: SessionId) -> Result<WorkerOrders, JournalError> {
        self.ask(|pool| async move {
            let row = sqlx::query(sql::ORDERS).bind(worker.0).fetch_one(&pool).await?;
            let mut cells = Cells::of(&row, 0);
            Ok(WorkerOrders { maintenance: maintenance(&mut cells)?, drain: cells.next()? })
        })
        .await
    }
}

fn maintenance(cells: &mut Cells<'_>) -> Result<Option<Maintenance>, sqlx::Error> {
    let (since, reason) = (cells.time_if_any()?, cells.text_if_any()?);
    Ok(since.map(|since| Maintenance { since, reason }))
}

struct SetMaintenance;

#[async_trait]
impl Verb for SetMaintenance {
    type Input = Option<Maintenance>;
    type Output = ();
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, orders: &[Self::Input], _again: bool) -> Result<Vec<()>, Failure> {
        for order in orders {
            sqlx::query(sql::MAINTENANCE_SET)
                .bind(order.as_ref().map(|order| order.since.0))
                .bind(kept_if_any(order.as_ref().and_then(|order| order.reason.as_ref())))
                .execute(transaction.connection())
                .await?;
        }
        Ok(vec![(); orders.len()])
    }
}

struct SetLogLevel;

#[async_trait]
impl Verb for SetLogLevel {
    type Input = Option<LogLevel>;
    type Output = ();
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, levels: &[Self::Input], _again: bool) -> Result<Vec<()>, Failure> {
        for level in levels {
            sqlx::query(sql::LOG_LEVEL_SET)
                .bind(kept_if_any(level.as_ref().map(|level| &level.filter)))
                .bind(level.as_ref().and_then(|level| level.until).map(|until| until.0))
                .execute(transaction.connection())
                .await?;
        }
        Ok(vec![(); levels.len()])
    }
}

struct OrderDrain;

#[async_trait]
impl Verb for OrderDrain {
    type Input = (SessionId, bool);
    type Output = bool;
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, orders: &[Self::Input], _again: bool) -> Result<Vec<bool>, Failure> {
        let mut found = Vec::new();
        for (worker, drain) in orders {
            let query = sqlx::query(sql::SESSION_DRAIN).bind(worker.0).bind(drain);
            found.push(query.execute(transaction.connection()).await?.rows_affected() > 0);
        }
        Ok(found)
    }
}
