//! The built-in provider: deterministic, honest about itself, and at fault when told.

use std::time::Duration;

use crate::asking::{LONG, call_id, chat, chat_until, embed, embed_request};
use queue_core::{error::ErrorClass as C, ids::CallId, ledger::Billed};
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use worker::provider::{
    Call, CallError, ChatAnswer, ChatRequest, EmbedRequest, Provider,
    simulated::{Simulated, SimulatedConfig},
};

fn instant() -> Simulated {
    Simulated::new(SimulatedConfig::instant())
}

fn request(prompt: &str, more: Value) -> ChatRequest {
    let mut body = Map::new();
    body.insert("messages".into(), json!([{"role": "system", "content": "s"}, {"role": "user", "content": prompt}]));
    if let Value::Object(more) = more {
        body.extend(more);
    }
    ChatRequest { model: "simulated-chat".into(), body }
}

async fn ask(provider: &Simulated, id: CallId, request: &ChatRequest) -> Result<ChatAnswer, CallError> {
    let call = Call { id, cancel: CancellationToken::new(), total: LONG, key: None, on_text: &|_| {} };
    provider.chat(request, call).await
}

#[tokio::test]
async fn equal_requests_have_equal_answers_that_say_what_they_are() {
    let (answer, told) = chat(&instant(), &request("Hello", json!({}))).await;
    let answer = answer.unwrap();
    assert!(answer.text.starts_with("[simulated] "), "{}", answer.text);
    assert_eq!(told.concat(), answer.text);
    assert!(told.len() > 10);
    assert_eq!(answer.finish, "stop");
    let usage = answer.usage.unwrap();
    assert!(usage.tokens_in > 16 && usage.tokens_out > 10, "{usage:?}");

    let again = chat(&instant(), &request("Hello", json!({}))).await.0.unwrap();
    assert_eq!(again.text, answer.text);
    let other = chat(&instant(), &request("Hello!", json!({}))).await.0.unwrap();
    assert_ne!(other.text, answer.text);
    let seeded = Simulated::new(SimulatedConfig { seed: 1, ..SimulatedConfig::instant() });
    assert_ne!(chat(&seeded, &request("Hello", json!({}))).await.0.unwrap().text, answer.text);
}

#[tokio::test]
async fn an_answer_keeps_to_its_token_limit() {
    for limit in [1, 6, 10] {
        let answer = chat(&instant(), &request("Hello", json!({"max_tokens": limit}))).await.0.unwrap();
        assert!(answer.text.starts_with("[simulated]"));
        assert!(answer.usage.unwrap().tokens_out <= limit.max(4), "{limit}: {}", answer.text);
    }
}

#[tokio::test]
async fn json_fits_its_schema() {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["summary", "claims", "score", "lang"],
        "properties": {
            "summary": {"type": "string"},
            "score": {"type": "number", "minimum": 0, "maximum": 1},
            "lang": {"enum": ["de", "en"]},
            "claims": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/claim"}}},
        "$defs": {"claim": {"type": "object", "required": ["text", "page"], "additionalProperties": false,
                            "properties": {"text": {"type": "string"}, "page": {"type": ["integer", "null"], "minimum": 1}}}}
    });
    let format = json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}}});
    let answer = chat(&instant(), &request("Summarise", format)).await.0.unwrap();
    let value: Value = serde_json::from_str(&answer.text).unwrap();
    assert!(jsonschema::is_valid(&schema, &value), "{value}");
    assert!(value["summary"].as_str().unwrap().starts_with("simulated "), "{value}");
    let object = json!({"response_format": {"type": "json_object"}});
    let answer = chat(&instant(), &request("Summarise", object)).await.0.unwrap();
    assert!(serde_json::from_str::<Value>(&answer.text).unwrap().is_object());
}

#[tokio::test]
async fn a_forced_tool_is_called_with_fitting_arguments() {
    let parameters =
        json!({"type": "object", "required": ["depth"], "properties": {"depth": {"type": "integer", "minimum": 3}}});
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    let named = json!({"type": "function", "function": {"name": "dive"}});
    let forced = json!({"tools": [tool("swim"), tool("dive")], "tool_choice": named});
    let answer = chat(&instant(), &request("Go", forced)).await.0.unwrap();
    assert_eq!(answer.finish, "tool_calls");
    assert_eq!(answer.tool_calls[0]["function"]["name"], "dive");
    let arguments: Value =
        serde_json::from_str(answer.tool_calls[0]["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(jsonschema::is_valid(&parameters, &arguments), "{arguments}");
    let free = json!({"tools": [tool("swim")], "tool_choice": "auto"});
    assert_eq!(chat(&instant(), &request("Go", free)).await.0.unwrap().finish, "stop");
}

#[tokio::test(start_paused = true)]
async fn the_pace_is_the_configured_one() {
    let config = SimulatedConfig {
        first_token: Duration::from_millis(300),
        tokens_per_second: 10,
        ..SimulatedConfig::default()
    };
    let provider = Simulated::new(config);
    let began = Instant::now();
    let (answer, told) = chat(&provider, &request("Hello", json!({}))).await;
    let answer = answer.unwrap();
    assert_eq!(answer.first_token_ms, Some(300));
    let expected = Duration::from_millis(300 + 100 * (told.len() as u64 - 1));
    let took = began.elapsed();
    assert!(took >= expected && took <= expected + Duration::from_millis(10), "{took:?} for {} tokens", told.len());
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_when_its_time_or_its_caller_says() {
    let slow = Simulated::new(SimulatedConfig { tokens_per_second: 2, ..SimulatedConfig::default() });
    let total = Duration::from_secs(3);
    let (late, told) = chat_until(&slow, &request("Hello", json!({})), CancellationToken::new(), total).await;
    let late = late.unwrap_err();
    assert_eq!((late.error.class, late.billed), (C::Timeout, Billed::Maybe));
    assert!((4..8).contains(&told.len()) && late.usage.unwrap().tokens_out >= 4, "{told:?} {late:?}");

    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let on_text = move |_: &str| token.cancel();
    let call = Call { id: call_id(1), cancel, total: LONG, key: None, on_text: &on_text };
    let stopped = slow.chat(&request("Hello", json!({})), call).await.unwrap_err();
    assert_eq!((stopped.error.code.as_str(), stopped.billed), ("cancelled", Billed::Maybe));
    assert!(stopped.usage.unwrap().tokens_out < 8);
}

#[tokio::test]
async fn faults_by_model_have_their_classes() {
    let cases = [
        ("rate", C::Rate, Billed::No),
        ("server", C::Server, Billed::No),
        ("auth", C::Auth, Billed::No),
        ("quota", C::Quota, Billed::No),
        ("overflow", C::Overflow, Billed::No),
        ("cut", C::StreamBroken, Billed::Maybe),
    ];
    for (word, class, billed) in cases {
        let request = ChatRequest { model: format!("simulated-chat!{word}"), ..request("Hello", json!({})) };
        let failure = chat(&instant(), &request).await.0.unwrap_err();
        assert_eq!((failure.error.class, failure.billed), (class, billed), "{word}");
        assert_eq!(failure.usage.is_some(), billed != Billed::No, "{word}");
    }
    let of = |word: &str| ChatRequest { model: format!("simulated-chat!{word}"), ..request("Hello", json!({})) };
    assert_eq!(chat(&instant(), &of("length")).await.0.unwrap().finish, "length");
    assert_eq!(chat(&instant(), &of("filter")).await.0.unwrap().finish, "content_filter");
    assert!(chat(&instant(), &of("refuse")).await.0.unwrap().refusal.is_some());
    let invalid = chat(&instant(), &of("invalid")).await.0.unwrap();
    assert!(serde_json::from_str::<Value>(&invalid.text).is_err());
    let never = chat_until(&instant(), &of("timeout"), CancellationToken::new(), Duration::from_millis(20)).await.0;
    assert_eq!(never.unwrap_err().error.class, C::Timeout);
}

#[tokio::test]
async fn a_mark_in_the_prompt_fails_so_many_tries_of_each_call() {
    let provider = instant();
    let marked = request("Please [[fault:server:2]] do", json!({}));
    for id in [call_id(1), call_id(2)] {
        let outcomes = [ask(&provider, id, &marked).await, ask(&provider, id, &marked).await];
        assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(|failure| failure.error.class == C::Server)));
        assert!(ask(&provider, id, &marked).await.is_ok());
    }
    let earlier =
        json!({"messages": [{"role": "user", "content": "[[fault:server]]"}, {"role": "user", "content": "go on"}]});
    assert!(chat(&provider, &request("", earlier)).await.0.is_ok(), "only the last message of the user counts");
}

#[tokio::test]
async fn vectors_are_of_length_one_and_depend_on_their_text() {
    let provider = instant();
    let answer = embed(&provider, &embed_request(&["a", "b", "a"])).await.unwrap();
    assert_eq!(answer.vectors[0], answer.vectors[2]);
    assert_ne!(answer.vectors[0], answer.vectors[1]);
    for vector in &answer.vectors {
        let length = vector.iter().map(|number| number * number).sum::<f32>();
        assert!(vector.len() == 384 && (length - 1.0).abs() < 1e-5, "{length}");
    }
    assert_eq!(embed(&instant(), &embed_request(&["b"])).await.unwrap().vectors[0], answer.vectors[1]);
    let of = |dimensions| EmbedRequest { dimensions: Some(dimensions), ..embed_request(&["a"]) };
    assert_eq!(embed(&provider, &of(8)).await.unwrap().vectors[0].len(), 8);
    for (request, class) in [
        (of(0), C::BadRequest),
        (of(1_000_000), C::BadRequest),
        (embed_request(&[]), C::BadRequest),
        (embed_request(&[""]), C::BadRequest),
        (embed_request(&["a"; 2_049]), C::BatchSplit),
    ] {
        assert_eq!(embed(&provider, &request).await.unwrap_err().error.class, class);
    }
    let faulty = EmbedRequest { model: "simulated-embedding!rate".into(), ..embed_request(&["a"]) };
    assert_eq!(embed(&provider, &faulty).await.unwrap_err().error.class, C::Rate);
    let marked = embed_request(&["a", "[[fault:invalid:1]]"]);
    let failure = embed(&provider, &marked).await.unwrap_err();
    assert_eq!((failure.error.class, failure.billed), (C::InvalidOutput, Billed::Yes));
    assert!(embed(&provider, &marked).await.is_ok());
}
