//! Tokens that were believed lately, so that a signature is checked, and the journal asked whether the token was taken back, once
//! every few seconds for each.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use queue_core::{
    journal::JournalError,
    keys::{KEY_BELIEVED, KeyCache},
    stores::Stores,
    time::Timestamp,
};

use super::{LEEWAY_S, Tokens, Verified, mark_of};

/// Most tokens that are remembered: people who are at work at the same moment.
const BELIEVED_MAX: usize = 8_192;

/// What a text came to that has the form of a token.
pub(crate) enum Belief {
    /// Its bearer is this.
    Bearer(Arc<Verified>),
    /// It opens nothing, for this reason.
    Refused(String),
}

/// The tokens by their hashes.
#[derive(Default)]
pub(crate) struct Believed {
    found: Mutex<HashMap<blake3::Hash, (Arc<Verified>, Instant)>>,
    /// Times that something was taken back here.
    changes: AtomicU64,
}

impl Believed {
    /// What a token says, if it holds now.
    pub(crate) async fn look(
        &self,
        tokens: &Tokens,
        keys: &KeyCache,
        stores: &Stores,
        token: &str,
        now: Timestamp,
    ) -> Result<Belief, JournalError> {
        let (hash, asked_at) = (blake3::hash(token.as_bytes()), Instant::now());
        let changes = self.changes.load(Ordering::Acquire);
        if let Some(found) = self.remembered(&hash, asked_at) {
            if found.expires_at.plus_ms(LEEWAY_S * 1_000) <= now {
                return Ok(Belief::Refused("it has expired".into()));
            }
            return Ok(Belief::Bearer(found));
        }
        let verified = match tokens.verify_with_fresh_keys(token, now).await {
            Ok(verified) => Arc::new(verified),
            Err(reason) => return Ok(Belief::Refused(reason)),
        };
        if stores.identity.is_token_revoked(&verified.issuer, &verified.jti).await? {
            return Ok(Belief::Refused("it was revoked".into()));
        }
        // What was known of the key before counts from then: one revocation must not be waited for twice.
        let known_at = match outlived(&verified, keys, stores, now).await? {
            Ok(known_at) => known_at.unwrap_or(asked_at).min(asked_at),
            Err(reason) => return Ok(Belief::Refused(reason.into())),
        };
        // What was read before a change here is not believed after it.
        if self.changes.load(Ordering::Acquire) == changes {
            self.remember(hash, verified.clone(), known_at);
        }
        Ok(Belief::Bearer(verified))
    }

    /// Whether a token that was believed before is not taken back, has not ended, and has not ended with its key.
    pub(crate) async fn still_holds(
        &self,
        keys: &KeyCache,
        stores: &Stores,
        token: &Verified,
        now: Timestamp,
    ) -> Result<bool, JournalError> {
        if token.expires_at.plus_ms(LEEWAY_S * 1_000) <= now
            || stores.identity.is_token_revoked(&token.issuer, &token.jti).await?
        {
            return Ok(false);
        }
        Ok(outlived(token, keys, stores, now).await?.is_ok())
    }

    /// Something was taken back here: everything is looked at anew.
    pub(crate) fn forget(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.lock().clear();
    }

    fn remembered(&self, hash: &blake3::Hash, now: Instant) -> Option<Arc<Verified>> {
        let found = self.lock();
        found.get(hash).filter(|(_, at)| now.duration_since(*at) < KEY_BELIEVED).map(|(one, _)| one.clone())
    }

    fn remember(&self, hash: blake3::Hash, verified: Arc<Verified>, at: Instant) {
        let mut found = self.lock();
        if found.len() >= BELIEVED_MAX {
            found.retain(|_, (_, then)| at.duration_since(*then) < KEY_BELIEVED);
        }
        if found.len() < BELIEVED_MAX {
            found.insert(hash, (verified, at));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<blake3::Hash, (Arc<Verified>, Instant)>> {
        // What was being done when a holder of the lock panicked is whole: each change is one insert.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one of our own tokens has ended with the key that it was made from: if not, when that key was read.
async fn outlived(
    token: &Verified,
    keys: &KeyCache,
    stores: &Stores,
    now: Timestamp,
) -> Result<Result<Option<Instant>, &'static str>, JournalError> {
    let Some(source) = &token.key else { return Ok(Ok(None)) };
    let Some((key, read_at)) = keys.key(&*stores.identity, &source.id).await? else {
        return Ok(Err("its key is gone"));
    };
    if !key.is_usable(now) {
        return Ok(Err("its key has ended"));
    }
    if key.tenant != token.tenant || key.role < token.role {
        return Ok(Err("its key may not do what it says"));
    }
    // What a former secret has bought ends with that secret.
    let is_of = |hash: &[u8; 32]| mark_of(hash) == source.mark;
    let holds = is_of(&key.secret_hash) || key.previous.is_some_and(|(hash, until)| until > now && is_of(&hash));
    Ok(if holds { Ok(Some(read_at)) } else { Err("its key has another secret now") })
}
