//! Queues, tenants, targets and worker sessions.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};

use super::{
    SqliteJournal,
    rows::{self, Cells},
    sql::{Write, read},
    writer::Batch,
};
use crate::{
    credentials::CredentialPolicy,
    ids::{Generation, JobId, Name, SessionId},
    journal::{
        Backlog, BreakerMode, Catalog, Filling, JournalError, PAGE_MAX_ROWS, QueueSettings, TargetSettings,
        TenantSettings, Versioned, WorkerSession,
    },
    limiter::{Charges, SetLimit},
};

#[async_trait]
impl Catalog for SqliteJournal {
    async fn queues(&self) -> Result<BTreeMap<Name, Versioned<QueueSettings>>, JournalError> {
        self.readers.read(queues).await
    }

    async fn set_queue(&self, queue: &Name, settings: QueueSettings) -> Result<i64, JournalError> {
        self.writer.submit(1, (queue.clone(), settings), set_queue).await
    }

    async fn tenants(&self) -> Result<BTreeMap<Name, Versioned<TenantSettings>>, JournalError> {
        self.readers.read(tenants).await
    }

    async fn set_tenant(&self, tenant: &Name, settings: TenantSettings) -> Result<i64, JournalError> {
        self.writer.submit(1, (tenant.clone(), settings), set_tenant).await
    }

    async fn targets(&self) -> Result<BTreeMap<Name, Versioned<TargetSettings>>, JournalError> {
        self.readers.read(targets).await
    }

    async fn set_target(&self, target: &Name, settings: TargetSettings) -> Result<i64, JournalError> {
        self.writer.submit(1, (target.clone(), settings), set_target).await
    }

    async fn backlog(&self, tenant: &Name) -> Result<Backlog, JournalError> {
        let tenant = tenant.clone();
        self.readers.read(move |connection| backlog(connection, &tenant)).await
    }

    async fn known_tenants(&self, behind: Option<&Name>, limit: usize) -> Result<Vec<(Name, u64)>, JournalError> {
        let (behind, limit) = (behind.cloned(), limit.min(PAGE_MAX_ROWS) as i64);
        self.readers
            .read(move |connection| {
                let read = |row: &Row<'_>| {
                    let mut cells = Cells::of(row, 0);
                    Ok((cells.name()?, cells.count()?))
                };
                let behind = behind.as_ref().map_or("", Name::as_str);
                connection.prepare_cached(read::TENANTS_KNOWN)?.query_map(params![behind, limit], read)?.collect()
            })
            .await
    }

    async fn open_session(&self, session: WorkerSession) -> Result<(), JournalError> {
        self.writer.submit(1, session, open_session).await
    }

    async fn close_session(&self, id: SessionId) -> Result<(), JournalError> {
        self.writer.submit(1, id, close_session).await
    }

    async fn sessions(&self) -> Result<Vec<WorkerSession>, JournalError> {
        self.readers.read(sessions).await
    }

    async fn filling(&self) -> Result<Filling, JournalError> {
        self.readers.read(filling).await
    }

    async fn note_filling(&self, filling: Filling) -> Result<bool, JournalError> {
        self.writer.submit(1, filling, note_filling).await
    }
}

fn queues(connection: &Connection) -> rusqlite::Result<BTreeMap<Name, Versioned<QueueSettings>>> {
    connection
        .prepare_cached(read::QUEUES)?
        .query_map([], |row| {
            let mut cells = Cells::of(row, 0);
            let (name, version) = (cells.name()?, cells.next()?);
            let value = QueueSettings {
                paused: cells.next()?,
                paused_until: cells.time_if_any()?,
                reason: cells.next()?,
                concurrency: cells.next()?,
                timeout_ms: cells.next::<Option<i64>>()?.and_then(|ms| u64::try_from(ms).ok()),
                key_concurrency: cells.next()?,
                draining: cells.next()?,
                retention_ms: cells.count_if_any()?,
            };
            Ok((name, Versioned { version, value }))
        })?
        .collect()
}

fn set_queue(batch: &mut Batch<'_>, (name, settings): &(Name, QueueSettings)) -> rusqlite::Result<i64> {
    batch.sql.one(
        Write::QueueSet,
        params![
            name.as_str(),
            settings.paused,
            settings.paused_until.map(|at| at.0),
            settings.reason,
            settings.concurrency,
            settings.timeout_ms.map(rows::to_integer),
            settings.key_concurrency,
            settings.draining,
            settings.retention_ms.map(rows::to_integer),
        ],
        |row| row.get(0),
    )
}

fn tenants(connection: &Connection) -> rusqlite::Result<BTreeMap<Name, Versioned<TenantSettings>>> {
    connection
        .prepare_cached(read::TENANTS)?
        .query_map([], |row| {
            let mut cells = Cells::of(row, 0);
            let (name, version) = (cells.name()?, cells.next()?);
            let backlog_max = cells.next::<Option<i64>>()?.and_then(|max| u64::try_from(max).ok());
            let value = TenantSettings {
                backlog_max,
                weight: cells.next()?,
                paused: cells.next()?,
                paused_until: cells.time_if_any()?,
                reason: cells.next()?,
                rules: cells.json()?.unwrap_or_default(),
                credential_policy: cells.word(CredentialPolicy::parse)?,
                rates: rows::rates(&mut cells)?,
            };
            Ok((name, Versioned { version, value }))
        })?
        .collect()
}

fn set_tenant(batch: &mut Batch<'_>, (name, settings): &(Name, TenantSettings)) -> rusqlite::Result<i64> {
    let values = params![
        name.as_str(),
        settings.backlog_max.map(rows::to_integer),
        settings.weight,
        settings.paused,
        settings.paused_until.map(|at| at.0),
        settings.reason,
        rows::rules_text(&settings.rules)?,
        settings.credential_policy.as_str(),
        settings.rates.requests_per_minute,
        settings.rates.llm_submits_per_minute,
    ];
    batch.sql.one(Write::TenantSet, values, |row| row.get(0))
}

fn targets(connection: &Connection) -> rusqlite::Result<BTreeMap<Name, Versioned<TargetSettings>>> {
    connection
        .prepare_cached(read::TARGETS)?
        .query_map([], |row| {
            let mut cells = Cells::of(row, 0);
            let (name, version) = (cells.name()?, cells.next()?);
            let value = TargetSettings {
                paused: cells.next()?,
                paused_until: cells.time_if_any()?,
                reason: cells.next()?,
                breaker: cells.word(BreakerMode::parse)?,
                limit: SetLimit {
                    requests_per_minute: cells.count_if_any()?,
                    tokens_per_minute: cells.count_if_any()?,
                    tokens_charged: cells.word_if_any(Charges::parse)?,
                    concurrency: cells.count_if_any()?,
                },
            };
            Ok((name, Versioned { version, value }))
        })?
        .collect()
}

fn set_target(batch: &mut Batch<'_>, (name, settings): &(Name, TargetSettings)) -> rusqlite::Result<i64> {
    let values = params![
        name.as_str(),
        settings.paused,
        settings.paused_until.map(|at| at.0),
        settings.reason,
        settings.breaker.as_str(),
        settings.limit.requests_per_minute.map(|rate| i64::try_from(rate).unwrap_or(i64::MAX)),
        settings.limit.tokens_per_minute.map(|rate| i64::try_from(rate).unwrap_or(i64::MAX)),
        settings.limit.tokens_charged.map(Charges::as_str),
        settings.limit.concurrency,
    ];
    batch.sql.one(Write::TargetSet, values, |row| row.get(0))
}

fn backlog(connection: &Connection, tenant: &Name) -> rusqlite::Result<Backlog> {
    connection.prepare_cached(read::BACKLOG)?.query_row([tenant.as_str()], |row| {
        let mut cells = Cells::of(row, 0);
        let max = cells.next::<Option<i64>>()?.and_then(|max| u64::try_from(max).ok());
        Ok(Backlog { max, live: cells.count()? })
    })
}

fn open_session(batch: &mut Batch<'_>, session: &WorkerSession) -> rusqlite::Result<()> {
    batch.sql.execute(
        Write::SessionOpen,
        params![session.id.0.as_bytes(), session.host, session.version, session.slots, session.started_at.0,],
    )?;
    Ok(())
}

fn close_session(batch: &mut Batch<'_>, id: &SessionId) -> rusqlite::Result<()> {
    batch.sql.execute(Write::SessionClose, [id.0.as_bytes()])?;
    Ok(())
}

fn sessions(connection: &Connection) -> rusqlite::Result<Vec<WorkerSession>> {
    connection
        .prepare_cached(read::SESSIONS)?
        .query_map([], |row| {
            let mut cells = Cells::of(row, 0);
            Ok(WorkerSession {
                id: SessionId(cells.id()?),
                host: cells.next()?,
                version: cells.next()?,
                slots: cells.next()?,
                started_at: cells.time()?,
                draining: cells.next()?,
            })
        })?
        .collect()
}

fn filling(connection: &Connection) -> rusqlite::Result<Filling> {
    connection.prepare_cached(read::FILLING)?.query_row([], |row| {
        let mut cells = Cells::of(row, 0);
        let (generation, began_at) = (Generation(cells.next()?), cells.time()?);
        let (beat, done) = (cells.next()?, cells.next()?);
        let (run_at, id) = (cells.time_if_any()?, cells.next::<Option<[u8; 16]>>()?);
        let id = id.map(|bytes| JobId(uuid::Uuid::from_bytes(bytes)));
        Ok(Filling { generation, began_at, beat, after: run_at.zip(id), done })
    })
}

fn note_filling(batch: &mut Batch<'_>, note: &Filling) -> rusqlite::Result<bool> {
    let changed = batch.sql.execute(
        Write::FillingNote,
        params![
            note.generation.0,
            note.beat,
            note.done,
            note.after.map(|(run_at, _)| run_at.0),
            note.after.map(|(_, id)| id.0.into_bytes()),
        ],
    )?;
    Ok(changed > 0)
}
