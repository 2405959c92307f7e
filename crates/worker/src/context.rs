//! What a handler may do: ask a provider, tell how far it is, learn that it should stop. It contains no queue calls.

use async_trait::async_trait;
use bytes::Bytes;
use queue_core::error::JobError;

/// Runs the jobs of one kind.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Does the work and returns its result as JSON text. Dropped when the job is cancelled, lost or timed out.
    async fn run(&self, cx: &JobContext) -> Result<Bytes, JobError>;
}

/// When the answer of a call becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the handler sees it: for jobs of many calls.
    Now,
    /// With the job's settle: for jobs whose only call this is.
    WithSettle,
}

/// One attempt, as its handler sees it.
pub struct JobContext {}
