//! Ends a job that somebody else submitted, as its owner would.

use queue_core::{
    dispatcher::Place,
    events::EventBody,
    ids::JobId,
    journal::{Interrupted, JournalError},
    state::State,
    stores::Stores,
    time::Timestamp,
};

/// Out of the dispatcher first, then in the journal, and its worker is told. What has ended stays as it is.
pub(crate) async fn cancel(stores: &Stores, id: JobId, reason: &str, now: Timestamp) -> Result<(), JournalError> {
    // Without the dispatcher the cancel still holds: the epoch fences whoever runs the job.
    let place = stores.dispatcher.withdraw(id).await.unwrap_or(Place::Unknown);
    let attempt = Interrupted::of(&place);
    // A crash here leaves a job that the dispatcher does not know: the reconciler puts it back, the next look finds it.
    stores.journal.cancel(id, Some(reason.to_owned()), attempt, now).await?;
    if let Err(error) = stores.dispatcher.nudge(id).await {
        tracing::debug!(%error, job_id = %id, "the worker learns of the cancel with its next renewal");
    }
    stores.events.publish(id, EventBody::State { state: State::Cancelled });
    Ok(())
}
