//! The schema: which version a database has, what is missing, and how it gets there.

use sqlx::{Acquire, PgConnection, Row};

use super::open::OpenError;

/// One step of the schema. A step that was released never changes.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its file's name.
    pub name: &'static str,
    /// What it does.
    pub up: &'static str,
    /// What undoes it; `None` where nothing can.
    pub down: Option<&'static str>,
}

macro_rules! migration {
    ($name:literal) => {
        Migration {
            name: $name,
            up: include_str!(concat!("../../../../../migrations/postgres/", $name, ".sql")),
            down: Some(include_str!(concat!("../../../../../migrations/postgres/", $name, ".down.sql"))),
        }
    };
}

/// Every step, in order: the schema's version is the number of those that were applied.
pub const MIGRATIONS: &[Migration] = &[
    migration!("0001_jobs"),
    migration!("0002_money"),
    migration!("0003_catalog"),
    migration!("0004_concurrency_key"),
    migration!("0005_costs"),
    migration!("0006_targets"),
    migration!("0007_budgets"),
    migration!("0008_credentials"),
    migration!("0009_limits"),
    migration!("0010_orders"),
    migration!("0011_keys"),
    migration!("0012_operations"),
    migration!("0013_webhooks"),
    migration!("0014_audit"),
    migration!("0015_tenants"),
    migration!("0016_draining"),
    migration!("0017_request_limits"),
    migration!("0018_archives"),
    migration!("0019_erasures"),
    migration!("0020_schedules"),
    migration!("0021_retention"),
    migration!("0022_backups"),
    migration!("0023_log_level"),
    migration!("0024_deaths"),
];

/// The oldest schema that this version works with. An older one is brought up first.
pub const SCHEMA_OLDEST: usize = 24;

/// Held while the schema changes, so that of two processes one waits: `LSHO` and a number of ours.
const LOCK: (i32, i32) = (0x4c53_484f, 1);

/// Functions that act with the rights of the tables' owner keep the path of this transaction. Where it does not say so, temporary tables
/// of whoever calls them come first.
const PATH: &str = "SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', TRUE)";

/// Where the schema's version is kept: one row for each step. A notice that it is there already would be logged.
const VERSIONS: &str = "SET LOCAL client_min_messages = warning;
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer     NOT NULL PRIMARY KEY CHECK (version >= 1),
    name       text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)";

/// How many steps were applied. 0 where there is no journal yet. Writes nothing.
pub async fn schema_version(connection: &mut PgConnection) -> Result<usize, OpenError> {
    let there: bool = sqlx::query("SELECT to_regclass('schema_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(OpenError::of)?;
    if !there {
        return Ok(0);
    }
    let version: i32 = sqlx::query("SELECT coalesce(max(version), 0) FROM schema_migrations")
        .fetch_one(connection)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(OpenError::of)?;
    Ok(usize::try_from(version).unwrap_or_default())
}

/// Whether this program works with a schema of this version.
pub(super) fn check_version(version: usize) -> Result<(), OpenError> {
    if version < SCHEMA_OLDEST {
        return Err(OpenError::SchemaOld { found: version, oldest: SCHEMA_OLDEST });
    }
    if version > MIGRATIONS.len() {
        return Err(OpenError::SchemaNew { found: version, newest: MIGRATIONS.len() });
    }
    Ok(())
}

/// The steps that a schema of this version lacks; none for a version that this program does not know.
pub fn pending(version: usize) -> &'static [Migration] {
    MIGRATIONS.get(version..).unwrap_or_default()
}

/// The SQL that [`migrate`] would run now, for people to read.
pub async fn pending_sql(connection: &mut PgConnection) -> Result<String, OpenError> {
    let version = schema_version(connection).await?;
    let missing = pending(version);
    Ok(missing.iter().map(|step| format!("-- {}\n{}\n", step.name, step.up.trim_end())).collect())
}

/// Brings the schema up to this program's version, all of it or nothing, and returns the names of the steps that were
/// missing. Of several processes that ask at once, one does it and the others wait and find it done.
pub async fn migrate(connection: &mut PgConnection) -> Result<Vec<&'static str>, OpenError> {
    let mut transaction = connection.begin().await.map_err(OpenError::of)?;
    hold_lock(&mut transaction).await?;
    sqlx::raw_sql(VERSIONS).execute(&mut *transaction).await.map_err(OpenError::of)?;
    let version = schema_version(&mut transaction).await?;
    if version > MIGRATIONS.len() {
        return Err(OpenError::SchemaNew { found: version, newest: MIGRATIONS.len() });
    }
    let missing = pending(version);
    sqlx::raw_sql(PATH).execute(&mut *transaction).await.map_err(OpenError::of)?;
    for (step, number) in missing.iter().zip(version + 1..) {
        sqlx::raw_sql(step.up).execute(&mut *transaction).await.map_err(OpenError::of)?;
        sqlx::query("INSERT INTO schema_migrations (version, name) VALUES ($1, $2)")
            .bind(i32::try_from(number).unwrap_or(i32::MAX))
            .bind(step.name)
            .execute(&mut *transaction)
            .await
            .map_err(OpenError::of)?;
    }
    transaction.commit().await.map_err(OpenError::of)?;
    Ok(missing.iter().map(|step| step.name).collect())
}

/// Undoes the steps above `version`, newest first, all of them or nothing. What they held is lost.
pub async fn roll_back(connection: &mut PgConnection, version: usize) -> Result<Vec<&'static str>, OpenError> {
    let mut transaction = connection.begin().await.map_err(OpenError::of)?;
    hold_lock(&mut transaction).await?;
    let present = schema_version(&mut transaction).await?;
    if present > MIGRATIONS.len() {
        return Err(OpenError::SchemaNew { found: present, newest: MIGRATIONS.len() });
    }
    sqlx::raw_sql(PATH).execute(&mut *transaction).await.map_err(OpenError::of)?;
    let mut undone = Vec::new();
    for number in (version + 1..=present).rev() {
        let step = &MIGRATIONS[number - 1];
        let down = step.down.ok_or(OpenError::Irreversible { step: step.name })?;
        sqlx::raw_sql(down).execute(&mut *transaction).await.map_err(OpenError::of)?;
        sqlx::query("DELETE FROM schema_migrations WHERE version = $1")
            .bind(i32::try_from(number).unwrap_or(i32::MAX))
            .execute(&mut *transaction)
            .await
            .map_err(OpenError::of)?;
        undone.push(step.name);
    }
    transaction.commit().await.map_err(OpenError::of)?;
    Ok(undone)
}

async fn hold_lock(connection: &mut PgConnection) -> Result<(), OpenError> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, $2)")
        .bind(LOCK.0)
        .bind(LOCK.1)
        .execute(connection)
        .await
        .map_err(OpenError::of)?;
    Ok(())
}
