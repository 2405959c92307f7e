//! Cases of operations on many jobs: who walks them, and what their steps do.

use uuid::Uuid;

use super::{Fixture, NOW, Opened, accept_new, accepted, call, death, job, row, settle, settlement, success, token};
use crate::{
    ids::{Epoch, JobId, OperationId, SessionId},
    job::NewJob,
    journal::{Accepted, Within},
    ledger::Nanousd,
    operations::{
        Aborted, Action, Begun, Counts, Holder, KEPT_MS, Operation, OperationState, Order, Pick, Step, Stepped,
    },
    state::Standing,
};

fn order(action: Action) -> Order {
    Order {
        action,
        goal: None,
        filter: "queue = default".into(),
        queue: Some("default".into()),
        dry_run: false,
        rate_per_s: 2_000,
        max_jobs: Some(7),
        max_cost: Some(Nanousd(5)),
        force: true,
        reason: Some("a bad\0day".into()),
        asked_by: "abcd1234".into(),
    }
}

async fn begun(store: &Opened, order: Order) -> Operation {
    match store.operations.begin(OperationId::generate(), order, NOW).await.unwrap() {
        Begun::New(operation) => operation,
        Begun::InTheWay(other) => panic!("{other:?} is in the way"),
    }
}

/// An operation with somebody who walks it.
async fn walked(store: &Opened, order: Order) -> (Operation, Uuid) {
    let (operation, owner) = (begun(store, order).await, Uuid::now_v7());
    (store.operations.take(operation.id, operation.beat, Some(owner)).await.unwrap().unwrap(), owner)
}

fn picks(ids: &[JobId]) -> Vec<Pick> {
    ids.iter().map(|&id| Pick { id, epoch: Epoch(0), cost: Some(Nanousd(3)), holder: None }).collect()
}

async fn stepped(store: &Opened, step: Step) -> (Operation, Vec<JobId>, Vec<JobId>) {
    match store.operations.step(step, NOW.plus_ms(50)).await.unwrap() {
        Stepped::Done { operation, entries, changed } => {
            (*operation, entries.into_iter().map(|entry| entry.id).collect(), changed)
        }
        Stepped::Lost | Stepped::Moved => panic!("the step was not done"),
    }
}

async fn dead_letters(store: &Opened, count: usize) -> Vec<JobId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let job = accepted(store).await;
        settle(store, token(job.id, 0), death()).await;
        ids.push(job.id);
    }
    ids
}

fn sorted(mut ids: Vec<JobId>) -> Vec<JobId> {
    ids.sort_unstable();
    ids
}

/// Also of two that come at once; another action, another queue and a dry run stand beside it.
pub async fn one_operation_of_an_action_and_queue_runs(fixture: &dyn Fixture) {
    let (store, other) = (fixture.open().await, fixture.open().await);
    let ids = [OperationId::generate(), OperationId::generate()];
    let (one, two) = tokio::join!(
        store.operations.begin(ids[0], order(Action::Redrive), NOW),
        other.operations.begin(ids[1], order(Action::Redrive), NOW),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    let (kept, refused, id) = match (one, two) {
        (Begun::New(kept), Begun::InTheWay(there)) => (kept, there, ids[0]),
        (Begun::InTheWay(there), Begun::New(kept)) => (kept, there, ids[1]),
        other => panic!("{other:?}"),
    };
    assert_eq!((kept.id, refused.id), (id, id));
    assert_eq!(kept.order, order(Action::Redrive));
    assert_eq!((kept.state, kept.counts, kept.owner), (OperationState::Running, Counts::default(), None));
    let again = store.operations.begin(id, order(Action::Redrive), NOW).await.unwrap();
    assert_eq!(again, Begun::New(kept.clone()), "asking again tells the same");
    begun(&store, Order { dry_run: true, ..order(Action::Redrive) }).await;
    begun(&store, Order { queue: Some("other".into()), ..order(Action::Redrive) }).await;
    begun(&store, Order { queue: None, ..order(Action::Redrive) }).await;
    let drain = begun(&store, Order { goal: Some(Action::Delete), ..order(Action::Drain) }).await;
    assert_eq!(drain.order.effect(), Action::Delete);
    let listed = store.operations.operations(None, true, 100).await.unwrap();
    assert_eq!((listed.len(), listed[0].id), (5, drain.id), "newest first");
    let behind = store.operations.operations(Some(listed[1].id), false, 2).await.unwrap();
    assert_eq!(behind.iter().map(|one| one.id).collect::<Vec<_>>(), [listed[2].id, listed[3].id]);
    store.operations.abort(id, NOW).await.unwrap();
    let next = begun(&store, order(Action::Redrive)).await;
    let running = store.operations.operations(None, true, 1).await.unwrap();
    assert_eq!(running[0].id, next.id, "the way is free once the first has ended");
    assert_eq!(store.operations.operation(next.id).await.unwrap(), Some(next));
    assert_eq!(store.operations.operation(OperationId::generate()).await.unwrap(), None);
}

/// Whoever comes at the beat that is there; the one before finds out with its next step.
pub async fn an_operation_is_taken_by_one(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let ids = dead_letters(&store, 1).await;
    let operation = begun(&store, order(Action::Redrive)).await;
    let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
    let first = store.operations.take(operation.id, operation.beat, Some(one)).await.unwrap().unwrap();
    assert_eq!(first.owner, Some(one));
    assert_eq!(store.operations.take(operation.id, operation.beat, Some(two)).await.unwrap(), None);
    let (beaten, ..) = stepped(&store, Step::beat(&first, one)).await;
    assert!(beaten.beat > first.beat);
    let second = store.operations.take(operation.id, beaten.beat, Some(two)).await.unwrap().unwrap();
    let late = Step { picks: picks(&ids), ..Step::beat(&beaten, one) };
    assert!(matches!(store.operations.step(late, NOW).await.unwrap(), Stepped::Lost));
    assert_eq!(row(&store, ids[0]).await.standing, Standing::Dead, "nothing was done");
    let left = store.operations.take(operation.id, second.beat, None).await.unwrap().unwrap();
    assert_eq!(left.owner, None, "given back");
}

/// Jobs that have moved on are skipped; what was done is pushed, and counted once whoever looks.
pub async fn a_step_moves_jobs_place_and_counts_together(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let mut ids = dead_letters(&store, 3).await;
    let unique = NewJob { unique_key: Some("invoice".into()), ..job() };
    accept_new(&store, &unique).await;
    let paid = settlement(&store, token(unique.id, 0), death());
    store
        .journal
        .settle(crate::journal::Settlement { calls: vec![call(&unique, "chat", Some(40))], ..paid })
        .await
        .unwrap();
    ids.push(unique.id);
    store.journal.redrive(ids[0], NOW).await.unwrap();
    let missing = JobId::generate();
    let (operation, owner) = walked(&store, order(Action::Redrive)).await;
    let step = Step {
        picks: picks(&[ids.as_slice(), &[missing]].concat()),
        skipped: 2,
        failed: 1,
        behind: Some(ids[0]),
        ..Step::beat(&operation, owner)
    };
    let (after, entries, changed) = stepped(&store, step.clone()).await;
    assert_eq!(sorted(entries), sorted(ids[1..].to_vec()));
    assert_eq!(sorted(changed), sorted(ids[1..].to_vec()));
    let expected = Counts { matched: 8, done: 3, skipped: 4, failed: 1, cost: Nanousd(9), unestimated: 0 };
    assert_eq!((after.counts, after.behind, after.state), (expected, Some(ids[0]), OperationState::Running));
    assert!(matches!(store.operations.step(step, NOW).await.unwrap(), Stepped::Lost), "a step is done once");
    for id in &ids[1..] {
        let job = row(&store, *id).await;
        assert_eq!((job.standing, job.epoch, job.redrives, job.attempts), (Standing::Live, Epoch(1), 1, 0));
        assert_eq!(job.run_at, NOW.plus_ms(50));
    }
    assert_eq!(store.journal.memos(unique.id).await.unwrap().len(), 1, "answers that were paid for stay");
    let other = NewJob { unique_key: Some("invoice".into()), ..job() };
    assert_eq!(store.journal.accept(vec![other]).await.unwrap(), [Accepted::Duplicate(unique.id)]);
    let totals = store.reads.totals().await.unwrap()["default"];
    assert_eq!((totals.dead, store.reads.live_counts().await.unwrap()["default"]), (0, 4));
    assert!(store.reads.dead_groups(None, &Within::default()).await.unwrap().is_empty());
    let kept = fixture.open().await.operations.operation(operation.id).await.unwrap().unwrap();
    assert_eq!(kept, after, "it survives a restart as it is");
}

/// A page may be old when its step comes: a letter that had another life meanwhile is not given a third, nor forgotten.
pub async fn what_had_another_life_is_left_alone(fixture: &dyn Fixture) {
    for action in [Action::Redrive, Action::Delete] {
        let store = fixture.open().await;
        let ids = dead_letters(&store, 4).await;
        for id in &ids[..3] {
            store.journal.redrive(*id, NOW).await.unwrap();
        }
        settle(&store, token(ids[0], 1), death()).await;
        settle(&store, token(ids[1], 1), success()).await;
        let (operation, owner) = walked(&store, order(action)).await;
        let step = Step { picks: picks(&ids), ..Step::beat(&operation, owner) };
        let (after, _, changed) = stepped(&store, step).await;
        assert_eq!((changed, after.counts.done, after.counts.skipped), (vec![ids[3]], 1, 3), "{action:?}");
        let (again, done, lives) = (row(&store, ids[0]).await, row(&store, ids[1]).await, row(&store, ids[2]).await);
        assert_eq!((again.standing, again.redrives), (Standing::Dead, 1));
        assert_eq!((done.standing, done.redrives), (Standing::Succeeded, 1));
        assert_eq!((lives.standing, lives.redrives), (Standing::Live, 1));
        let seen = Pick { epoch: again.epoch, ..picks(&ids[..1])[0] };
        let (_, _, changed) = stepped(&store, Step { picks: vec![seen], ..Step::beat(&after, owner) }).await;
        assert_eq!(changed, [ids[0]], "as it is now it is met");
        store.operations.abort(operation.id, NOW).await.unwrap();
    }
}

/// Its steps touch nothing.
pub async fn a_dry_run_only_counts(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let ids = dead_letters(&store, 2).await;
    let (operation, owner) = walked(&store, Order { dry_run: true, ..order(Action::Delete) }).await;
    let step = Step { picks: picks(&ids), skipped: 1, behind: Some(ids[0]), ..Step::beat(&operation, owner) };
    let (after, entries, changed) = stepped(&store, step).await;
    assert!(entries.is_empty() && changed.is_empty());
    let expected = Counts { matched: 3, skipped: 1, cost: Nanousd(6), ..Counts::default() };
    assert_eq!((after.counts, after.behind), (expected, Some(ids[0])));
    assert_eq!(row(&store, ids[1]).await.standing, Standing::Dead);
}

/// No step follows it, and a second abort tells how it stands.
pub async fn an_abort_is_the_end(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let ids = dead_letters(&store, 2).await;
    let (operation, owner) = walked(&store, order(Action::Redrive)).await;
    let (operation, ..) = stepped(&store, Step { picks: picks(&ids[..1]), ..Step::beat(&operation, owner) }).await;
    let Aborted::Done(aborted) = store.operations.abort(operation.id, NOW.plus_ms(9)).await.unwrap() else { panic!() };
    assert_eq!((aborted.state, aborted.finished_at), (OperationState::Aborted, Some(NOW.plus_ms(9))));
    assert_eq!(aborted.counts.done, 1);
    let late = Step { picks: picks(&ids[1..]), ..Step::beat(&operation, owner) };
    assert!(matches!(store.operations.step(late, NOW).await.unwrap(), Stepped::Lost));
    assert_eq!(row(&store, ids[1]).await.standing, Standing::Dead);
    assert_eq!(store.operations.take(operation.id, aborted.beat, Some(owner)).await.unwrap(), None);
    assert_eq!(store.operations.abort(operation.id, NOW).await.unwrap(), Aborted::Ended(aborted));
    assert_eq!(store.operations.abort(OperationId::generate(), NOW).await.unwrap(), Aborted::Missing);
}

/// With the reason of the operation, and the attempts that it interrupts.
pub async fn cancels_of_an_operation_are_cancels(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (waiting, running, ended) = (accepted(&store).await.id, accepted(&store).await.id, accepted(&store).await.id);
    settle(&store, token(ended, 0), success()).await;
    let (operation, owner) = walked(&store, order(Action::Cancel)).await;
    let mut picks = picks(&[waiting, running, ended]);
    let session = SessionId::generate();
    picks[1].holder = Some(Holder { epoch: Epoch(0), session, started_at: Some(NOW.plus_ms(1)) });
    let (after, entries, changed) = stepped(&store, Step { picks, ..Step::beat(&operation, owner) }).await;
    assert!(entries.is_empty());
    assert_eq!(sorted(changed), sorted(vec![waiting, running]));
    assert_eq!((after.counts.done, after.counts.skipped), (2, 1));
    let job = row(&store, running).await;
    assert_eq!((job.standing, job.cancel_reason.as_deref()), (Standing::Cancelled, Some("a bad\0day")));
    let attempts = store.reads.attempts(running).await.unwrap();
    assert_eq!(attempts.iter().map(|attempt| attempt.outcome.as_str()).collect::<Vec<_>>(), ["cancel"]);
    assert_eq!(row(&store, ended).await.standing, Standing::Succeeded);
    assert_eq!(store.reads.totals().await.unwrap()["default"].cancelled, 2);
}

/// Whatever has ended goes with all that was kept of it; live jobs stay, and so does the money.
pub async fn what_is_deleted_is_gone_and_its_money_is_not(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (dead, done, cancelled, live) =
        (accepted(&store).await, accepted(&store).await, accepted(&store).await, accepted(&store).await);
    for (job, outcome) in [(&dead, death()), (&done, success())] {
        let mut end = settlement(&store, token(job.id, 0), outcome);
        end.calls = vec![call(job, "chat", Some(10))];
        store.journal.settle(end).await.unwrap();
    }
    store.journal.cancel(cancelled.id, None, None, NOW).await.unwrap();
    let (operation, owner) = walked(&store, order(Action::Delete)).await;
    let all = [dead.id, done.id, cancelled.id, live.id];
    let mut picks = picks(&all);
    picks[2].epoch = row(&store, cancelled.id).await.epoch;
    let (after, entries, changed) = stepped(&store, Step { picks, ..Step::beat(&operation, owner) }).await;
    assert!(entries.is_empty());
    assert_eq!(sorted(changed), sorted(all[..3].to_vec()));
    assert_eq!((after.counts.done, after.counts.skipped), (3, 1));
    let rows = store.reads.jobs(&all).await.unwrap();
    assert_eq!(rows.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, false, true]);
    for id in &all[..3] {
        assert!(store.reads.payload(*id).await.unwrap().is_none());
        assert!(store.reads.result(*id).await.unwrap().is_none());
        assert!(store.reads.attempts(*id).await.unwrap().is_empty());
        assert!(store.journal.memos(*id).await.unwrap().is_empty());
    }
    assert!(store.reads.payload(live.id).await.unwrap().is_some());
    assert_eq!(store.reads.calls(dead.id).await.unwrap().len(), 1, "the ledger forgets nothing");
    let totals = store.reads.totals().await.unwrap()["default"];
    assert_eq!((totals.accepted, totals.succeeded, totals.cancelled, totals.dead), (4, 1, 1, 0));
    assert!(store.reads.dead_groups(None, &Within::default()).await.unwrap().is_empty());
}

/// At the epoch at which they are held, and without blame.
pub async fn a_reclaim_hands_on_what_is_held(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (started, claimed, moved) = (accepted(&store).await.id, accepted(&store).await.id, accepted(&store).await.id);
    let session = SessionId::generate();
    let held = |id, epoch, started_at| Pick {
        id,
        epoch: Epoch(0),
        cost: None,
        holder: Some(Holder { epoch: Epoch(epoch), session, started_at }),
    };
    let (operation, owner) = walked(&store, order(Action::Reclaim)).await;
    let picks = vec![held(started, 0, Some(NOW)), held(claimed, 0, None), held(moved, 4, Some(NOW))];
    let (after, entries, _) = stepped(&store, Step { picks, ..Step::beat(&operation, owner) }).await;
    assert_eq!(sorted(entries), sorted(vec![started, claimed]));
    assert_eq!((after.counts.done, after.counts.skipped, after.counts.unestimated), (2, 1, 2));
    let job = row(&store, started).await;
    assert_eq!((job.epoch, job.recoveries), (Epoch(1), 0), "its worker is fenced and nobody is blamed");
    assert_eq!(store.reads.attempts(started).await.unwrap()[0].outcome, "lost");
    assert!(store.reads.attempts(claimed).await.unwrap().is_empty());
    assert_eq!(row(&store, moved).await.epoch, Epoch(0));
}

/// The last step does its work and ends the operation.
pub async fn a_step_has_a_last_one(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let ids = dead_letters(&store, 1).await;
    for (state, error) in [
        (OperationState::Done, None),
        (OperationState::Capped, None),
        (OperationState::Failed, Some("its filter cannot be read".to_owned())),
    ] {
        let (operation, owner) = walked(&store, order(Action::Redrive)).await;
        let step = Step { picks: picks(&ids), end: Some((state, error.clone())), ..Step::beat(&operation, owner) };
        let (after, ..) = stepped(&store, step).await;
        assert_eq!((after.state, &after.error, after.finished_at), (state, &error, Some(NOW.plus_ms(50))));
    }
    assert_eq!(row(&store, ids[0]).await.redrives, 1);
}

/// Once they have ended long ago, and when another begins.
pub async fn old_operations_are_forgotten(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let old = begun(&store, order(Action::Redrive)).await;
    let running = begun(&store, order(Action::Delete)).await;
    store.operations.abort(old.id, NOW).await.unwrap();
    let later = NOW.plus_ms(KEPT_MS + 1);
    store.operations.begin(OperationId::generate(), order(Action::Cancel), later).await.unwrap();
    assert_eq!(store.operations.operation(old.id).await.unwrap(), None);
    assert!(store.operations.operation(running.id).await.unwrap().is_some());
}
