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
mod upkeep;
mod walls;

use queue_core::{
    audit::{Audit, AuditEntry, AuditPlace, Chain},
    error::{ErrorClass, JobError},
    job::NewJob,
    journal::{
        JobFilter, Journal, Outcome, Reads,
        conformance::{Opened, job, settlement, token},
        postgres::connect,
    },
    schedule::Schedules,
    time::{Clock, SystemClock},
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

/// The journal's own clock stands still here: a process whose clock is wrong does not decide what is due.
#[tokio::test]
async fn the_time_of_schedules_is_the_servers() {
    let base = Base::fresh();
    let journal = base.journal().await;
    let before = SystemClock.now();
    let told = journal.store_time().await.unwrap();
    // The server runs on this machine.
    assert!((before.plus_ms(-2)..=SystemClock.now().plus_ms(2)).contains(&told), "{told}");
}

#[tokio::test]
async fn the_audit_log_is_only_added_to_and_a_change_behind_its_back_is_named() {
    let base = Base::fresh();
    let journal = base.journal().await;
    for n in 0..5 {
        let entry = AuditEntry { subject: format!("/v1/queues/{n}"), status: 200, ..AuditEntry::default() };
        journal.append_audit(entry).await.unwrap();
    }
    let mut behind = connect(&base.config).await.unwrap();
    for refused in [
        "UPDATE audit_log SET status = 403",
        "UPDATE audit_heads SET seq = seq - 1",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "DELETE FROM audit_heads",
        "TRUNCATE audit_heads",
    ] {
        let error = sqlx::query(refused).execute(&mut behind).await.unwrap_err();
        assert!(
            error.to_string().contains("audit log only") || error.to_string().contains("only ever added to"),
            "{refused}: {error}"
        );
    }
    for change in ["ALTER TABLE audit_log DISABLE TRIGGER USER", "UPDATE audit_log SET status = 201 WHERE seq = 3"] {
        sqlx::query(change).execute(&mut behind).await.unwrap();
    }
    let rows = journal.audit_rows(AuditPlace { behind: (0, 0), ascending: true }, 100).await.unwrap();
    let mut chain = Chain::default();
    let tampered = rows.iter().find_map(|row| chain.follow(row).err()).unwrap();
    assert_eq!((tampered.seq, chain.rows()), (3, 2), "{tampered:?}");
}
