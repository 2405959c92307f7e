//! URLs that users name and nobody may be sent to: none of them opens a connection.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use queue_core::egress::{Allowed, Answer, Egress, Lookup, Network, Outgoing, SendError};
use reqwest::{Method, header::HeaderMap};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Longer than anything here takes on a machine that stalls.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that counts who connects, and answers everybody the same.
struct Witness {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Witness {
    async fn on(address: &str, answer: &'static str) -> Option<Self> {
        let listener = TcpListener::bind((address, 0)).await.ok()?;
        let (port, connections) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                        if stream.read_buf(&mut head).await.unwrap_or_default() == 0 {
                            return;
                        }
                    }
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        Some(Self { port, connections })
    }

    fn seen(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A resolver that answers what it is told to, one answer after the other, the last one for ever.
#[derive(Default)]
struct Script {
    answers: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
    asked: AtomicUsize,
}

impl Script {
    fn of(answers: &[(&str, &[&[&str]])]) -> Arc<Self> {
        let parsed = |answer: &&[&str]| answer.iter().map(|text| text.parse().unwrap()).collect();
        let answers = answers.iter().map(|(host, list)| ((*host).to_owned(), list.iter().map(parsed).collect()));
        Arc::new(Self { answers: Mutex::new(answers.collect()), asked: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Lookup for Script {
    async fn lookup(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let list = answers.get_mut(host).ok_or_else(|| std::io::Error::other(format!("no such host: {host}")))?;
        Ok(if list.len() > 1 { list.remove(0) } else { list[0].clone() })
    }
}

async fn send(egress: &Egress, url: &str) -> Result<Answer, SendError> {
    let request = Outgoing {
        url: url.to_owned(),
        method: Method::POST,
        headers: HeaderMap::new(),
        body: "{}".into(),
        timeout: PATIENCE,
        answer_max_bytes: 16,
    };
    egress.send(request).await
}

fn allowed(http: bool, networks: &[&str]) -> Allowed {
    Allowed { http, networks: networks.iter().map(|network| network.parse::<Network>().unwrap()).collect() }
}

/// Every way to write an address or a name that leads home. `PORT` is where the witnesses listen.
const CORPUS: &[&str] = &[
    "http://127.0.0.1:PORT/",
    "http://127.1:PORT/",
    "http://127.0.1:PORT/",
    "http://2130706433:PORT/",
    "http://0x7f000001:PORT/",
    "http://0x7f.0.0.1:PORT/",
    "http://0177.0.0.1:PORT/",
    "http://017700000001:PORT/",
    "http://0x7f.1:PORT/",
    "http://127.0.0.1.:PORT/",
    "http://%31%32%37.0.0.1:PORT/",
    "http://１２７.０.０.１:PORT/",
    "http://127。0。0。1:PORT/",
    "http://①②⑦.0.0.1:PORT/",
    "http://0.0.0.0:PORT/",
    "http://0:PORT/",
    "http://127.255.255.254:PORT/",
    "http://[::1]:PORT/",
    "http://[0:0:0:0:0:0:0:1]:PORT/",
    "http://[::]:PORT/",
    "http://[::ffff:127.0.0.1]:PORT/",
    "http://[::ffff:7f00:1]:PORT/",
    "http://[::127.0.0.1]:PORT/",
    "http://[64:ff9b::7f00:1]:PORT/",
    "http://[64:ff9b:1::7f00:1]:PORT/",
    "http://[2002:7f00:1::]:PORT/",
    "http://[fe80::1]:PORT/",
    "http://[fc00::1]:PORT/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[ff02::1]:PORT/",
    "http://[2001:db8::1]:PORT/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.100.100.200/latest/meta-data/",
    "http://168.63.129.16/machine",
    "http://10.0.0.1:PORT/",
    "http://172.16.0.1:PORT/",
    "http://192.168.0.1:PORT/",
    "http://100.64.0.1:PORT/",
    "http://224.0.0.1:PORT/",
    "http://255.255.255.255:PORT/",
    "http://user:pass@127.0.0.1:PORT/",
    "http://localhost:PORT/",
    "http://LOCALHOST.:PORT/",
    "http://home.example:PORT/",
    "http://mapped.example:PORT/",
    "http://metadata.example:PORT/",
    "http://one-good-one-bad.example:PORT/",
    "http://nothing.example:PORT/",
    "http://unknown.example:PORT/",
    "https://127.0.0.1:PORT/",
    "https://home.example:PORT/",
    "ftp://127.0.0.1:PORT/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:PORT/_x",
    "unix:/run/redis.sock",
    "javascript:alert(1)",
    "http://?x",
    "//127.0.0.1:PORT/",
    "127.0.0.1:PORT",
    "",
];

#[tokio::test]
async fn nothing_leaves_for_any_url_of_the_corpus() {
    let witness = Witness::on("127.0.0.1", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let six = Witness::on("::1", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let names = Script::of(&[
        ("localhost", &[&["127.0.0.1", "::1"]]),
        ("localhost.", &[&["127.0.0.1"]]),
        ("home.example", &[&["127.0.0.1"]]),
        ("mapped.example", &[&["::ffff:127.0.0.1"]]),
        ("metadata.example", &[&["169.254.169.254"]]),
        ("one-good-one-bad.example", &[&["93.184.216.34", "127.0.0.1"]]),
        ("nothing.example", &[&[]]),
    ]);
    assert!(CORPUS.len() >= 40);
    let ports: Vec<u16> = [Some(&witness), six.as_ref()].into_iter().flatten().map(|one| one.port).collect();
    for allow_http in [false, true] {
        let egress = Egress::with_lookup(allowed(allow_http, &[]), names.clone());
        for url in CORPUS {
            for port in &ports {
                let url = url.replace("PORT", &port.to_string());
                let sent = send(&egress, &url).await;
                let unresolved = url.contains("unknown.example") || url.contains("nothing.example");
                match sent {
                    Err(SendError::Refused(_)) => {}
                    // There is no such place.
                    Err(SendError::Transport { .. }) if unresolved => {}
                    other => panic!("{url}: {other:?}"),
                }
            }
        }
    }
    assert_eq!(witness.seen(), 0);
    assert_eq!(six.map_or(0, |six| six.seen()), 0);
}

/// A name that leads to a good address when it is checked and to a bad one a moment later: the connection is made to the
/// address that was checked, and the next connection is checked anew.
#[tokio::test]
async fn a_name_that_answers_differently_a_moment_later_gains_nothing() {
    // A port that is free on both: somebody else's test may have this one on the other address.
    let (good, listener) = loop {
        let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
        let good = Witness::on("127.0.0.2", answer).await.unwrap();
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", good.port)).await {
            break (good, listener);
        }
    };
    let rebinds: &[&[&str]] = &[&["127.0.0.2"], &["127.0.0.1"]];
    let names = Script::of(&[("rebind.example", rebinds)]);
    // Only the first address is allowed: it stands for a public one, which a test may not reach.
    let egress = Egress::with_lookup(allowed(true, &["127.0.0.2/32"]), names.clone());
    let url = format!("http://rebind.example:{}/", good.port);
    let answer = send(&egress, &url).await.unwrap();
    assert_eq!((answer.status, &answer.body[..], good.seen()), (200, &b"ok"[..], 1));
    assert_eq!(names.asked.load(Ordering::SeqCst), 1, "it is asked once for a connection");
    assert!(matches!(send(&egress, &url).await, Err(SendError::Refused(_))));
    assert_eq!((good.seen(), names.asked.load(Ordering::SeqCst)), (1, 2));
    let nobody = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(nobody.is_err(), "nobody came to the second address");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let inner = Witness::on("127.0.0.1", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let location =
        format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{}/\r\ncontent-length: 0\r\n\r\n", inner.port);
    let outer = Witness::on("127.0.0.2", location.leak()).await.unwrap();
    let egress = Egress::new(allowed(true, &["127.0.0.0/8"]));
    let answer = send(&egress, &format!("http://127.0.0.2:{}/", outer.port)).await.unwrap();
    assert_eq!((answer.status, outer.seen(), inner.seen()), (302, 1, 0));
}

#[tokio::test]
async fn an_answer_has_bounds() {
    let long =
        "HTTP/1.1 200 OK\r\ncontent-length: 64\r\n\r\n0123456789012345678901234567890123456789012345678901234567890123";
    let server = Witness::on("127.0.0.1", long).await.unwrap();
    let egress = Egress::new(allowed(true, &["127.0.0.0/8"]));
    let answer = send(&egress, &format!("http://127.0.0.1:{}/", server.port)).await.unwrap();
    assert_eq!((&answer.body[..], answer.is_whole), (&b"0123456789012345"[..], false));
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let request = Outgoing {
        url: format!("http://{}/", silent.local_addr().unwrap()),
        method: Method::GET,
        headers: HeaderMap::new(),
        body: Default::default(),
        timeout: Duration::from_millis(50),
        answer_max_bytes: 16,
    };
    assert_eq!(egress.send(request).await.err(), Some(SendError::Timeout(Duration::from_millis(50))));
}

#[test]
fn a_url_is_refused_with_a_reason() {
    let egress = Allowed::default();
    for (url, why) in [
        ("http://a.example/", "allow_http"),
        ("https://a:b@a.example/", "credentials"),
        ("https://10.0.0.1/", "private"),
        ("nonsense", "not a URL"),
        ("ftp://a.example/", "scheme"),
    ] {
        let refused = egress.check(url).unwrap_err();
        assert!(refused.contains(why), "{url}: {refused}");
    }
    assert_eq!(egress.check("HTTPS://A.example/x").as_deref(), Ok("https://a.example/x"));
    assert!(egress.check(&format!("https://a.example/{}", "x".repeat(3_000))).is_err());
    let grows = format!("https://a.example/{}", "é".repeat(600));
    assert_eq!(egress.check(&grows).unwrap_err(), "is 3618 bytes long as it is sent; a URL has at most 2048");
}
