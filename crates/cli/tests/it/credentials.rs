//! Tenants' own keys in a whole installation: each call carries the key of its tenant, and no key is anywhere else.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::installation::{Installation, KEY};
use serde_json::{Value, json};
use testkit::{Behaviour, Director, MockProvider, PostgresServer, RedisServer, SeenCall};

const OPERATORS: &str = "sk-operator-0123456789abcdef";
/// Keys that must not turn up anywhere. The provider knows the first two and refuses the third.
const ACME: &str = "sk-canary-acme-0123456789abcdefWXYZ";
const GLOBEX: &str = "sk-canary-globex-0123456789abcdefVUTS";
const BAD: &str = "sk-canary-bad-0123456789abcdefRQPO";

/// A provider that lets in who has a key, and notes for whom it worked: the last user message names the tenant.
#[derive(Default)]
struct Door(Mutex<BTreeMap<(String, String), usize>>);

impl Door {
    /// Calls by tenant and key.
    fn calls(&self) -> BTreeMap<(String, String), usize> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self, tenant: &str, key: &str) -> usize {
        self.calls().get(&(tenant.to_owned(), key.to_owned())).copied().unwrap_or_default()
    }
}

impl Director for Door {
    fn began(&self, _: u64, call: &SeenCall) -> (Duration, Behaviour) {
        let sent = call.authorization.clone().unwrap_or_default();
        let key = sent.strip_prefix("Bearer ").unwrap_or(&sent).to_owned();
        let tenant = call.body["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
        *self.0.lock().unwrap().entry((tenant, key.clone())).or_default() += 1;
        let behaviour = if [OPERATORS, ACME, GLOBEX].contains(&key.as_str()) {
            Behaviour::Answer
        } else {
            // Providers like to quote what they refuse.
            let body = json!({"error": {"message": format!("Incorrect API key provided: {key}."),
                                        "type": "invalid_request_error", "code": "invalid_api_key"}});
            Behaviour::Respond(401, vec![], body.to_string())
        };
        (Duration::ZERO, behaviour)
    }

    fn ended(&self, _: u64, _: &SeenCall) {}
}

/// Runs a command against the installation, with this on its standard input.
fn cli(up: &Installation, arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"))
        .args(arguments)
        .env_clear()
        .envs([("LONGSHORE_URL", up.url.as_str()), ("LONGSHORE_KEY", KEY)])
        .current_dir(&up.data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    command.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = command.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), said)
}

fn set(up: &Installation, tenant: &str, key: &str) {
    let (code, said) = cli(up, &["credential", "set", tenant, "default"], &format!("{key}\n"));
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("canary"), "{said}");
}

async fn submit(up: &Installation, tenant: &str) -> String {
    let messages = json!([{"role": "user", "content": tenant}]);
    up.submit(&json!({"kind": "llm", "tenant": tenant, "payload": {"model": "mock-chat", "messages": messages}})).await
}

async fn why(up: &Installation, id: &str) -> Value {
    up.get(&format!("/v1/jobs/{id}/why")).await
}

async fn until_keyless(up: &Installation, id: &str) -> Value {
    up.until("it waits for a key", async |up| why(up, id).await["waits"][0]["waits_for"] == "credential").await;
    let job = up.get(&format!("/v1/jobs/{id}")).await;
    assert_eq!(job["attempts"], 0, "{job}");
    why(up, id).await
}

async fn succeeds(up: &Installation, id: &str) {
    let job = up.ended(id).await;
    assert_eq!(job["state"], "succeeded", "{job}\n{}", up.log());
}

/// Every file below a folder that holds one of the keys.
fn files_with_keys(folder: &Path) -> Vec<String> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with_keys(&path));
        } else if fs::read(&path).unwrap().windows(9).any(|part| part == b"sk-canary") {
            found.push(path.display().to_string());
        }
    }
    found
}

fn arguments(provider: &MockProvider) -> Vec<String> {
    ["--provider-url", &provider.url(), "--default-model", "mock-chat"].map(str::to_owned).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_carries_its_tenants_key_and_no_key_is_anywhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let door = Arc::new(Door::default());
    let provider = MockProvider::start_directed(door.clone()).await;
    let told = arguments(&provider);
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    let env = [("OPENAI_API_KEY", OPERATORS), ("RUST_LOG", "debug"), ("LONGSHORE_LOG", "json")];
    let up = Installation::start_in(folder.path(), &told, &env).await;

    // Without a key, acme waits; whoever may use the operator's does not.
    for tenant in ["acme", "bad"] {
        let (code, said) = cli(&up, &["credential", "policy", tenant, "own_only"], "");
        assert_eq!(code, Some(0), "{said}");
    }
    let waiting = submit(&up, "acme").await;
    let other = submit(&up, "initech").await;
    succeeds(&up, &other).await;
    let told = until_keyless(&up, &waiting).await;
    assert!(told["summary"].as_str().unwrap().contains("longshore credential set acme default"), "{told}");

    set(&up, "acme", ACME);
    set(&up, "globex", GLOBEX);
    set(&up, "bad", BAD);
    succeeds(&up, &waiting).await;
    let mut jobs = vec![waiting, other];
    for _ in 0..5 {
        for tenant in ["acme", "globex", "initech"] {
            jobs.push(submit(&up, tenant).await);
        }
    }
    for id in &jobs {
        succeeds(&up, id).await;
    }
    // A key that is refused is disabled, and its jobs wait.
    let refused = [submit(&up, "bad").await, submit(&up, "bad").await];
    for id in &refused {
        up.until("it waits for a key", async |up| why(up, id).await["waits"][0]["waits_for"] == "credential").await;
    }
    let bad = up.get("/v1/tenants/bad/credentials/default").await;
    assert_eq!(bad["state"], "disabled", "{bad}");

    let calls = door.calls();
    assert_eq!((door.count("acme", ACME), door.count("globex", GLOBEX), door.count("initech", OPERATORS)), (6, 5, 6));
    assert!(
        calls.keys().all(|(tenant, key)| match tenant.as_str() {
            "acme" => key == ACME,
            "globex" => key == GLOBEX,
            "bad" => key == BAD,
            _ => key == OPERATORS,
        }),
        "{calls:?}"
    );

    let mut pages = vec![up.log(), up.page("/metrics").await, up.page("/health").await];
    for path in
        ["/v1/credentials", "/v1/tenants/acme/credentials", "/v1/tenants/bad/credentials", "/v1/targets", "/v1/costs"]
    {
        pages.push(up.get(path).await.to_string());
    }
    for id in jobs.iter().chain(&refused) {
        for part in ["", "/why", "/attempts", "/calls"] {
            pages.push(up.get(&format!("/v1/jobs/{id}{part}")).await.to_string());
        }
    }
    let (_, listed) = cli(&up, &["credential", "list", "acme"], "");
    assert!(listed.contains("WXYZ") && listed.contains("own_only"), "{listed}");
    pages.push(listed);
    for page in &pages {
        assert!(!page.contains("sk-canary"), "{}", page.lines().find(|line| line.contains("sk-canary")).unwrap());
    }
    assert!(pages[0].contains("a tenant's credential is disabled"), "the alert is in the log");
    assert!(pages[1].contains("longshore_credentials_disabled_total{provider=\"default\"} 1"), "{}", pages[1]);
    let named: Vec<_> = pages[1].lines().filter(|line| line.contains("acme")).collect();
    assert!(named.is_empty(), "no tenant has a name in metrics: {named:?}");
    assert_eq!(files_with_keys(folder.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_master_key_is_named_and_put_right_while_everything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let door = Arc::new(Door::default());
    let provider = MockProvider::start_directed(door.clone()).await;
    let told = arguments(&provider);
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    let mut up = Installation::start_in(folder.path(), &told, &[("OPENAI_API_KEY", OPERATORS)]).await;
    set(&up, "acme", ACME);
    let needed = up.get("/v1/tenants/acme/credentials/default").await["kek_id"].as_str().unwrap().to_owned();
    up.kill();

    let file = folder.path().join("master.key");
    let right = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    up.start_again().await;
    assert!(!file.exists(), "no other key is made where one is missing");
    let named = async |up: &Installation| up.get("/health").await["checks"]["credentials"].as_str().unwrap().to_owned();
    let said = named(&up).await;
    assert!(said.contains("acme/default") && up.log().contains("acme/default"), "{said}");
    up.kill();

    let (code, said) = cli(&up, &["credential", "master-key", "--file", "master.key"], "");
    assert_eq!(code, Some(0), "{said}");
    up.start_again().await;
    let said = named(&up).await;
    assert!(said.contains("acme/default") && said.contains(&needed), "{said}");
    let (code, doctor) = cli(&up, &["doctor"], "");
    assert!(code == Some(1) && doctor.contains("acme/default") && doctor.contains(&needed[..8]), "{doctor}");
    let (code, check) = cli(&up, &["credential", "check"], "");
    assert!(code == Some(1) && check.contains(&needed), "{check}");
    let waiting = submit(&up, "acme").await;
    let told = until_keyless(&up, &waiting).await;
    assert!(told["summary"].as_str().unwrap().contains(&needed), "{told}");
    let other = submit(&up, "initech").await;
    succeeds(&up, &other).await;
    assert_eq!(door.count("acme", OPERATORS), 0);

    // Put back beside the new one, without a restart; then everything is kept with the new one.
    let new = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{new}{right}")).unwrap();
    succeeds(&up, &waiting).await;
    assert_eq!(named(&up).await, "ok");
    let (code, rewrapped) = cli(&up, &["credential", "rewrap", "--json"], "");
    assert_eq!(code, Some(0), "{rewrapped}");
    let rewrapped: Value = serde_json::from_str(&rewrapped).unwrap();
    assert_eq!([&rewrapped["done"], &rewrapped["left"], &rewrapped["unreadable"]], [&json!(1), &json!(0), &json!(0)]);
    fs::write(&file, new).unwrap();
    let rewrapped = up.get("/v1/tenants/acme/credentials/default").await;
    assert!(rewrapped["kek_id"] != needed.as_str() && rewrapped["readable"] == true, "{rewrapped}");
    let after = submit(&up, "acme").await;
    succeeds(&up, &after).await;
    assert_eq!(door.count("acme", ACME), 2);
}

/// Three processes: the API that is told of a key, and two workers that have to hear of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_uses_a_key_within_seconds_and_stops_using_it() {
    let folder = tempfile::tempdir().unwrap();
    let door = Arc::new(Door::default());
    let provider = MockProvider::start_directed(door.clone()).await;
    let redis = RedisServer::start();
    let database = tokio::task::spawn_blocking(|| PostgresServer::shared().database()).await.unwrap();
    let keys = folder.path().join("keys");
    let made = Command::new(env!("CARGO_BIN_EXE_longshore"))
        .args(["credential", "master-key", "--file"])
        .arg(&keys)
        .env_clear()
        .output()
        .unwrap();
    assert!(made.status.success());
    let migrated = Command::new(env!("CARGO_BIN_EXE_longshore"))
        .args(["migrate", "--yes"])
        .env_clear()
        .envs([("LONGSHORE_JOURNAL", database.as_str())])
        .output()
        .unwrap();
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    let start = async |role: &str| {
        let mut process = Installation::role(role, &folder.path().join(role), &[])
            .with("LONGSHORE_JOURNAL", &database)
            .with("LONGSHORE_DISPATCHER", &redis.url())
            .with("LONGSHORE_PROVIDER_URL", &provider.url())
            .with("LONGSHORE_CREDENTIALS_MASTER_KEY_FILE", &keys.display().to_string())
            .with("OPENAI_API_KEY", OPERATORS);
        process.start_again().await;
        process
    };
    let _scheduler = start("scheduler").await;
    let api = start("api").await;
    fs::create_dir_all(&api.data).unwrap();
    let _workers = [start("worker").await, start("worker").await];
    // Of before the policy: they stand in everybody's lane, and have to leave it.
    let mut waiting = vec![];
    for verb in ["pause", "resume"] {
        let (code, said) = cli(&api, &["tenant", verb, "acme"], "");
        assert_eq!(code, Some(0), "{said}");
        if verb == "pause" {
            for _ in 0..5 {
                waiting.push(submit(&api, "acme").await);
            }
            let (code, said) = cli(&api, &["credential", "policy", "acme", "own_only"], "");
            assert_eq!(code, Some(0), "{said}");
        }
    }
    for _ in 0..15 {
        waiting.push(submit(&api, "acme").await);
    }
    for id in &waiting {
        until_keyless(&api, id).await;
    }
    assert!(door.calls().is_empty(), "{:?}", door.calls());
    set(&api, "acme", ACME);
    for id in &waiting {
        succeeds(&api, id).await;
    }
    assert_eq!(door.calls(), BTreeMap::from([(("acme".to_owned(), ACME.to_owned()), 20)]));
    let (code, said) = cli(&api, &["credential", "delete", "acme", "default"], "");
    assert_eq!(code, Some(0), "{said}");
    // A worker may not have heard of it for a second; after that nobody has a key.
    api.until("nobody uses the key any more", async |api| {
        let id = submit(api, "acme").await;
        api.until("it ends or waits", async |api| {
            let why = why(api, &id).await;
            why["state"] == "succeeded" || why["waits"][0]["waits_for"] == "credential"
        })
        .await;
        why(api, &id).await["state"] != "succeeded"
    })
    .await;
    assert!(door.calls().keys().all(|(_, key)| key == ACME), "the operator's key was never used");
}
