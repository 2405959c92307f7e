//! Archives: dead letters outside of the journal, as compressed objects, and the way back.
//!
//! An operation that archives writes an object for each tenant of a step, reads it back, and only then takes the letters out of the
//! journal, in the transaction that also notes the object and its checksum. Whoever dies in between leaves an object that nothing
//! names: it is no part of any archive, and its letters are where they were. No object is ever written twice under one name, so
//! a walker that was only slow cannot change what another has committed.

mod letter;
mod objects;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use self::{
    letter::{Body, Kept, Letter, Past, Sums},
    objects::{OBJECT_MAX_LETTERS, Objects, ObjectsError, manifest_of},
};
use crate::{
    ids::{JobId, Name, OperationId},
    journal::JournalError,
    ledger::Nanousd,
    operations::Pick,
    time::Timestamp,
};

/// What one operation has archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// The operation's id.
    pub id: OperationId,
    /// Which letters it meant, with moments where it said ages.
    pub filter: String,
    /// Why.
    pub reason: Option<String>,
    /// The public part of the key that asked.
    pub asked_by: Name,
    /// When it was asked for.
    pub began_at: Timestamp,
    /// How many objects there are.
    pub objects: u64,
    /// How many letters are in them.
    pub letters: u64,
    /// Their size as they are kept.
    pub bytes: u64,
    /// What was spent on the letters, as far as prices are known. It is still in the ledger.
    pub cost: Nanousd,
}

/// An object of an archive as the journal knows it: letters of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveObject {
    /// Where it is, below the place of all objects.
    pub path: String,
    /// Whose letters.
    pub tenant: Name,
    /// Of the object as it is kept.
    #[serde(with = "crate::hex::sha256")]
    pub sha256: [u8; 32],
    /// Its size as it is kept.
    pub bytes: u64,
    /// How many letters are in it.
    pub letters: u64,
    /// Calls that were recorded for them when they were read: a call that came later changes this, and they are read again.
    pub calls: u64,
    /// What was spent on them, as far as prices are known.
    pub cost_nanousd: Nanousd,
    /// When the first of them had died.
    pub first_ended_at: Timestamp,
    /// When the last of them had died.
    pub last_ended_at: Timestamp,
    /// Whether they were put back since: what became of them then is not here. Manifests say nothing of it.
    #[serde(skip)]
    pub restored: bool,
}

/// Letters on their way back.
#[derive(Clone, Debug)]
pub struct Restore {
    /// Out of this archive.
    pub archive: OperationId,
    /// Out of this object of it.
    pub path: String,
    /// All that are in it.
    pub letters: Vec<Letter>,
}

/// Archives as the journal keeps them; what an operation's step archives is [`Operations::step`](crate::operations::Operations::step).
#[async_trait]
pub trait Archives: Send + Sync {
    /// Everything that is kept of those picks that are dead at their epoch. At most [`OBJECT_MAX_LETTERS`]. Writes nothing.
    async fn letters(&self, picks: &[Pick]) -> Result<Vec<Letter>, JournalError>;

    /// The archive of this operation.
    async fn archive(&self, id: OperationId) -> Result<Option<Archive>, JournalError>;

    /// At most `limit` archives, newest first, from behind this one on.
    async fn archives(&self, behind: Option<OperationId>, limit: usize) -> Result<Vec<Archive>, JournalError>;

    /// At most `limit` objects of an archive, by path, from behind this one on.
    async fn objects_of(
        &self,
        id: OperationId,
        behind: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ArchiveObject>, JournalError>;

    /// Puts the letters of an object back as they were, all of them or none, and returns which: a job that is there, however it
    /// stands, is left alone. Each object is put back once: a letter that has lived, paid and been archived again since must not
    /// come back as it was before. So asking again does nothing more, whatever became of the first answer.
    async fn restore(&self, restore: Restore) -> Result<Vec<JobId>, JournalError>;
}
