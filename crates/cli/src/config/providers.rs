//! Who answers: the providers that a configuration comes to.

use std::{path::Path, time::Duration};

use queue_core::{
    ids::Name,
    limiter::{Limit, Limits, RATE_MAX, Rule},
    route::{Routes, Target, is_no_provider},
    time::parse_duration,
};
use secrecy::{ExposeSecret, SecretString};
use worker::coalesce::Coalescing;

use super::{
    Flags,
    file::{self, ProviderKind},
    read_secret,
};
use crate::environment::Environment;

/// Where OpenAI's own API is: what a lone `OPENAI_API_KEY` means.
pub(crate) const OPENAI_URL: &str = "https://api.openai.com/v1";

/// The variable that holds the key of the one provider of a small set-up.
const KEY_ENV: &str = "OPENAI_API_KEY";

/// Models of jobs that name none, for those who set nothing but `OPENAI_API_KEY`.
const OPENAI_MODELS: (&str, &str) = ("gpt-4o-mini", "text-embedding-3-small");

/// Models of jobs that name none, with nobody but the built-in provider.
const SIMULATED_MODELS: (&str, &str) = ("simulated-chat", "simulated-embedding");

/// Jobs of one target that run at once unless the configuration says otherwise: what a small server or a fresh
/// account takes without refusing.
const CONCURRENCY_DEFAULT: u32 = 64;

/// Embedding jobs of one target that run at once likewise: sixteen full calls.
const EMBEDDING_JOBS_DEFAULT: u32 = 4_096;

/// Patience with a service on the other side of the network. Models that think get five minutes until the first piece.
const PATIENCE_DEFAULT: Patience =
    Patience { connect: Duration::from_secs(5), first_byte: Duration::from_secs(60), chunk: Duration::from_secs(30) };

/// Patience with a server of one's own, which is reached without TLS: a small machine reads a long prompt slowly, and jobs
/// wait in line inside a server that takes more of them than it can run at once.
const PATIENCE_NEAR: Patience =
    Patience { connect: Duration::from_secs(5), first_byte: Duration::from_secs(120), chunk: Duration::from_secs(60) };

/// The patience with a server at this address, where nobody says anything.
fn usual_patience(url: &str) -> Patience {
    if url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:")) {
        PATIENCE_DEFAULT
    } else {
        PATIENCE_NEAR
    }
}

/// The simulated provider's pace: quick enough to try things out, slow enough to see tokens come.
const SIMULATED_DEFAULT: (Duration, u32) = (Duration::from_millis(100), 100);

/// One provider.
#[derive(Clone, Debug)]
pub(crate) struct Provider {
    /// Its name in targets, results and reports.
    pub(crate) name: Name,
    /// What it serves: exact names, or prefixes followed by `*`; empty: every model.
    pub(crate) models: Vec<String>,
    /// Jobs of one of its models that run at once; `None`: as many as there are slots.
    pub(crate) concurrency: Option<u32>,
    /// Likewise for the model of embeddings that name none, of which many share a call; `None`: as for the others.
    pub(crate) embedding_jobs: Option<u32>,
    /// How its embedding jobs travel together.
    pub(crate) embedding: Coalescing,
    /// What each of its models may take, and by pattern what some of them may take instead.
    pub(crate) limit: Limit,
    /// See `limit`.
    pub(crate) model_limits: Vec<(String, Limit)>,
    /// What speaks behind the name.
    pub(crate) backend: Backend,
}

/// What speaks behind a provider's name.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    /// A server that speaks the OpenAI wire.
    Openai {
        /// Its base, ending in the version, e.g. `http://127.0.0.1:8000/v1`.
        url: String,
        /// Its key; local servers need none.
        key: Option<SecretString>,
        /// How long to wait for it.
        patience: Patience,
        /// Whether to ask it for token counts; some servers refuse to be asked.
        include_usage: bool,
    },
    /// The built-in one.
    Simulated {
        /// Time until the first token.
        first_token: Duration,
        /// Speed after it; 0: at once.
        tokens_per_second: u32,
    },
}

/// How long to wait for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// For a connection.
    pub(crate) connect: Duration,
    /// For the first piece of an answer.
    pub(crate) first_byte: Duration,
    /// Between two pieces of it.
    pub(crate) chunk: Duration,
}

impl Provider {
    /// Whether answers are invented.
    pub(crate) fn is_simulated(&self) -> bool {
        matches!(self.backend, Backend::Simulated { .. })
    }

    /// What its targets may take. A server may refuse whether it has limits here or not, so each is asked about; who invents
    /// its answers refuses nobody.
    pub(crate) fn rules(&self, embedding_model: Option<&str>) -> Vec<Rule> {
        let rule = |model: &str, limit: &Limit| Rule {
            provider: self.name.to_string(),
            model: model.to_owned(),
            limit: Limit { concurrency: self.jobs_at_once(model, embedding_model), ..limit.clone() },
        };
        let own = (!self.is_simulated() || self.limit.has_buckets()).then(|| rule("*", &self.limit));
        let mut rules: Vec<Rule> =
            own.into_iter().chain(self.model_limits.iter().map(|(model, limit)| rule(model, limit))).collect();
        // Of its own only so that its jobs are counted apart: the rates are those of the closest rule for it.
        if let Some(model) = embedding_model.filter(|_| self.embedding_jobs.is_some()) {
            let target = Target { provider: self.name.clone(), model: model.into(), credential: "default".into() };
            if let Some(limit) = Limits::new(rules.clone()).of(&target) {
                rules.retain(|other| other.model != model);
                rules.push(rule(model, &limit));
            }
        }
        rules
    }

    /// Jobs of a model that run at once.
    fn jobs_at_once(&self, model: &str, embedding_model: Option<&str>) -> Option<u32> {
        let embeds = embedding_model == Some(model);
        self.embedding_jobs.filter(|_| embeds).or(self.concurrency)
    }
}

/// The list in the order of asking: `[[providers]]`, then the one of `provider.url`, or OpenAI where there is only a
/// key, or the simulated one where there is nothing at all.
pub(super) fn resolve(
    flags: &Flags,
    env: &Environment,
    url: Option<String>,
    file: &mut file::File,
) -> Result<Vec<Provider>, String> {
    let mut providers = Vec::new();
    for entry in std::mem::take(&mut file.providers) {
        let name = entry.name.clone();
        providers.push(from_entry(flags, env, entry).map_err(|reason| format!("provider `{name}`: {reason}"))?);
    }
    let alone = providers.is_empty();
    let key = own_key(env, &file.provider)?;
    let own = match (url, key) {
        (Some(url), key) => {
            let patience = usual_patience(&url);
            Some(openai("default", url, key, patience, true)?)
        }
        (None, Some(key)) if alone => Some(openai("openai", OPENAI_URL.to_owned(), Some(key), PATIENCE_DEFAULT, true)?),
        (None, None) if alone => Some(simulated(flags, None, None)?),
        (None, _) => None,
    };
    providers.extend(own);
    check_reachable(&providers)?;
    Ok(providers)
}

/// The models of jobs that name none: as configured, else what the only provider is known to serve.
pub(super) fn default_models(
    providers: &[Provider],
    chat: Option<String>,
    embedding: Option<String>,
) -> (Option<String>, Option<String>) {
    let known = match providers {
        [only] if only.is_simulated() && only.models.is_empty() => Some(SIMULATED_MODELS),
        [Provider { backend: Backend::Openai { url, .. }, models, .. }] if url == OPENAI_URL && models.is_empty() => {
            Some(OPENAI_MODELS)
        }
        _ => None,
    };
    (
        chat.or_else(|| known.map(|(chat, _)| chat.to_owned())),
        embedding.or_else(|| known.map(|(_, embedding)| embedding.to_owned())),
    )
}

fn from_entry(flags: &Flags, env: &Environment, entry: file::ProviderEntry) -> Result<Provider, String> {
    let (limit, model_limits) = limits(&entry)?;
    let mut provider = match (entry.kind, entry.url) {
        (ProviderKind::Simulated, Some(_)) => return Err("a simulated provider has no url".to_owned()),
        (ProviderKind::Simulated, None) => {
            simulated(flags, entry.first_token.map(|first| first.0), entry.tokens_per_second)?
        }
        (ProviderKind::Openai, None) => return Err("needs a url, e.g. http://127.0.0.1:8000/v1".to_owned()),
        (ProviderKind::Openai, Some(url)) => {
            if entry.first_token.is_some() || entry.tokens_per_second.is_some() {
                return Err("first_token and tokens_per_second are for kind = \"simulated\"".to_owned());
            }
            let key = key_of(env, entry.key_env.as_deref(), entry.key_file.as_deref())?;
            let or = |given: Option<file::Seconds>, usual| given.map_or(usual, |given| given.0);
            let usual = usual_patience(&url);
            let patience = Patience {
                connect: or(entry.connect_timeout, usual.connect),
                first_byte: or(entry.first_byte_timeout, usual.first_byte),
                chunk: or(entry.chunk_timeout, usual.chunk),
            };
            openai(&entry.name, url, key, patience, entry.include_usage.unwrap_or(true))?
        }
    };
    provider.name = Name::checked(&entry.name).map_err(|reason| format!("its name {reason}"))?;
    if is_no_provider(&provider.name) {
        return Err("its name is taken: it stands for jobs that call no model".to_owned());
    }
    if entry.name.contains(':') {
        return Err("its name contains `:`, which separates the parts of a target".to_owned());
    }
    provider.models = entry.models;
    if let Some(wrong) = provider.models.iter().find(|model| model.trim_end_matches('*').is_empty()) {
        return Err(format!("`{wrong}` in models is no model; leave models out to serve every one"));
    }
    if entry.concurrency.is_some() {
        (provider.concurrency, provider.embedding_jobs) = (entry.concurrency, None);
    }
    provider.embedding = coalescing(entry.embedding)?;
    if !provider.embedding.together {
        provider.embedding_jobs = None;
    }
    if provider.concurrency == Some(0) {
        return Err("concurrency is 0: no job would ever run".to_owned());
    }
    (provider.limit, provider.model_limits) = (limit, model_limits);
    Ok(provider)
}

/// What an entry says for all its models, and what for some of them; these have from it what they do not say themselves.
fn limits(entry: &file::ProviderEntry) -> Result<(Limit, Vec<(String, Limit)>), String> {
    let all = Limit {
        requests_per_minute: rate("requests_per_minute", entry.requests_per_minute)?,
        tokens_per_minute: rate("tokens_per_minute", entry.tokens_per_minute)?,
        tokens_charged: entry.tokens_charged.unwrap_or_default(),
        when_away: entry.limiter_away.unwrap_or_default(),
        concurrency: None,
    };
    let mut some = Vec::with_capacity(entry.limits.len());
    for own in &entry.limits {
        let model = own.model.clone();
        if model.trim_end_matches('*').is_empty() {
            return Err(format!("limits: `{model}` is no model; what holds for all stands beside `name`"));
        }
        if some.iter().any(|(other, _)| *other == model) {
            return Err(format!("limits: `{model}` has two of them"));
        }
        let of = |name: &str, own, all: Option<u64>| rate(name, own).map(|own| own.or(all));
        let limit = Limit {
            requests_per_minute: of("limits.requests_per_minute", own.requests_per_minute, all.requests_per_minute)?,
            tokens_per_minute: of("limits.tokens_per_minute", own.tokens_per_minute, all.tokens_per_minute)?,
            tokens_charged: own.tokens_charged.unwrap_or(all.tokens_charged),
            when_away: own.limiter_away.unwrap_or(all.when_away),
            concurrency: None,
        };
        some.push((model, limit));
    }
    Ok((all, some))
}

/// How its embedding jobs travel together.
fn coalescing(entry: file::EmbeddingEntry) -> Result<Coalescing, String> {
    let usual = Coalescing::default();
    let together = entry.together.unwrap_or(usual.together);
    let own = Coalescing {
        inputs_max: entry.inputs_max.unwrap_or(usual.inputs_max),
        tokens_max: entry.tokens_max.unwrap_or(usual.tokens_max),
        wait: entry.wait.map_or(usual.wait, |wait| wait.0),
        calls_max: entry.calls_max.unwrap_or(usual.calls_max),
        together,
    };
    let within = |name: &str, value: u64, most: u64| match (1..=most).contains(&value) {
        true => Ok(()),
        false => Err(format!("embedding.{name} is {value}; it is between 1 and {most}")),
    };
    within("inputs_max", own.inputs_max as u64, EMBEDDING_INPUTS_MAX)?;
    within("tokens_max", own.tokens_max, EMBEDDING_TOKENS_MAX)?;
    within("calls_max", own.calls_max as u64, EMBEDDING_CALLS_MAX)?;
    if own.wait > EMBEDDING_WAIT_MAX {
        return Err(format!("embedding.wait is {:?}; it is at most {EMBEDDING_WAIT_MAX:?}", own.wait));
    }
    Ok(own)
}

/// Inputs of one request beyond which every provider refuses it.
const EMBEDDING_INPUTS_MAX: u64 = 2_048;
/// Likewise tokens, with room for those who take more than OpenAI's 300,000.
const EMBEDDING_TOKENS_MAX: u64 = 10_000_000;
/// Calls of one process at once: beyond it, the limit is none.
const EMBEDDING_CALLS_MAX: u64 = 100_000;
/// Longest wait for company: a job that waits holds a slot.
const EMBEDDING_WAIT_MAX: Duration = Duration::from_secs(5);

fn rate(name: &str, given: Option<u64>) -> Result<Option<u64>, String> {
    match given {
        Some(0) => Err(format!("{name} is 0: no call would ever be made")),
        Some(rate) if rate > RATE_MAX => Err(format!("{name} is {rate}; at most {RATE_MAX} is possible")),
        given => Ok(given),
    }
}

fn openai(
    name: &str,
    url: String,
    key: Option<SecretString>,
    patience: Patience,
    include_usage: bool,
) -> Result<Provider, String> {
    let parsed: reqwest::Url = url.parse().map_err(|error| format!("`{url}` is not a URL: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(format!("`{url}` is not an http or https URL"));
    }
    let url = url.trim_end_matches('/').to_owned();
    if let Some(key) = &key
        && !key.expose_secret().bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err("its key contains a space, a line break or something that is no ASCII".to_owned());
    }
    Ok(Provider {
        name: name.into(),
        models: Vec::new(),
        concurrency: Some(CONCURRENCY_DEFAULT),
        embedding_jobs: Some(EMBEDDING_JOBS_DEFAULT),
        embedding: Coalescing::default(),
        limit: Limit::default(),
        model_limits: Vec::new(),
        backend: Backend::Openai { url, key, patience, include_usage },
    })
}

fn simulated(flags: &Flags, first_token: Option<Duration>, speed: Option<u32>) -> Result<Provider, String> {
    let flag = flags.simulated_first_token.as_deref().map(parse_duration).transpose()?;
    let first_token = flag.or(first_token).unwrap_or(SIMULATED_DEFAULT.0);
    let tokens_per_second = flags.simulated_tokens_per_second.or(speed).unwrap_or(SIMULATED_DEFAULT.1);
    Ok(Provider {
        name: "simulated".into(),
        models: Vec::new(),
        concurrency: None,
        embedding_jobs: None,
        embedding: Coalescing::default(),
        limit: Limit::default(),
        model_limits: Vec::new(),
        backend: Backend::Simulated { first_token, tokens_per_second },
    })
}

/// The key of `[provider]`: of its file, or of the variable that it names, else of `OPENAI_API_KEY`.
fn own_key(env: &Environment, provider: &file::Provider) -> Result<Option<SecretString>, String> {
    if provider.key_env.is_some() || provider.key_file.is_some() {
        return key_of(env, provider.key_env.as_deref(), provider.key_file.as_deref());
    }
    Ok(env.get(KEY_ENV).map(SecretString::from))
}

fn key_of(env: &Environment, variable: Option<&str>, file: Option<&Path>) -> Result<Option<SecretString>, String> {
    match (variable, file) {
        (Some(_), Some(_)) => Err("has both key_env and key_file".to_owned()),
        (Some(variable), None) => match env.get(variable) {
            Some(key) => Ok(Some(key.into())),
            None => Err(format!("its key is to come from {variable}, which is not set")),
        },
        (None, Some(path)) => read_secret(path).map(Some),
        (None, None) => Ok(None),
    }
}

/// A provider that can never be asked is a mistake, and so are two of one name.
fn check_reachable(providers: &[Provider]) -> Result<(), String> {
    for (at, provider) in providers.iter().enumerate() {
        let earlier = &providers[..at];
        if earlier.iter().any(|other| other.name == provider.name) {
            return Err(format!("two providers are called `{}`", provider.name));
        }
        if let Some(all) = earlier.iter().find(|other| other.models.is_empty()) {
            return Err(format!(
                "provider `{}` would never be asked: `{}` before it names no models and so serves every one",
                provider.name, all.name
            ));
        }
    }
    Ok(())
}

/// How the providers share the models.
pub(crate) fn routes(providers: &[Provider], default_model: Option<&str>, embedding_model: Option<&str>) -> Routes {
    let route = |provider: &Provider| queue_core::route::Route {
        provider: provider.name.clone(),
        models: provider.models.clone(),
    };
    Routes {
        routes: providers.iter().map(route).collect(),
        default_model: default_model.map(str::to_owned),
        default_embedding_model: embedding_model.map(str::to_owned),
    }
}
