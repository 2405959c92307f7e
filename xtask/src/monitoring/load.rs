//! A load of which every alert and panel has something to see: jobs that succeed, fail, are repaired, cut and refused, and whatever is
//! ordered once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::Receiver;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::cluster::{Cluster, KEY};

/// Time between two rounds of jobs.
const ROUND_EVERY: Duration = Duration::from_millis(500);
/// Longest wait for what is ordered: a backup and its drill.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks at something that no signal announces.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The model that the simulated provider has; what follows a `!` goes wrong.
const MODEL: &str = "simulated-chat";

/// The load, until it is stopped.
pub(super) struct Load {
    api: Api,
    end: watch::Sender<bool>,
    rounds: JoinHandle<Result<()>>,
    /// Is told of dead jobs.
    webhooks: Receiver,
}

impl Load {
    /// Submits to these APIs in turn.
    pub(super) async fn start(apis: &[String]) -> Self {
        let (end, ended) = watch::channel(false);
        let apis: Vec<Api> = apis.iter().map(|url| Api { http: reqwest::Client::new(), url: url.clone() }).collect();
        let api = apis[0].clone();
        let rounds = tokio::spawn(async move {
            let mut number = 0;
            while !*ended.borrow() {
                apis[number % apis.len()].round(number).await?;
                number += 1;
                sleep(ROUND_EVERY).await;
            }
            Ok(())
        });
        Self { api, end, rounds, webhooks: Receiver::start().await }
    }

    /// What is done once, while the load runs: a webhook, a tenant's own key, a schedule, limits, an operation, maintenance of all
    /// kinds, a flush.
    pub(super) async fn orders(&self, cluster: &Cluster) -> Result<()> {
        let api = &self.api;
        api.ask(Method::POST, "/v1/webhooks", &json!({"url": self.webhooks.url(), "events": ["job.dead"]})).await?;
        let key = json!({"key": "sk-of-a-tenant"});
        api.ask(Method::PUT, "/v1/tenants/acme/credentials/simulated", &key).await?;
        let template = json!({"queue": "probes", "kind": "probe", "payload": {}});
        api.ask(Method::POST, "/v1/schedules", &json!({"name": "often", "every": "1s", "template": template})).await?;
        let limit = json!({"requests_per_minute": 600, "tokens_per_minute": 2_000_000});
        api.ask(Method::PUT, "/v1/limits/simulated:simulated-chat:default", &limit).await?;
        let backup = api.ask(Method::POST, "/v1/backups", &json!({"scope": "full"})).await?;
        let id = backup["id"].as_str().context("a backup has an id")?.to_owned();
        self.until(&format!("/v1/backups/{id}"), "the backup", |row| &row["state"]).await?;
        api.ask(Method::POST, &format!("/v1/backups/{id}/verify"), &json!({"restore": true})).await?;
        self.until(&format!("/v1/backups/{id}"), "the drill", |row| &row["check"]["state"]).await?;
        api.ask(Method::POST, "/v1/retention/run", &Value::Null).await?;
        api.ask(Method::POST, "/v1/maintenance/run", &json!({"dry_run": false})).await?;
        let redrive = json!({"action": "redrive", "filter": "queue = probes", "reason": "a look at the monitoring"});
        api.ask(Method::POST, "/v1/operations", &redrive).await?;
        // The dispatcher is filled from the journal, which takes a moment and is measured.
        cluster.redis.flush();
        Ok(())
    }

    /// Waits until something is `good`.
    async fn until(&self, path: &str, what: &str, state: impl Fn(&Value) -> &Value) -> Result<()> {
        let looks = async {
            loop {
                let row = self.api.ask(Method::GET, path, &Value::Null).await?;
                match state(&row).as_str() {
                    Some("good") => return Ok(()),
                    Some("failed") => anyhow::bail!("{what} has failed: {row}"),
                    _ => sleep(LOOK_EVERY).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, looks).await.with_context(|| format!("{what} takes too long"))?
    }

    /// Ends it, and says what was wrong.
    pub(super) async fn stop(self) -> Result<()> {
        self.end.send_replace(true);
        self.rounds.await.context("the load has panicked")?
    }
}

/// One API process.
#[derive(Clone)]
struct Api {
    http: reqwest::Client,
    url: String,
}

impl Api {
    /// Asks, and again where the answer is "not now": as it is while the dispatcher is filled after the flush.
    async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let began = Instant::now();
        loop {
            let asked = self.http.request(method.clone(), format!("{}{path}", self.url)).bearer_auth(KEY);
            let asked = if body.is_null() { asked } else { asked.json(body) };
            let answer = asked.send().await?;
            let status = answer.status();
            let text = answer.text().await?;
            if status == StatusCode::SERVICE_UNAVAILABLE && began.elapsed() < PATIENCE {
                sleep(LOOK_EVERY).await;
                continue;
            }
            ensure!(status.is_success(), "{path}: {status}: {text}");
            return Ok(serde_json::from_str(&text).unwrap_or_default());
        }
    }

    /// Jobs of every fate, and requests that are refused.
    async fn round(&self, number: usize) -> Result<()> {
        self.ask(Method::POST, "/v1/jobs/bulk", &json!(jobs(number))).await?;
        for path in ["/v1/queues/metrics", "/v1/jobs?limit=5"] {
            self.ask(Method::GET, path, &Value::Null).await?;
        }
        let refused = self.http.get(format!("{}/v1/jobs", self.url)).send().await?;
        ensure!(refused.status().as_u16() == 401, "without a key: {}", refused.status());
        Ok(())
    }
}

/// What a round submits.
fn jobs(number: usize) -> Vec<Value> {
    let probe = |payload: Value| json!({"queue": "probes", "kind": "probe", "payload": payload});
    let chat = |model: &str, prompt: &str, more: &[(&str, Value)]| {
        let mut payload = json!({"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 60});
        for (name, value) in more {
            payload[*name] = value.clone();
        }
        json!({"queue": "chats", "kind": "llm", "operation": "a-look", "max_attempts": 2, "payload": payload})
    };
    let wants_json = [("response_format", json!({"type": "json_object"}))];
    let prompt = |mark: &str| format!("Round {number}. {mark}");
    let mut jobs = vec![
        probe(json!({})),
        probe(json!({"sleep_ms": 400})),
        probe(json!({"fail": "transient", "fail_times": 1})),
        chat(MODEL, &prompt("Say hello."), &[]),
        chat(MODEL, &prompt("Say hello."), &wants_json),
        chat(MODEL, &prompt("[[fault:invalid:1]]"), &wants_json),
        chat(MODEL, &prompt("[[fault:length]]"), &[]),
        // Nobody knows its price.
        chat("simulated-unpriced", &prompt("Say hello."), &[]),
        // Asked before, by the same words.
        chat(MODEL, "Say the same as ever.", &[("cache", json!({"ttl": "1h"}))]),
        json!({"queue": "vectors", "kind": "embedding", "payload": {"model": "simulated-embedding", "input": [prompt(""), "the same text"]}}),
    ];
    if number.is_multiple_of(5) {
        jobs.extend([
            probe(json!({"fail": "permanent"})),
            chat(MODEL, &prompt("[[fault:invalid]]"), &wants_json),
            chat(MODEL, &prompt("[[fault:server:1]]"), &[]),
            chat(&format!("{MODEL}!rate"), &prompt("Say hello."), &[]),
            chat(&format!("{MODEL}!server"), &prompt("Say hello."), &[]),
        ]);
        let mut falls_back = chat(&format!("{MODEL}!server"), &prompt("Say hello."), &[]);
        falls_back["fallback"] = json!([{"model": MODEL, "on": ["server"]}]);
        jobs.push(falls_back);
    }
    jobs
}
