//! Maintenance and drained workers, as operators and clients see them.

use crate::server::Server;
use queue_core::ids::SessionId;
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn in_maintenance_jobs_are_refused_and_reads_work() {
    let server = Server::start().await;
    let probe = json!({"kind": "probe", "payload": {}});
    let keyed = || server.request(Method::POST, "/v1/jobs").header("idempotency-key", "k").json(&probe);
    let id = server.send(keyed()).await.expect(202)["id"].as_str().unwrap().to_owned();
    assert_eq!(server.get("/v1/maintenance").await.expect(200), json!({"on": false}));
    for (wrong, at) in [
        (json!({}), "/on"),
        (json!({"on": "yes"}), "/on"),
        (json!({"on": false, "reason": "why"}), "/reason"),
        (json!({"on": true, "until": "1h"}), "/until"),
    ] {
        let problem = server.put("/v1/maintenance", &wrong).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], at, "{problem}");
    }
    let on = server.put("/v1/maintenance", &json!({"on": true, "reason": "a new disk"})).await.expect(200);
    assert_eq!((&on["on"], &on["reason"]), (&json!(true), &json!("a new disk")));
    for (path, body) in [("/v1/jobs", probe.clone()), ("/v1/jobs/bulk", json!([probe]))] {
        let refused = server.post(path, &body).await;
        assert_eq!(refused.header("retry-after"), "30");
        let problem = refused.problem(503);
        assert_eq!(problem["type"], "urn:longshore:problem:maintenance");
        assert!(problem["detail"].as_str().unwrap().contains("a new disk"), "{problem}");
    }
    // What was accepted before is answered as it was.
    assert_eq!(server.send(keyed()).await.expect(202)["id"], json!(id));
    assert_eq!(server.get(&format!("/v1/jobs/{id}")).await.expect(200)["id"], json!(id));
    let why = server.get(&format!("/v1/jobs/{id}/why")).await.expect(200);
    assert_eq!(
        (&why["waits"][0]["waits_for"], &why["waits"][0]["reason"]),
        (&json!("maintenance"), &json!("a new disk"))
    );
    let health = server.get("/health").await.expect(200);
    assert!(health["checks"]["maintenance"].as_str().unwrap().ends_with("a new disk"), "{health}");
    assert_eq!(health["status"], "degraded");
    server.get("/readyz").await.expect(200);
    assert_eq!(server.put("/v1/maintenance", &json!({"on": false})).await.expect(200), json!({"on": false}));
    server.post("/v1/jobs", &probe).await.expect(202);
}

#[tokio::test]
async fn a_worker_is_ordered_to_drain_and_back() {
    let server = Server::start().await;
    let worker = crate::server::worker(&server.stores).await;
    let path = format!("/v1/workers/{worker}/drain");
    let drained = server.send(server.request(Method::POST, &path)).await.expect(200);
    assert_eq!((&drained["id"], &drained["draining"]), (&json!(worker.to_string()), &json!(true)));
    assert_eq!(server.get("/v1/workers").await.expect(200)["workers"][0]["draining"], json!(true));
    assert_eq!(server.post(&path, &json!({"on": false})).await.expect(200)["draining"], json!(false));
    let problem = server.post(&path, &json!({"off": true})).await.problem(422);
    assert_eq!(problem["errors"][0]["pointer"], "/off");
    for id in [SessionId::generate().to_string(), "me".to_owned()] {
        server.send(server.request(Method::POST, &format!("/v1/workers/{id}/drain"))).await.problem(404);
    }
}

#[tokio::test]
async fn a_restore_that_has_not_ended_is_not_confirmed() {
    let server = Server::start().await;
    let reason = Some(format!("a restore of backup {} has not ended: do not confirm it", uuid::Uuid::now_v7()));
    let unfinished = queue_core::journal::Maintenance { since: server.stores.clock.now(), reason };
    server.stores.orders.set_maintenance(Some(unfinished.clone())).await.unwrap();
    for order in [json!({"on": false}), json!({"on": true, "reason": "something else"})] {
        let problem = server.put("/v1/maintenance", &order).await.problem(409);
        assert!(problem["detail"].as_str().unwrap().contains("has not ended"), "{problem}");
    }
    assert_eq!(server.stores.orders.maintenance().await.unwrap(), Some(unfinished));
}
