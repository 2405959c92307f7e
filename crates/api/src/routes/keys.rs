//! API keys: made, listed, rotated and taken back. A secret is shown once, when it is made.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use queue_core::{
    ids::Name,
    journal::{ApiKey, GRANTS_MAX, Grant, KeyPage, Revocation, Revoked, Role, Rotation},
    keys::Secret,
    request_limits::Rates,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    access,
    app::{App, Shared},
    audit,
    auth::Caller,
    body,
    fields::{self, Fields, RATES, Raw},
    json,
    params::{Params, Segment},
    problem::{Cause, Document, Problem},
};

/// Largest body of a request.
const BODY_MAX_BYTES: usize = 16 * 1024;
/// Longest name of a key, in bytes: it is for people.
const NAME_MAX_BYTES: usize = 100;
/// Longest scope, in bytes.
const SCOPE_MAX_BYTES: usize = 40;
/// How long the secret before opens where a rotation does not say: a day to roll every process out.
const OVERLAP_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest such time: who needs longer wants two keys.
const OVERLAP_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// An API key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(crate) struct KeyView {
    /// Its public part: the 8 characters behind `lsk_`.
    id: String,
    /// For people.
    name: String,
    /// `user`, `analyst`, `operator` or `admin`.
    #[schema(value_type = String)]
    role: Role,
    /// Whose.
    #[schema(value_type = String)]
    tenant: Name,
    /// What it is narrowed to; absent: all that its role may do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    scopes: Vec<Grant>,
    /// `active`, `expired` or `revoked`.
    state: &'static str,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// When it got its present secret, if that is not its first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    rotated_at: Option<Timestamp>,
    /// Until when the secret before opens, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    previous_until: Option<Timestamp>,
    /// When it was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
    /// Requests that it may send in a minute; absent: as its role may.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_minute: Option<u32>,
    /// Jobs that ask model providers and that it may submit in a minute; absent: as its role may.
    #[serde(skip_serializing_if = "Option::is_none")]
    llm_submits_per_minute: Option<u32>,
}

impl KeyView {
    fn new(key: ApiKey, now: Timestamp) -> Self {
        let state = match key.revoked_at {
            Some(_) => "revoked",
            None if key.is_usable(now) => "active",
            None => "expired",
        };
        Self {
            previous_until: key.previous.map(|(_, until)| until).filter(|until| *until > now && state == "active"),
            id: key.id,
            name: key.name,
            role: key.role,
            tenant: key.tenant,
            scopes: key.grants,
            state,
            created_at: key.created_at,
            expires_at: key.expires_at,
            rotated_at: key.rotated_at,
            revoked_at: key.revoked_at,
            last_used_at: key.last_used_at,
            requests_per_minute: key.rates.requests_per_minute,
            llm_submits_per_minute: key.rates.llm_submits_per_minute,
        }
    }
}

/// A key with its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeKey {
    /// The whole key. It is not kept and cannot be shown again.
    #[schema(format = Password)]
    key: String,
    /// The rest of it.
    #[serde(flatten)]
    view: KeyView,
}

/// A page of keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyList {
    /// By id.
    keys: Vec<KeyView>,
    /// Give it as `cursor` to go on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Lists API keys, by id.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", security(("key" = [])), params(
    ("tenant" = Option<String>, Query, description = "of this tenant"),
    ("revoked" = Option<bool>, Query, description = "`true`: those that were taken back, too"),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ("limit" = Option<u32>, Query, description = "1 to 500, default 50"),
), responses((status = 200, body = KeyList), (status = 422, body = Document)))]
pub(crate) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Json<KeyList>, Problem> {
    let mut params = Params::of(&uri, &["tenant", "revoked", "cursor", "limit"])?;
    let tenant = params.parsed("tenant", Name::checked);
    let with_revoked =
        params.parsed("revoked", |text| text.parse::<bool>().map_err(|_| "must be true or false".into()));
    let after = params.parsed("cursor", |text| {
        let id =
            text.strip_prefix('k').filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        id.map(str::to_owned).ok_or_else(|| "is not a cursor; give the `next_cursor` of the page before".to_owned())
    });
    let limit = params.limit();
    params.finish()?;
    // One more than asked tells whether there is another page.
    let page = KeyPage { tenant, with_revoked: with_revoked.unwrap_or(false), after, limit: limit + 1 };
    let mut keys = app.api.stores.identity.keys(&page).await?;
    let more = keys.len() > limit;
    keys.truncate(limit);
    let next_cursor = keys.last().filter(|_| more).map(|last| format!("k{}", last.id));
    let now = app.now();
    Ok(Json(KeyList { keys: keys.into_iter().map(|key| KeyView::new(key, now)).collect(), next_cursor }))
}

async fn found(app: &App, id: &str) -> Result<ApiKey, Problem> {
    app.api.stores.identity.key(id).await?.ok_or_else(missing)
}

fn missing() -> Problem {
    Problem::new(Cause::NotFound, "there is no API key with this id")
        .at("/path/key", "is not the public part of a key: 8 characters")
}

/// Shows an API key, without its secret.
#[utoipa::path(get, path = "/v1/keys/{key}", tag = "keys", security(("key" = [])), params(
    ("key" = String, Path, description = "the key's public part: the 8 characters behind `lsk_`"),
), responses((status = 200, body = KeyView), (status = 404, body = Document)))]
pub(crate) async fn get(State(app): State<Shared>, Segment(id): Segment, uri: Uri) -> Result<Json<KeyView>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    Ok(Json(KeyView::new(found(&app, &id).await?, app.now())))
}

/// A new key.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `read_new` takes apart by hand
pub(crate) struct NewApiKey {
    /// For people.
    #[schema(max_length = 100)]
    name: String,
    /// `user` (submits, and sees what it submitted), `analyst` (reads all of its tenant, edits and redrives), `operator`
    /// (queues, targets and limits, over tenants) or `admin` (everything); never above the caller's own.
    #[schema(default = "user")]
    role: Option<String>,
    /// Whose; the caller's tenant when absent.
    #[schema(max_length = 64)]
    tenant: Option<String>,
    /// What it is narrowed to, such as `jobs:submit`, `jobs:*` or `*:read`: each route names its own as
    /// `x-longshore-scope`. All that the role may do when absent.
    #[schema(max_items = 16)]
    scopes: Option<Vec<String>>,
    /// When it ends by itself, at most 366 days ahead; never when absent. No later than the caller's own key.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<String>,
    /// Requests that it may send in a minute; as its role may when absent or `null`.
    #[schema(minimum = 1, maximum = 1_000_000)]
    requests_per_minute: Option<u32>,
    /// Jobs that ask model providers (`llm`, `embedding`, `analysis`) and that it may submit in a minute, likewise.
    #[schema(minimum = 1, maximum = 1_000_000)]
    llm_submits_per_minute: Option<u32>,
}

/// Makes an API key. Its secret is shown in this answer and never again.
#[utoipa::path(post, path = "/v1/keys", tag = "keys", security(("key" = [])), request_body = NewApiKey, responses(
    (status = 201, body = MadeKey),
    (status = 403, description = "it would be more than the caller itself may do", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn create(
    State(app): State<Shared>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let body = body::json(&app, &headers, body, BODY_MAX_BYTES).await?;
    let secret = Secret::generate();
    let key = read_new(&caller, &secret, json::utf8(&body)?, app.now())?;
    app.policy().await?.check_tenant(&key.tenant)?;
    caller.check_hands_out(key.role, &key.grants)?;
    if let Some(own) = caller.outlived_by(key.expires_at) {
        let reason = format!("must be given and no later than {own}: the caller's own key ends then");
        return Err(Problem::field("/expires_at", reason));
    }
    app.api.stores.identity.add_key(key.clone()).await?;
    tracing::info!(key_id = key.id, by = %caller.key_id, role = %key.role, tenant = %key.tenant, "an API key was made");
    Ok(made(StatusCode::CREATED, &secret, key, app.now()))
}

/// The one answer that has a secret in it: for no cache.
fn made(status: StatusCode, secret: &Secret, key: ApiKey, now: Timestamp) -> Response {
    let made = MadeKey { key: secret.reveal(), view: KeyView::new(key, now) };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(made)).into_response()
}

fn read_new(caller: &Caller, secret: &Secret, text: &str, now: Timestamp) -> Result<ApiKey, Problem> {
    const KNOWN: [&str; 7] =
        ["name", "role", "tenant", "scopes", "expires_at", "requests_per_minute", "llm_submits_per_minute"];
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let [name, role, tenant, scopes, expires_at, rates @ ..] = json::take_apart(text, &KNOWN, &mut fields.errors)?;
    if name.is_none() {
        fields.wrong("name", "is required: what the key is for");
    }
    let name = fields.label("name", name, NAME_MAX_BYTES);
    let role = fields.parsed("role", role, |word| {
        Role::parse(word)
            .ok_or_else(|| format!("`{word}` is no role; there are {}", Role::ALL.map(Role::as_str).join(", ")))
    });
    let tenant = fields.name("tenant", tenant);
    let grants = read_scopes(&mut fields, scopes);
    let expires_at = fields.moment("expires_at", expires_at, now, now.plus_ms(1));
    let rates = fields.rates(rates, Rates::default());
    fields.finish()?;
    let tenant = tenant.unwrap_or_else(|| caller.tenant.clone());
    let row = secret.to_row(tenant, role.unwrap_or(Role::User), name.unwrap_or_default(), now);
    Ok(ApiKey { grants, expires_at, rates, ..row })
}

/// Scopes, none of which is made up. Not given: none; an empty list is a mistake, since none means all.
pub(super) fn read_scopes(fields: &mut Fields, scopes: Raw<'_>) -> Vec<Grant> {
    let before = fields.errors.len();
    let words = fields.labels("scopes", scopes, GRANTS_MAX, SCOPE_MAX_BYTES);
    if scopes.is_some() && words.is_empty() && fields.errors.len() == before {
        fields.wrong("scopes", "must not be empty: leave it out for all that the role may do");
    }
    let mut grants = Vec::new();
    for scope in words {
        match access::check_grant(&scope) {
            Ok(grant) => grants.push(grant),
            Err(reason) => fields.wrong("scopes", reason),
        }
    }
    grants
}

/// What of a key can be changed. What is absent stays, what is `null` is as the key's role has it.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `patch` takes apart by hand
pub(crate) struct KeyPatch {
    /// Requests that it may send in a minute.
    #[schema(minimum = 1, maximum = 1_000_000)]
    requests_per_minute: Option<u32>,
    /// Jobs that ask model providers (`llm`, `embedding`, `analysis`) and that it may submit in a minute.
    #[schema(minimum = 1, maximum = 1_000_000)]
    llm_submits_per_minute: Option<u32>,
}

/// Says how often an API key, with all tokens that are made from it, may ask: at once in this process, within 5 s in every other.
#[utoipa::path(patch, path = "/v1/keys/{key}", tag = "keys", security(("key" = [])), request_body = KeyPatch, params(
    ("key" = String, Path, description = "the key's public part: the 8 characters behind `lsk_`"),
), responses((status = 200, body = KeyView), (status = 404, body = Document), (status = 422, body = Document)))]
pub(crate) async fn patch(
    State(app): State<Shared>,
    caller: Caller,
    Segment(id): Segment,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<KeyView>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let body = body::json(&app, &headers, body, BODY_MAX_BYTES).await?;
    let text = json::utf8(&body)?;
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let given = json::take_apart_with_null(text, &RATES, &mut fields.errors)?;
    if fields.errors.is_empty() && given.iter().all(Option::is_none) {
        return Err(Problem::field("", format!("names nothing to change: give {}", RATES.join(", "))));
    }
    // One change at a time in this process: what is absent stays.
    let _one_at_a_time = app.settings_edits.lock().await;
    let key = found(&app, &id).await?;
    let rates = fields.rates(given, key.rates);
    fields.finish()?;
    audit::before(&KeyView::new(key, app.now()));
    let key = app.api.stores.identity.limit_key(&id, rates).await?.ok_or_else(missing)?;
    app.keys.forget();
    tracing::info!(key_id = key.id, by = %caller.key_id, "the limits of an API key were set");
    Ok(Json(KeyView::new(key, app.now())))
}

/// How a key is rotated.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `read_overlap` takes apart by hand
pub(crate) struct RotateRequest {
    /// How long the present secret opens beside the new one: `0s` to `30d`.
    #[schema(default = "24h", example = "24h")]
    overlap: Option<String>,
}

/// Gives an API key another secret, which is shown in this answer and never again. The secret before goes on for a while.
#[utoipa::path(post, path = "/v1/keys/{key}/rotate", tag = "keys", security(("key" = [])),
    request_body(content = Option<RotateRequest>), params(
    ("key" = String, Path, description = "the key's public part: the 8 characters behind `lsk_`"),
), responses(
    (status = 200, body = MadeKey),
    (status = 403, description = "the key may do more than the caller, or lives longer", body = Document),
    (status = 404, body = Document),
    (status = 409, description = "it has ended", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn rotate(
    State(app): State<Shared>,
    caller: Caller,
    Segment(id): Segment,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let overlap = match body::take_if_any(&app, &headers, body).await? {
        Some(body) => read_overlap(json::utf8(&body)?)?,
        None => OVERLAP_DEFAULT,
    };
    let key = found(&app, &id).await?;
    // Who gets the secret of a key gets all that it may do, and for as long.
    caller.check_hands_out(key.role, &key.grants)?;
    if let Some(own) = caller.outlived_by(key.expires_at) {
        let detail = format!("the key lives longer than the caller's own, which ends at {own}");
        return Err(Problem::new(Cause::Forbidden, detail));
    }
    audit::before(&KeyView::new(key.clone(), app.now()));
    let (secret, now) = (Secret::renewed(&key.id), app.now());
    let rotation = Rotation { id: key.id, secret_hash: secret.hash(), previous_until: now.plus(overlap), at: now };
    let rotated = app.api.stores.identity.rotate_key(rotation).await?;
    let key = rotated
        .ok_or_else(|| Problem::new(Cause::KeyEnded, "a key that has ended gets no other secret; make a new one"))?;
    app.keys.forget();
    app.believed.forget();
    tracing::info!(key_id = key.id, by = %caller.key_id, "an API key got another secret");
    Ok(made(StatusCode::OK, &secret, key, now))
}

fn read_overlap(text: &str) -> Result<Duration, Problem> {
    let too_long = |_: &str| "is longer than 30 days; make a second key instead".to_owned();
    Ok(fields::read_overlap(text, OVERLAP_MAX, too_long)?.unwrap_or(OVERLAP_DEFAULT))
}

/// Takes an API key back: at once in this process, within 5 s in every other. What it submitted goes on.
#[utoipa::path(delete, path = "/v1/keys/{key}", tag = "keys", security(("key" = [])), params(
    ("key" = String, Path, description = "the key's public part: the 8 characters behind `lsk_`"),
), responses(
    (status = 204, description = "it opens nothing any more"),
    (status = 404, body = Document),
    (status = 409, description = "it is the last admin key that can be used", body = Document),
))]
pub(crate) async fn revoke(
    State(app): State<Shared>,
    caller: Caller,
    Segment(id): Segment,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let key = found(&app, &id).await?;
    audit::before(&KeyView::new(key.clone(), app.now()));
    take_back(&app, &caller, Revocation::Key(key.id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Keys that were taken back.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevokedKeys {
    /// Whose.
    #[schema(value_type = String)]
    tenant: Name,
    /// Their ids; those that had been taken back before are not among them.
    revoked: Vec<String>,
}

/// Takes every API key of a tenant back.
#[utoipa::path(delete, path = "/v1/keys", tag = "keys", security(("key" = [])), params(
    ("tenant" = String, Query, description = "whose"),
), responses(
    (status = 200, body = RevokedKeys),
    (status = 409, description = "the last admin key that can be used is among them; nothing was done", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn revoke_all(
    State(app): State<Shared>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<RevokedKeys>, Problem> {
    let mut params = Params::of(&uri, &["tenant"])?;
    let tenant = params.parsed("tenant", Name::checked);
    params.finish()?;
    let tenant = tenant.ok_or_else(|| Problem::field("/query/tenant", "is required: whose keys are taken back"))?;
    let revoked = take_back(&app, &caller, Revocation::Tenant(tenant.clone())).await?;
    Ok(Json(RevokedKeys { tenant, revoked }))
}

async fn take_back(app: &App, caller: &Caller, which: Revocation) -> Result<Vec<String>, Problem> {
    match app.api.stores.identity.revoke_keys(which, app.now()).await? {
        Revoked::Done(ids) => {
            app.keys.forget();
            app.believed.forget();
            tracing::info!(keys = ids.join(" "), by = %caller.key_id, "API keys were revoked");
            Ok(ids)
        }
        Revoked::LastAdmin => {
            let detail = "nobody could make another key without it; make another admin key first";
            Err(Problem::new(Cause::LastAdminKey, detail))
        }
    }
}
