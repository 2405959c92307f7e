//! Reap: leases that ended without a settle give their jobs back at a new epoch; jobs that workers keep dying with
//! become dead letters.
//!
//! A crash after the journal's bump and before the push leaves the old lease expired in the dispatcher: the next round
//! finds the row moved and drops the lease, and the reconciler pushes the row.

use std::time::Duration;

use queue_core::{
    dispatcher::{Ack, DispatchError, Lease, PUSH_MAX_ENTRIES, Step},
    events::EventBody,
    ids::SessionId,
    journal::{Recovered, Recovery},
    state::State,
    stores::Stores,
    telemetry,
};
use tokio_util::sync::CancellationToken;

use crate::RebuildError;

/// A lost worker's jobs wait this much longer than its session.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn run(stores: Stores, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = once(&stores).await {
            tracing::warn!(%error, "a round of the reaper failed");
        }
    }
}

/// One round; returns how many leases it dealt with.
pub(crate) async fn once(stores: &Stores) -> Result<usize, RebuildError> {
    let life = stores.catalog.filling().await?.generation;
    let expired = stores.dispatcher.reap(PUSH_MAX_ENTRIES).await?;
    if expired.is_empty() {
        return Ok(0);
    }
    // A reaper that was slow must not write in another life: the row may have been given out again as it is.
    if stores.catalog.filling().await?.generation != life {
        return Err(DispatchError::WrongGeneration.into());
    }
    let count = expired.len();
    let recovered = stores.journal.recover(expired.clone()).await?;
    let (mut again, mut gone) = (Vec::with_capacity(count), Vec::new());
    for (recovery, recovered) in expired.iter().zip(recovered) {
        let reason = match recovered {
            Recovered::Again(entry) => {
                again.push(entry);
                "lost_worker"
            }
            Recovered::Poisoned => {
                tracing::error!(job_id = %recovery.token.id, "workers keep dying with this job: it is a dead letter now");
                stores.events.publish(recovery.token.id, EventBody::State { state: State::Dead });
                gone.push(ack_of(recovery));
                "poison"
            }
            Recovered::Moved => {
                gone.push(ack_of(recovery));
                "moved"
            }
        };
        metrics::counter!(telemetry::RECOVERIES, "reason" => reason).increment(1);
    }
    // The living first: they wait for nothing but this.
    stores.dispatcher.push(again).await?;
    if !gone.is_empty() {
        let nobody = SessionId(uuid::Uuid::nil());
        stores.dispatcher.step(Step { session: nobody, acks: gone, queues: vec![], kinds: vec![], slots: 0 }).await?;
    }
    Ok(count)
}

/// Nobody will settle or push this claim any more.
fn ack_of(recovery: &Recovery) -> Ack {
    let lease = Lease { id: recovery.token.id, epoch: recovery.token.epoch, nonce: recovery.nonce };
    Ack { lease, next: None }
}
