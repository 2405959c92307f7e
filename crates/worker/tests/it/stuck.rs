//! Handlers that do not yield: their attempts end all the same, and their worker where they go on for too long.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use crate::rig::Rig;
use async_trait::async_trait;
use bytes::Bytes;
use queue_core::{
    dispatcher::Place,
    error::{ErrorClass, JobError},
    ids::JobId,
    job::Kind,
    state::Standing,
};
use worker::{
    Config, End, RECYCLE_AFTER,
    context::{Handler, JobContext},
    handlers::Handlers,
    provider::Providers,
};

/// Longer than an idle worker waits between two steps: what it may claim, it has begun by then.
const CLAIMED_BY: Duration = Duration::from_millis(1_500);

/// Holds its thread up until it is let go.
#[derive(Default)]
struct Holds(Arc<(Mutex<bool>, Condvar)>);

impl Holds {
    fn let_go(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// The runtime of a test waits for its threads.
impl Drop for Holds {
    fn drop(&mut self) {
        self.let_go();
    }
}

struct Held(Arc<(Mutex<bool>, Condvar)>);

#[async_trait]
impl Handler for Held {
    async fn run(&self, _: &JobContext) -> Result<Bytes, JobError> {
        let gone = self.0.1.wait_while(self.0.0.lock().unwrap(), |gone| !*gone);
        drop(gone.unwrap());
        Ok(Bytes::from_static(b"{}"))
    }
}

async fn rig(holds: &Holds, drain: Duration) -> Rig {
    let mut rig = Rig::new(Providers::new()).await;
    let config =
        Config { slots: 8, queues: vec![], kinds: vec![], timeouts: BTreeMap::new(), drain, host: "test".into() };
    rig.work_by(config, Handlers::new().with("holds", Held(holds.0.clone())).unwrap());
    rig
}

async fn held(rig: &Rig) -> JobId {
    let short = |job: &mut queue_core::job::NewJob| (job.timeout_ms, job.max_attempts) = (Some(100), 1);
    rig.submit(Kind::Custom, r#"{"handler":"holds"}"#, short).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_does_not_yield_is_timed_out_and_nothing_is_claimed_until_it_ends() {
    let holds = Holds::default();
    let mut rig = rig(&holds, Duration::from_secs(10)).await;
    let id = held(&rig).await;
    let row = rig.ended(id).await;
    assert_eq!((row.standing, row.error.unwrap().class), (Standing::Dead, ErrorClass::Timeout));
    assert_eq!(rig.stores.dispatcher.locate(&[id]).await.unwrap(), vec![Place::Unknown], "its claim is given up");
    let next = rig.probe("{}").await;
    let claimed = tokio::time::timeout(CLAIMED_BY, rig.ended(next)).await;
    assert!(claimed.is_err(), "nothing is claimed while a thread is lost");
    holds.let_go();
    assert_eq!(rig.ended(next).await.standing, Standing::Succeeded);
    assert_eq!(rig.row(id).await.standing, Standing::Dead, "what it returned came too late");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_stays_stuck_ends_its_worker_and_the_others_are_given_back() {
    let holds = Holds::default();
    let mut rig = rig(&holds, Duration::from_millis(50)).await;
    let neighbour = rig.probe(r#"{"sleep_ms":600000}"#).await;
    rig.until("the neighbour runs", async || {
        matches!(
            rig.stores.dispatcher.locate(&[neighbour]).await.unwrap()[0],
            Place::Leased { started_at: Some(_), .. }
        )
    })
    .await;
    let id = held(&rig).await;
    let End::Recycle(stuck) = rig.ends().await else { panic!("it ends to be started again") };
    assert_eq!((stuck.job, stuck.kind), (id, Kind::Custom));
    assert!(stuck.ran >= RECYCLE_AFTER, "{stuck:?}");
    let row = rig.row(neighbour).await;
    assert_eq!((row.standing, row.attempts, row.recoveries), (Standing::Live, 0, 0), "given back, unspent");
    assert!(matches!(rig.stores.dispatcher.locate(&[neighbour]).await.unwrap()[0], Place::Waiting { .. }));
    let row = rig.row(id).await;
    assert_eq!((row.standing, row.error.unwrap().class), (Standing::Dead, ErrorClass::Timeout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_stop_does_not_wait_for_a_handler_that_does_not_yield() {
    let holds = Holds::default();
    let mut rig = rig(&holds, Duration::from_millis(50)).await;
    let id = rig.submit(Kind::Custom, r#"{"handler":"holds"}"#, |_| {}).await;
    rig.until("it runs", async || {
        matches!(rig.stores.dispatcher.locate(&[id]).await.unwrap()[0], Place::Leased { started_at: Some(_), .. })
    })
    .await;
    rig.stop().await;
    let row = rig.row(id).await;
    assert_eq!((row.standing, row.attempts, row.recoveries), (Standing::Live, 0, 0), "given back, unspent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_drop_costs_the_attempt_and_nothing_else() {
    let holds = Holds::default();
    let mut rig = rig(&holds, Duration::from_secs(10)).await;
    let at_its_end = rig.probe(r#"{"fail":"panic_in_drop","fail_times":1}"#).await;
    let while_stopped = rig
        .submit(Kind::Probe, r#"{"fail":"panic_in_drop","sleep_ms":600000}"#, |job| {
            (job.timeout_ms, job.max_attempts) = (Some(50), 1);
        })
        .await;
    let row = rig.ended(at_its_end).await;
    assert_eq!((row.standing, row.attempts), (Standing::Succeeded, 2));
    let attempts = rig.stores.reads.attempts(at_its_end).await.unwrap();
    assert_eq!(attempts[0].error.as_ref().unwrap().class, ErrorClass::Panic);
    let row = rig.ended(while_stopped).await;
    assert_eq!((row.standing, row.error.unwrap().class), (Standing::Dead, ErrorClass::Timeout));
    rig.stop().await;
}
