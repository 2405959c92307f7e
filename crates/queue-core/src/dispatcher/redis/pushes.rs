//! Pushes of one process, sent together: a call of the library costs as much as ten of its entries, so what comes while
//! one is on its way is the next one. A push that comes alone goes at once.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{codec::Batch, partition::Partition};
use crate::dispatcher::{DispatchError, Entry, PUSH_MAX_ENTRIES};

/// Pushes that wait for their turn; further callers wait for room.
const WAITING_MAX: usize = 4_096;

struct Asked {
    /// At most [`PUSH_MAX_ENTRIES`].
    entries: Vec<Entry>,
    /// An entry that was on its way for long may meet a reconciler that looked for it before, so none is sent then.
    until: Instant,
    caller: oneshot::Sender<Result<(), DispatchError>>,
}

/// The way to the task that sends them. It ends with this.
pub(super) struct Pushes {
    asked: mpsc::Sender<Asked>,
    /// Longest wait for a turn.
    patience: Duration,
}

impl Pushes {
    pub(super) fn start(partition: Arc<Partition>, patience: Duration) -> Self {
        let (asked, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(send_all(partition, waiting));
        Self { asked, patience }
    }

    /// Returns when Redis knows the entries, of which there are at most [`PUSH_MAX_ENTRIES`].
    pub(super) async fn push(&self, entries: Vec<Entry>) -> Result<(), DispatchError> {
        let ended = || DispatchError::Unavailable("the task that pushes has ended".into());
        let late = |_| busy();
        let (caller, answer) = oneshot::channel();
        let until = Instant::now() + self.patience;
        timeout_at(until, self.asked.send(Asked { entries, until, caller }))
            .await
            .map_err(late)?
            .map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

fn busy() -> DispatchError {
    DispatchError::Unavailable("Redis did not take the pushes before this one in time".into())
}

async fn send_all(partition: Arc<Partition>, mut waiting: mpsc::Receiver<Asked>) {
    let mut next = waiting.recv().await;
    while let Some(first) = next {
        let (mut batch, mut entries, mut callers) = (Batch::default(), 0, vec![]);
        let now = Instant::now();
        // One that no longer fits is the first of the next call.
        let mut behind = Some(first);
        while let Some(asked) = behind.take() {
            if asked.until < now {
                let _ = asked.caller.send(Err(busy()));
            } else if entries > 0 && entries + asked.entries.len() > PUSH_MAX_ENTRIES {
                behind = Some(asked);
                break;
            } else {
                entries += asked.entries.len();
                asked.entries.iter().for_each(|entry| batch.entry(entry));
                callers.push(asked.caller);
            }
            behind = waiting.try_recv().ok();
        }
        if callers.is_empty() {
            next = waiting.recv().await;
            continue;
        }
        let answer = partition.call("push", batch.into_args()).await.map(|_| ());
        for caller in callers {
            // A caller that went away has no use for its answer.
            let _ = caller.send(answer.clone());
        }
        next = match behind {
            Some(asked) => Some(asked),
            None => waiting.recv().await,
        };
    }
}
