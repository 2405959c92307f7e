//! Who is waited for after a flush, and what becomes of the jobs of those who do not come back.

use std::time::{Duration, Instant};

use queue_core::{
    dispatcher::{CLOSED_MS, Held, Lease, Place, Present, SESSION_MS, SessionView},
    ids::{Epoch, Generation, Nonce, SessionId},
    journal::WorkerSession,
    time::Timestamp,
};

use super::{Scene, waiting};
use crate::{
    Config,
    absent::Absent,
    generation::{SILENCE, Watch},
    prepare,
    rebuild::Filler,
};

const MOMENT: Duration = Duration::from_millis(50);
const CLOSED: Duration = Duration::from_millis(CLOSED_MS as u64);
const SESSION: Duration = Duration::from_millis(SESSION_MS as u64);

fn seen(alive: &[SessionId], gone: &[SessionId]) -> Present {
    let view = |id: &SessionId| SessionView { id: *id, leases: 0, seen_at: Timestamp(0) };
    let (alive, gone) = (alive.iter().map(view).collect(), gone.to_vec());
    Present { generation: Generation(1), alive, gone }
}

fn waiting_for<const N: usize>(workers: [SessionId; N], now: Instant) -> Absent {
    let mut absent = Absent::default();
    absent.wait_for(workers.into(), now);
    absent
}

#[test]
fn who_is_not_connected_is_waited_for_as_long_as_it_takes_to_connect() {
    let (here, closed, began) = (SessionId::generate(), SessionId::generate(), Instant::now());
    let mut absent = waiting_for([here, closed], began);
    absent.look(Some(&seen(&[], &[here, closed])), began);
    absent.look(Some(&seen(&[here], &[closed])), began + CLOSED - MOMENT);
    assert_eq!((absent.ids(), absent.dead()), (vec![closed], 0), "it may be connecting");
    absent.look(Some(&seen(&[here], &[closed])), began + CLOSED);
    assert!(absent.nobody());
    assert_eq!(absent.dead(), 1);
}

#[test]
fn who_connects_again_is_waited_for_anew() {
    let (back, began) = (SessionId::generate(), Instant::now());
    let mut absent = waiting_for([back], began);
    let gone = seen(&[], &[back]);
    for connected in [Some(seen(&[], &[])), None] {
        absent.look(Some(&gone), began);
        absent.look(connected.as_ref(), began + CLOSED - MOMENT);
        absent.look(Some(&gone), began + CLOSED);
        absent.look(Some(&gone), began + CLOSED * 2 - MOMENT);
        assert_eq!(absent.ids(), [back], "it was not away all the time: {connected:?}");
        absent.look(connected.as_ref(), began + CLOSED * 2);
    }
    absent.look(Some(&seen(&[back], &[])), began + CLOSED * 2);
    assert_eq!((absent.nobody(), absent.dead()), (true, 0));
}

#[test]
fn who_is_connected_and_says_nothing_has_the_life_of_a_session() {
    let (stalled, began) = (SessionId::generate(), Instant::now());
    for look in [Some(seen(&[], &[])), None] {
        let mut absent = waiting_for([stalled], began);
        absent.look(look.as_ref(), began + SESSION - MOMENT);
        assert_eq!(absent.ids(), [stalled], "{look:?}");
        absent.look(look.as_ref(), began + SESSION);
        assert!(absent.nobody());
        assert_eq!(absent.dead(), 1);
    }
}

/// Each worker has its own time, and the end of the waiting is the end.
#[test]
fn who_is_waited_for_later_has_as_long_and_who_was_before_is_not_again() {
    let (back, dead, late) = (SessionId::generate(), SessionId::generate(), SessionId::generate());
    let began = Instant::now();
    let mut absent = waiting_for([back, dead], began);
    absent.look(Some(&seen(&[back], &[])), began);
    absent.wait_for([back, dead, late].into(), began + SESSION - MOMENT);
    assert_eq!(absent.ids().len(), 2);
    absent.look(Some(&seen(&[], &[])), began + SESSION);
    assert_eq!((absent.ids(), absent.dead()), (vec![late], 1));
    absent.wait_for([back, dead].into(), began + SESSION);
    assert_eq!(absent.ids(), [late]);
    absent.look(Some(&seen(&[], &[])), began + SESSION * 2 - MOMENT);
    assert!(absent.nobody());
}

async fn register(scene: &Scene) -> SessionId {
    let (id, host, version) = (SessionId::generate(), "host".to_owned(), "1".to_owned());
    let worker = WorkerSession { id, host, version, slots: 1, started_at: scene.stores.clock.now(), draining: false };
    scene.stores.catalog.open_session(worker).await.unwrap();
    id
}

/// One worker was killed before the flush, another runs on: what the first may still run gets a new epoch, what the
/// second holds is left alone.
#[tokio::test]
async fn jobs_of_who_did_not_come_back_are_fenced_and_no_others() {
    let scene = Scene::closed();
    let [running, lost] = scene.accept(2, |_| {}).await[..] else { unreachable!() };
    let (alive, killed) = (register(&scene).await, register(&scene).await);
    let prepared = prepare(&scene.stores, &Config::default()).await.unwrap();
    let mut filler = Filler::new(scene.stores.clone(), prepared).unwrap();
    let lease = Lease { id: running, epoch: Epoch(0), nonce: Nonce(7) };
    let entry = queue_core::dispatcher::Entry::from(&scene.row(running).await);
    let held = Held { lease, entry, started_at: Some(scene.stores.clock.now()) };
    let _signals = scene.stores.dispatcher.join(alive, vec![held]).await.unwrap();

    let began = Instant::now();
    filler.look(began).await;
    assert_eq!(filler.awaited(), [killed], "it may be connecting");
    filler.look(began + CLOSED).await;
    filler.run().await;
    let place = scene.place(running).await;
    assert!(matches!(place, Place::Leased { epoch: Epoch(0), session, .. } if session == alive), "{place:?}");
    assert_eq!(scene.row(running).await.epoch, Epoch(0));
    assert_eq!(scene.place(lost).await, waiting(1), "if who ran it lives after all, it is fenced");
    assert_eq!(scene.row(lost).await.recoveries, 0, "nobody knows that it ran");
}

/// With everybody back no row is written.
#[tokio::test]
async fn nothing_is_fenced_where_everybody_came_back() {
    let scene = Scene::closed();
    let id = scene.accept(1, |_| {}).await[0];
    let worker = register(&scene).await;
    let prepared = prepare(&scene.stores, &Config::default()).await.unwrap();
    let mut filler = Filler::new(scene.stores.clone(), prepared).unwrap();
    let _signals = scene.stores.dispatcher.join(worker, vec![]).await.unwrap();
    filler.run().await;
    assert_eq!(scene.place(id).await, waiting(0));
}

/// A life that only began, and whose filler died: when another scheduler takes it over, it knows already who is back
/// and who is dead, and waits only for whoever registered since.
#[tokio::test]
async fn who_takes_a_life_over_knows_who_is_absent() {
    let scene = Scene::closed();
    let [running, lost] = scene.accept(2, |_| {}).await[..] else { unreachable!() };
    let (alive, _killed) = (register(&scene).await, register(&scene).await);
    let (mut watch, config, began) = (Watch::default(), Config::default(), Instant::now());
    drop(prepare(&scene.stores, &config).await.unwrap());
    assert!(watch.relieve(&scene.stores, &config, began).await.unwrap().is_none());
    let lease = Lease { id: running, epoch: Epoch(0), nonce: Nonce(7) };
    let entry = queue_core::dispatcher::Entry::from(&scene.row(running).await);
    let held = Held { lease, entry, started_at: Some(scene.stores.clock.now()) };
    let _signals = scene.stores.dispatcher.join(alive, vec![held]).await.unwrap();
    let late = register(&scene).await;

    let prepared = watch.relieve(&scene.stores, &config, began + SILENCE).await.unwrap().unwrap();
    let mut filler = Filler::new(scene.stores.clone(), prepared).unwrap();
    assert_eq!(filler.awaited(), [late], "nobody has looked for it yet");
    let _signals = scene.stores.dispatcher.join(late, vec![]).await.unwrap();
    filler.run().await;
    assert_eq!(scene.row(running).await.epoch, Epoch(0));
    assert!(matches!(scene.place(running).await, Place::Leased { .. }));
    assert_eq!(scene.place(lost).await, waiting(1), "a worker is dead: if it runs this after all, it is fenced");
    assert!(scene.stores.catalog.filling().await.unwrap().done);
}

/// Where everybody came back before the life was taken over, nobody is waited for and no row is written.
#[tokio::test]
async fn who_takes_a_life_over_waits_for_nobody_who_is_back() {
    let scene = Scene::closed();
    let id = scene.accept(1, |_| {}).await[0];
    let worker = register(&scene).await;
    let (mut watch, config, began) = (Watch::default(), Config::default(), Instant::now());
    drop(prepare(&scene.stores, &config).await.unwrap());
    assert!(watch.relieve(&scene.stores, &config, began).await.unwrap().is_none());
    let _signals = scene.stores.dispatcher.join(worker, vec![]).await.unwrap();
    let prepared = watch.relieve(&scene.stores, &config, began + SILENCE).await.unwrap().unwrap();
    let mut filler = Filler::new(scene.stores.clone(), prepared).unwrap();
    assert!(filler.awaited().is_empty());
    filler.run().await;
    assert_eq!(scene.place(id).await, waiting(0));
}
