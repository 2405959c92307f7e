//! Cases of accept: what is kept, and what a repeated request is answered.

use bytes::Bytes;

use super::{Fixture, NOW, Opened, accept_new, death, job, retry, row, settle, success, token};
use crate::{
    ids::{Epoch, JobId, Nonce, SessionId},
    job::{Idempotency, NewJob},
    journal::{Accepted, Blame, JournalError, Recovery},
    ledger::{Nanousd, Usage},
    state::Standing,
};

fn keyed(key: &str, body: u8) -> NewJob {
    let idempotency = Some(Idempotency { owner: "acme".into(), key: key.into(), fingerprint: [body; 32], item: 0 });
    NewJob { idempotency, ..job() }
}

fn unique(key: &str) -> NewJob {
    NewJob { unique_key: Some(key.into()), ..job() }
}

async fn answer(store: &Opened, job: &NewJob) -> Accepted {
    store.journal.accept(vec![job.clone()]).await.unwrap().pop().unwrap()
}

/// Every field comes back; a new job has no history.
pub async fn a_job_is_read_back_as_it_was_sent(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let sent = NewJob {
        priority: 9,
        run_at: NOW.plus_ms(-5),
        start_by: Some(NOW.plus_ms(1)),
        deadline: Some(NOW.plus_ms(2)),
        timeout_ms: Some(3_000),
        max_attempts: 7,
        unique_key: Some("one".into()),
        concurrency_key: Some("user 7/ü".into()),
        operation: Some("summary".into()),
        batch_id: Some("b".into()),
        tags: vec!["x".into(), "y\"z".into()],
        request_id: Some("r".into()),
        traceparent: Some("00-t-s-01".into()),
        ..job()
    };
    accept_new(&store, &sent).await;
    let kept = row(&store, sent.id).await;
    assert_eq!((kept.id, &kept.tenant, &kept.queue), (sent.id, &sent.tenant, &sent.queue));
    assert_eq!((kept.kind, &kept.target, kept.priority), (sent.kind, &sent.target, 9));
    assert_eq!((kept.run_at, kept.start_by, kept.deadline), (sent.run_at, sent.start_by, sent.deadline));
    assert_eq!((kept.timeout_ms, kept.max_attempts), (Some(3_000), 7));
    assert_eq!((&kept.unique_key, &kept.operation), (&sent.unique_key, &sent.operation));
    assert_eq!(kept.concurrency_key, sent.concurrency_key);
    assert_eq!((&kept.batch_id, &kept.tags), (&sent.batch_id, &sent.tags));
    assert_eq!((&kept.request_id, &kept.traceparent), (&sent.request_id, &sent.traceparent));
    assert_eq!((kept.accepted_at, kept.finished_at), (NOW, None));
    assert_eq!((kept.standing, kept.epoch), (Standing::Live, Epoch(0)));
    assert_eq!((kept.attempts, kept.recoveries, kept.releases, kept.redrives), (0, 0, 0, 0));
    assert_eq!((kept.error, kept.served_by), (None, None));
    assert_eq!((kept.usage, kept.cost), (Usage::default(), Some(Nanousd(0))));
    assert_eq!(store.reads.payload(sent.id).await.unwrap(), Some(sent.payload.bytes()));
    assert!(store.reads.attempts(sent.id).await.unwrap().is_empty());
}

/// After an ambiguous answer a submitter sends the same ids and keys again.
pub async fn asking_again_gives_the_same_answers(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let jobs =
        vec![job(), keyed("k", 1), unique("u"), NewJob { payload: "other".into(), ..keyed("k", 1) }, keyed("k", 2)];
    let first = store.journal.accept(jobs.clone()).await.unwrap();
    assert_eq!(first[..3], [Accepted::New, Accepted::New, Accepted::New]);
    assert_eq!(first[3..], [Accepted::Replayed(jobs[1].id), Accepted::KeyReused]);
    assert_eq!(store.journal.accept(jobs.clone()).await.unwrap(), first);
    settle(&store, token(jobs[2].id, 0), success()).await;
    let after = unique("u");
    accept_new(&store, &after).await;
    assert_eq!(store.journal.accept(jobs.clone()).await.unwrap(), first, "also once the key has another holder");
    assert_eq!(row(&store, jobs[2].id).await.standing, Standing::Succeeded, "a settled job is left alone");
    let totals = store.reads.totals().await.unwrap();
    assert_eq!(totals["default"].accepted, 4);
}

/// The idempotency key with the same body leads to the first job, with another body nowhere.
pub async fn a_repeated_request_gets_the_first_job(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let first = keyed("k", 1);
    accept_new(&store, &first).await;
    assert_eq!(answer(&store, &keyed("k", 1)).await, Accepted::Replayed(first.id));
    assert_eq!(answer(&store, &keyed("k", 2)).await, Accepted::KeyReused);
    settle(&store, token(first.id, 0), success()).await;
    assert_eq!(answer(&store, &keyed("k", 1)).await, Accepted::Replayed(first.id), "also after it ended");
    let mut second_item = keyed("k", 1);
    second_item.idempotency.as_mut().unwrap().item = 1;
    assert_eq!(answer(&store, &second_item).await, Accepted::New, "another item of the request is another job");
}

/// Two jobs of one accept with one key: the first wins, as if they had come one after the other.
pub async fn equal_requests_of_one_batch_see_each_other(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (a, b, c, d) = (keyed("k", 1), keyed("k", 1), unique("u"), unique("u"));
    let answers = store.journal.accept(vec![a.clone(), b.clone(), c.clone(), d.clone()]).await.unwrap();
    assert_eq!(answers, [Accepted::New, Accepted::Replayed(a.id), Accepted::New, Accepted::Duplicate(c.id)]);
    for refused in [b.id, d.id] {
        assert!(store.reads.jobs(&[refused]).await.unwrap()[0].is_none());
        assert_eq!(store.reads.payload(refused).await.unwrap(), None);
    }
}

/// A retry keeps the key; every end frees it.
pub async fn a_unique_key_is_held_while_its_holder_lives(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let succeeds = unique("u");
    accept_new(&store, &succeeds).await;
    settle(&store, token(succeeds.id, 0), retry()).await;
    assert_eq!(answer(&store, &unique("u")).await, Accepted::Duplicate(succeeds.id));
    settle(&store, token(succeeds.id, 1), success()).await;

    let dies = unique("u");
    accept_new(&store, &dies).await;
    settle(&store, token(dies.id, 0), death()).await;

    let cancelled = unique("u");
    accept_new(&store, &cancelled).await;
    store.journal.cancel(cancelled.id, None, None, NOW).await.unwrap();

    let poisoned = unique("u");
    accept_new(&store, &poisoned).await;
    for epoch in 0..3 {
        lose(&store, poisoned.id, epoch).await;
    }
    assert_eq!(row(&store, poisoned.id).await.standing, Standing::Dead);

    let redriven = unique("u");
    accept_new(&store, &redriven).await;
    settle(&store, token(redriven.id, 0), death()).await;
    store.journal.redrive(redriven.id, NOW).await.unwrap();
    assert_eq!(answer(&store, &unique("u")).await, Accepted::Duplicate(redriven.id), "a redrive takes it again");
}

async fn lose(store: &Opened, id: JobId, epoch: i64) {
    let recovery = Recovery {
        token: token(id, epoch),
        nonce: Nonce(1),
        blame: Blame::Alone,
        session: SessionId::generate(),
        started_at: Some(NOW),
    };
    store.journal.recover(vec![recovery]).await.unwrap();
}

/// The same keys of another tenant are other keys.
pub async fn keys_belong_to_their_tenant(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let with_both = |tenant: &str| {
        let mut job = NewJob { tenant: tenant.into(), unique_key: Some("u".into()), ..keyed("k", 1) };
        job.idempotency.as_mut().unwrap().owner = tenant.into();
        job
    };
    accept_new(&store, &with_both("acme")).await;
    accept_new(&store, &with_both("globex")).await;
    let for_another = NewJob { tenant: "initech".into(), ..keyed("k", 2) };
    assert_eq!(
        answer(&store, &for_another).await,
        Accepted::KeyReused,
        "the key is its owner's, not the job's tenant's"
    );
}

/// A key belongs to a whole body: items that the first request did not have are refused with another body, and what
/// was accepted can be asked for.
pub async fn a_key_covers_every_item_of_its_request(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let item = |body: u8, item: u32| {
        let mut job = keyed("k", body);
        job.idempotency.as_mut().unwrap().item = item;
        job
    };
    assert_eq!(store.reads.answered(&"acme".into(), "k").await.unwrap(), None);
    let first = [item(1, 0), item(1, 2)];
    assert_eq!(store.journal.accept(first.to_vec()).await.unwrap(), [Accepted::New, Accepted::New]);
    let longer = (0..4).map(|n| item(2, n)).collect();
    assert_eq!(store.journal.accept(longer).await.unwrap(), vec![Accepted::KeyReused; 4]);
    assert_eq!(store.reads.totals().await.unwrap()["default"].accepted, 2);

    let answered = store.reads.answered(&"acme".into(), "k").await.unwrap().unwrap();
    assert_eq!(answered.fingerprint, [1; 32]);
    assert_eq!(answered.items, [(0, (first[0].id, NOW)), (2, (first[1].id, NOW))].into());
    assert_eq!(store.reads.answered(&"globex".into(), "k").await.unwrap(), None);
}

/// Items `items` of a body that came with the key.
fn body_of(key: &str, body: u8, items: std::ops::Range<u32>) -> Vec<NewJob> {
    let item = |item: u32| {
        let mut job = keyed(key, body);
        job.idempotency.as_mut().unwrap().item = item;
        job
    };
    items.map(item).collect()
}

/// Bodies with one key, none of whose items is an item of another, asked for at once: one of them is accepted, whole.
pub async fn bodies_that_come_at_once_do_not_share_a_key(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for round in 0..30 {
        let key = round.to_string();
        let bodies = (0..4_u8).map(|body| body_of(&key, body, u32::from(body) * 5..u32::from(body) * 5 + 5));
        let answers = bodies.map(|jobs| store.journal.accept(jobs));
        let answers: Vec<_> =
            futures::future::join_all(answers).await.into_iter().map(|answers| answers.unwrap()).collect();
        let accepted = answers.iter().filter(|answers| **answers == vec![Accepted::New; 5]).count();
        let refused = answers.iter().filter(|answers| **answers == vec![Accepted::KeyReused; 5]).count();
        assert_eq!((accepted, refused), (1, 3), "{answers:?}");
        assert_eq!(store.reads.answered(&"acme".into(), &key).await.unwrap().unwrap().items.len(), 5);
    }
    assert_eq!(store.reads.totals().await.unwrap()["default"].accepted, 150);
}

/// A body of which nothing was accepted has no key, also for a body that follows in the same accept.
pub async fn a_refused_body_leaves_its_key_free(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let holder = unique("u");
    accept_new(&store, &holder).await;
    let refused = |key: &str| NewJob { unique_key: Some("u".into()), ..keyed(key, 1) };
    assert_eq!(answer(&store, &refused("apart")).await, Accepted::Duplicate(holder.id));
    assert_eq!(answer(&store, &keyed("apart", 2)).await, Accepted::New);
    assert_eq!(answer(&store, &refused("apart")).await, Accepted::KeyReused);

    let both = vec![refused("together"), keyed("together", 2), keyed("together", 1)];
    let answers = store.journal.accept(both.clone()).await.unwrap();
    assert_eq!(answers, [Accepted::Duplicate(holder.id), Accepted::New, Accepted::KeyReused]);
    assert_eq!(store.journal.accept(both.clone()).await.unwrap()[1..], [Accepted::New, Accepted::KeyReused]);
    let kept = store.reads.answered(&"acme".into(), "together").await.unwrap().unwrap();
    assert_eq!((kept.fingerprint, kept.items), ([2; 32], [(0, (both[1].id, NOW))].into()));
}

/// Nothing is interpreted: NUL, control characters, quotes and bytes that are no text come back as they are.
pub async fn any_text_and_any_bytes_survive(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let odd = "a\u{0}b'\";--\u{1f}\u{fffd}🦀\n";
    let payload = Bytes::from((0..=255).collect::<Vec<u8>>());
    let sent = NewJob {
        unique_key: Some(odd.into()),
        operation: Some(odd.into()),
        batch_id: Some(odd.into()),
        tags: vec![odd.into(), String::new()],
        idempotency: Some(Idempotency { owner: "acme".into(), key: odd.into(), fingerprint: [0; 32], item: 0 }),
        payload: payload.clone().into(),
        ..job()
    };
    accept_new(&store, &sent).await;
    let kept = row(&store, sent.id).await;
    assert_eq!((kept.unique_key.as_deref(), kept.operation.as_deref()), (Some(odd), Some(odd)));
    assert_eq!((kept.batch_id.as_deref(), &kept.tags), (Some(odd), &sent.tags));
    let loaded = store.journal.load(&[token(sent.id, 0)], NOW).await.unwrap().pop().flatten().unwrap();
    assert_eq!(loaded.payload, payload);
    assert_eq!(answer(&store, &NewJob { id: JobId::generate(), ..sent.clone() }).await, Accepted::Replayed(sent.id));
    settle(&store, token(sent.id, 0), crate::journal::Outcome::Succeed { result: payload.clone().into() }).await;
    assert_eq!(store.reads.result(sent.id).await.unwrap(), Some(payload));
}

/// A job that the schema refuses fails with those of its own accept; neighbours in the group do not notice.
pub async fn a_bad_job_hurts_only_itself(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (good, bad, other) = (job(), NewJob { max_attempts: 0, ..job() }, job());
    let (first, refused, last) = tokio::join!(
        store.journal.accept(vec![good.clone()]),
        store.journal.accept(vec![bad.clone()]),
        store.journal.accept(vec![other.clone()])
    );
    assert_eq!((first.unwrap(), last.unwrap()), (vec![Accepted::New], vec![Accepted::New]));
    assert!(matches!(refused, Err(JournalError::Corrupt(_))), "{refused:?}");
    let found = store.reads.jobs(&[good.id, bad.id, other.id]).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
}

/// Answers and rows keep the order of what was asked.
pub async fn a_bulk_is_answered_in_order(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let jobs: Vec<_> = (0..500).map(|n| if n % 50 == 7 { unique("u") } else { job() }).collect();
    let answers = store.journal.accept(jobs.clone()).await.unwrap();
    for (n, answer) in answers.iter().enumerate() {
        let expected = if n % 50 == 7 && n > 7 { Accepted::Duplicate(jobs[7].id) } else { Accepted::New };
        assert_eq!(*answer, expected, "job {n}");
    }
    let ids: Vec<_> = jobs.iter().rev().map(|job| job.id).collect();
    let found = store.reads.jobs(&ids).await.unwrap();
    for (id, found) in ids.iter().zip(&found) {
        assert!(found.as_ref().is_none_or(|job| job.id == *id));
    }
    assert_eq!(found.iter().flatten().count(), 491);
    assert_eq!(store.journal.accept(Vec::new()).await.unwrap(), []);
}
