//! What callers may ask for and spend, as it is known when a request arrives: the rules of tenants, read at most once a second,
//! and budgets. A job that cannot fit is refused with an estimate, before anybody waits for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use queue_core::{
    budget::{Applies, Lines, Measure, Scope},
    error::ErrorClass,
    fallback::Link,
    ids::Name,
    journal::{JournalError, TenantRules, TenantSettings, Versioned},
    ledger::Nanousd,
    payload::{
        Surroundings,
        quote::{Quote, Unpriced},
    },
    request_limits::Rates,
    stores::Stores,
};

use crate::problem::{Cause, Problem};

/// Age at which settings are read anew.
const FRESH: Duration = Duration::from_secs(1);

/// What operators have set.
#[derive(Debug, Default)]
struct All {
    tenants: BTreeMap<Name, Versioned<TenantSettings>>,
    /// Queues that take no jobs.
    draining: BTreeSet<Name>,
    /// Tenants that were erased, each with its pseudonym.
    erased: BTreeMap<Name, String>,
}

/// The settings of tenants and queues as this process read them last.
#[derive(Default)]
pub(crate) struct Policies {
    held: Mutex<Held>,
    /// Held by whoever reads the journal: one at a time.
    reading: tokio::sync::Mutex<()>,
}

/// What was read last, and when.
#[derive(Default)]
struct Held {
    read: Option<(Arc<All>, Instant)>,
    /// Changes that were made here: what was read before one is older than it.
    changes: u64,
}

impl Policies {
    fn fresh(&self) -> Option<Arc<All>> {
        self.held().read.as_ref().filter(|(_, at)| at.elapsed() < FRESH).map(|(all, _)| all.clone())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // What was being done when a holder of the lock panicked is whole: assignments.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What holds now.
    pub(crate) async fn now(&self, stores: &Stores) -> Result<Policy, JournalError> {
        if let Some(all) = self.fresh() {
            return Ok(Policy(all));
        }
        let _one = self.reading.lock().await;
        if let Some(all) = self.fresh() {
            return Ok(Policy(all));
        }
        let (read_at, changes) = (Instant::now(), self.held().changes);
        let (catalog, erasures) = (&stores.catalog, &stores.erasures);
        let (tenants, queues, log) = tokio::try_join!(catalog.tenants(), catalog.queues(), erasures.erasures())?;
        let draining = queues.into_iter().filter(|(_, settings)| settings.value.draining).map(|(queue, _)| queue);
        let erased = log.into_iter().map(|erasure| (erasure.tenant, erasure.pseudonym)).collect();
        let all = Arc::new(All { tenants, draining: draining.collect(), erased });
        let mut held = self.held();
        if held.changes == changes {
            held.read = Some((all.clone(), read_at));
        }
        Ok(Policy(all))
    }

    /// Something was changed here: it holds with the next request.
    pub(crate) fn forget(&self) {
        let mut held = self.held();
        held.read = None;
        held.changes += 1;
    }
}

/// What tenants may ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy(Arc<All>);

impl Policy {
    /// What was set for a tenant; `None` where it may ask for anything.
    pub(crate) fn rules(&self, tenant: &Name) -> Option<&TenantRules> {
        self.0.tenants.get(tenant).map(|settings| &settings.value.rules).filter(|rules| !rules.is_empty())
    }

    /// How often a tenant may ask, as far as somebody set it.
    pub(crate) fn rates(&self, tenant: &Name) -> Rates {
        self.0.tenants.get(tenant).map_or_else(Rates::default, |settings| settings.value.rates)
    }
}

impl Policy {
    /// The pseudonym of a tenant that was erased.
    pub(crate) fn pseudonym(&self, tenant: &Name) -> Option<&str> {
        self.0.erased.get(tenant).map(String::as_str)
    }

    /// Refuses whatever would leave something of a tenant that was erased.
    pub(crate) fn check_tenant(&self, tenant: &Name) -> Result<(), Problem> {
        if self.pseudonym(tenant).is_none() {
            return Ok(());
        }
        Err(Problem::new(Cause::TenantErased, "the tenant was erased, and its name is not taken again"))
    }

    /// Refuses a job for a queue that is to run empty.
    pub(crate) fn check_queue(&self, queue: &Name) -> Result<(), Problem> {
        if !self.0.draining.contains(queue) {
            return Ok(());
        }
        let detail = format!("the queue {queue} runs empty and takes no jobs; another queue may");
        Err(Problem::new(Cause::QueueDraining, detail).at("/queue", "takes no jobs until it is resumed"))
    }
}

/// What a job may cost.
pub(crate) struct Spending<'a> {
    /// Its own cap.
    pub(crate) max_cost: Option<Nanousd>,
    /// The budgets that it falls under.
    pub(crate) budgets: Applies,
    /// Its fallback chain, and its payload's.
    pub(crate) links: &'a [Link],
    /// Whether it is refused where nobody knows what it costs.
    pub(crate) refuse_unpriced: bool,
}

impl Spending<'_> {
    /// Refuses a job that will never be let pass, whatever is left of its budgets.
    pub(crate) fn check(&self, quote: impl FnOnce() -> Quote, around: Surroundings<'_>) -> Result<(), Problem> {
        let limits_money = self.max_cost.is_some() || self.budgets.limits_money();
        if !limits_money && self.budgets.0.is_empty() {
            return Ok(());
        }
        let quote = quote();
        let cheaper = self.links.iter().filter(|link| link.on.contains(&ErrorClass::Budget)).map(|link| &*link.model);
        let others: Vec<&str> = cheaper.chain(self.budgets.degrade_to()).collect();
        let cost = match quote.cost(around.prices, others.iter().copied()) {
            Ok(cost) => cost,
            Err(Unpriced(model)) if limits_money && self.refuse_unpriced => {
                let reason = format!(
                    "nobody knows what `{model}` costs, and money is limited: give it a price, or a default price to all"
                );
                return Err(Problem::field("/payload/model", reason));
            }
            // It counts as free.
            Err(_) => Nanousd(0),
        };
        if let Some(max) = self.max_cost.filter(|max| cost > *max) {
            let detail = format!("the job costs ${cost} at the least, and it may cost ${max}");
            let problem = Problem::new(Cause::TooDear, detail).estimated(cost);
            return Err(problem.at("/max_cost_usd", format!("is less than ${cost}, what the job costs at the least")));
        }
        for (scope, budget) in &self.budgets.0 {
            for ((measure, period), limit) in Lines::ALL.into_iter().zip(budget.value.limits()) {
                let Some(limit) = limit else { continue };
                let least = match measure {
                    Measure::Usd => cost.0,
                    Measure::Tokens => i64::try_from(quote.tokens()).unwrap_or(i64::MAX),
                };
                if least > limit {
                    let (least, limit) = (measure.show(least), measure.show(limit));
                    let of = format!("the {} budget of {}", period.adjective(), scope.words());
                    // What all tenants together may spend is the operators' business.
                    let of = if *scope == Scope::All { of } else { format!("{of} ({limit})") };
                    let detail = format!("the job needs {least} at the least: more than {of} ever has");
                    let reason = format!("needs {least} at the least: more than {of} ever has");
                    return Err(Problem::new(Cause::TooDear, detail).estimated(cost).at("/payload", reason));
                }
            }
        }
        Ok(())
    }
}
