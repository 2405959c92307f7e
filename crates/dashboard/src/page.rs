//! What stands around every page, and how pages become answers.

use askama::Template;
use axum::{
    http::{StatusCode, request::Parts},
    response::{Html, IntoResponse, Response},
};
use jiff::Timestamp;

use crate::{
    assets,
    client::{Refused, query},
    form::Flash,
    session,
    viewer::Viewer,
};

/// An entry of the menu.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its page.
    pub(crate) href: &'static str,
    /// Its name.
    pub(crate) label: &'static str,
    /// The letter that follows `g` to go there; `-` where there is none.
    pub(crate) key: char,
    /// Whether its page is this one, or above it.
    pub(crate) is_current: bool,
}

/// The pages: address, name, letter, and the route that whoever sees it must be able to call.
const MENU: [(&str, &str, char, &str); 13] = [
    ("/dashboard", "Overview", 'o', ""),
    ("/dashboard/queues", "Queues", 'q', "GET /v1/queues"),
    ("/dashboard/jobs", "Jobs", 'j', "GET /v1/jobs"),
    ("/dashboard/dead-letters", "Dead letters", 'd', "GET /v1/dead-letters/groups"),
    ("/dashboard/operations", "Operations", 'p', "GET /v1/operations"),
    ("/dashboard/workers", "Workers", 'w', "GET /v1/workers"),
    ("/dashboard/schedules", "Schedules", 's', "GET /v1/schedules"),
    ("/dashboard/costs", "Costs", 'c', "GET /v1/costs"),
    ("/dashboard/targets", "Targets", 't', "GET /v1/targets"),
    ("/dashboard/tenants", "Tenants & keys", 'n', "GET /v1/tenants/{tenant}"),
    ("/dashboard/webhooks", "Webhooks", 'h', "GET /v1/webhooks"),
    ("/dashboard/audit", "Audit", 'a', "GET /v1/audit"),
    ("/dashboard/backups", "Backups", 'b', "GET /v1/backups"),
];

/// What stands around a page: its menu, its viewer, its theme.
#[derive(Clone)]
pub(crate) struct Shell {
    /// Who looks.
    pub(crate) viewer: Viewer,
    /// The pages that it may see.
    pub(crate) menu: Vec<Entry>,
    /// `light`, `dark`, or nothing for that of the system.
    pub(crate) theme: Option<&'static str>,
    /// What was done just now.
    pub(crate) flash: Option<Flash>,
    /// What every form carries.
    pub(crate) csrf: String,
    /// Now, by the store's clock.
    pub(crate) now: Timestamp,
    /// The page's path and query.
    pub(crate) here: String,
    /// Where the page is looked at for changes; nothing where it does not change by itself.
    pub(crate) live_at: Option<String>,
    /// Addresses of the stylesheet, the script and the mark.
    pub(crate) links: Links,
}

/// Addresses of what pages load.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    /// The stylesheet.
    pub(crate) css: String,
    /// The script.
    pub(crate) js: String,
    /// The mark in the tab.
    pub(crate) mark: String,
}

impl Links {
    fn new() -> Self {
        Self { css: assets::css(), js: assets::js(), mark: assets::mark() }
    }
}

impl Shell {
    /// What stands around the page that `parts` ask for.
    pub(crate) fn new(viewer: &Viewer, bearer: &str, now: Timestamp, parts: &Parts) -> Self {
        let path = parts.uri.path();
        let here = parts.uri.path_and_query().map_or("/dashboard", |here| here.as_str()).to_owned();
        let seen = MENU.iter().filter(|(.., route)| route.is_empty() || viewer.may(route));
        let menu = seen.map(|&(href, label, key, _)| {
            let below = path.strip_prefix(href).is_some_and(|rest| rest.starts_with('/'));
            Entry { href, label, key, is_current: path == href || (below && href != "/dashboard") }
        });
        Self {
            viewer: viewer.clone(),
            menu: menu.collect(),
            theme: session::theme_of(&parts.headers),
            flash: session::noted(&parts.headers, bearer).as_deref().and_then(Flash::read),
            csrf: session::csrf(bearer),
            now,
            live_at: Some(here.clone()),
            here,
            links: Links::new(),
        }
    }

    /// See [`Viewer::may`].
    pub(crate) fn may(&self, route: &str) -> bool {
        self.viewer.may(route)
    }

    /// Now, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        self.now.as_millisecond()
    }

    /// The same for a page that does not change by itself, or must not be asked for again.
    pub(crate) fn not_live(self) -> Self {
        Self { live_at: None, ..self }
    }

    /// The same for a page that forms are sent from to other addresses: it is looked at for changes, and gone back to, where it
    /// stands itself. What was refused does not change.
    pub(crate) fn standing_at(self, path_and_query: String, problem: Option<&Refused>) -> Self {
        Self { live_at: problem.is_none().then(|| path_and_query.clone()), here: path_and_query, ..self }
    }

    /// Where the script listens for changes. A page whose address is too long to be watched, such as a filter of a hundred ids,
    /// does not change by itself.
    pub(crate) fn live_source(&self) -> Option<String> {
        let at = self.live_at.as_deref().filter(|at| session::way_back(Some(at)) == *at);
        at.map(|at| format!("/dashboard/live{}", query(&[("at", at)])))
    }
}

/// What stands around a page without a viewer.
#[derive(Clone)]
pub(crate) struct BareShell {
    /// See [`Shell::theme`].
    pub(crate) theme: Option<&'static str>,
    /// See [`Shell::here`].
    pub(crate) here: String,
    /// See [`Shell::links`].
    pub(crate) links: Links,
}

impl BareShell {
    /// What stands around the page that `parts` ask for.
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            theme: session::theme_of(&parts.headers),
            here: parts.uri.path_and_query().map_or("/dashboard", |here| here.as_str()).to_owned(),
            links: Links::new(),
        }
    }
}

/// A page as an answer.
pub(crate) fn html<T: Template>(page: T) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be written").into_response()
        }
    }
}

/// A page that shows what was refused beside the form that asked for it, with the refusal's status.
pub(crate) fn html_refused<T: Template>(refused: &Refused, page: T) -> Response {
    let mut response = html(page);
    if response.status() == StatusCode::OK {
        *response.status_mut() = refused.code();
    }
    response
}

/// A page, with the status of the problem that it shows, if it shows one.
pub(crate) fn with_problem<T: Template>(problem: Option<Refused>, page: T) -> Response {
    match problem {
        Some(refused) => html_refused(&refused, page),
        None => html(page),
    }
}

/// What the API refused, in the place of a page.
#[derive(Template)]
#[template(path = "error.html")]
pub(crate) struct ErrorPage {
    /// What stands around it.
    pub(crate) shell: Shell,
    /// What was refused.
    pub(crate) refused: Refused,
}

/// The same where nobody knows who looks.
#[derive(Template)]
#[template(path = "error_bare.html")]
pub(crate) struct BareErrorPage {
    /// What stands around it.
    pub(crate) shell: BareShell,
    /// What was refused.
    pub(crate) refused: Refused,
}
