//! The cap on a tenant's live jobs, without counting them at each submit.
//!
//! The journal's number is read at most once a second for each tenant that submits. What this process accepts in
//! between is counted here, so one process never passes a cap; several may together, by what the others accept in that
//! second. Ends are seen with the next read, so a submit may be refused for up to a second after there is room.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use queue_core::{
    ids::Name,
    journal::{Accepted, Catalog, JournalError},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::{Cause, Problem};

/// Age at which a number is read anew.
const FRESH_MAX: Duration = Duration::from_secs(1);
/// What a refused client is told to wait: until then the numbers are read anew.
const RETRY_AFTER_S: u32 = 2;

/// How full a tenant's backlog is.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Backlog)]
pub(crate) struct BacklogView {
    /// Whose.
    #[schema(value_type = String)]
    tenant: Name,
    /// Jobs that may be live at once.
    max: u64,
    /// Jobs that are live, as far as this process knows.
    live: u64,
}

/// What this process knows of tenants that have submitted: as many as own API keys.
#[derive(Debug, Default)]
pub(crate) struct Backlogs {
    tenants: Mutex<HashMap<Name, Arc<Tenant>>>,
}

#[derive(Debug, Default)]
struct Tenant {
    numbers: Mutex<Numbers>,
    /// Held by whoever reads the journal: one at a time.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Numbers {
    read_at: Option<Instant>,
    max: Option<u64>,
    /// Live jobs at the last read, with what has been let in since or was on its way then.
    used: u64,
    /// Jobs that were let in and are not committed yet.
    on_their_way: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Backlogs {
    /// Lets as many of `jobs` in as there is room for, the first ones.
    pub(crate) async fn enter(&self, catalog: &dyn Catalog, name: &Name, jobs: usize) -> Result<Room, JournalError> {
        let tenant = {
            let mut tenants = locked(&self.tenants);
            match tenants.get(name) {
                Some(tenant) => tenant.clone(),
                None => tenants.entry(name.clone()).or_default().clone(),
            }
        };
        tenant.freshen(catalog, name).await?;
        let mut numbers = locked(&tenant.numbers);
        let free = numbers.max.map_or(u64::MAX, |max| max.saturating_sub(numbers.used));
        let granted = free.min(jobs as u64);
        numbers.used += granted;
        numbers.on_their_way += granted;
        let full = numbers.max.filter(|_| granted < jobs as u64).map(|max| BacklogView {
            tenant: name.clone(),
            max,
            live: numbers.used,
        });
        drop(numbers);
        Ok(Room { tenant, granted, full })
    }
}

impl Tenant {
    async fn freshen(&self, catalog: &dyn Catalog, name: &Name) -> Result<(), JournalError> {
        let is_fresh = || locked(&self.numbers).read_at.is_some_and(|at| at.elapsed() < FRESH_MAX);
        if is_fresh() {
            return Ok(());
        }
        let _reading = self.reading.lock().await;
        if is_fresh() {
            return Ok(());
        }
        // Before the read: what commits during it may be counted twice until the next one, and never not at all.
        let on_their_way = locked(&self.numbers).on_their_way;
        let backlog = catalog.backlog(name).await?;
        let mut numbers = locked(&self.numbers);
        numbers.max = backlog.max;
        numbers.used = backlog.live + on_their_way;
        numbers.read_at = Some(Instant::now());
        Ok(())
    }
}

/// Room that jobs have been given until they are committed.
#[derive(Debug)]
pub(crate) struct Room {
    tenant: Arc<Tenant>,
    granted: u64,
    full: Option<BacklogView>,
}

impl Room {
    /// How many may come in.
    pub(crate) fn jobs(&self) -> usize {
        usize::try_from(self.granted).unwrap_or(usize::MAX)
    }

    /// Why the others may not.
    pub(crate) fn refusal(&self) -> Option<Problem> {
        let full = self.full.clone()?;
        let BacklogView { tenant, max, live } = &full;
        let detail = format!("tenant `{tenant}` may have {max} live jobs and has {live}; send it again later");
        Some(Problem::new(Cause::BacklogFull, detail).of_backlog(full).retry_after(RETRY_AFTER_S))
    }

    /// Gives back what was not needed: jobs that were refused behind this, or that the journal had already, or refused.
    pub(crate) fn settle(&self, answers: &[Accepted]) {
        let came = answers.iter().filter(|answer| **answer == Accepted::New).count() as u64;
        let unused = self.granted.saturating_sub(came);
        let mut numbers = locked(&self.tenant.numbers);
        numbers.used = numbers.used.saturating_sub(unused);
    }
}

impl Drop for Room {
    /// A commit that failed keeps its room until the next read: nobody knows whether it did.
    fn drop(&mut self) {
        let mut numbers = locked(&self.tenant.numbers);
        numbers.on_their_way = numbers.on_their_way.saturating_sub(self.granted);
    }
}
