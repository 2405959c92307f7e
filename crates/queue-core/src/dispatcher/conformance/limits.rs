//! What stops claims: parked targets, paused queues, limits.

use super::{Fixture, Scene};
use crate::{
    dispatcher::{Setting, Wait},
    journal::QueueSettings,
};

pub async fn a_parked_target_is_skipped_until_its_time(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let until = scene.now().plus_ms(5_000);
    let park = Setting::ParkTarget { target: "t".into(), until, reason: "429".into() };
    scene.dispatcher.apply(park).await.unwrap();
    let parked = scene.push(|_| {}).await.id;
    let other = scene.push(|entry| entry.target = "u".into()).await.id;
    let reply = scene.step(scene.asking(9)).await;
    assert_eq!(reply.claims.iter().map(|claim| claim.lease.id).collect::<Vec<_>>(), vec![other]);
    assert_eq!(reply.next_at, Some(until), "the worker knows when to look again");
    scene.fixture.advance_ms(5_000).await;
    assert_eq!(scene.claim_ids(9).await, vec![parked]);
}

pub async fn a_longer_parking_stands(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let park = async |ms: i64| {
        let (until, reason) = (scene.now().plus_ms(ms), format!("for {ms} ms"));
        scene.dispatcher.apply(Setting::ParkTarget { target: "t".into(), until, reason }).await.unwrap();
    };
    let parked = scene.push(|_| {}).await.id;
    for ms in [5_000, 9_000, 1_000] {
        park(ms).await;
    }
    let waits = scene.dispatcher.explain(parked).await.unwrap();
    let (until, reason) = (scene.now().plus_ms(9_000), "for 9000 ms".to_owned());
    assert!(waits.contains(&Wait::TargetParked { target: "t".into(), until, reason }), "{waits:?}");
    scene.fixture.advance_ms(8_999).await;
    assert!(scene.claim_ids(9).await.is_empty());
    park(-1).await;
    assert_eq!(scene.claim_ids(9).await, vec![parked], "a moment that has passed ends all of it");
}

pub async fn a_target_has_its_limit(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.dispatcher.apply(Setting::TargetConcurrency("t".into(), Some(2))).await.unwrap();
    for _ in 0..4 {
        scene.push(|_| {}).await;
    }
    let claims = scene.claim(9).await;
    assert_eq!(claims.len(), 2);
    scene.ack(claims[0].lease, None).await;
    assert_eq!(scene.claim(9).await.len(), 1);
}

pub async fn a_pattern_limits_targets_without_a_limit_of_their_own(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let push = async |target: &str| {
        for _ in 0..5 {
            scene.push(|entry| entry.target = target.into()).await;
        }
    };
    push("a:old:main").await;
    for (target, limit) in [("a:*", 2), ("a:big*", 3), ("a:own:main", 4)] {
        scene.dispatcher.apply(Setting::TargetConcurrency(target.into(), Some(limit))).await.unwrap();
    }
    assert_eq!(scene.claim(99).await.len(), 2, "a target that was there before the limit");
    for (target, admitted) in [("a:new:main", 2), ("a:big:main", 3), ("a:own:main", 4), ("b:free:main", 5)] {
        push(target).await;
        assert_eq!(scene.claim(99).await.len(), admitted, "{target}");
    }
    scene.dispatcher.apply(Setting::TargetConcurrency("a:own:main".into(), None)).await.unwrap();
    assert!(scene.claim(99).await.is_empty(), "the pattern speaks for it again");
    scene.dispatcher.apply(Setting::TargetConcurrency("a:*".into(), None)).await.unwrap();
    assert_eq!(scene.claim(99).await.len(), 3 + 3 + 1, "what waited of `old`, `new` and `own`");
}

pub async fn a_queue_has_its_limit_and_its_pause(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.set_queue(1, QueueSettings { concurrency: Some(1), ..QueueSettings::default() }).await;
    scene.push(|_| {}).await;
    scene.push(|_| {}).await;
    assert_eq!(scene.claim(9).await.len(), 1);
    let until = Some(scene.now().plus_ms(1_000));
    scene.set_queue(2, QueueSettings { paused: true, paused_until: until, ..QueueSettings::default() }).await;
    assert_eq!(scene.claim(9).await.len(), 0);
    scene.fixture.advance_ms(1_000).await;
    assert_eq!(scene.claim(9).await.len(), 1, "a pause with an end ends by itself");
}

pub async fn older_settings_change_nothing(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.set_queue(2, QueueSettings { paused: true, ..QueueSettings::default() }).await;
    scene.set_queue(1, QueueSettings::default()).await;
    scene.push(|_| {}).await;
    assert!(scene.claim(1).await.is_empty());
    scene.set_queue(3, QueueSettings::default()).await;
    assert_eq!(scene.claim(1).await.len(), 1);
}

pub async fn parked_lanes_come_back_whole(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let park = |until| Setting::ParkTarget { target: "asleep".into(), until, reason: "429".into() };
    scene.dispatcher.apply(park(scene.now().plus_ms(60_000))).await.unwrap();
    let mut asleep = vec![];
    for n in 0..300 {
        let tenant = format!("tenant-{n}");
        let entry = scene.push(|entry| (entry.tenant, entry.target) = (tenant.as_str().into(), "asleep".into())).await;
        asleep.push(entry.id);
    }
    let awake = scene.push(|_| {}).await.id;
    assert_eq!(scene.claim_ids(400).await, vec![awake]);
    scene.dispatcher.apply(park(scene.now())).await.unwrap();
    let mut woken = scene.claim_ids(400).await;
    woken.sort_unstable();
    asleep.sort_unstable();
    assert_eq!(woken, asleep, "a moment that has passed wakes the target");
}

pub async fn limits_hold_over_queues_and_lanes(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.dispatcher.apply(Setting::TargetConcurrency("t".into(), Some(3))).await.unwrap();
    for n in 0..12 {
        let (queue, tenant) = (format!("queue-{}", n % 2), format!("tenant-{}", n % 3));
        scene.push(|entry| (entry.queue, entry.tenant) = (queue.as_str().into(), tenant.as_str().into())).await;
    }
    let (mut held, mut done) = (scene.claim(9).await, 0);
    while !held.is_empty() {
        assert!(held.len() <= 3, "{} at once", held.len());
        scene.ack(held.remove(0).lease, None).await;
        done += 1;
        held.extend(scene.claim(9).await);
    }
    assert_eq!(done, 12, "each freed place was taken again");
    scene.dispatcher.apply(Setting::TargetConcurrency("t".into(), None)).await.unwrap();
    for _ in 0..9 {
        scene.push(|_| {}).await;
    }
    assert_eq!(scene.claim(9).await.len(), 9, "a limit that is gone limits nothing");
}

pub async fn a_limit_that_is_reached_hides_nothing(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.dispatcher.apply(Setting::TargetConcurrency("t".into(), Some(1))).await.unwrap();
    // One claim closes the target in every queue, and in front of another target.
    for n in 0..6 {
        scene.push(|entry| entry.queue = format!("queue-{n}").as_str().into()).await;
    }
    let behind = scene.push(|entry| (entry.queue, entry.target) = ("queue-5".into(), "u".into())).await.id;
    let claimed = scene.claim_ids(2).await;
    assert_eq!(claimed.len(), 2);
    assert!(claimed.contains(&behind));
}
