//! Tenants that are erased.

use async_trait::async_trait;
use rusqlite::{Row, params};

use super::{
    SqliteJournal,
    rows::Cells,
    sql::{ERASE_WHOLE, ERASE_WINDOW, Write, read},
    writer::Batch,
};
use crate::{
    erasure::{Erasure, Erasures, HEARD_MS, LOOK_AGAIN_MS, Sweep},
    ids::Name,
    journal::JournalError,
    time::Timestamp,
};

/// Row numbers of one step: about a hundred milliseconds of the one writer where all of them are the tenant's.
const STEP_MAX_ROWS: usize = 2_000;

#[async_trait]
impl Erasures for SqliteJournal {
    async fn erase(&self, order: Erasure, now: Timestamp) -> Result<Erasure, JournalError> {
        self.writer.submit(1, (order, now), erase).await
    }

    async fn erasures(&self) -> Result<Vec<Erasure>, JournalError> {
        self.readers
            .read(|connection| connection.prepare_cached(read::ERASURES)?.query_map([], erasure)?.collect())
            .await
    }

    async fn replay(&self, checked_before: Timestamp, now: Timestamp) -> Result<u64, JournalError> {
        self.writer.submit(1, (checked_before, now), replay).await
    }

    async fn sweep(&self) -> Result<Sweep, JournalError> {
        self.readers.read(|connection| connection.prepare_cached(read::ERASE_WALK)?.query_row([], sweep)).await
    }

    async fn sweep_on(&self, beat: i64, now: Timestamp) -> Result<Option<Sweep>, JournalError> {
        self.writer.submit(STEP_MAX_ROWS, (beat, now), sweep_on).await
    }

    async fn holdings(&self, tenant: &Name) -> Result<Vec<(String, Option<u64>)>, JournalError> {
        let tenant = tenant.clone();
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(read::ERASE_COUNTS)?;
                let counted = statement.query_map([tenant.as_str()], |row| {
                    let mut cells = Cells::of(row, 0);
                    Ok((cells.next()?, Some(cells.count()?)))
                })?;
                counted.collect()
            })
            .await
    }
}

fn erasure(row: &Row<'_>) -> rusqlite::Result<Erasure> {
    let mut cells = Cells::of(row, 0);
    Ok(Erasure {
        tenant: cells.name()?,
        pseudonym: cells.next()?,
        accepted_at: cells.time()?,
        erased: cells.count()?,
        finished_at: cells.time_if_any()?,
        checked_at: cells.time_if_any()?,
        due_at: cells.time_if_any()?,
    })
}

fn sweep(row: &Row<'_>) -> rusqlite::Result<Sweep> {
    let mut cells = Cells::of(row, 0);
    Ok(Sweep { beat: cells.next()?, began_at: cells.time_if_any()? })
}

fn erase(batch: &mut Batch<'_>, (order, now): &(Erasure, Timestamp)) -> rusqlite::Result<Erasure> {
    let tenant = order.tenant.as_str();
    let values = params![tenant, order.pseudonym, order.accepted_at.0, now.plus_ms(HEARD_MS).0];
    let kept = batch.sql.one(Write::EraseBegin, values, erasure)?;
    for write in [Write::EraseShred, Write::EraseSecrets, Write::EraseEndpoints] {
        batch.sql.execute(write, [tenant])?;
    }
    batch.sql.execute(Write::EraseKeys, params![tenant, now.0])?;
    Ok(kept)
}

fn replay(batch: &mut Batch<'_>, (before, now): &(Timestamp, Timestamp)) -> rusqlite::Result<u64> {
    Ok(batch.sql.execute(Write::EraseReplay, params![before.0, now.0])? as u64)
}

fn sweep_on(batch: &mut Batch<'_>, (beat, now): &(i64, Timestamp)) -> rusqlite::Result<Option<Sweep>> {
    let values = params![beat, now.0, STEP_MAX_ROWS as i64];
    let Some(begins) = batch.sql.find(Write::EraseHold, values, |row| row.get::<_, bool>(0))? else { return Ok(None) };
    if begins {
        batch.script(ERASE_WHOLE)?;
    }
    batch.script(ERASE_WINDOW)?;
    if batch.sql.one(Write::EraseIsOver, [], |row| row.get::<_, bool>(0))? {
        let [first, second, third, fourth] = LOOK_AGAIN_MS;
        batch.sql.execute(Write::EraseFound, params![now.0, first, second, third, fourth])?;
        batch.sql.execute(Write::EraseEnd, [])?;
    }
    Ok(Some(batch.sql.one(Write::EraseSweep, [], sweep)?))
}
