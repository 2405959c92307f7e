//! `longshore maintenance …`: no jobs are taken and none begin.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::Operator,
    failure::{Exit, Failure, Outcome},
    output::{self, cell, items},
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
    /// Show how large and tidy the journal's tables and indexes are, what is due, and what was done
    Report,
    /// Do what is due now, and not in the next window: VACUUM, ANALYZE, REINDEX; in SQLite optimize, check and shrink
    Run {
        /// Only say what is due
        #[arg(long)]
        dry_run: bool,
        /// Do not wait for its end
        #[arg(long)]
        detach: bool,
    },
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
        Verb::Report => return report(operator).await,
        Verb::Run { dry_run, detach } => return tend(operator, dry_run, detach).await,
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

/// Between two looks at chores that somebody waits for.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Looks in a row that find nobody at it: one behind another may ask another process.
const IDLE_LOOKS: u32 = 3;
/// Longest wait for the next chore to end.
const CHORE_MAX: Duration = Duration::from_secs(4 * 60 * 60);

async fn report(operator: &Operator) -> Outcome {
    let body = operator.client.get(&["v1", "maintenance", "report"], &[]).await?;
    operator.out.show(&body, || {
        let row = |names: &[&str], one: &Value| names.iter().map(|name| cell(one, name)).collect::<Vec<_>>();
        let all = |list: &str, names: &[&str]| items(&body, list).iter().map(|one| row(names, one)).collect::<Vec<_>>();
        let (begins, ends) = (cell(&body, "window_begins_at"), cell(&body, "window_ends_at"));
        output::fields(&[
            ("bytes", cell(&body, "bytes")),
            ("free bytes", cell(&body, "free_bytes")),
            ("window", format!("{}, next from {begins} to {ends}", cell(&body, "window"))),
            ("no right", cell(&body, "missing_right")),
        ]);
        let names = ["name", "bytes", "rows", "dead", "vacuumed_at", "analyzed_at"];
        output::table(&["TABLE", ">BYTES", ">ROWS", ">DEAD", "VACUUMED", "ANALYZED"], all("tables", &names));
        output::table(
            &["INDEX", "TABLE", ">BYTES", ">FOR NOTHING"],
            all("indexes", &["name", "table", "bytes", "bloat_bytes"]),
        );
        output::table(&["DUE", "ON", "BECAUSE", ">BYTES"], all("due", &["chore", "on", "reason", "bytes"]));
        show_done(items(&body, "done"));
    });
    Ok(Exit::Ok)
}

fn show_done(done: &[Value]) {
    let names = ["at", "chore", "on", "before_bytes", "after_bytes", "took_ms", "error"];
    let rows = done.iter().map(|one| names.map(|name| cell(one, name)).into()).collect();
    output::table(&["DONE AT", "CHORE", "ON", ">BYTES BEFORE", ">AFTER", ">ms", "NOT DONE BECAUSE"], rows);
}

async fn tend(operator: &Operator, dry_run: bool, detach: bool) -> Outcome {
    let order = json!({"dry_run": dry_run});
    let begun = operator.client.send_json(Method::POST, &["v1", "maintenance", "run"], Some(&order)).await?.body;
    let chores = items(&begun, "chores");
    if dry_run || detach || chores.is_empty() {
        operator.out.show(&begun, || {
            let names = ["chore", "on", "reason", "bytes"];
            let rows = chores.iter().map(|one| names.map(|name| cell(one, name)).into()).collect();
            output::table(&["DUE", "ON", "BECAUSE", ">BYTES"], rows);
        });
        return Ok(Exit::Ok);
    }
    let began_at = cell(&begun, "at");
    let (mut seen, mut last, mut idle) = (0, Instant::now(), 0);
    loop {
        let body = operator.client.get(&["v1", "maintenance", "report"], &[]).await?;
        // Moments of one server, in one form: they sort as texts.
        let done: Vec<Value> = items(&body, "done").iter().filter(|one| cell(one, "at") >= began_at).cloned().collect();
        if done.len() > seen {
            (seen, last) = (done.len(), Instant::now());
        }
        idle = if body["busy"] == json!(true) { 0 } else { idle + 1 };
        if idle >= IDLE_LOOKS || (idle > 0 && seen >= chores.len()) {
            let failed = done.iter().any(|one| one["error"].is_string());
            operator.out.show(&json!({"done": done}), || show_done(&done));
            return Ok(if failed { Exit::Partial } else { Exit::Ok });
        }
        if last.elapsed() > CHORE_MAX {
            return Err(Failure::error(
                "no chore has ended for long; `longshore maintenance report` shows how it stands",
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
