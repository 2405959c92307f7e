//! Where the truth and the order of work are.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use queue_core::cache::Scope;
use secrecy::{ExposeSecret, SecretString};

use worker::caches::VECTORS_TTL;

use super::file::{self, CacheScope, DispatcherTable, JournalTable, Store};

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

/// Where answers are kept for others.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    /// A Redis that may evict; `None`: each process for itself.
    pub(crate) url: Option<SecretString>,
    /// Bytes that a process holds, where there is no Redis.
    pub(crate) memory_max_bytes: usize,
    /// Who finds them.
    pub(crate) scope: Scope,
    /// How long vectors are kept; `None`: they are not.
    pub(crate) vectors_ttl: Option<Duration>,
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

/// Memory of a process for cached answers: some 10,000 vectors of 1,536 numbers.
const CACHE_MEMORY_DEFAULT_MIB: u64 = 64;
/// Most of it: a larger cache is a Redis.
const CACHE_MEMORY_MAX_MIB: u64 = 64 * 1024;
/// Longest time for which a vector is kept.
const VECTORS_TTL_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

/// `url` is from the environment, and goes over the file's. A cache evicts, and a dispatcher's Redis must not: so it is never
/// used for both.
pub(crate) fn cache(url: Option<String>, file: file::Cache, dispatcher: &Dispatcher) -> Result<Cache, String> {
    let url = url.or(file.url);
    if let Some(url) = &url {
        if !url.starts_with("redis") || !url.contains("://") {
            return Err("cache.url is `redis://…`; without it each process has a cache of its own".to_owned());
        }
        let same = |redis: &Redis| redis.url.expose_secret() == url;
        if matches!(dispatcher, Dispatcher::Redis(redis) if same(redis)) {
            return Err("cache.url is the dispatcher's Redis, which must not evict: name one that may".to_owned());
        }
    }
    let memory_mib = file.memory_mib.unwrap_or(CACHE_MEMORY_DEFAULT_MIB);
    if memory_mib > CACHE_MEMORY_MAX_MIB {
        return Err(format!("cache.memory_mib is {memory_mib}; it is at most {CACHE_MEMORY_MAX_MIB}"));
    }
    let vectors_ttl = file.vectors_ttl.map_or(VECTORS_TTL, |ttl| ttl.0);
    if vectors_ttl > VECTORS_TTL_MAX {
        return Err(format!("cache.vectors_ttl is {vectors_ttl:?}; it is at most {VECTORS_TTL_MAX:?}"));
    }
    Ok(Cache {
        url: url.map(SecretString::from),
        memory_max_bytes: usize::try_from(memory_mib * 1024 * 1024).unwrap_or(usize::MAX),
        scope: match file.scope {
            Some(CacheScope::Global) => Scope::Global,
            Some(CacheScope::Tenant) | None => Scope::Tenant,
        },
        vectors_ttl: (!vectors_ttl.is_zero()).then_some(vectors_ttl),
    })
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
