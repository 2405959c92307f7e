//! `longshore dlq …`: jobs that ended without a result, and giving them another life.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::{Operator, job::show},
    failure::{Exit, Failure, Outcome},
    output::{self, cell, items},
};

/// Dead letters on one page while a group is redriven.
const PAGE: usize = 500;

/// Ids that a dry run names.
const SAMPLE: usize = 5;

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
}

/// Which dead letters get another life.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["id", "group"]))]
pub(crate) struct Retry {
    /// One dead letter
    id: Option<String>,
    /// All of this error signature; only says what it would do unless --yes
    #[arg(long)]
    group: Option<String>,
    /// Of this queue, with --group
    #[arg(long, requires = "group")]
    queue: Option<String>,
    /// Only this many, to see whether they pass now
    #[arg(long, requires = "group")]
    canary: Option<usize>,
    /// Do it
    #[arg(long)]
    yes: bool,
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
                show::jobs(letters(&page));
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
        Verb::Retry(retry) => match (retry.id.clone(), retry.group.clone()) {
            (Some(id), _) => {
                let answer = redrive(operator, &id).await?;
                operator.out.show(&answer, || output::line(&format!("{id} is {}", cell(&answer, "state"))));
                Ok(Exit::Ok)
            }
            (None, Some(signature)) => retry_group(operator, &signature, retry).await,
            (None, None) => Err(Failure::usage("dlq retry needs an id or --group")),
        },
    }
}

/// The jobs of a page of dead letters.
fn letters(page: &Value) -> &[Value] {
    items(page, if page.get("dead_letters").is_some() { "dead_letters" } else { "jobs" })
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

async fn redrive(operator: &Operator, id: &str) -> Result<Value, Failure> {
    Ok(operator.client.send_json(Method::POST, &["v1", "dead-letters", id, "redrive"], None).await?.body)
}

async fn retry_group(operator: &Operator, signature: &str, retry: Retry) -> Outcome {
    let ids = ids_of_group(operator, signature, &retry).await?;
    if ids.is_empty() {
        return Err(Failure {
            exit: Exit::NotFound,
            message: format!("no dead letter has the signature `{signature}`; `longshore dlq groups` lists them"),
            problem: None,
        });
    }
    if !retry.yes {
        let sample = &ids[..ids.len().min(SAMPLE)];
        operator.out.show(&json!({"dry_run": true, "count": ids.len(), "sample": sample}), || {
            output::line(&format!("would redrive {} dead letters, e.g. {}", ids.len(), sample.join(" ")));
            output::note("nothing was done; --yes does it");
        });
        return Ok(Exit::Ok);
    }
    let (mut done, mut errors) = (0_usize, Vec::new());
    for id in &ids {
        match redrive(operator, id).await {
            Ok(_) => done += 1,
            Err(failure) => errors.push(json!({"id": id, "error": failure.message})),
        }
    }
    operator.out.show(&json!({"redriven": done, "errors": errors}), || {
        output::line(&format!("redriven {done} of {}", ids.len()));
        for error in &errors {
            output::note(&format!("{}: {}", cell(error, "id"), cell(error, "error")));
        }
    });
    Ok(match (done, errors.len()) {
        (_, 0) => Exit::Ok,
        (0, _) => Exit::Error,
        _ => Exit::Partial,
    })
}

/// The ids of a group, all pages of it, before any of them moves: a redrive changes what the pages show.
async fn ids_of_group(operator: &Operator, signature: &str, retry: &Retry) -> Result<Vec<String>, Failure> {
    let wanted = retry.canary.unwrap_or(usize::MAX);
    let (mut ids, mut cursor) = (Vec::new(), None);
    loop {
        let query = [
            ("signature", Some(signature.to_owned())),
            ("queue", retry.queue.clone()),
            ("limit", Some(wanted.min(PAGE).to_string())),
            ("cursor", cursor),
        ];
        let page = operator.client.get(&["v1", "dead-letters"], &query).await?;
        ids.extend(letters(&page).iter().map(|letter| cell(letter, "id")));
        let next = cell(&page, "next_cursor");
        if next.is_empty() || ids.len() >= wanted {
            ids.truncate(wanted);
            return Ok(ids);
        }
        cursor = Some(next);
    }
}
