//! The audit log: rows that are only ever added, in one chain. There is one writer, so nobody comes between two rows.

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Row, params};

use super::{
    SqliteJournal,
    rows::Cells,
    sql::{Write, read},
    writer::Batch,
};
use crate::{
    audit::{AUDIT_HEADS_MAX, AUDIT_PAGE_MAX, Audit, AuditEntry, AuditFloor, AuditHead, AuditPlace, AuditRow},
    journal::JournalError,
};

#[async_trait]
impl Audit for SqliteJournal {
    async fn append_audit(&self, entry: AuditEntry) -> Result<(), JournalError> {
        self.writer.submit(2, entry, append).await
    }

    async fn audit_rows(&self, place: AuditPlace, limit: usize) -> Result<Vec<AuditRow>, JournalError> {
        let limit = limit.min(AUDIT_PAGE_MAX) as i64;
        self.readers
            .read(move |connection| {
                let text = if place.ascending { read::AUDIT_AFTER } else { read::AUDIT_BEFORE };
                let (day, seq) = place.behind;
                connection.prepare_cached(text)?.query_map(params![day, seq, limit], row)?.collect()
            })
            .await
    }

    async fn audit_heads(&self) -> Result<Vec<AuditHead>, JournalError> {
        self.readers
            .read(|connection| {
                let limit = AUDIT_HEADS_MAX as i64;
                connection.prepare_cached(read::AUDIT_HEADS)?.query_map([limit], head)?.collect()
            })
            .await
    }

    async fn audit_floor(&self) -> Result<Option<AuditFloor>, JournalError> {
        self.readers
            .read(|connection| connection.prepare_cached(read::AUDIT_FLOOR)?.query_row([], floor).optional())
            .await
    }

    async fn audit_days(&self, limit: usize) -> Result<Vec<AuditHead>, JournalError> {
        self.readers
            .read(move |connection| {
                connection.prepare_cached(read::AUDIT_DAYS)?.query_map([limit as i64], head)?.collect()
            })
            .await
    }

    async fn raise_audit_floor(&self, floor: AuditFloor) -> Result<bool, JournalError> {
        self.writer.submit(1, floor, raise).await
    }

    async fn forget_audit(&self, limit: usize) -> Result<u64, JournalError> {
        self.writer
            .submit(limit, limit, |batch, limit| Ok(batch.sql.execute(Write::AuditForget, [*limit as i64])? as u64))
            .await
    }
}

fn floor(row: &Row<'_>) -> rusqlite::Result<AuditFloor> {
    let mut cells = Cells::of(row, 0);
    Ok(AuditFloor {
        head: AuditHead { day: cells.next()?, seq: cells.next()?, hash: cells.next()? },
        rows: cells.count()?,
        path: cells.next()?,
        sha256: cells.next()?,
        at: cells.time()?,
    })
}

fn raise(batch: &mut Batch<'_>, floor: &AuditFloor) -> rusqlite::Result<bool> {
    let AuditFloor { head, rows, path, sha256, at } = floor;
    let values = params![head.day, head.seq, head.hash, super::rows::to_integer(*rows), path, sha256, at.0];
    Ok(batch.sql.execute(Write::AuditFloorAdd, values)? + batch.sql.execute(Write::AuditFloorRaise, values)? > 0)
}

fn head(row: &Row<'_>) -> rusqlite::Result<AuditHead> {
    let mut cells = Cells::of(row, 0);
    Ok(AuditHead { day: cells.next()?, seq: cells.next()?, hash: cells.next()? })
}

fn row(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    let mut cells = Cells::of(row, 0);
    Ok(AuditRow {
        day: cells.next()?,
        seq: cells.next()?,
        entry: AuditEntry {
            at: cells.time()?,
            actor: cells.next()?,
            role: cells.next()?,
            tenant: cells.next()?,
            address: cells.next()?,
            action: cells.next()?,
            subject: cells.next()?,
            status: cells.next()?,
            detail: cells.next()?,
            request_id: cells.next()?,
        },
        prev: cells.next()?,
        hash: cells.next()?,
    })
}

fn append(batch: &mut Batch<'_>, entry: &AuditEntry) -> rusqlite::Result<()> {
    let last = batch.sql.find(Write::AuditLast, [], head)?.unwrap_or_default();
    let (rows, head) = last.followed_by(std::slice::from_ref(entry), batch.now);
    for AuditRow { day, seq, entry, prev, hash } in &rows {
        let AuditEntry { at, actor, role, tenant, address, action, subject, status, detail, request_id } = entry;
        let values = params![
            day, seq, at.0, actor, role, tenant, address, action, subject, status, detail, request_id, prev, hash
        ];
        batch.sql.execute(Write::AuditAdd, values)?;
    }
    batch.sql.execute(Write::AuditHeadSet, params![head.day, head.seq, head.hash])?;
    Ok(())
}
