//! `longshore target …`: who may be called, and stopping or starting it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::{Operator, pause_body},
    failure::{Exit, Outcome},
    output::{self, cell, items},
};

/// What can be done with targets.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show every target with its pause and its breaker
    List,
    /// Let nobody call a target; calls that run go on, jobs wait or go on with their fallback
    Pause {
        /// The target: provider:model:credential, as `target list` names it
        target: String,
        /// When the pause ends by itself: a time, or a duration from now
        #[arg(long)]
        until: Option<String>,
        /// Why, for those who ask `job why`
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let it be called again
    Resume {
        /// The target
        target: String,
    },
    /// Hold a target's breaker open or closed, or leave it to the calls
    Breaker {
        /// The target
        target: String,
        /// Who decides
        mode: Mode,
    },
}

/// Who decides about a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// An operator: nobody calls the target
    Open,
    /// An operator: everybody may, whatever becomes of it
    Close,
    /// The calls
    Auto,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Close => "close",
            Self::Auto => "auto",
        }
    }
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::List => list(operator).await,
        Verb::Pause { target, until, reason } => change(operator, &target, &pause_body(until, reason)?, "paused").await,
        Verb::Resume { target } => change(operator, &target, &json!({"paused": false}), "resumed").await,
        Verb::Breaker { target, mode } => {
            let word = mode.word();
            change(operator, &target, &json!({"breaker": word}), &format!("has its breaker on {word}")).await
        }
    }
}

async fn list(operator: &Operator) -> Outcome {
    let body = operator.client.get(&["v1", "targets"], &[]).await?;
    operator.out.show(&body, || {
        let row = |target: &Value| {
            let breaker = target.get("breaker").unwrap_or(&Value::Null);
            let until = [target, breaker].into_iter().map(|of| cell(of, "until")).find(|until| !until.is_empty());
            let reason = [target, breaker].into_iter().map(|of| cell(of, "reason")).find(|reason| !reason.is_empty());
            vec![
                cell(target, "target"),
                cell(target, "paused"),
                cell(breaker, "mode"),
                cell(breaker, "state"),
                cell(breaker, "calls"),
                cell(breaker, "failures"),
                until.unwrap_or_default(),
                output::plain(&reason.unwrap_or_default()),
            ]
        };
        let headers = ["TARGET", "PAUSED", "BREAKER", "STATE", ">CALLS 30 s", ">FAILED", "UNTIL", "REASON"];
        output::table(&headers, items(&body, "targets").iter().map(row).collect());
        for account in items(&body, "accounts") {
            let told = ["account", "state", "until", "reason"].map(|name| output::plain(&cell(account, name)));
            output::line(&format!("account {}: {} until {}: {}", told[0], told[1], told[2], told[3]));
        }
    });
    Ok(Exit::Ok)
}

async fn change(operator: &Operator, target: &str, body: &Value, done: &str) -> Outcome {
    let answer = operator.client.send_json(Method::PATCH, &["v1", "targets", target], Some(body)).await?;
    operator.out.show(&answer.body, || output::line(&format!("{target} {done}")));
    Ok(Exit::Ok)
}
