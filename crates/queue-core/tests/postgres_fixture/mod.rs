//! A Postgres journal over a real server, with a database and a time of its own.

#![allow(clippy::unwrap_used, dead_code)] // a test fails by panicking; no test uses all of it

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use queue_core::{
    journal::{
        conformance::{Fixture, NOW, Opened},
        postgres::{PostgresConfig, PostgresJournal, connect, migrate},
    },
    time::ManualClock,
};
use testkit::PostgresServer;

/// A database of its own on the server of this process.
pub(crate) struct Base {
    pub(crate) config: PostgresConfig,
    pub(crate) clock: ManualClock,
}

/// A migrated database that tests copy, because copying one is faster than migrating it.
fn template() -> &'static str {
    static TEMPLATE: OnceLock<String> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let url = PostgresServer::shared().database();
        let config = PostgresConfig::new(url.clone());
        let migrating = async {
            let mut connection = connect(&config).await.unwrap();
            migrate(&mut connection).await.unwrap();
            sqlx::Connection::close(connection).await.unwrap();
        };
        // Its own thread: the test that asks is inside a runtime.
        std::thread::scope(|scope| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            scope.spawn(move || runtime.block_on(migrating)).join().unwrap();
        });
        url
    })
}

impl Base {
    pub(crate) fn fresh() -> Self {
        let url = PostgresServer::shared().copy_of(template());
        Self { config: PostgresConfig::new(url), clock: ManualClock::at(NOW) }
    }

    /// A migrated database whose name is returned with it.
    pub(crate) fn named() -> (Self, String) {
        let base = Self::fresh();
        let name = base.config.url.rsplit('/').next().unwrap().to_owned();
        (base, name)
    }

    pub(crate) async fn journal(&self) -> PostgresJournal {
        PostgresJournal::open(&self.config, Arc::new(self.clock.clone())).await.unwrap()
    }
}

#[async_trait]
impl Fixture for Base {
    async fn open(&self) -> Opened {
        Opened::over(self.journal().await)
    }

    fn clock(&self) -> ManualClock {
        self.clock.clone()
    }

    async fn tables_with(&self, text: &str) -> Vec<(String, bool, u64)> {
        let mut connection = connect(&self.config).await.unwrap();
        let tables = "SELECT c.relname::text, bool_or(a.attname = 'tenant'),
                             string_agg(format(CASE WHEN a.atttypid = 'bytea'::regtype THEN 'encode(%1$I, ''escape'')' ELSE '%1$I::text' END,
                                               a.attname), ', ')
                      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                      WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
                      GROUP BY 1 ORDER BY 1";
        let tables: Vec<(String, bool, String)> = sqlx::query_as(tables).fetch_all(&mut connection).await.unwrap();
        let mut counted = Vec::new();
        for (table, has_tenant, columns) in tables {
            let query = format!("SELECT count(*) FROM {table} WHERE strpos(concat_ws(' ', {columns}), $1) > 0");
            let query = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).bind(text);
            let rows: i64 = query.fetch_one(&mut connection).await.unwrap();
            counted.push((table, has_tenant, rows.unsigned_abs()));
        }
        counted
    }
}
