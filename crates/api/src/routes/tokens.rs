//! Tokens: made from a key for a short time, and taken back before their end.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use queue_core::{
    ids::Name,
    journal::{ApiKey, Grant, Role, TokenRevocation},
    keys::hash_opens,
    time::{Timestamp, parse_duration},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::keys::read_scopes;
use crate::{
    app::{App, Shared},
    auth::Caller,
    body,
    fields::Fields,
    json,
    params::Params,
    problem::{Cause, Document, Problem},
    tokens::{JTI_MAX_BYTES, LEEWAY_S, LIFE_MAX_S, OWN},
};

/// Largest body of a request.
const BODY_MAX_BYTES: usize = 16 * 1024;
/// Life of a token that names none: a page that is open, not a day.
const LIFE_DEFAULT_S: i64 = 15 * 60;
/// Longest name of an issuer, in bytes.
const ISSUER_MAX_BYTES: usize = 256;

/// What a token is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `read_wish` takes apart by hand
pub(crate) struct TokenRequest {
    /// How long it lives: `1s` to `24h`, and never longer than its key.
    #[schema(default = "15m", example = "15m")]
    expires_in: Option<String>,
    /// Less than the key's own role.
    role: Option<String>,
    /// Fewer than the key's own scopes; these when absent.
    #[schema(max_items = 16)]
    scopes: Option<Vec<String>>,
}

/// A token.
#[derive(Serialize, ToSchema)]
#[schema(as = Token)]
pub(crate) struct TokenView {
    /// Sent as a key is: `Authorization: Bearer …`.
    #[schema(format = Password)]
    token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// Seconds that it lives.
    expires_in: i64,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// Its id, by which it can be revoked.
    jti: String,
    /// Whose.
    #[schema(value_type = String)]
    tenant: Name,
    /// What it may do.
    #[schema(value_type = String)]
    role: Role,
}

/// Trades the key of the request for a token that lives for a short time, for where a key must not be, such as a browser. What
/// is submitted with it belongs to the key. It ends with its key.
#[utoipa::path(post, path = "/v1/auth/token", tag = "keys", security(("key" = [])),
    request_body(content = Option<TokenRequest>), responses(
    (status = 200, body = TokenView),
    (status = 403, description = "the caller has no key but a token, or it asks for more than its key may do", body = Document),
    (status = 409, description = "the key has ended meanwhile, or has another secret", body = Document),
    (status = 422, body = Document),
    (status = 503, description = "this server has no signing key", body = Document),
))]
pub(crate) async fn create(
    State(app): State<Shared>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let Some(secret_hash) = &caller.secret_hash else {
        return Err(Problem::new(Cause::Forbidden, "a token buys no other: send the key"));
    };
    let wish = match body::take_if_any(&app, &headers, body).await? {
        Some(body) => read_wish(json::utf8(&body)?)?,
        None => Wish { life_s: LIFE_DEFAULT_S, role: None, grants: None },
    };
    // Not what this process remembers of the key: it may have been revoked or rotated elsewhere a moment ago.
    let key = app.api.stores.identity.key(caller.key_id.as_str()).await?;
    let still_opens = |key: &ApiKey| key.is_usable(app.now()) && hash_opens(secret_hash, key, app.now());
    let key = key.filter(still_opens).ok_or_else(|| Problem::new(Cause::KeyEnded, "the key has ended meanwhile"))?;
    let role = wish.role.unwrap_or(caller.role);
    let grants = wish.grants.unwrap_or_else(|| caller.grants.clone());
    caller.check_hands_out(role, &grants)?;
    let now = app.now();
    let left_s = key.expires_at.map_or(i64::MAX, |end| end.since_ms(now) / 1_000);
    let life_s = wish.life_s.min(left_s).max(1);
    let minted = app.api.tokens.mint((&key, secret_hash), role, &grants, life_s, now).ok_or_else(|| {
        let detail = "this server has no signing key, so it makes no tokens; `longshore key signing-key` makes one, \
                      `auth.signing_key_file` names it";
        Problem::new(Cause::Unavailable, detail)
    })?;
    let view = TokenView {
        token: minted.token,
        token_type: "Bearer",
        expires_in: life_s,
        expires_at: minted.expires_at,
        jti: minted.jti,
        tenant: caller.tenant,
        role,
    };
    Ok((StatusCode::OK, [(header::CACHE_CONTROL, "no-store")], Json(view)).into_response())
}

struct Wish {
    life_s: i64,
    role: Option<Role>,
    grants: Option<Vec<Grant>>,
}

fn read_wish(text: &str) -> Result<Wish, Problem> {
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let [expires_in, role, scopes] = json::take_apart(text, &["expires_in", "role", "scopes"], &mut fields.errors)?;
    let life_s = fields.parsed("expires_in", expires_in, |text| {
        let life = i64::try_from(parse_duration(text)?.as_secs()).unwrap_or(i64::MAX);
        let is_fair = (1..=LIFE_MAX_S).contains(&life);
        is_fair.then_some(life).ok_or_else(|| format!("`{text}` is out of range: 1s to 24h are allowed"))
    });
    let role = fields.parsed("role", role, |word| Role::parse(word).ok_or_else(|| format!("`{word}` is no role")));
    let grants = scopes.is_some().then(|| read_scopes(&mut fields, scopes));
    fields.finish()?;
    Ok(Wish { life_s: life_s.unwrap_or(LIFE_DEFAULT_S), role, grants })
}

/// Takes the token of the request back: whoever signs out.
#[utoipa::path(delete, path = "/v1/auth/token", tag = "keys", security(("key" = [])), responses(
    (status = 204, description = "it opens nothing any more: here at once, elsewhere within 5 s"),
    (status = 422, description = "the request came with a key", body = Document),
))]
pub(crate) async fn end(State(app): State<Shared>, caller: Caller, uri: Uri) -> Result<StatusCode, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let Some(token) = caller.token else {
        return Err(Problem::field(
            "/header/Authorization",
            "is a key and no token; `DELETE /v1/keys/{key}` revokes a key",
        ));
    };
    let Some(expires_at) = token.expires_at.0.checked_add(LEEWAY_S * 1_000).map(Timestamp) else {
        return Err(Problem::new(Cause::Internal, "a token that was believed has no end"));
    };
    take_back(&app, TokenRevocation { issuer: token.issuer.clone(), jti: token.jti.clone(), expires_at }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which token is taken back.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `read_revocation` takes apart by hand
pub(crate) struct RevocationRequest {
    /// The token's id, as it says (`jti`).
    #[schema(max_length = 128)]
    jti: String,
    /// Who made it, as it says (`iss`).
    #[schema(default = "longshore", max_length = 256)]
    issuer: Option<String>,
}

/// Takes a token back before its end.
#[utoipa::path(post, path = "/v1/auth/revocations", tag = "keys", security(("key" = [])),
    request_body = RevocationRequest, responses(
    (status = 204, description = "it opens nothing any more: here at once, elsewhere within 5 s"),
    (status = 422, body = Document),
))]
pub(crate) async fn revoke(
    State(app): State<Shared>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let body = body::json(&app, &headers, body, BODY_MAX_BYTES).await?;
    let text = json::utf8(&body)?;
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let [jti, issuer] = json::take_apart(text, &["jti", "issuer"], &mut fields.errors)?;
    if jti.is_none() {
        fields.wrong("jti", "is required: the token's id");
    }
    let jti = fields.label("jti", jti, JTI_MAX_BYTES);
    let issuer = fields.label("issuer", issuer, ISSUER_MAX_BYTES).unwrap_or_else(|| OWN.to_owned());
    fields.finish()?;
    // Its end is not known: it is kept for as long as any token lives.
    let expires_at = app.now().plus_ms((LIFE_MAX_S + 2 * LEEWAY_S) * 1_000);
    tracing::info!(by = %caller.key_id, issuer, "a token was revoked");
    take_back(&app, TokenRevocation { issuer, jti: jti.unwrap_or_default(), expires_at }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn take_back(app: &App, revocation: TokenRevocation) -> Result<(), Problem> {
    app.api.stores.identity.revoke_token(revocation, app.now()).await?;
    app.believed.forget();
    Ok(())
}
