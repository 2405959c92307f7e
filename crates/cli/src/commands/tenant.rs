//! `longshore tenant …`: stopping and starting a tenant's jobs.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::{Operator, pause_body},
    failure::{Exit, Outcome},
    output,
};

/// What can be done with tenants.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
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
    /// Start them again
    Resume {
        /// The tenant
        tenant: String,
    },
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::Pause { tenant, until, reason } => change(operator, &tenant, &pause_body(until, reason)?, "paused").await,
        Verb::Resume { tenant } => change(operator, &tenant, &json!({"paused": false}), "resumed").await,
    }
}

async fn change(operator: &Operator, tenant: &str, body: &Value, done: &str) -> Outcome {
    let answer = operator.client.send_json(Method::PATCH, &["v1", "tenants", tenant], Some(body)).await?;
    operator.out.show(&answer.body, || output::line(&format!("{tenant} {done}")));
    Ok(Exit::Ok)
}
