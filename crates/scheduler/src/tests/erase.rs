//! What a scheduler may take away of a tenant that is erased, and when it must not say that it is done.

use queue_core::{
    dispatcher::{Setting, Wait},
    erasure::{Erasure, HEARD_MS},
    journal::{TenantSettings, Versioned},
    operations::Action,
    stores::Stores,
    time::Clock,
};
use tokio_util::sync::CancellationToken;

use super::{Scene, operations::order};
use crate::erase::Eraser;

async fn erasure(stores: &Stores) -> Erasure {
    stores.erasures.erasures().await.unwrap().remove(0)
}

async fn ordered(scene: &Scene) {
    let now = scene.clock.now();
    let order = Erasure::order("default".into(), Erasure::new_pseudonym(), now);
    scene.stores.erasures.erase(order, now).await.unwrap();
    scene.clock.advance_ms(HEARD_MS);
}

/// As often as it takes: the first walk finds something, the next one nothing.
async fn erases(stores: Stores) {
    let mut eraser = Eraser::new(stores, CancellationToken::new());
    for _ in 0..3 {
        eraser.once().await.unwrap();
    }
}

#[tokio::test]
async fn archives_out_of_reach_are_left_to_a_scheduler_that_reaches_them() {
    let scene = Scene::new().await;
    scene.dead(3, "bulk").await;
    scene.walked(order(Action::Archive, "queue = bulk")).await;
    ordered(&scene).await;
    erases(Stores { objects: None, ..scene.stores.clone() }).await;
    assert_eq!((erasure(&scene.stores).await.finished_at, scene.files()), (None, 1));
    erases(scene.stores.clone()).await;
    assert_eq!((erasure(&scene.stores).await.finished_at, scene.files()), (Some(scene.clock.now()), 0));
}

#[tokio::test]
async fn the_dispatcher_forgets_what_was_set_for_it() {
    let scene = Scene::new().await;
    let id = scene.submit().await;
    let paused = TenantSettings { paused: true, reason: Some("unpaid".into()), ..TenantSettings::default() };
    let settings = Versioned { version: 9, value: paused };
    scene.stores.dispatcher.apply(Setting::Tenant("default".into(), settings)).await.unwrap();
    let is_paused = async |id| {
        let waits = scene.stores.dispatcher.explain(id).await.unwrap();
        waits.iter().any(|wait| matches!(wait, Wait::TenantPaused { .. }))
    };
    assert!(is_paused(id).await);
    ordered(&scene).await;
    erases(scene.stores.clone()).await;
    assert!(scene.stores.reads.jobs(&[id]).await.unwrap()[0].is_none(), "it was cancelled, and is gone");
    // A worker that was cut off may still push one.
    let late = scene.submit().await;
    assert!(!is_paused(late).await);
}
