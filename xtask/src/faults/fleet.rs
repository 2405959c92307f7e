//! The system under test: its processes, and the supervisor that starts again what ends.
//!
//! Every process is one command line, so that `up` and `serve` are the same to the rest of the suite.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::plan::Processes;

/// The admin key of a run: a throw-away installation on this machine.
pub(crate) const KEY: &str = "lsk_testtest_0123456789abcdefghijABCDEFGHIJ0123456789abc";

/// Pause before a process that would not start is tried again, as supervisors do.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// The binary.
    pub(crate) binary: PathBuf,
    /// Folder for logs and data.
    pub(crate) folder: PathBuf,
    /// The journal's URL.
    pub(crate) journal: String,
    /// The dispatcher's URL.
    pub(crate) dispatcher: String,
    /// The provider's base URL.
    pub(crate) provider: String,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Answers HTTP.
    Api,
    /// Runs jobs.
    Worker,
    /// Reaps, reconciles, rebuilds.
    Scheduler,
}

/// One process and its history.
struct Process {
    name: String,
    role: Role,
    arguments: Vec<String>,
    child: Option<Child>,
    started: Instant,
    retry_at: Option<Instant>,
}

/// What a look at the processes found.
#[derive(Clone, Debug)]
pub(crate) struct Death {
    /// Which.
    pub(crate) process: String,
    /// How long it had lived.
    pub(crate) lived: Duration,
}

/// What a kill did.
#[derive(Clone, Debug)]
pub(crate) struct Kill {
    /// Which.
    pub(crate) process: String,
    /// Whether it ran jobs.
    pub(crate) works: bool,
    /// Whether there was a process to kill.
    pub(crate) hit: bool,
}

/// All processes. They are killed when this is dropped.
pub(crate) struct Fleet {
    around: Surroundings,
    processes: Vec<Process>,
    urls: Vec<String>,
}

impl Fleet {
    /// Starts all of them. They are not waited for.
    pub(crate) fn start(around: Surroundings, processes: Processes) -> Result<Self> {
        let mut fleet = Self { around, processes: vec![], urls: vec![] };
        let roles = [
            (Role::Api, "api", processes.apis),
            (Role::Worker, "worker", processes.workers),
            (Role::Scheduler, "scheduler", processes.schedulers),
        ];
        for (role, word, count) in roles {
            for number in 0..count {
                let port = free_port()?;
                if role == Role::Api {
                    fleet.urls.push(format!("http://127.0.0.1:{port}"));
                }
                fleet.add(format!("{word}-{number}"), role, port)?;
            }
        }
        Ok(fleet)
    }

    /// Where the API processes listen, before and after a restart.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.urls.clone()
    }

    /// The processes' names, by number.
    pub(crate) fn names(&self) -> Vec<String> {
        self.processes.iter().map(|process| process.name.clone()).collect()
    }

    fn add(&mut self, name: String, role: Role, port: u16) -> Result<()> {
        let around = &self.around;
        let data = around.folder.join(&name);
        let texts = [
            "up",
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--journal",
            &around.journal,
            "--dispatcher",
            &around.dispatcher,
            "--provider-url",
            &around.provider,
            "--default-model",
            "mock-chat",
            "--slots",
            "64",
            "--data",
            &data.to_string_lossy(),
        ];
        let arguments = texts.iter().map(|&text| text.to_owned()).collect();
        let mut process = Process { name, role, arguments, child: None, started: Instant::now(), retry_at: None };
        process.spawn(around)?;
        self.processes.push(process);
        Ok(())
    }

    /// `kill -9`, and starts the process again at once.
    pub(crate) fn kill(&mut self, number: usize) -> Result<Kill> {
        let Some(process) = self.processes.get_mut(number) else { bail!("there is no process {number}") };
        // Today every process is an `up`, in which jobs run.
        let works = process.role == Role::Worker || process.arguments.first().is_some_and(|verb| verb == "up");
        let mut hit = false;
        if let Some(mut child) = process.child.take() {
            // One that has ended by itself a moment ago is no victim of ours; `look` would not see it any more.
            hit = child.try_wait()?.is_none();
            child.kill()?;
            child.wait()?;
        }
        process.spawn(&self.around)?;
        Ok(Kill { process: process.name.clone(), works, hit })
    }

    /// Finds what has ended by itself, and starts it again after a pause.
    pub(crate) fn look(&mut self) -> Result<Vec<Death>> {
        let mut deaths = Vec::new();
        for process in &mut self.processes {
            let ended = match &mut process.child {
                Some(child) => child.try_wait()?.is_some(),
                None => false,
            };
            if ended {
                process.child = None;
                process.retry_at = Some(Instant::now() + RETRY_PAUSE);
                deaths.push(Death { process: process.name.clone(), lived: process.started.elapsed() });
            }
            if process.child.is_none() && process.retry_at.is_some_and(|at| at <= Instant::now()) {
                process.spawn(&self.around)?;
            }
        }
        Ok(deaths)
    }
}

impl Process {
    fn spawn(&mut self, around: &Surroundings) -> Result<()> {
        let log = around.folder.join(format!("{}.log", self.name));
        let log = File::options().create(true).append(true).open(log)?;
        let child = Command::new(&around.binary)
            .args(&self.arguments)
            // Nothing of the environment of whoever runs the suite: settings that are not known are refused.
            .env_clear()
            .env("LONGSHORE_ADMIN_KEY", KEY)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        self.child = Some(child.with_context(|| format!("{} does not start", around.binary.display()))?);
        self.started = Instant::now();
        self.retry_at = None;
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in self.processes.iter_mut().filter_map(|process| process.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The binary of the wanted profile.
pub(crate) fn binary(root: &Path, debug: bool) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let binary = target.join(if debug { "debug" } else { "release" }).join("longshore");
    ensure!(binary.exists(), "{} is missing", binary.display());
    Ok(binary)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
