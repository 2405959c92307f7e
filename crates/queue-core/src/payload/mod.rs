//! What a payload must look like, by kind: checked at submit, read again by the handler.

pub mod analysis;
pub mod cache;
mod chain;
pub mod custom;
pub mod embedding;
mod fields;
pub mod http;
mod items;
pub mod llm;
mod messages;
mod model;
pub mod packed;
pub mod probe;
pub mod quote;
pub mod rules;
mod sampling;
mod steps;
#[cfg(test)]
mod table;
mod template;
mod tools;
mod tree;

use serde::Serialize;
use serde_json::Value;

use crate::{
    egress::Allowed,
    fallback::Link,
    ids::Name,
    job::Kind,
    ledger::{Nanousd, PriceBook},
    route::{self, Routes, Target},
};

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
    /// Whether those may harm the worker that runs them.
    pub probe_faults: bool,
    /// Where URLs of `http` jobs may lead.
    pub outbound: &'a Allowed,
}

/// What a job loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loads {
    /// The lane's target: see [`route::lane_of`].
    pub target: Name,
    /// The job's own fallback chain.
    pub fallback: Vec<Link>,
    /// What its payload says that it may cost.
    pub max_cost: Option<Nanousd>,
}

impl Loads {
    /// A job that loads this and has no chain.
    fn alone(target: Name) -> Self {
        Self { target, fallback: Vec::new(), max_cost: None }
    }

    /// A job whose calls go to these targets in order, by the chain of its own where that is not its payload's.
    fn chained(targets: &[Target], fallback: Vec<Link>) -> Self {
        Self { target: route::lane_of(targets), fallback, max_cost: None }
    }
}

/// Checks a payload and the fallback chain beside it (both JSON text) and says what the job loads. Pointers in errors
/// begin with `/payload` or `/fallback`.
pub fn validate(
    kind: Kind,
    payload: &str,
    fallback: Option<&str>,
    around: Surroundings<'_>,
) -> Result<Loads, Vec<FieldError>> {
    let chain = fallback.map(serde_json::from_str::<Value>).transpose();
    let chain = chain.map_err(|error| vec![FieldError::at(FALLBACK, format!("is not JSON: {error}"))])?;
    let chain = chain.as_ref().filter(|chain| !chain.is_null());
    match (kind, chain) {
        (Kind::Llm, chain) => llm::validate(payload, chain, around),
        (Kind::Analysis, chain) => analysis::validate(payload, chain, around),
        (Kind::Embedding | Kind::Probe | Kind::Http | Kind::Custom, Some(_)) => {
            Err(vec![FieldError::at(FALLBACK, NOT_CHAT)])
        }
        (Kind::Embedding, None) => embedding::validate(payload, around).map(Loads::alone),
        (Kind::Probe, None) => probe::validate(payload, around).map(Loads::alone),
        (Kind::Http, None) => http::validate(payload, around).map(Loads::alone),
        (Kind::Custom, None) => custom::validate(payload).map(Loads::alone),
    }
}

/// Where a job's own chain stands.
const FALLBACK: &str = "/fallback";
/// Why other kinds have none.
const NOT_CHAT: &str =
    "is for chat: vectors of two models cannot be compared, and other kinds ask no model. Leave it out";
