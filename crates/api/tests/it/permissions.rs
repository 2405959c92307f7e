//! Every documented route × everybody who may call: each cell is asked for over HTTP.
//!
//! A new route needs a line in `access::TABLE`, and one in [`ROUTES`] here: the two are compared, so that nobody changes what
//! a route asks of its callers by accident.

use std::collections::BTreeSet;

use crate::server::people::{People, Person, far_job};
use queue_core::{
    ids::{JobId, Name},
    journal::Role::{self, Admin, Analyst, Operator, User},
    webhooks::{CircuitTold, Listing, Told},
};
use reqwest::Method;
use serde_json::{Value, json};

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// Something of Acme, named in the path: callers who are bound to another tenant are told that it is not there.
    Acme,
    /// Nothing in particular: whoever has the role gets an answer, bounded by what it may see.
    Any,
}
use About::{Acme, Any};

#[rustfmt::skip] // one line a route
const ROUTES: &[(&str, Role, About)] = &[
    ("POST /v1/jobs", User, Any),
    ("POST /v1/jobs/bulk", User, Any),
    ("GET /v1/jobs", User, Any),
    ("GET /v1/jobs/{id}", User, Acme),
    ("GET /v1/jobs/{id}/payload", User, Acme),
    ("GET /v1/jobs/{id}/result", User, Acme),
    ("GET /v1/jobs/{id}/attempts", User, Acme),
    ("GET /v1/jobs/{id}/calls", User, Acme),
    ("GET /v1/jobs/{id}/events", User, Acme),
    ("GET /v1/jobs/{id}/why", User, Acme),
    ("POST /v1/jobs/{id}/cancel", User, Acme),
    ("PATCH /v1/jobs/{id}", Analyst, Acme),
    ("GET /v1/batches/{id}", User, Acme),
    ("GET /v1/dead-letters", User, Any),
    ("GET /v1/dead-letters/groups", User, Any),
    ("GET /v1/dead-letters/{id}", User, Acme),
    ("POST /v1/dead-letters/{id}/redrive", Analyst, Acme),
    ("GET /v1/schedules", Analyst, Any),
    ("POST /v1/schedules", Analyst, Any),
    ("GET /v1/schedules/preview", Analyst, Any),
    ("GET /v1/schedules/{id}", Analyst, Acme),
    ("PATCH /v1/schedules/{id}", Analyst, Acme),
    ("DELETE /v1/schedules/{id}", Analyst, Acme),
    ("POST /v1/schedules/{id}/backfill", Analyst, Acme),
    ("DELETE /v1/schedules/{id}/backfill", Analyst, Acme),
    ("GET /v1/costs", Analyst, Any),
    ("GET /v1/tenants/{tenant}/usage", Analyst, Acme),
    ("GET /v1/tenants/{tenant}/budget", Analyst, Acme),
    ("PUT /v1/tenants/{tenant}/budget", Admin, Acme),
    ("GET /v1/keys/{key}/budget", Analyst, Acme),
    ("PUT /v1/keys/{key}/budget", Admin, Acme),
    ("GET /v1/budgets", Operator, Any),
    ("GET /v1/budget", Operator, Any),
    ("PUT /v1/budget", Admin, Any),
    ("GET /v1/queues", Operator, Any),
    ("GET /v1/queues/metrics", Operator, Any),
    ("GET /v1/queues/metrics/history", Operator, Any),
    ("GET /v1/queues/{queue}", Operator, Any),
    ("GET /v1/queues/{queue}/inspect", Operator, Any),
    ("PATCH /v1/queues/{queue}", Operator, Any),
    ("GET /v1/targets", Operator, Any),
    ("GET /v1/targets/{target}", Operator, Any),
    ("PATCH /v1/targets/{target}", Operator, Any),
    ("GET /v1/limits", Operator, Any),
    ("GET /v1/limits/{target}", Operator, Any),
    ("PUT /v1/limits/{target}", Operator, Any),
    ("GET /v1/workers", Operator, Any),
    ("POST /v1/workers/{id}/drain", Operator, Any),
    ("GET /v1/maintenance", Operator, Any),
    ("PUT /v1/maintenance", Admin, Any),
    ("GET /v1/log-level", Operator, Any),
    ("PUT /v1/log-level", Admin, Any),
    ("GET /v1/maintenance/report", Operator, Any),
    ("POST /v1/maintenance/run", Operator, Any),
    ("GET /v1/retention", Operator, Any),
    ("POST /v1/retention/run", Operator, Any),
    ("GET /v1/archives", Operator, Any),
    ("POST /v1/archives/{id}/restore", Operator, Any),
    ("GET /v1/backups", Operator, Any),
    ("POST /v1/backups", Admin, Any),
    ("GET /v1/backups/{id}", Operator, Any),
    ("POST /v1/backups/{id}/verify", Admin, Any),
    ("GET /v1/operations", Operator, Any),
    ("POST /v1/operations", Operator, Any),
    ("GET /v1/operations/{id}", Operator, Any),
    ("DELETE /v1/operations/{id}", Operator, Any),
    ("GET /v1/tenants", Operator, Any),
    ("GET /v1/tenants/{tenant}", Analyst, Acme),
    ("PUT /v1/tenants/{tenant}", Admin, Acme),
    ("PATCH /v1/tenants/{tenant}", Admin, Acme),
    ("POST /v1/tenants/{tenant}/erase", Admin, Acme),
    ("GET /v1/erasures", Admin, Any),
    ("POST /v1/erasures", Admin, Any),
    ("GET /v1/credentials", Admin, Any),
    ("POST /v1/credentials/rewrap", Admin, Any),
    ("GET /v1/tenants/{tenant}/credentials", Admin, Acme),
    ("PUT /v1/tenants/{tenant}/credentials", Admin, Acme),
    ("GET /v1/tenants/{tenant}/credentials/{provider}", Admin, Acme),
    ("PUT /v1/tenants/{tenant}/credentials/{provider}", Admin, Acme),
    ("PATCH /v1/tenants/{tenant}/credentials/{provider}", Admin, Acme),
    ("DELETE /v1/tenants/{tenant}/credentials/{provider}", Admin, Acme),
    ("GET /v1/webhooks", Operator, Any),
    ("POST /v1/webhooks", Admin, Any),
    ("GET /v1/webhooks/{id}", Operator, Any),
    ("PATCH /v1/webhooks/{id}", Admin, Any),
    ("DELETE /v1/webhooks/{id}", Admin, Any),
    ("POST /v1/webhooks/{id}/rotate-secret", Admin, Any),
    ("POST /v1/tenants/{tenant}/signing-secret", Admin, Acme),
    ("GET /v1/webhook-deliveries", Operator, Any),
    ("GET /v1/webhook-deliveries/{id}", Operator, Any),
    ("POST /v1/webhook-deliveries/{id}/replay", Operator, Any),
    ("GET /v1/audit", Admin, Any),
    ("GET /v1/audit/heads", Admin, Any),
    ("GET /v1/keys", Admin, Any),
    ("POST /v1/keys", Admin, Any),
    ("DELETE /v1/keys", Admin, Any),
    ("GET /v1/keys/{key}", Admin, Acme),
    ("PATCH /v1/keys/{key}", Admin, Acme),
    ("DELETE /v1/keys/{key}", Admin, Acme),
    ("POST /v1/keys/{key}/rotate", Admin, Acme),
    ("GET /v1/auth/whoami", User, Any),
    ("POST /v1/auth/token", User, Any),
    ("DELETE /v1/auth/token", User, Any),
    ("POST /v1/auth/revocations", Admin, Any),
];

/// What this caller is to be answered.
fn expected(least: Role, about: About, person: &Person) -> u16 {
    match person.standing {
        None => 401,
        Some((role, _)) if role < least => 403,
        Some((role, tenant)) if about == Acme && role.is_tenant_bound() && tenant != "acme" => 404,
        Some(_) => 200,
    }
}

/// An endpoint that nobody has deleted.
async fn webhook(people: &People) -> String {
    let new = json!({"url": "https://receiver.example/"});
    let made = people.ask(&people.admin, Method::POST, "/v1/webhooks", Some(&new)).await.expect(201);
    made["id"].as_str().unwrap().to_owned()
}

/// A delivery to such an endpoint.
async fn delivery(people: &People) -> String {
    let id = webhook(people).await.parse().unwrap();
    let (webhooks, now) = (&people.server.stores.webhooks, people.server.stores.clock.now());
    let body = "{}".to_owned();
    let told = CircuitTold {
        circuit: Name::new(format!("a:{id}:b")),
        open: true,
        tenant: None,
        body,
        at: now,
        last_open_at: now,
        what: Told::Breaker,
    };
    assert!(webhooks.tell_circuit(told).await.unwrap());
    let found = webhooks.deliveries(Listing::Endpoint(id), i64::MAX, 1).await.unwrap();
    found[0].id.to_string()
}

/// A schedule of Acme, perhaps with a backfill that runs.
async fn schedule(people: &People, backfills: bool) -> String {
    let new = json!({"name": JobId::generate().to_string(), "cron": "* * * * * *", "paused": true,
                     "template": {"kind": "probe", "payload": {}}});
    let made = people.ask(&people.analyst, Method::POST, "/v1/schedules", Some(&new)).await.expect(201);
    let id = made["id"].as_str().unwrap().to_owned();
    if backfills {
        let path = format!("/v1/schedules/{id}/backfill");
        people.ask(&people.analyst, Method::POST, &path, Some(&json!({"from": "1m"}))).await.expect(202);
    }
    id
}

/// A request that succeeds for whoever may make it, with things of Acme that nobody has used up.
async fn request(people: &mut People, route: &str) -> (Method, String, Option<Value>) {
    let (method, path) = route.split_once(' ').unwrap();
    let user = people.user.clone();
    let id = match route {
        "GET /v1/batches/{id}" => {
            people.later(&user, json!({"batch_id": "of-acme"})).await;
            "of-acme".to_owned()
        }
        "GET /v1/jobs/{id}/result" => people.succeeded(&user).await.to_string(),
        "PATCH /v1/jobs/{id}" | "POST /v1/jobs/{id}/cancel" => people.later(&user, json!({})).await.to_string(),
        "GET /v1/operations/{id}" | "DELETE /v1/operations/{id}" => operation(people).await,
        "POST /v1/archives/{id}/restore" => {
            let letter = people.dead(&user).await;
            crate::server::archive(&people.server.stores, &[letter]).await.to_string()
        }
        "GET /v1/backups/{id}" | "POST /v1/backups/{id}/verify" => {
            crate::server::backup(&people.server.stores).await.to_string()
        }
        "POST /v1/workers/{id}/drain" => crate::server::worker(&people.server.stores).await.to_string(),
        _ if path.contains("/schedules/{id}") => schedule(people, route == "DELETE /v1/schedules/{id}/backfill").await,
        _ if path.contains("/webhooks/{id}") => webhook(people).await,
        _ if path.contains("/webhook-deliveries/{id}") => delivery(people).await,
        _ if path.contains("{id}") => people.dead(&user).await.to_string(),
        _ => String::new(),
    };
    let mut query = "";
    let body = match route {
        "POST /v1/jobs" => Some(far_job(people)),
        "POST /v1/jobs/bulk" => Some(json!([far_job(people)])),
        "PATCH /v1/jobs/{id}" => Some(json!({"priority": 7})),
        "PATCH /v1/queues/{queue}" | "PATCH /v1/targets/{target}" | "PATCH /v1/tenants/{tenant}" => {
            Some(json!({"paused": false}))
        }
        "PUT /v1/limits/{target}" => Some(json!({"concurrency": 9})),
        "PUT /v1/tenants/{tenant}" => Some(json!({"weight": 2})),
        "POST /v1/tenants/{tenant}/erase" => Some(json!({"dry_run": true})),
        "POST /v1/erasures" => Some(json!({"erasures": []})),
        "PUT /v1/tenants/{tenant}/credentials" => Some(json!({"provider": "simulated", "key": "sk-of-acme"})),
        "PUT /v1/tenants/{tenant}/credentials/{provider}" => Some(json!({"key": "sk-of-acme"})),
        "PATCH /v1/tenants/{tenant}/credentials/{provider}" => Some(json!({"enabled": true})),
        "POST /v1/operations" => Some(an_operation()),
        "PUT /v1/maintenance" => Some(json!({"on": false})),
        "PUT /v1/log-level" => Some(json!({"filter": null})),
        "POST /v1/maintenance/run" => Some(json!({"dry_run": true})),
        "POST /v1/webhooks" => Some(json!({"url": "https://receiver.example/"})),
        "PATCH /v1/webhooks/{id}" => Some(json!({"enabled": true})),
        "POST /v1/webhooks/{id}/rotate-secret" | "POST /v1/tenants/{tenant}/signing-secret" => Some(json!({})),
        "POST /v1/keys" => Some(json!({"name": "new"})),
        "PATCH /v1/keys/{key}" => Some(json!({"requests_per_minute": 9})),
        "POST /v1/auth/revocations" => Some(json!({"jti": "nobodys"})),
        "POST /v1/schedules" => Some(json!({"name": JobId::generate().to_string(), "every": "1h",
                                            "template": {"kind": "probe", "payload": {}}})),
        "PATCH /v1/schedules/{id}" => Some(json!({"paused": true})),
        "POST /v1/schedules/{id}/backfill" => Some(json!({"from": "1m"})),
        "GET /v1/schedules/preview" => {
            query = "?every=1h";
            None
        }
        "DELETE /v1/keys" => {
            people.spare_key("doomed").await;
            query = "?tenant=doomed";
            None
        }
        _ if method == "PUT" && path.ends_with("/budget") => Some(json!({"month_usd": "1000"})),
        _ => None,
    };
    if path.contains("{provider}") {
        let set = json!({"key": "sk-of-acme"});
        let path = "/v1/tenants/acme/credentials/simulated";
        people.ask(&people.admin, Method::PUT, path, Some(&set)).await.expect(200);
    }
    let key = if path.contains("{key}") { people.spare_key("acme").await } else { String::new() };
    let filled = [
        ("{id}", id.as_str()),
        ("{tenant}", "acme"),
        ("{key}", &key),
        ("{queue}", "default"),
        ("{target}", "simulated:gpt-4o-mini:default"),
        ("{provider}", "simulated"),
    ];
    let path = filled.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value));
    assert!(!path.contains('{'), "{path}: a new parameter needs a value here");
    (method.parse().unwrap(), path + query, body)
}

/// Of a queue of its own: of one action and queue only one may run.
fn an_operation() -> Value {
    let filter = format!("queue = \"q-{}\"", JobId::generate());
    json!({"action": "cancel", "filter": filter})
}

async fn operation(people: &People) -> String {
    let begun = people.ask(&people.admin, Method::POST, "/v1/operations", Some(&an_operation())).await.expect(202);
    begun["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_gets_what_the_table_says_and_nothing_else() {
    let mut people = People::meet().await;
    people.later(&people.user, json!({})).await;
    let everybody = [
        people.nobody.clone(),
        people.user.clone(),
        people.stranger.clone(),
        people.analyst.clone(),
        people.strange_analyst.clone(),
        people.operator.clone(),
        people.admin.clone(),
        people.expired.clone(),
        people.revoked.clone(),
        people.forged.clone(),
    ];
    let mut wrong = Vec::new();
    let mut cells = 0;
    for (route, least, about) in ROUTES {
        for person in &everybody {
            let (method, path, body) = request(&mut people, route).await;
            let mut person = person.clone();
            if *route == "DELETE /v1/auth/token" && person.standing.is_some() {
                // Only a token can be handed back.
                let made = people.ask(&person, Method::POST, "/v1/auth/token", None).await.expect(200);
                person.key = made["token"].as_str().map(str::to_owned);
            }
            let answer = people.ask(&person, method, &path, body.as_ref()).await;
            let wanted = expected(*least, *about, &person);
            let found = answer.status.as_u16();
            let is_right = if wanted == 200 { answer.status.is_success() } else { found == wanted };
            cells += 1;
            if !is_right {
                wrong.push(format!("{route} by {}: {found} instead of {wanted}: {}", person.name, answer.text));
            } else if wanted != 200 {
                answer.problem(wanted);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(cells, ROUTES.len() * everybody.len());
}

#[tokio::test]
async fn every_documented_route_is_in_the_matrix_with_the_role_that_the_document_names() {
    let document = serde_json::to_value(api::openapi()).unwrap();
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with("/v1")) {
        for (method, operation) in item.as_object().unwrap() {
            let route = format!("{} {path}", method.to_uppercase());
            let line = ROUTES.iter().find(|(known, ..)| *known == route);
            let Some((_, least, _)) = line else { panic!("{route} is not in the matrix of this test: add a line") };
            assert_eq!(operation["x-longshore-role"], least.as_str(), "{route}");
            assert!(operation["x-longshore-scope"].as_str().is_some_and(|scope| scope.contains(':')), "{route}");
            assert!(operation["responses"]["401"].is_object() && operation["responses"]["403"].is_object(), "{route}");
            documented.insert(route);
        }
    }
    assert_eq!(documented.len(), ROUTES.len());
}

#[tokio::test]
async fn scopes_narrow_a_key_within_its_role() {
    let people = People::meet().await;
    let narrowed = async |role: &str, scopes: Value| {
        let new = json!({"name": "narrow", "role": role, "tenant": "acme", "scopes": scopes});
        let made = people.ask(&people.admin, Method::POST, "/v1/keys", Some(&new)).await.expect(201);
        Person { name: "narrow", key: Some(made["key"].as_str().unwrap().to_owned()), standing: None }
    };
    let submits = narrowed("user", json!(["jobs:submit"])).await;
    let job = far_job(&people);
    people.ask(&submits, Method::POST, "/v1/jobs", Some(&job)).await.expect(202);
    let refused = people.get(&submits, "/v1/jobs").await.problem(403);
    assert!(refused["detail"].as_str().unwrap().contains("jobs:read"), "{refused}");
    let scales = narrowed("operator", json!(["queues:read"])).await;
    people.get(&scales, "/v1/queues/metrics").await.expect(200);
    people.ask(&scales, Method::PATCH, "/v1/queues/q", Some(&json!({"paused": true}))).await.problem(403);
    let looks = narrowed("admin", json!(["*:read"])).await;
    people.get(&looks, "/v1/keys").await.expect(200);
    people.ask(&looks, Method::POST, "/v1/keys", Some(&json!({"name": "x"}))).await.problem(403);
    // A scope is no way past the role.
    let vain = narrowed("user", json!(["queues:read"])).await;
    people.get(&vain, "/v1/queues").await.problem(403);
}
