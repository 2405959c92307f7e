//! What a call costs: integer prices by model, from a file.

use super::{Nanousd, Usage};

/// A model's window and prices, in billionths of a thousandth of a dollar (pico-USD) per token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Tokens that prompt and answer may have together.
    pub context_window: Option<u64>,
}

/// Prices of all known models.
#[derive(Clone, Debug, Default)]
pub struct PriceBook {}

/// A price file that cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PriceError(pub String);

impl PriceBook {
    /// The prices that ship with this version.
    pub fn shipped() -> Self {
        Self::default()
    }

    /// The model with this name.
    pub fn model(&self, _name: &str) -> Option<&Model> {
        None
    }

    /// What `usage` of `model` costs; `None` when its price is unknown.
    pub fn cost(&self, _model: &str, _usage: &Usage) -> Option<Nanousd> {
        None
    }
}
