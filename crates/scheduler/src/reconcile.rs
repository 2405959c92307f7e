//! Reconcile: live rows that the dispatcher does not know get a new epoch and are pushed.
//!
//! A push can be lost between the commit and the dispatcher (a crash, a full network, a flush). The sweep walks the
//! live rows by due time, a bounded page at a time, and begins again at the end; a backlog smaller than one page is
//! seen whole in every round. What the dispatcher holds and the journal has ended is none of its work: such an entry
//! is dropped by the preflight of its next claim, or by the reaper once its lease is over.
//!
//! While a life is filled nothing is reconciled: what the dispatcher does not know then may run at a worker that has not
//! come back yet.

use std::{collections::BTreeMap, time::Duration};

use queue_core::{
    dispatcher::{DispatchError, Entry, HORIZON_MS, PUSH_MAX_ENTRIES, Place, Setting},
    ids::{Generation, JobId, Name},
    journal::{LiveScan, TargetSettings, Token, Versioned},
    route::Target,
    stores::Stores,
    telemetry,
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;

use crate::{Config, RebuildError};

/// Time between two rounds.
const EVERY: Duration = Duration::from_secs(5);
/// Rows of one round: at this pace a million live rows are walked in about four minutes.
pub(crate) const ROUND_MAX_ROWS: usize = 20_000;
/// Rows younger than this may still be on their way from the commit to the push.
pub(crate) const YOUNG_MS: i64 = 5_000;

type Cursor = (Timestamp, JobId);

pub(crate) async fn run(stores: Stores, config: Config, shutdown: CancellationToken) {
    let mut sweep = Sweep::of(config);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = sweep.round(&stores).await {
            tracing::warn!(%error, "a round of the reconciler failed");
        }
    }
}

/// Where the sweep is. Losing it costs a sweep from the start.
#[derive(Default)]
pub(crate) struct Sweep {
    /// The last row that was seen; `None` before the first.
    after: Option<Cursor>,
    /// The settings of queues, tenants and targets that this process has told the dispatcher.
    told: BTreeMap<Name, i64>,
    told_of_tenants: BTreeMap<Name, i64>,
    told_of_targets: BTreeMap<Name, (i64, Option<u32>)>,
    config: Config,
}

impl Sweep {
    pub(crate) fn of(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// Walks up to [`ROUND_MAX_ROWS`] rows; returns how many it pushed. A round that failed is begun again where it
    /// stopped.
    pub(crate) async fn round(&mut self, stores: &Stores) -> Result<usize, RebuildError> {
        self.tell_settings(stores).await?;
        let life = stores.catalog.filling().await?;
        if !life.done {
            return Ok(0);
        }
        let (mut walked, mut pushed) = (0, 0);
        while walked < ROUND_MAX_ROWS {
            let now = stores.clock.now();
            let scan = LiveScan {
                after: self.after,
                due_by: now.plus_ms(HORIZON_MS),
                accepted_by: now.plus_ms(-YOUNG_MS),
                limit: PUSH_MAX_ENTRIES,
            };
            let rows = stores.journal.live(scan).await?;
            let Some(last) = rows.last() else {
                self.after = None;
                break;
            };
            let count = push_unknown(stores, life.generation, &rows).await?;
            if count > 0 {
                tracing::warn!(jobs = count, "the dispatcher did not know these live jobs");
                metrics::counter!(telemetry::RECONCILED).increment(count as u64);
            }
            pushed += count;
            self.after = Some((last.run_at, last.id));
            walked += rows.len();
        }
        Ok(pushed)
    }

    /// Tells the dispatcher what operators have set since the last round: whoever committed it may have died before
    /// telling. A flush is not noticed here; who begins a new life tells it everything.
    async fn tell_settings(&mut self, stores: &Stores) -> Result<(), RebuildError> {
        for (queue, settings) in stores.catalog.queues().await? {
            let version = settings.version;
            if self.told.get(&queue) == Some(&version) {
                continue;
            }
            stores.dispatcher.apply(Setting::Queue(queue.clone(), settings)).await?;
            self.told.insert(queue, version);
        }
        for (tenant, settings) in stores.catalog.tenants().await? {
            let version = settings.version;
            if self.told_of_tenants.get(&tenant) == Some(&version) {
                continue;
            }
            stores.dispatcher.apply(Setting::Tenant(tenant.clone(), settings)).await?;
            self.told_of_tenants.insert(tenant, version);
        }
        for (target, settings) in stores.catalog.targets().await? {
            let (version, jobs) = (settings.version, settings.value.limit.concurrency);
            let told = self.told_of_targets.get(&target);
            if told.is_some_and(|(told, _)| *told == version) {
                continue;
            }
            tell_target(stores, target.clone(), settings).await?;
            if let (None, Some(lanes)) = (jobs, to_take_back(&target, told.copied())) {
                let configured = self.config.target_concurrency.get(&lanes).copied();
                stores.dispatcher.apply(Setting::TargetConcurrency(lanes, configured)).await?;
            }
            self.told_of_targets.insert(target, (version, jobs));
        }
        Ok(())
    }
}

/// The lanes whose jobs at once are as configured again: those of which this process told something else, and those of a
/// pattern of which it knows nothing. What was told of one target, its workers tell anew.
fn to_take_back(target: &Name, told: Option<(i64, Option<u32>)>) -> Option<Name> {
    let target = Target::parse(target.as_str())?;
    let may_hold = match told {
        Some((_, jobs)) => jobs.is_some(),
        None => target.is_pattern(),
    };
    may_hold.then(|| target.lanes())
}

/// Tells breakers and dispatcher what operators have set for a target, or for those of a pattern, which have nothing but a
/// limit.
pub(crate) async fn tell_target(
    stores: &Stores,
    name: Name,
    settings: Versioned<TargetSettings>,
) -> Result<(), RebuildError> {
    let target = Target::parse(name.as_str());
    if let (Some(target), Some(jobs)) = (&target, settings.value.limit.concurrency) {
        stores.dispatcher.apply(Setting::TargetConcurrency(target.lanes(), Some(jobs))).await?;
    }
    if target.is_some_and(|target| target.is_pattern()) {
        return Ok(());
    }
    stores.breakers.set(&name, settings.clone()).await?;
    stores.dispatcher.apply(Setting::Target(name, settings)).await?;
    Ok(())
}

/// Pushes those of `rows` that the dispatcher does not know, at a new epoch; returns how many. `life` is the life that
/// must not have ended when the dispatcher answered.
pub(crate) async fn push_unknown(stores: &Stores, life: Generation, rows: &[Entry]) -> Result<usize, RebuildError> {
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let places = stores.dispatcher.locate(&ids).await?;
    // A life has its number in the journal before the dispatcher hears of it.
    if stores.catalog.filling().await?.generation != life {
        return Err(DispatchError::WrongGeneration.into());
    }
    let unknown: Vec<_> = rows
        .iter()
        .zip(&places)
        .filter(|(_, place)| matches!(place, Place::Unknown))
        .map(|(row, _)| Token { id: row.id, epoch: row.epoch })
        .collect();
    if unknown.is_empty() {
        return Ok(0);
    }
    let found = stores.journal.reconcile(unknown).await?;
    let count = found.len();
    stores.dispatcher.push(found).await?;
    Ok(count)
}
