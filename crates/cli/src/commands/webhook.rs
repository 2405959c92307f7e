//! `longshore webhook …`: who is told of what, what was delivered, and sending it again.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::Operator,
    failure::{Exit, Outcome},
    output::{self, cell, items},
};

/// What can be done with webhooks.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show who is told of what
    List {
        /// Only those of a tenant
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Add an endpoint and print its signing secret, which is never shown again
    Create {
        /// Where messages go: https, and to the public internet, unless the configuration allows more
        #[arg(value_name = "URL")]
        receiver: String,
        /// Told of this event, such as job.dead; may be given several times; every event unless named
        #[arg(long = "event", value_name = "EVENT")]
        events: Vec<String>,
        /// Told of this tenant's events; of everybody's, and of the installation's own, unless named
        #[arg(long)]
        tenant: Option<String>,
        /// For people
        #[arg(long)]
        description: Option<String>,
    },
    /// Switch an endpoint on
    Enable {
        /// Its id
        id: String,
    },
    /// Switch an endpoint off: what waits for it is dropped
    Disable {
        /// Its id
        id: String,
        /// Why
        #[arg(long)]
        reason: Option<String>,
    },
    /// Delete an endpoint with its secrets: what waits for it is dropped
    Delete {
        /// Its id
        id: String,
    },
    /// Show what was sent to whom, newest first
    Deliveries {
        /// To this endpoint
        #[arg(long, conflicts_with = "job")]
        webhook: Option<String>,
        /// About this job
        #[arg(long)]
        job: Option<String>,
        /// That stand so
        #[arg(long, value_name = "pending|delivered|failed|dropped")]
        state: Option<String>,
        /// One of them, with its message and attempts
        #[arg(long, value_name = "ID", conflicts_with_all = ["webhook", "job", "state"])]
        show: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Send deliveries again: the same messages with the same ids
    Replay {
        /// Their ids
        #[arg(required = true)]
        deliveries: Vec<String>,
    },
    /// Make another signing secret and print it; the former one goes on signing beside it for a while
    RotateSecret {
        /// The endpoint
        #[arg(required_unless_present = "tenant", conflicts_with = "tenant")]
        id: Option<String>,
        /// A tenant's, for the URLs of its jobs
        #[arg(long)]
        tenant: Option<String>,
        /// How long the former secret goes on
        #[arg(long, default_value = "24h", value_name = "DURATION")]
        overlap: String,
    },
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::List { tenant } => list(operator, tenant).await,
        Verb::Create { receiver, events, tenant, description } => {
            let mut body = json!({"url": receiver});
            if !events.is_empty() {
                body["events"] = json!(events);
            }
            for (name, value) in [("tenant", tenant), ("description", description)] {
                if let Some(value) = value {
                    body[name] = json!(value);
                }
            }
            let made = operator.client.send_json(Method::POST, &["v1", "webhooks"], Some(&body)).await?.body;
            operator.out.show(&made, || {
                output::fields(&[
                    ("id", cell(&made, "id")),
                    ("url", cell(&made, "url")),
                    ("secret", cell(&made, "secret")),
                ]);
                output::note("keep the secret: it is never shown again");
            });
            Ok(Exit::Ok)
        }
        Verb::Enable { id } => switch(operator, &id, json!({"enabled": true})).await,
        Verb::Disable { id, reason } => {
            let mut body = json!({"enabled": false});
            if let Some(reason) = reason {
                body["reason"] = json!(reason);
            }
            switch(operator, &id, body).await
        }
        Verb::Delete { id } => {
            let answer = operator.client.send_json(Method::DELETE, &["v1", "webhooks", &id], None).await?;
            operator.out.show(&answer.body, || output::line(&format!("{id} is deleted")));
            Ok(Exit::Ok)
        }
        Verb::Deliveries { show: Some(id), .. } => show(operator, &id).await,
        Verb::Deliveries { webhook, job, state, limit, show: None } => {
            let query = [("webhook", webhook), ("job", job), ("state", state), ("limit", Some(limit.to_string()))];
            deliveries(operator, &query).await
        }
        Verb::Replay { deliveries } => replay(operator, &deliveries).await,
        Verb::RotateSecret { id, tenant, overlap } => {
            let path = match (&id, &tenant) {
                (_, Some(tenant)) => ["v1", "tenants", tenant, "signing-secret"],
                (id, None) => ["v1", "webhooks", id.as_deref().unwrap_or_default(), "rotate-secret"],
            };
            let body = json!({"overlap": overlap});
            let answer = operator.client.send_json(Method::POST, &path, Some(&body)).await?.body;
            operator.out.show(&answer, || {
                output::line(&cell(&answer, "secret"));
                if answer["jobs_secret"].is_string() {
                    output::line(&format!("{} (for http jobs)", cell(&answer, "jobs_secret")));
                }
                output::note("keep it: it is never shown again");
            });
            Ok(Exit::Ok)
        }
    }
}

async fn list(operator: &Operator, tenant: Option<String>) -> Outcome {
    let body = operator.client.get(&["v1", "webhooks"], &[("tenant", tenant)]).await?;
    operator.out.show(&body, || {
        let row = |one: &Value| {
            let words = items(one, "events").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
            let state = if one["enabled"] == true { "on" } else { "off" };
            let [id, tenant, url, reason] = ["id", "tenant", "url", "reason"].map(|name| cell(one, name));
            vec![id, tenant, state.to_owned(), url, words, reason]
        };
        let headers = ["ID", "TENANT", "STATE", "URL", "EVENTS", "REASON"];
        output::table(&headers, items(&body, "webhooks").iter().map(row).collect());
    });
    Ok(Exit::Ok)
}

async fn switch(operator: &Operator, id: &str, body: Value) -> Outcome {
    let answer = operator.client.send_json(Method::PATCH, &["v1", "webhooks", id], Some(&body)).await?.body;
    operator.out.show(&answer, || {
        output::line(&format!("{id} is {}", if answer["enabled"] == true { "on" } else { "off" }));
    });
    Ok(Exit::Ok)
}

async fn deliveries(operator: &Operator, query: &[(&str, Option<String>)]) -> Outcome {
    let body = operator.client.get(&["v1", "webhook-deliveries"], query).await?;
    operator.out.show(&body, || {
        let names = ["id", "event", "state", "attempts", "last", "at", "next_attempt_at", "url"];
        let row = |one: &Value| names.map(|name| cell(one, name)).to_vec();
        let headers = ["ID", "EVENT", "STATE", ">ATTEMPTS", "LAST", "AT", "NEXT", "URL"];
        output::table(&headers, items(&body, "deliveries").iter().map(row).collect());
    });
    Ok(Exit::Ok)
}

async fn show(operator: &Operator, id: &str) -> Outcome {
    let body = operator.client.get(&["v1", "webhook-deliveries", id], &[]).await?;
    operator.out.show(&body, || {
        let names = ["id", "event", "state", "url", "webhook", "job", "tenant", "at", "next_attempt_at", "body"];
        output::fields(&names.map(|name| (name, cell(&body, name))));
        let names = ["at", "duration_ms", "status", "answer", "error"];
        let row = |one: &Value| names.map(|name| cell(one, name)).to_vec();
        let headers = ["AT", ">MS", ">STATUS", "ANSWER", "ERROR"];
        output::table(&headers, items(&body, "history").iter().map(row).collect());
    });
    Ok(Exit::Ok)
}

/// Asks for each of them; an id that is wrong does not stop the others.
async fn replay(operator: &Operator, deliveries: &[String]) -> Outcome {
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for id in deliveries {
        match operator.client.send_json(Method::POST, &["v1", "webhook-deliveries", id, "replay"], None).await {
            Ok(answer) => done.push(answer.body),
            Err(failure) => failures.push((id, failure)),
        }
    }
    let told = json!({"replayed": done, "failed": failures.iter().map(|(id, _)| id).collect::<Vec<_>>()});
    operator.out.show(&told, || output::line(&format!("{} will be sent again", done.len())));
    match (failures.len(), done.len()) {
        (0, _) => Ok(Exit::Ok),
        (_, 0) => match failures.into_iter().next() {
            Some((_, failure)) => Err(failure),
            None => Ok(Exit::Ok),
        },
        _ => {
            failures.iter().for_each(|(id, failure)| output::note(&format!("{id}: {}", failure.message)));
            Ok(Exit::Partial)
        }
    }
}
