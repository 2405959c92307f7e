//! The conformance suite over a real Postgres, and what only this store does.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod costs;
mod crash;
mod open;
mod partitions;
#[path = "../postgres_fixture/mod.rs"]
mod postgres_fixture;
mod proxy;
mod races;
mod schema;
mod walls;

use queue_core::{
    error::{ErrorClass, JobError},
    job::NewJob,
    journal::{
        JobFilter, Journal, Outcome, Reads,
        conformance::{Opened, job, settlement, token},
    },
};

pub(crate) use postgres_fixture::Base;

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
