//! Erasing tenants: the order, and the log of those that were erased.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use queue_core::{
    erasure::{ERASURES_MAX, Erasure},
    ids::{NAME_MAX_BYTES, Name},
    journal::{KeyPage, PAGE_MAX_ROWS},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::tenants::named;
use crate::{
    app::{App, Shared},
    audit,
    auth::Caller,
    body::{self, SMALL_BODY_MAX_BYTES},
    fields::Fields,
    json,
    params::{Params, Segment},
    problem::{Cause, Document, Problem},
};

/// Most tenants of one import: a page of a log. Whoever has more sends more pages.
const IMPORT_MAX: usize = 100;
/// Largest body of an import.
const IMPORT_MAX_BYTES: usize = 64 * 1024;

/// What is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `erase` takes apart by hand
pub(crate) struct EraseOrder {
    /// The tenant's name once more: nothing brings back what is erased.
    #[schema(max_length = 64)]
    confirm: Option<String>,
    /// Only count what would go.
    #[schema(default = false)]
    dry_run: Option<bool>,
}

/// What the journal has of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Holdings {
    /// The tenant.
    tenant: String,
    /// Always true.
    dry_run: bool,
    /// Rows by table; those of `cost_days` stay, under a pseudonym.
    tables: Vec<Holding>,
}

/// What a table has.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Holding {
    /// Its name.
    table: String,
    /// How many rows; null where counting takes too long.
    rows: Option<u64>,
}

/// A tenant of the erase log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Erasure)]
pub(crate) struct ErasureView {
    /// Its name.
    tenant: String,
    /// What stands for it in sums of money and in the audit log.
    pseudonym: String,
    /// `running`, or `done` once a whole walk has found nothing.
    state: &'static str,
    /// When it was ordered.
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Timestamp,
    /// Rows that were taken away so far.
    erased: u64,
    /// When it was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
    /// When it was last made sure that nothing is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    checked_at: Option<Timestamp>,
}

/// The erase log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErasureList {
    /// Every tenant that was erased or is being, by name.
    erasures: Vec<ErasureView>,
}

/// What is replayed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Replay {
    /// Tenants of a log that was kept elsewhere, as it names them: they are erased.
    #[serde(default)]
    #[schema(max_items = 100)]
    erasures: Vec<Logged>,
    /// Whether the rows of all tenants of the log are looked for again.
    #[serde(default)]
    replay: bool,
}

/// A line of such a log.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Logged {
    /// The tenant.
    tenant: String,
    /// What stands for it.
    pseudonym: String,
    /// When it was ordered.
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Timestamp,
}

/// What a replay has set going.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Replayed {
    /// Tenants that were taken into the log, or were in it.
    imported: usize,
    /// Others whose rows are looked for again.
    replayed: u64,
}

impl From<Erasure> for ErasureView {
    fn from(erasure: Erasure) -> Self {
        Self {
            tenant: erasure.tenant.to_string(),
            pseudonym: erasure.pseudonym,
            state: if erasure.finished_at.is_some() { "done" } else { "running" },
            accepted_at: erasure.accepted_at,
            erased: erasure.erased,
            finished_at: erasure.finished_at,
            checked_at: erasure.checked_at,
        }
    }
}

/// Erases a tenant: nobody submits for it from now on, its keys end, what opens its secrets is destroyed at once, its jobs are
/// cancelled, and all of its rows are taken away in the background. Sums of money stay, under a pseudonym. Its name is refused
/// for ever. Asking again has its rows looked for again.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/erase", tag = "tenants", security(("key" = [])),
    request_body = EraseOrder, params(("tenant" = String, Path, description = "the tenant")), responses(
    (status = 200, description = "a dry run: what would go", body = Holdings),
    (status = 202, description = "it is being erased", body = ErasureView),
    (status = 400, body = Document),
    (status = 409, description = "keys of operators belong to it", body = Document),
    (status = 415, body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn erase(
    State(app): State<Shared>,
    caller: Caller,
    Segment(tenant): Segment,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let tenant = named(&tenant)?;
    let body = body::json(&app, &headers, body, SMALL_BODY_MAX_BYTES).await?;
    let mut fields = Fields::default();
    let [confirm, dry_run] = json::take_apart(json::utf8(&body)?, &["confirm", "dry_run"], &mut fields.errors)?;
    let dry_run = fields.boolean("dry_run", dry_run) == Some(true);
    let confirm = fields.label("confirm", confirm, NAME_MAX_BYTES);
    if !dry_run && confirm.as_deref() != Some(tenant.as_str()) {
        fields.wrong("confirm", "must be the tenant's name: nothing brings back what is erased");
    }
    fields.finish()?;
    if dry_run {
        let holdings = app.api.stores.erasures.holdings(&tenant).await?;
        let tables = holdings.into_iter().map(|(table, rows)| Holding { table, rows }).collect();
        return Ok(Json(Holdings { tenant: tenant.to_string(), dry_run, tables }).into_response());
    }
    check_operates_nothing(&app, &caller, &tenant).await?;
    let order = Erasure::order(tenant, Erasure::new_pseudonym(), app.now());
    let erasure = order_all(&app, vec![order]).await?.pop();
    let erasure = erasure.ok_or_else(|| Problem::new(Cause::Internal, "an erasure was ordered and is not there"))?;
    audit::under(&erasure.tenant, &erasure.pseudonym);
    Ok((StatusCode::ACCEPTED, Json(ErasureView::from(erasure))).into_response())
}

/// Shows the erase log. It is short, and it is what has to be kept beside backups: those that are older than an erasure do not
/// know of it.
#[utoipa::path(get, path = "/v1/erasures", tag = "tenants", security(("key" = [])),
    responses((status = 200, body = ErasureList)))]
pub(crate) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Json<ErasureList>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let log = app.api.stores.erasures.erasures().await?;
    Ok(Json(ErasureList { erasures: log.into_iter().map(ErasureView::from).collect() }))
}

/// Replays the erase log, as after a restore: tenants of a log that was kept elsewhere are erased again, and on request the rows of
/// all others are looked for.
#[utoipa::path(post, path = "/v1/erasures", tag = "tenants", security(("key" = [])), request_body = Replay, responses(
    (status = 202, body = Replayed),
    (status = 400, body = Document),
    (status = 409, description = "keys of operators belong to one of them", body = Document),
    (status = 415, body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn replay(
    State(app): State<Shared>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let body = body::json(&app, &headers, body, IMPORT_MAX_BYTES).await?;
    let text = json::utf8(&body)?;
    json::check_depth(text)?;
    let asked: Replay = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Problem::field("", error.to_string()),
        _ => json::syntax(&error),
    })?;
    if asked.erasures.len() > IMPORT_MAX {
        return Err(Problem::field("/erasures", format!("are more than {IMPORT_MAX}: send them in several requests")));
    }
    let mut orders = Vec::with_capacity(asked.erasures.len());
    for (at, line) in asked.erasures.into_iter().enumerate() {
        let wrong = |field: &'static str| move |reason| Problem::field(format!("/erasures/{at}/{field}"), reason);
        let tenant = Name::checked(&line.tenant).map_err(wrong("tenant"))?;
        if !Erasure::is_pseudonym(&line.pseudonym) {
            return Err(wrong("pseudonym")("is not of an erase log: `erased-` and 32 hexadecimal digits".to_owned()));
        }
        check_operates_nothing(&app, &caller, &tenant).await?;
        orders.push(Erasure::order(tenant, line.pseudonym, line.accepted_at));
    }
    let mut replayed = 0;
    if asked.replay {
        let now = app.now();
        replayed = app.api.stores.erasures.replay(now.plus_ms(1), now).await?;
    }
    let imported = order_all(&app, orders).await?.len();
    audit::unnamed();
    Ok((StatusCode::ACCEPTED, Json(Replayed { imported, replayed })).into_response())
}

/// Orders erasures, and answers when every process has heard of them.
async fn order_all(app: &Shared, orders: Vec<Erasure>) -> Result<Vec<Erasure>, Problem> {
    let log = app.api.stores.erasures.erasures().await?;
    let new = orders.iter().filter(|order| !log.iter().any(|known| known.tenant == order.tenant)).count();
    if log.len() + new > ERASURES_MAX {
        return Err(Problem::new(Cause::TooMany, format!("the erase log has room for {ERASURES_MAX} tenants")));
    }
    let task = {
        let app = app.clone();
        // In a task of its own: a caller that hangs up must not leave processes that do not know.
        audit::spawn(async move {
            let mut ordered = Vec::with_capacity(orders.len());
            for order in orders {
                ordered.push(app.api.stores.erasures.erase(order, app.now()).await?);
            }
            app.policies.forget();
            app.keys.forget();
            app.believed.forget();
            for erasure in &ordered {
                tracing::info!(pseudonym = erasure.pseudonym, "a tenant is erased");
            }
            if !ordered.is_empty() {
                tokio::time::sleep(app.api.settings.policy_settles).await;
            }
            Ok::<_, Problem>(ordered)
        })
    };
    task.await.map_err(|error| Problem::new(Cause::Internal, error.to_string()))?
}

/// Whose the admin key is that an installation makes at its first start, and again where none is left.
const BOOTSTRAP: &str = "default";

/// Refuses to erase whom operators belong to: whoever asks would lock out itself, and perhaps everybody.
async fn check_operates_nothing(app: &App, caller: &Caller, tenant: &Name) -> Result<(), Problem> {
    if tenant.as_str() == BOOTSTRAP || Erasure::is_pseudonym(tenant.as_str()) {
        let detail = format!(
            "{tenant} cannot be erased: the first admin key of an installation is of `{BOOTSTRAP}`, and pseudonyms stand for \
             tenants that were"
        );
        return Err(Problem::new(Cause::TenantOperates, detail).at("/path/tenant", "cannot be erased"));
    }
    let now = app.now();
    let mut page = KeyPage { tenant: Some(tenant.clone()), with_revoked: false, after: None, limit: PAGE_MAX_ROWS };
    let mut operates = caller.tenant == *tenant;
    loop {
        let keys = app.api.stores.identity.keys(&page).await?;
        operates |= keys.iter().any(|key| !key.role.is_tenant_bound() && key.expires_at.is_none_or(|end| end > now));
        page.after = keys.last().map(|key| key.id.clone());
        if keys.len() < PAGE_MAX_ROWS || operates {
            break;
        }
    }
    if operates {
        let detail =
            format!("keys of operators belong to {tenant}: make others for another tenant, and revoke these first");
        return Err(Problem::new(Cause::TenantOperates, detail).at("/path/tenant", "has keys with roles over tenants"));
    }
    Ok(())
}
