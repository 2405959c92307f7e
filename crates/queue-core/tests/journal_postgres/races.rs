//! Two processes' worth of journals on one database, at once.

use std::collections::BTreeSet;

use queue_core::{
    ids::{Epoch, JobId},
    job::{Idempotency, NewJob},
    journal::{
        Accepted, Journal, Outcome, Reads, Settled,
        conformance::{Opened, call, death, job, retry, settlement, success, token},
        postgres::PostgresJournal,
    },
    ledger::Nanousd,
};
use testkit::PostgresServer;

use crate::Base;

/// Times that each race is run.
const ROUNDS: usize = 40;

async fn two() -> (PostgresJournal, PostgresJournal, String) {
    let (base, name) = Base::named();
    (base.journal().await, base.journal().await, name)
}

fn deadlocks(database: &str) -> String {
    PostgresServer::shared().run(database, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_idempotency_key_is_one_job() {
    let (a, b, _) = two().await;
    for round in 0..ROUNDS {
        let keyed = || {
            let idempotency =
                Some(Idempotency { owner: "acme".into(), key: round.to_string(), fingerprint: [1; 32], item: 0 });
            NewJob { idempotency, ..job() }
        };
        let (first, second) = (keyed(), keyed());
        let (x, y) = tokio::join!(a.accept(vec![first.clone()]), b.accept(vec![second.clone()]));
        let answers = [x.unwrap().remove(0), y.unwrap().remove(0)];
        let expected = [[Accepted::New, Accepted::Replayed(first.id)], [Accepted::Replayed(second.id), Accepted::New]];
        assert!(expected.contains(&answers), "{answers:?}");
    }
    assert_eq!(a.totals().await.unwrap()["default"].accepted, ROUNDS as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_idempotency_key_is_one_body() {
    let (a, b, name) = two().await;
    for round in 0..ROUNDS {
        // No item of one body is an item of the other, so only the body's own row tells them apart.
        let body = |body: u8, items: std::ops::Range<u32>| -> Vec<NewJob> {
            let keyed = |item| {
                let idempotency =
                    Some(Idempotency { owner: "acme".into(), key: round.to_string(), fingerprint: [body; 32], item });
                NewJob { idempotency, ..job() }
            };
            items.map(keyed).collect()
        };
        let (x, y) = tokio::join!(a.accept(body(1, 0..3)), b.accept(body(2, 3..6)));
        let mut answers = [x.unwrap(), y.unwrap()];
        answers.sort_by_key(|answers| answers[0] != Accepted::New);
        assert_eq!(answers, [vec![Accepted::New; 3], vec![Accepted::KeyReused; 3]]);
    }
    assert_eq!(a.totals().await.unwrap()["default"].accepted, 3 * ROUNDS as u64);
    assert_eq!(deadlocks(&name), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_unique_key_is_one_live_job() {
    let (a, b, _) = two().await;
    let store = Opened::over(a.clone());
    for _ in 0..ROUNDS {
        let unique = || NewJob { unique_key: Some("u".into()), ..job() };
        let (first, second) = (unique(), unique());
        let (x, y) = tokio::join!(a.accept(vec![first.clone()]), b.accept(vec![second.clone()]));
        let answers = [x.unwrap().remove(0), y.unwrap().remove(0)];
        let (winner, loser) = if answers[0] == Accepted::New { (first, second) } else { (second, first) };
        assert!(answers.contains(&Accepted::New) && answers.contains(&Accepted::Duplicate(winner.id)), "{answers:?}");
        assert!(a.jobs(&[loser.id]).await.unwrap()[0].is_none());
        // The next holder comes while this one ends: it gets the key, or hears who has it.
        let next = unique();
        let end = settlement(&store, token(winner.id, 0), success());
        let (ended, taken) = tokio::join!(a.settle(end), b.accept(vec![next.clone()]));
        assert!(matches!(ended.unwrap(), Settled::Done { .. }));
        match taken.unwrap().remove(0) {
            Accepted::New => _ = a.settle(settlement(&store, token(next.id, 0), success())).await.unwrap(),
            other => assert_eq!(other, Accepted::Duplicate(winner.id)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_epoch_is_settled_once() {
    let (a, b, name) = two().await;
    let store = Opened::over(a.clone());
    for outcome in [success(), retry(), death()] {
        for _ in 0..ROUNDS {
            let job = job();
            a.accept(vec![job.clone()]).await.unwrap();
            let end = |outcome: Outcome| settlement(&store, token(job.id, 0), outcome);
            let (x, y) = tokio::join!(a.settle(end(outcome.clone())), b.settle(end(success())));
            let done = [x.unwrap(), y.unwrap()].iter().filter(|s| matches!(s, Settled::Done { .. })).count();
            assert_eq!(done, 1);
            assert_eq!(a.attempts(job.id).await.unwrap().len(), 1);
        }
    }
    assert_eq!(deadlocks(&name), "0");
}

/// Workers that were taken for dead settle whole batches beside their successors, in the opposite order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opposite_batches_do_not_lock_each_other_out() {
    let (a, b, name) = two().await;
    let store = Opened::over(a.clone());
    let jobs: Vec<_> = (0..200).map(|_| job()).collect();
    a.accept(jobs.clone()).await.unwrap();
    let end = |journal: &PostgresJournal, job: &NewJob, outcome: Outcome| {
        let mut end = settlement(&store, token(job.id, 0), outcome);
        end.calls = vec![call(job, "chat", Some(1))];
        let journal = journal.clone();
        async move { journal.settle(end).await.unwrap() }
    };
    let outcome = |n: usize| if n.is_multiple_of(2) { success() } else { retry() };
    let forwards = jobs.iter().enumerate().map(|(n, job)| end(&a, job, outcome(n)));
    let backwards = jobs.iter().enumerate().rev().map(|(n, job)| end(&b, job, outcome(n + 1)));
    let (x, y) = tokio::join!(futures::future::join_all(forwards), futures::future::join_all(backwards));
    for (n, (x, y)) in x.iter().zip(y.iter().rev()).enumerate() {
        let done = [x, y].iter().filter(|settled| matches!(settled, Settled::Done { .. })).count();
        assert_eq!(done, 1, "job {n}");
    }
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    let rows = a.jobs(&ids).await.unwrap();
    assert!(rows.iter().flatten().all(|row| row.cost == Some(Nanousd(1))), "one call each, paid once");
    assert_eq!(deadlocks(&name), "0");
}

/// Bulks with the same keys in opposite orders: each key has one owner, and nobody waits in a circle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opposite_bulks_share_their_keys_out() {
    let (a, b, name) = two().await;
    for round in 0..10 {
        let bulk = |reversed: bool| -> Vec<NewJob> {
            let keyed = |n: usize| NewJob {
                queue: if n.is_multiple_of(2) { "even" } else { "odd" }.into(),
                unique_key: Some(format!("{round}/{n}")),
                idempotency: Some(Idempotency {
                    owner: "acme".into(),
                    key: format!("{round}/{n}"),
                    fingerprint: [1; 32],
                    item: 0,
                }),
                ..job()
            };
            if reversed { (0..100).rev().map(keyed).collect() } else { (0..100).map(keyed).collect() }
        };
        let (first, second) = (bulk(false), bulk(true));
        let (x, y) = tokio::join!(a.accept(first.clone()), b.accept(second.clone()));
        let (x, y) = (x.unwrap(), y.unwrap());
        for n in 0..100 {
            let (mine, other) = (&x[n], &y[99 - n]);
            let owner = |id: JobId| Accepted::Replayed(id);
            let fair = (*mine == Accepted::New && *other == owner(first[n].id))
                || (*other == Accepted::New && *mine == owner(second[99 - n].id));
            assert!(fair, "{mine:?} {other:?}");
        }
    }
    let totals = a.totals().await.unwrap();
    assert_eq!((totals["even"].accepted, totals["odd"].accepted), (500, 500));
    assert_eq!(deadlocks(&name), "0");
}

/// Many small callers of two processes: the numbers add up, and each job went through once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_of_two_processes_add_up() {
    let (a, b, _) = two().await;
    let store = Opened::over(a.clone());
    let through = |journal: PostgresJournal, n: usize| {
        let store = store.clone();
        async move {
            let job = job();
            assert_eq!(journal.accept(vec![job.clone()]).await.unwrap(), [Accepted::New]);
            let loaded = journal.load(&[token(job.id, 0)], job.run_at).await.unwrap();
            assert_eq!(loaded[0].as_ref().unwrap().payload, job.payload);
            let outcome = if n.is_multiple_of(10) { death() } else { success() };
            journal.settle(settlement(&store, token(job.id, 0), outcome)).await.unwrap();
            job.id
        }
    };
    let tasks =
        (0..400_usize).map(|n| tokio::spawn(through(if n.is_multiple_of(2) { a.clone() } else { b.clone() }, n)));
    let ids: BTreeSet<_> = futures::future::try_join_all(tasks).await.unwrap().into_iter().collect();
    assert_eq!(ids.len(), 400);
    let totals = b.totals().await.unwrap()["default"];
    assert_eq!((totals.accepted, totals.succeeded, totals.dead), (400, 360, 40));
    assert_eq!(b.live_counts().await.unwrap()["default"], 0);
    let rows = b.jobs(&ids.into_iter().collect::<Vec<_>>()).await.unwrap();
    assert!(rows.iter().flatten().all(|row| row.epoch == Epoch(0) && row.attempts == 1));
}
