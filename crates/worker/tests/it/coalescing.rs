//! Embedding jobs that travel together: one call for many, each with its own vectors, its own share of the price and its own
//! fate; and what is in the cache is not asked for.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::rig::Rig;
use crate::vectors::{Oracle, vector};
use queue_core::{
    cache::{Scope, memory::MemoryCache},
    dispatcher::Place,
    error::ErrorClass,
    ids::{JobId, Name},
    job::Kind,
    ledger::{Billed, CallRecord, Nanousd, UsageSource},
    state::Standing,
    time::SystemClock,
};
use serde_json::{Value, json};
use testkit::{Behaviour, MockProvider, Vectors};
use worker::{
    caches::{Caches, VECTORS_TTL},
    coalesce::{Coalescer, Coalescing},
    provider::{CallError, Providers},
};

const MODEL: &str = "text-embedding-3-small";
/// No test waits so long for company: a call goes out because it is full.
const LONG: Duration = Duration::from_secs(60);

fn full_at(inputs_max: usize) -> Coalescing {
    Coalescing { inputs_max, wait: LONG, ..Coalescing::default() }
}

async fn rig_of(providers: Providers, settings: Coalescing, caches: Option<Caches>) -> Rig {
    let mut rig = Rig::new(providers).await;
    rig.around.coalescer = Arc::new(Coalescer::new(settings, BTreeMap::new()));
    if let Some(caches) = caches {
        rig.around.caches = Arc::new(caches);
    }
    rig.work(100, Duration::from_secs(5));
    rig
}

async fn rig(oracle: &Arc<Oracle>, settings: Coalescing) -> Rig {
    rig_of(oracle.alone(), settings, None).await
}

fn caches(scope: Scope) -> Option<Caches> {
    let store = MemoryCache::new(Arc::new(SystemClock), 64 * 1024 * 1024);
    Some(Caches::new(Arc::new(store), scope, Some(VECTORS_TTL)))
}

async fn submit_for(rig: &Rig, tenant: &str, input: &[&str]) -> JobId {
    let payload = json!({"model": MODEL, "input": input}).to_string();
    rig.submit(Kind::Embedding, &payload, |job| job.tenant = Name::from(tenant)).await
}

async fn submit(rig: &Rig, input: &[&str]) -> JobId {
    submit_for(rig, "default", input).await
}

async fn submit_each(rig: &Rig, inputs: impl Iterator<Item = String>) -> Vec<(JobId, String)> {
    let mut jobs = vec![];
    for text in inputs {
        jobs.push((submit(rig, &[&text]).await, text));
    }
    jobs
}

/// The vectors of a job that must succeed.
async fn result(rig: &Rig, id: JobId) -> Vec<Vec<f32>> {
    let row = rig.ended(id).await;
    assert_eq!(row.standing, Standing::Succeeded, "{:?}", row.error);
    let text = rig.stores.reads.result(id).await.unwrap().unwrap();
    let result: Value = serde_json::from_slice(&text).unwrap();
    serde_json::from_value(result["vectors"].clone()).unwrap()
}

async fn calls(rig: &Rig, id: JobId) -> Vec<CallRecord> {
    rig.stores.reads.calls(id).await.unwrap()
}

fn sum(rows: &[CallRecord]) -> (u64, i64) {
    let cost = |row: &CallRecord| row.cost.unwrap_or_else(|| panic!("its price is known: {row:?}")).0;
    (rows.iter().map(|row| row.usage.tokens_in).sum(), rows.iter().map(cost).sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_share_a_call_and_its_price_to_the_last_unit() {
    let oracle = Oracle::new(|_, _| Ok(()));
    let mut rig = rig(&oracle, full_at(7)).await;
    let jobs = submit_each(&rig, (1..=7).map(|number| "word ".repeat(number * number))).await;
    let mut rows = vec![];
    for (id, text) in &jobs {
        assert_eq!(result(&rig, *id).await, [vector(text)], "each has its own");
        let [row] = &calls(&rig, *id).await[..] else { panic!("one row") };
        assert_eq!((row.step.as_str(), row.status.as_str(), row.billed), ("embed", "ok", Billed::Yes));
        assert_eq!(row.usage_source, UsageSource::Provider);
        rows.push(row.clone());
    }
    let asked = oracle.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    // 1,001 tokens at $0.02 a million: 20,020 nano-USD, whatever the shares.
    assert_eq!(sum(&rows), (Oracle::TOKENS, 20_020));
    assert!(rows.iter().all(|row| row.provider_request_id.as_deref() == Some(&asked[0].0.to_string())), "{rows:?}");
    let share = |text: usize| rows[text - 1].usage.tokens_in;
    assert!(share(7) > 5 * share(2) && share(2) > 0, "by what each brought");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vectors_are_matched_by_index_and_base64_is_read() {
    let mock = MockProvider::start().await;
    let providers = || Providers::from([("mock".to_owned(), Arc::new(crate::asking::openai(&mock)) as _)]);
    let mut alone = rig_of(providers(), Coalescing::alone(), None).await;
    let texts: Vec<String> = (0..20).map(|number| format!("text {number}")).collect();
    let mut expected = vec![];
    for (id, _) in submit_each(&alone, texts.iter().cloned()).await {
        expected.push(result(&alone, id).await);
    }
    alone.stop().await;
    assert_eq!(mock.calls().len(), 20);

    mock.script([Behaviour::Vectors(Vectors::Shuffled)]);
    let mut rig = rig_of(providers(), full_at(20), None).await;
    let jobs = submit_each(&rig, texts.into_iter()).await;
    for ((id, _), expected) in jobs.iter().zip(&expected) {
        assert_eq!(&result(&rig, *id).await, expected);
    }
    let calls_after = mock.calls();
    assert_eq!(calls_after.len(), 21, "one call for all of them");
    let id = calls_after[20].call_id.clone().unwrap();
    let [row] = &calls(&rig, jobs[0].0).await[..] else { panic!("one row") };
    assert_ne!(id, row.call_id.to_string(), "a call for several is nobody's own");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_input_fails_alone() {
    let refuses = |input: &[String], _: usize| match input.iter().any(|text| text == "bad 11") {
        true => Err(CallError::unbilled(ErrorClass::BadRequest, "bad_input", "no")),
        false => Ok(()),
    };
    let oracle = Oracle::new(refuses);
    let mut rig = rig(&oracle, full_at(32)).await;
    let name = |number: usize| if number == 11 { "bad 11".to_owned() } else { format!("good {number}") };
    let jobs = submit_each(&rig, (0..32).map(name)).await;
    for (number, (id, text)) in jobs.iter().enumerate() {
        if number == 11 {
            let row = rig.ended(*id).await;
            assert_eq!((row.standing, row.attempts), (Standing::Dead, 1));
            let [call] = &calls(&rig, *id).await[..] else { panic!("one row") };
            assert_eq!((call.status.as_str(), call.billed, call.cost), ("bad_request", Billed::No, Some(Nanousd(0))));
        } else {
            assert_eq!(result(&rig, *id).await, [vector(text)]);
            assert_eq!((calls(&rig, *id).await.len(), rig.row(*id).await.attempts), (1, 1));
        }
    }
    let asked = oracle.asked();
    assert!(asked.len() <= 1 + 2 * 5, "{} calls for 32 jobs", asked.len());
    assert_eq!(asked.iter().filter(|(_, input)| input[..] == ["bad 11"]).count(), 1, "asked for alone once");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_of_the_provider_costs_each_job_one_attempt_and_one_try() {
    let fails_once = |_: &[String], number: usize| match number {
        0 => Err(CallError::unbilled(ErrorClass::Server, "503", "no")),
        _ => Ok(()),
    };
    let oracle = Oracle::new(fails_once);
    let mut rig = rig(&oracle, full_at(4)).await;
    let jobs = submit_each(&rig, (0..4).map(|number| format!("text {number}"))).await;
    for (id, text) in &jobs {
        assert_eq!(result(&rig, *id).await, [vector(text)]);
        let told: Vec<_> = calls(&rig, *id).await.iter().map(|call| (call.status.clone(), call.billed)).collect();
        assert_eq!(told, [("server".to_owned(), Billed::No), ("ok".to_owned(), Billed::Yes)]);
        assert_eq!(rig.row(*id).await.attempts, 2);
    }
    let asked: Vec<_> = oracle.asked().iter().map(|(_, input)| input.len()).collect();
    assert_eq!(asked, [4, 4], "the whole call is tried again, once, and not in halves");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_for_speed_costs_no_attempt() {
    let told_off = |_: &[String], number: usize| match number {
        0 => {
            let mut failure = CallError::unbilled(ErrorClass::Rate, "rate_limit_exceeded", "slower");
            failure.error.retry_after_ms = Some(10);
            Err(failure)
        }
        _ => Ok(()),
    };
    let oracle = Oracle::new(told_off);
    let mut rig = rig(&oracle, full_at(4)).await;
    let jobs = submit_each(&rig, (0..4).map(|number| format!("text {number}"))).await;
    for (id, text) in &jobs {
        assert_eq!(result(&rig, *id).await, [vector(text)]);
        assert_eq!(rig.row(*id).await.attempts, 1, "only the one that went well");
    }
    assert_eq!(oracle.asked().len(), 2);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_for_a_failed_call_is_shared_too() {
    let fails_dearly = |_: &[String], number: usize| match number {
        0 => Err(CallError::costly(ErrorClass::Timeout, "total_timeout", "late", Billed::Maybe, None)),
        _ => Ok(()),
    };
    let oracle = Oracle::new(fails_dearly);
    let mut rig = rig(&oracle, full_at(3)).await;
    let jobs = submit_each(&rig, (0..3).map(|number| format!("some words and a number: {number}"))).await;
    rig.until("the call has failed", async || {
        let mut rows = vec![];
        for (id, _) in &jobs {
            rows.extend(calls(&rig, *id).await);
        }
        if rows.len() < 3 {
            return false;
        }
        let first: Vec<_> = rows.iter().filter(|row| row.status == "timeout").cloned().collect();
        assert!(first.iter().all(|row| row.billed == Billed::Maybe && row.usage_source == UsageSource::Estimated));
        let (tokens, cost) = sum(&first);
        // Counted as one call, and rounded up once.
        assert_eq!(cost, (tokens as i64 * 20_000_i64).div_euclid(1_000) + i64::from(tokens * 20_000 % 1_000 != 0));
        true
    })
    .await;
    rig.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_drops_out_of_a_call_that_was_not_sent() {
    let oracle = Oracle::new(|_, _| Ok(()));
    // Jobs join in any order: a call is full with the one that goes among its three, and whoever is left waits for its time.
    let mut rig = rig(&oracle, Coalescing { wait: Duration::from_secs(1), ..full_at(3) }).await;
    let stays = submit(&rig, &["stays"]).await;
    let goes = submit(&rig, &["goes"]).await;
    cancel(&rig, goes).await;
    for text in ["comes", "comes too"] {
        submit(&rig, &[text]).await;
    }
    assert_eq!(result(&rig, stays).await, [vector("stays")]);
    let asked = oracle.asked();
    assert!(asked.iter().all(|(_, input)| !input.contains(&"goes".to_owned())), "{asked:?}");
    assert!(calls(&rig, goes).await.is_empty(), "and it costs nothing");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_cancelled_after_its_call_was_sent_pays_its_share_and_stops_nobody() {
    let oracle = Oracle::held(|_, _| Ok(()));
    let mut rig = rig(&oracle, full_at(2)).await;
    let (stays, goes) = (submit(&rig, &["stays"]).await, submit(&rig, &["goes"]).await);
    oracle.until_asked(1).await;
    cancel(&rig, goes).await;
    oracle.release();
    assert_eq!(result(&rig, stays).await, [vector("stays")]);
    rig.until("its share is written down", async || calls(&rig, goes).await.len() == 1).await;
    let rows = [calls(&rig, stays).await, calls(&rig, goes).await].concat();
    assert_eq!(sum(&rows), (Oracle::TOKENS, 20_020));
    assert_eq!(rig.row(goes).await.standing, Standing::Cancelled);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nobody_is_left_the_call_is_dropped() {
    let oracle = Oracle::held(|_, _| Ok(()));
    let mut rig = rig(&oracle, full_at(2)).await;
    let jobs = [submit(&rig, &["one"]).await, submit(&rig, &["other"]).await];
    oracle.until_asked(1).await;
    for id in jobs {
        cancel(&rig, id).await;
    }
    for id in jobs {
        rig.until("it is written down", async || calls(&rig, id).await.len() == 1).await;
        assert_eq!(calls(&rig, id).await[0].billed, Billed::Maybe);
    }
    rig.stop().await;
}

async fn cancel(rig: &Rig, id: JobId) {
    rig.until("it runs", async || {
        matches!(rig.stores.dispatcher.locate(&[id]).await.unwrap()[0], Place::Leased { started_at: Some(_), .. })
    })
    .await;
    rig.cancel(id, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_many_inputs_makes_calls_that_fit_and_keeps_their_order() {
    let oracle = Oracle::new(|_, _| Ok(()));
    let mut rig = rig(&oracle, full_at(10)).await;
    let texts: Vec<String> = (0..30).map(|number| format!("text {number}")).collect();
    let id = submit(&rig, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let expected: Vec<_> = texts.iter().map(|text| vector(text)).collect();
    assert_eq!(result(&rig, id).await, expected);
    let mut steps: Vec<_> = calls(&rig, id).await.into_iter().map(|call| call.step).collect();
    steps.sort();
    assert_eq!(steps, ["embed/part0000", "embed/part0001", "embed/part0002"]);
    assert!(oracle.asked().iter().all(|(_, input)| input.len() == 10));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_vectors_of_another_length_are_asked_for_again() {
    let oracle = Oracle::new(|_, _| Ok(()));
    let mut rig = rig_of(oracle.alone(), Coalescing::alone(), caches(Scope::Tenant)).await;
    let old = submit(&rig, &["a"]).await;
    assert_eq!(result(&rig, old).await, [vector("a")]);
    oracle.make_longer();
    let mixed = submit(&rig, &["a", "b"]).await;
    let longer = |text| [vector(text), vec![0.5]].concat();
    assert_eq!(result(&rig, mixed).await, [longer("a"), longer("b")]);
    let asked: Vec<_> = oracle.asked().into_iter().map(|(_, input)| input.concat()).collect();
    assert_eq!(asked, ["a", "b", "ab"]);
    assert_eq!(sum(&calls(&rig, mixed).await).0, 2 * Oracle::TOKENS, "both calls are in the ledger");
    let again = submit(&rig, &["b", "a"]).await;
    assert_eq!(result(&rig, again).await, [longer("b"), longer("a")]);
    assert_eq!(oracle.asked().len(), 3, "and what is kept now fits");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_fails_does_not_throw_away_what_the_others_pay_for() {
    let fails = |_: &[String], number| match number {
        0 => Err(CallError::unbilled(ErrorClass::Server, "500", "it failed")),
        _ => Ok(()),
    };
    let oracle = Oracle::held(fails);
    let mut rig = rig(&oracle, full_at(1)).await;
    let id = submit(&rig, &["a", "b"]).await;
    oracle.until_asked(2).await;
    // The first fails while the second is on its way; that one is answered, and only the first is asked for again.
    for _ in 0..2 {
        oracle.release();
    }
    oracle.until_asked(3).await;
    oracle.release();
    assert_eq!(result(&rig, id).await, [vector("a"), vector("b")]);
    assert_eq!(oracle.asked().len(), 3);
    let billed = calls(&rig, id).await.iter().map(|row| row.billed).filter(|billed| *billed != Billed::No).count();
    assert_eq!(billed, 2);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_several_ask_for_at_once_is_asked_for_once() {
    let oracle = Oracle::new(|_, _| Ok(()));
    let mut rig = rig(&oracle, full_at(3)).await;
    let jobs = [submit(&rig, &["same"]).await, submit(&rig, &["same"]).await, submit(&rig, &["same"]).await];
    let mut rows = vec![];
    for id in jobs {
        assert_eq!(result(&rig, id).await, [vector("same")]);
        rows.extend(calls(&rig, id).await);
    }
    let asked = oracle.asked();
    assert_eq!(asked.iter().map(|(_, input)| input.clone()).collect::<Vec<_>>(), [["same"]]);
    assert_eq!(sum(&rows), (Oracle::TOKENS, 20_020));
    assert_eq!(rows.iter().filter(|row| row.usage.tokens_in > 0).count(), 1, "the first pays");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_makes_no_calls_and_only_what_is_missing_is_asked_for() {
    let oracle = Oracle::new(|_, _| Ok(()));
    let mut rig = rig_of(oracle.alone(), Coalescing::alone(), caches(Scope::Tenant)).await;
    let jobs = submit_each(&rig, (0..20).map(|number| format!("text {number}"))).await;
    for (id, text) in &jobs {
        assert_eq!(result(&rig, *id).await, [vector(text)]);
    }
    assert_eq!(oracle.asked().len(), 20);
    // What an answer is kept by is a task of its own, so the last may be on its way.
    rig.until("all are kept", async || {
        let before = oracle.asked().len();
        let again = submit_each(&rig, (0..20).map(|number| format!("text {number}"))).await;
        for (id, text) in &again {
            assert_eq!(result(&rig, *id).await, [vector(text)]);
        }
        let row = rig.row(again[0].0).await;
        oracle.asked().len() == before
            && calls(&rig, again[0].0).await.is_empty()
            && row.cost == Some(Nanousd(0))
            && row.served_by.as_deref() == Some("oracle/text-embedding-3-small")
    })
    .await;

    let mixed = submit(&rig, &["text 3", "new", "text 4", "newer"]).await;
    assert_eq!(result(&rig, mixed).await, ["text 3", "new", "text 4", "newer"].map(vector));
    assert_eq!(oracle.asked().last().unwrap().1, ["new", "newer"]);

    let before = oracle.asked().len();
    let other = submit_for(&rig, "another", &["text 3"]).await;
    assert_eq!(result(&rig, other).await, [vector("text 3")]);
    assert_eq!(oracle.asked().len(), before + 1, "a tenant finds what it paid for itself");
    rig.stop().await;
}

/// Also where they do not travel together: while one call is under way, jobs that want the very same texts wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_texts_at_once_are_asked_for_once_and_by_another_if_the_first_gives_up() {
    let oracle = Oracle::held(|_, _| Ok(()));
    let mut rig = rig_of(oracle.alone(), Coalescing::alone(), caches(Scope::Tenant)).await;
    let texts = ["same", "and the same"];
    let first = submit(&rig, &texts).await;
    oracle.until_asked(1).await;
    let mut jobs = vec![];
    for _ in 0..5 {
        jobs.push(submit(&rig, &texts).await);
    }
    let other = submit(&rig, &["same"]).await;
    oracle.until_asked(2).await;
    assert_eq!(oracle.asked()[1].1, ["same"], "another question");
    cancel(&rig, first).await;
    oracle.until_asked(3).await;
    assert_eq!(oracle.asked()[2].1, texts, "one of those who waited asks");
    oracle.release();
    oracle.release();
    oracle.release();
    for id in &jobs {
        assert_eq!(result(&rig, *id).await, texts.map(vector));
    }
    assert_eq!(result(&rig, other).await, [vector("same")]);
    let mut paid = 0;
    for id in jobs {
        paid += calls(&rig, id).await.len();
    }
    assert_eq!((paid, oracle.asked().len()), (1, 3));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_several_calls_is_kept_before_the_job_settles() {
    let oracle = Oracle::new(|_, _| Ok(()));
    let mut rig = rig(&oracle, full_at(10)).await;
    let texts: Vec<String> = (0..20).map(|number| format!("text {number}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let id = submit(&rig, &texts).await;
    result(&rig, id).await;
    let memos = rig.stores.journal.memos(id).await.unwrap();
    assert_eq!(memos.len(), 2);
    assert_eq!(oracle.asked().len(), 2);
    rig.stop().await;
}
