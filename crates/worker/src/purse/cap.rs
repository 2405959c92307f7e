//! What one job may cost: its calls share it, within the one process that runs it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use queue_core::{
    error::{ErrorClass, JobError},
    ledger::Nanousd,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The code of an error that says: the job has used up what it may cost.
const MAX_COST: &str = "max_cost";

/// A job's `max_cost_usd`.
pub(crate) struct Cap {
    max: Nanousd,
    /// Spent, and reserved by calls under way.
    held: Mutex<(i64, i64)>,
    freed: Notify,
}

impl Cap {
    /// Of a job that has cost so much in earlier attempts.
    pub(crate) fn new(max: Nanousd, spent: Nanousd) -> Arc<Self> {
        Arc::new(Self { max, held: Mutex::new((spent.0, 0)), freed: Notify::new() })
    }

    fn held(&self) -> MutexGuard<'_, (i64, i64)> {
        // Each critical section is one change of two numbers.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a call may cost at most; waits for calls of the same job that may cost less than they reserved.
    pub(super) async fn take(
        &self,
        asked: Nanousd,
        stop: &CancellationToken,
        patience: Duration,
    ) -> Result<(), JobError> {
        let end = tokio::time::Instant::now() + patience;
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            let (spent, reserved) = {
                let mut held = self.held();
                let (spent, reserved) = *held;
                if spent.saturating_add(reserved).saturating_add(asked.0) <= self.max.0 {
                    held.1 += asked.0;
                    return Ok(());
                }
                (spent, reserved)
            };
            if reserved == 0 || spent.saturating_add(asked.0) > self.max.0 {
                let [max, spent, asked] = [self.max, Nanousd(spent), asked];
                let message =
                    format!("the job may cost ${max} at most: ${spent} are spent, and its next call may cost ${asked}");
                return Err(JobError { retryable: false, ..JobError::new(ErrorClass::Budget, MAX_COST, message) });
            }
            tokio::select! {
                () = stop.cancelled() => return Err(super::Wish::stopped()),
                () = tokio::time::sleep_until(end) => {
                    let message = "other calls of the job have reserved what it may still cost";
                    return Err(JobError::new(ErrorClass::Budget, super::BUDGET_WAIT, message).with_retry_after(Some(1_000)));
                }
                () = freed => {}
            }
        }
    }

    /// A call that had reserved so much cost so much.
    pub(super) fn settle(&self, reserved: Nanousd, cost: Nanousd) {
        let mut held = self.held();
        held.1 -= reserved.0;
        held.0 += cost.0;
        drop(held);
        self.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_spends_no_more_than_it_may() {
        let (cap, stop) = (Cap::new(Nanousd(100), Nanousd(20)), CancellationToken::new());
        let take = async |asked| cap.take(Nanousd(asked), &stop, Duration::from_secs(5)).await;
        take(50).await.unwrap();
        cap.settle(Nanousd(50), Nanousd(30));
        let over = take(51).await.unwrap_err();
        assert_eq!((over.class, over.code.as_str(), over.retryable), (ErrorClass::Budget, MAX_COST, false));
        assert!(over.message.contains("$0.00000005 are spent"), "{over}");
        take(40).await.unwrap();
        // Ten are free, and forty may come back.
        let (waited, ()) = tokio::join!(take(45), async { cap.settle(Nanousd(40), Nanousd(5)) });
        waited.unwrap();
        stop.cancel();
        assert_eq!(take(44).await.unwrap_err().code, "cancelled");
    }
}
