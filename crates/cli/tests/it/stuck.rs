//! Handlers that do not yield in the real process: it ends, and says why, so that whoever supervises it starts it again.

use std::{thread, time::Duration};

use crate::installation::Installation;
use serde_json::{Value, json};

const FAULTS: (&str, &str) = ("LONGSHORE_PROBE_FAULTS", "true");

async fn runs(up: &Installation, id: &str) {
    up.until("it runs", async |up| up.get(&format!("/v1/jobs/{id}")).await["state"] == "running").await;
}

async fn attempts(up: &Installation, id: &str) -> Vec<Value> {
    up.get(&format!("/v1/jobs/{id}/attempts")).await["attempts"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_spins_is_timed_out_and_its_worker_recycled() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [FAULTS, ("LONGSHORE_WORKER_DRAIN", "100ms")];
    let mut up = Installation::start_in(folder.path(), &[], &environment).await;
    let neighbour = up.probe(json!({"sleep_ms": 600_000})).await;
    runs(&up, &neighbour).await;
    let spins =
        json!({"kind": "probe", "payload": {"fail": "spin", "fail_times": 1}, "timeout": "1s", "max_attempts": 2});
    let spins = up.submit(&spins).await;
    // The journal has its first attempt while the thread is lost.
    up.until("it is timed out", async |up| !attempts(up, &spins).await.is_empty()).await;
    let waits = up.probe(json!({})).await;
    assert_eq!(up.wait_for_death(), Some(75), "{}", up.log());
    let log = up.log();
    assert!(log.contains(&format!("the handler of job {spins} (probe) did not end when it was stopped")), "{log}");

    up.start_again().await;
    let job = up.ended(&spins).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let first = &attempts(&up, &spins).await[0];
    assert_eq!((&first["outcome"], &first["error"]["class"]), (&json!("retry"), &json!("timeout")), "{first}");
    assert_eq!(up.ended(&waits).await["state"], "succeeded");
    runs(&up, &neighbour).await;
    let job = up.get(&format!("/v1/jobs/{neighbour}")).await;
    assert_eq!((&job["attempts"], &job["recoveries"]), (&json!(0), &json!(0)), "given back, unspent: {job}");
    assert!(up.cancel(&neighbour).await.is_success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_every_thread_is_held_up_aborts_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Installation::start_in(folder.path(), &[], &[FAULTS]).await;
    let threads = thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    for _ in 0..threads {
        // One answer may never come.
        let block = json!({"kind": "probe", "payload": {"fail": "block", "sleep_ms": 3_600_000}, "max_attempts": 1});
        let _ = tokio::time::timeout(Duration::from_secs(2), up.send(&block)).await;
    }
    assert_eq!(up.wait_for_death(), None, "a signal ended it: {}", up.log());
    assert!(up.log().contains("the event loop has stood still over 30 looks of the watchdog"), "{}", up.log());
}
