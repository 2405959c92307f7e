//! Webhooks: what a receiver gets, again and again where it has to be, and what one receiver does to the others.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use queue_core::{
    breaker::{Ended, ProbeId},
    credentials::{Credentials, MasterKeys},
    egress::{Allowed, Egress},
    ids::{Epoch, SessionId},
    time::Clock,
    webhooks::{
        ClaimDeliveries, Delivery, DeliveryState, Endpoint, EventKind, Listing, Owner, first_secret, rotate, signature,
    },
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use uuid::Uuid;

use super::Scene;
use crate::{
    Outbound,
    webhooks::{Sender, look_at_circuits},
};

/// A receiver that answers what it is told to and keeps what it got.
struct Receiver {
    url: String,
    got: Arc<Mutex<Vec<Got>>>,
    status: Arc<AtomicUsize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    id: String,
    timestamp: i64,
    signature: String,
    body: String,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?token=canary", listener.local_addr().unwrap());
        let (got, status) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(200)));
        let (kept, answers) = (got.clone(), status.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut text = Vec::new();
                let mut piece = [0; 4_096];
                let request = loop {
                    let read = stream.read(&mut piece).await.unwrap_or_default();
                    text.extend_from_slice(&piece[..read]);
                    if let Some(whole) = whole(&String::from_utf8_lossy(&text)) {
                        break Some(whole);
                    }
                    if read == 0 {
                        break None;
                    }
                };
                kept.lock().unwrap().extend(request);
                let status = answers.load(Ordering::SeqCst);
                let extra = if status == 429 { "retry-after: 7200\r\n" } else { "" };
                let answer =
                    format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{extra}content-length: 4\r\n\r\nwell");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, got, status }
    }

    fn answers(&self, status: usize) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

fn whole(text: &str) -> Option<Got> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_default().to_owned()
    };
    (body.len() >= header("content-length").parse().ok()?).then(|| Got {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp").parse().unwrap(),
        signature: header("webhook-signature"),
        body: body.to_owned(),
    })
}

pub(super) struct Post {
    pub(super) scene: Scene,
    keys: MasterKeys,
    outbound: Outbound,
}

impl Post {
    pub(super) async fn new() -> Self {
        let scene = Scene::new().await;
        let keys = MasterKeys::parse(MasterKeys::generate().unwrap().expose_secret()).unwrap();
        let credentials = Arc::new(Credentials::of(scene.stores.vault.clone()));
        credentials.set_master_keys(Ok(keys.clone()));
        let allowed = Allowed { http: true, networks: vec!["127.0.0.0/8".parse().unwrap()] };
        let outbound = Outbound { egress: Egress::new(allowed), credentials };
        Self { scene, keys, outbound }
    }

    fn sender(&self) -> Sender {
        Sender::new(self.scene.stores.clone(), self.outbound.clone())
    }

    pub(super) async fn endpoint(&self, url: &str, events: &[EventKind]) -> (Uuid, SecretString) {
        let id = Uuid::now_v7();
        let (secret, sealed) = first_secret(&self.keys, &Owner::Endpoint(id)).unwrap();
        let endpoint = Endpoint {
            id,
            tenant: None,
            url: url.to_owned(),
            events: events.to_vec(),
            enabled: true,
            reason: None,
            description: None,
            version: 1,
            created_at: self.scene.clock.now(),
        };
        assert!(self.scene.stores.webhooks.add_endpoint(endpoint, sealed).await.unwrap());
        (id, secret)
    }

    /// Jobs that end, and tell `url` if there is one.
    async fn ends(&self, count: usize, url: Option<&str>) {
        for id in self.scene.accept(count, |job| job.webhook = url.map(str::to_owned)).await {
            self.scene.settle(id, Epoch(0)).await;
        }
    }

    pub(super) async fn deliveries(&self) -> Vec<Delivery> {
        self.scene.stores.webhooks.deliveries(Listing::All, i64::MAX, 500).await.unwrap()
    }

    async fn one(&self) -> Delivery {
        let mut all = self.deliveries().await;
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }
}

async fn round(sender: &mut Sender) -> usize {
    let taken = sender.round().await.unwrap();
    sender.finish().await;
    taken
}

#[tokio::test]
async fn a_message_is_signed_and_says_what_happened() {
    let (post, receiver) = (Post::new().await, Receiver::start().await);
    let (_, secret) = post.endpoint(&receiver.url, &[EventKind::JobSucceeded]).await;
    post.ends(1, None).await;
    let mut sender = post.sender();
    assert_eq!(round(&mut sender).await, 1);
    let delivery = post.one().await;
    assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Delivered, 1));
    let [got] = &receiver.got()[..] else { panic!("one message") };
    assert_eq!(got.id, format!("msg_{}", delivery.id.simple()));
    let now = post.scene.clock.now();
    assert_eq!(got.timestamp, now.0 / 1_000);
    assert_eq!(got.signature, signature(&[secret], &got.id, got.timestamp, got.body.as_bytes()));
    let body: Value = serde_json::from_str(&got.body).unwrap();
    assert_eq!((&body["type"], &body["timestamp"]), (&"job.succeeded".into(), &now.to_string().into()));
    let data = &body["data"];
    assert_eq!((&data["state"], &data["kind"], &data["attempts"]), (&"succeeded".into(), &"llm".into(), &1.into()));
    assert_eq!(data["id"], delivery.job.unwrap().to_string());
    assert!(data.get("result").is_none());
    assert_eq!(round(&mut sender).await, 0, "once");
}

#[tokio::test]
async fn a_message_is_sent_again_until_it_is_taken() {
    let (post, receiver) = (Post::new().await, Receiver::start().await);
    post.endpoint(&receiver.url, &EventKind::ALL).await;
    receiver.answers(500);
    post.ends(1, None).await;
    let mut sender = post.sender();
    assert_eq!(round(&mut sender).await, 1);
    let first = post.one().await;
    assert_eq!((first.state, first.attempts, first.last.as_deref()), (DeliveryState::Pending, 1, Some("500")));
    let wait = first.due_at.since_ms(post.scene.clock.now());
    assert!((4_500..=5_500).contains(&wait), "{wait}");
    assert_eq!(round(&mut sender).await, 0, "not before its time");
    // It asks for two hours.
    receiver.answers(429);
    post.scene.clock.advance_ms(5_500);
    assert_eq!(round(&mut sender).await, 1);
    assert_eq!(post.one().await.due_at.since_ms(post.scene.clock.now()), 7_200_000);
    receiver.answers(204);
    post.scene.clock.advance_ms(7_200_000);
    assert_eq!(round(&mut sender).await, 1);
    assert_eq!(post.one().await.state, DeliveryState::Delivered);
    let got = receiver.got();
    assert_eq!(got.len(), 3);
    assert!(got.iter().all(|one| one.id == got[0].id && one.body == got[0].body), "{got:?}");
    assert!(got[2].timestamp > got[0].timestamp && got[2].signature != got[0].signature);
    let log = post.scene.stores.webhooks.delivery_attempts(first.seq).await.unwrap();
    let statuses: Vec<_> = log.iter().map(|attempt| attempt.status.unwrap()).collect();
    assert_eq!((statuses, log[0].answer.as_deref()), (vec![500, 429, 204], Some("well")));
}

#[tokio::test]
async fn after_about_a_day_it_is_given_up_and_can_be_replayed() {
    let (post, receiver) = (Post::new().await, Receiver::start().await);
    post.endpoint(&receiver.url, &EventKind::ALL).await;
    receiver.answers(503);
    post.ends(1, None).await;
    let begin = post.scene.clock.now();
    loop {
        // A process of its own each time: what it knows of the lane is not what is asked here.
        assert_eq!(round(&mut post.sender()).await, 1);
        let delivery = post.one().await;
        if delivery.state == DeliveryState::Failed {
            break;
        }
        post.scene.clock.advance_ms(delivery.due_at.since_ms(post.scene.clock.now()));
    }
    let hours = post.scene.clock.now().since_ms(begin) / 3_600_000;
    assert!((21..=27).contains(&hours), "{hours}");
    assert_eq!(receiver.got().len(), 12);
    receiver.answers(200);
    let id = post.one().await.id;
    assert!(post.scene.stores.webhooks.replay_delivery(id, post.scene.clock.now()).await.unwrap());
    assert_eq!(round(&mut post.sender()).await, 1);
    assert_eq!(
        (post.one().await.state, receiver.got()[12].id == receiver.got()[0].id),
        (DeliveryState::Delivered, true)
    );
}

#[tokio::test]
async fn gone_switches_the_endpoint_off_and_drops_what_waits() {
    let (post, receiver) = (Post::new().await, Receiver::start().await);
    let (id, _) = post.endpoint(&receiver.url, &EventKind::ALL).await;
    receiver.answers(410);
    post.ends(1, None).await;
    let mut sender = post.sender();
    assert_eq!(round(&mut sender).await, 1);
    let endpoint = post.scene.stores.webhooks.endpoints().await.unwrap().remove(0);
    assert_eq!((endpoint.id, endpoint.enabled), (id, false));
    assert_eq!(post.one().await.state, DeliveryState::Dropped);
    // What was written before it was switched off.
    let id = post.one().await.id;
    assert!(post.scene.stores.webhooks.replay_delivery(id, post.scene.clock.now()).await.unwrap());
    assert_eq!(round(&mut sender).await, 1);
    assert_eq!((post.one().await.state, receiver.got().len()), (DeliveryState::Dropped, 1));
}

#[tokio::test]
async fn a_receiver_that_is_down_holds_nobody_up() {
    let (post, dead, alive) = (Post::new().await, Receiver::start().await, Receiver::start().await);
    let owner = Owner::Tenant("default".into());
    rotate(&*post.scene.stores.webhooks, &post.keys, &owner, 0, post.scene.clock.now()).await.unwrap();
    dead.answers(500);
    post.ends(40, Some(&dead.url)).await;
    post.ends(3, Some(&alive.url)).await;
    let mut sender = post.sender();
    while round(&mut sender).await > 0 {}
    assert_eq!(alive.got().len(), 3);
    let tried = dead.got().len();
    assert!((5..=12).contains(&tried), "it rests after a few failures: {tried}");
    post.scene.clock.advance_ms(3_600_000);
    assert_eq!(round(&mut sender).await, 0, "while it rests, its messages are not tried");
    assert_eq!(dead.got().len(), tried);
    let pending = post.deliveries().await.into_iter().filter(|one| one.state == DeliveryState::Pending).count();
    assert_eq!(pending, 40);
}

#[tokio::test]
async fn what_waits_for_a_day_behind_a_receiver_that_is_down_is_given_up() {
    let (post, dead) = (Post::new().await, Receiver::start().await);
    dead.answers(500);
    post.endpoint(&dead.url, &EventKind::ALL).await;
    post.ends(20, None).await;
    let mut sender = post.sender();
    let failed = async || {
        let all = post.deliveries().await;
        all.into_iter().filter(|one| one.state == DeliveryState::Failed).collect::<Vec<_>>()
    };
    while round(&mut sender).await > 0 {}
    let tried = dead.got().len();
    post.scene.clock.advance_ms(26 * 3_600_000);
    // Nobody knows yet that it is down: one that failed may be an accident, after schedulers were away for a day.
    assert_eq!(round(&mut post.sender()).await, 4);
    assert!(failed().await.is_empty());
    post.ends(1, None).await;
    sender.look_again();
    assert_eq!(round(&mut sender).await, 4);
    let given_up = failed().await;
    assert_eq!(given_up.len(), 20 - 8, "not those that were tried just now, nor the young one");
    assert!(given_up.iter().all(|one| one.last.as_deref().unwrap().starts_with("given up")), "{given_up:?}");
    assert_eq!(dead.got().len(), tried + 8, "they were not sent");
}

#[tokio::test]
async fn what_a_dead_scheduler_took_is_sent_by_another_with_the_same_id() {
    let (post, receiver) = (Post::new().await, Receiver::start().await);
    post.endpoint(&receiver.url, &EventKind::ALL).await;
    post.ends(1, None).await;
    let now = post.scene.clock.now();
    let claim = ClaimDeliveries {
        behind: String::new(),
        except: vec![],
        per_lane: 4,
        limit: 4,
        now,
        until: now.plus_ms(60_000),
        owner: SessionId::generate(),
    };
    let taken = post.scene.stores.webhooks.claim_deliveries(claim).await.unwrap();
    let mut sender = post.sender();
    assert_eq!((taken.len(), round(&mut sender).await), (1, 0));
    post.scene.clock.advance_ms(60_000);
    assert_eq!(round(&mut sender).await, 1);
    assert_eq!(receiver.got()[0].id, taken[0].message_id());
}

#[tokio::test]
async fn what_cannot_be_signed_waits_without_being_tried() {
    let (post, receiver) = (Post::new().await, Receiver::start().await);
    let (id, first) = post.endpoint(&receiver.url, &EventKind::ALL).await;
    post.outbound.credentials.set_master_keys(Err("no file".into()));
    post.ends(1, None).await;
    let mut sender = post.sender();
    assert_eq!(round(&mut sender).await, 1);
    let waits = post.one().await;
    assert_eq!((waits.state, waits.attempts, waits.tries), (DeliveryState::Pending, 0, 0));
    assert!(waits.last.as_deref().unwrap().contains("no master key"), "{waits:?}");
    post.outbound.credentials.set_master_keys(Ok(post.keys.clone()));
    let webhooks = &*post.scene.stores.webhooks;
    let now = post.scene.clock.now();
    let (second, version) = rotate(webhooks, &post.keys, &Owner::Endpoint(id), 3_600_000, now).await.unwrap();
    assert_eq!(version, 2);
    post.scene.clock.advance_ms(60_000);
    assert_eq!(round(&mut sender).await, 1);
    let [got] = &receiver.got()[..] else { panic!("one message") };
    let signed = |secrets: &[SecretString]| signature(secrets, &got.id, got.timestamp, got.body.as_bytes());
    assert_eq!(got.signature, signed(&[second, first]), "both secrets are valid");
}

#[tokio::test]
async fn nobody_is_sent_where_only_this_network_leads() {
    let (mut post, receiver) = (Post::new().await, Receiver::start().await);
    post.outbound.egress = Egress::new(Allowed { http: true, networks: vec![] });
    post.endpoint(&receiver.url, &EventKind::ALL).await;
    post.ends(1, None).await;
    assert_eq!(round(&mut post.sender()).await, 1);
    let delivery = post.one().await;
    assert!(delivery.last.as_deref().unwrap().contains("loopback"), "{delivery:?}");
    assert!(receiver.got().is_empty());
}

#[tokio::test]
async fn circuits_are_told_when_they_open_and_close() {
    let post = Post::new().await;
    let stores = &post.scene.stores;
    let open = async |circuit: &str| {
        let end = queue_core::breaker::End::Exhausted(60_000);
        let ended =
            Ended { circuit: circuit.into(), probe: ProbeId::generate(), end, successes: 0, reason: "no money".into() };
        stores.breakers.end(ended).await.unwrap();
    };
    open("p:*:default").await;
    assert_eq!(look_at_circuits(stores).await.unwrap(), 0, "nobody wants to hear");
    post.endpoint("https://receiver.example/", &[EventKind::BreakerOpened, EventKind::BreakerClosed]).await;
    open("p:*:@acme").await;
    assert_eq!(look_at_circuits(stores).await.unwrap(), 2, "also what was open already");
    assert_eq!(look_at_circuits(stores).await.unwrap(), 0);
    stores.breakers.close(&"p:*:default".into()).await.unwrap();
    assert_eq!(look_at_circuits(stores).await.unwrap(), 1);
    let mut told: Vec<_> = post
        .deliveries()
        .await
        .into_iter()
        .map(|one| {
            let body: Value = serde_json::from_str(one.body.as_deref().unwrap()).unwrap();
            let circuit = body["data"]["target"].as_str().unwrap().to_owned();
            (one.event, circuit, one.tenant.map(|tenant| tenant.to_string()), body["data"]["reason"].clone())
        })
        .collect();
    told.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let expected = [
        (EventKind::BreakerOpened, "p:*:@acme".into(), Some("acme".into()), "no money".into()),
        (EventKind::BreakerOpened, "p:*:default".into(), None, "no money".into()),
        (EventKind::BreakerClosed, "p:*:default".into(), None, Value::Null),
    ];
    assert_eq!(told, expected);
}
