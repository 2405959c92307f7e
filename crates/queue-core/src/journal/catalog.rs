//! What operators set and processes register.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::JournalError;
use crate::{
    credentials::CredentialPolicy,
    ids::{Generation, JobId, Name, SessionId},
    job::Kind,
    limiter::SetLimit,
    request_limits::Rates,
    time::Timestamp,
};

/// A queue as its operators set it. A queue exists once it is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueSettings {
    /// Whether claims skip it.
    pub paused: bool,
    /// When the pause ends by itself.
    pub paused_until: Option<Timestamp>,
    /// Why it is paused.
    pub reason: Option<String>,
    /// Whether new jobs are refused, so that it runs empty.
    pub draining: bool,
    /// Jobs of it that may run at once, over all workers.
    pub concurrency: Option<u32>,
    /// Jobs of one tenant with the same concurrency key that may run at once; [`KEY_CONCURRENCY_DEFAULT`] unless set.
    pub key_concurrency: Option<u32>,
    /// Longest time of one attempt of a job that names none, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// How long its settled jobs are kept, in milliseconds; as all are unless set.
    #[serde(default)]
    pub retention_ms: Option<u64>,
}

/// Jobs of one concurrency key that run at once where the queue says nothing: a key is mostly there to keep two jobs
/// apart.
pub const KEY_CONCURRENCY_DEFAULT: u32 = 1;

impl QueueSettings {
    /// Jobs of one concurrency key that may run at once: at least 1.
    pub fn key_limit(&self) -> u32 {
        self.key_concurrency.unwrap_or(KEY_CONCURRENCY_DEFAULT).max(1)
    }
}

/// Settings with their version: a dispatcher ignores versions older than the one it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// Grows with every change.
    pub version: i64,
    /// The settings.
    pub value: T,
}

/// What operators set for a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantSettings {
    /// Live jobs that it may have; `None`: any number.
    pub backlog_max: Option<u64>,
    /// Turns of its lanes in a round, 1..=[`WEIGHT_MAX`](crate::dispatcher::WEIGHT_MAX).
    pub weight: u32,
    /// Whether claims skip its lanes.
    pub paused: bool,
    /// When the pause ends by itself.
    pub paused_until: Option<Timestamp>,
    /// Why it is paused.
    pub reason: Option<String>,
    /// What it may do without a usable key of its own.
    pub credential_policy: CredentialPolicy,
    /// What it may ask for.
    pub rules: TenantRules,
    /// How often its users and analysts together may ask; where nothing is said, as configured for each tenant.
    pub rates: Rates,
}

/// What a tenant may ask for: checked when a job is submitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TenantRules {
    /// Longest answer that a request may allow, in tokens; requests that say nothing are given it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Kinds that it may submit; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<Kind>,
    /// Models that it may ask for: names, or prefixes followed by `*`; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Names of its own for models.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<String, String>,
    /// The chat model of its jobs that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_model: Option<String>,
}

impl TenantRules {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The model that it means by this name.
    pub fn model<'m>(&'m self, named: &'m str) -> &'m str {
        self.aliases.get(named).map_or(named, String::as_str)
    }

    /// Whether it may ask for this model.
    pub fn allows_model(&self, model: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => model.starts_with(prefix),
            None => pattern == model,
        };
        self.models.is_empty() || self.models.iter().any(fits)
    }

    /// Whether it may submit this kind.
    pub fn allows_kind(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }
}

impl Default for TenantSettings {
    fn default() -> Self {
        Self {
            backlog_max: None,
            weight: 1,
            paused: false,
            paused_until: None,
            reason: None,
            rules: TenantRules::default(),
            credential_policy: CredentialPolicy::default(),
            rates: Rates::default(),
        }
    }
}

/// Who decides whether a target's breaker is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BreakerMode {
    /// Its calls.
    #[default]
    Auto,
    /// An operator: it is open.
    Open,
    /// An operator: it is closed, whatever its calls come to.
    Close,
}

impl BreakerMode {
    /// The word of the API and of the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Open => "open",
            Self::Close => "close",
        }
    }

    /// The mode with this word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Auto, Self::Open, Self::Close].into_iter().find(|mode| mode.as_str() == word)
    }
}

/// What operators set for a target (`provider:model:credential`), or of its limit for all targets of a pattern
/// ([`Target::is_pattern`](crate::route::Target::is_pattern)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetSettings {
    /// Whether nobody may call it.
    pub paused: bool,
    /// When the pause ends by itself.
    pub paused_until: Option<Timestamp>,
    /// Why it is paused.
    pub reason: Option<String>,
    /// Who decides about its breaker.
    pub breaker: BreakerMode,
    /// What it may take instead of what is configured.
    pub limit: SetLimit,
}

/// Why a target waits whose breaker somebody holds open without a word.
const HELD_OPEN: &str = "an operator holds its breaker open";
/// Why a target waits that somebody paused without a word.
const PAUSED: &str = "an operator has paused it";

impl TargetSettings {
    /// Whether an operator keeps everybody from it, until when by itself, and why. The pause may have ended since.
    pub fn held(&self) -> (bool, Option<Timestamp>, String) {
        let said = |usual: &str| self.reason.clone().unwrap_or_else(|| usual.to_owned());
        match self.breaker {
            BreakerMode::Open => (true, None, said(HELD_OPEN)),
            BreakerMode::Auto | BreakerMode::Close => (self.paused, self.paused_until, said(PAUSED)),
        }
    }

    /// Until when and why an operator keeps everybody from it at `now`.
    pub fn hold(&self, now: Timestamp) -> Option<(Option<Timestamp>, String)> {
        let (held, until, reason) = self.held();
        (held && until.is_none_or(|until| until > now)).then_some((until, reason))
    }
}

/// How many live jobs a tenant has and may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The cap of its settings.
    pub max: Option<u64>,
    /// Jobs that are accepted and have not ended: waiting, running, due later.
    pub live: u64,
}

/// A worker process as the registry knows it.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerSession {
    /// The session.
    pub id: SessionId,
    /// Host and process, for people.
    pub host: String,
    /// The binary's version.
    pub version: String,
    /// Its slots.
    pub slots: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// Whether it was ordered to claim no more ([`Orders::order_drain`](super::Orders::order_drain)).
    pub draining: bool,
}

/// How far the dispatcher's life is filled, as the scheduler that fills it has noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filling {
    /// The life that the journal has begun last.
    pub generation: Generation,
    /// When that life began, by the journal's clock. A filler that goes on leaves rows accepted later alone: whoever
    /// accepted them pushed them. Not written by a note.
    pub began_at: Timestamp,
    /// Grows with every note: who fills a life and whose beat is not the journal's any more has been relieved.
    pub beat: i64,
    /// Live rows up to this one, in the order of [`LiveScan`](super::LiveScan), have been pushed; `None`: none yet.
    pub after: Option<(Timestamp, JobId)>,
    /// All have been pushed.
    pub done: bool,
}

/// What operators set and processes register. At most 15 verbs.
#[async_trait]
pub trait Catalog: Send + Sync {
    /// Every queue that was ever named, with its settings.
    async fn queues(&self) -> Result<BTreeMap<Name, Versioned<QueueSettings>>, JournalError>;

    /// Replaces a queue's settings and returns their new version.
    async fn set_queue(&self, queue: &Name, settings: QueueSettings) -> Result<i64, JournalError>;

    /// Every tenant for whom something was set.
    async fn tenants(&self) -> Result<BTreeMap<Name, Versioned<TenantSettings>>, JournalError>;

    /// Replaces a tenant's settings and returns their new version.
    async fn set_tenant(&self, tenant: &Name, settings: TenantSettings) -> Result<i64, JournalError>;

    /// Every target for which something was set.
    async fn targets(&self) -> Result<BTreeMap<Name, Versioned<TargetSettings>>, JournalError>;

    /// Replaces a target's settings and returns their new version.
    async fn set_target(&self, target: &Name, settings: TargetSettings) -> Result<i64, JournalError>;

    /// How many live jobs a tenant has and may have. Cost does not depend on the number of jobs.
    async fn backlog(&self, tenant: &Name) -> Result<Backlog, JournalError>;

    /// Tenants by name, behind one, at most `limit`, each with its live jobs: those for whom something was set, who have or had
    /// jobs, or a key. Cost does not depend on the number of jobs.
    async fn known_tenants(&self, behind: Option<&Name>, limit: usize) -> Result<Vec<(Name, u64)>, JournalError>;

    /// Registers a worker process.
    async fn open_session(&self, session: WorkerSession) -> Result<(), JournalError>;

    /// Removes it; its leases are free.
    async fn close_session(&self, id: SessionId) -> Result<(), JournalError>;

    /// Worker processes that registered and did not leave.
    async fn sessions(&self) -> Result<Vec<WorkerSession>, JournalError>;

    /// How far the last life is filled. Before the first life there is nothing to fill.
    async fn filling(&self) -> Result<Filling, JournalError>;

    /// Notes how far a life is filled, at the beat behind `filling.beat`, and returns whether that was noted: not if
    /// somebody else has noted something since, or a new life has begun.
    async fn note_filling(&self, filling: Filling) -> Result<bool, JournalError>;
}
