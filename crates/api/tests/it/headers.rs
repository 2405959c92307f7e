//! What every answer tells browsers, which pages may call, and what is compressed.

use crate::server::Server;
use reqwest::{Method, RequestBuilder, header};
use serde_json::json;

const PAGE: &str = "https://app.example";

#[tokio::test]
async fn every_answer_is_dressed() {
    let server = Server::start().await;
    let bare = |path: &str| server.http.request(Method::GET, format!("{}{path}", server.url));
    let answers = [
        server.get("/v1/jobs").await,
        server.get("/no/such/path").await,
        server.post("/v1/jobs", &json!({})).await,
        server.send(bare("/v1/jobs")).await,
        server.send(server.request(Method::PUT, "/v1/jobs")).await,
        server.get("/health").await,
        server.get("/openapi.json").await,
        server.get("/docs/").await,
    ];
    for answer in answers {
        let told = ["x-content-type-options", "x-frame-options", "referrer-policy"].map(|name| answer.header(name));
        assert_eq!(told, ["nosniff", "DENY", "no-referrer"], "{}", answer.text);
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") || policy.contains("default-src 'self'"), "{policy}");
        assert!(!answer.header("x-request-id").is_empty());
    }
    assert_eq!(server.get("/v1/jobs").await.header("cache-control"), "no-store");
}

#[tokio::test]
async fn every_route_dresses_every_answer() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.expect(200);
    let mut routes = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let filled = path.replace("{id}", "01900000-0000-7000-8000-000000000000");
        let filled = filled.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
        let address = format!("{}{}", server.url, filled.collect::<Vec<_>>().join("/"));
        for method in item.as_object().unwrap().keys().filter(|name| *name != "parameters") {
            let method: Method = method.to_uppercase().parse().unwrap();
            let ask = |key: &str| {
                server.http.request(method.clone(), &address).bearer_auth(key).header("x-request-id", "mine")
            };
            // Whoever may not, and whoever says nothing: neither changes anything, and most are errors.
            for request in [ask("nobody"), ask(&server.key)] {
                if method == Method::DELETE && path == "/v1/keys" {
                    continue;
                }
                let answer = server.send(request).await;
                let place = format!("{method} {path}: {}", answer.status);
                let told: Vec<_> = DRESS.iter().map(|(name, _)| (*name, answer.header(name))).collect();
                assert_eq!(told, DRESS, "{place}");
                if path.starts_with("/v1") {
                    assert_eq!(answer.header("cache-control"), "no-store", "{place}");
                }
                if answer.status.as_u16() >= 400 {
                    assert_eq!(answer.header("content-type"), "application/problem+json", "{place}");
                }
                for name in answer.headers.keys() {
                    assert!(
                        KNOWN.contains(&name.as_str()),
                        "{place}: {name} is a header that nobody has thought about"
                    );
                }
            }
            routes += 1;
        }
    }
    assert!(routes > 60, "{routes}");
}

/// What every answer says.
const DRESS: &[(&str, &str)] = &[
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("x-request-id", "mine"),
    ("strict-transport-security", ""),
    ("server", ""),
];

/// What an answer may say at all.
const KNOWN: &[&str] = &[
    "cache-control",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "etag",
    "location",
    "referrer-policy",
    "retry-after",
    "transfer-encoding",
    "vary",
    "www-authenticate",
    "x-content-type-options",
    "x-frame-options",
    "x-request-id",
];

fn preflight(server: &Server, origin: &str) -> RequestBuilder {
    let request = server.http.request(Method::OPTIONS, format!("{}/v1/jobs", server.url));
    request
        .header(header::ORIGIN, origin)
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
        .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization,idempotency-key")
}

#[tokio::test]
async fn only_pages_of_named_origins_may_call() {
    let server = Server::start_with(|api| api.settings.cors_origins = vec![PAGE.into()]).await;
    let allowed = server.send(preflight(&server, PAGE)).await;
    assert_eq!((allowed.status.as_u16(), allowed.header("access-control-allow-origin")), (200, PAGE));
    assert!(allowed.header("access-control-allow-headers").contains("idempotency-key"));
    assert!(allowed.header("access-control-allow-credentials").is_empty(), "no cookies");
    let from = |origin: &str| server.request(Method::GET, "/v1/jobs").header(header::ORIGIN, origin);
    let read = server.send(from(PAGE)).await;
    assert_eq!((read.status.as_u16(), read.header("access-control-allow-origin")), (200, PAGE));
    assert!(read.header("access-control-expose-headers").contains("etag"));
    for stranger in ["https://evil.example", "https://app.example.evil.example", "null"] {
        let refused = server.send(preflight(&server, stranger)).await;
        assert!(refused.header("access-control-allow-origin").is_empty(), "{stranger}");
        let read = server.send(from(stranger)).await;
        assert!(read.header("access-control-allow-origin").is_empty(), "a browser does not show it to {stranger}");
    }
    let nobody = Server::start().await;
    let refused = nobody.send(preflight(&nobody, PAGE)).await;
    assert!(refused.header("access-control-allow-origin").is_empty());
    assert_eq!(refused.status.as_u16(), 405);
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_take_it_and_streams_are_not() {
    let server = Server::start().await;
    let id = server.submit(json!({})).await;
    let asks = |path: &str, encoding: &str| server.request(Method::GET, path).header(header::ACCEPT_ENCODING, encoding);
    for encoding in ["gzip", "br", "zstd"] {
        let answer = asks("/openapi.json", encoding).send().await.unwrap();
        assert_eq!(answer.headers()[header::CONTENT_ENCODING], encoding);
        let size = answer.bytes().await.unwrap().len();
        let plain = asks("/openapi.json", "identity").send().await.unwrap();
        assert!(plain.headers().get(header::CONTENT_ENCODING).is_none());
        assert!(size * 4 < plain.bytes().await.unwrap().len(), "{encoding}: {size}");
        let small = asks("/livez", encoding).send().await.unwrap();
        assert!(small.headers().get(header::CONTENT_ENCODING).is_none(), "{encoding}");
        let stream = asks(&format!("/v1/jobs/{id}/events"), encoding).send().await.unwrap();
        assert!(stream.headers().get(header::CONTENT_ENCODING).is_none(), "{encoding}");
    }
}
