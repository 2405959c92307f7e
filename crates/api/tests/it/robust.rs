//! Clients that are slow, too many or too eager, and a journal that takes no writes.

use std::{sync::atomic::Ordering, time::Duration};

use crate::server::{PATIENCE, Server, gate::Gate};
use reqwest::Method;
use serde_json::{Value, json};
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
async fn a_head_that_comes_in_drops_ends_its_connection_and_one_that_has_not_begun_does_not() {
    let server = Server::start_with(|api| api.settings.bounds.slow_max = Duration::from_millis(300)).await;
    let mut idle = connect(&server).await;
    let mut kept = connect(&server).await;
    assert!(ask(&mut kept).await.starts_with("HTTP/1.1 200 OK\r\n"));
    let mut slow = connect(&server).await;
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut seen = Vec::new();
    let drops = async {
        let mut number = 0;
        // A header every 50 ms for ever: each is in time, the head is not.
        while slow.write_all(format!("x-{number}: 1\r\n").as_bytes()).await.is_ok() {
            number += 1;
            if tokio::time::timeout(Duration::from_millis(50), slow.read_to_end(&mut seen)).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, drops).await.expect("the server closes the connection");
    assert!(seen.is_empty(), "{seen:?}");
    for stream in [&mut idle, &mut kept] {
        assert!(ask(stream).await.starts_with("HTTP/1.1 200 OK\r\n"), "longer than a head may take, and alive");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends_its_connection() {
    let server = Server::start_with(|api| {
        (api.settings.bounds.head_max, api.settings.bounds.slow_max) = (Duration::from_secs(1), Duration::from_secs(1));
    })
    .await;
    let mut deaf = connect(&server).await;
    // More than both ends keep for each other: some tens of MiB.
    let many = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(300);
    let asked = async {
        let _ = deaf.write_all(many.as_bytes()).await;
        // Only a connection that is gone refuses to take more.
        while deaf.write_all(b"\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("the server closes the connection");
}

#[tokio::test]
async fn a_pause_within_a_body_is_answered_with_408() {
    let server = Server::start_with(|api| api.settings.bounds.slow_max = Duration::from_millis(200)).await;
    let mut stream = connect(&server).await;
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{",
        server.key
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = until_closed(stream).await;
    let (head, problem) = parts(&answer);
    assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{head}");
    assert_eq!(problem["errors"][0]["reason"], "nothing more arrived within 200ms");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_told_so() {
    let server = Server::start().await;
    let get = |path: &str| server.request(Method::GET, path);
    let problem = server.send(get(&format!("/v1/jobs?q={}", "x".repeat(32 * 1024)))).await.problem(414);
    assert_eq!(problem["type"], "urn:longshore:problem:address-too-long");
    let mut many = get("/v1/jobs");
    for number in 0..70 {
        many = many.header(format!("x-{number}"), "1");
    }
    let problem = server.send(many).await.problem(431);
    assert!(problem["detail"].as_str().unwrap().contains("the limit of 64"), "{problem}");
    let large = get("/v1/jobs").header("x-large", "x".repeat(33 * 1024));
    let problem = server.send(large).await.problem(431);
    assert!(problem["detail"].as_str().unwrap().contains("the limit is 32768"), "{problem}");
    // One that is not even read is answered without a document.
    let endless = get("/v1/jobs").header("x-endless", "x".repeat(128 * 1024));
    assert_eq!(server.send(endless).await.status.as_u16(), 431);
    server.send(get("/v1/jobs").header("x-fine", "x".repeat(30 * 1024))).await.expect(200);
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
