//! Operations: takes those that nobody walks, and walks them.
//!
//! An operation is walked by one scheduler at a time, which raises its beat at least once a second. Where the beat stands
//! still for [`SILENCE`] (watched by this process's own clock, so that nobody's clock has to be right), somebody else takes it
//! and goes on behind its last step. A walker that was only slow finds another beat with its next step, and stops.

pub(crate) mod walk;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use queue_core::{ids::OperationId, journal::JournalError, operations::Operation, stores::Stores};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use walk::Walk;

/// Time between two looks: a new operation begins within it.
const EVERY: Duration = Duration::from_millis(500);
/// A walker that shows no sign of life for so long is taken for dead: three of its beats.
const SILENCE: Duration = Duration::from_secs(3);
/// Operations that one process walks at once: each holds a connection of the journal now and then, and sleeps for the rest. Slow
/// ones must not keep a cancel waiting that is urgent.
const WALKED_MAX: usize = 32;
/// Operations that one look sees; the others have their turn when some of these have ended.
const SEEN_MAX: usize = 100;

pub(crate) async fn run(stores: Stores, shutdown: CancellationToken) {
    let (mut watch, mut walks) = (Watch::default(), JoinSet::new());
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
        while let Some(ended) = walks.try_join_next() {
            watch.forget(ended);
        }
        match watch.take(&stores, WALKED_MAX.saturating_sub(walks.len())).await {
            Ok(taken) => {
                for (operation, owner) in taken {
                    let id = operation.id;
                    let walk = Walk::new(stores.clone(), operation, owner, shutdown.clone());
                    walks.spawn(async move {
                        walk.run().await;
                        id
                    });
                }
            }
            Err(error) => tracing::warn!(%error, "operations were not looked at"),
        }
    }
    // Each gives its operation back with its next step, so that another process need not wait for the silence.
    while walks.join_next().await.is_some() {}
}

/// What this process has seen of operations. Losing it costs the wait for a silence.
#[derive(Default)]
pub(crate) struct Watch {
    /// The last beat of operations that somebody walks, and when it was first seen.
    beats: HashMap<OperationId, (i64, Instant)>,
    /// Those that are walked here.
    here: Vec<OperationId>,
}

impl Watch {
    /// Takes at most `room` operations that nobody walks, oldest first.
    pub(crate) async fn take(&mut self, stores: &Stores, room: usize) -> Result<Vec<(Operation, Uuid)>, JournalError> {
        let mut running = stores.operations.operations(None, true, SEEN_MAX).await?;
        running.reverse();
        self.beats.retain(|id, _| running.iter().any(|operation| operation.id == *id));
        let mut taken = Vec::new();
        for operation in running.into_iter().filter(|operation| !self.here.contains(&operation.id)).collect::<Vec<_>>()
        {
            if taken.len() >= room || !self.is_free(&operation) {
                continue;
            }
            let owner = Uuid::now_v7();
            if let Some(operation) = stores.operations.take(operation.id, operation.beat, Some(owner)).await? {
                tracing::info!(operation = %operation.id, action = operation.order.action.as_str(), "an operation is walked");
                self.here.push(operation.id);
                taken.push((operation, owner));
            }
        }
        Ok(taken)
    }

    /// Whether nobody walks it: nobody has taken it, or whoever did has been silent for long enough.
    fn is_free(&mut self, operation: &Operation) -> bool {
        if operation.owner.is_none() {
            return true;
        }
        let (beat, since) = self.beats.entry(operation.id).or_insert_with(|| (operation.beat, Instant::now()));
        if *beat != operation.beat {
            (*beat, *since) = (operation.beat, Instant::now());
        }
        since.elapsed() >= SILENCE
    }

    fn forget(&mut self, ended: Result<OperationId, tokio::task::JoinError>) {
        match ended {
            Ok(id) => self.here.retain(|walked| *walked != id),
            Err(error) => {
                tracing::error!(%error, "a walk broke off; its operation is taken again after its silence");
                // Which one it was is not known: all of them are looked at by their beats.
                self.here.clear();
            }
        }
    }
}
