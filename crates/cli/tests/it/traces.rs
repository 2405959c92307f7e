//! Traces as a receiver gets them: one job's life, decoded from the protobuf that the binary sends.

use std::collections::BTreeMap;

use crate::installation::{Installation, KEY};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message;
use queue_core::traces::names;
use serde_json::{Value, json};
use testkit::{Behaviour, MockProvider, Receiver};

/// Words that must not be in a span.
const PROMPT: &str = "canary-in-a-prompt";
const ANSWER: &str = "canary-in-an-answer";
const REFUSAL: &str = "canary-in-a-refusal";
const OPERATOR: &str = "sk-canary-of-the-operator-0123456789";

const CALLER_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER_SPAN: &str = "00f067aa0ba902b7";

fn caller(flags: &str) -> String {
    format!("00-{CALLER_TRACE}-{CALLER_SPAN}-{flags}")
}

/// What is kept of a job's submit: its id, and what the answer says of its trace.
struct Submitted {
    id: String,
    trace_response: Option<String>,
}

async fn submit(up: &Installation, job: &Value, traceparent: Option<String>) -> Submitted {
    let mut request = reqwest::Client::new().post(format!("{}/v1/jobs", up.url)).bearer_auth(KEY).json(job);
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 202);
    let trace_response = answer.headers().get("traceresponse").map(|value| value.to_str().unwrap().to_owned());
    let body: Value = answer.json().await.unwrap();
    Submitted { id: body["id"].as_str().unwrap().to_owned(), trace_response }
}

fn chat() -> Value {
    json!({"kind": "llm", "queue": "chats", "tenant": "acme", "payload": {"model": "gpt-4o-mini", "max_tokens": 50,
           "messages": [{"role": "user", "content": PROMPT}]}})
}

/// What was received, taken apart.
struct Received {
    spans: Vec<Span>,
    resource: BTreeMap<String, Any>,
}

impl Received {
    fn of(receiver: &Receiver) -> Self {
        let (mut spans, mut resource) = (vec![], BTreeMap::new());
        for export in receiver.taken() {
            assert_eq!((&*export.path, &*export.headers["content-type"]), ("/v1/traces", "application/x-protobuf"));
            assert_eq!(export.headers["x-receiver"], "open sesame");
            for word in [PROMPT, ANSWER, REFUSAL, OPERATOR, KEY] {
                let told = export.body.windows(word.len()).any(|window| window == word.as_bytes());
                assert!(!told, "{word} is in a span");
            }
            let request = ExportTraceServiceRequest::decode(&*export.body).unwrap();
            for of_resource in request.resource_spans {
                resource.extend(attributes(of_resource.resource.unwrap().attributes));
                for of_scope in of_resource.scope_spans {
                    assert_eq!(of_scope.scope.unwrap().name, names::SCOPE);
                    assert_eq!(of_scope.schema_url, names::SCHEMA_URL);
                    spans.extend(of_scope.spans);
                }
            }
        }
        spans.sort_by_key(|span| span.start_time_unix_nano);
        for span in &spans {
            for KeyValue { key, .. } in
                span.attributes.iter().chain(span.links.iter().flat_map(|link| &link.attributes))
            {
                assert!(names::ALL.contains(&key.as_str()), "{key} is no name of ours");
            }
        }
        Self { spans, resource }
    }

    /// The spans of a job with this name, oldest first.
    fn of_job(&self, name: &str, id: &str) -> Vec<&Span> {
        let of_job = |span: &&Span| span.name == name && text(span, names::MESSAGING_MESSAGE_ID) == Some(id);
        self.spans.iter().filter(of_job).collect()
    }
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, Any> {
    pairs.into_iter().map(|pair| (pair.key, pair.value.and_then(|value| value.value).unwrap())).collect()
}

fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a Any> {
    let pair = span.attributes.iter().find(|pair| pair.key == name)?;
    pair.value.as_ref()?.value.as_ref()
}

fn text<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    match attribute(span, name)? {
        Any::StringValue(text) => Some(text),
        other => panic!("{name} is {other:?}"),
    }
}

fn number(span: &Span, name: &str) -> Option<i64> {
    match attribute(span, name)? {
        Any::IntValue(number) => Some(*number),
        other => panic!("{name} is {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where a span's links lead, and what they say that is.
fn links(span: &Span) -> Vec<(String, String, String)> {
    let what = |attributes: &[KeyValue]| match attributes {
        [KeyValue { value: Some(AnyValue { value: Some(Any::StringValue(what)) }), .. }] => what.clone(),
        other => panic!("{other:?}"),
    };
    span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id), what(&link.attributes))).collect()
}

fn place(span: &Span, what: &str) -> (String, String, String) {
    (hex(&span.trace_id), hex(&span.span_id), what.to_owned())
}

fn has_failed(span: &Span) -> bool {
    let status = span.status.clone().unwrap_or_default();
    assert!(status.message.is_empty(), "no words of an error: {status:?}");
    status.code() == StatusCode::Error
}

/// Whether the exporter's thread is there.
fn exports(up: &Installation) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", up.pid())).unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.into_iter().any(|name| name.starts_with("OpenTelemetry"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_is_told_a_jobs_life_and_not_a_word_of_its_prompt() {
    let (folder, receiver, provider) =
        (tempfile::tempdir().unwrap(), Receiver::start().await, MockProvider::start().await);
    let (endpoint, url) = (receiver.url(), provider.url());
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-receiver=open%20sesame"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ("OTEL_SEMCONV_STABILITY_OPT_IN", names::GEN_AI_LATEST),
        ("OPENAI_API_KEY", OPERATOR),
    ];
    let arguments = ["--provider-url", &*url, "--default-model", "gpt-4o-mini"];
    let mut up = Installation::start_in(folder.path(), &arguments, &environment).await;
    assert!(exports(&up));

    // Refused once with the prompt in what the provider says, then answered.
    let said = json!({"error": {"message": format!("{REFUSAL}: {PROMPT}"), "code": "down"}}).to_string();
    provider.script([Behaviour::Respond(503, vec![], said), Behaviour::Text(ANSWER.into())]);
    let job = submit(&up, &chat(), Some(caller("01"))).await;
    let done = up.ended(&job.id).await;
    assert_eq!((&done["state"], &done["attempts"]), (&json!("succeeded"), &json!(2)), "{}", up.log());
    assert_eq!(done["trace_id"], CALLER_TRACE);
    let attempts = up.get(&format!("/v1/jobs/{}/attempts", job.id)).await;
    let vectors = json!({"kind": "embedding", "payload": {"model": "text-embedding-3-small", "input": [PROMPT]}});
    let embedded = submit(&up, &vectors, None).await;
    up.ended(&embedded.id).await;
    let unsampled = submit(&up, &chat(), Some(caller("00"))).await;
    let unseen = up.ended(&unsampled.id).await;
    assert_eq!(unseen["trace_id"], CALLER_TRACE);
    let probe = json!({"kind": "probe", "queue": "probes", "payload": {}});
    up.post("/v1/jobs/bulk", &json!([probe, probe])).await;
    up.terminate();
    assert_eq!(up.wait_for_death(), Some(0), "{}", up.log());

    // Everything is there once the process has ended.
    let received = Received::of(&receiver);
    let one = |name: &str, id: &str| {
        let found = received.of_job(name, id);
        assert_eq!(found.len(), 1, "{name}: {:#?}", received.spans);
        found[0].clone()
    };
    let word = |name: &str| match &received.resource[name] {
        Any::StringValue(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((&*word("service.name"), &*word("deployment.environment.name")), ("longshore", "test"));
    assert!(!word("service.version").is_empty() && !word("service.instance.id").is_empty());

    let send = one("send chats", &job.id);
    assert_eq!(send.kind(), SpanKind::Producer);
    assert_eq!((hex(&send.trace_id), hex(&send.parent_span_id)), (CALLER_TRACE.into(), CALLER_SPAN.into()));
    assert_eq!(job.trace_response.unwrap(), format!("00-{CALLER_TRACE}-{}-01", hex(&send.span_id)));
    assert_eq!(
        (text(&send, names::MESSAGING_SYSTEM), text(&send, names::MESSAGING_OPERATION_TYPE)),
        (Some("longshore"), Some("send"))
    );
    assert!(!has_failed(&send));

    let processed = received.of_job("process chats", &job.id);
    let [first, second] = processed[..] else { panic!("{:#?}", received.spans) };
    for (attempt, shown) in [(first, &attempts["attempts"][0]), (second, &attempts["attempts"][1])] {
        assert_eq!((attempt.kind(), attempt.parent_span_id.len()), (SpanKind::Consumer, 0));
        assert_eq!(shown["trace_id"], hex(&attempt.trace_id), "the API knows the trace of each attempt");
        assert_eq!((text(attempt, names::TENANT), text(attempt, names::KIND)), (Some("acme"), Some("llm")));
    }
    assert_ne!(first.trace_id, second.trace_id);
    assert_eq!(links(first), [place(&send, "submit")]);
    assert_eq!(links(second), [place(&send, "submit"), place(first, "attempt")]);
    assert_eq!((text(first, names::OUTCOME), text(first, names::ERROR_TYPE)), (Some("retry"), Some("server")));
    assert_eq!((text(second, names::OUTCOME), text(second, names::ERROR_TYPE)), (Some("succeed"), None));
    assert!(has_failed(first) && !has_failed(second));
    assert_eq!((number(first, names::ATTEMPT), number(second, names::ATTEMPT)), (Some(1), Some(2)));

    let called = received.of_job("chat gpt-4o-mini", &job.id);
    let settled = received.of_job("settle chats", &job.id);
    assert_eq!((called.len(), settled.len()), (2, 2), "{:#?}", received.spans);
    for ((call, settle), attempt) in called.iter().zip(&settled).zip([first, second]) {
        assert_eq!((call.kind(), settle.kind()), (SpanKind::Client, SpanKind::Client));
        for below in [call, settle] {
            assert_eq!((&below.trace_id, &below.parent_span_id), (&attempt.trace_id, &attempt.span_id));
        }
        assert_eq!(links(settle), [place(&send, "submit")]);
        assert_eq!(text(call, names::GEN_AI_OPERATION), Some("chat"));
        assert_eq!(text(call, names::GEN_AI_SYSTEM), text(call, names::GEN_AI_PROVIDER), "both families");
        assert_eq!(text(call, names::SERVER_ADDRESS), Some("127.0.0.1"));
        let port: i64 = url.trim_end_matches("/v1").rsplit(':').next().unwrap().parse().unwrap();
        assert_eq!(number(call, names::SERVER_PORT), Some(port));
        assert_eq!(number(call, names::GEN_AI_REQUEST_MAX_TOKENS), Some(50));
    }
    assert_eq!(text(called[0], names::ERROR_TYPE), Some("server"));
    assert!(has_failed(called[0]) && !has_failed(called[1]));
    assert!(number(called[1], names::GEN_AI_INPUT_TOKENS).unwrap() > 0);
    assert!(number(called[1], names::GEN_AI_OUTPUT_TOKENS).unwrap() > 0);
    assert!(attribute(called[1], names::GEN_AI_RESPONSE_FINISH).is_some());

    // Without a caller's trace the submit begins one; vectors are asked for in a call of their own.
    let send = one("send default", &embedded.id);
    assert!(send.parent_span_id.is_empty());
    let attempt = one("process default", &embedded.id);
    let call = one("embeddings text-embedding-3-small", &embedded.id);
    assert_eq!((&call.trace_id, &call.parent_span_id), (&attempt.trace_id, &attempt.span_id));
    assert_eq!(text(&call, names::GEN_AI_OPERATION), Some("embeddings"));

    // A bulk submit is one span, whichever way its jobs went since.
    let bulk: Vec<_> = received.spans.iter().filter(|span| span.name == "send probes").collect();
    assert_eq!((bulk.len(), number(bulk[0], names::MESSAGING_BATCH_COUNT)), (1, Some(2)));
    let of_unsampled = |span: &&Span| text(span, names::MESSAGING_MESSAGE_ID) == Some(&unsampled.id);
    assert_eq!(received.spans.iter().filter(of_unsampled).count(), 0, "what the caller does not sample is not told");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_children_where_that_is_wished_and_nothing_runs_without_an_endpoint() {
    let (folder, receiver) = (tempfile::tempdir().unwrap(), Receiver::start().await);
    let probe = json!({"kind": "probe", "payload": {}});
    let endpoint = format!("{}/v1/traces", receiver.url());
    let environment = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-receiver=open%20sesame"),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
        ("LONGSHORE_TRACES_ATTEMPTS", "children"),
    ];
    let mut up = Installation::start_in(&folder.path().join("on"), &[], &environment).await;
    let job = submit(&up, &probe, Some(caller("01"))).await;
    up.ended(&job.id).await;
    let unsampled = submit(&up, &probe, None).await;
    assert!(unsampled.trace_response.unwrap().ends_with("-00"), "it has an id, and is not told");
    up.ended(&unsampled.id).await;
    up.terminate();
    assert_eq!(up.wait_for_death(), Some(0), "{}", up.log());
    let received = Received::of(&receiver);
    let (send, attempt) = (received.of_job("send default", &job.id), received.of_job("process default", &job.id));
    assert_eq!((&attempt[0].trace_id, &attempt[0].parent_span_id), (&send[0].trace_id, &send[0].span_id));
    assert_eq!(hex(&attempt[0].trace_id), CALLER_TRACE);
    assert_eq!(received.spans.len(), 3, "send, process and settle: {:#?}", received.spans);

    for more in [vec![], vec![("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_SDK_DISABLED", "true")]] {
        let up = Installation::start_in(&folder.path().join("off"), &[], &more).await;
        assert!(!exports(&up));
        let job = submit(&up, &probe, Some(caller("01"))).await;
        assert_eq!(job.trace_response, None);
        assert_eq!(up.ended(&job.id).await["trace_id"], CALLER_TRACE, "the caller's context is kept all the same");
    }
}
