//! The layer around all pages: what browsers are told about each, pages for what was refused, and the message of a redirect.

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{
    Dashboard,
    client::Refused,
    form::{Flash, with_cookies},
    page::{BareErrorPage, BareShell, ErrorPage, Shell, html_refused},
    session,
    viewer::{self, Tick, Visit},
};

/// What a page may load and do: what comes from here, and nothing written into it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
     frame-ancestors 'none'; base-uri 'none'",
);
/// With `no-referrer`, browsers would hide from where a form comes (`Origin: null`).
const REFERRER: HeaderValue = HeaderValue::from_static("same-origin");

/// See the module.
pub(crate) async fn around(State(dashboard): State<Dashboard>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let known = parts.clone();
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if let Some(refused) = response.extensions_mut().remove::<Refused>() {
        let headers = std::mem::take(response.headers_mut());
        response = explained(&dashboard, &known, refused).await;
        for (name, value) in &headers {
            response.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
    }
    let cookies = notes(&known, &mut response);
    let mut response = with_cookies(response, cookies);
    dress(&mut response);
    response
}

/// The page of a refusal.
async fn explained(dashboard: &Dashboard, parts: &Parts, refused: Refused) -> Response {
    if refused.status == 401 {
        return with_cookies(viewer::to_login(&parts.method, &parts.uri, &parts.headers), session::end());
    }
    match Visit::of(dashboard, parts).await {
        Ok(visit) => {
            let here = came_from(parts);
            let shell = Shell { here, ..visit.shell.not_live() };
            html_refused(&refused, ErrorPage { shell, refused: refused.clone() })
        }
        Err(_) => html_refused(&refused, BareErrorPage { shell: BareShell::new(parts), refused: refused.clone() }),
    }
}

/// The page that asked: this one, or the one whose form was sent here.
fn came_from(parts: &Parts) -> String {
    if parts.method == Method::GET {
        return parts.uri.path_and_query().map_or("/dashboard", |here| here.as_str()).to_owned();
    }
    let from = parts.headers.get(header::REFERER).and_then(|from| from.to_str().ok()?.parse::<Uri>().ok());
    session::way_back(from.as_ref().and_then(Uri::path_and_query).map(|from| from.as_str()))
}

/// The cookies of messages: one that is told with the next page, or the end of one that was told with this.
fn notes(parts: &Parts, response: &mut Response) -> Option<HeaderValue> {
    if let Some(flash) = response.extensions_mut().remove::<Flash>() {
        let bearer = session::bearer_of(&parts.headers)?;
        return session::note(&bearer, &flash.written());
    }
    let is_told = parts.method == Method::GET
        && !response.status().is_redirection()
        && parts.extensions.get::<Tick>().is_none()
        && is_page(response);
    if is_told { session::forget_note(&parts.headers) } else { None }
}

fn is_page(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}

/// What every answer of the dashboard says.
pub(crate) fn dress(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::REFERRER_POLICY, REFERRER);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// An address below `/dashboard` that no page has.
pub(crate) async fn no_page(parts: Parts) -> Response {
    let detail = format!("there is no page {}", parts.uri.path());
    Refused::new(StatusCode::NOT_FOUND, detail).into_response()
}

/// A page that nothing can be sent to.
pub(crate) async fn no_method(parts: Parts) -> Response {
    let detail = format!("{} cannot be done with {}", parts.method, parts.uri.path());
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, detail).into_response()
}
