//! One process of the product: what every role is made of, the roles that run in it, and how they end. `up` starts all
//! three, `serve` one.

mod end;
mod ready;
pub(crate) mod vitals;
mod watchdog;
mod watched;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusHandle;
use queue_core::{
    budget::Known,
    credentials::{Credentials, HOLDS_EVERYWHERE},
    egress::Egress,
    ids::SessionId,
    journal::Role,
    keys::Secret,
    ledger::PriceBook,
    limiter::{InForce, Limiter},
    progress::Pulse,
    request_limits::RequestLimits,
    route::Routes,
    stores::Stores,
};
use secrecy::ExposeSecret;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use worker::{
    End,
    admission::Gate,
    caches::Caches,
    provider::Providers,
    purse::{Purse, UnknownPrice},
};

pub(crate) use end::Signals;

use crate::{
    backups, certificate,
    config::{Budgets, Config, KeySource, MasterKeySource},
    failure::{Failure, Outcome},
    issuer_keys::Fetcher,
    logs::Levels,
    master_keys, metrics, providers,
    stores::{self, Opening, cannot_start},
    tenants, tokens,
    traces::Export,
};

/// The parts that roles share, and the roles that run.
pub(crate) struct Process {
    pub(crate) config: Config,
    pub(crate) stores: Stores,
    providers: Arc<Providers>,
    routes: Arc<Routes>,
    prices: Arc<PriceBook>,
    limiter: Arc<dyn Limiter>,
    limits: Arc<InForce>,
    request_limits: Arc<dyn RequestLimits>,
    caches: Arc<Caches>,
    /// Tenants' own provider keys, still sealed.
    pub(crate) credentials: Arc<Credentials>,
    /// The certificate of the API.
    tls: Option<Arc<api::Tls>>,
    /// Whose tokens are believed.
    tokens: Arc<api::Tokens>,
    /// The way to URLs that users name.
    egress: Egress,
    /// How backups are made, where this process makes them.
    backups: Option<scheduler::Backups>,
    metrics: PrometheusHandle,
    /// Whether this process still works: the pulses of its loops.
    loops: Vec<Arc<Pulse>>,
    /// One of them.
    event_loop: Arc<Pulse>,
    traces: Option<Export>,
    roles: JoinSet<Result<(), Failure>>,
    /// Fires first: clients are sent elsewhere.
    leaving: CancellationToken,
    shutdown: CancellationToken,
    /// Apart from the other roles, because it stops after them.
    clockwork: JoinSet<()>,
    clockwork_end: CancellationToken,
}

impl Process {
    /// Opens everything that the configuration names. Nothing runs yet.
    pub(crate) async fn open(config: Config, opening: Opening) -> Result<Self, Failure> {
        let metrics = metrics::install()?;
        let traces = config.traces.as_ref().map(Export::start).transpose()?;
        let stores = stores::open(&config, opening).await?;
        tenants::keep(&config, &stores).await?;
        let credentials = Credentials::of(stores.vault.clone());
        credentials.refresh().await.map_err(cannot_start("the journal"))?;
        let shutdown = CancellationToken::new();
        let event_loop = Pulse::of_event_loop();
        let mut process = Self {
            credentials: Arc::new(credentials),
            tls: None,
            tokens: Arc::default(),
            providers: Arc::new(providers::build(&config.providers)?),
            routes: Arc::new(providers::routes(&config)),
            prices: Arc::new(config.prices.clone()),
            limiter: stores::open_limiter(&config.dispatcher, &stores.clock)?,
            limits: Arc::new(InForce::new(providers::limits(&config), providers::concurrency(&config))),
            request_limits: stores::open_request_limits(&config.dispatcher, &stores.clock)?,
            caches: Arc::new(stores::open_caches(&config.cache, &stores.clock)?),
            egress: Egress::new(config.outbound.clone()),
            backups: None,
            loops: vec![event_loop.clone()],
            event_loop,
            roles: JoinSet::new(),
            // Whoever shuts down leaves, too.
            leaving: shutdown.child_token(),
            shutdown,
            clockwork: JoinSet::new(),
            clockwork_end: CancellationToken::new(),
            config,
            stores,
            metrics,
            traces,
        };
        process.watch_itself();
        Ok(process)
    }

    /// Tells the metrics what this process itself uses, until it ends.
    fn watch_itself(&mut self) {
        let end = self.clockwork_end.clone();
        self.clockwork.spawn(async move {
            end.run_until_cancelled(vitals::keep()).await;
        });
    }

    /// Reads the master keys of tenants' own provider keys, and keeps what is known of both fresh. Where they are missing or
    /// wrong, all other work goes on, and `/health` says what cannot be read.
    pub(crate) fn use_master_keys(&mut self, source: MasterKeySource) {
        let credentials = self.credentials.clone();
        let mut reader = master_keys::Reader::new(source);
        reader.tell(&credentials);
        if let Err(trouble) = credentials.report().check() {
            tracing::error!(%trouble, "jobs of these tenants wait until their keys can be read");
        }
        let end = self.clockwork_end.clone();
        // With the clockwork: jobs that drain still need their keys.
        self.clockwork.spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = credentials.keep_fresh() => {}
                () = reader.keep(&credentials) => {}
            }
        });
    }

    /// Reads what tokens are signed with and whose are believed, and keeps that fresh.
    pub(crate) fn use_tokens(&mut self, signing: KeySource) -> Result<(), Failure> {
        let reader = tokens::Reader::start(signing, &self.config.issuers, self.tokens.clone())?;
        let end = self.clockwork_end.clone();
        self.clockwork.spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = reader.keep() => {}
            }
        });
        if let Some(fetcher) = Fetcher::new(&self.config.issuers, self.tokens.clone()).map_err(Failure::usage)? {
            let end = self.clockwork_end.clone();
            self.clockwork.spawn(async move {
                end.run_until_cancelled(fetcher.keep()).await;
            });
        }
        Ok(())
    }

    /// Logs what operators order.
    pub(crate) fn obey_log_levels(&mut self, levels: &'static Levels) {
        let (stores, end) = (self.stores.clone(), self.clockwork_end.clone());
        self.clockwork.spawn(async move {
            end.run_until_cancelled(levels.obey(&stores)).await;
        });
    }

    /// Makes backups, where they are configured.
    pub(crate) fn use_backups(&mut self) -> Result<(), Failure> {
        self.backups = backups::clockwork(&self.config)?;
        Ok(())
    }

    /// Shows this certificate, if there is one, and keeps it fresh.
    pub(crate) fn use_certificate(&mut self, reader: Option<certificate::Reader>) {
        let Some(reader) = reader else { return };
        self.tls = Some(reader.tls());
        let end = self.clockwork_end.clone();
        self.clockwork.spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = reader.keep() => {}
            }
        });
    }

    /// The URL under which this machine reaches the API on `listener`.
    pub(crate) fn url_of_api(&self, listener: &TcpListener) -> Result<String, Failure> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(url_of(scheme, listener.local_addr()?))
    }

    /// Creates this admin key where there is none with its id; one that was revoked stays so.
    pub(crate) async fn add_admin_key(&self, key: &Secret) -> Result<(), Failure> {
        let row = key.to_row("default".into(), Role::Admin, "admin", self.stores.clock.now());
        self.stores.identity.add_key(row).await.map_err(cannot_start("the journal"))
    }

    /// An API that others can reach wants an admin key that can be used.
    pub(crate) async fn want_admin_key(&self, listener: &TcpListener) -> Result<(), Failure> {
        let (identity, now) = (&self.stores.identity, self.stores.clock.now());
        let keys = identity.count_keys(Role::Admin, now).await.map_err(cannot_start("the journal"))?;
        let address = listener.local_addr()?;
        match (keys, address.ip().is_loopback()) {
            (0, false) => Err(Failure::usage(format!(
                "{address} can be reached from elsewhere and there is no admin key that can be used: set \
                 LONGSHORE_ADMIN_KEY (or admin_key_file) to a new one, or listen on 127.0.0.1"
            ))),
            (0, true) => {
                tracing::warn!("there is no admin key, so nobody can use this API: set LONGSHORE_ADMIN_KEY");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The HTTP API. `probe_jobs` counts where the configuration does not say whether they are allowed.
    pub(crate) fn start_api(&mut self, listener: TcpListener, probe_jobs: bool) {
        let api = api::Api { pages: self.pages(), ..self.api(probe_jobs) };
        let serving = api::serve(listener, api, self.shutdown.clone());
        self.roles.spawn(async move {
            serving.await;
            Ok(())
        });
    }

    /// The dashboard, unless it was turned off.
    fn pages(&self) -> Option<api::Pages> {
        let settings = self.config.dashboard.clone()?;
        Some(Arc::new(move |beside: api::Beside| {
            let api::Beside { router, carry, stopping } = beside;
            dashboard::mount(dashboard::Inner { router, carry, stopping }, settings.clone())
        }))
    }

    /// What the API works with, and whoever submits as it does.
    fn api(&self, probe_jobs: bool) -> api::Api {
        let probe_jobs = self.config.probe_jobs.unwrap_or(probe_jobs);
        let policy_settles = if self.config.dispatcher.is_shared() { HOLDS_EVERYWHERE } else { Duration::ZERO };
        api::Api {
            stores: self.stores.clone(),
            routes: self.routes.clone(),
            prices: self.prices.clone(),
            limiter: self.limiter.clone(),
            limits: self.limits.clone(),
            request_limits: self.request_limits.clone(),
            credentials: self.credentials.clone(),
            tokens: self.tokens.clone(),
            tls: self.tls.clone(),
            budgets: Arc::new(Known::new(self.stores.budgets.clone(), self.config.budgets.each_tenant.clone())),
            refuse_unpriced: self.config.budgets.unknown_price == UnknownPrice::Refuse,
            checks: providers::checks(&self.providers),
            metrics: self.metrics.clone(),
            loops: self.loops.clone(),
            leaving: self.leaving.clone(),
            pages: None,
            settings: api::Settings {
                probe_jobs,
                probe_faults: self.config.probe_faults,
                cors_origins: self.config.cors_origins.clone(),
                policy_settles,
                request_limits: self.config.request_limits.clone(),
                outbound: self.config.outbound.clone(),
                backups: self.config.backup.is_some(),
                retention: self.config.retention.clone(),
                window: self.config.upkeep.window.clone(),
                announces_window: self.config.upkeep.is_named,
                upkeep: self.config.upkeep.thresholds,
                ..api::Settings::default()
            },
        }
    }

    /// Runs jobs. Returns the session under which it will join the dispatcher.
    pub(crate) fn start_worker(&mut self) -> SessionId {
        if let Err(error) = watchdog::start(&self.event_loop) {
            tracing::warn!(%error, "nobody watches the event loop: no thread");
        }
        let told = &self.config.worker;
        let config = worker::Config {
            slots: told.slots,
            queues: told.queues.clone(),
            kinds: told.kinds.clone(),
            timeouts: told.timeouts.clone(),
            drain: told.drain,
            host: host(),
        };
        let around = worker::context::Surroundings {
            egress: self.egress.clone(),
            stores: self.stores.clone(),
            providers: self.providers.clone(),
            routes: self.routes.clone(),
            prices: self.prices.clone(),
            purse: Arc::new(self.purse()),
            gate: Arc::new(Gate::new(&self.stores, self.limiter.clone(), self.limits.clone())),
            caches: self.caches.clone(),
            coalescer: Arc::new(providers::coalescer(&self.config.providers)),
            credentials: self.credentials.clone(),
        };
        let worker = worker::Worker::new(config, around);
        let session = worker.session();
        self.loops.push(worker.pulse());
        let running = worker.run(self.shutdown.clone());
        self.roles.spawn(async move {
            match running.await {
                Ok(End::Told) => Ok(()),
                Ok(End::Recycle(stuck)) => Err(recycled(stuck)),
                Err(error) => Err(Failure::error(format!("the worker stopped: {error}"))),
            }
        });
        session
    }

    /// The money of this process' calls.
    fn purse(&self) -> Purse {
        let Budgets { unknown_price, each_tenant } = &self.config.budgets;
        let known = Known::new(self.stores.budgets.clone(), each_tenant.clone());
        Purse::new(self.stores.clone(), Arc::new(known), self.prices.clone(), *unknown_price)
    }

    /// What the clockwork is told. `probe_jobs` counts where the configuration does not say, as for the API.
    pub(crate) fn clockwork(&self, probe_jobs: bool) -> scheduler::Config {
        scheduler::Config {
            alone: !self.config.dispatcher.is_shared(),
            target_concurrency: providers::concurrency(&self.config),
            each_tenant: self.config.budgets.each_tenant.clone(),
            outbound: Some(scheduler::Outbound { egress: self.egress.clone(), credentials: self.credentials.clone() }),
            backups: self.backups.clone(),
            retention: self.config.retention.clone(),
            window: self.config.upkeep.window.clone(),
            upkeep: self.config.upkeep.thresholds,
            watched: watched::watched(&self.config),
            submits: Some(Arc::new(api::Clerk::new(self.api(probe_jobs)))),
        }
    }

    /// The clockwork, whose life [`scheduler::prepare`] has begun.
    pub(crate) fn start_clockwork(&mut self, config: scheduler::Config, prepared: scheduler::Prepared) {
        let work = scheduler::run(self.stores.clone(), config, prepared, self.clockwork_end.clone());
        self.spawn_clockwork(work);
    }

    /// The clockwork, which begins its life as soon as the stores let it.
    pub(crate) fn start_patient_clockwork(&mut self) {
        // Beside an API the server does it: one that submits counts among those who share the limits.
        let (limits, shutdown) = (self.request_limits.clone(), self.shutdown.clone());
        tokio::spawn(async move { shutdown.run_until_cancelled(limits.attend()).await });
        let work = scheduler::prepare_and_run(self.stores.clone(), self.clockwork(false), self.clockwork_end.clone());
        self.spawn_clockwork(work);
    }

    fn spawn_clockwork(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.clockwork.spawn(async move {
            // A clockwork that ends early, even by a panic, ends the process: whoever watches it starts it anew.
            let _end = shutdown.drop_guard();
            work.await;
        });
    }

    /// The small listener of a role without the API: metrics and probes.
    pub(crate) fn start_monitor(&mut self, listener: TcpListener, session: Option<SessionId>) {
        let monitor = api::Monitor {
            metrics: self.metrics.clone(),
            needs: ready::needs(&self.stores, session),
            loops: self.loops.clone(),
        };
        let serving = api::serve_monitor(listener, monitor, self.shutdown.clone());
        self.roles.spawn(async move {
            serving.await;
            Ok(())
        });
    }

    /// Runs until a signal comes or a role breaks, and every role has ended. An API goes on for `wait` after it has begun to send its
    /// clients elsewhere.
    pub(crate) async fn until_the_end(mut self, mut signals: Signals, wait: Duration) -> Outcome {
        let end = end::End { leaving: &self.leaving, shutdown: &self.shutdown, wait };
        let outcome = end::wait(&mut self.roles, &mut signals, end).await;
        // Leases of a worker that drains are still renewed and reaped: the clockwork stops last.
        self.clockwork_end.cancel();
        let mut clockwork = Ok(());
        while let Some(ended) = self.clockwork.join_next().await {
            clockwork = clockwork.and(ended.map_err(cannot_start("the clockwork")));
        }
        // Behind everybody who makes spans.
        if let Some(export) = self.traces {
            export.finish().await;
        }
        clockwork.and(outcome)
    }
}

/// Why a worker ended itself.
fn recycled(stuck: worker::Stuck) -> Failure {
    let worker::Stuck { job, kind, ran } = stuck;
    Failure::recycle(format!(
        "the handler of job {job} ({}) did not end when it was stopped, {:.1} s after its start: it holds a thread up, and this \
         process has to be started again",
        kind.as_str(),
        ran.as_secs_f64()
    ))
}

/// The admin key that the configuration gives.
pub(crate) fn given_key(config: &Config) -> Result<Option<Secret>, Failure> {
    let given = config.admin_key.as_ref();
    given.map(|key| parse_key(key.expose_secret(), "LONGSHORE_ADMIN_KEY")).transpose()
}

/// An admin key from its text. `whence` stands in the error, the text does not.
pub(crate) fn parse_key(text: &str, whence: &str) -> Result<Secret, Failure> {
    Secret::parse(text).map_err(|reason| Failure::usage(format!("{whence}: {reason}")))
}

/// Listens on `host:port`.
pub(crate) async fn listen(address: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| Failure::error(format!("cannot listen on {address}: {error}")))
}

/// The URL under which this machine reaches a listener.
pub(crate) fn url_of(scheme: &str, address: SocketAddr) -> String {
    match (address.ip().is_unspecified(), address) {
        (false, address) => format!("{scheme}://{address}"),
        (true, address) => format!("{scheme}://127.0.0.1:{}", address.port()),
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
        assert_eq!(url_of("http", "0.0.0.0:81".parse().unwrap()), "http://127.0.0.1:81");
        assert_eq!(url_of("https", "[::1]:81".parse().unwrap()), "https://[::1]:81");
    }
}
