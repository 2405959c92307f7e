//! Where the journal is, and how many connections of which kind it holds.

use std::{fmt, time::Duration};

/// The keys of a Postgres journal. The defaults suit one process of a small fleet.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=…`. Holds a password: it is never
    /// shown.
    pub url: String,
    /// Most connections of this process. 16: the writers' own, and some for readers. The sum over all processes must
    /// stay below the server's `max_connections`.
    pub pool_size: u32,
    /// Longest wait for a free or new connection. 5 s: shorter than a caller's patience, longer than a failover's blink.
    pub acquire_timeout: Duration,
    /// A connection that nobody has used for so long is closed. 10 min.
    pub idle_timeout: Duration,
    /// A connection is replaced at this age, so that a fleet spreads itself over a new address. 30 min.
    pub recycle: Duration,
    /// Longest time of one statement. 30 s.
    pub statement_timeout: Duration,
    /// Longest wait for another transaction's row. 10 s; less than `statement_timeout`, so that the error says why.
    pub lock_timeout: Duration,
    /// Committers for accepts, and as many for settles. 2: one writes while the other's commit is on its way to the disk.
    pub writers: usize,
}

impl PostgresConfig {
    /// The defaults, for the database at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            pool_size: 16,
            acquire_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(600),
            recycle: Duration::from_secs(1_800),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
            writers: 2,
        }
    }
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("pool_size", &self.pool_size)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("recycle", &self.recycle)
            .field("statement_timeout", &self.statement_timeout)
            .field("lock_timeout", &self.lock_timeout)
            .field("writers", &self.writers)
            .finish_non_exhaustive()
    }
}
