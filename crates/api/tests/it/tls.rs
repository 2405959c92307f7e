//! TLS in process: what is agreed on, a certificate that is replaced while connections are open, and clients that are silent.

use std::{sync::Arc, time::Duration};

use crate::server::{PATIENCE, Server};
use api::Tls;
use reqwest::{Certificate as Trusted, Version};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use testkit::Certificate;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const HOST: &str = "127.0.0.1";

/// A server that shows this certificate, with this bound on what clients have begun.
async fn start(certificate: &Certificate, slow_max: Duration) -> (Server, Arc<Tls>) {
    let tls = Arc::new(Tls::new(&certificate.chain, &certificate.key.clone().into()).unwrap());
    let shown = tls.clone();
    let server = Server::start_with(|api| {
        api.tls = Some(shown);
        api.settings.bounds.slow_max = slow_max;
    })
    .await;
    (server, tls)
}

fn address(server: &Server) -> String {
    server.url.strip_prefix("http://").unwrap().to_owned()
}

fn https(server: &Server, path: &str) -> String {
    format!("https://{}{path}", address(server))
}

/// A client that believes this certificate and no other.
fn trusting(certificate: &Certificate) -> reqwest::ClientBuilder {
    let trusted = Trusted::from_pem(certificate.chain.as_bytes()).unwrap();
    reqwest::Client::builder().no_proxy().tls_certs_only([trusted])
}

/// A connection after its handshake, by whoever believes these certificates.
async fn greet(server: &Server, trusted: &[&Certificate], old: bool) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(CertificateDer::from_pem_slice(certificate.chain.as_bytes()).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = if old { &[&TLS12] } else { &[&TLS13] };
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address(server)).await.unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Asks for `/livez` and keeps the connection.
async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
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

/// The certificate that the other side has shown.
fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn der(certificate: &Certificate) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(certificate.chain.as_bytes()).unwrap()
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken_and_http_1() {
    let certificate = Certificate::of(HOST);
    let (mut server, _) = start(&certificate, Duration::from_secs(10)).await;
    // Whoever would rather speak HTTP/2 gets HTTP/1.1, too.
    for client in [trusting(&certificate), trusting(&certificate).http1_only()] {
        let client = client.build().unwrap();
        let answer = client.get(https(&server, "/livez")).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_11));
        assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
        let job = r#"{"kind":"probe","payload":{}}"#;
        let submit = client.post(https(&server, "/v1/jobs")).bearer_auth(&server.key);
        let answer = submit.header("content-type", "application/json").body(job).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 202);
        // A body without a word of its length.
        let piece = futures::stream::iter([Ok::<_, std::io::Error>("{\"nonsense\": 1}")]);
        let pause = client.put(https(&server, "/v1/maintenance")).bearer_auth(&server.key);
        let pause = pause.header("content-type", "application/json").body(reqwest::Body::wrap_stream(piece));
        assert_eq!(pause.send().await.unwrap().status().as_u16(), 422, "it was read");
    }
    for old in [true, false] {
        let mut stream = greet(&server, &[&certificate], old).await.unwrap();
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
    let stranger = trusting(&Certificate::of(HOST)).build().unwrap();
    assert!(stranger.get(https(&server, "/livez")).send().await.is_err(), "another certificate is not this one");
    server.stop().await;
}

#[tokio::test]
async fn a_certificate_is_replaced_while_connections_are_open() {
    let (one, two) = (Certificate::of(HOST), Certificate::of(HOST));
    let (server, tls) = start(&one, Duration::from_secs(10)).await;
    let mut open = greet(&server, &[&one, &two], false).await.unwrap();
    ask(&mut open).await;
    assert_eq!(shown(&open), der(&one));
    tls.replace(&two.chain, &two.key.clone().into()).unwrap();
    for old in [true, false] {
        let mut next = greet(&server, &[&one, &two], old).await.unwrap();
        assert_eq!(shown(&next), der(&two));
        ask(&mut next).await;
    }
    assert!(ask(&mut open).await.starts_with("HTTP/1.1 200 OK\r\n"), "it goes on as it began");

    let health = async || {
        let client = trusting(&two).build().unwrap();
        let answer = client.get(https(&server, "/health")).send().await.unwrap();
        let text = answer.text().await.unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["checks"]["certificate"].as_str().unwrap().to_owned()
    };
    assert_eq!(health().await, "ok");
    for (chain, key) in
        [(&one.chain, &two.key), (&two.key, &two.key), (&String::new(), &two.key), (&one.chain, &one.chain)]
    {
        let reason = tls.replace(chain, &key.clone().into()).unwrap_err();
        assert!(!reason.contains(two.key.lines().nth(1).unwrap()), "{reason}");
        assert_eq!(shown(&greet(&server, &[&two], false).await.unwrap()), der(&two), "the one before stays");
        let said = health().await;
        assert!(said.starts_with("the one before is shown") && said.ends_with(&reason), "{said}");
    }
    tls.replace(&two.chain, &two.key.clone().into()).unwrap();
    assert_eq!(health().await, "ok");
    let page = trusting(&two).build().unwrap().get(https(&server, "/metrics")).send().await.unwrap();
    let page = page.text().await.unwrap();
    assert!(page.contains("longshore_certificate_ends_timestamp_seconds 41024"), "the year 2100");
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_reported() {
    let ended = Certificate::until(HOST, 2001);
    let (server, _) = start(&ended, Duration::from_secs(10)).await;
    assert!(greet(&server, &[&ended], false).await.is_err(), "nobody believes it");
    let client = trusting(&ended).tls_danger_accept_invalid_certs(true).build().unwrap();
    let report = client.get(https(&server, "/health")).send().await.unwrap().text().await.unwrap();
    assert!(report.contains("it has ended at 2001-01-01T00:00:00"), "{report}");
}

#[tokio::test]
async fn who_begins_no_handshake_is_not_waited_for() {
    let certificate = Certificate::of(HOST);
    let (server, _) = start(&certificate, Duration::from_millis(200)).await;
    let silent = TcpStream::connect(address(&server)).await.unwrap();
    let mut half = TcpStream::connect(address(&server)).await.unwrap();
    half.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    let mut lost = TcpStream::connect(address(&server)).await.unwrap();
    lost.write_all(&[255; 64]).await.unwrap();
    for mut stream in [silent, half, lost] {
        let mut seen = Vec::new();
        // Whether with an alert, a reset or nothing: it is over.
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut seen)).await;
        let _ = closed.expect("the server closes the connection");
        assert!(seen.len() < 16, "{seen:?}");
    }
    let mut plain = TcpStream::connect(address(&server)).await.unwrap();
    plain.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut told = String::new();
    tokio::time::timeout(PATIENCE, plain.read_to_string(&mut told)).await.expect("an answer and an end").unwrap();
    assert!(told.starts_with("HTTP/1.1 400 Bad Request\r\n") && told.contains("use https://"), "{told}");
    assert!(!told.contains("strict-transport-security"), "{told}");
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends_its_connection_over_tls_too() {
    let certificate = Certificate::of(HOST);
    let tls = Arc::new(Tls::new(&certificate.chain, &certificate.key.clone().into()).unwrap());
    let server = Server::start_with(|api| {
        api.tls = Some(tls);
        (api.settings.bounds.head_max, api.settings.bounds.slow_max) =
            (Duration::from_secs(1), Duration::from_secs(10));
    })
    .await;
    let mut deaf = greet(&server, &[&certificate], false).await.unwrap();
    // More than both ends keep for each other: some tens of MiB.
    let many = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(300);
    let asked = async {
        let _ = deaf.write_all(many.as_bytes()).await;
        // Only a connection that is gone refuses to take more.
        while deaf.write_all(b"\r\n").await.is_ok() && deaf.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("the server closes the connection");
}
