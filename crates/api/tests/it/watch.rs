//! Waiting for jobs and watching them: long polls, event streams, and their end with the server.

use std::{sync::Arc, time::Duration};

use crate::server::{
    Hand, PATIENCE, Server,
    stream::{Watch, names},
};
use api::SigningKeys;
use futures::StreamExt;
use queue_core::{
    events::EventBody,
    ids::JobId,
    time::{Clock, ManualClock, Timestamp},
};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

/// The first piece of a stream that holds `text`.
async fn piece_with(server: &Server, job: JobId, text: &str) -> String {
    let response = server.request(Method::GET, &format!("/v1/jobs/{job}/events")).send().await.unwrap();
    let mut body = response.bytes_stream();
    let mut seen = String::new();
    let find = async {
        while !seen.contains(text) {
            seen.push_str(std::str::from_utf8(&body.next().await.expect("the stream goes on").unwrap()).unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, find).await.expect("the text in the stream");
    seen
}

fn token(attempt: u32, text: &str) -> EventBody {
    EventBody::Token { attempt, step: "chat".into(), text: text.into() }
}

#[tokio::test]
async fn a_long_poll_returns_with_the_end_of_the_job() {
    let server = Server::start().await;
    let id = server.submit(json!({"batch_id": "b"})).await;
    let mut hand = Hand::join(&server.stores).await;
    let held = hand.claim().await;
    let (job_path, batch_path) = (format!("/v1/jobs/{id}?wait=60s"), "/v1/batches/b?wait=60s");
    let polls = async { tokio::join!(server.get(&job_path), server.get(batch_path)) };
    // Whether the end comes before the polls, between their first look and their wait, or long after: they return.
    let result = json!({"text": "done"});
    let ((job, batch), ()) = tokio::join!(polls, hand.succeed(held, &result));
    assert_eq!(job.expect(200)["result"], result);
    assert_eq!(batch.expect(200)["finished"], true);

    let other = server.submit(json!({})).await;
    let poll = server.get(&format!("/v1/jobs/{other}?wait=1ms")).await.expect(200);
    assert_eq!(poll["state"], "ready");
}

#[tokio::test]
async fn a_stream_tells_snapshot_tokens_and_end() {
    let server = Server::start().await;
    let id = server.submit(json!({})).await;
    let mut watch = Watch::open(&server, id, None).await;
    let snapshot = watch.next().await.unwrap();
    assert_eq!((snapshot.name.as_str(), &snapshot.data["state"]), ("snapshot", &json!("ready")));
    assert_eq!(snapshot.id, None);

    let mut hand = Hand::join(&server.stores).await;
    let held = hand.claim().await;
    let events = &server.stores.events;
    events.publish(id, token(1, "Hel"));
    events.publish(id, token(1, "lo\n"));
    events.publish(id, EventBody::Progress { done: 1, total: 2, step: "chat".into() });
    hand.succeed(held, &json!({"text": "Hello\n"})).await;
    let rest = watch.rest().await;
    assert_eq!(names(&rest), ["attempt_started", "token", "token", "progress", "result", "state"]);
    let text: String = rest[1..3].iter().map(|event| event.data["text"].as_str().unwrap()).collect();
    assert_eq!(text, "Hello\n");
    assert_eq!(rest[4].data, json!({"text": "Hello\n"}));
    assert_eq!(rest[5].data["state"], "succeeded");

    let late = Watch::open(&server, id, None).await.rest().await;
    assert_eq!(names(&late), ["snapshot", "result", "state"]);
    assert_eq!(late[0].data["result"], json!({"text": "Hello\n"}));
}

#[tokio::test]
async fn a_broken_stream_goes_on_where_it_was() {
    let server = Server::start().await;
    let id = server.submit(json!({})).await;
    let mut hand = Hand::join(&server.stores).await;
    let held = hand.claim().await;
    let events = &server.stores.events;
    for text in ["a", "b", "c"] {
        events.publish(id, token(1, text));
    }
    let mut first = Watch::open(&server, id, None).await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(first.next().await.unwrap());
    }
    assert_eq!(names(&seen), ["snapshot", "attempt_started", "token"]);
    drop(first);

    let mut second = Watch::open(&server, id, seen[2].id.as_deref()).await;
    assert_eq!(second.next().await.unwrap().name, "snapshot");
    let texts = [second.next().await.unwrap(), second.next().await.unwrap()].map(|event| event.data["text"].clone());
    assert_eq!(texts, ["b", "c"]);
    // What is no position hides nothing, and neither does one that was never given.
    let mut third = Watch::open(&server, id, Some("ffffffff-999")).await;
    assert_eq!(third.next().await.unwrap().name, "snapshot");
    assert_eq!(third.next().await.unwrap().name, "attempt_started");
    let mut fourth = Watch::open(&server, id, Some("9007199254740991")).await;
    for name in ["snapshot", "gap", "attempt_started"] {
        assert_eq!(fourth.next().await.unwrap().name, name);
    }

    hand.bury(held, "no").await;
    let rest = second.rest().await;
    assert_eq!((names(&rest), &rest[0].data["state"]), (vec!["state"], &json!("dead")));
}

#[tokio::test]
async fn a_reader_is_told_of_events_that_are_gone() {
    let server = Server::start().await;
    let id = server.submit(json!({})).await;
    let mut hand = Hand::join(&server.stores).await;
    let held = hand.claim().await;
    let mut first = Watch::open(&server, id, None).await;
    first.next().await.unwrap();
    let seen = first.next().await.unwrap();
    assert_eq!(seen.name, "attempt_started");
    // More than are held of one job; the first reader cannot run meanwhile and falls behind what waits for it, too.
    for number in 0..6_000 {
        server.stores.events.publish(id, token(1, &number.to_string()));
    }
    let mut resumed = Watch::open(&server, id, seen.id.as_deref()).await;
    assert_eq!(resumed.next().await.unwrap().name, "snapshot");
    for watch in [&mut resumed, &mut first] {
        let gap = watch.next().await.unwrap();
        assert_eq!((gap.name.as_str(), gap.id), ("gap", None));
        let after = watch.next().await.unwrap();
        assert_eq!((after.name.as_str(), &after.data["text"]), ("token", &json!((6_000 - 4_096).to_string())));
    }
    hand.succeed(held, &json!(1)).await;
    for watch in [resumed, first] {
        let rest = watch.rest().await;
        assert_eq!(rest.len(), 4_095 + 2, "every token that was held, the result and the end");
    }
}

#[tokio::test]
async fn a_slow_reader_misses_nothing_that_is_held() {
    let server = Server::start().await;
    let id = server.submit(json!({})).await;
    let mut watch = Watch::open(&server, id, None).await;
    watch.next().await.unwrap();
    // More than wait for one reader, fewer than are held: the reader cannot run in between.
    for number in 0..3_000 {
        server.stores.events.publish(id, token(1, &number.to_string()));
    }
    for number in 0..3_000 {
        let event = watch.next().await.unwrap();
        assert_eq!((event.name.as_str(), &event.data["text"]), ("token", &json!(number.to_string())));
    }
}

#[tokio::test]
async fn a_quiet_stream_shows_that_it_lives() {
    let server = Server::start_with(|api| api.settings.bounds.heartbeat = Duration::from_millis(10)).await;
    let id = server.submit(json!({})).await;
    let seen = piece_with(&server, id, ": heartbeat\n\n: heartbeat\n\n").await;
    assert!(seen.starts_with("retry: 1000\n\nevent: snapshot\n"), "{seen}");
}

#[tokio::test]
async fn a_running_job_shows_how_far_it_is() {
    let server = Server::start().await;
    let id = server.submit(json!({})).await;
    let path = format!("/v1/jobs/{id}");
    let mut hand = Hand::join(&server.stores).await;
    let held = hand.claim().await;
    assert_eq!(server.get(&path).await.expect(200).get("progress"), None);
    server.stores.events.publish(id, EventBody::Progress { done: 2, total: 9, step: "map/0001".into() });
    let running = server.get(&path).await;
    assert_eq!(running.expect(200)["progress"], json!({"done": 2, "total": 9, "step": "map/0001"}));
    server.stores.events.publish(id, EventBody::Progress { done: 3, total: 9, step: "map/0002".into() });
    let further = server.get(&path).await;
    assert_eq!(further.expect(200)["progress"]["done"], 3);
    assert_ne!(running.header("etag"), further.header("etag"));
    hand.succeed(held, &json!(1)).await;
    assert_eq!(server.get(&path).await.expect(200).get("progress"), None);
}

#[tokio::test]
async fn a_stream_tells_why_the_job_was_cancelled() {
    let server = Server::start().await;
    let id = server.submit(json!({})).await;
    let mut watch = Watch::open(&server, id, None).await;
    watch.next().await.unwrap();
    server.post(&format!("/v1/jobs/{id}/cancel"), &json!({"reason": "no need"})).await.expect(200);
    let last = watch.rest().await.pop().unwrap();
    assert_eq!(
        (last.name.as_str(), last.data),
        ("state", json!({"type": "state", "state": "cancelled", "reason": "no need"}))
    );
}

#[tokio::test]
async fn waits_and_streams_end_with_the_server() {
    let mut server = Server::start().await;
    let id = server.submit(json!({})).await;
    let mut watch = Watch::open(&server, id, None).await;
    watch.next().await.unwrap();
    let poll = tokio::spawn(server.request(Method::GET, &format!("/v1/jobs/{id}?wait=60s")).send());
    server.stop().await;
    assert_eq!(watch.next().await, None);
    // Open or just arriving: either way it is over, at once.
    let _ = tokio::time::timeout(PATIENCE, poll).await.expect("the poll ends");
}

#[tokio::test]
async fn a_job_that_does_not_exist_cannot_be_watched() {
    let server = Server::start().await;
    let unknown = "01890000-0000-7000-8000-000000000000";
    for path in ["", "?wait=1s", "/events", "/why", "/result", "/attempts", "/calls"] {
        server.get(&format!("/v1/jobs/{unknown}{path}")).await.problem(404);
    }
}

/// A stream does not outlive the right to read it: neither a key that was revoked or has ended, nor a token that was taken back.
#[tokio::test]
async fn a_stream_ends_with_its_reader_s_key_or_token() {
    let clock = ManualClock::at(Timestamp(1_790_000_000_000));
    let signing = SigningKeys::parse(SigningKeys::generate().unwrap().expose_secret()).unwrap();
    let mut server = Server::start_at(Arc::new(clock.clone()), |api| api.tokens.set_signing_keys(signing)).await;
    let (admin, id) = (server.key.clone(), server.submit(json!({})).await);
    let end = clock.now().plus_ms(3_600_000).to_string();
    let mut watching = Vec::new();
    for (name, expires_at) in
        [("revoked", Value::Null), ("ending", json!(end)), ("token", Value::Null), ("rotated", Value::Null)]
    {
        let new = json!({"name": name, "role": "admin", "expires_at": expires_at});
        let made = server.post("/v1/keys", &new).await.expect(201);
        let mut bearer = made["key"].as_str().unwrap().to_owned();
        if name == "token" {
            server.key = bearer;
            bearer = server.post("/v1/auth/token", &json!({"expires_in": "24h"})).await.expect(200)["token"]
                .as_str()
                .unwrap()
                .to_owned();
        }
        server.key = bearer;
        let mut watch = Watch::open(&server, id, None).await;
        assert_eq!(watch.next().await.unwrap().name, "snapshot");
        watching.push((made["id"].as_str().unwrap().to_owned(), server.key.clone(), watch));
        server.key = admin.clone();
    }
    let path = |n: usize| format!("/v1/keys/{}", watching[n].0);
    server.send(server.request(Method::DELETE, &path(0))).await;
    server.post(&format!("{}/rotate", path(3)), &json!({"overlap": "0s"})).await.expect(200);
    server.key = watching[2].1.clone();
    assert_eq!(server.send(server.request(Method::DELETE, "/v1/auth/token")).await.status, 204);
    clock.advance_ms(3_600_000);
    server.key = admin;
    let mut stays = Watch::open(&server, id, None).await;
    assert_eq!(stays.next().await.unwrap().name, "snapshot");
    for (_, _, watch) in watching {
        assert_eq!(names(&watch.rest().await), Vec::<&str>::new(), "it ends without another word");
    }
    // Whoever may still read reads on.
    let mut hand = Hand::join(&server.stores).await;
    let held = hand.claim().await;
    hand.succeed(held, &json!({})).await;
    assert_eq!(stays.rest().await.last().unwrap().name, "state");
}
