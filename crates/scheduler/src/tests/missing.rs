//! Reconcile and promote: live rows that the dispatcher does not know.

use queue_core::{
    dispatcher::{HORIZON_MS, PUSH_MAX_ENTRIES, Place, Wait},
    ids::Epoch,
    journal::QueueSettings,
};
use tokio_util::sync::CancellationToken;

use super::{Scene, told, waiting};
use crate::{
    Config, prepare, promote, rebuild,
    reconcile::{ROUND_MAX_ROWS, Sweep, YOUNG_MS},
};

#[tokio::test]
async fn a_lost_push_is_made_good_once() {
    let scene = Scene::new().await;
    let lost = scene.accept(1, |_| {}).await[0];
    let [held, running] = [scene.submit().await, scene.submit().await];
    scene.stores.dispatcher.withdraw(held).await.unwrap();
    scene.begin(scene.worker().await).await;
    scene.push(&[held]).await;

    let mut sweep = Sweep::default();
    assert_eq!(sweep.round(&scene.stores).await.unwrap(), 0, "it may still be on its way");
    assert_eq!(scene.place(lost).await, Place::Unknown);
    scene.clock.advance_ms(YOUNG_MS);
    assert_eq!(sweep.round(&scene.stores).await.unwrap(), 1);
    assert_eq!(scene.place(lost).await, waiting(1), "at a new epoch: whoever else might have it is fenced");
    assert_eq!(scene.place(held).await, waiting(0));
    assert!(matches!(scene.place(running).await, Place::Leased { epoch: Epoch(0), .. }), "what runs goes on");

    let row = told(&scene.row(lost).await);
    for _ in 0..2 {
        assert_eq!(sweep.round(&scene.stores).await.unwrap(), 0, "twice changes nothing");
        assert_eq!(Sweep::default().round(&scene.stores).await.unwrap(), 0, "nor does another scheduler");
    }
    assert_eq!(told(&scene.row(lost).await), row);
    assert_eq!((scene.row(lost).await.recoveries, scene.row(lost).await.attempts), (0, 0), "it cost the job nothing");
}

/// What the dispatcher does not know yet may run at a worker that has not come back: a new epoch would fence it.
#[tokio::test]
async fn nothing_is_reconciled_while_a_life_is_filled() {
    let scene = Scene::closed();
    let id = scene.accept(1, |_| {}).await[0];
    scene.clock.advance_ms(YOUNG_MS);
    let prepared = prepare(&scene.stores, &Config::default()).await.unwrap();
    assert_eq!(Sweep::default().round(&scene.stores).await.unwrap(), 0);
    assert_eq!((scene.place(id).await, scene.row(id).await.epoch), (Place::Unknown, Epoch(0)));
    rebuild::run(scene.stores.clone(), prepared, CancellationToken::new()).await;
    assert_eq!(scene.place(id).await, waiting(0));
    scene.stores.dispatcher.withdraw(id).await.unwrap();
    assert_eq!(Sweep::default().round(&scene.stores).await.unwrap(), 1);
}

#[tokio::test]
async fn what_has_ended_and_what_is_far_away_is_left_alone() {
    let scene = Scene::new().await;
    let ended = scene.submit().await;
    let claim = scene.begin(scene.worker().await).await.remove(0);
    scene.settle(ended, claim.lease.epoch).await;
    let cancelled = scene.accept(1, |_| {}).await[0];
    scene.stores.journal.cancel(cancelled, None, None, scene.stores.clock.now()).await.unwrap();
    let far = scene.accept(1, |job| job.run_at = job.run_at.plus_ms(HORIZON_MS + YOUNG_MS + 1)).await[0];
    scene.clock.advance_ms(YOUNG_MS);
    assert_eq!(Sweep::default().round(&scene.stores).await.unwrap(), 0);
    assert_eq!(scene.unknown(&[cancelled, far]).await, 2);
    assert_eq!(scene.row(far).await.epoch, Epoch(0));
    scene.clock.advance_ms(1);
    assert_eq!(Sweep::default().round(&scene.stores).await.unwrap(), 1, "it has come within the horizon");
}

#[tokio::test]
async fn a_round_is_bounded_and_the_next_goes_on_behind_it() {
    let scene = Scene::new().await;
    let mut ids = vec![];
    for _ in 0..3 {
        ids.extend(scene.accept(7_000, |_| {}).await);
    }
    scene.clock.advance_ms(YOUNG_MS);
    let mut sweep = Sweep::default();
    assert_eq!(sweep.round(&scene.stores).await.unwrap(), ROUND_MAX_ROWS);
    assert_eq!(scene.unknown(&ids).await, 1_000);
    assert_eq!(sweep.round(&scene.stores).await.unwrap(), 1_000);
    assert_eq!(scene.unknown(&ids).await, 0);
    // At the end it begins again: a row that is lost behind it is found too.
    scene.stores.dispatcher.withdraw(ids[0]).await.unwrap();
    assert_eq!(sweep.round(&scene.stores).await.unwrap(), 1);
    assert_eq!(scene.place(ids[0]).await, waiting(2));
}

#[tokio::test]
async fn settings_that_nobody_told_the_dispatcher_are_told() {
    let scene = Scene::new().await;
    let id = scene.submit().await;
    let mut sweep = Sweep::default();
    sweep.round(&scene.stores).await.unwrap();
    let paused = QueueSettings { paused: true, reason: Some("upgrade".into()), ..QueueSettings::default() };
    scene.stores.catalog.set_queue(&"default".into(), paused).await.unwrap();
    sweep.round(&scene.stores).await.unwrap();
    let wait = scene.stores.dispatcher.explain(id).await.unwrap();
    assert!(wait.contains(&Wait::QueuePaused { until: None, reason: Some("upgrade".into()) }), "{wait:?}");
    assert!(scene.claim(scene.worker().await).await.is_empty());
    scene.stores.catalog.set_queue(&"default".into(), QueueSettings::default()).await.unwrap();
    sweep.round(&scene.stores).await.unwrap();
    assert_eq!(scene.claim(scene.worker().await).await.len(), 1);
}

#[tokio::test]
async fn jobs_are_promoted_as_they_come_near_and_once() {
    let scene = Scene::new().await;
    let start = scene.stores.clock.now();
    let near = scene.accept(1, |job| job.run_at = start.plus_ms(HORIZON_MS + 5_000)).await[0];
    let far = scene.accept(1, |job| job.run_at = start.plus_ms(HORIZON_MS + 15_000)).await[0];
    let edge = scene.accept(1, |job| job.run_at = start.plus_ms(HORIZON_MS)).await[0];
    let mut filled = start.plus_ms(HORIZON_MS);
    scene.clock.advance_ms(10_000);
    for _ in 0..2 {
        let due_by = scene.stores.clock.now().plus_ms(HORIZON_MS);
        promote::window(&scene.stores, filled, due_by).await.unwrap();
        assert_eq!(scene.places(&[edge, near]).await, [waiting(0), waiting(0)], "the edge belongs to both windows");
        assert_eq!(scene.place(far).await, Place::Unknown);
    }
    filled = scene.stores.clock.now().plus_ms(HORIZON_MS);
    scene.clock.advance_ms(10_000);
    promote::window(&scene.stores, filled, scene.stores.clock.now().plus_ms(HORIZON_MS)).await.unwrap();
    assert_eq!(scene.place(far).await, waiting(0));

    let session = scene.worker().await;
    assert!(scene.claim(session).await.is_empty(), "promoted is not due");
    scene.clock.advance_ms(HORIZON_MS);
    assert_eq!(scene.begin(session).await.len(), 3);
    // A promotion that comes late finds them running.
    promote::window(&scene.stores, start, scene.stores.clock.now()).await.unwrap();
    assert!(matches!(scene.place(near).await, Place::Leased { .. }));
    assert!(scene.claim(session).await.is_empty());
}

#[tokio::test]
async fn a_promotion_takes_more_than_a_page_in_pages() {
    let scene = Scene::new().await;
    let start = scene.stores.clock.now();
    let count = PUSH_MAX_ENTRIES * 2 + 1;
    let ids = scene.accept(count, |job| job.run_at = start.plus_ms(HORIZON_MS + 1)).await;
    scene.clock.advance_ms(1);
    promote::window(&scene.stores, start.plus_ms(HORIZON_MS), start.plus_ms(HORIZON_MS + 1)).await.unwrap();
    assert_eq!(scene.places(&ids).await, vec![waiting(0); count]);
}
