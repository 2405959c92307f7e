//! What was ordered of backups, and what became of it.

use async_trait::async_trait;
use sqlx::postgres::PgRow;

use super::{
    PostgresJournal,
    failure::Failure,
    rows::{Cells, not_understood},
    sql,
    transaction::{Transaction, Verb},
};
use crate::{
    backup::{BACKUPS_PAGE_MAX, BackupId, BackupRow, Backups, WORK_MAX, Work},
    journal::JournalError,
    time::Timestamp,
};

#[async_trait]
impl Backups for PostgresJournal {
    async fn order_backup(&self, row: BackupRow) -> Result<bool, JournalError> {
        self.write::<Order>(row).await
    }

    async fn backups(
        &self,
        behind: Option<(Timestamp, BackupId)>,
        limit: usize,
    ) -> Result<Vec<BackupRow>, JournalError> {
        let (at, id) = behind.map_or((i64::MAX, uuid::Uuid::max()), |(at, id)| (at.0, id.0));
        let limit = limit.min(BACKUPS_PAGE_MAX) as i64;
        self.ask(|pool| async move {
            let rows = sqlx::query(sql::BACKUPS).bind(at).bind(id).bind(limit).fetch_all(&pool).await?;
            Ok(rows.iter().map(row).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn backup(&self, id: BackupId) -> Result<Option<BackupRow>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::BACKUP).bind(id.0).fetch_optional(&pool).await?;
            Ok(found.as_ref().map(row).transpose()?)
        })
        .await
    }

    async fn backup_work(&self) -> Result<Vec<BackupRow>, JournalError> {
        self.ask(|pool| async move {
            let rows = sqlx::query(sql::BACKUP_WORK).bind(WORK_MAX as i64).fetch_all(&pool).await?;
            Ok(rows.iter().map(row).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn change_backup(&self, row: BackupRow) -> Result<bool, JournalError> {
        self.write::<Change>(row).await
    }

    async fn forget_backups(&self, before: Timestamp) -> Result<u64, JournalError> {
        self.write::<Forget>(before).await
    }
}

fn row(row: &PgRow) -> Result<BackupRow, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    let (id, ordered_at, work) = (BackupId(cells.next()?), cells.time()?, cells.next::<i16>()?);
    let work = Work::of(work).ok_or_else(|| not_understood(2, format!("unknown work {work}")))?;
    let (beat, text) = (cells.next()?, cells.text()?);
    let record = serde_json::from_str(&text).map_err(|error| not_understood(4, error.to_string()))?;
    Ok(BackupRow { id, ordered_at, work, beat, record })
}

fn text(row: &BackupRow) -> Result<String, Failure> {
    let text = serde_json::to_string(&row.record).map_err(|error| Failure::Refused(error.to_string()))?;
    Ok(super::text::kept(&text).into_owned())
}

struct Order;

#[async_trait]
impl Verb for Order {
    type Input = BackupRow;
    type Output = bool;
    /// A repeat finds the row, and says that it is there.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, rows: &[BackupRow], _again: bool) -> Result<Vec<bool>, Failure> {
        let mut new = Vec::with_capacity(rows.len());
        for row in rows {
            let query = sqlx::query(sql::BACKUP_ORDER).bind(row.id.0).bind(row.ordered_at.0).bind(row.work.number());
            new.push(query.bind(text(row)?).execute(transaction.connection()).await?.rows_affected() > 0);
        }
        Ok(new)
    }
}

struct Change;

#[async_trait]
impl Verb for Change {
    type Input = BackupRow;
    type Output = bool;
    /// A repeat finds another beat: its caller looks again.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, rows: &[BackupRow], _again: bool) -> Result<Vec<bool>, Failure> {
        let mut changed = Vec::with_capacity(rows.len());
        for row in rows {
            let query = sqlx::query(sql::BACKUP_CHANGE).bind(row.id.0).bind(row.beat).bind(row.work.number());
            changed.push(query.bind(text(row)?).execute(transaction.connection()).await?.rows_affected() > 0);
        }
        Ok(changed)
    }
}

struct Forget;

#[async_trait]
impl Verb for Forget {
    type Input = Timestamp;
    type Output = u64;
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, before: &[Timestamp], _again: bool) -> Result<Vec<u64>, Failure> {
        let mut forgotten = Vec::with_capacity(before.len());
        for before in before {
            let query = sqlx::query(sql::BACKUPS_FORGET).bind(before.0);
            forgotten.push(query.execute(transaction.connection()).await?.rows_affected());
        }
        Ok(forgotten)
    }
}
