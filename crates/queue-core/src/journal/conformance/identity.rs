//! Cases of keys.

use super::{Fixture, NOW};
use crate::{
    journal::{ApiKey, Grant, KeyPage, Revocation, Revoked, Role, Rotation, TokenRevocation},
    request_limits::{RATE_MAX, Rates},
    time::Timestamp,
};

fn key(id: &str, tenant: &str, role: Role) -> ApiKey {
    ApiKey {
        id: id.into(),
        secret_hash: [9; 32],
        previous: None,
        tenant: tenant.into(),
        role,
        grants: vec![],
        name: format!("key {id}"),
        created_at: NOW,
        expires_at: None,
        rotated_at: None,
        revoked_at: None,
        last_used_at: None,
        rates: Rates::default(),
    }
}

fn done(ids: &[&str]) -> Revoked {
    Revoked::Done(ids.iter().map(|id| (*id).to_owned()).collect())
}

/// A key is found by its id as it was made, and cannot be replaced by adding it again.
pub async fn keys_stay_as_they_were_made(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let grants = ["jobs:read", "*:*"].map(|text| Grant::parse(text).unwrap());
    for role in Role::ALL {
        let made = ApiKey {
            grants: if role == Role::Analyst { grants.to_vec() } else { vec![] },
            expires_at: (role == Role::Analyst).then_some(NOW.plus_ms(5)),
            rates: Rates { requests_per_minute: (role == Role::User).then_some(7), llm_submits_per_minute: None },
            ..key(role.as_str(), "acme", role)
        };
        assert_eq!(store.identity.count_keys(role, NOW).await.unwrap(), 0);
        store.identity.add_key(made.clone()).await.unwrap();
        let thief = ApiKey { secret_hash: [1; 32], name: "thief".into(), ..made.clone() };
        store.identity.add_key(thief).await.unwrap();
        assert_eq!(store.identity.key(role.as_str()).await.unwrap(), Some(made));
        assert_eq!(store.identity.count_keys(role, NOW).await.unwrap(), 1);
    }
    assert_eq!(store.identity.count_keys(Role::Analyst, NOW.plus_ms(5)).await.unwrap(), 0, "it has ended");
    assert_eq!(store.identity.key("other").await.unwrap(), None);
}

/// Keys are told page by page, of a tenant or of all, and without those that were taken back.
pub async fn keys_are_listed_by_page(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for (id, tenant) in [("a", "acme"), ("b", "globex"), ("c", "acme"), ("d", "acme")] {
        store.identity.add_key(key(id, tenant, Role::User)).await.unwrap();
    }
    store.identity.revoke_keys(Revocation::Key("c".into()), NOW).await.unwrap();
    let page = |tenant: Option<&str>, with_revoked, after: Option<&str>, limit| KeyPage {
        tenant: tenant.map(Into::into),
        with_revoked,
        after: after.map(Into::into),
        limit,
    };
    for (page, expected) in [
        (page(None, true, None, 9), vec!["a", "b", "c", "d"]),
        (page(None, false, None, 9), vec!["a", "b", "d"]),
        (page(None, false, None, 2), vec!["a", "b"]),
        (page(None, false, Some("b"), 2), vec!["d"]),
        (page(Some("acme"), true, Some("a"), 9), vec!["c", "d"]),
        (page(Some("nobody"), true, None, 9), vec![]),
    ] {
        let found = store.identity.keys(&page).await.unwrap();
        assert_eq!(found.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), expected, "{page:?}");
    }
}

/// Two secrets open a key for a while; the same rotation twice is one.
pub async fn a_rotation_keeps_the_secret_before_for_a_while(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let ending = ApiKey { expires_at: Some(NOW.plus_ms(100)), ..key("a", "acme", Role::User) };
    store.identity.add_key(ending.clone()).await.unwrap();
    let rotation = |secret: u8, until: i64, at: i64| Rotation {
        id: "a".into(),
        secret_hash: [secret; 32],
        previous_until: NOW.plus_ms(until),
        at: NOW.plus_ms(at),
    };
    for _ in 0..2 {
        let rotated = store.identity.rotate_key(rotation(2, 50, 10)).await.unwrap().unwrap();
        assert_eq!((rotated.secret_hash, rotated.previous), ([2; 32], Some(([9; 32], NOW.plus_ms(50)))));
        assert_eq!(rotated.rotated_at, Some(NOW.plus_ms(10)));
    }
    // Only one secret before the present one; without time for it, none.
    let rotated = store.identity.rotate_key(rotation(3, 60, 20)).await.unwrap().unwrap();
    assert_eq!(rotated.previous, Some(([2; 32], NOW.plus_ms(60))));
    let rotated = store.identity.rotate_key(rotation(4, 30, 30)).await.unwrap().unwrap();
    assert_eq!((rotated.secret_hash, rotated.previous), ([4; 32], None));
    assert_eq!(store.identity.key("a").await.unwrap(), Some(rotated));
    assert_eq!(store.identity.rotate_key(rotation(5, 200, 100)).await.unwrap(), None, "it has ended");
    store.identity.revoke_keys(Revocation::Key("a".into()), NOW.plus_ms(40)).await.unwrap();
    assert_eq!(store.identity.rotate_key(rotation(5, 60, 41)).await.unwrap(), None, "it was taken back");
}

/// What a key may ask for in a minute is replaced as a whole; nothing else of it changes, also when it gets another secret.
pub async fn a_key_is_limited_and_let_go_again(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let made = key("a", "acme", Role::User);
    store.identity.add_key(made.clone()).await.unwrap();
    let rates = |requests, submits| Rates { requests_per_minute: requests, llm_submits_per_minute: submits };
    for rates in [rates(Some(1), Some(RATE_MAX)), rates(Some(5), None), rates(None, Some(3)), rates(None, None)] {
        for _ in 0..2 {
            let limited = store.identity.limit_key("a", rates).await.unwrap();
            assert_eq!(limited, Some(ApiKey { rates, ..made.clone() }));
        }
        assert_eq!(store.identity.key("a").await.unwrap().unwrap().rates, rates);
        let page = KeyPage { limit: 1, ..KeyPage::default() };
        assert_eq!(store.identity.keys(&page).await.unwrap()[0].rates, rates);
    }
    store.identity.limit_key("a", rates(Some(9), None)).await.unwrap();
    let rotation = Rotation { id: "a".into(), secret_hash: [2; 32], previous_until: NOW, at: NOW };
    assert_eq!(store.identity.rotate_key(rotation).await.unwrap().unwrap().rates, rates(Some(9), None));
    assert_eq!(store.identity.limit_key("nobody", rates(Some(1), None)).await.unwrap(), None);
}

/// A revoked key stays as a row with its moment, and counts no more.
pub async fn a_revoked_key_is_counted_no_more(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for (id, tenant) in [("a", "acme"), ("b", "acme"), ("c", "globex")] {
        store.identity.add_key(key(id, tenant, Role::Operator)).await.unwrap();
    }
    let revoke = |which, at: i64| store.identity.revoke_keys(which, NOW.plus_ms(at));
    assert_eq!(revoke(Revocation::Key("nobody".into()), 1).await.unwrap(), done(&[]));
    assert_eq!(revoke(Revocation::Key("a".into()), 1).await.unwrap(), done(&["a"]));
    assert_eq!(revoke(Revocation::Key("a".into()), 2).await.unwrap(), done(&[]), "before");
    assert_eq!(revoke(Revocation::Tenant("acme".into()), 3).await.unwrap(), done(&["b"]));
    let kept = |id: &'static str| store.identity.key(id);
    assert_eq!(kept("a").await.unwrap().unwrap().revoked_at, Some(NOW.plus_ms(1)));
    assert_eq!(kept("b").await.unwrap().unwrap().revoked_at, Some(NOW.plus_ms(3)));
    assert_eq!(kept("c").await.unwrap().unwrap().revoked_at, None);
    assert_eq!(store.identity.count_keys(Role::Operator, NOW).await.unwrap(), 1);
}

/// No revocation takes the last admin key that can be used; ended and revoked ones do not count.
pub async fn the_last_admin_key_stays(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let ended = ApiKey { expires_at: Some(NOW), ..key("ended", "default", Role::Admin) };
    for key in
        [key("a", "default", Role::Admin), key("b", "acme", Role::Admin), ended, key("user", "default", Role::User)]
    {
        store.identity.add_key(key).await.unwrap();
    }
    let revoke = |which| store.identity.revoke_keys(which, NOW);
    assert_eq!(revoke(Revocation::Key("a".into())).await.unwrap(), done(&["a"]));
    assert_eq!(revoke(Revocation::Key("b".into())).await.unwrap(), Revoked::LastAdmin);
    assert_eq!(revoke(Revocation::Tenant("acme".into())).await.unwrap(), Revoked::LastAdmin);
    assert_eq!(revoke(Revocation::Key("ended".into())).await.unwrap(), done(&["ended"]));
    assert_eq!(revoke(Revocation::Key("user".into())).await.unwrap(), done(&["user"]));
    assert_eq!(store.identity.count_keys(Role::Admin, NOW).await.unwrap(), 1);
}

/// An admin key that may not make keys, or that ends by itself, is no reason to let the last one go that may and does not.
pub async fn the_last_admin_key_is_one_that_can_make_keys_for_good(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let narrowed = |id, grants: &[&str]| {
        let grants = grants.iter().map(|text| Grant::parse(text).unwrap()).collect();
        ApiKey { grants, ..key(id, "default", Role::Admin) }
    };
    let ending = |id| ApiKey { expires_at: Some(NOW.plus_ms(60_000)), ..key(id, "default", Role::Admin) };
    for key in [key("a", "default", Role::Admin), narrowed("reader", &["*:read", "jobs:*"]), ending("soon")] {
        store.identity.add_key(key).await.unwrap();
    }
    let revoke = |id: &str| {
        let which = Revocation::Key(id.to_owned());
        let identity = store.identity.clone();
        async move { identity.revoke_keys(which, NOW).await.unwrap() }
    };
    assert_eq!(revoke("a").await, Revoked::LastAdmin, "the others cannot make keys, or not for long");
    store.identity.add_key(narrowed("keeper", &["keys:*"])).await.unwrap();
    assert_eq!(revoke("a").await, done(&["a"]));
    assert_eq!(revoke("keeper").await, Revoked::LastAdmin);
    assert_eq!(revoke("reader").await, done(&["reader"]));
    assert_eq!(revoke("soon").await, done(&["soon"]));
}

/// Where every admin key ends by itself, the last of them stays all the same.
pub async fn the_last_of_admin_keys_that_end_stays(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for id in ["x", "y"] {
        let ending = ApiKey { expires_at: Some(NOW.plus_ms(60_000)), ..key(id, "default", Role::Admin) };
        store.identity.add_key(ending).await.unwrap();
    }
    assert_eq!(store.identity.revoke_keys(Revocation::Key("x".into()), NOW).await.unwrap(), done(&["x"]));
    let last = Revocation::Key("y".into());
    assert_eq!(store.identity.revoke_keys(last.clone(), NOW).await.unwrap(), Revoked::LastAdmin);
    // It has ended: nobody can do anything with it.
    assert_eq!(store.identity.revoke_keys(last, NOW.plus_ms(60_000)).await.unwrap(), done(&["y"]));
}

/// Two who take each other's key back at once: one of them is refused.
pub async fn the_last_admin_key_stays_whoever_asks_at_once(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let mut spare = "0".to_owned();
    store.identity.add_key(key(&spare, "default", Role::Admin)).await.unwrap();
    for round in 1..6 {
        let next = round.to_string();
        store.identity.add_key(key(&next, "default", Role::Admin)).await.unwrap();
        let [a, b] = [&spare, &next].map(|id| store.identity.revoke_keys(Revocation::Key(id.clone()), NOW));
        let (a, b) = tokio::join!(a, b);
        let refused = [a.unwrap(), b.unwrap()].map(|answer| answer == Revoked::LastAdmin);
        assert!(refused == [true, false] || refused == [false, true], "{refused:?}");
        assert_eq!(store.identity.count_keys(Role::Admin, NOW).await.unwrap(), 1);
        if refused[1] {
            spare = next;
        }
    }
}

/// A later use stays, in whichever order they are told.
pub async fn a_use_is_noted_and_never_taken_back(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    store.identity.add_key(key("a", "acme", Role::User)).await.unwrap();
    for (at, expected) in [(10, 10), (5, 10), (20, 20)] {
        store.identity.note_key_used("a", NOW.plus_ms(at)).await.unwrap();
        let last: Option<Timestamp> = store.identity.key("a").await.unwrap().unwrap().last_used_at;
        assert_eq!(last, Some(NOW.plus_ms(expected)));
    }
    store.identity.note_key_used("nobody", NOW).await.unwrap();
}

/// A revocation is of one token of one issuer, and is forgotten when the token would have ended.
pub async fn a_revoked_token_stays_so_until_its_end(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let revocation = |jti: &str, ends: i64| TokenRevocation {
        issuer: "longshore".into(),
        jti: jti.into(),
        expires_at: NOW.plus_ms(ends),
    };
    let revoked = |jti: &'static str| store.identity.is_token_revoked("longshore", jti);
    assert!(!revoked("a").await.unwrap());
    // Twice is once, and the later end stays.
    for ends in [100, 100, 50] {
        store.identity.revoke_token(revocation("a", ends), NOW).await.unwrap();
    }
    assert!(revoked("a").await.unwrap() && !revoked("b").await.unwrap());
    assert!(!store.identity.is_token_revoked("other", "a").await.unwrap());
    store.identity.revoke_token(revocation("b", 500), NOW.plus_ms(100)).await.unwrap();
    assert!(revoked("a").await.unwrap(), "it ends at this moment");
    store.identity.revoke_token(revocation("c", 500), NOW.plus_ms(101)).await.unwrap();
    assert!(!revoked("a").await.unwrap() && revoked("b").await.unwrap());
}
