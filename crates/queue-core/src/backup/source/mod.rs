//! The journal as backups see it: what it is at one moment, the stream of it, and the way back into an empty one.

mod postgres;
mod programs;
mod sqlite;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub(super) use self::{
    postgres::{Loading as PostgresLoading, make_roles as postgres_roles},
    sqlite::Loading as SqliteLoading,
};
use super::{
    BackupError,
    manifest::{Content, DatabaseFacts, StoreKind, TableFacts},
};
use crate::{erasure::Erasure, journal::postgres::PostgresConfig, time::Timestamp};

/// By how much a restore raises the dispatcher's life: more lives than any dispatcher begins between a backup and its restore, so
/// that one which outlived the journal notices that it knows another one.
pub(super) const GENERATIONS_AHEAD: i64 = 1_000;

/// Columns of `meta` that a restore changes: their values stand in the manifest, and not in the sum of the table.
const META_CHANGES: [&str; 9] = [
    "incarnation",
    "generation",
    "began_at",
    "fill_beat",
    "filled",
    "filled_run_at",
    "filled_id",
    "maintenance_since",
    "maintenance_reason",
];

/// A journal that is backed up, or restored into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This file.
    Sqlite(PathBuf),
    /// This database.
    Postgres(Box<PostgresConfig>),
}

impl Source {
    /// Which store it is.
    pub fn kind(&self) -> StoreKind {
        match self {
            Self::Sqlite(_) => StoreKind::Sqlite,
            Self::Postgres(_) => StoreKind::Postgres,
        }
    }

    /// The name of its part and what is in that.
    pub(super) fn part(&self) -> (&'static str, Content) {
        match self {
            Self::Sqlite(_) => ("database.sqlite.zst.age", Content::SqliteFile),
            Self::Postgres(_) => ("database.dump.zst.age", Content::PostgresDump),
        }
    }

    /// One moment of it, which stands for as long as the snapshot is kept.
    pub(super) async fn snapshot(&self, scratch: &Path) -> Result<Snapshot, BackupError> {
        match self {
            Self::Sqlite(path) => sqlite::Snapshot::take(path, scratch).await.map(Snapshot::Sqlite),
            Self::Postgres(config) => postgres::Snapshot::take(config).await.map(Box::new).map(Snapshot::Postgres),
        }
    }

    /// Refuses one that is not empty.
    pub(super) async fn check_empty(&self) -> Result<(), BackupError> {
        match self {
            Self::Sqlite(path) => sqlite::check_empty(path),
            Self::Postgres(config) => postgres::check_empty(config).await,
        }
    }

    /// Every table as it is now.
    pub(super) async fn tables(&self) -> Result<BTreeMap<String, TableFacts>, BackupError> {
        match self {
            Self::Sqlite(path) => sqlite::tables_of(path).await,
            Self::Postgres(config) => postgres::tables_of(config).await,
        }
    }

    /// Says why it is paused, once more.
    pub(super) async fn say(&self, reason: &str) -> Result<(), BackupError> {
        match self {
            Self::Sqlite(path) => sqlite::say(path, reason).await,
            Self::Postgres(config) => postgres::say(config, reason).await,
        }
    }

    /// Orders these erasures, and has the rows of all in the log looked for again; whether there is a log.
    pub(super) async fn erase(&self, log: &[Erasure], now: Timestamp) -> Result<bool, BackupError> {
        match self {
            Self::Sqlite(path) => sqlite::erase(path, log, now).await,
            Self::Postgres(config) => postgres::erase(config, log, now).await,
        }
    }
}

/// A journal at one moment.
pub(super) enum Snapshot {
    Sqlite(sqlite::Snapshot),
    Postgres(Box<postgres::Snapshot>),
}

impl Snapshot {
    /// What it is.
    pub(super) fn facts(&self) -> &DatabaseFacts {
        match self {
            Self::Sqlite(snapshot) => snapshot.facts(),
            Self::Postgres(snapshot) => snapshot.facts(),
        }
    }

    /// Its erase log.
    pub(super) fn erasures(&self) -> &[Erasure] {
        match self {
            Self::Sqlite(snapshot) => snapshot.erasures(),
            Self::Postgres(snapshot) => snapshot.erasures(),
        }
    }

    /// What makes the stream, with versions.
    pub(super) fn tools(&self) -> Vec<(String, String)> {
        match self {
            Self::Sqlite(_) => vec![("sqlite".to_owned(), rusqlite::version().to_owned())],
            Self::Postgres(snapshot) => snapshot.tools(),
        }
    }
}
