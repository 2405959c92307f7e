//! `longshore dlq …`: jobs that ended without a result, and what becomes of them.

mod archives;
mod canary;

use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::{
        Operator,
        job::show,
        op::{self, Manner, quoted},
    },
    failure::{Exit, Failure, Outcome},
    output::{self, cell, items},
};

/// What can be done with dead letters.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// List dead letters, newest first
    List {
        /// That meet this: 'queue = llm and error.class in (server, rate) and ended_age > 1h'
        #[arg(long)]
        filter: Option<String>,
        /// Of this queue
        #[arg(long)]
        queue: Option<String>,
        /// Of this error signature, as `dlq groups` prints it
        #[arg(long)]
        group: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Go on behind the last page: what it printed as cursor
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Group dead letters by error signature: how many, since when, what they have cost
    Groups {
        /// Of this queue
        #[arg(long)]
        queue: Option<String>,
    },
    /// Show one dead letter
    Show {
        /// The job
        id: String,
    },
    /// Give dead letters another life: new attempts, answers that were paid for are kept
    Retry(Retry),
    /// Forget dead letters, with all that was kept of them but their money; only says what it would do unless --yes
    Delete {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        manner: Manner,
    },
    /// Take old dead letters out of the journal, into compressed objects; only says what it would do unless --yes
    Archive {
        /// That died longer ago than this, such as 30d
        #[arg(long)]
        older_than: String,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        manner: Manner,
    },
    /// List archives, newest first
    Archives {
        /// At most this many
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Go on behind the last page: what it printed as cursor
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Put the letters of an archive back, dead and as they were; those that are there are left alone
    Restore {
        /// The archive, as `dlq archives` prints it
        archive: String,
        /// Only read and check its objects, and count
        #[arg(long)]
        dry_run: bool,
    },
    /// Empty the set of dead letters as it is now; only says what it would do unless --yes
    Drain {
        /// Where they go: redrive, archive or delete
        #[arg(long)]
        to: String,
        /// All of them
        #[arg(long, conflicts_with_all = ["filter", "group", "queue"])]
        all: bool,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        manner: Manner,
    },
}

/// Several dead letters; what is given must all hold.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Which {
    /// That meet this: 'queue = llm and error.class in (server, rate) and ended_age > 1h'
    #[arg(long)]
    filter: Option<String>,
    /// Of this error signature, as `dlq groups` prints it
    #[arg(long)]
    group: Option<String>,
    /// Of this queue
    #[arg(long)]
    queue: Option<String>,
}

impl Which {
    /// The filter that means them; `None` where nothing is named.
    fn filter(&self) -> Option<String> {
        let named = [
            self.filter.clone(),
            self.group.as_ref().map(|signature| format!("error.signature = {}", quoted(signature))),
            self.queue.as_ref().map(|queue| format!("queue = {}", quoted(queue))),
        ];
        let named: Vec<_> = named.into_iter().flatten().collect();
        (!named.is_empty()).then(|| named.join(" and "))
    }

    /// Likewise, and nothing named is a mistake.
    fn required(&self) -> Result<String, Failure> {
        self.filter().ok_or_else(|| Failure::usage("say which dead letters: --filter, --group or --queue"))
    }
}

/// Which dead letters get another life.
#[derive(Debug, clap::Args)]
pub(crate) struct Retry {
    /// One dead letter; several by --filter, --group and --queue, which only say what they would do unless --yes
    #[arg(conflicts_with_all = ["filter", "group", "queue"])]
    id: Option<String>,
    #[command(flatten)]
    which: Which,
    /// Give it this payload, a JSON file, for its next life
    #[arg(long, value_name = "FILE", requires = "id")]
    edit_payload: Option<PathBuf>,
    /// Only this many, the newest ones; waits for what becomes of them
    #[arg(long, conflicts_with = "id")]
    canary: Option<usize>,
    #[command(flatten)]
    manner: Manner,
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::List { filter, queue, group, limit, cursor } => {
            let query = [
                ("filter", filter),
                ("queue", queue),
                ("signature", group),
                ("limit", Some(limit.to_string())),
                ("cursor", cursor),
            ];
            let page = operator.client.get(&["v1", "dead-letters"], &query).await?;
            operator.out.show(&page, || {
                show::jobs(items(&page, "dead_letters"));
                show::next_page(&page);
            });
            Ok(Exit::Ok)
        }
        Verb::Groups { queue } => groups(operator, queue).await,
        Verb::Show { id } => {
            let letter = operator.client.get(&["v1", "dead-letters", &id], &[]).await?;
            operator.out.show(&letter, || show::letter(&letter));
            Ok(Exit::Ok)
        }
        Verb::Retry(retry) => match &retry.id {
            Some(id) => {
                let payload = retry.edit_payload.as_deref().map(payload_of).transpose()?;
                let answer = redrive(operator, id, payload.as_ref()).await?;
                operator.out.show(&answer, || output::line(&format!("{id} is {}", cell(&answer, "state"))));
                Ok(Exit::Ok)
            }
            None => several(operator, retry).await,
        },
        Verb::Delete { which, manner } => {
            let filter = format!("state = dead and {}", which.required()?);
            op::perform(operator, json!({"action": "delete", "filter": filter}), manner).await
        }
        Verb::Archive { older_than, which, manner } => {
            op::perform(operator, json!({"action": "archive", "filter": archived(&older_than, &which)}), manner).await
        }
        Verb::Archives { limit, cursor } => archives::list(operator, limit, cursor).await,
        Verb::Restore { archive, dry_run } => archives::restore(operator, &archive, dry_run).await,
        Verb::Drain { to, all, which, manner } => {
            let filter = if all { "state = dead".to_owned() } else { drained(&which)? };
            op::perform(operator, json!({"action": "drain", "to": to, "filter": filter}), manner).await
        }
    }
}

fn archived(older_than: &str, which: &Which) -> String {
    let old = format!("state = dead and ended_age > {older_than}");
    which.filter().map_or(old.clone(), |filter| format!("{old} and {filter}"))
}

fn drained(which: &Which) -> Result<String, Failure> {
    which.filter().ok_or_else(|| Failure::usage("say which dead letters: --queue, --filter, --group or --all"))
}

async fn several(operator: &Operator, retry: Retry) -> Outcome {
    let Some(filter) = retry.which.filter() else {
        return Err(Failure::usage("dlq retry needs an id, or --filter, --group or --queue"));
    };
    match retry.canary.filter(|_| retry.manner.yes) {
        Some(most) => canary::run(operator, &filter, most).await,
        None => op::perform(operator, json!({"action": "redrive", "filter": filter}), retry.manner).await,
    }
}

async fn groups(operator: &Operator, queue: Option<String>) -> Outcome {
    let body = operator.client.get(&["v1", "dead-letters", "groups"], &[("queue", queue)]).await?;
    operator.out.show(&body, || {
        let names = ["count", "class", "first_seen", "last_seen", "cost_usd", "signature"];
        let headers = [">COUNT", "CLASS", "FIRST SEEN", "LAST SEEN", ">USD SPENT", "SIGNATURE"];
        output::table(
            &headers,
            items(&body, "groups").iter().map(|group| names.map(|name| cell(group, name)).into()).collect(),
        );
    });
    Ok(Exit::Ok)
}

async fn redrive(operator: &Operator, id: &str, body: Option<&Value>) -> Result<Value, Failure> {
    Ok(operator.client.send_json(Method::POST, &["v1", "dead-letters", id, "redrive"], body).await?.body)
}

/// The request for another life with the payload in this file.
fn payload_of(path: &Path) -> Result<Value, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let payload: Value = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    Ok(json!({"payload": payload}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_must_all_hold() {
        let which = Which {
            filter: Some("ended_age > 1h".into()),
            group: Some(r#"server:503: "no""#.into()),
            queue: Some("bulk".into()),
        };
        let expected = r#"ended_age > 1h and error.signature = "server:503: \"no\"" and queue = "bulk""#;
        assert_eq!(which.filter().as_deref(), Some(expected));
        assert_eq!(archived("30d", &Which::default()), "state = dead and ended_age > 30d");
        let of_queue = Which { queue: Some("bulk".into()), ..Which::default() };
        assert_eq!(archived("30d", &of_queue), r#"state = dead and ended_age > 30d and queue = "bulk""#);
        assert_eq!(Which::default().required().unwrap_err().exit, Exit::Usage);
    }
}
