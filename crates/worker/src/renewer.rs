//! Keeps this worker's leases alive, from a task of its own: a busy handler must never cost a lease.

use std::{sync::Arc, time::Duration};

use queue_core::{dispatcher::SESSION_MS, ids::SessionId, stores::Stores, telemetry};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::leases::{Leases, Stop};

/// Five renewals fit into a session's life, so that four may fail.
const RENEW_EVERY: Duration = Duration::from_millis(SESSION_MS as u64 / 5);

/// Renews until `end` fires, also while the worker drains. A lease that is gone stops its attempt.
pub(crate) async fn run(stores: Stores, session: SessionId, leases: Arc<Leases>, end: CancellationToken) {
    let mut ticks = tokio::time::interval(RENEW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match stores.dispatcher.renew(session, &leases.all()).await {
            Ok(lost) => {
                for lease in lost {
                    tracing::warn!(job_id = %lease.id, epoch = lease.epoch.0, "the lease is lost; the attempt stops");
                    leases.stop_lease(lease, Stop::LeaseLost);
                }
            }
            Err(error) => {
                metrics::counter!(telemetry::RENEW_FAILURES).increment(1);
                tracing::warn!(%error, "leases were not renewed");
            }
        }
    }
}
