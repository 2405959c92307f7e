//! What belongs to others is not there: by every route that takes a name, in every list, and in every filter.

use crate::server::{
    Answer,
    people::{People, Person, far_job},
};
use queue_core::{ids::JobId, journal::Role};
use reqwest::Method;
use serde_json::{Value, json};

/// The answer without what differs between any two: so that what is hidden can be compared with what does not exist.
fn scrubbed(answer: &Answer, name: &str) -> String {
    let mut body = answer.json();
    body.as_object_mut().unwrap().remove("request_id");
    format!("{} {}", answer.status, body.to_string().replace(name, "NAME"))
}

/// A body that passes the checks of a route, so that it gets as far as what it names.
fn body_for(route: &str) -> Option<Value> {
    match route {
        "PATCH /v1/jobs/{id}" => Some(json!({"priority": 7})),
        "PUT /v1/tenants/{tenant}" => Some(json!({})),
        _ if route.starts_with("PATCH") => Some(json!({"paused": false})),
        _ if route.starts_with("PUT") => Some(json!({})),
        _ => None,
    }
}

/// Every route of the document that takes a name and is for callers of a tenant: for each of them, what another tenant's
/// name is answered with is what an unknown name is answered with, to the letter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_every_route_that_takes_a_name() {
    let mut people = People::meet().await;
    let user = people.user.clone();
    let (dead, done) = (people.dead(&user).await, people.succeeded(&user).await);
    let live = people.later(&user, json!({"batch_id": "of-acme"})).await;
    let unknown = JobId::generate();
    let document = serde_json::to_value(api::openapi()).unwrap();
    let mut looked_at = 0;
    for (path, item) in document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.contains('{')) {
        for (method, operation) in item.as_object().unwrap() {
            let route = format!("{} {path}", method.to_uppercase());
            let least = Role::parse(operation["x-longshore-role"].as_str().unwrap()).unwrap();
            if !least.is_tenant_bound() {
                // For roles over tenants; `permissions` sees to it that nobody else gets in.
                continue;
            }
            let names: Vec<(String, String)> = if path.contains("{tenant}") {
                vec![("acme".into(), "nobody".into())]
            } else if path.contains("{key}") {
                vec![(user.id().to_owned(), "abcd0000".into())]
            } else if path.contains("/batches/") {
                vec![("of-acme".into(), "of-nobody".into())]
            } else {
                [dead, done, live].map(|id| (id.to_string(), unknown.to_string())).into()
            };
            let own_too = path.contains("{id}");
            let outside = [&people.stranger, &people.strange_analyst];
            let outside = outside.into_iter().chain(own_too.then_some(&people.colleague));
            for person in outside.filter(|person| person.standing.unwrap().0 >= least) {
                for (theirs, nobodys) in &names {
                    let ask = async |name: &str| {
                        let path =
                            ["{id}", "{tenant}", "{key}"].iter().fold(path.clone(), |path, p| path.replace(p, name));
                        let body = body_for(&route);
                        people.ask(person, method.to_uppercase().parse().unwrap(), &path, body.as_ref()).await
                    };
                    let (hidden, missing) = (ask(theirs).await, ask(nobodys).await);
                    hidden.problem(404);
                    let (hidden, missing) = (scrubbed(&hidden, theirs), scrubbed(&missing, nobodys));
                    assert_eq!(hidden, missing, "{route} by {} tells that there is something", person.name);
                    assert!(!hidden.contains("secret"), "{route}: {hidden}");
                    looked_at += 1;
                }
            }
        }
    }
    // Ten routes of three jobs for two or three callers, and those of batches, tenants and keys.
    assert!(looked_at >= 80, "{looked_at}");
    // Nothing of what strangers tried has happened.
    let kept = people.get(&user, &format!("/v1/jobs/{live}")).await.expect(200);
    assert_eq!((&kept["state"], &kept["priority"]), (&json!("scheduled"), &json!(5)));
    assert_eq!(people.get(&user, &format!("/v1/jobs/{dead}")).await.expect(200)["state"], "dead");
}

fn ids(page: &Value, name: &str) -> Vec<String> {
    page[name].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_every_list_and_filter() {
    let mut people = People::meet().await;
    let (user, colleague, stranger) = (people.user.clone(), people.colleague.clone(), people.stranger.clone());
    let (dead, done) = (people.dead(&user).await, people.succeeded(&user).await);
    let running = people.later(&user, json!({"batch_id": "of-acme"})).await;
    let own = people.later(&stranger, json!({"batch_id": "of-acme"})).await;
    let of_colleague = people.later(&colleague, json!({"batch_id": "of-acme"})).await;
    let all = [dead, done, running, of_colleague].map(|id| id.to_string());
    let paths = [
        "/v1/jobs",
        "/v1/jobs?state=dead",
        "/v1/jobs?state=succeeded",
        "/v1/jobs?state=scheduled",
        "/v1/jobs?state=running",
        "/v1/jobs?q=secret",
        "/v1/jobs?batch_id=of-acme",
        "/v1/jobs?operation=secret-of-acme",
        "/v1/jobs?tenant=acme",
        "/v1/jobs?filter=tenant%20%3D%20acme",
        "/v1/jobs?filter=tenant%20in%20(acme,globex)",
        "/v1/jobs?filter=tenant%20!%3D%20nobody",
        "/v1/jobs?filter=state%20%3D%20running",
        "/v1/jobs?tenant=globex&filter=tenant%20%3D%20acme",
    ];
    for person in [&stranger, &people.strange_analyst] {
        for path in paths {
            let page = people.get(person, path).await;
            let found = ids(&page.expect(200), "jobs");
            assert!(found.iter().all(|id| *id == own.to_string()), "{path} by {}: {found:?}", person.name);
            assert!(
                !page.text.contains("secret") && !page.text.contains("\"tenant\":\"acme\""),
                "{path}: {}",
                page.text
            );
        }
        for path in ["/v1/dead-letters", "/v1/dead-letters?tenant=acme", "/v1/dead-letters?filter=tenant%20%3D%20acme"]
        {
            assert!(ids(&people.get(person, path).await.expect(200), "dead_letters").is_empty(), "{path}");
        }
        let groups = people.get(person, "/v1/dead-letters/groups").await.expect(200);
        assert_eq!(groups["groups"], json!([]));
        // The batch of the same name is the stranger's own.
        assert_eq!(people.get(person, "/v1/batches/of-acme").await.expect(200)["total"], 1);
    }
    for path in ["/v1/costs?group_by=tenant", "/v1/costs?group_by=tenant&tenant=acme"] {
        assert_eq!(people.get(&people.strange_analyst, path).await.expect(200)["rows"], json!([]));
    }
    // Within the tenant: an analyst sees all of it, a user its own.
    let mut seen = ids(&people.get(&people.analyst, "/v1/jobs").await.expect(200), "jobs");
    seen.sort();
    let mut expected = all.to_vec();
    expected.sort();
    assert_eq!(seen, expected);
    let seen = ids(&people.get(&colleague, "/v1/jobs").await.expect(200), "jobs");
    assert_eq!(seen, [of_colleague.to_string()]);
    assert_eq!(people.get(&colleague, "/v1/batches/of-acme").await.expect(200)["total"], 1);
    assert_eq!(people.get(&people.analyst, "/v1/batches/of-acme").await.expect(200)["total"], 4);
    assert_eq!(people.get(&people.operator, "/v1/batches/of-acme").await.expect(200)["total"], 5);
    let groups = people.get(&colleague, "/v1/dead-letters/groups").await.expect(200);
    assert_eq!(groups["groups"], json!([]));
    let groups = people.get(&people.analyst, "/v1/dead-letters/groups").await.expect(200);
    assert_eq!(groups["groups"][0]["count"], 1);
}

#[tokio::test]
async fn a_running_job_is_listed_for_its_own_only() {
    let mut people = People::meet().await;
    let job = json!({"kind": "probe", "payload": {}});
    let id = people.ask(&people.user, Method::POST, "/v1/jobs", Some(&job)).await.expect(202)["id"].clone();
    let _held = people.hand.claim().await;
    for (person, sees) in
        [(&people.user, true), (&people.analyst, true), (&people.colleague, false), (&people.stranger, false)]
    {
        for path in ["/v1/jobs?state=running", "/v1/jobs?filter=state%20%3D%20running"] {
            let page = people.get(person, path).await.expect(200);
            assert_eq!(ids(&page, "jobs").contains(&id.as_str().unwrap().to_owned()), sees, "{path} {}", person.name);
        }
    }
}

#[tokio::test]
async fn nobody_submits_for_another_tenant() {
    let people = People::meet().await;
    let mut job = far_job(&people);
    job["tenant"] = json!("globex");
    for person in [&people.user, &people.analyst] {
        let refused = people.ask(person, Method::POST, "/v1/jobs", Some(&job)).await.problem(403);
        assert_eq!(refused["errors"][0]["pointer"], "/tenant");
        let bulk = json!([far_job(&people), job.clone()]);
        let answers = people.ask(person, Method::POST, "/v1/jobs/bulk", Some(&bulk)).await.expect(200);
        assert!(answers["jobs"][0]["id"].is_string(), "{answers}");
        assert_eq!(answers["jobs"][1]["error"]["status"], 403);
    }
    // Its own name may be said.
    job["tenant"] = json!("acme");
    people.ask(&people.user, Method::POST, "/v1/jobs", Some(&job)).await.expect(202);
    // Roles over tenants may.
    job["tenant"] = json!("globex");
    let id = people.ask(&people.operator, Method::POST, "/v1/jobs", Some(&job)).await.expect(202)["id"].clone();
    let seen = people.get(&people.strange_analyst, &format!("/v1/jobs/{}", id.as_str().unwrap())).await.expect(200);
    assert_eq!(seen["tenant"], "globex");
    let page = people.get(&people.stranger, "/v1/jobs").await.expect(200);
    assert!(ids(&page, "jobs").is_empty(), "another key has submitted it");
}

/// What all tenants together spend is the operators' business.
#[tokio::test]
async fn why_does_not_tell_a_tenant_what_all_spend() {
    let people = People::meet().await;
    let put: fn(&People) -> Person = |people| people.admin.clone();
    let budget = json!({"month_usd": "4321.00"});
    people.ask(&put(&people), Method::PUT, "/v1/budget", Some(&budget)).await.expect(200);
    let id = people.later(&people.user, json!({})).await;
    let answer = people.get(&people.user, &format!("/v1/jobs/{id}/why")).await;
    assert!(!answer.text.contains("4321"), "{}", answer.text);
    people.get(&people.user, "/v1/budget").await.problem(403);
    people.get(&people.analyst, "/v1/budgets").await.problem(403);
}
