//! Budgets: what a tenant, an API key and the whole installation may spend in a UTC day and month, in money and in tokens.
//!
//! A call *reserves* its upper estimate before it is made, in every budget that it falls under: all or none. After it, when
//! its ledger row is committed, the reservation becomes what the row says ([`Counters::commit`]). So what is spent and what
//! is reserved never exceed a limit together, whoever asks at once, and the ledger is never behind what the counters know.
//!
//! **Nothing here is the only copy of anything.** The ledger is the truth; counters are read from it when they are missing
//! ([`Counters::begin_fill`], [`Counters::end_fill`]) and every few seconds. What only counters know are the reservations of
//! calls under way: their workers renew them, and after a flush assert them again, for which counters that begin a new life
//! let nobody pass for [`LIFE_GRACE_MS`]. A dead worker's reservations expire ([`RESERVED_MS`]).
//!
//! Reservations belong to a budget and not to a period: a call that is under way at midnight counts where it ends, which is
//! where its ledger row is.
//!
//! The memory counters are the executable specification of those in Redis: `book.rs` is the algorithm.

mod book;
mod chores;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod known;
pub mod memory;
pub mod redis;
mod scope;

use async_trait::async_trait;
use uuid::Uuid;

pub use self::{
    chores::{ChoreError, LEVELS, alerts, bring_back, fill, tell_raise, wake_ready},
    known::{Applies, FRESH, Known},
    scope::{AtLimit, Budget, Lines, Measure, Period, Scope, Span, USD_MAX, is_used_up},
};
use crate::{
    ids::Name,
    journal::Versioned,
    ledger::{Nanousd, Usage},
    time::Timestamp,
};

/// How long a reservation lives without a renewal: longer than a worker is away that is still alive.
pub const RESERVED_MS: i64 = 60_000;
/// Time between two renewals of what is under way.
pub const RENEW_MS: i64 = 10_000;
/// How long counters that begin a new life let nobody pass: several times what a worker takes to notice and to say what it
/// has under way.
pub const LIFE_GRACE_MS: i64 = 2_000;
/// How often a worker looks whether a new life has begun.
pub const LIFE_LOOK_MS: i64 = 500;
/// Most expired reservations that one call takes back: bounds the time for which Redis does nothing else.
pub const SWEEP_MAX: usize = 200;
/// Most calls in one renewal, likewise.
pub const RENEW_MAX: usize = 500;
/// Longest sleep of a tenant's lanes in one go: the scheduler renews it, so that a lost wake-up costs no more than this.
pub const PARK_MS: i64 = 30_000;
/// Counters that nobody used for so long are forgotten: longer than a month, since a budget may count one.
pub const IDLE_MS: i64 = 40 * 24 * 3_600_000;

/// What a call takes of a budget: money and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Money.
    pub usd: Nanousd,
    /// Tokens of prompt and answer.
    pub tokens: u64,
}

impl Amount {
    /// What a call cost and used.
    pub fn of(cost: Option<Nanousd>, usage: &Usage) -> Self {
        Self { usd: cost.unwrap_or_default(), tokens: usage.tokens_in.saturating_add(usage.tokens_out) }
    }

    fn numbers(self) -> [i64; 2] {
        [self.usd.0, i64::try_from(self.tokens).unwrap_or(i64::MAX)]
    }
}

/// A call that wants to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Which: one id for one call that is really made, also if this is asked twice.
    pub call: Uuid,
    /// What it may take at most, as far as anyone can tell.
    pub amount: Amount,
    /// The budgets that it falls under, as the caller knows them. Counters go by newer limits if they were told of some.
    pub budgets: Vec<(Scope, Versioned<Budget>)>,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Reserved.
    Granted,
    /// The counters have forgotten everything: [`Counters::begin`] comes first.
    Forgotten,
    /// A new life has begun, and those who have calls under way have not all said so.
    Closed {
        /// For so long.
        wait_ms: u64,
    },
    /// What has been spent is not known here: it is read from the ledger first. Nothing was reserved.
    Unknown(Vec<Scope>),
    /// There is no room. Nothing was reserved.
    Refused(Refusal),
}

/// Why there is no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whose budget it is.
    pub scope: Scope,
    /// Which of its limits.
    pub measure: Measure,
    /// For which period.
    pub period: Period,
    /// The limit.
    pub limit: i64,
    /// What has been spent of it.
    pub spent: i64,
    /// What calls under way have reserved.
    pub reserved: i64,
    /// What the call wants.
    pub asked: i64,
    /// When the period ends.
    pub until: Timestamp,
}

impl Refusal {
    /// Whether only calls under way stand in the way: some of what they reserved comes back.
    pub fn is_passing(&self) -> bool {
        self.spent.saturating_add(self.asked) <= self.limit
    }

    /// Whether so little is left that nobody needs to be asked what else might fit.
    pub fn is_used_up(&self) -> bool {
        is_used_up(self.limit, self.spent)
    }

    /// For people, tenants among them: what all tenants together may spend and have spent is the operators' business.
    pub fn words(&self) -> String {
        let show = |number: i64| self.measure.show(number);
        if self.scope == Scope::All {
            let (period, of, asked) = (self.period.adjective(), self.scope.words(), show(self.asked));
            return format!("the {period} budget of {of} has no room for {asked} more");
        }
        format!(
            "the {} budget of {} of {} has no room for {} more: {} spent, {} reserved by calls under way",
            self.period.adjective(),
            show(self.limit),
            self.scope.words(),
            show(self.asked),
            show(self.spent),
            show(self.reserved)
        )
    }
}

/// What is under way, to be renewed or asserted.
#[derive(Clone, Debug, PartialEq)]
pub struct UnderWay {
    /// The call.
    pub call: Uuid,
    /// What it has reserved.
    pub amount: Amount,
    /// In which budgets.
    pub scopes: Vec<Scope>,
}

/// How a budget stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether what has been spent is known: else it is as if nothing had been.
    pub known: bool,
    /// Spent in this day and month, money and tokens: see [`Lines::ALL`].
    pub spent: [i64; 4],
    /// Reserved by calls under way: money and tokens.
    pub reserved: [i64; 2],
}

/// A tenant whose lanes sleep, because a budget has no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The tenant.
    pub tenant: Name,
    /// Which budget.
    pub scope: Scope,
    /// Why, for `why`.
    pub reason: String,
    /// When the sleep has no reason any more.
    pub until: Timestamp,
    /// Whether there is room now for as much as it was parked for, and for half of what is not spent: who wakes for less
    /// is turned away again.
    pub ready: bool,
}

/// Why the counters did not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the budgets' counters are unavailable: {0}")]
pub struct Unavailable(pub String);

/// What is spent and reserved, over all workers. Every verb is idempotent.
#[async_trait]
pub trait Counters: Send + Sync {
    /// Takes an upper estimate from every budget, or from none. A crash after it leaves the reservation until it expires.
    async fn reserve(&self, ask: &Ask) -> Result<Verdict, Unavailable>;

    /// A call that ended at `at` took so much, and its ledger row is committed: the reservation becomes that. `false` where
    /// there is no reservation (it expired): then only the ledger knows, and whoever asked fills the counters again. A
    /// crash before it leaves the reservation until it expires, and the ledger is read every few seconds.
    async fn commit(&self, call: Uuid, took: Amount, at: Timestamp) -> Result<bool, Unavailable>;

    /// Changes what a call has reserved to what it really took, before its ledger row is committed.
    async fn adjust(&self, call: Uuid, took: Amount) -> Result<(), Unavailable>;

    /// Renews what this process has under way (at most [`RENEW_MAX`]), and makes it known again where it was forgotten.
    /// Returns which life this is; `None` where none has begun.
    async fn renew(&self, under_way: &[UnderWay]) -> Result<Option<i64>, Unavailable>;

    /// Begins a life where none is, which is closed for [`LIFE_GRACE_MS`].
    async fn begin(&self) -> Result<(), Unavailable>;

    /// Says that the ledger will be read now: commits from here on are counted twice rather than not at all. Returns what
    /// [`Counters::end_fill`] is told; the last of several who read wins.
    async fn begin_fill(&self, scope: &Scope) -> Result<i64, Unavailable>;

    /// What the ledger said of the periods of `span`, in the order of [`Lines::ALL`]. Ignored if somebody else has begun to
    /// read since.
    async fn end_fill(&self, scope: &Scope, fill: i64, span: Span, spent: [i64; 4]) -> Result<(), Unavailable>;

    /// Tells of a changed budget, so that it holds for everybody at once.
    async fn tell(&self, scope: &Scope, budget: Versioned<Budget>) -> Result<(), Unavailable>;

    /// How a budget stands; `None` where nothing is known of it.
    async fn standing(&self, scope: &Scope) -> Result<Option<Standing>, Unavailable>;

    /// Notes that a tenant's lanes sleep until there is room for `amount` in a budget, or until `until`.
    async fn park(
        &self,
        tenant: &Name,
        scope: &Scope,
        amount: Amount,
        until: Timestamp,
        reason: &str,
    ) -> Result<(), Unavailable>;

    /// Whose lanes sleep.
    async fn parked(&self) -> Result<Vec<Parked>, Unavailable>;

    /// Forgets that a tenant's lanes sleep. Told after they were woken.
    async fn unpark(&self, tenant: &Name) -> Result<(), Unavailable>;

    /// Every budget that has been counted lately.
    async fn scopes(&self) -> Result<Vec<Scope>, Unavailable>;
}
