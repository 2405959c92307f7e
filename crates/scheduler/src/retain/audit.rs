//! The audit log: old days are written to objects, the log says so itself, and only then do their rows go.
//!
//! A crash before the floor is raised leaves objects that nobody needs and a row that says what did not happen yet; one after it leaves
//! rows that nobody reads any more, which the next run takes away.

use std::time::Instant;

use queue_core::{
    archive::{Objects, ObjectsError},
    audit::{AUDIT_PAGE_MAX, AuditFloor, AuditHead, AuditPlace, Chain, FORGOTTEN, exported},
    hex,
    journal::JournalError,
    retention::{AUDIT_DAYS_MAX, Class, STEP_MAX_ROWS, is_old_day},
    time::{DAY_MS, Timestamp},
};
use serde_json::json;
use uuid::Uuid;

use super::{Gone, Retainer};

/// Days of one run: the next one goes on.
const DAYS_MAX: usize = 62;
/// Most bytes of lines of one object, before they are compressed: what a process can spare.
const OBJECT_MAX_BYTES: usize = 64 * 1024 * 1024;

impl Retainer {
    pub(super) async fn audit_log(&mut self) -> Result<(), JournalError> {
        let now = self.stores.clock.now();
        if let (Some(cutoff), Some(objects)) = (self.policy.cutoff(Class::Audit, now), self.stores.objects.clone()) {
            self.export(&objects, cutoff).await?;
        }
        // Also what an earlier run has left.
        if self.stores.audit.audit_floor().await?.is_none() {
            return Ok(());
        }
        loop {
            let began = Instant::now();
            let rows = self.stores.audit.forget_audit(STEP_MAX_ROWS).await?;
            if rows == 0 {
                return Ok(());
            }
            self.went(Class::Audit, Gone { rows, ..Gone::default() });
            if !self.pause(began).await {
                return Ok(());
            }
        }
    }

    /// Writes old days to objects and raises the floor to the end of the last one.
    async fn export(&mut self, objects: &Objects, cutoff: Timestamp) -> Result<(), JournalError> {
        let days = self.stores.audit.audit_days(AUDIT_DAYS_MAX).await?;
        let old: Vec<AuditHead> = days.into_iter().filter(|head| is_old_day(head.day, cutoff)).take(DAYS_MAX).collect();
        let Some(last) = old.last().copied() else { return Ok(()) };
        let mut before = self.stores.audit.audit_floor().await?.map(|floor| floor.head);
        let (mut rows, mut object) = (0, None);
        for head in old {
            let began = Instant::now();
            match self.export_day(objects, before, head).await? {
                Ok(written) => object = Some(written),
                Err(reason) => {
                    tracing::error!(
                        day = head.day,
                        reason,
                        "a day of the audit log stays: it cannot be exported as it is"
                    );
                    self.is_cut = true;
                    return Ok(());
                }
            }
            rows += head.seq.unsigned_abs();
            before = Some(head);
            if !self.pause(began).await {
                return Ok(());
            }
        }
        let Some((path, sha256)) = object else { return Ok(()) };
        let detail = json!({
            "day": last.day, "seq": last.seq, "hash": hex::of(&last.hash), "rows": rows, "path": path, "sha256": hex::of(&sha256),
        });
        // Said first: rows that are missing and of which nobody says why are taken for tampered with.
        if !self.note_in_audit_log(FORGOTTEN, detail).await {
            return Ok(());
        }
        let floor = AuditFloor { head: last, rows, path, sha256, at: self.stores.clock.now() };
        if !self.stores.audit.raise_audit_floor(floor).await? {
            tracing::info!(day = last.day, "the floor of the audit log was raised by another");
        }
        Ok(())
    }

    /// Writes one day, whose rows must be what the chain says they are; else why not.
    async fn export_day(
        &self,
        objects: &Objects,
        before: Option<AuditHead>,
        head: AuditHead,
    ) -> Result<Result<(String, [u8; 32]), String>, JournalError> {
        let mut chain = before.map_or_else(Chain::from_the_beginning, Chain::behind);
        let mut place = AuditPlace { behind: (head.day, 0), ascending: true };
        let (mut lines, mut written, mut follows) = (Vec::new(), None, before);
        loop {
            let page = self.stores.audit.audit_rows(place, AUDIT_PAGE_MAX).await?;
            let is_last = page.len() < AUDIT_PAGE_MAX || page.iter().any(|row| row.day > head.day);
            for row in page.iter().filter(|row| row.day == head.day) {
                if let Err(tampered) = chain.follow(row) {
                    return Ok(Err(format!("row {}: {}", tampered.seq, tampered.reason)));
                }
                if let Some(follows) = follows.take() {
                    lines.extend(json!({"floor": follows.exported()}).to_string().into_bytes());
                    lines.push(b'\n');
                }
                lines.extend(exported(row).to_string().into_bytes());
                lines.push(b'\n');
                place.behind = (row.day, row.seq);
            }
            if !is_last && lines.len() < OBJECT_MAX_BYTES {
                continue;
            }
            if is_last && let Err(tampered) = chain.end(Some(head)) {
                return Ok(Err(format!("row {}: {}", tampered.seq, tampered.reason)));
            }
            if let Some(end) = chain.last() {
                lines.extend(json!({"head": end.exported()}).to_string().into_bytes());
                lines.push(b'\n');
                follows = Some(end);
            }
            let date: String = Timestamp(i64::from(head.day) * DAY_MS).to_string().chars().take(10).collect();
            let path = format!("audit/{date}/{}.ndjson.zst", Uuid::now_v7());
            let sha256 = match objects.keep_lines(&path, std::mem::take(&mut lines)).await {
                Ok(sha256) => sha256,
                Err(ObjectsError::Unavailable(reason)) => return Err(JournalError::Unavailable(reason)),
                Err(damaged) => return Ok(Err(damaged.to_string())),
            };
            written = Some((path, sha256)).or(written);
            if is_last {
                return Ok(written.ok_or_else(|| "it has no rows".to_owned()));
            }
        }
    }
}
