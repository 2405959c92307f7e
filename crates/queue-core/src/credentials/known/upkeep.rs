//! What operators do with keys and see of them: setting and deleting, the report, and the way to another master key.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use secrecy::{ExposeSecret, SecretString};

use super::{Credentials, id_of, is_there, name_of};
use crate::{
    credentials::{Credential, CredentialPolicy, CredentialState, NewCredential, SealError, SecretName, hint_of},
    ids::Name,
    journal::JournalError,
    time::Timestamp,
};

/// Tries to set a key while somebody else sets it as well.
const PUTS_MAX: usize = 5;
/// Credentials in one step of a rewrap: a step is a request, and must not take long.
pub const AT_ONCE: usize = 100;
/// Unreadable credentials that a report names.
const NAMED_MAX: usize = 20;

/// A credential that cannot be opened here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Whose.
    pub tenant: Name,
    /// For whom.
    pub provider: Name,
    /// The master key that it needs.
    pub kek_id: String,
    /// Why.
    pub reason: SealError,
}

/// How the keys of an installation stand, as this process can see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Keys that there are.
    pub credentials: usize,
    /// Of them, those that are switched off.
    pub disabled: usize,
    /// Of them, those whose data key another master key opens than the current one.
    pub to_rewrap: usize,
    /// Of them, those that cannot be opened here.
    pub unreadable: usize,
    /// The first of them.
    pub named: Vec<Unread>,
    /// The master keys of this process, the current one first.
    pub master_keys: Vec<String>,
    /// Why there are none, where somebody named a place for them.
    pub trouble: Option<String>,
}

impl Report {
    /// What is wrong, in one line.
    pub fn check(&self) -> Result<(), String> {
        if self.unreadable > 0 {
            let name = |unread: &Unread| format!("{}/{}: {}", unread.tenant, unread.provider, unread.reason);
            let mut named = self.named.iter().map(name).collect::<Vec<_>>().join("; ");
            if self.unreadable > self.named.len() {
                named.push_str("; …");
            }
            let here = match (&self.trouble, self.master_keys.is_empty()) {
                (Some(trouble), _) => trouble.clone(),
                (None, true) => "none".to_owned(),
                (None, false) => self.master_keys.join(", "),
            };
            let (many, all) = (self.unreadable, self.credentials);
            return Err(format!("{many} of {all} credentials cannot be read ({named}); master keys here: {here}"));
        }
        self.trouble.clone().map_or(Ok(()), Err)
    }
}

/// What became of a step of a rewrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Credentials whose data key the current master key opens now.
    pub done: usize,
    /// Credentials that are left, those included that cannot be read here.
    pub left: usize,
    /// Credentials that cannot be read here.
    pub unreadable: usize,
}

/// Why a key could not be set.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SetError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The master key.
    #[error("a key cannot be kept: {0}")]
    Seal(#[from] SealError),
    /// Others set it all the time.
    #[error("somebody else is setting this credential")]
    Contended,
}

impl Credentials {
    /// The credentials of a tenant, the deleted ones left out.
    pub fn list(&self, tenant: &Name) -> Vec<Credential> {
        let known = self.known();
        let all = known.of.get(tenant).into_iter().flat_map(BTreeMap::values);
        all.map(|entry| entry.credential.clone()).filter(is_there).collect()
    }

    /// What a tenant without a usable key may do.
    pub fn policy(&self, tenant: &Name) -> CredentialPolicy {
        self.known().policy(tenant)
    }

    /// Whether the data key of a credential can be opened here.
    pub fn is_readable(&self, credential: &Credential) -> bool {
        let check = |sealed| self.master_keys().check(name_of(credential), sealed);
        credential.sealed.as_ref().is_some_and(|sealed| check(sealed).is_ok())
    }

    /// Seals and keeps a key. It is used over the fleet within seconds.
    pub async fn set(&self, tenant: &Name, provider: &Name, key: &SecretString, at: Timestamp) -> Result<(), SetError> {
        let Some(vault) = &self.vault else { return Err(SealError::NoMasterKey.into()) };
        for _ in 0..PUTS_MAX {
            self.refresh().await?;
            let version = self.entry(tenant, provider).map_or(0, |entry| entry.credential.version) + 1;
            let name = SecretName { tenant: tenant.as_str(), provider: provider.as_str(), version };
            let new = NewCredential {
                tenant: tenant.clone(),
                provider: provider.clone(),
                version,
                sealed: self.master_keys().seal(name, key)?,
                hint: hint_of(key.expose_secret()),
                at,
            };
            if vault.put_credential(new).await? {
                self.refresh().await?;
                return Ok(());
            }
        }
        Err(SetError::Contended)
    }

    /// Switches a credential on or off, or deletes it. `false` where there is none.
    pub async fn change(
        &self,
        tenant: &Name,
        provider: &Name,
        state: CredentialState,
        reason: Option<String>,
    ) -> Result<bool, JournalError> {
        let Some(vault) = &self.vault else { return Ok(false) };
        let found = vault.set_credential(tenant, provider, state, reason).await?;
        self.refresh().await?;
        Ok(found)
    }

    /// Wraps up to [`AT_ONCE`] data keys anew, for the current master key. Each is one commit, so a rewrap that is broken off
    /// goes on where it was; two at once do it once.
    pub async fn rewrap(&self) -> Result<Rewrapped, SetError> {
        let Some(vault) = &self.vault else { return Err(SealError::NoMasterKey.into()) };
        self.refresh().await?;
        let master = self.master_keys();
        if master.current().is_none() {
            return Err(SealError::NoMasterKey.into());
        }
        let (mut step, mut tried) = (Rewrapped::default(), 0);
        for credential in self.all() {
            let Some(sealed) = &credential.sealed else { continue };
            match master.rewrap(name_of(&credential), sealed) {
                Ok(None) => {}
                Ok(Some(_)) if tried == AT_ONCE => step.left += 1,
                Ok(Some(to)) => {
                    tried += 1;
                    let from = sealed.kek_id.clone();
                    // One that has moved on since is looked at again by the next step.
                    let done = vault.rewrap_credential(id_of(&credential), from, to).await?;
                    *(if done { &mut step.done } else { &mut step.left }) += 1;
                }
                Err(_) => {
                    step.left += 1;
                    step.unreadable += 1;
                }
            }
        }
        self.refresh().await?;
        Ok(step)
    }

    fn all(&self) -> Vec<Credential> {
        let known = self.known();
        known.of.values().flat_map(BTreeMap::values).map(|entry| entry.credential.clone()).filter(is_there).collect()
    }

    /// How the keys stand. Opens the data key of each, and remembers what came of it until something changes.
    pub fn report(&self) -> Arc<Report> {
        let changes = *self.changed.borrow();
        let mut last = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, report)) = last.as_ref().filter(|(at, _)| *at == changes) {
            return report.clone();
        }
        let (master, trouble) = {
            let held = self.master.read().unwrap_or_else(PoisonError::into_inner);
            (held.keys.clone(), held.trouble.clone())
        };
        let master_keys = master.ids().into_iter().map(str::to_owned).collect();
        let mut report = Report { master_keys, trouble, ..Report::default() };
        for credential in self.all() {
            let Some(sealed) = &credential.sealed else { continue };
            report.credentials += 1;
            report.disabled += usize::from(credential.state == CredentialState::Disabled);
            report.to_rewrap += usize::from(master.current() != Some(sealed.kek_id.as_str()));
            if let Err(reason) = master.check(name_of(&credential), sealed) {
                report.unreadable += 1;
                if report.named.len() < NAMED_MAX {
                    let Credential { tenant, provider, .. } = credential.clone();
                    report.named.push(Unread { tenant, provider, kek_id: sealed.kek_id.clone(), reason });
                }
            }
        }
        let report = Arc::new(report);
        *last = Some((changes, report.clone()));
        report
    }
}
