//! Partitions by day: made ahead. See `retention.rs` for how they go.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use super::{failure::Failure, open::DAYS_AHEAD, sql, transaction::Database};
use crate::time::Timestamp;

/// Between two looks: a missed one is made good long before the days run out.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

/// What Postgres says where a lock was not given in time.
const LOCKED: &str = "55P03";

/// The task that makes partitions ahead; ends with this value.
pub(super) struct Ahead {
    task: tokio::task::JoinHandle<()>,
}

impl Ahead {
    /// Looks every hour. The first look is part of opening.
    pub(super) fn start(database: &Database) -> Self {
        let database = database.clone();
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                if let Err(failure) = make(&database).await {
                    tracing::warn!(error = %failure.into_error(), "the coming days' partitions were not made");
                }
            }
        });
        Self { task }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn make(database: &Database) -> Result<(), Failure> {
    let mut connection = database.connection().await?;
    Ok(create(&mut connection, database.clock.now()).await?)
}

/// Makes the partitions of the coming days. A backup that is being made holds every table, and nobody may wait behind one who waits
/// for it: then those of later days are made at a later look. Only what today lacks is waited for.
pub(crate) async fn create(connection: &mut PgConnection, now: Timestamp) -> Result<(), sqlx::Error> {
    match ahead(connection, now).await {
        Err(sqlx::Error::Database(said)) if said.code().as_deref() == Some(LOCKED) => {
            sqlx::query(sql::CREATE_PARTITIONS).bind(now.0).bind(1_i32).execute(&mut *connection).await?;
            tracing::warn!("the coming days' partitions are made later: somebody holds the tables, such as a backup");
            Ok(())
        }
        made => made,
    }
}

async fn ahead(connection: &mut PgConnection, now: Timestamp) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SET LOCAL lock_timeout = '1s'").execute(&mut *transaction).await?;
    sqlx::query(sql::CREATE_PARTITIONS).bind(now.0).bind(DAYS_AHEAD).execute(&mut *transaction).await?;
    transaction.commit().await
}
