//! Days: made ahead, found by id, dropped whole once nothing in them can be needed.

use std::{sync::Arc, time::Duration};

use queue_core::{
    ids::JobId,
    job::NewJob,
    journal::{
        CostColumn, CostQuery, Journal, JournalError, Ledger, Reads,
        conformance::{NOW, Opened, call, death, job, settlement, success, token},
        postgres::{PostgresJournal, connect},
    },
    retention::{Cutoffs, Day, Part, Policy, Retention, Rows, droppable},
    time::{ManualClock, SystemClock, Timestamp},
};
use testkit::PostgresServer;
use uuid::Uuid;

use crate::Base;

const DAY_MS: i64 = 86_400_000;
const PARTS: [Part; 4] = [Part::Jobs, Part::Payloads, Part::Memos, Part::Errors];

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
}

/// A backup holds every table: whoever starts meanwhile does not wait for it, and what is missing is made later.
#[tokio::test]
async fn whoever_starts_beside_a_backup_makes_partitions_later() {
    let (base, name) = Base::named();
    let clock = ManualClock::at(NOW);
    let open = async || drop(PostgresJournal::open(&base.config, Arc::new(clock.clone())).await.unwrap());
    open().await;
    let days = || {
        let count = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'payloads'::regclass";
        PostgresServer::shared().run(&name, count)
    };
    let before = days();
    let mut backup = connect(&base.config).await.unwrap();
    let hold = "BEGIN; LOCK TABLE payloads_default IN ACCESS SHARE MODE";
    sqlx::raw_sql(hold).execute(&mut backup).await.unwrap();
    clock.advance_ms(DAY_MS);
    open().await;
    assert_eq!(days(), before);
    sqlx::raw_sql("ROLLBACK").execute(&mut backup).await.unwrap();
    open().await;
    assert_ne!(days(), before);
}

/// A job of a day, whose id says so.
fn job_of(day: Timestamp, number: u128) -> NewJob {
    let id =
        JobId(Uuid::from_u128(JobId::first_of(day.plus_ms(1_000)).0.as_u128() | 0x7000_8000_0000_0000_0000 | number));
    NewJob { id, accepted_at: day.plus_ms(1_000), run_at: day.plus_ms(1_000), ..job() }
}

/// Settles a job at this moment.
async fn end(store: &Opened, job: &NewJob, at: Timestamp, epoch: i64) {
    let mut end = settlement(store, token(job.id, epoch), success());
    (end.started_at, end.finished_at) = (at, at);
    end.calls = vec![call(job, "chat", Some(500))];
    store.journal.settle(end).await.unwrap();
}

async fn drop_all(journal: &PostgresJournal, now: Timestamp) -> Vec<(Part, Timestamp)> {
    let policy = Policy { payloads_ms: Some(90 * DAY_MS), ..Policy::default() };
    let cutoff = Cutoffs::of(&policy, &Default::default(), now).of_all().unwrap();
    let days = journal.days(cutoff).await.unwrap().unwrap();
    let mut dropped = Vec::new();
    for part in PARTS {
        for day in droppable(&days, part, Some(cutoff)).0 {
            // Somebody else looks at it, or drops it: the role comes again, too.
            let bytes = loop {
                match journal.drop_day(part, day.day, cutoff).await {
                    Err(JournalError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                    dropped => break dropped.unwrap(),
                }
            };
            if bytes.is_some() {
                dropped.push((part, day.day));
            }
        }
    }
    dropped
}

/// A month of days, of which one has a live job, one a job that ended late, and all others have ended: these go, two at once or not,
/// and the money stays to the nano-USD.
#[tokio::test]
async fn days_go_whole_but_for_those_that_are_needed() {
    let (base, name) = Base::named();
    let first = Timestamp((NOW.0 / DAY_MS - 200) * DAY_MS);
    PostgresServer::shared().run(&name, &format!("SELECT create_partitions({}, 6)", first.0));
    let journal = base.journal().await;
    let store = Opened::over(journal.clone());
    let days: Vec<Timestamp> = (0..6).map(|number| first.plus_ms(number * DAY_MS)).collect();
    let mut jobs = Vec::new();
    for (number, day) in days.iter().enumerate() {
        jobs.extend([job_of(*day, 2 * number as u128), job_of(*day, 2 * number as u128 + 1)]);
    }
    journal.accept(jobs.clone()).await.unwrap();
    let (live, late) = (&jobs[3], &jobs[5]);
    for one in jobs.iter().filter(|one| ![live.id, late.id].contains(&one.id)) {
        end(&store, one, one.accepted_at.plus_ms(5_000), 0).await;
    }
    end(&store, late, late.accepted_at.plus_ms(80 * DAY_MS), 0).await;
    let spent = async || {
        let query = CostQuery::new(&[CostColumn::Queue, CostColumn::Day], first, NOW.plus_ms(DAY_MS));
        journal.costs(&query).await.unwrap()
    };
    let before = spent().await;

    // Each day two days after its begin and the age.
    let at = |days_after: i64| first.plus_ms((92 + days_after) * DAY_MS);
    assert_eq!(drop_all(&journal, at(0).plus_ms(-1)).await, []);
    assert_eq!(journal.drop_day(Part::Jobs, first, at(0).plus_ms(-90 * DAY_MS - 1)).await.unwrap(), None);
    let seen: Vec<Day> = journal.days(days[3]).await.unwrap().unwrap();
    assert_eq!(seen.len(), 3 * 4, "three days of four tables");
    let of = |day: usize| *seen.iter().find(|one| one.part == Part::Jobs && one.day == days[day]).unwrap();
    assert_eq!((of(0).rows, of(0).live, of(0).last_end), (2, 0, None));
    assert_eq!((of(1).rows, of(1).live), (1, 1));
    assert_eq!((of(2).rows, of(2).last_end), (2, Some(late.accepted_at.plus_ms(80 * DAY_MS))));

    let other = base.journal().await;
    let now = at(4);
    let (mine, theirs) = tokio::join!(drop_all(&journal, now), drop_all(&other, now));
    let mut dropped = [mine, theirs].concat();
    dropped.sort_unstable();
    let mut expected: Vec<_> =
        PARTS.into_iter().flat_map(|part| [days[0], days[3], days[4]].map(|day| (part, day))).collect();
    expected.sort_unstable();
    assert_eq!(dropped, expected, "each once, and not the days that are held, nor the one that is young");
    let there = journal.jobs(&jobs.iter().map(|one| one.id).collect::<Vec<_>>()).await.unwrap();
    let there: Vec<_> = there.iter().map(Option::is_some).collect();
    assert_eq!(there, [false, false, true, true, true, true, false, false, false, false, true, true]);
    for (at, one) in jobs.iter().enumerate() {
        assert_eq!(journal.payload(one.id).await.unwrap().is_some(), there[at], "payloads go with their jobs");
        let has_result = journal.result(one.id).await.unwrap().is_some();
        assert_eq!(has_result, there[at] && one.id != live.id, "no result outlives its job");
        assert_eq!(journal.calls(one.id).await.unwrap().len(), usize::from(one.id != live.id), "money does");
    }
    assert_eq!(spent().await, before);

    // The live job runs, and its day has to wait for its own age then.
    assert!(journal.load(&[token(live.id, 0)], now).await.unwrap()[0].is_some());
    end(&store, live, now, 0).await;
    assert_eq!(drop_all(&journal, now.plus_ms(90 * DAY_MS)).await.len(), 2 * 4, "the late one, and the young one");
    assert_eq!(drop_all(&journal, now.plus_ms(90 * DAY_MS + 1)).await.len(), 4);
    while journal.reclaim_day().await.unwrap() {}
    for gone in [1, 1, 0] {
        let swept = journal.sweep(Rows::DayNotes, now, 1).await.unwrap();
        assert_eq!(swept, gone, "what is noted of a day goes after it");
    }
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

/// A day that somebody reads for long is left alone for now, and nobody else waits behind it.
#[tokio::test]
async fn a_day_in_use_is_dropped_later() {
    let (base, name) = Base::named();
    let day = Timestamp((NOW.0 / DAY_MS - 200) * DAY_MS);
    PostgresServer::shared().run(&name, &format!("SELECT create_partitions({}, 1)", day.0));
    let journal = base.journal().await;
    let mut reader = connect(&base.config).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM payloads").execute(&mut reader).await.unwrap();
    assert!(journal.drop_day(Part::Payloads, day, NOW).await.is_err());
    journal.accept(vec![job()]).await.unwrap();
    sqlx::raw_sql("COMMIT").execute(&mut reader).await.unwrap();
    assert!(journal.drop_day(Part::Payloads, day, NOW).await.unwrap().is_some());
    assert_eq!(journal.drop_day(Part::Payloads, day, NOW).await.unwrap(), None, "once");
    // Whoever dropped it died before its space was given back: anybody else does it.
    let tables =
        || PostgresServer::shared().run(&name, "SELECT count(*) FROM pg_class WHERE relname ~ '^payloads_[0-9]{8}$'");
    let before: u64 = tables().trim().parse().unwrap();
    let other = base.journal().await;
    assert!(other.reclaim_day().await.unwrap() && !other.reclaim_day().await.unwrap());
    assert_eq!(tables().trim().parse::<u64>().unwrap(), before - 1);
}
