//! Callers of two tenants on shared stores: roles, tokens and the wall in Postgres, over two real API processes.

use crate::installation::Installation;
use reqwest::StatusCode;
use serde_json::{Value, json};
use testkit::{PostgresServer, RedisServer};

/// Two API processes with the processes that run jobs, none of them with a superuser of Postgres.
struct Fleet {
    apis: [Installation; 2],
    _others: [Installation; 2],
    http: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Fleet {
    async fn start(redis: &RedisServer) -> Self {
        let server = tokio::task::spawn_blocking(PostgresServer::shared).await.unwrap();
        server.run("postgres", "CREATE ROLE fleet LOGIN CREATEROLE PASSWORD 'secret'");
        server.run("postgres", "CREATE DATABASE fleet OWNER fleet");
        let journal = format!("postgres://fleet:secret@127.0.0.1:{}/fleet", server.port());
        let folder = tempfile::tempdir().unwrap();
        let url = redis.url();
        let migrated = std::process::Command::new(env!("CARGO_BIN_EXE_longshore"))
            .args(["migrate", "--yes", "--journal", &journal])
            .env_clear()
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        let key = std::process::Command::new(env!("CARGO_BIN_EXE_longshore")).args(["key", "signing-key"]).output();
        let signing = String::from_utf8(key.unwrap().stdout).unwrap();
        let role = |name: &str| {
            let process = Installation::role(name, folder.path(), &["--journal", &journal, "--dispatcher", &url]);
            process.with("LONGSHORE_PROBE_JOBS", "true").with("LONGSHORE_SIGNING_KEY", signing.trim())
        };
        let mut apis = [role("api"), role("api")];
        let mut others = [role("worker"), role("scheduler")];
        for process in apis.iter_mut().chain(&mut others) {
            assert!(process.spawn(), "{}", process.log());
        }
        for process in apis.iter().chain(&others) {
            process.until_ready().await;
        }
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { apis, _others: others, http, _folder: folder }
    }

    /// What a caller is answered at one of the two.
    async fn ask(&self, at: usize, method: &str, key: &str, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let url = format!("{}{path}", self.apis[at].url);
        let request = self.http.request(method.parse().unwrap(), url).bearer_auth(key);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let answer = request.send().await.unwrap();
        let status = answer.status();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(Value::Null))
    }

    async fn get(&self, at: usize, key: &str, path: &str) -> (StatusCode, Value) {
        self.ask(at, "GET", key, path, None).await
    }

    async fn key(&self, tenant: &str, role: &str) -> String {
        let body = json!({"name": "test", "tenant": tenant, "role": role});
        self.apis[0].post("/v1/keys", &body).await["key"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_work_beside_each_other_and_see_nothing_of_each_other() {
    let redis = RedisServer::start();
    let fleet = Fleet::start(&redis).await;
    let (user, analyst) = (fleet.key("acme", "user").await, fleet.key("acme", "analyst").await);
    let (stranger, strange_analyst) = (fleet.key("globex", "user").await, fleet.key("globex", "analyst").await);
    let (status, made) = fleet.ask(0, "POST", &user, "/v1/auth/token", None).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    let token = made["token"].as_str().unwrap();
    // Made at one process, believed at the other: they share the signing key.
    let job = json!({"kind": "llm", "payload": {"messages": [{"role": "user", "content": "Say hello"}]}, "batch_id": "b",
                     "operation": "of-acme"});
    let (status, accepted) = fleet.ask(1, "POST", token, "/v1/jobs", Some(&job)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{accepted}");
    let id = accepted["id"].as_str().unwrap();
    let ended = async |_: &Installation| {
        let (status, job) = fleet.get(1, &user, &format!("/v1/jobs/{id}?wait=5s")).await;
        assert_eq!(status, StatusCode::OK, "{job}");
        job["state"] == "succeeded"
    };
    fleet.apis[0].until("the job ends", ended).await;
    for path in ["", "/result", "/attempts", "/calls", "/why"] {
        let path = format!("/v1/jobs/{id}{path}");
        for (caller, wanted) in [(&user, 200), (&analyst, 200), (&stranger, 404), (&strange_analyst, 404)] {
            let (status, answer) = fleet.get(0, caller, &path).await;
            assert_eq!(status.as_u16(), wanted, "{path}: {answer}");
        }
    }
    let (_, calls) = fleet.get(0, &user, &format!("/v1/jobs/{id}/calls")).await;
    assert_eq!(calls["calls"].as_array().unwrap().len(), 1);
    for (path, field) in [
        ("/v1/jobs", "jobs"),
        ("/v1/jobs?state=succeeded", "jobs"),
        ("/v1/jobs?batch_id=b", "jobs"),
        ("/v1/jobs?q=of-acme", "jobs"),
        ("/v1/jobs?filter=state%20%3D%20succeeded", "jobs"),
        ("/v1/costs?group_by=tenant", "rows"),
    ] {
        for (caller, wanted) in [(&analyst, 1), (&strange_analyst, 0)] {
            let (status, page) = fleet.get(1, caller, path).await;
            assert_eq!(status, StatusCode::OK, "{path}: {page}");
            assert_eq!(page[field].as_array().unwrap().len(), wanted, "{path}: {page}");
        }
    }
    assert_eq!(fleet.get(0, &analyst, "/v1/batches/b").await.1["total"], 1);
    assert_eq!(fleet.get(0, &strange_analyst, "/v1/batches/b").await.0, StatusCode::NOT_FOUND);
    assert_eq!(fleet.get(0, &analyst, "/v1/tenants/acme/usage").await.1["jobs"], 1);

    // Taken back at one process, felt at the other, for key and token alike.
    let (status, _) = fleet.ask(0, "DELETE", crate::installation::KEY, "/v1/keys?tenant=acme", None).await;
    assert_eq!(status, StatusCode::OK);
    for bearer in [user.as_str(), token] {
        let refused = async |_: &Installation| fleet.get(1, bearer, "/v1/jobs").await.0 == StatusCode::UNAUTHORIZED;
        fleet.apis[1].until("the revocation is felt", refused).await;
    }
    assert_eq!(fleet.get(1, &stranger, "/v1/jobs").await.0, StatusCode::OK);
}
