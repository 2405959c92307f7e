//! Cases of what operators order.

use super::{Fixture, NOW};
use crate::{
    ids::SessionId,
    journal::{LogLevel, Maintenance, WorkerOrders, WorkerSession},
};

/// It outlives the process, keeps its first moment while it is on, and ends.
pub async fn maintenance_keeps_its_first_moment(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    assert_eq!(store.orders.maintenance().await.unwrap(), None);
    let order = |later: i64, reason: Option<&str>| {
        Some(Maintenance { since: NOW.plus_ms(later), reason: reason.map(str::to_owned) })
    };
    store.orders.set_maintenance(order(0, Some("restore"))).await.unwrap();
    store.orders.set_maintenance(order(5, None)).await.unwrap();
    let store = fixture.open().await;
    assert_eq!(store.orders.maintenance().await.unwrap(), order(0, None));
    let anybody = store.orders.orders(SessionId::generate()).await.unwrap();
    assert_eq!(anybody, WorkerOrders { maintenance: order(0, None), drain: None });
    store.orders.set_maintenance(None).await.unwrap();
    assert_eq!(store.orders.maintenance().await.unwrap(), None);
    store.orders.set_maintenance(order(9, Some("again"))).await.unwrap();
    assert_eq!(store.orders.maintenance().await.unwrap(), order(9, Some("again")));
}

/// An order is one worker's; one that is not registered cannot have one.
pub async fn a_worker_is_ordered_to_drain(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    let session = || WorkerSession {
        id: SessionId::generate(),
        host: "host/1".into(),
        version: "0.1.0".into(),
        slots: 64,
        started_at: NOW,
        draining: false,
    };
    let (one, other) = (session(), session());
    for session in [&one, &other] {
        store.catalog.open_session(session.clone()).await.unwrap();
    }
    assert!(store.orders.order_drain(one.id, true).await.unwrap());
    assert_eq!(store.orders.orders(one.id).await.unwrap().drain, Some(true));
    assert_eq!(store.orders.orders(other.id).await.unwrap().drain, Some(false));
    let draining = store.catalog.sessions().await.unwrap().into_iter().filter(|session| session.draining);
    assert_eq!(draining.map(|session| session.id).collect::<Vec<_>>(), [one.id]);
    assert!(store.orders.order_drain(one.id, false).await.unwrap());
    assert_eq!(store.orders.orders(one.id).await.unwrap().drain, Some(false));
    store.catalog.close_session(one.id).await.unwrap();
    assert!(!store.orders.order_drain(one.id, true).await.unwrap(), "it is gone");
}

/// It is there until it is taken back, with its end, which the journal does not look at.
pub async fn a_log_level_outlives_the_process(fixture: &dyn Fixture) {
    let store = fixture.open().await;
    assert_eq!(store.orders.log_level().await.unwrap(), None);
    let until = Some(NOW.plus_ms(-5));
    for level in
        [LogLevel { filter: "info,worker=debug".into(), until }, LogLevel { filter: "warn".into(), until: None }]
    {
        store.orders.set_log_level(Some(level.clone())).await.unwrap();
        let store = fixture.open().await;
        assert_eq!(store.orders.log_level().await.unwrap(), Some(level));
    }
    store.orders.set_log_level(None).await.unwrap();
    assert_eq!(store.orders.log_level().await.unwrap(), None);
}
