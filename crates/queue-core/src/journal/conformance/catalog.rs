//! Cases of the catalog, and of what a restart must find again.

use super::{Fixture, NOW, accept_new, accepted, call, death, job, retry, row, settle, success, token};
use crate::{
    credentials::CredentialPolicy,
    error::ErrorClass,
    fallback::Link,
    ids::{Epoch, JobId, Name, SessionId},
    job::{Idempotency, NewJob},
    journal::{
        Accepted, Backlog, BreakerMode, Filling, QueueSettings, Role, TargetSettings, TenantSettings, WorkerSession,
    },
    keys::Secret,
    ledger::Nanousd,
    limiter::{Charges, RATE_MAX, SetLimit},
    request_limits::Rates,
    state::Standing,
};

/// A job or an operator names a queue; settings have versions that grow.
pub async fn queues_exist_once_named(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    assert!(store.catalog.queues().await.unwrap().is_empty());
    accepted(&store).await;
    let queues = store.catalog.queues().await.unwrap();
    assert_eq!(queues["default"].value, QueueSettings::default());
    let settings = QueueSettings {
        paused: true,
        paused_until: Some(NOW.plus_ms(5)),
        reason: Some("maintenance".into()),
        concurrency: Some(3),
        timeout_ms: Some(9_000),
        key_concurrency: Some(2),
        draining: true,
        retention_ms: Some(86_400_000),
    };
    let first = store.catalog.set_queue(&"default".into(), settings.clone()).await.unwrap();
    assert!(first > queues["default"].version);
    let second = store.catalog.set_queue(&"default".into(), settings.clone()).await.unwrap();
    assert!(second > first);
    accepted(&store).await;
    let kept = &store.catalog.queues().await.unwrap()["default"];
    assert_eq!((&kept.value, kept.version), (&settings, second), "another job leaves the settings alone");
    store.catalog.set_queue(&"early".into(), QueueSettings::default()).await.unwrap();
    let names: Vec<_> = store.catalog.queues().await.unwrap().into_keys().collect();
    assert_eq!(names, ["default".into(), "early".into()]);
}

/// Sessions are there from their opening to their close, both idempotent.
pub async fn sessions_come_and_go(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let session = |started: i64| WorkerSession {
        id: SessionId::generate(),
        host: "host/1".into(),
        version: "0.1.0".into(),
        slots: 64,
        started_at: NOW.plus_ms(started),
        draining: false,
    };
    let (first, second) = (session(0), session(1));
    for session in [&first, &second, &first] {
        store.catalog.open_session(session.clone()).await.unwrap();
    }
    let sessions = store.catalog.sessions().await.unwrap();
    assert_eq!(sessions.iter().map(|session| session.id).collect::<Vec<_>>(), [first.id, second.id]);
    assert_eq!((sessions[0].host.as_str(), sessions[0].slots), ("host/1", 64));
    for _ in 0..2 {
        store.catalog.close_session(first.id).await.unwrap();
    }
    assert_eq!(store.catalog.sessions().await.unwrap().len(), 1);
}

/// What was answered before the end of a process is there in the next one.
pub async fn everything_survives_a_restart(fixture: &dyn Fixture) {
    let (kept, retried, done);
    let (generation, incarnation);
    {
        let store = fixture.open().await;
        kept = NewJob {
            unique_key: Some("u".into()),
            idempotency: Some(Idempotency { owner: "acme".into(), key: "k".into(), fingerprint: [1; 32], item: 0 }),
            ..job()
        };
        accept_new(&store, &kept).await;
        (retried, done) = (accepted(&store).await, accepted(&store).await);
        settle(&store, token(retried.id, 0), retry()).await;
        settle(&store, token(done.id, 0), success()).await;
        store.journal.record(call(&kept, "chat", Some(42))).await.unwrap();
        store.catalog.set_queue(&"default".into(), QueueSettings { paused: true, ..Default::default() }).await.unwrap();
        generation = store.journal.new_generation().await.unwrap();
        incarnation = store.journal.incarnation();
    }
    let store = fixture.open().await;
    assert_eq!(store.journal.incarnation(), incarnation);
    assert!(store.journal.new_generation().await.unwrap() > generation);
    assert_eq!(row(&store, kept.id).await.cost, Some(Nanousd(42)));
    assert_eq!(store.journal.memos(kept.id).await.unwrap().len(), 1);
    assert_eq!(store.reads.payload(kept.id).await.unwrap(), Some(kept.payload.bytes()));
    assert_eq!(row(&store, retried.id).await.epoch, Epoch(1));
    assert_eq!(row(&store, done.id).await.standing, Standing::Succeeded);
    assert!(store.reads.result(done.id).await.unwrap().is_some());
    assert_eq!(store.reads.live_counts().await.unwrap()["default"], 2);
    assert!(store.catalog.queues().await.unwrap()["default"].value.paused);
    let again = NewJob { id: job().id, ..kept.clone() };
    assert_eq!(store.journal.accept(vec![again]).await.unwrap(), [Accepted::Replayed(kept.id)]);
    let same_key = NewJob { unique_key: Some("u".into()), ..job() };
    assert_eq!(store.journal.accept(vec![same_key]).await.unwrap(), [Accepted::Duplicate(kept.id)]);
}

/// Readiness asks by writing; a store that works says so, as often as it is asked.
pub async fn a_check_commits(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for _ in 0..3 {
        store.journal.check().await.unwrap();
    }
}

/// A new life is empty; of two who fill it, one notes how far it is, and none notes anything of an earlier life.
pub async fn a_life_is_filled_by_one(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    assert!(store.catalog.filling().await.unwrap().done, "there is no life to be filled");
    let generation = store.journal.new_generation().await.unwrap();
    let empty = Filling { generation, began_at: NOW, beat: 0, after: None, done: false };
    assert_eq!(store.catalog.filling().await.unwrap(), empty);

    let after = Some((NOW.plus_ms(-7), JobId::generate()));
    let far = Filling { after, ..empty };
    assert!(store.catalog.note_filling(far).await.unwrap());
    assert_eq!(store.catalog.filling().await.unwrap(), Filling { beat: 1, ..far });
    for (at, late) in [(0, empty), (2, far)] {
        assert!(!store.catalog.note_filling(Filling { beat: at, ..late }).await.unwrap(), "somebody else fills it");
    }
    let done = Filling { beat: 1, done: true, ..far };
    assert!(store.catalog.note_filling(done).await.unwrap());
    assert_eq!(store.catalog.filling().await.unwrap(), Filling { beat: 2, ..done });

    let next = store.journal.new_generation().await.unwrap();
    assert_eq!(store.catalog.filling().await.unwrap(), Filling { generation: next, ..empty });
    assert!(!store.catalog.note_filling(empty).await.unwrap(), "that life is over");
}

/// Settings of tenants have versions that grow; their live jobs are counted over every end and back.
pub async fn tenants_have_settings_and_a_backlog(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let acme = "acme".into();
    assert!(store.catalog.tenants().await.unwrap().is_empty());
    assert_eq!(store.catalog.backlog(&acme).await.unwrap(), Backlog { max: None, live: 0 });
    let settings = TenantSettings {
        backlog_max: Some(7),
        weight: 3,
        paused: true,
        paused_until: Some(NOW.plus_ms(7)),
        reason: Some("a\u{0}b".into()),
        credential_policy: CredentialPolicy::OwnOnly,
        rates: Rates { requests_per_minute: Some(1_000), llm_submits_per_minute: Some(3) },
        ..TenantSettings::default()
    };
    let first = store.catalog.set_tenant(&acme, settings.clone()).await.unwrap();
    assert!(store.catalog.set_tenant(&acme, settings.clone()).await.unwrap() > first);
    let known = store.catalog.tenants().await.unwrap();
    assert_eq!((known.len(), &known["acme"].value), (1, &settings));

    let jobs: Vec<_> = (0..6).map(|_| job()).collect();
    store.journal.accept(jobs.clone()).await.unwrap();
    accept_new(&store, &NewJob { tenant: "globex".into(), ..job() }).await;
    let live = async || store.catalog.backlog(&acme).await.unwrap();
    assert_eq!(live().await, Backlog { max: Some(7), live: 6 });
    settle(&store, token(jobs[0].id, 0), success()).await;
    settle(&store, token(jobs[1].id, 0), death()).await;
    settle(&store, token(jobs[2].id, 0), retry()).await;
    store.journal.cancel(jobs[3].id, None, None, NOW).await.unwrap();
    assert_eq!(live().await.live, 3, "a retry lives on");
    store.journal.redrive(jobs[1].id, NOW).await.unwrap();
    assert_eq!(live().await.live, 4);
    store.journal.accept(jobs).await.unwrap();
    assert_eq!(live().await.live, 4, "a repeat adds nothing");
    assert_eq!(store.catalog.backlog(&"globex".into()).await.unwrap(), Backlog { max: None, live: 1 });
    store.catalog.set_tenant(&acme, TenantSettings::default()).await.unwrap();
    assert_eq!(live().await, Backlog { max: None, live: 4 });

    let key = Secret::generate().to_row("keyed".into(), Role::User, "k", NOW);
    store.identity.add_key(key).await.unwrap();
    store.catalog.set_tenant(&"set".into(), TenantSettings::default()).await.unwrap();
    let known = async |behind: Option<&str>, limit| {
        let found = store.catalog.known_tenants(behind.map(Name::from).as_ref(), limit).await.unwrap();
        found.into_iter().map(|(name, live)| (name.to_string(), live)).collect::<Vec<_>>()
    };
    let all = [("acme", 4), ("globex", 1), ("keyed", 0), ("set", 0)].map(|(name, live)| (name.to_owned(), live));
    assert_eq!(known(None, 9).await, all, "set, with jobs, with a key");
    assert_eq!(known(Some("acme"), 2).await, all[1..3]);
    assert!(known(Some("set"), 2).await.is_empty());
}

/// Settings of targets have versions that grow, and are there after a restart.
pub async fn targets_have_settings(fixture: &dyn Fixture) {
    let target = "openai:org/model:tag:default".into();
    let settings = TargetSettings {
        paused: true,
        paused_until: Some(NOW.plus_ms(9)),
        reason: Some("their maintenance".into()),
        breaker: BreakerMode::Close,
        limit: SetLimit {
            requests_per_minute: Some(600),
            tokens_per_minute: Some(RATE_MAX),
            tokens_charged: Some(Charges::Usage),
            concurrency: Some(7),
        },
    };
    let first;
    {
        let store = fixture.open().await;
        assert!(store.catalog.targets().await.unwrap().is_empty());
        first = store.catalog.set_target(&target, TargetSettings::default()).await.unwrap();
        assert!(store.catalog.set_target(&target, settings.clone()).await.unwrap() > first);
    }
    let store = fixture.open().await;
    let known = store.catalog.targets().await.unwrap();
    assert_eq!((known.len(), &known[&target].value), (1, &settings));
    assert!(known[&target].version > first);
    let limit = SetLimit { concurrency: Some(1), ..SetLimit::default() };
    let pattern = TargetSettings { limit, ..TargetSettings::default() };
    let whom: Name = "openai:org/*:*".into();
    store.catalog.set_target(&whom, pattern.clone()).await.unwrap();
    store.catalog.set_target(&target, TargetSettings::default()).await.unwrap();
    let known = store.catalog.targets().await.unwrap();
    assert_eq!(known[&target].value, TargetSettings::default(), "what was set can be taken away");
    assert_eq!(known[&whom].value, pattern);
}

/// A fallback chain goes with its job to whoever loads it and whoever asks.
pub async fn a_job_keeps_its_fallback_chain(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let links = vec![
        Link { model: "b \u{0} \"quoted\"".into(), on: vec![ErrorClass::Rate, ErrorClass::Overflow] },
        Link { model: "c".into(), on: vec![ErrorClass::Server] },
    ];
    let chained = NewJob { fallback: links.clone(), ..job() };
    let keyed = NewJob {
        fallback: links.clone(),
        idempotency: Some(Idempotency { owner: "acme".into(), key: "k".into(), fingerprint: [1; 32], item: 0 }),
        ..job()
    };
    let plain = job();
    store.journal.accept(vec![chained.clone(), plain.clone()]).await.unwrap();
    store.journal.accept(vec![keyed.clone()]).await.unwrap();
    for (job, expected) in [(&chained, &links), (&keyed, &links), (&plain, &vec![])] {
        assert_eq!(store.reads.fallback(job.id).await.unwrap(), *expected);
        let loaded = store.journal.load(&[token(job.id, 0)], NOW.plus_ms(60_000)).await.unwrap().remove(0).unwrap();
        assert_eq!((loaded.fallback, loaded.payload), (expected.clone(), job.payload.clone()));
    }
    assert!(store.reads.fallback(JobId::generate()).await.unwrap().is_empty());
}
