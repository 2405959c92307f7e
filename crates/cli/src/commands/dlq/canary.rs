//! A few dead letters first: whether they pass now is better known before the others cost something.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::redrive;
use crate::{
    commands::{Operator, job::show},
    failure::{Exit, Failure, Outcome},
    output::{self, cell, items},
};

/// Most canaries: each is one request, and then one that waits.
const MOST: usize = 500;
/// How long all of them together are waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// One long poll.
const POLL: &str = "30s";

/// Redrives the newest `most` letters that `filter` means, one by one, and waits for what becomes of them.
pub(super) async fn run(operator: &Operator, filter: &str, most: usize) -> Outcome {
    if !(1..=MOST).contains(&most) {
        return Err(Failure::usage(format!("--canary takes 1 to {MOST}")));
    }
    let query = [("filter", Some(filter.to_owned())), ("limit", Some(most.to_string()))];
    let page = operator.client.get(&["v1", "dead-letters"], &query).await?;
    let ids: Vec<String> = items(&page, "dead_letters").iter().map(|letter| cell(letter, "id")).collect();
    if ids.is_empty() {
        let message = format!("no dead letter meets {filter}");
        return Err(Failure { exit: Exit::NotFound, message, problem: None });
    }
    let mut errors = Vec::new();
    let mut redriven = Vec::new();
    for id in ids {
        match redrive(operator, &id, None).await {
            Ok(_) => redriven.push(id),
            Err(failure) => errors.push(json!({"id": id, "error": failure.message})),
        }
    }
    let ends = Instant::now() + PATIENCE;
    let mut jobs = Vec::new();
    for id in redriven {
        jobs.push(until_ended(operator, &id, ends).await?);
    }
    let answer = judged(&jobs, errors);
    operator.out.show(&answer, || {
        let count = |name: &str| cell(&answer, name);
        output::line(&format!(
            "{} redriven: {} succeeded, {} dead again, {} not ended yet",
            count("redriven"),
            count("succeeded"),
            count("dead"),
            count("unfinished")
        ));
        for error in items(&answer, "errors") {
            output::note(&format!("{}: {}", cell(error, "id"), cell(error, "error")));
        }
    });
    let number = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or(0);
    Ok(match (number("succeeded"), number("dead") + number("unfinished") + items(&answer, "errors").len() as u64) {
        (_, 0) => Exit::Ok,
        (0, _) => Exit::Error,
        _ => Exit::Partial,
    })
}

async fn until_ended(operator: &Operator, id: &str, ends: Instant) -> Result<Value, Failure> {
    loop {
        let job = operator.client.get(&["v1", "jobs", id], &[("wait", Some(POLL.to_owned()))]).await?;
        if show::is_final(&cell(&job, "state")) || Instant::now() >= ends {
            return Ok(job);
        }
    }
}

fn judged(jobs: &[Value], errors: Vec<Value>) -> Value {
    let of = |state: &str| jobs.iter().filter(|job| cell(job, "state") == state).count();
    let (succeeded, dead) = (of("succeeded"), of("dead"));
    let brief = |job: &Value| json!({"id": job["id"], "state": job["state"], "error": job.get("error")});
    json!({
        "redriven": jobs.len(),
        "succeeded": succeeded,
        "dead": dead,
        "unfinished": jobs.len() - succeeded - dead,
        "jobs": jobs.iter().map(brief).collect::<Vec<_>>(),
        "errors": errors,
    })
}
