//! The handler of one attempt, in a task of its own: one that does not yield holds up its thread, but neither its attempt
//! nor the deadline of that.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use queue_core::{
    error::{ErrorClass, JobError},
    traces,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::{
    context::{Handler, JobContext},
    pipeline::said,
};

/// How long a handler that was stopped may take until it yields: a computation between two awaits, or a drop. It is abandoned
/// after that.
const YIELD_MAX: Duration = Duration::from_secs(1);
/// How long a stopped attempt may take to drop its connection and write its ledger row.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Time between two looks whether a call of it is still under way.
const CALLING_LOOK_EVERY: Duration = Duration::from_millis(20);

/// A handler at work. It ends with whoever drops this.
pub(crate) struct Handling {
    pub(crate) cx: Arc<JobContext>,
    pub(crate) began: Instant,
    task: AbortOnDropHandle<Result<Bytes, JobError>>,
}

impl Handling {
    pub(crate) fn begin(handler: Arc<dyn Handler>, cx: JobContext) -> Self {
        let cx = Arc::new(cx);
        let work = {
            let cx = cx.clone();
            async move { handler.run(&cx).await }
        };
        Self { cx, began: Instant::now(), task: AbortOnDropHandle::new(traces::spawn(work.in_current_span())) }
    }

    /// What it returns, once; a panic is an error.
    pub(crate) async fn returned(&mut self) -> Result<Bytes, JobError> {
        match (&mut self.task).await {
            Ok(returned) => returned,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => {
                    let message = format!("the handler panicked: {}", said(panic.as_ref()));
                    Err(JobError::new(ErrorClass::Panic, "panic", message))
                }
                // The runtime ends, and the caller with it.
                Err(_) => pending().await,
            },
        }
    }

    /// Ends a handler that was told to stop. Whether it is gone: one that does not yield cannot be stopped.
    pub(crate) async fn stop(&mut self) -> bool {
        tokio::time::timeout(if self.cx.is_calling() { STOP_GRACE } else { YIELD_MAX }, self.end()).await.is_ok()
    }

    /// Drops it where it awaits something, once none of its calls is under way: only the handler's own task hears how a call ended
    /// and writes down what it may have cost.
    pub(crate) async fn end(&mut self) {
        while self.cx.is_calling() {
            if tokio::time::timeout(CALLING_LOOK_EVERY, self.gone()).await.is_ok() {
                return;
            }
        }
        self.task.abort();
        self.gone().await;
    }

    /// Waits until it has ended, however that is.
    async fn gone(&mut self) {
        // A panic while it is dropped is nobody's any more.
        let _ = (&mut self.task).await;
    }
}
