//! Who is claimed when, and what a push, an ack and a withdrawal do.

use super::{Fixture, Scene};
use crate::{
    dispatcher::{CLAIM_MAX_JOBS, DispatchError, Entry, HORIZON_MS, Lease, Place, Setting, Signal, Step},
    ids::{Epoch, Generation, Nonce, SessionId},
    job::AGEING_MS_PER_POINT,
    journal::{TenantSettings, Versioned},
};

pub async fn nothing_is_claimed_before_it_begins(fixture: &dyn Fixture) {
    let dispatcher = fixture.dispatcher();
    let session = SessionId::generate();
    let _signals = dispatcher.join(session, vec![]).await;
    let step = Step { session, acks: vec![], queues: vec![], kinds: vec![], slots: 4 };
    let claims = dispatcher.step(step).await.map(|reply| reply.claims).unwrap_or_default();
    assert!(claims.is_empty());
    let scene = Scene::open(fixture).await;
    let entry = scene.push(|_| {}).await;
    assert_eq!(scene.claim_ids(4).await, vec![entry.id]);
}

pub async fn no_more_is_claimed_than_slots(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    for _ in 0..5 {
        scene.push(|_| {}).await;
    }
    assert_eq!(scene.claim(0).await.len(), 0);
    assert_eq!(scene.claim(3).await.len(), 3);
    assert_eq!(scene.claim(3).await.len(), 2);
    assert_eq!(scene.claim(3).await.len(), 0);
}

pub async fn a_push_is_heard_once_an_epoch(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let entry = scene.push(|_| {}).await;
    scene.dispatcher.push(vec![entry.clone()]).await.unwrap();
    let claims = scene.claim(9).await;
    assert_eq!(claims.len(), 1, "a repeated push makes no second entry");
    scene.dispatcher.push(vec![entry]).await.unwrap();
    assert!(scene.claim(9).await.is_empty(), "nor does one while it is claimed");
}

pub async fn a_later_epoch_ends_a_claim(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let entry = scene.push(|_| {}).await;
    let old = scene.claim(1).await[0].lease;
    scene.dispatcher.push(vec![Entry { epoch: Epoch(1), ..entry.clone() }]).await.unwrap();
    assert_eq!(scene.dispatcher.renew(scene.session, &[old]).await.unwrap(), vec![old]);
    let new = scene.claim(1).await[0].lease;
    assert_eq!((new.id, new.epoch), (entry.id, Epoch(1)));
    scene.ack(old, None).await;
    assert!(
        matches!(scene.place(entry.id).await, Place::Leased { epoch: Epoch(1), .. }),
        "the old claim's ack is nothing"
    );
    scene.dispatcher.push(vec![entry.clone()]).await.unwrap();
    assert!(matches!(scene.place(entry.id).await, Place::Leased { epoch: Epoch(1), .. }), "nor is an old push");
}

pub async fn priorities_order_and_age(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let old = scene.push(|entry| entry.priority = 4).await.id;
    scene.fixture.advance_ms(AGEING_MS_PER_POINT / 2).await;
    let plain = scene.push(|_| {}).await.id;
    let urgent = scene.push(|entry| entry.priority = 9).await.id;
    assert_eq!(scene.claim_ids(9).await, vec![urgent, plain, old]);
    let waited = scene.push(|entry| entry.priority = 4).await.id;
    scene.fixture.advance_ms(AGEING_MS_PER_POINT * 2).await;
    let fresh = scene.push(|_| {}).await.id;
    assert_eq!(scene.claim_ids(9).await, vec![waited, fresh], "waiting is worth priority");
}

pub async fn lanes_take_turns(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    for _ in 0..50 {
        scene.push(|_| {}).await;
    }
    let small = scene.push(|entry| entry.tenant = "small".into()).await.id;
    let first = scene.claim_ids(2).await;
    assert!(first.contains(&small), "one job of another tenant waits one turn, not fifty");
    assert_eq!(scene.claim(99).await.len(), 49);
}

pub async fn weights_share_the_turns(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let heavy = TenantSettings { weight: 3, ..TenantSettings::default() };
    scene.dispatcher.apply(Setting::Tenant("heavy".into(), Versioned { version: 1, value: heavy })).await.unwrap();
    let mut heavy = vec![];
    for _ in 0..40 {
        heavy.push(scene.push(|entry| entry.tenant = "heavy".into()).await.id);
        scene.push(|_| {}).await;
    }
    let share = scene.claim_ids(40).await.iter().filter(|id| heavy.contains(id)).count();
    assert_eq!(share, 30, "three turns of four");
}

pub async fn a_worker_serves_the_queues_it_names(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.push(|_| {}).await;
    let mine = scene.push(|entry| entry.queue = "mine".into()).await.id;
    let step = Step { queues: vec!["mine".into()], ..scene.asking(9) };
    let claims = scene.step(step).await.claims;
    assert_eq!(claims.iter().map(|claim| claim.lease.id).collect::<Vec<_>>(), vec![mine]);
}

pub async fn jobs_that_come_twice_in_a_push_are_held_once(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let (one, other) = (scene.entry(), scene.entry());
    let newer = Entry { epoch: Epoch(1), ..other.clone() };
    let pushed = [&one, &other, &other, &one, &newer, &one];
    scene.dispatcher.push(pushed.into_iter().cloned().collect()).await.unwrap();
    assert_eq!(scene.dispatcher.depths().await.unwrap()[0].waiting, 2);
    assert_eq!(scene.place(other.id).await, Place::Waiting { epoch: Epoch(1) });
    assert_eq!(scene.claim(9).await.len(), 2);
}

pub async fn what_is_due_later_waits(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let run_at = scene.now().plus_ms(700);
    let later = scene.push(|entry| entry.run_at = run_at).await.id;
    let reply = scene.step(scene.asking(9)).await;
    assert_eq!((reply.claims.len(), reply.next_at), (0, Some(run_at)));
    scene.fixture.advance_ms(700).await;
    assert_eq!(scene.claim_ids(9).await, vec![later]);
}

pub async fn an_ack_must_match(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let entry = scene.push(|_| {}).await;
    let lease = scene.claim(1).await[0].lease;
    scene.ack(Lease { nonce: Nonce(lease.nonce.0 + 7), ..lease }, None).await;
    scene.ack(Lease { epoch: Epoch(5), ..lease }, Some(Entry { epoch: Epoch(6), ..entry.clone() })).await;
    assert!(matches!(scene.place(entry.id).await, Place::Leased { epoch: Epoch(0), .. }));
    scene.ack(lease, None).await;
    assert_eq!(scene.place(entry.id).await, Place::Unknown);
    scene.ack(lease, Some(entry.clone())).await;
    assert_eq!(scene.place(entry.id).await, Place::Unknown, "a repeated ack brings nothing back");
}

pub async fn a_release_comes_back_at_once(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let entry = scene.push(|_| {}).await;
    let lease = scene.claim(1).await[0].lease;
    scene.ack(lease, Some(Entry { epoch: Epoch(1), ..entry })).await;
    let again = scene.claim(1).await[0].lease;
    assert_eq!((again.id, again.epoch), (lease.id, Epoch(1)));
    assert_ne!(again.nonce, lease.nonce);
}

pub async fn what_is_due_behind_the_horizon_is_forgotten(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let entry = scene.push(|_| {}).await;
    let lease = scene.claim(1).await[0].lease;
    let run_at = scene.now().plus_ms(HORIZON_MS + 1);
    scene.ack(lease, Some(Entry { epoch: Epoch(1), run_at, ..entry.clone() })).await;
    assert_eq!(scene.place(entry.id).await, Place::Unknown, "the journal keeps it until it comes near");
}

pub async fn a_withdrawn_job_is_gone(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let waiting = scene.push(|_| {}).await.id;
    assert!(matches!(scene.dispatcher.withdraw(waiting).await.unwrap(), Place::Waiting { .. }));
    assert_eq!(scene.place(waiting).await, Place::Unknown);
    assert!(scene.claim(9).await.is_empty());
    let running = scene.push(|_| {}).await.id;
    scene.claim(9).await;
    assert!(matches!(scene.dispatcher.withdraw(running).await.unwrap(), Place::Leased { .. }));
    assert!(matches!(scene.place(running).await, Place::Leased { .. }), "a running job stays");
}

pub async fn a_new_life_knows_nothing(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let id = scene.push(|_| {}).await.id;
    scene.dispatcher.begin(Generation(2)).await.unwrap();
    assert_eq!(scene.place(id).await, Place::Unknown);
    let entry = scene.push(|_| {}).await;
    let _signals = scene.dispatcher.join(scene.session, vec![]).await.unwrap();
    assert_eq!(scene.claim_ids(9).await, vec![entry.id], "and goes on with the workers that come back");
}

pub async fn one_step_claims_a_bounded_number_and_says_that_there_is_more(fixture: &dyn Fixture) {
    let mut scene = Scene::open(fixture).await;
    for _ in 0..2 {
        let entries = (0..CLAIM_MAX_JOBS).map(|_| scene.entry()).collect();
        scene.dispatcher.push(entries).await.unwrap();
    }
    scene.drain_signals().await;
    assert_eq!(scene.claim(CLAIM_MAX_JOBS * 3).await.len(), CLAIM_MAX_JOBS);
    assert_eq!(scene.told().await, Some(Signal::Work), "it asked for more than it got");
    assert_eq!(scene.claim(CLAIM_MAX_JOBS * 3).await.len(), CLAIM_MAX_JOBS);
}

pub async fn queues_take_turns(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    for _ in 0..50 {
        scene.push(|_| {}).await;
    }
    let small = scene.push(|entry| entry.queue = "small".into()).await.id;
    assert!(scene.claim_ids(2).await.contains(&small), "one job of another queue waits one turn, not fifty");
}

pub async fn who_comes_again_and_again_gains_nothing(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    for _ in 0..20 {
        scene.push(|_| {}).await;
    }
    let mut again = scene.push(|entry| entry.tenant = "again".into()).await.id;
    let mut share = 0;
    for _ in 0..20 {
        let lease = scene.claim(1).await[0].lease;
        scene.ack(lease, None).await;
        if lease.id == again {
            share += 1;
            again = scene.push(|entry| entry.tenant = "again".into()).await.id;
        }
    }
    assert!((9..=11).contains(&share), "half of the turns, not {share} of 20, although its lane was new each time");
}

pub async fn a_push_behind_the_horizon_ends_what_it_replaces(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let entry = scene.push(|_| {}).await;
    let lease = scene.claim(1).await[0].lease;
    let run_at = scene.now().plus_ms(HORIZON_MS + 60_000);
    scene.dispatcher.push(vec![Entry { epoch: Epoch(1), run_at, ..entry.clone() }]).await.unwrap();
    assert_eq!(scene.place(entry.id).await, Place::Unknown);
    assert_eq!(scene.dispatcher.renew(scene.session, &[lease]).await.unwrap(), vec![lease]);
}

pub async fn a_later_epoch_replaces_what_waits(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let run_at = scene.now().plus_ms(5_000);
    let entry = scene.push(|entry| entry.run_at = run_at).await;
    let (epoch, run_at) = (Epoch(1), scene.now());
    scene.dispatcher.push(vec![Entry { epoch, run_at, queue: "other".into(), ..entry.clone() }]).await.unwrap();
    let claims = scene.claim(9).await;
    assert_eq!((claims.len(), claims[0].lease.epoch, claims[0].queue.as_str()), (1, Epoch(1), "other"));
    assert_eq!(claims[0].ready_at, run_at);
    scene.ack(claims[0].lease, None).await;
    scene.fixture.advance_ms(5_000).await;
    assert!(scene.claim(9).await.is_empty(), "nothing is left of the earlier epoch");
    assert_eq!(scene.place(entry.id).await, Place::Unknown);
}

pub async fn an_older_life_does_not_begin_again(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.dispatcher.begin(Generation(5)).await.unwrap();
    let _signals = scene.dispatcher.join(scene.session, vec![]).await.unwrap();
    let entry = scene.push(|_| {}).await;
    assert!(matches!(scene.dispatcher.begin(Generation(4)).await, Err(DispatchError::WrongGeneration)));
    scene.dispatcher.begin(Generation(5)).await.unwrap();
    assert_eq!(scene.claim_ids(9).await, vec![entry.id], "asking twice for the same life begins it once");
}
