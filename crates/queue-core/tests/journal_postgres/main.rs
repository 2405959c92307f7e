//! The conformance suite over a real Postgres, and what only this store does.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod crash;
mod open;
mod partitions;
mod proxy;
mod races;
mod schema;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use queue_core::{
    error::{ErrorClass, JobError},
    job::NewJob,
    journal::{
        JobFilter, Journal, Outcome, Reads,
        conformance::{Fixture, NOW, Opened, job, settlement, token},
        postgres::{PostgresConfig, PostgresJournal, connect, migrate},
    },
    time::ManualClock,
};
use testkit::PostgresServer;

/// A database of its own on the server of this process.
struct Base {
    config: PostgresConfig,
    clock: ManualClock,
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
    fn fresh() -> Self {
        let url = PostgresServer::shared().copy_of(template());
        Self { config: PostgresConfig::new(url), clock: ManualClock::at(NOW) }
    }

    /// A migrated database whose name is returned with it.
    fn named() -> (Self, String) {
        let base = Self::fresh();
        let name = base.config.url.rsplit('/').next().unwrap().to_owned();
        (base, name)
    }

    async fn journal(&self) -> PostgresJournal {
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

queue_core::journal_conformance!(Base::fresh());

/// Postgres' text and JSON refuse NUL; a list that searches must not fail because one job has one.
#[tokio::test]
async fn a_job_with_nul_does_not_break_a_search() {
    let base = Base::fresh();
    let journal = base.journal().await;
    let odd = "Before\0after \u{10} \\u0000";
    let job = NewJob { tags: vec![odd.into()], operation: Some(odd.into()), ..job() };
    journal.accept(vec![job.clone()]).await.unwrap();
    let store = Opened::over(journal.clone());
    let error = JobError::new(ErrorClass::Server, "503", odd);
    let end = settlement(&store, token(job.id, 0), Outcome::Dead { error });
    journal.settle(end).await.unwrap();
    for (text, found) in [("AFTER", 1), ("before\0", 1), ("nowhere", 0)] {
        let filter = JobFilter { text: Some(text.into()), limit: 10, ..JobFilter::default() };
        assert_eq!(journal.list(&filter).await.unwrap().jobs.len(), found, "{text:?}");
    }
    let row = journal.jobs(&[job.id]).await.unwrap().pop().flatten().unwrap();
    assert_eq!((row.tags, row.operation.as_deref()), (job.tags, Some(odd)));
}
