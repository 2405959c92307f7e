//! From a URL to a journal: connections, their settings, and why there is none, in one line that says what to do.

use std::{str::FromStr, sync::Arc};

use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{config::PostgresConfig, migrations, partitions, rows::Cells, sql};
use crate::{
    journal::JournalError,
    time::{Clock, Timestamp},
};

/// The oldest server that the statements are written for, as `server_version_num` counts.
const SERVER_OLDEST: i32 = 140_000;

/// Unused for so long, a connection is asked whether it still works before it is handed out.
const PING_IDLE: std::time::Duration = std::time::Duration::from_secs(1);

/// Days whose partitions are there ahead of time: a week of nobody looking.
pub(super) const DAYS_AHEAD: i32 = 8;

/// Why there is no journal. Each is one line that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be read.
    #[error("the Postgres URL cannot be read ({reason}); write postgres://user:password@host:port/database")]
    Url {
        /// What is wrong with it; never the URL itself.
        reason: String,
    },
    /// Nobody answers.
    #[error("no Postgres answers at {address} ({reason}); start it, or correct the host and port of the URL")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the connection said.
        reason: String,
    },
    /// Wrong password, or a role that is not there or may not come from here.
    #[error("Postgres refuses the login ({reason}); correct the user and password of the URL, or pg_hba.conf")]
    Login {
        /// What Postgres said.
        reason: String,
    },
    /// There is no such database.
    #[error("Postgres has no such database ({reason}); create it (`createdb`), or correct the URL")]
    Database {
        /// What Postgres said.
        reason: String,
    },
    /// One side wants TLS and the other does not, or a certificate is not trusted.
    #[error("TLS with Postgres fails ({reason}); set sslmode and sslrootcert in the URL as the server needs them")]
    Tls {
        /// What failed.
        reason: String,
    },
    /// The server is older than the statements.
    #[error("Postgres {found} is too old; upgrade it to version 14 or newer")]
    ServerOld {
        /// Its version.
        found: String,
    },
    /// The database cannot keep every text.
    #[error("the database's encoding is {found}; create one with ENCODING 'UTF8'")]
    Encoding {
        /// Its encoding.
        found: String,
    },
    /// It is a standby, or told to read only.
    #[error("this Postgres only reads ({reason}); point the URL at the primary")]
    ReadOnly {
        /// How it shows.
        reason: String,
    },
    /// It is starting, stopping or full.
    #[error("Postgres takes no connection now ({reason}); wait until it is up, or raise max_connections")]
    NotNow {
        /// What Postgres said.
        reason: String,
    },
    /// The role lacks a right.
    #[error("the role of the URL lacks rights ({reason}); grant them, or use the role that ran the migrations")]
    Rights {
        /// Which.
        reason: String,
    },
    /// The schema is not there or older than this program can use.
    #[error(
        "the schema has version {found} and this program needs at least {oldest}; run `longshore migrate` before it"
    )]
    SchemaOld {
        /// The version found.
        found: usize,
        /// The oldest that will do.
        oldest: usize,
    },
    /// A newer program has migrated.
    #[error("the schema has version {found} and this program knows versions up to {newest}; use a newer program")]
    SchemaNew {
        /// The version found.
        found: usize,
        /// The newest that is known.
        newest: usize,
    },
    /// A migration that cannot be undone.
    #[error("the migration {step} cannot be undone; restore a backup from before it instead")]
    Irreversible {
        /// Its name.
        step: &'static str,
    },
    /// Anything else that Postgres said.
    #[error("Postgres cannot be used ({reason})")]
    Other {
        /// What it said.
        reason: String,
    },
}

impl From<OpenError> for JournalError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::SchemaOld { .. } | OpenError::SchemaNew { .. } => Self::Corrupt(error.to_string()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl OpenError {
    /// What an error of the driver means to whoever opens.
    pub(super) fn of(error: sqlx::Error) -> Self {
        let reason = one_line(&error.to_string());
        match &error {
            sqlx::Error::Configuration(_) => Self::Url { reason },
            sqlx::Error::Tls(_) => Self::Tls { reason },
            sqlx::Error::Io(_) => Self::Unreachable { address: "the URL's address".into(), reason },
            sqlx::Error::PoolTimedOut => Self::NotNow { reason },
            sqlx::Error::Database(said) => Self::of_code(&said.code().unwrap_or_default(), one_line(said.message())),
            _ => Self::Other { reason },
        }
    }

    fn of_code(code: &str, reason: String) -> Self {
        // "no pg_hba.conf entry for host …, no encryption": the server wants TLS for this role.
        let wants_tls = reason.contains("no encryption") || reason.contains("SSL off");
        match code {
            "28000" if wants_tls => Self::Tls { reason },
            "28000" | "28P01" => Self::Login { reason },
            "3D000" => Self::Database { reason },
            "42501" => Self::Rights { reason },
            "25006" => Self::ReadOnly { reason },
            "57P03" | "53300" => Self::NotNow { reason },
            _ => Self::Other { reason: format!("{reason}, SQLSTATE {code}") },
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The URL as the driver wants it.
fn options(config: &PostgresConfig) -> Result<PgConnectOptions, OpenError> {
    let options = PgConnectOptions::from_str(&config.url).map_err(OpenError::of)?;
    let options = options.application_name("longshore").statement_cache_capacity(sql::STATEMENTS_MAX);
    // Its log would repeat every statement; the journal logs what failed.
    Ok(options.disable_statement_logging())
}

/// One connection of its own, for migrations and looks: without the journal's limits on time.
pub async fn connect(config: &PostgresConfig) -> Result<PgConnection, OpenError> {
    let options = options(config)?;
    let address = format!("{}:{}", options.get_host(), options.get_port());
    let connecting = tokio::time::timeout(config.acquire_timeout, PgConnection::connect_with(&options));
    let mut connection = match connecting.await {
        Ok(Ok(connection)) => connection,
        Ok(Err(sqlx::Error::Io(error))) => {
            return Err(OpenError::Unreachable { address, reason: one_line(&error.to_string()) });
        }
        Ok(Err(error)) => return Err(OpenError::of(error)),
        Err(_) => return Err(OpenError::Unreachable { address, reason: "no answer in time".into() }),
    };
    check_server(&mut connection).await?;
    Ok(connection)
}

/// Whether the server is one that the journal can live on.
async fn check_server(connection: &mut PgConnection) -> Result<(), OpenError> {
    let row = sqlx::query(
        "SELECT current_setting('server_version_num')::integer, current_setting('server_version'),
                current_setting('server_encoding'), pg_is_in_recovery(),
                current_setting('transaction_read_only') = 'on'",
    )
    .fetch_one(connection)
    .await
    .map_err(OpenError::of)?;
    let mut cells = Cells::of(&row, 0);
    let mut read = || -> Result<_, sqlx::Error> {
        Ok(Server {
            number: cells.next()?,
            version: cells.next()?,
            encoding: cells.next()?,
            in_recovery: cells.next()?,
            read_only: cells.next()?,
        })
    };
    read().map_err(OpenError::of)?.judge()
}

/// What a server says of itself.
struct Server {
    number: i32,
    version: String,
    encoding: String,
    in_recovery: bool,
    read_only: bool,
}

impl Server {
    fn judge(self) -> Result<(), OpenError> {
        if self.number < SERVER_OLDEST {
            return Err(OpenError::ServerOld { found: self.version });
        }
        if self.encoding != "UTF8" {
            return Err(OpenError::Encoding { found: self.encoding });
        }
        if self.in_recovery {
            return Err(OpenError::ReadOnly { reason: "it is in recovery, a standby".into() });
        }
        if self.read_only {
            return Err(OpenError::ReadOnly { reason: "default_transaction_read_only is on".into() });
        }
        Ok(())
    }
}

/// The rights that every verb together needs, asked for before any of them runs.
async fn check_rights(connection: &mut PgConnection) -> Result<(), OpenError> {
    let missing: Vec<String> =
        sqlx::query_scalar(sql::MISSING_RIGHTS).fetch_all(connection).await.map_err(OpenError::of)?;
    if missing.is_empty() { Ok(()) } else { Err(OpenError::Rights { reason: format!("on {}", missing.join(", ")) }) }
}

/// Whether the second wall between tenants can be used, and does not stand in the journal's own way: its role sees every row.
///
/// # Errors
/// What is wrong, and what to do.
pub async fn check_wall(connection: &mut PgConnection) -> Result<(), OpenError> {
    let wrong: Option<String> =
        sqlx::query_scalar(sql::TENANT_WALL).fetch_one(connection).await.map_err(OpenError::of)?;
    wrong.map_or(Ok(()), |reason| Err(OpenError::Rights { reason }))
}

/// Whether a journal could be opened over this connection: schema, rights, and the wall between tenants. Returns the schema's
/// version and writes nothing.
pub async fn check(connection: &mut PgConnection) -> Result<usize, OpenError> {
    let version = migrations::schema_version(connection).await?;
    migrations::check_version(version)?;
    check_rights(connection).await?;
    check_wall(connection).await?;
    Ok(version)
}

/// What is known of a server that a journal can be opened on.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The schema's version.
    pub schema: usize,
    /// The server's version.
    pub version: String,
    /// Whether its disk keeps what it writes: `fsync` and `full_page_writes` are on.
    pub durable: bool,
    /// Its clock.
    pub now: Timestamp,
}

/// Everything that [`check`] looks at, and what the server says of itself.
///
/// # Errors
/// Those of [`check`].
pub async fn inspect(connection: &mut PgConnection) -> Result<Inspection, OpenError> {
    let schema = check(connection).await?;
    let row = sqlx::query(sql::INSPECTION).fetch_one(connection).await.map_err(OpenError::of)?;
    let mut cells = Cells::of(&row, 0);
    let mut read = || -> Result<_, sqlx::Error> {
        Ok(Inspection { schema, version: cells.next()?, durable: cells.next()?, now: Timestamp(cells.next()?) })
    };
    read().map_err(OpenError::of)
}

/// What a server does with its log once a segment of it is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archiving {
    /// Whether it is archived at all.
    pub is_on: bool,
    /// When that last worked.
    pub last_archived_at: Option<Timestamp>,
    /// When it last failed.
    pub last_failed_at: Option<Timestamp>,
}

/// Whether the server's log is archived, so that any moment can be restored.
///
/// # Errors
/// Of the connection.
pub async fn archiving(connection: &mut PgConnection) -> Result<Archiving, OpenError> {
    let row = sqlx::query(sql::ARCHIVING).fetch_one(connection).await.map_err(OpenError::of)?;
    let mut cells = Cells::of(&row, 0);
    let mut read = || -> Result<_, sqlx::Error> {
        Ok(Archiving {
            is_on: cells.next()?,
            last_archived_at: cells.time_if_any()?,
            last_failed_at: cells.time_if_any()?,
        })
    };
    read().map_err(OpenError::of)
}

/// Connections of a process to the journal.
pub(super) struct Pools {
    /// For everything that is not bound to a tenant.
    pub(super) own: PgPool,
    /// For callers of a tenant: row-level security binds them. None is open before the first such caller.
    pub(super) bound: PgPool,
    /// For whoever wants to know whether there can be any.
    pub(super) options: PgConnectOptions,
}

/// Connections for callers of a tenant, for each four of the others and at least two: people's questions, a few
/// milliseconds each.
const BOUND_SHARE: u32 = 4;

/// Opens the pools, once a single connection has shown that everything is as the journal needs it.
pub(super) async fn open_pools(config: &PostgresConfig, clock: &Arc<dyn Clock>) -> Result<(Pools, i64), OpenError> {
    let mut first = connect(config).await?;
    check(&mut first).await?;
    let incarnation = sqlx::query_scalar(sql::INCARNATION).fetch_one(&mut first).await.map_err(OpenError::of)?;
    partitions::create(&mut first, clock.now()).await.map_err(OpenError::of)?;
    // A connection that does not say goodbye is only slower to end.
    let _ = first.close().await;
    let own = pool(config, config.pool_size, false)?;
    let bound = pool(config, (config.pool_size / BOUND_SHARE).max(2), true)?;
    Ok((Pools { own, bound, options: options(config)? }, incarnation))
}

/// A pool whose connections open as they are needed.
fn pool(config: &PostgresConfig, size: u32, bound: bool) -> Result<PgPool, OpenError> {
    let limits = [config.statement_timeout, config.lock_timeout].map(|limit| limit.as_millis().to_string());
    let pool = PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(config.acquire_timeout)
        .idle_timeout(config.idle_timeout)
        .max_lifetime(config.recycle)
        .test_before_acquire(false)
        .before_acquire(|connection, seen| {
            Box::pin(async move {
                if seen.idle_for > PING_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |connection, _| {
            let [statement, lock] = limits.clone();
            Box::pin(async move {
                sqlx::query(sql::SESSION).bind(statement).bind(lock).execute(&mut *connection).await?;
                if bound {
                    sqlx::query(sql::TENANT_SESSION).execute(connection).await?;
                }
                Ok(())
            })
        })
        .connect_lazy_with(options(config)?);
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_refused_in_one_line() {
        let server = |number: i32, version: &str, encoding: &str| Server {
            number,
            version: version.into(),
            encoding: encoding.into(),
            in_recovery: false,
            read_only: false,
        };
        let refused = server(130_012, "13.12", "UTF8").judge().unwrap_err().to_string();
        assert_eq!(refused, "Postgres 13.12 is too old; upgrade it to version 14 or newer");
        assert_eq!(server(140_000, "14.0", "UTF8").judge(), Ok(()));
        assert!(matches!(server(150_000, "15.0", "LATIN1").judge(), Err(OpenError::Encoding { .. })));
    }

    #[test]
    fn a_server_that_wants_tls_is_told_from_a_wrong_password() {
        let said = "no pg_hba.conf entry for host \"10.0.0.1\", user \"u\", database \"d\", no encryption";
        assert!(matches!(OpenError::of_code("28000", said.into()), OpenError::Tls { .. }));
        assert!(matches!(OpenError::of_code("28P01", "wrong".into()), OpenError::Login { .. }));
    }
}
