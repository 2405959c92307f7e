//! Archives: letters as they go out, what is noted of them, and the way back.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{
    PostgresJournal,
    failure::Failure,
    rows::{self, Cells, to_bigint, to_integer},
    sql,
    text::{kept, kept_if_any},
    transaction::{Transaction, Verb},
};
use crate::{
    archive::{Archive, ArchiveObject, Archives, Body, Kept, Letter, OBJECT_MAX_LETTERS, Past, Restore, Sums},
    ids::{CallId, Epoch, JobId, Name, OperationId},
    job::Kind,
    journal::{JournalError, PAGE_MAX_ROWS, totals::TotalsChange},
    ledger::Nanousd,
    operations::{Pick, Step},
};

#[async_trait]
impl Archives for PostgresJournal {
    async fn letters(&self, picks: &[Pick]) -> Result<Vec<Letter>, JournalError> {
        let (ids, epochs): (Vec<Uuid>, Vec<i64>) =
            picks.iter().take(OBJECT_MAX_LETTERS).map(|pick| (pick.id.0, pick.epoch.0)).unzip();
        self.ask(|pool| {
            let (ids, epochs) = (&ids, &epochs);
            async move {
                let found = sqlx::query(sql::LETTERS).bind(ids).bind(epochs).fetch_all(&pool).await?;
                // The rows first: a call that is recorded behind them changes their number of calls, which is compared again.
                let mut letters = found.iter().map(letter).collect::<Result<Vec<_>, _>>()?;
                let place: HashMap<JobId, usize> = letters.iter().enumerate().map(|(at, one)| (one.id, at)).collect();
                for row in &sqlx::query(sql::LETTERS_ATTEMPTS).bind(ids).fetch_all(&pool).await? {
                    let (id, past) = past(row)?;
                    if let Some(at) = place.get(&id) {
                        letters[*at].history.push(past);
                    }
                }
                for row in &sqlx::query(sql::LETTERS_MEMOS).bind(ids).fetch_all(&pool).await? {
                    let mut cells = Cells::of(row, 0);
                    let id = cells.job_id()?;
                    let memo = Kept {
                        call_id: CallId(cells.next()?),
                        request_hash: cells.hash()?,
                        body: Body::from(cells.next::<&[u8]>()?),
                    };
                    if let Some(at) = place.get(&id) {
                        letters[*at].memos.push(memo);
                    }
                }
                Ok(letters)
            }
        })
        .await
    }

    async fn archive(&self, id: OperationId) -> Result<Option<Archive>, JournalError> {
        Ok(self.archives_of(None, Some(id), 1).await?.pop())
    }

    async fn archives(&self, behind: Option<OperationId>, limit: usize) -> Result<Vec<Archive>, JournalError> {
        self.archives_of(behind, None, limit).await
    }

    async fn objects_of(
        &self,
        id: OperationId,
        behind: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ArchiveObject>, JournalError> {
        let limit = limit.min(PAGE_MAX_ROWS) as i64;
        self.ask(|pool| async move {
            let asked = sqlx::query(sql::ARCHIVE_OBJECTS).bind(id.0).bind(behind.unwrap_or_default()).bind(limit);
            Ok(asked.fetch_all(&pool).await?.iter().map(object).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn restore(&self, restore: Restore) -> Result<Vec<JobId>, JournalError> {
        self.write::<PutBack>(restore).await
    }
}

impl PostgresJournal {
    async fn archives_of(
        &self,
        behind: Option<OperationId>,
        only: Option<OperationId>,
        limit: usize,
    ) -> Result<Vec<Archive>, JournalError> {
        let limit = limit.min(PAGE_MAX_ROWS) as i64;
        self.ask(|pool| async move {
            let asked = sqlx::query(sql::ARCHIVES).bind(behind.map(|id| id.0)).bind(only.map(|id| id.0)).bind(limit);
            Ok(asked.fetch_all(&pool).await?.iter().map(archive).collect::<Result<_, _>>()?)
        })
        .await
    }
}

fn archive(row: &PgRow) -> Result<Archive, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(Archive {
        id: OperationId(cells.next()?),
        filter: cells.text()?,
        reason: cells.text_if_any()?,
        asked_by: cells.name()?,
        began_at: cells.time()?,
        objects: cells.count()?,
        letters: cells.count()?,
        bytes: cells.count()?,
        cost: Nanousd(cells.next()?),
    })
}

fn object(row: &PgRow) -> Result<ArchiveObject, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(ArchiveObject {
        path: cells.next()?,
        tenant: cells.name()?,
        sha256: cells.hash()?,
        bytes: cells.count()?,
        letters: cells.count()?,
        calls: cells.count()?,
        cost_nanousd: Nanousd(cells.next()?),
        first_ended_at: cells.time()?,
        last_ended_at: cells.time()?,
        restored: cells.next()?,
    })
}

/// The columns of `letters.sql`.
fn letter(row: &PgRow) -> Result<Letter, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(Letter {
        id: cells.job_id()?,
        tenant: cells.name()?,
        queue: cells.name()?,
        kind: cells.word(Kind::parse)?,
        target: cells.name()?,
        priority: u8::try_from(cells.next::<i16>()?).unwrap_or_default(),
        epoch: Epoch(cells.next()?),
        attempts: cells.small_count()?,
        max_attempts: cells.small_count()?,
        recoveries: cells.small_count()?,
        releases: cells.small_count()?,
        redrives: cells.small_count()?,
        run_at: cells.time()?,
        start_by: cells.time_if_any()?,
        deadline: cells.time_if_any()?,
        timeout_ms: cells.count_if_any()?,
        accepted_at: cells.time()?,
        finished_at: cells.time()?,
        unique_key: cells.text_if_any()?,
        concurrency_key: cells.name_if_any()?,
        operation: cells.text_if_any()?,
        batch_id: cells.text_if_any()?,
        tags: cells.json()?.unwrap_or_default(),
        request_id: cells.text_if_any()?,
        traceparent: cells.text_if_any()?,
        error: cells.json_there()?,
        served_by: cells.text_if_any()?,
        sums: Sums {
            calls: cells.count()?,
            tokens_in: cells.count()?,
            tokens_out: cells.count()?,
            tokens_cached: cells.count()?,
            tokens_cache_write: cells.count()?,
            tokens_reasoning: cells.count()?,
            cost_nanousd: Nanousd(cells.next()?),
            cost_unknown: cells.next()?,
        },
        key_id: cells.name_if_any()?,
        max_cost_nanousd: cells.next::<Option<i64>>()?.map(Nanousd),
        webhook: cells.text_if_any()?,
        payload: Body::from(cells.next::<&[u8]>()?),
        fallback: cells.json()?.unwrap_or_default(),
        history: vec![],
        memos: vec![],
    })
}

fn past(row: &PgRow) -> Result<(JobId, Past), sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    let id = cells.job_id()?;
    let past = Past {
        epoch: Epoch(cells.next()?),
        number: cells.small_count()?,
        outcome: cells.next()?,
        session: cells.next()?,
        started_at: cells.time_if_any()?,
        finished_at: cells.time()?,
        error: cells.json()?,
    };
    Ok((id, past))
}

/// Whether the jobs of a step are, within its transaction, what its objects were made of.
pub(super) async fn is_ready(transaction: &mut Transaction, step: &Step) -> Result<bool, Failure> {
    let mut picks: Vec<(Uuid, i64)> = step.picks.iter().map(|pick| (pick.id.0, pick.epoch.0)).collect();
    // In the order of their ids, as everything that changes several jobs.
    picks.sort_unstable();
    let (ids, epochs): (Vec<Uuid>, Vec<i64>) = picks.into_iter().unzip();
    sqlx::query(sql::JOBS_LOCK).bind(&ids).execute(transaction.connection()).await?;
    let asked = sqlx::query(sql::ARCHIVE_READY).bind(&ids).bind(&epochs);
    let row = asked.fetch_one(transaction.connection()).await?;
    let mut cells = Cells::of(&row, 0);
    let found: (u64, u64) = (cells.count()?, cells.count()?);
    let letters: u64 = step.objects.iter().map(|object| object.letters).sum();
    let calls: u64 = step.objects.iter().map(|object| object.calls).sum();
    Ok(letters == ids.len() as u64 && found == (letters, calls))
}

/// Notes what a step has archived.
pub(super) async fn note(transaction: &mut Transaction, step: &Step) -> Result<(), Failure> {
    for object in &step.objects {
        sqlx::query(sql::ARCHIVE_ADD)
            .bind(step.id.0)
            .bind(&object.path)
            .bind(object.tenant.as_str())
            .bind(&object.sha256[..])
            .bind(to_bigint(object.bytes))
            .bind(to_bigint(object.letters))
            .bind(to_bigint(object.calls))
            .bind(object.cost_nanousd.0)
            .bind(object.first_ended_at.0)
            .bind(object.last_ended_at.0)
            .execute(transaction.connection())
            .await?;
    }
    Ok(())
}

/// Puts letters back.
struct PutBack;

#[async_trait]
impl Verb for PutBack {
    type Input = Restore;
    type Output = Vec<JobId>;
    /// A repeat finds the object put back, and says that it put none back.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Restore], _again: bool) -> Result<Vec<Vec<JobId>>, Failure> {
        let mut answers = Vec::new();
        for Restore { archive, path, letters } in inputs {
            let noted = sqlx::query(sql::ARCHIVE_OBJECT_RESTORE).bind(archive.0).bind(path);
            if noted.execute(transaction.connection()).await?.rows_affected() == 0 {
                answers.push(vec![]);
                continue;
            }
            let mut letters: Vec<&Letter> = letters.iter().collect();
            letters.sort_unstable_by_key(|letter| letter.id);
            let mut back = Vec::new();
            for letter in letters {
                if put_back(transaction, letter).await? {
                    back.push(letter);
                }
            }
            put_back_attempts(transaction, &back).await?;
            put_back_memos(transaction, &back).await?;
            let queues: HashSet<&str> = back.iter().map(|letter| letter.queue.as_str()).collect();
            let mut queues: Vec<&str> = queues.into_iter().collect();
            queues.sort_unstable();
            sqlx::query(sql::QUEUES_OPEN).bind(queues).execute(transaction.connection()).await?;
            for letter in &back {
                transaction.count(&letter.queue, &letter.tenant, TotalsChange::RESTORED_DEAD);
            }
            answers.push(back.into_iter().map(|letter| letter.id).collect());
        }
        Ok(answers)
    }
}

/// Whether its id was free.
async fn put_back(transaction: &mut Transaction, letter: &Letter) -> Result<bool, Failure> {
    let payload = letter.payload.bytes().map_err(Failure::Refused)?;
    let put = sqlx::query(sql::RESTORE_PAYLOAD)
        .bind(letter.id.0)
        .bind(letter.tenant.as_str())
        .bind(&*payload)
        .bind(rows::fallback_text(&letter.fallback)?)
        .execute(transaction.connection())
        .await?;
    if put.rows_affected() == 0 {
        return Ok(false);
    }
    let names = |name: &'_ Option<Name>| name.as_ref().map(|name| name.as_str().to_owned());
    let sums = &letter.sums;
    sqlx::query(sql::RESTORE_LETTER)
        .bind(letter.id.0)
        .bind(letter.tenant.as_str())
        .bind(letter.queue.as_str())
        .bind(letter.kind.as_str())
        .bind(letter.target.as_str())
        .bind(i16::from(letter.priority))
        .bind(letter.epoch.0)
        .bind(to_integer(letter.attempts))
        .bind(to_integer(letter.max_attempts))
        .bind(to_integer(letter.recoveries))
        .bind(to_integer(letter.releases))
        .bind(to_integer(letter.redrives))
        .bind(letter.run_at.0)
        .bind(letter.start_by.map(|at| at.0))
        .bind(letter.deadline.map(|at| at.0))
        .bind(letter.timeout_ms.map(to_bigint))
        .bind(letter.accepted_at.0)
        .bind(letter.finished_at.0)
        .bind(kept_if_any(letter.unique_key.as_ref()))
        .bind(names(&letter.concurrency_key))
        .bind(kept_if_any(letter.operation.as_ref()))
        .bind(kept_if_any(letter.batch_id.as_ref()))
        .bind(rows::tags_text(&letter.tags)?)
        .bind(kept_if_any(letter.request_id.as_ref()))
        .bind(kept_if_any(letter.traceparent.as_ref()))
        .bind(rows::json_text(&letter.error)?)
        .bind(letter.error.class.as_str())
        .bind(kept(&letter.error.signature))
        .bind(kept_if_any(letter.served_by.as_ref()))
        .bind(to_bigint(sums.calls))
        .bind(to_bigint(sums.tokens_in))
        .bind(to_bigint(sums.tokens_out))
        .bind(to_bigint(sums.tokens_cached))
        .bind(to_bigint(sums.tokens_cache_write))
        .bind(to_bigint(sums.tokens_reasoning))
        .bind(sums.cost_nanousd.0)
        .bind(sums.cost_unknown)
        .bind(names(&letter.key_id))
        .bind(letter.max_cost_nanousd.map(|cost| cost.0))
        .bind(kept_if_any(letter.webhook.as_ref()))
        .execute(transaction.connection())
        .await?;
    Ok(true)
}

async fn put_back_attempts(transaction: &mut Transaction, letters: &[&Letter]) -> Result<(), Failure> {
    let all: Vec<(&Letter, &Past)> =
        letters.iter().flat_map(|letter| letter.history.iter().map(|past| (*letter, past))).collect();
    let errors = all.iter().map(|(_, past)| past.error.as_ref().map(rows::json_text).transpose());
    sqlx::query(sql::RESTORE_ATTEMPTS)
        .bind(all.iter().map(|(letter, _)| letter.id.0).collect::<Vec<_>>())
        .bind(all.iter().map(|(letter, _)| letter.tenant.as_str()).collect::<Vec<_>>())
        .bind(all.iter().map(|(_, past)| past.epoch.0).collect::<Vec<_>>())
        .bind(all.iter().map(|(_, past)| to_integer(past.number)).collect::<Vec<_>>())
        .bind(all.iter().map(|(_, past)| past.outcome.as_str()).collect::<Vec<_>>())
        .bind(all.iter().map(|(_, past)| past.session).collect::<Vec<_>>())
        .bind(all.iter().map(|(_, past)| past.started_at.map(|at| at.0)).collect::<Vec<_>>())
        .bind(all.iter().map(|(_, past)| past.finished_at.0).collect::<Vec<_>>())
        .bind(errors.collect::<Result<Vec<_>, _>>()?)
        .execute(transaction.connection())
        .await?;
    Ok(())
}

async fn put_back_memos(transaction: &mut Transaction, letters: &[&Letter]) -> Result<(), Failure> {
    let all: Vec<(&Letter, &Kept)> =
        letters.iter().flat_map(|letter| letter.memos.iter().map(|memo| (*letter, memo))).collect();
    let bodies = all.iter().map(|(_, memo)| memo.body.bytes().map_err(Failure::Refused));
    let bodies = bodies.collect::<Result<Vec<_>, _>>()?;
    sqlx::query(sql::MEMOS_KEEP)
        .bind(all.iter().map(|(letter, _)| letter.id.0).collect::<Vec<_>>())
        .bind(all.iter().map(|(letter, _)| letter.tenant.as_str()).collect::<Vec<_>>())
        .bind(all.iter().map(|(_, memo)| memo.call_id.0).collect::<Vec<_>>())
        .bind(all.iter().map(|(_, memo)| &memo.request_hash[..]).collect::<Vec<_>>())
        .bind(bodies.iter().map(|body| &body[..]).collect::<Vec<_>>())
        .execute(transaction.connection())
        .await?;
    Ok(())
}
