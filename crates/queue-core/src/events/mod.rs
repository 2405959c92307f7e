//! What happens to a job while it runs, for those who watch it: progress and tokens.
//!
//! Events are a convenience of the moment, never a record: the journal's rows tell the whole story afterwards.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod memory;
pub mod redis;
mod ring;

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::{error::ErrorClass, ids::JobId, state::State};

/// One thing that happened to a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventBody {
    /// A worker began an attempt: tokens that follow belong to it and to no other.
    AttemptStarted {
        /// Counted from 1.
        attempt: u32,
    },
    /// Text of the answer.
    Token {
        /// The attempt that it belongs to.
        attempt: u32,
        /// The step that produces it, e.g. `chat` or `map/0003`.
        step: String,
        /// The piece of text.
        text: String,
    },
    /// A call goes on with another model: text of its step that came before belongs to nothing any more.
    ModelSwitched {
        /// The attempt that it belongs to.
        attempt: u32,
        /// The step.
        step: String,
        /// The model that did not answer.
        from: String,
        /// The model that is asked now.
        to: String,
        /// Why: the class of the failure.
        class: ErrorClass,
    },
    /// How far the work is.
    Progress {
        /// Steps done.
        done: u32,
        /// Steps in all, as far as known.
        total: u32,
        /// The step that is running.
        step: String,
    },
    /// The job changed its state.
    State {
        /// The state it is in now.
        state: State,
    },
}

impl EventBody {
    /// Whether the job has reached a final state.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::State { state } if state.standing().is_final())
    }
}

/// An event with its number. Numbers grow within a job, so a reader can say where it stopped.
///
/// They are times: milliseconds since 1970 times 2,048, and one more than the last where that is not enough. So they
/// grow over processes as well, when another worker goes on with a job and when the process starts again. Where two
/// workers' clocks disagree by more than lay between their attempts, the second begins with smaller numbers; readers
/// then see a gap and begin anew, and miss nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobEvent {
    /// Position within the job's events. Not every number is given.
    pub sequence: u64,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// How far a running attempt is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub done: u32,
    /// Steps in all, as far as known.
    pub total: u32,
    /// The step that was running last.
    pub step: String,
}

/// What a reader gets when it begins to watch.
#[derive(Debug)]
pub struct Subscription {
    /// Events after the asked position that are still held, oldest first.
    pub replay: Vec<Arc<JobEvent>>,
    /// Whether events between the asked position and the first of `replay` are gone, or may be. What follows may then
    /// have smaller numbers than the asked position.
    pub gap: bool,
    /// Events from now on. Closes when events were lost on their way: subscribe again from where you are.
    pub live: broadcast::Receiver<Arc<JobEvent>>,
}

/// Where workers tell and readers watch. Losing everything in it loses no job and no result.
#[async_trait]
pub trait Events: Send + Sync {
    /// Tells whoever watches `job`. Never waits for a reader.
    fn publish(&self, job: JobId, body: EventBody);

    /// Watches `job` from behind `after` (`None`: from the oldest event that is held).
    async fn subscribe(&self, job: JobId, after: Option<u64>) -> Subscription;

    /// How far the attempt that began last is, as far as it told and that is still held.
    async fn progress(&self, job: JobId) -> Option<Progress>;

    /// Watches the end of every job: the id of each job that reached a final state, for long polls.
    fn finished(&self) -> broadcast::Receiver<JobId>;
}
