//! Embeddings over the OpenAI wire.

use std::time::Duration;

use crate::asking::{LONG, assert_discreet, call_id, embed, embed_request, openai, openai_with};
use queue_core::{
    error::ErrorClass as C,
    ledger::{Billed, UsageSource},
};
use serde_json::json;
use testkit::{Behaviour as B, MockProvider, Vectors};
use tokio_util::sync::CancellationToken;
use worker::provider::{Call, EmbedRequest, Provider};

const TEXTS: [&str; 4] = ["a harbour", "a lantern", "a tide", "größere Wellen"];

#[tokio::test]
async fn vectors_come_in_the_order_of_their_inputs_in_every_encoding() {
    let mock = MockProvider::start().await;
    let provider = openai(&mock);
    let request = embed_request(&TEXTS);
    let answer = embed(&provider, &request).await.unwrap();
    assert_eq!(answer.vectors.len(), 4);
    assert!(answer.vectors.iter().all(|vector| vector.len() == 16));
    assert!(answer.vectors.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(answer.usage.unwrap().tokens_in > 4);
    assert_eq!((answer.model.as_str(), answer.request_id.as_deref()), ("mock-embed", Some("req_mock")));
    let expected = json!({"model": "mock-embed", "input": TEXTS, "encoding_format": "base64"});
    assert_eq!(mock.calls()[0].body, expected);
    assert_eq!(mock.calls()[0].call_id, Some(call_id(1).to_string()));

    for form in [Vectors::Floats, Vectors::Shuffled] {
        mock.script([B::Vectors(form)]);
        assert_eq!(embed(&provider, &request).await.unwrap().vectors, answer.vectors, "{form:?}");
    }
    mock.script([B::Vectors(Vectors::WithoutUsage)]);
    assert_eq!(embed(&provider, &request).await.unwrap().usage, None);
    assert_eq!(mock.connections(), 1, "one connection for calls in a row");
    let short = EmbedRequest { dimensions: Some(3), ..request };
    assert_eq!(embed(&provider, &short).await.unwrap().vectors[0].len(), 3);
}

#[tokio::test]
async fn a_large_batch_arrives_whole() {
    let mock = MockProvider::start().await;
    let texts: Vec<String> = (0..2_048).map(|number| format!("text number {number}")).collect();
    let request = EmbedRequest { model: "mock-embed".into(), input: texts, dimensions: Some(384) };
    let answer = embed(&openai(&mock), &request).await.unwrap();
    assert_eq!(answer.vectors.len(), 2_048);
    assert!(answer.vectors.iter().all(|vector| vector.len() == 384));
}

#[tokio::test]
async fn vectors_that_are_not_one_for_each_input_are_paid_for_and_useless() {
    let mock = MockProvider::start().await;
    let forms = [
        (Vectors::WithoutIndex, "without index"),
        (Vectors::SameIndex, "two vectors"),
        (Vectors::IndexTooLarge, "index 4 among 4"),
        (Vectors::OneMissing, "3 vectors for 4"),
        (Vectors::OneShorter, "15 numbers"),
        (Vectors::NotANumber, "not a number"),
    ];
    for (form, reason) in forms {
        mock.script([B::Vectors(form)]);
        let failure = embed(&openai(&mock), &embed_request(&TEXTS)).await.unwrap_err();
        assert_eq!((failure.error.class, failure.billed), (C::InvalidOutput, Billed::Yes), "{form:?}");
        assert!(failure.error.message.contains(reason), "{form:?}: {}", failure.error.message);
        assert!(failure.usage.unwrap().tokens_in > 4, "{form:?}");
        assert_eq!(failure.usage_source, UsageSource::Provider, "{form:?}: it counted, and spoiled its answer");
        assert_discreet(&failure);
    }
}

#[tokio::test]
async fn answers_without_vectors_have_their_class() {
    let mock = MockProvider::start().await;
    let cases = [
        (B::Status(500), C::Server, Billed::No),
        (B::Status(429), C::Rate, Billed::No),
        (B::html(502), C::Server, Billed::Maybe),
        (B::CutAfter(1), C::StreamBroken, Billed::Maybe),
        (B::ResetAfter(1), C::StreamBroken, Billed::Maybe),
        (B::Close, C::TransportMid, Billed::Maybe),
        (B::Respond(200, vec![], "not JSON".into()), C::InvalidOutput, Billed::Yes),
        (
            B::Respond(200, vec![], "{\"data\":[{\"index\":0,\"embedding\":\"%%\"}]}".into()),
            C::InvalidOutput,
            Billed::Yes,
        ),
        (
            B::Respond(200, vec![("content-type".into(), "text/html".into())], "<p>".into()),
            C::InvalidOutput,
            Billed::Maybe,
        ),
        (B::Respond(200, vec![], "{\"error\":{\"code\":429}}".into()), C::Rate, Billed::Maybe),
        (B::Flood(200, 64_000_000), C::InvalidOutput, Billed::Yes),
        (
            B::Respond(400, vec![], "{\"error\":{\"code\":\"array_above_max_length\"}}".into()),
            C::BatchSplit,
            Billed::No,
        ),
    ];
    for (behaviour, class, billed) in cases {
        let name = format!("{behaviour:?}").chars().take(100).collect::<String>();
        mock.script([behaviour]);
        let failure = embed(&openai(&mock), &embed_request(&TEXTS)).await.unwrap_err();
        assert_eq!((failure.error.class, failure.billed), (class, billed), "{name}: {}", failure.error);
        assert_eq!(failure.usage.is_some(), billed != Billed::No, "{name}");
        assert_discreet(&failure);
    }
}

#[tokio::test]
async fn a_body_that_stands_still_is_given_up() {
    let mock = MockProvider::start().await;
    mock.script([B::StallAfter(1)]);
    let provider = openai_with(&mock, |config| config.chunk_timeout = Duration::from_millis(100));
    let failure = embed(&provider, &embed_request(&TEXTS)).await.unwrap_err();
    let seen = (failure.error.class, failure.error.code.as_str(), failure.billed);
    assert_eq!(seen, (C::StreamBroken, "stalled", Billed::Maybe));
    mock.until("the connection is dropped", |calls| calls[0].dropped).await;
}

#[tokio::test]
async fn what_every_provider_refuses_is_not_sent() {
    let mock = MockProvider::start().await;
    let provider = openai_with(&mock, |config| config.embed_inputs_max = 3);
    for (input, class) in [(&TEXTS[..], C::BatchSplit), (&[][..], C::BadRequest), (&["a", ""][..], C::BadRequest)] {
        let failure = embed(&provider, &embed_request(input)).await.unwrap_err();
        assert_eq!((failure.error.class, failure.billed), (class, Billed::No));
    }
    assert!(mock.calls().is_empty());
}

#[tokio::test]
async fn a_cancelled_or_late_call_drops_its_connection() {
    let mock = MockProvider::start().await;
    let provider = openai(&mock);
    mock.script([B::Hang, B::Hang]);
    let request = embed_request(&TEXTS);
    let cancel = CancellationToken::new();
    let call = Call { id: call_id(1), cancel: cancel.clone(), total: LONG, key: None, on_text: &|_| {} };
    let stop = async {
        mock.until("the call has arrived", |calls| calls.len() == 1).await;
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(provider.embed(&request, call), stop);
    assert_eq!(outcome.unwrap_err().error.code, "cancelled");
    let total = Duration::from_millis(50);
    let call = Call { id: call_id(2), cancel: CancellationToken::new(), total, key: None, on_text: &|_| {} };
    let failure = provider.embed(&request, call).await.unwrap_err();
    assert_eq!((failure.error.class, failure.billed), (C::Timeout, Billed::Maybe));
    mock.until("both connections are dropped", |calls| calls.iter().all(|call| call.dropped)).await;
}
