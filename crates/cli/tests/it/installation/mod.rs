//! A `longshore up` or `serve` of this build with a folder of its own, for tests that kill it and start it again.
// The binary exports nothing; a test fails by panicking.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::Certificate;

/// Longest wait for anything: a test that needs longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The admin key of every installation here.
pub const KEY: &str = "lsk_testtest_0123456789abcdefghijABCDEFGHIJ0123456789abc";

pub struct Installation {
    pub data: PathBuf,
    pub url: String,
    verb: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    listen: Vec<&'static str>,
    logs: TempDir,
    process: Option<Child>,
    http: reqwest::Client,
}

impl Installation {
    /// Starts `up` with these extra arguments.
    pub async fn start(data: &Path, arguments: &[&str]) -> Self {
        Self::start_in(data, arguments, &[]).await
    }

    /// Likewise, with these variables in its environment.
    pub async fn start_in(data: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut up = Self::stopped(data, arguments);
        up.environment.extend(environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        up.start_again().await;
        up
    }

    /// One that is not running yet.
    pub fn stopped(data: &Path, arguments: &[&str]) -> Self {
        Self {
            data: data.into(),
            url: String::new(),
            verb: vec!["up".to_owned()],
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
            environment: vec![("LONGSHORE_ADMIN_KEY".to_owned(), KEY.to_owned())],
            listen: vec!["--listen", "127.0.0.1:0"],
            logs: tempfile::tempdir().unwrap(),
            process: None,
            http: reqwest::Client::new(),
        }
    }

    /// One role that is not running yet.
    pub fn role(role: &str, data: &Path, arguments: &[&str]) -> Self {
        let mut process = Self::stopped(data, arguments);
        process.verb = vec!["serve".to_owned(), role.to_owned()];
        process
    }

    /// With this variable in its environment.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without an admin key in its environment.
    pub fn without_key(mut self) -> Self {
        self.environment.retain(|(name, _)| name != "LONGSHORE_ADMIN_KEY");
        self
    }

    /// With this certificate, which its clients trust and no other. The file is the certificate's, beside it is its key.
    pub fn over_tls(mut self, certificate: &Certificate, file: &Path) -> Self {
        replace_certificate(certificate, file);
        let trusted = reqwest::Certificate::from_pem(certificate.chain.as_bytes()).unwrap();
        self.http = reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap();
        let key = file.with_extension("key");
        self.with("LONGSHORE_TLS_CERTIFICATE_FILE", file.to_str().unwrap())
            .with("LONGSHORE_TLS_KEY_FILE", key.to_str().unwrap())
    }

    /// On all addresses of this machine.
    pub fn for_others(mut self) -> Self {
        self.listen = vec!["--listen", "0.0.0.0:0"];
        self
    }

    /// Starts it again on the same folder, and waits until it is ready.
    pub async fn start_again(&mut self) {
        assert!(self.spawn(), "`up` prints its address:\n{}", self.log());
        self.until_ready().await;
    }

    pub async fn until_ready(&self) {
        self.until("ready", async |up| up.status("/readyz").await == Some(StatusCode::OK)).await;
    }

    /// Starts it again on the same folder; whether it lived long enough to print its address.
    pub fn spawn(&mut self) -> bool {
        let mut child = Command::new(env!("CARGO_BIN_EXE_longshore"))
            .args(&self.verb)
            .args(&self.listen)
            .arg("--data")
            .arg(&self.data)
            .args(&self.arguments)
            // Nothing of the environment of whoever runs the tests: `up` refuses settings that it does not know.
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(self.log_file()).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let from = line.find("http://127.0.0.1:").or_else(|| line.find("https://127.0.0.1:"))?;
            let url: String = line[from..].chars().take_while(|c| !c.is_whitespace() && *c != ',').collect();
            Some(url.trim_end_matches(['/', '.']).to_owned())
        });
        // Keep reading, so that a full pipe never stops the server.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        self.process = Some(child);
        self.url = url.clone().unwrap_or_default();
        url.is_some()
    }

    /// Beside the data folder, which a test may fill to the last byte.
    fn log_file(&self) -> PathBuf {
        self.logs.path().join("up.log")
    }

    /// What the processes of this installation have logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// `kill -9`, and the process is gone when this returns.
    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Waits until the process has ended by itself, and returns its exit code.
    pub fn wait_for_death(&mut self) -> Option<i32> {
        wait_for(&mut self.process.take().unwrap())
    }

    /// Asks the process to stop.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends the process this signal.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub fn is_alive(&mut self) -> bool {
        self.process.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub async fn status(&self, path: &str) -> Option<StatusCode> {
        let answer = self.http.get(format!("{}{path}", self.url)).bearer_auth(KEY).send().await.ok()?;
        Some(answer.status())
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}{path}", self.url)).bearer_auth(KEY).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "GET {path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        self.send_json(self.http.post(format!("{}{path}", self.url)), path, body).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Value {
        self.send_json(self.http.patch(format!("{}{path}", self.url)), path, body).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Value {
        self.send_json(self.http.put(format!("{}{path}", self.url)), path, body).await
    }

    /// Runs `longshore LINE` against it, and returns what it printed.
    pub fn command(&self, line: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
        command.args(line).env_clear().env("LONGSHORE_URL", &self.url).env("LONGSHORE_KEY", KEY);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line:?}: {said}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    async fn send_json(&self, request: reqwest::RequestBuilder, path: &str, body: &Value) -> Value {
        let answer = request.bearer_auth(KEY).json(body).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The text of a page such as `/metrics`.
    pub async fn page(&self, path: &str) -> String {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await.unwrap();
        answer.error_for_status().unwrap().text().await.unwrap()
    }

    /// Asks for the end of a job.
    pub async fn cancel(&self, id: &str) -> StatusCode {
        let url = format!("{}/v1/jobs/{id}/cancel", self.url);
        self.http.post(url).bearer_auth(KEY).send().await.unwrap().status()
    }

    /// Likewise; `None` unless the answer is a success.
    pub async fn try_get(&self, path: &str) -> Option<Value> {
        let answer = self.http.get(format!("{}{path}", self.url)).bearer_auth(KEY).send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }

    /// Submits a job and does not care for the answer.
    pub async fn send(&self, job: &Value) {
        let _ = self.http.post(format!("{}/v1/jobs", self.url)).bearer_auth(KEY).json(job).send().await;
    }

    /// Submits a job and returns its answer, whatever it is.
    pub async fn try_submit(&self, job: &Value) -> (StatusCode, Value) {
        let answer = self.http.post(format!("{}/v1/jobs", self.url)).bearer_auth(KEY).json(job).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    pub async fn submit(&self, job: &Value) -> String {
        let (status, body) = self.try_submit(job).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    pub async fn probe(&self, payload: Value) -> String {
        self.submit(&json!({"kind": "probe", "payload": payload})).await
    }

    /// The job once it has ended.
    pub async fn ended(&self, id: &str) -> Value {
        let began = Instant::now();
        loop {
            let job = self.get(&format!("/v1/jobs/{id}?wait=30s")).await;
            if ["succeeded", "dead", "cancelled"].contains(&job["state"].as_str().unwrap()) {
                return job;
            }
            assert!(began.elapsed() < PATIENCE, "{job}");
        }
    }

    /// Waits until `holds` is true.
    pub async fn until(&self, what: &str, mut holds: impl AsyncFnMut(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self).await {
            assert!(began.elapsed() < PATIENCE, "never came true: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Writes certificate and key beside it, each at once as renewals do.
pub fn replace_certificate(certificate: &Certificate, file: &Path) {
    for (path, text) in [(file.to_owned(), &certificate.chain), (file.with_extension("key"), &certificate.key)] {
        let beside = path.with_extension("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, path).unwrap();
    }
}

/// Waits until a process has ended by itself, and returns its exit code.
fn wait_for(process: &mut Child) -> Option<i32> {
    let began = Instant::now();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status.code();
        }
        if began.elapsed() > PATIENCE {
            process.kill().unwrap();
            panic!("the process does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs `longshore` with these arguments, which it must refuse with exit code 2 and one line, and returns the line. The
/// word `hidden` stands for a secret, which must not be in it.
pub fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut process = Command::new(env!("CARGO_BIN_EXE_longshore"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .current_dir(&folder)
        .stdout(File::create(folder.path().join("said")).unwrap())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let code = wait_for(&mut process);
    let line = std::fs::read_to_string(&log).unwrap();
    assert!(line.starts_with("error: ") && line.lines().count() == 1, "{arguments:?}: one line, not\n{line}");
    assert!(!line.contains("hidden"), "{arguments:?}: a secret in {line}");
    assert_eq!(code, Some(2), "{arguments:?}: {line}");
    line
}

impl Drop for Installation {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
