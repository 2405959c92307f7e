//! What is old. There are no tables by day: everything goes row by row, the oldest first.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Row, params};

use super::{
    SqliteJournal,
    operations::forget,
    rows::{self, Cells},
    sql::{Write, read},
    webhooks::prune,
    writer::Batch,
};
use crate::{
    ids::{Epoch, JobId},
    journal::JournalError,
    operations::Pick,
    retention::{
        COUNT_MAX, Class, Day, LOOK_AGAIN_MS, Looked, Note, Part, Pile, Retention, Rows, SettledRow, Turn, Witness,
    },
    state::Standing,
    time::Timestamp,
};

/// Most rows of one step, whatever was asked for: everybody who writes waits for it.
const STEP_MAX_ROWS: usize = 1_000;

#[async_trait]
impl Retention for SqliteJournal {
    async fn witness(&self) -> Result<Witness, JournalError> {
        let newest = |row: &Row<'_>| row.get(0).map(Timestamp);
        self.readers
            .read(move |connection| connection.prepare_cached(read::RETENTION_NEWEST)?.query_row([], newest).optional())
            .await
            .map(Witness::Newest)
    }

    async fn turn(&self) -> Result<Turn, JournalError> {
        self.readers.read(|connection| connection.prepare_cached(read::RETENTION_TURN)?.query_row([], turn)).await
    }

    async fn order_turn(&self) -> Result<i64, JournalError> {
        self.writer.submit(1, (), |batch, ()| batch.sql.one(Write::RetentionOrder, [], |row| row.get(0))).await
    }

    async fn take_turn(&self, beat: i64, now: Timestamp, until: Timestamp) -> Result<Option<Turn>, JournalError> {
        let take = |batch: &mut Batch<'_>, (beat, now, until): &(i64, Timestamp, Timestamp)| {
            batch.sql.find(Write::RetentionTake, params![beat, now.0, until.0], turn)
        };
        self.writer.submit(1, (beat, now, until), take).await
    }

    async fn end_turn(
        &self,
        beat: i64,
        now: Timestamp,
        next: Timestamp,
        remains: Option<String>,
    ) -> Result<(), JournalError> {
        type End = (i64, Timestamp, Timestamp, Option<String>);
        let end = |batch: &mut Batch<'_>, (beat, now, next, remains): &End| {
            batch.sql.execute(Write::RetentionEnd, params![beat, now.0, next.0, remains]).map(drop)
        };
        self.writer.submit(1, (beat, now, next, remains), end).await
    }

    async fn notes(&self) -> Result<BTreeMap<Class, Note>, JournalError> {
        self.readers
            .read(|connection| connection.prepare_cached(read::RETENTION_NOTES)?.query_map([], note)?.collect())
            .await
    }

    async fn note(
        &self,
        class: Class,
        removed: u64,
        now: Timestamp,
        edge: Option<Timestamp>,
    ) -> Result<(), JournalError> {
        type Noted = (Class, u64, Timestamp, Option<Timestamp>);
        let note = |batch: &mut Batch<'_>, (class, removed, now, edge): &Noted| {
            let values = params![class.as_str(), rows::to_integer(*removed), now.0, edge.map(|at| at.0)];
            batch.sql.execute(Write::RetentionNote, values).map(drop)
        };
        self.writer.submit(1, (class, removed, now, edge), note).await
    }

    async fn days(&self, _before: Timestamp) -> Result<Option<Vec<Day>>, JournalError> {
        Ok(None)
    }

    async fn drop_day(&self, _part: Part, _day: Timestamp, _cutoff: Timestamp) -> Result<Option<u64>, JournalError> {
        Ok(None)
    }

    async fn reclaim_day(&self) -> Result<bool, JournalError> {
        Ok(false)
    }

    async fn pile(&self, rows: Rows, before: Timestamp) -> Result<Pile, JournalError> {
        let text = match rows {
            Rows::Payloads => read::PILE_PAYLOADS,
            Rows::Errors => read::PILE_ATTEMPTS,
            Rows::Results => read::PILE_RESULTS,
            Rows::IdempotencyKeys => read::PILE_KEYS,
            Rows::CostDetails => read::PILE_COSTS,
            Rows::WebhookDeliveries => read::PILE_DELIVERIES,
            Rows::DayNotes => return Ok(Pile::default()),
        };
        let by_id = matches!(rows, Rows::Payloads | Rows::Errors);
        let most = COUNT_MAX as i64;
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(text)?;
                match by_id {
                    true => statement.query_row(params![before.0, JobId::first_of(before).as_bytes(), most], pile),
                    false => statement.query_row(params![before.0, most], pile),
                }
            })
            .await
    }

    async fn sweep(&self, rows: Rows, before: Timestamp, limit: usize) -> Result<u64, JournalError> {
        let limit = limit.min(STEP_MAX_ROWS);
        self.writer.submit(limit, (rows, before, limit), sweep).await
    }

    async fn expire_results(&self, now: Timestamp, limit: usize) -> Result<Looked, JournalError> {
        let limit = limit.min(STEP_MAX_ROWS);
        self.writer.submit(limit, (now, limit), expire_results).await
    }

    async fn settled(&self, after: Option<JobId>, below: JobId, limit: usize) -> Result<Vec<SettledRow>, JournalError> {
        let after = after.unwrap_or(JobId::first_of(Timestamp(0)));
        self.readers
            .read(move |connection| {
                let values = params![after.as_bytes(), below.as_bytes(), limit as i64];
                connection.prepare_cached(read::SETTLED_PAGE)?.query_map(values, settled)?.collect()
            })
            .await
    }

    async fn forget_jobs(&self, jobs: Vec<(JobId, Epoch)>) -> Result<u64, JournalError> {
        self.writer.submit(jobs.len(), jobs, |batch, jobs| forget_jobs(batch, jobs)).await
    }
}

fn turn(row: &Row<'_>) -> rusqlite::Result<Turn> {
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

fn note(row: &Row<'_>) -> rusqlite::Result<(Class, Note)> {
    let mut cells = Cells::of(row, 0);
    let class = cells.word(Class::parse)?;
    let note =
        Note { removed: cells.count()?, last: cells.count()?, last_at: cells.time()?, edge: cells.time_if_any()? };
    Ok((class, note))
}

fn pile(row: &Row<'_>) -> rusqlite::Result<Pile> {
    let mut cells = Cells::of(row, 0);
    Ok(Pile { old: cells.count()?, oldest: cells.time_if_any()? })
}

fn settled(row: &Row<'_>) -> rusqlite::Result<SettledRow> {
    let mut cells = Cells::of(row, 0);
    Ok(SettledRow {
        id: JobId(cells.id()?),
        epoch: Epoch(cells.next()?),
        queue: cells.name()?,
        finished_at: cells.time_if_any()?,
    })
}

fn sweep(batch: &mut Batch<'_>, (rows, before, limit): &(Rows, Timestamp, usize)) -> rusqlite::Result<u64> {
    let (at, first, most) = (before.0, JobId::first_of(*before), *limit as i64);
    let by_id = params![at, first.as_bytes(), most];
    let by_age = params![at, most];
    let changed = match rows {
        Rows::Payloads => {
            batch.sql.execute(Write::MemosForget, by_id)?;
            batch.sql.execute(Write::PayloadsForget, by_id)?
        }
        Rows::Errors => batch.sql.execute(Write::AttemptsForget, by_id)?,
        Rows::Results => return Ok(expire_results(batch, &(*before, *limit))?.gone),
        Rows::IdempotencyKeys => batch.sql.execute(Write::IdempotencyForget, by_age)?,
        Rows::CostDetails => {
            let mut gone = 0;
            for write in [Write::ForgetSpend, Write::ForgetCharges, Write::ForgetSavings] {
                gone += batch.sql.execute(write, by_age)?;
            }
            gone
        }
        Rows::WebhookDeliveries => return prune(batch, &(*before, *limit)),
        // There are no days.
        Rows::DayNotes => 0,
    };
    Ok(changed as u64)
}

fn expire_results(batch: &mut Batch<'_>, (now, limit): &(Timestamp, usize)) -> rusqlite::Result<Looked> {
    let (at, most) = (now.0, *limit as i64);
    let by_age = params![at, most];
    let gone = batch.sql.execute(Write::ResultsExpire, by_age)?;
    let forgotten = batch.sql.execute(Write::ResultsForget, by_age)?;
    let later = batch.sql.execute(Write::ResultsLater, params![at, most, LOOK_AGAIN_MS])?;
    Ok(Looked { looked: (forgotten + later) as u64, gone: gone as u64 })
}

fn forget_jobs(batch: &mut Batch<'_>, jobs: &[(JobId, Epoch)]) -> rusqlite::Result<u64> {
    let mut gone = 0;
    for (id, epoch) in jobs {
        let standing = batch.sql.find(Write::Standing, [id.as_bytes()], |row| rows::standing(row.get(0)?))?;
        // A dead letter is not forgotten here.
        if matches!(standing, Some(Standing::Succeeded | Standing::Cancelled)) {
            let pick = Pick { id: *id, epoch: *epoch, cost: None, holder: None };
            gone += u64::from(forget(batch, &pick)?);
        }
    }
    Ok(gone)
}
