//! The way back from the provider: an answer that is of this browser's own sign-in becomes a session, if the API believes it.

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};

use super::{
    CALLBACK, ClientId, Oidc,
    flow::{self, Flow},
    forget_way,
    provider::{Denied, Granted},
    remember_way, words,
};
use crate::{
    Dashboard,
    client::{Client, Refused},
    form::with_cookies,
    page::{self, BareShell},
    session,
    viewer::Viewer,
    words::timestamp,
};

/// Longest code that is traded, in bytes.
const CODE_MAX_BYTES: usize = 4_096;

/// What the provider has the browser bring (RFC 6749, section 4.1.2, with RFC 9207).
struct Brought {
    state: String,
    code: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
    iss: Option<String>,
}

impl Brought {
    fn by(parts: &Parts) -> Self {
        let pairs: Vec<_> = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).collect();
        let said = |name: &str| {
            let found = pairs.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone().into_owned())
        };
        Self {
            state: said("state").unwrap_or_default(),
            code: said("code"),
            error: said("error"),
            error_description: said("error_description"),
            iss: said("iss"),
        }
    }
}

/// A sign-in that came to nothing.
pub(super) struct Failed {
    status: StatusCode,
    /// Why, in words of ours or of the provider.
    reasons: Vec<String>,
    /// What to do.
    advice: String,
}

#[derive(Template)]
#[template(path = "sign_in_failed.html")]
struct FailedPage {
    shell: BareShell,
    provider: String,
    reasons: Vec<String>,
    advice: String,
    again: String,
}

#[derive(Template)]
#[template(path = "signed_in.html")]
struct SignedInPage {
    shell: BareShell,
    next: String,
}

impl Failed {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reasons: vec![reason.into()], advice: String::new() }
    }

    fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: advice.into(), ..self }
    }

    /// The page that says so.
    pub(super) fn page(self, oidc: &Oidc, parts: &Parts) -> Response {
        let Self { status, reasons, advice } = self;
        let (shell, provider) = (shell(parts), oidc.name().to_owned());
        let page = FailedPage { shell, provider, reasons, advice, again: super::start_address("") };
        // Else whoever is refused would be sent round and round.
        let mut response = with_cookies(page::html(page), [forget_way()]);
        *response.status_mut() = status;
        response
    }
}

/// What stands around both pages. The address of the way back has a code in it that is used up: nothing leads there again.
fn shell(parts: &Parts) -> BareShell {
    BareShell { here: "/dashboard/login".to_owned(), ..BareShell::new(parts) }
}

/// Ends a sign-in.
pub(super) async fn callback(State(dashboard): State<Dashboard>, parts: Parts) -> Response {
    let Some(oidc) = &dashboard.oidc else {
        return Refused::new(StatusCode::NOT_FOUND, "signing in with an identity provider is not set up")
            .into_response();
    };
    let brought = Brought::by(&parts);
    let kept = session::cookie(&parts.headers, flow::cookie_name(oidc.is_https()));
    let Some(flow) = kept.and_then(Flow::of).filter(|flow| session::is_same(&brought.state, &flow.state())) else {
        // The cookie stays: whoever lured somebody here must not end that person's own sign-in. Nothing that was brought is shown.
        let reason = "this sign-in was not begun in this browser, or more than 10 minutes ago";
        let advice = format!("Begin again at {}.", oidc.at("/dashboard/login"));
        return Failed::new(StatusCode::BAD_REQUEST, reason).advice(advice).page(oidc, &parts);
    };
    let signed_in = signed_in(&dashboard, oidc, &flow, brought, &parts).await;
    let response = signed_in.unwrap_or_else(|failed| failed.page(oidc, &parts));
    // Its one use is over, whatever came of it.
    with_cookies(response, flow::cookie("", 0, oidc.is_https()))
}

async fn signed_in(
    dashboard: &Dashboard,
    oidc: &Oidc,
    flow: &Flow,
    brought: Brought,
    parts: &Parts,
) -> Result<Response, Failed> {
    let granted = granted(oidc, flow, brought).await?;
    let id_token = granted.id_token.as_deref().ok_or_else(|| {
        Failed::new(StatusCode::BAD_GATEWAY, "the provider sent no ID token")
            .advice("`openid` has to be among the scopes that it may give.")
    })?;
    let (issuer, client_id) = (&oidc.settings.issuer, &oidc.settings.client_id);
    flow::check_id_token(id_token, issuer, client_id, &flow.nonce())
        .map_err(|reason| Failed::new(StatusCode::BAD_REQUEST, reason))?;
    // An access token that is made for the API (RFC 9068) says so itself; many providers' access tokens are for themselves alone.
    let candidates = [("access token", granted.access_token.as_str()), ("ID token", id_token)];
    let mut reasons = Vec::new();
    for (what, token) in candidates.into_iter().filter(|(_, token)| flow::names_issuer(token, issuer)) {
        let refused = match Client::as_bearer(dashboard, token, parts).get::<Viewer>("/v1/auth/whoami").await {
            Ok(viewer) => match session_of(oidc, token, &viewer) {
                Ok(cookies) => return Ok(welcome(&viewer, &flow.next, cookies, parts)),
                Err(session::TooLong) => too_long(token),
            },
            Err(refused) if refused.status == 401 => why(&refused),
            // Not about the token: the journal is away, too many ask.
            Err(refused) => return Err(Failed::new(refused.code(), refused.detail)),
        };
        reasons.push(format!("its {what}: {refused}"));
    }
    tracing::warn!(reason = %reasons.join("; "), "the API believes no token of somebody whom the identity provider let in");
    let advice = "You are known to the provider, but what it says of you lets you in nowhere here. Whoever runs this installation \
                  finds what is asked of its tokens at [[auth.issuers]] of the configuration.";
    let reasons = if reasons.is_empty() { vec!["it sent no token that it has signed".to_owned()] } else { reasons };
    Err(Failed { status: StatusCode::FORBIDDEN, reasons, advice: advice.to_owned() })
}

/// The tokens that the code stands for.
async fn granted(oidc: &Oidc, flow: &Flow, brought: Brought) -> Result<Granted, Failed> {
    if let Some(error) = brought.error {
        let reason = words(&error, brought.error_description.as_deref());
        return Err(Failed::new(StatusCode::FORBIDDEN, reason));
    }
    let away = |why: String| {
        tracing::warn!(reason = %why, "a code of the identity provider was not traded");
        Failed::new(StatusCode::BAD_GATEWAY, why)
    };
    let description = oidc.description().await.map_err(away)?;
    let is_named = brought.iss.as_ref().is_some_and(|issuer| *issuer == oidc.settings.issuer);
    if !is_named && (brought.iss.is_some() || description.authorization_response_iss_parameter_supported) {
        return Err(Failed::new(StatusCode::BAD_REQUEST, "the answer is of another provider"));
    }
    let code = brought.code.filter(|code| (1..=CODE_MAX_BYTES).contains(&code.len()));
    let code = code.ok_or_else(|| Failed::new(StatusCode::BAD_REQUEST, "the provider sent no code"))?;
    let Ok(_place) = oidc.exchanges.try_acquire() else {
        let reason = "too many people sign in at this moment";
        return Err(Failed::new(StatusCode::SERVICE_UNAVAILABLE, reason));
    };
    let redirect_uri = oidc.at(CALLBACK);
    let secret = oidc.settings.client_secret.as_ref();
    let client = ClientId { id: &oidc.settings.client_id, secret, redirect_uri: &redirect_uri };
    oidc.line.exchange(&description, &client, &code, &flow.verifier()).await.map_err(|denied| match denied {
        Denied::Code(words) => Failed::new(StatusCode::BAD_REQUEST, words)
            .advice("A sign-in can be ended once, within a minute or so: begin again."),
        Denied::Provider(why) => away(why),
    })
}

/// Why the API does not believe a token: it never repeats what stands in one.
fn why(refused: &Refused) -> String {
    let reasons: Vec<&str> = refused.errors.iter().map(|error| error.detail.as_str()).collect();
    if reasons.is_empty() { refused.detail.clone() } else { reasons.join("; ") }
}

fn too_long(token: &str) -> String {
    format!(
        "it is {} bytes long, and {} are the most that browsers keep: have the provider put fewer claims (groups, roles) into it",
        token.len(),
        session::BEARER_MAX_BYTES
    )
}

/// How long the token goes on, by the store's clock.
fn life_s(viewer: &Viewer) -> Option<i64> {
    let end = timestamp(viewer.expires_at.as_deref()?)?;
    Some(end.as_second() - timestamp(&viewer.now)?.as_second())
}

fn session_of(oidc: &Oidc, token: &str, viewer: &Viewer) -> Result<Vec<HeaderValue>, session::TooLong> {
    let mut cookies = session::begin(token, life_s(viewer), oidc.is_https())?;
    cookies.push(remember_way(oidc.is_https()));
    Ok(cookies)
}

/// A page, and no redirect: what the provider's page led to gets no session cookie (`SameSite=Strict`), what a page of ours leads
/// to does.
fn welcome(viewer: &Viewer, next: &str, cookies: Vec<HeaderValue>, parts: &Parts) -> Response {
    let (key_id, tenant, role) = (&viewer.key_id, &viewer.tenant, &viewer.role);
    tracing::info!(%key_id, %tenant, %role, "somebody signed in with the identity provider");
    let page = SignedInPage { shell: shell(parts), next: next.to_owned() };
    let mut response = with_cookies(page::html(page), cookies);
    if let Ok(refresh) = HeaderValue::try_from(format!("0; url={next}")) {
        response.headers_mut().insert(header::REFRESH, refresh);
    }
    response
}
