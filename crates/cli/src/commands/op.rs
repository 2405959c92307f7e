//! `longshore op …`: operations on many jobs; and how every verb that begins one shows and waits for it.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::Operator,
    failure::{Exit, Failure, Outcome},
    output::{self, cell, items},
};

/// Between two looks at an operation whose progress somebody watches.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// One long poll of somebody who only wants its end.
const POLL: &str = "30s";

/// What can be done with operations.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// List operations, newest first
    List {
        /// Only those that have not ended
        #[arg(long)]
        running: bool,
        /// At most this many
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Go on behind the last page: what it printed as cursor
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show an operation and how far it is
    Get {
        /// The operation
        id: String,
        /// Wait for its end and show how it goes on
        #[arg(long)]
        wait: bool,
    },
    /// End an operation; what was done stays
    Abort {
        /// The operation
        id: String,
    },
    /// Begin an operation; only says what it would do unless --yes
    Start {
        /// redrive, archive, cancel, delete or reclaim
        action: String,
        /// Which jobs: 'queue = llm and state in (ready, scheduled) and age > 2d'
        #[arg(long)]
        filter: String,
        /// Of a reclaim: also what living workers hold
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        manner: Manner,
    },
}

/// How an operation is done.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Manner {
    /// Jobs a second, such as 10 or 10/s [default: 500]
    #[arg(long, value_parser = rate)]
    rate: Option<u32>,
    /// End after so many jobs, the newest ones
    #[arg(long)]
    max: Option<u64>,
    /// End before more than this is expected to be spent again
    #[arg(long, value_name = "USD")]
    max_cost_usd: Option<String>,
    /// For the record
    #[arg(long)]
    reason: Option<String>,
    /// Do it
    #[arg(long)]
    pub(crate) yes: bool,
    /// Do not wait for its end
    #[arg(long)]
    detach: bool,
}

/// Reads `10` or `10/s`.
fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    number.parse().map_err(|_| format!("`{text}` is not a rate such as 10 or 10/s"))
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::List { running, limit, cursor } => list(operator, running, limit, cursor).await,
        Verb::Get { id, wait } => {
            let operation = operator.client.get(&["v1", "operations", &id], &[]).await?;
            if wait {
                return end(operator, until_ended(operator, operation).await?);
            }
            operator.out.show(&operation, || show(&operation));
            Ok(Exit::Ok)
        }
        Verb::Abort { id } => {
            let answer = operator.client.send_json(Method::DELETE, &["v1", "operations", &id], None).await?;
            operator.out.show(&answer.body, || output::line(&summary(&answer.body)));
            Ok(Exit::Ok)
        }
        Verb::Start { action, filter, force, manner } => {
            let mut order = json!({"action": action, "filter": filter});
            if force {
                order["force"] = json!(true);
            }
            perform(operator, order, manner).await
        }
    }
}

async fn list(operator: &Operator, running: bool, limit: u32, cursor: Option<String>) -> Outcome {
    let query =
        [("running", running.then(|| "true".to_owned())), ("limit", Some(limit.to_string())), ("cursor", cursor)];
    let page = operator.client.get(&["v1", "operations"], &query).await?;
    operator.out.show(&page, || {
        let names = ["id", "action", "state", "matched", "done", "skipped", "failed", "filter"];
        let headers = ["ID", "ACTION", "STATE", ">MATCHED", ">DONE", ">SKIPPED", ">FAILED", "FILTER"];
        let row = |operation: &Value| {
            let mut cells = names.map(|name| cell(operation, name));
            if is_dry(operation) {
                cells[1].push_str(" (dry run)");
            }
            cells.into()
        };
        output::table(&headers, items(&page, "operations").iter().map(row).collect());
        crate::commands::job::show::next_page(&page);
    });
    Ok(Exit::Ok)
}

/// Begins an operation as `manner` says, shows how it goes on, and waits for its end. Without --yes it is a dry run.
pub(crate) async fn perform(operator: &Operator, mut order: Value, manner: Manner) -> Outcome {
    order["dry_run"] = json!(!manner.yes);
    for (name, value) in [
        ("rate_per_s", manner.rate.map(|rate| json!(rate))),
        ("max_jobs", manner.max.map(|most| json!(most))),
        ("max_cost_usd", manner.max_cost_usd.map(|usd| json!(usd))),
        ("reason", manner.reason.map(|reason| json!(reason))),
    ] {
        if let Some(value) = value {
            order[name] = value;
        }
    }
    let operation = operator.client.send_json(Method::POST, &["v1", "operations"], Some(&order)).await?.body;
    if manner.yes {
        let id = cell(&operation, "id");
        output::note(&format!(
            "operation {id}; `longshore op abort {id}` ends it, and it goes on without this command"
        ));
        if manner.detach {
            operator.out.show(&operation, || show(&operation));
            return Ok(Exit::Ok);
        }
    }
    end(operator, until_ended(operator, operation).await?)
}

/// Waits for the end of an operation; on a terminal its progress is one line that is written anew.
async fn until_ended(operator: &Operator, mut operation: Value) -> Result<Value, Failure> {
    let id = cell(&operation, "id");
    let watches = std::io::stderr().is_terminal() && !operator.out.json;
    while cell(&operation, "state") == "running" {
        if watches {
            progress(&operation);
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let wait = [("wait", (!watches).then(|| POLL.to_owned()))];
        operation = operator.client.get(&["v1", "operations", &id], &wait).await?;
    }
    if watches {
        clear();
    }
    Ok(operation)
}

fn progress(operation: &Value) {
    let line = summary(operation);
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "\r\u{1b}[K{line}").and_then(|()| err.flush());
}

fn clear() {
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "\r\u{1b}[K").and_then(|()| err.flush());
}

fn is_dry(operation: &Value) -> bool {
    operation.get("dry_run").and_then(Value::as_bool).unwrap_or(false)
}

fn count(operation: &Value, name: &str) -> u64 {
    operation.get(name).and_then(Value::as_u64).unwrap_or(0)
}

/// An operation in a line.
fn summary(operation: &Value) -> String {
    let (action, state) = (cell(operation, "action"), cell(operation, "state"));
    let [matched, done, skipped, failed] = ["matched", "done", "skipped", "failed"].map(|name| count(operation, name));
    let cost = estimate(operation);
    if is_dry(operation) {
        let left = if skipped > 0 { format!(", and leave {skipped} alone") } else { String::new() };
        return format!("would {action} {} jobs{left}{cost}", matched - skipped);
    }
    format!("{action} {state}: {done} done, {skipped} skipped, {failed} failed{cost}")
}

/// What it is expected to cost, where that says something.
fn estimate(operation: &Value) -> String {
    let usd = cell(operation, "estimated_cost_usd");
    let unknown = count(operation, "unestimated");
    let known =
        if usd.trim_matches(['0', '.']).is_empty() { String::new() } else { format!(", about ${usd} to run again") };
    if unknown > 0 { format!("{known}; nobody knows what {unknown} of them would cost") } else { known }
}

fn show(operation: &Value) {
    let names = [
        "id",
        "action",
        "to",
        "filter",
        "state",
        "error",
        "dry_run",
        "matched",
        "done",
        "skipped",
        "failed",
        "estimated_cost_usd",
        "unestimated",
        "rate_per_s",
        "max_jobs",
        "max_cost_usd",
        "force",
        "reason",
        "asked_by",
        "accepted_at",
        "finished_at",
    ];
    output::fields(&names.map(|name| (name, cell(operation, name))));
}

/// Prints what an operation came to, and says it with the exit code.
fn end(operator: &Operator, mut operation: Value) -> Outcome {
    let [matched, done, skipped, failed] = ["matched", "done", "skipped", "failed"].map(|name| count(&operation, name));
    if matched == 0 && cell(&operation, "state") == "done" {
        return Err(Failure {
            exit: Exit::NotFound,
            message: format!("there is no such job: {}", cell(&operation, "filter")),
            problem: None,
        });
    }
    let dry = is_dry(&operation);
    if dry {
        operation["count"] = json!(matched - skipped);
    }
    operator.out.show(&operation, || {
        output::line(&summary(&operation));
        let error = cell(&operation, "error");
        if !error.is_empty() {
            output::note(&error);
        }
        if dry {
            output::note("nothing was done; --yes does it");
        }
    });
    Ok(exit_of(&cell(&operation, "state"), dry, done, skipped, failed))
}

/// What an operation that has ended tells the shell.
fn exit_of(state: &str, dry: bool, done: u64, skipped: u64, failed: u64) -> Exit {
    match (state, done) {
        ("failed", 0) => Exit::Error,
        ("done", _) if dry || skipped + failed == 0 => Exit::Ok,
        ("done", 0) if failed > 0 => Exit::Error,
        ("done" | "capped", 0) => Exit::Refused,
        _ => Exit::Partial,
    }
}

/// A value of a filter, in quotes.
pub(crate) fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_has_its_exit_code() {
        for (state, dry, done, skipped, failed, exit) in [
            ("done", false, 5, 0, 0, Exit::Ok),
            ("done", true, 0, 2, 0, Exit::Ok),
            ("done", false, 5, 1, 0, Exit::Partial),
            ("done", false, 5, 0, 1, Exit::Partial),
            ("done", false, 0, 3, 0, Exit::Refused),
            ("done", false, 0, 0, 3, Exit::Error),
            ("capped", false, 5, 0, 0, Exit::Partial),
            ("capped", false, 0, 0, 0, Exit::Refused),
            ("aborted", false, 5, 0, 0, Exit::Partial),
            ("failed", false, 0, 0, 0, Exit::Error),
        ] {
            assert_eq!(exit_of(state, dry, done, skipped, failed), exit, "{state} {done} {skipped} {failed}");
        }
    }

    #[test]
    fn a_dry_run_says_what_it_would_do() {
        let operation = json!({"action": "redrive", "state": "done", "dry_run": true, "matched": 9, "skipped": 2,
                               "estimated_cost_usd": "0.25", "unestimated": 1});
        let expected =
            "would redrive 7 jobs, and leave 2 alone, about $0.25 to run again; nobody knows what 1 of them would cost";
        assert_eq!(summary(&operation), expected);
        let free = json!({"action": "delete", "state": "running", "done": 3, "estimated_cost_usd": "0.00"});
        assert_eq!(summary(&free), "delete running: 3 done, 0 skipped, 0 failed");
    }

    #[test]
    fn a_rate_is_a_number_a_second() {
        assert_eq!((rate("10"), rate("10/s")), (Ok(10), Ok(10)));
        assert!(rate("10/m").is_err());
    }

    #[test]
    fn a_value_keeps_its_quotes() {
        assert_eq!(quoted(r#"say "no" \ yes"#), r#""say \"no\" \\ yes""#);
    }
}
