//! `longshore job list`: a page of jobs, narrowed by filters.

use crate::{
    commands::{Operator, job::show},
    failure::{Exit, Outcome},
    output,
};

/// Filters; each narrows the list.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// That meet this: 'queue = llm and state = dead and error.class in (server, rate) and age > 1h'
    #[arg(long)]
    filter: Option<String>,
    /// Of this queue
    #[arg(long)]
    queue: Option<String>,
    /// Of this kind: llm, embedding, analysis or probe
    #[arg(long)]
    kind: Option<String>,
    /// In this state: scheduled, ready, running, succeeded, dead or cancelled
    #[arg(long)]
    state: Option<String>,
    /// Of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Of this batch
    #[arg(long)]
    batch_id: Option<String>,
    /// Of the schedule with this id
    #[arg(long, conflicts_with = "batch_id")]
    schedule: Option<String>,
    /// Whose last error has this class, e.g. rate
    #[arg(long)]
    error: Option<String>,
    /// Submitted since: a time, or a duration back from now such as 24h
    #[arg(long)]
    since: Option<String>,
    /// Submitted before: a time, or a duration back from now
    #[arg(long)]
    until: Option<String>,
    /// Whose id, operation, tags, unique key or error contain this text
    #[arg(long, short)]
    query: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Go on behind the last page: what it printed as cursor
    #[arg(long)]
    cursor: Option<String>,
}

/// Prints the page.
pub(crate) async fn run(operator: &Operator, args: Args) -> Outcome {
    let query = [
        ("filter", args.filter),
        ("queue", args.queue),
        ("kind", args.kind),
        ("state", args.state),
        ("tenant", args.tenant),
        ("batch_id", args.batch_id),
        ("schedule", args.schedule),
        ("error", args.error),
        ("since", args.since),
        ("until", args.until),
        ("q", args.query),
        ("limit", Some(args.limit.to_string())),
        ("cursor", args.cursor),
    ];
    let page = operator.client.get(&["v1", "jobs"], &query).await?;
    operator.out.show(&page, || {
        show::jobs(output::items(&page, "jobs"));
        show::next_page(&page);
    });
    Ok(Exit::Ok)
}
