//! Backups: the journal, the objects and the configuration outside of the installation, and the way back.
//!
//! A backup is a folder of *parts* in an object store, each compressed and then encrypted with age to at least two recipients, and a
//! manifest that says what is in them. The manifest is written last, after every part was read back: **a backup without a manifest
//! is none**, so whoever dies in between leaves files that nothing names, and never a backup that is marked good. What the journal
//! knows of backups (its table) is a record for people; after a disaster there is no table, and the manifests are the truth.
//!
//! A restore goes into an empty database only. What it leaves takes no job, starts none and sends no webhook until an operator
//! confirms it (the end of maintenance), lives in a new life of journal and dispatcher, and has the erase log replayed.

mod copy;
mod create;
mod known;
mod manifest;
mod objects;
mod pace;
mod place;
mod prune;
mod record;
mod restore;
mod seal;
mod source;
#[cfg(test)]
mod tests;
mod verify;

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::{
    copy::copy,
    create::{NewBackup, create},
    known::{Found, Known, find, found},
    manifest::{
        AuditEnd, Cause, Content, DatabaseFacts, ErasuresFacts, Manifest, ObjectsFacts, Part, Scope, StoreKind,
        TableFacts, Verified,
    },
    place::{Place, PlaceError},
    prune::{Keep, Prune},
    record::{ATTEMPTS_MAX, BACKUPS_PAGE_MAX, BackupRow, Backups, Check, Progress, Record, WORK_MAX, Work},
    restore::{Restored, Restoring, erasures_of, is_unfinished, restore},
    seal::{Identities, Recipients},
    source::Source,
    verify::{Verdict, examine, mark, verify},
};
use crate::{
    archive::Objects,
    time::{Clock, Timestamp},
};

/// A backup: UUIDv7, so ids sort by when they were ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackupId(pub Uuid);

impl BackupId {
    /// A fresh id.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// When it was made, as it tells itself.
    fn made_at(self) -> Option<Timestamp> {
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        Some(Timestamp(i64::try_from(seconds).ok()?.saturating_mul(1_000).saturating_add(i64::from(nanos) / 1_000_000)))
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for BackupId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// Why something was not done with a backup. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// It must not be done like this: trying again does not help.
    #[error("{0}")]
    Refused(String),
    /// There is no such backup that is good.
    #[error("there is no good backup {0} there; `longshore backup list` shows those that there are")]
    NotFound(BackupId),
    /// A store, a place or a program failed: try again later.
    #[error("{0}")]
    Failed(String),
    /// A part of the backup is not what was written, or does not open.
    #[error("{part}: {reason}")]
    Damaged {
        /// The part's name; `manifest.json` for the manifest.
        part: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl BackupError {
    fn damaged(part: &str, reason: impl Into<String>) -> Self {
        Self::Damaged { part: part.to_owned(), reason: reason.into() }
    }
}

impl From<PlaceError> for BackupError {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Refused { .. } => Self::Refused(error.to_string()),
            PlaceError::Failed { .. } | PlaceError::Missing { .. } => Self::Failed(error.to_string()),
        }
    }
}

/// All that making and checking backups works with.
#[derive(Clone)]
pub struct Setup {
    /// Where backups go.
    pub place: Place,
    /// Where each of them goes, too.
    pub offsite: Option<Place>,
    /// To whom they are encrypted.
    pub recipients: Arc<Recipients>,
    /// What opens them again. Without it, what is read back is compared and not opened.
    pub identities: Option<Arc<Identities>>,
    /// The journal.
    pub source: Source,
    /// Where archives are; `None`: nowhere.
    pub objects: Option<Objects>,
    /// The configuration in effect, without secrets.
    pub config: serde_json::Value,
    /// A folder for files that are needed meanwhile: a copy of a SQLite journal is as large as the journal.
    pub scratch: PathBuf,
    /// Now.
    pub clock: Arc<dyn Clock>,
}
