//! Lists over more jobs than one answer may look at.

use crate::server::{Hand, Server, people::People};
use bytes::Bytes;
use queue_core::{
    ids::JobId,
    job::{Kind, NewJob},
    journal::ACCEPT_MAX_JOBS,
};
use serde_json::json;

/// Commits due jobs behind the dispatcher's back, so that no worker gets them.
async fn fill(server: &Server, jobs: usize) {
    let now = server.stores.clock.now();
    let job = || NewJob {
        queue: "backlog".into(),
        ..NewJob::new("default".into(), Kind::Probe, "probe".into(), Bytes::from_static(b"{}"), now)
    };
    for _ in 0..jobs.div_ceil(ACCEPT_MAX_JOBS) {
        let part = (0..jobs.min(ACCEPT_MAX_JOBS)).map(|_| job()).collect();
        server.stores.journal.accept(part).await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_looks_at_so_many_rows_and_says_how_to_go_on() {
    let server = Server::start().await;
    let oldest = server.submit(json!({"queue": "rare"})).await;
    let mut hand = Hand::join(&server.stores).await;
    let first = hand.claim().await;
    hand.bury(first, "done").await;
    fill(&server, 30_000).await;
    // Behind 30,000 jobs that were due before it.
    let running = server.submit(json!({"queue": "late"})).await;
    let _held = hand.claim().await;
    for query in ["state=running", "state=running&queue=late"] {
        let page = server.get(&format!("/v1/jobs?{query}")).await.expect(200);
        assert_eq!((&page["jobs"][0]["id"], page.get("incomplete")), (&json!(running), None), "{query}");
    }
    let none = server.get("/v1/jobs?state=running&queue=backlog").await.expect(200);
    assert_eq!(none, json!({"jobs": []}));

    fill(&server, 30_000).await;
    let page = server.get("/v1/jobs?queue=rare").await.expect(200);
    assert_eq!(page["jobs"], json!([]));
    let next = format!("/v1/jobs?queue=rare&cursor={}", page["next_cursor"].as_str().unwrap());
    let page = server.get(&next).await.expect(200);
    assert_eq!((&page["jobs"][0]["id"], page.get("next_cursor")), (&json!(oldest), None));
}

/// A page that ended among jobs of others names none of them: its cursor is a moment, at which there is no job.
#[tokio::test]
async fn a_cursor_names_no_job_of_others() {
    let people = People::meet().await;
    let mut own = Vec::new();
    own.push(people.later(&people.user, json!({})).await);
    fill(&people.server, 60_000).await;
    own.push(people.later(&people.user, json!({})).await);
    for (person, path, ends_blind) in [
        (&people.user, "/v1/jobs?limit=500".to_owned(), true),
        (&people.analyst, "/v1/jobs?limit=500".to_owned(), true),
        // A search by filter goes through many pages of the journal in one of its own.
        (&people.user, filtered("/v1/jobs", "kind = probe"), false),
    ] {
        let (mut seen, mut cursor, mut blind) = (Vec::new(), None::<String>, 0);
        loop {
            let more = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
            let page = people.get(person, &format!("{path}{more}")).await.expect(200);
            let jobs = page["jobs"].as_array().unwrap();
            seen.extend(jobs.iter().map(|job| job["id"].as_str().unwrap().parse::<JobId>().unwrap()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            let at: JobId = next[1..].parse().unwrap();
            if !own.contains(&at) {
                let found = people.server.stores.reads.jobs(&[at]).await.unwrap();
                assert!(found.iter().all(Option::is_none), "{path}: {next}");
                blind += 1;
            }
            cursor = Some(next.to_owned());
        }
        assert_eq!(seen, own.iter().rev().copied().collect::<Vec<_>>(), "{path}: each once, newest first");
        assert!(blind > 0 || !ends_blind, "{path}: no page ended among others' jobs");
    }
}

#[tokio::test]
async fn a_search_for_running_jobs_says_when_it_has_not_found_all() {
    let server = Server::start().await;
    fill(&server, 50_000).await;
    server.submit(json!({})).await;
    let mut hand = Hand::join(&server.stores).await;
    let _held = hand.claim().await;
    let page = server.get("/v1/jobs?state=running").await.expect(200);
    assert_eq!(page, json!({"jobs": [], "incomplete": true}));
}

/// `filter` with its text escaped.
fn filtered(path: &str, filter: &str) -> String {
    let escaped: String = filter.bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!("{path}?filter={escaped}")
}

#[tokio::test]
async fn jobs_are_found_by_the_one_grammar() {
    let server = Server::start().await;
    let [old, tagged, waiting] = [
        json!({"queue": "a", "operation": "extract"}),
        json!({"queue": "b", "tags": ["nightly"], "priority": 7}),
        json!({"queue": "c", "run_at": server.stores.clock.now().plus_ms(3_600_000)}),
    ];
    let old = server.submit(old).await;
    let mut hand = Hand::join(&server.stores).await;
    let first = hand.claim().await;
    hand.bury(first, "the server is away").await;
    let tagged = server.submit(tagged).await;
    let _held = hand.claim().await;
    let waiting = server.submit(waiting).await;

    let table = [
        ("state = dead and operation = extract", vec![old]),
        ("state = running", vec![tagged]),
        ("state in (running, scheduled)", vec![waiting, tagged]),
        ("tag = nightly and priority > 6", vec![tagged]),
        ("queue != b and age < 1h", vec![waiting, old]),
        ("error.message ~ \"AWAY\"", vec![old]),
        ("state = dead and state = running", vec![]),
    ];
    for (filter, expected) in table {
        let page = server.get(&filtered("/v1/jobs", filter)).await.expect(200);
        let ids: Vec<_> = page["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()).collect();
        assert_eq!(json!(ids), json!(expected), "{filter}");
    }
    let named =
        filtered("/v1/jobs", &format!("id in ({old}, {waiting}, {tagged}, {}) and queue != b", JobId::generate()));
    let first = server.get(&format!("{named}&limit=1")).await.expect(200);
    assert_eq!(first["jobs"][0]["id"], json!(waiting), "jobs that are named, newest first");
    let next = format!("{named}&limit=1&cursor={}", first["next_cursor"].as_str().unwrap());
    let rest = server.get(&next).await.expect(200);
    assert_eq!((&rest["jobs"][0]["id"], rest.get("next_cursor")), (&json!(old), None));
    assert_eq!(server.get(&format!("{named}&state=dead")).await.expect(200)["jobs"].as_array().unwrap().len(), 1);
    let both = format!("{}&queue=b", filtered("/v1/jobs", "queue = a"));
    assert_eq!(server.get(&both).await.expect(200)["jobs"], json!([]), "each narrows what the other lets through");
    let letters = server.get(&filtered("/v1/dead-letters", "queue in (a, b)")).await.expect(200);
    assert_eq!(
        (&letters["dead_letters"][0]["id"], letters["dead_letters"].as_array().unwrap().len()),
        (&json!(old), 1)
    );
    let wrong = server.get(&filtered("/v1/jobs", "queue = a or queue = b")).await.problem(422);
    let reason = &wrong["errors"][0];
    assert_eq!(reason["pointer"], "/query/filter");
    assert!(
        reason["reason"].as_str().unwrap().contains("there is no `or`")
            && reason["reason"].as_str().unwrap().contains("at character 11")
    );
}

#[tokio::test]
async fn a_filter_that_few_jobs_meet_is_sought_beyond_one_page() {
    let server = Server::start().await;
    let rare = server.submit(json!({"priority": 9})).await;
    fill(&server, 5_000).await;
    let page = server.get(&filtered("/v1/jobs", "priority = 9")).await.expect(200);
    assert_eq!((&page["jobs"][0]["id"], page.get("next_cursor")), (&json!(rare), None));
    let (mut seen, mut path) = (0, format!("{}&limit=500", filtered("/v1/jobs", "priority = 5")));
    loop {
        let page = server.get(&path).await.expect(200);
        seen += page["jobs"].as_array().unwrap().len();
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("{}&limit=500&cursor={cursor}", filtered("/v1/jobs", "priority = 5"));
    }
    assert_eq!(seen, 5_000, "each once");
}
