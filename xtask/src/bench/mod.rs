//! `cargo xtask bench`: lets `longshore bench` measure a release build on throw-away stores, sets the figures beside the
//! bars, and profiles every process meanwhile.

pub(crate) mod installation;
mod profile;

use std::{path::Path, process::Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin},
    signal::unix::{SignalKind, signal},
};

use self::{
    installation::{Installation, Stores, release_binary},
    profile::{Profiler, Step},
};
use crate::{
    bar::{self, Bar, Judged},
    run as run_command,
    table::{self, figure},
};

/// Jobs of the sleeping workload, and slots for all of them at once.
const SLEEPING_JOBS: &str = "10000";

/// What is measured, and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Jobs of the submit and drain workloads.
    #[arg(long, default_value_t = 100_000)]
    jobs: u64,
    /// What jobs are kept in.
    #[arg(long, value_enum, default_value = "embedded")]
    stores: Stores,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

/// What one `longshore bench` printed, and what was seen meanwhile.
struct Measured {
    report: Value,
    steps: Vec<Step>,
    /// The shared stores, and whether Postgres counts its statements.
    stores: Option<(String, bool)>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    run_command("cargo", &["build", "--release", "--locked"])?;
    let binary = release_binary()?;
    until_told(async {
        let jobs = arguments.jobs.to_string();
        let load = ["--jobs", &jobs, "latency", "submit", "drain", "single"];
        // The sleeping jobs in a process of their own, so that its memory is theirs.
        let sleep = ["--jobs", SLEEPING_JOBS, "sleep"];
        let runs =
            [measure(&binary, arguments.stores, &load).await?, measure(&binary, arguments.stores, &sleep).await?];
        let judged = if arguments.stores == Stores::Shared { judge(&runs) } else { vec![] };
        let steps: Vec<Step> = runs.iter().flat_map(|run| run.steps.clone()).collect();
        if arguments.json {
            let reports: Vec<&Value> = runs.iter().map(|run| &run.report).collect();
            let stores = runs[0].stores.as_ref().map(|(stores, _)| stores);
            println!("{:#}", json!({"stores": stores, "reports": reports, "bars": judged, "profile": steps}));
            return Ok(());
        }
        print_figures(&runs);
        if !judged.is_empty() {
            bar::print("The bars of speed on shared stores (2 cores)", &judged);
        }
        profile::print(&steps, runs[0].stores.as_ref().map(|&(_, counts_statements)| counts_statements));
        Ok(())
    })
}

/// Does the work unless a signal ends it; everything that it started ends with it.
pub(crate) fn until_told<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            done = work => done,
            _ = interrupt.recv() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("terminated"),
        }
    })
}

/// Runs `longshore bench` against a `longshore up` on empty stores.
async fn measure(binary: &Path, stores: Stores, arguments: &[&str]) -> Result<Measured> {
    let installation = Installation::start(binary, stores, SLEEPING_JOBS).await?;
    let server = installation.pid()?;
    let mut command = installation.operator(binary);
    command.args(["bench", "--steps", "--pid", &server.to_string()]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut bench = command.spawn().context("`longshore bench` did not start")?;
    let shared = installation.shared.as_ref();
    let profiler =
        Profiler { shared, longshore: server, bench: bench.id().context("`longshore bench` has just been started")? };
    let (report, steps) = follow(&mut bench, &profiler).await?;
    Ok(Measured { report, steps, stores: shared.map(|shared| (shared.describe(), shared.counts_statements)) })
}

/// A mark of `longshore bench --steps`.
#[derive(Deserialize)]
struct Mark {
    mark: Edge,
    step: String,
    jobs: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Edge {
    Begin,
    End,
}

/// Answers each mark, and returns the report and what was seen between the marks.
async fn follow(bench: &mut Child, profiler: &Profiler<'_>) -> Result<(Value, Vec<Step>)> {
    let mut answers = bench.stdin.take().context("its input is piped")?;
    let mut marks = BufReader::new(bench.stderr.take().context("its errors are piped")?).lines();
    let mut stdout = bench.stdout.take().context("its output is piped")?;
    let report = tokio::spawn(async move {
        let mut text = String::new();
        stdout.read_to_string(&mut text).await.map(|_| text)
    });
    let (mut steps, mut begun, mut said) = (vec![], None, String::new());
    while let Some(line) = marks.next_line().await? {
        let Ok(mark) = serde_json::from_str::<Mark>(&line) else {
            said.push_str(&line);
            said.push('\n');
            continue;
        };
        match (mark.mark, begun.take()) {
            (Edge::Begin, _) => {
                eprintln!("{} of {} jobs …", mark.step, mark.jobs);
                begun = Some(profiler.begin()?);
            }
            (Edge::End, Some(began)) => steps.push(profiler.end(&began, &mark.step, mark.jobs)?),
            (Edge::End, None) => anyhow::bail!("the step {} ends and has not begun", mark.step),
        }
        go_on(&mut answers).await?;
    }
    let status = bench.wait().await?;
    ensure!(status.success(), "bench failed: {status}\n{said}");
    Ok((serde_json::from_str(&report.await??).context("the report cannot be read")?, steps))
}

async fn go_on(answers: &mut ChildStdin) -> Result<()> {
    answers.write_all(b"\n").await?;
    Ok(answers.flush().await?)
}

/// What the bars of issue 3 ("Speed") ask, for everything on 2 cores and every accept and settle fsynced: phase, member
/// of its row, what it is called, unit, bar.
const BARS: [(&str, &str, &str, &str, Bar); 5] = [
    ("submit", "jobs_per_second", "bulk submit over HTTP", "jobs/s", Bar::AtLeast(25_000.0)),
    ("single", "jobs_per_second", "single submit, 64 in flight", "jobs/s", Bar::AtLeast(8_000.0)),
    ("drain", "jobs_per_second", "drain", "jobs/s", Bar::AtLeast(25_000.0)),
    ("pick-up", "p50_ms", "pick-up, p50", "ms", Bar::AtMost(2.0)),
    ("pick-up", "p99_ms", "pick-up, p99", "ms", Bar::AtMost(10.0)),
];

/// Sets each figure beside its bar. One that is missing is not a number, which meets nothing.
fn judge(runs: &[Measured]) -> Vec<Judged> {
    let figure = |phase: &str, member: &str| {
        let row = rows(runs).find(|row| row["phase"] == phase);
        row.and_then(|row| row[member].as_f64()).unwrap_or(f64::NAN)
    };
    let judged = |&(phase, member, what, unit, bar): &(&str, &str, &str, &str, Bar)| Judged {
        what: what.to_owned(),
        figure: figure(phase, member),
        unit: unit.to_owned(),
        bar: Some(bar),
    };
    BARS.iter().map(judged).collect()
}

fn rows(runs: &[Measured]) -> impl Iterator<Item = &Value> {
    runs.iter().flat_map(|run| run.report["rows"].as_array().map(Vec::as_slice).unwrap_or_default())
}

/// The figures as `longshore bench` prints them.
fn print_figures(runs: &[Measured]) {
    let cells = |row: &Value| {
        let number = |name: &str| row[name].as_f64().map_or(String::new(), figure);
        let mut cells = vec![row["phase"].as_str().unwrap_or_default().to_owned()];
        cells.extend(["jobs", "failed"].map(|name| row[name].to_string()));
        cells.extend(["seconds", "jobs_per_second", "p50_ms", "p90_ms", "p99_ms", "max_ms"].map(number));
        cells
    };
    let headers = ["PHASE", ">JOBS", ">FAILED", ">SECONDS", ">JOBS/S", ">P50 ms", ">P90 ms", ">P99 ms", ">MAX ms"];
    table::print("Figures", &headers, rows(runs).map(cells).collect());
    for row in rows(runs) {
        println!("{:8} {}", row["phase"].as_str().unwrap_or_default(), row["what"].as_str().unwrap_or_default());
    }
    for run in runs {
        let peak = run.report["memory"]["peak_rss_bytes"].as_f64().unwrap_or(f64::NAN) / (1024.0 * 1024.0);
        let phases: Vec<_> = run.report["rows"].as_array().into_iter().flatten().map(|row| &row["phase"]).collect();
        let phases: Vec<_> = phases.into_iter().filter_map(Value::as_str).collect();
        if let Some((stores, _)) = &run.stores {
            println!("stores   {stores}");
        }
        println!("memory   longshore {peak:.0} MiB at most, in the process of {}", phases.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(rows: Value) -> Measured {
        Measured { report: json!({ "rows": rows }), steps: vec![], stores: None }
    }

    #[test]
    fn each_figure_stands_beside_its_bar_and_what_is_missing_meets_none() {
        let runs = [
            measured(json!([{"phase": "drain", "jobs_per_second": 25_001.0}, {"phase": "pick-up", "p50_ms": 2.4}])),
            measured(json!([{"phase": "sleep", "seconds": 1.1}])),
        ];
        let judged = judge(&runs);
        let met = |what: &str| {
            let one = judged.iter().find(|one| one.what == what).unwrap();
            one.bar.unwrap().is_met(one.figure)
        };
        assert!(met("drain") && !met("pick-up, p50") && !met("bulk submit over HTTP"));
    }
}
