//! Backups as operators make them: beside a running installation, from its server, killed in the middle, before a migration; and
//! a restored system, which begins nothing before somebody confirms it.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use testkit::PostgresServer;

use crate::installation::{Installation, KEY};

/// Keys of two recipients in files, and a place for backups.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    recipients: String,
}

impl Place {
    pub(crate) async fn new() -> Self {
        tokio::task::spawn_blocking(testkit::install_age).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let key = |name: &str| {
            let made = Command::new("age-keygen").arg("-o").arg(folder.path().join(name)).output().unwrap();
            assert!(made.status.success());
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            text.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned()
        };
        let recipients = [key("operator.key"), key("escrow.key")].join(",");
        Self { folder, recipients }
    }

    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LONGSHORE_BACKUP_URL", format!("file:{}", self.folder.path().join("place").display())),
            ("LONGSHORE_BACKUP_OFFSITE", format!("file:{}", self.folder.path().join("offsite").display())),
            ("LONGSHORE_BACKUP_RECIPIENTS", self.recipients.clone()),
            ("LONGSHORE_BACKUP_IDENTITY_FILE", self.folder.path().join("operator.key").display().to_string()),
        ]
    }

    fn command(&self, line: &[&str], data: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
        command.arg("--json").args(line).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("LONGSHORE_DATA", data).env("LONGSHORE_KEY", KEY).envs(self.variables());
        command
    }

    /// Runs `longshore LINE`; its exit code and what it printed.
    fn run(&self, line: &[&str], data: &Path) -> (Option<i32>, Value) {
        let output = self.command(line, data).output().unwrap();
        let said = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
        let value = serde_json::from_slice(said).unwrap_or_else(|_| json!(String::from_utf8_lossy(said)));
        (output.status.code(), value)
    }

    fn ran(&self, line: &[&str], data: &Path) -> Value {
        let (code, value) = self.run(line, data);
        assert_eq!(code, Some(0), "{line:?}: {value:#}");
        value
    }

    fn good(&self, data: &Path) -> Vec<Value> {
        self.ran(&["backup", "list"], data)["backups"].as_array().unwrap().clone()
    }
}

fn probe(payload: Value) -> Value {
    json!({"kind": "probe", "payload": payload})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_system_begins_nothing_before_it_is_confirmed() {
    let place = Place::new().await;
    let data = place.folder.path().join("data");
    let variables = place.variables();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut up = Installation::start_in(&data, &["--slots", "1"], &variables).await;
    let done = up.probe(json!({})).await;
    up.ended(&done).await;
    // One job runs for ever and the other waits behind it.
    let running = up.submit(&probe(json!({"sleep_ms": 3_600_000}))).await;
    up.until("it runs", async |up| up.get(&format!("/v1/jobs/{running}")).await["state"] == "running").await;
    let waiting = up.probe(json!({})).await;
    up.cancel(&running).await;
    up.ended(&waiting).await;
    up.put("/v1/maintenance", &json!({"on": true})).await;
    let first = up.try_submit(&probe(json!({}))).await.0;
    assert_eq!(first, StatusCode::SERVICE_UNAVAILABLE);
    up.put("/v1/maintenance", &json!({"on": false})).await;
    up.patch("/v1/queues/later", &json!({"paused": true})).await;
    let held = up.submit(&json!({"kind": "probe", "queue": "later", "payload": {}})).await;

    // Beside the running process, and by its own scheduler.
    let made = place.ran(&["backup", "create", "--scope", "database"], &data);
    assert_eq!((made["opened"].clone(), made["offsite_error"].clone()), (json!(true), Value::Null), "{made:#}");
    let remote =
        place.ran(&["backup", "create", "--remote", "--url", &up.url, "--reason", "before their change"], &data);
    assert_eq!((&remote["state"], &remote["scope"]), (&json!("good"), &json!("full")));
    let drilled = place.ran(&["backup", "verify", "latest", "--remote", "--restore", "--url", &up.url], &data);
    assert!(drilled["check"]["recovery_seconds"].as_f64().unwrap() > 0.0, "{drilled:#}");
    let log = up.get("/v1/audit").await.to_string();
    assert!(log.contains("backup create") && log.contains("backup drill"), "{log}");
    let metrics = up.page("/metrics").await;
    for line in [
        "longshore_backup_last_success_timestamp_seconds{kind=\"full\"}",
        "longshore_backup_last_success_timestamp_seconds{kind=\"offsite\"}",
        "longshore_backup_last_verified_timestamp_seconds",
        "longshore_restore_drill_seconds",
        "longshore_restore_drill_lost_seconds",
    ] {
        assert!(metrics.contains(line), "{line} is missing in:\n{metrics}");
    }
    assert_eq!(up.status(&format!("/v1/backups/{}", remote["id"].as_str().unwrap())).await, Some(StatusCode::OK));
    let drill = place.ran(&["drill", "run"], &data);
    assert_eq!(drill["good"], json!(true));
    assert_eq!(place.good(&data).len(), 2);
    place.ran(&["backup", "verify", made["id"].as_str().unwrap(), "--from", made["offsite"].as_str().unwrap()], &data);
    let pruned = place.ran(&["backup", "prune"], &data);
    assert_eq!((pruned["dry_run"].clone(), pruned["places"][0]["kept"].clone()), (json!(true), json!(2)));
    up.kill();

    // Nothing writes over what is there.
    let own = format!("sqlite:{}", data.join("journal.db").display());
    assert_eq!(place.run(&["backup", "restore", "latest", "--into", &own], &data).0, Some(5));
    let restored = place.folder.path().join("restored");
    let into = format!("sqlite:{}", restored.join("journal.db").display());
    let told = place.ran(&["backup", "restore", made["id"].as_str().unwrap(), "--into", &into], &data);
    assert_eq!(told["live_jobs"], json!(1), "{told:#}");
    let up = Installation::start(&restored, &[]).await;
    let maintenance = up.get("/v1/maintenance").await;
    assert!(maintenance["reason"].as_str().unwrap().starts_with("restored from backup"), "{maintenance}");
    assert_eq!(up.try_submit(&probe(json!({}))).await.0, StatusCode::SERVICE_UNAVAILABLE);
    up.patch("/v1/queues/later", &json!({"paused": false})).await;
    // Its worker has had several rounds by then, and takes none.
    up.until("a worker is there", async |up| !up.get("/v1/workers").await["workers"].as_array().unwrap().is_empty())
        .await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(up.get(&format!("/v1/jobs/{held}")).await["state"], "ready");
    up.put("/v1/maintenance", &json!({"on": false})).await;
    assert_eq!(up.ended(&held).await["state"], "succeeded");
    assert_eq!(up.get(&format!("/v1/jobs/{done}")).await["state"], "succeeded");
}

/// Starts `backup create` and kills it after so long.
fn killed(place: &Place, data: &Path, after: Duration) -> bool {
    let mut command = place.command(&["backup", "create", "--scope", "database"], data);
    let mut child: Child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(after);
    let was_running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    was_running
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_killed_anywhere_is_never_good_unless_it_is() {
    let place = Place::new().await;
    let data = place.folder.path().join("data");
    let up = Installation::start(&data, &[]).await;
    let pad = "x".repeat(200_000);
    for _ in 0..20 {
        up.probe(json!({"pad": pad})).await;
    }
    let whole = std::time::Instant::now();
    place.ran(&["backup", "create", "--scope", "database"], &data);
    let whole = whole.elapsed();
    // From its first moment to behind its last one.
    let kills = 12;
    let died = (0..kills).filter(|n| killed(&place, &data, whole * *n / (kills - 2))).count();
    assert!(died >= 3, "{died} of {kills} were killed");
    let listed = place.ran(&["backup", "list"], &data);
    let good: Vec<&str> =
        listed["backups"].as_array().unwrap().iter().map(|backup| backup["id"].as_str().unwrap()).collect();
    assert_eq!(listed["damaged"], json!([]));
    for id in &good {
        let verdict = place.ran(&["backup", "verify", id], &data);
        assert_eq!((verdict["good"].clone(), verdict["opened"].clone()), (json!(true), json!(true)));
    }
    for unfinished in listed["unfinished"].as_array().unwrap() {
        let (code, _) = place.run(&["backup", "verify", unfinished["id"].as_str().unwrap()], &data);
        assert_eq!(code, Some(3), "what has no manifest is no backup");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_is_preceded_by_a_backup() {
    use queue_core::journal::postgres::{MIGRATIONS, PostgresConfig, connect, migrate, roll_back, schema_version};
    let place = Place::new().await;
    let data: PathBuf = place.folder.path().join("data");
    let url = tokio::task::spawn_blocking(|| PostgresServer::shared().database()).await.unwrap();
    let config = PostgresConfig::new(url.clone());
    let behind = async || {
        let mut connection = connect(&config).await.unwrap();
        migrate(&mut connection).await.unwrap();
        roll_back(&mut connection, MIGRATIONS.len() - 1).await.unwrap();
    };
    behind().await;
    place.ran(&["migrate", "--yes", "--journal", &url], &data);
    let made = place.good(&data);
    assert_eq!((made.len(), &made[0]["cause"]), (1, &json!("migration")));
    assert_eq!(made[0]["database"]["schema"], json!(MIGRATIONS.len() - 1));
    // What is up to date is not backed up again, and whoever says so goes without.
    place.ran(&["migrate", "--yes", "--journal", &url], &data);
    behind().await;
    place.ran(&["migrate", "--yes", "--no-backup", "--journal", &url], &data);
    assert_eq!(place.good(&data).len(), 1);
    behind().await;
    let broken = place.folder.path().join("place");
    std::fs::remove_dir_all(&broken).unwrap();
    std::fs::write(&broken, "in the way").unwrap();
    let (code, said) = place.run(&["migrate", "--yes", "--journal", &url], &data);
    assert!(matches!(code, Some(1 | 5)), "{code:?}: {said}");
    assert_eq!(schema_version(&mut connect(&config).await.unwrap()).await.unwrap(), MIGRATIONS.len() - 1);
}
