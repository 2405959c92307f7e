//! SQLite: its online backup of a snapshot that a read transaction of ours holds, and a file beside the final one on the way back.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, backup::StepResult, params, types::ValueRef};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::{GENERATIONS_AHEAD, META_CHANGES};
use crate::{
    backup::{
        BackupError,
        manifest::{AuditEnd, DatabaseFacts, ErasuresFacts, StoreKind, TableFacts},
    },
    erasure::Erasure,
    hex,
    ids::Name,
    time::Timestamp,
};

macro_rules! text {
    ($file:literal) => {
        include_str!(concat!("../../../sql/sqlite/", $file, ".sql"))
    };
}

/// How the sums of tables are made.
const SUMS: &str = "sqlite: wrapping sum of the first 8 bytes of BLAKE3 of each row";
/// Pages of one step of the copy: 4 MiB, after which others have their turn.
const STEP_PAGES: i32 = 1_024;
/// How long a connection waits for somebody who holds the file.
const BUSY: Duration = Duration::from_secs(5);
/// Pause after a step that found the file held, and how often in all: as long again as [`BUSY`].
const HELD_PAUSE: Duration = Duration::from_millis(50);
const HELD_MAX: u32 = 100;

fn failed(error: rusqlite::Error) -> BackupError {
    BackupError::Failed(format!("SQLite: {error}"))
}

fn io_failed(path: &Path) -> impl Fn(io::Error) -> BackupError {
    move |error| BackupError::Failed(format!("{}: {error}", path.display()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    spawn_blocking(work).await.map_err(|error| BackupError::Failed(error.to_string()))?
}

/// A file that is gone when this is.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    /// A new file of our own in a folder, readable by its owner only.
    fn new(folder: &Path, name: &str) -> Result<Self, BackupError> {
        let path = folder.join(format!(".{name}-{}", Uuid::now_v7()));
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(io_failed(&path))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SQLite's own files beside it, too.
        for end in ["", "-wal", "-shm", "-journal"] {
            let _ = fs::remove_file(format!("{}{end}", self.0.display()));
        }
    }
}

/// What is left of scratch files by processes that were killed, told by their name.
fn sweep(folder: &Path, name: &str) {
    let prefix = format!(".{name}-");
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_ours = file.file_name().to_string_lossy().starts_with(&prefix);
        let age = file.metadata().and_then(|facts| facts.modified()).ok().and_then(|at| at.elapsed().ok());
        // Somebody else may make one at this moment.
        if is_ours && age.is_some_and(|age| age > Duration::from_secs(24 * 3_600)) {
            let _ = fs::remove_file(file.path());
        }
    }
}

/// A copy of the file as it was at one moment.
pub(crate) struct Snapshot {
    copy: Scratch,
    facts: DatabaseFacts,
    erasures: Vec<Erasure>,
}

impl Snapshot {
    pub(super) async fn take(path: &Path, scratch: &Path) -> Result<Self, BackupError> {
        let (path, scratch) = (path.to_owned(), scratch.to_owned());
        blocking(move || {
            sweep(&scratch, "backup");
            let copy = Scratch::new(&scratch, "backup")?;
            let source = open(&path)?;
            // What is read and copied from here on is one snapshot, whatever is written meanwhile.
            source.execute_batch("BEGIN").map_err(failed)?;
            let schema: i64 = source.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
            let erasures = erasures(&source)?;
            let facts = facts(&source, usize::try_from(schema).unwrap_or_default(), &erasures)?;
            copy_pages(&source, &copy.0)?;
            Ok(Self { copy, facts, erasures })
        })
        .await
    }

    pub(super) fn facts(&self) -> &DatabaseFacts {
        &self.facts
    }

    pub(super) fn erasures(&self) -> &[Erasure] {
        &self.erasures
    }

    /// What writes the copy.
    pub(crate) fn dump(&self) -> impl FnOnce(&mut dyn Write) -> Result<(), BackupError> + Send + use<> {
        let path = self.copy.0.clone();
        move |out| {
            let mut file = File::open(&path).map_err(io_failed(&path))?;
            io::copy(&mut file, out).map(drop).map_err(|error| BackupError::Failed(error.to_string()))
        }
    }
}

/// Opens a file that must be there, for reading.
fn open(path: &Path) -> Result<Connection, BackupError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    Ok(connection)
}

fn open_to_write(path: &Path) -> Result<Connection, BackupError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    Ok(connection)
}

fn copy_pages(source: &Connection, into: &Path) -> Result<(), BackupError> {
    let mut copy = Connection::open(into).map_err(failed)?;
    // It is thrown away: what counts is read back from where it goes to.
    copy.pragma_update(None, "synchronous", "OFF").map_err(failed)?;
    let backup = rusqlite::backup::Backup::new(source, &mut copy).map_err(failed)?;
    let mut held = 0;
    loop {
        match backup.step(STEP_PAGES).map_err(failed)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            StepResult::Busy | StepResult::Locked if held < HELD_MAX => {
                held += 1;
                std::thread::sleep(HELD_PAUSE);
            }
            _ => return Err(BackupError::Failed("SQLite: another process holds the file".to_owned())),
        }
    }
}

fn has(connection: &Connection, table: &str) -> Result<bool, BackupError> {
    let found =
        connection.query_row("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1", [table], |_| Ok(()));
    Ok(found.optional().map_err(failed)?.is_some())
}

fn facts(connection: &Connection, schema: usize, erasures: &[Erasure]) -> Result<DatabaseFacts, BackupError> {
    let (incarnation, generation, live) = connection
        .query_row(text!("backup_facts"), [], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?)))
        .map_err(failed)?;
    // A backup may be of a schema that has none yet: one is made before each migration.
    let audit_head = if has(connection, "audit_heads")? {
        let end = |row: &rusqlite::Row<'_>| {
            Ok(AuditEnd { day: row.get(0)?, seq: row.get(1)?, hash: hex::of(row.get_ref(2)?.as_blob()?) })
        };
        connection.query_row(text!("backup_audit_end"), [], end).optional().map_err(failed)?
    } else {
        None
    };
    Ok(DatabaseFacts {
        store: StoreKind::Sqlite,
        schema: schema as u64,
        sums: SUMS.to_owned(),
        tables: tables(connection).map_err(failed)?,
        audit_head,
        erasures: ErasuresFacts {
            tenants: erasures.len() as u64,
            last_at: erasures.iter().map(|erasure| erasure.accepted_at).max(),
        },
        incarnation,
        generation,
        live_jobs: u64::try_from(live).unwrap_or_default(),
    })
}

fn erasures(connection: &Connection) -> Result<Vec<Erasure>, BackupError> {
    if !has(connection, "erasures")? {
        return Ok(vec![]);
    }
    let mut statement = connection.prepare(text!("backup_erasures")).map_err(failed)?;
    let read = |row: &rusqlite::Row<'_>| {
        let tenant: String = row.get(0)?;
        Ok(Erasure::order(Name::new(tenant), row.get(1)?, Timestamp(row.get(2)?)))
    };
    let rows = statement.query_map([], read).map_err(failed)?;
    rows.collect::<Result<_, _>>().map_err(failed)
}

/// Every table with its rows and its sum. The statements are made by SQLite, which quotes its own names.
fn tables(connection: &Connection) -> rusqlite::Result<BTreeMap<String, TableFacts>> {
    let mut list = connection.prepare(text!("backup_tables"))?;
    let named: Vec<(String, String)> =
        list.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let mut tables = BTreeMap::new();
    for (name, text) in named {
        let mut statement = connection.prepare(&text)?;
        let left_out: Vec<bool> = statement
            .column_names()
            .map(|column| name == "meta" && (META_CHANGES.contains(&column) || column == "restored_at"))
            .collect();
        let (mut rows, mut sum) = (0, 0_u64);
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            rows += 1;
            sum = sum.wrapping_add(hash_of(row, &left_out)?);
        }
        tables.insert(name, TableFacts { rows, sum: format!("{sum:016x}") });
    }
    Ok(tables)
}

fn hash_of(row: &rusqlite::Row<'_>, left_out: &[bool]) -> rusqlite::Result<u64> {
    let mut hasher = blake3::Hasher::new();
    for (at, _) in left_out.iter().enumerate().filter(|(_, left_out)| !**left_out) {
        let (tag, bytes) = match row.get_ref(at)? {
            ValueRef::Null => (0, &[][..]),
            ValueRef::Integer(number) => {
                hasher.update(&[1]).update(&number.to_le_bytes());
                continue;
            }
            ValueRef::Real(number) => {
                hasher.update(&[2]).update(&number.to_le_bytes());
                continue;
            }
            ValueRef::Text(text) => (3, text),
            ValueRef::Blob(bytes) => (4, bytes),
        };
        hasher.update(&[tag]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    Ok(u64::from_le_bytes(first))
}

pub(super) async fn tables_of(path: &Path) -> Result<BTreeMap<String, TableFacts>, BackupError> {
    let path = path.to_owned();
    blocking(move || {
        let connection = open(&path)?;
        connection.execute_batch("BEGIN").map_err(failed)?;
        tables(&connection).map_err(failed)
    })
    .await
}

pub(super) fn check_empty(path: &Path) -> Result<(), BackupError> {
    let beside = |end: &str| PathBuf::from(format!("{}{end}", path.display()));
    match ["", "-wal"].map(beside).into_iter().find(|file| file.exists()) {
        None => Ok(()),
        Some(file) => Err(BackupError::Refused(format!(
            "{} is there: a restore makes a new file and writes over none. Move it away, or name another",
            file.display()
        ))),
    }
}

pub(super) async fn say(path: &Path, reason: &str) -> Result<(), BackupError> {
    let (path, reason) = (path.to_owned(), reason.to_owned());
    blocking(move || {
        let connection = open_to_write(&path)?;
        connection.execute(text!("backup_say"), [reason]).map(drop).map_err(failed)
    })
    .await
}

pub(super) async fn erase(path: &Path, log: &[Erasure], now: Timestamp) -> Result<bool, BackupError> {
    let (path, log) = (path.to_owned(), log.to_vec());
    blocking(move || {
        let mut connection = open_to_write(&path)?;
        if !has(&connection, "erasures")? {
            return Ok(false);
        }
        let transaction = connection.transaction().map_err(failed)?;
        for order in &log {
            order_erasure(&transaction, order, now).map_err(failed)?;
        }
        transaction.execute(text!("erase_replay"), params![now.0 + 1, now.0]).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(true)
    })
    .await
}

/// What the journal does at such an order.
fn order_erasure(connection: &Connection, order: &Erasure, now: Timestamp) -> rusqlite::Result<()> {
    let tenant = order.tenant.as_str();
    let values = params![tenant, order.pseudonym, order.accepted_at.0, now.0];
    connection.query_row(text!("erase_begin"), values, |_| Ok(()))?;
    for text in [text!("erase_shred"), text!("erase_secrets"), text!("erase_endpoints")] {
        connection.execute(text, [tenant])?;
    }
    connection.execute(text!("erase_keys"), params![tenant, now.0]).map(drop)
}

/// A file on its way into its place: beside it until [`Loading::commit`].
pub(crate) struct Loading {
    file: Scratch,
    path: PathBuf,
}

impl Loading {
    /// Writes what `dump` reads beside the place of the file.
    pub(crate) fn begin(path: &Path, dump: &mut dyn Read, reason: &str, now: Timestamp) -> Result<Self, BackupError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(io_failed(folder))?;
        sweep(folder, "restore");
        let file = Scratch::new(folder, "restore")?;
        let mut out = OpenOptions::new().write(true).open(&file.0).map_err(io_failed(&file.0))?;
        // What cannot be read says so itself; what cannot be written names the file.
        io::copy(dump, &mut out).map_err(io_failed(&file.0))?;
        out.sync_all().map_err(io_failed(&file.0))?;
        mark(&file.0, reason, now)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// The file, where it is until then.
    pub(crate) fn path(&self) -> &Path {
        &self.file.0
    }

    /// Puts it into its place, where nothing may be.
    pub(crate) fn commit(self) -> Result<(), BackupError> {
        let failed = io_failed(&self.path);
        File::open(&self.file.0).and_then(|file| file.sync_all()).map_err(&failed)?;
        fs::hard_link(&self.file.0, &self.path).map_err(&failed)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(&failed)
    }
}

/// Marks it as restored and paused.
fn mark(path: &Path, reason: &str, now: Timestamp) -> Result<(), BackupError> {
    let connection = open_to_write(path)?;
    let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if sound != "ok" {
        return Err(BackupError::Failed(format!("what was restored is no sound SQLite file: {sound}")));
    }
    let marked = || -> rusqlite::Result<()> {
        let transaction = connection.unchecked_transaction()?;
        transaction.execute(text!("backup_mark"), params![now.0, reason, GENERATIONS_AHEAD])?;
        let has_moment = "SELECT count(*) FROM pragma_table_info('meta') WHERE name = 'restored_at'";
        if transaction.query_row(has_moment, [], |row| row.get::<_, i64>(0))? > 0 {
            transaction.execute(text!("backup_mark_restored"), [])?;
        }
        transaction.commit()
    };
    marked().map_err(failed)
}
