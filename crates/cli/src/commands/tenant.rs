//! `longshore tenant …`: who uses the installation, how much, and stopping a tenant's jobs.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::{
        Operator, pause_body,
        rates::{Rates, rates_of},
    },
    failure::{Exit, Outcome},
    output::{self, cell},
};

/// What can be done with tenants.
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
    /// Stop claims of a tenant's jobs; what runs goes on, new jobs are accepted and wait
    Pause {
        /// The tenant
        tenant: String,
        /// When the pause ends by itself: a time, or a duration from now
        #[arg(long)]
        until: Option<String>,
        /// Why, for those who ask `job why`
        #[arg(long)]
        reason: Option<String>,
    },
    /// Say how often a tenant's users and analysts may ask, all together. What is not named stays as it is
    Limit {
        /// The tenant
        tenant: String,
        #[command(flatten)]
        rates: Rates,
    },
    /// Start them again
    Resume {
        /// The tenant
        tenant: String,
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
    match verb {
        Verb::Usage { tenant, since, until } => usage(operator, &tenant, since, until).await,
        Verb::Pause { tenant, until, reason } => change(operator, &tenant, &pause_body(until, reason)?, "paused").await,
        Verb::Limit { tenant, rates } => {
            let path = ["v1", "tenants", &tenant];
            let answer = operator.client.send_json(Method::PATCH, &path, Some(&rates.body())).await?;
            operator.out.show(&answer.body, || output::line(&format!("{tenant} may ask {}", rates_of(&answer.body))));
            Ok(Exit::Ok)
        }
        Verb::Resume { tenant } => change(operator, &tenant, &json!({"paused": false}), "resumed").await,
    }
}

async fn usage(operator: &Operator, tenant: &str, since: Option<String>, until: Option<String>) -> Outcome {
    let query = [("since", since), ("until", until)];
    let body = operator.client.get(&["v1", "tenants", tenant, "usage"], &query).await?;
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

async fn change(operator: &Operator, tenant: &str, body: &Value, done: &str) -> Outcome {
    let answer = operator.client.send_json(Method::PATCH, &["v1", "tenants", tenant], Some(body)).await?;
    operator.out.show(&answer.body, || output::line(&format!("{tenant} {done}")));
    Ok(Exit::Ok)
}
