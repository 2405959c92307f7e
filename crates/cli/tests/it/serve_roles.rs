//! `serve api|worker|scheduler`: several real processes of each role on one Postgres and one Redis.

use crate::installation::{Installation, KEY, refused};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{PostgresServer, RedisServer};

/// Two processes of each role.
struct Fleet {
    apis: [Installation; 2],
    workers: [Installation; 2],
    schedulers: [Installation; 2],
    _folder: TempDir,
}

impl Fleet {
    /// Processes that are not running yet, over a migrated database.
    fn new(redis: &RedisServer, database: &str) -> Self {
        migrate(database);
        let folder = tempfile::tempdir().unwrap();
        // Secrets by file, as containers are given them.
        let [journal, dispatcher] = [("journal", database), ("dispatcher", redis.url().as_str())].map(|(name, url)| {
            let file = folder.path().join(name);
            std::fs::write(&file, format!("{url}\n")).unwrap();
            file.to_str().unwrap().to_owned()
        });
        let objects = format!("file:{}", folder.path().join("objects").display());
        let role = |name: &str, more: &[&str]| {
            let role = Installation::role(name, folder.path(), more)
                .with("LONGSHORE_JOURNAL_FILE", &journal)
                .with("LONGSHORE_DISPATCHER_FILE", &dispatcher);
            // Nobody balances over them, so nobody has to be told.
            let role = role.with("LONGSHORE_PROBE_JOBS", "true").with("LONGSHORE_STOP_WAIT", "100ms");
            role.with("LONGSHORE_OBJECTS_URL", &objects)
        };
        Self {
            apis: [role("api", &[]), role("api", &[])],
            workers: [role("worker", &["--slots", "4"]), role("worker", &["--slots", "4"])],
            schedulers: [role("scheduler", &[]), role("scheduler", &[])],
            _folder: folder,
        }
    }

    /// All of them, ready.
    async fn start(redis: &RedisServer, database: &str) -> Self {
        let mut fleet = Self::new(redis, database);
        for process in fleet.all() {
            assert!(process.spawn(), "{}", process.log());
        }
        for process in fleet.all() {
            process.until_ready().await;
        }
        fleet
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Installation> {
        self.workers.iter_mut().chain(&mut self.apis).chain(&mut self.schedulers)
    }

    /// Waits until this many jobs run.
    async fn until_active(&self, jobs: u64) {
        let active = async |api: &Installation| {
            let metrics = api.get("/v1/queues/metrics").await;
            metrics["queues"]["default"]["active"] == jobs
        };
        self.apis[0].until("active", active).await;
    }
}

async fn database() -> String {
    tokio::task::spawn_blocking(|| PostgresServer::shared().database()).await.unwrap()
}

fn migrate(database: &str) {
    let migrate = std::process::Command::new(env!("CARGO_BIN_EXE_longshore"))
        .args(["migrate", "--journal", database])
        .env_clear()
        .output()
        .unwrap();
    assert!(migrate.status.success(), "{}", String::from_utf8_lossy(&migrate.stderr));
}

/// Waits until a job has ended; asks anew each time, over an API that may know nothing of the job but what is stored.
async fn ended(api: &Installation, id: &str) -> Value {
    let path = format!("/v1/jobs/{id}");
    let final_state = async |api: &Installation| {
        let job = api.try_get(&path).await;
        job.is_some_and(|job| ["succeeded", "dead", "cancelled"].iter().any(|state| job["state"] == *state))
    };
    api.until("ended", final_state).await;
    api.get(&path).await
}

async fn busy_slots(worker: &Installation) -> f64 {
    let metrics = worker.page("/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix("longshore_worker_slots{state=\"busy\"} "));
    line.map_or(0.0, |slots| slots.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_come_up_in_any_order_and_either_api_knows_every_job() {
    let redis = RedisServer::start();
    let mut fleet = Fleet::new(&redis, &database().await);
    let [worker, other_worker] = &mut fleet.workers;
    assert!(worker.spawn() && other_worker.spawn());
    worker.until("alive", async |worker| worker.status("/livez").await == Some(StatusCode::OK)).await;
    assert_eq!(worker.status("/readyz").await, Some(StatusCode::SERVICE_UNAVAILABLE), "no scheduler has been there");

    fleet.apis[0].start_again().await;
    let early = fleet.apis[0].probe(json!({"sleep_ms": 1})).await;
    assert_eq!(fleet.apis[0].get(&format!("/v1/jobs/{early}")).await["state"], "ready");

    fleet.apis[1].start_again().await;
    for scheduler in &mut fleet.schedulers {
        assert!(scheduler.spawn(), "{}", scheduler.log());
    }
    for process in fleet.all() {
        process.until_ready().await;
    }
    let late = fleet.apis[0].probe(json!({"sleep_ms": 1})).await;
    for id in [early, late] {
        let job = ended(&fleet.apis[1], &id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
    }
    // What one API has put outside the journal a worker reads, and what that puts there the other API reads.
    let large = fleet.apis[0].probe(json!({"pad": "x".repeat(300_000), "result_bytes": 300_000})).await;
    let job = ended(&fleet.apis[1], &large).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let result = fleet.apis[1].get(job["result_url"].as_str().unwrap()).await;
    assert!(result.to_string().len() >= 300_000, "{} bytes", result.to_string().len());
    let metrics = fleet.schedulers[0].page("/metrics").await;
    assert!(metrics.contains("longshore_build_info{"), "{metrics}");
    assert_eq!(fleet.workers[0].status("/v1/jobs").await, Some(StatusCode::NOT_FOUND), "a worker is no API");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_ends_although_a_worker_and_a_scheduler_are_killed() {
    let redis = RedisServer::start();
    let mut fleet = Fleet::start(&redis, &database().await).await;
    let mut jobs = vec![];
    // As many as there are slots, so that both workers have some.
    for number in 0..8 {
        jobs.push(fleet.apis[number % 2].probe(json!({"sleep_ms": 4_000})).await);
    }
    fleet.until_active(8).await;
    fleet.workers[0].kill();
    fleet.schedulers[0].kill();
    let mut lost = 0;
    for id in jobs {
        let job = ended(&fleet.apis[1], &id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        let attempts = fleet.apis[0].get(&format!("/v1/jobs/{id}/attempts")).await;
        lost += usize::from(attempts.to_string().contains("\"lost\""));
    }
    assert_eq!(lost, 4, "the killed worker's jobs, and no others, ran twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_over_one_process_stops_the_job_in_another() {
    let redis = RedisServer::start();
    let fleet = Fleet::start(&redis, &database().await).await;
    let id = fleet.apis[0].probe(json!({"sleep_ms": 3_600_000})).await;
    fleet.until_active(1).await;
    let busy = async || busy_slots(&fleet.workers[0]).await + busy_slots(&fleet.workers[1]).await;
    fleet.apis[0].until("a slot is busy", async |_| busy().await == 1.0).await;
    assert_eq!(fleet.apis[1].cancel(&id).await, StatusCode::ACCEPTED);
    fleet.apis[0].until("the slot is free", async |_| busy().await == 0.0).await;
    let job = ended(&fleet.apis[0], &id).await;
    assert_eq!(job["state"], "cancelled", "{job}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_go_away_end_nobody() {
    let mut redis = RedisServer::start();
    let postgres = tokio::task::spawn_blocking(PostgresServer::start).await.unwrap();
    let mut fleet = Fleet::start(&redis, &postgres.database()).await;
    let unready = async |process: &Installation| process.status("/readyz").await != Some(StatusCode::OK);

    redis.stop();
    for process in fleet.workers.iter().chain(&fleet.schedulers) {
        process.until("not ready", unready).await;
    }
    let while_redis_was_away = fleet.apis[0].probe(json!({"sleep_ms": 1})).await;
    redis.restart_empty();
    assert_eq!(ended(&fleet.apis[1], &while_redis_was_away).await["state"], "succeeded");

    postgres.crash();
    for process in fleet.all() {
        process.until("not ready", unready).await;
    }
    postgres.resume();
    for process in fleet.all() {
        process.until_ready().await;
        assert!(process.is_alive());
    }
    let afterwards = fleet.apis[0].probe(json!({"sleep_ms": 1})).await;
    assert_eq!(ended(&fleet.apis[1], &afterwards).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_is_asked_to_stop_ends_its_work_first() {
    let redis = RedisServer::start();
    let mut fleet = Fleet::start(&redis, &database().await).await;
    let id = fleet.apis[0].probe(json!({"sleep_ms": 1_000})).await;
    fleet.until_active(1).await;
    for worker in &mut fleet.workers {
        worker.terminate();
        assert_eq!(worker.wait_for_death(), Some(0));
    }
    let job = fleet.apis[1].get(&format!("/v1/jobs/{id}")).await;
    assert_eq!((&job["state"], &job["attempts"]), (&json!("succeeded"), &json!(1)), "{job}");
    for process in fleet.apis.iter_mut().chain(&mut fleet.schedulers) {
        process.terminate();
        assert_eq!(process.wait_for_death(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_role_at_once() {
    let redis = RedisServer::start();
    let mut fleet = Fleet::start(&redis, &database().await).await;
    // As many as there are slots, so that both workers have what they would wait for.
    for number in 0..8 {
        fleet.apis[number % 2].probe(json!({"sleep_ms": 3_600_000})).await;
    }
    fleet.until_active(8).await;
    for (worker, second) in fleet.workers.iter_mut().zip(["-TERM", "-INT"]) {
        worker.terminate();
        // Two signals that come before either is seen are one.
        worker.until("stopping", async |worker| worker.log().contains("a second signal leaves at once")).await;
        assert!(worker.is_alive(), "it waits for its jobs");
        worker.signal(second);
        assert_eq!(worker.wait_for_death(), Some(130), "{}", worker.log());
        assert!(worker.log().contains("second signal: leaving at once"), "{}", worker.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_for_others_wants_an_admin_key() {
    let redis = RedisServer::start();
    let (database, url) = (database().await, redis.url());
    migrate(&database);
    let stores = [("LONGSHORE_JOURNAL", database.as_str()), ("LONGSHORE_DISPATCHER", url.as_str())];
    let line = refused(&["serve", "api", "--listen", "0.0.0.0:0"], &stores);
    assert!(line.contains("LONGSHORE_ADMIN_KEY"), "{line}");
    let line = refused(&["serve", "api"], &[&stores[..], &[("LONGSHORE_ADMIN_KEY", "hidden")]].concat());
    assert!(line.contains("LONGSHORE_ADMIN_KEY"), "{line}");

    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--journal", &database, "--dispatcher", &url];
    let mut first = Installation::role("api", folder.path(), &arguments).for_others();
    first.start_again().await;
    first.kill();
    // The key is in the journal now.
    let mut second = Installation::role("api", folder.path(), &arguments).for_others().without_key();
    second.start_again().await;
    assert_eq!(second.status("/v1/dead-letters").await, Some(StatusCode::OK), "with the key {KEY}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_runs_on_shared_stores_and_a_known_schema_only() {
    let redis = RedisServer::start();
    let (database, url) = (database().await, redis.url());
    for role in ["api", "worker", "scheduler"] {
        let line = refused(&["serve", role], &[]);
        assert!(
            line.contains("LONGSHORE_JOURNAL=postgres://") && line.contains("LONGSHORE_DISPATCHER=redis://"),
            "{line}"
        );
        let line = refused(&["serve", role, "--journal", &database], &[]);
        assert!(!line.contains("LONGSHORE_JOURNAL") && line.contains("LONGSHORE_DISPATCHER=redis://"), "{line}");

        let line = refused(&["serve", role, "--journal", &database, "--dispatcher", &url], &[]);
        assert!(line.contains("run `longshore migrate`"), "{line}");
    }
    let name = database.rsplit('/').next().unwrap();
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(PostgresServer::shared().run(name, tables), "0", "nobody made a schema");

    migrate(&database);
    PostgresServer::shared().run(name, "INSERT INTO schema_migrations (version, name) VALUES (9999, 'later')");
    let line = refused(&["serve", "worker", "--journal", &database, "--dispatcher", &url], &[]);
    assert!(line.contains("use a newer program"), "{line}");
}
