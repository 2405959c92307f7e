//! The keys of new jobs: an idempotency key belongs to one body, an item of it to one job, a unique key to one live job.
//!
//! Each is claimed by an insert that waits for whoever claims it too, in the order bodies, items, unique keys, and each
//! kind in the order of its keys, so that nobody waits in a circle. What was claimed for a job that then is refused is
//! given back in the same transaction.

use std::{
    collections::{BTreeMap, HashSet},
    hash::Hash,
};

use sqlx::{PgConnection, postgres::PgRow};

use super::{failure::Failure, rows::Cells, sql, text::kept};
use crate::{
    ids::{JobId, Name},
    job::NewJob,
    journal::Accepted,
};

/// An idempotency key: owner, key.
type BodyKey = (Name, String);
/// An item of the body that has an idempotency key: owner, key, item.
type ItemKey = (Name, String, i64);
/// A unique key: tenant, key.
type UniqueKey = (Name, String);
/// Hash of a body.
type Fingerprint = [u8; 32];

fn body_key(job: &NewJob) -> Option<BodyKey> {
    let request = job.idempotency.as_ref()?;
    Some((request.owner.clone(), kept(&request.key).into_owned()))
}

fn item_key(job: &NewJob) -> Option<ItemKey> {
    let (owner, key) = body_key(job)?;
    Some((owner, key, i64::from(job.idempotency.as_ref()?.item)))
}

fn unique_key(job: &NewJob) -> Option<UniqueKey> {
    Some((job.tenant.clone(), kept(job.unique_key.as_ref()?).into_owned()))
}

fn fingerprint(job: &NewJob) -> Option<Fingerprint> {
    Some(job.idempotency.as_ref()?.fingerprint)
}

/// Keys of a group: who asked first, which were free in the table, and who owns them as far as is decided.
struct Claims<'j, K, O> {
    claimants: BTreeMap<K, &'j NewJob>,
    free: HashSet<K>,
    owners: BTreeMap<K, O>,
}

impl<'j, K: Ord + Hash + Clone, O> Claims<'j, K, O> {
    fn of(jobs: &[&'j NewJob], key: fn(&'j NewJob) -> Option<K>) -> Self {
        let mut claimants = BTreeMap::new();
        for job in jobs.iter().copied() {
            if let Some(key) = key(job) {
                claimants.entry(key).or_insert(job);
            }
        }
        Self { claimants, free: HashSet::new(), owners: BTreeMap::new() }
    }

    fn held(&self) -> Vec<K> {
        self.claimants.keys().filter(|key| !self.free.contains(*key)).cloned().collect()
    }

    fn take(&mut self, key: Option<K>, owner: Option<O>) {
        if let (Some(key), Some(owner)) = (key, owner) {
            self.owners.entry(key).or_insert(owner);
        }
    }

    /// Claimed keys that belong to somebody else than their claimant, or to nobody.
    fn wrong(&self, right: impl Fn(&NewJob, &O) -> bool) -> Vec<K> {
        let is_right = |key: &K| match (self.claimants.get(key), self.owners.get(key)) {
            (Some(job), Some(owner)) => right(job, owner),
            _ => false,
        };
        let mut wrong: Vec<_> = self.free.iter().filter(|key| !is_right(key)).cloned().collect();
        wrong.sort_unstable();
        wrong
    }
}

/// Every key of a group of new jobs.
pub(super) struct Keys<'j> {
    bodies: Claims<'j, BodyKey, Fingerprint>,
    items: Claims<'j, ItemKey, JobId>,
    uniques: Claims<'j, UniqueKey, JobId>,
}

impl<'j> Keys<'j> {
    /// Claims the keys of `keyed` and finds out who has those that were not free.
    pub(super) async fn claim(connection: &mut PgConnection, keyed: &[&'j NewJob]) -> Result<Self, Failure> {
        let mut keys = Self {
            bodies: Claims::of(keyed, body_key),
            items: Claims::of(keyed, item_key),
            uniques: Claims::of(keyed, unique_key),
        };
        if !keys.bodies.claimants.is_empty() {
            claim_bodies(connection, &mut keys.bodies).await?;
            claim_items(connection, &mut keys.items).await?;
        }
        if !keys.uniques.claimants.is_empty() {
            claim_uniques(connection, &mut keys.uniques).await?;
        }
        Ok(keys)
    }

    /// What the job is answered after those before it; `known` are the jobs that are in the journal.
    pub(super) fn answer(&self, job: &NewJob, known: &HashSet<JobId>) -> Accepted {
        if body_key(job)
            .and_then(|key| self.bodies.owners.get(&key))
            .is_some_and(|owner| fingerprint(job) != Some(*owner))
        {
            return Accepted::KeyReused;
        }
        match item_key(job).and_then(|key| self.items.owners.get(&key)) {
            Some(first) if *first == job.id => return Accepted::New,
            Some(first) => return Accepted::Replayed(*first),
            None => {}
        }
        match unique_key(job).and_then(|key| self.uniques.owners.get(&key)) {
            Some(holder) if *holder != job.id && !known.contains(&job.id) => Accepted::Duplicate(*holder),
            _ => Accepted::New,
        }
    }

    /// Gives an accepted job its keys, as far as they have no owner.
    pub(super) fn take(&mut self, job: &NewJob) {
        self.bodies.take(body_key(job), fingerprint(job));
        self.items.take(item_key(job), Some(job.id));
        self.uniques.take(unique_key(job), Some(job.id));
    }

    /// Corrects claimed rows whose first claimant was not accepted: they belong to another job of the group, or to
    /// nobody.
    pub(super) async fn give_back(&self, connection: &mut PgConnection, keyed: &[&'j NewJob]) -> Result<(), Failure> {
        let bodies = self.bodies.wrong(|claimant, owner| fingerprint(claimant) == Some(*owner));
        if !bodies.is_empty() {
            pairs(sql::IDEMPOTENCY_BODIES_DROP, &bodies).execute(&mut *connection).await?;
            let owned: Vec<_> = bodies.iter().filter_map(|key| Some((key, *self.bodies.owners.get(key)?))).collect();
            insert_bodies(connection, &owned).await?;
        }
        let items = self.items.wrong(|claimant, owner| claimant.id == *owner);
        if !items.is_empty() {
            triples(sql::IDEMPOTENCY_DROP, &items).execute(&mut *connection).await?;
            let owned: HashSet<_> = items.iter().filter_map(|key| Some((key, *self.items.owners.get(key)?))).collect();
            let is_owner = |job: &&NewJob| item_key(job).is_some_and(|key| owned.contains(&(&key, job.id)));
            let owners: Vec<_> = keyed.iter().copied().filter(is_owner).collect();
            insert_items(connection, &owners).await?;
        }
        let uniques = self.uniques.wrong(|claimant, owner| claimant.id == *owner);
        if !uniques.is_empty() {
            let claimant = |key: &UniqueKey| self.uniques.claimants.get(key).map(|job| job.id);
            let claimed: Vec<_> = uniques.iter().filter_map(|key| Some((key, claimant(key)?))).collect();
            unique_statement(sql::UNIQUE_FREE, &claimed).execute(&mut *connection).await?;
            let owned: Vec<_> = uniques.iter().filter_map(|key| Some((key, *self.uniques.owners.get(key)?))).collect();
            unique_statement(sql::UNIQUE_CLAIM, &owned).execute(connection).await?;
        }
        Ok(())
    }
}

async fn claim_bodies(
    connection: &mut PgConnection,
    claims: &mut Claims<'_, BodyKey, Fingerprint>,
) -> Result<(), Failure> {
    let asked: Vec<_> = claims.claimants.iter().filter_map(|(key, job)| Some((key, fingerprint(job)?))).collect();
    for row in insert_bodies(connection, &asked).await? {
        let mut cells = Cells::of(&row, 0);
        claims.free.insert((cells.name()?, cells.next()?));
    }
    let held = claims.held();
    if held.is_empty() {
        return Ok(());
    }
    for row in &pairs(sql::IDEMPOTENCY_BODIES_FIND, &held).fetch_all(connection).await? {
        let mut cells = Cells::of(row, 0);
        let key = (cells.name()?, cells.next()?);
        claims.owners.insert(key, cells.hash()?);
    }
    all_found(claims.owners.len(), held.len())
}

async fn insert_bodies(
    connection: &mut PgConnection,
    bodies: &[(&BodyKey, Fingerprint)],
) -> Result<Vec<PgRow>, Failure> {
    let rows = sqlx::query(sql::IDEMPOTENCY_BODIES_CLAIM)
        .bind(bodies.iter().map(|(key, _)| key.0.as_str()).collect::<Vec<_>>())
        .bind(bodies.iter().map(|(key, _)| key.1.as_str()).collect::<Vec<_>>())
        .bind(bodies.iter().map(|(_, fingerprint)| &fingerprint[..]).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    Ok(rows)
}

async fn claim_items(connection: &mut PgConnection, claims: &mut Claims<'_, ItemKey, JobId>) -> Result<(), Failure> {
    let jobs: Vec<_> = claims.claimants.values().copied().collect();
    for row in insert_items(connection, &jobs).await? {
        let mut cells = Cells::of(&row, 0);
        claims.free.insert((cells.name()?, cells.next()?, cells.next()?));
    }
    let held = claims.held();
    if held.is_empty() {
        return Ok(());
    }
    for row in &triples(sql::IDEMPOTENCY_FIND, &held).fetch_all(connection).await? {
        let mut cells = Cells::of(row, 0);
        let key = (cells.name()?, cells.next()?, cells.next()?);
        claims.owners.insert(key, cells.job_id()?);
    }
    all_found(claims.owners.len(), held.len())
}

async fn insert_items(connection: &mut PgConnection, jobs: &[&NewJob]) -> Result<Vec<PgRow>, Failure> {
    let keys: Vec<_> = jobs.iter().filter_map(|job| item_key(job)).collect();
    let rows = triples(sql::IDEMPOTENCY_CLAIM, &keys)
        .bind(jobs.iter().map(|job| job.id.0).collect::<Vec<_>>())
        .bind(jobs.iter().map(|job| job.accepted_at.0).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    Ok(rows)
}

async fn claim_uniques(
    connection: &mut PgConnection,
    claims: &mut Claims<'_, UniqueKey, JobId>,
) -> Result<(), Failure> {
    let claimants: Vec<_> = claims.claimants.iter().map(|(key, job)| (key, job.id)).collect();
    for row in &unique_statement(sql::UNIQUE_CLAIM, &claimants).fetch_all(&mut *connection).await? {
        let mut cells = Cells::of(row, 0);
        claims.free.insert((cells.name()?, cells.next()?));
    }
    let held = claims.held();
    if held.is_empty() {
        return Ok(());
    }
    for row in &pairs(sql::UNIQUE_FIND, &held).fetch_all(connection).await? {
        let mut cells = Cells::of(row, 0);
        let key = (cells.name()?, cells.next()?);
        claims.owners.insert(key, cells.job_id()?);
    }
    all_found(claims.owners.len(), held.len())
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

fn pairs<'q>(sql: &'static str, keys: &'q [(Name, String)]) -> Query<'q> {
    sqlx::query(sql)
        .bind(keys.iter().map(|key| key.0.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.1.as_str()).collect::<Vec<_>>())
}

fn triples<'q>(sql: &'static str, keys: &'q [ItemKey]) -> Query<'q> {
    sqlx::query(sql)
        .bind(keys.iter().map(|key| key.0.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.1.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.2).collect::<Vec<_>>())
}

fn unique_statement<'q>(sql: &'static str, keys: &'q [(&UniqueKey, JobId)]) -> Query<'q> {
    sqlx::query(sql)
        .bind(keys.iter().map(|(key, _)| key.0.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(key, _)| key.1.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, id)| id.0).collect::<Vec<_>>())
}

/// A holder that went away between the claim and the look was in the way and is not any more.
fn all_found(found: usize, held: usize) -> Result<(), Failure> {
    if found == held { Ok(()) } else { Err(Failure::Conflict("a key's holder ended meanwhile".into())) }
}
