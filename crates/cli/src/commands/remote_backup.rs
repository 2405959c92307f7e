//! `longshore backup … --remote`: orders backups and checks from a server, whose schedulers carry them out.

use std::time::Duration;

use queue_core::backup::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::Operator,
    failure::{Exit, Failure, Outcome},
    output::{self, cell, items},
};

/// Between two looks at something that was ordered.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Orders a backup and waits for it.
pub(crate) async fn create(operator: &Operator, scope: Scope, reason: Option<String>) -> Outcome {
    let mut order = json!({"scope": scope});
    if let Some(reason) = reason {
        order["reason"] = json!(reason);
    }
    let answer = operator.client.send_json(Method::POST, &["v1", "backups"], Some(&order)).await?;
    let backup = ended(operator, answer.body, |backup| backup["state"].clone()).await?;
    operator.out.show(&backup, || {
        output::line(&match backup["state"] == json!("good") {
            true => format!("backup {} is good: {} bytes", cell(&backup, "backup"), cell(&backup, "bytes")),
            false => format!("no backup was made: {}", cell(&backup, "error")),
        });
    });
    match (&backup["state"], &backup["offsite_error"]) {
        (state, _) if *state != json!("good") => Ok(Exit::Error),
        (_, Value::Null) => Ok(Exit::Ok),
        (_, error) => {
            output::note(&format!("the second place has no copy: {error}"));
            Ok(Exit::Partial)
        }
    }
}

/// Orders a check and waits for it.
pub(crate) async fn verify(operator: &Operator, id: &str, restore: bool) -> Outcome {
    let named = if id == "latest" { newest(operator).await? } else { id.to_owned() };
    let path = ["v1", "backups", &named, "verify"];
    let answer = operator.client.send_json(Method::POST, &path, Some(&json!({"restore": restore}))).await?;
    let backup = ended(operator, answer.body, |backup| backup["check"]["state"].clone()).await?;
    let check = &backup["check"];
    operator.out.show(&backup, || {
        output::line(&match check["state"] == json!("good") {
            true if restore => format!(
                "backup {named} was restored, compared, and has drained jobs: recovery time {} s, recovery point {} s",
                cell(check, "recovery_seconds"),
                cell(check, "lost_seconds")
            ),
            true => format!("backup {named} is good"),
            false => cell(check, "error"),
        });
    });
    Ok(if check["state"] == json!("good") { Exit::Ok } else { Exit::Error })
}

/// Lists what was ordered.
pub(crate) async fn list(operator: &Operator) -> Outcome {
    let page = operator.client.get(&["v1", "backups"], &[]).await?;
    operator.out.show(&page, || {
        let rows = items(&page, "backups").iter().map(|backup| {
            let names = ["id", "backup", "scope", "cause", "state", "ordered_at", "bytes", "error"];
            let mut row: Vec<String> = names.iter().map(|name| cell(backup, name)).collect();
            row.push(cell(&backup["check"], "state"));
            row
        });
        output::table(
            &["ORDER", "BACKUP", "SCOPE", "WHY", "STATE", "ORDERED", ">BYTES", "ERROR", "CHECK"],
            rows.collect(),
        );
    });
    Ok(Exit::Ok)
}

/// The newest good backup with a journal.
async fn newest(operator: &Operator) -> Result<String, Failure> {
    let page = operator.client.get(&["v1", "backups"], &[("limit", Some("500".to_owned()))]).await?;
    let is_meant = |backup: &&Value| {
        backup["state"] == json!("good") && [json!("full"), json!("database")].contains(&backup["scope"])
    };
    let found = items(&page, "backups").iter().find(is_meant).map(|backup| cell(backup, "id"));
    found.ok_or_else(|| Failure {
        exit: Exit::NotFound,
        message: "the server knows of no good backup with a journal".to_owned(),
        problem: None,
    })
}

/// Waits until what was ordered has ended.
async fn ended(operator: &Operator, mut backup: Value, state: fn(&Value) -> Value) -> Result<Value, Failure> {
    let id = cell(&backup, "id");
    while ![json!("good"), json!("failed")].contains(&state(&backup)) {
        tokio::time::sleep(LOOK_EVERY).await;
        backup = operator.client.get(&["v1", "backups", &id], &[]).await?;
    }
    Ok(backup)
}
