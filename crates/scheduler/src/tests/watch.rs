//! Upkeep in its window, and watchers that tell each change once.

use std::sync::Arc;

use async_trait::async_trait;
use queue_core::{
    audit::AuditPlace,
    ids::Name,
    journal::TenantSettings,
    time::{Clock, DAY_MS, ManualClock, Timestamp},
    upkeep::{ACTION, Thresholds, Window},
    webhooks::EventKind,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{NOW, Scene, webhooks::Post};
use crate::{
    upkeep::Upkeep,
    watch::{ServerClock, Watch, Watched},
};

#[tokio::test]
async fn the_journal_is_looked_after_once_in_each_window() {
    let scene = Scene::new().await;
    let window = Window::parse("02:00-06:00").unwrap();
    let begin = window.next(scene.clock.now()).0;
    let mut upkeep = Upkeep::new(scene.stores.clone(), window, Thresholds::default());
    let mut once = async || upkeep.once(&CancellationToken::new()).await.unwrap();
    scene.clock.advance_ms(begin.since_ms(NOW) - 1);
    assert_eq!(once().await, 0, "it is closed");
    scene.clock.advance_ms(1);
    assert!(once().await >= 2);
    scene.clock.advance_ms(3_600_000);
    assert_eq!(once().await, 0);
    scene.clock.advance_ms(DAY_MS);
    assert!(once().await >= 2, "the next one");
    let rows = scene.stores.audit.audit_rows(AuditPlace { behind: (0, 0), ascending: true }, 10).await.unwrap();
    assert!(
        rows.len() >= 4 && rows.iter().all(|row| row.entry.action == ACTION && row.entry.status == 200),
        "{rows:?}"
    );
    assert!(rows[0].entry.detail.contains("before_bytes"), "{}", rows[0].entry.detail);
}

/// A server whose clock is moved by hand.
struct Other(ManualClock);

#[async_trait]
impl ServerClock for Other {
    fn name(&self) -> &str {
        "redis"
    }

    async fn now(&self) -> Result<Timestamp, String> {
        Ok(self.0.now())
    }
}

/// What was told, oldest first.
async fn told(post: &Post) -> Vec<String> {
    let mut all = post.deliveries().await;
    all.reverse();
    let words = all.iter().map(|delivery| {
        let body: Value = serde_json::from_str(delivery.body.as_deref().unwrap()).unwrap();
        format!("{} {}", delivery.event, body["data"]["alert"].as_str().unwrap())
    });
    words.collect()
}

#[tokio::test]
async fn each_change_is_told_once() {
    let post = Post::new().await;
    let scene = &post.scene;
    post.endpoint("https://receiver.example/", &[EventKind::AlertRaised, EventKind::AlertCleared]).await;
    let redis = ManualClock::at(NOW);
    let ends = NOW.plus_ms(20 * DAY_MS);
    let watched = Watched {
        window: Some(Window::parse("02:00-06:00").unwrap()),
        certificate: Some(Arc::new(move || Some(ends))),
        clocks: vec![Arc::new(Other(redis.clone()))],
    };
    let mut first = Watch::new(scene.stores.clone(), Watched { window: None, ..watched.clone() });
    let mut second = Watch::new(scene.stores.clone(), Watched { window: None, ..watched.clone() });
    let later = |ms: i64| [&scene.clock, &redis].map(|clock| clock.advance_ms(ms));
    assert_eq!(first.round().await.unwrap(), 0, "all is well");
    later(3 * 60_000);

    // A job that nobody pushed and nobody reconciles, and a tenant that has nearly all that it may have.
    let mut live = scene.accept(1, |_| {}).await;
    live.extend(scene.accept(8, |job| job.tenant = "acme".into()).await);
    let settings = TenantSettings { backlog_max: Some(10), ..TenantSettings::default() };
    scene.stores.catalog.set_tenant(&Name::from("acme"), settings).await.unwrap();
    redis.advance_ms(5_000);
    assert_eq!(first.round().await.unwrap(), 2, "the quota and the clock; no job has been missing for long");
    later(16 * 60_000);
    redis.advance_ms(-5_000);
    assert_eq!(first.round().await.unwrap(), 1, "the clock is right again; a job may have been on its way");
    assert_eq!(second.round().await.unwrap(), 0);
    let (one, two) = tokio::join!(first.round(), second.round());
    assert_eq!(one.unwrap() + two.unwrap(), 1, "of two schedulers one tells");
    assert_eq!((first.round().await.unwrap(), second.round().await.unwrap()), (0, 0));
    scene.push(&live).await;
    assert_eq!(first.round().await.unwrap(), 0, "all of them are known now, for how long is to be seen");
    later(11 * 60_000);
    assert_eq!(first.round().await.unwrap(), 1);

    later(7 * DAY_MS);
    let window = watched.window.clone().unwrap().next(scene.clock.now()).0;
    first = Watch::new(scene.stores.clone(), watched.clone());
    assert_eq!(first.round().await.unwrap(), 2, "the window of the next night, and a certificate that ends in 13 days");
    assert_eq!(first.round().await.unwrap(), 0);

    // One that sees another clock, and one that knows of no certificate, do not take back what others say.
    let slow = ManualClock::at(scene.clock.now().plus_ms(-60_000));
    let clocks: Vec<Arc<dyn ServerClock>> = vec![Arc::new(Other(slow.clone()))];
    let mut third = Watch::new(scene.stores.clone(), Watched { clocks, certificate: None, window: None });
    assert_eq!(third.round().await.unwrap(), 1, "the clock");
    for _ in 0..3 {
        later(9 * 60_000);
        slow.advance_ms(9 * 60_000);
        assert_eq!((third.round().await.unwrap(), first.round().await.unwrap()), (0, 0));
    }
    later(11 * 60_000);
    assert_eq!(first.round().await.unwrap(), 1, "nobody says so any more");
    let mut words = told(&post).await;
    words[..2].sort();
    words[5..7].sort();
    assert_eq!(
        words,
        [
            "alert.raised clock:redis",
            "alert.raised quota:acme",
            "alert.cleared clock:redis",
            "alert.raised stuck-jobs",
            "alert.cleared stuck-jobs",
            "alert.raised certificate",
            &format!("alert.raised maintenance:{window}"),
            "alert.raised clock:redis",
            "alert.cleared clock:redis",
        ]
    );
}
