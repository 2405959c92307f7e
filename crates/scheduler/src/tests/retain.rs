//! What is old goes, as the plan says, whoever dies or is at it twice; what may be needed stays.

use std::{collections::BTreeMap, sync::Arc};

use queue_core::{
    audit::{AuditEntry, AuditPlace, Chain, FORGOTTEN},
    ids::{Epoch, JobId, Name},
    job::Idempotency,
    journal::{
        CostColumn, CostQuery, CostRow,
        postgres::{PostgresConfig, PostgresJournal, connect, migrate},
    },
    operations::OperationState,
    retention::{Action, Class, Count, Policy, plan},
    state::Standing,
    stores::{Beside, Stores},
    time::{Clock, DAY_MS},
};
use testkit::PostgresServer;
use tokio_util::sync::CancellationToken;

use super::{NOW, Scene, operations::paid};
use crate::{
    operations::{Watch, walk::Walk},
    retain::{Gone, Retainer},
};

/// Long after every id of a test was made.
const LATER_MS: i64 = 1_000 * DAY_MS;

fn retainer(scene: &Scene) -> Retainer {
    Retainer::new(scene.stores.clone(), Policy::default(), CancellationToken::new())
}

/// Rows that the plan names, by class.
async fn planned(stores: &Stores) -> BTreeMap<Class, u64> {
    let plan = plan(stores, &Policy::default()).await.unwrap();
    let rows = |count: Option<Count>| count.map_or(0, |count| count.rows);
    plan.lines.iter().map(|line| (line.class, rows(line.rows))).filter(|(_, rows)| *rows > 0).collect()
}

async fn reports(scene: &Scene) -> Vec<Vec<CostRow>> {
    let mut all = Vec::new();
    for by in [CostColumn::Tenant, CostColumn::Model, CostColumn::Day] {
        let query = CostQuery::new(&[by], NOW.start_of_day(), NOW.start_of_day().plus_ms(DAY_MS));
        all.push(scene.stores.ledger.costs(&query).await.unwrap());
    }
    all
}

/// A success that was paid for, a dead letter, a live job.
async fn some(scene: &Scene, count: usize) -> Vec<JobId> {
    let done = scene.accept(count, |job| {
        job.idempotency =
            Some(Idempotency { owner: "default".into(), key: job.id.to_string(), fingerprint: [1; 32], item: 0 });
    });
    let done = done.await;
    futures::future::join_all(done.iter().map(|id| scene.settle(*id, Epoch(0)))).await;
    done
}

#[tokio::test]
async fn a_run_does_what_the_plan_says_and_a_second_one_nothing() {
    let scene = Scene::new().await;
    let done = some(&scene, 20).await;
    let paid_job = scene.accept(1, |_| {}).await[0];
    scene.stores.journal.record(paid(paid_job, 700)).await.unwrap();
    scene.settle(paid_job, Epoch(0)).await;
    let dead = scene.dead(3, "old").await;
    let live = scene.accept(1, |_| {}).await[0];
    let before = reports(&scene).await;
    assert_eq!(retainer(&scene).once(false).await, BTreeMap::new(), "all is young");

    scene.clock.advance_ms(LATER_MS);
    let planned = planned(&scene.stores).await;
    let gone = retainer(&scene).once(false).await;
    let went: BTreeMap<Class, u64> = gone
        .iter()
        .map(|(class, gone)| (*class, if *class == Class::DeadLetters { dead.len() as u64 } else { gone.rows }))
        .filter(|(_, rows)| *rows > 0)
        .collect();
    // Payloads and attempts of a job that goes are not counted apart.
    let with_jobs = |rows: &BTreeMap<Class, u64>| -> BTreeMap<Class, u64> {
        rows.iter()
            .filter(|(class, _)| ![Class::Payloads, Class::Errors].contains(class))
            .map(|(k, v)| (*k, *v))
            .collect()
    };
    assert_eq!(with_jobs(&went), with_jobs(&planned));
    assert_eq!((went[&Class::Jobs], went[&Class::IdempotencyKeys]), (21, 20));
    assert_eq!(went[&Class::CostDetails], 2, "a call and a charge");
    assert_eq!(gone[&Class::DeadLetters], Gone { operations: 1, ..Gone::default() });

    // Dead letters go by the operation that archives them.
    let taken = Watch::default().take(&scene.stores, 9).await.unwrap();
    for (operation, owner) in taken {
        Walk::new(scene.stores.clone(), operation, owner, CancellationToken::new()).run().await;
    }
    let ended = scene.stores.operations.operations(None, false, 9).await.unwrap();
    assert_eq!(
        (ended[0].state, ended[0].counts.done, ended[0].order.asked_by.as_str()),
        (OperationState::Done, 3, "retention")
    );
    let ids = [done, dead, vec![paid_job, live]].concat();
    let there = scene.stores.reads.jobs(&ids).await.unwrap().into_iter().flatten().map(|job| job.id);
    assert_eq!(there.collect::<Vec<_>>(), [live], "a live job stays, however old");
    assert!(scene.stores.reads.payload(live).await.unwrap().is_some());
    assert_eq!(reports(&scene).await, before, "money is what it was, without a single call");

    assert_eq!(retainer(&scene).once(false).await, BTreeMap::new());
    let rows = scene.stores.audit.audit_rows(AuditPlace { behind: (0, 0), ascending: true }, 10).await.unwrap();
    assert_eq!(
        rows.iter().map(|row| &*row.entry.action).collect::<Vec<_>>(),
        ["RETAIN"],
        "one for a run that took something"
    );
    assert!(rows[0].entry.detail.contains("\"jobs\""), "{}", rows[0].entry.detail);
    let notes = scene.stores.retention.notes().await.unwrap();
    assert_eq!(notes[&Class::Jobs].removed, 21);
}

#[tokio::test]
async fn two_at_once_and_one_that_stops_half_way_lose_and_spare_nothing() {
    let scene = Scene::new().await;
    let done = some(&scene, 2_300).await;
    let live = scene.accept(2, |_| {}).await;
    scene.clock.advance_ms(LATER_MS);
    // It ends after its first step, as one that dies does.
    let stopped = CancellationToken::new();
    stopped.cancel();
    let mut first = Retainer::new(scene.stores.clone(), Policy::default(), stopped);
    assert_eq!(first.once(false).await[&Class::Jobs].rows, 1_000);
    let (mut second, mut third) = (retainer(&scene), retainer(&scene));
    let (second, third) = tokio::join!(second.once(false), third.once(false));
    let rows = |gone: &BTreeMap<Class, Gone>| gone.get(&Class::Jobs).map_or(0, |gone| gone.rows);
    assert_eq!(rows(&second) + rows(&third), 1_300, "each job goes once");
    let there = scene.stores.reads.jobs(&done).await.unwrap();
    assert!(there.iter().all(Option::is_none));
    assert!(scene.stores.reads.jobs(&live).await.unwrap().iter().all(Option::is_some));
}

#[tokio::test]
async fn queues_keep_theirs_shorter_or_longer_and_a_hold_holds_all() {
    let scene = Scene::new().await;
    for (queue, hours) in [("short", 1_u64), ("long", 24 * 2_000)] {
        let mut settings = scene
            .stores
            .catalog
            .queues()
            .await
            .unwrap()
            .remove(&Name::from(queue))
            .map(|one| one.value)
            .unwrap_or_default();
        settings.retention_ms = Some(hours * 3_600_000);
        scene.stores.catalog.set_queue(&queue.into(), settings).await.unwrap();
    }
    let mut ids = BTreeMap::new();
    for queue in ["short", "long", "usual"] {
        let id = scene.accept(1, |job| job.queue = queue.into()).await[0];
        scene.settle(id, Epoch(0)).await;
        ids.insert(queue, id);
    }
    let there = async || {
        let mut there = Vec::new();
        for (queue, id) in &ids {
            if scene.stores.reads.jobs(&[*id]).await.unwrap()[0].is_some() {
                there.push(*queue);
            }
        }
        there
    };
    let held = Policy { hold: Some("a case".into()), ..Policy::default() };
    // Ids have the machine's time, which this clock comes to first.
    scene.clock.advance_ms(queue_core::time::SystemClock.now().since_ms(NOW) + 2 * 3_600_000);
    let mut keeper = Retainer::new(scene.stores.clone(), held.clone(), CancellationToken::new());
    assert!(keeper.once(true).await.is_empty());
    assert_eq!(plan(&scene.stores, &held).await.unwrap().hold.as_deref(), Some("a case"));
    let mut one = Retainer::new(
        scene.stores.clone(),
        Policy { jobs_ms: Some(400 * DAY_MS), payloads_ms: None, ..Policy::default() },
        CancellationToken::new(),
    );
    assert_eq!(there().await, ["long", "short", "usual"]);
    one.once(false).await;
    assert_eq!(there().await, ["long", "usual"]);
    scene.clock.advance_ms(401 * DAY_MS);
    one.once(true).await;
    assert_eq!(there().await, ["long"]);
    scene.clock.advance_ms(2_000 * DAY_MS);
    one.once(true).await;
    assert!(there().await.is_empty());
}

#[tokio::test]
async fn without_a_place_for_objects_letters_and_audit_rows_stay_and_the_plan_says_why() {
    let mut scene = Scene::new().await;
    scene.clock.advance_ms(-3_000 * DAY_MS);
    scene.stores.audit.append_audit(AuditEntry::default()).await.unwrap();
    scene.clock.advance_ms(3_000 * DAY_MS);
    let dead = scene.dead(2, "old").await;
    scene.stores.objects = None;
    scene.clock.advance_ms(LATER_MS);
    assert!(retainer(&scene).once(false).await.iter().all(|(class, _)| *class == Class::CostDetails));
    assert_eq!(scene.row(dead[0]).await.standing, Standing::Dead);
    let plan = plan(&scene.stores, &Policy::default()).await.unwrap();
    for (class, rows) in [(Class::DeadLetters, 2), (Class::Audit, 1)] {
        let line = plan.lines.iter().find(|line| line.class == class).unwrap();
        assert_eq!((line.action, line.held[0].rows), (Action::Keep, rows), "{line:?}");
        assert!(line.held[0].reason.contains("[objects] url"), "{line:?}");
    }
}

/// Where the journal has no clock of its own, a process whose clock is years ahead takes nothing, and says so to who has ordered a run.
#[tokio::test]
async fn a_clock_that_is_far_ahead_of_the_newest_row_takes_nothing() {
    let scene = Scene::new().await;
    let done = some(&scene, 2).await;
    scene.clock.advance_ms(LATER_MS);
    scene.stores.retention.order_turn().await.unwrap();
    retainer(&scene).look().await.unwrap();
    assert!(scene.stores.reads.jobs(&done).await.unwrap().iter().all(Option::is_some));
    let turn = scene.stores.retention.turn().await.unwrap();
    assert_eq!((turn.orders, turn.served), (1, 1));
    assert!(turn.remains.unwrap().contains("the newest job"), "whoever has ordered it hears why");
}

/// The log says itself what was taken out of it, the rest fits, and what was taken out lies in objects that fit, too.
#[tokio::test]
async fn old_audit_rows_are_exported_before_they_go() {
    let scene = Scene::new().await;
    let append = async |count: usize| {
        for n in 0..count {
            let entry = AuditEntry { subject: format!("/v1/queues/{n}"), ..AuditEntry::default() };
            scene.stores.audit.append_audit(entry).await.unwrap();
        }
    };
    scene.clock.advance_ms(-3_000 * DAY_MS);
    append(3).await;
    scene.clock.advance_ms(DAY_MS);
    append(2).await;
    scene.clock.advance_ms(2_999 * DAY_MS);
    append(1).await;
    let (mut one, mut other) = (retainer(&scene), retainer(&scene));
    let (one, other) = tokio::join!(one.once(false), other.once(false));
    let rows = |gone: &BTreeMap<Class, Gone>| gone.get(&Class::Audit).map_or(0, |gone| gone.rows);
    assert_eq!(rows(&one) + rows(&other), 5);
    let floor = scene.stores.audit.audit_floor().await.unwrap().unwrap();
    assert_eq!(floor.rows, 5);
    let left = scene.stores.audit.audit_rows(AuditPlace { behind: (0, 0), ascending: true }, 100).await.unwrap();
    assert!(left.iter().any(|row| row.entry.action == FORGOTTEN));
    let mut chain = Chain::from_the_floor(floor.head);
    left.iter().try_for_each(|row| chain.follow(row)).unwrap();
    let heads = scene.stores.audit.audit_heads().await.unwrap();
    assert_eq!(chain.end(heads.first().copied()), Ok(()));
    let days = std::fs::read_dir(scene.folder.path().join("objects").join("audit")).unwrap();
    let objects = days.flat_map(|day| std::fs::read_dir(day.unwrap().path()).unwrap()).count();
    assert_eq!(objects, 2, "one for each day, however often it was written");
    let file = scene.folder.path().join("objects").join(&floor.path);
    let lines = String::from_utf8(zstd::decode_all(&*std::fs::read(file).unwrap()).unwrap()).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1 + 2 + 1, "behind which row, two rows, and their end");
    assert_eq!(
        (&lines[0]["floor"]["seq"], &lines[2]["seq"], &lines[3]["head"]["seq"]),
        (&3.into(), &2.into(), &2.into())
    );
    assert!(lines[1]["detail_text"].is_string());
}

/// The same role on Postgres: days are dropped, what a day that is held has of settled jobs goes row by row.
#[tokio::test]
async fn in_postgres_days_are_dropped_and_the_rest_goes_row_by_row() {
    let scene = Scene::new().await;
    let server = PostgresServer::shared();
    let config = PostgresConfig::new(server.database());
    let name = config.url.rsplit('/').next().unwrap().to_owned();
    migrate(&mut connect(&config).await.unwrap()).await.unwrap();
    let today = queue_core::time::SystemClock.now();
    scene.clock.advance_ms(today.since_ms(NOW));
    let journal = PostgresJournal::open(&config, Arc::new(scene.clock.clone())).await.unwrap();
    let Stores { dispatcher, breakers, counters, events, objects, .. } = scene.stores.clone();
    let beside = Beside { dispatcher, breakers, counters, events, objects, clock: Arc::new(scene.clock.clone()) };
    let scene = Scene { stores: Stores::over(Arc::new(journal), beside), ..scene };
    let done = some(&scene, 30).await;
    let live = scene.accept(1, |job| job.queue = "held".into()).await[0];
    scene.clock.advance_ms(200 * DAY_MS);
    let planned = plan(&scene.stores, &Policy::default()).await.unwrap();
    let jobs = planned.lines.iter().find(|line| line.class == Class::Jobs).unwrap();
    assert_eq!((jobs.action, jobs.rows.unwrap().rows), (Action::DropPartition, 30), "{jobs:?}");
    assert!(jobs.held[0].reason.contains("1 of its jobs are live"), "{jobs:?}");
    let gone = retainer(&scene).once(false).await;
    let days = jobs.partitions.unwrap();
    let Gone { rows, partitions, bytes, .. } = gone[&Class::Jobs];
    assert_eq!((rows, partitions, bytes), (30, days, jobs.bytes.unwrap()), "as the plan says");
    assert!(days >= 6, "days that were made ahead and never used: {days}");
    assert!(scene.stores.reads.jobs(&done).await.unwrap().iter().all(Option::is_none));
    assert!(scene.stores.reads.payload(live).await.unwrap().is_some());
    scene.stores.journal.cancel(live, None, None, today).await.unwrap();
    // The end of the cancelled one is today's, of a clock that was moved: its day can go now, and does.
    let again = retainer(&scene).once(false).await;
    assert_eq!(again[&Class::Jobs].partitions, 1, "{again:?}");
    let tables = || server.run(&name, "SELECT count(*) FROM pg_class WHERE relname ~ '^settled_jobs_[0-9]{8}$'");
    assert_ne!(tables(), "0");
    while scene.stores.retention.reclaim_day().await.unwrap() {}
    assert_eq!(tables(), "0");
}
