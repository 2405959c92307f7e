//! A database that is made for a while, on a server that has others: what a backup is restored into to be tried.

use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use uuid::Uuid;

use super::{
    config::PostgresConfig,
    open::{OpenError, connect},
};

/// Names of such databases begin so; the moment follows, as UUIDv7 has it.
const PREFIX: &str = "longshore_drill_";
/// Milliseconds after which one that is still there has nobody.
const LEFT_MS: u64 = 24 * 60 * 60 * 1_000;

/// A database of our own. [`ScratchDatabase::drop`] drops it; one whose process was killed is dropped by the next.
#[derive(Debug)]
pub struct ScratchDatabase {
    server: PostgresConfig,
    name: String,
}

impl ScratchDatabase {
    /// Makes an empty one on the server of this database, which is left alone.
    ///
    /// # Errors
    /// [`OpenError::Rights`]: the role may make no databases.
    pub async fn make(server: &PostgresConfig) -> Result<Self, OpenError> {
        let id = Uuid::now_v7();
        let made = Self { server: server.clone(), name: format!("{PREFIX}{}", id.simple()) };
        let mut connection = connect(server).await?;
        let left = sqlx::query("SELECT datname::text FROM pg_database WHERE starts_with(datname, $1)")
            .bind(PREFIX)
            .fetch_all(&mut connection)
            .await
            .map_err(OpenError::of)?;
        for row in left {
            let name: String = row.try_get(0).map_err(OpenError::of)?;
            if is_left(&name, id) {
                connection.execute(AssertSqlSafe(drop_statement(&name))).await.map_err(OpenError::of)?;
            }
        }
        // Names of databases cannot be arguments; this one is hexadecimal digits of ours.
        let statement = format!("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'", made.name);
        connection.execute(AssertSqlSafe(statement)).await.map_err(OpenError::of)?;
        // A connection that does not say goodbye is only slower to end.
        let _ = connection.close().await;
        Ok(made)
    }

    /// How it is reached.
    pub fn config(&self) -> PostgresConfig {
        let url = match reqwest::Url::parse(&self.server.url) {
            Ok(mut url) => {
                url.set_path(&self.name);
                url.to_string()
            }
            // It was connected to by this URL.
            Err(_) => self.server.url.clone(),
        };
        PostgresConfig { url, ..self.server.clone() }
    }

    /// Drops it, whoever is connected.
    ///
    /// # Errors
    /// Then it is there still, and the next one to be made drops it after a day.
    pub async fn drop(self) -> Result<(), OpenError> {
        let mut connection = connect(&self.server).await?;
        connection.execute(AssertSqlSafe(drop_statement(&self.name))).await.map_err(OpenError::of)?;
        let _ = connection.close().await;
        Ok(())
    }
}

/// For names that [`ScratchDatabase::make`] has made.
fn drop_statement(name: &str) -> String {
    format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")
}

/// Whether a database was left by a process that is no more, as far as its name tells. Any other name is none of ours.
fn is_left(name: &str, now: Uuid) -> bool {
    let made =
        |id: &Uuid| id.get_timestamp().map(|at| at.to_unix()).map(|(s, ns)| s * 1_000 + u64::from(ns) / 1_000_000);
    let id =
        name.strip_prefix(PREFIX).filter(|digits| digits.len() == 32).and_then(|digits| Uuid::parse_str(digits).ok());
    let (Some(then), Some(now)) = (id.as_ref().and_then(made), made(&now)) else { return false };
    now.saturating_sub(then) > LEFT_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_and_old_is_dropped() {
        let now = Uuid::now_v7();
        let old = "longshore_drill_018f3c5e9c007000800000000000000a";
        assert!(is_left(old, now) && !is_left(&format!("{PREFIX}{}", now.simple()), now));
        for others in ["longshore", "longshore_drill_", "longshore_drill_x; DROP", "018f3c5e9c007000800000000000000a"] {
            assert!(!is_left(others, now), "{others}");
        }
    }
}
