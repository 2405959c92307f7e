//! `longshore worker …`: who works.

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
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    let Verb::List = verb;
    let body = operator.client.get(&["v1", "workers"], &[]).await?;
    operator.out.show(&body, || {
        let names = ["id", "host", "version", "slots", "leases", "alive", "started_at", "seen_at"];
        let row = |worker: &serde_json::Value| names.map(|name| cell(worker, name)).into();
        let headers = ["ID", "HOST", "VERSION", ">SLOTS", ">LEASES", "ALIVE", "STARTED", "SEEN"];
        output::table(&headers, items(&body, "workers").iter().map(row).collect());
    });
    Ok(Exit::Ok)
}
