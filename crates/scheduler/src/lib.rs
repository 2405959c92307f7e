//! The clockwork that keeps the dispatcher true to the journal: one role, one file, one shape.
//!
//! Every role is idempotent and bounded, may run twice at once, and may be away for a minute without loss.

mod absent;
mod backup;
mod budgets;
mod cancel;
mod cron;
mod erase;
mod generation;
mod operations;
mod orphans;
mod promote;
mod reap;
mod rebuild;
mod reconcile;
mod retain;
mod rollup;
mod sessions;
#[cfg(test)]
mod tests;
mod upkeep;
mod watch;
mod webhooks;

use std::{collections::BTreeMap, sync::Arc};

use queue_core::{
    budget::{Budget, Known},
    credentials::Credentials,
    egress::Egress,
    ids::Name,
    retention::Policy,
    schedule::Submits,
    stores::Stores,
    telemetry,
    upkeep::{Thresholds, Window},
};
use tokio_util::sync::CancellationToken;

pub use backup::{Backups, Rehearsal, Rehearsed};
pub use rebuild::{Prepared, RebuildError, prepare};
pub use watch::{ServerClock, Watched};

/// What the roles may be told.
#[derive(Clone, Default)]
pub struct Config {
    /// Nobody but this process uses these stores. Where others may, a dispatcher that is found empty is filled only when
    /// the workers that may still run something have come back.
    pub alone: bool,
    /// Jobs of a target that may run at once; targets that are not named have no limit.
    pub target_concurrency: BTreeMap<Name, u32>,
    /// The budget of tenants that have none of their own.
    pub each_tenant: Budget,
    /// How webhooks are sent; `None`: not from this process.
    pub outbound: Option<Outbound>,
    /// How backups are made; `None`: not from this process.
    pub backups: Option<Backups>,
    /// How long what is kept.
    pub retention: Policy,
    /// When the journal is looked after.
    pub window: Window,
    /// When a chore is due.
    pub upkeep: Thresholds,
    /// What is watched.
    pub watched: Watched,
    /// How the jobs of schedules get in; `None`: not from this process.
    pub submits: Option<Arc<dyn Submits>>,
}

/// What sends webhooks.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// The way out.
    pub egress: Egress,
    /// The master keys, for the secrets that messages are signed with.
    pub credentials: Arc<Credentials>,
}

/// Runs every role until `shutdown` fires. `prepared` comes from [`prepare`], which must have ended before any worker
/// or API of this process begins.
pub async fn run(stores: Stores, config: Config, prepared: Prepared, shutdown: CancellationToken) {
    let filled = prepared.filled_to();
    let (outbound, submits) = (config.outbound.clone(), config.submits.clone());
    telemetry::begin_rare(telemetry::Part::Scheduler);
    let (retention, backups) = (config.retention.clone(), config.backups.clone());
    let (window, thresholds, watched) = (config.window.clone(), config.upkeep, config.watched.clone());
    let known = Known::new(stores.budgets.clone(), config.each_tenant.clone());
    tokio::join!(
        generation::run(stores.clone(), config.clone(), shutdown.clone()),
        rebuild::run(stores.clone(), prepared, shutdown.clone()),
        reap::run(stores.clone(), shutdown.clone()),
        reconcile::run(stores.clone(), config, shutdown.clone()),
        sessions::run(stores.clone(), shutdown.clone()),
        rollup::run(stores.clone(), shutdown.clone()),
        budgets::run(stores.clone(), known, shutdown.clone()),
        operations::run(stores.clone(), shutdown.clone()),
        erase::run(stores.clone(), shutdown.clone()),
        backup::run(stores.clone(), backups, shutdown.clone()),
        orphans::run(stores.clone(), shutdown.clone()),
        cron::run(stores.clone(), submits, shutdown.clone()),
        webhooks::run(stores.clone(), outbound, shutdown.clone()),
        retain::run(stores.clone(), retention, shutdown.clone()),
        upkeep::run(stores.clone(), window, thresholds, shutdown.clone()),
        watch::run(stores.clone(), watched, shutdown.clone()),
        promote::run(stores, filled, shutdown),
    );
}

/// Prepares, as often as it takes until the stores let it, and runs every role until `shutdown` fires. For a process of
/// its own, beside which others work already.
pub async fn prepare_and_run(stores: Stores, config: Config, shutdown: CancellationToken) {
    let prepared = loop {
        match prepare(&stores, &config).await {
            Ok(prepared) => break prepared,
            Err(error) => tracing::warn!(%error, "the clockwork cannot begin yet"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(generation::EVERY) => {}
        }
    };
    // Each of the roles holds every seam.
    Box::pin(run(stores, config, prepared, shutdown)).await;
}
