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
}
