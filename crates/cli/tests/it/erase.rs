//! A tenant is erased while it works: what runs and waits ends, and in the file and in the answers nothing of it is left.

use std::{path::Path, process::Command, time::Duration};

use crate::installation::{Installation, KEY};
use serde_json::{Value, json};

const TENANT: &str = "canaryco";

/// Runs `longshore tenant erase …` against it; its exit code and what it printed.
fn erase(up: &Installation, line: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
    command.args(["tenant", "erase"]).args(line).env_clear().env("LONGSHORE_URL", &up.url).env("LONGSHORE_KEY", KEY);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), String::from_utf8(output.stdout).unwrap() + &said)
}

/// Tables of the file that say something of the tenant, but for those that are to: the log of it, and what was written down before.
fn traces(data: &Path) -> Vec<String> {
    let connection = rusqlite::Connection::open(data.join("journal.db")).unwrap();
    let mut tables =
        connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").unwrap();
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let says = |table: &String| {
        let mut columns = connection.prepare("SELECT name FROM pragma_table_info(?1)").unwrap();
        let columns: Vec<String> = columns.query_map([table], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let any: Vec<_> = columns.iter().map(|column| format!("instr(CAST(\"{column}\" AS TEXT), ?1) > 0")).collect();
        let query = format!("SELECT count(*) FROM \"{table}\" WHERE {}", any.join(" OR "));
        connection.query_row(&query, [TENANT], |row| row.get::<_, i64>(0)).unwrap() > 0
    };
    let expected = ["erasures", "audit_log"];
    tables.into_iter().filter(|table| !expected.contains(&table.as_str()) && says(table)).collect()
}

fn probe(tenant: &str, payload: Value) -> Value {
    json!({"kind": "probe", "tenant": tenant, "payload": payload})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_erased_while_it_works() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Installation::start(&folder.path().join("data"), &["--slots", "2"]).await;
    let done = up.submit(&probe(TENANT, json!({"pad": TENANT}))).await;
    let dead = up.submit(&probe(TENANT, json!({"fail": "permanent"}))).await;
    for id in [&done, &dead] {
        up.ended(id).await;
    }
    for _ in 0..20 {
        up.submit(&probe(TENANT, json!({"sleep_ms": 3_600_000, "pad": TENANT}))).await;
    }
    up.until("two of them run", async |up| {
        up.get("/v1/workers").await["workers"][0]["busy"] == json!(2) || running(up).await == 2
    })
    .await;
    up.put(&format!("/v1/tenants/{TENANT}"), &json!({"weight": 3})).await;

    let (code, said) = erase(&up, &[TENANT]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("jobs") && said.contains("22") && said.contains("nothing was erased"), "{said}");
    assert!(!traces(&up.data).is_empty());
    let (code, said) = erase(&up, &[TENANT, "--yes", "--wait", "50s"]);
    assert_eq!(code, Some(0), "{said}\n{}", up.log());
    assert!(said.contains("is erased") && said.contains("erased-"), "{said}");
    assert_eq!(traces(&up.data), Vec::<String>::new());
    assert_eq!(up.try_submit(&probe(TENANT, json!({}))).await.0.as_u16(), 403);
    for id in [&done, &dead] {
        assert_eq!(up.status(&format!("/v1/jobs/{id}")).await.unwrap().as_u16(), 404);
    }
    // Slots that its jobs held are free again, for others.
    let other = up.submit(&probe("globex", json!({}))).await;
    assert_eq!(up.ended(&other).await["state"], "succeeded");

    // A log that was kept beside the backups is worth something only if it can be read again.
    let (_, log) = erase(&up, &["--log"]);
    assert_eq!(log.lines().count(), 1, "{log}");
    let file = folder.path().join("erased.ndjson");
    let mut line: Value = serde_json::from_str(log.trim()).unwrap();
    (line["tenant"], line["pseudonym"]) = (json!("elsewhere"), json!(format!("erased-{:032x}", 7)));
    std::fs::write(&file, line.to_string()).unwrap();
    let (code, said) = erase(&up, &["--replay", file.to_str().unwrap()]);
    assert_eq!((code, said.contains("nothing was erased")), (Some(0), true), "{said}");
    let (code, said) = erase(&up, &["--replay", file.to_str().unwrap(), "--yes"]);
    assert_eq!((code, said.contains("1 tenants of the file")), (Some(0), true), "{said}");
    // Killed in the middle: the next start goes on by itself.
    up.kill();
    up.start_again().await;
    up.until("the other one is erased, too", async |up| {
        let log = up.get("/v1/erasures").await;
        log["erasures"].as_array().unwrap().iter().all(|one| one["state"] == json!("done"))
    })
    .await;
    assert_eq!(up.ended(&other).await["state"], "succeeded", "the neighbour has lost nothing");
    for wrong in [&[][..], &["--log", TENANT], &["--wait", "1s", TENANT]] {
        assert_eq!(erase(&up, wrong).0, Some(2), "{wrong:?}");
    }
    assert_eq!(erase(&up, &["default", "--yes"]).0, Some(5), "whoever asks belongs to it");
    tokio::time::sleep(Duration::ZERO).await;
}

async fn running(up: &Installation) -> usize {
    up.get("/v1/jobs?state=running").await["jobs"].as_array().unwrap().len()
}
