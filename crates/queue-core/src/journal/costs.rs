//! Asks the money: what was spent, charged and saved, by whom and on what.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::JournalError;
use crate::{
    ids::Name,
    ledger::{Nanousd, SavedBy, Usage},
    time::{DAY_MS, Timestamp},
};

/// Most lines that one [`Ledger::fold_costs`] moves: a statement of some 50 ms, so that it neither fills the log nor
/// holds the sums of today for long.
pub const COST_LINES_MAX: usize = 10_000;

/// Most calls of one [`Ledger::recent`]: read along their index within 10 ms.
pub const RECENT_CALLS_MAX: usize = 5_000;

/// A provider call, as far as people ask how a target does lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentCall {
    /// Who was asked.
    pub provider: String,
    /// What was asked for.
    pub model: String,
    /// Whose key it was made with.
    pub credential: String,
    /// `ok`, or the error's class.
    pub status: String,
    /// From request to last byte, in milliseconds.
    pub duration_ms: u64,
    /// When it ended.
    pub at: Timestamp,
}

/// Columns that costs can be grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CostColumn {
    /// The job's `operation`.
    Operation,
    /// The model that was asked.
    Model,
    /// The provider that was asked.
    Provider,
    /// The tenant.
    Tenant,
    /// The queue.
    Queue,
    /// The kind.
    Kind,
    /// The UTC day, `YYYY-MM-DD`.
    Day,
}

impl CostColumn {
    /// Every column, in the order in which they are told.
    pub const ALL: [Self; 7] =
        [Self::Operation, Self::Model, Self::Provider, Self::Tenant, Self::Queue, Self::Kind, Self::Day];

    /// The word of the API and of the statements.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operation => "operation",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Tenant => "tenant",
            Self::Queue => "queue",
            Self::Kind => "kind",
            Self::Day => "day",
        }
    }
}

/// What a cost report is about.
#[derive(Clone, Debug)]
pub struct CostQuery {
    /// One to three columns.
    pub by: Vec<CostColumn>,
    /// Calls that ended at or after.
    pub since: Timestamp,
    /// Calls that ended before.
    pub until: Timestamp,
    /// Only those of this tenant.
    pub tenant: Option<Name>,
}

impl CostQuery {
    /// Everything from `since` on, until `until`.
    pub fn new(by: &[CostColumn], since: Timestamp, until: Timestamp) -> Self {
        Self { by: by.to_vec(), since, until, tenant: None }
    }

    /// The word of the column at this place; empty where there is none.
    pub(super) fn word(&self, at: usize) -> &'static str {
        self.by.get(at).map_or("", |column| column.as_str())
    }

    /// Whether charges can be told apart by the columns: they belong to no call.
    pub(super) fn tells_charges(&self) -> bool {
        !self.by.iter().any(|column| matches!(column, CostColumn::Model | CostColumn::Provider))
    }

    /// The whole days of the period, and what is left of days before and behind them, each as begin and end. Parts may be
    /// empty. Whole days are read as sums, parts of days row by row.
    pub(super) fn days(&self) -> Days {
        let (since, until) = (self.since.0, self.until.0.max(self.since.0));
        let floor = |ms: i64| Timestamp(ms).start_of_day().0;
        let first = floor(since.saturating_add(DAY_MS - 1));
        let last = floor(until);
        if first >= last {
            return Days { whole: (since, since), before: (since, until), behind: (until, until) };
        }
        Days { whole: (first, last), before: (since, first), behind: (last, until) }
    }
}

/// A period in days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Days {
    pub(super) whole: (i64, i64),
    pub(super) before: (i64, i64),
    pub(super) behind: (i64, i64),
}

/// What calls would have cost that nobody had to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Money by reason, in the order of [`SavedBy::ALL`], over priced answers.
    pub by_reason: [Nanousd; SavedBy::ALL.len()],
    /// Answers that needed no call.
    pub answers: u64,
    /// Those whose price is unknown: they are not in the sums.
    pub unpriced: u64,
}

impl Saved {
    /// Over all reasons.
    pub fn total(&self) -> Nanousd {
        self.by_reason.iter().fold(Nanousd(0), |sum, part| sum.plus(*part))
    }
}

/// One line of a cost report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostRow {
    /// The values of the asked columns, in the asked order.
    pub group: Vec<String>,
    /// Provider calls.
    pub calls: u64,
    /// Calls that may or may not have been billed.
    pub calls_maybe: u64,
    /// Calls whose price is unknown: their cost is not in the sums.
    pub calls_unpriced: u64,
    /// Jobs, each counted where its first call is.
    pub jobs: u64,
    /// Tokens.
    pub usage: Usage,
    /// Spent, over priced calls.
    pub spend: Nanousd,
    /// Part of `spend` that was for nothing: calls that ended in an error, second answers to one call, answers of dead
    /// letters.
    pub wasted: Nanousd,
    /// Charged to tenants for succeeded jobs; only where no column belongs to a call (model, provider).
    pub charge: Option<Nanousd>,
    /// What calls would have cost that nobody had to make; not part of `spend`.
    pub saved: Saved,
}

/// Asks the money. Rows are written by [`Journal::record`](super::Journal::record) and
/// [`Journal::settle`](super::Journal::settle), and their sums with them.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// The same for a caller of a tenant, see [`Reads::bound_to`](super::Reads::bound_to).
    fn bound_to(&self, tenant: &Name) -> Arc<dyn Ledger>;

    /// Spend, charge and savings of a period, dearest first, at most [`PAGE_MAX_ROWS`](super::PAGE_MAX_ROWS). Exact at any
    /// moment, also while sums are being folded. Its cost grows with the labels of whole days and with the calls of at
    /// most two parts of days, not with the ledger.
    async fn costs(&self, query: &CostQuery) -> Result<Vec<CostRow>, JournalError>;

    /// The newest calls that ended at or after `since`, newest first, at most [`RECENT_CALLS_MAX`], whoever's they are.
    async fn recent(&self, since: Timestamp) -> Result<Vec<RecentCall>, JournalError>;

    /// Moves at most [`COST_LINES_MAX`] lines of finished sums to their days and returns how many; 0 where a store keeps
    /// its sums by itself or somebody else is at it. Each line is moved once, whatever crashes and however many ask.
    async fn fold_costs(&self) -> Result<u64, JournalError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_whole_days_and_two_rests() {
        let days = |since: i64, until: i64| CostQuery::new(&[], Timestamp(since), Timestamp(until)).days();
        let expected = |whole, before, behind| Days { whole, before, behind };
        let day = DAY_MS;
        assert_eq!(days(0, 3 * day), expected((0, 3 * day), (0, 0), (3 * day, 3 * day)));
        assert_eq!(days(5, 3 * day + 7), expected((day, 3 * day), (5, day), (3 * day, 3 * day + 7)));
        assert_eq!(days(5, 9), expected((5, 5), (5, 9), (9, 9)));
        assert_eq!(days(day - 1, day + 1), expected((day - 1, day - 1), (day - 1, day + 1), (day + 1, day + 1)));
        assert_eq!(days(7, 3), expected((7, 7), (7, 7), (7, 7)), "backwards is empty");
        let all = days(0, i64::MAX);
        assert_eq!((all.whole.0, all.behind.1), (0, i64::MAX));
        // Every moment is in exactly one part.
        for (since, until) in [(5, 3 * day + 7), (5, 9), (0, day), (day - 1, 2 * day + 1)] {
            let Days { whole, before, behind } = days(since, until);
            let lengths = [whole, before, behind].map(|(from, to)| to - from);
            assert!(lengths.iter().all(|length| *length >= 0));
            assert_eq!(lengths.iter().sum::<i64>(), until - since);
        }
    }
}
