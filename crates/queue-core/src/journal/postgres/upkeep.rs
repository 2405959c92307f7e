//! Upkeep: what the statistics say, and chores that no transaction can hold.
//!
//! A chore has a connection of its own, which holds an advisory lock for as long as it takes: of all processes, one is at it. It
//! needs the rights of the tables' owner, which no function can lend: VACUUM and REINDEX CONCURRENTLY refuse to run within one.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, postgres::PgRow};

use super::{PostgresJournal, failure::Failure, rows::Cells};
use crate::{
    journal::JournalError,
    time::Timestamp,
    upkeep::{Chore, IndexState, StoreState, TOLD_MAX, TableState, Tended, Upkeep},
};

/// Statements about the catalogue, which no index narrows: they are not among those whose plans are looked at.
const TABLES: &str = include_str!("../../../sql/postgres/upkeep_tables.sql");
const INDEXES: &str = include_str!("../../../sql/postgres/upkeep_indexes.sql");
const STORE: &str = include_str!("../../../sql/postgres/upkeep_store.sql");
const LOCK: &str = include_str!("../../../sql/postgres/upkeep_lock.sql");
const SIZE: &str = include_str!("../../../sql/postgres/upkeep_size.sql");
const READERS: &str = include_str!("../../../sql/postgres/upkeep_readers.sql");
const SESSION: &str = include_str!("../../../sql/postgres/upkeep_session.sql");
const SERVER_NOW: &str = include_str!("../../../sql/postgres/server_now.sql");

/// Longest wait for a lock: whoever waits for a table has others waiting behind it.
const LOCK_MAX_MS: u64 = 2_000;
/// Building an index beside its users waits for transactions that are older, and nobody waits behind it.
const REINDEX_LOCK_MAX_MS: u64 = 60_000;

#[async_trait]
impl Upkeep for PostgresJournal {
    async fn store_state(&self) -> Result<StoreState, JournalError> {
        self.ask(|pool| async move {
            let tables = sqlx::query(TABLES).fetch_all(&pool).await?;
            let indexes = sqlx::query(INDEXES).fetch_all(&pool).await?;
            let row = sqlx::query(STORE).fetch_one(&pool).await?;
            let mut cells = Cells::of(&row, 0);
            let (bytes, owner, is_busy) = (cells.count()?, cells.next::<Option<String>>()?, cells.next()?);
            let mut state = StoreState {
                tables: tables.iter().map(table).collect::<Result<_, _>>()?,
                indexes: indexes.iter().map(index).collect::<Result<_, _>>()?,
                bytes,
                free_bytes: None,
                can_shrink: false,
                missing_right: owner.map(|owner| {
                    format!(
                        "the tables belong to {owner}: let the schedulers' role be a member of it (GRANT {owner} TO …)"
                    )
                }),
                is_busy,
            };
            state.indexes.sort_by_key(|index| std::cmp::Reverse(index.bloat_bytes));
            state.indexes.truncate(TOLD_MAX.max(state.indexes.iter().filter(|index| index.is_leftover).count()));
            Ok(state)
        })
        .await
    }

    async fn tend(&self, chore: &Chore, within: Duration) -> Result<Tended, JournalError> {
        let options = self.database.pool.connect_options();
        let tending = async {
            let mut connection = PgConnection::connect_with(&options).await?;
            let tended = tend(&mut connection, chore, within).await;
            // One that does not say goodbye loses its lock all the same.
            let _ = connection.close().await;
            tended
        };
        match tokio::time::timeout(within, tending).await {
            Ok(tended) => tended.map_err(Failure::into_error),
            Err(_) => Err(JournalError::Unavailable("its time was over".into())),
        }
    }

    async fn server_now(&self) -> Result<Option<Timestamp>, JournalError> {
        self.ask(|pool| async move {
            let now: i64 = sqlx::query_scalar(SERVER_NOW).fetch_one(&pool).await?;
            Ok(Some(Timestamp(now)))
        })
        .await
    }
}

fn table(row: &PgRow) -> Result<TableState, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(TableState {
        name: cells.next()?,
        rows: cells.count()?,
        dead: cells.count()?,
        changed: cells.count()?,
        bytes: cells.count()?,
        vacuumed_at: cells.time_if_any()?,
        analyzed_at: cells.time_if_any()?,
    })
}

fn index(row: &PgRow) -> Result<IndexState, sqlx::Error> {
    let mut cells = Cells::of(row, 0);
    Ok(IndexState {
        name: cells.next()?,
        table: cells.next()?,
        bytes: cells.count()?,
        bloat_bytes: cells.count()?,
        is_leftover: cells.next()?,
    })
}

async fn tend(connection: &mut PgConnection, chore: &Chore, within: Duration) -> Result<Tended, Failure> {
    let Some(name) = chore.on() else { return Err(Failure::Refused("this store has no such chore".into())) };
    let is_first: bool = sqlx::query_scalar(LOCK).fetch_one(&mut *connection).await?;
    if !is_first {
        return Ok(Tended::Busy);
    }
    let lock_ms = if matches!(chore, Chore::Reindex(_)) { REINDEX_LOCK_MAX_MS } else { LOCK_MAX_MS };
    sqlx::query(SESSION)
        .bind(within.as_millis().to_string())
        .bind(lock_ms.to_string())
        .execute(&mut *connection)
        .await?;
    if matches!(chore, Chore::Reindex(_)) && sqlx::query(READERS).fetch_optional(&mut *connection).await?.is_some() {
        return Err(Failure::Unavailable("a transaction has been open for a minute, and an index waits for it".into()));
    }
    let size = async |connection: &mut PgConnection| -> Result<Option<(i64, String)>, Failure> {
        let row = sqlx::query(SIZE).bind(name).fetch_optional(connection).await?;
        let read = |row: &PgRow| {
            let mut cells = Cells::of(row, 0);
            Ok::<_, sqlx::Error>((cells.next()?, cells.next()?))
        };
        Ok(row.as_ref().map(read).transpose()?)
    };
    // The name as the catalogue has it, quoted by the server: no statement takes a table's name for an argument.
    let nothing = Tended::Done { before_bytes: 0, after_bytes: 0 };
    let Some((before, quoted)) = size(connection).await? else { return Ok(nothing) };
    if matches!(chore, Chore::DropLeftover(_)) && !is_leftover(connection, name).await? {
        return Ok(nothing);
    }
    let statement = match chore {
        Chore::Vacuum(_) => format!("VACUUM (ANALYZE) {quoted}"),
        Chore::Analyze(_) => format!("ANALYZE {quoted}"),
        Chore::Reindex(_) => format!("REINDEX INDEX CONCURRENTLY {quoted}"),
        Chore::DropLeftover(_) => format!("DROP INDEX CONCURRENTLY {quoted}"),
        Chore::Optimize | Chore::Check | Chore::Shrink => return Err(Failure::Refused("no such chore".into())),
    };
    connection.execute(AssertSqlSafe(statement)).await?;
    let after = size(connection).await?.map_or(0, |(bytes, _)| bytes);
    Ok(Tended::Done { before_bytes: before.unsigned_abs(), after_bytes: after.unsigned_abs() })
}

/// Whether an index is still one that nobody builds.
async fn is_leftover(connection: &mut PgConnection, name: &str) -> Result<bool, Failure> {
    let rows = sqlx::query(INDEXES).fetch_all(connection).await?;
    let found = rows.iter().map(index).collect::<Result<Vec<_>, _>>()?;
    Ok(found.iter().any(|index| index.is_leftover && index.name == name))
}
