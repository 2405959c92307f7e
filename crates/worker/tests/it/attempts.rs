//! Whole attempts on real stores: how each end of a handler becomes a settle, and what stopping one costs.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use crate::rig::Rig;
use crate::script::{Script, Stalling, says};
use queue_core::{
    dispatcher::{Place, Wait},
    error::ErrorClass,
    job::{Kind, NewJob},
    journal::{Blame, Interrupted, QueueSettings, Recovery},
    ledger::Billed,
    state::Standing,
};
use tokio_util::sync::CancellationToken;
use worker::{Config, provider::Providers};

async fn rig(slots: usize) -> Rig {
    let mut rig = Rig::new(Providers::new()).await;
    rig.work(slots, Duration::from_secs(10));
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_succeeds_and_leaves_one_attempt() {
    let mut rig = rig(4).await;
    let id = rig.probe(r#"{"result_bytes":3}"#).await;
    let row = rig.ended(id).await;
    assert_eq!((row.standing, row.attempts), (Standing::Succeeded, 1));
    let attempts = rig.stores.reads.attempts(id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!((attempts[0].number, attempts[0].outcome.as_str()), (1, "succeed"));
    assert!(rig.stores.reads.result(id).await.unwrap().is_some());
    rig.stop().await;
    assert_eq!(rig.stores.dispatcher.locate(&[id]).await.unwrap(), vec![Place::Unknown]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passing_failure_is_tried_again_and_a_final_one_is_not() {
    let mut rig = rig(4).await;
    let passing = rig.probe(r#"{"fail":"transient","fail_times":2}"#).await;
    let lasting = rig.probe(r#"{"fail":"transient"}"#).await;
    let permanent = rig.probe(r#"{"fail":"permanent"}"#).await;
    let panics = rig.probe(r#"{"fail":"panic","fail_times":1}"#).await;
    let row = rig.ended(passing).await;
    assert_eq!((row.standing, row.attempts), (Standing::Succeeded, 3));
    let row = rig.ended(lasting).await;
    assert_eq!((row.standing, row.attempts), (Standing::Dead, 3));
    assert_eq!(row.error.unwrap().class, ErrorClass::Transient);
    let row = rig.ended(permanent).await;
    assert_eq!((row.standing, row.attempts), (Standing::Dead, 1));
    let row = rig.ended(panics).await;
    assert_eq!((row.standing, row.attempts), (Standing::Succeeded, 2));
    let attempts = rig.stores.reads.attempts(panics).await.unwrap();
    assert_eq!(attempts[0].error.as_ref().unwrap().class, ErrorClass::Panic);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_ends_at_its_timeout_and_a_job_at_its_deadline() {
    let mut rig = rig(4).await;
    let slow = rig
        .submit(Kind::Probe, r#"{"sleep_ms":600000}"#, |job| {
            job.timeout_ms = Some(50);
            job.max_attempts = 1;
        })
        .await;
    let late =
        rig.submit(Kind::Probe, r#"{"sleep_ms":600000}"#, |job| job.deadline = Some(job.run_at.plus_ms(60))).await;
    let row = rig.ended(slow).await;
    assert_eq!((row.standing, row.error.unwrap().class), (Standing::Dead, ErrorClass::Timeout));
    let row = rig.ended(late).await;
    assert_eq!((row.standing, row.error.unwrap().class), (Standing::Dead, ErrorClass::Deadline));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_job_says_its_timeout_else_its_queue_else_its_kind() {
    let mut rig = Rig::new(Providers::new()).await;
    let set = |timeout_ms| QueueSettings { timeout_ms: Some(timeout_ms), ..QueueSettings::default() };
    rig.stores.catalog.set_queue(&"quick".into(), set(20)).await.unwrap();
    rig.stores.catalog.set_queue(&"slow".into(), set(600_000)).await.unwrap();
    rig.work_with(Config {
        slots: 9,
        queues: vec![],
        kinds: vec![],
        timeouts: [(Kind::Probe, Duration::from_millis(40))].into(),
        drain: Duration::from_secs(5),
        host: "test".into(),
    });
    let submit = async |queue: &str, timeout_ms| {
        let change = |job: &mut NewJob| (job.queue, job.timeout_ms, job.max_attempts) = (queue.into(), timeout_ms, 1);
        rig.submit(Kind::Probe, r#"{"sleep_ms":300}"#, change).await
    };
    for (queue, own, limit) in [
        ("quick", None, Some("20ms")),
        ("default", None, Some("40ms")),
        ("slow", None, None),
        ("quick", Some(600_000), None),
    ] {
        let row = rig.ended(submit(queue, own).await).await;
        assert_eq!(row.error.map(|error| error.message.contains(limit.unwrap_or("-"))), limit.map(|_| true), "{queue}");
    }
    // Operators change it while workers run.
    rig.stores.catalog.set_queue(&"slow".into(), set(10)).await.unwrap();
    rig.until("the worker has heard of it", async || {
        let row = rig.ended(submit("slow", None).await).await;
        row.error.is_some_and(|error| error.message.contains("10ms"))
    })
    .await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_gives_running_jobs_back_unspent() {
    let mut rig = Rig::new(Providers::new()).await;
    rig.work(4, Duration::ZERO);
    let id = rig.probe(r#"{"sleep_ms":600000}"#).await;
    rig.until("running", async || is_running(&rig, id).await).await;
    rig.stop().await;
    let row = rig.row(id).await;
    assert_eq!((row.standing, row.attempts, row.recoveries), (Standing::Live, 0, 0));
    assert_eq!(row.epoch.0, 1, "a release hands the job on");
    assert!(matches!(rig.stores.dispatcher.locate(&[id]).await.unwrap()[0], Place::Waiting { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_stops_within_its_attempt_and_leaves_it_behind() {
    let script = Script::new(|_, _| says("never asked"));
    let stalling = Stalling::new(&script, |_| true);
    let mut rig = Rig::new(stalling.alone()).await;
    rig.work(4, Duration::from_secs(10));
    let id = rig.submit(Kind::Llm, r#"{"messages":[{"role":"user","content":"How many?"}]}"#, |_| {}).await;
    rig.until("the provider is asked", async || stalling.waiting.load(Ordering::SeqCst) == 1).await;
    let Interrupted { session, started_at, .. } = rig.cancel(id, Some("enough".to_owned())).await;
    rig.until("given up", async || rig.stores.dispatcher.locate(&[id]).await.unwrap()[0] == Place::Unknown).await;
    rig.stop().await;
    assert_eq!(rig.row(id).await.standing, Standing::Cancelled);
    let attempts = rig.stores.reads.attempts(id).await.unwrap();
    let told: Vec<_> = attempts.iter().map(|attempt| (attempt.number, attempt.outcome.as_str())).collect();
    assert_eq!(told, [(1, "cancel")], "once, whoever writes it");
    assert_eq!((attempts[0].started_at, attempts[0].worker.as_str()), (Some(started_at), &*session.0.to_string()));
    let calls = rig.stores.reads.calls(id).await.unwrap();
    assert_eq!(calls.iter().map(|call| call.billed).collect::<Vec<_>>(), [Billed::Maybe]);
    assert!(rig.stores.reads.result(id).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settle_behind_a_recovery_is_fenced() {
    let mut rig = rig(1).await;
    let id = rig.probe(r#"{"sleep_ms":300}"#).await;
    rig.until("running", async || is_running(&rig, id).await).await;
    let row = rig.row(id).await;
    // What a reaper does that takes this worker for dead, while the handler still runs.
    let token = queue_core::journal::Token { id, epoch: row.epoch };
    let session = queue_core::ids::SessionId::generate();
    let recovery =
        Recovery { token, nonce: Default::default(), blame: Blame::Alone, session, started_at: Some(row.accepted_at) };
    rig.stores.journal.recover(vec![recovery]).await.unwrap();
    rig.until("given up", async || rig.stores.dispatcher.locate(&[id]).await.unwrap()[0] == Place::Unknown).await;
    let row = rig.row(id).await;
    assert_eq!((row.standing, row.epoch.0, row.recoveries), (Standing::Live, 1, 1));
    assert!(rig.stores.reads.result(id).await.unwrap().is_none(), "the fenced attempt left no result");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_never_holds_more_than_its_slots() {
    let mut rig = rig(3).await;
    let mut ids = vec![];
    for _ in 0..60 {
        ids.push(rig.probe(r#"{"sleep_ms":5}"#).await);
    }
    let mut most = 0;
    for &id in &ids {
        rig.until("ended", async || {
            let depths = rig.stores.dispatcher.depths().await.unwrap();
            most = most.max(depths.iter().map(|depth| depth.active).sum::<u64>());
            rig.row(id).await.standing.is_final()
        })
        .await;
    }
    assert!((1..=3).contains(&most), "{most} claims at once");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_runs_the_kinds_it_serves() {
    let mut rig = Rig::new(Providers::new()).await;
    let config = |kinds| Config {
        slots: 9,
        queues: vec![],
        kinds,
        timeouts: BTreeMap::new(),
        drain: Duration::from_secs(5),
        host: "test".into(),
    };
    rig.work_with(config(vec![Kind::Analysis, Kind::Probe]));
    // First in its lane, and its handler would fail it at once: there is no provider.
    let llm = rig.submit(Kind::Llm, r#"{"prompt":"?"}"#, |job| job.target = "probe".into()).await;
    let probe = rig.probe("{}").await;
    assert_eq!(rig.ended(probe).await.standing, Standing::Succeeded);
    assert!(matches!(rig.stores.dispatcher.locate(&[llm]).await.unwrap()[..], [Place::Waiting { .. }]));
    assert!(rig.stores.dispatcher.explain(llm).await.unwrap().contains(&Wait::NoWorker));
    rig.stop().await;
    rig.shutdown = CancellationToken::new();
    rig.work_with(config(vec![Kind::Llm]));
    assert_eq!(rig.ended(llm).await.standing, Standing::Dead);
    rig.stop().await;
}

async fn is_running(rig: &Rig, id: queue_core::ids::JobId) -> bool {
    matches!(rig.stores.dispatcher.locate(&[id]).await.unwrap()[0], Place::Leased { started_at: Some(_), .. })
}
