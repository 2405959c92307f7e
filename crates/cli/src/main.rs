//! `longshore`: the one binary. `up` and `serve` run the product, the other verbs operate it over HTTP.
//!
//! Only this crate reads files and the environment: everything else is told.

mod backups;
mod certificate;
mod client;
mod commands;
mod config;
mod data;
#[cfg(test)]
mod documents;
mod environment;
mod failure;
mod greeting;
mod issuer_keys;
mod logs;
mod master_keys;
mod metrics;
mod output;
mod process;
mod profile;
mod providers;
mod rehearsal;
#[cfg(feature = "sabotage")]
mod sabotage;
mod serve;
mod sse;
mod stores;
mod tenants;
mod tokens;
mod traces;
mod up;

use std::{future::Future, io::Write, process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser};

use crate::{
    client::{Access, Client},
    commands::{
        Operator, audit, backup, bench, budget, cost, credential, dlq, doctor, job, key, limit, log_level, maintenance,
        migrate, op, price, queue, retention, schedule, smoke, target, tenant, webhook, worker,
    },
    config::Flags,
    environment::Environment,
    failure::{Exit, Failure, Outcome},
    output::Output,
};

/// Jobs are many small allocations made on one thread and freed on another: the system's allocator spends a fifth of a
/// busy worker's time on them (see ARCHITECTURE.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Printed below the help of the whole program.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  error: the server is away, a job that was waited for did not succeed, I/O
  2  usage: flags, configuration, or a request with wrong fields (HTTP 400, 413, 422)
  3  not found (HTTP 404)
  4  partial: some of it was done
  5  refused: no right to it, or the state does not allow it (HTTP 401, 403, 409)
 75  start it again: `up` or `serve worker` ended itself, because a job's handler holds a thread up

First steps:
  longshore up
  longshore job submit --prompt \"Say hello\" --wait";

/// A durable job queue and worker runtime for LLM work.
#[derive(Debug, Parser)]
#[command(name = "longshore", version, after_help = EXIT_CODES, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    access: Access,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Run everything in one process: API, worker and scheduler, on SQLite and memory unless told otherwise
    Up(Flags),
    /// Run one role in this process, beside any number of others, on Postgres and Redis
    Serve {
        /// Which
        role: serve::Role,
        #[command(flatten)]
        flags: Flags,
    },
    /// Bring the journal's schema up to date; on a terminal it asks before it changes one that is in use
    Migrate {
        /// Only print what would be run
        #[arg(long)]
        dry_run: bool,
        /// Do not ask; without a terminal nobody is asked anyway
        #[arg(long, short)]
        yes: bool,
        /// Make no backup before it, where backups are configured
        #[arg(long)]
        no_backup: bool,
        #[command(flatten)]
        flags: Flags,
    },
    /// Check configuration, data folder, journal, server and providers, and say what to do
    Doctor(Flags),
    /// Submit, show, watch and cancel jobs
    #[command(subcommand)]
    Job(job::Verb),
    /// Show, pause and resume queues
    #[command(subcommand)]
    Queue(queue::Verb),
    /// Make, show, pause, change and delete schedules: jobs that are submitted by the clock
    #[command(subcommand)]
    Schedule(schedule::Verb),
    /// Show who may be called, pause and resume targets, hold their breakers
    #[command(subcommand)]
    Target(target::Verb),
    /// Show what tenants use, pause and resume them
    #[command(subcommand)]
    Tenant(tenant::Verb),
    /// Make, list, rotate and revoke the keys with which this API is called
    #[command(subcommand)]
    Key(key::Verb),
    /// Set and delete the provider keys of tenants, and look after the master keys that they are kept with
    #[command(subcommand)]
    Credential(credential::Verb),
    /// Say who is told of what by webhooks, show what was delivered, and send it again
    #[command(subcommand)]
    Webhook(webhook::Verb),
    /// Show what was done by whom, and check that nobody has changed the log since
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Show and set what tenants, keys and the installation may spend
    #[command(subcommand)]
    Budget(budget::Verb),
    /// Show dead letters and give them another life
    #[command(subcommand)]
    Dlq(dlq::Verb),
    /// Show, wait for and end operations on many jobs
    #[command(subcommand)]
    Op(op::Verb),
    /// Show what was spent
    #[command(subcommand)]
    Cost(cost::Verb),
    /// Show, check and import what models cost
    #[command(subcommand)]
    Price(price::Verb),
    /// Make, list, check, restore and prune backups
    #[command(subcommand)]
    Backup(backup::Verb),
    /// Try whether a backup brings everything back
    #[command(subcommand)]
    Drill(backup::DrillVerb),
    /// Take and begin no jobs while something below is worked on
    #[command(subcommand)]
    Maintenance(maintenance::Verb),
    /// Show and set what every process logs
    #[command(subcommand)]
    LogLevel(log_level::Verb),
    /// Show how long what is kept, and take away what is old
    #[command(subcommand)]
    Retention(retention::Verb),
    /// Show worker processes, and let them drain
    #[command(subcommand)]
    Worker(worker::Verb),
    /// Show what targets may take, and how they stand
    #[command(subcommand)]
    Limit(limit::Verb),
    /// Print the completions of a shell, e.g. `longshore completions bash > /etc/bash_completion.d/longshore`
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
    /// Try an installation: is it ready, does a job run, does it count
    Smoke(smoke::Args),
    /// Submit and drain probe jobs on a running installation and print rates and latencies
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let out = Output { json: cli.access.json };
    match run(cli, out) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let text = if out.json { failure.to_json().to_string() } else { format!("error: {failure}") };
            output::note(&text);
            failure.exit.into()
        }
    }
}

fn run(cli: Cli, out: Output) -> Outcome {
    let env = Environment::of_process();
    let access = cli.access;
    let load = |flags: &Flags| config::Config::load(flags, access.data.as_deref(), &env);
    let operator = || -> Result<Operator, Failure> { Ok(Operator { client: Client::find(&access, &env)?, out }) };
    match cli.verb {
        Verb::Up(flags) => on_all_cores(up::run(load(&flags)?, &access, out)),
        Verb::Serve { role, flags } => on_all_cores(serve::run(role, load(&flags)?, out)),
        Verb::Migrate { dry_run, yes, no_backup, flags } => {
            let apply = migrate::Mode::Apply { ask: !yes, backup: !no_backup };
            let mode = if dry_run { migrate::Mode::DryRun } else { apply };
            on_all_cores(migrate::run(&load(&flags)?, mode, out))
        }
        Verb::Doctor(flags) => on_one_core(doctor::run(load(&flags), &access, &env, out)),
        Verb::Job(verb) => on_one_core(job::run(&operator()?, verb)),
        Verb::Queue(verb) => on_one_core(queue::run(&operator()?, verb)),
        Verb::Schedule(verb) => on_one_core(schedule::run(&operator()?, verb)),
        Verb::Target(verb) => on_one_core(target::run(&operator()?, verb)),
        Verb::Tenant(verb) => on_one_core(tenant::run(&operator()?, verb)),
        Verb::Key(key::Verb::SigningKey(args)) => key::signing_key(&args, out),
        Verb::Key(verb) => on_one_core(key::run(&operator()?, verb)),
        Verb::Credential(credential::Verb::MasterKey(args)) => credential::master_key(&args, out),
        Verb::Credential(verb) => on_one_core(credential::run(&operator()?, &env, verb)),
        Verb::Budget(verb) => on_one_core(budget::run(&operator()?, verb)),
        Verb::Audit(verb) => on_one_core(audit::run(&operator()?, verb)),
        Verb::Webhook(verb) => on_one_core(webhook::run(&operator()?, verb)),
        Verb::Dlq(verb) => on_one_core(dlq::run(&operator()?, verb)),
        Verb::Op(verb) => on_one_core(op::run(&operator()?, verb)),
        Verb::Cost(verb) => on_one_core(cost::run(&operator()?, verb)),
        Verb::Price(verb) => prices(verb, out, load, || Client::find(&access, &env)),
        Verb::Backup(verb) => on_all_cores(backup::run(verb, out, load, operator)),
        Verb::Drill(verb) => on_all_cores(backup::run_drill(verb, out, load)),
        Verb::Maintenance(verb) => on_one_core(maintenance::run(&operator()?, verb)),
        Verb::LogLevel(verb) => on_one_core(log_level::run(&operator()?, verb)),
        Verb::Retention(verb) => on_one_core(retention::run(&operator()?, verb)),
        Verb::Worker(verb) => on_one_core(worker::run(&operator()?, verb)),
        Verb::Limit(verb) => on_one_core(limit::run(&operator()?, verb)),
        Verb::Completions { shell } => completions(shell),
        Verb::Smoke(args) => {
            let access = Access { url: args.target.clone().or(access.url), ..access };
            on_one_core(smoke::run(&Operator { client: Client::find(&access, &env)?, out }, &args))
        }
        Verb::Bench(args) => on_all_cores(bench::run(&operator()?, &args, access.data_folder(&env))),
    }
}

fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "longshore", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Exit::Ok)
}

/// Prices are those of this configuration; only their check asks a server.
fn prices(
    verb: price::Verb,
    out: Output,
    load: impl Fn(&Flags) -> Result<config::Config, Failure>,
    client: impl Fn() -> Result<Client, Failure>,
) -> Outcome {
    let load = |source: price::Source| load(&Flags { config: source.config, ..Flags::default() });
    match verb {
        price::Verb::List { matching, source } => price::list(&load(source)?, matching.as_deref(), out),
        price::Verb::Check { source } => on_one_core(price::check(&load(source)?, &client()?, out)),
        price::Verb::Import(import) => price::import(&import, out),
    }
}

/// For a command that waits for one answer at a time.
fn on_one_core(work: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// For roles: at least two threads, so that one long computation does not stop the clockwork of the others.
fn on_all_cores(work: impl Future<Output = Outcome>) -> Outcome {
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_timeout(REST_MAX);
    outcome
}

/// Longest wait for tasks and threads when everything is done: a handler that does not yield would never let the process end.
const REST_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_shell_gets_completions_of_every_verb() {
        for shell in <clap_complete::Shell as clap::ValueEnum>::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "longshore", &mut script);
            let script = String::from_utf8_lossy(&script);
            for verb in Cli::command().get_subcommands() {
                assert!(script.contains(verb.get_name()), "{shell}: {}", verb.get_name());
            }
        }
    }
}
