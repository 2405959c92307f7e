//! What operators set on the dashboard's pages: schedules, targets, tenants with their keys, budgets, maintenance. What is wrong is
//! said beside its field and kept as it was typed; what cannot be undone is counted, and its name must be typed.

use reqwest::StatusCode;
use serde_json::json;

use crate::{
    browser::{Browser, Page},
    installation::{Installation, KEY},
};

/// A job whose numbers and order of members nobody may change.
const TEMPLATE: &str = r#"{"queue": "nightly", "kind": "probe", "payload": {"pad": "1.10", "sleep_ms": 1}}"#;

fn assert_done(page: &Page, to: &str) {
    assert_eq!((page.status, page.to.as_str()), (StatusCode::SEE_OTHER, to), "{}", page.text);
}

fn assert_refused(page: &Page, why: &str) {
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", page.text);
    assert!(page.text.contains("class=\"wrong\"") && page.text.contains(why), "{why}: {}", page.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_by_a_page_is_checked_counted_and_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let up = Installation::start(&folder.path().join("data"), &[]).await;
    let browser = Browser::of(&up, KEY);
    schedules(&up, &browser).await;
    targets(&up, &browser).await;
    tenants(&up, &browser).await;
    money_and_maintenance(&up, &browser).await;
}

async fn schedules(up: &Installation, browser: &Browser<'_>) {
    let new = "/dashboard/schedules/new";
    let cron = ("cron", "30 2 * * MON-FRI");
    let zone = ("time_zone", "Europe/Berlin");
    let preview = browser.post(new, new, &[cron, zone, ("template", TEMPLATE), ("do", "preview")]).await;
    assert!(preview.status == StatusCode::OK && preview.text.contains("at 02:30"), "{}", preview.text);
    assert_eq!(preview.text.matches("T02:30:00").count(), 5, "{}", preview.text);
    let wrong = browser.post(new, new, &[("name", "n"), ("cron", "61 * * * *"), ("template", TEMPLATE)]).await;
    assert_refused(&wrong, "61");
    let wrong = browser.post(new, new, &[("name", "n"), cron, ("template", "{\"kind\": \"<b>\"}")]).await;
    assert_refused(&wrong, "/kind");
    assert!(!wrong.text.contains("<b>\""), "{}", wrong.text);
    assert_eq!(up.get("/v1/schedules").await["schedules"], json!([]));

    let made = browser.post(new, new, &[("name", "nightly"), cron, zone, ("template", TEMPLATE)]).await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.text);
    let here = made.to.clone();
    let id = here.rsplit('/').next().unwrap().to_owned();
    let api = format!("/v1/schedules/{id}");
    let page = browser.get(&here).await;
    assert!(page.text.contains("weekdays, Europe/Berlin") && !page.text.contains("1.10"), "{}", page.text);
    let shown = browser.get(&format!("{here}?show=template")).await;
    assert!(shown.text.contains("1.10"), "{}", shown.text);

    let edit = format!("{here}/edit");
    let form = browser.get(&edit).await;
    let tag = form.text.split("name=\"tag\" value=\"").nth(1).unwrap().split("\">").next().unwrap();
    let tag = tag.replace("&#34;", "\"").replace("&quot;", "\"");
    let fields =
        [("name", "nightly"), ("cron", "*/15 * * * *"), ("overlap", "queue"), ("template", TEMPLATE), ("tag", &tag)];
    assert_done(&browser.post(&edit, &edit, &fields).await, &here);
    let held = up.get(&api).await;
    assert_eq!((&held["cron"], &held["overlap"]), (&json!("*/15 * * * *"), &json!("queue")));
    assert_eq!((&held["time_zone"], &held["missed"]), (&json!("UTC"), &json!("latest")), "an empty zone is UTC");
    let stale = browser.post(&edit, &edit, &fields).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED, "somebody has changed it since: {}", stale.text);

    let backfill = format!("{here}/backfill");
    assert_refused(&browser.post(&here, &backfill, &[("from", "soon"), ("do", "count")]).await, "soon");
    let counted = browser.post(&here, &backfill, &[("from", "1h"), ("do", "count")]).await;
    // Five where the hour begins with a tick.
    let is_counted =
        ["4", "5"].iter().any(|count| counted.text.contains(&format!("<b>{count} jobs</b> would be submitted")));
    assert!(is_counted, "{}", counted.text);
    assert!(up.get(&api).await.get("backfill").is_none(), "only counted");
    assert_done(&browser.post(&here, &backfill, &[("from", "1h"), ("do", "start")]).await, &here);
    up.until("the backfill has ended", async |up| up.get(&api).await["backfill"]["state"] == "ended").await;

    assert_refused(&browser.post(&here, &format!("{here}/pause"), &[]).await, "is required");
    assert_done(&browser.post(&here, &format!("{here}/pause"), &[("reason", "<i>why</i>")]).await, &here);
    assert_eq!(up.get(&api).await["reason"], "<i>why</i>");
    assert_done(&browser.post(&here, &format!("{here}/resume"), &[]).await, &here);
    assert_refused(&browser.post(&here, &format!("{here}/delete"), &[("confirm", "Nightly")]).await, "type");
    let gone = browser.post(&here, &format!("{here}/delete"), &[("confirm", "nightly")]).await;
    assert_done(&gone, "/dashboard/schedules");
    assert_eq!(up.get("/v1/schedules").await["schedules"], json!([]));
}

async fn targets(up: &Installation, browser: &Browser<'_>) {
    let known = up.get("/v1/targets").await;
    let name = known["targets"][0]["target"].as_str().expect("the simulated provider has a target").to_owned();
    let (here, api) = (format!("/dashboard/targets/{name}"), format!("/v1/targets/{name}"));
    let pause = format!("{here}/pause");
    assert_refused(&browser.post(&here, &pause, &[("until", "later"), ("reason", "r")]).await, "later");
    assert_done(&browser.post(&here, &pause, &[("until", "2h"), ("reason", "they asked us to")]).await, &here);
    let held = up.get(&api).await;
    assert!(held["paused"] == true && held["until"].is_string(), "{held}");
    let page = browser.get("/dashboard/targets").await;
    assert!(page.text.contains("they asked us to"), "{}", page.text);
    assert_done(&browser.post(&here, &format!("{here}/resume"), &[]).await, &here);
    assert_done(&browser.post(&here, &format!("{here}/breaker"), &[("mode", "open")]).await, &here);
    assert_eq!(up.get(&api).await["breaker"]["mode"], "open");
    assert_done(&browser.post(&here, &format!("{here}/breaker"), &[("mode", "auto")]).await, &here);
    let limits = format!("{here}/limits");
    assert_refused(&browser.post(&here, &limits, &[("requests_per_minute", "many")]).await, "whole number");
    assert_done(&browser.post(&here, &limits, &[("requests_per_minute", "1,200"), ("concurrency", "8")]).await, &here);
    assert_eq!(up.get(&api).await["limit"]["requests_per_minute"], 1_200);
    let page = browser.get(&here).await;
    assert!(
        page.text.contains("100 of 100 may go now") && page.text.contains("1,200 a minute flow in"),
        "{}",
        page.text
    );
}

async fn tenants(up: &Installation, browser: &Browser<'_>) {
    let here = "/dashboard/tenants/acme";
    let settings = "/dashboard/tenants/acme/settings";
    let pause = [("reason", "unpaid"), ("until", "")];
    assert_done(&browser.post(here, "/dashboard/tenants/acme/pause", &pause).await, here);
    let tag = ("tag", "\"1\"");
    let wrong = browser.post(here, settings, &[("weight", "0"), ("aliases", "fast gpt"), tag]).await;
    assert_refused(&wrong, "fast gpt");
    let fields = [("weight", "3"), ("kinds", "llm"), ("kinds", "probe"), ("models", "gpt-*\nsim-*"), tag];
    assert_done(&browser.post(here, settings, &fields).await, here);
    let held = up.get("/v1/tenants/acme").await;
    assert_eq!((&held["weight"], &held["kinds"]), (&json!(3), &json!(["llm", "probe"])));
    assert_eq!((&held["paused"], &held["reason"]), (&json!(true), &json!("unpaid")), "no field of that form");
    let stale = browser.post(here, settings, &fields).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED, "{}", stale.text);
    assert_done(&browser.post(here, "/dashboard/tenants/acme/resume", &[]).await, here);

    let keys = "/dashboard/tenants/acme/keys";
    assert_refused(&browser.post(here, keys, &[("role", "analyst")]).await, "is required");
    let made = browser.post(here, keys, &[("name", "<u>ci</u>"), ("role", "analyst"), ("expires_at", "90d")]).await;
    assert!(made.status == StatusCode::OK && !made.text.contains("<u>"), "{}", made.text);
    let secret = made.text.split("class=\"secret\">").nth(1).unwrap().split('<').next().unwrap().to_owned();
    assert!(!made.text.contains("data-live-source"), "it is asked for once");
    let id = secret.split('_').nth(1).unwrap();
    let key = format!("{keys}/{id}");
    let page = browser.get(&key).await;
    assert!(page.status == StatusCode::OK && !page.text.contains(&secret), "shown once");
    whoever_is_bound(&Browser::of(up, &secret)).await;

    let rotated = browser.post(&key, &format!("{key}/rotate"), &[("overlap", "0s")]).await;
    assert!(rotated.text.contains("class=\"secret\"") && !rotated.text.contains(&secret), "{}", rotated.text);
    assert_refused(&browser.post(&key, &format!("{key}/revoke"), &[("confirm", "acme")]).await, "type");
    assert_done(&browser.post(&key, &format!("{key}/revoke"), &[("confirm", id)]).await, &key);
    assert_eq!(up.get(&format!("/v1/keys/{id}")).await["state"], "revoked");

    let erase = "/dashboard/tenants/acme/erase";
    let counted = browser.post(here, erase, &[("do", "count")]).await;
    assert!(counted.text.contains("id=\"erase-count\""), "{}", counted.text);
    assert_refused(&browser.post(here, erase, &[("do", "erase"), ("confirm", "ACME")]).await, "type");
    assert_eq!(up.get("/v1/erasures").await["erasures"], json!([]));
    assert_done(&browser.post(here, erase, &[("do", "erase"), ("confirm", "acme")]).await, "/dashboard/tenants");
    assert_eq!(up.get("/v1/erasures").await["erasures"][0]["tenant"], "acme");
}

/// Who belongs to a tenant is led to it, and sees nothing that it may not do.
async fn whoever_is_bound(analyst: &Browser<'_>) {
    let list = analyst.get("/dashboard/tenants").await;
    assert_eq!((list.status, list.to.as_str()), (StatusCode::SEE_OTHER, "/dashboard/tenants/acme"));
    let page = analyst.get("/dashboard/tenants/acme").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    for hidden in ["form-settings", "form-erase", "keys-table", "do-pause", "do-budget", "do-signing"] {
        assert!(!page.text.contains(hidden), "{hidden}");
    }
    for (address, status) in [
        ("/dashboard/tenants/other", StatusCode::NOT_FOUND),
        ("/dashboard/costs", StatusCode::OK),
        ("/dashboard/schedules", StatusCode::OK),
        ("/dashboard/targets", StatusCode::FORBIDDEN),
        ("/dashboard/audit", StatusCode::FORBIDDEN),
        ("/dashboard/webhooks", StatusCode::FORBIDDEN),
    ] {
        assert_eq!(analyst.get(address).await.status, status, "{address}");
    }
    let forged = analyst.post("/dashboard/tenants/acme", "/dashboard/tenants/acme/erase", &[("do", "count")]).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
}

async fn money_and_maintenance(up: &Installation, browser: &Browser<'_>) {
    let costs = "/dashboard/costs";
    let set = "/dashboard/costs/budget";
    let wrong = browser.post(costs, set, &[("day_usd", "9"), ("month_usd", "3"), ("tag", "*")]).await;
    assert_refused(&wrong, "cannot spend more than its month");
    assert_done(&browser.post(costs, set, &[("day_usd", "2.50"), ("at_limit", "park"), ("tag", "*")]).await, costs);
    let page = browser.get(costs).await;
    assert!(page.text.contains("0 %, in budget") && page.text.contains("$2.50"), "{}", page.text);
    let wrong = browser.get("/dashboard/costs?since=someday").await;
    assert!(wrong.status == StatusCode::UNPROCESSABLE_ENTITY && wrong.text.contains("someday"), "{}", wrong.text);

    let backups = "/dashboard/backups";
    let maintain = "/dashboard/backups/maintenance";
    assert_refused(&browser.post(backups, maintain, &[("do", "begin")]).await, "is required");
    assert_done(&browser.post(backups, maintain, &[("do", "begin"), ("reason", "a move")]).await, backups);
    assert_eq!(up.get("/v1/maintenance").await["reason"], "a move");
    assert_done(&browser.post(backups, maintain, &[("do", "end")]).await, backups);
    assert_eq!(up.get("/v1/maintenance").await["on"], false);
    let due = browser.post("/dashboard/backups/upkeep", "/dashboard/backups/upkeep/run", &[("do", "count")]).await;
    assert!(due.status == StatusCode::OK && due.text.contains("would be done now"), "{}", due.text);
    let audit = browser.get("/dashboard/audit?action=PUT+%2Fv1%2Fmaintenance").await;
    assert!(audit.text.matches("<tr id=\"row-").count() == 2 && audit.text.contains("a move"), "{}", audit.text);
}
