//! Longshore as several processes on one machine: a Redis, a Postgres, and any number of each role, each on a port of its
//! own. Processes can be killed and started again; whatever is left ends with the `Cluster`.

use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use testkit::{PostgresServer, RedisServer};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::block_in_place,
};

/// The admin key of every cluster: it guards nothing but jobs on this machine.
pub(crate) const KEY: &str = "lsk_cluster1_0123456789abcdefghijABCDEFGHIJ0123456789abc";
/// Longest wait for a process to say where it listens, to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks at something that no signal announces.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The HTTP API.
    Api,
    /// Runs jobs.
    Worker,
    /// Reaps, reconciles, promotes.
    Scheduler,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Api => "api",
            Self::Worker => "worker",
            Self::Scheduler => "scheduler",
        })
    }
}

/// One `longshore serve`.
pub(crate) struct Member {
    /// What it does.
    pub(crate) role: Role,
    /// Where its API is, or its metrics and probes; the same after a restart.
    pub(crate) url: String,
    process: Option<Child>,
    log: PathBuf,
    /// Over the cluster's environment.
    own: Vec<(String, String)>,
}

/// The stores and the processes on them.
pub(crate) struct Cluster {
    /// The dispatcher.
    pub(crate) redis: RedisServer,
    /// The journal.
    postgres: PostgresServer,
    /// The journal's URL.
    pub(crate) database: String,
    /// In the order in which they were spawned.
    pub(crate) members: Vec<Member>,
    binary: PathBuf,
    environment: Vec<(String, String)>,
    folder: TempDir,
    http: reqwest::Client,
}

impl Cluster {
    /// Starts the stores and makes the schema. `environment` goes to every process, over what a cluster needs.
    pub(crate) async fn start(binary: &Path, environment: &[(&str, &str)]) -> Result<Self> {
        let postgres = PostgresServer::start();
        let redis = RedisServer::start();
        let database = postgres.database();
        let url = redis.url();
        let own = [
            ("LONGSHORE_JOURNAL", database.as_str()),
            ("LONGSHORE_DISPATCHER", &url),
            ("LONGSHORE_ADMIN_KEY", KEY),
            ("LONGSHORE_PROBE_JOBS", "true"),
        ];
        let environment = own.iter().chain(environment);
        let environment = environment.map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (binary, folder, http) = (binary.to_owned(), tempfile::tempdir()?, reqwest::Client::new());
        let cluster = Self { redis, postgres, database, members: vec![], binary, environment, folder, http };
        let migrated = cluster.command(&["migrate"]).output().await.context("`longshore migrate` did not start")?;
        ensure!(migrated.status.success(), "`longshore migrate`: {}", String::from_utf8_lossy(&migrated.stderr));
        Ok(cluster)
    }

    /// What the journal answers to these statements, as its superuser.
    pub(crate) fn sql(&self, text: &str) -> String {
        let name = self.database.rsplit('/').next().unwrap_or_default();
        block_in_place(|| self.postgres.run(name, text))
    }

    /// Starts a process, waits until it says where it listens, and returns its place in `members`. It may not be ready
    /// yet: a worker waits for a scheduler.
    pub(crate) async fn spawn(&mut self, role: Role) -> Result<usize> {
        self.spawn_with(role, &[]).await
    }

    /// Likewise, with these variables for this process alone, in all its lives.
    pub(crate) async fn spawn_with(&mut self, role: Role, own: &[(&str, &str)]) -> Result<usize> {
        let number = self.members.len();
        let log = self.folder.path().join(format!("{number}-{role}.log"));
        let own: Vec<_> = own.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (process, url) = self.launch(role, "127.0.0.1:0", &log, &own).await?;
        self.members.push(Member { role, url, process: Some(process), log, own });
        Ok(number)
    }

    /// Starts a process of each of these roles, and waits until all of them are ready.
    pub(crate) async fn spawn_all(&mut self, roles: &[Role]) -> Result<()> {
        let first = self.members.len();
        for role in roles {
            self.spawn(*role).await?;
        }
        for number in first..self.members.len() {
            self.ready(number).await?;
        }
        Ok(())
    }

    /// What a process shows to Prometheus.
    pub(crate) async fn metrics(&self, number: usize) -> Result<String> {
        let page = reqwest::get(format!("{}/metrics", self.members[number].url)).await?;
        Ok(page.error_for_status()?.text().await?)
    }

    /// Waits until `/readyz` is 200.
    pub(crate) async fn ready(&self, number: usize) -> Result<()> {
        let Member { url, role, log, .. } = &self.members[number];
        let began = Instant::now();
        loop {
            let answer = self.http.get(format!("{url}/readyz")).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "{role} {number} is not ready:\n{}", fs::read_to_string(log)?);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// `kill -9`, and the process is gone when this returns.
    pub(crate) async fn kill(&mut self, number: usize) -> Result<()> {
        if let Some(mut process) = self.members[number].process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Asks a process to end, as a supervisor does, and waits until it has; its exit code.
    pub(crate) async fn end(&mut self, number: usize) -> Result<Option<i32>> {
        let Some(mut process) = self.members[number].process.take() else { bail!("process {number} does not run") };
        let pid = process.id().context("it runs")?;
        Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
        let ended = tokio::time::timeout(PATIENCE, process.wait()).await.context("the process does not end")??;
        Ok(ended.code())
    }

    /// Kills the process if it runs, and starts it again on its address. It may not be ready yet.
    pub(crate) async fn restart(&mut self, number: usize) -> Result<()> {
        self.kill(number).await?;
        let Member { role, url, log, own, .. } = &self.members[number];
        let address = url.trim_start_matches("http://");
        let (process, _) = self.launch(*role, address, log, own).await?;
        self.members[number].process = Some(process);
        Ok(())
    }

    /// Asks every process to end, and waits until all have.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let mut processes: Vec<_> = self.members.iter_mut().filter_map(|member| member.process.take()).collect();
        for process in &processes {
            let Some(pid) = process.id() else { continue };
            Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
        }
        for process in &mut processes {
            tokio::time::timeout(PATIENCE, process.wait()).await.context("a process does not end")??;
        }
        Ok(())
    }

    /// The URLs of all APIs.
    pub(crate) fn apis(&self) -> Vec<String> {
        let apis = self.members.iter().filter(|member| member.role == Role::Api);
        apis.map(|member| member.url.clone()).collect()
    }

    /// What a process has logged, over all its lives.
    #[allow(dead_code, reason = "for suites that kill processes and want to know why something broke")]
    pub(crate) fn log(&self, number: usize) -> String {
        fs::read_to_string(&self.members[number].log).unwrap_or_default()
    }

    async fn launch(&self, role: Role, address: &str, log: &Path, own: &[(String, String)]) -> Result<(Child, String)> {
        let mut command = self.command(&["serve", &role.to_string()]);
        let mut process = command
            .env("LONGSHORE_LISTEN", address)
            .env("LONGSHORE_METRICS_LISTEN", address)
            .envs(own.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(log)?)
            .spawn()
            .with_context(|| format!("{} did not start", self.binary.display()))?;
        let mut lines = BufReader::new(process.stdout.take().context("its output is piped")?).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.context("it does not say where it is")??;
        let Some(line) = line else { bail!("`serve {role}` ended:\n{}", fs::read_to_string(log)?) };
        let said: Value = serde_json::from_str(&line)?;
        let url = said["url"].as_str().with_context(|| format!("no address in {line}"))?.to_owned();
        Ok((process, url))
    }

    /// `longshore --json …` with the cluster's settings and nobody else's.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--json").args(arguments).env_clear().current_dir(&self.folder);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // A group of its own: Ctrl-C is for us, who then stop everything in order.
        command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        command
    }
}
