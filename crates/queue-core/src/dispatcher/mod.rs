//! The index: who runs what next. It may vanish at any moment and is rebuilt from the journal.
//!
//! **Who killed a worker.** When one dies, nobody knows which of its jobs did it. What had not started did not; of the
//! rest only the likeliest are blamed, those of the highest [`Suspicion`], and a recovery counts only for whom it blames.
//! A job that was blamed twice is a *suspect*: it is claimed like any other, beside other suspects too. If it dies as the
//! only suspect, it is convicted. If several die together, they are *isolated* instead: a process runs one such job at a
//! time, so the next death blames one alone. A killer so costs three processes, or four where another suspect died with
//! it in the third. A settle ends all suspicion. Leases that end while their session lives are judged as if it had died
//! now, with everything that it holds.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod memory;
pub mod redis;
mod tracks;

use async_trait::async_trait;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::{
    ids::{Epoch, Generation, JobId, Name, Nonce, SessionId},
    job::{Job, Kind, NewJob},
    journal::{QueueSettings, Recovery, TargetSettings, TenantSettings, Versioned},
    time::Timestamp,
};

/// Jobs due later than this wait in the journal only; the scheduler promotes them as they come near.
pub const HORIZON_MS: i64 = 60_000;
/// How long a claim lives without a renewal.
pub const LEASE_MS: i64 = 30_000;
/// How long a worker process lives without a word: its leases return after this, not at the end of the lease.
pub const SESSION_MS: i64 = 15_000;
/// A session whose process has closed its connections, and says nothing, is over after this: long enough for a process
/// that lives to connect again.
pub const CLOSED_MS: i64 = 3_000;
/// Most sessions that one question may name: bounds the time for which the dispatcher does nothing else.
pub const ASKED_MAX_SESSIONS: usize = 1_000;
/// Most jobs in one claim: bounds the load that follows it and the latency of the step.
pub const CLAIM_MAX_JOBS: usize = 512;
/// Most entries in one push: bounds how long claims wait behind it.
pub const PUSH_MAX_ENTRIES: usize = 1_000;

/// Largest weight of a tenant: keeps a turn of the heaviest lane above one thousandth of a round.
pub const WEIGHT_MAX: u32 = 1_000;

/// How likely it is that a job ends the process that runs it: see the head of this file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suspicion {
    /// Blamed once at most.
    #[default]
    None,
    /// Blamed twice.
    Suspect,
    /// Blamed with other suspects: the only such job in its process.
    Isolated,
}

impl Suspicion {
    /// Its number in Redis and in the lease file.
    fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Suspect => 1,
            Self::Isolated => 2,
        }
    }

    fn numbered(number: u8) -> Option<Self> {
        [Self::None, Self::Suspect, Self::Isolated].into_iter().find(|one| one.number() == number)
    }
}

/// A job as the dispatcher holds it: everything that decides its turn, and nothing of its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The job.
    pub id: JobId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its queue.
    pub queue: Name,
    /// Half of its lane.
    pub tenant: Name,
    /// The other half of its lane.
    pub target: Name,
    /// What a worker must serve to be offered it.
    pub kind: Kind,
    /// 0..=9.
    pub priority: u8,
    /// When it is due.
    pub run_at: Timestamp,
    /// Whether it is blamed before others, and kept apart.
    pub suspicion: Suspicion,
    /// Of the jobs of its queue and tenant with this key, at most [`QueueSettings::key_concurrency`] run at once.
    pub key: Option<Name>,
}

/// The entry of a job as its row says.
impl From<&Job> for Entry {
    fn from(job: &Job) -> Self {
        Self {
            id: job.id,
            epoch: job.epoch,
            queue: job.queue.clone(),
            tenant: job.tenant.clone(),
            target: job.target.clone(),
            kind: job.kind,
            priority: job.priority,
            run_at: job.run_at,
            suspicion: Suspicion::of(job.recoveries),
            key: job.concurrency_key.clone(),
        }
    }
}

/// The entry of a job that was just accepted.
impl From<&NewJob> for Entry {
    fn from(job: &NewJob) -> Self {
        Self {
            id: job.id,
            epoch: Epoch::default(),
            queue: job.queue.clone(),
            tenant: job.tenant.clone(),
            target: job.target.clone(),
            kind: job.kind,
            priority: job.priority,
            run_at: job.run_at,
            suspicion: Suspicion::None,
            key: job.concurrency_key.clone(),
        }
    }
}

/// A claim that a worker holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub id: JobId,
    /// The epoch of the claim.
    pub epoch: Epoch,
    /// Which claim of the epoch.
    pub nonce: Nonce,
}

/// A claim of before a flush, with what the dispatcher needs to know it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The claim.
    pub lease: Lease,
    /// The job, at the claim's epoch.
    pub entry: Entry,
    /// When its handler began; `None` while it is on its way.
    pub started_at: Option<Timestamp>,
}

/// Gives a claim up: after its settle committed, or unspent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The claim.
    pub lease: Lease,
    /// The job's next life, if it is live: replaces the claim at once when it is due within the horizon.
    pub next: Option<Entry>,
}

/// One round trip of a worker: acks first, then a claim of `slots` jobs.
#[derive(Clone, Debug)]
pub struct Step {
    /// The worker process.
    pub session: SessionId,
    /// Claims to give up.
    pub acks: Vec<Ack>,
    /// Queues to claim from; empty: all.
    pub queues: Vec<Name>,
    /// Kinds to claim; empty: all.
    pub kinds: Vec<Kind>,
    /// Claim at most this many; 0 only acks.
    pub slots: usize,
}

/// A claimed job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The claim.
    pub lease: Lease,
    /// Its queue.
    pub queue: Name,
    /// When it became claimable.
    pub ready_at: Timestamp,
}

/// The answer to a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepReply {
    /// What the worker now holds.
    pub claims: Vec<Claim>,
    /// When the next held entry becomes claimable by itself (due, unparked, unpaused): nothing to do before, unless
    /// a [`Signal::Work`] comes.
    pub next_at: Option<Timestamp>,
}

/// What a worker is told between its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// There may be something to claim.
    Work,
    /// This job was cancelled: drop what you do for it.
    Cancel(JobId),
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not here.
    Unknown,
    /// Waiting at this epoch.
    Waiting {
        /// The epoch.
        epoch: Epoch,
    },
    /// Held by a worker at this epoch.
    Leased {
        /// The epoch.
        epoch: Epoch,
        /// The worker.
        session: SessionId,
        /// When its handler began; `None` while it is on its way.
        started_at: Option<Timestamp>,
    },
}

impl Place {
    /// The epoch that the dispatcher holds.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Unknown => None,
            Self::Waiting { epoch } | Self::Leased { epoch, .. } => Some(*epoch),
        }
    }
}

/// What a waiting job waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "waits_for", rename_all = "snake_case")]
pub enum Wait {
    /// Its due time.
    Delayed {
        /// When it is due.
        until: Timestamp,
    },
    /// Its queue is paused.
    QueuePaused {
        /// When the pause ends by itself.
        until: Option<Timestamp>,
        /// Why.
        reason: Option<String>,
    },
    /// An operator has paused its tenant.
    TenantPaused {
        /// When the pause ends by itself.
        until: Option<Timestamp>,
        /// Why.
        reason: Option<String>,
    },
    /// A budget of its tenant, or of the installation, has no room.
    TenantParked {
        /// Until when, unless there is room before, or none then either.
        until: Timestamp,
        /// Why.
        reason: String,
    },
    /// An operator has paused its target, or holds the target's breaker open.
    TargetPaused {
        /// The target.
        target: String,
        /// When the pause ends by itself.
        until: Option<Timestamp>,
        /// Why.
        reason: String,
    },
    /// One job of its target is running to find out whether the target works again.
    TargetTried {
        /// The target.
        target: String,
        /// Why it was parked.
        reason: String,
    },
    /// Its target is parked.
    TargetParked {
        /// The target.
        target: String,
        /// Until when.
        until: Timestamp,
        /// Why.
        reason: String,
    },
    /// As many jobs of its queue run as may.
    QueueConcurrency {
        /// The limit.
        limit: u32,
    },
    /// As many jobs of its target run as may.
    TargetConcurrency {
        /// The target.
        target: String,
        /// The limit.
        limit: u32,
    },
    /// As many jobs of its concurrency key run, or stand in their lanes, as may.
    ConcurrencyKey {
        /// The key.
        key: String,
        /// How many may.
        limit: u32,
        /// Waiting jobs of the key that come before it, counted up to a bound.
        ahead: u64,
    },
    /// Workers died with it and other suspects, and each process that serves it runs another such job: they run one at a
    /// time in a process.
    OtherIsolated,
    /// No worker is there that serves its queue and its kind.
    NoWorker,
    /// Its turn.
    Turn {
        /// Jobs before it in its own lane.
        ahead_in_lane: u64,
        /// Lanes of the queue that take turns with it.
        lanes: u64,
    },
}

/// A queue's numbers that only the dispatcher knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// The queue.
    pub queue: Option<Name>,
    /// Claimable now.
    pub waiting: u64,
    /// Held by workers.
    pub active: u64,
    /// Due later, within the horizon.
    pub scheduled: u64,
    /// Due, but of a parked target, or of a paused queue, target or tenant, or behind others of its concurrency key.
    pub parked: u64,
    /// When the oldest claimable entry became so.
    pub oldest_ready_at: Option<Timestamp>,
}

/// Something that stops claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// A queue's settings, as versioned by the journal.
    Queue(Name, Versioned<QueueSettings>),
    /// How many jobs of the target may run at once (`None`: any number). A name that ends in `*` speaks for each
    /// target that begins so and has no limit of its own; of several the longest counts.
    TargetConcurrency(Name, Option<u32>),
    /// The target sleeps until then, or for longer if it was parked for longer: limiter, breaker and operator do not wake
    /// what another of them has put to sleep. A moment that has passed wakes it.
    ParkTarget {
        /// The target.
        target: Name,
        /// Until when.
        until: Timestamp,
        /// Why, for `why`.
        reason: String,
    },
    /// The target sleeps until then, and then wakes with one job at a time, until one of them has ended for good: so that a
    /// target which may still not work is found out by one job and not by all. A [`Setting::ParkTarget`] that wakes it ends that, too.
    TryTarget {
        /// The target.
        target: Name,
        /// From when on.
        from: Timestamp,
        /// Why it sleeps, for `why`.
        reason: String,
    },
    /// A target's settings, as versioned by the journal.
    Target(Name, Versioned<TargetSettings>),
    /// The tenant's lanes sleep until then, because a budget has no room; what was said before does not count any more. A moment
    /// that has passed wakes them, unless an operator has paused the tenant.
    ParkTenant {
        /// The tenant.
        tenant: Name,
        /// Until when.
        until: Timestamp,
        /// Why, for `why`.
        reason: String,
    },
    /// A tenant's settings, as versioned by the journal: the turns that its lanes get in a round (1 unless set, at most
    /// [`WEIGHT_MAX`]), and whether they sleep.
    Tenant(Name, Versioned<TenantSettings>),
}

/// A worker process as the dispatcher sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// The session.
    pub id: SessionId,
    /// Claims that it holds.
    pub leases: u64,
    /// When it was last heard of.
    pub seen_at: Timestamp,
}

/// Who works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The life in which they are.
    pub generation: Generation,
    /// The sessions that are alive.
    pub alive: Vec<SessionView>,
    /// Of the sessions that were asked for: those that are not alive and whose process is not connected either. One that
    /// stays here for [`CLOSED_MS`] is dead. Who is not here may be dead as well: on a Cluster nobody can tell.
    pub gone: Vec<SessionId>,
}

/// Why the dispatcher did not do what it was asked. Nothing that matters is lost by it: the reconciler repairs.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DispatchError {
    /// Not reachable now.
    #[error("the dispatcher is unavailable: {0}")]
    Unavailable(String),
    /// Flushed, restarted or being rebuilt: its knowledge is of another generation.
    #[error("the dispatcher is at another generation")]
    WrongGeneration,
}

/// The order of work. At most 15 verbs. Nothing in it is the only copy of anything.
#[async_trait]
pub trait Dispatcher: Send + Sync {
    /// Begins this life. Claims are refused (empty) before it.
    async fn begin(&self, generation: Generation) -> Result<(), DispatchError>;

    /// Makes entries known: a no-op for a job that is held at the same or a later epoch.
    async fn push(&self, entries: Vec<Entry>) -> Result<(), DispatchError>;

    /// Begins a worker's session; its signals arrive on the receiver, which holds at most 1,024 (a full one loses
    /// `Work` only).
    ///
    /// A session that hears of a new generation ([`DispatchError::WrongGeneration`]) joins again with what it `held`
    /// until then: a job that is unknown here, or waits at the same epoch, is its again. What went on to another
    /// epoch or to another worker is not; the next renewal says so. Whoever has been silent for as long as a session
    /// lives must come with nothing.
    async fn join(&self, session: SessionId, held: Vec<Held>) -> Result<mpsc::Receiver<Signal>, DispatchError>;

    /// Ends a session at once: its leases are expired from now on.
    async fn leave(&self, session: SessionId) -> Result<(), DispatchError>;

    /// Acks, then claims. An ack whose lease is not the current one changes nothing.
    async fn step(&self, step: Step) -> Result<StepReply, DispatchError>;

    /// Notes that the handlers of these claims are about to run: from here on a lost worker counts as a recovery. Where it is
    /// told again, since its answer was lost, the moment of the first word stands.
    async fn start(&self, session: SessionId, leases: &[Lease]) -> Result<(), DispatchError>;

    /// Prolongs the session and these leases; returns those that are not held any more.
    async fn renew(&self, session: SessionId, leases: &[Lease]) -> Result<Vec<Lease>, DispatchError>;

    /// Takes a waiting job out, whatever its epoch; a leased one stays. Returns where it was.
    async fn withdraw(&self, id: JobId) -> Result<Place, DispatchError>;

    /// Tells the worker that holds this job that it was cancelled.
    async fn nudge(&self, id: JobId) -> Result<(), DispatchError>;

    /// Where these jobs are, in order.
    async fn locate(&self, ids: &[JobId]) -> Result<Vec<Place>, DispatchError>;

    /// Up to `limit` leases that expired (by themselves or with their session). They stay expired until a push at a
    /// later epoch or an ack replaces them, so a reaper that dies is followed by another one.
    async fn reap(&self, limit: usize) -> Result<Vec<Recovery>, DispatchError>;

    /// Applies a setting; an older version than the held one changes nothing.
    async fn apply(&self, setting: Setting) -> Result<(), DispatchError>;

    /// The numbers of every queue. Cost depends on lanes, not on jobs.
    async fn depths(&self) -> Result<Vec<QueueDepth>, DispatchError>;

    /// What a waiting job waits for; empty when it is leased or unknown.
    async fn explain(&self, id: JobId) -> Result<Vec<Wait>, DispatchError>;

    /// The sessions that are alive, and which of the `asked` (the first [`ASKED_MAX_SESSIONS`]) are gone, whether they
    /// ever joined this life or not. [`DispatchError::WrongGeneration`] where no life has begun.
    async fn sessions(&self, asked: &[SessionId]) -> Result<Present, DispatchError>;
}
