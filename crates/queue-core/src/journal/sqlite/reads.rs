//! What is read: for workers and the scheduler, for people, and for the bill.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    SqliteJournal, list,
    rows::{self, Cells, JOB_COLUMNS},
    sql::read,
};
use crate::{
    dispatcher::Entry,
    fallback::Link,
    ids::{JobId, Name},
    job::{AttemptRecord, Job},
    journal::{
        Answered, CostQuery, CostRow, DeadGroup, JobFilter, JournalError, Ledger, Listed, LiveScan, Loaded, Member,
        PAGE_MAX_ROWS, QueueTotals, RECENT_CALLS_MAX, Reads, RecentCall, Token, Within, costs::Days,
    },
    ledger::{CallRecord, Memo, Saving},
    state::Standing,
    time::Timestamp,
};

/// The claims that may run now, with their payloads.
pub(super) fn load(connection: &Connection, claims: &[Token], now: Timestamp) -> rusqlite::Result<Vec<Option<Loaded>>> {
    let mut statement = connection.prepare_cached(read::LOAD)?;
    let mut load_one = |claim: &Token| {
        statement
            .query_row(params![claim.id.as_bytes(), claim.epoch.0, now.0], |row| {
                let mut carried = Cells::of(row, JOB_COLUMNS);
                let (payload, fallback) = (carried.bytes()?, carried.json()?.unwrap_or_default());
                Ok(Loaded { job: rows::job(row)?, payload: payload.into(), fallback })
            })
            .optional()
    };
    claims.iter().map(&mut load_one).collect()
}

/// A page of live jobs.
pub(super) fn live(connection: &Connection, scan: &LiveScan, limit: usize) -> rusqlite::Result<Vec<Entry>> {
    let (run_at, id) = match scan.after {
        Some((run_at, id)) => (run_at.0, id.as_bytes().to_vec()),
        None => (i64::MIN, Vec::new()),
    };
    connection
        .prepare_cached(read::LIVE)?
        .query_map(params![run_at, id, scan.due_by.0, scan.accepted_by.0, limit as i64], rows::entry)?
        .collect()
}

/// The kept answers of a job.
pub(super) fn memos(connection: &Connection, id: JobId) -> rusqlite::Result<Vec<Memo>> {
    let mut statement = connection.prepare_cached(read::MEMOS)?;
    statement.query_map([id.as_bytes()], rows::memo)?.collect()
}

/// What was accepted under an idempotency key.
fn answered(connection: &Connection, owner: &Name, key: &str) -> rusqlite::Result<Option<Answered>> {
    let mut found: Option<Answered> = None;
    let mut statement = connection.prepare_cached(read::ANSWERED)?;
    let mut rows = statement.query(params![owner.as_str(), key])?;
    while let Some(row) = rows.next()? {
        let fingerprint = row.get(0)?;
        let mut cells = Cells::of(row, 1);
        let (item, job) = (cells.count()?, (JobId(cells.id()?), cells.time()?));
        found.get_or_insert_with(|| Answered { fingerprint, items: BTreeMap::new() }).items.insert(item, job);
    }
    Ok(found)
}

/// A body by its job, for the two statements that return one.
fn body(connection: &Connection, sql: &'static str, id: JobId) -> rusqlite::Result<Option<Bytes>> {
    connection.prepare_cached(sql)?.query_row([id.as_bytes()], |row| Cells::of(row, 0).bytes()).optional()
}

#[async_trait]
impl Reads for SqliteJournal {
    /// A file has no second wall.
    fn bound_to(&self, _tenant: &Name) -> Arc<dyn Reads> {
        Arc::new(self.clone())
    }

    async fn jobs(&self, ids: &[JobId]) -> Result<Vec<Option<Job>>, JournalError> {
        let ids = ids.to_vec();
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(read::JOB)?;
                ids.iter().map(|id| statement.query_row([id.as_bytes()], rows::job).optional()).collect()
            })
            .await
    }

    async fn payload(&self, id: JobId) -> Result<Option<Bytes>, JournalError> {
        let sql = read::PAYLOAD_OF;
        self.readers.read(move |connection| body(connection, sql, id)).await
    }

    async fn fallback(&self, id: JobId) -> Result<Vec<Link>, JournalError> {
        let found = self.readers.read(move |connection| {
            let mut statement = connection.prepare_cached(read::FALLBACK_OF)?;
            statement.query_row([id.as_bytes()], |row| Cells::of(row, 0).json()).optional()
        });
        Ok(found.await?.flatten().unwrap_or_default())
    }

    async fn result(&self, id: JobId) -> Result<Option<Bytes>, JournalError> {
        let sql = read::RESULT_OF;
        self.readers.read(move |connection| body(connection, sql, id)).await
    }

    async fn attempts(&self, id: JobId) -> Result<Vec<AttemptRecord>, JournalError> {
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(read::ATTEMPTS_OF)?;
                statement.query_map([id.as_bytes()], rows::attempt)?.collect()
            })
            .await
    }

    async fn calls(&self, id: JobId) -> Result<Vec<CallRecord>, JournalError> {
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(read::CALLS_OF)?;
                statement.query_map([id.as_bytes()], rows::call)?.collect()
            })
            .await
    }

    async fn savings(&self, id: JobId) -> Result<Vec<Saving>, JournalError> {
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(read::SAVINGS_OF)?;
                statement.query_map([id.as_bytes()], rows::saving)?.collect()
            })
            .await
    }

    async fn list(&self, filter: &JobFilter) -> Result<Listed, JournalError> {
        let filter = filter.clone();
        self.readers.read(move |connection| list::list(connection, &filter, &list::STEPS)).await
    }

    async fn dead_groups(&self, queue: Option<&Name>, within: &Within) -> Result<Vec<DeadGroup>, JournalError> {
        let (queue, within) = (queue.cloned(), within.clone());
        self.readers.read(move |connection| dead_groups(connection, queue.as_ref(), &within)).await
    }

    async fn totals(&self) -> Result<BTreeMap<Name, QueueTotals>, JournalError> {
        let rows = self.readers.read(totals).await?;
        Ok(rows.into_iter().map(|(queue, totals, _)| (queue, totals)).collect())
    }

    async fn batch(&self, batch_id: &str, within: &Within) -> Result<BTreeMap<Standing, u64>, JournalError> {
        let (batch_id, within) = (batch_id.to_owned(), within.clone());
        self.readers
            .read(move |connection| {
                let read = |row: &Row<'_>| {
                    let mut cells = Cells::of(row, 0);
                    Ok((rows::standing(cells.next()?)?, cells.count()?))
                };
                let Within { tenant, key_id } = &within;
                let Some(tenant) = tenant else {
                    return connection.prepare_cached(read::BATCH)?.query_map([batch_id], read)?.collect();
                };
                let values = params![batch_id, tenant.as_str(), key_id.as_ref().map(Name::as_str)];
                connection.prepare_cached(read::BATCH_OF)?.query_map(values, read)?.collect()
            })
            .await
    }

    async fn newest_of(&self, batches: &[String], each: usize) -> Result<Vec<Vec<Member>>, JournalError> {
        let (batches, each) = (batches.to_vec(), each.min(PAGE_MAX_ROWS) as i64);
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(read::NEWEST_OF)?;
                let mut found = Vec::with_capacity(batches.len());
                for batch in &batches {
                    let members = statement.query_map(params![batch, each], |row| rows::member(row, 0))?;
                    found.push(members.collect::<rusqlite::Result<_>>()?);
                }
                Ok(found)
            })
            .await
    }

    async fn answered(&self, owner: &Name, key: &str) -> Result<Option<Answered>, JournalError> {
        let (owner, key) = (owner.clone(), key.to_owned());
        self.readers.read(move |connection| answered(connection, &owner, &key)).await
    }

    async fn live_counts(&self) -> Result<BTreeMap<Name, u64>, JournalError> {
        let rows = self.readers.read(totals).await?;
        Ok(rows.into_iter().map(|(queue, _, live)| (queue, live)).collect())
    }
}

fn dead_groups(
    connection: &Connection,
    queue: Option<&Name>,
    Within { tenant, key_id }: &Within,
) -> rusqlite::Result<Vec<DeadGroup>> {
    let read = |row: &Row<'_>| {
        let mut cells = Cells::of(row, 0);
        Ok(DeadGroup {
            signature: cells.next()?,
            class: cells.next()?,
            count: cells.count()?,
            first_seen: cells.time()?,
            last_seen: cells.time()?,
            cost_nanousd: cells.next()?,
        })
    };
    let (queue, most) = (queue.map(Name::as_str), PAGE_MAX_ROWS as i64);
    let Some(tenant) = tenant else {
        return connection.prepare_cached(read::DEAD_GROUPS)?.query_map(params![queue, most], read)?.collect();
    };
    let Some(key) = key_id else {
        let values = params![queue, most, tenant.as_str()];
        return connection.prepare_cached(read::DEAD_GROUPS_OF_TENANT)?.query_map(values, read)?.collect();
    };
    let values = params![queue, most, tenant.as_str(), key.as_str()];
    connection.prepare_cached(read::DEAD_GROUPS_OF_KEY)?.query_map(values, read)?.collect()
}

fn totals(connection: &Connection) -> rusqlite::Result<Vec<(Name, QueueTotals, u64)>> {
    connection
        .prepare_cached(read::TOTALS)?
        .query_map([], |row| {
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
        })?
        .collect()
}

#[async_trait]
impl Ledger for SqliteJournal {
    /// A file has no second wall.
    fn bound_to(&self, _tenant: &Name) -> Arc<dyn Ledger> {
        Arc::new(self.clone())
    }

    async fn costs(&self, query: &CostQuery) -> Result<Vec<CostRow>, JournalError> {
        let query = query.clone();
        self.readers.read(move |connection| costs(connection, &query)).await
    }

    async fn recent(&self, since: Timestamp) -> Result<Vec<RecentCall>, JournalError> {
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(read::RECENT_CALLS)?;
                statement.query_map(params![since.0, RECENT_CALLS_MAX as i64], rows::recent_call)?.collect()
            })
            .await
    }

    /// The sums are kept by the rows' triggers.
    async fn fold_costs(&self) -> Result<u64, JournalError> {
        Ok(0)
    }
}

fn costs(connection: &Connection, query: &CostQuery) -> rusqlite::Result<Vec<CostRow>> {
    let Days { whole, before, behind } = query.days();
    let values = params![
        query.word(0),
        query.word(1),
        query.word(2),
        whole.0,
        whole.1,
        before.0,
        before.1,
        behind.0,
        behind.1,
        query.tells_charges(),
        query.tenant.as_ref().map(Name::as_str),
        PAGE_MAX_ROWS as i64,
    ];
    connection.prepare_cached(read::COSTS)?.query_map(values, |row| rows::costs(row, query))?.collect()
}
