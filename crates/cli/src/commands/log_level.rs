//! `longshore log-level …`: what every process logs while somebody looks closer.

use reqwest::Method;
use serde_json::json;

use crate::{
    commands::Operator,
    failure::{Exit, Outcome},
    output::{self, cell},
};

/// What can be done about the level.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show what every process logs
    Get,
    /// Set it; every process hears of it within seconds
    Set {
        /// A level, or parts `target=level` with commas between them, e.g. `info,worker=debug`
        filter: String,
        /// Go back after so long, e.g. 30m [default: when another is set]
        #[arg(long = "for", value_name = "DURATION")]
        lasts: Option<String>,
    },
    /// Let each process log what it was told at its start
    Reset,
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    let path = ["v1", "log-level"];
    let order = match verb {
        Verb::Get => None,
        Verb::Set { filter, lasts: Some(lasts) } => Some(json!({"filter": filter, "for": lasts})),
        Verb::Set { filter, lasts: None } => Some(json!({"filter": filter})),
        Verb::Reset => Some(json!({"filter": null})),
    };
    let body = match order {
        None => operator.client.get(&path, &[]).await?,
        Some(order) => operator.client.send_json(Method::PUT, &path, Some(&order)).await?.body,
    };
    operator.out.show(&body, || {
        let until = body["until"].as_str().map(|until| format!(" until {until}")).unwrap_or_default();
        output::line(&match body["filter"].is_null() {
            true => "each process logs what it was told at its start".to_owned(),
            false => format!("every process logs {}{until}", output::plain(&cell(&body, "filter"))),
        });
    });
    Ok(Exit::Ok)
}
