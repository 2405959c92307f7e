//! Who may call the API: keys, what each may do, and how long.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::JournalError;
use crate::{ids::Name, request_limits::Rates, time::Timestamp};

/// What a caller may do. Each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Submit, and see what was submitted with the same key.
    User,
    /// Read everything of its tenant, edit its jobs and give dead ones another life.
    Analyst,
    /// Queues, targets, limits and workers, over all tenants.
    Operator,
    /// Everything: keys, tenants, budgets, credentials, backups.
    Admin,
}

impl Role {
    /// Every role, the least one first.
    pub const ALL: [Self; 4] = [Self::User, Self::Analyst, Self::Operator, Self::Admin];

    /// The word of the API and of the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Analyst => "analyst",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }

    /// Whether whoever has it sees and does nothing outside of its tenant.
    pub fn is_tenant_bound(self) -> bool {
        self < Self::Operator
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a key is narrowed to within its role: an area and what is done there, such as `jobs:read`; `*` stands for all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grant(String);

/// Longest grant, in bytes.
const GRANT_MAX_BYTES: usize = 40;

impl Grant {
    /// Reads `area:act`. Which areas and acts there are, only the API knows.
    pub fn parse(text: &str) -> Result<Self, String> {
        let part = |part: &str| {
            part == "*" || !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        };
        match text.split_once(':') {
            Some((area, act)) if text.len() <= GRANT_MAX_BYTES && part(area) && part(act) => Ok(Self(text.to_owned())),
            _ => Err("reads `area:act`, such as `jobs:read`, `jobs:*` or `*:read`".into()),
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Area and act.
    pub fn parts(&self) -> (&str, &str) {
        self.0.split_once(':').unwrap_or((&self.0, ""))
    }

    /// Whether it allows all that `other` does.
    pub fn covers(&self, other: &Self) -> bool {
        let ((area, act), (wanted_area, wanted_act)) = (self.parts(), other.parts());
        (area == "*" || area == wanted_area) && (act == "*" || act == wanted_act)
    }
}

/// An API key without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// The public part, 8 characters.
    pub id: String,
    /// SHA-256 of the secret: 256 random bits need no slow hash.
    pub secret_hash: [u8; 32],
    /// The secret before the last rotation, and until when it still opens.
    pub previous: Option<([u8; 32], Timestamp)>,
    /// Whose it is.
    pub tenant: Name,
    /// What it may do.
    pub role: Role,
    /// What it is narrowed to; empty: all that its role may do. At most [`GRANTS_MAX`].
    pub grants: Vec<Grant>,
    /// For people.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it got its secret, if that is not the first.
    pub rotated_at: Option<Timestamp>,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// How often it may ask; where nothing is said, as its role may.
    pub rates: Rates,
}

/// Most grants of a key: they are looked through with every request.
pub const GRANTS_MAX: usize = 16;

impl ApiKey {
    /// Whether it opens anything at `now`.
    pub fn is_usable(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| end > now)
    }
}

/// A page of keys.
#[derive(Clone, Debug, Default)]
pub struct KeyPage {
    /// Of this tenant.
    pub tenant: Option<Name>,
    /// Those that were taken back, too.
    pub with_revoked: bool,
    /// Behind this key, in the order of their ids.
    pub after: Option<String>,
    /// At most this many, bounded by [`PAGE_MAX_ROWS`](super::PAGE_MAX_ROWS).
    pub limit: usize,
}

/// A new secret for a key.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// Which key.
    pub id: String,
    /// SHA-256 of the new secret.
    pub secret_hash: [u8; 32],
    /// Until when the present secret opens beside it; a moment that has passed: no longer.
    pub previous_until: Timestamp,
    /// Now.
    pub at: Timestamp,
}

/// Which keys are taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The one with this id.
    Key(String),
    /// Every key of a tenant.
    Tenant(Name),
}

/// What became of a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// These keys open nothing any more; those that were revoked before are not among them.
    Done(Vec<String>),
    /// No admin key would be left that can be used for good and may make keys: nothing was done.
    LastAdmin,
}

/// A token that is taken back before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRevocation {
    /// Who made it.
    pub issuer: String,
    /// Its id, among those of its issuer.
    pub jti: String,
    /// When nobody would believe it any more: the note may go then.
    pub expires_at: Timestamp,
}

/// An admin key that can be used, as far as its being the last one goes.
#[derive(Clone, Debug)]
pub(super) struct AdminKey {
    /// Its public part.
    pub(super) id: String,
    /// Whose.
    pub(super) tenant: Name,
    /// What it is narrowed to.
    pub(super) grants: Vec<Grant>,
    /// When it ends by itself.
    pub(super) expires_at: Option<Timestamp>,
}

impl AdminKey {
    /// Whether whoever has it can make and revoke keys.
    fn manages_keys(&self) -> bool {
        let managing = Grant("keys:write".to_owned());
        self.grants.is_empty() || self.grants.iter().any(|grant| grant.covers(&managing))
    }
}

/// Whether a revocation would leave nobody who can make keys for good; `admins` are the admin keys that can be used. Those that
/// were narrowed to something else do not count, and those that end by themselves only where no other is left.
pub(super) fn spares_no_admin(which: &Revocation, admins: &[AdminKey]) -> bool {
    let is_meant = |admin: &&AdminKey| match which {
        Revocation::Key(key) => *key == admin.id,
        Revocation::Tenant(of) => *of == admin.tenant,
    };
    let managing: Vec<&AdminKey> = admins.iter().filter(|admin| admin.manages_keys()).collect();
    let lasting: Vec<&AdminKey> = managing.iter().filter(|admin| admin.expires_at.is_none()).copied().collect();
    let counted = if lasting.is_empty() { managing } else { lasting };
    !counted.is_empty() && counted.iter().all(is_meant)
}

/// Grants as they are stored; nothing where a key has none.
pub(super) fn grants_text(grants: &[Grant]) -> Option<String> {
    // Words of letters, dashes, colons and stars need no escape.
    let words: Vec<String> = grants.iter().map(|grant| format!("\"{}\"", grant.as_str())).collect();
    (!words.is_empty()).then(|| format!("[{}]", words.join(",")))
}

/// Who may call the API. At most 15 verbs.
#[async_trait]
pub trait Identity: Send + Sync {
    /// Creates a key; a key with this id stays as it is.
    async fn add_key(&self, key: ApiKey) -> Result<(), JournalError>;

    /// The key with this id, also one that has ended.
    async fn key(&self, id: &str) -> Result<Option<ApiKey>, JournalError>;

    /// A page of keys, by id.
    async fn keys(&self, page: &KeyPage) -> Result<Vec<ApiKey>, JournalError>;

    /// How many keys of this role can be used at `now`.
    async fn count_keys(&self, role: Role, now: Timestamp) -> Result<u64, JournalError>;

    /// Gives a key another secret and returns the key; `None` for one that cannot be used at that moment. Asking again with
    /// the same secret changes nothing.
    async fn rotate_key(&self, rotation: Rotation) -> Result<Option<ApiKey>, JournalError>;

    /// Takes keys back, all of them or none: never the last admin key that can be used at `now`, may make keys and does not end
    /// by itself, whoever asks for others at the same time.
    async fn revoke_keys(&self, which: Revocation, now: Timestamp) -> Result<Revoked, JournalError>;

    /// Sets how often a key may ask, and returns the key; `None` for one that there is not. Asking again changes nothing.
    async fn limit_key(&self, id: &str, rates: Rates) -> Result<Option<ApiKey>, JournalError>;

    /// Notes that a key was used. A note that a crash loses is a line of a list.
    async fn note_key_used(&self, id: &str, at: Timestamp) -> Result<(), JournalError>;

    /// Takes a token back, and forgets those that have ended by themselves before `now`.
    async fn revoke_token(&self, revocation: TokenRevocation, now: Timestamp) -> Result<(), JournalError>;

    /// Whether a token was taken back.
    async fn is_token_revoked(&self, issuer: &str, jti: &str) -> Result<bool, JournalError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_and_the_first_two_are_bound() {
        assert!(Role::ALL.is_sorted());
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::ALL.map(Role::is_tenant_bound), [true, true, false, false]);
    }

    #[test]
    fn a_grant_covers_what_it_names() {
        let grant = |text| Grant::parse(text).unwrap();
        assert!(grant("jobs:*").covers(&grant("jobs:read")) && grant("*:read").covers(&grant("jobs:read")));
        assert!(grant("*:*").covers(&grant("keys:*")));
        assert!(!grant("jobs:read").covers(&grant("jobs:*")) && !grant("jobs:*").covers(&grant("*:read")));
        assert!(!grant("jobs:read").covers(&grant("queues:read")));
        for text in ["", "jobs", ":", "jobs:", "Jobs:read", "jobs:read:more", "jobs read"] {
            assert!(Grant::parse(text).is_err(), "{text}");
        }
    }
}
