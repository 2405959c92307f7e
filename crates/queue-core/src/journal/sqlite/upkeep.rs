//! Upkeep of the file: what it knows of its own tables, whether it is whole, and pages that nothing is in.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;

use super::{SqliteJournal, writer::Batch};
use crate::{
    journal::JournalError,
    time::Timestamp,
    upkeep::{Chore, StoreState, Tended, Upkeep},
};

/// `auto_vacuum` of a file whose free pages can go back. Of one that was made before, they are used again.
const INCREMENTAL: i64 = 2;
/// Pages that go back to the disk in one step: everybody who writes waits for it.
const SHRINK_STEP_PAGES: i64 = 2_000;
/// Steps of one shrink: 8 GiB, and the next window goes on.
const SHRINK_STEPS_MAX: usize = 1_000;
/// Pause between two steps.
const SHRINK_PAUSE: Duration = Duration::from_millis(50);

#[async_trait]
impl Upkeep for SqliteJournal {
    async fn store_state(&self) -> Result<StoreState, JournalError> {
        self.readers
            .read(|connection| {
                let (bytes, free) = (bytes_of(connection, "page_count")?, bytes_of(connection, "freelist_count")?);
                let mode: i64 = connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
                let can_shrink = mode == INCREMENTAL;
                Ok(StoreState { bytes, free_bytes: Some(free), can_shrink, ..StoreState::default() })
            })
            .await
    }

    async fn tend(&self, chore: &Chore, _within: Duration) -> Result<Tended, JournalError> {
        let before = self.store_state().await?.bytes;
        match chore {
            Chore::Optimize => self.writer.submit(1, (), |batch, ()| batch.script("PRAGMA optimize;")).await?,
            Chore::Check => {
                let found: String = self
                    .readers
                    .read(|connection| connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)))
                    .await?;
                if found != "ok" {
                    return Err(JournalError::Corrupt(format!("the file is damaged: {found}; restore a backup")));
                }
            }
            Chore::Shrink => {
                for _ in 0..SHRINK_STEPS_MAX {
                    if self.writer.submit(1, (), shrink).await? < SHRINK_STEP_PAGES {
                        break;
                    }
                    tokio::time::sleep(SHRINK_PAUSE).await;
                }
            }
            other => return Err(JournalError::Corrupt(format!("a file has no chore {other}"))),
        }
        Ok(Tended::Done { before_bytes: before, after_bytes: self.store_state().await?.bytes })
    }

    async fn server_now(&self) -> Result<Option<Timestamp>, JournalError> {
        Ok(None)
    }
}

fn bytes_of(connection: &Connection, pages: &str) -> rusqlite::Result<u64> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    Ok((number(pages)? * number("page_size")?).unsigned_abs())
}

/// Gives some pages back; how many went.
fn shrink(batch: &mut Batch<'_>, (): &()) -> rusqlite::Result<i64> {
    batch.shrink(SHRINK_STEP_PAGES)
}
