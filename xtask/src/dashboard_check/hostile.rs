//! Texts that would do harm in a page that writes them as they are, in every field that users fill. They have to be read as they are, and
//! nothing else may happen.

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::Behaviour;

use super::{Check, Report, browser::PHONE, scene};
use crate::cluster::KEY;

/// What is tried, with `FIELD` for the field's name: whoever runs sets the mark.
const SCRIPT: &str = "<script>window.__owned='FIELD'</script>";
const IMAGE: &str = "\"><img src=x onerror=\"window.__owned='FIELD'\">";
const LINK: &str = "javascript:window.__owned='FIELD'";
const BRACES: &str = "{{constructor.constructor(\"window.__owned='FIELD'\")()}}{% raw %}";
const BACKWARDS: &str = "\u{202e}FIELD dlrow\u{2066}</textarea><b>";
const ATTRIBUTE: &str = "' autofocus onfocus='window.__owned=1' x='FIELD";

/// A field that users fill.
struct Field {
    name: &'static str,
    text: &'static str,
    /// Where it has to be read. Nothing: it is only looked at whether anything happens.
    on: &'static [&'static str],
}

/// Every one of them. Names of queues, tenants, kinds and operations cannot hold such texts: the API refuses them, which is tried, too.
#[rustfmt::skip] // one row a field
const FIELDS: &[Field] = &[
    Field { name: "tag", text: "<img src=x onerror=\"window.__owned='FIELD'\">", on: &["/dashboard/jobs/{hostile}"] },
    Field { name: "batch", text: IMAGE, on: &["/dashboard/jobs/{hostile}"] },
    Field { name: "unique_key", text: BRACES, on: &["/dashboard/jobs/{hostile}"] },
    Field { name: "concurrency_key", text: BACKWARDS, on: &["/dashboard/jobs/{hostile}"] },
    Field { name: "payload", text: SCRIPT, on: &["/dashboard/jobs/{hostile}?show=payload"] },
    Field { name: "answer", text: IMAGE, on: &["/dashboard/jobs/{hostile}?show=result"] },
    Field { name: "error", text: SCRIPT, on: &["/dashboard/jobs/{hostile_dead}", "/dashboard/dead-letters"] },
    Field { name: "cancel_reason", text: ATTRIBUTE, on: &["/dashboard/jobs/{hostile_cancelled}"] },
    Field { name: "queue_reason", text: IMAGE, on: &["/dashboard/queues", "/dashboard/queues/hostile"] },
    Field { name: "target_reason", text: SCRIPT, on: &["/dashboard/targets"] },
    Field { name: "tenant_reason", text: LINK, on: &["/dashboard/tenants/corvid"] },
    Field { name: "operation_reason", text: BRACES, on: &["/dashboard/operations", "/dashboard/operations/{hostile_operation}"] },
    Field { name: "schedule_description", text: IMAGE, on: &["/dashboard/schedules/{hostile_schedule}"] },
    Field { name: "schedule_reason", text: SCRIPT, on: &["/dashboard/schedules/{hostile_schedule}"] },
    Field { name: "key_name", text: IMAGE, on: &["/dashboard/tenants/corvid"] },
    Field { name: "webhook_description", text: ATTRIBUTE, on: &["/dashboard/webhooks"] },
];
/// A name without an end, for everything that may be wide.
const LONG: &str = "a-name-that-does-not-end-anywhere-soon-and-has-no-place-to-break";
/// Pages that show one of the names, looked at on a phone as well.
const WITH_NAMES: &[&str] = &[
    "/dashboard",
    "/dashboard/queues",
    "/dashboard/queues/{long}",
    "/dashboard/jobs?queue={long}",
    "/dashboard/tenants/{long}",
    "/dashboard/audit",
];
/// Parameters of pages that somebody may put into a link.
const LINKS: &[&str] = &[
    "/dashboard/jobs?filter=%3Cscript%3Ewindow.__owned%3D1%3C%2Fscript%3E",
    "/dashboard/jobs?queue=%22%3E%3Cimg%20src%3Dx%20onerror%3Dwindow.__owned%3D1%3E",
    "/dashboard/jobs/%3Cscript%3Ewindow.__owned%3D1%3C%2Fscript%3E",
    "/dashboard/dead-letters/%3Cscript%3Ewindow.__owned%3D1%3C%2Fscript%3E",
    "/dashboard/login?next=javascript%3Awindow.__owned%3D1",
    "/dashboard/costs?since=%22%3E%3Cimg%20src%3Dx%20onerror%3Dwindow.__owned%3D1%3E",
];

impl Check {
    pub(super) async fn hostile(&mut self) -> Result<Report> {
        self.sow().await?;
        self.sign_in(KEY).await?;
        self.browser.complaints().await?;
        let mut wrong = vec![];
        for field in FIELDS {
            for page in field.on {
                let path = self.scene.path(page)?;
                self.open(&path).await?;
                let found = format!("__check.reads({})", json!(text(field.name)?));
                if self.browser.evaluate(&found).await? != true {
                    wrong.push(format!("{} is not to be read on {path}", field.name));
                }
                wrong.extend(self.owned(&format!("{} on {path}", field.name)).await?);
            }
        }
        self.browser.view(PHONE, "dark").await?;
        let on_phone = FIELDS.iter().flat_map(|field| field.on).chain(WITH_NAMES);
        for page in on_phone {
            let path = self.scene.path(page)?;
            self.open(&path).await?;
            wrong.extend(self.wide(PHONE).await?.into_iter().map(|line| format!("{path}: {line}")));
            wrong.extend(self.owned(&path).await?);
        }
        for link in LINKS {
            self.open(link).await?;
            wrong.extend(self.owned(link).await?);
        }
        wrong.sort();
        wrong.dedup();
        Ok(Report {
            seen: format!("{} fields, {} names, {} links", FIELDS.len(), WITH_NAMES.len(), LINKS.len()),
            wrong,
        })
    }

    /// Whether something has run, or the policy had to stop it.
    async fn owned(&self, at: &str) -> Result<Vec<String>> {
        let mut wrong = vec![];
        let mark = self.browser.evaluate("window.__owned ?? null").await?;
        if mark != Value::Null {
            wrong.push(format!("{at}: a script of {mark} has run"));
        }
        let complaints = self.browser.complaints().await?.into_iter();
        // A page that says what is wrong with a link has a status of 4xx, which the browser notes.
        wrong
            .extend(complaints.filter(|line| !line.contains("with a status of 4")).map(|line| format!("{at}: {line}")));
        Ok(wrong)
    }

    /// Puts each text where users can.
    async fn sow(&mut self) -> Result<()> {
        self.refused_names().await?;
        let chat = |model: &str, words: &str| json!({"model": model, "messages": [{"role": "user", "content": words}]});
        let provider = &self.scene.provider;
        provider.script([Behaviour::Text(text("answer")?)]);
        let job = json!({
            "queue": "hostile", "kind": "llm", "tenant": "corvid", "payload": chat("mock-chat", &text("payload")?),
            "tags": [text("tag")?], "batch_id": text("batch")?, "unique_key": text("unique_key")?, "concurrency_key": text("concurrency_key")?
        });
        let id = self.scene.submit(&[job]).await?.remove(0);
        self.scene.until(&format!("/v1/jobs/{id}"), |job| job["state"] == "succeeded").await?;
        self.scene.call("hostile", id);
        let body =
            json!({"error": {"message": text("error")?, "type": "invalid_request_error", "code": "<b>"}}).to_string();
        self.scene.provider.script([Behaviour::Respond(400, vec![], body)]);
        let job = json!({"queue": "hostile", "kind": "llm", "payload": chat("mock-chat", "fails")});
        let id = self.scene.submit(&[job]).await?.remove(0);
        self.scene.until(&format!("/v1/jobs/{id}"), |job| job["state"] == "dead").await?;
        self.scene.call("hostile_dead", id);
        let put = |method, path: &str, body: Value| (method, path.to_owned(), body);
        for (method, path, body) in [
            put(Method::PATCH, "/v1/queues/hostile", json!({"paused": true, "reason": text("queue_reason")?})),
            put(
                Method::PATCH,
                "/v1/targets/azure:mock-chat:default",
                json!({"paused": true, "reason": text("target_reason")?}),
            ),
            put(Method::PATCH, "/v1/tenants/corvid", json!({"paused": true, "reason": text("tenant_reason")?})),
            put(Method::POST, "/v1/keys", json!({"name": text("key_name")?, "role": "user", "tenant": "corvid"})),
            put(
                Method::POST,
                "/v1/webhooks",
                json!({"url": "https://hooks.example/x", "events": ["job.dead"], "description": text("webhook_description")?}),
            ),
            put(Method::PUT, &format!("/v1/tenants/{LONG}"), json!({"weight": 1})),
        ] {
            self.scene.ask(method, &path, Some(&body)).await?;
        }
        let waits = self
            .scene
            .submit(&[
                json!({"queue": "hostile", "kind": "probe", "payload": {}}),
                json!({"queue": LONG, "tenant": LONG, "kind": "probe", "payload": {}, "tags": [LONG]}),
            ])
            .await?;
        let reason = json!({"reason": text("cancel_reason")?});
        self.scene.ask(Method::POST, &format!("/v1/jobs/{}/cancel", waits[0]), Some(&reason)).await?;
        self.scene.call("hostile_cancelled", waits[0].clone());
        self.scene.call("long", LONG);
        let order = json!({"action": "cancel", "filter": "queue = hostile and tag = nothing", "reason": text("operation_reason")?});
        let operation = self.scene.ask(Method::POST, "/v1/operations", Some(&order)).await?;
        self.scene.call("hostile_operation", scene::text(&operation, "/id")?);
        let schedule = json!({
            "name": "hostile", "tenant": "corvid", "every": "1h", "paused": true, "reason": text("schedule_reason")?,
            "description": text("schedule_description")?, "template": {"queue": "hostile", "kind": "probe", "payload": {"pad": text("payload")?}}
        });
        let schedule = self.scene.ask(Method::POST, "/v1/schedules", Some(&schedule)).await?;
        self.scene.call("hostile_schedule", scene::text(&schedule, "/id")?);
        Ok(())
    }

    /// Names that would do harm are none.
    async fn refused_names(&self) -> Result<()> {
        let hostile = SCRIPT.replace("FIELD", "name");
        for job in [
            json!({"queue": hostile, "kind": "probe", "payload": {}}),
            json!({"tenant": hostile, "kind": "probe", "payload": {}}),
            json!({"kind": hostile, "payload": {}}),
            json!({"operation": hostile, "kind": "probe", "payload": {}}),
        ] {
            let (status, told) = self.scene.try_ask(Method::POST, "/v1/jobs", Some(&job)).await?;
            ensure!(status == 422, "a job with a name that is none is answered {status}: {told}");
        }
        Ok(())
    }
}

/// The text of a field.
fn text(name: &str) -> Result<String> {
    let field =
        FIELDS.iter().find(|field| field.name == name).with_context(|| format!("{name} has no row in FIELDS"))?;
    Ok(field.text.replace("FIELD", name))
}
