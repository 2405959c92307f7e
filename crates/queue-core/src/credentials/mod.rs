//! Tenants' own provider keys: how they are sealed, where they lie, and whose key a call is made with.
//!
//! A key is kept in the journal, encrypted by a data key of its own, which is encrypted by a *master key* that is not in
//! the journal (`seal.rs`). Every process knows which keys there are, still sealed (`known.rs`); only a worker opens one,
//! for the one call that needs it. Nothing here prints a key: plain ones are `SecretString`s, which do not.
//!
//! **Whose key.** A tenant's key for a provider is the credential `@tenant` of the targets of that provider, so limits,
//! breakers and parking are each tenant's own. A job's lane is named at submit; whose key its call is made with is decided
//! anew when it is made, since keys come and go while jobs wait.

mod known;
mod seal;

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use known::{
    AT_ONCE, Credentials, HOLDS_EVERYWHERE, Heard, Report, Rewrapped, SetError, UNKNOWN, Unlocked, Unread,
};
pub use seal::{MasterKeys, Name as SecretName, SealError};

use crate::{ids::Name, journal::JournalError, time::Timestamp};

/// Refusals of a key, without a success between them, after which it is not used any more.
pub const REFUSALS_MAX: u32 = 3;
/// Longest key, in bytes: real ones are below 300, and it has to fit into a header.
pub const KEY_MAX_BYTES: usize = 2_048;
/// Keys shorter than this are told by nothing, longer ones by their last [`HINT_CHARS`] characters.
const HINTED_MIN_BYTES: usize = 20;
/// Characters of a key that people see again.
const HINT_CHARS: usize = 4;

/// What marks the credential of a tenant: no tenant's name holds it, so that none is taken for the operator's `default`.
const OWN: char = '@';

/// The name of a tenant's own credential in targets. A colon separates there, so it is written otherwise.
pub fn own(tenant: &Name) -> Name {
    Name::new(format!("{OWN}{}", tenant.as_str().replace(':', "%3A")))
}

/// Whose credential this is; `None` for the operator's.
pub fn owner(credential: &Name) -> Option<Name> {
    credential.as_str().strip_prefix(OWN).map(|tenant| Name::new(tenant.replace("%3A", ":")))
}

/// Whether this target or account is a tenant's own: it has no name in metrics, which name no tenant.
pub fn is_of_tenant(circuit: &Name) -> bool {
    circuit.as_str().rsplit(':').next().is_some_and(|credential| credential.starts_with(OWN))
}

/// What a tenant without a usable key of its own may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialPolicy {
    /// Wait for one: the operator's key is never used for it.
    OwnOnly,
    /// Use the operator's, also while its own is disabled.
    #[default]
    OwnThenDefault,
    /// Use the operator's, whatever keys of its own there are.
    Default,
}

impl CredentialPolicy {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::OwnOnly, Self::OwnThenDefault, Self::Default];

    /// The word of the API and of the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OwnOnly => "own_only",
            Self::OwnThenDefault => "own_then_default",
            Self::Default => "default",
        }
    }

    /// The policy with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == word)
    }
}

/// Whether a credential is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CredentialState {
    /// It is.
    Active,
    /// Its provider refused it too often, or somebody has switched it off.
    Disabled,
    /// It was deleted: the row keeps its name and its number, so that what was sealed for it opens nothing later.
    Deleted,
}

impl CredentialState {
    /// The word of the API and of the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Deleted => "deleted",
        }
    }

    /// The state with this word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Active, Self::Disabled, Self::Deleted].into_iter().find(|state| state.as_str() == word)
    }
}

/// A key as it lies in the journal.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The master key that opens the data key.
    pub kek_id: String,
    /// The data key: 12 bytes of nonce, then the encrypted key with its tag.
    pub wrapped_key: Vec<u8>,
    /// The encrypted provider key, in the same form.
    pub ciphertext: Vec<u8>,
}

impl Sealed {
    /// As its columns have it: all of them or none.
    pub(crate) fn of_columns(
        kek_id: Option<String>,
        wrapped_key: Option<Vec<u8>>,
        ciphertext: Option<Vec<u8>>,
    ) -> Option<Self> {
        Some(Self { kek_id: kek_id?, wrapped_key: wrapped_key?, ciphertext: ciphertext? })
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({}, {} bytes)", self.kek_id, self.ciphertext.len())
    }
}

/// A tenant's key for a provider, sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Whose.
    pub tenant: Name,
    /// For whom.
    pub provider: Name,
    /// Grows with every new key, and with a deletion: part of what it is sealed with.
    pub version: i64,
    /// Grows with every change of any credential: what is above the last one that was seen has changed since.
    pub revision: i64,
    /// Whether it is used.
    pub state: CredentialState,
    /// Why it is not.
    pub reason: Option<String>,
    /// The key; `None` once it is deleted.
    pub sealed: Option<Sealed>,
    /// Its last characters, for people; empty for a short one.
    pub hint: String,
    /// Refusals since it last worked.
    pub failures: u32,
    /// When the tenant first had one for this provider.
    pub created_at: Timestamp,
    /// When this one was set.
    pub rotated_at: Timestamp,
    /// When it was last used, to the minute.
    pub used_at: Option<Timestamp>,
}

/// A new key on its way into the journal.
#[derive(Clone, Debug)]
pub struct NewCredential {
    /// Whose.
    pub tenant: Name,
    /// For whom.
    pub provider: Name,
    /// One above the version that is there; 1 where there is none.
    pub version: i64,
    /// The key.
    pub sealed: Sealed,
    /// Its last characters.
    pub hint: String,
    /// Now.
    pub at: Timestamp,
}

/// Which credential, at which version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CredentialId {
    /// Whose.
    pub tenant: Name,
    /// For whom.
    pub provider: Name,
    /// Its version.
    pub version: i64,
}

/// What a call told of the key that it was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialNote {
    /// It was used.
    Used,
    /// It worked: refusals before do not count any more.
    Worked,
    /// Its provider refused it.
    Refused {
        /// In whose words.
        reason: String,
        /// From this many refusals on it is disabled.
        max: u32,
    },
}

impl CredentialNote {
    /// The word of the statements.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Worked => "worked",
            Self::Refused { .. } => "refused",
        }
    }
}

/// How a credential stands after a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Refusals since it last worked.
    pub failures: u32,
    /// Whether it is used.
    pub state: CredentialState,
}

/// Where sealed keys lie. At most 15 verbs. Each write is one commit: after a crash it is there or it is not.
#[async_trait]
pub trait Vault: Send + Sync {
    /// Up to `limit` credentials that changed after this revision, oldest change first. Whoever reads to the end has missed
    /// nothing that was committed before: revisions become visible in their order.
    async fn credentials_since(&self, revision: i64, limit: usize) -> Result<Vec<Credential>, JournalError>;

    /// The tenants whose policy is not the usual one.
    async fn credential_policies(&self) -> Result<BTreeMap<Name, CredentialPolicy>, JournalError>;

    /// Sets a key, active and without refusals. `false` where the version that is there is not the one before it: somebody
    /// was faster, and the key has to be sealed anew.
    async fn put_credential(&self, new: NewCredential) -> Result<bool, JournalError>;

    /// Replaces the wrapped data key by one that another master key opens. `false` where the version is not there any more,
    /// or `from` is not the master key that it needs.
    async fn rewrap_credential(&self, id: CredentialId, from: String, to: Sealed) -> Result<bool, JournalError>;

    /// Switches a credential on (without refusals) or off, or deletes it with everything that is secret in it. `false` where
    /// there is none.
    async fn set_credential(
        &self,
        tenant: &Name,
        provider: &Name,
        state: CredentialState,
        reason: Option<String>,
    ) -> Result<bool, JournalError>;

    /// Notes what a call told of an active credential. `None` where the version is not there or not active: what an old key
    /// is told is nothing to the new one.
    async fn note_credential(
        &self,
        id: CredentialId,
        note: CredentialNote,
        at: Timestamp,
    ) -> Result<Option<Noted>, JournalError>;
}

/// Refuses what cannot be sent as a key. The reason does not repeat it.
pub fn check_key(key: &str) -> Result<(), String> {
    if key.is_empty() || key.len() > KEY_MAX_BYTES {
        return Err(format!("is {} bytes long; a key has 1 to {KEY_MAX_BYTES}", key.len()));
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("contains a space, a line break or something that is no ASCII".into());
    }
    Ok(())
}

/// What people see of a key.
pub fn hint_of(key: &str) -> String {
    if key.len() < HINTED_MIN_BYTES { String::new() } else { key[key.len() - HINT_CHARS..].to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_a_credential_that_is_nobody_elses() {
        for tenant in ["acme", "default", "a:b", "a.b-c_d"] {
            let credential = own(&tenant.into());
            assert_ne!(credential, "default".into());
            assert!(!credential.as_str().contains(':'));
            assert_eq!(owner(&credential), Some(tenant.into()));
        }
        assert_eq!(owner(&"default".into()), None);
        assert!(is_of_tenant(&"p:m:@acme".into()) && is_of_tenant(&"p:*:@acme".into()));
        assert!(!is_of_tenant(&"p:@m:default".into()) && !is_of_tenant(&"probe".into()));
    }

    #[test]
    fn a_key_is_checked_and_hinted_at_without_being_told() {
        let key = "sk-proj-0123456789abcdefWXYZ";
        assert_eq!(check_key(key), Ok(()));
        assert_eq!((hint_of(key).as_str(), hint_of("sk-short").as_str()), ("WXYZ", ""));
        for wrong in ["", "sk-a b", "sk-a\n", "sk-ü", &"x".repeat(KEY_MAX_BYTES + 1)] {
            let reason = check_key(wrong).unwrap_err();
            assert!(wrong.is_empty() || !reason.contains(wrong), "{reason}");
        }
    }
}
