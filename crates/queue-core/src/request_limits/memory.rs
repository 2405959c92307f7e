//! Request limits of one process.

use std::{
    future,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;

use super::{Answer, Draw, RequestLimits, Unavailable, book::Book};
use crate::time::Clock;

/// Meters in memory.
pub struct MemoryRequestLimits {
    clock: Arc<dyn Clock>,
    book: Mutex<Book>,
}

impl MemoryRequestLimits {
    /// Whole meters.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, book: Mutex::default() }
    }
}

/// The clock's time in microseconds; before 1970 it stands still.
pub(super) fn now_us(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.now().0).unwrap_or(0).saturating_mul(1_000)
}

#[async_trait]
impl RequestLimits for MemoryRequestLimits {
    async fn take(&self, draws: &[Draw]) -> Result<Answer, Unavailable> {
        let now = now_us(&*self.clock);
        Ok(self.book.lock().unwrap_or_else(PoisonError::into_inner).take(draws, now))
    }

    fn refuses(&self, draws: &[Draw]) -> Option<Answer> {
        let now = now_us(&*self.clock);
        let answer = self.book.lock().unwrap_or_else(PoisonError::into_inner).look(draws, now);
        (!answer.admitted).then_some(answer)
    }

    async fn attend(&self) {
        future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        request_limits::conformance::Fixture,
        time::{ManualClock, Timestamp},
    };

    struct Memory(ManualClock);

    impl Fixture for Memory {
        fn limits(&self) -> Arc<dyn RequestLimits> {
            Arc::new(MemoryRequestLimits::new(Arc::new(self.0.clone())))
        }

        fn advance_ms(&self, ms: i64) {
            self.0.advance_ms(ms);
        }
    }

    crate::request_limits_conformance!(Memory(ManualClock::at(Timestamp(1_790_000_000_000))));
}
