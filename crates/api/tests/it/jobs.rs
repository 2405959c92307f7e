//! Submitting, reading, listing and steering jobs over HTTP.

use std::sync::Arc;

use crate::server::{
    Hand, PATIENCE, Server,
    people::{People, Person},
};
use queue_core::{
    ids::JobId,
    time::{Clock, ManualClock, Timestamp},
};
use reqwest::Method;
use serde_json::{Value, json};

fn ids(page: &Value, name: &str) -> Vec<String> {
    page[name].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_job_goes_in_and_its_result_comes_out() {
    let server = Server::start().await;
    let job = json!({
        "queue": "q", "kind": "probe", "payload": {"sleep_ms": 1}, "priority": 9, "timeout": "5m", "tags": ["a", "b"],
        "operation": "op", "batch_id": "b1", "unique_key": "u", "concurrency_key": "user 7/ü", "max_attempts": 7, "tenant": "acme",
    });
    let request = server
        .request(Method::POST, "/v1/jobs")
        .json(&job)
        .header("X-Request-Id", "req-1")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let answer = server.send(request).await;
    let accepted = answer.expect(202);
    let id = accepted["id"].as_str().unwrap();
    assert_eq!(accepted, json!({"id": id, "state": "ready", "queue": "q", "kind": "probe"}));
    assert_eq!(answer.header("location"), format!("/v1/jobs/{id}"));
    assert_eq!(answer.header("x-request-id"), "req-1");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");

    let seen = server.get(&format!("/v1/jobs/{id}")).await.expect(200);
    for (field, value) in job.as_object().unwrap().iter().filter(|(field, _)| *field != "payload") {
        assert_eq!(seen[field], *value, "{field}");
    }
    assert_eq!((&seen["state"], &seen["attempts"], &seen["request_id"]), (&json!("ready"), &json!(0), &json!("req-1")));
    let row = server.stores.reads.jobs(&[id.parse().unwrap()]).await.unwrap().remove(0).unwrap();
    assert!(row.traceparent.unwrap().starts_with("00-4bf9"));
    assert_eq!(seen["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    server.get(&format!("/v1/jobs/{id}/result")).await.problem(409);

    let mut hand = Hand::join(&server.stores).await;
    let held = hand.claim().await;
    assert_eq!(held.loaded.payload, r#"{"sleep_ms":1}"#);
    let running = server.get(&format!("/v1/jobs/{id}")).await.expect(200);
    assert_eq!(running["state"], "running");
    assert!(running["started_at"].is_string(), "{running}");
    assert_eq!(ids(&server.get("/v1/jobs?state=running").await.expect(200), "jobs"), [id]);
    assert_eq!(ids(&server.get("/v1/jobs?state=ready").await.expect(200), "jobs"), [""; 0]);
    hand.succeed(held, &json!({"slept_ms": 1})).await;

    let done = server.get(&format!("/v1/jobs/{id}?wait=20s")).await.expect(200);
    assert_eq!((&done["state"], &done["result"]), (&json!("succeeded"), &json!({"slept_ms": 1})));
    let outline = server.get(&format!("/v1/jobs/{id}?result=false")).await.expect(200);
    assert_eq!((outline.get("result"), &outline["result_url"]), (None, &json!(format!("/v1/jobs/{id}/result"))));
    assert_eq!(done["served_by"], "simulated/gpt-4o-mini");
    assert!(done["finished_at"].is_string());
    assert_eq!(server.get(&format!("/v1/jobs/{id}/result")).await.expect(200), json!({"slept_ms": 1}));
    let attempts = server.get(&format!("/v1/jobs/{id}/attempts")).await.expect(200);
    assert_eq!(attempts["attempts"][0]["outcome"], "succeed");
    assert_eq!(server.get(&format!("/v1/jobs/{id}/calls")).await.expect(200), json!({"calls": [], "savings": []}));
    let batch = server.get("/v1/batches/b1?wait=20s").await.expect(200);
    assert_eq!((&batch["total"], &batch["succeeded"], &batch["finished"]), (&json!(1), &json!(1), &json!(true)));
    server.get("/v1/batches/none").await.problem(404);
}

#[tokio::test]
async fn a_wish_for_a_kept_answer_goes_with_the_payload() {
    let server = Server::start().await;
    let payload = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "How many?"}]});
    let job = json!({"kind": "llm", "payload": payload, "cache": {"ttl": "1h", "scope": "global"}});
    server.post("/v1/jobs", &job).await.expect(202);
    let mut hand = Hand::join(&server.stores).await;
    let held = hand.claim().await;
    let kept: Value = serde_json::from_slice(&held.loaded.payload).unwrap();
    assert_eq!(kept["cache"], json!({"ttl": "1h", "scope": "global"}));
    assert_eq!(kept["messages"], payload["messages"]);

    let refused = |cache: Value| json!({"kind": "llm", "payload": payload, "cache": cache});
    for (cache, pointer) in [(json!({}), "/cache/ttl"), (json!({"ttl": "1ms"}), "/cache/ttl"), (json!("1h"), "/cache")]
    {
        let problem = server.post("/v1/jobs", &refused(cache)).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let vectors =
        json!({"kind": "embedding", "payload": {"model": "gpt-4o-mini", "input": "a"}, "cache": {"ttl": "1h"}});
    server.post("/v1/jobs", &vectors).await.problem(422);
}

#[tokio::test]
async fn a_large_result_has_an_address_of_its_own() {
    let server = Server::start().await;
    let id = server.submit(json!({})).await;
    let mut hand = Hand::join(&server.stores).await;
    let held = hand.claim().await;
    let result = json!({"pad": "x".repeat(300 * 1024)});
    hand.succeed(held, &result).await;
    let job = server.get(&format!("/v1/jobs/{id}")).await.expect(200);
    assert!(job.get("result").is_none());
    assert_eq!(server.get(job["result_url"].as_str().unwrap()).await.expect(200), result);
}

#[tokio::test]
async fn an_idempotency_key_makes_a_repeated_request_the_same_request() {
    let server = Server::start().await;
    let send = |body: Value, key: &'static str| {
        server.send(server.request(Method::POST, "/v1/jobs").json(&body).header("Idempotency-Key", key))
    };
    let later = server.stores.clock.now().plus_ms(3_600_000).to_string();
    let job = json!({"kind": "probe", "payload": {}, "run_at": later});
    let first = send(job.clone(), "k1").await;
    let second = send(job.clone(), "k1").await;
    assert_eq!(first.expect(202), second.expect(202));
    assert_eq!(first.expect(202)["state"], "scheduled");
    assert_eq!((first.header("idempotency-replayed"), second.header("idempotency-replayed")), ("", "true"));
    let other = send(json!({"kind": "probe", "payload": {"sleep_ms": 2}}), "k1").await.problem(422);
    assert_eq!(other["type"], "urn:longshore:problem:idempotency-key-reused");
    assert_ne!(send(job, "k2").await.expect(202)["id"], first.expect(202)["id"]);
    assert_eq!(ids(&server.get("/v1/jobs").await.expect(200), "jobs").len(), 2);
}

#[tokio::test]
async fn a_repeated_request_is_answered_after_its_times_have_passed() {
    let clock = ManualClock::at(Timestamp(1_790_000_000_000));
    let server = Server::start_at(Arc::new(clock.clone()), |_| {}).await;
    let hour = clock.now().plus_ms(3_600_000).to_string();
    let day = clock.now().plus_ms(86_400_000).to_string();
    let send = |path: &'static str, body: &Value, key: &'static str| {
        server.send(server.request(Method::POST, path).json(body).header("Idempotency-Key", key))
    };
    let job = json!({"kind": "probe", "payload": {}, "run_at": hour, "start_by": hour, "deadline": day, "queue": "q"});
    let jobs = json!([job, {"kind": "probe", "payload": {}, "priority": 10}, {"kind": "probe", "payload": {}}]);
    let first = send("/v1/jobs", &job, "one").await;
    assert_eq!(first.expect(202)["state"], "scheduled");
    let bulk = send("/v1/jobs/bulk", &jobs, "many").await;
    assert_eq!(bulk.expect(200)["jobs"][1]["error"]["status"], 422);

    clock.advance_ms(30 * 86_400_000);
    let again = send("/v1/jobs", &job, "one").await;
    assert_eq!((again.expect(202), again.header("idempotency-replayed")), (first.expect(202), "true"));
    let again = send("/v1/jobs/bulk", &jobs, "many").await;
    assert_eq!((again.expect(200), again.header("idempotency-replayed")), (bulk.expect(200), "true"));
    send("/v1/jobs", &job, "another").await.problem(422);
}

#[tokio::test]
async fn a_key_belongs_to_a_whole_bulk_body() {
    let server = Server::start().await;
    let send = |jobs: &Value| {
        let request = server.request(Method::POST, "/v1/jobs/bulk").header("Idempotency-Key", "bulk");
        server.send(request.json(jobs))
    };
    let probe = json!({"kind": "probe", "payload": {}});
    let elsewhere = json!({"kind": "probe", "payload": {}, "tenant": "other"});
    send(&json!([probe])).await.expect(200);
    for other in [json!([probe, probe]), json!([{"kind": "none"}, probe]), json!([elsewhere, elsewhere])] {
        let problem = send(&other).await.problem(422);
        assert_eq!(problem["type"], "urn:longshore:problem:idempotency-key-reused", "{other}");
    }
    assert_eq!(ids(&server.get("/v1/jobs").await.expect(200), "jobs").len(), 1);
}

#[tokio::test]
async fn a_unique_key_is_held_by_one_live_job() {
    let server = Server::start().await;
    let id = server.submit(json!({"unique_key": "one"})).await;
    let job = json!({"kind": "probe", "payload": {}, "unique_key": "one"});
    let refused = server.post("/v1/jobs", &job).await.problem(409);
    assert_eq!((&refused["job_id"], &refused["errors"][0]["pointer"]), (&json!(id), &json!("/unique_key")));
    server.post(&format!("/v1/jobs/{id}/cancel"), &json!({})).await.expect(200);
    server.post("/v1/jobs", &job).await.expect(202);
}

/// Who does not see the job that holds a unique key is not told which it is; that it is held, it is.
#[tokio::test]
async fn another_key_s_job_that_holds_a_unique_key_is_not_named() {
    let people = People::meet().await;
    let held = people.later(&people.user, json!({"unique_key": "one"})).await;
    let job = json!({"kind": "probe", "payload": {}, "unique_key": "one"});
    let ask =
        async |person: &Person, path: &str, body: &Value| people.ask(person, Method::POST, path, Some(body)).await;
    for (person, sees) in [(&people.user, true), (&people.colleague, false), (&people.analyst, true)] {
        let single = ask(person, "/v1/jobs", &job).await.problem(409);
        let bulk = ask(person, "/v1/jobs/bulk", &json!([job])).await.expect(200);
        for refused in [&single, &bulk["jobs"][0]["error"]] {
            assert_eq!(refused["type"], "urn:longshore:problem:unique-key-held", "{}", person.name);
            assert_eq!(refused["job_id"] == json!(held), sees, "{}: {refused}", person.name);
            assert_eq!(refused.to_string().contains(&held.to_string()), sees, "{}: {refused}", person.name);
        }
    }
}

#[tokio::test]
async fn a_list_is_read_page_by_page_newest_first() {
    let server = Server::start().await;
    let mut submitted = Vec::new();
    for number in 0..7 {
        let queue = if number % 2 == 0 { "even" } else { "odd" };
        submitted.push(server.submit(json!({"queue": queue, "operation": format!("op-{number}")})).await.to_string());
    }
    submitted.reverse();
    let (mut seen, mut path) = (Vec::new(), "/v1/jobs?limit=3".to_owned());
    loop {
        let page = server.get(&path).await.expect(200);
        let rows = ids(&page, "jobs");
        assert!(rows.len() <= 3);
        seen.extend(rows);
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/jobs?limit=3&cursor={cursor}");
    }
    assert_eq!(seen, submitted);
    for (query, count) in [
        ("queue=even", 4),
        ("queue=odd&since=1h", 3),
        ("queue=none", 0),
        ("kind=probe&state=ready", 7),
        ("kind=llm", 0),
        ("state=scheduled", 0),
        ("operation=op-3", 1),
        ("q=op-3", 1),
        ("tenant=other", 0),
        ("until=1h", 0),
        ("since=2999-01-01T00:00:00Z", 0),
        ("error=rate", 0),
    ] {
        let page = server.get(&format!("/v1/jobs?{query}")).await.expect(200);
        assert_eq!(ids(&page, "jobs").len(), count, "{query}");
    }
}

#[tokio::test]
async fn a_tag_saves_the_body_and_guards_a_change() {
    let server = Server::start().await;
    let id = server.submit(json!({})).await;
    let path = format!("/v1/jobs/{id}");
    let first = server.get(&path).await;
    let tag = first.header("etag").to_owned();
    let again = server.send(server.request(Method::GET, &path).header("If-None-Match", &tag)).await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));

    let change = |tag: &str| server.request(Method::PATCH, &path).json(&json!({"priority": 1})).header("If-Match", tag);
    let changed = server.send(change(&tag)).await.expect(200);
    assert_eq!(changed["priority"], 1);
    assert_eq!(server.send(change(&tag)).await.problem(412)["type"], "urn:longshore:problem:stale");
    server.send(change("nonsense")).await.problem(422);
    let other = server.send(server.request(Method::GET, &path).header("If-None-Match", &tag)).await;
    assert_eq!(other.status.as_u16(), 200);
}

#[tokio::test]
async fn a_waiting_job_is_changed_and_a_running_one_is_not() {
    let server = Server::start().await;
    let id = server.submit(json!({})).await;
    let path = format!("/v1/jobs/{id}");
    let later = server.stores.clock.now().plus_ms(3_600_000).to_string();
    let moved = server.patch(&path, &json!({"run_at": later, "payload": {"sleep_ms": 7}})).await.expect(200);
    assert_eq!((&moved["state"], &moved["run_at"]), (&json!("scheduled"), &json!(later)));
    let why = server.get(&format!("{path}/why")).await.expect(200);
    assert_eq!((&why["waits"][0]["waits_for"], &why["waits"][0]["until"]), (&json!("delayed"), &json!(later)));

    let now = server.stores.clock.now().to_string();
    assert_eq!(server.patch(&path, &json!({"run_at": now})).await.expect(200)["state"], "ready");
    let mut hand = Hand::join(&server.stores).await;
    let held = hand.claim().await;
    assert_eq!(held.loaded.payload, r#"{"sleep_ms":7}"#);
    let refused = server.patch(&path, &json!({"priority": 9})).await.problem(409);
    assert_eq!(refused["type"], "urn:longshore:problem:running");
    hand.succeed(held, &json!(1)).await;
    let refused = server.patch(&path, &json!({"priority": 9})).await.problem(409);
    assert_eq!(refused["type"], "urn:longshore:problem:already-final");
}

#[tokio::test]
async fn a_cancel_reaches_waiting_and_running_jobs() {
    let server = Server::start().await;
    let waiting = server.submit(json!({})).await;
    let cancelled = server.post(&format!("/v1/jobs/{waiting}/cancel"), &json!({"reason": "no need"})).await.expect(200);
    assert_eq!((&cancelled["state"], &cancelled["cancel_reason"]), (&json!("cancelled"), &json!("no need")));
    assert_eq!(server.get(&format!("/v1/jobs/{waiting}/attempts")).await.expect(200), json!({"attempts": []}));
    server.post(&format!("/v1/jobs/{waiting}/cancel"), &json!({})).await.problem(409);

    let running = server.submit(json!({})).await;
    let mut hand = Hand::join(&server.stores).await;
    let held = hand.claim().await;
    assert_eq!(held.lease.id, running);
    // Without a body, as `curl -X POST` sends it.
    let answer = server.send(server.request(Method::POST, &format!("/v1/jobs/{running}/cancel"))).await;
    assert_eq!(answer.expect(202)["state"], "cancelled");
    assert_eq!(answer.expect(202).get("cancel_reason"), None);
    let attempts = server.get(&format!("/v1/jobs/{running}/attempts")).await.expect(200);
    let attempt = &attempts["attempts"][0];
    assert_eq!((&attempt["number"], &attempt["outcome"]), (&json!(1), &json!("cancel")));
    assert!(attempt["started_at"].is_string() && attempt["finished_at"].is_string(), "{attempt}");
    let told = async { while hand.signals.recv().await.unwrap() != queue_core::dispatcher::Signal::Cancel(running) {} };
    tokio::time::timeout(PATIENCE, told).await.expect("the worker is told");
    let unknown = "01890000-0000-7000-8000-000000000000";
    server.post(&format!("/v1/jobs/{unknown}/cancel"), &json!({})).await.problem(404);
}

#[tokio::test]
async fn dead_letters_are_listed_grouped_and_redriven() {
    let server = Server::start().await;
    let mut hand = Hand::join(&server.stores).await;
    for _ in 0..2 {
        server.submit(json!({})).await;
        let held = hand.claim().await;
        hand.bury(held, "row 17 is broken").await;
    }
    let page = server.get("/v1/dead-letters").await.expect(200);
    let dead = ids(&page, "dead_letters");
    assert_eq!(dead.len(), 2);
    let groups = server.get("/v1/dead-letters/groups?queue=default").await.expect(200);
    assert_eq!((&groups["groups"][0]["count"], &groups["groups"][0]["cost_usd"]), (&json!(2), &json!("0.00")));
    let letter = server.get(&format!("/v1/dead-letters/{}", dead[0])).await.expect(200);
    assert_eq!((&letter["payload"], &letter["error"]["class"]), (&json!({"sleep_ms": 0}), &json!("permanent")));
    assert_eq!(letter["history"][0]["outcome"], "dead");
    for filter in ["error=permanent", "q=broken"] {
        let page = server.get(&format!("/v1/dead-letters?{filter}")).await.expect(200);
        assert_eq!(ids(&page, "dead_letters").len(), 2, "{filter}");
    }
    let redrive = format!("/v1/dead-letters/{}/redrive", dead[0]);
    let live = server.post(&redrive, &json!({})).await.expect(200);
    assert_eq!((&live["state"], &live["redrives"]), (&json!("ready"), &json!(1)));
    assert_eq!(server.post(&redrive, &json!({})).await.problem(409)["type"], "urn:longshore:problem:not-dead");
    server.get(&format!("/v1/dead-letters/{}", dead[0])).await.problem(404);
    let held = hand.claim().await;
    assert_eq!(held.lease.id.to_string(), dead[0]);
}

#[tokio::test]
async fn a_bulk_request_answers_for_each_job() {
    let server = Server::start().await;
    let jobs = json!([
        {"kind": "probe", "payload": {}},
        {"kind": "probe", "payload": {}, "priority": 10},
        7,
        {"kind": "probe", "payload": {}, "queue": "b", "run_at": "2100-01-01T00:00:00Z"},
        {"kind": "probe", "payload": {}, "queue": "b"},
    ]);
    let send = |key: &'static str, jobs: &Value| {
        server.send(server.request(Method::POST, "/v1/jobs/bulk").json(jobs).header("Idempotency-Key", key))
    };
    let answer = send("bulk-1", &jobs).await;
    let items = answer.expect(200)["jobs"].as_array().unwrap().clone();
    assert_eq!(items.len(), 5);
    assert_eq!(items[0]["state"], "ready");
    for (at, pointer) in [(1, "/priority"), (2, ""), (3, "/run_at")] {
        let error = &items[at]["error"];
        assert_eq!((&error["status"], &error["errors"][0]["pointer"]), (&json!(422), &json!(pointer)));
    }
    assert_eq!(items[4]["queue"], "b");
    let again = send("bulk-1", &jobs).await;
    assert_eq!((again.expect(200), again.header("idempotency-replayed")), (answer.expect(200), "true"));
    send("bulk-1", &json!([{"kind": "probe", "payload": {"sleep_ms": 1}}])).await.problem(422);

    let lines = "{\"kind\":\"probe\",\"payload\":{}}\n\n{\"kind\":\r\n{\"kind\":\"probe\",\"payload\":{}}";
    let request = server.request(Method::POST, "/v1/jobs/bulk").header("Content-Type", "application/x-ndjson");
    let mut body = lines.as_bytes().to_vec();
    body.extend(b"\n{\"kind\":\"\xff\"}\n");
    let items = server.send(request.body(body)).await.expect(200)["jobs"].as_array().unwrap().clone();
    let statuses: Vec<_> = items.iter().map(|item| item["error"]["status"].as_u64()).collect();
    assert_eq!(statuses, [None, Some(400), None, Some(400)]);
    assert_eq!(ids(&server.get("/v1/jobs").await.expect(200), "jobs").len(), 4);
}

#[tokio::test]
async fn queues_show_settings_and_numbers_and_can_be_paused() {
    let server = Server::start().await;
    server.submit(json!({"queue": "work"})).await;
    let later = server.stores.clock.now().plus_ms(3_600_000).to_string();
    server.submit(json!({"queue": "work", "run_at": later})).await;
    let numbers = |body: &Value| {
        ["waiting", "active", "scheduled", "parked", "completed", "failed", "desired_workers"]
            .map(|name| body[name].as_u64().unwrap())
    };
    let metrics = server.get("/v1/queues/metrics").await.expect(200);
    assert_eq!(numbers(&metrics["queues"]["work"]), [1, 0, 1, 0, 0, 0, 1]);
    assert!(metrics["queues"]["work"]["oldest_ready_seconds"].as_f64().unwrap() >= 0.0);

    let paused = server.patch("/v1/queues/work", &json!({"paused": true, "reason": "deploy"})).await.expect(200);
    assert_eq!((&paused["paused"], &paused["reason"]), (&json!(true), &json!("deploy")));
    assert_eq!(numbers(&paused["metrics"]), [0, 0, 1, 1, 0, 0, 0]);
    let id = server.submit(json!({"queue": "work"})).await;
    let why = server.get(&format!("/v1/jobs/{id}/why")).await.expect(200);
    assert!(why["waits"].as_array().unwrap().iter().any(|wait| wait["waits_for"] == "queue_paused"), "{why}");

    let shown = server.get("/v1/queues/work").await;
    let tag = shown.header("etag").to_owned();
    let resume = || server.request(Method::PATCH, "/v1/queues/work").json(&json!({"paused": false, "timeout": "90s"}));
    let resumed = server.send(resume().header("If-Match", &tag)).await.expect(200);
    assert_eq!((&resumed["paused"], &resumed["timeout"]), (&json!(false), &json!("1m 30s")));
    server.send(resume().header("If-Match", &tag)).await.problem(412);
    let mut hand = Hand::join(&server.stores).await;
    hand.claim().await;
    let metrics = server.get("/v1/queues/metrics").await.expect(200);
    assert_eq!(numbers(&metrics["queues"]["work"]), [1, 1, 1, 0, 0, 0, 1]);

    server.get("/v1/queues/unheard-of").await.problem(404);
    server.patch("/v1/queues/new", &json!({"concurrency": 3})).await.expect(200);
    let list = server.get("/v1/queues").await.expect(200);
    let names: Vec<_> = list["queues"].as_array().unwrap().iter().map(|queue| queue["queue"].clone()).collect();
    assert_eq!(names, ["new", "work"]);
    let workers = server.get("/v1/workers").await.expect(200);
    assert_eq!(workers, json!({"workers": []}));
    let costs = server.get("/v1/costs?group_by=operation,model&since=7d").await.expect(200);
    assert_eq!(costs["rows"], json!([]));
}

#[tokio::test]
async fn queues_have_a_history_of_what_was_seen() {
    let server = Server::start().await;
    server.submit(json!({"queue": "work"})).await;
    let path = "/v1/queues/metrics/history";
    // The first look is taken while the server starts.
    let seen = tokio::time::timeout(PATIENCE, async {
        loop {
            let told = server.get(&format!("{path}?each=true")).await.expect(200);
            if told["watched_since"].is_string() {
                return told;
            }
            tokio::task::yield_now().await;
        }
    });
    let told = seen.await.unwrap();
    assert_eq!((&told["step_seconds"], &told["points"][0]["at"]), (&json!(10), &told["watched_since"]));
    let numbers = ["waiting", "accepted", "completed", "died"].map(|name| told["points"][0][name].as_u64());
    assert!(numbers.iter().all(Option::is_some), "{told}");
    assert_eq!(server.get(&format!("{path}?queue=unheard-of")).await.expect(200)["points"], json!([]));
    let wrong = server.get(&format!("{path}?step=1s&each=perhaps&since=soon&queue=metrics")).await.problem(422);
    let pointers: Vec<_> = wrong["errors"].as_array().unwrap().iter().map(|error| error["pointer"].clone()).collect();
    assert_eq!(pointers, ["/query/since", "/query/step", "/query/queue", "/query/each"]);
    let ages_ago = server.get(&format!("{path}?since=2147483648h")).await.problem(422);
    assert!(ages_ago["errors"][0]["reason"].as_str().unwrap().contains("at most 36500d"), "{ages_ago}");
}

#[tokio::test]
async fn a_payload_is_shown_as_it_was_sent() {
    let server = Server::start().await;
    let payload = r#"{ "sleep_ms":  0, "pad": "z", "fail_times": 1, "fail": "transient" }"#;
    let body = format!(r#"{{"kind":"probe","payload":{payload}}}"#);
    let submit = server.request(Method::POST, "/v1/jobs").header("content-type", "application/json").body(body);
    let id = server.send(submit).await.expect(202)["id"].as_str().unwrap().to_owned();
    let shown = server.get(&format!("/v1/jobs/{id}/payload")).await;
    assert_eq!((shown.status.as_u16(), shown.header("content-type")), (200, "application/json"));
    assert_eq!(shown.text, payload);
    server.get(&format!("/v1/jobs/{}/payload", JobId::generate())).await.problem(404);
}
