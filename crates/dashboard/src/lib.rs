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
mod page;
mod pages;
mod session;
mod viewer;
mod words;

use std::sync::Arc;

use axum::{
    Router,
    http::request::Parts,
    middleware,
    response::Redirect,
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
pub struct Settings {}

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
}

/// The routes of the dashboard: `/` for browsers, and everything below `/dashboard`. They have no fallback: they are merged into
/// the server's own routes.
pub fn mount(inner: Inner, settings: Settings) -> Router {
    let Settings {} = settings;
    let dashboard = Dashboard {
        api: inner.router,
        carry: inner.carry,
        stopping: inner.stopping,
        watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
    };
    let around = middleware::from_fn_with_state(dashboard.clone(), guard::around);
    let pages = pages::routes().layer(around.clone()).with_state(dashboard.clone());
    let others = Router::new()
        .route("/", get(|| async { Redirect::to("/dashboard") }))
        .route("/dashboard/login", get(login::form).post(login::login))
        .route("/dashboard/logout", post(login::logout))
        .route("/dashboard/theme", post(login::theme))
        .layer(around)
        .with_state(dashboard.clone());
    let live = Router::new().route("/dashboard/live", get(live::live)).with_state(live::Live::new(&dashboard, &pages));
    Router::new().route("/dashboard/assets/{name}", get(assets::asset)).merge(live).merge(others).merge(pages)
}
