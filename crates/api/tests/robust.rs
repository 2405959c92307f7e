//! Clients that are slow, too many or too eager, and a journal that takes no writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // clippy spares only functions with #[test]

mod server;

use std::{sync::atomic::Ordering, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use server::{PATIENCE, Server, gate::Gate};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A connection without a client library.
async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Everything that the server sends until it closes the connection.
async fn until_closed(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    let read = stream.read_to_end(&mut all);
    tokio::time::timeout(PATIENCE, read).await.expect("the server closes the connection").unwrap();
    String::from_utf8(all).unwrap()
}

/// Asks for `/livez` and keeps the connection.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut seen = String::new();
    let read = async {
        while !seen.ends_with('}') {
            let mut piece = [0; 4_096];
            let bytes = stream.read(&mut piece).await.unwrap();
            assert_ne!(bytes, 0, "closed after: {seen}");
            seen.push_str(std::str::from_utf8(&piece[..bytes]).unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("an answer");
    seen
}

/// Status line and body of an answer.
fn parts(answer: &str) -> (&str, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

#[tokio::test]
async fn a_head_that_does_not_arrive_ends_its_connection() {
    let server = Server::start_with(|api| api.settings.bounds.head_max = Duration::from_secs(1)).await;
    let silent = connect(&server).await;
    let mut slow = connect(&server).await;
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nx-a: ").await.unwrap();
    let mut idle = connect(&server).await;
    assert!(ask(&mut idle).await.starts_with("HTTP/1.1 200 OK\r\n"));
    for stream in [silent, slow, idle] {
        assert_eq!(until_closed(stream).await, "");
    }
    server.get("/livez").await.expect(200);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_answered_with_408() {
    let server = Server::start_with(|api| api.settings.bounds.body_max = Duration::from_millis(50)).await;
    for path in ["/v1/jobs", "/v1/jobs/bulk"] {
        let mut stream = connect(&server).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: 100\r\n\r\n{{\"kind\":",
            server.key
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = until_closed(stream).await;
        let (head, problem) = parts(&answer);
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{head}");
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        assert_eq!(problem["type"], "urn:longshore:problem:timeout");
        assert_eq!(problem["errors"][0]["reason"], "did not arrive within 50ms");
    }
    assert_eq!(server.get("/v1/jobs").await.expect(200)["jobs"], json!([]));
}

#[tokio::test]
async fn a_connection_too_many_is_told_so() {
    let server = Server::start_with(|api| api.settings.bounds.connections_max = 2).await;
    let (mut one, mut two) = (connect(&server).await, connect(&server).await);
    for stream in [&mut one, &mut two] {
        assert!(ask(stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
    let mut third = connect(&server).await;
    let refused = ask(&mut third).await;
    let (head, problem) = parts(&refused);
    assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
    assert!(head.contains("retry-after: 1") && head.contains("connection: close"), "{head}");
    assert_eq!(problem["type"], "urn:longshore:problem:busy");
    assert_eq!(until_closed(third).await, "");
    // Those inside notice nothing, and a place that is left is taken.
    assert!(ask(&mut two).await.starts_with("HTTP/1.1 200 OK\r\n"));
    drop(one);
    let enter = async { while !ask(&mut connect(&server).await).await.starts_with("HTTP/1.1 200 OK\r\n") {} };
    tokio::time::timeout(PATIENCE, enter).await.expect("a place");
}

#[tokio::test]
async fn a_key_in_flight_is_refused_until_its_first_request_is_answered() {
    let mut gate = None;
    let server = Server::start_with(|api| {
        let before = Gate::before(api.stores.journal.clone());
        api.stores.journal = before.clone();
        gate = Some(before);
    })
    .await;
    let gate = gate.unwrap();
    let job = json!({"kind": "probe", "payload": {}});
    let request =
        |path: &str, body: &Value| server.request(Method::POST, path).json(body).header("Idempotency-Key", "k");
    let first = tokio::spawn(request("/v1/jobs", &job).send());
    tokio::time::timeout(PATIENCE, gate.came.notified()).await.expect("the first request");
    for (path, body) in [("/v1/jobs", &job), ("/v1/jobs/bulk", &json!([job]))] {
        let second = server.send(request(path, body)).await;
        assert_eq!(second.problem(409)["type"], "urn:longshore:problem:idempotency-in-flight");
        assert_eq!(second.header("retry-after"), "1");
    }
    gate.open.add_permits(1);
    let first: Value = first.await.unwrap().unwrap().json().await.unwrap();
    let replayed = server.send(request("/v1/jobs", &job)).await;
    assert_eq!((replayed.expect(202), replayed.header("idempotency-replayed")), (first, "true"));
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_its_key_in_flight_until_the_commit() {
    let mut gate = None;
    let server = Server::start_with(|api| {
        let before = Gate::before(api.stores.journal.clone());
        api.stores.journal = before.clone();
        gate = Some(before);
    })
    .await;
    let gate = gate.unwrap();
    let job = json!({"kind": "probe", "payload": {}});
    let request = || server.request(Method::POST, "/v1/jobs").json(&job).header("Idempotency-Key", "k");
    let mut impatient = Box::pin(request().send());
    tokio::select! {
        answer = &mut impatient => panic!("{answer:?}"),
        () = gate.came.notified() => {}
    }
    drop(impatient);
    server.send(request()).await.problem(409);
    gate.open.add_permits(1);
    let replayed = async {
        loop {
            let answer = server.send(request()).await;
            if answer.status.as_u16() != 409 {
                return answer;
            }
        }
    };
    let replayed = tokio::time::timeout(PATIENCE, replayed).await.expect("the commit");
    assert_eq!((replayed.status.as_u16(), replayed.header("idempotency-replayed")), (202, "true"));
}

#[tokio::test]
async fn a_journal_that_takes_no_writes_is_answered_with_503() {
    let mut gate = None;
    let server = Server::start_with(|api| {
        let before = Gate::before(api.stores.journal.clone());
        before.broken.store(true, Ordering::SeqCst);
        before.open.add_permits(1_000);
        api.stores.journal = before.clone();
        gate = Some(before);
    })
    .await;
    let job = json!({"kind": "probe", "payload": {}});
    for (path, body) in [("/v1/jobs", &job), ("/v1/jobs/bulk", &json!([job]))] {
        let request = server.request(Method::POST, path).json(body).header("Idempotency-Key", path.replace('/', "-"));
        let answer = server.send(request).await;
        let problem = answer.problem(503);
        assert_eq!(problem["type"], "urn:longshore:problem:unavailable");
        assert!(problem["detail"].as_str().unwrap().contains("the disk is full"), "{problem}");
        assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
    }
    server.get("/readyz").await.expect(503);
    assert_eq!(server.get("/v1/jobs").await.expect(200)["jobs"], json!([]), "reading goes on");
    // The same request with the same key, once writing works again.
    gate.unwrap().broken.store(false, Ordering::SeqCst);
    let request = server.request(Method::POST, "/v1/jobs").json(&job).header("Idempotency-Key", "-v1-jobs");
    let answer = server.send(request).await;
    answer.expect(202);
    assert_eq!(answer.header("idempotency-replayed"), "");
}
