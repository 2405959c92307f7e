//! What every cache must do.
#![allow(clippy::panic, reason = "a failure in here is the failure of the test that uses it")]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use super::{CHUNK_MAX_KEYS, Cache, Fence, Key, Lock, Space, VALUE_MAX_BYTES};

/// A cache and its time.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The cache.
    fn cache(&self) -> Arc<dyn Cache>;
    /// Lets so much time go by for it.
    async fn pass(&self, time: Duration);
}

/// Runs the suite; `$fixture` makes a fresh cache.
#[macro_export]
macro_rules! cache_conformance {
    ($fixture:expr) => {
        mod conformance {
            use super::*;
            $crate::cache_conformance!(@tests $fixture;
                values_are_found_in_the_order_of_the_keys,
                many_keys_are_asked_for_in_pieces,
                values_end_with_their_time,
                one_of_many_gets_the_lock,
                a_lost_lock_keeps_nothing,
                spaces_are_apart,
                what_is_too_long_is_not_kept,
            );
        }
    };
    (@tests $fixture:expr; $($name:ident,)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $crate::cache::conformance::$name(&$fixture).await;
        })*
    };
}

/// Longer than any of these tests.
const LONG: Duration = Duration::from_secs(600);
/// Soon over.
const SHORT: Duration = Duration::from_millis(200);

fn key(name: &str) -> Key {
    Key::of(Space::Answer, &[name.as_bytes()])
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn fence(lock: Lock) -> Fence {
    match lock {
        Lock::Held(fence) => fence,
        other => panic!("the lock is not ours: {other:?}"),
    }
}

/// Values are found in the order of the keys, and binary ones as they were.
pub async fn values_are_found_in_the_order_of_the_keys(fixture: &impl Fixture) {
    let cache = fixture.cache();
    assert_eq!(cache.get_many(&[]).await, Vec::<Option<Bytes>>::new());
    let bytes: Bytes = (0..=255).collect::<Vec<u8>>().into();
    cache.put_many(vec![(key("a"), value("1")), (key("b"), bytes.clone()), (key("e"), Bytes::new())], LONG).await;
    let found = cache.get_many(&[key("b"), key("missing"), key("a"), key("b"), key("e")]).await;
    assert_eq!(found, [Some(bytes.clone()), None, Some(value("1")), Some(bytes), Some(Bytes::new())]);
    cache.put_many(vec![(key("a"), value("2"))], LONG).await;
    assert_eq!(cache.get_many(&[key("a")]).await, [Some(value("2"))], "the later value counts");
}

/// More keys than one question takes are asked for in several.
pub async fn many_keys_are_asked_for_in_pieces(fixture: &impl Fixture) {
    let cache = fixture.cache();
    let name = |number: usize| key(&format!("many-{number}"));
    let count = CHUNK_MAX_KEYS * 2 + 7;
    let even = (0..count).filter(|number| number % 2 == 0);
    cache.put_many(even.map(|number| (name(number), value(&number.to_string()))).collect(), LONG).await;
    let keys: Vec<Key> = (0..count).map(name).collect();
    let found = cache.get_many(&keys).await;
    assert_eq!(found.len(), count);
    for (number, found) in found.into_iter().enumerate() {
        assert_eq!(found, (number % 2 == 0).then(|| value(&number.to_string())), "{number}");
    }
}

/// A value is gone when its time is over.
pub async fn values_end_with_their_time(fixture: &impl Fixture) {
    let cache = fixture.cache();
    cache.put_many(vec![(key("short"), value("1"))], SHORT).await;
    cache.put_many(vec![(key("long"), value("2"))], LONG).await;
    fixture.pass(SHORT + SHORT / 2).await;
    assert_eq!(cache.get_many(&[key("short"), key("long")]).await, [None, Some(value("2"))]);
}

/// Of many who want a lock at once one gets it, and who comes after it was given back gets it again.
pub async fn one_of_many_gets_the_lock(fixture: &impl Fixture) {
    let cache = fixture.cache();
    let name = key("contended");
    let locks = futures::future::join_all((0..20).map(|_| cache.lock(&name, LONG))).await;
    let held: Vec<Fence> =
        locks.iter().filter_map(|lock| if let Lock::Held(fence) = lock { Some(*fence) } else { None }).collect();
    let [first] = held[..] else { panic!("not one has it: {locks:?}") };
    assert_eq!(locks.iter().filter(|lock| **lock == Lock::Taken).count(), 19);
    assert!(matches!(cache.lock(&key("another"), LONG).await, Lock::Held(_)));
    assert!(cache.unlock(&name, first, Some((value("made"), LONG))).await);
    assert_eq!(cache.get_many(&[name]).await, [Some(value("made"))]);
    let second = fence(cache.lock(&name, LONG).await);
    assert_ne!(first, second, "each holding has a fence of its own");
    assert!(cache.unlock(&name, second, None).await);
    assert_eq!(cache.get_many(&[name]).await, [Some(value("made"))], "no new value, no change");
}

/// Who lost its lock neither keeps a value nor frees the lock of the one that took over.
pub async fn a_lost_lock_keeps_nothing(fixture: &impl Fixture) {
    let cache = fixture.cache();
    let name = key("lost");
    let late = fence(cache.lock(&name, SHORT).await);
    fixture.pass(SHORT + SHORT / 2).await;
    assert!(!cache.unlock(&name, late, Some((value("late"), LONG))).await, "it has expired");
    assert_eq!(cache.get_many(&[name]).await, [None]);
    let next = fence(cache.lock(&name, LONG).await);
    assert!(!cache.unlock(&name, late, Some((value("late"), LONG))).await, "it is somebody else's");
    assert_eq!(cache.lock(&name, LONG).await, Lock::Taken);
    assert!(cache.unlock(&name, next, Some((value("next"), LONG))).await);
    assert_eq!(cache.get_many(&[name]).await, [Some(value("next"))]);
}

/// A vector and an answer with the same hash are two things.
pub async fn spaces_are_apart(fixture: &impl Fixture) {
    let cache = fixture.cache();
    let answer = key("both");
    let vector = Key { space: Space::Vector, ..answer };
    cache.put_many(vec![(answer, value("answer"))], LONG).await;
    assert_eq!(cache.get_many(&[vector, answer]).await, [None, Some(value("answer"))]);
    fence(cache.lock(&answer, LONG).await);
    fence(cache.lock(&vector, LONG).await);
}

/// A value over the bound is not kept; one at it is.
pub async fn what_is_too_long_is_not_kept(fixture: &impl Fixture) {
    let cache = fixture.cache();
    let of = |bytes: usize| Bytes::from(vec![7; bytes]);
    cache.put_many(vec![(key("fits"), of(VALUE_MAX_BYTES)), (key("large"), of(VALUE_MAX_BYTES + 1))], LONG).await;
    let found = cache.get_many(&[key("fits"), key("large")]).await;
    assert_eq!((found[0].as_ref().map(Bytes::len), found[1].is_none()), (Some(VALUE_MAX_BYTES), true));
    let lock = fence(cache.lock(&key("locked"), LONG).await);
    assert!(cache.unlock(&key("locked"), lock, Some((of(VALUE_MAX_BYTES + 1), LONG))).await);
    assert_eq!(cache.get_many(&[key("locked")]).await, [None]);
}
