//! Answers that need not be paid for again: a cache that may vanish at any moment, and whose absence is a miss.
//!
//! Nothing here is an error and nothing here is waited for: a cache that is away answers that it has nothing, within
//! [`WAIT_MAX`], and is left alone for [`REST`]. What is in it is a copy of what somebody paid for, never the only one of
//! anything that must last. It is not the dispatcher's store: that one must not evict, and a cache must.
//!
//! A *lock* lets one process of many make an answer while the others look again. It expires, so that the death of its
//! holder costs the others a wait and nothing else, and it carries a fence: whoever lost it keeps nothing under it.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod memory;
pub mod redis;
pub mod vectors;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::ids::Name;

/// Longest wait for a cache: a call to a provider takes longer, but a cache that is away must not double it.
pub const WAIT_MAX: Duration = Duration::from_millis(150);
/// How long a cache that did not answer is not asked again.
pub const REST: Duration = Duration::from_secs(1);
/// Most keys of one question to a store: values are kilobytes, and a store does nothing else meanwhile.
pub const CHUNK_MAX_KEYS: usize = 128;
/// Longest value that is kept: a long answer is rare, and one of this size would push out hundreds of others.
pub const VALUE_MAX_BYTES: usize = 1024 * 1024;

/// Who finds an answer that was paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The tenant whose job paid for it.
    #[default]
    Tenant,
    /// Everybody.
    Global,
}

impl Scope {
    /// The part of a key that says for whom it is.
    pub fn part(self, tenant: &Name) -> Vec<u8> {
        match self {
            Self::Tenant => format!("tenant:{tenant}").into_bytes(),
            Self::Global => b"global".to_vec(),
        }
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// The vector of one text.
    Vector,
    /// The answer to one chat request.
    Answer,
}

impl Space {
    /// Its letter in keys.
    fn letter(self) -> char {
        match self {
            Self::Vector => 'v',
            Self::Answer => 'a',
        }
    }
}

/// What a value answers: a hash of everything that the answer depends on, and of whom it may be told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What the value is.
    pub space: Space,
    /// Hash of the parts.
    pub hash: [u8; 32],
}

impl Key {
    /// The key of these parts. Each goes in with its length, so that no two lists of parts read the same.
    pub fn of(space: Space, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self { space, hash: *hasher.finalize().as_bytes() }
    }
}

/// `a:` or `v:` and the hash in hex.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.space.letter(), blake3::Hash::from_bytes(self.hash).to_hex())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of one holding of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence(pub u64);

/// The answer to who wants a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// It is the caller's.
    Held(Fence),
    /// Somebody else has it.
    Taken,
    /// Nobody can say: go on as if there were no others.
    Away,
}

/// A cache.
#[async_trait]
pub trait Cache: Send + Sync {
    /// The values of `keys`, in their order. What is not there, has expired or cannot be asked for is `None`.
    async fn get_many(&self, keys: &[Key]) -> Vec<Option<Bytes>>;

    /// Keeps values for `ttl`. Any of them may be lost at once; too long ones are not kept.
    async fn put_many(&self, entries: Vec<(Key, Bytes)>, ttl: Duration);

    /// Takes the lock of `key` for at most `hold`, if nobody has it. A crash of the holder frees it after `hold`.
    async fn lock(&self, key: &Key, hold: Duration) -> Lock;

    /// Gives a lock back, and keeps a value under its key in the same step. `false`, and nothing is kept, where the lock
    /// has expired meanwhile or cannot be asked about.
    async fn unlock(&self, key: &Key, fence: Fence, value: Option<(Bytes, Duration)>) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_apart_and_so_are_spaces() {
        let key =
            |parts: &[&str]| Key::of(Space::Vector, &parts.iter().map(|part| part.as_bytes()).collect::<Vec<_>>());
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["ab"]), key(&["ab", ""]));
        let answer = Key::of(Space::Answer, &[b"ab", b"c"]);
        assert_ne!(answer, key(&["ab", "c"]));
        assert!(answer.to_string().starts_with("a:") && answer.to_string().len() == 66);
    }
}
