//! A dead letter as it stands in an archive: everything that the journal had of it but its money, which stays there.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    error::JobError,
    fallback::Link,
    ids::{CallId, Epoch, JobId, Name},
    job::Kind,
    ledger::Nanousd,
    time::Timestamp,
};

/// A dead letter with its payload, its attempts and the answers that were paid for: one line of an archive's object. Fields are
/// those of [`Job`](crate::job::Job) and mean the same. A line with a field that this version does not know is refused: nothing is
/// put back by halves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "see `Job`")]
pub struct Letter {
    pub id: JobId,
    pub tenant: Name,
    pub queue: Name,
    pub kind: Kind,
    pub target: Name,
    pub priority: u8,
    pub epoch: Epoch,
    pub attempts: u32,
    pub max_attempts: u32,
    pub recoveries: u32,
    pub releases: u32,
    pub redrives: u32,
    pub run_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_by: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    pub accepted_at: Timestamp,
    pub finished_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    pub error: JobError,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<String>,
    /// Sums over its calls; the calls themselves stay in the ledger.
    pub sums: Sums,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_nanousd: Option<Nanousd>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    pub payload: Body,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<Link>,
    /// How its attempts ended, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Past>,
    /// Answers that were paid for, which another life finds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memos: Vec<Kept>,
}

/// Sums over the calls of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "see `Usage`")]
pub struct Sums {
    pub calls: u64,
    pub tokens_in: u64,
    pub tokens_out: u64,
    pub tokens_cached: u64,
    pub tokens_cache_write: u64,
    pub tokens_reasoning: u64,
    pub cost_nanousd: Nanousd,
    /// A call had no price: the sum is a lower bound.
    pub cost_unknown: bool,
}

/// An attempt that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "see `AttemptRecord`")]
pub struct Past {
    pub epoch: Epoch,
    pub number: u32,
    pub outcome: String,
    pub session: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    pub finished_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
}

/// A kept answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "see `Memo`")]
pub struct Kept {
    pub call_id: CallId,
    pub request_hash: [u8; 32],
    pub body: Body,
}

/// Bytes as they were sent: text where they are text, so that an archive can be read and searched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Body {
    /// UTF-8.
    Text(String),
    /// Anything else, in base64.
    Binary {
        /// RFC 4648, with padding.
        base64: String,
    },
}

impl From<&[u8]> for Body {
    fn from(bytes: &[u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Binary { base64: STANDARD.encode(bytes) },
        }
    }
}

impl Body {
    /// Characters as they are kept.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) | Self::Binary { base64: text } => text.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes.
    ///
    /// # Errors
    /// Of base64 that is none.
    pub fn bytes(&self) -> Result<Bytes, String> {
        match self {
            Self::Text(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
            Self::Binary { base64 } => {
                STANDARD.decode(base64).map(Bytes::from).map_err(|error| format!("base64: {error}"))
            }
        }
    }
}
