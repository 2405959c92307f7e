//! Throw-away Postgres servers: a folder and a port of their own, real fsync, gone with the test process.
//!
//! A server's folder is deleted and the server stopped by a watchdog that waits for the end of its standard input, so
//! that a test process which is killed leaves nothing behind either.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::packages::install;

/// The role that owns everything; it needs no password.
pub const SUPERUSER: &str = "postgres";

/// Starts until which another process may take the port that was free a moment ago.
const STARTS_MAX: u32 = 5;

/// Connections of one server: every test of a process shares it.
const CONNECTIONS_MAX: u32 = 400;

/// Debian keeps the server's programs out of the path.
const DEBIAN_FOLDER: &str = "/usr/lib/postgresql";

/// Starts the server, says `ready`, and stops it when its standard input ends: `$1` programs, `$2` folder, `$3` port.
const WATCHDOG: &str = r#"
"$1/pg_ctl" -D "$2/data" -l "$2/log" -w -t 60 -o "-p $3" start >/dev/null 2>&1 || { cat "$2/log" >&2; rm -rf "$2"; exit 1; }
echo ready
read -r _
"$1/pg_ctl" -D "$2/data" -m immediate -w stop >/dev/null 2>&1
rm -rf "$2"
"#;

/// What a server is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Primary,
    Standby,
}

/// A running Postgres on 127.0.0.1. Roles other than [`SUPERUSER`] need their password; there is no TLS.
#[derive(Debug)]
pub struct PostgresServer {
    port: u16,
    programs: PathBuf,
    folder: PathBuf,
    watchdog: Child,
    // Its end tells the watchdog to stop the server.
    life: Option<ChildStdin>,
}

impl PostgresServer {
    /// The server of this test process, started by whoever asks first.
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<PostgresServer> = OnceLock::new();
        SERVER.get_or_init(Self::start)
    }

    /// A server of its own.
    pub fn start() -> Self {
        Self::start_as(Part::Primary)
    }

    /// A server whose folder is made below this one.
    pub fn start_in(base: &Path) -> Self {
        Self::start_below(Part::Primary, base)
    }

    /// A server on what another one has left in its folder: a copy of it, or an image of its disk.
    pub fn start_on(folder: PathBuf) -> Self {
        // The other one may still run, and is not ours to look at.
        let _ = fs::remove_file(folder.join("data/postmaster.pid"));
        let (programs, account) = (find_programs(), Account::that_may_run_postgres());
        Self::launch(&programs, &account, folder).unwrap_or_else(|said| panic!("Postgres did not start: {said}"))
    }

    /// A server that waits for a primary which never comes: it is in recovery and only reads.
    pub fn start_standby() -> Self {
        Self::start_as(Part::Standby)
    }

    fn start_as(part: Part) -> Self {
        Self::start_below(part, &std::env::temp_dir())
    }

    fn start_below(part: Part, base: &Path) -> Self {
        let programs = find_programs();
        let mut complaints = String::new();
        for _ in 0..STARTS_MAX {
            match Self::try_start(&programs, part, base) {
                Ok(server) => return server,
                Err(complaint) => complaints = complaint,
            }
        }
        panic!("Postgres did not start: {complaints}");
    }

    fn try_start(programs: &Path, part: Part, base: &Path) -> Result<Self, String> {
        let account = Account::that_may_run_postgres();
        let folder = new_folder(&account, base);
        init(programs, &folder, &account, part);
        Self::launch(programs, &account, folder)
    }

    fn launch(programs: &Path, account: &Account, folder: PathBuf) -> Result<Self, String> {
        let port = free_port();
        let mut watchdog = account
            .command("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .args([programs, &folder])
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for whoever runs the tests; the watchdog then sees its input end.
            .process_group(0)
            .spawn()
            .expect("sh starts");
        let life = watchdog.stdin.take();
        let mut said = String::new();
        BufReader::new(watchdog.stdout.take().expect("piped")).read_line(&mut said).expect("the watchdog speaks");
        if said.trim() == "ready" {
            return Ok(Self { port, programs: programs.to_owned(), folder, watchdog, life });
        }
        let ended = watchdog.wait_with_output().expect("the watchdog ends");
        Err(String::from_utf8_lossy(&ended.stderr).into_owned())
    }

    /// Stops it as a crash would: nobody is told, and nothing is written that was not written before.
    pub fn crash(&self) {
        self.pg_ctl(&["-m", "immediate", "-w", "stop"]);
    }

    /// Stops all of its processes without ending them: nothing is written any more.
    pub fn freeze(&self) {
        // The main process first, so that it starts no other.
        signal("-STOP", &[self.pid()]);
        signal("-STOP", &children(self.pid()));
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        signal("-CONT", &children(self.pid()));
        signal("-CONT", &[self.pid()]);
    }

    /// Its folder: `data` is in it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts it again on its port, with all that was committed.
    pub fn resume(&self) {
        self.pg_ctl(&["-w", "-o", &format!("-p {}", self.port), "start"]);
    }

    /// Starts it again if it has ended by itself.
    pub fn revive(&self) {
        let mut status = Account::that_may_run_postgres().command(self.programs.join("pg_ctl"));
        status.arg("-D").arg(self.folder.join("data")).arg("status").stdout(Stdio::null()).stderr(Stdio::null());
        if !status.status().expect("pg_ctl starts").success() {
            self.resume();
        }
    }

    fn pg_ctl(&self, arguments: &[&str]) {
        let mut command = Account::that_may_run_postgres().command(self.programs.join("pg_ctl"));
        command.arg("-D").arg(self.folder.join("data")).arg("-l").arg(self.folder.join("log")).args(arguments);
        // No pipes: a server that starts would hold them open.
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.expect("pg_ctl starts").success(), "{command:?}");
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its main process, whose children are all others; it changes with a restart.
    pub fn pid(&self) -> u32 {
        let text = fs::read_to_string(self.folder.join("data/postmaster.pid")).expect("the server runs");
        text.lines().next().and_then(|line| line.trim().parse().ok()).expect("its first line is the process")
    }

    /// Sets what is set at a start, `name = value` each, and starts it again.
    pub fn restart_with(&self, settings: &[&str]) {
        for setting in settings {
            self.run("postgres", &format!("ALTER SYSTEM SET {setting}"));
        }
        self.pg_ctl(&["-m", "fast", "-w", "stop"]);
        self.resume();
    }

    /// The URL of a database as [`SUPERUSER`].
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database that no other test has, and returns its URL.
    pub fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.run("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// Makes a database that is a copy of the one at `url`, to which nobody may be connected.
    pub fn copy_of(&self, url: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("copy_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let template = url.rsplit('/').next().expect("a URL ends with its database");
        self.run("postgres", &format!("CREATE DATABASE {name} TEMPLATE {template}"));
        self.url(&name)
    }

    /// Runs statements as [`SUPERUSER`] and returns what they print, without headers and alignment.
    pub fn run(&self, database: &str, sql: &str) -> String {
        let output = Command::new(self.programs.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql, &self.url(database)])
            .output()
            .expect("psql starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "psql: {errors}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.life = None;
        let _ = self.watchdog.wait();
    }
}

/// Who runs the server's programs: Postgres refuses root.
struct Account {
    /// `None`: whoever runs the test.
    name: Option<&'static str>,
}

impl Account {
    fn that_may_run_postgres() -> Self {
        if output_of("id", &["-u"]).as_deref() != Some("0") {
            return Self { name: None };
        }
        let name = ["postgres", "nobody"].into_iter().find(|name| output_of("id", &["-u", name]).is_some());
        Self { name: Some(name.expect("root, but no account `postgres` or `nobody` to run Postgres as")) }
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let Some(name) = self.name else { return Command::new(program) };
        let group = output_of("id", &["-g", name]).expect("an account has a group");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", name, "--regid", &group, "--clear-groups", "--"]).arg(program).current_dir("/");
        command
    }
}

/// What a program prints; `None` where it is missing or fails.
fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<u32> {
    let said = output_of("ps", &["-o", "pid=", "--ppid", &pid.to_string()]).unwrap_or_default();
    said.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn signal(signal: &str, pids: &[u32]) {
    // One that has ended meanwhile is no failure.
    let _ = Command::new("kill").arg(signal).args(pids.iter().map(u32::to_string)).stderr(Stdio::null()).status();
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The folder with `initdb` and its kind; installs them where the machine has none and we are root.
fn find_programs() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| look_for_programs().unwrap_or_else(install_programs)).clone()
}

fn look_for_programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut debian: Vec<_> = fs::read_dir(DEBIAN_FOLDER).into_iter().flatten().flatten().collect();
    debian.sort_by_key(|version| version.file_name().to_string_lossy().parse::<u32>().unwrap_or_default());
    let newest_first = debian.into_iter().rev().map(|version| version.path().join("bin"));
    let has_all = |folder: &PathBuf| ["initdb", "pg_ctl", "postgres", "psql"].iter().all(|p| folder.join(p).exists());
    newest_first.chain(std::env::split_paths(&path)).find(has_all)
}

fn install_programs() -> PathBuf {
    install("postgresql", || look_for_programs().is_some());
    look_for_programs().expect("they were installed")
}

/// A folder of the account's own.
fn new_folder(account: &Account, base: &Path) -> PathBuf {
    let template = base.join("testkit-postgres-XXXXXXXX");
    let output = account.command("mktemp").arg("-d").arg(template).output().expect("mktemp starts");
    assert!(output.status.success(), "mktemp: {}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// An empty cluster with fsync on. Only the superuser needs no password.
fn init(programs: &Path, folder: &Path, account: &Account, part: Part) {
    let data = folder.join("data");
    let mut initdb = account.command(programs.join("initdb"));
    succeed(initdb.arg("-D").arg(&data).args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-locale"]));
    let rules = format!("host all {SUPERUSER} 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n");
    fs::write(data.join("pg_hba.conf"), rules).expect("the folder is ours");
    let settings = format!(
        "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nmax_connections = {CONNECTIONS_MAX}\n\
         fsync = on\nsynchronous_commit = on\n"
    );
    fs::write(data.join("postgresql.auto.conf"), settings).expect("the folder is ours");
    if part == Part::Standby {
        fs::write(data.join("standby.signal"), "").expect("the folder is ours");
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
