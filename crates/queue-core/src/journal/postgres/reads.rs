//! What is read: for workers and the scheduler, for people, and for the bill.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use sqlx::{PgExecutor, PgPool, postgres::PgRow};
use uuid::Uuid;

use super::{
    PostgresJournal,
    failure::Failure,
    rows::{self, Cells, JOB_COLUMNS},
    sql,
    text::{kept, kept_if_any},
};
use crate::{
    dispatcher::Entry,
    fallback::Link,
    ids::{JobId, Name},
    job::{AttemptRecord, Job},
    journal::{
        Answered, COST_LINES_MAX, CostQuery, CostRow, DeadGroup, JobFilter, JournalError, Ledger, Listed, LiveScan,
        Loaded, Member, PAGE_MAX_ROWS, QueueTotals, RECENT_CALLS_MAX, Reads, RecentCall, Token, Within, costs::Days,
    },
    ledger::{CallRecord, Memo, Saving},
    state::Standing,
    time::Timestamp,
};

impl PostgresJournal {
    /// Asks, and asks again where only the connection was at fault.
    pub(super) async fn ask<T, F>(&self, question: impl Fn(PgPool) -> F) -> Result<T, JournalError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut losses = 0;
        loop {
            match self.database.door.through(question(self.database.pool.clone())).await {
                // A restart of Postgres leaves every idle connection of the pool broken; each is met once.
                Err(Failure::Lost(_)) if losses <= self.database.pool.options().get_max_connections() => losses += 1,
                answer => return answer.map_err(Failure::into_error),
            }
        }
    }
}

/// Puts rows that name their place, counted from 1, into the places of what was asked.
fn in_places<T>(
    places: usize,
    found: impl Iterator<Item = Result<(i64, T), sqlx::Error>>,
) -> Result<Vec<Option<T>>, Failure> {
    let mut answers: Vec<_> = (0..places).map(|_| None).collect();
    for row in found {
        let (place, value) = row?;
        if let Some(slot) = usize::try_from(place - 1).ok().and_then(|place| answers.get_mut(place)) {
            *slot = Some(value);
        }
    }
    Ok(answers)
}

/// The claims that may run now, with their payloads.
pub(super) async fn load(pool: PgPool, claims: &[Token], now: Timestamp) -> Result<Vec<Option<Loaded>>, Failure> {
    let found = sqlx::query(sql::LOAD)
        .bind(claims.iter().map(|claim| claim.id.0).collect::<Vec<_>>())
        .bind(now.0)
        .fetch_all(&pool)
        .await?;
    let ids = found.iter().map(|row| Ok((Cells::of(row, 0).job_id()?, row)));
    let rows = ids.collect::<Result<HashMap<_, _>, sqlx::Error>>()?;
    let read = |claim: &Token| {
        let Some(row) = rows.get(&claim.id) else { return Ok(None) };
        let mut carried = Cells::of(row, JOB_COLUMNS);
        let (payload, fallback) = (carried.bytes()?, carried.json()?.unwrap_or_default());
        let loaded = Loaded { job: rows::job(row)?, payload: payload.into(), fallback };
        Ok(Some(loaded).filter(|loaded| loaded.job.epoch == claim.epoch))
    };
    claims.iter().map(read).collect()
}

/// A page of live jobs.
pub(super) async fn live(pool: PgPool, scan: LiveScan, limit: usize) -> Result<Vec<Entry>, Failure> {
    let (run_at, id) = scan.after.map_or((i64::MIN, Uuid::nil()), |(run_at, id)| (run_at.0, id.0));
    let found = sqlx::query(sql::LIVE)
        .bind(run_at)
        .bind(id)
        .bind(scan.due_by.0)
        .bind(scan.accepted_by.0)
        .bind(limit as i64)
        .fetch_all(&pool)
        .await?;
    Ok(found.iter().map(rows::entry).collect::<Result<_, _>>()?)
}

/// The kept answers of a job.
pub(super) async fn memos(pool: PgPool, id: JobId) -> Result<Vec<Memo>, Failure> {
    of_job(&pool, sql::MEMOS, id, rows::memo).await
}

/// What a statement finds about one job.
pub(super) async fn of_job<T>(
    from: impl PgExecutor<'_>,
    sql: &'static str,
    id: JobId,
    read: fn(&PgRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, Failure> {
    let found = sqlx::query(sql).bind(id.0).fetch_all(from).await?;
    Ok(found.iter().map(read).collect::<Result<_, _>>()?)
}

/// A row of one body.
pub(super) fn body(row: &PgRow) -> Result<Bytes, sqlx::Error> {
    Cells::of(row, 0).bytes()
}

/// A row of one chain.
pub(super) fn chain(row: &PgRow) -> Result<Option<Vec<Link>>, sqlx::Error> {
    Cells::of(row, 0).json()
}

/// The rows of these jobs.
pub(super) async fn jobs(from: impl PgExecutor<'_>, ids: &[JobId]) -> Result<Vec<Option<Job>>, Failure> {
    let asked: Vec<_> = ids.iter().map(|id| id.0).collect();
    let found = sqlx::query(sql::JOBS_OF).bind(asked).fetch_all(from).await?;
    let read = |row: &PgRow| Ok((Cells::of(row, JOB_COLUMNS).next()?, rows::job(row)?));
    in_places(ids.len(), found.iter().map(read))
}

/// The newest jobs of each batch.
pub(super) async fn newest_of(
    from: impl PgExecutor<'_>,
    batches: &[String],
    each: usize,
) -> Result<Vec<Vec<Member>>, Failure> {
    let asked: Vec<_> = batches.iter().map(|batch| kept(batch)).collect();
    let limit = i64::try_from(each.min(PAGE_MAX_ROWS)).unwrap_or(i64::MAX);
    let found = sqlx::query(sql::NEWEST_OF).bind(asked).bind(limit).fetch_all(from).await?;
    let mut members: Vec<_> = batches.iter().map(|_| Vec::new()).collect();
    for row in &found {
        let place: usize = Cells::of(row, 0).count()?;
        if let Some(of_batch) = members.get_mut(place.wrapping_sub(1)) {
            of_batch.push(rows::member(row, 1)?);
        }
    }
    Ok(members)
}

/// The newest provider calls.
pub(super) async fn recent(from: impl PgExecutor<'_>, since: Timestamp) -> Result<Vec<RecentCall>, Failure> {
    let found = sqlx::query(sql::RECENT_CALLS).bind(since.0).bind(RECENT_CALLS_MAX as i64).fetch_all(from).await?;
    Ok(found.iter().map(rows::recent_call).collect::<Result<_, _>>()?)
}

/// Dead letters by cause.
pub(super) async fn dead_groups(
    from: impl PgExecutor<'_>,
    queue: Option<&Name>,
    within: &Within,
) -> Result<Vec<DeadGroup>, Failure> {
    let sql = match (&within.tenant, &within.key_id) {
        (None, _) => sql::DEAD_GROUPS,
        (Some(_), None) => sql::DEAD_GROUPS_OF_TENANT,
        (Some(_), Some(_)) => sql::DEAD_GROUPS_OF_KEY,
    };
    let mut asked = sqlx::query(sql).bind(queue.map(Name::as_str)).bind(PAGE_MAX_ROWS as i64);
    if let Some(tenant) = &within.tenant {
        asked = asked.bind(tenant.as_str());
        if let Some(key) = &within.key_id {
            asked = asked.bind(key.as_str());
        }
    }
    let found = asked.fetch_all(from).await?;
    Ok(found.iter().map(dead_group).collect::<Result<_, _>>()?)
}

/// Jobs of a batch by standing.
pub(super) async fn batch(
    from: impl PgExecutor<'_>,
    batch_id: &str,
    within: &Within,
) -> Result<BTreeMap<Standing, u64>, Failure> {
    let sql = if within.tenant.is_some() { sql::BATCH_OF } else { sql::BATCH };
    let mut asked = sqlx::query(sql).bind(kept(batch_id));
    if let Some(tenant) = &within.tenant {
        asked = asked.bind(tenant.as_str()).bind(within.key_id.as_ref().map(Name::as_str));
    }
    let found = asked.fetch_all(from).await?;
    let read = |row| {
        let mut cells = Cells::of(row, 0);
        Ok((cells.standing()?, cells.count()?))
    };
    found.iter().map(read).collect()
}

#[async_trait]
impl Reads for PostgresJournal {
    fn bound_to(&self, tenant: &Name) -> Arc<dyn Reads> {
        Arc::new(self.of_tenant(tenant))
    }

    async fn jobs(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, JournalError> {
        self.ask(|pool| async move { jobs(&pool, ids).await }).await
    }

    async fn payload(&self, id: JobId) -> Result<Option<Bytes>, JournalError> {
        Ok(self.ask(|pool| async move { of_job(&pool, sql::PAYLOAD_OF, id, body).await }).await?.pop())
    }

    async fn fallback(&self, id: JobId) -> Result<Vec<Link>, JournalError> {
        let mut found = self.ask(|pool| async move { of_job(&pool, sql::FALLBACK_OF, id, chain).await }).await?;
        Ok(found.pop().flatten().unwrap_or_default())
    }

    async fn result(&self, id: JobId) -> Result<Option<Bytes>, JournalError> {
        Ok(self.ask(|pool| async move { of_job(&pool, sql::RESULT_OF, id, body).await }).await?.pop())
    }

    async fn attempts(&self, id: JobId) -> Result<Vec<AttemptRecord>, JournalError> {
        self.ask(|pool| async move { of_job(&pool, sql::ATTEMPTS_OF, id, rows::attempt).await }).await
    }

    async fn calls(&self, id: JobId) -> Result<Vec<CallRecord>, JournalError> {
        self.ask(|pool| async move { of_job(&pool, sql::CALLS_OF, id, rows::call).await }).await
    }

    async fn savings(&self, id: JobId) -> Result<Vec<Saving>, JournalError> {
        self.ask(|pool| async move { of_job(&pool, sql::SAVINGS_OF, id, rows::saving).await }).await
    }

    async fn list(&self, filter: &JobFilter) -> Result<Listed, JournalError> {
        self.ask(|pool| async move {
            let (pages, pool) = (&pool, &pool);
            list(pages, filter, |page| Box::pin(async move { page.rows(pool).await })).await
        })
        .await
    }

    async fn dead_groups(&self, queue: Option<&Name>, within: &Within) -> Result<Vec<DeadGroup>, JournalError> {
        self.ask(|pool| async move { dead_groups(&pool, queue, within).await }).await
    }

    async fn totals(&self) -> Result<BTreeMap<Name, QueueTotals>, JournalError> {
        let rows = self.ask(totals).await?;
        Ok(rows.into_iter().map(|(queue, totals, _)| (queue, totals)).collect())
    }

    async fn batch(&self, batch_id: &str, within: &Within) -> Result<BTreeMap<Standing, u64>, JournalError> {
        self.ask(|pool| async move { batch(&pool, batch_id, within).await }).await
    }

    async fn newest_of(&self, batches: &[String], each: usize) -> Result<Vec<Vec<Member>>, JournalError> {
        self.ask(|pool| async move { newest_of(&pool, batches, each).await }).await
    }

    async fn answered(&self, owner: &Name, key: &str) -> Result<Option<Answered>, JournalError> {
        self.ask(|pool| async move {
            let rows = sqlx::query(sql::ANSWERED).bind(owner.as_str()).bind(kept(key)).fetch_all(&pool).await?;
            let mut found: Option<Answered> = None;
            for row in &rows {
                let mut cells = Cells::of(row, 0);
                let fingerprint = cells.hash()?;
                let (item, job) = (cells.count()?, (cells.job_id()?, cells.time()?));
                found.get_or_insert_with(|| Answered { fingerprint, items: BTreeMap::new() }).items.insert(item, job);
            }
            Ok(found)
        })
        .await
    }

    async fn live_counts(&self) -> Result<BTreeMap<Name, u64>, JournalError> {
        let rows = self.ask(totals).await?;
        Ok(rows.into_iter().map(|(queue, _, live)| (queue, live)).collect())
    }
}

/// Live jobs up to which a list sorts them instead of walking all ids backwards to find them.
const LIVE_FEW: i64 = 10_000;

/// Rows of the steps of one question: small first, because most pages are full after it. A filter that few rows match
/// must not cost a walk over all of them.
const STEPS: [i64; 3] = [1_000, 9_000, 40_000];

/// A page of matching rows that is about to be read.
pub(super) struct Page<'f> {
    search: Search<'f>,
    /// From behind this job.
    before: Option<JobId>,
    /// Down to this one.
    down_to: Option<JobId>,
    limit: usize,
}

/// A page of jobs, which `rows` reads. How far each step of it goes is found out from `pages`, over the jobs of everybody: whose
/// they are is told to nobody, and the cost of a step is the same for each tenant.
pub(super) async fn list<'f>(
    pages: &PgPool,
    filter: &'f JobFilter,
    rows: impl Fn(Page<'f>) -> BoxFuture<'f, Result<Vec<Job>, Failure>>,
) -> Result<Listed, Failure> {
    if filter.due.is_some() && filter.standing.is_some_and(Standing::is_final) {
        return Ok(Listed::default());
    }
    let (due_by, due_after) = match filter.due {
        Some((true, at)) => (Some(at.0), None),
        Some((false, at)) => (None, Some(at.0)),
        None => (None, None),
    };
    let standing = if filter.due.is_some() { Some(Standing::Live) } else { filter.standing };
    let limit = filter.limit.min(PAGE_MAX_ROWS);
    let mut search = Search { filter, sql: sql::LIST_NEWEST, standing, due_by, due_after };
    search.sql = match standing {
        _ if filter.batch_id.is_some() => sql::LIST_BATCH,
        Some(Standing::Dead) if filter.signature.is_some() => sql::LIST_CAUSE,
        Some(Standing::Dead) if filter.queue.is_some() => sql::LIST_DEAD_QUEUE,
        Some(Standing::Dead) => sql::LIST_DEAD,
        Some(Standing::Live) if few_are_live(pages, due_by, due_after).await? => {
            search.sql = sql::LIST_LIVE;
            let page = Page { search, before: filter.before, down_to: None, limit };
            return Ok(Listed { jobs: rows(page).await?, go_on_behind: None });
        }
        _ => sql::LIST_NEWEST,
    };
    let mut found = Listed { jobs: Vec::new(), go_on_behind: filter.before };
    for step in STEPS {
        let before = found.go_on_behind;
        let end = search.end_of_step(pages, before, step).await?;
        found.jobs.extend(rows(Page { search, before, down_to: end, limit: limit - found.jobs.len() }).await?);
        if end.is_none() || found.jobs.len() >= limit {
            found.go_on_behind = None;
            break;
        }
        found.go_on_behind = end;
    }
    Ok(found)
}

/// A filter with what was decided about it.
#[derive(Clone, Copy)]
struct Search<'f> {
    filter: &'f JobFilter,
    sql: &'static str,
    standing: Option<Standing>,
    due_by: Option<i64>,
    due_after: Option<i64>,
}

impl Search<'_> {
    /// The last row of a step of `step` rows behind `before`; `None` where fewer are left.
    async fn end_of_step(&self, pool: &PgPool, before: Option<JobId>, step: i64) -> Result<Option<JobId>, Failure> {
        let walk = match self.sql {
            sql::LIST_CAUSE => sql::WALK_CAUSE,
            sql::LIST_DEAD_QUEUE => sql::WALK_QUEUE,
            _ => sql::WALK,
        };
        let asked = sqlx::query_scalar::<_, Uuid>(walk).bind(before.map(|id| id.0)).bind(step - 1);
        let asked = match self.sql {
            sql::LIST_CAUSE => asked.bind(kept_if_any(self.filter.signature.as_ref())),
            sql::LIST_DEAD_QUEUE => asked.bind(self.filter.queue.as_ref().map(Name::as_str)),
            _ => asked.bind(kept_if_any(self.filter.batch_id.as_ref())).bind(self.sql == sql::LIST_DEAD),
        };
        Ok(asked.fetch_optional(pool).await?.map(JobId))
    }
}

impl Page<'_> {
    /// The matching rows.
    pub(super) async fn rows(&self, from: impl PgExecutor<'_>) -> Result<Vec<Job>, Failure> {
        let Search { filter, sql, standing, due_by, due_after } = self.search;
        let text = filter.text.as_ref().map(|text| text.to_ascii_lowercase());
        let id_part = text.as_ref().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'));
        let found = sqlx::query(sql)
            .bind(self.before.map(|id| id.0))
            .bind(filter.queue.as_ref().map(Name::as_str))
            .bind(filter.kind.map(|kind| kind.as_str()))
            .bind(standing.map(super::settle::standing_code))
            .bind(due_by)
            .bind(due_after)
            .bind(filter.tenant.as_ref().map(Name::as_str))
            .bind(kept_if_any(filter.error_class.as_ref()))
            .bind(kept_if_any(filter.signature.as_ref()))
            .bind(kept_if_any(filter.batch_id.as_ref()))
            .bind(kept_if_any(filter.operation.as_ref()))
            .bind(kept_if_any(text.as_ref()))
            .bind(id_part.map(|text| text.replace('-', "")))
            .bind(filter.since.map(|at| at.0))
            .bind(filter.until.map(|at| at.0))
            .bind(self.limit as i64)
            .bind(self.down_to.map(|id| id.0))
            .bind(filter.key_id.as_ref().map(Name::as_str))
            .fetch_all(from)
            .await?;
        Ok(found.iter().map(rows::job).collect::<Result<_, _>>()?)
    }
}

async fn few_are_live(pool: &PgPool, due_by: Option<i64>, due_after: Option<i64>) -> Result<bool, Failure> {
    let found: i64 =
        sqlx::query_scalar(sql::LIVE_FEW).bind(due_by).bind(due_after).bind(LIVE_FEW).fetch_one(pool).await?;
    Ok(found < LIVE_FEW)
}

fn dead_group(row: &PgRow) -> Result<DeadGroup, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(DeadGroup {
        signature: cells.text()?,
        class: cells.text()?,
        count: cells.count()?,
        first_seen: cells.time()?,
        last_seen: cells.time()?,
        cost_nanousd: cells.next()?,
    })
}

async fn totals(pool: PgPool) -> Result<Vec<(Name, QueueTotals, u64)>, Failure> {
    let found = sqlx::query(sql::TOTALS).fetch_all(&pool).await?;
    let read = |row| {
        let mut cells = Cells::of(row, 0);
        let queue = cells.name()?;
        let totals = QueueTotals {
            accepted: cells.count()?,
            succeeded: cells.count()?,
            cancelled: cells.count()?,
            dead: cells.count()?,
            died: cells.count()?,
        };
        Ok((queue, totals, cells.count()?))
    };
    found.iter().map(read).collect()
}

#[async_trait]
impl Ledger for PostgresJournal {
    fn bound_to(&self, tenant: &Name) -> Arc<dyn Ledger> {
        Arc::new(self.of_tenant(tenant))
    }

    async fn costs(&self, query: &CostQuery) -> Result<Vec<CostRow>, JournalError> {
        self.ask(|pool| async move { costs(&pool, query).await }).await
    }

    async fn recent(&self, since: Timestamp) -> Result<Vec<RecentCall>, JournalError> {
        self.ask(|pool| async move { recent(&pool, since).await }).await
    }

    async fn fold_costs(&self) -> Result<u64, JournalError> {
        self.ask(fold_costs).await
    }
}

/// A cost report.
pub(super) async fn costs(from: impl PgExecutor<'_>, query: &CostQuery) -> Result<Vec<CostRow>, Failure> {
    let Days { whole, before, behind } = query.days();
    let found = sqlx::query(sql::COSTS)
        .bind(query.word(0))
        .bind(query.word(1))
        .bind(query.word(2))
        .bind(whole.0)
        .bind(whole.1)
        .bind(before.0)
        .bind(before.1)
        .bind(behind.0)
        .bind(behind.1)
        .bind(query.tells_charges())
        .bind(query.tenant.as_ref().map(Name::as_str))
        .bind(PAGE_MAX_ROWS as i64)
        .fetch_all(from)
        .await?;
    Ok(found.iter().map(|row| rows::costs(row, query)).collect::<Result<_, _>>()?)
}

/// One statement, which is also the commit: one whose answer was lost has moved its lines or not, and the next one goes on
/// either way.
async fn fold_costs(pool: PgPool) -> Result<u64, Failure> {
    let moved: i64 = sqlx::query_scalar(sql::COSTS_FOLD).bind(COST_LINES_MAX as i64).fetch_one(&pool).await?;
    let of_keys: i64 = sqlx::query_scalar(sql::KEYS_FOLD).bind(COST_LINES_MAX as i64).fetch_one(&pool).await?;
    let of_dead: i64 = sqlx::query_scalar(sql::DEAD_FOLD).bind(COST_LINES_MAX as i64).fetch_one(&pool).await?;
    sqlx::query(sql::DEAD_FORGET).execute(&pool).await?;
    Ok(u64::try_from(moved.max(of_keys).max(of_dead)).unwrap_or_default())
}
