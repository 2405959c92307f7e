//! Cases of what is old: what goes, in steps that may be made again, and what never does.

use super::{Fixture, NOW, Opened, accept_new, call, death, job, retry, row, settle, settlement, success, token};
use crate::{
    ids::{JobId, Name},
    job::{Idempotency, NewJob},
    journal::{Accepted, CostColumn, CostQuery, CostRow},
    retention::{Class, LOOK_AGAIN_MS, Looked, Note, Rows, Witness},
    schedule::WINDOW_MAX_MS,
    state::Standing,
    time::{DAY_MS, Timestamp},
};

/// So much longer than others the keys of ticks are kept.
const TICKS_LONGER_MS: i64 = WINDOW_MAX_MS + DAY_MS;
/// Long after every id of this suite was made.
const LATER: Timestamp = Timestamp(NOW.0 + 1_000 * DAY_MS);

/// Of two who have seen one beat, one gets the turn; an order that comes meanwhile is followed by another run.
pub async fn one_has_the_turn(fixture: &dyn Fixture) {
    let store = fixture.open().await.retention;
    let first = store.turn().await.unwrap();
    assert!(first.is_due(NOW) && first.began_at.is_none());
    let until = NOW.plus_ms(500);
    let turn = store.take_turn(first.beat, NOW, until).await.unwrap().unwrap();
    assert!(store.take_turn(first.beat, NOW, until).await.unwrap().is_none());
    assert!(!turn.is_due(NOW.plus_ms(499)) && turn.is_due(until), "one that is not given back ends by itself");
    let order = store.order_turn().await.unwrap();
    assert!(store.turn().await.unwrap().is_due(NOW));
    store.end_turn(turn.beat, NOW.plus_ms(7), LATER, Some("a day is in use".into())).await.unwrap();
    let seen = store.turn().await.unwrap();
    assert!(seen.is_due(NOW.plus_ms(8)) && seen.served < order, "the order came after the run had begun");
    assert_eq!(seen.remains.as_deref(), Some("a day is in use"));
    let turn = store.take_turn(seen.beat, NOW.plus_ms(9), until).await.unwrap().unwrap();
    store.end_turn(first.beat, NOW, NOW, None).await.unwrap();
    assert_eq!(store.turn().await.unwrap(), turn, "whoever has lost it gives nothing back");
    store.end_turn(turn.beat, NOW.plus_ms(10), LATER, None).await.unwrap();
    let seen = fixture.open().await.retention.turn().await.unwrap();
    assert_eq!((seen.served, seen.ended_at, seen.due_at), (order, Some(NOW.plus_ms(10)), LATER));
    assert!(!seen.is_due(NOW.plus_ms(11)) && seen.remains.is_none());
}

/// Four jobs: a success, a cancelled one, a dead letter, a live one with an attempt behind it.
async fn four(store: &Opened) -> [NewJob; 4] {
    let jobs = [job(), job(), job(), job()];
    for one in &jobs {
        accept_new(store, one).await;
    }
    let [done, cancelled, dead, live] = &jobs;
    let mut end = settlement(store, token(done.id, 0), success());
    end.calls = vec![call(done, "chat", Some(700))];
    store.journal.settle(end).await.unwrap();
    store.journal.cancel(cancelled.id, None, None, NOW.plus_ms(20)).await.unwrap();
    settle(store, token(dead.id, 0), death()).await;
    settle(store, token(live.id, 0), retry()).await;
    jobs
}

/// Settled jobs with all that is kept of them; never one that may run, never money, and never twice.
pub async fn settled_jobs_go_with_all_that_is_kept_of_them(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let before = store.retention.witness().await.unwrap();
    let jobs = four(&store).await;
    match before {
        Witness::Clock(at) => assert!(at > Timestamp(0), "{at}"),
        Witness::Newest(none) => {
            assert_eq!(none, None);
            assert!(matches!(store.retention.witness().await.unwrap(), Witness::Newest(Some(at)) if at >= NOW));
        }
    }
    let page = store.retention.settled(None, JobId::first_of(LATER), 100).await.unwrap();
    let ended: Vec<_> = page.iter().filter(|row| row.finished_at.is_some()).map(|row| row.id).collect();
    let mut expected = [jobs[0].id, jobs[1].id];
    expected.sort_unstable();
    assert_eq!(ended, expected);
    assert!(page.is_sorted_by_key(|row| row.id));
    let rest = store.retention.settled(page.first().map(|row| row.id), JobId::first_of(LATER), 100).await.unwrap();
    assert_eq!(rest.len(), page.len() - 1, "a page begins behind the one before it");
    assert!(store.retention.settled(None, JobId::first_of(Timestamp(5)), 100).await.unwrap().is_empty());

    let mut picks = Vec::new();
    for one in &jobs {
        picks.push((one.id, row(&store, one.id).await.epoch));
    }
    let wrong = vec![(jobs[0].id, picks[0].1.next())];
    assert_eq!(store.retention.forget_jobs(wrong).await.unwrap(), 0, "it had another life since");
    assert_eq!(store.retention.forget_jobs(picks.clone()).await.unwrap(), 2);
    assert_eq!(store.retention.forget_jobs(picks).await.unwrap(), 0);
    let there = store.reads.jobs(&jobs.each_ref().map(|one| one.id)).await.unwrap();
    assert_eq!(there.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true, true]);
    let gone = jobs[0].id;
    assert_eq!((store.reads.payload(gone).await.unwrap(), store.reads.result(gone).await.unwrap()), (None, None));
    assert!(
        store.reads.attempts(gone).await.unwrap().is_empty() && store.journal.memos(gone).await.unwrap().is_empty()
    );
    assert_eq!(store.reads.calls(gone).await.unwrap().len(), 1, "money outlives the job");
    let totals = store.reads.totals().await.unwrap()[&Name::from("default")];
    assert_eq!((totals.succeeded, totals.cancelled, totals.dead), (1, 1, 1), "they count since the queue exists");
}

/// A result that has a time of its own goes after it, and its job stays a success.
pub async fn a_result_goes_before_its_job(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let kept = |ms: u64| NewJob { result_ttl_ms: Some(ms), ..job() };
    let (short, long, live, cancelled) = (kept(1_000), kept(5_000), kept(1_000), kept(1_000));
    let (dead, usual) = (kept(1_000), job());
    // Beside others, as a bulk has them.
    let all = [&short, &long, &live, &cancelled, &dead, &usual].map(NewJob::clone).to_vec();
    store.journal.accept(all.clone()).await.unwrap();
    assert_eq!(store.journal.accept(all).await.unwrap(), vec![Accepted::New; 6], "asking again changes nothing");
    for one in [&short, &long, &usual] {
        settle(&store, token(one.id, 0), success()).await;
    }
    settle(&store, token(dead.id, 0), death()).await;
    store.journal.cancel(cancelled.id, None, None, NOW).await.unwrap();
    let step = async |ms: i64| store.retention.expire_results(NOW.plus_ms(ms), 100).await.unwrap();
    let looked = async |ms: i64| step(ms).await.looked;
    let has = async |one: &NewJob| store.reads.result(one.id).await.unwrap().is_some();
    assert_eq!(looked(999).await, 0);
    assert_eq!(store.retention.pile(Rows::Results, NOW.plus_ms(1_000)).await.unwrap().old, 4);
    assert_eq!(looked(1_000).await, 4, "the jobs ended 20 ms later: none is over");
    assert!(has(&short).await);
    assert_eq!((looked(1_019).await, step(1_020).await), (0, Looked { looked: 1, gone: 1 }));
    assert_eq!((has(&short).await, has(&long).await, has(&usual).await), (false, true, true));
    assert_eq!(row(&store, short.id).await.standing, Standing::Succeeded);
    // One that lived until now, and one that was dead and came back.
    store.journal.redrive(dead.id, NOW.plus_ms(1_500)).await.unwrap();
    settle(&store, token(dead.id, 1), success()).await;
    settle(&store, token(live.id, 0), success()).await;
    assert_eq!((step(5_000).await, step(5_020).await), (Looked { looked: 1, gone: 0 }, Looked { looked: 1, gone: 1 }));
    assert!(!has(&long).await && has(&dead).await && has(&live).await, "they are put off for a minute at the least");
    assert_eq!(step(1_000 + LOOK_AGAIN_MS).await, Looked { looked: 2, gone: 2 });
    assert!(!has(&dead).await && !has(&live).await && has(&usual).await);
    assert_eq!(looked(1_000_000).await, 0, "nothing is left to be looked at");
    // The time of a job that is gone is nobody else's, whatever number the next one gets.
    let last = kept(1_000);
    accept_new(&store, &last).await;
    settle(&store, token(last.id, 0), success()).await;
    let epoch = row(&store, last.id).await.epoch;
    assert_eq!(store.retention.forget_jobs(vec![(last.id, epoch)]).await.unwrap(), 1);
    let next = job();
    accept_new(&store, &next).await;
    settle(&store, token(next.id, 0), success()).await;
    looked(2_000_000).await;
    assert!(has(&next).await);
}

/// A key is honoured until it is old, and free after that; young items of a key keep its body.
pub async fn keys_are_forgotten_and_free(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let of = |key: &str, fingerprint: u8, item: u32, at: i64| NewJob {
        idempotency: Some(Idempotency { owner: "acme".into(), key: key.into(), fingerprint: [fingerprint; 32], item }),
        accepted_at: NOW.plus_ms(at),
        ..job()
    };
    let accept = async |job: NewJob| store.journal.accept(vec![job]).await.unwrap().remove(0);
    assert_eq!(accept(of("old", 1, 0, 0)).await, Accepted::New);
    assert_eq!(accept(of("mixed", 1, 0, 0)).await, Accepted::New);
    assert_eq!(accept(of("mixed", 1, 1, 900)).await, Accepted::New);
    assert_eq!(accept(of("old", 2, 0, 1)).await, Accepted::KeyReused);
    let sweep = async |ms: i64| store.retention.sweep(Rows::IdempotencyKeys, NOW.plus_ms(ms), 100).await.unwrap();
    assert_eq!(sweep(0).await, 0);
    let pile = store.retention.pile(Rows::IdempotencyKeys, NOW.plus_ms(500)).await.unwrap();
    assert_eq!((pile.old, pile.oldest), (2, Some(NOW)));
    assert_eq!((sweep(500).await, sweep(500).await), (2, 0));
    assert_eq!(accept(of("old", 2, 0, 1_000)).await, Accepted::New, "it is free");
    assert_eq!(accept(of("mixed", 2, 0, 1_000)).await, Accepted::KeyReused, "its other item is young");
    assert_eq!(sweep(950).await, 1);
    assert_eq!(accept(of("mixed", 2, 0, 1_000)).await, Accepted::New);
}

/// A scheduler that was away for a weekend finds that a tick was submitted, by the key of the job.
pub async fn keys_of_ticks_are_kept_for_longer(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let of = |owner: &str| NewJob {
        idempotency: Some(Idempotency { owner: owner.into(), key: "1:tick".into(), fingerprint: [1; 32], item: 0 }),
        ..job()
    };
    for owner in ["acme\u{1f}schedule:01936a00-0000-7000-8000-000000000001", "schedule:acme"] {
        assert_eq!(store.journal.accept(vec![of(owner)]).await.unwrap(), [Accepted::New]);
    }
    let sweep = async |at: Timestamp| {
        let old = store.retention.pile(Rows::IdempotencyKeys, at).await.unwrap().old;
        let gone = store.retention.sweep(Rows::IdempotencyKeys, at, 1).await.unwrap();
        assert_eq!(old, gone, "the plan says so");
        gone
    };
    assert_eq!((sweep(NOW.plus_ms(1)).await, sweep(NOW.plus_ms(TICKS_LONGER_MS)).await), (1, 0));
    assert_eq!(sweep(NOW.plus_ms(TICKS_LONGER_MS + 1)).await, 1);
}

/// The report of each column, which may not change.
async fn reports(store: &Opened) -> Vec<Vec<CostRow>> {
    let mut all = Vec::new();
    for column in CostColumn::ALL {
        let query = CostQuery::new(&[column], NOW.start_of_day(), NOW.start_of_day().plus_ms(2 * DAY_MS));
        all.push(store.ledger.costs(&query).await.unwrap());
    }
    all
}

/// To the nano-USD, before and after sums were folded.
pub async fn sums_stay_when_single_calls_go(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    four(&store).await;
    for (step, cost) in [("a", Some(333)), ("b", None), ("c", Some(1))] {
        let one = job();
        accept_new(&store, &one).await;
        let mut end = settlement(&store, token(one.id, 0), success());
        end.calls = vec![call(&one, step, cost), call(&one, "more", Some(10))];
        store.journal.settle(end).await.unwrap();
    }
    let before = reports(&store).await;
    assert_eq!(before[0].iter().map(|row| row.spend.0).sum::<i64>(), 700 + 333 + 1 + 30);
    let sweep = async |at: Timestamp| store.retention.sweep(Rows::CostDetails, at, 3).await.unwrap();
    assert_eq!(sweep(NOW).await, 0);
    let old = store.retention.pile(Rows::CostDetails, LATER).await.unwrap().old;
    let mut gone = 0;
    loop {
        match sweep(LATER).await {
            0 => break,
            some => gone += some,
        }
        assert_eq!(reports(&store).await, before, "at any moment");
    }
    assert_eq!((gone, old), (gone, gone), "what was counted is what went");
    assert!(gone >= 7 + 4, "calls and charges: {gone}");
    while store.ledger.fold_costs().await.unwrap() > 0 {}
    assert_eq!(reports(&store).await, before);
}

/// Payloads and attempts go before their job, where it has ended for good; one that may run again keeps both.
pub async fn what_may_run_again_keeps_what_it_needs(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let jobs = four(&store).await;
    // A success with an attempt behind it, beside the dead letter and the live one of its day.
    let second = job();
    accept_new(&store, &second).await;
    settle(&store, token(second.id, 0), retry()).await;
    settle(&store, token(second.id, 1), success()).await;
    for rows in [Rows::Payloads, Rows::Errors] {
        assert_eq!(
            store.retention.sweep(rows, NOW.plus_ms(19), 100).await.unwrap(),
            0,
            "{rows:?}: none has ended by then"
        );
        let old = store.retention.pile(rows, LATER).await.unwrap().old;
        let gone = store.retention.sweep(rows, LATER, 100).await.unwrap();
        // Where days have tables of their own, what is left of those is not counted.
        let by_row = store.retention.days(LATER).await.unwrap().is_none();
        assert_eq!((gone > 0, old > 0), (true, by_row), "{rows:?}: {gone} {old}");
        assert_eq!(store.retention.sweep(rows, LATER, 100).await.unwrap(), 0);
    }
    assert_eq!(store.reads.payload(jobs[0].id).await.unwrap(), None);
    assert!(store.reads.result(jobs[0].id).await.unwrap().is_some(), "its result is its own");
    for one in &jobs[2..] {
        assert_eq!(store.reads.payload(one.id).await.unwrap(), Some(one.payload.bytes()));
        assert_eq!(store.reads.attempts(one.id).await.unwrap().len(), 1);
    }
    store.journal.redrive(jobs[2].id, NOW).await.unwrap();
    let loaded = store.journal.load(&[token(jobs[2].id, 1)], LATER).await.unwrap();
    assert!(loaded[0].is_some(), "it can run");
}

/// For people, and for those who must know what may be gone.
pub async fn what_went_is_noted(fixture: &dyn Fixture) {
    let store = fixture.open().await.retention;
    assert!(store.notes().await.unwrap().is_empty());
    store.note(Class::Jobs, 5, NOW, Some(NOW.plus_ms(-9))).await.unwrap();
    store.note(Class::Jobs, 2, NOW.plus_ms(1), Some(NOW.plus_ms(-20))).await.unwrap();
    store.note(Class::Audit, 1, NOW, None).await.unwrap();
    let notes = fixture.open().await.retention.notes().await.unwrap();
    let jobs = Note { removed: 7, last: 2, last_at: NOW.plus_ms(1), edge: Some(NOW.plus_ms(-9)) };
    assert_eq!((notes.len(), notes[&Class::Jobs]), (2, jobs), "an edge only goes forward");
    store.note(Class::Audit, 1, NOW, Some(NOW)).await.unwrap();
    assert_eq!(store.notes().await.unwrap()[&Class::Audit].edge, Some(NOW));
}
