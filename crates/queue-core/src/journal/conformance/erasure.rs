//! Cases of erasing tenants: what goes, what stays, and how the walk over the tables goes on.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    Fixture, NOW, Opened, accept_new, archives, call, death, job, retry, schedules, settle, settlement, success, token,
};
use crate::{
    budget::{Budget, Measure, Period, Scope},
    credentials::{CredentialState, NewCredential, Sealed},
    erasure::{Erasure, HEARD_MS, LOOK_AGAIN_MS},
    ids::{JobId, Name},
    job::{Idempotency, NewJob},
    journal::{Alert, ApiKey, CostColumn, CostQuery, Role, TargetSettings, TenantSettings},
    ledger::{CallRecord, Nanousd, SavedBy, Saving, Usage},
    schedule::Added,
    time::{DAY_MS, Timestamp},
    webhooks::{CircuitTold, Endpoint, EventKind, Listing, NewSecret, Owner, Told},
};

/// Stands in every name, text and body of the tenant that is erased.
const GONE: &str = "canaryco";
/// The tenant beside it.
const STAYS: &str = "neighbour";
/// Tables in which the name of an erased tenant may stand: the log of it.
const LOG: &str = "erasures";

fn sealed() -> Sealed {
    Sealed { kek_id: "kek".into(), wrapped_key: vec![1; 3], ciphertext: vec![1; 5] }
}

fn job_of(tenant: &str, number: u32) -> NewJob {
    let owner = if number.is_multiple_of(2) { tenant.to_owned() } else { format!("{tenant}\u{1f}abcd1234") };
    NewJob {
        tenant: tenant.into(),
        operation: Some(format!("{tenant} work")),
        batch_id: Some(format!("{tenant}-batch")),
        tags: vec![format!("{tenant} tag")],
        unique_key: Some(format!("{tenant}-{number}")),
        idempotency: Some(Idempotency {
            owner: Name::new(owner),
            key: format!("{tenant}-{number}"),
            fingerprint: [7; 32],
            item: 0,
        }),
        // A key of the tenant, or somebody whom an identity provider knows.
        key_id: Some(Name::new(match number {
            0 => format!("sub:{tenant}-person"),
            _ => format!("{tenant}-key"),
        })),
        webhook: Some(format!("https://{tenant}.example/")),
        payload: format!(r#"{{"messages":["{tenant}"]}}"#).into(),
        ..job()
    }
}

fn call_of(job: &NewJob, step: &str) -> CallRecord {
    CallRecord { key_id: job.key_id.clone(), ..call(job, step, Some(500)) }
}

/// Something in every table that can have something of a tenant; a live job is returned.
async fn furnish(store: &Opened, tenant: &str) -> NewJob {
    let name = Name::from(tenant);
    let key = ApiKey {
        id: format!("{tenant}-key"),
        secret_hash: [9; 32],
        previous: None,
        tenant: name.clone(),
        role: Role::User,
        grants: vec![],
        name: format!("key of {tenant}"),
        created_at: NOW,
        expires_at: None,
        rotated_at: None,
        revoked_at: None,
        last_used_at: None,
        rates: Default::default(),
    };
    store.identity.add_key(key).await.unwrap();
    store.catalog.set_tenant(&name, TenantSettings { weight: 2, ..TenantSettings::default() }).await.unwrap();
    let target = format!("openai:small:@{tenant}");
    store.catalog.set_target(&Name::new(target), TargetSettings::default()).await.unwrap();
    let new = NewCredential {
        tenant: name.clone(),
        provider: "openai".into(),
        version: 1,
        sealed: sealed(),
        hint: "WXYZ".into(),
        at: NOW,
    };
    assert!(store.vault.put_credential(new).await.unwrap());
    let secret =
        NewSecret { owner: Owner::Tenant(name.clone()), version: 1, sealed: sealed(), former_until: NOW, at: NOW };
    assert!(store.webhooks.put_secret(secret).await.unwrap());
    let endpoint = Endpoint {
        id: Uuid::now_v7(),
        tenant: Some(name.clone()),
        url: format!("https://{tenant}.example/hook"),
        events: EventKind::ALL.to_vec(),
        enabled: true,
        reason: None,
        description: None,
        version: 1,
        created_at: NOW,
    };
    assert!(store.webhooks.add_endpoint(endpoint, sealed()).await.unwrap());
    let circuit = Name::new(format!("openai:*:@{tenant}"));
    let told = CircuitTold {
        circuit,
        open: true,
        tenant: Some(name.clone()),
        body: format!("{{\"of\":\"{tenant}\"}}"),
        at: NOW,
        last_open_at: NOW,
        what: Told::Breaker,
    };
    assert!(store.webhooks.tell_circuit(told).await.unwrap());
    let nightly = schedules::schedule(tenant, &format!("{tenant}-nightly"));
    assert_eq!(store.schedules.add_schedule(nightly).await.unwrap(), Added::New);
    let key = |id: String| Scope::Key(Name::new(id));
    for scope in [Scope::Tenant(name.clone()), key(format!("{tenant}-key")), key(format!("sub:{tenant}-person"))] {
        store.budgets.set_budget(&scope, Budget { day_tokens: Some(9), ..Budget::default() }).await.unwrap();
        let (measure, period) = (Measure::Tokens, Period::Day);
        let alert = Alert { scope, measure, period, since: 0, level: 50, spent: 5, budget: 9, at: NOW };
        assert!(store.budgets.note_alert(&alert).await.unwrap());
    }
    archives::archived(store, &job_of(tenant, 4)).await;
    let [done, dead, again, live] = [0, 1, 2, 3].map(|number| job_of(tenant, number));
    for one in [&done, &dead, &again, &live] {
        accept_new(store, one).await;
    }
    let mut end = settlement(store, token(done.id, 0), success());
    end.calls = vec![call_of(&done, "chat")];
    end.savings = vec![saving(&done)];
    store.journal.settle(end).await.unwrap();
    store.journal.record(call_of(&dead, "chat")).await.unwrap();
    settle(store, token(dead.id, 0), retry()).await;
    settle(store, token(dead.id, 1), death()).await;
    settle(store, token(again.id, 0), retry()).await;
    store.journal.cancel(again.id, Some(format!("{tenant} said so")), None, NOW).await.unwrap();
    live
}

fn saving(job: &NewJob) -> Saving {
    let call = call_of(job, "cached");
    Saving {
        call_id: call.call_id,
        job_id: job.id,
        tenant: job.tenant.clone(),
        queue: job.queue.clone(),
        kind: job.kind,
        operation: job.operation.clone(),
        epoch: call.epoch,
        provider: "simulated".into(),
        model: "small".into(),
        reason: SavedBy::Cache,
        usage: Usage { tokens_in: 10, ..Usage::default() },
        saved: Some(Nanousd(40)),
        at: NOW.plus_ms(15),
    }
}

/// The tables that have this text somewhere.
async fn with(fixture: &dyn Fixture, text: &str) -> BTreeMap<String, u64> {
    let tables = fixture.tables_with(text).await;
    tables.into_iter().filter(|(_, _, rows)| *rows > 0).map(|(table, _, rows)| (table, rows)).collect()
}

async fn erase(store: &Opened, tenant: &str) -> Erasure {
    let order = Erasure::order(tenant.into(), format!("erased-{}", &Uuid::now_v7().simple()), NOW);
    store.erasures.erase(order, NOW).await.unwrap()
}

/// Walks until nobody is due any more; how many steps that took.
async fn walk(store: &Opened, now: Timestamp) -> usize {
    for steps in 0..500 {
        let sweep = store.erasures.sweep().await.unwrap();
        let log = store.erasures.erasures().await.unwrap();
        if sweep.began_at.is_none() && !log.iter().any(|erasure| erasure.is_due(now)) {
            return steps;
        }
        assert!(store.erasures.sweep_on(sweep.beat, now).await.unwrap().is_some());
    }
    panic!("the walk has no end");
}

async fn one(store: &Opened, tenant: &str) -> Erasure {
    let log = store.erasures.erasures().await.unwrap();
    log.into_iter().find(|erasure| erasure.tenant.as_str() == tenant).unwrap()
}

async fn cancel(store: &Opened, id: JobId) {
    store.journal.cancel(id, Some("erased".into()), None, NOW).await.unwrap();
}

/// What each tenant has spent, by the report.
async fn spend(store: &Opened) -> BTreeMap<String, i64> {
    let day = NOW.start_of_day();
    let rows = store.ledger.costs(&CostQuery::new(&[CostColumn::Tenant], day, day.plus_ms(DAY_MS))).await.unwrap();
    rows.into_iter().map(|row| (row.group[0].clone(), row.spend.0)).collect()
}

/// Whatever a table is called: none has a row of the tenant, nor a word of it, and its neighbour has lost nothing. Sums of money
/// go on under a name that nobody can guess.
pub async fn an_erased_tenant_leaves_nothing(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let live = furnish(&store, GONE).await;
    let neighbour = furnish(&store, STAYS).await;
    let (before, mine) = (with(fixture, STAYS).await, with(fixture, GONE).await);
    let tables = fixture.tables_with(GONE).await;
    let named: Vec<_> =
        tables.iter().filter(|(table, says, _)| *says && table != LOG).map(|(table, ..)| table).collect();
    assert!(named.len() >= 12, "{named:?}");
    let holdings: BTreeMap<_, _> = store.erasures.holdings(&GONE.into()).await.unwrap().into_iter().collect();
    for table in &named {
        assert!(holdings.contains_key(*table) || *table == "audit_log", "{table} is not counted: erase it, too");
    }
    assert!(holdings.values().flatten().sum::<u64>() > 10, "{holdings:?}");
    let money = spend(&store).await;
    assert_eq!((money[GONE], money[STAYS]), (1_083, 1_083));

    let erasure = erase(&store, GONE).await;
    let later = NOW.plus_ms(HEARD_MS);
    walk_once(&store, later).await;
    let running = one(&store, GONE).await;
    assert!(running.finished_at.is_none() && running.is_due(later), "a job lives: {running:?}");
    assert!(mine.len() > 12, "{mine:?}");
    cancel(&store, live.id).await;
    walk(&store, later).await;
    let done = one(&store, GONE).await;
    assert_eq!((done.finished_at, done.checked_at), (Some(later), Some(later)));
    assert!(done.erased > 10 && done.pseudonym == erasure.pseudonym);

    let mut left = with(fixture, GONE).await;
    assert_eq!(left.remove(LOG), Some(1));
    assert!(left.is_empty(), "{left:?} have something of the tenant that is erased");
    assert_eq!(with(fixture, STAYS).await, before, "the neighbour has lost something");
    let money = spend(&store).await;
    assert_eq!((money.get(&done.pseudonym), money.get(STAYS), money.len()), (Some(&1_083), Some(&1_083), 2));
    let archives = store.archives.archives(None, 10).await.unwrap();
    let sums: Vec<_> = archives.iter().map(|archive| (archive.objects, archive.letters)).collect();
    assert_eq!(sums, [(1, 1), (0, 0)], "newest first, and the neighbour's is as it was");
    while store.ledger.fold_costs().await.unwrap() > 0 {}
    assert_eq!(spend(&store).await, money);
    let totals = store.reads.totals().await.unwrap();
    assert_eq!(totals[&Name::from("default")].dead, 1, "the neighbour's");
    settle(&store, token(neighbour.id, 0), success()).await;
    assert_eq!(
        store.erasures.holdings(&GONE.into()).await.unwrap().iter().filter_map(|(_, rows)| *rows).sum::<u64>(),
        0
    );
}

/// One walk, whatever it finds.
async fn walk_once(store: &Opened, now: Timestamp) {
    let mut sweep = store.erasures.sweep().await.unwrap();
    loop {
        sweep = store.erasures.sweep_on(sweep.beat, now).await.unwrap().unwrap();
        if sweep.began_at.is_none() {
            return;
        }
    }
}

/// The place is in the journal: whoever opens it goes on, and of two who are at the same beat one makes the step.
pub async fn a_walk_goes_on_where_it_stood(fixture: &dyn Fixture) {
    let live = furnish(&fixture.open().await, GONE).await;
    let first = fixture.open().await;
    cancel(&first, live.id).await;
    for number in 10..60 {
        let more = job_of(GONE, number);
        accept_new(&first, &more).await;
        settle(&first, token(more.id, 0), success()).await;
    }
    erase(&first, GONE).await;
    assert_eq!(walk(&first, NOW).await, 0, "first every process hears of it");
    let later = NOW.plus_ms(HEARD_MS);
    let mut beats = Vec::new();
    loop {
        let store = fixture.open().await;
        let sweep = store.erasures.sweep().await.unwrap();
        let log = store.erasures.erasures().await.unwrap();
        if sweep.began_at.is_none() && !log.iter().any(|erasure| erasure.is_due(later)) {
            break;
        }
        beats.push(sweep.beat);
        let next = store.erasures.sweep_on(sweep.beat, later).await.unwrap().unwrap();
        assert_eq!(next.beat, sweep.beat + 1);
        assert!(first.erasures.sweep_on(sweep.beat, later).await.unwrap().is_none(), "the step was made");
        assert!(beats.len() < 500);
    }
    assert!(beats.len() >= 2, "one walk that finds much, and one that finds nothing");
    let mut left = with(fixture, GONE).await;
    left.remove(LOG);
    assert!(left.is_empty(), "{left:?}");
    assert!(one(&first, GONE).await.finished_at.is_some());
}

/// After a restore, and where a worker that was cut off pays late.
pub async fn rows_that_come_back_are_taken_away(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let erasure = erase(&store, GONE).await;
    let mut now = NOW.plus_ms(HEARD_MS);
    walk(&store, now).await;
    assert_eq!(one(&store, GONE).await.finished_at, Some(now));
    // Somebody pays late, and the next look finds it.
    store.journal.record(call(&job_of(GONE, 1), "late", Some(7))).await.unwrap();
    assert_eq!(walk(&store, now).await, 0);
    now = now.plus_ms(LOOK_AGAIN_MS[0]);
    assert!(walk(&store, now).await > 0);
    let mut left = with(fixture, GONE).await;
    left.remove(LOG);
    assert!(left.is_empty(), "{left:?}");
    // Four looks find nothing: then nobody looks any more.
    for wait in LOOK_AGAIN_MS {
        now = now.plus_ms(wait);
        assert!(walk(&store, now).await > 0);
    }
    assert_eq!(one(&store, GONE).await.due_at, None);
    // A restore brings everything back, and whoever asks has it erased again.
    let live = furnish(&store, GONE).await;
    cancel(&store, live.id).await;
    assert_eq!(store.erasures.replay(now.plus_ms(-1), now).await.unwrap(), 0, "it was looked at a moment ago");
    assert_eq!(store.erasures.replay(now.plus_ms(1), now).await.unwrap(), 1);
    assert!(walk(&store, now).await > 0);
    let mut left = with(fixture, GONE).await;
    left.remove(LOG);
    assert!(left.is_empty(), "{left:?}");
    // Asked for again, after another restore.
    let live = furnish(&store, GONE).await;
    cancel(&store, live.id).await;
    let again = Erasure::order(GONE.into(), "another".into(), now);
    assert_eq!(store.erasures.erase(again, now).await.unwrap().pseudonym, erasure.pseudonym, "it keeps its own");
    now = now.plus_ms(HEARD_MS);
    walk(&store, now).await;
    let mut left = with(fixture, GONE).await;
    left.remove(LOG);
    assert!(left.is_empty(), "{left:?}");
}

/// With the order itself: no walk has begun.
pub async fn what_opens_secrets_goes_first(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for tenant in [GONE, STAYS] {
        let live = furnish(&store, tenant).await;
        cancel(&store, live.id).await;
    }
    let seen = store.vault.credentials_since(0, 10).await.unwrap().iter().map(|one| one.revision).max().unwrap();
    erase(&store, GONE).await;
    let heard = store.vault.credentials_since(seen, 10).await.unwrap();
    let told: Vec<_> = heard.iter().map(|one| (one.tenant.as_str(), one.state, one.sealed.is_some())).collect();
    assert_eq!(told, [(GONE, CredentialState::Deleted, false)], "whoever has seen all before hears of it");
    let secrets = async |owner: &str| store.webhooks.secrets(&Owner::Tenant(owner.into()), NOW).await.unwrap().len();
    assert_eq!((secrets(GONE).await, secrets(STAYS).await), (0, 1));
    let endpoints = store.webhooks.endpoints().await.unwrap();
    assert_eq!(endpoints.iter().map(|one| one.tenant.as_ref().unwrap().as_str()).collect::<Vec<_>>(), [STAYS]);
    let revoked = async |tenant: &str| store.identity.key(&format!("{tenant}-key")).await.unwrap().unwrap().revoked_at;
    assert_eq!((revoked(GONE).await, revoked(STAYS).await), (Some(NOW), None));
    // New numbers go on above those that were given.
    walk(&store, NOW.plus_ms(HEARD_MS)).await;
    let all = store.vault.credentials_since(0, 10).await.unwrap();
    assert!(all.iter().all(|one| one.tenant.as_str() != GONE));
    let new = NewCredential {
        tenant: "later".into(),
        provider: "openai".into(),
        version: 1,
        sealed: sealed(),
        hint: "WXYZ".into(),
        at: NOW,
    };
    assert!(store.vault.put_credential(new).await.unwrap());
    let highest = heard[0].revision;
    assert_eq!(store.vault.credentials_since(highest, 10).await.unwrap().len(), 1, "who has seen the erasure sees it");
    assert!(!store.webhooks.deliveries(Listing::All, i64::MAX, 100).await.unwrap().is_empty(), "the neighbour's");
}
