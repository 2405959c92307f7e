//! Webhook endpoints: who is told of what, and the secrets that messages are signed with.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::{FromRequestParts, State},
    http::{HeaderMap, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use queue_core::{
    ids::Name,
    private::Secret,
    time::Timestamp,
    webhooks::{ENDPOINTS_MAX, Endpoint, EventKind, OVERLAP_MAX_MS, OVERLAP_MS, Owner, first_secret, for_jobs, rotate},
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::tenants::named;
use crate::{
    app::{App, Shared},
    audit, body,
    fields::{self, Fields, Raw},
    json,
    params::{self, Params, Segment},
    problem::{Cause, Document, Problem},
    settings::{REASON_MAX_BYTES, check_tag, is_value, tag_of},
    signing,
};

/// Largest body of a change.
const BODY_MAX_BYTES: usize = 16 * 1024;
/// Longest description, in bytes.
const DESCRIPTION_MAX_BYTES: usize = 500;
/// Most events that a body names: each of them twice.
const EVENTS_NAMED_MAX: usize = 2 * EventKind::ALL.len();

/// A receiver of webhooks, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhook)]
pub(crate) struct WebhookView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// Whose events it is told; everybody's, and the installation's own, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    tenant: Option<Name>,
    /// Where it is.
    url: String,
    /// What it is told of.
    #[schema(value_type = Vec<EventWord>)]
    events: Vec<EventKind>,
    /// Whether it is told anything.
    enabled: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Grows with every change.
    version: i64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// What its messages are signed with: shown here and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "whsec_…")]
    secret: Option<Secret>,
}

/// What happened.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookEvent)]
#[allow(dead_code)] // schema of `queue_core::webhooks::EventKind`
pub(crate) enum EventWord {
    #[serde(rename = "job.succeeded")]
    JobSucceeded,
    #[serde(rename = "job.dead")]
    JobDead,
    #[serde(rename = "job.cancelled")]
    JobCancelled,
    #[serde(rename = "budget.alert")]
    BudgetAlert,
    #[serde(rename = "breaker.opened")]
    BreakerOpened,
    #[serde(rename = "breaker.closed")]
    BreakerClosed,
    #[serde(rename = "credential.disabled")]
    CredentialDisabled,
    #[serde(rename = "alert.raised")]
    AlertRaised,
    #[serde(rename = "alert.cleared")]
    AlertCleared,
}

impl WebhookView {
    fn of(endpoint: Endpoint, secret: Option<Secret>) -> Self {
        let Endpoint { id, tenant, url, events, enabled, reason, description, version, created_at } = endpoint;
        Self { id, tenant, url, events, enabled, reason, description, version, created_at, secret }
    }
}

/// Every endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebhookList {
    /// Oldest first.
    webhooks: Vec<WebhookView>,
}

/// A secret, shown once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SigningSecret {
    /// What messages are signed with from now on: shown here and never again.
    #[schema(value_type = String, example = "whsec_…")]
    secret: Secret,
    /// What the tenant's `http` jobs are signed with: shown here and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "whsec_…")]
    jobs_secret: Option<Secret>,
    /// Its number.
    version: i64,
    /// Until when messages carry a signature by the former one as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    former_until: Option<Timestamp>,
}

/// The id of an endpoint or a delivery, from the path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdPath(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for IdPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let reason = "is not an id of this kind, which is a UUID";
        params::id_of(parts, state, "there is no such thing", reason).await.map(Self)
    }
}

fn missing(id: Uuid) -> Problem {
    Problem::new(Cause::NotFound, format!("no webhook has the id {}", id.hyphenated()))
}

async fn find(app: &App, id: Uuid) -> Result<Endpoint, Problem> {
    let found = app.api.stores.webhooks.endpoints().await?.into_iter().find(|endpoint| endpoint.id == id);
    found.ok_or_else(|| missing(id))
}

/// Nothing of it belongs into any cache.
fn answer(status: StatusCode, view: WebhookView) -> Response {
    let headers = [(header::CACHE_CONTROL, "no-store".to_owned()), (header::ETAG, tag_of(view.version))];
    (status, headers, Json(view)).into_response()
}

/// Lists who is told of what.
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", security(("key" = [])), params(
    ("tenant" = Option<String>, Query, description = "of this tenant"),
), responses((status = 200, body = WebhookList), (status = 422, body = Document)))]
pub(crate) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Json<WebhookList>, Problem> {
    let mut params = Params::of(&uri, &["tenant"])?;
    let tenant = params.parsed("tenant", Name::checked);
    params.finish()?;
    let all = app.api.stores.webhooks.endpoints().await?.into_iter();
    let of_tenant = |one: &Endpoint| tenant.is_none() || one.tenant == tenant;
    Ok(Json(WebhookList { webhooks: all.filter(of_tenant).map(|one| WebhookView::of(one, None)).collect() }))
}

/// Shows an endpoint.
#[utoipa::path(get, path = "/v1/webhooks/{id}", tag = "webhooks", security(("key" = [])), params(
    ("id" = String, Path, description = "the endpoint"),
), responses((status = 200, body = WebhookView), (status = 404, body = Document), (status = 422, body = Document)))]
pub(crate) async fn get(State(app): State<Shared>, IdPath(id): IdPath, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    Ok(answer(StatusCode::OK, WebhookView::of(find(&app, id).await?, None)))
}

/// A new endpoint.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `create` takes apart by hand
pub(crate) struct NewWebhook {
    /// Where messages go: https, and to the public internet, unless the configuration allows more.
    #[schema(example = "https://hooks.example.com/longshore")]
    url: String,
    /// What it is told of; every event when absent.
    #[schema(value_type = Option<Vec<EventWord>>)]
    events: Option<Vec<String>>,
    /// Whose events; everybody's, and the installation's own, when absent.
    tenant: Option<String>,
    /// For people.
    #[schema(max_length = 500)]
    description: Option<String>,
}

/// Adds an endpoint. The answer shows its secret, and nothing else ever does.
#[utoipa::path(post, path = "/v1/webhooks", tag = "webhooks", security(("key" = [])), request_body = NewWebhook,
    responses(
    (status = 201, body = WebhookView),
    (status = 422, body = Document),
    (status = 503, description = "this server has no master key to keep its secret with", body = Document),
))]
pub(crate) async fn create(
    State(app): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let body = body::json(&app, &headers, body, BODY_MAX_BYTES).await?;
    let text = json::utf8(&body)?;
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let names = ["url", "events", "tenant", "description"];
    let [url, events, tenant, description] = json::take_apart(text, &names, &mut fields.errors)?;
    if url.is_none() {
        fields.wrong("url", "is required");
    }
    let url = fields.parsed("url", url, |text| app.api.settings.outbound.check(text));
    let events = read_events(&mut fields, events).unwrap_or_else(|| EventKind::ALL.to_vec());
    let tenant = fields.name("tenant", tenant);
    let description = fields.label("description", description, DESCRIPTION_MAX_BYTES);
    fields.finish()?;
    if let Some(tenant) = &tenant {
        app.policy().await?.check_tenant(tenant)?;
    }
    let Some(url) = url else { return Err(Problem::new(Cause::Internal, "a URL passed its checks and is not there")) };
    let (id, created_at) = (Uuid::now_v7(), app.now());
    let endpoint =
        Endpoint { id, tenant, url, events, enabled: true, reason: None, description, version: 1, created_at };
    let (secret, sealed) =
        first_secret(&app.api.credentials.master_keys(), &Owner::Endpoint(id)).map_err(signing::problem)?;
    if !app.api.stores.webhooks.add_endpoint(endpoint.clone(), sealed).await? {
        let reason = format!("there are {ENDPOINTS_MAX} endpoints already; delete one first");
        return Err(Problem::new(Cause::TooMany, reason));
    }
    tracing::info!(webhook = %id, "a webhook endpoint was added");
    let view = WebhookView::of(endpoint, Some(secret.expose_secret().to_owned().into()));
    let mut response = answer(StatusCode::CREATED, view);
    if let Ok(place) = format!("/v1/webhooks/{}", id.hyphenated()).parse() {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

fn read_events(fields: &mut Fields, raw: Raw<'_>) -> Option<Vec<EventKind>> {
    let raw = raw?;
    let words = fields.labels("events", Some(raw), EVENTS_NAMED_MAX, 64);
    let mut events = Vec::new();
    for word in &words {
        match EventKind::parse(word) {
            Some(event) if events.contains(&event) => {}
            Some(event) => events.push(event),
            None => {
                let known: Vec<_> = EventKind::ALL.iter().map(|event| event.as_str()).collect();
                fields.wrong("events", format!("`{word}` is no event; there are {}", known.join(", ")));
            }
        }
    }
    if words.is_empty() && raw.get().starts_with('[') {
        fields.wrong("events", "names no event; leave it out for all of them");
    }
    Some(events)
}

/// A change of an endpoint; what is not named stays.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `patch` takes apart by hand
pub(crate) struct WebhookPatch {
    /// Where messages go from now on, those included that wait.
    url: Option<String>,
    /// What it is told of.
    #[schema(value_type = Option<Vec<EventWord>>)]
    events: Option<Vec<String>>,
    /// Whether it is told anything.
    enabled: Option<bool>,
    /// Why it is not.
    #[schema(max_length = 500)]
    reason: Option<String>,
    /// For people; `null` takes it away.
    #[schema(max_length = 500)]
    description: Option<String>,
}

/// Changes an endpoint. What waits for one that is switched off is dropped; switched on, it is told of what happens from then on.
#[utoipa::path(patch, path = "/v1/webhooks/{id}", tag = "webhooks", security(("key" = [])), request_body = WebhookPatch,
    params(
    ("id" = String, Path, description = "the endpoint"),
    ("If-Match" = Option<String>, Header, description = "the tag that was read: refused if it was changed since"),
), responses(
    (status = 200, body = WebhookView),
    (status = 404, body = Document),
    (status = 412, description = "it was changed since it was read", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn patch(
    State(app): State<Shared>,
    IdPath(id): IdPath,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let body = body::json(&app, &headers, body, BODY_MAX_BYTES).await?;
    let text = json::utf8(&body)?;
    json::check_depth(text)?;
    let before = find(&app, id).await?;
    check_tag(&headers, before.version, "webhook")?;
    audit::before(&WebhookView::of(before.clone(), None));
    let after = change(&app, text, before)?;
    if !app.api.stores.webhooks.change_endpoint(after.clone()).await? {
        return Err(Problem::new(Cause::Stale, "the webhook was changed at the same time; read it and try again"));
    }
    tracing::info!(webhook = %id, enabled = after.enabled, "a webhook endpoint was changed");
    Ok(answer(StatusCode::OK, WebhookView::of(after, None)))
}

fn change(app: &App, text: &str, before: Endpoint) -> Result<Endpoint, Problem> {
    let mut fields = Fields::default();
    let names = ["url", "events", "enabled", "reason", "description"];
    let values = json::take_apart_with_null(text, &names, &mut fields.errors)?;
    let [url, events, enabled, reason, description] = values;
    let given = |raw: Option<&'_ RawValue>| raw.is_some() && !is_value(raw);
    for (name, raw) in [("url", url), ("events", events), ("enabled", enabled)] {
        if given(raw) {
            fields.wrong(name, "must not be null");
        }
    }
    let url = fields.parsed("url", url.filter(|_| is_value(url)), |text| app.api.settings.outbound.check(text));
    let events = read_events(&mut fields, events.filter(|_| is_value(events)));
    let enabled = fields.boolean("enabled", enabled.filter(|_| is_value(enabled)));
    let new_reason = fields.label("reason", reason.filter(|_| is_value(reason)), REASON_MAX_BYTES);
    let new_description =
        fields.label("description", description.filter(|_| is_value(description)), DESCRIPTION_MAX_BYTES);
    let mut after = before;
    if let Some(enabled) = enabled {
        // Each switch says its own reason.
        (after.enabled, after.reason) = (enabled, None);
    }
    if new_reason.is_some() && after.enabled {
        fields.wrong("reason", "belongs to an endpoint that is switched off: give `\"enabled\": false` with it");
    }
    fields.finish()?;
    after.version += 1;
    after.url = url.unwrap_or(after.url);
    after.events = events.unwrap_or(after.events);
    if reason.is_some() {
        after.reason = new_reason;
    }
    if description.is_some() {
        after.description = new_description;
    }
    Ok(after)
}

/// Deletes an endpoint with its secrets. What waits for it is dropped.
#[utoipa::path(delete, path = "/v1/webhooks/{id}", tag = "webhooks", security(("key" = [])), params(
    ("id" = String, Path, description = "the endpoint"),
), responses((status = 204, description = "deleted"), (status = 404, body = Document), (status = 422, body = Document)))]
pub(crate) async fn delete(State(app): State<Shared>, IdPath(id): IdPath, uri: Uri) -> Result<StatusCode, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let before = find(&app, id).await?;
    audit::before(&WebhookView::of(before, None));
    if !app.api.stores.webhooks.drop_endpoint(id).await? {
        return Err(missing(id));
    }
    tracing::info!(webhook = %id, "a webhook endpoint was deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// How a secret is changed.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `read_overlap` takes apart by hand
pub(crate) struct Rotation {
    /// How long messages carry a signature by the former secret as well: 0s to 30 days.
    #[schema(default = "24h")]
    overlap: Option<String>,
}

fn read_overlap(text: &str) -> Result<i64, Problem> {
    let longest = Duration::from_millis(OVERLAP_MAX_MS.unsigned_abs());
    let too_long = |text: &str| format!("`{text}` is out of range: at most 30 days are allowed");
    let overlap = fields::read_overlap(text, longest, too_long)?;
    Ok(overlap.map_or(OVERLAP_MS, |overlap| i64::try_from(overlap.as_millis()).unwrap_or(OVERLAP_MAX_MS)))
}

async fn renew(app: &App, owner: Owner, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    let body = body::json(app, headers, body, BODY_MAX_BYTES).await?;
    let overlap_ms = read_overlap(json::utf8(&body)?)?;
    let now = app.now();
    let rotated = rotate(&*app.api.stores.webhooks, &app.api.credentials.master_keys(), &owner, overlap_ms, now).await;
    let (secret, version) = rotated.map_err(signing::problem)?;
    tracing::info!(%owner, version, "a signing secret was rotated");
    let former_until = (version > 1).then(|| now.plus_ms(overlap_ms));
    let for_jobs = matches!(owner, Owner::Tenant(_)).then(|| for_jobs(&secret)).flatten();
    let view = SigningSecret {
        secret: secret.expose_secret().to_owned().into(),
        jobs_secret: for_jobs.map(|secret| secret.expose_secret().to_owned().into()),
        version,
        former_until,
    };
    Ok((StatusCode::OK, [(header::CACHE_CONTROL, "no-store")], Json(view)).into_response())
}

/// Gives an endpoint another secret. The answer shows it, and nothing else ever does; the former one goes on signing beside it
/// for a day, unless told otherwise.
#[utoipa::path(post, path = "/v1/webhooks/{id}/rotate-secret", tag = "webhooks", security(("key" = [])),
    request_body = Rotation, params(("id" = String, Path, description = "the endpoint")), responses(
    (status = 200, body = SigningSecret),
    (status = 404, body = Document),
    (status = 422, body = Document),
    (status = 503, description = "this server has no master key to keep it with", body = Document),
))]
pub(crate) async fn rotate_secret(
    State(app): State<Shared>,
    IdPath(id): IdPath,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    find(&app, id).await?;
    renew(&app, Owner::Endpoint(id), &headers, body).await
}

/// Gives a tenant another secret, or its first: what is sent to the URLs of its jobs is signed with it. The answer shows it, and
/// nothing else ever does; the former one goes on signing beside it for a day, unless told otherwise.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/signing-secret", tag = "webhooks", security(("key" = [])),
    request_body = Rotation, params(("tenant" = String, Path, description = "the tenant")), responses(
    (status = 200, body = SigningSecret),
    (status = 422, body = Document),
    (status = 503, description = "this server has no master key to keep it with", body = Document),
))]
pub(crate) async fn rotate_of_tenant(
    State(app): State<Shared>,
    Segment(tenant): Segment,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    renew(&app, Owner::Tenant(named(&tenant)?), &headers, body).await
}
