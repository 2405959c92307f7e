use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;
use crate::{
    journal::{Catalog, TenantSettings, sqlite::SqliteJournal},
    time::SystemClock,
};

const NOW: Timestamp = Timestamp(1_790_000_000_000);

struct Place {
    credentials: Credentials,
    journal: Arc<SqliteJournal>,
    _folder: TempDir,
}

fn master() -> MasterKeys {
    MasterKeys::parse(MasterKeys::generate().unwrap().expose_secret()).unwrap()
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = SqliteJournal::open(&folder.path().join("journal.db"), Arc::new(SystemClock)).unwrap();
        let journal = Arc::new(journal);
        let credentials = Credentials::of(journal.clone());
        credentials.set_master_keys(Ok(master()));
        credentials.refresh().await.unwrap();
        Self { credentials, journal, _folder: folder }
    }

    async fn set(&self, tenant: &str, key: &str) {
        self.credentials.set(&tenant.into(), &"p".into(), &key.into(), NOW).await.unwrap();
    }

    async fn policy(&self, tenant: &str, credential_policy: CredentialPolicy) {
        let settings = TenantSettings { credential_policy, ..TenantSettings::default() };
        self.journal.set_tenant(&tenant.into(), settings).await.unwrap();
        self.credentials.refresh().await.unwrap();
    }

    async fn change(&self, tenant: &str, state: CredentialState) {
        assert!(self.credentials.change(&tenant.into(), &"p".into(), state, None).await.unwrap());
    }

    fn credential(&self, tenant: &str) -> String {
        self.credentials.credential_of(&tenant.into(), &"p".into()).to_string()
    }

    fn unlock(&self, credential: &str) -> Result<Option<String>, String> {
        let target = Target { provider: "p".into(), model: "m".into(), credential: credential.into() };
        let unlocked = self.credentials.unlock(&target).map_err(|error| error.code)?;
        Ok(unlocked.map(|unlocked| unlocked.key.expose_secret().to_owned()))
    }
}

#[tokio::test]
async fn a_policy_and_the_state_of_a_key_say_whose_key_is_used() {
    use {CredentialPolicy as P, CredentialState as S};
    let place = Place::new().await;
    let mut seen = vec![];
    for policy in [P::OwnOnly, P::OwnThenDefault, P::Default] {
        let tenant = policy.as_str();
        place.policy(tenant, policy).await;
        let mut row = vec![place.credential(tenant)];
        place.set(tenant, "sk-1").await;
        for state in [S::Active, S::Disabled, S::Deleted] {
            place.change(tenant, state).await;
            row.push(place.credential(tenant));
        }
        seen.push(row.into_iter().map(|credential| credential.starts_with('@')).collect::<Vec<_>>());
    }
    //                 none   active disabled deleted
    assert_eq!(seen[0], [true, true, true, true], "own_only");
    assert_eq!(seen[1], [false, true, false, false], "own_then_default");
    assert_eq!(seen[2], [false, false, false, false], "default");
    assert_eq!(place.credentials.lane_of(&"own_only".into(), &"p:a:default>q:b:default".into()).as_str(), {
        "p:a:@own_only>q:b:@own_only"
    });
    assert_eq!(place.credentials.lane_of(&"nobody".into(), &"p:a:@nobody".into()).as_str(), "p:a:default");
    for lane in ["http:a.example:default", "custom:words:default"] {
        assert_eq!(
            place.credentials.lane_of(&"own_only".into(), &lane.into()).as_str(),
            lane,
            "nobody has a key for it"
        );
    }
}

#[tokio::test]
async fn a_key_opens_while_it_is_used_and_readable() {
    let place = Place::new().await;
    assert_eq!(place.unlock("default"), Ok(None), "the provider has it");
    assert_eq!(place.unlock("@acme"), Err(NONE.into()));
    place.set("acme", "sk-1").await;
    place.set("acme", "sk-2").await;
    assert_eq!(place.unlock("@acme"), Ok(Some("sk-2".into())));
    place.change("acme", CredentialState::Disabled).await;
    assert_eq!(place.unlock("@acme"), Err(DISABLED.into()));
    place.change("acme", CredentialState::Active).await;
    place.credentials.set_master_keys(Ok(master()));
    assert_eq!(place.unlock("@acme"), Err(UNREADABLE.into()));
    place.change("acme", CredentialState::Deleted).await;
    assert_eq!(place.unlock("@acme"), Err(NONE.into()));
    assert!(place.credentials.list(&"acme".into()).is_empty());
}

/// A process that cannot hear of changes must not act on what it knew: the operator's key may be forbidden by now.
#[tokio::test]
async fn what_is_stale_is_not_acted_on() {
    let place = Place::new().await;
    place.set("acme", "sk-1").await;
    let age = |age: Duration| {
        place.credentials.known.write().unwrap().read_at = Instant::now().checked_sub(age);
    };
    age(STALE / 2);
    assert!(place.unlock("default").is_ok() && place.unlock("@acme").is_ok());
    age(STALE + Duration::from_millis(1));
    assert_eq!((place.unlock("default"), place.unlock("@acme")), (Err(UNKNOWN.into()), Err(UNKNOWN.into())));
    place.credentials.catch_up().await;
    assert!(place.unlock("default").is_ok() && place.unlock("@acme").is_ok());
    assert_eq!(Credentials::none().unlock(&Target::parse("p:m:default").unwrap()).map(|key| key.is_none()), Ok(true));
}

#[tokio::test]
async fn two_processes_hear_of_each_others_changes() {
    let place = Place::new().await;
    let other = Credentials::of(place.journal.clone());
    other.set_master_keys(Ok(place.credentials.master_keys().as_ref().clone()));
    other.refresh().await.unwrap();
    let mut changes = other.changes();
    changes.mark_unchanged();
    other.refresh().await.unwrap();
    assert!(!changes.has_changed().unwrap(), "nothing new");
    place.set("acme", "sk-1").await;
    other.refresh().await.unwrap();
    assert!(changes.has_changed().unwrap());
    let target = Target::parse("p:m:@acme").unwrap();
    let unlocked = other.unlock(&target).unwrap().unwrap();
    assert!(!format!("{unlocked:?}").contains("sk-1"));
    // It is refused there and disabled here.
    let error = JobError::new(ErrorClass::Auth, "invalid_api_key", "status 401: no");
    for _ in 0..REFUSALS_MAX {
        other.note(&unlocked, Heard::Refusal(&error), NOW).await;
    }
    place.credentials.refresh().await.unwrap();
    assert_eq!(place.credentials.list(&"acme".into())[0].state, CredentialState::Disabled);
    let after = other.after_refusal(&unlocked, error.clone());
    assert_eq!((after.class, after.retryable), (ErrorClass::Credential, true));
    // A new key is nothing to what the old one was told.
    place.set("acme", "sk-2").await;
    other.refresh().await.unwrap();
    other.note(&unlocked, Heard::Refusal(&error), NOW).await;
    assert_eq!(place.credentials.list(&"acme".into())[0].failures, 0);
    assert_eq!(other.after_refusal(&unlocked, error.clone()).class, ErrorClass::Credential);
    let fresh = other.unlock(&target).unwrap().unwrap();
    let tried = other.after_refusal(&fresh, error);
    assert_eq!((tried.class, tried.retryable), (ErrorClass::Auth, true), "only a key is to blame for a 401");
    let forbidden = JobError::new(ErrorClass::Auth, "403", "status 403: no access to this model");
    assert!(!other.after_refusal(&fresh, forbidden).retryable);
}
