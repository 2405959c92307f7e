//! The header `Idempotency-Key`: reading it, and keeping two requests with one key apart while the first is accepted.
//!
//! What was accepted under a key is the journal's knowledge; here is only what this process is doing right now.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use axum::http::HeaderMap;
use bytes::Bytes;
use queue_core::ids::Name;

use crate::problem::{Cause, Problem};

/// Longest key, in bytes: it stands in an index.
const KEY_MAX_BYTES: usize = 255;

/// The key of a request, if it has one.
pub(crate) fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = |reason: String| Problem::field("/header/Idempotency-Key", reason);
    if values.next().is_some() {
        return Err(wrong("is given twice".into()));
    }
    let bytes = value.as_bytes();
    if bytes.is_empty() || bytes.len() > KEY_MAX_BYTES {
        return Err(wrong(format!("is {} bytes long; 1 to {KEY_MAX_BYTES} are allowed", bytes.len())));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(text.to_owned())),
        _ => Err(wrong("may hold only visible ASCII characters".into())),
    }
}

/// What tells one body from another.
pub(crate) fn fingerprint(body: &Bytes) -> [u8; 32] {
    *blake3::hash(body).as_bytes()
}

/// Keys whose requests are being accepted in this process. As many as there are requests.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    keys: Mutex<HashSet<(Name, String)>>,
}

impl InFlight {
    /// Marks a key as being worked on until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>, tenant: &Name, key: &str) -> Result<Entered, Problem> {
        let entry = (tenant.clone(), key.to_owned());
        if self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(entry.clone()) {
            return Ok(Entered { all: self.clone(), entry });
        }
        let detail = "a request with this idempotency key is still being accepted; ask again for its answer";
        Err(Problem::new(Cause::IdempotencyInFlight, detail).retry_after(1))
    }
}

/// A key that is being worked on.
#[derive(Debug)]
pub(crate) struct Entered {
    all: Arc<InFlight>,
    entry: (Name, String),
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.all.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_held_until_its_guard_is_dropped() {
        let all = Arc::new(InFlight::default());
        let tenant = Name::from("t");
        let first = all.enter(&tenant, "k").unwrap();
        assert!(all.enter(&tenant, "k").is_err());
        assert!(all.enter(&Name::from("other"), "k").is_ok());
        drop(first);
        assert!(all.enter(&tenant, "k").is_ok());
    }
}
