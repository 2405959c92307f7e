//! Upkeep: what the statistics tell is done, one chore at a time, and by who owns the tables.

use std::time::Duration;

use queue_core::{
    journal::postgres::connect,
    upkeep::{Chore, Tended, Thresholds, Upkeep, due},
};
use sqlx::{PgConnection, Row};

use crate::Base;

const LONG: Duration = Duration::from_secs(60);

/// Half of an index is for nothing, an index was left half built, many rows are dead: all of it is found and mended.
#[tokio::test]
async fn what_has_grown_is_found_and_mended() {
    let base = Base::fresh();
    let journal = base.journal().await;
    let mut connection = connect(&base.config).await.unwrap();
    for text in [
        "CREATE TABLE grown (id bigint NOT NULL PRIMARY KEY, twice integer) WITH (autovacuum_enabled = FALSE)",
        "INSERT INTO grown SELECT n, 1 FROM generate_series(1, 60000) AS n",
        "DELETE FROM grown WHERE id % 20 <> 0",
    ] {
        sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
    }
    // Rows that are the same cannot have a unique index, and what was built of it stays.
    sqlx::raw_sql("CREATE UNIQUE INDEX CONCURRENTLY grown_twice_ccnew ON grown (twice)")
        .execute(&mut connection)
        .await
        .unwrap_err();
    let thresholds = Thresholds { bloat_least_bytes: 100_000, ..Thresholds::default() };
    // The statistics of a session come out at once if it is told to.
    let flushed = async |connection: &mut PgConnection| {
        sqlx::raw_sql("SELECT pg_stat_force_next_flush()").execute(connection).await.ok();
    };
    flushed(&mut connection).await;
    let chores = async || {
        let state = journal.store_state().await.unwrap();
        assert_eq!((state.missing_right.as_deref(), state.is_busy), (None, false));
        let now = journal.server_now().await.unwrap().unwrap();
        let due = due(&state, &thresholds, now).into_iter().map(|due| due.chore);
        due.filter(|chore| chore.on().is_some_and(|on| on.starts_with("grown"))).collect::<Vec<_>>()
    };
    assert_eq!(chores().await, [Chore::DropLeftover("grown_twice_ccnew".into()), Chore::Vacuum("grown".into())]);
    for chore in chores().await {
        journal.tend(&chore, LONG).await.unwrap();
    }
    assert_eq!(chores().await, [Chore::Reindex("grown_pkey".into())], "now that its entries are counted");
    // Row-level security hides the statistics of columns from whoever it could bind.
    sqlx::raw_sql("DELETE FROM pg_statistic WHERE starelid = 'grown'::regclass")
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(chores().await, [Chore::Reindex("grown_pkey".into())]);
    let Tended::Done { before_bytes, after_bytes } =
        journal.tend(&Chore::Reindex("grown_pkey".into()), LONG).await.unwrap()
    else {
        panic!("nobody else is at it")
    };
    assert!(after_bytes * 3 < before_bytes, "{before_bytes} {after_bytes}");
    assert_eq!(chores().await, []);
    let rows: i64 = sqlx::query("SELECT count(*) FROM grown").fetch_one(&mut connection).await.unwrap().get(0);
    assert_eq!(rows, 3_000);
    let nothing = Tended::Done { before_bytes: 0, after_bytes: 0 };
    assert_eq!(journal.tend(&Chore::Analyze("gone".into()), LONG).await.unwrap(), nothing, "it was dropped meanwhile");
    assert_eq!(journal.tend(&Chore::DropLeftover("grown_pkey".into()), LONG).await.unwrap(), nothing, "it is whole");
}

#[tokio::test]
async fn one_is_at_it_and_a_lock_is_not_waited_for_long() {
    let base = Base::fresh();
    let journal = base.journal().await;
    let mut other = connect(&base.config).await.unwrap();
    sqlx::raw_sql("SELECT pg_try_advisory_lock(x'4c53484f'::integer, 6)").execute(&mut other).await.unwrap();
    assert!(journal.store_state().await.unwrap().is_busy);
    assert_eq!(journal.tend(&Chore::Analyze("jobs".into()), LONG).await.unwrap(), Tended::Busy);
    sqlx::raw_sql("SELECT pg_advisory_unlock_all()").execute(&mut other).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE queues IN ACCESS EXCLUSIVE MODE").execute(&mut other).await.unwrap();
    assert!(journal.tend(&Chore::Vacuum("queues".into()), LONG).await.is_err());
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    journal.tend(&Chore::Vacuum("queues".into()), LONG).await.unwrap();
    assert!(!journal.store_state().await.unwrap().is_busy, "whoever was at it has left");
}
