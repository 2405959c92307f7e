//! Cases of budgets: what is set, what was spent, and who waits.

use super::{Fixture, NOW, Opened, accept_new, call, job, row, settle, success, token};
use crate::{
    budget::{AtLimit, Budget, Measure, Period, Scope, Span},
    error::{ErrorClass, JobError},
    ids::Epoch,
    job::NewJob,
    journal::{Alert, Due, Outcome, TenantRules, TenantSettings},
    ledger::{CallRecord, Nanousd},
    time::Timestamp,
};

fn acme() -> Scope {
    Scope::Tenant("acme".into())
}

/// Versions grow with every change, also with one that takes all limits away.
pub async fn a_budget_is_kept_with_its_version(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    assert!(store.budgets.budgets().await.unwrap().is_empty());
    let budget = Budget {
        day_usd: Some(Nanousd(1)),
        month_usd: Some(Nanousd(2_000_000_000)),
        day_tokens: Some(3),
        month_tokens: Some(4),
        at_limit: AtLimit::Degrade,
        degrade_to: Some("small".into()),
    };
    let first = store.budgets.set_budget(&acme(), budget.clone()).await.unwrap();
    assert!(first > 1, "1 is what a configuration gives");
    store.budgets.set_budget(&Scope::Key("abcd1234".into()), Budget::default()).await.unwrap();
    let kept = store.budgets.budgets().await.unwrap();
    assert_eq!((&kept[&acme()].value, kept[&acme()].version), (&budget, first));
    let cleared = store.budgets.set_budget(&acme(), Budget::default()).await.unwrap();
    let kept = fixture.open().await.budgets.budgets().await.unwrap();
    assert_eq!((kept[&acme()].version, kept[&acme()].value.is_empty(), kept.len()), (cleared, true, 2));
    assert!(cleared > first);
}

/// By tenant, by key and over all; this day and this month, money and tokens, folded or not.
pub async fn what_was_spent_is_told_by_scope(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let (own, other) = (job(), NewJob { tenant: "globex".into(), ..job() });
    let (span, key) = (Span::of(NOW), Scope::Key("abcd1234".into()));
    let spent = async |store: &Opened, scope: &Scope| store.budgets.spent(scope, span).await.unwrap();
    assert_eq!(spent(&store, &Scope::All).await, [0; 4]);
    let yesterday = Timestamp(span.day - 1);
    for (job, step, cost, at, key) in [
        (&own, "today", Some(5), NOW, true),
        (&own, "before", Some(70), yesterday, true),
        (&own, "long ago", Some(900), Timestamp(span.month - 1), true),
        (&own, "unpriced", None, NOW, false),
        (&other, "theirs", Some(3_000), NOW, true),
    ] {
        let key_id = key.then(|| "abcd1234".into());
        store.journal.record(CallRecord { at, key_id, ..call(job, step, cost) }).await.unwrap();
    }
    // A call has 100 tokens of prompt and 20 of answer.
    let expected = [
        (acme(), [5, 75, 240, 360]),
        (Scope::All, [3_005, 3_075, 360, 480]),
        (key, [3_005, 3_075, 240, 360]),
        (Scope::Tenant("nobody".into()), [0; 4]),
        (Scope::Key("nobody00".into()), [0; 4]),
    ];
    for _ in 0..2 {
        for (scope, sums) in &expected {
            assert_eq!(spent(&store, scope).await, *sums, "{scope}");
        }
        store.ledger.fold_costs().await.unwrap();
    }
}

/// Jobs that a budget sent away come back at a new epoch, with the place that they had; others stay where they are.
pub async fn sleepers_of_a_budget_are_woken(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let later = NOW.plus_ms(86_400_000);
    let sleep = async |job: &NewJob, class: ErrorClass| {
        accept_new(&store, job).await;
        let error = Some(JobError::new(class, "budget_wait", "no room"));
        settle(&store, token(job.id, 0), Outcome::Release { due: Due::At(later), error, target: None }).await;
    };
    let keyed = NewJob { key_id: Some("abcd1234".into()), ..job() };
    let (own, theirs, slow) = (job(), NewJob { tenant: "globex".into(), ..job() }, job());
    for job in [&keyed, &own, &theirs] {
        sleep(job, ErrorClass::Budget).await;
    }
    sleep(&slow, ErrorClass::Rate).await;
    let wake = async |scope: &Scope, limit| {
        let mut woken = store.budgets.wake(scope, NOW, limit).await.unwrap();
        woken.sort_unstable_by_key(|entry| entry.id);
        woken
    };
    assert!(wake(&Scope::Key("other000".into()), 9).await.is_empty());
    let woken = wake(&Scope::Key("abcd1234".into()), 9).await;
    assert_eq!(woken.iter().map(|entry| (entry.id, entry.epoch)).collect::<Vec<_>>(), [(keyed.id, Epoch(2))]);
    assert_eq!(woken[0].run_at, keyed.accepted_at);
    assert_eq!(wake(&acme(), 9).await.iter().map(|entry| entry.id).collect::<Vec<_>>(), [own.id]);
    assert!(wake(&acme(), 9).await.is_empty(), "who is due is woken");
    assert_eq!(wake(&Scope::All, 1).await.iter().map(|entry| entry.id).collect::<Vec<_>>(), [theirs.id]);
    assert_eq!(row(&store, slow.id).await.run_at, later, "another wait is none of a budget's");
    assert_eq!(row(&store, own.id).await.epoch, Epoch(2));
}

/// Of all who notice a level, one is told that it came first, and the next period begins anew.
pub async fn an_alert_is_noted_once(fixture: &dyn Fixture) {
    let (store, other) = (fixture.open().await, fixture.open().await);
    let alert = Alert {
        scope: acme(),
        measure: Measure::Usd,
        period: Period::Month,
        since: Span::of(NOW).month,
        level: 80,
        spent: 81,
        budget: 100,
        at: NOW,
    };
    assert!(store.budgets.note_alert(&alert).await.unwrap());
    let again = Alert { spent: 90, at: NOW.plus_ms(1), ..alert.clone() };
    assert!(!other.budgets.note_alert(&again).await.unwrap());
    let others = [
        Alert { level: 100, ..alert.clone() },
        Alert { since: alert.since + 1, ..alert.clone() },
        Alert { scope: Scope::All, ..alert.clone() },
        Alert { measure: Measure::Tokens, period: Period::Day, ..alert },
    ];
    for other in &others {
        assert!(store.budgets.note_alert(other).await.unwrap(), "{other:?}");
    }
    let last = Alert { level: 50, at: NOW.plus_ms(9), ..others[0].clone() };
    assert!(store.budgets.note_alert(&last).await.unwrap());
    let told = store.budgets.alerts(9).await.unwrap();
    assert_eq!((told.len(), &told[0]), (6, &last), "the newest first");
    assert!(others.iter().all(|other| told.contains(other)));
    assert_eq!(store.budgets.alerts(1).await.unwrap(), [last]);
}

/// Whose key it was and what it may cost go with a job to its end; what a tenant may ask for is kept.
pub async fn a_job_keeps_its_key_and_its_cap(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let capped = || NewJob { key_id: Some("abcd1234".into()), max_cost: Some(Nanousd(50)), ..job() };
    let (done, cancelled, plain) = (capped(), capped(), job());
    for job in [&done, &cancelled, &plain] {
        accept_new(&store, job).await;
    }
    let loaded = store.journal.load(&[token(done.id, 0)], NOW).await.unwrap().remove(0).unwrap();
    assert_eq!((loaded.job.key_id, loaded.job.max_cost), (done.key_id.clone(), done.max_cost));
    settle(&store, token(done.id, 0), success()).await;
    store.journal.cancel(cancelled.id, None, None, NOW).await.unwrap();
    for job in [&done, &cancelled, &plain] {
        let kept = row(&store, job.id).await;
        assert_eq!((&kept.key_id, kept.max_cost), (&job.key_id, job.max_cost));
    }
    let paid = CallRecord { key_id: done.key_id.clone(), ..call(&done, "chat", Some(1)) };
    store.journal.record(paid).await.unwrap();
    assert_eq!(store.reads.calls(done.id).await.unwrap()[0].key_id, done.key_id);
    let rules = TenantRules {
        max_tokens: Some(500),
        kinds: vec![crate::job::Kind::Llm],
        models: vec!["gpt-*".into()],
        aliases: [("fast".to_owned(), "gpt-4o-mini".to_owned())].into(),
        default_model: Some("fast".into()),
    };
    let settings = TenantSettings { rules, ..TenantSettings::default() };
    store.catalog.set_tenant(&"acme".into(), settings.clone()).await.unwrap();
    assert_eq!(store.catalog.tenants().await.unwrap()["acme"].value, settings);
}
