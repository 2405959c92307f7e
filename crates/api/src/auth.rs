//! Who calls: a bearer key on every route below `/v1`.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use queue_core::{ids::Name, keys::Secret};

use crate::{
    app::{App, Shared},
    problem::{Cause, Problem},
};

/// Who calls. There is one role so far, so a caller may do everything, for every tenant.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The key's tenant: whose jobs are submitted when a job names nobody.
    pub(crate) tenant: Name,
    /// The key's public part: whose budget what it submits falls under.
    pub(crate) key_id: Name,
}

/// Lets a request with a valid key pass, and tells the handler who calls.
pub(crate) async fn require_key(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    match identify(&app, secret_of(request.headers())).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(Refusal::Missing) => challenge(
            Problem::new(Cause::Unauthorized, "send the header `Authorization: Bearer lsk_…`")
                .at("/header/Authorization", "is missing"),
            "Bearer realm=\"longshore\"",
        ),
        Err(Refusal::Invalid(reason)) => challenge(
            Problem::new(Cause::Unauthorized, "the key is not valid").at("/header/Authorization", reason),
            "Bearer realm=\"longshore\", error=\"invalid_token\"",
        ),
        Err(Refusal::Other(problem)) => problem.into_response(),
    }
}

enum Refusal {
    Missing,
    Invalid(String),
    Other(Problem),
}

fn secret_of(headers: &HeaderMap) -> Result<Secret, Refusal> {
    let header = headers.get(header::AUTHORIZATION).ok_or(Refusal::Missing)?;
    let text = header.to_str().map_err(|_| Refusal::Invalid("is not ASCII".into()))?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::Invalid("the scheme is not `Bearer`".into()));
    }
    Secret::parse(token.trim()).map_err(Refusal::Invalid)
}

async fn identify(app: &App, secret: Result<Secret, Refusal>) -> Result<Caller, Refusal> {
    let row = app.keys.find(&*app.api.stores.catalog, &secret?).await.map_err(|error| Refusal::Other(error.into()))?;
    match row {
        Some(row) => Ok(Caller { tenant: row.tenant.clone(), key_id: Name::from(row.id.as_str()) }),
        None => Err(Refusal::Invalid("no such key".into())),
    }
}

fn challenge(problem: Problem, how: &'static str) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(how));
    response
}
