//! The audit log: rows that are only ever added, in one chain over all processes.
//!
//! Rows of one process are committed in groups; a transaction holds the end of the chain from before it reads it until its
//! commit, and nothing else waits for it: submits and settles have no row here.

use async_trait::async_trait;
use sqlx::postgres::PgRow;

use super::{
    PostgresJournal,
    failure::Failure,
    group::{Grouped, Size},
    rows::Cells,
    sql,
    text::{kept, kept_if_any},
    transaction::{Transaction, Verb},
};
use crate::{
    audit::{AUDIT_HEADS_MAX, AUDIT_PAGE_MAX, Audit, AuditEntry, AuditFloor, AuditHead, AuditPlace, AuditRow},
    ids::JobId,
    journal::JournalError,
};

#[async_trait]
impl Audit for PostgresJournal {
    async fn append_audit(&self, entry: AuditEntry) -> Result<(), JournalError> {
        self.audits.submit(entry).await
    }

    async fn audit_rows(&self, place: AuditPlace, limit: usize) -> Result<Vec<AuditRow>, JournalError> {
        self.ask(|pool| async move {
            let text = if place.ascending { sql::AUDIT_AFTER } else { sql::AUDIT_BEFORE };
            let limit = limit.min(AUDIT_PAGE_MAX) as i64;
            let (day, seq) = place.behind;
            let found = sqlx::query(text).bind(day).bind(seq).bind(limit).fetch_all(&pool).await?;
            Ok(found.iter().map(row).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn audit_heads(&self) -> Result<Vec<AuditHead>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::AUDIT_HEADS).bind(AUDIT_HEADS_MAX as i64).fetch_all(&pool).await?;
            Ok(found.iter().map(head).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn audit_floor(&self) -> Result<Option<AuditFloor>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::AUDIT_FLOOR).fetch_optional(&pool).await?;
            Ok(found.as_ref().map(floor).transpose()?)
        })
        .await
    }

    async fn audit_days(&self, limit: usize) -> Result<Vec<AuditHead>, JournalError> {
        self.ask(|pool| async move {
            let found = sqlx::query(sql::AUDIT_DAYS).bind(limit as i64).fetch_all(&pool).await?;
            Ok(found.iter().map(head).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn raise_audit_floor(&self, floor: AuditFloor) -> Result<bool, JournalError> {
        self.write::<Raise>(floor).await
    }

    async fn forget_audit(&self, limit: usize) -> Result<u64, JournalError> {
        self.write::<Forget>(limit).await
    }
}

fn floor(row: &PgRow) -> Result<AuditFloor, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(AuditFloor {
        head: AuditHead { day: cells.next()?, seq: cells.next()?, hash: cells.hash()? },
        rows: cells.count()?,
        path: cells.text()?,
        sha256: cells.hash()?,
        at: cells.time()?,
    })
}

fn head(row: &PgRow) -> Result<AuditHead, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(AuditHead { day: cells.next()?, seq: cells.next()?, hash: cells.hash()? })
}

fn row(row: &PgRow) -> Result<AuditRow, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(AuditRow {
        day: cells.next()?,
        seq: cells.next()?,
        entry: AuditEntry {
            at: cells.time()?,
            actor: cells.text_if_any()?,
            role: cells.text_if_any()?,
            tenant: cells.text_if_any()?,
            address: cells.text_if_any()?,
            action: cells.text()?,
            subject: cells.text()?,
            status: u16::try_from(cells.next::<i32>()?).unwrap_or_default(),
            detail: cells.text()?,
            request_id: cells.text()?,
        },
        prev: cells.hash()?,
        hash: cells.hash()?,
    })
}

/// Adds rows.
pub(super) struct Append;

impl Grouped for Append {
    fn size(entry: &AuditEntry) -> Size {
        Size { rows: 1, bytes: entry.detail.len() }
    }

    fn job(_: &AuditEntry) -> Option<JobId> {
        None
    }
}

#[async_trait]
impl Verb for Append {
    type Input = AuditEntry;
    type Output = ();
    /// A row that stands there twice is better than one that does not.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, entries: &[AuditEntry], _again: bool) -> Result<Vec<()>, Failure> {
        sqlx::query(sql::AUDIT_LOCK).execute(transaction.connection()).await?;
        let last = sqlx::query(sql::AUDIT_LAST).fetch_optional(transaction.connection()).await?;
        let last = last.as_ref().map(head).transpose()?.unwrap_or_default();
        let (rows, head) = last.followed_by(entries, transaction.now);
        let texts = |text: fn(&AuditEntry) -> Option<&String>| {
            rows.iter().map(|row| kept_if_any(text(&row.entry))).collect::<Vec<_>>()
        };
        let named =
            |text: fn(&AuditEntry) -> &String| rows.iter().map(|row| kept(text(&row.entry))).collect::<Vec<_>>();
        sqlx::query(sql::AUDIT_ADD)
            .bind(rows.iter().map(|row| row.day).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.seq).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.entry.at.0).collect::<Vec<_>>())
            .bind(texts(|entry| entry.actor.as_ref()))
            .bind(texts(|entry| entry.role.as_ref()))
            .bind(texts(|entry| entry.tenant.as_ref()))
            .bind(texts(|entry| entry.address.as_ref()))
            .bind(named(|entry| &entry.action))
            .bind(named(|entry| &entry.subject))
            .bind(rows.iter().map(|row| i32::from(row.entry.status)).collect::<Vec<_>>())
            .bind(named(|entry| &entry.detail))
            .bind(named(|entry| &entry.request_id))
            .bind(rows.iter().map(|row| &row.prev[..]).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| &row.hash[..]).collect::<Vec<_>>())
            .execute(transaction.connection())
            .await?;
        sqlx::query(sql::AUDIT_HEAD_SET)
            .bind(head.day)
            .bind(head.seq)
            .bind(&head.hash[..])
            .execute(transaction.connection())
            .await?;
        Ok(vec![(); entries.len()])
    }
}

struct Raise;

#[async_trait]
impl Verb for Raise {
    type Input = AuditFloor;
    type Output = bool;
    /// A repeat finds the floor where it was put, and says that it is not above: its caller looks again.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, floors: &[AuditFloor], _again: bool) -> Result<Vec<bool>, Failure> {
        let mut raised = Vec::new();
        for AuditFloor { head, rows, path, sha256, at } in floors {
            let asked = sqlx::query_scalar(sql::AUDIT_FLOOR_RAISE)
                .bind(head.day)
                .bind(head.seq)
                .bind(&head.hash[..])
                .bind(i64::try_from(*rows).unwrap_or(i64::MAX))
                .bind(path)
                .bind(&sha256[..])
                .bind(at.0);
            raised.push(asked.fetch_one(transaction.connection()).await?);
        }
        Ok(raised)
    }
}

struct Forget;

#[async_trait]
impl Verb for Forget {
    type Input = usize;
    type Output = u64;
    /// A repeat takes away more of what may go.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, limits: &[usize], _again: bool) -> Result<Vec<u64>, Failure> {
        let mut gone = Vec::new();
        for limit in limits {
            let asked = sqlx::query_scalar::<_, i64>(sql::AUDIT_FORGET).bind(*limit as i64);
            gone.push(asked.fetch_one(transaction.connection()).await?.unsigned_abs());
        }
        Ok(gone)
    }
}
