//! What a process is told: `longshore.toml` < environment < flags, checked once, before anything is opened.

mod auth;
pub(crate) mod backup;
#[cfg(test)]
mod bad_input;
mod budgets;
#[cfg(test)]
mod deployed;
mod effective;
pub(crate) mod file;
mod pages;
mod providers;
mod request_limits;
mod retention;
mod stores;
#[cfg(test)]
mod tests;
mod tls;
mod traces;
mod upkeep;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use queue_core::{
    bodies::LARGE_BYTES,
    credentials::{CredentialPolicy, MasterKeys},
    dispatcher::WEIGHT_MAX,
    egress::Allowed,
    ids::Name,
    job::Kind,
    journal::TenantSettings,
    ledger::PriceBook,
    location::Location,
    request_limits::Rules,
    retention::Policy,
    time::parse_duration,
};
use secrecy::SecretString;

pub(crate) use self::{
    auth::{KeySetPlace, KeySource},
    backup::Backup,
    budgets::Budgets,
    file::LogFormat,
    providers::{Backend, Provider, routes},
    stores::{Cache, Dispatcher, Journal, Postgres},
    tls::TlsFiles,
    traces::{Sampling, Traces},
    upkeep::Upkeep,
};
use crate::{
    data::{self, DATA_DEFAULT},
    environment::{Environment, without_logins},
    failure::Failure,
};

/// The file that is read where it exists and no other is named.
const FILE_DEFAULT: &str = "longshore.toml";

/// Smaller bodies cost less as a part of their row than as an object.
const LARGE_BYTES_MIN: usize = 4_096;

/// Where the API listens: this machine only.
const LISTEN_DEFAULT: &str = "127.0.0.1:8080";

/// Where a role without the API shows its metrics: this machine only, and any number of them on it.
const METRICS_LISTEN_DEFAULT: &str = "127.0.0.1:0";

/// Slots are tasks and cost little; what a provider can take is limited per target instead.
const SLOTS_DEFAULT: usize = 1_000;

/// Time that running jobs get at a stop: 10 s less than the 30 s after which Kubernetes kills, for giving back what still runs.
const DRAIN_DEFAULT: Duration = Duration::from_secs(20);

/// Largest configuration or price file that is read.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// The flags of `up`, `serve`, `migrate` and `doctor`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct Flags {
    /// The configuration file [env: LONGSHORE_CONFIG] [default: ./longshore.toml where it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the API listens; port 0 picks one [env: LONGSHORE_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// The journal [env: LONGSHORE_JOURNAL] [default: sqlite:DATA/journal.db]
    #[arg(long, value_name = "URL")]
    pub(crate) journal: Option<String>,
    /// The dispatcher [env: LONGSHORE_DISPATCHER] [default: memory:]
    #[arg(long, value_name = "URL")]
    pub(crate) dispatcher: Option<String>,
    /// Jobs that run at once in a worker [env: LONGSHORE_WORKER_SLOTS] [default: 1000]
    #[arg(long)]
    pub(crate) slots: Option<usize>,
    /// An OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1 [env: LONGSHORE_PROVIDER_URL]
    #[arg(long, value_name = "URL")]
    pub(crate) provider_url: Option<String>,
    /// The model of jobs that name none [env: LONGSHORE_PROVIDER_DEFAULT_MODEL]
    #[arg(long, value_name = "MODEL")]
    pub(crate) default_model: Option<String>,
    /// The model of embeddings that name none [env: LONGSHORE_PROVIDER_EMBEDDING_MODEL]
    #[arg(long, value_name = "MODEL")]
    pub(crate) embedding_model: Option<String>,
    /// Time until the simulated provider's first token, e.g. 300ms
    #[arg(long, value_name = "DURATION")]
    pub(crate) simulated_first_token: Option<String>,
    /// Speed of the simulated provider; 0: the whole answer at once
    #[arg(long, value_name = "N")]
    pub(crate) simulated_tokens_per_second: Option<u32>,
    /// How log lines look [env: LONGSHORE_LOG] [default: human on a terminal, else json]
    #[arg(long, value_enum)]
    pub(crate) log: Option<LogFormat>,
}

/// What a worker of this process is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Worker {
    /// Jobs that run at once.
    pub(crate) slots: usize,
    /// Queues that it serves; empty: all.
    pub(crate) queues: Vec<Name>,
    /// Kinds that it serves; empty: all.
    pub(crate) kinds: Vec<Kind>,
    /// Time that running jobs get at a stop.
    pub(crate) drain: Duration,
    /// Longest time of one attempt, by kind.
    pub(crate) timeouts: BTreeMap<Kind, Duration>,
}

/// Everything a process is told, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The file that was read, if one was.
    pub(crate) file: Option<PathBuf>,
    /// `host:port` of the API.
    pub(crate) listen: String,
    /// `host:port` of the metrics and probes of a role without the API.
    pub(crate) metrics_listen: String,
    /// The data folder.
    pub(crate) data: PathBuf,
    /// Where the truth is.
    pub(crate) journal: Journal,
    /// Where the order of work is.
    pub(crate) dispatcher: Dispatcher,
    /// Where answers are kept for others.
    pub(crate) cache: Cache,
    /// The folder of archives; `None` where nobody said: `up` has one in its data folder, `serve` has none.
    pub(crate) objects: Option<Location>,
    /// What clients of buckets are told, by the names of their variables.
    pub(crate) buckets: BTreeMap<String, String>,
    /// Where backups go; `None`: nowhere.
    pub(crate) backup: Option<Backup>,
    /// All of this as it was told, without secrets: what a backup of the configuration keeps.
    pub(crate) effective: serde_json::Value,
    /// From how many bytes on a payload or result lies there.
    pub(crate) large_bytes: usize,
    /// A key to create at the start if it does not exist.
    pub(crate) admin_key: Option<SecretString>,
    /// How log lines look; `None` where nobody said: for people on a terminal, else for machines.
    pub(crate) log: Option<LogFormat>,
    /// What is logged, in the words of `RUST_LOG`.
    pub(crate) log_filter: Option<String>,
    /// How long an API goes on after a supervisor has asked it to stop; `None` where nobody said.
    pub(crate) stop_wait: Option<Duration>,
    /// Whether `probe` jobs are allowed; `None` where nobody said: `up` allows them, `serve` does not.
    pub(crate) probe_jobs: Option<bool>,
    /// Whether those may harm the worker that runs them.
    pub(crate) probe_faults: bool,
    /// Pages of these origins may call the API.
    pub(crate) cors_origins: Vec<String>,
    /// What models cost: the shipped prices, with those of the user's file over them.
    pub(crate) prices: PriceBook,
    /// Who answers, in the order in which they are asked whether they serve a model.
    pub(crate) providers: Vec<Provider>,
    /// The model of jobs that name none.
    pub(crate) default_model: Option<String>,
    /// The model of embeddings that name none.
    pub(crate) embedding_model: Option<String>,
    /// The worker.
    pub(crate) worker: Worker,
    /// Tenants for whom something is set.
    pub(crate) tenants: BTreeMap<Name, TenantSettings>,
    /// Of them, those whose credential policy is.
    pub(crate) credential_policies: BTreeMap<Name, CredentialPolicy>,
    /// The certificate of the API; plain text where there is none.
    pub(crate) tls: Option<TlsFiles>,
    /// Where the master keys of tenants' own provider keys are.
    pub(crate) master_keys: MasterKeySource,
    /// Where the keys are that our own tokens are signed with.
    pub(crate) signing_keys: KeySource,
    /// Who else makes tokens that are believed, each with the place of its public keys.
    pub(crate) issuers: Vec<(api::IssuerRules, KeySetPlace)>,
    /// How the dashboard is shown; `None`: not at all.
    pub(crate) dashboard: Option<dashboard::Settings>,
    /// What calls and tenants may cost.
    pub(crate) budgets: Budgets,
    /// Where URLs that users name may lead.
    pub(crate) outbound: Allowed,
    /// How often keys and tenants may ask.
    pub(crate) request_limits: Rules,
    /// How long what is kept.
    pub(crate) retention: Policy,
    /// When the journal is looked after.
    pub(crate) upkeep: Upkeep,
    /// Where traces go; `None`: none are made.
    pub(crate) traces: Option<Traces>,
}

/// Where master keys are.
#[derive(Clone, Debug, Default)]
pub(crate) enum MasterKeySource {
    /// Nobody said: `up` keeps one in its data folder.
    #[default]
    Unnamed,
    /// In the environment.
    Given(SecretString),
    /// In this file, which is read again when it changes.
    File(PathBuf),
}

impl Config {
    /// Puts the layers together and checks the result.
    pub(crate) fn load(flags: &Flags, data: Option<&str>, env: &Environment) -> Result<Self, Failure> {
        env.reject_unknown()?;
        let (path, file) = read_file(flags, env)?;
        let fail = |reason: String| match (&path, without_logins(&reason)) {
            (Some(path), reason) => {
                Failure::usage(format!("{reason} (configuration: {}, environment and flags)", path.display()))
            }
            (None, reason) => Failure::usage(reason),
        };
        Self::assemble(flags, data, env, file, path.clone()).map_err(fail)
    }

    fn assemble(
        flags: &Flags,
        data: Option<&str>,
        env: &Environment,
        mut file: file::File,
        path: Option<PathBuf>,
    ) -> Result<Self, String> {
        let pick = |flag: &Option<String>, variable: &str, file: Option<String>| {
            flag.clone().or_else(|| env.get(variable).map(str::to_owned)).or(file)
        };
        let data = data.or_else(|| env.get("LONGSHORE_DATA")).map(PathBuf::from).or_else(|| file.data.take());
        let data = data.unwrap_or_else(|| DATA_DEFAULT.into());
        let listen = pick(&flags.listen, "LONGSHORE_LISTEN", file.listen.take());
        let metrics_listen = pick(&None, "LONGSHORE_METRICS_LISTEN", file.metrics_listen.take());
        let url = |flag: &Option<String>, variable: &str| match flag {
            Some(url) => Ok(Some(url.clone())),
            None => env.secret(variable),
        };
        let journal = url(&flags.journal, "LONGSHORE_JOURNAL")?;
        let dispatcher = url(&flags.dispatcher, "LONGSHORE_DISPATCHER")?;
        let dispatcher = stores::dispatcher(dispatcher, file.dispatcher.take())?;
        let cache = env.secret("LONGSHORE_CACHE")?;
        let cache = stores::cache(cache, std::mem::take(&mut file.cache), &dispatcher)?;
        let objects = pick(&None, "LONGSHORE_OBJECTS_URL", file.objects.url.take());
        let log = match (flags.log, env.get("LONGSHORE_LOG")) {
            (Some(log), _) => Some(log),
            (None, Some(word)) => <LogFormat as clap::ValueEnum>::from_str(word, false)
                .map(Some)
                .map_err(|_| format!("LONGSHORE_LOG is `{word}`; it is `human` or `json`"))?,
            (None, None) => file.log,
        };
        let probe_jobs = switch(env, "LONGSHORE_PROBE_JOBS", file.probe_jobs)?;
        let probe_faults = switch(env, "LONGSHORE_PROBE_FAULTS", file.probe_faults)?.unwrap_or(false);
        let models = &mut file.provider;
        let default_model = pick(&flags.default_model, "LONGSHORE_PROVIDER_DEFAULT_MODEL", models.default_model.take());
        let embedding_model =
            pick(&flags.embedding_model, "LONGSHORE_PROVIDER_EMBEDDING_MODEL", models.embedding_model.take());
        let url = pick(&flags.provider_url, "LONGSHORE_PROVIDER_URL", models.url.take());
        let providers = providers::resolve(flags, env, url, &mut file)?;
        let (default_model, embedding_model) = providers::default_models(&providers, default_model, embedding_model);
        let issuers = auth::issuers(file.auth.issuers)?;
        Ok(Self {
            listen: check_listen("listen", listen.unwrap_or_else(|| LISTEN_DEFAULT.to_owned()))?,
            metrics_listen: check_listen(
                "metrics_listen",
                metrics_listen.unwrap_or_else(|| METRICS_LISTEN_DEFAULT.to_owned()),
            )?,
            journal: stores::journal(journal, file.journal.take(), &data)?,
            dispatcher,
            cache,
            objects: objects
                .map(|url| Location::parse(&url).map_err(|reason| format!("objects.url: {reason}")))
                .transpose()?,
            buckets: backup::buckets(env),
            backup: backup::backup(env, std::mem::take(&mut file.backup))?,
            large_bytes: match file.objects.large_bytes {
                Some(bytes) if bytes < LARGE_BYTES_MIN => {
                    return Err(format!("objects.large_bytes is {bytes}; it is {LARGE_BYTES_MIN} or more"));
                }
                bytes => bytes.unwrap_or(LARGE_BYTES),
            },
            admin_key: admin_key(env, file.admin_key_file.as_deref())?,
            prices: budgets::with_default(
                prices(env.get("LONGSHORE_PRICES_FILE").map(PathBuf::from).or(file.prices_file))?,
                &file.budget,
            )?,
            budgets: budgets::budgets(&file.budget)?,
            outbound: outbound(env, &file.webhooks)?,
            request_limits: request_limits::rules(&file.request_limits)?,
            retention: retention::policy(&file.retention)?,
            traces: traces::traces(env, &file.traces)?,
            upkeep: upkeep::upkeep(env, file.maintenance_window.take(), &file.upkeep)?,
            worker: worker(flags, env, &file.worker)?,
            credential_policies: credential_policies(&file.tenants)?,
            tenants: tenants(&file.tenants)?,
            tls: tls::files(env, file.tls)?,
            master_keys: master_keys(env, file.credentials.master_key_file)?,
            signing_keys: auth::signing_keys(env, file.auth.signing_key_file)?,
            dashboard: pages::settings(env, file.dashboard, &issuers)?,
            issuers,
            effective: effective::told(flags, env, path.as_deref())?,
            file: path,
            data,
            log,
            log_filter: env.get("RUST_LOG").map(str::to_owned),
            stop_wait: duration(env, "LONGSHORE_STOP_WAIT", file.stop_wait)?,
            probe_jobs,
            probe_faults,
            cors_origins: cors_origins(env, std::mem::take(&mut file.cors_origins))?,
            providers,
            default_model,
            embedding_model,
        })
    }
}

fn read_file(flags: &Flags, env: &Environment) -> Result<(Option<PathBuf>, file::File), Failure> {
    let named = flags.config.clone().or_else(|| env.get("LONGSHORE_CONFIG").map(PathBuf::from));
    let path = match named {
        Some(path) => path,
        None if Path::new(FILE_DEFAULT).exists() => FILE_DEFAULT.into(),
        None => return Ok((None, file::File::default())),
    };
    let failed = |reason: String| Failure::usage(format!("{}: {}", path.display(), without_logins(&reason)));
    let text = read_bounded(&path).map_err(|error| failed(error.to_string()))?;
    let file = toml::from_str(&text).map_err(|error| failed(locate(&text, &error)))?;
    Ok((Some(path), file))
}

/// Line and reason, without the line itself: it may hold a secret.
fn locate(text: &str, error: &toml::de::Error) -> String {
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {}", before.matches('\n').count() + 1, error.message()),
        None => error.message().to_owned(),
    }
}

/// The variable's `true` or `false`, else the file's.
fn switch(env: &Environment, variable: &str, file: Option<bool>) -> Result<Option<bool>, String> {
    let Some(word) = env.get(variable) else { return Ok(file) };
    word.parse().map(Some).map_err(|_| format!("{variable} is `{word}`; it is true or false"))
}

/// The variable's duration, else the file's.
fn duration(env: &Environment, variable: &str, file: Option<file::Seconds>) -> Result<Option<Duration>, String> {
    let given = env.get(variable).map(|text| parse_duration(text).map_err(|error| format!("{variable}: {error}")));
    Ok(given.transpose()?.or(file.map(|seconds| seconds.0)))
}

fn check_listen(key: &str, listen: String) -> Result<String, String> {
    match listen.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !host.contains(['/', '@']) && port.parse::<u16>().is_ok() => {
            Ok(listen)
        }
        _ => Err(format!("{key} is `{listen}`; it is HOST:PORT such as {LISTEN_DEFAULT}")),
    }
}

/// The environment's list, else the file's: each `scheme://host[:port]` as browsers write it, and never all.
fn cors_origins(env: &Environment, file: Vec<String>) -> Result<Vec<String>, String> {
    let split = |text: &str| text.split(',').map(|origin| origin.trim().to_owned()).collect();
    let origins: Vec<String> = env.get("LONGSHORE_CORS_ORIGINS").map_or(file, split);
    for origin in &origins {
        let is_origin = reqwest::Url::parse(origin)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == *origin)
            && !origin.contains('*');
        if !is_origin {
            return Err(format!("cors_origins: `{origin}` is not an origin such as https://app.example"));
        }
    }
    Ok(origins)
}

fn admin_key(env: &Environment, file: Option<&Path>) -> Result<Option<SecretString>, String> {
    match (env.secret("LONGSHORE_ADMIN_KEY")?, file) {
        (Some(key), _) => Ok(Some(key.into())),
        (None, Some(path)) => read_secret(path).map(Some),
        (None, None) => Ok(None),
    }
}

/// A secret from a file of its own; spaces and line breaks around it are not part of it.
fn read_secret(path: &Path) -> Result<SecretString, String> {
    data::read_secret(path).map(Into::into).map_err(|reason| format!("the key file {} {reason}", path.display()))
}

fn prices(path: Option<PathBuf>) -> Result<PriceBook, String> {
    let shipped = PriceBook::shipped();
    let Some(path) = path else { return Ok(shipped) };
    let failed = |reason: String| format!("the price file {}: {reason}", path.display());
    let text = read_bounded(&path).map_err(|reason| failed(reason.to_string()))?;
    let own = PriceBook::parse(&text).map_err(|error| failed(error.to_string()))?;
    Ok(shipped.with_overrides(own))
}

/// The text of a file, unless it is too large to be one of ours.
pub(crate) fn read_bounded(path: &Path) -> io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > FILE_MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{size} bytes are too many")));
    }
    std::fs::read_to_string(path)
}

fn kind(word: &String) -> Result<Kind, String> {
    let known = || Kind::ALL.map(Kind::as_str).join(", ");
    Kind::parse(word).ok_or_else(|| format!("worker.kinds: `{word}` is no kind of job; kinds are {}", known()))
}

fn worker(flags: &Flags, env: &Environment, file: &file::Worker) -> Result<Worker, String> {
    let slots = match (flags.slots, env.get("LONGSHORE_WORKER_SLOTS")) {
        (Some(slots), _) => slots,
        (None, Some(text)) => {
            text.parse().map_err(|_| format!("LONGSHORE_WORKER_SLOTS is `{text}`; it is a number"))?
        }
        (None, None) => file.slots.unwrap_or(SLOTS_DEFAULT),
    };
    if !(1..=worker::SLOTS_MAX).contains(&slots) {
        return Err(format!("worker.slots is {slots}; it is between 1 and {}", worker::SLOTS_MAX));
    }
    let listed = |variable, own: &Option<Vec<String>>| match env.get(variable) {
        Some(list) => list.split(',').map(|name| name.trim().to_owned()).collect(),
        None => own.clone().unwrap_or_default(),
    };
    let queues: Vec<String> = listed("LONGSHORE_WORKER_QUEUES", &file.queues);
    let kinds: Vec<String> = listed("LONGSHORE_WORKER_KINDS", &file.kinds);
    let checked = |queue: &String| Name::checked(queue).map_err(|reason| format!("worker.queues: `{queue}` {reason}"));
    Ok(Worker {
        slots,
        queues: queues.iter().map(checked).collect::<Result<_, _>>()?,
        kinds: kinds.iter().map(kind).collect::<Result<_, _>>()?,
        drain: duration(env, "LONGSHORE_WORKER_DRAIN", file.drain)?.unwrap_or(DRAIN_DEFAULT),
        timeouts: file.timeouts.iter().map(|(kind, timeout)| (*kind, timeout.0)).collect(),
    })
}

/// Master keys that are in the environment have to be right; a file may come later, and a wrong one can be put right.
fn master_keys(env: &Environment, file: Option<PathBuf>) -> Result<MasterKeySource, String> {
    if let Some(keys) = env.get("LONGSHORE_MASTER_KEY") {
        MasterKeys::parse(keys).map_err(|reason| format!("LONGSHORE_MASTER_KEY: {reason}"))?;
        return Ok(MasterKeySource::Given(keys.into()));
    }
    let file = env.get("LONGSHORE_CREDENTIALS_MASTER_KEY_FILE").map(PathBuf::from).or(file);
    Ok(file.map_or(MasterKeySource::Unnamed, MasterKeySource::File))
}

fn outbound(env: &Environment, file: &file::Webhooks) -> Result<Allowed, String> {
    let http = match env.get("LONGSHORE_WEBHOOKS_ALLOW_HTTP") {
        Some(word) => {
            word.parse().map_err(|_| format!("LONGSHORE_WEBHOOKS_ALLOW_HTTP is `{word}`; it is true or false"))?
        }
        None => file.allow_http.unwrap_or(false),
    };
    let named: Vec<&str> = match env.get("LONGSHORE_WEBHOOKS_ALLOW_NETWORKS") {
        Some(list) => list.split(',').map(str::trim).collect(),
        None => file.allow_networks.iter().map(String::as_str).collect(),
    };
    let networks = named.into_iter().map(str::parse).collect::<Result<_, String>>();
    Ok(Allowed { http, networks: networks.map_err(|reason| format!("webhooks.allow_networks: {reason}"))? })
}

fn credential_policies(file: &BTreeMap<String, file::Tenant>) -> Result<BTreeMap<Name, CredentialPolicy>, String> {
    let named = file.iter().filter_map(|(name, tenant)| Some((name, tenant.credential_policy?)));
    let checked = |(name, policy): (&String, CredentialPolicy)| {
        Ok((Name::checked(name).map_err(|reason| format!("tenants: `{name}` {reason}"))?, policy))
    };
    named.map(checked).collect()
}

fn tenants(file: &BTreeMap<String, file::Tenant>) -> Result<BTreeMap<Name, TenantSettings>, String> {
    let checked = |(name, tenant): (&String, &file::Tenant)| {
        let name = Name::checked(name).map_err(|reason| format!("tenants: `{name}` {reason}"))?;
        let weight = tenant.weight.unwrap_or(1);
        if !(1..=WEIGHT_MAX).contains(&weight) {
            return Err(format!("tenants.{name}.weight is {weight}; it is between 1 and {WEIGHT_MAX}"));
        }
        let rates = file::Rates {
            requests_per_minute: tenant.requests_per_minute,
            llm_submits_per_minute: tenant.llm_submits_per_minute,
        };
        let rates = request_limits::checked(&format!("tenants.{name}"), &rates)?;
        Ok((name, TenantSettings { backlog_max: tenant.backlog_max, weight, rates, ..TenantSettings::default() }))
    };
    file.iter().map(checked).collect()
}
