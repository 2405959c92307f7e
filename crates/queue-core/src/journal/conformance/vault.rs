//! Cases of the vault: what becomes of sealed keys, and who hears of it.

use super::{Fixture, NOW, Opened};
use crate::{
    credentials::{
        Credential, CredentialId, CredentialNote, CredentialPolicy, CredentialState, NewCredential, Noted, Sealed,
    },
    ids::Name,
    journal::TenantSettings,
};

fn sealed(mark: u8) -> Sealed {
    Sealed { kek_id: format!("kek{mark}"), wrapped_key: vec![mark, 0, 255], ciphertext: vec![mark; 40] }
}

fn key(tenant: &str, version: i64, mark: u8) -> NewCredential {
    NewCredential {
        tenant: tenant.into(),
        provider: "openai".into(),
        version,
        sealed: sealed(mark),
        hint: "WXYZ".into(),
        at: NOW.plus_ms(version),
    }
}

fn id(tenant: &str, version: i64) -> CredentialId {
    CredentialId { tenant: tenant.into(), provider: "openai".into(), version }
}

async fn all(store: &Opened) -> Vec<Credential> {
    store.vault.credentials_since(0, 100).await.unwrap()
}

async fn one(store: &Opened) -> Credential {
    let mut all = all(store).await;
    assert_eq!(all.len(), 1);
    all.remove(0)
}

async fn noted(store: &Opened, version: i64, note: CredentialNote, at_ms: i64) -> Option<Noted> {
    store.vault.note_credential(id("acme", version), note, NOW.plus_ms(at_ms)).await.unwrap()
}

fn refused() -> CredentialNote {
    CredentialNote::Refused { reason: "401: no".into(), max: 2 }
}

/// A key is set over the version before it and no other, and is there after a restart.
pub async fn a_key_is_set_over_the_one_before(fixture: &dyn Fixture) {
    {
        let store = fixture.open().await;
        assert!(all(&store).await.is_empty());
        assert!(!store.vault.put_credential(key("acme", 2, 9)).await.unwrap(), "there is no version 1");
        assert!(store.vault.put_credential(key("acme", 1, 1)).await.unwrap());
        assert!(!store.vault.put_credential(key("acme", 1, 9)).await.unwrap(), "somebody was faster");
        assert!(!store.vault.put_credential(key("acme", 3, 9)).await.unwrap());
        noted(&store, 1, refused(), 5).await.unwrap();
        assert!(store.vault.put_credential(key("acme", 2, 2)).await.unwrap());
    }
    let kept = one(&fixture.open().await).await;
    let expected = Credential {
        tenant: "acme".into(),
        provider: "openai".into(),
        version: 2,
        revision: kept.revision,
        state: CredentialState::Active,
        reason: None,
        sealed: Some(sealed(2)),
        hint: "WXYZ".into(),
        failures: 0,
        created_at: NOW.plus_ms(1),
        rotated_at: NOW.plus_ms(2),
        used_at: None,
    };
    assert_eq!(kept, expected, "a new key has no refusals and was never used");
}

/// What is deleted holds nothing secret, keeps its number, and is there for nobody but a new key.
pub async fn a_deleted_key_leaves_its_number(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (acme, openai) = (Name::from("acme"), Name::from("openai"));
    let set = async |state| store.vault.set_credential(&acme, &openai, state, Some("why".into())).await.unwrap();
    assert!(!set(CredentialState::Deleted).await, "nothing to delete");
    assert!(store.vault.put_credential(key("acme", 1, 1)).await.unwrap());
    assert!(set(CredentialState::Disabled).await);
    let off = one(&store).await;
    assert_eq!((off.state, off.reason.as_deref(), off.version), (CredentialState::Disabled, Some("why"), 1));
    assert_eq!(noted(&store, 1, CredentialNote::Used, 1).await, None, "it is not used");
    assert!(set(CredentialState::Active).await && set(CredentialState::Deleted).await);
    let gone = one(&store).await;
    assert_eq!((gone.state, gone.sealed, gone.hint.as_str(), gone.version), (CredentialState::Deleted, None, "", 2));
    for state in [CredentialState::Active, CredentialState::Disabled, CredentialState::Deleted] {
        assert!(!set(state).await, "{state:?}");
    }
    assert!(!store.vault.put_credential(key("acme", 1, 9)).await.unwrap(), "the old number opens nothing");
    assert!(store.vault.put_credential(key("acme", 3, 3)).await.unwrap());
    assert_eq!(one(&store).await.sealed, Some(sealed(3)));
}

/// So many refusals without a success between them disable a key, and only the version that was refused.
pub async fn refusals_disable_a_key(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    assert!(store.vault.put_credential(key("acme", 1, 1)).await.unwrap());
    let active = |failures| Some(Noted { failures, state: CredentialState::Active });
    assert_eq!(noted(&store, 1, CredentialNote::Used, 7).await, active(0));
    assert_eq!(noted(&store, 1, refused(), 3).await, active(1));
    assert_eq!(one(&store).await.used_at, Some(NOW.plus_ms(7)), "the latest moment stays");
    assert_eq!(noted(&store, 1, CredentialNote::Worked, 8).await, active(0));
    assert_eq!(one(&store).await.reason, None);
    assert_eq!(noted(&store, 2, refused(), 9).await, None, "of another version");
    assert_eq!(noted(&store, 1, refused(), 9).await, active(1));
    let disabled = Some(Noted { failures: 2, state: CredentialState::Disabled });
    assert_eq!(noted(&store, 1, refused(), 9).await, disabled);
    let off = one(&store).await;
    assert_eq!((off.state, off.reason.as_deref(), off.failures), (CredentialState::Disabled, Some("401: no"), 2));
    assert_eq!(noted(&store, 1, refused(), 9).await, None, "it is disabled");
    assert_eq!(noted(&store, 1, CredentialNote::Worked, 9).await, None, "a late answer switches nothing on");
    let (acme, openai) = ("acme".into(), "openai".into());
    assert!(store.vault.set_credential(&acme, &openai, CredentialState::Active, None).await.unwrap());
    assert_eq!(noted(&store, 1, refused(), 9).await, active(1), "switched on, it begins anew");
}

/// A rewrap replaces the wrapped key of the version and master key that it read, and leaves the secret alone.
pub async fn a_rewrap_touches_one_version(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    assert!(store.vault.put_credential(key("acme", 1, 1)).await.unwrap());
    let to = Sealed { kek_id: "new".into(), wrapped_key: vec![5], ciphertext: vec![] };
    let rewrap = async |version, from: &str| {
        store.vault.rewrap_credential(id("acme", version), from.into(), to.clone()).await.unwrap()
    };
    assert!(!rewrap(2, "kek1").await && !rewrap(1, "kek2").await);
    let before = one(&store).await;
    assert!(rewrap(1, "kek1").await);
    assert!(!rewrap(1, "kek1").await, "twice is once");
    let after = one(&store).await;
    let expected = Sealed { ciphertext: sealed(1).ciphertext, ..to.clone() };
    assert_eq!(after, Credential { revision: after.revision, sealed: Some(expected), ..before });
}

/// Whoever asks for what is above the last revision that it saw hears of every change once, and of uses never.
pub async fn changes_come_in_their_order(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for tenant in ["a", "b", "c"] {
        assert!(store.vault.put_credential(key(tenant, 1, 1)).await.unwrap());
    }
    let first = store.vault.credentials_since(0, 2).await.unwrap();
    let seen = first.last().unwrap().revision;
    let tenants = |found: &[Credential]| found.iter().map(|one| one.tenant.to_string()).collect::<Vec<_>>();
    assert_eq!(tenants(&first), ["a", "b"]);
    assert_eq!(tenants(&store.vault.credentials_since(seen, 2).await.unwrap()), ["c"]);
    let last = all(&store).await.last().unwrap().revision;
    let note = CredentialNote::Used;
    store.vault.note_credential(id("b", 1), note, NOW).await.unwrap().unwrap();
    assert!(store.vault.credentials_since(last, 9).await.unwrap().is_empty());
    store.vault.set_credential(&"a".into(), &"openai".into(), CredentialState::Deleted, None).await.unwrap();
    store.vault.note_credential(id("b", 1), refused(), NOW).await.unwrap().unwrap();
    let news = store.vault.credentials_since(last, 9).await.unwrap();
    assert_eq!(tenants(&news), ["a", "b"]);
    assert!(news[0].revision > last && news[1].revision > news[0].revision);
}

/// Only tenants whose policy is not the usual one are told.
pub async fn policies_are_told_apart(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for policy in CredentialPolicy::ALL {
        let settings = TenantSettings { credential_policy: policy, ..TenantSettings::default() };
        store.catalog.set_tenant(&policy.as_str().into(), settings).await.unwrap();
    }
    let told: Vec<_> = store.vault.credential_policies().await.unwrap().into_iter().collect();
    let expected =
        [CredentialPolicy::Default, CredentialPolicy::OwnOnly].map(|policy| (policy.as_str().into(), policy));
    assert_eq!(told, expected);
}
