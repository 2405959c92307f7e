//! Archives over HTTP: listed, put back, and what is said where an object is not what it was.

use std::fs;

use crate::server::{Answer, Server, people::People};
use queue_core::ids::JobId;
use reqwest::Method;
use serde_json::{Value, json};

async fn restore(server: &Server, id: &str, order: &Value) -> Answer {
    let path = format!("/v1/archives/{id}/restore");
    server.send(server.request(Method::POST, &path).json(order)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_put_back_once_and_as_they_were() {
    let mut people = People::meet().await;
    let user = people.user.clone();
    let letters = [people.dead(&user).await, people.dead(&user).await];
    let server = &people.server;
    let path = format!("/v1/dead-letters/{}", letters[0]);
    let before = server.get(&path).await.expect(200);
    let id = crate::server::archiving(&server.stores, &letters).await.to_string();
    server.get(&path).await.problem(404);
    let early = restore(server, &id, &json!({})).await.problem(409);
    assert!(early["detail"].as_str().unwrap().contains("still being written"), "{early}");
    server.send(server.request(Method::DELETE, &format!("/v1/operations/{id}"))).await.expect(200);
    let listed = server.get("/v1/archives").await.expect(200);
    let archive = &listed["archives"][0];
    assert_eq!((&archive["id"], &archive["letters"], &archive["objects"]), (&json!(id), &json!(2), &json!(1)));

    let dry = restore(server, &id, &json!({"dry_run": true})).await.expect(200);
    assert_eq!((&dry["letters"], &dry["restored"], &dry["there"]), (&json!(2), &json!(2), &json!(0)));
    server.get(&path).await.problem(404);
    let back = restore(server, &id, &json!({})).await.expect(200);
    assert_eq!((&back["letters"], &back["restored"], &back["there"]), (&json!(2), &json!(2), &json!(0)));
    assert!(back.get("next_cursor").is_none(), "{back}");
    assert_eq!(server.get(&path).await.expect(200), before);
    let again = restore(server, &id, &json!({})).await.expect(200);
    assert_eq!((&again["restored"], &again["there"]), (&json!(0), &json!(2)), "twice does nothing more");

    let audited = people.ask(&people.admin, Method::GET, "/v1/audit?limit=1", None).await.expect(200);
    assert!(audited.to_string().contains("restore"), "{audited}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_not_what_was_written_is_named_and_nothing_of_it_comes_back() {
    let mut people = People::meet().await;
    let user = people.user.clone();
    let letter = people.dead(&user).await;
    let server = &people.server;
    let id = crate::server::archive(&server.stores, &[letter]).await;
    let object = server.stores.archives.objects_of(id, None, 1).await.unwrap().remove(0);
    let file = server.folder().join("objects").join(&object.path);
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    let answer = restore(server, &id.to_string(), &json!({})).await.expect(200);
    assert_eq!((&answer["restored"], &answer["damaged"][0]["object"]), (&json!(0), &json!(object.path)));
    assert!(answer["damaged"][0]["reason"].as_str().unwrap().contains("SHA-256"), "{answer}");
    fs::remove_file(&file).unwrap();
    let answer = restore(server, &id.to_string(), &json!({})).await.expect(200);
    assert!(answer["damaged"][0]["reason"].as_str().unwrap().contains("not there"), "{answer}");
    assert!(server.stores.reads.jobs(&[letter]).await.unwrap()[0].is_none());
}

#[tokio::test]
async fn what_cannot_be_is_said() {
    let server = Server::start().await;
    restore(&server, &JobId::generate().to_string(), &json!({})).await.problem(404);
    restore(&server, "none", &json!({})).await.problem(404);
    server.get("/v1/archives?cursor=c1").await.problem(422);
    let accepted = json!({"action": "archive", "filter": "ended_age > 30d"});
    server.send(server.request(Method::POST, "/v1/operations").json(&accepted)).await.expect(202);
    let server = Server::start_with(|api| api.stores.objects = None).await;
    for (order, pointer) in
        [(accepted, "/action"), (json!({"action": "drain", "to": "archive", "filter": "queue = a"}), "/to")]
    {
        let problem = server.send(server.request(Method::POST, "/v1/operations").json(&order)).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("[objects] url"), "{problem}");
    }
}
