//! The audit log over HTTP: who did what, what was refused, and what is not told.

use crate::server::people::{People, Person};
use queue_core::audit::{AuditPlace, Chain};
use reqwest::Method;
use serde_json::{Value, json};

/// Rows as the admin is shown them, oldest first.
async fn rows(people: &People, query: &str) -> Vec<Value> {
    let path = format!("/v1/audit?order=asc&limit=500{query}");
    let page = people.get(&people.admin, &path).await.expect(200);
    page["rows"].as_array().unwrap().clone()
}

/// Rows of one call, told by its request id.
async fn of(people: &People, request_id: &str) -> Vec<Value> {
    rows(people, "").await.into_iter().filter(|row| row["request_id"] == request_id).collect()
}

async fn ask(people: &People, person: &Person, method: Method, path: &str, body: Option<Value>, id: &str) -> u16 {
    let mut request = people.server.http.request(method, format!("{}{path}", people.server.url));
    if let Some(key) = &person.key {
        request = request.bearer_auth(key);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    people.server.send(request.header("x-request-id", id)).await.status.as_u16()
}

#[tokio::test]
async fn each_change_has_one_row_with_what_was_before() {
    let people = People::meet().await;
    let job = people.later(&people.user, json!({})).await;
    let (admin, operator) = (&people.admin, &people.operator);
    let calls = [
        (operator, Method::PATCH, "/v1/queues/default".to_owned(), Some(json!({"concurrency": 7})), 200),
        (
            operator,
            Method::PATCH,
            "/v1/queues/default".to_owned(),
            Some(json!({"concurrency": 9, "reason": null})),
            200,
        ),
        (admin, Method::PUT, "/v1/tenants/acme/budget".to_owned(), Some(json!({"day_usd": "5"})), 200),
        (admin, Method::PATCH, "/v1/tenants/acme".to_owned(), Some(json!({"paused": true})), 200),
        (
            admin,
            Method::POST,
            "/v1/keys".to_owned(),
            Some(json!({"tenant": "acme", "role": "user", "name": "ci"})),
            201,
        ),
        (admin, Method::PUT, "/v1/tenants/acme/credentials/openai".to_owned(), Some(json!({"key": "sk-canary-1"})), 0),
        (&people.user, Method::POST, format!("/v1/jobs/{job}/cancel"), Some(json!({"reason": "a typo"})), 200),
        (
            operator,
            Method::POST,
            "/v1/operations".to_owned(),
            Some(json!({"action": "cancel", "filter": "queue = x"})),
            0,
        ),
    ];
    for (n, (person, method, path, body, status)) in calls.into_iter().enumerate() {
        let id = format!("call-{n}");
        let answered = ask(&people, person, method.clone(), &path, body, &id).await;
        assert!(status == 0 || answered == status, "{path}: {answered}");
        let found = of(&people, &id).await;
        if [400, 415, 422].contains(&answered) {
            assert!(found.is_empty(), "{path}: {answered}");
            continue;
        }
        let [row] = &found[..] else { panic!("{path} {answered}: {found:?}") };
        let (role, tenant) = person.standing.unwrap();
        assert_eq!(
            (&row["actor"], &row["role"], &row["tenant"], &row["status"], &row["subject"], &row["address"]),
            (
                &json!(person.id()),
                &json!(role.as_str()),
                &json!(tenant),
                &json!(answered),
                &json!(path),
                &json!("127.0.0.0/24")
            ),
        );
        assert!(row["action"].as_str().unwrap().starts_with(&format!("{method} /v1/")), "{row}");
    }
    let second = &of(&people, "call-1").await[0]["detail"];
    assert_eq!(
        (&second["before"]["concurrency"], &second["request"]["concurrency"], &second["answer"]["concurrency"]),
        (&json!(7), &json!(9), &json!(9)),
        "{second}"
    );
    assert_eq!(of(&people, "call-6").await[0]["detail"]["request"]["reason"], "a typo");
    let key = &of(&people, "call-4").await[0]["detail"];
    assert_eq!(key["answer"]["key"], "…", "{key}");
    let all = rows(&people, "").await;
    let text = serde_json::to_string(&all).unwrap();
    assert!(!text.contains("canary") && !text.contains("lsk_"), "{text}");
    // Submits have job rows with the key's id.
    assert!(!text.contains("POST /v1/jobs\""), "{text}");
}

#[tokio::test]
async fn refusals_have_rows_and_their_reasons() {
    let people = People::meet().await;
    let pause = || Some(json!({"paused": true}));
    let path = "/v1/queues/default";
    let forged = Person { key: Some("lsk_aaaaaaaa_notthesecretofanybodyatallreally".into()), ..people.nobody.clone() };
    for (person, id, status) in [
        (&people.nobody, "nobody", 401),
        (&forged, "forged", 401),
        (&people.expired, "expired", 401),
        (&people.revoked, "revoked", 401),
        (&people.user, "user", 403),
        (&people.operator, "operator", 200),
    ] {
        ask(&people, person, Method::PATCH, &format!("{path}?x=lsk_canary"), pause(), id).await;
        assert_eq!(ask(&people, person, Method::PATCH, path, pause(), &format!("{id}-2")).await, status, "{id}");
        let found = of(&people, &format!("{id}-2")).await;
        let [row] = &found[..] else { panic!("{id}: {found:?}") };
        assert_eq!(row["status"], status, "{row}");
        assert_eq!(row["detail"]["reason"].is_string(), status != 200, "{row}");
    }
    assert_eq!(of(&people, "forged-2").await[0]["actor"], "aaaaaaaa", "the claimed one");
    assert_eq!(of(&people, "forged-2").await[0]["role"], Value::Null);
    assert_eq!(of(&people, "expired-2").await[0]["actor"], people.expired.id());
    assert_eq!(of(&people, "user-2").await[0]["actor"], people.user.id());
    assert!(of(&people, "nobody").await[0]["subject"] == path, "who is not known leaves no query");
    assert_eq!(rows(&people, &format!("&status=403&actor={}", people.user.id())).await.len(), 2);
}

#[tokio::test]
async fn who_reads_what_is_not_its_own_has_a_row() {
    let mut people = People::meet().await;
    let user = people.user.clone();
    let (done, dead) = (people.succeeded(&user).await, people.dead(&user).await);
    let paths = [
        format!("/v1/jobs/{done}"),
        format!("/v1/jobs/{done}/result"),
        format!("/v1/jobs/{dead}/payload"),
        format!("/v1/jobs/{done}/events"),
        format!("/v1/dead-letters/{dead}"),
    ];
    for (n, path) in paths.iter().enumerate() {
        for (person, recorded) in
            [(&people.user, false), (&people.analyst, false), (&people.operator, true), (&people.admin, true)]
        {
            let id = format!("{}-{n}", person.name);
            assert_eq!(ask(&people, person, Method::GET, path, None, &id).await, 200, "{path}");
            let found = of(&people, &id).await;
            assert_eq!(found.len(), usize::from(recorded), "{} {path}: {found:?}", person.name);
            if let [row] = &found[..] {
                assert_eq!(row["detail"]["job"]["tenant"], "acme");
                assert!(!row.to_string().contains("secret-of-acme"), "{row}");
            }
        }
    }
    // What shows neither payload nor result has none.
    let outline = format!("/v1/jobs/{done}?result=false");
    for path in ["/v1/jobs".to_owned(), outline, format!("/v1/jobs/{dead}/why"), format!("/v1/jobs/{dead}/attempts")] {
        ask(&people, &people.operator, Method::GET, &path, None, "lists").await;
    }
    assert!(of(&people, "lists").await.is_empty());
}

#[tokio::test]
async fn the_log_is_one_chain_and_paged() {
    let people = People::meet().await;
    for n in 1..=30 {
        let body = json!({"concurrency": n});
        people.ask(&people.operator, Method::PATCH, "/v1/queues/default", Some(&body)).await.expect(200);
    }
    let audit = &people.server.stores.audit;
    let all = audit.audit_rows(AuditPlace { behind: (0, 0), ascending: true }, 500).await.unwrap();
    let mut chain = Chain::default();
    all.iter().for_each(|row| chain.follow(row).unwrap());
    chain.end(audit.audit_heads().await.unwrap().first().copied()).unwrap();
    assert_eq!(chain.rows(), 30);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = people.get(&people.admin, &format!("/v1/audit?limit=7{cursor}")).await.expect(200);
        seen.extend(page["rows"].as_array().unwrap().iter().map(|row| row["seq"].as_i64().unwrap()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, (1..=30).rev().collect::<Vec<_>>());
    let narrowed = people.get(&people.admin, "/v1/audit?actor=nobody12&since=1h").await.expect(200);
    assert_eq!(narrowed["rows"], json!([]));
    for query in ["cursor=b", "order=up", "status=99", "since=x", "limit=501", "who=me"] {
        people.get(&people.admin, &format!("/v1/audit?{query}")).await.problem(422);
    }
    let heads = people.get(&people.admin, "/v1/audit/heads").await.expect(200);
    assert_eq!(heads["heads"][0]["seq"], 30);
    people.get(&people.operator, "/v1/audit").await.problem(403);
}

/// The change goes on when its caller hangs up, so its row is written.
#[tokio::test]
async fn who_hangs_up_leaves_a_row() {
    let people = People::meet().await;
    let body = json!({"day_usd": "5"}).to_string();
    let request = format!(
        "PUT /v1/tenants/acme/budget HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nx-request-id: gone\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        people.admin.key.as_deref().unwrap(),
        body.len()
    );
    let address = people.server.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    // The answer waits until the budget holds everywhere: the call is taken, and not answered yet.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    drop(stream);
    let ends = tokio::time::Instant::now() + crate::server::PATIENCE;
    while of(&people, "gone").await.is_empty() {
        assert!(tokio::time::Instant::now() < ends, "no row");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(of(&people, "gone").await[0]["status"], 200);
}
