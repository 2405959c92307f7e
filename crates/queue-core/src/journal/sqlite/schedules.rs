//! Schedules, and how far they are.

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use super::{
    SqliteJournal,
    rows::{Cells, json_text},
    sql::{Write, read},
    writer::Batch,
};
use crate::{
    ids::{Name, ScheduleId},
    journal::{JournalError, PAGE_MAX_ROWS},
    schedule::{Added, ChangedSchedule, Progress, SCHEDULES_MAX, Schedule, Schedules},
    time::Timestamp,
};

#[async_trait]
impl Schedules for SqliteJournal {
    async fn store_time(&self) -> Result<Timestamp, JournalError> {
        Ok(self.clock.now())
    }

    async fn add_schedule(&self, schedule: Schedule) -> Result<Added, JournalError> {
        self.writer.submit(1, schedule, add).await
    }

    async fn schedule(&self, id: ScheduleId) -> Result<Option<Schedule>, JournalError> {
        self.readers
            .read(move |connection| {
                connection.prepare_cached(read::SCHEDULE)?.query_row([id.0.as_bytes()], schedule).optional()
            })
            .await
    }

    async fn schedules(
        &self,
        tenant: Option<&Name>,
        name: Option<&Name>,
        behind: Option<ScheduleId>,
        limit: usize,
    ) -> Result<Vec<Schedule>, JournalError> {
        let limit = limit.min(PAGE_MAX_ROWS) as i64;
        let (tenant, name) = (tenant.cloned(), name.cloned());
        self.readers
            .read(move |connection| {
                let behind = behind.map(|id| id.0.as_bytes().to_vec());
                let (tenant, name) = (tenant.as_ref().map(Name::as_str), name.as_ref().map(Name::as_str));
                let mut statement = connection.prepare_cached(read::SCHEDULES)?;
                statement.query_map(params![tenant, name, behind, limit], schedule)?.collect()
            })
            .await
    }

    async fn change_schedule(&self, schedule: Schedule) -> Result<ChangedSchedule, JournalError> {
        self.writer.submit(1, schedule, change).await
    }

    async fn drop_schedule(&self, id: ScheduleId) -> Result<bool, JournalError> {
        self.writer.submit(1, id, |batch, id| Ok(batch.sql.execute(Write::ScheduleDrop, [id.0.as_bytes()])? > 0)).await
    }

    /// Looks first: a look costs the writer nothing, and mostly there is nothing to take.
    async fn claim_schedules(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Schedule>, JournalError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let due: Vec<[u8; 16]> = self
            .readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(read::SCHEDULES_DUE)?;
                statement.query_map(params![now.0, limit], |row| row.get(0))?.collect()
            })
            .await?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        self.writer.submit(due.len(), (due, now, until), claim).await
    }

    async fn advance_schedule(
        &self,
        id: ScheduleId,
        beat: i64,
        progress: Progress,
        due_at: Option<Timestamp>,
    ) -> Result<bool, JournalError> {
        self.writer.submit(1, (id, beat, progress, due_at), advance).await
    }
}

fn schedule(row: &Row<'_>) -> rusqlite::Result<Schedule> {
    let mut cells = Cells::of(row, 0);
    Ok(Schedule {
        id: ScheduleId(cells.id()?),
        tenant: cells.name()?,
        name: cells.name()?,
        key_id: cells.name()?,
        template: cells.next()?,
        settings: cells.json_there()?,
        progress: cells.json_there()?,
        version: cells.next()?,
        generation: cells.next()?,
        beat: cells.next()?,
        due_at: cells.time_if_any()?,
        created_at: cells.time()?,
    })
}

/// The schedule of a tenant that has this name.
fn named(batch: &mut Batch<'_>, one: &Schedule) -> rusqlite::Result<Option<ScheduleId>> {
    let values = params![one.tenant.as_str(), one.name.as_str()];
    batch.sql.find(Write::ScheduleNamed, values, |row| Ok(ScheduleId(Uuid::from_bytes(row.get(0)?))))
}

fn add(batch: &mut Batch<'_>, one: &Schedule) -> rusqlite::Result<Added> {
    let values = params![
        one.id.0.as_bytes(),
        one.tenant.as_str(),
        one.name.as_str(),
        one.key_id.as_str(),
        one.template,
        json_text(&one.settings)?,
        json_text(&one.progress)?,
        one.due_at.map(|at| at.0),
        one.created_at.0,
        SCHEDULES_MAX as i64,
    ];
    batch.sql.execute(Write::ScheduleAdd, values)?;
    Ok(match named(batch, one)? {
        Some(id) if id == one.id => Added::New,
        Some(_) => Added::NameTaken,
        None => Added::TooMany,
    })
}

fn change(batch: &mut Batch<'_>, one: &Schedule) -> rusqlite::Result<ChangedSchedule> {
    if named(batch, one)?.is_some_and(|id| id != one.id) {
        return Ok(ChangedSchedule::NameTaken);
    }
    let values = params![
        one.id.0.as_bytes(),
        one.beat,
        one.name.as_str(),
        one.key_id.as_str(),
        one.template,
        json_text(&one.settings)?,
        json_text(&one.progress)?,
        one.generation,
        one.due_at.map(|at| at.0),
    ];
    let is_done = batch.sql.execute(Write::ScheduleChange, values)? > 0;
    Ok(if is_done { ChangedSchedule::Done } else { ChangedSchedule::Stale })
}

fn claim(
    batch: &mut Batch<'_>,
    (due, now, until): &(Vec<[u8; 16]>, Timestamp, Timestamp),
) -> rusqlite::Result<Vec<Schedule>> {
    let mut taken = Vec::new();
    for id in due {
        taken.extend(batch.sql.find(Write::ScheduleClaim, params![id, now.0, until.0], schedule)?);
    }
    Ok(taken)
}

fn advance(
    batch: &mut Batch<'_>,
    (id, beat, progress, due_at): &(ScheduleId, i64, Progress, Option<Timestamp>),
) -> rusqlite::Result<bool> {
    let values = params![id.0.as_bytes(), beat, json_text(progress)?, due_at.map(|at| at.0)];
    Ok(batch.sql.execute(Write::ScheduleAdvance, values)? > 0)
}
