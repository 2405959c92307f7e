//! Queues, tenants, targets and worker sessions.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::postgres::PgRow;

use super::{
    PostgresJournal,
    failure::Failure,
    rows::{self, Cells},
    sql,
    text::{kept, kept_if_any},
    transaction::{Transaction, Verb},
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
impl Catalog for PostgresJournal {
    async fn queues(&self) -> Result<BTreeMap<Name, Versioned<QueueSettings>>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::QUEUES).fetch_all(&pool).await?;
            Ok(found.iter().map(queue).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn set_queue(&self, queue: &Name, settings: QueueSettings) -> Result<i64, JournalError> {
        self.write::<SetQueue>((queue.clone(), settings)).await
    }

    async fn tenants(&self) -> Result<BTreeMap<Name, Versioned<TenantSettings>>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::TENANTS).fetch_all(&pool).await?;
            Ok(found.iter().map(tenant).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn set_tenant(&self, tenant: &Name, settings: TenantSettings) -> Result<i64, JournalError> {
        self.write::<SetTenant>((tenant.clone(), settings)).await
    }

    async fn targets(&self) -> Result<BTreeMap<Name, Versioned<TargetSettings>>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::TARGETS).fetch_all(&pool).await?;
            Ok(found.iter().map(target).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn set_target(&self, target: &Name, settings: TargetSettings) -> Result<i64, JournalError> {
        self.write::<SetTarget>((target.clone(), settings)).await
    }

    async fn backlog(&self, tenant: &Name) -> Result<Backlog, JournalError> {
        self.ask(|pool| async move {
            let row = sqlx::query(sql::BACKLOG).bind(tenant.as_str()).fetch_one(&pool).await?;
            let mut cells = Cells::of(&row, 0);
            Ok(Backlog {
                max: cells.next::<Option<i64>>()?.and_then(|max| u64::try_from(max).ok()),
                live: cells.count()?,
            })
        })
        .await
    }

    async fn known_tenants(&self, behind: Option<&Name>, limit: usize) -> Result<Vec<(Name, u64)>, JournalError> {
        let (behind, limit) = (behind.map_or("", Name::as_str), limit.min(PAGE_MAX_ROWS) as i64);
        self.ask(|pool| async move {
            let found = sqlx::query(sql::TENANTS_KNOWN).bind(behind).bind(limit).fetch_all(&pool).await?;
            let read = |row| {
                let mut cells = Cells::of(row, 0);
                Ok((cells.name()?, cells.count()?))
            };
            found.iter().map(read).collect()
        })
        .await
    }

    async fn open_session(&self, session: WorkerSession) -> Result<(), JournalError> {
        self.write::<OpenSession>(session).await
    }

    async fn close_session(&self, id: SessionId) -> Result<(), JournalError> {
        self.write::<CloseSession>(id).await
    }

    async fn sessions(&self) -> Result<Vec<WorkerSession>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::SESSIONS).fetch_all(&pool).await?;
            Ok(found.iter().map(session).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn filling(&self) -> Result<Filling, JournalError> {
        self.ask(|pool| async move { Ok(filling(&sqlx::query(sql::FILLING).fetch_one(&pool).await?)?) }).await
    }

    async fn note_filling(&self, filling: Filling) -> Result<bool, JournalError> {
        self.write::<NoteFilling>(filling).await
    }
}

fn queue(row: &PgRow) -> Result<(Name, Versioned<QueueSettings>), sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    let (name, version) = (cells.name()?, cells.next()?);
    let value = QueueSettings {
        paused: cells.next()?,
        paused_until: cells.time_if_any()?,
        reason: cells.text_if_any()?,
        concurrency: cells.next::<Option<i64>>()?.and_then(|slots| u32::try_from(slots).ok()),
        timeout_ms: cells.next::<Option<i64>>()?.and_then(|ms| u64::try_from(ms).ok()),
        key_concurrency: cells.next::<Option<i64>>()?.and_then(|jobs| u32::try_from(jobs).ok()),
        draining: cells.next()?,
        retention_ms: cells.count_if_any()?,
    };
    Ok((name, Versioned { version, value }))
}

fn tenant(row: &PgRow) -> Result<(Name, Versioned<TenantSettings>), sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    let (name, version) = (cells.name()?, cells.next()?);
    let backlog_max = cells.next::<Option<i64>>()?.and_then(|max| u64::try_from(max).ok());
    let weight = u32::try_from(cells.next::<i32>()?).unwrap_or(1);
    let (paused, paused_until, reason) = (cells.next()?, cells.time_if_any()?, cells.text_if_any()?);
    let rules = cells.json()?.unwrap_or_default();
    let credential_policy = cells.word(CredentialPolicy::parse)?;
    let rates = rows::rates(&mut cells)?;
    let value = TenantSettings { backlog_max, weight, paused, paused_until, reason, rules, credential_policy, rates };
    Ok((name, Versioned { version, value }))
}

fn target(row: &PgRow) -> Result<(Name, Versioned<TargetSettings>), sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    let (name, version) = (cells.name()?, cells.next()?);
    let value = TargetSettings {
        paused: cells.next()?,
        paused_until: cells.time_if_any()?,
        reason: cells.text_if_any()?,
        breaker: cells.word(BreakerMode::parse)?,
        limit: SetLimit {
            requests_per_minute: cells.count_if_any()?,
            tokens_per_minute: cells.count_if_any()?,
            tokens_charged: cells.word_if_any(Charges::parse)?,
            concurrency: cells.next::<Option<i32>>()?.and_then(|jobs| u32::try_from(jobs).ok()),
        },
    };
    Ok((name, Versioned { version, value }))
}

fn session(row: &PgRow) -> Result<WorkerSession, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(WorkerSession {
        id: SessionId(cells.next()?),
        host: cells.text()?,
        version: cells.text()?,
        slots: cells.count()?,
        started_at: cells.time()?,
        draining: cells.next()?,
    })
}

fn filling(row: &PgRow) -> Result<Filling, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    let (generation, began_at) = (Generation(cells.next()?), cells.time()?);
    let (beat, done) = (cells.next()?, cells.next()?);
    let (run_at, id) = (cells.time_if_any()?, cells.next::<Option<uuid::Uuid>>()?);
    Ok(Filling { generation, began_at, beat, after: run_at.zip(id.map(JobId)), done })
}

struct SetQueue;

#[async_trait]
impl Verb for SetQueue {
    type Input = (Name, QueueSettings);
    type Output = i64;
    /// The same settings twice are two versions of the same.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<i64>, Failure> {
        let mut versions = Vec::new();
        for (name, settings) in inputs {
            let version = sqlx::query_scalar(sql::QUEUE_SET)
                .bind(name.as_str())
                .bind(settings.paused)
                .bind(settings.paused_until.map(|at| at.0))
                .bind(kept_if_any(settings.reason.as_ref()))
                .bind(settings.concurrency.map(i64::from))
                .bind(settings.timeout_ms.map(rows::to_bigint))
                .bind(settings.key_concurrency.map(i64::from))
                .bind(settings.draining)
                .bind(settings.retention_ms.map(rows::to_bigint))
                .fetch_one(transaction.connection())
                .await?;
            versions.push(version);
        }
        Ok(versions)
    }
}

struct SetTenant;

#[async_trait]
impl Verb for SetTenant {
    type Input = (Name, TenantSettings);
    type Output = i64;
    /// The same settings twice are two versions of the same.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<i64>, Failure> {
        let mut versions = Vec::new();
        for (name, settings) in inputs {
            let version = sqlx::query_scalar(sql::TENANT_SET)
                .bind(name.as_str())
                .bind(settings.backlog_max.map(rows::to_bigint))
                .bind(rows::to_integer(settings.weight))
                .bind(settings.paused)
                .bind(settings.paused_until.map(|at| at.0))
                .bind(kept_if_any(settings.reason.as_ref()))
                .bind(rows::rules_text(&settings.rules)?)
                .bind(settings.credential_policy.as_str())
                .bind(settings.rates.requests_per_minute.map(rows::to_integer))
                .bind(settings.rates.llm_submits_per_minute.map(rows::to_integer))
                .fetch_one(transaction.connection())
                .await?;
            versions.push(version);
        }
        Ok(versions)
    }
}

struct SetTarget;

#[async_trait]
impl Verb for SetTarget {
    type Input = (Name, TargetSettings);
    type Output = i64;
    /// The same settings twice are two versions of the same.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<i64>, Failure> {
        let mut versions = Vec::new();
        for (name, settings) in inputs {
            let version = sqlx::query_scalar(sql::TARGET_SET)
                .bind(name.as_str())
                .bind(settings.paused)
                .bind(settings.paused_until.map(|at| at.0))
                .bind(kept_if_any(settings.reason.as_ref()))
                .bind(settings.breaker.as_str())
                .bind(settings.limit.requests_per_minute.map(|rate| i64::try_from(rate).unwrap_or(i64::MAX)))
                .bind(settings.limit.tokens_per_minute.map(|rate| i64::try_from(rate).unwrap_or(i64::MAX)))
                .bind(settings.limit.tokens_charged.map(Charges::as_str))
                .bind(settings.limit.concurrency.map(|jobs| i32::try_from(jobs).unwrap_or(i32::MAX)))
                .fetch_one(transaction.connection())
                .await?;
            versions.push(version);
        }
        Ok(versions)
    }
}

struct OpenSession;

#[async_trait]
impl Verb for OpenSession {
    type Input = WorkerSession;
    type Output = ();
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, sessions: &[WorkerSession], _again: bool) -> Result<Vec<()>, Failure> {
        for session in sessions {
            sqlx::query(sql::SESSION_OPEN)
                .bind(session.id.0)
                .bind(kept(&session.host))
                .bind(kept(&session.version))
                .bind(i64::from(session.slots))
                .bind(session.started_at.0)
                .execute(transaction.connection())
                .await?;
        }
        Ok(vec![(); sessions.len()])
    }
}

struct CloseSession;

#[async_trait]
impl Verb for CloseSession {
    type Input = SessionId;
    type Output = ();
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, sessions: &[SessionId], _again: bool) -> Result<Vec<()>, Failure> {
        for session in sessions {
            sqlx::query(sql::SESSION_CLOSE).bind(session.0).execute(transaction.connection()).await?;
        }
        Ok(vec![(); sessions.len()])
    }
}

struct NoteFilling;

#[async_trait]
impl Verb for NoteFilling {
    type Input = Filling;
    type Output = bool;
    /// A repeat finds its own beat and says that the note was refused: the filler stops, and another goes on.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, notes: &[Filling], _again: bool) -> Result<Vec<bool>, Failure> {
        let mut noted = Vec::new();
        for note in notes {
            let done = sqlx::query(sql::FILLING_NOTE)
                .bind(note.generation.0)
                .bind(note.beat)
                .bind(note.done)
                .bind(note.after.map(|(run_at, _)| run_at.0))
                .bind(note.after.map(|(_, id)| id.0))
                .execute(transaction.connection())
                .await?;
            noted.push(done.rows_affected() > 0);
        }
        Ok(noted)
    }
}
