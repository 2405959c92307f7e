//! `longshore retention …`: how long what is kept, and what would go now.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::Operator,
    failure::{Exit, Failure, Outcome},
    output::{self, cell, items},
};

/// Between two looks at a run that somebody waits for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest wait for the end of a run: longer than one takes.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// What can be done about retention.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show how long each class is kept, what would go now, and what is held and why
    Plan,
    /// Take away what is old now; only says what would go unless --yes
    Run {
        /// Do it
        #[arg(long)]
        yes: bool,
        /// Do not wait for its end
        #[arg(long)]
        detach: bool,
    },
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::Plan => plan(operator).await,
        Verb::Run { yes: false, .. } => {
            let shown = plan(operator).await?;
            if !operator.out.json {
                output::note("nothing was taken away; with --yes it is");
            }
            Ok(shown)
        }
        Verb::Run { yes: true, detach } => order(operator, detach).await,
    }
}

async fn plan(operator: &Operator) -> Outcome {
    let body = operator.client.get(&["v1", "retention"], &[]).await?;
    operator.out.show(&body, || show(&body));
    Ok(Exit::Ok)
}

fn show(body: &Value) {
    let names = ["class", "age", "action", "partitions", "rows", "bytes", "next_at", "removed"];
    let row = |class: &Value| {
        let mut cells: Vec<String> = names.map(|name| cell(class, name)).into();
        if class["at_least"] == json!(true) {
            cells[4] = format!("{}+", cells[4]);
        }
        cells
    };
    let headers = ["CLASS", "KEPT", "ACTION", ">DAYS NOW", ">ROWS NOW", ">BYTES NOW", "NEXT", ">WENT SO FAR"];
    output::table(&headers, items(body, "classes").iter().map(row).collect());
    for class in items(body, "classes") {
        for held in items(class, "held") {
            let (name, what, reason) = (cell(class, "class"), cell(held, "what"), cell(held, "reason"));
            let rows = held["rows"].as_u64().filter(|rows| *rows > 0).map(|rows| format!(" ({rows} rows)"));
            output::line(&output::plain(&format!("held: {name}, {what}{}: {reason}", rows.unwrap_or_default())));
        }
    }
    match body["hold"].as_str() {
        Some(reason) => output::line(&output::plain(&format!("nothing goes: {reason}"))),
        None => output::line(&format!("the next run is due at {}", cell(body, "due_at"))),
    }
}

async fn order(operator: &Operator, detach: bool) -> Outcome {
    let ordered = operator.client.send_json(Method::POST, &["v1", "retention", "run"], None).await?.body;
    let number = ordered["order"].as_i64().ok_or_else(|| Failure::error("the answer has no order"))?;
    if detach {
        operator.out.show(&ordered, || output::line("a scheduler takes away what is old within seconds"));
        return Ok(Exit::Ok);
    }
    let ends = Instant::now() + WAIT_MAX;
    loop {
        let body = operator.client.get(&["v1", "retention"], &[]).await?;
        if body["served"].as_i64().is_some_and(|served| served >= number) {
            operator.out.show(&body, || show(&body));
            return Ok(Exit::Ok);
        }
        if Instant::now() >= ends {
            return Err(Failure::error("no scheduler has ended the run so far: is one running? It is still ordered"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
