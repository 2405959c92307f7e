//! `longshore bench`: submits and drains probe jobs on a running installation, over HTTP like everybody else, and
//! prints what that run measured. Jobs are of kind `probe`: no provider is called.

mod latency;
mod load;
mod report;
mod steps;

use std::path::Path;

use uuid::Uuid;

use self::{load::Load, report::Report};
use crate::{
    commands::Operator,
    data,
    failure::{Exit, Failure, Outcome},
    output,
};

/// Jobs in one bulk request unless `--bulk-jobs` says otherwise: about 1 MB of the usual payload, well below the API's bound of
/// 10,000 jobs and 32 MiB.
const BULK_JOBS: usize = 1_000;

/// Most jobs in one bulk request: the API's bound.
const BULK_JOBS_MAX: usize = 10_000;

/// Most jobs of one run: their ids and times are kept in memory.
const JOBS_MAX: usize = 5_000_000;

/// Jobs of the sleep phase unless `--jobs` says otherwise.
const SLEEP_JOBS_DEFAULT: usize = 10_000;

/// Jobs of the submit and drain phases unless `--jobs` says otherwise.
const LOAD_JOBS_DEFAULT: usize = 100_000;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Phase {
    /// Bulk submits into a paused queue, each answered after its commit
    Submit,
    /// From the first handler's start to the last handler's end of what was submitted
    Drain,
    /// Single submits into an idle queue: from the call to the handler's start
    Latency,
    /// Single submits into a paused queue, many in flight, each answered after its commit
    Single,
    /// Jobs that sleep: from the first handler's start to the last handler's end
    Sleep,
}

/// What to measure, and how much of it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure [default: everything]
    #[arg(value_enum)]
    phases: Vec<Phase>,
    /// Jobs [default: 100000; sleep: 10000, and beside other phases never more]
    #[arg(long)]
    jobs: Option<usize>,
    /// Jobs of one bulk request
    #[arg(long, default_value_t = BULK_JOBS)]
    bulk_jobs: usize,
    /// Bulk requests in flight
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// Tenants that the jobs belong to, in turn
    #[arg(long, default_value_t = 4)]
    tenants: usize,
    /// How long each job of the sleep phase sleeps
    #[arg(long, default_value_t = 1_000)]
    sleep_ms: u64,
    /// Size of a payload
    #[arg(long, default_value_t = 1_024)]
    payload_bytes: usize,
    /// Single submits of the latency phase
    #[arg(long, default_value_t = 500)]
    singles: usize,
    /// Single submits of the single phase
    #[arg(long, default_value_t = 20_000)]
    single_jobs: usize,
    /// Requests in flight in the single phase
    #[arg(long, default_value_t = 64)]
    single_concurrency: usize,
    /// Milliseconds between two single submits of the latency phase
    #[arg(long, default_value_t = 5)]
    pause_ms: u64,
    /// The queue; it must be empty
    #[arg(long, default_value = "bench")]
    queue: String,
    /// The server's process, to read its memory [default: the one that runs on the data folder]
    #[arg(long)]
    pid: Option<u32>,
    /// Mark the begin and end of each step on stderr as JSON, and go on after a line on stdin: for profilers
    #[arg(long, hide = true)]
    steps: bool,
}

impl Args {
    fn measures(&self, phase: Phase) -> bool {
        self.phases.is_empty() || self.phases.contains(&phase)
    }
}

/// Measures and prints.
pub(crate) async fn run(operator: &Operator, args: &Args, data: &Path) -> Outcome {
    check(args)?;
    let pid = args.pid.or_else(|| local_server(operator, data));
    let load = Load::new(operator, args, format!("bench-{}", Uuid::now_v7().simple()));
    load.check_idle().await?;
    let mut report = Report::begin(operator, args, pid).await?;
    // A pause that this run leaves behind would stop the queue for its owner: it ends whatever happens.
    let measured = tokio::select! {
        measured = measure(&load, args, &mut report) => measured,
        _ = tokio::signal::ctrl_c() => Err(Failure::error("interrupted; jobs that were submitted will still run")),
    };
    let resumed = load.resume().await;
    measured?;
    resumed?;
    report.finish(pid);
    operator.out.show(&report.to_json(), || report.print());
    Ok(if report.is_complete() { Exit::Ok } else { Exit::Partial })
}

async fn measure(load: &Load<'_>, args: &Args, report: &mut Report) -> Result<(), Failure> {
    if args.measures(Phase::Latency) {
        report.latency(&latency::run(load, args.singles, args.pause_ms).await?);
    }
    if args.measures(Phase::Submit) || args.measures(Phase::Drain) {
        let jobs = args.jobs.unwrap_or(LOAD_JOBS_DEFAULT);
        let run = load.pause_submit_drain("load", jobs, 0).await?;
        if args.measures(Phase::Submit) {
            report.submit(&run);
        }
        if args.measures(Phase::Drain) {
            report.drain(&run);
        }
    }
    if args.measures(Phase::Single) {
        report.single(&load.pause_submit_singles("single").await?, args.single_concurrency);
    }
    if args.measures(Phase::Sleep) {
        let jobs = match (args.phases.as_slice(), args.jobs) {
            ([Phase::Sleep], Some(jobs)) => jobs,
            // `--jobs` of a run of more than that is for the load: jobs that sleep would take minutes of it.
            (_, jobs) => jobs.unwrap_or(SLEEP_JOBS_DEFAULT).min(SLEEP_JOBS_DEFAULT),
        };
        report.sleep(&load.pause_submit_drain("sleep", jobs, args.sleep_ms).await?, args.sleep_ms);
    }
    Ok(())
}

fn check(args: &Args) -> Result<(), Failure> {
    let in_range = |name: &str, value: usize, max: usize| match value {
        value if (1..=max).contains(&value) => Ok(()),
        value => Err(Failure::usage(format!("--{name} is {value}; it is between 1 and {max}"))),
    };
    in_range("jobs", args.jobs.unwrap_or(1), JOBS_MAX)?;
    in_range("bulk-jobs", args.bulk_jobs, BULK_JOBS_MAX)?;
    in_range("concurrency", args.concurrency, 64)?;
    in_range("single-jobs", args.single_jobs, JOBS_MAX)?;
    in_range("single-concurrency", args.single_concurrency, 1_024)?;
    in_range("tenants", args.tenants, BULK_JOBS)?;
    in_range("singles", args.singles, 100_000)?;
    in_range("payload-bytes", args.payload_bytes, 30_000)
}

/// The process that serves the data folder, if it is the server that this run talks to.
fn local_server(operator: &Operator, data: &Path) -> Option<u32> {
    let holder = data::holder(data)?;
    (holder.url.as_deref() == Some(operator.client.base())).then_some(holder.pid)
}

/// Says on stderr what is going on, for a person who waits.
fn say(operator: &Operator, text: &str) {
    if !operator.out.json {
        output::note(text);
    }
}
