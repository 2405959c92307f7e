//! Reap and the register of workers: what is left of workers that died.

use queue_core::{
    dispatcher::{PUSH_MAX_ENTRIES, Place, SESSION_MS},
    error::ErrorClass,
    ids::SessionId,
    journal::{POISON_RECOVERIES, WorkerSession},
    ledger::Billed,
    state::Standing,
};

use super::{Scene, told, waiting};
use crate::{reap, sessions};

#[tokio::test]
async fn a_lost_workers_jobs_go_on_at_a_new_epoch_and_only_begun_ones_are_charged() {
    let scene = Scene::new().await;
    let begun = scene.submit().await;
    let session = scene.worker().await;
    scene.begin(session).await;
    let claimed = scene.submit().await;
    assert_eq!(scene.claim(session).await.len(), 1);

    assert_eq!(reap::once(&scene.stores).await.unwrap(), 0, "its session lives");
    assert!(matches!(scene.place(begun).await, Place::Leased { .. }));
    scene.clock.advance_ms(SESSION_MS);
    assert_eq!(reap::once(&scene.stores).await.unwrap(), 2);
    assert_eq!(scene.places(&[begun, claimed]).await, [waiting(1), waiting(1)]);
    let [begun_row, claimed_row] = [scene.row(begun).await, scene.row(claimed).await];
    assert_eq!((begun_row.recoveries, claimed_row.recoveries), (1, 0));
    assert_eq!((begun_row.attempts, claimed_row.attempts), (0, 0), "a recovery spends no attempt");
    let attempts = scene.stores.reads.attempts(begun).await.unwrap();
    assert_eq!(attempts[0].error.as_ref().unwrap().class, ErrorClass::Lost);
    assert!(scene.stores.reads.attempts(claimed).await.unwrap().is_empty());
    let [begun_calls, claimed_calls] =
        [scene.stores.reads.calls(begun).await.unwrap(), scene.stores.reads.calls(claimed).await.unwrap()];
    assert_eq!(begun_calls.iter().map(|call| call.billed).collect::<Vec<_>>(), [Billed::Maybe]);
    assert!(claimed_calls.is_empty());

    assert_eq!(reap::once(&scene.stores).await.unwrap(), 0, "twice changes nothing");
    assert_eq!(told(&scene.row(begun).await), told(&begun_row));
}

#[tokio::test]
async fn two_reapers_at_once_recover_a_job_once() {
    let scene = Scene::new().await;
    let id = scene.submit().await;
    scene.begin(scene.worker().await).await;
    scene.clock.advance_ms(SESSION_MS);
    // Both have seen the expired lease before either has told the journal.
    let [first, second] =
        [scene.stores.dispatcher.reap(9).await.unwrap(), scene.stores.dispatcher.reap(9).await.unwrap()];
    assert_eq!(first, second);
    assert_eq!(reap::once(&scene.stores).await.unwrap(), 1);
    let row = scene.row(id).await;
    let late = scene.stores.journal.recover(second).await.unwrap();
    assert!(matches!(late[..], [queue_core::journal::Recovered::Moved]), "{late:?}");
    assert_eq!(told(&scene.row(id).await), told(&row));
    assert_eq!(scene.place(id).await, waiting(1));
}

#[tokio::test]
async fn a_reaper_that_died_half_way_is_followed_by_another() {
    let scene = Scene::new().await;
    let id = scene.submit().await;
    scene.begin(scene.worker().await).await;
    scene.clock.advance_ms(SESSION_MS);
    // It has told the journal and died before the push.
    let expired = scene.stores.dispatcher.reap(9).await.unwrap();
    scene.stores.journal.recover(expired).await.unwrap();
    assert_eq!(reap::once(&scene.stores).await.unwrap(), 1);
    assert_eq!(scene.place(id).await, Place::Unknown, "the lease is gone; the reconciler pushes the row");
    assert_eq!(reap::once(&scene.stores).await.unwrap(), 0);
    let mut sweep = crate::reconcile::Sweep::default();
    sweep.round(&scene.stores).await.unwrap();
    assert_eq!(scene.place(id).await, waiting(2));
    assert_eq!(scene.row(id).await.recoveries, 1, "it is blamed once");
}

#[tokio::test]
async fn a_job_that_was_settled_before_its_worker_died_is_dropped() {
    let scene = Scene::new().await;
    let id = scene.submit().await;
    let claims = scene.begin(scene.worker().await).await;
    scene.settle(id, claims[0].lease.epoch).await;
    scene.clock.advance_ms(SESSION_MS);
    let row = scene.row(id).await;
    assert_eq!(reap::once(&scene.stores).await.unwrap(), 1);
    assert_eq!(scene.place(id).await, Place::Unknown);
    assert_eq!((told(&scene.row(id).await), row.standing), (told(&row), Standing::Succeeded));
    assert_eq!(reap::once(&scene.stores).await.unwrap(), 0);
}

#[tokio::test]
async fn a_job_that_workers_keep_dying_with_is_convicted() {
    let scene = Scene::new().await;
    let id = scene.submit().await;
    for lost in 1..=POISON_RECOVERIES {
        assert_eq!(scene.begin(scene.worker().await).await.len(), 1, "life {lost}");
        scene.clock.advance_ms(SESSION_MS);
        assert_eq!(reap::once(&scene.stores).await.unwrap(), 1);
    }
    let row = scene.row(id).await;
    assert_eq!((row.standing, row.error.unwrap().class), (Standing::Dead, ErrorClass::Poison));
    assert_eq!(scene.place(id).await, Place::Unknown);
    assert_eq!(scene.stores.reads.attempts(id).await.unwrap().len(), POISON_RECOVERIES as usize);
    assert_eq!(reap::once(&scene.stores).await.unwrap(), 0);
}

/// Two that die together as suspects are run apart, and each by itself is told from the other.
#[tokio::test]
async fn suspects_that_die_together_are_told_apart() {
    let scene = Scene::new().await;
    let ids = [scene.submit().await, scene.submit().await];
    for lost in 1..=POISON_RECOVERIES {
        assert_eq!(scene.begin(scene.worker().await).await.len(), 2, "life {lost}: nobody waits");
        scene.clock.advance_ms(SESSION_MS);
        assert_eq!(reap::once(&scene.stores).await.unwrap(), 2);
        for id in ids {
            assert_eq!((scene.row(id).await.standing, scene.row(id).await.recoveries), (Standing::Live, lost));
        }
    }
    let session = scene.worker().await;
    let [killer] = scene.begin(session).await.iter().map(|claim| claim.lease.id).collect::<Vec<_>>()[..] else {
        panic!("one of them in a process")
    };
    let bystander = scene.submit().await;
    scene.begin(session).await;
    scene.clock.advance_ms(SESSION_MS);
    assert_eq!(reap::once(&scene.stores).await.unwrap(), 2);
    assert_eq!(scene.row(killer).await.standing, Standing::Dead);
    let other = ids.into_iter().find(|id| *id != killer).unwrap();
    let seen = [scene.row(other).await, scene.row(bystander).await].map(|row| (row.standing, row.recoveries));
    assert_eq!(seen, [(Standing::Live, POISON_RECOVERIES), (Standing::Live, 0)]);
}

#[tokio::test]
async fn a_round_of_the_reaper_is_bounded() {
    let scene = Scene::new().await;
    let ids = scene.accept(PUSH_MAX_ENTRIES + 1, |_| {}).await;
    scene.push(&ids).await;
    assert_eq!(scene.begin(scene.worker().await).await.len(), ids.len());
    scene.clock.advance_ms(SESSION_MS);
    for dealt_with in [PUSH_MAX_ENTRIES, 1, 0] {
        assert_eq!(reap::once(&scene.stores).await.unwrap(), dealt_with);
    }
    assert_eq!(scene.places(&ids).await, vec![waiting(1); ids.len()]);
}

#[tokio::test]
async fn only_old_workers_that_nobody_hears_are_struck_off() {
    let scene = Scene::new().await;
    let alive = scene.worker().await;
    let open = async |id: SessionId| {
        let (host, version) = ("host".to_owned(), "1".to_owned());
        let worker =
            WorkerSession { id, host, version, slots: 1, started_at: scene.stores.clock.now(), draining: false };
        scene.stores.catalog.open_session(worker).await.unwrap();
    };
    let dead = SessionId::generate();
    open(alive).await;
    open(dead).await;
    scene.clock.advance_ms(4 * SESSION_MS + 1);
    // A worker that lives renews; one that has just registered is about to join.
    scene.stores.dispatcher.join(alive, vec![]).await.unwrap();
    let young = SessionId::generate();
    open(young).await;
    assert_eq!(sessions::once(&scene.stores).await.unwrap(), 1);
    let mut left: Vec<_> = scene.stores.catalog.sessions().await.unwrap().iter().map(|worker| worker.id).collect();
    left.sort();
    let mut wanted = vec![alive, young];
    wanted.sort();
    assert_eq!(left, wanted);
    assert_eq!(sessions::once(&scene.stores).await.unwrap(), 0);
}
