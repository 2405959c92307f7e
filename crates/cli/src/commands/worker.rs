//! `longshore worker …`: who works, and who is to stop claiming.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::Operator,
    failure::{Exit, Outcome},
    output::{self, cell, items},
};

/// What can be done with workers.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show every worker process
    List,
    /// Let a worker claim no more and finish what it holds; its process stays
    Drain {
        /// The worker, as `worker list` names it
        id: String,
        /// Take the order back: it claims again
        #[arg(long)]
        off: bool,
    },
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::List => list(operator).await,
        Verb::Drain { id, off } => drain(operator, &id, off).await,
    }
}

async fn list(operator: &Operator) -> Outcome {
    let body = operator.client.get(&["v1", "workers"], &[]).await?;
    operator.out.show(&body, || {
        let names = ["id", "host", "version", "slots", "leases", "alive", "draining", "started_at", "seen_at"];
        let row = |worker: &Value| names.map(|name| cell(worker, name)).into();
        let headers = ["ID", "HOST", "VERSION", ">SLOTS", ">LEASES", "ALIVE", "DRAINING", "STARTED", "SEEN"];
        output::table(&headers, items(&body, "workers").iter().map(row).collect());
    });
    Ok(Exit::Ok)
}

async fn drain(operator: &Operator, id: &str, off: bool) -> Outcome {
    let order = json!({"on": !off});
    let answer = operator.client.send_json(Method::POST, &["v1", "workers", id, "drain"], Some(&order)).await?;
    operator.out.show(&answer.body, || {
        let held = cell(&answer.body, "leases");
        output::line(&match off {
            true => format!("{id} claims again"),
            false => format!("{id} claims no more and finishes the {held} jobs that it holds"),
        });
    });
    Ok(Exit::Ok)
}
