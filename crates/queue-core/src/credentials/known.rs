//! What one process knows of tenants' keys: which there are, still sealed, and what each tenant may do without one.
//!
//! It is read from the journal once a second, whole at the start and then by what has changed. **It goes stale**: a process
//! that could not read it for [`STALE`] makes no call with anybody's key, the operator's included, until it has read again.
//! So a policy holds everywhere [`HOLDS_EVERYWHERE`] after it was committed, whichever process runs a job.
//!
//! A key is opened for each call (some 2 µs) and dropped after it: no plain key is kept.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use tokio::{sync::watch, time::Instant};

use super::{
    Credential, CredentialId, CredentialNote, CredentialPolicy, CredentialState, MasterKeys, NewCredential,
    REFUSALS_MAX, SealError, SecretName, Vault, hint_of, own, owner,
};
use crate::{
    error::{ErrorClass, JobError},
    ids::Name,
    journal::JournalError,
    route::{self, Target},
    telemetry,
    time::Timestamp,
};

/// Time between two looks at the journal.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// How old what is known may be: some looks may be slow or fail, and nobody notices.
const STALE: Duration = Duration::from_secs(5);
/// After this long, whatever was committed before is known to every process that makes calls.
pub const HOLDS_EVERYWHERE: Duration = STALE;
/// How long a job waits for a key, before it looks again by itself. Where the key comes earlier, its lane is woken.
const WAIT_MS: u64 = 10_000;
/// Credentials in one read.
const PAGE_ROWS: usize = 500;
/// Tries to set a key while somebody else sets it as well.
const PUTS_MAX: usize = 5;
/// Credentials in one step of a rewrap: a step is a request, and must not take long.
pub const AT_ONCE: usize = 100;
/// Unreadable credentials that a report names.
const NAMED_MAX: usize = 20;
/// Time between two notes that a key is in use.
const USED_EVERY: Duration = Duration::from_secs(60);

/// Why a job waits for a key.
const NONE: &str = "credential_missing";
const DISABLED: &str = "credential_disabled";
const UNREADABLE: &str = "credential_unreadable";
/// The code of an error that says nothing of a key: nobody knows here what keys there are.
pub const UNKNOWN: &str = "credential_unknown";

/// What a process knows.
pub struct Credentials {
    vault: Option<Arc<dyn Vault>>,
    known: RwLock<Known>,
    master: RwLock<Master>,
    changed: watch::Sender<u64>,
    reading: tokio::sync::Mutex<()>,
    report: Mutex<Option<(u64, Arc<Report>)>>,
}

#[derive(Default)]
struct Known {
    of: HashMap<Name, BTreeMap<Name, Arc<Entry>>>,
    policies: BTreeMap<Name, CredentialPolicy>,
    revision: i64,
    /// The last look that was answered began then.
    read_at: Option<Instant>,
}

struct Entry {
    credential: Credential,
    /// When this process last noted that it was used.
    noted: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Master {
    keys: Arc<MasterKeys>,
    /// Why there are none, where somebody named a place for them.
    trouble: Option<String>,
}

/// A key for one call.
pub struct Unlocked {
    /// The key.
    pub key: SecretString,
    id: CredentialId,
    failures: u32,
}

impl fmt::Debug for Unlocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unlocked({}/{} version {})", self.id.tenant, self.id.provider, self.id.version)
    }
}

/// What a call said of the key that it was made with.
#[derive(Clone, Copy, Debug)]
pub enum Heard<'a> {
    /// An answer.
    Answer,
    /// That it is not good.
    Refusal(&'a JobError),
    /// Nothing: the call failed for something else.
    Nothing,
}

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

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("revision", &self.known().revision).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Nobody has a key of their own, and nobody can get one: for a process without a journal of keys.
    pub fn none() -> Self {
        Self::new(None)
    }

    /// Those of this journal, not read yet.
    pub fn of(vault: Arc<dyn Vault>) -> Self {
        Self::new(Some(vault))
    }

    fn new(vault: Option<Arc<dyn Vault>>) -> Self {
        Self {
            vault,
            known: RwLock::default(),
            master: RwLock::default(),
            changed: watch::Sender::new(0),
            reading: tokio::sync::Mutex::default(),
            report: Mutex::default(),
        }
    }

    /// Counts changes of what is known: keys, policies, master keys.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Replaces the master keys; an error is why there are none.
    pub fn set_master_keys(&self, keys: Result<MasterKeys, String>) {
        let (keys, trouble) = match keys {
            Ok(keys) => (keys, None),
            Err(trouble) => (MasterKeys::default(), Some(trouble)),
        };
        *self.master.write().unwrap_or_else(PoisonError::into_inner) = Master { keys: Arc::new(keys), trouble };
        self.tell_change();
    }

    /// Whether any credential was ever set.
    pub fn is_empty(&self) -> bool {
        self.known().of.is_empty()
    }

    /// Reads what has changed. Afterwards everything is known that was committed before it began.
    pub async fn refresh(&self) -> Result<(), JournalError> {
        let Some(vault) = &self.vault else { return Ok(()) };
        let _one_at_a_time = self.reading.lock().await;
        let began = Instant::now();
        let policies = vault.credential_policies().await?;
        let mut revision = self.known().revision;
        let mut news = Vec::new();
        loop {
            let page = vault.credentials_since(revision, PAGE_ROWS).await?;
            let Some(last) = page.last() else { break };
            revision = last.revision;
            let is_end = page.len() < PAGE_ROWS;
            news.extend(page);
            if is_end {
                break;
            }
        }
        let has_changed = {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            let has_changed = !news.is_empty() || known.policies != policies;
            (known.policies, known.revision, known.read_at) = (policies, revision, Some(began));
            for credential in news {
                let (tenant, provider) = (credential.tenant.clone(), credential.provider.clone());
                let entry = Arc::new(Entry { credential, noted: Mutex::default() });
                known.of.entry(tenant).or_default().insert(provider, entry);
            }
            has_changed
        };
        if has_changed {
            self.tell_change();
        }
        Ok(())
    }

    /// Reads what has changed once a second, for as long as it is polled.
    pub async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(REFRESH_EVERY).await;
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "tenants' credentials could not be read");
            }
        }
    }

    fn tell_change(&self) {
        self.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
        metrics::gauge!(telemetry::CREDENTIALS_UNREADABLE).set(self.report().unreadable as f64);
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        // Written by assignments and inserts only: a panic leaves it whole.
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn master(&self) -> Arc<MasterKeys> {
        self.master.read().unwrap_or_else(PoisonError::into_inner).keys.clone()
    }

    fn entry(&self, tenant: &Name, provider: &Name) -> Option<Arc<Entry>> {
        self.known().of.get(tenant)?.get(provider).cloned()
    }

    /// Whose key a call of `tenant` to `provider` is made with: its own or the operator's.
    pub fn credential_of(&self, tenant: &Name, provider: &Name) -> Name {
        if self.known().credential_is_own(tenant, provider) { own(tenant) } else { Name::from(route::OPERATORS) }
    }

    /// The lane in which a job of `tenant` should wait, which waits in `lane`: the same targets, with the credentials that
    /// their calls would be made with now.
    pub fn lane_of(&self, tenant: &Name, lane: &Name) -> Name {
        let known = self.known();
        if known.of.is_empty() && known.policies.is_empty() {
            return lane.clone();
        }
        route::with_credentials(lane, |provider| {
            if known.credential_is_own(tenant, provider) { own(tenant) } else { Name::from(route::OPERATORS) }
        })
    }

    /// The key for a call of this target: `None` for the operator's, which its provider has. Else why nobody may be asked,
    /// as an error that spends no attempt.
    pub fn unlock(&self, target: &Target) -> Result<Option<Unlocked>, JobError> {
        if self.vault.is_none() {
            return Ok(None);
        }
        if self.known().read_at.is_none_or(|at| at.elapsed() > STALE) {
            let message = "what credentials there are could not be read for some seconds";
            return Err(waits(UNKNOWN, message.to_owned()));
        }
        let Some(tenant) = owner(&target.credential) else { return Ok(None) };
        let provider = &target.provider;
        let missing = || {
            let message = format!(
                "{tenant} has no key for {provider} and may not use the operator's; it waits for one \
                 (`longshore credential set {tenant} {provider}`)"
            );
            waits(NONE, message)
        };
        let entry = self.entry(&tenant, provider).ok_or_else(missing)?;
        let credential = &entry.credential;
        let sealed = match (credential.state, &credential.sealed) {
            (CredentialState::Active, Some(sealed)) => sealed,
            (CredentialState::Disabled, Some(_)) => {
                let why = credential.reason.as_deref().unwrap_or("an operator has switched it off");
                let message = format!(
                    "the key of {tenant} for {provider} is disabled ({why}); it waits for a new one \
                     (`longshore credential set {tenant} {provider}`)"
                );
                return Err(waits(DISABLED, message));
            }
            _ => return Err(missing()),
        };
        let key = self.master().open(name_of(credential), sealed).map_err(|reason| {
            waits(UNREADABLE, format!("the key of {tenant} for {provider} cannot be read: {reason}"))
        })?;
        Ok(Some(Unlocked { key, id: id_of(credential), failures: credential.failures }))
    }

    /// Notes what a call said of the key that it was made with.
    pub async fn note(&self, key: &Unlocked, heard: Heard<'_>, at: Timestamp) {
        let (Some(vault), CredentialId { tenant, provider, .. }) = (&self.vault, &key.id) else { return };
        let note = match heard {
            Heard::Refusal(error) => {
                CredentialNote::Refused { reason: format!("{}: {}", error.code, error.message), max: REFUSALS_MAX }
            }
            Heard::Answer if key.failures > 0 => CredentialNote::Worked,
            Heard::Answer | Heard::Nothing if self.may_note_use(&key.id) => CredentialNote::Used,
            Heard::Answer | Heard::Nothing => return,
        };
        let noted = vault.note_credential(key.id.clone(), note.clone(), at).await;
        match (noted, note) {
            (Ok(Some(noted)), CredentialNote::Refused { reason, .. }) => {
                metrics::counter!(telemetry::CREDENTIAL_REFUSALS, "provider" => provider.shared()).increment(1);
                if noted.state == CredentialState::Disabled {
                    metrics::counter!(telemetry::CREDENTIALS_DISABLED, "provider" => provider.shared()).increment(1);
                    tracing::warn!(%tenant, %provider, failures = noted.failures, reason,
                        "a tenant's credential is disabled: its provider refuses it");
                }
            }
            (Ok(_), _) => {}
            (Err(error), _) => tracing::warn!(%error, %tenant, %provider, "what a call said of a key was not noted"),
        }
        if matches!(heard, Heard::Refusal(_)) || key.failures > 0 {
            // Here at once: the next job of the tenant must not ask with the same key.
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "tenants' credentials could not be read");
            }
        }
    }

    fn may_note_use(&self, id: &CredentialId) -> bool {
        let Some(entry) = self.entry(&id.tenant, &id.provider) else { return false };
        let mut noted = entry.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = noted.is_none_or(|at| at.elapsed() >= USED_EVERY);
        if is_due {
            *noted = Some(Instant::now());
        }
        is_due
    }

    /// What follows for a job whose call was refused with this key. If the key is not the one any more that would be used,
    /// the job waits for another, unspent; until then a status of 401, which only a key is to blame for, may be tried again.
    pub fn after_refusal(&self, key: &Unlocked, error: JobError) -> JobError {
        let CredentialId { tenant, provider, version } = &key.id;
        let is_used = self.entry(tenant, provider).is_some_and(|entry| {
            entry.credential.version == *version && entry.credential.state == CredentialState::Active
        });
        if is_used {
            let retryable = error.message.contains("status 401");
            return JobError { retryable, ..error };
        }
        waits(DISABLED, format!("the key of {tenant} for {provider} was refused ({}: {})", error.code, error.message))
    }

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
        let check = |sealed| self.master().check(name_of(credential), sealed);
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
                sealed: self.master().seal(name, key)?,
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
        let master = self.master();
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

impl Known {
    fn policy(&self, tenant: &Name) -> CredentialPolicy {
        self.policies.get(tenant).copied().unwrap_or_default()
    }

    fn credential_is_own(&self, tenant: &Name, provider: &Name) -> bool {
        let state = || self.of.get(tenant).and_then(|of| of.get(provider)).map(|entry| entry.credential.state);
        match self.policy(tenant) {
            CredentialPolicy::OwnOnly => true,
            CredentialPolicy::OwnThenDefault => state() == Some(CredentialState::Active),
            CredentialPolicy::Default => false,
        }
    }
}

fn is_there(credential: &Credential) -> bool {
    credential.state != CredentialState::Deleted
}

fn name_of(credential: &Credential) -> SecretName<'_> {
    let Credential { tenant, provider, version, .. } = credential;
    SecretName { tenant: tenant.as_str(), provider: provider.as_str(), version: *version }
}

fn id_of(credential: &Credential) -> CredentialId {
    let Credential { tenant, provider, version, .. } = credential;
    CredentialId { tenant: tenant.clone(), provider: provider.clone(), version: *version }
}

fn waits(code: &str, message: String) -> JobError {
    JobError::new(ErrorClass::Credential, code, message).with_retry_after(Some(WAIT_MS))
}

#[cfg(test)]
mod tests;
