//! Cases of the audit log: a chain that goes on, whoever adds to it.

use super::{Fixture, NOW};
use crate::audit::{AuditEntry, AuditPlace, Chain};

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
