//! What a call costs: integer prices by model, from a file.
//!
//! Prices are pico-USD per token, sums are made in 128 bits and rounded up once a call to nano-USD: nothing is ever a
//! float, and nothing that is unknown is ever zero.

use std::collections::HashMap;

use serde::Deserialize;

use super::{Nanousd, Usage};

/// The prices that ship with this version.
const SHIPPED: &str = include_str!("../../prices.toml");

/// Highest price of a token that is believed, in pico-USD: a dollar. Above it somebody took another unit.
const PRICE_MAX: u64 = 1_000_000_000_000;

/// Pico-USD of one nano-USD.
const PICO_PER_NANO: i128 = 1_000;

/// Vendors that gateways put before a model's name. Others (`together/…`) host the same model at a price of their own.
const VENDORS: [&str; 7] = ["openai/", "azure/", "anthropic/", "gemini/", "mistral/", "deepseek/", "xai/"];

/// A model's limits and prices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its name.
    #[serde(skip)]
    pub name: String,
    /// Tokens that prompt and answer may have together.
    pub context_window: Option<u64>,
    /// Tokens that an answer may have.
    pub max_output: Option<u64>,
    #[serde(default)]
    aliases: Vec<String>,
    input: Option<u64>,
    cached_input: Option<u64>,
    cache_write: Option<u64>,
    output: Option<u64>,
    long: Option<Long>,
    batch: Option<Rates>,
    flex: Option<Rates>,
    priority: Option<Rates>,
}

/// Which of a provider's service tiers a call was made in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// The usual one.
    #[default]
    Standard,
    /// Files of requests, answered within a day.
    Batch,
    /// Cheaper and slower.
    Flex,
    /// Dearer and faster.
    Priority,
}

/// Prices of all known models.
#[derive(Clone, Debug, Default)]
pub struct PriceBook {
    version: String,
    as_of: String,
    models: HashMap<String, Model>,
    aliases: HashMap<String, String>,
}

/// A price file that cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PriceError(pub String);

/// The file, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    #[serde(default)]
    as_of: String,
    #[serde(default)]
    models: HashMap<String, Model>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rates {
    input: u64,
    cached_input: Option<u64>,
    cache_write: Option<u64>,
    output: u64,
    long: Option<Long>,
}

/// Prices of the whole request once its prompt is longer than `above` tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Long {
    above: u64,
    input: u64,
    cached_input: Option<u64>,
    cache_write: Option<u64>,
    output: u64,
}

impl PriceBook {
    /// The prices that ship with this version.
    pub fn shipped() -> Self {
        Self::parse(SHIPPED).unwrap_or_else(|error| {
            // A test reads the file, so this can only be a damaged build: without prices, costs are unknown, not zero.
            tracing::error!(%error, "the shipped price file does not read; every cost will be unknown");
            Self::default()
        })
    }

    /// The prices of a file: TOML with `version` and `[models."name"]` tables, see the shipped `prices.toml`.
    /// Unknown keys, one price without the other, and prices that can only be a mistake are errors.
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        let File { version, as_of, models } = toml::from_str(text).map_err(|error| PriceError(error.to_string()))?;
        if version.is_empty() {
            return Err(PriceError("version is empty; every ledger row keeps it".to_owned()));
        }
        let mut book = Self { version, as_of, ..Self::default() };
        for (name, model) in models {
            model.check().map_err(|reason| PriceError(format!("models.{name}: {reason}")))?;
            book.insert(Model { name, ..model })?;
        }
        Ok(book)
    }

    /// These prices with those of `other` over them, model by model. Both versions are kept: `2026-11-21+mine`.
    pub fn with_overrides(mut self, other: Self) -> Self {
        self.version = format!("{}+{}", self.version, other.version);
        // A name means what the later file says, be it a model there or an alias.
        self.aliases.retain(|name, _| !other.models.contains_key(name));
        self.models.retain(|name, _| !other.aliases.contains_key(name));
        self.aliases.extend(other.aliases);
        self.models.extend(other.models);
        self
    }

    /// Which prices these are; every ledger row keeps it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The day on which the prices were read, as the file says.
    pub fn as_of(&self) -> &str {
        &self.as_of
    }

    /// The model with this name, also under an alias, after a vendor (`openai/gpt-4o`) or with a date
    /// (`gpt-4o-mini-2024-07-18`). A fine-tuned model (`ft:…`) has prices of its own and is not its base.
    pub fn model(&self, name: &str) -> Option<&Model> {
        let bare = VENDORS.iter().find_map(|vendor| name.strip_prefix(vendor)).unwrap_or(name);
        self.named(name).or_else(|| self.named(bare)).or_else(|| self.named(without_date(bare)?))
    }

    /// What `usage` of `model` costs; `None` when its price is unknown.
    pub fn cost(&self, model: &str, usage: &Usage) -> Option<Nanousd> {
        self.cost_in(Tier::Standard, model, usage)
    }

    /// What `usage` of `model` costs in a service tier; `None` when its price there is unknown.
    pub fn cost_in(&self, tier: Tier, model: &str, usage: &Usage) -> Option<Nanousd> {
        let rates = self.model(model)?.rates(tier)?;
        let rates = rates.long.filter(|long| usage.tokens_in > long.above).map_or(rates, Rates::from);
        // Cached and written tokens are within the prompt, so they are taken out of it; more of them than prompt is
        // a provider's mistake and must not make the rest negative. Thinking is within the answer and adds nothing.
        let cached = usage.tokens_cached.min(usage.tokens_in);
        let written = usage.tokens_cache_write.min(usage.tokens_in - cached);
        let fresh = usage.tokens_in - cached - written;
        let sum = [
            (fresh, rates.input),
            (cached, rates.cached_input.unwrap_or(rates.input)),
            (written, rates.cache_write.unwrap_or(rates.input)),
            (usage.tokens_out, rates.output),
        ];
        let pico: i128 = sum.iter().map(|&(tokens, price)| i128::from(tokens) * i128::from(price)).sum();
        let nano = pico / PICO_PER_NANO + i128::from(pico % PICO_PER_NANO > 0);
        Some(Nanousd(i64::try_from(nano).unwrap_or(i64::MAX)))
    }

    fn named(&self, name: &str) -> Option<&Model> {
        self.models.get(name).or_else(|| self.models.get(self.aliases.get(name)?))
    }

    fn insert(&mut self, model: Model) -> Result<(), PriceError> {
        for alias in &model.aliases {
            if let Some(other) = self.aliases.insert(alias.clone(), model.name.clone()) {
                return Err(PriceError(format!("`{alias}` is an alias of `{other}` and of `{}`", model.name)));
            }
        }
        self.models.insert(model.name.clone(), model);
        Ok(())
    }
}

impl Model {
    fn rates(&self, tier: Tier) -> Option<Rates> {
        match tier {
            Tier::Standard => Some(Rates {
                input: self.input?,
                cached_input: self.cached_input,
                cache_write: self.cache_write,
                output: self.output?,
                long: self.long,
            }),
            Tier::Batch => self.batch,
            Tier::Flex => self.flex,
            Tier::Priority => self.priority,
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.input.is_some() != self.output.is_some() {
            return Err("input and output belong together; an embedding model has output = 0".to_owned());
        }
        if self.input.is_none() && (self.cached_input.is_some() || self.cache_write.is_some() || self.long.is_some()) {
            return Err("has a price for a part of the prompt but none for the prompt".to_owned());
        }
        let tiers = [Tier::Standard, Tier::Batch, Tier::Flex, Tier::Priority];
        let rates = tiers.into_iter().filter_map(|tier| self.rates(tier));
        let prices = rates.flat_map(|rates| [Some(rates), rates.long.map(Rates::from)]).flatten();
        let mut prices = prices.flat_map(|rates| {
            [Some(rates.input), Some(rates.output), rates.cached_input, rates.cache_write].into_iter().flatten()
        });
        match prices.find(|&price| price > PRICE_MAX) {
            Some(price) => Err(format!("{price} pico-USD is more than a dollar per token; a wrong unit?")),
            None => Ok(()),
        }
    }
}

impl From<Long> for Rates {
    fn from(Long { input, cached_input, cache_write, output, .. }: Long) -> Self {
        Self { input, cached_input, cache_write, output, long: None }
    }
}

/// `name` without `-YYYY-MM-DD` or `-YYYYMMDD` at its end.
fn without_date(name: &str) -> Option<&str> {
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let date = |pattern: &[usize]| {
        let mut rest = name;
        for &width in pattern {
            let (before, part) = rest.rsplit_once('-')?;
            rest = Some(before).filter(|_| part.len() == width && is_digits(part))?;
        }
        Some(rest).filter(|rest| !rest.is_empty())
    };
    date(&[2, 2, 4]).or_else(|| date(&[8]))
}

#[cfg(test)]
mod tests;
