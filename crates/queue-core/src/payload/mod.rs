//! What a payload must look like, by kind: checked at submit, read again by the handler.

pub mod analysis;
pub mod cache;
pub mod embedding;
mod fields;
pub mod llm;
mod messages;
mod model;
pub mod probe;
mod sampling;
mod steps;
#[cfg(test)]
mod table;
mod template;
mod tools;
mod tree;

use serde::Serialize;

use crate::{ids::Name, job::Kind, ledger::PriceBook, route::Routes};

pub use self::model::compile;

/// One thing wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer to the field, e.g. `/payload/messages/0/role`.
    pub pointer: String,
    /// What is wrong and what is allowed.
    pub reason: String,
}

impl FieldError {
    /// `reason` at `pointer`.
    pub fn at(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), reason: reason.into() }
    }
}

/// What validation needs to know of the installation.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Who serves which model.
    pub routes: &'a Routes,
    /// Windows of known models.
    pub prices: &'a PriceBook,
    /// Whether `probe` jobs are allowed.
    pub probe_jobs: bool,
}

/// Checks a payload (JSON text) and says what target the job loads. Pointers in errors begin with `/payload`.
pub fn validate(kind: Kind, payload: &str, around: Surroundings<'_>) -> Result<Name, Vec<FieldError>> {
    match kind {
        Kind::Llm => llm::validate(payload, around),
        Kind::Embedding => embedding::validate(payload, around),
        Kind::Analysis => analysis::validate(payload, around),
        Kind::Probe => probe::validate(payload, around),
    }
}
