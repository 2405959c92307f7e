//! Every command line of `docs/operations.md` is run against a real process, and does what it says it does: it ends well.

use std::{path::Path, process::Command};

use crate::installation::{Installation, KEY};
use serde_json::json;

const DOCUMENT: &str = include_str!("../../../../docs/operations.md");

/// The lines of its shell blocks, without what is said beside them.
fn lines() -> Vec<&'static str> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in DOCUMENT.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
        } else if inside {
            lines.push(line.split("   #").next().unwrap().trim_end());
        }
    }
    lines
}

/// Something of everything that the document is about.
async fn things(up: &Installation) -> Vec<(&'static str, String)> {
    let probe = |payload| json!({"kind": "probe", "queue": "analyst", "payload": payload});
    let (job, letter) = (up.submit(&probe(json!({}))).await, up.submit(&probe(json!({"fail": "permanent"}))).await);
    for id in [&job, &letter] {
        up.ended(id).await;
    }
    let chat =
        json!({"kind": "llm", "operation": "summary", "payload": {"messages": [{"role": "user", "content": "Hello"}]}});
    let paid = up.submit(&chat).await;
    up.ended(&paid).await;
    let order = json!({"action": "delete", "filter": "queue = nobody", "dry_run": true});
    let operation = up.post("/v1/operations", &order).await["id"].as_str().unwrap().to_owned();
    let buried = up.submit(&json!({"kind": "probe", "queue": "old", "payload": {"fail": "permanent"}})).await;
    up.ended(&buried).await;
    let order = json!({"action": "archive", "filter": "queue = old"});
    let archive = up.post("/v1/operations", &order).await["id"].as_str().unwrap().to_owned();
    up.until("it is archived", async |up| up.get(&format!("/v1/operations/{archive}")).await["state"] == "done").await;
    let target = "simulated:simulated-chat:default".to_owned();
    let key = up.post("/v1/keys", &json!({"name": "app", "tenant": "acme"})).await["id"].as_str().unwrap().to_owned();
    let template = json!({"kind": "probe", "queue": "analyst", "payload": {}});
    let often = json!({"name": "often", "every": "1s", "template": template});
    let schedule = up.post("/v1/schedules", &often).await["id"].as_str().unwrap().to_owned();
    up.until("its ticks run", async |up| {
        up.get(&format!("/v1/jobs?schedule={schedule}&state=succeeded")).await["jobs"].as_array().unwrap().len() > 1
    })
    .await;
    vec![
        ("ARCHIVE", archive),
        ("JOB", job),
        ("KEY", key),
        ("LETTER", letter),
        ("OPERATION", operation),
        ("SCHEDULE", schedule),
        ("TARGET", target),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_line_of_the_document_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let place = crate::backups::Place::new().await;
    let variables = place.variables();
    let backups: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let up = Installation::start_in(&folder.path().join("data"), &[], &backups).await;
    let things = things(&up).await;
    let binary = Path::new(env!("CARGO_BIN_EXE_longshore"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let (mut failed, mut ran) = (Vec::new(), 0);
    for line in lines() {
        let mut command = Command::new("sh");
        command.args(["-c", line]).env_clear().env("PATH", &path).current_dir(&folder);
        command
            .envs(backups.iter().copied())
            .env("LONGSHORE_URL", &up.url)
            .env("LONGSHORE_KEY", KEY)
            .env("LONGSHORE_DATA", folder.path().join("data"));
        let output = command.envs(things.iter().map(|(name, id)| (name, id))).output().unwrap();
        ran += 1;
        // 3: there was nothing to do it to, which is a good answer of a verb about many jobs and of no other.
        let is_about_many =
            ["--filter", "--queue ", " clean ", " clear-stuck ", " archive "].iter().any(|word| line.contains(word));
        let code = output.status.code();
        if code != Some(0) && !(code == Some(3) && is_about_many) {
            let said = String::from_utf8_lossy(&output.stderr);
            failed.push(format!(
                "{line}: {:?}\n{said}{}",
                output.status.code(),
                String::from_utf8_lossy(&output.stdout)
            ));
        }
    }
    assert!(ran > 30, "the document has lost its lines: {ran}");
    assert!(failed.is_empty(), "{}\n{}", failed.join("\n"), up.log());
}
