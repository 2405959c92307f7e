//! What people ask.

use super::{Fixture, Scene};
use crate::{
    dispatcher::{Place, Setting, Suspicion, Wait},
    ids::{Epoch, JobId},
    journal::QueueSettings,
};

pub async fn depths_count_what_can_be_claimed(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let oldest = scene.now();
    scene.push(|_| {}).await;
    scene.push(|_| {}).await;
    scene.claim(1).await;
    scene.push(|entry| entry.run_at = entry.run_at.plus_ms(9_000)).await;
    scene.push(|entry| entry.target = "parked".into()).await;
    let until = scene.now().plus_ms(9_000);
    let park = Setting::ParkTarget { target: "parked".into(), until, reason: "x".into() };
    scene.dispatcher.apply(park).await.unwrap();
    let depth = scene.dispatcher.depths().await.unwrap().remove(0);
    assert_eq!((depth.waiting, depth.active, depth.scheduled, depth.parked), (1, 1, 1, 1));
    assert_eq!(depth.oldest_ready_at, Some(oldest));
    scene.set_queue(1, QueueSettings { paused: true, ..QueueSettings::default() }).await;
    let depth = scene.dispatcher.depths().await.unwrap().remove(0);
    assert_eq!((depth.waiting, depth.parked), (0, 2), "a paused queue scales no pods");
}

pub async fn a_waiting_job_says_what_it_waits_for(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let until = scene.now().plus_ms(500);
    let later = scene.push(|entry| entry.run_at = until).await.id;
    assert_eq!(scene.dispatcher.explain(later).await.unwrap(), vec![Wait::Delayed { until }]);
    scene.push(|_| {}).await;
    let second = scene.push(|_| {}).await.id;
    let waits = scene.dispatcher.explain(second).await.unwrap();
    assert_eq!(waits, vec![Wait::Turn { ahead_in_lane: 1, lanes: 1 }]);
    let reason = Some("deploy".to_owned());
    scene.set_queue(1, QueueSettings { paused: true, reason: reason.clone(), ..QueueSettings::default() }).await;
    assert_eq!(scene.dispatcher.explain(second).await.unwrap()[0], Wait::QueuePaused { until: None, reason });
    scene.dispatcher.leave(scene.session).await.unwrap();
    assert!(scene.dispatcher.explain(second).await.unwrap().contains(&Wait::NoWorker));
    assert!(scene.dispatcher.explain(JobId::generate()).await.unwrap().is_empty());
}

pub async fn the_oldest_is_told_whatever_its_priority(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let oldest = scene.now();
    scene.push(|entry| entry.priority = 0).await;
    scene.fixture.advance_ms(1_000).await;
    scene.push(|entry| entry.priority = 9).await;
    let depth = scene.dispatcher.depths().await.unwrap().remove(0);
    assert_eq!(depth.oldest_ready_at, Some(oldest), "although it is not the next");
}

pub async fn what_blocks_is_named(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.dispatcher.apply(Setting::TargetConcurrency("t".into(), Some(1))).await.unwrap();
    scene.set_queue(1, QueueSettings { concurrency: Some(1), ..QueueSettings::default() }).await;
    scene.push(|entry| entry.suspicion = Suspicion::Isolated).await;
    scene.fixture.advance_ms(1).await;
    let blocked = scene.push(|entry| entry.suspicion = Suspicion::Isolated).await.id;
    scene.claim(1).await;
    let until = scene.now().plus_ms(9_000);
    let park = Setting::ParkTarget { target: "t".into(), until, reason: "429".into() };
    scene.dispatcher.apply(park).await.unwrap();
    let waits = scene.dispatcher.explain(blocked).await.unwrap();
    assert!(waits.contains(&Wait::QueueConcurrency { limit: 1 }), "{waits:?}");
    assert!(waits.contains(&Wait::TargetConcurrency { target: "t".into(), limit: 1 }), "{waits:?}");
    assert!(waits.contains(&Wait::TargetParked { target: "t".into(), until, reason: "429".into() }), "{waits:?}");
    assert!(waits.contains(&Wait::OtherIsolated), "{waits:?}");
    scene.fixture.advance_ms(9_000).await;
    let waits = scene.dispatcher.explain(blocked).await.unwrap();
    assert!(!waits.iter().any(|wait| matches!(wait, Wait::TargetParked { .. })), "{waits:?}");
}

pub async fn places_are_told_in_order(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let held = scene.push(|_| {}).await.id;
    scene.claim(1).await;
    let waiting = scene.push(|_| {}).await.id;
    let places = scene.dispatcher.locate(&[waiting, JobId::generate(), held]).await.unwrap();
    let epochs: Vec<_> = places.iter().map(Place::epoch).collect();
    assert_eq!(epochs, vec![Some(Epoch(0)), None, Some(Epoch(0))]);
    assert!(matches!(&places[2], Place::Leased { session, .. } if *session == scene.session));
    let view = scene.dispatcher.sessions(&[]).await.unwrap().alive.remove(0);
    assert_eq!((view.id, view.leases, view.seen_at), (scene.session, 1, scene.now()));
}
