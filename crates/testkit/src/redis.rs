//! Throw-away Redis servers: real ones, on free ports, each with a folder of its own.

mod several;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use tempfile::TempDir;

pub use several::{RedisCluster, RedisSentinel};

use crate::{
    Watchdog,
    packages::{install, runs},
};

/// Attempts to start a server: between finding a free port and binding it, another process may take it.
const STARTS_MAX: usize = 5;
/// Longest wait for an answer of a server that is there: a test that hangs says less than one that fails.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A Redis server that ends, with its folder, when it is dropped. It keeps nothing on disk, so a restart is empty, unless
/// its options say otherwise.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    options: Vec<String>,
    /// What it says once it can be used.
    ready: &'static str,
    folder: TempDir,
    process: Option<Child>,
    /// A test that is killed leaves nothing behind.
    watchdog: Option<Watchdog>,
}

impl RedisServer {
    /// Starts a server without a password. Installs Redis if it is not there and the user is root.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One server for all tests of a process that run at once. It ends with the last of them: a server in a static
    /// would outlive the process.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<RedisServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *shared = Arc::downgrade(&server);
        server
    }

    /// Starts a server with further options, as on its command line: `["--requirepass", "secret"]`.
    pub fn start_with(options: &[&str]) -> Self {
        Self::start_as("Ready to accept connections", |_, _| {
            options.iter().map(|option| (*option).to_owned()).collect()
        })
    }

    /// Starts a server whose options depend on its port and folder.
    pub(super) fn start_as(ready: &'static str, options: impl Fn(u16, &Path) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("no temporary folder");
        let mut server = Self { port: 0, options: vec![], ready, folder, process: None, watchdog: None };
        for _ in 0..STARTS_MAX {
            server.port = free_port();
            server.options = options(server.port, server.folder.path());
            if server.launch() {
                return server;
            }
        }
        panic!("redis-server does not start; see {}", server.folder.path().display());
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process; `None` while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Its address, without user and password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Forgets everything, Functions included.
    pub fn flush(&self) {
        self.command(&["FLUSHALL"]);
    }

    /// Ends the process at once, as a crash does.
    pub fn stop(&mut self) {
        self.watchdog = None;
        if let Some(mut process) = self.process.take() {
            process.kill().expect("redis-server cannot be ended");
            process.wait().expect("redis-server cannot be waited for");
        }
    }

    /// Starts it again on its port, empty unless its options say that it keeps something.
    pub fn restart_empty(&mut self) {
        self.stop();
        for _ in 0..STARTS_MAX {
            if self.launch() {
                return;
            }
        }
        panic!("redis-server does not start again on port {}", self.port);
    }

    /// Stops the process without ending it: connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("the server runs");
        let sent = Command::new("kill").args([signal, &process.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal} failed");
    }

    /// Sends one command and returns the first line of the answer and, of a text, the text.
    pub fn command(&self, words: &[&str]) -> String {
        ask(self.port, words)
    }

    /// Starts the process, and waits until it says that it accepts connections; `false` if it ended before.
    fn launch(&mut self) -> bool {
        let mut command = Command::new(binary());
        // A configuration file comes first; a Sentinel cannot be without one.
        let (file, options) = match self.options.split_first() {
            Some((first, rest)) if !first.starts_with("--") => (Some(first), rest),
            _ => (None, &self.options[..]),
        };
        let mut process = command
            .args(file)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--dir", &self.folder.path().to_string_lossy(), "--daemonize", "no", "--logfile", ""])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C is for whoever runs the tests, who then ends this as well.
            .process_group(0)
            .spawn()
            .expect("redis-server cannot be run");
        self.watchdog = Some(Watchdog::over(process.id()));
        let stdout = process.stdout.take().expect("its output is piped");
        let mut lines = BufReader::new(stdout).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains(self.ready));
        if !ready {
            self.watchdog = None;
            process.wait().expect("redis-server cannot be waited for");
            return false;
        }
        // Read to its end, or a full pipe would stop the server.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        self.process = Some(process);
        true
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.watchdog = None;
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("no free port");
    listener.local_addr().expect("a bound port").port()
}

/// Sends one command over a connection of its own.
fn ask(port: u16, words: &[&str]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("redis-server does not accept");
    stream.set_read_timeout(Some(ANSWER_MAX)).expect("a timeout");
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes()).expect("redis-server closed the connection");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("redis-server did not answer");
    match line.strip_prefix('$').and_then(|length| length.trim().parse::<usize>().ok()) {
        Some(length) => {
            let mut text = vec![0; length];
            reader.read_exact(&mut text).expect("the answer is cut off");
            String::from_utf8_lossy(&text).into_owned()
        }
        None => line.trim_end().to_owned(),
    }
}

/// The server's binary: from the path, else installed.
fn binary() -> &'static str {
    static FOUND: OnceLock<()> = OnceLock::new();
    FOUND.get_or_init(|| install("redis-server", || runs("redis-server", &["--version"])));
    "redis-server"
}
