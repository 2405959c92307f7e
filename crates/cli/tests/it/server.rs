//! `longshore up` as its user meets it: the binary, a folder, and the command line.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Looks at most this often whether something has come true: 30 s is an end for a machine that is overloaded.
const TRIES: u32 = 600;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// A folder with at most one server in it.
struct Place {
    dir: TempDir,
}

/// A running `longshore up`; killed when the test ends in any way.
struct Up {
    child: Child,
    greeting: Value,
    /// Held open: a closed pipe would end the server when it prints.
    _stdout: BufReader<ChildStdout>,
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The binary with nothing of our environment, in this folder.
    fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
        command.env_clear().env("LONGSHORE_DATA", self.data()).current_dir(self.dir.path()).args(line);
        command
    }

    async fn up(&self, more: &[&str]) -> Up {
        let line = [&["up", "--listen", "127.0.0.1:0", "--json"], more].concat();
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let mut child = self.command(&line).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        let greeting: Value =
            serde_json::from_str(&first).unwrap_or_else(|_| panic!("no greeting; log: {}", self.log()));
        let up = Up { child, greeting, _stdout: stdout };
        let ready = format!("{}/readyz", up.url());
        for _ in 0..TRIES {
            if reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success()) {
                return up;
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("{ready} never answered 200; log: {}", self.log());
    }

    /// Tries until `holds` does.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..TRIES {
            if holds(self) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("never: {what}; log: {}", self.log());
    }

    /// Submits a probe that sleeps, and returns its id once it runs.
    async fn running_probe(&self, sleep_ms: u64) -> String {
        let payload = format!(r#"{{"sleep_ms":{sleep_ms}}}"#);
        let job = self.json(0, &["job", "submit", "--kind", "probe", "--payload", &payload]);
        let id = job["id"].as_str().unwrap().to_owned();
        self.until("the job runs", |place| place.json(0, &["job", "get", &id])["state"] == "running").await;
        id
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Runs a command to its end.
    fn run(&self, line: &[&str]) -> Output {
        self.command(line).output().unwrap()
    }

    /// Runs a command that must end with this code, and returns its stdout.
    fn ends(&self, code: i32, line: &[&str]) -> String {
        let output = self.run(line);
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line:?}\n{stdout}\n{stderr}\nserver: {}", self.log());
        stdout
    }

    /// Runs a command with `--json` that must end with this code, and reads its answer.
    fn json(&self, code: i32, line: &[&str]) -> Value {
        let stdout = self.ends(code, &[line, &["--json"]].concat());
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{line:?}: {error}: {stdout}"))
    }
}

impl Up {
    fn url(&self) -> &str {
        self.greeting["url"].as_str().unwrap()
    }

    /// Asks it to stop, as a service manager does.
    fn stop(mut self) -> ExitStatus {
        self.ask_to_stop();
        self.child.wait().unwrap()
    }

    fn ask_to_stop(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Takes its life in mid-sentence.
    fn crash(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_job_runs_and_a_restart_keeps_everything() {
    let place = Place::new();
    let up = place.up(&[]).await;
    let key = up.greeting["admin_key"].as_str().unwrap().to_owned();
    assert_eq!(up.greeting["simulated"], true);
    assert_eq!(std::fs::read_to_string(place.data().join("admin.key")).unwrap().trim(), key);
    assert_eq!((mode(&place.data()), mode(&place.data().join("admin.key"))), (0o700, 0o600));

    let line = ["job", "submit", "--prompt", "Say hello", "--operation", "greet", "--tag", "first", "--wait"];
    let job = place.json(0, &line);
    let id = job["id"].as_str().unwrap();
    assert_eq!(job["state"], "succeeded");
    assert!(job["served_by"].as_str().unwrap().starts_with("simulated"), "{job}");
    let text = job["result"]["text"].as_str().unwrap();
    assert!(!text.is_empty());

    let listed = place.json(0, &["job", "list", "--kind", "llm"]);
    assert_eq!(listed["jobs"][0]["id"], id);
    let costs = place.json(0, &["cost", "report", "--by", "operation"]);
    assert_eq!(costs["rows"][0]["operation"], "greet", "{costs}");
    assert!(place.ends(0, &["cost", "report", "--by", "operation", "--csv"]).contains("greet"));
    let used = place.json(0, &["tenant", "usage", "default"]);
    assert_eq!((&used["requests"], &used["jobs"], &used["quota_left"]["usd"]), (&json!(1), &json!(1), &Value::Null));
    assert!(place.ends(0, &["tenant", "usage", "default"]).contains("spend usd"));
    assert!(place.ends(0, &["price", "list", "gpt-4o-mini"]).contains("0.15"));
    let checked = place.json(0, &["price", "check"]);
    let unpriced = |finding: &Value| finding["finding"] == "unpriced";
    assert!(!checked["findings"].as_array().unwrap().iter().any(unpriced), "{checked}");
    assert!(place.ends(0, &["queue", "list"]).contains("default"));
    assert!(place.ends(0, &["job", "attempts", id]).contains("succeed"));
    assert_eq!(place.json(0, &["worker", "list"])["workers"].as_array().unwrap().len(), 1);

    let second = place.run(&["up", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1));
    let complaint = String::from_utf8(second.stderr).unwrap();
    assert!(complaint.contains(&format!("process {}", up.child.id())), "{complaint}");

    assert_eq!(up.stop().code(), Some(0), "{}", place.log());
    let up = place.up(&[]).await;
    assert!(up.greeting.get("admin_key").is_none(), "the key is shown once");
    let again = place.json(0, &["job", "get", id]);
    assert_eq!((&again["state"], &again["result"]), (&job["state"], &job["result"]));
    assert_eq!(place.json(0, &["cost", "report", "--by", "operation"])["rows"], costs["rows"]);
}

/// Makes a key, works with it, gives it another secret, takes it back: with the exit codes that scripts rely on.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_used_rotated_and_revoked() {
    let place = Place::new();
    let up = place.up(&[]).await;
    let with = |key: &str, line: &[&str]| place.command(line).env("LONGSHORE_KEY", key).output().unwrap();
    let made = place.run(&["key", "create", "--name", "ci", "--tenant", "acme", "--expires", "90d"]);
    let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    assert!(key.starts_with("lsk_") && !key.contains(char::is_whitespace), "the secret alone: {key}");
    assert!(String::from_utf8(made.stderr).unwrap().contains("user of acme"));
    let submitted = with(&key, &["job", "submit", "--prompt", "Say hello", "--json", "--wait"]);
    let job: Value = serde_json::from_slice(&submitted.stdout).unwrap();
    assert_eq!(job["tenant"], "acme");
    assert_eq!(with(&key, &["queue", "list"]).status.code(), Some(5), "refused");

    let other = place.json(0, &["key", "create", "--name", "other", "--tenant", "acme"]);
    let other = other["key"].as_str().unwrap();
    assert_eq!(with(other, &["job", "get", job["id"].as_str().unwrap()]).status.code(), Some(3), "not there");

    let id = &key[4..12];
    let rotated = place.json(0, &["key", "rotate", id, "--overlap", "0s"]);
    assert_eq!(with(&key, &["job", "list"]).status.code(), Some(5));
    assert_eq!(with(rotated["key"].as_str().unwrap(), &["job", "list"]).status.code(), Some(0));

    let listed = place.json(0, &["key", "list", "--tenant", "acme"]);
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2);
    assert!(place.ends(0, &["key", "list"]).contains(id));
    let planned = place.json(0, &["key", "revoke", "--tenant", "acme"]);
    assert_eq!((&planned["dry_run"], planned["would_revoke"].as_array().unwrap().len()), (&json!(true), 2));
    assert_eq!(with(other, &["job", "list"]).status.code(), Some(0), "only planned");
    place.json(0, &["key", "revoke", id]);
    let revoked = place.json(0, &["key", "revoke", "--tenant", "acme", "--yes"]);
    assert_eq!(revoked["revoked"], json!([&other[4..12]]));
    assert_eq!(with(other, &["job", "list"]).status.code(), Some(5));

    let admin = up.greeting["admin_key"].as_str().unwrap();
    place.ends(5, &["key", "revoke", &admin[4..12]]);
    place.ends(3, &["key", "revoke", "nobody00"]);
    place.ends(2, &["key", "create", "--name", "x", "--role", "root"]);
    place.ends(2, &["key", "revoke"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ran_when_the_process_died_is_run_again() {
    let place = Place::new();
    let up = place.up(&[]).await;
    let payload = r#"{"sleep_ms":3000}"#;
    let job = place.json(0, &["job", "submit", "--kind", "probe", "--payload", payload]);
    let id = job["id"].as_str().unwrap();
    up.crash();
    let _up = place.up(&[]).await;
    place.ends(0, &["job", "watch", id]);
    assert_eq!(place.json(0, &["job", "get", id])["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_running_jobs_finish_and_a_second_one_does_not() {
    let place = Place::new();
    let up = place.up(&[]).await;
    let short = place.running_probe(1_500).await;
    assert_eq!(up.stop().code(), Some(0), "{}", place.log());

    let mut up = place.up(&[]).await;
    let job = place.json(0, &["job", "get", &short]);
    assert_eq!((&job["state"], &job["attempts"]), (&Value::from("succeeded"), &Value::from(1)));

    place.running_probe(3_600_000).await;
    let key = std::fs::read_to_string(place.data().join("admin.key")).unwrap();
    let metrics = reqwest::Client::new().get(format!("{}/metrics", up.url())).bearer_auth(key.trim());
    let text = metrics.send().await.unwrap().text().await.unwrap();
    assert!(text.contains("longshore_worker_slots{state=\"busy\"} 1\n"), "{text}");
    up.ask_to_stop();
    place.until("the first signal is heard", |place| place.log().contains("a second signal leaves at once")).await;
    up.ask_to_stop();
    assert_eq!(up.child.wait().unwrap().code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_streamed_and_make_up_the_result() {
    let place = Place::new();
    let _up = place.up(&["--simulated-first-token", "300ms"]).await;
    let streamed = place.ends(0, &["job", "submit", "--prompt", "Tell me about ships", "--follow"]);
    let listed = place.json(0, &["job", "list"]);
    let id = listed["jobs"][0]["id"].as_str().unwrap();
    let result = place.json(0, &["job", "result", id]);
    assert_eq!(streamed.trim_end(), result["text"].as_str().unwrap().trim_end());

    let events = place.ends(0, &["job", "submit", "--prompt", "Tell me about tides", "--follow", "--json"]);
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tokens = events.iter().filter(|event| event["event"] == "token");
    let text: String = tokens.map(|event| event["data"]["text"].as_str().unwrap()).collect();
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["data"]["state"]), (&Value::from("end"), &Value::from("succeeded")));
    assert_eq!(text, last["data"]["result"]["text"].as_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_grouped_and_get_another_life() {
    let place = Place::new();
    let _up = place.up(&[]).await;
    let payload = r#"{"fail":"permanent","fail_times":1}"#;
    let line = ["job", "submit", "--kind", "probe", "--payload", payload, "--wait"];
    let dead = [place.json(1, &line), place.json(1, &line)];
    assert_eq!(dead[0]["state"], "dead");
    let id = dead[0]["id"].as_str().unwrap();

    assert!(place.ends(0, &["dlq", "list"]).contains(id));
    assert!(place.ends(0, &["dlq", "show", id]).contains("permanent"));
    let groups = place.json(0, &["dlq", "groups"]);
    assert_eq!(groups["groups"][0]["count"], 2);
    let signature = groups["groups"][0]["signature"].as_str().unwrap();

    let dry = place.json(0, &["dlq", "retry", "--group", signature]);
    assert_eq!((&dry["dry_run"], &dry["count"]), (&Value::Bool(true), &Value::from(2)));
    assert_eq!(place.json(0, &["dlq", "groups"])["groups"][0]["count"], 2, "a dry run changes nothing");
    let canary = place.json(1, &["dlq", "retry", "--group", signature, "--canary", "1", "--yes"]);
    assert_eq!((&canary["redriven"], &canary["dead"]), (&Value::from(1), &Value::from(1)), "it fails as it did");
    let done = place.json(0, &["dlq", "retry", "--group", signature, "--yes"]);
    assert_eq!((&done["state"], &done["done"]), (&Value::from("done"), &Value::from(2)));
    place.ends(3, &["dlq", "retry", "--group", "no such signature"]);
    place.ends(2, &["dlq", "retry"]);
    place.ends(2, &["dlq", "drain", "--to", "delete"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_says_why_and_exit_codes_mean_something() {
    let place = Place::new();
    let _up = place.up(&[]).await;
    place.ends(0, &["queue", "pause", "slow", "--reason", "deploy"]);
    let job = place.json(0, &["job", "submit", "--kind", "probe", "--payload", "{}", "--queue", "slow"]);
    let id = job["id"].as_str().unwrap();
    assert!(place.ends(0, &["job", "why", id]).contains("(deploy)"));
    assert!(place.ends(0, &["queue", "inspect", "slow"]).contains("deploy"));
    place.ends(0, &["queue", "resume", "slow"]);
    place.ends(0, &["job", "watch", id]);

    place.ends(5, &["job", "cancel", id]);
    place.ends(3, &["job", "get", "0193fd00-0000-7000-8000-000000000000"]);
    place.ends(2, &["job", "submit", "--kind", "probe", "--payload", r#"{"sleep_ms":"long"}"#]);
    place.ends(2, &["job", "frobnicate"]);
    let refused = place.command(&["job", "list"]).env("LONGSHORE_KEY", "lsk_wrong").output().unwrap();
    assert_eq!(refused.status.code(), Some(5));
    place.ends(0, &["doctor"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_and_tenants_are_paused_and_a_chain_goes_on() {
    let place = Place::new();
    let _up = place.up(&[]).await;
    let line = ["job", "submit", "--prompt", "Hi", "--model", "a!server", "--fallback", "b=server", "--wait"];
    let job = place.json(0, &line);
    assert_eq!((&job["served_by"], &job["attempts"]), (&Value::from("simulated/b"), &Value::from(1)));
    let line = ["job", "submit", "--prompt", "Hi", "--model", "a!auth", "--fallback", "b=auth", "--follow"];
    let told = place.command(&line).output().unwrap();
    assert!(String::from_utf8_lossy(&told.stderr).contains("a!auth did not answer (auth), b is asked"), "{told:?}");

    let target = "simulated:simulated-chat:default";
    place.ends(0, &["target", "pause", target, "--reason", "their maintenance"]);
    let job = place.json(0, &["job", "submit", "--prompt", "Hi"]);
    let id = job["id"].as_str().unwrap();
    let why = place.ends(0, &["job", "why", id]);
    assert!(why.contains("held by an operator") && why.contains("their maintenance"), "{why}");
    assert!(place.ends(0, &["target", "list"]).contains("their maintenance"));
    place.ends(0, &["target", "breaker", target, "open"]);
    place.ends(0, &["target", "resume", target]);
    let held = place.json(0, &["target", "list"]);
    let of =
        |list: &Value| list["targets"].as_array().unwrap().iter().find(|of| of["target"] == target).cloned().unwrap();
    assert_eq!(of(&held)["breaker"]["state"], "open");
    place.ends(0, &["tenant", "pause", "default", "--until", "10m", "--reason", "unpaid bill"]);
    place.ends(0, &["target", "breaker", target, "auto"]);
    assert!(place.ends(0, &["job", "why", id]).contains("unpaid bill"));
    place.ends(0, &["tenant", "resume", "default"]);
    place.ends(0, &["job", "watch", id]);
    place.ends(2, &["target", "pause", "nonsense"]);
    place.ends(2, &["target", "breaker", target, "shut"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_measures_what_it_says() {
    let place = Place::new();
    let _up = place.up(&[]).await;
    let line = ["bench", "--jobs", "300", "--singles", "20", "--sleep-ms", "50", "--single-jobs", "200"];
    let report = place.json(0, &line);
    let rows = report["rows"].as_array().unwrap();
    let phases: Vec<&str> = rows.iter().map(|row| row["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["pick-up", "answer", "submit", "drain", "single", "sleep"]);
    assert!(rows.iter().all(|row| row["failed"] == 0), "{report}");
    let slept = rows.last().unwrap()["seconds"].as_f64().unwrap();
    assert!(slept >= 0.049, "a job that sleeps 50 ms cannot be over in {slept} s");
    let last = place.json(0, &["job", "submit", "--kind", "probe", "--payload", "{}", "--queue", "bench", "--wait"]);
    assert_eq!(last["state"], "succeeded", "the queue is not left paused");
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_opened() {
    let place = Place::new();
    for line in [
        &["serve", "worker"][..],
        &["up", "--journal", "mysql://h/db"],
        &["up", "--listen", "nowhere"],
        &["up", "--slots", "0"],
        &["up", "--config", "missing.toml"],
    ] {
        place.ends_without_server(2, line);
    }
    place.ends_without_server(1, &["job", "list", "--url", "http://127.0.0.1:1"]);
    place.ends_without_server(1, &["doctor", "--url", "http://127.0.0.1:1"]);
    assert!(!place.data().exists(), "a refused start leaves nothing behind");
}

impl Place {
    fn ends_without_server(&self, code: i32, line: &[&str]) {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(code), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
