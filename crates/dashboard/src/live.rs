//! Live pages: every two seconds the page is rendered again, through its own route and with the viewer's own session, and sent if
//! it has changed. So a live page shows what a reload would show, and nothing that a reload would refuse.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, Request, StatusCode, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::stream;
use serde::Deserialize;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tower::ServiceExt;

use crate::{Dashboard, guard, session, viewer::Tick};

/// How often a page is looked at.
const EVERY: Duration = Duration::from_secs(2);
/// A page that takes long is looked at less often: a watcher takes at most one part in so many of a core.
const IDLE_SHARE: u32 = 20;
/// Largest page that is sent, in bytes.
const PAGE_MAX_BYTES: usize = 8 * 1024 * 1024;
/// When to look again after a refusal that names no time.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause that a refusal may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Silence after which a comment is sent, so that nothing between here and the browser takes the stream for dead.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What live pages need: the pages, as the browser gets them.
#[derive(Clone)]
pub(crate) struct Live {
    dashboard: Dashboard,
    pages: Router,
}

impl Live {
    /// Looks at these pages.
    pub(crate) fn new(dashboard: &Dashboard, pages: &Router) -> Self {
        Self { dashboard: dashboard.clone(), pages: pages.clone() }
    }
}

/// Which page.
#[derive(Deserialize)]
pub(crate) struct At {
    at: String,
}

/// One watcher's page.
struct Watch {
    live: Live,
    at: String,
    headers: HeaderMap,
    extensions: axum::http::Extensions,
    last: Option<blake3::Hash>,
    pause: Duration,
    in_trouble: bool,
    has_ended: bool,
    _place: OwnedSemaphorePermit,
}

/// What a look at a page found.
enum Seen {
    Same,
    Changed(String),
    Trouble(u16),
    Gone,
}

/// Sends `page` events with the page's main part when it changes; `trouble` with the status while it cannot be rendered, and `well` when
/// it can again; `gone` when the session has ended, and `full` when there is no room for one more.
pub(crate) async fn live(
    State(live): State<Live>,
    at: Result<Query<At>, QueryRejection>,
    request: axum::extract::Request,
) -> Response {
    let mut response = open(live, at.ok(), request).unwrap_or_else(IntoResponse::into_response);
    guard::dress(&mut response);
    response
}

fn open(live: Live, at: Option<Query<At>>, request: axum::extract::Request) -> Result<Response, StatusCode> {
    let Some(Query(At { at })) = at else { return Err(StatusCode::BAD_REQUEST) };
    if session::way_back(Some(&at)) != at {
        return Err(StatusCode::BAD_REQUEST);
    }
    if session::bearer_of(request.headers()).is_none() {
        return Ok(only("gone"));
    }
    // Said in a stream: of an answer that is none, a script learns nothing.
    let Ok(place) = live.dashboard.watchers.clone().try_acquire_owned() else { return Ok(only("full")) };
    let (parts, _) = request.into_parts();
    let (mut carried, ()) = Request::new(()).into_parts();
    (live.dashboard.carry)(&parts, &mut carried);
    carried.extensions.insert(Tick);
    let cookies = parts.headers.get_all(header::COOKIE).iter().cloned();
    let headers = HeaderMap::from_iter(cookies.map(|cookie| (header::COOKIE, cookie)));
    let watch = Watch {
        at,
        headers,
        extensions: carried.extensions,
        last: None,
        pause: Duration::ZERO,
        in_trouble: false,
        has_ended: false,
        _place: place,
        live,
    };
    let keep_alive = KeepAlive::new().interval(HEARTBEAT);
    let mut response = Sse::new(stream::unfold(watch, next)).keep_alive(keep_alive).into_response();
    // Proxies that gather answers would hold events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// A stream that says one thing.
fn only(what: &'static str) -> Response {
    let event = Event::default().event(what).data(what);
    Sse::new(stream::iter([Ok::<_, Infallible>(event)])).into_response()
}

/// The next event of a watcher.
async fn next(mut watch: Watch) -> Option<(Result<Event, Infallible>, Watch)> {
    loop {
        if watch.has_ended {
            return None;
        }
        let stopping = watch.live.dashboard.stopping.clone();
        tokio::select! {
            () = stopping.cancelled() => return None,
            () = tokio::time::sleep(watch.pause) => {}
        }
        watch.pause = EVERY;
        let began = Instant::now();
        let seen = watch.look().await;
        watch.pause = watch.pause.max(began.elapsed() * IDLE_SHARE);
        let was_in_trouble = std::mem::replace(&mut watch.in_trouble, matches!(seen, Seen::Trouble(_)));
        let event = match seen {
            Seen::Same if was_in_trouble => Event::default().event("well").data("same"),
            Seen::Same => continue,
            Seen::Changed(main) => Event::default().event("page").data(main),
            Seen::Trouble(status) => Event::default().event("trouble").data(status.to_string()),
            Seen::Gone => {
                watch.has_ended = true;
                Event::default().event("gone").data("signed out")
            }
        };
        return Some((Ok(event), watch));
    }
}

impl Watch {
    /// Renders the page, as for its viewer.
    async fn look(&mut self) -> Seen {
        let Ok(mut request) = Request::builder().uri(&self.at).body(Body::empty()) else { return Seen::Gone };
        request.headers_mut().clone_from(&self.headers);
        request.extensions_mut().clone_from(&self.extensions);
        let response = match self.live.pages.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status();
        if status.is_redirection() {
            return Seen::Gone;
        }
        if !status.is_success() {
            let asked = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            self.pause = asked.map_or(TROUBLE_PAUSE, Duration::from_secs).clamp(EVERY, PAUSE_MAX);
            return Seen::Trouble(status.as_u16());
        }
        let body = axum::body::to_bytes(response.into_body(), PAGE_MAX_BYTES).await.unwrap_or_default();
        let page = String::from_utf8_lossy(&body);
        let Some(main) = main_part(&page) else { return Seen::Trouble(StatusCode::BAD_GATEWAY.as_u16()) };
        let hash = blake3::hash(main.as_bytes());
        // The first look is sent in any case: between the page and its stream something may have happened.
        match self.last.replace(hash) == Some(hash) {
            true => Seen::Same,
            false => Seen::Changed(main.to_owned()),
        }
    }
}

/// The part of a page that changes: from its `<main` to its `</main>`, which no text in it can contain, escaped as it is.
fn main_part(page: &str) -> Option<&str> {
    let from = page.find("<main")?;
    let to = page.rfind("</main>")?;
    page.get(from..to + "</main>".len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_part_is_what_changes() {
        let page =
            "<!doctype html><body><nav>x</nav><main id=\"main\">&lt;/main&gt;<p>1</p></main><footer></footer></body>";
        assert_eq!(main_part(page), Some("<main id=\"main\">&lt;/main&gt;<p>1</p></main>"));
        assert_eq!(main_part("<p>no page</p>"), None);
    }
}
