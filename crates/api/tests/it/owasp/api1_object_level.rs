//! API1: what belongs to others is not there, whatever names it.
//!
//! Names in paths, lists and filters are held by the tests below, and by row-level security behind them; left open were names that
//! travel elsewhere: idempotency keys, and cursors.

use reqwest::Method;
use serde_json::{Value, json};

use super::Held;
use crate::server::people::{People, Person, far_job};

pub(super) const HELD_BY: &[Held] = &[
    ("api/tests/it/isolation.rs", "by_every_route_that_takes_a_name"),
    ("api/tests/it/isolation.rs", "in_every_list_and_filter"),
    ("api/tests/it/isolation.rs", "a_running_job_is_listed_for_its_own_only"),
    ("api/tests/it/isolation.rs", "nobody_submits_for_another_tenant"),
    ("api/tests/it/isolation.rs", "why_does_not_tell_a_tenant_what_all_spend"),
    ("api/tests/it/jobs.rs", "another_key_s_job_that_holds_a_unique_key_is_not_named"),
    ("queue-core/tests/journal_postgres/walls.rs", "with_every_tenant_clause_removed_nothing_of_others_is_read"),
    ("queue-core/tests/journal_postgres/walls.rs", "every_table_with_a_tenant_is_behind_the_wall"),
    ("worker/tests/it/credentials.rs", "what_was_sealed_for_one_tenant_does_not_open_for_another"),
];

#[tokio::test]
async fn another_tenant_s_idempotency_key_or_cursor_leads_nowhere() {
    let people = People::meet().await;
    let job = far_job(&people);
    let submit = async |person: &Person| -> (Value, bool) {
        let request = people.server.http.post(format!("{}/v1/jobs", people.server.url)).json(&job);
        let request = request.bearer_auth(person.key.as_deref().unwrap()).header("idempotency-key", "guessed");
        let answer = people.server.send(request).await;
        (answer.expect(202)["id"].clone(), answer.header("idempotency-replayed") == "true")
    };
    let (first, _) = submit(&people.user).await;
    let place = format!("/v1/jobs/{}", first.as_str().unwrap());
    // Whoever sees only what it has submitted itself has idempotency keys of its own.
    for other in [&people.colleague, &people.stranger] {
        let (own, is_replayed) = submit(other).await;
        assert!(own != first && !is_replayed, "somebody else is answered with {own}");
        people.get(other, &place).await.problem(404);
    }
    people.ask(&people.stranger, Method::POST, &format!("{place}/cancel"), Some(&json!({}))).await.problem(404);
    // A list that goes on behind another's job has nothing of it.
    let page = people.get(&people.stranger, &format!("/v1/jobs?cursor={}", first.as_str().unwrap())).await;
    if page.status.is_success() {
        assert!(page.json()["jobs"].as_array().unwrap().iter().all(|job| job["id"] != first), "{}", page.text);
    } else {
        page.problem(422);
    }
}
