//! Two schedulers on one Redis: what each may do when the other has begun a life as well.

use std::sync::Arc;

use queue_core::{
    dispatcher::{
        Place,
        redis::{RedisAddress, RedisConfig, RedisDispatcher},
    },
    ids::SessionId,
};
use testkit::RedisServer;
use tokio_util::sync::CancellationToken;

use super::{Scene, waiting};
use crate::{Config, rebuild};

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
