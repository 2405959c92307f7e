//! Commits new jobs.

use rusqlite::params;
use uuid::Uuid;

use super::{rows, sql::Write, writer::Batch};
use crate::{
    ids::{JobId, Name},
    job::NewJob,
    journal::{Accepted, totals::TotalsChange},
};

/// Accepts `jobs` in order; each sees those before it.
pub(super) fn accept(batch: &mut Batch<'_>, jobs: &[NewJob]) -> rusqlite::Result<Vec<Accepted>> {
    jobs.iter().map(|job| accept_one(batch, job)).collect()
}

fn accept_one(batch: &mut Batch<'_>, job: &NewJob) -> rusqlite::Result<Accepted> {
    if let Some(answer) = answer_of_repeat(batch, job)? {
        return Ok(answer);
    }
    if let Some(holder) = unique_holder(batch, job)?
        && holder != job.id
        && !exists(batch, job.id)?
    {
        return Ok(Accepted::Duplicate(holder));
    }
    if insert_job(batch, job)? == 0 {
        return Ok(Accepted::New);
    }
    let seq = batch.inserted_seq();
    batch.sql.execute(Write::AcceptPayload, params![seq, &*job.payload, rows::fallback_text(&job.fallback)?])?;
    if let Some(ttl_ms) = job.result_ttl_ms.map(rows::to_integer) {
        batch.sql.execute(Write::ResultTtlAdd, params![seq, ttl_ms, job.accepted_at.plus_ms(ttl_ms).0])?;
    }
    keep_keys(batch, job)?;
    batch.count(&job.queue, &job.tenant, TotalsChange::ACCEPTED);
    Ok(Accepted::New)
}

/// The first answer to a request that comes again; `None` for a request without a key or with a new one.
fn answer_of_repeat(batch: &mut Batch<'_>, job: &NewJob) -> rusqlite::Result<Option<Accepted>> {
    let Some(request) = &job.idempotency else { return Ok(None) };
    let values = params![request.owner.as_str(), request.key, request.item];
    let first = batch.sql.find(Write::IdempotencyFind, values, |row| {
        let id = row.get::<_, Option<[u8; 16]>>(1)?.map(|bytes| JobId(Uuid::from_bytes(bytes)));
        Ok((row.get::<_, [u8; 32]>(0)?, id))
    })?;
    Ok(match first {
        Some((fingerprint, _)) if fingerprint != request.fingerprint => Some(Accepted::KeyReused),
        Some((_, Some(id))) if id == job.id => Some(Accepted::New),
        Some((_, Some(id))) => Some(Accepted::Replayed(id)),
        // The same body, of which this item was refused before or follows in this accept.
        Some((_, None)) | None => None,
    })
}

fn unique_holder(batch: &mut Batch<'_>, job: &NewJob) -> rusqlite::Result<Option<JobId>> {
    let Some(key) = &job.unique_key else { return Ok(None) };
    batch.sql.find(Write::UniqueFind, params![job.tenant.as_str(), key], |row| rows::job_id(row, 0))
}

fn exists(batch: &mut Batch<'_>, id: JobId) -> rusqlite::Result<bool> {
    Ok(batch.sql.find(Write::Standing, [id.as_bytes()], |_| Ok(()))?.is_some())
}

fn insert_job(batch: &mut Batch<'_>, job: &NewJob) -> rusqlite::Result<usize> {
    let values = params![
        job.id.as_bytes(),
        job.tenant.as_str(),
        job.queue.as_str(),
        job.kind.as_str(),
        job.target.as_str(),
        job.priority,
        job.max_attempts,
        job.run_at.0,
        job.start_by.map(|at| at.0),
        job.deadline.map(|at| at.0),
        job.timeout_ms.map(rows::to_integer),
        job.accepted_at.0,
        job.unique_key,
        job.operation,
        job.batch_id,
        rows::tags_text(&job.tags)?,
        job.request_id,
        job.traceparent,
        job.concurrency_key.as_ref().map(Name::as_str),
        job.key_id.as_ref().map(Name::as_str),
        job.max_cost.map(|cost| cost.0),
        job.webhook,
    ];
    batch.sql.execute(Write::AcceptJob, values)
}

fn keep_keys(batch: &mut Batch<'_>, job: &NewJob) -> rusqlite::Result<()> {
    let (tenant, id) = (job.tenant.as_str(), job.id.as_bytes());
    if let Some(key) = &job.unique_key {
        batch.sql.execute(Write::UniqueTake, params![tenant, key, id])?;
    }
    if let Some(request) = &job.idempotency {
        batch.sql.execute(
            Write::IdempotencyKeep,
            params![request.owner.as_str(), request.key, request.item, request.fingerprint, id, job.accepted_at.0],
        )?;
    }
    Ok(())
}
