//! Budgets: what tenants, keys and the installation may spend in a day and a month, and how that stands.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use queue_core::{
    budget::{AtLimit, Budget, FRESH, Lines, Measure, Scope, Span, Standing, USD_MAX, fill, tell_raise},
    ids::Name,
    journal::{Alert, Versioned},
    ledger::Nanousd,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    audit,
    auth::Caller,
    body,
    fields::{Fields, Raw},
    json,
    params::{Params, Segment},
    problem::{Cause, Document, Problem},
    routes::why::Reason,
    settings::{check_tag, tag_of},
};

/// Largest body of a change.
const BODY_MAX_BYTES: usize = 16 * 1024;
/// Longest name of a model.
const MODEL_MAX_BYTES: usize = 128;
/// Most tokens of a budget: numbers up to here are whole in every reader of JSON.
const TOKENS_MAX: u64 = 1 << 53;
/// Alerts that are shown: those of some days.
const ALERTS_SHOWN: usize = 100;

/// A budget, and how it stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Budget)]
pub(crate) struct BudgetView {
    /// `all`, `tenant:<name>` or `key:<id>`.
    scope: String,
    /// US dollars of a UTC day; any amount when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    day_usd: Option<String>,
    /// US dollars of a UTC month.
    #[serde(skip_serializing_if = "Option::is_none")]
    month_usd: Option<String>,
    /// Tokens of prompts and answers in a UTC day.
    #[serde(skip_serializing_if = "Option::is_none")]
    day_tokens: Option<u64>,
    /// Tokens of prompts and answers in a UTC month.
    #[serde(skip_serializing_if = "Option::is_none")]
    month_tokens: Option<u64>,
    /// What follows where there is no room: `park`, `fail` or `degrade`.
    at_limit: &'static str,
    /// The model that chat calls go on with.
    #[serde(skip_serializing_if = "Option::is_none")]
    degrade_to: Option<String>,
    /// How each of its limits stands.
    limits: Vec<LineView>,
    /// Grows with every change; 0 where nothing was ever set.
    version: i64,
}

/// One limit of a budget. Money in US dollars as text, tokens as numbers in text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineView {
    /// `usd` or `tokens`.
    measure: &'static str,
    /// `day` or `month`.
    period: &'static str,
    /// How much there is.
    limit: String,
    /// What has been spent, by the ledger.
    spent: String,
    /// What calls under way have reserved.
    reserved: String,
    /// What is left.
    left: String,
    /// When the period ends.
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
}

impl LineView {
    /// As a reason to wait.
    pub(crate) fn reason(&self, scope: &Scope) -> Reason {
        let sign = if self.measure == Measure::Usd.as_str() { "$" } else { "" };
        let number = |text: &str| -> i128 {
            // Money has nine places at most.
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            format!("{whole}{fraction:0<9}").parse().unwrap_or_default()
        };
        let limit = number(&self.limit).max(1);
        let left_ppm = i64::try_from(number(&self.left) * 1_000_000 / limit).unwrap_or(i64::MAX);
        let what = format!("the budget of {} of {sign}{} for the {}", scope.words(), self.limit, self.period);
        let (spent, reserved) = (format!("{sign}{}", self.spent), format!("{sign}{}", self.reserved));
        Reason::budget((scope, what), (spent, reserved), left_ppm, self.until)
    }
}

/// Budgets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BudgetList {
    /// Those that limit something, in the order of their scopes.
    budgets: Vec<BudgetView>,
    /// The newest alerts, newest first, at most 100.
    alerts: Vec<AlertView>,
}

/// A level that a budget has reached; noted once for each period.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BudgetAlert)]
pub(crate) struct AlertView {
    /// `all`, `tenant:<name>` or `key:<id>`.
    scope: String,
    /// `usd` or `tokens`.
    measure: &'static str,
    /// `day` or `month`.
    period: &'static str,
    /// In percent: 50, 80 or 100.
    level: u8,
    /// What had been spent: US dollars as text, tokens as a number in text.
    spent: String,
    /// Of how much.
    limit: String,
    /// When the period began.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// When it was noticed.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

impl From<Alert> for AlertView {
    fn from(alert: Alert) -> Self {
        let Alert { scope, measure, period, since, level, spent, budget, at } = alert;
        Self {
            scope: scope.to_string(),
            measure: measure.as_str(),
            period: period.as_str(),
            level,
            spent: amount(measure, spent),
            limit: amount(measure, budget),
            since: Timestamp(since),
            at,
        }
    }
}

/// A number of a budget as it is told.
fn amount(measure: Measure, number: i64) -> String {
    match measure {
        Measure::Usd => Nanousd(number).to_string(),
        Measure::Tokens => number.to_string(),
    }
}

/// A whole budget: what is not given is not limited. An empty object takes every limit away.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `read` takes apart by hand
pub(crate) struct BudgetRequest {
    /// US dollars of a UTC day.
    #[schema(example = "5.00")]
    day_usd: Option<String>,
    /// US dollars of a UTC month.
    month_usd: Option<String>,
    /// Tokens of prompts and answers in a UTC day.
    day_tokens: Option<u64>,
    /// Tokens of prompts and answers in a UTC month.
    month_tokens: Option<u64>,
    /// What follows where there is no room: `park` (jobs wait, unspent), `fail` (they are dead letters) or `degrade` (chat
    /// calls go on with `degrade_to` for as long as that fits, then jobs wait).
    #[schema(default = "park")]
    at_limit: Option<String>,
    /// The cheaper model, with `degrade`.
    #[schema(max_length = 128)]
    degrade_to: Option<String>,
}

fn tenant_scope(text: &str) -> Result<Scope, Problem> {
    Name::checked(text).map(Scope::Tenant).map_err(|reason| Problem::field("/path/tenant", reason))
}

async fn key_scope(app: &App, caller: &Caller, text: &str) -> Result<Scope, Problem> {
    let key = app.api.stores.identity.key(text).await?;
    match key.filter(|key| caller.bound().is_none_or(|tenant| *tenant == key.tenant)) {
        Some(key) => Ok(Scope::Key(Name::from(key.id.as_str()))),
        None => {
            let detail = "there is no API key with this id";
            Err(Problem::new(Cause::NotFound, detail).at("/path/key", "is not the public part of a key: 8 characters"))
        }
    }
}

/// The budget of a scope, as it is set or configured.
async fn held(app: &App, scope: &Scope) -> Result<Versioned<Budget>, Problem> {
    app.api.budgets.refresh().await?;
    let nothing = || Versioned { version: 0, value: Budget::default() };
    Ok(app.api.budgets.of(scope).unwrap_or_else(nothing))
}

async fn view(app: &App, scope: &Scope, budget: &Versioned<Budget>) -> Result<BudgetView, Problem> {
    let Versioned { version, value } = budget;
    Ok(BudgetView {
        scope: scope.to_string(),
        day_usd: value.day_usd.map(|limit| limit.to_string()),
        month_usd: value.month_usd.map(|limit| limit.to_string()),
        day_tokens: value.day_tokens,
        month_tokens: value.month_tokens,
        at_limit: value.at_limit.as_str(),
        degrade_to: value.degrade_to.clone(),
        limits: lines(app, scope, value).await?,
        version: *version,
    })
}

/// How the limits of a budget stand: by the counters, or by the ledger where nobody has counted yet.
pub(crate) async fn lines(app: &App, scope: &Scope, budget: &Budget) -> Result<Vec<LineView>, Problem> {
    if budget.is_empty() {
        return Ok(vec![]);
    }
    let (stores, span) = (&app.api.stores, Span::of(app.now()));
    let counted = stores.counters.standing(scope).await.ok().flatten().filter(|standing| standing.known);
    let Standing { spent, reserved, .. } = match counted {
        Some(standing) => standing,
        None => Standing { known: false, spent: stores.budgets.spent(scope, span).await?, reserved: [0; 2] },
    };
    let line = |(at, limit): (usize, Option<i64>)| {
        let (measure, period) = Lines::ALL[at];
        let (limit, reserved) = (limit?, reserved[at / 2]);
        let left = limit.saturating_sub(spent[at]).saturating_sub(reserved).max(0);
        let show = |number: i64| amount(measure, number);
        Some(LineView {
            measure: measure.as_str(),
            period: period.as_str(),
            limit: show(limit),
            spent: show(spent[at]),
            reserved: show(reserved),
            left: show(left),
            until: span.end(period),
        })
    };
    Ok(budget.limits().into_iter().enumerate().filter_map(line).collect())
}

/// What is left in this period, the smaller one of day and month; `None` where there is no limit.
pub(crate) async fn left(app: &App, scope: &Scope) -> Result<(Option<Nanousd>, Option<u64>), Problem> {
    let Versioned { value, .. } = held(app, scope).await?;
    let lines = lines(app, scope, &value).await?;
    let of = |measure: Measure| lines.iter().filter(move |line| line.measure == measure.as_str());
    let usd = of(Measure::Usd).filter_map(|line| line.left.parse::<Nanousd>().ok()).min();
    let tokens = of(Measure::Tokens).filter_map(|line| line.left.parse::<u64>().ok()).min();
    Ok((usd, tokens))
}

async fn show(app: &App, scope: &Scope) -> Result<Response, Problem> {
    let budget = held(app, scope).await?;
    let view = view(app, scope, &budget).await?;
    Ok((StatusCode::OK, [(header::ETAG, tag_of(budget.version))], Json(view)).into_response())
}

async fn change(app: &Shared, scope: Scope, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let body = body::json(app, &headers, body, BODY_MAX_BYTES).await?;
    let budget = read(app, json::utf8(&body)?)?;
    let task = {
        let (app, scope) = (app.clone(), scope.clone());
        // In a task of its own: a caller that hangs up must not leave journal and counters apart.
        audit::spawn(async move {
            let stores = &app.api.stores;
            let one_at_a_time = app.settings_edits.lock().await;
            let before = held(&app, &scope).await?;
            check_tag(&headers, before.version, "budget")?;
            audit::before(&before.value);
            let version = stores.budgets.set_budget(&scope, budget.clone()).await?;
            app.api.budgets.refresh().await?;
            drop(one_at_a_time);
            if before.value.is_empty() && !budget.is_empty() {
                // Until every worker knows that there is a budget, some call without reserving. The answer comes when it holds.
                tokio::time::sleep(HOLDS_AFTER).await;
            }
            // A limit that was not there before begins with what the ledger says.
            let told = match fill(stores, &scope).await {
                Ok(()) => tell_raise(stores, &scope, Versioned { version, value: budget }).await,
                Err(error) => Err(error),
            };
            if let Err(error) = told {
                tracing::warn!(%error, %scope, "the scheduler makes the changed budget known");
            }
            Ok::<_, Problem>(())
        })
    };
    task.await.map_err(|error| Problem::new(Cause::Internal, error.to_string()))??;
    show(app, &scope).await
}

fn read(app: &App, text: &str) -> Result<Budget, Problem> {
    const KNOWN: [&str; 6] = ["day_usd", "month_usd", "day_tokens", "month_tokens", "at_limit", "degrade_to"];
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let given = json::take_apart(text, &KNOWN, &mut fields.errors)?;
    let [day_usd, month_usd, day_tokens, month_tokens, at_limit, degrade_to] = given;
    let day_usd = fields.parsed("day_usd", day_usd, str::parse::<Nanousd>);
    let month_usd = fields.parsed("month_usd", month_usd, str::parse::<Nanousd>);
    let day_tokens = tokens(&mut fields, "day_tokens", day_tokens);
    let month_tokens = tokens(&mut fields, "month_tokens", month_tokens);
    let at_limit = fields.parsed("at_limit", at_limit, |word| {
        AtLimit::parse(word).ok_or_else(|| format!("`{word}` is not park, fail or degrade"))
    });
    let at_limit = at_limit.unwrap_or_default();
    let degrade_to = fields.label("degrade_to", degrade_to, MODEL_MAX_BYTES);
    match (&degrade_to, at_limit) {
        (None, AtLimit::Degrade) => fields.wrong("degrade_to", "is required with `\"at_limit\": \"degrade\"`"),
        (Some(_), AtLimit::Park | AtLimit::Fail) => {
            fields.wrong("degrade_to", "belongs to `\"at_limit\": \"degrade\"`");
        }
        (Some(model), AtLimit::Degrade) if app.api.routes.resolve(model).is_none() => {
            fields.wrong("degrade_to", format!("`{model}` is served by no provider"));
        }
        (Some(model), AtLimit::Degrade) if app.api.prices.cost(model, &Default::default()).is_none() => {
            fields.wrong("degrade_to", format!("nobody knows what `{model}` costs"));
        }
        _ => {}
    }
    if day_usd.zip(month_usd).is_some_and(|(day, month)| day > month) {
        fields.wrong("day_usd", "is more than `month_usd`: a day cannot spend more than its month");
    }
    fields.finish()?;
    Ok(Budget { day_usd, month_usd, day_tokens, month_tokens, at_limit, degrade_to })
}

fn tokens(fields: &mut Fields, name: &str, raw: Raw<'_>) -> Option<u64> {
    let raw = raw?;
    let tokens = raw.get().parse::<u64>().ok().filter(|tokens| *tokens <= TOKENS_MAX);
    if tokens.is_none() {
        fields.wrong(name, format!("must be a whole number from 0 to {TOKENS_MAX}"));
    }
    tokens
}

/// Lists budgets: those that limit something, and the newest alerts of all.
#[utoipa::path(get, path = "/v1/budgets", tag = "money", security(("key" = [])),
    responses((status = 200, body = BudgetList)))]
pub(crate) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Json<BudgetList>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    app.api.budgets.refresh().await?;
    let mut budgets = Vec::new();
    for (scope, budget) in app.api.budgets.all().iter().filter(|(_, budget)| !budget.value.is_empty()) {
        budgets.push(view(&app, scope, budget).await?);
    }
    let alerts = app.api.stores.budgets.alerts(ALERTS_SHOWN).await?;
    Ok(Json(BudgetList { budgets, alerts: alerts.into_iter().map(AlertView::from).collect() }))
}

/// Shows the budget of the whole installation.
#[utoipa::path(get, path = "/v1/budget", tag = "money", security(("key" = [])),
    responses((status = 200, body = BudgetView)))]
pub(crate) async fn get_all(State(app): State<Shared>, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    show(&app, &Scope::All).await
}

/// Replaces the budget of the whole installation.
#[utoipa::path(put, path = "/v1/budget", tag = "money", security(("key" = [])), request_body = BudgetRequest, params(
    ("If-Match" = Option<String>, Header, description = "`ETag` of the budget: refused if it was changed since"),
), responses(
    (status = 200, body = BudgetView),
    (status = 412, description = "it was changed since it was read", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn put_all(
    State(app): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    change(&app, Scope::All, headers, body).await
}

/// Shows the budget of a tenant.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/budget", tag = "money", security(("key" = [])), params(
    ("tenant" = String, Path, description = "the tenant"),
), responses((status = 200, body = BudgetView), (status = 422, body = Document)))]
pub(crate) async fn get_tenant(
    State(app): State<Shared>,
    Segment(tenant): Segment,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    show(&app, &tenant_scope(&tenant)?).await
}

/// Replaces the budget of a tenant. A raise wakes its waiting jobs within a second.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/budget", tag = "money", security(("key" = [])),
    request_body = BudgetRequest, params(
    ("tenant" = String, Path, description = "the tenant"),
    ("If-Match" = Option<String>, Header, description = "`ETag` of the budget: refused if it was changed since"),
), responses(
    (status = 200, body = BudgetView),
    (status = 412, description = "it was changed since it was read", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn put_tenant(
    State(app): State<Shared>,
    Segment(tenant): Segment,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    change(&app, tenant_scope(&tenant)?, headers, body).await
}

/// Shows the budget of an API key.
#[utoipa::path(get, path = "/v1/keys/{key}/budget", tag = "money", security(("key" = [])), params(
    ("key" = String, Path, description = "the key's public part: the 8 characters behind `lsk_`"),
), responses((status = 200, body = BudgetView), (status = 404, body = Document)))]
pub(crate) async fn get_key(
    State(app): State<Shared>,
    caller: Caller,
    Segment(key): Segment,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let scope = key_scope(&app, &caller, &key).await?;
    show(&app, &scope).await
}

/// Replaces the budget of an API key: what the jobs that it submits may spend.
#[utoipa::path(put, path = "/v1/keys/{key}/budget", tag = "money", security(("key" = [])), request_body = BudgetRequest,
    params(
    ("key" = String, Path, description = "the key's public part: the 8 characters behind `lsk_`"),
    ("If-Match" = Option<String>, Header, description = "`ETag` of the budget: refused if it was changed since"),
), responses(
    (status = 200, body = BudgetView),
    (status = 404, body = Document),
    (status = 412, description = "it was changed since it was read", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn put_key(
    State(app): State<Shared>,
    caller: Caller,
    Segment(key): Segment,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let scope = key_scope(&app, &caller, &key).await?;
    change(&app, scope, headers, body).await
}

/// Workers look every [`FRESH`] for budgets: after twice as long all know a new one.
const HOLDS_AFTER: Duration = FRESH.saturating_mul(2);

const _: () = assert!(USD_MAX < i64::MAX / 1_000_000_000, "every amount that is read fits");
