//! Backups as the journal knows them: what was ordered, who works, and what became of it. A record for people, and an order that
//! outlives whoever gave it; what is good is decided by the manifest alone.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{BackupId, Cause, Scope};
use crate::{ids::Name, journal::JournalError, time::Timestamp};

/// Rows that are looked at for work at once: one is worked on at a time.
pub const WORK_MAX: usize = 16;
/// Most rows of one page.
pub const BACKUPS_PAGE_MAX: usize = 501;
/// How often a backup, or a check of one, is begun before it is given up: whoever was at it fell silent, or failed.
pub const ATTEMPTS_MAX: u32 = 3;

/// What is still to be done with a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    Nothing,
    /// It is to be made.
    Make,
    /// It is to be checked.
    Check,
}

impl Work {
    /// As the journal keeps it.
    pub fn number(self) -> i16 {
        match self {
            Self::Nothing => 0,
            Self::Make => 1,
            Self::Check => 2,
        }
    }

    /// What this number says.
    pub fn of(number: i16) -> Option<Self> {
        [Self::Nothing, Self::Make, Self::Check].into_iter().find(|work| work.number() == number)
    }
}

/// How something that was ordered stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// Nobody has begun it.
    Ordered,
    /// Somebody is at it.
    Running,
    /// It was done, and all is well.
    Good,
    /// It was not done, or not all is well; the error says why.
    Failed,
}

/// A check of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Whether it is restored and tried, too: a drill.
    pub restores: bool,
    /// How it stands.
    pub state: Progress,
    /// How often it was begun.
    #[serde(default)]
    pub attempts: u32,
    /// When it was ordered.
    pub ordered_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Whether the parts were opened; else only their hashes were compared.
    #[serde(default)]
    pub opened: bool,
    /// Why it failed; each damaged part by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Of a drill: until the restored system had drained its jobs, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_ms: Option<i64>,
    /// Of a drill: how old what it brought back was, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_ms: Option<i64>,
}

/// What a backup is and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What is backed up.
    pub scope: Scope,
    /// Why.
    pub cause: Cause,
    /// In somebody's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The public part of the key that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<Name>,
    /// How it stands.
    pub state: Progress,
    /// How often it was begun.
    pub attempts: u32,
    /// What is to be done is not begun before: it has failed, and is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Where it lies, under its attempt's own id: what a slow maker still writes is never mistaken for what its follower wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place_id: Option<BackupId>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Its size as it lies there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why the second place has no copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offsite_error: Option<String>,
    /// The last check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// When nothing kept it any more: it was good, and is deleted. Not a state, which a scheduler of an earlier version could not
    /// read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
}

impl Record {
    /// An order.
    pub fn order(scope: Scope, cause: Cause, reason: Option<String>, asked_by: Option<Name>) -> Self {
        Self {
            scope,
            cause,
            reason,
            asked_by,
            state: Progress::Ordered,
            attempts: 0,
            not_before: None,
            place_id: None,
            finished_at: None,
            bytes: None,
            error: None,
            offsite_error: None,
            check: None,
            deleted_at: None,
        }
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupRow {
    /// The order.
    pub id: BackupId,
    /// When it was given.
    pub ordered_at: Timestamp,
    /// What is still to be done.
    pub work: Work,
    /// Grows with every change.
    pub beat: i64,
    /// What it is and what became of it.
    pub record: Record,
}

impl BackupRow {
    /// A fresh order.
    pub fn order(id: BackupId, record: Record, now: Timestamp) -> Self {
        Self { id, ordered_at: now, work: Work::Make, beat: 0, record }
    }

    /// The row once a check of its backup is ordered; with a restore, a drill.
    pub fn check_ordered(mut self, restores: bool, now: Timestamp) -> Self {
        self.work = Work::Check;
        self.record.check = Some(Check {
            restores,
            state: Progress::Ordered,
            attempts: 0,
            ordered_at: now,
            finished_at: None,
            opened: false,
            error: None,
            recovery_ms: None,
            lost_ms: None,
        });
        self
    }
}

/// The journal's record of backups. Each write is one commit.
#[async_trait]
pub trait Backups: Send + Sync {
    /// Keeps an order; `false` if one of this id is there, which stays as it is. So whoever gets no answer asks again, and of
    /// schedulers that order the same day's backup one does.
    async fn order_backup(&self, row: BackupRow) -> Result<bool, JournalError>;

    /// At most `limit` rows, newest first, from behind this one on.
    async fn backups(
        &self,
        behind: Option<(Timestamp, BackupId)>,
        limit: usize,
    ) -> Result<Vec<BackupRow>, JournalError>;

    /// One row.
    async fn backup(&self, id: BackupId) -> Result<Option<BackupRow>, JournalError>;

    /// Rows with something to do, oldest first, at most [`WORK_MAX`].
    async fn backup_work(&self) -> Result<Vec<BackupRow>, JournalError>;

    /// Changes a row at the beat that was seen, and raises it; `false`: somebody else has changed it since. A repeat after an
    /// answer that was lost finds another beat, and its caller looks again.
    async fn change_backup(&self, row: BackupRow) -> Result<bool, JournalError>;

    /// Forgets rows that were ordered before this, and have nothing to do; how many.
    async fn forget_backups(&self, before: Timestamp) -> Result<u64, JournalError>;
}
