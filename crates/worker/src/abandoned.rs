//! Handlers that were stopped and have not yielded: each holds up a thread of this process, and perhaps for ever.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use queue_core::{ids::JobId, job::Kind};
use tokio_util::sync::CancellationToken;

use crate::{context::JobContext, handling::Handling, leases::Leases};

/// How long a handler that was stopped may go on without yielding. A thread that is lost for longer is only had back by a new
/// process.
pub const RECYCLE_AFTER: Duration = Duration::from_secs(10);

/// A handler that did not end although it was stopped, which is why its worker has.
#[derive(Clone, Copy, Debug)]
pub struct Stuck {
    /// The job whose attempt it was.
    pub job: JobId,
    /// The job's kind.
    pub kind: Kind,
    /// How long it had run.
    pub ran: Duration,
}

/// Those of one worker.
#[derive(Debug, Default)]
pub(crate) struct Abandoned {
    count: AtomicUsize,
    first_stuck: OnceLock<Stuck>,
    /// Fires when one of them is stuck.
    pub(crate) recycle: CancellationToken,
}

impl Abandoned {
    /// Whether nothing may be claimed: what is claimed now would wait for the threads that are left.
    pub(crate) fn hold(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// The first that did not end in time.
    pub(crate) fn stuck(&self) -> Option<Stuck> {
        self.first_stuck.get().copied()
    }

    /// From now on nothing is claimed. What is returned watches the handler until it ends, and hands on what its calls have left behind.
    pub(crate) fn watch(
        self: Arc<Self>,
        handling: Handling,
        leases: Arc<Leases>,
    ) -> impl Future<Output = Arc<JobContext>> + Send {
        self.count.fetch_add(1, Ordering::Relaxed);
        let counted = Counted { abandoned: self, leases };
        async move { counted.abandoned.until_gone(handling).await }
    }

    async fn until_gone(&self, mut handling: Handling) -> Arc<JobContext> {
        let (id, kind, began) = (handling.cx.job().id, handling.cx.job().kind, handling.began);
        let after_ms = || began.elapsed().as_millis() as u64;
        tracing::warn!(job_id = %id, kind = kind.as_str(), after_ms = after_ms(),
            "a handler was stopped and does not yield; nothing is claimed until it ends");
        if tokio::time::timeout(RECYCLE_AFTER, handling.end()).await.is_err() {
            let stuck = Stuck { job: id, kind, ran: began.elapsed() };
            tracing::error!(job_id = %id, kind = kind.as_str(), after_ms = after_ms(),
                "a handler that was stopped has not yielded for too long: this worker drains and ends, to be started again");
            let _ = self.first_stuck.set(stuck);
            self.recycle.cancel();
            handling.end().await;
        }
        tracing::info!(job_id = %id, kind = kind.as_str(), after_ms = after_ms(), "a handler that was stopped has ended");
        handling.cx
    }
}

/// Counts one of them until it is dropped.
struct Counted {
    abandoned: Arc<Abandoned>,
    leases: Arc<Leases>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.abandoned.count.fetch_sub(1, Ordering::Relaxed);
        self.leases.changed.notify_one();
    }
}
