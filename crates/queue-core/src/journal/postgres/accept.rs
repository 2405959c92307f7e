//! Commits new jobs.
//!
//! Each job sees those before it, as if they had come one by one, and two processes that accept the same key at once
//! are told apart by the constraint: keys are claimed first, in one order, which waits for whoever has them; then the
//! jobs are decided on in memory, and what was claimed in vain is given back.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    failure::Failure,
    group::{Grouped, Size},
    keys::Keys,
    rows, sql,
    text::kept_if_any,
    transaction::{Transaction, Verb},
};
use crate::{
    ids::{JobId, Name},
    job::NewJob,
    journal::{Accepted, totals::TotalsChange},
};

/// Bytes of payloads in one statement: a message to Postgres may have 1 GiB, and is held in memory whole.
const STATEMENT_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Accepts the jobs of each caller.
pub(super) struct Accept;

impl Grouped for Accept {
    fn size(jobs: &Vec<NewJob>) -> Size {
        Size { rows: jobs.len(), bytes: jobs.iter().map(|job| job.payload.len()).sum() }
    }

    fn job(_: &Vec<NewJob>) -> Option<JobId> {
        None
    }
}

#[async_trait]
impl Verb for Accept {
    type Input = Vec<NewJob>;
    type Output = Vec<Accepted>;

    /// The same ids and keys find their own first try.
    const REPEATABLE: bool = true;

    fn is_one_statement(inputs: &[Vec<NewJob>]) -> bool {
        let jobs = || inputs.iter().flatten();
        jobs().map(|job| job.payload.len()).sum::<usize>() <= STATEMENT_MAX_BYTES
            && !jobs().any(|job| has_key(job) || job.result_ttl_ms.is_some())
    }

    async fn run_at_once(connection: &mut PgConnection, inputs: &[Vec<NewJob>]) -> Result<Vec<Vec<Accepted>>, Failure> {
        let mut jobs: Vec<&NewJob> = inputs.iter().flatten().collect();
        jobs.sort_unstable_by_key(|job| job.id);
        jobs.dedup_by_key(|job| job.id);
        insert_at_once(connection, &jobs).await?;
        Ok(inputs.iter().map(|input| vec![Accepted::New; input.len()]).collect())
    }

    async fn run(
        transaction: &mut Transaction,
        inputs: &[Vec<NewJob>],
        _again: bool,
    ) -> Result<Vec<Vec<Accepted>>, Failure> {
        let jobs: Vec<&NewJob> = inputs.iter().flatten().collect();
        let (mut answers, new) = decide(transaction, &jobs).await?;
        insert(transaction, &new).await?;
        Ok(inputs.iter().map(|input| answers.drain(..input.len()).collect()).collect())
    }
}

/// Whether others may stand in its way.
fn has_key(job: &NewJob) -> bool {
    job.idempotency.is_some() || job.unique_key.is_some()
}

/// What each job is answered, and which of them are to be inserted.
async fn decide<'j>(
    transaction: &mut Transaction,
    jobs: &[&'j NewJob],
) -> Result<(Vec<Accepted>, Vec<&'j NewJob>), Failure> {
    let keyed: Vec<&NewJob> = jobs.iter().copied().filter(|job| has_key(job)).collect();
    if keyed.is_empty() {
        let mut known = HashSet::with_capacity(jobs.len());
        let new = jobs.iter().copied().filter(|job| known.insert(job.id)).collect();
        return Ok((vec![Accepted::New; jobs.len()], new));
    }
    let connection = transaction.connection();
    let mut keys = Keys::claim(connection, &keyed).await?;
    let mut known = known_jobs(connection, &keyed).await?;
    let (mut answers, mut new) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
    for job in jobs.iter().copied() {
        let answer = keys.answer(job, &known);
        if answer == Accepted::New && known.insert(job.id) {
            keys.take(job);
            new.push(job);
        }
        answers.push(answer);
    }
    keys.give_back(connection, &keyed).await?;
    Ok((answers, new))
}

async fn known_jobs(connection: &mut PgConnection, jobs: &[&NewJob]) -> Result<HashSet<JobId>, Failure> {
    let ids: Vec<_> = jobs.iter().map(|job| job.id.0).collect();
    let known: Vec<Uuid> = sqlx::query_scalar(sql::KNOWN_JOBS).bind(ids).fetch_one(connection).await?;
    Ok(known.into_iter().map(JobId).collect())
}

/// Inserts jobs whose keys are theirs. One whose id turns out to be there was accepted before.
async fn insert(transaction: &mut Transaction, new: &[&NewJob]) -> Result<(), Failure> {
    let mut by_id = new.to_vec();
    by_id.sort_unstable_by_key(|job| job.id);
    let mut fresh = HashSet::with_capacity(new.len());
    let mut rest = by_id.as_slice();
    while !rest.is_empty() {
        let (part, later) = rest.split_at(statement_share(rest));
        fresh.extend(insert_payloads(transaction.connection(), part).await?);
        rest = later;
    }
    let keyed_twin = new.iter().any(|job| !fresh.contains(&job.id.0) && has_key(job));
    if keyed_twin {
        return Err(Failure::Conflict("the same job was accepted meanwhile".into()));
    }
    let fresh: Vec<_> = new.iter().copied().filter(|job| fresh.contains(&job.id.0)).collect();
    if fresh.is_empty() {
        return Ok(());
    }
    insert_jobs(transaction.connection(), &fresh).await?;
    insert_result_ttls(transaction.connection(), &fresh).await?;
    for job in fresh {
        transaction.count(&job.queue, &job.tenant, TotalsChange::ACCEPTED);
    }
    Ok(())
}

/// How many of these jobs' payloads one statement carries; at least one.
fn statement_share(jobs: &[&NewJob]) -> usize {
    let mut bytes = 0;
    let fitting = jobs.iter().take_while(|job| {
        bytes += job.payload.len();
        bytes <= STATEMENT_MAX_BYTES
    });
    fitting.count().max(1)
}

async fn insert_payloads(connection: &mut PgConnection, jobs: &[&NewJob]) -> Result<Vec<Uuid>, Failure> {
    let fresh = sqlx::query_scalar(sql::ACCEPT_PAYLOADS)
        .bind(jobs.iter().map(|job| job.id.0).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.tenant.as_str()).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| &*job.payload).collect::<Vec<_>>())
        .bind(fallbacks(jobs)?)
        .fetch_one(connection)
        .await?;
    Ok(fresh)
}

async fn insert_jobs(connection: &mut PgConnection, jobs: &[&NewJob]) -> Result<(), Failure> {
    bind_jobs(sqlx::query(sql::ACCEPT_JOBS), jobs)?.execute(connection).await?;
    Ok(())
}

/// Notes which of these jobs say how long their result is kept.
async fn insert_result_ttls(connection: &mut PgConnection, jobs: &[&NewJob]) -> Result<(), Failure> {
    let mut columns = (vec![], vec![], vec![]);
    for (job, ttl_ms) in jobs.iter().filter_map(|job| Some((job, rows::to_bigint(job.result_ttl_ms?)))) {
        columns.0.push(job.id.0);
        columns.1.push(ttl_ms);
        columns.2.push(job.accepted_at.plus_ms(ttl_ms).0);
    }
    if !columns.0.is_empty() {
        let asked = sqlx::query(sql::RESULT_TTLS_ADD).bind(columns.0).bind(columns.1).bind(columns.2);
        asked.execute(connection).await?;
    }
    Ok(())
}

/// Inserts jobs that are each new and have no keys; refused as a whole where one is not new.
async fn insert_at_once(connection: &mut PgConnection, jobs: &[&NewJob]) -> Result<(), Failure> {
    let (mut queues, mut tenants) = (BTreeMap::new(), BTreeMap::new());
    for job in jobs {
        *queues.entry(job.queue.as_str()).or_insert(0_i64) += 1;
        *tenants.entry(job.tenant.as_str()).or_insert(0_i64) += 1;
    }
    let query = sqlx::query(sql::ACCEPT_AT_ONCE)
        .bind(jobs.iter().map(|job| &*job.payload).collect::<Vec<_>>())
        .bind(queues.keys().copied().collect::<Vec<_>>())
        .bind(queues.values().copied().collect::<Vec<_>>())
        .bind(tenants.keys().copied().collect::<Vec<_>>())
        .bind(tenants.values().copied().collect::<Vec<_>>())
        .bind(fallbacks(jobs)?);
    bind_jobs(query, jobs)?.execute(connection).await?;
    Ok(())
}

fn fallbacks(jobs: &[&NewJob]) -> Result<Vec<Option<String>>, Failure> {
    Ok(jobs.iter().map(|job| rows::fallback_text(&job.fallback)).collect::<Result<_, _>>()?)
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

fn bind_jobs<'q>(query: Query<'q>, jobs: &[&'q NewJob]) -> Result<Query<'q>, Failure> {
    let names = |name: fn(&NewJob) -> &Name| jobs.iter().map(|job| name(job).as_str()).collect::<Vec<_>>();
    let times = |time: fn(&NewJob) -> Option<i64>| jobs.iter().map(|job| time(job)).collect::<Vec<_>>();
    let texts =
        |text: fn(&NewJob) -> Option<&String>| jobs.iter().map(|job| kept_if_any(text(job))).collect::<Vec<_>>();
    let tags = jobs.iter().map(|job| rows::tags_text(&job.tags)).collect::<Result<Vec<_>, _>>()?;
    Ok(query
        .bind(jobs.iter().map(|job| job.id.0).collect::<Vec<_>>())
        .bind(names(|job| &job.tenant))
        .bind(names(|job| &job.queue))
        .bind(jobs.iter().map(|job| job.kind.as_str()).collect::<Vec<_>>())
        .bind(names(|job| &job.target))
        .bind(jobs.iter().map(|job| i16::from(job.priority)).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| rows::to_integer(job.max_attempts)).collect::<Vec<_>>())
        .bind(times(|job| Some(job.run_at.0)))
        .bind(times(|job| job.start_by.map(|at| at.0)))
        .bind(times(|job| job.deadline.map(|at| at.0)))
        .bind(times(|job| job.timeout_ms.map(rows::to_bigint)))
        .bind(times(|job| Some(job.accepted_at.0)))
        .bind(texts(|job| job.unique_key.as_ref()))
        .bind(texts(|job| job.operation.as_ref()))
        .bind(texts(|job| job.batch_id.as_ref()))
        .bind(tags)
        .bind(texts(|job| job.request_id.as_ref()))
        .bind(texts(|job| job.traceparent.as_ref()))
        .bind(jobs.iter().map(|job| job.concurrency_key.as_ref().map(Name::as_str)).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.key_id.as_ref().map(Name::as_str)).collect::<Vec<_>>())
        .bind(times(|job| job.max_cost.map(|cost| cost.0)))
        .bind(texts(|job| job.webhook.as_ref())))
}
