//! `llm`, `embedding` and `probe` as whole jobs on real stores: what they ask, what they return, what they pay.

use std::{sync::Arc, time::Duration};

use crate::rig::Rig;
use crate::script::{Script, ends, fails, message, says, schema_of};
use queue_core::{
    error::ErrorClass,
    ids::JobId,
    job::{Job, Kind},
    ledger::{Billed, Nanousd, Usage, UsageSource},
    state::Standing,
};
use serde_json::{Value, json};
use worker::provider::{
    CallError, ChatAnswer, Provider, Providers,
    simulated::{Simulated, SimulatedConfig},
};

async fn rig(providers: Providers) -> Rig {
    let mut rig = Rig::new(providers).await;
    rig.work(4, Duration::from_secs(10));
    rig
}

fn simulated() -> Providers {
    let simulated: Arc<dyn Provider> = Arc::new(Simulated::new(SimulatedConfig::instant()));
    Providers::from([("simulated".to_owned(), simulated)])
}

async fn run(rig: &Rig, kind: Kind, payload: &Value, max_attempts: u32) -> (Job, Value) {
    let id = rig.submit(kind, &payload.to_string(), |job| job.max_attempts = max_attempts).await;
    let row = rig.ended(id).await;
    (row, result(rig, id).await)
}

async fn result(rig: &Rig, id: JobId) -> Value {
    let text = rig.stores.reads.result(id).await.unwrap();
    text.map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap())
}

fn llm(more: Value) -> Value {
    let mut payload = json!({"messages": [{"role": "user", "content": "How many?"}]});
    payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    payload
}

fn counted() -> Value {
    let count = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    json!({"response_format": schema_of(&count)})
}

fn counted_with(more: Value) -> Value {
    let mut payload = llm(counted());
    payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    payload
}

/// How a job ended: its class and whether it tried once only.
#[track_caller]
fn assert_dead(row: &Job, class: ErrorClass, attempts: u32) {
    let error = row.error.as_ref().expect("a dead job has an error");
    assert_eq!((row.standing, error.class, row.attempts), (Standing::Dead, class, attempts), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_is_one_call_and_its_text() {
    let script = Script::new(|_, _| says("Seven."));
    let mut rig = rig(script.alone()).await;
    let payload = llm(json!({"model": "large", "temperature": 0.5, "repair": 3, "extra": {"top_k": 4}}));
    let (row, result) = run(&rig, Kind::Llm, &payload, 1).await;
    assert_eq!(row.standing, Standing::Succeeded);
    let wanted = json!({"text": "Seven.", "finish": "stop", "model": "small-1", "provider": "script"});
    assert_eq!(result, wanted);
    let [asked] = script.asked().try_into().unwrap();
    assert_eq!(asked.model, "large");
    let body = json!({"messages": payload["messages"], "temperature": 0.5, "top_k": 4});
    assert_eq!(json!(asked.body), body);
    assert_eq!(rig.stores.reads.calls(row.id).await.unwrap().len(), 1);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulated_provider_says_so_in_the_result() {
    let mut rig = rig(simulated()).await;
    let (_, result) = run(&rig, Kind::Llm, &llm(counted()), 1).await;
    assert_eq!(result["provider"], "simulated");
    assert!(result["json"]["n"].is_i64(), "{result}");
    assert_eq!(serde_json::from_str::<Value>(result["text"].as_str().unwrap()).unwrap(), result["json"]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_answer_is_repaired_with_its_faults_in_hand() {
    let script = Script::new(|request, _| match request.body["messages"].as_array().unwrap().len() {
        1 => says("There are seven."),
        3 => says(r#"{"n": "seven"}"#),
        _ => says("```json\n{\"n\": 7}\n```"),
    });
    let mut rig = rig(script.alone()).await;
    let (row, result) = run(&rig, Kind::Llm, &llm(counted()), 1).await;
    assert_eq!((row.standing, row.attempts), (Standing::Succeeded, 1));
    assert_eq!(result["json"], json!({"n": 7}));
    let asked = script.asked();
    assert_eq!(asked.len(), 3);
    assert_eq!(message(&asked[1], 1), "There are seven.");
    assert!(message(&asked[1], 0).contains("it is not JSON"), "{}", message(&asked[1], 0));
    assert!(message(&asked[2], 0).contains("at `/n`"), "{}", message(&asked[2], 0));
    assert!(message(&asked[2], 0).contains("only valid JSON"));
    let calls = rig.stores.reads.calls(row.id).await.unwrap();
    let mut sequences: Vec<_> = calls.iter().map(|call| (call.step.as_str(), call.sequence, call.billed)).collect();
    sequences.sort_by_key(|(_, sequence, _)| *sequence);
    assert_eq!(sequences, [("chat", 0, Billed::Yes), ("chat", 1, Billed::Yes), ("chat", 2, Billed::Yes)]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repairs_end_and_the_error_repeats_no_value() {
    let script = Script::new(|_, _| says(r#"{"n": "a secret"}"#));
    let mut rig = rig(script.alone()).await;
    for repair in [0, 1, 2] {
        let before = script.asked().len();
        let (row, _) = run(&rig, Kind::Llm, &counted_with(json!({"repair": repair})), 1).await;
        assert_dead(&row, ErrorClass::InvalidOutput, 1);
        assert_eq!(script.asked().len() - before, repair + 1);
        let message = row.error.unwrap().message;
        assert!(message.contains("`/n` against `type`") && !message.contains("secret"), "{message}");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_attempt_keeps_the_bad_answer_and_asks_anew() {
    for repair in [0, 1] {
        let bad = repair + 1;
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let script = Script::new(move |_, _| {
            let number = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
            says(if number <= bad { "no" } else { r#"{"n": 1}"# })
        });
        let mut rig = rig(script.alone()).await;
        let (row, result) = run(&rig, Kind::Llm, &counted_with(json!({"repair": repair})), 3).await;
        assert_eq!((row.standing, row.attempts), (Standing::Succeeded, 2));
        assert_eq!(result["json"]["n"], 1);
        let times = script.times();
        assert_eq!(times.len(), bad + 1, "the first round was not asked again");
        assert!(times.values().all(|times| *times == 1), "{times:?}");
        let last = script.asked().pop().unwrap();
        assert_eq!(last.body["messages"].as_array().unwrap().len(), 1, "a new round begins at the question");
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withheld_answer_is_final_and_paid_for() {
    let script = Script::new(|request, _| match request.model.as_str() {
        "filter" => ends("", "content_filter"),
        _ => says("").map(|answer| ChatAnswer { refusal: Some("No.".into()), ..answer }),
    });
    let mut rig = rig(script.alone()).await;
    for (model, more) in [("filter", json!({})), ("refuse", json!({})), ("refuse", counted())] {
        let mut payload = llm(json!({"model": model}));
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (row, _) = run(&rig, Kind::Llm, &payload, 3).await;
        assert_dead(&row, ErrorClass::Filtered, 1);
        let calls = rig.stores.reads.calls(row.id).await.unwrap();
        assert_eq!((calls.len(), calls[0].billed), (1, Billed::Yes));
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_answer_is_kept_or_fails_as_the_job_says() {
    let script = Script::new(|request, _| match request.model.as_str() {
        "whole" => ends(r#"{"n": 1}"#, "length"),
        _ => ends(r#"{"n": "#, "length"),
    });
    let mut rig = rig(script.alone()).await;
    let (row, result) = run(&rig, Kind::Llm, &llm(json!({})), 3).await;
    assert_eq!((row.standing, &result["finish"]), (Standing::Succeeded, &json!("length")));
    let (row, _) = run(&rig, Kind::Llm, &llm(json!({"on_truncated": "fail"})), 3).await;
    assert_dead(&row, ErrorClass::Truncated, 1);
    let before = script.asked().len();
    let (row, _) = run(&rig, Kind::Llm, &llm(counted()), 3).await;
    assert_dead(&row, ErrorClass::Truncated, 1);
    assert_eq!(script.asked().len(), before + 1, "what was cut is not repaired");
    let (row, result) = run(&rig, Kind::Llm, &counted_with(json!({"model": "whole"})), 1).await;
    assert_eq!((row.standing, &result["json"]["n"]), (Standing::Succeeded, &json!(1)));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_a_tool_is_an_answer_without_json() {
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let calls = vec![call.clone()];
    let script = Script::new(move |_, _| ends("", "tool_calls").map(|a| ChatAnswer { tool_calls: calls.clone(), ..a }));
    let mut rig = rig(script.alone()).await;
    let tools = json!({"tools": [{"type": "function", "function": {"name": "f"}}]});
    let (_, result) = run(&rig, Kind::Llm, &counted_with(tools), 1).await;
    assert_eq!((&result["tool_calls"], result.get("json")), (&json!([call]), None));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_asked_for_again_where_another_value_came() {
    let script = Script::new(|request, _| {
        let first = request.body["messages"].as_array().unwrap().len() == 1;
        says(if first { "[7]" } else { r#"{"any": 7}"# })
    });
    let mut rig = rig(script.alone()).await;
    let payload = llm(json!({"response_format": {"type": "json_object"}}));
    let (_, result) = run(&rig, Kind::Llm, &payload, 1).await;
    assert_eq!((&result["json"], script.asked().len()), (&json!({"any": 7}), 2));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_of_the_provider_is_left_to_the_queue() {
    let script = Script::new(|_, tries| if tries == 1 { fails(ErrorClass::Server) } else { says("Seven.") });
    let mut rig = rig(script.alone()).await;
    let (row, _) = run(&rig, Kind::Llm, &llm(json!({})), 2).await;
    assert_eq!((row.standing, row.attempts), (Standing::Succeeded, 2));
    let attempts = rig.stores.reads.attempts(row.id).await.unwrap();
    assert_eq!(attempts[0].error.as_ref().unwrap().class, ErrorClass::Server);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_row_says_who_counted_its_tokens() {
    let told = Usage { tokens_in: 70, tokens_out: 9, ..Usage::default() };
    let broken = |usage| CallError::costly(ErrorClass::InvalidOutput, "scripted", "broken", Billed::Maybe, usage);
    let script = Script::new(move |request, _| match request.model.as_str() {
        "counted" => says("Seven."),
        "uncounted" => says("Seven.").map(|answer| ChatAnswer { usage: None, ..answer }),
        "refused" => fails(ErrorClass::Auth),
        "broken-told" => Err(broken(None).told(told)),
        "broken-arrived" => Err(broken(Some(told))),
        _ => Err(broken(None)),
    });
    let mut rig = rig(script.alone()).await;
    // Nine bytes of question are three tokens for a model that nobody knows, and a message costs eight more.
    for (model, billed, source, tokens) in [
        ("counted", Billed::Yes, UsageSource::Provider, (1, 1)),
        ("uncounted", Billed::Yes, UsageSource::Estimated, (11, 2)),
        ("refused", Billed::No, UsageSource::Provider, (0, 0)),
        ("broken-told", Billed::Maybe, UsageSource::Provider, (70, 9)),
        ("broken-arrived", Billed::Maybe, UsageSource::Estimated, (70, 9)),
        ("broken", Billed::Maybe, UsageSource::Estimated, (11, 0)),
    ] {
        let (row, _) = run(&rig, Kind::Llm, &llm(json!({"model": model})), 1).await;
        let call = rig.stores.reads.calls(row.id).await.unwrap().remove(0);
        let seen = (call.billed, call.usage_source, (call.usage.tokens_in, call.usage.tokens_out));
        assert_eq!(seen, (billed, source, tokens), "{model}");
        assert_eq!(call.cost == Some(Nanousd(0)), billed == Billed::No, "{model}: what was not billed costs nothing");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vectors_come_in_the_order_of_the_inputs() {
    let script = Script::new(|_, _| fails(ErrorClass::Internal));
    let mut rig = rig(script.alone()).await;
    let input: Vec<String> = (1..=2_048).map(|length| "x".repeat(length)).collect();
    let (row, result) = run(&rig, Kind::Embedding, &json!({"input": input}), 1).await;
    assert_eq!(row.standing, Standing::Succeeded);
    assert_eq!((&result["dimensions"], &result["provider"]), (&json!(2), &json!("script")));
    let vectors = result["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 2_048);
    for (at, vector) in vectors.iter().enumerate() {
        assert_eq!(vector, &json!([(at + 1) as f64, 0.5]));
    }
    // 700,000 tokens, of which providers take some 300,000 in a request.
    assert_eq!(script.embedded().len(), 3, "no more calls than it needs");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vectors_keep_every_bit_and_the_asked_length() {
    let mut rig = rig(simulated()).await;
    let (_, result) = run(&rig, Kind::Embedding, &json!({"input": "one", "dimensions": 16}), 1).await;
    assert_eq!((&result["dimensions"], &result["provider"]), (&json!(16), &json!("simulated")));
    let vector: Vec<f32> = serde_json::from_value(result["vectors"][0].clone()).unwrap();
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    assert!((length - 1.0).abs() < 1e-5, "{length}");
    let (_, again) = run(&rig, Kind::Embedding, &json!({"input": ["one"], "dimensions": 16}), 1).await;
    assert_eq!(again["vectors"], result["vectors"]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vectors_that_cannot_be_right_fail_the_job() {
    let script = Script::with_vectors(
        |_, _| fails(ErrorClass::Internal),
        |input| match input[0].as_str() {
            "none" => vec![],
            "uneven" => vec![vec![1.0], vec![1.0, 2.0]],
            _ => vec![vec![f32::NAN], vec![1.0]],
        },
    );
    let mut rig = rig(script.alone()).await;
    for first in ["none", "uneven", "nan"] {
        let (row, _) = run(&rig, Kind::Embedding, &json!({"input": [first, "b"]}), 1).await;
        assert_dead(&row, ErrorClass::InvalidOutput, 1);
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_does_what_it_is_told() {
    let mut rig = rig(Providers::new()).await;
    let payload = json!({"sleep_ms": 5, "pad": "äb", "result_bytes": 1_000});
    let (_, result) = run(&rig, Kind::Probe, &payload, 1).await;
    assert_eq!((&result["slept_ms"], &result["pad_bytes"]), (&json!(5), &json!(3)));
    assert_eq!(result["data"].as_str().unwrap().len(), 1_000);
    let (row, _) = run(&rig, Kind::Probe, &json!({"fail": "panic"}), 2).await;
    assert_dead(&row, ErrorClass::Panic, 2);
    let (row, _) = run(&rig, Kind::Probe, &json!({"fail": "permanent", "fail_times": 0}), 2).await;
    assert_eq!((row.standing, row.attempts), (Standing::Succeeded, 1));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_does_not_read_is_a_final_error() {
    let mut rig = rig(simulated()).await;
    // Jobs of handlers of one's own are left to workers that have some.
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Custom) {
        let id = rig.submit(kind, r#"{"nonsense": [1, {"#, |_| {}).await;
        let row = rig.ended(id).await;
        assert_dead(&row, ErrorClass::BadRequest, 1);
    }
    rig.stop().await;
}
