//! Cases of archives: what goes out, what is noted of it, and what comes back.

use uuid::Uuid;

use super::{
    Fixture, NOW, Opened, accept_new, accepted, call, death, job, retry, row, settle, settlement, success, token,
};
use crate::{
    archive::{ArchiveObject, Body, Letter, Restore},
    fallback::Link,
    ids::{Epoch, JobId, Name, OperationId},
    job::NewJob,
    journal::{Accepted, Settlement, Within},
    ledger::Nanousd,
    operations::{Action, Begun, Operation, OperationState, Order, Pick, Step, Stepped},
    state::Standing,
};

fn order(goal: Option<Action>) -> Order {
    Order {
        action: goal.map_or(Action::Archive, |_| Action::Drain),
        goal,
        filter: "queue = default".into(),
        queue: Some("default".into()),
        dry_run: false,
        rate_per_s: 500,
        max_jobs: None,
        max_cost: None,
        force: false,
        reason: Some("a bad\0day".into()),
        asked_by: "abcd1234".into(),
    }
}

/// An operation that archives, with somebody who walks it.
async fn walked(store: &Opened, order: Order) -> (Operation, Uuid) {
    let (id, owner) = (OperationId::generate(), Uuid::now_v7());
    let begun = store.operations.begin(id, order, NOW).await.unwrap();
    assert!(matches!(begun, Begun::New(_)), "{begun:?}");
    (store.operations.take(id, 0, Some(owner)).await.unwrap().unwrap(), owner)
}

fn pick(id: JobId, epoch: i64) -> Pick {
    Pick { id, epoch: Epoch(epoch), cost: Some(Nanousd(0)), holder: None }
}

/// What is noted of an object of these letters; nobody looks whether it is there.
fn object(letters: &[Letter]) -> ArchiveObject {
    ArchiveObject {
        path: format!("archives/acme/{}.ndjson.zst", Uuid::now_v7()),
        tenant: "acme".into(),
        sha256: [9; 32],
        bytes: 700,
        letters: letters.len() as u64,
        calls: letters.iter().map(|letter| letter.sums.calls).sum(),
        cost_nanousd: Nanousd(letters.iter().map(|letter| letter.sums.cost_nanousd.0).sum()),
        first_ended_at: NOW.plus_ms(20),
        restored: false,
        last_ended_at: NOW.plus_ms(21),
    }
}

/// A job with everything that a job can have, dead at epoch 2 after two other attempts.
fn rich() -> NewJob {
    NewJob {
        unique_key: Some("invoice \0 7".into()),
        concurrency_key: Some("tenant-7".into()),
        operation: Some("sum\0mary".into()),
        batch_id: Some("b\u{10}1".into()),
        tags: vec!["a\0b".into(), "ü".into()],
        request_id: Some("req-1".into()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        start_by: Some(NOW.plus_ms(1_000_000)),
        deadline: Some(NOW.plus_ms(2_000_000)),
        timeout_ms: Some(7_000),
        payload: "{\"messages\":[],\n\"n\":1.50}".into(),
        fallback: vec![Link { model: "other".into(), on: vec![crate::error::ErrorClass::Rate] }],
        key_id: Some("k1234567".into()),
        max_cost: Some(Nanousd(77)),
        webhook: Some("https://receiver.example/".into()),
        priority: 8,
        max_attempts: 4,
        ..job()
    }
}

async fn dead(store: &Opened, job: &NewJob) -> Pick {
    accept_new(store, job).await;
    for (epoch, outcome) in [(0, retry()), (1, retry()), (2, death())] {
        let calls = vec![call(job, &format!("chat {epoch}"), (epoch > 0).then_some(40 + epoch))];
        let end = settlement(store, token(job.id, epoch), outcome);
        store.journal.settle(Settlement { calls, served_by: Some("simulated/small".into()), ..end }).await.unwrap();
    }
    pick(job.id, 2)
}

/// A job of any tenant that died and was archived.
pub(super) async fn archived(store: &Opened, job: &NewJob) {
    let pick = dead(store, job).await;
    let letters = store.archives.letters(&[pick]).await.unwrap();
    let path = format!("archives/{}/{}.ndjson.zst", job.tenant, Uuid::now_v7());
    let noted = ArchiveObject { path, tenant: job.tenant.clone(), ..object(&letters) };
    let (operation, owner) = walked(store, order(None)).await;
    let end = Some((OperationState::Done, None));
    let step = Step { picks: vec![pick], objects: vec![noted], end, ..Step::beat(&operation, owner) };
    let stepped = store.operations.step(step, NOW).await.unwrap();
    assert!(matches!(stepped, Stepped::Done { .. }), "{stepped:?}");
}

/// Nothing of a letter is lost on the way but its place in time: row, payload, attempts, answers, numbers of its queue and cause.
pub async fn what_is_archived_leaves_and_comes_back_as_it_was(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (first, second) = (rich(), job());
    let picks = vec![dead(&store, &first).await, dead(&store, &second).await];
    let other = accepted(&store).await.id;
    settle(&store, token(other, 0), death()).await;
    let mut letters = store.archives.letters(&picks).await.unwrap();
    letters.sort_by_key(|letter| letter.id);
    assert_eq!(letters.len(), 2);
    let letter = letters.iter().find(|letter| letter.id == first.id).unwrap();
    assert_eq!(letter.payload, Body::Text("{\"messages\":[],\n\"n\":1.50}".into()), "as it was sent");
    assert_eq!((letter.history.len(), letter.memos.len(), letter.sums.calls), (3, 3, 3));
    assert!(letter.sums.cost_unknown);
    let before = (row(&store, first.id).await, store.reads.dead_groups(None, &Within::default()).await.unwrap());

    let (operation, owner) = walked(&store, order(None)).await;
    let noted = object(&letters);
    let step = Step { picks: picks.clone(), objects: vec![noted.clone()], ..Step::beat(&operation, owner) };
    let Stepped::Done { operation, entries, changed } = store.operations.step(step, NOW).await.unwrap() else {
        panic!()
    };
    assert!(entries.is_empty());
    assert_eq!((changed.len(), operation.counts.done), (2, 2));
    for id in [first.id, second.id] {
        assert!(store.reads.jobs(&[id]).await.unwrap()[0].is_none());
        assert!(store.reads.payload(id).await.unwrap().is_none());
        assert!(store.journal.memos(id).await.unwrap().is_empty());
        assert!(store.reads.attempts(id).await.unwrap().is_empty());
        assert_eq!(store.reads.calls(id).await.unwrap().len(), 3, "the ledger forgets nothing");
    }
    assert_eq!(store.reads.totals().await.unwrap()["default"].dead, 1);
    assert_eq!(store.reads.dead_groups(None, &Within::default()).await.unwrap()[0].count, 1);

    let store = fixture.open().await;
    let archive = operation.id;
    let restore = |letters: &[Letter]| Restore { archive, path: noted.path.clone(), letters: letters.to_vec() };
    let mut back = store.archives.restore(restore(&letters)).await.unwrap();
    back.sort_unstable();
    assert_eq!(back, letters.iter().map(|letter| letter.id).collect::<Vec<_>>());
    assert!(store.archives.restore(restore(&letters)).await.unwrap().is_empty(), "twice does nothing more");
    assert!(store.archives.objects_of(operation.id, None, 9).await.unwrap()[0].restored);
    let mut again = store.archives.letters(&picks).await.unwrap();
    again.sort_by_key(|letter| letter.id);
    assert_eq!(again, letters);
    let after = (row(&store, first.id).await, store.reads.dead_groups(None, &Within::default()).await.unwrap());
    assert_eq!(format!("{after:?}"), format!("{before:?}"));
    assert_eq!(store.reads.totals().await.unwrap()["default"].dead, 3);
    let listed = store.reads.list(&crate::journal::JobFilter { limit: 10, ..Default::default() }).await.unwrap();
    assert_eq!(listed.jobs.len(), 3);

    assert_eq!(
        store.journal.accept(vec![NewJob { id: JobId::generate(), ..first.clone() }]).await.unwrap(),
        [Accepted::New]
    );
    store.journal.redrive(first.id, NOW).await.unwrap();
    assert_eq!(row(&store, first.id).await.standing, Standing::Live);
    assert_eq!(store.journal.memos(first.id).await.unwrap().len(), 3, "another life finds what was paid for");
    assert_eq!(row(&store, first.id).await.epoch, Epoch(3));
    // It has died of its next life and left again: what it was before must not come back, with an epoch that has paid since.
    settle(&store, token(first.id, 3), death()).await;
    let picks = vec![pick(first.id, 3)];
    let later = store.archives.letters(&picks).await.unwrap();
    let ended = Step { end: Some((OperationState::Done, None)), ..Step::beat(&operation, owner) };
    assert!(matches!(store.operations.step(ended, NOW).await.unwrap(), Stepped::Done { .. }));
    let (operation, owner) = walked(&store, order(None)).await;
    let other = object(&later);
    let step = Step { picks, objects: vec![other.clone()], ..Step::beat(&operation, owner) };
    assert!(matches!(store.operations.step(step, NOW).await.unwrap(), Stepped::Done { .. }));
    assert!(store.archives.restore(restore(&letters)).await.unwrap().is_empty(), "it has lived since");
    assert!(store.reads.jobs(&[first.id]).await.unwrap()[0].is_none());
    let back = Restore { archive: operation.id, path: other.path, letters: later };
    assert_eq!(store.archives.restore(back).await.unwrap(), [first.id]);
    assert_eq!(row(&store, first.id).await.epoch, Epoch(3));
}

/// A life, a call, or the end of one since the letter was read: nothing of the step is done.
pub async fn what_changed_since_it_was_read_is_read_again(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (risen, paid, same) = (rich(), job(), job());
    let picks = vec![dead(&store, &risen).await, dead(&store, &paid).await, dead(&store, &same).await];
    let (operation, owner) = walked(&store, order(Some(Action::Archive))).await;
    let letters = store.archives.letters(&picks).await.unwrap();
    store.journal.redrive(risen.id, NOW).await.unwrap();
    let step = Step { picks: picks.clone(), objects: vec![object(&letters)], ..Step::beat(&operation, owner) };
    assert!(matches!(store.operations.step(step, NOW).await.unwrap(), Stepped::Moved));
    assert_eq!(store.archives.letters(&picks).await.unwrap().len(), 2, "it lives");
    settle(&store, token(risen.id, 3), death()).await;
    assert_eq!(store.archives.letters(&picks).await.unwrap().len(), 2, "it is dead again, and of another life");

    let letters = store.archives.letters(&picks[1..]).await.unwrap();
    store.journal.record(call(&paid, "late", Some(7))).await.unwrap();
    let step = Step { picks: picks[1..].to_vec(), objects: vec![object(&letters)], ..Step::beat(&operation, owner) };
    assert!(matches!(store.operations.step(step, NOW).await.unwrap(), Stepped::Moved));
    assert!(store.archives.archives(None, 10).await.unwrap().is_empty(), "no object was noted");
    assert!(store.reads.jobs(&[risen.id, paid.id, same.id]).await.unwrap().iter().all(Option::is_some));

    let letters = store.archives.letters(&picks[1..]).await.unwrap();
    assert_eq!(letters.iter().map(|letter| letter.memos.len()).sum::<usize>(), 7, "the late answer is in it");
    let step = Step { picks: picks[1..].to_vec(), objects: vec![object(&letters)], ..Step::beat(&operation, owner) };
    assert!(matches!(store.operations.step(step, NOW).await.unwrap(), Stepped::Done { .. }));
}

/// Whoever forgets the object loses nothing.
pub async fn nothing_is_archived_without_its_objects(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let job = job();
    let picks = vec![dead(&store, &job).await];
    let (operation, owner) = walked(&store, order(None)).await;
    let step = Step { picks, ..Step::beat(&operation, owner) };
    assert!(matches!(store.operations.step(step, NOW).await.unwrap(), Stepped::Moved));
    assert_eq!(row(&store, job.id).await.standing, Standing::Dead);
    let done = accepted(&store).await;
    settle(&store, token(done.id, 0), success()).await;
    let step = Step { picks: vec![pick(done.id, 0)], ..Step::beat(&operation, owner) };
    assert!(matches!(store.operations.step(step, NOW).await.unwrap(), Stepped::Moved));
    assert_eq!(row(&store, done.id).await.standing, Standing::Succeeded, "an archive is of dead letters");
}

/// With sums over their objects, also once their operations are forgotten.
pub async fn archives_are_listed(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let mut made = Vec::new();
    for tenant in ["acme", "globex"] {
        let (operation, owner) = walked(&store, order(None)).await;
        let mut operation = operation;
        let mut objects = Vec::new();
        for _ in 0..2 {
            let job = NewJob { tenant: tenant.into(), ..job() };
            let picks = vec![dead(&store, &job).await];
            let letters = store.archives.letters(&picks).await.unwrap();
            let object = ArchiveObject { tenant: Name::from(tenant), ..object(&letters) };
            let step = Step { picks, objects: vec![object.clone()], ..Step::beat(&operation, owner) };
            let Stepped::Done { operation: after, .. } = store.operations.step(step, NOW).await.unwrap() else {
                panic!()
            };
            operation = *after;
            objects.push(object);
        }
        store.operations.abort(operation.id, NOW).await.unwrap();
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        made.push((operation.id, objects));
    }
    let store = fixture.open().await;
    let archives = store.archives.archives(None, 10).await.unwrap();
    assert_eq!(archives.iter().map(|one| one.id).collect::<Vec<_>>(), [made[1].0, made[0].0], "newest first");
    let one = &archives[0];
    assert_eq!((one.objects, one.letters, one.bytes), (2, 2, 1_400));
    assert_eq!((one.filter.as_str(), one.reason.as_deref()), ("queue = default", Some("a bad\0day")));
    assert_eq!((one.began_at, one.asked_by.as_str(), one.cost), (NOW, "abcd1234", Nanousd(2 * 83)));
    assert_eq!(store.archives.archive(one.id).await.unwrap().as_ref(), Some(one));
    assert_eq!(store.archives.archive(OperationId::generate()).await.unwrap(), None);
    assert_eq!(store.archives.archives(Some(one.id), 10).await.unwrap(), archives[1..]);
    assert_eq!(store.archives.archives(None, 1).await.unwrap().len(), 1);
    let objects = &made[1].1;
    assert_eq!(&store.archives.objects_of(one.id, None, 10).await.unwrap(), objects);
    let behind = store.archives.objects_of(one.id, Some(&objects[0].path), 10).await.unwrap();
    assert_eq!(behind, objects[1..]);
}
