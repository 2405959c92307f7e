//! Jobs of kind `http`, against a service that answers what it is told, and jobs of one's own handlers.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::rig::Rig;
use async_trait::async_trait;
use bytes::Bytes;
use queue_core::{
    credentials::{Credentials, MasterKeys},
    dispatcher::Wait,
    egress::{Allowed, Egress},
    error::{ErrorClass, JobError},
    ids::JobId,
    job::{Job, Kind, NewJob},
    journal::TargetSettings,
    payload::http::target_of,
    state::Standing,
    webhooks::{Owner, for_jobs, rotate, signature},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use worker::{
    Config,
    context::{Handler, JobContext},
    handlers::{Handlers, input},
    provider::Providers,
};

/// What a service was asked.
#[derive(Clone, Debug)]
struct Asked {
    head: String,
    body: String,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(prefix.as_str())).unwrap_or_default()
    }
}

/// A service that gives these answers (status, headers, body), the last one for ever.
struct Service {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Service {
    async fn start(answers: &[(u16, &str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/work", listener.local_addr().unwrap());
        let mut answers: VecDeque<String> = answers
            .iter()
            .map(|(status, headers, body)| {
                let length = body.len();
                format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}")
            })
            .collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut text = Vec::new();
                let mut piece = [0; 4_096];
                let request = loop {
                    let read = stream.read(&mut piece).await.unwrap_or_default();
                    text.extend_from_slice(&piece[..read]);
                    let sent = String::from_utf8_lossy(&text).into_owned();
                    if let Some((head, body)) = sent.split_once("\r\n\r\n") {
                        let asked = Asked { head: head.to_owned(), body: body.to_owned() };
                        if asked.body.len() >= asked.header("content-length").parse().unwrap_or(0) {
                            break Some(asked);
                        }
                    }
                    if read == 0 {
                        break None;
                    }
                };
                kept.lock().unwrap().extend(request);
                let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
                let _ = stream.write_all(answer.unwrap().as_bytes()).await;
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// A rig whose tenant has a signing secret.
async fn rig() -> (Rig, SecretString) {
    let mut rig = Rig::new(Providers::new()).await;
    let keys = MasterKeys::parse(MasterKeys::generate().unwrap().expose_secret()).unwrap();
    let credentials = Credentials::of(rig.stores.vault.clone());
    credentials.set_master_keys(Ok(keys.clone()));
    rig.around.credentials = Arc::new(credentials);
    let (webhooks, now) = (&*rig.stores.webhooks, rig.stores.clock.now());
    let (secret, _) = rotate(webhooks, &keys, &Owner::Tenant("default".into()), 0, now).await.unwrap();
    (rig, for_jobs(&secret).unwrap())
}

async fn submit(rig: &Rig, payload: &Value, change: impl FnOnce(&mut NewJob)) -> JobId {
    let target = target_of(payload["url"].as_str().unwrap()).name();
    rig.submit(Kind::Http, &payload.to_string(), |job| {
        job.target = target;
        change(job);
    })
    .await
}

async fn ended(rig: &Rig, payload: &Value) -> Job {
    let id = submit(rig, payload, |_| {}).await;
    rig.ended(id).await
}

async fn result(rig: &Rig, id: JobId) -> Value {
    serde_json::from_slice(&rig.stores.reads.result(id).await.unwrap().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_delivered_signed_and_its_answer_is_the_result() {
    let service = Service::start(&[(201, "content-type: application/json\r\n", r#"{"stored":7}"#)]).await;
    let (mut rig, secret) = rig().await;
    rig.work(4, Duration::from_secs(5));
    let payload = json!({"url": service.url, "method": "PUT", "headers": {"X-Own": "yes"}, "body": {"a": 1}});
    let job = ended(&rig, &payload).await;
    assert_eq!((job.standing, job.attempts), (Standing::Succeeded, 1));
    let expected = json!({"status": 201, "content_type": "application/json", "body": {"stored": 7}});
    assert_eq!(result(&rig, job.id).await, expected);
    let asked = service.asked().remove(0);
    assert!(asked.head.starts_with("PUT /work HTTP/1.1"), "{}", asked.head);
    assert_eq!((asked.body.as_str(), asked.header("x-own")), (r#"{"a":1}"#, "yes"));
    assert_eq!(asked.header("content-type"), "application/json");
    assert_eq!(asked.header("longshore-job-id"), job.id.to_string());
    let (id, at) = (asked.header("webhook-id"), asked.header("webhook-timestamp").parse().unwrap());
    assert_eq!(asked.header("webhook-signature"), signature(&[secret], id, at, asked.body.as_bytes()));
    assert!(rig.stores.reads.calls(job.id).await.unwrap().is_empty(), "it costs nothing");
    assert_eq!(job.cost.unwrap().0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_by_itself_is_tried_again_and_the_rest_is_final() {
    let (mut rig, _) = rig().await;
    rig.work(4, Duration::from_secs(5));
    for (status, class, attempts) in [
        (500, ErrorClass::Server, 2),
        (408, ErrorClass::Server, 2),
        (503, ErrorClass::Server, 2),
        (400, ErrorClass::Permanent, 1),
        (404, ErrorClass::Permanent, 1),
        (302, ErrorClass::Permanent, 1),
    ] {
        let service = Service::start(&[(status, "", "no thanks"), (200, "", "ok")]).await;
        let job = ended(&rig, &json!({"url": service.url})).await;
        let succeeds = attempts > 1;
        assert_eq!(job.standing == Standing::Succeeded, succeeds, "{status}: {job:?}");
        let error = job.error.unwrap();
        assert_eq!((error.class, error.code.as_str(), job.attempts), (class, &*status.to_string(), attempts));
        assert!(error.message.contains("no thanks"), "{}", error.message);
        let asked = service.asked();
        assert_eq!(asked.len(), attempts as usize);
        assert_eq!(asked[0].header("webhook-id"), asked[attempts as usize - 1].header("webhook-id"));
    }
    // 429 costs no attempt, and its wish is obeyed.
    let service = Service::start(&[(429, "retry-after: 1\r\n", ""), (200, "", "ok")]).await;
    let before = std::time::Instant::now();
    let job = ended(&rig, &json!({"url": service.url})).await;
    assert_eq!((job.standing, job.attempts), (Standing::Succeeded, 1));
    assert!(before.elapsed() >= Duration::from_secs(1));
    assert_eq!(result(&rig, job.id).await["body"], "ok");
    // Nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let id = submit(&rig, &json!({"url": format!("http://{closed}/")}), |job| job.max_attempts = 1).await;
    assert_eq!(rig.ended(id).await.error.unwrap().class, ErrorClass::TransportPre);
}

/// What a service says is for its own job: others hear only that it does not work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_words_of_a_service_reach_no_other_job() {
    let (mut rig, _) = rig().await;
    rig.work(1, Duration::from_secs(5));
    let service = Service::start(&[(500, "", "the words of one")]).await;
    let payload = json!({"url": service.url});
    let told = async |id| {
        let waits = rig.stores.dispatcher.explain(id).await.unwrap();
        waits.into_iter().find_map(|wait| match wait {
            Wait::TargetParked { reason, .. } | Wait::TargetTried { reason, .. } => Some(reason),
            _ => None,
        })
    };
    // A service that only fails is left alone after some calls.
    let mut parked = None;
    for _ in 0..50 {
        let id = submit(&rig, &payload, |job| job.max_attempts = 1).await;
        rig.until("ended or left alone", async || rig.row(id).await.standing.is_final() || told(id).await.is_some())
            .await;
        let row = rig.row(id).await;
        if !row.standing.is_final() {
            parked = told(id).await;
            break;
        }
        let error = row.error.unwrap();
        assert!(error.message.contains("the words of one"), "its own job has them: {error}");
    }
    let reason = parked.expect("a service that only fails is left alone");
    assert!(reason.contains("500") && !reason.contains("words"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_has_a_size_and_a_time() {
    let (mut rig, _) = rig().await;
    rig.work(4, Duration::from_secs(5));
    let large = "x".repeat(1024 * 1024 + 1);
    let service = Service::start(&[(200, "", &large)]).await;
    let job = ended(&rig, &json!({"url": service.url})).await;
    assert_eq!(job.error.unwrap().code, "answer_too_large");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let id = submit(&rig, &json!({"url": url, "timeout": "1s"}), |job| job.max_attempts = 1).await;
    assert_eq!(rig.ended(id).await.error.unwrap().class, ErrorClass::Timeout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_sent_where_only_this_network_leads() {
    let service = Service::start(&[(200, "", "secret")]).await;
    let (mut rig, _) = rig().await;
    rig.around.egress = Egress::new(Allowed { http: true, networks: vec![] });
    rig.work(4, Duration::from_secs(5));
    let job = ended(&rig, &json!({"url": service.url})).await;
    assert_eq!((job.standing, job.error.unwrap().code.as_str()), (Standing::Dead, "url_refused"));
    assert!(service.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_paused_like_any_target() {
    let service = Service::start(&[(200, "", "ok")]).await;
    let (mut rig, _) = rig().await;
    let target = target_of(&service.url).name();
    let paused = TargetSettings { paused: true, reason: Some("their maintenance".into()), ..TargetSettings::default() };
    let settings = queue_core::journal::Versioned { version: 1, value: paused };
    rig.stores.breakers.set(&target, settings).await.unwrap();
    rig.work(4, Duration::from_secs(5));
    let id = submit(&rig, &json!({"url": service.url}), |_| {}).await;
    rig.until("put back", async || rig.row(id).await.releases > 0).await;
    let error = rig.row(id).await.error.unwrap();
    assert!(error.class == ErrorClass::Breaker && error.message.contains("their maintenance"), "{error}");
    assert!(service.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_secret_cannot_be_read_waits_unspent() {
    let service = Service::start(&[(200, "", "ok")]).await;
    let (mut rig, _) = rig().await;
    rig.around.credentials.set_master_keys(Err("no file".into()));
    rig.work(4, Duration::from_secs(5));
    let id = submit(&rig, &json!({"url": service.url}), |_| {}).await;
    rig.until("put back", async || rig.row(id).await.releases > 0).await;
    let row = rig.row(id).await;
    assert_eq!((row.attempts, row.error.unwrap().code.as_str()), (0, "signing_secret"));
    assert!(service.asked().is_empty());
}

/// Counts words; fails once if it is told to.
struct WordCount;

#[derive(Deserialize)]
struct Words {
    text: String,
    #[serde(default)]
    fails_once: bool,
}

#[async_trait]
impl Handler for WordCount {
    async fn run(&self, cx: &JobContext) -> Result<Bytes, JobError> {
        let Words { text, fails_once } = input(cx)?;
        if fails_once && cx.attempt() == 1 {
            return Err(JobError::new(ErrorClass::Transient, "once", "not yet"));
        }
        Ok(json!({"words": text.split_whitespace().count()}).to_string().into())
    }
}

fn config() -> Config {
    let host = "own".to_owned();
    Config { slots: 4, queues: vec![], kinds: vec![], timeouts: BTreeMap::new(), drain: Duration::from_secs(5), host }
}

async fn custom(rig: &Rig, payload: Value) -> JobId {
    let target = format!("custom:{}:default", payload["handler"].as_str().unwrap());
    rig.submit(Kind::Custom, &payload.to_string(), |job| job.target = target.as_str().into()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_of_ones_own_has_retries_and_results_like_any_other() {
    let mut rig = Rig::new(Providers::new()).await;
    rig.work_by(config(), Handlers::new().with("word-count", WordCount).unwrap());
    let id = custom(&rig, json!({"handler": "word-count", "input": {"text": "a b c", "fails_once": true}})).await;
    let job = rig.ended(id).await;
    assert_eq!((job.standing, job.attempts), (Standing::Succeeded, 2));
    assert_eq!(result(&rig, id).await, json!({"words": 3}));
    let id = custom(&rig, json!({"handler": "word-count", "input": {"txt": 1}})).await;
    let error = rig.ended(id).await.error.unwrap();
    assert!(error.class == ErrorClass::BadRequest && error.message.contains("/payload/input"), "{error}");
    let id = custom(&rig, json!({"handler": "other"})).await;
    let error = rig.ended(id).await.error.unwrap();
    assert!(error.class == ErrorClass::Config && error.message.contains("word-count"), "{error}");
    assert!(Handlers::new().with("a:b", WordCount).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_handlers_leaves_their_jobs_to_others() {
    let mut rig = Rig::new(Providers::new()).await;
    rig.work(4, Duration::from_secs(5));
    let theirs = custom(&rig, json!({"handler": "word-count", "input": {"text": "a"}})).await;
    let ours = rig.probe("{}").await;
    assert_eq!(rig.ended(ours).await.standing, Standing::Succeeded);
    let waits = rig.stores.dispatcher.explain(theirs).await.unwrap();
    assert!(waits.iter().any(|wait| matches!(wait, Wait::NoWorker)), "{waits:?}");
    assert_eq!(rig.row(theirs).await.standing, Standing::Live);
}
