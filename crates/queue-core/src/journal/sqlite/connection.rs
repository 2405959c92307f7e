//! Connections to the file: their settings, the migrations, and what SQLite's errors mean to a caller.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::sql::read;
use crate::{ids::Incarnation, journal::JournalError};

/// The schema, one file a version; a file that was released never changes.
pub const MIGRATIONS: &[&str] = &[
    include_str!("../../../../../migrations/sqlite/0001_jobs.sql"),
    include_str!("../../../../../migrations/sqlite/0002_money.sql"),
    include_str!("../../../../../migrations/sqlite/0003_catalog.sql"),
    include_str!("../../../../../migrations/sqlite/0004_cancel_reason.sql"),
    include_str!("../../../../../migrations/sqlite/0005_concurrency_key.sql"),
    include_str!("../../../../../migrations/sqlite/0006_costs.sql"),
    include_str!("../../../../../migrations/sqlite/0007_targets.sql"),
    include_str!("../../../../../migrations/sqlite/0008_budgets.sql"),
    include_str!("../../../../../migrations/sqlite/0009_credentials.sql"),
    include_str!("../../../../../migrations/sqlite/0010_limits.sql"),
    include_str!("../../../../../migrations/sqlite/0011_orders.sql"),
    include_str!("../../../../../migrations/sqlite/0012_keys.sql"),
    include_str!("../../../../../migrations/sqlite/0013_operations.sql"),
    include_str!("../../../../../migrations/sqlite/0014_webhooks.sql"),
    include_str!("../../../../../migrations/sqlite/0015_audit.sql"),
    include_str!("../../../../../migrations/sqlite/0016_tokens.sql"),
    include_str!("../../../../../migrations/sqlite/0017_draining.sql"),
    include_str!("../../../../../migrations/sqlite/0018_request_limits.sql"),
    include_str!("../../../../../migrations/sqlite/0019_archives.sql"),
    include_str!("../../../../../migrations/sqlite/0020_erasures.sql"),
    include_str!("../../../../../migrations/sqlite/0021_schedules.sql"),
    include_str!("../../../../../migrations/sqlite/0022_retention.sql"),
    include_str!("../../../../../migrations/sqlite/0023_backups.sql"),
    include_str!("../../../../../migrations/sqlite/0024_log_level.sql"),
    include_str!("../../../../../migrations/sqlite/0025_deaths.sql"),
];

/// Tells a journal from any other SQLite file: `LSHO`.
const APPLICATION_ID: i64 = 0x4c53_484f;

/// How long a connection waits for another process (a backup, a shell) that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a page: holds a 1 KB payload with its neighbours.
const PAGE_BYTES: i64 = 4_096;

/// Page cache of the writer, in KiB: the ends of the tables and the hot part of the indexes.
const WRITER_CACHE_KIB: i64 = 8_192;

/// Page cache of each reader, in KiB: there are a few of them, and the system caches the file too.
const READER_CACHE_KIB: i64 = 1_024;

/// Pages in the WAL from which a commit moves them into the file. A larger number writes a page that changes often
/// fewer times, and makes the commit that pays for it longer.
const CHECKPOINT_PAGES: i64 = 4_000;

/// The WAL is cut to this size after it was moved, in bytes: a burst must not keep its disk space for ever.
const WAL_KEEP_BYTES: i64 = 64 * 1024 * 1024;

/// Prepared statements that a connection keeps: all that there are.
pub(super) const STATEMENTS_MAX: usize = 256;

/// Opens the connection that writes, and brings the schema up to this version.
pub(super) fn open_writer(path: &Path) -> Result<Connection, JournalError> {
    let mut connection = Connection::open(path).map_err(translate)?;
    configure_writer(&connection).map_err(translate)?;
    migrate(&mut connection)?;
    Ok(connection)
}

fn configure_writer(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    // Heard only by a file that is new: pages that nothing is in can go back to the disk.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEEP_BYTES)
}

/// Opens a connection that only reads; the writer has created the file before.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(connection)
}

/// Applies what is missing, all of it or nothing.
fn migrate(connection: &mut Connection) -> Result<(), JournalError> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(translate)?;
    let number = |name: &str| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(translate);
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(translate)?;
    if application != APPLICATION_ID && (application != 0 || version != 0 || tables != 0) {
        return Err(JournalError::Corrupt("the file is an SQLite database, but not a journal of Longshore".into()));
    }
    let known = MIGRATIONS.len();
    let applied = usize::try_from(version).unwrap_or(usize::MAX);
    let Some(missing) = MIGRATIONS.get(applied..) else {
        return Err(JournalError::Corrupt(format!(
            "its schema has version {version}, and this program knows versions up to {known}; use a newer program"
        )));
    };
    for migration in missing {
        transaction.execute_batch(migration).map_err(translate)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(translate)?;
    transaction.pragma_update(None, "user_version", known as i64).map_err(translate)?;
    transaction.commit().map_err(translate)
}

/// The version of the journal's schema at `path`: how many of [`MIGRATIONS`] it has. `None` where there is no file.
/// Writes nothing.
pub fn schema_version(path: &Path) -> Result<Option<usize>, JournalError> {
    if !path.exists() {
        return Ok(None);
    }
    let connection = open_reader(path).map_err(translate)?;
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(translate);
    let (application, version) = (number("application_id")?, number("user_version")?);
    match usize::try_from(version) {
        Ok(version) if application == APPLICATION_ID => Ok(Some(version)),
        Ok(0) if application == 0 => Ok(Some(0)),
        _ => Err(JournalError::Corrupt("the file is not a journal of Longshore".into())),
    }
}

/// The journal's life, as the file holds it.
pub(super) fn incarnation(connection: &Connection) -> rusqlite::Result<Incarnation> {
    connection.query_row(read::INCARNATION, [], |row| row.get(0)).map(Incarnation)
}

/// What stands in the way of any write, in words; `None` where the request itself is at fault.
pub(super) fn obstacle(error: &rusqlite::Error) -> Option<&'static str> {
    Some(match error.sqlite_error_code()? {
        ErrorCode::DiskFull => "the disk is full",
        ErrorCode::ReadOnly => "the database file or its folder is read-only",
        ErrorCode::SystemIoFailure => "the disk reports an input/output error",
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => "another process holds the database",
        ErrorCode::CannotOpen => "the database file cannot be opened",
        ErrorCode::PermissionDenied => "access to the database file is denied",
        ErrorCode::OutOfMemory => "there is no memory left",
        ErrorCode::FileLockingProtocolFailed => "the file system's locks do not work",
        _ => return None,
    })
}

/// The caller's error.
pub(super) fn translate(error: rusqlite::Error) -> JournalError {
    match obstacle(&error) {
        Some(reason) => JournalError::Unavailable(format!("{reason} ({error})")),
        None => JournalError::Corrupt(error.to_string()),
    }
}
