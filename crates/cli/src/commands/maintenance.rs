//! `longshore maintenance …`: no jobs are taken and none begin.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::Operator,
    failure::{Exit, Outcome},
    output::{self, cell},
};

/// What can be done about maintenance.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Take no jobs and begin none; what runs ends, and reads work
    On {
        /// Why, for those who are refused
        #[arg(long)]
        reason: Option<String>,
    },
    /// Take and begin jobs again
    Off,
    /// Show whether it is on
    Status,
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    let path = ["v1", "maintenance"];
    let put = async |order: Value| operator.client.send_json(Method::PUT, &path, Some(&order)).await;
    let body = match verb {
        Verb::On { reason: Some(reason) } => put(json!({"on": true, "reason": reason})).await?.body,
        Verb::On { reason: None } => put(json!({"on": true})).await?.body,
        Verb::Off => put(json!({"on": false})).await?.body,
        Verb::Status => operator.client.get(&path, &[]).await?,
    };
    operator.out.show(&body, || {
        let (since, reason) = (cell(&body, "since"), output::plain(&cell(&body, "reason")));
        output::line(&match body["on"] == json!(true) {
            true => format!("maintenance is on since {since} {reason}").trim_end().to_owned(),
            false => "maintenance is off".to_owned(),
        });
    });
    Ok(Exit::Ok)
}
