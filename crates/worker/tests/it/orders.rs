//! What operators order while workers run: nobody claims in maintenance, and one that drains finishes what it holds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::rig::Rig;
use crate::script::{Script, Stalling, says};
use async_trait::async_trait;
use queue_core::{
    dispatcher::Place,
    ids::{JobId, SessionId},
    job::Kind,
    journal::{JournalError, LogLevel, Maintenance, Orders, WorkerOrders},
    state::Standing,
};
use worker::provider::Providers;

/// The journal's orders, with the number of times that a worker was told the same since the last one was given.
struct Told {
    orders: Arc<dyn Orders>,
    times: AtomicUsize,
}

impl Told {
    fn between(rig: &mut Rig) -> Arc<Self> {
        let told = Arc::new(Self { orders: rig.stores.orders.clone(), times: AtomicUsize::new(0) });
        rig.stores.orders = told.clone();
        rig.around.stores.orders = told.clone();
        told
    }

    /// A worker that asks again has acted on the answer before.
    async fn heard(&self, rig: &Rig) {
        rig.until("the worker has heard", async || self.times.load(Ordering::SeqCst) >= 2).await;
    }
}

#[async_trait]
impl Orders for Told {
    async fn maintenance(&self) -> Result<Option<Maintenance>, JournalError> {
        self.orders.maintenance().await
    }

    async fn awaits_confirmation(&self) -> Result<bool, JournalError> {
        self.orders.awaits_confirmation().await
    }

    async fn set_maintenance(&self, maintenance: Option<Maintenance>) -> Result<(), JournalError> {
        self.orders.set_maintenance(maintenance).await?;
        self.times.store(0, Ordering::SeqCst);
        Ok(())
    }

    async fn order_drain(&self, worker: SessionId, drain: bool) -> Result<bool, JournalError> {
        let found = self.orders.order_drain(worker, drain).await?;
        self.times.store(0, Ordering::SeqCst);
        Ok(found)
    }

    async fn log_level(&self) -> Result<Option<LogLevel>, JournalError> {
        self.orders.log_level().await
    }

    async fn set_log_level(&self, level: Option<LogLevel>) -> Result<(), JournalError> {
        self.orders.set_log_level(level).await
    }

    async fn orders(&self, worker: SessionId) -> Result<WorkerOrders, JournalError> {
        let before = self.times.load(Ordering::SeqCst);
        let orders = self.orders.orders(worker).await?;
        // One that was asked before an order was given and answered after it does not count.
        let _ = self.times.compare_exchange(before, before + 1, Ordering::SeqCst, Ordering::SeqCst);
        Ok(orders)
    }
}

async fn waits(rig: &Rig, id: JobId) -> bool {
    matches!(rig.stores.dispatcher.locate(&[id]).await.unwrap()[0], Place::Waiting { .. })
}

fn maintenance(rig: &Rig) -> Option<Maintenance> {
    Some(Maintenance { since: rig.stores.clock.now(), reason: None })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_maintenance_what_runs_ends_and_nothing_begins() {
    let script = Script::new(|_, _| says("yes"));
    let stalling = Stalling::new(&script, |_| true);
    let mut rig = Rig::new(stalling.alone()).await;
    let told = Told::between(&mut rig);
    rig.work(4, Duration::from_secs(10));
    let runs = rig.submit(Kind::Llm, r#"{"messages":[{"role":"user","content":"?"}]}"#, |_| {}).await;
    rig.until("it runs", async || stalling.waiting.load(Ordering::SeqCst) == 1).await;
    rig.stores.orders.set_maintenance(maintenance(&rig)).await.unwrap();
    told.heard(&rig).await;
    let later = rig.probe("{}").await;
    rig.cancel(runs, None).await;
    rig.until("what ran is given up", async || {
        rig.stores.dispatcher.locate(&[runs]).await.unwrap()[0] == Place::Unknown
    })
    .await;
    assert!(waits(&rig, later).await, "although every slot is free");
    rig.stores.orders.set_maintenance(None).await.unwrap();
    assert_eq!(rig.ended(later).await.standing, Standing::Succeeded);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_begins_in_maintenance_claims_nothing() {
    let mut rig = Rig::new(Providers::new()).await;
    let told = Told::between(&mut rig);
    rig.stores.orders.set_maintenance(maintenance(&rig)).await.unwrap();
    let id = rig.probe("{}").await;
    rig.work(4, Duration::from_secs(10));
    told.heard(&rig).await;
    assert!(waits(&rig, id).await);
    rig.stores.orders.set_maintenance(None).await.unwrap();
    assert_eq!(rig.ended(id).await.standing, Standing::Succeeded);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_drains_leaves_the_rest_to_others() {
    let mut rig = Rig::new(Providers::new()).await;
    let told = Told::between(&mut rig);
    rig.work(4, Duration::from_secs(10));
    let first = rig.probe("{}").await;
    rig.ended(first).await;
    let session = rig.stores.catalog.sessions().await.unwrap()[0].id;
    assert!(rig.stores.orders.order_drain(session, true).await.unwrap());
    told.heard(&rig).await;
    let second = rig.probe("{}").await;
    told.heard(&rig).await;
    assert!(waits(&rig, second).await);
    assert!(rig.stores.orders.order_drain(session, false).await.unwrap());
    assert_eq!(rig.ended(second).await.standing, Standing::Succeeded);
    rig.stop().await;
}
