//! Cases of the audit log: a chain that goes on, whoever adds to it.

use super::{Fixture, NOW};
use crate::{
    audit::{AuditEntry, AuditFloor, AuditHead, AuditPlace, Chain},
    time::DAY_MS,
};

fn entry(n: u16) -> AuditEntry {
    AuditEntry {
        at: NOW,
        actor: (n.is_multiple_of(2)).then(|| format!("key{n}")),
        role: Some("operator".into()),
        tenant: Some("acme\0".into()),
        address: None,
        action: "PATCH /v1/queues/{queue}".into(),
        subject: format!("/v1/queues/{n}"),
        status: 200 + n,
        detail: "{}".into(),
        request_id: n.to_string(),
    }
}

/// Rows are read back as they were added, in their order, from either end, and their hashes fit, over days and restarts.
pub async fn rows_are_chained(fixture: &dyn Fixture) {
    {
        let store = fixture.open().await;
        assert!(store.audit.audit_heads().await.unwrap().is_empty());
        for n in 0..3 {
            store.audit.append_audit(entry(n)).await.unwrap();
        }
        fixture.clock().advance_ms(86_400_000);
    }
    let store = fixture.open().await;
    for n in 3..5 {
        store.audit.append_audit(entry(n)).await.unwrap();
    }
    let from = |behind, ascending| AuditPlace { behind, ascending };
    let rows = store.audit.audit_rows(from((0, 0), true), 100).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.entry.clone()).collect::<Vec<_>>(), (0..5).map(entry).collect::<Vec<_>>());
    let mut chain = Chain::default();
    rows.iter().for_each(|row| chain.follow(row).unwrap());
    let heads = store.audit.audit_heads().await.unwrap();
    chain.end(heads.first().copied()).unwrap();
    assert_eq!(heads.iter().map(|head| head.seq).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(heads[0].day, heads[1].day + 1);
    let newest = store.audit.audit_rows(from((i32::MAX, 0), false), 2).await.unwrap();
    assert_eq!(newest, [rows[4].clone(), rows[3].clone()]);
    let last = &newest[1];
    let older = store.audit.audit_rows(from((last.day, last.seq), false), 100).await.unwrap();
    assert_eq!(older, [rows[2].clone(), rows[1].clone(), rows[0].clone()]);
}

/// Several who add at once make one chain.
pub async fn those_who_add_at_once_make_one_chain(fixture: &dyn Fixture) {
    let (store, other) = (fixture.open().await, fixture.open().await);
    let adding = (0..40_u16).map(|n| {
        let audit = if n.is_multiple_of(2) { store.audit.clone() } else { other.audit.clone() };
        tokio::spawn(async move { audit.append_audit(entry(n)).await })
    });
    for added in adding.collect::<Vec<_>>() {
        added.await.unwrap().unwrap();
    }
    let rows = store.audit.audit_rows(AuditPlace { behind: (0, 0), ascending: true }, 100).await.unwrap();
    let mut chain = Chain::default();
    rows.iter().for_each(|row| chain.follow(row).unwrap());
    chain.end(store.audit.audit_heads().await.unwrap().first().copied()).unwrap();
    assert_eq!(chain.rows(), 40);
}

/// Rows go below a floor that is an end of the log, is not of the last year, and only rises; all others stay.
pub async fn what_is_below_the_floor_may_go(fixture: &dyn Fixture) {
    let (store, clock) = (fixture.open().await.audit, fixture.clock());
    let append = async |count: usize| {
        for n in 0..count {
            let entry = AuditEntry { subject: format!("/v1/queues/{n}"), ..AuditEntry::default() };
            store.append_audit(entry).await.unwrap();
        }
    };
    clock.advance_ms(-3_000 * DAY_MS);
    append(3).await;
    clock.advance_ms(DAY_MS);
    append(2).await;
    clock.advance_ms(2_999 * DAY_MS);
    append(1).await;
    let days = store.audit_days(10).await.unwrap();
    assert_eq!(days.iter().map(|head| head.seq).collect::<Vec<_>>(), [3, 2, 1]);
    let floor = |head: AuditHead| AuditFloor {
        head,
        rows: head.seq.unsigned_abs(),
        path: "audit/x".into(),
        sha256: [3; 32],
        at: NOW,
    };
    assert_eq!(store.forget_audit(10).await.unwrap(), 0, "there is no floor");
    for wrong in [days[2], AuditHead { seq: 2, ..days[0] }, AuditHead { hash: [1; 32], ..days[0] }] {
        assert!(!store.raise_audit_floor(floor(wrong)).await.unwrap(), "{wrong:?}");
    }
    assert_eq!(store.audit_floor().await.unwrap(), None);
    assert!(store.raise_audit_floor(floor(days[0])).await.unwrap());
    assert!(!store.raise_audit_floor(floor(days[0])).await.unwrap(), "it is there");
    assert_eq!(store.audit_floor().await.unwrap(), Some(floor(days[0])));
    assert_eq!((store.forget_audit(2).await.unwrap(), store.forget_audit(2).await.unwrap()), (2, 1), "in steps");
    assert_eq!(store.forget_audit(2).await.unwrap(), 0);
    assert_eq!(store.audit_days(10).await.unwrap(), days[1..]);
    assert!(store.raise_audit_floor(floor(days[1])).await.unwrap());
    assert_eq!(store.audit_floor().await.unwrap().unwrap().rows, 5);
    assert_eq!(store.forget_audit(10).await.unwrap(), 2);
    let rows = store.audit_rows(AuditPlace { behind: (i32::MIN, 0), ascending: true }, 100).await.unwrap();
    let mut chain = Chain::behind(days[1]);
    rows.iter().try_for_each(|row| chain.follow(row)).unwrap();
    assert_eq!(chain.end(Some(days[2])), Ok(()), "the chain goes on as it did");
    append(1).await;
    assert_eq!(store.audit_days(10).await.unwrap()[0].seq, 2);
}
