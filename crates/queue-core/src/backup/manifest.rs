//! What a manifest says.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{BackupError, BackupId};
use crate::{hex, time::Timestamp};

/// The manifest's name, beside the parts.
pub(super) const MANIFEST: &str = "manifest.json";
/// What a verification leaves beside the manifest.
pub(super) const VERIFIED: &str = "verified.json";
/// The form of manifests that are written.
pub(super) const FORM: u32 = 1;

/// What is backed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The journal.
    Database,
    /// Archived dead letters.
    Objects,
    /// The configuration in effect, without secrets.
    Config,
    /// All of these.
    Full,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Database, Self::Objects, Self::Config, Self::Full];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Objects => "objects",
            Self::Config => "config",
            Self::Full => "full",
        }
    }

    /// The scope that this word means.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }

    /// Whether the journal is in it.
    pub fn has_database(self) -> bool {
        matches!(self, Self::Database | Self::Full)
    }

    /// Whether archives are in it.
    pub fn has_objects(self) -> bool {
        matches!(self, Self::Objects | Self::Full)
    }

    /// Whether the configuration is in it.
    pub fn has_config(self) -> bool {
        matches!(self, Self::Config | Self::Full)
    }
}

/// Why a backup was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Somebody asked for it.
    Asked,
    /// Its time had come.
    Schedule,
    /// A migration follows.
    Migration,
}

impl Cause {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Schedule => "schedule",
            Self::Migration => "migration",
        }
    }
}

/// What is in a part, once it is decrypted and decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// `pg_dump --format=custom`.
    PostgresDump,
    /// An SQLite file.
    SqliteFile,
    /// The erase log: an object a line.
    Erasures,
    /// A tar of the objects, whose last file is `index.json`.
    ObjectsTar,
    /// JSON.
    Config,
}

/// A part of a backup: a file beside the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub content: Content,
    /// Its size as it lies there.
    pub bytes: u64,
    /// Its size before it was compressed and encrypted.
    pub plain_bytes: u64,
    /// Of it as it lies there, in hexadecimal digits.
    pub sha256: String,
}

/// Which store a database was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// One file.
    Sqlite,
    /// A server.
    Postgres,
}

impl StoreKind {
    /// As people call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "Postgres",
        }
    }
}

/// A table at the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableFacts {
    /// How many rows.
    pub rows: u64,
    /// A sum over a hash of each row, whatever their order.
    pub sum: String,
}

/// The end of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditEnd {
    /// The UTC day, counted from 1970.
    pub day: i32,
    /// The number of its last row.
    pub seq: i64,
    /// That row's hash, in hexadecimal digits.
    pub hash: String,
}

/// How far the erase log goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasuresFacts {
    /// Tenants in it.
    pub tenants: u64,
    /// When the last of them was ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<Timestamp>,
}

/// The journal at the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseFacts {
    /// Which store.
    pub store: StoreKind,
    /// The schema's version.
    pub schema: u64,
    /// How the sums of tables are made.
    pub sums: String,
    /// Every table of the journal.
    pub tables: BTreeMap<String, TableFacts>,
    /// The end of the audit log; `None` where it has no rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_head: Option<AuditEnd>,
    /// How far the erase log goes.
    pub erasures: ErasuresFacts,
    /// The journal's life.
    pub incarnation: i64,
    /// The dispatcher's life.
    pub generation: i64,
    /// Jobs that may still run: after a restore they run again.
    pub live_jobs: u64,
}

/// The objects that were copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectsFacts {
    /// How many.
    pub objects: u64,
    /// Their size.
    pub bytes: u64,
}

/// What a backup is. Its being there says that every part was read back and is what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The form of this manifest.
    pub form: u32,
    /// The backup.
    pub id: BackupId,
    /// What it has.
    pub scope: Scope,
    /// Why it was made.
    pub cause: Cause,
    /// In somebody's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was begun.
    pub began_at: Timestamp,
    /// The moment that it shows.
    pub snapshot_at: Timestamp,
    /// When it had been read back.
    pub finished_at: Timestamp,
    /// Who can open it.
    pub recipients: Vec<String>,
    /// Whether it was opened when it was read back; else only its hashes were compared.
    pub opened: bool,
    /// The journal, where it is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseFacts>,
    /// The objects, where they are in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<ObjectsFacts>,
    /// Its parts.
    pub parts: Vec<Part>,
    /// What made it, with versions.
    pub tools: BTreeMap<String, String>,
}

/// A manifest as it lies there: with a hash of its own, so that a flipped byte shows.
#[derive(Deserialize)]
struct Sealed {
    sha256: String,
    manifest: Box<RawValue>,
}

impl Manifest {
    /// As it is kept.
    pub(super) fn to_bytes(&self) -> Result<Bytes, BackupError> {
        let text = serde_json::to_string(self).map_err(|error| BackupError::Failed(error.to_string()))?;
        let sha256 = hex::of(&Sha256::digest(text.as_bytes()));
        Ok(format!("{{\"sha256\":\"{sha256}\",\"manifest\":{text}}}\n").into())
    }

    /// A manifest of the backup `id`.
    pub(super) fn read(id: BackupId, bytes: &[u8]) -> Result<Self, BackupError> {
        let damaged = |reason: String| BackupError::damaged(MANIFEST, reason);
        let sealed: Sealed = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        let found = hex::of(&Sha256::digest(sealed.manifest.get().as_bytes()));
        if found != sealed.sha256 {
            return Err(damaged(format!("its SHA-256 is {found}, and {} was written", sealed.sha256)));
        }
        let manifest: Self = serde_json::from_str(sealed.manifest.get()).map_err(|error| damaged(error.to_string()))?;
        if manifest.form != FORM || manifest.id != id {
            return Err(damaged(format!("is of form {} and backup {}", manifest.form, manifest.id)));
        }
        Ok(manifest)
    }

    /// Its size as it lies there.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// The part with this content.
    pub(super) fn part(&self, contents: &[Content]) -> Option<&Part> {
        self.parts.iter().find(|part| contents.contains(&part.content))
    }
}

/// The last time that a backup was checked and found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verified {
    /// When.
    pub at: Timestamp,
    /// Whether it was opened, too; else only its hashes were compared.
    pub opened: bool,
    /// When it was last restored, compared and run: a drill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_at: Option<Timestamp>,
    /// Of that drill: how long it took from the first byte until the restored system had drained its jobs, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_ms: Option<i64>,
    /// Of that drill: how old what it brings back was at that time, in milliseconds: so much would have been lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_ms: Option<i64>,
}
