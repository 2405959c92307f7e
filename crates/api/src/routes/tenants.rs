//! Tenants: what was set for them, and pausing them.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use queue_core::{
    credentials::CredentialPolicy,
    dispatcher::Setting,
    ids::Name,
    journal::{TenantSettings, Versioned},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    body::{self, Media},
    fields::Fields,
    json,
    params::{Params, Segment},
    problem::{Cause, Document, Problem},
    settings::{Pause, check_tag, tag_of},
};

/// Largest body of a change.
const BODY_MAX_BYTES: usize = 16 * 1024;

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub(crate) struct TenantView {
    /// Its name.
    tenant: String,
    /// Whether claims skip its jobs now.
    paused: bool,
    /// When the pause ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Why it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Turns of its jobs in a round.
    weight: u32,
    /// Live jobs that it may have; any number when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog_max: Option<u64>,
    /// What it may do without a usable provider key of its own: `own_only`, `own_then_default` or `default`.
    #[schema(value_type = String)]
    credential_policy: CredentialPolicy,
    /// Its live jobs.
    live: u64,
    /// Grows with every change of the settings; 0 before the first.
    version: i64,
}

fn untouched() -> Versioned<TenantSettings> {
    Versioned { version: 0, value: TenantSettings::default() }
}

pub(super) fn named(text: &str) -> Result<Name, Problem> {
    Name::checked(text).map_err(|reason| Problem::field("/path/tenant", reason))
}

/// Shows a tenant. One that nobody has named yet has no jobs and the usual settings.
#[utoipa::path(get, path = "/v1/tenants/{tenant}", tag = "tenants", security(("key" = [])), params(
    ("tenant" = String, Path, description = "the tenant"),
), responses((status = 200, body = TenantView), (status = 422, body = Document)))]
pub(crate) async fn get(State(app): State<Shared>, Segment(tenant): Segment, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    show(&app, &named(&tenant)?).await
}

async fn show(app: &App, tenant: &Name) -> Result<Response, Problem> {
    let catalog = &app.api.stores.catalog;
    let (settings, backlog) = tokio::join!(catalog.tenants(), catalog.backlog(tenant));
    let Versioned { version, value } = settings?.remove(tenant).unwrap_or_else(untouched);
    let pause = Pause { on: value.paused, until: value.paused_until, reason: value.reason }.at(app.now());
    let view = TenantView {
        tenant: tenant.to_string(),
        paused: pause.on,
        until: pause.until,
        reason: pause.reason,
        weight: value.weight,
        backlog_max: value.backlog_max,
        credential_policy: value.credential_policy,
        live: backlog?.live,
        version,
    };
    Ok((StatusCode::OK, [(header::ETAG, tag_of(version))], Json(view)).into_response())
}

/// A change to a tenant's settings. What is absent stays, what is `null` is taken away.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `change` takes apart by hand
pub(crate) struct TenantPatch {
    /// Whether claims skip its jobs. What runs goes on, and new jobs are accepted.
    paused: Option<bool>,
    /// When the pause ends by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
    /// Why it is paused, for those who ask `why`.
    #[schema(max_length = 500)]
    reason: Option<String>,
    /// What it may do without a usable provider key of its own: `own_only` (its jobs wait for one, the operator's is never
    /// used), `own_then_default` (unless set) or `default` (the operator's always). Answered when every process obeys it.
    #[schema(value_type = Option<String>)]
    credential_policy: Option<CredentialPolicy>,
}

/// Pauses or resumes a tenant, or says whose provider keys its calls are made with.
#[utoipa::path(patch, path = "/v1/tenants/{tenant}", tag = "tenants", security(("key" = [])), request_body = TenantPatch,
    params(
    ("tenant" = String, Path, description = "the tenant"),
    ("If-Match" = Option<String>, Header, description = "`ETag` of the tenant: refused if it was changed since"),
), responses(
    (status = 200, body = TenantView),
    (status = 412, description = "it was changed since it was read", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn patch(
    State(app): State<Shared>,
    Segment(tenant): Segment,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let tenant = named(&tenant)?;
    let (_, body) = body::take(&app, &headers, body, &[Media::Json], BODY_MAX_BYTES).await?;
    let task = {
        let (app, tenant) = (app.clone(), tenant.clone());
        // In a task of its own: a caller that hangs up must not leave journal and dispatcher apart.
        tokio::spawn(async move {
            let one_at_a_time = app.settings_edits.lock().await;
            let held = app.api.stores.catalog.tenants().await?.remove(&tenant).unwrap_or_else(untouched);
            check_tag(&headers, held.version, "tenant")?;
            let policy = held.value.credential_policy;
            let value = change(held.value, json::utf8(&body)?, app.now())?;
            let version = app.api.stores.catalog.set_tenant(&tenant, value.clone()).await?;
            let has_new_policy = value.credential_policy != policy;
            let setting = Setting::Tenant(tenant.clone(), Versioned { version, value });
            if let Err(error) = app.api.stores.dispatcher.apply(setting).await {
                tracing::warn!(%error, %tenant, "the dispatcher gets the tenant's settings from the reconciler");
            }
            drop(one_at_a_time);
            if has_new_policy {
                app.api.credentials.refresh().await?;
                // Until then another process might still use the operator's key for a job that is submitted next.
                tokio::time::sleep(app.api.settings.policy_settles).await;
            }
            Ok::<_, Problem>(())
        })
    };
    task.await.map_err(|error| Problem::new(Cause::Internal, error.to_string()))??;
    show(&app, &tenant).await
}

fn change(settings: TenantSettings, text: &str, now: Timestamp) -> Result<TenantSettings, Problem> {
    const KNOWN: [&str; 4] = ["paused", "until", "reason", "credential_policy"];
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let given = json::take_apart_with_null(text, &KNOWN, &mut fields.errors)?;
    if fields.errors.is_empty() && given.iter().all(Option::is_none) {
        return Err(Problem::field("", format!("names nothing to change: give {}", KNOWN.join(", "))));
    }
    let [paused, until, reason, policy] = given;
    let pause = Pause { on: settings.paused, until: settings.paused_until, reason: settings.reason.clone() };
    let pause = pause.change(&mut fields, [paused, until, reason], now);
    let policy = fields.parsed("credential_policy", policy, |word| {
        let known = || CredentialPolicy::ALL.map(CredentialPolicy::as_str).join(", ");
        CredentialPolicy::parse(word).ok_or_else(|| format!("`{word}` is no credential policy; there are {}", known()))
    });
    fields.finish()?;
    let credential_policy = policy.unwrap_or(settings.credential_policy);
    let (paused, paused_until, reason) = (pause.on, pause.until, pause.reason);
    Ok(TenantSettings { paused, paused_until, reason, credential_policy, ..settings })
}
