//! What processes say to each other about events.
//!
//! ```text
//! <prefix>:events1:ask           asks, JSON: everybody hears them
//! <prefix>:events1:to:<process>  answers, JSON: one process hears them
//! <prefix>:events1:ends          ends: the sender's id and the ids of jobs, 16 bytes each
//! ```
//!
//! The number is the version of all this. Nothing is kept in Redis, and a message that cannot be read is left out: what
//! it said is asked for again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    events::{JobEvent, Progress},
    ids::JobId,
};

/// Most jobs in one ask.
pub(super) const ASK_MAX: usize = 512;
/// Most ends in one message: 64 KiB.
pub(super) const ENDS_MAX: usize = 4_095;

/// Names of channels.
#[derive(Clone)]
pub(super) struct Channels {
    prefix: String,
    pub(super) ask: String,
    pub(super) ends: String,
}

impl Channels {
    pub(super) fn new(prefix: &str) -> Self {
        let prefix = format!("{prefix}:events1:");
        Self { ask: format!("{prefix}ask"), ends: format!("{prefix}ends"), prefix }
    }

    /// What `process` is told.
    pub(super) fn to(&self, process: Uuid) -> String {
        format!("{}to:{}", self.prefix, process.simple())
    }
}

/// What a process wants to know.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Ask {
    /// Who asks.
    pub(super) asker: Uuid,
    /// Jobs whose events it wants, for a few seconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) watches: Vec<Watch>,
    /// Jobs whose progress it wants, now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) progress: Vec<JobId>,
    /// Whether it wants to hear of ends, for a few seconds.
    #[serde(default)]
    pub(super) ends: bool,
}

/// One job that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Watch {
    pub(super) job: JobId,
    /// The process that the asker's events come from, if any do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<Uuid>,
    /// The last event that it has from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<u64>,
}

/// What a process is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Who tells.
    pub(super) source: Uuid,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) pieces: Vec<Piece>,
    /// Answers to the asks for progress. Who does not run a job says nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) progress: Vec<(JobId, Option<Progress>)>,
}

/// Events of one job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) job: JobId,
    /// The number before the first of `events`: whoever has less has missed something.
    pub(super) previous: u64,
    /// Whether events before `previous` that were asked for are gone.
    pub(super) gap: bool,
    /// Whether there was nothing before `previous`.
    pub(super) begins: bool,
    /// Whether this is (part of) an answer to an ask, or comes behind a gap, rather than telling only what happens now.
    pub(super) fresh: bool,
    /// Whether more follows at once.
    pub(super) more: bool,
    /// The number of the last beginning of an attempt or change of state: who has the highest runs the job.
    pub(super) turn: u64,
    /// In the last piece of an answer: how far the attempt is, as the event that said it may be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) progress: Option<Progress>,
    /// Oldest first.
    pub(super) events: Vec<Arc<JobEvent>>,
}

/// A message about ends.
pub(super) fn ends_to_bytes(source: Uuid, jobs: &[JobId]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 * (jobs.len() + 1));
    bytes.extend_from_slice(source.as_bytes());
    jobs.iter().for_each(|job| bytes.extend_from_slice(job.as_bytes()));
    bytes
}

/// Who sent a message about ends, and which jobs ended.
pub(super) fn ends_of_bytes(bytes: &[u8]) -> Option<(Uuid, impl Iterator<Item = JobId>)> {
    let mut ids = bytes.chunks_exact(16).filter_map(|id| Uuid::from_slice(id).ok());
    Some((ids.next()?, ids.map(JobId)))
}
