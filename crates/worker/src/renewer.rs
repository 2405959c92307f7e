//! Keeps this worker's leases alive, from a task of its own: a busy handler must never cost a lease.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

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
        once(&stores, session, &leases).await;
    }
}

/// Renews everything that is held; what is lost is stopped.
pub(crate) async fn once(stores: &Stores, session: SessionId, leases: &Leases) {
    let sent = Instant::now();
    match stores.dispatcher.renew(session, &leases.all()).await {
        Ok(lost) => {
            leases.note_renewal(sent);
            for lease in lost {
                if leases.stop_lease(lease, Stop::LeaseLost) {
                    tracing::warn!(job_id = %lease.id, epoch = lease.epoch.0, "the lease is lost; the attempt stops");
                }
            }
        }
        Err(error) => {
            metrics::counter!(telemetry::RENEW_FAILURES).increment(1);
            tracing::warn!(%error, "leases were not renewed");
        }
    }
}
