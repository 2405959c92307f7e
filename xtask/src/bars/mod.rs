//! `cargo xtask bars`: what the shared stores must hold besides their speed. Redis memory and claim cost at a million
//! waiting jobs, the rebuild after a flush, and fairness; each figure beside its bar.

mod backup;
mod cardinality;
mod latency;
mod payload;
mod redrive;
mod requests;
mod retention;
mod rolling;
mod s3;
mod schedules;
mod steady;
mod telemetry;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;
use testkit::{RedisServer, Watchdog};
use tokio::process::Command;

use crate::{
    bar::{self, Bar, Judged},
    bench::{installation::release_binary, until_told},
    root, run as run_command,
};

pub(crate) use backup::Keys;
pub(crate) use schedules::shifted;

/// Jobs of the two rebuilds, and the seconds that each may take.
const REBUILDS: [(usize, f64); 2] = [(100_000, 5.0), (1_000_000, 30.0)];
/// Seconds from a flush to the first old job in a worker's hands.
const FIRST_DISPATCH_MAX_S: f64 = 2.0;
/// Milliseconds that a cost report over 30 days may take.
const REPORT_MAX_MS: f64 = 500.0;

/// What is measured, and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Waiting jobs of the large backlog.
    #[arg(long, default_value_t = 1_000_000)]
    backlog: usize,
    /// Calls of the ledger that reports are asked of.
    #[arg(long, default_value_t = 1_000_000)]
    calls: usize,
    /// Dead letters that are redriven.
    #[arg(long, default_value_t = 100_000)]
    letters: usize,
    /// Dead letters of which pages are asked for.
    #[arg(long, default_value_t = 1_000_000)]
    page_letters: usize,
    /// Jobs of the journal that is backed up, and settled jobs of the months that are dropped.
    #[arg(long, default_value_t = 1_000_000)]
    jobs: usize,
    /// Seconds of the schedule that is due each second.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Measure only this [default: everything].
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Print one JSON array instead of a table.
    #[arg(long)]
    json: bool,
}

/// A part of the bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Redis memory and claim cost of a large backlog, and fairness.
    Dispatcher,
    /// Redis memory of jobs with small and large payloads.
    Payload,
    /// The rebuild after a flush.
    Rebuild,
    /// Cost reports over a large ledger.
    Costs,
    /// One limit of requests over three API processes.
    RequestLimits,
    /// A backup of a large journal beside a load, and the way back.
    Backup,
    /// Backups on an S3 protocol server: in pieces, and with wrong credentials.
    S3,
    /// Redrive by filter beside a load, aborts and kills in the middle of it, pages of very many dead letters.
    Redrive,
    /// Months of settled jobs that are dropped beside a load.
    Retention,
    /// Each process of every role restarted under a load.
    Rolling,
    /// Series of a process after many jobs of many tenants.
    Cardinality,
    /// How long a submit takes while everything runs on this machine.
    Latency,
    /// A drain with metrics and traces, and without.
    Telemetry,
    /// A tick each second over three schedulers that are killed, one of them with a wrong clock. Wants Debian's `faketime`.
    Schedules,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let measures = |part| arguments.only.is_none_or(|only| only == part);
    // Before anything is built: it has to be installed first.
    let faketime = measures(Part::Schedules).then(schedules::library).transpose()?;
    run_command("cargo", &["build", "--release", "--locked"])?;
    let longshore = release_binary()?;
    let dispatcher = ["bench", "--no-run", "--package", "queue-core", "--bench", "dispatcher_speed"];
    let dispatcher = measures(Part::Dispatcher).then(|| program(&dispatcher)).transpose()?;
    let rebuild = ["build", "--release", "--package", "scheduler", "--example", "rebuild_speed"];
    let rebuild = measures(Part::Rebuild).then(|| program(&rebuild)).transpose()?;
    let costs = ["bench", "--no-run", "--package", "queue-core", "--bench", "cost_speed"];
    let costs = measures(Part::Costs).then(|| program(&costs)).transpose()?;
    let judged = until_told(async {
        let mut judged = vec![];
        if let Some(program) = dispatcher {
            judged.extend(of_dispatcher(&program, arguments.backlog).await?);
        }
        if measures(Part::Payload) {
            judged.extend(payload::measure(&longshore).await?);
        }
        if let Some(program) = rebuild {
            for (jobs, seconds) in REBUILDS {
                judged.extend(of_rebuild(&program, jobs, seconds).await?);
            }
        }
        if let Some(program) = costs {
            judged.extend(of_costs(&program, arguments.calls).await?);
        }
        if measures(Part::RequestLimits) {
            judged.extend(requests::measure(&longshore).await?);
        }
        if measures(Part::Redrive) {
            judged.extend(redrive::measure(&longshore, arguments.letters, arguments.page_letters).await?);
        }
        if measures(Part::Backup) {
            judged.extend(backup::measure(&longshore, arguments.jobs).await?);
        }
        if measures(Part::S3) {
            judged.extend(s3::measure(&longshore).await?);
        }
        if measures(Part::Retention) {
            judged.extend(retention::measure(&longshore, arguments.jobs).await?);
        }
        if measures(Part::Rolling) {
            judged.extend(rolling::measure(&longshore).await?);
        }
        if measures(Part::Cardinality) {
            judged.extend(cardinality::measure(&longshore).await?);
        }
        if measures(Part::Latency) {
            judged.extend(latency::measure(&longshore).await?);
        }
        if measures(Part::Telemetry) {
            judged.extend(telemetry::measure(&longshore).await?);
        }
        if let Some(library) = faketime {
            judged.extend(schedules::measure(&longshore, &library, arguments.seconds).await?);
        }
        Ok(judged)
    })?;
    if arguments.json {
        println!("{:#}", serde_json::to_value(&judged)?);
    } else {
        bar::print("The bars of the shared stores (2 cores, release build)", &judged);
    }
    Ok(())
}

/// The rolling restart in its short form; fails where a bar is missed.
pub(crate) fn run_short_rolling(longshore: &Path) -> Result<()> {
    let judged = until_told(rolling::measure_short(longshore))?;
    bar::print("A rolling restart, short", &judged);
    let missed = judged.iter().filter(|one| one.is_missed()).count();
    ensure!(missed == 0, "{missed} bars of the rolling restart are missed");
    Ok(())
}

async fn of_dispatcher(program: &PathBuf, backlog: usize) -> Result<Vec<Judged>> {
    let redis = tokio::task::spawn_blocking(RedisServer::start).await?;
    let figures = figures_of(program, &[&backlog.to_string(), &redis.url(), "--bars"]).await?;
    let get = |name: &str| figures.get(name);
    let cost = |name: &str| Ok::<_, anyhow::Error>(get(&format!("{name}_large"))? / get(&format!("{name}_small"))?);
    let at = |what: &str| format!("{what}, {backlog} waiting against 10,000");
    Ok(vec![
        judged(format!("Redis memory a job, {backlog} waiting"), get("bytes_a_job")?, "bytes", Bar::AtMost(300.0)),
        judged(at("claim, start and ack: processor time of Redis"), cost("claim_server_us")?, "×", Bar::AtMost(1.1)),
        informs(at("claim, start and ack: wall time"), cost("claim_wall_us")?, "×"),
        informs("claim, start and ack at 10,000: Redis".to_owned(), get("claim_server_us_small")?, "µs a job"),
        informs(format!("claim, start and ack at {backlog}: Redis"), get("claim_server_us_large")?, "µs a job"),
        judged(
            "place of one job of a tenant behind 200,000 of another".to_owned(),
            get("place_behind_flood")?,
            "claims",
            // A round of two tenants of weight 1.
            Bar::AtMost(2.0),
        ),
        judged("claims of weights 3 and 1".to_owned(), get("weights_ratio")?, ": 1", Bar::Between(2.85, 3.15)),
        judged(
            "longest wait of an old job of priority 0, full load, 10 % of it priority 9".to_owned(),
            get("longest_wait_rounds")?,
            "rounds",
            Bar::AtMost(get("longest_wait_rounds_bound")?),
        ),
    ])
}

async fn of_rebuild(program: &PathBuf, jobs: usize, seconds: f64) -> Result<Vec<Judged>> {
    let figures = figures_of(program, &[&jobs.to_string(), "--bars"]).await?;
    let what = |what: &str| format!("after FLUSHALL of {jobs}: {what}");
    let first = figures.get("first_dispatch_seconds")?;
    Ok(vec![
        judged(what("all are back"), figures.get("rebuild_seconds")?, "s", Bar::AtMost(seconds)),
        judged(what("the first is dispatched"), first, "s", Bar::AtMost(FIRST_DISPATCH_MAX_S)),
    ])
}

async fn of_costs(program: &PathBuf, calls: usize) -> Result<Vec<Judged>> {
    let figures = figures_of(program, &[&calls.to_string(), "--bars"]).await?;
    let get = |name: &str| figures.get(name);
    let report = |state: &str, name: &str, what: &str| {
        let figure = get(&format!("{state}_report_ms_{name}"))?;
        let what = format!("cost report of 30 days, {calls} calls, {state}: {what}");
        Ok::<_, anyhow::Error>(judged(what, figure, "ms", Bar::AtMost(REPORT_MAX_MS)))
    };
    Ok(vec![
        report("folded", "by_operation", "by operation")?,
        report("folded", "by_tenant_model_and_day", "by tenant, model and day")?,
        report("folded", "by_model_from_noon", "by model, from a noon on")?,
        informs(
            "the same by operation before anything is folded".to_owned(),
            get("unfolded_report_ms_by_operation")?,
            "ms",
        ),
        informs(format!("reading each of {calls} rows"), get("reading_every_row_ms")?, "ms"),
        informs("sums that the reports read".to_owned(), get("sums")?, "lines"),
        informs("folding".to_owned(), get("fold_us_a_line")?, "µs a line"),
        informs(
            "writing calls in groups of 250, with their sums".to_owned(),
            get("write_us_a_call_with_sums")?,
            "µs a call",
        ),
        informs("the same without sums".to_owned(), get("write_us_a_call_without")?, "µs a call"),
    ])
}

fn judged(what: String, figure: f64, unit: &str, bar: Bar) -> Judged {
    Judged { what, figure, unit: unit.to_owned(), bar: Some(bar) }
}

fn informs(what: String, figure: f64, unit: &str) -> Judged {
    Judged { what, figure, unit: unit.to_owned(), bar: None }
}

/// Builds a measuring program of another crate and says where it is.
pub(crate) fn program(cargo: &[&str]) -> Result<PathBuf> {
    eprintln!("$ cargo {}", cargo.join(" "));
    let mut command = std::process::Command::new("cargo");
    command.args(cargo).args(["--locked", "--message-format", "json-render-diagnostics"]).current_dir(root());
    let output = command.stderr(Stdio::inherit()).output().context("cargo did not start")?;
    ensure!(output.status.success(), "`cargo {}` failed: {}", cargo.join(" "), output.status);
    let name = cargo.last().copied().unwrap_or_default();
    artifact(&String::from_utf8_lossy(&output.stdout), name).with_context(|| format!("cargo built no {name}"))
}

/// The executable of a target, from what cargo says of each artifact.
fn artifact(lines: &str, target: &str) -> Option<PathBuf> {
    let said = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut of_target = said.filter(|said| said["target"]["name"] == target);
    of_target.find_map(|said| said["executable"].as_str().map(PathBuf::from))
}

/// What a measuring program printed.
pub(crate) struct Figures(Vec<Figure>);

#[derive(Deserialize)]
struct Figure {
    figure: String,
    /// `null` where it has no number.
    value: Option<f64>,
}

impl Figures {
    fn parse(text: &str) -> Result<Self> {
        let read = |line: &str| serde_json::from_str(line).with_context(|| format!("no figure: {line}"));
        text.lines().map(read).collect::<Result<_>>().map(Self)
    }

    /// A figure; not a number, which meets no bar, where the program had none.
    pub(crate) fn get(&self, name: &str) -> Result<f64> {
        let found = self.0.iter().find(|one| one.figure == name).with_context(|| format!("no figure {name}"))?;
        Ok(found.value.unwrap_or(f64::NAN))
    }
}

/// Runs a measuring program and reads what it printed.
pub(crate) async fn figures_of(program: &PathBuf, arguments: &[&str]) -> Result<Figures> {
    eprintln!("{} {} …", program.file_name().unwrap_or_default().display(), arguments.join(" "));
    let mut command = Command::new(program);
    command.args(arguments).process_group(0).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped());
    let process = command.spawn().with_context(|| format!("{} did not start", program.display()))?;
    let watchdog = Watchdog::over(process.id().context("it has just been started")?);
    let output = process.wait_with_output().await?;
    drop(watchdog);
    ensure!(output.status.success(), "{} failed: {}", program.display(), output.status);
    Figures::parse(&String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_by_name_and_null_meets_no_bar() {
        let figures =
            Figures::parse("{\"figure\":\"bytes\",\"value\":241.5}\n{\"figure\":\"wait\",\"value\":null}\n").unwrap();
        assert_eq!(figures.get("bytes").unwrap(), 241.5);
        assert!(!Bar::AtMost(92.0).is_met(figures.get("wait").unwrap()));
        assert!(figures.get("other").is_err());
        assert!(Figures::parse("thread panicked").is_err());
    }

    #[test]
    fn a_program_is_found_among_what_cargo_built() {
        let lines = r#"{"reason":"compiler-artifact","target":{"name":"queue_core"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"dispatcher_speed"},"executable":"/t/release/deps/dispatcher_speed-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(artifact(lines, "dispatcher_speed"), Some("/t/release/deps/dispatcher_speed-1".into()));
        assert_eq!(artifact(lines, "queue_core"), None);
    }
}
