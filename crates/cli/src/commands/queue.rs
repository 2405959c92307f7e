//! `longshore queue …`: what waits where, and stopping or starting it.

mod inspect;

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::{
        Operator,
        op::{self, Manner, quoted},
        pause_body,
    },
    failure::{Exit, Outcome},
    output::{self, cell},
};

/// What can be done with queues.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show every queue with its numbers
    List,
    /// Look at one queue closely: depth, rates, who holds its jobs, whose they are, causes of its dead letters
    Inspect {
        /// The queue
        queue: String,
        /// Measure rates over this time, at most 30s
        #[arg(long, default_value = "2s")]
        over: String,
    },
    /// Stop claims from a queue; what runs goes on
    Pause {
        /// The queue
        queue: String,
        /// When the pause ends by itself: a time, or a duration from now
        #[arg(long)]
        until: Option<String>,
        /// Why, for those who ask `job why`
        #[arg(long)]
        reason: Option<String>,
    },
    /// Start claims again, and take jobs again
    Resume {
        /// The queue
        queue: String,
    },
    /// Let a queue run empty while new submits are refused (409), and wait until it is; `resume` takes jobs again
    Drain {
        /// The queue
        queue: String,
        /// Do not wait
        #[arg(long)]
        detach: bool,
    },
    /// Keep the settled jobs of a queue for so long, such as 14d, or for as long as all others: default
    Keep {
        /// The queue
        queue: String,
        /// How long, from their end on
        time: String,
    },
    /// Forget jobs that ended long ago, with all that was kept of them but their money; only says what it would do unless --yes
    Clean {
        /// The queue
        queue: String,
        /// That ended longer ago than this, such as 24h
        #[arg(long)]
        grace: String,
        /// In these states: succeeded, cancelled or dead
        #[arg(long, value_delimiter = ',', default_values_t = ["succeeded".to_owned(), "cancelled".to_owned()])]
        state: Vec<String>,
        #[command(flatten)]
        manner: Manner,
    },
    /// Give jobs that run for too long to other workers: a new epoch, and whoever still runs them is fenced; only says what it
    /// would do unless --yes
    ClearStuck {
        /// The queue
        queue: String,
        /// That run for longer than this, such as 1h
        #[arg(long)]
        older_than: String,
        /// Also what living workers hold: they lose what they have done
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        manner: Manner,
    },
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::List => list(operator).await,
        Verb::Inspect { queue, over } => inspect::run(operator, &queue, over).await,
        Verb::Pause { queue, until, reason } => change(operator, &queue, &pause_body(until, reason)?, "paused").await,
        Verb::Resume { queue } => {
            change(operator, &queue, &json!({"paused": false, "draining": false}), "resumed").await
        }
        Verb::Drain { queue, detach } => drain(operator, &queue, detach).await,
        Verb::Keep { queue, time } => {
            let kept = if time == "default" { Value::Null } else { json!(time) };
            let done = if kept.is_null() {
                "keeps its jobs as all do".to_owned()
            } else {
                format!("keeps its jobs for {time}")
            };
            change(operator, &queue, &json!({"retention": kept}), &done).await
        }
        Verb::Clean { queue, grace, state, manner } => {
            let states = state.iter().map(|state| quoted(state)).collect::<Vec<_>>().join(", ");
            let filter = format!("queue = {} and state in ({states}) and ended_age > {grace}", quoted(&queue));
            op::perform(operator, json!({"action": "delete", "filter": filter}), manner).await
        }
        Verb::ClearStuck { queue, older_than, force, manner } => {
            let filter = format!("queue = {} and state = running and running_age > {older_than}", quoted(&queue));
            op::perform(operator, json!({"action": "reclaim", "filter": filter, "force": force}), manner).await
        }
    }
}

async fn list(operator: &Operator) -> Outcome {
    let metrics = operator.client.get(&["v1", "queues", "metrics"], &[]).await?;
    let names = ["waiting", "active", "scheduled", "parked", "completed", "failed", "oldest_ready_seconds"];
    operator.out.show(&metrics, || {
        let queues = metrics.get("queues").and_then(Value::as_object);
        let row = |(queue, numbers): (&String, &Value)| {
            [vec![queue.clone()], names.map(|name| cell(numbers, name)).into()].concat()
        };
        let headers =
            ["QUEUE", ">WAITING", ">ACTIVE", ">SCHEDULED", ">PARKED", ">COMPLETED", ">DEAD NOW", ">OLDEST READY s"];
        output::table(&headers, queues.into_iter().flatten().map(row).collect());
    });
    Ok(Exit::Ok)
}

/// All processes refuse jobs within this, and those that had begun to accept one are done.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// Between two looks at a queue that runs empty.
const LOOK_EVERY: Duration = Duration::from_millis(500);

async fn drain(operator: &Operator, queue: &str, detach: bool) -> Outcome {
    let answer =
        operator.client.send_json(Method::PATCH, &["v1", "queues", queue], Some(&json!({"draining": true}))).await?;
    if detach {
        operator.out.show(&answer.body, || output::line(&format!("{queue} takes no jobs and runs empty")));
        return Ok(Exit::Ok);
    }
    output::note(&format!("{queue} takes no jobs; it runs empty without this command, too"));
    let refused_by_all = Instant::now() + HEARD_WITHIN;
    loop {
        let view = operator.client.get(&["v1", "queues", queue], &[]).await?;
        let [waiting, active, scheduled, parked] =
            ["waiting", "active", "scheduled", "parked"].map(|name| view["metrics"][name].as_u64().unwrap_or(0));
        let is_paused = view["paused"] == true;
        let done = match (waiting + active, scheduled + parked) {
            (0, 0) => format!("{queue} is empty; `longshore queue resume {queue}` takes jobs again"),
            (_, _) if active == 0 && is_paused => {
                let left = waiting + scheduled + parked;
                format!(
                    "{queue} is paused and does not run empty: {left} jobs are left; lift the pause, or cancel them"
                )
            }
            (0, _) => format!(
                "nothing of {queue} can run now: {scheduled} jobs are due later, {parked} wait for their target or tenant; \
                 they run when they can, or cancel them"
            ),
            _ => String::new(),
        };
        // Other processes accept jobs for a moment longer.
        if !done.is_empty() && Instant::now() >= refused_by_all {
            operator.out.show(&view, || output::line(&done));
            return Ok(if waiting + active + scheduled + parked == 0 { Exit::Ok } else { Exit::Partial });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn change(operator: &Operator, queue: &str, body: &Value, done: &str) -> Outcome {
    let answer = operator.client.send_json(Method::PATCH, &["v1", "queues", queue], Some(body)).await?;
    operator.out.show(&answer.body, || output::line(&format!("{queue} {done}")));
    Ok(Exit::Ok)
}
