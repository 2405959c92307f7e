//! Archives: letters as they go out, what is noted of them, and the way back.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::{
    SqliteJournal,
    rows::{self, Cells},
    sql::{Write, read},
    writer::Batch,
};
use crate::{
    archive::{Archive, ArchiveObject, Archives, Body, Kept, Letter, OBJECT_MAX_LETTERS, Past, Restore, Sums},
    ids::{Epoch, JobId, Name, OperationId},
    job::Kind,
    journal::{JournalError, PAGE_MAX_ROWS, totals::TotalsChange},
    ledger::Nanousd,
    operations::{Pick, Step},
};

#[async_trait]
impl Archives for SqliteJournal {
    async fn letters(&self, picks: &[Pick]) -> Result<Vec<Letter>, JournalError> {
        let picks: Vec<Pick> = picks.iter().take(OBJECT_MAX_LETTERS).copied().collect();
        self.readers
            .read(move |connection| {
                let found = picks.iter().map(|pick| whole(connection, pick));
                found.filter_map(Result::transpose).collect()
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
        let (behind, limit) = (behind.unwrap_or_default().to_owned(), limit.min(PAGE_MAX_ROWS) as i64);
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(read::ARCHIVE_OBJECTS)?;
                statement.query_map(params![id.0.as_bytes(), behind, limit], object)?.collect()
            })
            .await
    }

    async fn restore(&self, wanted: Restore) -> Result<Vec<JobId>, JournalError> {
        let rows = wanted.letters.len() + 1;
        self.writer.submit(rows, wanted, restore).await
    }
}

impl SqliteJournal {
    async fn archives_of(
        &self,
        behind: Option<OperationId>,
        only: Option<OperationId>,
        limit: usize,
    ) -> Result<Vec<Archive>, JournalError> {
        let limit = limit.min(PAGE_MAX_ROWS) as i64;
        let bytes = |id: Option<OperationId>| id.map(|id| id.0.as_bytes().to_vec());
        let (behind, only) = (bytes(behind), bytes(only));
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(read::ARCHIVES)?;
                statement.query_map(params![behind, only, limit], archive)?.collect()
            })
            .await
    }
}

fn archive(row: &Row<'_>) -> rusqlite::Result<Archive> {
    let mut cells = Cells::of(row, 0);
    Ok(Archive {
        id: OperationId(cells.id()?),
        filter: cells.next()?,
        reason: cells.next()?,
        asked_by: cells.name()?,
        began_at: cells.time()?,
        objects: cells.count()?,
        letters: cells.count()?,
        bytes: cells.count()?,
        cost: Nanousd(cells.next()?),
    })
}

fn object(row: &Row<'_>) -> rusqlite::Result<ArchiveObject> {
    let mut cells = Cells::of(row, 0);
    Ok(ArchiveObject {
        path: cells.next()?,
        tenant: cells.name()?,
        sha256: cells.next()?,
        bytes: cells.count()?,
        letters: cells.count()?,
        calls: cells.count()?,
        cost_nanousd: Nanousd(cells.next()?),
        first_ended_at: cells.time()?,
        last_ended_at: cells.time()?,
        restored: cells.next()?,
    })
}

/// A letter with its attempts and its kept answers. Its row first: a call that is recorded behind it changes its number of calls,
/// which is compared again.
fn whole(connection: &Connection, pick: &Pick) -> rusqlite::Result<Option<Letter>> {
    let mut found = connection.prepare_cached(read::LETTER)?;
    let Some(mut letter) = found.query_row(params![pick.id.as_bytes(), pick.epoch.0], letter).optional()? else {
        return Ok(None);
    };
    let mut attempts = connection.prepare_cached(read::ATTEMPTS_OF)?;
    letter.history = attempts.query_map([pick.id.as_bytes()], past)?.collect::<Result<_, _>>()?;
    let mut memos = connection.prepare_cached(read::MEMOS)?;
    let kept = memos.query_map([pick.id.as_bytes()], rows::memo)?.map(|memo| {
        let memo = memo?;
        let (request_hash, body) = (memo.memo.request_hash, Body::from(&*memo.memo.body));
        Ok(Kept { call_id: memo.call_id, request_hash, body })
    });
    letter.memos = kept.collect::<rusqlite::Result<_>>()?;
    Ok(Some(letter))
}

/// The columns of `letter.sql`.
fn letter(row: &Row<'_>) -> rusqlite::Result<Letter> {
    let mut cells = Cells::of(row, 0);
    Ok(Letter {
        id: JobId(cells.id()?),
        tenant: cells.name()?,
        queue: cells.name()?,
        kind: cells.word(Kind::parse)?,
        target: cells.name()?,
        priority: cells.next()?,
        epoch: Epoch(cells.next()?),
        attempts: cells.count()?,
        max_attempts: cells.count()?,
        recoveries: cells.count()?,
        releases: cells.count()?,
        redrives: cells.count()?,
        run_at: cells.time()?,
        start_by: cells.time_if_any()?,
        deadline: cells.time_if_any()?,
        timeout_ms: cells.count_if_any()?,
        accepted_at: cells.time()?,
        finished_at: cells.time()?,
        unique_key: cells.next()?,
        concurrency_key: cells.name_if_any()?,
        operation: cells.next()?,
        batch_id: cells.next()?,
        tags: cells.json()?.unwrap_or_default(),
        request_id: cells.next()?,
        traceparent: cells.next()?,
        error: cells.json_there()?,
        served_by: cells.next()?,
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
        webhook: cells.next()?,
        payload: Body::from(&*cells.next::<Vec<u8>>()?),
        fallback: cells.json()?.unwrap_or_default(),
        history: vec![],
        memos: vec![],
    })
}

/// The columns of `attempts_of.sql`.
fn past(row: &Row<'_>) -> rusqlite::Result<Past> {
    let mut cells = Cells::of(row, 0);
    Ok(Past {
        epoch: Epoch(cells.next()?),
        number: cells.count()?,
        outcome: cells.next()?,
        session: Uuid::from_bytes(cells.next()?),
        started_at: cells.time_if_any()?,
        finished_at: cells.time()?,
        error: cells.json()?,
    })
}

/// Whether the jobs of a step are, within its transaction, what its objects were made of.
pub(super) fn is_ready(batch: &mut Batch<'_>, step: &Step) -> rusqlite::Result<bool> {
    let mut calls: u64 = 0;
    for pick in &step.picks {
        let values = params![pick.id.as_bytes(), pick.epoch.0];
        let Some(found) = batch.sql.find(Write::ArchiveReady, values, |row| Cells::of(row, 0).count::<u64>())? else {
            return Ok(false);
        };
        calls += found;
    }
    let letters: u64 = step.objects.iter().map(|object| object.letters).sum();
    let noted: u64 = step.objects.iter().map(|object| object.calls).sum();
    Ok(letters == step.picks.len() as u64 && calls == noted)
}

/// Notes what a step has archived.
pub(super) fn note(batch: &mut Batch<'_>, step: &Step) -> rusqlite::Result<()> {
    for object in &step.objects {
        let (letters, bytes) = (rows::to_integer(object.letters), rows::to_integer(object.bytes));
        let values = params![
            step.id.0.as_bytes(),
            object.path,
            object.tenant.as_str(),
            object.sha256,
            bytes,
            letters,
            rows::to_integer(object.calls),
            object.cost_nanousd.0,
            object.first_ended_at.0,
            object.last_ended_at.0,
        ];
        batch.sql.execute(Write::ArchiveObjectAdd, values)?;
        let values = params![step.id.0.as_bytes(), bytes, letters, object.cost_nanousd.0];
        batch.sql.execute(Write::ArchiveAdd, values)?;
    }
    Ok(())
}

fn restore(batch: &mut Batch<'_>, wanted: &Restore) -> rusqlite::Result<Vec<JobId>> {
    let Restore { archive, path, letters } = wanted;
    let mut back = Vec::new();
    if batch.sql.execute(Write::ArchiveObjectRestore, params![archive.0.as_bytes(), path])? == 0 {
        return Ok(back);
    }
    for letter in letters {
        if put_back(batch, letter)? {
            batch.sql.execute(Write::QueueOpen, [letter.queue.as_str()])?;
            batch.sql.execute(Write::TotalsOpen, [letter.queue.as_str()])?;
            batch.count(&letter.queue, &letter.tenant, TotalsChange::RESTORED_DEAD);
            back.push(letter.id);
        }
    }
    Ok(back)
}

/// Whether its id was free.
fn put_back(batch: &mut Batch<'_>, letter: &Letter) -> rusqlite::Result<bool> {
    if insert(batch, letter)? == 0 {
        return Ok(false);
    }
    let seq = batch.inserted_seq();
    let body = bytes_of(&letter.payload)?;
    batch.sql.execute(Write::AcceptPayload, params![seq, &*body, rows::fallback_text(&letter.fallback)?])?;
    for past in &letter.history {
        let error = past.error.as_ref().map(rows::json_text).transpose()?;
        let values = params![
            seq,
            past.epoch.0,
            past.number,
            past.outcome,
            past.session.as_bytes(),
            past.started_at.map(|at| at.0),
            past.finished_at.0,
            error,
        ];
        batch.sql.execute(Write::Attempt, values)?;
    }
    for memo in &letter.memos {
        let body = bytes_of(&memo.body)?;
        let values = params![letter.id.as_bytes(), memo.call_id.0.as_bytes(), memo.request_hash, &*body];
        batch.sql.execute(Write::Memo, values)?;
    }
    Ok(true)
}

fn insert(batch: &mut Batch<'_>, letter: &Letter) -> rusqlite::Result<usize> {
    let sums = &letter.sums;
    let values = params![
        letter.id.as_bytes(),
        letter.tenant.as_str(),
        letter.queue.as_str(),
        letter.kind.as_str(),
        letter.target.as_str(),
        letter.priority,
        letter.epoch.0,
        letter.attempts,
        letter.max_attempts,
        letter.recoveries,
        letter.releases,
        letter.redrives,
        letter.run_at.0,
        letter.start_by.map(|at| at.0),
        letter.deadline.map(|at| at.0),
        letter.timeout_ms.map(rows::to_integer),
        letter.accepted_at.0,
        letter.finished_at.0,
        letter.unique_key,
        letter.concurrency_key.as_ref().map(Name::as_str),
        letter.operation,
        letter.batch_id,
        rows::tags_text(&letter.tags)?,
        letter.request_id,
        letter.traceparent,
        rows::json_text(&letter.error)?,
        letter.error.class.as_str(),
        letter.error.signature,
        letter.served_by,
        rows::to_integer(sums.calls),
        rows::to_integer(sums.tokens_in),
        rows::to_integer(sums.tokens_out),
        rows::to_integer(sums.tokens_cached),
        rows::to_integer(sums.tokens_cache_write),
        rows::to_integer(sums.tokens_reasoning),
        sums.cost_nanousd.0,
        sums.cost_unknown,
        letter.key_id.as_ref().map(Name::as_str),
        letter.max_cost_nanousd.map(|cost| cost.0),
        letter.webhook,
    ];
    batch.sql.execute(Write::RestoreLetter, values)
}

fn bytes_of(body: &Body) -> rusqlite::Result<bytes::Bytes> {
    body.bytes().map_err(|reason| rusqlite::Error::ToSqlConversionFailure(reason.into()))
}
