//! Sums of money are moved by any number of schedulers, and by none twice.

use std::sync::Arc;

use queue_core::{
    job::Kind,
    journal::{
        CostColumn, CostQuery,
        postgres::{PostgresConfig, PostgresJournal, connect, migrate},
    },
    ledger::{Billed, CallRecord, Nanousd, Tier, Usage, UsageSource},
    time::Timestamp,
};
use testkit::PostgresServer;
use tokio_util::sync::CancellationToken;

use super::{NOW, Scene};
use crate::rollup::once;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_moves_what_is_there_and_the_next_finds_nothing() {
    let mut scene = Scene::closed();
    let config = PostgresConfig::new(PostgresServer::shared().database());
    migrate(&mut connect(&config).await.unwrap()).await.unwrap();
    let journal = Arc::new(PostgresJournal::open(&config, Arc::new(scene.clock.clone())).await.unwrap());
    (scene.stores.journal, scene.stores.ledger) = (journal.clone(), journal);
    let never = CancellationToken::new();
    assert_eq!(once(&scene.stores, &never).await.unwrap(), 0);
    for tenant in ["acme", "globex", "acme"] {
        scene.stores.journal.record(call(tenant)).await.unwrap();
    }
    let spent = async || {
        let ever = CostQuery::new(&[CostColumn::Kind], Timestamp(0), Timestamp(i64::MAX));
        scene.stores.ledger.costs(&ever).await.unwrap().iter().map(|line| (line.spend, line.jobs)).collect::<Vec<_>>()
    };
    assert_eq!(spent().await, [(Nanousd(21), 3)]);
    let (one, other) = tokio::join!(once(&scene.stores, &never), once(&scene.stores, &never));
    let rest = once(&scene.stores, &never).await.unwrap();
    assert_eq!(one.unwrap() + other.unwrap() + rest, 3, "each line once");
    assert_eq!(once(&scene.stores, &never).await.unwrap(), 0);
    assert_eq!(spent().await, [(Nanousd(21), 3)]);
}

fn call(tenant: &str) -> CallRecord {
    let job_id = queue_core::ids::JobId::generate();
    CallRecord {
        call_id: queue_core::ids::CallId::of(job_id, "chat", 0),
        job_id,
        tenant: tenant.into(),
        queue: "default".into(),
        kind: Kind::Llm,
        operation: None,
        key_id: None,
        epoch: Default::default(),
        step: "chat".into(),
        sequence: 0,
        provider: "p".into(),
        model: "m".into(),
        status: "ok".into(),
        billed: Billed::Yes,
        usage: Usage::default(),
        tier: Tier::Standard,
        usage_source: UsageSource::Provider,
        cost: Some(Nanousd(7)),
        price_version: "t".into(),
        duration_ms: 1,
        provider_request_id: None,
        credential: "default".into(),
        at: NOW,
        memo: None,
    }
}
