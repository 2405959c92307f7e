//! `longshore cost …`: what was spent, on what.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    commands::Operator,
    failure::{Exit, Outcome},
    output::{self, cell, items},
};

/// What can be asked about money.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Spend, tokens and calls, dearest first
    Report(Report),
}

/// A cost report.
#[derive(Debug, clap::Args)]
pub(crate) struct Report {
    /// One to three of operation, model, provider, tenant, queue, kind, day, separated by commas
    #[arg(long, default_value = "model")]
    by: String,
    /// Calls since: a time, or a duration back from now; days and weeks begin with that UTC day
    #[arg(long, default_value = "7d")]
    since: String,
    /// Calls before: a time, or a duration back, likewise
    #[arg(long)]
    until: Option<String>,
    /// Only those of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Print comma-separated values
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// Columns that the report shows behind those that it groups by, with the members of the API.
const NUMBERS: &[(&str, &str)] = &[
    (">CALLS", "calls"),
    (">JOBS", "jobs"),
    (">TOKENS IN", "tokens_in"),
    (">TOKENS OUT", "tokens_out"),
    (">SPEND USD", "spend_usd"),
    (">WASTED USD", "wasted_usd"),
    (">CHARGE USD", "charge_usd"),
    (">SAVED USD", "saved_usd"),
    (">UNPRICED CALLS", "calls_unpriced"),
    (">MAYBE BILLED", "calls_maybe"),
];

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    let Verb::Report(report) = verb;
    let query = [
        ("group_by", Some(report.by.clone())),
        ("since", Some(report.since.clone())),
        ("until", report.until.clone()),
        ("tenant", report.tenant.clone()),
    ];
    let body = operator.client.get(&["v1", "costs"], &query).await?;
    let rows = items(&body, "rows");
    if report.csv {
        output::text_out(&csv(rows));
        return Ok(Exit::Ok);
    }
    operator.out.show(&body, || {
        let groups: Vec<&str> = report.by.split(',').map(str::trim).collect();
        let names: Vec<String> = groups.iter().map(|name| name.to_uppercase()).collect();
        let headers: Vec<&str> =
            names.iter().map(String::as_str).chain(NUMBERS.iter().map(|(header, _)| *header)).collect();
        let members: Vec<&str> = groups.into_iter().chain(NUMBERS.iter().map(|(_, member)| *member)).collect();
        let cells = |row: &Value| members.iter().map(|member| cell(row, member)).collect();
        output::table(&headers, rows.iter().map(cells).collect());
        if rows.iter().any(|row| row.get("calls_unpriced").and_then(Value::as_u64).is_some_and(|calls| calls > 0)) {
            output::note("calls without a known price are not part of the sums");
        }
    });
    Ok(Exit::Ok)
}

/// All members of the rows, by name, as RFC 4180 wants them.
fn csv(rows: &[Value]) -> String {
    let names: BTreeSet<&String> = rows.iter().filter_map(Value::as_object).flatten().map(|(name, _)| name).collect();
    let line = |cells: Vec<String>| cells.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(",") + "\r\n";
    let mut text = line(names.iter().map(|name| (*name).clone()).collect());
    for row in rows {
        text.push_str(&line(names.iter().map(|name| cell(row, name)).collect()));
    }
    text
}

fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_with_commas_and_quotes_survive_csv() {
        let rows = [
            json!({"operation": "a,b", "spend_usd": "0.10", "tokens_in": 5}),
            json!({"operation": "say \"hi\"", "spend_usd": null}),
        ];
        assert_eq!(csv(&rows), "operation,spend_usd,tokens_in\r\n\"a,b\",0.10,5\r\n\"say \"\"hi\"\"\",,\r\n");
    }
}
