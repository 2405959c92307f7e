//! Days: made ahead, found by id, dropped whole.

use std::sync::Arc;

use queue_core::{
    journal::{
        Journal, Reads,
        conformance::{Opened, call, death, job, settlement, success, token},
        postgres::PostgresJournal,
    },
    time::{Clock, SystemClock},
};
use testkit::PostgresServer;

use crate::Base;

const DAY_MS: i64 = 86_400_000;

fn table_of(database: &str, table: &str) -> String {
    PostgresServer::shared().run(database, &format!("SELECT DISTINCT tableoid::regclass FROM {table}"))
}

#[tokio::test]
async fn a_settled_job_leaves_the_hot_table_for_its_day() {
    let (base, name) = Base::named();
    // Ids carry the machine's time.
    let journal = PostgresJournal::open(&base.config, Arc::new(SystemClock)).await.unwrap();
    let store = Opened::over(journal.clone());
    let (done, dead) = (job(), job());
    journal.accept(vec![done.clone(), dead.clone()]).await.unwrap();
    let day = table_of(&name, "payloads");
    assert!(day.starts_with("payloads_2"), "{day}");
    let mut end = settlement(&store, token(done.id, 0), success());
    end.calls = vec![call(&done, "chat", Some(3))];
    journal.settle(end).await.unwrap();
    journal.settle(settlement(&store, token(dead.id, 0), death())).await.unwrap();
    assert_eq!(table_of(&name, "settled_jobs"), day.replace("payloads", "settled_jobs"));
    assert_eq!(table_of(&name, "attempts"), day.replace("payloads", "attempts"));
    let hot = PostgresServer::shared().run(&name, "SELECT string_agg(standing::text, ' ') FROM jobs");
    assert_eq!(hot, "2", "only the dead letter is left");

    let long_after = SystemClock.now().plus_ms(3 * DAY_MS);
    assert_eq!(journal.prune(SystemClock.now().plus_ms(-DAY_MS)).await.unwrap(), 0, "today is not over");
    let empty_days = journal.prune(long_after).await.unwrap();
    assert_eq!(empty_days % 4, 0, "the four tables of a day go together");
    assert!(journal.jobs(&[done.id]).await.unwrap()[0].is_some(), "a day with a dead letter is kept");
    journal.redrive(dead.id, long_after).await.unwrap();
    journal.settle(settlement(&store, token(dead.id, 1), success())).await.unwrap();
    assert_eq!(journal.prune(long_after).await.unwrap(), 4);
    assert!(journal.jobs(&[done.id, dead.id]).await.unwrap().iter().all(Option::is_none));
    assert_eq!(journal.payload(done.id).await.unwrap(), None);
    assert_eq!(journal.calls(done.id).await.unwrap().len(), 1, "money outlives the job");
}

#[tokio::test]
async fn days_are_made_ahead_once() {
    let (base, name) = Base::named();
    let count = || {
        PostgresServer::shared().run(&name, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'payloads'::regclass")
    };
    let (a, b) = tokio::join!(base.journal(), base.journal());
    assert_eq!(count(), "9", "eight days and the rest");
    drop((a, b, base.journal().await));
    assert_eq!(count(), "9");
}
