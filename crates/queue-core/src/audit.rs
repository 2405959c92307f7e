//! The audit log: what was done by whom, in a chain of hashes that shows whether somebody has changed it since.
//!
//! Each row carries the hash of the one before it and its own, over all that it says. Rows are numbered within a UTC day; the
//! first of a day follows the last of the day before. The journal only ever adds rows; who can write past it can still change
//! one, and then neither its own hash nor the next row's fits any more. [`Chain`] is what finds that out, with nothing but rows.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
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
}

impl Chain {
    /// Follows a whole log: its first row is the first of all. [`Chain::default`] takes the first row for what follows rows that
    /// are not here.
    pub fn from_the_beginning() -> Self {
        Self { is_whole: true, ..Self::default() }
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
        Ok(())
    }

    /// Compares the end of the rows with the end that the journal knows.
    pub fn end(&self, head: Option<AuditHead>) -> Result<(), Tampered> {
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
        // Whoever changes a row and hashes it anew has to change all that follow.
        let forged = |rows: &mut Vec<AuditRow>| {
            rows[3].entry.status = 418;
            rows[3].hash = hash_of(rows[3].day, rows[3].seq, &rows[3].prev, &rows[3].entry);
        };
        assert_eq!(found(&forged), Err((6, 2)));
    }
}
