//! Commits new jobs.
//!
//! Each job sees those before it, as if they had come one by one, and two processes that accept the same key at once
//! are told apart by the constraint: keys are claimed first, in one order, which waits for whoever has them; then the
//! jobs are decided on in memory, and what was claimed in vain is given back.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    failure::Failure,
    group::{Grouped, Size},
    rows::{self, Cells},
    sql,
    text::{kept, kept_if_any},
    transaction::{Transaction, Verb},
};
use crate::{
    ids::{JobId, Name},
    job::NewJob,
    journal::Accepted,
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

/// An idempotency key: owner, key, item.
type RequestKey = (Name, String, i64);
/// Which body owns a key: owner and key, and the body's fingerprint.
type Bodies = BTreeMap<(Name, String), [u8; 32]>;
/// A unique key: tenant, key.
type UniqueKey = (Name, String);

fn request_key(job: &NewJob) -> Option<RequestKey> {
    let request = job.idempotency.as_ref()?;
    Some((request.owner.clone(), kept(&request.key).into_owned(), i64::from(request.item)))
}

fn body_of(job: &NewJob) -> Option<((Name, String), [u8; 32])> {
    let request = job.idempotency.as_ref()?;
    Some(((request.owner.clone(), kept(&request.key).into_owned()), request.fingerprint))
}

async fn bodies_in_use(connection: &mut PgConnection, keyed: &[&NewJob]) -> Result<Bodies, Failure> {
    let asked: BTreeSet<_> = keyed.iter().filter_map(|job| Some(body_of(job)?.0)).collect();
    let rows = sqlx::query(sql::IDEMPOTENCY_BODIES)
        .bind(asked.iter().map(|key| key.0.as_str()).collect::<Vec<_>>())
        .bind(asked.iter().map(|key| key.1.as_str()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let read = |row| {
        let mut cells = Cells::of(row, 0);
        Ok(((cells.name()?, cells.next()?), cells.hash()?))
    };
    rows.iter().map(read).collect()
}

fn unique_key(job: &NewJob) -> Option<UniqueKey> {
    Some((job.tenant.clone(), kept(job.unique_key.as_ref()?).into_owned()))
}

/// What each job is answered, and which of them are to be inserted.
async fn decide<'j>(
    transaction: &mut Transaction,
    jobs: &[&'j NewJob],
) -> Result<(Vec<Accepted>, Vec<&'j NewJob>), Failure> {
    let keyed: Vec<&NewJob> =
        jobs.iter().copied().filter(|job| job.idempotency.is_some() || job.unique_key.is_some()).collect();
    let connection = transaction.connection();
    let mut requests = Claims::of(&keyed, request_key);
    let mut uniques = Claims::of(&keyed, unique_key);
    let mut bodies = Bodies::new();
    if !requests.claimants.is_empty() {
        bodies = bodies_in_use(connection, &keyed).await?;
        claim_requests(connection, &mut requests).await?;
        // What others claimed meanwhile, then who asks first in this group.
        for ((owner, key, _), (fingerprint, _)) in &requests.owners {
            bodies.entry((owner.clone(), key.clone())).or_insert(fingerprint.unwrap_or_default());
        }
        for (key, fingerprint) in keyed.iter().filter_map(|job| body_of(job)) {
            bodies.entry(key).or_insert(fingerprint);
        }
    }
    if !uniques.claimants.is_empty() {
        claim_uniques(connection, &mut uniques).await?;
    }
    let mut known = if keyed.is_empty() { HashSet::new() } else { known_jobs(connection, &keyed).await? };
    let (mut answers, mut new) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
    for job in jobs.iter().copied() {
        let answer = answer(job, &bodies, &requests, &uniques, &known);
        if answer == Accepted::New && known.insert(job.id) {
            requests.take(request_key(job), || (job.idempotency.as_ref().map(|r| r.fingerprint), job.id));
            uniques.take(unique_key(job), || job.id);
            new.push(job);
        }
        answers.push(answer);
    }
    give_back_requests(connection, &keyed, &requests).await?;
    give_back_uniques(connection, &uniques).await?;
    Ok((answers, new))
}

fn answer(
    job: &NewJob,
    bodies: &Bodies,
    requests: &Requests<'_>,
    uniques: &Uniques<'_>,
    known: &HashSet<JobId>,
) -> Accepted {
    if let Some((key, fingerprint)) = body_of(job)
        && bodies.get(&key).is_some_and(|owner| *owner != fingerprint)
    {
        return Accepted::KeyReused;
    }
    if let (Some(request), Some(key)) = (&job.idempotency, request_key(job))
        && let Some((fingerprint, id)) = requests.owners.get(&key)
    {
        return match (*fingerprint == Some(request.fingerprint), *id == job.id) {
            (false, _) => Accepted::KeyReused,
            (true, true) => Accepted::New,
            (true, false) => Accepted::Replayed(*id),
        };
    }
    if let Some(key) = unique_key(job)
        && let Some(holder) = uniques.owners.get(&key)
        && *holder != job.id
        && !known.contains(&job.id)
    {
        return Accepted::Duplicate(*holder);
    }
    Accepted::New
}

/// Keys of a group: who asked first, which were free in the table, and who owns them as far as is decided.
struct Claims<'j, K, O> {
    claimants: BTreeMap<K, &'j NewJob>,
    free: HashSet<K>,
    owners: BTreeMap<K, O>,
}

type Requests<'j> = Claims<'j, RequestKey, (Option<[u8; 32]>, JobId)>;
type Uniques<'j> = Claims<'j, UniqueKey, JobId>;

impl<'j, K: Ord + std::hash::Hash + Clone, O> Claims<'j, K, O> {
    fn of(jobs: &[&'j NewJob], key: fn(&'j NewJob) -> Option<K>) -> Self {
        let mut claimants = BTreeMap::new();
        for job in jobs.iter().copied() {
            if let Some(key) = key(job) {
                claimants.entry(key).or_insert(job);
            }
        }
        Self { claimants, free: HashSet::new(), owners: BTreeMap::new() }
    }

    fn take(&mut self, key: Option<K>, owner: impl FnOnce() -> O) {
        if let Some(key) = key {
            self.owners.entry(key).or_insert_with(owner);
        }
    }
}

async fn claim_requests(connection: &mut PgConnection, claims: &mut Requests<'_>) -> Result<(), Failure> {
    let jobs: Vec<_> = claims.claimants.values().copied().collect();
    for row in insert_requests(connection, &jobs).await? {
        let mut cells = Cells::of(&row, 0);
        let key = (cells.name()?, cells.next()?, cells.next()?);
        claims.free.insert(key);
    }
    let held: Vec<_> = claims.claimants.keys().filter(|key| !claims.free.contains(*key)).cloned().collect();
    if held.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query(sql::IDEMPOTENCY_FIND)
        .bind(held.iter().map(|key| key.0.as_str()).collect::<Vec<_>>())
        .bind(held.iter().map(|key| key.1.as_str()).collect::<Vec<_>>())
        .bind(held.iter().map(|key| key.2).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    for row in &rows {
        let mut cells = Cells::of(row, 0);
        let key = (cells.name()?, cells.next()?, cells.next()?);
        claims.owners.insert(key, (Some(cells.hash()?), cells.job_id()?));
    }
    all_found(claims.owners.len(), held.len())
}

async fn insert_requests(
    connection: &mut PgConnection,
    jobs: &[&NewJob],
) -> Result<Vec<sqlx::postgres::PgRow>, Failure> {
    let keys: Vec<_> = jobs.iter().filter_map(|job| request_key(job)).collect();
    let fingerprints: Vec<&[u8]> =
        jobs.iter().filter_map(|job| Some(&job.idempotency.as_ref()?.fingerprint[..])).collect();
    let rows = sqlx::query(sql::IDEMPOTENCY_CLAIM)
        .bind(keys.iter().map(|key| key.0.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.1.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.2).collect::<Vec<_>>())
        .bind(fingerprints)
        .bind(jobs.iter().map(|job| job.id.0).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.accepted_at.0).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    Ok(rows)
}

async fn claim_uniques(connection: &mut PgConnection, claims: &mut Uniques<'_>) -> Result<(), Failure> {
    let claimants: Vec<_> = claims.claimants.iter().map(|(key, job)| (key, job.id)).collect();
    let rows = unique_statement(sql::UNIQUE_CLAIM, &claimants).fetch_all(&mut *connection).await?;
    for row in &rows {
        let mut cells = Cells::of(row, 0);
        let key = (cells.name()?, cells.next()?);
        claims.free.insert(key);
    }
    let held: Vec<_> = claims.claimants.keys().filter(|key| !claims.free.contains(*key)).cloned().collect();
    if held.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query(sql::UNIQUE_FIND)
        .bind(held.iter().map(|key| key.0.as_str()).collect::<Vec<_>>())
        .bind(held.iter().map(|key| key.1.as_str()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    for row in &rows {
        let mut cells = Cells::of(row, 0);
        let key = (cells.name()?, cells.next()?);
        claims.owners.insert(key, cells.job_id()?);
    }
    all_found(claims.owners.len(), held.len())
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

fn unique_statement<'q>(sql: &'static str, keys: &[(&UniqueKey, JobId)]) -> Query<'q> {
    sqlx::query(sql)
        .bind(keys.iter().map(|(key, _)| key.0.to_string()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(key, _)| key.1.clone()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, id)| id.0).collect::<Vec<_>>())
}

/// A holder that went away between the claim and the look was in the way and is not any more.
fn all_found(found: usize, held: usize) -> Result<(), Failure> {
    if found == held { Ok(()) } else { Err(Failure::Conflict("a key's holder ended meanwhile".into())) }
}

async fn known_jobs(connection: &mut PgConnection, jobs: &[&NewJob]) -> Result<HashSet<JobId>, Failure> {
    let ids: Vec<_> = jobs.iter().map(|job| job.id.0).collect();
    let known: Vec<Uuid> = sqlx::query_scalar(sql::KNOWN_JOBS).bind(ids).fetch_one(connection).await?;
    Ok(known.into_iter().map(JobId).collect())
}

/// Corrects claimed rows whose first claimant was not accepted: they belong to another job of the group, or to nobody.
async fn give_back_requests(
    connection: &mut PgConnection,
    keyed: &[&NewJob],
    claims: &Requests<'_>,
) -> Result<(), Failure> {
    let owner = |key: &RequestKey| claims.owners.get(key).map(|(_, id)| *id);
    let wrong: Vec<_> =
        claims.free.iter().filter(|key| owner(key) != claims.claimants.get(*key).map(|job| job.id)).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    sqlx::query(sql::IDEMPOTENCY_DROP)
        .bind(wrong.iter().map(|key| key.0.as_str()).collect::<Vec<_>>())
        .bind(wrong.iter().map(|key| key.1.as_str()).collect::<Vec<_>>())
        .bind(wrong.iter().map(|key| key.2).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    let owned: HashSet<_> = wrong.iter().filter_map(|key| Some((*key, owner(key)?))).collect();
    let is_owner = |job: &&NewJob| request_key(job).is_some_and(|key| owned.contains(&(&key, job.id)));
    let owners: Vec<_> = keyed.iter().copied().filter(is_owner).collect();
    insert_requests(connection, &owners).await?;
    Ok(())
}

async fn give_back_uniques(connection: &mut PgConnection, claims: &Uniques<'_>) -> Result<(), Failure> {
    let claimant = |key: &UniqueKey| claims.claimants.get(key).map(|job| job.id);
    let wrong: Vec<_> = claims.free.iter().filter(|key| claims.owners.get(*key).copied() != claimant(key)).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let claimed: Vec<_> = wrong.iter().filter_map(|key| Some((*key, claimant(key)?))).collect();
    unique_statement(sql::UNIQUE_FREE, &claimed).execute(&mut *connection).await?;
    let owned: Vec<_> = wrong.iter().filter_map(|key| Some((*key, *claims.owners.get(*key)?))).collect();
    unique_statement(sql::UNIQUE_CLAIM, &owned).execute(connection).await?;
    Ok(())
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
    let keyed_twin =
        new.iter().any(|job| !fresh.contains(&job.id.0) && (job.unique_key.is_some() || job.idempotency.is_some()));
    if keyed_twin {
        return Err(Failure::Conflict("the same job was accepted meanwhile".into()));
    }
    let fresh: Vec<_> = new.iter().copied().filter(|job| fresh.contains(&job.id.0)).collect();
    if fresh.is_empty() {
        return Ok(());
    }
    insert_jobs(transaction.connection(), &fresh).await?;
    for job in fresh {
        transaction.count(&job.queue, |totals| {
            totals.accepted += 1;
            totals.live += 1;
        });
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
        .fetch_one(connection)
        .await?;
    Ok(fresh)
}

async fn insert_jobs(connection: &mut PgConnection, jobs: &[&NewJob]) -> Result<(), Failure> {
    let names = |name: fn(&NewJob) -> &Name| jobs.iter().map(|job| name(job).as_str()).collect::<Vec<_>>();
    let times = |time: fn(&NewJob) -> Option<i64>| jobs.iter().map(|job| time(job)).collect::<Vec<_>>();
    let texts =
        |text: fn(&NewJob) -> Option<&String>| jobs.iter().map(|job| kept_if_any(text(job))).collect::<Vec<_>>();
    let tags = jobs.iter().map(|job| rows::tags_text(&job.tags)).collect::<Result<Vec<_>, _>>()?;
    sqlx::query(sql::ACCEPT_JOBS)
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
        .execute(connection)
        .await?;
    Ok(())
}
