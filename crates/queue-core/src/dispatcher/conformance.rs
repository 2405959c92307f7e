//! What every dispatcher must do, written against the seam only.
//!
//! A store joins with one line in its tests: `queue_core::dispatcher_conformance!(its_fixture());`, where the
//! expression makes a [`Fixture`] over a fresh, empty store. Each case below becomes one test of that store.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a suite fails by panicking; its cases' names say it all

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{
    Ack, Claim, Dispatcher, Entry, HORIZON_MS, LEASE_MS, Lease, Place, SESSION_MS, Setting, Signal, Step, StepReply,
    Wait,
};
use crate::{
    ids::{Epoch, Generation, JobId, Nonce, SessionId},
    job::AGEING_MS_PER_POINT,
    journal::{QueueSettings, Versioned},
    time::{Clock, Timestamp},
};

/// A store under test, and its time.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The store; it has not begun.
    fn dispatcher(&self) -> Arc<dyn Dispatcher>;

    /// The store's time.
    fn clock(&self) -> Arc<dyn Clock>;

    /// Lets the store's time pass.
    async fn advance_ms(&self, ms: i64);
}

/// Makes one test of every case: `dispatcher_conformance!(a_fresh_fixture())`.
#[macro_export]
macro_rules! dispatcher_conformance {
    ($fixture:expr) => {
        $crate::dispatcher_conformance! { @cases $fixture;
            nothing_is_claimed_before_it_begins, no_more_is_claimed_than_slots, a_push_is_heard_once_an_epoch,
            a_later_epoch_ends_a_claim, priorities_order_and_age, lanes_take_turns, weights_share_the_turns,
            a_parked_target_is_skipped_until_its_time, a_target_has_its_limit, a_queue_has_its_limit_and_its_pause,
            older_settings_change_nothing, a_worker_serves_the_queues_it_names, what_is_due_later_waits,
            an_ack_must_match, a_release_comes_back_at_once, what_is_due_behind_the_horizon_is_forgotten,
            a_lease_lives_by_renewal, an_expired_lease_stays_expired, a_lost_session_gives_back_what_it_held,
            only_started_attempts_count, suspects_run_alone_and_take_the_blame, a_withdrawn_job_is_gone,
            a_cancel_reaches_the_holder, a_wake_up_is_never_lost, depths_count_what_can_be_claimed,
            a_waiting_job_says_what_it_waits_for, a_new_life_knows_nothing;
        }
    };
    (@cases $fixture:expr; $($case:ident),+;) => {
        $(
            #[tokio::test]
            async fn $case() {
                let fixture = $fixture;
                $crate::dispatcher::conformance::$case(&fixture).await;
            }
        )+
    };
}

/// A begun store with one worker in it.
struct Scene<'f> {
    fixture: &'f dyn Fixture,
    dispatcher: Arc<dyn Dispatcher>,
    session: SessionId,
    signals: mpsc::Receiver<Signal>,
}

impl<'f> Scene<'f> {
    async fn open(fixture: &'f dyn Fixture) -> Self {
        let dispatcher = fixture.dispatcher();
        dispatcher.begin(Generation(1)).await.unwrap();
        let session = SessionId::generate();
        let signals = dispatcher.join(session).await.unwrap();
        Self { fixture, dispatcher, session, signals }
    }

    fn now(&self) -> Timestamp {
        self.fixture.clock().now()
    }

    fn entry(&self) -> Entry {
        Entry {
            id: JobId::generate(),
            epoch: Epoch(0),
            queue: "default".into(),
            tenant: "acme".into(),
            target: "t".into(),
            priority: 5,
            run_at: self.now(),
            suspect: false,
        }
    }

    async fn push(&self, change: impl FnOnce(&mut Entry)) -> Entry {
        let mut entry = self.entry();
        change(&mut entry);
        self.dispatcher.push(vec![entry.clone()]).await.unwrap();
        entry
    }

    async fn step(&self, step: Step) -> StepReply {
        self.dispatcher.step(step).await.unwrap()
    }

    fn asking(&self, slots: usize) -> Step {
        Step { session: self.session, acks: vec![], queues: vec![], slots }
    }

    async fn claim(&self, slots: usize) -> Vec<Claim> {
        self.step(self.asking(slots)).await.claims
    }

    async fn claim_ids(&self, slots: usize) -> Vec<JobId> {
        self.claim(slots).await.iter().map(|claim| claim.lease.id).collect()
    }

    async fn ack(&self, lease: Lease, next: Option<Entry>) {
        self.step(Step { acks: vec![Ack { lease, next }], ..self.asking(0) }).await;
    }

    async fn place(&self, id: JobId) -> Place {
        self.dispatcher.locate(&[id]).await.unwrap().remove(0)
    }

    async fn set_queue(&self, version: i64, value: QueueSettings) {
        let setting = Setting::Queue("default".into(), Versioned { version, value });
        self.dispatcher.apply(setting).await.unwrap();
    }

    /// Another worker.
    async fn another(&self) -> Scene<'f> {
        let session = SessionId::generate();
        let signals = self.dispatcher.join(session).await.unwrap();
        Scene { fixture: self.fixture, dispatcher: self.dispatcher.clone(), session, signals }
    }
}

pub async fn nothing_is_claimed_before_it_begins(fixture: &dyn Fixture) {
    let dispatcher = fixture.dispatcher();
    let session = SessionId::generate();
    let _signals = dispatcher.join(session).await.unwrap();
    let step = Step { session, acks: vec![], queues: vec![], slots: 4 };
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
    scene.dispatcher.apply(Setting::TenantWeight("heavy".into(), 3)).await.unwrap();
    let mut heavy = vec![];
    for _ in 0..40 {
        heavy.push(scene.push(|entry| entry.tenant = "heavy".into()).await.id);
        scene.push(|_| {}).await;
    }
    let share = scene.claim_ids(40).await.iter().filter(|id| heavy.contains(id)).count();
    assert_eq!(share, 30, "three turns of four");
}

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

pub async fn a_worker_serves_the_queues_it_names(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.push(|_| {}).await;
    let mine = scene.push(|entry| entry.queue = "mine".into()).await.id;
    let step = Step { queues: vec!["mine".into()], ..scene.asking(9) };
    let claims = scene.step(step).await.claims;
    assert_eq!(claims.iter().map(|claim| claim.lease.id).collect::<Vec<_>>(), vec![mine]);
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

pub async fn a_lease_lives_by_renewal(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.push(|_| {}).await;
    let lease = scene.claim(1).await[0].lease;
    for _ in 0..8 {
        scene.fixture.advance_ms(SESSION_MS / 2).await;
        assert!(scene.dispatcher.renew(scene.session, &[lease]).await.unwrap().is_empty());
        assert!(scene.dispatcher.reap(9).await.unwrap().is_empty());
    }
}

pub async fn an_expired_lease_stays_expired(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let entry = scene.push(|_| {}).await;
    let lease = scene.claim(1).await[0].lease;
    for _ in 0..(LEASE_MS / (SESSION_MS / 2) + 1) {
        scene.fixture.advance_ms(SESSION_MS / 2).await;
        scene.dispatcher.renew(scene.session, &[]).await.unwrap();
    }
    let expired = scene.dispatcher.reap(9).await.unwrap();
    assert_eq!(expired.len(), 1, "the session lives, the lease was not renewed");
    assert_eq!(scene.dispatcher.renew(scene.session, &[lease]).await.unwrap(), vec![lease]);
    assert_eq!(scene.dispatcher.reap(9).await.unwrap(), expired, "until the journal has spoken it is reported again");
    scene.dispatcher.push(vec![Entry { epoch: Epoch(1), ..entry }]).await.unwrap();
    assert!(scene.dispatcher.reap(9).await.unwrap().is_empty());
}

pub async fn a_lost_session_gives_back_what_it_held(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.push(|_| {}).await;
    scene.push(|_| {}).await;
    let claims = scene.claim(2).await;
    scene.fixture.advance_ms(SESSION_MS).await;
    let expired = scene.dispatcher.reap(9).await.unwrap();
    assert_eq!(expired.len(), 2);
    assert!(claims.iter().all(|claim| expired.iter().any(|lost| lost.token.id == claim.lease.id)));
    // What the journal finds moved, the reaper drops with an ack in nobody's name.
    let lease = Lease { id: expired[0].token.id, epoch: expired[0].token.epoch, nonce: expired[0].nonce };
    let nobody = SessionId(uuid::Uuid::nil());
    scene.step(Step { session: nobody, acks: vec![Ack { lease, next: None }], ..scene.asking(0) }).await;
    assert_eq!(scene.dispatcher.reap(9).await.unwrap().len(), 1);

    let other = scene.another().await;
    let entry = other.push(|_| {}).await;
    other.claim(1).await;
    other.dispatcher.leave(other.session).await.unwrap();
    let expired = other.dispatcher.reap(9).await.unwrap();
    assert!(expired.iter().any(|lost| lost.token.id == entry.id), "a session that leaves is lost at once");
}

pub async fn only_started_attempts_count(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.push(|_| {}).await;
    scene.push(|_| {}).await;
    let claims = scene.claim(2).await;
    scene.dispatcher.start(scene.session, &[claims[0].lease]).await.unwrap();
    scene.dispatcher.leave(scene.session).await.unwrap();
    for lost in scene.dispatcher.reap(9).await.unwrap() {
        let started = lost.token.id == claims[0].lease.id;
        assert_eq!((lost.counts, lost.started_at.is_some()), (started, started));
    }
}

pub async fn suspects_run_alone_and_take_the_blame(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let first = scene.push(|entry| entry.suspect = true).await.id;
    scene.fixture.advance_ms(1).await;
    let second = scene.push(|entry| entry.suspect = true).await.id;
    let plain = scene.push(|_| {}).await.id;
    let claims = scene.claim(9).await;
    let ids: Vec<_> = claims.iter().map(|claim| claim.lease.id).collect();
    assert_eq!(ids, vec![first, plain], "one suspect in a process");
    let other = scene.another().await;
    assert_eq!(other.claim_ids(9).await, vec![second], "another process may run the other one");

    let leases: Vec<_> = claims.iter().map(|claim| claim.lease).collect();
    scene.dispatcher.start(scene.session, &leases).await.unwrap();
    scene.dispatcher.leave(scene.session).await.unwrap();
    for lost in scene.dispatcher.reap(9).await.unwrap() {
        assert_eq!(lost.counts, lost.token.id == first, "its neighbour is not to blame");
    }
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

pub async fn a_cancel_reaches_the_holder(fixture: &dyn Fixture) {
    let mut scene = Scene::open(fixture).await;
    let id = scene.push(|_| {}).await.id;
    scene.claim(1).await;
    scene.dispatcher.nudge(id).await.unwrap();
    loop {
        match scene.signals.recv().await.unwrap() {
            Signal::Cancel(cancelled) => break assert_eq!(cancelled, id),
            Signal::Work => {}
            Signal::Drain => panic!("nobody drains here"),
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
        while scene.signals.try_recv().is_ok() {}
        assert_eq!(scene.claim(9).await.len(), 3);
    }
}

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

pub async fn a_new_life_knows_nothing(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let id = scene.push(|_| {}).await.id;
    scene.dispatcher.begin(Generation(2)).await.unwrap();
    assert_eq!(scene.place(id).await, Place::Unknown);
    let entry = scene.push(|_| {}).await;
    assert_eq!(scene.claim_ids(9).await, vec![entry.id], "and goes on with the workers it has");
}
