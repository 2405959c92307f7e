//! API keys: `lsk_<8 characters id>_<43 characters secret>`.
//!
//! The id is public and finds the row. The secret is 43 random letters and digits, a little over 256 bits, so one
//! SHA-256 is enough to keep it: there is nothing to guess that a slow hash would protect.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::distr::{Alphanumeric, SampleString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    ids::Name,
    journal::{ApiKey, Identity, JournalError, Role},
    request_limits::Rates,
    time::Timestamp,
};

/// What every key begins with, so that scanners of leaked secrets can know it.
pub const PREFIX: &str = "lsk_";
/// Characters of the public part: 62^8 ids, so a clash of two keys of one installation is out of the question.
pub const ID_CHARS: usize = 8;
/// Characters of the secret: 43 × log2(62) = 256.03 bits.
pub const SECRET_CHARS: usize = 43;

/// A key with its secret. Shown once, when it is made; never printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    id: String,
    secret: String,
}

impl Secret {
    /// A fresh key from the operating system's randomness.
    pub fn generate() -> Self {
        let mut rng = rand::rng();
        Self {
            id: Alphanumeric.sample_string(&mut rng, ID_CHARS),
            secret: Alphanumeric.sample_string(&mut rng, SECRET_CHARS),
        }
    }

    /// Reads `lsk_<id>_<secret>`. The error says what is wrong and never repeats the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix(PREFIX) else {
            return Err(format!("a key begins with `{PREFIX}`"));
        };
        let Some((id, secret)) = rest.split_once('_') else {
            return Err(format!("a key reads `{PREFIX}<id>_<secret>`"));
        };
        let plain = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !plain(id, ID_CHARS) || !plain(secret, SECRET_CHARS) {
            return Err(format!(
                "a key has {ID_CHARS} letters and digits of id and {SECRET_CHARS} of secret, as in `{PREFIX}<id>_<secret>`"
            ));
        }
        Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
    }

    /// The public part.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole key, for the one time it is shown or stored by its owner.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, self.secret)
    }

    /// SHA-256 of the secret: what the journal keeps.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret.as_bytes()).into()
    }

    /// Whether this is the key whose row is given. See [`hash_opens`].
    pub fn opens(&self, row: &ApiKey, now: Timestamp) -> bool {
        hash_opens(&self.hash(), row, now)
    }

    /// A key with the id of another one: what a rotation gives.
    #[must_use]
    pub fn renewed(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::generate() }
    }

    /// The row to store for this key, without an end and with all that the role may do.
    pub fn to_row(&self, tenant: Name, role: Role, name: impl Into<String>, created_at: Timestamp) -> ApiKey {
        ApiKey {
            id: self.id.clone(),
            secret_hash: self.hash(),
            previous: None,
            tenant,
            role,
            grants: vec![],
            name: name.into(),
            created_at,
            expires_at: None,
            rotated_at: None,
            revoked_at: None,
            last_used_at: None,
            rates: Rates::default(),
        }
    }
}

/// Whether the secret with this hash is the row's present one or, until its moment, the one before. Takes the same time whatever
/// differs. Says nothing about whether the key has ended.
pub fn hash_opens(hash: &[u8; 32], row: &ApiKey, now: Timestamp) -> bool {
    let (before, until) = row.previous.unwrap_or(([0; 32], Timestamp(i64::MIN)));
    let is_present = hash.ct_eq(&row.secret_hash);
    let is_before = hash.ct_eq(&before) & subtle::Choice::from(u8::from(until > now));
    (is_present | is_before).into()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_…", self.id)
    }
}

/// How long a found key is believed without asking the journal: a key that another process has revoked or rotated works at
/// most this much longer.
pub const KEY_BELIEVED: Duration = Duration::from_secs(5);
/// Most keys that are remembered: an installation has a few, and the bound holds whatever is tried.
const CACHE_MAX_KEYS: usize = 1_024;
/// How exactly it is known when a key was last used: a use within so long of the one before is not written down.
const USED_EVERY_MS: i64 = 60_000;

/// What a secret opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// This key.
    Key(Arc<ApiKey>),
    /// Nothing: there is no such key, or it has another secret.
    Nothing,
    /// Nothing any more: the key has ended by itself.
    Expired(Timestamp),
    /// Nothing any more: the key was taken back.
    Revoked(Timestamp),
}

/// Looks keys up, asking the journal at most once every few seconds for each.
///
/// Keys that do not exist are not remembered: a key that was just made works at once, and guesses cannot push out
/// keys that are in use.
#[derive(Default)]
pub struct KeyCache {
    found: Mutex<HashMap<String, Found>>,
    /// Times that keys were changed here.
    changes: AtomicU64,
}

struct Found {
    row: Arc<ApiKey>,
    read_at: Instant,
    /// The last use that is or will be written down.
    noted: Option<Timestamp>,
}

impl KeyCache {
    /// What `secret` opens at `now`.
    pub async fn find(&self, identity: &dyn Identity, secret: &Secret, now: Timestamp) -> Result<Opened, JournalError> {
        let asked_at = Instant::now();
        let changes = self.changes.load(Ordering::Acquire);
        if let Some(row) = self.remembered(secret.id(), asked_at) {
            match opened(row, secret, now) {
                // Another process may have given the key another secret since.
                Opened::Nothing => {}
                opened => return Ok(opened),
            }
        }
        let Some(row) = identity.key(secret.id()).await?.map(Arc::new) else {
            // As much work as for a key that is there.
            let _ = secret.hash().ct_eq(&[0; 32]);
            return Ok(Opened::Nothing);
        };
        let opened = opened(row, secret, now);
        // What was read before a change here is not believed after it.
        if let Opened::Key(row) = &opened
            && self.changes.load(Ordering::Acquire) == changes
        {
            self.remember(row.clone(), asked_at);
        }
        Ok(opened)
    }

    /// The key with this id and when that was read, for whoever holds something that only its holder could get; also a key that
    /// has ended.
    pub async fn key(&self, identity: &dyn Identity, id: &str) -> Result<Option<(Arc<ApiKey>, Instant)>, JournalError> {
        let asked_at = Instant::now();
        let changes = self.changes.load(Ordering::Acquire);
        if let Some(held) = self.held(id, asked_at) {
            return Ok(Some(held));
        }
        let Some(row) = identity.key(id).await?.map(Arc::new) else { return Ok(None) };
        if self.changes.load(Ordering::Acquire) == changes {
            self.remember(row.clone(), asked_at);
        }
        Ok(Some((row, asked_at)))
    }

    /// Whether this use of a key is to be written down: about one a minute is.
    pub fn is_to_be_noted(&self, key: &ApiKey, now: Timestamp) -> bool {
        let mut found = self.lock();
        let Some(held) = found.get_mut(&key.id) else { return false };
        let is_new = held.noted.max(key.last_used_at).is_none_or(|noted| now.since_ms(noted) >= USED_EVERY_MS);
        if is_new {
            held.noted = Some(now);
        }
        is_new
    }

    /// Keys were changed here: what they open is asked anew.
    pub fn forget(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.lock().clear();
    }

    fn remembered(&self, id: &str, now: Instant) -> Option<Arc<ApiKey>> {
        self.held(id, now).map(|(row, _)| row)
    }

    fn held(&self, id: &str, now: Instant) -> Option<(Arc<ApiKey>, Instant)> {
        let found = self.lock();
        let held = found.get(id).filter(|held| now.duration_since(held.read_at) < KEY_BELIEVED)?;
        Some((held.row.clone(), held.read_at))
    }

    fn remember(&self, row: Arc<ApiKey>, read_at: Instant) {
        let mut found = self.lock();
        if found.len() >= CACHE_MAX_KEYS && !found.contains_key(&row.id) {
            found.retain(|_, held| read_at.duration_since(held.read_at) < KEY_BELIEVED);
        }
        if found.len() < CACHE_MAX_KEYS || found.contains_key(&row.id) {
            let noted = found.get(&row.id).and_then(|held| held.noted);
            found.insert(row.id.clone(), Found { row, read_at, noted });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Found>> {
        // What was being done when a holder of the lock panicked is whole: each change is one insert.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn opened(row: Arc<ApiKey>, secret: &Secret, now: Timestamp) -> Opened {
    if !secret.opens(&row, now) {
        return Opened::Nothing;
    }
    match (row.revoked_at, row.expires_at) {
        (Some(at), _) => Opened::Revoked(at),
        (None, Some(at)) if at <= now => Opened::Expired(at),
        _ => Opened::Key(row),
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_the_trip_over_text() {
        let key = Secret::generate();
        let text = key.reveal();
        assert_eq!(text.len(), PREFIX.len() + ID_CHARS + 1 + SECRET_CHARS);
        assert_eq!(Secret::parse(&text), Ok(key.clone()));
        assert!(!format!("{key:?}").contains(&key.secret));
    }

    #[test]
    fn only_the_secret_opens_the_row() {
        let key = Secret::generate();
        let row = key.to_row("default".into(), Role::Admin, "test", Timestamp(0));
        assert!(key.opens(&row, Timestamp(0)));
        assert!(!Secret::renewed(&key.id).opens(&row, Timestamp(0)));
    }

    #[test]
    fn the_secret_before_opens_until_its_moment() {
        let key = Secret::generate();
        let next = Secret::renewed(key.id());
        let row = key.to_row("default".into(), Role::User, "test", Timestamp(0));
        let rotated = ApiKey { secret_hash: next.hash(), previous: Some((key.hash(), Timestamp(10))), ..row };
        assert!(next.opens(&rotated, Timestamp(9)) && next.opens(&rotated, Timestamp(10)));
        assert!(key.opens(&rotated, Timestamp(9)) && !key.opens(&rotated, Timestamp(10)));
        let ended = ApiKey { expires_at: Some(Timestamp(5)), ..rotated.clone() };
        assert_eq!(opened(Arc::new(ended), &next, Timestamp(5)), Opened::Expired(Timestamp(5)));
        let revoked = ApiKey { revoked_at: Some(Timestamp(3)), ..rotated };
        assert_eq!(opened(Arc::new(revoked.clone()), &next, Timestamp(4)), Opened::Revoked(Timestamp(3)));
        // Who does not hold the secret learns nothing of the key.
        assert_eq!(opened(Arc::new(revoked), &Secret::renewed(key.id()), Timestamp(4)), Opened::Nothing);
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_repeated() {
        let secret = "s".repeat(SECRET_CHARS);
        for text in [
            String::new(),
            "sk-abc".into(),
            "lsk_".into(),
            "lsk_abcdefgh".into(),
            format!("lsk_short_{secret}"),
            format!("lsk_abcdefgh_{secret}x"),
            format!("lsk_abcdefg!_{secret}"),
            format!("lsk_abcdefgh_{}ü", "s".repeat(SECRET_CHARS - 2)),
        ] {
            let error = Secret::parse(&text).unwrap_err();
            assert!(!error.contains("sss"), "{error}");
        }
    }
}
