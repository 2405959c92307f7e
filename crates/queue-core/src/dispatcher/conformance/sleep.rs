//! Who sleeps: tenants and targets that operators pause, and targets that are tried by one job.

use super::{Fixture, Scene};
use crate::{
    dispatcher::{Setting, Wait},
    ids::Name,
    journal::{BreakerMode, TargetSettings, TenantSettings, Versioned},
    time::Timestamp,
};

impl Scene<'_> {
    async fn set_tenant(&self, tenant: &str, version: i64, value: TenantSettings) {
        self.dispatcher.apply(Setting::Tenant(tenant.into(), Versioned { version, value })).await.unwrap();
    }

    async fn set_target(&self, target: &str, version: i64, value: TargetSettings) {
        self.dispatcher.apply(Setting::Target(target.into(), Versioned { version, value })).await.unwrap();
    }

    async fn try_target(&self, from: Timestamp) {
        let reason = "breaker".to_owned();
        self.dispatcher.apply(Setting::TryTarget { target: "t".into(), from, reason }).await.unwrap();
    }

    async fn parked_and_waiting(&self) -> (u64, u64) {
        let depths = self.dispatcher.depths().await.unwrap();
        depths.iter().fold((0, 0), |(parked, waiting), depth| (parked + depth.parked, waiting + depth.waiting))
    }
}

fn asleep(until: Option<Timestamp>) -> TenantSettings {
    TenantSettings { paused: true, paused_until: until, reason: Some("they asked".into()), ..TenantSettings::default() }
}

pub async fn a_tenant_sleeps_until_its_time(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let before = scene.push(|_| {}).await.id;
    let until = scene.now().plus_ms(5_000);
    scene.set_tenant("acme", 1, asleep(Some(until))).await;
    let meanwhile = scene.push(|entry| entry.target = "new".into()).await.id;
    let reply = scene.step(scene.asking(9)).await;
    assert!(reply.claims.is_empty(), "{:?}", reply.claims);
    assert_eq!(reply.next_at, Some(until), "the worker knows when to look again");
    scene.fixture.advance_ms(5_000).await;
    let mut woken = scene.claim_ids(9).await;
    woken.sort_unstable();
    assert_eq!(woken, [before, meanwhile]);
    scene.set_tenant("acme", 2, asleep(None)).await;
    let last = scene.push(|_| {}).await.id;
    scene.fixture.advance_ms(59_000).await;
    assert!(scene.claim(9).await.is_empty(), "a pause without an end does not end");
    scene.set_tenant("acme", 3, TenantSettings::default()).await;
    assert_eq!(scene.claim_ids(9).await, [last]);
}

pub async fn a_budget_parks_a_tenant(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let park = async |until: Timestamp| {
        let (tenant, reason) = ("acme".into(), "no money".to_owned());
        scene.dispatcher.apply(Setting::ParkTenant { tenant, until, reason }).await.unwrap();
    };
    let first = scene.push(|_| {}).await.id;
    let until = scene.now().plus_ms(5_000);
    park(until).await;
    scene.push(|entry| entry.tenant = "other".into()).await;
    assert_eq!(scene.parked_and_waiting().await, (1, 1));
    assert_eq!(scene.claim(9).await.len(), 1, "nobody else is held up");
    let waits = scene.dispatcher.explain(first).await.unwrap();
    assert!(waits.contains(&Wait::TenantParked { until, reason: "no money".into() }), "{waits:?}");
    // What a budget says and what an operator says do not end each other.
    scene.set_tenant("acme", 1, asleep(None)).await;
    park(scene.now()).await;
    assert!(scene.claim(9).await.is_empty());
    park(until).await;
    scene.set_tenant("acme", 2, TenantSettings::default()).await;
    assert!(scene.claim(9).await.is_empty());
    // The last word counts, also where it is the shorter one.
    park(scene.now().plus_ms(1_000)).await;
    scene.fixture.advance_ms(1_000).await;
    assert_eq!(scene.claim_ids(9).await, [first]);
    let second = scene.push(|_| {}).await.id;
    park(scene.now().plus_ms(60_000)).await;
    assert!(scene.claim(9).await.is_empty());
    park(scene.now()).await;
    assert_eq!(scene.claim_ids(9).await, [second], "woken before its time");
}

pub async fn a_sleeping_tenant_holds_nobody_up(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let mut others = vec![];
    for n in 0..20 {
        scene.push(|entry| entry.priority = 9).await;
        others.push(scene.push(|entry| entry.tenant = Name::new(format!("other-{}", n % 3))).await.id);
    }
    let held = scene.claim(1).await.remove(0);
    scene.set_tenant("acme", 1, asleep(None)).await;
    let mut claimed = vec![held.lease.id];
    loop {
        let more = scene.claim_ids(3).await;
        if more.is_empty() {
            break;
        }
        claimed.extend(more);
    }
    others.retain(|id| !claimed.contains(id));
    assert!(others.is_empty(), "{} jobs of others were left", others.len());
    assert!(claimed.len() <= 21);
    scene.ack(held.lease, None).await;
}

pub async fn what_a_sleeping_tenant_has_is_parked(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let first = scene.push(|_| {}).await.id;
    scene.set_tenant("acme", 1, asleep(None)).await;
    for target in ["t", "t", "u"] {
        scene.push(|entry| entry.target = target.into()).await;
    }
    scene.push(|entry| entry.tenant = "other".into()).await;
    assert_eq!(scene.parked_and_waiting().await, (4, 1));
    // What is withdrawn, or parked for another reason too, counts once.
    scene.dispatcher.withdraw(first).await.unwrap();
    let until = scene.now().plus_ms(1_000);
    scene.dispatcher.apply(Setting::ParkTarget { target: "t".into(), until, reason: "429".into() }).await.unwrap();
    assert_eq!(scene.parked_and_waiting().await, (4, 0));
    scene.set_tenant("acme", 2, TenantSettings::default()).await;
    assert_eq!(scene.parked_and_waiting().await, (3, 1), "only the parked target is left");
    scene.fixture.advance_ms(1_000).await;
    assert_eq!(scene.parked_and_waiting().await, (0, 4));
    assert_eq!(scene.claim(9).await.len(), 4);
    assert_eq!(scene.parked_and_waiting().await, (0, 0));
}

pub async fn a_woken_tenant_has_saved_no_turns(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    for _ in 0..40 {
        scene.push(|_| {}).await;
        scene.push(|entry| entry.tenant = "other".into()).await;
    }
    scene.set_tenant("acme", 1, asleep(None)).await;
    assert_eq!(scene.claim(20).await.len(), 20);
    scene.set_tenant("acme", 2, TenantSettings::default()).await;
    let others: u64 = scene.parked_and_waiting().await.1 - 40;
    assert_eq!(scene.claim(20).await.len(), 20);
    let left = scene.dispatcher.depths().await.unwrap()[0].waiting;
    assert_eq!((others, left), (20, 40));
    // Ten each: the others were not made to wait for turns that the sleeper had missed.
    scene.set_tenant("acme", 3, asleep(None)).await;
    assert_eq!(scene.parked_and_waiting().await, (30, 10));
}

pub async fn older_settings_of_tenants_and_targets_change_nothing(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    scene.set_tenant("acme", 2, asleep(None)).await;
    scene.set_tenant("acme", 1, TenantSettings::default()).await;
    scene.push(|_| {}).await;
    scene.set_target("u", 4, TargetSettings { paused: true, ..TargetSettings::default() }).await;
    scene.set_target("u", 3, TargetSettings::default()).await;
    scene.push(|entry| (entry.tenant, entry.target) = ("other".into(), "u".into())).await;
    assert!(scene.claim(9).await.is_empty());
    scene.set_tenant("acme", 2, asleep(None)).await;
    assert!(scene.claim(9).await.is_empty(), "the same again is the same");
    scene.set_tenant("acme", 3, TenantSettings::default()).await;
    scene.set_target("u", 5, TargetSettings::default()).await;
    assert_eq!(scene.claim(9).await.len(), 2);
}

pub async fn a_paused_target_is_skipped_until_its_time(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let until = scene.now().plus_ms(5_000);
    let pause = TargetSettings { paused: true, paused_until: Some(until), ..TargetSettings::default() };
    scene.set_target("t", 1, pause.clone()).await;
    let paused = scene.push(|_| {}).await.id;
    let other = scene.push(|entry| entry.target = "u".into()).await.id;
    let reply = scene.step(scene.asking(9)).await;
    assert_eq!(reply.claims.iter().map(|claim| claim.lease.id).collect::<Vec<_>>(), [other]);
    assert_eq!(reply.next_at, Some(until));
    assert_eq!(scene.parked_and_waiting().await, (1, 0));
    // Neither a limiter that parks it nor one that wakes it ends what an operator said.
    let park = |until| Setting::ParkTarget { target: "t".into(), until, reason: "429".into() };
    scene.dispatcher.apply(park(scene.now().plus_ms(1_000))).await.unwrap();
    scene.dispatcher.apply(park(scene.now())).await.unwrap();
    assert!(scene.claim(9).await.is_empty());
    scene.fixture.advance_ms(5_000).await;
    assert_eq!(scene.claim_ids(9).await, [paused]);
    let open = TargetSettings { breaker: BreakerMode::Open, paused_until: Some(until), ..pause };
    scene.set_target("t", 2, open).await;
    scene.push(|_| {}).await;
    scene.fixture.advance_ms(50_000).await;
    assert!(scene.claim(9).await.is_empty(), "a breaker that is held open has no end");
    scene.set_target("t", 3, TargetSettings { breaker: BreakerMode::Close, ..TargetSettings::default() }).await;
    assert_eq!(scene.claim(9).await.len(), 1);
}

pub async fn a_target_is_tried_by_one_job(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let from = scene.now().plus_ms(5_000);
    scene.try_target(from).await;
    for n in 0..4 {
        scene.push(|entry| entry.queue = format!("queue-{}", n % 2).as_str().into()).await;
    }
    let reply = scene.step(scene.asking(9)).await;
    assert!(reply.claims.is_empty());
    assert_eq!(reply.next_at, Some(from));
    scene.fixture.advance_ms(5_000).await;
    let tried = scene.claim(9).await;
    assert_eq!(tried.len(), 1, "one of all queues");
    assert!(scene.claim(9).await.is_empty());
    scene.ack(tried[0].lease, None).await;
    assert_eq!(scene.claim(9).await.len(), 3, "it ended well, so all may come");
}

pub async fn a_trial_that_fails_tries_again(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let entry = scene.push(|_| {}).await;
    scene.push(|_| {}).await;
    scene.try_target(scene.now()).await;
    let tried = scene.claim(9).await;
    assert_eq!(tried.len(), 1);
    // Given back: the next one may try.
    let mut next = entry.clone();
    (next.id, next.epoch, next.run_at) = (tried[0].lease.id, tried[0].lease.epoch.next(), scene.now());
    scene.ack(tried[0].lease, Some(next)).await;
    assert_eq!(scene.claim(9).await.len(), 1);
    assert!(scene.claim(9).await.is_empty());
    // What ran before it slept and ends meanwhile says nothing of it.
    scene.try_target(scene.now().plus_ms(5_000)).await;
    let held = scene.push(|entry| entry.target = "u".into()).await.id;
    assert_eq!(scene.claim_ids(9).await, [held]);
    scene.fixture.advance_ms(4_999).await;
    assert!(scene.claim(9).await.is_empty());
}

pub async fn a_trial_ends_with_a_wake_up(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    for _ in 0..5 {
        scene.push(|_| {}).await;
    }
    scene.try_target(scene.now()).await;
    assert_eq!(scene.claim(9).await.len(), 1);
    let park = |until| Setting::ParkTarget { target: "t".into(), until, reason: "429".into() };
    scene.dispatcher.apply(park(scene.now().plus_ms(1_000))).await.unwrap();
    scene.fixture.advance_ms(1_000).await;
    assert!(scene.claim(9).await.is_empty(), "a limiter that parks it does not end the trial");
    scene.dispatcher.apply(park(scene.now())).await.unwrap();
    assert_eq!(scene.claim(9).await.len(), 4);
}

pub async fn an_operators_wake_up_wakes_workers(fixture: &dyn Fixture) {
    let mut scene = Scene::open(fixture).await;
    scene.set_tenant("acme", 1, asleep(None)).await;
    scene.set_target("t", 1, TargetSettings { paused: true, ..TargetSettings::default() }).await;
    scene.push(|_| {}).await;
    assert!(scene.claim(9).await.is_empty());
    scene.drain_signals().await;
    scene.set_tenant("acme", 2, TenantSettings::default()).await;
    assert_eq!(scene.told().await, None, "its target still sleeps");
    scene.set_target("t", 2, TargetSettings::default()).await;
    assert_eq!(scene.told().await, Some(super::Signal::Work));
    assert_eq!(scene.claim(9).await.len(), 1);
}

pub async fn who_sleeps_is_named(fixture: &dyn Fixture) {
    let scene = Scene::open(fixture).await;
    let id = scene.push(|_| {}).await.id;
    let until = scene.now().plus_ms(5_000);
    scene.set_tenant("acme", 1, asleep(Some(until))).await;
    let pause = TargetSettings { paused: true, reason: Some("bill".into()), ..TargetSettings::default() };
    scene.set_target("t", 1, pause).await;
    let waits = scene.dispatcher.explain(id).await.unwrap();
    let tenant = Wait::TenantPaused { until: Some(until), reason: Some("they asked".into()) };
    let target = Wait::TargetPaused { target: "t".into(), until: None, reason: "bill".into() };
    assert!(waits.contains(&tenant) && waits.contains(&target), "{waits:?}");
    scene.set_tenant("acme", 2, TenantSettings::default()).await;
    scene.set_target("t", 2, TargetSettings::default()).await;
    scene.try_target(scene.now()).await;
    scene.push(|entry| entry.priority = 9).await;
    assert_eq!(scene.claim(9).await.len(), 1);
    let waits = scene.dispatcher.explain(id).await.unwrap();
    let tried = Wait::TargetTried { target: "t".into(), reason: "breaker".into() };
    assert!(waits.contains(&tried), "{waits:?}");
}
