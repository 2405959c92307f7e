//! Schedules, and how far they are.

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{
    PostgresJournal,
    failure::Failure,
    rows::{Cells, json_text},
    sql,
    text::kept,
    transaction::{Transaction, Verb},
};
use crate::{
    ids::{Name, ScheduleId},
    journal::{JournalError, PAGE_MAX_ROWS},
    schedule::{Added, ChangedSchedule, Progress, SCHEDULES_MAX, Schedule, Schedules},
    time::Timestamp,
};

#[async_trait]
impl Schedules for PostgresJournal {
    async fn store_time(&self) -> Result<Timestamp, JournalError> {
        self.ask(|pool| async move { Ok(Timestamp(sqlx::query_scalar(sql::STORE_TIME).fetch_one(&pool).await?)) }).await
    }

    async fn add_schedule(&self, schedule: Schedule) -> Result<Added, JournalError> {
        self.write::<Add>(schedule).await
    }

    async fn schedule(&self, id: ScheduleId) -> Result<Option<Schedule>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::SCHEDULE).bind(id.0).fetch_optional(&pool).await?;
            Ok(found.as_ref().map(schedule).transpose()?)
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
        self.ask(|pool| async move {
            let asked = sqlx::query(sql::SCHEDULES)
                .bind(tenant.map(Name::as_str))
                .bind(name.map(Name::as_str))
                .bind(behind.map(|id| id.0))
                .bind(limit);
            Ok(asked.fetch_all(&pool).await?.iter().map(schedule).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn change_schedule(&self, schedule: Schedule) -> Result<ChangedSchedule, JournalError> {
        self.write::<Change>(schedule).await
    }

    async fn drop_schedule(&self, id: ScheduleId) -> Result<bool, JournalError> {
        self.write::<Drop>(id).await
    }

    async fn claim_schedules(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Schedule>, JournalError> {
        self.write::<Claim>((now, until, limit)).await
    }

    async fn advance_schedule(
        &self,
        id: ScheduleId,
        beat: i64,
        progress: Progress,
        due_at: Option<Timestamp>,
    ) -> Result<bool, JournalError> {
        self.write::<Advance>((id, beat, progress, due_at)).await
    }
}

fn schedule(row: &PgRow) -> Result<Schedule, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(Schedule {
        id: ScheduleId(cells.next()?),
        tenant: cells.name()?,
        name: cells.name()?,
        key_id: cells.name()?,
        template: cells.text()?,
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
async fn named(transaction: &mut Transaction, tenant: &Name, name: &Name) -> Result<Option<Uuid>, Failure> {
    let asked = sqlx::query_scalar(sql::SCHEDULE_NAMED).bind(tenant.as_str()).bind(name.as_str());
    Ok(asked.fetch_optional(transaction.connection()).await?)
}

struct Add;

#[async_trait]
impl Verb for Add {
    type Input = Schedule;
    type Output = Added;
    /// A repeat finds its own row.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Schedule], _again: bool) -> Result<Vec<Added>, Failure> {
        let mut added = Vec::new();
        for one in inputs {
            sqlx::query(sql::SCHEDULE_ADD)
                .bind(one.id.0)
                .bind(one.tenant.as_str())
                .bind(one.name.as_str())
                .bind(one.key_id.as_str())
                .bind(kept(&one.template))
                .bind(json_text(&one.settings)?)
                .bind(json_text(&one.progress)?)
                .bind(one.due_at.map(|at| at.0))
                .bind(one.created_at.0)
                .bind(SCHEDULES_MAX as i64)
                .execute(transaction.connection())
                .await?;
            added.push(match named(transaction, &one.tenant, &one.name).await? {
                Some(id) if id == one.id.0 => Added::New,
                Some(_) => Added::NameTaken,
                None => Added::TooMany,
            });
        }
        Ok(added)
    }
}

struct Change;

#[async_trait]
impl Verb for Change {
    type Input = Schedule;
    type Output = ChangedSchedule;
    const REPEATABLE: bool = false;

    async fn run(
        transaction: &mut Transaction,
        inputs: &[Schedule],
        _again: bool,
    ) -> Result<Vec<ChangedSchedule>, Failure> {
        let mut answers = Vec::new();
        for one in inputs {
            if named(transaction, &one.tenant, &one.name).await?.is_some_and(|id| id != one.id.0) {
                answers.push(ChangedSchedule::NameTaken);
                continue;
            }
            let changed = sqlx::query(sql::SCHEDULE_CHANGE)
                .bind(one.id.0)
                .bind(one.beat)
                .bind(one.name.as_str())
                .bind(one.key_id.as_str())
                .bind(kept(&one.template))
                .bind(json_text(&one.settings)?)
                .bind(json_text(&one.progress)?)
                .bind(one.generation)
                .bind(one.due_at.map(|at| at.0))
                .execute(transaction.connection())
                .await?;
            let is_done = changed.rows_affected() > 0;
            answers.push(if is_done { ChangedSchedule::Done } else { ChangedSchedule::Stale });
        }
        Ok(answers)
    }
}

struct Drop;

#[async_trait]
impl Verb for Drop {
    type Input = ScheduleId;
    type Output = bool;
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[ScheduleId], again: bool) -> Result<Vec<bool>, Failure> {
        let mut gone = Vec::new();
        for id in inputs {
            let dropped = sqlx::query(sql::SCHEDULE_DROP).bind(id.0).execute(transaction.connection()).await?;
            gone.push(dropped.rows_affected() > 0 || again);
        }
        Ok(gone)
    }
}

struct Claim;

#[async_trait]
impl Verb for Claim {
    type Input = (Timestamp, Timestamp, usize);
    type Output = Vec<Schedule>;
    /// What a lost commit took becomes due by itself.
    const REPEATABLE: bool = true;

    async fn run(
        transaction: &mut Transaction,
        inputs: &[Self::Input],
        _again: bool,
    ) -> Result<Vec<Vec<Schedule>>, Failure> {
        let mut taken = Vec::new();
        for (now, until, limit) in inputs {
            let found = sqlx::query(sql::SCHEDULES_CLAIM)
                .bind(now.0)
                .bind(until.0)
                .bind(i64::try_from(*limit).unwrap_or(i64::MAX))
                .fetch_all(transaction.connection())
                .await?;
            // One that this version cannot read is due again after its claim, and stops nobody else.
            let readable = |row: &PgRow| {
                schedule(row)
                    .inspect_err(|error| tracing::warn!(%error, "a schedule cannot be read by this version"))
                    .ok()
            };
            taken.push(found.iter().filter_map(readable).collect());
        }
        Ok(taken)
    }
}

struct Advance;

#[async_trait]
impl Verb for Advance {
    type Input = (ScheduleId, i64, Progress, Option<Timestamp>);
    type Output = bool;
    /// A repeat finds another beat and says that somebody else came first: its caller looks again.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<bool>, Failure> {
        let mut done = Vec::new();
        for (id, beat, progress, due_at) in inputs {
            let advanced = sqlx::query(sql::SCHEDULE_ADVANCE)
                .bind(id.0)
                .bind(beat)
                .bind(json_text(progress)?)
                .bind(due_at.map(|at| at.0))
                .execute(transaction.connection())
                .await?;
            done.push(advanced.rows_affected() > 0);
        }
        Ok(done)
    }
}
