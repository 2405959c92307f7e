//! The dashboard: pages for operators, rendered on the server. It is a client of the API, in process: it knows no store, no queue
//! and no journal, and asks the API's own router with the viewer's bearer. So what a page shows and what an action may do is
//! decided by the API's table of permissions, and every change is in the audit log.
//!
//! It keeps nothing: a session is its cookie, so any replica serves any request.

mod assets;
mod chart;
mod client;
mod form;
mod guard;
mod live;
mod login;
pub mod oidc;
mod page;
mod pages;
mod session;
#[cfg(test)]
mod tests;
mod viewer;
mod words;

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderMap, StatusCode, header, request::Parts},
    middleware,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Most pages that are kept live at once by one process: each is rendered every two seconds, and holds a connection.
const WATCHERS_MAX: usize = 64;

/// What the dashboard asks, and how.
pub struct Inner {
    /// The API's router, with all its layers.
    pub router: Router,
    /// Copies from the request of a browser what the API shall know of it: the address that it came from, its request id.
    pub carry: fn(&Parts, &mut Parts),
    /// Fires when the server stops: live pages end.
    pub stopping: CancellationToken,
}

/// Switches of the dashboard.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The identity provider that people sign in with, besides keys and tokens.
    pub oidc: Option<Arc<oidc::Oidc>>,
}

/// What every handler has.
#[derive(Clone)]
pub(crate) struct Dashboard {
    /// The API.
    pub(crate) api: Router,
    /// See [`Inner::carry`].
    pub(crate) carry: fn(&Parts, &mut Parts),
    /// See [`Inner::stopping`].
    pub(crate) stopping: CancellationToken,
    /// Room for live pages.
    pub(crate) watchers: Arc<Semaphore>,
    /// See [`Settings::oidc`].
    pub(crate) oidc: Option<Arc<oidc::Oidc>>,
}

/// The routes of the dashboard: `/` for browsers, and everything below `/dashboard`. They have no fallback: they are merged into
/// the server's own routes.
pub fn mount(inner: Inner, settings: Settings) -> Router {
    let dashboard = Dashboard {
        api: inner.router,
        carry: inner.carry,
        stopping: inner.stopping,
        watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
        oidc: settings.oidc,
    };
    let around = middleware::from_fn_with_state(dashboard.clone(), guard::around);
    let pages = pages::routes().layer(around.clone()).with_state(dashboard.clone());
    let others = Router::new()
        .route("/dashboard/login", get(login::form).post(login::login))
        .route("/dashboard/logout", post(login::logout))
        .route("/dashboard/theme", post(login::theme))
        .merge(oidc::routes())
        .layer(around)
        .with_state(dashboard.clone());
    let live = Router::new().route("/dashboard/live", get(live::live)).with_state(live::Live::new(&dashboard, &pages));
    Router::new()
        .route("/", get(root))
        .route("/dashboard/assets/{name}", get(assets::asset))
        .merge(live)
        .merge(others)
        .merge(pages)
}

/// Whoever reads pages is sent to the first; for others there is nothing here.
async fn root(headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok()).unwrap_or_default();
    match accepted.contains("text/html") {
        true => Redirect::to("/dashboard").into_response(),
        false => StatusCode::NOT_FOUND.into_response(),
    }
}
