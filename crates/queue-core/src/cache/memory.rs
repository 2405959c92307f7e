//! The cache of one process: bounded by bytes; what was used longest ago goes first.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Cache, Fence, Key, Lock, VALUE_MAX_BYTES};
use crate::time::{Clock, Timestamp};

/// What an entry costs besides its value: key and places in two maps.
const ENTRY_BYTES: usize = 160;
/// Most locks that are remembered: each belongs to a call that is under way.
const LOCKS_MAX: usize = 100_000;

/// A cache in memory.
pub struct MemoryCache {
    clock: Arc<dyn Clock>,
    bytes_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    entries: HashMap<Key, Entry>,
    /// Keys by their last use, oldest first.
    by_use: BTreeMap<u64, Key>,
    bytes: usize,
    uses: u64,
    locks: HashMap<Key, (Fence, Timestamp)>,
    fences: u64,
}

struct Entry {
    value: Bytes,
    until: Timestamp,
    used: u64,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.value.len() + ENTRY_BYTES
    }
}

impl MemoryCache {
    /// A cache that holds up to `bytes_max`, its own upkeep included; 0: nothing.
    pub fn new(clock: Arc<dyn Clock>, bytes_max: usize) -> Self {
        Self { clock, bytes_max, held: Mutex::default() }
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.held().bytes
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Each change is made by one of the methods below, none of which can panic half way.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn find(&mut self, key: &Key, now: Timestamp) -> Option<Bytes> {
        let entry = self.entries.get_mut(key)?;
        if entry.until <= now {
            self.remove(key);
            return None;
        }
        self.uses += 1;
        self.by_use.remove(&entry.used);
        entry.used = self.uses;
        self.by_use.insert(entry.used, *key);
        Some(entry.value.clone())
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.used);
            self.bytes -= entry.bytes();
        }
    }

    fn put(&mut self, key: Key, value: Bytes, until: Timestamp, bytes_max: usize) {
        self.remove(&key);
        self.uses += 1;
        // A copy: the value may be a slice of something large, which it would keep alive.
        let entry = Entry { value: Bytes::copy_from_slice(&value), until, used: self.uses };
        if value.len() > VALUE_MAX_BYTES || entry.bytes() > bytes_max {
            return;
        }
        self.bytes += entry.bytes();
        self.by_use.insert(entry.used, key);
        self.entries.insert(key, entry);
        while self.bytes > bytes_max {
            let Some(oldest) = self.by_use.first_key_value().map(|(_, key)| *key) else { return };
            self.remove(&oldest);
        }
    }
}

#[async_trait]
impl Cache for MemoryCache {
    async fn get_many(&self, keys: &[Key]) -> Vec<Option<Bytes>> {
        let now = self.clock.now();
        let mut held = self.held();
        keys.iter().map(|key| held.find(key, now)).collect()
    }

    async fn put_many(&self, entries: Vec<(Key, Bytes)>, ttl: Duration) {
        let until = self.clock.now().plus(ttl);
        let mut held = self.held();
        entries.into_iter().for_each(|(key, value)| held.put(key, value, until, self.bytes_max));
    }

    async fn lock(&self, key: &Key, hold: Duration) -> Lock {
        let now = self.clock.now();
        let mut held = self.held();
        if held.locks.get(key).is_some_and(|(_, until)| *until > now) {
            return Lock::Taken;
        }
        if held.locks.len() >= LOCKS_MAX {
            held.locks.retain(|_, (_, until)| *until > now);
            if held.locks.len() >= LOCKS_MAX {
                return Lock::Away;
            }
        }
        held.fences += 1;
        let fence = Fence(held.fences);
        held.locks.insert(*key, (fence, now.plus(hold)));
        Lock::Held(fence)
    }

    async fn unlock(&self, key: &Key, fence: Fence, value: Option<(Bytes, Duration)>) -> bool {
        let now = self.clock.now();
        let mut held = self.held();
        let ours = held.locks.get(key).is_some_and(|(of, until)| *of == fence && *until > now);
        if ours {
            held.locks.remove(key);
            if let Some((value, ttl)) = value {
                held.put(*key, value, now.plus(ttl), self.bytes_max);
            }
        }
        ours
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Space, *};
    use crate::{cache::conformance::Fixture, time::ManualClock};

    struct Memory(Arc<MemoryCache>, ManualClock);

    impl Memory {
        fn fresh() -> Self {
            let clock = ManualClock::at(Timestamp(1_790_000_000_000));
            Self(Arc::new(MemoryCache::new(Arc::new(clock.clone()), 64 * 1024 * 1024)), clock)
        }
    }

    #[async_trait]
    impl Fixture for Memory {
        fn cache(&self) -> Arc<dyn Cache> {
            self.0.clone()
        }

        async fn pass(&self, time: Duration) {
            self.1.advance_ms(time.as_millis() as i64);
        }
    }

    crate::cache_conformance!(Memory::fresh());

    #[tokio::test]
    async fn what_was_used_longest_ago_goes_first_and_the_bound_holds() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp(0)));
        let cache = MemoryCache::new(clock, 10 * (ENTRY_BYTES + 100));
        let key = |number: u8| Key::of(Space::Vector, &[&[number]]);
        let hour = Duration::from_secs(3_600);
        for number in 0..10 {
            cache.put_many(vec![(key(number), vec![number; 100].into())], hour).await;
        }
        assert!(cache.get_many(&[key(0)]).await[0].is_some(), "and now it is the last that was used");
        cache.put_many(vec![(key(10), vec![10; 100].into())], hour).await;
        let there = cache.get_many(&[key(0), key(1), key(2), key(10)]).await;
        assert_eq!(there.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, true]);
        assert_eq!(cache.bytes(), 10 * (ENTRY_BYTES + 100));
        cache.put_many(vec![(key(11), vec![0; 100_000].into())], hour).await;
        assert!(cache.get_many(&[key(11)]).await[0].is_none(), "larger than all of it");
        assert!(cache.get_many(&[key(2)]).await[0].is_some(), "and it pushes out nobody");
        for number in 0..200 {
            cache.put_many(vec![(key(number), vec![number; 100].into())], hour).await;
        }
        assert_eq!(cache.bytes(), 10 * (ENTRY_BYTES + 100));
    }

    #[tokio::test]
    async fn a_cache_of_nothing_keeps_nothing() {
        let cache = MemoryCache::new(Arc::new(ManualClock::at(Timestamp(0))), 0);
        let key = Key::of(Space::Vector, &[b"a"]);
        cache.put_many(vec![(key, Bytes::new())], Duration::from_secs(1)).await;
        assert_eq!((cache.get_many(&[key]).await, cache.bytes()), (vec![None], 0));
    }
}
