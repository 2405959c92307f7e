//! Analyses that say that an old answer will do: what is asked about each chunk is paid once, over jobs and attempts; what joins
//! the answers is asked for by each job.

use std::{sync::Arc, time::Duration};

use crate::rig::Rig;
use crate::script::{Script, says};
use queue_core::{
    cache::{Cache, Scope, memory::MemoryCache},
    ids::JobId,
    job::Kind,
    ledger::Nanousd,
    state::Standing,
    time::SystemClock,
};
use serde_json::{Value, json};
use worker::caches::Caches;

fn payload(marks: &[&str], cache: Option<Value>) -> Value {
    let parts: Vec<String> = marks.iter().map(|mark| format!("{mark}: {}", "a ship came in. ".repeat(12))).collect();
    let mut payload = json!({
        "version": 1,
        "input": {"text": parts.join("\n\n")},
        "defaults": {"model": "gpt-4o-mini", "max_tokens": 50},
        "chunk": {"size": 64, "overlap": 0},
        "map": {"prompt": "Sum up: {{chunk}}"},
        "reduce": {"strategy": "llm", "prompt": "Join: {{items}}"},
    });
    if let Some(cache) = cache {
        payload["cache"] = cache;
    }
    payload
}

async fn rig(script: &Arc<Script>) -> Rig {
    let store: Arc<dyn Cache> = Arc::new(MemoryCache::new(Arc::new(SystemClock), 1024 * 1024));
    let mut rig = Rig::new(script.alone()).await;
    rig.around.caches = Arc::new(Caches::new(store, Scope::Tenant, None));
    rig.work(20, Duration::from_secs(5));
    rig
}

async fn submit(rig: &Rig, payload: &Value) -> JobId {
    rig.submit(Kind::Analysis, &payload.to_string(), |_| {}).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_was_paid_for_is_not_paid_again() {
    let script = Script::new(|_, _| says("A ship."));
    let mut rig = rig(&script).await;
    let wish = || Some(json!({"ttl": "1h"}));
    let ended = async |rig: &Rig, payload: Value| {
        let row = rig.ended(submit(rig, &payload).await).await;
        assert_eq!(row.standing, Standing::Succeeded, "{:?}", row.error);
        row
    };
    let first = ended(&rig, payload(&["one", "two", "three"], wish())).await;
    assert_eq!(script.asked().len(), 4, "three chunks, and their answers joined");
    let second = ended(&rig, payload(&["one", "two", "four"], wish())).await;
    assert_eq!(script.asked().len(), 4 + 2, "a new chunk, and its own joining call");
    assert!(Nanousd(0) < second.cost.unwrap() && second.cost < first.cost);
    let rows = rig.stores.reads.calls(second.id).await.unwrap();
    assert_eq!(rows.len(), 2, "what was found has no row of spend");
    ended(&rig, payload(&["one", "two", "three"], None)).await;
    assert_eq!(script.asked().len(), 6 + 4, "nobody else's job is asked whether it would mind");
    rig.stop().await;
}

/// Jobs that ask the same at the same moment wait for one call each chunk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_document_at_once_is_asked_about_once() {
    let script = Script::new(|_, _| says("A ship."));
    let mut rig = rig(&script).await;
    let payload = payload(&["one", "two", "three"], Some(json!({"ttl": "1h"})));
    let mut jobs = vec![];
    for _ in 0..6 {
        jobs.push(submit(&rig, &payload).await);
    }
    for id in jobs {
        assert_eq!(rig.ended(id).await.standing, Standing::Succeeded);
    }
    assert_eq!(script.asked().len(), 3 + 6);
    rig.stop().await;
}
