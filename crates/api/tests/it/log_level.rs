//! What every process logs, set over HTTP.

use crate::server::{Server, people::People};
use queue_core::journal::LogLevel;
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn a_level_is_checked_kept_and_ends() {
    let server = Server::start().await;
    assert_eq!(server.get("/v1/log-level").await.expect(200), json!({"filter": null}));
    for (wrong, at) in [
        (json!({}), "/filter"),
        (json!({"filter": "loud"}), "/filter"),
        (json!({"filter": "[attempt{tenant=acme}]=debug"}), "/filter"),
        (json!({"filter": 7}), "/filter"),
        (json!({"filter": "debug", "for": "soon"}), "/for"),
        (json!({"filter": "debug", "for": "0s"}), "/for"),
        (json!({"filter": "debug", "for": "8d"}), "/for"),
        (json!({"filter": null, "for": "1m"}), "/for"),
        (json!({"filter": "debug", "level": "x"}), "/level"),
    ] {
        let problem = server.put("/v1/log-level", &wrong).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], at, "{problem}");
    }
    let set = server.put("/v1/log-level", &json!({"filter": "info, worker=debug", "for": "30m"})).await.expect(200);
    assert_eq!(set["filter"], "info,worker=debug");
    assert!(set["until"].is_string(), "{set}");
    assert_eq!(server.get("/v1/log-level").await.expect(200), set);
    let set = server.put("/v1/log-level", &json!({"filter": "warn"})).await.expect(200);
    assert_eq!(set, json!({"filter": "warn"}));
    // One whose time is over is none.
    let orders = &server.stores.orders;
    let over = LogLevel { filter: "trace".into(), until: Some(server.stores.clock.now()) };
    orders.set_log_level(Some(over)).await.unwrap();
    assert_eq!(server.get("/v1/log-level").await.expect(200), json!({"filter": null}));
    server.put("/v1/log-level", &json!({"filter": null})).await.expect(200);
    assert_eq!(orders.log_level().await.unwrap(), None);
}

#[tokio::test]
async fn who_sets_it_stands_in_the_audit_log() {
    let people = People::meet().await;
    let path = "/v1/log-level";
    people.ask(&people.operator, Method::PUT, path, Some(&json!({"filter": "debug"}))).await.problem(403);
    people.ask(&people.operator, Method::GET, path, None).await.expect(200);
    people.ask(&people.admin, Method::PUT, path, Some(&json!({"filter": "debug"}))).await.expect(200);
    people.ask(&people.admin, Method::PUT, path, Some(&json!({"filter": "warn"}))).await.expect(200);
    let page = people.get(&people.admin, "/v1/audit?order=desc&limit=2").await.expect(200);
    let row = &page["rows"][0];
    assert_eq!((&row["action"], &row["status"]), (&json!("PUT /v1/log-level"), &json!(200)), "{page}");
    assert_eq!(row["detail"]["before"]["filter"], "debug", "{page}");
    assert_eq!(row["detail"]["request"]["filter"], "warn", "{page}");
}
