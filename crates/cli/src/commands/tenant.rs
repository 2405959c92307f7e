//! `longshore tenant …`: who uses the installation, and how much.

use serde_json::Value;

use crate::{
    commands::Operator,
    failure::{Exit, Outcome},
    output::{self, cell},
};

/// What can be asked about tenants.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show what a tenant used and what it may still use
    Usage {
        /// Which
        tenant: String,
        /// Since: a time, or a duration back from now [default: the first of this month, UTC]
        #[arg(long)]
        since: Option<String>,
        /// Until: a time, or a duration back from now
        #[arg(long)]
        until: Option<String>,
    },
}

/// What is shown of the answer, in this order.
const FIELDS: [&str; 14] = [
    "tenant",
    "since",
    "until",
    "requests",
    "requests_unpriced",
    "jobs",
    "live_jobs",
    "tokens_in",
    "tokens_out",
    "tokens_cached",
    "spend_usd",
    "wasted_usd",
    "charge_usd",
    "saved_usd",
];

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    let Verb::Usage { tenant, since, until } = verb;
    let query = [("since", since), ("until", until)];
    let body = operator.client.get(&["v1", "tenants", &tenant, "usage"], &query).await?;
    operator.out.show(&body, || {
        let mut pairs: Vec<(String, String)> = FIELDS.map(|name| (name.replace('_', " "), cell(&body, name))).into();
        let left = body.get("quota_left").and_then(Value::as_object).into_iter().flatten();
        pairs.extend(left.filter(|(_, value)| !value.is_null()).map(|(name, value)| {
            (format!("{} left", name.replace('_', " ")), value.to_string().trim_matches('"').to_owned())
        }));
        let pairs: Vec<(&str, String)> = pairs.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        output::fields(&pairs);
    });
    Ok(Exit::Ok)
}
