//! Two schedulers on one Redis: what each may do when the other has begun a life as well.

use std::{sync::Arc, time::Instant};

use queue_core::{
    dispatcher::{
        Place,
        redis::{RedisAddress, RedisConfig, RedisDispatcher},
    },
    ids::SessionId,
    journal::WorkerSession,
};
use testkit::RedisServer;
use tokio_util::sync::CancellationToken;

use super::{Scene, waiting};
use crate::{
    Config,
    generation::{SILENCE, Watch},
    prepare, rebuild,
    rebuild::Filler,
};

/// A process of its own on this Redis.
async fn dispatcher(redis: &RedisServer) -> Arc<RedisDispatcher> {
    let config = RedisConfig::new(RedisAddress::parse(&redis.url()).unwrap());
    Arc::new(RedisDispatcher::open(config).await.unwrap())
}

#[tokio::test]
async fn who_finds_that_another_began_a_later_life_leaves_it_to_them() {
    let redis = RedisServer::start();
    let mut scene = Scene::closed();
    scene.stores.dispatcher = dispatcher(&redis).await;
    let id = scene.accept(1, |_| {}).await[0];
    let config = Config::default();
    let worker = SessionId::generate();
    let ours = rebuild::begin(&scene.stores, &config, [worker].into()).await.unwrap();

    let mut other = scene.stores.clone();
    other.dispatcher = dispatcher(&redis).await;
    let theirs = rebuild::begin(&other, &config, [worker].into()).await.unwrap();
    rebuild::run(scene.stores.clone(), ours, CancellationToken::new()).await;
    assert_eq!(scene.place(id).await, Place::Unknown, "the worker may still run it: nobody has heard of it");

    other.dispatcher.join(worker, vec![]).await.unwrap();
    rebuild::run(other, theirs, CancellationToken::new()).await;
    assert_eq!(scene.place(id).await, waiting(0));
}

/// A scheduler that is about to begin a life has told the journal, and the dispatcher is still in the life before: who
/// works there has not come back to the new one.
#[tokio::test]
async fn who_is_in_the_life_before_has_not_come_back_to_this_one() {
    let redis = RedisServer::start();
    let mut scene = Scene::closed();
    scene.stores.dispatcher = dispatcher(&redis).await;
    let id = scene.accept(1, |_| {}).await[0];
    let config = Config::default();
    drop(prepare(&scene.stores, &config).await.unwrap());
    let worker = SessionId::generate();
    let (host, version, started_at) = ("host".to_owned(), "1".to_owned(), scene.stores.clock.now());
    scene
        .stores
        .catalog
        .open_session(WorkerSession { id: worker, host, version, slots: 1, started_at, draining: false })
        .await
        .unwrap();
    let _signals = scene.stores.dispatcher.join(worker, vec![]).await.unwrap();

    let (mut watch, began) = (Watch::default(), Instant::now());
    let life = scene.stores.journal.new_generation().await.unwrap();
    assert!(watch.relieve(&scene.stores, &config, began).await.unwrap().is_none());
    scene.stores.dispatcher.begin(life).await.unwrap();
    let prepared = watch.relieve(&scene.stores, &config, began + SILENCE).await.unwrap().unwrap();
    let mut filler = Filler::new(scene.stores.clone(), prepared).unwrap();
    assert_eq!(filler.awaited(), [worker], "it may run what nobody has heard of");
    let _signals = scene.stores.dispatcher.join(worker, vec![]).await.unwrap();
    filler.run().await;
    assert_eq!(scene.place(id).await, waiting(0));
}
