//! Signing secrets: whose they are, how they are kept, and how they are changed without losing a message.
//!
//! Each is sealed like a provider key, by a data key of its own under the installation's master key. While a secret is being
//! changed, two are valid, and messages carry a signature by each.

use std::fmt;

use secrecy::SecretString;
use uuid::Uuid;

use super::{NewSecret, SealedSecret, Webhooks, sign};
use crate::{
    credentials::{AT_ONCE, MasterKeys, Rewrapped, SealError, Sealed, SecretName},
    ids::Name,
    journal::JournalError,
    time::Timestamp,
};

/// How long the former secret goes on signing, unless somebody says otherwise.
pub const OVERLAP_MS: i64 = 24 * 60 * 60 * 1_000;
/// How long it may at most.
pub const OVERLAP_MAX_MS: i64 = 30 * 24 * 60 * 60 * 1_000;
/// Times that a rotation is tried again because somebody else was faster.
const PUTS_MAX: usize = 5;
/// What the seal authenticates as the receiver of a signing secret: no provider has a space in its name.
const PURPOSE: &str = "webhook signing";

/// Whose secret it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// An endpoint's.
    Endpoint(Uuid),
    /// A tenant's: for its jobs' own URLs, and for its jobs of kind `http`.
    Tenant(Name),
}

/// `endpoint:<id>` or `tenant:<name>`: as it stands in the journal.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(id) => write!(f, "endpoint:{}", id.hyphenated()),
            Self::Tenant(name) => write!(f, "tenant:{name}"),
        }
    }
}

impl Owner {
    /// What its secret of this version is sealed for.
    pub fn seal_name(text: &str, version: i64) -> SecretName<'_> {
        SecretName { tenant: text, provider: PURPOSE, version }
    }
}

/// Why a secret cannot be made or used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SecretError {
    /// The journal did not answer.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// It cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Others changed it at the same time, again and again.
    #[error("others change this secret at the same time; ask again")]
    Contended,
}

/// The secrets that sign for an owner now. Empty: it has none.
pub fn open_all(keys: &MasterKeys, owner: &Owner, sealed: &[SealedSecret]) -> Result<Vec<SecretString>, SealError> {
    let text = owner.to_string();
    sealed.iter().map(|one| keys.open(Owner::seal_name(&text, one.version), &one.sealed)).collect()
}

/// Wraps up to [`AT_ONCE`] data keys of secrets anew, for the current master key. It may be broken off and done twice.
pub async fn rewrap(webhooks: &dyn Webhooks, keys: &MasterKeys) -> Result<Rewrapped, SecretError> {
    let current = keys.current().ok_or(SealError::NoMasterKey)?;
    let (mut step, mut tried) = (Rewrapped::default(), 0);
    for (owner, SealedSecret { version, sealed, .. }) in webhooks.secrets_behind(current).await? {
        match keys.rewrap(Owner::seal_name(&owner, version), &sealed) {
            Ok(None) => {}
            Ok(Some(_)) if tried == AT_ONCE => step.left += 1,
            Ok(Some(to)) => {
                tried += 1;
                // One that has moved on since is looked at again by the next step.
                let done = webhooks.rewrap_secret(owner, version, sealed.kek_id, to).await?;
                *(if done { &mut step.done } else { &mut step.left }) += 1;
            }
            Err(_) => {
                step.left += 1;
                step.unreadable += 1;
            }
        }
    }
    Ok(step)
}

/// The secrets that the current master key does not wrap, and of them, those that no master key of this process opens.
pub async fn unreadable(
    webhooks: &dyn Webhooks,
    keys: &MasterKeys,
) -> Result<(usize, Vec<(String, String, SealError)>), JournalError> {
    let behind = webhooks.secrets_behind(keys.current().unwrap_or_default()).await?;
    let lost = behind.iter().filter_map(|(owner, SealedSecret { version, sealed, .. })| {
        let error = keys.check(Owner::seal_name(owner, *version), sealed).err()?;
        Some((owner.clone(), sealed.kek_id.clone(), error))
    });
    Ok((behind.len(), lost.collect()))
}

/// The first secret of an owner that is about to be made.
pub fn first_secret(keys: &MasterKeys, owner: &Owner) -> Result<(SecretString, Sealed), SecretError> {
    let secret = sign::generate().ok_or(SealError::Failed)?;
    let sealed = keys.seal(Owner::seal_name(&owner.to_string(), 1), &secret)?;
    Ok((secret, sealed))
}

/// Sees to it that an owner has a secret. Nobody is shown it: who wants to know it rotates it.
pub async fn ensure_secret(
    webhooks: &dyn Webhooks,
    keys: &MasterKeys,
    owner: &Owner,
    now: Timestamp,
) -> Result<(), SecretError> {
    if !webhooks.secrets(owner, now).await?.is_empty() {
        return Ok(());
    }
    let (_, sealed) = first_secret(keys, owner)?;
    // Not put: somebody was faster, so there is one.
    webhooks.put_secret(NewSecret { owner: owner.clone(), version: 1, sealed, former_until: now, at: now }).await?;
    Ok(())
}

/// Makes a new secret for an owner, its first or another one, and returns it. After a crash it may be there without anybody
/// knowing it: then it is rotated again.
pub async fn rotate(
    webhooks: &dyn Webhooks,
    keys: &MasterKeys,
    owner: &Owner,
    overlap_ms: i64,
    now: Timestamp,
) -> Result<(SecretString, i64), SecretError> {
    let text = owner.to_string();
    for _ in 0..PUTS_MAX {
        let version = webhooks.secrets(owner, now).await?.first().map_or(0, |newest| newest.version) + 1;
        let secret = sign::generate().ok_or(SealError::Failed)?;
        let sealed = keys.seal(Owner::seal_name(&text, version), &secret)?;
        let former_until = now.plus_ms(overlap_ms.clamp(0, OVERLAP_MAX_MS));
        let new = NewSecret { owner: owner.clone(), version, sealed, former_until, at: now };
        if webhooks.put_secret(new).await? {
            return Ok((secret, version));
        }
    }
    Err(SecretError::Contended)
}
