//! The numbers that are kept beside the rows, and what a write does to them.

use std::ops::AddAssign;

use serde::Serialize;

use crate::{ids::JobId, ledger::Nanousd, state::Standing, time::Timestamp};

/// A queue's numbers that only the journal knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueTotals {
    /// Jobs accepted since the queue exists.
    pub accepted: u64,
    /// Jobs that succeeded since the queue exists.
    pub succeeded: u64,
    /// Jobs cancelled since the queue exists.
    pub cancelled: u64,
    /// Dead letters now.
    pub dead: u64,
    /// Jobs that became dead letters since the queue exists, also those that were redriven, deleted or archived later.
    pub died: u64,
}

/// Dead letters of one cause.
#[derive(Clone, Debug, Serialize)]
pub struct DeadGroup {
    /// The error's signature.
    pub signature: String,
    /// The error's class.
    pub class: String,
    /// How many.
    pub count: u64,
    /// When the first of them died.
    pub first_seen: Timestamp,
    /// When the last of them died.
    pub last_seen: Timestamp,
    /// Money already spent on them, as far as prices are known.
    pub cost_nanousd: i64,
}

/// One of the jobs of a batch, as far as a row of runs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The job.
    pub id: JobId,
    /// How it stands.
    pub standing: Standing,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Labels for people.
    pub tags: Vec<String>,
    /// What its calls have cost; `None` while the price of any is unknown.
    pub cost: Option<Nanousd>,
}

/// What a write does to a queue's numbers; `live` is counted for the tenant, too.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TotalsChange {
    pub(super) accepted: i64,
    pub(super) succeeded: i64,
    pub(super) cancelled: i64,
    pub(super) dead: i64,
    pub(super) died: i64,
    pub(super) live: i64,
}

impl TotalsChange {
    /// A job is new.
    pub(super) const ACCEPTED: Self = Self { accepted: 1, succeeded: 0, cancelled: 0, dead: 0, died: 0, live: 1 };
    /// A dead letter lives again.
    pub(super) const REDRIVEN: Self = Self { accepted: 0, succeeded: 0, cancelled: 0, dead: -1, died: 0, live: 1 };
    /// A dead letter is forgotten.
    pub(super) const DELETED_DEAD: Self = Self { accepted: 0, succeeded: 0, cancelled: 0, dead: -1, died: 0, live: 0 };
    /// A dead letter is back from an archive: it died long ago.
    pub(super) const RESTORED_DEAD: Self = Self { accepted: 0, succeeded: 0, cancelled: 0, dead: 1, died: 0, live: 0 };

    /// A job stands so now, and was live before; `None` where it still is.
    pub(super) fn of_end(standing: Standing) -> Option<Self> {
        let ended = Self { live: -1, ..Self::default() };
        match standing {
            Standing::Live => None,
            Standing::Succeeded => Some(Self { succeeded: 1, ..ended }),
            Standing::Dead => Some(Self { dead: 1, died: 1, ..ended }),
            Standing::Cancelled => Some(Self { cancelled: 1, ..ended }),
        }
    }
}

impl AddAssign for TotalsChange {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.succeeded += other.succeeded;
        self.cancelled += other.cancelled;
        self.dead += other.dead;
        self.died += other.died;
        self.live += other.live;
    }
}
