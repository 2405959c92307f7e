//! Fallback chains: who is asked after whom, what is kept, paid and told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::rig::Rig;
use crate::script::{Said, Script, ends, fails, says};
use queue_core::{
    breaker::{CALLS_MIN, End, Ended, ProbeId},
    dispatcher::{Setting, Wait},
    error::ErrorClass as C,
    events::EventBody,
    fallback::Link,
    ids::JobId,
    job::{Job, Kind},
    journal::{BreakerMode, TargetSettings, Versioned},
    ledger::Billed,
    limiter::{Limit, Limits, Rule},
    route::Target,
    state::Standing,
};
use serde_json::{Value, json};
use worker::provider::ChatRequest;

const FIRST: &str = "gpt-4o-mini";
const SECOND: &str = "gpt-4o";
const THIRD: &str = "gpt-4.1";

fn link(model: &str, on: &[C]) -> Link {
    Link { model: model.into(), on: on.to_vec() }
}

fn payload() -> Value {
    json!({"model": FIRST, "messages": [{"role": "user", "content": "Hi"}]})
}

async fn submit(rig: &Rig, payload: &Value, links: &[Link]) -> JobId {
    let models = [FIRST].into_iter().chain(links.iter().map(|link| link.model.as_str()));
    let lane = models.map(|model| format!("script:{model}:default")).collect::<Vec<_>>().join(">");
    let (lane, links) = (lane.as_str().into(), links.to_vec());
    rig.submit(Kind::Llm, &payload.to_string(), |job| (job.target, job.fallback) = (lane, links)).await
}

async fn run(script: &Arc<Script>, payload: Value, links: &[Link]) -> (Rig, Job, Value) {
    let mut rig = Rig::new(script.alone()).await;
    rig.work(4, Duration::from_secs(5));
    let id = submit(&rig, &payload, links).await;
    let job = rig.ended(id).await;
    let result = rig.stores.reads.result(id).await.unwrap();
    let result = result.map_or(Value::Null, |result| serde_json::from_slice(&result).unwrap());
    rig.stop().await;
    (rig, job, result)
}

type Answer = fn() -> Said;

/// By model.
fn answering(answers: Vec<(&'static str, Answer)>) -> Arc<Script> {
    let answers: BTreeMap<_, _> = answers.into_iter().collect();
    Script::new(move |request: &ChatRequest, _| answers[request.model.as_str()]())
}

fn asked(script: &Script) -> Vec<String> {
    script.asked().into_iter().map(|request| request.model).collect()
}

#[tokio::test]
async fn who_answers_is_named_priced_and_told() {
    let script = answering(vec![(FIRST, || fails(C::Rate)), (SECOND, || says("from the second"))]);
    let mut rig = Rig::new(script.alone()).await;
    let id = submit(&rig, &payload(), &[link(SECOND, &[C::Rate])]).await;
    let mut events = rig.stores.events.subscribe(id, None).await;
    rig.work(1, Duration::from_secs(5));
    let job = rig.ended(id).await;
    assert_eq!(job.standing, Standing::Succeeded);
    assert_eq!(job.served_by.as_deref(), Some("script/gpt-4o"));
    assert_eq!(asked(&script), [FIRST, SECOND]);
    let result: Value = serde_json::from_slice(&rig.stores.reads.result(id).await.unwrap().unwrap()).unwrap();
    assert_eq!((result["text"].as_str(), result["provider"].as_str()), (Some("from the second"), Some("script")));

    let calls = rig.stores.reads.calls(id).await.unwrap();
    let rows: Vec<_> =
        calls.iter().map(|call| (call.model.as_str(), call.status.as_str(), call.step.as_str(), call.billed)).collect();
    assert_eq!(rows, [(FIRST, "rate", "chat", Billed::No), (SECOND, "ok", "chat", Billed::Yes)]);
    let price = rig.around.prices.cost(SECOND, &calls[1].usage);
    assert!(price.is_some() && calls[1].cost == price, "priced by the model that served");
    assert_eq!(job.cost, price);

    let mut switched = vec![];
    while let Ok(event) = events.live.try_recv() {
        if let EventBody::ModelSwitched { step, from, to, class, attempt } = &event.body {
            switched.push((step.clone(), from.clone(), to.clone(), *class, *attempt));
        }
    }
    assert_eq!(switched, [("chat".into(), FIRST.into(), SECOND.into(), C::Rate, 1)]);
    rig.stop().await;
}

#[tokio::test]
async fn a_failure_that_is_not_named_goes_to_nobody() {
    let script = answering(vec![(FIRST, || fails(C::BadRequest)), (SECOND, || says("no"))]);
    let (_, job, _) = run(&script, payload(), &[link(SECOND, &[C::Rate, C::Server])]).await;
    assert_eq!(job.standing, Standing::Dead);
    assert_eq!(asked(&script), [FIRST]);
}

#[tokio::test]
async fn each_failure_goes_to_the_link_that_follows_it() {
    let script =
        answering(vec![(FIRST, || fails(C::Auth)), (SECOND, || says("for rates")), (THIRD, || says("for keys"))]);
    let links = [link(SECOND, &[C::Rate]), link(THIRD, &[C::Auth])];
    let (_, job, result) = run(&script, payload(), &links).await;
    assert_eq!(result["text"], "for keys");
    assert_eq!(
        (asked(&script), job.served_by.unwrap()),
        (vec![FIRST.to_owned(), THIRD.to_owned()], format!("script/{THIRD}"))
    );
}

/// What an answer says can be a reason too, where the chain says so, and is none where it does not.
#[tokio::test]
async fn answers_that_are_withheld_cut_or_formless_go_on() {
    let wants_json = json!({"response_format": {"type": "json_object"}, "repair": 1});
    let cases: [(C, Answer, Value, usize); 3] = [
        (C::Filtered, || ends("", "content_filter"), json!({}), 1),
        (C::Truncated, || ends("half an ans", "length"), json!({"on_truncated": "fail"}), 1),
        (C::InvalidOutput, || says("no JSON"), wants_json, 2),
    ];
    for (class, answer, more, calls_of_first) in cases {
        let script = answering(vec![(FIRST, answer), (SECOND, || says("{}"))]);
        let mut payload = payload();
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (rig, job, result) = run(&script, payload.clone(), &[link(SECOND, &[class])]).await;
        assert_eq!((job.standing, result["text"].as_str()), (Standing::Succeeded, Some("{}")), "{class}");
        assert_eq!(asked(&script).iter().filter(|model| *model == FIRST).count(), calls_of_first, "{class}");
        let calls = rig.stores.reads.calls(job.id).await.unwrap();
        assert!(calls.iter().all(|call| call.billed == Billed::Yes), "both were paid: {class}");

        let script = answering(vec![(FIRST, answer), (SECOND, || says("{}"))]);
        let (_, job, _) = run(&script, payload, &[link(SECOND, &[C::Auth])]).await;
        assert_eq!(job.standing, Standing::Dead, "{class}");
        assert!(!asked(&script).contains(&SECOND.to_owned()), "{class}");
    }
}

/// The next attempt finds what an earlier one was answered, whoever of the chain answered.
#[tokio::test]
async fn a_kept_answer_is_found_whichever_model_gave_it() {
    let script = Script::new(|request: &ChatRequest, tries| {
        let is_second_chunk = crate::script::message(request, 0).contains("second");
        match request.model.as_str() {
            FIRST if is_second_chunk && tries > 3 => says("B"),
            FIRST => fails(C::Server),
            _ if is_second_chunk => fails(C::Transient),
            _ => says("A"),
        }
    });
    let mut rig = Rig::new(script.alone()).await;
    rig.work(1, Duration::from_secs(5));
    let text = format!("{}\n\n{}", "first ".repeat(30), "second ".repeat(30));
    let payload = json!({
        "version": 1, "input": {"text": text},
        "defaults": {"model": FIRST, "fallback": [{"model": SECOND, "on": ["server"]}]},
        "chunk": {"size": 40, "overlap": 0}, "map": {"prompt": "{{chunk}}"}, "reduce": {"strategy": "concat"},
    });
    let id = rig.submit(Kind::Analysis, &payload.to_string(), |_| {}).await;
    let job = rig.ended(id).await;
    assert_eq!((job.standing, job.attempts), (Standing::Succeeded, 2), "{:?}", job.error);
    let result: Value = serde_json::from_slice(&rig.stores.reads.result(id).await.unwrap().unwrap()).unwrap();
    assert_eq!(result["output"], "A\n\nB");
    assert_eq!(result["served_by"], json!({"script/gpt-4o": 1, "script/gpt-4o-mini": 1}));
    let paid_twice: Vec<_> = script.times().into_iter().filter(|(_, times)| *times > 1).collect();
    let calls = rig.stores.reads.calls(id).await.unwrap();
    assert_eq!(calls.iter().filter(|call| call.billed == Billed::Yes).count(), 2, "{calls:#?}");
    let first_chunk = script.asked().into_iter().filter(|request| crate::script::message(request, 0).contains("first"));
    assert_eq!(first_chunk.map(|request| request.model).collect::<Vec<_>>(), [FIRST, SECOND], "{paid_twice:?}");
    rig.stop().await;
}

#[tokio::test]
async fn a_chain_of_failures_tells_the_one_that_leaves_most_hope() {
    let script = answering(vec![(FIRST, || fails(C::Config)), (SECOND, || fails(C::Rate)), (THIRD, || fails(C::Auth))]);
    let mut rig = Rig::new(script.alone()).await;
    rig.work(1, Duration::from_secs(5));
    let links = [link(SECOND, &[C::Config]), link(THIRD, &[C::Rate])];
    let id = submit(&rig, &payload(), &links).await;
    rig.until("a release", async || rig.row(id).await.releases > 0).await;
    let row = rig.row(id).await;
    assert_eq!((row.error.unwrap().class, row.attempts), (C::Rate, 0), "the first and the last were final");
    rig.stop().await;
}

/// Nobody waits for a breaker where somebody else may answer.
#[tokio::test]
async fn an_open_breaker_or_a_pause_sends_to_the_next_at_once() {
    let script = answering(vec![(FIRST, || says("from the first")), (SECOND, || says("from the second"))]);
    let mut rig = Rig::new(script.alone()).await;
    let first = "script:gpt-4o-mini:default";
    for _ in 0..CALLS_MIN {
        let (circuit, probe, reason) = (first.into(), ProbeId::generate(), "503".to_owned());
        rig.stores.breakers.end(Ended { circuit, probe, end: End::Failure, successes: 0, reason }).await.unwrap();
    }
    rig.work(1, Duration::from_secs(5));
    let by = async |rig: &Rig, on: &[C]| {
        let id = submit(rig, &payload(), &[link(SECOND, on)]).await;
        rig.ended(id).await.served_by.unwrap()
    };
    assert_eq!(by(&rig, &[C::Server]).await, "script/gpt-4o");
    // A lane of the first alone sleeps; the chain's does not.
    let until = rig.stores.clock.now().plus_ms(60_000);
    let park = Setting::ParkTarget { target: first.into(), until, reason: "breaker".into() };
    rig.stores.dispatcher.apply(park).await.unwrap();
    assert_eq!(by(&rig, &[C::Server]).await, "script/gpt-4o");
    let set = async |version, value: TargetSettings| {
        rig.stores.breakers.set(&first.into(), Versioned { version, value }).await.unwrap();
    };
    set(1, TargetSettings { breaker: BreakerMode::Close, ..TargetSettings::default() }).await;
    rig.until("the first is asked again", async || by(&rig, &[C::Server]).await == "script/gpt-4o-mini").await;
    set(2, TargetSettings { paused: true, ..TargetSettings::default() }).await;
    rig.until("it is paused", async || by(&rig, &[C::TransportPre]).await == "script/gpt-4o").await;
    rig.stop().await;
}

/// A chain of which nobody may be asked is given back unspent, and its lane sleeps.
#[tokio::test]
async fn a_chain_of_open_breakers_waits_without_spending() {
    let script = answering(vec![(FIRST, || says("a")), (SECOND, || says("b"))]);
    let mut rig = Rig::new(script.alone()).await;
    for model in [FIRST, SECOND] {
        let settings = TargetSettings { paused: true, ..TargetSettings::default() };
        let target = format!("script:{model}:default").as_str().into();
        rig.stores.breakers.set(&target, Versioned { version: 1, value: settings }).await.unwrap();
    }
    rig.work(1, Duration::from_secs(5));
    let id = submit(&rig, &payload(), &[link(SECOND, &[C::Server])]).await;
    rig.until("a release", async || rig.row(id).await.releases > 0).await;
    let row = rig.row(id).await;
    assert_eq!((row.attempts, row.error.as_ref().unwrap().class), (0, C::Breaker));
    assert!(script.asked().is_empty());
    assert!(row.run_at > row.accepted_at, "and it looks again later");
    // The row is written before the dispatcher hears of it, and a lane that woke is put to sleep again.
    rig.until("its lane sleeps", async || {
        let waits = format!("{:?}", rig.stores.dispatcher.explain(id).await.unwrap());
        waits.contains("TargetParked") && waits.contains("an operator has paused it")
    })
    .await;
    rig.stop().await;
}

/// A chain of which no limit has room sleeps in its lane, unspent; and what went to the second left no place in the first's line.
#[tokio::test]
async fn a_chain_without_room_sleeps_and_leaves_no_tickets_behind() {
    let script = answering(vec![(FIRST, || says("a")), (SECOND, || says("b"))]);
    // One call at once, and another after half a minute.
    let limit = Limit { requests_per_minute: Some(2), ..Limit::default() };
    let limits = Limits::new(vec![Rule { provider: "script".into(), model: "*".into(), limit: limit.clone() }]);
    let mut rig = Rig::limited(script.alone(), limits).await;
    rig.work(1, Duration::from_secs(5));
    let links = [link(SECOND, &[C::Rate])];
    for by in ["script/gpt-4o-mini", "script/gpt-4o"] {
        let id = submit(&rig, &payload(), &links).await;
        assert_eq!(rig.ended(id).await.served_by.as_deref(), Some(by));
    }
    let first = Target::parse("script:gpt-4o-mini:default").unwrap();
    assert_eq!(rig.limiter.standing(&first, &limit).await.unwrap().tickets, 0, "its call went elsewhere");
    let waits = submit(&rig, &payload(), &links).await;
    rig.until("a release", async || rig.row(waits).await.releases > 0).await;
    let row = rig.row(waits).await;
    assert_eq!((row.attempts, row.error.as_ref().unwrap().class), (0, C::Rate));
    rig.until("its lane sleeps", async || {
        let waits = rig.stores.dispatcher.explain(waits).await.unwrap();
        waits.iter().any(|wait| matches!(wait, Wait::TargetParked { .. } | Wait::TargetTried { .. }))
    })
    .await;
    rig.stop().await;
}
