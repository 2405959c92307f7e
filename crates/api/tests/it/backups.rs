//! Orders of backups and of checks over HTTP; what carries them out is a scheduler's.

use queue_core::backup::{BackupId, BackupRow, Cause, Progress, Record, Scope, Work};
use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn a_backup_is_ordered_and_looked_at() {
    let server = Server::start_with(|api| api.settings.backups = true).await;
    let ordered = server.post("/v1/backups", &json!({"scope": "database", "reason": "before their change"})).await;
    let order = ordered.expect(202);
    assert_eq!(
        (&order["state"], &order["scope"], &order["cause"]),
        (&json!("ordered"), &json!("database"), &json!("asked"))
    );
    let id = order["id"].as_str().unwrap();
    assert_eq!(ordered.header("location"), format!("/v1/backups/{id}"));
    let work = server.stores.backups.backup_work().await.unwrap();
    assert_eq!((work.len(), work[0].work), (1, Work::Make));
    server.post(&format!("/v1/backups/{id}/verify"), &json!({})).await.problem(409);

    let mut made = work[0].clone();
    (made.work, made.record.state, made.record.place_id) = (Work::Nothing, Progress::Good, Some(BackupId::generate()));
    assert!(server.stores.backups.change_backup(made.clone()).await.unwrap());
    // By either id.
    let at_place = made.record.place_id.unwrap();
    assert_eq!(server.get(&format!("/v1/backups/{at_place}")).await.expect(200)["id"], json!(id));
    let checked = server.post(&format!("/v1/backups/{at_place}/verify"), &json!({"restore": true})).await.expect(202);
    assert_eq!((&checked["check"]["state"], &checked["check"]["restore"]), (&json!("ordered"), &json!(true)));
    server.post(&format!("/v1/backups/{id}/verify"), &json!({})).await.problem(409);

    let failed = Record { state: Progress::Failed, ..Record::order(Scope::Config, Cause::Schedule, None, None) };
    let later = server.stores.clock.now().plus_ms(10);
    let row = BackupRow { work: Work::Nothing, ..BackupRow::order(BackupId::generate(), failed, later) };
    server.stores.backups.order_backup(row.clone()).await.unwrap();
    server.post(&format!("/v1/backups/{}/verify", row.id), &json!({})).await.problem(409);
    let page = server.get("/v1/backups?limit=1").await.expect(200);
    assert_eq!(page["backups"][0]["id"], json!(row.id));
    let rest = server.get(&format!("/v1/backups?cursor={}", page["next_cursor"].as_str().unwrap())).await.expect(200);
    assert_eq!((rest["backups"][0]["id"].as_str(), rest.get("next_cursor")), (Some(id), None));
    for wrong in [json!({"scope": "everything"}), json!({"scope": 3}), json!({"what": 1})] {
        server.post("/v1/backups", &wrong).await.problem(422);
    }
    server.get("/v1/backups?cursor=1").await.problem(422);
    server.get(&format!("/v1/backups/{}", BackupId::generate())).await.problem(404);
    server.post(&format!("/v1/backups/{}/verify", BackupId::generate()), &json!({"restore": true})).await.problem(404);
}

#[tokio::test]
async fn no_more_wait_than_may() {
    let server = Server::start_with(|api| api.settings.backups = true).await;
    for _ in 0..8 {
        server.post("/v1/backups", &json!({"scope": "config"})).await.expect(202);
    }
    let problem = server.post("/v1/backups", &json!({"scope": "config"})).await.problem(409);
    assert!(problem["detail"].as_str().unwrap().contains("a scheduler runs"), "{problem}");
    assert_eq!(server.stores.backups.backup_work().await.unwrap().len(), 8);
}

#[tokio::test]
async fn without_a_place_nothing_is_ordered() {
    let server = Server::start().await;
    let problem = server.post("/v1/backups", &json!({})).await.problem(422);
    assert!(problem["detail"].as_str().unwrap().contains("LONGSHORE_BACKUP_URL"), "{problem}");
    assert_eq!(server.get("/v1/backups").await.expect(200), json!({"backups": [], "configured": false}));
    assert!(server.stores.backups.backup_work().await.unwrap().is_empty());
}
