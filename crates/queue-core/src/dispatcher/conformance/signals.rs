//! What a worker is told between its steps.

use std::collections::BTreeSet;

use super::{Fixture, Scene};
use crate::{
    dispatcher::{CLAIM_MAX_JOBS, Lease, Setting, Signal, Suspicion},
    ids::Generation,
    journal::{QueueSettings, Versioned},
};

pub async fn a_cancel_reaches_the_holder(fixture: &dyn Fixture) {
    let mut scene = Scene::open(fixture).await;
    let id = scene.push(|_| {}).await.id;
    scene.claim(1).await;
    scene.dispatcher.nudge(id).await.unwrap();
    loop {
        match scene.signals.recv().await.unwrap() {
            Signal::Cancel(cancelled) => break assert_eq!(cancelled, id),
            Signal::Work => {}
        }
    }
}

pub async fn a_wake_up_is_never_lost(fixture: &dyn Fixture) {
    let mut scene = Scene::open(fixture).await;
    for _ in 0..20 {
        assert!(scene.claim(9).await.is_empty());
        for _ in 0..3 {
            scene.push(|_| {}).await;
        }
        // Whatever was said before the step, something is said after the push.
        assert_eq!(scene.signals.recv().await, Some(Signal::Work));
        scene.drain_signals().await;
        assert_eq!(scene.claim(9).await.len(), 3);
    }
}

pub async fn no_cancel_is_lost(fixture: &dyn Fixture) {
    let mut scene = Scene::open(fixture).await;
    let mut waiting = BTreeSet::new();
    for _ in 0..3 {
        scene.dispatcher.push((0..CLAIM_MAX_JOBS).map(|_| scene.entry()).collect()).await.unwrap();
        waiting.extend(scene.claim_ids(CLAIM_MAX_JOBS).await);
    }
    for id in &waiting {
        scene.dispatcher.nudge(*id).await.unwrap();
    }
    // More than the channel holds; the rest comes with the worker's next words.
    while !waiting.is_empty() {
        let before = waiting.len();
        while let Some(signal) = scene.told().await {
            if let Signal::Cancel(id) = signal {
                waiting.remove(&id);
            }
        }
        assert!(waiting.len() < before, "{before} cancels are lost");
        scene.dispatcher.renew(scene.session, &[]).await.unwrap();
    }
}

pub async fn many_pushes_cost_one_signal(fixture: &dyn Fixture) {
    let mut scene = Scene::open(fixture).await;
    scene.claim(1).await;
    scene.drain_signals().await;
    for _ in 0..1_000 {
        scene.push(|_| {}).await;
    }
    assert_eq!(scene.told().await, Some(Signal::Work));
    assert_eq!(scene.told().await, None);
}

/// A worker that found nothing, and another one that holds what is in its way.
async fn idle_beside_busy(fixture: &dyn Fixture) -> (Scene<'_>, Scene<'_>, Lease) {
    let busy = Scene::open(fixture).await;
    busy.push(|_| {}).await;
    let lease = busy.claim(1).await[0].lease;
    busy.push(|_| {}).await;
    let mut idle = busy.another().await;
    assert!(idle.claim(1).await.is_empty());
    idle.drain_signals().await;
    (idle, busy, lease)
}

pub async fn a_freed_place_wakes(fixture: &dyn Fixture) {
    fixture.dispatcher().begin(Generation(1)).await.unwrap();
    fixture.dispatcher().apply(Setting::TargetConcurrency("t".into(), Some(1))).await.unwrap();
    let (mut idle, busy, lease) = idle_beside_busy(fixture).await;
    busy.ack(lease, None).await;
    assert_eq!(idle.told().await, Some(Signal::Work), "the target has a place");
    assert_eq!(idle.claim(1).await.len(), 1);
}

pub async fn a_freed_place_of_the_queue_wakes(fixture: &dyn Fixture) {
    fixture.dispatcher().begin(Generation(1)).await.unwrap();
    let value = QueueSettings { concurrency: Some(1), ..QueueSettings::default() };
    fixture.dispatcher().apply(Setting::Queue("default".into(), Versioned { version: 1, value })).await.unwrap();
    let (mut idle, busy, lease) = idle_beside_busy(fixture).await;
    busy.ack(lease, None).await;
    assert_eq!(idle.told().await, Some(Signal::Work), "the queue has a place");
    assert_eq!(idle.claim(1).await.len(), 1);
}

pub async fn an_operator_wakes(fixture: &dyn Fixture) {
    let mut scene = Scene::open(fixture).await;
    let park = |until| Setting::ParkTarget { target: "t".into(), until, reason: "429".into() };
    scene.dispatcher.apply(park(scene.now().plus_ms(60_000))).await.unwrap();
    scene.set_queue(1, QueueSettings { paused: true, ..QueueSettings::default() }).await;
    scene.push(|_| {}).await;
    assert!(scene.claim(1).await.is_empty());
    scene.drain_signals().await;
    scene.set_queue(2, QueueSettings::default()).await;
    assert!(scene.claim(1).await.is_empty(), "its target is parked still");
    scene.drain_signals().await;
    scene.dispatcher.apply(park(scene.now())).await.unwrap();
    assert_eq!(scene.told().await, Some(Signal::Work));
    assert_eq!(scene.claim(1).await.len(), 1);
}

pub async fn an_earlier_moment_is_told(fixture: &dyn Fixture) {
    let mut scene = Scene::open(fixture).await;
    assert_eq!(scene.step(scene.asking(1)).await.next_at, None);
    scene.drain_signals().await;
    for due_in_ms in [5_000, 300] {
        let run_at = scene.now().plus_ms(due_in_ms);
        scene.push(|entry| entry.run_at = run_at).await;
        assert_eq!(scene.told().await, Some(Signal::Work), "it would sleep too long");
        assert_eq!(scene.step(scene.asking(1)).await.next_at, Some(run_at));
    }
    let until = scene.now().plus_ms(100);
    let park = Setting::ParkTarget { target: "t".into(), until, reason: "429".into() };
    scene.push(|_| {}).await;
    scene.dispatcher.apply(park).await.unwrap();
    scene.drain_signals().await;
    assert_eq!(scene.step(scene.asking(1)).await.next_at, Some(until));
}

pub async fn the_next_isolated_job_wakes_its_worker(fixture: &dyn Fixture) {
    let mut scene = Scene::open(fixture).await;
    let first = scene.push(|entry| entry.suspicion = Suspicion::Isolated).await.id;
    scene.fixture.advance_ms(1).await;
    let second = scene.push(|entry| entry.suspicion = Suspicion::Isolated).await.id;
    let claims = scene.claim(9).await;
    assert_eq!(claims.iter().map(|claim| claim.lease.id).collect::<Vec<_>>(), vec![first]);
    scene.drain_signals().await;
    scene.ack(claims[0].lease, None).await;
    assert_eq!(scene.told().await, Some(Signal::Work), "now the other one may run");
    assert_eq!(scene.claim_ids(9).await, vec![second]);
}
