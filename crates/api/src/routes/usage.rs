//! What each tenant used.

use axum::{Json, extract::State, http::Uri};
use queue_core::{
    budget::Scope,
    ids::Name,
    journal::{CostColumn, CostQuery, CostRow},
    ledger::Usage,
    time::Timestamp,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{budgets, costs::end_of_day};
use crate::{
    app::Shared,
    auth::Caller,
    params::{Params, Segment},
    problem::{Cause, Document, Problem},
    view::UsageView,
};

/// What a tenant used in a period, and what it may still use.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantUsage {
    /// Whose.
    #[schema(value_type = String)]
    tenant: Name,
    /// Calls that ended at or after; the first of this month (UTC) unless given.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// Calls that ended before.
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
    /// Requests to providers.
    requests: u64,
    /// Requests whose price is unknown: their cost is not in the sums.
    requests_unpriced: u64,
    /// Jobs that asked a provider, each counted when its first call ended.
    jobs: u64,
    /// Jobs now that are accepted and have not ended.
    live_jobs: u64,
    /// Tokens.
    #[serde(flatten)]
    #[schema(value_type = UsageView)]
    usage: Usage,
    /// US dollars spent, over priced requests.
    spend_usd: String,
    /// Part of it that was for nothing.
    wasted_usd: String,
    /// US dollars charged for succeeded jobs.
    charge_usd: String,
    /// US dollars that answers would have cost for which nobody had to be asked; not part of `spend_usd`.
    saved_usd: String,
    /// What is left of its quotas.
    quota_left: QuotaLeft,
}

/// What is left; `null` where there is no quota.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QuotaLeft {
    /// Live jobs that it may have besides those that it has (`backlog_max`).
    live_jobs: Option<u64>,
    /// Requests to providers.
    requests: Option<u64>,
    /// Tokens of its budget, of the day or of the month, whichever has less; what is reserved by calls under way is not left.
    tokens: Option<u64>,
    /// US dollars of its budget, likewise.
    usd: Option<String>,
}

/// What a tenant used. One that nobody has named anywhere has used nothing.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/usage", tag = "money", security(("key" = [])), params(
    ("tenant" = String, Path, description = "the tenant"),
    ("since" = Option<String>, Query, description = "RFC 3339, or a duration back (days and weeks from the start of that UTC day); default the first of this month (UTC)"),
    ("until" = Option<String>, Query, description = "RFC 3339, or a duration back (days and weeks from the start of that UTC day); default now"),
), responses((status = 200, body = TenantUsage), (status = 404, body = Document), (status = 422, body = Document)))]
pub(crate) async fn usage(
    State(app): State<Shared>,
    caller: Caller,
    Segment(tenant): Segment,
    uri: Uri,
) -> Result<Json<TenantUsage>, Problem> {
    let tenant = Name::checked(&tenant)
        .map_err(|reason| Problem::new(Cause::NotFound, "no tenant has such a name").at("/path/tenant", reason))?;
    let mut params = Params::of(&uri, &["since", "until"])?;
    let now = app.now();
    let since = params.past_day("since", now).unwrap_or_else(|| first_of_month(now));
    let given = params.past_day("until", now);
    let until = given.unwrap_or(now.plus_ms(1));
    if since >= until {
        params.wrong("since", format!("is not before `until` ({until})"));
    }
    params.finish()?;
    let stores = &app.api.stores;
    let query = CostQuery {
        by: vec![CostColumn::Tenant],
        since,
        until: given.unwrap_or_else(|| end_of_day(now)),
        tenant: Some(tenant.clone()),
    };
    let line = caller.ledger(&app).costs(&query).await?.into_iter().next();
    let backlog = stores.catalog.backlog(&tenant).await?;
    let (usd, tokens) = budgets::left(&app, &Scope::Tenant(tenant.clone())).await?;
    let of = |number: fn(&CostRow) -> u64| line.as_ref().map(number).unwrap_or_default();
    let money =
        |sum: fn(&CostRow) -> queue_core::ledger::Nanousd| line.as_ref().map(sum).unwrap_or_default().to_string();
    Ok(Json(TenantUsage {
        tenant,
        since,
        until,
        requests: of(|line| line.calls),
        requests_unpriced: of(|line| line.calls_unpriced),
        jobs: of(|line| line.jobs),
        live_jobs: backlog.live,
        usage: line.as_ref().map(|line| line.usage).unwrap_or_default(),
        spend_usd: money(|line| line.spend),
        wasted_usd: money(|line| line.wasted),
        charge_usd: money(|line| line.charge.unwrap_or_default()),
        saved_usd: money(|line| line.saved.total()),
        quota_left: QuotaLeft {
            live_jobs: backlog.max.map(|max| max.saturating_sub(backlog.live)),
            requests: None,
            tokens,
            usd: usd.map(|left| left.to_string()),
        },
    }))
}

/// Midnight of the first of the month, UTC.
fn first_of_month(now: Timestamp) -> Timestamp {
    let text = now.to_string();
    let month = text.get(..7).unwrap_or_default();
    format!("{month}-01T00:00:00Z").parse().unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_on_its_first() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(first_of_month(at("2026-11-29T13:14:15.678Z")), at("2026-11-01T00:00:00Z"));
        assert_eq!(first_of_month(at("2026-12-01T00:00:00Z")), at("2026-12-01T00:00:00Z"));
    }
}
