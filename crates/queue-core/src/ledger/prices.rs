//! What a call costs: integer prices by model, from a file.
//!
//! Prices are pico-USD per token, sums are made in 128 bits and rounded up once a call to nano-USD: nothing is ever a
//! float, and nothing that is unknown is ever zero.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{Nanousd, Usage};
use crate::time::{DAY_MS, Timestamp};

/// The prices that ship with this version.
const SHIPPED: &str = include_str!("../../prices.toml");

/// Highest price of a token that is believed, in pico-USD: a dollar. Above it somebody took another unit.
const PRICE_MAX: u64 = 1_000_000_000_000;

/// Highest fee of a call that is believed, in pico-USD: a thousand dollars.
const FEE_MAX: u64 = 1_000 * PRICE_MAX;

/// Pico-USD of one nano-USD.
const PICO_PER_NANO: i128 = 1_000;

/// Vendors that gateways put before a model's name. Others (`together/…`) host the same model at a price of their own.
const VENDORS: [&str; 7] = ["openai/", "azure/", "anthropic/", "gemini/", "mistral/", "deepseek/", "xai/"];

/// A model's limits and prices. Prices are pico-USD per token; what has none is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its name.
    #[serde(skip)]
    pub name: String,
    /// Tokens that prompt and answer may have together.
    pub context_window: Option<u64>,
    /// Tokens that an answer may have.
    pub max_output: Option<u64>,
    /// Other names with the same prices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Prompt tokens.
    pub input: Option<u64>,
    /// Prompt tokens that were found in the provider's cache; without it, as `input`.
    pub cached_input: Option<u64>,
    /// Prompt tokens that are written to it; without it, as `input`.
    pub cache_write: Option<u64>,
    /// Prompt tokens that are written to it to stay for longer; without it, as `cache_write`.
    pub cache_write_long: Option<u64>,
    /// Prompt tokens of audio; without it, a call with audio has no known cost.
    pub audio_in: Option<u64>,
    /// Answer tokens, thinking among them.
    pub output: Option<u64>,
    /// Answer tokens of audio; without it, a call with audio has no known cost.
    pub audio_out: Option<u64>,
    /// A fee for each call, in pico-USD, in every tier.
    pub per_call: Option<u64>,
    /// Prices of long prompts.
    pub long: Option<Long>,
    /// Prices of files of requests.
    pub batch: Option<Rates>,
    /// Prices of the cheap and slow tier.
    pub flex: Option<Rates>,
    /// Prices of the dear and fast tier.
    pub priority: Option<Rates>,
}

/// Which of a provider's service tiers a call was made in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
    /// One that this version does not know: nobody knows its prices.
    Other,
}

impl Tier {
    /// Every tier.
    pub const ALL: [Self; 5] = [Self::Standard, Self::Batch, Self::Flex, Self::Priority, Self::Other];

    /// The word of the API and of the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Batch => "batch",
            Self::Flex => "flex",
            Self::Priority => "priority",
            Self::Other => "other",
        }
    }

    /// The tier with this word of the journal.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == word)
    }

    /// The tier that a provider or a request means by `service_tier`. `scale` is bought ahead and metered at the usual
    /// price; `on_demand` is Groq's word for the usual one.
    pub fn of_service_tier(word: &str) -> Self {
        match word {
            "" | "auto" | "default" | "standard" | "standard_only" | "scale" | "on_demand" => Self::Standard,
            "batch" => Self::Batch,
            "flex" => Self::Flex,
            "priority" => Self::Priority,
            _ => Self::Other,
        }
    }
}

/// Prices of all known models.
#[derive(Clone, Debug, Default)]
pub struct PriceBook {
    version: String,
    as_of: String,
    /// The days of all files in it.
    as_of_all: Vec<String>,
    models: HashMap<String, Model>,
    aliases: HashMap<String, String>,
    /// What a model costs that has no price here.
    default: Option<Rates>,
}

/// A price file that cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PriceError(pub String);

/// The file, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    #[serde(default)]
    as_of: String,
    #[serde(default)]
    models: BTreeMap<String, Model>,
}

/// Prices of a service tier, as those of a [`Model`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the fields of `Model`
pub struct Rates {
    pub input: u64,
    pub cached_input: Option<u64>,
    pub cache_write: Option<u64>,
    pub cache_write_long: Option<u64>,
    pub audio_in: Option<u64>,
    pub output: u64,
    pub audio_out: Option<u64>,
    pub long: Option<Long>,
}

/// Prices of the whole request once its prompt is longer than `above` tokens, as those of a [`Model`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the fields of `Model`
pub struct Long {
    pub above: u64,
    pub input: u64,
    pub cached_input: Option<u64>,
    pub cache_write: Option<u64>,
    pub cache_write_long: Option<u64>,
    pub audio_in: Option<u64>,
    pub output: u64,
    pub audio_out: Option<u64>,
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
        Self::of(version, as_of, models.into_iter().map(|(name, model)| Model { name, ..model }))
    }

    /// Prices from elsewhere, checked as those of a file are.
    pub fn of(version: String, as_of: String, models: impl IntoIterator<Item = Model>) -> Result<Self, PriceError> {
        let as_of_all = vec![as_of.clone()];
        let mut book = Self { version, as_of, as_of_all, ..Self::default() };
        for model in models {
            model.check().map_err(|reason| PriceError(format!("models.{}: {reason}", model.name)))?;
            book.insert(model)?;
        }
        Ok(book)
    }

    /// The file that [`PriceBook::parse`] reads these prices from.
    pub fn to_toml(&self) -> Result<String, PriceError> {
        let models = self.models.iter().map(|(name, model)| (name.clone(), model.clone())).collect();
        let file = File { version: self.version.clone(), as_of: self.as_of.clone(), models };
        toml::to_string(&file).map_err(|error| PriceError(error.to_string()))
    }

    /// The same prices, and one for models and tiers that have none.
    pub fn with_default(self, rates: Rates) -> Self {
        Self { default: Some(rates), ..self }
    }

    /// These prices with those of `other` over them, model by model. Both versions are kept: `2026-11-21+mine`.
    pub fn with_overrides(mut self, other: Self) -> Self {
        self.version = format!("{}+{}", self.version, other.version);
        // A name means what the later file says, be it a model there or an alias.
        self.aliases.retain(|name, _| !other.models.contains_key(name));
        self.models.retain(|name, _| !other.aliases.contains_key(name));
        self.aliases.extend(other.aliases);
        self.models.extend(other.models);
        self.as_of_all.extend(other.as_of_all);
        self
    }

    /// Every model, by name.
    pub fn models(&self) -> Vec<&Model> {
        let mut models: Vec<_> = self.models.values().collect();
        models.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        models
    }

    /// Which prices these are; every ledger row keeps it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The day on which the prices were read, as the file says.
    pub fn as_of(&self) -> &str {
        &self.as_of
    }

    /// How many days before `now` the oldest of its files was read; `None` where one does not say.
    pub fn age_days(&self, now: Timestamp) -> Option<i64> {
        let read = |day: &String| format!("{day}T00:00:00Z").parse::<Timestamp>().ok();
        let days: Option<Vec<_>> = self.as_of_all.iter().map(read).collect();
        days?.into_iter().map(|day| (now.0 - day.0).div_euclid(DAY_MS)).max()
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

    /// What one call with `usage` of `model` costs in a service tier; `None` when its price there is unknown, also that
    /// of a part of it that costs apart (audio).
    pub fn cost_in(&self, tier: Tier, model: &str, usage: &Usage) -> Option<Nanousd> {
        let rates = self.rates(tier, model)?;
        let model = self.model(model);
        let rates = rates.long.filter(|long| usage.tokens_in > long.above).map_or(rates, Rates::from);
        let parts = Parts::of(usage);
        // Audio costs many times what text does: without a price of its own nothing is guessed.
        let of_audio = |tokens: u64, price: Option<u64>| if tokens == 0 { Some(0) } else { price };
        let write = rates.cache_write.unwrap_or(rates.input);
        let sum = [
            (parts.text_in, rates.input),
            (parts.cached, rates.cached_input.unwrap_or(rates.input)),
            (parts.written, write),
            (parts.written_long, rates.cache_write_long.unwrap_or(write)),
            (parts.audio_in, of_audio(parts.audio_in, rates.audio_in)?),
            (parts.text_out, rates.output),
            (parts.audio_out, of_audio(parts.audio_out, rates.audio_out)?),
            (1, model.and_then(|model| model.per_call).unwrap_or(0)),
        ];
        let pico: i128 = sum.iter().map(|&(tokens, price)| i128::from(tokens) * i128::from(price)).sum();
        let nano = pico / PICO_PER_NANO + i128::from(pico % PICO_PER_NANO > 0);
        Some(Nanousd(i64::try_from(nano).unwrap_or(i64::MAX)))
    }

    /// The prices of a model in a tier, or those of whatever has none; `None` where nobody knows them.
    pub fn rates(&self, tier: Tier, model: &str) -> Option<Rates> {
        self.model(model).and_then(|model| model.rates(tier)).or(self.default)
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

/// A call's tokens, each in one part only.
struct Parts {
    text_in: u64,
    cached: u64,
    written: u64,
    written_long: u64,
    audio_in: u64,
    text_out: u64,
    audio_out: u64,
}

impl Parts {
    /// Cached, written and audio tokens are within the prompt, so they are taken out of it; more of them than prompt is a
    /// provider's mistake and must not make the rest negative. Thinking is within the answer and adds nothing.
    fn of(usage: &Usage) -> Self {
        let cached = usage.tokens_cached.min(usage.tokens_in);
        let all_written = usage.tokens_cache_write.min(usage.tokens_in - cached);
        let written_long = usage.tokens_cache_write_long.min(all_written);
        let audio_in = usage.tokens_audio_in.min(usage.tokens_in - cached - all_written);
        let audio_out = usage.tokens_audio_out.min(usage.tokens_out);
        Self {
            text_in: usage.tokens_in - cached - all_written - audio_in,
            cached,
            written: all_written - written_long,
            written_long,
            audio_in,
            text_out: usage.tokens_out - audio_out,
            audio_out,
        }
    }
}

impl Model {
    /// Its prices in a tier; `None` where they are not known.
    pub fn rates(&self, tier: Tier) -> Option<Rates> {
        match tier {
            Tier::Standard => Some(Rates {
                input: self.input?,
                cached_input: self.cached_input,
                cache_write: self.cache_write,
                cache_write_long: self.cache_write_long,
                audio_in: self.audio_in,
                output: self.output?,
                audio_out: self.audio_out,
                long: self.long,
            }),
            Tier::Batch => self.batch,
            Tier::Flex => self.flex,
            Tier::Priority => self.priority,
            Tier::Other => None,
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.input.is_some() != self.output.is_some() {
            return Err("input and output belong together; an embedding model has output = 0".to_owned());
        }
        let parts = [self.cached_input, self.cache_write, self.cache_write_long, self.audio_in, self.audio_out];
        let has_parts = parts.iter().any(Option::is_some) || self.long.is_some() || self.per_call.is_some();
        if self.input.is_none() && has_parts {
            return Err("has a price for a part of the prompt but none for the prompt".to_owned());
        }
        let rates = Tier::ALL.into_iter().filter_map(|tier| self.rates(tier));
        let prices = rates.flat_map(|rates| [Some(rates), rates.long.map(Rates::from)]).flatten();
        let mut prices = prices.flat_map(Rates::prices);
        if let Some(price) = prices.find(|&price| price > PRICE_MAX) {
            return Err(format!("{price} pico-USD is more than a dollar per token; a wrong unit?"));
        }
        match self.per_call.filter(|&fee| fee > FEE_MAX) {
            Some(fee) => {
                Err(format!("per_call: {fee} pico-USD is more than a thousand dollars per call; a wrong unit?"))
            }
            None => Ok(()),
        }
    }
}

impl Rates {
    fn prices(self) -> impl Iterator<Item = u64> {
        let others = [self.cached_input, self.cache_write, self.cache_write_long, self.audio_in, self.audio_out];
        [self.input, self.output].into_iter().chain(others.into_iter().flatten())
    }
}

impl From<Long> for Rates {
    fn from(long: Long) -> Self {
        let Long { above: _, input, cached_input, cache_write, cache_write_long, audio_in, output, audio_out } = long;
        Self { input, cached_input, cache_write, cache_write_long, audio_in, output, audio_out, long: None }
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
