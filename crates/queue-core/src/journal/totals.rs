//! What a write does to the numbers that are kept beside the rows.

use std::ops::AddAssign;

use crate::state::Standing;

/// What a write does to a queue's numbers; `live` is counted for the tenant, too.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TotalsChange {
    pub(super) accepted: i64,
    pub(super) succeeded: i64,
    pub(super) cancelled: i64,
    pub(super) dead: i64,
    pub(super) live: i64,
}

impl TotalsChange {
    /// A job is new.
    pub(super) const ACCEPTED: Self = Self { accepted: 1, succeeded: 0, cancelled: 0, dead: 0, live: 1 };
    /// A dead letter lives again.
    pub(super) const REDRIVEN: Self = Self { accepted: 0, succeeded: 0, cancelled: 0, dead: -1, live: 1 };
    /// A dead letter is forgotten.
    pub(super) const DELETED_DEAD: Self = Self { accepted: 0, succeeded: 0, cancelled: 0, dead: -1, live: 0 };
    /// A dead letter is back from an archive.
    pub(super) const RESTORED_DEAD: Self = Self { accepted: 0, succeeded: 0, cancelled: 0, dead: 1, live: 0 };

    /// A job stands so now, and was live before; `None` where it still is.
    pub(super) fn of_end(standing: Standing) -> Option<Self> {
        let ended = Self { live: -1, ..Self::default() };
        match standing {
            Standing::Live => None,
            Standing::Succeeded => Some(Self { succeeded: 1, ..ended }),
            Standing::Dead => Some(Self { dead: 1, ..ended }),
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
        self.live += other.live;
    }
}
