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

use secrecy::SecretString;
use tokio::{sync::watch, time::Instant};

use super::{
    Credential, CredentialId, CredentialNote, CredentialPolicy, CredentialState, MasterKeys, REFUSALS_MAX, SecretName,
    Vault, own, owner,
};
use crate::{
    error::{ErrorClass, JobError},
    ids::Name,
    journal::JournalError,
    route::{self, Target},
    telemetry,
    time::Timestamp,
};

mod upkeep;

pub use upkeep::{AT_ONCE, Report, Rewrapped, SetError, Unread};

/// Time between two looks at the journal.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// How old what is known may be: some looks may be slow or fail, and nobody notices.
const STALE: Duration = Duration::from_secs(5);
/// After this long, whatever was committed before is known to every process that makes calls.
pub const HOLDS_EVERYWHERE: Duration = STALE;
/// How long a job waits for a key, before it looks again by itself. Where the key comes earlier, its lane is woken.
const WAIT_MS: u64 = 10_000;
/// The same where nobody knows what keys there are: that passes as soon as the journal answers.
const UNKNOWN_WAIT_MS: u64 = 1_000;
/// Credentials in one read.
const PAGE_ROWS: usize = 500;
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
        let _one_at_a_time = self.reading.lock().await;
        self.read().await
    }

    /// Reads what has changed if what is known is stale, which it is after a process was stopped for a while: jobs need not go
    /// back for that. Of several callers one reads, and the others wait for it.
    pub async fn catch_up(&self) {
        if self.vault.is_none() || !self.is_stale() {
            return;
        }
        match self.reading.try_lock() {
            Ok(_one_at_a_time) => {
                if let Err(error) = self.read().await {
                    tracing::warn!(%error, "tenants' credentials could not be read");
                }
            }
            Err(_) => drop(self.reading.lock().await),
        }
    }

    fn is_stale(&self) -> bool {
        self.known().read_at.is_none_or(|at| at.elapsed() > STALE)
    }

    async fn read(&self) -> Result<(), JournalError> {
        let Some(vault) = &self.vault else { return Ok(()) };
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

    /// The master keys of this process: they also keep the secrets that webhooks are signed with.
    pub fn master_keys(&self) -> Arc<MasterKeys> {
        self.master.read().unwrap_or_else(PoisonError::into_inner).keys.clone()
    }

    fn entry(&self, tenant: &Name, provider: &Name) -> Option<Arc<Entry>> {
        self.known().of.get(tenant)?.get(provider).cloned()
    }

    /// Whose key a call of `tenant` to `provider` is made with: its own or the operator's.
    pub fn credential_of(&self, tenant: &Name, provider: &Name) -> Name {
        self.known().credential_of(tenant, provider)
    }

    /// The lane in which a job of `tenant` should wait, which waits in `lane`: the same targets, with the credentials that
    /// their calls would be made with now.
    pub fn lane_of(&self, tenant: &Name, lane: &Name) -> Name {
        let known = self.known();
        if known.of.is_empty() && known.policies.is_empty() {
            return lane.clone();
        }
        route::with_credentials(lane, |provider| known.credential_of(tenant, provider))
    }

    /// The key for a call of this target: `None` for the operator's, which its provider has. Else why nobody may be asked,
    /// as an error that spends no attempt.
    pub fn unlock(&self, target: &Target) -> Result<Option<Unlocked>, JobError> {
        if self.vault.is_none() {
            return Ok(None);
        }
        if self.is_stale() {
            let message = "what credentials there are could not be read for some seconds";
            return Err(waits(UNKNOWN, message.to_owned()).with_retry_after(Some(UNKNOWN_WAIT_MS)));
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
        let key = self.master_keys().open(name_of(credential), sealed).map_err(|reason| {
            waits(UNREADABLE, format!("the key of {tenant} for {provider} cannot be read: {reason}"))
        })?;
        Ok(Some(Unlocked { key, id: id_of(credential), failures: credential.failures }))
    }

    /// Notes what a call said of the key that it was made with.
    pub async fn note(&self, key: &Unlocked, heard: Heard<'_>, at: Timestamp) {
        let (Some(vault), CredentialId { tenant, provider, .. }) = (&self.vault, &key.id) else { return };
        if !self.is_used(&key.id) {
            // A thousand calls may be under way when a key is disabled: what they say of it is known.
            return;
        }
        let note = match heard {
            Heard::Refusal(error) => CredentialNote::Refused { reason: reason_of(error), max: REFUSALS_MAX },
            Heard::Answer if key.failures > 0 => CredentialNote::Worked,
            Heard::Answer | Heard::Nothing if self.may_note_use(&key.id) => CredentialNote::Used,
            Heard::Answer | Heard::Nothing => return,
        };
        let noted = vault.note_credential(key.id.clone(), note.clone(), at).await;
        match (noted, note) {
            (Ok(Some(noted)), CredentialNote::Refused { reason, .. }) => {
                metrics::counter!(telemetry::CREDENTIAL_REFUSALS, "provider" => telemetry::provider(provider.as_str()))
                    .increment(1);
                if noted.state == CredentialState::Disabled {
                    metrics::counter!(telemetry::CREDENTIALS_DISABLED, "provider" => telemetry::provider(provider.as_str())).increment(1);
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
        let CredentialId { tenant, provider, .. } = &key.id;
        if self.is_used(&key.id) {
            let retryable = error.message.contains("status 401");
            return JobError { retryable, ..error };
        }
        waits(DISABLED, format!("the key of {tenant} for {provider} was refused ({}: {})", error.code, error.message))
    }

    fn is_used(&self, id: &CredentialId) -> bool {
        self.entry(&id.tenant, &id.provider).is_some_and(|entry| {
            entry.credential.version == id.version && entry.credential.state == CredentialState::Active
        })
    }
}

impl Known {
    fn policy(&self, tenant: &Name) -> CredentialPolicy {
        self.policies.get(tenant).copied().unwrap_or_default()
    }

    fn credential_of(&self, tenant: &Name, provider: &Name) -> Name {
        // Nobody has a key for services and handlers.
        let is_own = !route::is_no_provider(provider) && self.credential_is_own(tenant, provider);
        if is_own { own(tenant) } else { Name::from(route::OPERATORS) }
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

/// Why a key was refused, without a word of the provider's own: it may repeat what was asked, and stands in the log and in answers
/// about the key.
fn reason_of(error: &JobError) -> String {
    let status = error.message.split(':').next().filter(|status| status.starts_with("status "));
    format!("{}{} ({})", error.class, status.map_or_else(String::new, |status| format!(", {status}")), error.code)
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
