//! Partitions by day: made ahead. See `retention.rs` for how they go.

use std::time::Duration;

use super::{failure::Failure, open::DAYS_AHEAD, sql, transaction::Database};

/// Between two looks: a missed one is made good long before the days run out.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

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
    let now = database.clock.now().0;
    sqlx::query(sql::CREATE_PARTITIONS).bind(now).bind(DAYS_AHEAD).execute(&database.pool).await?;
    Ok(())
}
