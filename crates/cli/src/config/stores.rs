//! Where the truth and the order of work are.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::SecretString;

use super::file::{DispatcherTable, JournalTable, Store};

/// Connections to Postgres that one process opens at most: a few commit, the others read.
const POOL_SIZE_DEFAULT: u32 = 16;
/// Longest wait for a free one.
const POOL_ACQUIRE_DEFAULT: Duration = Duration::from_secs(5);
/// Age at which one is closed and opened anew, so that a changed address or password takes hold.
const POOL_RECYCLE_DEFAULT: Duration = Duration::from_secs(30 * 60);
/// Longest run of one statement.
const STATEMENT_DEFAULT: Duration = Duration::from_secs(30);

/// Where the truth is.
#[derive(Clone, Debug)]
pub(crate) enum Journal {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A Postgres server.
    Postgres(Postgres),
}

/// How a Postgres server is used.
#[derive(Clone, Debug)]
pub(crate) struct Postgres {
    /// Its URL, which may hold a password.
    pub(crate) url: SecretString,
    /// Connections at most.
    pub(crate) pool_size: u32,
    /// Longest wait for a free one.
    pub(crate) pool_acquire_timeout: Duration,
    /// Oldest age of one.
    pub(crate) pool_recycle: Duration,
    /// Longest run of one statement.
    pub(crate) statement_timeout: Duration,
}

/// Where the order of work is.
#[derive(Clone, Debug)]
pub(crate) enum Dispatcher {
    /// This process.
    Memory,
    /// A Redis server.
    Redis(Redis),
}

impl Dispatcher {
    /// Whether other processes can use it too.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Redis(_))
    }
}

/// How a Redis server is used.
#[derive(Clone, Debug)]
pub(crate) struct Redis {
    /// Its URL, which may hold a password.
    pub(crate) url: SecretString,
    /// Go on with a Redis that may evict keys.
    pub(crate) allow_eviction: bool,
}

/// `url` is from a flag or the environment, and goes over the file's.
pub(crate) fn journal(url: Option<String>, file: Option<Store<JournalTable>>, data: &Path) -> Result<Journal, String> {
    let table = match file {
        Some(Store::Table(table)) => table,
        Some(Store::Url(url)) => JournalTable { url: Some(url), ..JournalTable::default() },
        None => JournalTable::default(),
    };
    let url = url.or(table.url);
    let postgres = |url: &str| Postgres {
        url: url.into(),
        pool_size: table.pool_size.unwrap_or(POOL_SIZE_DEFAULT),
        pool_acquire_timeout: table.pool_acquire_timeout.map_or(POOL_ACQUIRE_DEFAULT, |time| time.0),
        pool_recycle: table.pool_recycle.map_or(POOL_RECYCLE_DEFAULT, |time| time.0),
        statement_timeout: table.statement_timeout.map_or(STATEMENT_DEFAULT, |time| time.0),
    };
    let journal = match url.as_deref().map(|url| url.split_once(':').unwrap_or((url, ""))) {
        None => Journal::Sqlite(data.join("journal.db")),
        Some(("sqlite", path)) if !path.trim_start_matches("//").is_empty() => {
            Journal::Sqlite(path.strip_prefix("//").unwrap_or(path).into())
        }
        Some(("postgres" | "postgresql", _)) => Journal::Postgres(postgres(url.as_deref().unwrap_or_default())),
        // Without the text: a password may stand in it.
        Some(_) => return Err("journal is `sqlite:PATH` or `postgres://…`".to_owned()),
    };
    let pool_keys = [
        table.pool_size.is_some(),
        table.pool_acquire_timeout.is_some(),
        table.pool_recycle.is_some(),
        table.statement_timeout.is_some(),
    ];
    match &journal {
        Journal::Sqlite(_) if pool_keys.contains(&true) => {
            Err("journal.pool_… and journal.statement_timeout are for `postgres://…`".to_owned())
        }
        Journal::Postgres(Postgres { pool_size: 0 | 1, .. }) => {
            Err("journal.pool_size is at least 2: one connection commits while another reads".to_owned())
        }
        _ => Ok(journal),
    }
}

/// Likewise.
pub(crate) fn dispatcher(url: Option<String>, file: Option<Store<DispatcherTable>>) -> Result<Dispatcher, String> {
    let (of_file, allow_eviction) = match file {
        Some(Store::Table(table)) => (table.url, table.allow_eviction),
        Some(Store::Url(url)) => (Some(url), None),
        None => (None, None),
    };
    let url = url.or(of_file);
    match url.as_deref().map(|url| url.split_once(':').unwrap_or((url, "")).0) {
        None | Some("memory") if allow_eviction.is_some() => {
            Err("dispatcher.allow_eviction is for `redis://…`".to_owned())
        }
        None | Some("memory") => Ok(Dispatcher::Memory),
        Some(scheme) if scheme.starts_with("redis") => Ok(Dispatcher::Redis(Redis {
            url: url.unwrap_or_default().into(),
            allow_eviction: allow_eviction.unwrap_or(false),
        })),
        Some(_) => Err("dispatcher is `memory:` or `redis://…`".to_owned()),
    }
}
