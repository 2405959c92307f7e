//! `GET /v1/auth/whoami`: who asks, and what it may.

use axum::{Json, extract::State, http::Uri};
use queue_core::{
    ids::Name,
    journal::{Grant, Role},
    time::Timestamp,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{access, app::Shared, auth::Caller, params::Params, problem::Problem};

/// Who asks.
#[derive(Serialize, ToSchema)]
pub(crate) struct WhoAmI {
    /// The key's public part, or `sub:…` for the bearer of an issuer's token: what it submits belongs to it.
    #[schema(value_type = String, example = "a1b2c3d4")]
    key_id: Name,
    /// Its tenant.
    #[schema(value_type = String, example = "acme")]
    tenant: Name,
    /// Its role.
    #[schema(value_type = String, example = "operator")]
    role: Role,
    /// What it is narrowed to; empty: to nothing.
    #[schema(value_type = Vec<String>, example = json!(["jobs:read"]))]
    scopes: Vec<Grant>,
    /// When its token or key ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// The routes that it may call, as this document names them.
    #[schema(value_type = Vec<String>, example = json!(["GET /v1/jobs"]))]
    may: Vec<&'static str>,
    /// Now, by the clock that all times here are of.
    #[schema(value_type = String, format = DateTime)]
    now: Timestamp,
}

/// Tells who asks: whose key or token it is, and what it may do. Any may ask, whatever its scopes.
#[utoipa::path(get, path = "/v1/auth/whoami", tag = "keys", security(("key" = [])),
    responses((status = 200, body = WhoAmI)))]
pub(crate) async fn whoami(State(app): State<Shared>, caller: Caller, uri: Uri) -> Result<Json<WhoAmI>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let ends = caller.token.as_ref().map(|token| token.expires_at).into_iter().chain(caller.key_ends_at).min();
    Ok(Json(WhoAmI {
        may: access::open_to(&caller),
        scopes: caller.grants,
        key_id: caller.key_id,
        tenant: caller.tenant,
        role: caller.role,
        expires_at: ends,
        now: app.now(),
    }))
}
