//! The system under test: its processes, and the supervisor that starts again what ends.
//!
//! Unlike `Cluster`, nothing here waits for a process: one that is started while a store is away ends at once, and is
//! started again, as any supervisor would.

use std::{
    fs::{self, File},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    history::Store,
    links::{Link, Links},
    memory::MemoryGroups,
    scenario::Processes,
};
use crate::cluster::{KEY, Role};

/// Pause before a process that would not start is tried again, as supervisors do.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Calls that the provider takes at once: more than all workers have slots, dead ones included.
const PROVIDER_CONCURRENCY: u32 = 4_096;

/// Slots of a worker.
const SLOTS: &str = "64";

/// What a scheduler runs to copy the journal.
const COPIER: &str = "pg_dump";

/// Files with this beginning, in the folder of a run, are the points at which a process has crashed as it was told to.
const CRASHED: &str = "crashed-at-";

/// Where everything is.
#[derive(Clone)]
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
    /// What stands between processes and stores.
    pub(crate) links: Arc<Links>,
    /// What a binary that can be sabotaged is to do.
    pub(crate) sabotage: Option<&'static str>,
    /// Where objects and backups go, as variables of every process.
    pub(crate) places: Vec<(&'static str, String)>,
    /// What gives the first process of a role another clock.
    pub(crate) clock: Option<(Role, Vec<(&'static str, String)>)>,
    /// What bounds the memory of each worker.
    pub(crate) memory: Option<Arc<MemoryGroups>>,
}

impl Surroundings {
    /// What every process finds in its folder. The leases of a killed worker count against the provider's limit until
    /// they are reaped: with the usual limit, kills every two seconds would measure that limit and nothing else.
    fn configuration(&self) -> String {
        format!(
            "[provider]\ndefault_model = \"mock-chat\"\n\n\
             [[providers]]\nname = \"mock\"\nurl = \"{}\"\nconcurrency = {PROVIDER_CONCURRENCY}\n",
            self.provider
        )
    }

    /// `longshore …` with the settings of the run and nobody else's.
    fn command(&self, role: Role, first: bool, arguments: &[&str]) -> Command {
        let url = |store, direct: &str| self.links.url(Link { role, first, store }, direct);
        let mut command = Command::new(&self.binary);
        command.args(arguments).env_clear().current_dir(&self.folder).stdin(Stdio::null());
        command.envs([
            ("LONGSHORE_JOURNAL", url(Store::Postgres, &self.journal).as_str()),
            ("LONGSHORE_DISPATCHER", url(Store::Redis, &self.dispatcher).as_str()),
            ("LONGSHORE_WORKER_SLOTS", SLOTS),
            ("LONGSHORE_PROBE_JOBS", "true"),
            ("LONGSHORE_PROBE_FAULTS", "true"),
            ("LONGSHORE_ADMIN_KEY", KEY),
            ("RUST_LOG", "info"),
        ]);
        command.envs(self.sabotage.map(|what| ("LONGSHORE_SABOTAGE", what)));
        command.envs(self.places.iter().map(|(name, value)| (*name, value)));
        // A group of its own: Ctrl-C is for us, who then end everything.
        command.process_group(0);
        command
    }
}

/// One process and its history.
struct Process {
    name: String,
    role: Role,
    /// Where it listens, before and after a restart.
    address: String,
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
    /// Whether it ran jobs.
    pub(crate) works: bool,
    /// The point at which it was told to die, if it was.
    pub(crate) point: Option<String>,
    /// Its exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
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
}

impl Fleet {
    /// Makes the schema and starts all of them. They are not waited for.
    pub(crate) fn start(around: Surroundings, processes: Processes) -> Result<Self> {
        fs::write(around.folder.join("longshore.toml"), around.configuration())?;
        let migrated = around
            .command(Role::Scheduler, false, &["migrate"])
            .output()
            .context("`longshore migrate` does not start")?;
        ensure!(migrated.status.success(), "`longshore migrate`: {}", String::from_utf8_lossy(&migrated.stderr));
        let mut fleet = Self { around, processes: vec![] };
        let roles =
            [(Role::Api, processes.apis), (Role::Worker, processes.workers), (Role::Scheduler, processes.schedulers)];
        for (role, count) in roles {
            for number in 0..count {
                let (name, address) = (format!("{role}-{number}"), format!("127.0.0.1:{}", free_port()?));
                let mut process = Process { name, role, address, child: None, started: Instant::now(), retry_at: None };
                process.spawn(&fleet.around)?;
                fleet.processes.push(process);
            }
        }
        Ok(fleet)
    }

    /// Where processes of a role answer, before and after a restart.
    pub(crate) fn urls(&self, role: Role) -> Vec<String> {
        let of_role = self.processes.iter().filter(|process| process.role == role);
        of_role.map(|process| format!("http://{}", process.address)).collect()
    }

    /// The processes' names, by number.
    pub(crate) fn names(&self) -> Vec<String> {
        self.processes.iter().map(|process| process.name.clone()).collect()
    }

    /// `kill -9`, and starts the process again at once.
    pub(crate) fn kill(&mut self, number: usize) -> Result<Kill> {
        let Some(process) = self.processes.get_mut(number) else { bail!("there is no process {number}") };
        let works = process.role == Role::Worker;
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

    /// Where a process answers, and which of its lives this is.
    pub(crate) fn life(&self, number: usize) -> Result<(String, Instant)> {
        let process = self.processes.get(number).with_context(|| format!("there is no process {number}"))?;
        Ok((format!("http://{}", process.address), process.started))
    }

    /// Sends a signal to the process, which stays what it is; its name.
    pub(crate) fn signal(&self, number: usize, signal: &str) -> Result<String> {
        let process = self.processes.get(number).with_context(|| format!("there is no process {number}"))?;
        if let Some(child) = &process.child {
            let sent = Command::new("kill").args([signal, &child.id().to_string()]).status()?;
            ensure!(sent.success(), "kill {signal} of {} failed", process.name);
        }
        Ok(process.name.clone())
    }

    /// The numbers of the schedulers that copy the journal into a backup: their child does it.
    pub(crate) fn makers(&self) -> Vec<usize> {
        let of_role = self.processes.iter().enumerate().filter(|(_, process)| process.role == Role::Scheduler);
        let parents = parents_of(COPIER);
        let copies = |process: &Process| process.child.as_ref().is_some_and(|child| parents.contains(&child.id()));
        of_role.filter(|(_, process)| copies(process)).map(|(number, _)| number).collect()
    }

    /// `longshore …` as an operator beside the processes; what it says if it fails.
    pub(crate) fn ask(around: &Surroundings, arguments: &[&str]) -> Result<std::result::Result<String, String>> {
        let told = around.command(Role::Scheduler, false, arguments).output().context("longshore does not start")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(if told.status.success() { Ok(text(&told.stdout)) } else { Err(text(&told.stderr)) })
    }

    /// What the processes are started with.
    pub(crate) fn around(&self) -> Surroundings {
        self.around.clone()
    }

    /// The memory of each process that lives, in KiB.
    pub(crate) fn memory(&self) -> Vec<(String, u64)> {
        let of = |process: &Process| {
            let status = fs::read_to_string(format!("/proc/{}/status", process.child.as_ref()?.id())).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            Some((process.name.clone(), line.trim().strip_suffix("kB")?.trim().parse().ok()?))
        };
        self.processes.iter().filter_map(of).collect()
    }

    /// Finds what has ended by itself, and starts it again after a pause.
    pub(crate) fn look(&mut self) -> Result<Vec<Death>> {
        let mut deaths = Vec::new();
        for process in &mut self.processes {
            let ended = match &mut process.child {
                Some(child) => child.try_wait()?,
                None => None,
            };
            if let Some(status) = ended {
                let pid = process.child.take().map(|child| child.id());
                process.retry_at = Some(Instant::now() + RETRY_PAUSE);
                let (name, lived) = (process.name.clone(), process.started.elapsed());
                let (works, point) = (process.role == Role::Worker, crashed(&self.around.folder, pid)?);
                deaths.push(Death { process: name, lived, works, point, code: status.code() });
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
        let is_first = self.name.ends_with("-0");
        let mut command = around.command(self.role, is_first, &["serve", &self.role.to_string()]);
        command.env("LONGSHORE_LISTEN", &self.address).env("LONGSHORE_METRICS_LISTEN", &self.address);
        if let Some((role, environment)) = &around.clock
            && *role == self.role
            && is_first
        {
            command.envs(environment.iter().map(|(name, value)| (*name, value)));
        }
        let child = command.stdout(log.try_clone()?).stderr(log).spawn();
        let child = child.with_context(|| format!("{} does not start", around.binary.display()))?;
        let pid = child.id();
        self.child = Some(child);
        if let Some(groups) = around.memory.as_ref().filter(|_| self.role == Role::Worker) {
            groups.join(&self.name, pid)?;
        }
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

/// The parents of all processes of this name.
fn parents_of(name: &str) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return vec![] };
    let of = |process: fs::DirEntry| {
        // `pid (name) state parent …`; most are of other names, and many are gone by now.
        let stat = fs::read_to_string(process.path().join("stat")).ok()?;
        let (before, after) = stat.rsplit_once(')')?;
        before.split_once('(').filter(|(_, found)| *found == name)?;
        after.split_whitespace().nth(1)?.parse().ok()
    };
    processes.flatten().filter_map(of).collect()
}

/// The point at which this process crashed as it was told to.
fn crashed(folder: &Path, pid: Option<u32>) -> Result<Option<String>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(point) = name.strip_prefix(CRASHED) else { continue };
        if fs::read_to_string(entry.path())?.trim().parse().ok() == pid {
            return Ok(Some(point.to_owned()));
        }
    }
    Ok(None)
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
