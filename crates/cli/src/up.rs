//! `longshore up`: everything in one process. This file is the whole assembly: what is opened, in which order, who
//! gets what, and how it ends.

use std::{net::SocketAddr, sync::Arc};

use queue_core::{ids::Name, journal::Role, keys::Secret, stores::Stores};
use secrecy::ExposeSecret;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::Access,
    config::{Config, Dispatcher},
    data::{self, DataFolder},
    failure::{Exit, Failure, Outcome},
    greeting::{AdminKey, Greeting},
    logs, metrics,
    output::Output,
    providers,
    stores::{self, cannot_start},
    tenants,
};

/// What a second signal makes of the process: at once, as the shell counts an interrupt.
const EXIT_IMPATIENT: i32 = 130;

/// Runs everything until a signal comes or a role breaks.
pub(crate) async fn run(config: Config, access: &Access, out: Output) -> Outcome {
    logs::install(&config);
    let mut signals = Signals::listen()?;
    let mut folder = DataFolder::take(&config.data)?;
    let metrics = metrics::install()?;

    let stores = stores::open(&config, folder.file("leases")).await?;
    let admin_key = ensure_admin_key(&config, &folder, &stores).await?;
    tenants::keep(&config, &stores).await?;
    let providers = Arc::new(providers::build(&config.providers)?);
    let routes = Arc::new(providers::routes(&config));
    let prices = Arc::new(config.prices.clone());

    // Before anyone claims: a new generation, the operators' settings, the jobs that died with the last process.
    let clockwork = scheduler::Config {
        alone: matches!(config.dispatcher, Dispatcher::Memory),
        target_concurrency: providers::concurrency(&config),
    };
    let prepared = scheduler::prepare(&stores, &clockwork).await.map_err(cannot_start("the dispatcher"))?;

    let listener = TcpListener::bind(&config.listen)
        .await
        .map_err(|error| Failure::error(format!("cannot listen on {}: {error}", config.listen)))?;
    let url = url_of(listener.local_addr()?);

    let api = api::Api {
        stores: stores.clone(),
        routes: routes.clone(),
        prices: prices.clone(),
        checks: providers::checks(&providers),
        metrics,
        settings: api::Settings { probe_jobs: config.probe_jobs.unwrap_or(true), ..api::Settings::default() },
    };
    let worker = worker::Worker::new(
        worker::Config {
            slots: config.worker.slots,
            queues: config.worker.queues.clone(),
            timeouts: config.worker.timeouts.clone(),
            drain: config.worker.drain,
            host: host(),
        },
        worker::context::Surroundings { stores: stores.clone(), providers, routes, prices },
    );

    let shutdown = CancellationToken::new();
    let clockwork_end = CancellationToken::new();
    let mut roles = JoinSet::new();
    let serving = api::serve(listener, api, shutdown.clone());
    roles.spawn(async move {
        serving.await;
        Ok(())
    });
    roles.spawn(ended("the worker", worker.run(shutdown.clone())));
    let running_clockwork = tokio::spawn(scheduler::run(stores, clockwork, prepared, clockwork_end.clone()));

    folder.announce(Some(url.clone()))?;
    Greeting { config: &config, access, folder: &folder, url: &url, admin_key: &admin_key }.print(out);

    let outcome = wait_for_end(&mut roles, &mut signals, &shutdown).await;
    // Leases of a worker that drains are still renewed and reaped: the clockwork stops last.
    clockwork_end.cancel();
    running_clockwork.await.map_err(cannot_start("the clockwork"))?;
    outcome
}

/// Sees to it that there is an admin key: the one that was asked for, the one in the data folder, or a new one.
async fn ensure_admin_key(config: &Config, folder: &DataFolder, stores: &Stores) -> Result<AdminKey, Failure> {
    let (secret, found) = match (&config.admin_key, data::stored_key(folder.path())?) {
        (Some(key), _) => (parse_key(key.expose_secret(), "LONGSHORE_ADMIN_KEY")?, AdminKey::Given),
        (None, Some(key)) => (parse_key(&key, "the key in the data folder")?, AdminKey::Kept),
        (None, None) => {
            let secret = Secret::generate();
            // The file first: a crash in between leaves a key that the next start adds, not one that nobody knows.
            folder.keep_key(&secret.reveal())?;
            let key = secret.reveal();
            (secret, AdminKey::New(key))
        }
    };
    let row = secret.to_row(Name::from("default"), Role::Admin, "admin", stores.clock.now());
    stores.catalog.add_key(row).await.map_err(cannot_start("the journal"))?;
    Ok(found)
}

fn parse_key(text: &str, whence: &str) -> Result<Secret, Failure> {
    Secret::parse(text).map_err(|reason| Failure::usage(format!("{whence}: {reason}")))
}

/// Waits until every role has ended: after a signal, or because one of them broke, which stops the others.
async fn wait_for_end(
    roles: &mut JoinSet<Result<(), Failure>>,
    signals: &mut Signals,
    shutdown: &CancellationToken,
) -> Outcome {
    let mut outcome = Ok(Exit::Ok);
    loop {
        tokio::select! {
            () = signals.next() => {
                if shutdown.is_cancelled() {
                    tracing::warn!("second signal: leaving at once; running jobs come back when their leases end");
                    std::process::exit(EXIT_IMPATIENT);
                }
                tracing::info!("stopping: no more claims, running jobs may finish; a second signal leaves at once");
                shutdown.cancel();
            }
            role = roles.join_next() => match role {
                None => return outcome,
                Some(Ok(Ok(()))) => shutdown.cancel(),
                Some(Ok(Err(failure))) => {
                    shutdown.cancel();
                    outcome = Err(failure);
                }
                Some(Err(error)) => {
                    shutdown.cancel();
                    outcome = Err(Failure::error(format!("a role ended badly: {error}")));
                }
            },
        }
    }
}

/// Names the role in its error.
async fn ended<E: std::fmt::Display>(role: &str, work: impl Future<Output = Result<(), E>>) -> Result<(), Failure> {
    work.await.map_err(|error| Failure::error(format!("{role} stopped: {error}")))
}

/// The two ways in which a process is asked to stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The address under which this machine reaches the API.
fn url_of(address: SocketAddr) -> String {
    match (address.ip().is_unspecified(), address) {
        (false, address) => format!("http://{address}"),
        (true, address) => format!("http://127.0.0.1:{}", address.port()),
    }
}

/// Host and process, for people who read the list of workers.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "localhost".to_owned());
    format!("{}:{}", name.trim(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_everyone_is_reached_at_home() {
        assert_eq!(url_of("0.0.0.0:81".parse().unwrap()), "http://127.0.0.1:81");
        assert_eq!(url_of("[::1]:81".parse().unwrap()), "http://[::1]:81");
    }
}
