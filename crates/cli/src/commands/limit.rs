//! `longshore limit …`: what targets may take, and how they stand.

use serde_json::Value;

use crate::{
    commands::Operator,
    failure::{Exit, Outcome},
    output::{self, cell, items},
};

/// What can be done with limits.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show every target that was asked lately: its limit, what is left of it, and why it is left alone
    List,
    /// Show one target
    Show {
        /// provider:model:credential
        target: String,
    },
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::List => {
            let body = operator.client.get(&["v1", "targets"], &[]).await?;
            operator.out.show(&body, || {
                let headers =
                    ["TARGET", ">REQUESTS", ">PER MINUTE", ">TOKENS", ">PER MINUTE", ">FACTOR", "BLOCKED UNTIL", "WHY"];
                output::table(&headers, items(&body, "targets").iter().map(row).collect());
            });
        }
        Verb::Show { target } => {
            let body = operator.client.get(&["v1", "limits", &target], &[]).await?;
            operator.out.show(&body, || output::line(&format!("{body:#}")));
        }
    }
    Ok(Exit::Ok)
}

fn row(target: &Value) -> Vec<String> {
    let of = |bucket: &str, name: &str| target.get(bucket).map_or_else(String::new, |bucket| cell(bucket, name));
    vec![
        cell(target, "target"),
        of("requests", "level"),
        of("requests", "per_minute"),
        of("tokens", "level"),
        of("tokens", "per_minute"),
        cell(target, "factor"),
        cell(target, "blocked_until"),
        cell(target, "blocked_reason"),
    ]
}
