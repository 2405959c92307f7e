//! Cases of what is ordered of backups.

use uuid::Uuid;

use super::{Fixture, NOW};
use crate::{
    backup::{BackupId, BackupRow, Cause, Progress, Record, Scope, Work},
    time::Timestamp,
};

fn order(number: u128, at: Timestamp) -> BackupRow {
    let record = Record::order(Scope::Full, Cause::Asked, Some("why\u{0}".into()), Some("key".into()));
    BackupRow::order(BackupId(Uuid::from_u128(number)), record, at)
}

/// An order survives a restart, is not given twice, and whoever changes it has seen it as it is.
pub async fn an_order_is_kept_once_and_worked_on_by_one(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let first = order(1, NOW);
    assert!(store.backups.order_backup(first.clone()).await.unwrap());
    let again = BackupRow { record: Record { reason: None, ..first.record.clone() }, ..first.clone() };
    assert!(!store.backups.order_backup(again).await.unwrap(), "it is there");
    let store = fixture.open().await;
    assert_eq!(store.backups.backup_work().await.unwrap(), std::slice::from_ref(&first));
    assert_eq!(store.backups.backup(BackupId(Uuid::nil())).await.unwrap(), None);

    let mut taken = first.clone();
    taken.record.state = Progress::Running;
    assert!(store.backups.change_backup(taken.clone()).await.unwrap());
    assert!(!store.backups.change_backup(first).await.unwrap(), "another beat");
    taken.beat += 1;
    assert_eq!(store.backups.backup(taken.id).await.unwrap(), Some(taken.clone()));
    taken.work = Work::Nothing;
    taken.record.state = Progress::Good;
    assert!(store.backups.change_backup(taken.clone()).await.unwrap());
    assert_eq!(store.backups.backup_work().await.unwrap(), []);
}

/// Pages go from the newest to the oldest; what is to be done is not forgotten.
pub async fn backups_are_paged_and_forgotten(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    for (number, at) in [(1, 0), (2, 10), (3, 10), (4, 20)] {
        store.backups.order_backup(order(number, NOW.plus_ms(at))).await.unwrap();
    }
    let numbers = |rows: &[BackupRow]| rows.iter().map(|row| row.id.0.as_u128()).collect::<Vec<_>>();
    let page = store.backups.backups(None, 2).await.unwrap();
    assert_eq!(numbers(&page), [4, 3]);
    let last = page.last().map(|row| (row.ordered_at, row.id));
    let rest = store.backups.backups(last, 5).await.unwrap();
    assert_eq!(numbers(&rest), [2, 1]);
    let done = BackupRow { work: Work::Nothing, ..rest[0].clone() };
    assert!(store.backups.change_backup(done).await.unwrap());
    assert_eq!(store.backups.forget_backups(NOW.plus_ms(15)).await.unwrap(), 1);
    assert_eq!(numbers(&store.backups.backups(None, 5).await.unwrap()), [4, 3, 1]);
}
