//! Jobs, dead letters and operations as somebody does them on the dashboard's pages: what is asked, counted, confirmed and done.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    browser::{Browser, form},
    installation::{Installation, KEY},
};

/// Markup that somebody wrote into a job.
const HOSTILE: &str = "\"><script>alert(1)</script>";

async fn dead_letters(up: &Installation, count: usize) {
    let job =
        json!({"kind": "probe", "queue": "bulk", "payload": {"fail": "permanent", "pad": HOSTILE}, "tags": [HOSTILE]});
    up.post("/v1/jobs/bulk", &json!(vec![job; count])).await;
    up.until("all are dead", async |up| dead(up).await == count as u64).await;
}

async fn dead(up: &Installation) -> u64 {
    up.get("/v1/queues/metrics").await["queues"]["bulk"]["failed"].as_u64().unwrap_or(0)
}

async fn redriven(up: &Installation) -> usize {
    up.get("/v1/jobs?limit=500&filter=redrives%20%3D%201").await["jobs"].as_array().unwrap().len()
}

/// Counts, and returns the address of the page that asks whether to do it.
async fn counted(browser: &Browser<'_>, fields: &[(&str, &str)]) -> String {
    let begun = browser.post("/dashboard/jobs", "/dashboard/jobs/bulk", fields).await;
    assert_eq!(begun.status, StatusCode::SEE_OTHER, "{}", begun.text);
    begun.to
}

fn path_of(address: &str) -> &str {
    address.split('?').next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_many_jobs_is_counted_and_confirmed_first() {
    let folder = tempfile::tempdir().unwrap();
    let up = Installation::start(&folder.path().join("data"), &[]).await;
    dead_letters(&up, 30).await;
    let browser = Browser::of(&up, KEY);

    let list = browser.get("/dashboard/jobs?queue=bulk&state=dead&limit=10").await;
    assert_eq!((list.status, list.text.matches("<tr data-key").count()), (StatusCode::OK, 10));
    assert!(
        !list.text.contains("<script>") && list.text.contains("Dead <span class=\"num\">30</span>"),
        "{}",
        list.text
    );
    let next = browser.get(&href_of(&list.text, "rel=\"next\"")).await;
    assert!(next.text.contains("rel=\"prev\"") && next.text.matches("<tr data-key").count() == 10, "{}", next.text);
    let wrong = browser.get("/dashboard/jobs?filter=colour+%3D+red").await;
    assert!(
        wrong.status == StatusCode::UNPROCESSABLE_ENTITY && wrong.text.contains("is not a field"),
        "{}",
        wrong.text
    );

    let all = [("scope", "all"), ("action", "redrive"), ("asked", "?queue=bulk&state=dead&limit=10")];
    let confirm = counted(&browser, &all).await;
    let page = browser.get(&confirm).await;
    assert!(
        page.text.contains("id=\"op-would-touch\">30<") && page.text.contains("id=\"op-confirm\""),
        "{}",
        page.text
    );
    let start = format!("{}/start", path_of(&confirm));
    for wrong in [&[("reason", "why")][..], &[("reason", "why"), ("confirm", "29")], &[("confirm", "30")]] {
        let refused = browser.post(&confirm, &start, wrong).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong:?}");
        assert!(refused.text.contains("class=\"wrong\""), "{wrong:?}: {}", refused.text);
    }
    assert_eq!((dead(&up).await, redriven(&up).await), (30, 0), "nothing was confirmed");
    let rightly = [("reason", "the cause is gone"), ("confirm", "30"), ("rate_per_s", "500"), ("max_jobs", "12")];
    let forged = form(browser.request(Method::POST, &start), &rightly);
    assert_eq!(browser.sent(forged).await.status, StatusCode::FORBIDDEN, "no page of ours has sent it");
    assert_eq!(redriven(&up).await, 0);

    let begun = browser.post(&confirm, &start, &rightly).await;
    assert_eq!(begun.status, StatusCode::SEE_OTHER, "{}", begun.text);
    let id = path_of(&begun.to).rsplit('/').next().unwrap().to_owned();
    up.until("it has ended", async |up| up.get(&format!("/v1/operations/{id}")).await["state"] == "done").await;
    let operation = up.get(&format!("/v1/operations/{id}")).await;
    assert_eq!((&operation["done"], &operation["reason"]), (&json!(12), &json!("the cause is gone")));
    let shown = browser.get(&begun.to).await;
    assert!(shown.text.contains("id=\"op-done\">12<") && !shown.text.contains("op-abort-form"), "{}", shown.text);
    up.until("they have died again", async |up| dead(up).await == 30).await;

    few_are_tried(&browser).await;
    one_job(&browser).await;
}

/// The first address of a link with this attribute.
fn href_of(text: &str, attribute: &str) -> String {
    let (before, _) = text.split_once(attribute).expect("there is such a link");
    let href = before.rsplit_once("href=\"").unwrap().1;
    href.split('"').next().unwrap().replace("&#38;", "&").replace("&amp;", "&")
}

/// A few letters of a cause first; the list shows what becomes of just these.
async fn few_are_tried(browser: &Browser<'_>) {
    let groups = browser.get("/dashboard/dead-letters").await;
    let group = href_of(&groups.text, "\">permanent:");
    let tried = browser.post(&group, &format!("{}/canary", path_of(&group)), &[("canary", "3")]).await;
    assert_eq!(tried.status, StatusCode::SEE_OTHER, "{}", tried.text);
    let list = browser.get(&tried.to).await;
    assert_eq!(list.text.matches("<tr data-key").count(), 3, "{}", list.text);
    let too_many = browser.post(&group, &format!("{}/canary", path_of(&group)), &[("canary", "300")]).await;
    assert_eq!(too_many.status, StatusCode::UNPROCESSABLE_ENTITY);
}

/// A job's page hides what the job carries until somebody asks, shows it as text, and ends it for a reason.
async fn one_job(browser: &Browser<'_>) {
    let up = browser.up;
    let id = up.probe(json!({"pad": HOSTILE, "sleep_ms": 600_000})).await;
    let api = format!("/v1/jobs/{id}");
    up.until("it runs", async |up| up.get(&api).await["state"] == "running").await;
    let address = format!("/dashboard/jobs/{id}");
    let page = browser.get(&address).await;
    assert!(page.status == StatusCode::OK && !page.text.contains("alert(1)"), "it is hidden: {}", page.text);
    let shown = browser.get(&format!("{address}?show=payload")).await;
    assert!(shown.text.contains("alert(1)") && !shown.text.contains("<script>"), "{}", shown.text);
    assert!(shown.text.contains("longshore job submit"), "{}", shown.text);
    let cancel = format!("{address}/cancel");
    let refused = browser.post(&address, &cancel, &[("reason", " ")]).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(up.get(&api).await["state"], "running");
    let cancelled = browser.post(&address, &cancel, &[("reason", "by <b>mistake</b>")]).await;
    assert_eq!((cancelled.status, cancelled.to), (StatusCode::SEE_OTHER, address.clone()));
    assert_eq!(up.get(&api).await["cancel_reason"], "by <b>mistake</b>");
    let again = browser.post("/dashboard/jobs", &cancel, &[("reason", "again")]).await;
    assert!(again.status == StatusCode::CONFLICT && again.text.contains("has ended"), "{}", again.text);
}
