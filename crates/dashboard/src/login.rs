//! Signing in and out, and the choice of a theme.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Dashboard,
    client::{Client, Refused},
    form::{self, Posted, with_cookies},
    oidc,
    page::{BareShell, html, html_refused},
    session,
};

/// How long a session of a key lives: a working day and a night shift. The API ends it sooner where the key ends.
const SESSION_LIFE: &str = "12h";

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    shell: BareShell,
    next: String,
    provider: Option<Provider>,
    problem: Option<Refused>,
}

/// The identity provider that one may sign in with.
struct Provider {
    name: String,
    start: String,
}

impl LoginPage {
    fn new(dashboard: &Dashboard, parts: &Parts, next: String, problem: Option<Refused>) -> Self {
        let provider =
            |oidc: &Arc<oidc::Oidc>| Provider { name: oidc.name().to_owned(), start: oidc::start_address(&next) };
        Self { shell: BareShell::new(parts), provider: dashboard.oidc.as_ref().map(provider), next, problem }
    }
}

/// Where somebody who has signed out here signs out at the provider, too.
#[derive(Template)]
#[template(path = "signed_out.html")]
struct SignedOutPage {
    shell: BareShell,
    provider: String,
    place: String,
}

/// What the API gives for a key.
#[derive(Deserialize)]
struct Token {
    token: String,
    expires_in: i64,
}

/// The form.
pub(crate) async fn form(State(dashboard): State<Dashboard>, parts: Parts) -> Response {
    let next = next_of(&parts);
    html(LoginPage::new(&dashboard, &parts, next, None))
}

/// Where to go after a login, as the address says.
pub(crate) fn next_of(parts: &Parts) -> String {
    let mut pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let next = pairs.find(|(name, _)| name == "next").map(|(_, next)| next.into_owned());
    session::way_back(next.as_deref())
}

/// Trades a key for a token, which is the session; a token is the session as it is. The key is forgotten: what a browser keeps
/// ends by itself and can be taken back.
pub(crate) async fn login(State(dashboard): State<Dashboard>, request: Request) -> Response {
    if let Err(refused) = form::check_sender(request.headers()) {
        return refused.into_response();
    }
    let (parts, body) = request.into_parts();
    let fields = match form::read(Request::from_parts(parts.clone(), body)).await {
        Ok(fields) => fields,
        Err(refused) => return refused.into_response(),
    };
    let text = |name| fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim());
    let next = session::way_back(Some(text("next")));
    match cookies(&dashboard, &parts, text("secret")).await {
        Ok(cookies) => with_cookies(Redirect::to(&next).into_response(), cookies),
        Err(problem) => {
            let page = LoginPage::new(&dashboard, &parts, next, Some(problem.clone()));
            html_refused(&problem, page)
        }
    }
}

async fn cookies(dashboard: &Dashboard, parts: &Parts, secret: &str) -> Result<Vec<HeaderValue>, Refused> {
    if secret.is_empty() {
        return Err(Refused::field("secret", "is required: a key (lsk_…) or a token"));
    }
    if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Refused::field("secret", "is neither a key nor a token: it has blanks or other letters in it"));
    }
    let client = Client::as_bearer(dashboard, secret, parts);
    let is_secure = form::is_secure(&parts.headers);
    let begun = if secret.starts_with("lsk_") {
        let wish = json!({ "expires_in": SESSION_LIFE });
        let token: Token = client.send(Method::POST, "/v1/auth/token", Some(&wish)).await.map_err(advised)?;
        session::begin(&token.token, Some(token.expires_in), is_secure)
    } else {
        let _: Value = client.get("/v1/auth/whoami").await?;
        session::begin(secret, None, is_secure)
    };
    begun.map_err(|_| {
        let most = session::BEARER_MAX_BYTES;
        Refused::field("secret", format!("is a token that is longer than browsers keep ({most} bytes), or none at all"))
    })
}

/// What to do where a key gets no token.
fn advised(refused: Refused) -> Refused {
    let advice = match refused.status {
        403 => "Signing in makes a token of the key, so the key needs the scope `auth:token`, or none at all.",
        _ => return refused,
    };
    Refused { detail: format!("{}. {advice}", refused.detail), ..refused }
}

/// Takes the session's token back, and lets the browser forget it.
pub(crate) async fn logout(State(dashboard): State<Dashboard>, parts: Parts, posted: Posted) -> Response {
    let ended: Result<Value, Refused> = posted.visit.client.send(Method::DELETE, "/v1/auth/token", None).await;
    if let Err(refused) = ended {
        // A key in the place of a token is not revoked by signing out.
        tracing::info!(
            status = refused.status,
            detail = refused.detail,
            "a session ended without taking its token back"
        );
    }
    let cookies = session::end().into_iter().chain([oidc::forget_way()]);
    let leaving = match (&dashboard.oidc, session::bearer_of(&parts.headers)) {
        (Some(oidc), Some(bearer)) => oidc.sign_out_address(&bearer).await.map(|place| (oidc.name(), place)),
        _ => None,
    };
    let Some((provider, place)) = leaving else {
        return with_cookies(Redirect::to("/dashboard/login").into_response(), cookies);
    };
    // A page, and no redirect: browsers hold `form-action` against what a form is redirected to.
    let refresh = format!("0; url={place}");
    // Nothing can be read where this form was sent to.
    let shell = BareShell { here: "/dashboard/login".to_owned(), ..BareShell::new(&parts) };
    let page = SignedOutPage { shell, provider: provider.to_owned(), place };
    let mut response = with_cookies(html(page), cookies);
    if let Ok(refresh) = HeaderValue::try_from(refresh) {
        response.headers_mut().insert(header::REFRESH, refresh);
    }
    response
}

/// Remembers a theme.
pub(crate) async fn theme(request: Request) -> Response {
    if let Err(refused) = form::check_sender(request.headers()) {
        return refused.into_response();
    }
    let fields = match form::read(request).await {
        Ok(fields) => fields,
        Err(refused) => return refused.into_response(),
    };
    let text = |name| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let theme = match text("theme") {
        Some("light") => Some("light"),
        Some("dark") => Some("dark"),
        Some("system") => None,
        _ => return Refused::new(StatusCode::UNPROCESSABLE_ENTITY, "a theme is light, dark or system").into_response(),
    };
    let back = session::way_back(text("next"));
    with_cookies(Redirect::to(&back).into_response(), session::remember_theme(theme))
}
