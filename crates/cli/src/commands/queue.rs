//! `longshore queue …`: what waits where, and stopping or starting it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::{Operator, pause_body},
    failure::{Exit, Outcome},
    output::{self, cell},
};

/// What can be done with queues.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show every queue with its numbers
    List,
    /// Show one queue: settings and numbers
    Inspect {
        /// The queue
        queue: String,
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
    /// Start claims again
    Resume {
        /// The queue
        queue: String,
    },
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::List => list(operator).await,
        Verb::Inspect { queue } => inspect(operator, &queue).await,
        Verb::Pause { queue, until, reason } => change(operator, &queue, &pause_body(until, reason)?, "paused").await,
        Verb::Resume { queue } => change(operator, &queue, &json!({"paused": false}), "resumed").await,
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

async fn inspect(operator: &Operator, queue: &str) -> Outcome {
    let view = operator.client.get(&["v1", "queues", queue], &[]).await?;
    operator.out.show(&view, || output::fields(&flatten(&view)));
    Ok(Exit::Ok)
}

/// The members of a view and of the objects in it, one level deep, for a list of names and values.
fn flatten(view: &Value) -> Vec<(&str, String)> {
    let mut pairs = Vec::new();
    for (name, value) in view.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(inner) => pairs.extend(inner.keys().map(|name| (name.as_str(), cell(value, name)))),
            None => pairs.push((name.as_str(), cell(view, name))),
        }
    }
    pairs
}

async fn change(operator: &Operator, queue: &str, body: &Value, done: &str) -> Outcome {
    let answer = operator.client.send_json(Method::PATCH, &["v1", "queues", queue], Some(body)).await?;
    operator.out.show(&answer.body, || output::line(&format!("{queue} {done}")));
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_flattened_by_one_level() {
        let view = json!({"queue": "q", "metrics": {"waiting": 3}});
        let pairs = flatten(&view);
        assert!(
            pairs.contains(&("queue", "q".to_owned())) && pairs.contains(&("waiting", "3".to_owned())),
            "{pairs:?}"
        );
    }
}
