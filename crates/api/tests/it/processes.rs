//! Several API processes and a worker in another one: streams, waits and progress reach over Redis.

use std::{sync::Arc, time::Duration};

use crate::server::{
    Hand, PATIENCE, Server,
    stream::{Watch, names},
};
use queue_core::{
    dispatcher::redis::{RedisAddress, RedisConfig},
    events::{EventBody, redis::RedisEvents},
    time::SystemClock,
};
use serde_json::json;
use testkit::RedisServer;
use tokio::time::timeout;

/// A server, the events of each of two processes, and another server that has the second ones.
struct Processes {
    redis: RedisServer,
    worker_events: Arc<RedisEvents>,
    one: Server,
    other: Server,
}

impl Processes {
    async fn start() -> Self {
        let redis = RedisServer::start();
        let address = RedisAddress::parse(&redis.url()).unwrap();
        let config = RedisConfig { connect_timeout: Duration::from_millis(500), ..RedisConfig::new(address) };
        let open = || Arc::new(RedisEvents::open(&config, Arc::new(SystemClock)).unwrap());
        let (worker_events, events) = (open(), open());
        for events in [&worker_events, &events] {
            events.wait_until_open(PATIENCE).await;
        }
        let one = Server::start_with_events(worker_events.clone()).await;
        let other = one.beside(events).await;
        Self { redis, worker_events, one, other }
    }
}

fn token(attempt: u32, text: &str) -> EventBody {
    EventBody::Token { attempt, step: "chat".into(), text: text.into() }
}

#[tokio::test]
async fn a_stream_of_another_process_is_whole_and_resumes_on_any_server() {
    let Processes { one, other, redis: _redis, .. } = Processes::start().await;
    let id = one.submit(json!({})).await;
    let mut hand = Hand::join(&one.stores).await;
    let held = hand.claim().await;
    one.stores.events.publish(id, token(1, "Hel"));
    let mut watch = Watch::open(&other, id, None).await;
    let seen = [watch.next().await.unwrap(), watch.next().await.unwrap(), watch.next().await.unwrap()];
    assert_eq!(names(&seen), ["snapshot", "attempt_started", "token"]);
    one.stores.events.publish(id, token(1, "lo"));
    let live = watch.next().await.unwrap();
    assert_eq!((live.name.as_str(), &live.data["text"]), ("token", &json!("lo")));
    drop(watch);

    // The position of one server is good at another.
    let mut resumed = Watch::open(&one, id, seen[2].id.as_deref()).await;
    let mut back = Watch::open(&other, id, live.id.as_deref()).await;
    assert_eq!(resumed.next().await.unwrap().name, "snapshot");
    assert_eq!(back.next().await.unwrap().name, "snapshot");
    assert_eq!(resumed.next().await.unwrap(), live);
    one.stores.events.publish(id, EventBody::Progress { done: 1, total: 2, step: "chat".into() });
    hand.succeed(held, &json!({"text": "Hello"})).await;
    for watch in [resumed, back] {
        assert_eq!(names(&watch.rest().await), ["progress", "result", "state"]);
    }
}

#[tokio::test]
async fn a_wait_hears_the_end_in_another_process() {
    let Processes { one, other, worker_events, redis: _redis } = Processes::start().await;
    let mut hand = Hand::join(&one.stores).await;
    let id = one.submit(json!({})).await;
    let held = hand.claim().await;
    let path = format!("/v1/jobs/{id}?wait=60s");
    let mut heard = other.stores.events.finished();
    let (job, ()) = tokio::join!(other.get(&path), async {
        timeout(PATIENCE, worker_events.ends_are_wanted()).await.unwrap();
        hand.succeed(held, &json!(1)).await;
    });
    assert_eq!(job.expect(200)["state"], "succeeded");
    // Not only by the look at the journal.
    assert_eq!(timeout(PATIENCE, heard.recv()).await.unwrap().unwrap(), id);
    assert_eq!(worker_events.traffic().ends, 1);
}

#[tokio::test]
async fn progress_of_another_process_is_shown() {
    let Processes { one, other, redis: _redis, .. } = Processes::start().await;
    let id = one.submit(json!({})).await;
    let mut hand = Hand::join(&one.stores).await;
    let held = hand.claim().await;
    one.stores.events.publish(id, EventBody::Progress { done: 2, total: 9, step: "map/0001".into() });
    let path = format!("/v1/jobs/{id}");
    let shown = async {
        // An answer that takes longer than people should wait is left out, on a machine that is busy.
        loop {
            let job = other.get(&path).await.expect(200);
            if let Some(progress) = job.get("progress") {
                return progress.clone();
            }
        }
    };
    let shown = timeout(PATIENCE, shown).await.unwrap();
    assert_eq!(shown, json!({"done": 2, "total": 9, "step": "map/0001"}));
    hand.forget(held.lease).await;
}

#[tokio::test]
async fn waits_and_streams_end_without_redis() {
    let Processes { one, other, mut redis, .. } = Processes::start().await;
    let id = one.submit(json!({})).await;
    let mut hand = Hand::join(&one.stores).await;
    let held = hand.claim().await;
    let mut watch = Watch::open(&other, id, None).await;
    assert_eq!(watch.next().await.unwrap().name, "snapshot");
    redis.stop();
    let path = format!("/v1/jobs/{id}?wait=60s");
    let result = json!(1);
    let (job, ()) = tokio::join!(other.get(&path), hand.succeed(held, &result));
    assert_eq!(job.expect(200)["state"], "succeeded");
    let rest = watch.rest().await;
    assert_eq!(names(&rest[rest.len() - 2..]), ["result", "state"]);
}
