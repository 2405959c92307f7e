//! Orders of backups are carried out once, whoever dies meanwhile, and the clock gives each of its own once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use queue_core::{
    backup::{
        BackupId, BackupRow, Cause, Keep, Place, Progress, Recipients, Record, Scope, Setup, Source, Work, found,
    },
    time::{Clock, DAY_MS},
};
use tokio_util::sync::CancellationToken;

use super::Scene;
use crate::backup::{Backups, Keeper, SILENCE};

/// Public keys of nobody.
const RECIPIENTS: [&str; 2] = [
    "age1d9cu9k2v7d08depcz7q4sed0k2elk74qd0qd9lmkf5t3l9yw9v7sc0ma69",
    "age1p06qtsp9pzacythmc90z5j4r3xv654mc8r92qez2swh89925kdhsxq37zp",
];

impl Scene {
    fn keeper(&self, daily_at: Option<u32>) -> Keeper {
        let place = format!("file:{}", self.folder.path().join("place").display());
        let setup = Setup {
            place: Place::open(&place, &Default::default()).unwrap(),
            offsite: None,
            recipients: Arc::new(Recipients::parse(&RECIPIENTS.map(str::to_owned)).unwrap()),
            identities: None,
            source: Source::Sqlite(self.folder.path().join("journal.db")),
            objects: self.stores.objects.clone(),
            config: serde_json::json!({}),
            scratch: self.folder.path().to_owned(),
            clock: Arc::new(self.clock.clone()),
        };
        let backups = Backups { setup, keep: Keep::default(), daily_at, rehearsal: None, weekly_drill: true };
        let mut keeper = Keeper::new(self.stores.clone(), backups);
        keeper.began = Instant::now() - Duration::from_secs(60);
        keeper
    }

    async fn rows(&self) -> Vec<BackupRow> {
        self.stores.backups.backups(None, 100).await.unwrap()
    }
}

async fn round(keeper: &mut Keeper) {
    keeper.once(&CancellationToken::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_day_s_backup_is_made_once_by_any_number_of_schedulers() {
    let scene = Scene::new().await;
    let (mut one, mut other) = (scene.keeper(Some(180)), scene.keeper(Some(180)));
    tokio::join!(round(&mut one), round(&mut other));
    for keeper in [&mut one, &mut other] {
        round(keeper).await;
    }
    let rows = scene.rows().await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    let record = &rows[0].record;
    assert_eq!((record.state, record.cause, record.attempts), (Progress::Good, Cause::Schedule, 1));
    let good = found(&one.backups.setup.place).await.unwrap().good;
    assert_eq!(good.iter().map(|known| Some(known.manifest.id)).collect::<Vec<_>>(), [record.place_id]);
    // A scheduler that starts later orders nothing twice, and the next day has its own.
    let mut third = scene.keeper(Some(180));
    round(&mut third).await;
    assert_eq!(scene.rows().await.len(), 1);
    scene.clock.advance_ms(DAY_MS);
    round(&mut third).await;
    assert_eq!(scene.rows().await.len(), 2);
    let written =
        scene.stores.audit.audit_rows(queue_core::audit::AuditPlace { behind: (0, 0), ascending: true }, 10).await;
    let written: Vec<String> = written.unwrap().into_iter().map(|row| row.entry.action).collect();
    assert_eq!(written, ["backup create", "backup create"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_keeps_any_more_is_no_longer_called_good() {
    let scene = Scene::new().await;
    let mut keeper = scene.keeper(None);
    keeper.backups.keep = Keep { daily: 1, weekly: 0, monthly: 0 };
    let mut ids = Vec::new();
    for _ in 0..2 {
        let order = Record::order(Scope::Config, Cause::Asked, None, None);
        let order = BackupRow::order(BackupId::generate(), order, scene.clock.now());
        ids.push(order.id);
        scene.stores.backups.order_backup(order).await.unwrap();
        round(&mut keeper).await;
        scene.clock.advance_ms(DAY_MS);
    }
    let mut rows = Vec::new();
    for id in ids {
        rows.push(scene.stores.backups.backup(id).await.unwrap().unwrap().record);
    }
    assert_eq!([rows[0].deleted_at.is_some(), rows[1].deleted_at.is_some()], [true, false]);
    let good = found(&keeper.backups.setup.place).await.unwrap().good;
    assert_eq!(good.iter().map(|known| Some(known.manifest.id)).collect::<Vec<_>>(), [rows[1].place_id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_fell_silent_is_begun_anew_and_given_up_in_the_end() {
    let scene = Scene::new().await;
    let mut keeper = scene.keeper(None);
    let order = |attempts| {
        let record = Record::order(Scope::Config, Cause::Asked, None, None);
        let state = Progress::Running;
        let record = Record { attempts, state, place_id: Some(BackupId::generate()), ..record };
        BackupRow::order(BackupId::generate(), record, scene.clock.now())
    };
    let silent = order(1);
    scene.stores.backups.order_backup(silent.clone()).await.unwrap();
    round(&mut keeper).await;
    assert_eq!(scene.rows().await[0].record.state, Progress::Running, "its maker may live");
    keeper.stands = keeper.stands.map(|(id, beat, _)| (id, beat, Instant::now() - SILENCE));
    round(&mut keeper).await;
    let row = scene.rows().await.remove(0);
    assert_eq!((row.record.state, row.record.attempts, row.work), (Progress::Good, 2, Work::Nothing));
    assert_ne!(row.record.place_id, silent.record.place_id, "what its first maker still writes is another backup");
    // The first one's note finds another beat.
    assert!(!scene.stores.backups.change_backup(silent).await.unwrap());

    let lost = order(3);
    scene.stores.backups.order_backup(lost.clone()).await.unwrap();
    keeper.stands = Some((lost.id, lost.beat, Instant::now() - SILENCE));
    round(&mut keeper).await;
    let row = scene.stores.backups.backup(lost.id).await.unwrap().unwrap();
    assert_eq!((row.record.state, row.work), (Progress::Failed, Work::Nothing));
    assert!(row.record.error.unwrap().contains("given up"));

    // A check that finds something wrong says which part.
    let made = scene.rows().await.into_iter().find(|row| row.record.state == Progress::Good).unwrap();
    let id = made.record.place_id.unwrap();
    let part = scene.folder.path().join("place/backups").join(id.to_string()).join("config.json.zst.age");
    let mut bytes = std::fs::read(&part).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    assert!(scene.stores.backups.change_backup(made.check_ordered(false, scene.clock.now())).await.unwrap());
    round(&mut keeper).await;
    let rows = scene.rows().await;
    let check = rows.iter().find_map(|row| row.record.check.clone()).unwrap();
    assert_eq!(check.state, Progress::Failed);
    assert!(check.error.unwrap().starts_with("config.json.zst.age: its SHA-256"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_lets_others_pass_and_is_given_up_after_three_attempts() {
    let scene = Scene::new().await;
    let mut keeper = scene.keeper(None);
    keeper.backups.setup.source = Source::Sqlite(scene.folder.path().join("nowhere.db"));
    let order = |scope| {
        let record = Record::order(scope, Cause::Asked, None, None);
        BackupRow::order(BackupId::generate(), record, scene.clock.now())
    };
    let (broken, whole) = (order(Scope::Database), order(Scope::Config));
    for row in [&broken, &whole] {
        assert!(scene.stores.backups.order_backup(row.clone()).await.unwrap());
    }
    round(&mut keeper).await;
    round(&mut keeper).await;
    let look = async |id| scene.stores.backups.backup(id).await.unwrap().unwrap();
    let failed = look(broken.id).await.record;
    assert_eq!((failed.state, failed.attempts), (Progress::Ordered, 1), "{failed:?}");
    assert!(failed.not_before > Some(scene.clock.now()), "{failed:?}");
    assert_eq!(look(whole.id).await.record.state, Progress::Good, "it does not wait for the other");
    for _ in 0..2 {
        scene.clock.advance_ms(DAY_MS);
        round(&mut keeper).await;
    }
    let row = look(broken.id).await;
    assert_eq!((row.record.state, row.record.attempts, row.work), (Progress::Failed, 3, Work::Nothing));
}
