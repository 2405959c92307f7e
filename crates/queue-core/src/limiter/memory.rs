//! The limiter of one process, and the executable specification of the one in Redis.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{
    Answer, Ask, Cause, Lift, Limit, Limiter, Penalty, Standing, Told, Unavailable, Used,
    book::{Book, Credential},
};
use crate::{ids::Name, route::Target, time::Clock};

/// Most targets that are held; beyond it, those that were not asked for longest are forgotten, which is one burst for each.
const TARGETS_MAX: usize = 10_000;
/// A target that was not asked for so long is not told of.
const IDLE_MS: f64 = 3_600_000.0;

/// Buckets in memory.
pub struct MemoryLimiter {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    books: HashMap<Target, Book>,
    /// By provider and credential.
    credentials: HashMap<(Name, Name), Credential>,
}

impl MemoryLimiter {
    /// Full buckets.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    fn now(&self) -> f64 {
        self.clock.now().0 as f64
    }

    /// What was being done when a holder of the lock panicked is whole: nothing in `book.rs` can panic halfway.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, target: &Target, work: impl FnOnce(&mut Book, &mut Credential, f64) -> T) -> T {
        let now = self.now();
        let mut state = self.state();
        let State { books, credentials } = &mut *state;
        if books.len() >= TARGETS_MAX && !books.contains_key(target) {
            let oldest = books.iter().min_by(|(_, a), (_, b)| a.at.total_cmp(&b.at)).map(|(target, _)| target.clone());
            oldest.map(|oldest| books.remove(&oldest));
        }
        let book = books.entry(target.clone()).or_default();
        let credential = credentials.entry((target.provider.clone(), target.credential.clone())).or_default();
        work(book, credential, now)
    }
}

#[async_trait]
impl Limiter for MemoryLimiter {
    async fn reserve(&self, ask: &Ask) -> Result<Answer, Unavailable> {
        Ok(self.with(&ask.target, |book, of, now| book.reserve(&mut of.doubt, ask, now)))
    }

    async fn confirm(&self, ask: &Ask) -> Result<Option<(u64, Cause)>, Unavailable> {
        Ok(self.with(&ask.target, |book, of, now| book.confirm(of.doubt.as_ref(), now)))
    }

    async fn settle(&self, ask: &Ask, used: Used) -> Result<(), Unavailable> {
        self.with(&ask.target, |book, of, now| book.settle(&mut of.doubt, &ask.limit, now, used));
        Ok(())
    }

    async fn penalise(&self, ask: &Ask, penalty: Penalty, wait_ms: u64, reason: &str) -> Result<u64, Unavailable> {
        let wait = wait_ms as f64;
        Ok(self.with(&ask.target, |book, of, now| book.penalise(&mut of.doubt, &ask.limit, now, penalty, wait, reason)))
    }

    async fn block(
        &self,
        ask: &Ask,
        penalty: Penalty,
        wait_ms: u64,
        age_ms: u64,
        reason: &str,
    ) -> Result<u64, Unavailable> {
        let times = (wait_ms as f64, age_ms as f64);
        Ok(self.with(&ask.target, |book, of, now| book.block_again(of, &ask.limit, now, penalty, times, reason)))
    }

    async fn lift(&self, target: &Target, limit: &Limit, lift: Lift) -> Result<bool, Unavailable> {
        Ok(self.with(target, |book, of, now| book.lift(of, limit, now, lift)))
    }

    async fn observe(&self, ask: &Ask, told: Told) -> Result<(), Unavailable> {
        self.with(&ask.target, |book, _, now| book.observe(&ask.limit, now, told));
        Ok(())
    }

    async fn standing(&self, target: &Target, limit: &Limit) -> Result<Standing, Unavailable> {
        // A question makes no book: who only looks must not fill the memory.
        let now = self.now();
        let mut state = self.state();
        let credential = (target.provider.clone(), target.credential.clone());
        let doubt = state.credentials.get(&credential).and_then(|credential| credential.doubt.clone());
        let held = state.books.get(target);
        let mut book = held.cloned().unwrap_or_default();
        let standing = book.standing(doubt.as_ref(), limit, now);
        if held.is_some_and(|held| held.tickets() != standing.tickets) {
            state.books.insert(target.clone(), book);
        }
        Ok(standing)
    }

    async fn targets(&self) -> Result<Vec<Name>, Unavailable> {
        let now = self.now();
        let state = self.state();
        let mut names: Vec<_> =
            state.books.iter().filter(|(_, book)| book.at > now - IDLE_MS).map(|(target, _)| target.name()).collect();
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limiter::conformance::Fixture,
        time::{ManualClock, Timestamp},
    };

    struct Memory(Arc<MemoryLimiter>, ManualClock);

    impl Memory {
        fn fresh() -> Self {
            let clock = ManualClock::at(Timestamp(1_790_000_000_000));
            Self(Arc::new(MemoryLimiter::new(Arc::new(clock.clone()))), clock)
        }
    }

    impl Fixture for Memory {
        fn limiter(&self) -> Arc<dyn Limiter> {
            self.0.clone()
        }

        fn advance_ms(&self, ms: i64) {
            self.1.advance_ms(ms);
        }
    }

    crate::limiter_conformance!(Memory::fresh());
}
