//! A throw-away `longshore up` of the release build, on stores of its own. All of it ends when it is dropped, or when
//! this process is killed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use testkit::{PostgresServer, RedisServer, Watchdog};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::root;

/// Longest wait for the process to say where it listens.
const PATIENCE: Duration = Duration::from_secs(60);
/// Postgres as someone would run it on a machine of this size; every commit is fsynced, as testkit starts it.
const SETTINGS: [&str; 2] = ["shared_buffers = '256MB'", "max_wal_size = '4GB'"];
/// What counts by statement.
const STATEMENTS: &str = "pg_stat_statements";

/// Where jobs are kept, and who decides which is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Stores {
    /// SQLite and memory.
    Embedded,
    /// Postgres and Redis.
    Shared,
}

/// The stores that processes share.
pub(crate) struct Shared {
    /// The dispatcher.
    pub(crate) redis: RedisServer,
    /// The journal.
    pub(crate) postgres: PostgresServer,
    /// Whether Postgres counts what each statement costs.
    pub(crate) counts_statements: bool,
    database: String,
}

impl Shared {
    /// Starts both.
    pub(crate) fn start() -> Self {
        let postgres = PostgresServer::start();
        let available = format!("SELECT count(*) FROM pg_available_extensions WHERE name = '{STATEMENTS}'");
        let counts_statements = postgres.run("postgres", &available) == "1";
        let preload = format!("shared_preload_libraries = '{STATEMENTS}'");
        let settings = SETTINGS.into_iter().chain(counts_statements.then_some(preload.as_str()));
        postgres.restart_with(&settings.collect::<Vec<_>>());
        if counts_statements {
            postgres.run("postgres", &format!("CREATE EXTENSION {STATEMENTS}"));
        }
        let database = postgres.database();
        Self { redis: RedisServer::start(), postgres, counts_statements, database }
    }

    /// What they are, and what a commit costs them: their versions, what Postgres says of its own fsync, and on what it
    /// writes.
    pub(crate) fn describe(&self) -> String {
        let setting = |name: &str| self.postgres.run("postgres", &format!("SHOW {name}"));
        let info = self.redis.command(&["INFO", "server"]);
        let redis = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("?");
        let folder = setting("data_directory");
        let file_system = std::process::Command::new("stat").args(["-f", "-c", "%T", &folder]).output();
        let file_system = file_system.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        format!(
            "Redis {redis}; Postgres {}, fsync {}, synchronous_commit {}, shared_buffers {}, max_wal_size {}, on {}",
            setting("server_version"),
            setting("fsync"),
            setting("synchronous_commit"),
            setting("shared_buffers"),
            setting("max_wal_size"),
            file_system.unwrap_or_else(|_| "?".to_owned()),
        )
    }
}

/// A process that runs every role.
pub(crate) struct Installation {
    // Before the process, which is waited for when it is dropped.
    _watchdog: Watchdog,
    process: Child,
    /// Its API.
    pub(crate) url: String,
    /// Its data folder.
    pub(crate) data: PathBuf,
    /// Behind the process: it ends first.
    pub(crate) shared: Option<Shared>,
}

impl Installation {
    /// Starts it on an empty folder, with so many slots.
    pub(crate) async fn start(binary: &Path, stores: Stores, slots: &str) -> Result<Self> {
        Self::start_with(binary, stores, slots, &[]).await
    }

    /// Likewise, with these variables in its environment.
    pub(crate) async fn start_with(
        binary: &Path,
        stores: Stores,
        slots: &str,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let folder = root().join("target/bench-data");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let (data, log) = (folder.join("store"), folder.join("up.log"));
        let shared = match stores {
            Stores::Embedded => None,
            Stores::Shared => Some(tokio::task::spawn_blocking(Shared::start).await?),
        };
        let mut command = Command::new(binary);
        command.args(["--json", "up", "--listen", "127.0.0.1:0", "--slots", slots, "--data"]).arg(&data);
        if let Some(shared) = &shared {
            command.args(["--dispatcher", &shared.redis.url(), "--journal", &shared.database]);
        }
        // A group of its own: Ctrl-C is for us, who then end it.
        command.env_clear().envs(environment.iter().copied()).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut process = command.spawn().context("`longshore up` did not start")?;
        let watchdog = Watchdog::over(process.id().context("`longshore up` has just been started")?);
        let stdout = process.stdout.take().context("its output is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.context("it does not say where it is")??;
        let Some(line) = line else { bail!("`longshore up` ended:\n{}", fs::read_to_string(log)?) };
        let said: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        let url = said["url"].as_str().with_context(|| format!("no address in {line}"))?.to_owned();
        Ok(Self { _watchdog: watchdog, process, url, data, shared })
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(self) -> Result<()> {
        let pid = self.pid()?.to_string();
        let Self { _watchdog: watchdog, mut process, shared, .. } = self;
        drop(watchdog);
        ensure!(Command::new("kill").args(["-TERM", &pid]).status().await?.success(), "no process {pid}");
        tokio::time::timeout(PATIENCE, process.wait()).await.context("`longshore up` does not end")??;
        drop(shared);
        Ok(())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.process.id().context("`longshore up` has ended")
    }

    /// An operator's command on it.
    pub(crate) fn operator(&self, binary: &Path) -> Command {
        let mut command = Command::new(binary);
        command.arg("--json").env_clear().process_group(0).kill_on_drop(true);
        command.env("LONGSHORE_URL", &self.url).env("LONGSHORE_DATA", &self.data);
        command
    }

    /// The admin key that it made.
    pub(crate) fn key(&self) -> Result<String> {
        let path = self.data.join("admin.key");
        let key = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        ensure!(!key.trim().is_empty(), "{} is empty", path.display());
        Ok(key.trim().to_owned())
    }
}

/// The release build of `longshore`.
pub(crate) fn release_binary() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let binary = target.join("release/longshore");
    ensure!(binary.exists(), "{} is missing", binary.display());
    Ok(binary)
}
