//! Tenants that are erased: what they had is taken away, and stays away.
//!
//! An erasure is a row that is kept for ever: the *erase log*. Whoever orders one destroys, in the same transaction, what opens the
//! tenant's secrets, and takes its keys back; from then on nobody submits for it. A scheduler cancels its live jobs and then walks all
//! tables in steps, for all tenants of the log at once. What a step takes away and how far it is are one transaction, so a crash
//! costs nothing. A walk that has found something is followed by another one; the first that finds nothing finishes the erasure.
//! Workers that were cut off may still pay for a call that they had begun, and money is never fenced, so the rows are
//! looked for again after a minute, ten minutes, an hour and a day, and whenever a scheduler starts or somebody asks: a restore of
//! an older backup brings rows back.

use async_trait::async_trait;

use crate::{ids::Name, journal::JournalError, time::Timestamp};

/// Most tenants in the log: every process reads it once a second, and each walk compares rows with it.
pub const ERASURES_MAX: usize = 10_000;
/// Time from the order to the first walk: longer than any process takes to hear that the tenant's credentials are gone, and that it
/// is refused.
pub const HEARD_MS: i64 = 5_000;
/// Waits until the rows of a tenant for whom nothing was found are looked for again. The longest attempt is a matter of minutes; the
/// last look is for whatever we have not thought of.
pub const LOOK_AGAIN_MS: [i64; 4] = [60_000, 600_000, 3_600_000, 86_400_000];
/// A scheduler that starts has rows looked for again that nobody has looked for during so long.
pub const REPLAY_AFTER_MS: i64 = 3_600_000;

/// A tenant of the erase log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Its name.
    pub tenant: Name,
    /// What stands for the name in sums of money and in the audit log: random, so that nobody can guess one from the other.
    pub pseudonym: String,
    /// When it was ordered.
    pub accepted_at: Timestamp,
    /// Rows that were taken away so far; a little more than was there, where rows were moved meanwhile.
    pub erased: u64,
    /// When a whole walk had found nothing. `None` again where rows have come back.
    pub finished_at: Option<Timestamp>,
    /// When it was last made sure of.
    pub checked_at: Option<Timestamp>,
    /// When its rows are looked for again.
    pub due_at: Option<Timestamp>,
}

impl Erasure {
    /// A fresh order.
    pub fn order(tenant: Name, pseudonym: String, accepted_at: Timestamp) -> Self {
        Self { tenant, pseudonym, accepted_at, erased: 0, finished_at: None, checked_at: None, due_at: None }
    }

    /// A pseudonym that nobody had before.
    pub fn new_pseudonym() -> String {
        format!("erased-{:032x}", rand::random::<u128>())
    }

    /// Whether a text is a pseudonym. No tenant may be erased that is called like one: its sums would be taken for another's.
    pub fn is_pseudonym(text: &str) -> bool {
        text.strip_prefix("erased-").is_some_and(|chance| {
            chance.len() == 32 && chance.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    }

    /// Whether its rows are to be looked for now.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.due_at.is_some_and(|due| due <= now)
    }
}

/// Where the walk over all tables is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Grows with every step.
    pub beat: i64,
    /// When this walk began; `None`: nobody walks.
    pub began_at: Option<Timestamp>,
}

/// The erase log, and the walk that obeys it.
#[async_trait]
pub trait Erasures: Send + Sync {
    /// Orders that a tenant is erased, destroys what opens its secrets and takes its keys back, all of it or nothing. For one that is in
    /// the log, its rows are looked for again, and it keeps its pseudonym. After the commit the order outlives everything but
    /// a restore. A caller who gets no answer asks again.
    async fn erase(&self, order: Erasure, now: Timestamp) -> Result<Erasure, JournalError>;

    /// The log, by tenant.
    async fn erasures(&self) -> Result<Vec<Erasure>, JournalError>;

    /// Has rows looked for again of all that were last looked for before `checked_before`; how many tenants those are.
    async fn replay(&self, checked_before: Timestamp, now: Timestamp) -> Result<u64, JournalError>;

    /// Where the walk is.
    async fn sweep(&self) -> Result<Sweep, JournalError>;

    /// Makes a step of the walk, or begins one; `None` where somebody else has made one since this beat. Live jobs are left alone:
    /// cancel them first. A crash before the commit leaves the step before.
    async fn sweep_on(&self, beat: i64, now: Timestamp) -> Result<Option<Sweep>, JournalError>;

    /// How many rows each table has of a tenant; `None` where counting takes too long. Reads whole tables.
    async fn holdings(&self, tenant: &Name) -> Result<Vec<(String, Option<u64>)>, JournalError>;
}
