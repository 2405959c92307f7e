//! Backups, large bodies and archives on an S3 protocol server that nobody here wrote: moto's, from PyPI, with its check of signatures switched on. In pieces,
//! with wrong credentials, and back.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::Watchdog;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::{
    backup::{Keys, command, offline},
    informs, judged,
};
use crate::{
    bar::{Bar, Judged},
    cluster::{Cluster, KEY, Role},
    root, venv,
};

/// The server, and the client that makes its first user.
const PACKAGES: [&str; 2] = ["moto[server]==5.2.5", "boto3"];
/// What starts it and makes a user with a bucket.
const SCRIPT: &str = "xtask/moto_server.py";
/// Jobs whose payloads do not compress: more than two pieces of a part.
const JOBS: usize = 64;
/// Bytes of each of them.
const PAD_BYTES: usize = 900_000;
/// Bytes of a body that lies outside the journal.
const LARGE_BYTES: usize = 300_000;
/// Longest wait for the server.
const PATIENCE: Duration = Duration::from_secs(120);

/// Backs up to it, checks, restores, is refused with wrong credentials, and keeps large bodies and archives there.
pub(super) async fn measure(longshore: &Path) -> Result<Vec<Judged>> {
    let python = venv::install("moto", &PACKAGES)?.join("python");
    let server = Server::start(&python).await?;
    let keys = Keys::make().await?;
    let mut environment = keys.variables().to_vec();
    environment.extend(server.variables("s3://backups/a/prefix"));
    let mut cluster = Cluster::start(longshore, &[]).await?;
    let api = cluster.spawn(Role::Api).await?;
    cluster.ready(api).await?;
    fill(&cluster.apis()[0]).await?;

    let made = command(longshore, &cluster, &environment, &["backup", "create", "--scope", "database"]).await?;
    let bytes = made["parts"][0]["bytes"].as_u64().context("a part has a size")?;
    let id = made["id"].as_str().context("a backup has an id")?.to_owned();
    let verified = command(longshore, &cluster, &environment, &["backup", "verify", &id]).await?;
    ensure!(verified["good"] == json!(true) && verified["opened"] == json!(true), "{verified}");
    let drilled = command(longshore, &cluster, &environment, &["drill", "run", &id]).await?;
    ensure!(drilled["good"] == json!(true), "{drilled}");
    let pieces = server.pieces(&format!("a/prefix/backups/{id}/database.dump.zst.age")).await?;

    let mut wrong = environment.clone();
    for (name, value) in &mut wrong {
        if *name == "AWS_SECRET_ACCESS_KEY" {
            *value = "wrong".repeat(8);
        }
    }
    let refused = offline(longshore, &cluster, &wrong, &["backup", "create", "--scope", "database"]).output().await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("credentials"), "wrong credentials: {said}");
    let listed = command(longshore, &cluster, &environment, &["backup", "list"]).await?;
    let good = listed["backups"].as_array().map_or(0, Vec::len);
    cluster.stop().await?;
    let large = large_bodies(longshore, &server).await?;
    Ok(vec![
        judged("pieces of the dump, by the server".to_owned(), pieces as f64, "pieces", Bar::AtLeast(2.0)),
        informs("its size".to_owned(), bytes as f64 / 1e6, "MB"),
        judged(
            "backups that are good after one with right and one with wrong credentials".to_owned(),
            good as f64,
            "backups",
            Bar::Between(1.0, 1.0),
        ),
        informs(
            "a drill from there: recovery".to_owned(),
            drilled["recovery_seconds"].as_f64().unwrap_or(f64::NAN),
            "s",
        ),
        judged(
            "jobs whose payload and result lay in the bucket, run by a worker of another process, of 8".to_owned(),
            large as f64,
            "jobs",
            Bar::Between(8.0, 8.0),
        ),
    ])
}

/// Jobs with large payloads and results, whose journal is elsewhere than their bodies; then their dead letters go out and come back.
async fn large_bodies(longshore: &Path, server: &Server) -> Result<usize> {
    let mut environment = server.variables("s3://backups/unused");
    environment.retain(|(name, _)| name.starts_with("AWS_"));
    environment.push(("LONGSHORE_OBJECTS_URL", "s3://backups/objects".to_owned()));
    let borrowed: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut cluster = Cluster::start(longshore, &borrowed).await?;
    cluster.spawn_all(&[Role::Scheduler, Role::Api, Role::Worker]).await?;
    let (api, http) = (cluster.apis().remove(0), reqwest::Client::new());
    let ask = async |method: reqwest::Method, path: &str, body: Option<Value>| -> Result<Value> {
        let request = http.request(method, format!("{api}{path}")).bearer_auth(KEY);
        let request = if let Some(body) = &body { request.json(body) } else { request };
        let answer = request.send().await?;
        ensure!(answer.status().is_success(), "{path}: {}: {}", answer.status(), answer.text().await?);
        Ok(answer.json().await?)
    };
    let pad = "x".repeat(LARGE_BYTES);
    let mut whole = 0;
    for _ in 0..8 {
        let job = json!({"kind": "probe", "payload": {"pad": pad, "result_bytes": LARGE_BYTES}});
        let id = ask(reqwest::Method::POST, "/v1/jobs", Some(job)).await?["id"].as_str().context("an id")?.to_owned();
        let ended = ask(reqwest::Method::GET, &format!("/v1/jobs/{id}?wait=60s"), None).await?;
        ensure!(ended["state"] == json!("succeeded"), "{ended}");
        let result = ask(reqwest::Method::GET, &format!("/v1/jobs/{id}/result"), None).await?;
        whole += usize::from(result.to_string().len() >= LARGE_BYTES);
    }
    let dead = json!({"kind": "probe", "payload": {"pad": pad, "fail": "permanent"}});
    let id = ask(reqwest::Method::POST, "/v1/jobs", Some(dead)).await?["id"].as_str().context("an id")?.to_owned();
    let ended = ask(reqwest::Method::GET, &format!("/v1/jobs/{id}?wait=60s"), None).await?;
    ensure!(ended["state"] == json!("dead"), "{ended}");
    let line = ["dlq", "archive", "--older-than", "0s", "--yes"];
    let client = [("LONGSHORE_URL", api.clone()), ("LONGSHORE_KEY", KEY.to_owned())];
    let archived = command(longshore, &cluster, &client, &line).await?;
    let archive = archived["id"].as_str().context("an archive has an id")?.to_owned();
    let restored = command(longshore, &cluster, &client, &["dlq", "restore", &archive]).await?;
    let letter = ask(reqwest::Method::GET, &format!("/v1/dead-letters/{id}"), None).await?;
    ensure!(letter["id"] == json!(id), "{restored} and then {letter}");
    cluster.stop().await?;
    Ok(whole)
}

async fn fill(api: &str) -> Result<()> {
    let http = reqwest::Client::new();
    for _ in 0..JOBS {
        let pad: String = (0..PAD_BYTES).map(|_| char::from(rand::random_range(b'!'..b'~'))).collect();
        let pad = pad.replace(['"', '\\'], "x");
        let job = json!({"kind": "probe", "payload": {"pad": pad}});
        let answer = http.post(format!("{api}/v1/jobs")).bearer_auth(KEY).json(&job).send().await?;
        ensure!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await?);
    }
    Ok(())
}

/// A running server with one user and one bucket.
struct Server {
    _process: Child,
    _watchdog: Watchdog,
    said: Value,
}

impl Server {
    async fn start(python: &Path) -> Result<Self> {
        let mut command = Command::new(python);
        command.arg(root().join(SCRIPT)).stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null());
        let mut process = command.process_group(0).kill_on_drop(true).spawn().context("python does not start")?;
        let watchdog = Watchdog::over(process.id().context("it has just been started")?);
        let mut lines = BufReader::new(process.stdout.take().context("its output is piped")?).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.context("moto does not start")??;
        let said = serde_json::from_str(&line.context("moto has ended")?)?;
        Ok(Self { _process: process, _watchdog: watchdog, said })
    }

    fn variables(&self, url: &str) -> Vec<(&'static str, String)> {
        let said = |name: &str| self.said[name].as_str().unwrap_or_default().to_owned();
        vec![
            ("LONGSHORE_BACKUP_URL", url.to_owned()),
            ("AWS_ENDPOINT_URL", said("url")),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", said("key")),
            ("AWS_SECRET_ACCESS_KEY", said("secret")),
        ]
    }

    /// Of how many pieces the server has made an object: S3 says so behind a dash of its tag.
    async fn pieces(&self, path: &str) -> Result<u64> {
        let url = format!("{}/pieces/{path}", self.said["helper"].as_str().unwrap_or_default());
        let answer = reqwest::get(url).await?.error_for_status()?.text().await?;
        Ok(answer.trim().trim_matches('"').rsplit_once('-').map_or(Ok(1), |(_, pieces)| pieces.parse())?)
    }
}
