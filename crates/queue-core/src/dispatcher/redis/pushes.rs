//! Pushes of one process, sent together: a call of the library costs as much as ten of its entries, so what comes while
//! one is on its way is the next one. A push that comes alone goes at once.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{codec::Batch, partition::Partition};
use crate::dispatcher::{DispatchError, Entry, PUSH_MAX_ENTRIES};

/// Pushes that wait for their turn; further callers wait for room.
const WAITING_MAX: usize = 4_096;

struct Asked {
    /// At most [`PUSH_MAX_ENTRIES`].
    entries: Vec<Entry>,
    caller: oneshot::Sender<Result<(), DispatchError>>,
}

/// The way to the task that sends them. It ends with this.
pub(super) struct Pushes {
    asked: mpsc::Sender<Asked>,
}

impl Pushes {
    pub(super) fn start(partition: Arc<Partition>) -> Self {
        let (asked, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(send_all(partition, waiting));
        Self { asked }
    }

    /// Returns when Redis knows the entries, of which there are at most [`PUSH_MAX_ENTRIES`].
    pub(super) async fn push(&self, entries: Vec<Entry>) -> Result<(), DispatchError> {
        let ended = || DispatchError::Unavailable("the task that pushes has ended".into());
        let (caller, answer) = oneshot::channel();
        self.asked.send(Asked { entries, caller }).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

async fn send_all(partition: Arc<Partition>, mut waiting: mpsc::Receiver<Asked>) {
    let mut next = waiting.recv().await;
    while let Some(first) = next {
        let (mut batch, mut entries, mut callers) = (Batch::default(), 0, vec![]);
        let mut add = |asked: Asked| {
            asked.entries.iter().for_each(|entry| batch.entry(entry));
            callers.push(asked.caller);
        };
        entries += first.entries.len();
        add(first);
        // One that no longer fits is the first of the next call.
        let behind = loop {
            match waiting.try_recv() {
                Ok(asked) if entries + asked.entries.len() > PUSH_MAX_ENTRIES => break Some(asked),
                Ok(asked) => {
                    entries += asked.entries.len();
                    add(asked);
                }
                Err(_) => break None,
            }
        };
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
