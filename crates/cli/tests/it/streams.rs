//! Watching a model's answer through everything: API, worker and a provider that speaks the wire, in real processes.

use std::{collections::BTreeMap, process::Command};

use crate::installation::{Installation, KEY, PATIENCE};
use futures::StreamExt;
use reqwest::StatusCode;
use serde_json::{Value, json};
use testkit::{Behaviour, Hold, MockProvider, PostgresServer, RedisServer, Stream};

/// One event of a stream.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    name: String,
    id: Option<String>,
    data: Value,
}

impl Event {
    fn text(&self) -> &str {
        self.data["text"].as_str().unwrap()
    }
}

/// An open stream of one job.
struct Watch {
    body: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    unread: Vec<u8>,
}

impl Watch {
    async fn open(api: &Installation, id: &str, last: Option<&str>) -> Self {
        let mut request = reqwest::Client::new().get(format!("{}/v1/jobs/{id}/events", api.url)).bearer_auth(KEY);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.send().await.unwrap().error_for_status().unwrap();
        Self { body: response.bytes_stream().boxed(), unread: vec![] }
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        let next = async {
            loop {
                while let Some(end) = self.unread.windows(2).position(|pair| pair == b"\n\n") {
                    let block: Vec<u8> = self.unread.drain(..end + 2).collect();
                    let block = String::from_utf8(block).unwrap();
                    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    if let Some(data) = field("data") {
                        let data = serde_json::from_str(data).unwrap();
                        let id = field("id").map(str::to_owned);
                        return Some(Event { name: field("event").unwrap().to_owned(), id, data });
                    }
                }
                self.unread.extend_from_slice(&self.body.next().await?.unwrap());
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("an event or the end")
    }

    /// The events up to this many tokens.
    async fn tokens(&mut self, count: usize) -> Vec<Event> {
        let mut seen: Vec<Event> = vec![];
        while seen.iter().filter(|event| event.name == "token").count() < count {
            seen.push(self.next().await.expect("the stream goes on"));
        }
        seen
    }

    async fn rest(mut self) -> Vec<Event> {
        let mut all = vec![];
        while let Some(event) = self.next().await {
            all.push(event);
        }
        all
    }
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

/// The texts by attempt and step, as whoever watches puts them together.
fn told(events: &[Event]) -> BTreeMap<(u64, String), String> {
    let mut told = BTreeMap::<_, String>::new();
    for event in events.iter().filter(|event| event.name == "token") {
        let key = (event.data["attempt"].as_u64().unwrap(), event.data["step"].as_str().unwrap().to_owned());
        told.entry(key).or_default().push_str(event.text());
    }
    told
}

fn result_in(events: &[Event]) -> &Value {
    &events.iter().find(|event| event.name == "result").expect("a result").data
}

fn llm(more: Value) -> Value {
    let mut payload = json!({"model": "mock-chat", "messages": [{"role": "user", "content": "Tell me."}]});
    payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"kind": "llm", "payload": payload, "max_attempts": 3})
}

/// A stream that waits after this many tokens.
fn held(tokens: usize) -> (Behaviour, Hold) {
    let hold = Hold::default();
    (Behaviour::Stream(Stream { hold: Some((tokens, hold.clone())), ..Stream::default() }), hold)
}

async fn up(mock: &MockProvider) -> (Installation, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let up = Installation::start(folder.path(), &["--provider-url", &mock.url()]).await;
    (up, folder)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_joins_late_gets_a_snapshot_and_the_whole_answer() {
    let mock = MockProvider::start().await;
    let (up, _folder) = up(&mock).await;
    let (behaviour, hold) = held(3);
    mock.script([behaviour]);
    let id = up.submit(&llm(json!({}))).await;
    let mut first = Watch::open(&up, &id, None).await;
    let seen = first.tokens(3).await;
    let mut late = Watch::open(&up, &id, None).await;
    let caught_up = late.tokens(3).await;
    assert_eq!(names(&caught_up), ["snapshot", "attempt_started", "token", "token", "token"]);
    assert_eq!((&caught_up[0].data["state"], &caught_up[0].id), (&json!("running"), &None));
    let tokens = |events: &[Event]| events.iter().filter(|event| event.name == "token").cloned().collect::<Vec<_>>();
    assert_eq!(tokens(&caught_up), tokens(&seen), "the same events with the same ids");
    hold.release();
    for (mut events, watch) in [(seen, first), (caught_up, late)] {
        events.extend(watch.rest().await);
        let told = told(&events);
        assert_eq!(told.len(), 1, "{told:?}");
        let stored = up.get(&format!("/v1/jobs/{id}/result")).await;
        assert_eq!(told[&(1, "chat".to_owned())], stored["text"].as_str().unwrap());
        assert_eq!(result_in(&events), &stored);
        assert_eq!(events.last().unwrap().data["state"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_after_a_cut_stream_begins_anew_where_all_can_see_it() {
    let mock = MockProvider::start().await;
    let (up, _folder) = up(&mock).await;
    let (answers, hold) = held(0);
    mock.script([Behaviour::CutAfter(2), answers]);
    let id = up.submit(&llm(json!({}))).await;
    let mut watch = Watch::open(&up, &id, None).await;
    let mut events = watch.tokens(2).await;
    hold.release();
    events.extend(watch.rest().await);
    let begun: Vec<_> =
        events.iter().filter(|event| event.name == "attempt_started").map(|event| &event.data["attempt"]).collect();
    assert_eq!(begun, [&json!(1), &json!(2)]);
    let boundary = events.iter().rposition(|event| event.name == "attempt_started").unwrap();
    let attempt_of = |events: &[Event]| told(events).into_keys().map(|(attempt, _)| attempt).collect::<Vec<_>>();
    assert_eq!(attempt_of(&events[..boundary]), [1]);
    assert_eq!(attempt_of(&events[boundary..]), [2], "nothing of the first attempt comes behind the boundary");
    let told = told(&events);
    assert_eq!(told[&(1, "chat".to_owned())], "token0 token1 ");
    let stored = up.get(&format!("/v1/jobs/{id}/result")).await;
    assert_eq!(told[&(2, "chat".to_owned())], stored["text"].as_str().unwrap());
    let calls = up.get(&format!("/v1/jobs/{id}/calls")).await;
    let billed: Vec<_> =
        calls["calls"].as_array().unwrap().iter().map(|call| call["billed"].as_str().unwrap()).collect();
    assert_eq!(billed, ["maybe", "yes"]);
    // A reader who comes back behind the first attempt's last word sees the boundary first.
    let last = events[..boundary].iter().rev().find(|event| event.name == "token").unwrap();
    assert!(events[boundary].id.as_ref().unwrap().parse::<u64>().unwrap() > last.id.as_ref().unwrap().parse().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repairs_and_tries_within_an_attempt_are_told_apart_by_their_step() {
    let mock = MockProvider::start().await;
    let (up, _folder) = up(&mock).await;
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}});
    let (held_back, hold) = held(0);
    mock.script([Behaviour::Text("no JSON at all".into()), Behaviour::Text("{\"n\": \"x\"}".into()), held_back]);
    let id = up.submit(&llm(json!({"response_format": format, "repair": 2}))).await;
    let watch = Watch::open(&up, &id, None).await;
    hold.release();
    let events = watch.rest().await;
    let told = told(&events);
    let of = |step: &str| told.get(&(1, step.to_owned())).map(String::as_str);
    assert_eq!((of("chat"), of("chat#1")), (Some("no JSON at all"), Some("{\"n\": \"x\"}")));
    let result = result_in(&events);
    assert_eq!(of("chat#2"), result["text"].as_str(), "the last answer is the result");
    assert_eq!(serde_json::from_str::<Value>(of("chat#2").unwrap()).unwrap(), result["json"]);
    assert_eq!(told.len(), 3);

    // A call that is made again within the attempt: an analysis does not spend an attempt on a cut stream.
    let (held_back, hold) = held(0);
    mock.script([Behaviour::CutAfter(2), held_back]);
    let document =
        json!({"input": {"text": "A document."}, "map": {"prompt": "{{chunk}}"}, "defaults": {"model": "mock-chat"}});
    let id = up.submit(&json!({"kind": "analysis", "payload": document})).await;
    let watch = Watch::open(&up, &id, None).await;
    hold.release();
    let events = watch.rest().await;
    let told = self::told(&events);
    assert_eq!(told[&(1, "map/0000".to_owned())], "token0 token1 ");
    assert_eq!(told[&(1, "map/0000#1".to_owned())], result_in(&events)["output"][0].as_str().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_closes_the_providers_connection_and_bills_what_arrived() {
    let mock = MockProvider::start().await;
    let (up, _folder) = up(&mock).await;
    let (behaviour, _hold) = held(3);
    mock.script([behaviour]);
    let id = up.submit(&llm(json!({"max_tokens": 500}))).await;
    let mut watch = Watch::open(&up, &id, None).await;
    let seen = watch.tokens(3).await;
    assert!(!mock.calls()[0].dropped);
    assert_eq!(up.cancel(&id).await, StatusCode::ACCEPTED);
    mock.until("the connection is gone", |calls| calls[0].dropped).await;
    let rest = watch.rest().await;
    assert_eq!(rest.last().unwrap().data["state"], "cancelled");
    let path = format!("/v1/jobs/{id}/calls");
    up.until("written", async |up| up.get(&path).await["calls"].as_array().unwrap().len() == 1).await;
    let call = &up.get(&path).await["calls"][0];
    assert_eq!((&call["billed"], &call["usage_source"]), (&json!("maybe"), &json!("estimated")), "{call}");
    let text: String = seen.iter().filter(|event| event.name == "token").map(Event::text).collect();
    let arrived = queue_core::ledger::estimate_tokens("mock-chat", &text);
    assert_eq!(call["usage"]["tokens_out"], arrived, "what arrived, and not the 500 that it might have been: {call}");
    assert!(call["usage"]["tokens_in"].as_u64().unwrap() > 0);
    assert_eq!(mock.calls().len(), 1, "nobody asks again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_at_another_process_and_a_cancel_reaches_the_worker_in_a_third() {
    let mock = MockProvider::start().await;
    let redis = RedisServer::start();
    let database = tokio::task::spawn_blocking(|| PostgresServer::shared().database()).await.unwrap();
    let migrate = Command::new(env!("CARGO_BIN_EXE_longshore"))
        .args(["migrate", "--journal", &database])
        .env_clear()
        .output()
        .unwrap();
    assert!(migrate.status.success(), "{}", String::from_utf8_lossy(&migrate.stderr));
    let (folder, address, provider) = (tempfile::tempdir().unwrap(), redis.url(), mock.url());
    let role = |name: &str| {
        let shared = ["--journal", &database, "--dispatcher", &address, "--provider-url", &provider];
        Installation::role(name, folder.path(), &shared)
    };
    let mut fleet = [role("scheduler"), role("worker"), role("api"), role("api")];
    for process in &mut fleet {
        assert!(process.spawn(), "{}", process.log());
    }
    for process in &fleet {
        process.until_ready().await;
    }
    let [_, _, one, other] = &fleet;

    let (behaviour, hold) = held(3);
    mock.script([behaviour]);
    let id = one.submit(&llm(json!({}))).await;
    let mut watch = Watch::open(one, &id, None).await;
    let seen = watch.tokens(3).await;
    drop(watch);
    // The reader lost the last token that it was sent.
    let (position, lost) = (&seen[seen.len() - 2], &seen[seen.len() - 1]);
    let mut resumed = Watch::open(other, &id, position.id.as_deref()).await;
    let again = resumed.tokens(1).await;
    assert_eq!((names(&again), &again[1]), (vec!["snapshot", "token"], lost));
    hold.release();
    let rest = resumed.rest().await;
    let mut events = seen;
    events.extend(rest);
    let stored = one.get(&format!("/v1/jobs/{id}/result")).await;
    assert_eq!(told(&events)[&(1, "chat".to_owned())], stored["text"].as_str().unwrap());
    assert_eq!(result_in(&events), &stored);

    let (behaviour, _hold) = held(2);
    mock.script([behaviour]);
    let id = one.submit(&llm(json!({}))).await;
    let mut watch = Watch::open(other, &id, None).await;
    watch.tokens(2).await;
    assert_eq!(other.cancel(&id).await, StatusCode::ACCEPTED);
    mock.until("the connection is gone", |calls| calls.last().is_some_and(|call| call.dropped)).await;
    assert_eq!(watch.rest().await.last().unwrap().data["state"], "cancelled");
    let path = format!("/v1/jobs/{id}/calls");
    one.until("written", async |one| one.get(&path).await["calls"].as_array().unwrap().len() == 1).await;
    let call = &one.get(&path).await["calls"][0];
    assert_eq!(call["billed"], "maybe");
    assert!(call["usage"]["tokens_out"].as_u64().unwrap() > 0, "{call}");
}
