//! Words that must not leak: planted in prompts, payloads, keys, headers and what a provider says, and looked for in everything that an
//! installation writes for others than their owner: its log with `debug` on, its metrics, its health, and every refusal.

use crate::installation::{Installation, KEY};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use testkit::{Behaviour, MockProvider};

/// Each has a word of its own, so that a leak says where it came from.
const PROMPT: &str = "canary-in-a-prompt";
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

fn chat(tenant: &str) -> Value {
    json!({"kind": "llm", "tenant": tenant, "max_attempts": 1,
           "payload": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": PROMPT}]}})
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
        let said = json!({"error": {"message": format!("{REFUSAL}: {PROMPT} with {CREDENTIAL}"), "type": "invalid", "code": "bad"}});
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
    provider.script([Behaviour::ErrorAfter(1, json!({"error": {"message": format!("{REFUSAL} {PROMPT}")}}))]);
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
