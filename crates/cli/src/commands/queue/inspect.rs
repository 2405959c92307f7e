//! `longshore queue inspect`: one queue, looked at closely.

use serde_json::Value;

use crate::{
    commands::Operator,
    failure::{Exit, Outcome},
    output::{self, cell, items},
};

/// Asks, which takes as long as the rates are measured, and prints.
pub(super) async fn run(operator: &Operator, queue: &str, over: String) -> Outcome {
    let view = operator.client.get(&["v1", "queues", queue, "inspect"], &[("over", Some(over))]).await?;
    operator.out.show(&view, || show(&view));
    Ok(Exit::Ok)
}

fn show(view: &Value) {
    let (depth, rates, difference) = (&view["metrics"], &view["rates"], &view["difference"]);
    let rate = |name: &str| rates[name].as_f64().map_or_else(String::new, |rate| format!("{rate:.1}/s"));
    let seconds = |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s"));
    let paused = match (view["paused"] == true, cell(view, "until"), cell(view, "reason")) {
        (false, ..) => "false".to_owned(),
        (true, until, reason) => {
            let until = if until.is_empty() { "until it is resumed".to_owned() } else { format!("until {until}") };
            if reason.is_empty() { until } else { format!("{until}: {reason}") }
        }
    };
    output::fields(&[
        ("queue", cell(view, "queue")),
        ("paused", paused),
        ("draining", cell(view, "draining")),
        ("waiting", cell(depth, "waiting")),
        ("active", cell(depth, "active")),
        ("scheduled", cell(depth, "scheduled")),
        ("parked", cell(depth, "parked")),
        ("dead now", cell(depth, "failed")),
        ("oldest ready", seconds(&depth["oldest_ready_seconds"])),
        ("accepted", rate("accepted")),
        ("ended", rate("ended")),
        ("succeeded", rate("succeeded")),
        ("empty in", seconds(&view["eta_seconds"])),
        ("journal", format!("{} live jobs", cell(difference, "journal"))),
        (
            "dispatcher",
            format!(
                "{} jobs, {} of those that are due unknown",
                cell(difference, "dispatcher"),
                cell(difference, "unknown")
            ),
        ),
    ]);
    if difference["complete"] == false {
        output::note(&format!(
            "leases, tenants and what is unknown are of {} of its jobs: there are too many to look at all",
            cell(difference, "looked_at")
        ));
    }
    for (name, columns, headers) in [
        (
            "leases",
            &["worker", "host", "alive", "jobs", "oldest_started_at"][..],
            &["WORKER", "HOST", "ALIVE", ">JOBS", "OLDEST STARTED"][..],
        ),
        ("tenants", &["tenant", "jobs"], &["TENANT", ">LIVE JOBS"]),
        ("lanes", &["tenant", "target", "jobs"], &["TENANT", "TARGET", ">LIVE JOBS"]),
        ("errors", &["count", "class", "cost_usd", "signature"], &[">DEAD", "CLASS", ">USD SPENT", "SIGNATURE"]),
    ] {
        let rows: Vec<Vec<String>> =
            items(view, name).iter().map(|row| columns.iter().map(|column| cell(row, column)).collect()).collect();
        if !rows.is_empty() {
            output::line("");
            output::table(headers, rows);
        }
    }
}
