//! `longshore serve`: one role in this process, any number of processes of each, on stores that they share. They come
//! up in any order: the API accepts jobs that nobody runs yet, a worker waits until a scheduler has begun the
//! dispatcher's life.

use std::time::Duration;

use serde_json::json;

use crate::{
    certificate,
    config::{Config, Journal},
    failure::{Failure, Outcome},
    logs,
    output::{self, Output},
    process::{self, Process, Signals},
    stores::Opening,
};

/// How long an API goes on while balancers learn that it leaves: they ask every second or two, and Kubernetes needs as long to tell
/// every node.
const STOP_WAIT_DEFAULT: Duration = Duration::from_secs(5);

/// A part of the product that can run by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    /// The HTTP API
    Api,
    /// Runs jobs
    Worker,
    /// Reaps, reconciles, promotes
    Scheduler,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
            Self::Scheduler => "scheduler",
        }
    }
}

/// Runs one role until a signal comes or it breaks.
pub(crate) async fn run(role: Role, config: Config, out: Output) -> Outcome {
    let levels = logs::install(&config);
    refuse_stores_of_one_process(role, &config)?;
    let certificate = if role == Role::Api { certificate::Reader::of(&config)? } else { None };
    let signals = Signals::listen()?;
    let mut process = Process::open(config, Opening::Serve { is_worker: role == Role::Worker }).await?;
    process.obey_log_levels(levels);
    // A scheduler signs webhooks with secrets that the master key opens.
    process.use_master_keys(process.config.master_keys.clone());

    let address = if role == Role::Api { &process.config.listen } else { &process.config.metrics_listen };
    let listener = process::listen(address).await?;
    let mut url = process::url_of("http", listener.local_addr()?);
    match role {
        Role::Api => {
            if let Some(key) = process::given_key(&process.config)? {
                process.add_admin_key(&key).await?;
            }
            process.want_admin_key(&listener).await?;
            process.use_tokens(process.config.signing_keys.clone())?;
            process.use_certificate(certificate);
            url = process.url_of_api(&listener)?;
            process.start_api(listener, false);
        }
        Role::Worker => {
            let session = process.start_worker();
            process.start_monitor(listener, Some(session));
        }
        Role::Scheduler => {
            process.use_backups()?;
            process.start_patient_clockwork();
            process.start_monitor(listener, None);
        }
    }
    announce(role, &url, out);
    let wait = match role {
        Role::Api => process.config.stop_wait.unwrap_or(STOP_WAIT_DEFAULT),
        // Nobody sends requests there.
        Role::Worker | Role::Scheduler => Duration::ZERO,
    };
    process.until_the_end(signals, wait).await
}

/// What is in this process or in a file of this machine, no other process can share.
fn refuse_stores_of_one_process(role: Role, config: &Config) -> Result<(), Failure> {
    let journal = match config.journal {
        Journal::Sqlite(_) => "LONGSHORE_JOURNAL=postgres://… (it is a SQLite file)",
        Journal::Postgres(_) => "",
    };
    let dispatcher = if config.dispatcher.is_shared() {
        ""
    } else {
        "LONGSHORE_DISPATCHER=redis://… (it is memory of one process)"
    };
    let missing: Vec<_> = [journal, dispatcher].into_iter().filter(|what| !what.is_empty()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "`serve {}` works on stores that processes share: set {}, or use `longshore up`",
        role.name(),
        missing.join(" and ")
    )))
}

/// Says on stdout where this process listens.
fn announce(role: Role, url: &str, out: Output) {
    let (name, version) = (role.name(), env!("CARGO_PKG_VERSION"));
    if out.json {
        return out.value_line(&json!({"role": name, "url": url, "version": version, "pid": std::process::id()}));
    }
    let what = if role == Role::Api { "listens" } else { "shows metrics and health" };
    output::line(&format!("longshore {version} {name} {what} on {url}"));
}
