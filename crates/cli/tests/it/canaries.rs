//! Words that must not leak: planted in prompts, payloads, keys, headers and what a provider says, and looked for in everything that an
//! installation writes for others than their owner: its log with `debug` on, its metrics, its health, every refusal, its files and the
//! cells of its journal, and what the CLI tells whoever asks for support.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use crate::installation::{Installation, KEY};
use reqwest::{Method, RequestBuilder};
use rusqlite::{Connection, OpenFlags, types::ValueRef};
use serde_json::{Value, json};
use testkit::{Behaviour, MockProvider};

/// Each has a word of its own, so that a leak says where it came from.
const PROMPT: &str = "canary-in-a-prompt";
/// As it is asked: what is as short as its canary is not known again in a provider's words.
const ASKED: &str = "canary-in-a-prompt, and behind it what people really ask a model about";
const PAYLOAD: &str = "canary-in-a-payload";
const ANSWER: &str = "canary-in-an-answer";
const REFUSAL: &str = "canary-in-a-refusal";
const CREDENTIAL: &str = "sk-canary-in-a-credential-0123456789";
const OPERATOR: &str = "sk-canary-of-the-operator-0123456789";
const HEADER: &str = "canary-in-a-header";
const STRANGER: &str = "lsk_strange1_canaryinakeythatnobodymade0123456789abcdefg";
const TOKEN: &str = "eyJhbGciOiJFZERTQSJ9.canary-in-a-token.canary-in-a-signature";

/// The secret parts of what was planted.
fn secrets() -> Vec<String> {
    let mut secrets: Vec<String> = [
        PROMPT,
        PAYLOAD,
        ANSWER,
        REFUSAL,
        CREDENTIAL,
        OPERATOR,
        HEADER,
        "canaryinakey",
        "canary-in-a-token",
        "canary-in-a-signature",
    ]
    .map(str::to_owned)
    .into();
    secrets.push(KEY.rsplit('_').next().unwrap().to_owned());
    secrets
}

/// Where prompts and answers stand, since somebody has to keep them.
const BODIES: [&str; 3] = ["memos.body", "payloads.body", "results.body"];
/// What people send along when they ask for help.
const SUPPORT: [&[&str]; 14] = [
    &["doctor"],
    &["job", "list"],
    &["dlq", "list"],
    &["queue", "list"],
    &["queue", "inspect", "default"],
    &["target", "list"],
    &["limit", "list"],
    &["worker", "list"],
    &["op", "list"],
    &["budget", "list"],
    &["audit", "list"],
    &["schedule", "list"],
    &["cost", "report"],
    &["retention", "plan"],
];

/// The columns of the journal with this in one of their cells.
fn columns_with(journal: &Connection, word: &str) -> BTreeSet<String> {
    let names = |sql: &str| -> Vec<String> {
        let mut statement = journal.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let mut found = BTreeSet::new();
    for table in names("SELECT name FROM sqlite_master WHERE type = 'table'") {
        let columns = names(&format!("SELECT name FROM pragma_table_info('{table}')"));
        let mut statement = journal.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for (at, column) in columns.iter().enumerate() {
                if let ValueRef::Text(bytes) | ValueRef::Blob(bytes) = row.get_ref(at).unwrap()
                    && contains(bytes, word)
                {
                    found.insert(format!("{table}.{column}"));
                }
            }
        }
    }
    found
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|part| part == word.as_bytes())
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// No page of any file holds a key, and prompts and answers stand in the journal's bodies only.
fn check_files(data: &Path) {
    let (keys, words): (Vec<_>, Vec<_>) =
        secrets().into_iter().partition(|secret| ![PROMPT, PAYLOAD, ANSWER, REFUSAL].contains(&secret.as_str()));
    let mut seen = 0;
    for path in files(data) {
        let (name, bytes) = (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap());
        let of_the_journal = name.starts_with("journal.db");
        let found: Vec<_> = keys.iter().chain(words.iter().filter(|_| !of_the_journal)).collect();
        let found: Vec<_> = found.into_iter().filter(|word| contains(&bytes, word)).collect();
        assert!(found.is_empty() || name == "admin.key", "{}: {found:?}", path.display());
        seen += 1;
    }
    assert!(seen >= 2, "{seen} files");
    let journal = Connection::open_with_flags(data.join("journal.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    for word in [PROMPT, PAYLOAD, ANSWER] {
        let columns = columns_with(&journal, word);
        let strange: Vec<_> = columns.iter().filter(|column| !BODIES.contains(&column.as_str())).collect();
        assert!(!columns.is_empty() && strange.is_empty(), "{word} is in {columns:?}");
    }
}

/// What the CLI says for people who help, with a secret in its environment and the provider at this address.
fn support(up: &Installation, provider: &str) -> Vec<String> {
    let run = |arguments: &&[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_longshore"))
            .arg("--json")
            .args(*arguments)
            .env_clear()
            .envs([("LONGSHORE_URL", up.url.as_str()), ("LONGSHORE_KEY", KEY)])
            .envs([("LONGSHORE_PROVIDER_URL", provider), ("OPENAI_API_KEY", OPERATOR)])
            .current_dir(&up.data)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        // `doctor` finds something to say about an installation like this one.
        let code = output.status.code();
        assert!(code == Some(0) || arguments[0] == "doctor" && code != Some(2), "{arguments:?}: {code:?}: {said}");
        said
    };
    SUPPORT.iter().map(run).collect()
}

fn chat(tenant: &str) -> Value {
    json!({"kind": "llm", "tenant": tenant, "max_attempts": 1,
           "payload": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": ASKED}]}})
}

/// A request with something secret in headers that nobody asked for.
fn dressed(request: RequestBuilder) -> RequestBuilder {
    request.header("cookie", format!("session={HEADER}")).header("x-api-key", HEADER).header("x-secret", HEADER)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_secret_is_nowhere_but_where_it_belongs() {
    let folder = tempfile::tempdir().unwrap();
    let provider = MockProvider::start().await;
    let url = provider.url();
    let environment = [("RUST_LOG", "debug"), ("LONGSHORE_LOG", "json"), ("OPENAI_API_KEY", OPERATOR)];
    let arguments = ["--provider-url", &*url, "--default-model", "gpt-4o-mini"];
    let up = Installation::start_in(&folder.path().join("data"), &arguments, &environment).await;
    let http = reqwest::Client::new();
    let mut told = Vec::new();

    // What goes well.
    up.put("/v1/tenants/acme/credentials/default", &json!({"key": CREDENTIAL})).await;
    provider.script([Behaviour::Text(ANSWER.into())]);
    let done = up.submit(&chat("default")).await;
    assert_eq!(up.ended(&done).await["state"], "succeeded", "{}", up.log());
    let probe = up.probe(json!({"pad": PAYLOAD})).await;
    up.ended(&probe).await;
    // What a provider refuses, with the prompt and the key in what it says, at once and in the middle of an answer.
    for status in [400, 401, 429, 500] {
        let said = json!({"error": {"message": format!("{REFUSAL}: {ASKED} with {CREDENTIAL}"), "type": "invalid", "code": "bad"}});
        provider.script([Behaviour::Respond(status, vec![("x-refused".into(), REFUSAL.into())], said.to_string())]);
        let tenant = if status == 401 { "acme" } else { "default" };
        let id = up.submit(&chat(tenant)).await;
        up.until("the call was refused", async |up| {
            let job = up.get(&format!("/v1/jobs/{id}")).await;
            !job["error"].is_null() || job["state"] == json!("dead")
        })
        .await;
        up.cancel(&id).await;
    }
    provider.script([Behaviour::ErrorAfter(1, json!({"error": {"message": format!("{REFUSAL} {ASKED}")}}))]);
    let broken = up.submit(&chat("default")).await;
    up.until("its stream broke off", async |up| up.get(&format!("/v1/jobs/{broken}")).await["attempts"] != json!(0))
        .await;
    up.cancel(&broken).await;

    // What is refused here.
    let bad: [(Method, &str, Option<String>); 7] = [
        (
            Method::POST,
            "/v1/jobs",
            Some(format!(
                "{{\"kind\": \"llm\", \"payload\": {{\"messages\": [{{\"role\": \"user\", \"content\": \"{PROMPT}\"}}]"
            )),
        ),
        (
            Method::POST,
            "/v1/jobs",
            Some(
                json!({"kind": "llm", "payload": {"messages": [{"role": "user", "content": {"x": PROMPT}}]}})
                    .to_string(),
            ),
        ),
        (Method::POST, "/v1/jobs", Some(json!({"kind": "probe", "payload": {"sleep_ms": PAYLOAD}}).to_string())),
        (
            Method::POST,
            "/v1/jobs",
            Some(
                json!({"kind": "llm", "priority": 99, "payload": {"messages": [{"role": "user", "content": PROMPT}]}})
                    .to_string(),
            ),
        ),
        (Method::PUT, "/v1/tenants/acme/credentials/nobody", Some(json!({"key": CREDENTIAL}).to_string())),
        (Method::PUT, "/v1/tenants/acme/credentials/default", Some(json!({"key": CREDENTIAL, "x": 1}).to_string())),
        (Method::GET, "/v1/jobs/nothing", None),
    ];
    for (method, path, body) in bad {
        let mut request = dressed(http.request(method, format!("{}{path}", up.url))).bearer_auth(KEY);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_client_error(), "{path}: {}", answer.status());
        told.push(format!("{:?} {}", answer.headers().clone(), answer.text().await.unwrap()));
    }
    for bearer in [STRANGER, TOKEN, HEADER] {
        let answer = dressed(http.get(format!("{}/v1/jobs", up.url))).bearer_auth(bearer).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 401);
        told.push(format!("{:?} {}", answer.headers().clone(), answer.text().await.unwrap()));
    }
    for page in ["/metrics", "/health", "/readyz", "/openapi.json"] {
        told.push(up.page(page).await);
    }
    told.push(up.get("/v1/audit?limit=500").await.to_string());
    told.push(up.get("/v1/tenants/acme/credentials").await.to_string());
    told.push(up.get("/v1/workers").await.to_string());

    check_files(&up.data);
    // What a provider said of a job stands in its error, without the prompt and the key that it quoted.
    for said in support(&up, &url) {
        let found: Vec<_> = secrets().into_iter().filter(|secret| secret != REFUSAL && said.contains(secret)).collect();
        assert!(found.is_empty(), "{found:?} in {said}");
    }

    let log = up.log();
    assert!(log.lines().filter(|line| line.contains("\"level\":\"DEBUG\"")).count() > 50, "debug is on: {log}");
    for secret in secrets() {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&secret)).collect();
        assert!(lines.is_empty(), "{secret} is in the log: {lines:#?}");
        let answers: Vec<_> = told.iter().filter(|text| text.contains(&secret)).collect();
        assert!(answers.is_empty(), "{secret} is in an answer: {answers:#?}");
    }
    // And it was all there: whoever it belongs to sees it.
    assert!(up.get(&format!("/v1/jobs/{done}/result")).await.to_string().contains(ANSWER));
    assert!(provider.calls().iter().any(|call| call.authorization.as_deref() == Some(&format!("Bearer {CREDENTIAL}"))));
}
