//! Who looks: asked of the API for every page, so a key that was revoked a moment ago shows nothing any more.

use std::collections::BTreeSet;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, Method, StatusCode, Uri, header, request::Parts},
    response::{Html, IntoResponse, Redirect, Response},
};
use serde::Deserialize;

use crate::{
    Dashboard,
    client::{Client, Refused, query},
    oidc,
    page::Shell,
    session, words,
};

/// Who looks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Viewer {
    /// Its key's public part, or `sub:…` for the bearer of an issuer's token.
    pub(crate) key_id: String,
    /// Its tenant.
    pub(crate) tenant: String,
    /// Its role: `user`, `analyst`, `operator`, `admin`.
    pub(crate) role: String,
    /// What its role is narrowed to; empty: to nothing.
    pub(crate) scopes: Vec<String>,
    /// When its key or token ends.
    pub(crate) expires_at: Option<String>,
    /// Now, by the store's clock.
    pub(crate) now: String,
    /// The routes that it may call, `PATCH /v1/queues/{queue}`.
    may: BTreeSet<String>,
}

impl Viewer {
    /// Whether it may call this route, as the API's table names it: what it may not, it is not offered.
    pub(crate) fn may(&self, route: &str) -> bool {
        self.may.contains(route)
    }

    /// Whether there is only one tenant for it: its own.
    pub(crate) fn is_bound(&self) -> bool {
        !matches!(self.role.as_str(), "operator" | "admin")
    }
}

/// Marks a request that renders a page again, to see whether it has changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tick;

/// Somebody who looks at a page.
#[derive(Clone)]
pub(crate) struct Visit {
    /// Who.
    pub(crate) viewer: Viewer,
    /// The API, as the viewer sees it.
    pub(crate) client: Client,
    /// What stands around every page.
    pub(crate) shell: Shell,
}

impl Visit {
    /// The visit that a request is part of; the API's answer where it lets nobody in.
    pub(crate) async fn of(dashboard: &Dashboard, parts: &Parts) -> Result<Self, Refused> {
        let Some(bearer) = session::bearer_of(&parts.headers) else {
            return Err(Refused::new(StatusCode::UNAUTHORIZED, "nobody is signed in"));
        };
        let client = Client::as_bearer(dashboard, &bearer, parts);
        let viewer: Viewer = client.get("/v1/auth/whoami").await?;
        let now = words::timestamp(&viewer.now).unwrap_or_default();
        let shell = Shell::new(&viewer, &bearer, now, parts);
        Ok(Self { viewer, client, shell })
    }
}

impl FromRequestParts<Dashboard> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Dashboard) -> Result<Self, Response> {
        match Self::of(dashboard, parts).await {
            Ok(visit) => Ok(visit),
            Err(refused) if refused.status == 401 => Err(to_login(&parts.method, &parts.uri, &parts.headers)),
            Err(refused) => Err(refused.into_response()),
        }
    }
}

/// The way in for who has no session, or one that has ended, and from there back.
pub(crate) fn to_login(method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
    let here = uri.path_and_query().map_or("/dashboard", |here| here.as_str());
    let is_read = method == Method::GET || method == Method::HEAD;
    if is_read && is_from_elsewhere(headers) && session::way_back(Some(here)) == here {
        return again(here);
    }
    let next = if is_read { here } else { "" };
    // What a script asks for cannot be answered by a page of somebody else.
    let is_navigation = headers.get("sec-fetch-mode").is_none_or(|mode| mode == "navigate");
    if let Some(way) = oidc::way_in(headers, next).filter(|_| is_read && is_navigation) {
        return Redirect::to(&way).into_response();
    }
    Redirect::to(&format!("/dashboard/login{}", query(&[("next", next)]))).into_response()
}

/// Whether a page of somebody else led here: then the browser kept the session's cookie to itself.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site")
}

/// Sends the browser to the same page again, as from ours: with the session, if it has one.
fn again(here: &str) -> Response {
    let page = "<!doctype html><html lang=\"en\"><title>Longshore</title><p>One moment …</p></html>";
    ([(header::REFRESH, format!("0; url={here}"))], Html(page)).into_response()
}
