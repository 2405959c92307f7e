//! `GET /v1/costs`: what was spent, by whom and on what.

use axum::{Json, extract::State, http::Uri};
use queue_core::{
    ids::Name,
    journal::{CostColumn, CostQuery, CostRow},
    ledger::Usage,
    retention::Class,
    time::{DAY_MS, Timestamp},
};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    auth::Caller,
    params::Params,
    problem::{Document, Problem},
    view::UsageView,
};

/// What a report looks back on when it names no start.
const SINCE_DEFAULT_MS: i64 = 7 * 24 * 60 * 60 * 1_000;
/// Most columns of one report.
const COLUMNS_MAX: usize = 3;

/// A cost report.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Costs {
    /// The columns of each row's group.
    group_by: Vec<&'static str>,
    /// Calls that ended at or after.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// Calls that ended before.
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
    /// Dearest first, at most 1,000.
    rows: Vec<CostView>,
}

/// One line of a cost report. The values of the `group_by` columns stand beside these fields.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CostRow)]
pub(crate) struct CostView {
    /// The group: one member for each column.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    group: Map<String, Value>,
    /// Provider calls.
    calls: u64,
    /// Calls that may or may not have been billed.
    calls_maybe: u64,
    /// Calls whose price is unknown: their cost is not in the sums.
    calls_unpriced: u64,
    /// Jobs, each counted where its first call is.
    jobs: u64,
    /// Tokens.
    #[serde(flatten)]
    #[schema(value_type = UsageView)]
    usage: Usage,
    /// US dollars spent, over priced calls.
    spend_usd: String,
    /// Part of it that was for nothing: calls that ended in an error, second answers to one call, answers of dead letters.
    wasted_usd: String,
    /// US dollars charged for succeeded jobs; absent where a column belongs to a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    charge_usd: Option<String>,
    /// US dollars that answers would have cost for which nobody had to be asked; not part of `spend_usd`.
    saved_usd: String,
    /// Part of it: an earlier attempt of the job had paid for the answer.
    saved_memo_usd: String,
    /// Part of it: another job had asked the same before.
    saved_cache_usd: String,
    /// Part of it: several jobs asked the same in one call.
    saved_coalesced_usd: String,
    /// Part of it: another job was asking the same at that moment.
    saved_singleflight_usd: String,
    /// Answers for which nobody had to be asked.
    saved_answers: u64,
    /// Those whose price is unknown: they are not in the sums.
    saved_unpriced: u64,
}

impl CostView {
    fn new(columns: &[&'static str], row: CostRow) -> Self {
        let group = columns.iter().zip(row.group);
        let saved_total = row.saved.total().to_string();
        // In the order of `SavedBy::ALL`.
        let [saved_memo_usd, saved_cache_usd, saved_coalesced_usd, saved_singleflight_usd] =
            row.saved.by_reason.map(|saved| saved.to_string());
        Self {
            group: group.map(|(column, value)| ((*column).to_owned(), Value::String(value))).collect(),
            calls: row.calls,
            calls_maybe: row.calls_maybe,
            calls_unpriced: row.calls_unpriced,
            jobs: row.jobs,
            usage: row.usage,
            spend_usd: row.spend.to_string(),
            wasted_usd: row.wasted.to_string(),
            charge_usd: row.charge.map(|charge| charge.to_string()),
            saved_usd: saved_total,
            saved_memo_usd,
            saved_cache_usd,
            saved_coalesced_usd,
            saved_singleflight_usd,
            saved_answers: row.saved.answers,
            saved_unpriced: row.saved.unpriced,
        }
    }
}

/// The end of a period that has none: of today, so that today is a sum and not read row by row.
pub(crate) fn end_of_day(now: Timestamp) -> Timestamp {
    now.start_of_day().plus_ms(DAY_MS)
}

/// Spend, charge and savings by one to three columns.
#[utoipa::path(get, path = "/v1/costs", tag = "money", security(("key" = [])), params(
    ("group_by" = Option<String>, Query, description = "one to three of operation, model, provider, tenant, queue, \
     kind, day; separated by commas; default `operation`"),
    ("since" = Option<String>, Query, description = "RFC 3339, or a duration back (days and weeks from the start of that UTC day); default `7d`"),
    ("until" = Option<String>, Query, description = "RFC 3339, or a duration back (days and weeks from the start of that UTC day); default now"),
    ("tenant" = Option<String>, Query, description = "only those of this tenant"),
), responses((status = 200, body = Costs), (status = 422, body = Document)))]
pub(crate) async fn costs(State(app): State<Shared>, caller: Caller, uri: Uri) -> Result<Json<Costs>, Problem> {
    let mut params = Params::of(&uri, &["group_by", "since", "until", "tenant"])?;
    let now = app.now();
    let columns = params.parsed("group_by", parse_columns);
    let since = params.past_day("since", now).unwrap_or(now.plus_ms(-SINCE_DEFAULT_MS).start_of_day());
    let given = params.past_day("until", now);
    let until = given.unwrap_or(now.plus_ms(1));
    if since >= until {
        params.wrong("since", format!("is not before `until` ({until})"));
    }
    let tenant = params.parsed("tenant", Name::checked);
    params.finish()?;
    for (name, boundary) in [("since", Some(since)), ("until", given)] {
        if let Some(at) = boundary {
            check_is_counted(&app, name, at).await?;
        }
    }
    let by = columns.unwrap_or_else(|| vec![CostColumn::Operation]);
    let group_by: Vec<_> = by.iter().map(|column| column.as_str()).collect();
    if let (Some(bound), Some(tenant)) = (caller.bound(), &tenant)
        && bound != tenant
    {
        return Ok(Json(Costs { group_by, since, until, rows: vec![] }));
    }
    let tenant = caller.bound().cloned().or(tenant);
    let query = CostQuery { by, since, until: given.unwrap_or_else(|| end_of_day(now)), tenant };
    let rows = caller.ledger(&app).costs(&query).await?;
    let rows = rows.into_iter().map(|row| CostView::new(&group_by, row)).collect();
    Ok(Json(Costs { group_by, since, until, rows }))
}

/// Single calls of before this long are never looked for: retention leaves them alone.
const DETAILS_LEAST_MS: i64 = 89 * DAY_MS;

/// A part of a day is summed up call by call: where these are gone, there is only the sum of the whole day.
async fn check_is_counted(app: &App, name: &str, at: Timestamp) -> Result<(), Problem> {
    if at == at.start_of_day() || at > app.now().plus_ms(-DETAILS_LEAST_MS) {
        return Ok(());
    }
    let notes = app.api.stores.retention.notes().await?;
    match notes.get(&Class::CostDetails).and_then(|note| note.edge) {
        Some(edge) if at < edge => {
            let reason =
                format!("lies within a day before {edge}, of which only the sum is kept: name a midnight (UTC)");
            Err(Problem::field(format!("/query/{name}"), reason))
        }
        _ => Ok(()),
    }
}

fn parse_columns(text: &str) -> Result<Vec<CostColumn>, String> {
    let mut columns = Vec::new();
    for word in text.split(',').map(str::trim) {
        let Some(column) = CostColumn::ALL.into_iter().find(|column| column.as_str() == word) else {
            let names = CostColumn::ALL.map(CostColumn::as_str).join(", ");
            return Err(format!("`{word}` is not a column; {names} are"));
        };
        if columns.contains(&column) {
            return Err(format!("`{word}` is named twice"));
        }
        columns.push(column);
    }
    if columns.len() > COLUMNS_MAX {
        return Err(format!("names {} columns; the limit is {COLUMNS_MAX}", columns.len()));
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_at_the_next_midnight() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(end_of_day(at("2026-11-29T13:14:15.678Z")), at("2026-11-30T00:00:00Z"));
        assert_eq!(end_of_day(at("2026-11-30T00:00:00Z")), at("2026-12-01T00:00:00Z"));
    }

    #[test]
    fn columns_are_known_different_and_few() {
        assert_eq!(parse_columns("model, day").unwrap().len(), 2);
        for text in ["", "modell", "day,day", "day,model,queue,kind"] {
            assert!(parse_columns(text).is_err(), "{text}");
        }
    }
}
