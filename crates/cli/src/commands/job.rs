//! `longshore job …`: submit jobs, look at them, wait for them, cancel them.

pub(crate) mod list;
pub(crate) mod show;
pub(crate) mod submit;
pub(crate) mod watch;

use reqwest::Method;

use crate::{
    commands::Operator,
    failure::{Exit, Failure, Outcome},
    output,
};

/// What can be done with jobs.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Submit a job
    Submit(Box<submit::Args>),
    /// Show one job, with its result once it has one
    Get {
        /// The job
        id: String,
    },
    /// List jobs, newest first
    List(Box<list::Args>),
    /// Show state, progress and tokens of a job as they come, then its result and cost
    Watch {
        /// The job
        id: String,
    },
    /// Cancel a job; a running one stops within a second
    Cancel {
        /// The job
        id: String,
        /// Why, for the record
        #[arg(long)]
        reason: Option<String>,
    },
    /// Say what a job waits for
    Why {
        /// The job
        id: String,
    },
    /// List the attempts of a job
    Attempts {
        /// The job
        id: String,
    },
    /// Print what a job was submitted with, and nothing else
    Payload {
        /// The job
        id: String,
    },
    /// Print the result of a succeeded job, and nothing else
    Result {
        /// The job
        id: String,
    },
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::Submit(args) => submit::run(operator, *args).await,
        Verb::Get { id } => {
            let job = operator.client.get(&["v1", "jobs", &id], &[]).await?;
            operator.out.show(&job, || show::job(&job));
            Ok(Exit::Ok)
        }
        Verb::List(args) => list::run(operator, *args).await,
        Verb::Watch { id } => watch::run(operator, &id).await,
        Verb::Cancel { id, reason } => cancel(operator, &id, reason).await,
        Verb::Why { id } => {
            let why = operator.client.get(&["v1", "jobs", &id, "why"], &[]).await?;
            operator.out.show(&why, || show::why(&why));
            Ok(Exit::Ok)
        }
        Verb::Attempts { id } => {
            let attempts = operator.client.get(&["v1", "jobs", &id, "attempts"], &[]).await?;
            operator.out.show(&attempts, || show::attempts(output::items(&attempts, "attempts")));
            Ok(Exit::Ok)
        }
        Verb::Payload { id } => {
            let payload = operator.client.get(&["v1", "jobs", &id, "payload"], &[]).await?;
            operator.out.show(&payload, || output::line(&format!("{payload:#}")));
            Ok(Exit::Ok)
        }
        Verb::Result { id } => {
            let result = operator.client.get(&["v1", "jobs", &id, "result"], &[]).await?;
            operator.out.show(&result, || show::result(&result));
            Ok(Exit::Ok)
        }
    }
}

async fn cancel(operator: &Operator, id: &str, reason: Option<String>) -> Outcome {
    let body = reason.map(|reason| serde_json::json!({ "reason": reason }));
    let answer = operator.client.send_json(Method::POST, &["v1", "jobs", id, "cancel"], body.as_ref()).await?;
    operator.out.show(&answer.body, || {
        let running = answer.status == 202;
        output::line(if running { "accepted: its worker is told to stop" } else { "cancelled" });
    });
    Ok(Exit::Ok)
}

/// How a command that waited for a job ends: a job that did not succeed is an error of the command, too.
pub(crate) fn exit_of(state: &str) -> Result<Exit, Failure> {
    match state {
        "succeeded" => Ok(Exit::Ok),
        "dead" | "cancelled" => Ok(Exit::Error),
        other => Err(Failure::error(format!("the job is {other}, which is no end"))),
    }
}
