//! API8: what ships is closed: headers, TLS, methods, messages, and nothing beside the API.
//!
//! Headers, TLS and CORS are held by the tests below; left open was what a scanner asks for.

use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Held;
use crate::server::{PATIENCE, Server};

pub(super) const HELD_BY: &[Held] = &[
    ("api/tests/it/headers.rs", "every_answer_is_dressed"),
    ("api/tests/it/headers.rs", "every_route_dresses_every_answer"),
    ("api/tests/it/headers.rs", "only_pages_of_named_origins_may_call"),
    ("api/tests/it/tls.rs", "both_versions_of_tls_are_spoken_and_http_1"),
    ("api/tests/it/tls.rs", "a_certificate_is_replaced_while_connections_are_open"),
    ("api/tests/it/surface.rs", "the_pages_of_the_document_need_no_outside_address"),
    ("cli/src/config/tests.rs", "an_unknown_key_is_refused_by_name"),
    ("cli/src/config/tests.rs", "a_secret_in_the_file_is_refused_and_not_repeated"),
    ("cli/src/config/bad_input.rs", "whatever_a_file_or_a_server_says_is_taken_or_refused"),
    ("cli/tests/it/canaries.rs", "what_is_secret_is_nowhere_but_where_it_belongs"),
];

#[tokio::test]
async fn nothing_is_there_beside_the_api() {
    let server = Server::start().await;
    for path in [
        "/.env",
        "/.git/config",
        "/debug/pprof/",
        "/actuator/env",
        "/server-status",
        "/v1/../../etc/passwd",
        "/docs/..%2f..%2fetc%2fpasswd",
        "/docs/%2e%2e/%2e%2e/Cargo.toml",
        "/swagger.json",
        "/graphql",
        "/v0/jobs",
        "/v2/jobs",
        "/admin",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status.as_u16(), 404, "{path}");
        assert!(!answer.text.contains("root:") && !answer.text.contains("[package]"), "{path}");
    }
    for method in ["TRACE", "TRACK", "PROPFIND", "DEBUG"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = server.request(method.clone(), "/v1/jobs").header("x-echo", "canary");
        let answer = server.http.execute(request.build().unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        assert!(matches!(status, 400 | 404 | 405 | 501), "{method}: {status}");
        assert!(!answer.text().await.unwrap().contains("canary"), "{method}: nothing is echoed");
    }
}

/// Two readings of where a request ends are what requests are smuggled by.
#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused() {
    let server = Server::start().await;
    let host = server.url.strip_prefix("http://").unwrap();
    for head in [
        "content-length: 4\r\ncontent-length: 40\r\n",
        "content-length: +4\r\n",
        "content-length: 4, 40\r\n",
        "content-length: -1\r\n",
        "content-length: 99999999999999999999\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "x y: 1\r\n",
        "x\0: 1\r\n",
        " folded: 1\r\n",
    ] {
        let mut stream = TcpStream::connect(host).await.unwrap();
        let all = format!(
            "POST /v1/jobs HTTP/1.1\r\nhost: x\r\n{head}\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nhost: smuggled\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(all.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Whether it is told so or only cut off.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.contains("HTTP/1.1 2"), "{head:?}: {answer}");
    }
}
