//! Schedules over HTTP, and their ticks through the clerk that submits for them.

use std::sync::Arc;

use api::{Api, Clerk};
use queue_core::{
    budget::{Budget, Scope},
    ids::ScheduleId,
    job::Job,
    journal::{Maintenance, QueueSettings, TenantSettings},
    ledger::Nanousd,
    request_limits::Rates,
    schedule::{Progress, Refusal, Run, Schedule, Submits, Submitted, jobs_of},
    time::{ManualClock, Timestamp},
};
use reqwest::{Method, header::IF_MATCH};
use serde_json::{Value, json};

use crate::server::{Server, people::People};

fn nightly() -> Value {
    json!({"name": "nightly", "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "tenant": "acme",
           "template": {"kind": "probe", "queue": "night", "payload": {"sleep_ms": 0}, "tags": ["mine"]}})
}

/// A server, and what it works with.
async fn open() -> (Server, Api) {
    let mut parts = None;
    let server = Server::start_with(|api| parts = Some(api.clone())).await;
    (server, parts.unwrap())
}

async fn made(server: &Server, change: Value) -> ScheduleId {
    let mut new = nightly();
    new.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let made = server.post("/v1/schedules", &new).await.expect(201);
    made["id"].as_str().unwrap().parse().unwrap()
}

async fn row(server: &Server, id: ScheduleId) -> Schedule {
    server.stores.schedules.schedule(id).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_schedule_is_made_changed_paused_and_deleted() {
    let clock = Arc::new(ManualClock::at("2026-03-28T12:00:00Z".parse().unwrap()));
    let server = Server::start_at(clock.clone(), |_| {}).await;
    let made = server.post("/v1/schedules", &nightly()).await;
    let view = made.expect(201);
    let path = format!("/v1/schedules/{}", view["id"].as_str().unwrap());
    assert_eq!((made.header("location"), made.header("etag")), (path.as_str(), "\"1\""));
    // Clocks go forward from 2:00 to 3:00 that night.
    let next = ["2026-03-29T01:00:00.000Z", "2026-03-30T00:30:00.000Z", "2026-03-31T00:30:00.000Z"];
    assert_eq!(view["next_runs"].as_array().unwrap()[..3], next.map(|at| json!(at)));
    assert_eq!(view["next_runs"].as_array().unwrap().len(), 5);
    for (name, value) in [("state", "active"), ("overlap", "skip"), ("missed", "latest"), ("missed_window", "1h")] {
        assert_eq!(view[name], value, "{name}");
    }
    assert_eq!(view["template"]["queue"], "night");
    let id: ScheduleId = view["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(row(&server, id).await.due_at, Some(next[0].parse().unwrap()));
    let taken = server.post("/v1/schedules", &nightly()).await.problem(409);
    assert_eq!(
        (&taken["errors"][0]["pointer"], &taken["type"]),
        (&json!("/name"), &json!("urn:longshore:problem:name-taken"))
    );

    let paused = server.patch(&path, &json!({"paused": true, "reason": "holidays"})).await.expect(200);
    assert_eq!(
        (&paused["state"], &paused["reason"], &paused["next_runs"]),
        (&json!("paused"), &json!("holidays"), &json!([]))
    );
    assert_eq!(row(&server, id).await.due_at, None);
    clock.advance_ms(3 * 24 * 3_600_000);
    let resumed = server.patch(&path, &json!({"paused": false})).await.expect(200);
    assert_eq!(resumed["next_runs"][0], "2026-04-01T00:30:00.000Z");
    assert!(resumed.get("reason").is_none());
    let kept = row(&server, id).await;
    assert_eq!(
        (kept.generation, kept.progress.cursor),
        (1, server.stores.clock.now()),
        "what came meanwhile is let go"
    );

    // Another time is another generation, and begins now; another template is neither.
    let asked = server.request(Method::PATCH, &path).header(IF_MATCH, "\"1\"").json(&json!({"every": "15m"}));
    server.send(asked).await.problem(412);
    server.patch(&path, &json!({"every": "15m", "overlap": "queue", "description": "d"})).await.expect(200);
    let other = row(&server, id).await;
    assert_eq!((other.generation, other.due_at), (2, Some(server.stores.clock.now().plus_ms(900_000))));
    let change = json!({"template": {"kind": "probe", "payload": {}}, "description": null, "name": "often"});
    let changed = server.patch(&path, &change).await.expect(200);
    assert_eq!((&changed["name"], &changed["every"], changed.get("cron")), (&json!("often"), &json!("15m"), None));
    let kept = row(&server, id).await;
    assert_eq!((kept.generation, kept.settings.description), (2, None));

    let page = server.get("/v1/schedules?name=often").await.expect(200);
    assert_eq!((page["schedules"].as_array().unwrap().len(), page["schedules"][0].get("template")), (1, None));
    assert_eq!(server.get("/v1/schedules?tenant=globex").await.expect(200)["schedules"], json!([]));
    assert_eq!(server.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    server.get(&path).await.problem(404);
}

/// The pointers that a body is refused at.
async fn pointers(server: &Server, change: Value) -> Vec<String> {
    let mut new = nightly();
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => _ = new.as_object_mut().unwrap().remove(name),
            value => new[name] = value.clone(),
        }
    }
    let problem = server.post("/v1/schedules", &new).await.problem(422);
    let errors = problem["errors"].as_array().unwrap();
    errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn wrong_input_is_told_at_its_field() {
    let (server, _) = open().await;
    let template = |more: Value| {
        let mut template = json!({"kind": "probe", "payload": {}});
        template.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "template": template })
    };
    for (change, pointer) in [
        (json!({"name": null}), "/name"),
        (json!({"name": "with space"}), "/name"),
        (json!({"template": null}), "/template"),
        (json!({"cron": null}), "/cron"),
        (json!({"cron": "61 * * * *"}), "/cron"),
        (json!({"cron": "0 0 30 2 *"}), "/cron"),
        (json!({"cron": "*/5 , * * *"}), "/cron"),
        (json!({"cron": 5}), "/cron"),
        (json!({"time_zone": "Europe/Atlantis"}), "/time_zone"),
        (json!({"every": "15m"}), "/every"),
        (json!({"cron": null, "time_zone": null, "every": "0.5s"}), "/every"),
        (json!({"cron": null, "time_zone": null, "every": "500ms"}), "/every"),
        (json!({"cron": null, "time_zone": null, "every": "500d"}), "/every"),
        (json!({"cron": null, "every": "15m"}), "/time_zone"),
        (json!({"cron": null, "time_zone": null, "at": "2020-01-01T00:00:00Z"}), "/at"),
        (json!({"cron": null, "time_zone": null, "at": "soon"}), "/at"),
        (json!({"starting_at": "2026-01-01T00:00:00Z"}), "/starting_at"),
        (json!({"overlap": "maybe"}), "/overlap"),
        (json!({"missed": "some"}), "/missed"),
        (json!({"missed_window": "2h"}), "/missed_window"),
        (json!({"missed": "all", "missed_window": "8d"}), "/missed_window"),
        (json!({"reason": "not paused"}), "/reason"),
        (json!({"unknown": 1}), "/unknown"),
        (json!({"template": []}), "/template"),
        (template(json!({"kind": "nothing"})), "/template/kind"),
        (template(json!({"payload": {"sleep_ms": "x"}})), "/template/payload/sleep_ms"),
        (template(json!({"run_at": "2030-01-01T00:00:00Z"})), "/template/run_at"),
        (template(json!({"deadline": "2030-01-01T00:00:00Z"})), "/template/deadline"),
        (template(json!({"batch_id": "b"})), "/template/batch_id"),
        (template(json!({"tenant": "acme"})), "/template/tenant"),
        (template(json!({"priority": 10})), "/template/priority"),
    ] {
        assert_eq!(pointers(&server, change.clone()).await, [pointer], "{change}");
    }
    // Nobody else's jobs are a schedule's.
    let forged = json!({"kind": "probe", "payload": {}, "batch_id": jobs_of(ScheduleId::generate())});
    assert_eq!(server.post("/v1/jobs", &forged).await.problem(422)["errors"][0]["pointer"], "/batch_id");
    let id = made(&server, json!({})).await;
    for (change, pointer) in [
        (json!({"tenant": "globex"}), "/tenant"),
        (json!({"cron": null}), "/cron"),
        (json!({"every": "1ms"}), "/every"),
        (json!({"starting_at": "2026-01-01T00:00:00Z"}), "/starting_at"),
        (json!({"overlap": null}), "/overlap"),
        (json!({"template": {"kind": "probe"}}), "/template/payload"),
    ] {
        let problem = server.patch(&format!("/v1/schedules/{id}"), &change).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{change}");
    }
    assert_eq!(row(&server, id).await.version, 1);
    for query in
        ["", "?cron=*%20*&every=1m", "?every=1ms", "?cron=0%200%20*%20*%20*&time_zone=Mars", "?every=1m&count=101"]
    {
        server.get(&format!("/v1/schedules/preview{query}")).await.problem(422);
    }
}

#[tokio::test]
async fn a_preview_shows_the_clock_on_the_wall() {
    let (server, _) = open().await;
    let path = "/v1/schedules/preview?cron=15%202%20*%20*%20*&time_zone=Australia/Lord_Howe&after=2026-10-02T12:00:00Z&count=3";
    let preview = server.get(path).await.expect(200);
    assert_eq!(preview["words"], "at 02:15 every day, Australia/Lord_Howe");
    let runs = preview["runs"].clone();
    let shown: Vec<_> = runs.as_array().unwrap().iter().map(|run| run["local"].as_str().unwrap()).collect();
    assert_eq!(shown, ["2026-10-03T02:15:00+10:30", "2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"]);
    assert_eq!(runs[1]["at"], "2026-10-03T15:30:00.000Z");
}

/// Submits a tick as a scheduler does; a new clerk has heard of everything.
async fn tick(api: &Api, schedule: &Schedule, tick: Timestamp, now: Timestamp) -> Submitted {
    Clerk::new(api.clone()).submit(Run { schedule, tick, backfill: None, now }).await
}

async fn job_of(server: &Server, submitted: Submitted) -> Job {
    let Submitted::Job(id) = submitted else { panic!("{submitted:?}") };
    server.stores.reads.jobs(&[id]).await.unwrap().remove(0).unwrap()
}

#[tokio::test]
async fn a_tick_is_one_job_of_its_schedule_whatever_is_changed_meanwhile() {
    let (server, api) = open().await;
    let id = made(&server, json!({"overlap": "queue"})).await;
    let schedule = row(&server, id).await;
    // The clock of this process is wrong by far: nothing of the job says so.
    let now: Timestamp = "2031-01-01T02:30:00.250Z".parse().unwrap();
    let at = now.plus_ms(-250);
    let job = job_of(&server, tick(&api, &schedule, at, now).await).await;
    assert_eq!((job.tenant.as_str(), job.queue.as_str()), ("acme", "night"));
    assert_eq!((job.accepted_at, job.run_at, job.id.to_string().get(..13)), (now, now, Some("01c03300-353a")));
    assert_eq!(job.tags, ["mine", "tick:2031-01-01T02:30:00.000Z"]);
    assert_eq!(job.batch_id, Some(jobs_of(id)));
    assert_eq!(job.concurrency_key.unwrap().as_str(), jobs_of(id), "its runs stand in one line");
    assert_eq!(job.key_id, Some(schedule.key_id.clone()));
    // Again, by another scheduler, after the template became one that is refused.
    let changed = Schedule { template: "{\"kind\": \"nothing\"}".into(), version: 9, ..schedule.clone() };
    assert_eq!(tick(&api, &changed, at, now.plus_ms(5_000)).await, Submitted::Job(job.id));
    let Submitted::Refused(Refusal { code, detail }) = tick(&api, &changed, at.plus_ms(1_000), now).await else {
        panic!()
    };
    assert!(code == "invalid-fields" && detail.contains("/kind"), "{code} {detail}");
    let list = server.get(&format!("/v1/jobs?schedule={id}")).await.expect(200);
    assert_eq!(list["jobs"].as_array().unwrap().len(), 1);
    server.get(&format!("/v1/jobs?schedule={id}&batch_id=b")).await.problem(422);
    let beside = made(&server, json!({"name": "beside", "overlap": "allow"})).await;
    let job = job_of(&server, tick(&api, &row(&server, beside).await, at, now).await).await;
    assert_eq!(job.concurrency_key, None);
    assert_eq!(server.get(&format!("/v1/batches/{}", jobs_of(id))).await.expect(200)["total"], 1);

    job_of(&server, tick(&api, &schedule, at.plus_ms(60_000), now.plus_ms(60_000)).await).await;
    let shown = server.get(&format!("/v1/schedules/{id}?runs=20")).await.expect(200);
    assert_eq!(shown["words"], "at 02:30 every day, Europe/Berlin");
    let runs = shown["last_runs"].as_array().unwrap();
    let ticks: Vec<_> = runs.iter().map(|run| (run["tick"].clone(), run["state"].clone())).collect();
    assert_eq!(ticks, [at, at.plus_ms(60_000)].map(|tick| (json!(tick), json!("live"))), "the newest last");
    let whole = server.get(&format!("/v1/schedules/{id}")).await.expect(200);
    assert!(whole.get("last_runs").is_none() && whole["template"].is_object());
    assert!(server.get(&format!("/v1/schedules/{id}?template=false")).await.expect(200).get("template").is_none());
    let list = server.get("/v1/schedules?runs=1").await.expect(200);
    let counts = list["schedules"].as_array().unwrap().iter().map(|one| one["last_runs"].as_array().unwrap().len());
    assert_eq!(counts.collect::<Vec<_>>(), [1, 1]);
    server.get("/v1/schedules?runs=21").await.problem(422);
}

/// What a tick is answered with: the name of the problem, and whether it is tried again.
async fn refused(api: &Api, schedule: &Schedule, second: i64) -> (String, bool) {
    let now = api.stores.clock.now();
    match tick(api, schedule, Timestamp(second * 1_000), now).await {
        Submitted::Job(job) => panic!("{job}"),
        Submitted::Refused(refusal) => (refusal.code, false),
        Submitted::Later(refusal, after_ms) => {
            assert!(after_ms >= 1_000, "{refusal:?}");
            (refusal.code, true)
        }
    }
}

#[tokio::test]
async fn a_tick_is_refused_as_a_submit_is() {
    let (server, mut api) = open().await;
    let id = made(&server, json!({})).await;
    let schedule = row(&server, id).await;
    let (stores, acme) = (server.stores.clone(), "acme".into());
    let is = |code: &str, again: bool| (code.to_owned(), again);

    let draining = |draining| QueueSettings { draining, ..QueueSettings::default() };
    stores.catalog.set_queue(&"night".into(), draining(true)).await.unwrap();
    assert_eq!(refused(&api, &schedule, 1).await, is("queue-draining", true));
    stores.catalog.set_queue(&"night".into(), draining(false)).await.unwrap();

    let maintenance = Maintenance { reason: None, since: stores.clock.now() };
    stores.orders.set_maintenance(Some(maintenance)).await.unwrap();
    assert_eq!(refused(&api, &schedule, 1).await, is("maintenance", true));
    stores.orders.set_maintenance(None).await.unwrap();

    let backlog = |max| TenantSettings { backlog_max: max, ..TenantSettings::default() };
    stores.catalog.set_tenant(&acme, backlog(Some(0))).await.unwrap();
    assert_eq!(refused(&api, &schedule, 1).await, is("backlog-full", true));
    let slow = TenantSettings { rates: Rates { requests_per_minute: Some(1), ..Rates::default() }, ..backlog(None) };
    stores.catalog.set_tenant(&acme, slow).await.unwrap();
    assert!(matches!(tick(&api, &schedule, Timestamp(1_000), stores.clock.now()).await, Submitted::Job(_)));
    assert_eq!(refused(&api, &schedule, 2).await, is("rate-limited", true));
    assert!(
        matches!(tick(&api, &schedule, Timestamp(1_000), stores.clock.now()).await, Submitted::Job(_)),
        "what was accepted is found without being counted again"
    );
    stores.catalog.set_tenant(&acme, backlog(None)).await.unwrap();

    let chat = json!({"kind": "llm", "payload": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}],
                      "max_tokens": 1_000}});
    let dear = made(&server, json!({"name": "dear", "template": chat})).await;
    let tiny = Budget { month_usd: Some(Nanousd(1)), ..Budget::default() };
    stores.budgets.set_budget(&Scope::Tenant(acme), tiny).await.unwrap();
    api.budgets = Arc::new(queue_core::budget::Known::new(stores.budgets.clone(), Budget::default()));
    assert_eq!(refused(&api, &row(&server, dear).await, 1).await, is("too-dear", false));
    let too_dear = json!({"name": "also dear", "tenant": "acme", "every": "1h", "template": chat});
    assert!(server.post("/v1/schedules", &too_dear).await.status.is_client_error());

    let unique = json!({"kind": "probe", "payload": {}, "unique_key": "one"});
    let unique = row(&server, made(&server, json!({"name": "unique", "template": unique})).await).await;
    assert!(matches!(tick(&api, &unique, Timestamp(1_000), stores.clock.now()).await, Submitted::Job(_)));
    assert_eq!(refused(&api, &unique, 2).await, is("unique-key-held", false));
}

#[tokio::test]
async fn a_backfill_is_ordered_once_and_bounded() {
    let (server, _) = open().await;
    let id = made(&server, json!({"cron": "* * * * * *", "paused": true, "reason": "first the past"})).await;
    let path = format!("/v1/schedules/{id}/backfill");
    for (body, pointer) in [
        (json!({}), "/from"),
        (json!({"from": "soon"}), "/from"),
        (json!({"from": "2099-01-01T00:00:00Z"}), "/from"),
        (json!({"from": "7d"}), "/from"),
        (json!({"from": "1h", "to": "2h"}), "/from"),
    ] {
        let problem = server.post(&path, &body).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    let to = server.stores.clock.now();
    let asked = json!({"from": to.plus_ms(-59_999), "to": to, "dry_run": true});
    let plan = server.post(&path, &asked).await.expect(200);
    assert_eq!((&plan["dry_run"], &plan["ticks"]), (&json!(true), &json!(60)));
    let at = |name: &str| plan[name].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert_eq!(at("last").since_ms(at("first")), 59_000);
    assert_eq!(row(&server, id).await.progress.backfill, None, "nothing was ordered");
    let begun = server.post(&path, &json!({"from": to.plus_ms(-59_999), "to": to})).await.expect(202);
    assert_eq!((&begun["backfill"]["ticks"], &begun["backfill"]["state"]), (&json!(60), &json!("running")));
    assert!(row(&server, id).await.due_at.is_some_and(|due| due <= server.stores.clock.now()), "a scheduler looks now");
    let other = server.post(&path, &json!({"from": "1m"})).await.problem(409);
    assert_eq!(other["type"], "urn:longshore:problem:backfill-running");
    let ended = server.send(server.request(Method::DELETE, &path)).await.expect(200);
    assert_eq!((&ended["backfill"]["state"], &ended["state"]), (&json!("ended"), &json!("paused")));
    assert_eq!(row(&server, id).await.due_at, None);
    server.send(server.request(Method::DELETE, &path)).await.problem(404);
    server.post(&path, &json!({"from": "1m"})).await.expect(202);
    assert_eq!(row(&server, id).await.progress.backfill.unwrap().number, 2, "its ticks are others");
}

/// A schedule that works while it is changed keeps what it did.
#[tokio::test]
async fn a_change_beside_a_tick_loses_neither() {
    let (server, _) = open().await;
    let id = made(&server, json!({"cron": "* * * * * *"})).await;
    let scheduler = {
        let schedules = server.stores.schedules.clone();
        tokio::spawn(async move {
            for _ in 0..200 {
                let seen = schedules.schedule(id).await.unwrap().unwrap();
                let cursor = seen.progress.cursor.plus_ms(1_000);
                let mut progress = Progress { cursor, ..seen.progress };
                progress.counts.submitted += 1;
                // Whoever finds another beat looks again.
                schedules.advance_schedule(id, seen.beat, progress, None).await.unwrap();
            }
        })
    };
    for number in 0..10 {
        let change = json!({"description": format!("number {number}")});
        server.patch(&format!("/v1/schedules/{id}"), &change).await.expect(200);
    }
    scheduler.await.unwrap();
    let kept = row(&server, id).await;
    assert_eq!((kept.version, kept.settings.description.as_deref()), (11, Some("number 9")));
    let submitted = i64::try_from(kept.progress.counts.submitted).unwrap();
    assert_eq!(kept.beat, submitted + 10, "each beat is a tick or a change");
}

#[tokio::test]
async fn a_schedule_is_its_tenants() {
    let people = People::meet().await;
    let mut new = nightly();
    let made = people.ask(&people.analyst, Method::POST, "/v1/schedules", Some(&new)).await.expect(201);
    assert_eq!((&made["tenant"], &made["submits_as"]), (&json!("acme"), &json!(people.analyst.id())));
    let path = format!("/v1/schedules/{}", made["id"].as_str().unwrap());
    let named = people.ask(&people.strange_analyst, Method::POST, "/v1/schedules", Some(&new)).await.problem(403);
    assert_eq!(named["errors"][0]["pointer"], "/tenant");
    people.get(&people.strange_analyst, &path).await.problem(404);
    people.get(&people.user, &path).await.problem(403);
    for list in ["/v1/schedules", "/v1/schedules?tenant=acme", "/v1/schedules?name=nightly"] {
        let seen = people.get(&people.strange_analyst, list).await.expect(200);
        assert_eq!(seen["schedules"], json!([]), "{list}");
        assert_eq!(people.get(&people.operator, list).await.expect(200)["schedules"].as_array().unwrap().len(), 1);
    }
    // The same name is free for another tenant, also by somebody over both.
    new["tenant"] = json!("globex");
    people.ask(&people.operator, Method::POST, "/v1/schedules", Some(&new)).await.expect(201);
    assert_eq!(
        people.get(&people.analyst, "/v1/schedules").await.expect(200)["schedules"].as_array().unwrap().len(),
        1
    );
    // Whoever changes the template submits from then on.
    let change = json!({"template": {"kind": "probe", "payload": {"pad": "secret-of-acme"}}});
    let changed = people.ask(&people.operator, Method::PATCH, &path, Some(&change)).await.expect(200);
    assert_eq!(changed["submits_as"], people.operator.id());
    let log = people.get(&people.admin, "/v1/audit").await;
    assert!(log.text.contains("PATCH /v1/schedules/{id}") && !log.text.contains("secret-of-acme"), "{}", log.text);
}
