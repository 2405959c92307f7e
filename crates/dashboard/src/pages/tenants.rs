//! Tenants: what each may do and does, what it spends, its keys and its credentials, and everything that can be done with one.

mod credentials;
mod erase;
mod settings;

use std::collections::BTreeMap;

use askama::Template;
use axum::{
    Router,
    extract::{Path, Query},
    http::Method,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub(super) use self::credentials::told_once;
use super::{
    budgets::{self, Budget},
    filled::{Asked, Filled, code_of, page_with},
    keys::{self, Key},
    part::part,
};
use crate::{
    Dashboard,
    client::{Refused, path, query},
    form::{Flash, Posted, done},
    page::{Shell, html},
    viewer::Visit,
    words,
};

/// The address of the list.
const HERE: &str = "/dashboard/tenants";
/// What the list tells of money: whole days, which are sums already.
const SPEND_SINCE: &str = "30d";

pub(crate) fn routes() -> Router<Dashboard> {
    Router::new()
        .route("/dashboard/tenants", get(list))
        .route("/dashboard/tenants/find", get(find))
        .route("/dashboard/tenants/credentials/rewrap", post(credentials::rewrap))
        .route("/dashboard/tenants/{tenant}", get(show))
        .route("/dashboard/tenants/{tenant}/pause", post(pause))
        .route("/dashboard/tenants/{tenant}/resume", post(resume))
        .route("/dashboard/tenants/{tenant}/settings", post(settings::change))
        .route("/dashboard/tenants/{tenant}/budget", post(set_budget))
        .route("/dashboard/tenants/{tenant}/credentials", post(credentials::set))
        .route("/dashboard/tenants/{tenant}/credentials/{provider}/on", post(credentials::switch_on))
        .route("/dashboard/tenants/{tenant}/credentials/{provider}/off", post(credentials::switch_off))
        .route("/dashboard/tenants/{tenant}/credentials/{provider}/delete", post(credentials::delete))
        .route("/dashboard/tenants/{tenant}/signing-secret", post(credentials::signing_secret))
        .route("/dashboard/tenants/{tenant}/erase", post(erase::erase))
        .merge(keys::routes())
}

/// A tenant, as the API shows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Tenant {
    tenant: String,
    paused: bool,
    until: Option<String>,
    reason: Option<String>,
    weight: u32,
    backlog_max: Option<u64>,
    credential_policy: String,
    max_tokens: Option<u64>,
    kinds: Vec<String>,
    models: Vec<String>,
    aliases: BTreeMap<String, String>,
    default_model: Option<String>,
    requests_per_minute: Option<u64>,
    llm_submits_per_minute: Option<u64>,
    live: u64,
    version: i64,
}

impl Tenant {
    fn href(&self) -> String {
        here(&self.tenant)
    }

    fn state(&self) -> &'static str {
        if self.paused { "paused" } else { "active" }
    }

    fn policy_in_words(&self) -> &'static str {
        match self.credential_policy.as_str() {
            "own_only" => "Its own only",
            "default" => "The operator's always",
            _ => "Its own, else the operator's",
        }
    }
}

pub(super) fn here(tenant: &str) -> String {
    path(&["dashboard", "tenants", tenant])
}

/// A tenant of the list.
struct Line {
    tenant: Tenant,
    spend_usd: Option<String>,
    budget: Option<Budget>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    cursor: String,
}

#[derive(Template)]
#[template(path = "tenants.html")]
struct TenantsPage {
    shell: Shell,
    lines: Vec<Line>,
    next: String,
    first: String,
    report: Option<credentials::Report>,
    erasures: Option<Vec<erase::Erasure>>,
}

async fn list(visit: Visit, Query(wanted): Query<Wanted>) -> Result<Response, Refused> {
    #[derive(Deserialize)]
    struct Page {
        tenants: Vec<Tenant>,
        next_cursor: Option<String>,
    }
    // Who sees one tenant only has no list.
    if !visit.viewer.may("GET /v1/tenants") {
        return Ok(Redirect::to(&here(&visit.viewer.tenant)).into_response());
    }
    let page: Page = visit.client.get(&format!("/v1/tenants{}", query(&[("cursor", &wanted.cursor)]))).await?;
    let (mut spends, mut budgets, report, erasures) = tokio::try_join!(
        spends(&visit),
        budgets_of(&visit),
        part::<credentials::Report>(&visit, "GET /v1/credentials", "/v1/credentials"),
        erase::log(&visit),
    )?;
    let line = |tenant: Tenant| Line {
        spend_usd: spends.remove(&tenant.tenant),
        budget: budgets.remove(&format!("tenant:{}", tenant.tenant)),
        tenant,
    };
    let lines = page.tenants.into_iter().map(line).collect();
    let next = page.next_cursor.map(|cursor| format!("{HERE}{}", query(&[("cursor", &cursor)]))).unwrap_or_default();
    let first = if wanted.cursor.is_empty() { String::new() } else { HERE.to_owned() };
    Ok(html(TenantsPage { shell: visit.shell, lines, next, first, report, erasures }))
}

/// A tenant by its name, also one that nobody has named yet.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    tenant: String,
}

async fn find(Query(named): Query<Named>) -> Redirect {
    Redirect::to(&if named.tenant.trim().is_empty() { HERE.to_owned() } else { here(named.tenant.trim()) })
}

/// What each tenant has spent lately.
async fn spends(visit: &Visit) -> Result<BTreeMap<String, String>, Refused> {
    #[derive(Deserialize)]
    struct Row {
        spend_usd: String,
        #[serde(flatten)]
        group: Map<String, Value>,
    }
    #[derive(Deserialize)]
    struct Report {
        rows: Vec<Row>,
    }
    let asked = query(&[("group_by", "tenant"), ("since", SPEND_SINCE)]);
    let report: Option<Report> = part(visit, "GET /v1/costs", &format!("/v1/costs{asked}")).await?;
    let named = |row: Row| Some((row.group.get("tenant")?.as_str()?.to_owned(), row.spend_usd));
    Ok(report.into_iter().flat_map(|report| report.rows).filter_map(named).collect())
}

/// Budgets by their scopes.
async fn budgets_of(visit: &Visit) -> Result<BTreeMap<String, Budget>, Refused> {
    #[derive(Deserialize)]
    struct All {
        budgets: Vec<Budget>,
    }
    let all: Option<All> = part(visit, "GET /v1/budgets", "/v1/budgets").await?;
    let budgets = all.into_iter().flat_map(|all| all.budgets);
    Ok(budgets.map(|budget| (budget.scope.clone(), budget)).collect())
}

/// What a tenant used this month.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    requests: u64,
    requests_unpriced: u64,
    jobs: u64,
    tokens_in: u64,
    tokens_out: u64,
    spend_usd: String,
    wasted_usd: String,
    saved_usd: String,
    quota_left: QuotaLeft,
}

impl Usage {
    fn tokens(&self) -> String {
        words::compact((self.tokens_in + self.tokens_out) as f64)
    }
}

/// What is left of its quotas.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct QuotaLeft {
    usd: Option<String>,
}

/// The forms of a tenant's page that were refused, or have counted something; the others are as the tenant is.
#[derive(Default)]
pub(super) struct Forms {
    pause: Option<Filled>,
    settings: Option<Filled>,
    budget: Option<Filled>,
    credential: Option<Filled>,
    key: Option<Filled>,
    erase: Option<Filled>,
    holdings: Option<erase::Holdings>,
    /// What was refused to one of the small forms.
    refused: Option<Refused>,
}

impl Forms {
    /// The form of a new key was refused.
    pub(super) fn key(form: Filled) -> Self {
        Self { key: Some(form), ..Self::default() }
    }

    /// A small form was refused: the page says so above everything. What could not be mended has a page of its own.
    pub(super) fn refused(refused: Refused) -> Result<Self, Refused> {
        match refused.is_correctable() {
            true => Ok(Self { refused: Some(refused), ..Self::default() }),
            false => Err(refused),
        }
    }
}

#[derive(Template)]
#[template(path = "tenant.html")]
struct TenantPage {
    shell: Shell,
    tenant: Tenant,
    usage: Option<Usage>,
    budget: Option<Budget>,
    keys: Option<Vec<Key>>,
    more_keys: bool,
    credentials: Option<Vec<credentials::Credential>>,
    pause: Filled,
    settings: Filled,
    budget_form: Filled,
    credential: Filled,
    key: Filled,
    erase: Filled,
    holdings: Option<erase::Holdings>,
    refused: Option<Refused>,
}

impl TenantPage {
    /// An address below the tenant's.
    fn at(&self, what: &str) -> String {
        format!("{}/{what}", self.tenant.href())
    }

    fn credential_at(&self, provider: &str, what: &str) -> String {
        format!("{}{}", self.tenant.href(), path(&["credentials", provider, what]))
    }

    fn jobs_href(&self) -> String {
        format!("/dashboard/jobs{}", query(&[("tenant", &self.tenant.tenant)]))
    }

    fn costs_href(&self) -> String {
        let tenant = if self.shell.viewer.is_bound() { "" } else { &self.tenant.tenant };
        format!("/dashboard/costs{}", query(&[("tenant", tenant)]))
    }

    fn pause_what(&self) -> String {
        format!(
            "Claims skip its jobs: {} wait then. What runs goes on, and new jobs are accepted.",
            words::plural(self.tenant.live, "live job")
        )
    }

    fn revoke_all_what(&self) -> String {
        let active = self.keys.iter().flatten().filter(|key| key.is_active()).count();
        let more = if self.more_keys { " or more" } else { "" };
        let keys = words::plural(active as u64, "key");
        format!(
            "{keys}{more} that can be used now, and all tokens made from them, open nothing any more. This cannot be undone."
        )
    }

    fn kinds(&self) -> [&'static str; 6] {
        settings::KINDS
    }

    fn roles(&self) -> Vec<&'static str> {
        keys::roles_below(&self.shell.viewer.role)
    }
}

async fn show(visit: Visit, Path(name): Path<String>) -> Result<Response, Refused> {
    page(visit, &name, Forms::default()).await
}

pub(super) async fn page(visit: Visit, name: &str, forms: Forms) -> Result<Response, Refused> {
    let tenant: Tenant = visit.client.get(&path(&["v1", "tenants", name])).await?;
    let (used, budgeted) = (path(&["v1", "tenants", name, "usage"]), path(&["v1", "tenants", name, "budget"]));
    let listed = format!("/v1/keys{}", query(&[("tenant", name), ("revoked", "true"), ("limit", "500")]));
    let held = path(&["v1", "tenants", name, "credentials"]);
    let (usage, budget, listed, held) = tokio::try_join!(
        part::<Usage>(&visit, "GET /v1/tenants/{tenant}/usage", &used),
        part::<Budget>(&visit, "GET /v1/tenants/{tenant}/budget", &budgeted),
        part::<keys::List>(&visit, "GET /v1/keys", &listed),
        part::<credentials::Held>(&visit, "GET /v1/tenants/{tenant}/credentials", &held),
    )?;
    let Visit { viewer, shell, .. } = visit;
    let more_keys = listed.as_ref().is_some_and(|list| list.next_cursor.is_some());
    let Forms { pause, settings, budget: budget_form, credential, key, erase, holdings, refused } = forms;
    let page = TenantPage {
        usage,
        keys: listed.map(|list| keys::in_order(list.keys)),
        more_keys,
        credentials: held.map(|held| held.credentials),
        pause: pause.unwrap_or_else(|| Filled::new("pause")),
        settings: settings.unwrap_or_else(|| settings::form(&tenant)),
        budget_form: budget_form.unwrap_or_else(|| budget.clone().unwrap_or_default().form("budget")),
        credential: credential.unwrap_or_else(|| Filled::new("credential")),
        key: key.unwrap_or_else(|| keys::blank(&viewer)),
        erase: erase.unwrap_or_else(|| Filled::new("erase")),
        holdings,
        refused,
        budget,
        tenant,
        shell: shell.clone(),
    };
    let forms = [&page.pause, &page.settings, &page.budget_form, &page.credential, &page.key, &page.erase];
    let code = page.refused.as_ref().map_or_else(|| code_of(&forms), Refused::code);
    // A count is of the form that asked for it.
    let shell = if page.holdings.is_some() { shell.not_live() } else { shell };
    Ok(page_with(code, shell, |shell| TenantPage { shell, ..page }))
}

async fn pause(Path(name): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let body = Asked::default().with("paused", true).texts(&posted, &["reason"]).moment(&posted, "until").body();
    let reason = posted.required("reason").map(|_| ());
    let answer: Result<(), Refused> = match reason {
        Ok(()) => posted.visit.client.send(Method::PATCH, &path(&["v1", "tenants", &name]), Some(&body)).await,
        Err(refused) => Err(refused),
    };
    match answer {
        Ok(()) => Ok(done(&here(&name), Flash::good(format!("{name} is paused: its jobs wait, what runs goes on.")))),
        Err(refused) => {
            let pause = Filled::back("pause", &posted, &["until", "reason"], refused)?;
            page(posted.visit, &name, Forms { pause: Some(pause), ..Forms::default() }).await
        }
    }
}

async fn resume(Path(name): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let body = json!({ "paused": false });
    let () = posted.visit.client.send(Method::PATCH, &path(&["v1", "tenants", &name]), Some(&body)).await?;
    Ok(done(&here(&name), Flash::good(format!("The jobs of {name} go on."))))
}

async fn set_budget(Path(name): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let place = path(&["v1", "tenants", &name, "budget"]);
    match budgets::set(&posted.visit.client, &place, "budget", &posted).await? {
        None => Ok(done(&here(&name), Flash::good(format!("The budget of {name} is set.")))),
        Some(form) => page(posted.visit, &name, Forms { budget: Some(form), ..Forms::default() }).await,
    }
}
