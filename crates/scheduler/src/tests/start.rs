//! Rebuild and generation: a dispatcher that is empty is filled from the journal.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use queue_core::{
    breaker::{Ask, Leave, ProbeId, memory::MemoryBreakers},
    dispatcher::{HORIZON_MS, PUSH_MAX_ENTRIES, Place, Step, Wait},
    ids::{Epoch, JobId, SessionId},
    journal::{POISON_RECOVERIES, QueueSettings, TargetSettings, TenantSettings, WorkerSession},
    limiter::SetLimit,
    state::Standing,
};

use super::{Scene, dispatcher, told, waiting};
use crate::{
    Config,
    generation::{self, SILENCE, Watch},
    prepare,
    rebuild::{Filled, Filler},
};

#[tokio::test]
async fn a_restart_brings_live_jobs_back_and_nothing_else() {
    let mut scene = Scene::new().await;
    let [ended, running, claimed, ready] =
        [scene.submit().await, scene.submit().await, scene.submit().await, scene.submit().await];
    scene.stores.dispatcher.withdraw(ready).await.unwrap();
    scene.stores.dispatcher.withdraw(claimed).await.unwrap();
    let session = scene.worker().await;
    scene.begin(session).await;
    scene.settle(ended, Epoch(0)).await;
    scene.push(&[claimed]).await;
    assert_eq!(scene.claim(session).await.len(), 1);
    let now = scene.stores.clock.now();
    let soon = scene.accept(1, |job| job.run_at = now.plus_ms(HORIZON_MS)).await[0];
    let later = scene.accept(1, |job| job.run_at = now.plus_ms(HORIZON_MS + 1)).await[0];

    scene.restart().await;
    assert_eq!(scene.place(running).await, waiting(1), "it ran when the process died");
    assert_eq!(scene.places(&[claimed, ready, soon]).await, vec![waiting(0); 3], "these had not begun");
    assert_eq!(scene.unknown(&[ended, later]).await, 2);
    assert_eq!([scene.row(running).await.recoveries, scene.row(claimed).await.recoveries], [1, 0]);

    let rows = [told(&scene.row(running).await), told(&scene.row(ready).await)];
    scene.restart().await;
    scene.rebuild().await;
    assert_eq!([told(&scene.row(running).await), told(&scene.row(ready).await)], rows, "twice changes nothing");
    assert_eq!(scene.places(&[running, ready]).await, [waiting(1), waiting(0)]);
}

#[tokio::test]
async fn a_job_that_kills_its_process_is_convicted_over_restarts() {
    let mut scene = Scene::new().await;
    let killer = scene.submit().await;
    for _ in 0..POISON_RECOVERIES {
        assert_eq!(scene.begin(scene.worker().await).await.len(), 1);
        scene.restart().await;
    }
    assert_eq!(scene.row(killer).await.standing, Standing::Dead);
    assert_eq!(scene.place(killer).await, Place::Unknown);
}

#[tokio::test]
async fn settings_hold_before_the_first_claim() {
    let mut scene = Scene::new().await;
    let id = scene.submit().await;
    let paused = QueueSettings { paused: true, ..QueueSettings::default() };
    scene.stores.catalog.set_queue(&"default".into(), paused).await.unwrap();
    scene.restart().await;
    assert!(scene.claim(scene.worker().await).await.is_empty());
    assert!(
        scene.stores.dispatcher.explain(id).await.unwrap().iter().any(|wait| matches!(wait, Wait::QueuePaused { .. }))
    );
}

#[tokio::test]
async fn limits_of_targets_hold_before_the_first_claim() {
    let scene = Scene::closed();
    let ids = scene.accept(5, |_| {}).await;
    let config = Config { target_concurrency: BTreeMap::from([("script:small:none".into(), 2)]), ..Config::default() };
    prepare(&scene.stores, &config).await.unwrap();
    scene.push(&ids).await;
    assert_eq!(scene.claim(scene.worker().await).await.len(), 2);
}

#[tokio::test]
async fn a_rebuild_takes_more_than_a_page_in_pages() {
    let scene = Scene::closed();
    let ids = scene.accept(PUSH_MAX_ENTRIES * 2 + 1, |_| {}).await;
    scene.rebuild().await;
    assert_eq!(scene.places(&ids).await, vec![waiting(0); ids.len()]);
}

#[tokio::test]
async fn a_second_scheduler_joins_the_life_that_there_is() {
    let scene = Scene::new().await;
    let id = scene.submit().await;
    let claims = scene.begin(scene.worker().await).await;
    let unpushed = scene.accept(1, |_| {}).await[0];
    scene.rebuild().await;
    assert_eq!(scene.place(unpushed).await, Place::Unknown, "filling is left to who began that life");
    let place = scene.place(id).await;
    assert!(matches!(place, Place::Leased { epoch, .. } if epoch == claims[0].lease.epoch), "{place:?}");
    assert_eq!(scene.row(id).await.recoveries, 0);
}

#[tokio::test]
async fn a_dispatcher_that_others_use_is_filled_when_they_are_back() {
    let awaited = async |alone| {
        let scene = Scene::closed();
        let worker = WorkerSession {
            id: SessionId::generate(),
            host: "elsewhere".into(),
            version: "1".into(),
            slots: 1,
            started_at: scene.stores.clock.now(),
            draining: false,
        };
        scene.stores.catalog.open_session(worker.clone()).await.unwrap();
        let prepared = prepare(&scene.stores, &Config { alone, ..Config::default() }).await.unwrap();
        Filler::new(scene.stores.clone(), prepared).unwrap().awaited().contains(&worker.id)
    };
    assert!(awaited(false).await);
    // Alone, a registered worker is one that died with the last process.
    assert!(!awaited(true).await);
}

#[tokio::test]
async fn a_flush_is_noticed_once_and_filled() {
    let mut scene = Scene::new().await;
    let ids: Vec<JobId> = vec![scene.submit().await, scene.submit().await];
    let mut known = BTreeSet::new();
    let session = scene.worker().await;
    let config = Config::default();
    assert!(generation::look(&scene.stores, &config, &mut known).await.unwrap().is_none());
    assert_eq!(known, BTreeSet::from([session]), "who works is remembered");

    scene.stores.dispatcher = dispatcher(&scene.clock, scene.folder.path());
    let prepared = generation::look(&scene.stores, &config, &mut known).await.unwrap().unwrap();
    assert!(generation::look(&scene.stores, &config, &mut known).await.unwrap().is_none(), "the new life has begun");
    // The worker comes back with nothing: nobody is waited for any more.
    scene.stores.dispatcher.join(session, vec![]).await.unwrap();
    crate::rebuild::run(scene.stores.clone(), prepared, tokio_util::sync::CancellationToken::new()).await;
    assert_eq!(scene.places(&ids).await, vec![waiting(0); 2]);
}

/// A life whose filler has died, with and without a note of how far it was, is filled by another scheduler after its
/// silence, and by one only.
#[tokio::test]
async fn a_filler_that_dies_is_followed_by_another() {
    for noted in [false, true] {
        let scene = Scene::closed();
        let ids = scene.accept(PUSH_MAX_ENTRIES * 4 + 1, |_| {}).await;
        let config = Config::default();
        let prepared = prepare(&scene.stores, &config).await.unwrap();
        let mut filler = Filler::new(scene.stores.clone(), prepared).unwrap();
        assert_eq!(filler.step().await.unwrap(), Filled::Page);
        assert_eq!(filler.step().await.unwrap(), Filled::Page);
        if noted {
            assert!(filler.note().await.unwrap());
        }
        drop(filler);
        assert_eq!(scene.unknown(&ids).await, PUSH_MAX_ENTRIES * 2 + 1);
        let far = scene.stores.catalog.filling().await.unwrap();
        assert_eq!((far.after.is_some(), far.done), (noted, false));

        scene.clock.advance_ms(1);
        let young = scene.accept(1, |_| {}).await[0];

        let (mut watch, mut other, began) = (Watch::default(), Watch::default(), Instant::now());
        for early in [began, began + SILENCE / 2] {
            assert!(watch.relieve(&scene.stores, &config, early).await.unwrap().is_none(), "it may still live");
        }
        assert!(other.relieve(&scene.stores, &config, began).await.unwrap().is_none());
        let prepared = watch.relieve(&scene.stores, &config, began + SILENCE).await.unwrap().unwrap();
        let late = other.relieve(&scene.stores, &config, began + SILENCE).await.unwrap();
        assert!(late.is_none(), "somebody goes on already");
        crate::rebuild::run(scene.stores.clone(), prepared, tokio_util::sync::CancellationToken::new()).await;
        // Who goes on in the middle was not there when the workers were waited for: what it pushes is fenced.
        let (pushed, rest) = ids.split_at(if noted { PUSH_MAX_ENTRIES * 2 } else { ids.len() });
        assert_eq!(scene.places(pushed).await, vec![waiting(0); pushed.len()], "noted: {noted}");
        assert_eq!(scene.places(rest).await, vec![waiting(1); rest.len()]);
        assert_eq!(scene.place(young).await, Place::Unknown, "whoever accepted it pushes it");
        assert!(scene.stores.catalog.filling().await.unwrap().done);
        for now in [began, began + SILENCE, began + SILENCE * 2] {
            assert!(watch.relieve(&scene.stores, &config, now).await.unwrap().is_none(), "nothing is left to do");
        }
    }
}

/// A filler that was silent and not dead (a stalled process) finds that another goes on, and stops; jobs that were
/// claimed meanwhile stay with their worker.
#[tokio::test]
async fn two_fillers_do_no_harm() {
    let scene = Scene::closed();
    let ids = scene.accept(PUSH_MAX_ENTRIES * 2, |_| {}).await;
    let config = Config::default();
    let prepared = prepare(&scene.stores, &config).await.unwrap();
    let mut stalled = Filler::new(scene.stores.clone(), prepared).unwrap();
    assert_eq!(stalled.step().await.unwrap(), Filled::Page);
    let claims = scene.begin(scene.worker().await).await;
    assert_eq!(claims.len(), PUSH_MAX_ENTRIES);

    let (mut watch, began) = (Watch::default(), Instant::now());
    assert!(watch.relieve(&scene.stores, &config, began).await.unwrap().is_none());
    let prepared = watch.relieve(&scene.stores, &config, began + SILENCE).await.unwrap().unwrap();
    let mut second = Filler::new(scene.stores.clone(), prepared).unwrap();
    assert_eq!(second.step().await.unwrap(), Filled::Page);
    assert_eq!(stalled.step().await.unwrap(), Filled::Page, "it does not know yet");
    assert!(!stalled.note().await.unwrap(), "now it does");
    while second.step().await.unwrap() == Filled::Page {}
    assert!(scene.stores.catalog.filling().await.unwrap().done);

    let places = scene.places(&ids).await;
    let leased = places.iter().filter(|place| matches!(place, Place::Leased { epoch: Epoch(0), .. })).count();
    assert_eq!((leased, places.len()), (claims.len(), ids.len()), "who runs is left alone");
    assert_eq!(places.iter().filter(|place| **place == waiting(0)).count(), PUSH_MAX_ENTRIES);
}

/// Who is heavier gets more turns, after the start, after a flush, and when somebody sets it while jobs wait.
#[tokio::test]
async fn weights_of_tenants_hold_in_every_life() {
    let mut scene = Scene::closed();
    let weigh = async |scene: &Scene, weight| {
        let settings = TenantSettings { weight, ..TenantSettings::default() };
        scene.stores.catalog.set_tenant(&"heavy".into(), settings).await.unwrap();
    };
    let heavy_of_40 = async |scene: &Scene| {
        let step = Step { session: scene.worker().await, acks: vec![], queues: vec![], kinds: vec![], slots: 40 };
        let claims = scene.stores.dispatcher.step(step).await.unwrap().claims;
        let ids: Vec<_> = claims.iter().map(|claim| claim.lease.id).collect();
        let rows = scene.stores.reads.jobs(&ids).await.unwrap();
        rows.into_iter().flatten().filter(|row| row.tenant == "heavy".into()).count()
    };
    weigh(&scene, 3).await;
    scene.accept(200, |job| job.tenant = "heavy".into()).await;
    scene.accept(200, |job| job.tenant = "light".into()).await;
    for life in ["a start", "a flush"] {
        scene.stores.dispatcher = dispatcher(&scene.clock, scene.folder.path());
        scene.rebuild().await;
        assert_eq!(heavy_of_40(&scene).await, 30, "{life}");
    }
    let mut sweep = crate::reconcile::Sweep::default();
    sweep.round(&scene.stores).await.unwrap();
    weigh(&scene, 1).await;
    sweep.round(&scene.stores).await.unwrap();
    assert_eq!(heavy_of_40(&scene).await, 20, "set while jobs wait");
}

/// Who is paused stays so after the start, after a flush, and when whoever set it died before telling anybody.
#[tokio::test]
async fn pauses_of_tenants_and_targets_hold_in_every_life() {
    let mut scene = Scene::closed();
    let pause = async |scene: &Scene, paused| {
        let reason = Some("bill".to_owned()).filter(|_| paused);
        let tenant = TenantSettings { paused, reason: reason.clone(), ..TenantSettings::default() };
        scene.stores.catalog.set_tenant(&"asleep".into(), tenant).await.unwrap();
        let target = TargetSettings { paused, reason, ..TargetSettings::default() };
        scene.stores.catalog.set_target(&"held".into(), target).await.unwrap();
    };
    let claimed = async |scene: &Scene| {
        let step = Step { session: scene.worker().await, acks: vec![], queues: vec![], kinds: vec![], slots: 40 };
        scene.stores.dispatcher.step(step).await.unwrap().claims.len()
    };
    let is_refused = async |scene: &Scene| {
        let ask = Ask { target: "held".into(), account: "account".into(), probe: ProbeId::generate(), successes: 0 };
        matches!(scene.stores.breakers.enter(ask).await.unwrap(), Leave::Refused(_))
    };
    pause(&scene, true).await;
    scene.accept(3, |job| job.tenant = "asleep".into()).await;
    scene.accept(4, |job| job.target = "held".into()).await;
    scene.accept(5, |_| {}).await;
    for life in ["a start", "a flush"] {
        scene.stores.dispatcher = dispatcher(&scene.clock, scene.folder.path());
        scene.stores.breakers = Arc::new(MemoryBreakers::new(Arc::new(scene.clock.clone())));
        scene.rebuild().await;
        assert_eq!(claimed(&scene).await, 5, "{life}");
        assert!(is_refused(&scene).await, "{life}");
    }
    let mut sweep = crate::reconcile::Sweep::default();
    sweep.round(&scene.stores).await.unwrap();
    pause(&scene, false).await;
    assert_eq!(claimed(&scene).await, 0, "nobody was told");
    sweep.round(&scene.stores).await.unwrap();
    assert_eq!(claimed(&scene).await, 7);
    assert!(!is_refused(&scene).await);
}

/// How many jobs may run at once, as operators set it: over the configuration, in every life, and until it is taken back.
#[tokio::test]
async fn set_concurrency_stands_over_the_configuration_in_every_life() {
    let mut scene = Scene::closed();
    let set = async |scene: &Scene, name: &str, concurrency| {
        let limit = SetLimit { concurrency, ..SetLimit::default() };
        let settings = TargetSettings { limit, ..TargetSettings::default() };
        scene.stores.catalog.set_target(&name.into(), settings).await.unwrap();
    };
    let claimed = async |scene: &Scene| {
        let step = Step { session: scene.worker().await, acks: vec![], queues: vec![], kinds: vec![], slots: 40 };
        scene.stores.dispatcher.step(step).await.unwrap().claims.len()
    };
    let target_concurrency = BTreeMap::from([("p:*".into(), 4)]);
    let config = Config { alone: true, target_concurrency, ..Config::default() };
    set(&scene, "p:*:*", Some(2)).await;
    set(&scene, "p:own:default", Some(1)).await;
    for target in ["p:own:default", "p:other:default", "q:m:default"] {
        scene.accept(5, |job| job.target = target.into()).await;
    }
    for life in ["a start", "a flush"] {
        scene.stores.dispatcher = dispatcher(&scene.clock, scene.folder.path());
        let prepared = prepare(&scene.stores, &config).await.unwrap();
        crate::rebuild::run(scene.stores.clone(), prepared, tokio_util::sync::CancellationToken::new()).await;
        assert_eq!(claimed(&scene).await, 1 + 2 + 5, "{life}");
    }
    let mut sweep = crate::reconcile::Sweep::of(config.clone());
    sweep.round(&scene.stores).await.unwrap();
    assert_eq!(claimed(&scene).await, 0);
    set(&scene, "p:own:default", None).await;
    set(&scene, "p:*:*", Some(3)).await;
    sweep.round(&scene.stores).await.unwrap();
    assert_eq!(claimed(&scene).await, 2 + 1, "the pattern speaks for it now");
    set(&scene, "p:*:*", None).await;
    crate::reconcile::Sweep::of(config).round(&scene.stores).await.unwrap();
    assert_eq!(claimed(&scene).await, 2, "as configured, by a scheduler that told nothing else before");
}
