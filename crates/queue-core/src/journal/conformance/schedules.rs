//! Cases of schedules: what is kept, who may change it, and that a cursor is moved once.

use super::{Fixture, NOW, Opened};
use crate::{
    ids::{JobId, Name, ScheduleId},
    schedule::{Added, Backfill, ChangedSchedule, Missed, Overlap, Progress, Schedule, Settings, Trouble, When},
    time::{DAY_MS, Timestamp},
};

/// A schedule that is due every minute, from a minute after [`NOW`].
pub fn schedule(tenant: &str, name: &str) -> Schedule {
    Schedule {
        id: ScheduleId::generate(),
        tenant: tenant.into(),
        name: name.into(),
        key_id: Name::new(format!("{tenant}-key")),
        template: format!(r#"{{"kind":"probe","payload":{{"pad":"{tenant} \u0000"}}}}"#),
        settings: Settings {
            when: When::Every { every_ms: 60_000, from: NOW },
            overlap: Overlap::Queue,
            missed: Missed::default(),
            paused: false,
            reason: None,
            description: Some(format!("of {tenant}\0")),
        },
        progress: Progress::from(NOW),
        version: 1,
        generation: 1,
        beat: 0,
        due_at: Some(NOW.plus_ms(60_000)),
        created_at: NOW,
    }
}

async fn added(store: &Opened, tenant: &str, name: &str) -> Schedule {
    let new = schedule(tenant, name);
    assert_eq!(store.schedules.add_schedule(new.clone()).await.unwrap(), Added::New);
    new
}

async fn found(store: &Opened, id: ScheduleId) -> Schedule {
    store.schedules.schedule(id).await.unwrap().unwrap()
}

/// Whatever is set and however far it is, it is read back so, also after a restart; dropped, it is gone.
pub async fn a_schedule_is_kept_as_it_was_made(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let mut new = schedule("acme", "nightly");
    new.settings.when = When::Cron { cron: "0 30 2 * * *".into(), time_zone: "Europe/Berlin".into() };
    new.progress.last_job = Some(JobId::generate());
    new.progress.counts.missed = u64::MAX >> 1;
    let error = Trouble { at: NOW, tick: NOW, code: "too-dear".into(), detail: "no \0 money".into(), retries: true };
    new.progress.error = Some(error);
    new.progress.backfill = Some(Backfill {
        number: 3,
        from: NOW,
        to: NOW.plus_ms(5),
        cursor: NOW,
        ticks: 2,
        submitted: 1,
        refused: 0,
        asked_by: "abcd1234".into(),
        began_at: NOW,
        finished_at: None,
    });
    assert_eq!(store.schedules.add_schedule(new.clone()).await.unwrap(), Added::New);
    assert_eq!(store.schedules.add_schedule(new.clone()).await.unwrap(), Added::New, "asked again, it is still it");
    let again = fixture.open().await;
    assert_eq!(found(&again, new.id).await, new);
    let now = again.schedules.store_time().await.unwrap();
    assert!(again.schedules.store_time().await.unwrap() >= now);
    assert!(again.schedules.drop_schedule(new.id).await.unwrap());
    assert!(!again.schedules.drop_schedule(new.id).await.unwrap());
    assert_eq!(again.schedules.schedule(new.id).await.unwrap(), None);
}

/// Names are a tenant's own.
pub async fn a_name_is_one_schedules(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let first = added(&store, "acme", "nightly").await;
    let other = added(&store, "globex", "nightly").await;
    let taken = store.schedules.add_schedule(schedule("acme", "nightly")).await.unwrap();
    assert_eq!(taken, Added::NameTaken);
    let mut second = added(&store, "acme", "weekly").await;
    second.name = "nightly".into();
    assert_eq!(store.schedules.change_schedule(second.clone()).await.unwrap(), ChangedSchedule::NameTaken);
    assert_eq!(found(&store, second.id).await.name.as_str(), "weekly");
    assert_eq!([found(&store, first.id).await, found(&store, other.id).await], [first, other]);
}

/// Of two who saw one beat, one changes it; each change counts version and beat up.
pub async fn a_change_is_refused_to_who_saw_another_beat(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let seen = added(&store, "acme", "nightly").await;
    let mut change = seen.clone();
    change.settings.paused = true;
    change.settings.reason = Some("holidays".into());
    (change.due_at, change.generation) = (None, 2);
    assert_eq!(store.schedules.change_schedule(change.clone()).await.unwrap(), ChangedSchedule::Done);
    let now = found(&store, seen.id).await;
    assert_eq!(now, Schedule { version: 2, beat: 1, ..change.clone() });
    assert_eq!(store.schedules.change_schedule(change.clone()).await.unwrap(), ChangedSchedule::Stale);
    let later = Progress::from(NOW.plus_ms(60_000));
    assert!(!store.schedules.advance_schedule(seen.id, 0, later, None).await.unwrap(), "a scheduler saw the old one");
    assert_eq!(found(&store, seen.id).await, now);
    (change.id, change.name) = (ScheduleId::generate(), "gone".into());
    assert_eq!(store.schedules.change_schedule(change).await.unwrap(), ChangedSchedule::Stale, "there is none");
}

async fn claim(store: &Opened, now: Timestamp, limit: usize) -> Vec<ScheduleId> {
    let due = store.schedules.claim_schedules(now, now.plus_ms(5_000), limit).await.unwrap();
    due.into_iter().map(|one| one.id).collect()
}

/// What is due is taken by one, and by another if nothing is heard of that one; what is not due is left alone.
pub async fn a_due_schedule_is_claimed_by_one(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let [early, late] = [added(&store, "acme", "early").await, added(&store, "acme", "late").await];
    let paused = added(&store, "acme", "paused").await;
    let change = Schedule { due_at: None, ..paused.clone() };
    assert_eq!(store.schedules.change_schedule(change).await.unwrap(), ChangedSchedule::Done);
    let change = Schedule { due_at: Some(NOW.plus_ms(70_000)), ..late.clone() };
    assert_eq!(store.schedules.change_schedule(change).await.unwrap(), ChangedSchedule::Done);
    assert_eq!(claim(&store, NOW.plus_ms(59_999), 10).await, []);
    let due = NOW.plus_ms(70_000);
    assert_eq!(claim(&store, due, 1).await, [early.id], "the one that has been due for longest");
    assert_eq!(claim(&store, due, 10).await, [late.id]);
    assert_eq!(claim(&store, due.plus_ms(4_999), 10).await, []);
    let mut again = claim(&store, due.plus_ms(5_000), 10).await;
    again.sort_unstable();
    assert_eq!(again, [early.id, late.id], "whoever took them is not heard of");
    let held = found(&store, early.id).await;
    assert_eq!((held.beat, held.progress), (0, early.progress), "a claim changes nothing else");
}

/// The cursor is moved by one of those who saw a beat, and goes with the due time.
pub async fn a_cursor_is_moved_once(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let one = added(&store, "acme", "nightly").await;
    let mut progress = Progress::from(NOW.plus_ms(60_000));
    progress.last_job = Some(JobId::generate());
    progress.counts.submitted = 1;
    let next = Some(NOW.plus_ms(120_000));
    let both = [
        store.schedules.advance_schedule(one.id, 0, progress.clone(), next),
        store.schedules.advance_schedule(one.id, 0, progress.clone(), next),
    ];
    let moved = futures::future::join_all(both).await.into_iter().filter(|done| matches!(done, Ok(true))).count();
    assert_eq!(moved, 1);
    let now = found(&store, one.id).await;
    assert_eq!((now.beat, now.version, &now.progress, now.due_at), (1, 1, &progress, next));
    assert!(store.schedules.advance_schedule(one.id, 1, progress.clone(), None).await.unwrap());
    assert_eq!(claim(&store, NOW.plus_ms(DAY_MS), 10).await, [], "it is over");
    assert!(store.schedules.drop_schedule(one.id).await.unwrap());
    assert!(!store.schedules.advance_schedule(one.id, 2, progress, None).await.unwrap());
}

/// Pages go from the newest back, within what was asked for.
pub async fn a_page_of_schedules_is_of_its_tenant(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let mut mine = Vec::new();
    for name in ["a", "b", "c"] {
        mine.push(added(&store, "acme", name).await.id);
        added(&store, "globex", name).await;
    }
    mine.reverse();
    let (acme, b) = (Name::from("acme"), Name::from("b"));
    let page = async |tenant: Option<&Name>, name: Option<&Name>, behind, limit| {
        let page = store.schedules.schedules(tenant, name, behind, limit).await.unwrap();
        assert!(page.iter().all(|one| one.template.is_empty()), "templates are large");
        page.into_iter().map(|one| one.id).collect::<Vec<_>>()
    };
    assert_eq!(page(Some(&acme), None, None, 10).await, mine);
    assert_eq!(page(Some(&acme), None, None, 2).await, mine[..2]);
    assert_eq!(page(Some(&acme), None, Some(mine[1]), 2).await, mine[2..]);
    assert_eq!(page(Some(&acme), Some(&b), None, 10).await, [mine[1]]);
    assert_eq!(page(None, None, None, 10).await.len(), 6);
}
