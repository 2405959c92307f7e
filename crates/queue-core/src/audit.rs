//! The audit log: what was done by whom, in a chain of hashes that shows whether somebody has changed it since.
//!
//! Each row carries the hash of the one before it and its own, over all that it says. Rows are numbered within a UTC day; the
//! first of a day follows the last of the day before. The journal only ever adds rows; who can write past it can still change
//! one, and then neither its own hash nor the next row's fits any more. [`Chain`] is what finds that out, with nothing but rows.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    hex,
    journal::JournalError,
    time::{DAY_MS, Timestamp},
};

/// Most rows of one page.
pub const AUDIT_PAGE_MAX: usize = 500;
/// Most heads that are told at once: three years and a bit.
pub const AUDIT_HEADS_MAX: usize = 1_200;

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// The public part of the key that was used, or claimed to be.
    pub actor: Option<String>,
    /// Its role.
    pub role: Option<String>,
    /// Its tenant.
    pub tenant: Option<String>,
    /// From where: a network of 24 or 48 bits.
    pub address: Option<String>,
    /// What: a method and a route, as `PATCH /v1/queues/{queue}`.
    pub action: String,
    /// To what: the path.
    pub subject: String,
    /// The answer's status.
    pub status: u16,
    /// More, as JSON text without secrets.
    pub detail: String,
    /// The request.
    pub request_id: String,
}

/// A row of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// The UTC day, counted from 1970.
    pub day: i32,
    /// Its number within the day, from 1.
    pub seq: i64,
    /// What it says.
    pub entry: AuditEntry,
    /// The hash of the row before it.
    pub prev: [u8; 32],
    /// Its own.
    pub hash: [u8; 32],
}

/// The end of a day's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditHead {
    /// The UTC day, counted from 1970.
    pub day: i32,
    /// The number of its last row.
    pub seq: i64,
    /// That row's hash.
    pub hash: [u8; 32],
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditPlace {
    /// Day and number of the row that the page follows.
    pub behind: (i32, i64),
    /// Whether it goes on to later rows.
    pub ascending: bool,
}

/// Up to where the log was taken out, after it was written to objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditFloor {
    /// The last row that is not there any more.
    pub head: AuditHead,
    /// How many rows there were, in all.
    pub rows: u64,
    /// The last object that they were written to.
    pub path: String,
    /// The SHA-256 of that object.
    pub sha256: [u8; 32],
    /// When.
    pub at: Timestamp,
}

impl AuditEntry {
    /// What a process of ours has done by itself, as `actor`.
    pub fn by_itself(actor: &str, action: &str, subject: &str, detail: &Value, at: Timestamp) -> Self {
        Self {
            at,
            actor: Some(actor.to_owned()),
            action: action.to_owned(),
            subject: subject.to_owned(),
            status: 200,
            detail: detail.to_string(),
            ..Self::default()
        }
    }
}

/// Adds a row; whether it is there. One that the journal does not take stands in the log of the process.
pub async fn note(audit: &dyn Audit, entry: AuditEntry) -> bool {
    let (action, detail) = (entry.action.clone(), entry.detail.clone());
    let added = audit.append_audit(entry).await;
    added.inspect_err(|error| tracing::error!(%error, action, detail, "the audit log has no row of this")).is_ok()
}

/// The action of the row that says that part of the log is taken out; its detail has the hash of the last row of that.
pub const FORGOTTEN: &str = "RETAIN audit";

/// The journal's audit log. Each write is one commit.
#[async_trait]
pub trait Audit: Send + Sync {
    /// Adds a row at the end of the chain. Rows of several processes follow each other; a commit whose answer is lost may leave a
    /// row that is added twice.
    async fn append_audit(&self, entry: AuditEntry) -> Result<(), JournalError>;

    /// Rows behind a place, at most [`AUDIT_PAGE_MAX`].
    async fn audit_rows(&self, place: AuditPlace, limit: usize) -> Result<Vec<AuditRow>, JournalError>;

    /// The ends of the last days, newest first, at most [`AUDIT_HEADS_MAX`].
    async fn audit_heads(&self) -> Result<Vec<AuditHead>, JournalError>;

    /// Up to where the log was taken out; `None`: all of it is there.
    async fn audit_floor(&self) -> Result<Option<AuditFloor>, JournalError>;

    /// The ends of the first days that are there, oldest first, at most `limit`.
    async fn audit_days(&self, limit: usize) -> Result<Vec<AuditHead>, JournalError>;

    /// Says that the log was taken out up to the end of a day, whose rows lie in an object; `false` where that is no end of the log, lies in
    /// its last year, or is not above the floor that is there. Nothing goes by this alone. `rows` counts what is new.
    async fn raise_audit_floor(&self, floor: AuditFloor) -> Result<bool, JournalError>;

    /// Takes away rows up to the floor, at most `limit`, oldest first, and returns how many. No other row can be taken away.
    async fn forget_audit(&self, limit: usize) -> Result<u64, JournalError>;
}

impl AuditHead {
    /// The rows that follow this end, and the end after them. `now` is the journal's clock: days only go forward, whatever
    /// clocks do.
    pub fn followed_by(self, entries: &[AuditEntry], now: Timestamp) -> (Vec<AuditRow>, Self) {
        let today = i32::try_from(now.0.div_euclid(DAY_MS)).unwrap_or(i32::MAX);
        let mut head = if today > self.day { Self { day: today, seq: 0, hash: self.hash } } else { self };
        let mut rows = Vec::with_capacity(entries.len());
        for entry in entries {
            let (day, seq, prev) = (head.day, head.seq + 1, head.hash);
            let hash = hash_of(day, seq, &prev, entry);
            head = Self { day, seq, hash };
            rows.push(AuditRow { day, seq, entry: entry.clone(), prev, hash });
        }
        (rows, head)
    }
}

/// The hash of a row: SHA-256 over the hash before it and each of its fields with its length, so that no two rows have the same
/// bytes.
pub fn hash_of(day: i32, seq: i64, prev: &[u8; 32], entry: &AuditEntry) -> [u8; 32] {
    let AuditEntry { at, actor, role, tenant, address, action, subject, status, detail, request_id } = entry;
    let mut hasher = Sha256::new();
    hasher.update(b"longshore audit 1");
    hasher.update(prev);
    let numbers = [i64::from(day), seq, at.0, i64::from(*status)];
    numbers.iter().for_each(|number| hasher.update(number.to_be_bytes()));
    for text in [actor, role, tenant, address] {
        // What is absent differs from what is empty.
        match text {
            None => hasher.update(u64::MAX.to_be_bytes()),
            Some(text) => add(&mut hasher, text),
        }
    }
    for text in [action, subject, detail, request_id] {
        add(&mut hasher, text);
    }
    hasher.finalize().into()
}

fn add(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u64).to_be_bytes());
    hasher.update(text.as_bytes());
}

/// A row as it is exported: what `longshore audit export` writes, a line each.
pub fn exported(row: &AuditRow) -> Value {
    let AuditRow { day, seq, entry, prev, hash } = row;
    let AuditEntry { at, actor, role, tenant, address, action, subject, status, detail, request_id } = entry;
    json!({
        "day": day, "seq": seq, "at": at, "actor": actor, "role": role, "tenant": tenant, "address": address, "action": action,
        "subject": subject, "status": status, "detail": serde_json::from_str::<Value>(detail).unwrap_or_default(),
        "detail_text": detail, "request_id": request_id, "prev": hex::of(prev), "hash": hex::of(hash),
    })
}

impl AuditHead {
    /// As it is exported: the line before the rows that follow it (`floor`) or behind those that it ends (`head`).
    pub fn exported(&self) -> Value {
        json!({"day": self.day, "seq": self.seq, "hash": hex::of(&self.hash)})
    }
}

/// What is wrong with a log, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tampered {
    /// The day.
    pub day: i32,
    /// The row.
    pub seq: i64,
    /// What does not fit.
    pub reason: String,
}

/// Follows rows, oldest first, and says which of them does not fit.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    last: Option<AuditHead>,
    rows: u64,
    /// Whether the first row that is looked at must be the first of all.
    is_whole: bool,
    /// The end of what was taken out before, until a row has told of it.
    untold: Option<AuditHead>,
}

impl Chain {
    /// Follows a whole log: its first row is the first of all. [`Chain::default`] takes the first row for what follows rows that
    /// are not here.
    pub fn from_the_beginning() -> Self {
        Self { is_whole: true, ..Self::default() }
    }

    /// Follows rows that come behind this one.
    pub fn behind(head: AuditHead) -> Self {
        Self { last: Some(head), ..Self::default() }
    }

    /// Follows a log whose beginning was taken out up to here. Its first row must follow that end, and one of its rows must say that it was
    /// taken out: who cuts a log off and calls that retention is found out.
    pub fn from_the_floor(floor: AuditHead) -> Self {
        Self { untold: Some(floor), ..Self::behind(floor) }
    }

    /// Rows that fitted so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The last of them.
    pub fn last(&self) -> Option<AuditHead> {
        self.last
    }

    /// Looks at the next row.
    pub fn follow(&mut self, row: &AuditRow) -> Result<(), Tampered> {
        let AuditRow { day, seq, entry, prev, hash } = row;
        let wrong = |reason: String| Err(Tampered { day: *day, seq: *seq, reason });
        if hash_of(*day, *seq, prev, entry) != *hash {
            return wrong("its hash is not that of what it says: it was changed".into());
        }
        if let Some(last) = self.last {
            let follows = if *day == last.day { *seq == last.seq + 1 } else { *day > last.day && *seq == 1 };
            if !follows {
                return wrong(format!(
                    "it follows row {} of day {}: rows between them are missing",
                    last.seq, last.day
                ));
            }
            if *prev != last.hash {
                let reason =
                    "it does not follow the row before it: that one was changed, or rows between were taken out";
                return wrong(reason.into());
            }
        }
        if self.last.is_none() && self.is_whole && (*seq, *prev) != (1, [0; 32]) {
            return wrong("it is not the first row of all, and those before it are missing".into());
        }
        self.last = Some(AuditHead { day: *day, seq: *seq, hash: *hash });
        self.rows += 1;
        if let Some(floor) = self.untold
            && entry.action == FORGOTTEN
            && entry.detail.contains(&hex::of(&floor.hash))
        {
            self.untold = None;
        }
        Ok(())
    }

    /// Compares the end of the rows with the end that the journal knows.
    pub fn end(&self, head: Option<AuditHead>) -> Result<(), Tampered> {
        if let Some(AuditHead { day, seq, .. }) = self.untold {
            let reason =
                "the rows up to it are not there, and no row says that they were taken out for their age".into();
            return Err(Tampered { day, seq, reason });
        }
        match (self.last, head) {
            (last, head) if last == head => Ok(()),
            (_, Some(head)) => Err(Tampered {
                day: head.day,
                seq: head.seq,
                reason: "it should be the last row and is not there: rows were taken off the end".into(),
            }),
            (Some(last), None) => Err(Tampered {
                day: last.day,
                seq: last.seq,
                reason: "the journal knows of no end: the heads were taken out".into(),
            }),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: usize) -> Vec<AuditEntry> {
        (0..count).map(|n| AuditEntry { subject: format!("/v1/queues/{n}"), ..AuditEntry::default() }).collect()
    }

    fn check(rows: &[AuditRow], head: AuditHead) -> Result<(), Tampered> {
        let mut chain = Chain::from_the_beginning();
        rows.iter().try_for_each(|row| chain.follow(row))?;
        chain.end(Some(head))
    }

    #[test]
    fn a_chain_goes_on_over_days_and_any_change_is_found() {
        let (first, head) = AuditHead::default().followed_by(&entries(3), Timestamp(5 * DAY_MS));
        let (second, head) = head.followed_by(&entries(2), Timestamp(6 * DAY_MS + 7));
        // A clock that is behind changes no day.
        let (third, head) = head.followed_by(&entries(1), Timestamp(5 * DAY_MS));
        let rows = [first, second, third].concat();
        let places: Vec<_> = rows.iter().map(|row| (row.day, row.seq)).collect();
        assert_eq!(places, [(5, 1), (5, 2), (5, 3), (6, 1), (6, 2), (6, 3)]);
        assert_eq!(check(&rows, head), Ok(()));

        let found = |change: &dyn Fn(&mut Vec<AuditRow>)| {
            let mut rows = rows.clone();
            change(&mut rows);
            check(&rows, head).map_err(|tampered| (tampered.day, tampered.seq))
        };
        assert_eq!(found(&|rows| rows[1].entry.status = 200), Err((5, 2)));
        assert_eq!(found(&|rows| rows[1].entry.actor = Some(String::new())), Err((5, 2)));
        assert_eq!(found(&|rows| drop(rows.remove(2))), Err((6, 1)), "the link to it is broken");
        assert_eq!(found(&|rows| drop(rows.remove(1))), Err((5, 3)));
        assert_eq!(found(&|rows| drop(rows.pop())), Err((6, 3)), "the end is missing");
        assert_eq!(found(&|rows| drop(rows.remove(0))), Err((5, 2)), "the beginning is missing");
        assert_eq!(found(&|rows| drop(rows.drain(..3))), Err((6, 1)), "so is a whole day");
        let mut part = Chain::default();
        rows[3..].iter().try_for_each(|row| part.follow(row)).unwrap();
        assert_eq!(found(&|rows| rows.swap(0, 1)), Err((5, 2)));
        // A beginning that was taken out is one that a later row tells of.
        let floor = AuditHead { day: 5, seq: 3, hash: rows[2].hash };
        let from_the_floor = |rows: &[AuditRow], head: AuditHead| {
            let mut chain = Chain::from_the_floor(floor);
            rows.iter().try_for_each(|row| chain.follow(row))?;
            chain.end(Some(head))
        };
        assert_eq!(from_the_floor(&rows[3..], head).unwrap_err().seq, 3, "nobody has said so");
        let told = AuditEntry { action: FORGOTTEN.into(), detail: hex::of(&floor.hash), ..AuditEntry::default() };
        let (last, end) = head.followed_by(&[told], Timestamp(6 * DAY_MS));
        assert_eq!(from_the_floor(&[&rows[3..], &last[..]].concat(), end), Ok(()));
        assert!(from_the_floor(&[&rows[4..], &last[..]].concat(), end).is_err(), "more than that is missing");
        // Whoever changes a row and hashes it anew has to change all that follow.
        let forged = |rows: &mut Vec<AuditRow>| {
            rows[3].entry.status = 418;
            rows[3].hash = hash_of(rows[3].day, rows[3].seq, &rows[3].prev, &rows[3].entry);
        };
        assert_eq!(found(&forged), Err((6, 2)));
    }
}
