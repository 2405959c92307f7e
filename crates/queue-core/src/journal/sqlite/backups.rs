//! What was ordered of backups, and what became of it.

use async_trait::async_trait;
use rusqlite::{Row, params};

use super::{
    SqliteJournal,
    rows::{Cells, not_understood},
    sql::{Write, read},
    writer::Batch,
};
use crate::{
    backup::{BACKUPS_PAGE_MAX, BackupId, BackupRow, Backups, WORK_MAX, Work},
    journal::JournalError,
    time::Timestamp,
};

#[async_trait]
impl Backups for SqliteJournal {
    async fn order_backup(&self, row: BackupRow) -> Result<bool, JournalError> {
        self.writer.submit(1, row, order).await
    }

    async fn backups(
        &self,
        behind: Option<(Timestamp, BackupId)>,
        limit: usize,
    ) -> Result<Vec<BackupRow>, JournalError> {
        self.readers
            .read(move |connection| {
                let (at, id) = behind.map_or((i64::MAX, [u8::MAX; 16]), |(at, id)| (at.0, *id.0.as_bytes()));
                let mut statement = connection.prepare_cached(read::BACKUPS)?;
                statement.query_map(params![at, id, limit.min(BACKUPS_PAGE_MAX) as i64], row)?.collect()
            })
            .await
    }

    async fn backup(&self, id: BackupId) -> Result<Option<BackupRow>, JournalError> {
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(read::BACKUP)?;
                statement.query_map([id.0.as_bytes()], row)?.next().transpose()
            })
            .await
    }

    async fn backup_work(&self) -> Result<Vec<BackupRow>, JournalError> {
        self.readers
            .read(|connection| {
                connection.prepare_cached(read::BACKUP_WORK)?.query_map([WORK_MAX as i64], row)?.collect()
            })
            .await
    }

    async fn change_backup(&self, row: BackupRow) -> Result<bool, JournalError> {
        self.writer.submit(1, row, change).await
    }

    async fn forget_backups(&self, before: Timestamp) -> Result<u64, JournalError> {
        self.writer
            .submit(1, before, |batch, before| Ok(batch.sql.execute(Write::BackupsForget, [before.0])? as u64))
            .await
    }
}

fn row(row: &Row<'_>) -> rusqlite::Result<BackupRow> {
    let mut cells = Cells::of(row, 0);
    let (id, ordered_at, work) = (BackupId(cells.id()?), cells.time()?, cells.next::<i16>()?);
    let work = Work::of(work).ok_or_else(|| not_understood(2, format!("unknown work {work}")))?;
    let (beat, text) = (cells.next()?, cells.next::<String>()?);
    let record = serde_json::from_str(&text).map_err(|error| not_understood(4, error.to_string()))?;
    Ok(BackupRow { id, ordered_at, work, beat, record })
}

fn text(row: &BackupRow) -> rusqlite::Result<String> {
    serde_json::to_string(&row.record).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn order(batch: &mut Batch<'_>, row: &BackupRow) -> rusqlite::Result<bool> {
    let values = params![row.id.0.as_bytes(), row.ordered_at.0, row.work.number(), text(row)?];
    Ok(batch.sql.execute(Write::BackupOrder, values)? > 0)
}

fn change(batch: &mut Batch<'_>, row: &BackupRow) -> rusqlite::Result<bool> {
    let values = params![row.id.0.as_bytes(), row.beat, row.work.number(), text(row)?];
    Ok(batch.sql.execute(Write::BackupChange, values)? > 0)
}
