//! A whole installation with everything on it that an operator may ever look at: ten tenants, settled jobs of a month, dead letters of
//! twelve causes, and at this moment streams, an open breaker, a paused queue, a spent budget, a queue without a worker, an operation.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Behaviour, MockProvider};
use tokio::{process::Command, task::JoinSet, time::Instant};

use crate::{
    bars::Keys,
    cluster::{Cluster, KEY, Role},
};

/// What has happened before.
const SEED: &str = include_str!("seed.sql");
/// The tenants, as `seed.sql` names them.
const TENANTS: [&str; 10] =
    ["acme", "borealis", "corvid", "delta", "ember", "fjord", "garnet", "harbour", "iris", "juniper"];
/// Every queue that has a worker; `gpu-batch` has none.
const SERVED: &str = "default,chat,extraction,summaries,embeddings,reports,nightly,imports,backlog,live,hostile";
/// Dead letters of each cause: one of so many jobs, and never fewer than the least.
const LETTERS_OF: u64 = 200;
const LETTERS_MIN: u64 = 480;
/// Time between two tokens of the story, and its lines of five words: hours.
const STORY_TOKEN_MS: u64 = 700;
const STORY_LINES: usize = 3_000;
/// Longest wait for anything, and time between two looks.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Seconds after which the pages suspect that no worker serves a queue, and a moment.
const STANDS_S: f64 = 5.5;

/// The installation, and what its things are called.
pub(super) struct Scene {
    pub(super) cluster: Cluster,
    pub(super) provider: MockProvider,
    /// Where API and dashboard are.
    pub(super) url: String,
    /// Place of the API among the cluster's members.
    pub(super) api: usize,
    http: reqwest::Client,
    /// What stands in braces in the tables of `pages.rs`.
    names: BTreeMap<&'static str, String>,
    _files: TempDir,
    _age: Keys,
}

impl Scene {
    /// Starts it and lets so many jobs have ended.
    pub(super) async fn start(longshore: &Path, jobs: u64) -> Result<Self> {
        let (files, age, provider) = (tempfile::tempdir()?, Keys::make().await?, MockProvider::start().await);
        provider.set_latency_ms(20);
        let environment = environment(longshore, &files, &age, &provider).await?;
        let borrowed: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut cluster = Cluster::start(longshore, &borrowed).await?;
        cluster.spawn_all(&[Role::Scheduler, Role::Api, Role::Worker, Role::Worker]).await?;
        let (api, url) = (1, cluster.members[1].url.clone());
        let http = reqwest::Client::builder().timeout(PATIENCE).build()?;
        let names = BTreeMap::new();
        let mut scene = Self { cluster, provider, url, api, http, names, _files: files, _age: age };
        scene.prepare(jobs).await?;
        Ok(scene)
    }

    /// Where something of this name is, in a path of the tables: `/dashboard/jobs/{job}`.
    pub(super) fn path(&self, template: &str) -> Result<String> {
        filled(template, |name| self.names.get(name).map(|value| encoded(value)))
    }

    /// Likewise in a text that is no path.
    pub(super) fn words(&self, template: &str) -> Result<String> {
        filled(template, |name| self.names.get(name).cloned())
    }

    /// What is called so.
    pub(super) fn name(&self, name: &str) -> Result<&str> {
        self.names.get(name).map(String::as_str).with_context(|| format!("nothing is called {name}"))
    }

    /// From now on this stands for it.
    pub(super) fn call(&mut self, name: &'static str, value: impl Into<String>) {
        self.names.insert(name, value.into());
    }

    /// Asks the API as an admin; its answer, which has to be a success.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, told) = self.try_ask(method, path, body).await?;
        ensure!(status.is_success(), "{path}: {status} {told}");
        Ok(told)
    }

    /// Likewise; whatever it is.
    pub(super) async fn try_ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value)> {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(KEY);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| path.to_owned())?;
        let (status, text) = (answer.status(), answer.text().await?);
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// A look.
    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        self.ask(Method::GET, path, None).await
    }

    /// Submits jobs; their ids.
    pub(super) async fn submit(&self, jobs: &[Value]) -> Result<Vec<String>> {
        let told = self.ask(Method::POST, "/v1/jobs/bulk", Some(&json!(jobs))).await?;
        let ids = told["jobs"].as_array().into_iter().flatten();
        ids.map(|job| Ok(job["id"].as_str().with_context(|| format!("a job was refused: {job}"))?.to_owned())).collect()
    }

    /// Waits until an answer of the API is as it should be.
    pub(super) async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let began = Instant::now();
        loop {
            let told = self.get(path).await?;
            if holds(&told) {
                return Ok(told);
            }
            ensure!(began.elapsed() < PATIENCE, "{path} never became what it should: {told}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Runs SQL in the journal.
    pub(super) fn sql(&self, text: &str) -> String {
        self.cluster.sql(text)
    }

    async fn prepare(&mut self, jobs: u64) -> Result<()> {
        let began = Instant::now();
        let step = |what: &str| eprintln!("{:5.1} s  {what}", began.elapsed().as_secs_f64());
        // While there is little to back up.
        let backup = self.ask(Method::POST, "/v1/backups", Some(&json!({"reason": "before the release"}))).await?;
        self.call("backup", text(&backup, "/id")?);
        let path = self.path("/v1/backups/{backup}")?;
        self.until(&path, |backup| backup["state"] == "good").await?;
        step("a backup");
        let letters = (jobs / LETTERS_OF).max(LETTERS_MIN);
        let now_ms = self.sql("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint");
        let seed = SEED.replace("{now_ms}", &now_ms).replace("{jobs}", &jobs.to_string());
        self.sql(&seed.replace("{letters}", &letters.to_string()));
        // Its charts would show that million as the work of a minute: it begins to watch anew.
        self.cluster.restart(self.api).await?;
        self.cluster.ready(self.api).await?;
        step("jobs that have ended");
        self.make_tenants().await?;
        step("tenants");
        self.make_keys().await?;
        self.make_schedules().await?;
        step("keys, schedules");
        self.make_present().await?;
        step("what goes on now");
        self.name_things().await
    }

    async fn make_tenants(&self) -> Result<()> {
        // Side by side: each is answered only when every process knows it.
        let mut puts = JoinSet::new();
        for (number, tenant) in (1..).zip(TENANTS) {
            let mut settings = json!({"weight": 1 + number % 3, "backlog_max": 20_000 * number});
            if tenant == "iris" {
                settings["paused"] = json!(true);
                settings["reason"] = json!("the invoice of October is unpaid");
            }
            let request = self.http.put(format!("{}/v1/tenants/{tenant}", self.url)).bearer_auth(KEY).json(&settings);
            puts.spawn(async move { request.send().await?.error_for_status() });
        }
        while let Some(put) = puts.join_next().await {
            put??;
        }
        for (scope, budget) in [
            ("tenants/acme/budget", json!({"day_usd": "500.00", "month_usd": "5000.00"})),
            (
                "tenants/borealis/budget",
                json!({"month_usd": "9000.00", "at_limit": "degrade", "degrade_to": "gpt-4o-mini"}),
            ),
            // Less than it has spent today.
            ("tenants/ember/budget", json!({"day_usd": "0.01"})),
            ("budget", json!({"month_usd": "250000.00"})),
        ] {
            self.ask(Method::PUT, &format!("/v1/{scope}"), Some(&budget)).await?;
        }
        let hook = json!({"url": format!("{}/hooks", self.provider.url()), "events": ["job.dead", "budget.alert"], "description": "the night shift's pager"});
        self.ask(Method::POST, "/v1/webhooks", Some(&hook)).await?;
        Ok(())
    }

    async fn make_keys(&mut self) -> Result<()> {
        for (called, secret, key) in [
            ("key", "", json!({"name": "checkout", "role": "user", "tenant": "acme"})),
            (
                "key_of_export",
                "",
                json!({"name": "billing-export", "role": "analyst", "tenant": "acme", "expires_at": null}),
            ),
            ("key_to_revoke", "", json!({"name": "contractor", "role": "user", "tenant": "acme"})),
            (
                "",
                "reader",
                json!({"name": "on-call, may only look", "role": "operator", "scopes": ["*:read", "auth:token"], "tenant": "default"}),
            ),
            ("", "user", json!({"name": "service of acme", "role": "user", "tenant": "acme"})),
            ("", "analyst", json!({"name": "analyst of acme", "role": "analyst", "tenant": "acme"})),
            ("", "operator", json!({"name": "operator", "role": "operator", "tenant": "default"})),
        ] {
            let made = self.ask(Method::POST, "/v1/keys", Some(&key)).await?;
            if !called.is_empty() {
                self.call(called, text(&made, "/id")?);
            }
            if !secret.is_empty() {
                self.call(secret, text(&made, "/key")?);
            }
        }
        let gone = self
            .ask(Method::POST, "/v1/keys", Some(&json!({"name": "left in March", "role": "user", "tenant": "corvid"})))
            .await?;
        self.ask(Method::DELETE, &format!("/v1/keys/{}", text(&gone, "/id")?), None).await?;
        Ok(())
    }

    async fn make_schedules(&mut self) -> Result<()> {
        let template = json!({"queue": "reports", "kind": "llm", "operation": "weekly-report", "payload": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What happened this week?"}]}});
        for (called, schedule) in [
            (
                "schedule",
                json!({"name": "weekly-report", "tenant": "acme", "cron": "30 7 * * MON", "time_zone": "Europe/Berlin", "description": "before the Monday meeting", "template": template}),
            ),
            (
                "schedule_often",
                json!({"name": "heartbeat", "tenant": "acme", "every": "10s", "template": {"queue": "default", "kind": "probe", "payload": {}}}),
            ),
            (
                "schedule_paused",
                json!({"name": "old-import", "tenant": "corvid", "every": "1h", "paused": true, "reason": "the supplier has moved", "template": template}),
            ),
        ] {
            let made = self.ask(Method::POST, "/v1/schedules", Some(&schedule)).await?;
            self.call(called, text(&made, "/id")?);
        }
        Ok(())
    }

    /// What is going on now.
    async fn make_present(&mut self) -> Result<()> {
        let pause = json!({"paused": true, "reason": "waiting for the new price list"});
        self.ask(Method::PATCH, "/v1/queues/nightly", Some(&pause)).await?;
        self.ask(Method::PATCH, "/v1/queues/backlog", Some(&json!({"concurrency": 2}))).await?;
        let chat = |model: &str, words: &str| json!({"model": model, "messages": [{"role": "user", "content": words}]});
        let probe = |queue: &str, tenant: &str, payload: Value| json!({"queue": queue, "tenant": tenant, "kind": "probe", "payload": payload});
        let llm = |queue: &str, tenant: &str, payload: Value| json!({"queue": queue, "tenant": tenant, "kind": "llm", "payload": payload, "operation": "chat-answer"});
        let down = |number: usize| {
            let mut job = llm("chat", "delta", chat("mock-down!503", &format!("is anybody there? {number}")));
            job["max_attempts"] = json!(2);
            job
        };
        self.begin_story(&chat).await?;
        self.submit(&(0..40).map(down).collect::<Vec<_>>()).await?;
        let running = self.submit(&[probe("imports", "fjord", json!({"sleep_ms": 1_800_000}))]).await?;
        self.call("job_running", running[0].clone());
        let paused: Vec<_> =
            (0..25).map(|n| llm("nightly", TENANTS[n % 3], chat("gpt-4o-mini", &format!("translate {n}")))).collect();
        let waiting = self.submit(&paused).await?;
        self.call("job_waiting", waiting[0].clone());
        self.call("job_to_cancel", waiting[1].clone());
        self.submit(&(0..18).map(|_| probe("gpu-batch", "garnet", json!({"sleep_ms": 10}))).collect::<Vec<_>>())
            .await?;
        // One tenant floods a queue where two run at once; another one waits behind it.
        let flood = (0..600).map(|_| probe("backlog", "juniper", json!({"sleep_ms": 8_000})));
        let behind = (0..60).map(|_| probe("backlog", "harbour", json!({"sleep_ms": 8_000})));
        self.submit(&flood.chain(behind).collect::<Vec<_>>()).await?;
        let spent = self
            .submit(
                &(0..8)
                    .map(|n| llm("reports", "ember", chat("gpt-4o-mini", &format!("report {n}"))))
                    .collect::<Vec<_>>(),
            )
            .await?;
        self.call("job_over_budget", spent[0].clone());
        let tomorrow =
            self.sql("SELECT to_char(now() AT TIME ZONE 'UTC' + interval '1 day', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')");
        let later: Vec<_> = (0..900)
            .map(|_| json!({"queue": "imports", "tenant": "borealis", "kind": "probe", "payload": {}, "run_at": tomorrow, "batch_id": "old-import"}))
            .collect();
        self.submit(&later).await?;
        let streams: Vec<_> = (0..200)
            .map(|n| llm("chat", "acme", chat("slow-writer", &format!("tell me a long story, number {n}"))))
            .collect();
        self.submit(&streams).await?;
        let order = json!({"action": "cancel", "filter": "batch_id = old-import", "rate_per_s": 1, "reason": "the import was started twice"});
        let operation = self.ask(Method::POST, "/v1/operations", Some(&order)).await?;
        self.call("operation", text(&operation, "/id")?);
        let order = json!({"action": "redrive", "filter": "state = dead and error.class = timeout", "dry_run": true});
        let counted = self.ask(Method::POST, "/v1/operations", Some(&order)).await?;
        self.call("operation_counted", text(&counted, "/id")?);
        let path = format!("/v1/jobs/{}", running[0]);
        self.until(&path, |job| job["state"] == "running").await?;
        let down = |targets: &Value| list(targets, "/targets").any(|target| target["breaker"]["state"] == "open");
        self.until("/v1/targets", down).await?;
        self.until("/v1/jobs?queue=chat&state=running&limit=1", |page| list(page, "/jobs").next().is_some()).await?;
        // The pages suspect a queue of having no worker only when its jobs have waited for a while.
        let stands = |queues: &Value| {
            list(queues, "/queues").any(|queue| {
                queue["queue"] == "gpu-batch"
                    && queue["metrics"]["oldest_ready_seconds"].as_f64().is_some_and(|age| age >= STANDS_S)
            })
        };
        self.until("/v1/queues", stands).await?;
        Ok(())
    }

    /// An answer that does not end while anybody looks.
    async fn begin_story(&mut self, chat: &impl Fn(&str, &str) -> Value) -> Result<()> {
        self.provider.set_token_ms(STORY_TOKEN_MS);
        self.provider.script([Behaviour::Text("and then they sailed on ".repeat(STORY_LINES))]);
        let payload = chat("mock-chat", "tell me a story without an end");
        let job = json!({"queue": "chat", "tenant": "acme", "kind": "llm", "payload": payload, "timeout": "3h"});
        let id = self.submit(&[job]).await?.remove(0);
        self.provider.until("the story begins", |calls| calls.iter().any(|call| call.status == 200)).await;
        self.provider.set_token_ms(0);
        self.call("job_streams", id);
        Ok(())
    }

    /// What the pages are about.
    async fn name_things(&mut self) -> Result<()> {
        self.call("queue", "chat");
        self.call("tenant", "acme");
        let done = self.get("/v1/jobs?queue=extraction&state=succeeded&limit=1").await?;
        self.call("job", text(&done, "/jobs/0/id")?);
        let letters = self.get("/v1/dead-letters?queue=chat&limit=100").await?;
        let of_class = |class: &'static str| {
            list(&letters, "/dead_letters")
                .chain(list(&letters, "/jobs"))
                .filter(move |job| job["error"]["class"] == class)
        };
        let mut overloaded = of_class("server").filter(|job| job["error"]["code"] == "500");
        let (dead, other) =
            (overloaded.next().context("letters of a broken server")?, overloaded.next().context("two of them")?);
        self.call("dead", text(dead, "/id")?);
        self.call("dead_to_redrive", text(other, "/id")?);
        self.call("poison", text(of_class("poison").next().context("a poison job")?, "/id")?);
        self.call("signature", text(dead, "/error/signature")?);
        let targets = self.get("/v1/targets").await?;
        let open = list(&targets, "/targets").find(|target| target["breaker"]["state"] == "open");
        self.call("target_down", text(open.context("an open breaker")?, "/target")?);
        self.call("target", "openai:gpt-4o-mini:default");
        let workers = self.get("/v1/workers").await?;
        let worker = text(&workers, "/workers/0/id")?;
        self.call("worker_short", worker.chars().take(8).collect::<String>());
        self.call("worker", worker);
        let hooks = self.get("/v1/webhooks").await?;
        self.call("webhook", text(&hooks, "/webhooks/0/id")?);
        Ok(())
    }
}

/// What every process is told.
async fn environment(
    longshore: &Path,
    files: &TempDir,
    age: &Keys,
    provider: &MockProvider,
) -> Result<Vec<(&'static str, String)>> {
    let file = |name: &str| files.path().join(name).display().to_string();
    for (verb, name) in [("key signing-key", "signing.key"), ("credential master-key", "master.key")] {
        let mut command = Command::new(longshore);
        command.args(verb.split(' ')).args(["--file", &file(name)]).env_clear().current_dir(files.path());
        let made = command.output().await.with_context(|| format!("`longshore {verb}` did not start"))?;
        ensure!(made.status.success(), "`longshore {verb}`: {}", String::from_utf8_lossy(&made.stderr));
    }
    let simulated = |name: &str, models: &str, speed: u32| {
        format!(
            "[[providers]]\nname = \"{name}\"\nkind = \"simulated\"\nmodels = [{models}]\ntokens_per_second = {speed}\n"
        )
    };
    let config = [
        "[budget]\ndefault_price = { input = 5_000_000, output = 20_000_000 }\n".to_owned(),
        simulated("openai", "\"gpt-*\", \"text-embedding-*\"", 400),
        simulated("anthropic", "\"claude-*\"", 400),
        simulated("slow", "\"slow-*\"", 1),
        "concurrency = 6\n".to_owned(),
        format!("[[providers]]\nname = \"azure\"\nurl = \"{}\"\nmodels = [\"mock-*\"]\n", provider.url()),
    ];
    fs::write(file("longshore.toml"), config.concat())?;
    let mut environment = vec![
        ("LONGSHORE_CONFIG", file("longshore.toml")),
        ("LONGSHORE_WORKER_SLOTS", "100".to_owned()),
        ("LONGSHORE_WORKER_QUEUES", SERVED.to_owned()),
        ("LONGSHORE_AUTH_SIGNING_KEY_FILE", file("signing.key")),
        ("LONGSHORE_CREDENTIALS_MASTER_KEY_FILE", file("master.key")),
        ("LONGSHORE_OBJECTS_URL", format!("file:{}", file("objects"))),
        ("LONGSHORE_BACKUP_URL", format!("file:{}", file("backups"))),
        ("LONGSHORE_WEBHOOKS_ALLOW_HTTP", "true".to_owned()),
        ("LONGSHORE_WEBHOOKS_ALLOW_NETWORKS", "127.0.0.0/8".to_owned()),
    ];
    environment.extend(age.variables());
    Ok(environment)
}

/// A member of an answer that has to be text.
pub(super) fn text(told: &Value, pointer: &str) -> Result<String> {
    let found = told.pointer(pointer).and_then(Value::as_str);
    Ok(found.with_context(|| format!("no {pointer} in {told}"))?.to_owned())
}

/// The items of a list.
fn list<'a>(told: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    told.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// A template whose `{name}`s are replaced. Other braces are those of JSON.
fn filled(template: &str, name: impl Fn(&str) -> Option<String>) -> Result<String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('{') {
        out.push_str(before);
        let word = behind.split_once('}').map(|(word, _)| word);
        let word =
            word.filter(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        match word {
            Some(word) => {
                out.push_str(&name(word).with_context(|| format!("nothing is called {word}, in {template}"))?);
                rest = &behind[word.len() + 1..];
            }
            None => {
                out.push('{');
                rest = behind;
            }
        }
    }
    Ok(out + rest)
}

/// A segment of a path.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_paths_as_segments() {
        let name = |word: &str| (word == "signature").then(|| encoded("server:503: a/b?"));
        assert_eq!(filled("/dead-letters/{signature}/x", name).unwrap(), "/dead-letters/server:503:%20a%2Fb%3F/x");
        assert!(filled("/{other}", name).is_err());
        assert_eq!(filled("{\"payload\":{}}", name).unwrap(), "{\"payload\":{}}");
    }
}
