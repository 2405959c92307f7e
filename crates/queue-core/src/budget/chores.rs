//! What has to be done for budgets beside the calls: counters are read from the ledger, sleepers are woken, alerts are given.
//! Every chore may be done by several at once, and begun again after a crash.

use super::{Lines, Measure, Period, Scope, Span, Standing, Unavailable, is_used_up};
use crate::{
    budget::{Budget, PARK_MS},
    dispatcher::{DispatchError, Setting},
    journal::{Alert, JournalError, Versioned},
    stores::Stores,
    time::Timestamp,
};

/// The parts of a budget, in percent, at which an alert is given. At 100 it counts as used up.
pub const LEVELS: [u8; 3] = [50, 80, 100];
/// Jobs that one step of a raise brings back.
const WAKE_MAX: usize = 1_000;
/// Steps of one raise: a million jobs; more come back with the end of the period.
const WAKE_STEPS_MAX: usize = 1_000;

/// Why a chore was not done.
#[derive(Debug, thiserror::Error)]
pub enum ChoreError {
    /// The journal refused.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The counters refused.
    #[error(transparent)]
    Counters(#[from] Unavailable),
    /// The dispatcher refused.
    #[error(transparent)]
    Dispatcher(#[from] DispatchError),
}

/// Reads what a budget has spent from the ledger into its counters.
pub async fn fill(stores: &Stores, scope: &Scope) -> Result<(), ChoreError> {
    // What is committed from here on may or may not be in the sums: it is counted in any case.
    let fill = stores.counters.begin_fill(scope).await?;
    let span = Span::of(stores.clock.now());
    let spent = stores.budgets.spent(scope, span).await?;
    Ok(stores.counters.end_fill(scope, fill, span, spent).await?)
}

/// Wakes the tenants for whom there is room again; puts the others to sleep for longer where `renew` says so. Returns how many
/// it woke.
pub async fn wake_ready(stores: &Stores, renew: bool) -> Result<usize, ChoreError> {
    let (mut woken, now) = (0, stores.clock.now());
    for parked in stores.counters.parked().await? {
        let tenant = parked.tenant.clone();
        if parked.ready {
            stores.dispatcher.apply(Setting::ParkTenant { tenant, until: now, reason: String::new() }).await?;
            // Told last: who dies before it leaves a tenant that is woken once more.
            stores.counters.unpark(&parked.tenant).await?;
            woken += 1;
        } else if renew {
            let until = parked.until.min(now.plus_ms(PARK_MS));
            stores.dispatcher.apply(Setting::ParkTenant { tenant, until, reason: parked.reason }).await?;
        }
    }
    Ok(woken)
}

/// Makes a changed budget known to the counters, and brings back who waits for it.
pub async fn tell_raise(stores: &Stores, scope: &Scope, budget: Versioned<Budget>) -> Result<(), ChoreError> {
    stores.counters.tell(scope, budget).await?;
    wake_ready(stores, false).await?;
    bring_back(stores, scope).await
}

/// Brings jobs back that sleep for a budget, each by itself.
pub async fn bring_back(stores: &Stores, scope: &Scope) -> Result<(), ChoreError> {
    for _ in 0..WAKE_STEPS_MAX {
        let woken = stores.budgets.wake(scope, stores.clock.now(), WAKE_MAX).await?;
        let last = woken.len() < WAKE_MAX;
        if !woken.is_empty() {
            stores.dispatcher.push(woken).await?;
        }
        if last {
            break;
        }
    }
    Ok(())
}

/// The alerts that a budget deserves at `now`.
pub fn alerts(scope: &Scope, budget: &Budget, standing: &Standing, now: Timestamp) -> Vec<Alert> {
    let span = Span::of(now);
    let of_line = |(at, limit): (usize, Option<i64>)| -> Vec<Alert> {
        let ((measure, period), Some(limit)) = (Lines::ALL[at], limit) else { return vec![] };
        let spent = standing.spent[at];
        let alert = |level| of(scope, (measure, period), span, level, (spent, limit), now);
        LEVELS.into_iter().filter(|level| reaches(limit, spent, *level)).map(alert).collect()
    };
    if !standing.known {
        return vec![];
    }
    budget.limits().into_iter().enumerate().flat_map(of_line).collect()
}

fn reaches(limit: i64, spent: i64, level: u8) -> bool {
    match level {
        100 => is_used_up(limit, spent),
        level => i128::from(spent) * 100 >= i128::from(limit) * i128::from(level),
    }
}

fn of(
    scope: &Scope,
    (measure, period): (Measure, Period),
    span: Span,
    level: u8,
    (spent, budget): (i64, i64),
    at: Timestamp,
) -> Alert {
    Alert { scope: scope.clone(), measure, period, since: span.start(period), level, spent, budget, at }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Nanousd;

    #[test]
    fn an_alert_is_given_for_each_level_that_is_reached() {
        let budget = Budget { month_usd: Some(Nanousd(1_000)), day_tokens: Some(50), ..Budget::default() };
        let now = Timestamp(1_790_000_000_000);
        let levels = |usd: i64, tokens: i64| -> Vec<(Measure, u8)> {
            let standing = Standing { known: true, spent: [7, usd, tokens, 9], reserved: [5, 5] };
            let given = alerts(&Scope::All, &budget, &standing, now);
            given.into_iter().map(|alert| (alert.measure, alert.level)).collect()
        };
        assert_eq!(levels(499, 0), []);
        assert_eq!(levels(500, 40), [(Measure::Usd, 50), (Measure::Tokens, 50), (Measure::Tokens, 80)]);
        assert_eq!(levels(980, 0), [(Measure::Usd, 50), (Measure::Usd, 80), (Measure::Usd, 100)]);
        let unknown = Standing { known: false, spent: [0, 2_000, 0, 0], reserved: [0, 0] };
        assert!(alerts(&Scope::All, &budget, &unknown, now).is_empty(), "nobody knows yet");
    }
}
