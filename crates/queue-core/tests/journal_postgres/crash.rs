//! Connections that end around a COMMIT: nobody is answered with what is not so.

use std::{sync::Arc, time::Duration};

use queue_core::{
    ids::{Epoch, OperationId},
    job::NewJob,
    journal::{
        Accepted, Journal, JournalError, Reads, Settled,
        conformance::{NOW, Opened, call, death, job, release, retry, settlement, success, token},
        postgres::{PostgresConfig, PostgresJournal, connect, migrate},
    },
    ledger::Nanousd,
    operations::{Action, Begun, Order, Pick, Step, Stepped},
    state::Standing,
    time::ManualClock,
};
use testkit::{PostgresServer, SUPERUSER};
use tokio::time::Instant;

use crate::{
    Base,
    proxy::{Fault, Proxy},
};

/// Every way in which the answer to a COMMIT can be missing.
const FAULTS: [Fault; 3] = [Fault::AnswerLost, Fault::CommitLost, Fault::CommitLate];

async fn through_proxy() -> (Proxy, PostgresJournal) {
    let (base, name) = Base::named();
    let proxy = Proxy::to(&name).await;
    let url = format!("postgres://{SUPERUSER}@127.0.0.1:{}/{name}?sslmode=disable", proxy.port);
    let journal = PostgresJournal::open(&PostgresConfig::new(url), Arc::new(base.clock.clone())).await.unwrap();
    (proxy, journal)
}

#[tokio::test]
async fn an_accept_whose_commit_is_not_answered_is_there_once() {
    let (proxy, journal) = through_proxy().await;
    for fault in FAULTS {
        let keyed = NewJob { unique_key: Some(format!("{fault:?}")), ..job() };
        let before = journal.totals().await.unwrap().get("default").copied().unwrap_or_default().accepted;
        proxy.arm(fault);
        let answers = journal.accept(vec![keyed.clone(), job()]).await.unwrap();
        assert_eq!(answers, [Accepted::New, Accepted::New], "{fault:?}");
        assert_eq!(journal.totals().await.unwrap()["default"].accepted, before + 2, "{fault:?}");
        let another = NewJob { id: job().id, ..keyed.clone() };
        assert_eq!(journal.accept(vec![another]).await.unwrap(), [Accepted::Duplicate(keyed.id)], "{fault:?}");
    }
    assert_eq!(proxy.happened(), FAULTS.len());
}

/// Without keys one statement accepts, and is the commit too.
#[tokio::test]
async fn an_accept_in_one_statement_that_is_not_answered_is_there_once() {
    let (proxy, journal) = through_proxy().await;
    let faults = [Fault::AnswerLost, Fault::CommitLost];
    for fault in faults {
        let before = journal.totals().await.unwrap().get("default").copied().unwrap_or_default().accepted;
        let (one, other) = (job(), job());
        proxy.arm_for(fault, one.id.as_bytes());
        let answers = journal.accept(vec![one.clone(), other.clone()]).await.unwrap();
        assert_eq!(answers, [Accepted::New, Accepted::New], "{fault:?}");
        assert_eq!(journal.totals().await.unwrap()["default"].accepted, before + 2, "{fault:?}");
        assert!(journal.jobs(&[one.id, other.id]).await.unwrap().iter().all(Option::is_some), "{fault:?}");
    }
    assert_eq!(proxy.happened(), faults.len());
}

#[tokio::test]
async fn a_settle_whose_commit_is_not_answered_is_done_and_not_fenced() {
    let (proxy, journal) = through_proxy().await;
    let store = Opened::over(journal.clone());
    let (live, later) = (Standing::Live, NOW.plus_ms(1_000));
    for fault in FAULTS {
        for (outcome, standing, epoch, run_at) in [
            (success(), Standing::Succeeded, Epoch(0), NOW),
            (death(), Standing::Dead, Epoch(0), NOW),
            (retry(), live, Epoch(1), later),
            (release(), live, Epoch(1), NOW.plus_ms(2_000)),
        ] {
            let job = job();
            journal.accept(vec![job.clone()]).await.unwrap();
            let mut end = settlement(&store, token(job.id, 0), outcome);
            end.calls = vec![call(&job, "chat", Some(7))];
            proxy.arm(fault);
            let settled = journal.settle(end.clone()).await.unwrap();
            assert_eq!(settled, Settled::Done { standing, epoch, run_at }, "{fault:?}");
            assert_eq!(journal.attempts(job.id).await.unwrap().len(), 1, "{fault:?}");
            let row = journal.jobs(&[job.id]).await.unwrap().pop().flatten().unwrap();
            assert_eq!((row.standing, row.epoch, row.cost), (standing, epoch, Some(Nanousd(7))), "{fault:?}");
            let other = settlement(&store, token(job.id, 0), success());
            assert_eq!(journal.settle(other).await.unwrap(), Settled::Fenced, "another session is no repeat");
        }
    }
    assert_eq!(proxy.happened(), 4 * FAULTS.len());
}

#[tokio::test]
async fn a_payment_whose_commit_is_not_answered_is_counted_once() {
    let (proxy, journal) = through_proxy().await;
    for fault in FAULTS {
        let job = job();
        journal.accept(vec![job.clone()]).await.unwrap();
        proxy.arm(fault);
        journal.record(call(&job, "chat", Some(5))).await.unwrap();
        let row = journal.jobs(&[job.id]).await.unwrap().pop().flatten().unwrap();
        assert_eq!(row.cost, Some(Nanousd(5)), "{fault:?}");
        assert_eq!(journal.memos(job.id).await.unwrap().len(), 1, "{fault:?}");
    }
    assert_eq!(proxy.happened(), FAULTS.len());
}

/// What is rarely asked is not read again: the caller hears that nobody knows, and asks.
#[tokio::test]
async fn a_cancel_whose_commit_is_not_answered_says_so() {
    let (proxy, journal) = through_proxy().await;
    let job = job();
    journal.accept(vec![job.clone()]).await.unwrap();
    proxy.arm(Fault::AnswerLost);
    assert!(journal.cancel(job.id, None, None, NOW).await.is_err());
    let row = journal.jobs(&[job.id]).await.unwrap().pop().flatten().unwrap();
    assert_eq!(row.standing, Standing::Cancelled);
}

/// Sessions that Postgres ends while nothing is asked cost nobody an error.
#[tokio::test]
async fn terminated_sessions_are_replaced() {
    let (base, name) = Base::named();
    let journal = base.journal().await;
    for _ in 0..3 {
        let asked: Vec<_> = (0..8).map(|_| journal.totals()).collect();
        futures::future::try_join_all(asked).await.unwrap();
        journal.accept(vec![job()]).await.unwrap();
        let end = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        );
        PostgresServer::shared().run("postgres", &end);
    }
    assert_eq!(journal.totals().await.unwrap()["default"].accepted, 3);
}

/// While Postgres is down, nobody is told that something is done; once it is back, everything goes on by itself.
#[tokio::test]
async fn a_crash_of_postgres_loses_nothing_that_was_answered() {
    let server = Arc::new(tokio::task::spawn_blocking(PostgresServer::start).await.unwrap());
    let config = PostgresConfig {
        // Short, because the test waits for it.
        acquire_timeout: Duration::from_millis(300),
        ..PostgresConfig::new(server.database())
    };
    migrate(&mut connect(&config).await.unwrap()).await.unwrap();
    let journal = PostgresJournal::open(&config, Arc::new(ManualClock::at(NOW))).await.unwrap();
    let store = Opened::over(journal.clone());
    let (kept, ended, refused) = (job(), job(), job());
    journal.accept(vec![kept.clone(), ended.clone()]).await.unwrap();
    journal.settle(settlement(&store, token(ended.id, 0), success())).await.unwrap();

    tokio::task::spawn_blocking({
        let server = server.clone();
        move || server.crash()
    })
    .await
    .unwrap();
    let unavailable = |error: JournalError| matches!(error, JournalError::Unavailable(_));
    assert!(unavailable(journal.accept(vec![refused.clone()]).await.unwrap_err()));
    assert!(unavailable(journal.settle(settlement(&store, token(kept.id, 0), success())).await.unwrap_err()));
    assert!(unavailable(journal.load(&[token(kept.id, 0)], NOW).await.unwrap_err()));
    assert!(unavailable(journal.check().await.unwrap_err()));

    tokio::task::spawn_blocking({
        let server = server.clone();
        move || server.resume()
    })
    .await
    .unwrap();
    journal.check().await.unwrap();
    assert_eq!(journal.accept(vec![refused.clone()]).await.unwrap(), [Accepted::New], "it was not there");
    let rows = journal.jobs(&[kept.id, ended.id]).await.unwrap();
    let standings: Vec<_> = rows.iter().flatten().map(|row| row.standing).collect();
    assert_eq!(standings, [Standing::Live, Standing::Succeeded]);
    let end = settlement(&store, token(kept.id, 0), success());
    assert!(matches!(journal.settle(end).await.unwrap(), Settled::Done { .. }));
    drop((journal, store));
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}

/// Nobody waits for the pool's patience where Postgres is not there, and an answer is known as soon as it is back.
#[tokio::test]
async fn who_asks_a_postgres_that_is_away_is_told_long_before_the_pool_gives_up() {
    let patience = Duration::from_secs(120);
    let server = Arc::new(tokio::task::spawn_blocking(PostgresServer::start).await.unwrap());
    let config = PostgresConfig { acquire_timeout: patience, ..PostgresConfig::new(server.database()) };
    migrate(&mut connect(&config).await.unwrap()).await.unwrap();
    let journal = PostgresJournal::open(&config, Arc::new(ManualClock::at(NOW))).await.unwrap();
    journal.accept(vec![job()]).await.unwrap();
    let crashed = server.clone();
    tokio::task::spawn_blocking(move || crashed.crash()).await.unwrap();
    let began = Instant::now();
    // The first one meets the connections that were open; a write on one of those has to be looked for afterwards.
    assert!(matches!(journal.totals().await, Err(JournalError::Unavailable(_))));
    assert!(matches!(journal.accept(vec![job()]).await, Err(JournalError::Unavailable(_))));
    let tenant = journal.bound_to(&"default".into());
    assert!(matches!(tenant.jobs(&[job().id]).await, Err(JournalError::Unavailable(_))));
    assert!(began.elapsed() < patience / 4, "{:?}", began.elapsed());
    let resumed = server.clone();
    tokio::task::spawn_blocking(move || resumed.resume()).await.unwrap();
    let again = async {
        while journal.accept(vec![job()]).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(patience, again).await.unwrap();
    drop((journal, tenant));
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}

/// A crowd is no outage: who waits for a connection, or for a lock, longer than an outage may last, is answered.
#[tokio::test]
async fn who_waits_for_a_busy_postgres_is_not_sent_away() {
    let (base, name) = Base::named();
    let config = PostgresConfig { pool_size: 1, ..base.config.clone() };
    let journal = PostgresJournal::open(&config, Arc::new(base.clock.clone())).await.unwrap();
    let held = tokio::task::spawn_blocking(move || {
        PostgresServer::shared().run(&name, "BEGIN; LOCK TABLE jobs; SELECT pg_sleep(3); COMMIT")
    });
    while journal.totals().await.is_ok_and(|_| !held.is_finished()) {
        let asked = futures::future::join_all((0..4).map(|_| journal.accept(vec![job()]))).await;
        assert!(asked.iter().all(|answer| matches!(answer.as_deref(), Ok([Accepted::New]))), "{asked:?}");
    }
    held.await.unwrap();
}

/// Whether the answer, the commit or both are lost: effects, place and counts are there together, or none of them is.
#[tokio::test]
async fn a_step_whose_commit_is_not_answered_is_done_whole_or_not_at_all() {
    let (proxy, journal) = through_proxy().await;
    let store = Opened::over(journal.clone());
    for fault in FAULTS {
        let mut picks = Vec::new();
        for _ in 0..3 {
            let job = job();
            journal.accept(vec![job.clone()]).await.unwrap();
            journal.settle(settlement(&store, token(job.id, 0), death())).await.unwrap();
            picks.push(Pick { id: job.id, epoch: Epoch(0), cost: None, holder: None });
        }
        let (id, owner) = (OperationId::generate(), uuid::Uuid::now_v7());
        let order = Order {
            action: Action::Redrive,
            goal: None,
            filter: "state = dead".into(),
            queue: None,
            dry_run: false,
            rate_per_s: 1,
            max_jobs: None,
            max_cost: None,
            force: false,
            reason: None,
            asked_by: "abcd1234".into(),
        };
        let Begun::New(operation) = store.operations.begin(id, order, NOW).await.unwrap() else { panic!() };
        let operation = store.operations.take(id, operation.beat, Some(owner)).await.unwrap().unwrap();
        let ids: Vec<_> = picks.iter().map(|pick| pick.id).collect();
        let step = Step { picks, behind: Some(ids[0]), ..Step::beat(&operation, owner) };
        proxy.arm(fault);
        let answer = store.operations.step(step.clone(), NOW).await;
        assert!(matches!(answer, Err(JournalError::Unavailable(_))), "{fault:?}: nobody knows, and it says so");
        // Until whatever was on its way has arrived: a commit that comes late holds the row until then.
        let after = store.operations.take(id, operation.beat, Some(owner)).await.unwrap();
        let after = match after {
            Some(untouched) => untouched,
            None => store.operations.operation(id).await.unwrap().unwrap(),
        };
        let redriven = journal.jobs(&ids).await.unwrap().into_iter().flatten().filter(|job| job.redrives == 1).count();
        assert_eq!(after.counts.done, redriven as u64, "{fault:?}");
        assert!(redriven == 0 || redriven == 3, "{fault:?}: {redriven}");
        assert_eq!(after.behind, (redriven == 3).then_some(ids[0]), "{fault:?}");
        let rest = Step { beat: after.beat, ..step };
        let Stepped::Done { operation, .. } = store.operations.step(rest, NOW).await.unwrap() else { panic!() };
        assert_eq!(operation.counts.done, 3, "{fault:?}: its walker goes on with what the row says");
        store.operations.abort(id, NOW).await.unwrap();
    }
    assert_eq!(proxy.happened(), FAULTS.len());
}
