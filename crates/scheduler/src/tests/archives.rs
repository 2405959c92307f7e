//! Dead letters leave the journal once they are in objects, whatever dies meanwhile, and all of them come back.

use std::{collections::BTreeSet, path::Path};

use queue_core::{
    archive::{ArchiveObject, Letter, Restore},
    ids::{Epoch, JobId, OperationId},
    ledger::Nanousd,
    operations::{Aborted, Action, Counts, OperationState, Order},
    state::Standing,
    time::Clock,
};

use super::{
    Scene,
    operations::{Faulty, done, order, paid},
    told,
};

fn archive(filter: &str) -> Order {
    order(Action::Archive, filter)
}

/// An archive runs nothing again: it costs nothing.
fn archived(done: u64) -> Counts {
    Counts { unestimated: 0, ..self::done(done) }
}

impl Scene {
    /// The objects that the journal names, and their letters, which must be whole.
    async fn archived_by(&self, id: OperationId) -> (Vec<ArchiveObject>, Vec<Letter>) {
        let noted = self.stores.archives.objects_of(id, None, 1_000).await.unwrap();
        let mut letters = Vec::new();
        for object in &noted {
            letters.extend(self.stores.objects.as_ref().unwrap().letters(object).await.unwrap());
        }
        (noted, letters)
    }

    /// How many letters come back.
    async fn restored(&self, id: OperationId) -> usize {
        let mut back = 0;
        for object in self.stores.archives.objects_of(id, None, 1_000).await.unwrap() {
            let letters = self.stores.objects.as_ref().unwrap().letters(&object).await.unwrap();
            let restore = Restore { archive: id, path: object.path, letters };
            back += self.stores.archives.restore(restore).await.unwrap().len();
        }
        back
    }

    /// Of these jobs, those that the journal has.
    async fn there(&self, ids: &[JobId]) -> BTreeSet<JobId> {
        self.stores.reads.jobs(ids).await.unwrap().into_iter().flatten().map(|job| job.id).collect()
    }

    /// Objects that lie in the folder, whether or not anything names them.
    pub(super) fn files(&self) -> usize {
        fn count(folder: &Path) -> usize {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            let files = |path: std::path::PathBuf| match path.is_dir() {
                true => count(&path),
                false => usize::from(path.extension().is_some_and(|end| end == "zst")),
            };
            entries.map(files).sum()
        }
        count(&self.folder.path().join("objects"))
    }

    /// Every letter is in the journal or in an object that the journal names, and in one of them.
    async fn none_is_lost(&self, id: OperationId, ids: &[JobId]) {
        let (_, letters) = self.archived_by(id).await;
        let there = self.there(ids).await;
        let out: BTreeSet<JobId> = letters.iter().map(|letter| letter.id).collect();
        assert_eq!(out.len(), letters.len(), "no letter is in two objects");
        assert!(out.is_disjoint(&there));
        assert_eq!(out.len() + there.len(), ids.len());
    }
}

#[tokio::test]
async fn letters_go_out_by_tenant_and_all_come_back() {
    let scene = Scene::new().await;
    let mut ids = scene.dead(30, "bulk").await;
    let theirs = scene.accept(30, |job| (job.queue, job.tenant) = ("bulk".into(), "globex".into())).await;
    for id in &theirs {
        scene.die(*id, Some(paid(*id, 5))).await;
    }
    ids.extend(&theirs);
    let other = scene.dead(2, "other").await;
    let before = scene.row(theirs[0]).await;
    let dry = scene.walked(Order { dry_run: true, ..archive("queue = bulk") }).await;
    assert_eq!(dry.counts, Counts { matched: 60, ..Counts::default() });
    assert_eq!((scene.files(), scene.there(&ids).await.len()), (0, 60));

    let operation = scene.walked(archive("queue = bulk")).await;
    assert_eq!((operation.state, operation.counts), (OperationState::Done, archived(60)));
    assert!(scene.there(&ids).await.is_empty());
    assert_eq!(scene.there(&other).await.len(), 2);
    let (noted, _) = scene.archived_by(operation.id).await;
    assert_eq!(noted.len(), 2, "a step of two tenants");
    assert!(noted.iter().any(|one| one.path.starts_with("archives/globex/") && one.cost_nanousd == Nanousd(150)));
    let manifest = noted[0].path.replace(".ndjson.zst", ".json");
    let manifest = std::fs::read_to_string(scene.folder.path().join("objects").join(manifest)).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!((&manifest["object"]["letters"], &manifest["filter"]), (&30.into(), &"queue = bulk".into()));
    scene.none_is_lost(operation.id, &ids).await;

    assert_eq!(scene.restored(operation.id).await, 60);
    assert_eq!(scene.restored(operation.id).await, 0, "once");
    assert_eq!(scene.there(&ids).await.len(), 60);
    assert_eq!(told(&scene.row(theirs[0]).await), told(&before));
    let again = scene.walked(order(Action::Redrive, "queue = bulk")).await;
    assert_eq!(again.counts.done, 60, "they can be given another life");
    // What is kept of a tenant goes with it, and of no other.
    let files = scene.files();
    assert_eq!(scene.stores.objects.as_ref().unwrap().erase(&"globex".into()).await.unwrap(), 2, "with its manifest");
    assert_eq!(scene.files(), files - 1);
}

/// The object is there and nothing names it; the next walker writes another.
#[tokio::test]
async fn a_crash_between_object_and_commit_loses_nothing() {
    for commits in [false, true] {
        let mut scene = Scene::new().await;
        let ids = scene.dead(60, "bulk").await;
        let faulty = Faulty::dying(scene.stores.operations.clone(), 0, 2, commits);
        scene.stores.operations = faulty.clone();
        let id = scene.begin_operation(Order { rate_per_s: 20, ..archive("queue = bulk") }).await;
        let walker = tokio::spawn(scene.taken(id).await.run());
        faulty.hangs.notified().await;
        walker.abort();
        assert!(walker.await.unwrap_err().is_cancelled());
        scene.none_is_lost(id, &ids).await;
        let (noted, letters) = scene.archived_by(id).await;
        assert_eq!(letters.len(), if commits { 40 } else { 20 });
        assert_eq!(scene.files() - noted.len(), usize::from(!commits), "the object of the step that was not committed");

        scene.taken(id).await.run().await;
        let operation = scene.operation(id).await;
        assert_eq!((operation.state, operation.counts), (OperationState::Done, archived(60)));
        scene.none_is_lost(id, &ids).await;
        assert_eq!(scene.restored(id).await, 60);
    }
}

#[tokio::test]
async fn nothing_leaves_after_an_abort() {
    let scene = Scene::new().await;
    let ids = scene.dead(60, "bulk").await;
    let id = scene.begin_operation(Order { rate_per_s: 20, ..archive("queue = bulk") }).await;
    let walker = tokio::spawn(scene.taken(id).await.run());
    while scene.operation(id).await.counts.done == 0 {
        tokio::task::yield_now().await;
    }
    let aborted = scene.stores.operations.abort(id, scene.clock.now()).await.unwrap();
    let Aborted::Done(aborted) = aborted else { panic!("{aborted:?}") };
    walker.await.unwrap();
    assert_eq!(scene.operation(id).await, aborted);
    assert_eq!(scene.there(&ids).await.len() as u64, 60 - aborted.counts.done);
    scene.none_is_lost(id, &ids).await;
}

#[tokio::test]
async fn without_a_place_for_objects_nothing_leaves() {
    let mut scene = Scene::new().await;
    scene.stores.objects = None;
    let ids = scene.dead(2, "bulk").await;
    let operation = scene.walked(archive("queue = bulk")).await;
    assert_eq!(operation.state, OperationState::Failed);
    assert!(operation.error.unwrap().contains("[objects] url"));
    assert_eq!(scene.there(&ids).await.len(), 2);
}

/// Whatever is done: the step of a walker that died is done or not done, and the next one goes on behind it.
#[tokio::test]
async fn every_action_survives_its_walker() {
    for (action, goal, filter) in [
        (Action::Drain, Some(Action::Redrive), "queue = bulk"),
        (Action::Drain, Some(Action::Archive), "queue = bulk"),
        (Action::Drain, Some(Action::Delete), "queue = bulk"),
        (Action::Delete, None, "queue = bulk and state = dead"),
        (Action::Cancel, None, "queue = bulk and state = ready"),
        (Action::Reclaim, None, "queue = bulk and state = running"),
    ] {
        for commits in [false, true] {
            let mut scene = Scene::new().await;
            let ids = match action {
                Action::Cancel | Action::Reclaim => scene.accept(40, |job| job.queue = "bulk".into()).await,
                _ => scene.dead(40, "bulk").await,
            };
            if action == Action::Reclaim {
                scene.push(&ids).await;
                let session = scene.worker().await;
                assert_eq!(scene.begin(session).await.len(), 40);
            }
            let faulty = Faulty::dying(scene.stores.operations.clone(), 0, 2, commits);
            scene.stores.operations = faulty.clone();
            let rate_per_s = if goal == Some(Action::Archive) { 20 } else { 100 };
            let order = Order { goal, rate_per_s, force: action == Action::Reclaim, ..order(action, filter) };
            let id = scene.begin_operation(order).await;
            let walker = tokio::spawn(scene.taken(id).await.run());
            faulty.hangs.notified().await;
            walker.abort();
            assert!(walker.await.unwrap_err().is_cancelled());
            scene.taken(id).await.run().await;
            let operation = scene.operation(id).await;
            assert_eq!(operation.state, OperationState::Done, "{action:?} {goal:?} {commits}");
            assert_eq!(operation.counts.done, 40, "{action:?} {goal:?} {commits}: {:?}", operation.counts);
            for row in scene.stores.reads.jobs(&ids).await.unwrap() {
                match (action, goal, row) {
                    (Action::Drain, Some(Action::Redrive), Some(job)) => assert_eq!(job.redrives, 1),
                    (Action::Cancel, _, Some(job)) => assert_eq!(job.standing, Standing::Cancelled),
                    (Action::Reclaim, _, Some(job)) => assert_eq!(job.epoch, Epoch(1)),
                    (Action::Drain | Action::Delete, _, None) => {}
                    (_, _, row) => panic!("{action:?} {goal:?}: {row:?}"),
                }
            }
            if goal == Some(Action::Archive) {
                scene.none_is_lost(id, &ids).await;
            }
        }
    }
}
