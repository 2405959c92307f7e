//! Budgets: wakes who sleeps for want of money as soon as there is some, reads the counters from the ledger again and again,
//! and gives alerts.
//!
//! A raised budget is a new version in the journal: whoever set it may have died before telling anybody. Alerts are noted in
//! the journal first, so that of several schedulers one gives each; one that dies right after its note leaves the note.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use queue_core::{
    budget::{ChoreError, Known, Scope, alerts, bring_back, fill, wake_ready},
    stores::Stores,
    telemetry,
};
use tokio_util::sync::CancellationToken;

/// Time between two looks at who may be woken: a raise is felt within a second.
const EVERY: Duration = Duration::from_millis(500);
/// Time between two readings of the ledger, and between two renewals of sleeps.
const READ_EVERY: Duration = Duration::from_secs(10);
/// Budgets of one reading: each costs a statement of some milliseconds. More take their turns.
const READ_MAX: usize = 100;
/// Alerts that are remembered as given; beyond it the journal is asked again.
const GIVEN_MAX: usize = 10_000;

pub(crate) async fn run(stores: Stores, known: Known, shutdown: CancellationToken) {
    let mut watch = Watch::new(known);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = watch.round(&stores).await {
            tracing::warn!(%error, "budgets were not looked after");
        }
    }
}

/// What was done already. Losing it costs doing it again.
pub(crate) struct Watch {
    known: Known,
    /// Versions that the counters were told; `None` before the first round.
    told: Option<BTreeMap<Scope, i64>>,
    read_at: Option<Instant>,
    /// The last budget that was read.
    behind: Option<Scope>,
    given: BTreeSet<(Scope, &'static str, &'static str, i64, u8)>,
}

impl Watch {
    pub(crate) fn new(known: Known) -> Self {
        Self { known, told: None, read_at: None, behind: None, given: BTreeSet::new() }
    }

    pub(crate) async fn round(&mut self, stores: &Stores) -> Result<(), ChoreError> {
        self.known.refresh().await?;
        self.tell_changes(stores).await?;
        let reads = self.read_at.is_none_or(|at| at.elapsed() >= READ_EVERY);
        let woken = wake_ready(stores, reads).await?;
        if woken > 0 {
            tracing::info!(tenants = woken, "there is room in a budget again");
        }
        if reads {
            self.read(stores).await?;
            self.read_at = Some(Instant::now());
        }
        Ok(())
    }

    async fn tell_changes(&mut self, stores: &Stores) -> Result<(), ChoreError> {
        let is_first = self.told.is_none();
        let mut told = self.told.take().unwrap_or_default();
        for (scope, budget) in self.known.all().iter() {
            if told.get(scope) == Some(&budget.version) {
                continue;
            }
            stores.counters.tell(scope, budget.clone()).await?;
            if !is_first {
                bring_back(stores, scope).await?;
            }
            told.insert(scope.clone(), budget.version);
        }
        if is_first {
            // Whatever was raised while nobody looked.
            bring_back(stores, &Scope::All).await?;
        }
        self.told = Some(told);
        Ok(())
    }

    /// Reads some budgets from the ledger, those that were read longest ago, and gives alerts.
    async fn read(&mut self, stores: &Stores) -> Result<(), ChoreError> {
        let mut scopes: BTreeSet<Scope> = stores.counters.scopes().await?.into_iter().collect();
        let set = self.known.all();
        scopes.extend(set.iter().filter(|(_, budget)| !budget.value.is_empty()).map(|(scope, _)| scope.clone()));
        let behind = self.behind.take();
        let is_behind = |scope: &&Scope| behind.as_ref().is_some_and(|last| *scope > last);
        let turn: Vec<Scope> =
            scopes.iter().filter(is_behind).chain(scopes.iter().filter(|scope| !is_behind(scope))).cloned().collect();
        for scope in turn.into_iter().take(READ_MAX) {
            if let Some(budget) = self.known.of(&scope).filter(|budget| !budget.value.is_empty()) {
                fill(stores, &scope).await?;
                self.alert(stores, &scope, &budget.value).await?;
            }
            self.behind = Some(scope);
        }
        Ok(())
    }

    async fn alert(
        &mut self,
        stores: &Stores,
        scope: &Scope,
        budget: &queue_core::budget::Budget,
    ) -> Result<(), ChoreError> {
        let Some(standing) = stores.counters.standing(scope).await? else { return Ok(()) };
        for alert in alerts(scope, budget, &standing, stores.clock.now()) {
            let key = (scope.clone(), alert.measure.as_str(), alert.period.as_str(), alert.since, alert.level);
            if self.given.contains(&key) {
                continue;
            }
            if stores.budgets.note_alert(&alert).await? {
                let (spent, of) = (alert.measure.show(alert.spent), alert.measure.show(alert.budget));
                // Whose exactly stands in the log and in the alert's row: names of tenants are no labels.
                let (whose, period) = (scope.kind(), alert.period.as_str());
                let level = alert.level.to_string();
                metrics::counter!(telemetry::BUDGET_ALERTS, "scope" => whose, "period" => period, "level" => level)
                    .increment(1);
                tracing::warn!(
                    scope = %scope, percent = alert.level, period = alert.period.as_str(), spent, budget = of,
                    "a budget has reached a level"
                );
            }
            if self.given.len() >= GIVEN_MAX {
                self.given.clear();
            }
            self.given.insert(key);
        }
        Ok(())
    }
}
