//! What operators order: maintenance, workers that drain, what is logged.

use async_trait::async_trait;
use rusqlite::params;

use super::{
    SqliteJournal,
    rows::Cells,
    sql::{Write, read},
    writer::Batch,
};
use crate::{
    ids::SessionId,
    journal::{JournalError, LogLevel, Maintenance, Orders, WorkerOrders},
};

#[async_trait]
impl Orders for SqliteJournal {
    async fn maintenance(&self) -> Result<Option<Maintenance>, JournalError> {
        self.readers
            .read(|connection| {
                let mut statement = connection.prepare_cached(read::MAINTENANCE)?;
                statement.query_row([], |row| maintenance(&mut Cells::of(row, 0)))
            })
            .await
    }

    async fn awaits_confirmation(&self) -> Result<bool, JournalError> {
        self.readers.read(|connection| connection.prepare_cached(read::RESTORED)?.query_row([], |row| row.get(0))).await
    }

    async fn set_maintenance(&self, maintenance: Option<Maintenance>) -> Result<(), JournalError> {
        self.writer.submit(1, maintenance, set_maintenance).await
    }

    async fn order_drain(&self, worker: SessionId, drain: bool) -> Result<bool, JournalError> {
        self.writer.submit(1, (worker, drain), order_drain).await
    }

    async fn log_level(&self) -> Result<Option<LogLevel>, JournalError> {
        self.readers
            .read(|connection| {
                let mut statement = connection.prepare_cached(read::LOG_LEVEL)?;
                statement.query_row([], |row| {
                    let mut cells = Cells::of(row, 0);
                    let (filter, until) = (cells.next::<Option<String>>()?, cells.time_if_any()?);
                    Ok(filter.map(|filter| LogLevel { filter, until }))
                })
            })
            .await
    }

    async fn set_log_level(&self, level: Option<LogLevel>) -> Result<(), JournalError> {
        self.writer.submit(1, level, set_log_level).await
    }

    async fn orders(&self, worker: SessionId) -> Result<WorkerOrders, JournalError> {
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(read::ORDERS)?;
                statement.query_row([worker.0.as_bytes()], |row| {
                    let mut cells = Cells::of(row, 0);
                    Ok(WorkerOrders { maintenance: maintenance(&mut cells)?, drain: cells.next()? })
                })
            })
            .await
    }
}

fn maintenance(cells: &mut Cells<'_>) -> rusqlite::Result<Option<Maintenance>> {
    let (since, reason) = (cells.time_if_any()?, cells.next()?);
    Ok(since.map(|since| Maintenance { since, reason }))
}

fn set_maintenance(batch: &mut Batch<'_>, order: &Option<Maintenance>) -> rusqlite::Result<()> {
    let (since, reason) = order.as_ref().map(|order| (order.since.0, order.reason.as_deref())).unzip();
    batch.sql.execute(Write::MaintenanceSet, params![since, reason.flatten()])?;
    Ok(())
}

fn set_log_level(batch: &mut Batch<'_>, level: &Option<LogLevel>) -> rusqlite::Result<()> {
    let filter = level.as_ref().map(|level| level.filter.as_str());
    let until = level.as_ref().and_then(|level| level.until).map(|until| until.0);
    batch.sql.execute(Write::LogLevelSet, params![filter, until])?;
    Ok(())
}

fn order_drain(batch: &mut Batch<'_>, (worker, drain): &(SessionId, bool)) -> rusqlite::Result<bool> {
    Ok(batch.sql.execute(Write::SessionDrain, params![worker.0.as_bytes(), drain])? > 0)
}
