//! API keys: `lsk_<8 characters id>_<43 characters secret>`.
//!
//! The id is public and finds the row. The secret is 43 random letters and digits, a little over 256 bits, so one
//! SHA-256 is enough to keep it: there is nothing to guess that a slow hash would protect.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rand::distr::{Alphanumeric, SampleString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    ids::Name,
    journal::{ApiKey, Catalog, JournalError, Role},
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

    /// Whether this is the key whose row is given. Takes the same time whatever differs.
    pub fn opens(&self, row: &ApiKey) -> bool {
        self.hash().ct_eq(&row.secret_hash).into()
    }

    /// The row to store for this key.
    pub fn to_row(&self, tenant: Name, role: Role, name: impl Into<String>, created_at: Timestamp) -> ApiKey {
        ApiKey { id: self.id.clone(), secret_hash: self.hash(), tenant, role, name: name.into(), created_at }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_…", self.id)
    }
}

/// How long a found key is believed without asking the journal: a revoked key works at most this much longer.
const CACHE_TTL: Duration = Duration::from_secs(5);
/// Most keys that are remembered: an installation has a few, and the bound holds whatever is tried.
const CACHE_MAX_KEYS: usize = 1_024;

/// Looks keys up, asking the journal at most once every few seconds for each.
///
/// Keys that do not exist are not remembered: a key that was just made works at once, and guesses cannot push out
/// keys that are in use.
#[derive(Default)]
pub struct KeyCache {
    found: Mutex<HashMap<String, (Arc<ApiKey>, Instant)>>,
}

impl KeyCache {
    /// The row of the key that `secret` opens; `None` when there is no such key or the secret is wrong.
    pub async fn find(&self, catalog: &dyn Catalog, secret: &Secret) -> Result<Option<Arc<ApiKey>>, JournalError> {
        let now = Instant::now();
        if let Some(row) = self.remembered(secret.id(), now) {
            return Ok(secret.opens(&row).then_some(row));
        }
        let Some(row) = catalog.key(secret.id()).await?.map(Arc::new) else {
            return Ok(None);
        };
        if !secret.opens(&row) {
            return Ok(None);
        }
        self.remember(row.clone(), now);
        Ok(Some(row))
    }

    fn remembered(&self, id: &str, now: Instant) -> Option<Arc<ApiKey>> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(id).filter(|(_, at)| now.duration_since(*at) < CACHE_TTL).map(|(row, _)| row.clone())
    }

    fn remember(&self, row: Arc<ApiKey>, now: Instant) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() >= CACHE_MAX_KEYS {
            found.retain(|_, (_, at)| now.duration_since(*at) < CACHE_TTL);
        }
        if found.len() < CACHE_MAX_KEYS {
            found.insert(row.id.clone(), (row, now));
        }
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
        assert!(key.opens(&row));
        let guess = Secret { id: key.id.clone(), secret: Secret::generate().secret };
        assert!(!guess.opens(&row));
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
