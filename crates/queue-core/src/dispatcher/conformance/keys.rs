//! Concurrency keys: how many jobs of one key run at once, and who does not have to wait for them.

use super::{Fixture, Scene};
use crate::{
    dispatcher::{Ack, Claim, Entry, HORIZON_MS, Held, Place, QueueDepth, SESSION_MS, Setting, Signal, Step, Wait},
    ids::{Epoch, Generation, JobId, Name, SessionId},
    journal::{QueueSettings, Versioned},
};

impl Scene<'_> {
    async fn push_keyed(&self, key: &str) -> Entry {
        self.push(|entry| entry.key = Some(key.into())).await
    }

    async fn push_many(&self, count: usize, key: &str) -> Vec<JobId> {
        let mut entries: Vec<_> = (0..count).map(|_| Entry { key: Some(key.into()), ..self.entry() }).collect();
        entries.sort_by_key(|entry| entry.id);
        self.dispatcher.push(entries.clone()).await.unwrap();
        entries.iter().map(|entry| entry.id).collect()
    }

    async fn set_key_limit(&self, version: i64, limit: u32) {
        self.set_queue(version, QueueSettings { key_concurrency: Some(limit), ..QueueSettings::default() }).await;
    }

    async fn depth(&self) -> QueueDepth {
        self.dispatcher.depths().await.unwrap().remove(0)
    }
}

fn ids(claims: &[Claim]) -> Vec<JobId> {
    claims.iter().map(|claim| claim.lease.id).collect()
}

pub async fn one_job_of_a_key_runs_at_a_time(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let jobs = scene.push_many(5, "k").await;
    let mut ran = vec![];
    for _ in 0..5 {
        let claims = scene.claim(9).await;
        assert_eq!(claims.len(), 1);
        assert!(scene.claim(9).await.is_empty(), "as long as it is held");
        ran.extend(ids(&claims));
        scene.ack(claims[0].lease, None).await;
    }
    assert_eq!(ran, jobs, "in their order");
    assert!(scene.claim(9).await.is_empty());
}

pub async fn a_step_takes_the_place_that_its_ack_frees(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let jobs = scene.push_many(3, "k").await;
    let first = scene.claim(1).await;
    let acks = vec![Ack { lease: first[0].lease, next: None }];
    let reply = scene.step(Step { acks, ..scene.asking(9) }).await;
    assert_eq!(ids(&reply.claims), vec![jobs[1]]);
}

pub async fn others_do_not_wait_for_a_key(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let jobs = scene.push_many(20, "k").await;
    let (other, plain) = (scene.push_keyed("other").await.id, scene.push(|_| {}).await.id);
    let claimed = scene.claim_ids(99).await;
    assert_eq!(claimed, vec![jobs[0], other, plain], "of the same lane");
}

pub async fn a_key_is_of_its_queue_and_tenant(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    for (queue, tenant) in [("a", "x"), ("a", "y"), ("b", "x")] {
        for target in ["t", "u"] {
            let of = |entry: &mut Entry| {
                (entry.queue, entry.tenant, entry.target) = (queue.into(), tenant.into(), target.into());
                entry.key = Some("k".into());
            };
            scene.push(of).await;
        }
    }
    let claims = scene.claim(99).await;
    assert_eq!(claims.len(), 3, "one of each queue and tenant, whatever its target");
    for claim in &claims {
        scene.ack(claim.lease, None).await;
    }
    assert_eq!(scene.claim(99).await.len(), 3);
}

pub async fn a_queue_says_how_many_of_a_key_run(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let jobs = scene.push_many(9, "k").await;
    let other = scene.push_many(9, "other").await;
    scene.set_key_limit(1, 3).await;
    let claims = scene.claim(99).await;
    let of = |these: &[JobId]| claims.iter().filter(|claim| these.contains(&claim.lease.id)).count();
    assert_eq!((of(&jobs), of(&other)), (3, 3), "more were admitted at once");
    scene.set_key_limit(2, 2).await;
    scene.ack(claims[0].lease, None).await;
    assert!(scene.claim(99).await.is_empty(), "two of it still run");
    for claim in &claims[1..] {
        scene.ack(claim.lease, None).await;
    }
    assert_eq!(scene.claim(99).await.len(), 4, "two of each");
    scene.set_queue(3, QueueSettings::default()).await;
    assert!(scene.claim(99).await.is_empty(), "one of each is the default");
}

pub async fn a_lane_keeps_its_turn_when_one_of_its_own_goes_first(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let of = |target: &str, priority: u8, key: Option<&str>| {
        let target = Name::from(target);
        Entry { target, priority, key: key.map(Name::from), ..scene.entry() }
    };
    let (first, patient, second) = (of("a", 0, None), of("b", 0, Some("k")), of("a", 0, None));
    scene.dispatcher.push(vec![first.clone(), patient.clone()]).await.unwrap();
    scene.dispatcher.push(vec![second.clone()]).await.unwrap();
    assert_eq!(scene.claim_ids(1).await, vec![first.id]);
    let urgent = of("b", 9, Some("k"));
    scene.dispatcher.push(vec![urgent.clone()]).await.unwrap();
    assert_eq!(
        scene.claim_ids(1).await,
        vec![urgent.id],
        "in place of the patient one, and before a second turn of `a`"
    );
    assert_eq!(scene.claim_ids(9).await, vec![second.id]);
}

pub async fn a_lower_limit_takes_back_what_waits(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.set_key_limit(1, 5).await;
    let jobs = scene.push_many(9, "k").await;
    scene.set_key_limit(2, 1).await;
    assert_eq!(scene.claim_ids(99).await, vec![jobs[0]], "although five stood in the lane");
    scene.set_key_limit(1, 9).await;
    assert!(scene.claim(99).await.is_empty(), "an older version changes nothing");
    scene.set_key_limit(3, 4).await;
    assert_eq!(scene.claim_ids(99).await, jobs[1..4]);
}

/// More keys, and more jobs of one key, than one call may look at.
pub async fn a_new_limit_reaches_every_key(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let entry = |n: usize| Entry { key: Some(Name::new(format!("key-{}", n % 1_200))), ..scene.entry() };
    for part in (0..3_600).collect::<Vec<_>>().chunks(1_000) {
        scene.dispatcher.push(part.iter().map(|n| entry(*n)).collect()).await.unwrap();
    }
    for _ in 0..6 {
        scene.push_many(1_000, "big").await;
    }
    assert_eq!(scene.depth().await.waiting, 1_201);
    scene.set_key_limit(1, 100_000).await;
    while scene.step(scene.asking(0)).await.next_at.is_some() {}
    assert_eq!((scene.depth().await.waiting, scene.depth().await.parked), (9_600, 0));
    scene.set_key_limit(2, 2).await;
    while scene.step(scene.asking(0)).await.next_at.is_some() {}
    assert_eq!((scene.depth().await.waiting, scene.depth().await.parked), (2_402, 7_198));
}

pub async fn the_urgent_goes_first_within_a_key(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let usual = scene.push_keyed("k").await.id;
    let late = scene.push(|entry| (entry.key, entry.priority) = (Some("k".into()), 0)).await.id;
    // It takes the place in the lane of the one that is there, and of another target.
    let urgent = |entry: &mut Entry| {
        (entry.key, entry.priority, entry.target) = (Some("k".into()), 9, "u".into());
    };
    let urgent = scene.push(urgent).await.id;
    let mut ran = vec![];
    for _ in 0..3 {
        let claims = scene.claim(9).await;
        ran.extend(ids(&claims));
        scene.ack(claims[0].lease, None).await;
    }
    assert_eq!(ran, vec![urgent, usual, late]);
}

pub async fn every_end_of_a_claim_frees_its_place(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let jobs = scene.push_many(2, "k").await;
    let again = |id, epoch, in_ms| Entry {
        id,
        epoch: Epoch(epoch),
        key: Some("k".into()),
        run_at: scene.now().plus_ms(in_ms),
        ..scene.entry()
    };
    // A retry that is due later does not keep its place.
    let claim = scene.claim(9).await.remove(0);
    assert_eq!(claim.lease.id, jobs[0]);
    scene.ack(claim.lease, Some(again(jobs[0], 1, 500))).await;
    let claim = scene.claim(9).await.remove(0);
    assert_eq!(claim.lease.id, jobs[1]);
    // Due, it waits like the others.
    scene.fixture.advance_ms(500).await;
    assert!(scene.claim(9).await.is_empty());
    // One that goes on behind the horizon.
    scene.ack(claim.lease, Some(again(jobs[1], 1, HORIZON_MS * 2))).await;
    assert_eq!(scene.claim_ids(9).await, vec![jobs[0]]);
    // One that was edited, or recovered by another scheduler: a push at a later epoch ends the claim.
    let next = scene.push_keyed("k").await;
    scene.dispatcher.push(vec![again(jobs[0], 2, 400)]).await.unwrap();
    assert_eq!(scene.claim_ids(9).await, vec![next.id]);
}

pub async fn a_withdrawn_job_leaves_the_line_of_its_key(fixture: &dyn Fixture) {
    let mut scene = Scene::open(fixture).await;
    let until = scene.now().plus_ms(9_000);
    let park = Setting::ParkTarget { target: "t".into(), until, reason: "429".into() };
    scene.dispatcher.apply(park).await.unwrap();
    let asleep = scene.push_many(3, "k").await;
    let awake = scene.push(|entry| (entry.key, entry.target) = (Some("k".into()), "u".into())).await.id;
    assert!(scene.claim(9).await.is_empty(), "those before it keep their place while they are parked");
    scene.drain_signals().await;
    for id in [asleep[1], asleep[0], asleep[2]] {
        assert_eq!(scene.told().await, None);
        assert!(matches!(scene.dispatcher.withdraw(id).await.unwrap(), Place::Waiting { .. }));
    }
    assert_eq!(scene.told().await, Some(Signal::Work), "the place that it left is another's now");
    assert_eq!(scene.claim_ids(9).await, vec![awake]);
}

pub async fn a_lost_claim_keeps_its_place_until_it_is_replaced(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let jobs = scene.push_many(2, "k").await;
    let lost = scene.claim(1).await.remove(0);
    scene.dispatcher.start(scene.session, &[lost.lease]).await.unwrap();
    scene.fixture.advance_ms(SESSION_MS).await;
    assert_eq!(scene.dispatcher.reap(9).await.unwrap().len(), 1);
    let another = scene.another().await;
    assert!(another.claim(9).await.is_empty(), "nobody knows yet that it does not run");
    let again = Entry { id: jobs[0], epoch: Epoch(1), key: Some("k".into()), ..scene.entry() };
    scene.dispatcher.push(vec![again]).await.unwrap();
    let claims = another.claim(9).await;
    assert_eq!(claims.len(), 1);
    another.ack(claims[0].lease, None).await;
    assert_eq!(another.claim(9).await.len(), 1);
}

pub async fn what_ran_before_a_flush_has_its_place(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.set_key_limit(1, 2).await;
    let entries: Vec<_> = (0..4).map(|_| Entry { key: Some("k".into()), ..scene.entry() }).collect();
    scene.dispatcher.push(entries.clone()).await.unwrap();
    let claims = scene.claim(2).await;
    let held = claims.iter().map(|claim| {
        let entry = entries.iter().find(|entry| entry.id == claim.lease.id).unwrap().clone();
        Held { lease: claim.lease, entry, started_at: Some(scene.now()) }
    });
    let held: Vec<_> = held.collect();
    scene.dispatcher.begin(Generation(2)).await.unwrap();
    scene.set_key_limit(1, 2).await;
    scene.dispatcher.push(entries.clone()).await.unwrap();
    assert_eq!(scene.depth().await.waiting, 2, "as of now nobody holds any");
    scene.dispatcher.join(scene.session, held).await.unwrap();
    let depth = scene.depth().await;
    assert_eq!((depth.waiting, depth.active, depth.parked), (0, 2, 2));
    assert!(scene.claim(9).await.is_empty());
    scene.ack(claims[0].lease, None).await;
    assert_eq!(scene.claim(9).await.len(), 1);
}

pub async fn who_held_more_than_may_is_waited_for(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let entries: Vec<_> = (0..3).map(|_| Entry { key: Some("k".into()), ..scene.entry() }).collect();
    let held = |entry: &Entry, nonce| {
        let lease = crate::dispatcher::Lease { id: entry.id, epoch: entry.epoch, nonce: crate::ids::Nonce(nonce) };
        Held { lease, entry: entry.clone(), started_at: None }
    };
    let (first, second) = (held(&entries[0], 1), held(&entries[1], 2));
    scene.dispatcher.push(vec![entries[2].clone()]).await.unwrap();
    let another = SessionId::generate();
    scene.dispatcher.join(another, vec![first.clone(), second.clone()]).await.unwrap();
    for held in [first, second] {
        assert!(scene.claim(9).await.is_empty());
        scene.ack(held.lease, None).await;
    }
    assert_eq!(scene.claim_ids(9).await, vec![entries[2].id]);
}

pub async fn a_blocked_job_says_so(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.set_key_limit(1, 2).await;
    let jobs = scene.push_many(5, "user 7/ü").await;
    scene.claim(1).await;
    let blocked = |ahead| Wait::ConcurrencyKey { key: "user 7/ü".into(), limit: 2, ahead };
    let turn = Wait::Turn { ahead_in_lane: 0, lanes: 1 };
    let waits = [vec![], vec![turn], vec![blocked(1)], vec![blocked(2)], vec![blocked(3)]];
    for (id, waits) in jobs.iter().zip(waits) {
        assert_eq!(scene.dispatcher.explain(*id).await.unwrap(), waits);
    }
    let depth = scene.depth().await;
    assert_eq!((depth.waiting, depth.active, depth.parked), (1, 1, 3), "only what can be claimed counts as waiting");
}

pub async fn a_key_that_nobody_has_leaves_nothing(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    for round in 0..3 {
        let jobs = scene.push_many(2, "k").await;
        let claim = scene.claim(9).await.remove(0);
        scene.ack(claim.lease, None).await;
        scene.dispatcher.withdraw(jobs[1]).await.unwrap();
        assert!(scene.claim(9).await.is_empty(), "round {round}");
        assert!(scene.dispatcher.depths().await.unwrap().is_empty());
    }
    let setting = Setting::Queue("default".into(), Versioned { version: 1, value: QueueSettings::default() });
    scene.dispatcher.apply(setting).await.unwrap();
    let depth = scene.depth().await;
    assert_eq!((depth.waiting, depth.active, depth.parked), (0, 0, 0));
}
