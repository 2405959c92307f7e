//! What may be spent, what was, and who waits for it.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{JournalError, Versioned};
use crate::{
    budget::{Budget, Measure, Period, Scope, Span},
    dispatcher::Entry,
    time::Timestamp,
};

/// A level that a budget has reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Whose budget.
    pub scope: Scope,
    /// Of what.
    pub measure: Measure,
    /// For which kind of period.
    pub period: Period,
    /// When that period began, in milliseconds.
    pub since: i64,
    /// In percent.
    pub level: u8,
    /// What had been spent.
    pub spent: i64,
    /// Of how much.
    pub budget: i64,
    /// When it was noticed.
    pub at: Timestamp,
}

/// Budgets as operators set them, and the ledger's answer to what they count.
#[async_trait]
pub trait Budgets: Send + Sync {
    /// Every budget that was ever set; those that were cleared limit nothing.
    async fn budgets(&self) -> Result<BTreeMap<Scope, Versioned<Budget>>, JournalError>;

    /// Replaces a budget and returns its new version, which is above 1.
    async fn set_budget(&self, scope: &Scope, budget: Budget) -> Result<i64, JournalError>;

    /// What the ledger knows of a scope since its day and its month began, in the order of
    /// [`Lines::ALL`](crate::budget::Lines::ALL). Reads sums: its cost grows with the labels of a month, not with its calls.
    async fn spent(&self, scope: &Scope, span: Span) -> Result<[i64; 4], JournalError>;

    /// Makes live jobs of the scope due at once that a budget has sent away, at most `limit`, at a new epoch, and returns
    /// what to push. They get the place that they had. Those whose lanes sleep are none of them. A crash before the push
    /// leaves them to the reconciler.
    async fn wake(&self, scope: &Scope, now: Timestamp, limit: usize) -> Result<Vec<Entry>, JournalError>;

    /// Notes an alert, once a period and level over the whole fleet: `true` for whoever came first, who tells it.
    async fn note_alert(&self, alert: &Alert) -> Result<bool, JournalError>;

    /// The newest alerts, newest first, at most `limit`.
    async fn alerts(&self, limit: usize) -> Result<Vec<Alert>, JournalError>;
}
