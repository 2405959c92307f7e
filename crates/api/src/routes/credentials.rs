//! Tenants' own provider keys: set, switched on and off, deleted, and never shown.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{FromRequestParts, Path, State},
    http::{HeaderMap, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use queue_core::{
    credentials::{Credential, CredentialPolicy, CredentialState, Report, SealError, SetError, check_key, own},
    ids::Name,
    time::Timestamp,
    webhooks,
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::tenants::named;
use crate::{
    app::{App, Shared},
    audit, body,
    fields::Fields,
    json,
    params::{Params, Segment},
    problem::{Cause, Document, Problem},
    settings::REASON_MAX_BYTES,
    signing,
};

/// Largest body of a change.
const BODY_MAX_BYTES: usize = 16 * 1024;
/// Signing secrets that a report names.
const SECRETS_NAMED_MAX: usize = 100;

/// A tenant's key for a provider, without the key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Credential)]
pub(crate) struct CredentialView {
    /// Whose.
    #[schema(value_type = String)]
    tenant: Name,
    /// For whom.
    #[schema(value_type = String)]
    provider: Name,
    /// Its name in targets (`provider:model:credential`).
    #[schema(value_type = String)]
    credential: Name,
    /// Grows with every new key.
    version: i64,
    /// The last characters of a long key; empty for a short one.
    last4: String,
    /// `active` or `disabled`.
    #[schema(value_type = String)]
    state: CredentialState,
    /// Why it is disabled, or what its last refusal said.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The master key that opens it.
    kek_id: String,
    /// Whether this server has that master key.
    readable: bool,
    /// Refusals since it last worked.
    failures: u32,
    /// When the tenant first had one for this provider.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When this one was set.
    #[schema(value_type = String, format = DateTime)]
    rotated_at: Timestamp,
    /// When it was last used, to the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
}

impl CredentialView {
    fn of(app: &App, credential: Credential) -> Self {
        let readable = app.api.credentials.is_readable(&credential);
        let Credential { tenant, provider, version, state, reason, sealed, hint, failures, .. } = credential;
        Self {
            credential: own(&tenant),
            tenant,
            provider,
            version,
            last4: hint,
            state,
            reason,
            kek_id: sealed.map(|sealed| sealed.kek_id).unwrap_or_default(),
            readable,
            failures,
            created_at: credential.created_at,
            rotated_at: credential.rotated_at,
            last_used_at: credential.used_at,
        }
    }
}

/// The keys of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantCredentials {
    /// Whose.
    #[schema(value_type = String)]
    tenant: Name,
    /// What it may do without one: `own_only`, `own_then_default` or `default`.
    #[schema(value_type = String)]
    credential_policy: CredentialPolicy,
    /// One for each provider at most.
    credentials: Vec<CredentialView>,
}

/// A tenant and a provider of this installation, from the path.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    tenant: Name,
    provider: Name,
}

impl Place {
    /// The provider is one of the configuration: a misspelt name would be a key that nobody ever uses.
    fn of(app: &App, tenant: Name, provider: &str) -> Result<Self, String> {
        let known = app.api.routes.routes.iter().map(|route| &route.provider);
        match known.clone().find(|known| known.as_str() == provider) {
            Some(provider) => Ok(Self { tenant, provider: provider.clone() }),
            None => {
                let known: Vec<_> = known.map(Name::as_str).collect();
                Err(format!("is no provider of this installation; there are {}", known.join(", ")))
            }
        }
    }
}

impl FromRequestParts<Shared> for Place {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, app).await;
        let Path((tenant, provider)) = path.map_err(|error| {
            Problem::new(Cause::BadRequest, "the path cannot be read").at("/path", error.body_text())
        })?;
        Self::of(app, named(&tenant)?, &provider)
            .map_err(|reason| Problem::new(Cause::NotFound, "there is no such provider").at("/path/provider", reason))
    }
}

/// Nothing of it belongs into any cache.
fn answer<T: Serialize>(value: T) -> Response {
    (StatusCode::OK, [(header::CACHE_CONTROL, "no-store")], Json(value)).into_response()
}

fn show(app: &App, place: &Place) -> Result<Response, Problem> {
    known(app, place).map(|credential| answer(CredentialView::of(app, credential))).ok_or_else(|| missing(place))
}

/// How a tenant's key stood before the call, for the audit log.
fn note_before(app: &App, place: &Place) {
    if let Some(credential) = known(app, place) {
        audit::before(&CredentialView::of(app, credential));
    }
}

fn known(app: &App, place: &Place) -> Option<Credential> {
    app.api.credentials.list(&place.tenant).into_iter().find(|one| one.provider == place.provider)
}

fn missing(Place { tenant, provider }: &Place) -> Problem {
    Problem::new(Cause::NotFound, format!("{tenant} has no key of its own for {provider}"))
}

/// Shows which keys a tenant has. The keys themselves are never shown.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/credentials", tag = "credentials", security(("key" = [])), params(
    ("tenant" = String, Path, description = "the tenant"),
), responses((status = 200, body = TenantCredentials), (status = 422, body = Document)))]
pub(crate) async fn of_tenant(
    State(app): State<Shared>,
    Segment(tenant): Segment,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let tenant = named(&tenant)?;
    app.api.credentials.refresh().await?;
    let of_tenant = app.api.credentials.list(&tenant).into_iter();
    Ok(answer(TenantCredentials {
        credential_policy: app.api.credentials.policy(&tenant),
        credentials: of_tenant.map(|credential| CredentialView::of(&app, credential)).collect(),
        tenant,
    }))
}

/// Shows a tenant's key for a provider, without the key.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/credentials/{provider}", tag = "credentials", security(("key" = [])),
    params(
    ("tenant" = String, Path, description = "the tenant"),
    ("provider" = String, Path, description = "the provider, as the configuration names it"),
), responses((status = 200, body = CredentialView), (status = 404, body = Document), (status = 422, body = Document)))]
pub(crate) async fn get(State(app): State<Shared>, place: Place, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    app.api.credentials.refresh().await?;
    show(&app, &place)
}

/// A new key.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `read_key` takes apart by hand
pub(crate) struct NewKey {
    /// The provider's key: 1 to 2,048 letters, digits and signs of ASCII. It can be replaced and never read.
    #[schema(format = Password)]
    key: String,
}

/// Sets a tenant's key for a provider, or replaces it. Calls are made with it within seconds, over the fleet.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/credentials/{provider}", tag = "credentials", security(("key" = [])),
    request_body = NewKey, params(
    ("tenant" = String, Path, description = "the tenant"),
    ("provider" = String, Path, description = "the provider, as the configuration names it"),
), responses(
    (status = 200, body = CredentialView),
    (status = 404, description = "there is no such provider", body = Document),
    (status = 422, body = Document),
    (status = 503, description = "this server has no master key to keep it with", body = Document),
))]
pub(crate) async fn put(
    State(app): State<Shared>,
    place: Place,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let body = body::json(&app, &headers, body, BODY_MAX_BYTES).await?;
    let (_, key) = read_key(json::utf8(&body)?, false)?;
    set(&app, &place, &key).await
}

/// A new key for a provider.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `read_key` takes apart by hand
pub(crate) struct NewNamedKey {
    /// For whom, as the configuration names the provider.
    provider: String,
    /// The provider's key: 1 to 2,048 letters, digits and signs of ASCII. It can be replaced and never read.
    #[schema(format = Password)]
    key: String,
}

/// Sets a tenant's key for the provider that the body names, or replaces it.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/credentials", tag = "credentials", security(("key" = [])),
    request_body = NewNamedKey, params(("tenant" = String, Path, description = "the tenant")), responses(
    (status = 200, body = CredentialView),
    (status = 422, body = Document),
    (status = 503, description = "this server has no master key to keep it with", body = Document),
))]
pub(crate) async fn put_named(
    State(app): State<Shared>,
    Segment(tenant): Segment,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let tenant = named(&tenant)?;
    let body = body::json(&app, &headers, body, BODY_MAX_BYTES).await?;
    let (provider, key) = read_key(json::utf8(&body)?, true)?;
    let place = Place::of(&app, tenant, &provider).map_err(|reason| Problem::field("/provider", reason))?;
    set(&app, &place, &key).await
}

async fn set(app: &App, place: &Place, key: &SecretString) -> Result<Response, Problem> {
    let set = app.api.credentials.set(&place.tenant, &place.provider, key, app.now()).await;
    set.map_err(|error| match error {
        SetError::Journal(error) => error.into(),
        SetError::Contended => Problem::new(Cause::Unavailable, error.to_string()).retry_after(1),
        SetError::Seal(SealError::NoMasterKey) => {
            let detail = "this server has no master key, so it cannot keep keys of tenants; \
                          `longshore credential master-key` makes one, `credentials.master_key_file` names it";
            Problem::new(Cause::Unavailable, detail)
        }
        SetError::Seal(error) => Problem::new(Cause::Internal, error.to_string()),
    })?;
    tracing::info!(tenant = %place.tenant, provider = %place.provider, "a tenant's key was set");
    show(app, place)
}

/// The key, and the provider that it is for where the path does not say.
fn read_key(text: &str, names_provider: bool) -> Result<(String, SecretString), Problem> {
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let [key, provider] = json::take_apart(text, &["key", "provider"], &mut fields.errors)?;
    match (names_provider, provider) {
        (true, None) => fields.wrong("provider", "is required"),
        (false, Some(_)) => fields.wrong("provider", "stands in the path"),
        _ => {}
    }
    let provider = fields.text("provider", provider).unwrap_or_default().into_owned();
    if key.is_none() {
        fields.wrong("key", "is required");
    }
    // A value that is no text may be a key all the same: it is not repeated.
    let is_text = key.is_some_and(|raw| json::string(raw).is_some());
    if key.is_some() && !is_text {
        fields.wrong("key", "must be a string");
    }
    let key = key.filter(|_| is_text);
    let key = fields.parsed("key", key, |text| check_key(text).map(|()| SecretString::from(text)));
    fields.finish()?;
    let key = key.ok_or_else(|| Problem::new(Cause::Internal, "a key passed its checks and is not there"))?;
    Ok((provider, key))
}

/// A change of a tenant's key.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `read_switch` takes apart by hand
pub(crate) struct CredentialPatch {
    /// Whether it is used. Switched on, its refusals are forgotten.
    enabled: bool,
    /// Why it is not, for those who ask `why`.
    #[schema(max_length = 500)]
    reason: Option<String>,
}

/// Switches a tenant's key on or off.
#[utoipa::path(patch, path = "/v1/tenants/{tenant}/credentials/{provider}", tag = "credentials", security(("key" = [])),
    request_body = CredentialPatch, params(
    ("tenant" = String, Path, description = "the tenant"),
    ("provider" = String, Path, description = "the provider, as the configuration names it"),
), responses((status = 200, body = CredentialView), (status = 404, body = Document), (status = 422, body = Document)))]
pub(crate) async fn patch(
    State(app): State<Shared>,
    place: Place,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let body = body::json(&app, &headers, body, BODY_MAX_BYTES).await?;
    let (state, reason) = read_switch(json::utf8(&body)?)?;
    change(&app, &place, state, reason).await?;
    show(&app, &place)
}

fn read_switch(text: &str) -> Result<(CredentialState, Option<String>), Problem> {
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let [enabled, reason] = json::take_apart(text, &["enabled", "reason"], &mut fields.errors)?;
    if enabled.is_none() {
        fields.wrong("enabled", "is required: true or false");
    }
    let enabled = fields.boolean("enabled", enabled);
    let reason = fields.label("reason", reason, REASON_MAX_BYTES);
    if enabled == Some(true) && reason.is_some() {
        fields.wrong("reason", "belongs to a key that is switched off");
    }
    fields.finish()?;
    let state = if enabled == Some(true) { CredentialState::Active } else { CredentialState::Disabled };
    Ok((state, reason))
}

async fn change(app: &App, place: &Place, state: CredentialState, reason: Option<String>) -> Result<(), Problem> {
    note_before(app, place);
    let Place { tenant, provider } = place;
    if !app.api.credentials.change(tenant, provider, state, reason).await? {
        return Err(missing(place));
    }
    tracing::info!(%tenant, %provider, state = state.as_str(), "a tenant's key was changed");
    Ok(())
}

/// Deletes a tenant's key. What is kept of it opens nothing; calls that run go on, no other is made with it.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/credentials/{provider}", tag = "credentials", security(("key" = [])),
    params(
    ("tenant" = String, Path, description = "the tenant"),
    ("provider" = String, Path, description = "the provider, as the configuration names it"),
), responses((status = 204, description = "deleted"), (status = 404, body = Document), (status = 422, body = Document)))]
pub(crate) async fn delete(State(app): State<Shared>, place: Place, uri: Uri) -> Result<StatusCode, Problem> {
    Params::of(&uri, &[])?.finish()?;
    change(&app, &place, CredentialState::Deleted, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How the keys of all tenants stand.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CredentialReport {
    /// Keys that there are.
    credentials: usize,
    /// Of them, those that are switched off.
    disabled: usize,
    /// Those that another master key than the current one opens, signing secrets of webhooks included.
    to_rewrap: usize,
    /// Those whose master key this server does not have, signing secrets of webhooks included.
    unreadable: usize,
    /// The first of them.
    unreadable_credentials: Vec<UnreadView>,
    /// The names of this server's master keys, the current one first.
    master_keys: Vec<String>,
    /// What is wrong with the place of the master keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

/// A key that this server cannot read.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UnreadView {
    /// Whose.
    tenant: String,
    /// For whom.
    provider: String,
    /// The master key that it needs.
    kek_id: String,
    /// What is wrong.
    reason: String,
}

/// Shows how the keys of all tenants stand: which cannot be read here, and for want of which master key.
#[utoipa::path(get, path = "/v1/credentials", tag = "credentials", security(("key" = [])),
    responses((status = 200, body = CredentialReport)))]
pub(crate) async fn report(State(app): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    app.api.credentials.refresh().await?;
    let report = Arc::unwrap_or_clone(app.api.credentials.report());
    let Report { credentials, disabled, to_rewrap, unreadable, named, master_keys, trouble } = report;
    let (behind, lost) = webhooks::unreadable(&*app.api.stores.webhooks, &app.api.credentials.master_keys()).await?;
    let secrets = lost.iter().take(SECRETS_NAMED_MAX).map(|(owner, kek_id, reason)| UnreadView {
        tenant: owner.clone(),
        provider: "webhook signing".to_owned(),
        kek_id: kek_id.clone(),
        reason: reason.to_string(),
    });
    let unread = |one: queue_core::credentials::Unread| UnreadView {
        tenant: one.tenant.to_string(),
        provider: one.provider.to_string(),
        kek_id: one.kek_id,
        reason: one.reason.to_string(),
    };
    let unreadable_credentials = named.into_iter().map(unread).chain(secrets).collect();
    Ok(answer(CredentialReport {
        credentials,
        disabled,
        to_rewrap: to_rewrap + behind,
        unreadable: unreadable + lost.len(),
        unreadable_credentials,
        master_keys,
        trouble,
    }))
}

/// A step of a rewrap.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RewrapStep {
    /// Keys that the current master key opens now.
    done: usize,
    /// Keys that are left, those included that cannot be read here.
    left: usize,
    /// Keys that cannot be read here: they stay as they are.
    unreadable: usize,
    /// The current master key of this server.
    master_key: Option<String>,
}

/// Wraps the data keys of up to 100 keys, and of up to 100 signing secrets of webhooks, anew, for the current master key. Ask again until nothing is left but what cannot be
/// read; it may be broken off and done twice.
#[utoipa::path(post, path = "/v1/credentials/rewrap", tag = "credentials", security(("key" = [])), responses(
    (status = 200, body = RewrapStep),
    (status = 503, description = "this server has no master key", body = Document),
))]
pub(crate) async fn rewrap(State(app): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let step = app.api.credentials.rewrap().await.map_err(|error| match error {
        SetError::Journal(error) => error.into(),
        other => Problem::new(Cause::Unavailable, other.to_string()),
    })?;
    let secrets = webhooks::rewrap(&*app.api.stores.webhooks, &app.api.credentials.master_keys()).await;
    let secrets = secrets.map_err(signing::problem)?;
    let master_key = app.api.credentials.report().master_keys.first().cloned();
    Ok(answer(RewrapStep {
        done: step.done + secrets.done,
        left: step.left + secrets.left,
        unreadable: step.unreadable + secrets.unreadable,
        master_key,
    }))
}
