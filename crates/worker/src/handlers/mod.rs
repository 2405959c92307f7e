//! What each kind of job does with one attempt.

mod analysis;
mod custom;
mod embedding;
mod http;
mod llm;
mod probe;
mod structured;

use std::sync::Arc;

use queue_core::{
    error::{ErrorClass, JobError},
    job::Kind,
    payload::{FieldError, custom::check_handler},
};

pub use self::custom::input;
use crate::context::Handler;

/// The handler of each kind.
pub struct Handlers {
    llm: Arc<dyn Handler>,
    embedding: Arc<dyn Handler>,
    analysis: Arc<dyn Handler>,
    probe: Arc<dyn Handler>,
    http: Arc<dyn Handler>,
    custom: custom::Custom,
}

impl Default for Handlers {
    fn default() -> Self {
        Self::new()
    }
}

impl Handlers {
    /// All handlers of this version.
    pub fn new() -> Self {
        Self {
            llm: Arc::new(llm::Llm),
            embedding: Arc::new(embedding::Embedding),
            analysis: Arc::new(analysis::Analysis),
            probe: Arc::new(probe::Probe),
            http: Arc::new(http::Http),
            custom: custom::Custom::default(),
        }
    }

    /// With a handler of one's own, which runs jobs of kind `custom` that name it. The error says what is wrong with the name.
    pub fn with(mut self, name: &str, handler: impl Handler + 'static) -> Result<Self, String> {
        self.custom.0.insert(check_handler(name)?, Arc::new(handler));
        Ok(self)
    }

    /// The kinds that these handlers can run.
    pub fn kinds(&self) -> Vec<Kind> {
        let runs = |kind: &Kind| *kind != Kind::Custom || !self.custom.0.is_empty();
        Kind::ALL.into_iter().filter(runs).collect()
    }

    /// The handler of `kind`.
    pub fn of(&self, kind: Kind) -> Arc<dyn Handler> {
        match kind {
            Kind::Llm => self.llm.clone(),
            Kind::Embedding => self.embedding.clone(),
            Kind::Analysis => self.analysis.clone(),
            Kind::Probe => self.probe.clone(),
            Kind::Http => self.http.clone(),
            Kind::Custom => Arc::new(self.custom.clone()),
        }
    }
}

/// A payload that passed validation and does not read any more: accepted by another version.
fn unreadable(errors: Vec<FieldError>) -> JobError {
    let told: Vec<_> = errors.iter().map(|error| format!("{} {}", error.pointer, error.reason)).collect();
    JobError::new(ErrorClass::BadRequest, "payload", told.join("; "))
}

/// The payload's text.
fn text_of(payload: &[u8]) -> Result<&str, JobError> {
    std::str::from_utf8(payload).map_err(|error| JobError::new(ErrorClass::BadRequest, "payload", error.to_string()))
}

/// A result as JSON text.
fn encoded<T: serde::Serialize>(result: &T) -> Result<bytes::Bytes, JobError> {
    serde_json::to_vec(result)
        .map(bytes::Bytes::from)
        .map_err(|error| JobError::new(ErrorClass::Internal, "encode", error.to_string()))
}
