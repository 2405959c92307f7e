//! The budgets as one process knows them: read from the journal every half second, so that a call asks nobody what it falls
//! under.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use super::{Budget, Scope};
use crate::{
    ids::Name,
    journal::{Budgets, JournalError, Versioned},
};

/// How old what is known may be.
pub const FRESH: Duration = Duration::from_millis(500);
/// The version of a budget that the configuration gives; those of the journal are later.
const VERSION_CONFIGURED: i64 = 1;

type All = BTreeMap<Scope, Versioned<Budget>>;

/// The budgets.
pub struct Known {
    journal: Arc<dyn Budgets>,
    /// What holds for tenants that have none of their own.
    each_tenant: Budget,
    held: RwLock<(Arc<All>, Option<Instant>)>,
}

/// The budgets that a job falls under, its key's first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applies(pub Vec<(Scope, Versioned<Budget>)>);

impl Applies {
    /// Whether any of them limits money.
    pub fn limits_money(&self) -> bool {
        self.0.iter().any(|(_, budget)| budget.value.limits_money())
    }

    /// Models that chat calls go on with where there is no room, in order.
    pub fn degrade_to(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|(_, budget)| budget.value.degrade_to.as_deref())
    }
}

impl Known {
    /// Knows nothing before the first [`Known::refresh`].
    pub fn new(journal: Arc<dyn Budgets>, each_tenant: Budget) -> Self {
        Self { journal, each_tenant, held: RwLock::default() }
    }

    /// Reads them now.
    pub async fn refresh(&self) -> Result<(), JournalError> {
        let asked_at = Instant::now();
        let all = Arc::new(self.journal.budgets().await?);
        // What was being done when a holder of the lock panicked is whole: it is one assignment.
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = (all, Some(asked_at));
        Ok(())
    }

    /// Reads them if they are not fresh.
    pub async fn freshen(&self) -> Result<(), JournalError> {
        let read_at = self.held.read().unwrap_or_else(PoisonError::into_inner).1;
        match read_at {
            Some(at) if at.elapsed() < FRESH => Ok(()),
            _ => self.refresh().await,
        }
    }

    /// All that are set, with those that limit nothing.
    pub fn all(&self) -> Arc<All> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// What holds for a scope, its configured default included; `None` where it never had one.
    pub fn of(&self, scope: &Scope) -> Option<Versioned<Budget>> {
        let configured = || match scope {
            Scope::Tenant(_) if !self.each_tenant.is_empty() => {
                Some(Versioned { version: VERSION_CONFIGURED, value: self.each_tenant.clone() })
            }
            _ => None,
        };
        self.all().get(scope).cloned().or_else(configured)
    }

    /// The budgets that limit a job of this tenant, submitted with this key.
    pub fn applies(&self, tenant: &Name, key: Option<&Name>) -> Applies {
        let scopes = key.map(|key| Scope::Key(key.clone())).into_iter();
        let scopes = scopes.chain([Scope::Tenant(tenant.clone()), Scope::All]);
        let limiting = |scope: Scope| {
            let budget = self.of(&scope).filter(|budget| !budget.value.is_empty())?;
            Some((scope, budget))
        };
        Applies(scopes.filter_map(limiting).collect())
    }
}
