//! Budgets: who sleeps for one is woken when it is raised, counters follow the ledger, and alerts are given once.

use queue_core::{
    budget::{Amount, Budget, Known, Measure, Period, Scope, Span},
    dispatcher::Setting,
    error::{ErrorClass, JobError},
    ids::CallId,
    journal::{Alert, Due, Outcome, Settlement, Token},
    ledger::{Billed, CallRecord, Nanousd, Tier, Usage, UsageSource},
    time::Clock,
};

use super::{Epoch, Scene, SessionId};
use crate::budgets::Watch;

fn watch(scene: &Scene) -> Watch {
    Watch::new(Known::new(scene.stores.budgets.clone(), Budget::default()))
}

fn month(usd: i64) -> Budget {
    Budget { month_usd: Some(Nanousd(usd)), ..Budget::default() }
}

#[tokio::test]
async fn a_raise_wakes_who_sleeps_whoever_set_it() {
    let scene = Scene::new().await;
    let scope = Scope::Tenant("default".into());
    let mut scheduler = watch(&scene);
    scene.stores.budgets.set_budget(&scope, month(100)).await.unwrap();
    scheduler.round(&scene.stores).await.unwrap();
    let (asleep, alone) = (scene.submit().await, scene.submit().await);
    let session = scene.worker().await;
    // One was sent away by itself, the other sleeps with its lane.
    let claims = scene.begin(session).await;
    let lease = claims.iter().find(|claim| claim.lease.id == alone).unwrap().lease;
    let later = scene.clock.now().plus_ms(86_400_000);
    let error = Some(JobError::new(ErrorClass::Budget, "budget_wait", "no room"));
    scene.release(lease, session, Outcome::Release { due: Due::At(later), error, target: None }).await;
    let back = claims.iter().find(|claim| claim.lease.id == asleep).unwrap().lease;
    scene.release(back, session, Outcome::Release { due: Due::At(scene.clock.now()), error: None, target: None }).await;
    scene.push(&[asleep]).await;
    let (tenant, until) = ("default".into(), later);
    let amount = Amount { usd: Nanousd(150), tokens: 0 };
    scene.stores.counters.park(&tenant, &scope, amount, until, "no room").await.unwrap();
    let park = Setting::ParkTenant { tenant, until, reason: "no room".into() };
    scene.stores.dispatcher.apply(park).await.unwrap();
    scheduler.round(&scene.stores).await.unwrap();
    assert!(scene.claim(session).await.is_empty(), "there is no room yet");
    scene.stores.budgets.set_budget(&scope, month(1_000)).await.unwrap();
    scheduler.round(&scene.stores).await.unwrap();
    let mut woken: Vec<_> = scene.claim(session).await.into_iter().map(|claim| claim.lease.id).collect();
    woken.sort_unstable();
    let mut expected = [asleep, alone];
    expected.sort_unstable();
    assert_eq!(woken, expected);
}

#[tokio::test]
async fn a_level_is_told_once_by_all_schedulers_together() {
    let scene = Scene::new().await;
    let job = scene.row(scene.submit().await).await;
    scene.stores.budgets.set_budget(&Scope::All, month(1_000)).await.unwrap();
    let call = CallRecord {
        call_id: CallId::of(job.id, "chat", 0),
        job_id: job.id,
        tenant: job.tenant.clone(),
        queue: job.queue.clone(),
        kind: job.kind,
        operation: None,
        key_id: None,
        epoch: job.epoch,
        step: "chat".into(),
        sequence: 0,
        provider: "p".into(),
        model: "m".into(),
        status: "ok".into(),
        billed: Billed::Yes,
        usage: Usage::default(),
        tier: Tier::Standard,
        usage_source: UsageSource::Provider,
        cost: Some(Nanousd(850)),
        price_version: "t".into(),
        duration_ms: 1,
        provider_request_id: None,
        credential: "default".into(),
        at: scene.clock.now(),
        memo: None,
    };
    scene.stores.journal.record(call).await.unwrap();
    for mut scheduler in [watch(&scene), watch(&scene)] {
        scheduler.round(&scene.stores).await.unwrap();
    }
    let standing = scene.stores.counters.standing(&Scope::All).await.unwrap().unwrap();
    assert_eq!((standing.known, standing.spent[1]), (true, 850), "read from the ledger");
    let alert = |level| Alert {
        scope: Scope::All,
        measure: Measure::Usd,
        period: Period::Month,
        since: Span::of(scene.clock.now()).month,
        level,
        spent: 850,
        budget: 1_000,
        at: scene.clock.now(),
    };
    for (level, is_new) in [(50, false), (80, false), (100, true)] {
        assert_eq!(scene.stores.budgets.note_alert(&alert(level)).await.unwrap(), is_new, "{level}");
    }
}

impl Scene {
    /// Gives a claim back as a worker does.
    async fn release(&self, lease: queue_core::dispatcher::Lease, session: SessionId, outcome: Outcome) {
        let settlement = Settlement {
            token: Token { id: lease.id, epoch: lease.epoch },
            incarnation: self.stores.journal.incarnation(),
            outcome,
            session,
            started_at: self.clock.now(),
            finished_at: self.clock.now(),
            calls: vec![],
            savings: vec![],
            served_by: None,
        };
        self.stores.journal.settle(settlement).await.unwrap();
        let acks = vec![queue_core::dispatcher::Ack { lease, next: None }];
        let step = queue_core::dispatcher::Step { session, acks, queues: vec![], kinds: vec![], slots: 0 };
        self.stores.dispatcher.step(step).await.unwrap();
        assert!(self.row(lease.id).await.epoch > Epoch(0));
    }
}
