//! Builds the providers that the configuration names.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use queue_core::{
    ids::Name,
    limiter::Limits,
    route::{Routes, Target},
    stores::Check,
};
use worker::{
    coalesce::{Coalescer, Coalescing},
    provider::{Provider, Providers, openai, simulated},
};

use crate::{
    config::{self, Backend, Config},
    failure::Failure,
};

/// All of them, by name.
pub(crate) fn build(configured: &[config::Provider]) -> Result<Providers, Failure> {
    configured.iter().map(|provider| Ok((provider.name.to_string(), build_one(provider)?))).collect()
}

/// How they share the models.
pub(crate) fn routes(config: &Config) -> Routes {
    config::routes(&config.providers, config.default_model.as_deref(), config.embedding_model.as_deref())
}

/// What `/health` reports on: one check for each.
pub(crate) fn checks(providers: &Providers) -> Vec<Arc<dyn Check>> {
    let check = |(name, provider): (&String, &Arc<dyn Provider>)| -> Arc<dyn Check> {
        Arc::new(ProviderCheck { name: format!("provider:{name}"), provider: provider.clone() })
    };
    providers.iter().map(check).collect()
}

struct ProviderCheck {
    name: String,
    provider: Arc<dyn Provider>,
}

#[async_trait]
impl Check for ProviderCheck {
    fn name(&self) -> &str {
        &self.name
    }

    async fn check(&self) -> Result<(), String> {
        self.provider.check().await.map_err(|failed| failed.error.to_string())
    }
}

/// Builds one.
pub(crate) fn build_one(provider: &config::Provider) -> Result<Arc<dyn Provider>, Failure> {
    match &provider.backend {
        Backend::Simulated { first_token, tokens_per_second } => {
            let simulated = simulated::SimulatedConfig {
                name: provider.name.to_string(),
                first_token: *first_token,
                tokens_per_second: *tokens_per_second,
                ..simulated::SimulatedConfig::default()
            };
            Ok(Arc::new(simulated::Simulated::new(simulated)))
        }
        Backend::Openai { url, key, patience, include_usage } => {
            let openai = openai::OpenAiConfig {
                key: key.clone(),
                connect_timeout: patience.connect,
                first_byte_timeout: patience.first_byte,
                chunk_timeout: patience.chunk,
                include_usage: *include_usage,
                ..openai::OpenAiConfig::new(provider.name.as_str(), url)
            };
            let built = openai::OpenAi::new(openai);
            Ok(Arc::new(built.map_err(|reason| Failure::usage(format!("provider `{}`: {reason}", provider.name)))?))
        }
    }
}

/// What targets may take.
pub(crate) fn limits(config: &Config) -> Limits {
    let embeds = embeds(config);
    let model_of = |provider: &config::Provider| {
        embeds.as_ref().filter(|target| target.provider == provider.name).map(|target| target.model.as_str())
    };
    Limits::new(config.providers.iter().flat_map(|provider| provider.rules(model_of(provider))).collect())
}

/// How the embedding jobs of each provider travel together.
pub(crate) fn coalescer(configured: &[config::Provider]) -> Coalescer {
    let of_providers = configured.iter().map(|provider| (provider.name.to_string(), provider.embedding)).collect();
    Coalescer::new(Coalescing::default(), of_providers)
}

/// Whom embeddings that name no model go to, unless chats go there too.
fn embeds(config: &Config) -> Option<Target> {
    let model = config.embedding_model.as_deref().filter(|model| config.default_model.as_deref() != Some(model))?;
    routes(config).resolve(model)
}

/// Jobs of one model that may run at once, for all models of each provider. Where requests are limited, no more than their
/// limit lets in within [`FIRST_PACE_S`]: from the first call on, the limiter says how many there should be.
pub(crate) fn concurrency(config: &Config) -> BTreeMap<Name, u32> {
    let limit = |provider: &config::Provider| {
        let requests = provider.limit.requests_per_minute;
        let paced = requests.map(|rate| u32::try_from((rate * FIRST_PACE_S).div_ceil(60)).unwrap_or(u32::MAX));
        let most = [provider.concurrency, paced].into_iter().flatten().min()?;
        Some((Name::new(format!("{}:*", provider.name)), most))
    };
    let embedding = embeds(config).and_then(|target| {
        let provider = config.providers.iter().find(|provider| provider.name == target.provider)?;
        // Where requests are limited, the limiter soon says how many jobs they are enough for.
        let jobs = provider.embedding_jobs.filter(|_| provider.limit.requests_per_minute.is_none())?;
        Some((target.name(), jobs))
    });
    config.providers.iter().filter_map(limit).chain(embedding).collect()
}

/// Seconds of a limit of requests that jobs are claimed for before anything is known of them.
const FIRST_PACE_S: u64 = 3;
