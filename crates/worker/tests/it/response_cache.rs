//! Answers that several jobs have: only those that say so, and only whole ones; who asks the same at once waits for one call.

use std::{sync::Arc, time::Duration};

use crate::rig::Rig;
use crate::vectors::Oracle;
use queue_core::{
    cache::{Cache, Scope, memory::MemoryCache},
    dispatcher::Place,
    error::ErrorClass,
    ids::{JobId, Name},
    job::{Job, Kind},
    ledger::Nanousd,
    state::Standing,
    time::SystemClock,
};
use serde_json::{Value, json};
use worker::{caches::Caches, provider::CallError};

fn store() -> Arc<dyn Cache> {
    Arc::new(MemoryCache::new(Arc::new(SystemClock), 1024 * 1024))
}

async fn rig(oracle: &Arc<Oracle>, store: &Arc<dyn Cache>) -> Rig {
    let mut rig = Rig::new(oracle.alone()).await;
    rig.around.caches = Arc::new(Caches::new(store.clone(), Scope::Tenant, None));
    rig.work(20, Duration::from_secs(5));
    rig
}

fn payload(prompt: &str, more: Value) -> Value {
    let mut payload = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}]});
    payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    payload
}

async fn submit_for(rig: &Rig, tenant: &str, payload: &Value) -> JobId {
    rig.submit(Kind::Llm, &payload.to_string(), |job| job.tenant = Name::from(tenant)).await
}

async fn submit(rig: &Rig, prompt: &str) -> JobId {
    submit_for(rig, "default", &payload(prompt, json!({"cache": {"ttl": "1h"}}))).await
}

async fn result(rig: &Rig, id: JobId) -> (Job, Value) {
    let row = rig.ended(id).await;
    assert_eq!(row.standing, Standing::Succeeded, "{:?}", row.error);
    let text = rig.stores.reads.result(id).await.unwrap().unwrap();
    (row, serde_json::from_slice(&text).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_is_paid_once_by_jobs_that_say_so() {
    let (oracle, store) = (Oracle::new(|_, _| Ok(())), store());
    let mut rig = rig(&oracle, &store).await;
    let (paid, first) = result(&rig, submit(&rig, "How many?").await).await;
    assert!(paid.cost.unwrap() > Nanousd(0) && first.get("cached").is_none(), "{first}");
    let (free, second) = result(&rig, submit(&rig, "How many?").await).await;
    assert_eq!((free.cost, free.usage.tokens_in), (Some(Nanousd(0)), 0));
    assert_eq!(free.served_by.as_deref(), Some("oracle/gpt-4o-mini"));
    assert_eq!((second["cached"].clone(), &second["text"]), (json!(true), &first["text"]));
    assert!(rig.stores.reads.calls(free.id).await.unwrap().is_empty());
    assert_eq!(oracle.asked().len(), 1);

    for other in [
        payload("How many?", json!({})),
        payload("How much?", json!({"cache": {"ttl": "1h"}})),
        payload("How many?", json!({"cache": {"ttl": "1h"}, "seed": 1})),
        payload("How many?", json!({"cache": {"ttl": "1h"}, "max_tokens": 9})),
    ] {
        let before = oracle.asked().len();
        result(&rig, submit_for(&rig, "default", &other).await).await;
        assert_eq!(oracle.asked().len(), before + 1, "{other}");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_share_only_what_both_call_global() {
    let (oracle, store) = (Oracle::new(|_, _| Ok(())), store());
    let mut rig = rig(&oracle, &store).await;
    let own = payload("How many?", json!({"cache": {"ttl": "1h"}}));
    let global = payload("How many?", json!({"cache": {"ttl": "1h", "scope": "global"}}));
    for (tenant, payload, calls) in
        [("a", &own, 1), ("b", &own, 2), ("a", &global, 3), ("b", &global, 3), ("b", &own, 3)]
    {
        result(&rig, submit_for(&rig, tenant, payload).await).await;
        assert_eq!(oracle.asked().len(), calls, "{tenant} {payload}");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_whole_or_not_right_is_not_kept() {
    let (oracle, store) = (Oracle::new(|_, _| Ok(())), store());
    let mut rig = rig(&oracle, &store).await;
    for finish in ["finish length", "finish length"] {
        result(&rig, submit(&rig, finish).await).await;
    }
    for finish in ["finish content_filter", "finish content_filter"] {
        assert_eq!(rig.ended(submit(&rig, finish).await).await.error.unwrap().class, ErrorClass::Filtered);
    }
    assert_eq!(oracle.asked().len(), 4);

    let with_schema = |kind: &str| {
        let schema = json!({"type": "object", "properties": {"number": {"type": kind}}});
        let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
        payload("How many?", json!({"cache": {"ttl": "1h"}, "response_format": format, "repair": 0}))
    };
    let wrong = with_schema("string").to_string();
    for _ in 0..2 {
        let id = rig.submit(Kind::Llm, &wrong, |job| job.max_attempts = 1).await;
        assert_eq!(rig.ended(id).await.error.unwrap().class, ErrorClass::InvalidOutput);
    }
    assert_eq!(oracle.asked().len(), 6, "what failed its check is asked for again");
    for _ in 0..2 {
        let (_, told) = result(&rig, submit_for(&rig, "default", &with_schema("integer")).await).await;
        assert_eq!(told["json"], json!({"number": 7}));
    }
    assert_eq!(oracle.asked().len(), 7, "what passed is kept, and read again as JSON");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_ask_the_same_at_once_make_one_call() {
    let (oracle, store) = (Oracle::held(|_, _| Ok(())), store());
    let mut rig = rig(&oracle, &store).await;
    let mut jobs = vec![];
    for _ in 0..6 {
        jobs.push(submit(&rig, "How many?").await);
    }
    for id in &jobs {
        rig.until("it runs", async || is_running(&rig, *id).await).await;
    }
    oracle.until_asked(1).await;
    oracle.release();
    let mut paid = 0;
    for id in jobs {
        let (row, told) = result(&rig, id).await;
        assert_eq!(row.cost == Some(Nanousd(0)), told["cached"] == true);
        paid += usize::from(row.cost != Some(Nanousd(0)));
    }
    assert_eq!((paid, oracle.asked().len()), (1, 1));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_takes_over_when_its_leader_is_cancelled_or_fails() {
    let fails_second = |_: &[String], number: usize| match number {
        1 => Err(CallError::unbilled(ErrorClass::BadRequest, "no", "no")),
        _ => Ok(()),
    };
    let (oracle, store) = (Oracle::held(fails_second), store());
    let mut rig = rig(&oracle, &store).await;
    let first = submit(&rig, "How many?").await;
    oracle.until_asked(1).await;
    let mut others = vec![];
    for _ in 0..3 {
        others.push(submit(&rig, "How many?").await);
    }
    for id in &others {
        rig.until("it runs", async || is_running(&rig, *id).await).await;
    }
    rig.cancel(first, None).await;
    oracle.until_asked(2).await;
    oracle.release();
    oracle.until_asked(3).await;
    oracle.release();
    let mut ends = vec![];
    for id in others {
        ends.push(rig.ended(id).await.standing);
    }
    ends.sort_by_key(|standing| *standing == Standing::Dead);
    assert_eq!(ends, [Standing::Succeeded, Standing::Succeeded, Standing::Dead], "each failure is its asker's own");
    assert_eq!(oracle.asked().len(), 3);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_one_asks() {
    let (oracle, store) = (Oracle::held(|_, _| Ok(())), store());
    let (mut one, mut other) = (rig(&oracle, &store).await, rig(&oracle, &store).await);
    let first = submit(&one, "How many?").await;
    oracle.until_asked(1).await;
    let second = submit(&other, "How many?").await;
    other.until("it runs", async || is_running(&other, second).await).await;
    oracle.release();
    result(&one, first).await;
    let (row, told) = result(&other, second).await;
    assert_eq!((row.cost, told["cached"].clone()), (Some(Nanousd(0)), json!(true)));
    assert_eq!(oracle.asked().len(), 1);
    one.stop().await;
    other.stop().await;
}

async fn is_running(rig: &Rig, id: JobId) -> bool {
    let place = rig.stores.dispatcher.locate(&[id]).await.unwrap().remove(0);
    matches!(place, Place::Leased { started_at: Some(_), .. })
}
