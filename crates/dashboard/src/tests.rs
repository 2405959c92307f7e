//! The dashboard over an API that says what a test wants: what every answer carries, who is let in, and what is sent when a page
//! changes. With the API itself it is tested in `crates/cli/tests/it/dashboard.rs`.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{Inner, Settings, WATCHERS_MAX, mount, session};

/// What an API answers for `/v1/workers`.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<(u16, Value)>>);

impl Fake {
    fn says(&self, status: u16, body: Value) {
        *self.0.lock().unwrap() = (status, body);
    }

    /// The dashboard over it.
    fn dashboard(&self, stopping: CancellationToken) -> Router {
        let router = Router::new().fallback(answer).with_state(self.clone());
        mount(Inner { router, carry: |_, _| {}, stopping }, Settings::default())
    }
}

async fn answer(State(fake): State<Fake>, request: Request) -> Response {
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|bearer| bearer.to_str().ok());
    let may = ["GET /v1/workers", "POST /v1/workers/{id}/drain"];
    let (status, body) = match (bearer, request.uri().path()) {
        (Some("Bearer good"), "/v1/auth/whoami") => {
            let now = "2026-11-30T12:00:00Z";
            (200, json!({"key_id": "abcd1234", "tenant": "acme", "role": "operator", "now": now, "may": may}))
        }
        (Some("Bearer good"), "/v1/workers") => fake.0.lock().unwrap().clone(),
        (Some("Bearer good"), _) => (404, json!({"status": 404, "title": "Not found", "detail": "no such thing"})),
        _ => (401, json!({"status": 401, "title": "Unauthorized", "detail": "the key or token is not valid"})),
    };
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}

fn workers(hosts: &[&str]) -> Value {
    let workers: Vec<_> =
        hosts.iter().map(|host| json!({"id": host, "host": host, "slots": 4, "alive": true})).collect();
    json!({ "workers": workers })
}

fn with_cookie(path: &str, cookie: &str) -> Request {
    Request::builder().uri(path).header(header::COOKIE, cookie).body(Body::empty()).unwrap()
}

async fn get(dashboard: &Router, path: &str, bearer: &str) -> Response {
    let cookie = format!("longshore_session={bearer}");
    dashboard.clone().oneshot(with_cookie(path, &cookie)).await.unwrap()
}

async fn text(response: Response) -> String {
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

fn header_of(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn every_answer_tells_the_browser_what_it_may_do() {
    let fake = Fake::default();
    fake.says(200, workers(&["one"]));
    let dashboard = fake.dashboard(CancellationToken::new());
    for (path, bearer, status) in [
        ("/dashboard/workers", "good", 200),
        ("/dashboard/nowhere/at/all", "good", 404),
        ("/dashboard/workers", "bad", 303),
        ("/dashboard/workers", "", 303),
        ("/dashboard/login", "", 200),
        ("/dashboard/logout", "good", 405),
        ("/dashboard/live?at=/dashboard/workers", "", 200),
        ("/dashboard/live?at=//evil.example", "good", 400),
        ("/dashboard/queues", "good", 404),
    ] {
        let response = get(&dashboard, path, bearer).await;
        assert_eq!(response.status(), status, "{path} by {bearer}");
        let policy = header_of(response.headers(), header::CONTENT_SECURITY_POLICY);
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(header_of(response.headers(), header::X_CONTENT_TYPE_OPTIONS), "nosniff", "{path}");
        assert_eq!(header_of(response.headers(), header::REFERRER_POLICY), "same-origin", "{path}");
        let is_stream = header_of(response.headers(), header::CONTENT_TYPE).starts_with("text/event-stream");
        assert!(is_stream || header_of(response.headers(), header::CACHE_CONTROL) == "no-store", "{path}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_api_is_a_page_with_its_words_and_its_status() {
    let fake = Fake::default();
    let dashboard = fake.dashboard(CancellationToken::new());
    fake.says(
        503,
        json!({"status": 503, "title": "Not now", "detail": "<b>the journal</b> is away", "retry_after_seconds": 2}),
    );
    let response = get(&dashboard, "/dashboard/workers", "good").await;
    assert_eq!((response.status().as_u16(), header_of(response.headers(), header::RETRY_AFTER)), (503, "2"));
    let page = text(response).await;
    assert!(page.contains("<h1>Not now</h1>") && page.contains("&#60;b&#62;the journal"), "{page}");
    assert!(page.contains("aria-current=\"page\""), "the menu is there: {page}");
    fake.says(200, json!("what is this"));
    let response = get(&dashboard, "/dashboard/workers", "good").await;
    assert_eq!(response.status(), 500);
    assert!(text(response).await.contains("is not what this page knows"));
}

#[tokio::test]
async fn a_form_needs_its_page_its_session_and_its_mark() {
    let fake = Fake::default();
    let dashboard = fake.dashboard(CancellationToken::new());
    let post = async |site: &str, bearer: &str, csrf: &str| {
        let request = Request::post("/dashboard/workers/one/drain")
            .header("sec-fetch-site", site)
            .header(header::COOKIE, format!("longshore_session={bearer}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(format!("on=true&csrf={csrf}")))
            .unwrap();
        dashboard.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    let mark = session::csrf("good");
    assert_eq!(post("same-origin", "good", &mark).await, 404, "asked of the API, which has no such worker");
    for (site, csrf) in
        [("cross-site", &*mark), ("same-site", &mark), ("none", &mark), ("same-origin", ""), ("same-origin", "AAAA")]
    {
        assert_eq!(post(site, "good", csrf).await, 403, "{site} {csrf}");
    }
    assert_eq!(post("same-origin", "good", &session::csrf("other")).await, 403);
    assert_eq!(post("same-origin", "", &mark).await, 303, "nobody is signed in");
    assert_eq!(post("same-origin", "bad", &session::csrf("bad")).await, 303, "or not any more");
}

/// The events of a page that is watched.
struct Watched {
    body: axum::body::BodyDataStream,
    text: String,
}

impl Watched {
    async fn of(dashboard: &Router) -> Self {
        let response = get(dashboard, "/dashboard/live?at=/dashboard/workers", "good").await;
        assert_eq!(response.status(), 200);
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next event and its data; `None` at the end.
    async fn next(&mut self) -> Option<(String, String)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let of = |name: &str| {
                    let lines = event.lines().filter_map(|line| line.strip_prefix(name));
                    lines.collect::<Vec<_>>().join("\n")
                };
                let found = (of("event: "), of("data: "));
                self.text = rest.to_owned();
                if !found.0.is_empty() {
                    return Some(found);
                }
                continue;
            }
            let chunk = self.body.next().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_watched_page_is_sent_when_it_differs() {
    let (fake, stopping) = (Fake::default(), CancellationToken::new());
    fake.says(200, workers(&["one"]));
    let dashboard = fake.dashboard(stopping.clone());
    let mut watched = Watched::of(&dashboard).await;
    let (name, page) = watched.next().await.unwrap();
    assert!(name == "page" && page.starts_with("<main") && page.ends_with("</main>"), "{name}: {page}");
    assert!(page.contains("data-key=\"one\""), "{page}");

    // For a minute nothing changes, and nothing is sent but signs of life.
    let quiet = tokio::time::timeout(std::time::Duration::from_secs(60), watched.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    fake.says(200, workers(&["one", "two"]));
    let (name, page) = watched.next().await.unwrap();
    assert!(name == "page" && page.contains("data-key=\"two\""), "{name}: {page}");

    fake.says(503, json!({"status": 503, "detail": "away", "retry_after_seconds": 7}));
    let began = tokio::time::Instant::now();
    assert_eq!(watched.next().await.unwrap(), ("trouble".to_owned(), "503".to_owned()));
    assert_eq!(watched.next().await.unwrap().0, "trouble");
    assert!(began.elapsed().as_secs() >= 7, "it waits as long as it was asked to");
    fake.says(200, workers(&["one", "two"]));
    assert_eq!(watched.next().await.unwrap().0, "well");

    stopping.cancel();
    assert_eq!(watched.next().await, None, "a server that stops lets its watchers go");
}

#[tokio::test(start_paused = true)]
async fn there_is_room_for_so_many_watchers() {
    let (fake, stopping) = (Fake::default(), CancellationToken::new());
    fake.says(200, workers(&["one"]));
    let dashboard = fake.dashboard(stopping);
    let mut all = Vec::new();
    for _ in 0..WATCHERS_MAX {
        all.push(Watched::of(&dashboard).await);
    }
    assert_eq!(Watched::of(&dashboard).await.next().await.unwrap().0, "full");
    all.pop();
    assert_eq!(Watched::of(&dashboard).await.next().await.unwrap().0, "page");
}
