//! Tenants: what was set for them, and pausing them.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use queue_core::{
    credentials::CredentialPolicy,
    dispatcher::{Setting, WEIGHT_MAX},
    ids::Name,
    job::Kind,
    journal::{TenantRules, TenantSettings, Versioned},
    request_limits::Rates,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    audit, body,
    fields::{Fields, RATES, Raw},
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
    /// Longest answer that a request may allow, in tokens; any length when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    /// Kinds that it may submit; all when absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kinds: Vec<&'static str>,
    /// Models that it may ask for: names, or prefixes followed by `*`; all when absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    models: Vec<String>,
    /// Names of its own for models.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    aliases: BTreeMap<String, String>,
    /// The chat model of its jobs that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    default_model: Option<String>,
    /// Requests that its users and analysts may send in a minute, all together; absent: as configured for each tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_minute: Option<u32>,
    /// Jobs that ask model providers and that they may submit in a minute, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    llm_submits_per_minute: Option<u32>,
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
    let settings = settings?.remove(tenant).unwrap_or_else(untouched);
    let tag = tag_of(settings.version);
    let view = TenantView::new(tenant, settings, backlog?.live, app.now());
    Ok((StatusCode::OK, [(header::ETAG, tag)], Json(view)).into_response())
}

impl TenantView {
    fn new(tenant: &Name, settings: Versioned<TenantSettings>, live: u64, now: Timestamp) -> Self {
        let Versioned { version, value } = settings;
        let pause = Pause { on: value.paused, until: value.paused_until, reason: value.reason }.at(now);
        Self {
            tenant: tenant.to_string(),
            paused: pause.on,
            until: pause.until,
            reason: pause.reason,
            weight: value.weight,
            backlog_max: value.backlog_max,
            credential_policy: value.credential_policy,
            max_tokens: value.rules.max_tokens,
            kinds: value.rules.kinds.iter().map(|kind| kind.as_str()).collect(),
            models: value.rules.models,
            aliases: value.rules.aliases,
            default_model: value.rules.default_model,
            requests_per_minute: value.rates.requests_per_minute,
            llm_submits_per_minute: value.rates.llm_submits_per_minute,
            live,
            version,
        }
    }
}

/// A page of tenants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantPage {
    /// By name.
    tenants: Vec<TenantView>,
    /// Give it as `cursor` to go on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Lists tenants by name: those for whom something was set, who have or had jobs, or a key.
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", security(("key" = [])), params(
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ("limit" = Option<u32>, Query, description = "1 to 500, default 50"),
), responses((status = 200, body = TenantPage), (status = 422, body = Document)))]
pub(crate) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Json<TenantPage>, Problem> {
    let mut params = Params::of(&uri, &["cursor", "limit"])?;
    let behind = params.parsed("cursor", Name::checked);
    let limit = params.limit();
    params.finish()?;
    let catalog = &app.api.stores.catalog;
    // One more than asked tells whether there is another page.
    let (settings, known) = tokio::join!(catalog.tenants(), catalog.known_tenants(behind.as_ref(), limit + 1));
    let (mut settings, mut known) = (settings?, known?);
    let more = known.len() > limit;
    known.truncate(limit);
    let next_cursor = known.last().filter(|_| more).map(|(last, _)| last.to_string());
    let now = app.now();
    let view = |(tenant, live): (Name, u64)| {
        TenantView::new(&tenant, settings.remove(&tenant).unwrap_or_else(untouched), live, now)
    };
    Ok(Json(TenantPage { tenants: known.into_iter().map(view).collect(), next_cursor }))
}

/// All settings of a tenant: what is absent is as it is for a tenant that nobody has named.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `whole` takes apart by hand
pub(crate) struct TenantRequest {
    /// Whether claims skip its jobs.
    #[schema(default = false)]
    paused: Option<bool>,
    /// When the pause ends by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
    /// Why it is paused, for those who ask `why`.
    #[schema(max_length = 500)]
    reason: Option<String>,
    /// Turns of its jobs in a round.
    #[schema(default = 1, minimum = 1, maximum = 1000)]
    weight: Option<u32>,
    /// Live jobs that it may have.
    backlog_max: Option<u32>,
    /// Longest answer that a request may allow, in tokens; requests must then say how long theirs may be.
    #[schema(minimum = 1)]
    max_tokens: Option<u32>,
    /// Kinds that it may submit; all when empty.
    #[schema(max_items = 6)]
    kinds: Option<Vec<String>>,
    /// Models that it may ask for: names, or prefixes followed by `*`; all when empty.
    #[schema(max_items = 64)]
    models: Option<Vec<String>>,
    /// Names of its own for models, e.g. `{"fast": "gpt-4o-mini"}`. They are written out when a job is submitted.
    #[schema(value_type = Option<Object>)]
    aliases: Option<BTreeMap<String, String>>,
    /// The chat model of its jobs that name none; a model or an alias.
    #[schema(max_length = 128)]
    default_model: Option<String>,
    /// Requests that its users and analysts may send in a minute, all together; as configured for each tenant when absent.
    #[schema(minimum = 1, maximum = 1_000_000)]
    requests_per_minute: Option<u32>,
    /// Jobs that ask model providers (`llm`, `embedding`, `analysis`) and that they may submit in a minute, likewise.
    #[schema(minimum = 1, maximum = 1_000_000)]
    llm_submits_per_minute: Option<u32>,
    /// Whose provider keys its calls are made with: `own_only`, `own_then_default` or `default`. It stays as it is where it is
    /// absent: nobody is to use the operator's keys because of an oversight.
    #[schema(value_type = Option<String>)]
    credential_policy: Option<CredentialPolicy>,
}

/// Most models or aliases of a tenant: they are looked through with every submit.
const MODELS_MAX: usize = 64;
/// Longest name of a model.
const MODEL_MAX_BYTES: usize = 128;

/// Replaces all settings of a tenant.
#[utoipa::path(put, path = "/v1/tenants/{tenant}", tag = "tenants", security(("key" = [])), request_body = TenantRequest,
    params(
    ("tenant" = String, Path, description = "the tenant"),
    ("If-Match" = Option<String>, Header, description = "`ETag` of the tenant: refused if it was changed since"),
), responses(
    (status = 200, body = TenantView),
    (status = 412, description = "it was changed since it was read", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn put(
    State(app): State<Shared>,
    Segment(tenant): Segment,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let tenant = named(&tenant)?;
    let body = body::json(&app, &headers, body, BODY_MAX_BYTES).await?;
    let (value, policy) = whole(&app, json::utf8(&body)?)?;
    let with_policy = move |held: TenantSettings| {
        let credential_policy = policy.unwrap_or(held.credential_policy);
        Ok(TenantSettings { credential_policy, ..value })
    };
    set(&app, &tenant, headers, with_policy).await
}

/// Changes a tenant's settings in journal and dispatcher.
async fn set(
    app: &Shared,
    tenant: &Name,
    headers: HeaderMap,
    change: impl FnOnce(TenantSettings) -> Result<TenantSettings, Problem> + Send + 'static,
) -> Result<Response, Problem> {
    let task = {
        let (app, tenant) = (app.clone(), tenant.clone());
        // In a task of its own: a caller that hangs up must not leave journal and dispatcher apart.
        audit::spawn(async move {
            let one_at_a_time = app.settings_edits.lock().await;
            let held = app.api.stores.catalog.tenants().await?.remove(&tenant).unwrap_or_else(untouched);
            check_tag(&headers, held.version, "tenant")?;
            audit::before(&held.value);
            let policy = held.value.credential_policy;
            let value = change(held.value)?;
            let has_new_policy = value.credential_policy != policy;
            let version = app.api.stores.catalog.set_tenant(&tenant, value.clone()).await?;
            app.policies.forget();
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
    show(app, tenant).await
}

fn whole(app: &App, text: &str) -> Result<(TenantSettings, Option<CredentialPolicy>), Problem> {
    const KNOWN: [&str; 13] = [
        "paused",
        "until",
        "reason",
        "weight",
        "backlog_max",
        "max_tokens",
        "kinds",
        "models",
        "aliases",
        "default_model",
        "credential_policy",
        RATES[0],
        RATES[1],
    ];
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let given = json::take_apart(text, &KNOWN, &mut fields.errors)?;
    let [paused, until, reason, weight, backlog_max, max_tokens, kinds, models, rest @ ..] = given;
    let [aliases, default_model, policy, rates @ ..] = rest;
    let pause = Pause::default().change(&mut fields, [paused, until, reason], app.now());
    let weight = fields.integer("weight", weight, 1..=WEIGHT_MAX).unwrap_or(1);
    let backlog_max = fields.integer("backlog_max", backlog_max, 0..=u32::MAX).map(u64::from);
    let max_tokens = fields.integer("max_tokens", max_tokens, 1..=u32::MAX).map(u64::from);
    let kind = |(at, word): (usize, String)| {
        let known = Kind::parse(&word);
        if known.is_none() {
            fields.wrong("kinds", format!("has `{word}` at place {at}, which is no kind"));
        }
        known
    };
    let kinds = read_labels(kinds, Kind::ALL.len())?.into_iter().enumerate().filter_map(kind).collect();
    let models = fields.labels("models", models, MODELS_MAX, MODEL_MAX_BYTES);
    let aliases = read_aliases(app, &mut fields, aliases);
    let default_model = fields.label("default_model", default_model, MODEL_MAX_BYTES);
    let policy = read_policy(&mut fields, policy);
    let rates = fields.rates(rates, Rates::default());
    let rules = TenantRules { max_tokens, kinds, models, aliases, default_model };
    if let Some(model) = rules.default_model.as_deref().map(|named| rules.model(named)) {
        if app.api.routes.resolve(model).is_none() {
            fields.wrong("default_model", format!("`{model}` is served by no provider"));
        } else if !rules.allows_model(model) {
            fields.wrong("default_model", format!("`{model}` is not one of `models`"));
        }
    }
    fields.finish()?;
    let Pause { on: paused, until: paused_until, reason } = pause;
    let settings =
        TenantSettings { backlog_max, weight, paused, paused_until, reason, rules, rates, ..TenantSettings::default() };
    Ok((settings, policy))
}

fn read_policy(fields: &mut Fields, raw: Raw<'_>) -> Option<CredentialPolicy> {
    fields.parsed("credential_policy", raw, |word| {
        let known = || CredentialPolicy::ALL.map(CredentialPolicy::as_str).join(", ");
        CredentialPolicy::parse(word).ok_or_else(|| format!("`{word}` is no credential policy; there are {}", known()))
    })
}

/// A list of words that the caller checks itself.
fn read_labels(raw: Raw<'_>, most: usize) -> Result<Vec<String>, Problem> {
    let mut fields = Fields::default();
    let labels = fields.labels("kinds", raw, most, MODEL_MAX_BYTES);
    fields.finish()?;
    Ok(labels)
}

fn read_aliases(app: &App, fields: &mut Fields, raw: Raw<'_>) -> BTreeMap<String, String> {
    let Some(raw) = raw else { return BTreeMap::new() };
    let Ok(aliases) = serde_json::from_str::<BTreeMap<String, String>>(raw.get()) else {
        fields.wrong("aliases", "must be an object of names and the models that they stand for");
        return BTreeMap::new();
    };
    if aliases.len() > MODELS_MAX {
        fields.wrong("aliases", format!("has {} names; the limit is {MODELS_MAX}", aliases.len()));
        return BTreeMap::new();
    }
    for (name, model) in &aliases {
        if name.is_empty() || name.len().max(model.len()) > MODEL_MAX_BYTES || name.chars().any(char::is_control) {
            fields.wrong("aliases", format!("has a name that is not 1 to {MODEL_MAX_BYTES} bytes of text"));
        } else if aliases.contains_key(model) && model != name {
            fields.wrong("aliases", format!("`{name}` stands for `{model}`, which is an alias itself"));
        } else if app.api.routes.resolve(model).is_none() {
            fields.wrong("aliases", format!("`{name}` stands for `{model}`, which no provider serves"));
        }
    }
    aliases
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
    /// Requests that its users and analysts may send in a minute, all together; `null`: as configured for each tenant.
    #[schema(minimum = 1, maximum = 1_000_000)]
    requests_per_minute: Option<u32>,
    /// Jobs that ask model providers (`llm`, `embedding`, `analysis`) and that they may submit in a minute, likewise.
    #[schema(minimum = 1, maximum = 1_000_000)]
    llm_submits_per_minute: Option<u32>,
}

/// Pauses or resumes a tenant, or says whose provider keys its calls are made with, or how often it may ask.
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
    let body = body::json(&app, &headers, body, BODY_MAX_BYTES).await?;
    let now = app.now();
    set(&app, &tenant, headers, move |held| change(held, json::utf8(&body)?, now)).await
}

fn change(settings: TenantSettings, text: &str, now: Timestamp) -> Result<TenantSettings, Problem> {
    const KNOWN: [&str; 6] = ["paused", "until", "reason", "credential_policy", RATES[0], RATES[1]];
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let given = json::take_apart_with_null(text, &KNOWN, &mut fields.errors)?;
    if fields.errors.is_empty() && given.iter().all(Option::is_none) {
        return Err(Problem::field("", format!("names nothing to change: give {}", KNOWN.join(", "))));
    }
    let [paused, until, reason, policy, rates @ ..] = given;
    let pause = Pause { on: settings.paused, until: settings.paused_until, reason: settings.reason.clone() };
    let pause = pause.change(&mut fields, [paused, until, reason], now);
    let policy = read_policy(&mut fields, policy);
    let rates = fields.rates(rates, settings.rates);
    fields.finish()?;
    let credential_policy = policy.unwrap_or(settings.credential_policy);
    let (paused, paused_until, reason) = (pause.on, pause.until, pause.reason);
    Ok(TenantSettings { paused, paused_until, reason, credential_policy, rates, ..settings })
}
