//! Cases of webhooks: what is written with an event, who sends it, and what is kept of it.

use uuid::Uuid;

use super::{Fixture, NOW, Opened, accept_new, death, job, settle, settlement, success, token};
use crate::{
    budget::{Measure, Period, Scope, Span},
    credentials::{CredentialId, CredentialNote, NewCredential, Sealed},
    ids::{JobId, Name, SessionId},
    job::NewJob,
    journal::{Alert, Blame, Cancelled, POISON_RECOVERIES, Recovered, Recovery, Settled},
    retention::Rows,
    time::Timestamp,
    webhooks::{
        CircuitTold, ClaimDeliveries, DELIVERIES_PAGE_MAX, Delivery, DeliveryAttempt, DeliveryState, Endpoint,
        EventKind, Listing, NewSecret, Owner, Told,
    },
};

fn sealed(mark: u8) -> Sealed {
    Sealed { kek_id: format!("kek{mark}"), wrapped_key: vec![mark; 3], ciphertext: vec![mark; 5] }
}

fn endpoint(tenant: Option<&str>, events: &[EventKind]) -> Endpoint {
    Endpoint {
        id: Uuid::now_v7(),
        tenant: tenant.map(Name::from),
        url: "https://receiver.example/hook".into(),
        events: events.to_vec(),
        enabled: true,
        reason: None,
        description: Some("for\0 people".into()),
        version: 1,
        created_at: NOW,
    }
}

async fn added(store: &Opened, tenant: Option<&str>, events: &[EventKind]) -> Uuid {
    let endpoint = endpoint(tenant, events);
    assert!(store.webhooks.add_endpoint(endpoint.clone(), sealed(1)).await.unwrap());
    endpoint.id
}

async fn all(store: &Opened) -> Vec<Delivery> {
    let mut all = store.webhooks.deliveries(Listing::All, i64::MAX, DELIVERIES_PAGE_MAX).await.unwrap();
    all.reverse();
    all
}

fn claim(now: Timestamp) -> ClaimDeliveries {
    ClaimDeliveries {
        behind: String::new(),
        except: vec![],
        per_lane: 10,
        limit: 100,
        now,
        until: now.plus_ms(60_000),
        owner: SessionId::generate(),
    }
}

async fn claimed(store: &Opened, claim: ClaimDeliveries) -> Vec<i64> {
    let taken = store.webhooks.claim_deliveries(claim).await.unwrap();
    let mut seqs: Vec<_> = taken.iter().map(|delivery| delivery.seq).collect();
    seqs.sort_unstable();
    seqs
}

/// A job's own URL, its tenant's endpoints and the installation's, each by what they want to hear of.
pub async fn an_end_is_told_to_whom_it_concerns(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let own = NewJob { webhook: Some("https://job.example:8443/done?x=1".into()), ..job() };
    let theirs = NewJob { tenant: "globex".into(), ..job() };
    let quiet = job();
    for job in [&own, &theirs, &quiet] {
        accept_new(&store, job).await;
    }
    settle(&store, token(quiet.id, 0), success()).await;
    assert!(all(&store).await.is_empty(), "nobody wants to hear");
    let acme = added(&store, Some("acme"), &[EventKind::JobSucceeded, EventKind::BudgetAlert]).await;
    added(&store, Some("acme"), &[EventKind::JobDead]).await;
    added(&store, Some("initech"), &EventKind::ALL).await;
    let everybody = added(&store, None, &[EventKind::JobSucceeded]).await;
    settle(&store, token(own.id, 0), success()).await;
    settle(&store, token(theirs.id, 0), success()).await;
    let told = all(&store).await;
    let mut to: Vec<_> =
        told.iter().map(|delivery| (delivery.job, delivery.endpoint, delivery.tenant.clone())).collect();
    to.sort_unstable();
    let mut expected = vec![
        (Some(own.id), None, Some(own.tenant.clone())),
        (Some(own.id), Some(acme), Some(own.tenant.clone())),
        (Some(own.id), Some(everybody), Some(own.tenant.clone())),
        (Some(theirs.id), Some(everybody), Some(theirs.tenant.clone())),
    ];
    expected.sort_unstable();
    assert_eq!(to, expected);
    for delivery in &told {
        let first = (delivery.event, delivery.at, delivery.due_at, delivery.state, delivery.attempts);
        assert_eq!(first, (EventKind::JobSucceeded, NOW.plus_ms(20), NOW.plus_ms(20), DeliveryState::Pending, 0));
        let own_url = "https://job.example:8443/done?x=1";
        let url = if delivery.endpoint.is_none() { own_url } else { "https://receiver.example/hook" };
        assert_eq!((delivery.url.as_deref(), delivery.enabled, &delivery.body), (Some(url), true, &None));
    }
    let lanes: std::collections::BTreeSet<_> = told.iter().map(|delivery| delivery.lane.as_str()).collect();
    assert!(lanes.len() == 3 && lanes.contains("own acme job.example:8443"), "{lanes:?}");
    let of_job = store.webhooks.deliveries(Listing::Job(own.id), i64::MAX, 9).await.unwrap();
    assert_eq!(of_job.len(), 3);
    let of_endpoint = store.webhooks.deliveries(Listing::Endpoint(everybody), i64::MAX, 9).await.unwrap();
    assert_eq!(of_endpoint.len(), 2);
    let one = store.webhooks.deliveries(Listing::One(told[0].id), i64::MAX, 9).await.unwrap();
    assert_eq!(one, told[..1]);
}

/// What changes nothing tells nothing: a fenced settle, a retry, a release.
pub async fn a_fenced_end_is_told_to_nobody(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    added(&store, None, &EventKind::ALL).await;
    let sent = NewJob { webhook: Some("https://job.example/".into()), ..job() };
    accept_new(&store, &sent).await;
    settle(&store, token(sent.id, 0), super::retry()).await;
    settle(&store, token(sent.id, 1), super::release()).await;
    let late = store.journal.settle(settlement(&store, token(sent.id, 0), success())).await.unwrap();
    assert_eq!(late, Settled::Fenced);
    assert!(all(&store).await.is_empty());
    settle(&store, token(sent.id, 2), success()).await;
    assert_eq!(all(&store).await.len(), 2);
}

/// Deaths, convictions and cancels are ends like any other, and a redriven job ends again.
pub async fn the_other_ends_are_told_too(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    added(&store, None, &EventKind::ALL).await;
    let url = || Some("https://job.example/".into());
    let (dies, poisons, stopped) =
        (NewJob { webhook: url(), ..job() }, NewJob { webhook: url(), ..job() }, NewJob { webhook: url(), ..job() });
    for job in [&dies, &poisons, &stopped] {
        accept_new(&store, job).await;
    }
    settle(&store, token(dies.id, 0), death()).await;
    for epoch in 0..i64::from(POISON_RECOVERIES) {
        let recovery = Recovery {
            token: token(poisons.id, epoch),
            nonce: crate::ids::Nonce(1),
            blame: Blame::Alone,
            session: SessionId::generate(),
            started_at: Some(NOW),
        };
        let recovered = store.journal.recover(vec![recovery]).await.unwrap();
        assert_eq!(matches!(recovered[0], Recovered::Poisoned), epoch + 1 == i64::from(POISON_RECOVERIES));
    }
    let cancelled = store.journal.cancel(stopped.id, None, None, NOW).await.unwrap();
    assert!(matches!(cancelled, Cancelled::Done(_)));
    let told = |id: JobId, all: &[Delivery]| {
        let mut events: Vec<_> = all
            .iter()
            .filter(|delivery| delivery.job == Some(id))
            .map(|delivery| (delivery.endpoint.is_some(), delivery.event))
            .collect();
        events.sort_unstable();
        events
    };
    let found = all(&store).await;
    for (id, event) in
        [(dies.id, EventKind::JobDead), (poisons.id, EventKind::JobDead), (stopped.id, EventKind::JobCancelled)]
    {
        assert_eq!(told(id, &found), [(false, event), (true, event)]);
    }
    store.journal.redrive(dies.id, NOW).await.unwrap();
    settle(&store, token(dies.id, 1), success()).await;
    assert_eq!(told(dies.id, &all(&store).await).len(), 4, "its own URL goes with it");
}

/// What is claimed is nobody else's until its time is over.
pub async fn a_delivery_has_one_owner(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for _ in 0..3 {
        let sent = NewJob { webhook: Some("https://job.example/".into()), ..job() };
        accept_new(&store, &sent).await;
        settle(&store, token(sent.id, 0), success()).await;
    }
    let early = claim(NOW.plus_ms(19));
    assert!(claimed(&store, early).await.is_empty(), "it ended a millisecond later");
    let first = claimed(&store, ClaimDeliveries { per_lane: 2, ..claim(NOW.plus_ms(20)) }).await;
    let second = claimed(&store, claim(NOW.plus_ms(20))).await;
    assert_eq!((first.len(), second.len()), (2, 1));
    assert!(first.iter().all(|seq| !second.contains(seq)));
    assert!(claimed(&store, claim(NOW.plus_ms(60_019))).await.is_empty());
    assert_eq!(claimed(&store, claim(NOW.plus_ms(60_020))).await.len(), 3, "their owners are gone");
}

/// Claims go from lane to lane, take a few of each, leave some alone, and go on where they stopped.
pub async fn a_full_lane_holds_nobody_up(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for (host, jobs) in [("a", 9), ("b", 2), ("c", 1)] {
        for _ in 0..jobs {
            let sent = NewJob { webhook: Some(format!("https://{host}.example/")), ..job() };
            accept_new(&store, &sent).await;
            settle(&store, token(sent.id, 0), success()).await;
        }
    }
    let now = NOW.plus_ms(50);
    let lanes = async |claim: ClaimDeliveries| {
        let taken = store.webhooks.claim_deliveries(claim).await.unwrap();
        let mut lanes: Vec<_> = taken.into_iter().map(|delivery| delivery.lane).collect();
        lanes.sort_unstable();
        lanes
    };
    let few = lanes(ClaimDeliveries { per_lane: 1, ..claim(now) }).await;
    assert_eq!(few, ["own acme a.example", "own acme b.example", "own acme c.example"]);
    let except = ClaimDeliveries { except: vec!["own acme a.example".into()], per_lane: 1, ..claim(now) };
    assert_eq!(lanes(except).await, ["own acme b.example"]);
    let behind = ClaimDeliveries { behind: "own acme a.example".into(), ..claim(now) };
    assert!(lanes(behind).await.is_empty());
    assert_eq!(lanes(ClaimDeliveries { limit: 3, ..claim(now) }).await, ["own acme a.example"; 3]);
}

fn attempt(seq: i64, owner: SessionId) -> DeliveryAttempt {
    DeliveryAttempt {
        seq,
        owner,
        at: NOW,
        duration_ms: 12,
        status: Some(500),
        answer: Some("no\0".into()),
        error: None,
        body: Some("{}".into()),
        tried: true,
        state: DeliveryState::Pending,
        due_at: NOW.plus_ms(5_000),
        disable: None,
        overdue_before: None,
    }
}

/// Who has lost a delivery changes nothing but the log.
pub async fn an_attempt_is_noted_by_its_owner(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let sent = NewJob { webhook: Some("https://job.example/".into()), ..job() };
    accept_new(&store, &sent).await;
    settle(&store, token(sent.id, 0), success()).await;
    let own = claim(NOW.plus_ms(20));
    let [seq] = claimed(&store, own.clone()).await[..] else { panic!("one") };
    let note = async |attempt: DeliveryAttempt| store.webhooks.note_delivery(attempt).await.unwrap();
    assert_eq!(note(attempt(seq, SessionId::generate())).await, None);
    assert_eq!(all(&store).await[0].attempts, 0);
    assert_eq!(note(attempt(seq, own.owner)).await, Some(0));
    let after = all(&store).await.remove(0);
    assert_eq!((after.attempts, after.tries, after.body.as_deref()), (1, 1, Some("{}")));
    assert_eq!((after.due_at, after.last.as_deref()), (NOW.plus_ms(5_000), Some("500")));
    assert_eq!(note(attempt(seq, own.owner)).await, None, "it is nobody's now");
    let again = claim(NOW.plus_ms(5_000));
    assert_eq!(claimed(&store, again.clone()).await, [seq]);
    let last = DeliveryAttempt {
        tried: false,
        status: None,
        error: Some("no key".into()),
        body: Some("other".into()),
        state: DeliveryState::Failed,
        ..attempt(seq, again.owner)
    };
    assert_eq!(note(last).await, Some(0));
    let after = all(&store).await.remove(0);
    assert_eq!((after.attempts, after.tries, after.body.as_deref()), (1, 1, Some("{}")), "the message stays");
    assert_eq!((after.state, after.last.as_deref()), (DeliveryState::Failed, Some("no key")));
    let log = store.webhooks.delivery_attempts(seq).await.unwrap();
    assert_eq!(log.len(), 3, "also of who had lost it");
    assert_eq!((log[0].status, log[0].answer.as_deref(), log[0].duration_ms), (Some(500), Some("no\0"), 12));
    assert!(claimed(&store, claim(NOW.plus_ms(1_000_000))).await.is_empty(), "it has ended");
}

/// With a failure of its receiver, what waits in the same lane since before a moment ends; others wait on.
pub async fn what_waits_too_long_is_given_up(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for host in ["a", "a", "a", "b"] {
        let sent = NewJob { webhook: Some(format!("https://{host}.example/")), ..job() };
        accept_new(&store, &sent).await;
        settle(&store, token(sent.id, 0), success()).await;
    }
    let own = ClaimDeliveries { limit: 1, ..claim(NOW.plus_ms(20)) };
    let [seq] = claimed(&store, own.clone()).await[..] else { panic!("one") };
    let late = NOW.plus_ms(10_000);
    let fails = |before: Timestamp| DeliveryAttempt {
        overdue_before: Some(before),
        at: late,
        due_at: late,
        ..attempt(seq, own.owner)
    };
    assert_eq!(
        store.webhooks.note_delivery(DeliveryAttempt { owner: SessionId::generate(), ..fails(late) }).await.unwrap(),
        None
    );
    assert_eq!(store.webhooks.note_delivery(fails(late)).await.unwrap(), Some(2));
    let states = async || {
        let mut states: Vec<_> =
            all(&store).await.into_iter().map(|one| (one.seq == seq, one.lane, one.state)).collect();
        states.sort_by_key(|(_, lane, state)| (lane.clone(), state.code()));
        states
    };
    let a = || "own acme a.example".to_owned();
    let failed = (false, a(), DeliveryState::Failed);
    let waits = (false, "own acme b.example".to_owned(), DeliveryState::Pending);
    assert_eq!(states().await, [(true, a(), DeliveryState::Pending), failed.clone(), failed, waits]);
    let again = claim(late);
    assert!(claimed(&store, again.clone()).await.contains(&seq), "it is tried on");
    let young = DeliveryAttempt { overdue_before: Some(NOW), ..attempt(seq, again.owner) };
    assert_eq!(store.webhooks.note_delivery(young).await.unwrap(), Some(0));
}

/// 410 switches an endpoint off, and nothing more is written for it.
pub async fn a_receiver_that_wants_no_more_is_switched_off(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let id = added(&store, None, &EventKind::ALL).await;
    let one = job();
    accept_new(&store, &one).await;
    settle(&store, token(one.id, 0), success()).await;
    let own = claim(NOW.plus_ms(20));
    let [seq] = claimed(&store, own.clone()).await[..] else { panic!("one") };
    let gone = DeliveryAttempt {
        state: DeliveryState::Dropped,
        disable: Some("it answered 410".into()),
        ..attempt(seq, own.owner)
    };
    assert!(store.webhooks.note_delivery(gone).await.unwrap().is_some());
    let off = store.webhooks.endpoints().await.unwrap().remove(0);
    assert_eq!((off.id, off.enabled, off.reason.as_deref(), off.version), (id, false, Some("it answered 410"), 2));
    let other = job();
    accept_new(&store, &other).await;
    settle(&store, token(other.id, 0), success()).await;
    let told = all(&store).await;
    assert_eq!((told.len(), told[0].enabled), (1, false));
    assert!(store.webhooks.drop_endpoint(id).await.unwrap() && !store.webhooks.drop_endpoint(id).await.unwrap());
    let left = all(&store).await.remove(0);
    assert_eq!((left.url, left.enabled), (None, false), "a receiver that is gone");
}

/// A replay is due at once with its old message and a new patience; what has ended goes after its time.
pub async fn a_delivery_is_replayed_and_pruned(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let sent = NewJob { webhook: Some("https://job.example/".into()), ..job() };
    accept_new(&store, &sent).await;
    settle(&store, token(sent.id, 0), success()).await;
    let own = claim(NOW.plus_ms(20));
    let [seq] = claimed(&store, own.clone()).await[..] else { panic!("one") };
    let done = DeliveryAttempt { state: DeliveryState::Delivered, ..attempt(seq, own.owner) };
    assert!(store.webhooks.note_delivery(done).await.unwrap().is_some());
    let id = all(&store).await[0].id;
    assert!(!store.webhooks.replay_delivery(Uuid::now_v7(), NOW).await.unwrap());
    assert!(store.webhooks.replay_delivery(id, NOW.plus_ms(30)).await.unwrap());
    let again = all(&store).await.remove(0);
    assert_eq!((again.id, again.state, again.attempts, again.tries), (id, DeliveryState::Pending, 1, 0));
    assert_eq!((again.due_at, again.body.as_deref()), (NOW.plus_ms(30), Some("{}")));
    let later = NOW.plus_ms(1_000);
    assert_eq!(
        store.retention.sweep(Rows::WebhookDeliveries, later, 10).await.unwrap(),
        0,
        "it is still to be delivered"
    );
    let own = claim(NOW.plus_ms(30));
    assert_eq!(claimed(&store, own.clone()).await, [seq]);
    let done = DeliveryAttempt { state: DeliveryState::Failed, ..attempt(seq, own.owner) };
    assert!(store.webhooks.note_delivery(done).await.unwrap().is_some());
    assert_eq!(
        store.retention.sweep(Rows::WebhookDeliveries, later, 10).await.unwrap(),
        0,
        "it happened before, and ended after"
    );
    assert_eq!(store.retention.sweep(Rows::WebhookDeliveries, NOW.plus_ms(5_001), 10).await.unwrap(), 1);
    assert!(all(&store).await.is_empty());
    assert!(store.webhooks.delivery_attempts(seq).await.unwrap().is_empty());
}

/// Endpoints survive a restart and are changed over the version that was seen.
pub async fn endpoints_are_kept(fixture: &dyn Fixture) {
    let (mine, theirs) = (endpoint(Some("acme"), &[EventKind::JobDead]), endpoint(None, &EventKind::ALL));
    {
        let store = fixture.open().await;
        for endpoint in [&mine, &theirs] {
            assert!(store.webhooks.add_endpoint(endpoint.clone(), sealed(1)).await.unwrap());
        }
        let changed = Endpoint {
            url: "https://new.example/".into(),
            events: vec![EventKind::BreakerOpened],
            enabled: false,
            reason: Some("moved".into()),
            description: None,
            version: 2,
            ..mine.clone()
        };
        assert!(store.webhooks.change_endpoint(changed.clone()).await.unwrap());
        assert!(!store.webhooks.change_endpoint(changed).await.unwrap(), "somebody was faster");
    }
    let store = fixture.open().await;
    let kept = store.webhooks.endpoints().await.unwrap();
    let first = kept.iter().find(|endpoint| endpoint.id == mine.id).unwrap();
    assert_eq!((first.url.as_str(), first.enabled, first.version), ("https://new.example/", false, 2));
    assert_eq!(first.events, [EventKind::BreakerOpened]);
    assert_eq!(kept.iter().find(|endpoint| endpoint.id == theirs.id), Some(&theirs));
    let silent = NewJob { tenant: "globex".into(), ..job() };
    accept_new(&store, &silent).await;
    settle(&store, token(silent.id, 0), success()).await;
    assert_eq!(all(&store).await.len(), 1, "told as before the restart");
}

/// While a secret is changed two sign, and never more.
pub async fn secrets_are_rotated(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let owner = Owner::Tenant("acme".into());
    let put = async |version: i64, until_ms: i64| {
        let new = NewSecret {
            owner: owner.clone(),
            version,
            sealed: sealed(version as u8),
            former_until: NOW.plus_ms(until_ms),
            at: NOW,
        };
        store.webhooks.put_secret(new).await.unwrap()
    };
    let versions = async |at_ms: i64| {
        let found = store.webhooks.secrets(&owner, NOW.plus_ms(at_ms)).await.unwrap();
        found.iter().map(|secret| secret.version).collect::<Vec<_>>()
    };
    assert!(versions(0).await.is_empty());
    assert!(put(1, 0).await && !put(1, 0).await);
    assert_eq!(store.webhooks.secrets(&owner, NOW).await.unwrap()[0].sealed, sealed(1));
    assert!(put(2, 100).await);
    assert_eq!((versions(99).await, versions(100).await), (vec![2, 1], vec![2]));
    assert!(put(3, 200).await);
    assert_eq!(versions(50).await, [3, 2], "the first is gone");
    assert!(store.webhooks.secrets(&Owner::Tenant("acm".into()), NOW).await.unwrap().is_empty());
    let behind = store.webhooks.secrets_behind("another").await.unwrap();
    let (text, newest) = behind.last().unwrap();
    let kek = newest.sealed.kek_id.clone();
    assert_eq!(text, &owner.to_string());
    assert_eq!(store.webhooks.secrets_behind(&kek).await.unwrap().len(), behind.len() - 1);
    let to = Sealed { kek_id: "another".into(), wrapped_key: vec![7], ciphertext: Vec::new() };
    for done in [true, false] {
        let rewrapped = store.webhooks.rewrap_secret(text.clone(), newest.version, kek.clone(), to.clone()).await;
        assert_eq!(rewrapped.unwrap(), done);
    }
    let moved = store.webhooks.secrets(&owner, NOW).await.unwrap();
    let moved = moved.iter().find(|one| one.version == newest.version).unwrap();
    assert_eq!(moved.sealed, Sealed { ciphertext: newest.sealed.ciphertext.clone(), ..to });
    let id = added(&store, None, &EventKind::ALL).await;
    let of_endpoint = Owner::Endpoint(id);
    assert_eq!(store.webhooks.secrets(&of_endpoint, NOW).await.unwrap().len(), 1);
    assert!(store.webhooks.drop_endpoint(id).await.unwrap());
    assert!(store.webhooks.secrets(&of_endpoint, NOW).await.unwrap().is_empty());
}

/// A budget's level and a disabled key are told by whoever noted them, once.
pub async fn alerts_and_disabled_keys_are_told_once(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let of_tenant = added(&store, Some("acme"), &[EventKind::BudgetAlert, EventKind::CredentialDisabled]).await;
    let of_all = added(&store, None, &[EventKind::BudgetAlert]).await;
    let alert = |scope| Alert {
        scope,
        measure: Measure::Usd,
        period: Period::Month,
        since: Span::of(NOW).month,
        level: 80,
        spent: 81_000_000_000,
        budget: 100_000_000_000,
        at: NOW,
    };
    for first in [true, false] {
        assert_eq!(store.budgets.note_alert(&alert(Scope::Tenant("acme".into()))).await.unwrap(), first);
        assert_eq!(store.budgets.note_alert(&alert(Scope::All)).await.unwrap(), first);
    }
    let told = all(&store).await;
    let mut to: Vec<_> = told.iter().map(|delivery| (delivery.tenant.clone(), delivery.endpoint.unwrap())).collect();
    to.sort_unstable();
    let mut expected = vec![(None, of_all), (Some("acme".into()), of_tenant), (Some("acme".into()), of_all)];
    expected.sort_unstable();
    assert_eq!(to, expected);
    let body: serde_json::Value = serde_json::from_str(told[0].body.as_deref().unwrap()).unwrap();
    assert_eq!((&body["type"], &body["data"]["level_percent"]), (&"budget.alert".into(), &80.into()));
    assert_eq!(body["data"]["spent"], "$81.00");

    let new = NewCredential {
        tenant: "acme".into(),
        provider: "openai".into(),
        version: 1,
        sealed: sealed(1),
        hint: String::new(),
        at: NOW,
    };
    assert!(store.vault.put_credential(new).await.unwrap());
    let id = CredentialId { tenant: "acme".into(), provider: "openai".into(), version: 1 };
    for _ in 0..3 {
        let note = CredentialNote::Refused { reason: "401: no\0".into(), max: 2 };
        store.vault.note_credential(id.clone(), note, NOW).await.unwrap();
    }
    let told: Vec<_> =
        all(&store).await.into_iter().filter(|delivery| delivery.event == EventKind::CredentialDisabled).collect();
    assert_eq!((told.len(), told[0].endpoint), (1, Some(of_tenant)));
    assert!(told[0].body.as_deref().unwrap().contains("401: no"));
}

/// A circuit is told when it opens and when it closes, by whoever notes it first.
pub async fn circuits_are_told_once(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let all_events = added(&store, None, &[EventKind::BreakerOpened, EventKind::BreakerClosed]).await;
    added(&store, Some("acme"), &[EventKind::BreakerOpened]).await;
    let told = |circuit: &str, open, tenant: Option<&str>| CircuitTold {
        circuit: circuit.into(),
        open,
        tenant: tenant.map(Name::from),
        body: format!("{circuit} {open}"),
        at: NOW,
        last_open_at: NOW,
        what: Told::Breaker,
    };
    let tell = async |told| store.webhooks.tell_circuit(told).await.unwrap();
    assert!(!tell(told("a", false, None)).await, "it was not told of as open");
    assert!(tell(told("a", true, None)).await && !tell(told("a", true, None)).await);
    assert!(tell(told("b", true, Some("acme"))).await);
    let open = store.webhooks.open_circuits().await.unwrap();
    assert_eq!(open, [("a".into(), NOW), ("b".into(), NOW)].into());
    // Somebody sees it open later: whoever has not closes nothing.
    let later = NOW.plus_ms(1_000);
    assert!(!tell(CircuitTold { at: later, ..told("a", true, None) }).await);
    assert_eq!(store.webhooks.open_circuits().await.unwrap()[&Name::from("a")], later);
    assert!(!tell(told("a", false, None)).await);
    let told =
        |circuit: &str, open, tenant: Option<&str>| CircuitTold { last_open_at: later, ..told(circuit, open, tenant) };
    assert!(tell(told("a", false, None)).await && !tell(told("a", false, None)).await);
    let mut bodies: Vec<_> = all(&store)
        .await
        .into_iter()
        .map(|delivery| (delivery.body.unwrap(), delivery.endpoint == Some(all_events)))
        .collect();
    bodies.sort_unstable();
    let expected = [("a false", true), ("a true", true), ("b true", false), ("b true", true)];
    assert_eq!(bodies, expected.map(|(body, everybody)| (body.to_owned(), everybody)));
}
