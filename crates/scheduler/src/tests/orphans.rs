//! Objects that nothing names are deleted, and no other.

use bytes::Bytes;
use queue_core::{
    audit::AuditPlace,
    bodies::{Part, Slip},
    ids::{Epoch, JobId, OperationId},
    journal::{Changed, Edit, Journal},
    operations::{Action, Pick},
    retention::Rows,
    time::{Clock, SystemClock},
};

use super::{Scene, operations::order};
use crate::orphans::collect;

/// What the journal is to keep of a large body of this job.
async fn out(scene: &Scene, id: JobId, part: Part) -> Bytes {
    let body = Bytes::from(vec![b' '; 300_000]);
    let kept = scene.stores.bodies.keep(&"default".into(), id, part, body).await;
    assert!(Slip::of(&kept).is_some());
    kept
}

/// Files have the machine's time: the scene's clock goes to as long after it.
fn after(scene: &Scene, ms: i64) {
    scene.clock.advance_ms(SystemClock.now().0 - scene.clock.now().0 + ms);
}

#[tokio::test]
async fn what_nothing_names_is_deleted_and_nothing_else() {
    let scene = Scene::new().await;
    let objects = scene.stores.objects.clone().unwrap();
    let journal: &dyn Journal = &*scene.stores.journal;
    // A job that is there, with another payload than it had.
    let mut job = scene.job(|_| {});
    job.payload = out(&scene, job.id, Part::Payload).await.into();
    let id = job.id;
    journal.accept(vec![job]).await.unwrap();
    let edited = out(&scene, id, Part::Payload).await;
    let edit = Edit { payload: Some((edited.clone(), "script:small:none".into())), ..Edit::default() };
    assert!(matches!(journal.edit(id, None, edit, scene.clock.now()).await.unwrap(), Changed::Done(_)));
    // A settle that was cut off, and a submit.
    out(&scene, id, Part::Result).await;
    out(&scene, JobId::generate(), Part::Payload).await;
    assert_eq!(scene.files(), 4);
    after(&scene, 3_000_000);
    assert_eq!(collect(&scene.stores, &objects).await.unwrap(), 0, "they are young: a row may be on its way");
    after(&scene, 3_700_000);
    assert_eq!(collect(&scene.stores, &objects).await.unwrap(), 3);
    assert_eq!(collect(&scene.stores, &objects).await.unwrap(), 0);
    assert_eq!(scene.stores.bodies.whole(edited).await.unwrap().len(), 300_000);
    scene.settle(id, Epoch(1)).await;
    assert_eq!(collect(&scene.stores, &objects).await.unwrap(), 0, "its job is there");
    // A payload that goes before its job: its object goes in one of a day's looks.
    assert!(scene.stores.retention.sweep(Rows::Payloads, scene.clock.now().plus_ms(1), 10).await.unwrap() > 0);
    let mut collected = 0;
    for _ in 0..24 {
        scene.clock.advance_ms(3_600_000);
        collected += collect(&scene.stores, &objects).await.unwrap();
    }
    assert_eq!(collected, 1);
}

/// Letters whose scheduler died before the commit go after a day; those of an archive stay, and those of one that nobody here knows.
#[tokio::test]
async fn letters_that_are_part_of_no_archive_are_deleted() {
    let scene = Scene::new().await;
    scene.dead(2, "kept").await;
    let orphaned = scene.dead(2, "orphaned").await;
    let archive = scene.walked(order(Action::Archive, "queue = kept")).await;
    let mut picks = Vec::new();
    for id in orphaned {
        picks.push(Pick { id, epoch: scene.row(id).await.epoch, cost: None, holder: None });
    }
    let letters = scene.stores.archives.letters(&picks).await.unwrap();
    let objects = scene.stores.objects.clone().unwrap();
    for id in [archive.id, OperationId::generate()] {
        objects.keep(id, letters.clone().into()).await.unwrap();
    }
    let files = scene.files();
    after(&scene, 3_600_000);
    assert_eq!(collect(&scene.stores, &objects).await.unwrap(), 0, "they may be on their way into an archive");
    after(&scene, 25 * 3_600_000);
    assert_eq!(collect(&scene.stores, &objects).await.unwrap(), 1);
    assert_eq!(scene.files(), files - 1);
    let rows =
        scene.stores.audit.audit_rows(AuditPlace { behind: (i32::MAX, i64::MAX), ascending: false }, 1).await.unwrap();
    assert_eq!((rows[0].entry.action.as_str(), rows[0].entry.detail.as_str()), ("SWEEP", r#"{"deleted":1}"#));
    let parts = scene.stores.archives.objects_of(archive.id, None, 10).await.unwrap();
    for part in &parts {
        assert_eq!(objects.letters(part).await.unwrap().len(), 2);
    }
    assert_eq!(parts.len(), 1);
}
