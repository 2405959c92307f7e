//! The counters of one process, and the executable specification of those in Redis. They live as long as the process, and so
//! do the calls that it has under way: a new life has nobody to wait for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    Amount, Ask, Budget, Counters, LIFE_GRACE_MS, Parked, Scope, Span, Standing, Unavailable, UnderWay, Verdict,
    book::Book,
};
use crate::{
    ids::Name,
    journal::Versioned,
    time::{Clock, Timestamp},
};

/// Counters in memory.
pub struct MemoryCounters {
    clock: Arc<dyn Clock>,
    book: Mutex<Book>,
}

impl MemoryCounters {
    /// Nothing spent that is known yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let mut book = Book::default();
        book.begin(clock.now().0.saturating_sub(LIFE_GRACE_MS));
        Self { clock, book: Mutex::new(book) }
    }

    /// Forgets everything, as Redis does when it is flushed. For tests.
    pub fn forget(&self) {
        *self.open().0 = Book::default();
    }

    /// The book, and now. What was being done when a holder of the lock panicked is whole: nothing in `book.rs` can panic
    /// halfway.
    fn open(&self) -> (MutexGuard<'_, Book>, i64) {
        (self.book.lock().unwrap_or_else(PoisonError::into_inner), self.clock.now().0)
    }
}

#[async_trait]
impl Counters for MemoryCounters {
    async fn reserve(&self, ask: &Ask) -> Result<Verdict, Unavailable> {
        let (mut book, now) = self.open();
        Ok(book.reserve(ask, now))
    }

    async fn commit(&self, call: Uuid, took: Amount, at: Timestamp) -> Result<bool, Unavailable> {
        let (mut book, now) = self.open();
        Ok(book.commit(call, took, at.0, now))
    }

    async fn adjust(&self, call: Uuid, took: Amount) -> Result<(), Unavailable> {
        let (mut book, now) = self.open();
        book.adjust(call, took, now);
        Ok(())
    }

    async fn renew(&self, under_way: &[UnderWay]) -> Result<Option<i64>, Unavailable> {
        let (mut book, now) = self.open();
        book.renew(under_way, now);
        Ok(book.life)
    }

    async fn begin(&self) -> Result<(), Unavailable> {
        let (mut book, now) = self.open();
        book.begin(now);
        Ok(())
    }

    async fn begin_fill(&self, scope: &Scope) -> Result<i64, Unavailable> {
        let (mut book, now) = self.open();
        Ok(book.begin_fill(scope, now))
    }

    async fn end_fill(&self, scope: &Scope, fill: i64, span: Span, spent: [i64; 4]) -> Result<(), Unavailable> {
        let (mut book, now) = self.open();
        book.end_fill(scope, fill, span, spent, now);
        Ok(())
    }

    async fn tell(&self, scope: &Scope, budget: Versioned<Budget>) -> Result<(), Unavailable> {
        let (mut book, now) = self.open();
        book.tell(scope, &budget, now);
        Ok(())
    }

    async fn standing(&self, scope: &Scope) -> Result<Option<Standing>, Unavailable> {
        let (mut book, now) = self.open();
        Ok(book.standing(scope, now))
    }

    async fn park(
        &self,
        tenant: &Name,
        scope: &Scope,
        amount: Amount,
        until: Timestamp,
        reason: &str,
    ) -> Result<(), Unavailable> {
        let (mut book, _) = self.open();
        book.park(tenant, scope, amount, until, reason);
        Ok(())
    }

    async fn parked(&self) -> Result<Vec<Parked>, Unavailable> {
        let (mut book, now) = self.open();
        Ok(book.parked(now))
    }

    async fn unpark(&self, tenant: &Name) -> Result<(), Unavailable> {
        let (mut book, _) = self.open();
        book.unpark(tenant);
        Ok(())
    }

    async fn scopes(&self) -> Result<Vec<Scope>, Unavailable> {
        let (book, _) = self.open();
        Ok(book.scopes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        budget::conformance::{Fixture, START},
        time::ManualClock,
    };

    struct Memory(Arc<MemoryCounters>, ManualClock);

    impl Memory {
        fn fresh() -> Self {
            let clock = ManualClock::at(START);
            Self(Arc::new(MemoryCounters::new(Arc::new(clock.clone()))), clock)
        }
    }

    impl Fixture for Memory {
        fn counters(&self) -> Arc<dyn Counters> {
            self.0.clone()
        }

        fn clock(&self) -> ManualClock {
            self.1.clone()
        }
    }

    crate::budget_conformance!(Memory::fresh());
}
